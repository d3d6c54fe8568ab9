"""Face detection.

FER2013's faces are boxes of OpenCV's frontal-face cascade, and RAF-DB's aligned ones about as tight; so that cascade,
which ships with OpenCV, is the detector. What is cut out there: `fer_core.data.crops`.
"""

import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path

import cv2
import numpy as np

from fer_core.data.crops import Box
from fer_core.errors import DetectorError
from fer_core.paths import at_home, require_utf8

_CASCADE = "haarcascade_frontalface_alt2.xml"
_STEP = 1.1
"""Between two sizes of face that are looked for."""
_AGREEING = 4
"""Overlapping finds that make a face."""
_SMALLEST_SHARE = 0.08
"""Side of the smallest face looked for, as a share of the image's shorter side."""
_SMALLEST_FACE = 24
_LONGEST_SIDE = 960
"""A larger image is searched at this size; its faces are cut from the original."""
_YUNET_SCORE = 0.7
_YUNET_TO_CASCADE = 0.9
"""YuNet's boxes reach from the hairline to the chin; the cascade's are squares of about their height, less this."""


Detector = Callable[[np.ndarray], list[Box]]
"""From an image, (H, W, 3) uint8 RGB, to its faces, the largest first."""


class _OfEachThread(threading.local):
    """A detector for each thread that asks: one of OpenCV's finds other faces, or fails, where two use it at a time."""

    def __init__(self, opened: Callable[[], Detector]) -> None:
        self._detect = opened()

    def __call__(self, image: np.ndarray) -> list[Box]:
        return self._detect(image)


def open_detector(name: str) -> Detector:
    """The detector called `cascade`, or the one of a YuNet model's .onnx file; for any number of threads.

    Raises:
        DetectorError: it is neither, or OpenCV cannot read the file.
        InputError: its name is no UTF-8.
    """
    if name == "cascade":
        return _OfEachThread(_cascade)
    path = at_home(name)
    if path.suffix != ".onnx" or not path.is_file():
        raise DetectorError(f"--detector {name}: give cascade, or the .onnx file of a YuNet model")
    # OpenCV would end the process.
    require_utf8(name)
    try:
        return _OfEachThread(partial(_yunet, path))
    except cv2.error as error:
        raise DetectorError(f"{path}: OpenCV cannot read it as a YuNet model ({error.err})") from error


def _cascade() -> Detector:
    cascade = cv2.CascadeClassifier(str(Path(cv2.__file__).parent / "data" / _CASCADE))

    def detect(image: np.ndarray) -> list[Box]:
        small, factor = _in_small(image)
        grey = cv2.cvtColor(small, cv2.COLOR_RGB2GRAY)
        smallest = max(_SMALLEST_FACE, int(_SMALLEST_SHARE * min(grey.shape)))
        found = cascade.detectMultiScale(grey, _STEP, _AGREEING, minSize=(smallest, smallest))
        return _largest_first([Box(round(x / factor), round(y / factor), round(w / factor)) for x, y, w, _ in found])

    return detect


def _yunet(path: Path) -> Detector:
    network = cv2.FaceDetectorYN.create(str(path), "", (320, 320), _YUNET_SCORE)

    def detect(image: np.ndarray) -> list[Box]:
        small, factor = _in_small(image)
        network.setInputSize((small.shape[1], small.shape[0]))
        _, found = network.detect(cv2.cvtColor(small, cv2.COLOR_RGB2BGR))
        boxes = []
        for x, y, width, height in () if found is None else found[:, :4] / factor:
            side = round(_YUNET_TO_CASCADE * float(height))
            boxes.append(Box(round(x + width / 2 - side / 2), round(y + height / 2 - side / 2), side))
        return _largest_first(boxes)

    return detect


def _in_small(image: np.ndarray) -> tuple[np.ndarray, float]:
    """The image at most _LONGEST_SIDE long, and by which factor."""
    height, width = image.shape[:2]
    factor = min(1.0, _LONGEST_SIDE / max(height, width))
    if factor == 1:
        return image, factor
    # Of a line or a strip a pixel stays across, in which no face is found.
    across, down = max(factor, 1 / width), max(factor, 1 / height)
    return cv2.resize(image, None, fx=across, fy=down, interpolation=cv2.INTER_AREA), factor


def _largest_first(boxes: list[Box]) -> list[Box]:
    return sorted((box for box in boxes if box.side > 0), key=lambda box: (-box.side, box.top, box.left))
