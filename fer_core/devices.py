"""What to train on: the device, and the precision of its arithmetic. Needs torch alone."""

import platform
from contextlib import AbstractContextManager, nullcontext
from importlib.metadata import version
from typing import Literal

import torch

from fer_core.errors import TrainingError
from fer_core.losses import soft_cross_entropy
from fer_core.models.architectures import build


def choose_device(wanted: Literal["auto", "cpu", "cuda"]) -> torch.device:
    """The device to run on; `auto` is the GPU where there is one.

    Raises:
        TrainingError: a GPU is asked for and there is none.
    """
    if wanted == "cuda" and not torch.cuda.is_available():
        raise TrainingError("run.device = cuda: torch sees no GPU here; check the driver, or set run.device=cpu")
    return torch.device("cuda" if wanted != "cpu" and torch.cuda.is_available() else "cpu")


def try_device(wanted: Literal["auto", "cpu", "cuda"]) -> str:
    """Take one training step of EfficientFace, and say on what, in a line.

    Raises:
        TrainingError: a GPU is asked for and there is none.
    """
    device = choose_device(wanted)
    model = build("efficientface", 7, seed=1).to(device)
    logits = model(torch.zeros(2, 3, 64, 64, device=device))
    soft_cross_entropy(logits, torch.full_like(logits, 1 / 7)).mean().backward()  # type: ignore[no-untyped-call]
    name = torch.cuda.get_device_name() if device.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    versions = f"torch {torch.__version__} · torchvision {version('torchvision')} · Python {platform.python_version()}"
    return f"{name} · {versions}"


def mixed_precision(device: torch.device, precision: str) -> AbstractContextManager[object]:
    """Autocast to bfloat16 where the recipe says so."""
    return torch.autocast(device.type, torch.bfloat16) if precision == "bfloat16" else nullcontext()
