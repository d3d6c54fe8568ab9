"""Which CSV files list a dataset's images, and which of their columns count."""

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from fer_core.data.readers.names import mentions_split, number_of, split_of, split_of_folder
from fer_core.data.readers.source import subfolders
from fer_core.data.readers.tables import plain, read_table
from fer_core.errors import DatasetError

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
    "fname",
    "facepath",
    "facename",
    "facefile",
    "imageid",
    "imgid",
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
    "emotionlabel",
    "emotionname",
    "emotionclass",
    "expressionlabel",
    "expressionname",
    "facialexpression",
    "groundtruth",
    "annotation",
]
_SPLIT = ("split", "usage", "set", "subset", "partition", "part", "phase")
BOX = ("facex", "facey", "facewidth", "faceheight")
_LANDMARKS = "facial_landmarks"
"""AffectNet's, which are most of its files."""
SHARE = "p_"
_LIST_ENDINGS = (".csv", ".tsv")
_FEW = 5
"""A column of so few values, one of which is a split's, holds splits."""


@dataclass(frozen=True)
class ListedImages:
    """A CSV file, and its columns that count."""

    path: Path
    table: pd.DataFrame
    """Text, indexed by line."""
    names: "pd.Series[str]"
    labels: "pd.Series[str]"
    splits: "pd.Series[str]"
    """train, validation, test, or "" where it is open."""
    of_split: str
    """The split that the file's name means, or ""."""
    is_affectnet: bool
    unused: tuple[str, ...]
    """Columns that do not count."""


def read_lists(folder: Path) -> list[ListedImages]:
    """The lists that `folder` is, or holds: labels.csv, one for each split, or a single CSV.

    Raises:
        DatasetError: there is none, or one is no such list.
    """
    lists = [_read_list(path, split) for path, split in _find_lists(folder)]
    if len({found.is_affectnet for found in lists}) > 1:
        raise DatasetError(f"{folder}: its lists have different columns; write one {LIST} with path,label,split")
    return lists


def _find_lists(given: Path) -> list[tuple[Path, str]]:
    """Each list with the split that its name, or its folder's, means: those of `given`, or of the folders in it."""
    if not given.is_dir():
        return [(given, "")]
    if found := _lists_in(given):
        return found
    below = {folder: found for folder in subfolders(given) if (found := _lists_in(folder))}
    if not below:
        raise DatasetError(f"{given / LIST}: no such file; it must list the images under path,label")
    if len(below) == 1:
        return next(iter(below.values()))
    if not all(split_of_folder(folder.name) for folder in below):
        names = ", ".join(str(lists[0][0].relative_to(given)) for lists in list(below.values())[:3])
        raise DatasetError(
            f"{given}: several folders hold lists ({names}); give one of them with --data, or write one {LIST} with "
            "path,label,split"
        )
    return [(path, split_of_folder(folder.name) or split) for folder, lists in below.items() for path, split in lists]


def _lists_in(folder: Path) -> list[tuple[Path, str]]:
    """Its labels.csv, its lists called as splits, or its only one, each with the split that its name means."""
    if (folder / LIST).is_file():
        return [(folder / LIST, "")]
    files = list_files(folder)
    of_splits = [(path, split) for path in files if (split := split_of_folder(path.stem))]
    if files and not of_splits and len(files) > 1:
        names = ", ".join(path.name for path in files[:3])
        raise DatasetError(f"{folder}: no {LIST}, but {len(files)} others ({names}); give one of them with --data")
    return of_splits or [(path, "") for path in files]


def list_files(folder: Path) -> list[Path]:
    """The files in a folder that may be lists, sorted."""
    return sorted(p for p in folder.iterdir() if p.suffix.lower() in _LIST_ENDINGS and p.is_file() and p.name[0] != ".")


def _read_list(path: Path, split: str) -> ListedImages:
    if not path.is_file():
        raise DatasetError(f"{path}: no such file; it must list the images under path,label")
    table = read_table(path, without=(_LANDMARKS,))
    headers = {plain(name): str(name) for name in table.columns}
    if "pixels" in headers and not any(name in headers for name in _PATH):
        raise DatasetError(f"{path}: holds pixels, no paths; for FER2013 set dataset.source = 'fer2013'")
    names = table[_require_column(path, headers, _PATH)]
    labels = table[_label_column(path, table, headers)]
    refuse_rows(path, names == "", "no path; give one, or take the line out")
    of_split = _split_columns(path, table, headers, (str(names.name), str(labels.name)))
    used = {str(names.name), str(labels.name), *of_split, *(headers[name] for name in BOX if name in headers)}
    unused = [name for name in table.columns if name not in used and not str(name).startswith(SHARE)]
    return ListedImages(
        path,
        table,
        names,
        labels,
        _splits(path, table, of_split, split),
        of_split=split,
        is_affectnet="subdirectoryfilepath" in headers and "expression" in headers,
        unused=tuple(map(str, unused)),
    )


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
            refuse_rows(path, wrong, f"its {name} must be train, validation, test or empty")
            columns.append(name)
        elif len(values) <= _FEW and (mentions_split(name) or (plain(name) in _SPLIT and len(values) > 1)):
            raise DatasetError(
                f"{path}: the column {name} seems to say which split an image is in, by "
                f"{', '.join(sorted(values)[:4])}; write train, validation or test, or rename the column"
            )
    return columns


def _splits(path: Path, table: pd.DataFrame, columns: Sequence[str], of_file: str) -> "pd.Series[str]":
    found = [table[name].map(lambda value: split_of(value) or "") for name in columns]
    splits = found[0] if found else pd.Series(of_file, index=table.index)
    for other, name in zip(found[1:], columns[1:], strict=True):
        refuse_rows(path, other != splits, f"its {columns[0]} and its {name} differ; keep one of these columns")
    return splits


def refuse_rows(path: Path, wrong: "pd.Series[bool]", what: str) -> None:
    """Raise DatasetError for the first row that is wrong, by its line."""
    if wrong.any():
        raise DatasetError(f"{path}, line {wrong.index[int(np.argmax(wrong.to_numpy()))]}: {what}")
