"""Uncertainty of a prediction. Needs numpy alone."""

import math

import numpy as np


def uncertainty(probabilities: np.ndarray) -> float:
    """Entropy of (C,) probabilities over log C: 0 where one is certain, 1 where all are equal."""
    positive = probabilities[probabilities > 0].astype(np.float64)
    entropy = float(-(positive * np.log(positive)).sum())
    return min(1.0, max(0.0, entropy / math.log(len(probabilities))))
