"""A table of vectors of one's own, such as valence and arousal or an embedding, in the place of action units."""

import warnings
from collections.abc import Hashable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from fer_core.data.readers.lists import LABEL_HEADERS, SPLIT_HEADERS
from fer_core.data.readers.tables import dialect_of, plain
from fer_core.errors import ActionUnitError, DatasetError
from openface.matching import match
from openface.names import spell

_NAMES = ("id", "filename", "image", "path", "file", "name", "imageid", "filepath", "imagepath", "imagename", "img")
"""Headers of the column that says whose a row is, without case and marks; the first of these that there is."""
_COUNTS_ROWS = ("", "unnamed0", "index", "level0")
"""Headers of the column that pandas writes beside a table, with its rows' numbers."""
_NO_COMPONENTS = (
    *LABEL_HEADERS,
    *SPLIT_HEADERS,
    *("fold", "frame", "face", "faceid", "timestamp", "success", "confidence", "status", "row", "index"),
)
"""Headers, without case and marks, of what tables hold beside vectors; a label among them would tell the answer."""
_NOTHING = ("", "nan", "NaN", "NAN", "na", "NA", "N/A", "n/a", "null", "NULL", "None")
_NAMED = 3


@dataclass(frozen=True)
class OwnVectors:
    """Vectors of a dataset's images.

    columns: names of the D components
    vectors: (N, D) float32, NaN in the rows of images that the table does not have
    """

    columns: tuple[str, ...]
    vectors: np.ndarray


def read_vectors(path: Path, ids: list[str]) -> OwnVectors:
    """Read a parquet or a CSV: a column `id` that names images, and columns of numbers, which are the vector.

    Images are matched by name as those of an AU table are, with or without folders and ending. An image without a row,
    or with one that lacks a number, has no vector. The rows' numbers, which pandas writes beside a table, are left out.

    Args:
        ids: of the dataset's images, in order.

    Raises:
        ActionUnitError: there is no such file, no column of names or of numbers, a column that is no component, a name
            occurs twice or could mean several images, or fewer than half of the rows, and of the images, belong
            together.
    """
    table = _read(path)
    name = _names_column(table.columns)
    if name is None:
        raise ActionUnitError(f"{path}: no column called {', '.join(_NAMES)}; one of them says whose vector a row is")
    names = table[name].map(lambda value: spell(str(value).strip()))
    if (twice := names[names.duplicated()]).size:
        raise ActionUnitError(f"{path}: two rows of {twice.iloc[0]}; an image has one vector")
    numbers = _components(path, table.drop(columns=[name]))
    rows = _rows_of(path, names, ids)
    vectors = np.full((len(ids), numbers.shape[1]), np.nan, np.float32)
    known = rows >= 0
    with np.errstate(over="ignore"):  # What float32 cannot hold is infinite in it, which no graph takes.
        vectors[known] = numbers.to_numpy(np.float32)[rows[known]]
    return OwnVectors(tuple(map(str, numbers.columns)), vectors)


def _names_column(columns: Iterable[Hashable]) -> Hashable | None:
    headers = {plain(str(header)): header for header in reversed(list(columns))}
    return next((headers[known] for known in _NAMES if known in headers), None)


def _read(path: Path) -> pd.DataFrame:
    if not path.is_file():
        raise ActionUnitError(f"{path}: no such file; action_units.vectors is a parquet or a CSV of vectors")
    try:
        with path.open("rb") as file:
            begins = file.read(6)
        if begins.startswith((b"PAR1", b"ARROW1", b"FEA1")):
            table = pd.read_parquet(path) if begins.startswith(b"PAR1") else pd.read_feather(path)
            return table if pd.api.types.is_numeric_dtype(table.index) else _with_names(table)
        return _read_csv(path)
    except (DatasetError, OSError, ValueError, pd.errors.ParserWarning) as error:
        reason = str(error).removeprefix(f"{path}: ")
        raise ActionUnitError(f"{path}: neither a parquet nor a CSV ({reason}); save the vectors as one") from error


def _read_csv(path: Path) -> pd.DataFrame:
    """Names as text, also those that pandas takes for nothing, and numbers with points or decimal commas."""
    dialect = dialect_of(path)
    options: dict[str, Any] = {
        "sep": dialect.separator,
        "encoding": dialect.encoding,
        "encoding_errors": "surrogateescape",
        "skiprows": dialect.skipped,
        "skipinitialspace": True,
        "decimal": "." if dialect.separator == "," else ",",
        "index_col": False,
        "keep_default_na": False,
    }
    columns = pd.read_csv(path, nrows=0, **options).columns
    name = _names_column(columns)
    with warnings.catch_warnings():
        warnings.simplefilter("error", pd.errors.ParserWarning)  # A row is longer than the header.
        table: pd.DataFrame = pd.read_csv(
            path,
            dtype={} if name is None else {str(name): str},
            na_values={str(column): list(_NOTHING) for column in columns if column != name},
            **options,
        )
    if table.empty:
        raise ValueError("no rows")
    return table


def _with_names(table: pd.DataFrame) -> pd.DataFrame:
    """A table whose index holds the images' names."""
    named: pd.DataFrame = table.rename_axis(index=str(table.index.name or _NAMES[0])).reset_index()
    return named


def _components(path: Path, table: pd.DataFrame) -> pd.DataFrame:
    """The columns that are the vector, as float64."""
    counted = [header for header in table if plain(str(header)) in _COUNTS_ROWS and _counts_rows(table[header])]
    empty = [header for header in table if _nothing(table[header]).all()]
    numbers = table.drop(columns=[*counted, *(header for header in empty if header not in counted)])
    if amiss := next((header for header in numbers if plain(str(header)) in _NO_COMPONENTS), None):
        raise ActionUnitError(
            f"{path}: the column {amiss} would be a component of the vectors; take it out, or rename it if it is one"
        )
    if numbers.shape[1] == 0:
        raise ActionUnitError(f"{path}: no columns of numbers beside the names; they are the vector")
    return pd.DataFrame({header: _numbers(path, numbers[header]) for header in numbers})


def _nothing(column: pd.Series) -> pd.Series:
    """(N,) whether a row holds nothing, or a word for it."""
    if pd.api.types.is_numeric_dtype(column):
        return column.isna()
    return column.map(lambda value: value is None or value is pd.NA or str(value).strip() in _NOTHING).astype(bool)


def _counts_rows(column: pd.Series) -> bool:
    """Tell whether a column counts 0, 1, 2, …, or 1, 2, 3, …."""
    counted = pd.to_numeric(column, errors="coerce").to_numpy(np.float64)
    return len(counted) > 0 and bool((counted == counted[0] + np.arange(len(counted))).all()) and counted[0] in (0, 1)


def _numbers(path: Path, column: pd.Series) -> pd.Series:
    """float64, NaN where nothing stands."""
    if pd.api.types.is_bool_dtype(column):
        found = None
    else:
        nothing = _nothing(column)
        found = pd.to_numeric(column.where(~nothing), errors="coerce").astype(np.float64)
    if found is None or (found.isna() & ~nothing).any():
        raise ActionUnitError(f"{path}: column {column.name} holds what is no number; leave it out, or encode it")
    return found


def _rows_of(path: Path, names: pd.Series, ids: list[str]) -> np.ndarray:
    """(N,) the table's row for each image, −1 where there is none."""
    row_of = {name: row for row, name in enumerate(names)}
    if set(row_of) <= set(ids):  # Also where images are called by numbers, which are matched only when all agree.
        owners = {name: name for name in row_of}
    else:
        found = match(list(row_of), ids)
        if found.unclear:
            unclear, images = next(iter(found.unclear.items()))
            fits = " and ".join(images[:_NAMED])
            raise ActionUnitError(f"{path}: {unclear!r} could mean {fits}; name images with their folders and endings")
        owners = found.owner
    if not owners or 2 * len(owners) < min(len(row_of), len(ids)):
        stray = next(name for name in row_of if name not in owners)
        raise ActionUnitError(
            f"{path}: only {len(owners)} of its {len(row_of)} images are among the dataset's {len(ids)}: it has such "
            f"as {stray!r}, the dataset such as {ids[0]!r}; give the vectors of these images"
        )
    rows = {owner: row_of[name] for name, owner in owners.items()}
    return np.array([rows.get(name, -1) for name in ids], np.int64)
