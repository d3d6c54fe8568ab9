"""All metrics of a run: results.json, from evaluated models to the paper's table."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import pandas as pd

from fer_core.data.dataset import Dataset
from fer_core.evaluation.baselines import au_neighbours_alone, best_smoothing, smoothed, uniform
from fer_core.evaluation.metrics import CLIP, bootstrap_mean, distribution_measures, mean_measures, unclipped_divergence
from fer_core.evaluation.paired import compare, divergence_difference
from fer_core.experiment import to_document
from fer_core.graph.agreement import label_agreement
from fer_core.report.evidence import GENERATORS, MODELS, Evidence, JudgedModel

SECTIONS = {"LDG": "ldg", "LDG-AUs": "ldg", "EF SLL": "sll", "EF + LDG": "distill", "EF + LDG-AUs": "distill"}
"""The experiment's section that each model learns by."""
_WHEREABOUTS = ("weights", "pretrained_on")
"""Settings of a recipe that say where a file lies and what it should be of, and not what was learnt."""

PAPER_TABLE = {
    "max": [88.29, 88.10, 86.47, 88.23, 88.36],
    "median": [87.87, 88.16, 86.47, 87.77, 87.84],
    "min": [87.80, 87.87, 85.98, 87.12, 86.86],
}
"""Mastropasqua & Acevedo's accuracies on RAF-DB; the median of EF + LDG is above its maximum in their print."""

PAIRS = (
    ("LDG-AUs", "LDG"),
    ("EF + LDG-AUs", "EF + LDG"),
    ("EF + LDG", "EF SLL"),
    ("EF + LDG-AUs", "EF SLL"),
)
_MANY_NEIGHBOURS = 16
_STATISTICS: Mapping[str, Callable[[list[float]], Any]] = {"max": max, "median": np.median, "min": min}


def results(evidence: Evidence) -> dict[str, Any]:
    """The dictionary of results.json; plain values only, accuracies of the tables in percent."""
    card = evidence.dataset.card
    return {
        "title": evidence.experiment.title,
        "experiment": to_document(evidence.experiment),
        "dataset": asdict(card),
        "seeds": seeds(evidence),
        "table": accuracy_table(evidence.models, "selected"),
        "table_last_epoch": accuracy_table(evidence.models, "last"),
        "paper_table": _paper_table() if card.source == "rafdb" else None,
        "from_scratch": from_scratch(evidence),
        "trained_otherwise": trained_otherwise(evidence),
        "published_test_images": published_test_images(evidence),
        "beside_linear_teacher": beside_linear_teacher(evidence),
        "models": [_model(evidence, model) for name in evidence.names() for model in evidence.seeds_of(name)],
        "models_over_seeds": [_over_seeds(evidence, name) for name in evidence.names()],
        "distribution_measures": _distribution_measures(evidence) if card.truth else None,
        "soft_labels_against_truth": _soft_labels_against_truth(evidence) if card.truth else None,
        "paired": paired(evidence),
        "on_other_data": [_elsewhere(figures) for figures in evidence.elsewhere],
        "graph": asdict(evidence.graph_card)
        | {
            "label_agreement": label_agreement(evidence.graph, evidence.dataset.labels()),
            "identical_neighbours": identical_neighbours(evidence),
        },
        "au_coverage": evidence.units.coverage,
        "missing": missing(evidence),
        "cost": [asdict(cost) for cost in evidence.costs],
    }


def seeds(evidence: Evidence) -> list[int]:
    """The experiment's seeds, each once, and whichever else was given."""
    planned = list(dict.fromkeys(evidence.experiment.seeds))
    return planned + sorted({model.seed for model in evidence.models} - set(planned))


def missing(evidence: Evidence) -> list[str]:
    """The models of the table that a seed of the experiment has no evaluation of."""
    there = {(model.name, model.seed) for model in evidence.models}
    planned = dict.fromkeys(evidence.experiment.seeds)
    return [f"{name} · seed {seed}" for name in MODELS for seed in planned if (name, seed) not in there]


def accuracy_table(models: Sequence[JudgedModel], choice: str) -> dict[str, Any]:
    """Maximum, median and minimum over seeds of the test accuracy in percent; None where there is no seed."""
    by_model = [[100 * m.figures[choice]["test"]["accuracy"] for m in models if m.name == name] for name in MODELS]
    rows = {
        statistic: [float(reduce(values)) if values else None for values in by_model]
        for statistic, reduce in _STATISTICS.items()
    }
    return {"columns": list(MODELS), "rows": rows}


def paired(evidence: Evidence) -> list[dict[str, Any]]:
    """The comparisons of `PAIRS` that have a seed in common; see `fer_core.evaluation.paired` for the signs.

    `kl_difference_at_temperature` is of each model at its temperature: KL as trained is the less the less sure a model
    is, which a temperature, or label smoothing, gives without any neighbours.
    """
    labels, truth = _test_truth(evidence)
    resamples, compared = evidence.experiment.evaluation.bootstrap, []
    for first, second in PAIRS:
        one, other = _by_seed(evidence, first), _by_seed(evidence, second)
        if one.keys() & other.keys():
            figures = compare(one, other, labels, truth, resamples)
            calibrated = [{m.seed: m.calibrated for m in evidence.seeds_of(name)} for name in (first, second)]
            figures["kl_difference_at_temperature"] = (
                None if truth is None else divergence_difference(calibrated[0], calibrated[1], truth, resamples)
            )
            compared.append({"first": first, "second": second, "difference_is": "first minus second", **figures})
    return compared


def neighbour_counts(evidence: Evidence) -> list[int]:
    """How many AU neighbours alone are tried as a prediction: the graph's k, and many."""
    return sorted({evidence.graph_card.k, _MANY_NEIGHBOURS})


def neighbours_row(k: int) -> str:
    """What the row of the prediction by k AU neighbours is called."""
    return f"AU neighbours alone, k = {k}"


def identical_neighbours(evidence: Evidence) -> float:
    """The share of links that join two files with the same pixels, which AU space cannot but make neighbours."""
    linked = np.flatnonzero((evidence.graph.neighbours >= 0).all(axis=1))
    pixels, _ = pd.factorize(evidence.dataset.manifest["sha256"])
    return float((pixels[evidence.graph.neighbours[linked]] == pixels[linked, None]).mean())


def from_scratch(evidence: Evidence) -> dict[str, str]:
    """By model, what its recipe's source starts from, where the training started from scratch instead."""
    recipes = {model.name: model.figures.get("recipe", {}) for model in evidence.models}
    return {
        name: recipes[name]["pretrained_on"]
        for name in evidence.names()
        if recipes[name].get("pretrained_on") and not recipes[name].get("weights")
    }


def trained_otherwise(evidence: Evidence) -> list[dict[str, Any]]:
    """The trainings whose settings are not the experiment's, in the table's order.

    Returns:
        `name`, `seed` and `settings`: by key, what the experiment says and what the training had.
    """
    found = []
    for model in (model for name in evidence.names() for model in evidence.seeds_of(name)):
        asked_for = asdict(getattr(evidence.experiment, SECTIONS[model.name]))
        had = {k: v for k, v in model.figures.get("recipe", {}).items() if k in asked_for and k not in _WHEREABOUTS}
        settings = {key: [asked_for[key], value] for key, value in had.items() if value != asked_for[key]}
        if settings:
            found.append({"name": model.name, "seed": model.seed, "settings": settings})
    return found


def published_test_images(evidence: Evidence) -> dict[str, Any] | None:
    """Accuracy of each model, in percent and a mean over seeds, on those test images that FER+'s own rule counts.

    Published figures are of these, the copies that were dropped as duplicates included. None where the dataset does not
    say which they are.
    """
    manifest, rows = evidence.dataset.manifest, evidence.dataset.rows("test")
    if "published" not in manifest:
        return None
    counted = manifest["published"].to_numpy(bool)[rows]
    if not counted.any():
        return None
    return {"images": int(counted.sum()), "of": len(rows), "rows": _accuracies_on(evidence, counted)}


def beside_linear_teacher(evidence: Evidence) -> dict[str, Any] | None:
    """Accuracy in percent of the linear model that labels the unlabelled images, and of each model on the same images.

    They are the test images with usable AUs: the teacher says nothing of others. A network that is no better there than
    its teacher has learnt to do without the AUs, and nothing beyond them. None without such a teacher.
    """
    if evidence.linear_teacher is None:
        return None
    rows = evidence.dataset.rows("test")
    said = evidence.linear_teacher[rows]
    known = np.isfinite(said).all(axis=1)
    if not known.any():
        return None
    right = said[known].argmax(axis=1) == evidence.dataset.labels()[rows][known]
    return {
        "images": int(known.sum()),
        "of": len(rows),
        "teacher": 100 * float(right.mean()),
        "rows": _accuracies_on(evidence, known),
    }


def _accuracies_on(evidence: Evidence, counted: np.ndarray) -> list[dict[str, Any]]:
    """Accuracy of each model in percent, a mean over seeds, on those test images that count, (test images,) bool."""
    labels = evidence.dataset.labels()[evidence.dataset.rows("test")]
    right = {
        name: [100 * float((m.probabilities.argmax(axis=1) == labels)[counted].mean()) for m in evidence.seeds_of(name)]
        for name in evidence.names()
    }
    return [{"name": name, "accuracy": float(np.mean(r)), "per_seed": r} for name, r in right.items()]


def _elsewhere(figures: Mapping[str, Any]) -> dict[str, Any]:
    kept = ("name", "seed", "architecture", "temperature", "trained_on", "judged_on", "selected", "last", "calibrated")
    return {key: figures[key] for key in kept}


def _paper_table() -> dict[str, Any]:
    return {
        "columns": list(MODELS),
        "rows": PAPER_TABLE,
        "remark": "The paper's epochs are chosen on the test set, as its field does; ours are chosen on validation.",
    }


def _model(evidence: Evidence, model: JudgedModel) -> dict[str, Any]:
    kept = (
        "name",
        "seed",
        "architecture",
        "parameters",
        "input_size",
        "epochs",
        "selected_epoch",
        "temperature",
        "selected",
        "last",
        "calibrated",
    )
    return {key: model.figures[key] for key in kept} | {
        "hardware": model.figures.get("trained_on", {}).get("hardware"),
        "training_seconds": model.training_seconds,
        "checkpoint": evidence.checkpoints.get((model.name, model.seed)),
    }


def _over_seeds(evidence: Evidence, name: str) -> dict[str, Any]:
    """Means over a model's seeds on the test split; intervals of accuracy and KL are bootstraps over images."""
    models = evidence.seeds_of(name)
    resamples = evidence.experiment.evaluation.bootstrap
    labels, truth = _test_truth(evidence)
    right = np.mean([model.probabilities.argmax(axis=1) == labels for model in models], axis=0)
    tests = [model.figures["selected"]["test"] for model in models]
    recalls = np.array([test["recall"] for test in tests], dtype=float)
    return {
        "name": name,
        "seeds": [model.seed for model in models],
        "architecture": models[0].figures["architecture"],
        "hardware": list(dict.fromkeys(m.figures.get("trained_on", {}).get("hardware", "") for m in models)),
        "parameters": models[0].figures["parameters"],
        "epochs": models[0].figures["epochs"],
        "selected_epochs": [model.figures["selected_epoch"] for model in models],
        "accuracy": asdict(bootstrap_mean(right, resamples)),
        "kl": None if truth is None else asdict(bootstrap_mean(_mean_divergence(models, truth), resamples)),
        "macro_f1": float(np.mean([test["macro_f1"] for test in tests])),
        "recall": [None if np.isnan(share) else float(share) for share in recalls.mean(axis=0)],
        "calibration_error": float(np.mean([test["calibration_error"] for test in tests])),
        "temperatures": [model.temperature for model in models],
        "calibration_error_at_temperature": float(
            np.mean([model.figures["calibrated"]["test"]["calibration_error"] for model in models])
        ),
        "training_seconds": float(np.mean([model.training_seconds for model in models])),
    }


def _test_truth(evidence: Evidence) -> tuple[np.ndarray, np.ndarray | None]:
    """Hard labels (N,) and true distributions (N, classes), where there are any, of the test split."""
    rows, crowd = evidence.dataset.rows("test"), evidence.dataset.crowd()
    return evidence.dataset.labels()[rows], None if crowd is None else crowd[rows]


def _mean_divergence(models: Sequence[JudgedModel], truth: np.ndarray) -> np.ndarray:
    """(N,) KL of each image, averaged over the models."""
    mean: np.ndarray = np.mean([distribution_measures(truth, m.probabilities)["kl"] for m in models], axis=0)
    return mean


def _distribution_measures(evidence: Evidence) -> dict[str, Any]:
    """Measures against the truth on the test split, of all its images and of those that have usable AUs."""
    rows = evidence.dataset.rows("test")
    with_aus = evidence.units.usable[rows]
    neighbours = _neighbour_rows(evidence, rows[with_aus])
    return {
        "truth": evidence.dataset.card.truth,
        "clip": CLIP,
        "images": len(rows),
        "rows": [*_measured(evidence, rows, np.ones(len(rows), bool)), *neighbours],
        "on_images_with_aus": {
            "images": int(with_aus.sum()),
            "rows": [*_measured(evidence, rows, with_aus), *neighbours] if with_aus.any() else [],
        },
    }


def _measured(evidence: Evidence, rows: np.ndarray, kept: np.ndarray) -> list[dict[str, Any]]:
    """A row of figures for each model and for the uniform prediction; `kept` (len(rows),) says which images count."""
    table = [
        _measures(evidence.dataset, rows[kept], name, {s: p[kept] for s, p in _by_seed(evidence, name).items()})
        for name in evidence.names()
    ]
    even = uniform(int(kept.sum()), len(evidence.dataset.card.labels))
    # Which class an even prediction names is an accident of their order, so it has no accuracy.
    return [*table, _measures(evidence.dataset, rows[kept], "uniform", {None: even}) | {"accuracy": None}]


def _neighbour_rows(evidence: Evidence, rows: np.ndarray) -> list[dict[str, Any]]:
    if not len(rows):
        return []
    return [
        _measures(
            evidence.dataset,
            rows,
            neighbours_row(k),
            {None: au_neighbours_alone(evidence.dataset, evidence.units, rows, k)},
        )
        for k in neighbour_counts(evidence)
    ]


def _soft_labels_against_truth(evidence: Evidence) -> dict[str, Any]:
    """Measures on the train split, where soft labels are used, beside what needs no generator."""
    dataset, rows = evidence.dataset, evidence.dataset.rows("train")
    crowd = dataset.crowd()
    assert crowd is not None, "asked for only where the card names a truth"
    labels, classes = dataset.labels()[rows], len(dataset.card.labels)
    share, _ = best_smoothing(labels, crowd[rows])
    smoothing = _measures(dataset, rows, "label smoothing at its best", {None: smoothed(labels, classes, share)})
    generators = [
        _measures(dataset, rows, name, {g.seed: g.soft_labels[rows] for g in evidence.generators if g.name == name})
        for name in GENERATORS
        if any(g.name == name for g in evidence.generators)
    ]
    return {
        "truth": dataset.card.truth,
        "clip": CLIP,
        "images": len(rows),
        "rows": [
            *generators,
            _measures(dataset, rows, "hard labels", {None: np.eye(classes)[labels]}),
            smoothing | {"share": share},
            _measures(dataset, rows, "uniform", {None: uniform(len(rows), classes)}) | {"accuracy": None},
        ],
        "soft_labels_nearer_than_smoothing": {row["name"]: row["kl"] < smoothing["kl"] for row in generators},
    }


def _measures(
    dataset: Dataset, rows: np.ndarray, name: str, by_seed: Mapping[int | None, np.ndarray]
) -> dict[str, Any]:
    """Accuracy in percent and the distribution measures: means over seeds, and of each where there are seeds.

    `kl_unclipped` is None where it is infinite; see `fer_core.evaluation.metrics.CLIP` for what is clipped.
    """
    crowd = dataset.crowd()
    assert crowd is not None, "asked for only where the card names a truth"
    labels = dataset.labels()[rows]
    figures = [
        {
            "accuracy": 100 * float((p.argmax(axis=1) == labels).mean()),
            **mean_measures(crowd[rows], p),
            "kl_unclipped": unclipped_divergence(crowd[rows], p),
        }
        for p in by_seed.values()
    ]
    means = {key: _mean([f[key] for f in figures]) for key in figures[0]}
    per_seed = [{"seed": seed, **f} for seed, f in zip(by_seed, figures, strict=True) if seed is not None]
    return {"name": name, "images": len(rows), **means, "per_seed": per_seed}


def _mean(values: list[float | None]) -> float | None:
    """None where one of them is infinite."""
    finite = [value for value in values if value is not None]
    return float(np.mean(finite)) if len(finite) == len(values) else None


def _by_seed(evidence: Evidence, name: str) -> dict[int, np.ndarray]:
    return {model.seed: model.probabilities for model in evidence.seeds_of(name)}
