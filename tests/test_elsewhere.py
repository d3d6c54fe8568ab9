"""Steps on other machines: real workers, a real server, and what they must survive."""

import hashlib
import json
import logging
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from pathlib import Path
from uuid import uuid4

import httpx
import pandas as pd
import pytest
import torch
from helpers.machines import Lab, Machine, lab_in, machines, wait_until, wrong_clock
from helpers.measured import seconds_of, tell_measured
from helpers.openface_images import picture
from helpers.prefect_home import with_database
from helpers.s3 import s3_server, way_to
from prefect import flow
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.actions import WorkPoolUpdate
from prefect.client.schemas.filters import FlowFilter, FlowFilterName
from prefect.client.schemas.objects import FlowRun
from prefect.settings import PREFECT_API_URL, PREFECT_CLIENT_MAX_RETRIES, temporary_settings
from prefect.states import Cancelling, Running

from fer_core.artifacts import make_artifact, open_artifact
from fer_core.errors import ArtifactError, ExperimentError
from fer_core.exit_codes import ExitCode
from fer_core.models.architectures import build
from flows.cache import clear_copies
from flows.containers import Containers, runner_here
from flows.elsewhere import Elsewhere, SentRuns, _Sent, _stays
from flows.events import Event, Metrics, Note, Progress, event_line, parse_event
from flows.lease import machine_name
from flows.runner import StepCommand, StepFailed, Subprocesses
from flows.sent_step import SentStep, _input, _runner, _study, _teller, _telling_that_it_fetches, code_version, outcome
from flows.shared_place import StoreAway, StoreError
from flows.steps_worker import STEPS_POOL, make_steps_pool, notices, queues_here
from flows.store import Store
from flows.store_command import unused_rooms
from flows.study import open_study
from openface.machine import usable_cores

pytestmark = pytest.mark.machines
TINY = str(Path(__file__).parent / "tiny.toml")
LONGER = ("--set", "ldg.epochs=25")
"""Trainings of some twenty seconds, so that there is a middle to be killed in."""


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    (tmp_path / "store").mkdir()
    with lab_in(tmp_path, str(tmp_path / "store")) as lab:
        yield lab
    for log in sorted(tmp_path.glob("*.log")):
        print(f"--- {log.name}\n{log.read_text()[-3000:]}")


def end_of(run: "subprocess.Popen[str]", seconds: float = 600) -> str:
    said, _ = run.communicate(timeout=seconds)
    assert run.returncode == 0, said
    return said


def line_with(words: str, run: "subprocess.Popen[str]") -> str:
    """The first line with these words, waited for."""
    assert run.stdout is not None
    said = []
    for line in run.stdout:
        said.append(line)
        if words in line:
            return line
    raise AssertionError("".join(said))


def table_in(artifacts: Path) -> dict[str, object]:
    (report,) = artifacts.glob("report/*/results.json")
    table: dict[str, object] = json.loads(report.read_text())["table"]
    return table


def epochs_pushed(store: Store, room: str) -> bool:
    """Tell whether a resume state in the store holds an epoch; the first one may have been taken before its end."""
    states = [name for name in store.names_in(room) if name.startswith("resume-") and name.endswith(".json")]
    return any("resume.pt" in json.loads(store.read(f"{room}/{name}") or b"{}") for name in states)


def weights_in(artifacts: Path) -> dict[str, bytes]:
    return {path.parent.name: path.read_bytes() for path in sorted(artifacts.glob("*/*/selected.safetensors"))}


def test_a_machine_that_dies_in_mid_training_is_gone_on_for(lab: Lab) -> None:
    """The other takes the training over within two minutes, and the weights are those of an undisturbed run.

    The clock of the one is five minutes slow, that of the other five minutes fast.
    """
    with machines(lab, "left", "right", clocks=[-300, 300]) as (left, right):
        run = lab.run(TINY, *LONGER, "--set", "run.jobs=2")
        wait_until(left.trains, 120)
        trained = next(left.artifacts.glob("train-ldg/*.unfinished"))
        fingerprint = trained.name.removesuffix(".unfinished")
        wait_until(lambda: epochs_pushed(Store(lab.store), f"train-ldg/{fingerprint}"), 60)
        left.kill()
        # Beside it, since most of what follows is waiting.
        undisturbed = lab.run(TINY, *LONGER, "--set", "run.jobs=2", head="alone", FER_STORE="")
        # It takes one step at a time, and has a training of its own.
        wait_until(lambda: any(right.artifacts.glob("train-ldg/*/model.json")), 300)
        free = time.monotonic()
        wait_until(lambda: any(right.artifacts.glob(f"train-ldg/{fingerprint}*")), 120)
        tell_measured(f"a dead machine's training is taken over {time.monotonic() - free:.0f} s after another is free")
        said = end_of(run)
    made = right.artifacts / "train-ldg" / fingerprint
    fast = open_artifact(made).made().timestamp() - (made / "model.json").stat().st_mtime
    assert fast == pytest.approx(300, abs=30)  # The clock was indeed wrong.
    assert "its machine gives no sign any more" in said
    assert "goes on after epoch" in said
    end_of(undisturbed)
    head, alone = (lab.folder / name / "artifacts" for name in ("head", "alone"))
    assert weights_in(head) == weights_in(alone)
    assert len(weights_in(head)) == 5
    assert table_in(head) == table_in(alone)
    # No worker is left that could make anything.
    heads = iter(("another", "one more"))
    took = seconds_of(lambda: end_of(lab.run(TINY, *LONGER, "--set", "run.jobs=2", head=next(heads)), 120), 30)
    tell_measured(f"a finished run, asked for again from a machine that has nothing: {took:.0f} s")
    assert took <= 30
    assert table_in(lab.folder / "another" / "artifacts") == table_in(head)


def test_a_machine_that_sleeps_past_its_leases_end_changes_nothing_when_it_wakes(lab: Lab) -> None:
    store = Store(lab.store)
    with machines(lab, "left", "right") as (left, right):
        run = lab.run_part("generators", TINY, "ldg.epochs=25", "run.jobs=2")
        wait_until(left.trains, 120)
        slept = next(left.artifacts.glob("train-ldg/*.unfinished")).name.removesuffix(".unfinished")
        left.sleep()
        wait_until(lambda: store.has("train-ldg", slept), 200)
        published = store.read(f"train-ldg/{slept}/published.json")
        left.wake()
        end_of(run)
        mine = left.artifacts / "train-ldg" / slept
        # It notices by its lease, or trains to the end and comes second.
        wait_until(lambda: (mine / "manifest.json").exists() or "takes no step for" in left.log.read_text(), 60)
        assert store.read(f"train-ldg/{slept}/published.json") == published
        assert len([name for name in store.names_in(f"train-ldg/{slept}") if name.startswith("upload-")]) == 1
        rights = open_artifact(right.artifacts / "train-ldg" / slept).made()

        def lefts_is_gone_or_the_stores() -> bool:
            # Looked at while it is put out of the way, it is no artifact.
            with suppress(ArtifactError):
                return open_artifact(mine).made() == rights
            return not mine.exists()

        wait_until(lefts_is_gone_or_the_stores, 30)
    counts = store.fetch("train-ldg", slept, lab.folder / "looked-at")
    assert counts is not None
    assert counts.made() == rights


def test_steps_go_over_an_s3_server(tmp_path: Path) -> None:
    with s3_server(tmp_path) as address:
        assert httpx.put(f"{address}/lab").status_code == 200
        way = way_to(address)
        with lab_in(tmp_path, "s3://lab/fer", way) as lab, machines(lab, "left") as (left,):
            said = end_of(lab.run_part("graph", TINY))
            assert any(left.artifacts.glob("graph/*/graph.npz"))
            assert "✓ link neighbours" in said, said
            with client_of(lab) as client:
                sent = client.read_flow_runs(flow_filter=FlowFilter(name=FlowFilterName(any_=["fer-step"])))
            assert sorted(run.name for run in sent) == ["annotate action units", "link neighbours"]
            # Their links to the tasks on the run's page.
            assert all(run.parent_task_run_id is not None for run in sent)
            said = end_of(lab.run_part("graph", TINY, head="another"), 60)
            assert "= link neighbours" in said, said


@pytest.mark.engine
def test_openface_runs_on_a_machine_that_has_its_image(openface_image: str, tmp_path: Path) -> None:
    """Images lie on the head alone; the machine gets them as the dataset that the head has made of them."""
    faces, store = tmp_path / "faces", tmp_path / "store"
    store.mkdir()
    for number in range(36):
        (folder := faces / ("anger", "fear", "neutral")[number % 3]).mkdir(parents=True, exist_ok=True)
        picture(number).save(folder / f"{number}.png")
    with (
        lab_in(tmp_path, str(store), {"FER_OPENFACE_IMAGE": openface_image}) as lab,
        machines(lab, "left") as (left,),
    ):
        end_of(lab.run_part("graph", TINY, "dataset.source=folder", FER_DATA_FOLDER=str(faces)))
        (table,) = left.artifacts.glob("annotate/*/aus.parquet")
        assert pd.read_parquet(table)["status"].tolist() == ["ok"] * 36
        with client_of(lab) as client:
            sent = client.read_flow_runs(flow_filter=FlowFilter(name=FlowFilterName(any_=["fer-step"])))
        assert {run.name: run.work_queue_name for run in sent} == {
            "annotate action units": "openface",
            "link neighbours": "cpu",
        }


def test_store_and_head_may_be_away_for_a_minute_and_a_second_run_makes_nothing(lab: Lab) -> None:
    store, away = Path(lab.store), Path(lab.store).with_name("unmounted")
    with machines(lab, "left") as (left,):
        run = lab.run_part("generators", TINY, "ldg.epochs=25")
        wait_until(left.trains, 120)
        store.rename(away)
        lab.stop()
        time.sleep(60)
        lab.start()
        away.rename(store)
        end_of(run, 400)
        made = {str(path.relative_to(store)) for path in store.rglob("published.json")}
        started = time.monotonic()
        said = end_of(lab.run_part("generators", TINY, "ldg.epochs=25", head="another"), 120)
        tell_measured(f"asked again from a machine that has nothing: {time.monotonic() - started:.0f} s")
        assert "✓" not in said, said
        assert {str(path.relative_to(store)) for path in store.rglob("published.json")} == made
    head, another = (lab.folder / name / "artifacts" for name in ("head", "another"))
    assert weights_in(head) == weights_in(another)


def test_two_runs_that_want_the_same_make_it_once(lab: Lab) -> None:
    with machines(lab, "left", "right") as both:
        runs = [lab.run_part("generators", TINY, head=head) for head in ("one", "two")]
        for run in runs:
            end_of(run)
        trained = [path for machine in both for path in machine.artifacts.glob("train-ldg/*/model.json")]
        made = [json.loads(path.with_name("manifest.json").read_text())["made"] for path in trained]
    assert len({path.parent.name for path in trained}) == 2
    by_fingerprint: dict[str, set[str]] = {}
    for path, when in zip(trained, made, strict=True):
        by_fingerprint.setdefault(path.parent.name, set()).add(when)
    assert all(len(times) == 1 for times in by_fingerprint.values()), by_fingerprint


def test_weights_of_the_users_own_go_with_the_steps_that_read_them(lab: Lab, tmp_path: Path) -> None:
    """They lie on the head alone, in a folder of no worker; trained here or there, the artifacts are the same."""
    weights = tmp_path / "downloads" / "my weights.pth"
    weights.parent.mkdir()
    torch.save({"state_dict": build("resnet18", 7, 5).state_dict()}, weights)
    settings = (f'ldg.weights="{weights}"', f'distill.weights="{weights}"')
    with machines(lab, "left") as (left,):
        said = end_of(lab.run_part("generators", TINY, *settings))
        assert len(list(left.artifacts.glob("train-ldg/*/model.json"))) == 2, said
        (fetched,) = left.artifacts.glob(".files/*")
        assert fetched.read_bytes() == weights.read_bytes()
    store = Store(lab.store)
    assert unused_rooms(store, 1.0) == {}
    assert f"files/{fetched.name}" in unused_rooms(store, 0.0)
    # In another place and under another name they are the same, and what was made with them is there.
    moved = weights.rename(tmp_path / "w.pth")
    said = end_of(lab.run_part("generators", TINY, f'ldg.weights="{moved}"', head="another"), 60)
    assert "✓" not in said, said


def test_a_file_that_was_spoiled_in_the_store_is_told(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    store, file = Store(str(tmp_path / "store")), tmp_path / "w.pth"
    file.write_bytes(b"right")
    store.push_file(file, sha256 := hashlib.sha256(b"right").hexdigest())
    (kept,) = (tmp_path / "store" / "files" / sha256).glob("upload-*")
    kept.write_bytes(b"wrong")
    with pytest.raises(StoreError, match=r"holds something else than was written; delete files/[0-9a-f]{64} there"):
        store.fetch_file(sha256, tmp_path / "here")
    assert list((tmp_path / "here").iterdir()) == []
    with pytest.raises(StoreAway, match="not in the store"):
        store.fetch_file("0" * 64, tmp_path / "here")


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[Path]:
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(folder)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("only root may mount")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def test_a_machine_with_a_full_disk_takes_nothing_and_is_named(lab: Lab, tmp_path: Path) -> None:
    with small_disk(tmp_path / "full", "1m") as full, machines(lab, "left") as (left,):
        crowded = Machine(lab, "crowded", artifacts=full)
        wait_until(crowded.started, 60)
        try:
            end_of(lab.run_part("graph", TINY))
            assert "less than 1 GiB free" in crowded.log.read_text()
            assert not any(full.glob("*/*")), list(full.glob("*/*"))
        finally:
            crowded.stop()
        assert any(left.artifacts.glob("graph/*/graph.npz"))


def test_a_step_whose_machines_disk_fills_up_goes_to_another(lab: Lab, tmp_path: Path) -> None:
    with small_disk(tmp_path / "filling", "1100m") as filling:
        crowded = Machine(lab, "crowded", artifacts=filling)
        try:
            wait_until(crowded.started, 60)
            run = lab.run_part("graph", TINY)
            wait_until(lambda: "submitting flow run" in crowded.log.read_text(), 120)
            with (filling / "others").open("wb") as file:
                os.posix_fallocate(file.fileno(), 0, shutil.disk_usage(filling).free)
            assert "No space left on device; free some space there" in line_with("crowded: ", run)
            with machines(lab, "left") as (left,):
                end_of(run)
                assert any(left.artifacts.glob("graph/*/graph.npz"))
        finally:
            crowded.stop()


def test_a_queue_that_nobody_serves_is_told_and_waited_for(lab: Lab) -> None:
    run = lab.run_part("graph", TINY)
    assert "`fer doctor` tells more" in line_with("waits: no worker for steps of the queue cpu", run)
    with machines(lab, "late"):
        end_of(run)


def test_a_run_with_a_store_and_a_server_of_its_own_says_what_is_missing(tmp_path: Path) -> None:
    """Its steps would wait for ever for workers that cannot know of them."""
    (tmp_path / "store").mkdir()
    alone = {"FER_STORE": str(tmp_path / "store"), "PREFECT_HOME": with_database(tmp_path / "home")}
    done = subprocess.run(
        [str(Path(sys.executable).with_name("fer")), "run", TINY, "--artifacts", str(tmp_path / "artifacts")],
        env={name: value for name, value in os.environ.items() if name != "PREFECT_API_URL"} | alone,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 2, done.stdout + done.stderr
    assert "set PREFECT_API_URL to the one that they ask" in done.stderr


@pytest.mark.parametrize("what", ["deleted", "cancelled"])
def test_a_step_whose_run_somebody_ends_ends_with_that_line(what: str, lab: Lab) -> None:
    run = lab.run_part("graph", TINY)
    line_with("waits: no worker", run)
    with client_of(lab) as client:
        (waiting,) = steps_sent(client)
        if what == "deleted":
            client.delete_flow_run(waiting.id)
        else:
            client.set_flow_run_state(waiting.id, Cancelling())
        said, _ = run.communicate(timeout=120)
        assert run.returncode != 0
        assert f"its run was {what}" in said
        assert len(steps_sent(client)) == (what == "cancelled")


def test_the_states_of_all_steps_are_one_request(lab: Lab) -> None:
    asked: list[str] = []
    with client_of(lab, asked) as client:
        sent = [client.create_flow_run(flow(lambda: None, name="step")).id for _ in range(5)]  # type: ignore[call-overload]
        runs = SentRuns()
        for step in sent:
            runs.now(step, client)
        time.sleep(1.1)
        asked.clear()
        found = [runs.now(step, client) for step in sent]
        assert [run and run.id for run in found] == sent
        assert asked == ["/api/flow_runs/filter"]
        assert runs.seconds_between_reads() == 0
        for step in sent:
            client.set_flow_run_state(step, Running(), force=True)
        time.sleep(1.1)
        runs.now(sent[0], client)
        assert runs.seconds_between_reads() == 0.5  # Ten reads a second, for all steps that run.
        lab.stop()
        time.sleep(1.1)
        # The client would ask again for a minute.
        with temporary_settings({PREFECT_CLIENT_MAX_RETRIES: 0}):
            assert runs.now(sent[0], client) is None


@contextmanager
def client_of(lab: Lab, asked: list[str] | None = None) -> Iterator[SyncPrefectClient]:
    """A client of the lab's server that writes down what it asks for."""
    written: list[str] = [] if asked is None else asked
    hooks = {"request": [lambda request: written.append(request.url.path)]}
    with SyncPrefectClient(lab.api, httpx_settings={"event_hooks": hooks}) as client:
        yield client


def test_a_step_that_begins_while_the_heads_server_is_away_is_sent_once_it_is_back(lab: Lab, tmp_path: Path) -> None:
    head = Elsewhere(Store(lab.store), Subprocesses(), "auto")
    command = StepCommand("graph", "demo", (), (), tmp_path / "artifacts" / "graph" / "0123456789abcdef")
    with temporary_settings({PREFECT_API_URL: lab.api}), head:
        lab.stop()

        def start_and_look() -> None:
            lab.start()
            with client_of(lab) as client:
                wait_until(lambda: steps_sent(client), 60)
            head._stopped.set()

        back = threading.Timer(4, start_and_look)
        back.start()
        with pytest.raises(StepFailed, match="stopped"):
            head(command, lambda event: None)
        back.join()
    with client_of(lab) as client:
        assert len(steps_sent(client)) == 1


def test_a_step_sent_by_a_machine_whose_clock_is_fast_begins_at_once(lab: Lab) -> None:
    with machines(lab, "left"):
        end_of(lab.run_part("graph", TINY, **wrong_clock(300)), 150)


def steps_sent(client: SyncPrefectClient) -> list[FlowRun]:
    return client.read_flow_runs(flow_filter=FlowFilter(name=FlowFilterName(any_=["fer-step"])))


def test_a_pool_that_somebody_has_paused_stays_so(lab: Lab) -> None:
    """As for the time in which machines are seen to; each run and each worker makes the pool where it is missing."""
    with client_of(lab) as client:
        make_steps_pool(client)
        client.update_work_pool(STEPS_POOL, WorkPoolUpdate(is_paused=True, concurrency_limit=3))
        make_steps_pool(client)
        pool = client.read_work_pool(STEPS_POOL)
    assert (pool.is_paused, pool.concurrency_limit) == (True, 3)


def test_a_worker_of_other_code_takes_nothing_and_is_told(lab: Lab, tmp_path: Path) -> None:
    other = tmp_path / "other"
    root = Path(__file__).parent.parent
    for package in ("fer_core", "flows", "openface"):
        shutil.copytree(root / package, other / package, ignore=shutil.ignore_patterns("__pycache__"))
    with (other / "flows" / "lease.py").open("a") as file:
        file.write("# another version\n")
    with machines(lab, "old", more={"PYTHONPATH": str(other)}) as (old,):
        run = lab.run_part("graph", TINY)
        assert "update it" in line_with("waits: old has another version", run)
        assert not any(old.artifacts.glob("graph/*"))
        assert "old: has other code; update it" in doctors_lines(lab, tmp_path)
        with machines(lab, "new"):
            end_of(run)
        assert not any(old.artifacts.glob("graph/*"))


def test_a_worker_whose_store_is_away_waits_for_it(lab: Lab, tmp_path: Path) -> None:
    """The head sees the store all the while; the worker takes a step when its own mount is gone."""
    mounted = tmp_path / "mounted"
    mounted.symlink_to(lab.store)
    with machines(lab, "left", more={"FER_STORE": str(mounted)}) as (left,):
        mounted.unlink()
        run = lab.run_part("graph", TINY)
        wait_until(lambda: "submitting flow run" in left.log.read_text(), 120)
        time.sleep(15)
        mounted.symlink_to(lab.store)
        said = end_of(run)
    assert "again" not in said, said
    assert any(left.artifacts.glob("graph/*/graph.npz"))


def test_a_machine_without_its_engine_is_named_and_rests_while_another_takes_the_step(lab: Lab, tmp_path: Path) -> None:
    lacks_engine = without_engine(tmp_path) | {"FER_TRAINER_IMAGE": "fer-trainer:none"}
    with machines(lab, "unfit", more=lacks_engine) as (unfit,):
        run = lab.run_part("graph", TINY)
        line = line_with("unfit: ", run)
        assert "`fer doctor` tells more" in line
        with machines(lab, "fit") as (fit,):
            end_of(run)
        assert "takes no step for 60 s: unfit: " in unfit.log.read_text()
        assert any(fit.artifacts.glob("graph/*/graph.npz"))


def without_engine(folder: Path) -> dict[str, str]:
    return {"FER_DOCKER_HOST": f"unix://{folder}/no.sock"}


def doctors_lines(lab: Lab, folder: Path) -> str:
    """What `fer doctor` says on the head."""
    command = [str(Path(sys.executable).with_name("fer")), "doctor"]
    environment = lab.environment("head", **without_engine(folder))
    done = subprocess.run(
        command, cwd=folder, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    return done.stdout + done.stderr


def test_doctor_names_workers_and_queues_that_nobody_serves(lab: Lab, tmp_path: Path) -> None:
    another = tmp_path / "another-store"
    another.mkdir()
    nowhere = without_engine(tmp_path)

    assert "none takes steps; start one on each machine" in doctors_lines(lab, tmp_path)
    with machines(lab, "left", more=nowhere), machines(lab, "blind", more=nowhere | {"FER_STORE": str(another)}):
        said = doctors_lines(lab, tmp_path)
    assert f"left: {max(1, usable_cores() // 2)} × cpu; {usable_cores()} cores, " in said, said
    assert f"blind cpu: does not see the store {lab.store}; give it the same FER_STORE" in said
    assert "openface: no worker takes its steps" in said
    assert "cpu: no worker" not in said
    with machines(lab, "left", more=nowhere):
        (Path(lab.store) / "workers" / "theirs.json").write_text("[]", encoding="utf-8")
        said = doctors_lines(lab, tmp_path)
    assert f"{lab.store}/workers/theirs.json: not as this project writes it" in said, said


@pytest.mark.parametrize(
    "content",
    [
        "[]",
        "{",
        '{"host": "a"}',
        '{"host": "a", "code": "", "queues": ["cpu"], "cores": 1, "artifacts": "", "free": 1}',
    ],
)
def test_a_notice_that_is_none_is_named(tmp_path: Path, content: str) -> None:
    store = Store(str(tmp_path))
    store.replace("workers/theirs.json", content.encode())
    with pytest.raises(StoreError, match=r"workers/theirs\.json: not as this project writes it"):
        notices(store)


def test_a_notice_of_a_newer_version_is_read(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    told = {"host": "a", "code": "2", "queues": {"cpu": 1}, "cores": 1, "artifacts": "/x", "free": 1, "newer": [1]}
    store.replace("workers/a.json", json.dumps(told).encode())
    assert [notice.code for notice in notices(store)] == ["2"]


def test_what_is_sent_fits_a_machine_of_fewer_cores(tmp_path: Path) -> None:
    """The bits hang on the number of threads, so it does not change where the machine does."""
    (tmp_path / "store").mkdir()
    command = StepCommand("train-ldg", "demo", (), (), tmp_path / "train-ldg" / "0123456789abcdef", threads=16)
    head = Elsewhere(Store(str(tmp_path / "store")), Subprocesses(), "auto")
    assert [head._sent(command, queue).threads for queue in ("cpu", "gpu", "openface")] == [2, 16, 16]
    spec = Containers("image", 1 << 30, 8)._spec(command, tmp_path, "")
    assert (spec.cores, spec.environment["OMP_NUM_THREADS"]) == (8, "16")


def test_what_is_sent_is_the_experiment_that_the_run_began_with(tmp_path: Path) -> None:
    """Its file may be the next experiment's by then; a worker would make something else of it, and be blamed."""
    (tmp_path / "store").mkdir()
    file = tmp_path / "mine.toml"
    file.write_text(first := "[dataset]\nsource = 'sample'\n[ldg]\nepochs = 3\n")
    study = open_study(str(file), None, None, None, (), str(tmp_path / "artifacts"))
    command = study.command(study.request("prepare", ()))
    file.write_text("[dataset]\nsource = 'sample'\n[ldg]\nepochs = 5\n")
    sent = Elsewhere(Store(str(tmp_path / "store")), Subprocesses(), "auto")._sent(command, "cpu")
    assert (sent.experiment, sent.document) == ("mine.toml", first)
    with _study(sent, tmp_path) as there:
        assert there.experiment.ldg.epochs == 3


def test_what_is_sent_shares_a_machine_with_as_many_steps_as_that_takes(tmp_path: Path) -> None:
    sent = SentStep("c", "graph", "f", "demo", None, ("run.jobs=16",), (), None, 1)
    with _study(sent, tmp_path) as study:
        assert study.jobs == max(1, usable_cores() // 2)


def test_steps_that_stay_on_the_head_run_as_many_at_a_time_as_it_runs(tmp_path: Path) -> None:
    """A comparison's datasets would else be prepared all at once, each with memory of its own."""
    (tmp_path / "store").mkdir()
    commands = [StepCommand("prepare", "demo", (), (), tmp_path / "prepare" / f"{number:016x}") for number in range(6)]
    running, most = set[Path](), list[int]()

    class Preparing(Subprocesses):
        def __call__(self, command: StepCommand, on_event: Callable[[Event], None]) -> None:
            running.add(command.out)
            most.append(len(running))
            time.sleep(0.2)
            make_artifact(command.out, "prepare", command.out.name, {}, {}, lambda folder: None)
            running.remove(command.out)

    head = Elsewhere(Store(str(tmp_path / "store")), Preparing(), "auto", jobs=2)
    with ThreadPoolExecutor(6) as pool:
        for made in [pool.submit(head, command, lambda event: None) for command in commands]:
            made.result()
    assert max(most) == 2
    assert all(command.out.is_dir() for command in commands)


def test_an_openface_of_the_heads_own_runs_there_and_is_no_matter_to_other_steps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As without Docker; workers run no program that another machine names."""
    own = ("openface.binary=/opt/OpenFace/build/bin/FaceLandmarkImg",)
    out = tmp_path / "annotate" / "0123456789abcdef"
    for settings, stays in ((own, True), ((), False)):
        assert _stays(StepCommand("annotate", "demo", settings, (), out)) == stays
    monkeypatch.setenv("FER_ARTIFACTS_FOLDER", str(tmp_path))
    monkeypatch.setenv("FER_OPENFACE_IMAGE", "lab/openface:7")
    for step, refused in (("train-ldg", False), ("annotate", True)):
        sent = SentStep("c", step, "f", "demo", None, own, (), None, 1)
        with (
            pytest.raises(ExperimentError, match="no program of yours") if refused else nullcontext(),
            _study(sent, tmp_path) as study,
        ):
            assert study.experiment.openface.binary == ""


def test_a_machine_without_a_gpu_makes_what_needs_none_of_a_run_on_gpus(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flows.containers.machine_has_gpu", lambda: False)
    monkeypatch.setattr("flows.gpus.gpus_by_name", dict)
    for step, fit in (("graph", True), ("train-ldg", False)):
        sent = SentStep("c", step, "f", "demo", None, ("run.device=cuda",), (), None, 1)
        with _study(sent, tmp_path) as study, nullcontext() if fit else pytest.raises(StepFailed, match="no GPU here"):
            assert isinstance(_runner(study, step), Subprocesses)


def test_a_machine_takes_as_many_steps_on_each_gpu_as_it_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a machine with two GPUs; the run's own `run.steps_per_gpu` is for the head's."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-aaaa-0,GPU-bbbb-1")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    sent = SentStep("c", "train-ldg", "f", "demo", None, ("run.steps_per_gpu=5",), (), None, 1)
    for told, steps in (("", 2), ("1", 2), ("3", 6)):
        monkeypatch.setenv("FER_STEPS_PER_GPU", told)
        assert queues_here()["gpu"] == steps
        with _study(sent, tmp_path) as study, runner_here(study) as runner, ExitStack() as held:
            assert study.jobs == steps
            assert isinstance(runner, Subprocesses)
            assert runner._gpus
            gpus = [held.enter_context(runner._gpus.lent(threading.Event())) for _ in range(steps)]
            assert sorted(map(str, gpus)) == sorted(["GPU-aaaa-0", "GPU-bbbb-1"] * (steps // 2))
            (stopped := threading.Event()).set()
            assert held.enter_context(runner._gpus.lent(stopped)) is None


def test_an_input_is_locked_while_others_are_fetched(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    store, artifacts = Store(str(tmp_path / "store")), tmp_path / "there"
    made = make_artifact(tmp_path / "graph" / "0123456789abcdef", "graph", "0123456789abcdef", {}, {}, lambda out: None)
    store.push(made)
    with _input(store, "graph/0123456789abcdef", artifacts) as found:
        assert clear_copies(artifacts, store, 0) == []
    assert clear_copies(artifacts, store, 0) == [found.path]


def test_a_machine_that_fetches_for_long_is_alive_as_long_as_it_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A hundred machines fetch 8.7 GB each in twelve minutes, over 10 Gbit/s."""
    clock, state = [1000.0], uuid4()
    monkeypatch.setattr("time.monotonic", lambda: clock[0])
    with SyncPrefectClient("http://127.0.0.1:1/api") as client:
        room = "train-ldg/0123456789abcdef"
        sent = _Sent(client, SentRuns(), uuid4(), "gpu", Store(str(tmp_path)), room, lambda event: None)

        def died_within(seconds: int, says_so: bool) -> bool:
            for second in range(0, seconds, 5):
                clock[0] += 5
                sent._lines_read += says_so and second % 60 == 0
                if sent.died(state) is not None:
                    return True
            return False

        assert not died_within(1800, says_so=True)
        assert not died_within(500, says_so=False)
        assert died_within(200, says_so=False)


def test_a_machines_name_is_a_files_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FER_MACHINE", "lab/left")
    assert machine_name() == "lab-left"


def test_a_worker_says_that_it_fetches(monkeypatch: pytest.MonkeyPatch) -> None:
    said = list[Event]()
    monkeypatch.setattr("flows.sent_step._SECONDS_BETWEEN_WORDS", 0.05)
    monkeypatch.setenv("FER_MACHINE", "left")
    with _telling_that_it_fetches(said.append):
        wait_until(lambda: len(said) > 1, 10)
    assert set(said) == {Note("left is still fetching what it reads")}


def test_a_training_of_ten_hours_tells_its_progress_some_hundred_times(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Each time is a row in Prefect's database for good, and a hundred machines would add two million a day."""
    clock = [1000.0]
    monkeypatch.setattr("time.monotonic", lambda: clock[0])
    monkeypatch.setattr("flows.sent_step.get_run_logger", lambda: logging.getLogger("step"))
    caplog.set_level(logging.INFO, "step")
    tell = _teller(tmp_path)
    for epoch in range(1, 101):
        for second in range(0, 360, 2):
            clock[0] += 2
            tell(Progress(f"LDG · epoch {epoch} of 100", second + 2, 360))
        if epoch == 1:
            assert len(caplog.records) == 90, "at first, every four seconds"
    assert len(caplog.records) < 700
    assert parse_event(caplog.messages[-1]) == Progress("LDG · epoch 100 of 100", 360, 360)


def test_a_step_says_how_it_ended_by_its_state() -> None:
    from prefect.states import Failed

    assert outcome(Failed(message="[exit code 2] graph.k: too large")) == (2, "graph.k: too large")
    assert outcome(Failed(message="[exit code -9] killed\nby something")) == (-9, "killed\nby something")
    assert outcome(None) == (1, "ended without a word")
    assert len(code_version()) == 16
    assert SentStep("c", "graph", "f", "demo", None, (), (), None, 1).dead == 0


def test_what_a_worker_lacks_is_told_in_a_line(lab: Lab, tmp_path: Path) -> None:
    def said(**more: str) -> str:
        command = [sys.executable, "-m", "flows.steps_worker"]
        done = subprocess.run(
            command, env=lab.environment("new", **more), cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert done.returncode == ExitCode.MISTAKE
        return done.stderr

    assert said(FER_STORE="") == "error: FER_STORE is not set; give the folder or bucket that the head has\n"
    assert "no such folder; mount or make it" in said(FER_STORE=str(tmp_path / "missing"))
    assert "error: PREFECT_API_URL is not set; give the head's" in said(PREFECT_API_URL="")
    assert "no Prefect server answers there" in said(PREFECT_API_URL="http://127.0.0.1:1/api")
    assert "FER_CACHE_GB=much: give gigabytes" in said(FER_CACHE_GB="much")
    for wrong in ("0", "-1", "1.5", "two"):
        told = said(FER_STEPS_PER_GPU=wrong)
        assert told == f"error: FER_STEPS_PER_GPU={wrong}: no number of steps; give a whole number from 1\n"


def test_an_event_is_read_back_as_it_was() -> None:
    for event in (Progress("epoch 1 of 2", 3, 4), Metrics({"model": "LDG", "accuracy": 0.5}), Note("a “note”")):
        assert parse_event(event_line(event)) == event
