"""EfficientFace for runtimes that keep channels in blocks of 16: the same function, its inner widths multiples of that.

Of ShuffleNetV2's 58, 116 and 232 inner channels none is one, and a depthwise convolution that does not fit the blocks
leaves them. The channels that are added are zero and stay so: ReLU keeps them, and the next layer does not look at
them.
"""

import copy

import torch
from torch import Tensor, nn
from torch.nn.functional import pad
from torch.nn.utils.fusion import fuse_conv_bn_eval

from fer_core.models.efficientface import EfficientFace, InvertedResidual

_BLOCK = 16


def padded(model: nn.Module) -> nn.Module:
    """A copy in evaluation mode that is folded and padded where that helps; without such units, a copy."""
    copied = copy.deepcopy(model).eval()
    for unit in copied.modules():
        if isinstance(unit, InvertedResidual):
            unit.branch2 = _padded_branch(unit.branch2)
    if isinstance(copied, EfficientFace):
        _pad_stem(copied)
    return copied


@torch.no_grad()
def _pad_stem(model: EfficientFace) -> None:
    """29 channels to 32, so that the largest maps of all stay in blocks from the first convolution to stage 2."""
    first = model.stage2[0]
    assert isinstance(first, InvertedResidual)
    (stem,) = _folded(model.conv1)
    width = len(stem.weight)
    more = -width % _BLOCK
    model.conv1 = nn.Sequential(
        _convolution(_more_outputs(stem.weight, more), _more_outputs(_bias(stem), more), 2), nn.ReLU()
    )
    depthwise, pointwise = _folded(first.branch1)
    first.branch1 = nn.Sequential(
        _convolution(
            _more_outputs(depthwise.weight, more),
            _more_outputs(_bias(depthwise), more),
            depthwise.stride[0],
            width + more,
        ),
        _convolution(_more_inputs(pointwise.weight, more), _bias(pointwise)),
        nn.ReLU(),
    )
    reduced = first.branch2[0]
    assert isinstance(reduced, nn.Conv2d)
    first.branch2[0] = _convolution(_more_inputs(reduced.weight, more), _bias(reduced))
    model.add_module("local", _Unpadded(model.local, width))


class _Unpadded(nn.Module):
    """A module behind channels that were added: it is given those before them."""

    def __init__(self, module: nn.Module, channels: int) -> None:
        super().__init__()
        self.module, self.channels = module, channels

    def forward(self, features: Tensor) -> Tensor:
        given: Tensor = self.module(features[:, : self.channels])
        return given


@torch.no_grad()
def _padded_branch(branch: nn.Sequential) -> nn.Sequential:
    """Pointwise, depthwise, pointwise; each with its batch normalisation folded in."""
    first, depthwise, last = _folded(branch)
    more = -len(first.weight) % _BLOCK
    return nn.Sequential(
        _convolution(_more_outputs(first.weight, more), _more_outputs(_bias(first), more)),
        nn.ReLU(),
        _convolution(
            _more_outputs(depthwise.weight, more),
            _more_outputs(_bias(depthwise), more),
            depthwise.stride[0],
            len(first.weight) + more,
        ),
        _convolution(_more_inputs(last.weight, more), _bias(last)),
        nn.ReLU(),
    )


def _folded(layers: nn.Sequential) -> list[nn.Conv2d]:
    """The convolutions, each with the batch normalisation that follows it folded in."""
    convolutions = [layer for layer in layers if isinstance(layer, nn.Conv2d)]
    normalisations = [layer for layer in layers if isinstance(layer, nn.BatchNorm2d)]
    return [fuse_conv_bn_eval(c, n) for c, n in zip(convolutions, normalisations, strict=True)]


def _more_outputs(values: Tensor, more: int) -> Tensor:
    """A weight (outputs, inputs, side, side) or a bias (outputs,) with zeros for more outputs."""
    return pad(values, (0, 0) * (values.dim() - 1) + (0, more))


def _more_inputs(weight: Tensor, more: int) -> Tensor:
    """A weight (outputs, inputs, side, side) that does not look at more inputs."""
    return pad(weight, (0, 0, 0, 0, 0, more))


def _bias(folded: nn.Conv2d) -> Tensor:
    assert folded.bias is not None, "batch normalisation leaves one behind"
    return folded.bias


def _convolution(weight: Tensor, bias: Tensor, stride: int = 1, groups: int = 1) -> nn.Conv2d:
    outputs, inputs, side, _ = weight.shape
    made = nn.Conv2d(inputs * groups, outputs, side, stride, side // 2, groups=groups)
    made.load_state_dict({"weight": weight, "bias": bias})
    return made
