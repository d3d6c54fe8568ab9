"""Soft labels: the frozen generator's emotion distribution of every image."""

from pathlib import Path

import numpy as np
import pandas as pd
import torch
from scipy.special import softmax

from fer_core.data.dataset import Dataset
from fer_core.data.views import Views
from fer_core.errors import ArtifactError
from fer_core.experiment import SoftLabelSettings
from fer_core.models.checkpoint import load_checkpoint, require_labels
from fer_core.models.logits import predict_logits
from fer_core.progress import Reporter

SOFT_LABELS = "soft_labels.parquet"
_CHUNK = 1024


def generate_soft_labels(
    settings: SoftLabelSettings, dataset: Dataset, checkpoint: Path, device: torch.device, report: Reporter
) -> pd.DataFrame:
    """f(x) of the validation-selected generator for every image, train split or not.

    Returns:
        Column id and one for each label, whose values sum to 1; the mean over the views.

    Raises:
        CheckpointError: the generator's classes are not the dataset's.
    """
    model, card = load_checkpoint(checkpoint)
    require_labels(card, dataset.card.labels, checkpoint)
    model = model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    views = Views(dataset.images, card.mean, card.std, card.input_size, device)
    rows = np.arange(len(dataset.manifest))
    parts = []
    for start in range(0, len(rows), _CHUNK):
        chunk = rows[start : start + _CHUNK]
        seen = [predict_logits(model, views, chunk, mirrored=m) for m in (False, True)[: settings.views]]
        parts.append(np.mean(softmax(np.array(seen), axis=2), axis=0))
        report.progress(f"soft labels of {card.name} · seed {card.seed}", start + len(chunk), len(rows))
    table = pd.DataFrame(np.concatenate(parts), columns=list(dataset.card.labels))
    table.insert(0, "id", dataset.manifest["id"].to_numpy())
    return table


def read_soft_labels(folder: Path, dataset: Dataset) -> np.ndarray:
    """(N, classes) float32 distributions, in the dataset's order of images and classes.

    Raises:
        ArtifactError: they are of another dataset.
    """
    path = folder / SOFT_LABELS
    try:
        table = pd.read_parquet(path)
    except (OSError, ValueError) as error:
        raise ArtifactError(f"{path}: no soft labels ({error}); make them with `fer soft-labels`") from error
    if list(table.columns[1:]) != list(dataset.card.labels) or not table["id"].equals(dataset.manifest["id"]):
        raise ArtifactError(f"{path}: made for another dataset; make them anew with `fer soft-labels`")
    return table[list(dataset.card.labels)].to_numpy(np.float32, copy=True)
