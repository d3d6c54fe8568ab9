"""The table's GPU column, in one command: `make bench-gpu`, or `PYTHONPATH=. python benchmarks/gpu.py`.

Needs torch, torchvision, numpy and pandas alone. Measures the neighbours' cost, EfficientFace's training step, the
student's epoch against the original's way on the same machine, how busy the GPU is, and projects the paper's whole
table from measured steps. Prints a table and writes `benchmarks/results/gpu.json`. Without a GPU it takes tiny sizes
on the CPU, which shows that it runs and no more, and writes nothing; `--quick` takes these sizes anywhere.
"""

import argparse
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path

import neighbours
import numpy as np
import torch
from inputs import CLASSES, STORED, distributions, random_links, smooth_images
from reference import WORKERS, PublishedEfficientFace, distil_batch, distil_epoch, image_loader, teacher, write_files
from resident import Plan, ResidentImages, ResidentTraining, draw_epoch, side_by_side, towards, towards_neighbours_too
from student import Student
from turns import fastest
from writing import Row, row, show, write_results

from fer_core.devices import choose_device
from fer_core.models.architectures import build
from fer_core.objectives import empty_bank

MULTIPLY_ADDS = 149.7e6
"""Of EfficientFace on an image of 224 px; forward and backward take three times as many."""
SEEDS = 5
COMBINATIONS = tuple(product(("bfloat16", "float32"), (True, False)))
"""Precision, and whether tensors are channels-last."""


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
    rounds: int = 5
    seeds: int = SEEDS
    """Trained side by side."""
    seconds_of_a_model: float = 100.0
    """As many epochs of a whole EfficientFace as fit, of its hundred."""


QUICK = Sizes(32, 16, 32, (4,), 8, 8, 4, 2, 1, 2, 0.0)


class Bench:
    """The data on the device, and what is measured of it."""

    def __init__(self, sizes: Sizes, device: torch.device) -> None:
        self.sizes, self.device = sizes, device
        self.stored = smooth_images(sizes.images)
        self.images = ResidentImages(self.stored, sizes.size, device)
        self.target = distributions(sizes.images).to(device)
        self.generator = torch.Generator().manual_seed(1)

    def plan(self, batch: int) -> Plan:
        """An epoch's draws."""
        return draw_epoch(self.sizes.images, batch, STORED, self.generator, self.device)

    def efficientface(self, batch: int, precision: str, channels_last: bool, seed: int = 1) -> ResidentTraining:
        """Ours, ready for steps."""
        model = build("efficientface", CLASSES, seed)
        first = self.plan(batch).step(0)
        return ResidentTraining(model, towards(self.target), self.images, first, precision, channels_last)

    def generator_training(self, batch: int, *, pulled: bool, seed: int = 1) -> ResidentTraining:
        """A ResNet-50, LDG or LDG-AUs with the bank, in bfloat16."""
        loss = towards(self.target)
        if pulled:
            bank = empty_bank(self.target.shape).fill_(-np.log(CLASSES)).to(self.device)
            loss = towards_neighbours_too(self.target, random_links(self.sizes.images, neighbours.K), 0.01, bank)
        first = self.plan(batch).step(0)
        return ResidentTraining(build("resnet50", CLASSES, seed), loss, self.images, first, "bfloat16", True)

    def wait(self) -> None:
        """Until the device has done what it was given."""
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def several(self, step: Callable[[Plan], object], batch: int) -> Callable[[], None]:
        """Some steps, to their end."""
        plan = self.plan(batch)

        def run() -> None:
            for number in range(self.sizes.steps):
                step(plan.step(number % len(plan.rows)))
            self.wait()

        return run

    def seconds(self, kinds: dict[str, Callable[[Plan], object]], batch: int) -> dict[str, float]:
        """Of a step of each kind."""
        runs = {name: self.several(step, batch) for name, step in kinds.items()}
        return {name: taken / self.sizes.steps for name, taken in fastest(runs, self.sizes.rounds).items()}


def neighbour_rows(bench: Bench) -> list[Row]:
    """As `fer_core.training` takes its steps, and captured with the bank on the device."""
    rows, sizes = [], bench.sizes
    for batch in sizes.ldg_batches:
        seconds = neighbours.seconds_of_steps(
            sizes.size, batch, sizes.rounds + 5, "bfloat16", bench.device, min(sizes.images, 2048)
        )
        what = f"ResNet-50, batch {batch}, {sizes.size} px, k = {neighbours.K}"
        rows += [neighbours.ratio_row(what, seconds, kind) for kind in ("bank", "batch")]
    batch = sizes.ldg_batches[0]
    plain, pulled = (bench.generator_training(batch, pulled=pulled) for pulled in (False, True))
    seconds = bench.seconds({"LDG": plain.step, "bank": pulled.step}, batch)
    name = f"the same, data on the device, {plain.how}, batch {batch}"
    return [*rows, row(name, seconds["bank"] / seconds["LDG"], 1.05, judged="at most", seconds=seconds)]


def step_row(bench: Bench) -> tuple[Row, tuple[str, bool]]:
    """EfficientFace's step, its batch drawn from the device's images, against eager float32 on a batch that is there.

    Returns:
        The row, and the precision and layout that were fastest.
    """
    batch, published = bench.sizes.step_batch, PublishedEfficientFace(CLASSES).to(bench.device).train()
    optimiser = torch.optim.SGD(published.parameters(), 0.01, momentum=0.9, weight_decay=4e-4)
    ready, soft = bench.images.views(bench.plan(batch).step(0)).contiguous(), bench.target[:batch]
    kinds: dict[str, Callable[[Plan], object]] = {
        "reference": lambda plan: distil_batch(published, optimiser, ready, soft)
    }
    trainings = {(precision, last): bench.efficientface(batch, precision, last) for precision, last in COMBINATIONS}
    names = {choice: f"{choice[0]}, {'channels last' if choice[1] else 'contiguous'}" for choice in trainings}
    kinds |= {names[choice]: training.step for choice, training in trainings.items()}
    rates = {name: batch / seconds for name, seconds in bench.seconds(kinds, batch).items()}
    best = max(trainings, key=lambda choice: rates[names[choice]])
    rate, peak = rates[names[best]], rate_of_products(bench)
    achieved = 6 * MULTIPLY_ADDS * (bench.sizes.size / 224) ** 2 * rate
    name = f"EfficientFace training step, batch {batch}, {bench.sizes.size} px, {names[best]}, {trainings[best].how}"
    more = {"rates": rates, "teraflops": achieved / 1e12, "of_a_big_product_s": achieved / peak}
    line = row(name, rate, 3, rates["reference"], judged="times faster", unit="images/s", **more)
    if bench.device.type == "cuda":
        line |= {"kernels": kernels(bench.several(trainings[best].step, batch))}
    return line, best


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
    seconds = bench.seconds({"ours": bench.images.views}, batch)["ours"]
    loaders = fastest({"two": lambda: [None for _ in loader], "all": lambda: [None for _ in with_all]}, 1)
    rates = {name: len(paths) / taken for name, taken in loaders.items()}
    name = f"batches from stored images, {sizes.size} px, against {WORKERS} workers"
    more = {"reference_with_a_worker_for_each_core": rates["all"]}
    return row(name, batch / seconds, 4, rates["two"], judged="times faster", unit="images/s", **more)


def bench_workers() -> int:
    """One for each core, sixteen at most."""
    return min(16, torch.multiprocessing.cpu_count())


def epoch_rows(bench: Bench, paths: Sequence[Path], choice: tuple[str, bool]) -> tuple[list[Row], float]:
    """The student's epoch with its share of the pass that made the soft labels, and how busy the GPU is in it.

    Returns:
        The rows, and seconds of that pass, in float32 as `fer_core.soft_labels` makes it.
    """
    sizes, batch = bench.sizes, bench.sizes.student_batch
    asked, published = teacher(CLASSES, bench.device), PublishedEfficientFace(CLASSES).to(bench.device).train()
    optimiser = torch.optim.SGD(published.parameters(), 0.01, momentum=0.9, weight_decay=4e-4)
    loader = image_loader(paths, sizes.size, sizes.step_batch, bench.device)
    training = bench.efficientface(batch, *choice)
    student = Student(bench.stored, choice[0], sizes.size, batch, bench.device)
    as_it_is = student.pass_over(student.step(bench.target))
    seconds = fastest(
        {
            "reference": lambda: (distil_epoch(loader, published, asked, optimiser, bench.device), bench.wait()),
            "ours": lambda: (training.epoch(bench.plan(batch)), bench.wait()),
            "fer_core.training": lambda: (as_it_is(), bench.wait()),
        },
        2 if bench.device.type == "cuda" else 1,
    )
    predict = torch.inference_mode()(lambda plan: asked(bench.images.views(plan)))
    labels = bench.seconds({"teacher": predict}, batch)["teacher"] * sizes.images / batch
    used = sizes.images // batch * batch
    rate, reference = used / (seconds["ours"] + labels / 100), len(paths) / seconds["reference"]
    name = f"student epoch, {sizes.size} px, {used:,} images, batch {batch}, {training.how}"
    more = {"reference_images": len(paths), "seconds": seconds["ours"], "soft_labels_once": labels}
    rows = [row(name, rate, 20, reference, judged="times faster", unit="images/s", **more)]
    now = sizes.images / (seconds["fer_core.training"] + labels / 100)
    name = "the same, step by step as fer_core.training takes it"
    rows.append(row(name, now, 20, reference, judged="times faster", unit="images/s"))
    if bench.device.type == "cuda":
        busy = busy_share(intervals(lambda: (training.epoch(bench.plan(batch)), bench.wait())))
        rows.append(row("GPU busy in that epoch", 100 * busy, 95, judged="at least", unit="%"))
    return rows, labels


def profiled(call: Callable[[], object]) -> torch.profiler.profile:
    """The device's work during a call."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        call()
    return profile


def intervals(call: Callable[[], object]) -> list[tuple[float, float]]:
    """When each kernel or copy began and ended."""
    cuda = torch.autograd.DeviceType.CUDA
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


def table_row(bench: Bench, choice: tuple[str, bool], labels: float) -> Row:
    """Minutes of the paper's table, from steps measured alone and with the seeds side by side, the faster of the two.

    What an epoch takes beside its steps, which a whole model shows, is added to all.
    """
    sizes = bench.sizes
    generators = partial(bench.generator_training, sizes.ldg_batches[0])
    students = {batch: partial(bench.efficientface, batch, *choice) for batch in (sizes.sll_batch, sizes.student_batch)}
    models: dict[str, tuple[int, int, Callable[..., ResidentTraining]]] = {
        "LDG": (100, sizes.ldg_batches[0], partial(generators, pulled=False)),
        "LDG-AUs": (35, sizes.ldg_batches[0], partial(generators, pulled=True)),
        "EF SLL": (100, sizes.sll_batch, students[sizes.sll_batch]),
        "EF + LDG and EF + LDG-AUs": (200, sizes.student_batch, students[sizes.student_batch]),
    }
    minutes, steps = {"soft labels": 2 * SEEDS * labels / 60}, {}
    for name, (epochs, batch, make) in models.items():
        trainings = [make(seed=seed) for seed in range(1, sizes.seeds + 1)]
        seconds = bench.seconds({"alone": trainings[0].step, "side by side": side_by_side(trainings)}, batch)
        steps[name] = {"alone": seconds["alone"], "side by side, a seed": seconds["side by side"] / sizes.seeds}
        minutes[name] = SEEDS * epochs * -(-sizes.images // batch) * min(steps[name].values()) / 60
    epochs, epoch = whole_model(bench, choice)
    beside = max(1.0, epoch / (sizes.images // sizes.student_batch * steps["EF + LDG and EF + LDG-AUs"]["alone"]))
    name = f"the paper's table, 5 models × {SEEDS} seeds, {sizes.images:,} images, {sizes.size} px, projected"
    more = {"minutes": minutes, "seconds_of_steps": steps, "epochs_of_a_whole_model": epochs, "beside_steps": beside}
    return row(name, beside * sum(minutes.values()), 60, judged="at most", unit="min", **more)


def whole_model(bench: Bench, choice: tuple[str, bool]) -> tuple[int, float]:
    """One EfficientFace from its first epoch on, as many of the hundred as there is time for; how many, and seconds of
    one."""
    batch, taken = bench.sizes.student_batch, 0
    training = bench.efficientface(batch, *choice)
    started = time.perf_counter()
    while taken == 0 or (time.perf_counter() - started < bench.sizes.seconds_of_a_model and taken < 100):
        training.epoch(bench.plan(batch))
        taken += 1
    return taken, (time.perf_counter() - started) / taken


def measured_device(device: torch.device) -> str:
    """Its name, for people."""
    return torch.cuda.get_device_name() if device.type == "cuda" else "a CPU"


def measure(sizes: Sizes, device: torch.device) -> list[Row]:
    """All rows."""
    torch.backends.cudnn.benchmark = True
    bench = Bench(sizes, device)
    step, choice = step_row(bench)
    with tempfile.TemporaryDirectory() as folder:
        paths = write_files(Path(folder), bench.stored[: sizes.reference_images])
        epochs, labels = epoch_rows(bench, paths, choice)
        batches = batches_row(bench, paths)
    return [*neighbour_rows(bench), *epochs, batches, step, table_row(bench, choice, labels)]


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
    rows = measure(QUICK if quick else Sizes(), device)
    show(rows)
    print(f"{time.perf_counter() - started:.0f} s")
    if not quick:
        write_results("gpu", rows, measured_device(device))


if __name__ == "__main__":
    main()
