"""Judge a checkpoint: probabilities on the validation and test split, at both choices of epoch, and their figures."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd
import torch
from scipy.special import softmax

from fer_core.augment import Views
from fer_core.dataset import Dataset
from fer_core.experiment import EvaluationSettings
from fer_core.metrics import bootstrap_mean, classification, distribution_measures, mean_measures
from fer_core.models.checkpoint import Choice, load_checkpoint, require_labels
from fer_core.progress import Reporter
from fer_core.training import predict_logits

Judged = Literal["validation", "test"]
_JUDGEMENTS = len(get_args(Choice)) * len(get_args(Judged))


def evaluate(
    settings: EvaluationSettings,
    dataset: Dataset,
    checkpoint: Path,
    folder: Path,
    device: torch.device,
    report: Reporter,
) -> None:
    """Write `metrics.json` and `predictions.parquet`.

    The first holds the model's card and, for `selected` and `last`, the figures of each split; the second id,
    split, choice and a probability for each label.

    Raises:
        CheckpointError: the checkpoint's classes are not the dataset's.
    """
    figures: dict[str, Any] = {}
    tables = []
    for choice in get_args(Choice):
        model, card = load_checkpoint(checkpoint, choice)
        require_labels(card, dataset.card.labels, checkpoint)
        model = model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        views = Views(dataset.images, card.mean, card.std, card.input_size, device)
        figures |= asdict(card) | {"parameters": sum(p.numel() for p in model.parameters())}
        figures[choice] = {}
        for split in get_args(Judged):
            rows = dataset.rows(split)
            probabilities = softmax(predict_logits(model, views, rows), axis=1)
            figures[choice][split] = judge(dataset, rows, probabilities, settings)
            tables.append(_predictions(dataset, rows, probabilities, split, choice))
            report.progress(f"evaluate {card.name} · seed {card.seed}", len(tables), _JUDGEMENTS)
    (folder / "metrics.json").write_text(json.dumps(figures, indent=1), encoding="utf-8")
    pd.concat(tables).to_parquet(folder / "predictions.parquet", index=False)
    report.metrics(model=card.name, seed=card.seed, test_accuracy=figures["selected"]["test"]["accuracy"])


def judge(
    dataset: Dataset, rows: np.ndarray, probabilities: np.ndarray, settings: EvaluationSettings
) -> dict[str, Any]:
    """Figures of predictions for `rows`: classification, and label distributions where there is a truth.

    Args:
        probabilities: (len(rows), classes), rows sum to 1.
    """
    labels = dataset.labels()[rows]
    correct = (probabilities.argmax(axis=1) == labels).astype(float)
    figures = classification(labels, probabilities)
    figures["accuracy_interval"] = asdict(bootstrap_mean(correct, settings.bootstrap))
    crowd = dataset.crowd()
    if crowd is not None:
        figures["distribution"] = mean_measures(crowd[rows], probabilities)
        divergence = distribution_measures(crowd[rows], probabilities)["kl"]
        figures["kl_interval"] = asdict(bootstrap_mean(divergence, settings.bootstrap))
    return figures


def _predictions(
    dataset: Dataset, rows: np.ndarray, probabilities: np.ndarray, split: str, choice: str
) -> pd.DataFrame:
    table = pd.DataFrame(probabilities, columns=list(dataset.card.labels))
    table.insert(0, "id", dataset.manifest["id"].to_numpy()[rows])
    table.insert(1, "split", split)
    table.insert(2, "choice", choice)
    return table
