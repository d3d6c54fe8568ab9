"""Nearest-neighbour search among AU vectors: exact, or by one Annoy index that several processes share."""

from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

import numpy as np

from fer_core.processes import process_a_core
from openface.machine import usable_cores

Search = Callable[[np.ndarray], np.ndarray]
"""From (Q,) images to (Q, count) images nearest to each, nearest first and itself mostly among them."""

_AT_A_TIME = 2500
_WORTH_A_PROCESS = 10_000
"""Below this many queries, starting processes takes longer than answering."""


def build_index(vectors: np.ndarray, trees: int, seed: int, path: Path) -> None:
    """Write an Annoy index, byte for byte the same for a seed: it needs one build thread for that."""
    from annoy import AnnoyIndex  # An exact search does without; a bare GPU machine may not have it.

    index = AnnoyIndex(vectors.shape[1], "euclidean")
    index.set_seed(seed)
    for item, vector in enumerate(vectors):
        index.add_item(item, vector)
    index.build(trees, n_jobs=1)
    index.save(str(path))


def search_trees(path: Path, dimensions: int, count: int, nodes: int, tell: Callable[[int], None]) -> Search:
    """Search an index that all processes map into memory; the answer does not depend on how many there are.

    Args:
        count: vectors to find for each; the index has as many.
        nodes: how deep to search; trees × count at least, so that as many different ones are found.
        tell: is told how many queries are answered.
    """

    def search(queries: np.ndarray) -> np.ndarray:
        parts = [queries[start : start + _AT_A_TIME] for start in range(0, len(queries), _AT_A_TIME)]
        find = partial(_find, str(path), dimensions, count, nodes)
        # Parts are the same however many processes answer them, and come back in order.
        if len(queries) < _WORTH_A_PROCESS or usable_cores() == 1:
            return _gathered(map(find, parts), len(queries), count, tell)
        with process_a_core() as pool:
            return _gathered(pool.map(find, parts), len(queries), count, tell)

    return search


def search_all(vectors: np.ndarray, count: int) -> Search:
    """Search exactly."""
    from scipy.spatial import cKDTree  # A training step reads graphs and searches none; this import would delay it.

    tree = cKDTree(vectors)

    def search(queries: np.ndarray) -> np.ndarray:
        _, found = tree.query(vectors[queries], k=np.arange(1, count + 1), workers=-1)
        return np.asarray(found, dtype=np.int32)

    return search


def _find(path: str, dimensions: int, count: int, nodes: int, queries: np.ndarray) -> np.ndarray:
    from annoy import AnnoyIndex

    index = AnnoyIndex(dimensions, "euclidean")
    index.load(path)
    return np.array([index.get_nns_by_item(query, count, search_k=nodes) for query in queries.tolist()], np.int32)


def _gathered(parts: Iterable[np.ndarray], total: int, count: int, tell: Callable[[int], None]) -> np.ndarray:
    found = np.empty((total, count), np.int32)
    done = 0
    for part in parts:
        found[done : done + len(part)] = part
        done += len(part)
        tell(done)
    return found
