"""Draw predictions into pictures and videos: a square around each face, its distribution as bars beside it."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

import cv2
import matplotlib as mpl
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from fer_core.artifacts import replace_file
from fer_core.data.crops import Box
from fer_core.paths import require_utf8
from fer_core.predict.predictor import FacePrediction
from fer_core.predict.sources import Frame
from fer_core.report.style import emotion_colours
from openface.names import spell

Draw = Callable[[Frame, list[FacePrediction]], None]
Area = tuple[int, int, int, int]
"""Left, top, right and bottom in pixels."""
_SMALLEST_SIDE = 480
"""Pixels of a picture's shorter side below which it is enlarged, so that text can be read."""
_ENLARGED = 1920
"""Pixels of its longer side up to which it is, or a line of pixels would fill the memory."""
_NARROWEST = 150
"""Pixels across a panel of bars; else it is about as wide as its face."""
_WIDEST_SHARE = 0.45
"""Share of the picture's shorter side."""
_COVERED = 0.1
"""Share of a panel that may lie over faces and other panels; in a crowd a face has its top emotion alone."""
_INK, _PANEL = (255, 255, 255), (18, 22, 30, 200)


def draw_faces(pixels: np.ndarray, faces: list[FacePrediction]) -> np.ndarray:
    """The image, enlarged where it is small, with a square and a panel of bars for each face.

    Args:
        pixels: (H, W, 3) uint8 RGB.

    Returns:
        (H', W', 3) uint8 RGB.
    """
    shorter, longer = sorted(pixels.shape[:2])
    factor = max(1.0, min(_SMALLEST_SIDE / shorter, _ENLARGED / longer))
    height, width = (round(side * factor) for side in pixels.shape[:2])
    image = Image.fromarray(pixels).resize((width, height), Image.Resampling.BICUBIC)
    draw = ImageDraw.Draw(image, "RGBA")
    areas = [_scaled(face.box, factor) for face in faces]
    taken = list(areas)
    for face, area in zip(faces, areas, strict=True):
        colour = emotion_colours(tuple(face.probabilities))[face.emotion]
        draw.rectangle(area, outline=colour, width=max(2, min(width, height) // 200))
        panel = _place(area, len(face.probabilities), width, height, taken)
        if sum(_shared(panel, other) for other in taken) > _COVERED * _shared(panel, panel):
            _caption(draw, area, face)
            continue
        taken.append(panel)
        _bars(draw, panel, face)
    return np.asarray(image)


@contextmanager
def drawn_into(folder: Path, source: str, rate: float, *, moving: bool) -> Iterator[Draw]:
    """Draw a source's frames into `folder`: a PNG of an image, an MP4 of a video.

    Args:
        rate: frames a second of the video.

    Raises:
        InputError: the folder's name is no UTF-8, which OpenCV cannot write to.
    """
    require_utf8(str(folder))
    folder.mkdir(parents=True, exist_ok=True)
    if not moving:
        yield lambda frame, faces: _save_picture(folder, frame, faces)
        return
    path = _free(folder, Path(source).stem or source, ".mp4")
    # OpenCV tells the format by the ending, and is given UTF-8 alone; see `fer_core.predict.sources`.
    beside = path.with_name(f"{spell(path.stem)}.unfinished.mp4")
    writers: list[cv2.VideoWriter] = []

    def draw(frame: Frame, faces: list[FacePrediction]) -> None:
        if frame.pixels is None:
            return
        drawn = draw_faces(frame.pixels, faces)
        if not writers:
            size = (drawn.shape[1], drawn.shape[0])
            writers.append(
                cv2.VideoWriter(os.path.join(os.curdir, beside), cv2.VideoWriter.fourcc(*"mp4v"), rate, size)
            )
        writers[0].write(cv2.cvtColor(drawn, cv2.COLOR_RGB2BGR))

    try:
        yield draw
    finally:
        for writer in writers:
            writer.release()
            beside.replace(path)


def _save_picture(folder: Path, frame: Frame, faces: list[FacePrediction]) -> None:
    if frame.pixels is None:
        return
    content = BytesIO()
    Image.fromarray(draw_faces(frame.pixels, faces)).save(content, "PNG")
    replace_file(_free(folder, Path(frame.source).stem, ".png"), content.getvalue())


def _free(folder: Path, stem: str, ending: str) -> Path:
    """A name that no picture of this folder has yet: two sources may share one."""
    path, number = folder / f"{stem}{ending}", 2
    while path.exists():
        path, number = folder / f"{stem}-{number}{ending}", number + 1
    return path


def _scaled(box: Box, factor: float) -> Area:
    left, top, side = (round(factor * value) for value in (box.left, box.top, box.side))
    return left, top, left + side, top + side


def _place(face: Area, lines: int, width: int, height: int, taken: list[Area]) -> Area:
    """The place where a panel covers least of the faces and of other panels: beside the face, below it or above it."""
    left, top, right, bottom = face
    shorter = min(width, height)
    across = round(min(max(0.9 * (right - left), _NARROWEST), _WIDEST_SHARE * shorter))
    down = min(round(0.105 * across * (lines + 0.8)), height)
    gap = shorter // 80
    middle = (left + right - across) // 2
    wishes = [(right + gap, top), (left - across - gap, top), (middle, bottom + gap), (middle, top - down - gap)]
    wishes += [(right + gap, bottom - down), (left - across - gap, bottom - down)]
    corners = [(min(max(x, 0), max(width - across, 0)), min(max(y, 0), max(height - down, 0))) for x, y in wishes]
    panels = [(x, y, x + across, y + down) for x, y in corners]
    return min(panels, key=lambda panel: sum(_shared(panel, other) for other in taken))


def _shared(first: Area, second: Area) -> int:
    """Pixels that two areas have in common."""
    across = min(first[2], second[2]) - max(first[0], second[0])
    down = min(first[3], second[3]) - max(first[1], second[1])
    return max(across, 0) * max(down, 0)


def _bars(draw: ImageDraw.ImageDraw, panel: Area, face: FacePrediction) -> None:
    left, top, right, bottom = panel
    line = (bottom - top) / (len(face.probabilities) + 0.8)
    font = _font(0.62 * line)
    colours = emotion_colours(tuple(face.probabilities))
    draw.rounded_rectangle(panel, radius=line / 3, fill=_PANEL)
    bars_left, bars_right = left + 0.42 * (right - left), right - 0.24 * (right - left)
    for number, (label, share) in enumerate(face.probabilities.items()):
        y = top + (number + 0.4) * line
        shown = _shortened(label, font, bars_left - left - line / 2)
        draw.text((left + line / 2.5, y + line / 2), shown, _INK, font, anchor="lm")
        end = bars_left + share * (bars_right - bars_left)
        draw.rectangle((bars_left, y + 0.2 * line, max(end, bars_left + 1), y + 0.8 * line), fill=colours[label])
        draw.text((right - line / 2.5, y + line / 2), f"{100 * share:.0f} %", _INK, font, anchor="rm")


def _caption(draw: ImageDraw.ImageDraw, area: Area, face: FacePrediction) -> None:
    left, _, right, bottom = area
    line = max(0.16 * (right - left), 12)
    draw.rectangle((left, bottom - line, right, bottom), fill=_PANEL)
    words = f"{face.emotion} {100 * face.probabilities[face.emotion]:.0f} %"
    font = _font(0.7 * line)
    draw.text(((left + right) / 2, bottom - line / 2), words, _INK, font, anchor="mm")


def _font(size: float) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which matplotlib brings: Pillow's own font has no accent, no Greek and no Cyrillic."""
    return ImageFont.truetype(Path(mpl.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf", max(size, 1))


def _shortened(text: str, font: ImageFont.FreeTypeFont, room: float) -> str:
    """The text, or as much of its beginning and end as has room, in pixels."""
    shown = text
    for kept in range(len(text) - 1, 0, -1):
        if font.getlength(shown) <= room:
            break
        shown = f"{text[: (kept + 1) // 2]}…{text[len(text) - kept // 2 :]}"
    return shown
