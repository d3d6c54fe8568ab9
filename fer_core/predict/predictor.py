"""Emotions of the faces in images: `Predictor(path)(images)`."""

import os
import threading
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from PIL import Image

from fer_core.data.crops import Box, whole_image
from fer_core.errors import CheckpointError, InputError
from fer_core.evaluation.uncertainty import uncertainty
from fer_core.models.facts import CARD, ModelFacts, facts_of, onnx_files
from fer_core.paths import at_home
from fer_core.predict.detector import Detector, open_detector
from fer_core.predict.sources import Frame
from openface.decoding import Picture, UnreadableImage, open_image, remark_of

CASCADE = "cascade"
_HELD = 50_000_000
"""Pixels of images that are held in memory, above which their faces are read however few they are."""

_EXACTLY = threading.Lock()
"""What keeps a GPU from rounding is a setting of the process: who ends first would undo it for the others."""


@dataclass(frozen=True)
class FacePrediction:
    """A face and its prediction."""

    box: Box
    """Its place, in pixels of the image."""
    probabilities: dict[str, float]
    """By label, at the model's temperature; they sum to 1."""
    emotion: str
    """The most probable label."""
    uncertainty: float
    """Entropy of the probabilities over its largest, 0 (sure) to 1 (no idea)."""


class Model(Protocol):
    """(N, S, S, 3) uint8 RGB faces of the model's stored size → (N, classes) probabilities."""

    @property
    def facts(self) -> ModelFacts: ...

    def __call__(self, faces: np.ndarray) -> np.ndarray: ...


class Predictor:
    """Finds faces and reads them: a checkpoint's folder or an exported .onnx file, on images of any kind.

    Args:
        path: what `fer distill`, `fer train-ldg` or `fer export` made.
        detector: `cascade`, a YuNet model's .onnx file, or None for images that are faces already.
        batch: faces at a time; at most as many images are held in memory, and fewer large ones.

    Raises:
        CheckpointError: `path` is no model of this project.
        DetectorError: there is no such detector.

    Example:
        >>> for faces in Predictor("artifacts/distill/…")(["photo.jpg"]):
        ...     print([face.emotion for face in faces])
    """

    def __init__(self, path: str | Path, detector: str | None = CASCADE, batch: int = 32) -> None:
        self._path = at_home(path)
        self._model = open_model(self._path)
        self._detect: Detector = whole_image if detector is None else open_detector(detector)
        self._batch = batch

    @property
    def facts(self) -> ModelFacts:
        """What the model says of itself."""
        return self._model.facts

    @property
    def looks_for_faces(self) -> bool:
        """False where images are taken for faces as they are."""
        return self._detect is not whole_image

    def __call__(self, images: Iterable[Picture]) -> Iterator[list[FacePrediction]]:
        """The faces of each image, the largest first, as the images come; none where there is no face.

        A warning says what was concluded about an image whose file does not say it, such as its range.

        Raises:
            InputError: an image cannot be read, once the faces of those before it have come; or `images` is a
                single one.
            CheckpointError: the model gives no probabilities.
        """
        if _is_one(images):
            raise InputError(f"{type(images).__name__}: one picture and no list of them; give [it], in brackets")
        return (faces for _, faces in self.read(_as_frame(image) for image in images))

    def read(self, frames: Iterable[Frame], *, at_once: bool = False) -> Iterator[tuple[Frame, list[FacePrediction]]]:
        """Each frame with its faces, in their order, in constant memory; a frame without pixels has none.

        Args:
            at_once: a frame waits for no others to be read with.
        """
        held: list[tuple[Frame, list[Box]]] = []
        try:
            for frame in frames:
                held.append((frame, [] if frame.pixels is None else self._detect(frame.pixels)))
                if at_once or self._is_enough(held):
                    yield from self._judged(held)
                    held = []
        except InputError:
            yield from self._judged(held)
            raise
        yield from self._judged(held)

    def _is_enough(self, held: list[tuple[Frame, list[Box]]]) -> bool:
        pixels = sum(frame.pixels.size // 3 for frame, _ in held if frame.pixels is not None)
        return max(len(held), sum(len(boxes) for _, boxes in held)) >= self._batch or pixels >= _HELD

    def _judged(self, held: list[tuple[Frame, list[Box]]]) -> Iterator[tuple[Frame, list[FacePrediction]]]:
        faces = [self._cut_out(frame, box) for frame, boxes in held for box in boxes]
        parts = [self._probabilities(faces[i : i + self._batch]) for i in range(0, len(faces), self._batch)]
        probabilities = iter(np.concatenate(parts) if parts else ())
        for frame, boxes in held:
            yield frame, [self._prediction(box, next(probabilities)) for box in boxes]

    def _probabilities(self, faces: list[np.ndarray]) -> np.ndarray:
        """(faces, classes); what is no number would else look like the first class, and sure of it."""
        found, labels = self._model(np.stack(faces)), len(self.facts.labels)
        if found.shape != (len(faces), labels) or not np.isfinite(found).all():
            raise CheckpointError(f"{self._path}: gives no probabilities of its {labels} labels; make it again")
        return found

    def _cut_out(self, frame: Frame, box: Box) -> np.ndarray:
        assert frame.pixels is not None, "only frames with pixels have faces"
        return self.facts.face_format.cut_out(frame.pixels, box)

    def _prediction(self, box: Box, probabilities: np.ndarray) -> FacePrediction:
        by_label = dict(zip(self.facts.labels, map(float, probabilities), strict=True))
        return FacePrediction(box, by_label, max(by_label, key=by_label.__getitem__), uncertainty(probabilities))


def open_model(path: Path) -> Model:
    """A checkpoint's folder, an exported .onnx file, or the folder that it lies in; of several float32's.

    Raises:
        CheckpointError: it is none of these.
    """
    if (path / CARD).is_file():
        return TorchModel(path)
    exported = next(iter(onnx_files(path)), None)
    if exported is not None and exported.suffix.lower() == ".onnx":
        from fer_core.export.onnx_model import OnnxModel

        return OnnxModel(exported)
    raise CheckpointError(
        f"{path}: no model; give the folder that `fer distill` or `fer train-ldg` made, or an exported .onnx file"
    )


class TorchModel:
    """A checkpoint's selected epoch, on the GPU where there is one."""

    def __init__(self, folder: Path) -> None:
        from fer_core.devices import choose_device
        from fer_core.models.checkpoint import load_checkpoint
        from fer_core.models.deployed import Deployed

        model, card = load_checkpoint(folder)
        self.facts = facts_of(card)
        self._device = choose_device("auto")
        self._model = Deployed(model, card).eval().to(self._device)

    def __call__(self, faces: np.ndarray) -> np.ndarray:
        import torch

        from fer_core.devices import exact_inference

        with _EXACTLY, exact_inference():
            result: np.ndarray = self._model(torch.from_numpy(faces).to(self._device)).cpu().numpy()
        return result


def _is_one(images: object) -> bool:
    """Tell a picture from what holds pictures; an array's last axis is a picture's colours, or its columns."""
    shape = tuple(getattr(images, "shape", ()))
    is_array_of_one = len(shape) == 2 or (len(shape) == 3 and shape[2] in (1, 3, 4))
    is_named = isinstance(images, str | os.PathLike | bytes | bytearray | memoryview)
    return is_named or is_array_of_one or isinstance(images, Image.Image) or hasattr(images, "read")


def _as_frame(image: Picture) -> Frame:
    name = os.fspath(image) if isinstance(image, str | os.PathLike) else ""
    try:
        decoded = open_image(image)
    except UnreadableImage as unreadable:
        raise InputError(f"{unreadable}; leave it out, or give pictures one by one and catch this") from unreadable
    if remark := remark_of(decoded):
        warnings.warn(f"{name or type(image).__name__}: {remark}", stacklevel=2)
    return Frame(name, np.asarray(decoded.convert("RGB")), remark=remark)
