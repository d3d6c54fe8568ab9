"""Videos as phones make them: frames of unequal length, turned by the container, in many containers."""

import math
import struct
from pathlib import Path

import cv2
import numpy as np

PORTRAIT = Path(__file__).parents[2] / "openface" / "portrait.png"
"""A public-domain portrait."""
_CODECS = {
    ".webm": "VP80",
    ".ogv": "THEO",
    ".wmv": "WMV2",
    ".flv": "FLV1",
    ".mpg": "MPG1",
    ".mts": "MPG2",
    ".ts": "MPG2",
}


def video(path: Path, frames: int, size: tuple[int, int] = (320, 240), face: bool = True, rate: float = 25) -> Path:
    """The portrait, moving from side to side."""
    portrait = cv2.imread(str(PORTRAIT))
    assert portrait is not None
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), rate, size)
    for number in range(frames):
        frame = np.full((size[1], size[0], 3), 90, np.uint8)
        left = int(40 + 40 * math.sin(number / 10))
        if face:
            frame[8:232, left : left + 224] = portrait
        writer.write(frame)
    writer.release()
    return path


def moving(count: int = 30) -> list[np.ndarray]:
    """Grey pictures, each brighter than the one before, the upper left quarter red."""
    pictures = [np.full((48, 64, 3), 8 * number, np.uint8) for number in range(count)]
    for picture in pictures:
        picture[:24, :32] = (255, 0, 0)
    return pictures


def write_video(path: Path, pictures: list[np.ndarray], rate: float = 25) -> bool:
    """Pictures (H, W, 3) RGB as a video of the container that its ending names; False where this OpenCV cannot."""
    size = (pictures[0].shape[1], pictures[0].shape[0])
    code = cv2.VideoWriter.fourcc(*_CODECS.get(path.suffix, "mp4v"))
    writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, code, rate, size)
    for picture in pictures:
        writer.write(cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
    opened = writer.isOpened()
    writer.release()
    return opened


def stretch(path: Path, shown: list[tuple[int, int]]) -> None:
    """Give an MP4's frames other lengths: (frames, times the usual length) pairs.

    Rewrites `stts`, which lies behind the pictures, so that only the boxes around it grow.
    """
    content = path.read_bytes()
    at = content.index(b"stts")
    size, entries, usual = (struct.unpack(">I", content[at + o : at + o + 4])[0] for o in (-4, 8, 16))
    assert entries == 1, "OpenCV writes frames of one length"
    table = b"".join(struct.pack(">II", frames, times * usual) for frames, times in shown)
    box = struct.pack(">I", 16 + len(table)) + b"stts\0\0\0\0" + struct.pack(">I", len(shown)) + table
    content = content[: at - 4] + box + content[at - 4 + size :]
    for name in (b"moov", b"trak", b"mdia", b"minf", b"stbl"):
        content = _resized(content, name, len(box) - size)
    seconds = sum(frames * times for frames, times in shown) * usual
    path.write_bytes(_with_duration(content, seconds))


def turn(path: Path, a: int = 0, b: int = 1, c: int = -1, d: int = 0) -> None:
    """Have an MP4's pixel (x, y) shown at (a·x + c·y, b·x + d·y); as a phone held upright, a quarter turn clockwise."""
    content = bytearray(path.read_bytes())
    at = content.index(b"tkhd") + 4 + 40
    matrix = (a * 0x10000, b * 0x10000, 0, c * 0x10000, d * 0x10000, 0, 0, 0, 0x40000000)
    content[at : at + 36] = struct.pack(">9i", *matrix)
    path.write_bytes(bytes(content))


def squeeze(path: Path, across: int, down: int) -> None:
    """Have an MP4's pixels shown `across` wide and `down` high, as television and HDV store wide pictures."""
    content = path.read_bytes()
    at = content.index(b"pasp") if b"pasp" in content else -1
    box = struct.pack(">I4sII", 16, b"pasp", across, down)
    if at >= 0:
        path.write_bytes(content[: at - 4] + box + content[at + 12 :])
        return
    sample = content.index(b"mp4v", content.index(b"stsd")) - 4
    end = sample + int.from_bytes(content[sample : sample + 4], "big")
    content = content[:end] + box + content[end:]
    for name in (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"stsd", b"mp4v"):
        content = _resized(content, name, len(box))
    path.write_bytes(content)


def _resized(content: bytes, box: bytes, by: int) -> bytes:
    at = content.rindex(box) - 4
    (size,) = struct.unpack(">I", content[at : at + 4])
    return content[:at] + struct.pack(">I", size + by) + content[at + 4 :]


def _with_duration(content: bytes, ticks: int) -> bytes:
    """In the units of the media; the others, and the edit list, are scaled alike."""
    media = content.index(b"mdhd") + 4
    (old,) = struct.unpack(">I", content[media + 16 : media + 20])
    for name, offset in ((b"mdhd", 16), (b"mvhd", 16), (b"tkhd", 20), (b"elst", 8)):
        if name in content:
            at = content.index(name) + 4 + offset
            (value,) = struct.unpack(">I", content[at : at + 4])
            content = content[:at] + struct.pack(">I", value * ticks // old) + content[at + 4 :]
    return content
