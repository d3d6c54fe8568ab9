"""A Prefect server and machines that take steps, each a worker in a folder of its own."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import libfaketime  # type: ignore[import-untyped]

from flows.prefect_server import free_port
from helpers.prefect_home import with_database

_SERVE = "from flows.prefect_server import serve_guarded; serve_guarded('127.0.0.1', {port}, 'warning')"


def wrong_clock(seconds: int) -> dict[str, str]:
    """An environment in which a process, and all that it starts, tells a time that is wrong by so much."""
    (library,) = Path(libfaketime.__file__).parent.rglob("libfaketime.so.1")
    # A wrong clock goes as fast as a right one, and the files of a shared folder have their server's times.
    right = {"FAKETIME_DONT_FAKE_MONOTONIC": "1", "NO_FAKE_STAT": "1"}
    return right | {"LD_PRELOAD": str(library), "FAKETIME": f"{seconds:+}s"}


def wait_until(condition: Callable[[], Any], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(0.2)


class Lab:
    """A server that can be stopped and started again, and what it takes to reach it."""

    def __init__(self, folder: Path, store: str, way: Mapping[str, str] | None = None) -> None:
        self.folder, self.store, self.port = folder, store, free_port()
        self._way = dict(way or {})
        self.api = f"http://127.0.0.1:{self.port}/api"
        self._log = (folder / "server.log").open("w")
        self._server: subprocess.Popen[bytes] | None = None

    def environment(self, name: str, **more: str) -> dict[str, str]:
        return os.environ | {
            "PREFECT_HOME": str(self.folder / f"prefect-{name}"),
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "PREFECT_API_URL": self.api,
            "PREFECT_WORKER_QUERY_SECONDS": "1",
            "FER_STORE": self.store,
            "FER_MACHINE": name,
            **self._way,
            **more,
        }

    def start(self) -> None:
        command = [sys.executable, "-c", _SERVE.format(port=self.port)]
        environment = self.environment("server")
        if not Path(environment["PREFECT_HOME"]).exists():
            with_database(Path(environment["PREFECT_HOME"]))
        self._server = subprocess.Popen(
            command, env=environment, stdout=self._log, stderr=self._log, start_new_session=True
        )
        wait_until(self.answers, 90)

    def stop(self) -> None:
        if self._server:
            _signal([self._server.pid, *descendants(self._server.pid)], signal.SIGKILL)
            self._server.wait()
            self._server = None

    def answers(self) -> bool:
        with suppress(httpx.HTTPError):
            return httpx.get(f"{self.api}/health", timeout=5).status_code == 200
        return False

    def close(self) -> None:
        self.stop()
        self._log.close()

    def run(self, *arguments: str, head: str = "head", **more: str) -> "subprocess.Popen[str]":
        """`fer run …`, in this head's own folder of artifacts."""
        command = [str(Path(sys.executable).with_name("fer")), "run", *arguments, "--artifacts"]
        return self._start_run([*command, str(self._artifacts(head))], head, more)

    def run_part(
        self, until: str, experiment: str, *settings: str, head: str = "head", **more: str
    ) -> "subprocess.Popen[str]":
        """A run that ends early, with the graph or with both generators, and so sends fewer steps."""
        command = [sys.executable, str(Path(__file__).with_name("part_of_a_run.py")), until, experiment]
        return self._start_run([*command, str(self._artifacts(head)), *settings], head, more)

    def _artifacts(self, head: str) -> Path:
        artifacts = self.folder / head / "artifacts"
        artifacts.mkdir(parents=True, exist_ok=True)
        return artifacts

    def _start_run(self, command: list[str], head: str, more: Mapping[str, str]) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            command,
            cwd=self.folder / head,
            env=self.environment(head, **more),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )


class Machine:
    """A worker that takes steps; `kill` is a power cut, and `sleep` stops all that runs of it until `wake`."""

    def __init__(
        self, lab: Lab, name: str, artifacts: Path | None = None, more: Mapping[str, str] | None = None
    ) -> None:
        self.artifacts = artifacts or lab.folder / name
        self.artifacts.mkdir(exist_ok=True)
        self.log = lab.folder / f"{name}.log"
        environment = lab.environment(name, FER_ARTIFACTS_FOLDER=str(self.artifacts)) | dict(more or {})
        with self.log.open("w") as log:
            command = [sys.executable, "-m", "flows.steps_worker"]
            self.process = subprocess.Popen(
                command, env=environment, stdout=log, stderr=log, start_new_session=True, cwd=self.artifacts
            )

    def started(self) -> bool:
        assert self.process.poll() is None, self.log.read_text()
        return "started!" in self.log.read_text()

    def trains(self) -> bool:
        """Tell whether a training here has finished an epoch."""
        return any(self.artifacts.glob("train-ldg/*.unfinished/resume.pt"))

    def sleep(self) -> None:
        """Stop all that runs of it, as closing a lid does."""
        _signal([self.process.pid, *descendants(self.process.pid)], signal.SIGSTOP)

    def wake(self) -> None:
        _signal([self.process.pid, *descendants(self.process.pid)], signal.SIGCONT)

    def kill(self) -> None:
        _signal([self.process.pid, *descendants(self.process.pid)], signal.SIGKILL)
        self.process.wait()

    def stop(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.kill()


@contextmanager
def lab_in(folder: Path, store: str, way: Mapping[str, str] | None = None) -> Iterator[Lab]:
    """A lab that has started; `way` is the environment by which its machines reach the store."""
    lab = Lab(folder, store, way)
    try:
        lab.start()
        yield lab
    finally:
        lab.close()


@contextmanager
def machines(
    lab: Lab, *names: str, more: Mapping[str, str] | None = None, clocks: Sequence[int] = ()
) -> Iterator[list[Machine]]:
    """Workers that have started; `clocks` are the seconds by which each one's clock is wrong."""
    told = [wrong_clock(seconds) for seconds in clocks] or [{}] * len(names)
    found = [Machine(lab, name, more=clock | dict(more or {})) for name, clock in zip(names, told, strict=True)]
    try:
        for machine in found:
            wait_until(machine.started, 60)
        yield found
    finally:
        for machine in found:
            machine.stop()


def descendants(parent: int) -> list[int]:
    """Processes below it, in whatever session."""
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            above = int(stat.read_text().rpartition(")")[2].split()[1])
            children.setdefault(above, []).append(int(stat.parent.name))
    found, left = [], [parent]
    while left:
        below = children.get(left.pop(), [])
        found += below
        left += below
    return found


def _signal(processes: list[int], how: signal.Signals) -> None:
    for number in processes:
        with suppress(ProcessLookupError):
            os.kill(number, how)
