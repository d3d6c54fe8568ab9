"""The training loop that every model of the method shares: batches, epochs, selection, and resuming."""

import io
import pickle
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.optim.lr_scheduler import LRScheduler, OneCycleLR, StepLR

from fer_core.artifacts import replace_file
from fer_core.augment import Views, on_device
from fer_core.batches import Order, cut, shuffled, stream
from fer_core.dataset import Dataset
from fer_core.devices import mixed_precision
from fer_core.errors import TrainingError
from fer_core.experiment import AugmentSettings, Recipe
from fer_core.logits import predict_logits
from fer_core.model_card import describe, trained_on, write_cards
from fer_core.models import Architecture
from fer_core.models.architectures import build
from fer_core.models.checkpoint import ModelCard, save_weights
from fer_core.models.published import load_published
from fer_core.objectives import Batch, Loss
from fer_core.progress import Reporter
from fer_core.steps import NEIGHBOUR_SETTINGS

_RESUME = "resume.pt"
_SELECTED = "selected.safetensors"


@dataclass(frozen=True)
class Training:
    """All that decides the weights a training ends with."""

    name: str
    architecture: Architecture
    recipe: Recipe
    epochs: int
    augment: AugmentSettings
    seed: int
    loss: Loss
    memory: dict[str, Tensor] = field(default_factory=dict)
    """What the loss carries from batch to batch, in tensors that it changes in place; kept with each epoch."""
    order: Order | None = None
    """Of the training rows; shuffled where there is none."""
    au_coverage: dict[str, dict[str, int]] | None = None
    """Images by split and by what became of their action units, where any were used."""


def train(training: Training, dataset: Dataset, folder: Path, device: torch.device, report: Reporter) -> None:
    """Train, resuming from the last finished epoch found in `folder`, and leave a checkpoint there.

    Writes `selected.safetensors` (best accuracy on the validation split, the first of equals), `last.safetensors`,
    `model.json`, and `MODEL_CARD.md` for people. On a CPU a resumed run ends with the same bits as an undisturbed one.

    Raises:
        TrainingError: a loss is not finite.
    """
    recipe = training.recipe
    model = build(training.architecture, len(dataset.card.labels), training.seed)
    if recipe.weights:
        head_kept = load_published(Path(recipe.weights).expanduser(), model, dataset.card.labels)
        report.note(
            f"{recipe.weights}: {'head reordered into our classes' if head_kept else 'a new head, the rest taken over'}"
        )
    model = model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    dtype = torch.bfloat16 if recipe.precision == "bfloat16" else torch.float32
    views = Views(
        on_device(dataset.images, device), dataset.card.mean, dataset.card.std, recipe.input_size, device, dtype
    )
    rows = dataset.rows("train")
    optimiser = torch.optim.SGD(
        model.parameters(),
        recipe.learning_rate,
        momentum=recipe.momentum,
        weight_decay=recipe.weight_decay,
        fused=device.type == "cuda",
    )
    steps = len(cut(rows, recipe.batch))
    schedule = _schedule(optimiser, recipe, steps, training.epochs)
    history = _resume(folder, model, optimiser, schedule, training.memory, report)
    if history:
        report.note(f"{training.name} · seed {training.seed} goes on after epoch {len(history)}")
    for epoch in range(len(history) + 1, training.epochs + 1):
        started = time.perf_counter()
        figures = train_one_epoch(training, model, optimiser, schedule, views, dataset, epoch, steps, report)
        figures |= _validate(model, views, dataset, recipe)
        history.append({"epoch": epoch, **figures, "seconds": time.perf_counter() - started})
        if selected_epoch(history) == epoch:
            save_weights(folder / _SELECTED, model)
        _save_resume(folder, model, optimiser, schedule, training.memory, history)
        report.metrics(model=training.name, seed=training.seed, **history[-1])
    save_weights(folder / "last.safetensors", model)
    model.load_state_dict(load_file(folder / _SELECTED))
    write_cards(folder, describe(_card(training, dataset, history), model, views, dataset))
    (folder / _RESUME).unlink()


def train_one_epoch(
    training: Training,
    model: nn.Module,
    optimiser: torch.optim.Optimizer,
    schedule: LRScheduler,
    views: Views,
    dataset: Dataset,
    epoch: int,
    steps: int,
    report: Reporter,
) -> dict[str, float]:
    """One pass over the training images; mean of each loss term, and accuracy against the hard label.

    Raises:
        TrainingError: a loss is not finite; names the images of the batch.
    """
    model.train()
    labels = torch.from_numpy(dataset.labels())
    augmentation, extra = (stream(training.seed, epoch, purpose) for purpose in (1, 2))
    order = training.order or shuffled(dataset.rows("train"), training.seed)
    sums: dict[str, float] = {}
    seen = 0
    rate = float(schedule.get_last_lr()[0])
    what = f"{training.name} · seed {training.seed} · epoch {epoch} of {training.epochs}"
    for step, rows in enumerate(cut(order(epoch), training.recipe.batch), start=1):
        with mixed_precision(views.device, training.recipe.precision):
            images = views.random(rows, training.augment, augmentation)
            logits = model(images)
            batch = Batch(rows, images, logits, lambda other: views.random(other, training.augment, extra), extra)
            terms = training.loss(model, batch)
        loss = torch.stack(list(terms.values())).sum(dim=0).mean()
        if not torch.isfinite(loss):
            raise TrainingError(_not_finite(loss, what, dataset.manifest["id"].to_numpy()[rows]))
        optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        schedule.step()
        seen += len(rows)
        correct = logits.detach().argmax(dim=1).cpu() == labels[rows]
        for name, values in {**terms, "accuracy": correct}.items():
            sums[name] = sums.get(name, 0.0) + float(values.detach().sum())
        report.progress(what, step, steps)
    return {"learning_rate": rate, **{f"train_{name}": total / seen for name, total in sums.items()}}


def selected_epoch(history: list[dict[str, float]]) -> int:
    """The epoch of the best validation accuracy, the first of equals; counted from 1."""
    return 1 + int(np.argmax([figures["validation_accuracy"] for figures in history]))


def _validate(model: nn.Module, views: Views, dataset: Dataset, recipe: Recipe) -> dict[str, float]:
    rows = dataset.rows("validation")
    labels = dataset.labels()[rows]
    logits = torch.from_numpy(predict_logits(model, views, rows, recipe.precision))
    loss = nn.functional.cross_entropy(logits, torch.from_numpy(labels))
    accuracy = (logits.argmax(dim=1).numpy() == labels).mean()
    return {"validation_loss": float(loss), "validation_accuracy": float(accuracy)}


def _schedule(optimiser: torch.optim.Optimizer, recipe: Recipe, steps: int, epochs: int) -> LRScheduler:
    if recipe.schedule == "step":
        return StepLR(optimiser, step_size=recipe.decay_every * steps, gamma=recipe.decay_factor)
    # One step more than are taken, so that the schedule may be asked for the rate after the last.
    return OneCycleLR(optimiser, recipe.learning_rate, total_steps=epochs * steps + 1)


def _resume(
    folder: Path,
    model: nn.Module,
    optimiser: torch.optim.Optimizer,
    schedule: LRScheduler,
    memory: dict[str, Tensor],
    report: Reporter,
) -> list[dict[str, float]]:
    path = folder / _RESUME
    if not path.exists():
        return []
    try:
        state = torch.load(path, weights_only=True, map_location="cpu")
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        report.note(f"{path}: damaged ({str(error).splitlines()[0]}), so training starts again")
        return []
    model.load_state_dict(state["model"])
    optimiser.load_state_dict(state["optimiser"])
    schedule.load_state_dict(state["schedule"])
    for name, tensor in memory.items():
        tensor.copy_(state["memory"][name])
    history: list[dict[str, float]] = state["history"]
    return history


def _save_resume(
    folder: Path,
    model: nn.Module,
    optimiser: torch.optim.Optimizer,
    schedule: LRScheduler,
    memory: dict[str, Tensor],
    history: list[dict[str, float]],
) -> None:
    state = {
        "model": model.state_dict(),
        "optimiser": optimiser.state_dict(),
        "schedule": {k: v for k, v in schedule.state_dict().items() if not callable(v)},
        "memory": memory,
        "history": history,
    }
    content = io.BytesIO()
    torch.save(state, content)
    replace_file(folder / _RESUME, content.getvalue())


def _card(training: Training, dataset: Dataset, history: list[dict[str, float]]) -> ModelCard:
    unused = NEIGHBOUR_SETTINGS if training.name == "LDG" else ()
    return ModelCard(
        architecture=training.architecture,
        labels=dataset.card.labels,
        mean=dataset.card.mean,
        std=dataset.card.std,
        input_size=training.recipe.input_size,
        stored_size=dataset.images.shape[1],
        name=training.name,
        seed=training.seed,
        epochs=training.epochs,
        selected_epoch=selected_epoch(history),
        history=history,
        trained_on=trained_on(dataset, training.au_coverage),
        recipe={k: v for k, v in asdict(training.recipe).items() if k.rstrip("_") not in unused},
    )


def _not_finite(loss: Tensor, what: str, ids: np.ndarray) -> str:
    return (
        f"{what}: the loss is {loss.item()}; the batch's images are {', '.join(map(str, ids))}. "
        "Look at these, or lower the recipe's learning_rate"
    )


def targets(dataset: Dataset, labels: Literal["majority", "distribution"]) -> Tensor:
    """What a model without a generator learns from: one-hot labels, or the crowd's distribution.

    Returns:
        (N, classes) float32, rows sum to 1.

    Raises:
        TrainingError: the crowd's distribution is asked for and the dataset has none.
    """
    if labels == "majority":
        return nn.functional.one_hot(torch.from_numpy(dataset.labels()), len(dataset.card.labels)).float()
    crowd = dataset.crowd()
    if crowd is None:
        raise TrainingError(
            f"dataset.labels = distribution: {dataset.card.source} has no crowd distributions; use majority"
        )
    return torch.from_numpy(crowd)
