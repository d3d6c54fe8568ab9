"""The store that machines share: artifacts by fingerprint, in a folder that all of them mount or in an S3 bucket.

    fer-store.json                              what the place is
    STEP/FINGERPRINT/published.json             which upload counts, and each file's size and SHA-256; made exclusively
    STEP/FINGERPRINT/upload-TOKEN/…             the files of one upload
    STEP/FINGERPRINT/lease-NUMBER.json          who makes it, see flows/lease.py
    STEP/FINGERPRINT/resume-NUMBER.json, …/     how far the holder of that lease has come

Nothing is half-visible: an upload does not count before published.json names it. Nothing is written over: of two
uploads, the one whose published.json came first counts, for good.
"""

import fcntl
import json
import os
import re
import secrets
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from fer_core.artifacts import MANIFEST, Artifact, finished, replace_folder
from fer_core.paths import NO_ROOM
from fer_core.steps import STEPS
from flows.shared_place import STORE, DiskFull, SharedPlace, StoreAway, StoreError, safe_name, sha256_of

PUBLISHED = "published.json"
FILES = "files"
"""The room of files of users', weights and vectors, each called by its SHA-256."""
WORKERS = "workers"
"""Folder in which each machine that works says what it has."""
_SHA256 = re.compile("[0-9a-f]{64}")


@dataclass(frozen=True)
class Published:
    """An artifact in the store."""

    step: str
    fingerprint: str
    upload: str
    files: Mapping[str, int]
    """Bytes of each file, by its name in the artifact."""
    made_from: tuple[str, ...]
    """STEP/FINGERPRINT of each input."""
    sha256: Mapping[str, str] = field(default_factory=dict)
    """What each file holds, by its name in the artifact; empty for what an earlier version stored."""

    @property
    def size(self) -> int:
        """Bytes of all its files."""
        return sum(self.files.values())


def open_store(place: str | None = None) -> "Store | None":
    """The store at `place`, or the one that the environment names; None where neither does.

    Raises:
        StoreError: it is not there, or no store of this project.
    """
    place = place or os.environ.get(STORE)
    return Store(place) if place else None


class Store(SharedPlace):
    """See this module."""

    def has(self, step: str, fingerprint: str) -> bool:
        """Tell whether an artifact is there, whole."""
        return self.read(f"{step}/{fingerprint}/{PUBLISHED}") is not None

    def published(self, step: str, fingerprint: str) -> Published | None:
        """An artifact's entry in the store; None if it is not published."""
        told = self.read_json(f"{step}/{fingerprint}/{PUBLISHED}")
        if told is None:
            return None
        with self.as_written(f"{step}/{fingerprint}/{PUBLISHED}"):
            files = {safe_name(name): int(size) for name, size in told["files"].items()}
            made_from = tuple(safe_name(name) for name in told["made_from"])
            sha256 = {name: str(told["sha256"][name]) for name in files} if "sha256" in told else {}
            return Published(step, fingerprint, safe_name(told["upload"]), files, made_from, sha256)

    def rooms(self) -> Iterator[str]:
        """STEP/FINGERPRINT of all that is there, or is being made, or broke off."""
        for step in sorted(set(STEPS) & set(self.names_in(""))):
            yield from (f"{step}/{fingerprint}" for fingerprint in self.names_in(step))

    def artifacts(self) -> Iterator[Published]:
        """All published artifacts."""
        for room in self.rooms():
            if found := self.published(*room.split("/")):
                yield found

    def beside_published(self, room: str) -> list[str]:
        """What lies beside the upload that counts, of an artifact or a user's file; nothing where none counts yet."""
        # Looked for first: what is there before the entry, and not in it, will never count.
        names = self.names_in(room)
        told = self.read_json(f"{room}/{PUBLISHED}")
        if told is None:
            return []
        with self.as_written(f"{room}/{PUBLISHED}"):
            counts = {PUBLISHED, safe_name(told["upload"])}
        return [f"{room}/{name}" for name in names if name not in counts]

    def push(self, artifact: Artifact) -> bool:
        """Copy an artifact into the store; False where it is there already, or was put there meanwhile."""
        room = f"{artifact.step}/{artifact.fingerprint}"
        if self.has(artifact.step, artifact.fingerprint):
            return False
        upload = f"upload-{secrets.token_hex(8)}"
        files = artifact.files()
        try:
            for name in files:
                self.put_file(artifact.file(name), f"{room}/{upload}/{name}")
        except StoreError:
            # As of a full one, which half an upload must not keep full.
            with suppress(StoreError, StoreAway):
                self.remove(f"{room}/{upload}")
            raise
        sha256 = {name: sha256_of(artifact.file(name)) for name in files}
        told = {"upload": upload, "files": files, "sha256": sha256, "made_from": sorted(artifact.inputs())}
        if self.create(f"{room}/{PUBLISHED}", json.dumps(told, indent=1).encode()):
            return True
        self.remove(f"{room}/{upload}")
        return False

    def fetch(self, step: str, fingerprint: str, artifacts: Path) -> Artifact | None:
        """Copy an artifact from the store to where it belongs below `artifacts`; None where neither has one.

        What this machine has made itself gives way to what the store has: another machine's came first, and others go
        on from it. On a GPU its bits are not the same.

        Raises:
            StoreError: what is there is not what was published.
            DiskFull: this machine has no room for it.
        """
        out = artifacts / step / fingerprint
        found, there = finished(out, fingerprint), self.published(step, fingerprint)
        if there is None or _counts(found, there):
            return found
        with _fetching_alone(out):
            if _counts(found := finished(out, fingerprint), there):
                return found
            if found is None:
                return self._fetched(there, out)
            late = out.with_name(f"{fingerprint}.late")
            shutil.rmtree(late, ignore_errors=True)
            out.rename(late)
            try:
                return self._fetched(there, out)
            finally:
                shutil.rmtree(late, ignore_errors=True)

    def _fetched(self, there: Published, out: Path) -> Artifact | None:
        step, fingerprint = there.step, there.fingerprint
        beside = out.with_name(f"{fingerprint}.fetched-{secrets.token_hex(4)}")
        try:
            for name, size in there.files.items():
                kept = f"{step}/{fingerprint}/{there.upload}/{name}"
                self.get_file(kept, beside / name, size, there.sha256.get(name))
            _put_in_place(beside, out, fingerprint)
        finally:
            shutil.rmtree(beside, ignore_errors=True)
        return finished(out, fingerprint)

    def push_file(self, file: Path, sha256: str) -> None:
        """Copy a file of the user's into the store, under what it holds; nothing where it is there already."""
        room = f"{FILES}/{sha256}"
        if self.read(f"{room}/{PUBLISHED}") is not None:
            return
        upload = f"upload-{secrets.token_hex(8)}"
        self.put_file(file, f"{room}/{upload}")
        told = {"upload": upload, "size": file.stat().st_size}
        if not self.create(f"{room}/{PUBLISHED}", json.dumps(told).encode()):
            self.remove(f"{room}/{upload}")

    def fetch_file(self, sha256: str, folder: Path) -> Path:
        """Copy it to this machine, where it is called by what it holds.

        Raises:
            StoreAway: it is not there, or not any more.
            StoreError: it does not hold that.
            DiskFull: this machine has no room for it.
        """
        if not _SHA256.fullmatch(sha256):
            raise StoreError(f"{FILES}/{sha256}: no SHA-256")
        path, room = folder / sha256, f"{FILES}/{sha256}"
        if path.is_file():
            return path
        told = self.read_json(f"{room}/{PUBLISHED}")
        if told is None:
            raise StoreAway(f"{room}: not in the store {self.place}")
        with self.as_written(f"{room}/{PUBLISHED}"):
            upload, size = safe_name(told["upload"]), int(told["size"])
        beside = folder / f".{sha256}.{secrets.token_hex(8)}"
        try:
            self.get_file(f"{room}/{upload}", beside, size, sha256)
            beside.replace(path)
        finally:
            beside.unlink(missing_ok=True)
        return path

    def remove_room(self, room: str) -> None:
        """An artifact or a user's file, what counts first: else half of it would count if this were to break off."""
        self.remove(f"{room}/{PUBLISHED}")
        self.remove(room)


def _counts(found: Artifact | None, there: Published) -> bool:
    """Tell whether a copy on this machine is the one in the store; of what an earlier version stored, any counts."""
    told = there.sha256.get(MANIFEST)
    try:
        return found is not None and (told is None or sha256_of(found.file(MANIFEST)) == told)
    except FileNotFoundError:
        return False  # It has just been put out of the way, or cleared.


@contextmanager
def _fetching_alone(out: Path) -> Iterator[None]:
    """See that of the steps that begin on this machine together, one fetches what they all read, and the others wait.

    Raises:
        DiskFull: this machine has no room for a file.
        StoreError: this user may not write there.
    """
    path = out.with_name(f".{out.name}.fetching")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = _locked(path)
    except OSError as error:
        if error.errno in NO_ROOM:
            raise DiskFull(f"{path}: {error.strerror}; free some space there") from error
        raise StoreError(f"{path}: {error.strerror}; let this user write there") from error
    with lock:
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


def _locked(path: Path) -> IO[str]:
    """A file's lock, once whoever had it is done and has taken the file away."""
    while True:
        lock = path.open("a", encoding="utf-8")
        fcntl.flock(lock, fcntl.LOCK_EX)
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(lock.fileno()), path.stat()):
                return lock
        lock.close()


def _put_in_place(beside: Path, out: Path, fingerprint: str) -> None:
    """Rename what was fetched, unless somebody else's is there meanwhile."""
    # A look before it would miss what comes between the two; by then a step may read that.
    with suppress(OSError):
        beside.rename(out)
        return
    try:
        if not finished(out, fingerprint):
            replace_folder(beside, out)
    except OSError:
        if not finished(out, fingerprint):
            raise
