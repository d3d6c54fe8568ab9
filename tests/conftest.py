"""What several tests start from: a small dataset whose classes can be told apart, and its graph."""

import gc
import os
import subprocess
from collections.abc import Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import docker
import numpy as np
import pandas as pd
import pytest
import torch
from helpers.measured import MEASURED

from fer_core.data.dataset import EMOTIONS, Dataset, DatasetCard, open_dataset, save_dataset
from fer_core.graph.neighbours import Graph
from fer_core.progress import JsonLines
from openface.docker_engine import engine as connection
from openface.errors import EngineAway

if TYPE_CHECKING:
    from helpers.deployed_model import DeployedModel

ROOT = Path(__file__).parent.parent
torch.set_num_threads(1)


def striped_dataset(folder: Path, count: int = 60, size: int = 48, labels: tuple[str, ...] = EMOTIONS[:3]) -> Dataset:
    """Stripes whose direction is the label, in noise; two thirds train, the rest validation and test."""
    generator = np.random.default_rng(0)
    label = np.arange(count) % len(labels)
    row, column = np.mgrid[:size, :size]
    waves = [np.sin(np.cos(a) * row / 2 + np.sin(a) * column / 2) for a in np.pi * np.arange(len(labels)) / len(labels)]
    pixels = 128 + 60 * np.array(waves)[label][..., None] + generator.normal(0, 30, (count, size, size, 1))
    folder.mkdir(parents=True, exist_ok=True)
    np.save(folder / "images.npy", np.clip(pixels, 0, 255).astype(np.uint8))
    split = np.array(["train", "train", "train", "train", "validation", "test"])[np.arange(count) // len(labels) % 6]
    crowd = np.full((count, len(labels)), 0.1 / (len(labels) - 1))
    crowd[np.arange(count), label] = 0.9
    manifest = pd.DataFrame(
        {"id": [f"face{i:04d}" for i in range(count)], "sha256": "", "split": split, "label": label}
    )
    manifest[[f"crowd_{name}" for name in labels]] = crowd
    card = DatasetCard("striped", labels, "stripes", "true distribution", (0.5,), (0.2,), {})
    save_dataset(folder, card, manifest)
    return open_dataset(folder)


def chain_graph(dataset: Dataset, k: int = 2) -> Graph:
    """Each training image linked to the next k of its own label, the last ones to none."""
    shape = (len(dataset.manifest), k)
    neighbours = np.full(shape, -1, np.int32)
    for label in range(len(dataset.card.labels)):
        rows = dataset.rows("train")[dataset.labels()[dataset.rows("train")] == label]
        for step in range(1, k + 1):
            neighbours[rows[:-step], step - 1] = rows[step:]
    linked = neighbours >= 0
    return Graph(
        neighbours, np.where(linked, 1.0, np.nan).astype(np.float32), np.where(linked, 0.5, 0).astype(np.float32)
    )


def pytest_configure() -> None:
    gc.set_threshold(10_000)  # As in the commands: of all that torch and Prefect import, nothing becomes garbage.


def pytest_unconfigure() -> None:
    gc.freeze()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A report carries what its test measured, from the process that ran it to the one that prints the summary."""
    report = yield
    report.user_properties += [("measured", figure) for figure in MEASURED]
    MEASURED.clear()
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    reports = [report for reports in terminalreporter.stats.values() for report in reports]
    for report in reports:
        for name, figure in getattr(report, "user_properties", ()):
            if name == "measured":
                terminalreporter.write_line(f"measured: {figure}")


@pytest.fixture(scope="session")
def engine() -> Iterator[docker.DockerClient]:
    """A container engine; tests that want one are skipped where there is none."""
    try:
        with connection() as client:
            client.ping()
    except EngineAway as away:
        pytest.skip(str(away))
    if os.geteuid():
        pytest.skip("tests of containers give folders to other users, which only root may")
    client = docker.from_env()
    yield client
    client.close()


@pytest.fixture(scope="session")
def images(engine: docker.DockerClient) -> Iterator[dict[str, "Future[str]"]]:
    """Tags of the images, built side by side: most of the time a package is on its way to a disk."""
    with ThreadPoolExecutor() as builds:
        yield {
            "trainer": builds.submit(build_image, "docker/trainer.Dockerfile", ".", "fer-trainer:test", TORCH="cpu"),
            "prefect": builds.submit(build_image, "docker/prefect.Dockerfile", ".", "fer-prefect:test"),
            "service": builds.submit(build_image, "docker/service.Dockerfile", ".", "fer-service:test"),
            "openface": builds.submit(build_openface),
        }


@pytest.fixture(scope="session")
def openface_image(images: dict[str, "Future[str]"]) -> str:
    """Our OpenFace image, on a stand-in for the public one."""
    return images["openface"].result()


@pytest.fixture(scope="session")
def trainer_image(images: dict[str, "Future[str]"]) -> str:
    """What trains, without CUDA."""
    return images["trainer"].result()


def build_openface() -> str:
    standin = build_image("tests/openface/Dockerfile", "tests/openface", "fer-test/openface-standin:1")
    return build_image("openface/Dockerfile", ".", "fer-test/openface:1", OPENFACE=standin)


def build_image(dockerfile: str, context: str, tag: str, **arguments: str) -> str:
    """By the command line, since the SDK does not know BuildKit; returns the tag."""
    options = [option for name, value in arguments.items() for option in ("--build-arg", f"{name}={value}")]
    command = ["docker", "build", "-q", "-f", dockerfile, "-t", tag, *options, context]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return tag


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    return striped_dataset(tmp_path / "dataset")


@pytest.fixture
def graph(dataset: Dataset) -> Graph:
    return chain_graph(dataset)


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> "DeployedModel":
    """A trained checkpoint and its dataset."""
    from helpers.deployed_model import deployed_model

    return deployed_model(tmp_path_factory.mktemp("deployed"))


@pytest.fixture(scope="session")
def exported(model: "DeployedModel", tmp_path_factory: pytest.TempPathFactory) -> Path:
    """That checkpoint as ONNX."""
    from fer_core.export.export import export

    return export(model.checkpoint, "onnx", tmp_path_factory.mktemp("export"), None, JsonLines())
