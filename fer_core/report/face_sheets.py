"""Sheets of faces: neighbours in AU space, soft labels beside the truth, and the most confident mistakes."""

from dataclasses import dataclass

import numpy as np
from scipy.special import entr

from fer_core.data.dataset import UNLABELLED, Dataset
from fer_core.report.evidence import GENERATORS, Evidence, Generator, JudgedModel
from fer_core.report.style import emotion_colours, face_uri

_NEIGHBOUR_ROWS = 10
_NEIGHBOURS_SHOWN = 4
_AMBIGUOUS, _RANDOM = 8, 8
_MISTAKES = 12
_DRAW = 0
"""Seed of the random draws."""
_LETTER = 0.021
"""A letter's share of a bar's width, for a segment to know whether its name has room."""
_DARK = 0.4
_BEST = "EF + LDG-AUs"


@dataclass(frozen=True)
class Segment:
    """A class's part of a distribution bar; `percent` is its width, `text` stands in it."""

    label: str
    percent: float
    colour: str
    text_colour: str
    text: str


@dataclass(frozen=True)
class Bar:
    """A label distribution drawn as one bar."""

    name: str
    segments: tuple[Segment, ...]

    @property
    def words(self) -> str:
        """The distribution for those who do not see it: its shares of a hundredth and more."""
        return ", ".join(f"{s.label} {s.percent:.0f} %" for s in self.segments if s.percent >= 1)


@dataclass(frozen=True)
class Face:
    """An image with its name, its hard label and whatever is to be said beneath."""

    uri: str
    image_id: str
    label: str
    remark: str = ""
    differs: bool = False
    bars: tuple[Bar, ...] = ()


@dataclass(frozen=True)
class Neighbourhood:
    """An image and its nearest neighbours."""

    face: Face
    neighbours: tuple[Face, ...]


def neighbourhoods(evidence: Evidence) -> list[Neighbourhood]:
    """Linked training images, drawn at random one a class in turn, each with its nearest neighbours."""
    labels = evidence.dataset.labels()
    linked = np.flatnonzero((evidence.graph.neighbours >= 0).all(axis=1) & (labels != UNLABELLED))
    chosen = _one_a_class_in_turn(labels, linked, _NEIGHBOUR_ROWS)
    return [_neighbourhood(evidence, int(row)) for row in chosen]


def ambiguous_faces(evidence: Evidence, generators: list[Generator]) -> list[Face]:
    """The training images whose truth (without one: whose soft label) has the largest entropy."""
    rows = evidence.dataset.rows("train")
    crowd = evidence.dataset.crowd()
    spread = entr(generators[0].soft_labels[rows] if crowd is None else crowd[rows]).sum(axis=1)
    most = _without_copies(evidence.dataset, rows[np.argsort(-spread, kind="stable")])[:_AMBIGUOUS]
    return [_with_soft_labels(evidence.dataset, int(row), generators) for row in most]


def random_faces(evidence: Evidence, generators: list[Generator]) -> list[Face]:
    """Training images drawn at random, whatever they show."""
    rows = evidence.dataset.rows("train")
    drawn = np.random.default_rng(_DRAW).permutation(rows)[:_RANDOM]
    return [_with_soft_labels(evidence.dataset, int(row), generators) for row in drawn]


def shown_generators(evidence: Evidence) -> list[Generator]:
    """LDG-AUs and LDG of the lowest seed that has both, or of the lowest that there is."""
    by_seed: dict[int, list[Generator]] = {}
    for generator in sorted(evidence.generators, key=lambda g: (g.seed, GENERATORS.index(g.name))):
        by_seed.setdefault(generator.seed, []).append(generator)
    return max(by_seed.values(), key=len, default=[])


def mistaken_model(evidence: Evidence) -> JudgedModel | None:
    """EF + LDG-AUs of its lowest seed; where it is missing, the first model of the table that is not."""
    names = evidence.names()
    if not names:
        return None
    return evidence.seeds_of(_BEST if _BEST in names else names[0])[0]


def worst_mistakes(dataset: Dataset, model: JudgedModel) -> list[Face]:
    """The test images that the model gets wrong with the greatest confidence."""
    rows, crowd = dataset.rows("test"), dataset.crowd()
    labels, names = dataset.labels()[rows], dataset.card.labels
    predicted = model.probabilities.argmax(axis=1)
    wrong = np.flatnonzero(predicted != labels)
    worst = wrong[np.argsort(-model.probabilities[wrong].max(axis=1), kind="stable")[:_MISTAKES]]
    faces = []
    for place in worst:
        bars = [] if crowd is None else [_bar(_truth_name(dataset), crowd[rows[place]], names)]
        bars.append(_bar("predicted", model.probabilities[place], names))
        remark = f"taken for {names[predicted[place]]}, {100 * model.probabilities[place].max():.0f} %"
        faces.append(_face(dataset, int(rows[place]), remark, bars=tuple(bars)))
    return faces


def helped_and_hurt(
    dataset: Dataset, first: tuple[str, np.ndarray], second: tuple[str, np.ndarray]
) -> tuple[list[Face], list[Face]]:
    """The test images that the first way predicts better than the second by most, and worse by most.

    Better is nearer to the true distribution in total variation, and without one a higher probability of the label.

    Args:
        first, second: a way's name, and its (test images, classes) probabilities.
    """
    rows, names = dataset.rows("test"), dataset.card.labels
    crowd = dataset.crowd()
    truth = np.eye(len(names))[dataset.labels()[rows]] if crowd is None else crowd[rows]
    gain = (np.abs(second[1] - truth) - np.abs(first[1] - truth)).sum(axis=1) / 2
    order = np.argsort(-gain, kind="stable")
    sheets = []
    for places in (order[gain[order] > 0][:_MISTAKES], order[gain[order] < 0][::-1][:_MISTAKES]):
        faces = []
        for place in places:
            truth_bar = [] if crowd is None else [_bar(_truth_name(dataset), truth[place], names)]
            bars = [*truth_bar, *(_bar(name, found[place], names) for name, found in (first, second))]
            faces.append(_face(dataset, int(rows[place]), bars=tuple(bars)))
        sheets.append(faces)
    return sheets[0], sheets[1]


def _neighbourhood(evidence: Evidence, row: int) -> Neighbourhood:
    labels = evidence.dataset.labels()
    near = evidence.graph.neighbours[row, :_NEIGHBOURS_SHOWN]
    apart = evidence.graph.distance[row, :_NEIGHBOURS_SHOWN]
    faces = [
        _face(evidence.dataset, int(n), f"distance {d:.2f}", differs=labels[n] not in (labels[row], UNLABELLED))
        for n, d in zip(near, apart, strict=True)
    ]
    return Neighbourhood(_face(evidence.dataset, row), tuple(faces))


def _one_a_class_in_turn(labels: np.ndarray, rows: np.ndarray, count: int) -> list[int]:
    """`count` of `rows`: the first of each class in a random order, then the second of each, and so on."""
    drawn = np.random.default_rng(_DRAW).permutation(rows)
    turn = np.empty(len(drawn), np.int64)
    for label in np.unique(labels[drawn]):
        inside = labels[drawn] == label
        turn[inside] = np.arange(inside.sum())
    return [int(row) for row in drawn[np.lexsort((labels[drawn], turn))[:count]]]


def _without_copies(dataset: Dataset, rows: np.ndarray) -> np.ndarray:
    """The rows in their order, of those with the same pixels only the first."""
    return rows[~dataset.manifest["sha256"].iloc[rows].duplicated().to_numpy()]


def _with_soft_labels(dataset: Dataset, row: int, generators: list[Generator]) -> Face:
    crowd, names = dataset.crowd(), dataset.card.labels
    bars = [] if crowd is None else [_bar(_truth_name(dataset), crowd[row], names)]
    bars += [_bar(g.name, g.soft_labels[row], names) for g in reversed(generators)]
    return _face(dataset, row, bars=tuple(bars))


def _truth_name(dataset: Dataset) -> str:
    return "votes" if "votes" in dataset.card.truth else "truth"


def _face(dataset: Dataset, row: int, remark: str = "", *, differs: bool = False, bars: tuple[Bar, ...] = ()) -> Face:
    label = int(dataset.manifest["label"].iloc[row])
    return Face(
        uri=face_uri(np.asarray(dataset.images[row])),
        image_id=str(dataset.manifest["id"].iloc[row]),
        label="no label" if label == UNLABELLED else dataset.card.labels[label],
        remark=remark,
        differs=differs,
        bars=bars,
    )


def _bar(name: str, distribution: np.ndarray, labels: tuple[str, ...]) -> Bar:
    colours, shares = emotion_colours(labels), zip(labels, distribution, strict=True)
    return Bar(name, tuple(_segment(label, float(share), colours[label]) for label, share in shares))


def _segment(label: str, share: float, colour: str) -> Segment:
    text = f"{label} {100 * share:.0f}"
    written = text if share >= _LETTER * len(text) else ""
    return Segment(label, 100 * share, colour, "#ffffff" if _luminance(colour) < _DARK else "#101318", written)


def _luminance(colour: str) -> float:
    """Perceived brightness of #RRGGBB, 0..1."""
    red, green, blue = (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
    return 0.299 * red + 0.587 * green + 0.114 * blue
