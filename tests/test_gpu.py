"""What only a GPU can show: no step waits for it, a captured step is the step, and its checkpoints predict the same on
a CPU. Skipped where there is none; needs what `fer_core` trains with, and no Prefect."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from fer_core.data.dataset import Dataset
from fer_core.data.order import Epochs, draw_views
from fer_core.data.views import Views, on_device
from fer_core.evaluation.calibration import probabilities
from fer_core.experiment import AugmentSettings, Experiment, LdgSettings, StudentRecipe
from fer_core.graph.neighbours import Graph
from fer_core.models.architectures import build
from fer_core.models.checkpoint import load_checkpoint
from fer_core.models.logits import predict_logits
from fer_core.progress import JsonLines
from fer_core.train.ldg import train_ldg
from fer_core.train.loop import Run, Training, targets, train
from fer_core.train.objectives import (
    Objective,
    cross_entropy_by_view,
    cross_entropy_online,
    cross_entropy_to,
    cross_entropy_with_bank,
    cross_entropy_with_neighbours,
)
from fer_core.train.step import TrainingStep, take_epoch

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
GPU, CPU = torch.device("cuda"), torch.device("cpu")
AUGMENT = AugmentSettings((0.5, 1.0))
EPOCHS = 3


class Lesson:
    """A small training, ready for steps."""

    def __init__(
        self, dataset: Dataset, objective: Objective, device: torch.device, *, capture: bool, resident: bool = True
    ) -> None:
        self.told: list[str] = []
        self.model = build("resnet18", 3, seed=1).to(device, memory_format=torch.channels_last).train()  # type: ignore[call-overload]
        images = on_device(dataset.images, device) if resident else dataset.images
        views = Views(images, dataset.card.mean, dataset.card.std, 48, device)
        optimiser = torch.optim.SGD(self.model.parameters(), 0.01, momentum=0.9, fused=device.type == "cuda")
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 0.01, total_steps=100)
        labels = torch.from_numpy(dataset.labels()).to(device)
        self.step = TrainingStep(
            self.model, optimiser, schedule, objective, views, labels, "float32", capture=capture, tell=self.told.append
        )
        self.epochs = Epochs(dataset.rows("train"), 16, views, AUGMENT, objective.companions, 1, EPOCHS, objective.kept)

    def losses(self) -> np.ndarray:
        """(steps,) of all epochs."""
        with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
            return np.concatenate([take_epoch(self.step, self.epochs, e)[:, -1] for e in range(1, EPOCHS + 1)])


def labelled_views(dataset: Dataset, device: torch.device) -> Objective:
    """Two views of each image, with labels drawn at random."""
    drawn = torch.randn(2, len(dataset.manifest), 3, generator=torch.Generator().manual_seed(1))
    kept = draw_views(2, len(dataset.manifest), dataset.images.shape[1], AUGMENT, 1)
    return cross_entropy_by_view(drawn.softmax(dim=2).half().to(device), kept)


def objectives(dataset: Dataset, graph: Graph, device: torch.device) -> dict[str, Objective]:
    target = targets(dataset, "majority").to(device)
    return {
        "LDG": cross_entropy_to(target),
        "bank": cross_entropy_with_bank(target, graph, 0.3),
        "forward": cross_entropy_with_neighbours(target, graph, 0.3),
        "views": labelled_views(dataset, device),
        "online": cross_entropy_online(build("efficientface", 3, seed=2).eval().to(device)),
    }


@pytest.mark.parametrize("kind", ["LDG", "bank", "forward", "views", "online"])
def test_a_gpu_takes_the_steps_of_a_cpu(dataset: Dataset, graph: Graph, kind: str) -> None:
    of_cpu, of_gpu = (
        Lesson(dataset, objectives(dataset, graph, device)[kind], device, capture=False) for device in (CPU, GPU)
    )
    np.testing.assert_allclose(of_gpu.losses()[:4], of_cpu.losses()[:4], rtol=0.02)


@pytest.mark.parametrize("kind", ["LDG", "bank", "views", "online"])
@pytest.mark.parametrize("resident", [True, False])
def test_a_captured_step_is_the_step(dataset: Dataset, graph: Graph, kind: str, resident: bool) -> None:
    """The last batch of an epoch is smaller and taken without the graph; both write the same momentum."""
    eager = Lesson(dataset, objectives(dataset, graph, GPU)[kind], GPU, capture=False)
    captured = Lesson(dataset, objectives(dataset, graph, GPU)[kind], GPU, capture=True, resident=resident)
    losses = captured.losses()
    assert captured.step.captured, captured.told
    assert not captured.told
    # A GPU adds up in no order of its own, and a young network doubles such a difference with each step.
    np.testing.assert_allclose(losses[:5], eager.losses()[:5], rtol=0.01)
    for (name, ours), theirs in zip(captured.model.named_buffers(), eager.model.buffers(), strict=True):
        if name.endswith("num_batches_tracked"):
            assert ours == theirs == len(losses), "warming up for the capture leaves no trace"


def test_neighbours_forwarded_are_not_captured_and_that_is_said(dataset: Dataset, graph: Graph) -> None:
    lesson = Lesson(dataset, objectives(dataset, graph, GPU)["forward"], GPU, capture=True)
    assert np.isfinite(lesson.losses()).all()
    assert not lesson.step.captured
    assert "each is of another shape" in lesson.told[0]


@contextmanager
def no_waiting() -> Iterator[None]:
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("kind", ["LDG", "bank", "forward", "views", "online"])
def test_no_step_waits_for_the_gpu(dataset: Dataset, graph: Graph, kind: str) -> None:
    lesson = Lesson(dataset, objectives(dataset, graph, GPU)[kind], GPU, capture=kind != "forward")
    lesson.losses()
    draws = list(islice(lesson.epochs.draws(1), 8))
    torch.cuda.synchronize()
    with no_waiting():
        for drawn in draws:
            lesson.step(drawn)


def test_a_checkpoint_trained_on_a_gpu_predicts_the_same_on_a_cpu(
    dataset: Dataset, graph: Graph, tmp_path: Path
) -> None:
    settings = LdgSettings(architecture="resnet18", epochs=4, batch=16, learning_rate=0.02, input_size=48)
    ldg = replace(settings, neighbours="bank", lambda_=0.3, precision="bfloat16")
    student = StudentRecipe(epochs=6, batch=16, learning_rate=0.05, schedule="one-cycle", input_size=48)
    for name in ("ldg", "student"):
        (tmp_path / name).mkdir()
    train_ldg(Experiment(ldg=ldg), dataset, "majority", graph, Run(1, tmp_path / "ldg", GPU, JsonLines()))
    objective = cross_entropy_to(targets(dataset, "majority").to(GPU))
    training = Training("EF SLL", "efficientface", student, student.epochs, AUGMENT, objective)
    train(training, dataset, Run(1, tmp_path / "student", GPU, JsonLines()))
    rows = np.arange(len(dataset.manifest))
    for name in ("ldg", "student"):
        model, card = load_checkpoint(tmp_path / name)
        there, here = (probabilities(predicted(model, dataset, card.input_size, d, rows)) for d in (GPU, CPU))
        assert np.abs(there - here).max() < 1e-3
        assert (there.argmax(axis=1) == here.argmax(axis=1)).mean() >= 0.999


def predicted(model: nn.Module, dataset: Dataset, size: int, device: torch.device, rows: np.ndarray) -> np.ndarray:
    views = Views(on_device(dataset.images, device), dataset.card.mean, dataset.card.std, size, device)
    return predict_logits(model.to(device), views, rows)


def test_efficientface_computes_on_a_gpu_what_it_does_on_a_cpu() -> None:
    """A GPU has other ways for its 1×1 and strided depthwise convolutions; in float64 nothing but rounding differs."""
    images = torch.randn(4, 3, 64, 64, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    found = []
    for device in (CPU, GPU):
        network = build("efficientface", 7, seed=3).double().to(device).train()
        logits = network(images.to(device))
        logits.square().sum().backward()
        found.append((logits.detach().cpu(), [p.grad.cpu() for p in network.parameters() if p.grad is not None]))
    torch.testing.assert_close(found[1], found[0], rtol=1e-8, atol=1e-8)
