"""What spreadsheet programs do to CSV files, for all who read these."""

import re
from collections.abc import Iterable

SEPARATOR_LINE = re.compile(r"sep=(.)\s*$")
"""What Excel writes as a first line."""
_DECIMAL_COMMA = re.compile(r"^([-+]?\d+),(\d+(?:[eE][-+]?\d+)?)$")
_DECIMAL_POINT = re.compile(r"^[-+]?\d*\.\d+(?:[eE][-+]?\d+)?$")
_THOUSANDS = re.compile(r"^[-+]?[1-9]\d{0,2},\d{3}$")
"""`1,234` may be either."""


def with_decimal_point(field: str) -> str:
    """A number that is written `0,5` or `1,5E-05` with a point; anything else as it is."""
    return _DECIMAL_COMMA.sub(r"\1.\2", field)


def has_decimal_commas(fields: Iterable[str]) -> bool:
    """Tell whether numbers are written `0,5`, and none with a point; between commas that takes quotes around them."""
    found = False
    for field in fields:
        if _DECIMAL_POINT.match(field):
            return False
        found = found or ("," in field and bool(_DECIMAL_COMMA.match(field)) and not _THOUSANDS.match(field))
    return found
