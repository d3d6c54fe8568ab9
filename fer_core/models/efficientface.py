"""EfficientFace: ShuffleNetV2 with a local-feature extractor and a channel-spatial modulator.

References:
    Zhao, Liu & Zhou, "Robust Lightweight Facial Expression Recognition Network with Label Distribution
    Training", AAAI 2021.
    Ma, Zhang, Zheng & Sun, "ShuffleNet V2: Practical Guidelines for Efficient CNN Architecture Design", ECCV 2018.
    Park, Woo, Lee & Kweon, "BAM: Bottleneck Attention Module", BMVC 2018, for the modulator's two gates.

Shapes are given for 224×224 input. Parameter names are those of the published weights.
"""

from collections import OrderedDict
from typing import Any

import torch
from torch import Tensor, nn
from torch.compiler import is_exporting

_STAGE_REPEATS = (4, 8, 4)
_STAGE_CHANNELS = (29, 116, 232, 464, 1024)
_GATE_REDUCTION = 16
_GATE_DILATION = 4


class EfficientFace(nn.Module):
    """1,275,293 parameters and 149.7 M multiply-adds at 224×224, for 7 classes.

    Accepts any square input whose stem map, a quarter of its side, divides into quadrants of even side
    (224, 112, 96, 64, 48, …), and batches of one.
    """

    def __init__(self, num_classes: int = 7) -> None:
        super().__init__()
        stem, stage2, stage3, stage4, last = _STAGE_CHANNELS
        self.conv1 = nn.Sequential(nn.Conv2d(3, stem, 3, 2, 1, bias=False), nn.BatchNorm2d(stem), nn.ReLU(inplace=True))
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        self.stage2 = _stage(stem, stage2, _STAGE_REPEATS[0])
        self.stage3 = _stage(stage2, stage3, _STAGE_REPEATS[1])
        self.stage4 = _stage(stage3, stage4, _STAGE_REPEATS[2])
        self.local = LocalFeatureExtractor(stem, stage2)
        self.modulator = Modulator(stage2)
        self.conv5 = nn.Sequential(_Pointwise(stage4, last, 1, bias=False), nn.BatchNorm2d(last), nn.ReLU(inplace=True))
        self.fc = nn.Linear(last, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """(N, 3, S, S) normalised images → (N, num_classes) logits.

        Raises:
            ValueError: the stem map does not divide into quadrants of even side.
        """
        stem = self.maxpool(self.conv1(images))  # (N, 29, 56, 56)
        if stem.shape[-2] % 4 or stem.shape[-1] % 4:
            raise ValueError(
                "EfficientFace needs an input side whose quarter divides by 4, such as 64 or 224; "
                f"got {tuple(images.shape[-2:])}"
            )
        features = self.modulator(self.stage2(stem)) + self.local(stem)  # (N, 116, 28, 28)
        features = self.stage4(self.stage3(features))  # (N, 464, 7, 7)
        features = self.conv5(features).mean(dim=(2, 3))  # (N, 1024)
        logits: Tensor = self.fc(features)
        return logits


class InvertedResidual(nn.Module):
    """ShuffleNetV2's unit: half of the channels pass, half are convolved, and both are shuffled together."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        half = outputs // 2
        self.stride = stride
        self.branch1 = (
            nn.Sequential()
            if stride == 1
            else nn.Sequential(
                _depthwise(inputs, inputs, stride),
                nn.BatchNorm2d(inputs),
                _Pointwise(inputs, half, 1, bias=False),
                nn.BatchNorm2d(half),
                nn.ReLU(inplace=True),
            )
        )
        self.branch2 = nn.Sequential(
            _Pointwise(half if stride == 1 else inputs, half, 1, bias=False),
            nn.BatchNorm2d(half),
            nn.ReLU(inplace=True),
            _depthwise(half, half, stride),
            nn.BatchNorm2d(half),
            _Pointwise(half, half, 1, bias=False),
            nn.BatchNorm2d(half),
            nn.ReLU(inplace=True),
        )

    def forward(self, features: Tensor) -> Tensor:
        if self.stride == 1:
            passed, convolved = features.chunk(2, dim=1)
            return _interleave(passed, self.branch2(convolved))
        return _interleave(self.branch1(features), self.branch2(features))


class LocalFeatureExtractor(nn.Module):
    """Each quadrant of the stem map through depthwise convolutions of its own.

    1, 2, 3 and 4 are top-left, bottom-left, top-right and bottom-right.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        for quadrant in range(1, 5):
            self.add_module(f"conv{quadrant}_1", _depthwise(inputs, outputs, 2))
            self.add_module(f"bn{quadrant}_1", nn.BatchNorm2d(outputs))
            self.add_module(f"conv{quadrant}_2", _depthwise(outputs, outputs, 1))
            self.add_module(f"bn{quadrant}_2", nn.BatchNorm2d(outputs))

    def forward(self, stem: Tensor) -> Tensor:
        left, right = stem.chunk(2, dim=3)  # (N, 29, 56, 28) each
        columns = [self._column(left, 1, 2), self._column(right, 3, 4)]
        return torch.cat(columns, dim=3)  # (N, 116, 28, 28)

    def _column(self, half: Tensor, upper: int, lower: int) -> Tensor:
        top, bottom = half.chunk(2, dim=2)  # (N, 29, 28, 28) each
        return torch.cat((self._quadrant(top, upper), self._quadrant(bottom, lower)), dim=2)

    def _quadrant(self, features: Tensor, quadrant: int) -> Tensor:
        for layer in (1, 2):
            features = self.get_submodule(f"conv{quadrant}_{layer}")(features)
            features = self.get_submodule(f"bn{quadrant}_{layer}")(features).relu()
        return features


class ChannelGate(nn.Module):
    """Channel attention: global mean, then a bottleneck of two linear layers."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        reduced = channels // _GATE_REDUCTION
        self.gate_c = nn.Sequential(
            OrderedDict(
                gate_c_fc_0=nn.Linear(channels, reduced),
                gate_c_bn_1=_BatchNormOfVectors(reduced),
                gate_c_relu_1=nn.ReLU(),
                gate_c_fc_final=nn.Linear(reduced, channels),
            )
        )

    def forward(self, features: Tensor) -> Tensor:
        gate: Tensor = self.gate_c(features.mean(dim=(2, 3)))
        return gate[:, :, None, None]  # (N, 116, 1, 1)


class SpatialGate(nn.Module):
    """Spatial attention: a 1×1 bottleneck, two dilated convolutions, one map."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        reduced = channels // _GATE_REDUCTION
        layers: OrderedDict[str, nn.Module] = OrderedDict(
            gate_s_conv_reduce0=nn.Conv2d(channels, reduced, 1),
            gate_s_bn_reduce0=nn.BatchNorm2d(reduced),
            gate_s_relu_reduce0=nn.ReLU(),
        )
        for index in range(2):
            layers[f"gate_s_conv_di_{index}"] = nn.Conv2d(
                reduced, reduced, 3, padding=_GATE_DILATION, dilation=_GATE_DILATION
            )
            layers[f"gate_s_bn_di_{index}"] = nn.BatchNorm2d(reduced)
            layers[f"gate_s_relu_di_{index}"] = nn.ReLU()
        layers["gate_s_conv_final"] = nn.Conv2d(reduced, 1, 1)
        self.gate_s = nn.Sequential(layers)

    def forward(self, features: Tensor) -> Tensor:
        gate: Tensor = self.gate_s(features)
        return gate  # (N, 1, 28, 28)


class Modulator(nn.Module):
    """sigmoid(channel gate · spatial gate) · features."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channel_att = ChannelGate(channels)
        self.spatial_att = SpatialGate(channels)

    def forward(self, features: Tensor) -> Tensor:
        gate: Tensor = self.channel_att(features) * self.spatial_att(features)
        return gate.sigmoid() * features


class _Pointwise(nn.Conv2d):
    """A 1×1 convolution, which a GPU does as a matrix product: of 29 or 58 channels cuDNN makes padded copies first."""

    def forward(self, features: Tensor) -> Tensor:
        if features.device.type != "cuda":
            return super().forward(features)
        pixels = features.permute(0, 2, 3, 1)  # (N, H, W, C), as it lies in memory
        return nn.functional.linear(pixels, self.weight.flatten(1), self.bias).permute(0, 3, 1, 2)


class _StridedDepthwise(nn.Conv2d):
    """A strided depthwise convolution, by the way that is quickest on each device.

    Under autocast a CPU does it in float32: bfloat16 takes ten times as long backwards. A GPU has quick kernels for one
    output a channel, so a channel with several is repeated first.
    """

    def forward(self, features: Tensor) -> Tensor:
        if features.device.type == "cpu" and torch.is_autocast_enabled("cpu"):
            with torch.autocast("cpu", enabled=False):
                return super().forward(features.float()).to(features.dtype)
        if features.device.type == "cuda" and self.out_channels > self.in_channels:
            pixels = features.permute(0, 2, 3, 1).repeat_interleave(self.out_channels // self.in_channels, dim=3)
            repeated = pixels.permute(0, 3, 1, 2)
            return nn.functional.conv2d(repeated, self.weight, None, self.stride, self.padding, 1, self.out_channels)
        return super().forward(features)


class _BatchNormOfVectors(nn.BatchNorm1d):
    """Batch normalisation that, for a batch of one in training, falls back on the running statistics."""

    def forward(self, vectors: Tensor) -> Tensor:
        if self.training and len(vectors) == 1:
            return nn.functional.batch_norm(
                vectors, self.running_mean, self.running_var, self.weight, self.bias, False, 0.0, self.eps
            )
        return super().forward(vectors)


def _stage(inputs: int, outputs: int, repeats: int) -> nn.Sequential:
    units = [InvertedResidual(inputs, outputs, 2)]
    units += [InvertedResidual(outputs, outputs, 1) for _ in range(repeats - 1)]
    return nn.Sequential(*units)


def _depthwise(inputs: int, outputs: int, stride: int) -> nn.Conv2d:
    convolution = nn.Conv2d if stride == 1 else _StridedDepthwise
    return convolution(inputs, outputs, 3, stride, 1, groups=inputs, bias=False)


def _interleave(first: Tensor, second: Tensor) -> Tensor:
    """Channels in turn, which is what ShuffleNetV2's concatenation and shuffle come to, with one copy less.

    An exported network has it as one gathering of channels, which is what runtimes that keep them apart do best.
    """
    if torch.jit.is_tracing():  # type: ignore[attr-defined, no-untyped-call]
        # An index would stay on the device of the tracing, wherever the model is loaded to.
        return torch.stack((first, second), dim=2).flatten(1, 2)
    if is_exporting():
        channels = first.shape[1]
        in_turn = torch.arange(2 * channels, device=first.device).view(2, channels).t().flatten()
        return torch.cat((first, second), dim=1).index_select(1, in_turn)
    interleaved: Tensor = _Interleaved.apply(first, second)  # type: ignore[no-untyped-call]
    return interleaved


class _Interleaved(torch.autograd.Function):
    """Every second channel, each way. A gradient left with gaps takes whoever gets it next ten times as long."""

    @staticmethod
    def forward(ctx: Any, first: Tensor, second: Tensor) -> Tensor:
        assert first.dtype == second.dtype
        count, channels, height, width = first.shape
        pairs = first.new_empty(count, height, width, channels, 2)
        pairs[..., 0], pairs[..., 1] = first.permute(0, 2, 3, 1), second.permute(0, 2, 3, 1)
        return pairs.flatten(-2).permute(0, 3, 1, 2)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:
        first, second = (gradient[:, start::2].contiguous(memory_format=torch.channels_last) for start in (0, 1))
        return first, second
