"""The label distribution generator: L = CE, and for LDG-AUs L = CE + λΩ, the pull towards neighbours in AU space."""

from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from fer_core.batches import Order, beside_neighbours, reweighted
from fer_core.dataset import Dataset
from fer_core.errors import ArtifactError
from fer_core.experiment import Experiment, LdgSettings
from fer_core.graph import Graph
from fer_core.objectives import (
    Loss,
    cross_entropy_to,
    cross_entropy_with_bank,
    cross_entropy_with_batch,
    cross_entropy_with_neighbours,
    empty_bank,
)
from fer_core.progress import Reporter
from fer_core.training import Training, targets, train


def train_ldg(
    experiment: Experiment,
    dataset: Dataset,
    labels: Literal["majority", "distribution"],
    graph: Graph | None,
    seed: int,
    folder: Path,
    device: torch.device,
    report: Reporter,
    au_coverage: dict[str, dict[str, int]] | None = None,
) -> None:
    """Train the LDG on hard labels, or the crowd's where `labels` says so; with a graph, the LDG-AUs.

    Args:
        au_coverage: images by split and by what became of the action units that the graph is made from.

    Raises:
        ArtifactError: the graph is of another dataset.
    """
    settings = experiment.ldg
    target = targets(dataset, labels)
    if graph is not None and len(graph.neighbours) != len(dataset.manifest):
        raise ArtifactError(f"the graph links {len(graph.neighbours)} images, the dataset has {len(dataset.manifest)}")
    pulled = graph is not None and settings.lambda_ > 0
    epochs = (settings.epochs_with_neighbours if pulled else 0) or settings.epochs
    bank = empty_bank(target.shape) if pulled and settings.neighbours == "bank" else None
    order = None
    if graph is not None and pulled and settings.neighbours == "batch":
        order = beside_neighbours(dataset.rows("train"), graph.neighbours, seed)
        graph, apart = reweighted(graph, order, settings.batch, epochs)
        report.note(f"LDG-AUs · seed {seed}: {apart:.1%} of the pull is of pairs that never meet in a batch")
    training = Training(
        name="LDG" if graph is None else "LDG-AUs",
        architecture=settings.architecture,
        recipe=settings,
        epochs=epochs,
        augment=experiment.augment,
        seed=seed,
        loss=_loss(target, graph, settings, bank, order),
        memory={} if bank is None else {"bank": bank},
        order=order,
        au_coverage=au_coverage,
    )
    train(training, dataset, folder, device, report)


def _loss(target: Tensor, graph: Graph | None, settings: LdgSettings, bank: Tensor | None, order: Order | None) -> Loss:
    if graph is None:
        return cross_entropy_to(target)
    if bank is not None:
        return cross_entropy_with_bank(target, graph, settings.lambda_, bank)
    if order is not None:
        return cross_entropy_with_batch(target, graph, settings.lambda_, neighbour_gradient=settings.neighbour_gradient)
    return cross_entropy_with_neighbours(
        target,
        graph,
        settings.lambda_,
        settings.neighbours_drawn,
        neighbour_gradient=settings.neighbour_gradient,
    )
