"""How OpenFace is run: which program, with what arguments, how much at a time."""

from typing import Annotated

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

INSIDE = "FER_INSIDE"
"""Environment: set where this process runs in a container of the engine that it drives, beside its socket."""


@dataclass(frozen=True, config=ConfigDict(extra="forbid", strict=True, allow_inf_nan=False))
class OpenFaceSettings:
    """The program comes in an image, or is installed on this machine."""

    image: str = "fer-openface:0.1.0"
    """Built from openface/Dockerfile."""
    program: str = "/home/openface-build/build/bin/FaceLandmarkImg"
    """Its absolute path in the image."""
    binary: str = ""
    """Absolute path of a FaceLandmarkImg on this machine; then no image and no engine is needed."""
    arguments: tuple[str, ...] = ()
    """After `-fdir`, `-out_dir` and `-aus`; `["-mloc", "model/main_clnf_general.txt"]` is another landmark model."""
    batch: Annotated[int, Field(ge=1, le=1000)] = 500
    """Images given to one run of the program, which takes most of a second to load its models."""
    workers: Annotated[int, Field(ge=0)] = 0
    """Runs at a time; 0 is one a core."""
    seconds_to_start: Annotated[float, Field(gt=0)] = 30.0
    seconds_per_image: Annotated[float, Field(gt=0)] = 0.5
    """With `seconds_to_start`, how long a batch may take; the program needs 0.03 s an image, 0.34 s with `-wild`."""
