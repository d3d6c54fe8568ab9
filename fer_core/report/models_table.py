"""results.csv: a row for each trained model."""

from typing import Any

import pandas as pd

from fer_core.report.evidence import Evidence, JudgedModel

MODEL_COLUMNS = (
    "model",
    "seed",
    "architecture",
    "parameters",
    "experiment",
    "fingerprint",
    "code",
    "commit",
    "hardware",
    "dataset",
    "test_images",
    "epochs",
    "selected_epoch",
    "accuracy",
    "accuracy_low",
    "accuracy_high",
    "accuracy_last_epoch",
    "macro_f1",
    "calibration_error",
    "temperature",
    "calibration_error_at_temperature",
    "kl",
    "kl_low",
    "kl_high",
    "kl_unclipped",
    "total_variation",
    "chebyshev",
    "clark",
    "canberra",
    "cosine",
    "intersection",
    "clip",
    "training_seconds",
)
"""The columns of results.csv."""


def models_table(evidence: Evidence) -> pd.DataFrame:
    """results.csv: a row a trained model, accuracies and errors in 0..1, intervals of 95 % over test images."""
    models = [model for name in evidence.names() for model in evidence.seeds_of(name)]
    title, source = evidence.experiment.title, evidence.dataset.card.source
    found = [model_row(m, evidence.fingerprints.get((m.name, m.seed)), title, source) for m in models]
    return pd.DataFrame(found, columns=list(MODEL_COLUMNS))


def model_row(model: JudgedModel, fingerprint: str | None, experiment: str, dataset: str) -> dict[str, Any]:
    """A trained model under `MODEL_COLUMNS`; what is not known, or has no truth to be measured against, is left empty.

    Args:
        fingerprint: of its checkpoint.
        experiment: its title.
        dataset: the source that it was trained on.
    """
    figures, test = model.figures, model.figures["selected"]["test"]
    kept = ("architecture", "parameters", "epochs", "selected_epoch", "temperature")
    row: dict[str, Any] = (
        {key: figures[key] for key in kept} | test.get("distribution", {}) | figures.get("trained_on", {})
    )
    row |= {key: test.get(key) for key in ("accuracy", "macro_f1", "calibration_error", "kl_unclipped", "clip")}
    for name, interval in (("accuracy", test["accuracy_interval"]), ("kl", test.get("kl_interval"))):
        row |= {f"{name}_{end}": interval and interval[end] for end in ("low", "high")}
    return row | {
        "model": model.name,
        "seed": model.seed,
        "experiment": experiment,
        "fingerprint": fingerprint,
        "dataset": dataset,
        "test_images": test["images"],
        "accuracy_last_epoch": figures["last"]["test"]["accuracy"],
        "calibration_error_at_temperature": figures["calibrated"]["test"]["calibration_error"],
        "training_seconds": model.training_seconds,
    }
