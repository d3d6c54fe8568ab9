"""The drawn faces: reproducible, in their domains, and moved where their action units say."""

import dataclasses

import numpy as np
import pytest
from numpy.typing import NDArray

from fer_core.data.drawn.faces import EMOTIONS, DrawnFaces, action_units_of, draw_faces, draw_identity
from fer_core.data.drawn.geometry import Identity, View, draw_face
from openface.columns import INTENSITIES, PRESENCES

COUNT = 500
SIZE = 96
BROWS = slice(12, 30)
MOUTH = slice(60, 82)


@pytest.fixture(scope="module")
def faces() -> DrawnFaces:
    return draw_faces(COUNT, 32, seed=3)


@pytest.fixture
def person() -> Identity:
    drawn = draw_identity(np.random.default_rng(11))
    return dataclasses.replace(drawn, hair_style="bald", beard=0.0, glasses=False)


def units_with(**intensities: float) -> NDArray[np.float64]:
    return np.array([intensities.get(name[:4], 0.0) for name in INTENSITIES])


def pixels(person: Identity, units: NDArray[np.float64], view: View | None = None) -> NDArray[np.float64]:
    return np.asarray(draw_face(units, person, SIZE, view), dtype=np.float64)


def moved_rows(person: Identity, units: NDArray[np.float64]) -> NDArray[np.float64]:
    """(SIZE,) how much each pixel row differs from the unmoved face."""
    moved: NDArray[np.float64] = np.abs(pixels(person, units) - pixels(person, units_with())).mean(axis=(1, 2))
    return moved


def test_a_seed_fixes_each_face_whatever_the_count() -> None:
    few, many, other = draw_faces(4, 48, seed=7), draw_faces(9, 48, seed=7), draw_faces(4, 48, seed=8)
    assert np.array_equal(few.images, many.images[:4])
    assert np.array_equal(few.labels, many.labels[:4])
    assert np.array_equal(few.distributions, many.distributions[:4])
    assert np.array_equal(few.action_units, many.action_units[:4])
    early = many.au_rows[many.au_rows["index"] < 4].reset_index(drop=True)
    assert early.equals(few.au_rows)
    assert not np.array_equal(few.images, other.images)


def test_processes_draw_the_same_faces(monkeypatch: pytest.MonkeyPatch) -> None:
    alone = draw_faces(7, 32, seed=3)
    monkeypatch.setattr("fer_core.data.drawn.faces._WORTH_A_PROCESS", 1)
    monkeypatch.setattr("fer_core.data.drawn.faces._AT_A_TIME", 2)
    monkeypatch.setattr("fer_core.data.drawn.faces.usable_cores", lambda: 2)
    together = draw_faces(7, 32, seed=3)
    for name in ("images", "distributions", "labels", "action_units"):
        assert np.array_equal(getattr(together, name), getattr(alone, name))
    assert together.au_rows.equals(alone.au_rows)


def test_shapes_and_domains(faces: DrawnFaces) -> None:
    assert faces.images.shape == (COUNT, 32, 32, 3)
    assert faces.images.dtype == np.uint8
    assert faces.distributions.dtype == faces.action_units.dtype == np.float32
    assert faces.distributions.shape == (COUNT, len(EMOTIONS))
    assert faces.distributions.min() >= 0
    assert np.allclose(faces.distributions.sum(axis=1), 1, atol=1e-5)
    assert faces.action_units.shape == (COUNT, len(INTENSITIES))
    assert 0 <= faces.action_units.min() <= faces.action_units.max() <= 5
    assert faces.images.reshape(COUNT, -1).std(axis=1).min() > 10


def test_no_faces_still_has_columns() -> None:
    none = draw_faces(0, 32, seed=1)
    assert none.images.shape == (0, 32, 32, 3)
    assert list(none.au_rows.columns) == ["index", "confidence", *INTENSITIES, *PRESENCES]


def test_every_emotion_has_many_labels(faces: DrawnFaces) -> None:
    counts = np.bincount(faces.labels, minlength=len(EMOTIONS))
    assert counts.min() >= 0.06 * COUNT
    assert counts.max() <= 0.35 * COUNT


def test_labels_are_drawn_from_the_distributions(faces: DrawnFaces) -> None:
    own = faces.distributions[np.arange(COUNT), faces.labels]
    assert own.min() > 0
    top = faces.distributions.max(axis=1)
    agreement = (faces.distributions.argmax(axis=1) == faces.labels).astype(float)
    # Four standard errors of the mean of COUNT independent yes-or-no draws.
    assert abs(agreement.mean() - top.mean()) < 4 * np.sqrt((top * (1 - top)).mean() / COUNT)
    doubtful = top < np.median(top)
    assert agreement[doubtful].mean() < agreement[~doubtful].mean()


def test_measured_rows_have_openface_s_columns_and_domains(faces: DrawnFaces) -> None:
    rows = faces.au_rows
    assert list(rows.columns) == ["index", "confidence", *INTENSITIES, *PRESENCES]
    intensities = rows[list(INTENSITIES)].to_numpy()
    assert 0 <= intensities.min() <= intensities.max() <= 5
    assert np.allclose(intensities, intensities.round(2))
    assert 0.2 < (intensities == 0).mean() < 0.7
    assert set(np.unique(rows[list(PRESENCES)].to_numpy())) == {0, 1}
    assert 0.8 < (rows["confidence"] >= 0.9).mean() < 0.98


def test_a_few_faces_are_not_found(faces: DrawnFaces) -> None:
    found = faces.au_rows["index"]
    assert found.is_unique
    assert found.isin(range(COUNT)).all()
    assert 0.9 * COUNT < len(found) < COUNT


def test_measured_intensities_follow_the_true_ones_less_when_unsure(faces: DrawnFaces) -> None:
    rows = faces.au_rows
    errors = np.abs(rows[list(INTENSITIES)].to_numpy() - faces.action_units[rows["index"]])
    sure = (rows["confidence"] >= 0.9).to_numpy()
    assert errors[~sure].mean() > 1.5 * errors[sure].mean()
    for name in ("AU01_r", "AU04_r", "AU12_r", "AU25_r"):
        truth = faces.action_units[rows["index"], INTENSITIES.index(name)]
        assert np.corrcoef(truth[sure], rows[name].to_numpy()[sure])[0, 1] > 0.8


def test_the_true_units_follow_the_distributions(faces: DrawnFaces) -> None:
    for emotion, name in (
        ("happiness", "AU12_r"),
        ("anger", "AU04_r"),
        ("disgust", "AU09_r"),
        ("fear", "AU20_r"),
    ):
        share = faces.distributions[:, EMOTIONS.index(emotion)]
        units = faces.action_units[:, INTENSITIES.index(name)]
        assert units[share > 0.7].mean() > units[share < 0.1].mean() + 1.5


def test_prototypes_mix_in_proportion() -> None:
    happy, afraid = np.eye(len(EMOTIONS))[[EMOTIONS.index("happiness"), EMOTIONS.index("fear")]]
    no_variants = np.zeros(len(INTENSITIES), dtype=bool)
    mixed = action_units_of(0.25 * happy + 0.75 * afraid, no_variants)
    pure_happy, pure_afraid = action_units_of(happy, no_variants), action_units_of(afraid, no_variants)
    assert np.allclose(mixed, 0.25 * pure_happy + 0.75 * pure_afraid)
    shown = {name for name, unit in zip(INTENSITIES, pure_happy, strict=True) if unit > 0}
    assert shown == {"AU06_r", "AU12_r"}


@pytest.mark.parametrize("unit", ["AU12", "AU15", "AU17", "AU20", "AU23", "AU25"])
def test_lip_units_move_the_mouth_and_not_the_brows(person: Identity, unit: str) -> None:
    moved = moved_rows(person, units_with(**{unit: 4.0}))
    assert moved[MOUTH].max() > 1
    assert moved[BROWS].max() == 0


@pytest.mark.parametrize("unit", ["AU01", "AU02", "AU04"])
def test_brow_units_move_the_brows_and_not_the_mouth(person: Identity, unit: str) -> None:
    moved = moved_rows(person, units_with(**{unit: 4.0}))
    assert moved[BROWS].max() > 1
    assert moved[MOUTH].max() == 0


@pytest.mark.parametrize("name", INTENSITIES)
def test_a_stronger_unit_moves_the_face_further(person: Identity, name: str) -> None:
    # The jaw drops visibly only where the lips part, so that both are given to it.
    others = {"AU25": 2.0} if name.startswith("AU26") else {}
    weak = moved_rows(person, units_with(**{name[:4]: 1.5, **others})).sum()
    strong = moved_rows(person, units_with(**{name[:4]: 5.0, **others})).sum()
    assert strong > 1.2 * weak > 0


def test_a_smile_lifts_the_corners_that_sadness_lowers(person: Identity) -> None:
    smiling = moved_rows(person, units_with(AU12=4.0))[48:90]
    sad = moved_rows(person, units_with(AU15=4.0))[48:90]
    rows = np.arange(48, 90)
    assert np.average(rows, weights=smiling) + 3 < np.average(rows, weights=sad)


def test_a_blink_hides_the_white_of_the_eye(person: Identity) -> None:
    awake = pixels(person, units_with())[30:46]
    asleep = pixels(person, units_with(AU45=5.0))[30:46]
    assert (awake.min(axis=2) > 215).sum() > 20 > 2 >= (asleep.min(axis=2) > 215).sum()


def test_turning_the_head_moves_the_face_off_the_middle(person: Identity) -> None:
    left = pixels(person, units_with(), View(yaw=-0.4))
    right = pixels(person, units_with(), View(yaw=0.4))
    assert np.abs(left[:, ::-1] - right).mean() < 2 < 10 < np.abs(left - right).mean()
