"""The order in which a training sees its images, shuffled or so that neighbours meet, and the batches cut from it."""

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch

if TYPE_CHECKING:
    from fer_core.graph import Graph

Order = Callable[[int], np.ndarray]
"""Of an epoch, counted from 1: every training row once."""


def stream(seed: int, epoch: int, purpose: int) -> torch.Generator:
    """Random numbers for each purpose of each epoch, so that a resumed run draws what it would have."""
    drawn = np.random.SeedSequence([seed, epoch, purpose]).generate_state(2)
    return torch.Generator().manual_seed(int(drawn[0]) << 31 ^ int(drawn[1]))


def shuffled(rows: np.ndarray, seed: int) -> Order:
    """An order of its own for each epoch."""
    return lambda epoch: rows[torch.randperm(len(rows), generator=stream(seed, epoch, purpose=0)).numpy()]


def cut(order: np.ndarray, batch: int) -> list[np.ndarray]:
    """Into batches; a last batch of one joins the one before."""
    ends = list(range(batch, len(order), batch))
    if ends and len(order) - ends[-1] == 1:
        ends.pop()
    return np.split(order, ends)


def beside_neighbours(rows: np.ndarray, neighbours: np.ndarray, seed: int) -> Order:
    """Orders in which an image stands beside those of its neighbours that no image before it took.

    These groups are shuffled once they are made: the last to be made are small, of images whose neighbours are taken.

    Args:
        rows: of the training images.
        neighbours: (N, k) row numbers of training images, −1 where there is none.
    """
    links = neighbours.tolist()

    def order(epoch: int) -> np.ndarray:
        waiting = np.zeros(len(links), bool)
        waiting[rows] = True
        groups: list[list[int]] = []
        for row in shuffled(rows, seed)(epoch).tolist():
            if waiting[row]:
                group = [image for image in dict.fromkeys((row, *links[row])) if image >= 0 and waiting[image]]
                waiting[group] = False
                groups.append(group)
        again = torch.randperm(len(groups), generator=stream(seed, epoch, purpose=3)).tolist()
        return np.array([image for group in again for image in groups[group]])

    return order


def meetings(batches: Iterable[np.ndarray], neighbours: np.ndarray) -> np.ndarray:
    """(N, k) whether an image and its neighbour are in one of these batches together."""
    number = np.full(len(neighbours), -1)
    for which, rows in enumerate(batches):
        number[rows] = which
    together = number[neighbours] == number[:, None]
    return np.asarray(together & (neighbours >= 0) & (number[:, None] >= 0))


def reweighted(graph: "Graph", order: Order, batch: int, epochs: int) -> tuple["Graph", float]:
    """a_ij · epochs / (epochs in which i and j meet): over a training a pair counts as if it met in each.

    What an image had for pairs that never meet goes to those of its pairs that do, so that its Σ_j a_ij stays.

    Returns:
        The graph, for these orders alone; and the share of Σ_ij a_ij whose pairs never meet.
    """
    met = np.zeros(graph.neighbours.shape, np.int32)
    for epoch in range(1, epochs + 1):
        met += meetings(cut(order(epoch), batch), graph.neighbours)
    alike = graph.similarity
    reached = np.where(met > 0, alike, 0).astype(np.float32)
    made_up = alike.sum(axis=1, keepdims=True) / np.maximum(reached.sum(axis=1, keepdims=True), 1e-12)
    similarity = (reached * made_up * epochs / np.maximum(met, 1)).astype(np.float32)
    return replace(graph, similarity=similarity), 1 - float(reached.sum() / max(alike.sum(), 1e-12))
