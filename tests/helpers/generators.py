"""A generator that has an opinion of every image without having been trained."""

from pathlib import Path

import torch
from torch import nn

from fer_core.data.dataset import Dataset
from fer_core.models.architectures import build
from fer_core.models.checkpoint import ModelCard, save_card, save_weights


def opinionated(classes: int) -> nn.Module:
    """An untrained network that all the same tells images apart."""
    model = build("efficientface", classes, seed=1).eval()
    with torch.no_grad():
        model.get_parameter("fc.weight").mul_(10_000)
    return model


def save_generator(folder: Path, dataset: Dataset) -> Path:
    """Its checkpoint, of the dataset's classes."""
    folder.mkdir()
    card = dataset.card
    save_card(folder, ModelCard("efficientface", card.labels, card.mean, card.std, 48, 48, "LDG", 1, 1, 1))
    save_weights(folder / "selected.safetensors", opinionated(len(card.labels)))
    return folder
