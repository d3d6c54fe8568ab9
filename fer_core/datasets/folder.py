"""A folder for each class, with or without a folder for each split above."""

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from fer_core.datasets.names import SPLITS, class_order
from fer_core.datasets.source import (
    Source,
    image_files,
    subfolders,
    unique_ids,
    without_ending,
)
from fer_core.errors import DatasetError
from fer_core.experiment import DatasetSettings
from openface.images import ENDINGS, open_image


@dataclass(frozen=True)
class ClassFolder:
    """The images of one class in one split."""

    split: str
    """train, validation, test, or "" where the layout has no splits."""
    path: Path


def read(settings: DatasetSettings, folder: Path) -> Source:
    """Images at CLASS/*.jpg, or at train|validation|test/CLASS/*.jpg; classes are called as their folders.

    Raises:
        DatasetError: there are no such folders, or no images in them.
    """
    class_folders = find_class_folders(folder)
    labels, index_of = class_order(part.path.name for part in class_folders)
    files = [(part, path) for part in class_folders for path in image_files(part.path)]
    if not files or len(labels) < 2:
        raise DatasetError(
            f"{folder}: {len(files)} images in {len(labels)} class folders; looked for CLASS/* and "
            f"train|validation|test/CLASS/* of two classes or more, with {', '.join(ENDINGS)} files"
        )
    names = [path.relative_to(folder).as_posix() for _, path in files]
    paths = [path for _, path in files]
    return Source(
        name="folder",
        labels=labels,
        records=pd.DataFrame(
            {
                "id": unique_ids([without_ending(name) for name in names], names),
                "label": [index_of[part.path.name] for part, _ in files],
                "split": [part.split for part, _ in files],
            }
        ),
        distributions=None,
        truth="",
        protocol="All images of a folder of class folders; the label is the folder's name.",
        read_image=lambda row: open_image(paths[row]),
    )


def find_class_folders(folder: Path) -> list[ClassFolder]:
    """The class folders below the split folders, or directly in `folder` where there are no such.

    Raises:
        DatasetError: split folders stand beside others, or train is not among them.
    """
    found = subfolders(folder)
    splits = [path for path in found if path.name.lower() in SPLITS]
    if not splits:
        return [ClassFolder("", path) for path in found]
    others = [path.name for path in found if path not in splits]
    if others:
        raise DatasetError(
            f"{folder}: the folder {others[0]} is beside {splits[0].name}, so it may be a class or a split; "
            "keep either class folders or train, validation and test"
        )
    if "train" not in {SPLITS[path.name.lower()] for path in splits}:
        raise DatasetError(f"{folder}: {splits[0].name} without train; add a folder train of class folders")
    return [ClassFolder(SPLITS[split.name.lower()], path) for split in splits for path in subfolders(split)]
