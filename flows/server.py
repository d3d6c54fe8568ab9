"""Prefect's server: the user's where there is one, and otherwise Prefect's own for the length of a run.

Prefect would start that one by itself, a little later and in this process's group. Started here, it gets up while
Prefect is still being imported, outlives Ctrl-C for long enough to be told of it, and keeps its log to itself.
"""

import atexit
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import tomllib
import urllib.error
import urllib.request
from pathlib import Path

from fer_core.errors import FerError

LOCAL = "http://127.0.0.1:4200/api"
_OFF_THE_NETWORK = {
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
    # The new UI calls an analytics host with all of the above set.
    "PREFECT_SERVER_UI_V2_ENABLED": "false",
}
_EPHEMERAL = {"PREFECT__SERVER_EPHEMERAL": "1", "PREFECT__SERVER_FINAL": "1", "PREFECT_UI_ENABLED": "0"}
_QUIET = {
    "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL",
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "60",
}


class NoServer(FerError):
    """A Prefect server that does not answer."""


def keep_prefect_off_the_network() -> None:
    """Prefect's settings for that, where the user has not set them; to be called before it is imported."""
    for name, value in _OFF_THE_NETWORK.items():
        os.environ.setdefault(name, value)


def keep_prefect_quiet() -> None:
    """Leave the terminal to the display; Prefect's logs still go to its server."""
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)


def users_server() -> str | None:
    """The API's address in the environment or in Prefect's active profile."""
    if url := os.environ.get("PREFECT_API_URL"):
        return url
    home = Path(os.environ.get("PREFECT_HOME", "~/.prefect")).expanduser()
    try:
        profiles = tomllib.loads((home / "profiles.toml").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    active = os.environ.get("PREFECT_PROFILE", profiles.get("active"))
    url = profiles.get("profiles", {}).get(active, {}).get("PREFECT_API_URL")
    return None if url is None else str(url)


def require_server() -> None:
    """See that the user's server answers, the usual local one where none is named.

    Raises:
        NoServer: it does not.
    """
    url = users_server() or LOCAL
    if not answers(url, timeout=5.0):
        raise NoServer(
            f"{url}: no Prefect server answers there; start one with `prefect server start`, or set PREFECT_API_URL"
        )
    os.environ.setdefault("PREFECT_API_URL", url)


class OwnServer:
    """Prefect's server on SQLite, at a free port, until this process ends."""

    def __init__(self) -> None:
        port = free_port()
        self._url = f"http://127.0.0.1:{port}/api"
        self._log = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115 - closed by stop
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "flows.server", str(port)],
            env=os.environ | _EPHEMERAL,
            stdin=subprocess.PIPE,
            stdout=self._log,
            stderr=self._log,
            start_new_session=True,
        )
        # Prefect hands in its last events while threads are shut down, which comes before this.
        atexit.register(self.stop)
        os.environ["PREFECT_API_URL"] = self._url

    def wait(self) -> None:
        """Until it answers.

        Raises:
            NoServer: it ended, or did not answer in time.
        """
        deadline = time.monotonic() + float(os.environ["PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS"])
        while self._process.poll() is None and time.monotonic() < deadline:
            if answers(self._url, timeout=5.0):
                return
            time.sleep(0.05)
        self._log.seek(0)
        lines = self._log.read().split("\n")
        reason = next((line for line in reversed(lines) if line.strip()), "it said nothing")
        raise NoServer(f"Prefect's own server did not start ({reason}); set PREFECT_API_URL to one that runs")

    def stop(self, patience: float = 2.0) -> None:
        """End it, by force after some seconds; again does nothing."""
        self._process.terminate()
        try:
            self._process.wait(timeout=patience)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.stdin:
            self._process.stdin.close()
        self._log.close()


def serve_for_parent(port: int) -> None:
    """Be the server, as Prefect's SubprocessASGIServer is one, while there is a process at the other end of stdin."""

    def end_with_parent() -> None:
        os.read(sys.stdin.fileno(), 1)
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=end_with_parent, daemon=True).start()
    import uvicorn

    app = "prefect.server.api.server:create_app"
    uvicorn.run(app, factory=True, host="127.0.0.1", port=port, log_level="error", lifespan="on")


def answers(url: str, timeout: float) -> bool:
    """Whether a Prefect server answers there."""
    try:
        with urllib.request.urlopen(f"{url.rstrip('/')}/health", timeout=timeout):
            return True
    except urllib.error.HTTPError:
        return True  # It wants a key, which Prefect knows and this does not.
    except (OSError, ValueError):
        return False


def free_port() -> int:
    """A port that nobody listens at now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


if __name__ == "__main__":
    serve_for_parent(int(sys.argv[1]))
