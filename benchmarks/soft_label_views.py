"""What a student gains where it sees the very views that its soft labels are of, and what that costs.

    python benchmarks/soft_label_views.py

Drawn faces, small; one LDG a seed, and from it a student for each of `soft_labels.views` = 1, 10, 50 and online, in
equal epochs; differences paired over seeds. Costs are the processor's seconds of one thread, which other work on the
machine hardly changes: of labelling, and of the second epoch. What is finished in the working folder is not made
again. From the third seed on, each prints a table and writes `benchmarks/results/soft_label_views.json`.
"""

import argparse
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from neighbour_quality import Study, fer, interval
from online_teacher import CPU, RESAMPLES, judged
from rich.console import Console
from rich.table import Table
from writing import ROOT, write_results

from fer_core.data.dataset import Dataset, open_dataset
from fer_core.evaluation.metrics import distribution_measures
from fer_core.evaluation.paired import SEEDS_FOR_AN_INTERVAL, compare
from fer_core.experiment import load_experiment
from fer_core.train.efficientface import train_efficientface
from fer_core.train.loop import Run
from fer_core.train.soft_labels import make_soft_labels, objective_from

PLAIN, ONLINE = "1", "online"
VIEWS = (PLAIN, "10", "50", ONLINE)
SETTINGS = ("dataset.count=2000", "ldg.epochs=6", "ldg.learning_rate=0.02", "distill.epochs=20")
STUDY = Study("demo", SETTINGS, (1, 2, 3, 4, 5))


@dataclass(frozen=True)
class Student:
    """One student's predictions of the test images, (N, classes), and what its soft labels take on disk."""

    predicted: np.ndarray
    labels_bytes: int


@dataclass
class Clock:
    """A reporter that notes the processor's seconds at the end of each epoch."""

    epochs: list[float] = field(default_factory=list)

    def progress(self, what: str, done: int, total: int) -> None:
        """A step takes the time it takes."""

    def metrics(self, **values: float | int | str) -> None:
        """An epoch has ended."""
        self.epochs.append(time.process_time())

    def note(self, text: str) -> None:
        """Nothing to add."""


def cost(dataset: Dataset, teacher: Path, views: str) -> dict[str, float]:
    """Label once and take two epochs, in this process."""
    clock = Clock()
    experiment = load_experiment("demo", (*SETTINGS, "distill.epochs=2", f"soft_labels.views={views}"))
    with tempfile.TemporaryDirectory() as name:
        soft, student = Path(name) / "soft", Path(name) / "student"
        soft.mkdir()
        student.mkdir()
        started = time.process_time()
        make_soft_labels(experiment, dataset, teacher, soft, CPU, clock)
        labelled = time.process_time()
        taught = objective_from(soft, dataset, experiment.distill.input_size, CPU)
        train_efficientface(experiment, dataset, "majority", taught, "EF + LDG", Run(1, student, CPU, clock))
    return {"labels_seconds": labelled - started, "epoch_seconds": clock.epochs[1] - clock.epochs[0]}


def student(work: Path, dataset: Dataset, teacher: Path, views: str, seed: int) -> Student:
    """Label by a seed's teacher and learn from that."""
    prepared, folder = work / "prepare", work / f"views-{views}"
    chosen = ("--set", f"soft_labels.views={views}")
    soft = fer(STUDY, "soft-labels", folder / f"soft-{seed}", [prepared, teacher], *chosen)
    trained = fer(STUDY, "distill", folder / f"student-{seed}", [prepared, soft], "--seed", str(seed), *chosen)
    return Student(judged(dataset, trained), sum(file.stat().st_size for file in soft.rglob("*") if file.is_file()))


def rows(
    dataset: Dataset, found: dict[str, dict[int, Student]], costs: dict[str, dict[str, float]]
) -> list[dict[str, Any]]:
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
            "labels_bytes": next(iter(by.values())).labels_bytes,
            **costs[views],
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
        if done == SEEDS_FOR_AN_INTERVAL:
            costs = {views: cost(dataset, teacher, views) for views in VIEWS}
        if done >= SEEDS_FOR_AN_INTERVAL:
            Console(width=180).print(shown(rows(dataset, found, costs)))
            write_results("soft_label_views", rows(dataset, found, costs))


if __name__ == "__main__":
    main()
