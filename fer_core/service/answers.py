"""The service's answers and errors, as its OpenAPI document describes them."""

from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from fer_core.data.crops import Box
from fer_core.evaluation.uncertainty import uncertainty
from fer_core.export.onnx_model import ModelFacts
from fer_core.service.upload import ALIGNED, FILES

_FACE: dict[str, Any] = {
    "box": {"left": 153, "top": 96, "side": 210},
    "emotion": "happiness",
    "probabilities": {"neutral": 0.06, "happiness": 0.92, "sadness": 0.02},
    "uncertainty": 0.29,
}
_READ: dict[str, Any] = {"name": "portrait.png", "width": 512, "height": 512, "faces": [_FACE]}
_FAILED: dict[str, Any] = {"name": "notes.txt", "error": "not an image of a known format"}


class _Answer(BaseModel):
    model_config = ConfigDict(extra="forbid")


class BoxAnswer(_Answer):
    """A square in the image's pixels, which may reach beyond the image."""

    left: int
    top: int
    side: int = Field(gt=0)


class FaceAnswer(_Answer):
    """A face, and what the model makes of it."""

    box: BoxAnswer
    emotion: str = Field(description="The label of the highest probability.")
    probabilities: dict[str, float] = Field(description="Of each label; they sum to 1.")
    uncertainty: float = Field(
        ge=0,
        le=1,
        description="Entropy of the probabilities over that of a uniform guess: 0 is certain, 1 knows nothing.",
    )


class ReadFile(_Answer):
    """An image that could be read; one without a face has no faces."""

    model_config = ConfigDict(json_schema_extra={"examples": [_READ]})
    name: str
    width: int = Field(gt=0, description="In pixels, after the image was turned as its EXIF data says.")
    height: int = Field(gt=0)
    faces: list[FaceAnswer] = Field(description="The largest first.")
    remark: str | None = Field(
        None, description="What was concluded about a file that does not say it: its range, its first picture of many."
    )


class FailedFile(_Answer):
    """A file that could not be read, and why."""

    model_config = ConfigDict(json_schema_extra={"examples": [_FAILED]})
    name: str
    error: str


class PredictAnswer(_Answer):
    """An answer for each file, in the order in which they were sent."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"files": [_READ, _FAILED]}]})
    files: list[ReadFile | FailedFile]


class Problem(_Answer):
    """The reason of an error."""

    detail: str
    files: list[FailedFile] | None = Field(None, description="Each file's own reason, where it is the files.")


class ModelAnswer(_Answer):
    """The model's metadata."""

    name: str
    architecture: str
    labels: list[str]
    trained_on: str
    accuracy: dict[str, Any] | None = Field(
        description="On so many `images` of its test split, or of that of the `dataset`, where one is named: `value`, "
        "`low` and `high` of its interval, in 0..1."
    )
    calibration_error: float | None = Field(description="Of its probabilities on the same images, in 0..1.")
    precision: str = Field(description="Of its weights and activations.", examples=["float32"])
    licence: str
    limits: str = Field(description="What it is not for.")
    fer_version: str


class HealthAnswer(_Answer):
    """The service answers, and with which model."""

    status: str = Field(examples=["ok"])
    model: ModelAnswer
    request_bytes: int = Field(description="Of a request's body, at most.")
    request_files: int = Field(description="In one request, at most.")
    image_pixels: int = Field(description="Of an image, at most.")
    request_seconds: float = Field(description="Until a request is given up.")


def face_answer(labels: tuple[str, ...], box: Box, probabilities: np.ndarray) -> FaceAnswer:
    """A face's answer; probabilities are (classes,) and sum to 1."""
    return FaceAnswer(
        box=BoxAnswer(left=box.left, top=box.top, side=box.side),
        emotion=labels[int(probabilities.argmax())],
        probabilities={name: round(float(p), 6) for name, p in zip(labels, probabilities, strict=True)},
        uncertainty=round(uncertainty(probabilities), 6),
    )


def model_answer(facts: ModelFacts) -> ModelAnswer:
    """The model, as `/health` describes it."""
    return ModelAnswer(
        name=facts.name,
        architecture=facts.architecture,
        labels=list(facts.labels),
        trained_on=facts.trained_on,
        accuracy=facts.accuracy,
        calibration_error=facts.calibration_error,
        precision=facts.precision,
        licence=facts.licence,
        limits=facts.limits,
        fer_version=facts.fer_version,
    )


def _problem(description: str, example: dict[str, Any]) -> dict[str, Any]:
    return {
        "model": Problem,
        "description": description,
        "content": {"application/json": {"example": example}},
    }


_AGAIN = {"Retry-After": {"description": "Seconds to wait.", "schema": {"type": "integer"}}}

PROBLEMS: dict[int | str, dict[str, Any]] = {
    408: _problem("The body took too long to arrive.", {"detail": "the body took longer than 30 s to arrive"}),
    413: _problem(
        "Too many bytes or files; said as soon as that is clear, not at the body's end.",
        {"detail": "the request has more than 32 files; send fewer at a time"},
    ),
    415: _problem("Not multipart.", {"detail": "send multipart/form-data, with one or many files as `files`"}),
    422: _problem(
        "No file could be read, or the form is not what is asked for.",
        {"detail": "none of the files could be read", "files": [_FAILED]},
    ),
    503: _problem("Too much to do at the moment, or for too long.", {"detail": "too many requests at once; try again"})
    | {"headers": _AGAIN},
}

REQUEST_BODY: dict[str, Any] = {
    "required": True,
    "content": {
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "required": [FILES],
                "additionalProperties": False,
                "properties": {
                    FILES: {
                        "type": "array",
                        "minItems": 1,
                        "items": {"type": "string", "format": "binary"},
                        "description": "JPEG, PNG, WebP, HEIC, AVIF, BMP, TIFF, GIF or PPM; of several, the first.",
                    },
                    ALIGNED: {
                        "type": "boolean",
                        "default": False,
                        "description": "The images are faces already: each is one face, and none is looked for.",
                    },
                },
            }
        }
    },
}
"""Written out, since the body is read by `fer_core.service.upload` and not by FastAPI."""
