"""Walk a folder that others filled: links, loops, pipes and what may not be read included."""

import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Literal

Kind = Literal["regular", "dangling", "special"]

_OF_A_SYSTEM = frozenset(
    (
        *("@eadir", "#recycle", "#snapshot", "@recycle", "@recently-snapshot"),
        *("$recycle.bin", "recycler", "system volume information", "thumbs.db", "ehthumbs.db", "desktop.ini"),
        *("lost+found", "network trash folder"),
    )
)
"""What Synology's and QNAP's stores, Windows and others keep beside a user's files: thumbnails and what was deleted."""

_AT_WORK = re.compile(r".+\.parquet\.[0-9a-f]{16}")
"""Working folders of `fer openface`, which stay beside its table where it broke off."""


@dataclass(frozen=True)
class FoundFile:
    """Something in a folder that is no folder."""

    place: str
    """Its path as text."""
    kind: Kind
    """regular: a file, or a link to one. dangling: a link to nothing. special: a pipe, a socket or a device."""
    status: os.stat_result | None = None
    """The status of the file, or of a link's target; None if there is none."""

    @property
    def path(self) -> Path:
        """Its path; made when asked for, since a million take seconds."""
        return Path(self.place)


def is_hidden(inside: PurePath) -> bool:
    """Tell whether a path in a user's folder is hidden, or in what a system or `fer openface` keeps there.

    So is what macOS leaves in archives.
    """
    return any(map(_hides, inside.parts))


def _hides(part: str) -> bool:
    return part.startswith((".", "__MACOSX")) or part.lower() in _OF_A_SYSTEM or bool(_AT_WORK.fullmatch(part))


def files_below(folder: Path, *, hidden: bool = True) -> Iterator[FoundFile]:
    """All files at any depth, sorted by name in each folder; links are followed, a link back to its own parents not.

    Args:
        hidden: those that `is_hidden` tells of too.

    Raises:
        OSError: a folder below may not be read.
    """
    yield from _walk(folder, frozenset(), hidden=hidden)


def _walk(folder: Path, above: frozenset[tuple[int, int]], *, hidden: bool) -> Iterator[FoundFile]:
    own = folder.stat()
    here = above | {(own.st_dev, own.st_ino)}
    if here == above:
        return
    with os.scandir(folder) as entries:
        found = sorted((entry for entry in entries if hidden or not _hides(entry.name)), key=lambda entry: entry.name)
    for entry in found:
        status = _status(entry)
        mode = status.st_mode if status else 0
        if stat.S_ISDIR(mode):
            yield from _walk(Path(entry.path), here, hidden=hidden)
        else:
            kind: Kind = "regular" if stat.S_ISREG(mode) else "special" if mode else "dangling"
            yield FoundFile(entry.path, kind, status)


def _status(entry: "os.DirEntry[str]") -> os.stat_result | None:
    """What an entry is, or what it links to; None for a link to nothing and for links in a circle."""
    try:
        return entry.stat()
    except OSError:
        return None


def links_outside(folder: Path) -> Iterator[Path]:
    """The links below `folder` to something outside of it, which nobody sees who is given the folder alone."""
    inside = folder.resolve()
    for place, folders, names in os.walk(folder):
        for link in (Path(place, name) for name in (*folders, *names)):
            if link.is_symlink() and link.exists() and not Path(os.path.realpath(link)).is_relative_to(inside):
                yield link
