"""Digests of files that were read before, kept in this user's cache folder, so that no file is read for them twice.

One file of the cache for each dataset, written beside and renamed, so that it is whole whoever else writes or is
killed; what is not whole is passed over, and where nothing can be written nothing is kept. A million digests take 64 MB
and are written in .25 s. In SQLite they took 82 MB and 7 s, and its write-ahead log fails on network drives, where
homes often lie.
"""

import hashlib
import os
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

STATUS = ("inode", "size", "mtime_ns", "ctime_ns")
"""A file's identity. The device number is left out, since the kernel renumbers many devices at each start."""
BYTES = 32
"""Length of a digest, SHA-256's."""
_MAGIC = b"fer digests 1\n"
_ROW = np.dtype([("status", "<i8", len(STATUS)), ("digest", "u1", BYTES)])
_UNFINISHED = ".unfinished"
_SECONDS_TO_WRITE = 3600


@dataclass(frozen=True)
class Digests:
    """Digests by status: (N, 4) int64 and (N, 32) uint8."""

    status: np.ndarray
    digest: np.ndarray

    def find(self, status: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Digests for (n, 4) statuses: (n, 32) uint8, zeros where there is none, and (n,) bool where there is one."""
        digest = np.zeros((len(status), BYTES), np.uint8)
        if not len(self.status):
            return digest, np.zeros(len(status), bool)
        marks = _marks(self.status)
        order = np.argsort(marks)
        at = np.searchsorted(marks, _marks(status), sorter=order)
        row = order[np.minimum(at, len(order) - 1)]
        known: np.ndarray = (self.status[row] == status).all(axis=1)
        digest[known] = self.digest[row[known]]
        return digest, known


def _marks(status: np.ndarray) -> np.ndarray:
    """(n,) uint64 by which rows are looked up; two rows of one mark would cost a reading, and nothing else."""
    marks = np.zeros(len(status), np.uint64)
    for column in status.T:
        marks = (marks ^ column.astype(np.uint64)) * np.uint64(0x9E3779B97F4A7C15)
        marks ^= marks >> np.uint64(29)
    return marks


def cache_folder() -> Path:
    """The project's folder in this user's cache.

    Raises:
        RuntimeError: this user has no home.
    """
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fer"


def recall(root: Path) -> Digests:
    """What was kept for a dataset; nothing where that is damaged or cannot be read."""
    try:
        content = _place(root).read_bytes()
    except (OSError, RuntimeError):
        content = b""
    head = len(_MAGIC) + BYTES
    whole = (
        content.startswith(_MAGIC)
        and hashlib.sha256(memoryview(content)[head:]).digest() == content[head - BYTES : head]
    )
    rows = np.frombuffer(content, _ROW, offset=head) if whole else np.empty(0, _ROW)
    return Digests(rows["status"], rows["digest"])


def keep(root: Path, digests: Digests) -> None:
    """Keep digests for a dataset instead of those kept before, if this user can."""
    rows = np.empty(len(digests.status), _ROW)
    rows["status"], rows["digest"] = digests.status, digests.digest
    content = rows.tobytes()
    with suppress(OSError, RuntimeError):
        _write(_place(root), _MAGIC + hashlib.sha256(content).digest() + content)


def _place(root: Path) -> Path:
    name = hashlib.sha256(os.fsencode(os.path.realpath(root))).hexdigest()[:16]
    return cache_folder() / "digests" / name


def _write(place: Path, content: bytes) -> None:
    """Under a name of its own first, as several processes may write at once; a killed one's is cleared away later."""
    place.parent.mkdir(parents=True, exist_ok=True)
    for left in place.parent.glob(f"*{_UNFINISHED}"):
        with suppress(FileNotFoundError):
            if left.stat().st_mtime < time.time() - _SECONDS_TO_WRITE:
                left.unlink()
    number, beside = tempfile.mkstemp(_UNFINISHED, f"{place.name}.", place.parent)
    try:
        with open(number, "wb") as file:
            file.write(content)
        os.replace(beside, place)
    except BaseException:
        os.unlink(beside)
        raise
