"""What the pull towards neighbours costs: a step of LDG-AUs over a step of LDG, ResNet-50, k = 4, side by side.

Prints a table and writes it to `benchmarks/results/neighbours.json`. The reference forwards every neighbour, as the
paper does; ours reads its last prediction from the bank.
"""

import argparse
from collections.abc import Callable
from itertools import chain, count

import numpy as np
import torch
from inputs import CLASSES, MEAN, STD, Augmentation, distributions, random_links, smooth_images
from turns import CLOCK, PROCESSOR, fastest_of_both
from writing import Row, row, show, write_results

from fer_core.data.order import Epochs
from fer_core.data.views import Views, on_device
from fer_core.devices import Precision, choose_precision, dtype_of, processor_of
from fer_core.models.architectures import build, to_train
from fer_core.train.objectives import (
    Objective,
    cross_entropy_to,
    cross_entropy_with_bank,
    cross_entropy_with_neighbours,
)
from fer_core.train.step import TrainingStep

IMAGES, K, LAMBDA = 512, 4, 0.1


def ways(images: int, device: torch.device) -> dict[str, Objective]:
    """The LDG's, the paper's with its neighbours forwarded, and ours; a bank knows every image already."""
    target, graph = distributions(images).to(device), random_links(images, K)
    bank = cross_entropy_with_bank(target, graph, LAMBDA)
    bank.memory["bank"].fill_(-np.log(CLASSES))
    return {
        "LDG": cross_entropy_to(target),
        "forward": cross_entropy_with_neighbours(target, graph, LAMBDA),
        "bank": bank,
    }


def stepper(objective: Objective, views: Views, precision: Precision, batch: int) -> Callable[[], None]:
    """Takes a training step on the next full batch, to its end."""
    model = to_train(build("resnet50", CLASSES, seed=1), views.device, precision)
    on_gpu = views.device.type == "cuda"
    optimiser = torch.optim.SGD(model.parameters(), 0.01, momentum=0.9, fused=on_gpu)
    schedule = torch.optim.lr_scheduler.ConstantLR(optimiser, factor=1.0)
    rows = np.arange(len(views.images) // batch * batch)
    labels = torch.zeros(len(views.images), dtype=torch.long, device=views.device)
    step = TrainingStep(model, optimiser, schedule, objective, views, labels, precision, capture=on_gpu)
    epochs = Epochs(rows, batch, views, Augmentation(), objective.companions, 1, 10**6)
    draws = chain.from_iterable(epochs.draws(epoch) for epoch in count(1))
    return lambda: float(step(next(draws))[-1]) and None


def seconds_of_steps(
    size: int, batch: int, rounds: int, precision: Precision, device: torch.device, images: int = IMAGES
) -> dict[str, tuple[float, float]]:
    """Seconds of the fastest step of each kind, on the clock and of the processor; they take turns."""
    views = Views(on_device(smooth_images(images), device), MEAN, STD, size, device, dtype_of(precision))
    steps = {name: stepper(way, views, precision, batch) for name, way in ways(images, device).items()}
    return fastest_of_both(steps, rounds)


def ratio_row(what: str, seconds: dict[str, tuple[float, float]], kind: str, measure: int = CLOCK) -> Row:
    """A step of LDG-AUs of a kind over one of LDG, beside the paper's over the same."""
    taken = {way: both[measure] for way, both in seconds.items()}
    name = f"LDG-AUs step ÷ LDG step, neighbours = {kind}, {what}" + ", of processor time" * (measure == PROCESSOR)
    ours, reference = (taken[way] / taken["LDG"] for way in (kind, "forward"))
    return row(name, ours, 1.05, reference, judged="at most", seconds=taken, threads=torch.get_num_threads())


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=112, help="side of the network's input, pixels")
    parser.add_argument("--rounds", type=int, default=12, help="steps of each kind")
    parser.add_argument("--precision", choices=("auto", "float32", "bfloat16"), default="auto")
    options = parser.parse_args()
    cpu = torch.device("cpu")
    precision = choose_precision(options.precision, "resnet50", options.size, processor_of(cpu))
    torch.set_num_threads(1)  # Two wait for each other less evenly than what is to be told apart.
    seconds = seconds_of_steps(options.size, 16, options.rounds, precision, cpu)
    what = f"ResNet-50, batch 16, {options.size} px, {precision}, k = {K}"
    rows = [ratio_row(what, seconds, "bank", measure) for measure in (CLOCK, PROCESSOR)]
    show(rows)
    write_results("neighbours", rows)


if __name__ == "__main__":
    main()
