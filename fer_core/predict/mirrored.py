"""Videos that are shown mirrored, as some phones keep what their front camera saw.

An MP4 or a QuickTime file says how its frames are shown by a matrix. OpenCV turns them by the matrix's angle alone, so
that a mirrored face would stand on its head.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

_LONG = 1
"""A box of this size has its size behind its name."""
_MATRIX = {0: 40, 1: 52}
"""The byte at which a track's header has its matrix, by the header's version."""
_ONE = 1 << 16


@dataclass(frozen=True)
class Mirroring:
    """A frame's pixel at (x, y) is shown at (a·x + c·y, b·x + d·y); a, b, c and d are −1, 0 or 1."""

    a: int
    b: int
    c: int
    d: int

    def shown(self, pixels: np.ndarray) -> np.ndarray:
        """(H, W, 3) as stored to (H, W, 3) or (W, H, 3) as shown."""
        across, down = (self.a, self.d) if self.a else (self.c, self.b)
        upright = pixels if self.a else pixels.swapaxes(0, 1)
        return np.ascontiguousarray(upright[::down, ::across])


def mirroring_of(path: Path) -> Mirroring | None:
    """The mirroring that a video's own header asks for; None where it asks for none, or has no such header."""
    with path.open("rb") as file:
        for track in _inside(file, b"moov", 0, path.stat().st_size, b"trak"):
            handler = next(_inside(file, b"mdia", *track, b"hdlr"), None)
            header = next(_boxes(file, *track, b"tkhd"), None)
            if handler and header and _read(file, handler[0] + 8, 4) == b"vide":
                return _mirroring_in(_read(file, header[0], header[1] - header[0]))
    return None


def _mirroring_in(header: bytes) -> Mirroring | None:
    at = _MATRIX.get(header[0]) if header else None
    if at is None or len(header) < at + 20:
        return None
    a, b, _, c, d = (round(value / _ONE) for value in struct.unpack(">5i", header[at : at + 20]))
    is_mirrored = a * d - b * c < 0 and {abs(a), abs(b), abs(c), abs(d)} == {0, 1} and abs(a) != abs(b)
    return Mirroring(a, b, c, d) if is_mirrored else None


def _inside(file: BinaryIO, outer: bytes, start: int, end: int, wanted: bytes) -> Iterator[tuple[int, int]]:
    """The beginning and end of the content of each box `wanted` in a box `outer`."""
    for box in _boxes(file, start, end, outer):
        yield from _boxes(file, *box, wanted)


def _boxes(file: BinaryIO, start: int, end: int, wanted: bytes) -> Iterator[tuple[int, int]]:
    """The beginning and end of the content of each box of a name, from `start` to `end`, as far as there are boxes."""
    while start + 8 <= end and len(begins := _read(file, start, 16)) >= 8:
        size, name = struct.unpack(">I4s", begins[:8])
        content = start + 8
        if size == _LONG and len(begins) == 16:
            size, content = int.from_bytes(begins[8:], "big"), start + 16
        beyond = start + size if size else end
        if beyond < content or beyond > end:
            return
        if name == wanted:
            yield content, beyond
        start = beyond


def _read(file: BinaryIO, at: int, count: int) -> bytes:
    file.seek(at)
    return file.read(count)
