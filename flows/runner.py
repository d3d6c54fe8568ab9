"""Runs a step as it would be typed, `fer STEP …`, and turns what it prints into events; here, as a subprocess."""

import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import IO, Protocol, Self

from fer_core.exit_codes import ExitCode
from flows.events import Event, parse_event
from flows.gpus import ALL, GpuPool

_FER = (sys.executable, "-P", "-m", "fer_core")
"""`fer` itself, without the modules that happen to lie in the current folder."""
_SECONDS_TO_STOP = 2.0
"""A step may be killed at any moment and goes on from its last epoch, so there is little to wait for."""
LINES_KEPT = 30
RETRY_DELAYS = [2.0, 5.0, 15.0]
"""Seconds before each further try of a step, or to find the engine."""


@dataclass(frozen=True)
class StepCommand:
    """A step's command line, with its paths still told apart for a runner that has to mount them."""

    step: str
    experiment: str
    settings: tuple[str, ...]
    inputs: tuple[Path, ...]
    out: Path
    seed: int | None = None
    outside: tuple[str, Path] | None = None
    """Option and path of what is no artifact: ("data", …) or ("aus", …)."""
    seen: str = ""
    """What that holds, as `fer_core.contents.Seen`."""
    threads: int = 1
    reads: tuple[Path, ...] = ()
    """Files and folders that are no artifacts and that it reads."""
    runs_openface: bool = False
    """It starts OpenFace's containers itself, and so is not run in one."""
    uses_gpu: bool = False
    """It computes on a GPU where there is one."""
    document: str | None = None
    """What the experiment's file held when the run began; None of a bundled one."""

    def arguments(self) -> list[str]:
        """The arguments after `fer`."""
        arguments = [self.step, self.experiment, "--out", str(self.out)]
        for path in self.inputs:
            arguments += ["--in", str(path)]
        for setting in self.settings:
            arguments += ["--set", setting]
        if self.seed is not None:
            arguments += ["--seed", str(self.seed)]
        if self.outside is not None:
            arguments += [f"--{self.outside[0]}", str(self.outside[1])]
            arguments += ["--seen", self.seen] if self.seen else []
        return arguments


class StepFailed(Exception):
    """A step that ended without its artifact.

    Args:
        step: the step's name for people.
        exit_code: as a shell gives it; below 0, the signal that ended it.
        message: the reason, in one line.
        details: the last lines that it wrote on standard error.
    """

    def __init__(self, step: str, exit_code: int, message: str, details: str = "") -> None:
        # All of them, so that the exception survives the pickling that Prefect does with it.
        super().__init__(step, exit_code, message, details)
        self.step, self.exit_code, self.message, self.details = step, exit_code, message, details

    def __str__(self) -> str:
        return f"{self.step}: {self.message}"

    @property
    def mistake(self) -> bool:
        """Tell whether the user has to mend something."""
        return self.exit_code == ExitCode.MISTAKE

    @property
    def out_of_memory(self) -> bool:
        """Tell whether it may end well with less to hold at a time."""
        return self.exit_code == ExitCode.OUT_OF_MEMORY

    @property
    def may_pass(self) -> bool:
        """Tell whether it is worth another try."""
        return self.exit_code not in (ExitCode.MISTAKE, ExitCode.INTERRUPTED, -signal.SIGINT)


class Runner(Protocol):
    """Runs a step to its end, telling events as they come, or raises StepFailed; a context that ends what runs.

    stopped: whether it starts nothing any more.
    """

    @property
    def stopped(self) -> bool: ...

    def __call__(self, command: StepCommand, on_event: Callable[[Event], None]) -> None: ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class Subprocesses:
    """A runner that starts a process for each step, and as a context leaves none behind.

    The processes stay in this one's group, so that a terminal's Ctrl-C reaches them. Should this process be
    killed outright, they end at their next line of progress, for there is nobody to read it.
    """

    def __init__(self, program: Sequence[str] = _FER, gpus: GpuPool | None = None) -> None:
        self._program, self._gpus = tuple(program), gpus
        self._running: set[subprocess.Popen[str]] = set()
        self._stopped = threading.Event()
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def __call__(self, command: StepCommand, on_event: Callable[[Event], None]) -> None:
        with (
            lent_to(command, self._gpus, self._stopped) as gpu,
            as_begun(command) as command,
            tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as errors,
        ):
            with self._started(command, errors, gpu) as process:
                for line in process.stdout or ():
                    on_event(parse_event(line))
                exit_code = process.wait()
            if exit_code:
                raise self._failure(command, exit_code, errors)

    @property
    def stopped(self) -> bool:
        """Tell whether nothing is started any more."""
        return self._stopped.is_set()

    def stop(self) -> None:
        """End what runs, within a few seconds, and start nothing any more."""
        with self._lock:
            self._stopped.set()
            running = list(self._running)
        _end(running)

    @contextmanager
    def _started(self, command: StepCommand, errors: IO[str], gpu: str | None) -> "Iterator[subprocess.Popen[str]]":
        # Popen's own exit would wait for the process after an exception here.
        process = self._start(command, errors, gpu)
        try:
            yield process
        finally:
            _end([process])
            if process.stdout:
                process.stdout.close()
            with self._lock:
                self._running.discard(process)

    def _start(self, command: StepCommand, errors: IO[str], gpu: str | None) -> "subprocess.Popen[str]":
        with self._lock:
            if self._stopped.is_set():
                raise StepFailed(command.step, ExitCode.INTERRUPTED, "stopped before it began")
            process = subprocess.Popen(
                [*self._program, *command.arguments()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                encoding="utf-8",
                errors="replace",
                env=os.environ | {"OMP_NUM_THREADS": str(command.threads)} | _visible(gpu),
            )
            self._running.add(process)
            return process

    def _failure(self, command: StepCommand, exit_code: int, errors: IO[str]) -> StepFailed:
        if self._stopped.is_set():
            return StepFailed(command.step, ExitCode.INTERRUPTED, "stopped")
        errors.seek(0)
        lines = [line.rstrip() for line in errors if line.strip()]
        return failure(command, exit_code, lines)


@contextmanager
def as_begun(command: StepCommand, place: Path | None = None) -> Iterator[StepCommand]:
    """The command with the experiment as it was when the run began: its file may hold the next one by now.

    Args:
        place: the folder for a copy of it, other than the system's for such files.
    """
    if command.document is None:
        yield command
        return
    with tempfile.TemporaryDirectory(prefix=".experiment-", dir=place) as folder:
        file = Path(folder) / Path(command.experiment).name
        file.write_text(command.document, encoding="utf-8")
        # For the other user that a container may have; the folder is closed to all others.
        file.chmod(0o644)
        yield replace(command, experiment=str(file))


@contextmanager
def lent_to(command: StepCommand, gpus: GpuPool | None, stopped: threading.Event) -> Iterator[str | None]:
    """A free GPU for a step that uses one; None where there is none."""
    if gpus is None or not command.uses_gpu:
        yield None
        return
    with gpus.lent(stopped) as gpu:
        yield gpu


def _visible(gpu: str | None) -> dict[str, str]:
    """The environment in which CUDA shows that GPU alone."""
    return {} if gpu in (None, ALL) else {"CUDA_VISIBLE_DEVICES": str(gpu), "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}


def failure(command: StepCommand, exit_code: int, lines: Sequence[str]) -> StepFailed:
    """The failure of a step, from its exit code and its last lines on standard error."""
    return StepFailed(command.step, exit_code, _reason(exit_code, lines), "\n".join(lines[-LINES_KEPT:]))


def _reason(exit_code: int, lines: Sequence[str]) -> str:
    """The user's mistake in the step's own words, or a description of the crash."""
    if exit_code in (ExitCode.MISTAKE, ExitCode.OUT_OF_MEMORY):
        for line in reversed(lines):
            if line.startswith("error: "):
                return line.removeprefix("error: ")
    if exit_code == -signal.SIGKILL:
        return "killed by SIGKILL, which is what a system short of memory does"
    if exit_code < 0:
        return f"killed by {_signal_name(-exit_code)}"
    return f"exit code {exit_code}" + (f": {lines[-1].strip()}" if lines else "")


def from_shell(exit_code: int) -> int:
    """A shell's exit code, above 128 for a signal, as Python has it, below 0; one that is no signal stays as it is."""
    return 128 - exit_code if exit_code - 128 in signal.valid_signals() else exit_code


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # Of real-time signals, two alone have a name.
        return f"signal {number}"


def _end(processes: "Iterable[subprocess.Popen[str]]") -> None:
    """Ask processes to end, and make them."""
    deadline = time.monotonic() + _SECONDS_TO_STOP
    alive = [process for process in processes if process.poll() is None]
    for process in alive:
        process.terminate()
    for process in alive:
        try:
            process.wait(timeout=max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
