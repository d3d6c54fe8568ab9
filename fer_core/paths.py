"""Paths as users give them."""

import errno
import os
import re
from pathlib import Path

from fer_core.errors import InputError

LEAD_NOWHERE = (errno.ELOOP, errno.ENAMETOOLONG)
"""What a system says of links in a circle, and of a name that no file can have."""
NO_ROOM = (errno.ENOSPC, errno.EDQUOT)
"""What a system says where a disk, or this user's share of it, is full."""
_ADDRESS = re.compile(r"[a-zA-Z][\w+.-]+:/")
"""What an address begins with; a path keeps one slash of two. One letter is a drive of Windows."""
_WORDS_OF_PATHLIB = ("Could not determine home directory", "Symlink loop from")


def at_home(given: str | Path) -> Path:
    """A path as it is typed, `~` followed: a shell leaves it as it is behind an equals sign."""
    # Not Path's own, which says nothing of the path where it is the home of nobody; who opens it does.
    return Path(os.path.expanduser(given))


def whole_path(given: str | Path) -> Path:
    """A path from the root on, `~` and links followed; what it leads to need not be there.

    Raises:
        InputError: no file can be there: links in a circle, the home of nobody, a name too long or with a null byte;
            or it is an address.
    """
    refuse_address(given)
    try:
        path = Path(given).expanduser().resolve()
        path.stat()  # From Python 3.13 on, resolve() and exists() keep links in a circle to themselves.
    except (FileNotFoundError, NotADirectoryError):
        return path
    except (OSError, RuntimeError, ValueError) as error:
        if isinstance(error, PermissionError):
            raise
        raise InputError(f"{given}: {why_nowhere(error) or error}; name another path") from error
    return path


def whole_place(given: str | Path) -> Path:
    """The same, but a link to a file is not followed, since what a list names lies beside the link.

    git-annex, DVC and caches of datasets keep the files themselves elsewhere, under other names.
    """
    path = whole_path(given)
    own = Path(given).expanduser()
    return own.parent.resolve() / own.name if path.is_file() and own.is_symlink() else path


def refuse_address(given: str | Path) -> None:
    """See that a path is none of another machine's, such as https://… or s3://…

    Raises:
        InputError: it is one.
    """
    if _ADDRESS.match(str(given)) and not os.path.exists(given):
        raise InputError(f"{given}: an address, and no path on this machine; fetch what is there, and name that")


def require_utf8(text: str) -> None:
    """See that a path can be opened by every library, and kept by Prefect.

    Raises:
        InputError: it holds bytes that are no UTF-8, which pyarrow, for one, cannot open.
    """
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InputError(f"{text}: holds bytes that are no UTF-8; rename it, or name another place") from error


def stays_below(path: Path, folder: Path) -> bool:
    """Tell whether a path, its links followed, lies below a folder; one at which no file can be does not."""
    try:
        return whole_path(path).is_relative_to(whole_path(folder))
    except (InputError, PermissionError):
        return False


def why_nowhere(error: Exception) -> str:
    """The reason why no file can be at a path, where an error is about that, else ""."""
    if isinstance(error, OSError):
        return (error.strerror or "") if error.errno in LEAD_NOWHERE else ""
    told = str(error)
    return told.rstrip(".") if told.startswith(_WORDS_OF_PATHLIB) else ""
