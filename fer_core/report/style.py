"""Pictures that stand inside a page: matplotlib figures as SVG, faces as JPEG, both as data URIs.

The SVG's text and lines take their colour from the reader's light or dark setting.
"""

import base64
import re
from collections.abc import Iterator
from colorsys import hls_to_rgb
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO, StringIO
from itertools import chain, count
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.typing import RcKeyType
from PIL import Image

INK, FAINT = "#010203", "#040506"
"""Stand-ins for the colours of text and of axes; see `_colours`."""

MODEL_COLOURS = {
    "EF + LDG-AUs": "#AA3377",
    "EF + LDG": "#4477AA",
    "EF SLL": "#228833",
    "LDG-AUs": "#EE6677",
    "LDG": "#44AACC",
}
"""Paul Tol's bright scheme; reds saw action units, blues did not, green saw hard labels alone."""

_EMOTION_COLOURS = {
    "neutral": "#8C8C8C",
    "happiness": "#E69F00",
    "surprise": "#56B4E9",
    "sadness": "#0072B2",
    "anger": "#D55E00",
    "disgust": "#009E73",
    "fear": "#CC79A7",
    "contempt": "#F0E442",
}
"""Okabe and Ito's scheme, told apart with any colour vision."""
_GOLDEN = 0.618034
"""Of the circle of hues: steps as long as this never meet again."""

_STYLE: dict[RcKeyType, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "fer",
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "text.parse_math": False,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "axes.titlesize": 9.5,
    "axes.titleweight": "bold",
    "axes.labelsize": 9,
    "axes.edgecolor": FAINT,
    "axes.facecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid.axis": "y",
    "grid.color": FAINT,
    "grid.alpha": 0.25,
    "grid.linewidth": 0.6,
    "figure.facecolor": "none",
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "lines.linewidth": 1.6,
}
_COLOURS_OF_THE_READER = (
    "<style>:root{--ink:#1d2330;--faint:#8a93a3}"
    "@media (prefers-color-scheme:dark){:root{--ink:#e4e8ef;--faint:#7d8796}}</style>"
)
_LARGEST_FACE = 160
_QUALITY = 88


@dataclass(frozen=True)
class Picture:
    """A figure of the page: a data URI, what it says to those who do not see it, and its width in pixels."""

    uri: str
    alt: str
    width: int


@contextmanager
def house_style() -> Iterator[None]:
    """The project's look for all figures drawn inside."""
    with mpl.rc_context(_STYLE):
        yield


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of `width` by `height` inches, 96 pixels each, that arranges its axes itself."""
    return Figure(figsize=(width, height), dpi=96, layout="constrained")


def picture(figure: Figure, alt: str) -> Picture:
    """The figure as an SVG, which is the same for the same figure."""
    text = StringIO()
    figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
    svg = _colours(text.getvalue())
    return Picture(_data_uri("image/svg+xml", svg.encode()), alt, round(figure.get_figwidth() * 96))


def face_uri(pixels: np.ndarray) -> str:
    """A face as a JPEG.

    Args:
        pixels: (S, S, C) uint8, C = 1 or 3.
    """
    image = Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
    image.thumbnail((_LARGEST_FACE, _LARGEST_FACE))
    buffer = BytesIO()
    image.save(buffer, "JPEG", quality=_QUALITY)
    return _data_uri("image/jpeg", buffer.getvalue())


def emotion_colours(labels: tuple[str, ...]) -> dict[str, str]:
    """A colour for each class: its own where it is a known emotion, otherwise one of those left over, then others."""
    spare = chain((c for name, c in _EMOTION_COLOURS.items() if name not in labels), map(_further_colour, count()))
    return {label: _EMOTION_COLOURS.get(label) or next(spare) for label in labels}


def _further_colour(place: int) -> str:
    """Dark, light and middling in turn, each time of another hue."""
    return to_hex(hls_to_rgb(_GOLDEN * place % 1, (0.3, 0.75, 0.5)[place % 3], 0.55))


def _colours(svg: str) -> str:
    """Let the reader's light or dark setting, and the reader's own fonts, into the SVG."""
    for stand_in, variable in ((INK, "--ink"), (FAINT, "--faint")):
        svg = svg.replace(stand_in, f"var({variable})")
    svg = re.sub(r"'DejaVu Sans'", "system-ui, 'Segoe UI', 'DejaVu Sans', sans-serif", svg)
    return svg.replace("<defs>", f"{_COLOURS_OF_THE_READER}<defs>", 1)


def _data_uri(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
