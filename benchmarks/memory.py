"""Memory while EfficientFace trains on a million stored images, and the wait for the first batch.

The images are a sparse file of a million times 100 × 100 × 3 bytes, 30 GB that take no disk, memory-mapped as
`fer prepare` leaves them; the training is `fer_core.train.loop.train`, in a process of its own, stopped after some
steps. Prints a table and writes `benchmarks/results/memory.json`.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from writing import row, show, write_results

STORED = 100
LABELS = ("neutral", "happiness", "surprise", "sadness", "anger", "disgust", "fear")


class Enough(Exception):
    """The steps asked for are taken."""


class Watch:
    """Tells when the first steps were finished, and stops the training after some."""

    def __init__(self, steps: int) -> None:
        self.steps, self.first = steps, 0.0

    def progress(self, what: str, done: int, total: int) -> None:
        self.first = self.first or time.perf_counter()
        if done == self.steps:
            raise Enough

    def metrics(self, **values: float | int | str) -> None:
        """An epoch is not reached."""

    def note(self, text: str) -> None:
        """Nothing to add."""


def write_dataset(folder: Path, count: int) -> None:
    """A million rows, and images whose bytes are all zero and on no disk."""
    import pandas as pd

    from fer_core.data.dataset import DatasetCard, save_dataset

    np.lib.format.open_memmap(folder / "images.npy", "w+", np.uint8, (count, STORED, STORED, 3)).flush()
    manifest = pd.DataFrame({"id": [f"face{number:07d}" for number in range(count)]})
    manifest["sha256"] = [f"{number:064x}" for number in range(count)]
    manifest["split"] = np.where(np.arange(count) % 20, "train", "validation")
    manifest["label"] = np.arange(count) % len(LABELS)
    mean, std = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)
    save_dataset(folder, DatasetCard("sample", LABELS, "none", "", mean, std, {}), manifest)


def measure(folder: Path, steps: int, batch: int, size: int) -> dict[str, float]:
    """Train in this process, from opening the dataset on, as `fer distill` does."""
    started = time.perf_counter()
    import torch

    from fer_core.data.dataset import open_dataset
    from fer_core.experiment import experiment_from
    from fer_core.train.efficientface import train_efficientface
    from fer_core.train.loop import Run
    from fer_core.train.objectives import cross_entropy_to

    settings = {"input_size": size, "batch": batch, "epochs": 1}
    watch, dataset = Watch(steps), open_dataset(folder)
    taught = cross_entropy_to(torch.full((len(dataset.manifest), len(LABELS)), 1 / len(LABELS)))
    experiment, device = experiment_from({"distill": settings}, "memory.py"), torch.device("cpu")
    with suppress(Enough):
        train_efficientface(experiment, dataset, "majority", taught, "EF + LDG", Run(1, folder, device, watch))
    status = dict(line.split(":") for line in Path("/proc/self/status").read_text().splitlines())
    gigabytes = {name: int(status[name].split()[0]) * 1024 / 1e9 for name in ("VmHWM", "RssAnon", "RssFile")}
    return {"first_step": watch.first - started, **gigabytes}


def in_a_process(folder: Path, options: argparse.Namespace) -> dict[str, float]:
    """So that writing the dataset does not count."""
    command = [sys.executable, __file__, "--in", str(folder), "--steps", str(options.steps)]
    command += ["--batch", str(options.batch), "--size", str(options.size)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    result: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return result


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=1_000_000)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--size", type=int, default=112, help="side of the network's input, pixels")
    parser.add_argument("--in", dest="folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.folder:
        print(json.dumps(measure(options.folder, options.steps, options.batch, options.size)))
        return
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        write_dataset(Path(folder), options.count)
        found = in_a_process(Path(folder), options)
    name = f"training on {options.count:,} stored {STORED} × {STORED} images, batch {options.batch}, {options.size} px"
    more: dict[str, Any] = {"steps": options.steps, **{key: round(value, 3) for key, value in found.items()}}
    rows = [
        row(f"{name}: resident, at most", found["VmHWM"], 2, judged="at most", unit="GB", **more),
        row("until its first step is taken, imports included", found["first_step"], 10, judged="at most", unit="s"),
    ]
    show(rows)
    write_results("memory", rows)


if __name__ == "__main__":
    main()
