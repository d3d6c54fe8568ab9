"""The label distribution generator: L = CE, and for LDG-AUs L = CE + λΩ, the pull towards neighbours in AU space."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from fer_core.dataset import Dataset
from fer_core.errors import ArtifactError
from fer_core.experiment import Experiment, LdgSettings
from fer_core.graph import Graph
from fer_core.losses import neighbour_divergence, soft_cross_entropy
from fer_core.progress import Reporter
from fer_core.training import Batch, Loss, LossTerms, Training, cross_entropy_to, targets, train


def train_ldg(
    experiment: Experiment,
    dataset: Dataset,
    labels: Literal["majority", "distribution"],
    graph: Graph | None,
    seed: int,
    folder: Path,
    device: torch.device,
    report: Reporter,
) -> None:
    """Train the LDG on hard labels, or the crowd's where `labels` says so; with a graph, the LDG-AUs.

    Raises:
        ArtifactError: the graph is of another dataset.
    """
    settings = experiment.ldg
    target = targets(dataset, labels)
    if graph is not None and len(graph.neighbours) != len(dataset.manifest):
        raise ArtifactError(f"the graph links {len(graph.neighbours)} images, the dataset has {len(dataset.manifest)}")
    pulled = graph is not None and settings.lambda_ > 0
    bank = empty_bank(target.shape) if pulled and settings.neighbours == "bank" else None
    training = Training(
        name="LDG" if graph is None else "LDG-AUs",
        architecture=settings.architecture,
        recipe=settings,
        epochs=(settings.epochs_with_neighbours if pulled else 0) or settings.epochs,
        augment=experiment.augment,
        seed=seed,
        loss=_loss(target, graph, settings, bank),
        memory={} if bank is None else {"bank": bank},
    )
    train(training, dataset, folder, device, report)


def _loss(target: Tensor, graph: Graph | None, settings: LdgSettings, bank: Tensor | None) -> Loss:
    if graph is None:
        return cross_entropy_to(target)
    if bank is None:
        return cross_entropy_with_neighbours(target, graph, settings)
    return cross_entropy_with_bank(target, graph, settings.lambda_, bank)


def empty_bank(shape: torch.Size) -> Tensor:
    """(N, classes) log-probabilities, of no image yet: NaN."""
    return torch.full(shape, torch.nan)


def cross_entropy_with_bank(target: Tensor, graph: Graph, lambda_: float, bank: Tensor) -> Loss:
    """L = CE + λΩ with the neighbours' last predictions remembered, so that no neighbour passes through the network.

    What an image was predicted to be when a batch last held it stands for f(x_j): a random view of it, by weights that
    are on average half an epoch old, and one epoch at most but for the last batches. In the first epoch an image is
    pulled only towards those neighbours that came before it.

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


def cross_entropy_with_neighbours(target: Tensor, graph: Graph, settings: LdgSettings) -> Loss:
    """L = CE + λΩ with the neighbours of a batch passed through the network, the paper's way.

    The neighbours are seen in random views of their own. Batch normalisation treats them as a batch of
    their own: they are normalised with their own statistics, and the running averages stay those of
    the batch's images. With λ = 0 nothing is passed, and what is left is the LDG's loss, to the bit.

    Args:
        target: (N, classes), one row for every row of the dataset.
    """
    if settings.lambda_ == 0:
        return cross_entropy_to(target)

    def loss(model: nn.Module, batch: Batch) -> LossTerms:
        cross_entropy = soft_cross_entropy(batch.logits, target[batch.rows].to(batch.logits.device))
        neighbours, similarity = _drawn(graph, batch, settings.neighbours_drawn)
        omega = _omega(model, batch, neighbours, similarity, settings.neighbour_gradient)
        return {"cross_entropy": cross_entropy, "lambda_omega": settings.lambda_ * omega}

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
