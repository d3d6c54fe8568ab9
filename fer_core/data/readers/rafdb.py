"""RAF-DB's basic emotions: the official layout, or the class folders that EfficientFace's users have."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from fer_core.data.dataset import EMOTIONS
from fer_core.data.readers.classes import NumberOrder, check_shares, name_classes
from fer_core.data.readers.folder import ClassFolders, read_class_folders, source_of_folders
from fer_core.data.readers.names import number_of, split_of, split_of_folder
from fer_core.data.readers.source import (
    NEARLY_ALL,
    Source,
    find_images,
    folders_within,
    image_stem,
    read_file,
    read_text,
    subfolders,
    unwrapped,
)
from fer_core.errors import DatasetError
from fer_core.experiment import DatasetSettings

LABELS = ("list_patition_label.txt", "list_partition_label.txt")
"""The misspelling is the dataset's own, and some mend it."""
DISTRIBUTIONS = "distribution_basic.txt"
IMAGES = "aligned"
_DEPTH = 5
"""Aligned images are looked for so many folders below."""
_PUBLISHED = (f"basic/Image/{IMAGES}", f"Image/{IMAGES}", IMAGES)
_PUBLISHED_LOWER = tuple(map(str.lower, _PUBLISHED))

OFFICIAL_ORDER = ("surprise", "fear", "disgust", "happiness", "sadness", "anger", "neutral")
"""What RAF-DB's labels 1 to 7 mean."""
EFFICIENTFACE_ORDER = ("neutral", "happiness", "sadness", "surprise", "fear", "disgust", "anger")
"""What the folders 0 to 6 of EfficientFace's users mean."""

_SIZES = dict(zip(OFFICIAL_ORDER, (1290, 281, 717, 4772, 1982, 705, 2524), strict=True))
"""Training images."""
_OFFICIAL = NumberOrder(
    "RAF-DB's own order", {str(number): name for number, name in enumerate(OFFICIAL_ORDER, start=1)}, _SIZES
)
_EFFICIENTFACE = NumberOrder(
    "EfficientFace's order", {str(number): name for number, name in enumerate(EFFICIENTFACE_ORDER)}, _SIZES
)
_CLASSES = EMOTIONS[:7]
_PROTOCOL = (
    "RAF-DB basic emotions (Li et al. 2017), aligned images, the official train and test parts; the label is "
    "the crowd's most frequent answer."
)


def read(settings: DatasetSettings, folder: Path) -> Source:
    """RAF-DB's images with labels, and the crowd's distributions where their file is there.

    Raises:
        DatasetError: it is neither layout, or both; a label or a distribution is out of its range.
    """
    inner = unwrapped(folder, lambda path: _labels_file(path) is not None or _has_parts(path))
    labels_file, by_folders = _labels_file(inner), _has_parts(inner)
    if labels_file and by_folders:
        raise DatasetError(f"{folder}: holds both {labels_file.name} and class folders under train; move one of them")
    if labels_file and isinstance(settings.classes, Mapping):
        raise DatasetError(f"{labels_file}: its numbers have RAF-DB's own meaning; leave [dataset.classes] out")
    if labels_file:
        return _read_official(settings, inner, labels_file)
    if by_folders:
        return _read_class_folders(settings, inner)
    raise DatasetError(
        f"{folder}: not RAF-DB; looked for basic/EmoLabel/{LABELS[0]} with basic/Image/{IMAGES}, and for class folders "
        "0…6 or 1…7 below train and test; give the folder that holds one of them with --data"
    )


def _has_parts(folder: Path) -> bool:
    return any(
        split_of(path.name) or (split_of_folder(path.name) and any(number_of(inner.name) for inner in subfolders(path)))
        for path in subfolders(folder)
    )


def _labels_file(folder: Path) -> Path | None:
    places = (folder / "basic" / "EmoLabel", folder / "EmoLabel", folder / "basic", folder)
    return next((place / name for place in places for name in LABELS if (place / name).is_file()), None)


def _read_official(settings: DatasetSettings, folder: Path, labels_file: Path) -> Source:
    records = _read_labels(labels_file)
    numbers = [str(OFFICIAL_ORDER.index(_CLASSES[label]) + 1) for label in records["label"]]
    classes = name_classes(numbers, settings, labels_file, replace(_OFFICIAL, is_fixed=True))
    distributions = None
    if (labels_file.parent / DISTRIBUTIONS).is_file():
        distributions = _read_distributions(labels_file.parent / DISTRIBUTIONS, records)
    paths, beside = _find_aligned(folder, list(records["id"]))
    return Source(
        name="rafdb",
        labels=_CLASSES,
        records=records,
        distributions=distributions,
        truth="" if distributions is None else "crowd votes",
        protocol=_PROTOCOL,
        read_image=lambda row: read_file(paths[row]),
        notes=(*classes.notes, *beside),
    )


def _find_aligned(folder: Path, names: Sequence[str]) -> tuple[list[Path], tuple[str, ...]]:
    """The file of each image below the folder `aligned`, whatever its ending, with or without `_aligned`.

    And what else is there, for the user to see.
    """
    place = _place_of_aligned(folder, names)
    found = find_images(place)
    # An image named as published goes before another of its name.
    file_of = {image_stem(path): path for path in sorted(found.paths, key=lambda path: path.stem.endswith("_aligned"))}
    unlisted = len(file_of.keys() - {*names})
    told = (f"images that are not listed, not read: {unlisted:,}",) if unlisted else ()
    return [file_of.get(name, place / f"{name}_aligned.jpg") for name in names], (*told, *found.note())


def _place_of_aligned(folder: Path, names: Sequence[str]) -> Path:
    """The folder `aligned` that has nearly all of the images; of several the published one.

    Raises:
        DatasetError: none has any of them, or several that are not the published one do.
    """
    places = [path for path in folders_within(folder, _DEPTH) if path.name.lower() == IMAGES]
    if not places:
        raise DatasetError(f"{folder / _PUBLISHED[0]}: no such folder; unpack RAF-DB's aligned images there")
    images_of = {place: find_images(place).paths for place in places}
    count_of = {place: len({*names} & {*map(image_stem, images)}) for place, images in images_of.items()}
    best = [place for place, count in count_of.items() if count and count >= NEARLY_ALL * max(count_of.values())]
    published = [place for place in best if place.relative_to(folder).as_posix().lower() in _PUBLISHED_LOWER]
    if not best:
        found = images_of[places[0]]
        there = f"it has {len(found):,} others, such as {found[0].name}" if found else "it has none at all"
        raise DatasetError(
            f"{places[0]}: none of the {len(names):,} images of the list, such as {names[0]}_aligned.jpg; {there}; "
            "unpack RAF-DB's aligned images there"
        )
    if len(best) > 1 and not published:
        raise DatasetError(f"{folder}: its images may be those in {best[0]} or in {best[1]}; take one of them away")
    return (published or best)[0]


def _read_labels(path: Path) -> pd.DataFrame:
    """id, label and split of lines such as `train_00001.jpg 5`."""
    rows = []
    seen: set[str] = set()
    for number, line in _lines(path):
        place = f"{path}, line {number}"
        match line.split():
            case [name, label] if name.startswith(("train", "test")) and "/" not in name:
                stem = image_stem(Path(name))
            case _:
                raise DatasetError(f"{place}: {line!r}; it must be such as 'train_00001.jpg 5'")
        if label not in tuple("1234567"):
            raise DatasetError(f"{place}: label {label}; it must be 1 to 7 ({', '.join(OFFICIAL_ORDER)})")
        if stem in seen:
            raise DatasetError(f"{place}: {name} is listed twice; keep one of its lines")
        seen.add(stem)
        split = "train" if name.startswith("train") else "test"
        rows.append((stem, _CLASSES.index(OFFICIAL_ORDER[int(label) - 1]), split))
    if not rows:
        raise DatasetError(f"{path}: lists no images; restore RAF-DB's own file")
    return pd.DataFrame(rows, columns=["id", "label", "split"])


def _read_distributions(path: Path, records: pd.DataFrame) -> np.ndarray:
    """(N, 7) float32 of lines such as `train_00001.jpg 0.1 0 0 0.7 0 0.2 0`, in the official order."""
    shares = {
        image_stem(Path(line.split()[0])): _parse_shares(f"{path}, line {number}", line)
        for number, line in _lines(path)
    }
    missing = [name for name in records["id"] if name not in shares]
    if missing:
        raise DatasetError(
            f"{path}: no distribution for {missing[0]} and {len(missing) - 1} more of {len(records)} images; "
            "complete the file, or move it away to go without distributions"
        )
    official = np.array([shares[name] for name in records["id"]], np.float32)
    distributions = official[:, [OFFICIAL_ORDER.index(name) for name in _CLASSES]]
    remedy = f"its columns must be {', '.join(OFFICIAL_ORDER)}"
    check_shares(path, distributions, records["label"].to_numpy(), remedy)
    return distributions


def _parse_shares(place: str, line: str) -> np.ndarray:
    try:
        shares = np.array(line.split()[1:], np.float64)
    except ValueError:
        shares = np.empty(0)
    if shares.shape != (7,) or not np.isfinite(shares).all() or (shares < 0).any() or shares.sum() <= 0:
        raise DatasetError(f"{place}: {line!r}; it must be an image's name and 7 shares, none of them negative")
    normalised: np.ndarray = shares / shares.sum()
    return normalised


def _lines(path: Path) -> list[tuple[int, str]]:
    """Numbered lines that are not blank."""
    lines = enumerate(read_text(path).splitlines(), start=1)
    return [(number, line.strip()) for number, line in lines if line.strip()]


def _read_class_folders(settings: DatasetSettings, folder: Path) -> Source:
    found = read_class_folders(settings, folder)
    # RAF-DB has two parts: without a folder `test`, one called `valid` or `val` is the official test part.
    if not any(image.split == "test" for image in found.images):
        images = [replace(image, split=image.split.replace("validation", "test")) for image in found.images]
        found = ClassFolders(images, found.notes)
    ids = [image_stem(image.path) for image in found.images]
    order = _order(settings, {image.label for image in found.images}, folder)
    return source_of_folders("rafdb", settings, folder, found, ids, order, _PROTOCOL)


def _order(settings: DatasetSettings, names: set[str], folder: Path) -> NumberOrder | None:
    """The order of the numbers, by whether they are 0 to 6 or 1 to 7; none where only [dataset.classes] can say it."""
    numbers = {number for name in names if (number := number_of(name))}
    if numbers and ("0" in numbers) == ("7" in numbers):
        if isinstance(settings.classes, Mapping) and any(map(number_of, settings.classes)):
            return None
        raise DatasetError(
            f"{folder}: class folders {', '.join(sorted(names))} fit both orders or neither, where 0…6 are "
            f"{', '.join(EFFICIENTFACE_ORDER)} and 1…7 are {', '.join(OFFICIAL_ORDER)}; say what each means in "
            '[dataset.classes], such as 1 = "surprise"'
        )
    return _OFFICIAL if "7" in numbers else _EFFICIENTFACE
