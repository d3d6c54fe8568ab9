"""Files in the form that the original authors published, and files that are not what they seem."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from fer_core.dataset import EMOTIONS
from fer_core.errors import CheckpointError
from fer_core.import_weights import import_weights
from fer_core.models.architectures import build
from fer_core.models.checkpoint import load_checkpoint, save_weights
from fer_core.models.published import PUBLISHED_ORDER, load_published

LABELS = EMOTIONS[:7]


def publish(path: Path, model: nn.Module, change: Callable[[dict[str, Tensor]], None] = lambda weights: None) -> Path:
    weights = {f"module.{name}": tensor.clone() for name, tensor in model.state_dict().items()}
    change(weights)
    torch.save({"epoch": 7, "state_dict": weights, "best_acc": torch.tensor(88.36), "optimizer": {}}, path)
    return path


@pytest.mark.parametrize("architecture", ["efficientface", "resnet18", "resnet50"])
def test_a_head_of_seven_is_reordered_from_their_classes_into_ours(tmp_path: Path, architecture: str) -> None:
    theirs = build(architecture, 7, seed=1).eval()  # type: ignore[arg-type]
    ours = build(architecture, 7, seed=2).eval()  # type: ignore[arg-type]
    assert load_published(publish(tmp_path / "theirs.pth.tar", theirs), ours, LABELS)
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    expected, actual = theirs(images), ours(images)
    for label in LABELS:
        torch.testing.assert_close(actual[:, LABELS.index(label)], expected[:, PUBLISHED_ORDER.index(label)])


def test_a_head_of_identities_is_replaced(tmp_path: Path) -> None:
    theirs = build("efficientface", 12_666, seed=1)
    ours = build("efficientface", 7, seed=2)
    own_head = ours.get_parameter("fc.weight").clone()
    assert not load_published(publish(tmp_path / "msceleb.pth.tar", theirs), ours, LABELS)
    assert torch.equal(ours.get_parameter("fc.weight"), own_head)
    assert torch.equal(ours.get_parameter("conv1.0.weight"), theirs.get_parameter("conv1.0.weight"))


def test_our_own_checkpoint_is_not_taken_for_theirs(tmp_path: Path) -> None:
    """Its head is in our order already, and would be permuted into no order at all."""
    save_weights(tmp_path / "selected.safetensors", build("resnet18", 7, seed=1))
    with pytest.raises(CheckpointError, match=r"selected\.safetensors: not a file that torch\.save wrote"):
        load_published(tmp_path / "selected.safetensors", build("resnet18", 7, seed=2), LABELS)


@pytest.mark.parametrize("name", ["missing.pth", "."])
def test_what_is_no_file_is_told(tmp_path: Path, name: str) -> None:
    with pytest.raises(CheckpointError, match="name a file of weights"):
        load_published(tmp_path / name, build("resnet18", 7, seed=2), LABELS)


def test_another_architecture_is_refused_by_name(tmp_path: Path) -> None:
    path = publish(tmp_path / "resnet.pth", build("resnet18", 7, seed=1))
    with pytest.raises(CheckpointError, match=r"resnet\.pth: not weights of EfficientFace"):
        load_published(path, build("efficientface", 7, seed=1), LABELS)


def test_a_missing_entry_is_refused(tmp_path: Path) -> None:
    path = publish(
        tmp_path / "cut.pth", build("efficientface", 7, seed=1), lambda w: w.pop("module.local.bn1_1.weight")
    )
    with pytest.raises(CheckpointError, match=r"1 of \d+ entries differ, local.bn1_1.weight first"):
        load_published(path, build("efficientface", 7, seed=1), LABELS)


def test_a_pickle_with_more_than_tensors_is_not_opened(tmp_path: Path) -> None:
    path = tmp_path / "evil.pth"
    torch.save({"state_dict": {"fc.weight": Path("/")}}, path)
    with pytest.raises(CheckpointError, match="not a file of tensors alone"):
        load_published(path, build("efficientface", 7, seed=1), LABELS)


def test_a_published_model_becomes_a_checkpoint_of_ours(tmp_path: Path) -> None:
    theirs = build("efficientface", 7, seed=1).eval()
    artifact = import_weights(publish(tmp_path / "theirs.pth.tar", theirs), "efficientface", tmp_path / "model")
    ours, card = load_checkpoint(artifact.path)
    assert (artifact.step, card.labels, card.input_size) == ("distill", LABELS, 224)
    assert card.mean == (0.57535914, 0.44928582, 0.40079932)
    images = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    happiness = theirs(images)[:, PUBLISHED_ORDER.index("happiness")]
    torch.testing.assert_close(ours(images)[:, card.labels.index("happiness")], happiness)


def test_weights_of_identities_are_no_model_of_emotions(tmp_path: Path) -> None:
    path = publish(tmp_path / "msceleb.pth.tar", build("resnet18", 12_666, seed=1))
    with pytest.raises(CheckpointError, match="head is not of the seven emotions"):
        import_weights(path, "resnet18", tmp_path / "model")
    assert not (tmp_path / "model").exists()
