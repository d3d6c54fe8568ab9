"""What a report is made of: judged models, generators' soft labels, the graph, and what they cost."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from fer_core.artifacts import Artifact
from fer_core.data.dataset import AU_TABLE, Dataset, open_dataset
from fer_core.errors import ArtifactError
from fer_core.evaluation.model_card import markdown
from fer_core.experiment import Experiment
from fer_core.graph.action_units import ActionUnits, action_units, read_au_table
from fer_core.graph.neighbours import Graph, GraphCard, load_graph, load_teacher
from fer_core.models.checkpoint import ModelCard, read_card
from fer_core.steps import Request
from fer_core.train.soft_labels import read_soft_labels

MODELS = ("EF + LDG-AUs", "EF + LDG", "EF SLL", "LDG-AUs", "LDG")
"""The columns of the paper's table."""
GENERATORS = ("LDG-AUs", "LDG")


@dataclass(frozen=True)
class JudgedModel:
    """A trained model on the test split."""

    figures: dict[str, Any]
    """What `fer evaluate` wrote into metrics.json."""
    probabilities: np.ndarray
    """(test images, classes) of the selected epoch, in the dataset's order."""

    @property
    def name(self) -> str:
        return str(self.figures["name"])

    @property
    def seed(self) -> int:
        return int(self.figures["seed"])

    @property
    def temperature(self) -> float:
        """T of softmax(logits / T), fitted on validation."""
        return float(self.figures["temperature"])

    @property
    def calibrated(self) -> np.ndarray:
        """At the temperature: softmax(logits / T) is softmax(logits) to the power of 1 / T, its sum made 1."""
        raised = self.probabilities ** (1 / self.temperature)
        calibrated: np.ndarray = raised / raised.sum(axis=1, keepdims=True)
        return calibrated

    @property
    def training_seconds(self) -> float:
        return float(sum(epoch["seconds"] for epoch in self.figures["history"]))


@dataclass(frozen=True)
class Generator:
    """A frozen generator's soft labels: (N, classes), in the dataset's order."""

    name: str
    seed: int
    soft_labels: np.ndarray


@dataclass(frozen=True)
class Cost:
    """Cost of a step's runs; peak memory is None where what was trained is not among the report's inputs."""

    step: str
    runs: int
    seconds: float
    peak_memory_bytes: int | None


@dataclass(frozen=True)
class Evidence:
    """All results that a report is made of."""

    experiment: Experiment
    dataset: Dataset
    units: ActionUnits
    graph: Graph
    graph_card: GraphCard
    models: tuple[JudgedModel, ...]
    generators: tuple[Generator, ...]
    costs: tuple[Cost, ...]
    checkpoints: Mapping[tuple[str, int], str] = field(default_factory=dict)
    """By name and seed, where a checkpoint lies below the artifacts' folder."""
    model_cards: tuple[str, ...] = ()
    """The Markdown that lies with each checkpoint."""
    fingerprints: Mapping[tuple[str, int], str] = field(default_factory=dict)
    """By name and seed, of the checkpoint that was judged."""
    elsewhere: tuple[dict[str, Any], ...] = ()
    """What `fer evaluate` wrote of checkpoints on data that they were not trained on; see `judged_on` in each."""
    linear_teacher: np.ndarray | None = None
    """(N, classes), what the linear model of the AUs says of each image where it labels the unlabelled ones, NaN where
    the AUs are not usable."""

    def seeds_of(self, name: str) -> list[JudgedModel]:
        """The trainings of a model, by seed."""
        return sorted((m for m in self.models if m.name == name), key=lambda m: m.seed)

    def names(self) -> list[str]:
        """The models that there are, in the table's order."""
        return [name for name in MODELS if self.seeds_of(name)]


def read_evidence(request: Request) -> Evidence:
    """Read the artifacts of a report's request.

    Raises:
        ArtifactError: an input is not readable, of another dataset, or there twice.
    """
    dataset = open_dataset(request.input("prepare").path)
    landmarks = "landmarks" in request.experiment.action_units.features
    table = read_au_table(request.input("annotate").file(AU_TABLE), dataset, landmarks)
    graph, card = load_graph(request.input("graph").path)
    judgements = {artifact: _read_metrics(artifact) for artifact in request.inputs_of("evaluate")}
    own = {artifact: figures for artifact, figures in judgements.items() if "judged_on" not in figures}
    models = tuple(_read_judged(artifact, figures, dataset) for artifact, figures in own.items())
    _refuse_strangers("evaluate", [(model.name, model.seed) for model in models])
    generators = tuple(_read_generator(artifact, dataset) for artifact in request.inputs_of("soft-labels"))
    _refuse_strangers("soft-labels", [(generator.name, generator.seed) for generator in generators])
    units = action_units(dataset, table, request.experiment.action_units)
    costs = _costs(request, models)
    trained = (*request.inputs_of("train-ldg"), *request.inputs_of("distill"))
    cards = {artifact: read_card(artifact.path) for artifact in trained}
    return Evidence(
        request.experiment,
        dataset,
        units,
        graph,
        card,
        models,
        generators,
        costs,
        checkpoints={(c.name, c.seed): f"{made.step}/{made.path.name}" for made, c in cards.items()},
        model_cards=tuple(markdown(c) for c in sorted(cards.values(), key=_place_in_table)),
        fingerprints={
            (model.name, model.seed): checkpoint_of(artifact) for artifact, model in zip(own, models, strict=True)
        },
        elsewhere=tuple(figures for artifact, figures in judgements.items() if artifact not in own),
        linear_teacher=load_teacher(request.input("graph").path),
    )


def read_test_predictions(evaluation: Artifact) -> pd.DataFrame:
    """Id and probabilities that a report shows of an evaluation: of the selected epoch, on the test split.

    Raises:
        OSError, ValueError, KeyError: the table cannot be read, or is another.
    """
    table = pd.read_parquet(evaluation.file("predictions.parquet"))
    return table[(table["split"] == "test") & (table["choice"] == "selected")]


def checkpoint_of(evaluation: Artifact) -> str:
    """The fingerprint of what was judged."""
    return next(iter(evaluation.made_from("train-ldg") | evaluation.made_from("distill")), "")


def _read_metrics(artifact: Artifact) -> dict[str, Any]:
    """The figures that `fer evaluate` wrote; `judged_on` is among them where they are of other data."""
    try:
        figures: dict[str, Any] = json.loads(artifact.file("metrics.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ArtifactError(f"{artifact.path}: no evaluation ({error}); run `fer evaluate`") from error
    return figures


def _read_judged(artifact: Artifact, figures: dict[str, Any], dataset: Dataset) -> JudgedModel:
    """A model on the report's own dataset; ArtifactError where it is of another."""
    try:
        table = read_test_predictions(artifact)
        probabilities = table[list(dataset.card.labels)].to_numpy(np.float64)
    except (OSError, ValueError, KeyError) as error:
        raise ArtifactError(f"{artifact.path}: no evaluation on this dataset ({error}); run `fer evaluate`") from error
    if list(table["id"]) != list(dataset.manifest["id"].to_numpy()[dataset.rows("test")]):
        raise ArtifactError(f"{artifact.path}: its test images are not this dataset's; run `fer evaluate` on it")
    return JudgedModel(figures, probabilities)


def _read_generator(artifact: Artifact, dataset: Dataset) -> Generator:
    soft_labels = read_soft_labels(artifact.path, dataset)
    try:
        made_by = json.loads(artifact.file("soft_labels.json").read_text(encoding="utf-8"))
        return Generator(made_by["generator"], made_by["seed"], soft_labels)
    except (OSError, ValueError, KeyError) as error:
        raise ArtifactError(f"{artifact.path}: not soft labels ({error}); make them with `fer soft-labels`") from error


def _refuse_strangers(step: str, made: list[tuple[str, int]]) -> None:
    """The table has a column for each of the five models, and a cell for each of its seeds."""
    for name, seed in made:
        if name not in MODELS:
            raise ArtifactError(f"`fer {step}` of {name}: the report is of {', '.join(MODELS)}; leave it out")
        if made.count((name, seed)) > 1:
            raise ArtifactError(f"two artifacts of `fer {step}` for {name} · seed {seed}; give one of them with --in")


def _costs(request: Request, models: tuple[JudgedModel, ...]) -> tuple[Cost, ...]:
    """Wall-clock seconds and peak memory by step; of a training, the seconds of its epochs."""
    costs = [_cost(step, request.inputs_of(step)) for step in ("prepare", "annotate", "graph")]
    for name in MODELS:
        seconds = [model.training_seconds for model in models if model.name == name]
        if seconds:
            costs.append(Cost(f"train {name}", len(seconds), sum(seconds), _training_memory(request, name)))
    costs += [_cost(step, request.inputs_of(step)) for step in ("soft-labels", "evaluate") if request.inputs_of(step)]
    return tuple(costs)


def _cost(step: str, artifacts: list[Artifact]) -> Cost:
    peak = max(artifact.peak_memory() for artifact in artifacts)
    return Cost(step, len(artifacts), sum(artifact.seconds() for artifact in artifacts), peak)


def _training_memory(request: Request, name: str) -> int | None:
    """The peak of a model's trainings, where they are among the report's inputs."""
    trained = (*request.inputs_of("train-ldg"), *request.inputs_of("distill"))
    return max((made.peak_memory() for made in trained if read_card(made.path).name == name), default=None)


def _place_in_table(card: ModelCard) -> tuple[int, int]:
    """By the table's columns, then by seed."""
    return MODELS.index(card.name) if card.name in MODELS else len(MODELS), card.seed
