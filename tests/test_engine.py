"""Containers of steps: what they cannot do, asserted from inside; and how orphans are told from those at work."""

import os
import subprocess
import sys
from pathlib import Path

import docker
import pytest

from fer_core.errors import ExperimentError
from fer_core.exit_codes import ExitCode
from flows import containers
from flows.containers import Containers
from flows.elsewhere import runner_for
from flows.events import Event, Note
from flows.runner import StepCommand, StepFailed
from flows.study import open_study
from openface.docker_engine import (
    OWNER,
    PROCESS,
    ContainerSpec,
    create,
    ran_out_of_memory,
    remove,
    remove_orphans,
    wait_for,
)
from openface.docker_engine import (
    engine as connection,
)
from openface.errors import EngineAway, EngineRefused

pytestmark = pytest.mark.engine
BASE = "debian:bookworm-slim"

PROBE = r"""
set -u
[ "$(id -u)" != 0 ] || echo "runs as root"
grep -q "^CapEff:	0000000000000000$" /proc/self/status || echo "has capabilities"
grep -q "^CapBnd:	0000000000000000$" /proc/self/status || echo "could have capabilities"
grep -q "^NoNewPrivs:	1$" /proc/self/status || echo "may gain privileges"
touch /written 2>/dev/null && echo "root can be written"
touch /usr/written 2>/dev/null && echo "/usr can be written"
touch /in/written 2>/dev/null && echo "input can be written"
touch /out/written || echo "output cannot be written"
touch /tmp/written || echo "/tmp cannot be written"
[ "$(ls /sys/class/net)" = lo ] || echo "has a network: $(ls /sys/class/net)"
[ ! -e /var/run/docker.sock ] || echo "sees the engine's socket"
cgroup=/sys/fs/cgroup
limit() { cat "$cgroup/$1" 2>/dev/null || cat "$cgroup/$2" 2>/dev/null; }
[ "$(limit memory.max memory/memory.limit_in_bytes)" = 268435456 ] || echo "memory is not limited"
[ "$(limit pids.max pids/pids.max)" = 512 ] || echo "processes are not limited"
case "$(limit cpu.max cpu/cpu.cfs_quota_us)" in max*|-1) echo "cores are not limited" ;; esac
[ -f /in/picture ] || echo "input is not there"
echo looked
"""


@pytest.fixture
def folders(tmp_path: Path) -> dict[str, Path]:
    made = {"/in": tmp_path / "in", "/out": tmp_path / "out"}
    for folder in made.values():
        folder.mkdir()
    (made["/in"] / "picture").write_text("x")
    os.chown(made["/out"], 4321, 4321)
    return made


def test_a_step_is_given_nothing_but_its_folders(engine: docker.DockerClient, folders: dict[str, Path]) -> None:
    read, write = {"/in": folders["/in"]}, {"/out": folders["/out"]}
    container = create(engine, ContainerSpec(BASE, ["sh", "-c", PROBE], read, write, memory=256 << 20))
    try:
        container.start()
        assert wait_for(container) == 0
        assert container.logs().decode().split("\n") == ["looked", ""]
    finally:
        remove(container)
    assert (folders["/out"] / "written").stat().st_uid == 4321  # Whoever owns the folder, owns what is made in it.


def test_memory_beyond_the_limit_is_known_for_what_it_is(engine: docker.DockerClient) -> None:
    hoards = "x=$(head -c 300m /dev/zero | tr '\\0' x); echo done"
    container = create(engine, ContainerSpec(BASE, ["bash", "-c", hoards], memory=64 << 20))
    try:
        container.start()
        assert wait_for(container) != 0
        assert ran_out_of_memory(container)
    finally:
        remove(container)


def test_what_does_not_end_in_time_is_told_from_what_ends(engine: docker.DockerClient) -> None:
    container = create(engine, ContainerSpec(BASE, ["sleep", "60"]))
    try:
        container.start()
        assert wait_for(container, seconds=1.0) is None
    finally:
        remove(container)


def test_only_containers_of_dead_processes_are_orphans(engine: docker.DockerClient) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    mine = create(engine, ContainerSpec(BASE, ["sleep", "60"]))
    orphan = create(engine, ContainerSpec(BASE, ["sleep", "60"], labels={PROCESS: str(dead.pid)}))
    others = create(
        engine, ContainerSpec(BASE, ["sleep", "60"], labels={OWNER: "another-machine", PROCESS: str(dead.pid)})
    )
    try:
        assert remove_orphans(engine) == 1
        assert {mine.id, others.id} <= {c.id for c in engine.containers.list(all=True)}
        with pytest.raises(docker.errors.NotFound):
            engine.containers.get(str(orphan.id))
    finally:
        for container in (mine, orphan, others):
            remove(container)


def test_an_image_that_is_not_there_is_named(engine: docker.DockerClient) -> None:
    with pytest.raises(EngineRefused, match=r"fer-nothing:0: no such image; build it with `docker compose build`"):
        create(engine, ContainerSpec("fer-nothing:0", []))
    with pytest.raises(EngineRefused, match=r"fer-openface:0: no such image; build it with `docker compose build open"):
        create(engine, ContainerSpec("fer-openface:0", []))


def test_cuda_without_a_gpu_is_told_at_once(
    trainer_image: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FER_TRAINER_IMAGE", trainer_image)
    study = open_study("demo", None, None, None, ["run.device=cuda"], str(tmp_path))
    with connection() as client:
        if "nvidia" in client.info()["Runtimes"]:
            pytest.skip("this engine has a GPU")
    with pytest.raises(ExperimentError, match=r"run\.device = cuda: the container engine has no GPU to give"):
        runner_for(study)


def test_an_engine_that_is_away_is_asked_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trainer_image: str
) -> None:
    """It answers at the third try, as after a restart."""
    monkeypatch.setattr("flows.containers.RETRY_DELAYS", [0.0, 0.0, 0.0])
    monkeypatch.setenv("FER_TRAINER_IMAGE", trainer_image)
    tries: list[str] = []
    examined = containers._examined

    def away_at_first(image: str) -> tuple[bool, int, int]:
        tries.append(image)
        if len(tries) < 3:
            raise EngineAway("no container engine")
        return examined(image)

    monkeypatch.setattr(containers, "_examined", away_at_first)
    assert isinstance(runner_for(open_study("demo", None, None, None, (), str(tmp_path))), Containers)
    assert len(tries) == 3
    monkeypatch.setenv("FER_DOCKER_HOST", f"unix://{tmp_path}/no.sock")
    monkeypatch.setattr(containers, "_examined", examined)
    with pytest.raises(ExperimentError, match="fer doctor"):
        runner_for(open_study("demo", None, None, None, (), str(tmp_path)))


def run(image: str, command: StepCommand, memory: int = 2 << 30) -> list[Event]:
    events: list[Event] = []
    with Containers(image, memory, 2) as runner:
        runner(command, events.append)
    return events


def test_a_step_runs_in_the_trainer_image_as_who_owns_the_folder(trainer_image: str, tmp_path: Path) -> None:
    os.chown(tmp_path, 1234, 1234)
    out = tmp_path / "prepare" / "made"
    out.parent.mkdir()
    os.chown(out.parent, 1234, 1234)
    settings = ("dataset.count=80", "dataset.image_size=48")
    events = run(trainer_image, StepCommand("prepare", "demo", settings, (), out))
    assert Note(str(out)) in events
    assert {file.stat().st_uid for file in (out, *out.rglob("*"))} == {1234}


def test_a_step_can_write_its_own_folder_and_nothing_beside_it(
    engine: docker.DockerClient, trainer_image: str, tmp_path: Path
) -> None:
    finished = tmp_path / "prepare" / "finished"
    finished.mkdir(parents=True)
    (finished / "images.npy").write_text("x")
    os.chown(tmp_path / "prepare", 1234, 1234)
    runner = Containers(trainer_image, 1 << 30, 2)
    command = StepCommand("prepare", "demo", (), (), tmp_path / "prepare" / "mine")
    room = containers._make_room(command)
    container = create(engine, runner._spec(command, room, ""))
    written = {mount["Source"] for mount in container.attrs["Mounts"] if mount["RW"]}
    container.remove()
    assert written == {str(tmp_path / "prepare" / "mine.unfinished")}


def test_what_is_in_the_way_of_a_step_is_named(trainer_image: str, tmp_path: Path) -> None:
    (tmp_path / "prepare").mkdir()
    (tmp_path / "prepare" / "made.unfinished").write_text("in the way")
    (tmp_path / "prepare" / "holidays").mkdir()
    (tmp_path / "prepare" / "holidays" / "beach.jpg").touch()
    for name, told in (("made", "made.unfinished: File exists"), ("holidays", "holds something that no step made")):
        with pytest.raises(StepFailed, match=told) as failed:
            run(trainer_image, StepCommand("prepare", "demo", (), (), tmp_path / "prepare" / name))
        assert failed.value.exit_code == ExitCode.MISTAKE
    assert (tmp_path / "prepare" / "holidays" / "beach.jpg").exists()


def test_a_killed_container_leaves_what_the_next_goes_on_from_and_no_artifact(
    trainer_image: str, tmp_path: Path
) -> None:
    """The step was at its last, its manifest written, when the runner died before it could rename the folder."""
    command = StepCommand(
        "prepare", "demo", ("dataset.count=80", "dataset.image_size=48"), (), tmp_path / "prepare" / "made"
    )
    run(trainer_image, command)
    made = {file.name: file.stat().st_mtime_ns for file in command.out.iterdir()}
    command.out.rename(tmp_path / "prepare" / "made.unfinished")
    run(trainer_image, command)
    assert {file.name: file.stat().st_mtime_ns for file in command.out.iterdir()} == made


def test_a_mistake_is_told_in_the_steps_own_words(trainer_image: str, tmp_path: Path) -> None:
    with pytest.raises(StepFailed) as failed:
        run(
            trainer_image, StepCommand("prepare", "demo", ("dataset.source=folder",), (), tmp_path / "prepare" / "made")
        )
    assert failed.value.exit_code == ExitCode.MISTAKE
    assert "--data" in failed.value.message


def test_a_step_that_takes_too_much_memory_is_known_for_it(trainer_image: str, tmp_path: Path) -> None:
    with pytest.raises(StepFailed, match="killed for taking more than 32 MB of memory") as failed:
        run(trainer_image, StepCommand("prepare", "demo", (), (), tmp_path / "prepare" / "made"), memory=32 << 20)
    assert failed.value.out_of_memory


def test_an_engine_that_is_away_may_come_back(
    trainer_image: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FER_DOCKER_HOST", f"unix://{tmp_path}/no.sock")
    with pytest.raises(StepFailed, match="no container engine at") as failed:
        run(trainer_image, StepCommand("prepare", "demo", (), (), tmp_path / "prepare" / "made"))
    assert failed.value.may_pass


def test_what_is_stopped_leaves_no_container(engine: docker.DockerClient, trainer_image: str, tmp_path: Path) -> None:
    code = f"""
import sys, threading, time
from pathlib import Path
from flows.containers import Containers
from flows.runner import StepCommand, StepFailed
command = StepCommand("prepare", "demo", ("dataset.count=200000",), (), Path({str(tmp_path / "prepare" / "made")!r}))
with Containers({trainer_image!r}, 2 << 30, 2) as runner:
    worker = threading.Thread(target=lambda: runner(command, lambda event: print("event", flush=True)))
    worker.start()
    sys.stdin.read(1)
"""
    process = subprocess.Popen(
        [sys.executable, "-W", "error", "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"event\n"
    label: dict[str, str | list[str] | bool] = {"label": f"{PROCESS}={process.pid}"}
    assert len(engine.containers.list(filters=label)) == 1
    _, errors = process.communicate(b"x", timeout=20)
    assert not engine.containers.list(all=True, filters=label)
    assert b"StepFailed: prepare: stopped" in errors
