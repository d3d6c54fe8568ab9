"""Frame sizes that the AV1 in an AVIF declares, for its container may say another one.

A decoder makes room for what the sequence header of AV1 says; that of the container is what the picture is scaled to.

References:
    AV1 Bitstream & Decoding Process Specification, 5.3 to 5.5: open bitstream units and the sequence header.
    ISO/IEC 14496-12, 8.7 and 8.11: where the samples of a track and the items of a file lie.
"""

import math
from collections.abc import Iterable, Iterator
from itertools import accumulate, pairwise
from typing import TypeVar

_HOLD_BOXES = {b"meta": 4, b"moov": 0, b"trak": 0, b"mdia": 0, b"minf": 0}
"""Boxes that hold the ones that are looked for, and what comes before these."""
_SEQUENCE_HEADER = 1
_MOST_PARTS = 100_000
"""Most boxes, rows of a table or units that are looked at; an animation of ten thousand pictures has fewer."""
_FRAMES = (3, 6)
"""Units that begin a frame: its header alone, or all of it."""
_MOST_FRAMES = 100
"""Most frames of one picture. A decoder goes through all; layers and what a picture refers to are some ten."""
_LONGEST_HEADER = 1024
"""Bytes of a sequence header; one with all that it can have is shorter."""
_LONGEST_TICK = 32

Part = TypeVar("Part")


def largest_frame(content: bytes) -> tuple[int, int]:
    """Width and height of the largest frame that an AVIF's AV1 declares; nought where it declares none.

    Raises:
        ValueError: it is cut short, or of so many parts or frames that going through them would take long.
    """
    streams = _not_too_many(_streams(memoryview(content)))
    units = _not_too_many(unit for stream in streams for unit in _of_one_picture(_units(stream)))
    headers = (unit[:_LONGEST_HEADER] for kind, unit in units if kind == _SEQUENCE_HEADER)
    return max((_frame_size(_Bits(header)) for header in headers), key=math.prod, default=(0, 0))


def _not_too_many(parts: Iterable[Part]) -> Iterator[Part]:
    for number, part in enumerate(parts):
        if number >= _MOST_PARTS:
            raise ValueError(f"it has more than {_MOST_PARTS:,} parts")
        yield part


def _of_one_picture(units: Iterable[tuple[int, memoryview]]) -> Iterator[tuple[int, memoryview]]:
    frames = 0
    for kind, unit in units:
        frames += kind in _FRAMES
        if frames > _MOST_FRAMES:
            raise ValueError(f"one of its pictures has more than {_MOST_FRAMES} frames")
        yield kind, unit


class _Bits:
    """Whole numbers of any number of bits, one after the other."""

    def __init__(self, content: memoryview) -> None:
        self._content, self._place = content, 0

    def take(self, bits: int) -> int:
        first, end = self._place // 8, -(-(self._place + bits) // 8)
        if end > len(self._content):
            raise ValueError("it is cut short")
        held = int.from_bytes(self._content[first:end], "big")
        self._place += bits
        return held >> (8 * end - self._place) & ((1 << bits) - 1)


def boxes(content: memoryview) -> Iterator[tuple[bytes, memoryview]]:
    """Boxes by name, in the order of the file, and those inside of boxes."""
    start = 0
    while start + 8 <= len(content):
        size, name, begin = int.from_bytes(content[start : start + 4], "big"), bytes(content[start + 4 : start + 8]), 8
        if size == 1:
            size, begin = int.from_bytes(content[start + 8 : start + 16], "big"), 16
        end = start + max(size, begin) if size else len(content)
        inside = content[start + begin : end]
        yield name, inside
        if name in _HOLD_BOXES:
            yield from boxes(inside[_HOLD_BOXES[name] :])
        start = end


def _streams(content: memoryview) -> Iterator[memoryview]:
    """What is given to the decoder: the file's items, and the samples of its tracks."""
    held = list(_not_too_many(boxes(content)))
    in_file = next((inside for name, inside in held if name == b"idat"), content[:0])
    for name, inside in held:
        if name == b"iloc":
            yield from _items(_Bits(inside), (content, in_file))
        elif name == b"stbl":
            yield from _samples(dict(_not_too_many(boxes(inside))), content)


def _items(bits: _Bits, places: tuple[memoryview, memoryview]) -> Iterator[memoryview]:
    """Items as `iloc` has them, in the file or in its `idat`."""
    version, _ = bits.take(8), bits.take(24)
    of_offset, of_length, of_base, of_index = (8 * bits.take(4) for _ in range(4))
    joined = extents = 0
    for _ in range(bits.take(32 if version == 2 else 16)):
        bits.take(32 if version == 2 else 16)
        place = places[bits.take(16) & 1 if version else 0]
        bits.take(16)
        base = bits.take(of_base)
        count = bits.take(16)
        extents += count
        if extents > _MOST_PARTS:
            raise ValueError(f"it has more than {_MOST_PARTS:,} parts")
        parts = []
        for _ in range(count):
            bits.take(of_index if version else 0)
            offset, length = base + bits.take(of_offset), bits.take(of_length)
            parts.append(place[offset : offset + length if length else None])
        joined += sum(map(len, parts)) if len(parts) > 1 else 0
        if joined > len(places[0]):
            raise ValueError("its parts lie one upon the other")
        yield parts[0] if len(parts) == 1 else memoryview(b"".join(parts))


def _samples(table: dict[bytes, memoryview], content: memoryview) -> Iterator[memoryview]:
    """A track's samples: each chunk holds as many as `stsc` says, and `stsz` says how long each is."""
    if not {b"stsc", b"stsz"} <= table.keys():
        return
    wide = b"co64" in table
    chunks = _numbers(table[b"co64" if wide else b"stco"][4:], 64 if wide else 32, 1)
    runs = [*_numbers(table[b"stsc"][4:], 32, 3), (len(chunks) + 1, 0, 0)]
    same = int.from_bytes(table[b"stsz"][4:8], "big")
    sizes = iter(_numbers(table[b"stsz"][8:], 32, 1) if not same else ())
    for (first, each, _), (following, *_) in pairwise(runs):
        if not 0 < first <= following:
            raise ValueError("its samples are out of order")
        for (start,) in chunks[first - 1 : following - 1]:
            lengths = (same or next(sizes, (0,))[0] for _ in range(each))
            for begin, end in pairwise(accumulate(lengths, initial=start)):
                yield content[begin:end]


def _numbers(table: memoryview, bits: int, columns: int) -> list[tuple[int, ...]]:
    """Rows of a table that begins with their number."""
    size = bits // 8 * columns
    taken = _Bits(table[4:])
    rows = _not_too_many(range(min(int.from_bytes(table[:4], "big"), len(table[4:]) // size)))
    return [tuple(taken.take(bits) for _ in range(columns)) for _ in rows]


def _units(stream: memoryview) -> Iterator[tuple[int, memoryview]]:
    """The kind of each open bitstream unit, and what it holds."""
    start = 0
    while start < len(stream):
        header = stream[start]
        start += 2 if header & 4 else 1
        length = len(stream) - start
        if header & 2:
            length, shift, more = 0, 0, 0x80
            while more and start < len(stream) and shift < 56:
                length |= (stream[start] & 0x7F) << shift
                more, shift, start = stream[start] & 0x80, shift + 7, start + 1
        if header & 0x80 or length > len(stream) - start:
            return  # No AV1, such as EXIF.
        yield header >> 3 & 15, stream[start : start + length]
        start += length


def _frame_size(bits: _Bits) -> tuple[int, int]:
    """Width and height of a sequence header's largest frame."""
    bits.take(4)
    if bits.take(1):  # The header of a still picture, without times.
        bits.take(5)
    else:
        _skip_times(bits)
    of_width, of_height = bits.take(4) + 1, bits.take(4) + 1
    return bits.take(of_width) + 1, bits.take(of_height) + 1


def _skip_times(bits: _Bits) -> None:
    """Read past what a sequence header says of times and of operating points."""
    of_delay = 0
    if bits.take(1):
        bits.take(64)
        if bits.take(1):
            zeros = 0
            while not bits.take(1):
                zeros += 1
                if zeros > _LONGEST_TICK:
                    raise ValueError("its sequence header is damaged")
            bits.take(zeros)
        if bits.take(1):
            of_delay = bits.take(5) + 1
            bits.take(42)
    is_delayed = bits.take(1)
    for _ in range(bits.take(5) + 1):
        bits.take(12)
        if bits.take(5) > 7:
            bits.take(1)
        if of_delay and bits.take(1):
            bits.take(2 * of_delay + 1)
        if is_delayed and bits.take(1):
            bits.take(4)
