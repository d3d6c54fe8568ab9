"""One run of FaceLandmarkImg on a folder of numbered pictures: in a container that is given nothing, or right here."""

import os
import signal
import subprocess
import tempfile
import threading
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import IO, Protocol, Self

from docker.errors import NotFound
from docker.models.containers import Container

from openface.engine import (
    NOBODY,
    Box,
    create,
    engine,
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
_ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
_BOTH_WAYS = (
    "OpenFace is needed: build its image with `docker compose build openface` and have Docker running, or set "
    "openface.binary to the absolute path of a FaceLandmarkImg on this machine; or give what it wrote before with --aus"
)


class Program(Protocol):
    """FaceLandmarkImg, as a context that leaves nothing running."""

    def __call__(self, pictures: Path, out: Path, seconds: float) -> str:
        """Run it on a folder; why it ended badly, "" where it did not.

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
    """
    if settings.binary:
        if not os.access(settings.binary, os.X_OK):
            raise OpenFaceError(f"openface.binary = {settings.binary}: no program there. {_BOTH_WAYS}")
        return LocalProgram(settings)
    try:
        require_engine(settings.image)
    except EngineRefused as refused:
        raise OpenFaceError(f"{refused}. {_BOTH_WAYS}") from refused
    except EngineAway as away:
        # The worker was started by that engine, so it is there and will be back.
        if os.environ.get(INSIDE):
            raise
        raise OpenFaceError(f"{away}. {_BOTH_WAYS}") from away
    return ContainedProgram(settings, folder)


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

    def __call__(self, pictures: Path, out: Path, seconds: float) -> str:
        with tempfile.TemporaryFile() as said:
            process = self._start(pictures, out, said)
            try:
                exit_code = process.wait(timeout=seconds)
            except subprocess.TimeoutExpired:
                return f"no end within {seconds:.0f} s"
            finally:
                _end([process])
                with self._lock:
                    self._running.discard(process)
            if self._stopped:
                raise OpenFaceError("stopped")
            said.seek(0)
            return _reason(128 - exit_code if exit_code < 0 else exit_code, said.read().decode(errors="replace"))

    def stop(self) -> None:
        with self._lock:
            self._stopped = True
            running = list(self._running)
        _end(running)

    def _start(self, pictures: Path, out: Path, said: IO[bytes]) -> "subprocess.Popen[bytes]":
        arguments = ["-fdir", str(pictures), "-out_dir", str(out), "-aus", *self._settings.arguments]
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

    def __call__(self, pictures: Path, out: Path, seconds: float) -> str:
        if os.geteuid() == 0:
            os.chown(out, NOBODY, NOBODY)
        box = Box(
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
                remove_labelled(client, box.labels)
                container = create(client, box)
                try:
                    if self._stopped.is_set():
                        raise OpenFaceError("stopped")
                    container.start()
                    reason = self._ending(container, seconds)
                    if self._stopped.is_set():
                        raise OpenFaceError("stopped")
                    return reason
                finally:
                    remove(container)
        except EngineRefused as refused:
            raise OpenFaceError("stopped" if self._stopped.is_set() else str(refused)) from refused

    def stop(self) -> None:
        self._stopped.set()
        self._remove_all()

    def _ending(self, container: Container, seconds: float) -> str:
        try:
            exit_code = wait_for(container, seconds)
            if exit_code is None:
                return f"no end within {seconds:.0f} s"
            if ran_out_of_memory(container):
                return f"killed for taking more than {_MEMORY >> 20} MB of memory"
            return _reason(exit_code, container.logs(tail=20).decode(errors="replace"))
        except NotFound:
            return "its container was taken away"

    def _remove_all(self) -> None:
        with suppress(Exception), engine() as client:
            remove_labelled(client, self._labels)


def _reason(exit_code: int, said: str) -> str:
    """Why it ended badly, with the last that it said; a shell's exit code, above 128 for a signal."""
    if exit_code == 0:
        return ""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    last = f": {lines[-1]}" if lines else ""
    if exit_code > 128:
        with suppress(ValueError):
            return f"ended by {signal.Signals(exit_code - 128).name}"
    return f"exit code {exit_code}{last}"


def _end(processes: "Iterable[subprocess.Popen[bytes]]") -> None:
    """Kill processes and all that they started."""
    for process in processes:
        if process.poll() is None:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
