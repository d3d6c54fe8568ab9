"""Make drawn faces with known emotion distributions, to run everything without a licensed data set.

Each face has a true distribution over the seven emotions. Its action units are the mixture of the emotions'
prototypes under that distribution, its hard label is one draw from it (so labels are noisy as people's are),
and an OpenFace-like measurement of its action units is reported beside the picture.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from fer_core.data.drawn.geometry import (
    HAIR_STYLES,
    LARGEST_INTENSITY,
    Colour,
    Identity,
    View,
    draw_face,
)
from fer_core.processes import process_a_core
from fer_core.progress import Reporter, counted
from openface.columns import INTENSITIES, PRESENCES
from openface.machine import usable_cores

EMOTIONS: tuple[str, ...] = ("neutral", "happiness", "surprise", "sadness", "anger", "disgust", "fear")

PEOPLE = 200
_WORTH_A_PROCESS, _AT_A_TIME = 1000, 250
"""Faces from which processes pay, and those that one draws at a time: many cores start no more processes than parts."""
# Keeps the people's random streams apart from the faces' ones, which are numbered from 0.
_PERSON_STREAM = 1_000_003

_PROPORTIONS = (0.20, 0.21, 0.13, 0.14, 0.12, 0.10, 0.10)

_PROTOTYPES: dict[str, dict[str, float]] = {
    "neutral": {},
    "happiness": {"AU06": 4.0, "AU12": 4.6},
    "surprise": {"AU01": 4.4, "AU02": 4.4, "AU05": 3.8, "AU25": 4.4, "AU26": 4.0},
    "sadness": {"AU01": 4.2, "AU04": 2.8, "AU15": 4.2},
    "anger": {"AU04": 4.7, "AU05": 2.8, "AU07": 3.8, "AU23": 4.2},
    "disgust": {"AU09": 4.5, "AU10": 4.2},
    "fear": {"AU01": 4.2, "AU02": 2.6, "AU04": 3.2, "AU05": 4.6, "AU07": 1.5, "AU20": 4.2, "AU25": 3.4},
}
# EMFACS' variants: a face shows each of these beside the prototype about every second time.
_VARIANTS: dict[str, dict[str, float]] = {
    "neutral": {},
    "happiness": {"AU25": 3.4, "AU14": 1.5},
    "surprise": {},
    "sadness": {"AU17": 3.0},
    "anger": {"AU17": 1.5},
    "disgust": {"AU04": 2.0, "AU15": 2.4, "AU17": 3.0, "AU25": 2.0},
    "fear": {"AU26": 1.6},
}
# How often each other emotion comes second to a main one (row: main; columns in EMOTIONS' order), relative.
_RIVALS = (
    (0.0, 1.0, 0.6, 2.0, 1.2, 0.6, 0.4),
    (3.0, 0.0, 1.5, 0.4, 0.3, 0.5, 0.2),
    (1.2, 1.2, 0.0, 0.3, 0.4, 0.3, 3.0),
    (2.5, 0.3, 0.3, 0.0, 1.0, 1.2, 1.2),
    (1.8, 0.2, 0.5, 1.0, 0.0, 2.6, 0.7),
    (1.0, 0.4, 0.3, 1.2, 2.6, 0.0, 0.6),
    (0.5, 0.2, 3.0, 1.3, 0.7, 0.6, 0.0),
)

_SKINS: tuple[Colour, ...] = (
    (248, 218, 196),
    (240, 200, 170),
    (226, 180, 145),
    (205, 155, 118),
    (172, 122, 88),
    (138, 94, 66),
    (104, 70, 50),
)
_HAIRS: tuple[Colour, ...] = (
    (28, 24, 24),
    (58, 38, 28),
    (98, 62, 38),
    (150, 100, 56),
    (206, 168, 104),
    (150, 64, 34),
    (160, 158, 156),
)
_IRISES: tuple[Colour, ...] = ((54, 34, 22), (84, 56, 30), (62, 92, 118), (70, 98, 66))


@dataclass(frozen=True)
class DrawnFaces:
    """``N`` faces; row ``i`` of every array belongs to the same face."""

    images: NDArray[np.uint8]
    """(N, size, size, 3) RGB."""
    distributions: NDArray[np.float32]
    """(N, 7) true emotion distributions in ``EMOTIONS``' order; rows sum to 1."""
    labels: NDArray[np.int64]
    """(N,) places in ``EMOTIONS``, each drawn from its row of ``distributions``."""
    action_units: NDArray[np.float32]
    """(N, 17) true intensities, 0..5, in ``INTENSITIES``' order."""
    au_rows: pd.DataFrame
    """What a program like OpenFace reports: ``index`` (row number of the image), ``confidence`` (0..1), the
    17 ``INTENSITIES`` (0..5) and the 18 ``PRESENCES`` (0 or 1). An image without a found face has no row."""


@dataclass(frozen=True)
class _Face:
    image: NDArray[np.uint8]
    distribution: NDArray[np.float64]
    label: int
    action_units: NDArray[np.float64]
    measurement: NDArray[np.float64] | None
    """(36,) confidence, intensities, presences; None where no face was found."""


def draw_faces(count: int, size: int, seed: int, report: Reporter | None = None) -> DrawnFaces:
    """``count`` faces in pictures of ``size`` x ``size`` pixels.

    The same ``seed`` gives the same faces, and face ``i`` does not depend on ``count``.
    """
    draw = partial(_draw_one, size=size, seed=seed)
    if count < _WORTH_A_PROCESS or usable_cores() == 1:
        faces = _listed(map(draw, range(count)), count, report)
    else:
        with process_a_core() as pool:
            faces = _listed(pool.map(draw, range(count), chunksize=_AT_A_TIME), count, report)
    return DrawnFaces(
        images=np.array([face.image for face in faces], dtype=np.uint8).reshape(count, size, size, 3),
        distributions=_stacked([face.distribution for face in faces], len(EMOTIONS)),
        labels=np.array([face.label for face in faces], dtype=np.int64),
        action_units=_stacked([face.action_units for face in faces], len(INTENSITIES)),
        au_rows=_au_rows(faces),
    )


def action_units_of(distribution: NDArray[np.floating], variants: NDArray[np.bool_]) -> NDArray[np.float64]:
    """(17,) intensities, 0..5, of the prototypes mixed by ``distribution`` (7,), without any jitter.

    ``variants`` (17,) says which action units of the emotions' variants the face shows too.
    """
    prototypes, optional = _prototype_matrix(_PROTOTYPES), _prototype_matrix(_VARIANTS)
    return np.asarray(distribution @ (prototypes + optional * variants), dtype=np.float64)


def draw_identity(rng: np.random.Generator) -> Identity:
    """A person with random traits, who also shows a few weak action units at rest."""
    skin_index = int(rng.integers(len(_SKINS)))
    fair = skin_index < 3
    # Fair hair on dark skin is rare: the index into the dark-to-fair list is held back there.
    hair_index = int(rng.integers(len(_HAIRS) if fair else 3))
    masculine = bool(rng.random() < 0.5)
    hair_shares = (0.15, 0.4, 0.3, 0.1, 0.05) if masculine else (0.0, 0.1, 0.25, 0.3, 0.35)
    resting = np.where(rng.random(len(INTENSITIES)) < 0.2, rng.exponential(0.35, len(INTENSITIES)), 0.0)
    return Identity(
        skin=_tinted(_SKINS[skin_index], rng),
        hair=_tinted(_HAIRS[hair_index], rng),
        iris=_IRISES[int(rng.integers(len(_IRISES) if fair else 2))],
        shirt=(int(rng.integers(40, 220)), int(rng.integers(40, 220)), int(rng.integers(40, 220))),
        hair_style=HAIR_STYLES[int(rng.choice(len(HAIR_STYLES), p=hair_shares))],
        face_width=rng.normal(1.0, 0.05),
        jaw_width=rng.normal(1.04 if masculine else 0.92, 0.06),
        eye_spacing=rng.normal(1.0, 0.06),
        eye_size=rng.normal(1.0, 0.08),
        brow_thickness=abs(rng.normal(1.15 if masculine else 0.8, 0.2)) + 0.2,
        brow_height=rng.normal(0.0, 0.02),
        brow_slant=rng.normal(-0.01, 0.024),
        nose_width=rng.normal(1.0, 0.14),
        nose_length=rng.normal(1.0, 0.08),
        mouth_width=rng.normal(1.0, 0.08),
        mouth_curve=rng.normal(0.0, 0.018),
        lip_fullness=rng.normal(0.85 if masculine else 1.15, 0.18),
        beard=float(rng.uniform(0.3, 0.8)) if masculine and rng.random() < 0.3 else 0.0,
        glasses=bool(rng.random() < 0.1),
        resting_units=resting,
    )


def _listed(drawing: Iterable[_Face], count: int, report: Reporter | None) -> list[_Face]:
    return list(drawing if report is None else counted(drawing, "draw faces", count, report))


def _draw_one(index: int, size: int, seed: int) -> _Face:
    rng = np.random.default_rng([seed, index])
    person = int(rng.integers(PEOPLE))
    identity = draw_identity(np.random.default_rng([seed, _PERSON_STREAM, person]))
    distribution = _draw_distribution(rng)
    units = _draw_action_units(distribution, identity, rng)
    picture = draw_face(units, identity, size, _draw_view(rng))
    return _Face(
        image=_photograph(picture, rng),
        distribution=distribution,
        label=int(rng.choice(len(EMOTIONS), p=distribution)),
        action_units=units,
        measurement=_measure(units, rng),
    )


def _tinted(colour: Colour, rng: np.random.Generator) -> Colour:
    varied = np.array(colour) * rng.normal(1, 0.06) + rng.normal(0, 2, 3)
    red, green, blue = np.clip(varied, 8, 252).astype(int).tolist()
    return red, green, blue


def _stacked(rows: list[NDArray[np.float64]], width: int) -> NDArray[np.float32]:
    return np.array(rows, dtype=np.float32).reshape(len(rows), width)


def _prototype_matrix(prototypes: dict[str, dict[str, float]]) -> NDArray[np.float64]:
    """(7, 17) intensities."""
    return np.array([[prototypes[emotion].get(name[:4], 0.0) for name in INTENSITIES] for emotion in EMOTIONS])


def _draw_distribution(rng: np.random.Generator) -> NDArray[np.float64]:
    main = int(rng.choice(len(EMOTIONS), p=_PROPORTIONS))
    share = rng.beta(6.5, 1.8)
    # Small concentrations put nearly all of the rest on one rival; the Dirichlet is not defined at zero.
    rest = rng.dirichlet(0.3 * np.array(_RIVALS[main]) + 1e-3)
    distribution = (1 - share) * rest
    distribution[main] += share
    return np.asarray(distribution / distribution.sum(), dtype=np.float64)


def _draw_action_units(
    distribution: NDArray[np.float64], identity: Identity, rng: np.random.Generator
) -> NDArray[np.float64]:
    width = len(INTENSITIES)
    units = action_units_of(distribution, rng.random(width) < 0.5) * np.clip(rng.normal(0.95, 0.22), 0.4, 1.4)
    units = units * rng.normal(1.0, 0.15, width) + identity.resting_units
    units += np.where(rng.random(width) < 0.15, rng.exponential(0.5, width), 0.0)
    if rng.random() < 0.04:
        units[INTENSITIES.index("AU45_r")] += rng.uniform(2.0, 5.0)
    return np.asarray(np.clip(units, 0.0, LARGEST_INTENSITY), dtype=np.float64)


def _draw_view(rng: np.random.Generator) -> View:
    return View(
        roll=rng.normal(0.0, 0.07),
        yaw=rng.normal(0.0, 0.16),
        pitch=rng.normal(0.0, 0.07),
        shift_x=rng.normal(0.0, 0.02),
        shift_y=rng.normal(0.0, 0.02),
        scale=rng.normal(1.0, 0.05),
    )


def _photograph(picture: Image.Image, rng: np.random.Generator) -> NDArray[np.uint8]:
    """(size, size, 3): the picture in uneven light, up to a pixel out of focus, with the camera's noise."""
    size = picture.width
    blurred = picture.filter(ImageFilter.GaussianBlur(rng.uniform(0.0, 0.012) * size))
    across, direction = np.linspace(-1, 1, size, dtype=np.float32), rng.uniform(0, 2 * np.pi)
    slope = across[None, :] * np.cos(direction) + across[:, None] * np.sin(direction)
    light = rng.uniform(0.7, 1.15) * (1 + rng.uniform(0, 0.35) * slope)
    tint = rng.normal(1.0, 0.04, 3)
    noise = rng.standard_normal((size, size, 3), dtype=np.float32) * rng.uniform(2, 11)
    lit = np.asarray(blurred, dtype=np.float32) * light[:, :, None].astype(np.float32) * tint.astype(np.float32)
    return np.asarray(np.clip(lit + noise, 0, 255), dtype=np.uint8)


def _measure(units: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float64] | None:
    """(36,) confidence, intensities and presences as a program reports them for true ``units`` (17,)."""
    if rng.random() < 0.03:
        return None
    sure = rng.random() < 0.92
    confidence = 0.98 - 0.08 * rng.beta(1.0, 3.0) if sure else rng.uniform(0.2, 0.85)
    noise = 0.35 if sure else 1.4
    gains = rng.lognormal(-0.1, 0.2 if sure else 0.6, len(units))
    measured = np.clip(units * gains + rng.normal(-0.15, noise, len(units)), 0.0, LARGEST_INTENSITY)
    measured[rng.random(len(units)) < 0.06] = 0.0
    presences = _measure_presences(units, noise, rng)
    return np.concatenate(([round(confidence, 2)], measured.round(2), presences))


def _measure_presences(units: NDArray[np.float64], noise: float, rng: np.random.Generator) -> NDArray[np.float64]:
    """(18,) zeros and ones in ``PRESENCES``' order; no face here shows AU28, so it is only a false alarm."""
    seen = units + rng.normal(0.0, 1.5 * noise, len(units)) > 1.0
    with_lip_suck = np.insert(seen, PRESENCES.index("AU28_c"), False)
    return (with_lip_suck ^ (rng.random(len(PRESENCES)) < 0.04)).astype(np.float64)


def _au_rows(faces: list[_Face]) -> pd.DataFrame:
    found = [(index, face.measurement) for index, face in enumerate(faces) if face.measurement is not None]
    values = np.array([row for _, row in found]).reshape(len(found), 1 + len(INTENSITIES) + len(PRESENCES))
    table = pd.DataFrame(values, columns=["confidence", *INTENSITIES, *PRESENCES])
    table.insert(0, "index", np.array([index for index, _ in found], dtype=np.int64))
    return table.astype(dict.fromkeys(PRESENCES, np.int64))
