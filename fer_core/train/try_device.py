"""One training step on this machine's device, so that `fer doctor` can say that it works."""

import platform
from importlib.metadata import version
from typing import Literal

import torch

from fer_core.devices import choose_device, processor_of
from fer_core.models.architectures import build
from fer_core.train.losses import soft_cross_entropy


def try_device(wanted: Literal["auto", "cpu", "cuda"]) -> str:
    """Take one training step of EfficientFace, and say on what, in a line.

    Raises:
        TrainingError: a GPU is asked for and there is none.
    """
    device = choose_device(wanted)
    model = build("efficientface", 7, seed=1).to(device)
    logits = model(torch.zeros(2, 3, 64, 64, device=device))
    soft_cross_entropy(logits, torch.full_like(logits, 1 / 7)).mean().backward()  # type: ignore[no-untyped-call]
    found = processor_of(device)
    name = found.kind if device.type == "cuda" else f"CPU, {found.kind}, {torch.get_num_threads()} threads"
    versions = f"torch {torch.__version__} · torchvision {version('torchvision')} · Python {platform.python_version()}"
    return f"{name} · {versions}"
