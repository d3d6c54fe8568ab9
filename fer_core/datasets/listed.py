"""A CSV file that lists images with labels, and splits and distributions where it has them."""

import csv
import difflib
from pathlib import Path

import numpy as np
import pandas as pd

from fer_core.datasets.names import SPLITS, class_order
from fer_core.datasets.source import Source, unique_ids, without_ending
from fer_core.errors import DatasetError
from fer_core.experiment import DatasetSettings
from openface.images import open_image

LIST = "labels.csv"
"""The list's name where a folder is given."""

_SHARE = "p_"
_HEADER_LINES = 1


def read(settings: DatasetSettings, folder: Path) -> Source:
    """Images of a CSV file with the columns path and label, optionally split and, for each class, p_CLASS.

    folder: the file, or the folder that holds `labels.csv`; relative paths start at the file's folder

    Raises:
        DatasetError: the file is missing or not such a list, or a row holds what it must not.
    """
    path = folder / LIST if folder.is_dir() else folder
    table = _read_table(path)
    share_columns = [name for name in _headers(table) if name.startswith(_SHARE)]
    labels, index_of = class_order({*table["label"], *(name.removeprefix(_SHARE) for name in share_columns)})
    if len(labels) < 2:
        raise DatasetError(f"{path}: only the class {labels[0]}; list images of two classes or more")
    paths = [path.parent / name for name in table["path"]]
    distributions = _read_shares(path, table, labels, index_of) if share_columns else None
    return Source(
        name="csv",
        labels=labels,
        records=pd.DataFrame(
            {
                "id": unique_ids([without_ending(name) for name in table["path"]], table["path"].tolist()),
                "label": table["label"].map(index_of),
                "split": _read_splits(path, table),
            }
        ),
        distributions=distributions,
        truth="" if distributions is None else "crowd votes",
        protocol="All images of a list; the label is the list's own.",
        read_image=lambda row: open_image(paths[row]),
    )


def _read_table(path: Path) -> pd.DataFrame:
    """At least path and label, as stripped text."""
    if not path.is_file():
        raise DatasetError(f"{path}: no such file; it must list the images under path,label")
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8-sig", skipinitialspace=True)
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise DatasetError(f"{path}: not a CSV file ({reason}); write it with a header path,label") from error
    if not isinstance(table.index, pd.RangeIndex):
        raise DatasetError(f"{path}: its lines have more fields than its header; quote paths that hold commas")
    _refuse_long_fields(path, table)
    table = pd.DataFrame({name.strip(): table[name].str.strip() for name in _headers(table)})
    for name in ("path", "label"):
        _require_column(path, table, name)
        _refuse_rows(path, table[name] == "", f"no {name}; give one, or take the line out")
    _refuse_rows(path, table["path"].duplicated(), "its path is listed before; keep one of the lines")
    if table.empty:
        raise DatasetError(f"{path}: lists no images; add lines below its header")
    return table


def _refuse_long_fields(path: Path, table: pd.DataFrame) -> None:
    """Longer than Python's csv takes, which reads the list too, to see whether its images have changed."""
    remedy = "close the quote that may be open before it, or shorten it"
    for name in _headers(table):
        if len(name) > csv.field_size_limit():
            raise DatasetError(f"{path}, line 1: a column's name has {len(name):,} characters; {remedy}")
        length = table[name].str.len()
        _refuse_rows(path, length > csv.field_size_limit(), f"{name} has {length.max():,} characters; {remedy}")


def _require_column(path: Path, table: pd.DataFrame, name: str) -> None:
    if name in table:
        return
    headers = {header.lower(): header for header in _headers(table)}
    nearest = difflib.get_close_matches(name.lower(), headers, n=1, cutoff=0.4)
    hint = f"rename {headers[nearest[0]]}?" if nearest else f"it has {', '.join(headers.values())}"
    raise DatasetError(f"{path}: no column {name}; {hint}")


def _headers(table: pd.DataFrame) -> list[str]:
    return [str(name) for name in table.columns]


def _refuse_rows(path: Path, wrong: "pd.Series[bool]", what: str) -> None:
    if wrong.any():
        line = int(np.argmax(wrong.to_numpy())) + _HEADER_LINES + 1
        raise DatasetError(f"{path}, line {line}: {what}")


def _read_splits(path: Path, table: pd.DataFrame) -> pd.Series:
    if "split" not in table:
        return pd.Series("", index=table.index)
    names = table["split"].str.lower()
    _refuse_rows(path, ~names.isin([*SPLITS, ""]), "its split must be train, validation, test or empty")
    return names.map({**SPLITS, "": ""})


def _read_shares(path: Path, table: pd.DataFrame, labels: tuple[str, ...], index_of: dict[str, int]) -> np.ndarray:
    """(N, classes) float32; every class needs its column."""
    column_of = {index: f"{_SHARE}{name}" for name, index in index_of.items() if f"{_SHARE}{name}" in table}
    if len(column_of) < sum(name.startswith(_SHARE) for name in _headers(table)):
        raise DatasetError(f"{path}: two p_ columns mean the same class; keep one of them")
    for index, name in enumerate(labels):
        _require_column(path, table, column_of.get(index, f"{_SHARE}{name}"))
    columns = [table[column_of[index]] for index in range(len(labels))]
    shares = np.column_stack([pd.to_numeric(column, errors="coerce") for column in columns]).astype(np.float64)
    wrong = ~np.isfinite(shares).all(axis=1) | (shares < 0).any(axis=1) | (shares.sum(axis=1) <= 0)
    _refuse_rows(path, pd.Series(wrong), "its p_ columns must be numbers, none negative and not all 0")
    distributions: np.ndarray = shares / shares.sum(axis=1, keepdims=True)
    return distributions.astype(np.float32)
