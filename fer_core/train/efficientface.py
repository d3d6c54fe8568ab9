"""EfficientFace: from hard labels alone (SLL), or from a generator's soft labels (distillation)."""

from typing import Literal

from fer_core.data.dataset import Dataset
from fer_core.data.order import cut
from fer_core.experiment import Experiment
from fer_core.train.loop import Run, Training, targets, tell_fewer_steps, train
from fer_core.train.objectives import Objective, cross_entropy_to


def train_efficientface(
    experiment: Experiment,
    dataset: Dataset,
    labels: Literal["majority", "distribution"],
    taught: Objective | None,
    name: str,
    run: Run,
    au_coverage: dict[str, dict[str, int]] | None = None,
) -> None:
    """Train EfficientFace from a generator's soft labels, or without them from the dataset's own labels.

    Args:
        labels: what SLL learns from, the hard label or the crowd's distribution.
        taught: what it minimises, on the run's device, see `objective_from` of the soft labels; None for SLL.
        name: the model's name in the paper's table.
        au_coverage: images by split and by what became of the action units that the generator learned from.

    Raises:
        TrainingError: a crowd's distributions are asked for and the dataset has none; and as `train`.
    """
    recipe = experiment.sll if taught is None else experiment.distill
    training = Training(
        name=name,
        architecture="efficientface",
        recipe=recipe,
        epochs=recipe.epochs,
        augment=experiment.augment,
        objective=taught or cross_entropy_to(targets(dataset, labels).to(run.device)),
        au_coverage=au_coverage,
        rows=dataset.rows("train") if taught is None else dataset.rows("train", "unlabelled"),
    )
    if taught is not None and len(dataset.rows("unlabelled")):
        alone = experiment.sll.epochs * len(cut(dataset.rows("train"), experiment.sll.batch))
        tell_fewer_steps(training, dataset, alone, "distill.epochs", run.report)
    train(training, dataset, run)
