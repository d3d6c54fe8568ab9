"""Figures against numbers computed by hand, and against scikit-learn where it has them."""

import math

import numpy as np
import pytest
from sklearn.metrics import f1_score
from test_graph import units_of

from fer_core.data.dataset import Dataset
from fer_core.evaluation.baselines import au_neighbours_alone, best_smoothing, smoothed, uniform
from fer_core.evaluation.metrics import (
    CLIP,
    CLIPPING,
    bootstrap_mean,
    classification,
    distribution_measures,
    expected_calibration_error,
    mcnemar,
    mean_measures,
    unclipped_divergence,
)


def test_classification_by_hand() -> None:
    labels = np.array([0, 0, 1, 1])
    probabilities = np.array([[0.8, 0.1, 0.1], [0.2, 0.7, 0.1], [0.1, 0.8, 0.1], [0.1, 0.6, 0.3]])
    figures = classification(labels, probabilities)
    assert figures["accuracy"] == 0.75
    assert figures["recall"] == [0.5, 1.0, None]
    assert figures["confusion"] == [[1, 1, 0], [0, 2, 0], [0, 0, 0]]
    assert figures["macro_f1"] == pytest.approx((2 / 3 + 0.8) / 2)


@pytest.mark.parametrize("seed", range(5))
def test_macro_f1_is_scikit_learns_default_where_classes_are_missing_on_either_side(seed: int) -> None:
    """A class that is predicted and never true counts as 0; one that is neither does not count."""
    generator = np.random.default_rng(seed)
    labels, probabilities = generator.integers(0, 3, 30), generator.dirichlet(np.ones(6), 30)
    probabilities[:, 5] = 0
    predicted = probabilities.argmax(axis=1)
    assert classification(labels, probabilities)["macro_f1"] == f1_score(labels, predicted, average="macro")
    by_hand = classification(np.array([0, 0]), np.array([[0.9, 0.1, 0.0], [0.2, 0.8, 0.0]]))
    assert by_hand["macro_f1"] == pytest.approx((2 / 3 + 0) / 2)


def test_unclipped_divergence_is_what_it_is_and_none_where_it_is_infinite() -> None:
    truth, sharp = np.array([[0.5, 0.5, 0.0]]), np.array([[1 - 1e-9, 1e-9, 0.0]])
    exact = 0.5 * math.log(0.5 / (1 - 1e-9)) + 0.5 * math.log(0.5 / 1e-9)
    assert unclipped_divergence(truth, sharp) == pytest.approx(exact)
    assert mean_measures(truth, sharp)["kl"] < exact - 3
    assert unclipped_divergence(truth, np.array([[1.0, 0.0, 0.0]])) is None
    assert unclipped_divergence(truth, truth) == 0


def test_the_clip_that_is_told_is_the_clip_that_is_taken() -> None:
    truth, prediction = np.array([[1.0, 0.0]]), np.array([[0.0, 1.0]])
    whole = 1 + CLIP
    expected = (1 / whole) * math.log(1 / CLIP) + (CLIP / whole) * math.log(CLIP)
    assert mean_measures(truth, prediction)["kl"] == pytest.approx(expected, rel=1e-9)
    assert float(CLIPPING.split(" to ")[1].split(",")[0]) == CLIP


def test_calibration_error_by_hand() -> None:
    """Two images at 0.9, one right; two at 0.6, both right: ½·|0.5 − 0.9| + ½·|1 − 0.6|."""
    probabilities = np.array([[0.9, 0.1], [0.9, 0.1], [0.6, 0.4], [0.6, 0.4]])
    assert expected_calibration_error(np.array([0, 1, 0, 0]), probabilities) == pytest.approx(0.4)
    assert expected_calibration_error(np.array([0, 0]), np.array([[1.0, 0.0], [1.0, 0.0]])) == 0
    # In 15 bins .62 and .68 are apart, and certainty stands beside .96.
    apart, together = np.array([[0.62, 0.38], [0.68, 0.32]]), np.array([[0.96, 0.04], [1.0, 0.0]])
    assert expected_calibration_error(np.array([0, 1]), apart) == pytest.approx((0.38 + 0.68) / 2)
    assert expected_calibration_error(np.array([0, 1]), together) == pytest.approx(0.48)


def test_the_six_measures_by_hand() -> None:
    measures = mean_measures(np.array([[0.5, 0.5]]), np.array([[0.25, 0.75]]))
    assert measures["chebyshev"] == pytest.approx(0.25)
    assert measures["clark"] == pytest.approx(math.sqrt((0.25 / 0.75) ** 2 + (0.25 / 1.25) ** 2))
    assert measures["canberra"] == pytest.approx(0.25 / 0.75 + 0.25 / 1.25)
    assert measures["kl"] == pytest.approx(0.5 * math.log(2) + 0.5 * math.log(2 / 3))
    assert measures["total_variation"] == pytest.approx(0.25)
    assert measures["cosine"] == pytest.approx(0.5 / (math.sqrt(0.5) * math.sqrt(0.625)))
    assert measures["intersection"] == pytest.approx(0.75)


def test_measures_are_finite_where_probabilities_are_zero() -> None:
    measures = distribution_measures(np.array([[1.0, 0.0, 0.0]]), np.array([[0.0, 0.0, 1.0]]))
    assert all(np.isfinite(values).all() for values in measures.values())
    assert measures["kl"][0] > 10


def test_mcnemar_is_the_exact_binomial() -> None:
    first = np.array([True] * 6 + [False] * 1 + [True] * 10)
    second = np.array([False] * 6 + [True] * 1 + [True] * 10)
    result = mcnemar(first, second)
    assert (result["only_first"], result["only_second"]) == (6, 1)
    assert result["p"] == pytest.approx(2 * (1 + 7) / 2**7)
    assert mcnemar(first, first)["p"] == 1.0


@pytest.mark.parametrize("images", [40, 400])
def test_the_bootstrap_interval_is_the_95_percent_one_of_a_mean(images: int) -> None:
    values = np.random.default_rng(1).random(images)
    found = bootstrap_mean(values, 2000)
    reach = 1.96 * values.std() / math.sqrt(images)
    assert found.value == values.mean()
    assert (found.value - found.low, found.high - found.value) == pytest.approx((reach, reach), rel=0.1)


def test_best_smoothing_is_no_worse_than_its_neighbours() -> None:
    labels = np.array([0, 1, 2, 0])
    crowd = np.array([[0.7, 0.2, 0.1], [0.1, 0.8, 0.1], [0.3, 0.1, 0.6], [1.0, 0.0, 0.0]])
    share, measures = best_smoothing(labels, crowd)
    for other in (share - 0.02, share + 0.02):
        assert measures["kl"] <= mean_measures(crowd, smoothed(labels, 3, other))["kl"]
    np.testing.assert_allclose(uniform(2, 4), 0.25)


def test_a_crowd_of_many_minds_asks_for_more_smoothing_than_a_half() -> None:
    crowd = np.random.default_rng(0).dirichlet(np.full(7, 3.0), 500)
    share, measures = best_smoothing(crowd.argmax(axis=1), crowd)
    assert share == pytest.approx(7 / 6 * (1 - crowd.max(axis=1).mean()), abs=0.01)
    assert measures["kl"] < 0.1


def test_au_neighbours_alone_is_the_mean_of_the_nearest_training_images(dataset: Dataset) -> None:
    vectors = np.eye(3)[dataset.labels()] + np.random.default_rng(1).normal(0, 0.01, (60, 3))
    rows = dataset.rows("test")
    crowd = dataset.crowd()
    assert crowd is not None
    predicted = au_neighbours_alone(dataset, units_of(vectors), rows, k=3)
    np.testing.assert_allclose(predicted, crowd[rows], atol=1e-6)
