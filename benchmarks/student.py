"""The student's epoch at 224 px and what it is made of: batches, and training steps; on a CPU, side by side.

The reference is the original's way (reference.py); ours takes views of stored bytes, soft labels made once, and
channels-last tensors, in float32 and, where the processor multiplies it by itself, in bfloat16. The reference has a
process of its own, whose memory is managed as it comes. Prints a table and writes `benchmarks/results/student.json`.
"""

import argparse
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from inputs import CLASSES, MEAN, STD, Augmentation, distributions, smooth_images
from reference import PublishedEfficientFace, distil_batch, distil_epoch, image_loader, teacher, write_files
from torch import Tensor
from turns import CLOCK, PROCESSOR, elsewhere, fastest, fastest_of_both
from writing import Row, row, show, write_results

from fer_core.data.views import Views, on_device
from fer_core.devices import Precision, dtype_of, keep_freed_memory, mixed_precision, processor_of
from fer_core.models.architectures import build, to_train
from fer_core.train.objectives import Batch, cross_entropy_to

SIZE, BATCH = 224, 64
EPOCHS = 100
"""Epochs of the paper's student: the cached soft labels of one pass of the teacher serve as many."""
CPU = torch.device("cpu")
PRECISIONS: tuple[Precision, ...] = ("float32", "bfloat16") if processor_of(CPU).bfloat16 else ("float32",)


@dataclass(frozen=True)
class Student:
    """The student's training as `fer_core.train.loop` goes about it, taken apart."""

    images: np.ndarray
    precision: Precision
    size: int = SIZE
    batch: int = BATCH
    device: torch.device = CPU

    def views(self) -> Views:
        """Views of the stored images."""
        stored = on_device(self.images, self.device)
        return Views(stored, MEAN, STD, self.size, self.device, dtype_of(self.precision))

    def pass_over(self, use: Callable[[np.ndarray, Tensor], object]) -> Callable[[], None]:
        """Hands every random batch to `use`."""
        views, generator = self.views(), torch.Generator().manual_seed(1)

        def run() -> None:
            order = torch.randperm(len(self.images), generator=generator).numpy()
            for start in range(0, len(order), self.batch):
                rows = order[start : start + self.batch]
                use(rows, views.random(rows, Augmentation(), generator))

        return run

    def step(self, target: Tensor) -> Callable[[np.ndarray, Tensor], object]:
        """Trains on a batch."""
        model = to_train(build("efficientface", CLASSES, seed=1), self.device, self.precision)
        on_cuda = self.device.type == "cuda"
        optimiser = torch.optim.SGD(model.parameters(), 0.01, momentum=0.9, weight_decay=4e-4, fused=on_cuda)
        objective = cross_entropy_to(target)

        def step(rows: np.ndarray, images: Tensor) -> None:
            with mixed_precision(self.device, self.precision):
                logits = model(images)
                terms = objective.loss(model, Batch(torch.from_numpy(rows), images, logits))
            minimised = torch.stack(list(terms.values())).sum(dim=0).mean()
            assert torch.isfinite(minimised)
            optimiser.zero_grad(set_to_none=True)
            minimised.backward()
            optimiser.step()

        return step


def batches_row(images: np.ndarray, paths: list[Path], rounds: int) -> Row:
    """Images a second, ready for the network."""
    kinds: dict[str, Callable[[], object]] = {
        precision: Student(images, precision).pass_over(lambda rows, batch: None) for precision in PRECISIONS
    }
    with elsewhere(reference_batches, paths) as reference:
        rates = {name: len(images) / taken for name, taken in fastest(kinds | {"reference": reference}, rounds).items()}
    best = max(PRECISIONS, key=rates.__getitem__)
    name = f"batches from {len(images):,} stored images, {SIZE} px, {best}"
    return row(name, rates[best], 4, rates["reference"], judged="times faster", unit="images/s", rates=rates)


def reference_batches(paths: list[Path]) -> Callable[[], object]:
    """The original's loader, asked for every batch."""
    loader = image_loader(paths, SIZE, BATCH, CPU)
    return lambda: [None for _ in loader]


def reference_step(batch: Tensor) -> Callable[[], object]:
    """The published network's training step."""
    published = PublishedEfficientFace(CLASSES).train()
    optimiser = torch.optim.SGD(published.parameters(), 0.01, momentum=0.9, weight_decay=4e-4)
    return lambda: distil_batch(published, optimiser, batch, distributions(len(batch)))


def reference_epoch(paths: list[Path]) -> Callable[[], object]:
    """The original's epoch, its teacher asked about every view."""
    generator, published = teacher(CLASSES, CPU), PublishedEfficientFace(CLASSES).train()
    optimiser = torch.optim.SGD(published.parameters(), 0.01, momentum=0.9, weight_decay=4e-4)
    loader = image_loader(paths, SIZE, BATCH, CPU)
    return lambda: distil_epoch(loader, published, generator, optimiser, CPU)


def step_rows(images: np.ndarray, rounds: int) -> list[Row]:
    """Images a second through forward, backward and update of a batch that is there; by clock and processor."""
    target, rows = distributions(len(images)), np.arange(BATCH)
    batch = torch.randn(BATCH, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1))
    kinds: dict[str, Callable[[], object]] = {}
    for precision in PRECISIONS:
        student = Student(images, precision)
        ready = student.views().random(rows, Augmentation(), torch.Generator().manual_seed(1))
        kinds[precision] = partial(student.step(target), rows, ready)
    with elsewhere(reference_step, batch) as reference:
        seconds = fastest_of_both(kinds | {"reference": reference}, rounds)
    measures = ({name: BATCH / both[measure] for name, both in seconds.items()} for measure in (CLOCK, PROCESSOR))
    found = []
    for rates, measured in zip(measures, ("", ", of processor time"), strict=True):
        best = max(PRECISIONS, key=rates.__getitem__)
        name = f"EfficientFace training step, batch {BATCH}, {SIZE} px, {best}{measured}"
        ours = rates[best]
        found.append(row(name, ours, 1.6, rates["reference"], judged="times faster", unit="images/s", rates=rates))
    return found


def epoch_row(images: np.ndarray, paths: list[Path], rounds: int) -> Row:
    """Seconds of an epoch; ours with its share of the pass in which the teacher made the soft labels, in float32."""
    generator = teacher(CLASSES, CPU)
    asked = Student(images, "float32").views().plain(np.arange(BATCH))
    kinds: dict[str, Callable[[], object]] = {
        "teacher, a batch": torch.inference_mode()(lambda: generator(asked)),
    }
    for precision in PRECISIONS:
        student = Student(images, precision)
        kinds[precision] = student.pass_over(student.step(distributions(len(images))))
    with elsewhere(reference_epoch, paths) as reference:
        seconds = fastest(kinds | {"reference": reference}, rounds)
    share = seconds["teacher, a batch"] * len(images) / BATCH / EPOCHS
    best = min(PRECISIONS, key=seconds.__getitem__)
    name = f"student epoch, {SIZE} px, {len(images):,} images, batch {BATCH}, {best}"
    more = {"seconds": seconds, "of_which_soft_labels": share}
    return row(name, seconds[best] + share, 6, seconds["reference"], judged="times faster", unit="s", **more)


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=128, help="of an epoch")
    parser.add_argument("--rounds", type=int, default=3, help="turns of each side")
    options = parser.parse_args()
    keep_freed_memory()
    images = smooth_images(options.images)
    with tempfile.TemporaryDirectory() as folder:
        paths = write_files(Path(folder), images)
        rows = [
            batches_row(images, paths, 4 * options.rounds),
            *step_rows(images, options.rounds),
            epoch_row(images, paths, options.rounds),
        ]
    show(rows)
    write_results("student", [line | {"threads": torch.get_num_threads()} for line in rows])


if __name__ == "__main__":
    main()
