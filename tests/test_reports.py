"""Reports over HTTP: with the password where there is one, and never without it."""

import socket
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from flows.report_server import reports_server


def serving(folder: Path, password: str) -> Iterator[str]:
    (folder / "abc").mkdir()
    (folder / "abc" / "index.html").write_text("a face")
    server = reports_server(str(folder), "127.0.0.1", 0, password)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


@pytest.fixture
def open_to_all(tmp_path: Path) -> Iterator[str]:
    yield from serving(tmp_path, "")


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[str]:
    yield from serving(tmp_path, "ada:geheim")


def ask(address: str, method: str = "GET", authorization: str | None = None, **headers: str) -> tuple[int, bytes]:
    headers |= {} if authorization is None else {"Authorization": authorization}
    try:
        with urllib.request.urlopen(
            urllib.request.Request(address, method=method, headers=headers), timeout=10
        ) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as refused:
        with refused:
            return refused.code, refused.read()


def test_without_a_password_reports_are_for_this_machine(open_to_all: str) -> None:
    assert ask(f"{open_to_all}/abc/index.html") == (200, b"a face")


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST"])
@pytest.mark.parametrize("path", ["/", "/abc/", "/abc/index.html", "/nothing"])
@pytest.mark.parametrize(
    "authorization", [None, "", "Basic ", "Basic YWRhOmZhbHNjaA==", "Bearer ada:geheim", "Bäsic ä"]
)
def test_with_one_nothing_is_told_without_it(guarded: str, method: str, path: str, authorization: str | None) -> None:
    assert ask(f"{guarded}{path}", method, authorization) == (401, b"")


def test_with_it_all_is(guarded: str) -> None:
    assert ask(f"{guarded}/abc/index.html", authorization="Basic YWRhOmdlaGVpbQ==") == (200, b"a face")


@pytest.mark.parametrize(
    "headers", [{"Host": "elsewhere.test"}, {"Origin": "http://elsewhere.test"}, {"Sec-Fetch-Site": "same-site"}]
)
def test_pages_of_another_origin_get_nothing_even_with_it(guarded: str, headers: dict[str, str]) -> None:
    status, body = ask(f"{guarded}/abc/index.html", authorization="Basic YWRhOmdlaGVpbQ==", **headers)
    assert status == 403
    assert b"a face" not in body


def test_by_another_name_it_says_which_setting_of_compose_takes_it(open_to_all: str) -> None:
    """FER_URL, which is set already by who reads this, is the other page's."""
    _, body = ask(f"{open_to_all}/abc/", Host="lab.example:4201")
    assert b"set FER_REPORTS_URL to the address" in body


def test_the_link_in_prefects_page_leads_there(guarded: str) -> None:
    link = {"Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
    assert ask(f"{guarded}/abc/index.html", authorization="Basic YWRhOmdlaGVpbQ==", **link) == (200, b"a face")


def test_a_link_out_of_the_folder_is_not_followed(open_to_all: str, tmp_path: Path) -> None:
    """A step's container may leave one, and sees less than who serves its folder."""
    (secret := tmp_path.with_name(f"{tmp_path.name}-secret")).write_text("the password")
    for name in ("link.txt", "abc/page.html", "linked/index.html", "old/index.htm"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).symlink_to(secret)
    (tmp_path / "folder").symlink_to(secret.parent)
    (tmp_path / "inside.html").symlink_to(tmp_path / "abc" / "index.html")
    for path in ("link.txt", "abc/page.html", "linked/", "old/", f"folder/{secret.name}", "folder/"):
        status, body = ask(f"{open_to_all}/{path}")
        assert (status, b"the password" in body) == (404, False), path
    assert ask(f"{open_to_all}/inside.html") == (200, b"a face")


@pytest.mark.parametrize("path", ["loop", "loop/index.html", "%00", "abc/%00", 3000 * "a"])
def test_what_no_file_can_be_at_is_not_found(open_to_all: str, tmp_path: Path, path: str) -> None:
    (tmp_path / "loop").symlink_to("loop")
    assert ask(f"{open_to_all}/{path}")[0] == 404


def test_a_report_runs_nothing_and_fetches_nothing(open_to_all: str) -> None:
    with urllib.request.urlopen(f"{open_to_all}/abc/", timeout=10) as answer:
        assert answer.headers["Content-Security-Policy"].startswith("default-src 'none';")
        assert answer.headers["X-Content-Type-Options"] == "nosniff"


def test_who_says_nothing_is_not_waited_for(open_to_all: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flows.report_server._Reports.timeout", 0.5)
    with socket.create_connection(("127.0.0.1", int(open_to_all.rpartition(":")[2]))) as silent:
        silent.settimeout(10)
        assert silent.recv(1) == b""


SERVED = """
import os
import flows.report_server as served
forever = served.ThreadingHTTPServer.serve_forever

def serve(server):
    if os.geteuid() == 0: os.setuid(65534)
    print(server.server_port, flush=True)
    forever(server)

served._PORT, served.ThreadingHTTPServer.serve_forever = 0, serve
served.main()
"""
"""The program at any free port; as nobody where this process is root, whom nothing is denied."""


@contextmanager
def in_a_process(folder: Path) -> Iterator[tuple["subprocess.Popen[str]", str]]:
    """The program and its address."""
    command = [sys.executable, "-c", SERVED, str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        try:
            yield process, f"http://127.0.0.1:{process.stdout.readline().strip()}"
        finally:
            process.kill()


def test_it_ends_when_asked_to_as_a_containers_first_process_too(tmp_path: Path) -> None:
    with in_a_process(tmp_path) as (process, _):
        process.terminate()
        assert process.wait(5) == 0, "by itself, which no signal does for a first process"


def test_a_report_that_may_not_be_read_is_not_told_to_be_missing_nor_the_password_to_be_opened() -> None:
    """As the container's user finds what somebody with umask 077 made."""
    advice = b"chmod a+x the artifacts, and chmod -R a+rX the folder report in them"
    with TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        (closed := Path(folder, "closed")).mkdir(mode=0o700)
        (closed / "index.html").touch()
        Path(folder, "own.html").touch(mode=0o600)
        with in_a_process(Path(folder)) as (_, address):
            for path in ("closed/", "closed/index.html", "own.html"):
                status, body = ask(f"{address}/{path}")
                assert (status, advice in body) == (403, True), path
            assert ask(f"{address}/nothing")[0] == 404
        closed.chmod(0o755)
