"""The store that machines share: artifacts by fingerprint, in a folder that all of them mount or in an S3 bucket.

    fer-store.json                              what the place is
    STEP/FINGERPRINT/published.json             which upload counts, and each file's size and SHA-256; made exclusively
    STEP/FINGERPRINT/upload-TOKEN/…             the files of one upload
    STEP/FINGERPRINT/lease-NUMBER.json          who makes it, see flows/lease.py
    STEP/FINGERPRINT/resume-NUMBER.json, …/     how far the holder of that lease has come

Nothing is half-visible: an upload does not count before published.json names it. Nothing is written over: of two
uploads, the one whose published.json came first counts, for good.
"""

import errno
import fcntl
import hashlib
import json
import os
import re
import secrets
import shutil
import stat
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import takewhile
from pathlib import Path
from typing import IO, Any, TypeVar

import fsspec
from fsspec.implementations.local import LocalFileSystem

from fer_core.artifacts import MANIFEST, Artifact, finished, replace_folder
from fer_core.errors import FerError
from fer_core.paths import NO_ROOM, at_home
from fer_core.steps import STEPS

STORE = "FER_STORE"
"""Environment: the store, a folder's path or `s3://bucket/folder`; without it, what is made stays on this machine."""
PUBLISHED = "published.json"
FILES = "files"
"""The room of files of users', weights and vectors, each called by its SHA-256."""
WORKERS = "workers"
"""Folder in which each machine that works says what it has."""
_MARK = "fer-store.json"
_PROJECT = "fer"
_TRIED = ".written-to-try"
_SHA256 = re.compile("[0-9a-f]{64}")
_REFUSED = (errno.EACCES, errno.EPERM, errno.EROFS)
_NO_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS)
_NOT_OURS = (errno.ENOTDIR, errno.EISDIR)
SECONDS_OF_PATIENCE = 180.0
_SECONDS_BETWEEN_TRIES = 2.0

Answer = TypeVar("Answer")


class StoreError(FerError):
    """A store that cannot be used as it is."""


class DiskFull(Exception):
    """A disk of this machine that has no room for what is fetched."""


class StoreAway(Exception):
    """A store that has not answered for minutes."""


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


class Store:
    """See this module.

    Args:
        place: a folder's path, or `s3://bucket/folder`.
        patience: seconds for which a store that does not answer is asked again.

    Raises:
        StoreError: it is not there, or no store of this project.
    """

    def __init__(self, place: str, patience: float = SECONDS_OF_PATIENCE) -> None:
        self.place, self._patience = place, patience
        self._files, self._root = _filesystem(place)
        self._local = isinstance(self._files, LocalFileSystem)
        self._found = False
        self._require_own()

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

    def size(self, folder: str) -> int:
        """Bytes of all files below a folder."""
        return int(self._ask(lambda: self._files.du(self._at(folder))))

    def age(self, folder: str) -> float:
        """Seconds since anything below a folder was last written, by the store's own clock as far as it tells."""

        def latest_change() -> float:
            found = self._files.find(self._at(folder), detail=True).values()
            return max((_changed(status) for status in found), default=0.0)

        return time.time() - self._ask(latest_change)

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
        sha256 = {name: _sha256_of(artifact.file(name)) for name in files}
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

    def names_in(self, folder: str) -> list[str]:
        """Names of the files and folders in a folder of the store, in order."""

        def list_names() -> list[str]:
            found = self._files.ls(self._at(folder), detail=False, **({} if self._local else {"refresh": True}))
            return sorted(str(name).rstrip("/").rpartition("/")[2] for name in found)

        try:
            # Those that begin with a dot are being written.
            return [name for name in self._ask(list_names) if name and not name.startswith(".")]
        except FileNotFoundError:
            return []

    def read(self, name: str) -> bytes | None:
        """A small file; None where there is none."""
        try:
            return bytes(self._ask(lambda: self._files.cat_file(self._at(name))))
        except FileNotFoundError:
            return None

    def read_json(self, name: str) -> dict[str, Any] | None:
        """An object that a small file holds; None where there is none.

        Raises:
            StoreError: the file holds something else.
        """
        content = self.read(name)
        if content is None:
            return None
        with self.as_written(name):
            told = json.loads(content)
            if not isinstance(told, dict):
                raise TypeError("no object")
            return told

    @contextmanager
    def as_written(self, name: str) -> Iterator[None]:
        """Refuse a small file that this project has not written so: whoever may write there may write anything."""
        try:
            yield
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise StoreError(
                f"{self.place}/{name}: not as this project writes it ({error}); delete it there"
            ) from error

    def create(self, name: str, content: bytes) -> bool:
        """Write a small file that nobody has written yet, whole or not at all; False where somebody has."""
        try:
            self._ask(lambda: self._create(name, content))
        except FileExistsError:
            # An answer that was lost on its way: then it is ours.
            return self.read(name) == content
        return True

    def replace(self, name: str, content: bytes) -> None:
        """Write a small file, whole or not at all, over what was there."""
        self._ask(lambda: self._replace(name, content))

    def put_file(self, file: Path, name: str) -> None:
        """Copy a file into the store."""
        self._ask(lambda: self._put_file(file, name))

    def get_file(self, name: str, file: Path, size: int, sha256: str | None = None) -> None:
        """Copy a file from the store.

        Args:
            sha256: of what was written, where that is known.

        Raises:
            StoreError: it is gone, has another size, or holds something else.
            DiskFull: this machine has no room for it.
        """
        # Without the file alone, its room would still count as whole.
        room = "/".join(name.split("/")[:2])
        try:
            self._ask(lambda: self._get_file(name, file))
        except FileNotFoundError as gone:
            raise StoreError(f"{self.place}/{name}: is gone; delete {room} there") from gone
        if (actual := file.stat().st_size) != size:
            raise StoreError(f"{self.place}/{name}: {actual} bytes where {size} were written; delete {room} there")
        if sha256 is not None and _sha256_of(file) != sha256:
            raise StoreError(f"{self.place}/{name}: holds something else than was written; delete {room} there")

    def require_writable(self) -> None:
        """See that this machine may write there.

        Raises:
            StoreError: it may not.
            StoreAway: the store does not answer.
        """
        name = f"{_TRIED}-{secrets.token_hex(8)}"
        self.replace(name, b"")
        self.remove(name)

    def remove_room(self, room: str) -> None:
        """An artifact or a user's file, what counts first: else half of it would count if this were to break off."""
        self.remove(f"{room}/{PUBLISHED}")
        self.remove(room)

    def remove(self, name: str) -> None:
        """A file or a folder, if it is there."""
        with suppress(FileNotFoundError):
            self._ask(lambda: self._files.rm(self._at(name), recursive=True))

    def _at(self, name: str) -> str:
        return f"{self._root}/{name}".rstrip("/")

    def _create(self, name: str, content: bytes) -> None:
        if not self._local:
            self._files.pipe_file(self._at(name), content, mode="create")
            return
        # A link is made or refused as a whole, by NFS too; a file opened exclusively would be seen empty at first.
        beside = self._written_beside(name, content)
        try:
            os.link(beside, self._at(name))
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            raise StoreError(
                f"{self.place}: its file system knows no hard links, by which one machine of many is the first "
                f"({error.strerror}); take a folder on another one, such as NFS, or a bucket"
            ) from error
        finally:
            beside.unlink()

    def _replace(self, name: str, content: bytes) -> None:
        if self._local:
            self._written_beside(name, content).replace(self._at(name))
        else:
            self._files.pipe_file(self._at(name), content)

    def _put_file(self, file: Path, name: str) -> None:
        if not self._local:
            self._files.put_file(str(file), self._at(name))
            return
        target = self._with_folder(name)
        try:
            shutil.copyfile(file, target)
            self._share(target)
            # What names it is on the disk at once, and outlives a power cut for good.
            with target.open("rb") as written:
                os.fsync(written.fileno())
        except OSError:
            # Each try of a resume state has a name of its own, and half of each would stay.
            with suppress(OSError):
                target.unlink(missing_ok=True)
            raise

    def _with_folder(self, name: str) -> Path:
        self._require_mounted()
        path = Path(self._at(name))
        missing = list(takewhile(lambda folder: not folder.exists(), path.parents))
        path.parent.mkdir(parents=True, exist_ok=True)
        for folder in missing:
            self._share(folder)
        return path

    def _share(self, path: Path) -> None:
        """Let all use it who may write into the store's folder, since other machines' users do, whatever the umask."""
        root, own = Path(self._root).stat(), path.stat()
        writable = root.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
        shared = writable << 1 | writable | (writable >> 1 if path.is_dir() else 0)
        # Some file systems have no rights, and another user may have made the folder meanwhile.
        with suppress(OSError):
            if writable and own.st_gid != root.st_gid:
                os.chown(path, -1, root.st_gid)
        with suppress(OSError):
            if shared & ~own.st_mode:
                path.chmod(stat.S_IMODE(own.st_mode) | shared)

    def _require_mounted(self) -> None:
        """Else files would be looked for, and written, below an empty mount point."""
        if self._local and self._found and not Path(self._at(_MARK)).is_file():
            raise ConnectionError(f"{self._at(_MARK)} is gone")

    def _get_file(self, name: str, file: Path) -> None:
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            self._files.get_file(self._at(name), str(file))
        except OSError as error:
            if error.errno in NO_ROOM:  # Of the copy; the store is only read.
                raise DiskFull(f"{file}: {error.strerror}; free some space there") from error
            raise

    def _written_beside(self, name: str, content: bytes) -> Path:
        path = self._with_folder(name)
        beside = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
        with beside.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        self._share(beside)
        return beside

    def _ask(self, what: Callable[[], Answer]) -> Answer:
        """Ask again for a while where the store does not answer.

        Raises:
            FileNotFoundError, FileExistsError: the store's answer.
            StoreError: it refuses, is full, or holds a file where a folder belongs.
            StoreAway: it has not answered for minutes.
        """
        deadline: float | None = None
        while True:
            try:
                return self._asked(what)
            except (ConnectionError, TimeoutError) as error:
                # From the first failure on, before which a large file may have been under way for longer.
                deadline = deadline or time.monotonic() + self._patience
                if time.monotonic() > deadline:
                    raise StoreAway(f"{self.place}: not reached for {self._patience:.0f} s ({error})") from error
            time.sleep(_SECONDS_BETWEEN_TRIES)

    def _asked(self, what: Callable[[], Answer]) -> Answer:
        """The answer; any sign that the store is away as a ConnectionError."""
        try:
            return what()
        except FileNotFoundError:
            # Of a folder whose disk is not mounted for now, everything is missing.
            self._require_mounted()
            raise
        except FileExistsError:
            raise
        except OSError as error:
            # Of a refusal by S3, s3fs tells no number.
            if error.errno in _REFUSED or isinstance(error, PermissionError):
                raise StoreError(f"{self.place}: {error}; let this user read and write there") from error
            if error.errno in _NOT_OURS:
                raise StoreError(f"{self.place}: {error}: not as this project writes it; delete it there") from error
            if error.errno in NO_ROOM:
                raise StoreError(
                    f"{self.place}: {error.strerror}; free some space there, or run `fer store gc`"
                ) from error
            raise ConnectionError(str(error)) from error
        except Exception as error:
            if not _is_of_network(error):
                raise
            raise ConnectionError(str(error)) from error

    def _require_own(self) -> None:
        """See that it is there and ours, and make it ours where it is empty."""
        patience, self._patience = self._patience, min(self._patience, 10.0)
        try:
            if (mark := self.read(_MARK)) is None:
                self._begin()
            elif _project_of(mark) != _PROJECT:
                raise StoreError(f"{self.place}: holds another project's files; give {STORE} a folder of its own")
        except FileNotFoundError as error:
            raise StoreError(f"{STORE}={self.place}: no such bucket; make it first") from error
        except StoreAway as away:
            raise StoreError(f"{away}; see {STORE}, and whether this machine reaches it") from away
        finally:
            self._patience = patience
        self._found = True

    def _begin(self) -> None:
        others = self.names_in("")
        # Another machine may have begun it meanwhile.
        if others and self.read(_MARK) is None:
            raise StoreError(f"{self.place}: holds {others[0]}, and no store; give {STORE} an empty folder of its own")
        self.create(_MARK, json.dumps({"project": _PROJECT}).encode())
        # Some S3 servers write over what they are asked not to; then two machines would hold the same lease.
        with suppress(FileExistsError):
            self._asked(lambda: self._create(_MARK, json.dumps({"project": _PROJECT, "again": True}).encode()))
            self.remove(_MARK)
            raise StoreError(f"{self.place}: this server ignores `If-None-Match`; take one that keeps to it")


def _filesystem(place: str) -> tuple[Any, str]:
    """fsspec's filesystem of a place, and the path in it."""
    scheme, separator, _ = place.partition("://")
    if separator and scheme not in ("s3", "file"):
        raise StoreError(f"{STORE}={place}: give a folder's path, or s3://bucket/folder")
    if scheme != "s3" or not separator:
        folder = at_home(place.removeprefix("file://"))
        if not folder.is_absolute() or not folder.is_dir():
            raise StoreError(f"{STORE}={place}: no such folder; mount or make it, and give its whole path")
        place = f"file://{folder}"
    try:
        # Listings as they are now, since other machines write too.
        files, root = fsspec.core.url_to_fs(place, skip_instance_cache=True, use_listings_cache=False)
    except ImportError as error:
        raise StoreError(f"{STORE}={place}: s3fs is missing; `pip install s3fs`") from error
    return files, str(root).rstrip("/")


def _counts(found: Artifact | None, there: Published) -> bool:
    """Tell whether a copy on this machine is the one in the store; of what an earlier version stored, any counts."""
    told = there.sha256.get(MANIFEST)
    try:
        return found is not None and (told is None or _sha256_of(found.file(MANIFEST)) == told)
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


def _sha256_of(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def safe_name(name: str) -> str:
    """The name of a file, which stays below whatever folder of this machine it is joined to.

    Raises:
        ValueError: it would lead out of it.
    """
    parts = name.split("/")
    if any(part in ("", ".", "..") for part in parts) or "\\" in name or "\0" in name:
        raise ValueError(f"{name!r} leads out of its folder")
    return name


def _project_of(mark: bytes) -> str:
    try:
        return str(json.loads(mark)["project"])
    except (ValueError, KeyError, TypeError):
        return ""


def _changed(status: Mapping[str, Any]) -> float:
    """The time of a file, as fsspec tells it for S3 and for folders."""
    when = status.get("LastModified")
    return float(when.timestamp() if when is not None else status["mtime"])


def _is_of_network(error: Exception) -> bool:
    """Tell botocore's and aiohttp's own errors, which are no OSErrors; neither may be installed."""
    return type(error).__module__.partition(".")[0] in ("botocore", "aiobotocore", "aiohttp")


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
