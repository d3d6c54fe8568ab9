"""The training loop that every model of the method shares: batches, epochs, selection, and resuming."""

import io
import pickle
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LRScheduler, OneCycleLR, StepLR

from fer_core.artifacts import replace_file
from fer_core.data.dataset import UNLABELLED, Dataset
from fer_core.data.order import Epochs, cut
from fer_core.data.views import Views, on_device
from fer_core.devices import Precision, choose_precision, dtype_of, keep_freed_memory, processor_of, warn_of_precision
from fer_core.errors import TrainingError
from fer_core.evaluation.model_card import describe, trained_on, write_cards
from fer_core.experiment import AugmentSettings, Recipe
from fer_core.models import Architecture
from fer_core.models.architectures import build, to_train
from fer_core.models.checkpoint import ModelCard, save_tensors, save_weights
from fer_core.models.logits import predict_logits
from fer_core.models.published import load_published
from fer_core.paths import at_home
from fer_core.progress import Reporter
from fer_core.train.objectives import Objective
from fer_core.train.step import TrainingStep, take_epoch

RESUME = "resume.pt"
_SELECTED = "selected.safetensors"


@dataclass(frozen=True)
class Training:
    """A training: with the run's seed, all that decides the final weights."""

    name: str
    architecture: Architecture
    recipe: Recipe
    epochs: int
    augment: AugmentSettings
    objective: Objective
    au_coverage: dict[str, dict[str, int]] | None = None
    """Images by split and by the outcome of their annotation, if action units are used."""
    rows: np.ndarray | None = None
    """Row numbers of an epoch, each as often as it is seen; None takes each training image once."""
    unused_settings: tuple[str, ...] = ()
    """Keys of the recipe that this training has no use for; the model card leaves them out."""

    def epoch_rows(self, dataset: Dataset) -> np.ndarray:
        """Row numbers of an epoch's images."""
        return dataset.rows("train") if self.rows is None else self.rows


@dataclass(frozen=True)
class Run:
    """The context of one training: seed, output folder, device, and progress reporter."""

    seed: int
    folder: Path
    device: torch.device
    report: Reporter
    capture: bool = True
    """Capture a GPU's steps as CUDA graphs."""


def train(training: Training, dataset: Dataset, run: Run) -> None:
    """Train, resuming from the last finished epoch found in the run's folder, and leave a checkpoint there.

    Writes `selected.safetensors` (best accuracy on the validation split, the first of equals), `last.safetensors`,
    `model.json`, and `MODEL_CARD.md` for people. On a CPU a resumed run ends with the same bits as an undisturbed one.
    RESUME stays, to be deleted once all else of the artifact is written.

    Raises:
        TrainingError: a loss is not finite.
        CheckpointError: the recipe's `weights` cannot be read, or are of another architecture.
    """
    if run.device.type == "cpu":
        keep_freed_memory()
    recipe, memory = training.recipe, training.objective.memory
    precision = _chosen_precision(training, run)
    model = to_train(_initial_model(training, dataset, run), run.device, precision)
    views = _views(dataset, recipe.input_size, run.device, precision)
    optimiser, schedule = _optimiser(model, training, dataset, run)
    history, selected, hardware = _resume(run.folder, model, optimiser, schedule, memory, run.report)
    hardware = list(dict.fromkeys([*hardware, f"{processor_of(run.device).kind}, {precision}"]))
    if history:
        begun = f", begun on {' and '.join(hardware[:-1])}" if len(hardware) > 1 else ""
        run.report.note(f"{training.name} · seed {run.seed} goes on after epoch {len(history)}{begun}")
    labels = torch.from_numpy(dataset.labels()).to(run.device)
    capture = run.capture and run.device.type == "cuda"
    step = TrainingStep(
        model,
        optimiser,
        schedule,
        training.objective,
        views,
        labels,
        precision,
        capture=capture,
        tell=run.report.note,
    )
    epochs = _epochs(training, dataset, views, run)
    with ThreadPoolExecutor(1, "files") as thread:
        written = thread.submit(lambda: None)
        for epoch in range(len(history) + 1, training.epochs + 1):
            started = time.perf_counter()
            metrics = {"learning_rate": float(schedule.get_last_lr()[0])}
            model.train()
            metrics |= train_one_epoch(training, step, epochs, epoch, dataset, run)
            metrics |= _validate(model, views, dataset, precision)
            history.append({"epoch": epoch, **metrics, "seconds": time.perf_counter() - started})
            written.result()  # The last epoch's files are whole before they are written over.
            state = _state(model, optimiser, schedule, memory, history)
            if selected_epoch(history) == epoch:
                selected = state["model"]
            written = thread.submit(_write_resume, run.folder, state | {"selected": selected, "hardware": hardware})
            run.report.metrics(model=training.name, seed=run.seed, **history[-1])
        written.result()
    save_weights(run.folder / "last.safetensors", model)
    save_tensors(run.folder / _SELECTED, selected)
    model.load_state_dict(selected)
    card = _card(training, dataset, run, history, hardware)
    write_cards(run.folder, describe(card, model, views, dataset))


def tell_fewer_steps(training: Training, dataset: Dataset, alone: int, setting: str, report: Reporter) -> None:
    """Warn of a training that is over before one of the labelled images alone is, as where few others are there.

    Args:
        alone: training steps on the labelled images alone.
        setting: the key that says for how many epochs this one goes.
    """
    rows = training.epoch_rows(dataset)
    steps = len(cut(rows, training.recipe.batch))
    if training.epochs * steps < alone:
        report.note(
            f"{training.name} takes {training.epochs * steps:,} training steps, in {training.epochs} epochs of "
            f"{len(rows):,} images, and labels alone take {alone:,}, so the two are no fair comparison; "
            f"{-(-alone // steps)} epochs would be as many: {setting}"
        )


def _epochs(training: Training, dataset: Dataset, views: Views, run: Run) -> Epochs:
    rows, objective = training.epoch_rows(dataset), training.objective
    batch, last = training.recipe.batch, training.epochs
    return Epochs(rows, batch, views, training.augment, objective.companions, run.seed, last, objective.kept)


def _chosen_precision(training: Training, run: Run) -> Precision:
    """The recipe's precision on this machine; warns before the first step if bfloat16 is only emulated here."""
    recipe, processor = training.recipe, processor_of(run.device)
    if warning := warn_of_precision(recipe.precision, training.architecture, processor):
        run.report.note(warning)
    return choose_precision(recipe.precision, training.architecture, recipe.input_size, processor)


def _initial_model(training: Training, dataset: Dataset, run: Run) -> nn.Module:
    """Build the network with the recipe's initial weights."""
    recipe = training.recipe
    model = build(training.architecture, len(dataset.card.labels), run.seed)
    if recipe.weights:
        head_kept = load_published(at_home(recipe.weights), model, dataset.card.labels)
        run.report.note(
            f"{recipe.weights}: {'head reordered into our classes' if head_kept else 'a new head, the rest taken over'}"
        )
    return model


def _views(dataset: Dataset, size: int, device: torch.device, precision: Precision) -> Views:
    card = dataset.card
    return Views(on_device(dataset.images, device), card.mean, card.std, size, device, dtype_of(precision))


def _optimiser(
    model: nn.Module, training: Training, dataset: Dataset, run: Run
) -> tuple[torch.optim.Optimizer, LRScheduler]:
    recipe = training.recipe
    optimiser = torch.optim.SGD(
        model.parameters(),
        recipe.learning_rate,
        momentum=recipe.momentum,
        weight_decay=recipe.weight_decay,
        fused=run.device.type == "cuda",
    )
    steps = len(cut(training.epoch_rows(dataset), recipe.batch))
    return optimiser, _schedule(optimiser, recipe, steps, training.epochs)


def train_one_epoch(
    training: Training, step: TrainingStep, epochs: Epochs, epoch: int, dataset: Dataset, run: Run
) -> dict[str, float]:
    """One pass over the training images; mean of each loss term, and accuracy against the hard label.

    Raises:
        TrainingError: a loss is not finite; names the images of the batch.
    """
    batches = epochs.batches(epoch)
    what = f"{training.name} · seed {run.seed} · epoch {epoch} of {training.epochs}"
    measured = take_epoch(step, epochs, epoch, lambda done: run.report.progress(what, done, len(batches)))
    for number in np.flatnonzero(~np.isfinite(measured[:, -1]))[:1]:
        ids = dataset.manifest["id"].to_numpy()[batches[number]]
        raise TrainingError(_not_finite(measured[number, -1], what, ids))
    # One after the other, as a running sum adds them.
    *terms, right, _ = np.cumsum(measured, axis=0)[-1]
    seen = np.concatenate(batches)
    metrics = {f"train_{name}": float(total / len(seen)) for name, total in zip(step.terms, terms, strict=True)}
    labelled = (dataset.labels()[seen] != UNLABELLED).sum()  # what has no label is never predicted right
    return metrics | {"train_accuracy": float(right / labelled)}


def selected_epoch(history: list[dict[str, float]]) -> int:
    """The epoch of the best validation accuracy, the first of equals; counted from 1."""
    return 1 + int(np.argmax([figures["validation_accuracy"] for figures in history]))


def _validate(model: nn.Module, views: Views, dataset: Dataset, precision: Precision) -> dict[str, float]:
    rows = dataset.rows("validation")
    labels = dataset.labels()[rows]
    logits = torch.from_numpy(predict_logits(model, views, rows, precision))
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
) -> tuple[list[dict[str, float]], dict[str, Tensor], list[str]]:
    """The history so far, the best weights of it, and what it was trained on, as far as that was written down."""
    path = folder / RESUME
    if not path.exists():
        return [], {}, []
    try:
        state = torch.load(path, weights_only=True, map_location="cpu")
        selected: dict[str, Tensor] = state["selected"]
    except (pickle.UnpicklingError, RuntimeError, EOFError, KeyError) as error:
        reason = (str(error).splitlines() or ["cut short"])[0]  # Torch's EOFError has no words.
        report.note(f"{path}: damaged ({reason}), so training starts again")
        return [], {}, []
    model.load_state_dict(state["model"])
    optimiser.load_state_dict(state["optimiser"])
    schedule.load_state_dict(state["schedule"])
    for name, tensor in memory.items():
        tensor.copy_(state["memory"][name])
    history: list[dict[str, float]] = state["history"]
    return history, selected, state.get("hardware", [])


def _state(
    model: nn.Module,
    optimiser: torch.optim.Optimizer,
    schedule: LRScheduler,
    memory: dict[str, Tensor],
    history: list[dict[str, float]],
) -> dict[str, Any]:
    """A copy of all that the next epoch starts from, so that training goes on while it is written."""
    state = {
        "model": model.state_dict(),
        "optimiser": optimiser.state_dict(),
        "schedule": {k: v for k, v in schedule.state_dict().items() if not callable(v)},
        "memory": memory,
        "history": history,
    }
    copied: dict[str, Any] = _copied(state)
    return copied


def _copied(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, dict):
        return {key: _copied(part) for key, part in value.items()}
    return [_copied(part) for part in value] if isinstance(value, list) else value


def _write_resume(folder: Path, state: dict[str, Any]) -> None:
    """Write it with the best weights so far, in one file: of two, a kill could leave one an epoch ahead of the other.

    Where bits differ from machine to machine, or on a GPU from run to run, that epoch may not be the best again.
    """
    content = io.BytesIO()
    torch.save(state, content)
    replace_file(folder / RESUME, content.getvalue())


def _card(
    training: Training, dataset: Dataset, run: Run, history: list[dict[str, float]], hardware: list[str]
) -> ModelCard:
    return ModelCard(
        architecture=training.architecture,
        labels=dataset.card.labels,
        mean=dataset.card.mean,
        std=dataset.card.std,
        input_size=training.recipe.input_size,
        stored_size=dataset.images.shape[1],
        name=training.name,
        seed=run.seed,
        epochs=training.epochs,
        selected_epoch=selected_epoch(history),
        history=history,
        trained_on=trained_on(dataset, training.epoch_rows(dataset), training.au_coverage)
        | {"hardware": "; then ".join(hardware)},
        recipe={k: v for k, v in asdict(training.recipe).items() if k.rstrip("_") not in training.unused_settings},
    )


def _not_finite(loss: float, what: str, ids: np.ndarray) -> str:
    return (
        f"{what}: the loss is {loss}; the batch's images are {', '.join(map(str, ids))}. "
        "Look at these, or lower the recipe's learning_rate"
    )


def targets(dataset: Dataset, labels: Literal["majority", "distribution"]) -> Tensor:
    """Targets of a model without a generator: one-hot labels, or the crowd's distribution.

    Returns:
        (N, classes) float32, rows sum to 1; NaN for an unlabelled image.

    Raises:
        TrainingError: the crowd's distribution is asked for and the dataset has none.
    """
    if labels == "majority":
        hard = torch.from_numpy(dataset.labels())
        one_hot = nn.functional.one_hot(hard.clamp(min=0), len(dataset.card.labels)).float()
        return torch.where((hard == UNLABELLED).unsqueeze(1), torch.nan, one_hot)
    crowd = dataset.crowd()
    if crowd is None:
        raise TrainingError(
            f"dataset.labels = distribution: {dataset.card.source} has no crowd distributions; use majority"
        )
    return torch.from_numpy(crowd)
