"""A place that machines share: files in a folder that all of them mount, or in an S3 bucket.

A small file is whole or not there, and can be made by one machine of many alone. A place that does not answer is asked
again for minutes.
"""

import errno
import hashlib
import json
import os
import secrets
import shutil
import stat
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from itertools import takewhile
from pathlib import Path
from typing import Any, TypeVar

import fsspec
from fsspec.implementations.local import LocalFileSystem

from fer_core.errors import FerError
from fer_core.paths import NO_ROOM, at_home

STORE = "FER_STORE"
"""Environment: the store, a folder's path or `s3://bucket/folder`; without it, what is made stays on this machine."""
SECONDS_OF_PATIENCE = 180.0
_MARK = "fer-store.json"
_PROJECT = "fer"
_TRIED = ".written-to-try"
_REFUSED = (errno.EACCES, errno.EPERM, errno.EROFS)
_NO_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS)
_NOT_OURS = (errno.ENOTDIR, errno.EISDIR)
_SECONDS_BETWEEN_TRIES = 2.0

Answer = TypeVar("Answer")


class StoreError(FerError):
    """A store that cannot be used as it is."""


class DiskFull(Exception):
    """A disk of this machine that has no room for what is fetched."""


class StoreAway(Exception):
    """A store that has not answered for minutes."""


class SharedPlace:
    """See this module.

    Args:
        place: a folder's path, or `s3://bucket/folder`.
        patience: seconds for which a place that does not answer is asked again.

    Raises:
        StoreError: it is not there, or no store of this project.
    """

    def __init__(self, place: str, patience: float = SECONDS_OF_PATIENCE) -> None:
        self.place, self._patience = place, patience
        self._files, self._root = _filesystem(place)
        self._local = isinstance(self._files, LocalFileSystem)
        self._found = False
        self._require_own()

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
        if sha256 is not None and sha256_of(file) != sha256:
            raise StoreError(f"{self.place}/{name}: holds something else than was written; delete {room} there")

    def remove(self, name: str) -> None:
        """A file or a folder, if it is there."""
        with suppress(FileNotFoundError):
            self._ask(lambda: self._files.rm(self._at(name), recursive=True))

    def size(self, folder: str) -> int:
        """Bytes of all files below a folder."""
        return int(self._ask(lambda: self._files.du(self._at(folder))))

    def age(self, folder: str) -> float:
        """Seconds since anything below a folder was last written, by the store's own clock as far as it tells."""

        def latest_change() -> float:
            found = self._files.find(self._at(folder), detail=True).values()
            return max((_changed(status) for status in found), default=0.0)

        return time.time() - self._ask(latest_change)

    def require_writable(self) -> None:
        """See that this machine may write there.

        Raises:
            StoreError: it may not.
            StoreAway: the store does not answer.
        """
        name = f"{_TRIED}-{secrets.token_hex(8)}"
        self.replace(name, b"")
        self.remove(name)

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


def sha256_of(file: Path) -> str:
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
