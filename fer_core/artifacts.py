"""Artifacts: content-addressed folders, written beside and renamed; only a manifest makes one complete."""

import errno
import fcntl
import hashlib
import json
import os
import resource
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, TextIO

from fer_core.errors import ArtifactError
from fer_core.paths import require_utf8, stays_below, whole_path

MANIFEST = "manifest.json"
UNFINISHED = ".unfinished"
"""Ending of what is being written beside its place, and name of the mark in the folder of an unfinished artifact."""
_REPLACED = ".replaced"
"""Ending of a folder that another has taken the place of, until it is deleted."""
_IN_THE_WAY = (errno.ENOTEMPTY, errno.EEXIST)
_KINDS: Mapping[str, type] = {"step": str, "fingerprint": str, "files": dict, "inputs": dict, "settings": dict}
"""Entries that every manifest has, and what each is."""
_TIME = "%Y-%m-%dT%H:%M:%S%z"


@dataclass(frozen=True)
class Artifact:
    """A step's finished output."""

    path: Path
    step: str
    fingerprint: str

    def file(self, name: str) -> Path:
        """The path of one of its files."""
        return self.path / name

    def settings(self) -> dict[str, Any]:
        """The part of the experiment that it was made with."""
        settings: dict[str, Any] = self._manifest()["settings"]
        return settings

    def made_from(self, step: str) -> set[str]:
        """Fingerprints of the artifacts of `step` among its inputs."""
        return {made["fingerprint"] for made in self._manifest()["inputs"].values() if made["step"] == step}

    def inputs(self) -> list[str]:
        """STEP/FINGERPRINT of each artifact that it was made from."""
        return [f"{made['step']}/{made['fingerprint']}" for made in self._manifest()["inputs"].values()]

    def files(self) -> dict[str, int]:
        """Bytes of each of its files, by name, its manifest last."""
        sizes: dict[str, int] = self._manifest()["files"]
        return sizes | {MANIFEST: self.file(MANIFEST).stat().st_size}

    def made(self) -> datetime:
        """The time at which it was finished, where it was made."""
        return datetime.strptime(self._manifest()["made"], _TIME)

    def seconds(self) -> float:
        """How long it took to make."""
        return float(self._manifest()["seconds"])

    def peak_memory(self) -> int:
        """The most memory, in bytes, that the process which made it had."""
        return int(self._manifest()["peak_memory_bytes"])

    def _manifest(self) -> dict[str, Any]:
        manifest: dict[str, Any] = json.loads(self.file(MANIFEST).read_text(encoding="utf-8"))
        return manifest


def fingerprint(
    step: str, version: int, settings: Mapping[str, Any], inputs: Mapping[str, str], outside: Mapping[str, str]
) -> str:
    """16 hexadecimal digits that change with anything a step's output depends on.

    Args:
        step, version: the step's name and its code's version.
        settings: the step's own part of the experiment.
        inputs: fingerprint of the artifact in each role.
        outside: digest of the contents of each file or folder that is no artifact.
    """
    content = json.dumps([step, version, settings, inputs, outside], sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()[:16]


def open_artifact(path: Path, step: str | None = None) -> Artifact:
    """Open a finished artifact.

    Raises:
        ArtifactError: it is missing, unfinished, truncated, or of another step than `step`, or a file leads out of it.
    """
    manifest = _read_manifest(path)
    if manifest is None:
        raise ArtifactError(f"{path}: no finished artifact (no readable {MANIFEST}); run the step that makes it")
    if step is not None and manifest["step"] != step:
        raise ArtifactError(f"{path}: made by `fer {manifest['step']}`, but one made by `fer {step}` is needed")
    for name, size in manifest["files"].items():
        # A step's container may leave a link, which its reader would follow to a file of this machine.
        if not stays_below(path / name, path):
            raise ArtifactError(f"{path / name}: leads out of its folder; delete {path} and run again")
        actual = (path / name).stat().st_size if (path / name).is_file() else 0
        if actual != size:
            raise ArtifactError(f"{path / name}: {actual} bytes where {size} were written; delete {path} and run again")
    return Artifact(path, manifest["step"], manifest["fingerprint"])


def finished(path: Path, fingerprint: str) -> Artifact | None:
    """The artifact at `path` if it is whole and has this fingerprint; otherwise it is to be made."""
    try:
        artifact = open_artifact(path)
    except ArtifactError:
        return None
    return artifact if artifact.fingerprint == fingerprint else None


def make_artifact(
    out: Path,
    step: str,
    fingerprint: str,
    settings: Mapping[str, Any],
    inputs: Mapping[str, Artifact],
    work: Callable[[Path], Mapping[str, Any] | None],
) -> Artifact:
    """Do a step's work in a folder beside `out`, then rename it; a finished `out` of this fingerprint is reused.

    The unfinished folder of a killed attempt at the same fingerprint is handed to `work` again, so that
    training finds its last epoch there. Whatever else stands at `out` is replaced at the moment of success.
    Where another process is making the same artifact, this one waits and takes what it made. What `work` returns stands
    in the manifest beside the rest.

    Raises:
        InputError: no file can be at `out`, or not everything can open what is there.
        ArtifactError: the disk is full or not writable.
    """
    out = whole_path(out)
    require_utf8(str(out))
    if found := finished(out, fingerprint):
        return found
    beside = unfinished(out)
    started = time.monotonic()
    try:
        with held(beside) as mark:
            if found := finished(out, fingerprint):
                shutil.rmtree(beside, ignore_errors=True)
                return found
            if finished(beside, fingerprint) is None:
                _start_or_resume(beside, mark, fingerprint)
                told = work(beside) or {}
                _write_manifest(beside, step, fingerprint, settings, inputs, time.monotonic() - started, told)
            # A container that is given this folder alone cannot rename it; who started the container does.
            if os.path.ismount(beside):
                return Artifact(out, step, fingerprint)
            publish(out)
    except OSError as error:
        # A pipe that nobody reads any more is no fault of the folder's.
        if error.strerror is None or isinstance(error, BrokenPipeError):
            raise
        where = error.filename or beside
        raise ArtifactError(f"{where}: {error.strerror}; free or allow space there, and run again") from error
    return open_artifact(out, step)


def unfinished(out: Path) -> Path:
    """The folder in which the artifact of `out` is made.

    Raises:
        ArtifactError: something stands at `out` that is no artifact.
    """
    _refuse_to_replace(out)
    return out.with_name(f"{out.name}{UNFINISHED}")


def publish(out: Path) -> None:
    """Put what was finished beside `out` in its place, instead of what stood there."""
    replace_folder(unfinished(out), out)
    (out / UNFINISHED).unlink()


def replace_folder(beside: Path, out: Path) -> None:
    """Rename `beside` to `out`, and only then delete what stood there, so that no half of it ever stands there.

    Raises:
        FileNotFoundError: another process has put `beside` there already.
        OSError: another process has put something there meanwhile.
    """
    # First, so that nothing is moved where nothing stood when this began, or `beside` is gone.
    try:
        beside.rename(out)
        return
    except OSError as error:
        if error.errno not in _IN_THE_WAY:
            raise
    before = out.with_name(f"{out.name}{_REPLACED}")
    shutil.rmtree(before, ignore_errors=True)  # A killed process may have left it.
    with suppress(FileNotFoundError):
        out.rename(before)
    beside.rename(out)
    shutil.rmtree(before, ignore_errors=True)


def replace_file(path: Path, content: bytes) -> None:
    """Write a file beside `path`, then rename it, so that `path` is never half-written."""
    beside = path.with_name(f"{path.name}{UNFINISHED}")
    with beside.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)


@contextmanager
def held(beside: Path, wait: bool = True) -> Iterator[TextIO]:
    """Lock a folder of unfinished work, made where it is missing; the kernel releases a dead process's lock.

    Raises:
        BlockingIOError: another process has it, and is not to be waited for.
    """
    beside.mkdir(parents=True, exist_ok=True)
    with (beside / UNFINISHED).open("a+", encoding="utf-8") as mark:
        fcntl.flock(mark, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield mark


@contextmanager
def unattended(beside: Path) -> Iterator[None]:
    """Keep everybody from a folder of unfinished work while it is read; nothing is written there.

    Raises:
        OSError: nobody ever worked in it, or another process does so now.
    """
    with (beside / UNFINISHED).open(encoding="utf-8") as mark:
        fcntl.flock(mark, fcntl.LOCK_SH | fcntl.LOCK_NB)
        yield


def _refuse_to_replace(out: Path) -> None:
    """Replace only an earlier artifact, so that a mistyped --out never deletes a folder of faces."""
    if out.is_dir() and not (out / MANIFEST).is_file() and any(out.iterdir()):
        raise ArtifactError(f"{out}: holds something that no step made; choose another --out")
    if out.exists() and not out.is_dir():
        raise ArtifactError(f"{out}: is a file; an artifact is a folder, choose another --out")


def _start_or_resume(beside: Path, mark: TextIO, fingerprint: str) -> None:
    """Keep what an attempt at the same fingerprint left in the folder, and clear away that of another."""
    mark.seek(0)
    if mark.read() == fingerprint:
        return
    for leftover in beside.iterdir():
        if leftover.is_dir():
            shutil.rmtree(leftover)
        elif leftover.name != UNFINISHED:
            leftover.unlink()
    mark.truncate(0)
    mark.write(fingerprint)
    mark.flush()
    os.fsync(mark.fileno())


def _write_manifest(
    folder: Path,
    step: str,
    fingerprint: str,
    settings: Mapping[str, Any],
    inputs: Mapping[str, Artifact],
    seconds: float,
    told: Mapping[str, Any],
) -> None:
    files = {
        str(file.relative_to(folder)): file.stat().st_size
        for file in sorted(folder.rglob("*"))
        if file.is_file() and file.name not in (UNFINISHED, MANIFEST)
    }
    manifest = {
        "step": step,
        "fingerprint": fingerprint,
        "settings": settings,
        "inputs": {role: {"step": a.step, "fingerprint": a.fingerprint} for role, a in inputs.items()},
        "files": files,
        "seconds": round(seconds, 2),
        "peak_memory_bytes": _peak_memory(),
        "made": time.strftime(_TIME),
        **told,
    }
    replace_file(folder / MANIFEST, json.dumps(manifest, indent=1, sort_keys=True).encode())


def _peak_memory() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _read_manifest(path: Path) -> dict[str, Any] | None:
    try:
        manifest = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    whole = isinstance(manifest, dict) and all(isinstance(manifest.get(name), kind) for name, kind in _KINDS.items())
    return manifest if whole else None
