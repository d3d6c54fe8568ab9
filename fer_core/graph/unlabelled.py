"""Faces without a label: the label that their neighbours suggest, its weight, and how often each face is seen."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from fer_core.errors import ActionUnitError
from fer_core.graph.action_units import ActionUnits
from fer_core.graph.neighbours import Graph, similarity
from fer_core.graph.propagation import SHRINKAGE, linear_discriminant, mixed, propagated, smoothed

if TYPE_CHECKING:
    from fer_core.experiment import GraphSettings, LdgSettings


@dataclass(frozen=True)
class Lesson:
    """Training target and weight of each image of a dataset."""

    target: Tensor
    """(N, classes), rows sum to 1; uniform where an image teaches nothing."""
    weight: Tensor
    """(N,), of the cross-entropy: 1 for a labelled image, 0 for one that is learnt from by other terms alone."""


def link_to_labelled(units: ActionUnits, labelled: np.ndarray, settings: GraphSettings) -> Graph:
    """Link every image that has usable AUs to its nearest labelled images, itself excluded.

    The similarity is the graph's, with a σ of its own where σ is `auto`: the median distance, and at worst 1.
    `graph.control = random` draws labelled images in the place of neighbours and keeps every similarity.

    Args:
        labelled: row numbers of the labelled training images.

    Raises:
        ActionUnitError: too few labelled images have usable AUs.
    """
    from scipy.spatial import cKDTree  # A training step reads these links and makes none; this import would delay it.

    sources, k = labelled[units.usable[labelled]], settings.labelled_k
    if len(sources) <= k:
        raise ActionUnitError(
            f"graph.labelled_k = {k}, but only {len(sources)} of {len(labelled)} labelled images have "
            f"{units.called}; lower graph.labelled_k, or label more"
        )
    rows = np.flatnonzero(units.usable)
    # One more than k, since a labelled image finds itself.
    distance, place = cKDTree(units.places[sources]).query(units.places[rows], k=k + 1)
    near, distance = _without_self(rows, sources[place], distance)
    sigma_squared = float(np.median(distance)) or 1.0 if settings.sigma == "auto" else float(settings.sigma) ** 2
    if settings.control == "random":
        near = np.random.default_rng(settings.seed).choice(sources, near.shape)
    shape = (len(units.usable), k)
    graph = Graph(np.full(shape, -1, np.int32), np.full(shape, np.nan, np.float32), np.zeros(shape, np.float32))
    graph.neighbours[rows], graph.distance[rows] = near, distance
    graph.similarity[rows] = similarity(distance, sigma_squared)
    return graph


def _without_self(rows: np.ndarray, near: np.ndarray, distance: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The first k of k + 1 neighbours that are not the image itself; (N, k) each."""
    itself = near == rows[:, None]
    # An unlabelled image does not find itself, and drops the farthest instead.
    itself[~itself.any(axis=1), -1] = True
    kept = ~itself
    return near[kept].reshape(len(rows), -1), distance[kept].reshape(len(rows), -1)


def linear_teacher(units: ActionUnits, labelled: np.ndarray, labels: np.ndarray, classes: int) -> np.ndarray:
    """What Fisher's linear discriminant of the AU vectors, fitted to the labelled images, says of every image.

    Args:
        labelled: row numbers of the labelled training images.
        labels: (N,) hard labels.

    Returns:
        (N, classes) float32 probabilities; NaN for images without usable AUs.

    Raises:
        ActionUnitError: no labelled image has usable AUs.
    """
    sources = labelled[units.usable[labelled]]
    if not len(sources):
        raise ActionUnitError(
            f"graph.teacher = linear: no labelled image has {units.called}; look at their coverage, or label more"
        )
    vectors = torch.from_numpy(units.vectors.astype(np.float64))
    one_hot = torch.eye(classes, dtype=torch.float64)[torch.from_numpy(labels[sources])]
    weights, biases = linear_discriminant(vectors[torch.from_numpy(sources)], one_hot, SHRINKAGE)
    probabilities = (vectors @ weights + biases).softmax(dim=1).numpy().astype(np.float32)
    probabilities[~units.usable] = np.nan
    return probabilities


def shuffled(teacher: np.ndarray, rows: np.ndarray, seed: int) -> np.ndarray:
    """The control of `graph.control = random` for a teacher: each of these images is given another's distribution."""
    known, control = rows[np.isfinite(teacher[rows]).all(axis=1)], teacher.copy()
    control[known] = teacher[np.random.default_rng(seed).permutation(known)]
    return control


def lesson(
    hard: Tensor,
    labelled: Tensor,
    to_labelled: Graph | None,
    settings: LdgSettings,
    teacher: np.ndarray | None = None,
) -> Lesson:
    """Targets and weights by the recipe: smoothing, neighbours' labels mixed in, and labels propagated.

    With `smoothing`, `mixed` and `propagated` at 0 it is the labelled images' own labels at weight 1.

    Args:
        hard: (N, classes), the labelled images' own labels or distributions; what stands elsewhere is not looked at.
        labelled: (N,) bool.
        to_labelled: each image's nearest labelled ones; None where nothing is known of action units.
        teacher: (N, classes) distributions that take the place of the neighbours' mean labels; NaN where unknown.
    """
    # (N, classes): an unlabelled image begins with the uniform distribution, at weight 0.
    own = torch.where(labelled.unsqueeze(1), hard, 1 / hard.shape[1])
    weight = labelled.float()
    if to_labelled is not None and (settings.mixed or settings.propagated):
        of_neighbours, linked = _suggested(own, to_labelled) if teacher is None else _known(teacher, own)
        # Labelled images mix their neighbours in; unlabelled ones have nothing but their neighbours.
        taught = linked & ~labelled
        own = torch.where((linked & labelled).unsqueeze(1), mixed(own, of_neighbours, settings.mixed), own)
        own = torch.where(taught.unsqueeze(1), of_neighbours, own)
        weight = weight + settings.propagated * taught
    smooth = smoothed(own, settings.smoothing)
    return Lesson(torch.where(labelled.unsqueeze(1), smooth, own), weight)


def _suggested(own: Tensor, to_labelled: Graph) -> tuple[Tensor, Tensor]:
    """The neighbours' mean label of each image, (N, classes), and which images have neighbours, (N,)."""
    linked = torch.from_numpy(to_labelled.neighbours[:, 0] >= 0).to(own.device)
    near = torch.from_numpy(to_labelled.neighbours.astype(np.int64)).to(own.device).clamp(min=0)
    alike = torch.from_numpy(to_labelled.similarity).to(own.device)
    return propagated(own, near, alike), linked


def _known(teacher: np.ndarray, own: Tensor) -> tuple[Tensor, Tensor]:
    """A teacher's distributions, (N, classes), and of which images it has one, (N,)."""
    taught = torch.from_numpy(teacher).to(own.device, own.dtype)
    return taught, taught.isfinite().all(dim=1)


def rows_of_an_epoch(labelled: np.ndarray, unlabelled: np.ndarray, share: float) -> np.ndarray:
    """Each unlabelled image once, and labelled ones repeated until they make about `share` of all."""
    times = round(share / (1 - share) * len(unlabelled) / len(labelled)) if len(unlabelled) else 1
    return np.concatenate((np.tile(labelled, max(1, times)), unlabelled))
