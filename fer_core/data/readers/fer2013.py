"""FER2013: faces as pixels in a CSV, each with one label of its makers."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from fer_core.data.readers.classes import NumberOrder, name_classes
from fer_core.data.readers.folder import without_dropped
from fer_core.data.readers.names import split_of
from fer_core.data.readers.source import Source, unwrapped
from fer_core.data.readers.tables import plain, read_rows
from fer_core.errors import DatasetError
from fer_core.experiment import DatasetSettings
from openface.decoding import UnreadableImage

FILES = ("fer2013.csv", "icml_face_data.csv")
"""What the file is called in the two places where it is published."""
SIDE = 48
ORDER = NumberOrder(
    "FER2013's order",
    {
        "0": "anger",
        "1": "disgust",
        "2": "fear",
        "3": "happiness",
        "4": "sadness",
        "5": "surprise",
        "6": "neutral",
    },
    {
        "anger": 3995,
        "disgust": 436,
        "fear": 4097,
        "happiness": 7215,
        "sadness": 4830,
        "surprise": 3171,
        "neutral": 4965,
    },
)
_USAGES = "Training, PublicTest or PrivateTest"


@dataclass(frozen=True)
class PixelRows:
    """The rows of the CSV."""

    path: Path
    lines: list[int]
    """The line where each row is in the file."""
    splits: list[str]
    """train, validation, test; "" where the file has no Usage."""
    labels: list[str]
    """FER2013's own, as written; empty where the file has none."""
    pixels: np.ndarray
    """(N, 48, 48) uint8."""
    broken: Mapping[int, str]
    """What is wrong with rows that hold no such pixels."""

    def read(self, row: int) -> Image.Image:
        """The face of a row; raises UnreadableImage."""
        if row in self.broken:
            raise UnreadableImage(f"{self.path}, line {self.lines[row]}: {self.broken[row]}")
        return Image.fromarray(self.pixels[row])


def read(settings: DatasetSettings, folder: Path) -> Source:
    """FER2013's faces with the one label that its makers gave each.

    folder: the CSV, or a folder that holds it

    Raises:
        DatasetError: the file is missing or not FER2013's, or its labels are of another order.
    """
    path = folder if folder.is_file() else find_file(folder)
    if path is None:
        raise DatasetError(
            f"{folder}: not FER2013; looked for {' and '.join(FILES)}; give the folder or file with --data, or for "
            "images in class folders set dataset.source = 'folder'"
        )
    rows = read_pixels(path)
    if not rows.labels:
        raise DatasetError(f"{path}: no column emotion; for its labels give fer2013.csv or icml_face_data.csv")
    classes = name_classes(rows.labels, settings, path, ORDER)
    source = Source(
        name="fer2013",
        labels=classes.labels,
        records=pd.DataFrame(
            {"id": [f"fer{row:07d}" for row in range(len(rows.lines))], "label": classes.index, "split": rows.splits}
        ),
        distributions=None,
        truth="",
        protocol=(
            "FER2013 (Goodfellow et al. 2013) with its makers' own label of each image; Training, PublicTest and "
            "PrivateTest are train, validation and test."
        ),
        read_image=rows.read,
    )
    return without_dropped(source, classes)


def find_file(folder: Path) -> Path | None:
    """The CSV in a folder, or in the only folder below it."""
    return _published(unwrapped(folder, lambda place: _published(place) is not None))


def _published(folder: Path) -> Path | None:
    """The CSV directly in a folder, in whatever case; one in lower case goes first."""
    there = {path.name.lower(): path for path in sorted(folder.iterdir()) if path.name.lower() in FILES}
    return next((there[name] for name in FILES if name in there and there[name].is_file()), None)


def read_pixels(path: Path) -> PixelRows:
    """All faces of the CSV.

    Raises:
        DatasetError: it is no CSV, has no pixels, or a Usage is not known.
    """
    lines, splits, labels = list[int](), list[str](), list[str]()
    pixels = bytearray()
    broken: dict[int, str] = {}
    for row in read_rows(path):
        fields = {plain(name): value for name, value in row.fields.items()}
        if "pixels" not in fields:
            raise DatasetError(
                f"{path}: not FER2013 (no column pixels; it has {', '.join(row.fields)}); restore the file"
            )
        face = _parse_pixels(fields["pixels"])
        if isinstance(face, str):
            broken[len(lines)] = face
            face = bytes(SIDE**2)
        pixels += face
        splits.append(_split(fields.get("usage"), path, row.line))
        labels += [fields["emotion"]] if "emotion" in fields else []
        lines.append(row.line)
    if not lines:
        raise DatasetError(f"{path}: not FER2013 (it has no rows); restore the file as published")
    return PixelRows(path, lines, splits, labels, np.frombuffer(pixels, np.uint8).reshape(-1, SIDE, SIDE), broken)


def usage_split(usage: str, place: Callable[[], str]) -> str:
    """The split of a Usage such as `PrivateTest`; DatasetError where it is none."""
    split = split_of(usage)
    if split is None:
        raise DatasetError(f"{place()}: Usage {usage!r}; it must be {_USAGES}")
    return split


def _split(usage: str | None, path: Path, line: int) -> str:
    return "" if usage is None else usage_split(usage, lambda: f"{path}, line {line}")


def _parse_pixels(text: str) -> bytes | str:
    """The pixels, or what is wrong with them; programs that held them as a list write `[70, 80, …]`."""
    try:
        face = bytes(map(int, text.strip("[]").replace(",", " ").split()))
    except ValueError:
        return "a pixel is not a whole number in 0..255"
    return face if len(face) == SIDE**2 else f"{len(face)} pixels, not {SIDE**2}"
