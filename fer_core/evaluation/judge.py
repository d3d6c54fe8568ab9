"""All metrics of predictions: classification, calibration, and label distributions."""

from dataclasses import asdict
from typing import Any

import numpy as np

from fer_core.data.dataset import Dataset
from fer_core.evaluation.metrics import (
    CLIP,
    bootstrap_mean,
    classification,
    distribution_measures,
    mean_measures,
    unclipped_divergence,
)


def judge(dataset: Dataset, rows: np.ndarray, probabilities: np.ndarray, resamples: int) -> dict[str, Any]:
    """Figures of predictions for `rows`: classification, and label distributions where there is a truth.

    Args:
        probabilities: (len(rows), classes), rows sum to 1.
        resamples: of the images, behind each interval.
    """
    crowd = dataset.crowd()
    return judge_against(dataset.labels()[rows], None if crowd is None else crowd[rows], probabilities, resamples)


def judge_against(
    labels: np.ndarray, truth: np.ndarray | None, probabilities: np.ndarray, resamples: int
) -> dict[str, Any]:
    """The same against hard labels (N,) and, where there are any, true distributions (N, classes).

    Returns:
        what `classification` gives, `accuracy_interval`, and with a truth `distribution`, the means of
        `distribution_measures`; `kl_unclipped`, None where it is infinite; `clip`, see `CLIP` of the metrics;
        and `kl_interval`.
    """
    correct = (probabilities.argmax(axis=1) == labels).astype(float)
    figures = classification(labels, probabilities)
    figures["accuracy_interval"] = asdict(bootstrap_mean(correct, resamples))
    if truth is not None:
        figures["distribution"] = mean_measures(truth, probabilities)
        figures["kl_unclipped"] = unclipped_divergence(truth, probabilities)
        figures["clip"] = CLIP
        divergence = distribution_measures(truth, probabilities)["kl"]
        figures["kl_interval"] = asdict(bootstrap_mean(divergence, resamples))
    return figures
