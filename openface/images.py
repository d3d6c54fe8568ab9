"""Images to annotate: decoded and checked here, so that no name, format or corrupt byte of theirs reaches OpenFace."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

ENDINGS = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".bmp", ".webp", ".tif", ".tiff"),
    *(".gif", ".pbm", ".pgm", ".ppm", ".pnm", ".pfm"),
)
_FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "TIFF", "GIF", "PPM")
"""Whatever its name says, nothing else is opened: Pillow would start Ghostscript for a PostScript file."""
LARGEST = 50_000_000
"""Pixels; a small file that claims more is taken for a decompression bomb."""

_LONGEST_SIDE = 2000
"""OpenFace takes a gigabyte for 25 megapixels, and a face needs no more than some hundred pixels."""
_ENOUGH = 96
"""An image this wide is tried as it is; the detector needs a face of about 60 pixels."""
_COMFORTABLE = 160
_TOO_SMALL = 60
_FACTORS = (1, 2, 4, 8)
_BORDER = 0.29
"""Of each side; 14 pixels around 48, which on FER+ finds a third of the faces that are missed without."""


class UnreadableImage(Exception):
    """An image that is missing, corrupt, truncated or far too large; its text says which."""


@dataclass(frozen=True)
class View:
    """How an image is shown to OpenFace."""

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


def open_image(path: Path) -> Image.Image:
    """Decode an image file wholly and turn it as its EXIF orientation says.

    Raises:
        UnreadableImage: the file is missing, corrupt, truncated, or has more than LARGEST pixels.
    """
    try:
        with read_header(path) as image:
            return decode(image)
    except UnreadableImage as unreadable:
        raise UnreadableImage(f"{path}: {unreadable}") from unreadable


def read_header(file: Path | BinaryIO, largest: int = LARGEST) -> Image.Image:
    """An image that knows its size and none of its pixels yet.

    Raises:
        UnreadableImage: as `open_image` says, without a name.
    """
    try:
        image = Image.open(file, formats=_FORMATS)
    except UnidentifiedImageError as error:
        raise UnreadableImage("not an image of a known format") from error
    except Exception as error:
        raise UnreadableImage(reason_of(error)) from error
    if image.width * image.height > largest:
        image.close()
        raise UnreadableImage(f"{image.width} x {image.height} is more than {largest:,} pixels")
    return image


def decode(image: Image.Image) -> Image.Image:
    """All of an image whose header was read, turned as its EXIF orientation says; errors likewise."""
    try:
        image.load()
        return ImageOps.exif_transpose(image)
    except Exception as error:  # Pillow's decoders raise almost anything on bytes made to break them.
        raise UnreadableImage(reason_of(error)) from error


def eight_bits(image: Image.Image) -> Image.Image:
    """The image in grey (L) or RGB, whatever it was stored as; transparent parts are kept as their colour."""
    if image.mode.startswith("I;16"):
        # Pillow would clip sixteen bits at 255 instead of scaling them.
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.mode in ("L", "1", "LA", "La"):
        return image.convert("L")
    return (image.convert("RGBA") if image.mode == "P" else image).convert("RGB")


def reason_of(error: Exception) -> str:
    """An exception in a few words."""
    if isinstance(error, FileNotFoundError):
        return "no such file"
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return " ".join(text.split()) or type(error).__name__


class Images(Protocol):
    """Images by number, each under an id."""

    @property
    def ids(self) -> Sequence[str]: ...

    def read(self, number: int) -> Image.Image:
        """From any thread; raises UnreadableImage."""


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
    """Files below a folder; an id is a path relative to it, with forward slashes."""

    folder: Path
    ids: Sequence[str]

    def read(self, number: int) -> Image.Image:
        return eight_bits(open_image(self.folder / self.ids[number]))


def images_below(folder: Path) -> ImageFiles:
    """Every image file below a folder, hidden ones apart."""
    files = (path.relative_to(folder) for path in folder.rglob("*") if path.suffix.lower() in ENDINGS)
    visible = (file for file in files if not any(part.startswith((".", "__MACOSX")) for part in file.parts))
    return ImageFiles(folder, sorted(file.as_posix() for file in visible if (folder / file).is_file()))
