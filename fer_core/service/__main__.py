"""The service in its container: `python -m fer_core.service`, set by FER_MODEL and FER_SERVICE_…."""

import os
import sys
from pathlib import Path

from fer_core.errors import FerError, ServiceError
from fer_core.exit_codes import ExitCode
from fer_core.service.limits import limits_from
from fer_core.service.server import serve


def main() -> None:
    """Serve; a mistake of the user's is one line and `ExitCode.MISTAKE`."""
    environment = os.environ
    try:
        model = Path(environment.get("FER_MODEL", "/model"))
        port = environment.get("FER_SERVICE_PORT", "8000")
        if not port.isdecimal():
            raise ServiceError(f"FER_SERVICE_PORT={port}: must be a whole number")
        serve(model, environment.get("FER_SERVICE_HOST", "127.0.0.1"), int(port), limits_from(environment))
    except FerError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(ExitCode.MISTAKE)


if __name__ == "__main__":
    main()
