"""Find the faces in a file's bytes: decoded, searched and cut out, in a few threads beside the event loop."""

import asyncio
import math
import threading
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO

import cv2
import numpy as np

from fer_core.data.crops import Box, FaceFormat, whole_image
from fer_core.predict.detector import open_detector
from openface.decoding import UnreadableImage, largest_part, open_image, read_header, remark_of

_HEADER = 2
"""Pixels as large as what Pillow makes of a byte of a header, such as a GIF's comments, at most."""


@dataclass(frozen=True)
class Found:
    """An image's width and height as it is shown, its faces' boxes, and those cut out, (N, S, S, 3) uint8."""

    width: int
    height: int
    boxes: list[Box]
    faces: np.ndarray
    remark: str
    """What its decoding concluded, "" for nothing."""


class Finder:
    """Finds the faces of images, several at a time.

    Args:
        wanted: how a face is cut out.
        largest: pixels of an image, and of all images that are decoded at a time: memory is bounded by it, whatever
            the number of threads.
    """

    def __init__(self, wanted: FaceFormat, *, largest: int, threads: int) -> None:
        self._wanted, self._largest = wanted, largest
        self._pixels = _Pixels(largest)
        self._detect = open_detector("cascade")
        self._threads = ThreadPoolExecutor(threads, "faces")

    async def __call__(self, content: bytearray, *, aligned: bool) -> Found:
        """Find the faces; an image whose caller is cancelled before its turn has come is not looked at.

        Args:
            aligned: the image is a face already.

        Raises:
            UnreadableImage: it is corrupt, truncated, or larger than may be; its text says which.
        """
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._find, content, aligned)

    def close(self) -> None:
        """Drop what has not begun."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _find(self, content: bytearray, aligned: bool) -> Found:
        with self._pixels.take(min(self._largest, _HEADER * len(content))):
            header = read_header(BytesIO(content), self._largest)
        with header as image, self._pixels.take(math.prod(largest_part(image))):
            decoded = open_image(image)
            pixels = np.asarray(decoded.convert("RGB"))
            height, width = pixels.shape[:2]
            try:
                boxes = whole_image(pixels) if aligned else self._detect(pixels)
                faces = [self._wanted.cut_out(pixels, box) for box in boxes]
            except cv2.error as error:
                raise UnreadableImage(f"OpenCV could not search it ({error.err})") from error
        size = self._wanted.side
        stacked = np.stack(faces) if faces else np.empty((0, size, size, 3), np.uint8)
        return Found(width, height, boxes, stacked, remark_of(decoded))


class _Pixels:
    """Lets threads decode as long as their images have no more pixels together than this, in the order they ask.

    Else a large image would wait as long as small ones come, and its thread with it.
    """

    def __init__(self, most: int) -> None:
        self._free = most
        self._line = deque[object]()
        self._changed = threading.Condition()

    @contextmanager
    def take(self, count: int) -> Iterator[None]:
        place = object()
        with self._changed:
            self._line.append(place)
            self._changed.wait_for(lambda: self._line[0] is place and count <= self._free)
            self._line.popleft()
            self._free -= count
            self._changed.notify_all()
        try:
            yield
        finally:
            with self._changed:
                self._free += count
                self._changed.notify_all()
