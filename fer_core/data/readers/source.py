"""What a reader hands over: a dataset's records and how to decode one of its images."""

import os
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from fer_core.errors import DatasetError
from openface.decoding import ENDINGS, UnreadableImage, open_image, read_header, reason_of
from openface.files import FoundFile, files_below, is_hidden
from openface.names import spell

NEARLY_ALL = 0.9
"""A folder that has this share of what the fullest has may be the one that is meant too."""
_ALIGNED = re.compile(r"_aligned$", re.IGNORECASE)
_MOVING = (".gif", ".tif", ".tiff", ".webp", ".apng")


@dataclass(frozen=True)
class Source:
    """What a dataset's layout says, before an image is decoded."""

    name: str
    labels: tuple[str, ...]
    """Class names; emotions are in the order of `fer_core.data.dataset.EMOTIONS`."""
    records: pd.DataFrame
    """N rows; id (str, unique), label (index into `labels`), split (train, validation, test; "" if open); where the
    makers judge on fewer images than we read: published (bool); and where it is known whose face it is: person (str, ""
    for nobody known); and where faces are cut out of photographs: photograph and its box, as in the manifest."""
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
    notes: tuple[str, ...] = ()
    """What the user should know: the meaning of the labels, what in the folder was not read."""


@dataclass(frozen=True)
class FoundImages:
    """The images below a folder, and what else is there."""

    paths: list[Path]
    """Sorted by name, folder by folder."""
    left: Mapping[str, int]
    """Other files, counted by ending or kind."""

    def note(self) -> tuple[str, ...]:
        """What is no image, for the user to see."""
        counts = ", ".join(f"{count:,} {what}" for what, count in self.left.items())
        return (f"files that are no images: {counts}",) if counts else ()


def find_images(folder: Path) -> FoundImages:
    """All images below a folder, at any depth.

    Raises:
        DatasetError: a folder may not be read.
    """
    paths: list[Path] = []
    left: Counter[str] = Counter()
    try:
        for file in files_below(folder):
            what = _kind(file, folder)
            paths += [] if what else [file.path]
            left.update([what] if what else [])
    except OSError as error:
        raise DatasetError(f"{error.filename}: {error.strerror}; allow this user to read it") from error
    return FoundImages(paths, dict(sorted(left.items(), key=lambda kind: (-kind[1], kind[0]))))


def _kind(file: FoundFile, folder: Path) -> str:
    """What a file is instead of an image; nothing where it is one."""
    if is_hidden(file.path.relative_to(folder)):
        return "hidden"
    if file.kind != "regular":
        return {"dangling": "links to nothing", "special": "pipes, sockets or devices"}[file.kind]
    ending = file.path.suffix.lower()
    return "" if ending in ENDINGS else ending or "without an ending"


def read_file(path: Path) -> Image.Image:
    """Decode an image file.

    Raises:
        UnreadableImage: it is missing, no regular file, or cannot be decoded.
    """
    if not os.path.isfile(path):
        raise UnreadableImage(f"{path}: {'not a regular file' if os.path.exists(path) else 'no such file'}")
    return open_image(path)


def note_of_frames(paths: Sequence[Path]) -> tuple[str, ...]:
    """How many images have several frames, of which the first is read."""
    several = sum(path.suffix.lower() in _MOVING and _has_frames(path) for path in paths)
    return (f"images of several frames, of which the first is read: {several:,}",) if several else ()


def _has_frames(path: Path) -> bool:
    try:
        with path.open("rb") as file, read_header(file) as image:
            return bool(getattr(image, "is_animated", False))
    except (UnreadableImage, OSError):  # Decoding it will say so.
        return False


def subfolders(folder: Path) -> list[Path]:
    """The folders directly in a folder, sorted, without hidden ones and what systems keep there."""
    return sorted(path for path in folder.iterdir() if path.is_dir() and not is_hidden(path.relative_to(folder)))


def folders_within(folder: Path, depth: int) -> Iterator[Path]:
    """A folder and those below it, down to `depth`, each before what is in it; links are followed."""
    yield folder
    if depth:
        for inner in subfolders(folder):
            yield from folders_within(inner, depth - 1)


def unwrapped(folder: Path, is_it: Callable[[Path], bool]) -> Path:
    """`folder`, or the only folder below it, at any depth of single folders, that holds what `is_it` looks for."""
    inner = folder
    while not is_it(inner):
        inside = subfolders(inner)
        if len(inside) != 1:
            return folder
        inner = inside[0]
    return inner


def image_stem(path: Path) -> str:
    """A file's name without its ending and without RAF-DB's `_aligned`."""
    return _ALIGNED.sub("", path.stem)


def without_ending(path: str) -> str:
    """A path without its image ending, forward slashes."""
    stem, dot, ending = path.replace("\\", "/").rpartition(".")
    return stem if f"{dot}{ending.lower()}" in ENDINGS else path.replace("\\", "/")


def unique_ids(preferred: Sequence[str], otherwise: Sequence[str]) -> list[str]:
    """`preferred`, `otherwise` for those that several images share, and a number behind what is still shared.

    All as text that a table holds, whatever bytes the names have.
    """
    shared = pd.Series(preferred, dtype=object).duplicated(keep=False)
    names = [spell(full if clash else short) for short, full, clash in zip(preferred, otherwise, shared, strict=True)]
    times: Counter[str] = Counter()
    unique = []
    for name in names:
        times[name] += 1
        unique.append(f"{name}#{times[name]}" if times[name] > 1 else name)
    return unique


def read_text(path: Path) -> str:
    """A text file, with or without a byte order mark.

    Raises:
        DatasetError: it cannot be read, or is not text.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DatasetError(f"{path}: not readable as text ({reason_of(error)}); restore it") from error
