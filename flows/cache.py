"""A worker's cache of the store: kept while in use, and below a size."""

import fcntl
import os
import re
import shutil
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from fer_core.artifacts import MANIFEST, UNFINISHED, Artifact, open_artifact
from fer_core.errors import ArtifactError, FerError
from fer_core.steps import STEPS
from flows.store import FILES, Store

CACHE = "FER_CACHE_GB"
"""Environment: gigabytes of copies that a worker keeps (100)."""
_USUAL = 100.0
_SECONDS_UNTOUCHED = 86400.0
"""What broke off counts as left by a dead process after so long without a change."""
_ARTIFACT = re.compile(r"[0-9a-f]{16}(\..+)?")
"""Names of artifacts, and of what is fetched, made or put aside beside them."""
_FILE = re.compile(r"[0-9a-f]{64}|\.[0-9a-f]{64}\..+")
"""Names of users' files, and of what is fetched of them."""


@dataclass(frozen=True)
class _Copy:
    """An artifact, a user's file, or what broke off of one."""

    path: Path
    lock: Path
    """Locked by the step that uses it, or makes it."""
    size: int
    used: float
    artifact: Artifact | None = None
    broke_off: bool = False


def cache_limit() -> int:
    """Bytes of copies that this worker keeps.

    Raises:
        FerError: the environment says no number.
    """
    told = os.environ.get(CACHE) or str(_USUAL)
    try:
        limit = float(told)
    except ValueError:
        limit = -1.0
    if not 0 <= limit < float("inf"):
        raise FerError(f"{CACHE}={told}: give gigabytes, such as 100")
    return int(limit * 1e9)


@contextmanager
def in_use(artifacts: Iterable[Artifact], files: Iterable[Path] = ()) -> Iterator[None]:
    """Lock copies while a step reads them; the kernel releases a dead step's locks.

    Args:
        files: copies of users' files.
    """
    manifests = [artifact.file(MANIFEST) for artifact in artifacts]
    with ExitStack() as held:
        for path in (*manifests, *files):
            fcntl.flock(held.enter_context(path.open("rb")), fcntl.LOCK_SH)
        # A user's file keeps its times, by which what it holds is known.
        for manifest in manifests:
            os.utime(manifest)
        yield


def clear_copies(artifacts: Path, store: Store, limit: int, free: int = 0) -> list[Path]:
    """Delete copies until `limit` bytes are left, except those in use and artifacts that the store has not.

    What broke off and was not touched for a day goes first, then what was used least recently.

    Args:
        free: bytes of the disk that are to be free, however little the copies take.
    """
    copies, cleared = sorted(_copies(artifacts), key=lambda copy: (not copy.broke_off, copy.used)), list[Path]()
    too_much = max(sum(copy.size for copy in copies) - limit, free - shutil.disk_usage(artifacts).free)
    for copy in copies:
        if too_much <= 0:
            break
        if _may_go(copy, store) and _cleared(copy):
            too_much -= copy.size
            cleared.append(copy.path)
    return cleared


def _copies(artifacts: Path) -> Iterator[_Copy]:
    for step in STEPS:
        for path in (artifacts / step).glob("*"):
            if _ARTIFACT.fullmatch(path.name):
                # It may be renamed, or cleared, meanwhile.
                with suppress(OSError):
                    yield _copy_of_artifact(path)
    for path in (artifacts / f".{FILES}").glob("*"):
        if _FILE.fullmatch(path.name):
            with suppress(OSError):
                status = path.stat()
                used = max(status.st_atime, status.st_mtime)
                yield _Copy(path, path, status.st_size, used, broke_off=path.name.startswith("."))


def _copy_of_artifact(path: Path) -> _Copy:
    if path.suffix:
        return _broken_off(path)
    try:
        artifact = open_artifact(path)
    except ArtifactError:
        return _broken_off(path)
    manifest = artifact.file(MANIFEST)
    return _Copy(path, manifest, sum(artifact.files().values()), manifest.stat().st_mtime, artifact)


def _broken_off(path: Path) -> _Copy:
    """What is there of an artifact that is being fetched, or made, or cleared, or was until a process was killed."""
    inside = [path, *path.rglob("*")]
    lock = next((path / name for name in (UNFINISHED, MANIFEST) if (path / name).is_file()), path)
    size = sum(one.lstat().st_size for one in inside if one.is_file())
    return _Copy(path, lock, size, max(one.lstat().st_mtime for one in inside), broke_off=True)


def _may_go(copy: _Copy, store: Store) -> bool:
    if copy.artifact is not None:
        return store.has(copy.artifact.step, copy.artifact.fingerprint)
    # A fetch under way has no lock, but writes.
    return not copy.broke_off or time.time() - copy.used > _SECONDS_UNTOUCHED


def _cleared(copy: _Copy) -> bool:
    """Delete it, unless a step uses it."""
    with suppress(OSError), _locked(copy.lock):
        if copy.path.is_dir():
            # Without its manifest first, so that half of it counts as nothing.
            (copy.path / MANIFEST).unlink(missing_ok=True)
            shutil.rmtree(copy.path)
        else:
            copy.path.unlink()
        return True
    return False


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Lock a file or a folder.

    Raises:
        BlockingIOError: a step has it.
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)
