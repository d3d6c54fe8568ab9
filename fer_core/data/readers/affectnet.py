"""AffectNet's manually annotated images: by its lists, by an array for each annotation, or in class folders."""

from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from fer_core.data.readers.folder import ClassFolders, FolderImage, read_class_folders, source_of_folders
from fer_core.data.readers.listed import AFFECTNET, read_affectnet_lists
from fer_core.data.readers.lists import lists_near
from fer_core.data.readers.names import emotion_of, number_of, split_of_folder
from fer_core.data.readers.source import Source, find_images, subfolders, unwrapped, without_ending
from fer_core.data.readers.tables import plain, read_rows
from fer_core.errors import DatasetError
from fer_core.experiment import DatasetSettings

_IMAGES, _ANNOTATIONS = "images", "annotations"
_EXPRESSION = "_exp.npy"
_THREADS = 8
_PROTOCOL = (
    "AffectNet (Mollahosseini et al. 2019), manually annotated images, faces as they come cut out; the validation "
    "part, which results are published on, is the test split; the label is the annotator's."
)


@dataclass(frozen=True)
class _Part:
    """Images and annotations of a split, "" where no folder says which."""

    folder: Path
    split: str


def read(settings: DatasetSettings, folder: Path) -> Source:
    """AffectNet in any of the layouts that it goes about in; faces are cut out by the boxes of its lists.

    - `training.csv` and `validation.csv` with the images that they list.
    - `train_set` and `val_set`, or one of them: `images/N.jpg` with `annotations/N_exp.npy`, cut out by its makers.
    - `train/0…7` and `val/0…7`, numbered in AffectNet's order, or called after emotions.

    Its validation part is the test split, since it is what results are published on.

    Raises:
        DatasetError: it is none of these, or an annotation is missing or none.
    """
    if folder.is_file():
        return read_affectnet_lists(settings, folder)
    inner = unwrapped(folder, lambda path: bool(_parts(path)))
    if parts := _parts(inner):
        return _read_arrays(settings, inner, parts)
    inner, lists = unwrapped(folder, _has_class_folders), lists_near(folder)
    if _has_class_folders(inner) and not any(map(_is_own_list, lists)):
        return _read_class_folders(settings, inner)
    if lists:
        return read_affectnet_lists(settings, folder)
    raise DatasetError(
        f"{folder}: not AffectNet; looked for training.csv and validation.csv, for train_set and val_set with "
        f"{_IMAGES} and {_ANNOTATIONS}, and for train/0…7 with val/0…7; give the folder that holds them with --data, "
        "or write a labels.csv and set dataset.source = 'csv'"
    )


def _parts(folder: Path) -> list[_Part]:
    """The splits below a folder, or the one that it is."""
    if _is_part(folder):
        return [_Part(folder, split_of_folder(folder.name) or "")]
    return [
        _Part(part, split) for part in subfolders(folder) if (split := split_of_folder(part.name)) and _is_part(part)
    ]


def _is_part(folder: Path) -> bool:
    return all((folder / name).is_dir() for name in (_IMAGES, _ANNOTATIONS))


def _read_arrays(settings: DatasetSettings, folder: Path, parts: Sequence[_Part]) -> Source:
    found = [(part, path) for part in parts for path in find_images(part.folder / _IMAGES).paths]
    arrays = [part.folder / _ANNOTATIONS / f"{path.stem}{_EXPRESSION}" for part, path in found]
    with ThreadPoolExecutor(_THREADS) as pool:
        labels = list(pool.map(_label_in, arrays))
    annotated = [row for row, label in enumerate(labels) if label is not None]
    if not annotated:
        raise DatasetError(
            f"{folder}: none of its {len(found):,} images has an annotation, such as "
            f"{parts[0].folder.name}/{_ANNOTATIONS}/0{_EXPRESSION}; unpack the annotations there"
        )
    splits = _as_published([found[row][0].split for row in annotated])
    images = [FolderImage(found[row][1], str(labels[row]), split) for row, split in zip(annotated, splits, strict=True)]
    without = [path for (_, path), label in zip(found, labels, strict=True) if label is None]
    arrays_there = {array for part in parts for array in (part.folder / _ANNOTATIONS).glob(f"[!.]*{_EXPRESSION}")}
    return _source(settings, folder, images, tuple(_told(without, arrays_there.difference(arrays))))


def _label_in(array: Path) -> str | None:
    """The number of an expression; None where there is no such annotation.

    Raises:
        DatasetError: it cannot be read, or holds anything but one whole number.
    """
    try:
        value = np.load(array, allow_pickle=False)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, EOFError) as error:
        raise DatasetError(f"{array}: not readable as an array ({error}); restore it") from error
    text = value.astype(str).item() if value.size == 1 else ""
    if number_of(text) is None:
        raise DatasetError(f"{array}: not the number of an expression; restore it")
    return text


def _as_published(splits: Sequence[str]) -> list[str]:
    """The validation part as test, unless there is another test part."""
    return list(splits) if "test" in splits else [split.replace("validation", "test") for split in splits]


def _told(without: Sequence[Path], alone: Collection[Path]) -> Iterator[str]:
    if without:
        yield f"images without an annotation, not read: {len(without):,}, such as {without[0].name}"
    if alone:
        yield f"annotations without an image: {len(alone):,}, such as {min(alone).name}; are all images unpacked?"


def _has_class_folders(folder: Path) -> bool:
    return any(
        split_of_folder(part.name)
        and any(number_of(inner.name) or emotion_of(inner.name) for inner in subfolders(part))
        for part in subfolders(folder)
    )


def _read_class_folders(settings: DatasetSettings, folder: Path) -> Source:
    found = read_class_folders(settings, folder)
    splits = _as_published([image.split for image in found.images])
    images = [replace(image, split=split) for image, split in zip(found.images, splits, strict=True)]
    return _source(settings, folder, images, found.notes)


def _is_own_list(path: Path) -> bool:
    """Tell AffectNet's lists by their header from others, such as the one that Kaggle has beside class folders."""
    first = next(read_rows(path), None)
    return first is not None and "subdirectoryfilepath" in map(plain, first.fields)


def _source(settings: DatasetSettings, folder: Path, images: list[FolderImage], notes: tuple[str, ...]) -> Source:
    ids = [without_ending(image.path.relative_to(folder).as_posix()) for image in images]
    return source_of_folders("affectnet", settings, folder, ClassFolders(images, notes), ids, AFFECTNET, _PROTOCOL)
