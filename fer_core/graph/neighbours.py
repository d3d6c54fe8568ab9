"""The approximate nearest-neighbour graph in AU space, and a_ij = exp(−‖l_i − l_j‖ / σ²).

Many images share a vector: of the real AU presences of FER+, 28,353 images have 15,031. Of such a crowd an index of
trees would return the same few to everyone. So each image has a *turn*, one more coordinate that the seed draws, too
short to matter but among images at the same distance. Of these an image takes those whose turns are nearest to its own.
"""

import json
import time
import zipfile
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from fer_core.errors import ActionUnitError, ArtifactError
from fer_core.experiment import GraphSettings
from fer_core.graph.action_units import ActionUnits
from fer_core.graph.search import Search, build_index, search_all, search_trees
from fer_core.progress import Reporter

EXACT_AT_MOST = 100_000
"""Most images for `graph.backend = exact`; its time grows with their square."""
RECALL_OF_ALL_AT_MOST = 30_000
"""Up to this many images, recall is measured on every image; exact search of so many took 15 s on two busy cores."""
TO_LABELLED = "to_labelled.npz"
"""In a graph's folder, each image's nearest labelled ones, where there are unlabelled images."""
TEACHER = "linear_teacher.npy"
"""With `graph.teacher = linear`: (N, classes) float32, what `unlabelled.linear_teacher` says of each image."""
_RECALL_SAMPLE = 1000
_ALIKE = 0.05
"""Chance that two images have the same vector, above which it is told; .0001 for FER+'s presences, .001 for drawn
faces'."""
_TURN = 0.003
"""Length of the turns, in spreads of the vectors."""
_OF_THE_WAY = 0.1
"""Their greatest length in few dimensions, where neighbours lie closer: a part of the way from place to place."""
_USUAL_SPREAD = 3.0
"""Of AUs: 2.0 for FER+'s presences and 2.9 for its intensities. Of vectors that an outlier spreads wider, the turns
are no longer."""
_DEEP = 4
"""The first search visits so many nodes of each tree for each neighbour; for AUs that is mostly enough."""
_SAME = 1e-5
"""Distances that differ by less, relatively, count as equal; float32 sums of 35 squares are no more exact."""
_HARDLY_ALIKE = 0.01
"""Mean similarity of neighbours, below which it is told; with `graph.sigma = auto` it is some .4."""
_AT_A_TIME = 16_384
_GRAPH, _INDEX = "graph.npz", "index.ann"


@dataclass(frozen=True)
class Graph:
    """Neighbours of every image of a dataset; only training images with usable AUs have any."""

    neighbours: np.ndarray
    """(N, k) int32 row numbers, −1 where there is none, nearest first."""
    distance: np.ndarray
    """(N, k) float32 Euclidean distance in AU space, NaN where there is none."""
    similarity: np.ndarray
    """(N, k) float32 a_ij in 0..1, 0 where there is none."""


@dataclass(frozen=True)
class GraphCard:
    """How a graph was built, and its quality."""

    images: int
    distinct_vectors: int
    k: int
    sigma_squared: float
    backend: str
    trees: int
    """Trees of Annoy's index; 0 for the exact search."""
    nodes_searched: int
    recall: float
    """Share of the k neighbours no farther than the exact k-th, over `recall_images` of the images."""
    recall_images: int
    seconds: float
    control: str
    coverage: dict[str, dict[str, int]]


def link_neighbours(
    units: ActionUnits, train: np.ndarray, settings: GraphSettings, scratch: Path, report: Reporter
) -> tuple[Graph, GraphCard]:
    """Link every training image that has usable AUs to its k nearest neighbours.

    Args:
        train: row numbers of the images that are trained on, labelled or not.
        scratch: a folder for the index, which is gone in the end.

    Raises:
        ActionUnitError: too few training images have usable AUs, all have the same, or there are too many distinct ones
            for the exact search.
    """
    started = time.perf_counter()
    rows = train[units.usable[train]]
    if len(rows) <= settings.k:
        table = "table of action_units.vectors" if units.own else "AU table"
        raise ActionUnitError(
            f"graph.k = {settings.k}, but only {len(rows)} of {len(train)} training images have {units.called}; "
            f"lower graph.k, or look at the coverage of the {table}"
        )
    vectors = units.places[rows]
    distinct = _count_distinct(vectors, units, report)
    found = _search(vectors, distinct, settings, scratch, report)
    near, distance = found.near, found.distance
    (scratch / _INDEX).unlink(missing_ok=True)
    sigma_squared = _sigma_squared(distance, settings)
    if settings.control == "random":
        near = _random_neighbours(len(rows), settings)
    alike = similarity(distance, sigma_squared)
    if alike.mean() < _HARDLY_ALIKE:
        usual = _sigma_squared(distance, GraphSettings()) ** 0.5
        report.note(
            f"graph: with graph.sigma = {settings.sigma:g} neighbours are {alike.mean():.1g} alike on average, so that "
            f"neighbours hardly count; graph.sigma = auto takes σ = {usual:.3g}"
        )
    graph = _spread(units, rows, rows[near], distance, alike)
    card = GraphCard(
        images=len(rows),
        distinct_vectors=distinct,
        k=settings.k,
        sigma_squared=sigma_squared,
        backend=settings.backend,
        trees=settings.trees if found.nodes else 0,
        nodes_searched=found.nodes,
        recall=found.recall,
        recall_images=found.recall_images,
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


def save_graph(folder: Path, graph: Graph, card: GraphCard) -> None:
    """Write `graph.npz` and `graph.json`."""
    save_links(folder / _GRAPH, graph)
    (folder / "graph.json").write_text(json.dumps(asdict(card), indent=1), encoding="utf-8")


def load_graph(folder: Path) -> tuple[Graph, GraphCard]:
    """Read what `save_graph` wrote.

    Raises:
        ArtifactError: it is not there, or not readable.
    """
    graph = _read_links(folder / _GRAPH)
    try:
        card = GraphCard(**json.loads((folder / "graph.json").read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise ArtifactError(f"{folder}: not a graph ({error}); make one with `fer graph`") from error
    return graph, card


def save_links(path: Path, links: Graph) -> None:
    """Write the arrays of a graph, or of a second set of links beside it."""
    np.savez(path, neighbours=links.neighbours, distance=links.distance, similarity=links.similarity)


def load_links(path: Path) -> Graph | None:
    """Read what `save_links` wrote; None if there is no such file.

    Raises:
        ArtifactError: it is not readable.
    """
    return _read_links(path) if path.is_file() else None


def _read_links(path: Path) -> Graph:
    try:
        # Opened here, since numpy leaves a file open that it cannot read.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            return Graph(arrays["neighbours"], arrays["distance"], arrays["similarity"])
    except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise ArtifactError(f"{path}: not a graph ({error}); make one with `fer graph`") from error


def save_teacher(folder: Path, teacher: np.ndarray) -> None:
    """Write a teacher's distributions, (N, classes), into a graph's folder."""
    np.save(folder / TEACHER, teacher)


def load_teacher(folder: Path) -> np.ndarray | None:
    """Read what `save_teacher` wrote; None if there is none.

    Raises:
        ArtifactError: it is not readable.
    """
    path = folder / TEACHER
    if not path.is_file():
        return None
    try:
        teacher: np.ndarray = np.load(path, allow_pickle=False)
    except (OSError, EOFError, ValueError) as error:
        raise ArtifactError(f"{path}: no distributions ({error}); make a graph with `fer graph`") from error
    return teacher


@dataclass(frozen=True)
class _Found:
    """The neighbours of N images, and the search that found them."""

    near: np.ndarray
    """(N, k) images, nearest first."""
    distance: np.ndarray
    """(N, k) float32 distances."""
    nodes: int
    """Nodes that the search visits; 0 for all there are."""
    recall: float
    recall_images: int
    """Number of images that recall was measured on."""


def _count_distinct(vectors: np.ndarray, units: ActionUnits, report: Reporter) -> int:
    """Refuse vectors that are all equal, since such a graph would say nothing, and tell of those that nearly are."""
    counts = np.unique(vectors, axis=0, return_counts=True)[1]
    images, distinct = len(vectors), len(counts)
    columns = f"{units.columns[0]} to {units.columns[-1]}" if len(units.columns) > 1 else units.columns[0]
    if units.own:
        remedy, of_aus = f"look at {columns} in the table of action_units.vectors", ""
    else:
        remedy = f"look at {columns} in the AU table, or choose other action_units.features"
        of_aus = "was the AU table written with -aus? "
    if distinct == 1:
        raise ActionUnitError(
            f"all {images:,} training images that have a vector have one and the same (1 distinct vector), so no image "
            f"is nearer than another; {of_aus}{remedy}"
        )
    # The chance that two different images, drawn at random, have the same vector.
    if (counts * (counts - 1)).sum() / (images * (images - 1)) > _ALIKE:
        report.note(
            f"graph: only {distinct:,} distinct vectors among {images:,} images, {counts.max():,} of which share one, "
            f"so their neighbours are arbitrary; {remedy}"
        )
    return distinct


def _with_turns(vectors: np.ndarray, distinct: int, seed: int) -> np.ndarray:
    """(N, D + 1) float32: vectors (N, D), of which so many are distinct, and the turn of each."""
    spread = float(np.linalg.norm(vectors.std(axis=0, dtype=np.float64)))
    # So many places in D dimensions lie so close; from four columns on that is no limit.
    length = min(_TURN, _OF_THE_WAY * distinct ** (-1 / vectors.shape[1])) * min(spread, _USUAL_SPREAD)
    turns = length * np.random.default_rng(seed).random(len(vectors))
    return np.column_stack((vectors, turns)).astype(np.float32)


def _search(vectors: np.ndarray, distinct: int, settings: GraphSettings, scratch: Path, report: Reporter) -> _Found:
    """Find the neighbours of all images, at the recall that the settings ask for."""
    everyone = np.arange(len(vectors))
    if settings.backend == "exact" and len(vectors) > EXACT_AT_MOST:
        raise ActionUnitError(
            f"graph.backend = exact: {len(vectors):,} images, more than the {EXACT_AT_MOST:,} that it takes; use annoy"
        )
    turned = _with_turns(vectors, distinct, settings.seed)
    count = settings.k + 1  # Each image is the nearest to itself.
    if settings.backend == "exact":
        return _Found(*_nearest(search_all(turned, count), vectors, everyone), 0, 1.0, len(everyone))
    asked = everyone
    if len(everyone) > RECALL_OF_ALL_AT_MOST:
        asked = np.random.default_rng(settings.seed).permutation(everyone)[:_RECALL_SAMPLE]
    _, exact = _nearest(search_all(turned, count), vectors, asked)
    build_index(turned, settings.trees, settings.seed, scratch / _INDEX)

    def tell(done: int) -> None:
        report.progress("find neighbours", done, len(everyone))

    def search(images: np.ndarray, nodes: int) -> tuple[np.ndarray, np.ndarray]:
        return _nearest(search_trees(scratch / _INDEX, turned.shape[1], count, nodes, tell), vectors, images)

    found = _deep_enough(search, asked, exact, len(everyone), settings)
    measured = "all images" if len(asked) == len(everyone) else f"a sample of {len(asked):,} images"
    report.note(
        f"graph: recall@{settings.k} {found.recall:.4f} over {measured}, searching {found.nodes} nodes of "
        f"{settings.trees} trees"
    )
    if len(asked) == len(everyone):
        return found
    near, distance = search(everyone, found.nodes)
    return replace(found, near=near, distance=distance)


def _deep_enough(
    search: Callable[[np.ndarray, int], tuple[np.ndarray, np.ndarray]],
    asked: np.ndarray,
    exact: np.ndarray,
    count: int,
    settings: GraphSettings,
) -> _Found:
    """Double the nodes searched until the neighbours found reach the recall, or all nodes are searched.

    Args:
        search: `_nearest` of images, to a number of nodes.
        asked: (B,) images whose neighbours are looked for.
        exact: (B, k) distances of their nearest, nearest first.
        count: of all images.
    """
    # A found neighbour counts as right if it is no farther than the exact k-th: of equals, any will do.
    farthest = exact[:, -1:] * (1 + _SAME)
    nodes = settings.trees * _DEEP * (settings.k + 1)
    while True:
        near, distance = search(asked, nodes)
        recall = float((distance <= farthest).mean())
        if recall >= settings.recall or nodes >= settings.trees * count:
            return _Found(near, distance, nodes, recall, len(asked))
        nodes *= 2


def _nearest(search: Search, vectors: np.ndarray, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The k nearest other images of each of `images`: (B, k) images and (B, k) float32 distances, turns left out."""
    near = _without_itself(search(images), images)
    distance = np.empty(near.shape, np.float32)
    for start in range(0, len(images), _AT_A_TIME):
        part = slice(start, start + _AT_A_TIME)
        distance[part] = np.linalg.norm(vectors[near[part]] - vectors[images[part], None], axis=2)
    order = np.argsort(distance, axis=1, kind="stable")
    return np.take_along_axis(near, order, axis=1), np.take_along_axis(distance, order, axis=1)


def _without_itself(found: np.ndarray, images: np.ndarray) -> np.ndarray:
    """(B, k) of (B, k + 1) found; the farthest is left out where an approximate search has missed the image itself."""
    itself = found == images[:, None]
    itself[~itself.any(axis=1), -1] = True
    others: np.ndarray = found[~itself].reshape(len(images), -1)
    return others


def _sigma_squared(distance: np.ndarray, settings: GraphSettings) -> float:
    """σ²; for `auto` the median distance, the mean if half of the distances are 0, and 1 if all are."""
    if settings.sigma != "auto":
        return float(settings.sigma) ** 2
    return float(np.median(distance)) or float(distance.mean()) or 1.0


def _random_neighbours(count: int, settings: GraphSettings) -> np.ndarray:
    """Draw k different other images for each of `count` images."""
    generator = np.random.default_rng(settings.seed)
    near = np.empty((count, settings.k), np.int64)
    for image in range(count):
        drawn = generator.choice(count - 1, settings.k, replace=False)
        near[image] = drawn + (drawn >= image)  # skips the image itself
    return near


def _spread(units: ActionUnits, rows: np.ndarray, near: np.ndarray, distance: np.ndarray, alike: np.ndarray) -> Graph:
    """Turn positions among the linked images into rows of the dataset."""
    shape = (len(units.usable), near.shape[1])
    graph = Graph(np.full(shape, -1, np.int32), np.full(shape, np.nan, np.float32), np.zeros(shape, np.float32))
    graph.neighbours[rows], graph.distance[rows], graph.similarity[rows] = near, distance, alike
    return graph
