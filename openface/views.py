"""Images to annotate, and the views shown to OpenFace; it never sees their names or corrupt bytes."""

import hashlib
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol

import numpy as np
from PIL import Image

from openface.decoding import ENDINGS, UnreadableImage, open_image
from openface.files import files_below, is_hidden
from openface.names import printable, spell

_LONGEST_SIDE = 2000
"""OpenFace takes a gigabyte for 25 megapixels, and a face needs no more than some hundred pixels."""
_ENOUGH = 96
"""An image this wide is tried as it is; the detector needs a face of about 60 pixels."""
_COMFORTABLE = 160
_TOO_SMALL = 60
_FACTORS = (1, 2, 4, 8)
_BORDER = 0.29
"""Share of each side; 14 pixels around 48, which on FER+ finds a third of the faces that are missed without."""


@dataclass(frozen=True)
class View:
    """A view: how an image is shown to OpenFace."""

    factor: float
    border: bool = False

    def __str__(self) -> str:
        scale = "as it is" if self.factor == 1 else f"×{self.factor:.3g}"
        return f"{scale}, bordered" if self.border else scale

    def size(self, width: int, height: int) -> tuple[int, int]:
        """Width and height in pixels of an image of this width and height as it is shown."""
        sides = _bordered(width, height) if self.border else (width, height)
        across, down = (max(1, round(self.factor * side)) for side in sides)
        return across, down

    def back(self, points: np.ndarray, width: int, height: int) -> np.ndarray:
        """Points of the view in the image's own pixels, to the nearest 64th.

        Args:
            points: (2, P) x and y, whole numbers in the middle of a pixel.
            width, height: the image's, in pixels.
        """
        border = np.array([width, height]) if self.border else np.zeros(2)
        full = np.array(_bordered(width, height) if self.border else (width, height))
        scale = np.array(self.size(width, height)) / full
        moved = (points + 0.5) / scale[:, None] - 0.5 - np.round(_BORDER * border)[:, None]
        return np.asarray(np.round(moved * 64) / 64, np.float32)

    def of(self, image: Image.Image) -> Image.Image:
        """The image with its edge pixels repeated outwards, where it is bordered, then scaled."""
        shown = self.size(*image.size)
        if self.border:
            across, down = (round(_BORDER * side) for side in image.size)
            edges = [(down, down), (across, across), (0, 0)][: np.asarray(image).ndim]
            image = Image.fromarray(np.pad(np.asarray(image), edges, mode="edge"))
        return image if image.size == shown else image.resize(shown, Image.Resampling.BICUBIC)


def ladder(width: int, height: int) -> list[View]:
    """Views in which a face is looked for, one after the other, until one is found.

    As it is, where that is large enough; at up to four times that size; with a border. OpenFace aborts on an image
    of 42 pixels or less, and never finds a face in one of 48; a strip that is too narrow in every view has none.
    """
    shorter, longer = min(width, height), max(width, height)
    first = 1 if shorter >= _ENOUGH else _reaching(_COMFORTABLE, shorter)
    factors = [f for f in (first, *_FACTORS) if first <= f <= 4 * first and f * longer <= _LONGEST_SIDE]
    views = [View(factor) for factor in dict.fromkeys(factors)]
    if longer > _LONGEST_SIDE:
        views = [View(_LONGEST_SIDE / longer)]
    else:
        around = _bordered(width, height)
        bordered = min(_reaching(_COMFORTABLE, min(around)), _LONGEST_SIDE / max(around))
        views.append(View(bordered, border=True))
    return [view for view in views if min(view.size(width, height)) > _TOO_SMALL]


def _bordered(width: int, height: int) -> tuple[int, int]:
    return width + 2 * round(_BORDER * width), height + 2 * round(_BORDER * height)


def _reaching(side: int, of: float) -> float:
    """The smallest factor that makes it so large; for tiny images, whatever it takes."""
    return next((f for f in _FACTORS if f * of >= side), side / of)


class Images(Protocol):
    """Images by number, each under an id."""

    @property
    def ids(self) -> Sequence[str]: ...

    def read(self, number: int) -> Image.Image:
        """Read an image, from any thread; raises UnreadableImage."""


@dataclass(frozen=True)
class StoredImages:
    """(N, S, S, C) uint8, decoded already."""

    ids: Sequence[str]
    pixels: np.ndarray

    def read(self, number: int) -> Image.Image:
        pixels = np.asarray(self.pixels[number])
        return Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)


@dataclass(frozen=True)
class ImageFiles:
    """Files below a folder; an id is a path relative to it, with forward slashes, as `spell` has it."""

    folder: Path
    paths: Sequence[Path]
    left: Mapping[str, int]
    """Other files, counted by ending or kind."""
    sha256: Sequence[bytes] = ()
    """Digest of each file; where given, a file that holds something else by now is not read."""

    @cached_property
    def ids(self) -> Sequence[str]:
        return [spell(path.relative_to(self.folder).as_posix()) for path in self.paths]

    def read(self, number: int) -> Image.Image:
        path = self.paths[number]
        try:
            image = open_image(path)
            # Only then, so that what came to be there meanwhile is seen too.
            if self.sha256 and _sha256_of(path) != self.sha256[number]:
                raise UnreadableImage(f"{path}: was changed after this began; run again")
            return image
        except UnreadableImage as unreadable:
            raise UnreadableImage(printable(str(unreadable))) from unreadable


def _sha256_of(path: Path) -> bytes:
    """Nothing of what is no longer there."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").digest()
    except OSError:
        return b""


def images_below(folder: Path, endings: Collection[str] = ENDINGS) -> ImageFiles:
    """Every file below a folder with such an ending, hidden ones and what systems keep there apart.

    Raises:
        OSError: a folder below may not be read.
    """
    images: list[Path] = []
    left: Counter[str] = Counter()
    for file in files_below(folder):
        ending = file.path.suffix.lower()
        if is_hidden(file.path.relative_to(folder)):
            left["hidden"] += 1
        elif file.kind != "regular":
            left["links to nothing" if file.kind == "dangling" else "pipes, sockets or devices"] += 1
        elif ending in endings:
            images.append(file.path)
        else:
            left[printable(ending) or "without an ending"] += 1
    return ImageFiles(folder, images, dict(left.most_common()))
