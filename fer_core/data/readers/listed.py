"""Images that a CSV lists with labels, and with splits, face boxes and distributions where it has them."""

import os
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache
from itertools import islice
from pathlib import Path, PurePath, PureWindowsPath
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from fer_core.data.dataset import BOX, EMOTIONS, PHOTOGRAPH
from fer_core.data.readers.classes import UNLABELLED_INDEX, Classes, NumberOrder, check_shares, name_classes
from fer_core.data.readers.folder import folders_of_several, names_alike, splits_in_files, without_dropped
from fer_core.data.readers.lists import (
    SHARE,
    ListedImages,
    folders_in,
    is_share,
    list_files,
    read_lists,
    refuse_rows,
    split_above,
)
from fer_core.data.readers.names import DROPPED, emotion_of, plain_label, readable, split_of_folder
from fer_core.data.readers.source import (
    NEARLY_ALL,
    Source,
    find_images,
    folders_within,
    note_of_frames,
    read_file,
    unique_ids,
    without_ending,
)
from fer_core.errors import DatasetError
from fer_core.experiment import DatasetSettings
from openface.decoding import ENDINGS, UnreadableImage
from openface.files import is_hidden

_APART = re.compile(r"^/|(^|[/\\])\.(?![/\\])")
"""Paths that are absolute, or have a part that begins with a dot, be it `..` or hidden, and is not `.` itself."""
_DEPTH = 2
"""Images are looked for so many folders below the one that is given."""
_TRIED = 20
_NO_UTF_8 = re.compile("[\udc80-\udcff]")
"""Bytes that are no UTF-8, as Python has them in text."""
_WRITTEN = (*ENDINGS, *map(str.upper, ENDINGS))
"""Endings as files have them; cameras write upper case."""
_LEAST_INSIDE = 1 / 2
"""A smaller share of a face box within its image is a mistake."""

AFFECTNET = NumberOrder(
    "AffectNet's order",
    {
        "0": "neutral",
        "1": "happiness",
        "2": "sadness",
        "3": "surprise",
        "4": "fear",
        "5": "disgust",
        "6": "anger",
        "7": "contempt",
        "8": DROPPED,
        "9": DROPPED,
        "10": DROPPED,
    },
    {
        "neutral": 74874,
        "happiness": 134415,
        "sadness": 25459,
        "surprise": 14090,
        "fear": 6378,
        "disgust": 3803,
        "anger": 24882,
        "contempt": 3750,
    },
)
"""8, 9 and 10 are none of these emotions, uncertain, and no face."""


def read(settings: DatasetSettings, folder: Path) -> Source:
    """Images of a CSV with a path and a label, optionally a split, a face box and, for each class, p_CLASS.

    folder: the file, or the folder that holds `labels.csv`, or one CSV for each split, or a single CSV

    Raises:
        DatasetError: the file is missing or not such a list, or a row holds what it must not.
    """
    lists = read_lists(folder, _named(settings))
    return _source("csv", settings, folder, lists, "All images of a list; the label is the list's own.")


def read_affectnet_lists(settings: DatasetSettings, folder: Path) -> Source:
    """AffectNet's `training.csv` and `validation.csv` with the images they list, faces cut out by their boxes.

    Its validation part is the test split, since it is what results are published on. Errors as `read`.
    """
    lists = read_lists(folder, _named(settings))
    for found in lists:
        if not found.is_affectnet:
            raise DatasetError(
                f"{found.path}: not AffectNet's list, which has the columns subDirectory_filePath and expression; "
                "for another list set dataset.source = 'csv'"
            )
    protocol = (
        "AffectNet (Mollahosseini et al. 2019), manually annotated images, faces cut out by their boxes; the "
        "validation part, which results are published on, is the test split; the label is the annotator's."
    )
    return _source("affectnet", settings, folder, lists, protocol)


def listed_files(folder: Path) -> list[Path]:
    """The lists and the images in them that are there: what a dataset given as a list depends on."""
    lists = read_lists(folder)
    return [*(found.path for found in lists), *(path for path in _locate(folder, lists) if os.path.isfile(path))]


def listed_beyond(folder: Path) -> list[Path]:
    """The images that are there and not below a folder, or hidden in it, which lists in it name by such a path."""
    lists = [found for found in read_lists(folder) if any(map(_APART.search, found.names))]
    inside = os.path.join(os.path.abspath(folder), "")
    named = ((path, os.path.abspath(path)) for path in _locate(folder, lists))
    return [
        path
        for path, place in named
        if (not place.startswith(inside) or is_hidden(PurePath(place.removeprefix(inside)))) and os.path.isfile(path)
    ]


def _source(name: str, settings: DatasetSettings, folder: Path, lists: Sequence[ListedImages], protocol: str) -> Source:
    where = lists[0].path
    root = os.path.commonpath([found.path.parent for found in lists])
    names = [text for found in lists for text in found.names]
    own = [label for found in lists for label in found.labels]
    share_columns = _share_columns(lists)
    also = [column[len(SHARE) :] for column in share_columns]
    order = AFFECTNET if all(found.is_affectnet for found in lists) else None
    classes = name_classes([*own, *also], settings, where, order, without_images=len(also))
    if len(classes.labels) < 2:
        there = f"only the class {classes.labels[0]}" if classes.labels else "no image has a label"
        raise DatasetError(f"{where}: {there}; list images of two classes or more")
    shares = _read_shares(lists, share_columns, classes, len(own)) if share_columns else None
    paths, boxes = _locate(folder, lists), _boxes(lists)
    _refuse_twice(lists, paths, boxes)
    ids = unique_ids([without_ending(text) for text in names], [os.path.relpath(path, root) for path in paths])
    index = classes.index[: len(own)]
    records = pd.DataFrame(
        {
            "id": ids,
            "label": index,
            "split": _splits(lists),
            **_persons(lists),
            **_cut_out(ids, paths, boxes),
        }
    )
    meant = cache(lambda: _by_stem(Path(root)))
    source = Source(
        name=name,
        labels=classes.labels,
        records=records,
        distributions=shares,
        truth="" if shares is None else "crowd votes",
        protocol=protocol,
        read_image=lambda row: _read_face(paths[row], None if boxes is None else boxes[row], meant),
        notes=(
            *_notes_of_columns(folder, lists, paths),
            *_of_several_endings(names, paths),
            *_in_other_folders(names, [classes.labels[place] if place >= 0 else "" for place in index]),
            *_shares_unused(lists, share_columns, index == UNLABELLED_INDEX),
            *_whole(boxes),
            *note_of_frames(paths),
        ),
    )
    return without_dropped(source, replace(classes, index=index))


def _notes_of_columns(folder: Path, lists: Sequence[ListedImages], paths: Sequence[Path]) -> Iterator[str]:
    """What says the split, the people and the boxes, and which columns, lists and images say nothing."""
    yield from _in_a_guessed_encoding(lists)
    yield from _split_by(lists)
    yield from _in_folders_of_other_splits(lists)
    yield from _persons_by(lists)
    yield from _boxes_by(lists)
    yield from _unused(lists)
    yield from _unread(folder, lists)
    yield from _unlisted(folder, paths)


def _in_a_guessed_encoding(lists: Sequence[ListedImages]) -> Iterator[str]:
    """Say that labels are no UTF-8, and what was taken for their letters; the list may be in Greek or Chinese."""
    for found in lists:
        guessed = [label for label in found.labels.unique() if _NO_UTF_8.search(label)]
        if guessed:
            yield (
                f"labels of {found.path.name} are no UTF-8, and read as Western European, such as "
                f"{readable(guessed[0])}; if the letters are wrong, save it as UTF-8"
            )


def _named(settings: DatasetSettings) -> Sequence[str]:
    return list(settings.classes) if isinstance(settings.classes, Mapping) else ()


def _refuse_twice(lists: Sequence[ListedImages], paths: Sequence[Path], boxes: np.ndarray | None) -> None:
    """An image may be listed once, or once for each face box."""
    seen: set[tuple[str, str | None]] = set()
    lines = ((found.path, line) for found in lists for line in found.names.index)
    for row, (path, line) in enumerate(lines):
        key = (os.path.abspath(paths[row]), None if boxes is None else str(boxes[row]))
        if key in seen:
            raise DatasetError(f"{path}, line {line}: its path is listed before; keep one of the lines")
        seen.add(key)


def _splits(lists: Sequence[ListedImages]) -> list[str]:
    splits = [split for found in lists for split in found.splits]
    if all(found.is_affectnet for found in lists) and "test" not in splits:
        return [split.replace("validation", "test") for split in splits]
    return splits


def _cut_out(ids: Sequence[str], paths: Sequence[Path], boxes: np.ndarray | None) -> dict[str, Sequence[Any]]:
    """The columns of the records that say what of which photograph each face is; AU tables may be of photographs."""
    if boxes is None:
        return {}
    known: dict[str, str] = {}
    photographs = [known.setdefault(os.path.abspath(path), name) for name, path in zip(ids, paths, strict=True)]
    return {PHOTOGRAPH: photographs, **dict(zip(BOX, boxes.T, strict=True))}


def _persons(lists: Sequence[ListedImages]) -> dict[str, list[str]]:
    """The column `person` of the records, where a list says whose face it is; `S01` and `s01` are one."""
    if not any(found.person_column for found in lists):
        return {}
    spelled: dict[str, str] = {}
    persons = (person for found in lists for person in found.persons)
    return {"person": [spelled.setdefault(plain_label(person), person) for person in persons]}


def _persons_by(lists: Sequence[ListedImages]) -> Iterator[str]:
    columns = list(dict.fromkeys(found.person_column for found in lists if found.person_column))
    if columns:
        yield f"people by the column {' and '.join(columns)}; where a split is cut, each is on one side"
    elif not {"validation", "test"} <= {split for found in lists for split in found.splits}:
        rows = [row for found in lists for row in zip(found.names, found.labels, strict=True)]
        yield from names_alike([PureWindowsPath(name).stem for name, _ in rows], [label for _, label in rows])
        labelled = [(name, label) for name, label in rows if label and not all(found.is_affectnet for found in lists)]
        places = (_maybe_people(folders_in(name), label) for name, label in labelled)
        yield from folders_of_several(places, [label for _, label in labelled])


@cache
def _maybe_people(folders: tuple[str, ...], label: str) -> tuple[str, ...]:
    """The folders that say neither the split nor the class."""
    own = plain_label(label)
    return tuple(
        part for part in folders if not (split_of_folder(part) or emotion_of(part) or plain_label(part) == own)
    )


def _split_by(lists: Sequence[ListedImages]) -> Iterator[str]:
    columns = list(dict.fromkeys(name for found in lists for name in found.split_columns))
    if columns:
        yield f"splits by the column {' and '.join(columns)}"
    if any(found.split_by_folders for found in lists):
        yield "splits by the folders in the paths"
    if not any((found.splits != "").any() for found in lists):
        yield from splits_in_files(PureWindowsPath(name).stem for found in lists for name in found.names)


def _in_folders_of_other_splits(lists: Sequence[ListedImages]) -> Iterator[str]:
    """How many training images lie in a folder of the test or validation split, and test images in one of train.

    Validation images are often set aside from those of train.
    """
    rows = [(name, split, split_above(name)) for f in lists for name, split in zip(f.names, f.splits, strict=True)]
    apart = [row for row in rows if row[1:] in (("train", "test"), ("train", "validation"), ("test", "train"))]
    if apart and len({above for *_, above in rows} - {""}) > 1:  # One alone may be of a folder such as /home/test.
        name, split, _ = apart[0]
        yield (
            f"images in a folder of another split: {len(apart):,} of {len(rows):,}, such as {name} ({split}); are the "
            "rows in step?"
        )


def _boxes_by(lists: Sequence[ListedImages]) -> Iterator[str]:
    """Which columns faces are cut out by; AffectNet's need no word."""
    for columns in dict.fromkeys(tuple(found.box.names) for found in lists if not found.is_affectnet):
        if columns:
            yield f"faces are cut out by the columns {', '.join(columns)}"


def _unused(lists: Sequence[ListedImages]) -> Iterator[str]:
    # Another list may have no value in it.
    used = {name for found in lists for name in (*found.split_columns, found.person_column)}
    columns = list(dict.fromkeys(name for found in lists for name in found.unused if name not in used))
    if columns:
        yield f"columns not used: {', '.join(columns)}"


def _unread(given: Path, lists: Sequence[ListedImages]) -> Iterator[str]:
    """Which files beside the lists may be lists too."""
    if given.is_dir():
        folders = dict.fromkeys(found.path.parent for found in lists)
        beside = {path.name for folder in folders for path in list_files(folder)} - {found.path.name for found in lists}
        if beside:
            yield f"files beside the list, not read: {', '.join(sorted(beside))}"


def _shares_unused(lists: Sequence[ListedImages], columns: Sequence[str], unlabelled: np.ndarray) -> Iterator[str]:
    """How many images have shares and no label; a crowd's top class may have been meant as one."""
    filled = [(found.table[list(columns)] != "").any(axis=1).to_numpy(bool) for found in lists] if columns else []
    if filled and (count := int((np.concatenate(filled) & unlabelled).sum())):
        yield f"images with {SHARE} columns and without a label, whose shares are not used: {count:,}"


def _whole(boxes: np.ndarray | None) -> Iterator[str]:
    if boxes is not None and (count := int(np.isnan(boxes).all(axis=1).sum())):
        yield f"images without a face box, taken whole: {count:,}"


def _unlisted(given: Path, paths: Sequence[Path]) -> Iterator[str]:
    """How many images lie in the folder that no list names."""
    there = find_images(given).paths if given.is_dir() else []
    if count := len({*map(os.path.abspath, there)} - {*map(os.path.abspath, paths)}):
        yield f"images that are not listed, not read: {count:,}"


def _of_several_endings(names: Sequence[str], paths: Sequence[Path]) -> Iterator[str]:
    """How many names without an ending could mean several files, such as a face and its mask."""
    several = [
        path
        for name, path in zip(names, paths, strict=True)
        if not name.endswith(path.suffix) and sum(os.path.isfile(path.with_suffix(ending)) for ending in _WRITTEN) > 1
    ]
    if several:
        yield f"names without an ending that several files have: {len(several):,}, of which {several[0].name} is read"


def _in_other_folders(names: Sequence[str], labels: Sequence[str]) -> Iterator[str]:
    """How many labels are another emotion than the folder in the path is called after."""
    folders = [emotions[-1] if (emotions := _emotions_above(name)) else "" for name in names]
    others = [
        (name, label)
        for name, label, folder in zip(names, labels, folders, strict=True)
        if folder and label in EMOTIONS and folder != label
    ]
    if others and len({*folders} - {""}) > 1:  # One alone may be somebody's name, as in /home/joy.
        name, label = others[0]
        yield (
            f"labels of another emotion than their folder's: {len(others):,} of {sum(map(bool, folders)):,}, such as "
            f"{name} ({label}); are the rows in step?"
        )


def _emotions_above(name: str) -> list[str]:
    return [emotion for folder in PureWindowsPath(name).parts[:-1] if (emotion := emotion_of(folder))]


def _share_columns(lists: Sequence[ListedImages]) -> list[str]:
    columns = [[str(name) for name in found.table.columns if is_share(str(name))] for found in lists]
    for found, own in zip(lists, columns, strict=True):
        if set(own) != set(columns[0]):
            raise DatasetError(
                f"{found.path}: its p_ columns are not those of {lists[0].path.name}; give both the same"
            )
    return columns[0]


def _read_shares(lists: Sequence[ListedImages], columns: Sequence[str], classes: Classes, count: int) -> np.ndarray:
    """(N, classes) float32; every class needs its column. Shares of an image without a label are not looked at."""
    index = classes.index[count:]
    path = lists[0].path
    if len(set(index[index >= 0])) < (index >= 0).sum():
        raise DatasetError(f"{path}: two p_ columns mean the same class; keep one of them")
    missing = [name for number, name in enumerate(classes.labels) if number not in index]
    if missing:
        raise DatasetError(f"{path}: no column {SHARE}{missing[0]}; it has {', '.join(columns)}")
    parts, unlabelled = [], iter(classes.index[:count] == UNLABELLED_INDEX)
    for found in lists:
        text = [found.table[columns[int(np.argmax(index == number))]] for number in range(len(classes.labels))]
        shares = np.column_stack([pd.to_numeric(column, errors="coerce") for column in text]).astype(np.float64)
        # Nothing reads these; equal shares say nothing.
        shares[np.fromiter(islice(unlabelled, len(shares)), bool)] = 1
        wrong = ~np.isfinite(shares).all(axis=1) | (shares < 0).any(axis=1) | (shares.sum(axis=1) <= 0)
        told = "its p_ columns must be numbers, none negative and not all 0"
        refuse_rows(found.path, pd.Series(wrong, index=found.table.index), told)
        parts.append(shares / shares.sum(axis=1, keepdims=True))
    distributions: np.ndarray = np.concatenate(parts).astype(np.float32)
    remedy = f"each {SHARE}CLASS must be the share of the class that it names; mend these columns or the labels"
    check_shares(path, distributions, classes.index[:count], remedy)
    return distributions


# Its images


def _locate(given: Path, lists: Sequence[ListedImages]) -> list[Path]:
    """The place where each listed image is, or would be."""
    paths: list[Path] = []
    for found in lists:
        folder = _base(given if given.is_dir() else found.path.parent, found)
        paths += [_find_file(folder, name) for name in found.names]
    return paths


def _base(given: Path, found: ListedImages) -> Path:
    """The folder that the paths start at: the list's own, that of its split, or the one below `given` that has them.

    Raises:
        DatasetError: several have nearly all of them, so that it may be other images of the same names.
    """
    own = found.path.parent
    sample = list(found.names.iloc[:: max(1, len(found.names) // _TRIED)])

    def hits(place: Path) -> int:
        return sum(os.path.isfile(_find_file(place, name)) for name in sample)

    if hits(own) == len(sample):
        return own
    split_of_place = {own: "", **{place: _split_of_place(place, given) for place in folders_within(given, _DEPTH)}}
    of_split = [place for place, split in split_of_place.items() if split and split == found.of_split]
    others = [place for place, split in split_of_place.items() if place == own or not (split and found.of_split)]
    count_of = {place: hits(place) for place in of_split}
    if not any(count_of.values()):
        count_of = {place: hits(place) for place in others}
    nearly = max(count_of.values()) * NEARLY_ALL
    best = [place for place, count in count_of.items() if count and count >= nearly]
    if own in best or not best:
        return own
    if len(best) > 1:
        raise DatasetError(
            f"{found.path}: its images may be those in {best[0]} or in {best[1]}; write their paths from {own}"
        )
    return best[0]


def _split_of_place(place: Path, given: Path) -> str:
    """The split that the lowest of a place's folders below `given` means, or ""."""
    folders = reversed(place.relative_to(given).parts)
    return next((split for folder in folders if (split := split_of_folder(folder))), "")


def _find_file(folder: Path, name: str) -> Path:
    """The file as it is spelled, with Windows' slashes, other accents, in another encoding, or with an ending."""
    for spelling in _spellings(name):
        if os.path.isfile(folder / spelling):
            return folder / spelling
    return folder / name


def _spellings(name: str) -> Iterable[str]:
    yield name
    slashes = name.replace("\\", "/")
    yield slashes
    yield unicodedata.normalize("NFC", slashes)
    yield unicodedata.normalize("NFD", slashes)
    raw = slashes.encode("utf-8", "surrogateescape")
    yield raw.decode("cp1252", errors="replace")
    endings = ENDINGS if slashes.lower().endswith(ENDINGS) else _WRITTEN
    yield from (f"{slashes}{ending}" for ending in endings)


def _boxes(lists: Sequence[ListedImages]) -> np.ndarray | None:
    """(N, 4) float64 left, top, width, height in pixels, NaN where a row has none; None where no list has boxes.

    What is no number is infinite.
    """
    if not any(found.box.names for found in lists):
        return None
    parts = []
    for found in lists:
        if not found.box.names:
            parts.append(np.full((len(found.table), 4), np.nan))
            continue
        box = found.table[found.box.names]
        numbers = box.apply(pd.to_numeric, errors="coerce").astype(np.float64)
        if found.box.are_edges:
            numbers.iloc[:, 2:] -= numbers.iloc[:, :2].to_numpy()
        # What is written and no number is told from an empty box, which is a face that was cut out before.
        parts.append(numbers.where(numbers.notna() | (box == ""), np.inf).to_numpy())
    return np.concatenate(parts).astype(np.float64)


def _by_stem(folder: Path) -> dict[str, Path]:
    """The images below a folder by what of their names matters least to be mistaken in."""
    return {_stem(path): path.relative_to(folder) for path in reversed(find_images(folder).paths)}


def _stem(path: PurePath) -> str:
    """A file's name without folders, ending, case and the zeros that a spreadsheet takes from 007."""
    return path.stem.lower().lstrip("0") or "0"


def _read_face(path: Path, box: np.ndarray | None, meant: Callable[[], Mapping[str, Path]]) -> Image.Image:
    if not os.path.exists(path) and (other := meant().get(_stem(PureWindowsPath(path)))):
        raise UnreadableImage(f"{path}: no such file; is it {other}?")
    image = read_file(path)
    if box is None or np.isnan(box).all():
        return image
    left, top, width, height = box.tolist()
    if not np.isfinite(box).all():
        raise UnreadableImage(f"{path}: its face box is not four numbers")
    edges = (max(0, left), max(0, top), min(image.width, left + width), min(image.height, top + height))
    if not (edges[2] - edges[0] > 1 and edges[3] - edges[1] > 1):
        raise UnreadableImage(
            f"{path}: its face box {box.tolist()} is not within its {image.width} x {image.height} pixels; give it in "
            "pixels, or leave it empty where the face was cut out before"
        )
    inside = (edges[2] - edges[0]) * (edges[3] - edges[1]) / (width * height)
    if inside < _LEAST_INSIDE:
        raise UnreadableImage(
            f"{path}: only {inside:.0%} of its face box {box.tolist()} is within its {image.width} x {image.height} "
            "pixels; are its last two numbers edges, and not width and height?"
        )
    return image.crop(tuple(map(round, edges)))
