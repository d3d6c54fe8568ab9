"""What spreadsheet programs do to CSV files, for all who read these."""

import re

SEPARATOR_LINE = re.compile(r"sep=(.)\s*$")
"""What Excel writes as a first line."""
_DECIMAL_COMMA = re.compile(r"^([-+]?\d+),(\d+(?:[eE][-+]?\d+)?)$")


def with_decimal_point(field: str) -> str:
    """A number that is written `0,5` or `1,5E-05` with a point; anything else as it is."""
    return _DECIMAL_COMMA.sub(r"\1.\2", field)
