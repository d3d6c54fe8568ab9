"""The label distribution generator: L = CE, and for LDG-AUs L = CE + λΩ, the pull towards neighbours in AU space."""

from typing import Literal

import numpy as np
import torch
from torch import Tensor

from fer_core.data.dataset import Dataset
from fer_core.data.order import cut
from fer_core.errors import ArtifactError
from fer_core.experiment import Experiment, LdgSettings
from fer_core.graph.neighbours import Graph
from fer_core.graph.unlabelled import lesson, rows_of_an_epoch
from fer_core.steps import NEIGHBOUR_SETTINGS
from fer_core.train.loop import Run, Training, targets, tell_fewer_steps, train
from fer_core.train.objectives import Objective, objective_of
from fer_core.train.self_training import weighted, with_pseudo_labels

PSEUDO_LABELS_FROM = 0.25
"""Share of the training after which pseudo-labels count."""


def train_ldg(
    experiment: Experiment,
    dataset: Dataset,
    labels: Literal["majority", "distribution"],
    graph: Graph | None,
    run: Run,
    au_coverage: dict[str, dict[str, int]] | None = None,
    to_labelled: Graph | None = None,
    teacher: np.ndarray | None = None,
) -> None:
    """Train the LDG on hard labels, or the crowd's where `labels` says so; with a graph, the LDG-AUs.

    Unlabelled images are seen where something teaches them: Ω, propagated labels, or pseudo-labels.

    Args:
        au_coverage: images by split and by what became of the action units that the graph is made from.
        to_labelled: each image's nearest labelled ones; the graph's own neighbours where all are labelled.
        teacher: (N, classes) distributions that are propagated instead of the neighbours' labels.

    Raises:
        ArtifactError: the graph is of another dataset.
        TrainingError: a crowd's distributions are asked for and the dataset has none; and as `train`.
    """
    settings = experiment.ldg
    if graph is not None and len(graph.neighbours) != len(dataset.manifest):
        raise ArtifactError(f"the graph links {len(graph.neighbours)} images, the dataset has {len(dataset.manifest)}")
    without_label = dataset.rows("unlabelled")
    pulled = graph is not None and settings.lambda_ > 0
    linked = graph is not None and bool((graph.neighbours[without_label, 0] >= 0).any())
    propagated = linked and settings.propagated > 0
    epochs = (settings.epochs_with_neighbours if pulled or propagated else 0) or settings.epochs
    taught = (linked and pulled) or propagated or settings.pseudo_labels > 0
    unlabelled = without_label if taught else np.empty(0, np.int64)
    rows = rows_of_an_epoch(dataset.rows("train"), unlabelled, settings.labelled_share)
    own = targets(dataset, labels).to(run.device)
    steps = epochs * len(cut(rows, settings.batch))
    training = Training(
        name="LDG" if graph is None else "LDG-AUs",
        architecture=settings.architecture,
        recipe=settings,
        epochs=epochs,
        augment=experiment.augment,
        objective=_objective(settings, own, without_label, graph, to_labelled or graph, teacher, steps),
        au_coverage=au_coverage,
        rows=rows,
        unused_settings=NEIGHBOUR_SETTINGS if graph is None else (),
    )
    if len(unlabelled):
        alone = settings.epochs * len(cut(dataset.rows("train"), settings.batch))
        tell_fewer_steps(training, dataset, alone, "ldg.epochs_with_neighbours", run.report)
    train(training, dataset, run)


def _objective(
    settings: LdgSettings,
    own: Tensor,
    unlabelled: np.ndarray,
    graph: Graph | None,
    to_labelled: Graph | None,
    teacher: np.ndarray | None,
    steps: int,
) -> Objective:
    """Choose the loss that is minimised over `steps` training steps.

    Args:
        own: (N, classes), the labelled images' own labels, on the device that trains.
        unlabelled: row numbers.
    """
    labelled = torch.ones(len(own), dtype=torch.bool)
    labelled[torch.from_numpy(unlabelled)] = False
    labelled = labelled.to(own.device)
    taught = lesson(own, labelled, to_labelled, settings, teacher)
    objective = objective_of(settings, taught.target, graph)
    if len(unlabelled) == 0:
        return objective
    objective = weighted(objective, taught.weight)
    if not settings.pseudo_labels:
        return objective
    weight = settings.pseudo_labels * (~labelled).float()
    return with_pseudo_labels(objective, weight, settings.pseudo_threshold, int(PSEUDO_LABELS_FROM * steps))
