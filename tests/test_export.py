"""Exports say what their checkpoint says, on faces of any size, and carry what must be known of them."""

import copy
import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import onnx
import pandas as pd
import pytest
import torch
from helpers.deployed_model import DeployedModel
from PIL import Image

from fer_core.artifacts import open_artifact
from fer_core.data.crops import Box, FaceFormat, cut_out
from fer_core.data.dataset import EMOTIONS, open_dataset
from fer_core.data.views import Views
from fer_core.errors import CheckpointError, ExportError
from fer_core.evaluation.calibration import probabilities
from fer_core.evaluation.metrics import expected_calibration_error
from fer_core.evaluation.model_card import MODEL_CARD
from fer_core.export.export import _as_onnx, _run_torchscript, export
from fer_core.export.onnx_model import OnnxModel
from fer_core.export.parity import PARITY, Comparison, comparison_of, stored_faces
from fer_core.models.architectures import build
from fer_core.models.checkpoint import ModelCard, load_checkpoint, save_card, save_weights
from fer_core.models.deployed import Deployed
from fer_core.models.facts import LIMITS, ExportFormat, facts_of
from fer_core.models.logits import predict_logits
from fer_core.progress import JsonLines

CPU = torch.device("cpu")


@pytest.fixture(scope="module", autouse=True)
def converted_once() -> Iterator[None]:
    """Keep what torch makes of a network, which takes it eight seconds; of the same one it makes the same."""
    kept: dict[tuple[object, ...], onnx.ModelProto] = {}

    def as_onnx(deployed: Deployed, card: ModelCard) -> onnx.ModelProto:
        weights = hashlib.sha256(b"".join(tensor.numpy().tobytes() for tensor in deployed.state_dict().values()))
        key = (weights.hexdigest(), card.mean, card.std, card.input_size, card.stored_size, card.temperature)
        if key not in kept:
            kept[key] = _as_onnx(deployed, card)
        return copy.deepcopy(kept[key])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fer_core.export.export._as_onnx", as_onnx)
        yield


def faces_of(model: DeployedModel) -> np.ndarray:
    dataset = open_dataset(model.dataset)
    return np.concatenate(list(stored_faces(dataset, np.arange(len(dataset.manifest)))))


def test_as_deployed_it_says_what_evaluation_says(model: DeployedModel) -> None:
    network, card = load_checkpoint(model.checkpoint)
    dataset = open_dataset(model.dataset)
    views = Views(dataset.images, card.mean, card.std, card.input_size, CPU)
    expected = probabilities(predict_logits(network, views, np.arange(len(dataset.manifest))), card.temperature)
    with torch.inference_mode():
        found = Deployed(network, card).eval()(torch.from_numpy(faces_of(model))).numpy()
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert len(set(expected.argmax(axis=1))) > 3, "a network that always says the same proves nothing"


def test_a_large_photograph_is_resized_as_the_dataset_was(model: DeployedModel) -> None:
    """By Pillow, bicubic, to the stored size; within the rounding to bytes that the stored images went through."""
    network, card = load_checkpoint(model.checkpoint)
    deployed = Deployed(network, replace(card, stored_size=32)).eval()
    photograph = Image.fromarray(faces_of(model)[0]).resize((211, 211), Image.Resampling.BILINEAR)
    stored = np.asarray(photograph.convert("L").resize((32, 32), Image.Resampling.BICUBIC))
    with torch.inference_mode():
        large, small = (
            deployed(torch.from_numpy(np.array(picture))[None])
            for picture in (photograph, np.repeat(stored[..., None], 3, axis=2))
        )
    torch.testing.assert_close(large, small, atol=0.01, rtol=0)


def test_grey_is_made_as_pillow_makes_it(model: DeployedModel) -> None:
    network, card = load_checkpoint(model.checkpoint)
    deployed = Deployed(network, replace(card, input_size=card.stored_size or 0)).eval()
    colours = np.random.default_rng(0).integers(0, 256, (1, 48, 48, 3), dtype=np.uint8)
    grey = np.asarray(Image.fromarray(colours[0]).convert("L"))
    preprocessed = deployed._preprocessed(torch.from_numpy(colours).float())[0, 0]
    np.testing.assert_allclose(preprocessed * deployed.std + deployed.mean, grey[None, None], atol=1e-3)


@pytest.mark.parametrize("side", [48, 31, 200])
def test_onnx_says_what_torch_says(model: DeployedModel, exported: Path, side: int) -> None:
    network, card = load_checkpoint(model.checkpoint)
    faces = np.stack([np.asarray(Image.fromarray(face).resize((side, side))) for face in faces_of(model)[:20]])
    with torch.inference_mode():
        expected = Deployed(network, card).eval()(torch.from_numpy(faces)).numpy()
    found = OnnxModel(exported)(faces)
    assert np.abs(found - expected).max() <= PARITY
    assert (found.argmax(axis=1) == expected.argmax(axis=1)).all()


def test_onnx_tells_all_that_must_be_known(model: DeployedModel, exported: Path) -> None:
    _, card = load_checkpoint(model.checkpoint)
    facts = OnnxModel(exported).facts
    assert facts == facts_of(card)
    assert facts.labels == EMOTIONS[:7]
    assert facts.limits == LIMITS
    assert facts.accuracy is not None
    assert facts.accuracy["images"] == len(open_dataset(model.dataset).rows("test"))
    page = (exported.parent / MODEL_CARD).read_text()
    of = "Of `model.onnx`, the last export into this folder."
    assert page.startswith(f"# EF SLL · seed 1\n\n{of}\n\nefficientface for 7 classes")
    content = exported.read_bytes()
    assert str(Path.cwd()).encode() not in content, "a folder of this machine"
    assert b"site-packages" not in content


def test_how_they_compare_lies_beside(exported: Path) -> None:
    comparison = json.loads((exported.parent / "model.onnx.comparison.json").read_text())
    assert comparison["largest_difference"] <= PARITY
    assert comparison["same_top"] == 1
    assert comparison["accuracy"] == comparison["checkpoint_accuracy"]


def test_int8_is_smaller_and_close(model: DeployedModel, exported: Path, tmp_path: Path) -> None:
    path = export(model.checkpoint, "int8", tmp_path, None, JsonLines())
    assert path.stat().st_size < 0.5 * exported.stat().st_size
    kinds = {node.op_type for node in onnx.load(path).graph.node}
    assert "DequantizeLinear" in kinds
    faces = faces_of(model)
    found, expected = OnnxModel(path)(faces), OnnxModel(exported)(faces)
    assert (found.argmax(axis=1) == expected.argmax(axis=1)).mean() > 0.9
    assert np.abs(found - expected).max() > 0
    assert OnnxModel(path).facts.labels == OnnxModel(exported).facts.labels
    assert OnnxModel(path).facts.precision.startswith("int8")
    assert OnnxModel(exported).facts.precision == "float32"


def with_outliers(model: DeployedModel, folder: Path, factor: float) -> Path:
    """The same function, one channel of each unit `factor` times larger than its neighbours: what breaks 8 bits."""
    network, card = load_checkpoint(model.checkpoint)
    state = network.state_dict()
    for name in [name for name in state if name.endswith("branch2.1.weight")]:
        unit = name.removesuffix(".1.weight")
        for part in ("weight", "bias"):
            state[f"{unit}.1.{part}"][0] *= factor
        state[f"{unit}.3.weight"][0] /= factor
    network.load_state_dict(state)
    folder.mkdir()
    save_weights(folder / "selected.safetensors", network)
    save_card(folder, card)
    return folder


def test_int8_that_loses_too_much_keeps_16_bits_between_layers_and_says_its_own_figures(
    model: DeployedModel, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = with_outliers(model, tmp_path / "checkpoint", 1000)
    path = export(checkpoint, "int8", tmp_path / "out", model.dataset, JsonLines())
    facts = OnnxModel(path).facts
    assert facts.precision == "int8 weights, 16-bit activations"
    assert "int8 loses too much: on" in capsys.readouterr().out
    comparison = json.loads((tmp_path / "out" / "model.int8.onnx.comparison.json").read_text())
    assert comparison["checkpoint_accuracy"] - comparison["accuracy"] <= 0.5
    assert comparison["same_top"] >= 0.98
    dataset = open_dataset(model.dataset)
    rows = dataset.rows("test")
    predicted = OnnxModel(path)(np.concatenate(list(stored_faces(dataset, rows))))
    right = float((predicted.argmax(axis=1) == dataset.labels()[rows]).mean())
    assert facts.accuracy is not None
    assert facts.accuracy["value"] == pytest.approx(right)
    assert 100 * right == pytest.approx(comparison["accuracy"])
    error = expected_calibration_error(dataset.labels()[rows], predicted)
    assert facts.calibration_error == pytest.approx(error)
    page = (tmp_path / "out" / MODEL_CARD).read_text()
    assert f"accuracy | {100 * right:.2f} %" in page
    assert "Exported in int8 weights, 16-bit activations; the figures are this export's own" in page


@pytest.mark.parametrize("of_others", [True, False], ids=["published", "other splits"])
def test_int8_says_on_what_it_was_judged_where_its_card_tells_of_no_such_images(
    model: DeployedModel, tmp_path: Path, of_others: bool
) -> None:
    """Weights of others have no figures; and what `--in` names need not be what the card's are of."""
    network, card = load_checkpoint(model.checkpoint)
    (checkpoint := tmp_path / "checkpoint").mkdir()
    save_weights(checkpoint / "selected.safetensors", network)
    few = card.figures | {"test": card.figures["test"] | {"images": 3}}
    theirs = {"source": "rafdb", "protocol": "As published.", "licence": "theirs"}
    save_card(checkpoint, replace(card, figures={}, trained_on=theirs) if of_others else replace(card, figures=few))
    path = export(checkpoint, "int8", tmp_path / "out", model.dataset, JsonLines())
    told = open_dataset(model.dataset)
    accuracy = OnnxModel(path).facts.accuracy
    assert accuracy is not None
    assert accuracy["images"] == len(told.rows("test"))
    assert accuracy["dataset"] == f"{told.card.source} {told.card.protocol}"
    page = (tmp_path / "out" / MODEL_CARD).read_text()
    assert f"other than those that its training kept for judging: {told.card.source}. {told.card.protocol}" in page
    assert "chose nothing" not in page
    assert f"| to the {told.card.truth} |" in page or not told.card.truth


def test_int8_that_is_not_close_with_16_bits_either_is_refused(model: DeployedModel, tmp_path: Path) -> None:
    checkpoint = with_outliers(model, tmp_path / "checkpoint", 1e7)
    with pytest.raises(ExportError, match="deploy it as --to onnx"):
        export(checkpoint, "int8", tmp_path / "out", model.dataset, JsonLines())
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize(
    ("accuracy", "same_top", "is_close"), [(79.5, 0.98, True), (79.4, 1, False), (81, 0.97, False), (80, 1, True)]
)
def test_half_a_point_or_two_hundredths_of_the_top_classes_may_be_lost(
    accuracy: float, same_top: float, is_close: bool
) -> None:
    assert Comparison(1000, 0.3, same_top, accuracy, checkpoint_accuracy=80).is_close == is_close


@pytest.mark.parametrize(("height", "width"), [(48, 90), (90, 48), (300, 31)])
def test_a_face_that_is_not_square_is_cropped_and_not_squeezed(
    model: DeployedModel, exported: Path, tmp_path: Path, height: int, width: int
) -> None:
    """In torch, ONNX and TorchScript alike, as `Predictor` crops it."""
    side = min(height, width)
    wide = np.stack([np.asarray(Image.fromarray(face).resize((width, height))) for face in faces_of(model)[:8]])
    top, left = (height - side) // 2, (width - side) // 2
    square = np.ascontiguousarray(wide[:, top : top + side, left : left + side])
    network, card = load_checkpoint(model.checkpoint)
    with torch.inference_mode():
        expected, cropped = (Deployed(network, card).eval()(torch.from_numpy(f)).numpy() for f in (square, wide))
    np.testing.assert_array_equal(cropped, expected)
    np.testing.assert_allclose(OnnxModel(exported)(wide), expected, atol=PARITY)
    script = _run_torchscript(export(model.checkpoint, "torchscript", tmp_path, None, JsonLines()))
    np.testing.assert_allclose(script(wide), expected, atol=PARITY)


def test_weights_of_others_see_a_face_in_their_own_size_at_once(tmp_path: Path) -> None:
    """Their authors resize any picture to the input, bilinear; by way of 100 pixels most of it would be gone."""
    card = ModelCard("efficientface", EMOTIONS[:7], (0.5,) * 3, (0.25,) * 3, 224, None, "theirs", 0, 0, 0)
    picture = Image.open(Path("openface/portrait.png")).convert("RGB").resize((350, 350))
    network = build("efficientface", 7, seed=1).eval()
    deployed = Deployed(network, card).eval()
    resized = np.array(picture.resize((224, 224), Image.Resampling.BILINEAR), np.float32)
    expected = torch.from_numpy(resized).permute(2, 0, 1) / 255
    found = deployed._preprocessed(torch.from_numpy(np.array(picture)[None]).float())[0] * 0.25 + 0.5
    assert (found - expected).abs().max() < 1.5 / 255
    facts = facts_of(card)
    cut = cut_out(np.array(picture), Box(0, 0, 350), facts.face_format.side, grey=False, resample=Image.Resampling(2))
    np.testing.assert_array_equal(cut, resized)
    assert facts.face_format == FaceFormat(224, False, Image.Resampling.BILINEAR)


def test_int8_cannot_do_without_faces(model: DeployedModel, tmp_path: Path) -> None:
    alone = tmp_path / "alone"
    alone.mkdir()
    for file in model.checkpoint.iterdir():
        (alone / file.name).write_bytes(file.read_bytes())
    with pytest.raises(ExportError, match="--in"):
        export(alone, "int8", tmp_path / "out", None, JsonLines())
    assert export(alone, "int8", tmp_path / "out", model.dataset, JsonLines()).is_file()


def test_int8_cannot_do_without_validation_images(model: DeployedModel, tmp_path: Path) -> None:
    """As in a dataset that a model is only judged on."""
    judged_on = shutil.copytree(model.dataset, tmp_path / "dataset")
    manifest = pd.read_parquet(judged_on / "manifest.parquet").assign(split="test")
    manifest.to_parquet(judged_on / "manifest.parquet", index=False)
    with pytest.raises(ExportError, match="measures its ranges on validation images, of which this dataset has none"):
        export(model.checkpoint, "int8", tmp_path / "out", judged_on, JsonLines())


def test_torchscript_says_what_torch_says(model: DeployedModel, exported: Path, tmp_path: Path) -> None:
    path = export(model.checkpoint, "torchscript", tmp_path, None, JsonLines())
    code = (
        "import sys, numpy, torch; told = dict.fromkeys(('labels', 'limits'), '');"
        "m = torch.jit.load(sys.argv[1], _extra_files=told);"
        "assert 'Device' not in str(m.inlined_graph), 'it would run on one device alone';"
        "numpy.save(sys.argv[3], m(torch.from_numpy(numpy.load(sys.argv[2]))).numpy());"
        "print(*(text.decode() for text in told.values()), sep='\\n')"
    )
    faces = faces_of(model)[:8]
    np.save(tmp_path / "faces.npy", faces)
    command: list[str | Path] = [
        sys.executable,
        "-W",
        "ignore",
        "-c",
        code,
        path,
        tmp_path / "faces.npy",
        tmp_path / "out.npy",
    ]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    np.testing.assert_allclose(np.load(tmp_path / "out.npy"), OnnxModel(exported)(faces), atol=PARITY)
    assert [json.loads(said[0]), said[1]] == [list(EMOTIONS[:7]), LIMITS]


def test_channels_are_gathered_in_turn_when_exported() -> None:
    model = build("efficientface", 7, seed=1).eval()
    images = torch.randn(2, 3, 64, 64)
    program = torch.export.export(model, (images,))
    assert any("index_select" in str(node.target) for node in program.graph.nodes)
    torch.testing.assert_close(program.module()(images), model(images))


def test_what_differs_is_counted() -> None:
    theirs = np.array([[0.6, 0.4], [0.2, 0.8], [0.5, 0.5]])
    ours = np.array([[0.6, 0.4], [0.9, 0.1], [0.5, 0.5]])
    found = comparison_of(ours, theirs, np.array([0, 1, 0]))
    assert asdict(found) == {
        "images": 3,
        "largest_difference": pytest.approx(0.7),
        "same_top": pytest.approx(2 / 3),
        "accuracy": pytest.approx(200 / 3),
        "checkpoint_accuracy": 100,
    }


@pytest.mark.parametrize("content", [b"", b"not a model", b"\x08\x07"])
def test_a_file_of_something_else_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "model.onnx").write_bytes(content)
    with pytest.raises(CheckpointError, match="not an ONNX model that `fer export` wrote"):
        OnnxModel(tmp_path / "model.onnx")


def test_a_model_of_somebody_else_is_refused(exported: Path, tmp_path: Path) -> None:
    proto = onnx.load(exported)
    del proto.metadata_props[:]
    onnx.save(proto, tmp_path / "model.onnx")
    with pytest.raises(CheckpointError, match="not an ONNX model that `fer export` wrote"):
        OnnxModel(tmp_path / "model.onnx")


@pytest.mark.parametrize("to", ["onnx", "torchscript", "web"])
def test_what_does_not_say_what_the_checkpoint_says_is_not_written(
    model: DeployedModel, tmp_path: Path, to: ExportFormat, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fer_core.export.parity.PARITY", -1.0)
    with pytest.raises(ExportError, match="not written, since it does not say what the checkpoint says"):
        export(model.checkpoint, to, tmp_path, model.dataset, JsonLines())
    assert [path.suffix for path in tmp_path.iterdir()] == [".json"], "how they compare, and no model"


def test_a_page_leaves_the_model_beside_it_alone(
    model: DeployedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = "fer_core.export.web_page.write_web"
    monkeypatch.setattr(write, lambda made, folder: folder.write_bytes(made.read_bytes()))
    (tmp_path / "model.onnx").write_bytes(b"another checkpoint's, which is served")
    page = export(model.checkpoint, "web", tmp_path, None, JsonLines())
    assert OnnxModel(page).facts.labels == EMOTIONS[:7]
    assert (tmp_path / "model.onnx").read_bytes() == b"another checkpoint's, which is served"


def test_the_command(model: DeployedModel, tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "fer_core",
        "export",
        str(model.checkpoint),
        "--to",
        "onnx",
        "--out",
        str(tmp_path),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "probabilities at most" in done.stdout
    assert done.stderr == ""
    assert (tmp_path / "model.onnx").is_file()
    wrong = subprocess.run(
        [*command[:4], str(model.dataset), *command[5:]], capture_output=True, text=True, check=False
    )
    assert wrong.returncode == 2
    assert wrong.stderr.startswith("error: ")
    assert wrong.stderr.count("\n") == 1
    assert "made by `fer prepare`, and no checkpoint; give what `fer distill` made" in wrong.stderr
    assert open_artifact(model.checkpoint).step == "distill"
