"""The AU graph against brute force, with the crowds of equal vectors that real AU tables have."""

import json
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import pytest

from fer_core.errors import ActionUnitError, ArtifactError
from fer_core.experiment import GraphSettings
from fer_core.graph import neighbours as graph_module
from fer_core.graph.action_units import ActionUnits
from fer_core.graph.neighbours import Graph, GraphCard, link_neighbours, load_graph, load_links, save_graph, similarity
from fer_core.progress import JsonLines
from openface.columns import INTENSITIES, PRESENCES


def units_of(vectors: np.ndarray, usable: np.ndarray | None = None) -> ActionUnits:
    everyone = np.ones(len(vectors), bool)
    columns = (*PRESENCES, *INTENSITIES)[: vectors.shape[1]]
    return ActionUnits(columns, vectors.astype(np.float32), everyone if usable is None else usable, {})


def link(units: ActionUnits, train: np.ndarray, settings: GraphSettings | None = None) -> tuple[Graph, GraphCard]:
    with tempfile.TemporaryDirectory() as scratch:
        linked = link_neighbours(units, train, settings or GraphSettings(), Path(scratch), JsonLines())
        assert not list(Path(scratch).iterdir())
    return linked


def kth_distance(vectors: np.ndarray, queries: np.ndarray, k: int) -> np.ndarray:
    """Distance to the k-th nearest other image, by looking at all of them: (len(queries),)."""
    distance = np.array([np.linalg.norm(vectors - vectors[query], axis=1) for query in queries])
    distance[np.arange(len(queries)), queries] = np.inf
    return np.partition(distance, k - 1, axis=1)[:, k - 1]


def presences(count: int) -> np.ndarray:
    """18 zeros and ones, correlated so that thousands of images share a vector, one of them nearly always zero."""
    generator = np.random.default_rng(1)
    return (generator.random((count, 18)) < generator.choice([0.0, 0.1, 0.5], (count, 1), p=[0.3, 0.4, 0.3])).astype(
        float
    )


def intensities(count: int) -> np.ndarray:
    generator = np.random.default_rng(2)
    return np.round(np.maximum(generator.normal(0.2, 1.0, (count, 17)), 0), 2)


@pytest.mark.parametrize("vectors", [presences(3000), intensities(3000)], ids=["presences", "intensities"])
def test_neighbours_are_as_near_as_brute_force_finds(vectors: np.ndarray) -> None:
    graph, card = link(units_of(vectors), np.arange(len(vectors)), GraphSettings())
    sample = np.random.default_rng(3).permutation(len(vectors))[:500]
    kth = kth_distance(vectors, sample, 4)
    actual = np.linalg.norm(vectors[graph.neighbours[sample]] - vectors[sample][:, None], axis=2)
    assert (actual <= kth[:, None] + 1e-4).mean() >= 0.985
    assert card.recall >= 0.99
    np.testing.assert_allclose(actual, graph.distance[sample], atol=1e-4)
    assert (np.diff(graph.distance, axis=1) >= 0).all()


@pytest.mark.parametrize("backend", ["annoy", "exact"])
def test_neighbours_by_a_single_column_are_the_nearest_however_close_they_lie(
    backend: Literal["annoy", "exact"],
) -> None:
    valence = np.random.default_rng(4).normal(size=(2000, 1)).astype(np.float32)
    graph, card = link(units_of(valence), np.arange(2000), GraphSettings(backend=backend))
    kth = kth_distance(valence, np.arange(2000), 4)
    assert (graph.distance <= kth[:, None] * 1.0001).mean() >= 0.99
    assert card.recall >= 0.99


def test_an_image_is_never_its_own_neighbour_nor_twice_anothers() -> None:
    vectors = presences(2000)
    graph, _ = link(units_of(vectors), np.arange(len(vectors)), GraphSettings(k=6))
    assert not (graph.neighbours == np.arange(len(vectors))[:, None]).any()
    assert all(len(set(row)) == 6 for row in graph.neighbours.tolist())


def test_a_crowd_of_equals_is_not_all_linked_to_the_same_few() -> None:
    vectors = np.zeros((1000, 17))
    vectors[0] = 1
    graph, card = link(units_of(vectors), np.arange(1000), GraphSettings())
    assert card.distinct_vectors == 2
    assert (graph.distance[1:] == 0).all()
    chosen = np.bincount(graph.neighbours[1:].ravel(), minlength=1000)[1:]
    assert (chosen > 0).mean() > 0.98
    assert chosen.max() <= 10
    assert (np.abs(np.diff(graph.neighbours[1:], axis=1)) == 1).mean() < 0.05, "who lies side by side may be one person"


def test_a_graph_of_equal_vectors_is_refused_with_their_number() -> None:
    said = r"all 300 training images .* the same .1 distinct vector.*-aus\? look at AU01_c to AU45_c in the AU table"
    with pytest.raises(ActionUnitError, match=said):
        link(units_of(np.zeros((300, 18))), np.arange(300))


def test_equal_vectors_of_ones_own_are_looked_for_in_their_table(capsys: pytest.CaptureFixture[str]) -> None:
    def own(vectors: np.ndarray) -> ActionUnits:
        return replace(units_of(vectors), columns=("valence", "arousal"), own=True)

    said = r"same \(1 distinct vector\).*another; look at valence to arousal in the table of action_units.vectors$"
    with pytest.raises(ActionUnitError, match=said):
        link(own(np.zeros((30, 2))), np.arange(30))
    link(own(np.arange(60).reshape(30, 2) // 30), np.arange(30))
    told = capsys.readouterr().out
    assert "look at valence to arousal in the table of action_units.vectors" in told
    assert "AU table" not in told
    with pytest.raises(ActionUnitError, match=r"3 training images have a vector; .* of the table of action_units.vec"):
        link(own(np.zeros((3, 2))), np.arange(3))


@pytest.mark.parametrize("images", [6, 15])
def test_few_images_of_different_vectors_share_none(images: int, capsys: pytest.CaptureFixture[str]) -> None:
    """Two draws of 15 images are often the same image, which says nothing of its vector."""
    _, card = link(units_of(intensities(images)), np.arange(images))
    assert card.distinct_vectors == images
    assert "arbitrary" not in capsys.readouterr().out


@pytest.mark.parametrize("different", [1, 10, 150])
def test_a_graph_of_nearly_equal_vectors_is_told_with_their_number(
    different: int, capsys: pytest.CaptureFixture[str]
) -> None:
    vectors = np.zeros((300, 18))
    vectors[:different] = presences(3000)[:different] + 2
    _, card = link(units_of(vectors), np.arange(300))
    told = f"only {card.distinct_vectors} distinct vectors among 300 images, {300 - different} of which share one"
    assert told in capsys.readouterr().out
    link(units_of(intensities(300)), np.arange(300))
    assert "arbitrary" not in capsys.readouterr().out


def test_the_same_seed_gives_the_same_graph() -> None:
    vectors = presences(800)
    graphs = [link(units_of(vectors), np.arange(800), GraphSettings(seed=seed))[0] for seed in (7, 7, 8)]
    assert (graphs[0].neighbours == graphs[1].neighbours).all()
    assert (graphs[0].neighbours != graphs[2].neighbours).any()


def test_only_training_images_with_usable_units_are_linked() -> None:
    usable = np.arange(300) % 3 != 0
    train = np.arange(0, 200)
    graph, card = link(units_of(intensities(300), usable), train, GraphSettings())
    linked = usable.copy()
    linked[200:] = False
    assert card.images == linked.sum()
    assert (graph.neighbours[~linked] == -1).all()
    assert (graph.similarity[~linked] == 0).all()
    assert linked[graph.neighbours[linked]].all()


@pytest.mark.parametrize("scale", [1e-9, 1e-6, 1e-4, 1e4])
def test_vectors_of_any_scale_have_the_neighbours_that_brute_force_finds(scale: float) -> None:
    """One's own may be far closer together than AUs ever are."""
    vectors = np.random.default_rng(1).normal(0, scale, (500, 8))
    graph, card = link(units_of(vectors), np.arange(500))
    actual = np.linalg.norm(vectors[graph.neighbours] - vectors[:, None], axis=2)
    kth = kth_distance(vectors, np.arange(500), 4)
    assert (actual <= kth[:, None] * 1.001).mean() == pytest.approx(card.recall, abs=0.005)
    np.testing.assert_allclose(actual, graph.distance, rtol=0.01)
    assert card.sigma_squared == pytest.approx(np.median(actual), rel=0.01)


def test_an_outlier_does_not_make_strangers_of_near_images() -> None:
    vectors = intensities(1000)
    vectors[7] = 1e5
    others = np.delete(np.arange(1000), 7)
    graph, _ = link(units_of(vectors), np.arange(1000), GraphSettings(backend="exact"))
    near = np.linalg.norm(vectors[graph.neighbours[others]] - vectors[others][:, None], axis=2)
    assert (near <= kth_distance(vectors, others, 4)[:, None] + 1e-4).mean() > 0.99


@pytest.mark.parametrize(
    ("sigma", "is_told"), [(0.3, True), (0.01, True), (1.0, False), (30.0, False), ("auto", False)]
)
def test_a_sigma_that_leaves_no_pull_is_told(
    sigma: float | Literal["auto"], is_told: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    link(units_of(intensities(500)), np.arange(500), GraphSettings(sigma=sigma))
    told = "so that neighbours hardly count; graph.sigma = auto takes σ = 1."
    assert (told in json.loads("[" + ",".join(capsys.readouterr().out.splitlines()) + "]")[-1]["text"]) == is_told


def test_similarity_is_the_papers() -> None:
    np.testing.assert_allclose(similarity(np.array([0.0, 2.0]), 4.0), [1.0, np.exp(-0.5)])


def test_sigma_as_a_number_and_as_the_median_distance() -> None:
    vectors = intensities(500)
    graph, card = link(units_of(vectors), np.arange(500), GraphSettings(sigma=3.0))
    assert card.sigma_squared == 9.0
    np.testing.assert_allclose(graph.similarity, np.exp(-graph.distance / 9), rtol=1e-5)
    _, automatic = link(units_of(vectors), np.arange(500), GraphSettings())
    assert automatic.sigma_squared == pytest.approx(np.median(graph.distance))


def test_sigma_of_mostly_equal_neighbours_is_the_mean_distance_and_of_equal_ones_1() -> None:
    """Presences and k = 1: most images have an equal, so that the median is 0."""
    vectors = presences(3000)
    graph, card = link(units_of(vectors), np.arange(3000), GraphSettings(k=1))
    assert np.median(graph.distance) == 0
    assert card.sigma_squared == pytest.approx(graph.distance.mean())
    pairs = np.repeat(np.eye(18), 2, axis=0)
    _, card = link(units_of(pairs), np.arange(36), GraphSettings(k=1))
    assert card.sigma_squared == 1.0


def test_the_random_control_keeps_similarities_and_changes_neighbours() -> None:
    units = units_of(intensities(500))
    graph, _ = link(units, np.arange(500), GraphSettings())
    control, card = link(units, np.arange(500), GraphSettings(control="random"))
    np.testing.assert_array_equal(control.similarity, graph.similarity)
    assert (control.neighbours == graph.neighbours).mean() < 0.05
    assert not (control.neighbours == np.arange(500)[:, None]).any()
    assert all(len(set(row)) == 4 for row in control.neighbours.tolist())
    assert card.control == "random"
    others = (graph_module._random_neighbours(500, GraphSettings(seed=seed)) for seed in (1, 2))
    assert (next(others) != next(others)).any()


def test_too_few_images_for_k_is_said_with_both_counts() -> None:
    usable = np.arange(50) < 4
    with pytest.raises(ActionUnitError, match=r"graph.k = 4, but only 4 of 50"):
        link(units_of(intensities(50), usable), np.arange(50), GraphSettings())


def test_a_graph_is_read_as_it_was_written(tmp_path: Path) -> None:
    graph, card = link(units_of(intensities(60)), np.arange(60), GraphSettings())
    save_graph(tmp_path, graph, card)
    read, read_card = load_graph(tmp_path)
    assert read_card == card
    np.testing.assert_array_equal(read.neighbours, graph.neighbours)
    (tmp_path / "graph.npz").write_bytes(b"PK")
    with pytest.raises(ArtifactError, match="not a graph"):
        load_graph(tmp_path)


def test_a_damaged_graph_is_refused(tmp_path: Path) -> None:
    graph, card = link(units_of(intensities(60)), np.arange(60), GraphSettings())
    save_graph(tmp_path, graph, card)
    whole = (tmp_path / "graph.npz").read_bytes()
    for damaged in (whole[:300] + b"\0" * 100 + whole[400:], whole[:-100] + b"\0" * 100):
        (tmp_path / "graph.npz").write_bytes(damaged)
        with pytest.raises(ArtifactError, match="not a graph"):
            load_graph(tmp_path)
        with pytest.raises(ArtifactError, match="not a graph"):
            load_links(tmp_path / "graph.npz")


def test_the_exact_backend_finds_what_brute_force_finds() -> None:
    vectors = np.concatenate((presences(1500), presences(1500) * 0.5))
    graph, card = link(units_of(vectors), np.arange(len(vectors)), GraphSettings(k=5, backend="exact"))
    actual = np.linalg.norm(vectors[graph.neighbours] - vectors[:, None], axis=2)
    np.testing.assert_allclose(actual[:, -1], kth_distance(vectors, np.arange(len(vectors)), 5), atol=1e-4)
    np.testing.assert_allclose(actual, graph.distance, atol=1e-4)
    assert not (graph.neighbours == np.arange(len(vectors))[:, None]).any()
    assert all(len(set(row)) == 5 for row in graph.neighbours.tolist())
    assert (card.backend, card.trees, card.recall, card.recall_images) == ("exact", 0, 1.0, len(vectors))


def test_the_exact_backend_says_when_there_are_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graph_module, "EXACT_AT_MOST", 100)
    link(units_of(np.arange(100.0)[:, None]), np.arange(100), GraphSettings(backend="exact"))
    with pytest.raises(ActionUnitError, match=r"101 images, more than the 100 that it takes; use annoy"):
        link(units_of(np.arange(101.0)[:, None]), np.arange(101), GraphSettings(backend="exact"))


def test_ties_are_taken_evenly() -> None:
    """Around each of 40 corners stand two crowds, of 30 and 10, equally near: a member of either is as likely."""
    corner = np.repeat(np.arange(40.0) * 10, 41)
    beside = np.tile(np.array([0.0] + [1.0] * 30 + [-1.0] * 10), 40)
    graph, _ = link(
        units_of(np.stack((corner, beside), axis=1)), np.arange(len(corner)), GraphSettings(backend="exact")
    )
    taken = beside[graph.neighbours[beside == 0]]
    assert (graph.distance[beside == 0] == 1).all()
    assert (taken > 0).mean() == pytest.approx(0.75, abs=0.15)


def test_ties_are_drawn_among_all_that_are_equal_but_for_a_rounding() -> None:
    """Around each of 40 corners stand four images, equally near, of which one is taken."""
    around = np.array([[0.0, 0.0], [1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
    vectors = np.repeat(np.arange(40.0), 5)[:, None] + 0.1 * np.tile(around, (40, 1))
    graph, _ = link(units_of(vectors), np.arange(200), GraphSettings(k=1, backend="exact"))
    np.testing.assert_allclose(graph.distance[::5], 0.1, rtol=1e-4)
    taken = np.bincount(graph.neighbours[::5, 0] % 5, minlength=5)
    assert taken[0] == 0
    assert taken[1:].min() >= 4


def test_an_image_is_no_neighbour_of_its_own_and_the_farthest_goes_where_the_search_missed_it() -> None:
    found = np.array([[1, 0, 2], [3, 2, 0]])
    assert graph_module._without_itself(found, np.array([0, 1])).tolist() == [[1, 2], [3, 2]]


@pytest.mark.parametrize("asked", [0.9, 0.999, 1.0])
@pytest.mark.parametrize("vectors", [presences(1500), intensities(1500)], ids=["presences", "intensities"])
def test_the_recall_in_the_card_is_that_of_all_images(vectors: np.ndarray, asked: float) -> None:
    settings = GraphSettings(k=1, recall=asked, trees=5)
    graph, card = link(units_of(vectors), np.arange(1500), settings)
    kth = kth_distance(vectors, np.arange(1500), 1)
    reached = np.linalg.norm(vectors[graph.neighbours[:, 0]] - vectors, axis=1) <= kth + 1e-4
    assert card.recall == pytest.approx(reached.mean(), abs=1e-3)
    assert card.recall >= asked
    assert card.recall_images == 1500


def test_where_there_are_too_many_images_the_card_says_of_how_many_its_recall_is(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(graph_module, "RECALL_OF_ALL_AT_MOST", 1199)
    _, card = link(units_of(intensities(1200)), np.arange(1200))
    assert card.recall_images == 1000
    assert "over a sample of 1,000 images" in capsys.readouterr().out


def test_processes_find_what_one_finds(monkeypatch: pytest.MonkeyPatch) -> None:
    units, rows = units_of(intensities(6000)), np.arange(6000)
    alone, card = link(units, rows)
    monkeypatch.setattr("fer_core.graph.search._WORTH_A_PROCESS", 1)
    together, same = link(units, rows)
    np.testing.assert_array_equal(alone.neighbours, together.neighbours)
    np.testing.assert_array_equal(alone.distance, together.distance)
    assert (card.nodes_searched, card.recall) == (same.nodes_searched, same.recall)
