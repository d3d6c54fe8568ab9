"""The password of `docker compose up`, as docker/start asks for it."""

import os
import stat
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest


def asked(file: Path, **environment: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "flows.password", str(file), "./artifacts/.password"]
    clean = {name: value for name, value in os.environ.items() if name != "FER_PASSWORD"}
    return subprocess.run(command, capture_output=True, text=True, env=clean | environment, check=False)


def test_it_is_made_and_shown_once_and_kept_for_its_owner_alone(tmp_path: Path) -> None:
    file = tmp_path / ".password"
    first, again = asked(file), asked(file)
    user, _, secret = first.stdout.strip().partition(":")
    assert (user, len(secret)) == ("fer", 24)
    assert first.stderr == f"the password is {first.stdout.strip()}, kept in ./artifacts/.password\n"
    assert (again.stdout, again.stderr) == (first.stdout, "the password is the one in ./artifacts/.password\n")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    file.chmod(0o644)
    asked(file)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert asked(tmp_path / "another").stdout != first.stdout


def test_a_lost_file_gets_the_password_that_the_server_still_asks_for(tmp_path: Path) -> None:
    found = asked(tmp_path / ".password", FER_PASSWORD_BEFORE="fer:of-before")
    assert (found.stdout, (tmp_path / ".password").read_text()) == ("fer:of-before\n", "fer:of-before\n")
    assert "of-before" not in found.stderr


def test_one_of_the_users_own_goes_first_and_is_written_nowhere(tmp_path: Path) -> None:
    found = asked(tmp_path / ".password", FER_PASSWORD="ada:geheim")
    assert (found.stdout, found.stderr) == ("ada:geheim\n", "the password is that of FER_PASSWORD\n")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("password", ["geheim", ":geheim", "ada:", "ada: geheim"])
def test_what_no_browser_could_ask_for_is_refused_in_a_line(password: str, tmp_path: Path) -> None:
    for found in (asked(tmp_path / "none", FER_PASSWORD=password), asked(written(tmp_path / "file", password))):
        assert (found.returncode, found.stdout) == (2, "")
        assert found.stderr.endswith("write it as user:password, both there and without spaces\n")
        assert len(found.stderr.splitlines()) == 1


@pytest.mark.parametrize("password", ["ada:gehäim", "adä:geheim", "ada:ge\x07heim"])
def test_what_prefect_and_browsers_do_not_read_alike_is_refused(password: str, tmp_path: Path) -> None:
    """Prefect would answer every request with 500."""
    found = asked(tmp_path / "none", FER_PASSWORD=password)
    assert (found.returncode, found.stdout) == (2, "")
    assert found.stderr == "error: FER_PASSWORD: write it with the letters, digits and signs of ASCII alone\n"


class _WantsTheOneBefore(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_error(401)

    do_POST = do_GET


def test_one_that_was_changed_while_the_server_ran_is_told_in_a_line(tmp_path: Path) -> None:
    """The server keeps what it was started with, as it is not started again for a file."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _WantsTheOneBefore) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        told = {"PREFECT_API_URL": f"http://127.0.0.1:{server.server_address[1]}/api", "PREFECT_HOME": str(tmp_path)}
        command = [sys.executable, "-m", "flows.register"]
        found = subprocess.run(command, capture_output=True, text=True, env=os.environ | told, check=False)
        server.shutdown()
    assert (found.returncode, len(found.stderr.splitlines())) == (2, 1), found.stderr
    assert "`docker compose up -d --wait --force-recreate`" in found.stderr


def written(file: Path, text: str) -> Path:
    file.write_text(text)
    return file
