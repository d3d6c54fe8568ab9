"""An exported model in ONNX Runtime: faces in, probabilities out, and its metadata. Needs no torch."""

import json
from dataclasses import MISSING
from dataclasses import fields as fields_of
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

from fer_core.errors import CheckpointError
from fer_core.models.facts import ModelFacts as ModelFacts

INPUT, OUTPUT = "images", "probabilities"
"""(N, H, W, 3) uint8 RGB, faces of any size, square or not; (N, classes) float32, rows sum to 1."""


class OnnxModel:
    """Probabilities of faces by an exported model, and its facts.

    Args:
        threads: that one call may use; 0 for all cores.

    Raises:
        CheckpointError: the file is no model that `fer export` wrote.
    """

    def __init__(self, path: Path, threads: int = 0) -> None:
        try:
            self._session = open_session(path, threads)
            self.facts = _facts(self._session.get_modelmeta().custom_metadata_map)
        except Exception as error:  # ONNX Runtime has a type of its own for each thing that can be wrong with a file.
            raise CheckpointError(
                f"{path}: not an ONNX model that `fer export` wrote ({str(error).strip().splitlines()[0][:200]})"
            ) from error

    def __call__(self, faces: np.ndarray) -> np.ndarray:
        """(N, H, W, 3) uint8 RGB → (N, classes) float32; from any thread."""
        (probabilities,) = self._session.run([OUTPUT], {INPUT: faces})
        result: np.ndarray = probabilities
        return result


def open_session(path: Path, threads: int = 0) -> ort.InferenceSession:
    """ONNX Runtime on the processor, without its own messages."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def _facts(properties: dict[str, str]) -> ModelFacts:
    fields: dict[str, Any] = {
        field.name: properties[field.name] if field.type is str else json.loads(properties[field.name])
        for field in fields_of(ModelFacts)
        if field.default is MISSING or field.name in properties  # What has a default, an older export does not say.
    }
    for name in ("labels", "mean", "std"):
        fields[name] = tuple(fields[name])
    return ModelFacts(**fields)
