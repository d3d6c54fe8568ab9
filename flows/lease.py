"""Leases: which machine makes an artifact, and how far it has come, so that another can go on when it dies.

A lease is a numbered file in the store, and the highest number counts. It is taken by making the next number, which the
store allows once. Its holder writes a beat into it every ten seconds. Whoever waits takes the next number when the beat
has not changed for half a minute *of the waiting machine's own clock*, so that wrong clocks do no harm.

A holder that slept past its end and wakes can do none: its upload is not the first, and its resume states lie under
its own, lower number.
"""

import json
import math
import os
import re
import secrets
import shutil
import socket
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from fer_core.artifacts import UNFINISHED
from flows.shared_place import StoreAway, StoreError, safe_name
from flows.store import Store

MACHINE = "FER_MACHINE"
"""Environment: this machine's name in messages, in the store and in Prefect, where it is not the host's."""
SECONDS_BETWEEN_BEATS = 10.0
SECONDS_OF_SILENCE = 30.0
"""Without a new beat, and its holder counts as dead."""
_SECONDS_UNWATCHED = 10.0
"""More between two looks, and the second counts as the first: a store that was away has taken no beats either."""
_LEAST_SECONDS_BETWEEN_STATES, _MOST_SECONDS_BETWEEN_STATES = 10.0, 300.0
_SHARE_OF_TIME = 0.05
"""Resume states are copied for no more of the time than this, and so more rarely where that takes long."""
_LEASE = "lease-"
_RESUME = "resume-"


class LeaseLost(Exception):
    """Another machine has taken over."""


@dataclass(frozen=True)
class Holder:
    """The latest lease, as its holder last wrote it; `number` 0 where there is none."""

    number: int
    owner: str = ""
    beat: int = 0
    released: bool = True


@dataclass
class Silence:
    """Watches a sign of life from outside, by this machine's monotonic clock."""

    seconds: float = SECONDS_OF_SILENCE
    _seen: object = None
    _since: float = 0.0
    _looked: float = -math.inf

    def of(self, sign: object) -> bool:
        """Tell whether the sign of life, a lease with its beat for one, has been the same for too long."""
        now = time.monotonic()
        if sign != self._seen or now - self._looked > _SECONDS_UNWATCHED:
            self._seen, self._since = sign, now
        self._looked = now
        return now - self._since >= self.seconds


def machine_name() -> str:
    """This machine's name, which is a file's in the store too, and so has no slash."""
    return (os.environ.get(MACHINE) or socket.gethostname()).replace("/", "-")


def latest(store: Store, room: str) -> Holder:
    """The latest lease of an artifact, `room` being its STEP/FINGERPRINT.

    Raises:
        StoreError: a file in its place is no lease.
    """
    number = max(_numbers(store, room, _LEASE), default=0)
    told = store.read_json(_lease_file(room, number)) if number else None
    if told is None:
        # Taken away between the two looks: its holder has finished.
        return Holder(number)
    with store.as_written(_lease_file(room, number)):
        holder = Holder(number, told["owner"], told["beat"], told["released"])
        if not (isinstance(holder.owner, str) and type(holder.beat) is int and isinstance(holder.released, bool)):
            raise TypeError("no lease")
        return holder


def take(store: Store, room: str, after: Holder, owner: str, resumes: tuple[str, ...] = ("**/*",)) -> "Lease | None":
    """Take the lease that follows `after`; None where another machine was first.

    Args:
        resumes: patterns of the files that belong to a resume state.
    """
    lease = Lease(store, room, after.number + 1, f"{owner} {secrets.token_hex(4)}", resumes)
    return lease if store.create(lease.file, lease.content(released=False)) else None


@dataclass(frozen=True)
class _Saved:
    """A file of a resume state."""

    time_and_size: tuple[int, int]
    """Before it was copied, by which a change is noticed."""
    at: str
    """Its name in the store."""
    size: int
    """Its bytes there: it may have grown while it was copied, as a journal does."""


@dataclass
class Lease:
    """A lease that this process holds."""

    store: Store
    room: str
    number: int
    owner: str
    resumes: tuple[str, ...]
    _beat: int = 0
    _saved: dict[str, _Saved] = field(default_factory=dict)
    """The last resume state, by the name of each file."""

    @property
    def file(self) -> str:
        """Its name in the store."""
        return _lease_file(self.room, self.number)

    def content(self, released: bool) -> bytes:
        """The lease file's content."""
        return json.dumps({"owner": self.owner, "beat": self._beat, "released": released}).encode()

    def beat(self) -> None:
        """Say that its holder lives.

        Raises:
            LeaseLost: another machine has taken over.
        """
        self.require_held()
        self._beat += 1
        self.store.replace(self.file, self.content(released=False))

    def require_held(self) -> None:
        """See that no other machine has taken over.

        Raises:
            LeaseLost: one has.
        """
        if (holder := latest(self.store, self.room)).number > self.number:
            raise LeaseLost(f"{self.room}: taken over by {holder.owner}")

    def release(self) -> None:
        """Let the next take it at once."""
        self.store.replace(self.file, self.content(released=True))

    def save_resume_state(self, folder: Path) -> None:
        """Copy what an unfinished step would go on from; what has not changed since the last time stays."""
        before, now, state = self._saved, dict[str, _Saved](), f"{self.room}/{_RESUME}{self.number}"
        try:
            paths = _newest_first(folder, self.resumes)
            if all(path.name == UNFINISHED for path in paths):
                return
            for path in paths:
                status, name = path.stat(), str(path.relative_to(folder))
                time_and_size = status.st_mtime_ns, status.st_size
                if name in before and before[name].time_and_size == time_and_size:
                    now[name] = before[name]
                    continue
                at = f"{secrets.token_hex(8)}-{path.name}"
                self.store.put_file(path, f"{state}/{at}")
                now[name] = _Saved(time_and_size, at, self.store.size(f"{state}/{at}"))
        except FileNotFoundError:
            return  # The step has just ended, or deletes files: what was saved before stays until there is a whole one.
        told = {name: {"at": saved.at, "size": saved.size} for name, saved in now.items()}
        self.store.replace(f"{state}.json", json.dumps(told).encode())
        self._saved = now
        for at in {saved.at for saved in before.values()} - {saved.at for saved in now.values()}:
            self.store.remove(f"{state}/{at}")

    def fetch_resume_state(self, folder: Path) -> bool:
        """Put the latest holder's resume state into a folder, instead of what is there; False where there is none.

        Raises:
            StoreError: a file in the place of resume states has no number.
        """
        numbers = sorted(_numbers(self.store, self.room, _RESUME), reverse=True)
        return any(self._fetch_from(number, folder) for number in numbers)

    def clear(self) -> None:
        """Take away leases and resume states, once the artifact is published."""
        for name in self.store.names_in(self.room):
            if name.startswith((_LEASE, _RESUME)):
                self.store.remove(f"{self.room}/{name}")

    def _fetch_from(self, number: int, folder: Path) -> bool:
        state = f"{self.room}/{_RESUME}{number}"
        beside = folder.with_name(f"{folder.name}-{secrets.token_hex(4)}")
        try:
            told = self.store.read_json(f"{state}.json") or {}
            with self.store.as_written(f"{state}.json"):
                files = {safe_name(name): (safe_name(file["at"]), int(file["size"])) for name, file in told.items()}
            for name, (at, size) in files.items():
                self.store.get_file(f"{state}/{at}", beside / name, size)
            _move_files(beside, folder)
        except (FileNotFoundError, StoreError):
            return False  # Its holder lives and has replaced it meanwhile; an older state, or none, does too.
        finally:
            shutil.rmtree(beside, ignore_errors=True)
        return bool(files)


@contextmanager
def kept(lease: Lease, folder: Path, lost: threading.Event) -> Iterator[None]:
    """Beat, and save the resume state in `folder`, in the background; `lost` is set when another has taken over."""
    done = threading.Event()

    def beat() -> None:
        while not done.wait(SECONDS_BETWEEN_BEATS):
            try:
                lease.beat()
            except LeaseLost:
                lost.set()
                return
            except (StoreAway, StoreError):
                continue

    def save() -> None:
        pause = _LEAST_SECONDS_BETWEEN_STATES
        while not done.wait(pause) and not lost.is_set():
            started = time.monotonic()
            with suppress(StoreAway, StoreError):
                lease.save_resume_state(folder)
            took = time.monotonic() - started
            pause = min(max(_LEAST_SECONDS_BETWEEN_STATES, took / _SHARE_OF_TIME), _MOST_SECONDS_BETWEEN_STATES)

    threads = [threading.Thread(target=work, daemon=True) for work in (beat, save)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        done.set()
        for thread in threads:
            thread.join()


def _numbers(store: Store, room: str, kind: str) -> list[int]:
    """Numbers of the leases, or of the resume states, in a room."""
    numbers = []
    for name in store.names_in(room):
        if name.startswith(kind) and name.endswith(".json"):
            number = name.removeprefix(kind).removesuffix(".json")
            with store.as_written(f"{room}/{name}"):
                if not re.fullmatch("[0-9]+", number):
                    raise ValueError(f"{number!r} is no number")
                numbers.append(int(number))
    return numbers


def _lease_file(room: str, number: int) -> str:
    return f"{room}/{_LEASE}{number:06d}.json"


def _move_files(source: Path, folder: Path) -> None:
    for path in [path for path in source.rglob("*") if path.is_file()]:
        target = folder / path.relative_to(source)
        target.parent.mkdir(parents=True, exist_ok=True)
        path.replace(target)


def _newest_first(folder: Path, patterns: Iterable[str]) -> list[Path]:
    """Files in the order opposite to that in which they were written.

    A step writes what its resume file speaks of before that file. Copied in the opposite order, a state never speaks of
    what is not in it, even while the step goes on writing.
    """
    # The mark says what the others belong to.
    found = {path for pattern in (UNFINISHED, *patterns) for path in folder.glob(pattern)}
    files = [path for path in found if path.is_file() and path.suffix != UNFINISHED]
    return sorted(files, key=lambda path: path.stat().st_mtime_ns, reverse=True)
