"""The approximate nearest-neighbour graph in AU space, and a_ij = exp(−‖l_i − l_j‖ / σ²).

Identical vectors are searched once: of the real AU presences of FER+, 27,691 images share 14,836 vectors, and an
index of trees returns the same few of a crowd of equals to everyone. The rule for ties: images at equal distance
stand in a circle whose order the seed decides, and an image takes them from a place on that is drawn for it.
"""

import json
import time
import zipfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from fer_core.errors import ActionUnitError, ArtifactError
from fer_core.experiment import GraphSettings
from fer_core.graph.action_units import ActionUnits
from fer_core.graph.search import Search, build_index, search_all, search_trees
from fer_core.progress import Reporter

EXACT_AT_MOST = 100_000
"""Most distinct vectors for `graph.backend = exact`; its time grows with their square."""
RECALL_OF_ALL_AT_MOST = 30_000
"""Up to this many distinct vectors, recall is measured on every image; exact search takes six seconds on two cores."""
TO_LABELLED = "to_labelled.npz"
"""In a graph's folder, each image's nearest labelled ones, where there are unlabelled images."""
TEACHER = "linear_teacher.npy"
"""With `graph.teacher = linear`: (N, classes) float32, what `unlabelled.linear_teacher` says of each image."""
_RECALL_SAMPLE = 1000
_ALIKE = 0.05
"""Chance that two images have the same vector, above which it is told; .0001 for FER+'s presences, .001 for drawn
faces'."""
_SPARE = 4
"""Search for this multiple of k, so that ties at the k-th distance are drawn among more than the first found."""
_SAME = 1e-5
"""Distances closer than this count as equal; float32 sums of 35 squares are no more exact."""
_USUAL_SPREAD = 0.01
"""Deviation of vectors from their mean, below which `_SAME` shrinks with it; of AUs and landmarks it is more."""
_SPREAD_SAMPLE = 1000
_HARDLY_ALIKE = 0.01
"""Mean similarity of neighbours, below which it is told; with `graph.sigma = auto` it is some .4."""
_AT_A_TIME = 16_384
_GRAPH, _INDEX = "graph.npz", "index.ann"


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
    crowds = Crowds.of(units.places[rows], settings.seed)
    _check_crowds(crowds, units, report)
    found = _search(crowds, settings, scratch, report)
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
        distinct_vectors=len(crowds.vectors),
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
class Crowds:
    """Images grouped by the vector that they share.

    vectors: (V, D) distinct
    vector_of: (N,) position in `vectors` of each image's
    members: (N,) images, those of one vector side by side in an order that the seed decides
    first: (V + 1,) where each vector's images begin in `members`
    rank: (N,) an image's place among those of its vector
    turn: (N,) in 0..1, where an image begins to take among equals
    same: distances closer than this count as equal
    """

    vectors: np.ndarray
    vector_of: np.ndarray
    members: np.ndarray
    first: np.ndarray
    rank: np.ndarray
    turn: np.ndarray
    same: float

    @classmethod
    def of(cls, vectors: np.ndarray, seed: int) -> "Crowds":
        """Group (N, D) vectors."""
        distinct, vector_of = np.unique(vectors, axis=0, return_inverse=True)
        vector_of = vector_of.reshape(-1)
        generator = np.random.default_rng(seed)
        # Sorted by vector; among images of one vector, in a random but seeded order.
        members = np.lexsort((generator.permutation(len(vectors)), vector_of))
        # (V + 1,): members[first[v]:first[v + 1]] share vector v.
        first = np.concatenate(([0], np.cumsum(np.bincount(vector_of))))
        rank = np.empty(len(vectors), np.int64)
        rank[members] = np.arange(len(vectors)) - first[vector_of[members]]
        return cls(distinct, vector_of, members, first, rank, generator.random(len(vectors)), _same(distinct))

    def enough_for(self, k: int) -> int:
        """Number of vectors to search for, so that at least k other images have them, with some to spare."""
        return min(_SPARE * k + 1, len(self.vectors))


def _same(distinct: np.ndarray) -> float:
    """What counts as no distance among (V, D) distinct vectors."""
    sample = distinct[:: len(distinct) // _SPREAD_SAMPLE + 1].astype(np.float64)
    spread = float(np.linalg.norm(sample.std(axis=0)))
    return _SAME * min(1.0, spread / _USUAL_SPREAD)


@dataclass(frozen=True)
class _Found:
    """The neighbours of all images, and the search that found them.

    near, distance: (N, k) images and float32 distances
    nodes: that the search visits; 0 for all there are
    recall_images: how many images recall was measured on
    """

    near: np.ndarray
    distance: np.ndarray
    nodes: int
    recall: float
    recall_images: int


def _check_crowds(crowds: Crowds, units: ActionUnits, report: Reporter) -> None:
    """Refuse vectors that are all equal: such a graph would say nothing."""
    images, distinct = len(crowds.vector_of), len(crowds.vectors)
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
    sizes = np.diff(crowds.first)
    # The chance that two different images, drawn at random, have the same vector.
    if (sizes * (sizes - 1)).sum() / (images * (images - 1)) > _ALIKE:
        report.note(
            f"graph: only {distinct:,} distinct vectors among {images:,} images, {sizes.max():,} of which share one, "
            f"so their neighbours are arbitrary; {remedy}"
        )


def _search(crowds: Crowds, settings: GraphSettings, scratch: Path, report: Reporter) -> _Found:
    """Find the neighbours of all images, at the recall that the settings ask for."""
    vectors, count, everyone = crowds.vectors, crowds.enough_for(settings.k), np.arange(len(crowds.vector_of))
    if settings.backend == "exact":
        if len(vectors) > EXACT_AT_MOST:
            raise ActionUnitError(
                f"graph.backend = exact: {len(vectors):,} distinct AU vectors, more than the {EXACT_AT_MOST:,} that "
                "it takes; use annoy"
            )
        near, distance = _nearest(search_all(vectors, count), crowds, everyone, settings)
        return _Found(near, distance, 0, 1.0, len(everyone))
    build_index(vectors, settings.trees, settings.seed, scratch / _INDEX)

    def tell(done: int) -> None:
        report.progress("find neighbours", done, len(vectors))

    def search(nodes: int) -> Search:
        return search_trees(scratch / _INDEX, vectors.shape[1], count, nodes, tell)

    found = _deep_enough(search, crowds, settings)
    measured = "all images" if found.recall_images == len(everyone) else f"a sample of {found.recall_images:,} images"
    report.note(
        f"graph: recall@{settings.k} {found.recall:.4f} over {measured}, searching {found.nodes} nodes of "
        f"{settings.trees} trees"
    )
    return found


def _deep_enough(search: Callable[[int], Search], crowds: Crowds, settings: GraphSettings) -> _Found:
    """Double the nodes searched until the sampled images reach the recall, or all nodes are searched."""
    everyone = np.arange(len(crowds.vector_of))
    images = everyone
    if len(crowds.vectors) > RECALL_OF_ALL_AT_MOST:
        images = np.random.default_rng(settings.seed).permutation(everyone)[:_RECALL_SAMPLE]
    exact = search_all(crowds.vectors, crowds.enough_for(settings.k))
    # A found neighbour counts as right if it is no farther than the exact k-th: of equals, any will do.
    _, farthest = _nearest(exact, crowds, images, settings)
    nodes = settings.trees * crowds.enough_for(settings.k)
    while True:
        near, distance = _nearest(search(nodes), crowds, images, settings)
        recall = float((distance <= farthest[:, -1:] + crowds.same).mean())
        if recall >= settings.recall or nodes >= settings.trees * len(crowds.vectors):
            break
        nodes *= 2
    if len(images) < len(everyone):
        near, distance = _nearest(search(nodes), crowds, everyone, settings)
    return _Found(near, distance, nodes, recall, len(images))


def _nearest(
    search: Search, crowds: Crowds, images: np.ndarray, settings: GraphSettings
) -> tuple[np.ndarray, np.ndarray]:
    """The k nearest other images of each of `images`: (len, k) images and (len, k) float32 distances."""
    # Each distinct vector is searched once, however many images share it.
    wanted, position = np.unique(crowds.vector_of[images], return_inverse=True)
    found = search(wanted)
    near = np.empty((len(images), settings.k), np.int64)
    distance = np.empty((len(images), settings.k), np.float32)
    for start in range(0, len(images), _AT_A_TIME):
        part = slice(start, start + _AT_A_TIME)
        near[part], distance[part] = _choose(found[position[part]], crowds, images[part], settings.k)
    return near, distance


def _choose(found: np.ndarray, crowds: Crowds, images: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The k nearest of the images whose vectors were found, ties by the rule above.

    Args:
        found: (B, count) positions of vectors, different ones in a row.
    """
    own = crowds.vector_of[images]
    # An approximate search may miss the query itself, which takes the place of the farthest.
    missed = (found != own[:, None]).all(axis=1)
    found[missed, -1] = own[missed]
    apart = np.linalg.norm(crowds.vectors[found] - crowds.vectors[own][:, None], axis=2)
    # In whole steps of it, so that distances equal up to rounding are equal.
    apart = np.round(apart / crowds.same)
    order = np.argsort(apart, axis=1, kind="stable")
    found, apart = np.take_along_axis(found, order, axis=1), np.take_along_axis(apart, order, axis=1)
    # (B, count): images that have each found vector, the query itself not counted.
    others = crowds.first[found + 1] - crowds.first[found] - (found == own[:, None])
    up_to = np.cumsum(others, axis=1)  # (B, count): images as near as each vector's, or nearer
    before = up_to - others
    near = np.empty((len(images), k), np.int64)
    distance = np.empty((len(images), k), np.float32)
    row = np.arange(len(images))
    for pick in range(k):
        # The distance of this pick, and the run of images at just that distance: `size` from `begins` on.
        level = apart[row, (up_to <= pick).sum(axis=1)]
        equal = apart == level[:, None]
        begins = np.where(equal, before, up_to[:, -1:]).min(axis=1)
        size = np.where(equal, others, 0).sum(axis=1)
        # The run is a circle that each query enters at its own random turn; picks go round it.
        place = begins + (np.floor(crowds.turn[images] * size).astype(np.int64) + pick - begins) % size
        # From a place in the run to a vector, and to a member of that vector, skipping the query itself.
        vector = (up_to <= place[:, None]).sum(axis=1)
        member = place - before[row, vector]
        member += (found[row, vector] == own) & (member >= crowds.rank[images])
        near[:, pick] = crowds.members[crowds.first[found[row, vector]] + member]
        distance[:, pick] = level * crowds.same
    return near, distance


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
