"""A table of vectors of one's own, such as valence and arousal or an embedding, in the place of action units."""

import gzip
import re
import shutil
import warnings
import zlib
from collections.abc import Hashable, Iterable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pandas as pd

from fer_core.data.readers.lists import LABEL_HEADERS, PERSON_HEADERS, SPLIT_HEADERS
from fer_core.data.readers.names import emotion_of, mentions_split
from fer_core.data.readers.tables import dialect_of, plain
from fer_core.errors import ActionUnitError, DatasetError
from openface.matching import Match, match
from openface.names import as_text, spell

_NAMES = (
    *("id", "filename", "image", "path", "file", "name", "imageid", "filepath", "imagepath", "imagename", "imagefile"),
    *("img", "imgid", "imgpath", "imgname", "imgfile", "inputpath", "fname"),
    *("subdirectoryfilepath", "input", "inputimagepath", "alignedimagepath"),
)
"""Headers of the column that says whose a row is, without case and marks, the likeliest first; the last are those of
AffectNet, py-feat and LibreFace."""
_WOULD_DO = "id, filename, image, path, file or name"
_UNNAMED = re.compile(r"(unnamed\d+|index|level\d+)?")
"""Headers that pandas gives, or leaves out, where it writes a table's index beside it."""
_COPY = re.compile(r"\.\d+$")
"""What pandas adds to the second of two headers."""
_ANSWERS = (
    *LABEL_HEADERS,
    *("cls", "lbl", "emo", "exp", "expr", "truth", "true", "gt", "gold", "pred", "predicted", "prediction"),
)
_ABOUT_ROWS = (
    *SPLIT_HEADERS,
    *PERSON_HEADERS,
    *("train", "validation", "test", "fold"),
    *("video", "clip", "session", "sequence", "frame", "face", "timestamp", "success", "confidence", "status"),
    *("row", "index"),
)
_ADDED = (
    *("id", "ids", "idx", "num", "number", "no", "nr", "name", "code", "int", "is", "data", "image", "ground"),
    *("y", "k", "cv", "time", "in", "ms", "x", "width", "height", "rect"),
)
"""What headers add to such a word: `class_id`, `is_train`, `y_true`, `frame_time_in_ms`, `face_width`."""
_STANDING, _ADDING = ("|".join(words) for words in ((*_ANSWERS, *_ABOUT_ROWS), _ADDED))
_BESIDE = re.compile(rf"(?:{_ADDING})*(?:{_STANDING})(?:{_STANDING}|{_ADDING})*")
"""Headers, without case and marks, of what tables hold beside vectors; a label among them would tell the answer."""
_WORDS = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])")
_LIST_AS_TEXT = re.compile(r"[\[({]|[-+]?[\d.]+(e[-+]?\d+)?[,;]?\s+[-+]?[\d.]", re.IGNORECASE)
_NOTHING = (
    *("", "nan", "NaN", "NAN", "na", "NA", "N/A", "n/a", "null", "NULL", "None", "-", "."),
    *("#DIV/0!", "#N/A", "#NUM!", "#VALUE!", "#REF!", "#NAME?", "#NULL!"),
    *("-nan", "-nan(ind)", "nan(ind)", "-1.#IND", "1.#QNAN"),
)
"""What tables hold for a number that there is not: nothing, errors of spreadsheets, and of C's programs."""
_PARQUET, _FEATHERS, _ZIP, _GZIP, _NUMPY = b"PAR1", (b"ARROW1", b"FEA1"), b"PK\x03\x04", b"\x1f\x8b", b"\x93NUMPY"
"""First bytes of each format."""
_NAMED = 3


@dataclass(frozen=True)
class OwnVectors:
    """Vectors of a dataset's images."""

    columns: tuple[str, ...]
    """Names of the D components."""
    vectors: np.ndarray
    """(N, D) float32, NaN in the rows of images that the table does not have."""


def read_vectors(path: Path, ids: list[str]) -> OwnVectors:
    """Read a parquet or a CSV: a column `id` that names images, and columns of numbers, which are the vector.

    Images are matched by name as those of an AU table are, with or without folders and ending. An image without a row,
    or with one that lacks a number, has no vector. The rows' numbers, which pandas writes beside a table, and further
    columns of names are left out. A parquet's column of lists is as many columns of numbers.

    Args:
        ids: of the dataset's images, in order.

    Raises:
        ActionUnitError: there is no such file, no row, no column of names or of numbers, a column that is no component,
            two columns have one header, a name occurs twice or could mean several images, or fewer than half of the
            rows, and of the images, belong together.
    """
    table = _read(path)
    _refuse_two_of_a_header(path, table.columns)
    name = _names_column(path, table, ids)
    names = table[name].map(_spelled)
    if (twice := names[names.duplicated()]).size:
        raise ActionUnitError(f"{path}: two rows of {twice.iloc[0]}; an image has one vector")
    numbers = _components(path, table.drop(columns=[name]))
    rows = _rows_of(path, names, ids)
    vectors = np.full((len(ids), numbers.shape[1]), np.nan, np.float32)
    known = rows >= 0
    with np.errstate(over="ignore"):  # What float32 cannot hold is infinite in it, which no graph takes.
        vectors[known] = numbers.to_numpy(np.float32)[rows[known]]
    return OwnVectors(tuple(map(str, numbers.columns)), vectors)


def _refuse_two_of_a_header(path: Path, columns: Iterable[Hashable]) -> None:
    """Refuse two columns of one header, also where pandas has written the second name as `id.1` already."""
    headers = [str(header).strip() for header in columns]
    seen: set[str] = set()
    for header in headers:
        first = _COPY.sub("", header)
        meant = first if first in headers and _names_images(first) else header
        if meant in seen:
            raise ActionUnitError(f"{path}: two columns are called {meant}; rename one of them, or take it out")
        seen.add(meant)


def _names_images(header: Hashable) -> bool:
    return plain(str(header)) in _NAMES


def _is_unnamed(header: Hashable) -> bool:
    return _UNNAMED.fullmatch(plain(str(header))) is not None


def _names_column(path: Path, table: pd.DataFrame, ids: list[str]) -> Hashable:
    """The column that names the most of `ids`; without a header for it, the text that pandas wrote as an index."""
    columns = sorted(filter(_names_images, table), key=lambda header: _NAMES.index(plain(str(header))))
    if not columns:
        columns = [h for h in table if _is_unnamed(h) and not pd.api.types.is_numeric_dtype(table[h])][:1]
    if not columns:
        raise ActionUnitError(f"{path}: no column called {_WOULD_DO}; one of them says whose vector a row is")
    if len(columns) == 1:
        return columns[0]
    # Of columns that fit as well, one of numbers, which may count rows, comes last.
    columns.sort(key=lambda header: pd.to_numeric(table[header], errors="coerce").notna().all())
    return max(columns, key=lambda header: _fit(map(_spelled, table[header]), ids))


def _spelled(name: object) -> str:
    return spell(as_text(name).strip())


def _fit(names: Iterable[str], ids: list[str]) -> tuple[int, float]:
    """How many of a dataset's images a column of names fits, and which share of its names does."""
    different = list(dict.fromkeys(names))
    owners = len(_meant(different, ids).owner)
    return owners, owners / len(different)


def _read(path: Path) -> pd.DataFrame:
    if not path.is_file():
        raise ActionUnitError(f"{path}: no such file; action_units.vectors is a parquet or a CSV of vectors")
    begins, source = _first_bytes(path), path
    _refuse_other_formats(path, begins)
    try:
        with TemporaryDirectory() as scratch:
            if begins.startswith(_GZIP):
                source = _unpack(path, Path(scratch))
            columnar = begins.startswith((_PARQUET, *_FEATHERS))
            table = _read_columnar(path, begins) if columnar else _read_csv(source)
        if table.empty:
            raise ValueError("no rows")
        return table
    except (DatasetError, OSError, EOFError, zlib.error, ValueError, pd.errors.ParserWarning) as error:
        reason = str(error).removeprefix(f"{source}: ")
        raise ActionUnitError(f"{path}: neither a parquet nor a CSV ({reason}); save the vectors as one") from error


def _first_bytes(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(6)
    except OSError as error:
        raise ActionUnitError(f"{path}: {error.strerror}; allow this user to read it") from error


def _refuse_other_formats(path: Path, begins: bytes) -> None:
    if begins.startswith(_NUMPY) or (begins.startswith(_ZIP) and path.suffix.lower() == ".npz"):
        raise ActionUnitError(
            f"{path}: numpy's format, which does not say whose a vector is; save a parquet or a CSV with a column id "
            "of the images' names"
        )
    if begins.startswith(_ZIP):
        raise ActionUnitError(f"{path}: a spreadsheet or an archive; save it as CSV, and give that")


def _unpack(path: Path, folder: Path) -> Path:
    """The CSV that gzip packed; its reader looks at it several times."""
    unpacked = folder / "vectors.csv"
    with gzip.open(path) as packed, unpacked.open("wb") as file:
        shutil.copyfileobj(packed, file)
    return unpacked


def _read_columnar(path: Path, begins: bytes) -> pd.DataFrame:
    """A table whose index is a column of it, unless it numbers the rows, or is there as a column too."""
    table = pd.read_feather(path) if begins.startswith(_FEATHERS) else pd.read_parquet(path)
    is_numbered = pd.api.types.is_numeric_dtype(table.index) and not _names_images(table.index.name)
    return table if is_numbered else table.reset_index(drop=table.index.name in table)


def _read_csv(path: Path) -> pd.DataFrame:
    """Names as text, also those that pandas takes for nothing, and numbers with points or decimal commas."""
    dialect = dialect_of(path)
    options: dict[str, Any] = {
        "sep": dialect.separator,
        "encoding": dialect.encoding,
        "encoding_errors": "surrogateescape",
        "skiprows": dialect.skipped,
        "skipinitialspace": True,
        "decimal": dialect.decimal,
        "index_col": False,
        "keep_default_na": False,
    }
    headers = pd.read_csv(path, header=None, nrows=1, dtype=str, **options).iloc[0]
    columns = [str(column) for column in pd.read_csv(path, nrows=0, **options).columns]
    with warnings.catch_warnings():
        warnings.simplefilter("error", pd.errors.ParserWarning)  # A row is longer than the header.
        table: pd.DataFrame = pd.read_csv(
            path,
            dtype=dict.fromkeys(filter(_names_images, columns), str),
            na_values={column: list(_NOTHING) for column in columns if not _names_images(column)},
            **options,
        )
    # pandas calls a second `id` `id.1`, which would pass for another column.
    return table.set_axis([header or column for header, column in zip(headers, columns, strict=True)], axis=1)


def _components(path: Path, table: pd.DataFrame) -> pd.DataFrame:
    """The columns that are the vector, as float64."""
    left_out = [
        header
        for header in table
        if _names_images(header)
        or _nothing(table[header]).all()
        or (_is_unnamed(header) and not _has_fractions(table[header]))
    ]
    columns = _spread_lists(path, table.drop(columns=left_out))
    if amiss := next((header for header in columns if _stands_beside(header, columns)), None):
        raise ActionUnitError(
            f"{path}: the column {amiss} would be a component of the vectors; take it out, or rename it if it is one"
        )
    if columns.shape[1] == 0:
        raise ActionUnitError(f"{path}: no columns of numbers beside the names; they are the vector")
    return pd.DataFrame({header: _numbers(path, columns[header]) for header in columns})


def _stands_beside(header: Hashable, table: pd.DataFrame) -> bool:
    """Tell whether a column is a label, a split or the like, by its words.

    `happiness` and `class_3` are another model's scores where they have fractions; whole numbers are votes, or a label.
    """
    called = plain(str(header))
    if called == "y":
        return "x" not in {plain(str(other)) for other in table}
    if _BESIDE.fullmatch(called):
        return True
    words = [word.lower() for word in _WORDS.findall(str(header))]
    answers = mentions_split(str(header)) or any(word in _ANSWERS or emotion_of(word) for word in words)
    return answers and not _has_fractions(table[header])


def _has_fractions(column: pd.Series) -> bool:
    numbers = pd.to_numeric(column, errors="coerce").astype(np.float64)
    return bool((numbers % 1 > 0).any())


def _nothing(column: pd.Series) -> pd.Series:
    """(N,) whether a row holds nothing, or a word for it."""
    if pd.api.types.is_numeric_dtype(column):
        return column.isna()
    words = column.map(lambda value: isinstance(value, str) and value.strip() in _NOTHING).astype(bool)
    return column.isna() | words


def _spread_lists(path: Path, table: pd.DataFrame) -> pd.DataFrame:
    """Lists, such as an embedding's, as one column for each of their numbers."""
    lists = [header for header in table if isinstance(_first(table[header]), list | np.ndarray)]
    if not lists:
        return table
    parts = [_numbers_of_lists(path, table[header]) if header in lists else table[[header]] for header in table]
    spread = pd.concat(parts, axis=1)
    _refuse_two_of_a_header(path, spread.columns)
    return spread


def _numbers_of_lists(path: Path, column: pd.Series) -> pd.DataFrame:
    """(N, D) `embedding_0` and so on, NaN in the rows that have no list."""
    lists = column.dropna()
    lengths = sorted({np.size(one) for one in lists})
    if len(lengths) > 1:
        raise ActionUnitError(
            f"{path}: column {column.name} holds lists of {lengths[0]} to {lengths[-1]} numbers; give each image as "
            "many, or no list"
        )
    headers = [f"{column.name}_{place}" for place in range(lengths[0])]
    return pd.DataFrame(np.stack(lists.to_list()), lists.index, headers).reindex(column.index)


def _first(column: pd.Series) -> object:
    """The first value that there is, of a column that may hold any."""
    return next(iter(column.dropna()), None) if column.dtype == object else None


def _numbers(path: Path, column: pd.Series) -> pd.Series:
    """float64, NaN where nothing stands."""
    nothing = _nothing(column)
    if _may_be_numbers(column):
        found = pd.to_numeric(column.where(~nothing), errors="coerce").astype(np.float64)
        if not (found.isna() & ~nothing).any():
            return found
    first = column[~nothing].iloc[0]
    if isinstance(first, str) and _LIST_AS_TEXT.match(first.strip()):
        raise ActionUnitError(
            f"{path}: column {column.name} holds a list as text; one number a column is wanted, as pandas makes them "
            f"of lists by pd.DataFrame(df[{str(column.name)!r}].tolist())"
        )
    raise ActionUnitError(f"{path}: column {column.name} holds what is no number; leave it out, or encode it")


def _may_be_numbers(column: pd.Series) -> bool:
    """Tell numbers and text from truth values and times, which pandas would take for numbers."""
    if column.dtype == object:
        return not column.map(lambda value: isinstance(value, bool | np.bool_)).any()
    is_number = pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column)
    return is_number or pd.api.types.is_string_dtype(column)


def _rows_of(path: Path, names: pd.Series, ids: list[str]) -> np.ndarray:
    """(N,) the table's row for each image, −1 where there is none."""
    row_of = {name: row for row, name in enumerate(names)}
    found = _meant(list(row_of), ids)
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


def _meant(names: list[str], ids: list[str]) -> Match:
    """The image of each name; those called by numbers are matched only when all agree."""
    return Match({name: name for name in names}, {}) if set(names) <= set(ids) else match(names, ids)
