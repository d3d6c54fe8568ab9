"""Prefect's server: the user's where there is one, and otherwise Prefect's own, for as long as a command takes.

Prefect would start that one by itself, a little later and in this process's group. Started here, it gets up while
Prefect is still being imported, outlives Ctrl-C for long enough to be told of it, and keeps its log to itself.
"""

import atexit
import base64
import http.client
import os
import re
import secrets
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
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit

from fer_core.errors import FerError
from fer_core.paths import at_home
from flows.guard import App, OnlyOwnPages, configured_address, own_names

LOCAL = "http://127.0.0.1:4200/api"
_LOOPBACK = ("127.0.0.1", "localhost", "::1", "0.0.0.0")
"""The last is where servers listen, and what their users then ask."""
_CLOUD = ".prefect.cloud"
_OFF_THE_NETWORK = {
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
    # The new UI calls an analytics host with all of the above set.
    "PREFECT_SERVER_UI_V2_ENABLED": "false",
}
_EPHEMERAL = {"PREFECT__SERVER_EPHEMERAL": "1", "PREFECT__SERVER_FINAL": "1", "PREFECT_UI_ENABLED": "0"}
_QUIET = {"PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL"}
_SECONDS_TO_START = 60.0
_RAISED = re.compile(r"[\w.]+(Error|Exception): ")
"""How the line of a traceback begins that says what was wrong."""


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
    return prefect_setting("PREFECT_API_URL")


def prefect_setting(name: str) -> str | None:
    """A setting of Prefect's, from the environment or its active profile, without importing it."""
    if value := os.environ.get(name):
        return value
    home = at_home(os.environ.get("PREFECT_HOME", "~/.prefect"))
    try:
        profiles = tomllib.loads((home / "profiles.toml").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    active = os.environ.get("PREFECT_PROFILE", profiles.get("active"))
    value = profiles.get("profiles", {}).get(active, {}).get(name)
    return None if value is None else str(value)


def prefect_home() -> Path:
    """Prefect's folder, made where it is missing; its server keeps a database there.

    Raises:
        NoServer: this user may not write there, as one without a home.
    """
    home = Path(os.environ.get("PREFECT_HOME", "~/.prefect"))
    reason = ""
    try:
        home = home.expanduser()
        home.mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
    if reason or not os.access(home, os.W_OK | os.X_OK):
        raise NoServer(
            f"{home}: {reason or 'not writable by you'}; Prefect keeps its database there: set PREFECT_HOME to a "
            "folder that you may write"
        )
    return home


@contextmanager
def reading_settings() -> Iterator[None]:
    """Around the first import of Prefect, which reads its settings then.

    Raises:
        NoServer: one cannot be read; its traceback would be a page long.
    """
    try:
        yield
    except ValueError as error:
        # Pydantic's, which is not loaded for this alone.
        if type(error).__name__ != "ValidationError":
            raise
        raise NoServer(f"a setting of Prefect's cannot be read: {_first_wrong(error)}; unset or mend it") from error


def _first_wrong(error: Any) -> str:
    first: dict[str, Any] = error.errors()[0]
    given = str(first["input"])
    # Pydantic tells the end of its name alone, and where it came from not at all.
    ours = (name for name, value in os.environ.items() if name.startswith("PREFECT") and value.lower() == given.lower())
    return f"{next(ours, '.'.join(map(str, first['loc'])))}={given}: {first['msg']}"


def require_server() -> None:
    """See that the user's server answers, the usual local one where none is named, and that Prefect will find it.

    Raises:
        NoServer: it does not, or it is not Prefect's, or it wants another password.
    """
    url = (users_server() or LOCAL).rstrip("/")
    reach_this_machine_directly(url)
    if wrong := trouble_with(url):
        raise NoServer(wrong)
    os.environ["PREFECT_API_URL"] = url


def own_address() -> str:
    """The API's address: PREFECT_API_URL, which has to be one of this machine alone, or the usual one.

    Raises:
        NoServer: it is another.
    """
    named = (users_server() or LOCAL).rstrip("/")
    with suppress(ValueError):
        parts = urlsplit(named)
        if (parts.scheme, parts.path) == ("http", "/api") and parts.hostname in ("127.0.0.1", "localhost"):
            return f"http://127.0.0.1:{parts.port or 80}/api"
    raise NoServer(
        f"PREFECT_API_URL = {named}: `fer serve` opens a server of its own on this machine; set it to an address such "
        f"as {LOCAL}"
    )


def trouble_with(url: str) -> str:
    """Explain in one line what is wrong with an address of Prefect's API; "" if nothing is."""
    no_address = f"{url}: no address of a server; set PREFECT_API_URL to one such as {LOCAL}"
    no_answer = f"{url}: no Prefect server answers there; start one with `prefect server start`, or set PREFECT_API_URL"
    if not url.lower().startswith(("http://", "https://")) or not _host(url):
        return no_address
    try:
        status, said = _get(f"{url}/health")
    except (ValueError, http.client.InvalidURL):
        return no_address
    except OSError:
        return no_answer
    except http.client.HTTPException:
        status, said = 0, b""
    if said.startswith(b"refused: "):
        return f"{url}: {said.decode().strip()}"
    if _host(url).endswith(_CLOUD) or status in (401, 403):
        return ""  # It wants a key, which Prefect knows and this does not.
    if (status, said.strip()) != (200, b"true"):
        return f"{url}: {_not_prefect(url)}"
    password = prefect_setting("PREFECT_API_AUTH_STRING") or ""
    try:
        status, _ = _get(f"{url}/admin/version", password)
    except (OSError, http.client.HTTPException):  # It ended meanwhile.
        return no_answer
    if status == 401:
        wanted = "another password than PREFECT_API_AUTH_STRING's" if password else "a password"
        return (
            f"{url}: wants {wanted}; set PREFECT_API_AUTH_STRING to the server's user:password, which "
            "`docker compose up` keeps in artifacts/.password"
        )
    return ""


def _host(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""


def _not_prefect(url: str) -> str:
    """Say what to do about a server that is not Prefect's, or not its API."""
    parts = urlsplit(url)
    api = f"{parts.scheme}://{parts.netloc}/api"
    with suppress(OSError, ValueError, http.client.HTTPException):
        if url != api and _get(f"{api}/health")[1].strip() == b"true":
            return f"Prefect's API is not there but at {api}; add /api to PREFECT_API_URL"
    return f"a server answers there that is not Prefect's; set PREFECT_API_URL to Prefect's, such as {LOCAL}"


def _get(url: str, password: str = "") -> tuple[int, bytes]:
    """Status and the beginning of the body.

    Raises:
        OSError: nobody answers.
        ValueError: it is no URL.
        http.client.HTTPException: who answers does not speak HTTP.
    """
    credentials = base64.b64encode(password.encode()).decode()
    request = urllib.request.Request(url, headers={"Authorization": f"Basic {credentials}"} if password else {})
    try:
        with urllib.request.urlopen(request, timeout=5.0) as answer:
            return answer.status, answer.read(4096)
    except urllib.error.HTTPError as refused:
        with refused:
            return refused.code, refused.read(4096)


def reach_this_machine_directly(url: str) -> None:
    """Keep what goes to this machine itself away from proxies, in this process and in those that it starts.

    A SOCKS proxy is forgotten altogether where Prefect's server is on this machine: its client fails of one that it
    cannot use, even for addresses that never pass through it.
    """
    known = ",".join(os.environ.get(name, "") for name in ("no_proxy", "NO_PROXY")).split(",")
    names = dict.fromkeys(name.strip() for name in (*known, *_LOOPBACK) if name.strip())
    os.environ["no_proxy"] = os.environ["NO_PROXY"] = "*" if "*" in names else ",".join(names)
    if _host(url) in _LOOPBACK:
        for name, value in list(os.environ.items()):
            if name.lower().endswith("_proxy") and value.lower().startswith("socks"):
                del os.environ[name]


class OwnServer:
    """Prefect's server on SQLite behind the guard, on this machine's loopback, for as long as this process lives."""

    def __init__(self, url: str, settings: Mapping[str, str], password: str) -> None:
        """Start it, and let this process's clients know it.

        Args:
            url: its API's, at a port that is free.
            settings: Prefect's, by their environment variables.
            password: `user:password`, or "" to ask for none.
        """
        self._url = url
        reach_this_machine_directly(url)
        self._log = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115 - closed by stop
        locked = {"PREFECT_SERVER_API_AUTH_STRING": password} if password else {}
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "flows.prefect_server", str(urlsplit(url).port)],
            env=os.environ | settings | locked,
            stdin=subprocess.PIPE,
            stdout=self._log,
            stderr=self._log,
            start_new_session=True,
        )
        # Prefect hands in its last events while threads are shut down, which comes before this.
        atexit.register(self.stop)
        os.environ["PREFECT_API_URL"] = url
        if password:
            os.environ["PREFECT_API_AUTH_STRING"] = password

    @property
    def runs(self) -> bool:
        """Tell whether it has not ended."""
        return self._process.poll() is None

    def wait(self) -> None:
        """Wait until it answers.

        Raises:
            NoServer: it ended, or did not answer in time.
        """
        deadline = time.monotonic() + _SECONDS_TO_START
        while self.runs and time.monotonic() < deadline:
            if answers(self._url):
                return
            time.sleep(0.05)
        raise NoServer(f"Prefect's own server did not start {self.why()}")

    def why(self) -> str:
        """Its last words, and what to do about them."""
        return (
            f"({self.last_words()}); it keeps its database in {prefect_home()}: see that there is room, set "
            "PREFECT_HOME to another folder, or PREFECT_API_URL to a server that runs"
        )

    def last_words(self) -> str:
        """The last error that it told of; without one, the last line that it printed."""
        self._log.seek(0)
        lines = [line.strip() for line in self._log if line.strip()]
        errors = [line for line in lines if _RAISED.match(line)]
        return (errors or lines or ["it said nothing"])[-1]

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


def server_of_a_run() -> OwnServer:
    """Start a server at a free port, for this process alone."""
    # Whoever else is on this machine, a page in a browser included, has no business there.
    prefect_home()
    password = f"fer:{secrets.token_urlsafe(24)}"
    return OwnServer(f"http://127.0.0.1:{free_port()}/api", _EPHEMERAL, password)


def end_with_parent() -> None:
    """End with all that this process started, as soon as the process at the other end of stdin ends."""

    def wait_for_end() -> None:
        os.read(sys.stdin.fileno(), 1)
        # This process leads a session of its own.
        os.killpg(os.getpid(), signal.SIGKILL)

    threading.Thread(target=wait_for_end, daemon=True).start()


def serve_guarded(host: str, port: int, log_level: str, *names: str) -> None:
    """Be Prefect's server, to which requests come only by its own names and from its own pages.

    Args:
        host, port: where it listens.
        names: what else than this machine's loopback it may be called.
    """
    import uvicorn
    from prefect.server.api.server import create_app
    from prefect.settings import get_current_settings

    api = get_current_settings().server.api
    uvicorn.run(
        OnlyOwnPages(cast(App, create_app(final=True)), own_names(*names)),
        host=host,
        port=port,
        log_level=log_level,
        lifespan="on",
        timeout_keep_alive=api.keepalive_timeout,
        ws_ping_interval=api.websocket_ping_interval,
        ws_ping_timeout=api.websocket_ping_timeout,
    )


def serve_in_container() -> None:
    """Be the server of `docker compose up`, whose pages ask at FER_URL."""
    if address := configured_address():
        # As it was written, with a slash at its end, it would make `//api`, where there is nothing.
        os.environ |= {"PREFECT_UI_API_URL": f"{address}/api", "PREFECT_UI_URL": address}
    serve_guarded("0.0.0.0", 4200, "warning", "server")


def answers(url: str) -> bool:
    """Tell whether a Prefect server answers there."""
    try:
        return _get(f"{url}/health")[0] == 200
    except (OSError, http.client.HTTPException):
        return False


def free_port() -> int:
    """A port that nobody listens at now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


if __name__ == "__main__":
    # `flows.prefect_server PORT` for a process that holds its stdin, `flows.prefect_server` in a container of its own.
    if len(sys.argv) > 1:
        end_with_parent()
        serve_guarded("127.0.0.1", int(sys.argv[1]), "error")
    else:
        serve_in_container()
