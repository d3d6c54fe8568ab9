"""EfficientFace against its published counts, key names and behaviour at other sizes and at a batch of one."""

import pytest
import torch
from torch import Tensor, nn

from fer_core.models import efficientface
from fer_core.models.architectures import build
from fer_core.models.efficientface import EfficientFace, InvertedResidual, _interleave
from fer_core.models.padded import padded

PUBLISHED_KEYS = [
    "conv1.0.weight",
    "stage2.0.branch1.0.weight",
    "local.conv1_1.weight",
    "local.bn1_1.weight",
    "local.conv4_2.weight",
    "modulator.channel_att.gate_c.gate_c_fc_0.weight",
    "modulator.channel_att.gate_c.gate_c_bn_1.weight",
    "modulator.channel_att.gate_c.gate_c_fc_final.weight",
    "modulator.spatial_att.gate_s.gate_s_conv_reduce0.weight",
    "modulator.spatial_att.gate_s.gate_s_bn_reduce0.weight",
    "modulator.spatial_att.gate_s.gate_s_conv_di_0.weight",
    "modulator.spatial_att.gate_s.gate_s_bn_di_0.weight",
    "modulator.spatial_att.gate_s.gate_s_conv_di_1.weight",
    "modulator.spatial_att.gate_s.gate_s_conv_final.weight",
    "conv5.0.weight",
    "fc.weight",
]


def multiply_adds(model: nn.Module, images: Tensor) -> int:
    """Multiply-adds of convolutions and linear layers, counted from the shapes that pass through them."""
    counted = 0

    def count(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal counted
        if isinstance(module, nn.Conv2d):
            counted += output.numel() * module.weight[0].numel()
        if isinstance(module, nn.Linear):
            counted += output.numel() * module.in_features

    hooks = [module.register_forward_hook(count) for module in model.modules()]
    model(images)
    for hook in hooks:
        hook.remove()
    return counted


def test_parameters_and_multiply_adds_are_the_published() -> None:
    model = EfficientFace(num_classes=7).eval()
    assert sum(parameter.numel() for parameter in model.parameters()) == 1_275_293
    assert multiply_adds(model, torch.zeros(1, 3, 224, 224)) / 1e6 == pytest.approx(149.7, abs=0.1)


def test_names_are_those_of_the_published_weights() -> None:
    assert set(PUBLISHED_KEYS) <= EfficientFace().state_dict().keys()


@pytest.mark.parametrize("size", [224, 112, 64, 48])
def test_a_batch_of_one_is_trained_on_at_any_size(size: int) -> None:
    model = EfficientFace(num_classes=8).train()
    logits = model(torch.randn(1, 3, size, size, generator=torch.Generator().manual_seed(1)))
    assert logits.shape == (1, 8)
    assert torch.isfinite(logits).all()
    logits.sum().backward()


def test_a_side_that_has_no_quadrants_is_refused() -> None:
    with pytest.raises(ValueError, match="quarter divides by 4"):
        EfficientFace()(torch.zeros(2, 3, 72, 72))


def test_each_quadrant_has_its_own_convolutions() -> None:
    """Top-left, bottom-left, top-right, bottom-right are 1, 2, 3, 4."""
    local = EfficientFace().local.eval()
    stem = torch.randn(1, 29, 16, 16, generator=torch.Generator().manual_seed(2))
    before = local(stem)
    for quadrant, (rows, columns) in {1: (0, 0), 2: (4, 0), 3: (0, 4), 4: (4, 4)}.items():
        changed = EfficientFace().local.eval()
        changed.load_state_dict(local.state_dict())
        with torch.no_grad():
            changed.get_parameter(f"conv{quadrant}_2.weight").mul_(-1)
        differing = (changed(stem) != before).any(dim=1)[0].nonzero()
        assert len(differing)
        assert (
            (differing >= torch.tensor([rows, columns])) & (differing < torch.tensor([rows + 4, columns + 4]))
        ).all()


@pytest.mark.parametrize("architecture", ["efficientface", "resnet18", "resnet50"])
def test_initial_weights_come_from_the_seed_alone(architecture: str) -> None:
    torch.manual_seed(1)
    state = torch.random.get_rng_state()
    first, second, other = (build(architecture, 7, seed) for seed in (5, 5, 6))  # type: ignore[arg-type]
    assert torch.equal(torch.random.get_rng_state(), state)
    weights = [next(iter(model.parameters())) for model in (first, second, other)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


@pytest.mark.parametrize(("inputs", "stride"), [(8, 1), (6, 2)])
def test_the_unit_shuffles_as_the_published_one(inputs: int, stride: int) -> None:
    """Concatenated, seen as two groups, transposed: the same output and gradient to the bit."""
    torch.manual_seed(1)
    unit = InvertedResidual(inputs, 8, stride).train()
    features = torch.randn(2, inputs, 6, 6, requires_grad=True)
    ours = unit(features)
    passed, convolved = features.chunk(2, dim=1) if stride == 1 else (unit.branch1(features), features)
    joined = torch.cat((passed, unit.branch2(convolved)), dim=1)
    batch, channels, height, width = joined.shape
    published = joined.view(batch, 2, channels // 2, height, width).transpose(1, 2).reshape(joined.shape)
    torch.testing.assert_close(ours, published, atol=0, rtol=0)
    weights = torch.randn_like(ours)
    gradients = [torch.autograd.grad((out * weights).sum(), features)[0] for out in (ours, published)]
    torch.testing.assert_close(gradients[0], gradients[1], atol=0, rtol=0)


def test_what_was_shuffled_hands_its_gradient_on_without_gaps() -> None:
    """torch takes ten times as long over a gradient of every second channel as it lies."""
    halves = [torch.randn(2, 4, 3, 3).to(memory_format=torch.channels_last).requires_grad_() for _ in range(2)]
    gradient = torch.randn(2, 8, 3, 3).to(memory_format=torch.channels_last)
    for number, received in enumerate(torch.autograd.grad(_interleave(*halves), halves, gradient)):
        assert received.is_contiguous(memory_format=torch.channels_last)
        assert torch.equal(received, gradient[:, number::2])


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_five_steps_are_those_of_a_stacking_to_the_bit(precision: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Shuffled by torch's own stacking and its gradient: slower, and the same."""

    def stacked(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
        pairs = torch.stack((first.permute(0, 2, 3, 1), second.permute(0, 2, 3, 1)), dim=-1)
        return pairs.flatten(-2).permute(0, 3, 1, 2)

    def losses() -> list[float]:
        model = build("efficientface", 7, seed=1).to(memory_format=torch.channels_last).train()  # type: ignore[call-overload]
        optimiser = torch.optim.SGD(model.parameters(), 0.01, momentum=0.9)
        images = torch.randn(4, 3, 48, 48, generator=torch.Generator().manual_seed(1))
        found = []
        for _ in range(5):
            with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
                logits = model(images.to(memory_format=torch.channels_last))
                loss = nn.functional.cross_entropy(logits.float(), torch.arange(4) % 7)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            found.append(loss.item())
        return found

    ours = losses()
    monkeypatch.setattr(efficientface, "_interleave", stacked)
    assert losses() == ours


def test_twenty_steps_under_autocast_go_as_in_float32() -> None:
    """Losses of the first twenty steps, bfloat16 beside float32, from the same weights on the same images."""
    torch.manual_seed(1)
    images, labels = torch.randn(16, 3, 64, 64), torch.arange(16) % 7
    losses: dict[str, list[float]] = {}
    for precision in ("float32", "bfloat16"):
        model = build("efficientface", 7, seed=1).train()
        optimiser = torch.optim.SGD(model.parameters(), 0.01, momentum=0.9)
        losses[precision] = []
        for _ in range(20):
            with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
                loss = nn.functional.cross_entropy(model(images).float(), labels)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            losses[precision].append(loss.item())
    assert losses["float32"][-1] < 0.7 * losses["float32"][0]
    assert losses["bfloat16"] == pytest.approx(losses["float32"], abs=0.15)


def test_padded_for_runtimes_it_is_the_same_function() -> None:
    model = EfficientFace(7)
    with torch.no_grad():
        for images in torch.randn(4, 8, 3, 64, 64):
            model(images)  # so that the running statistics are not those of a new network
    model.eval()
    wide = padded(model)
    images = torch.randn(3, 3, 64, 64)
    torch.testing.assert_close(wide(images), model(images), atol=1e-5, rtol=1e-5)
    depthwise = [unit.branch2[2] for unit in wide.modules() if isinstance(unit, InvertedResidual)]
    assert {int(str(layer.groups)) % 16 for layer in depthwise} == {0}
    assert {unit.branch2[3].groups for unit in model.modules() if isinstance(unit, InvertedResidual)} == {58, 116, 232}


def test_a_resnet_has_nothing_to_pad() -> None:
    model = build("resnet18", 7, seed=1).eval()
    images = torch.randn(2, 3, 64, 64)
    assert torch.equal(padded(model)(images), model(images))
