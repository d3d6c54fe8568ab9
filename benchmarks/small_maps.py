"""What matrix products win over convolutions of small maps on this processor: float32 training steps, one thread.

    ONEDNN_MAX_CPU_ISA=AVX2 ATEN_CPU_CAPABILITY=avx2 python benchmarks/small_maps.py    plays a lesser processor

`fer_core.devices` decides by these figures. Prints a table and writes `benchmarks/results/small_maps.json`.
"""

import argparse

import torch
from precision import CASES, stepper
from torch import nn
from turns import CLOCK, fastest_of_both
from writing import row, show, write_results

from fer_core.devices import keep_freed_memory
from fer_core.models import Architecture
from fer_core.models.architectures import build
from fer_core.models.small_maps import multiply_small_maps


def network(architecture: Architecture, *, products: bool) -> nn.Module:
    """A network in training that convolves everything, or multiplies where maps are small."""
    model = build(architecture, 7, seed=1).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if products:
        multiply_small_maps(model)
    return model.train()


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=8)
    rounds = parser.parse_args().rounds
    torch.set_num_threads(1)
    keep_freed_memory()
    rows = []
    for architecture, size, batch in CASES:
        kinds = {
            way: stepper(network(architecture, products=way == "products"), size, batch, "float32")
            for way in ("convolutions", "products")
        }
        seconds = {way: both[CLOCK] for way, both in fastest_of_both(kinds, rounds).items()}
        name = f"step with products of small maps, {architecture}, batch {batch}, {size} px"
        rows.append(row(name, seconds["products"], None, seconds["convolutions"], judged="times faster", unit="s"))
    show(rows)
    write_results("small_maps", rows)


if __name__ == "__main__":
    main()
