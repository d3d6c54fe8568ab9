"""Nobody who merely gets a browser of this machine to open a page can read or start anything: a real server, a real
browser on other origins, and raw sockets."""

import http.server
import json
import os
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers.browsing import CHROMIUM, DRIVER, NO_BROWSER, browser, until
from helpers.prefect_home import with_database

from flows.guard import own_names, refusal
from flows.prefect_server import free_port, serve_in_container

ELSEWHERE = "elsewhere.test"
"""A name that the tests' browser finds at 127.0.0.1, as one whose owner points it there would."""
AUTOMATION = json.dumps({"name": "theirs", "trigger": {"type": "event"}, "actions": []})
FLOW = json.dumps({"name": "theirs"})


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """Prefect's server behind the guard, and without a password, so that the guard is all there is."""
    folder, port = tmp_path_factory.mktemp("server"), free_port()
    environment = os.environ | {
        "PREFECT_HOME": with_database(folder / "prefect"),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_SERVER_UI_V2_ENABLED": "false",
        "PREFECT_UI_API_URL": f"http://127.0.0.1:{port}/api",
        "PREFECT_SERVER_CORS_ALLOWED_ORIGINS": f"http://127.0.0.1:{port},http://localhost:{port}",
    }
    serve = f"from flows.prefect_server import serve_guarded; serve_guarded('127.0.0.1', {port}, 'warning')"
    with (
        (folder / "log").open("w") as log,
        subprocess.Popen([sys.executable, "-c", serve], env=environment, stdout=log, stderr=log) as server,
    ):
        try:
            deadline = time.monotonic() + 90
            while status(port, "GET /api/health") != 200:
                assert time.monotonic() < deadline, (folder / "log").read_text()
                time.sleep(0.1)
            yield port
        finally:
            server.terminate()


def status(port: int, request: str, *headers: str, host: str = "", body: str = "") -> int:
    """What the server answers a request over a raw socket; 0 where it answers nothing."""
    lines = [f"{request} HTTP/1.1", f"Host: {host or f'127.0.0.1:{port}'}", *headers, "Connection: close"]
    lines.append(f"Content-Length: {len(body)}")
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
            connection.sendall("\r\n".join([*lines, "", body]).encode())
            answer = connection.recv(4096).decode(errors="replace")
    except OSError:
        return 0
    return int(answer.split(maxsplit=2)[1]) if answer else 0


def flows(port: int) -> list[str]:
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/api/flows/filter", b"{}", {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=10) as answer:
        return [str(flow["name"]) for flow in json.load(answer)]


UPGRADE = ("Upgrade: websocket", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==")


@pytest.mark.parametrize(
    ("request_line", "headers", "body"),
    [
        ("POST /api/flows/", (), FLOW),
        ("POST /api/flows/", ("Content-Type: text/plain",), FLOW),
        ("POST /api/automations/", (), AUTOMATION),
        ("OPTIONS /api/flows/", ("Access-Control-Request-Method: POST",), ""),
        ("GET /api/flows/count", (), ""),
        ("GET /docs", (), ""),
        ("GET /openapi.json", (), ""),
        ("GET /", (), ""),
        ("GET /api/events/in", UPGRADE, ""),
    ],
)
@pytest.mark.parametrize(
    "foreign", ["http://elsewhere.test", "null", "http://127.0.0.1:1", "https://localhost", "http://127.0.0.1.nip.io"]
)
def test_what_a_page_of_another_origin_sends_does_not_reach_prefect(
    port: int, request_line: str, headers: tuple[str, ...], body: str, foreign: str
) -> None:
    assert status(port, request_line, f"Origin: {foreign}", *headers, body=body) == 403


@pytest.mark.parametrize("host", ["elsewhere.test", "elsewhere.test:{port}", "127.0.0.1.nip.io:{port}", "", "a b", "@"])
@pytest.mark.parametrize("path", ["/api/health", "/docs", "/", "/api/events/out"])
def test_by_a_foreign_name_nothing_is_served(port: int, host: str, path: str) -> None:
    upgrade = UPGRADE if path.endswith("out") else ()
    assert status(port, f"GET {path}", *upgrade, host=host.format(port=port) or " ") in (400, 403)


def test_nothing_of_all_that_was_written(port: int) -> None:
    assert status(port, "POST /api/flows/", "Origin: http://elsewhere.test", body=FLOW) == 403
    assert "theirs" not in flows(port)


def test_programs_and_the_own_pages_go_through(port: int) -> None:
    assert status(port, "POST /api/flows/", body=json.dumps({"name": "a-programs"})) == 201
    for own in (f"http://127.0.0.1:{port}", f"http://localhost:{port}"):
        body = json.dumps({"name": f"own-{own[7:10]}"})
        assert status(port, "POST /api/flows/", f"Origin: {own}", "Sec-Fetch-Site: same-origin", body=body) == 201
    link = ("Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: document")
    assert status(port, "GET /docs", *link) == 200
    assert status(port, "GET /docs", "Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: no-cors") == 403
    assert status(port, "GET /docs", *link[:2], "Sec-Fetch-Dest: iframe") == 403


def test_a_configured_name_is_one_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FER_URL", "https://Fer.Example.org")
    headers = [("host", "fer.example.org"), ("origin", "https://fer.example.org")]
    assert refusal("POST", headers, own_names()) == ""
    assert "set FER_URL" in refusal("POST", [("host", "example.org")], own_names())
    for foreign in ("http://fer.example.org:1", "https://elsewhere.test", "null"):
        assert refusal("POST", [headers[0], ("origin", foreign)], own_names()) == "from a page of another origin"
    assert refusal("POST", [*headers, headers[1]], own_names()) == "from several origins"
    twice = [("host", "localhost"), ("host", "elsewhere.test")]
    assert refusal("GET", twice, own_names())


def test_what_names_no_origin_is_refused_where_another_page_sent_it_and_no_person_followed_a_link() -> None:
    def answer(method: str, site: str, mode: str = "navigate", destination: str = "document") -> str:
        told = [("host", "localhost:4200"), ("sec-fetch-site", site), ("sec-fetch-mode", mode)]
        return refusal(method, [*told, ("sec-fetch-dest", destination)], own_names())

    assert {answer("GET", "cross-site"), answer("HEAD", "same-site")} == {""}
    assert {answer("POST", "same-origin", "cors", "empty"), answer("GET", "none")} == {""}
    refused = {answer("POST", "cross-site"), answer("GET", "same-site", "no-cors"), answer("GET", "cross-site", "cors")}
    assert refused | {answer("GET", "cross-site", destination="iframe")} == {"from a page of another origin"}


def test_a_host_is_a_name_and_a_port_and_a_schemes_own_port_is_none() -> None:
    for host in ("user@localhost", "localhost/x", "localhost?x", "localhost#x", "localhost:x"):
        assert "not called by a name" in refusal("GET", [("host", host)], own_names())
    for host, origin in (("localhost:443", "https://localhost"), ("localhost", "http://localhost:80")):
        assert refusal("POST", [("host", host), ("origin", origin)], own_names()) == ""


@pytest.mark.parametrize(
    "written",
    ["http://head:4200", "http://head:4200/", " http://head:4200/api/", "head:4200", "head:4200/api", "//head:4200"],
)
def test_the_address_may_be_written_as_people_write_it(written: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As it stands, the name in `head:4200` would be refused, and a slash at the end would make `//api`."""
    served = list[str]()
    monkeypatch.setattr("flows.prefect_server.serve_guarded", lambda *told: served.extend(map(str, told)))
    for name in ("PREFECT_UI_API_URL", "PREFECT_UI_URL"):
        monkeypatch.setenv(name, "as compose.yaml puts it together")
    monkeypatch.setenv("FER_URL", written)
    assert refusal("POST", [("host", "head:4200"), ("origin", "http://head:4200")], own_names()) == ""
    serve_in_container()
    assert (os.environ["PREFECT_UI_API_URL"], os.environ["PREFECT_UI_URL"]) == (
        "http://head:4200/api",
        "http://head:4200",
    )
    assert served == ["0.0.0.0", "4200", "warning", "server"]


ATTACK = """
<script>
const server = "http://127.0.0.1:PORT", found = [];
const post = path => fetch(server + path, {method: "POST", mode: "no-cors", body: new Blob(['{"name": "theirs"}'])});
const read = url => fetch(url).then(answer => answer.text(), error => "failed");
const open = url => new Promise(done => {
  const socket = new WebSocket(url, "prefect");
  socket.onopen = () => done("open");
  socket.onerror = () => done("refused");
});
(async () => {
  await post("/api/flows/").catch(() => 0);
  await post("/api/automations/").catch(() => 0);
  found.push(await read(server + "/api/flows/count"), await read(server + "/docs"));
  found.push(await open("ws://127.0.0.1:PORT/api/events/in"), await open("ws://127.0.0.1:PORT/api/logs/out"));
  document.title = JSON.stringify(found);
})();
</script>
"""


@pytest.mark.skipif(CHROMIUM is None or DRIVER is None, reason=NO_BROWSER)
def test_a_browser_on_another_origin_reads_and_writes_nothing_and_on_the_own_one_all(port: int, tmp_path: Path) -> None:
    page = ATTACK.replace("PORT", str(port)).encode()

    class Attacker(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(page)

        def log_message(self, *arguments: Any) -> None: ...

    attacker = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Attacker)
    threading.Thread(target=attacker.serve_forever, daemon=True).start()
    try:
        with browser(tmp_path) as driver:
            for name in (ELSEWHERE, "127.0.0.1"):
                driver.get(f"http://{name}:{attacker.server_address[1]}/")
                until(lambda: driver.title.startswith("["), "the attack's end", 60)
                assert json.loads(driver.title) == ["failed", "failed", "refused", "refused"]
            assert "theirs" not in flows(port)
            # DNS rebinding: its own name leads to our server, so that for the browser it is its own origin.
            driver.get(f"http://{ELSEWHERE}:{port}/api/flows/count")
            assert "refused: not called by a name of this server" in driver.page_source
            for name in ("127.0.0.1", "localhost"):
                driver.get(f"http://{name}:{port}/flows")
                until(lambda: "a-programs" in driver.page_source, f"{name} shows the flows", 60)
    finally:
        attacker.shutdown()
        attacker.server_close()
