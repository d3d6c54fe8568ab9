"""Checkpoints: weights as safetensors with a card; weights without a card are refused."""

import io
import json
import math
import zipfile
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeGuard

import numpy as np
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from fer_core.artifacts import open_artifact, replace_file
from fer_core.data.dataset import Dataset
from fer_core.errors import ArtifactError, CheckpointError
from fer_core.models import Architecture
from fer_core.models.architectures import ARCHITECTURES, build
from fer_core.models.facts import CARD

Choice = Literal["selected", "last"]
TRAINING_IMAGES = "training_images.npz"
"""Marks of the images that a checkpoint was trained (`train`, `unlabelled`) and chosen (`validation`) on, for later
judgements to leave these out: the first 8 bytes of an image's content hash as uint64, ascending."""
_TRAINING_SPLITS = ("train", "validation")
_LARGEST_SIDE = 1024
"""Pixels, as experiments have it; a card that says more would take the machine's memory."""


@dataclass(frozen=True)
class ModelCard:
    """All that is needed to use a network's weights, and how they were trained."""

    architecture: Architecture
    labels: tuple[str, ...]
    """Class names in the order of the logits."""
    mean: tuple[float, ...]
    """Subtracted from pixels in 0..1, by channel; one value stands for a grey image."""
    std: tuple[float, ...]
    input_size: int
    """Side in pixels."""
    stored_size: int | None
    """Side in pixels at which the training images were stored, before they were resized to `input_size`; None where
    others trained on images of any size, see `fer_core.data.crops`."""
    name: str
    """The model's name in the paper's table."""
    seed: int
    epochs: int
    selected_epoch: int
    """The epoch of `selected`, chosen on the validation split; counted from 1."""
    history: list[dict[str, float]] = field(default_factory=list)
    """One row of metrics for each epoch."""
    temperature: float = 1.0
    """T of softmax(logits / T), fitted on the validation split."""
    trained_on: dict[str, Any] = field(default_factory=dict)
    """Dataset, protocol, images by split, AU coverage, licence, and the version of the code."""
    recipe: dict[str, Any] = field(default_factory=dict)
    """The experiment's settings of the training."""
    figures: dict[str, Any] = field(default_factory=dict)
    """Figures of the selected epoch on `validation` and `test`, and `calibrated` on `test` at the temperature."""


def image_marks(sha256: Iterable[str]) -> np.ndarray:
    """(N,) uint64, the first 8 bytes of hexadecimal hashes of content; of none, 0."""
    return np.array([int(digest[:16] or "0", 16) for digest in sha256], np.uint64)


def save_training_images(folder: Path, dataset: Dataset, *, unlabelled: bool) -> None:
    """Write `TRAINING_IMAGES` beside the weights: 16 bytes an image at most, no pixel of it.

    Args:
        unlabelled: whether images without a label were learnt from too.
    """
    split, sha256 = dataset.manifest["split"], dataset.manifest["sha256"]
    splits = (*_TRAINING_SPLITS, *(["unlabelled"] if unlabelled else []))
    marks = {name: np.unique(image_marks(sha256[(split == name) & (sha256 != "")])) for name in splits}
    content = io.BytesIO()
    np.savez_compressed(content, allow_pickle=False, **marks)
    replace_file(folder / TRAINING_IMAGES, content.getvalue())


def read_training_images(folder: Path) -> dict[str, np.ndarray] | None:
    """The marks by split; None where a checkpoint has none, such as an imported one.

    Raises:
        CheckpointError: the file is damaged.
    """
    path = folder / TRAINING_IMAGES
    if not path.exists():
        return None
    try:
        # Opened here, since numpy leaves a file open that it cannot read.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as marks:
            there = {"unlabelled"} & set(marks.files)
            return {split: marks[split] for split in (*_TRAINING_SPLITS, *there)}
    except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise CheckpointError(f"{path}: damaged ({error}); train the checkpoint again") from error


def save_weights(path: Path, model: nn.Module) -> None:
    """Write a network's parameters and buffers, whole or not at all."""
    save_tensors(path, model.state_dict())


def save_tensors(path: Path, weights: Mapping[str, Tensor]) -> None:
    """Write what a network's `state_dict` gave, whole or not at all."""
    # By way of bytes, since the library's own file writing tells of a full disk in words of its own.
    replace_file(path, save({name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}))


def save_card(folder: Path, card: ModelCard) -> None:
    """Write the card that makes the weights beside it usable."""
    (folder / CARD).write_text(json.dumps(asdict(card), indent=1), encoding="utf-8")


def read_card(folder: Path) -> ModelCard:
    """Read the card of a checkpoint folder.

    Raises:
        CheckpointError: it is missing, incomplete, names an unknown architecture, or says what cannot be.
    """
    path = folder / CARD
    if not path.exists():
        with suppress(ArtifactError):
            step = open_artifact(folder).step
            raise CheckpointError(f"{folder}: made by `fer {step}`, and no checkpoint; give what `fer distill` made")
    try:
        fields: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        for name in ("labels", "mean", "std"):
            fields[name] = tuple(fields[name])
        card = ModelCard(**fields)
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise CheckpointError(
            f"{path}: weights without class order, normalisation and input size are refused ({error}); "
            "the original authors' files go through `fer import-weights`"
        ) from error
    if card.architecture not in ARCHITECTURES:
        raise CheckpointError(f"{path}: unknown architecture {card.architecture}; known are {', '.join(ARCHITECTURES)}")
    if wrong := _impossible_in(card):
        raise CheckpointError(
            f"{path}: {wrong} = {getattr(card, wrong)!r}: nothing can be predicted with it; "
            "take the file as it was made"
        )
    return card


def _impossible_in(card: ModelCard) -> str:
    """The first field of a card, which others may have written, that no prediction can be made with; "" if none."""

    def numbers(values: Iterable[object], least: float = -math.inf) -> bool:
        return all(_is_number(value) and math.isfinite(value) and value > least for value in values)

    def side(value: object) -> bool:
        return _is_number(value) and isinstance(value, int) and 1 <= value <= _LARGEST_SIDE

    possible = {
        "labels": all(isinstance(label, str) for label in card.labels) and len(set(card.labels)) == len(card.labels),
        "mean": len(card.mean) in (1, 3) and numbers(card.mean),
        "std": len(card.std) == len(card.mean) and numbers(card.std, least=0),
        "input_size": side(card.input_size),
        "stored_size": card.stored_size is None or side(card.stored_size),
        "temperature": numbers([card.temperature], least=0),
        "trained_on": isinstance(card.trained_on, dict),
        "figures": isinstance(card.figures, dict),
    }
    return next((name for name, can_be in possible.items() if not can_be), "")


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def load_checkpoint(folder: Path, choice: Choice = "selected") -> tuple[nn.Module, ModelCard]:
    """The network of a checkpoint folder, in evaluation mode on the CPU.

    Raises:
        CheckpointError: no card, or weights that are not of the card's architecture, or are no numbers.
    """
    card = read_card(folder)
    path = folder / f"{choice}.safetensors"
    model = build(card.architecture, len(card.labels), seed=0)
    try:
        model.load_state_dict(load_file(path))
    except (OSError, SafetensorError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise CheckpointError(
            f"{path}: not the weights of {card.architecture} for {len(card.labels)} classes ({reason})"
        ) from error
    if spoilt := next((name for name, tensor in model.state_dict().items() if not tensor.isfinite().all()), None):
        raise CheckpointError(f"{path}: {spoilt} holds values that are no finite numbers; train the checkpoint again")
    return model.eval(), card


def require_labels(card: ModelCard, labels: tuple[str, ...], folder: Path) -> None:
    """Refuse a checkpoint whose classes are not the dataset's, in the dataset's order.

    Raises:
        CheckpointError: the order or the classes differ.
    """
    if card.labels != labels:
        raise CheckpointError(
            f"{folder}: its classes are {', '.join(card.labels)}, the dataset's {', '.join(labels)}; "
            "train it on this dataset, or prepare the dataset with the checkpoint's classes"
        )
