"""EfficientFace on one image, one thread, 224 px: torch as it comes, and exported to ONNX Runtime.

    pip install onnx==1.23.* onnxruntime==1.32.* onnxscript==0.7.*

Prints a table and writes `benchmarks/results/inference.json`.
"""

import argparse
import os
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from inputs import CLASSES
from reference import PublishedEfficientFace
from torch import nn
from turns import fastest
from writing import row, show, write_results

from fer_core.models.architectures import build
from fer_core.models.padded import padded

SIZE = 224


def exported(model: nn.Module, path: Path) -> onnxruntime.InferenceSession:
    """The network alone, its channels padded as an export pads them, for a batch of one, on one thread."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            padded(model), (torch.zeros(1, 3, SIZE, SIZE),), path, input_names=["image"], dynamo=True, verbose=False
        )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def in_torch(model: nn.Module, image: torch.Tensor) -> Callable[[], np.ndarray]:
    """Predict in eager torch."""
    return torch.inference_mode()(lambda: model(image).numpy())


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=200)
    options = parser.parse_args()
    torch.set_num_threads(1)
    model, published = build("efficientface", CLASSES, seed=1).eval(), PublishedEfficientFace(CLASSES).eval()
    published.load_state_dict(model.state_dict())
    image = torch.randn(1, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1))
    with tempfile.TemporaryDirectory() as folder:
        session = exported(model, Path(folder) / "efficientface.onnx")
        given = {"image": image.numpy()}
        kinds = {
            "reference": in_torch(published, image),
            "ours in torch": in_torch(model, image),
            "ONNX Runtime": lambda: session.run(None, given)[0],
        }
        np.testing.assert_allclose(kinds["reference"](), kinds["ONNX Runtime"](), atol=1e-4)
        seconds = fastest(kinds, options.rounds)
    milliseconds = {name: 1000 * taken for name, taken in seconds.items()}
    name = f"EfficientFace inference, batch 1, one thread, {SIZE} px"
    ours, reference = milliseconds["ONNX Runtime"], milliseconds["reference"]
    rows = [row(name, ours, 5, reference, judged="at most", unit="ms", milliseconds=milliseconds)]
    show(rows)
    if any(os.environ.get(name) for name in ("ONEDNN_MAX_CPU_ISA", "ATEN_CPU_CAPABILITY")):
        print("ONNX Runtime knows none of the variables that hold torch to a lesser processor: not written")
        return
    write_results("inference", rows)


if __name__ == "__main__":
    main()
