"""The AU graph against brute force, with the crowds of equal vectors that real AU tables have."""

from pathlib import Path

import numpy as np
import pytest

from fer_core.au_features import ActionUnits
from fer_core.errors import ActionUnitError, ArtifactError
from fer_core.experiment import GraphSettings
from fer_core.graph import exact_kth_distance, link_neighbours, load_graph, save_graph, similarity
from fer_core.progress import JsonLines


def units_of(vectors: np.ndarray, usable: np.ndarray | None = None) -> ActionUnits:
    everyone = np.ones(len(vectors), bool)
    columns = tuple(f"AU{c}" for c in range(vectors.shape[1]))
    return ActionUnits(columns, vectors.astype(np.float32), everyone if usable is None else usable, {})


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
    graph, card = link_neighbours(units_of(vectors), np.arange(len(vectors)), GraphSettings(), JsonLines())
    sample = np.random.default_rng(3).permutation(len(vectors))[:500]
    kth = exact_kth_distance(vectors, sample, 4)
    actual = np.linalg.norm(vectors[graph.neighbours[sample]] - vectors[sample][:, None], axis=2)
    assert (actual <= kth[:, None] + 1e-4).mean() >= 0.985
    assert card.recall >= 0.99
    np.testing.assert_allclose(actual, graph.distance[sample], atol=1e-4)
    assert (np.diff(graph.distance, axis=1) >= 0).all()


def test_an_image_is_never_its_own_neighbour_nor_twice_anothers() -> None:
    vectors = presences(2000)
    graph, _ = link_neighbours(units_of(vectors), np.arange(len(vectors)), GraphSettings(k=6), JsonLines())
    assert not (graph.neighbours == np.arange(len(vectors))[:, None]).any()
    assert all(len(set(row)) == 6 for row in graph.neighbours.tolist())


def test_a_crowd_of_equals_is_not_all_linked_to_the_same_few() -> None:
    vectors = np.zeros((1000, 17))
    graph, card = link_neighbours(units_of(vectors), np.arange(1000), GraphSettings(), JsonLines())
    assert card.distinct_vectors == 1
    assert (graph.distance == 0).all()
    assert len(np.unique(graph.neighbours)) > 900


def test_the_same_seed_gives_the_same_graph() -> None:
    vectors = presences(800)
    graphs = [
        link_neighbours(units_of(vectors), np.arange(800), GraphSettings(seed=seed), JsonLines())[0]
        for seed in (7, 7, 8)
    ]
    assert (graphs[0].neighbours == graphs[1].neighbours).all()
    assert (graphs[0].neighbours != graphs[2].neighbours).any()


def test_only_training_images_with_usable_units_are_linked() -> None:
    usable = np.arange(300) % 3 != 0
    train = np.arange(0, 200)
    graph, card = link_neighbours(units_of(intensities(300), usable), train, GraphSettings(), JsonLines())
    linked = usable.copy()
    linked[200:] = False
    assert card.images == linked.sum()
    assert (graph.neighbours[~linked] == -1).all()
    assert (graph.similarity[~linked] == 0).all()
    assert linked[graph.neighbours[linked]].all()


def test_similarity_is_the_papers() -> None:
    np.testing.assert_allclose(similarity(np.array([0.0, 2.0]), 4.0), [1.0, np.exp(-0.5)])


def test_sigma_as_a_number_and_as_the_median_distance() -> None:
    vectors = intensities(500)
    graph, card = link_neighbours(units_of(vectors), np.arange(500), GraphSettings(sigma=3.0), JsonLines())
    assert card.sigma_squared == 9.0
    np.testing.assert_allclose(graph.similarity, np.exp(-graph.distance / 9), rtol=1e-5)
    _, automatic = link_neighbours(units_of(vectors), np.arange(500), GraphSettings(), JsonLines())
    assert automatic.sigma_squared == pytest.approx(np.median(graph.distance))


def test_the_random_control_keeps_similarities_and_changes_neighbours() -> None:
    units = units_of(intensities(500))
    graph, _ = link_neighbours(units, np.arange(500), GraphSettings(), JsonLines())
    control, card = link_neighbours(units, np.arange(500), GraphSettings(control="random"), JsonLines())
    np.testing.assert_array_equal(control.similarity, graph.similarity)
    assert (control.neighbours == graph.neighbours).mean() < 0.05
    assert not (control.neighbours == np.arange(500)[:, None]).any()
    assert card.control == "random"


def test_too_few_images_for_k_is_said_with_both_counts() -> None:
    usable = np.arange(50) < 4
    with pytest.raises(ActionUnitError, match=r"graph.k = 4, but only 4 of 50"):
        link_neighbours(units_of(intensities(50), usable), np.arange(50), GraphSettings(), JsonLines())


def test_a_graph_is_read_as_it_was_written(tmp_path: Path) -> None:
    graph, card = link_neighbours(units_of(intensities(60)), np.arange(60), GraphSettings(), JsonLines())
    save_graph(tmp_path, graph, card)
    read, read_card = load_graph(tmp_path)
    assert read_card == card
    np.testing.assert_array_equal(read.neighbours, graph.neighbours)
    (tmp_path / "graph.npz").write_bytes(b"PK")
    with pytest.raises(ArtifactError, match="not a graph"):
        load_graph(tmp_path)
