"""What a student gains where it sees the very views that its soft labels are of, and what that costs.

    python benchmarks/soft_label_views.py

Drawn faces, small; one LDG a seed, and from it a student for each of `soft_labels.views` = 1, 10, 50 and online, in
equal epochs; differences paired over seeds. What is finished in the working folder is not made again. From
the third seed on, each prints a table and writes `benchmarks/results/soft_label_views.json`.
"""

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from neighbour_quality import Study, fer, interval
from online_teacher import RESAMPLES, judged
from rich.console import Console
from rich.table import Table
from writing import ROOT, write_results

from fer_core.artifacts import open_artifact
from fer_core.data.dataset import Dataset, open_dataset
from fer_core.evaluation.metrics import distribution_measures
from fer_core.evaluation.paired import SEEDS_FOR_AN_INTERVAL, compare
from fer_core.models.checkpoint import read_card

PLAIN, ONLINE = "1", "online"
VIEWS = (PLAIN, "10", "50", ONLINE)
SETTINGS = (
    "dataset.count=2000",
    "dataset.image_size=48",
    "ldg.input_size=32",
    "distill.input_size=32",
    "distill.epochs=20",
)
STUDY = Study("demo", SETTINGS, (1, 2, 3, 4, 5))


@dataclass(frozen=True)
class Student:
    """One student's predictions of the test images, (N, classes), and its cost."""

    predicted: np.ndarray
    labels_seconds: float
    labels_bytes: int
    epoch_seconds: float
    """Of the quickest epoch, the least disturbed."""


def student(work: Path, dataset: Dataset, teacher: Path, views: str, seed: int) -> Student:
    """Label by a seed's teacher and learn from that."""
    prepared, folder = work / "prepare", work / f"views-{views}"
    chosen = ("--set", f"soft_labels.views={views}")
    soft = fer(STUDY, "soft-labels", folder / f"soft-{seed}", [prepared, teacher], *chosen)
    trained = fer(STUDY, "distill", folder / f"student-{seed}", [prepared, soft], "--seed", str(seed), *chosen)
    history = read_card(trained).history
    return Student(
        judged(dataset, trained),
        open_artifact(soft).seconds(),
        sum(file.stat().st_size for file in soft.rglob("*") if file.is_file()),
        min(epoch["seconds"] for epoch in history),
    )


def rows(dataset: Dataset, found: dict[str, dict[int, Student]]) -> list[dict[str, Any]]:
    """Each way's mean over seeds, what it costs, and what parts it from the plain image's label and from online."""
    test, crowd = dataset.rows("test"), dataset.crowd()
    assert crowd is not None
    labels, truth = dataset.labels()[test], crowd[test].astype(np.float64)
    predicted = {views: {seed: one.predicted for seed, one in by.items()} for views, by in found.items()}
    return [
        {
            "views": views,
            "seeds": sorted(by),
            "accuracy": float(np.mean([(one.predicted.argmax(axis=1) == labels).mean() for one in by.values()])),
            "kl": float(np.mean([distribution_measures(truth, one.predicted)["kl"].mean() for one in by.values()])),
            "labels_seconds": min(one.labels_seconds for one in by.values()),
            "labels_bytes": next(iter(by.values())).labels_bytes,
            "epoch_seconds": min(one.epoch_seconds for one in by.values()),
            "differences": {
                other: compare(predicted[views], predicted[other], labels, truth, RESAMPLES)
                for other in (PLAIN, ONLINE)
                if other != views
            },
        }
        for views, by in found.items()
    ]


def shown(table_rows: list[dict[str, Any]]) -> Table:
    """The table as a person reads it."""
    columns = ("views", "accuracy, %", "KL", "Δ points to 1", "Δ KL to 1", "Δ KL to online")
    table = Table(*columns, "labels, s", "bytes", "epoch, s", title=f"seeds {table_rows[0]['seeds']}")
    for row in table_rows:
        plain, online = (row["differences"].get(other) for other in (PLAIN, ONLINE))
        table.add_row(
            row["views"],
            f"{100 * row['accuracy']:.2f}",
            f"{row['kl']:.4f}",
            "" if plain is None else interval(plain["accuracy_difference_points"], 2),
            "" if plain is None else interval(plain["kl_difference"], 4),
            "" if online is None else interval(online["kl_difference"], 4),
            f"{row['labels_seconds']:.1f}",
            str(row["labels_bytes"]),
            f"{row['epoch_seconds']:.2f}",
        )
    return table


def main() -> None:
    """Train what is missing, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=ROOT / "artifacts" / "soft_label_views")
    work = parser.parse_args().work.resolve()
    torch.set_num_threads(1)
    fer(STUDY, "prepare", work / "prepare", [])
    dataset = open_dataset(work / "prepare")
    found: dict[str, dict[int, Student]] = {views: {} for views in VIEWS}
    for done, seed in enumerate(STUDY.seeds, start=1):
        teacher = fer(STUDY, "train-ldg", work / "teacher" / f"seed-{seed}", [work / "prepare"], "--seed", str(seed))
        for views in VIEWS:
            found[views][seed] = student(work, dataset, teacher, views, seed)
        if done >= SEEDS_FOR_AN_INTERVAL:
            Console(width=180).print(shown(rows(dataset, found)))
            write_results("soft_label_views", rows(dataset, found))


if __name__ == "__main__":
    main()
