"""The flow as a user starts it: `fer run`, a real Prefect server and real steps, at their smallest."""

import html
import http.server
import json
import os
import shutil
import signal
import socketserver
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from helpers.prefect_home import with_database
from test_cli import au_table, class_folders

from fer_core.artifacts import open_artifact
from fer_core.errors import ExperimentError, InputError
from flows.doctor import _prefect, _Wrong, examine_openface
from flows.elsewhere import runner_for
from flows.prefect_server import free_port
from flows.study import Study, open_study, seeds_in
from openface.settings import OpenFaceSettings

TINY = str(Path(__file__).parent / "tiny.toml")
BIN = Path(sys.executable).parent
LAMBDA = "ldg.lambda=0.5"
MODELS = ["EF + LDG-AUs", "EF + LDG", "EF SLL", "LDG-AUs", "LDG"]

CRASHES_ONCE = """
import os, sys
from pathlib import Path
tried = Path(os.environ["TRIED"])
with tried.open("a") as tries:
    tries.write("x")
if tried.stat().st_size == 1:
    os.kill(os.getpid(), 9)
from fer_core.cli import main
main()
"""
PREPARES = """
import sys
from prefect import flow
from flows.display import Lines
from flows.step_task import Maker
from flows.pipeline import prepare_images
from flows.runner import Subprocesses
from flows.study import open_study

@flow
def prepare(experiment: str, artifacts: str, program: str) -> None:
    with Subprocesses([sys.executable, "-c", program]) as runner:
        prepare_images(Maker(open_study(experiment, None, None, None, (), artifacts), runner, Lines()))

prepare(*sys.argv[1:])
"""

LOOKS_WHEN_STOPPED = """
import sys
from prefect import flow
import fer_core.contents
from flows.display import Lines
from flows.step_task import Maker
from flows.pipeline import prepare_images
from flows.runner import Subprocesses
from flows.study import open_study

fer_core.contents._SECONDS_OF_PATIENCE = 0.0

@flow
def prepare(experiment: str, data: str, artifacts: str) -> None:
    study = open_study(experiment, data, None, None, ["dataset.source=folder"], artifacts)
    with Subprocesses() as runner:
        runner.stop()
        prepare_images(Maker(study, runner, Lines()))

prepare(*sys.argv[1:])
"""

ANNOTATES = """
import sys
from flows.display import shown
from flows.pipeline import annotate

with shown():
    annotate(sys.argv[1], sys.argv[2], None, ["dataset.source=folder"], sys.argv[3])
"""

LACKS_MEMORY = """
import sys
if "train-ldg" in sys.argv and "ldg.batch=8" not in sys.argv:
    print("error: out of memory: CUDA out of memory. Tried to allocate 20 MiB", file=sys.stderr)
    sys.exit(3)
from fer_core.cli import main
main()
"""
TRAINS = """
import sys
from prefect import flow
from flows.display import Lines
from flows.step_task import Maker
from flows.pipeline import prepare_images, train_ldg
from flows.runner import Subprocesses
from flows.study import open_study

@flow
def trains(experiment: str, artifacts: str, program: str) -> str:
    with Subprocesses([sys.executable, "-c", program]) as runner:
        make = Maker(open_study(experiment, None, None, None, (), artifacts), runner, Lines())
        return str(train_ldg(make, prepare_images(make), 1).path)

print(trains(*sys.argv[1:]))
"""


@dataclass(frozen=True)
class Lab:
    """A Prefect server, and a folder of artifacts that the tests share."""

    port: int
    environment: dict[str, str]
    artifacts: Path

    @property
    def api(self) -> str:
        return f"http://127.0.0.1:{self.port}/api"

    def fer(self, *arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
        """Run `fer` to its end."""
        return subprocess.run(
            [BIN / "fer", *arguments], capture_output=True, text=True, env=self.environment | environment, timeout=900
        )

    def run_tiny(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        """The tiny experiment, into the shared folder."""
        return self.fer("run", TINY, "--artifacts", str(self.artifacts), *arguments)

    def ask(self, what: str, **body: Any) -> list[dict[str, Any]]:
        """What the server has of `what`, the latest first."""
        request = urllib.request.Request(
            f"{self.api}/{what}/filter", json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=10) as answer:
            found: list[dict[str, Any]] = json.load(answer)
            return found


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    folder = tmp_path_factory.mktemp("lab")
    port = free_port()
    environment = os.environ | {
        "PREFECT_HOME": with_database(folder / "prefect"),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
        "PREFECT_RUNNER_POLL_FREQUENCY": "1",
    }
    api = f"http://127.0.0.1:{port}/api"
    start = [str(BIN / "prefect"), "server", "start", "--no-ui", "--host", "127.0.0.1", "--port", str(port)]
    with (
        (folder / "server.log").open("w") as log,
        subprocess.Popen(start, env=environment, stdout=log, stderr=log) as server,
    ):
        try:
            wait_for(lambda: answers(f"{api}/health"), 90)
            yield Lab(port, environment | {"PREFECT_API_URL": api}, folder / "artifacts")
        finally:
            server.terminate()


@pytest.fixture(scope="module")
def first_run(lab: Lab) -> "subprocess.CompletedProcess[str]":
    return lab.run_tiny()


def test_the_whole_flow_makes_a_report_of_five_models(lab: Lab, first_run: "subprocess.CompletedProcess[str]") -> None:
    assert (first_run.returncode, first_run.stderr) == (0, "")
    lines = first_run.stdout.splitlines()
    page = Path(lines[-1].removeprefix("file://"))
    assert page.parent.parent == lab.artifacts / "report"
    assert page.read_text(encoding="utf-8").lstrip().startswith("<!doctype html>")
    table = json.loads(page.with_name("results.json").read_text())["table"]
    assert table["columns"] == MODELS
    assert all(0 <= value <= 100 for values in table["rows"].values() for value in values)
    assert all(name in "".join(lines[-9:-2]) for name in MODELS)
    best = Path(lines[-2].rpartition("--model ")[2])
    assert json.loads((best / "model.json").read_text())["architecture"] == "efficientface"
    assert [line.partition(" · ")[0] for line in lines if line.startswith("✓")][:3] == [
        "✓ prepare images",
        "✓ annotate action units",
        "✓ link neighbours",
    ]


def test_prefect_is_told_of_every_step(lab: Lab, first_run: "subprocess.CompletedProcess[str]") -> None:
    (run,) = lab.ask("flow_runs", sort="START_TIME_ASC", limit=1)
    assert run["state_name"] == "Completed"
    of_run = {"flow_runs": {"id": {"any_": [run["id"]]}}}
    wait_for(lambda: len(lab.ask("task_runs", **of_run)) == 16, 20)
    tasks = {task["name"]: task["state_name"] for task in lab.ask("task_runs", **of_run)}
    assert {"prepare images", "annotate action units", "link neighbours", "report"} < tasks.keys()
    assert {"train LDG-AUs · seed 1", "soft labels of LDG · seed 1", "evaluate EF SLL · seed 1"} < tasks.keys()
    assert {"train LDG · seed 1", "train EF SLL · seed 1", "distill EF + LDG-AUs · seed 1"} < tasks.keys()
    assert set(tasks.values()) == {"Completed"}
    shown = {artifact["key"]: artifact for artifact in lab.ask("artifacts", sort="KEY_ASC", **of_run)}
    assert list(shown) == sorted(shown)  # In the order of the method, as Prefect's page has them by key.
    assert {"tiny-12-au-coverage", "tiny-21-neighbour-graph", "tiny-32-ldg-aus-seed-1-curves"} <= shown.keys()
    assert {"tiny-91-paper-table", "tiny-92-report", "tiny-93-report-picture"} <= shown.keys()
    assert (shown["tiny-00-run"]["data"], shown["tiny-00-run"]["description"]) == (100.0, "16 of 16 steps · done")
    table = json.loads(shown["tiny-91-paper-table"]["data"])
    assert [row["accuracy, %"] for row in table] == ["max", "median", "min"]
    assert all(len(str(row[name])) <= 5 for row in table for name in MODELS)  # 21.7, not 21.73913043478261.
    assert str(shown["tiny-93-report-picture"]["data"]).startswith("data:image/svg+xml;base64,")
    said = [log["message"] for log in lab.ask("logs", logs={"flow_run_id": {"any_": [run["id"]]}})]
    assert any(text.startswith("graph: recall@2") for text in said)


def test_the_same_again_makes_nothing(lab: Lab, first_run: "subprocess.CompletedProcess[str]") -> None:
    before = contents(lab.artifacts)
    again = lab.run_tiny()
    assert again.returncode == 0
    assert again.stdout.splitlines()[-8:] == first_run.stdout.splitlines()[-8:]
    assert again.stdout.count(" · reused\n") == 16
    assert contents(lab.artifacts) == before


def test_a_dataset_copied_elsewhere_makes_nothing_anew(lab: Lab, tmp_path: Path) -> None:
    """With other times, as after a download, and its AU table beside it; what follows goes by what these two make."""
    first, second = tmp_path / "here", tmp_path / "there" / "faces"
    class_folders(first)
    au_table(first, first / "openface_aus.parquet")
    shutil.copytree(first, second, copy_function=shutil.copyfile)
    for file in second.rglob("*.*"):
        os.utime(file, (1e9, 1e9))
    done = []
    environment = lab.environment | {"XDG_CACHE_HOME": str(tmp_path / "cache")}
    for data in (first, second):
        command = [sys.executable, "-c", ANNOTATES, TINY, str(data), str(tmp_path / "artifacts")]
        done.append(subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120, check=False))
        assert done[-1].returncode == 0, done[-1].stderr
    assert [(run.stdout.count("✓"), run.stdout.count(" · reused\n")) for run in done] == [(2, 0), (0, 2)]


def test_a_run_that_reuses_all_shows_all_that_it_is_made_of(
    lab: Lab, first_run: "subprocess.CompletedProcess[str]"
) -> None:
    assert lab.run_tiny().returncode == 0
    first, *_, last = lab.ask(
        "flow_runs", sort="START_TIME_ASC", flow_runs={"state": {"type": {"any_": ["COMPLETED"]}}}
    )
    of_first, of_last = ({made["key"] for made in lab.ask("artifacts", **of(run))} for run in (first, last))
    assert {key for key in of_first if "-01-" not in key} == of_last  # 01: of steps that ran.


def of(run: dict[str, Any]) -> dict[str, Any]:
    """A filter for what belongs to a run."""
    return {"flow_runs": {"id": {"any_": [run["id"]]}}}


def test_another_lambda_leaves_what_does_not_use_it(lab: Lab, first_run: "subprocess.CompletedProcess[str]") -> None:
    first, other = (open_study(TINY, None, None, None, settings, str(lab.artifacts)) for settings in ([], [LAMBDA]))
    assert folder_of_student(first, 1) == folder_of_student(other, 1)
    same = [a == b for a, b in zip(folders_of_seed(first, 1), folders_of_seed(other, 1), strict=True)]
    assert same == [True, False, True]


def test_another_lambda_and_views_redo_generator_soft_labels_and_what_follows(
    lab: Lab, first_run: "subprocess.CompletedProcess[str]"
) -> None:
    """The graph, LDG and EF SLL stay. Students of the generator online are judged; kept views: test_comparison.py."""
    before = contents(lab.artifacts)
    other = lab.run_tiny("--set", LAMBDA, "--set", 'soft_labels.views="online"', "--set", "distill.epochs=2")
    assert (other.returncode, other.stderr) == (0, "")
    lines = other.stdout.splitlines()
    assert {line.partition(" · ")[0] for line in lines if line.startswith("✓")} == {
        "✓ train LDG-AUs",
        "✓ soft labels of LDG",
        "✓ soft labels of LDG-AUs",
        "✓ distill EF + LDG",
        "✓ distill EF + LDG-AUs",
        "✓ evaluate LDG-AUs",
        "✓ evaluate EF + LDG",
        "✓ evaluate EF + LDG-AUs",
        "✓ report",
    }
    assert before < contents(lab.artifacts)
    page = Path(lines[-1].removeprefix("file://")).parent
    assert json.loads((page / "results.json").read_text())["table"]["columns"] == MODELS
    assert 'views = "online"\n' in html.unescape((page / "index.html").read_text(encoding="utf-8"))


def test_a_seed_that_fails_does_not_lose_the_other(lab: Lab, first_run: "subprocess.CompletedProcess[str]") -> None:
    study = open_study(TINY, None, None, [1, 2], (), str(lab.artifacts))
    for folder in folders_of_seed(study, 2):
        folder.with_name(f"{folder.name}.unfinished").write_text("in the way")
    failed = lab.run_tiny("--seeds", "1,2")
    assert failed.returncode == 2
    assert len(failed.stderr.splitlines()) == 3
    assert all(line.startswith(f"error: {lab.artifacts}") for line in failed.stderr.splitlines())
    assert "✗ train EF SLL · seed 2" in failed.stdout
    assert "trying again" not in failed.stdout
    report = Path(failed.stdout.splitlines()[-1].removeprefix("file://")).parent
    assert open_artifact(report, "report").path == report
    (run,) = lab.ask("flow_runs", sort="START_TIME_DESC", limit=1)
    assert run["state_name"] == "Failed"
    assert "train EF SLL · seed 2" in run["state"]["message"]


def test_a_killed_step_is_tried_again(lab: Lab, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PREPARES, TINY, str(tmp_path / "artifacts"), CRASHES_ONCE],
        capture_output=True,
        text=True,
        timeout=60,
        env=lab.environment | {"TRIED": str(tmp_path / "tried")},
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "tried").read_text() == "xx"
    lines = done.stdout.splitlines()
    assert "✗ prepare images: killed by SIGKILL" in lines[1]
    assert lines[1].endswith("; trying again")
    assert lines[-1].startswith("✓ prepare images · ")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["nowhere.toml"], "nowhere.toml: no such experiment"),
        (["demo", "--set", "graph.kk=3"], "unknown key graph.kk; did you mean k?"),
        (["demo", "--seeds", "1,two"], "--seeds 1,two: give whole numbers"),
        (["ferplus-cpu"], "needs images; give their folder with --data"),
        (["ferplus-cpu", "--data", "/no/faces"], "/no/faces: no such folder"),
        (["demo", "--aus", "/no/aus"], "/no/aus: no such file or folder"),
    ],
)
def test_a_mistake_is_told_in_a_line_before_anything_is_started(
    arguments: list[str], told: str, tmp_path: Path
) -> None:
    done = subprocess.run(
        [BIN / "fer", "run", *arguments, "--artifacts", str(tmp_path / "artifacts")],
        capture_output=True,
        text=True,
        env=os.environ | {"PREFECT_API_URL": "http://127.0.0.1:9/api"},
        timeout=60,
    )
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert told in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_file_cannot_hold_the_artifacts() -> None:
    with pytest.raises(InputError, match=r"tiny\.toml: is a file; name a folder with --artifacts"):
        open_study("demo", None, None, None, [], TINY)


def test_a_mistake_that_a_step_finds_ends_the_run_with_its_line(lab: Lab, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    done = lab.fer(
        *("run", TINY, "--artifacts", str(tmp_path / "artifacts"), "--data", str(tmp_path / "empty")),
        *("--set", "dataset.source=folder"),
    )
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith(f"error: {tmp_path / 'empty'}: 0 images in 0 class folders")
    assert "Traceback" not in done.stdout + done.stderr
    assert "trying again" not in done.stdout


def test_annotate_fails_with_the_words_of_what_failed(lab: Lab, tmp_path: Path) -> None:
    """`annotate action units` could not begin, which is nothing that a person can mend."""
    code = "import sys; from flows.pipeline import annotate; annotate(*sys.argv[1:3], artifacts=sys.argv[3],\n"
    code += "settings=['dataset.source=folder'])"
    (tmp_path / "empty").mkdir()
    done = subprocess.run(
        [sys.executable, "-c", code, TINY, str(tmp_path / "empty"), str(tmp_path / "artifacts")],
        capture_output=True,
        text=True,
        env=lab.environment,
        timeout=120,
    )
    assert done.returncode == 1
    (run,) = lab.ask("flow_runs", sort="START_TIME_DESC", limit=1)
    assert run["state_name"] == "Failed"
    assert "prepare images: " in run["state"]["message"]
    assert "PENDING" not in run["state"]["message"]


@pytest.fixture(scope="module")
def servers() -> Iterator[dict[str, int]]:
    """Ports at which something else than a Prefect server without a password is found."""

    class Page(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"<html>a page</html>")

        def log_message(self, *arguments: Any) -> None: ...

    class Locked(Page):
        """As Prefect's server answers, and a test can have it at once."""

        def do_GET(self) -> None:
            health, right = self.path == "/api/health", self.headers.get("Authorization") == "Basic YWRhOmdlaGVpbQ=="
            self.send_response(200 if health or right else 401)
            self.end_headers()
            self.wfile.write(b"true" if health else b'"3.8.8"')

    class Leaving(Page):
        """One that ends between two questions."""

        def do_GET(self) -> None:
            if self.path == "/api/health":
                self.send_response(200)
                self.end_headers()
                self.wfile.write(b"true")

    class Mute(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            self.request.sendall(b"SSH-2.0-OpenSSH_9.2\r\n")

    made = {
        "page": http.server.ThreadingHTTPServer(("127.0.0.1", 0), Page),
        "locked": http.server.ThreadingHTTPServer(("127.0.0.1", 0), Locked),
        "leaving": http.server.ThreadingHTTPServer(("127.0.0.1", 0), Leaving),
        "ssh": socketserver.ThreadingTCPServer(("127.0.0.1", 0), Mute),
    }
    for server in made.values():
        threading.Thread(target=server.serve_forever, daemon=True).start()
    yield {name: int(server.server_address[1]) for name, server in made.items()}
    for server in made.values():
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize(
    ("url", "password", "told"),
    [
        ("http://127.0.0.1:{lab}", "", "Prefect's API is not there but at http://127.0.0.1:{lab}/api; add /api to"),
        ("http://127.0.0.1:{lab}/", "", "add /api to PREFECT_API_URL"),
        ("http://127.0.0.1:{lab}/dashboard", "", "Prefect's API is not there but at http://127.0.0.1:{lab}/api"),
        ("127.0.0.1:{lab}/api", "", "no address of a server; set PREFECT_API_URL to one such as http://127.0.0.1:4200"),
        ("http://127.0.0.1:none/api", "", "no address of a server; set PREFECT_API_URL"),
        ("http://[::1/api", "", "no address of a server; set PREFECT_API_URL"),
        ("http://127.0.0.1:9/api", "", "no Prefect server answers there"),
        ("http://127.0.0.1:{leaving}/api", "", "no Prefect server answers there"),
        ("http://127.0.0.1:{page}/api", "", "a server answers there that is not Prefect's"),
        ("http://127.0.0.1:{ssh}/api", "", "a server answers there that is not Prefect's"),
        ("http://127.0.0.1:{locked}/api", "", "wants a password; set PREFECT_API_AUTH_STRING"),
        ("http://127.0.0.1:{locked}/api", "ada:falsch", "wants another password than PREFECT_API_AUTH_STRING's"),
    ],
)
def test_a_wrong_address_is_told_in_a_line_that_says_what_to_do(
    lab: Lab, servers: dict[str, int], url: str, password: str, told: str, tmp_path: Path
) -> None:
    ports = {**servers, "lab": lab.port}
    done = subprocess.run(
        [BIN / "fer", "run", TINY, "--artifacts", str(tmp_path)],
        capture_output=True,
        text=True,
        env=os.environ | {"PREFECT_API_URL": url.format(**ports), "PREFECT_API_AUTH_STRING": password},
        timeout=60,
    )
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
    assert told.format(**ports) in done.stderr


@pytest.mark.parametrize("of_users", [True, False])
def test_loopback_never_goes_through_a_proxy(lab: Lab, of_users: bool, tmp_path: Path) -> None:
    """Neither to a server of the user's, here with a slash too many, nor to the one that a run starts."""
    nowhere = "http://127.0.0.1:9"
    proxies = dict.fromkeys(("http_proxy", "HTTP_PROXY", "https_proxy"), nowhere)
    proxies["all_proxy"] = "socks5://127.0.0.1:9"
    environment = {name: value for name, value in os.environ.items() if "proxy" not in name.lower()}
    environment |= {"PREFECT_HOME": str(tmp_path / "prefect"), **proxies}
    if of_users:
        environment["PREFECT_API_URL"] = f"{lab.api}/"
    code = """
import sys
from flows.cli import _start_server
server = _start_server()
if server:
    server.wait()
from prefect import flow
flow(lambda: None, name="through")()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, timeout=120)
    assert done.returncode == 0, done.stderr


def test_a_server_that_does_not_answer_is_told_in_a_line(tmp_path: Path) -> None:
    api = f"http://127.0.0.1:{free_port()}/api"
    done = subprocess.run(
        [BIN / "fer", "run", TINY],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        timeout=60,
        env=os.environ | {"PREFECT_API_URL": api},
    )
    assert done.returncode == 2
    assert done.stderr.startswith(
        f"error: {api}: no Prefect server answers there; start one with `prefect server start`"
    )
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("setting", "value", "told"),
    [
        (
            "PREFECT_HOME",
            "/proc/nosuch",
            "/proc/nosuch: No such file or directory; Prefect keeps its database there: set",
        ),
        ("PREFECT_HOME", "/etc/passwd", "/etc/passwd: File exists; Prefect keeps its database there: set PREFECT_HOME"),
        ("PREFECT_LOGGING_LEVEL", "loud", "a setting of Prefect's cannot be read: PREFECT_LOGGING_LEVEL=LOUD: "),
        (
            "PREFECT_SERVER_ANALYTICS_ENABLED",
            "maybe",
            "PREFECT_SERVER_ANALYTICS_ENABLED=maybe: Input should be a valid b",
        ),
    ],
)
@pytest.mark.parametrize("command", [("run", TINY), ("serve",)])
def test_a_setting_of_prefects_that_cannot_be(
    command: tuple[str, ...], setting: str, value: str, told: str, tmp_path: Path
) -> None:
    """A user without a home, as in a container or a service, and one with settings from elsewhere."""
    alone = {name: text for name, text in os.environ.items() if not name.startswith("PREFECT")}
    alone |= {"PREFECT_HOME": str(tmp_path / "prefect"), "PREFECT_API_URL": "", setting: value}
    done = subprocess.run([BIN / "fer", *command], env=alone, cwd=tmp_path, capture_output=True, text=True, timeout=90)
    assert done.returncode == 2
    # Prefect itself prints Pydantic's words before.
    assert done.stderr.splitlines()[-1].startswith("error: ")
    assert told in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


def test_ctrl_c_stops_run_server_and_steps_within_five_seconds(lab: Lab, tmp_path: Path) -> None:
    environment = {name: value for name, value in lab.environment.items() if name != "PREFECT_API_URL"}
    with subprocess.Popen(
        [BIN / "fer", "run", TINY, "--set", "dataset.count=20000", "--artifacts", str(tmp_path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        start_new_session=True,
    ) as run:
        assert run.stdout is not None
        assert run.stderr is not None
        assert run.stdout.readline() == "… prepare images\n"
        wait_for(lambda: any(tmp_path.rglob(".unfinished")), 30)
        processes = descendants(run.pid)
        started = time.monotonic()
        os.killpg(run.pid, signal.SIGINT)
        assert run.wait(10) == 130
        assert time.monotonic() - started < 5
        assert run.stderr.read() == "stopped; what is finished is kept, and the same command goes on from there\n"
    assert len(processes) >= 2
    wait_for(lambda: not any(Path(f"/proc/{process}").exists() for process in processes), 2)


@pytest.mark.parametrize("empty", ["data", "aus", "artifacts"])
@pytest.mark.parametrize("given", ["", " "])
def test_an_empty_path_is_not_the_current_folder(empty: str, given: str, tmp_path: Path) -> None:
    """As of `--data "$DATA"` where DATA is not set."""
    paths = {"data": None, "aus": None, "artifacts": str(tmp_path)} | {empty: given}
    with pytest.raises(InputError, match=f"--{empty}: empty"):
        open_study("demo", seeds=None, settings=(), **paths)  # type: ignore[arg-type]


@pytest.mark.parametrize("setting", ["ldg.weights", "sll.weights", "distill.weights", "action_units.vectors"])
def test_a_file_that_a_setting_names_is_looked_for_before_anything_is_made(setting: str, tmp_path: Path) -> None:
    """Else a slip of the pen would be told after the images were prepared and OpenFace had run for hours."""
    there = tmp_path / "there"
    there.touch()
    study = open_study("demo", None, None, None, [f"{setting}={there}"], str(tmp_path))
    with pytest.raises(ExperimentError, match=rf"{setting} = .*their: no such file"):
        open_study("demo", None, None, None, [f"{setting}={tmp_path}/their"], str(tmp_path))
    with pytest.raises(ExperimentError, match=rf"{setting} = .*their: no such file"):
        study.with_settings([f"{setting}={tmp_path}/their"])


def test_an_end_is_refused_of_a_run_that_would_not_keep_to_it(tmp_path: Path) -> None:
    with pytest.raises(ExperimentError, match=r"run\.hours = 0\.5: ends comparisons alone"):
        open_study("demo", None, None, None, ["run.hours=0.5"], str(tmp_path))


def test_a_stopped_run_does_not_read_a_dataset_to_its_end(lab: Lab, tmp_path: Path) -> None:
    faces = class_folders(tmp_path / "faces")
    done = subprocess.run(
        [sys.executable, "-c", LOOKS_WHEN_STOPPED, TINY, str(faces), str(tmp_path / "artifacts")],
        capture_output=True,
        text=True,
        env=lab.environment,
        timeout=120,
    )
    assert done.returncode == 1
    assert "StepFailed: prepare images: stopped\n" in done.stderr
    assert not (tmp_path / "artifacts").exists()


def test_a_study_shares_the_cores_among_its_jobs(tmp_path: Path) -> None:
    cores = len(os.sched_getaffinity(0))
    study = open_study("demo", None, None, [3, 1, 3], ["run.jobs=1", "run.device='cpu'"], str(tmp_path))
    assert (study.jobs, study.threads, study.seeds) == (1, cores, (3, 1))
    study = open_study("demo", None, None, None, ["run.jobs=0", "run.device='cpu'"], str(tmp_path))
    assert (study.jobs, study.threads) == (max(1, cores // 2), cores // max(1, cores // 2))


def test_a_bundled_experiment_stays_a_name_and_a_file_becomes_a_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert open_study("demo", None, None, None, (), "artifacts").source == "demo"
    Path("mine.toml").write_text("title = 'mine'")
    mine = open_study("mine.toml", None, None, None, (), "artifacts")
    assert (mine.source, mine.artifacts) == (str(tmp_path / "mine.toml"), tmp_path / "artifacts")


def test_seeds_are_read_from_a_list_with_commas() -> None:
    assert seeds_in("1,2, 30") == [1, 2, 30]
    with pytest.raises(ExperimentError, match="whole numbers"):
        seeds_in("1..3")


def folders_of_seed(study: Study, seed: int) -> list[Path]:
    """Folders of the seed's three models that need no other model: LDG, LDG-AUs, EF SLL."""
    dataset = open_artifact(study.folder(study.request("prepare", [])))
    action_units = open_artifact(study.folder(study.request("annotate", [dataset])))
    graph = open_artifact(study.folder(study.request("graph", [dataset, action_units])))
    wanted = [("train-ldg", [dataset]), ("train-ldg", [dataset, graph]), ("distill", [dataset])]
    return [study.folder(study.request(step, inputs, seed)) for step, inputs in wanted]


def folder_of_student(study: Study, seed: int) -> Path:
    """Folder of the seed's EF + LDG."""
    dataset = open_artifact(study.folder(study.request("prepare", [])))
    ldg = open_artifact(study.folder(study.request("train-ldg", [dataset], seed)))
    soft = open_artifact(study.folder(study.request("soft-labels", [dataset, ldg])))
    return study.folder(study.request("distill", [dataset, soft], seed))


def contents(folder: Path) -> set[tuple[Path, int]]:
    """Every file and when it was last changed."""
    return {(path, path.stat().st_mtime_ns) for path in folder.rglob("*") if path.is_file()}


def descendants(process: int) -> list[int]:
    """The processes that it has started, and those that these have."""
    listed = subprocess.run(["ps", "-eo", "pid=,ppid="], capture_output=True, text=True, check=True).stdout
    children = [int(line.split()[0]) for line in listed.splitlines() if int(line.split()[1]) == process]
    return [*children, *(grandchild for child in children for grandchild in descendants(child))]


def answers(url: str) -> bool:
    """A server answers at the address."""
    try:
        with urllib.request.urlopen(url, timeout=5):
            return True
    except OSError:
        return False


def wait_for(condition: Any, seconds: float) -> None:
    """Until it holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(0.1)


def test_a_training_out_of_memory_is_tried_with_half_the_batch_and_says_so(lab: Lab, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", TRAINS, TINY, str(tmp_path), LACKS_MEMORY],
        capture_output=True,
        text=True,
        env=lab.environment,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    made = open_artifact(Path(done.stdout.splitlines()[-1]))
    recipe = made.settings()["ldg"]
    assert (recipe["batch"], recipe["learning_rate"]) == (8, 0.0025)  # From 32 at 0.01, halved twice.
    assert "tried again with half the batch" in done.stderr


def test_a_step_without_a_batch_is_not_made_smaller(tmp_path: Path) -> None:
    study = open_study(TINY, None, None, None, (), str(tmp_path))
    assert study.with_half_the_batch(study.request("prepare", ())) is None


def test_cuda_on_a_machine_without_a_gpu_is_told_before_anything_runs(tmp_path: Path) -> None:
    if Path("/proc/driver/nvidia/gpus").is_dir():
        pytest.skip("this machine has one")
    with pytest.raises(ExperimentError, match=r"run\.device = cuda: no GPU here"):
        runner_for(open_study(TINY, None, None, None, ["run.device=cuda"], str(tmp_path)))


def test_a_folder_is_no_program_to_the_doctor_either(tmp_path: Path) -> None:
    check = examine_openface(OpenFaceSettings(binary=str(tmp_path)))
    assert not check.passed
    assert f"openface.binary = {tmp_path}: no program there; drawn faces" in check.message


@pytest.mark.parametrize(("store", "needed"), [("", "needs none"), ("/store", "needs it, since FER_STORE is set")])
def test_the_doctor_says_whether_a_run_needs_a_server(monkeypatch: pytest.MonkeyPatch, store: str, needed: str) -> None:
    monkeypatch.setenv("FER_STORE", store)
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:9/api")
    with pytest.raises(_Wrong, match=f"`docker compose up -d` starts one, and `fer run` {needed}$"):
        _prefect()


def test_the_doctor_asks_for_the_workers_server_as_a_run_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server that `docker compose up` starts on this machine is none that they ask."""
    monkeypatch.setenv("FER_STORE", "/store")
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path))
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    with pytest.raises(_Wrong, match="set PREFECT_API_URL to theirs"):
        _prefect()


def test_the_doctor_says_what_to_do(lab: Lab, tmp_path: Path) -> None:
    without = {"FER_DOCKER_HOST": f"unix://{tmp_path}/no.sock", "PREFECT_API_URL": "http://127.0.0.1:9/api"}
    told = lab.fer("doctor", **without)
    assert (told.returncode, told.stderr) == (1, "")
    lines = {line[4:14].strip(): line for line in told.stdout.splitlines()}
    assert list(lines) == ["engine", "OpenFace", "Prefect", "disk"]
    assert "no container engine at unix://" in lines["engine"]
    assert "http://127.0.0.1:9/api: no Prefect server answers there" in lines["Prefect"]
    assert "`docker compose up -d` starts one" in lines["Prefect"]
    assert "drawn faces, and runs with --aus, need none" in lines["OpenFace"]
    assert lines["disk"].startswith("ok")
    missing = lab.fer("doctor", "--set", "openface.binary=/nowhere/FaceLandmarkImg", **without)
    assert "openface.binary = /nowhere/FaceLandmarkImg: no program there" in missing.stdout
