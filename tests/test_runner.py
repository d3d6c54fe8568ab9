"""The runner, with real programs for steps: events, reasons, and that nothing outlives what it should not."""

import json
import os
import pickle
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import version
from pathlib import Path

import pytest
from helpers.prefect_home import with_database

from fer_core.exit_codes import ExitCode
from flows.events import Event, Metrics, Note, Progress, parse_event
from flows.runner import StepCommand, StepFailed, Subprocesses, failure, from_shell

ROOT = Path(__file__).parent.parent
COMMAND = StepCommand("graph", "demo", ("graph.k=16",), (Path("/a/prepare"), Path("/a/annotate")), Path("/a/graph"))

IGNORES_SIGTERM = """
import signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("deaf", flush=True)
time.sleep(60)
"""
COUNTS_FOR_EVER = """
import json, os, time
print(json.dumps({"event": "note", "text": str(os.getpid())}), flush=True)
while True:
    print(json.dumps({"event": "progress", "what": "sheep", "done": 1, "total": 9}), flush=True)
    time.sleep(0.1)
"""


def run(program: str, command: StepCommand = COMMAND) -> list[Event]:
    events: list[Event] = []
    with Subprocesses([sys.executable, "-c", program]) as runner:
        runner(command, events.append)
    return events


def failure_of(program: str) -> StepFailed:
    with pytest.raises(StepFailed) as caught:
        run(program)
    return caught.value


@pytest.mark.parametrize(
    ("line", "event"),
    [
        ('{"event": "progress", "what": "decode images", "done": 3, "total": 9}', Progress("decode images", 3, 9)),
        ('{"event": "metrics", "model": "LDG", "loss": 0.5}', Metrics({"model": "LDG", "loss": 0.5})),
        ('{"event": "note", "text": "done"}', Note("done")),
        ("from a library\n", Note("from a library")),
        ('{"event": "progress", "what": "decode images"}\n', Note('{"event": "progress", "what": "decode images"}')),
        ("[1, 2]\n", Note("[1, 2]")),
    ],
)
def test_a_line_is_read_back_as_the_event_that_it_tells(line: str, event: Event) -> None:
    assert parse_event(line) == event


def test_progress_of_an_epoch_counts_towards_the_whole_training() -> None:
    progress = Progress("LDG · seed 3 · epoch 2 of 8", 5, 10)
    assert progress.of_step() == (15, 80)
    assert progress.within("train LDG · seed 3") == "epoch 2 of 8"


def test_a_step_gets_the_arguments_that_one_would_type() -> None:
    arguments = "import json, sys; print(json.dumps({'event': 'note', 'text': ' '.join(sys.argv[1:])}))"
    assert run(arguments) == [
        Note("graph demo --out /a/graph --in /a/prepare --in /a/annotate --set graph.k=16"),
    ]
    train = StepCommand("train-ldg", "demo", (), (Path("/a/prepare"),), Path("/a/ldg"), seed=0)
    assert run(arguments, train) == [Note("train-ldg demo --out /a/ldg --in /a/prepare --seed 0")]
    prepare = StepCommand("prepare", "demo", (), (), Path("/a/p"), outside=("data", Path("/faces")), seen="c:g")
    assert run(arguments, prepare) == [Note("prepare demo --out /a/p --data /faces --seen c:g")]


def test_a_step_gets_its_share_of_the_cores() -> None:
    shared = StepCommand("graph", "demo", (), (), Path("/a"), threads=3)
    assert run("import os; print(os.environ['OMP_NUM_THREADS'])", shared) == [Note("3")]


def test_a_step_reads_the_experiment_that_its_run_began_with(tmp_path: Path) -> None:
    """Its file may be the next experiment's by then; hours of training by that one would be thrown away."""
    (file := tmp_path / "mine.toml").write_text("title = 'the next'")
    program = "import pathlib, sys; print(pathlib.Path(sys.argv[2]).read_text())"
    command = replace(COMMAND, experiment=str(file), document="title = 'this one'")
    assert run(program, command) == [Note("title = 'this one'")]


def test_a_mistake_is_told_in_the_steps_words_whatever_else_it_wrote() -> None:
    failure = failure_of(
        "import sys\n"
        "for number in range(100): print('a library warns', number, file=sys.stderr)\n"
        "print('error: faces: no such folder', file=sys.stderr)\n"
        "print('a library says goodbye', file=sys.stderr)\n"
        f"sys.exit({ExitCode.MISTAKE})"
    )
    assert (failure.mistake, failure.may_pass) == (True, False)
    assert str(failure) == "graph: faces: no such folder"


def test_a_crash_keeps_its_last_lines_and_is_worth_another_try() -> None:
    failure = failure_of("import sys; print('noise', file=sys.stderr); {}['key']")
    assert (failure.mistake, failure.may_pass) == (False, True)
    assert failure.message == "exit code 1: KeyError: 'key'"
    assert failure.details.startswith("noise\nTraceback")


def test_a_killed_step_is_told_by_its_signal() -> None:
    failure = failure_of("import os; os.kill(os.getpid(), 9)")
    assert failure.exit_code == -signal.SIGKILL
    assert failure.may_pass
    assert "SIGKILL" in failure.message


@pytest.mark.parametrize(("shells", "pythons"), [(1, 1), (128, 128), (137, -9), (143, -15), (255, 255)])
def test_a_containers_exit_code_is_a_signal_only_where_there_is_such_a_one(shells: int, pythons: int) -> None:
    assert from_shell(shells) == pythons


@pytest.mark.parametrize("number", [35, 127])
def test_a_signal_without_a_name_is_told_by_its_number(number: int) -> None:
    assert failure(COMMAND, -number, ["last words"]).message == f"killed by signal {number}"


def test_a_failure_survives_pickling_as_prefect_does_it() -> None:
    failure = pickle.loads(pickle.dumps(StepFailed("graph", 1, "why", "where")))
    assert (failure.step, failure.exit_code, failure.message, failure.details) == ("graph", 1, "why", "where")


def test_stopping_ends_even_a_deaf_step_within_five_seconds_and_starts_no_other() -> None:
    runner = Subprocesses([sys.executable, "-c", IGNORES_SIGTERM])
    begun, failures = threading.Event(), []

    def step() -> None:
        try:
            runner(COMMAND, lambda event: begun.set())
        except StepFailed as failure:
            failures.append(failure)

    thread = threading.Thread(target=step)
    thread.start()
    assert begun.wait(20)
    started = time.monotonic()
    runner.stop()
    thread.join(10)
    assert time.monotonic() - started < 5
    with pytest.raises(StepFailed):
        runner(COMMAND, lambda event: None)
    assert [failure.exit_code for failure in failures] == [ExitCode.INTERRUPTED]
    assert not failures[0].may_pass


def test_a_listener_that_fails_leaves_no_process() -> None:
    heard: list[Event] = []

    def listen(event: Event) -> None:
        heard.append(event)
        raise RuntimeError("no server")

    with (
        Subprocesses([sys.executable, "-c", COUNTS_FOR_EVER]) as runner,
        pytest.raises(RuntimeError, match="no server"),
    ):
        runner(COMMAND, listen)
    assert isinstance(heard[0], Note)
    assert not alive(int(heard[0].text))


def test_a_step_does_not_outlive_a_killed_flow() -> None:
    flow = (
        "import sys\nfrom pathlib import Path\nfrom flows.runner import *\n"
        "runner = Subprocesses([sys.executable, '-c', sys.argv[1]])\n"
        "command = StepCommand('graph', 'demo', (), (), Path('/a'))\n"
        "runner(command, lambda event: print(getattr(event, 'text', ''), flush=True))"
    )
    assert not outlives(flow, COUNTS_FOR_EVER)


def test_processes_that_share_a_steps_work_do_not_outlive_it() -> None:
    step = (
        "import os, time\nfrom fer_core.processes import process_a_core\n"
        "with process_a_core() as pool:\n    print(pool.submit(os.getpid).result(), flush=True)\n    time.sleep(60)"
    )
    assert not outlives(step)


def test_prefects_own_server_answers_nobody_but_its_run() -> None:
    run = (
        "import os, urllib.request, urllib.error\n"
        "from flows.prefect_server import keep_prefect_quiet, server_of_a_run\n"
        "keep_prefect_quiet()\nserver = server_of_a_run()\nserver.wait()\n"
        "from prefect import get_client\n"
        "with get_client(sync_client=True) as client: client.read_flows()\n"
        "try: urllib.request.urlopen(os.environ['PREFECT_API_URL'] + '/flows/count', b'{}')\n"
        "except urllib.error.HTTPError as refused: print(refused.code)\n"
    )
    done = subprocess.run([sys.executable, "-c", run], capture_output=True, text=True, cwd=ROOT, timeout=120)
    assert (done.stdout, done.returncode) == ("401\n", 0), done.stderr


def test_prefects_own_server_does_not_outlive_a_killed_run() -> None:
    imports = "import time\nfrom flows.prefect_server import server_of_a_run\n"
    assert not outlives(f"{imports}print(server_of_a_run()._process.pid, flush=True)\ntime.sleep(60)")


def of_another_version(database: Path) -> None:
    with sqlite3.connect(database) as opened:
        opened.execute("update alembic_version set version_num = 'ffffffffffff'")


def damaged(database: Path) -> None:
    database.write_text("no database")


@pytest.mark.parametrize(
    ("spoil", "said"),
    [(of_another_version, "Can't locate revision identified by"), (damaged, "file is not a database")],
)
def test_a_server_that_does_not_start_says_why_and_where_its_database_is(
    spoil: Callable[[Path], None], said: str, tmp_path: Path
) -> None:
    """Its last line is that it did not start; a database of another version of Prefect is in many a home."""
    home = with_database(tmp_path / "home")
    spoil(tmp_path / "home" / "prefect.db")
    done = fer_run(home)
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1), done.stderr
    assert said in done.stderr
    assert f"its database in {home}: see that there is room, set PREFECT_HOME to another folder" in done.stderr


def test_a_server_that_fails_is_told_in_a_line(tmp_path: Path) -> None:
    """As one whose disk is full."""

    class Failing(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            known = {"/api/health": "true", "/api/admin/version": json.dumps(version("prefect"))}.get(self.path, "")
            self.send_response(200 if known else 404)
            self.end_headers()
            self.wfile.write(known.encode())

        def do_POST(self) -> None:
            self.send_error(500)

        def log_message(self, *arguments: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Failing) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/api"
        done = fer_run(str(tmp_path), PREFECT_API_URL=url)
        server.shutdown()
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: Prefect's server answers 500 to {url}/"), done.stderr
    assert done.stderr.endswith("; its log says why\n")
    assert len(done.stderr.splitlines()) == 1


def fer_run(home: str, **more: str) -> "subprocess.CompletedProcess[str]":
    """`fer run` on drawn faces, with Prefect's folder at `home`."""
    fer = [sys.executable, "-c", "from flows.cli import main; main()", "run", "demo", "--artifacts", f"{home}/made"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT")}
    return subprocess.run(
        fer,
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env=environment | {"PREFECT_HOME": home} | more,
        timeout=120,
    )


def outlives(program: str, *told: str) -> bool:
    """Tell whether the process whose number a program prints lives on, five seconds after the program was killed."""
    command = [sys.executable, "-c", program, *told]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, cwd=ROOT) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        assert alive(child)
        parent.kill()
    deadline = time.monotonic() + 5
    while alive(child) and time.monotonic() < deadline:
        time.sleep(0.05)
    return alive(child)


def alive(process: int) -> bool:
    """Tell whether it runs; a zombie that nobody has waited for does not."""
    try:
        os.kill(process, 0)
        return "\nState:\tZ" not in Path(f"/proc/{process}/status").read_text()
    except OSError:
        return False
