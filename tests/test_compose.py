"""`docker compose up` as a user types it: a run to its end, what Prefect shows of it, and every way to disturb it."""

import json
import os
import shutil
import stat
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import Future, wait
from functools import partial
from pathlib import Path
from typing import Any

import docker
import pandas as pd
import pytest
from conftest import ROOT, build_image
from helpers.browsing import CHROMIUM, DRIVER, NO_BROWSER, browser, until
from helpers.composed import TAG, USER, ComposeLab, restart_engine
from helpers.measured import seconds_of, tell_measured

from fer_core.steps import STEPS
from flows.containers import STEP
from flows.doctor import examine_openface
from flows.prefect_server import free_port
from openface.docker_engine import OWNER
from openface.docker_engine import engine as connection
from openface.program import FOLDER
from openface.settings import OpenFaceSettings

pytestmark = pytest.mark.engine
TINY = "/data/tiny.toml"
SECONDS_TO_READY = 40
OF_IMAGES = ["dataset.source=folder", 'openface.arguments=["-standin_ms","40"]', "openface.batch=20"]
MODELS = ["EF + LDG-AUs", "EF + LDG", "EF SLL", "LDG-AUs", "LDG"]


@pytest.fixture(scope="module")
def lab(images: "dict[str, Future[str]]", tmp_path_factory: pytest.TempPathFactory) -> Iterator[ComposeLab]:
    wait(images.values())  # All of them, since what follows is timed.
    made = ComposeLab(tmp_path_factory.mktemp("compose"), free_port(), free_port())
    made.prepare_folders()
    made.down()
    done = made.compose("--profile", "openface", "build")
    assert done.returncode == 0, done.stderr
    made.seconds_to_ready = seconds_of(made.up, SECONDS_TO_READY, before=made.down)
    yield made
    made.down()


@pytest.fixture(autouse=True)
def nothing_left(request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    if "lab" in request.fixturenames:
        lab: ComposeLab = request.getfixturevalue("lab")
        lab.wait_until(lambda: not lab.steps(), 30)


def test_up_is_soon_ready(lab: ComposeLab) -> None:
    """With nothing in the database, as at the first time."""
    tell_measured(f"docker compose up to ready: {lab.seconds_to_ready:.0f} s")
    assert lab.seconds_to_ready <= SECONDS_TO_READY


def test_of_a_folder_of_roots_only_what_runs_make_is_given_away(lab: ComposeLab, tmp_path: Path) -> None:
    def looked_at(folder: Path) -> "subprocess.CompletedProcess[str]":
        command = ["docker", "run", "--rm", "--network", "none", "--user", "root", "--tmpfs", "/run/fer"]
        command += ["--env", "FER_PASSWORD_FILE=.password", "--volume", f"{folder}:/artifacts", f"fer-prefect:{TAG}"]
        return subprocess.run([*command, "password"], capture_output=True, text=True, check=False)

    own, others = tmp_path / "own", tmp_path / "others"
    for folder in (
        *(own / step for step in STEPS),
        own / ".cache",
        own / ".experiment-1",
        own / "export",
        others / "ada",
        others / "report",
    ):
        folder.mkdir(parents=True)
    for folder in (tmp_path, *tmp_path.rglob("*")):
        os.chown(folder, 0, 0)
    assert looked_at(own).returncode == 0
    assert {path.stat().st_uid for path in (own, *own.iterdir())} == {10001}
    refused = looked_at(others)
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "FER_ARTIFACTS is root's, and holds ada, which no run has made; name a folder of its own" in refused.stderr
    assert {path.stat().st_uid for path in (others, *others.iterdir())} == {0}


def artifact(lab: ComposeLab, key: str, run: str) -> dict[str, object]:
    found = lab.ask(
        "artifacts/filter", artifacts={"key": {"any_": [key]}, "flow_run_id": {"any_": [run]}}, sort="CREATED_DESC"
    )
    (latest, *_) = found
    return dict(latest)


def results_of(lab: ComposeLab, run: str) -> dict[str, object]:
    report = str(artifact(lab, "tiny-92-report", run)["description"]).removeprefix("/artifacts/")
    return dict(json.loads((lab.artifacts / report / "results.json").read_text()))


def annotation_of(lab: ComposeLab, run: str) -> dict[str, int]:
    """Images by status, of a run that annotated them."""
    return {row["status"]: row["images"] for row in json.loads(str(artifact(lab, "tiny-11-annotation", run)["data"]))}


def fingerprints(lab: ComposeLab, step: str) -> dict[str, float]:
    """The finished artifacts of a step, and when each was made."""
    return {folder.name: folder.stat().st_mtime for folder in (lab.artifacts / step).glob("?" * 16)}


def a_seed(lab: ComposeLab) -> int:
    """One that no run had yet, so that its trainings are to be made."""
    return 10 + len(lab.runs())


def unfinished_trainings(lab: ComposeLab) -> set[Path]:
    """Trainings with a finished epoch that are not finished; those that cancelled runs left are among them."""
    return set((lab.artifacts / "train-ldg").glob("*.unfinished/resume.pt"))


def no_artifact_is_half(lab: ComposeLab) -> None:
    # A folder that begins with a dot holds digests of the user's files.
    made = lab.artifacts.glob("[!.]*/*")
    left = [path for path in made if not (path / "manifest.json").is_file()]
    assert not [path for path in left if not path.name.endswith(".unfinished")]
    for manifest in lab.artifacts.glob("*/" + "?" * 16 + "/manifest.json"):
        for name, size in json.loads(manifest.read_text())["files"].items():
            assert (manifest.parent / name).stat().st_size == size


def every_image_has_one_row(lab: ComposeLab) -> None:
    of_datasets = [pd.read_parquet(path)["id"].tolist() for path in lab.artifacts.glob("prepare/*/manifest.parquet")]
    for table in lab.artifacts.glob("annotate/" + "?" * 16 + "/aus.parquet"):
        assert pd.read_parquet(table)["id"].tolist() in of_datasets


@pytest.fixture(scope="module")
def first_run(lab: ComposeLab) -> str:
    done = lab.prefect("deployment", "run", "fer/full-pipeline", "-p", f'experiment="{TINY}"', "--watch")
    assert done.returncode == 0, done.stdout + done.stderr
    (run,) = lab.runs()
    assert run["state_type"] == "COMPLETED"
    return str(run["id"])


def test_the_table_in_prefect_is_the_one_in_the_results(lab: ComposeLab, first_run: str) -> None:
    table = json.loads(str(artifact(lab, "tiny-91-paper-table", first_run)["data"]))
    results = results_of(lab, first_run)["table"]
    assert isinstance(results, dict)
    assert results["columns"] == MODELS
    rounded = {name: [round(value, 1) for value in values] for name, values in results["rows"].items()}
    assert {row["accuracy, %"]: [row[name] for name in MODELS] for row in table} == rounded


def _shows(driver: Any, words: str) -> bool:
    return words in driver.page_source


def test_what_is_made_belongs_to_who_owns_the_folder(lab: ComposeLab, first_run: str) -> None:
    assert {path.stat().st_uid for path in lab.artifacts.rglob("*")} == {USER}


def test_the_report_is_where_the_link_says(lab: ComposeLab, first_run: str) -> None:
    link = str(artifact(lab, "tiny-92-report", first_run)["data"])
    address = link[link.index("http") :].rstrip(")")
    assert address.startswith(f"http://127.0.0.1:{lab.reports_port}/")
    assert answer(address) == 401
    assert answer(address, **lab.authorization, Host="elsewhere.test") == 403
    with urllib.request.urlopen(urllib.request.Request(address, headers=lab.authorization), timeout=10) as page:
        assert b"<!doctype html>" in page.read()[:100].lower()


def answer(address: str, body: bytes | None = None, /, **headers: str) -> int:
    """The status of an answer."""
    try:
        with urllib.request.urlopen(urllib.request.Request(address, body, headers), timeout=30) as answered:
            return int(answered.status)
    except urllib.error.HTTPError as refused:
        with refused:
            return refused.code


def test_a_password_is_made_at_the_first_up_and_asked_for_everywhere(
    lab: ComposeLab, engine: docker.DockerClient
) -> None:
    kept = (lab.artifacts / ".password").stat()
    assert (kept.st_uid, stat.S_IMODE(kept.st_mode)) == (USER, 0o600)
    said = lab.compose("logs", "--no-log-prefix", "password").stdout
    assert said.count(lab.password) == 1
    for path in ("flow_runs/filter", "deployments/filter"):
        assert answer(f"{lab.api}/{path}", b"{}") == 401
        assert answer(f"{lab.api}/{path}", b"{}", Authorization="Basic YWRhOmZhbHNjaA==") == 401
        assert answer(f"{lab.api}/{path}", b"{}", **lab.authorization, Origin="http://elsewhere.test") == 403
        assert answer(f"{lab.api}/{path}", b"{}", **lab.authorization, Host="elsewhere.test") == 403
    assert answer(lab.api.replace("/api", "/docs"), Host="elsewhere.test") == 403
    for container in engine.containers.list(filters={"label": f"com.docker.compose.project={lab.project}"}):
        assert lab.password not in json.dumps(container.attrs), container.name


def test_a_run_is_started_by_the_command_that_is_printed_in_seconds(lab: ComposeLab, first_run: str) -> None:
    printed = lab.compose("logs", "--no-log-prefix", "register").stdout.splitlines()
    (command,) = [line.partition("docker compose ")[2] for line in printed if line.endswith("fer/annotate")]

    def start() -> None:
        done = lab.compose(*command.replace("exec ", "exec -T ").split(), "-p", f"experiment={TINY}")
        assert done.returncode == 0, done.stderr

    seconds = seconds_of(start, 20)
    tell_measured(f"docker compose exec server start prefect deployment run: {seconds:.1f} s")
    assert seconds < 20
    run = lab.runs()[0]["id"]
    assert lab.wait_for_end(run) == "COMPLETED"
    # All was made by an earlier run, and is shown of this one too.
    assert artifact(lab, "tiny-11-annotation", run)


def test_whoever_may_use_the_api_starts_no_program(lab: ComposeLab) -> None:
    """What the worker makes of deployments, settings and paths is in tests/test_experiment_worker.py."""
    (deployment,) = [found["id"] for found in lab.ask("deployments/filter") if found["name"] == "full-pipeline"]
    host = {"command": "docker run -v /:/host debian touch /host/tmp/touched", "env": {"A": "b"}}
    headers = {"Content-Type": "application/json", **lab.authorization}
    address = f"{lab.api}/deployments/{deployment}/create_flow_run"
    assert answer(address, json.dumps({"job_variables": host}).encode(), **headers) == 422
    run = lab.start(experiment="demo", settings=['ldg.weights="/data/../../../../../etc/passwd"'])
    assert lab.wait_for_end(run) == "FAILED"
    (found,) = [other for other in lab.runs() if other["id"] == run]
    assert "not below /artifacts or /data" in found["state"]["message"]
    run = lab.start(experiment="demo", data="/run/fer", settings=["dataset.source=folder"])
    assert lab.wait_for_end(run) == "FAILED"


def test_the_worker_has_no_internet_and_writes_nothing_but_artifacts(lab: ComposeLab) -> None:
    probe = """
import os, socket
for path in ("/written", "/opt/src/written", "/data/written", "/run/fer/written"):
    try:
        open(path, "w")
        print(path, "can be written")
    except OSError:
        pass
try:
    socket.create_connection(("1.1.1.1", 53), 2)
    print("reaches the internet")
except OSError:
    pass
print("looked")
"""
    assert lab.compose("exec", "-T", "worker", "python", "-c", probe).stdout == "looked\n"


def test_coverage_histograms_graph_and_curves_are_there_to_look_at(lab: ComposeLab, first_run: str) -> None:
    keys = ("11-annotation", "12-au-coverage", "21-neighbour-graph", "91-paper-table", "31-ldg-seed-1-epochs")
    assert all(artifact(lab, f"tiny-{key}", first_run) for key in keys)
    for key in ("13-au-histograms", "22-graph-figure", "32-ldg-aus-seed-1-curves", "34-ef-ldg-seed-1-curves"):
        assert str(artifact(lab, f"tiny-{key}", first_run)["data"]).startswith("data:image/png;base64,")


def test_the_pages_show_the_run_and_its_artifacts(lab: ComposeLab, first_run: str, tmp_path: Path) -> None:
    if CHROMIUM is None or DRIVER is None:
        pytest.skip(NO_BROWSER)
    with browser(tmp_path) as driver:
        driver.get(f"http://127.0.0.1:{lab.port}/")
        # What its login page keeps of a password.
        encoded = lab.authorization["Authorization"].removeprefix("Basic ")
        driver.execute_script(f"localStorage.setItem('prefect-password', {encoded!r})")
        for page, wanted in (
            (f"runs/flow-run/{first_run}", ("Completed", TINY)),
            ("artifacts", ("tiny-91-paper-table",)),
        ):
            driver.get(f"http://127.0.0.1:{lab.port}/{page}")
            for words in wanted:
                until(partial(_shows, driver, words), f"{page} shows {words!r}", patience=60)


def test_a_run_over_images_annotates_them_in_containers(lab: ComposeLab) -> None:
    before = fingerprints(lab, "graph")
    run = lab.start(experiment=TINY, settings=[*OF_IMAGES, f"seeds=[{a_seed(lab)}]"])
    lab.wait_until(lambda: fingerprints(lab, "graph").keys() - before.keys() or lab.state(run) == "FAILED", 300)
    # From the graph on, it goes as the first run did.
    cancel(lab, run)
    assert lab.wait_for_end(run, 120) == "CANCELLED"
    (table,) = [
        pd.read_parquet(path)
        for path in lab.artifacts.glob("annotate/*/aus.parquet")
        if len(pd.read_parquet(path)) == 210
    ]
    assert table["status"].value_counts().to_dict() == {"ok": 196, "no_face": 7, "failed": 7}


def test_a_mistake_is_not_tried_again(lab: ComposeLab) -> None:
    run = lab.start(experiment=TINY, settings=["graph.kk=3"])
    assert lab.wait_for_end(run) == "FAILED"
    (found,) = [other for other in lab.runs() if other["id"] == run]
    assert "unknown key graph.kk; did you mean k?" in found["state"]["message"]
    assert found["run_count"] == 1


def test_a_cancelled_run_leaves_no_container_and_none_of_its_steps_saw_the_engine(lab: ComposeLab) -> None:
    run = lab.start(experiment=TINY, settings=[f"seeds=[{a_seed(lab)}]", "ldg.epochs=300"])
    lab.wait_until(lambda: any(step.labels[STEP] == "train-ldg" for step in lab.steps(STEP)))
    for step in lab.steps(OWNER):
        about = step.client.api.inspect_container(step.id)
        assert not [mount for mount in about["Mounts"] if "docker.sock" in mount["Source"]]
        (written,) = [mount["Source"] for mount in about["Mounts"] if mount["RW"]]
        assert written.endswith(".unfinished")
        assert about["HostConfig"]["NetworkMode"] == "none"
        assert about["HostConfig"]["ReadonlyRootfs"]
    started = time.monotonic()
    cancel(lab, run)
    tell_measured(f"containers gone {time.monotonic() - started:.1f} s after the cancellation")
    assert lab.wait_for_end(run, 120) == "CANCELLED"
    no_artifact_is_half(lab)


def cancel(lab: ComposeLab, run: str) -> None:
    assert lab.prefect("flow-run", "cancel", run).returncode == 0
    lab.wait_until(lambda: not lab.steps(), 15)


def trained(lab: ComposeLab, run: str, before: dict[str, float]) -> None:
    """Wait for both generators of a run; what would follow is seen to its end by the first run, and cancelled here."""
    failed = ("FAILED", "CRASHED", "CANCELLED")
    lab.wait_until(
        lambda: len(fingerprints(lab, "train-ldg").keys() - before.keys()) >= 2 or lab.state(run) in failed, 300
    )
    assert lab.state(run) not in failed
    cancel(lab, run)
    assert lab.wait_for_end(run, 120) == "CANCELLED"


def test_a_killed_trainer_goes_on_from_its_last_epoch(lab: ComposeLab) -> None:
    seed = a_seed(lab)
    before, left, models = fingerprints(lab, "prepare"), unfinished_trainings(lab), fingerprints(lab, "train-ldg")
    run = lab.start(experiment=TINY, settings=[f"seeds=[{seed}]", "ldg.epochs=6"])
    lab.wait_until(lambda: unfinished_trainings(lab) - left)
    killed = [step for step in lab.steps(STEP) if step.labels[STEP] == "train-ldg"]
    assert killed
    for step in killed:
        lab.kill_step(step)
    trained(lab, run, models)
    logs = lab.ask("logs/filter", logs={"flow_run_id": {"any_": [run]}}, limit=200)
    assert any("killed by SIGKILL" in line["message"] for line in logs)
    assert any("goes on after epoch" in line["message"] for line in logs)
    assert before.items() <= fingerprints(lab, "prepare").items()
    no_artifact_is_half(lab)


def test_a_killed_openface_costs_no_row(lab: ComposeLab) -> None:
    run = lab.start("annotate", experiment=TINY, settings=[*OF_IMAGES, "dataset.image_size=72"])
    findings = "annotate/*.unfinished/openface/findings.jsonl"
    lab.wait_until(lambda: any(journal.stat().st_size for journal in lab.artifacts.glob(findings)))
    killed = 0
    while killed < 3:
        lab.wait_until(lambda: lab.steps(FOLDER))
        killed += sum(lab.kill_step(container) for container in lab.steps(FOLDER))
        time.sleep(0.5)
    assert lab.wait_for_end(run) == "COMPLETED"
    every_image_has_one_row(lab)
    assert annotation_of(lab, run) == {"ok": 196, "no_face": 7, "failed": 7}


def test_a_killed_server_comes_back_and_the_run_or_its_rerun_ends_well(lab: ComposeLab) -> None:
    settings, before = [f"seeds=[{a_seed(lab)}]", "ldg.epochs=4"], fingerprints(lab, "train-ldg")
    run = lab.start(experiment=TINY, settings=settings)
    lab.wait_until(lambda: any(step.labels[STEP] == "train-ldg" for step in lab.steps(STEP)))
    lab.kill("server")
    lab.wait_until(
        lambda: len(fingerprints(lab, "train-ldg").keys() - before.keys()) >= 2 or lab.state(run) != "RUNNING", 300
    )
    made = fingerprints(lab, "train-ldg")
    if lab.state(run) == "RUNNING":
        cancel(lab, run)
    else:
        trained(lab, lab.start(experiment=TINY, settings=settings), before)
    lab.wait_for_end(run)
    assert made.items() <= fingerprints(lab, "train-ldg").items()
    no_artifact_is_half(lab)


@pytest.mark.parametrize("how", ["killed", "stopped"])
def test_a_run_whose_worker_ends_leaves_no_container_and_its_rerun_picks_up(lab: ComposeLab, how: str) -> None:
    seed = a_seed(lab)
    settings, left = [f"seeds=[{seed}]", "ldg.epochs=6"], unfinished_trainings(lab)
    run = lab.start(experiment=TINY, settings=settings)
    lab.wait_until(lambda: unfinished_trainings(lab) - left)
    made, models = fingerprints(lab, "prepare") | fingerprints(lab, "graph"), fingerprints(lab, "train-ldg")
    if how == "killed":
        lab.kill("worker")
    else:
        lab.compose("stop", "worker")
        with connection() as client:
            assert not client.containers.list(all=True, filters={"label": OWNER})
        lab.up()
    assert lab.wait_for_end(run, 240) == "CRASHED"
    lab.wait_until(lambda: not lab.steps(), 120)
    trained(lab, lab.start(experiment=TINY, settings=settings), models)
    assert made.items() <= (fingerprints(lab, "prepare") | fingerprints(lab, "graph")).items()
    no_artifact_is_half(lab)


def test_a_run_without_a_heartbeat_has_an_automation_that_ends_it(lab: ComposeLab) -> None:
    (automation,) = lab.ask("automations/filter")
    assert automation["enabled"]
    assert automation["trigger"]["after"] == ["prefect.flow-run.heartbeat"]
    assert automation["trigger"]["within"] == 900, "a server, or a network, that is away for minutes ends nothing"
    assert automation["actions"][0]["state"] == "CRASHED"


@pytest.mark.skipif(
    "FER_TEST_MAY_RESTART_DOCKERD" not in os.environ, reason="would end every container of this machine"
)
def test_a_restarted_engine_ends_no_study(lab: ComposeLab) -> None:
    settings = [*OF_IMAGES, "dataset.image_size=80"]
    before = fingerprints(lab, "annotate")
    run = lab.start("annotate", experiment=TINY, settings=settings)
    lab.wait_until(lambda: lab.steps(FOLDER))
    restart_engine()
    if lab.wait_for_end(run) != "COMPLETED":
        assert lab.wait_for_end(lab.start("annotate", experiment=TINY, settings=settings)) == "COMPLETED"
    (made,) = fingerprints(lab, "annotate").keys() - before.keys()
    counts = json.loads((lab.artifacts / "annotate" / made / "aus.json").read_text())
    assert counts == {"ok": 196, "no_face": 7, "failed": 7}
    every_image_has_one_row(lab)
    no_artifact_is_half(lab)


def test_history_survives_down_and_up(lab: ComposeLab, first_run: str) -> None:
    assert lab.compose("down").returncode == 0
    with connection() as client:
        assert not client.containers.list(all=True, filters={"label": OWNER})
    lab.up()
    assert lab.state(first_run) == "COMPLETED"


def test_the_project_asks_for_no_more_than_it_needs(engine: docker.DockerClient) -> None:
    lab = ComposeLab(Path("/tmp"), 4200, 4201)
    services = json.loads(lab.compose("config", "--format", "json").stdout)["services"]
    for name, service in services.items():
        assert not service.get("privileged"), name
        assert service.get("network_mode") != "host", name
        assert all(port["host_ip"] == "127.0.0.1" for port in service.get("ports", ())), name
        assert ":" in service["image"], name
        assert not service["image"].endswith(":latest"), name
        assert service["logging"]["options"]["max-size"], name
        sees_socket = any("docker.sock" in volume["target"] for volume in service.get("volumes", ()))
        assert sees_socket == (name == "worker"), name
    assert list(services["postgres"]["networks"]) == ["database"]
    assert "ports" not in services["postgres"]
    for name in ("password", "server", "register", "worker", "reports"):
        sealed = services[name]
        assert (sealed["read_only"], sealed["cap_drop"]) == (True, ["ALL"]), name
        assert sealed["mem_limit"], name
        assert sealed["pids_limit"], name
    networks = json.loads(lab.compose("config", "--format", "json").stdout)["networks"]
    assert [list(services[name]["networks"]) for name in ("worker", "register")] == [["api"], ["api"]]
    assert networks["api"]["internal"]
    assert networks["database"]["internal"]


@pytest.mark.parametrize("files", [("compose.yaml", "compose.head.yaml"), ("compose.worker.yaml",)])
def test_head_and_workers_of_many_machines_are_sealed_as_one_machine_is(
    engine: docker.DockerClient, files: tuple[str, ...]
) -> None:
    told = {
        "FER_STORE": "/store",
        "FER_STORE_FOLDER": "/mnt/lab",
        "FER_URL": "http://head:4200",
        "FER_PASSWORD": "fer:secret",
        "PREFECT_API_URL": "http://head:4200/api",
    }
    named = [argument for file in files for argument in ("-f", file)]
    command = ["docker", "compose", *named, "config", "--format", "json"]
    root = Path(__file__).parent.parent
    done = subprocess.run(command, cwd=root, env=os.environ | told, capture_output=True, text=True, check=True)
    services = json.loads(done.stdout)["services"]
    works = services["worker" if "worker" in services else "steps"]
    assert (works["read_only"], works["cap_drop"]) == (True, ["ALL"])
    assert works["security_opt"] == ["no-new-privileges"]
    assert works["mem_limit"]
    assert works["pids_limit"]
    assert works["environment"]["FER_STORE"] == "/store"
    mounted = {volume["target"]: volume["source"] for volume in works["volumes"]}
    assert mounted["/store"] == "/mnt/lab"
    seeing = [name for name, service in services.items() if "docker.sock" in json.dumps(service.get("volumes", ()))]
    assert [services[name] for name in seeing] == [works]
    open_to_others = [
        name
        for name, service in services.items()
        for port in service.get("ports", ())
        if port["host_ip"] != "127.0.0.1"
    ]
    assert open_to_others == (["server"] if "worker" in services else [])
    # Copies are cleared where a worker keeps them, and so never beside the head's own.
    assert works["environment"]["FER_ARTIFACTS_FOLDER"] == (
        "/artifacts" if "worker" in services else "/artifacts/.worker"
    )


def test_up_waits_for_no_openface_and_its_arguments_are_said_once(engine: docker.DockerClient) -> None:
    lab = ComposeLab(Path("/tmp"), 4200, 4201, more={"FER_OPENFACE_ARGUMENTS": "-mloc model/main_clnf_general.txt"})
    services = json.loads(lab.compose("config", "--format", "json").stdout)["services"]
    assert "openface" not in services
    assert all("openface" not in service.get("depends_on", ()) for service in services.values())
    every = json.loads(lab.compose("--profile", "openface", "config", "--format", "json").stdout)["services"]
    assert every["openface"]["command"] == ["check", "-mloc", "model/main_clnf_general.txt"]
    assert every["worker"]["environment"]["FER_OPENFACE_ARGUMENTS"] == "-mloc model/main_clnf_general.txt"


def test_openface_is_looked_at_with_the_arguments_that_it_is_run_with(openface_image: str) -> None:
    fine = examine_openface(OpenFaceSettings(image=openface_image))
    assert (fine.passed, fine.message) == (True, "OpenFace annotated a portrait")
    missing = examine_openface(OpenFaceSettings(image="fer-openface:none"))
    assert not missing.passed
    assert missing.message == (
        "fer-openface:none: no such image; build it with `docker compose build openface`; drawn faces, and runs with "
        "--aus, need none"
    )
    lacks_its_model = examine_openface(OpenFaceSettings(image=openface_image, arguments=("-mloc", "nowhere.txt")))
    assert not lacks_its_model.passed
    assert "FER_OPENFACE_ARGUMENTS='-mloc model/main_clnf_general.txt'" in lacks_its_model.message
    other_model = ("-mloc", "model/main_clnf_general.txt")
    assert examine_openface(OpenFaceSettings(image=openface_image, arguments=other_model)).passed


def test_images_are_small(engine: docker.DockerClient, lab: ComposeLab) -> None:
    base = engine.images.get("debian:bookworm-slim").attrs["Size"]
    for image, limit in ((f"fer-prefect:{TAG}", 450e6), (f"fer-trainer:{TAG}", 1.6e9)):
        size = engine.images.get(image).attrs["Size"] - base
        tell_measured(f"{image}: {size / 1e6:.0f} MB above its base")
        assert size <= limit


@pytest.mark.parametrize("part", ["prefect", "trainer", "service"])
def test_an_image_of_a_clone_that_others_may_not_read_is_read_by_the_containers_user(
    images: "dict[str, Future[str]]", part: str, tmp_path: Path
) -> None:
    """As umask 077 makes it; what pip reads keeps its mode here, so that its layers are found again."""
    images[part].result()
    code = ("docker/start", "fer_core", "openface", "flows")
    shutil.copytree(ROOT / "docker", tmp_path / "docker")
    for name in ("pyproject.toml", ".dockerignore"):
        shutil.copy(ROOT / name, tmp_path)
    for name in code[1:]:
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    subprocess.run(["chmod", "-R", "go-rwx", *code], cwd=tmp_path, check=True)
    arguments = {"TORCH": "cpu"} if part == "trainer" else {}
    image = build_image(f"docker/{part}.Dockerfile", str(tmp_path), f"fer-test/{part}:private", **arguments)
    entrypoint = [] if part == "prefect" else ["--entrypoint", "env"]
    command = ["docker", "run", "--rm", "--network=none", *entrypoint, image, "python", "-c", "import fer_core.errors"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_clone_on_windows_has_scripts_that_containers_can_start() -> None:
    """Git for Windows would end their lines as Windows does, and no Linux finds `/bin/sh\\r`."""
    scripts = ["docker/start", "openface/annotate"]
    asked = subprocess.run(
        ["git", "check-attr", "eol", *scripts], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if asked.returncode:
        pytest.skip("no clone")
    assert asked.stdout.splitlines() == [f"{script}: eol: lf" for script in scripts]
