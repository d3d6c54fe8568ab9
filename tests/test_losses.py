"""The losses against constants computed by hand, a zero probability, a triple loop, and numerical gradients."""

import math

import pytest
import torch
from torch.autograd import gradcheck

from fer_core.train.losses import kullback_leibler, neighbour_divergence, soft_cross_entropy


def test_soft_cross_entropy_of_hand_computed_distributions() -> None:
    logits = torch.tensor([[math.log(1.0), math.log(2.0), math.log(5.0)]])  # softmax: 1/8, 2/8, 5/8
    target = torch.tensor([[0.5, 0.25, 0.25]])
    expected = 0.5 * math.log(8) + 0.25 * math.log(4) + 0.25 * math.log(8 / 5)
    assert soft_cross_entropy(logits, target).item() == pytest.approx(expected, abs=1e-6)


def test_soft_cross_entropy_of_one_hot_targets_is_cross_entropy() -> None:
    logits = torch.randn(5, 7, generator=torch.Generator().manual_seed(1))
    labels = torch.tensor([0, 3, 6, 2, 2])
    expected = torch.nn.functional.cross_entropy(logits, labels, reduction="none")
    torch.testing.assert_close(soft_cross_entropy(logits, torch.eye(7)[labels]), expected)


def test_losses_stay_finite_where_a_probability_is_zero() -> None:
    logits = torch.tensor([[1000.0, 0.0, -1000.0]], requires_grad=True)
    loss = soft_cross_entropy(logits, torch.tensor([[1.0, 0.0, 0.0]])).sum()
    loss = loss + neighbour_divergence(logits, torch.tensor([[[-1000.0, 0.0, 1000.0]]]), torch.ones(1, 1)).sum()
    (gradient,) = torch.autograd.grad(loss, logits)
    assert torch.isfinite(loss)
    assert torch.isfinite(gradient).all()


def test_losses_are_computed_in_float32_from_half_precision_logits() -> None:
    generator = torch.Generator().manual_seed(2)
    logits, others = torch.randn(2, 5, 3, generator=generator).bfloat16()
    target, others, alike = torch.eye(3)[[0, 1, 2, 0, 1]], others[:, None], torch.ones(5, 1)
    of_halves, of_floats = (
        (soft_cross_entropy(own, target), neighbour_divergence(own, theirs, alike))
        for own, theirs in ((logits, others), (logits.float(), others.float()))
    )
    torch.testing.assert_close(of_halves, of_floats, rtol=0, atol=0)


def test_kullback_leibler_by_hand() -> None:
    truth = torch.tensor([[0.5, 0.4, 0.1]])
    prediction = torch.tensor([[0.25, 0.4, 0.35]])
    expected = 0.5 * math.log(2) + 0.1 * math.log(0.1 / 0.35)
    assert kullback_leibler(truth.log(), prediction.log()).item() == pytest.approx(expected, abs=1e-6)
    assert kullback_leibler(truth.log(), truth.log()).item() == 0


def test_kullback_leibler_of_a_probability_that_underflows() -> None:
    certain = torch.tensor([[0.0, -2000.0, -3000.0]]).log_softmax(dim=1)
    assert certain.exp().tolist() == [[1.0, 0.0, 0.0]]
    assert kullback_leibler(certain, torch.full((1, 3), 1 / 3).log()).item() == pytest.approx(math.log(3))


def test_omega_equals_the_triple_loop_of_equation_1() -> None:
    generator = torch.Generator().manual_seed(3)
    images, k, classes = 5, 3, 4
    logits = torch.randn(images, classes, generator=generator)
    similarity = torch.rand(images, k, generator=generator)
    similarity[2, 1:] = 0
    neighbours = torch.randint(0, images, (images, k), generator=generator)
    f = logits.softmax(dim=1)
    omega = 0.0
    for i in range(images):
        for position in range(k):
            j = int(neighbours[i, position])
            for c in range(classes):
                omega += float(similarity[i, position] * f[j, c] * math.log(f[j, c] / f[i, c]))
    computed = neighbour_divergence(logits, logits[neighbours], similarity).sum()
    assert computed.item() == pytest.approx(omega, rel=1e-5)


def test_the_neighbours_side_has_a_gradient_only_on_request() -> None:
    generator = torch.Generator().manual_seed(4)
    logits = torch.randn(2, 3, generator=generator, requires_grad=True)
    neighbours = torch.randn(2, 1, 3, generator=generator, requires_grad=True)
    neighbour_divergence(logits, neighbours, torch.ones(2, 1)).sum().backward()
    assert neighbours.grad is None
    assert logits.grad is not None
    neighbour_divergence(logits, neighbours, torch.ones(2, 1), neighbour_gradient=True).sum().backward()
    assert neighbours.grad is not None


def test_gradients_are_those_of_finite_differences() -> None:
    generator = torch.Generator().manual_seed(5)
    logits = torch.randn(3, 4, generator=generator, dtype=torch.float64, requires_grad=True)
    neighbours = torch.randn(3, 2, 4, generator=generator, dtype=torch.float64, requires_grad=True)
    target = torch.randn(3, 4, generator=generator, dtype=torch.float64).softmax(dim=1)
    weights = torch.rand(3, 2, generator=generator, dtype=torch.float64)
    assert gradcheck(lambda x: soft_cross_entropy(x, target), (logits,))
    assert gradcheck(lambda x, y: neighbour_divergence(x, y, weights, neighbour_gradient=True), (logits, neighbours))
