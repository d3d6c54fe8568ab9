"""The worker, a real one on a real server: who may use the API may run experiments, and no program."""

import asyncio
import base64
import json
import os
import pickle
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from helpers.prefect_home import with_database
from prefect.filesystems import LocalFileSystem, RemoteFileSystem
from prefect.settings import PREFECT_API_URL, temporary_settings

from fer_core.errors import ExperimentError, FerError
from flows.experiment_worker import ExperimentWorker
from flows.granted import _texts, is_path, own_openface
from flows.naming import run_name
from flows.prefect_server import free_port
from flows.study import open_study

TINY = str(Path(__file__).parent / "tiny.toml")
MISTAKEN = {"experiment": "demo", "settings": ["graph.kk=3"]}
"""A run that our flow, once it is started, refuses by itself: no other would say so."""
REFUSED = "unknown key graph.kk"
UNWATCHED = """
import asyncio
from prefect.runner._flow_run_executor import FlowRunExecutorContext
from flows.experiment_worker import ExperimentWorker, work_until_asked_to_end

enter = FlowRunExecutorContext.__aenter__

async def enter_without_watch(self):
    context = await enter(self)
    context._observer._consumer_task.cancel()
    context._observer._polling_task = asyncio.create_task(asyncio.sleep(0))
    return context

FlowRunExecutorContext.__aenter__ = enter_without_watch
asyncio.run(work_until_asked_to_end(ExperimentWorker("unwatched")))
"""
"""A worker whose runs are as after a minute without the server: Prefect's watch for their cancellation has ended."""
ENDS = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")


class Lab:
    """A server without a password, the worker, and an attacker who may use the API."""

    def __init__(self, folder: Path, port: int) -> None:
        self.folder, self.artifacts = folder, folder / "artifacts"
        # A connection that is kept may be closed by the server at the moment at which it is used again.
        anew = httpx.Limits(max_keepalive_connections=0)
        self.client = httpx.Client(base_url=f"http://127.0.0.1:{port}/api", timeout=30, limits=anew)
        self.environment = os.environ | {
            "PREFECT_HOME": with_database(folder / "prefect"),
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "PREFECT_API_URL": f"http://127.0.0.1:{port}/api",
            "PREFECT_WORKER_QUERY_SECONDS": "1",
            "FER_ARTIFACTS_FOLDER": str(self.artifacts),
            "FER_DATA_FOLDER": str(folder / "data"),
        }

    def post(self, where: str, expect: range = range(200, 300), **body: Any) -> dict[str, Any]:
        answer = self.client.post(where, json=body)
        while answer.status_code == 503:  # SQLite, which somebody else is writing to.
            answer = self.client.post(where, json=body)
        assert answer.status_code in expect, answer.text
        found: dict[str, Any] = answer.json()
        return found

    def change(self, method: str, where: str, **body: Any) -> None:
        answer = self.client.request(method, where, json=body)
        while answer.status_code == 503:  # As above.
            answer = self.client.request(method, where, json=body)
        assert answer.is_success, answer.text

    def flow(self, name: str = "fer") -> str:
        return str(self.post("/flows/", name=name)["id"])

    def deployment(self, name: str, flow: str = "fer", **more: Any) -> str:
        """Made, or as it is already under this name changed."""
        own: dict[str, Any] = {
            "flow_id": self.flow(flow),
            "work_pool_name": "fer",
            "parameters": {"artifacts": str(self.artifacts)},
        }
        made = self.post("/deployments/", name=name, **own, **more)
        return str(made["id"])

    def run(self, deployment: str, **body: Any) -> dict[str, Any]:
        """Started, and how it ended."""
        run = self.post(f"/deployments/{deployment}/create_flow_run", **body)
        return self.ending(str(run["id"]))

    def ending(self, run: str) -> dict[str, Any]:
        deadline = time.monotonic() + 90
        while True:
            found: dict[str, Any] = self.client.get(f"/flow_runs/{run}").json()
            if found["state_type"] in ENDS:
                return found
            assert time.monotonic() < deadline, found["state"]
            time.sleep(0.1)


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    folder, port = tmp_path_factory.mktemp("worker"), free_port()
    for made in ("artifacts", "data"):
        (folder / made).mkdir()
    lab = Lab(folder, port)
    register = "from flows.register import make_pool; from prefect.client.orchestration import get_client\n"
    register += "with get_client(sync_client=True) as client: make_pool(client)"
    serve = f"from flows.prefect_server import serve_guarded; serve_guarded('127.0.0.1', {port}, 'warning')"
    with (
        (folder / "log").open("w") as log,
        subprocess.Popen([sys.executable, "-c", serve], env=lab.environment, stdout=log, stderr=log) as server,
    ):
        try:
            wait_for(lambda: answers(lab), 90)
            lab.post("/work_pools/", name="fer", type="process")  # As an earlier version had it.
            subprocess.run([sys.executable, "-c", register], env=lab.environment, check=True)
            command = [sys.executable, "-m", "flows.experiment_worker"]
            with subprocess.Popen(command, env=lab.environment, stdout=log, stderr=log) as worker:
                try:
                    yield lab
                finally:
                    worker.terminate()
        finally:
            server.terminate()
            lab.client.close()


def answers(lab: Lab) -> bool:
    try:
        return lab.client.get("/health").status_code == 200
    except httpx.HTTPError:
        return False


def wait_for(condition: Any, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(0.1)


def test_a_run_that_outlived_a_minute_without_the_server_can_be_cancelled(lab: Lab) -> None:
    lab.post("/work_pools/", name="unwatched", type="fer")
    made: dict[str, Any] = {
        "flow_id": lab.flow(),
        "work_pool_name": "unwatched",
        "parameters": {"artifacts": str(lab.artifacts)},
    }
    deployment = str(lab.post("/deployments/", name="full-pipeline", **made)["id"])
    with subprocess.Popen([sys.executable, "-c", UNWATCHED], env=lab.environment) as worker:
        try:
            asked = {"experiment": "demo", "settings": ["ldg.epochs=300"]}
            run = str(lab.post(f"/deployments/{deployment}/create_flow_run", parameters=asked)["id"])
            wait_for(lambda: lab.client.get(f"/flow_runs/{run}").json()["state_type"] == "RUNNING", 60)
            lab.post(f"/flow_runs/{run}/set_state", state={"type": "CANCELLING"})
            assert lab.ending(run)["state_type"] == "CANCELLED"
        finally:
            worker.terminate()


def test_a_run_may_override_nothing_of_how_it_is_started(lab: Lab) -> None:
    """Job variables are refused where the pool's template counts, and without effect where an attacker changed it."""
    deployment, touched = lab.deployment("full-pipeline", entrypoint="x.py:y"), lab.folder / "touched"
    command = {"command": f"touch {touched}", "env": {"PREFECT__FLOW_ENTRYPOINT": "evil.flow"}}
    lab.post(f"/deployments/{deployment}/create_flow_run", range(422, 423), job_variables=command)
    template = {
        "job_configuration": {"command": f"touch {touched}", "env": {"PYTHONPATH": str(lab.folder)}},
        "variables": {"type": "object", "properties": {"command": {"type": "string"}, "env": {"type": "object"}}},
    }
    before = lab.client.get("/work_pools/fer").json()["base_job_template"]
    lab.change("PATCH", "/work_pools/fer", base_job_template=template)
    try:
        ended = lab.run(deployment, parameters=MISTAKEN, job_variables=command)
    finally:
        lab.change("PATCH", "/work_pools/fer", base_job_template=before)
    assert (ended["state_type"], touched.exists()) == ("FAILED", False)
    assert REFUSED in ended["state"]["message"]


def test_a_deployments_own_steps_and_code_are_never_run(lab: Lab) -> None:
    touched = lab.folder / "touched"
    evil = lab.folder / "evil.py"
    evil.write_text(f"from pathlib import Path\nPath({str(touched)!r}).touch()\ndef full_pipeline(): pass\n")
    steps = [{"prefect.deployments.steps.run_shell_script": {"script": f"touch {touched}"}}]
    deployment = lab.deployment("full-pipeline", entrypoint=f"{evil}:full_pipeline", pull_steps=steps, path="/")
    ended = lab.run(deployment, parameters=MISTAKEN)
    assert (ended["state_type"], touched.exists()) == ("FAILED", False)
    assert REFUSED in ended["state"]["message"]


@pytest.mark.parametrize(("name", "flow"), [("mine", "fer"), ("full-pipeline", "another")])
def test_a_deployment_that_is_not_ours_is_refused_in_a_line(lab: Lab, name: str, flow: str) -> None:
    ended = lab.run(lab.deployment(name, flow, entrypoint="os.system"))
    assert ended["state_type"] == "FAILED"
    assert ended["state"]["message"] == "Not a deployment of this project; run fer/full-pipeline or fer/annotate."


@pytest.mark.parametrize(
    ("parameters", "told"),
    [
        ({"settings": ['ldg.weights="/data/../../../../../etc/passwd"']}, "ldg.weights = /data/../"),
        ({"settings": ['sll.weights="~/.ssh/id_rsa"']}, "sll.weights = ~/.ssh/id_rsa: not below"),
        ({"settings": ["dataset.source=folder"], "data": "/etc"}, "data = /etc: not below"),
        ({"aus": "/var/run/docker.sock"}, "not below"),
        ({"experiment": "/etc/passwd"}, "experiment = /etc/passwd: not below"),
        ({"experiment": "../../etc/passwd"}, "experiment = ../../etc/passwd: not below"),
        ({"artifacts": "/tmp/elsewhere"}, "artifacts = /tmp/elsewhere: not below"),
        ({"settings": ["openface.binary=/bin/sh"]}, "openface.binary: the worker runs no program of yours"),
        ({"settings": ["openface.image=alpine"]}, "openface.image = alpine: the worker runs its own"),
        ({"settings": ["openface.program=/bin/sh"]}, "openface.program = /bin/sh: the worker runs its own"),
    ],
)
def test_a_run_names_only_what_lies_below_the_workers_folders(
    parameters: dict[str, Any], told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = with_limits(tmp_path, monkeypatch) | parameters
    with pytest.raises(ExperimentError) as refused:
        open_study(**wanted)
    assert told in str(refused.value)


@pytest.mark.parametrize("place", ["/data/\0x", "~nobody-at-all/x", "/" + 300 * "a"])
@pytest.mark.parametrize("name", ["data", "aus", "artifacts", "experiment"])
def test_a_path_at_which_no_file_can_be_is_refused_with_words(
    name: str, place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command line would not let a null byte through; the API does."""
    wanted = with_limits(tmp_path, monkeypatch) | {"settings": ["dataset.source=folder"], name: place}
    with pytest.raises(FerError, match=r"name another path|no path|not below"):
        open_study(**wanted)


def test_a_link_out_of_the_folder_is_followed_before_it_is_judged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = with_limits(tmp_path, monkeypatch)
    inside, outside = tmp_path / "data" / "mine.pth", tmp_path / "data" / "theirs.pth"
    inside.touch()
    outside.symlink_to("/etc/passwd")
    open_study(
        **wanted | {"settings": [f'distill.weights="{inside}"', f'ldg.weights="{inside.parent}/../data/mine.pth"']}
    )
    monkeypatch.chdir(tmp_path / "data")
    with pytest.raises(ExperimentError, match=r"sll\.weights = ~/mine\.pth: not below"):
        open_study(**wanted | {"settings": ['sll.weights="~/mine.pth"']})
    with pytest.raises(ExperimentError, match=r"sll\.weights = .*data-of-others/x\.pth: not below"):
        open_study(**wanted | {"settings": [f'sll.weights="{tmp_path}/data-of-others/x.pth"']})
    with pytest.raises(ExperimentError, match=r"artifacts = .*made: not below [^ ]*artifacts, "):
        open_study(**wanted | {"artifacts": str(tmp_path / "data" / "made")})
    with pytest.raises(ExperimentError, match=r"distill\.weights = .*theirs\.pth: not below"):
        open_study(**wanted | {"settings": [f'distill.weights="{outside}"']})
    (tmp_path / "data" / "openface_aus.parquet").symlink_to("/etc/passwd")
    with pytest.raises(ExperimentError, match=r"aus = .*openface_aus\.parquet: not below"):
        open_study(**wanted | {"data": str(tmp_path / "data"), "settings": ["dataset.source=folder"]})


def test_every_text_that_could_be_a_path_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    assert [text for text in ("~root", "..", "a/b", "name", "name.toml") if is_path(text)] == ["~root", "..", "a/b"]
    assert list(_texts({"a": ["/x", {"b": "~"}], "c": {"d": "..", "e": 1}})) == [
        ("a", "/x"),
        ("a.b", "~"),
        ("c.d", ".."),
    ]
    monkeypatch.setenv("FER_OPENFACE_IMAGE", "mine:1")
    assert own_openface().image == "mine:1"


def with_limits(folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A worker's folders, and the parameters of an honest run."""
    for name in ("data", "artifacts"):
        (folder / name).mkdir()
        monkeypatch.setenv(f"FER_{name.upper()}_FOLDER", str(folder / name))
    nothing = dict.fromkeys(("data", "aus", "seeds"))
    return {"experiment": "demo", "settings": [], "artifacts": str(folder / "artifacts"), **nothing}


def test_a_file_that_is_named_out_of_the_data_is_not_mounted(lab: Lab) -> None:
    settings = [f'ldg.weights="{lab.folder}/data/../../../../../../../../etc/passwd"']
    ended = lab.run(lab.deployment("full-pipeline"), parameters={"experiment": "demo", "settings": settings})
    assert ended["state_type"] == "FAILED"
    assert "ldg.weights = " in ended["state"]["message"]
    assert "not below" in ended["state"]["message"]


class Touches:
    """Makes a file when it is unpickled."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.file,)


def a_result(held: object) -> str:
    """What Prefect writes of a result that is kept."""
    pickled = base64.encodebytes(pickle.dumps(held)).decode()
    return json.dumps({"metadata": {"serializer": {"type": "pickle"}, "storage_key": "x"}, "result": pickled})


@pytest.mark.parametrize("place", ["a file", "a block"])
def test_a_result_that_the_api_gives_a_run_is_not_unpickled(lab: Lab, place: str) -> None:
    touched, kept, block = lab.folder / f"touched by {place}", lab.folder / "data" / "kept", None
    if place == "a file":
        kept.write_text(a_result(Touches(touched)))
        key = str(kept)
    else:
        with temporary_settings({PREFECT_API_URL: str(lab.client.base_url)}):
            block = str(RemoteFileSystem(basepath="data://x").save("unpickled"))
        key = f",{quote(a_result(Touches(touched)), safe='')}"
    data = {"type": "reference", "serializer": {"type": "pickle"}, "storage_key": key, "storage_block_id": block}
    deployment = lab.deployment("full-pipeline")
    run = lab.post(f"/deployments/{deployment}/create_flow_run", parameters=MISTAKEN)["id"]
    wait_for(lambda: lab.client.get(f"/flow_runs/{run}").json()["state_type"] == "PENDING", 30)
    # Before the run's process, which has to import Prefect, asks to begin.
    lab.post(f"/flow_runs/{run}/set_state", state={"type": "COMPLETED", "data": data}, force=True)
    # The pool has one slot, so that this one begins when that process has ended.
    assert REFUSED in lab.run(deployment, parameters=MISTAKEN)["state"]["message"]
    assert not touched.exists()
    assert REFUSED not in str(lab.client.get(f"/flow_runs/{run}").json()["state"]["message"])


def test_a_place_for_results_that_the_api_names_is_not_written_to(lab: Lab) -> None:
    outside = lab.folder / "outside"
    with temporary_settings({PREFECT_API_URL: str(lab.client.base_url)}):
        block = LocalFileSystem(basepath=str(outside)).save("outside")
    lab.change("PUT", "/admin/storage", default_result_storage_block_id=str(block))
    try:
        experiment = lab.folder / "data" / "anew.toml"
        experiment.write_text(Path(TINY).read_text())
        ended = lab.run(lab.deployment("annotate"), parameters={"experiment": str(experiment)})
    finally:
        lab.change("DELETE", "/admin/storage")
    assert ended["state_type"] == "COMPLETED", ended["state"]["message"]
    assert not outside.exists() or list(outside.iterdir()) == []


def test_the_slot_is_free_after_every_run_and_an_honest_one_goes_through(lab: Lab) -> None:
    """After all of the above."""
    honest = lab.deployment("annotate")
    experiment = lab.folder / "data" / "tiny.toml"
    experiment.write_text(Path(TINY).read_text())
    ended = lab.run(honest, parameters={"experiment": str(experiment)})
    assert ended["state_type"] == "COMPLETED", ended["state"]["message"]
    pool = lab.client.get("/work_pools/fer").json()
    assert (pool["type"], pool["concurrency_limit"]) == ("fer", 1)
    assert pool["base_job_template"]["variables"]["properties"] == {}


@pytest.mark.parametrize(
    ("parameters", "name"),
    [
        ({"experiment": "paper", "seeds": list(range(5000))}, r"paper · seeds 0, 1, [0-9, ]*…"),
        ({"experiment": 5000 * "a"}, "a+…"),
        ({"experiment": "two\nlines\0"}, r"two\\x0alines\\x00"),
    ],
)
def test_a_runs_name_is_one_short_line(parameters: dict[str, Any], name: str) -> None:
    """PostgreSQL refuses a name that its index has no room for, and a null byte."""
    assert re.fullmatch(name, run_name(parameters))
    assert len(run_name(parameters)) <= 200


def test_a_run_that_cannot_be_named_keeps_none_from_being_run(monkeypatch: pytest.MonkeyPatch) -> None:
    called = []

    class Refusing:
        async def read_flow_runs(self, **asked: Any) -> list[Any]:
            return [SimpleNamespace(id=number, name="", parameters={}) for number in range(2)]

        async def update_flow_run(self, run: int, name: str) -> None:
            called.append((run, name))
            if run == 0:
                answer = httpx.Response(500, request=httpx.Request("PATCH", "http://server/api"))
                raise httpx.HTTPStatusError("refused", request=answer.request, response=answer)

    worker = ExperimentWorker()
    monkeypatch.setattr(ExperimentWorker, "client", Refusing(), raising=False)
    asyncio.run(worker._name_queued_runs())
    assert called == [(0, "demo"), (1, "demo")]


def test_a_run_that_waits_is_called_what_it_will_run(lab: Lab) -> None:
    later = "2099-01-01T00:00:00Z"
    state = {"type": "SCHEDULED", "state_details": {"scheduled_time": later}}
    parameters = {"experiment": "paper", "seeds": [1, 2]}
    run = lab.post(
        f"/deployments/{lab.deployment('full-pipeline')}/create_flow_run", state=state, parameters=parameters
    )
    wait_for(lambda: lab.client.get(f"/flow_runs/{run['id']}").json()["name"] == "paper · seeds 1, 2", 20)
