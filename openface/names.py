"""Names of files as text that every encoding, table and log holds."""

import os
import re

_UNPRINTABLE = r"[\x00-\x1f\x7f-\x9f\u2028\u2029\udc80-\udcff]"
"""Control characters, line ends, and the bytes that are no UTF-8 as Python has them in a path."""
_TO_SPELL = re.compile(rf"{_UNPRINTABLE}|\\(?=x[0-9a-f]{{2}})")
_SPELLED = re.compile(rb"\\x([0-9a-f]{2})")
_TO_PRINT = re.compile(_UNPRINTABLE)


def spell(name: str) -> str:
    r"""A file's name with `\xf1` for a byte that is no UTF-8 and for a control character; others stay as they are.

    A backslash that could be mistaken for such a mark is spelled too, so that `unspell` gives the name back.
    """
    return _TO_SPELL.sub(_escaped, name)


def as_text(value: object) -> str:
    """A value of a table as text; numpy's and HDF5's arrays of names become bytes in a table."""
    return os.fsdecode(value) if isinstance(value, bytes) else str(value)


def unspell(text: str) -> str:
    """The name that `spell` was given."""
    raw = text.encode("utf-8", "surrogateescape")
    return _SPELLED.sub(lambda mark: bytes([int(mark[1], 16)]), raw).decode("utf-8", "surrogateescape")


def printable(text: str) -> str:
    """A message on one line that can be printed and stored, whatever names it holds."""
    return _TO_PRINT.sub(_escaped, text)


def _escaped(found: re.Match[str]) -> str:
    return "".join(f"\\x{byte:02x}" for byte in found[0].encode("utf-8", "surrogateescape"))
