"""What bfloat16 costs or wins on this processor: training steps over the same in float32, which take turns, one thread.

    ONEDNN_MAX_CPU_ISA=AVX2 ATEN_CPU_CAPABILITY=avx2 python benchmarks/precision.py    plays a lesser processor

`fer_core.devices` decides by these figures. Prints a table and writes `benchmarks/results/precision.json`.
"""

import argparse
from collections.abc import Callable
from typing import get_args

import torch
from torch import nn
from turns import PROCESSOR, fastest_of_both
from writing import row, show, write_results

from fer_core.devices import Precision, dtype_of, keep_freed_memory, mixed_precision
from fer_core.models import Architecture
from fer_core.models.architectures import build, to_train

CASES: tuple[tuple[Architecture, int, int], ...] = (
    ("resnet18", 48, 32),
    ("resnet50", 112, 16),
    ("efficientface", 48, 32),
    ("efficientface", 64, 32),
    ("efficientface", 112, 32),
    ("efficientface", 224, 32),
)
"""Network, side of its input in pixels, batch."""
CPU = torch.device("cpu")


def stepper(model: nn.Module, size: int, batch: int, precision: Precision) -> Callable[[], None]:
    """Takes training steps on a batch that is there."""
    optimiser = torch.optim.SGD(model.parameters(), 0.01, momentum=0.9, weight_decay=4e-4)
    images = torch.randn(batch, 3, size, size).to(dtype_of(precision), memory_format=torch.channels_last)
    labels = torch.arange(batch) % 7

    def step() -> None:
        with mixed_precision(CPU, precision):
            logits = model(images)
        loss = torch.nn.functional.cross_entropy(logits.float(), labels)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()

    return step


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=4)
    rounds = parser.parse_args().rounds
    torch.set_num_threads(1)
    keep_freed_memory()
    rows = []
    for architecture, size, batch in CASES:
        models = {name: to_train(build(architecture, 7, seed=1), CPU, name) for name in get_args(Precision)}
        kinds = {name: stepper(model, size, batch, name) for name, model in models.items()}
        seconds = {name: both[PROCESSOR] for name, both in fastest_of_both(kinds, rounds).items()}
        name = f"step in bfloat16 ÷ in float32, {architecture}, batch {batch}, {size} px"
        rows.append(row(name, seconds["bfloat16"] / seconds["float32"], None, judged="at most", seconds=seconds))
    show(rows)
    write_results("precision", rows)


if __name__ == "__main__":
    main()
