"""`docker compose up` as a user types it: a run to its end, what Prefect shows of it, and every way to disturb it."""

import json
import os
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest

import docker
from flows.containers import STEP
from flows.server import free_port
from openface.engine import OWNER
from openface.engine import engine as connection
from openface.program import FOLDER
from tests.browsing import CHROMIUM, DRIVER, NO_BROWSER, browser, until
from tests.compose_lab import TAG, USER, ComposeLab, restart_engine
from tests.measured import tell_measured

pytestmark = pytest.mark.engine
TINY = "/data/tiny.toml"
OF_IMAGES = ["dataset.source=folder", 'openface.arguments=["-standin_ms","40"]', "openface.batch=20"]
MODELS = ["EF + LDG-AUs", "EF + LDG", "EF SLL", "LDG-AUs", "LDG"]


@pytest.fixture(scope="module")
def lab(openface_image: str, trainer_image: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ComposeLab]:
    made = ComposeLab(tmp_path_factory.mktemp("compose"), free_port(), free_port())
    made.prepare_folders()
    made.compose("down", "-v", "--remove-orphans")
    done = made.compose("build")
    assert done.returncode == 0, done.stderr
    started = time.monotonic()
    made.up()
    tell_measured(f"docker compose up to ready: {time.monotonic() - started:.0f} s")
    assert time.monotonic() - started <= 40
    yield made
    made.compose("down", "-v", "--remove-orphans")


@pytest.fixture(autouse=True)
def nothing_left(request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    if "lab" in request.fixturenames:
        lab: ComposeLab = request.getfixturevalue("lab")
        lab.wait_until(lambda: not lab.steps(), 30)


def artifact(lab: ComposeLab, key: str, run: str) -> dict[str, object]:
    found = lab.ask(
        "artifacts/filter", artifacts={"key": {"any_": [key]}, "flow_run_id": {"any_": [run]}}, sort="CREATED_DESC"
    )
    (latest, *_) = found
    return dict(latest)


def results_of(lab: ComposeLab, run: str) -> dict[str, object]:
    report = str(artifact(lab, "report", run)["description"]).removeprefix("/artifacts/")
    return dict(json.loads((lab.artifacts / report / "results.json").read_text()))


def annotation_of(lab: ComposeLab, run: str) -> dict[str, int]:
    """Images by status, of a run that annotated them."""
    return {row["status"]: row["images"] for row in json.loads(str(artifact(lab, "annotation", run)["data"]))}


def fingerprints(lab: ComposeLab, step: str) -> dict[str, float]:
    """The finished artifacts of a step, and when each was made."""
    return {folder.name: folder.stat().st_mtime for folder in (lab.artifacts / step).glob("?" * 16)}


def a_seed(lab: ComposeLab) -> int:
    """One that no run had yet, so that its trainings are to be made."""
    return 10 + len(lab.runs())


def unfinished_trainings(lab: ComposeLab) -> set[Path]:
    """Where an epoch is finished and the training is not; those that cancelled runs left are among them."""
    return set((lab.artifacts / "train-ldg").glob("*.unfinished/resume.pt"))


def no_artifact_is_half(lab: ComposeLab) -> None:
    left = [path for path in lab.artifacts.glob("*/*") if not (path / "manifest.json").is_file()]
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
    table = json.loads(str(artifact(lab, "paper-table", first_run)["data"]))
    results = results_of(lab, first_run)["table"]
    assert isinstance(results, dict)
    assert results["columns"] == MODELS
    assert {row["accuracy, %"]: [row[name] for name in MODELS] for row in table} == results["rows"]


def test_what_is_made_belongs_to_who_owns_the_folder(lab: ComposeLab, first_run: str) -> None:
    assert {path.stat().st_uid for path in lab.artifacts.rglob("*")} == {USER}


def test_the_report_is_where_the_link_says(lab: ComposeLab, first_run: str) -> None:
    link = str(artifact(lab, "report", first_run)["data"])
    address = link[link.index("http") :].rstrip(")")
    assert address.startswith(f"http://127.0.0.1:{lab.reports_port}/")
    with urllib.request.urlopen(address, timeout=10) as page:
        assert b"<!doctype html>" in page.read()[:100].lower()


def test_coverage_histograms_graph_and_curves_are_there_to_look_at(lab: ComposeLab, first_run: str) -> None:
    keys = ("annotation", "au-coverage", "neighbour-graph", "paper-table", "epochs-ldg-seed-1")
    assert all(artifact(lab, key, first_run) for key in keys)
    for key in ("au-histograms", "graph-figure", "curves-ldg-aus-seed-1", "curves-ef-ldg-seed-1"):
        assert str(artifact(lab, key, first_run)["data"]).startswith("data:image/png;base64,")


def test_the_pages_show_the_run_and_its_artifacts(lab: ComposeLab, first_run: str, tmp_path: Path) -> None:
    if CHROMIUM is None or DRIVER is None:
        pytest.skip(NO_BROWSER)
    with browser(tmp_path) as driver:
        for page, wanted in (
            (f"runs/flow-run/{first_run}", ("Completed", TINY)),
            ("artifacts", ("paper-table",)),
        ):
            driver.get(f"http://127.0.0.1:{lab.port}/{page}")
            for words in wanted:
                until(lambda words=words: words in driver.page_source, f"{page} shows {words!r}", patience=60)


def test_a_run_over_images_annotates_them_in_containers(lab: ComposeLab) -> None:
    run = lab.start(experiment=TINY, settings=[*OF_IMAGES, f"seeds=[{a_seed(lab)}]"])
    assert lab.wait_for_end(run) == "COMPLETED"
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


def test_a_cancelled_run_leaves_no_container(lab: ComposeLab) -> None:
    run = lab.start(experiment=TINY, settings=[f"seeds=[{a_seed(lab)}]", "ldg.epochs=300"])
    lab.wait_until(lambda: any(step.labels[STEP] == "train-ldg" for step in lab.steps(STEP)))
    started = time.monotonic()
    assert lab.prefect("flow-run", "cancel", run).returncode == 0
    lab.wait_until(lambda: not lab.steps(), 15)
    tell_measured(f"containers gone {time.monotonic() - started:.1f} s after the cancellation")
    assert lab.wait_for_end(run, 60) == "CANCELLED"
    no_artifact_is_half(lab)


def test_a_killed_trainer_goes_on_from_its_last_epoch(lab: ComposeLab) -> None:
    seed = a_seed(lab)
    before, left = fingerprints(lab, "prepare"), unfinished_trainings(lab)
    run = lab.start(experiment=TINY, settings=[f"seeds=[{seed}]", "ldg.epochs=6"])
    lab.wait_until(lambda: unfinished_trainings(lab) - left)
    killed = [step for step in lab.steps(STEP) if step.labels[STEP] == "train-ldg"]
    assert killed
    for step in killed:
        lab.kill_step(step)
    assert lab.wait_for_end(run) == "COMPLETED"
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
    seed = a_seed(lab)
    settings = [f"seeds=[{seed}]", "ldg.epochs=4"]
    run = lab.start(experiment=TINY, settings=settings)
    lab.wait_until(lambda: any(step.labels[STEP] == "train-ldg" for step in lab.steps(STEP)))
    lab.kill("server")
    if lab.wait_for_end(run) != "COMPLETED":
        made = fingerprints(lab, "train-ldg")
        assert lab.wait_for_end(lab.start(experiment=TINY, settings=settings)) == "COMPLETED"
        assert made.items() <= fingerprints(lab, "train-ldg").items()
    no_artifact_is_half(lab)


@pytest.mark.parametrize("how", ["killed", "stopped"])
def test_a_run_whose_worker_ends_leaves_no_container_and_its_rerun_picks_up(lab: ComposeLab, how: str) -> None:
    seed = a_seed(lab)
    settings, left = [f"seeds=[{seed}]", "ldg.epochs=6"], unfinished_trainings(lab)
    run = lab.start(experiment=TINY, settings=settings)
    lab.wait_until(lambda: unfinished_trainings(lab) - left)
    made = fingerprints(lab, "prepare") | fingerprints(lab, "graph")
    if how == "killed":
        lab.kill("worker")
    else:
        lab.compose("stop", "worker")
        with connection() as client:
            assert not client.containers.list(all=True, filters={"label": OWNER})
        lab.up()
    assert lab.wait_for_end(run, 120) == "CRASHED"
    lab.wait_until(lambda: not lab.steps(), 60)
    assert lab.wait_for_end(lab.start(experiment=TINY, settings=settings)) == "COMPLETED"
    assert made.items() <= (fingerprints(lab, "prepare") | fingerprints(lab, "graph")).items()
    no_artifact_is_half(lab)


def test_a_run_without_a_heartbeat_has_an_automation_that_ends_it(lab: ComposeLab) -> None:
    (automation,) = lab.ask("automations/filter")
    assert automation["enabled"]
    assert automation["trigger"]["after"] == ["prefect.flow-run.heartbeat"]
    assert automation["trigger"]["within"] == 90
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
    if lab.wait_for_end(run, 300) != "COMPLETED":
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


def test_images_are_small(engine: docker.DockerClient, lab: ComposeLab) -> None:
    base = engine.images.get("debian:bookworm-slim").attrs["Size"]
    for image, limit in ((f"fer-prefect:{TAG}", 450e6), (f"fer-trainer:{TAG}", 1.6e9)):
        size = engine.images.get(image).attrs["Size"] - base
        tell_measured(f"{image}: {size / 1e6:.0f} MB above its base")
        assert size <= limit


def test_no_container_of_a_step_sees_the_engine(lab: ComposeLab) -> None:
    run = lab.start(experiment=TINY, settings=[f"seeds=[{a_seed(lab)}]", "ldg.epochs=300"])
    lab.wait_until(lambda: any(step.labels[STEP] == "train-ldg" for step in lab.steps(STEP)))
    for step in lab.steps(OWNER):
        about = step.client.api.inspect_container(step.id)
        assert not [mount for mount in about["Mounts"] if "docker.sock" in mount["Source"]]
        assert about["HostConfig"]["NetworkMode"] == "none"
        assert about["HostConfig"]["ReadonlyRootfs"]
    lab.prefect("flow-run", "cancel", run)
    lab.wait_until(lambda: not lab.steps(), 15)
