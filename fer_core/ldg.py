"""The label distribution generator: L = CE, and for LDG-AUs L = CE + λΩ, the pull towards neighbours in AU space."""

from typing import Literal

from fer_core.dataset import Dataset
from fer_core.errors import ArtifactError
from fer_core.experiment import Experiment
from fer_core.graph import Graph
from fer_core.objectives import objective_of
from fer_core.training import Run, Training, targets, train


def train_ldg(
    experiment: Experiment,
    dataset: Dataset,
    labels: Literal["majority", "distribution"],
    graph: Graph | None,
    run: Run,
    au_coverage: dict[str, dict[str, int]] | None = None,
) -> None:
    """Train the LDG on hard labels, or the crowd's where `labels` says so; with a graph, the LDG-AUs.

    Args:
        au_coverage: images by split and by what became of the action units that the graph is made from.

    Raises:
        ArtifactError: the graph is of another dataset.
    """
    settings = experiment.ldg
    if graph is not None and len(graph.neighbours) != len(dataset.manifest):
        raise ArtifactError(f"the graph links {len(graph.neighbours)} images, the dataset has {len(dataset.manifest)}")
    pulled = graph is not None and settings.lambda_ > 0
    training = Training(
        name="LDG" if graph is None else "LDG-AUs",
        architecture=settings.architecture,
        recipe=settings,
        epochs=(settings.epochs_with_neighbours if pulled else 0) or settings.epochs,
        augment=experiment.augment,
        objective=objective_of(settings, targets(dataset, labels).to(run.device), graph),
        au_coverage=au_coverage,
    )
    train(training, dataset, run)
