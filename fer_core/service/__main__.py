"""The service in its container: `python -m fer_core.service`, set by FER_MODEL and FER_SERVICE_…."""

import os
import sys
from pathlib import Path

from fer_core.errors import FerError, ServiceError
from fer_core.service.limits import limits_from
from fer_core.service.server import serve


def main() -> None:
    """Serve; a mistake of the user's is one line and exit code 2."""
    environment = os.environ
    try:
        model = _model(Path(environment.get("FER_MODEL", "/model")))
        port = environment.get("FER_SERVICE_PORT", "8000")
        if not port.isdecimal():
            raise ServiceError(f"FER_SERVICE_PORT={port}: must be a whole number")
        serve(model, environment.get("FER_SERVICE_HOST", "127.0.0.1"), int(port), limits_from(environment))
    except FerError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


def _model(path: Path) -> Path:
    """The file itself, or the one in the folder."""
    if path.is_file():
        return path
    (*found,) = path.glob("*.onnx")
    if not found:
        raise ServiceError(
            f"no model at {path}; make one with `fer export … --to onnx` and set FER_MODEL to it: "
            "FER_MODEL=./model.onnx docker compose up serve"
        )
    if len(found) > 1:
        names = ", ".join(sorted(file.name for file in found))
        raise ServiceError(f"{path} holds several models ({names}); set FER_MODEL to the file of one")
    return found[0]


if __name__ == "__main__":
    main()
