"""Settings of OpenFace: program, arguments, batch sizes."""

import os
import shlex
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field
from pydantic.dataclasses import dataclass

from openface.errors import OpenFaceError

INSIDE = "FER_INSIDE"
"""Environment: set where this process runs in a container of the engine that it drives, beside its socket."""
ARGUMENTS = "FER_OPENFACE_ARGUMENTS"
"""Environment: `openface.arguments` of experiments that name none, as a shell has them."""

_OURS = ("-f", "-fdir", "-out_dir", "-of", "-ofdir", "-oc", "-root", "-inroot", "-outroot", "-bboxdir")
_NO_PICTURES = ("-cam", "-device", "-af")
"""Arguments that say what is read and where it is written, which is not the user's to say here."""


def _split(value: object) -> object:
    """A text as a shell would split it, a list as the tuple that it is to be."""
    if isinstance(value, str):
        return tuple(shlex.split(value))
    return tuple(value) if isinstance(value, list) else value


def _only_users(arguments: tuple[str, ...]) -> tuple[str, ...]:
    for argument in arguments:
        if argument in (*_OURS, *_NO_PICTURES):
            raise ValueError(f"{argument} is ours to give: OpenFace gets its images and its folder from this program")
        if argument.startswith("-") and len(argument.split()) > 1:
            option, *values = argument.split()
            raise ValueError(f'should have an argument and its value apart: "{option}", "{" ".join(values)}"')
    return arguments


def _arguments_of_environment() -> tuple[str, ...]:
    text = os.environ.get(ARGUMENTS, "")
    try:
        return _only_users(tuple(shlex.split(text)))
    except ValueError as error:
        raise OpenFaceError(f"{ARGUMENTS} = {text!r}: {error}") from error


@dataclass(frozen=True, config=ConfigDict(extra="forbid", strict=True, allow_inf_nan=False))
class OpenFaceSettings:
    """The program comes in an image, or is installed on this machine."""

    image: str = "fer-openface:0.1.0"
    """Built from openface/Dockerfile."""
    program: str = "/home/openface-build/build/bin/FaceLandmarkImg"
    """Its absolute path in the image."""
    binary: str = ""
    """Absolute path of a FaceLandmarkImg on this machine; then no image and no engine is needed."""
    arguments: Annotated[tuple[str, ...], BeforeValidator(_split), AfterValidator(_only_users)] = Field(
        default_factory=_arguments_of_environment
    )
    """After `-fdir`, `-out_dir`, `-aus` and `-2Dfp`; `["-mloc", "model/main_clnf_general.txt"]` is another landmark
    model. Where an experiment names none, those of FER_OPENFACE_ARGUMENTS."""
    batch: Annotated[int, Field(ge=1, le=1000)] = 500
    """Images given to one run of the program, which takes most of a second to load its models."""
    workers: Annotated[int, Field(ge=0)] = 0
    """Runs at a time; 0 is one a core."""
    seconds_to_start: Annotated[float, Field(gt=0)] = 30.0
    seconds_per_image: Annotated[float, Field(gt=0)] = 0.5
    """With `seconds_to_start`, how long a batch may take; the program needs 0.03 s an image, 0.34 s with `-wild`."""
