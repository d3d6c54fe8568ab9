"""What LDG-AUs learns from neighbours forwarded, banked, and random; paired over seeds.

    python benchmarks/neighbour_quality.py drawn
    python benchmarks/neighbour_quality.py ferplus --data ~/ferplus

λ, k and the similarities are the same in every row, so the pull is as strong over a training; "random" keeps the
similarities of the AU graph and draws the neighbours. What is finished in the working folder is not trained again.
Prints a table and writes `benchmarks/results/neighbour_quality_NAME.json`.
"""

import argparse
import os
import subprocess
import sys
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from rich.console import Console
from rich.table import Table
from writing import ROOT, write_results

from fer_core.data.dataset import open_dataset
from fer_core.evaluation.metrics import distribution_measures
from fer_core.evaluation.paired import compare
from openface.machine import usable_cores

RESAMPLES = 1000
FORWARDED, RANDOM = "forwarded", "bank, random neighbours"
COMPARED = (FORWARDED, "no neighbours", RANDOM)
ALL_NEIGHBOURS = "ldg.neighbours_drawn=0"


@dataclass(frozen=True)
class Study:
    """An experiment, what is changed of it, and how many seeds it is worth."""

    experiment: str
    settings: tuple[str, ...]
    seeds: tuple[int, ...]


AS_MEASURED = ("dataset.count=2400", "ldg.epochs=7", "ldg.learning_rate=0.02")
"""What the demo was when docs/results.md and benchmarks/README.md were measured; it has since been made shorter."""
STUDIES = {
    "drawn": Study("demo", AS_MEASURED, (1, 2, 3, 4, 5)),
    "ferplus": Study("ferplus-cpu", ("dataset.limit=2000",), (1, 2, 3)),
}
ROWS = {
    "no neighbours": (None, ()),
    FORWARDED: ("graph", ("ldg.neighbours=forward", ALL_NEIGHBOURS)),
    "bank": ("graph", ("ldg.neighbours=bank",)),
    RANDOM: ("random-graph", ("ldg.neighbours=bank",)),
}


def fer(study: Study, step: str, out: Path, inputs: list[Path], *options: str | Path) -> Path:
    """Run a step, unless its output is there."""
    settings = [part for setting in study.settings for part in ("--set", setting)]
    given = [part for path in inputs for part in ("--in", path)]
    command = [sys.executable, "-m", "fer_core", step, study.experiment, *settings, *options, *given, "--out", out]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(list(map(str, command)), cwd=ROOT, env=environment, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(map(str, command))}\n{done.stdout}{done.stderr}")
    return out


def train_and_judge(study: Study, work: Path, name: str, seed: int) -> None:
    """One training, and its predictions of the test images."""
    graph, settings = ROWS[name]
    changed = [part for setting in settings for part in ("--set", setting)]
    inputs = [work / "prepare", *([work / graph] if graph else [])]
    folder = work / name.replace(", ", "-").replace(" ", "-")
    model = fer(study, "train-ldg", folder / f"seed-{seed}", inputs, "--seed", str(seed), *changed)
    fer(study, "evaluate", folder / f"judged-{seed}", [work / "prepare", model])


def predictions(work: Path, name: str, seed: int) -> np.ndarray:
    """(N, classes) probabilities of the test images, at the epoch chosen on validation."""
    table = pd.read_parquet(work / name.replace(", ", "-").replace(" ", "-") / f"judged-{seed}" / "predictions.parquet")
    chosen = table[(table["split"] == "test") & (table["choice"] == "selected")]
    return chosen.drop(columns=["id", "split", "choice"]).to_numpy()


def rows(study: Study, work: Path) -> list[dict[str, Any]]:
    """Each way's mean over seeds, and what parts it from every other."""
    dataset = open_dataset(work / "prepare")
    test, crowd = dataset.rows("test"), dataset.crowd()
    assert crowd is not None
    labels, truth = dataset.labels()[test], crowd[test].astype(np.float64)
    found = {name: {seed: predictions(work, name, seed) for seed in study.seeds} for name in ROWS}
    return [
        {
            "name": name,
            "accuracy": float(np.mean([(p.argmax(axis=1) == labels).mean() for p in ours.values()])),
            "kl": float(np.mean([distribution_measures(truth, p)["kl"].mean() for p in ours.values()])),
            "differences": {
                other: compare(ours, theirs, labels, truth, RESAMPLES)
                for other, theirs in found.items()
                if other != name
            },
        }
        for name, ours in found.items()
    ]


def interval(difference: dict[str, Any], digits: int) -> str:
    """A mean difference, and its 95 % interval over seeds."""
    over = difference["over_seeds"]
    return f"{difference['mean']:+.{digits}f} ({over['low']:+.{digits}f} … {over['high']:+.{digits}f})"


def shown(found: Iterable[dict[str, Any]]) -> Table:
    """The table as a person reads it."""
    table = Table("neighbours", "accuracy, %", "KL to the truth", *(f"Δ KL to {other}" for other in COMPARED))
    for row in found:
        apart = [row["differences"].get(other) for other in COMPARED]
        table.add_row(
            row["name"],
            f"{100 * row['accuracy']:.2f}",
            f"{row['kl']:.4f}",
            *("" if one is None else interval(one["kl_difference"], 4) for one in apart),
        )
    return table


def main() -> None:
    """Train what is missing, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", choices=sorted(STUDIES))
    parser.add_argument("--data", type=Path, help="the dataset's folder, for ferplus")
    parser.add_argument("--work", type=Path, default=ROOT / "artifacts" / "neighbour_quality")
    parser.add_argument("--jobs", type=int, default=usable_cores())
    options = parser.parse_args()
    study, work = STUDIES[options.study], options.work.resolve() / options.study
    given = options.data and options.data.resolve()
    fer(study, "prepare", work / "prepare", [], *(["--data", given] if given else []))
    aus = given / "openface_aus.parquet" if given else work / "prepare" / "openface.parquet"
    fer(study, "annotate", work / "annotate", [work / "prepare"], "--aus", aus)
    for name, control in (("graph", "none"), ("random-graph", "random")):
        fer(study, "graph", work / name, [work / "prepare", work / "annotate"], "--set", f"graph.control={control}")
    with ThreadPoolExecutor(options.jobs) as pool:
        list(pool.map(lambda job: train_and_judge(study, work, *job), [(n, s) for s in study.seeds for n in ROWS]))
    found = rows(study, work)
    Console(width=140).print(shown(found))
    write_results(f"neighbour_quality_{options.study}", found)


if __name__ == "__main__":
    main()
