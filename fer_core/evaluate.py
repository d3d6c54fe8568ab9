"""Judge a checkpoint: probabilities on the validation and test split, at both choices of epoch, and their figures."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd
import torch

from fer_core.augment import Views
from fer_core.calibration import probabilities
from fer_core.dataset import Dataset
from fer_core.experiment import EvaluationSettings
from fer_core.judgement import judge
from fer_core.logits import predict_logits
from fer_core.models.checkpoint import Choice, load_checkpoint, require_labels
from fer_core.progress import Reporter

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

    The first holds the model's card and, for `selected` and `last`, the figures of each split, with `calibrated` those
    of the selected epoch at the card's temperature; the second, as trained, id, split, choice
    and a probability for each label.

    Raises:
        CheckpointError: the checkpoint's classes are not the dataset's.
    """
    figures: dict[str, Any] = {"calibrated": {}}
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
            logits = predict_logits(model, views, rows)
            predicted = probabilities(logits)
            figures[choice][split] = judge(dataset, rows, predicted, settings.bootstrap)
            if choice == "selected":
                calibrated = probabilities(logits, card.temperature)
                figures["calibrated"][split] = judge(dataset, rows, calibrated, settings.bootstrap)
            tables.append(_predictions(dataset, rows, predicted, split, choice))
            report.progress(f"evaluate {card.name} · seed {card.seed}", len(tables), _JUDGEMENTS)
    (folder / "metrics.json").write_text(json.dumps(figures, indent=1), encoding="utf-8")
    pd.concat(tables).to_parquet(folder / "predictions.parquet", index=False)
    report.metrics(model=card.name, seed=card.seed, test_accuracy=figures["selected"]["test"]["accuracy"])


def _predictions(
    dataset: Dataset, rows: np.ndarray, probabilities: np.ndarray, split: str, choice: str
) -> pd.DataFrame:
    table = pd.DataFrame(probabilities, columns=list(dataset.card.labels))
    table.insert(0, "id", dataset.manifest["id"].to_numpy()[rows])
    table.insert(1, "split", split)
    table.insert(2, "choice", choice)
    return table
