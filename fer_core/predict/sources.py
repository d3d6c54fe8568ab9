"""Sources of frames: image files, folders, patterns, videos and cameras.

A file of several pictures (GIF, APNG, WebP, AVIF, pages of a TIFF) is read like a video: all of its pictures, numbered,
and timed where the file says how long each is shown. Everywhere else in the project it stands for its first picture.
"""

import glob
import os
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Literal

import cv2
import numpy as np

from fer_core.errors import InputError
from fer_core.paths import at_home, refuse_address, require_utf8
from fer_core.predict.mirrored import mirroring_of
from openface.decoding import ENDINGS, UnreadableImage, pictures_in, read_header, remark_of
from openface.names import printable
from openface.views import images_below

VIDEO_ENDINGS = (
    *(".mp4", ".m4v", ".mov", ".qt", ".3gp", ".3g2", ".avi", ".divx", ".mkv", ".webm", ".mpg", ".mpeg", ".mpe"),
    *(".m2v", ".vob", ".ts", ".mts", ".m2t", ".m2ts", ".wmv", ".asf", ".flv", ".f4v", ".ogv", ".ogg", ".mxf", ".dv"),
    *(".mjpeg", ".mjpg"),
)
"""Endings of the videos that are taken from a folder; a file that is named is read whatever it ends with."""
CAMERA = "camera"
_SEVERAL = (".gif", ".png", ".apng", ".webp", ".avif", ".tif", ".tiff")
_NEARLY_SQUARE, _ANY_CAMERAS = 0.01, 4.0
"""A pixel's sides may differ by this share of one; and what says more than the second number is a mistake."""
_NO_RATE = 1000
"""Frames a second that a WebM without any is said to have; an MPEG stream's clock ticks 90,000 times."""
_MOST_DAMAGED = 10_000
"""Frames in a row that may be damaged before a video ends; a damaged header may promise any number."""
_BROKEN_OFF = 0.98
"""Share of its frames, or of its time, that a video has to have; containers are often wrong by a few."""


@dataclass(frozen=True)
class Frame:
    """An image, or one of a video's."""

    source: str
    pixels: np.ndarray | None
    """(H, W, 3) uint8 RGB; None where there is nothing to see, for the `reason`."""
    number: int | None = None
    """Its number in a video or of a camera, counted from 0."""
    seconds: float | None = None
    """Its time in a video or of a camera, counted from 0."""
    reason: str = ""
    remark: str = ""
    """What its decoding concluded, such as that 12 of 16 bits are used."""


@dataclass(frozen=True)
class PictureSource:
    """An image file, a video file or a camera, and how many frames it has, where that is known."""

    name: str
    count: int | None = 1
    rate: float = 0.0
    """Frames a second of a video or an animation."""
    kind: Literal["pictures", "video", "camera"] = "pictures"

    @property
    def is_camera(self) -> bool:
        return self.kind == "camera"

    @property
    def is_moving(self) -> bool:
        """A video, an animation or a camera, and no pictures that stand for themselves."""
        return self.kind != "pictures" or self.rate > 0


def find_sources(names: list[str], every: int = 1, drawn: Path | None = None) -> list[PictureSource]:
    """The images and videos that files, folders, patterns and `camera` or `camera:1` stand for, in that order.

    Args:
        every: how many frames of a video go by for one that is taken.
        drawn: the folder of what is drawn, of which nothing is taken but what is named.

    Raises:
        InputError: a name stands for nothing, for an address, or for the folder of what is drawn.
    """
    sources = []
    for name in names:
        if not name:
            raise InputError("a source's name is empty; name images, folders, videos or camera")
        refuse_address(name)
        is_camera = name.partition(":")[0] == CAMERA and not Path(name).exists()
        if drawn is not None and not is_camera and _folder_of(name).resolve() == drawn.resolve():
            raise InputError(f"--pictures {drawn}: is read from too; name a folder of its own")
        files = [] if is_camera else _found(name, drawn).files
        found = [PictureSource(name, None, kind="camera")] if is_camera else [_file(path, every) for path in files]
        if not found:
            raise InputError(
                f"{name}: no image or video there; images end with {', '.join(ENDINGS)}; "
                f"videos with {', '.join(VIDEO_ENDINGS)}"
            )
        sources += found
    return sources


def passed_over(names: list[str], drawn: Path | None = None) -> dict[str, int]:
    """The files that folders and patterns among `names` hold and that are not read, counted by ending or kind."""
    left: Counter[str] = Counter()
    for name in names:
        left.update(_found(name, drawn).left)
    return dict(left.most_common())


def frames_of(source: PictureSource, every: int = 1) -> Iterator[Frame]:
    """The frames of a source; an image or a video that cannot be read gives, or ends with, one that says why.

    Raises:
        InputError: there is no such camera.
    """
    if source.kind == "pictures":
        yield from _pictures(source, every)
    else:
        yield from _moving(source, every)


def _pictures(source: PictureSource, every: int) -> Iterator[Frame]:
    try:
        with pictures_in(Path(source.name)) as (count, pictures):
            for number, shown in enumerate(pictures):
                place = number if count > 1 else None
                if shown.image is None:
                    yield Frame(source.name, None, place, shown.seconds, reason=shown.reason)
                elif number % every == 0:
                    pixels, remark = np.asarray(shown.image.convert("RGB")), remark_of(shown.image)
                    yield Frame(source.name, pixels, place, shown.seconds, remark=remark)
    except UnreadableImage as unreadable:
        yield Frame(source.name, None, reason=str(unreadable))


@dataclass(frozen=True)
class _Found:
    """The files that a name stands for, and how many others it passes over, by ending or kind."""

    files: list[Path]
    left: Counter[str] = field(default_factory=Counter)


def _found(name: str, drawn: Path | None) -> _Found:
    path = at_home(name)
    if path.is_dir():
        return _below(path, drawn)
    if path.exists() or not glob.has_magic(name):
        return _Found([path])
    files, left = list[Path](), Counter[str]()
    for match in map(Path, sorted(glob.glob(str(path), recursive=True))):
        # `**` finds what is in folders by itself.
        if match.is_dir() and "**" not in name:
            below = _below(match, drawn)
            files += below.files
            left += below.left
        elif match.is_file() and match.suffix.lower() not in (*ENDINGS, *VIDEO_ENDINGS):
            left[printable(match.suffix.lower()) or "without an ending"] += 1
        elif match.is_file():
            files.append(match)
    return _without_drawn(_Found(files, left), drawn)


def _folder_of(name: str) -> Path:
    """The folder that a name stands for, or in which its pattern looks."""
    path = at_home(name)
    return path.parent if glob.has_magic(path.name) and not path.exists() else path


def _below(folder: Path, drawn: Path | None) -> _Found:
    found = images_below(folder, (*ENDINGS, *VIDEO_ENDINGS))
    return _without_drawn(_Found(sorted(found.paths), Counter(found.left)), drawn)


def _without_drawn(found: _Found, drawn: Path | None) -> _Found:
    """Without what lies where an earlier run has drawn."""
    if drawn is None:
        return found
    place = drawn.resolve()
    files = [path for path in found.files if path.parent.resolve() != place]
    count = len(found.files) - len(files)
    return _Found(files, found.left + Counter({f"in {drawn}, where this draws": count}))


def _file(path: Path, every: int) -> PictureSource:
    ending = path.suffix.lower()
    if path.exists() and not path.is_file():  # Opening a pipe would wait for who writes into it.
        return PictureSource(str(path), kind="video")
    if ending in ENDINGS or (ending not in VIDEO_ENDINGS and _is_picture(path)):
        return _animation(path, every) if ending in _SEVERAL else PictureSource(str(path))
    if _missing(path):  # `frames_of` says so; OpenCV would write to the terminal.
        return PictureSource(str(path), kind="video")
    capture = _open_video(str(path))
    is_video = capture.isOpened() and (ending in VIDEO_ENDINGS or not _is_still(capture))
    count = capture.get(cv2.CAP_PROP_FRAME_COUNT) if is_video else 0
    rate = _rate_of(capture) if is_video else 0.0
    capture.release()
    if not is_video and ending not in VIDEO_ENDINGS:
        return PictureSource(str(path))
    return PictureSource(str(path), _taken(int(count), every) if count > 0 else 1, rate, "video")


def _rate_of(capture: cv2.VideoCapture) -> float:
    """Frames a second that a video states, or 0: what is beyond films is the clock of a container that states none."""
    rate = capture.get(cv2.CAP_PROP_FPS)
    return rate if 0 < rate < _NO_RATE else 0.0


def _is_still(capture: cv2.VideoCapture) -> bool:
    """Tell whether it has one frame alone: FFmpeg opens pictures too, of formats that nothing else here reads."""
    return not (capture.grab() and capture.grab())


def _is_picture(path: Path) -> bool:
    try:
        with path.open("rb") as file, read_header(file):
            return True
    except (OSError, UnreadableImage):
        return False


def _animation(path: Path, every: int) -> PictureSource:
    """The source of a file that may hold several pictures; its rate comes from how long the first one is shown."""
    try:
        with pictures_in(path) as (count, pictures):
            if count == 1:
                return PictureSource(str(path))
            # The first of them may be where it breaks off.
            *_, second = (shown.seconds for shown in islice(pictures, 2))
    except UnreadableImage:  # `frames_of` says why.
        return PictureSource(str(path))
    return PictureSource(str(path), _taken(count, every), 0.0 if second is None else 1 / max(second, 0.01))


def _taken(count: int, every: int) -> int:
    return -(-count // every)


def _moving(source: PictureSource, every: int) -> Iterator[Frame]:
    if not source.is_camera and (missing := _missing(Path(source.name))):
        yield Frame(source.name, None, reason=missing)
        return
    capture = _open(source)
    if not capture.isOpened():
        if source.is_camera:
            raise InputError(f"{source.name}: no camera there, or it is in use; `camera:1` is the second one")
        yield Frame(source.name, None, reason="cannot be read as a video")
        return
    mirroring = None if source.is_camera else mirroring_of(Path(source.name))
    if mirroring:
        capture.set(cv2.CAP_PROP_ORIENTATION_AUTO, 0)
    clock, aspect = _Clock(capture, source), _aspect_of(capture)
    number = damaged = 0
    try:
        while damaged <= max(min(clock.promised - number, _MOST_DAMAGED), 0):
            if not capture.grab():
                damaged += 1
                continue
            if damaged:
                reason = f"{damaged} frames from {number} on are damaged, and those after them may be"
                yield Frame(source.name, None, number, reason=reason)
                number, damaged = number + damaged, 0
            seconds = clock.seconds(number)
            if number % every == 0:
                seen, picture = capture.retrieve()
                if not seen:
                    break
                pixels = cv2.cvtColor(picture, cv2.COLOR_BGR2RGB)
                upright = mirroring.shown(pixels) if mirroring else pixels
                yield Frame(source.name, _of_square_pixels(upright, aspect), number, seconds)
            number += 1
    finally:
        capture.release()
    if number == 0 or clock.breaks_off(number):
        yield Frame(source.name, None, number, reason=f"breaks off after {number} of {clock.promised} frames")


def _aspect_of(capture: cv2.VideoCapture) -> float:
    """How many times as wide as high each pixel of a frame is to be shown, once OpenCV has turned it upright."""
    across, down = capture.get(cv2.CAP_PROP_SAR_NUM), capture.get(cv2.CAP_PROP_SAR_DEN)
    if across <= 0 or down <= 0 or not 1 / _ANY_CAMERAS <= across / down <= _ANY_CAMERAS:
        return 1.0
    is_on_its_side = capture.get(cv2.CAP_PROP_ORIENTATION_META) % 180 == 90
    return down / across if is_on_its_side else across / down


def _of_square_pixels(pixels: np.ndarray, aspect: float) -> np.ndarray:
    """A frame as players show it; one side grows, so that nothing of the other is lost."""
    if abs(aspect - 1) <= _NEARLY_SQUARE:
        return pixels
    height, width = pixels.shape[:2]
    size = round(width * max(aspect, 1)), round(height / min(aspect, 1))
    return cv2.resize(pixels, size, interpolation=cv2.INTER_LINEAR)


def _missing(path: Path) -> str:
    if not path.exists():
        return "no such file"
    if not path.is_file():
        return "a pipe, a socket or a device and no file; a camera is named camera:0"
    return "the file is empty" if path.stat().st_size == 0 else ""


class _Clock:
    """When each frame is shown: by the time stamps of the container, which need not be evenly spaced.

    A container without any is taken at its rate; a camera's frames are timed as they come.
    """

    def __init__(self, capture: cv2.VideoCapture, source: PictureSource) -> None:
        self._capture, self._is_camera = capture, source.is_camera
        self._rate = _rate_of(capture)
        self.promised = 0 if source.is_camera else int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
        self._started: float | None = None
        self._last = self._longest = 0.0

    def seconds(self, number: int) -> float | None:
        """Time of the frame that was just grabbed, from the first one."""
        stamp = time.monotonic() if self._is_camera else self._capture.get(cv2.CAP_PROP_POS_MSEC) / 1000
        self._started = stamp if self._started is None else self._started
        since = stamp - self._started
        if number and since <= 0:
            return number / self._rate if self._rate else None
        self._longest = max(self._longest, since - self._last)
        self._last = since
        return since

    def breaks_off(self, number: int) -> bool:
        """Fewer frames than promised, and less time: for some containers the number is a guess from the time."""
        duration = self.promised / self._rate if self._rate else 0.0
        return number < _BROKEN_OFF * self.promised and self._last + self._longest < _BROKEN_OFF * duration


def _open(source: PictureSource) -> cv2.VideoCapture:
    if not source.is_camera:
        return _open_video(source.name)
    number = source.name.partition(":")[2] or "0"
    if not number.isdigit():
        raise InputError(f"{source.name}: write a camera as camera:0, camera:1, …")
    return cv2.VideoCapture(int(number))


def _open_video(name: str) -> cv2.VideoCapture:
    """A video by FFmpeg and no other of OpenCV's backends; what cannot be opened is ours to tell, and not OpenCV's."""
    level = cv2.utils.logging.getLogLevel()
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    try:
        with _for_opencv(name) as path:
            return cv2.VideoCapture(path, cv2.CAP_FFMPEG)
    except OSError:
        return cv2.VideoCapture()
    finally:
        cv2.utils.logging.setLogLevel(level)


@contextmanager
def _for_opencv(name: str) -> Iterator[str]:
    """A path of a file for OpenCV: a name that is no UTF-8 would end this process without a word."""
    try:
        require_utf8(name)
    except InputError:
        with open(name, "rb") as file:
            yield f"/dev/fd/{file.fileno()}"
    else:
        # FFmpeg would take what stands before a colon in a name for a protocol's.
        yield os.path.join(os.curdir, name)
