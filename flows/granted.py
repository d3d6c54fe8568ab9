"""Limits of a run that was requested over the API: bundled experiments, and files below granted folders."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fer_core.errors import ExperimentError
from fer_core.experiment import Experiment, to_document
from openface.settings import OpenFaceSettings

DATA = "FER_DATA_FOLDER"
"""Environment: the dataset's folder where a run names none: `fer serve --data`, or where FER_DATA is mounted."""
ARTIFACTS = "FER_ARTIFACTS_FOLDER"
"""Environment: the folder below which a worker's runs put what they make; where it is set, `require_granted` counts."""
OPENFACE = "FER_OPENFACE_IMAGE"
"""Environment: OpenFace's image where it is not called as usual."""


def limits_apply() -> bool:
    """Tell whether this process runs what others ask for."""
    return ARTIFACTS in os.environ


def artifacts_folder() -> Path:
    """The folder below which a worker's runs put what they make."""
    return Path(os.environ[ARTIFACTS]).resolve()


def is_path(text: str) -> bool:
    """Tell whether a text leads out of the current folder, as a bare name does not."""
    return os.sep in text or text.startswith("~") or text == os.pardir


def require_granted_paths(**named: str | None) -> None:
    """See that the parameters of a run name nothing but what lies below the worker's folders, before any is read.

    Raises:
        ExperimentError: one of them names something else.
    """
    made, *others = _folders()
    for name, path in named.items():
        if path is not None:
            _require_below(name, path, [made] if name == "artifacts" else [made, *others])


def require_granted_settings(experiment: Experiment) -> None:
    """See that an experiment names no program, no image and no file but those below the worker's folders.

    Raises:
        ExperimentError: it names something else.
    """
    _require_own_program(experiment.openface)
    for name, path in _paths_in(experiment):
        _require_below(name, path, _folders())


def _folders() -> list[Path]:
    """First the one for what is made."""
    return [Path(os.environ[name]).resolve() for name in (ARTIFACTS, DATA) if name in os.environ]


def own_openface() -> OpenFaceSettings:
    """The OpenFace that this worker runs."""
    return OpenFaceSettings(image=os.environ.get(OPENFACE) or OpenFaceSettings().image)


def _require_own_program(openface: OpenFaceSettings) -> None:
    if openface.binary:
        raise ExperimentError("openface.binary: the worker runs no program of yours; it has OpenFace in an image")
    for key in ("image", "program"):
        value = getattr(own_openface(), key)
        if getattr(openface, key) != value:
            raise ExperimentError(
                f"openface.{key} = {getattr(openface, key)}: the worker runs its own, {value}; leave this setting out"
            )


def _paths_in(experiment: Experiment) -> Iterator[tuple[str, str]]:
    """Settings that are, or could be, the path of a file: every text with a `/` or a `~` in it, whatever its key.

    OpenFace's are left out: they are paths in its image, which `_require_own_program` looks at. So are a comparison's,
    whose cells are experiments of their own, each looked at like this one.
    """
    for section, settings in to_document(experiment).items():
        if isinstance(settings, dict) and section not in ("openface", "comparison"):
            yield from ((f"{section}.{key}", text) for key, text in _texts(settings))


def _texts(settings: dict[str, Any], above: str = "") -> Iterator[tuple[str, str]]:
    for key, value in settings.items():
        for text in value if isinstance(value, list) else [value]:
            if isinstance(text, dict):
                yield from _texts(text, f"{above}{key}.")
            elif isinstance(text, str) and is_path(text):
                yield f"{above}{key}", text


def _require_below(name: str, path: str, folders: list[Path]) -> None:
    """Links and `..` are followed first."""
    try:
        real = Path(path).expanduser().resolve()
    except (OSError, RuntimeError, ValueError) as error:
        raise ExperimentError(f"{name} = {path}: no path ({error})") from error
    if not any(real.is_relative_to(folder) for folder in folders):
        below = " or ".join(map(str, folders))
        raise ExperimentError(f"{name} = {path}: not below {below}, which are the folders that the worker has")
