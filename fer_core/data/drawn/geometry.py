"""Draw one cartoon face whose brows, lids, nose, lips and jaw follow action-unit intensities.

Points are in face units: the nose's root is near (0, -0.2), x grows to the viewer's right, y grows downwards,
the resting chin is at y = 1 and the temples are near x = ±0.75. A ``View`` turns such points into pixels.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageChops, ImageDraw, ImageFilter

from openface.columns import INTENSITIES

Colour = tuple[int, int, int]
Points = NDArray[np.float64]
Pulls = dict[str, float]

SUPERSAMPLING = 3
LARGEST_INTENSITY = 5.0
SIDES = (-1.0, 1.0)

HAIR_STYLES = ("bald", "short", "parted", "fringe", "long")

WHITE: Colour = (246, 244, 240)
TEETH: Colour = (250, 247, 236)
THROAT: Colour = (66, 18, 22)
TONGUE: Colour = (188, 84, 88)


@dataclass(frozen=True)
class Identity:
    """What stays the same over all pictures of one person; lengths are factors or offsets in face units."""

    skin: Colour
    hair: Colour
    iris: Colour
    shirt: Colour
    hair_style: str
    face_width: float
    jaw_width: float
    eye_spacing: float
    eye_size: float
    brow_thickness: float
    brow_height: float
    brow_slant: float
    nose_width: float
    nose_length: float
    mouth_width: float
    mouth_curve: float
    lip_fullness: float
    beard: float
    glasses: bool
    resting_units: NDArray[np.float64]
    """(17,) intensities that this person's unmoved face shows, in ``INTENSITIES``' order."""

    @property
    def temple(self) -> float:
        """Half the face's width at the eyes, in face units."""
        return 0.74 * self.face_width

    @property
    def jaw(self) -> float:
        """Half the face's width at the jaw's angles, in face units."""
        return 0.64 * self.jaw_width


@dataclass(frozen=True)
class View:
    """How the head sits before the camera; angles in radians, shifts in parts of the picture's side."""

    roll: float = 0.0
    yaw: float = 0.0
    pitch: float = 0.0
    shift_x: float = 0.0
    shift_y: float = 0.0
    scale: float = 1.0

    def project(self, points: Points, side: int) -> Points:
        """Pixels, (n, 2), of face points (n, 2) in a square picture of ``side`` pixels."""
        x, y = points[:, 0], points[:, 1]
        nose_tip = np.exp(-((x / 0.16) ** 2) - ((y - 0.12) / 0.2) ** 2)
        depth = 0.55 * np.sqrt(np.clip(1 - x**2 - 0.3 * y**2, 0, None)) + 0.22 * nose_tip - 0.3
        x, y = (
            x * math.cos(self.yaw) + depth * math.sin(self.yaw),
            y * math.cos(self.pitch) + depth * math.sin(self.pitch),
        )
        turned_x = x * math.cos(self.roll) - y * math.sin(self.roll)
        turned_y = x * math.sin(self.roll) + y * math.cos(self.roll)
        across = 0.5 + self.shift_x + 0.46 * self.scale * turned_x
        down = 0.47 + self.shift_y + 0.46 * self.scale * turned_y
        return np.column_stack((across, down)) * side


class Sketch:
    """A picture that takes polygons and tapered strokes in face units."""

    def __init__(self, mode: str, side: int, view: View, paper: Colour | int) -> None:
        self.image = Image.new(mode, (side, side), paper)
        self._pen = ImageDraw.Draw(self.image)
        self._side = side
        self._view = view

    def area(self, outline: Points, colour: Colour | int) -> None:
        self._pen.polygon(self._view.project(outline, self._side).ravel().tolist(), fill=colour)

    def stroke(self, path: Points, colour: Colour | int, start: float, middle: float, end: float) -> None:
        """A band along ``path`` (n, 2), as wide, in face units, as ``start``, ``middle`` and ``end`` say."""
        # Pillow colours every pixel an outline touches, so that a band without width would still be seen.
        if middle < 0.004:
            return
        along = np.gradient(path, axis=0)
        normal = np.column_stack((-along[:, 1], along[:, 0])) / (np.hypot(along[:, 0], along[:, 1])[:, None] + 1e-9)
        reach = np.interp(np.linspace(0, 2, len(path)), [0, 1, 2], [start, middle, end])[:, None] / 2
        self.area(np.vstack((path + normal * reach, (path - normal * reach)[::-1])), colour)


def draw_face(
    action_units: NDArray[np.floating], identity: Identity, size: int, view: View | None = None
) -> Image.Image:
    """The evenly lit, noiseless RGB picture, ``size`` x ``size`` pixels, of ``identity`` moving its face.

    ``action_units`` is (17,), 0..5, in ``INTENSITIES``' order; ``view`` defaults to the frontal one.
    """
    view = view or View()
    pulls = {name[:4]: float(unit) / LARGEST_INTENSITY for name, unit in zip(INTENSITIES, action_units, strict=True)}
    picture = Sketch("RGB", size * SUPERSAMPLING, view, _mix(identity.shirt, (190, 195, 200), 0.75))
    _draw_head(picture, identity, pulls)
    _draw_nose(picture, identity, pulls)
    _draw_mouth(picture, identity, pulls)
    for side in SIDES:
        _draw_eye(picture, identity, pulls, side)
        _draw_brow(picture, identity, pulls, side)
    if identity.glasses:
        _draw_glasses(picture, identity)
    shade = Sketch("L", size, view, 255)
    _draw_shadows(shade, identity, pulls)
    soft = shade.image.filter(ImageFilter.GaussianBlur(size * 0.022))
    return ImageChops.multiply(picture.image.reduce(SUPERSAMPLING), Image.merge("RGB", (soft, soft, soft)))


def _mix(first: Colour, second: Colour, share: float) -> Colour:
    red, green, blue = (round(a + (b - a) * share) for a, b in zip(first, second, strict=True))
    return red, green, blue


def _crease(identity: Identity, strength: float) -> Colour:
    """The skin where it folds; ``strength`` is in 0..1."""
    red, green, blue = identity.skin
    folded = (round(red * 0.42), round(green * 0.34), round(blue * 0.32))
    return _mix(identity.skin, folded, min(strength, 1.0))


def _bezier(control: Sequence[tuple[float, float]] | Points, count: int = 14) -> Points:
    """(count, 2) points of the Bézier curve over ``control``, by de Casteljau's halving."""
    share = (np.arange(count) / (count - 1))[:, None, None]
    layers = np.asarray(control)[None]
    while layers.shape[1] > 1:
        layers = (1 - share) * layers[:, :-1] + share * layers[:, 1:]
    return np.asarray(layers[:, 0])


def _through(start: tuple[float, float], middle: tuple[float, float], end: tuple[float, float]) -> Points:
    """The parabola from ``start`` over ``middle`` to ``end``."""
    bend = (2 * middle[0] - (start[0] + end[0]) / 2, 2 * middle[1] - (start[1] + end[1]) / 2)
    return _bezier((start, bend, end))


def _ellipse(x: float, y: float, half_width: float, half_height: float) -> Points:
    turn = np.arange(20) * (np.pi / 10)
    return np.column_stack((x + half_width * np.cos(turn), y + half_height * np.sin(turn)))


def _mirrored(right: Points) -> Points:
    """The closed outline of a right half that runs from top to bottom, and its mirror image."""
    return np.vstack((right, (right * (-1, 1))[::-1]))


def _chin(pulls: Pulls) -> float:
    return 1.0 + 0.13 * pulls["AU26"] - 0.02 * pulls["AU17"]


def _face_outline(identity: Identity, pulls: Pulls) -> Points:
    width, jaw, chin = identity.temple, identity.jaw, _chin(pulls)
    skull = _bezier(((0, -1.05), (0.62 * width, -1.07), (1.08 * width, -0.7), (width, -0.1)))
    cheek = _bezier(((width, -0.1), (0.98 * width, 0.35), (1.05 * jaw, 0.55), (0.86 * jaw, chin - 0.28)))
    jaw_line = _bezier(((0.86 * jaw, chin - 0.28), (0.6 * jaw, chin - 0.04), (0.35 * jaw, chin), (0, chin)))
    return _mirrored(np.vstack((skull, cheek, jaw_line)))


def _draw_head(picture: Sketch, identity: Identity, pulls: Pulls) -> None:
    width, shaded = identity.temple, _crease(identity, 0.3)
    if identity.hair_style == "long":
        back = _bezier(((0, -1.2), (1.3, -1.25), (1.45, -0.3), (1.25, 0.5), (1.3, 1.3))) * (width, 1)
        picture.area(_mirrored(back), _mix(identity.hair, (0, 0, 0), 0.25))
    picture.area(np.array([(-1.1, 1.5), (-0.5, 1.05), (0.5, 1.05), (1.1, 1.5)]), identity.shirt)
    neck = np.array([(-0.36, 0.5), (0.36, 0.5), (0.42, 1.12), (0, 1.3), (-0.42, 1.12)])
    picture.area(neck, _crease(identity, 0.42))
    for side in SIDES:
        picture.area(_ellipse(side * width * 1.01, -0.05, 0.09, 0.17), shaded)
    picture.area(_face_outline(identity, pulls), identity.skin)
    if identity.beard:
        _draw_beard(picture, identity, pulls)
    _draw_wrinkles(picture, identity, pulls)
    if identity.hair_style != "bald":
        _draw_hair(picture, identity)


def _draw_beard(picture: Sketch, identity: Identity, pulls: Pulls) -> None:
    width, jaw, chin = identity.temple, identity.jaw, _chin(pulls)
    below = chin + 0.02
    side, angle = (0.97 * width, 0.05), (0.9 * jaw, below - 0.07)
    outer = _bezier((side, (1.08 * jaw, 0.55), angle, (0.4 * jaw, below), (0, below)))
    inner = _bezier(((0, 0.3), (0.5 * jaw, 0.3), (0.8 * width, 0.5), side))
    picture.area(_mirrored(np.vstack((inner, outer))), _mix(identity.skin, identity.hair, identity.beard))


def _draw_hair(picture: Sketch, identity: Identity) -> None:
    width = identity.temple
    crown = _bezier(((-1.08, -0.15), (-1.3, -1.35), (1.3, -1.35), (1.08, -0.15)), 24) * (width, 1)
    hairlines: dict[str, Sequence[tuple[float, float]]] = {
        "short": ((0.98, -0.3), (0.95, -0.95), (0.5, -1.0), (-0.5, -1.0), (-0.95, -0.95), (-0.98, -0.3)),
        "parted": ((1.0, -0.1), (0.98, -0.9), (0.2, -0.8), (-0.3, -1.3), (-0.95, -0.9), (-1.0, -0.1)),
        "fringe": ((1.0, 0.2), (1.0, -0.8), (0.8, -0.88), (-0.8, -0.88), (-1.0, -0.8), (-1.0, 0.2)),
        "long": ((1.0, 0.4), (1.0, -0.8), (0.1, -0.8), (0.0, -1.5), (-0.95, -0.8), (-1.0, 0.4)),
    }
    hairline = _bezier(hairlines[identity.hair_style], 24) * (width, 1)
    picture.area(np.vstack((crown, hairline)), identity.hair)


def _draw_wrinkles(picture: Sketch, identity: Identity, pulls: Pulls) -> None:
    raised = pulls["AU01"] * (0.4 + 0.6 * pulls["AU02"])
    for row, height in enumerate((-0.68, -0.76)):
        half = 0.2 + 0.22 * pulls["AU02"] - 0.04 * row
        forehead = _through((-half, height + 0.03), (0, height), (half, height + 0.03))
        picture.stroke(forehead, _crease(identity, raised), 0, 0.028 * min(1, 2 * raised), 0)
    for side in SIDES:
        frown = max(pulls["AU04"], 0.6 * pulls["AU09"])
        glabella = _through((side * 0.05, -0.52), (side * 0.035, -0.43), (side * 0.06, -0.33))
        picture.stroke(glabella, _crease(identity, 1.1 * frown), 0, 0.04 * frown, 0)
        _draw_cheek(picture, identity, pulls, side)


def _draw_cheek(picture: Sketch, identity: Identity, pulls: Pulls, side: float) -> None:
    fold = min(1.0, 0.75 * pulls["AU12"] + 0.8 * pulls["AU10"] + 0.5 * pulls["AU09"] + 0.15 * pulls["AU20"])
    corner = 0.3 + 0.12 * pulls["AU12"] + 0.05 * pulls["AU10"]
    nasolabial = _through((side * 0.2, 0.08), (side * (corner + 0.03), 0.22), (side * (corner + 0.08), 0.45))
    picture.stroke(nasolabial, _crease(identity, 0.1 + 0.6 * fold), 0.01, 0.036 * fold, 0)
    raised = pulls["AU06"]
    pouch = _through((side * 0.2, 0.0), (side * 0.38, 0.06 - 0.05 * raised), (side * 0.56, -0.04))
    picture.stroke(pouch, _crease(identity, 0.75 * raised), 0, 0.035 * raised, 0)
    for end in (-0.25, -0.17, -0.09):
        foot = _through((side * 0.56, 0.5 * end - 0.08), (side * 0.61, 0.75 * end - 0.04), (side * 0.67, end))
        picture.stroke(foot, _crease(identity, 0.8 * raised), 0.025 * raised, 0.015 * raised, 0)


def _draw_nose(picture: Sketch, identity: Identity, pulls: Pulls) -> None:
    wrinkled = pulls["AU09"]
    half = 0.145 * identity.nose_width * (1 + 0.16 * wrinkled + 0.08 * pulls["AU12"])
    base = 0.2 * identity.nose_length - 0.05 * wrinkled - 0.015 * pulls["AU10"]
    for side in SIDES:
        wing_control = np.array([(0.8, -0.13), (1.25, -0.04), (1.0, 0.05), (0.6, 0.02)]) * (side * half, 1)
        wing = _bezier(wing_control + np.array((0.0, base)))
        picture.stroke(wing, _crease(identity, 0.6 + 0.4 * wrinkled), 0.01, 0.028 + 0.008 * wrinkled, 0.01)
        nostril = _ellipse(side * 0.5 * half, base + 0.02, 0.042, 0.022 + 0.012 * wrinkled)
        picture.area(nostril, _crease(identity, 1.0))
        ridge = _through((side * 0.05, -0.27), (side * 0.085, -0.1), (side * 0.09, 0.06))
        picture.stroke(ridge, _crease(identity, 0.25), 0, 0.03, 0)
        for row in range(3):
            top = -0.2 + 0.085 * row
            scrunch = _through((0.0, top - 0.01), (side * 0.07, top - 0.035), (side * 0.15, top + 0.04))
            picture.stroke(scrunch, _crease(identity, wrinkled), 0.012 * wrinkled, 0.034 * wrinkled, 0)


@dataclass(frozen=True)
class _Mouth:
    """The four lip edges, each (n, 2) from the left corner to the right one, top to bottom."""

    upper_rim: Points
    upper_edge: Points
    lower_edge: Points
    lower_rim: Points
    corner: tuple[float, float]
    opening: float


def _shape_mouth(identity: Identity, pulls: Pulls) -> _Mouth:
    smile, drop, stretch = pulls["AU12"], pulls["AU26"], pulls["AU20"]
    raise_, chin, tight = pulls["AU10"], pulls["AU17"], pulls["AU23"]
    opening = 0.1 * pulls["AU25"] * (1 + 0.8 * smile) + 0.34 * drop * np.sqrt(pulls["AU25"]) + 0.06 * raise_
    widened = 1 + 0.42 * smile + 0.42 * stretch - 0.22 * tight - 0.3 * drop * (1 - smile)
    half = 0.3 * identity.mouth_width * widened
    full = 0.07 * identity.lip_fullness * (1 - 0.65 * tight - 0.25 * smile - 0.3 * stretch)
    top = 0.5 - 0.09 * raise_ - 0.05 * chin - 0.12 * opening
    bottom = top + opening
    pulled = 0.17 * (pulls["AU15"] - smile) + 0.05 * stretch
    corner = 0.49 - identity.mouth_curve + pulled + 0.35 * opening

    def edge(middle: float, wing: float, widen: float = 0.0) -> Points:
        reach = half + widen
        left, right = (-reach, corner), (reach, corner)
        return _bezier((left, (-0.5 * reach, wing), (0, middle), (0.5 * reach, wing), right), 20)

    sag = 0.04 * smile
    return _Mouth(
        upper_rim=edge(top - 0.6 * full + sag, top - 1.7 * full + sag, 0.02),
        upper_edge=edge(top + sag, top + sag),
        lower_edge=edge(bottom + sag, bottom + sag),
        lower_rim=edge(bottom + 1.9 * full + sag, bottom + 1.1 * full + sag, 0.02),
        corner=(half, corner),
        opening=float(opening),
    )


def _draw_mouth(picture: Sketch, identity: Identity, pulls: Pulls) -> None:
    mouth = _shape_mouth(identity, pulls)
    lips = _mix(_mix(identity.skin, (176, 60, 66), 0.55), (60, 20, 24), 0.08)
    picture.area(np.vstack((mouth.upper_rim, mouth.lower_rim[::-1])), lips)
    picture.area(np.vstack((mouth.upper_rim, mouth.upper_edge[::-1])), _mix(lips, THROAT, 0.2))
    line = 0.5 * (mouth.upper_edge + mouth.lower_edge)
    if mouth.opening > 0.02:
        _draw_mouth_inside(picture, mouth, pulls)
    else:
        picture.stroke(line, _mix(lips, THROAT, 0.8), 0.025, 0.036, 0.025)
    _draw_mouth_surroundings(picture, identity, pulls, mouth)


def _draw_mouth_inside(picture: Sketch, mouth: _Mouth, pulls: Pulls) -> None:
    picture.area(np.vstack((mouth.upper_edge, mouth.lower_edge[::-1])), THROAT)
    room = mouth.lower_edge - mouth.upper_edge
    bared = 0.25 + 0.6 * pulls["AU12"] + 0.5 * pulls["AU10"] + 0.6 * pulls["AU20"]
    teeth = mouth.upper_edge + np.minimum(room * min(0.85, bared), (10.0, 0.1))
    picture.area(np.vstack((mouth.upper_edge, teeth[::-1])), TEETH)
    if mouth.opening > 0.12:
        tongue = mouth.lower_edge - np.minimum(room * 0.35, (10.0, 0.08))
        picture.area(np.vstack((tongue[5:-5], mouth.lower_edge[5:-5][::-1])), TONGUE)


def _draw_mouth_surroundings(picture: Sketch, identity: Identity, pulls: Pulls, mouth: _Mouth) -> None:
    half, corner = mouth.corner
    for side in SIDES:
        pinch = max(pulls["AU14"], 0.4 * pulls["AU12"])
        dimple = _through(
            (side * (half + 0.05), corner - 0.07),
            (side * (half + 0.09), corner),
            (side * (half + 0.05), corner + 0.07),
        )
        picture.stroke(dimple, _crease(identity, 0.9 * pinch), 0, 0.045 * pinch, 0)
        sunk = pulls["AU15"]
        marionette = _through(
            (side * (half + 0.01), corner),
            (side * (half + 0.05), corner + 0.07),
            (side * (half + 0.04), corner + 0.16),
        )
        picture.stroke(marionette, _crease(identity, 0.8 * sunk), 0.03 * sunk, 0.035 * sunk, 0)
    pushed, low = pulls["AU17"], _chin(pulls) - 0.13
    boss = _through((-0.14, low + 0.02), (0, low - 0.07), (0.14, low + 0.02))
    picture.stroke(boss, _crease(identity, 0.8 * pushed), 0, 0.045 * pushed, 0)
    for x, y in ((-0.07, 0.0), (0.0, -0.01), (0.07, 0.0), (-0.035, 0.05), (0.035, 0.05)):
        picture.area(_ellipse(x, low + y, 0.016 * pushed, 0.016 * pushed), _crease(identity, 0.7 * pushed))


def _draw_eye(picture: Sketch, identity: Identity, pulls: Pulls, side: float) -> None:
    x, y, half = 0.36 * identity.eye_spacing, -0.19, 0.21 * identity.eye_size
    awake = 1 - 0.97 * pulls["AU45"]
    rise = 0.1 + 0.1 * pulls["AU05"] - 0.03 * pulls["AU07"] - 0.02 * pulls["AU06"] - 0.025 * pulls["AU09"]
    sink = 0.08 + 0.015 * pulls["AU05"] - 0.045 * pulls["AU07"] - 0.05 * pulls["AU06"] - 0.03 * pulls["AU09"]
    glare = 0.09 * pulls["AU04"] * (1 - pulls["AU01"]) - 0.09 * pulls["AU01"] * (1 - pulls["AU02"])
    inner, outer = (side * (x - half), y + 0.02), (side * (x + half), y)
    up, down = (
        y + 0.04 - 1.5 * rise * awake * identity.eye_size,
        y + 0.04 + 1.4 * max(sink, 0.012) * awake * identity.eye_size,
    )
    upper = _bezier((inner, (side * (x - 0.6 * half), up + glare), (side * (x + 0.6 * half), up - glare), outer))
    lower = _bezier((inner, (side * (x - 0.5 * half), down), (side * (x + 0.5 * half), down), outer))
    picture.area(np.vstack((upper, lower[::-1])), WHITE)
    _draw_iris(picture, identity, side, upper, lower)
    picture.stroke(lower, _crease(identity, 0.55), 0.015, 0.022, 0.015)
    picture.stroke(upper, _mix(identity.hair, (20, 14, 14), 0.7), 0.02, 0.042, 0.035)
    crease = upper - np.array((0.0, 0.06 - 0.025 * pulls["AU05"]))
    picture.stroke(crease, _crease(identity, 0.45), 0, 0.02, 0.01)
    bag = _through((side * (x - 0.8 * half), y + 0.1), (side * x, y + 0.15), (side * (x + 0.7 * half), y + 0.1))
    picture.stroke(bag, _crease(identity, 0.2 + 0.4 * pulls["AU07"]), 0, 0.02, 0)


def _draw_iris(picture: Sketch, identity: Identity, side: float, upper: Points, lower: Points) -> None:
    """The iris and pupil, cut off where the lids cover them."""
    order = np.argsort(upper[:, 0])
    upper, lower = upper[order], lower[np.argsort(lower[:, 0])]
    for radius, colour in ((0.1, identity.iris), (0.052, (12, 10, 10))):
        disc = _ellipse(side * 0.355 * identity.eye_spacing, -0.19, radius, radius)
        roof, floor = np.interp(disc[:, 0], *upper.T), np.interp(disc[:, 0], *lower.T)
        disc[:, 1] = np.clip(disc[:, 1], np.minimum(roof, floor), floor)
        picture.area(disc, colour)


def _draw_brow(picture: Sketch, identity: Identity, pulls: Pulls, side: float) -> None:
    inner_raise, outer_raise = pulls["AU01"], pulls["AU02"]
    # The inner brow raiser wins against the lowerer at the brow's head: that makes a sad brow oblique.
    lower = (pulls["AU04"] + 0.5 * pulls["AU09"]) * (1 - 0.75 * inner_raise)
    droop = inner_raise * (1 - outer_raise)
    base = -0.43 - identity.brow_height
    inner = (
        side * (0.15 - 0.06 * pulls["AU04"]),
        base - 0.02 + identity.brow_slant - 0.24 * inner_raise + 0.2 * lower,
    )
    arch = (side * 0.38, base - 0.06 - 0.08 * inner_raise - 0.15 * outer_raise + 0.09 * lower + 0.03 * droop)
    outer = (side * 0.61, base - identity.brow_slant + 0.16 * droop - 0.12 * outer_raise - 0.01 * lower)
    thick = 0.07 * identity.brow_thickness
    colour = _mix(identity.hair, (40, 28, 22), 0.4)
    picture.stroke(_through(inner, arch, outer), colour, 1.1 * thick, thick, 0.3 * thick)


def _draw_glasses(picture: Sketch, identity: Identity) -> None:
    for side in SIDES:
        turn = np.append(np.arange(20), 0)
        rim = _ellipse(side * 0.36 * identity.eye_spacing, -0.15, 0.27, 0.22)[turn]
        picture.stroke(rim, (40, 36, 40), 0.022, 0.022, 0.022)
    picture.stroke(_through((-0.1, -0.18), (0, -0.2), (0.1, -0.18)), (40, 36, 40), 0.022, 0.022, 0.022)


def _draw_shadows(shade: Sketch, identity: Identity, pulls: Pulls) -> None:
    """Soft shading, 255 where none falls; blurred by the caller."""
    outline = _face_outline(identity, pulls)
    shade.area(outline, 200)
    shade.area(outline * (0.88, 0.94), 255)
    for side in SIDES:
        shade.area(_ellipse(side * 0.2, -0.25, 0.08, 0.1), 215)
        shade.area(_ellipse(side * 0.16 * identity.nose_width, 0.12, 0.05, 0.09), 218)
        bulge = pulls["AU06"] + 0.5 * pulls["AU12"]
        hollow = _through((side * 0.3, 0.3), (side * 0.48, 0.22), (side * 0.6, 0.05))
        shade.stroke(hollow, round(255 - 40 * min(bulge, 1)), 0.05, 0.09, 0.02)
    shade.area(_ellipse(0, 0.27, 0.1, 0.035), 205)
    shade.area(_ellipse(0, _chin(pulls) - 0.21 + 0.06 * pulls["AU26"], 0.15, 0.035), 215)
