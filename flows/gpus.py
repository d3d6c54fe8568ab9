"""The machine's GPUs, each lent to one training step at a time, among all runs on this machine."""

import fcntl
import os
import re
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from fer_core.errors import ExperimentError
from openface.machine import gpus_by_name
from openface.settings import INSIDE

GPUS = "FER_GPUS"
"""Environment: GPUs that steps may have: `all`, or numbers and UUIDs as `nvidia-smi -L` prints them, or `0:1`."""
STEPS_PER_GPU = "FER_STEPS_PER_GPU"
"""Environment: steps that a worker of other machines' runs takes at a time on each of its GPUs (1)."""
ALL = "all"
"""Stands for a GPU whose name nobody tells: of an engine on another machine, or of Windows' Linux subsystem."""
_VISIBLE = "CUDA_VISIBLE_DEVICES"
_SECONDS_BETWEEN_LOOKS = 1.0
_FOR_ALL_USERS = 0o1777
"""As /tmp is: everybody may write there, and take away what is his own."""


def usable_gpus() -> tuple[str, ...]:
    """The GPUs that steps on this machine may have; none where it has none.

    Raises:
        ExperimentError: FER_GPUS names one that is not there.
    """
    by_name = gpus_by_name()
    if (visible := os.environ.get(_VISIBLE)) is not None:
        by_name = _shown(visible, by_name)
    wanted = os.environ.get(GPUS, "").strip()
    names = by_name if wanted in ("", ALL) else _chosen(wanted, by_name)
    return tuple(dict.fromkeys(gpu for name in names for gpu in by_name.get(name, (name,))))


def workers_steps_per_gpu() -> int:
    """Steps that this machine, as a worker, takes at a time on each GPU.

    Raises:
        ExperimentError: the environment says no whole number from 1.
    """
    told = os.environ.get(STEPS_PER_GPU) or "1"
    if not re.fullmatch("0*[1-9][0-9]*", told):
        raise ExperimentError(f"{STEPS_PER_GPU}={told}: no number of steps; give a whole number from 1")
    return int(told)


class GpuPool:
    """Lends each GPU to as many steps at a time as it has slots.

    A slot is a locked file: one kernel owns both the GPUs and the locks. So several runs share them, those of other
    users too, and whoever is killed lets go.

    Args:
        gpus: their names.
        steps_per_gpu: slots of each.
        folder: the place of the locked files, the same for all runs of this machine.

    Raises:
        ExperimentError: this user may not write there.
    """

    def __init__(self, gpus: Sequence[str], steps_per_gpu: int, folder: Path) -> None:
        # A second step goes to another GPU before it shares one.
        self._slots = [(gpu, folder / f"{gpu}.{slot}") for slot in range(steps_per_gpu) for gpu in gpus]
        with suppress(FileExistsError):  # It is the user's whose run was the first here.
            folder.mkdir(parents=True)
            folder.chmod(_FOR_ALL_USERS)
        if not os.access(folder, os.W_OK | os.X_OK):
            raise ExperimentError(f"{folder}: not writable by you; runs of all users lock GPUs there, so let all write")

    @contextmanager
    def lent(self, stopped: threading.Event) -> Iterator[str | None]:
        """A GPU for as long as the context lasts, waited for; None where there is none, or the run was stopped."""
        if not self._slots:
            yield None
            return
        held = self._first_free()
        while held is None and not stopped.wait(_SECONDS_BETWEEN_LOOKS):
            held = self._first_free()
        if held is None:
            yield None
            return
        gpu, lock = held
        with lock:
            yield gpu

    def _first_free(self) -> tuple[str, IO[str]] | None:
        for gpu, path in self._slots:
            lock = _opened(path)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                lock.close()
            else:
                return gpu, lock
        return None


def _opened(path: Path) -> IO[str]:
    """A slot's file, which a run of any user may lock."""
    if not path.exists():
        # With its rights from the start. Without links, as below some containers' artifacts, there is one user alone.
        with tempfile.NamedTemporaryFile(dir=path.parent) as made, suppress(OSError):
            os.fchmod(made.fileno(), 0o666)
            os.link(made.name, path)
    # Not to be made if it is there: in /tmp, another user's would be refused.
    return path.open("r+" if path.exists() else "a", encoding="utf-8")


def locks_folder(artifacts: Path) -> Path:
    """A folder that all runs on this machine share; in containers, which have a /tmp each, beside the artifacts."""
    if os.environ.get(INSIDE):
        return artifacts / ".gpus"
    return Path(tempfile.gettempdir()) / "fer-gpus"


def _shown(visible: str, by_name: Mapping[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
    """What CUDA_VISIBLE_DEVICES leaves of the GPUs, by their names and by their places in it.

    By the driver's names, so that all runs call a GPU alike. As for CUDA, the first that is none ends it.
    """
    shown = list[tuple[str, ...]]()
    for told in map(str.strip, visible.split(",")):
        if not (gpus := _meant(told, by_name)):
            break
        shown.append(gpus)
    places = {str(place): gpus for place, gpus in enumerate(shown)}
    left = [gpu for gpus in shown for gpu in gpus]
    named = {name: kept for name, gpus in by_name.items() if (kept := tuple(gpu for gpu in gpus if gpu in left))}
    return {gpu: (gpu,) for gpu in left} | places | named


def _meant(told: str, by_name: Mapping[str, tuple[str, ...]]) -> tuple[str, ...]:
    """The GPUs of a word of CUDA_VISIBLE_DEVICES; none of one that is no GPU, as Slurm's `NoDevFiles`."""
    if told in by_name and by_name[told] != (ALL,):
        return by_name[told]
    is_uuid = told.startswith(("GPU-", "MIG-"))
    # CUDA takes the beginning of a UUID.
    begun = [gpus for name, gpus in by_name.items() if is_uuid and name.startswith(told)]
    if len(begun) == 1:
        return begun[0]
    # Where the driver tells no names, or no parts, nobody here knows better.
    untold = not by_name or ALL in by_name or (told.startswith("MIG-") and not _tells_parts(by_name))
    return (told,) if untold and (is_uuid or told.isdecimal()) else ()


def _tells_parts(by_name: Mapping[str, tuple[str, ...]]) -> bool:
    return any(gpu.startswith("MIG-") for gpus in by_name.values() for gpu in gpus)


def _chosen(wanted: str, by_name: Mapping[str, tuple[str, ...]]) -> list[str]:
    """The names in FER_GPUS, each of a GPU that is there."""
    names = [name.strip() for name in wanted.split(",") if name.strip()]
    # In a container the driver tells no parts, and the engine knows whether there is such a one.
    tells_parts = not by_name or _tells_parts(by_name)
    unknown = [name for name in names if name not in by_name and (tells_parts or not name.startswith("MIG-"))]
    if unknown or not names:
        there = ", ".join(f"{name} ({', '.join(gpus)})" for name, gpus in by_name.items() if name.isdecimal()) or "none"
        raise ExperimentError(f"{GPUS}={wanted}: no such GPU here; there are: {there}")
    return names
