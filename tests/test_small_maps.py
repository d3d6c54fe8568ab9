"""Convolutions of small maps as matrix products: the same function and gradients, and only where they pay."""

import copy

import pytest
import torch
from torch import Tensor, nn

from fer_core.devices import Precision, Processor
from fer_core.models import Architecture, architectures
from fer_core.models.architectures import build, to_train
from fer_core.models.small_maps import multiply_small_maps

AVX2 = Processor("AVX2", bfloat16=False, cores=2)
ZEN5 = Processor("AVX-512 + bfloat16", bfloat16=True, cores=2)
SKYLAKE = Processor("AVX-512", bfloat16=False, cores=2)


def both(convolution: nn.Conv2d) -> tuple[nn.Module, nn.Module]:
    """The convolution, and one of the same weights that multiplies."""
    plain = nn.Sequential(convolution).to(torch.float64, memory_format=torch.channels_last)  # type: ignore[call-overload]
    multiplied = copy.deepcopy(plain)
    multiply_small_maps(multiplied)
    return plain, multiplied


def gradients(model: nn.Module, images: Tensor, of_output: Tensor) -> tuple[Tensor, Tensor | None, Tensor]:
    """The output, and the gradients of the images and of the weights."""
    images = images.clone(memory_format=torch.preserve_format).requires_grad_()
    output = model(images)
    (output * of_output).sum().backward()
    (weight,) = model.parameters()
    assert weight.grad is not None
    return output.detach(), images.grad, weight.grad


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize(("height", "width"), [(1, 1), (2, 2), (3, 5), (14, 7)])
@pytest.mark.parametrize(("kernel", "channels"), [(1, 116), (3, 256)])
def test_products_are_the_convolution_and_its_gradients(
    kernel: int, channels: int, height: int, width: int, stride: int
) -> None:
    torch.manual_seed(1)
    plain, multiplied = both(nn.Conv2d(channels, 24, kernel, stride, kernel // 2, bias=False))
    assert type(multiplied.get_submodule("0")) is not nn.Conv2d
    images = torch.randn(3, channels, height, width, dtype=torch.float64).to(memory_format=torch.channels_last)
    of_output = torch.randn_like(plain(images))
    expected, found = gradients(plain, images, of_output), gradients(multiplied, images, of_output)
    # Sums of up to 9 · 256 products of about 1, in whatever order: 2304 · 2⁻⁵³ · √2304 is 1.2e-11.
    torch.testing.assert_close(found, expected, rtol=0, atol=1.2e-11)


def test_the_images_of_a_first_layer_need_no_gradient() -> None:
    plain, multiplied = both(nn.Conv2d(256, 24, 3, padding=1, bias=False))
    images = torch.randn(3, 256, 2, 2, dtype=torch.float64)
    for model in (plain, multiplied):
        model(images).sum().backward()
    torch.testing.assert_close(next(multiplied.parameters()).grad, next(plain.parameters()).grad)


@pytest.mark.parametrize(
    "convolution",
    [
        nn.Conv2d(58, 58, 1, bias=False),  # few channels
        nn.Conv2d(128, 128, 3, padding=1, bias=False),
        nn.Conv2d(512, 512, 3, padding=1, groups=512, bias=False),
        nn.Conv2d(512, 512, 3, padding=2, dilation=2, bias=False),
        nn.Conv2d(512, 7, 1),  # with a bias
        nn.Conv2d(512, 7, 5, padding=2, bias=False),
    ],
)
def test_other_convolutions_stay(convolution: nn.Conv2d) -> None:
    model = nn.Sequential(convolution)
    multiply_small_maps(model)
    assert model[0] is convolution


def test_large_maps_and_passes_without_gradients_keep_their_bits() -> None:
    torch.manual_seed(1)
    plain = nn.Sequential(nn.Conv2d(256, 32, 3, padding=1, bias=False)).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    multiplied = copy.deepcopy(plain)
    multiply_small_maps(multiplied)
    large = torch.randn(2, 256, 15, 3).to(memory_format=torch.channels_last)
    assert torch.equal(multiplied(large), plain(large))
    with torch.no_grad():
        assert torch.equal(multiplied(large[:, :, :3]), plain(large[:, :, :3]))


@pytest.mark.parametrize(
    ("processor", "precision", "multiplies"),
    [(AVX2, "float32", True), (AVX2, "bfloat16", False), (ZEN5, "bfloat16", False), (SKYLAKE, "float32", False)],
)
def test_only_a_processor_that_convolves_slowly_multiplies(
    processor: Processor, precision: Precision, multiplies: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(architectures, "processor_of", lambda device: processor)
    model = to_train(build("resnet18", 7, seed=1), torch.device("cpu"), precision)
    assert (type(model.get_submodule("layer4.1.conv2")) is not nn.Conv2d) is multiplies
    assert type(model.get_submodule("layer1.0.conv1")) is nn.Conv2d


@pytest.mark.parametrize("architecture", ["efficientface", "resnet18"])
def test_a_network_keeps_its_parameters_its_names_and_its_step(
    architecture: Architecture, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = torch.device("cpu")
    monkeypatch.setattr(architectures, "processor_of", lambda device: SKYLAKE)
    plain = to_train(build(architecture, 7, seed=1).double(), device, "float32")
    monkeypatch.setattr(architectures, "processor_of", lambda device: AVX2)
    built = build(architecture, 7, seed=1).double()
    parameters = dict(built.named_parameters())
    multiplied = to_train(built, device, "float32")
    assert list(multiplied.state_dict()) == list(plain.state_dict())
    for name, parameter in multiplied.named_parameters():
        assert parameter is parameters[name]

    images = torch.randn(4, 3, 48, 48, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    for model in (plain, multiplied):
        nn.functional.cross_entropy(model(images), torch.arange(4)).backward()
    for (name, expected), found in zip(plain.named_parameters(), multiplied.parameters(), strict=True):
        torch.testing.assert_close(found.grad, expected.grad, rtol=1e-8, atol=1e-10, msg=name)
