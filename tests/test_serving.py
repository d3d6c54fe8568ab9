"""`fer serve`, the real one: its server answers its own pages alone, and its worker runs experiments and no program."""

import http.server
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from helpers.prefect_home import with_database
from test_experiment_worker import MISTAKEN, REFUSED, TINY
from test_flow import BIN, answers, descendants, wait_for
from test_guard import FLOW, UPGRADE, flows, status

from flows.prefect_server import free_port

UNREADABLE = {"PREFECT_API_AUTH_STRING": "ada:gehäim"}
"""Prefect's server answers every request with 500 where it has such a password."""


@dataclass
class Laptop:
    """A user's folder, with data and a Prefect of its own, and whoever may use the API."""

    folder: Path
    port: int = field(default_factory=free_port)

    def __post_init__(self) -> None:
        (self.folder / "data").mkdir()
        with_database(self.folder / "prefect")
        (self.folder / "data" / "tiny.toml").write_text(Path(TINY).read_text())

    @property
    def api(self) -> str:
        return f"http://127.0.0.1:{self.port}/api"

    @property
    def environment(self) -> dict[str, str]:
        return os.environ | {
            "PREFECT_HOME": str(self.folder / "prefect"),
            "PREFECT_API_URL": self.api,
            "PREFECT_WORKER_QUERY_SECONDS": "1",
        }

    @property
    def experiment(self) -> str:
        return str(self.folder / "data" / "tiny.toml")

    def serve(self, *arguments: str, **more: Any) -> "subprocess.Popen[str]":
        command = [str(BIN / "fer"), "serve", "--data", "data", *arguments]
        return subprocess.Popen(command, env=self.environment, cwd=self.folder, text=True, **more)

    def ask(self, method: str, where: str, **body: Any) -> httpx.Response:
        while True:
            answer = httpx.request(method, f"{self.api}/{where}", json=body or None, timeout=30)
            if answer.status_code != 503:  # SQLite, which somebody else is writing to.
                return answer

    def deployment(self) -> dict[str, Any]:
        found: dict[str, Any] = self.ask("GET", "deployments/name/fer/full-pipeline").json()
        return found

    def start(self, **body: Any) -> str:
        run = self.ask("POST", f"deployments/{self.deployment()['id']}/create_flow_run", **body)
        assert run.status_code == 201, run.text
        return str(run.json()["id"])

    def state(self, run: str) -> dict[str, Any]:
        found: dict[str, Any] = self.ask("GET", f"flow_runs/{run}").json()["state"]
        return found

    def ending(self, run: str) -> tuple[str, str]:
        """How a run ended, and why."""
        wait_for(lambda: self.state(run)["type"] in ("COMPLETED", "FAILED", "CRASHED", "CANCELLED"), 90)
        state = self.state(run)
        return str(state["type"]), str(state["message"])

    def start_long(self) -> str:
        """A run whose first step is under way."""
        settings = ["dataset.count=20000", f"dataset.seed={time.time_ns() % 10**6}"]
        run = self.start(parameters={"experiment": self.experiment, "settings": settings})
        wait_for(lambda: any((self.folder / "artifacts").rglob(".unfinished")), 60)
        return run


@contextmanager
def serving(laptop: Laptop) -> Iterator["subprocess.Popen[str]"]:
    """`fer serve`, once it has said so."""
    with (laptop.folder / "log").open("a") as log:
        server = laptop.serve(stdout=log, stderr=log)
        try:
            wait_for(lambda: server.poll() is not None or answers(f"{laptop.api}/health"), 90)
            said = f"the UI is at http://127.0.0.1:{laptop.port}\n"
            wait_for(lambda: said in (laptop.folder / "log").read_text(), 60)
            yield server
        finally:
            server.kill()
            server.wait()


@pytest.fixture(scope="module")
def laptop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Laptop]:
    made = Laptop(tmp_path_factory.mktemp("laptop"))
    with serving(made):
        yield made


@pytest.mark.parametrize(
    "request_line", ["POST /api/flows/", "POST /api/automations/", "GET /api/flows/count", "GET /", "GET /docs"]
)
@pytest.mark.parametrize("foreign", ["http://elsewhere.test", "null", "http://127.0.0.1:1"])
def test_a_page_of_another_origin_gets_nothing_written_or_read(laptop: Laptop, request_line: str, foreign: str) -> None:
    assert status(laptop.port, request_line, f"Origin: {foreign}", body=FLOW) == 403
    assert "theirs" not in flows(laptop.port)


@pytest.mark.parametrize("path", ["/api/health", "/", "/api/events/out"])
def test_by_a_name_that_was_bent_to_this_machine_nothing_is_served(laptop: Laptop, path: str) -> None:
    upgrade = UPGRADE if path.endswith("out") else ()
    assert status(laptop.port, f"GET {path}", *upgrade, host=f"elsewhere.test:{laptop.port}") == 403


def test_the_own_page_is_served_and_may_ask(laptop: Laptop) -> None:
    assert "<title>Prefect Server</title>" in httpx.get(f"http://localhost:{laptop.port}/").text
    assert httpx.get(f"http://127.0.0.1:{laptop.port}/ui-settings").json()["api_url"] == laptop.api
    own = f"Origin: http://localhost:{laptop.port}"
    assert status(laptop.port, "POST /api/flows/", own, body=json.dumps({"name": "own"})) == 201


def test_a_command_in_job_variables_is_never_run(laptop: Laptop) -> None:
    touched = laptop.folder / "touched"
    command = {"command": f"touch {touched}", "env": {"PREFECT__FLOW_ENTRYPOINT": "evil.flow"}}
    refused = laptop.ask(
        "POST", f"deployments/{laptop.deployment()['id']}/create_flow_run", job_variables=command, parameters=MISTAKEN
    )
    assert refused.status_code == 422
    before = laptop.ask("GET", "work_pools/fer").json()["base_job_template"]
    template = {
        "job_configuration": {"command": f"touch {touched}", "env": {}},
        "variables": {"type": "object", "properties": {"command": {"type": "string"}, "env": {"type": "object"}}},
    }
    assert laptop.ask("PATCH", "work_pools/fer", base_job_template=template).status_code == 204
    kind, why = laptop.ending(laptop.start(parameters=MISTAKEN, job_variables=command))
    assert laptop.ask("PATCH", "work_pools/fer", base_job_template=before).status_code == 204
    assert (kind, touched.exists()) == ("FAILED", False)
    assert REFUSED in why


def test_another_entrypoint_or_steps_of_a_deployment_are_never_run(laptop: Laptop) -> None:
    touched, evil = laptop.folder / "touched", laptop.folder / "evil.py"
    evil.write_text(f"from pathlib import Path\nPath({str(touched)!r}).touch()\ndef full_pipeline(): pass\n")
    before = laptop.deployment()
    steps = [{"prefect.deployments.steps.run_shell_script": {"script": f"touch {touched}"}}]
    more = {"entrypoint": f"{evil}:full_pipeline", "path": "/", "pull_steps": steps, "parameters": before["parameters"]}
    changed = laptop.ask(
        "POST", "deployments/", name="full-pipeline", flow_id=before["flow_id"], work_pool_name="fer", **more
    )
    assert changed.status_code == 200, changed.text
    kind, why = laptop.ending(laptop.start(parameters=MISTAKEN))
    assert (kind, touched.exists()) == ("FAILED", False)
    assert REFUSED in why


@pytest.mark.parametrize(
    ("parameters", "told"),
    [
        ({"settings": ['ldg.weights="../../../etc/passwd"']}, "ldg.weights = "),
        ({"experiment": "/etc/passwd"}, "experiment = /etc/passwd: not below"),
        ({"artifacts": "/tmp/elsewhere"}, "artifacts = /tmp/elsewhere: not below"),
        ({"settings": ["openface.binary=/bin/sh"]}, "the worker runs no program of yours"),
    ],
)
def test_a_path_outside_of_what_was_granted_is_refused(laptop: Laptop, parameters: dict[str, Any], told: str) -> None:
    kind, why = laptop.ending(laptop.start(parameters={"experiment": "demo"} | parameters))
    assert kind == "FAILED"
    assert told in why


def test_a_second_one_and_a_taken_port_are_told_in_a_line(laptop: Laptop, tmp_path: Path) -> None:
    def told(environment: dict[str, str]) -> str:
        done = subprocess.run(
            [BIN / "fer", "serve"],
            env=laptop.environment | environment,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert (done.returncode, len(done.stderr.splitlines())) == (2, 1), done.stderr
        return done.stderr

    at = f"error: another `fer serve` is there already, at http://127.0.0.1:{laptop.port}; end it first\n"
    assert told({}) == at
    assert told({"PREFECT_API_URL": f"http://127.0.0.1:{free_port()}/api"}) == at
    other = {"PREFECT_HOME": str(tmp_path / "prefect")}
    assert f"error: port {laptop.port}: a Prefect server is there already; end it, or" in told(other)
    page = http.server.ThreadingHTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler)
    threading.Thread(target=page.serve_forever, daemon=True).start()
    taken = f"http://127.0.0.1:{page.server_address[1]}/api"
    assert "Address already in use; end it, or" in told(other | {"PREFECT_API_URL": taken})
    page.shutdown()
    page.server_close()
    told_of_password = told(other | {"PREFECT_API_URL": f"http://127.0.0.1:{free_port()}/api"} | UNREADABLE)
    assert told_of_password.endswith(
        "PREFECT_API_AUTH_STRING: write it with the letters, digits and signs of ASCII alone\n"
    )
    for elsewhere in ("https://prefect.example.org/api", "http://127.0.0.1:4200", "http://[::1/api"):
        assert "opens a server of its own on this machine" in told(other | {"PREFECT_API_URL": elsewhere})


def test_it_runs_what_prefects_command_line_asks_for(laptop: Laptop) -> None:
    done = subprocess.run(
        [BIN / "prefect", "deployment", "run", "fer/annotate", "-p", f"experiment={laptop.experiment}", "--watch"],
        capture_output=True,
        text=True,
        env=laptop.environment,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    made = {path.name for path in (laptop.folder / "artifacts").iterdir()}
    assert {"prepare", "annotate"} <= made


def test_a_run_that_is_cancelled_in_the_pages_ends_in_seconds(laptop: Laptop) -> None:
    run = laptop.start_long()
    started = time.monotonic()
    cancelling = {"type": "CANCELLING", "name": "Cancelling"}
    assert laptop.ask("POST", f"flow_runs/{run}/set_state", state=cancelling).status_code in (200, 201)
    assert laptop.ending(run)[0] == "CANCELLED"
    assert time.monotonic() - started < 20
    wait_for(lambda: not steps_of(laptop), 5)


def steps_of(laptop: Laptop) -> list[str]:
    """Processes of steps that write into the laptop's artifacts."""
    listed = subprocess.run(["ps", "-eo", "args="], capture_output=True, text=True, check=True).stdout
    return [line for line in listed.splitlines() if f"--out {laptop.folder}" in line]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_ends_all_in_seconds_and_leaves_no_process(number: signal.Signals, tmp_path: Path) -> None:
    laptop = Laptop(tmp_path)
    with serving(laptop) as server:
        run = laptop.start_long()
        processes = descendants(server.pid)
        started = time.monotonic()
        server.send_signal(number)
        assert server.wait(20) == 0
        assert time.monotonic() - started < 10
    assert len(processes) >= 4  # The server, the worker, the flow and its step.
    assert not [process for process in processes if Path(f"/proc/{process}").exists()]
    with serving(laptop):
        assert laptop.ending(run)[0] == "CRASHED"


def test_what_a_killed_one_left_is_marked_crashed_by_the_next(tmp_path: Path) -> None:
    laptop = Laptop(tmp_path)
    with serving(laptop) as server:
        run = laptop.start_long()
        wait_for(lambda: laptop.state(run)["type"] == "RUNNING", 30)
        processes = descendants(server.pid)
        server.kill()
        server.wait()
        wait_for(lambda: not any(Path(f"/proc/{process}").exists() for process in processes), 10)
    with serving(laptop):
        assert laptop.ending(run) == ("CRASHED", "Its worker died. Run it again: what is made is kept.")
        # Its slot is free.
        assert laptop.ending(laptop.start(parameters=MISTAKEN))[0] == "FAILED"


def test_registering_again_keeps_a_schedule_that_was_switched_on(laptop: Laptop) -> None:
    code = "import sys; from flows.register import register; register(sys.argv[1], 1)"
    again = [sys.executable, "-c", code, str(laptop.folder / "artifacts")]
    # Once, after all that an attacker made of it.
    subprocess.run(again, env=laptop.environment, check=True)

    def weekly() -> dict[str, Any]:
        (schedule,) = laptop.deployment()["schedules"]
        return dict(schedule)

    assert (weekly()["active"], weekly()["schedule"]["cron"]) == (False, "0 2 * * 1")
    where = f"deployments/{laptop.deployment()['id']}/schedules/{weekly()['id']}"
    for active in (True, False):
        assert laptop.ask("PATCH", where, active=active).status_code == 204
        subprocess.run(again, env=laptop.environment, check=True)
        assert weekly()["active"] is active
        where = f"deployments/{laptop.deployment()['id']}/schedules/{weekly()['id']}"
