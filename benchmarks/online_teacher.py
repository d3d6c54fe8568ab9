"""What cached soft labels cost in quality: beside a student that asks its teacher about every augmented image.

    python benchmarks/online_teacher.py

Drawn faces of `demo`, the LDG as the teacher, paired over seeds. The online student is the original's way: the frozen
teacher labels each random view that the student sees. What is finished in the working folder is not trained again.
Prints a table and writes `benchmarks/results/online_teacher.json`.
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch
from neighbour_quality import STUDIES, Study, fer, interval
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from writing import ROOT, write_results

from fer_core.data.dataset import Dataset, open_dataset
from fer_core.data.views import Views
from fer_core.evaluation.calibration import probabilities
from fer_core.evaluation.metrics import distribution_measures
from fer_core.evaluation.paired import compare
from fer_core.experiment import load_experiment
from fer_core.models.checkpoint import load_checkpoint
from fer_core.models.logits import predict_logits
from fer_core.progress import reporter
from fer_core.train.loop import Run, Training, train
from fer_core.train.losses import soft_cross_entropy
from fer_core.train.objectives import Batch, LossTerms, Objective

SEEDS = (1, 2, 3)
CPU = torch.device("cpu")
ONLINE = "online teacher, every view"
MIRRORED = "cached, mean of it and its mirror image"
CACHED: dict[str, tuple[int | str, int]] = {
    "cached, the image as it is": (1, 1),
    MIRRORED: ("mirrored", 1),
    f"{MIRRORED}, twice the epochs": ("mirrored", 2),
}
"""By name, the views behind a soft label, and how many times the epochs; twice takes as long as the online teacher."""
RESAMPLES = 1000


def train_online(dataset: Dataset, teacher_folder: Path, seed: int, out: Path) -> Path:
    """EfficientFace against what the frozen teacher says of each random view."""
    if (out / "model.json").exists():
        return out
    out.mkdir(parents=True, exist_ok=True)
    experiment = load_experiment("demo")
    teacher, card = load_checkpoint(teacher_folder)
    teacher = teacher.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    assert card.input_size == experiment.distill.input_size, "both look at the same view"

    def loss(model: nn.Module, batch: Batch) -> LossTerms:
        with torch.no_grad():
            target: Tensor = torch.softmax(teacher(batch.images), dim=-1)
        return {"cross_entropy": soft_cross_entropy(batch.logits, target)}

    recipe = experiment.distill
    training = Training("EF + LDG", "efficientface", recipe, recipe.epochs, experiment.augment, Objective(loss))
    with reporter() as report:
        train(training, dataset, Run(seed, out, CPU, report))
    return out


def judged(dataset: Dataset, checkpoint: Path) -> np.ndarray:
    """(test images, classes) probabilities, as trained."""
    model, card = load_checkpoint(checkpoint)
    views = Views(dataset.images, card.mean, card.std, card.input_size, CPU)
    return probabilities(predict_logits(model, views, dataset.rows("test")))


def students(study: Study, work: Path, dataset: Dataset, seed: int) -> dict[str, np.ndarray]:
    """What each student of one seed's teacher predicts."""
    prepared = work / "prepare"
    teacher = fer(study, "train-ldg", work / "teacher" / f"seed-{seed}", [prepared], "--seed", str(seed))
    found = {ONLINE: judged(dataset, train_online(dataset, teacher, seed, work / "online" / f"seed-{seed}"))}
    for name, (views, times) in CACHED.items():
        soft = work / f"soft-{views}" / f"seed-{seed}"
        fer(study, "soft-labels", soft, [prepared, teacher], "--set", f"soft_labels.views={views}")
        student = work / f"cached-{views}{'-longer' * (times > 1)}" / f"seed-{seed}"
        epochs = ("--set", f"distill.epochs={times * load_experiment(study.experiment).distill.epochs}")
        fer(study, "distill", student, [prepared, soft], "--seed", str(seed), *epochs)
        found[name] = judged(dataset, student)
    return found


def rows(dataset: Dataset, by_seed: dict[int, dict[str, np.ndarray]]) -> list[dict[str, Any]]:
    """Each way's mean over seeds, and what parts it from the online teacher."""
    test, crowd = dataset.rows("test"), dataset.crowd()
    assert crowd is not None
    labels, truth = dataset.labels()[test], crowd[test].astype(np.float64)
    online = {seed: found[ONLINE] for seed, found in by_seed.items()}
    table = []
    for name in (ONLINE, *CACHED):
        ours = {seed: found[name] for seed, found in by_seed.items()}
        table.append(
            {
                "name": name,
                "accuracy": float(np.mean([(p.argmax(axis=1) == labels).mean() for p in ours.values()])),
                "kl": float(np.mean([distribution_measures(truth, p)["kl"].mean() for p in ours.values()])),
                "to_online": compare(ours, online, labels, truth, RESAMPLES),
            }
        )
    return table


def main() -> None:
    """Train what is missing, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=ROOT / "artifacts" / "online_teacher")
    work = parser.parse_args().work.resolve()
    study = STUDIES["drawn"]
    fer(study, "prepare", work / "prepare", [])
    dataset = open_dataset(work / "prepare")
    torch.set_num_threads(1)
    found = rows(dataset, {seed: students(study, work, dataset, seed) for seed in SEEDS})
    table = Table("soft labels", "accuracy, %", "Δ, points", "KL to the truth", "Δ KL")
    for row in found:
        points, kl = (row["to_online"][key] for key in ("accuracy_difference_points", "kl_difference"))
        same = row["name"] == ONLINE
        differences = ("", "") if same else (interval(points, 2), interval(kl, 4))
        table.add_row(row["name"], f"{100 * row['accuracy']:.2f}", differences[0], f"{row['kl']:.4f}", differences[1])
    Console(width=120).print(table)
    write_results("online_teacher", found)


if __name__ == "__main__":
    main()
