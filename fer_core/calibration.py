"""Temperature scaling: one number that makes a network's confidence what it claims.

References:
    Guo, Pleiss, Sun & Weinberger, "On Calibration of Modern Neural Networks", ICML 2017.
"""

import math

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax

_BOUNDS = (math.log(0.05), math.log(20.0))


def probabilities(logits: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    """softmax(logits / T): (N, C), rows sum to 1; T = 1 is the network as it was trained."""
    calibrated: np.ndarray = softmax(logits.astype(np.float64) / temperature, axis=1)
    return calibrated


def fit_temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """The T in 0.05..20 of the least cross-entropy of softmax(logits / T) against the labels.

    Args:
        logits: (N, C) of images that were not trained on.
        labels: (N,) class indices.
    """
    rows = np.arange(len(labels))

    def cross_entropy(log_temperature: float) -> float:
        scaled = logits.astype(np.float64) / math.exp(log_temperature)
        return float(-log_softmax(scaled, axis=1)[rows, labels].mean())

    return math.exp(float(minimize_scalar(cross_entropy, bounds=_BOUNDS, method="bounded").x))
