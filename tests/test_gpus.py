"""One GPU a step, shown without one: what the driver's tools print, what a step is given, who waits."""

import json
import os
import signal
import socket
import socketserver
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
from helpers.machines import wait_until

from fer_core.errors import ExperimentError
from flows.containers import runner_here
from flows.gpus import GpuPool, locks_folder, usable_gpus
from flows.runner import StepCommand, Subprocesses
from flows.steps_worker import end_earlier_life
from flows.study import open_study
from openface.docker_engine import OWNER, PROCESS, ContainerSpec, create, engine, remove_orphans
from openface.machine import gpus_in

TWO = """GPU 0: NVIDIA H100 80GB HBM3 (UUID: GPU-aaaa-0)
GPU 1: NVIDIA H100 80GB HBM3 (UUID: GPU-bbbb-1)
"""
DIVIDED = """GPU 0: NVIDIA A100-SXM4-40GB (UUID: GPU-aaaa-0)
  MIG 3g.20gb     Device  0: (UUID: MIG-cccc-0)
  MIG 2g.10gb     Device  1: (UUID: MIG-dddd-1)
GPU 1: NVIDIA A100-SXM4-40GB (UUID: GPU-bbbb-1)
"""


@pytest.fixture
def two_gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine on which `nvidia-smi -L` prints two."""
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / "nvidia-smi").write_text(f"#!/bin/sh\ncat <<'END'\n{TWO}END\n")
    (tools / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}:{os.environ['PATH']}")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    for name in ("CUDA_VISIBLE_DEVICES", "FER_GPUS"):
        monkeypatch.delenv(name, raising=False)


def training(folder: Path, name: str, uses_gpu: bool = True) -> StepCommand:
    return StepCommand("train-ldg", "demo", (), (), folder / name, uses_gpu=uses_gpu)


def test_whole_gpus_and_parts_are_read_from_the_drivers_list() -> None:
    first, second, third, fourth = ("GPU-aaaa-0",), ("GPU-bbbb-1",), ("MIG-cccc-0",), ("MIG-dddd-1",)
    assert gpus_in(TWO) == {"0": first, "GPU-aaaa-0": first, "1": second, "GPU-bbbb-1": second}
    parts = {"0:0": third, "MIG-cccc-0": third, "0:1": fourth, "MIG-dddd-1": fourth}
    whole = {"0": third + fourth, "GPU-aaaa-0": third + fourth}
    assert gpus_in(DIVIDED) == {**whole, **parts, "1": second, "GPU-bbbb-1": second}
    assert gpus_in("No devices were found\n") == {}


@pytest.mark.usefixtures("two_gpus")
def test_fer_gpus_means_a_divided_gpus_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tools" / "nvidia-smi").write_text(f"#!/bin/sh\ncat <<'END'\n{DIVIDED}END\n")
    parts = ("MIG-cccc-0", "MIG-dddd-1")
    assert usable_gpus() == (*parts, "GPU-bbbb-1")
    for wanted, chosen in {
        "0": parts,
        "GPU-aaaa-0": parts,
        "0:1": parts[1:],
        "1,MIG-cccc-0": ("GPU-bbbb-1", parts[0]),
    }.items():
        monkeypatch.setenv("FER_GPUS", wanted)
        assert usable_gpus() == chosen
    monkeypatch.setenv("FER_GPUS", "MIG-zzzz-0")
    with pytest.raises(ExperimentError, match=r"there are: 0 \(MIG-cccc-0, MIG-dddd-1\), 1 \(GPU-bbbb-1\)"):
        usable_gpus()


def test_parts_are_taken_at_their_word_where_only_the_driver_tells(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a container, which has no `nvidia-smi`."""
    (tmp_path / "0000:01:00.0").mkdir()
    (tmp_path / "0000:01:00.0" / "information").write_text("Model: A100\nGPU UUID: \t GPU-aaaa-0\n")
    monkeypatch.setattr("openface.machine._DRIVERS_GPUS", tmp_path)
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    for wanted, chosen in {"": "GPU-aaaa-0", "0": "GPU-aaaa-0", "MIG-cccc-0": "MIG-cccc-0"}.items():
        monkeypatch.setenv("FER_GPUS", wanted)
        assert usable_gpus() == (chosen,)
    monkeypatch.setenv("FER_GPUS", "GPU-zzzz")
    with pytest.raises(ExperimentError, match=r"there are: 0 \(GPU-aaaa-0\)"):
        usable_gpus()


@pytest.mark.usefixtures("two_gpus")
def test_fer_gpus_restricts_by_number_and_by_uuid(monkeypatch: pytest.MonkeyPatch) -> None:
    assert usable_gpus() == ("GPU-aaaa-0", "GPU-bbbb-1")
    for wanted in ("1", "GPU-bbbb-1", " 1, GPU-bbbb-1 "):
        monkeypatch.setenv("FER_GPUS", wanted)
        assert usable_gpus() == ("GPU-bbbb-1",)
    for wanted in ("2", "GPU-zzzz", ",", "all of them"):
        monkeypatch.setenv("FER_GPUS", wanted)
        with pytest.raises(ExperimentError, match=r"no such GPU here; there are: 0 \(GPU-aaaa-0\), 1 \(GPU-bbbb-1\)"):
            usable_gpus()


@pytest.mark.usefixtures("two_gpus")
def test_what_the_environment_shows_of_the_gpus_restricts_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-bbbb-1")
    assert usable_gpus() == ("GPU-bbbb-1",)
    for hidden in ("", "-1"):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", hidden)
        assert usable_gpus() == ()


@pytest.mark.usefixtures("two_gpus")
@pytest.mark.parametrize(
    ("visible", "usable"),
    [
        ("0", ("GPU-aaaa-0",)),
        ("1, 0", ("GPU-bbbb-1", "GPU-aaaa-0")),
        ("GPU-bbbb", ("GPU-bbbb-1",)),
        ("GPU-", ()),
        ("0,-1,1", ("GPU-aaaa-0",)),
        ("7", ()),
        ("NoDevFiles", ()),
    ],
)
def test_what_the_environment_shows_is_called_as_the_driver_calls_it(
    visible: str, usable: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a run that has the variable and one that has not would both lend the same GPU."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert usable_gpus() == usable


@pytest.mark.parametrize(
    ("visible", "usable"), [("0,1", ("0", "1")), ("GPU-aaaa", ("GPU-aaaa",)), ("NoDevFiles", ()), ("none", ())]
)
def test_without_a_drivers_names_what_the_environment_shows_is_taken_at_its_word(
    visible: str, usable: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr("openface.machine._DRIVERS_GPUS", Path("/nowhere"))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    monkeypatch.delenv("FER_GPUS", raising=False)
    assert usable_gpus() == usable


@pytest.mark.usefixtures("two_gpus")
@pytest.mark.parametrize(
    ("visible", "wanted", "usable"),
    [
        (None, "all", ("GPU-aaaa-0", "GPU-bbbb-1")),
        ("1", "all", ("GPU-bbbb-1",)),
        ("1,0", "1", ("GPU-bbbb-1",)),
        ("1", "GPU-bbbb-1", ("GPU-bbbb-1",)),
        ("1", "0", ("GPU-bbbb-1",)),
    ],
)
def test_fer_gpus_chooses_among_what_the_environment_shows(
    visible: str | None, wanted: str, usable: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    monkeypatch.setenv("FER_GPUS", wanted)
    assert usable_gpus() == usable


def test_two_steps_get_a_gpu_each_and_a_third_waits(tmp_path: Path) -> None:
    pool, stopped = GpuPool(("a", "b"), 1, tmp_path), threading.Event()
    waited = list[str | None]()

    def third() -> None:
        with pool.lent(stopped) as gpu:
            waited.append(gpu)

    with pool.lent(stopped) as second:
        with pool.lent(stopped) as first:
            assert {first, second} == {"a", "b"}
            waiting = threading.Thread(target=third)
            waiting.start()
            waiting.join(1.5)
            assert not waited
        waiting.join(10)
        assert waited == [first]


def test_several_steps_on_each_gpu_fill_the_others_first(tmp_path: Path) -> None:
    pool, stopped = GpuPool(("a", "b"), 2, tmp_path), threading.Event()
    with ExitStack() as held:
        assert [held.enter_context(pool.lent(stopped)) for _ in range(4)] == ["a", "b", "a", "b"]
        stopped.set()
        assert held.enter_context(pool.lent(stopped)) is None


@pytest.mark.usefixtures("two_gpus")
def test_runs_of_several_users_share_the_gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of them would else lend all; what one's umask keeps from the others, they could not lock."""
    monkeypatch.delenv("FER_INSIDE", raising=False)
    folder = locks_folder(tmp_path / "artifacts")
    monkeypatch.setattr("os.getuid", lambda: 4711)
    assert locks_folder(tmp_path / "others") == folder
    before = os.umask(0o077)
    try:
        with GpuPool(usable_gpus(), 1, folder).lent(threading.Event()) as gpu:
            assert [path.name for path in folder.iterdir()] == [f"{gpu}.0"]
    finally:
        os.umask(before)
    assert folder.stat().st_mode & 0o7777 == 0o1777
    assert (folder / "GPU-aaaa-0.0").stat().st_mode & 0o777 == 0o666
    monkeypatch.setenv("FER_INSIDE", "1")
    assert locks_folder(tmp_path / "artifacts") == tmp_path / "artifacts" / ".gpus"


def test_runs_share_the_gpus_and_a_killed_one_lets_go(tmp_path: Path) -> None:
    program = (
        "import sys, threading, time; from pathlib import Path; from flows.gpus import GpuPool\n"
        f"with GpuPool(('a',), 1, Path({str(tmp_path)!r})).lent(threading.Event()) as gpu:\n"
        "    print(gpu, flush=True); time.sleep(600)"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "a\n"
        stopped = threading.Event()
        timer = threading.Timer(2, stopped.set)
        timer.start()
        with GpuPool(("a",), 1, tmp_path).lent(stopped) as gpu:
            assert gpu is None
        other.send_signal(signal.SIGKILL)
    with GpuPool(("a",), 1, tmp_path).lent(threading.Event()) as gpu:
        assert gpu == "a"


@pytest.mark.usefixtures("two_gpus")
def test_a_process_sees_its_own_gpu_alone(tmp_path: Path) -> None:
    program = "import os; print(os.environ.get('CUDA_VISIBLE_DEVICES'))"
    seen = list[str]()
    pool = GpuPool(usable_gpus(), 1, tmp_path / "locks")
    with Subprocesses((sys.executable, "-c", program), pool) as run:
        for uses_gpu in (True, False):
            run(training(tmp_path, "ldg", uses_gpu), lambda event: seen.append(str(getattr(event, "text", event))))
    assert seen == ["GPU-aaaa-0", "None"]


@pytest.mark.usefixtures("two_gpus")
def test_as_many_steps_run_at_a_time_as_there_are_gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def jobs(*settings: str) -> int:
        return open_study("demo", None, None, None, ("run.jobs=0", *settings), str(tmp_path)).jobs

    assert jobs() == 2
    assert jobs("run.steps_per_gpu=3") == 6
    assert jobs("run.jobs=1") == 1
    monkeypatch.setenv("FER_GPUS", "0")
    assert jobs() == 1
    monkeypatch.setenv("FER_GPUS", "7")
    with pytest.raises(ExperimentError, match="no such GPU here"):
        runner_here(open_study("demo", None, None, None, (), str(tmp_path)))


class Recorder(BaseHTTPRequestHandler):
    """A container engine that has every image, and keeps what it is asked to create."""

    created: list[dict[str, Any]]
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        told = {"ApiVersion": "1.41", "Version": "20.10.24", "Id": "i", "CPUCfsQuota": True, "Config": {}}
        self._answer(200, told)

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if "/containers/create" in self.path:
            type(self).created.append(asked)
        self._answer(201, {"Id": "c", "Warnings": []})

    def _answer(self, status: int, body: Any) -> None:
        content = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *arguments: object) -> None: ...

    def address_string(self) -> str:
        return "here"


class EarlierLife(Recorder):
    """One that still has a container of an earlier life of this one, whose process had the number of today's."""

    removed: list[str]

    def do_GET(self) -> None:
        labels = {OWNER: socket.gethostname(), PROCESS: str(os.getpid())}
        if "/containers/json" in self.path:
            self._answer(200, [{"Id": "left"}])
        elif "/containers/left/json" in self.path:
            self._answer(200, {"Id": "left", "Config": {"Labels": labels}})
        else:
            super().do_GET()

    def do_DELETE(self) -> None:
        type(self).removed.append(self.path.partition("?")[0].rpartition("/")[2])
        self._answer(200, {})


@contextmanager
def served(engine: type[Recorder], folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with socketserver.ThreadingUnixStreamServer(str(folder / "engine"), engine) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        monkeypatch.setenv("FER_DOCKER_HOST", f"unix://{folder}/engine")
        yield
        server.shutdown()
        thread.join()


@pytest.fixture
def created(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[dict[str, Any]]]:
    """What the engine is asked to create."""
    Recorder.created = []
    with served(Recorder, tmp_path, monkeypatch):
        yield Recorder.created


def test_a_worker_that_starts_again_takes_away_what_it_left_on_a_gpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    EarlierLife.removed = []
    with served(EarlierLife, tmp_path, monkeypatch):
        monkeypatch.delenv("FER_INSIDE", raising=False)
        end_earlier_life()
        monkeypatch.setenv("FER_INSIDE", "1")
        with engine() as client:
            assert remove_orphans(client) == 0, "it looks like one of today's"
        assert EarlierLife.removed == []
        end_earlier_life()
    assert EarlierLife.removed == ["left"]


def test_the_engine_is_asked_for_that_gpu_alone(created: list[dict[str, Any]]) -> None:
    with engine() as client:
        for gpu in ("GPU-aaaa-0", "MIG-cccc-0", "all", ""):
            create(client, ContainerSpec("image", ["train-ldg"], gpu=gpu))
    requests = [asked["HostConfig"].get("DeviceRequests") for asked in created]
    named = [[{**_ASKED, "Count": 0, "DeviceIDs": [gpu]}] for gpu in ("GPU-aaaa-0", "MIG-cccc-0")]
    assert requests == [*named, [{**_ASKED, "Count": -1, "DeviceIDs": []}], None]


_ASKED = {"Driver": "", "Capabilities": [["gpu"]], "Options": {}}


def test_a_step_that_waits_for_a_gpu_can_be_stopped(tmp_path: Path) -> None:
    pool = GpuPool(("a",), 1, tmp_path / "locks")
    failures = list[BaseException]()

    def run() -> None:
        try:
            runner(training(tmp_path, "ldg"), lambda event: None)
        except BaseException as failure:
            failures.append(failure)

    with pool.lent(threading.Event()), Subprocesses(("true",), pool) as runner:
        waiting = threading.Thread(target=run)
        waiting.start()
        waiting.join(1)
        assert waiting.is_alive()
        runner.stop()
        wait_until(lambda: not waiting.is_alive(), 10)
    assert "stopped before it began" in str(failures[0])
