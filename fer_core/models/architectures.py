"""The networks of the method by name: EfficientFace, and the ResNets that serve as label distribution generator."""

from typing import get_args

import torch
from torch import nn

from fer_core.devices import Precision, multiplies_faster_than_it_convolves, processor_of
from fer_core.models import Architecture
from fer_core.models.efficientface import EfficientFace
from fer_core.models.small_maps import multiply_small_maps
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


def to_train(model: nn.Module, device: torch.device, precision: Precision) -> nn.Module:
    """The network on its device, in training mode, laid out for quick steps there; its parameters keep their names."""
    model = model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    if multiplies_faster_than_it_convolves(processor_of(device), precision):
        multiply_small_maps(model)
    return model.train()
