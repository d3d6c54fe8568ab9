"""Walk a folder that others filled: links, loops, pipes and what may not be read included."""

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Kind = Literal["regular", "dangling", "special"]


@dataclass(frozen=True)
class FoundFile:
    """Something in a folder that is no folder."""

    path: Path
    kind: Kind
    """regular: a file, or a link to one. dangling: a link to nothing. special: a pipe, a socket or a device."""


def files_below(folder: Path) -> Iterator[FoundFile]:
    """All files at any depth, sorted by name in each folder; links are followed, a link back to its own parents not.

    Raises:
        OSError: a folder below may not be read.
    """
    yield from _walk(folder, frozenset())


def _walk(folder: Path, above: frozenset[tuple[int, int]]) -> Iterator[FoundFile]:
    status = folder.stat()
    here = above | {(status.st_dev, status.st_ino)}
    if here == above:
        return
    with os.scandir(folder) as entries:
        found = sorted(entries, key=lambda entry: entry.name)
    for entry in found:
        if entry.is_dir():
            yield from _walk(Path(entry.path), here)
        else:
            yield FoundFile(Path(entry.path), _kind(entry))


def _kind(entry: "os.DirEntry[str]") -> Kind:
    try:
        mode = entry.stat().st_mode
    except OSError:  # A link to nothing, or links in a circle.
        return "dangling"
    return "regular" if stat.S_ISREG(mode) else "special"


def links_outside(folder: Path) -> dict[Path, Path]:
    """What links below `folder` lead to outside of it: for each place that a link names, the real folder there.

    A link to a file gives the folder that the file is in.
    """
    outside: dict[Path, Path] = {}
    for place, folders, names in os.walk(folder, followlinks=False):
        for link in (Path(place, name) for name in (*folders, *names) if os.path.islink(Path(place, name))):
            named = Path(os.path.normpath(link.parent / os.readlink(link)))
            named = named if named.is_dir() else named.parent
            if not named.is_relative_to(folder) and named.is_dir():
                outside[named] = named.resolve()
    return outside
