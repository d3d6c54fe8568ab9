"""The networks of the method by name: EfficientFace, and the ResNets that serve as label distribution generator."""

from typing import get_args

import torch
from torch import nn

from fer_core.models import Architecture
from fer_core.models.efficientface import EfficientFace
from fer_core.models.torchvision_import import torchvision_models

ARCHITECTURES: tuple[str, ...] = get_args(Architecture)


def build(architecture: Architecture, classes: int, seed: int) -> nn.Module:
    """A freshly initialised network, (N, 3, S, S) normalised images → (N, classes) logits.

    Args:
        seed: of the initial weights; the global random state is left as it was.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if architecture == "efficientface":
            return EfficientFace(classes)
        resnet: nn.Module = getattr(torchvision_models(), architecture)(num_classes=classes)
        return resnet
