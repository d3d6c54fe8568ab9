"""CSV files that list images with labels, and splits, face boxes and distributions where they have them."""

import difflib
import os
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from fer_core.datasets.classes import Classes, NumberOrder, name_classes
from fer_core.datasets.folder import kept
from fer_core.datasets.names import DROPPED, mentions_split, number_of, split_of, split_of_folder
from fer_core.datasets.source import Source, note_of_frames, read_file, subfolders, unique_ids, without_ending
from fer_core.datasets.tables import plain, read_table
from fer_core.errors import DatasetError
from fer_core.experiment import DatasetSettings
from openface.images import ENDINGS, UnreadableImage

LIST = "labels.csv"
"""The list's name where a folder is given."""

_PATH = [
    "path",
    "image",
    "file",
    "filename",
    "filepath",
    "imagepath",
    "imagefile",
    "imagename",
    "img",
    "imgpath",
    "imgname",
    "pth",
    "photo",
    "picture",
    "subdirectoryfilepath",
    "name",
]
_LABEL = [
    "label",
    "emotion",
    "expression",
    "class",
    "category",
    "target",
    "labels",
    "emotions",
    "classname",
    "labelname",
]
_SPLIT = ("split", "usage", "set", "subset", "partition", "part", "phase")
_BOX = ("facex", "facey", "facewidth", "faceheight")
_LANDMARKS = "facial_landmarks"
"""AffectNet's, which are most of its files."""
_SHARE = "p_"
_LIST_ENDINGS = (".csv", ".tsv")
_FEW = 5
"""A column of so few values, one of which is a split's, holds splits."""
_DEPTH = 2
_TRIED = 20

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


@dataclass(frozen=True)
class _List:
    """A CSV file, and the columns that count."""

    path: Path
    table: pd.DataFrame
    """Text, indexed by line."""
    names: "pd.Series[str]"
    labels: "pd.Series[str]"
    splits: "pd.Series[str]"
    is_affectnet: bool
    unused: tuple[str, ...]


def read(settings: DatasetSettings, folder: Path) -> Source:
    """Images of a CSV with a path and a label, optionally a split, a face box and, for each class, p_CLASS.

    folder: the file, or the folder that holds `labels.csv`, or one CSV for each split, or a single CSV

    Raises:
        DatasetError: the file is missing or not such a list, or a row holds what it must not.
    """
    return _source("csv", settings, folder, _read_lists(folder), "All images of a list; the label is the list's own.")


def read_affectnet(settings: DatasetSettings, folder: Path) -> Source:
    """AffectNet's `training.csv` and `validation.csv` with the images they list, faces cut out by their boxes.

    Its validation part is the test split, since it is what results are published on. Errors as `read`.
    """
    lists = _read_lists(folder)
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
    lists = [_read_list(path, split) for path, split in _find_lists(folder)]
    return [*(found.path for found in lists), *(path for path in _locate(folder, lists) if os.path.isfile(path))]


def _source(name: str, settings: DatasetSettings, folder: Path, lists: Sequence[_List], protocol: str) -> Source:
    where = lists[0].path
    names = [text for found in lists for text in found.names]
    own = [label for found in lists for label in found.labels]
    share_columns = _share_columns(lists)
    also = [column.removeprefix(_SHARE) for column in share_columns]
    is_affectnet = all(found.is_affectnet for found in lists)
    order = AFFECTNET if is_affectnet and not _is_numbered(settings) else None
    classes = name_classes([*own, *also], settings, where, order, without_images=len(also))
    if len(classes.labels) < 2:
        raise DatasetError(f"{where}: only the class {', '.join(classes.labels)}; list images of two classes or more")
    shares = _read_shares(lists, share_columns, classes, len(own)) if share_columns else None
    paths, boxes = _locate(folder, lists), _boxes(lists)
    _refuse_twice(lists, boxes)
    splits = [split for found in lists for split in found.splits]
    if is_affectnet and "test" not in splits:
        splits = [split.replace("validation", "test") for split in splits]
    records = pd.DataFrame(
        {
            "id": unique_ids([without_ending(text) for text in names], names),
            "label": classes.index[: len(own)],
            "split": splits,
        }
    )
    source = Source(
        name=name,
        labels=classes.labels,
        records=records,
        distributions=shares,
        truth="" if shares is None else "crowd votes",
        protocol=protocol,
        read_image=lambda row: _read_face(paths[row], None if boxes is None else boxes[row]),
        notes=(*_unused(lists), *note_of_frames(paths)),
    )
    return kept(source, replace(classes, index=classes.index[: len(own)]))


def _is_numbered(settings: DatasetSettings) -> bool:
    return isinstance(settings.classes, Mapping) and any(map(number_of, settings.classes))


# Which lists there are


def _read_lists(folder: Path) -> list[_List]:
    lists = [_read_list(path, split) for path, split in _find_lists(folder)]
    if len({found.is_affectnet for found in lists}) > 1:
        raise DatasetError(f"{folder}: its lists have different columns; write one {LIST} with path,label,split")
    return lists


def _find_lists(given: Path) -> list[tuple[Path, str]]:
    """Each list with the split that its name means: labels.csv, those called as splits, or the only one."""
    if not given.is_dir():
        return [(given, "")]
    for folder in (given, *subfolders(given)):
        if (folder / LIST).is_file():
            return [(folder / LIST, "")]
        files = sorted(
            p for p in folder.iterdir() if p.suffix.lower() in _LIST_ENDINGS and p.is_file() and p.name[0] != "."
        )
        of_splits = [(path, split) for path in files if (split := split_of_folder(path.stem))]
        if of_splits or len(files) == 1:
            return of_splits or [(files[0], "")]
        if files:
            names = ", ".join(path.name for path in files[:3])
            raise DatasetError(f"{folder}: no {LIST}, but {len(files)} others ({names}); give one of them with --data")
    raise DatasetError(f"{given / LIST}: no such file; it must list the images under path,label")


def _read_list(path: Path, split: str) -> _List:
    if not path.is_file():
        raise DatasetError(f"{path}: no such file; it must list the images under path,label")
    table = read_table(path, without=(_LANDMARKS,))
    headers = {plain(name): str(name) for name in table.columns}
    if "pixels" in headers and not any(name in headers for name in _PATH):
        raise DatasetError(f"{path}: holds pixels, no paths; for FER2013 set dataset.source = 'fer2013'")
    names = table[_require_column(path, headers, _PATH)]
    labels = table[_label_column(path, table, headers)]
    for column, what in ((names, "path"), (labels, "label")):
        _refuse_rows(path, column == "", f"no {what}; give one, or take the line out")
    of_split = _split_columns(path, table, headers, (str(names.name), str(labels.name)))
    used = {str(names.name), str(labels.name), *of_split, *(headers[name] for name in _BOX if name in headers)}
    unused = [name for name in table.columns if name not in used and not str(name).startswith(_SHARE)]
    return _List(
        path,
        table,
        names,
        labels,
        _splits(path, table, of_split, split),
        is_affectnet="subdirectoryfilepath" in headers and "expression" in headers,
        unused=tuple(map(str, unused)),
    )


# Its columns


def _require_column(path: Path, headers: Mapping[str, str], known: Sequence[str]) -> str:
    found = next((headers[name] for name in known if name in headers), None)
    if found is not None:
        return found
    nearest = difflib.get_close_matches(known[0], headers, n=1, cutoff=0.6)
    hint = f"rename {headers[nearest[0]]}?" if nearest else f"it has {', '.join(headers.values())}"
    raise DatasetError(f"{path}: no column {known[0]}; {hint}")


def _label_column(path: Path, table: pd.DataFrame, headers: Mapping[str, str]) -> str:
    """The first of the usual names, and one that holds words before one that holds numbers."""
    there = [headers[name] for name in _LABEL if name in headers]
    words = [name for name in there if not table[name].map(number_of).notna().all()]
    return next(iter(words), None) or _require_column(path, headers, _LABEL)


def _split_columns(path: Path, table: pd.DataFrame, headers: Mapping[str, str], used: Sequence[str]) -> list[str]:
    """The columns that hold splits, by their name or by their values."""
    named = [headers[name] for name in _SPLIT[:2] if name in headers]
    columns = []
    for name in (str(name) for name in table.columns if name not in used):
        values = {value for value in table[name].unique() if value}
        if not values:
            continue
        splits = {value for value in values if split_of(value)}
        if splits == values or name in named or (splits and len(values) <= _FEW):
            wrong = table[name].isin(values - splits)
            _refuse_rows(path, wrong, f"its {name} must be train, validation, test or empty")
            columns.append(name)
        elif mentions_split(name) or (plain(name) in _SPLIT and all(map(number_of, values))):
            raise DatasetError(
                f"{path}: the column {name} seems to say which split an image is in, by "
                f"{', '.join(sorted(values)[:4])}; write train, validation or test, or rename the column"
            )
    return columns


def _splits(path: Path, table: pd.DataFrame, columns: Sequence[str], of_file: str) -> "pd.Series[str]":
    found = [table[name].map(lambda value: split_of(value) or "") for name in columns]
    splits = found[0] if found else pd.Series(of_file, index=table.index)
    for other, name in zip(found[1:], columns[1:], strict=True):
        _refuse_rows(path, other != splits, f"its {columns[0]} and its {name} differ; keep one of these columns")
    return splits


def _refuse_rows(path: Path, wrong: "pd.Series[bool]", what: str) -> None:
    if wrong.any():
        raise DatasetError(f"{path}, line {wrong.index[int(np.argmax(wrong.to_numpy()))]}: {what}")


def _refuse_twice(lists: Sequence[_List], boxes: np.ndarray | None) -> None:
    """An image may be listed once, or once for each face box."""
    seen: set[tuple[str, str | None]] = set()
    for row, (found, line, name) in enumerate((f, line, name) for f in lists for line, name in f.names.items()):
        key = (name, None if boxes is None else str(boxes[row]))
        if key in seen:
            raise DatasetError(f"{found.path}, line {line}: its path is listed before; keep one of the lines")
        seen.add(key)


def _unused(lists: Sequence[_List]) -> Iterator[str]:
    columns = list(dict.fromkeys(name for found in lists for name in found.unused))
    if columns:
        yield f"columns not used: {', '.join(columns)}"


def _share_columns(lists: Sequence[_List]) -> list[str]:
    columns = [[str(name) for name in found.table.columns if str(name).startswith(_SHARE)] for found in lists]
    if any(set(other) != set(columns[0]) for other in columns):
        raise DatasetError(
            f"{lists[0].path}: its p_ columns are not those of {lists[-1].path.name}; give both the same"
        )
    return columns[0]


def _read_shares(lists: Sequence[_List], columns: Sequence[str], classes: Classes, count: int) -> np.ndarray:
    """(N, classes) float32; every class needs its column."""
    index = classes.index[count:]
    path = lists[0].path
    if len(set(index[index >= 0])) < (index >= 0).sum():
        raise DatasetError(f"{path}: two p_ columns mean the same class; keep one of them")
    missing = [name for number, name in enumerate(classes.labels) if number not in index]
    if missing:
        raise DatasetError(f"{path}: no column {_SHARE}{missing[0]}; it has {', '.join(columns)}")
    parts = []
    for found in lists:
        text = [found.table[columns[int(np.argmax(index == number))]] for number in range(len(classes.labels))]
        shares = np.column_stack([pd.to_numeric(column, errors="coerce") for column in text]).astype(np.float64)
        wrong = ~np.isfinite(shares).all(axis=1) | (shares < 0).any(axis=1) | (shares.sum(axis=1) <= 0)
        told = "its p_ columns must be numbers, none negative and not all 0"
        _refuse_rows(found.path, pd.Series(wrong, index=found.table.index), told)
        parts.append(shares / shares.sum(axis=1, keepdims=True))
    distributions: np.ndarray = np.concatenate(parts).astype(np.float32)
    return distributions


# Its images


def _locate(given: Path, lists: Sequence[_List]) -> list[Path]:
    """Where each listed image is, or would be."""
    paths: list[Path] = []
    for found in lists:
        folder = _base(given if given.is_dir() else found.path.parent, found)
        paths += [_find_file(folder, name) for name in found.names]
    return paths


def _base(given: Path, found: _List) -> Path:
    """The folder that the paths start at: the list's own, or else one below the given that has the most of them."""
    sample = list(found.names.iloc[:: max(1, len(found.names) // _TRIED)])
    places = [found.path.parent, *(place for place in _folders(given, _DEPTH) if place != found.path.parent)]
    return max(places, key=lambda place: sum(os.path.isfile(_find_file(place, name)) for name in sample))


def _folders(folder: Path, depth: int) -> Iterator[Path]:
    yield folder
    if depth:
        for inner in subfolders(folder):
            yield from _folders(inner, depth - 1)


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
    yield from (f"{slashes}{ending}" for ending in ENDINGS)


def _boxes(lists: Sequence[_List]) -> np.ndarray | None:
    """(N, 4) float64 left, top, width, height in pixels, NaN where a row has none; None where no list has boxes."""
    parts = []
    for found in lists:
        headers = {plain(str(name)): name for name in found.table.columns}
        if not all(name in headers for name in _BOX):
            return None
        parts.append(np.column_stack([pd.to_numeric(found.table[headers[name]], errors="coerce") for name in _BOX]))
    return np.concatenate(parts).astype(np.float64)


def _read_face(path: Path, box: np.ndarray | None) -> Image.Image:
    image = read_file(path)
    if box is None:
        return image
    left, top, width, height = box.tolist()
    if not np.isfinite(box).all():
        raise UnreadableImage(f"{path}: its face box is not four numbers")
    edges = (max(0, left), max(0, top), min(image.width, left + width), min(image.height, top + height))
    if not (edges[2] - edges[0] >= 1 and edges[3] - edges[1] >= 1):
        raise UnreadableImage(
            f"{path}: its face box {box.tolist()} is not within its {image.width} x {image.height} pixels"
        )
    return image.crop(tuple(map(round, edges)))
