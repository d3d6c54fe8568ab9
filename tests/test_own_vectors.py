"""A table of vectors of one's own in the place of action units: read, matched, and linked by without OpenFace."""

import datetime
import gzip
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
from fer_core.errors import ActionUnitError, CheckpointError
from fer_core.experiment import Experiment, load_experiment
from fer_core.graph.action_units import action_units
from fer_core.graph.neighbours import Graph, load_graph
from fer_core.graph.own_vectors import read_vectors
from fer_core.report.evidence import read_evidence
from fer_core.report.page import render
from fer_core.report.results import results
from fer_core.steps import request, runs_openface
from fer_core.steps.run import _columns_in_words, run_step

IDS = ["happiness/a.png", "sadness/a.png", "sadness/b.png", "sadness/c.png"]


def written(path: Path, /, **columns: Any) -> Path:
    table = pd.DataFrame(columns)
    table.to_parquet(path) if path.suffix == ".parquet" else table.to_csv(path, index=False)
    return path


@pytest.mark.parametrize("ending", ["csv", "parquet"])
@pytest.mark.parametrize("header", ["id", "filename", "image", "subDirectory_filePath", "input"])
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


def test_a_model_of_own_vectors_is_not_said_to_have_used_action_units(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = Steps(tmp_path)
    dataset = steps("prepare")
    graph = steps("graph", dataset, steps("annotate", dataset))
    given: list[Any] = []
    monkeypatch.setattr("fer_core.train.ldg.train_ldg", lambda *settings: given.extend(settings))
    wanted = request("train-ldg", steps.experiment(), (dataset, graph), seed=1)
    with pytest.raises(CheckpointError):  # Nothing was trained.
        run_step(wanted, tmp_path / "ldg", Silence())
    links, coverage = given[3], given[5]
    assert isinstance(links, Graph)
    assert coverage is None


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


@pytest.mark.parametrize("ending", ["csv", "parquet"])
@pytest.mark.parametrize("header", ["", "Unnamed: 0", "Unnamed: 0.1", "index", "level_0", "level_1"])
@pytest.mark.parametrize("numbers", [[3, 1, 0, 2], [2, 40, 7, 9], [0, 1, 0, 1]], ids=["shuffled", "filtered", "joined"])
def test_rows_numbers_are_told_by_their_header_in_any_order(
    tmp_path: Path, ending: str, header: str, numbers: list[int]
) -> None:
    path = written(tmp_path / f"vectors.{ending}", **{header: numbers, "id": IDS, "valence": [1.0, 2.0, 3.0, 4.0]})
    assert read_vectors(path, IDS).columns == ("valence",)


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_an_index_of_names_names_the_images_unless_a_column_does(tmp_path: Path, ending: str) -> None:
    table = pd.DataFrame({"valence": [1.0, 2.0, 3.0, 4.0]}, index=IDS)
    path = tmp_path / f"vectors.{ending}"
    table.to_csv(path) if ending == "csv" else table.to_parquet(path)
    assert read_vectors(path, IDS).vectors.tolist() == [[1], [2], [3], [4]]
    table = table.assign(filename=IDS[::-1])
    table.to_csv(path) if ending == "csv" else table.to_parquet(path)
    own = read_vectors(path, IDS)
    assert own.columns == ("valence",)
    assert own.vectors.tolist() == [[4], [3], [2], [1]]
    table.set_index("filename", drop=False).to_parquet(tmp_path / "vectors.parquet")
    assert read_vectors(tmp_path / "vectors.parquet", IDS).vectors.tolist() == [[4], [3], [2], [1]]


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_an_index_of_numbers_called_id_names_images(tmp_path: Path, ending: str) -> None:
    table = pd.DataFrame({"valence": [1.0, 2.0, 3.0]}, index=pd.Index([11, 12, 13], name="id"))
    path = tmp_path / f"vectors.{ending}"
    table.to_csv(path) if ending == "csv" else table.to_parquet(path)
    assert read_vectors(path, ["12.png", "11.png", "13.png"]).vectors.tolist() == [[2], [1], [3]]


@pytest.mark.parametrize("amiss", ["#DIV/0!", "#N/A", "-nan(ind)", "1.#QNAN", "n/a", "-"])
def test_an_image_without_a_number_has_no_vector_and_the_others_do(tmp_path: Path, amiss: str) -> None:
    for path in (tmp_path / "vectors.csv", tmp_path / "vectors.parquet"):
        written(path, id=IDS, valence=["1.5", amiss, "2.5", "3.5"], arousal=["1", "2", "3", "4"])
        own = read_vectors(path, IDS)
        assert np.isnan(own.vectors[:, 0]).tolist() == [False, True, False, False]
        assert own.vectors[3].tolist() == [3.5, 4]


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_a_table_without_rows_is_told(tmp_path: Path, ending: str) -> None:
    path = written(tmp_path / f"vectors.{ending}", id=[], filename=[], valence=[])
    with pytest.raises(ActionUnitError, match=r"neither a parquet nor a CSV \(no rows\)"):
        read_vectors(path, IDS)


@pytest.mark.parametrize("ending", ["csv", "parquet"])
@pytest.mark.parametrize("header", ["filename", "image", "path", "img_path"])
@pytest.mark.parametrize("id_", [[1, 2, 3, 4], ["u1", "u2", "u3", "u4"], ["sadness/a.png", "v", "w", "x"]])
def test_the_column_that_names_the_most_images_says_whose_a_row_is(
    tmp_path: Path, ending: str, header: str, id_: list[Any]
) -> None:
    columns = {"id": id_, header: IDS[::-1], "valence": [1.0, 2.0, 3.0, 4.0]}
    own = read_vectors(written(tmp_path / f"vectors.{ending}", **columns), IDS)
    assert own.columns == ("valence",)
    assert own.vectors.tolist() == [[4], [3], [2], [1]]


def test_of_columns_that_fit_as_well_one_that_counts_comes_last(tmp_path: Path) -> None:
    path = written(tmp_path / "vectors.csv", id=["2", "0", "1"], name=["0", "1", "x"], valence=[2.0, 0.0, 1.0])
    assert read_vectors(path, ["0", "1", "2"]).vectors.tolist() == [[0], [1], [2]]
    path = written(tmp_path / "vectors.csv", id=[1, 2], filename=["p.png", "q.png"], valence=[2.0, 0.0])
    with pytest.raises(ActionUnitError, match=r"it has such as 'p\.png'"):
        read_vectors(path, IDS)


@pytest.mark.parametrize(
    "header",
    [
        *("label", "Emotion", "split", "frame", "face_id", "confidence"),
        *("emotion_label", "labels", "Category", "ground_truth"),
        *("class_id", "label_id", "emotion_id", "expr", "gt", "y", "y_true", "true_label", "label_idx", "label_num"),
        *("target_id", "pred", "split_id", "fold_id", "is_train", "subject", "subject_id", "video_frame"),
        *("classid", "LabelNo", "emotion index", "IsTrain", "test", "frame_time_in_ms", "val", "k-fold"),
        *("exp", "exp_id", "label_happy", "class_3", "label.1", "happiness", "p_anger"),
        *("face_x", "face_y", "face_width", "face_height", "FaceRectX", "FaceRectWidth"),
    ],
)
def test_what_stands_beside_vectors_is_refused_as_a_component(tmp_path: Path, header: str) -> None:
    path = written(tmp_path / "vectors.csv", **{"id": IDS, header: [0, 1, 1, 1], "valence": [1.0, 2.0, 3.0, 4.0]})
    with pytest.raises(ActionUnitError, match=f"the column {header} would be a component"):
        read_vectors(path, IDS)


@pytest.mark.parametrize("values", [["a", "b", "b", "a"], [True, False, False, True]])
def test_an_answer_in_words_is_not_said_to_need_a_code(tmp_path: Path, values: list[Any]) -> None:
    path = written(tmp_path / "vectors.parquet", id=IDS, true_class_name=values, valence=[1.0, 2.0, 3.0, 4.0])
    with pytest.raises(ActionUnitError, match="true_class_name would be a component of the vectors; take it out"):
        read_vectors(path, IDS)


@pytest.mark.parametrize(
    "headers",
    [
        *(["e0", "e1"], ["f12", "dim_3"], ["valence", "arousal"], ["AU01_c", "AU02_r"], ["pca_1", "pca_2"], ["0", "1"]),
        *(["x_0", "y_0"], ["x", "y"], ["Y", "X"], ["age", "gender"], ["face_0", "face_1"], ["emb.1", "emb.2"]),
    ],
)
@pytest.mark.parametrize("values", [[0, 1, 1, 3], [0.5, -1.5, 2.25, 0.0]], ids=["whole", "fractions"])
def test_components_are_accepted_by_whatever_name(tmp_path: Path, headers: list[str], values: list[float]) -> None:
    path = written(tmp_path / "vectors.csv", id=IDS, **dict.fromkeys(headers, values))
    own = read_vectors(path, IDS)
    assert own.columns == tuple(headers)
    assert own.vectors[:, 1].tolist() == values


@pytest.mark.parametrize(
    "headers", [["happiness", "anger"], ["p_happiness", "p_fear"], ["class_0", "class_1"], ["val"]]
)
def test_scores_of_another_model_are_components(tmp_path: Path, headers: list[str]) -> None:
    path = written(tmp_path / "vectors.csv", id=IDS, **{header: [0.25, 0.5, 0, 1] for header in headers})
    assert read_vectors(path, IDS).columns == tuple(headers)


def test_names_that_a_table_holds_as_bytes_are_names(tmp_path: Path) -> None:
    raw = [name.encode() for name in IDS]
    path = written(tmp_path / "vectors.parquet", id=raw, valence=[1.0, 2.0, 3.0, 4.0])
    assert read_vectors(path, IDS).vectors.tolist() == [[1], [2], [3], [4]]


def test_y_is_a_coordinate_only_beside_x(tmp_path: Path) -> None:
    path = written(tmp_path / "vectors.csv", id=IDS, x0=[0.5] * 4, x1=[0.5] * 4, y=[1, 2, 3, 4])
    with pytest.raises(ActionUnitError, match="the column y would be a component"):
        read_vectors(path, IDS)


@pytest.mark.parametrize("twice", ["id", "valence"])
def test_two_columns_of_one_header_are_refused(tmp_path: Path, twice: str) -> None:
    rows = "".join(f"{name},{row},{row}\n" for row, name in enumerate(IDS))
    (tmp_path / "vectors.csv").write_text(f"id,{twice},valence\n{rows}")
    with pytest.raises(ActionUnitError, match=f"vectors.csv: two columns are called {twice}; rename one of them"):
        read_vectors(tmp_path / "vectors.csv", IDS)
    pd.read_csv(tmp_path / "vectors.csv").to_parquet(tmp_path / "vectors.parquet")
    if twice == "id":
        with pytest.raises(ActionUnitError, match="two columns are called id"):
            read_vectors(tmp_path / "vectors.parquet", IDS)


@pytest.mark.parametrize(
    "values",
    [
        list(pd.date_range("2020", periods=4)),
        list(pd.to_timedelta([1, 2, 3, 4], unit="s")),
        [datetime.date(2020, 1, day) for day in (1, 2, 3, 4)],
        [True, None, False, True],
        [{"a": 1}] * 4,
    ],
    ids=["timestamp", "timedelta", "date", "truth", "record"],
)
def test_what_pandas_would_make_numbers_of_is_no_component(tmp_path: Path, values: Any) -> None:
    path = written(tmp_path / "vectors.parquet", id=IDS, seen=values, valence=[1.0, 2.0, 3.0, 4.0])
    with pytest.raises(ActionUnitError, match="column seen holds what is no number"):
        read_vectors(path, IDS)


def test_a_column_of_lists_is_its_numbers(tmp_path: Path) -> None:
    lists = [[0.5, 1.5], [2.5, float("nan")], None, [3.5, 4.5]]
    own = read_vectors(written(tmp_path / "vectors.parquet", id=IDS, embedding=lists, age=[1, 2, 3, 4]), IDS)
    assert own.columns == ("embedding_0", "embedding_1", "age")
    np.testing.assert_array_equal(own.vectors, [[0.5, 1.5, 1], [2.5, np.nan, 2], [np.nan, np.nan, 3], [3.5, 4.5, 4]])


@pytest.mark.parametrize(
    ("lists", "said"),
    [
        ([[0.5], [1.5, 2.5], [], [1.5]], "column embedding holds lists of 0 to 2 numbers; give each image as many"),
        ([[[0.5], [1.5]]] * 4, "column embedding_0 holds what is no number"),
        ([["high"]] * 4, "column embedding_0 holds what is no number"),
    ],
)
def test_lists_that_are_no_vectors_are_told(tmp_path: Path, lists: list[Any], said: str) -> None:
    with pytest.raises(ActionUnitError, match=said):
        read_vectors(written(tmp_path / "vectors.parquet", id=IDS, embedding=lists), IDS)


def test_long_lists_are_read_in_seconds(tmp_path: Path) -> None:
    ids = [f"{number:05d}.png" for number in range(5000)]
    vectors = np.random.default_rng(0).normal(size=(5000, 512)).astype(np.float32)
    written(tmp_path / "vectors.parquet", id=ids, embedding=list(vectors))
    started = time.process_time()
    np.testing.assert_array_equal(read_vectors(tmp_path / "vectors.parquet", ids).vectors, vectors)
    assert time.process_time() - started < 5


@pytest.mark.parametrize("text", ["[0.5, 1.5]", "[0.5 1.5]", "(0.5, 1.5)", "0.5 1.5", "-1e-3, 2"])
@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_a_list_as_text_is_told_how_to_be_columns(tmp_path: Path, text: str, ending: str) -> None:
    path = written(tmp_path / f"vectors.{ending}", id=IDS, embedding=[text] * 4)
    said = r"embedding holds a list as text; one number a column .*pd\.DataFrame\(df\['embedding'\]\.tolist\(\)\)"
    with pytest.raises(ActionUnitError, match=said):
        read_vectors(path, IDS)


@pytest.mark.parametrize("name", ["vectors.npy", "vectors.npz"])
def test_numpys_files_are_told_to_lack_names(tmp_path: Path, name: str) -> None:
    save: Any = np.save if name.endswith("npy") else np.savez
    save(tmp_path / name, np.ones((4, 2)))
    said = f"{name}: numpy's format, which does not say whose a vector is; save a parquet or a CSV with a column id"
    with pytest.raises(ActionUnitError, match=said):
        read_vectors(tmp_path / name, IDS)


def test_a_spreadsheet_is_told_to_be_one(tmp_path: Path) -> None:
    (tmp_path / "vectors.xlsx").write_bytes(b"PK\x03\x04 and more")
    with pytest.raises(ActionUnitError, match=r"vectors\.xlsx: a spreadsheet or an archive; save it as CSV"):
        read_vectors(tmp_path / "vectors.xlsx", IDS)


@pytest.mark.parametrize("name", ["vectors.csv.gz", "vectors"])
def test_a_packed_csv_is_read_as_an_au_table_is(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(gzip.compress(f"id;valence\n{IDS[1]};1,5\n{IDS[2]};2,5\n".encode()))
    np.testing.assert_array_equal(read_vectors(path, IDS).vectors, [[np.nan], [1.5], [2.5], [np.nan]])
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(ActionUnitError, match=rf"{name}: neither a parquet nor a CSV \((?!/)"):
        read_vectors(path, IDS)


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        ("Filename;valence;arousal\n{0};1,5;2\n{2};3;-4,25\n", "utf-8"),
        (" file_name \tvalence\tarousal\n{0}\t1.5\t2\n{2}\t3\t-4.25\n", "utf-16"),
        ("ID,valence,arousal,\n{0},1.5,2,\n{2},3,-4.25,\n", "latin-1"),
        ('id,valence,arousal\n{0},"1,5",2\n{2},3,"-4,25"\n', "utf-8"),
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


def test_columns_are_told_so_that_one_of_another_kind_shows() -> None:
    assert _columns_in_words(["valence", "arousal"]) == "valence, arousal"
    assert _columns_in_words([f"e{n}" for n in range(20)]) == "e0 to e19"
    assert (
        _columns_in_words([*(f"e{n}" for n in range(10)), "age", *(f"e{n}" for n in range(10, 20))]) == "e0 to e19, age"
    )
