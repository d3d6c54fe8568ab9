"""Faces without a label: who they are, whose labels they are given, what that weighs, and how often they are seen."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from helpers.dataset_files import save_faces

from fer_core.artifacts import Artifact
from fer_core.data.dataset import EMOTIONS, UNLABELLED, Dataset, open_dataset
from fer_core.data.prepare import prepare
from fer_core.data.readers.splits import is_repeated
from fer_core.errors import ActionUnitError, DatasetError
from fer_core.experiment import ActionUnitSettings, DatasetSettings, GraphSettings, LdgSettings, load_experiment
from fer_core.graph.action_units import ActionUnits, action_units
from fer_core.graph.neighbours import TEACHER, Graph
from fer_core.graph.propagation import linear_discriminant
from fer_core.graph.unlabelled import (
    lesson,
    linear_teacher,
    link_to_labelled,
    rows_of_an_epoch,
    shuffled,
)
from fer_core.progress import JsonLines
from fer_core.steps import request
from fer_core.steps.run import run_step
from fer_core.train.ldg import train_ldg
from fer_core.train.loop import Run, Training


def drawn(out: Path, **settings: Any) -> Dataset:
    return prepared(out, None, **{"source": "sample", "count": 120, **settings})


def prepared(out: Path, data: Path | None, **settings: Any) -> Dataset:
    out.mkdir()
    prepare(DatasetSettings(**{"image_size": 24, **settings}), data, out, JsonLines())
    return open_dataset(out)


def units_of(vectors: list[list[float]], usable: list[bool] | None = None) -> ActionUnits:
    columns = tuple(f"AU{c}" for c in range(len(vectors[0])))
    return ActionUnits(columns, np.array(vectors, np.float32), np.array(usable or [True] * len(vectors)), {})


# Who has no label


def test_labels_are_kept_by_a_stratified_draw_and_everything_else_stays_as_it_was(tmp_path: Path) -> None:
    whole, few = drawn(tmp_path / "whole"), drawn(tmp_path / "few", labelled=30)
    assert len(few.rows("train")) == 30
    assert len(few.rows("train")) + len(few.rows("unlabelled")) == len(whole.rows("train"))
    for split in ("validation", "test"):
        assert (few.rows(split) == whole.rows(split)).all()  # type: ignore[arg-type]
    assert (few.images == whole.images).all()
    assert (few.labels()[few.rows("train")] == whole.labels()[few.rows("train")]).all()
    assert set(few.labels()[few.rows("train")]) == set(range(len(few.card.labels)))
    assert few.card.counts["unlabelled"] == len(few.rows("unlabelled"))
    assert "unlabelled" not in whole.card.counts


def test_nothing_of_a_hidden_label_is_left(tmp_path: Path) -> None:
    few = drawn(tmp_path / "few", labelled=30)
    hidden = few.rows("unlabelled")
    assert (few.labels()[hidden] == UNLABELLED).all()
    crowd = few.crowd()
    assert crowd is not None
    assert np.isnan(crowd[hidden]).all()
    assert np.isfinite(np.delete(crowd, hidden, axis=0)).all()


def test_other_seeds_label_other_images_and_more_labels_keep_the_fewer(tmp_path: Path) -> None:
    def labelled(out: str, count: int, seed: int) -> set[str]:
        dataset = drawn(tmp_path / out, labelled=count, split_seed=seed)
        return set(dataset.manifest["id"].to_numpy()[dataset.rows("train")])

    first = labelled("first", 20, 0)
    assert first != labelled("other", 20, 1)
    assert first <= labelled("more", 40, 0)


@pytest.mark.parametrize("labelled", [0, 10_000])
def test_without_a_number_or_with_too_large_a_one_every_label_stays(tmp_path: Path, labelled: int) -> None:
    assert len(drawn(tmp_path / "all", labelled=labelled).rows("unlabelled")) == 0


def test_an_unlabelled_copy_of_a_judged_image_is_a_repetition() -> None:
    sha256 = pd.Series(["a", "b", "b", "a", "c"])
    split = pd.Series(["unlabelled", "test", "unlabelled", "train", "unlabelled"])
    assert is_repeated(sha256, split).tolist() == [True, False, True, False, False]


def test_the_coverage_of_action_units_counts_unlabelled_faces_too(tmp_path: Path) -> None:
    from openface.columns import INTENSITIES, PRESENCES

    few = drawn(tmp_path / "few", labelled=30)
    table = pd.DataFrame({"id": few.manifest["id"], "status": "ok", "confidence": 1.0})
    table.loc[few.rows("unlabelled")[:3], "status"] = "no_face"
    table = table.assign(**dict.fromkeys(INTENSITIES + PRESENCES, 0.5))
    units = action_units(few, table, ActionUnitSettings(features="intensity"))
    hidden = len(few.rows("unlabelled"))
    assert units.coverage["unlabelled"] == {"images": hidden, "usable": hidden - 3, "no_face": 3}


# Whose labels they are given


def test_every_image_is_linked_to_labelled_ones_alone_and_never_to_itself() -> None:
    draw = np.random.default_rng(0)
    vectors, usable = draw.normal(size=(80, 4)), draw.random(80) < 0.8
    labelled = np.arange(0, 80, 3)
    graph = link_to_labelled(units_of(vectors.tolist(), usable.tolist()), labelled, GraphSettings(labelled_k=3))
    sources = {int(row) for row in labelled if usable[row]}
    for row in range(80):
        if not usable[row]:
            assert graph.neighbours[row].tolist() == [-1] * 3
            continue
        others = sorted(sources - {row}, key=lambda s: float(np.linalg.norm(vectors[s] - vectors[row])))
        assert graph.neighbours[row].tolist() == others[:3]
    reached = graph.neighbours[:, 0] >= 0
    assert graph.similarity[reached].max() <= 1
    median = np.median(graph.distance[reached])
    np.testing.assert_allclose(graph.similarity[reached], np.exp(-graph.distance[reached] / median), rtol=1e-5)
    units = units_of(vectors.tolist(), usable.tolist())
    told = link_to_labelled(units, labelled, GraphSettings(labelled_k=3, sigma=2.0))
    np.testing.assert_allclose(told.similarity[reached], np.exp(-graph.distance[reached] / 4), rtol=1e-5)


def test_equal_faces_are_each_others_neighbours_and_not_their_own() -> None:
    graph = link_to_labelled(units_of([[1.0]] * 6), np.arange(5), GraphSettings(labelled_k=2))
    for row in range(6):
        assert row not in graph.neighbours[row]
        assert set(graph.neighbours[row]) <= set(range(5))
    assert (graph.similarity == 1).all()


def test_the_random_control_keeps_the_similarities_and_draws_labelled_faces() -> None:
    vectors = np.random.default_rng(1).normal(size=(60, 3)).tolist()
    real = link_to_labelled(units_of(vectors), np.arange(20), GraphSettings(labelled_k=4))
    control = link_to_labelled(units_of(vectors), np.arange(20), GraphSettings(labelled_k=4, control="random"))
    assert (control.similarity == real.similarity).all()
    assert (control.neighbours != real.neighbours).mean() > 0.5
    assert control.neighbours.max() < 20
    other = link_to_labelled(units_of(vectors), np.arange(20), GraphSettings(labelled_k=4, control="random", seed=2))
    assert (control.neighbours != other.neighbours).any()


def test_too_few_labelled_faces_with_action_units_are_refused() -> None:
    with pytest.raises(ActionUnitError, match=r"graph\.labelled_k = 8, but only 3 of 4 labelled images"):
        link_to_labelled(units_of([[float(i)] for i in range(9)], [False] + [True] * 8), np.arange(4), GraphSettings())
    with pytest.raises(ActionUnitError, match="only 3 of 3"):
        link_to_labelled(units_of([[float(i)] for i in range(9)]), np.arange(3), GraphSettings(labelled_k=3))


def test_too_few_vectors_of_ones_own_are_called_by_their_name() -> None:
    units = replace(units_of([[float(i)] for i in range(9)], [False] * 9), own=True)
    with pytest.raises(ActionUnitError, match=r"only 0 of 4 labelled images have a vector; lower"):
        link_to_labelled(units, np.arange(4), GraphSettings())
    with pytest.raises(ActionUnitError, match=r"no labelled image has a vector; look at"):
        linear_teacher(units, np.arange(4), np.zeros(9, np.int64), 1)


# What they teach

LABELLED = torch.tensor([True, True, False, False])
HARD = torch.tensor([[1.0, 0.0], [0.0, 1.0], [torch.nan, torch.nan], [torch.nan, torch.nan]])
TO_LABELLED = Graph(
    neighbours=np.array([[1, 1], [0, 0], [0, 1], [-1, -1]], np.int32),
    distance=np.zeros((4, 2), np.float32),
    similarity=np.array([[1, 1], [1, 1], [0.75, 0.25], [0, 0]], np.float32),
)


def test_by_default_labels_teach_and_nothing_else() -> None:
    for graph in (None, TO_LABELLED):
        found = lesson(HARD, LABELLED, graph, LdgSettings())
        assert found.target.tolist() == [[1, 0], [0, 1], [0.5, 0.5], [0.5, 0.5]]
        assert found.weight.tolist() == [1, 1, 0, 0]


def test_an_unlabelled_face_is_given_its_neighbours_labels_at_the_weight_asked_for() -> None:
    found = lesson(HARD, LABELLED, TO_LABELLED, LdgSettings(propagated=0.3))
    torch.testing.assert_close(found.target[2], torch.tensor([0.75, 0.25]))
    torch.testing.assert_close(found.weight, torch.tensor([1, 1, 0.3, 0]))
    assert found.target[:2].tolist() == [[1, 0], [0, 1]]


def test_mixing_and_smoothing_change_labelled_targets_alone() -> None:
    found = lesson(HARD, LABELLED, TO_LABELLED, LdgSettings(mixed=0.4, smoothing=0.1, propagated=1.0))
    torch.testing.assert_close(found.target[:2], torch.tensor([[0.59, 0.41], [0.41, 0.59]]))
    torch.testing.assert_close(found.target[2], torch.tensor([0.75, 0.25]))
    torch.testing.assert_close(found.target.sum(dim=1), torch.ones(4))
    alone = replace(TO_LABELLED, neighbours=np.array([[1, 1], [-1, -1], [0, 1], [-1, -1]], np.int32))
    found = lesson(HARD, LABELLED, alone, LdgSettings(mixed=0.4))
    torch.testing.assert_close(found.target[:2], torch.tensor([[0.6, 0.4], [0.0, 1.0]]))


# How often they are seen


def test_labelled_images_come_as_often_as_makes_their_share() -> None:
    rows = rows_of_an_epoch(np.arange(10), np.arange(100, 400), share=1 / 3)
    assert np.bincount(rows)[:10].tolist() == [15] * 10
    assert np.bincount(rows)[100:].tolist() == [1] * 300


def test_labelled_images_come_once_where_they_are_many_or_alone() -> None:
    assert rows_of_an_epoch(np.arange(100), np.arange(100, 105), share=1 / 3).tolist() == list(range(105))
    assert rows_of_an_epoch(np.arange(7), np.arange(0), share=1 / 3).tolist() == list(range(7))


def training_of(dataset: Dataset, usable: np.ndarray, monkeypatch: pytest.MonkeyPatch, *settings: str) -> Training:
    """What LDG-AUs would be trained on, with neighbours for the usable rows."""
    taken: list[Training] = []
    monkeypatch.setattr("fer_core.train.ldg.train", lambda training, *_: taken.append(training))
    experiment = load_experiment("few-labels", ("dataset.source=sample", *settings))
    links = np.where(usable, 0, -1).astype(np.int32)[:, None]
    graph = Graph(links, np.zeros(links.shape, np.float32), np.ones(links.shape, np.float32))
    run = Run(1, Path(), torch.device("cpu"), JsonLines())
    train_ldg(experiment, dataset, "majority", graph, run, teacher=np.full((len(usable), 7), 1 / 7, np.float32))
    return taken[0]


@pytest.mark.parametrize("way", ["ldg.propagated=2", "ldg.lambda=0.1"])
def test_unlabelled_images_that_nothing_teaches_are_not_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    few = drawn(tmp_path / "few", labelled=30)
    hidden = np.isin(np.arange(len(few.manifest)), few.rows("unlabelled"))
    assert set(few.rows("unlabelled")) <= set(training_of(few, np.ones(120, bool), monkeypatch, way).rows)  # type: ignore[arg-type]
    assert training_of(few, ~hidden, monkeypatch, way).rows.tolist() == few.rows("train").tolist()  # type: ignore[union-attr]


def test_a_training_on_few_unlabelled_images_that_is_over_too_soon_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    few, usable = drawn(tmp_path / "few", labelled=30), np.ones(120, bool)
    training = training_of(
        few, usable, monkeypatch, "ldg.epochs=50", "ldg.epochs_with_neighbours=6", "augment.flip=0.2"
    )
    assert training.augment.flip == 0.2
    told = capsys.readouterr().out
    rows = len(rows_of_an_epoch(few.rows("train"), few.rows("unlabelled"), 1 / 3))
    assert f"LDG-AUs takes 12 training steps, in 6 epochs of {rows} images, and labels alone take 50" in told
    assert "25 epochs would be as many: ldg.epochs_with_neighbours" in told
    training_of(few, usable, monkeypatch, "ldg.epochs=50", "ldg.epochs_with_neighbours=25")
    assert "no fair comparison" not in capsys.readouterr().out


# A linear teacher of action units


def test_a_linear_teacher_labels_what_its_vectors_tell_and_leaves_the_rest_unknown() -> None:
    generator = np.random.default_rng(3)
    labels = np.array([0, 1, 2] * 20)
    vectors = np.eye(3)[labels] * 4 + generator.normal(0, 0.5, (60, 3))
    units = units_of(vectors.tolist(), [True] * 59 + [False])
    found = linear_teacher(units, np.arange(30), np.where(np.arange(60) < 30, labels, UNLABELLED), 3)
    np.testing.assert_allclose(found[:59].sum(axis=1), 1, atol=1e-6)
    assert (found[30:59].argmax(axis=1) == labels[30:59]).all()
    assert np.isnan(found[59]).all()
    weights, biases = linear_discriminant(torch.from_numpy(vectors[:30]), torch.eye(3).double()[labels[:30]], 0.1)
    expected = (torch.from_numpy(vectors[:59]) @ weights + biases).softmax(dim=1)
    np.testing.assert_allclose(found[:59], expected.numpy(), atol=1e-5)
    weighed = replace(units, weights=np.array([9, 1, 1], np.float32))
    np.testing.assert_array_equal(linear_teacher(weighed, np.arange(30), labels, 3), found)
    with pytest.raises(ActionUnitError, match=r"graph.teacher = linear: no labelled image has usable AUs"):
        linear_teacher(units_of(vectors.tolist(), [False] * 60), np.arange(30), labels, 3)


def test_a_teacher_takes_the_neighbours_place() -> None:
    teacher = np.array([[0.9, 0.1], [0.1, 0.9], [0.2, 0.8], [np.nan, np.nan]], np.float32)
    found = lesson(HARD, LABELLED, TO_LABELLED, LdgSettings(propagated=0.5, mixed=0.5), teacher)
    torch.testing.assert_close(found.target, torch.tensor([[0.95, 0.05], [0.05, 0.95], [0.2, 0.8], [0.5, 0.5]]))
    torch.testing.assert_close(found.weight, torch.tensor([1, 1, 0.5, 0]))


def test_the_random_control_deals_out_what_a_linear_teacher_says_at_random() -> None:
    teacher = np.random.default_rng(5).dirichlet(np.ones(3), 40)
    teacher[7] = np.nan
    control = shuffled(teacher, np.arange(30), seed=1)
    known = np.delete(np.arange(30), 7)
    assert sorted(control[known].tolist()) == sorted(teacher[known].tolist())
    assert (control[known] != teacher[known]).any(axis=1).mean() > 0.8
    assert np.isnan(control[7]).all()
    assert (shuffled(teacher, np.arange(30), seed=2) != control)[known].any()
    assert (control[30:] == teacher[30:]).all()


def linked(out: Path, *settings: str, without: Callable[[Dataset], np.ndarray] | None = None) -> Artifact:
    """The graph of drawn faces; `without` names the rows in whose images no face was found."""
    small = ("dataset.source=sample", "dataset.count=120", "dataset.image_size=24", *settings)
    experiment = load_experiment("few-labels", small)
    made = [run_step(request("prepare", experiment), out / "prepare", JsonLines())]
    made.append(run_step(request("annotate", experiment, made), out / "annotate", JsonLines()))
    if without is not None:
        table = pd.read_parquet(made[1].path / "aus.parquet")
        table.loc[without(open_dataset(made[0].path)), "status"] = "no_face"
        table.to_parquet(made[1].path / "aus.parquet")
    return run_step(request("graph", experiment, made), out / "graph", JsonLines())


def test_a_linear_teacher_needs_no_labelled_neighbours_and_follows_the_control(tmp_path: Path) -> None:
    few = "dataset.labelled=7"
    teacher, control = (
        np.load(linked(tmp_path / value, few, f"graph.control={value}").path / TEACHER) for value in ("none", "random")
    )
    assert not (tmp_path / "none" / "graph" / "to_labelled.npz").exists()
    assert teacher.shape == control.shape == (120, 7)
    assert (np.nan_to_num(teacher) != np.nan_to_num(control)).any()


def test_faces_and_classes_that_action_units_cannot_teach_are_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    linked(tmp_path, "dataset.labelled=40", without=lambda d: np.isin(np.arange(len(d.manifest)), d.rows("unlabelled")))
    assert "no image without a label has usable AUs, so none is given one by them" in capsys.readouterr().out
    linked(tmp_path / "class", "dataset.labelled=40", without=lambda d: d.labels() == EMOTIONS.index("sadness"))
    told = capsys.readouterr().out
    assert "no labelled image of sadness has usable AUs, so no image without a label is taught to be that" in told
    assert "no image without a label has" not in told


# Whose label is wrong


def test_label_noise_replaces_a_share_of_the_training_labels_by_each_other_class(tmp_path: Path) -> None:
    for name in EMOTIONS[:7]:
        save_faces(tmp_path / "faces" / name, 215)
    clean, little, much = (
        prepared(tmp_path / f"{share}", tmp_path / "faces", source="folder", label_noise=share)
        for share in (0.0, 0.1, 0.3)
    )
    train = clean.rows("train")
    spoiled = {name: made.labels()[train] != clean.labels()[train] for name, made in (("l", little), ("m", much))}
    # Shares of 1,080 draws: three standard errors are .027 and .042.
    assert spoiled["l"].mean() == pytest.approx(0.1, abs=0.03)
    assert spoiled["m"].mean() == pytest.approx(0.3, abs=0.045)
    assert (spoiled["m"] | ~spoiled["l"]).all(), "more noise spoils the same labels and further ones"
    steps = (much.labels()[train] - clean.labels()[train])[spoiled["m"]] % 7
    assert set(steps) == {1, 2, 3, 4, 5, 6}
    for split in ("validation", "test"):
        rows = clean.rows(split)  # type: ignore[arg-type]
        assert (much.labels()[rows] == clean.labels()[rows]).all()
    assert "30% of the training labels were replaced" in much.card.protocol
    assert clean.card.protocol in much.card.protocol


def test_label_noise_with_distributions_as_labels_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="label_noise"):
        drawn(tmp_path / "out", label_noise=0.1, labels="distribution")
