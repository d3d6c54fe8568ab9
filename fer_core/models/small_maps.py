"""Convolutions of many channels and small maps as matrix products, to train where a processor convolves them slowly.

In float32 on AVX2, oneDNN computes the weights' gradient of such a convolution image by image and copies it twice into
its place: of 512 channels at 2×2 pixels a fifth of the speed of one matrix product over the batch. Where this pays is
decided by `fer_core.devices`.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, linear, pad

_LARGEST_SIDE = 14
_FEWEST_INPUTS = {(1, 1): 116, (3, 3): 256}
"""Input channels by kernel, from which the product won at every side up to the largest. The weights' gradient by oneDNN
took, timed by hand on one thread of an AMD Zen 3, AVX2, so many times as long: of a 3×3 with 512 channels 5.0 at 2 px,
2.4 at 4 and 1.7 at 7; with 256 1.7 at 3 px and 1.1 at 14; with 128 .9 at 14 px; of a 1×1 with 116 to 2,048 1.2 to 2.1.
"""


def multiply_small_maps(model: nn.Module) -> None:
    """Replace a network's convolutions of many channels by ones that multiply where the map is small.

    Parameters stay the same objects under the same names. A pass without gradients computes the same bits as before.
    """
    for name, module in list(model.named_modules()):
        if isinstance(module, nn.Conv2d) and _has_many_channels(module):
            model.set_submodule(name, _SmallMapConvolution(module))


def _has_many_channels(convolution: nn.Conv2d) -> bool:
    plain = convolution.groups == 1 and convolution.bias is None and convolution.dilation == (1, 1)
    kernel = (convolution.kernel_size[0], convolution.kernel_size[1])
    return plain and convolution.in_channels >= _FEWEST_INPUTS.get(kernel, convolution.in_channels + 1)


class _SmallMapConvolution(nn.Module):
    """A convolution, (N, C, H, W) → (N, O, H', W'), that shares the weight of the one it replaces."""

    def __init__(self, convolution: nn.Conv2d) -> None:
        super().__init__()
        self.weight = convolution.weight  # (O, C, K, K)
        self.stride = convolution.stride[0]
        assert isinstance(convolution.padding, tuple)
        self.padding = convolution.padding[0]

    def forward(self, features: Tensor) -> Tensor:
        if not torch.is_grad_enabled() or max(features.shape[2:]) > _LARGEST_SIDE:
            return conv2d(features, self.weight, None, self.stride, self.padding)
        if self.weight.shape[2] == 1 and self.stride == 1:
            pixels = features.permute(0, 2, 3, 1)  # (N, H, W, C), as it lies in memory
            return linear(pixels, self.weight.flatten(1)).permute(0, 3, 1, 2)
        convolved: Tensor = _WeightGradientByProduct.apply(  # type: ignore[no-untyped-call]
            features, self.weight, self.stride, self.padding
        )
        return convolved


class _WeightGradientByProduct(torch.autograd.Function):
    """A convolution whose weights' gradient is one matrix product over the batch's windows."""

    @staticmethod
    def forward(ctx: Any, features: Tensor, weight: Tensor, stride: int, padding: int) -> Tensor:
        ctx.save_for_backward(features, weight)
        ctx.stride, ctx.padding = stride, padding
        return conv2d(features, weight, None, stride, padding)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor, None, None]:
        features, weight = ctx.saved_tensors
        outputs, _, side, _ = weight.shape
        windows = _windows(features, side, ctx.stride, ctx.padding, gradient.shape[2:])  # (N·H'·W', K·K·C)
        of_weight = gradient.permute(0, 2, 3, 1).reshape(-1, outputs).t() @ windows  # (O, K·K·C)
        of_weight = of_weight.view(outputs, side, side, -1).permute(0, 3, 1, 2)  # (O, C, K, K), channels last
        of_features = None
        if ctx.needs_input_grad[0]:
            # nn.grad.conv2d_input would ask for it without saying that the features' channels come last.
            stride, padding = [ctx.stride] * 2, [ctx.padding] * 2
            of_features = torch.ops.aten.convolution_backward(
                gradient, features, weight, None, stride, padding, [1, 1], False, [0], 1, (True, False, False)
            )[0]
        return of_features, of_weight, None, None


def _windows(features: Tensor, side: int, stride: int, padding: int, output: torch.Size) -> Tensor:
    """Every output pixel's window of (N, C, H, W) features, (N·H'·W', K·K·C): what it is the weights' product with."""
    pixels = pad(features.permute(0, 2, 3, 1), (0, 0, padding, padding, padding, padding))  # (N, H + 2P, W + 2P, C)
    down, right = (stride * (size - 1) + 1 for size in output)
    taps = [pixels[:, y : y + down : stride, x : x + right : stride] for y in range(side) for x in range(side)]
    return torch.cat(taps, dim=3).flatten(0, 2)
