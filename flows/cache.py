"""A worker's cache of the store: kept while in use, and below a size."""

import fcntl
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from fer_core.artifacts import MANIFEST, Artifact, open_artifact
from fer_core.errors import ArtifactError, FerError
from fer_core.steps import STEPS
from flows.store import Store

CACHE = "FER_CACHE_GB"
"""Environment: gigabytes of copies that a worker keeps (100)."""
_USUAL = 100.0


@dataclass(frozen=True)
class _Copy:
    artifact: Artifact
    size: int
    used: float


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
def in_use(artifacts: Iterable[Artifact]) -> Iterator[None]:
    """Lock copies while a step reads them; the kernel releases a dead step's locks."""
    with ExitStack() as held:
        for artifact in artifacts:
            manifest = held.enter_context(artifact.file(MANIFEST).open("rb"))
            fcntl.flock(manifest, fcntl.LOCK_SH)
            os.utime(artifact.file(MANIFEST))
        yield


def clear_copies(artifacts: Path, store: Store, limit: int) -> list[Path]:
    """Delete the copies that were used least recently, until `limit` bytes are left; only what the store has, too."""
    copies = sorted(_copies(artifacts), key=lambda copy: copy.used)
    too_much, cleared = sum(copy.size for copy in copies) - limit, list[Path]()
    for copy in copies:
        if too_much <= 0:
            break
        if store.has(copy.artifact.step, copy.artifact.fingerprint) and _cleared(copy.artifact):
            too_much -= copy.size
            cleared.append(copy.artifact.path)
    return cleared


def _copies(artifacts: Path) -> Iterator[_Copy]:
    for step in STEPS:
        for path in (artifacts / step).glob("[0-9a-f]*"):
            with suppress(ArtifactError, OSError):
                artifact = open_artifact(path)
                yield _Copy(artifact, sum(artifact.files().values()), artifact.file(MANIFEST).stat().st_mtime)


def _cleared(artifact: Artifact) -> bool:
    """Delete it, unless a step uses it."""
    with suppress(OSError), artifact.file(MANIFEST).open("rb") as manifest:
        fcntl.flock(manifest, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Without its manifest first, so that half of it counts as nothing.
        artifact.file(MANIFEST).unlink()
        shutil.rmtree(artifact.path)
        return True
    return False
