"""EfficientFace: from hard labels alone (SLL), or from a generator's soft labels (distillation)."""

from typing import Literal

import numpy as np
import torch

from fer_core.data.dataset import Dataset
from fer_core.experiment import Experiment
from fer_core.train.loop import Run, Training, targets, train
from fer_core.train.objectives import cross_entropy_to


def train_efficientface(
    experiment: Experiment,
    dataset: Dataset,
    labels: Literal["majority", "distribution"],
    soft_labels: np.ndarray | None,
    name: str,
    run: Run,
    au_coverage: dict[str, dict[str, int]] | None = None,
) -> None:
    """Train EfficientFace with cross-entropy against soft labels, or against the dataset's own where there are none.

    Args:
        labels: what SLL learns from, the hard label or the crowd's distribution.
        soft_labels: (N, classes) distributions in the dataset's order, or None for SLL.
        name: the model's name in the paper's table.
        au_coverage: images by split and by what became of the action units that the generator learned from.
    """
    recipe = experiment.sll if soft_labels is None else experiment.distill
    target = targets(dataset, labels) if soft_labels is None else torch.from_numpy(soft_labels)
    training = Training(
        name=name,
        architecture="efficientface",
        recipe=recipe,
        epochs=recipe.epochs,
        augment=experiment.augment,
        objective=cross_entropy_to(target.to(run.device)),
        au_coverage=au_coverage,
        rows=dataset.rows("train") if soft_labels is None else dataset.rows("train", "unlabelled"),
    )
    train(training, dataset, run)
