"""Small invented runs for the report's tests: a dataset, its graph, and models that guess with a given skill."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from fer_core.artifacts import Artifact, make_artifact
from fer_core.data.dataset import Dataset, DatasetCard, save_dataset
from fer_core.evaluation.judge import judge
from fer_core.experiment import Experiment, experiment_from
from fer_core.graph.action_units import ActionUnits
from fer_core.graph.neighbours import Graph, GraphCard, save_graph
from fer_core.report.evidence import MODELS
from fer_core.steps import Request, request
from openface.columns import INTENSITIES, PRESENCES

LABELS = ("neutral", "happiness", "surprise")
_COUNT = {"train": 40, "validation": 8, "test": 24}
_UNUSABLE = 5
"""Every fifth image has no AUs."""


class Silence:
    """A reporter that remembers its progress."""

    def __init__(self) -> None:
        self.done: list[tuple[int, int]] = []

    def progress(self, what: str, done: int, total: int) -> None:
        self.done.append((done, total))

    def metrics(self, **values: float | int | str) -> None:
        pass

    def note(self, text: str) -> None:
        pass


def experiment(seeds: Sequence[int] = (1, 2), **sections: Any) -> Experiment:
    document = {"title": "A small run", "seeds": list(seeds), "graph": {"k": 2}, "evaluation": {"bootstrap": 50}}
    return experiment_from(document | {"action_units": {"features": "intensity"}} | sections, "test")


def dataset(truth: str = "crowd votes", labels: tuple[str, ...] = LABELS, source: str = "csv") -> Dataset:
    rng = np.random.default_rng(0)
    count = sum(_COUNT.values())
    distributions = rng.dirichlet(np.full(len(labels), 0.5), count).astype(np.float32)
    manifest = pd.DataFrame(
        {
            "id": [f"face{row}" for row in range(count)],
            "sha256": [f"{row:064d}" for row in range(count)],
            "split": np.repeat(list(_COUNT), list(_COUNT.values())),
            "label": np.concatenate([np.arange(len(labels)), distributions.argmax(axis=1)[len(labels) :]]),
        }
    )
    if truth:
        manifest[[f"crowd_{label}" for label in labels]] = distributions
    images = rng.integers(0, 255, (count, 16, 16, 1), dtype=np.uint8)
    counts = {"read": count, **_COUNT}
    return Dataset(DatasetCard(source, labels, "Invented.", truth, (0.5,), (0.25,), counts), manifest, images)


def au_table(data: Dataset) -> pd.DataFrame:
    rng = np.random.default_rng(1)
    count = len(data.manifest)
    table = pd.DataFrame({"id": data.manifest["id"], "status": "ok", "confidence": np.float32(0.95)})
    table[list(INTENSITIES)] = rng.uniform(0, 5, (count, len(INTENSITIES))).astype(np.float32)
    table[list(PRESENCES)] = rng.integers(0, 2, (count, len(PRESENCES))).astype(np.float32)
    lost = np.arange(count) % _UNUSABLE == 0
    table.loc[lost, "status"] = "no_face"
    table.loc[lost, ["confidence", *INTENSITIES, *PRESENCES]] = np.nan
    return table


def ring_graph(data: Dataset, usable: np.ndarray) -> Graph:
    """Each usable training image, labelled or not, linked to the next two."""
    linked = np.flatnonzero(usable & data.manifest["split"].isin(("train", "unlabelled")).to_numpy())
    shape = (len(usable), 2)
    graph = Graph(np.full(shape, -1, np.int32), np.full(shape, np.nan, np.float32), np.zeros(shape, np.float32))
    graph.neighbours[linked] = np.stack([np.roll(linked, -1), np.roll(linked, -2)], axis=1)
    graph.distance[linked], graph.similarity[linked] = (0.5, 1.0), (0.6, 0.4)
    return graph


def graph_card(units: ActionUnits, control: str = "none") -> GraphCard:
    return GraphCard(
        images=32,
        distinct_vectors=32,
        k=2,
        sigma_squared=1.0,
        backend="annoy",
        trees=5,
        nodes_searched=50,
        recall=1.0,
        recall_images=32,
        seconds=0.1,
        control=control,
        coverage=units.coverage,
    )


def guesses(data: Dataset, rows: np.ndarray, skill: float, seed: int) -> np.ndarray:
    """(len(rows), classes) distributions that lean to the label with `skill`."""
    noise = np.random.default_rng(seed).dirichlet(np.ones(len(data.card.labels)), len(rows))
    one_hot = np.eye(len(data.card.labels))[data.labels()[rows]]
    return skill * one_hot + (1 - skill) * noise


def tempered(probabilities: np.ndarray, temperature: float) -> np.ndarray:
    """What softmax(logits / T) makes of softmax(logits)."""
    raised: np.ndarray = probabilities ** (1 / temperature)
    return raised / raised.sum(axis=1, keepdims=True)


def figures(
    data: Dataset, name: str, seed: int, epochs: int = 3, temperature: float = 1.5, skill: float = 0.3
) -> tuple[dict[str, Any], pd.DataFrame]:
    """metrics.json and predictions.parquet as `fer evaluate` writes them."""
    history = [
        {
            "epoch": e,
            "learning_rate": 0.1 / e,
            "train_cross_entropy": 2.0 / e,
            "train_accuracy": 0.5,
            "validation_loss": 50.0 / e**3,
            "validation_accuracy": 0.4 + e / 10,
            "seconds": 2.0,
        }
        | ({"train_lambda_omega": 0.1} if name == "LDG-AUs" else {})
        for e in range(1, epochs + 1)
    ]
    metrics: dict[str, Any] = {
        "architecture": "efficientface" if name.startswith("EF") else "resnet18",
        "labels": data.card.labels,
        "input_size": 32,
        "name": name,
        "seed": seed,
        "epochs": epochs,
        "selected_epoch": epochs,
        "history": history,
        "parameters": 1000,
        "temperature": temperature,
        "recipe": {"pretrained_on": "", "weights": ""},
        "trained_on": {"source": data.card.source, "code": "fer 0.1.0", "commit": "abc", "hardware": "CPU, AVX2"},
        "calibrated": {},
        "selected": {},
        "last": {},
    }
    tables = []
    for choice in ("selected", "last"):
        for split in ("validation", "test"):
            rows = np.flatnonzero(data.manifest["split"].to_numpy() == split)
            probabilities = guesses(data, rows, skill, seed + len(name))
            metrics[choice][split] = judge(data, rows, probabilities, 20)
            if choice == "selected":
                metrics["calibrated"][split] = judge(data, rows, tempered(probabilities, temperature), 20)
            table = pd.DataFrame(probabilities, columns=list(data.card.labels))
            table.insert(0, "id", data.manifest["id"].to_numpy()[rows])
            tables.append(table.assign(split=split, choice=choice))
    return metrics, pd.concat(tables)


def report_request(
    folder: Path,
    plan: Experiment,
    data: Dataset,
    models: Sequence[tuple[str, int]] | None = None,
    more: Sequence[Artifact] = (),
    **also: Any,
) -> Request:
    """A report's request on artifacts written into `folder`; without `models`, all five of every seed.

    Args:
        more: other inputs.
        also: for `evaluation`.
    """
    if models is None:
        models = [(name, seed) for name in MODELS for seed in plan.seeds]
    table = au_table(data)
    units = ActionUnits((), np.zeros((len(table), 1)), (table["status"] == "ok").to_numpy(), {})
    graph, card = ring_graph(data, units.usable), graph_card(units, plan.graph.control)
    inputs = [
        _artifact(folder, "prepare", "only", lambda out: write_dataset(out, data)),
        _artifact(folder, "annotate", "only", lambda out: table.to_parquet(out / "aus.parquet")),
        _artifact(folder, "graph", "only", lambda out: save_graph(out, graph, card)),
    ]
    for name, seed in models:
        inputs.append(evaluation(folder, data, name, seed, **also))
        if name.startswith("LDG"):
            inputs.append(soft_labels(folder, data, name, seed))
    return request("report", plan, [*inputs, *more])


def evaluation(
    folder: Path, data: Dataset, name: str, seed: int, mark: str = "", temperature: float = 1.5, **also: Any
) -> Artifact:
    """What `fer evaluate` writes, with `also` laid over its metrics."""

    def write(out: Path) -> None:
        metrics, predictions = figures(data, name, seed, temperature=temperature)
        metrics |= also
        (out / "metrics.json").write_text(json.dumps(metrics), encoding="utf-8")
        predictions.to_parquet(out / "predictions.parquet", index=False)

    return _artifact(folder, "evaluate", f"{name}-{seed}{mark}", write)


def elsewhere(folder: Path, data: Dataset, name: str, seed: int) -> Artifact:
    """What `fer evaluate` writes of a checkpoint on data that it was not trained on."""

    def write(out: Path) -> None:
        metrics, predictions = figures(data, name, seed)
        for part in ("selected", "last", "calibrated"):
            del metrics[part]["validation"]
        metrics["judged_on"] = {
            "source": "csv",
            "protocol": "Invented elsewhere.",
            "truth": "crowd votes",
            "labels": data.card.labels,
            "classes": {"checkpoint": 4, "dataset": 5, "judged": 3},
            "classes_left_out": {"checkpoint": ["fear"], "dataset": {"boredom": 7, "envy": 2}},
            "images": {"test": 40, "judged": 24},
            "images_left_out": {
                "of other classes": 9,
                "in the checkpoint's train": 5,
                "in the checkpoint's validation": 2,
            },
            "training_images_known": True,
            "preprocessing": ["the images are stored in grey and the checkpoint takes colour"],
        }
        (out / "metrics.json").write_text(json.dumps(metrics), encoding="utf-8")
        predictions.to_parquet(out / "predictions.parquet", index=False)

    return _artifact(folder, "evaluate", f"elsewhere-{name}-{seed}", write)


def soft_labels(folder: Path, data: Dataset, name: str, seed: int) -> Artifact:
    def write(out: Path) -> None:
        rows = np.arange(len(data.manifest))
        table = pd.DataFrame(guesses(data, rows, 0.5, seed).astype(np.float32), columns=list(data.card.labels))
        table.insert(0, "id", data.manifest["id"].to_numpy())
        table.to_parquet(out / "soft_labels.parquet", index=False)
        (out / "soft_labels.json").write_text(json.dumps({"generator": name, "seed": seed}), encoding="utf-8")

    return _artifact(folder, "soft-labels", f"{name}-{seed}", write)


def _artifact(folder: Path, step: str, mark: str, write: Any) -> Artifact:
    return make_artifact(folder / step / mark, step, f"{step} {mark}", {}, {}, write)


def write_dataset(out: Path, data: Dataset) -> None:
    save_dataset(out, data.card, data.manifest)
    np.save(out / "images.npy", data.images)
