"""Export a checkpoint: one file that takes faces as bytes and gives probabilities, and says what must be known of it.

Preprocessing and temperature are part of the exported network, so that whoever runs it cannot get them wrong. Each
export is compared with the checkpoint on the dataset's own faces, where they are at hand.
"""

import json
import logging
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import asdict
from io import StringIO
from pathlib import Path

import numpy as np
import onnx
import torch
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

from fer_core.artifacts import MANIFEST, replace_file
from fer_core.data.dataset import Dataset, open_dataset
from fer_core.errors import ExportError
from fer_core.evaluation.model_card import MODEL_CARD, judged_as, markdown
from fer_core.export.onnx_model import INPUT, OUTPUT, OnnxModel, open_session
from fer_core.export.parity import LOST_POINTS, LOST_TOPS, Comparison, compare, stored_faces
from fer_core.models.checkpoint import ModelCard, load_checkpoint, require_labels
from fer_core.models.deployed import Deployed
from fer_core.models.facts import ExportFormat, facts_of
from fer_core.models.padded import padded
from fer_core.progress import Reporter

FILES = {"onnx": "model.onnx", "int8": "model.int8.onnx", "torchscript": "model.torchscript.pt", "web": "web"}
_OPSET = 20
_ACTIVATIONS = {
    "int8": QuantType.QInt8,
    "int8 weights, 16-bit activations": QuantType.QUInt16,
}
"""Precision, and the type of what goes between layers; the wider one has no faster kernels, but the small file."""
_CALIBRATION_FACES = 512


def export(checkpoint: Path, to: ExportFormat, out: Path, dataset_folder: Path | None, report: Reporter) -> Path:
    """Write an export of the checkpoint's selected epoch into `out`, with its model card and how it compares.

    Args:
        dataset_folder: a prepared dataset to compare on; None takes the one that the checkpoint was trained on, where
            it is still there. `int8` cannot do without, since its ranges are measured on validation images.

    Returns:
        The file, or for `web` the folder.

    Raises:
        CheckpointError: it is no checkpoint, or of other classes than the dataset.
        ExportError: int8 without a dataset, or that loses too much; another export that does not say what the
            checkpoint says.
    """
    model, card = load_checkpoint(checkpoint)
    deployed = Deployed(model, card).eval()
    dataset = _dataset(checkpoint, dataset_folder)
    if dataset is not None:
        require_labels(card, dataset.card.labels, checkpoint)
    out.mkdir(parents=True, exist_ok=True)
    path = out / FILES[to]
    if to == "int8":
        page = _write_int8(deployed, card, path, _needed(dataset, checkpoint), report)
    else:
        page = markdown(card, file=path.name)
        _write_equal(deployed, card, to, path, dataset, report)
    replace_file(out / MODEL_CARD, page.encode())
    return path


def _write_equal(
    deployed: Deployed, card: ModelCard, to: ExportFormat, path: Path, dataset: Dataset | None, report: Reporter
) -> None:
    """Write a format that must say what the checkpoint says, once it is seen to, where a dataset is at hand."""
    run: Callable[[np.ndarray], np.ndarray]
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder, FILES["torchscript" if to == "torchscript" else "onnx"])
        if to == "torchscript":
            _write_torchscript(deployed, card, made)
            run = _run_torchscript(made)
        else:
            _write_onnx(deployed, card, made)
            run = OnnxModel(made)
        if dataset is None:
            report.note("not compared with the checkpoint: its dataset is not at hand; name it with --in")
        else:
            comparison, _ = compare(deployed, run, dataset, report)
            beside = _write_comparison(comparison, path, report)
            if not comparison.is_equal:
                raise ExportError(
                    f"{path}: not written, since it does not say what the checkpoint says; see {beside.name}"
                )
        if to == "web":
            from fer_core.export.web_page import write_web

            # It has a copy of its own: the model beside it may be another checkpoint's, which is served.
            write_web(made, path)
        else:
            replace_file(path, made.read_bytes())


def _dataset(checkpoint: Path, folder: Path | None) -> Dataset | None:
    """The dataset named, or the one that the checkpoint's manifest names among the same artifacts."""
    if folder is not None:
        return open_dataset(folder)
    try:
        inputs = json.loads((checkpoint / MANIFEST).read_text(encoding="utf-8"))["inputs"].values()
    except (OSError, ValueError, KeyError):
        return None
    used = [made for made in inputs if made["step"] == "prepare"]
    beside = checkpoint.resolve().parent.parent / "prepare" / used[0]["fingerprint"] if used else None
    return open_dataset(beside) if beside is not None and (beside / MANIFEST).is_file() else None


def _needed(dataset: Dataset | None, checkpoint: Path) -> Dataset:
    if dataset is None:
        raise ExportError(
            f"{checkpoint}: int8 measures its ranges on validation images, and the dataset is not beside "
            "the checkpoint; name what `fer prepare` made with --in"
        )
    if not len(dataset.rows("validation")):
        raise ExportError(
            f"{checkpoint}: int8 measures its ranges on validation images, of which this dataset has none; "
            "name another with --in"
        )
    return dataset


def _write_onnx(deployed: Deployed, card: ModelCard, path: Path) -> None:
    _write_with_facts(_as_onnx(deployed, card), card, path)


def _as_onnx(deployed: Deployed, card: ModelCard) -> onnx.ModelProto:
    """The exporter's own notes on each node are left out, since they name folders of this machine."""
    dynamic = torch.export.Dim.DYNAMIC
    side = deployed.face_side
    example = torch.zeros(2, side + 16, side + 24, 3, dtype=torch.uint8)
    with _quiet():
        program = torch.onnx.export(
            Deployed(padded(deployed.model), card).eval(),
            (example,),
            dynamo=True,
            dynamic_shapes=({0: dynamic, 1: dynamic, 2: dynamic},),
            input_names=[INPUT],
            output_names=[OUTPUT],
            opset_version=_OPSET,
            verbose=False,
        )
    assert program is not None
    proto = program.model_proto
    for node in (*proto.graph.node, *(inner for function in proto.functions for inner in function.node)):
        del node.metadata_props[:]
        node.doc_string = ""
    for value in (*proto.graph.value_info, *proto.graph.input, *proto.graph.output, *proto.graph.initializer):
        del value.metadata_props[:]
    del proto.graph.metadata_props[:]
    for value, sizes in ((proto.graph.input[0], ("N", "H", "W", None)), (proto.graph.output[0], ("N", None))):
        for dimension, name in zip(value.type.tensor_type.shape.dim, sizes, strict=True):
            if name is not None:
                dimension.dim_param = name
    return proto


def _write_with_facts(proto: onnx.ModelProto, card: ModelCard, path: Path, precision: str = "float32") -> None:
    onnx.helper.set_model_props(proto, _properties(card, precision))
    proto.producer_name = "fer"
    onnx.checker.check_model(proto)
    replace_file(path, proto.SerializeToString())


def _properties(card: ModelCard, precision: str = "float32") -> dict[str, str]:
    facts = asdict(facts_of(card, precision))
    return {name: value if isinstance(value, str) else json.dumps(value) for name, value in facts.items()}


def _write_int8(deployed: Deployed, card: ModelCard, path: Path, dataset: Dataset, report: Reporter) -> str:
    """Convolutions and linear layers with weights of eight bits, and their inputs of as few as keep it close.

    Their ranges are measured on validation images. The file says its own accuracy and calibration.

    Returns:
        Its model card.

    Raises:
        ExportError: not even with inputs of 16 bits does it come close to the checkpoint.
    """
    with tempfile.TemporaryDirectory() as folder:
        floating, prepared, quantised = (Path(folder, name) for name in ("float.onnx", "prepared.onnx", "int8.onnx"))
        _write_onnx(deployed, card, floating)
        with _quiet():
            quant_pre_process(floating, prepared, skip_symbolic_shape=True)
        for precision, activations in _ACTIVATIONS.items():
            _quantise(prepared, quantised, activations, dataset, report)
            comparison, predicted = compare(deployed, _run_onnx(quantised), dataset, report)
            if comparison.is_close:
                own = judged_as(card, dataset, predicted, elsewhere=not _tells_of(card, comparison))
                _write_with_facts(onnx.load(quantised), own, path, precision)
                _write_comparison(comparison, path, report)
                return markdown(own, precision, path.name)
            report.note(f"{precision} loses too much: {comparison}")
    raise ExportError(
        f"{path}: int8 loses more than {LOST_POINTS} points of accuracy or {100 * LOST_TOPS:.0f} % of the top classes, "
        "with activations of 16 bits too; deploy it as --to onnx"
    )


def _tells_of(card: ModelCard, comparison: Comparison) -> bool:
    """Tell whether a card's figures are of the images compared on: as many, on which the checkpoint is as often right.

    Weights of others have none; and who names a dataset may name another, or other splits of the same images.
    """
    test = card.figures.get("test")
    if test is None or test["images"] != comparison.images:
        return False
    return bool(abs(100 * test["accuracy"] - comparison.checkpoint_accuracy) <= LOST_POINTS)


def _quantise(prepared: Path, quantised: Path, activations: QuantType, dataset: Dataset, report: Reporter) -> None:
    rows = dataset.rows("validation")
    chosen = np.random.default_rng(0).permutation(rows)[:_CALIBRATION_FACES]
    report.note(f"int8: ranges measured on {len(chosen)} validation images")
    with _quiet():
        quantize_static(
            prepared,
            quantised,
            _Faces(dataset, chosen),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=["Conv", "Gemm"],
            per_channel=True,
            activation_type=activations,
            weight_type=QuantType.QInt8,
        )


def _run_onnx(path: Path) -> Callable[[np.ndarray], np.ndarray]:
    """A model whose metadata are not written yet."""
    session = open_session(path)
    return lambda faces: np.asarray(session.run([OUTPUT], {INPUT: faces})[0])


class _Faces(CalibrationDataReader):  # type: ignore[misc]
    """Batches of stored faces, as the calibration asks for them."""

    def __init__(self, dataset: Dataset, rows: np.ndarray) -> None:
        self._batches = stored_faces(dataset, rows)

    def get_next(self) -> dict[str, np.ndarray] | None:
        faces = next(self._batches, None)
        return None if faces is None else {INPUT: faces}


def _write_torchscript(deployed: Deployed, card: ModelCard, path: Path) -> None:
    side = deployed.face_side
    example = torch.zeros(2, side, side, 3, dtype=torch.uint8)
    with _quiet(), torch.inference_mode():
        traced = torch.jit.trace(deployed, (example,))  # type: ignore[no-untyped-call]
    replace_file(path, traced.save_to_buffer(_extra_files=_properties(card)))


def _run_torchscript(path: Path) -> Callable[[np.ndarray], np.ndarray]:
    with _quiet():
        model = torch.jit.load(str(path))  # type: ignore[no-untyped-call]

    def run(faces: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            result: np.ndarray = model(torch.from_numpy(faces)).numpy()
        return result

    return run


def _write_comparison(comparison: Comparison, path: Path, report: Reporter) -> Path:
    """Say how an export compares, and write it beside."""
    beside = path.with_name(f"{path.name}.comparison.json")
    replace_file(beside, json.dumps(asdict(comparison), indent=1).encode())
    report.note(f"{path.name}: {comparison}")
    return beside


@contextmanager
def _quiet() -> Iterator[None]:
    """The exporters' own progress and deprecations are no news for a user."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), redirect_stdout(StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
