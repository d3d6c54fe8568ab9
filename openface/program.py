"""One run of FaceLandmarkImg on a folder of numbered pictures: in a sealed container, or as a local program."""

import hashlib
import os
import signal
import subprocess
import tempfile
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Protocol, Self

from docker.errors import NotFound
from docker.models.containers import Container

from openface.docker_engine import (
    NOBODY,
    ContainerSpec,
    create,
    engine,
    image_id,
    ran_out_of_memory,
    remove,
    remove_labelled,
    require_engine,
    wait_for,
)
from openface.errors import EngineAway, EngineRefused, OpenFaceError
from openface.settings import INSIDE, OpenFaceSettings

FOLDER = "fer.openface"
"""Label: the working folder of the annotation that a container belongs to."""
_PICTURES = "fer.pictures"
_MEMORY = 1536 << 20
_LINES_KEPT = 20
_LINES_TOLD = 3
_LONGEST_TOLD = 300
_FROM_OUTSIDE = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
"""Signals that the program's own faults never are."""
_ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
_BOTH_WAYS = (
    "OpenFace is needed: build its image with `docker compose build openface` and have Docker running, or set "
    "openface.binary to the absolute path of a FaceLandmarkImg on this machine; or give what it wrote before with --aus"
)


@dataclass(frozen=True)
class Ending:
    """How a run of the program ended."""

    failed: str
    """Why it ended badly; "" where its exit code was 0."""
    said: str = ""
    """The last that it printed."""
    from_outside: bool = False
    """Somebody else ended it, and not for what it was shown, unless the whole machine's memory ran out."""

    def told(self) -> str:
        """Why it ended badly, and its own words."""
        return f"{self.failed}{'; it said: ' if self.said else ''}{self.said}"


class Program(Protocol):
    """FaceLandmarkImg, as a context that leaves nothing running."""

    def __call__(self, pictures: Path, out: Path, seconds: float) -> Ending:
        """Run it on a folder.

        Raises:
            EngineAway: its engine is gone for now; the same run may be tried again.
        """

    def stop(self) -> None:
        """End what runs, and start nothing any more."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *error: object) -> None: ...


def open_program(settings: OpenFaceSettings, folder: Path) -> Program:
    """The program that the settings name, for an annotation that works in `folder`.

    Raises:
        OpenFaceError: there is neither a binary nor an engine with the image.
        EngineAway: the worker's engine is gone for now.
    """
    if settings.binary:
        _require_binary(settings)
        return LocalProgram(settings)
    with _engine_errors_translated():
        require_engine(settings.image)
    return ContainedProgram(settings, folder)


def is_program(path: str) -> bool:
    """Tell whether a path is that of a file which this user may run."""
    return Path(path).is_file() and os.access(path, os.X_OK)


def _require_binary(settings: OpenFaceSettings) -> None:
    if not is_program(settings.binary):
        raise OpenFaceError(f"openface.binary = {settings.binary}: no program there. {_BOTH_WAYS}")


@contextmanager
def _engine_errors_translated() -> Iterator[None]:
    """Say what to do where there is no engine, or it lacks the image."""
    try:
        yield
    except EngineRefused as refused:
        raise OpenFaceError(f"{refused}. {_BOTH_WAYS}") from refused
    except EngineAway as away:
        # The worker was started by that engine, so it is there and will be back.
        if os.environ.get(INSIDE):
            raise
        raise OpenFaceError(f"{away}. {_BOTH_WAYS}") from away


def build_of(settings: OpenFaceSettings) -> str:
    """What tells one build of the program from another under the same name: the image's id, or the binary's digest.

    Raises:
        OpenFaceError: there is neither a binary nor an engine with the image.
        EngineAway: the worker's engine is gone for now.
    """
    if settings.binary:
        _require_binary(settings)
        with open(settings.binary, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    with _engine_errors_translated(), engine() as client:
        return image_id(client, settings.image)


def check_spec(settings: OpenFaceSettings) -> ContainerSpec:
    """The container in which the image annotates its own portrait, with the arguments that runs would have."""
    environment = {**_ONE_THREAD, "OPENFACE_PROGRAM": settings.program}
    return ContainerSpec(settings.image, ["check", *settings.arguments], environment=environment, memory=_MEMORY)


class LocalProgram:
    """A FaceLandmarkImg of this machine, a process for each run."""

    def __init__(self, settings: OpenFaceSettings) -> None:
        self._settings = settings
        self._running: set[subprocess.Popen[bytes]] = set()
        self._stopped = False
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()

    def __call__(self, pictures: Path, out: Path, seconds: float) -> Ending:
        with tempfile.TemporaryFile() as said:
            process = self._start(pictures, out, said)
            try:
                exit_code = process.wait(timeout=seconds)
                ending = _ended_with(128 - exit_code if exit_code < 0 else exit_code)
            except subprocess.TimeoutExpired:
                ending = Ending(f"no end within {seconds:.0f} s")
            finally:
                _end([process])
                with self._lock:
                    self._running.discard(process)
            if self._stopped:
                raise OpenFaceError("stopped")
            said.seek(0)
            return replace(ending, said=_last_words(said.read()))

    def stop(self) -> None:
        with self._lock:
            self._stopped = True
            running = list(self._running)
        _end(running)

    def _start(self, pictures: Path, out: Path, said: IO[bytes]) -> "subprocess.Popen[bytes]":
        arguments = ["-fdir", str(pictures), "-out_dir", str(out), "-aus", "-2Dfp", *self._settings.arguments]
        with self._lock:
            if self._stopped:
                raise OpenFaceError("stopped")
            process = subprocess.Popen(
                [self._settings.binary, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
                env=os.environ | _ONE_THREAD,
                start_new_session=True,
            )
            self._running.add(process)
            return process


class ContainedProgram:
    """The image's FaceLandmarkImg, a container for each run: it reads pictures, writes CSVs, and has nothing else."""

    def __init__(self, settings: OpenFaceSettings, folder: Path) -> None:
        self._settings = settings
        self._labels = {FOLDER: str(folder)}
        self._stopped = threading.Event()

    def __enter__(self) -> Self:
        # Those of an annotation that was killed would go on writing into the folder.
        self._remove_all()
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()

    def __call__(self, pictures: Path, out: Path, seconds: float) -> Ending:
        if os.geteuid() == 0:
            os.chown(out, NOBODY, NOBODY)
            # Root's umask may keep them from everybody else.
            for picture in pictures.iterdir():
                picture.chmod(0o644)
        spec = ContainerSpec(
            self._settings.image,
            ["folder", *self._settings.arguments],
            read={"/in": pictures},
            write={"/out": out},
            environment={**_ONE_THREAD, "OPENFACE_PROGRAM": self._settings.program},
            labels={**self._labels, _PICTURES: str(pictures)},
            memory=_MEMORY,
        )
        try:
            with engine() as client:
                # One of the same run that the engine lost touch with would go on writing.
                remove_labelled(client, spec.labels)
                container = create(client, spec)
                try:
                    if self._stopped.is_set():
                        raise OpenFaceError("stopped")
                    container.start()
                    ending = self._ending(container, seconds)
                    if self._stopped.is_set():
                        raise OpenFaceError("stopped")
                    return ending
                finally:
                    remove(container)
        except EngineRefused as refused:
            raise OpenFaceError("stopped" if self._stopped.is_set() else str(refused)) from refused

    def stop(self) -> None:
        self._stopped.set()
        self._remove_all()

    def _ending(self, container: Container, seconds: float) -> Ending:
        try:
            exit_code = wait_for(container, seconds)
            said = _last_words(container.logs(tail=_LINES_KEPT))
            if exit_code is None:
                return Ending(f"no end within {seconds:.0f} s", said)
            if ran_out_of_memory(container):
                return Ending(f"killed for taking more than {_MEMORY >> 20} MB of memory", said)
            return replace(_ended_with(exit_code), said=said)
        except NotFound:
            return Ending("its container was taken away", from_outside=True)

    def _remove_all(self) -> None:
        with suppress(Exception), engine() as client:
            remove_labelled(client, self._labels)


def _ended_with(exit_code: int) -> Ending:
    """What an exit code says; those above 128 are signals, as in a shell."""
    if exit_code > 128:
        with suppress(ValueError):
            sent = signal.Signals(exit_code - 128)
            return Ending(f"ended by {sent.name}", from_outside=sent in _FROM_OUTSIDE)
    return Ending(f"exit code {exit_code}" if exit_code else "")


def _last_words(said: bytes) -> str:
    """The last lines that it printed, as one."""
    lines = [" ".join(line.split()) for line in said.decode(errors="replace").splitlines() if line.strip()]
    return " | ".join(lines[-_LINES_TOLD:])[-_LONGEST_TOLD:]


def _end(processes: "Iterable[subprocess.Popen[bytes]]") -> None:
    """Kill processes and all that they started."""
    for process in processes:
        if process.poll() is None:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
