"""Compare two models on the same test images: the difference and its interval.

Every difference is first minus second. The doubt has two sources, which are kept apart: other test images
(a bootstrap over images of the difference averaged over seeds) and other trainings (a t-interval over seeds).

References:
    McNemar, "Note on the sampling error of the difference between correlated proportions", 1947.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from scipy.special import stdtrit

from fer_core.evaluation.metrics import bootstrap_mean, distribution_measures, mcnemar

SEEDS_FOR_AN_INTERVAL = 3
Difference = dict[str, Any]


def compare(
    first: Mapping[int, np.ndarray],
    second: Mapping[int, np.ndarray],
    labels: np.ndarray,
    truth: np.ndarray | None,
    resamples: int,
) -> dict[str, Any]:
    """Compare two models over the seeds that both have.

    Args:
        first, second: by seed, (N, classes) probabilities for the same images.
        labels: (N,) class indices.
        truth: (N, classes) distributions, or None.

    Returns:
        `seeds`; `mcnemar`, one test a seed; `accuracy_difference_points`, positive where the first is more often
        right; `kl_difference`, negative where the first is nearer to the truth, None without a truth.
    """
    seeds = sorted(first.keys() & second.keys())
    right = {s: (_is_right(first[s], labels), _is_right(second[s], labels)) for s in seeds}
    points = {s: 100.0 * (a.astype(float) - b) for s, (a, b) in right.items()}
    return {
        "seeds": seeds,
        "mcnemar": [{"seed": s, **mcnemar(a, b)} for s, (a, b) in right.items()],
        "accuracy_difference_points": difference(points, resamples),
        "kl_difference": None if truth is None else divergence_difference(first, second, truth, resamples),
    }


def divergence_difference(
    first: Mapping[int, np.ndarray], second: Mapping[int, np.ndarray], truth: np.ndarray, resamples: int
) -> Difference:
    """The difference in KL from the truth over the seeds that both have; arguments as of `compare`."""
    seeds = sorted(first.keys() & second.keys())
    return difference({s: _divergence(truth, first[s]) - _divergence(truth, second[s]) for s in seeds}, resamples)


def difference(by_seed: Mapping[int, np.ndarray], resamples: int) -> Difference:
    """The mean difference and its intervals of 95 %.

    Args:
        by_seed: (N,) differences of the same images, for each seed.

    Returns:
        `mean`; `per_seed`, in the order of the seeds; `over_images`; `over_seeds`, None below three seeds.
    """
    per_seed = [float(values.mean()) for values in by_seed.values()]
    over_images = bootstrap_mean(np.mean(list(by_seed.values()), axis=0), resamples)
    return {
        "mean": float(np.mean(per_seed)),
        "per_seed": per_seed,
        "over_images": {"low": over_images.low, "high": over_images.high},
        "over_seeds": interval_over_seeds(per_seed),
    }


def interval_over_seeds(values: list[float]) -> dict[str, float] | None:
    """The 95 % t-interval of the mean over seeds; None below three, where it would say nothing."""
    if len(values) < SEEDS_FOR_AN_INTERVAL:
        return None
    error = np.std(values, ddof=1) / np.sqrt(len(values))
    # The quantile of Student's t with so many degrees of freedom.
    reach = float(stdtrit(len(values) - 1, 0.975) * error)
    mean = float(np.mean(values))
    return {"low": mean - reach, "high": mean + reach}


def decided(difference: Difference) -> int:
    """The sign of a difference whose intervals, all there are, exclude zero; otherwise 0."""
    intervals = [i for i in (difference["over_images"], difference["over_seeds"]) if i is not None]
    if all(i["low"] > 0 for i in intervals):
        return 1
    return -1 if all(i["high"] < 0 for i in intervals) else 0


def _is_right(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    right: np.ndarray = probabilities.argmax(axis=1) == labels
    return right


def _divergence(truth: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    return distribution_measures(truth, probabilities)["kl"]
