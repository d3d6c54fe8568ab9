"""The service in its container: `python -m fer_core.service`, set by FER_MODEL and FER_SERVICE_…."""

import os
import sys
from collections.abc import Mapping
from pathlib import Path

from fer_core.errors import FerError, ServiceError
from fer_core.exit_codes import ExitCode
from fer_core.service.limits import limits_from
from fer_core.service.server import serve

_OF_A_SERVICE = ("tcp://", "udp://")
"""How Kubernetes begins the address of a Service."""


def main() -> None:
    """Serve; a mistake of the user's is one line and `ExitCode.MISTAKE`."""
    environment = os.environ
    try:
        model = Path(environment.get("FER_MODEL") or "/model")
        serve(model, *listen_at(environment), limits_from(environment))
    except FerError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(ExitCode.MISTAKE)


def listen_at(environment: Mapping[str, str]) -> tuple[str, int]:
    """Host and port: those that were set, and not those that Kubernetes tells of a Service called `fer`.

    Kubernetes tells each container, under names like ours and in place of what its image sets, where the Services of
    its namespace are: of `fer` as FER_SERVICE_HOST and FER_SERVICE_PORT, of `fer-service` as FER_SERVICE_PORT.

    Raises:
        ServiceError: the port is no number.
    """
    host, port = environment.get("FER_SERVICE_HOST") or "127.0.0.1", environment.get("FER_SERVICE_PORT") or "8000"
    if environment.get("FER_PORT", "").startswith(_OF_A_SERVICE):
        host, port = "0.0.0.0", "8000"
    if port.startswith(_OF_A_SERVICE):
        port = "8000"
    if not port.isdecimal():
        raise ServiceError(f"FER_SERVICE_PORT={port}: must be a whole number")
    return host, int(port)


if __name__ == "__main__":
    main()
