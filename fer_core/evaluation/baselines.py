"""Baselines that any model must beat: the uniform prediction, AU neighbours alone, and the best label smoothing."""

import numpy as np
from scipy.spatial import cKDTree

from fer_core.data.dataset import Dataset
from fer_core.evaluation.metrics import mean_measures
from fer_core.graph.action_units import ActionUnits

_SMOOTHINGS = np.round(np.linspace(0, 1, 101), 2)


def uniform(count: int, classes: int) -> np.ndarray:
    """(count, classes), all equal: the reference for distribution measures."""
    return np.full((count, classes), 1 / classes)


def au_neighbours_alone(dataset: Dataset, units: ActionUnits, rows: np.ndarray, k: int) -> np.ndarray:
    """The mean label distribution of the k nearest training images in AU space, without a look at a pixel.

    Args:
        rows: (M,) images with usable AUs.

    Returns:
        (M, classes), rows sum to 1: of the crowd's distributions where there are any, otherwise of hard labels.
    """
    train = dataset.rows("train")
    train = train[units.usable[train]]
    crowd = dataset.crowd()
    known = np.eye(len(dataset.card.labels))[dataset.labels()] if crowd is None else crowd
    _, near = cKDTree(units.places[train]).query(units.places[rows], k=min(k, len(train)))
    mean: np.ndarray = known[train][near.reshape(len(rows), -1)].mean(axis=1)
    return mean


def smoothed(labels: np.ndarray, classes: int, share: float) -> np.ndarray:
    """Label smoothing: (1 − share) on the hard label, `share` spread over all classes. (N, classes)."""
    one_hot: np.ndarray = np.eye(classes)[labels]
    return (1 - share) * one_hot + share / classes


def best_smoothing(labels: np.ndarray, crowd: np.ndarray) -> tuple[float, dict[str, float]]:
    """The share of label smoothing with the least mean KL to the crowd, and its measures.

    The share is chosen with the crowd's distributions in sight, which no training has.
    """
    divergences = [mean_measures(crowd, smoothed(labels, crowd.shape[1], float(s)))["kl"] for s in _SMOOTHINGS]
    best = float(_SMOOTHINGS[int(np.argmin(divergences))])
    return best, mean_measures(crowd, smoothed(labels, crowd.shape[1], best))
