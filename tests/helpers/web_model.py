"""A stand-in for an exported model: the same interface and the same kinds of nodes, with drawn weights."""

import json
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from fer_core.data.dataset import EMOTIONS

STORED, SEEN = 48, 64


def write_model(path: Path, metadata: dict[str, str] | None = None) -> None:
    """Grey, to the stored size by antialiased bilinear, to the model's by antialiased cubic, then a linear map."""
    weights = np.random.default_rng(7).normal(0, 0.5, (len(EMOTIONS), 64)).astype(np.float32)
    constants: dict[str, np.ndarray] = {
        "grey_of_rgb": np.array([0.299, 0.587, 0.114], np.float32).reshape(1, 3, 1, 1),
        "stored_size": np.array([STORED, STORED], np.int64),
        "seen_size": np.array([SEEN, SEEN], np.int64),
        "mean": np.array(127.5, np.float32),
        "std": np.array(64.0, np.float32),
        "weights": weights,
    }
    nodes = [
        helper.make_node("Cast", ["images"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["floats"], ["channels_first"], perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["channels_first", "grey_of_rgb"], ["grey"]),
        helper.make_node("Shape", ["grey"], ["count_and_channels"], start=0, end=2),
        helper.make_node("Concat", ["count_and_channels", "stored_size"], ["to_stored"], axis=0),
        helper.make_node("Resize", ["grey", "", "", "to_stored"], ["stored"], mode="linear", antialias=1),
        helper.make_node("Round", ["stored"], ["bytes"]),
        helper.make_node("Concat", ["count_and_channels", "seen_size"], ["to_seen"], axis=0),
        helper.make_node(
            "Resize", ["bytes", "", "", "to_seen"], ["seen"], mode="cubic", antialias=1, cubic_coeff_a=-0.5
        ),
        helper.make_node("Sub", ["seen", "mean"], ["centred"]),
        helper.make_node("Div", ["centred", "std"], ["normalised"]),
        helper.make_node("AveragePool", ["normalised"], ["pooled"], kernel_shape=[8, 8], strides=[8, 8]),
        helper.make_node("Flatten", ["pooled"], ["features"]),
        helper.make_node("Gemm", ["features", "weights"], ["logits"], transB=1),
        helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1),
    ]
    graph = helper.make_graph(
        nodes,
        "stand-in",
        [helper.make_tensor_value_info("images", TensorProto.UINT8, ["N", "H", "W", 3])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["N", len(EMOTIONS)])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    helper.set_model_props(model, METADATA if metadata is None else metadata)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)


METADATA = {
    "labels": json.dumps(EMOTIONS),
    "name": "stand-in <b>for a test</b>",
    "trained_on": "Nothing: its weights are drawn.",
    "accuracy": json.dumps({"value": 0.142, "low": 0.13, "high": 0.155, "images": 3043}),
    "licence": "MIT",
    "limits": "Not for anything.",
    "input_size": str(SEEN),
    "stored_size": str(STORED),
    "temperature": "1.0",
    "fer_version": "fer 0",
}
