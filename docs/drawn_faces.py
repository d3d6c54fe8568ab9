"""Draw docs/drawn_faces.webp: what each of the seven emotions looks like on a few drawn people."""

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from fer_core.data.drawn.faces import EMOTIONS, action_units_of, draw_identity
from fer_core.data.drawn.geometry import draw_face

_SIDE = 96
_PEOPLE = 9
_MARGIN = 84


def main() -> None:
    """A row for each emotion, a column for each person."""
    people = [draw_identity(np.random.default_rng([11, number])) for number in range(_PEOPLE)]
    sheet = Image.new("RGB", (_MARGIN + _SIDE * _PEOPLE, _SIDE * len(EMOTIONS)), "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=14)
    for row, emotion in enumerate(EMOTIONS):
        pen.text((6, row * _SIDE + _SIDE // 2), emotion, fill="black", font=font, anchor="lm")
        units = action_units_of(np.eye(len(EMOTIONS))[row], np.zeros(17, bool))
        for column, person in enumerate(people):
            sheet.paste(draw_face(units, person, _SIDE), (_MARGIN + column * _SIDE, row * _SIDE))
    sheet.quantize(128).convert("RGB").save(Path(__file__).with_name("drawn_faces.webp"), lossless=True, method=6)


if __name__ == "__main__":
    main()
