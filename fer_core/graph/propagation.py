"""Labels for unlabelled faces from labelled ones that move alike, and targets softened by a constant or by neighbours.

References:
    Zhu & Ghahramani, "Learning from Labeled and Unlabeled Data with Label Propagation", 2002; here one step of it,
        from labelled faces alone.
    Le et al., "Uncertainty-aware Label Distribution Learning for Facial Expression Recognition", WACV 2023 (LDLVA):
        neighbours' labels mixed into the target.
    Hastie, Tibshirani & Friedman, "The Elements of Statistical Learning", section 4.3, for the discriminant.

Needs torch alone.
"""

import torch
from torch import Tensor

SHRINKAGE = 0.1
"""Shrinkage of a linear teacher's covariance; the learning curve on FER+ was measured with it."""


def propagated(labels: Tensor, neighbours: Tensor, alike: Tensor) -> Tensor:
    """The similarity-weighted mean of the neighbours' labels.

    Args:
        labels: (N, C), rows sum to 1 wherever `neighbours` points.
        neighbours: (M, k) row numbers; alike: (M, k), not negative.

    Returns:
        (M, C), rows sum to 1; equal weights where all similarities underflow to 0.
    """
    # Never 0 / 0: far neighbours alone still make a mean.
    weights = alike.clamp(min=torch.finfo(alike.dtype).tiny)
    weights = weights / weights.sum(dim=1, keepdim=True)
    return (weights.unsqueeze(-1) * labels[neighbours]).sum(dim=1)


def mixed(own: Tensor, neighbours: Tensor, share: float) -> Tensor:
    """(1 − share) · own label + share · the neighbours' mean, LDLVA's target with one share for all. Shapes (N, C)."""
    return (1 - share) * own + share * neighbours


def smoothed(own: Tensor, share: float) -> Tensor:
    """Label smoothing: (1 − share) · own label, `share` spread over all classes. Shape (N, C) → (N, C)."""
    return (1 - share) * own + share / own.shape[-1]


def linear_discriminant(vectors: Tensor, labels: Tensor, shrinkage: float) -> tuple[Tensor, Tensor]:
    """Fisher's linear discriminant: Gaussian classes of one covariance, shrunk towards its mean variance.

    Args:
        vectors: (M, D) of labelled images; labels: (M, C) one-hot.
        shrinkage: in 0..1; above 0 also where there are fewer images than dimensions.

    Returns:
        (D, C) weights and (C,) biases: softmax(vectors @ weights + biases) are the classes' probabilities. A class
        without an image has a bias of −inf; with one image a class at most, the nearest image's is the likeliest.
    """
    counts = labels.sum(dim=0)  # (C,)
    means = (labels.T @ vectors) / counts.clamp(min=1)[:, None]  # (C, D)
    residuals = vectors - labels @ means
    covariance = residuals.T @ residuals / len(vectors)
    mean_variance = covariance.diagonal().mean()
    if mean_variance == 0:
        # One image a class says nothing of its class's spread; that of all images stands in.
        spread = (vectors - vectors.mean(dim=0)).square().mean()
        mean_variance = spread if spread > 0 else torch.ones_like(spread)
    unit = torch.eye(len(covariance), dtype=covariance.dtype, device=covariance.device)
    # Shrunk so that it can be inverted with fewer images than dimensions.
    covariance = (1 - shrinkage) * covariance + shrinkage * mean_variance * unit
    weights = torch.linalg.solve(covariance, means.T)  # (D, C)
    return weights, (counts / counts.sum()).log() - (means * weights.T).sum(dim=1) / 2
