"""CSV files as people really have them: any usual separator, encoding and spelling of the header."""

import csv
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TextIO

import pandas as pd

from fer_core.data.readers.names import number_of, readable
from fer_core.errors import DatasetError
from openface.decoding import reason_of
from openface.spreadsheets import SEPARATOR_LINE, has_decimal_commas, with_decimal_point

_SEPARATORS = (",", ";", "\t", "|")
_LOOKED_AT = 1000
"""Rows that say whether numbers have decimal commas."""
_MARKS = {
    b"\xef\xbb\xbf": "utf-8-sig",
    b"\xff\xfe\0\0": "utf-32",
    b"\0\0\xfe\xff": "utf-32",
    b"\xff\xfe": "utf-16",
    b"\xfe\xff": "utf-16",
}
"""UTF-32's begins with UTF-16's."""

_JSON = re.compile(rb'\s*(\{\s*"|\[\s*[\[{])')


@dataclass(frozen=True)
class Row:
    """One row of a CSV file."""

    line: int
    """The line where it begins in the file, from 1."""
    fields: dict[str, str]
    """Stripped, by the stripped names of the header; "" where the row is too short. Decimal commas are points."""


def read_rows(path: Path) -> Iterator[Row]:
    """The rows of a CSV file with a header, one at a time.

    Bytes of fields that are no UTF-8 are kept as Python has them in paths, so that a list of files with such names
    still fits; `readable` makes text of them.

    Raises:
        DatasetError: it cannot be read, is no CSV, or a row has more fields than the header.
    """
    try:
        with path.open(encoding=_encoding(path), errors="surrogateescape", newline="") as file:
            yield from _rows(path, file)
    except (OSError, UnicodeError) as error:
        raise DatasetError(f"{path}: not a CSV file ({reason_of(error)}); save it as CSV, with a header") from error


def read_table(path: Path, without: tuple[str, ...] = ()) -> pd.DataFrame:
    """All rows as text, indexed by their line in the file, without the columns `without`; errors as `read_rows`."""
    lines: list[int] = []
    columns: dict[str, list[str]] = {}
    for row in read_rows(path):
        lines.append(row.line)
        for name, value in row.fields.items():
            if name not in without:
                columns.setdefault(name, []).append(value)
    if not lines:
        raise DatasetError(f"{path}: lists no images; add lines below its header")
    return pd.DataFrame(columns, index=pd.Index(lines, name="line"), dtype=object)


@dataclass(frozen=True)
class Dialect:
    """How a CSV file is written."""

    encoding: str
    separator: str
    skipped: int
    """Lines before the header: blank ones, and Excel's `sep=;`."""
    decimal: str
    """What stands before a number's fraction: a comma, except where commas separate and numbers have points."""


def dialect_of(path: Path) -> Dialect:
    """Look at the first lines of a CSV file, for a reader of many numbers; errors as `read_rows`."""
    try:
        encoding = _encoding(path)
        with path.open(encoding=encoding, errors="surrogateescape", newline="") as file:
            separator, skipped = _beginning(file)
            has_commas = separator != "," or _quotes_decimal_commas(file)
    except (OSError, UnicodeError) as error:
        raise DatasetError(f"{path}: not a CSV file ({reason_of(error)}); save it as CSV, with a header") from error
    return Dialect(encoding, separator, skipped, "," if has_commas else ".")


def _quotes_decimal_commas(file: TextIO) -> bool:
    """Tell whether the next rows, separated by commas, have numbers such as "0,5"."""
    rows = islice(csv.reader(file, skipinitialspace=True), _LOOKED_AT)
    try:
        return has_decimal_commas(field for row in rows for field in row)
    except csv.Error:  # Who reads all of it says what is wrong.
        return False


def plain(name: str) -> str:
    """A column's name without case, blanks and marks: `Image name` and `image_name` are one."""
    return re.sub(r"[\W_]+", "", name).lower()


def _encoding(path: Path) -> str:
    with path.open("rb") as file:
        start = file.read(4096)
    for mark, encoding in _MARKS.items():
        if start.startswith(mark):
            return encoding
    if not start.strip() or b"\0" in start or _JSON.match(start):
        what = "JSON" if _JSON.match(start) else "no text" if start else "empty"
        raise DatasetError(f"{path}: not a CSV file ({what}); save it as CSV, with a header")
    return "utf-8"


def _rows(path: Path, file: TextIO) -> Iterator[Row]:
    separator, skipped = _beginning(file)
    file.seek(0)
    for _ in range(skipped):
        file.readline()
    reader = csv.reader(file, delimiter=separator, skipinitialspace=True, strict=True)
    header: list[str] = []
    line = 1 + skipped
    try:
        for fields in reader:
            if separator != ",":
                fields = [with_decimal_point(field.strip()) for field in fields]
            if any(fields) and header:
                yield Row(line, _by_name(f"{path}, line {line}", header, fields))
            elif any(fields):
                header = _header(path, fields)
            line = reader.line_num + skipped + 1
    except csv.Error as error:
        raise DatasetError(
            f"{path}, line {line}: {error}; close the quote that may be open before it, or shorten it"
        ) from error


def _beginning(file: TextIO) -> tuple[str, int]:
    """The separator that the first line with text shows, and how many lines come before the header."""
    blank, first = 0, file.readline()
    while first and not first.strip():
        blank, first = blank + 1, file.readline()
    if marked := SEPARATOR_LINE.match(first):
        return marked[1], blank + 1
    return next((mark for mark in _ranked(first) if mark in first), ","), blank


def _ranked(header: str) -> list[str]:
    """Separators by how often they are in the header; a blank comes last, since names may have one."""
    return [*sorted(_SEPARATORS, key=header.count, reverse=True), " "]


def _header(path: Path, fields: list[str]) -> list[str]:
    names = [readable(field.strip().lstrip("\ufeff").strip()) for field in fields]
    twice = [name for name in names if name and names.count(name) > 1]
    if twice and sum(number_of(name) is not None for name in names) > 1:
        raise DatasetError(f"{path}: its first line is no header ({', '.join(names[:3])}, …); write one above it")
    if twice:
        raise DatasetError(f"{path}: two columns are called {twice[0]}; rename one of them")
    return names


def _by_name(place: str, header: list[str], fields: list[str]) -> dict[str, str]:
    if any(field.strip() for field in fields[len(header) :]):
        raise DatasetError(f"{place}: more fields than its header; quote what holds the separator")
    padded = (fields + [""] * len(header))[: len(header)]
    return {name: value.strip() for name, value in zip(header, padded, strict=True) if name}
