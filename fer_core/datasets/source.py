"""What a reader hands over: a dataset's records and how to decode one of its images."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from fer_core.errors import DatasetError
from openface.images import ENDINGS, reason_of

_ALIGNED = re.compile(r"_aligned$")


@dataclass(frozen=True)
class Source:
    """What a dataset's layout says, before an image is decoded."""

    name: str
    labels: tuple[str, ...]
    """Class names; emotions are in the order of `fer_core.dataset.EMOTIONS`."""
    records: pd.DataFrame
    """N rows; id (str, unique), label (index into `labels`), split (train, validation, test; "" if open)."""
    distributions: np.ndarray | None
    """(N, classes) float32, rows sum to 1."""
    truth: str
    """What `distributions` are: `crowd votes`, `true distribution`, or nothing where there are none."""
    protocol: str
    """Which images count and what their label is, in a sentence."""
    read_image: Callable[[int], Image.Image]
    """Decode the image of row i, from any thread; raises UnreadableImage."""
    au_rows: pd.DataFrame | None = None
    """AU rows that come with the images: `index` (a row of `records`) and OpenFace's columns."""
    dropped: Mapping[str, int] = field(default_factory=dict)
    """Images that the protocol leaves out, counted by reason."""


def image_files(folder: Path) -> list[Path]:
    """The images directly in a folder, sorted by name."""
    visible = (path for path in folder.iterdir() if not path.name.startswith("."))
    return sorted(path for path in visible if path.suffix.lower() in ENDINGS)


def subfolders(folder: Path) -> list[Path]:
    """The folders directly in a folder, sorted, without hidden ones and what macOS leaves in archives."""
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith((".", "__MACOSX")))


def image_stem(path: Path) -> str:
    """A file's name without its ending and without RAF-DB's `_aligned`."""
    return _ALIGNED.sub("", path.stem)


def without_ending(path: str) -> str:
    """A path without its image ending, forward slashes."""
    stem, dot, ending = path.replace("\\", "/").rpartition(".")
    return stem if f"{dot}{ending.lower()}" in ENDINGS else path.replace("\\", "/")


def unique_ids(preferred: Sequence[str], otherwise: Sequence[str]) -> list[str]:
    """`preferred`, and `otherwise` for those that several images share."""
    shared = pd.Series(preferred, dtype=str).duplicated(keep=False)
    return [full if clash else short for short, full, clash in zip(preferred, otherwise, shared, strict=True)]


def read_text(path: Path) -> str:
    """A text file, with or without a byte order mark.

    Raises:
        DatasetError: it cannot be read, or is not text.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DatasetError(f"{path}: not readable as text ({reason_of(error)}); restore it") from error
