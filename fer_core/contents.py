"""A digest of the content of a user's files, the same for every copy, whatever its path and age.

A file is read once: its digest is kept (`fer_core.digests`), and one look at names, sizes and times tells whether it
still holds.
"""

import hashlib
import os
import stat
import time
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np

from fer_core.digests import BYTES, STATUS, Digests, keep, recall
from fer_core.errors import ArtifactError
from openface.files import files_below
from openface.machine import usable_cores

Tell = Callable[[str, int, int], None]
"""Called with what is done, how much of it, and the total, as `Reporter.progress` is."""

_SIZE, _CHANGED = STATUS.index("size"), STATUS.index("ctime_ns")
_NOTHING = bytes(BYTES)
"""The digest of a file that is missing or may not be read."""
_YOUNG = 2_000_000_000
"""Nanoseconds within which two changes may get the same time stamp on the coarsest file systems."""
_BLOCK = 1 << 20
_BATCH = 32 << 20
_COST_OF_A_FILE = 64 << 10
"""Opening a file takes as long as reading so many bytes more."""
_THREADS_PER_CORE, _THREADS = 4, 32
"""Disks and networks answer several questions at once."""
_SECONDS_OF_PATIENCE, _SECONDS_BETWEEN_WORDS, _SECONDS_AT_RISK = 2.0, 0.5, 60.0


@dataclass(frozen=True)
class Seen:
    """What a look at files found."""

    content: str
    """Digest of their names and contents."""
    glance: str = ""
    """Digest of their names, sizes and times; while it is the same, so is `content`. "" where a file is so young that
    it could change unnoticed."""

    def __str__(self) -> str:
        return f"{self.content}:{self.glance}"


def seen_from(text: str) -> Seen:
    """Parse what `str` wrote."""
    content, _, glance = text.partition(":")
    return Seen(content, glance)


def nobody(what: str, done: int, total: int) -> None:
    """A `Tell` that says nothing."""


def look(
    path: Path,
    before: Seen | None = None,
    tell: Tell = nobody,
    beyond: Iterable[Path] = (),
    without: tuple[str, ...] = (),
) -> Seen:
    """Look at a file, or at all regular files below a folder, links followed, hidden ones apart, which nothing reads.

    Args:
        before: what an earlier look found, which is taken for granted where nothing has changed since.
        beyond: files elsewhere, or hidden, that what is in the folder names, and that count too.
        without: endings of the files in the folder that do not count.

    Raises:
        ArtifactError: a folder below may not be read.
    """
    if path.is_file():
        return look_at_files(path.parent, [path], path, before, tell)
    named = ((file, _status(file)) for file in set(beyond))
    below = ((place, status) for place, status in _below(path) if not place.endswith(without))
    return _seen(_found(path, chain(below, named), patient := _Patience(tell)), path, before, patient)


def look_at_files(
    base: Path, files: Iterable[Path], root: Path, before: Seen | None = None, tell: Tell = nobody
) -> Seen:
    """Look at chosen files, by their names below `base`, or as they are where not below; a missing one counts as such.

    Args:
        root: what of the user's names them, by which their digests are kept.
    """
    patient = _Patience(tell)
    return _seen(_found(base, ((path, _status(path)) for path in set(files)), patient), root, before, patient)


def signature(path: Path) -> str:
    """Digest of the names and contents of a file or a folder.

    Raises:
        ArtifactError: a folder below may not be read.
    """
    return look(path).content


def content_of(path: Path) -> str:
    """SHA-256 of a file, whatever it is called."""
    files = _found(path.parent, [(path, _status(path))], patient := _Patience(nobody))
    return _contents(files, path, patient)[0].tobytes().hex()


def contents_of(folder: Path, files: Sequence[Path], tell: Tell = nobody) -> list[bytes]:
    """SHA-256 of each file in a folder, 32 bytes; all zero where it is missing or may not be read."""
    patient = _Patience(tell)
    found = _found(folder, ((path, _status(path)) for path in files), patient)
    contents, _ = _contents(found, folder, patient)
    row_of = {name: row for row, name in enumerate(found.names)}
    return [contents[row_of[_name(found.base, path)]].tobytes() for path in files]


class _Patience:
    """Passes on how far a look is, twice a second, once it has taken two seconds."""

    def __init__(self, tell: Tell) -> None:
        self._tell = tell
        self._next = time.monotonic() + _SECONDS_OF_PATIENCE
        self._told = ""

    def __call__(self, what: str, done: int, total: int, last: bool = False) -> None:
        now = time.monotonic()
        if now >= self._next or (last and self._told == what):
            self._next, self._told = now + _SECONDS_BETWEEN_WORDS, what
            self._tell(what, done, total)


@dataclass(frozen=True)
class _Files:
    """Files in the order of their names' bytes."""

    base: bytes
    names: list[bytes]
    """As bytes, since what they are as text depends on the machine's locale."""
    status: np.ndarray
    """(n, 4) int64 as `STATUS`, all -1 of a missing file."""

    def path(self, row: int) -> bytes:
        """The place of a file."""
        return os.path.join(self.base, self.names[row])

    def digest(self, facts: np.ndarray) -> str:
        """Digest of the names and of (n, …) facts, a row for each."""
        digest = hashlib.sha256(f"{len(self.names)}\n".encode())
        digest.update(b"\0".join(self.names))
        digest.update(np.ascontiguousarray(facts).data)
        return digest.hexdigest()


def _below(folder: Path) -> Iterator[tuple[str, os.stat_result | None]]:
    try:
        for file in files_below(folder, hidden=False) if folder.is_dir() else ():
            if file.kind == "regular":
                yield file.place, file.status
    except OSError as error:
        raise ArtifactError(f"{error.filename}: {error.strerror}; allow this user to read it") from error


def _status(path: Path) -> os.stat_result | None:
    """None of what is missing or no regular file."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status if stat.S_ISREG(status.st_mode) else None


def _found(base: Path, files: Iterable[tuple[str | Path, os.stat_result | None]], patient: _Patience) -> _Files:
    above = os.fsencode(base)
    names, numbers = [], array("q")
    for path, status in files:
        names.append(_name(above, path))
        numbers.extend(_facts(status))
        patient("find files", len(names), len(names))
    order = sorted(range(len(names)), key=names.__getitem__)
    status_of = np.array(numbers, np.int64).reshape(-1, len(STATUS))[order]
    return _Files(above, [names[row] for row in order], status_of)


def _name(base: bytes, path: str | Path) -> bytes:
    """The name of a file below `base`, or its path as it is."""
    return os.fsencode(path).removeprefix(os.path.join(base, b""))


def _facts(status: os.stat_result | None) -> tuple[int, ...]:
    if status is None:
        return (-1,) * len(STATUS)
    # Some file systems number files beyond 63 bits.
    return status.st_ino & (2**63 - 1), status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _seen(files: _Files, root: Path, before: Seen | None, patient: _Patience) -> Seen:
    glance = files.digest(files.status[:, _SIZE:])
    if before is not None and before.glance == glance:
        return before
    contents, steady = _contents(files, root, patient)
    return Seen(files.digest(contents), glance if steady else "")


def _contents(files: _Files, root: Path, patient: _Patience) -> tuple[np.ndarray, bool]:
    """(n, 32) uint8 digests, and whether a change of any file from now on would show in its times."""
    contents, steady = recall(root).find(files.status)
    missing = files.status[:, _SIZE] < 0
    unread = np.flatnonzero(~steady & ~missing)
    steady |= missing
    if len(unread):
        _read_into(contents, steady, files, unread, root, patient)
    return contents, bool(steady.all())


def _read_into(
    contents: np.ndarray, steady: np.ndarray, files: _Files, unread: np.ndarray, root: Path, patient: _Patience
) -> None:
    """Read these rows' files; what is read by then is kept every minute, and when something ends it."""

    def keep_them() -> None:
        rows = steady & contents.any(axis=1)
        if rows.any():
            keep(root, Digests(files.status[rows], contents[rows]))

    batches, done, kept = _batches(files, unread), 0, time.monotonic()
    pool = ThreadPoolExecutor(min(_THREADS, _THREADS_PER_CORE * usable_cores()))
    try:
        for rows, read in zip(batches, pool.map(lambda rows: _read_batch(files, rows), batches), strict=True):
            contents[rows] = np.frombuffer(b"".join(digest for digest, _ in read), np.uint8).reshape(-1, BYTES)
            steady[rows] = [is_steady for _, is_steady in read]
            done += len(rows)
            patient("read files", done, len(unread), last=done == len(unread))
            if time.monotonic() - kept > _SECONDS_AT_RISK:
                keep_them()
                kept = time.monotonic()
    finally:
        pool.shutdown(cancel_futures=True)
        keep_them()


def _batches(files: _Files, rows: np.ndarray) -> list[np.ndarray]:
    """The rows in parts that take about as long to read, a fraction of a second on most disks."""
    number = np.cumsum(files.status[rows, _SIZE] + _COST_OF_A_FILE) // _BATCH
    return np.split(rows, np.flatnonzero(np.diff(number)) + 1)


def _read_batch(files: _Files, rows: np.ndarray) -> list[tuple[bytes, bool]]:
    return [_read(files.path(row), files.status[row]) for row in rows.tolist()]


def _read(path: bytes, status: np.ndarray) -> tuple[bytes, bool]:
    """A file's digest, and whether it stayed as it was found and any change from now on would show in its times."""
    began = time.time_ns()
    facts = tuple(status.tolist())
    digest = hashlib.sha256()
    try:
        file = os.open(path, os.O_RDONLY)
        try:
            while block := os.read(file, min(facts[_SIZE] + 1, _BLOCK)):
                digest.update(block)
            after = _facts(os.fstat(file))
        finally:
            os.close(file)
    except OSError:
        # A step that cannot read it either says so; once it can be read, its times have changed.
        return _NOTHING, True
    return digest.digest(), after == facts and facts[_CHANGED] < began - _YOUNG
