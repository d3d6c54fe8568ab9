"""An exported model in ONNX Runtime: faces in, probabilities out, and what its metadata says of it. Needs no torch."""

import json
from dataclasses import dataclass
from dataclasses import fields as fields_of
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

from fer_core.errors import CheckpointError

INPUT, OUTPUT = "images", "probabilities"
"""(N, H, W, 3) uint8 RGB, square faces of any size; (N, classes) float32, rows sum to 1."""


@dataclass(frozen=True)
class ModelFacts:
    """What an exported model's metadata says of it, each under its own name: texts as they are, the others in JSON.

    stored_size, grey: how a face is to be cut out, see `fer_core.faces.cut_out`
    accuracy: `value`, `low`, `high` in 0..1 and `images` of the test split; None where it was not judged
    """

    name: str
    seed: int
    architecture: str
    labels: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    input_size: int
    stored_size: int
    grey: bool
    temperature: float
    trained_on: str
    accuracy: dict[str, Any] | None
    licence: str
    limits: str
    fer_version: str


class OnnxModel:
    """Probabilities of faces by an exported model, and its facts.

    Args:
        threads: that one call may use; 0 for all cores.

    Raises:
        CheckpointError: the file is no model that `fer export` wrote.
    """

    def __init__(self, path: Path, threads: int = 0) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        try:
            self._session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
            self.facts = _facts(self._session.get_modelmeta().custom_metadata_map)
        except Exception as error:  # ONNX Runtime has a type of its own for each thing that can be wrong with a file.
            raise CheckpointError(
                f"{path}: not a model that `fer export` wrote ({str(error).strip().splitlines()[0][:200]})"
            ) from error

    def __call__(self, faces: np.ndarray) -> np.ndarray:
        """(N, H, W, 3) uint8 RGB → (N, classes) float32; from any thread."""
        (probabilities,) = self._session.run([OUTPUT], {INPUT: faces})
        result: np.ndarray = probabilities
        return result


def _facts(properties: dict[str, str]) -> ModelFacts:
    fields: dict[str, Any] = {
        field.name: properties[field.name] if field.type is str else json.loads(properties[field.name])
        for field in fields_of(ModelFacts)
    }
    for name in ("labels", "mean", "std"):
        fields[name] = tuple(fields[name])
    return ModelFacts(**fields)
