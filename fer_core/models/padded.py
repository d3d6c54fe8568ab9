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

from fer_core.models.efficientface import InvertedResidual

_BLOCK = 16


def padded(model: nn.Module) -> nn.Module:
    """A copy in evaluation mode whose units' second branches are folded and padded; without such units, a copy."""
    copied = copy.deepcopy(model).eval()
    for unit in copied.modules():
        if isinstance(unit, InvertedResidual):
            unit.branch2 = _padded_branch(unit.branch2)
    return copied


@torch.no_grad()
def _padded_branch(branch: nn.Sequential) -> nn.Sequential:
    """Pointwise, depthwise, pointwise; each with its batch normalisation folded in."""
    convolutions = [layer for layer in branch if isinstance(layer, nn.Conv2d)]
    normalisations = [layer for layer in branch if isinstance(layer, nn.BatchNorm2d)]
    folded = [fuse_conv_bn_eval(c, n) for c, n in zip(convolutions, normalisations, strict=True)]
    (first, first_bias), (depthwise, depthwise_bias), (last, last_bias) = [(c.weight, _bias(c)) for c in folded]
    more = -len(first) % _BLOCK
    stride = 2 if convolutions[1].stride == (2, 2) else 1
    return nn.Sequential(
        _convolution(pad(first, (0, 0, 0, 0, 0, 0, 0, more)), pad(first_bias, (0, more))),
        nn.ReLU(),
        _convolution(
            pad(depthwise, (0, 0, 0, 0, 0, 0, 0, more)), pad(depthwise_bias, (0, more)), stride, len(first) + more
        ),
        _convolution(pad(last, (0, 0, 0, 0, 0, more)), last_bias),
        nn.ReLU(),
    )


def _bias(folded: nn.Conv2d) -> Tensor:
    assert folded.bias is not None, "batch normalisation leaves one behind"
    return folded.bias


def _convolution(weight: Tensor, bias: Tensor, stride: int = 1, groups: int = 1) -> nn.Conv2d:
    outputs, inputs, side, _ = weight.shape
    made = nn.Conv2d(inputs * groups, outputs, side, stride, side // 2, groups=groups)
    made.load_state_dict({"weight": weight, "bias": bias})
    return made
