"""Metrics: classification, calibration, label distributions, and their intervals.

References:
    Guo, Pleiss, Sun & Weinberger, "On Calibration of Modern Neural Networks", ICML 2017.
    Geng, "Label Distribution Learning", TKDE 2016, for the six measures of two distributions.
    McNemar, "Note on the sampling error of the difference between correlated proportions", 1947.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import bdtr, rel_entr

CALIBRATION_BINS = 15
CLIP = 1e-6
"""Smaller values of both distributions are raised to this before they are compared, and rows made to sum to 1 again."""
CLIPPING = (
    "KL, Clark and Canberra are taken after raising every value below 1e-6 to 1e-6, which flatters sharp "
    "predictions; unclipped KL stands beside it where it is finite."
)
"""Printed beside every table of these metrics, since another clipping gives other values."""


@dataclass(frozen=True)
class Interval:
    """A figure and the 95 % bootstrap interval around it."""

    value: float
    low: float
    high: float


def classification(labels: np.ndarray, probabilities: np.ndarray) -> dict[str, Any]:
    """Accuracy, recall by class, macro-F1, confusion matrix and calibration error.

    Args:
        labels: (N,) class indices.
        probabilities: (N, C), rows sum to 1.

    Returns:
        `accuracy`, `macro_f1`, `calibration_error` in 0..1; `recall`, one value a class, None for a class
        without images; `confusion`, rows true and columns predicted, counts. Macro-F1 is scikit-learn's default: the
        mean over classes that are true or predicted somewhere, so that a class predicted in vain counts as 0.
    """
    classes = probabilities.shape[1]
    predicted = probabilities.argmax(axis=1)
    # Cell (true, predicted) is the number true · classes + predicted.
    cells = labels.astype(np.int64) * classes + predicted
    confusion = np.bincount(cells, minlength=classes**2).reshape(classes, classes)
    counts = confusion.sum(axis=1)
    return {
        "images": len(labels),
        "accuracy": float((predicted == labels).mean()),
        "macro_f1": _macro_f1(confusion),
        "recall": [float(confusion[c, c] / counts[c]) if counts[c] else None for c in range(classes)],
        "confusion": confusion.tolist(),
        "calibration_error": expected_calibration_error(labels, probabilities),
    }


def _macro_f1(confusion: np.ndarray) -> float:
    """2 TP / (2 TP + FP + FN), averaged over the classes that are true or predicted somewhere."""
    correct, either = confusion.diagonal(), confusion.sum(axis=0) + confusion.sum(axis=1)
    return float((2 * correct[either > 0] / either[either > 0]).mean())


def expected_calibration_error(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """Mean distance of confidence and accuracy over 15 bins of confidence, weighted by images; 0..1."""
    confidence = probabilities.max(axis=1)
    correct = probabilities.argmax(axis=1) == labels
    bins = np.minimum((confidence * CALIBRATION_BINS).astype(int), CALIBRATION_BINS - 1)
    gaps = [(bins == b).mean() * abs(correct[bins == b].mean() - confidence[bins == b].mean()) for b in np.unique(bins)]
    return float(np.sum(gaps))


def distribution_measures(truth: np.ndarray, prediction: np.ndarray) -> dict[str, np.ndarray]:
    """Distances and likenesses of two label distributions, one value an image.

    Args:
        truth, prediction: (N, C), rows sum to 1; values below `CLIP` are raised to it first. KL, Clark and Canberra
            depend on that clip: a larger one brings a sharp prediction nearer to the truth. See `unclipped_divergence`.

    Returns:
        Chebyshev max|d−p|, Clark √Σ(d−p)²/(d+p)², Canberra Σ|d−p|/(d+p), KL Σ d ln(d/p) and total variation
        ½Σ|d−p|, lower is better; cosine and intersection Σ min(d, p), higher is better. (N,) each.
    """
    d, p = _without_zeros(truth), _without_zeros(prediction)
    apart = np.abs(d - p)
    return {
        "chebyshev": apart.max(axis=1),
        "clark": np.sqrt((apart**2 / (d + p) ** 2).sum(axis=1)),
        "canberra": (apart / (d + p)).sum(axis=1),
        "kl": (d * np.log(d / p)).sum(axis=1),
        "total_variation": apart.sum(axis=1) / 2,
        "cosine": (d * p).sum(axis=1) / (np.linalg.norm(d, axis=1) * np.linalg.norm(p, axis=1)),
        "intersection": np.minimum(d, p).sum(axis=1),
    }


def mean_measures(truth: np.ndarray, prediction: np.ndarray) -> dict[str, float]:
    """The mean over images of each of `distribution_measures`, clipped as these are."""
    return {name: float(values.mean()) for name, values in distribution_measures(truth, prediction).items()}


def unclipped_divergence(truth: np.ndarray, prediction: np.ndarray) -> float | None:
    """Mean over images of KL(truth ‖ prediction) = Σ d ln(d/p) as it is, with 0 ln 0 = 0.

    Args:
        truth, prediction: (N, C), rows sum to 1.

    Returns:
        None where it is infinite: a class that the truth holds possible is predicted with probability 0.
    """
    mean = float(rel_entr(truth.astype(np.float64), prediction.astype(np.float64)).sum(axis=1).mean())
    return mean if math.isfinite(mean) else None


def bootstrap_mean(values: np.ndarray, resamples: int) -> Interval:
    """The mean over images with its percentile interval over resampled images.

    Args:
        values: (N,), one figure an image.
    """
    generator = np.random.default_rng(0)
    means = [values[generator.integers(0, len(values), len(values))].mean() for _ in range(resamples)]
    low, high = np.percentile(means, (2.5, 97.5))
    return Interval(float(values.mean()), float(low), float(high))


def mcnemar(first_correct: np.ndarray, second_correct: np.ndarray) -> dict[str, float]:
    """Exact two-sided McNemar test: do two models err on different images by chance alone?

    Args:
        first_correct, second_correct: (N,) bool, of the same images.

    Returns:
        `only_first` and `only_second`, counts of images that just one gets right, and `p`.
    """
    only_first = int((first_correct & ~second_correct).sum())
    only_second = int((~first_correct & second_correct).sum())
    differing = only_first + only_second
    # By chance, each of them is the first's with probability 1/2; `bdtr` is the binomial distribution function.
    tail = float(bdtr(min(only_first, only_second), differing, 0.5)) if differing else 1.0
    return {"only_first": only_first, "only_second": only_second, "p": min(1.0, 2 * tail)}


def _without_zeros(distribution: np.ndarray) -> np.ndarray:
    raised: np.ndarray = np.maximum(distribution.astype(np.float64), CLIP)
    normalised: np.ndarray = raised / raised.sum(axis=1, keepdims=True)
    return normalised
