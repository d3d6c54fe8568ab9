"""Calibration and the card that goes with a checkpoint: every figure is the dataset's and the network's own."""

import html
import json
from dataclasses import replace
from pathlib import Path
from typing import get_args, get_type_hints

import numpy as np
import pytest
import torch
from markdown_it import MarkdownIt
from scipy.special import softmax
from test_training import CPU, LDG, RECIPE, trained

from fer_core.data.dataset import Dataset
from fer_core.data.views import Views
from fer_core.evaluation.calibration import fit_temperature, probabilities, supported_temperature
from fer_core.evaluation.metrics import expected_calibration_error
from fer_core.evaluation.model_card import MODEL_CARD, licence_of, markdown
from fer_core.experiment import DatasetSettings, Experiment
from fer_core.graph.neighbours import Graph
from fer_core.models.architectures import build
from fer_core.models.checkpoint import ModelCard, load_checkpoint, read_card
from fer_core.models.logits import predict_logits
from fer_core.progress import JsonLines
from fer_core.train.import_weights import import_weights
from fer_core.train.ldg import train_ldg
from fer_core.train.loop import Run


def overconfident(temperature: float, count: int = 20_000) -> tuple[np.ndarray, np.ndarray]:
    """Logits `temperature` times too large for the labels drawn from them."""
    generator = np.random.default_rng(0)
    logits = generator.normal(0, 2, (count, 5))
    labels = np.array([generator.choice(5, p=row) for row in softmax(logits, axis=1)])
    return logits * temperature, labels


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_the_temperature_that_labels_were_drawn_at_is_found(temperature: float) -> None:
    logits, labels = overconfident(temperature)
    found = fit_temperature(logits, labels)
    assert found == pytest.approx(temperature, rel=0.05)
    before, after = (expected_calibration_error(labels, probabilities(logits, t)) for t in (1.0, found))
    assert after < 0.015
    assert after <= before + 0.005


def test_a_temperature_leaves_the_top_class_alone() -> None:
    logits, _ = overconfident(2.0, 100)
    assert (probabilities(logits, 2.7).argmax(axis=1) == logits.argmax(axis=1)).all()
    np.testing.assert_allclose(probabilities(logits, 2.7).sum(axis=1), 1)


def test_always_right_or_always_wrong_still_gives_a_temperature() -> None:
    logits = np.eye(3)[[0, 1, 2]] * 0.5
    assert 0.05 <= fit_temperature(logits, np.array([0, 1, 2])) < 0.06
    assert 19 < fit_temperature(logits, np.array([1, 2, 0])) <= 20


def coin(right: int, wrong: int, margin: float) -> tuple[np.ndarray, np.ndarray]:
    """Two classes, the first always preferred by `margin`, and right so often."""
    labels = np.repeat([0, 1], [right, wrong])
    return np.tile([margin, 0.0], (len(labels), 1)), labels


def test_a_temperature_and_its_interval_are_those_computed_by_hand() -> None:
    """At T the first class has p = 1 / (1 + exp(-2 / T)), so 75 of 100 fit p = .75 and T = 2 / ln 3 = 1.8205.

    The interval's ends are where 75 ln p + 25 ln(1 - p) is 1.9207 below its largest, -56.2335: p = .6589 and .8278.
    """
    found = supported_temperature(*coin(75, 25, 2.0))
    assert found.fitted == pytest.approx(2 / np.log(3), rel=1e-4)
    ends = [1 / (1 + np.exp(-2 / temperature)) for temperature in (found.high, found.low)]
    assert [75 * np.log(p) + 25 * np.log(1 - p) for p in ends] == pytest.approx([-58.1542] * 2, abs=1e-3)
    assert ends == pytest.approx([0.6589, 0.8278], abs=2e-3)
    assert found.value == found.fitted


def test_a_temperature_that_the_images_do_not_support_stays_one() -> None:
    """12 of 16 fit the same 1.82, and might as well come from T = 1, where p = .8808: 2 × 1.03 < 3.84."""
    found = supported_temperature(*coin(12, 4, 2.0))
    assert found.fitted == pytest.approx(2 / np.log(3), rel=1e-4)
    assert found.low < 1 < found.high
    assert found.value == 1


def test_an_interval_ends_where_temperatures_are_looked_for() -> None:
    always_right = supported_temperature(np.eye(3)[[0, 1, 2] * 9] * 0.5, np.array([0, 1, 2] * 9))
    assert always_right.low == pytest.approx(0.05)
    assert 0.05 <= always_right.fitted < 0.06
    assert always_right.high < 1


def test_images_that_are_all_right_make_no_prediction_surer_than_they_ask_for() -> None:
    """30 are right at p = .8808. The end of the interval is where 30 ln p = -1.9207, at p = .9380 and T = .7364."""
    found = supported_temperature(*coin(30, 0, 2.0))
    assert 0.05 <= found.fitted < 0.06
    assert found.value == found.high == pytest.approx(0.7364, rel=1e-3)
    always_wrong = supported_temperature(*coin(0, 30, 2.0))
    assert always_wrong.value == always_wrong.low > 1
    assert supported_temperature(*coin(3, 0, 2.0)).value == 1


def test_a_checkpoint_tells_how_good_it_is(dataset: Dataset, tmp_path: Path) -> None:
    folder = trained(dataset, tmp_path / "model", replace(RECIPE, epochs=1))
    model, card = load_checkpoint(folder)
    views = Views(dataset.images, card.mean, card.std, card.input_size, CPU)
    rows, labels = dataset.rows("test"), dataset.labels()[dataset.rows("test")]
    logits = predict_logits(model, views, rows)
    assert card.stored_size == dataset.images.shape[1]
    assert card.figures["test"]["accuracy"] == (logits.argmax(axis=1) == labels).mean()
    assert card.figures["calibrated"]["calibration_error"] == pytest.approx(
        expected_calibration_error(labels, probabilities(logits, card.temperature))
    )
    validation = dataset.rows("validation")
    again = supported_temperature(predict_logits(model, views, validation), dataset.labels()[validation])
    assert card.temperature == pytest.approx(again.value)
    assert card.figures["temperature"]["fitted"] == pytest.approx(again.fitted)
    assert card.trained_on["images"] == {s: len(dataset.rows(s)) for s in ("train", "validation", "test")}
    assert card.trained_on["au_coverage"] is None
    page = (folder / MODEL_CARD).read_text()
    assert page == markdown(card)
    assert f"{100 * card.figures['test']['accuracy']:.2f} %" in page
    assert f"temperature {card.temperature:.3f}" in page
    assert f"95 % interval {again.low:.3f} to {again.high:.3f}" in page
    assert ("they support none" in page) == (card.temperature == 1)
    assert "not what a person feels" in page


def test_neighbours_settings_are_told_only_of_ldg_aus(dataset: Dataset, graph: Graph, tmp_path: Path) -> None:
    coverage = {"train": {"images": 40, "usable": 38}}
    cards = {}
    for name, linked in (("LDG", None), ("LDG-AUs", graph)):
        (tmp_path / name).mkdir()
        settings = Experiment(ldg=replace(LDG, epochs=1))
        used = coverage if linked else None
        train_ldg(settings, dataset, "majority", linked, Run(1, tmp_path / name, CPU, JsonLines()), used)
        cards[name] = read_card(tmp_path / name)
    assert "lambda_" not in cards["LDG"].recipe
    assert cards["LDG-AUs"].recipe["lambda_"] == LDG.lambda_
    assert "38 of 40 images with usable ones" in markdown(cards["LDG-AUs"])
    assert "under the terms of what measured them, which of OpenFace are" in cards["LDG-AUs"].trained_on["licence"]
    assert "Action units** none were used" in markdown(cards["LDG"])


def test_published_weights_have_a_card_that_claims_nothing(tmp_path: Path) -> None:
    state = {f"module.{name}": value for name, value in build("efficientface", 7, seed=1).state_dict().items()}
    torch.save({"state_dict": state}, tmp_path / "published.pth.tar")
    made = import_weights(tmp_path / "published.pth.tar", "efficientface", tmp_path / "imported")
    page = made.file(MODEL_CARD).read_text()
    assert "Not judged here" in page
    assert licence_of("rafdb") in page
    assert json.loads(made.file("model.json").read_text())["temperature"] == 1.0


def test_a_class_may_be_called_anything_and_breaks_no_table_of_the_page() -> None:
    labels = ("a|b", "*c* _d_ `e`", "![f](http://g.h/i.png)", "<b>j</b> & k\\")
    test = {"images": 8, "accuracy": 0.5, "accuracy_interval": {"low": 0.25, "high": 0.75}, "macro_f1": 0.5}
    test |= {"calibration_error": 0.1, "recall": [0.25, 0.5, 0.75, 1.0], "confusion": [[2, 0, 0, 0]] * 4}
    figures = {"test": test, "calibrated": test, "validation": test}
    card = ModelCard("resnet18", labels, (0.5,), (0.2,), 48, 48, "LDG", 1, 1, 1, figures=figures)
    page = markdown(replace(card, trained_on={"source": "csv", "protocol": "", "truth": "", "licence": ""}))
    shown = MarkdownIt("commonmark", {"html": False}).enable("table").render(page)
    assert "<img" not in shown
    for label, recall in zip(labels, ("25.0", "50.0", "75.0", "100.0"), strict=True):
        cells = f"<td>{html.escape(label, quote=False)}</td>\n<td>{recall}</td>\n<td>2</td>"
        assert cells in shown
        assert html.escape(label, quote=False) in shown.split("<h2>")[0]


def test_every_source_of_a_dataset_has_terms_of_its_own() -> None:
    sources = get_args(get_type_hints(DatasetSettings)["source"])
    assert len({licence_of(source) for source in (*sources, "another")}) == len(sources) + 1
