"""Labels propagated to unlabelled faces, softened targets, and pseudo-labels: numbers by hand and by scikit-learn."""

import numpy as np
import torch
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from fer_core.graph.propagation import linear_discriminant, mixed, propagated, smoothed
from fer_core.train.self_training import confident


def test_a_propagated_label_is_the_weighted_mean_of_its_neighbours() -> None:
    labels = torch.eye(3)
    found = propagated(labels, torch.tensor([[0, 1], [2, 2]]), torch.tensor([[0.75, 0.25], [0.1, 0.1]]))
    torch.testing.assert_close(found, torch.tensor([[0.75, 0.25, 0.0], [0.0, 0.0, 1.0]]))


def test_neighbours_too_far_to_tell_apart_weigh_alike() -> None:
    found = propagated(torch.eye(2), torch.tensor([[0, 1]]), torch.zeros(1, 2))
    assert found.tolist() == [[0.5, 0.5]]
    far = propagated(torch.eye(2), torch.tensor([[0, 1]]), torch.tensor([[1e-20, 3e-20]]))
    torch.testing.assert_close(far, torch.tensor([[0.25, 0.75]]))


def test_softened_targets_sum_to_one_and_have_the_share_asked_for() -> None:
    own = torch.tensor([[0.0, 1.0, 0.0, 0.0]])
    torch.testing.assert_close(smoothed(own, 0.2), torch.tensor([[0.05, 0.85, 0.05, 0.05]]))
    neighbours = torch.tensor([[0.5, 0.5, 0.0, 0.0]])
    torch.testing.assert_close(mixed(own, neighbours, 0.4), torch.tensor([[0.2, 0.8, 0.0, 0.0]]))


def test_the_discriminant_is_scikit_learns() -> None:
    generator = np.random.default_rng(3)
    labels = np.arange(90) % 3
    vectors = 5 * generator.normal(size=(90, 4)) + labels[:, None] * np.array([5.0, 0.0, -5.0, 2.5])
    theirs = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=0.3, priors=[1 / 3] * 3)
    # theirs shrinks each class's covariance and takes the mean weighted by priors: the same for classes of one size
    theirs.fit(vectors, labels)
    weights, biases = linear_discriminant(torch.from_numpy(vectors), torch.eye(3, dtype=torch.float64)[labels], 0.3)
    ours = (torch.from_numpy(vectors) @ weights + biases).softmax(dim=1)
    np.testing.assert_allclose(ours.numpy(), theirs.predict_proba(vectors), atol=1e-6)


def test_a_class_that_nobody_labelled_is_never_predicted() -> None:
    vectors = torch.randn(20, 6, generator=torch.Generator().manual_seed(2))
    labels = torch.eye(3)[torch.arange(20) % 2]
    weights, biases = linear_discriminant(vectors, labels, 0.1)
    found = (vectors @ weights + biases).softmax(dim=1)
    assert found[:, 2].tolist() == [0.0] * 20
    assert torch.isfinite(found).all()


def test_with_one_image_a_class_the_nearest_one_is_the_likeliest() -> None:
    vectors = torch.tensor([[0.0, 0.0], [4.0, 0.0], [0.0, 3.0]])
    weights, biases = linear_discriminant(vectors, torch.eye(3), 0.3)
    others = torch.tensor([[0.5, 0.4], [3.0, 1.0], [1.0, 2.5]])
    assert (others @ weights + biases).argmax(dim=1).tolist() == [0, 1, 2]
    weights, biases = linear_discriminant(torch.ones(2, 2), torch.eye(2), 0.3)
    assert (torch.ones(1, 2) @ weights + biases).softmax(dim=1).tolist() == [[0.5, 0.5]]


def test_pseudo_labels_are_the_top_classes_of_what_the_network_is_sure_of() -> None:
    logits = torch.log(torch.tensor([[0.9, 0.05, 0.05], [0.2, 0.5, 0.3], [0.1, 0.1, 0.8]])).requires_grad_()
    labels, sure = confident(logits, 0.75)
    assert labels.tolist() == [[1, 0, 0], [0, 1, 0], [0, 0, 1]]
    assert sure.tolist() == [1, 0, 1]
    assert not labels.requires_grad
    assert not sure.requires_grad
