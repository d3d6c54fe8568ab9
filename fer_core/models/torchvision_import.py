"""Import torchvision beside any torch, the CPU build included.

torchvision's wheel is built for CUDA; beside CPU torch its import dies with `operator torchvision::nms does
not exist`, because it registers shape functions for two operators that its C++ library was to declare.
Declaring the two is enough for models and transforms. `torchvision.io` and `torchvision.ops.nms` stay out of reach.
"""

import importlib
from functools import cache
from types import ModuleType

import torch

_SCHEMA = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"


@cache
def torchvision_models() -> ModuleType:
    """The module `torchvision.models`."""
    if not torch.version.cuda:
        _declared_operators()
    return importlib.import_module("torchvision.models")


@cache
def _declared_operators() -> torch.library.Library:
    """The declarations live as long as the library object, hence the cache."""
    library = torch.library.Library("torchvision", "FRAGMENT")  # type: ignore[no-untyped-call]
    for name in ("nms", "qnms"):
        if not hasattr(torch.ops.torchvision, name):
            library.define(f"{name}{_SCHEMA}")  # type: ignore[no-untyped-call]
    return library
