"""Read the weights that the original authors published: EfficientFace, ResNets on MS-Celeb-1M, and their LDG."""

import pickle
from pathlib import Path

import torch
from torch import Tensor, nn

from fer_core.errors import CheckpointError

PUBLISHED_ORDER = ("neutral", "happiness", "sadness", "surprise", "fear", "disgust", "anger")
"""The class order of EfficientFace and of its LDG, which is not RAF-DB's."""
_MAGIC = (b"PK", b"\x80")
"""Of the two formats of torch.save. Our own checkpoints are in another, and in another class order."""
PUBLISHED_MEAN = (0.57535914, 0.44928582, 0.40079932)
PUBLISHED_STD = (0.20735591, 0.18981615, 0.18132027)


def load_published(path: Path, model: nn.Module, labels: tuple[str, ...]) -> bool:
    """Load a published file into `model`, its head reordered into `labels`, or left as it is where it cannot fit.

    The files are dictionaries with `state_dict`, whose keys begin with `module.`. Heads of seven rows are in
    PUBLISHED_ORDER; any other head, such as MS-Celeb-1M's 12,666 identities, is not taken over.

    Returns:
        Whether the head was taken over.

    Raises:
        CheckpointError: the file is missing, holds more than tensors, or is of another architecture.
    """
    weights = _state_dict(path)
    head = {name: weights.pop(name) for name in list(weights) if name.startswith("fc.")}
    own = model.state_dict()
    expected = {name for name in own if not name.startswith("fc.")}
    wrong = [
        n
        for n in sorted(expected | weights.keys())
        if n not in own or n not in weights or own[n].shape != weights[n].shape
    ]
    if wrong:
        raise CheckpointError(
            f"{path}: not weights of {type(model).__name__} "
            f"({len(wrong)} of {len(expected)} entries differ, {wrong[0]} first)"
        )
    fits = set(labels) == set(PUBLISHED_ORDER) and head.get("fc.weight", torch.empty(0)).shape == own["fc.weight"].shape
    if fits:
        order = [PUBLISHED_ORDER.index(label) for label in labels]
        head = {name: tensor[order] for name, tensor in head.items()}
    model.load_state_dict({**own, **weights, **(head if fits else {})})
    return fits


def _state_dict(path: Path) -> dict[str, Tensor]:
    try:
        with path.open("rb") as file:
            if not file.read(2).startswith(_MAGIC):
                raise CheckpointError(f"{path}: not a file that torch.save wrote, so not the original authors'")
        content = torch.load(path, weights_only=True, map_location="cpu")
    except OSError as error:
        raise CheckpointError(f"{path}: {error.strerror}; name a file of weights") from error
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise CheckpointError(f"{path}: not a file of tensors alone, so it is not opened") from error
    weights = content.get("state_dict", content) if isinstance(content, dict) else None
    if not isinstance(weights, dict) or not all(isinstance(tensor, Tensor) for tensor in weights.values()):
        raise CheckpointError(f"{path}: holds no state_dict")
    return {name.removeprefix("module."): tensor for name, tensor in weights.items()}
