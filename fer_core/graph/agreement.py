"""How far neighbours in AU space agree on the emotion, which is what makes them worth a pull."""

from typing import Any

import numpy as np

from fer_core.data.dataset import UNLABELLED
from fer_core.graph.neighbours import Graph


def label_agreement(graph: Graph, labels: np.ndarray) -> dict[str, Any]:
    """How often a neighbour has the image's own hard label, of links between labelled images.

    Args:
        labels: (N,) of all images, UNLABELLED where there is none.

    Returns:
        `neighbours`, the share over all links; `by_rank`, nearest first; `chance`, of two different linked images. None
        where no such link or pair is there.
    """
    neighbours = graph.neighbours
    linked = np.flatnonzero((neighbours >= 0).all(axis=1) & (labels != UNLABELLED))
    known = labels[neighbours[linked]] != UNLABELLED
    same = (labels[neighbours[linked]] == labels[linked, None]) & known
    counts = np.bincount(labels[linked])
    return {
        "neighbours": _share(same.sum(), known.sum()),
        "by_rank": [_share(*of_rank) for of_rank in zip(same.sum(axis=0), known.sum(axis=0), strict=True)],
        "chance": _share((counts * (counts - 1)).sum(), len(linked) * (len(linked) - 1)),
    }


def _share(part: int, whole: int) -> float | None:
    return float(part / whole) if whole else None
