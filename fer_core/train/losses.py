"""The losses of the method, as pure functions of logits; the caller reduces over the batch.

References:
    Mastropasqua & Acevedo: L(θ) = CE + λΩ(θ), Ω(θ) = Σ_ij a_ij · KL(f(x_j) ‖ f(x_i)), their equation (1).
    Zhao, Liu & Zhou, "Robust Lightweight Facial Expression Recognition Network with Label Distribution
    Training", AAAI 2021: cross-entropy of EfficientFace against the generator's distribution.
"""

import torch
from torch import Tensor
from torch.nn import functional as F


def soft_cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    """−Σ_c target_c · log softmax(logits)_c, in float32, or float64 where the logits are.

    The sum runs over classes. The original EfficientFace takes the mean over classes too, which is this loss with
    1/C of the learning rate and C times the weight decay.

    Args:
        logits: (N, C), any real values.
        target: (N, C), probabilities: rows sum to 1; zeros are allowed.

    Returns:
        (N,), non-negative, one loss an image.
    """
    logits = _at_least_float32(logits)
    return -(target.to(logits.dtype) * F.log_softmax(logits, dim=-1)).sum(dim=-1)


def kullback_leibler(log_truth: Tensor, log_prediction: Tensor) -> Tensor:
    """KL(truth ‖ prediction) = Σ_c truth_c · (log truth_c − log prediction_c), in log-space.

    Args:
        log_truth, log_prediction: (..., C), finite log-probabilities, as log-softmax gives them; a probability
            that underflows to 0 adds 0.

    Returns:
        (...), non-negative up to rounding, in nats.
    """
    return (log_truth.exp() * (log_truth - log_prediction)).sum(dim=-1)


def neighbour_divergence(
    logits: Tensor, neighbour_logits: Tensor, similarity: Tensor, *, neighbour_gradient: bool = False
) -> Tensor:
    """An image's share of Ω: Σ_j a_ij · KL(f(x_j) ‖ f(x_i)), equation (1), in float32 from logits, or in their float64.

    Args:
        logits: (N, C), of the images x_i.
        neighbour_logits: (N, k, C), of each image's neighbours x_j.
        similarity: (N, k), a_ij in 0..1; 0 where an image has no such neighbour.
        neighbour_gradient: whether f(x_j) is differentiated too; otherwise it is a fixed target.

    Returns:
        (N,), non-negative up to rounding; Ω over a batch is its sum.
    """
    neighbours = F.log_softmax(_at_least_float32(neighbour_logits), dim=-1)
    if not neighbour_gradient:
        neighbours = neighbours.detach()
    own = F.log_softmax(_at_least_float32(logits), dim=-1).unsqueeze(1)
    return (similarity * kullback_leibler(neighbours, own)).sum(dim=-1)


def _at_least_float32(logits: Tensor) -> Tensor:
    """Compute in float32: half precision has too few digits for differences of logarithms."""
    return logits.to(torch.promote_types(logits.dtype, torch.float32))
