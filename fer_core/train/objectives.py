"""The objective of each model, batch by batch: cross-entropy, and with neighbours L = CE + λΩ.

Targets, links and memory lie on the device that trains, and no loss waits for it: nothing is read back to the CPU.
Needs torch and numpy alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Generator, Tensor, nn

from fer_core.data.order import Companions, KeptViews, view_of
from fer_core.train.losses import neighbour_divergence, soft_cross_entropy

if TYPE_CHECKING:
    from fer_core.experiment import LdgSettings
    from fer_core.graph.neighbours import Graph


@dataclass(frozen=True)
class Neighbours:
    """Neighbours that are forwarded with a batch."""

    images: Tensor
    """(M, 3, S, S), one random view of each."""
    place: Tensor
    """(B, k) int64, where in `images` an image's neighbours are."""
    similarity: Tensor
    """(B, k), a_ij; 0 where an image has no such neighbour."""


@dataclass(frozen=True)
class Batch:
    """What a loss needs to know of a training batch."""

    rows: Tensor
    """(B,) int64, row numbers in the dataset."""
    images: Tensor
    """(B, 3, S, S), one random view of each image."""
    logits: Tensor
    """(B, C), what the model made of them."""
    neighbours: Neighbours | None = None
    """Those that the objective's companions chose."""


LossTerms = dict[str, Tensor]
"""Per-image losses (B,) by name; their sum is minimised."""
Loss = Callable[[nn.Module, Batch], LossTerms]


def _begin_nothing(epoch: int) -> None:
    """Most losses are the same in every epoch."""


@dataclass(frozen=True)
class Objective:
    """A loss with what it needs from one batch to the next."""

    loss: Loss
    """What is minimised."""
    memory: dict[str, Tensor] = field(default_factory=dict)
    """Tensors that the loss changes in place; they are kept with each finished epoch."""
    companions: Companions | None = None
    """What chooses the neighbours that pass through the network with a batch."""
    kept: KeptViews | None = None
    """The views that the loss knows, which are then all that is shown."""
    begin: Callable[[int], None] = _begin_nothing
    """Called with an epoch's number before its first step."""


def cross_entropy_to(target: Tensor) -> Objective:
    """Soft cross-entropy against fixed distributions; with one-hot rows, the usual cross-entropy.

    Args:
        target: (N, classes), one row for every row of the dataset.
    """

    def loss(model: nn.Module, batch: Batch) -> LossTerms:
        return {"cross_entropy": soft_cross_entropy(batch.logits, target[batch.rows])}

    return Objective(loss)


def cross_entropy_by_view(labels: Tensor, kept: KeptViews) -> Objective:
    """Soft cross-entropy against the label of the very view that an epoch shows.

    Beyer et al., "Knowledge distillation: a good teacher is patient and consistent", CVPR 2022: student and teacher
    see the same crop.

    Args:
        labels: (n, N, classes) float16 on the device that trains, of n views of every row of the dataset.
        kept: these views.
    """
    # One element, not none: torch reads an index without dimensions back to the CPU, which waits for the device.
    view = torch.zeros(1, dtype=torch.int64, device=labels.device)

    def begin(epoch: int) -> None:
        view.fill_(view_of(epoch, len(labels)))

    def loss(model: nn.Module, batch: Batch) -> LossTerms:
        return {"cross_entropy": soft_cross_entropy(batch.logits, labels[view, batch.rows])}

    return Objective(loss, kept=kept, begin=begin)


def cross_entropy_online(generator: nn.Module) -> Objective:
    """Soft cross-entropy against what a frozen generator says of the batch's own views, asked in every step.

    Args:
        generator: in evaluation mode, on the device that trains; takes the student's input.
    """
    generator.requires_grad_(False)

    def loss(model: nn.Module, batch: Batch) -> LossTerms:
        with torch.no_grad():
            target = torch.softmax(generator(batch.images).float(), dim=-1)
        return {"cross_entropy": soft_cross_entropy(batch.logits, target)}

    return Objective(loss)


def objective_of(settings: LdgSettings, target: Tensor, graph: Graph | None) -> Objective:
    """The generator's objective: CE for the LDG, CE + λΩ for LDG-AUs. λ = 0 counts as no graph.

    Args:
        target: (N, classes), one row for every row of the dataset, on the device that trains.
    """
    if graph is None or settings.lambda_ == 0:
        return cross_entropy_to(target)
    if settings.neighbours == "bank":
        return cross_entropy_with_bank(target, graph, settings.lambda_)
    return cross_entropy_with_neighbours(
        target,
        graph,
        settings.lambda_,
        settings.neighbours_drawn,
        neighbour_gradient=settings.neighbour_gradient,
    )


def empty_bank(target: Tensor) -> Tensor:
    """(N, classes) log-probabilities beside the targets; NaN, as no image was predicted yet."""
    return torch.full_like(target, torch.nan)


def cross_entropy_with_bank(target: Tensor, graph: Graph, lambda_: float) -> Objective:
    """L = CE + λΩ with the neighbours' last predictions remembered, so that no neighbour passes through the network.

    What an image was predicted to be when a batch last held it stands for f(x_j): a random view of it, by weights that
    are 7/12 of an epoch old on average; one in six is older than an epoch, and none is as old as two. In the first
    epoch an image is pulled only towards those neighbours that came before it.

    The memory's `bank` holds (N, classes) log-probabilities, NaN where an image was not predicted yet; each batch
    writes its own rows.

    Args:
        target: (N, classes), one row for every row of the dataset.
    """
    bank = empty_bank(target)
    links = torch.from_numpy(graph.neighbours.astype(np.int64)).to(target.device)
    similarity = torch.from_numpy(graph.similarity).to(target.device)

    def loss(model: nn.Module, batch: Batch) -> LossTerms:
        neighbours = links[batch.rows]  # (B, k), −1 where there is none
        remembered = bank[neighbours.clamp(min=0)]  # (B, k, C)
        known = torch.isfinite(remembered).all(dim=-1) & (neighbours >= 0)
        weights = torch.where(known, similarity[batch.rows], 0.0)
        # Unknown rows weigh nothing, but 0 × NaN would still be NaN.
        remembered = torch.where(known.unsqueeze(-1), remembered, 0.0)
        omega = neighbour_divergence(batch.logits, remembered, weights)
        # After Ω was taken, so that no image is pulled towards what was just said of it.
        bank[batch.rows] = torch.log_softmax(batch.logits.detach().float(), dim=-1)
        cross_entropy = soft_cross_entropy(batch.logits, target[batch.rows])
        return {"cross_entropy": cross_entropy, "lambda_omega": lambda_ * omega}

    return Objective(loss, memory={"bank": bank})


def cross_entropy_with_neighbours(
    target: Tensor, graph: Graph, lambda_: float, neighbours_drawn: int = 0, *, neighbour_gradient: bool = False
) -> Objective:
    """L = CE + λΩ with the neighbours of a batch passed through the network, the paper's way.

    The neighbours are seen in random views of their own. Batch normalisation treats them as a batch of
    their own: they are normalised with their own statistics, and the running averages stay those of
    the batch's images.

    Args:
        target: (N, classes), one row for every row of the dataset.
        neighbours_drawn: how many of an image's k are passed, drawn anew each time; 0 for all.
        neighbour_gradient: whether f(x_j) is differentiated too.
    """

    def loss(model: nn.Module, batch: Batch) -> LossTerms:
        cross_entropy = soft_cross_entropy(batch.logits, target[batch.rows])
        omega = _omega(model, batch, neighbour_gradient)
        return {"cross_entropy": cross_entropy, "lambda_omega": lambda_ * omega}

    return Objective(loss, companions=lambda rows, generator: _linked(graph, rows, neighbours_drawn, generator))


def _omega(model: nn.Module, batch: Batch, neighbour_gradient: bool) -> Tensor:
    """Each image's share of Ω: (B,)."""
    neighbours = batch.neighbours
    assert neighbours is not None
    if len(neighbours.images) == 0:
        return torch.zeros(len(batch.rows), device=batch.logits.device)
    with frozen_running_statistics(model), nullcontext() if neighbour_gradient else torch.no_grad():
        # Each neighbour passes once, however many of the batch's images have it: (M, C) to (B, k, C).
        logits = model(neighbours.images)[neighbours.place]
    return neighbour_divergence(batch.logits, logits, neighbours.similarity, neighbour_gradient=neighbour_gradient)


def _linked(
    graph: Graph, rows: np.ndarray, count: int, generator: Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A batch's neighbours, each once: their rows (M,), where each image's are among them (B, k), and a_ij (B, k)."""
    neighbours, similarity = _drawn(graph, rows, count, generator)
    linked = neighbours >= 0
    distinct, position = np.unique(neighbours[linked], return_inverse=True)
    # Where there is no neighbour the place is 0, somebody else's; its similarity of 0 makes it count for nothing.
    place = np.zeros_like(neighbours)
    place[linked] = position
    return distinct, place, similarity


def _drawn(graph: Graph, rows: np.ndarray, count: int, generator: Generator) -> tuple[np.ndarray, np.ndarray]:
    """The batch's neighbours and similarities, or `count` of each image's k with similarities to make up for it."""
    neighbours, similarity = graph.neighbours[rows].astype(np.int64), graph.similarity[rows]
    k = neighbours.shape[1]
    if count == 0 or count >= k:
        return neighbours, similarity
    # The first of a random order of each row: `count` different ones.
    drawn = torch.rand(neighbours.shape, generator=generator).argsort(dim=1)[:, :count].numpy()
    taken = np.take_along_axis(neighbours, drawn, axis=1)
    return taken, np.take_along_axis(similarity, drawn, axis=1) * np.float32(k / count)


@contextmanager
def frozen_running_statistics(model: nn.Module) -> Iterator[None]:
    """Let batch normalisation use the batch's statistics without remembering them."""
    layers = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.track_running_stats]
    # A layer that does not track takes the batch's statistics in training, and writes nothing.
    for layer in layers:
        layer.track_running_stats = False
    try:
        yield
    finally:
        for layer in layers:
            layer.track_running_stats = True
