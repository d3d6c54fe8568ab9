"""Files in the form that the original authors published, and files that are not what they seem."""

import functools
import io
import os
import pickle
import subprocess
import sys
import zipfile
from collections import defaultdict, deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fer_core.data.dataset import EMOTIONS
from fer_core.errors import CheckpointError
from fer_core.experiment import load_experiment
from fer_core.models import Architecture
from fer_core.models.architectures import build
from fer_core.models.checkpoint import load_checkpoint, save_weights
from fer_core.models.published import PUBLISHED_ORDER, TrainedOn, load_published, read_published
from fer_core.train.import_weights import import_weights

ROOT = Path(__file__).parent.parent
LABELS = EMOTIONS[:7]
AUTHORS_SCRIPT = '''
"""Saves a checkpoint as the authors' main.py does, its RecorderMeter in __main__ included."""
import sys
import numpy as np
import torch
from fer_core.models.architectures import build

class RecorderMeter(object):
    def __init__(self, total_epoch):
        self.total_epoch = total_epoch
        self.epoch_losses = np.zeros((total_epoch, 2), dtype=np.float32)

model = torch.nn.DataParallel(build("resnet18", 7, seed=1))
optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
images = torch.zeros(2, 3, 64, 64)
model(images).sum().backward()
optimizer.step()
state = {"epoch": 7, "state_dict": model.state_dict(), "best_acc": torch.tensor(88.36),
         "optimizer": optimizer.state_dict(), "recorder": RecorderMeter(100)}
torch.save(state, "zip.pth.tar")
torch.save(state, "legacy.pth.tar", _use_new_zipfile_serialization=False)
torch.save(model.module.fc.state_dict(), "head.pth")
'''


def publish(path: Path, model: nn.Module, change: Callable[[dict[str, Tensor]], object] = lambda weights: None) -> Path:
    weights = {f"module.{name}": tensor.clone() for name, tensor in model.state_dict().items()}
    change(weights)
    torch.save({"epoch": 7, "state_dict": weights, "best_acc": torch.tensor(88.36), "optimizer": {}}, path)
    return path


def fer(*arguments: str | Path) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "fer_core", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("architecture", ["efficientface", "resnet18", "resnet50"])
def test_a_head_of_seven_is_reordered_from_their_classes_into_ours(tmp_path: Path, architecture: Architecture) -> None:
    theirs, ours = (build(architecture, 7, seed=seed).eval() for seed in (1, 2))
    assert load_published(publish(tmp_path / "theirs.pth.tar", theirs), ours, LABELS)
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    expected, actual = theirs(images), ours(images)
    for label in LABELS:
        torch.testing.assert_close(actual[:, LABELS.index(label)], expected[:, PUBLISHED_ORDER.index(label)])


def test_weights_without_counts_of_batches_are_whole(tmp_path: Path) -> None:
    def forget(weights: dict[str, Tensor]) -> None:
        for name in [name for name in weights if name.endswith("num_batches_tracked")]:
            del weights[name]

    theirs, ours = (build("efficientface", 7, seed=seed).eval() for seed in (1, 2))
    assert load_published(publish(tmp_path / "theirs.pth.tar", theirs, forget), ours, PUBLISHED_ORDER[:7])
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(ours(images), theirs(images))


def save_as(path: Path, protocol: int, zipped: bool) -> Path:
    content = {"state_dict": build("efficientface", 7, seed=1).state_dict()}
    torch.save(content, path, pickle_protocol=protocol, _use_new_zipfile_serialization=zipped)
    return path


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("protocol", [2, 3])
def test_both_formats_are_read_in_the_older_protocols(tmp_path: Path, protocol: int, zipped: bool) -> None:
    weights, _ = read_published(save_as(tmp_path / "theirs.pth", protocol, zipped))
    for name, tensor in build("efficientface", 7, seed=1).state_dict().items():
        torch.testing.assert_close(weights[name], tensor)


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("protocol", [4, 5])
def test_a_newer_pickle_is_refused_with_the_way_to_write_it_again(tmp_path: Path, protocol: int, zipped: bool) -> None:
    path = save_as(tmp_path / "theirs.pth", protocol, zipped)
    with pytest.raises(CheckpointError, match=rf"pickle protocol {protocol}.*torch\.save\(torch\.load\("):
        read_published(path)


def test_a_head_of_identities_is_replaced(tmp_path: Path) -> None:
    theirs = build("efficientface", 12_666, seed=1)
    ours = build("efficientface", 7, seed=2)
    own_head = ours.get_parameter("fc.weight").clone()
    assert not load_published(publish(tmp_path / "msceleb.pth.tar", theirs), ours, LABELS)
    assert torch.equal(ours.get_parameter("fc.weight"), own_head)
    assert torch.equal(ours.get_parameter("conv1.0.weight"), theirs.get_parameter("conv1.0.weight"))


def test_what_the_authors_script_saved_is_imported_with_its_class_that_nobody_has(tmp_path: Path) -> None:
    """Their published ResNets hold a RecorderMeter of a `__main__` that is not ours, numpy arrays in it."""
    (tmp_path / "main.py").write_text(AUTHORS_SCRIPT, encoding="utf-8")
    subprocess.run([sys.executable, "main.py"], cwd=tmp_path, check=True, env=os.environ | {"PYTHONPATH": str(ROOT)})
    done = fer("import-weights", tmp_path / "zip.pth.tar", "--architecture", "resnet18", "--out", tmp_path / "model")
    assert done.returncode == 0, done.stderr
    assert "taken as trained on RAF-DB: 7 classes" in done.stderr
    imported, _ = load_checkpoint(tmp_path / "model")
    legacy = build("resnet18", 7, seed=2)
    assert load_published(tmp_path / "legacy.pth.tar", legacy, LABELS)
    head = torch.load(tmp_path / "head.pth", weights_only=True)["weight"]
    for model in (imported, legacy):
        for label in LABELS:
            row = model.get_parameter("fc.weight")[LABELS.index(label)]
            assert torch.equal(row, head[PUBLISHED_ORDER.index(label)])


class Hostile:
    """Pickles as a call."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self.call


class OfItsOwn(dict[str, object]):
    """A class of the file's own that is filled after it is made."""


def hostile_calls(witness: Path) -> dict[str, Any]:
    touch = f"touch {witness}"
    return {
        "os.system": Hostile(os.system, touch),
        "eval": Hostile(eval, f"open({str(witness)!r}, 'w')"),
        "exec": Hostile(exec, f"open({str(witness)!r}, 'w')"),
        "open": Hostile(open, str(witness), "w"),
        "subprocess": Hostile(subprocess.check_call, ["touch", str(witness)]),
        "getattr": Hostile(getattr, "", "format"),
        "numpy": Hostile(np.save, str(witness), np.zeros(1)),
        "torch.save": Hostile(torch.save, {}, str(witness)),
        "torch.load": Hostile(torch.load, str(witness)),
        "import": Hostile(__import__, "antigravity"),
        "its own dict": OfItsOwn(a=1),
    }


@pytest.mark.parametrize("form", ["zip", "legacy"])
@pytest.mark.parametrize("what", list(hostile_calls(Path())))
@pytest.mark.parametrize("where", ["recorder", "state_dict"])
def test_nothing_of_a_file_is_run(tmp_path: Path, what: str, where: str, form: str) -> None:
    """Beside the weights a call is an inert stand-in, or refused; among them it is refused in one line."""
    witness = tmp_path / "witness"
    weights: dict[str, Any] = dict(build("efficientface", 7, seed=1).state_dict())
    content: dict[str, Any] = {"state_dict": weights}
    (content if where == "recorder" else weights)["evil"] = hostile_calls(witness)[what]
    path = tmp_path / "evil.pth.tar"
    torch.save(content, path, _use_new_zipfile_serialization=form == "zip")
    before = set(sys.modules)
    refused = ""
    try:
        load_published(path, build("efficientface", 7, seed=2), LABELS)
    except CheckpointError as error:
        refused = str(error)
    assert refused or where == "recorder"
    assert not refused or (refused.startswith(f"{path}: ") and "\n" not in refused)
    assert not witness.exists()
    assert "antigravity" not in set(sys.modules) - before


class OfLists(list[object]):
    """A list of a training script's own."""


class ByMethod:
    """Made anew by a method of its own."""

    def __reduce__(self) -> tuple[object, ...]:
        return ByMethod.make, (1,), {"made": 1}

    @staticmethod
    def make(number: int) -> "ByMethod":
        raise AssertionError("nothing of a file is run")


@pytest.mark.parametrize("form", ["zip", "legacy"])
@pytest.mark.parametrize(
    "beside",
    [
        {"cfg": OfItsOwn(a=OfItsOwn(b=[1]), c=2)},
        {"log": OfLists([1, OfLists([2])])},
        {"queue": deque([1, 2]), "counts": defaultdict(int, a=1)},
        {"meter": ByMethod()},
        {"step": functools.partial(print, 1), "names": frozenset("ab")},
    ],
)
def test_a_training_scripts_own_classes_stand_beside_the_weights(
    tmp_path: Path, beside: dict[str, object], form: str
) -> None:
    theirs = build("efficientface", 7, seed=1)
    content = {"state_dict": theirs.state_dict(), **beside}
    torch.save(content, tmp_path / "model.pth", _use_new_zipfile_serialization=form == "zip")
    ours = build("efficientface", 7, seed=2)
    assert load_published(tmp_path / "model.pth", ours, LABELS)
    assert torch.equal(ours.get_parameter("conv1.0.weight"), theirs.get_parameter("conv1.0.weight"))


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "model.pth")
    with pytest.raises(CheckpointError, match="not a file; name a file of weights"):
        read_published(tmp_path / "model.pth")


def test_a_stand_in_is_forgotten_after_the_file(tmp_path: Path) -> None:
    torch.save(
        {"state_dict": build("efficientface", 7, seed=1).state_dict(), "path": Path("/")}, tmp_path / "model.pth"
    )
    load_published(tmp_path / "model.pth", build("efficientface", 7, seed=2), LABELS)
    with pytest.raises(pickle.UnpicklingError):
        torch.load(tmp_path / "model.pth", weights_only=True)


@pytest.mark.parametrize("ending", [".pth", ".pt", ".tar", ".pth.tar", ""])
@pytest.mark.parametrize("legacy", [False, True])
def test_a_file_is_read_whatever_its_ending(tmp_path: Path, ending: str, legacy: bool) -> None:
    theirs = build("efficientface", 7, seed=1)
    path = tmp_path / f"weights{ending}"
    torch.save(theirs.state_dict(), path, _use_new_zipfile_serialization=not legacy)
    assert load_published(path, build("efficientface", 7, seed=2), LABELS)


@pytest.mark.parametrize("key", ["model", "net", "model_state_dict", "ema"])
def test_weights_are_found_under_any_name_and_wrapped_twice(tmp_path: Path, key: str) -> None:
    theirs = build("efficientface", 7, seed=1)
    weights = {f"module.module.{name}": tensor for name, tensor in theirs.state_dict().items()}
    torch.save({"epoch": 3, key: weights, "optimizer": {"state": {}, "param_groups": []}}, tmp_path / "own.pth")
    ours = build("efficientface", 7, seed=2)
    assert load_published(tmp_path / "own.pth", ours, LABELS)
    assert torch.equal(ours.get_parameter("conv1.0.weight"), theirs.get_parameter("conv1.0.weight"))


@pytest.mark.parametrize(
    "before",
    ["_orig_mod.", "_orig_mod.module.", "module._orig_mod.", "model.", "model._orig_mod.", "_orig_mod.net.backbone."],
)
def test_what_wrappers_put_before_names_is_no_part_of_them(tmp_path: Path, before: str) -> None:
    """torch.compile's, and the attribute of a LightningModule or of any other class that holds the network."""
    theirs = build("resnet18", 7, seed=1)
    weights = {f"{before}{name}": tensor for name, tensor in theirs.state_dict().items()}
    torch.save({"epoch": 3, "state_dict": weights, "hyper_parameters": {"lr": 0.1}}, tmp_path / "own.ckpt")
    ours = build("resnet18", 7, seed=2)
    assert load_published(tmp_path / "own.ckpt", ours, LABELS)
    assert torch.equal(ours.get_parameter("conv1.weight"), theirs.get_parameter("conv1.weight"))


@pytest.mark.parametrize(("one", "other"), [("state_dict", "state_dict_ema"), ("model", "model_ema")])
def test_of_two_sets_of_weights_none_is_taken_without_a_word(tmp_path: Path, one: str, other: str) -> None:
    weights, mean = (build("resnet18", 7, seed=seed).state_dict() for seed in (1, 2))
    wrapped = {f"module.{name}": tensor for name, tensor in mean.items()}
    torch.save({"epoch": 3, one: weights, other: wrapped, "optimizer": {"state": {}}}, tmp_path / "own.pth")
    with pytest.raises(CheckpointError, match=rf"several weights of one network \({one}, {other}\); save those"):
        load_published(tmp_path / "own.pth", build("resnet18", 7, seed=3), LABELS)


def test_why_a_file_is_not_opened_is_said_in_plain_words(tmp_path: Path) -> None:
    weights = build("efficientface", 7, seed=1).state_dict()
    whole = torch.nn.Linear(1, 1)
    torch.save({"state_dict": weights, "model": whole}, tmp_path / "own.pth", _use_new_zipfile_serialization=False)
    with pytest.raises(CheckpointError, match=r"not opened \(Only persistent_load of storage") as refused:
        load_published(tmp_path / "own.pth", build("efficientface", 7, seed=2), LABELS)
    assert str(refused.value).isprintable()


def test_our_own_checkpoint_is_not_taken_for_theirs(tmp_path: Path) -> None:
    """Its head is in our order already, and would be permuted into no order at all."""
    path = tmp_path / "selected.safetensors"
    save_weights(path, build("resnet18", 7, seed=1))
    header, tensors = path.read_bytes()[8:].partition(b"}}")[::2]
    # A header whose length begins with the byte that a pickle begins with.
    for length in (len(header) + 2, (len(header) + 2 + 0x1FF) // 0x100 * 0x100 + 0x80):
        path.write_bytes(length.to_bytes(8, "little") + (header + b"}}").ljust(length) + tensors)
        with pytest.raises(CheckpointError, match=r"^\S+selected\.safetensors: not a file that torch\.save wrote"):
            load_published(path, build("resnet18", 7, seed=2), LABELS)


@pytest.mark.parametrize("keep", [0, 1, 100, 5_000, 1_000_000])
@pytest.mark.parametrize("legacy", [False, True])
def test_a_file_that_is_cut_short_is_refused_in_one_line(tmp_path: Path, keep: int, legacy: bool) -> None:
    whole = io.BytesIO()
    torch.save(
        {"state_dict": build("efficientface", 7, seed=1).state_dict()}, whole, _use_new_zipfile_serialization=not legacy
    )
    path = tmp_path / "cut.pth"
    path.write_bytes(whole.getvalue()[:keep])
    with pytest.raises(CheckpointError, match=r"cut\.pth: ") as refused:
        load_published(path, build("efficientface", 7, seed=2), LABELS)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("name", [".", "missing.pth"])
def test_what_is_no_file_is_told(tmp_path: Path, name: str) -> None:
    with pytest.raises(CheckpointError, match="name a file of weights"):
        load_published(tmp_path / name, build("resnet18", 7, seed=2), LABELS)


def test_another_architecture_is_refused_by_name(tmp_path: Path) -> None:
    path = publish(tmp_path / "resnet.pth", build("resnet18", 7, seed=1))
    with pytest.raises(CheckpointError, match=r"resnet\.pth: not weights of EfficientFace.*those of resnet18"):
        load_published(path, build("efficientface", 7, seed=1), LABELS)


def test_a_missing_entry_is_refused(tmp_path: Path) -> None:
    path = publish(
        tmp_path / "cut.pth", build("efficientface", 7, seed=1), lambda w: w.pop("module.local.bn1_1.weight")
    )
    with pytest.raises(CheckpointError, match=r"1 of \d+ entries differ, local.bn1_1.weight first"):
        load_published(path, build("efficientface", 7, seed=1), LABELS)


def test_weights_that_are_no_tensors_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "evil.pth"
    torch.save({"state_dict": {"fc.weight": Path("/")}}, path)
    with pytest.raises(CheckpointError, match="its state_dict holds more than tensors"):
        load_published(path, build("efficientface", 7, seed=1), LABELS)


def test_weights_of_a_training_that_diverged_are_refused(tmp_path: Path) -> None:
    theirs = build("resnet18", 7, seed=1)
    torch.nn.init.constant_(theirs.get_parameter("bn1.weight"), np.nan)
    path = publish(tmp_path / "nan.pth", theirs)
    with pytest.raises(CheckpointError, match=r"module\.bn1\.weight holds values that are no finite numbers"):
        load_published(path, build("resnet18", 7, seed=1), LABELS)


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize(
    "claimed",
    [
        torch.zeros(1).expand(2_000_000_000_000),
        torch.zeros(9).as_strided((2**20, 9), (0, 1)),
        torch.sparse_coo_tensor(torch.zeros(1, 1, dtype=torch.int64), torch.zeros(1), (2**40,), check_invariants=True),
        torch.zeros(2**40, device="meta"),
    ],
    ids=["expanded", "overlapping", "sparse", "meta"],
)
def test_weights_larger_than_what_the_file_holds_are_refused_unseen(
    tmp_path: Path, claimed: Tensor, legacy: bool
) -> None:
    path = tmp_path / "large.pth"
    torch.save({"state_dict": {"a": claimed}}, path, _use_new_zipfile_serialization=not legacy)
    assert path.stat().st_size < 5000
    with pytest.raises(CheckpointError, match=r"large\.pth: it does not hold all of a; save|damaged, or more than"):
        read_published(path)


def test_views_of_one_storage_are_weights(tmp_path: Path) -> None:
    tied = torch.arange(6.0).reshape(2, 3)
    torch.save({"state_dict": {"a": tied, "b": tied.T, "c": tied[1]}}, tmp_path / "tied.pth")
    read, _ = read_published(tmp_path / "tied.pth")
    assert read["b"].tolist() == tied.T.tolist()


def test_an_archive_that_unpacks_into_more_than_it_is_is_refused(tmp_path: Path) -> None:
    torch.save({"state_dict": {"a": torch.zeros(1_000_000)}}, tmp_path / "plain.pth")
    with (
        zipfile.ZipFile(tmp_path / "plain.pth") as plain,
        zipfile.ZipFile(tmp_path / "packed.pth", "w", zipfile.ZIP_DEFLATED) as packed,
    ):
        for record in plain.infolist():
            packed.writestr(record.filename, plain.read(record), zipfile.ZIP_DEFLATED)
    with pytest.raises(CheckpointError, match=r"packed\.pth: its archive is packed; unpack it"):
        read_published(tmp_path / "packed.pth")


def test_a_whole_module_is_no_state_dict(tmp_path: Path) -> None:
    torch.save(build("resnet18", 7, seed=1), tmp_path / "module.pth")
    with pytest.raises(CheckpointError, match=r"module\.pth: holds no state_dict; of a whole model, save the weights"):
        load_published(tmp_path / "module.pth", build("resnet18", 7, seed=1), LABELS)


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
def test_a_torchscript_model_is_told_to_be_one(tmp_path: Path) -> None:
    torch.jit.save(torch.jit.trace(nn.Linear(3, 2), torch.zeros(1, 3)), tmp_path / "traced.pt")
    with pytest.raises(
        CheckpointError, match=r"traced\.pt: a TorchScript model, .*torch\.jit\.load, and save the weights"
    ):
        read_published(tmp_path / "traced.pt")


def test_a_published_model_becomes_a_checkpoint_of_ours(tmp_path: Path) -> None:
    theirs = build("efficientface", 7, seed=1).eval()
    artifact = import_weights(publish(tmp_path / "theirs.pth.tar", theirs), "efficientface", tmp_path / "model")
    ours, card = load_checkpoint(artifact.path)
    assert (artifact.step, card.labels, card.input_size, card.stored_size) == ("distill", LABELS, 224, None)
    assert card.mean == (0.57535914, 0.44928582, 0.40079932)
    images = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    happiness = theirs(images)[:, PUBLISHED_ORDER.index("happiness")]
    torch.testing.assert_close(ours(images)[:, card.labels.index("happiness")], happiness)


@pytest.mark.parametrize(
    ("trained_on", "classes", "mean", "source"),
    [
        ("rafdb", 7, 0.57535914, "rafdb"),
        ("affectnet7", 7, 0.55391484, "affectnet"),
        ("affectnet8", 8, 0.55391484, "affectnet"),
        ("caers", 7, 0.35964426, "caers"),
    ],
)
def test_each_published_dataset_brings_constants_of_its_own(
    tmp_path: Path, trained_on: TrainedOn, classes: int, mean: float, source: str
) -> None:
    theirs = build("efficientface", classes, seed=1).eval()
    path = publish(tmp_path / "EfficientFace_Trained_on_It.pth.tar", theirs)
    ours, card = load_checkpoint(import_weights(path, "efficientface", tmp_path / "model", trained_on).path)
    assert (len(card.labels), card.mean[0], card.trained_on["source"]) == (classes, mean, source)
    images = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    for label in card.labels:
        expected = theirs(images)[:, PUBLISHED_ORDER.index(label)]
        torch.testing.assert_close(ours(images)[:, card.labels.index(label)], expected)


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("EfficientFace_Trained_on_AffectNet7.pth.tar", "affectnet7"),
        ("EfficientFace_Trained_on_CAERS.pth.tar", "caers"),
        ("LDG_Pretrained_on_CAER-S.tar", "caers"),
    ],
)
def test_a_file_named_after_another_dataset_is_not_taken_for_rafdbs(tmp_path: Path, name: str, meant: str) -> None:
    path = publish(tmp_path / name, build("efficientface", 7, seed=1))
    with pytest.raises(CheckpointError, match=rf"say --trained-on {meant}, or --trained-on rafdb"):
        import_weights(path, "efficientface", tmp_path / "model")


@pytest.mark.parametrize(
    ("key", "said"),
    [
        ("class_to_idx", lambda words: {word: number for number, word in enumerate(words)}),
        ("idx_to_class", lambda words: {str(number): word for number, word in enumerate(words)}),
        ("classes", list),
        ("class_names", tuple),
    ],
)
def test_a_file_that_says_its_own_classes_is_read_in_their_order(
    tmp_path: Path, key: str, said: Callable[[list[str]], object]
) -> None:
    """As scripts write that train on class folders, whose order is the alphabet's."""
    theirs, head = (
        build("resnet18", 7, seed=1).eval(),
        ["angry", "disgust", "fear", "happy", "neutral", "sad", "surprise"],
    )
    torch.save({"state_dict": theirs.state_dict(), key: said(head)}, tmp_path / "own.pth")
    artifact = import_weights(tmp_path / "own.pth", "resnet18", tmp_path / "model")
    assert artifact.settings()["classes"] == "anger disgust fear happiness neutral sadness surprise"
    ours, card = load_checkpoint(artifact.path)
    images = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    for label, word in (("anger", "angry"), ("happiness", "happy"), ("fear", "fear")):
        expected = theirs(images)[:, head.index(word)]
        torch.testing.assert_close(ours(images)[:, card.labels.index(label)], expected)


def test_a_file_of_other_classes_is_no_model_of_these(tmp_path: Path) -> None:
    """CK+ has contempt in the place of neutral."""
    words = ["anger", "contempt", "disgust", "fear", "happy", "sadness", "surprise"]
    torch.save({"model": build("resnet18", 7, seed=1).state_dict(), "classes": words}, tmp_path / "own.pth")
    told = "anger, contempt, disgust, fear, happiness, sadness, surprise, not the 7 emotions of RAF-DB; it can start a "
    with pytest.raises(CheckpointError, match=f"its classes are {told}training"):
        import_weights(tmp_path / "own.pth", "resnet18", tmp_path / "model")
    assert not load_published(tmp_path / "own.pth", build("resnet18", 7, seed=2), LABELS)


@pytest.mark.parametrize("classes", [7, ["0", "1", "2", "3", "4", "5", "6"], {"0": 0, "1": 1}, None, torch.arange(7)])
def test_numbers_say_nothing_of_the_order(tmp_path: Path, classes: object) -> None:
    torch.save({"model": build("resnet18", 7, seed=1).state_dict(), "classes": classes}, tmp_path / "own.pth")
    assert load_published(tmp_path / "own.pth", build("resnet18", 7, seed=2), LABELS)


def test_eight_classes_can_only_be_affectnets(tmp_path: Path) -> None:
    path = publish(tmp_path / "model.pth.tar", build("efficientface", 8, seed=1))
    _, card = load_checkpoint(import_weights(path, "efficientface", tmp_path / "model").path)
    assert (card.labels, card.mean[0]) == (EMOTIONS, 0.55391484)
    with pytest.raises(CheckpointError, match=r"its head has 8 classes, CAER-S 7; say --trained-on affectnet8"):
        import_weights(path, "efficientface", tmp_path / "other", "caers")


@pytest.mark.parametrize("architecture", ["efficientface", "resnet18"])
def test_weights_of_identities_are_no_model_of_emotions_and_the_settings_told_work(
    tmp_path: Path, architecture: Architecture
) -> None:
    path = publish(tmp_path / "msceleb.pth.tar", build(architecture, 12_666, seed=1))
    with pytest.raises(CheckpointError, match="its head is of 12,666 classes, not of 7 emotions") as refused:
        import_weights(path, architecture, tmp_path / "model")
    assert not (tmp_path / "model").exists()
    experiment = load_experiment("paper", str(refused.value).split(" --set ")[1:])
    recipes = [r for r in (experiment.ldg, experiment.sll, experiment.distill) if r.weights]
    assert len(recipes) == (2 if architecture == "efficientface" else 1)
    for recipe in recipes:
        network = "efficientface" if recipe is not experiment.ldg else experiment.ldg.architecture
        assert not load_published(Path(recipe.weights), build(network, 7, seed=1), LABELS)


@pytest.mark.parametrize("missing", ["fc.weight", "fc.bias"])
def test_half_a_head_is_refused(tmp_path: Path, missing: str) -> None:
    """The other half would stay as it was drawn."""

    def forget(weights: dict[str, Tensor]) -> None:
        del weights[f"module.{missing}"]

    theirs, ours = (build("efficientface", 7, seed=seed) for seed in (1, 2))
    with pytest.raises(CheckpointError, match=r"its head is fc\.\w+ alone; give the whole of the weights"):
        load_published(publish(tmp_path / "theirs.pth.tar", theirs, forget), ours, LABELS)
