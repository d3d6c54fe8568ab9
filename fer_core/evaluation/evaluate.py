"""Evaluate a checkpoint on its own validation and test split, or on another dataset's test split."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd
import torch
from torch import nn

from fer_core.data.dataset import Dataset
from fer_core.data.views import Views
from fer_core.devices import exact_inference
from fer_core.evaluation.calibration import probabilities
from fer_core.evaluation.common_ground import CommonGround, common_ground, judged_on_in_words
from fer_core.evaluation.judge import judge, judge_against
from fer_core.experiment import EvaluationSettings
from fer_core.models.checkpoint import (
    Choice,
    ModelCard,
    load_checkpoint,
    read_card,
    read_training_images,
    require_labels,
)
from fer_core.models.deployed import Deployed
from fer_core.models.logits import predict_logits
from fer_core.progress import Reporter

Judged = Literal["validation", "test"]
_BATCH = 256


def evaluate(
    settings: EvaluationSettings,
    dataset: Dataset,
    checkpoint: Path,
    folder: Path,
    device: torch.device,
    report: Reporter,
) -> None:
    """Write `metrics.json` and `predictions.parquet` of a checkpoint on the dataset that it was trained on.

    The first holds the model's card and, for `selected` and `last`, the figures of each split, with `calibrated` those
    of the selected epoch at the card's temperature; the second, as trained, id, split, choice
    and a probability for each label.

    Raises:
        CheckpointError: the checkpoint's classes are not the dataset's.
    """
    figures: dict[str, Any] = {"calibrated": {}}
    tables = []
    choices = _choices(read_card(checkpoint))
    judgements = len(choices) * len(get_args(Judged))
    for choice in choices:
        model, card = load_checkpoint(checkpoint, choice)
        require_labels(card, dataset.card.labels, checkpoint)
        model = model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        views = Views(dataset.images, card.mean, card.std, card.input_size, device)
        figures |= _of_the_model(card, model)
        figures[choice] = {}
        for split in get_args(Judged):
            rows = dataset.rows(split)
            logits = predict_logits(model, views, rows)
            predicted = probabilities(logits)
            figures[choice][split] = judge(dataset, rows, predicted, settings.bootstrap)
            if choice == "selected":
                calibrated = probabilities(logits, card.temperature)
                figures["calibrated"][split] = judge(dataset, rows, calibrated, settings.bootstrap)
            tables.append(_predictions(dataset, rows, dataset.card.labels, predicted, split, choice))
            report.progress(f"evaluate {card.name} · seed {card.seed}", len(tables), judgements)
    _write(folder, figures, tables)
    report.metrics(model=card.name, seed=card.seed, test_accuracy=figures["selected"]["test"]["accuracy"])


def evaluate_elsewhere(
    settings: EvaluationSettings,
    dataset: Dataset,
    checkpoint: Path,
    folder: Path,
    device: torch.device,
    report: Reporter,
) -> None:
    """Write the same of a checkpoint on the test split of a dataset that it was not trained on.

    Its classes are matched by what they mean; the common ones are judged, with probabilities renormalised over them.
    Images are prepared as the checkpoint's card says, and those that it was trained or chosen on are left out.
    `judged_on` tells the dataset, the classes and images of each side, and all that was left out.

    Raises:
        CheckpointError: fewer than two classes, or no test image, are left to judge.
    """
    card = read_card(checkpoint)
    ground = common_ground(card, dataset, read_training_images(checkpoint))
    figures: dict[str, Any] = {"judged_on": ground.told | {"preprocessing": _differences(card, dataset)}}
    for sentence in judged_on_in_words(figures["judged_on"]):
        report.note(f"{card.name} on {dataset.card.source}: {sentence}")
    tables = []
    for choice in _choices(card):
        model, _ = load_checkpoint(checkpoint, choice)
        logits = _logits_as_deployed(model, card, dataset, ground.rows, device, report)
        predicted = ground.probabilities(logits)
        figures |= _of_the_model(card, model)
        figures[choice] = {"test": _judged(ground, predicted, settings)}
        if choice == "selected":
            calibrated = ground.probabilities(logits, card.temperature)
            figures["calibrated"] = {"test": _judged(ground, calibrated, settings)}
        tables.append(_predictions(dataset, ground.rows, ground.labels, predicted, "test", choice))
    _write(folder, figures, tables)
    report.metrics(model=card.name, seed=card.seed, test_accuracy=figures["selected"]["test"]["accuracy"])


def _choices(card: ModelCard) -> tuple[Choice, ...]:
    """The networks to be judged; where the last epoch is the selected one, it stands for both."""
    return ("selected",) if card.selected_epoch == card.epochs else get_args(Choice)


def _of_the_model(card: ModelCard, model: nn.Module) -> dict[str, Any]:
    return asdict(card) | {"parameters": sum(p.numel() for p in model.parameters())}


def _judged(ground: CommonGround, predicted: np.ndarray, settings: EvaluationSettings) -> dict[str, Any]:
    return judge_against(ground.classes, ground.truth, predicted, settings.bootstrap)


def _logits_as_deployed(
    model: nn.Module, card: ModelCard, dataset: Dataset, rows: np.ndarray, device: torch.device, report: Reporter
) -> np.ndarray:
    """(len(rows), classes) logits of the stored images, prepared as a deployed model prepares faces."""
    deployed = Deployed(model, card).eval().to(device)
    parts = []
    with exact_inference():
        for start in range(0, len(rows), _BATCH):
            stored = dataset.images[rows[start : start + _BATCH]]
            images = torch.from_numpy(stored).to(device).expand(-1, -1, -1, 3)  # (B, S, S, 3), grey three times
            parts.append(deployed.logits(images).cpu().numpy())
            report.progress(f"evaluate {card.name} on {dataset.card.source}", start + len(stored), len(rows))
    return np.concatenate(parts)


def _differences(card: ModelCard, dataset: Dataset) -> list[str]:
    """Tell where the stored images hold less than the checkpoint takes, and what to prepare them with."""
    size, channels = dataset.images.shape[1], dataset.images.shape[3]
    wanted = card.stored_size or card.input_size
    told = []
    if size < wanted:
        told.append(
            f"the images are stored at {size} px and enlarged to the {wanted} px that the checkpoint takes; "
            f"where the originals are larger, prepare them with dataset.image_size={wanted}"
        )
    if channels < len(card.mean):
        told.append(
            "the images are stored in grey and the checkpoint takes colour; "
            "where the originals have any, prepare them with dataset.colour=true"
        )
    return told


def _write(folder: Path, figures: dict[str, Any], tables: list[pd.DataFrame]) -> None:
    if "last" not in figures:
        figures["last"] = figures["selected"]
        tables = [*tables, *(table.assign(choice="last") for table in tables)]
    (folder / "metrics.json").write_text(json.dumps(figures, indent=1), encoding="utf-8")
    pd.concat(tables).to_parquet(folder / "predictions.parquet", index=False)


def _predictions(
    dataset: Dataset, rows: np.ndarray, labels: tuple[str, ...], probabilities: np.ndarray, split: str, choice: str
) -> pd.DataFrame:
    table = pd.DataFrame(probabilities, columns=list(labels))
    table.insert(0, "id", dataset.manifest["id"].to_numpy()[rows])
    table.insert(1, "split", split)
    table.insert(2, "choice", choice)
    return table
