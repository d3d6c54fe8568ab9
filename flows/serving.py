"""`fer serve`: Prefect's server on this machine's loopback, behind the guard, and the worker of experiments beside it.

Both are processes of sessions of their own, so that a terminal's Ctrl-C reaches this one alone, which ends them in good
order. Should this one be killed outright, they end at once, and all runs with them.
"""

import fcntl
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from urllib.parse import urlsplit

from fer_core.errors import DatasetError
from fer_core.paths import whole_path
from flows.experiment_worker import ENTRYPOINTS, FLOW, FOR_PARENT
from flows.granted import ARTIFACTS, DATA
from flows.password import unreadable_to_prefect
from flows.prefect_server import NoServer, OwnServer, answers, prefect_home, prefect_setting
from flows.register import end_dead_runs, register

_PASSWORD = "PREFECT_API_AUTH_STRING"
_NO_PASSWORD = (
    "warning: this server asks for no password, so whoever has an account on this machine can run experiments on your "
    f"data; set {_PASSWORD}=user:password here, and where you start runs"
)
_PATIENCE = {"PREFECT_WORKER_QUERY_SECONDS": "2", "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30"}
"""How often the worker looks for runs, and how often runs say that they are alive; as in compose.yaml."""
_SECONDS_TO_END = 15.0


def serve_experiments(url: str, data: str | None, artifacts: str, limit: int) -> None:
    """Serve until Ctrl-C, SIGTERM, or the end of one of the two processes.

    Args:
        url: the API's, as `own_address` has it.
        data: the folder below which runs may read, or None.
        artifacts: the folder below which runs may read and write.
        limit: runs at a time.

    Raises:
        DatasetError: `data` is no folder.
        NoServer: there is one already, its port is taken, its password cannot be, or it did not start.
    """
    folders = _granted(data, artifacts)
    with _alone(url):
        _require_free(url)
        password = _password()
        asked_to_end = _listen_for_end()
        server = OwnServer(url, _pages_of(url), password)
        try:
            server.wait()
            # What was under way when an earlier life of it was killed would stay so, and keep the slots.
            end_dead_runs()
            register(folders[ARTIFACTS], limit)
            _work(server, folders, asked_to_end, url)
        finally:
            server.stop()


def _password() -> str:
    password = prefect_setting(_PASSWORD) or ""
    if wrong := unreadable_to_prefect(password):
        raise NoServer(f"{_PASSWORD}: {wrong}")
    if not password:
        print(_NO_PASSWORD, file=sys.stderr)
    return password


def _granted(data: str | None, artifacts: str) -> dict[str, str]:
    """Absolute paths of the folders that runs may name, by the environment's variables that tell of them."""
    made = whole_path(artifacts)
    made.mkdir(parents=True, exist_ok=True)
    folders = {ARTIFACTS: str(made)}
    if data is not None:
        folder = whole_path(data)
        if not folder.is_dir():
            raise DatasetError(f"--data {data}: no such folder; give the one that your data and experiments lie in")
        folders[DATA] = str(folder)
    return folders


@contextmanager
def _alone(url: str) -> Iterator[None]:
    """See that there is one `fer serve` for a database: the second would take the first one's runs for dead."""
    with (prefect_home() / "fer_serve.lock").open("a+", encoding="utf-8") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as locked:
            lock.seek(0)
            raise NoServer(f"another `fer serve` is there already, at {lock.read()}; end it first") from locked
        lock.truncate(0)
        lock.write(_page(url))
        lock.flush()
        yield


def _require_free(url: str) -> None:
    port = urlsplit(url).port or 80
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            who = "a Prefect server is there already" if answers(url) else (error.strerror or str(error))
            raise NoServer(
                f"port {port}: {who}; end it, or choose another port, as PREFECT_API_URL=http://127.0.0.1:4300/api does"
            ) from error


def _pages_of(url: str) -> Mapping[str, str]:
    """Prefect's settings for the pages: one called localhost may ask 127.0.0.1, and no other page may ask anything."""
    page = _page(url)
    return {
        "PREFECT_UI_API_URL": url,
        "PREFECT_SERVER_CORS_ALLOWED_ORIGINS": f"{page},{page.replace('127.0.0.1', 'localhost')}",
    }


def _page(url: str) -> str:
    return url.removesuffix("/api")


def _listen_for_end() -> threading.Event:
    asked_to_end = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, frame: asked_to_end.set())
    return asked_to_end


def _work(server: OwnServer, folders: Mapping[str, str], asked_to_end: threading.Event, url: str) -> None:
    """Keep a worker until it is asked to end."""
    worker = subprocess.Popen(
        [sys.executable, "-P", "-m", "flows.experiment_worker", FOR_PARENT],
        env={**_PATIENCE, **os.environ, **folders},
        stdin=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        print(_greeting(url, folders), flush=True)
        while not asked_to_end.wait(0.5):
            if not server.runs:
                raise NoServer(f"Prefect's server ended ({server.last_words()}); start `fer serve` again")
            if worker.poll() is not None:
                raise NoServer(f"the worker ended with exit code {worker.returncode}; start `fer serve` again")
    finally:
        _end(worker)


def _greeting(url: str, folders: Mapping[str, str]) -> str:
    commands = [f"PREFECT_API_URL={url} prefect deployment run {FLOW}/{name}" for name in ENTRYPOINTS]
    about = f"runs see {' and '.join(folders.values())}; start one there, or from another terminal:"
    return "\n".join([f"the UI is at {_page(url)}", about, *commands])


def _end(worker: "subprocess.Popen[bytes]") -> None:
    """It ends its runs, and they their steps; what is left after some seconds is killed."""
    worker.terminate()
    with suppress(subprocess.TimeoutExpired):
        worker.wait(_SECONDS_TO_END)
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(worker.pid, signal.SIGKILL)
    worker.wait()
    assert worker.stdin is not None
    worker.stdin.close()
