"""A table of vectors of one's own in the place of action units: read, matched, and linked by without OpenFace."""

import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from helpers.report_inputs import Silence
from test_cli import class_folders

from fer_core.artifacts import Artifact
from fer_core.data.dataset import open_dataset
from fer_core.errors import ActionUnitError
from fer_core.experiment import Experiment, load_experiment
from fer_core.graph.action_units import action_units
from fer_core.graph.neighbours import load_graph
from fer_core.graph.own_vectors import read_vectors
from fer_core.report.page import read_evidence, render
from fer_core.report.results import results
from fer_core.steps import request, runs_openface
from fer_core.steps.run import run_step

IDS = ["happiness/a.png", "sadness/a.png", "sadness/b.png", "sadness/c.png"]


def written(path: Path, **columns: Any) -> Path:
    table = pd.DataFrame(columns)
    table.to_parquet(path) if path.suffix == ".parquet" else table.to_csv(path, index=False)
    return path


@pytest.mark.parametrize("ending", ["csv", "parquet"])
@pytest.mark.parametrize("header", ["id", "filename", "image"])
def test_vectors_are_given_to_the_images_that_their_rows_name(tmp_path: Path, ending: str, header: str) -> None:
    names = ["C:\\lab\\sadness\\b.png", "happiness/a.png", "lab/sadness/a"]
    columns: dict[str, Any] = {header: names, "valence": [1, 2, 3], "arousal": [0.5, -0.5, float("nan")]}
    if header == "id":
        columns["id"] = ["sadness/b.png", "happiness/a", "sadness/a"]
    own = read_vectors(written(tmp_path / f"vectors.{ending}", **columns), IDS)
    assert own.columns == ("valence", "arousal")
    assert own.vectors.dtype == np.float32
    np.testing.assert_array_equal(own.vectors, [[2, -0.5], [3, np.nan], [1, 0.5], [np.nan, np.nan]])


def test_images_called_by_numbers_are_matched_by_these_where_all_agree(tmp_path: Path) -> None:
    table = written(tmp_path / "vectors.csv", id=["2", "0", "1"], valence=[2.0, 0.0, 1.0])
    assert read_vectors(table, ["0", "1", "2"]).vectors.tolist() == [[0], [1], [2]]
    with pytest.raises(ActionUnitError, match="only 0 of its 3 images"):
        read_vectors(table, IDS)


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"valence": [1.0]}, "no column called id, filename"),
        ({"id": ["happiness/a.png"]}, "no columns of numbers"),
        ({"id": ["happiness/a.png"], "mood": ["high"]}, "column mood holds what is no number"),
        ({"id": ["happiness/a.png"], "old": [True]}, "column old holds what is no number"),
        ({"id": ["sadness/a.png"] * 2, "valence": [1.0, 2.0]}, "two rows of sadness/a.png"),
        ({"id": ["x.png", "y.png"], "valence": [1.0, 2.0]}, "only 0 of its 2 images are among the dataset's 4"),
        ({"id": ["a.png"], "valence": [1.0]}, "'a.png' could mean happiness/a.png and sadness/a.png"),
    ],
)
def test_what_cannot_be_meant_is_told(tmp_path: Path, columns: dict[str, Any], said: str) -> None:
    with pytest.raises(ActionUnitError, match=said):
        read_vectors(written(tmp_path / "vectors.csv", **columns), IDS)


@pytest.mark.parametrize("content", [b"", b"PAR1 and no more", b"\xff\xfe\x00\x01"])
def test_what_is_no_table_is_told(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "vectors").write_bytes(content)
    with pytest.raises(ActionUnitError, match="neither a parquet nor a CSV"):
        read_vectors(tmp_path / "vectors", IDS)
    with pytest.raises(ActionUnitError, match="nowhere: no such file"):
        read_vectors(tmp_path / "nowhere", IDS)


class Steps:
    """Runs steps on a folder of faces, linked by a table of their valence and arousal."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.data = folder, class_folders(folder / "faces")
        names = sorted(str(path.relative_to(self.data)) for path in self.data.rglob("*.png"))
        rng = np.random.default_rng(0)
        self.table = written(
            folder / "vectors.parquet",
            id=names[1:],
            valence=rng.normal(size=len(names) - 1),
            arousal=rng.normal(size=len(names) - 1),
        )

    def experiment(self, *settings: str) -> Experiment:
        own = ("dataset.source=folder", "dataset.image_size=48", f"action_units.vectors={self.table}", "graph.k=2")
        return load_experiment("demo", [*own, *settings])

    def __call__(self, step: str, *inputs: Artifact, **settings: Any) -> Artifact:
        wanted = request(step, self.experiment(), inputs, outside=self.data if step == "prepare" else None)
        assert not runs_openface(wanted)
        return run_step(wanted, self.folder / step / wanted.fingerprint(), Silence())


def test_images_are_linked_by_own_vectors_without_openface_and_the_report_says_what_it_can(tmp_path: Path) -> None:
    steps = Steps(tmp_path)
    dataset = steps("prepare")
    aus = steps("annotate", dataset)
    graph = steps("graph", dataset, aus)
    _, card = load_graph(graph.path)
    assert card.k == 2
    lost = sum(counts.get("no vector", 0) for counts in card.coverage.values())
    assert lost == 1, "the one image that the table does not have"
    evidence = read_evidence(request("report", steps.experiment(), [dataset, aus, graph]))
    assert evidence.units.columns == ("valence", "arousal")
    table = pd.read_parquet(aus.file("aus.parquet"))
    assert set(table["status"]) == {"not annotated"}
    page = render(evidence, results(evidence), table, Silence())
    assert "no vector" in page


def test_vectors_count_by_what_they_hold(tmp_path: Path) -> None:
    steps = Steps(tmp_path)
    dataset = steps("prepare")
    aus = steps("annotate", dataset)
    before = request("graph", steps.experiment(), [dataset, aus]).fingerprint()
    steps.table = steps.table.rename(tmp_path / "elsewhere.parquet")
    assert request("graph", steps.experiment(), [dataset, aus]).fingerprint() == before
    pd.read_parquet(steps.table).assign(valence=0.0).to_parquet(steps.table)
    assert request("graph", steps.experiment(), [dataset, aus]).fingerprint() != before


def test_vectors_are_standardised_on_the_training_images(tmp_path: Path) -> None:
    steps = Steps(tmp_path)
    dataset = open_dataset(steps("prepare").path)
    settings = steps.experiment("action_units.standardise=true").action_units
    units = action_units(dataset, pd.DataFrame(), settings)
    trained = units.vectors[dataset.rows("train")][units.usable[dataset.rows("train")]]
    assert trained.mean(axis=0) == pytest.approx(0, abs=1e-6)
    assert trained.std(axis=0) == pytest.approx(1, abs=1e-6)


def test_rows_numbers_beside_the_table_are_no_component(tmp_path: Path) -> None:
    table = pd.DataFrame({"id": IDS, "valence": [1.0, 2.0, 3.0, 4.0]})
    table.reset_index().to_csv(tmp_path / "vectors.csv")  # Writes `Unnamed: 0` and `index`.
    assert read_vectors(tmp_path / "vectors.csv", IDS).columns == ("valence",)
    table.set_index("id").to_parquet(tmp_path / "vectors.parquet")
    assert read_vectors(tmp_path / "vectors.parquet", IDS).vectors.tolist() == [[1], [2], [3], [4]]


@pytest.mark.parametrize(
    "header",
    [
        *("label", "Emotion", "split", "frame", "face_id", "confidence"),
        *("emotion_label", "labels", "Category", "ground_truth"),
    ],
)
def test_what_stands_beside_vectors_is_refused_as_a_component(tmp_path: Path, header: str) -> None:
    path = written(tmp_path / "vectors.csv", **{"id": IDS, header: [0, 1, 1, 1], "valence": [1.0, 2.0, 3.0, 4.0]})
    with pytest.raises(ActionUnitError, match=f"the column {header} would be a component"):
        read_vectors(path, IDS)


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        ("Filename;valence;arousal\n{0};1,5;2\n{2};3;-4,25\n", "utf-8"),
        (" file_name \tvalence\tarousal\n{0}\t1.5\t2\n{2}\t3\t-4.25\n", "utf-16"),
        ("ID,valence,arousal,\n{0},1.5,2,\n{2},3,-4.25,\n", "latin-1"),
    ],
)
def test_a_csv_of_vectors_is_read_as_any_other_table(tmp_path: Path, text: str, encoding: str) -> None:
    path = tmp_path / "vectors.csv"
    path.write_text(text.format(*IDS), encoding=encoding)
    own = read_vectors(path, IDS)
    assert own.columns == ("valence", "arousal")
    np.testing.assert_array_equal(own.vectors[[0, 2]], [[1.5, 2], [3, -4.25]])


def test_rows_longer_than_the_header_are_refused(tmp_path: Path) -> None:
    """As R writes row names; pandas would move every number by a column."""
    (tmp_path / "vectors.csv").write_text(f"id,valence\n1,{IDS[0]},2\n2,{IDS[1]},3\n")
    with pytest.raises(ActionUnitError, match="neither a parquet nor a CSV"):
        read_vectors(tmp_path / "vectors.csv", IDS)


def test_a_wide_table_is_read_in_seconds(tmp_path: Path) -> None:
    """An embedding of many columns is no work for Python, cell by cell."""
    ids = [f"{number:05d}.png" for number in range(5000)]
    vectors = np.random.default_rng(0).normal(size=(5000, 256)).astype(np.float32)
    written(tmp_path / "vectors.csv", id=ids, **{f"v{column}": vectors[:, column] for column in range(256)})
    started = time.process_time()
    own = read_vectors(tmp_path / "vectors.csv", ids)
    assert time.process_time() - started < 5
    np.testing.assert_allclose(own.vectors, vectors, rtol=1e-6)


def test_images_called_as_pandas_calls_nothing_have_their_rows(tmp_path: Path) -> None:
    path = written(tmp_path / "vectors.csv", id=["NA", "null", "nan"], valence=[1, 2, 3])
    assert read_vectors(path, ["NA", "nan", "null"]).vectors.tolist() == [[1], [3], [2]]
