"""Which CSV files list a dataset's images, and which of their columns count."""

import difflib
import os
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd

from fer_core.data.readers.names import (
    MISSING,
    emotion_of,
    mentions_split,
    number_of,
    plain_label,
    readable,
    split_of,
    split_of_folder,
)
from fer_core.data.readers.source import subfolders
from fer_core.data.readers.tables import plain, read_table
from fer_core.errors import DatasetError
from openface.decoding import ENDINGS

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
LABEL_HEADERS = [
    "label",
    "emotion",
    "expression",
    "class",
    "category",
    "target",
    "labels",
    "emotions",
    "classname",
    "classlabel",
    "labelname",
    "labeltext",
    "emotionlabel",
    "emotionname",
    "emotionclass",
    "expressionlabel",
    "expressionname",
    "facialexpression",
    "groundtruth",
    "annotation",
]
"""Headers of labels, as `plain` has them, the likeliest first."""
_OF_LABELS = ("label", "emotion", "expression")
"""Words in the headers of columns that hold hardly anything else."""
SPLIT_HEADERS = ("split", "usage", "set", "subset", "partition", "part", "phase")
_OF_EXPRESSIONS = "phase"
"""One of them that an expression has too: onset, apex and offset are no splits."""
PERSON_HEADERS = ("subject", "person", "participant", "identity", "actor", "speaker", "patient")
"""Headers of columns that say whose face it is, the likeliest first."""
_ABOUT_PERSONS = ("", "id", "code", "name", "no", "nr", "number")
"""What headers add to such a word, the likeliest first: `subject_id`; `subject number` may count the faces of each."""
_NOBODY = (*MISSING, "unknown", "unk", "-1")
"""What stands for a person who is not known; together they are not one."""
_OF_BOXES = ("face", "facebox", "facebbox", "bbox", "box", "")
"""What the headers of a face box's columns begin with, the surest first: bare ones may be of eyes or bodies."""
_EDGES = (
    ("left", "top", "right", "bottom"),
    ("xmin", "ymin", "xmax", "ymax"),
    ("minx", "miny", "maxx", "maxy"),
    ("startx", "starty", "endx", "endy"),
    ("xtl", "ytl", "xbr", "ybr"),
)
_CORNERS = (("x1", "y1", "x2", "y2"), ("x0", "y0", "x1", "y1"))
"""Edges too, where no further points make landmarks of them."""
_POINTS = ("x0", "x1", "x2", "x3")
_CORNERS_OF_A_BOX = 2
_SIDES = (
    ("x", "y", "w", "h"),
    ("left", "top", "w", "h"),
    ("x", "y", "width", "height"),
    ("left", "top", "width", "height"),
)
"""What follows: left, top, and either right and bottom or width and height, of which `width` may be the picture's."""
_IN_ONE_FIELD = ("bbox", "facebbox", "box", "facebox", "boundingbox", "faceboundingbox", "rect", "facerect")
"""Headers of columns whose fields may be a whole box, such as `[12, 30, 64, 64]`."""
_FOUR_NUMBERS = re.compile(r"\D*(\d+(\.\d*)?[^\d.]+){3}\d+(\.\d*)?\D*")
_LANDMARKS = "facial_landmarks"
"""AffectNet's, which are most of its files."""
SHARE = "p_"
LIST_ENDINGS = (".csv", ".tsv")
_FEW, _SEVERAL = 5, 10
"""A column named like a split column is one if it has so few values; one called `set`, up to the second number."""
_ABOUT_SPLITS = re.compile(r"(set|data|id|name|no|number|type|label|flag)$")
"""What headers add to a word of splits: `split_id`, `partition no`."""


@dataclass(frozen=True)
class BoxColumns:
    """The columns of a list's face boxes; none where one of the four is missing."""

    names: list[str]
    """Those of left and top, then of width and height, or of right and bottom."""
    are_edges: bool
    """The last two are right and bottom."""


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
    split_columns: tuple[str, ...]
    """Columns that say which split an image is in."""
    split_by_folders: bool
    """The folders in the paths say it."""
    persons: "pd.Series[str]"
    """The person whose face it is, or "" where that is not known."""
    person_column: str
    """The column that says it, or ""."""
    box: BoxColumns
    is_affectnet: bool
    unused: tuple[str, ...]
    """Columns that do not count."""


def read_lists(folder: Path, named: Collection[str] | None = None) -> list[ListedImages]:
    """The lists that `folder` is, or holds: labels.csv, one for each split, or a single CSV.

    Args:
        named: labels that the user gives a meaning to; the column that holds them is the labels'. None where only
            the images count.

    Raises:
        DatasetError: there is none, or one is no such list.
    """
    lists = [_read_list(path, split, named) for path, split in _find_lists(folder)]
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


def lists_near(folder: Path) -> list[Path]:
    """The files in a folder, and in those in it, that may be lists."""
    return [path for place in (folder, *subfolders(folder)) for path in list_files(place)]


def _lists_in(folder: Path) -> list[tuple[Path, str]]:
    """Its labels.csv, its lists named like splits, or its only one, each with the split that its name means."""
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
    return sorted(p for p in folder.iterdir() if p.suffix.lower() in LIST_ENDINGS and p.is_file() and p.name[0] != ".")


def _read_list(path: Path, split: str, named: Collection[str] | None) -> ListedImages:
    if not path.is_file():
        raise DatasetError(f"{path}: no such file; it must list the images under path,label")
    table = read_table(path, without=(_LANDMARKS,))
    _refuse_no_header(path, table)
    headers = {plain(name): str(name) for name in table.columns}
    if "pixels" in headers and not any(name in headers for name in _PATH):
        raise DatasetError(f"{path}: holds pixels, no paths; for FER2013 set dataset.source = 'fer2013'")
    is_affectnet = "subdirectoryfilepath" in headers and "expression" in headers
    names = table[_path_column(path, table, headers)]
    labels = table[headers["expression"] if is_affectnet else _label_column(path, table, headers, named)]
    refuse_rows(path, names == "", "no path; give one, or take the line out")
    of_split = _split_columns(path, table, headers, (str(names.name), str(labels.name)))
    of_folders = None if of_split or split else _splits_of_folders(names)
    if not (of_split or split) and of_folders is None:
        _refuse_splits_among_words(path, table, (str(names.name), str(labels.name)))
    of_person = _person_column(table, {str(names.name), str(labels.name), *of_split})
    of_box = _box_columns(table)
    if not of_box.names:
        _refuse_boxes_in_one_field(path, table)
    used = {str(names.name), str(labels.name), *of_split, of_person, *of_box.names}
    unused = [name for name in table.columns if name not in used and not is_share(str(name))]
    return ListedImages(
        path,
        table,
        names,
        labels,
        _splits(path, table, of_split, split) if of_folders is None else of_folders,
        of_split=split,
        split_columns=tuple(of_split),
        split_by_folders=of_folders is not None,
        persons=_known_persons(table[of_person]) if of_person else pd.Series("", index=table.index),
        person_column=of_person,
        box=of_box,
        is_affectnet=is_affectnet,
        unused=tuple(map(str, unused)),
    )


def _refuse_no_header(path: Path, table: pd.DataFrame) -> None:
    """Refuse a list whose first line names an image."""
    names = list(map(str, table.columns))
    if any(name.lower().endswith(ENDINGS) for name in names):
        raise DatasetError(
            f"{path}: its first line is no header ({', '.join(names[:3])}); write one above it, such as path,label"
        )


def _require_column(path: Path, headers: Mapping[str, str], known: Sequence[str]) -> str:
    found = next((headers[name] for name in known if name in headers), None)
    if found is not None:
        return found
    nearest = difflib.get_close_matches(known[0], headers, n=1, cutoff=0.6)
    hint = f"rename {headers[nearest[0]]}?" if nearest else f"it has {', '.join(headers.values())}"
    raise DatasetError(f"{path}: no column {known[0]}; {hint}")


def _path_column(path: Path, table: pd.DataFrame, headers: Mapping[str, str]) -> str:
    """The first of the usual names whose values mostly end as images do, or else the first.

    Of several, one whose first file lies where it says goes before others.
    """
    there = [headers[name] for name in _PATH if name in headers]
    of_images = [name for name in there if table[name].str.lower().str.endswith(ENDINGS).mean() > 1 / 2]
    of_files = [name for name in of_images if os.path.isfile(path.parent / table[name].iloc[0].replace("\\", "/"))]
    return next(iter((*of_files, *of_images)), None) or _require_column(path, headers, _PATH)


def _label_column(path: Path, table: pd.DataFrame, headers: Mapping[str, str], named: Collection[str] | None) -> str:
    """The first of the usual names; one whose labels the user named comes first, then emotions, words, and numbers."""
    there = [headers[name] for name in LABEL_HEADERS if name in headers]
    of_user = set(map(plain_label, named or ()))
    for known in (
        lambda value: plain_label(value) in of_user,
        lambda value: emotion_of(value) is not None,
    ):
        if found := [name for name in there if table.loc[table[name] != "", name].map(known).mean() > 1 / 2]:
            if named is not None:
                _refuse_contradictions(path, table, found, known)
            return found[0]
    filled = [name for name in there if (table[name] != "").any()]
    words = [name for name in filled if not table[name].map(number_of).notna().all()]
    if not there:
        _refuse_one_column_each(path, table)
    if not words:
        return filled[0] if filled else _require_column(path, headers, LABEL_HEADERS)
    if named is not None:
        _refuse_rivals(path, table, words[0], there)
    return words[0]


def _refuse_one_column_each(path: Path, table: pd.DataFrame) -> None:
    """Refuse a column for each emotion, of votes or of 0 and 1, in the place of one of labels."""
    emotions = [str(name) for name in table.columns if emotion_of(str(name))]
    if len(emotions) > 1:
        raise DatasetError(
            f"{path}: no column label, but one for each of {', '.join(emotions)}; write the name of each image's class "
            f"into a column label; columns of votes or shares may stay as {SHARE}{emotions[0]} and so on"
        )


def _refuse_contradictions(
    path: Path, table: pd.DataFrame, columns: Sequence[str], known: Callable[[str], bool]
) -> None:
    """Refuse two columns of known labels that say different things of an image, as an annotator's and a program's do.

    One that has a single label for all, such as `normal`, speaks of something else.
    """
    chosen = columns[0]
    for other in columns[1:]:
        both = table[table[chosen].map(known) & table[other].map(known)]
        said, also = (both[name].map(lambda label: emotion_of(label) or plain_label(label)) for name in (chosen, other))
        are_codes = {*said}.isdisjoint(also) and _say_the_same(both, chosen, other)
        if also.nunique() > 1 and not are_codes:
            row = int(np.argmax((said != also).to_numpy()))
            told = " and ".join(f"its {name} says {readable(both[name].iloc[row])}" for name in (chosen, other))
            refuse_rows(path, said != also, f"{told}; take one of these columns out")


def _refuse_rivals(path: Path, table: pd.DataFrame, chosen: str, there: Sequence[str]) -> None:
    """Refuse words that are no emotions beside a column called `emotion` or the like that says something else."""
    for name in (name for name in there if name != chosen):
        is_called_so = any(word in plain(name) for word in _OF_LABELS)
        if is_called_so and (table[name] != "").any() and not _say_the_same(table, chosen, name):
            raise DatasetError(
                f"{path}: its labels may be those of {name} or of {chosen}; take the other column out, or say what the "
                f'right one\'s mean in [dataset.classes], such as {_first_value(table, name)} = "happiness"'
            )


def _say_the_same(table: pd.DataFrame, one: str, other: str) -> bool:
    """Tell whether each value of a column stands beside one of the other's alone, as a class's number and name do."""
    pairs = table[[one, other]].drop_duplicates()
    return not pairs[one].duplicated().any() and not pairs[other].duplicated().any()


def _first_value(table: pd.DataFrame, name: str) -> str:
    return str(table.loc[table[name] != "", name].iloc[0])


def _split_columns(path: Path, table: pd.DataFrame, headers: Mapping[str, str], used: Sequence[str]) -> list[str]:
    """The columns that hold splits, by their name or by their values."""
    named = [headers[name] for name in SPLIT_HEADERS[:2] if name in headers]
    columns = []
    for name in (str(name) for name in table.columns if name not in used):
        values = {value for value in table[name].unique() if value}
        if not values:
            continue
        splits = {value for value in values if split_of(value)}
        if not (_is_called_split(name) or name in named or _are_sides(values)):
            continue
        if splits == values or name in named or (splits and len(values) <= _FEW):
            wrong = table[name].isin(values - splits)
            found = next((repr(value) for value in sorted(values - splits)), "")
            refuse_rows(path, wrong, f"its {name} must be train, validation, test or empty, not {found}")
            columns.append(name)
        elif _seem_splits(name, values):
            raise _unread_splits(path, name, values)
    return columns


def _unread_splits(path: Path, name: str, values: Collection[str]) -> DatasetError:
    return DatasetError(
        f"{path}: the column {name} seems to say which split an image is in, by {', '.join(sorted(values)[:4])}; write "
        "train, validation or test, or rename the column"
    )


def _refuse_splits_among_words(path: Path, table: pd.DataFrame, used: Collection[str]) -> None:
    """Refuse a column such as `source` with `RAF_train` and `RAF_test`, where nothing else says the split."""
    for name in (str(name) for name in table.columns if name not in used):
        values = {value for value in table[name].unique() if value}
        sides = {split_of_folder(value) for value in values} if len(values) <= _SEVERAL else set()
        if len(sides - {None}) > 1 and "train" in sides:
            raise _unread_splits(path, name, values)


def _person_column(table: pd.DataFrame, used: Collection[str]) -> str:
    """The column that tells people apart, by its name; "" where there is none.

    Where one value has more than half of the faces, it may count the faces of a picture instead.
    """
    headers = {plain(str(name)): str(name) for name in table.columns if name not in used}
    called = (f"{word}{more}" for word in PERSON_HEADERS for more in _ABOUT_PERSONS)
    for name in (headers[header] for header in called if header in headers):
        persons = _known_persons(table[name])
        known = persons[persons != ""]
        if len(known) and known.value_counts().max() <= len(known) / 2:
            return name
    return ""


def _known_persons(column: "pd.Series[str]") -> "pd.Series[str]":
    """As text, with "" for each word that stands for nobody, and one spelling of a number: 1.0 and 001 are 1."""
    persons = column.map(lambda person: number_of(person) or readable(person))
    return persons.where(~persons.str.lower().isin(_NOBODY), "")


def _is_called_split(name: str) -> bool:
    """Tell whether a column is named like a split column: `set`, `data_split`, `is_train`, `testset`."""
    called = plain(name)
    words = {called, _ABOUT_SPLITS.sub("", called), *re.split(r"[\W_]+", name.lower())}
    return bool(words & {*SPLIT_HEADERS}) or mentions_split(name) or split_of(name) is not None


def _are_sides(values: Collection[str]) -> bool:
    """Tell whether values alone say that a column holds splits: train and another; `valid` alone may be of checks."""
    sides = {split_of(value) or value for value in values if split_of(value) or mentions_split(value)}
    return len(sides) > 1 and "train" in sides


def _seem_splits(name: str, values: Collection[str]) -> bool:
    """Tell whether a column named like a split column holds splits in words or numbers of its own."""
    if any(split_of(value) or mentions_split(value) for value in values):
        return True
    if plain(name) == _OF_EXPRESSIONS:
        return False
    several = _SEVERAL if plain(name) in SPLIT_HEADERS else _FEW
    return len(values) <= several and (len(values) > 1 or mentions_split(name))


def _splits(path: Path, table: pd.DataFrame, columns: Sequence[str], of_file: str) -> "pd.Series[str]":
    found = [table[name].map(lambda value: split_of(value) or "") for name in columns]
    splits = found[0] if found else pd.Series("", index=table.index)
    for other, name in zip(found[1:], columns[1:], strict=True):
        refuse_rows(path, other != splits, f"its {columns[0]} and its {name} differ; keep one of these columns")
    if of_file:
        told = f"but by its name, or its folder's, the list is that of {of_file}; empty the column, or rename the list"
        # Validation images are often set aside from those of training.
        agreeing = {"", of_file, *(["validation"] if of_file == "train" else [])}
        for split in sorted({*splits} - agreeing):
            refuse_rows(path, splits == split, f"its {columns[0]} says {split}, {told}")
    return splits.where(splits != "", of_file)


def _splits_of_folders(names: "pd.Series[str]") -> "pd.Series[str] | None":
    """The split that the lowest of each path's folders means, or ""; None where no two differ, as below one folder."""
    splits = pd.Series([split_above(name) for name in names], index=names.index)
    return splits if len({*splits} - {""}) > 1 else None


def split_above(name: str) -> str:
    """The split that the lowest folder in a path means, or ""."""
    return _split_of_place(folders_in(name))


def folders_in(name: str) -> tuple[str, ...]:
    """The folders in a listed path."""
    # Not by pandas: its text holds no bytes that are no UTF-8, which folders in a list of another encoding have.
    return tuple(part for part in name.replace("\\", "/").split("/")[:-1] if part not in ("", "."))


@cache
def _split_of_place(folders: tuple[str, ...]) -> str:
    return next((split for part in reversed(folders) if (split := split_of_folder(part))), "")


def _box_columns(table: pd.DataFrame) -> BoxColumns:
    """Find the columns of the face box by their headers; edges go first, since a list may hold the picture's size."""
    headers = {plain(str(name)): str(name) for name in table.columns}
    for start in _OF_BOXES:
        are_corners = sum(f"{start}{point}" in headers for point in _POINTS) == _CORNERS_OF_A_BOX
        edges = (*_EDGES, *(_CORNERS if are_corners else ()))
        for box in (*edges, *_SIDES):
            called = [f"{start}{part}" for part in box]
            if headers.keys() >= {*called}:
                return BoxColumns([headers[name] for name in called], box in edges)
    return BoxColumns([], are_edges=False)


def _refuse_boxes_in_one_field(path: Path, table: pd.DataFrame) -> None:
    """Refuse a column of whole boxes, whose last two numbers may be sides or edges; whole scenes would be faces."""
    for name in (str(name) for name in table.columns if plain(str(name)) in _IN_ONE_FIELD):
        are_boxes = table[name].str.fullmatch(_FOUR_NUMBERS)
        told = f"its {name} is a box in one field; write four columns, x,y,width,height or left,top,right,bottom, or"
        refuse_rows(path, are_boxes, f"{told} take the column out where the faces are cut out already")


def is_share(header: str) -> bool:
    """Tell whether a column holds the shares of a class: p_CLASS, or P_ and an emotion; `p_id` is somebody's number."""
    named = header[len(SHARE) :]
    if emotion_of(named) is not None:
        return header.lower().startswith(SHARE)
    return header.startswith(SHARE) and plain(named) not in _ABOUT_PERSONS


def refuse_rows(path: Path, wrong: "pd.Series[bool]", what: str) -> None:
    """Raise DatasetError for the first row that is wrong, by its line."""
    if wrong.any():
        raise DatasetError(f"{path}, line {wrong.index[int(np.argmax(wrong.to_numpy()))]}: {what}")
