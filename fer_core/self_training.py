"""Pseudo-labels: what a network is sure of about an unlabelled face becomes its label.

References:
    Lee, "Pseudo-Label: The Simple and Efficient Semi-Supervised Learning Method", ICML workshop 2013.
    Sohn et al., "FixMatch: Simplifying Semi-Supervised Learning with Consistency and Confidence", NeurIPS 2020: one
        view names the label, another, stronger one learns it.

Needs torch alone.
"""

import torch
from torch import Tensor


def confident(logits: Tensor, threshold: float | Tensor) -> tuple[Tensor, Tensor]:
    """What a network says of a view, and whether it is sure.

    Args:
        logits: (B, C).
        threshold: the least probability of the top class, in 0..1.

    Returns:
        (B, C) one-hot pseudo-labels without a gradient, and (B,) 1 where the network is sure and 0 elsewhere, float32.
    """
    probability, top = logits.detach().float().softmax(dim=-1).max(dim=-1)
    classes = torch.arange(logits.shape[-1], device=logits.device)
    # one_hot would look at the values on the host.
    return (top.unsqueeze(-1) == classes).float(), (probability >= threshold).float()
