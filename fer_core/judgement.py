"""The figures that predictions are judged by: classification, calibration, and label distributions."""

from dataclasses import asdict
from typing import Any

import numpy as np

from fer_core.dataset import Dataset
from fer_core.metrics import bootstrap_mean, classification, distribution_measures, mean_measures


def judge(dataset: Dataset, rows: np.ndarray, probabilities: np.ndarray, resamples: int) -> dict[str, Any]:
    """Figures of predictions for `rows`: classification, and label distributions where there is a truth.

    Args:
        probabilities: (len(rows), classes), rows sum to 1.
        resamples: of the images, behind each interval.
    """
    labels = dataset.labels()[rows]
    correct = (probabilities.argmax(axis=1) == labels).astype(float)
    figures = classification(labels, probabilities)
    figures["accuracy_interval"] = asdict(bootstrap_mean(correct, resamples))
    crowd = dataset.crowd()
    if crowd is not None:
        figures["distribution"] = mean_measures(crowd[rows], probabilities)
        divergence = distribution_measures(crowd[rows], probabilities)["kl"]
        figures["kl_interval"] = asdict(bootstrap_mean(divergence, resamples))
    return figures
