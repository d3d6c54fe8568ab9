"""Checkpoints are refused without their card, or where it does not fit."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from fer_core.data.dataset import EMOTIONS
from fer_core.errors import CheckpointError
from fer_core.models.architectures import build
from fer_core.models.checkpoint import (
    TRAINING_IMAGES,
    ModelCard,
    load_checkpoint,
    read_training_images,
    require_labels,
    save_card,
    save_weights,
)

CARD = ModelCard("efficientface", EMOTIONS[:7], (0.5,), (0.2,), 64, 48, "EF SLL", 1, 3, 2)


def checkpoint(folder: Path, card: ModelCard = CARD) -> Path:
    model = build("efficientface", 7, seed=1)
    for choice in ("selected", "last"):
        save_weights(folder / f"{choice}.safetensors", model)
    save_card(folder, card)
    return folder


def test_it_is_read_as_it_was_written(tmp_path: Path) -> None:
    model, card = load_checkpoint(checkpoint(tmp_path))
    assert card == CARD
    expected = build("efficientface", 7, seed=1).state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in model.state_dict().items())


def test_weights_without_a_card_are_refused(tmp_path: Path) -> None:
    (checkpoint(tmp_path) / "model.json").unlink()
    with pytest.raises(
        CheckpointError, match=r"without class order, normalisation and input size are refused.*import-weights"
    ):
        load_checkpoint(tmp_path)


@pytest.mark.parametrize("missing", ["labels", "mean", "input_size"])
def test_an_incomplete_card_is_refused(tmp_path: Path, missing: str) -> None:
    path = checkpoint(tmp_path) / "model.json"
    fields = json.loads(path.read_text())
    del fields[missing]
    path.write_text(json.dumps(fields))
    with pytest.raises(CheckpointError, match="refused"):
        load_checkpoint(tmp_path)


@pytest.mark.parametrize("change", [{"architecture": "resnet18"}, {"labels": EMOTIONS}])
def test_weights_of_another_architecture_or_head_are_refused(tmp_path: Path, change: dict[str, object]) -> None:
    checkpoint(tmp_path, replace(CARD, **change))  # type: ignore[arg-type]
    with pytest.raises(CheckpointError, match=r"selected\.safetensors: not the weights of"):
        load_checkpoint(tmp_path)


def test_an_unknown_architecture_names_the_known(tmp_path: Path) -> None:
    checkpoint(tmp_path, replace(CARD, architecture="vgg"))  # type: ignore[arg-type]
    with pytest.raises(CheckpointError, match="unknown architecture vgg; known are efficientface"):
        load_checkpoint(tmp_path)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(("temperature", value) for value in (0, -1, float("nan"), "1.0", None, True)),
        *(("std", value) for value in ([0.0], [0.2, 0.2], ["a"])),
        *(("mean", value) for value in ([float("inf")], [], [0.5, 0.5])),
        *(("labels", value) for value in (["a"] * 7, list(range(7)), [["a"]] * 7)),
        *((size, value) for size in ("input_size", "stored_size") for value in (0, -5, 10**7, "48", 48.5)),
        ("trained_on", []),
        ("figures", None),
    ],
)
def test_a_card_that_says_what_cannot_be_is_refused_by_the_field(tmp_path: Path, field: str, value: object) -> None:
    """Else a face would be neutral, and surely so: the first class, with probabilities that are no numbers."""
    path = checkpoint(tmp_path) / "model.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {field: value}))
    with pytest.raises(CheckpointError, match=rf"model\.json: {field} = .*nothing can be predicted with it"):
        load_checkpoint(tmp_path)


def test_weights_that_are_no_numbers_are_refused(tmp_path: Path) -> None:
    checkpoint(tmp_path)
    model = build("efficientface", 7, seed=1)
    model.state_dict()["fc.bias"][0] = float("nan")
    save_weights(tmp_path / "selected.safetensors", model)
    with pytest.raises(CheckpointError, match=r"selected\.safetensors: fc\.bias holds values that are no finite"):
        load_checkpoint(tmp_path)


def test_truncated_weights_are_named(tmp_path: Path) -> None:
    path = checkpoint(tmp_path) / "last.safetensors"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(CheckpointError, match=r"last\.safetensors"):
        load_checkpoint(tmp_path, "last")


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut short"])
def test_damaged_marks_of_training_images_are_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / TRAINING_IMAGES).write_bytes(content)
    with pytest.raises(CheckpointError, match=r"training_images\.npz: damaged"):
        read_training_images(tmp_path)


def test_another_class_order_is_refused_with_both() -> None:
    other = ("neutral", "happiness", "sadness", "surprise", "fear", "disgust", "anger")
    with pytest.raises(
        CheckpointError,
        match=r"its classes are neutral, happiness, sadness.*the dataset's neutral, happiness, surprise",
    ):
        require_labels(replace(CARD, labels=other), EMOTIONS[:7], Path("model"))
