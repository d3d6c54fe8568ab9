"""Temperature scaling: one number that makes a network's confidence what it claims.

References:
    Guo, Pleiss, Sun & Weinberger, "On Calibration of Modern Neural Networks", ICML 2017.
    Wilks, "The Large-Sample Distribution of the Likelihood Ratio", Annals of Mathematical Statistics 9, 1938.
"""

import math
from dataclasses import dataclass

import numpy as np
from scipy.optimize import brentq, minimize_scalar
from scipy.special import log_softmax, softmax

_BOUNDS = (math.log(0.05), math.log(20.0))
_WILKS = 3.841458820694124 / 2


def probabilities(logits: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    """softmax(logits / T): (N, C), rows sum to 1; T = 1 is the network as it was trained."""
    calibrated: np.ndarray = softmax(logits.astype(np.float64) / temperature, axis=1)
    return calibrated


@dataclass(frozen=True)
class Temperature:
    """A temperature, with the evidence for it."""

    value: float
    """What predictions are made with: `fitted`; 1 where the interval holds 1; the interval's end nearest to 1 where no
    temperature in 0.05..20 has the least cross-entropy, as where all images are right."""
    fitted: float
    """That of the least cross-entropy."""
    low: float
    """Lower end of its 95 % interval, 0.05 at least."""
    high: float
    """Upper end, 20 at most."""


def supported_temperature(logits: np.ndarray, labels: np.ndarray) -> Temperature:
    """The fitted temperature if the images tell it apart from 1, else 1.

    Few images fit a temperature that new ones are worse off with. Where all are right, the sharpest fits best, and the
    first error among new ones would be made with certainty: then no more is taken than the images ask for.

    Its 95 % interval are the T whose log-likelihood is at most 1.92 below the largest: half of the 0.95 quantile of χ²
    with one degree of freedom (Wilks 1938).

    Args:
        logits: (N, C) of images that were not trained on, one independent of the other.
        labels: (N,) class indices.
    """
    fitted = fit_temperature(logits, labels)
    least = _cross_entropy(logits, labels, math.log(fitted))

    def beyond(log_temperature: float) -> float:
        return len(labels) * (_cross_entropy(logits, labels, log_temperature) - least) - _WILKS

    best = math.log(fitted)
    low, high = (math.exp(end if beyond(end) <= 0 else float(brentq(beyond, end, best))) for end in _BOUNDS)
    endless = any(_cross_entropy(logits, labels, end) <= least for end in _BOUNDS)
    value = min(max(1.0, low), high)
    return Temperature(value if endless or value == 1 else fitted, fitted, low, high)


def fit_temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """The T in 0.05..20 of the least cross-entropy of softmax(logits / T) against the labels.

    Args:
        logits: (N, C) of images that were not trained on.
        labels: (N,) class indices.
    """
    found = minimize_scalar(lambda at: _cross_entropy(logits, labels, at), bounds=_BOUNDS, method="bounded")
    return math.exp(float(found.x))


def _cross_entropy(logits: np.ndarray, labels: np.ndarray, log_temperature: float) -> float:
    """Mean over the images, in nats."""
    scaled = logits.astype(np.float64) / math.exp(log_temperature)
    return float(-log_softmax(scaled, axis=1)[np.arange(len(labels)), labels].mean())
