"""The folder of reports over HTTP, for the links in Prefect's UI: behind its password, and for its own pages alone."""

import base64
import hmac
import os
import signal
import sys
from functools import partial
from http import HTTPStatus
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from fer_core.paths import stays_below
from flows.guard import own_names, refusal

PASSWORD = "FER_PASSWORD"
"""Environment: `user:password`, or empty for none."""
_ADDRESS = "FER_REPORTS_URL"
"""What people set in compose.yaml's environment; it hands it on under the guard's own name."""
_PORT = 4201
_CLOSED = "this server's user may not read it; chmod a+x the artifacts, and chmod -R a+rX the folder report in them"
"""Not all of them: the password lies beside the reports."""


class _Reports(SimpleHTTPRequestHandler):
    """Files below a folder, to whoever knows the password."""

    timeout = 30.0
    """Seconds after which a connection that says nothing is given up."""

    def __init__(self, password: str, *arguments: object, **options: object) -> None:
        self._wanted = f"Basic {base64.b64encode(password.encode()).decode()}" if password else ""
        self._names = own_names()
        super().__init__(*arguments, **options)  # type: ignore[arg-type]

    def parse_request(self) -> bool:
        if not super().parse_request():
            return False
        headers = [(name.lower(), value) for name, value in self.headers.items()]
        if reason := refusal(self.command, headers, self._names, _ADDRESS):
            self.send_error(HTTPStatus.FORBIDDEN, f"refused: {reason}")
            return False
        given = self.headers.get("Authorization", "")
        if self._wanted and not hmac.compare_digest(given.encode("utf-8", "replace"), self._wanted.encode()):
            self.send_response(HTTPStatus.UNAUTHORIZED)
            self.send_header("WWW-Authenticate", 'Basic realm="fer"')
            self.send_header("Content-Length", "0")
            self.end_headers()
            return False
        return True

    def send_head(self) -> Any:
        """Open the file that a request asks for, unless a link leads out of the folder to it, or it may not be read."""
        asked = self.translate_path(self.path)
        # Of a folder, the first of these two is opened where it is there.
        opened = [asked, *(os.path.join(asked, index) for index in ("index.html", "index.htm"))]
        if any(map(_is_closed, opened)):
            self.send_error(HTTPStatus.FORBIDDEN, _CLOSED)
            return None
        if not all(stays_below(Path(file), Path(self.directory)) for file in opened):
            self.send_error(HTTPStatus.NOT_FOUND, "File not found")
            return None
        return super().send_head()

    def end_headers(self) -> None:
        """Let a page show its own pictures and styles, and neither run nor fetch anything."""
        self.send_header("Content-Security-Policy", "default-src 'none'; img-src data:; style-src 'unsafe-inline'")
        self.send_header("X-Content-Type-Options", "nosniff")
        super().end_headers()


def _is_closed(path: str) -> bool:
    """Tell whether this user may not read what is there, such as what was made with umask 077."""
    try:
        os.stat(path)
    except PermissionError:
        return True
    except (OSError, ValueError):
        return False
    return not os.access(path, os.X_OK if os.path.isdir(path) else os.R_OK)


def reports_server(folder: str, host: str, port: int, password: str) -> ThreadingHTTPServer:
    """A server that is bound and not yet serving."""
    return ThreadingHTTPServer((host, port), partial(_Reports, password, directory=folder))


def main() -> None:
    """Serve the folder named on the command line, to the container's network, until SIGTERM."""
    # A container's first process is not ended by it unless it says so, and would be waited for and killed.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(0))
    reports_server(sys.argv[1], "0.0.0.0", _PORT, os.environ.get(PASSWORD, "")).serve_forever()


if __name__ == "__main__":
    main()
