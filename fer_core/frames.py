"""What faces are looked for in: image files, folders, patterns, videos and cameras, one frame after the other."""

import glob
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from fer_core.errors import InputError
from openface.decoding import ENDINGS, UnreadableImage, rgb_pixels
from openface.images import images_below

VIDEO_ENDINGS = (".mp4", ".mov", ".avi", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg", ".wmv")
CAMERA = "camera"
_COUNT_AND_RATE = (cv2.CAP_PROP_FRAME_COUNT, cv2.CAP_PROP_FPS)
_BROKEN_OFF = 0.98
"""Share of its frames that a video has to have; containers are often wrong by a few."""


@dataclass(frozen=True)
class Frame:
    """An image, or one of a video's.

    pixels: (H, W, 3) uint8 RGB; None where there is nothing to see, for the `reason`
    number, seconds: in a video or of a camera, counted from 0
    """

    source: str
    pixels: np.ndarray | None
    number: int | None = None
    seconds: float | None = None
    reason: str = ""


@dataclass(frozen=True)
class Source:
    """An image file, a video file or a camera, and how many frames it has, where that is known."""

    name: str
    count: int | None = 1
    rate: float = 0.0
    """Frames a second of a video."""

    @property
    def is_camera(self) -> bool:
        return self.name.partition(":")[0] == CAMERA

    @property
    def is_moving(self) -> bool:
        """Whether it is a video or a camera."""
        return self.is_camera or Path(self.name).suffix.lower() in VIDEO_ENDINGS


def find_sources(names: list[str], every: int = 1) -> list[Source]:
    """The images and videos that files, folders, patterns and `camera` or `camera:1` stand for, in that order.

    Args:
        every: how many frames of a video go by for one that is taken.

    Raises:
        InputError: a name stands for nothing.
    """
    sources = []
    for name in names:
        found = [Source(name, None)] if Source(name).is_camera else [_file(path, every) for path in _files(name)]
        if not found:
            raise InputError(f"{name}: no image or video there; images end with {', '.join(ENDINGS)}")
        sources += found
    return sources


def frames_of(source: Source, every: int = 1) -> Iterator[Frame]:
    """The frames of a source; an image or a video that cannot be read gives, or ends with, one that says why.

    Raises:
        InputError: there is no such camera.
    """
    if source.is_moving:
        yield from _moving(source, every)
        return
    try:
        yield Frame(source.name, rgb_pixels(source.name))
    except UnreadableImage as unreadable:
        yield Frame(source.name, None, reason=str(unreadable).removeprefix(f"{source.name}: "))


def _files(name: str) -> list[Path]:
    path = Path(name).expanduser()
    if path.is_dir():
        videos = [file for file in path.rglob("*") if file.suffix.lower() in VIDEO_ENDINGS and file.is_file()]
        return sorted([path / image for image in images_below(path).ids] + videos)
    if path.is_file() or not glob.has_magic(name):
        return [path]
    files = (Path(found) for found in sorted(glob.glob(str(path), recursive=True)))
    return [file for file in files if file.suffix.lower() in (*ENDINGS, *VIDEO_ENDINGS) and file.is_file()]


def _file(path: Path, every: int) -> Source:
    if path.suffix.lower() not in VIDEO_ENDINGS:
        return Source(str(path))
    capture = cv2.VideoCapture(str(path))
    count, rate = (capture.get(what) if capture.isOpened() else 0 for what in _COUNT_AND_RATE)
    capture.release()
    return Source(str(path), -(-int(count) // every) if count > 0 else 1, rate)


def _moving(source: Source, every: int) -> Iterator[Frame]:
    capture = _open(source)
    if not capture.isOpened():
        if source.is_camera:
            raise InputError(f"{source.name}: no camera there, or it is in use; `camera:1` is the second one")
        yield Frame(source.name, None, reason="cannot be read as a video")
        return
    rate = capture.get(cv2.CAP_PROP_FPS) or 0.0
    promised = 0 if source.is_camera else int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
    number = 0
    try:
        while capture.grab():
            if number % every == 0:
                seen, picture = capture.retrieve()
                if not seen:
                    break
                yield Frame(
                    source.name, cv2.cvtColor(picture, cv2.COLOR_BGR2RGB), number, number / rate if rate else None
                )
            number += 1
    finally:
        capture.release()
    if number < _BROKEN_OFF * promised or number == 0:
        yield Frame(source.name, None, number, reason=f"breaks off after {number} of {promised} frames")


def _open(source: Source) -> cv2.VideoCapture:
    if not source.is_camera:
        return cv2.VideoCapture(source.name)
    number = source.name.partition(":")[2] or "0"
    if not number.isdigit():
        raise InputError(f"{source.name}: write a camera as camera:0, camera:1, …")
    return cv2.VideoCapture(int(number))
