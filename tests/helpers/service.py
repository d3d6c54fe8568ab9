"""A service in a process of its own, around a small model whose answers depend on a face's mean colour."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import httpx
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

ROOT = Path(__file__).parents[2]
PORTRAIT = (ROOT / "openface" / "portrait.png").read_bytes()
LABELS = ("neutral", "happiness", "sadness")
STORED_SIZE = 32


def write_model(path: Path) -> Path:
    """A face's mean colour, a linear layer, softmax: an ONNX file with the metadata of an export."""
    nodes = [
        helper.make_node("Cast", ["images"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["float", "axes"], ["colour"], keepdims=0),
        helper.make_node("MatMul", ["colour", "weights"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1),
    ]
    weights = np.random.default_rng(0).normal(0, 0.02, (3, len(LABELS))).astype(np.float32)
    graph = helper.make_graph(
        nodes,
        "mean_colour",
        [helper.make_tensor_value_info("images", TensorProto.UINT8, ["N", "H", "W", 3])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["N", len(LABELS)])],
        [numpy_helper.from_array(np.array([1, 2]), "axes"), numpy_helper.from_array(weights, "weights")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    facts = {
        "name": "mean-colour",
        "seed": 1,
        "architecture": "a linear layer",
        "labels": LABELS,
        "mean": (0.5,),
        "std": (0.2,),
        "input_size": STORED_SIZE,
        "stored_size": STORED_SIZE,
        "grey": False,
        "temperature": 1.0,
        "trained_on": "nothing",
        "accuracy": {"value": 0.5, "low": 0.4, "high": 0.6, "images": 100},
        "licence": "none",
        "limits": "It knows colours, not faces.",
        "fer_version": "0",
    }
    helper.set_model_props(
        model, {name: value if isinstance(value, str) else json.dumps(value) for name, value in facts.items()}
    )
    onnx.save(model, path)
    return path


@dataclass
class Service:
    """A service that runs, and a client of it."""

    process: "subprocess.Popen[str]"
    port: int
    client: httpx.Client

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def predict(self, *files: tuple[str, bytes], **more: object) -> httpx.Response:
        return self.client.post("/predict", files=[("files", file) for file in files], **more)  # type: ignore[arg-type]

    def figure(self, name: str) -> float:
        """What `/metrics` says under a name, labels included; 0 where it says nothing."""
        lines = (line for line in self.client.get("/metrics").text.splitlines() if not line.startswith("#"))
        return {key: float(value) for key, value in (line.rsplit(" ", 1) for line in lines)}.get(name, 0.0)

    def wait_until_idle(self, seconds: float = 10) -> None:
        deadline = time.monotonic() + seconds
        while self.figure("fer_requests_held"):
            assert time.monotonic() < deadline, "a request is still held"
            time.sleep(0.05)

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=20)

    def end(self) -> int:
        """The exit code after SIGTERM."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(15)


@contextmanager
def service(model: Path, **settings: object) -> Iterator[Service]:
    """Started with FER_SERVICE_… as given, and ended."""
    given = {f"FER_SERVICE_{name.upper()}": str(value) for name, value in settings.items()}
    environment = {**os.environ, "FER_MODEL": str(model), "FER_SERVICE_PORT": "0", **given}
    command = [sys.executable, "-W", "error", "-m", "fer_core.service"]
    with subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            port = int(process.stdout.readline().rpartition(":")[2].partition("/")[0])
            with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60, trust_env=False) as client:
                yield Service(process, port, client)
        finally:
            process.kill()


def encoded(image: Image.Image, kind: str = "PNG") -> bytes:
    """An image as a file's bytes."""
    out = BytesIO()
    image.save(out, kind)
    return out.getvalue()


def plain(colour: tuple[int, int, int], side: int = 64) -> Image.Image:
    """One colour, and so no face."""
    return Image.new("RGB", (side, side), colour)


def claiming(width: int, height: int, kind: str) -> bytes:
    """A tiny file that claims to be a huge image."""
    small = bytearray(encoded(plain((9, 9, 9), 1), kind))
    if kind == "GIF":
        small[6:10] = width.to_bytes(2, "little") + height.to_bytes(2, "little")
    else:
        small[16:24] = width.to_bytes(4, "big") + height.to_bytes(4, "big")
        small[29:33] = zlib.crc32(small[12:29]).to_bytes(4, "big")
    return bytes(small)


def part(content: bytes, name: str = "files", filename: str = "a.png") -> bytes:
    """A part of a multipart body whose boundary is `edge`, without the boundary that ends it."""
    head = f'--edge\r\nContent-Disposition: form-data; name="{name}"; filename="{filename}"\r\n\r\n'
    return head.encode() + content + b"\r\n"


HEAD = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: multipart/form-data; boundary=edge\r\n"
