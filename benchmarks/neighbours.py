"""What the pull towards neighbours costs: a step of LDG-AUs over a step of LDG, ResNet-50, k = 4, side by side.

Prints a table and writes it to `benchmarks/results/neighbours.json`. The reference forwards every neighbour, as the
paper does; ours reads its last prediction from the bank. Steps of each kind take turns, so that a busy machine
slows all alike.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch
from writing import row, show, write_results

from fer_core.augment import Views
from fer_core.experiment import AugmentSettings, LdgSettings
from fer_core.graph import Graph
from fer_core.devices import mixed_precision
from fer_core.models.architectures import build
from fer_core.training import Batch, Loss, cross_entropy_to, mixed_precision

IMAGES, K, BATCH, CLASSES = 512, 4, 16, 7


def random_graph(generator: np.random.Generator) -> Graph:
    """K neighbours of every image; which they are does not change what they cost."""
    neighbours = generator.integers(0, IMAGES, (IMAGES, K)).astype(np.int32)
    ones = np.ones((IMAGES, K), np.float32)
    return Graph(neighbours, ones, 0.5 * ones)


def stepper(loss: Loss, views: Views, precision: str) -> Callable[[np.ndarray], float]:
    """Takes a training step on some rows, and tells its seconds."""
    model = build("resnet50", CLASSES, seed=1).to(views.device, memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    optimiser = torch.optim.SGD(model.parameters(), 0.01, momentum=0.9)
    generator, augment = torch.Generator().manual_seed(1), AugmentSettings()

    def step(rows: np.ndarray) -> float:
        started = time.perf_counter()
        with mixed_precision(views.device, precision):
            logits = model(views.random(rows, augment, generator))
            terms = loss(model, Batch(rows, logits, lambda other: views.random(other, augment, generator), generator))
        optimiser.zero_grad(set_to_none=True)
        torch.stack(list(terms.values())).sum(dim=0).mean().backward()
        optimiser.step()
        return time.perf_counter() - started

    return step


def measure(size: int, rounds: int, precision: str) -> dict[str, list[float]]:
    """Seconds of each step of each kind, the first of each left out."""
    generator = np.random.default_rng(1)
    images = generator.integers(0, 256, (IMAGES, 100, 100, 3), dtype=np.uint8)
    views = Views(images, (0.5,) * 3, (0.25,) * 3, size, torch.device("cpu"))
    graph, target = random_graph(generator), torch.full((IMAGES, CLASSES), 1 / CLASSES)
    bank = empty_bank(target.shape).fill_(-np.log(CLASSES))
    kinds = {
        "LDG": cross_entropy_to(target),
        "forward": cross_entropy_with_neighbours(target, graph, LdgSettings(lambda_=0.1)),
        "bank": cross_entropy_with_bank(target, graph, 0.1, bank),
    }
    steps = {name: stepper(loss, views, precision) for name, loss in kinds.items()}
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(rounds + 1):
        rows = generator.choice(IMAGES, BATCH, replace=False)
        for name, step in steps.items():
            seconds[name].append(step(rows))
    return {name: values[1:] for name, values in seconds.items()}


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=112, help="side of the network's input, pixels")
    parser.add_argument("--rounds", type=int, default=12, help="steps of each kind")
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="bfloat16")
    options = parser.parse_args()
    medians = {n: statistics.median(s) for n, s in measure(options.size, options.rounds, options.precision).items()}
    forward, bank = (medians[name] / medians["LDG"] for name in ("forward", "bank"))
    name = f"LDG-AUs step ÷ LDG step, ResNet-50, {options.size} px, {options.precision}, k = {K}"
    rows = [row(name, bank, 1.05, forward, judged="at most", seconds=medians)]
    show(rows)
    write_results("neighbours", rows)


if __name__ == "__main__":
    main()
