"""What each model of the method minimises, batch by batch: cross-entropy, and with neighbours L = CE + λΩ.

Needs torch and numpy alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from fer_core.losses import neighbour_divergence, soft_cross_entropy

if TYPE_CHECKING:
    from fer_core.graph import Graph


@dataclass(frozen=True)
class Batch:
    """What a loss needs to know of a training batch."""

    rows: np.ndarray
    """(B,) row numbers in the dataset."""
    images: Tensor
    """(B, 3, S, S), one random view of each image."""
    logits: Tensor
    """(B, C), what the model made of them."""
    random_views: Callable[[np.ndarray], Tensor]
    """Random views of other rows, drawn without disturbing the batch's own."""
    generator: torch.Generator
    """For whatever else the loss draws."""


LossTerms = dict[str, Tensor]
"""Per-image losses (B,) by name; their sum is minimised."""
Loss = Callable[[nn.Module, Batch], LossTerms]


def cross_entropy_to(target: Tensor) -> Loss:
    """Soft cross-entropy against fixed distributions; with one-hot rows, the usual cross-entropy.

    Args:
        target: (N, classes), one row for every row of the dataset.
    """

    def loss(model: nn.Module, batch: Batch) -> LossTerms:
        return {"cross_entropy": soft_cross_entropy(batch.logits, target[batch.rows].to(batch.logits.device))}

    return loss


def empty_bank(shape: torch.Size) -> Tensor:
    """(N, classes) log-probabilities, of no image yet: NaN."""
    return torch.full(shape, torch.nan)


def cross_entropy_with_bank(target: Tensor, graph: Graph, lambda_: float, bank: Tensor) -> Loss:
    """L = CE + λΩ with the neighbours' last predictions remembered, so that no neighbour passes through the network.

    What an image was predicted to be when a batch last held it stands for f(x_j): a random view of it, by weights that
    are 7/12 of an epoch old on average; one in six is older than an epoch, and none is as old as two. In the first
    epoch an image is pulled only towards those neighbours that came before it.

    Args:
        target: (N, classes), one row for every row of the dataset.
        bank: (N, classes) log-probabilities, NaN where an image was not predicted yet; each batch writes its own.
    """
    links, alike = torch.from_numpy(graph.neighbours.astype(np.int64)), torch.from_numpy(graph.similarity)

    def loss(model: nn.Module, batch: Batch) -> LossTerms:
        rows, device = torch.from_numpy(batch.rows), batch.logits.device
        remembered = bank[links[rows].clamp(min=0)]  # (B, k, C)
        known = torch.isfinite(remembered).all(dim=-1) & (links[rows] >= 0)
        weights = torch.where(known, alike[rows], 0.0)
        remembered = torch.where(known.unsqueeze(-1), remembered, 0.0)
        omega = neighbour_divergence(batch.logits, remembered.to(device), weights.to(device))
        bank[rows] = torch.log_softmax(batch.logits.detach().float(), dim=-1).cpu()
        cross_entropy = soft_cross_entropy(batch.logits, target[batch.rows].to(device))
        return {"cross_entropy": cross_entropy, "lambda_omega": lambda_ * omega}

    return loss


def cross_entropy_with_batch(target: Tensor, graph: Graph, lambda_: float, *, neighbour_gradient: bool = False) -> Loss:
    """L = CE + λΩ with those neighbours that the batch itself holds, for batches composed so that neighbours meet.

    Args:
        target: (N, classes), one row for every row of the dataset.
        graph: similarities weighted by how seldom its pairs meet, as `fer_core.batches.reweighted` gives them.
        neighbour_gradient: whether f(x_j) is differentiated too.
    """

    def loss(model: nn.Module, batch: Batch) -> LossTerms:
        neighbours, similarity = graph.neighbours[batch.rows], graph.similarity[batch.rows]
        by_row = np.argsort(batch.rows)
        place = by_row[np.searchsorted(batch.rows, neighbours, sorter=by_row) % len(by_row)]  # (B, k)
        weights = torch.from_numpy(np.where(batch.rows[place] == neighbours, similarity, np.float32(0)))
        omega = neighbour_divergence(
            batch.logits,
            batch.logits[torch.from_numpy(place)],
            weights.to(batch.logits.device),
            neighbour_gradient=neighbour_gradient,
        )
        cross_entropy = soft_cross_entropy(batch.logits, target[batch.rows].to(batch.logits.device))
        return {"cross_entropy": cross_entropy, "lambda_omega": lambda_ * omega}

    return loss


def cross_entropy_with_neighbours(
    target: Tensor, graph: Graph, lambda_: float, neighbours_drawn: int = 0, *, neighbour_gradient: bool = False
) -> Loss:
    """L = CE + λΩ with the neighbours of a batch passed through the network, the paper's way.

    The neighbours are seen in random views of their own. Batch normalisation treats them as a batch of
    their own: they are normalised with their own statistics, and the running averages stay those of
    the batch's images. With λ = 0 nothing is passed, and what is left is the LDG's loss, to the bit.

    Args:
        target: (N, classes), one row for every row of the dataset.
        neighbours_drawn: how many of an image's k are passed, drawn anew each time; 0 for all.
        neighbour_gradient: whether f(x_j) is differentiated too.
    """
    if lambda_ == 0:
        return cross_entropy_to(target)

    def loss(model: nn.Module, batch: Batch) -> LossTerms:
        cross_entropy = soft_cross_entropy(batch.logits, target[batch.rows].to(batch.logits.device))
        neighbours, similarity = _drawn(graph, batch, neighbours_drawn)
        omega = _omega(model, batch, neighbours, similarity, neighbour_gradient)
        return {"cross_entropy": cross_entropy, "lambda_omega": lambda_ * omega}

    return loss


def _omega(
    model: nn.Module, batch: Batch, neighbours: np.ndarray, similarity: np.ndarray, neighbour_gradient: bool
) -> Tensor:
    """Each image's share of Ω: (B,)."""
    linked = neighbours >= 0
    if not linked.any():
        return torch.zeros(len(batch.rows), device=batch.logits.device)
    distinct, position = np.unique(neighbours[linked], return_inverse=True)
    place = np.zeros_like(neighbours)
    place[linked] = position
    with frozen_running_statistics(model), nullcontext() if neighbour_gradient else torch.no_grad():
        logits = model(batch.random_views(distinct))[torch.from_numpy(place)]  # (B, k, C)
    weights = torch.from_numpy(similarity).to(logits.device)
    return neighbour_divergence(batch.logits, logits, weights, neighbour_gradient=neighbour_gradient)


def _drawn(graph: Graph, batch: Batch, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The batch's neighbours and similarities, or `count` of each image's k with similarities to make up for it."""
    neighbours, similarity = graph.neighbours[batch.rows], graph.similarity[batch.rows]
    k = neighbours.shape[1]
    if count == 0 or count >= k:
        return neighbours.astype(np.int64), similarity
    drawn = torch.rand(neighbours.shape, generator=batch.generator).argsort(dim=1)[:, :count].numpy()
    taken = np.take_along_axis(neighbours, drawn, axis=1).astype(np.int64)
    return taken, np.take_along_axis(similarity, drawn, axis=1) * np.float32(k / count)


@contextmanager
def frozen_running_statistics(model: nn.Module) -> Iterator[None]:
    """Let batch normalisation use the batch's statistics without remembering them."""
    layers = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.track_running_stats]
    for layer in layers:
        layer.track_running_stats = False
    try:
        yield
    finally:
        for layer in layers:
            layer.track_running_stats = True
