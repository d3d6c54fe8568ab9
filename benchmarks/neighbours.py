"""What the pull towards neighbours costs: a step of LDG-AUs over a step of LDG, ResNet-50, k = 4, side by side.

Prints a table and writes it to `benchmarks/results/neighbours.json`. The reference forwards every neighbour, as the
paper does; ours reads its last prediction from the bank.
"""

import argparse
from collections.abc import Callable

import numpy as np
import torch
from inputs import CLASSES, MEAN, STD, Augmentation, distributions, random_links, smooth_images
from turns import fastest
from writing import row, show, write_results

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
) -> dict[str, float]:
    """Of the fastest step of each kind; they take turns."""
    dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
    views = Views(on_device(smooth_images(images), device), MEAN, STD, size, device, dtype)
    steps = {name: stepper(loss, views, precision, batch) for name, loss in losses(images).items()}
    return fastest(steps, rounds)


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=112, help="side of the network's input, pixels")
    parser.add_argument("--rounds", type=int, default=12, help="steps of each kind")
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="bfloat16")
    options = parser.parse_args()
    seconds = seconds_of_steps(options.size, 16, options.rounds, options.precision, torch.device("cpu"))
    forward, bank = (seconds[name] / seconds["LDG"] for name in ("forward", "bank"))
    name = f"LDG-AUs step ÷ LDG step, ResNet-50, batch 16, {options.size} px, {options.precision}, k = {K}"
    rows = [row(name, bank, 1.05, forward, judged="at most", seconds=seconds)]
    show(rows)
    write_results("neighbours", rows)


if __name__ == "__main__":
    main()
