"""The password of `docker compose up`: made once, readable only by the owner of the artifacts' folder."""

import os
import secrets
import sys
from pathlib import Path

from fer_core.exit_codes import ExitCode
from flows.report_server import PASSWORD

BEFORE = "FER_PASSWORD_BEFORE"
"""Environment: the password so far, should its file be lost."""


def kept_password(file: Path, before: str = "") -> tuple[str, bool]:
    """The password in a file, and whether it was made just now.

    Args:
        file: of the owner alone; made where it is missing.
        before: what a server goes on asking for, where the file was lost.
    """
    if file.is_file() and (known := file.read_text(encoding="utf-8").strip()):
        file.chmod(0o600)
        return known, False
    password = before or f"fer:{secrets.token_urlsafe(18)}"
    beside = file.with_name(f"{file.name}.new")
    beside.unlink(missing_ok=True)
    with os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as written:
        written.write(f"{password}\n")
    beside.replace(file)
    return password, not before


def wrong_with(password: str) -> str:
    """Why it can be none, or ""; browsers ask for a user and a password, so that there have to be both."""
    user, colon, secret = password.partition(":")
    if not (user and colon and secret) or any(character.isspace() for character in password):
        return "write it as user:password, both there and without spaces"
    return unreadable_to_prefect(password)


def unreadable_to_prefect(password: str) -> str:
    """Why Prefect cannot compare it, and would answer everybody with 500, or ""; nor do browsers encode it alike."""
    if not (password.isascii() and password.isprintable()):
        return "write it with the letters, digits and signs of ASCII alone"
    return ""


def main() -> None:
    """Print the password for the script that hands it on, and say on standard error where a person finds it.

    Arguments: the file as it is named inside and outside of the container.
    """
    inside, outside = sys.argv[1:3]
    if chosen := os.environ.get(PASSWORD):
        password, told = chosen, f"the password is that of {PASSWORD}"
    else:
        password, made = kept_password(Path(inside), os.environ.get(BEFORE, ""))
        told = f"the password is {password}, kept in {outside}" if made else f"the password is the one in {outside}"
    if wrong := wrong_with(password):
        where = PASSWORD if chosen else outside
        print(f"error: {where}: {wrong}", file=sys.stderr)
        sys.exit(ExitCode.MISTAKE)
    print(told, file=sys.stderr)
    print(password)


if __name__ == "__main__":
    main()
