"""The table's GPU column, in one command: `make bench-gpu`, or `PYTHONPATH=. python benchmarks/gpu.py`.

Needs torch, torchvision, numpy and pandas alone. Measures steps and epochs as `fer_core.train.loop` takes them: the
neighbours' cost, EfficientFace's step, the student's epoch against the original's way on the same machine, how busy the
GPU is, and projects the paper's whole table, from whole trainings where all that `fer_core` trains with is there, else
from epochs. Prints a table and writes `benchmarks/results/gpu.json`. Without a GPU it takes tiny sizes on the CPU,
which shows that it runs and no more, and writes nothing; `--quick` takes these sizes anywhere.
"""

import argparse
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from itertools import cycle, islice, product
from pathlib import Path
from typing import Any

import neighbours
import numpy as np
import torch
from inputs import CLASSES, MEAN, STD, Augmentation, distributions, random_links, smooth_images
from reference import WORKERS, PublishedEfficientFace, distil_batch, distil_epoch, image_loader, teacher, write_files
from torch.optim.lr_scheduler import OneCycleLR
from turns import fastest
from writing import Row, row, show, write_results

from fer_core.data.order import Epochs
from fer_core.data.views import Views, on_device
from fer_core.devices import Precision, choose_device, choose_precision, dtype_of, processor_of
from fer_core.models import Architecture
from fer_core.models.architectures import build, to_train
from fer_core.train.objectives import Objective, cross_entropy_to, cross_entropy_with_bank
from fer_core.train.step import TrainingStep, take_epoch
from openface.machine import usable_cores

MULTIPLY_ADDS = 149.7e6
"""Multiply-adds of EfficientFace for an image of 224 px; forward and backward take three times as many."""
SEEDS = 5
LAMBDA = 0.01
COMBINATIONS: tuple[tuple[Precision, bool], ...] = tuple(product(("bfloat16", "float32"), (True, False)))
"""Precision, and whether the step is captured."""
NEEDED = ("pydantic", "safetensors", "sklearn", "scipy", "jinja2")
"""What a whole training needs beside torch: its settings, files and model card."""


@dataclass(frozen=True)
class Sizes:
    """How much is measured."""

    images: int = 12_271
    """RAF-DB's training images, on the device."""
    reference_images: int = 3072
    size: int = 224
    ldg_batches: tuple[int, ...] = (16, 128)
    sll_batch: int = 128
    student_batch: int = 256
    step_batch: int = 64
    steps: int = 20
    """Taken at a time between two looks at the clock."""
    rounds: int = 3
    epochs: int = 3
    """Epochs of a whole training; the fastest counts."""


QUICK = Sizes(32, 16, 32, (4,), 8, 8, 4, 2, 1, 2)


class Bench:
    """The data on the device, and what is measured of it."""

    def __init__(self, sizes: Sizes, device: torch.device) -> None:
        self.sizes, self.device = sizes, device
        self.stored = smooth_images(sizes.images)
        self.images = on_device(self.stored, device)
        self.target = distributions(sizes.images).to(device)
        self.labels = self.target.argmax(dim=1)
        self.student = cross_entropy_to(self.target)
        self.precision = choose_precision("auto", "resnet50", sizes.size, processor_of(device))
        """The generators', which this device multiplies by itself."""

    def bank(self) -> Objective:
        """LDG-AUs with neighbours' last predictions."""
        return cross_entropy_with_bank(self.target, random_links(self.sizes.images, neighbours.K), LAMBDA)

    def views(self, precision: Precision) -> Views:
        """Views of the stored images."""
        return Views(self.images, MEAN, STD, self.sizes.size, self.device, dtype_of(precision))

    def epochs(self, batch: int, objective: Objective, precision: Precision = "bfloat16") -> Epochs:
        """An epoch's draws after the other's."""
        rows = np.arange(self.sizes.images)
        return Epochs(rows, batch, self.views(precision), Augmentation(), objective.companions, 1, 10**6)

    def step(
        self,
        architecture: Architecture,
        objective: Objective,
        precision: Precision = "bfloat16",
        *,
        capture: bool = True,
    ) -> TrainingStep:
        """A training, ready for steps."""
        model = to_train(build(architecture, CLASSES, seed=1), self.device, precision)
        on_gpu = self.device.type == "cuda"
        optimiser = torch.optim.SGD(model.parameters(), 0.01, momentum=0.9, weight_decay=4e-4, fused=on_gpu)
        return TrainingStep(
            model,
            optimiser,
            OneCycleLR(optimiser, 0.01, total_steps=10**6),
            objective,
            self.views(precision),
            self.labels,
            precision,
            capture=capture and on_gpu,
        )

    def wait(self) -> None:
        """Until the device has done what it was given."""
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def several(self, step: TrainingStep, batch: int, objective: Objective) -> Callable[[], None]:
        """Some steps, to their end, of draws that are on the device."""
        full = islice(self.epochs(batch, objective).draws(1), self.sizes.images // batch)
        draws = list(islice(cycle(list(full)), self.sizes.steps))

        def run() -> None:
            for drawn in draws:
                step(drawn)
            self.wait()

        return run

    def seconds(self, runs: dict[str, Callable[[], object]]) -> dict[str, float]:
        """Seconds of a step of each kind."""
        return {name: taken / self.sizes.steps for name, taken in fastest(runs, self.sizes.rounds).items()}


def how(step: TrainingStep) -> str:
    """How steps are taken, for a row's name."""
    return "captured" if step.captured else "kernel by kernel"


def neighbour_rows(bench: Bench) -> list[Row]:
    """LDG-AUs over LDG, at each batch size."""
    rows, sizes = [], bench.sizes
    for batch in sizes.ldg_batches:
        seconds = neighbours.seconds_of_steps(
            sizes.size, batch, sizes.rounds + 5, bench.precision, bench.device, min(sizes.images, 2048)
        )
        what = f"ResNet-50, batch {batch}, {sizes.size} px, k = {neighbours.K}"
        rows.append(neighbours.ratio_row(what, seconds, "bank"))
    return rows


def step_row(bench: Bench) -> tuple[Row, Precision]:
    """EfficientFace's step, its batch drawn from the device's images, against eager float32 on a batch that is there.

    Returns:
        The row, and the precision that was fastest.
    """
    batch, published = bench.sizes.step_batch, PublishedEfficientFace(CLASSES).to(bench.device).train()
    optimiser = torch.optim.SGD(published.parameters(), 0.01, momentum=0.9, weight_decay=4e-4)
    draws = next(bench.epochs(batch, bench.student).draws(1))
    ready = bench.views("float32").varied(bench.views("float32").stored(draws.rows), draws.crops).contiguous()
    soft = bench.target[draws.rows]

    def reference() -> None:
        for _ in range(bench.sizes.steps):
            distil_batch(published, optimiser, ready, soft)
        bench.wait()

    runs: dict[str, Callable[[], object]] = {"reference": reference}
    precisions: dict[str, Precision] = {}
    for precision, capture in COMBINATIONS:
        step = bench.step("efficientface", bench.student, precision, capture=capture)
        run = bench.several(step, batch, bench.student)
        run()
        name = f"{precision}, {how(step)}"
        runs[name], precisions[name] = run, precision
    rates = {name: batch / seconds for name, seconds in bench.seconds(runs).items()}
    best = max(precisions, key=rates.__getitem__)
    rate, peak = rates[best], rate_of_products(bench)
    achieved = 6 * MULTIPLY_ADDS * (bench.sizes.size / 224) ** 2 * rate
    name = f"EfficientFace training step, batch {batch}, {bench.sizes.size} px, {best}"
    more = {"rates": rates, "teraflops": achieved / 1e12, "of_a_big_product_s": achieved / peak}
    line = row(name, rate, 3, rates["reference"], judged="times faster", unit="images/s", **more)
    if bench.device.type == "cuda":
        line |= {"kernels": kernels(runs[best])}
    return line, precisions[best]


def rate_of_products(bench: Bench) -> float:
    """Operations a second of a big bfloat16 matrix product, which is what this device can reach at all."""
    side = 8192 if bench.device.type == "cuda" else 256
    factor = torch.randn(side, side, device=bench.device, dtype=torch.bfloat16)

    def run() -> None:
        factor @ factor
        bench.wait()

    return 2 * side**3 / fastest({"product": run}, 5)["product"]


def batches_row(bench: Bench, paths: Sequence[Path]) -> Row:
    """Views alone, drawn and made on the device, against the loader."""
    sizes, batch = bench.sizes, bench.sizes.student_batch
    loader = image_loader(paths, sizes.size, batch, bench.device)
    with_all = image_loader(paths, sizes.size, batch, bench.device, bench_workers())
    views, epochs = bench.views("bfloat16"), bench.epochs(batch, bench.student)

    def ours() -> None:
        for draws in islice(epochs.draws(1), sizes.steps):
            views.varied(views.stored(draws.rows), draws.crops)
        bench.wait()

    seconds = bench.seconds({"ours": ours})["ours"] * sizes.steps
    seen = min(sizes.steps * batch, sizes.images)
    loaders = fastest({"two": lambda: [None for _ in loader], "all": lambda: [None for _ in with_all]}, 1)
    rates = {name: len(paths) / taken for name, taken in loaders.items()}
    name = f"batches from stored images, {sizes.size} px, against {WORKERS} workers"
    more = {"reference_with_a_worker_for_each_core": rates["all"]}
    return row(name, seen / seconds, 4, rates["two"], judged="times faster", unit="images/s", **more)


def bench_workers() -> int:
    """One for each core, sixteen at most."""
    return min(16, usable_cores())


def epoch_rows(bench: Bench, paths: Sequence[Path], precision: Precision) -> tuple[list[Row], float]:
    """The student's epoch with its share of the pass that made the soft labels, and how busy the GPU is in it.

    Returns:
        The rows, and seconds of that pass, in float32 as `fer_core.train.soft_labels` makes it.
    """
    sizes, batch = bench.sizes, bench.sizes.student_batch
    asked, published = teacher(CLASSES, bench.device), PublishedEfficientFace(CLASSES).to(bench.device).train()
    optimiser = torch.optim.SGD(published.parameters(), 0.01, momentum=0.9, weight_decay=4e-4)
    loader = image_loader(paths, sizes.size, batch, bench.device)
    step, epochs = bench.step("efficientface", bench.student, precision), bench.epochs(batch, bench.student, precision)
    numbers = iter(range(1, 10**6))
    seconds = fastest(
        {
            "reference": lambda: (distil_epoch(loader, published, asked, optimiser, bench.device), bench.wait()),
            "ours": lambda: take_epoch(step, epochs, next(numbers)),
        },
        2 if bench.device.type == "cuda" else 1,
    )
    asked = asked.to(memory_format=torch.channels_last)
    views, rows = bench.views("float32"), np.arange(batch)
    predict = torch.inference_mode()(lambda: (asked(views.plain(rows)), bench.wait()))
    labels = fastest({"teacher": predict}, sizes.rounds)["teacher"] * sizes.images / batch
    rate, reference = sizes.images / (seconds["ours"] + labels / 100), len(paths) / seconds["reference"]
    name = f"student epoch, {sizes.size} px, {sizes.images:,} images, batch {batch}, {how(step)}"
    more = {"reference_images": len(paths), "seconds": seconds["ours"], "soft_labels_once": labels}
    found = [row(name, rate, 20, reference, judged="times faster", unit="images/s", **more)]
    if bench.device.type == "cuda":
        busy = busy_share(intervals(lambda: take_epoch(step, epochs, next(numbers))))
        found.append(row("GPU busy in that epoch", 100 * busy, 90, judged="at least", unit="%"))
    return found, labels


def profiled(call: Callable[[], object]) -> torch.profiler.profile:
    """The device's work during a call."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        call()
    return profile


def intervals(call: Callable[[], object]) -> list[tuple[float, float]]:
    """When each kernel or copy began and ended."""
    cuda = torch.autograd.DeviceType.CUDA  # type: ignore[attr-defined]
    return [(e.time_range.start, e.time_range.end) for e in profiled(call).events() if e.device_type == cuda]


def busy_share(spans: Iterable[tuple[float, float]]) -> float:
    """Share of the time from the first beginning to the last end in which at least one span is under way; 0 of none."""
    ordered = sorted(spans)
    if not ordered:
        return 0.0
    busy, reached = 0.0, ordered[0][0]
    for start, end in ordered:
        busy += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    return busy / (reached - ordered[0][0])


def kernels(call: Callable[[], object], count: int = 8) -> dict[str, float]:
    """The kernels that take the most of the device's time, with their shares: what bounds the step."""
    times = {event.key: event.self_device_time_total for event in profiled(call).key_averages()}
    whole = sum(times.values()) or 1.0
    largest = sorted(times, key=times.__getitem__, reverse=True)[:count]
    return {key[:80]: round(times[key] / whole, 3) for key in largest}


def table_row(bench: Bench, precision: Precision, labels: float) -> Row:
    """Minutes of the paper's table, one training after the other: epochs of whole trainings where these can be run."""
    sizes = bench.sizes
    models: dict[str, tuple[int, int, Architecture, Precision, Callable[[], Objective]]] = {
        "LDG": (100, sizes.ldg_batches[0], "resnet50", bench.precision, lambda: bench.student),
        "LDG-AUs": (35, sizes.ldg_batches[0], "resnet50", bench.precision, bench.bank),
        "EF SLL": (100, sizes.sll_batch, "efficientface", precision, lambda: bench.student),
        "EF + LDG and EF + LDG-AUs": (200, sizes.student_batch, "efficientface", precision, lambda: bench.student),
    }
    whole = can_train_whole()
    epoch = seconds_of_whole_trainings if whole else seconds_of_epochs
    seconds = {
        name: epoch(bench, architecture, objective(), batch, its_precision)
        for name, (_, batch, architecture, its_precision, objective) in models.items()
    }
    minutes = {name: SEEDS * epochs * seconds[name] / 60 for name, (epochs, *_) in models.items()}
    minutes["soft labels"] = 2 * SEEDS * labels / 60
    kind = "validation and resume files included" if whole else "epochs alone"
    name = f"the paper's table, 5 models × {SEEDS} seeds, {sizes.images:,} images, {sizes.size} px, projected, {kind}"
    more = {"minutes": minutes, "seconds_of_an_epoch": seconds}
    return row(name, sum(minutes.values()), 60, judged="at most", unit="min", **more)


def can_train_whole() -> bool:
    """Tell whether all that a whole training needs beside torch is there."""
    try:
        for name in NEEDED:
            import_module(name)
    except ModuleNotFoundError:
        return False
    return True


def seconds_of_epochs(
    bench: Bench, architecture: Architecture, objective: Objective, batch: int, precision: Precision
) -> float:
    """Seconds of an epoch's steps; the first, which captures, is left out."""
    step, epochs = bench.step(architecture, objective, precision), bench.epochs(batch, objective, precision)
    numbers = iter(range(1, 10**6))
    return fastest({"epoch": lambda: take_epoch(step, epochs, next(numbers))}, 1)["epoch"]


def seconds_of_whole_trainings(
    bench: Bench, architecture: Architecture, objective: Objective, batch: int, precision: Precision
) -> float:
    """Seconds of the fastest epoch of `fer_core.train.loop.train`, with its validation and its files.

    A tenth of the images validates, as in the paper's experiment, beside as many that train.
    """
    from fer_core.experiment import Recipe
    from fer_core.train.loop import Run, Training, train

    recipe = Recipe(
        bench.sizes.epochs, batch, 0.01, schedule="one-cycle", input_size=bench.sizes.size, precision=precision
    )
    told = Told()
    with tempfile.TemporaryDirectory() as folder:
        dataset = prepared(bench, Path(folder))
        (Path(folder) / "training").mkdir()
        run = Run(1, Path(folder) / "training", bench.device, told)
        train(Training("LDG", architecture, recipe, recipe.epochs, Augmentation(), objective), dataset, run)
    return float(np.diff(told.ends).min())


class Told:
    """Keeps when each epoch of a training ended, its files written."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def metrics(self, **values: float | int | str) -> None:
        self.ends.append(time.perf_counter())

    def note(self, text: str) -> None:
        print(text)

    def progress(self, what: str, done: int, total: int) -> None:
        """Steps are not counted."""


def prepared(bench: Bench, folder: Path) -> Any:
    """The bench's images as a dataset; a tenth validates, and a few test."""
    import pandas as pd

    from fer_core.data.dataset import EMOTIONS, Dataset, DatasetCard

    count = bench.sizes.images
    card = DatasetCard("sample", EMOTIONS[:CLASSES], "none", "", MEAN, STD, {})
    manifest = pd.DataFrame({"id": [f"face{number:05d}" for number in range(count)], "sha256": ""})
    split = np.where(np.arange(count) % 10, "train", "validation")
    split[: CLASSES + 1] = "test"
    return Dataset(card, manifest.assign(split=split, label=np.arange(count) % CLASSES), bench.stored)


def measured_device(device: torch.device) -> str:
    """Its name, for people."""
    return torch.cuda.get_device_name() if device.type == "cuda" else "a CPU"


def measure(sizes: Sizes, device: torch.device) -> Iterator[Row]:
    """All rows, each as soon as it is measured: a lent GPU may be gone before the last."""
    bench = Bench(sizes, device)
    step, precision = step_row(bench)
    yield step
    with tempfile.TemporaryDirectory() as folder:
        paths = write_files(Path(folder), bench.stored[: sizes.reference_images])
        epochs, labels = epoch_rows(bench, paths, precision)
        yield from epochs
        yield batches_row(bench, paths)
    yield from neighbour_rows(bench)
    yield table_row(bench, precision, labels)


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="tiny sizes; nothing is written")
    options = parser.parse_args()
    started, device = time.perf_counter(), choose_device("auto")
    quick = options.quick or device.type == "cpu"
    if device.type == "cpu":
        torch.set_num_threads(1)  # On so little work, threads wait for one another.
    print(f"measuring {measured_device(device)}" + (", tiny sizes: this shows that it runs, no more" if quick else ""))
    rows: list[Row] = []
    for line in measure(QUICK if quick else Sizes(), device):
        rows.append(line)
        print(f"{time.perf_counter() - started:5.0f} s  {line['name']}: {line['ours']:g} {line['unit']}", flush=True)
        if not quick:
            write_results("gpu", rows, measured_device(device))
    show(rows)


if __name__ == "__main__":
    main()
