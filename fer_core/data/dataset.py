"""The dataset contract: a manifest, memory-mapped uint8 images, and what their labels mean."""

import json
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd

from fer_core.errors import ArtifactError

Split = Literal["train", "validation", "test", "unlabelled"]
UNLABELLED = -1
"""The label of an image of the split `unlabelled`."""
AU_TABLE = "aus.parquet"
"""Output of the annotate step: one row of action units for each image."""
EMOTIONS: tuple[str, ...] = (
    "neutral",
    "happiness",
    "surprise",
    "sadness",
    "anger",
    "disgust",
    "fear",
    "contempt",
)
"""The order of emotions among a dataset's classes; other words follow them. FER+ and RAF-DB have the first seven."""
PHOTOGRAPH, BOX = "photograph", ("box_left", "box_top", "box_width", "box_height")
"""Columns of a manifest whose images are cut out of photographs."""
_LISTS = ("labels", "mean", "std", "notes")
"""Keys of a card that JSON has as lists."""


@dataclass(frozen=True)
class DatasetCard:
    """The meaning of a prepared dataset's arrays."""

    source: str
    labels: tuple[str, ...]
    """Class names in the order of labels and distributions."""
    protocol: str
    """One sentence, as a paper could print it: which images count, and how they are labelled."""
    truth: str
    """What `crowd_*` holds: `crowd votes`, `true distribution`, or nothing where there is none."""
    mean: tuple[float, ...]
    """Mean of the training images, or of all where there are none, by channel, in 0..1."""
    std: tuple[float, ...]
    counts: dict[str, int]
    """Images read, unreadable, dropped by reason, and left by split."""
    notes: tuple[str, ...] = ()
    """How labels were interpreted, and what in the user's folder was not read."""
    unreadable: dict[str, str] = field(default_factory=dict)
    """By id, why an image could not be decoded and is left out."""


@dataclass(frozen=True)
class Dataset:
    """A prepared dataset."""

    card: DatasetCard
    manifest: pd.DataFrame
    """One row an image, in the order of `images`, with the columns

    id           unique; names the image in AU tables (a path without its ending, or a number)
    sha256       of the decoded pixels
    split        train, validation, test, or unlabelled: to be trained on without a label
    label        index into `card.labels`, or UNLABELLED
    published    True where FER+'s own rule counts the image, which makes its test images the published test set; only
                 where the source is ferplus
    person       whose face it is, "" where that is not known; only where a list says it
    photograph, box_left, box_top, box_width, box_height
                 the id by which AU tables know the photograph that the face was cut out of, and where in it, in
                 pixels, NaN where all of it was taken; only where a list has face boxes
    crowd_LABEL  for each label, a distribution that sums to 1; only where `card.truth` says what it is, and NaN
                 for an unlabelled image
    """
    images: np.ndarray
    """(N, S, S, C) uint8, C = 1 (grey) or 3 (RGB), memory-mapped."""

    def rows(self, *splits: Split) -> np.ndarray:
        """Row numbers of one split or several, ascending, int64."""
        return np.flatnonzero(self.manifest["split"].isin(splits))

    def labels(self) -> np.ndarray:
        """(N,) int64."""
        return self.manifest["label"].to_numpy(np.int64, copy=True)

    def crowd(self) -> np.ndarray | None:
        """(N, classes) float32 distributions, or None where the dataset has none."""
        if not self.card.truth:
            return None
        return self.manifest[[f"crowd_{label}" for label in self.card.labels]].to_numpy(np.float32, copy=True)


def save_dataset(folder: Path, card: DatasetCard, manifest: pd.DataFrame) -> None:
    """Write all but the images, which are streamed into `folder / "images.npy"` as they are decoded."""
    manifest.to_parquet(folder / "manifest.parquet", index=False)
    (folder / "dataset.json").write_text(json.dumps(asdict(card), indent=1), encoding="utf-8")


def open_dataset(folder: Path) -> Dataset:
    """Open a prepared dataset without reading its images.

    Raises:
        ArtifactError: a file is missing, a key of the card is, or their lengths differ.
    """
    try:
        card = _card_from(json.loads((folder / "dataset.json").read_text(encoding="utf-8")))
        manifest = pd.read_parquet(folder / "manifest.parquet")
        images = np.load(folder / "images.npy", mmap_mode="r")
    except (OSError, ValueError) as error:
        raise ArtifactError(f"{folder}: not a prepared dataset ({error}); make one with `fer prepare`") from error
    if len(manifest) != len(images):
        raise ArtifactError(f"{folder}: {len(manifest)} rows but {len(images)} images; delete it and prepare again")
    return Dataset(card, manifest, images)


def _card_from(document: object) -> DatasetCard:
    """Parse a card; ValueError if a key is missing, unknown or of a wrong type."""
    keys = {key.name for key in fields(DatasetCard)}
    if not isinstance(document, dict) or document.keys() != keys:
        amiss = sorted(keys ^ document.keys()) if isinstance(document, dict) else sorted(keys)
        raise ValueError(f"dataset.json has not just its own keys: {', '.join(amiss)}")
    for name in _LISTS:
        if not isinstance(document[name], list):
            raise ValueError(f"dataset.json: {name} is no list")
    return DatasetCard(**document | {name: tuple(document[name]) for name in _LISTS})
