"""Soft labels: views, and whose they are."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.generators import opinionated, save_generator
from scipy.special import softmax

from fer_core.data.dataset import Dataset
from fer_core.data.views import Views
from fer_core.errors import ArtifactError, CheckpointError
from fer_core.experiment import SoftLabelSettings
from fer_core.models.checkpoint import ModelCard, save_card
from fer_core.progress import JsonLines
from fer_core.train.soft_labels import SOFT_LABELS, generate_soft_labels, read_soft_labels

CPU = torch.device("cpu")


@pytest.fixture
def generator(dataset: Dataset, tmp_path: Path) -> Path:
    return save_generator(tmp_path / "generator", dataset)


def generated(dataset: Dataset, generator: Path, settings: SoftLabelSettings) -> np.ndarray:
    table = generate_soft_labels(settings, dataset, generator, CPU, JsonLines())
    return table[list(dataset.card.labels)].to_numpy()


def test_they_are_the_mean_over_views_of_the_softmax(dataset: Dataset, generator: Path) -> None:
    model = opinionated(3)
    views = Views(dataset.images, dataset.card.mean, dataset.card.std, 48, CPU)
    images = views.plain(np.arange(len(dataset.manifest)))
    with torch.inference_mode():
        logits, mirrored = model(images).numpy(), model(images.flip(3)).numpy()
    plain = generated(dataset, generator, SoftLabelSettings())
    np.testing.assert_allclose(plain, softmax(logits, axis=1), atol=1e-4)
    lighter = replace(dataset, card=replace(dataset.card, mean=(0.6,), std=(0.3,)))
    assert (generated(lighter, generator, SoftLabelSettings()) == plain).all(), (
        "it sees images as it was trained on them"
    )
    both = generated(dataset, generator, SoftLabelSettings(views="mirrored"))
    np.testing.assert_allclose(both, (plain + softmax(mirrored, axis=1)) / 2, atol=1e-4)
    assert np.abs(both - plain).max() > 0.005
    np.testing.assert_allclose(both.sum(axis=1), 1, atol=1e-4)


def test_they_are_read_back_for_their_dataset_alone(dataset: Dataset, generator: Path, tmp_path: Path) -> None:
    table = generate_soft_labels(SoftLabelSettings(), dataset, generator, CPU, JsonLines())
    table.to_parquet(tmp_path / SOFT_LABELS)
    assert read_soft_labels(tmp_path, dataset).shape == (60, 3)
    table.iloc[::-1].reset_index(drop=True).to_parquet(tmp_path / SOFT_LABELS)
    with pytest.raises(ArtifactError, match="made for another dataset"):
        read_soft_labels(tmp_path, dataset)


def test_a_generator_of_other_classes_is_refused(dataset: Dataset, generator: Path) -> None:
    card = dataset.card
    save_card(generator, ModelCard("efficientface", card.labels[::-1], card.mean, card.std, 48, 48, "LDG", 1, 1, 1))
    with pytest.raises(CheckpointError, match="its classes are"):
        generate_soft_labels(SoftLabelSettings(), dataset, generator, CPU, JsonLines())
