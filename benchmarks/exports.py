"""What an export weighs, takes and knows: the checkpoint in torch, its ONNX and int8 exports, beside a ResNet-50's.

    python benchmarks/exports.py artifacts/distill/FINGERPRINT

Latency is of the whole of it, from bytes of a face to probabilities, on one thread; all take turns. The ResNet-50 has
no training behind it, so no accuracy, and takes faces of the same size. Prints a table and writes
`benchmarks/results/exports.json`.
"""

import argparse
import json
import statistics
import tempfile
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from turns import take_turns
from writing import write_results

from fer_core.export.export import export
from fer_core.export.onnx_model import OnnxModel
from fer_core.models.architectures import build
from fer_core.models.checkpoint import ModelCard, load_checkpoint, save_card, save_weights
from fer_core.models.deployed import Deployed
from fer_core.progress import JsonLines

BATCHES = (1, 32)
Run = Callable[[np.ndarray], object]


def in_torch(model: nn.Module, card: ModelCard) -> Run:
    """The checkpoint itself, eager."""
    deployed = Deployed(model, card).eval()

    def run(faces: np.ndarray) -> object:
        with torch.inference_mode():
            return deployed(torch.from_numpy(faces))

    return run


def untrained_resnet(card: ModelCard, folder: Path) -> Path:
    """A checkpoint of a ResNet-50 for the same faces."""
    folder.mkdir()
    other = replace(card, architecture="resnet50", name="ResNet-50", figures={}, history=[])
    save_weights(folder / "selected.safetensors", build("resnet50", len(card.labels), seed=0))
    save_card(folder, other)
    return folder


def candidates(checkpoint: Path, folder: Path) -> dict[str, dict[str, Any]]:
    """What is measured: how it is run, its file and its accuracy in percent."""
    found: dict[str, dict[str, Any]] = {}
    resnet = untrained_resnet(load_checkpoint(checkpoint)[1], folder / "resnet")
    for name, source in (("EfficientFace", checkpoint), ("ResNet-50", resnet)):
        model, card = load_checkpoint(source)
        accuracy = 100 * card.figures["test"]["accuracy"] if card.figures else None
        weights = source / "selected.safetensors"
        found[f"{name}, torch"] = {"run": in_torch(model, card), "file": weights, "accuracy": accuracy}
        for to in ("onnx", "int8") if card.figures else ("onnx",):
            file = export(source, to, folder / name, None, JsonLines())  # type: ignore[arg-type]
            beside = file.with_name(f"{file.name}.comparison.json")
            accuracy = json.loads(beside.read_text())["accuracy"] if beside.is_file() else None
            found[f"{name}, {to}"] = {"run": OnnxModel(file, threads=1), "file": file, "accuracy": accuracy}
    return found


def milliseconds(runs: dict[str, Run], faces: np.ndarray, rounds: int) -> dict[str, float]:
    """The median of each, taking turns."""
    kinds = {name: partial(run, faces) for name, run in runs.items()}
    turns = take_turns(kinds, rounds)
    return {name: 1000 * statistics.median(clock for clock, _ in taken) for name, taken in turns.items()}


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--rounds", type=int, default=60)
    options = parser.parse_args()
    torch.set_num_threads(1)
    _, card = load_checkpoint(options.checkpoint)
    with tempfile.TemporaryDirectory() as folder:
        found = candidates(options.checkpoint, Path(folder))
        runs = {name: what["run"] for name, what in found.items()}
        taken = {}
        for batch in BATCHES:
            side = card.stored_size or card.input_size
            faces = np.random.default_rng(0).integers(0, 256, (batch, side, side, 3), dtype=np.uint8)
            taken[batch] = milliseconds(runs, faces, max(3, options.rounds // batch))
        rows = [
            {
                "name": name,
                "input_size": card.input_size,
                "megabytes": round(what["file"].stat().st_size / 1e6, 2),
                **{f"milliseconds_batch_{batch}": round(taken[batch][name], 2) for batch in BATCHES},
                "accuracy": None if what["accuracy"] is None else round(what["accuracy"], 2),
            }
            for name, what in found.items()
        ]
    print("| | MB | ms, a face | ms, 32 faces | accuracy, % |\n| --- | --- | --- | --- | --- |")
    for row in rows:
        shown = [row[key] for key in row if key != "input_size"]
        print(f"| {' | '.join('' if value is None else str(value) for value in shown)} |")
    write_results("exports", rows)


if __name__ == "__main__":
    main()
