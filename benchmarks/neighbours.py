"""What the pull towards neighbours costs: a step of LDG-AUs over a step of LDG, ResNet-50, k = 4, side by side.

Prints a table and writes it to `benchmarks/results/neighbours.json`. The reference forwards every neighbour, as the
paper does; ours reads its last prediction from the bank.
"""

import argparse
from collections.abc import Callable

import numpy as np
import torch
from inputs import CLASSES, MEAN, STD, Augmentation, distributions, random_links, smooth_images
from turns import CLOCK, PROCESSOR, fastest_of_both
from writing import Row, row, show, write_results

from fer_core.augment import Views, on_device
from fer_core.devices import mixed_precision
from fer_core.models.architectures import build
from fer_core.objectives import (
    Batch,
    Loss,
    cross_entropy_to,
    cross_entropy_with_bank,
    cross_entropy_with_neighbours,
    empty_bank,
)

IMAGES, K, LAMBDA = 512, 4, 0.1


def losses(images: int) -> dict[str, Loss]:
    """The LDG's, the paper's with its neighbours forwarded, and ours with a bank that knows every image."""
    target, graph = distributions(images), random_links(images, K)
    bank = empty_bank(target.shape).fill_(-np.log(CLASSES))
    return {
        "LDG": cross_entropy_to(target),
        "forward": cross_entropy_with_neighbours(target, graph, LAMBDA),
        "bank": cross_entropy_with_bank(target, graph, LAMBDA, bank),
    }


def stepper(loss: Loss, views: Views, precision: str, batch: int) -> Callable[[], None]:
    """Takes a training step on a random batch, as `fer_core.training` takes it."""
    model = build("resnet50", CLASSES, seed=1).to(views.device, memory_format=torch.channels_last).train()
    optimiser = torch.optim.SGD(model.parameters(), 0.01, momentum=0.9, fused=views.device.type == "cuda")
    generator, drawn, augment = torch.Generator().manual_seed(1), np.random.default_rng(1), Augmentation()

    def step() -> None:
        rows = drawn.choice(len(views.images), batch, replace=False)
        with mixed_precision(views.device, precision):
            images = views.random(rows, augment, generator)
            logits = model(images)
            terms = loss(
                model, Batch(rows, images, logits, lambda other: views.random(other, augment, generator), generator)
            )
        minimised = torch.stack(list(terms.values())).sum(dim=0).mean()
        assert torch.isfinite(minimised)
        optimiser.zero_grad(set_to_none=True)
        minimised.backward()
        optimiser.step()
        if views.device.type == "cuda":
            torch.cuda.synchronize()

    return step


def seconds_of_steps(
    size: int, batch: int, rounds: int, precision: str, device: torch.device, images: int = IMAGES
) -> dict[str, tuple[float, float]]:
    """Of the fastest step of each kind, on the clock and of the processor; they take turns."""
    dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
    views = Views(on_device(smooth_images(images), device), MEAN, STD, size, device, dtype)
    steps = {name: stepper(loss, views, precision, batch) for name, loss in losses(images).items()}
    return fastest_of_both(steps, rounds)


def ratio_row(name: str, seconds: dict[str, tuple[float, float]], measure: int = CLOCK) -> Row:
    """A step with the bank over one without, and the paper's over the same."""
    taken = {kind: both[measure] for kind, both in seconds.items()}
    ratios = {kind: taken[kind] / taken["LDG"] for kind in ("forward", "bank")}
    name += ", of processor time" * (measure == PROCESSOR)
    threads = torch.get_num_threads()
    return row(name, ratios["bank"], 1.05, ratios["forward"], judged="at most", seconds=taken, threads=threads)


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=112, help="side of the network's input, pixels")
    parser.add_argument("--rounds", type=int, default=12, help="steps of each kind")
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="bfloat16")
    options = parser.parse_args()
    seconds = seconds_of_steps(options.size, 16, options.rounds, options.precision, torch.device("cpu"))
    name = f"LDG-AUs step ÷ LDG step, ResNet-50, batch 16, {options.size} px, {options.precision}, k = {K}"
    rows = [ratio_row(name, seconds, measure) for measure in (CLOCK, PROCESSOR)]
    show(rows)
    write_results("neighbours", rows)


if __name__ == "__main__":
    main()
