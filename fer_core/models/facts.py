"""Facts that a program needs to use a model, and facts that its user should know."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from fer_core.data.crops import FaceFormat, face_format

if TYPE_CHECKING:  # The service knows facts without torch, which cards come with.
    from fer_core.models.checkpoint import ModelCard

CARD = "model.json"
"""The file that makes a folder a checkpoint."""
LIMITS = (
    "It names what a crowd would read in a face, which is not what a person feels. It is for research; not for "
    "decisions about people, such as hiring, policing, schooling or health. Groups, poses, ages and cameras that its "
    "training images lack were not tested."
)

_FLOAT32 = "model.onnx"
ExportFormat = Literal["onnx", "int8", "torchscript", "web"]


@dataclass(frozen=True)
class ModelFacts:
    """In an exported file each is a metadata property of the same name: texts as they are, the others in JSON.

    In TorchScript's each is an extra file.
    """

    name: str
    seed: int
    architecture: str
    labels: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    input_size: int
    stored_size: int | None
    """Side in pixels at which a face is cut out, see `fer_core.data.crops`; none where others trained the weights."""
    grey: bool
    """True where a face is cut out in grey."""
    temperature: float
    trained_on: str
    accuracy: dict[str, Any] | None
    """`value`, `low`, `high` in 0..1 and `images` of the test split, and `dataset` where that is of another than it was
    trained on; None where it was not judged."""
    licence: str
    limits: str
    fer_version: str
    calibration_error: float | None = None
    """Calibration error of the probabilities that it gives, in 0..1, on the same images."""
    precision: str = "float32"
    """Type of its weights and activations, such as "float32"."""

    @property
    def face_format(self) -> FaceFormat:
        """How a face is handed to the model."""
        return face_format(self.stored_size, self.input_size, grey=self.grey)


def onnx_files(path: Path) -> list[Path]:
    """The file itself, or the .onnx files of the folder that `fer export` wrote, float32's first.

    Raises:
        OSError: this user may not read the folder, or the first of them.
    """
    # `glob` would pass over a folder that may not be read.
    below = [file for file in path.iterdir() if file.name.endswith(".onnx")] if path.is_dir() else []
    files = [path] if path.is_file() else sorted(below, key=lambda file: (file.name != _FLOAT32, file.name))
    for first in files[:1]:
        first.open("rb").close()
    return files


def facts_of(card: "ModelCard", precision: str = "float32") -> ModelFacts:
    """The facts in an exported file's metadata, as the service tells them."""
    test, calibrated = card.figures.get("test"), card.figures.get("calibrated")
    elsewhere = {"dataset": _words(card.figures["judged_on"])} if "judged_on" in card.figures else {}
    return ModelFacts(
        name=card.name,
        seed=card.seed,
        architecture=card.architecture,
        labels=card.labels,
        mean=card.mean,
        std=card.std,
        input_size=card.input_size,
        stored_size=card.stored_size,
        grey=len(card.mean) == 1,
        temperature=card.temperature,
        trained_on=_words(card.trained_on),
        accuracy=None if test is None else test["accuracy_interval"] | {"images": test["images"]} | elsewhere,
        licence=str(card.trained_on.get("licence", "")),
        limits=LIMITS,
        fer_version=str(card.trained_on.get("code", "")),
        calibration_error=None if calibrated is None else calibrated["calibration_error"],
        precision=precision,
    )


def _words(dataset: Mapping[str, Any]) -> str:
    """A dataset's source and protocol, as far as they are known."""
    return " ".join(str(dataset[key]) for key in ("source", "protocol") if dataset.get(key))
