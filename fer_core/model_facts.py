"""What must be known of a model to use it, and what whoever uses it should know."""

from dataclasses import dataclass
from typing import Any, Literal

ExportFormat = Literal["onnx", "int8", "torchscript", "web"]


@dataclass(frozen=True)
class ModelFacts:
    """In an exported file each is a metadata property of the same name: texts as they are, the others in JSON.

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
    stored_size: int | None
    grey: bool
    temperature: float
    trained_on: str
    accuracy: dict[str, Any] | None
    licence: str
    limits: str
    fer_version: str
