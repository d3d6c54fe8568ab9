"""The approximate nearest-neighbour graph in AU space, and a_ij = exp(−‖l_i − l_j‖ / σ²).

Identical vectors are searched once: of the real AU presences of FER+, 27,691 images share 14,836 vectors, and an
index of trees returns the same few of a crowd of equals to everyone. The rule for ties is: among the images
at equal distance that the search returns, a draw that the seed and the image's row decide.
"""

import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from annoy import AnnoyIndex

from fer_core.au_features import ActionUnits
from fer_core.errors import ActionUnitError, ArtifactError
from fer_core.experiment import GraphSettings
from fer_core.progress import Reporter

_RECALL_SAMPLE = 1000
_SPARE = 4
"""Vectors asked for, as a multiple of k, so that ties at the k-th distance are drawn from more than the first."""
_SAME = 1e-5
"""Distances closer than this are equal; float32 sums of 35 squares are no better."""


@dataclass(frozen=True)
class Graph:
    """Neighbours of every image of a dataset; only training images with usable AUs have any.

    neighbours: (N, k) int32 row numbers, −1 where there is none, nearest first
    distance: (N, k) float32 Euclidean distance in AU space, NaN where there is none
    similarity: (N, k) float32 a_ij in 0..1, 0 where there is none
    """

    neighbours: np.ndarray
    distance: np.ndarray
    similarity: np.ndarray


@dataclass(frozen=True)
class GraphCard:
    """How a graph came about and how good it is."""

    images: int
    distinct_vectors: int
    k: int
    sigma_squared: float
    trees: int
    nodes_searched: int
    recall: float
    """Share of the k neighbours no farther than the exact k-th, over a sample of the images."""
    seconds: float
    control: str
    coverage: dict[str, dict[str, int]]


def link_neighbours(
    units: ActionUnits, train: np.ndarray, settings: GraphSettings, report: Reporter
) -> tuple[Graph, GraphCard]:
    """Link every training image with usable AUs to its k nearest.

    Args:
        train: row numbers of the training split.

    Raises:
        ActionUnitError: too few training images have usable AUs.
    """
    started = time.perf_counter()
    rows = train[units.usable[train]]
    if len(rows) <= settings.k:
        raise ActionUnitError(
            f"graph.k = {settings.k}, but only {len(rows)} of {len(train)} training images have usable AUs; "
            "lower graph.k, or look at the coverage of the AU table"
        )
    vectors, vector_of = np.unique(units.vectors[rows], axis=0, return_inverse=True)
    vector_of = vector_of.reshape(-1)
    index = build_index(vectors, settings.trees, settings.seed)
    nodes, recall = _search_depth(index, vectors, vector_of, settings)
    report.note(f"graph: recall@{settings.k} {recall:.4f}, searching {nodes} nodes of {settings.trees} trees")
    near, distance = _nearest(index, vectors, vector_of, np.arange(len(rows)), nodes, settings, report)
    sigma_squared = _sigma_squared(distance, settings)
    if settings.control == "random":
        near = _random_neighbours(len(rows), settings)
    graph = _spread(units, rows, rows[near], distance, similarity(distance, sigma_squared))
    card = GraphCard(
        images=len(rows),
        distinct_vectors=len(vectors),
        k=settings.k,
        sigma_squared=sigma_squared,
        trees=settings.trees,
        nodes_searched=nodes,
        recall=recall,
        seconds=time.perf_counter() - started,
        control=settings.control,
        coverage=units.coverage,
    )
    return graph, card


def similarity(distance: np.ndarray, sigma_squared: float) -> np.ndarray:
    """a_ij = exp(−‖l_i − l_j‖ / σ²), the paper's similarity of two AU vectors.

    Args:
        distance: Euclidean, any shape, not negative.

    Returns:
        Same shape, in 0..1, 1 for equal vectors.
    """
    return np.exp(-distance / sigma_squared)


def build_index(vectors: np.ndarray, trees: int, seed: int) -> AnnoyIndex:
    """An Annoy index, byte for byte the same for a seed: it needs one build thread for that."""
    index = AnnoyIndex(vectors.shape[1], "euclidean")
    index.set_seed(seed)
    for item, vector in enumerate(vectors):
        index.add_item(item, vector)
    index.build(trees, n_jobs=1)
    return index


def exact_kth_distance(vectors: np.ndarray, queries: np.ndarray, k: int) -> np.ndarray:
    """Distance of the k-th nearest other vector, by looking at all of them: (len(queries),).

    Args:
        vectors: (M, D), with repeats.
        queries: positions in `vectors`; a vector is not its own neighbour, its equals are.
    """
    kth = np.empty(len(queries))
    for position, query in enumerate(queries):
        distance = np.linalg.norm(vectors - vectors[query], axis=1)
        distance[query] = np.inf
        kth[position] = np.partition(distance, k - 1)[k - 1]
    return kth


def save_graph(folder: Path, graph: Graph, card: GraphCard) -> None:
    """Write `graph.npz` and `graph.json`."""
    np.savez(folder / "graph.npz", neighbours=graph.neighbours, distance=graph.distance, similarity=graph.similarity)
    (folder / "graph.json").write_text(json.dumps(asdict(card), indent=1), encoding="utf-8")


def load_graph(folder: Path) -> tuple[Graph, GraphCard]:
    """Read what `save_graph` wrote.

    Raises:
        ArtifactError: it is not readable.
    """
    try:
        with np.load(folder / "graph.npz", allow_pickle=False) as arrays:
            graph = Graph(arrays["neighbours"], arrays["distance"], arrays["similarity"])
        card = GraphCard(**json.loads((folder / "graph.json").read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ArtifactError(f"{folder}: not a graph ({error}); make one with `fer graph`") from error
    return graph, card


def _search_depth(
    index: AnnoyIndex, vectors: np.ndarray, vector_of: np.ndarray, settings: GraphSettings
) -> tuple[int, float]:
    """Double the nodes searched until a sample of images reaches the recall, or all nodes are searched."""
    images = np.arange(len(vector_of))
    sample = np.random.default_rng(settings.seed).permutation(images)[:_RECALL_SAMPLE]
    kth = exact_kth_distance(vectors[vector_of], sample, settings.k)
    nodes = settings.trees * settings.k
    while True:
        _, distance = _nearest(index, vectors, vector_of, sample, nodes, settings)
        recall = float((distance <= kth[:, None] + _SAME).mean())
        if recall >= settings.recall or nodes >= settings.trees * len(vectors):
            return nodes, recall
        nodes *= 2


def _nearest(
    index: AnnoyIndex,
    vectors: np.ndarray,
    vector_of: np.ndarray,
    images: np.ndarray,
    nodes: int,
    settings: GraphSettings,
    report: Reporter | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """The k nearest other images of each of `images`: positions (len, k) and distances (len, k)."""
    members = np.split(np.argsort(vector_of, kind="stable"), np.cumsum(np.bincount(vector_of))[:-1])
    near = np.empty((len(images), settings.k), np.int64)
    distance = np.empty((len(images), settings.k), np.float32)
    found: dict[int, tuple[np.ndarray, np.ndarray]] = {}
    for position, image in enumerate(images):
        own = int(vector_of[image])
        if own not in found:
            found[own] = _candidates(index, vectors, members, own, nodes, settings.k)
        candidates, apart = found[own]
        others = candidates != image
        candidates, apart = candidates[others], apart[others]
        draw = np.random.default_rng((settings.seed, int(image))).random(len(candidates))
        order = np.lexsort((draw, apart))[: settings.k]
        near[position], distance[position] = candidates[order], apart[order]
        if report is not None and (position % 500 == 0 or position + 1 == len(images)):
            report.progress("link neighbours", position + 1, len(images))
    return near, distance


def _candidates(
    index: AnnoyIndex, vectors: np.ndarray, members: list[np.ndarray], own: int, nodes: int, k: int
) -> tuple[np.ndarray, np.ndarray]:
    """Images with the vectors nearest to vector `own`, itself among them, and their distances in steps of _SAME."""
    items = index.get_nns_by_item(own, min(_SPARE * k + 1, len(vectors)), search_k=nodes)
    if own not in items:
        items.append(own)
    apart = np.linalg.norm(vectors[items] - vectors[own], axis=1)
    apart = np.round(apart / _SAME) * _SAME
    sizes = [len(members[item]) for item in items]
    return np.concatenate([members[item] for item in items]), np.repeat(apart, sizes)


def _sigma_squared(distance: np.ndarray, settings: GraphSettings) -> float:
    """σ², or for `auto` the median distance, or where half of all are equal the mean, and at worst 1."""
    if settings.sigma != "auto":
        return float(settings.sigma) ** 2
    return float(np.median(distance)) or float(distance.mean()) or 1.0


def _random_neighbours(count: int, settings: GraphSettings) -> np.ndarray:
    """k different other images for each of `count`."""
    generator = np.random.default_rng(settings.seed)
    near = np.empty((count, settings.k), np.int64)
    for image in range(count):
        drawn = generator.choice(count - 1, settings.k, replace=False)
        near[image] = drawn + (drawn >= image)
    return near


def _spread(units: ActionUnits, rows: np.ndarray, near: np.ndarray, distance: np.ndarray, alike: np.ndarray) -> Graph:
    """From positions among the linked images to rows of the dataset."""
    shape = (len(units.usable), near.shape[1])
    graph = Graph(np.full(shape, -1, np.int32), np.full(shape, np.nan, np.float32), np.zeros(shape, np.float32))
    graph.neighbours[rows], graph.distance[rows], graph.similarity[rows] = near, distance, alike
    return graph
