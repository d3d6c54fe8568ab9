"""Training: what λ = 0 means, what batch normalisation remembers, and what a kill costs."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from itertools import chain, count, islice
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
from conftest import chain_graph
from safetensors.torch import load_file
from torch import Tensor, nn

from fer_core.artifacts import replace_file
from fer_core.data.dataset import Dataset, open_dataset
from fer_core.data.order import Epochs, cut, draw_epoch, draw_views, send_together, shuffled, stream
from fer_core.data.views import Views
from fer_core.devices import Processor, choose_device, processor_of
from fer_core.errors import TrainingError
from fer_core.experiment import AugmentSettings, Experiment, LdgSettings, Recipe
from fer_core.graph.neighbours import Graph
from fer_core.models.architectures import build
from fer_core.models.checkpoint import load_checkpoint, read_card
from fer_core.progress import JsonLines
from fer_core.steps.run import _finish_checkpoint
from fer_core.train.ldg import train_ldg
from fer_core.train.loop import Run, Training, targets, train
from fer_core.train.losses import neighbour_divergence
from fer_core.train.objectives import (
    Batch,
    LossTerms,
    Neighbours,
    Objective,
    cross_entropy_by_view,
    cross_entropy_online,
    cross_entropy_to,
    cross_entropy_with_bank,
    cross_entropy_with_neighbours,
    frozen_running_statistics,
    objective_of,
)
from fer_core.train.step import TrainingStep

CPU = torch.device("cpu")
RECIPE = Recipe(epochs=2, batch=16, learning_rate=0.02, input_size=48)
LDG = LdgSettings(architecture="resnet18", epochs=2, batch=16, learning_rate=0.02, input_size=48)


def weights(folder: Path) -> dict[str, Tensor]:
    return load_file(folder / "last.safetensors")


def same(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def trained(dataset: Dataset, folder: Path, recipe: Recipe = RECIPE, seed: int = 1) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    objective = cross_entropy_to(targets(dataset, "majority"))
    training = Training("EF SLL", "efficientface", recipe, recipe.epochs, AugmentSettings((0.8, 1.0)), objective)
    train(training, dataset, Run(seed, folder, CPU, JsonLines()))
    return folder


def test_a_network_learns_stripes(dataset: Dataset, tmp_path: Path) -> None:
    folder = trained(dataset, tmp_path / "model", replace(RECIPE, epochs=15, schedule="one-cycle", learning_rate=0.05))
    model, card = load_checkpoint(folder)
    best = max(figures["validation_accuracy"] for figures in card.history)
    assert best >= 0.6
    assert card.history[card.selected_epoch - 1]["validation_accuracy"] == best
    losses = [figures["train_cross_entropy"] for figures in card.history]
    assert sum(losses[-5:]) / 5 < losses[0]  # an epoch is three batches of few images: one alone may go either way
    assert not model.training
    assert sorted(p.name for p in folder.iterdir()) == [
        "MODEL_CARD.md",
        "last.safetensors",
        "model.json",
        "resume.pt",
        "selected.safetensors",
    ]


def test_weights_follow_from_the_seed(dataset: Dataset, tmp_path: Path) -> None:
    torch.manual_seed(1)
    first = trained(dataset, tmp_path / "a")
    torch.manual_seed(2)
    assert same(weights(first), weights(trained(dataset, tmp_path / "b")))
    assert not same(weights(first), weights(trained(dataset, tmp_path / "c", seed=2)))


def test_with_lambda_0_it_is_the_ldg_to_the_bit(dataset: Dataset, graph: Graph, tmp_path: Path) -> None:
    results = {}
    for name, lambda_, linked in (("ldg", 0.5, None), ("zero", 0.0, graph), ("aus", 0.5, graph)):
        folder = tmp_path / name
        folder.mkdir()
        settings = Experiment(ldg=replace(LDG, lambda_=lambda_, epochs_with_neighbours=1))
        train_ldg(settings, dataset, "majority", linked, Run(1, folder, CPU, JsonLines()))
        results[name] = weights(folder)
    assert same(results["ldg"], results["zero"])
    assert not same(results["ldg"], results["aus"])


def view(dataset: Dataset, rows: Tensor) -> Tensor:
    """The images as they are: (len(rows), 3, S, S)."""
    return torch.from_numpy(dataset.images[rows.numpy()]).permute(0, 3, 1, 2).float().expand(-1, 3, -1, -1) / 255


def loss_of(objective: Objective, dataset: Dataset, model: nn.Module, rows: np.ndarray, seed: int = 1) -> LossTerms:
    """The terms of a batch whose random views, and its neighbours', are the images as they are."""
    batch = batch_of(dataset, model, rows)
    if objective.companions is not None:
        distinct, *places = objective.companions(rows, torch.Generator().manual_seed(seed))
        place, similarity = map(torch.from_numpy, places)
        batch = replace(batch, neighbours=Neighbours(view(dataset, torch.from_numpy(distinct)), place, similarity))
    return objective.loss(model, batch)


def batch_of(dataset: Dataset, model: nn.Module, rows: np.ndarray) -> Batch:
    images = view(dataset, torch.from_numpy(rows))
    return Batch(torch.from_numpy(rows), images, model(images))


def test_neighbours_pull_by_equation_1_and_leave_running_statistics_alone(dataset: Dataset, graph: Graph) -> None:
    model = build("resnet18", 3, seed=1).train()
    rows = dataset.rows("train")[:8]
    logits = batch_of(dataset, model, rows).logits
    before = {name: value.clone() for name, value in model.named_buffers() if "running" in name}
    target = targets(dataset, "majority")
    terms = loss_of(cross_entropy_with_neighbours(target, graph, 0.3), dataset, model, rows)
    once = loss_of(cross_entropy_to(target), dataset, model, rows)
    assert before.keys() == {name for name, _ in model.named_buffers() if "running" in name}
    neighbours, alike = graph.neighbours[rows], torch.from_numpy(graph.similarity[rows])
    distinct = np.unique(neighbours[neighbours >= 0])
    with frozen_running_statistics(model):
        kept = {name: value.clone() for name, value in model.named_buffers()}
        of_neighbours = model(view(dataset, torch.from_numpy(distinct)))
        assert all(torch.equal(value, kept[name]) for name, value in model.named_buffers())
    each = of_neighbours[np.maximum(np.searchsorted(distinct, neighbours), 0) % len(distinct)]
    torch.testing.assert_close(terms["lambda_omega"], 0.3 * neighbour_divergence(logits, each, alike))
    torch.testing.assert_close(terms["cross_entropy"], once["cross_entropy"])


def test_the_bank_pulls_as_the_neighbours_themselves_would(dataset: Dataset, graph: Graph) -> None:
    """In evaluation mode, with weights that stay, a remembered prediction is the prediction."""
    model = build("resnet18", 3, seed=1).eval()
    target, rows = targets(dataset, "majority"), dataset.rows("train")
    remembering = cross_entropy_with_bank(target, graph, 0.3)
    with torch.no_grad():
        first = loss_of(remembering, dataset, model, rows)["lambda_omega"]
    assert (first == 0).all()  # No prediction is remembered yet.
    expected = loss_of(cross_entropy_with_neighbours(target, graph, 0.3), dataset, model, rows[:8])
    remembered = loss_of(remembering, dataset, model, rows[:8])
    torch.testing.assert_close(remembered, expected)
    parameters = list(model.parameters())
    gradients = [
        torch.autograd.grad(torch.stack(list(terms.values())).sum(), parameters, retain_graph=True)
        for terms in (remembered, expected)
    ]
    torch.testing.assert_close(gradients[0], gradients[1])


def test_the_bank_knows_only_who_was_seen(dataset: Dataset, graph: Graph) -> None:
    model = build("resnet18", 3, seed=1).eval()
    target, rows = targets(dataset, "majority"), dataset.rows("train")
    objective = cross_entropy_with_bank(target, graph, 0.3)
    loss_of(objective, dataset, model, rows[:5])
    bank = objective.memory["bank"]
    seen = torch.isfinite(bank).all(dim=1).numpy()
    assert set(np.flatnonzero(seen)) == set(rows[:5])
    torch.testing.assert_close(bank[rows[:5]].exp().sum(dim=1), torch.ones(5))


def test_drawn_neighbours_estimate_the_whole_sum_without_bias(dataset: Dataset, graph: Graph) -> None:
    """In evaluation mode a neighbour's prediction does not depend on its company, so the mean must converge."""
    model = build("resnet18", 3, seed=1).eval()
    rows, target = dataset.rows("train")[:6], targets(dataset, "majority")
    whole = loss_of(cross_entropy_with_neighbours(target, graph, 1.0), dataset, model, rows)["lambda_omega"]
    drawn = cross_entropy_with_neighbours(target, graph, 1.0, 1)
    estimates = torch.stack([loss_of(drawn, dataset, model, rows, seed)["lambda_omega"] for seed in range(60)])
    error = estimates.std(dim=0) / 60**0.5
    assert ((estimates.mean(dim=0) - whole).abs() <= 4 * error + 1e-6).all()
    assert estimates.std(dim=0).max() > 0


def test_neighbours_are_as_many_and_as_differentiated_as_the_experiment_says(dataset: Dataset, graph: Graph) -> None:
    rows, target, gradients = dataset.rows("train")[:6], targets(dataset, "majority"), []
    for drawn, gradient in ((0, False), (0, True), (1, False)):
        settings = replace(LDG, neighbours="forward", neighbours_drawn=drawn, neighbour_gradient=gradient)
        linear = nn.Linear(48 * 48 * 3, 3, bias=False)
        objective, model = objective_of(settings, target, graph), nn.Sequential(nn.Flatten(), linear)
        nn.init.normal_(linear.weight, 0, 0.1, generator=torch.Generator().manual_seed(1))
        assert objective.companions is not None
        assert objective.companions(rows, torch.Generator())[1].shape == (6, drawn or 2)
        loss_of(objective, dataset, model, rows)["lambda_omega"].sum().backward()
        assert linear.weight.grad is not None
        gradients.append(linear.weight.grad)
    assert not torch.equal(gradients[0], gradients[1])


def test_an_image_without_neighbours_is_not_pulled(dataset: Dataset, graph: Graph) -> None:
    model = build("resnet18", 3, seed=1).eval()
    target, rows = targets(dataset, "majority"), dataset.rows("train")[:4]
    alone = replace(graph, neighbours=np.full_like(graph.neighbours, -1), similarity=np.zeros_like(graph.similarity))
    for objective in (cross_entropy_with_neighbours(target, alone, 0.3), cross_entropy_with_bank(target, alone, 0.3)):
        assert (loss_of(objective, dataset, model, rows)["lambda_omega"] == 0).all()


STEPS = 20


def step_by_step(dataset: Dataset, settings: LdgSettings, graph: Graph) -> list[float]:
    """Losses of the first steps, each drawn and taken by itself, as the method is written down: the slow way."""
    model = build(settings.architecture, len(dataset.card.labels), seed=1).to(memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    card, augment = dataset.card, AugmentSettings((0.5, 1.0))
    views = Views(dataset.images, card.mean, card.std, settings.input_size, CPU)
    optimiser = torch.optim.SGD(model.parameters(), settings.learning_rate, momentum=0.9, weight_decay=4e-4)
    target = targets(dataset, "majority")
    remembered = torch.full_like(target, torch.nan)
    losses: list[float] = []
    for epoch in count(1):
        order = dataset.rows("train")
        order = order[torch.randperm(len(order), generator=stream(1, epoch, 0)).numpy()]
        crops, others = stream(1, epoch, 1), stream(1, epoch, 2)
        for rows in cut(order, settings.batch):
            if len(losses) == STEPS:
                return losses
            logits = model(views.random(rows, augment, crops))
            neighbours, alike = graph.neighbours[rows], torch.from_numpy(graph.similarity[rows])
            if settings.neighbours == "bank":
                of_neighbours = remembered[torch.from_numpy(neighbours.astype(np.int64)).clamp(min=0)]
                known = torch.isfinite(of_neighbours).all(dim=-1) & torch.from_numpy(neighbours >= 0)
                alike = torch.where(known, alike, 0.0)
                of_neighbours = torch.where(known.unsqueeze(-1), of_neighbours, 0.0)
                remembered[rows] = torch.log_softmax(logits.detach(), dim=-1)
            else:
                distinct, place = np.unique(neighbours[neighbours >= 0], return_inverse=True)
                where = np.zeros(neighbours.shape, np.int64)
                where[neighbours >= 0] = place
                with frozen_running_statistics(model), torch.no_grad():
                    of_neighbours = model(views.random(distinct.astype(np.int64), augment, others))[where]
            ce = -(target[rows] * torch.log_softmax(logits, dim=-1)).sum(dim=-1)
            loss = (ce + settings.lambda_ * neighbour_divergence(logits, of_neighbours, alike)).mean()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            losses.append(loss.item())
    raise AssertionError


@pytest.mark.parametrize("neighbours", ["forward", "bank"])
def test_the_trainer_takes_the_steps_of_the_slow_way_to_the_bit(
    dataset: Dataset, graph: Graph, neighbours: Literal["forward", "bank"]
) -> None:
    settings = replace(LDG, neighbours=neighbours, lambda_=0.5, batch=8)
    objective = objective_of(settings, targets(dataset, "majority"), graph)
    model = build("resnet18", len(dataset.card.labels), seed=1).to(memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    card = dataset.card
    views = Views(dataset.images, card.mean, card.std, settings.input_size, CPU)
    optimiser = torch.optim.SGD(model.parameters(), settings.learning_rate, momentum=0.9, weight_decay=4e-4)
    schedule = torch.optim.lr_scheduler.StepLR(optimiser, step_size=10**6)
    labels = torch.from_numpy(dataset.labels())
    step = TrainingStep(model, optimiser, schedule, objective, views, labels, "float32")
    epochs = Epochs(
        dataset.rows("train"), settings.batch, views, AugmentSettings((0.5, 1.0)), objective.companions, 1, STEPS
    )
    draws = chain.from_iterable(epochs.draws(epoch) for epoch in count(1))
    losses = [float(step(drawn)[-1]) for drawn in islice(draws, STEPS)]
    assert losses == step_by_step(dataset, settings, graph)
    assert len(set(losses)) == STEPS


def test_each_purpose_of_each_epoch_of_each_seed_draws_by_itself() -> None:
    streams = [stream(seed, epoch, purpose) for seed in (1, 2) for epoch in (1, 2) for purpose in range(4)]
    assert len({float(torch.rand(1, generator=drawn)) for drawn in streams}) == 16


@pytest.mark.parametrize(("images", "sizes"), [(8, [4, 4]), (9, [4, 5]), (10, [4, 4, 2]), (1, [1]), (5, [5])])
def test_a_last_batch_of_one_image_joins_the_one_before(images: int, sizes: list[int]) -> None:
    """Batch normalisation has no variance of one."""
    batches = cut(np.arange(images), 4)
    assert [len(batch) for batch in batches] == sizes
    assert np.concatenate(batches).tolist() == list(range(images))


def test_draws_sent_together_are_those_that_were_drawn(dataset: Dataset, graph: Graph) -> None:
    """As a GPU gets them: many steps in one copy, the last batch smaller, the number of neighbours never the same."""
    objective = cross_entropy_with_neighbours(targets(dataset, "majority"), graph, 0.3)
    batches = cut(shuffled(dataset.rows("train"), 1, 1), 16)
    one_by_one, together = (
        list(draw_epoch(batches, 48, AugmentSettings(), objective.companions, 1, 1)) for _ in range(2)
    )
    sent = send_together(together, CPU)
    assert len({len(draws.rows) for draws in sent}) == 2
    for mine, its in zip(sent, one_by_one, strict=True):
        torch.testing.assert_close(asdict(mine), asdict(its), rtol=0, atol=0)


def test_a_loss_that_is_not_finite_stops_the_run_with_the_batchs_ids(dataset: Dataset, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"the loss is (nan|inf); the batch's images are face\d{4}, face\d{4}"):
        trained(dataset, tmp_path / "model", replace(RECIPE, epochs=30, learning_rate=1e18))


def test_labels_from_a_crowd_that_is_not_there_are_refused(dataset: Dataset) -> None:
    silent = replace(dataset, card=replace(dataset.card, truth=""))
    with pytest.raises(TrainingError, match="no crowd distributions; use majority"):
        targets(silent, "distribution")
    np.testing.assert_allclose(targets(dataset, "distribution").sum(dim=1), 1, atol=1e-6)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_said_at_once() -> None:
    with pytest.raises(TrainingError, match="torch sees no GPU"):
        choose_device("cuda")


SCRIPT = """
import sys, torch
from pathlib import Path
sys.path.insert(0, "tests")
from test_training import RECIPE, replace, trained_in
torch.set_num_threads(1)
trained_in(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
"""


def trained_in(dataset_folder: Path, folder: Path, model: str) -> None:
    """What the process that is killed runs: six epochs, long enough to be hit between them."""
    folder.mkdir(parents=True, exist_ok=True)
    dataset, run = open_dataset(dataset_folder), Run(1, folder, CPU, JsonLines())
    augment = AugmentSettings((0.5, 1.0))
    if model.startswith("EF"):
        recipe = replace(RECIPE, epochs=6, schedule="one-cycle")
        objective = student_objective(model, dataset, augment)
        train(Training(model, "efficientface", recipe, 6, augment, objective), dataset, run)
    else:
        ldg = replace(LDG, epochs=6, decay_every=2, neighbours_drawn=1, lambda_=0.5)
        ldg = replace(ldg, neighbours="bank" if model.endswith("bank") else "forward")
        experiment = Experiment(augment=augment, ldg=ldg)
        train_ldg(experiment, dataset, "majority", chain_graph(dataset), run)


def student_objective(model: str, dataset: Dataset, augment: AugmentSettings) -> Objective:
    """Against hard labels, labels of four views of each image, or an untrained generator's."""
    if model == "EF, views":
        drawn = torch.randn(4, len(dataset.manifest), 3, generator=torch.Generator().manual_seed(1))
        return cross_entropy_by_view(drawn.softmax(dim=2).half(), draw_views(4, len(dataset.manifest), 48, augment, 1))
    if model == "EF, online":
        return cross_entropy_online(build("efficientface", 3, seed=2).eval())
    return cross_entropy_to(targets(dataset, "majority"))


@pytest.mark.parametrize("model", ["EF SLL", "EF, views", "EF, online", "LDG-AUs, forward", "LDG-AUs, bank"])
def test_after_sigkill_training_resumes_and_ends_with_the_same_bits(
    dataset: Dataset, tmp_path: Path, model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    undisturbed, killed = tmp_path / "undisturbed", tmp_path / "killed"
    trained_in(tmp_path / "dataset", undisturbed, model)
    command = [sys.executable, "-c", SCRIPT, str(tmp_path / "dataset"), str(killed), model]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        epochs = (line for line in child.stdout if '"metrics"' in line)
        assert json.loads(next(epochs))["epoch"] == 1
        next(epochs)
        time.sleep(0.1)
        os.kill(child.pid, signal.SIGKILL)
    assert (killed / "resume.pt").exists()
    capsys.readouterr()
    trained_in(tmp_path / "dataset", killed, model)
    resumed = [json.loads(line)["epoch"] for line in capsys.readouterr().out.splitlines() if '"metrics"' in line]
    assert 1 not in resumed
    assert resumed[-1] == 6
    for name in ("last.safetensors", "selected.safetensors"):
        assert (killed / name).read_bytes() == (undisturbed / name).read_bytes()


def test_an_epoch_that_was_broken_off_leaves_nothing_to_what_is_selected(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write: Callable[[Path, bytes], None] = replace_file

    def train_it(name: str, accuracies: list[float]) -> dict[str, Tensor]:
        told = iter([{"validation_loss": 0.0, "validation_accuracy": accuracy} for accuracy in accuracies])
        monkeypatch.setattr("fer_core.train.loop._validate", lambda *arguments: next(told))
        (tmp_path / name).mkdir(exist_ok=True)
        objective = cross_entropy_to(targets(dataset, "majority"))
        training = Training("EF SLL", "efficientface", RECIPE, 2, AugmentSettings((0.8, 1.0)), objective)
        train(training, dataset, Run(1, tmp_path / name, CPU, JsonLines()))
        return load_file(tmp_path / name / "selected.safetensors")

    def die_at_the_second_epochs_state(path: Path, content: bytes) -> None:
        if path.exists():
            raise KeyboardInterrupt
        write(path, content)

    undisturbed = train_it("undisturbed", [0.5, 0.4])
    # As on a GPU, where the second epoch was the best before it was broken off, and is not when it is done again.
    with monkeypatch.context() as patched:
        patched.setattr("fer_core.train.loop.replace_file", die_at_the_second_epochs_state)
        with pytest.raises(KeyboardInterrupt):
            train_it("killed", [0.5, 0.6])
    assert same(train_it("killed", [0.4]), undisturbed)


def test_a_training_that_goes_on_on_other_hardware_says_so(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As where a machine dies and another one, which multiplies other numbers, takes its training over."""
    objective = cross_entropy_to(targets(dataset, "majority"))
    training = Training("EF SLL", "efficientface", RECIPE, 2, AugmentSettings((0.8, 1.0)), objective)
    (folder := tmp_path / "model").mkdir()
    here, other = processor_of(CPU), Processor("AVX-1024", bfloat16=False, cores=1)
    with monkeypatch.context() as patched:
        patched.setattr("fer_core.train.loop.processor_of", lambda device: other)
        patched.setattr("fer_core.train.loop.save_weights", interrupt)
        with pytest.raises(KeyboardInterrupt):
            train(training, dataset, Run(1, folder, CPU, JsonLines()))
    train(training, dataset, Run(1, folder, CPU, JsonLines()))
    assert "goes on after epoch 2, begun on AVX-1024, float32" in capsys.readouterr().out
    assert read_card(folder).trained_on["hardware"] == f"AVX-1024, float32; then {here.kind}, float32"


def test_a_training_is_not_lost_where_the_last_of_its_files_cannot_be_written(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = trained(dataset, tmp_path / "model", replace(RECIPE, epochs=1))
    before = weights(folder)
    with monkeypatch.context() as patched:
        patched.setattr("fer_core.report.step_plots.save_curves", interrupt)
        with pytest.raises(KeyboardInterrupt):
            _finish_checkpoint(folder, dataset)
    capsys.readouterr()
    trained(dataset, folder, replace(RECIPE, epochs=1))
    assert '"metrics"' not in capsys.readouterr().out
    assert same(weights(folder), before)
    _finish_checkpoint(folder, dataset)
    assert not (folder / "resume.pt").exists()


def interrupt(*_: object) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("content", [b"PK half a file", b""])
def test_a_damaged_resume_file_is_told_of_and_training_starts_again(
    dataset: Dataset, tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes
) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "resume.pt").write_bytes(content)
    objective = cross_entropy_to(targets(dataset, "majority"))
    training = Training("EF SLL", "efficientface", RECIPE, 2, AugmentSettings((0.8, 1.0)), objective)
    train(training, dataset, Run(1, tmp_path / "model", CPU, JsonLines()))
    assert "resume.pt: damaged" in capsys.readouterr().out
    assert same(weights(tmp_path / "model"), weights(trained(dataset, tmp_path / "undisturbed")))


def test_what_auto_took_stands_in_the_card_and_emulated_bfloat16_is_told_of_first(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    assert RECIPE.precision == "auto"
    card = read_card(trained(dataset, tmp_path / "auto", replace(RECIPE, epochs=1)))
    assert card.trained_on["hardware"] == f"{processor_of(CPU).kind}, float32"
    assert card.recipe["precision"] == "auto"
    capsys.readouterr()
    emulated = read_card(trained(dataset, tmp_path / "asked", replace(RECIPE, epochs=1, precision="bfloat16")))
    assert emulated.trained_on["hardware"].endswith(", bfloat16")
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert events[0]["event"] == "note"
    assert "AVX2 only emulates it, about 7 times slower" in events[0]["text"]
