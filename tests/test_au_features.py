"""Which AU rows are believed, and how they are scaled."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from fer_core.data.dataset import Dataset
from fer_core.errors import ActionUnitError, ArtifactError
from fer_core.evaluation.baselines import au_neighbours_alone
from fer_core.experiment import ActionUnitSettings, GraphSettings
from fer_core.graph.action_units import ActionUnits, action_units, read_au_table
from fer_core.graph.neighbours import link_neighbours
from fer_core.graph.unlabelled import link_to_labelled
from fer_core.progress import JsonLines
from openface.columns import INTENSITIES, LANDMARKS, PRESENCES


def au_table(dataset: Dataset) -> pd.DataFrame:
    generator = np.random.default_rng(1)
    count = len(dataset.manifest)
    table = pd.DataFrame({"id": dataset.manifest["id"], "status": "ok", "confidence": np.linspace(0.5, 1, count)})
    table[list(INTENSITIES)] = generator.random((count, 17)) * 5
    table[list(PRESENCES)] = (generator.random((count, 18)) > 0.5).astype(float)
    table.loc[[3, 4], "status"] = "no_face"
    table.loc[5, "status"] = "failed"
    table.loc[[3, 4, 5], ["confidence", *INTENSITIES, *PRESENCES]] = np.nan
    return table


@pytest.mark.parametrize(("features", "width"), [("intensity", 17), ("presence", 18), ("both", 35)])
def test_features_are_the_experiments_choice(dataset: Dataset, features: str, width: int) -> None:
    units = action_units(dataset, au_table(dataset), ActionUnitSettings(features=features))  # type: ignore[arg-type]
    assert units.vectors.shape == (60, width)
    assert np.flatnonzero(~units.usable).tolist() == [3, 4, 5]


def test_every_lost_row_is_counted_under_its_reason(dataset: Dataset) -> None:
    settings = ActionUnitSettings(features="intensity", min_confidence=0.6, outliers=0.1)
    units, again = (action_units(dataset, au_table(dataset), settings) for _ in range(2))
    assert (units.usable == again.usable).all()
    coverage = units.coverage
    for counts in coverage.values():
        assert counts["images"] == sum(count for what, count in counts.items() if what != "images")
    train = coverage["train"]
    assert (train["no_face"], train["failed"]) == (2, 1)
    assert train["low confidence"] > 0
    assert train["outlier"] == pytest.approx(0.1 * (train["usable"] + train["outlier"]), abs=1)


def test_scale_is_fitted_on_usable_training_images_alone(dataset: Dataset) -> None:
    table = au_table(dataset)
    test = dataset.rows("test")
    table.loc[test, list(INTENSITIES)] = 5.0
    units = action_units(dataset, table, ActionUnitSettings(features="intensity", standardise=True))
    train = dataset.rows("train")
    train = train[units.usable[train]]
    np.testing.assert_allclose(units.vectors[train].mean(axis=0), 0, atol=1e-5)
    np.testing.assert_allclose(units.vectors[train].std(axis=0), 1, atol=1e-4)
    assert units.vectors[test].mean() > 1


def test_outliers_are_the_rows_far_from_the_rest(dataset: Dataset) -> None:
    table = au_table(dataset)
    table[list(INTENSITIES)] = table[list(INTENSITIES)] * 0.01
    odd = dataset.rows("train")[5]
    table.loc[odd, list(INTENSITIES)] = 5.0
    settings = ActionUnitSettings(features="intensity", outliers=0.03)
    units = action_units(dataset, table, settings)
    assert not units.usable[odd]
    table.loc[dataset.rows("test"), list(INTENSITIES)] = 5.0
    train = dataset.rows("train")
    assert (action_units(dataset, table, settings).usable == units.usable)[train].all(), "test images change nothing"


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_an_au_that_is_not_a_number_names_the_image(dataset: Dataset, value: float) -> None:
    table = au_table(dataset)
    table.loc[7, "AU12_r"] = value
    with pytest.raises(ActionUnitError, match="1 annotated images have an AU that is not a number, face0007 first"):
        action_units(dataset, table, ActionUnitSettings(features="intensity"))


def test_a_table_of_other_images_gives_both_counts(dataset: Dataset, tmp_path: Path) -> None:
    table = au_table(dataset)
    table["id"] = [f"other{i}" for i in range(50)] + list(table["id"][50:])
    table.to_parquet(tmp_path / "aus.parquet")
    with pytest.raises(ActionUnitError, match="of its 60 images 10 are among the dataset's 60"):
        read_au_table(tmp_path / "aus.parquet", dataset)
    au_table(dataset).iloc[::-1].to_parquet(tmp_path / "aus.parquet", index=False)
    with pytest.raises(ActionUnitError, match="of its 60 images 60 are among the dataset's 60"):
        read_au_table(tmp_path / "aus.parquet", dataset)
    (tmp_path / "aus.parquet").write_bytes(b"PAR1")
    with pytest.raises(ArtifactError, match="not an AU table"):
        read_au_table(tmp_path / "aus.parquet", dataset)


@pytest.mark.parametrize(
    ("features", "missing", "width"),
    [("presence", ("AU45_c",), 17), ("both", ("AU45_c", "AU10_r"), 33), ("intensity", ("AU10_r", "AU45_c"), 16)],
)
def test_columns_that_a_table_does_not_have_are_left_out(
    dataset: Dataset, features: str, missing: tuple[str, ...], width: int
) -> None:
    table = au_table(dataset)
    table[list(missing)] = np.nan
    units = action_units(dataset, table, ActionUnitSettings(features=features))  # type: ignore[arg-type]
    assert units.vectors.shape == (60, width)
    assert not set(missing) & set(units.columns)


def test_features_that_a_table_does_not_have_are_refused_with_those_that_it_has(dataset: Dataset) -> None:
    table = au_table(dataset)
    table[[*INTENSITIES, "AU45_c"]] = np.nan
    for features in ("intensity", "both"):
        told = rf"features = {features}: the AU table has no intensity; set action_units.features = presence, of"
        with pytest.raises(ActionUnitError, match=f"{told} which it has 17 of 18"):
            action_units(dataset, table, ActionUnitSettings(features=features))  # type: ignore[arg-type]


def test_a_least_confidence_is_refused_where_there_is_none(dataset: Dataset) -> None:
    assert action_units(dataset, au_table(dataset), ActionUnitSettings(min_confidence=0.5)).usable.sum() == 57
    table = au_table(dataset).assign(confidence=np.nan)
    assert action_units(dataset, table, ActionUnitSettings()).usable.sum() == 57
    with pytest.raises(ActionUnitError, match=r"min_confidence = 0\.5: the AU table has no confidences; set it to 0"):
        action_units(dataset, table, ActionUnitSettings(min_confidence=0.5))


def with_landmarks(table: pd.DataFrame) -> pd.DataFrame:
    """Two shapes by turns, each face somewhere else, of another size, and turned."""
    generator = np.random.default_rng(2)
    shapes = generator.normal(0, 1, (2, 68, 2))
    points = np.empty((len(table), 136))
    for row in range(len(table)):
        angle, size = generator.uniform(-0.5, 0.5), generator.uniform(20, 40)
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        points[row] = (shapes[row % 2] @ turn.T * size + generator.uniform(0, 50, 2)).T.reshape(-1)
    points[(table["status"] != "ok").to_numpy()] = np.nan
    return pd.concat([table, pd.DataFrame(points.astype(np.float32), columns=list(LANDMARKS))], axis=1)


def test_of_landmarks_the_shape_alone_counts(dataset: Dataset) -> None:
    settings = ActionUnitSettings(features="landmarks")
    table = with_landmarks(au_table(dataset))
    units = action_units(dataset, table, settings)
    assert units.vectors.shape == (60, 136)
    assert units.columns == LANDMARKS
    even = np.flatnonzero(units.usable & (np.arange(60) % 2 == 0))
    odd = np.flatnonzero(units.usable & (np.arange(60) % 2 == 1))
    np.testing.assert_allclose(units.vectors[even] - units.vectors[even[0]], 0, atol=1e-4)
    assert np.linalg.norm(units.vectors[even[0]] - units.vectors[odd[0]]) > 0.5
    np.testing.assert_allclose(np.linalg.norm(units.vectors[even], axis=1), 1, atol=1e-5)
    train, test = dataset.rows("train"), dataset.rows("test")
    table.loc[test, list(LANDMARKS)] = np.random.default_rng(3).random((len(test), 136), np.float32)
    again = action_units(dataset, table, settings)
    assert (again.vectors == units.vectors)[train][units.usable[train]].all(), "test images change nothing"


@pytest.mark.parametrize("value", [0.0, 25.0, float("nan")])
def test_a_face_whose_landmarks_are_no_shape_costs_itself_alone(dataset: Dataset, value: float) -> None:
    """Noughts are what `fillna(0)` leaves where a program found no points."""
    table = with_landmarks(au_table(dataset))
    table.loc[10, list(LANDMARKS)] = value
    units = action_units(dataset, table, ActionUnitSettings(features="landmarks"))
    assert units.usable.sum() == 56
    assert np.isfinite(units.vectors[units.usable]).all()
    assert sum(counts.get("no landmarks", 0) for counts in units.coverage.values()) == 1
    assert action_units(dataset, table, ActionUnitSettings()).usable.sum() == 57


def test_intensities_and_landmarks_are_one_vector(dataset: Dataset, tmp_path: Path) -> None:
    with_landmarks(au_table(dataset)).to_parquet(tmp_path / "aus.parquet")
    table = read_au_table(tmp_path / "aus.parquet", dataset, landmarks=True)
    units = action_units(dataset, table, ActionUnitSettings(features="intensity+landmarks", standardise=True))
    assert units.vectors.shape == (60, 17 + 136)
    train = dataset.rows("train")
    train = train[units.usable[train]]
    np.testing.assert_allclose(units.vectors[train].std(axis=0), 1, atol=1e-2)


def test_each_kind_of_features_that_is_standardised_counts_alike_in_a_distance(dataset: Dataset) -> None:
    """Landmarks are 136 of 153 columns, and hid what the intensities say."""
    table = with_landmarks(au_table(dataset))
    for features in ("intensity+landmarks", "both"):
        units = action_units(dataset, table, ActionUnitSettings(features=features, standardise=True))  # type: ignore[arg-type]
        places = units.places[dataset.rows("train")][units.usable[dataset.rows("train")]]
        intensity = np.isin(units.columns, INTENSITIES)
        variances = places.var(axis=0)
        assert variances[intensity].sum() == pytest.approx(variances[~intensity].sum(), rel=1e-3)
        assert variances.sum() == pytest.approx(len(units.columns), rel=1e-3)
        # What a linear model is fitted to stays as it was.
        np.testing.assert_allclose(units.vectors[units.usable].std(axis=0).mean(), 1, atol=0.2)
    for alone in (ActionUnitSettings(features="both"), ActionUnitSettings(features="landmarks", standardise=True)):
        units = action_units(dataset, table, alone)
        assert (units.places == units.vectors)[units.usable].all()


def test_neighbours_are_nearest_where_distances_are_taken(dataset: Dataset, tmp_path: Path) -> None:
    """By the vectors themselves, the second image is the first one's nearest; by their weights it is the third."""
    vectors = np.zeros((len(dataset.manifest), 2), np.float32)
    vectors[:] = np.arange(len(vectors))[:, None] * 100
    first, second, third = dataset.rows("train")[:3]
    vectors[second], vectors[third] = vectors[first] + (1, 0), vectors[first] + (0, 2)
    usable, weights = np.ones(len(vectors), bool), np.array([4, 1], np.float32)
    units = ActionUnits(("a", "b"), vectors, usable, {}, weights=weights)
    graph, _ = link_neighbours(units, dataset.rows("train"), GraphSettings(k=1, backend="exact"), tmp_path, JsonLines())
    labelled = link_to_labelled(units, dataset.rows("train"), GraphSettings(labelled_k=1))
    assert graph.neighbours[first, 0] == labelled.neighbours[first, 0] == third
    assert graph.distance[first, 0] == pytest.approx(2)
    alone = au_neighbours_alone(
        dataset, replace(units, usable=usable & (np.arange(len(usable)) != first)), np.array([first]), 1
    )
    crowd = dataset.crowd()
    known = np.eye(len(dataset.card.labels))[dataset.labels()] if crowd is None else crowd
    np.testing.assert_allclose(alone[0], known[third])


def test_a_table_without_landmarks_says_how_to_get_them(dataset: Dataset, tmp_path: Path) -> None:
    au_table(dataset).to_parquet(tmp_path / "aus.parquet")
    table = read_au_table(tmp_path / "aus.parquet", dataset, landmarks=True)
    with pytest.raises(ActionUnitError, match=r"has no landmarks; annotate again, or with OpenFace's -2Dfp"):
        action_units(dataset, table, ActionUnitSettings(features="landmarks"))
