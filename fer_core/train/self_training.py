"""Pseudo-labels: what a network is sure of about an unlabelled face becomes its label.

References:
    Lee, "Pseudo-Label: The Simple and Efficient Semi-Supervised Learning Method", ICML workshop 2013.
    Sohn et al., "FixMatch: Simplifying Semi-Supervised Learning with Consistency and Confidence", NeurIPS 2020: one
        view names the label, another, stronger one learns it.

Needs torch alone.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from fer_core.train.losses import soft_cross_entropy

if TYPE_CHECKING:
    from fer_core.train.objectives import Batch, LossTerms, Objective


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


def weighted(objective: Objective, weight: Tensor) -> Objective:
    """The same objective, each image's cross-entropy weighted; other terms stay.

    Args:
        weight: (N,), one for every row of the dataset, on the device that trains.
    """

    def loss(model: nn.Module, batch: Batch) -> LossTerms:
        terms = objective.loss(model, batch)
        return terms | {"cross_entropy": weight[batch.rows] * terms["cross_entropy"]}

    return replace(objective, loss=loss)


def with_pseudo_labels(objective: Objective, weight: Tensor, threshold: float, first_step: int) -> Objective:
    """The same objective and, where the network is sure of an image's mirrored view, cross-entropy to what it says.

    The mirrored view is predicted by the running averages of batch normalisation, without a gradient.

    Args:
        weight: (N,) of the added term, 0 for labelled images; on the device that trains.
        threshold: the least probability of the top class.
        first_step: from which it counts, in training steps; a network that knows nothing yet is sure of nonsense. The
            memory's `steps_taken` counts them.
    """
    steps_taken = torch.zeros((), dtype=torch.int64, device=weight.device)

    def loss(model: nn.Module, batch: Batch) -> LossTerms:
        labels, sure = confident(_mirrored_prediction(model, batch.images), threshold)
        begun = (steps_taken >= first_step).float()
        steps_taken.add_(1)
        own = weight[batch.rows] * sure * begun * soft_cross_entropy(batch.logits, labels)
        return objective.loss(model, batch) | {"pseudo_labels": own}

    return replace(objective, loss=loss, memory=objective.memory | {"steps_taken": steps_taken})


@torch.no_grad()
def _mirrored_prediction(model: nn.Module, images: Tensor) -> Tensor:
    """(B, C) logits of the mirrored images, as in evaluation; the model is left as it was."""
    training = model.training
    model.eval()
    logits: Tensor = model(images.flip(3))
    model.train(training)
    return logits
