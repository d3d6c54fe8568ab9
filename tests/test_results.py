"""The figures of results.json against numbers worked out by hand."""

import dataclasses
import json
import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
from helpers.report_inputs import au_table, dataset, experiment, figures, graph_card, guesses, ring_graph

from fer_core.data.dataset import Dataset, DatasetCard
from fer_core.evaluation.paired import compare, decided, difference, interval_over_seeds
from fer_core.graph.action_units import action_units
from fer_core.graph.agreement import label_agreement
from fer_core.graph.neighbours import Graph
from fer_core.report.captions import headlines
from fer_core.report.evidence import MODELS, Evidence, Generator, JudgedModel
from fer_core.report.models_table import models_table
from fer_core.report.results import accuracy_table, identical_neighbours, missing, results

HALF_TO_QUARTER = 0.5 * math.log(2) + 0.5 * math.log(2 / 3)
"""KL of (½, ½) from (¼, ¾)."""


def evidence(data: Dataset, names: tuple[str, ...] = MODELS, seeds: tuple[int, ...] = (1, 2)) -> Evidence:
    units = action_units(data, au_table(data), experiment().action_units)
    models, rows = [], data.rows("test")
    for name in names:
        for seed in seeds:
            metrics, table = figures(data, name, seed)
            chosen = table[(table["split"] == "test") & (table["choice"] == "selected")]
            models.append(JudgedModel(metrics, chosen[list(data.card.labels)].to_numpy()))
            assert len(chosen) == len(rows)
    return Evidence(experiment(), data, units, ring_graph(data, units.usable), graph_card(units), tuple(models), (), ())


def judged(name: str, seed: int, accuracy: float) -> JudgedModel:
    return JudgedModel({"name": name, "seed": seed, "selected": {"test": {"accuracy": accuracy}}}, np.empty((0, 0)))


def row(rows: list[dict[str, Any]], name: str) -> dict[str, Any]:
    (found,) = [r for r in rows if r["name"] == name]
    return found


def test_the_table_has_maximum_median_and_minimum_in_percent_and_nothing_where_no_model_is() -> None:
    models = [judged("LDG", seed, accuracy) for seed, accuracy in ((1, 0.5), (2, 0.25), (3, 0.75), (4, 0.625))]
    table = accuracy_table([*models, judged("EF SLL", 1, 0.5)], "selected")
    assert table["columns"] == ["EF + LDG-AUs", "EF + LDG", "EF SLL", "LDG-AUs", "LDG"]
    assert table["rows"] == {
        "max": [None, None, 50.0, None, 75.0],
        "median": [None, None, 50.0, None, 56.25],
        "min": [None, None, 50.0, None, 25.0],
    }


def test_missing_models_are_named_by_seed() -> None:
    whole = evidence(dataset())
    assert missing(whole) == []
    part = dataclasses.replace(whole, models=tuple(m for m in whole.models if (m.name, m.seed) != ("LDG-AUs", 2)))
    assert missing(part) == ["LDG-AUs · seed 2"]


def test_mcnemar_counts_the_images_that_only_one_gets_right() -> None:
    labels = np.zeros(8, np.int64)
    right, wrong = np.array([[0.9, 0.1]]), np.array([[0.1, 0.9]])
    first = {1: np.repeat(right, 8, axis=0)}
    second = {1: np.concatenate([np.repeat(right, 2, axis=0), np.repeat(wrong, 6, axis=0)])}
    compared = compare(first, second, labels, None, resamples=20)
    assert compared["mcnemar"] == [{"seed": 1, "only_first": 6, "only_second": 0, "p": pytest.approx(2 / 64)}]
    assert compared["accuracy_difference_points"]["mean"] == 75.0
    assert compared["kl_difference"] is None


def test_the_nearer_model_has_a_negative_kl_difference() -> None:
    truth = np.full((4, 2), 0.5)
    far = np.tile([0.25, 0.75], (4, 1))
    first, second = {1: truth, 2: truth, 4: far}, {1: far, 2: far, 3: far}
    compared = compare(first, second, np.zeros(4, np.int64), truth, resamples=20)
    assert compared["seeds"] == [1, 2]
    figures = compared["kl_difference"]
    assert figures["mean"] == pytest.approx(-HALF_TO_QUARTER)
    assert figures["per_seed"] == pytest.approx([-HALF_TO_QUARTER] * 2)
    assert figures["over_images"] == {"low": pytest.approx(-HALF_TO_QUARTER), "high": pytest.approx(-HALF_TO_QUARTER)}
    assert figures["over_seeds"] is None
    assert decided(figures) == -1


def test_a_model_that_is_only_less_sure_is_no_nearer_at_the_temperatures() -> None:
    """A temperature, or label smoothing, gives the same without any neighbours."""
    data = dataset()
    whole = evidence(data, names=("LDG",))
    sharp = [replace_temperature(model, "LDG", 2.0, model.probabilities) for model in whole.models]
    mild = [replace_temperature(model, "LDG-AUs", 1.0, model.calibrated) for model in sharp]
    found = results(dataclasses.replace(whole, models=(*sharp, *mild)))
    (pair,) = found["paired"]
    assert pair["kl_difference"]["mean"] < -0.01
    assert pair["kl_difference_at_temperature"]["per_seed"] == pytest.approx([0, 0], abs=1e-12)
    pair["kl_difference"]["over_images"] = {"low": -0.2, "high": -0.1}
    pair["kl_difference_at_temperature"]["over_images"] = {"low": -0.01, "high": 0.01}
    (said,) = [sentence for sentence in headlines(found) if sentence.startswith("LDG-AUs comes nearer")]
    assert "With each at its temperature, so that none gains by being less sure, this is left open: " in said
    sharp = [replace_temperature(model, "LDG", 1.0, model.probabilities) for model in sharp]
    found = results(dataclasses.replace(whole, models=(*sharp, *mild)))
    assert not any("at its temperature" in sentence for sentence in headlines(found))


def replace_temperature(model: JudgedModel, name: str, temperature: float, probabilities: np.ndarray) -> JudgedModel:
    return JudgedModel(model.figures | {"name": name, "temperature": temperature}, probabilities)


def test_the_interval_over_seeds_is_students_and_needs_three() -> None:
    found = interval_over_seeds([1.0, 2.0, 3.0])
    # t of 0.975 with 2 degrees of freedom is 4.302653; the standard error is 1 / √3.
    reach = 4.302653 / math.sqrt(3)
    assert found is not None
    assert dict(found) == {"low": pytest.approx(2 - reach, abs=1e-5), "high": pytest.approx(2 + reach, abs=1e-5)}
    assert interval_over_seeds([1.0, 2.0]) is None


def test_a_difference_is_decided_only_where_all_its_intervals_exclude_zero() -> None:
    sure, torn = np.full(30, 0.5), np.tile([1.0, -1.0], 15)
    assert decided(difference({1: sure}, 50)) == 1
    assert decided(difference({1: torn}, 50)) == 0
    for sign in (1, -1):
        assert decided(difference({1: sign * sure, 2: -10 * sign * sure, 3: 11 * sign * sure}, 50)) == 0
        assert decided(difference({1: sign * sure, 2: sign * sure, 3: 1.01 * sign * sure}, 50)) == sign
    over_images = difference({1: torn, 2: -torn}, 50)["over_images"]
    assert over_images == {"low": 0, "high": 0}, "images are drawn of differences averaged over seeds"


def test_agreement_of_neighbours_labels_and_chance() -> None:
    card = DatasetCard("csv", ("a", "b"), "", "", (0.5,), (0.5,), {})
    manifest = pd.DataFrame({"label": [0, 0, 1, 1], "sha256": ["x", "x", "y", "z"], "split": "train"})
    links = np.array([[1, 2], [0, 3], [3, 0], [-1, -1]], np.int32)
    graph = Graph(links, np.zeros((4, 2), np.float32), np.zeros((4, 2), np.float32))
    whole = evidence(dataset(), names=())
    small = dataclasses.replace(whole, dataset=Dataset(card, manifest, np.empty((4, 0, 0, 1))), graph=graph)
    # Linked are the first three, of which the only pairs of one label are (0, 1) and (1, 0), 2 of 6.
    assert label_agreement(small.graph, small.dataset.labels()) == {
        "neighbours": pytest.approx(1 / 2),
        "by_rank": pytest.approx([1.0, 0.0]),
        "chance": pytest.approx(1 / 3),
    }
    assert identical_neighbours(small) == pytest.approx(2 / 6)


def test_measures_stand_beside_the_uniform_prediction_and_au_neighbours_alone() -> None:
    data = dataset()
    whole = evidence(data)
    measures = results(whole)["distribution_measures"]
    rows, crowd = data.rows("test"), data.crowd()
    assert crowd is not None
    truth = np.maximum(crowd[rows].astype(float), 1e-6)
    truth /= truth.sum(axis=1, keepdims=True)
    even = row(measures["rows"], "uniform")
    assert even["kl"] == pytest.approx((truth * np.log(truth * 3)).sum(axis=1).mean(), abs=1e-6)
    assert even["accuracy"] is None
    usable = int(whole.units.usable[rows].sum())
    assert (measures["images"], measures["on_images_with_aus"]["images"]) == (24, usable)
    for name in ("AU neighbours alone, k = 2", "AU neighbours alone, k = 16"):
        assert row(measures["rows"], name)["images"] == usable
    same_images = row(measures["on_images_with_aus"]["rows"], "LDG")
    assert [seed["seed"] for seed in same_images["per_seed"]] == [1, 2]
    assert same_images["kl"] == pytest.approx(np.mean([seed["kl"] for seed in same_images["per_seed"]]))


def test_soft_labels_are_judged_against_smoothing_on_train() -> None:
    data = dataset()
    crowd = data.crowd()
    assert crowd is not None
    hard = guesses(data, np.arange(len(data.manifest)), 1.0, seed=0)
    generators = (Generator("LDG-AUs", 1, crowd), Generator("LDG", 1, hard))
    against = results(dataclasses.replace(evidence(data), generators=generators))["soft_labels_against_truth"]
    assert against["images"] == 40
    assert against["soft_labels_nearer_than_smoothing"] == {"LDG-AUs": True, "LDG": False}
    assert row(against["rows"], "LDG-AUs")["kl"] == pytest.approx(0, abs=1e-9)
    assert row(against["rows"], "LDG")["kl"] == pytest.approx(row(against["rows"], "hard labels")["kl"])
    assert 0 < row(against["rows"], "label smoothing at its best")["share"] < 0.6


def test_unclipped_kl_stands_beside_the_clipped_one_where_it_is_finite() -> None:
    data = dataset()
    whole = evidence(data)
    found = results(whole)
    rows, crowd = data.rows("test"), data.crowd()
    assert crowd is not None
    measures, against = found["distribution_measures"], found["soft_labels_against_truth"]
    assert measures["clip"] == against["clip"] == 1e-6
    truth = crowd[rows].astype(float)
    even = np.where(truth > 0, truth * np.log(np.where(truth > 0, truth, 1) * 3), 0).sum(axis=1).mean()
    assert row(measures["rows"], "uniform")["kl_unclipped"] == pytest.approx(even)
    # A hard label holds impossible what the crowd holds possible.
    assert row(against["rows"], "hard labels")["kl_unclipped"] is None
    assert found["models"][0]["selected"]["test"]["kl_unclipped"] > 0


def test_the_table_of_models_has_a_row_a_model_with_what_it_came_from() -> None:
    whole = evidence(dataset(), names=("LDG", "EF SLL"))
    whole = dataclasses.replace(whole, fingerprints={("LDG", 2): "0123456789abcdef"})
    table = models_table(whole)
    assert list(zip(table["model"], table["seed"], strict=True)) == [
        ("EF SLL", 1),
        ("EF SLL", 2),
        ("LDG", 1),
        ("LDG", 2),
    ]
    last = table.iloc[3]
    test = whole.seeds_of("LDG")[1].figures["selected"]["test"]
    assert (last["fingerprint"], last["commit"], last["hardware"]) == ("0123456789abcdef", "abc", "CPU, AVX2")
    assert (last["accuracy"], last["accuracy_low"]) == (test["accuracy"], test["accuracy_interval"]["low"])
    assert (last["kl"], last["kl_high"]) == (test["distribution"]["kl"], test["kl_interval"]["high"])
    assert (last["kl_unclipped"], last["clip"]) == (test["kl_unclipped"], 1e-6)
    assert (last["experiment"], last["dataset"], last["training_seconds"]) == ("A small run", "csv", 6.0)


def test_measures_of_the_table_of_models_are_empty_without_a_truth() -> None:
    table = models_table(evidence(dataset(truth=""), names=("LDG",)))
    assert table[["kl", "kl_low", "kl_unclipped", "clip", "cosine"]].isna().all(axis=None)
    assert table["accuracy"].notna().all()
    assert list(models_table(evidence(dataset(), names=())).columns) == list(table.columns)


def test_accuracy_on_published_test_images_stands_beside_the_protocols() -> None:
    data = dataset(source="ferplus")
    published = np.arange(len(data.manifest)) % 3 > 0
    data = dataclasses.replace(data, manifest=data.manifest.assign(published=published))
    whole = evidence(data, names=("LDG",))
    found = results(whole)["published_test_images"]
    rows = data.rows("test")
    models = whole.seeds_of("LDG")
    right = [(m.probabilities.argmax(axis=1) == data.labels()[rows])[published[rows]].mean() for m in models]
    assert (found["images"], found["of"]) == (published[rows].sum(), 24)
    assert found["rows"] == [
        {
            "name": "LDG",
            "accuracy": pytest.approx(100 * np.mean(right)),
            "per_seed": pytest.approx([100 * r for r in right]),
        }
    ]
    assert results(evidence(dataset(), names=("LDG",)))["published_test_images"] is None


def test_the_linear_model_that_labels_the_others_is_judged_beside_the_models_on_the_same_images() -> None:
    data = dataset()
    rows, labels = data.rows("test"), data.labels()
    teacher = np.full((len(labels), len(data.card.labels)), np.nan)
    known = rows[:16]
    teacher[known] = np.eye(len(data.card.labels))[labels[known]]
    teacher[known[:4]] = np.roll(teacher[known[:4]], 1, axis=1)  # Four of sixteen are wrong.
    whole = dataclasses.replace(evidence(data, names=("LDG-AUs", "LDG")), linear_teacher=teacher)
    found = results(whole)["beside_linear_teacher"]
    assert (found["images"], found["of"], found["teacher"]) == (16, 24, 75.0)
    expected = [100 * (m.probabilities.argmax(axis=1) == labels[rows])[:16].mean() for m in whole.seeds_of("LDG")]
    assert row(found["rows"], "LDG")["per_seed"] == pytest.approx(expected)
    assert [one["name"] for one in found["rows"]] == ["LDG-AUs", "LDG"]
    assert results(evidence(data, names=("LDG",)))["beside_linear_teacher"] is None


def test_models_that_start_from_scratch_where_their_source_does_not_are_named() -> None:
    whole = evidence(dataset(), names=("LDG", "EF SLL"))
    for model in whole.models:
        weights = "msceleb.pth" if model.name == "LDG" else ""
        model.figures["recipe"] = {"pretrained_on": "MS-Celeb-1M", "weights": weights}
    assert results(whole)["from_scratch"] == {"EF SLL": "MS-Celeb-1M"}


def test_trainings_with_other_settings_than_the_experiments_are_named() -> None:
    whole = evidence(dataset(), names=("LDG", "EF SLL"))
    for model in whole.models:
        own = dataclasses.asdict(whole.experiment.ldg if model.name == "LDG" else whole.experiment.sll)
        model.figures["recipe"] = own | {"weights": "lies elsewhere.pth"}
    assert results(whole)["trained_otherwise"] == []
    batch = whole.experiment.sll.batch
    whole.models[-1].figures["recipe"] |= {"batch": batch // 2}
    (found,) = results(whole)["trained_otherwise"]
    assert found == {"name": "EF SLL", "seed": whole.models[-1].seed, "settings": {"batch": [batch, batch // 2]}}


def test_without_a_truth_there_is_nothing_to_measure_against() -> None:
    found = results(evidence(dataset(truth="")))
    assert found["distribution_measures"] is None
    assert found["soft_labels_against_truth"] is None
    assert all(pair["kl_difference"] is None for pair in found["paired"])


@pytest.mark.parametrize(("source", "shown"), [("rafdb", True), ("ferplus", False)])
def test_the_papers_table_stands_beside_rafdb_alone(source: str, shown: bool) -> None:
    table = results(evidence(dataset(source=source), names=("LDG",)))["paper_table"]
    assert (table is not None) == shown
    if shown:
        assert table["rows"]["median"][1] == 88.16
        assert "test set" in table["remark"]


def test_pairs_need_a_seed_in_common() -> None:
    whole = evidence(dataset())
    kept = {("LDG", 1), ("LDG-AUs", 2), ("EF SLL", 1), ("EF + LDG", 1)}
    part = dataclasses.replace(whole, models=tuple(m for m in whole.models if (m.name, m.seed) in kept))
    assert [(p["first"], p["second"]) for p in results(part)["paired"]] == [("EF + LDG", "EF SLL")]


def test_the_document_is_plain_json_in_a_fixed_order() -> None:
    found = results(evidence(dataset()))
    assert json.loads(json.dumps(found, allow_nan=False))["seeds"] == [1, 2]
    assert list(found)[:7] == [
        "title",
        "experiment",
        "dataset",
        "seeds",
        "table",
        "table_last_epoch",
        "paper_table",
    ]
    assert [(m["name"], m["seed"]) for m in found["models"]] == [(name, seed) for name in MODELS for seed in (1, 2)]
    assert found["models"][0]["training_seconds"] == 6.0
