"""Small datasets as files, and what a reader makes of them."""

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fer_core.data.readers import open_source
from fer_core.data.readers.source import Source
from fer_core.errors import DatasetError
from fer_core.experiment import DatasetSettings

RAFDB = DatasetSettings(source="rafdb")
FERPLUS = DatasetSettings(source="ferplus")
FER2013 = DatasetSettings(source="fer2013")
AFFECTNET = DatasetSettings(source="affectnet")
FOLDER = DatasetSettings(source="folder")
LIST = DatasetSettings(source="csv")


def save_image(path: Path, shade: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (20, 20), (shade, 255 - shade, 128)).save(path)


def save_faces(folder: Path, count: int, ending: str = "png") -> None:
    """So many different images, called 0, 1, …"""
    folder.mkdir(parents=True, exist_ok=True)
    seed = sum(folder.as_posix().encode())
    for number in range(count):
        pixels = np.random.default_rng([seed, number]).integers(0, 256, (16, 16, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.{ending}")


def write_rows(path: Path, *rows: Sequence[object]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)
    return path


def names_by_id(source: Source) -> dict[str, str]:
    labels = [source.labels[label] for label in source.records["label"]]
    return dict(zip(source.records["id"], labels, strict=True))


def splits_by_id(source: Source) -> dict[str, str]:
    return dict(zip(source.records["id"], source.records["split"], strict=True))


def counts(source: Source) -> dict[str, int]:
    """Images of each class."""
    return {name: int((source.records["label"] == index).sum()) for index, name in enumerate(source.labels)}


def refused(settings: DatasetSettings, folder: Path | None) -> str:
    """The message of an error, which is one line."""
    with pytest.raises(DatasetError) as raised:
        open_source(settings, folder)
    assert "\n" not in str(raised.value)
    return str(raised.value)
