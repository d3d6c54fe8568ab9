"""A whole `docker compose up` for tests: its own project, ports and folders, on the stand-in for OpenFace."""

import base64
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import docker

from helpers.openface_images import CUES, picture
from openface.docker_engine import OWNER, engine

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
TAG = "test"
"""Tag of the images, so that those that a user of this machine works with stay as they are."""
USER = 1234
"""Owner of the artifacts' folder, as if that user had started it all."""
EMOTIONS = ("neutral", "happiness", "surprise", "sadness", "anger", "disgust", "fear")


@dataclass
class ComposeLab:
    """The project, and the folders that it was given."""

    folder: Path
    port: int
    reports_port: int
    project: str = "fer-test"
    more: dict[str, str] = field(default_factory=dict)
    seconds_to_ready: float = 0.0

    @property
    def artifacts(self) -> Path:
        return self.folder / "artifacts"

    @property
    def data(self) -> Path:
        return self.folder / "data"

    @property
    def api(self) -> str:
        return f"http://127.0.0.1:{self.port}/api"

    @property
    def password(self) -> str:
        """What the first `up` made; "" before it."""
        file = self.artifacts / ".password"
        return file.read_text().strip() if file.is_file() else ""

    @property
    def authorization(self) -> dict[str, str]:
        return {"Authorization": f"Basic {base64.b64encode(self.password.encode()).decode()}"}

    @property
    def environment(self) -> dict[str, str]:
        return {
            **os.environ,
            "PREFECT_API_AUTH_STRING": self.password,
            "FER_PORT": str(self.port),
            "FER_REPORTS_PORT": str(self.reports_port),
            "FER_ARTIFACTS": str(self.artifacts),
            "FER_DATA": str(self.data),
            "FER_TAG": TAG,
            "FER_TORCH": "cpu",
            "FER_OPENFACE": "fer-test/openface-standin:1",
            "PREFECT_API_URL": self.api,
            "PREFECT_HOME": str(self.folder / "prefect"),
            **self.more,
        }

    def prepare_folders(self) -> None:
        """Images of seven classes that the stand-in annotates, some of which it fails on, and the experiments."""
        self.artifacts.mkdir(parents=True)
        os.chown(self.artifacts, USER, USER)
        cues = ["", "", "no face", "", "abort", "", "several faces", *[""] * 23]
        for label, emotion in enumerate(EMOTIONS):
            (self.data / emotion).mkdir(parents=True)
            for number, cue in enumerate(cues):
                assert not cue or cue in CUES
                picture(1000 * label + number, cue, side=100).save(self.data / emotion / f"{number:03d}.png")
        shutil.copy(ROOT / "tests" / "tiny.toml", self.data / "tiny.toml")

    def compose(self, *arguments: str, timeout: float = 1200) -> "subprocess.CompletedProcess[str]":
        command = ["docker", "compose", "-p", self.project, *arguments]
        return subprocess.run(
            command, cwd=ROOT, env=self.environment, capture_output=True, text=True, timeout=timeout, check=False
        )

    def up(self) -> None:
        done = self.compose("up", "-d", "--wait")
        assert done.returncode == 0, done.stderr

    def down(self) -> None:
        self.compose("down", "-v", "--remove-orphans")

    def prefect(self, *arguments: str, timeout: float = 600) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [BIN / "prefect", *arguments],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    def start(self, deployment: str = "full-pipeline", **parameters: Any) -> str:
        """Start a run; its id."""
        options = [option for name, value in parameters.items() for option in ("-p", f"{name}={json.dumps(value)}")]
        before = {run["id"] for run in self.runs()}
        done = self.prefect("deployment", "run", f"fer/{deployment}", *options)
        assert done.returncode == 0, done.stderr + done.stdout
        (new,) = {run["id"] for run in self.runs()} - before
        return str(new)

    def ask(self, path: str, **body: Any) -> Any:
        """The API's answer; asked again while its server is away."""
        request = urllib.request.Request(
            f"{self.api}/{path}",
            json.dumps(body).encode(),
            {"Content-Type": "application/json", **self.authorization},
        )
        for _ in range(60):
            with suppress(OSError), urllib.request.urlopen(request, timeout=10) as answer:
                return json.load(answer)
            time.sleep(1)
        raise AssertionError(f"{self.api} stays away")

    def runs(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.ask("flow_runs/filter", sort="START_TIME_DESC", limit=100)
        return found

    def state(self, run: str) -> str:
        (found,) = [other for other in self.runs() if other["id"] == run]
        return str(found["state_type"])

    def wait_for_end(self, run: str, seconds: float = 600) -> str:
        self.wait_until(lambda: self.state(run) in ("COMPLETED", "FAILED", "CRASHED", "CANCELLED"), seconds)
        return self.state(run)

    def wait_until(self, holds: Callable[[], object], seconds: float = 240) -> None:
        deadline = time.monotonic() + seconds
        while not holds():
            if time.monotonic() > deadline:
                logs = self.compose("logs", "--no-log-prefix", "--tail", "40", "worker").stdout
                raise AssertionError(f"not within {seconds} s; the worker's log ends with\n{logs}")
            time.sleep(0.1)

    def steps(self, label: str = OWNER) -> list[Any]:
        """Containers of steps that are running."""
        with engine() as client:
            worker = self.worker(client)
            owned = client.containers.list(all=True, filters={"label": f"{OWNER}={worker}"}, ignore_removed=True)
            return [container for container in owned if label in container.labels]

    def worker(self, client: docker.DockerClient) -> str:
        return str(client.containers.get(f"{self.project}-worker-1").id)[:12]

    def kill_step(self, container: Any) -> bool:
        """SIGKILL, likewise; whether it was still there."""
        with suppress(docker.errors.NotFound, ProcessLookupError):
            process = container.client.api.inspect_container(container.id)["State"]["Pid"]
            if process:
                os.kill(process, signal.SIGKILL)
                return True
        return False

    def kill(self, service: str) -> None:
        """SIGKILL, from outside of the engine, so that it takes it for a crash."""
        with engine() as client:
            process = client.api.inspect_container(f"{self.project}-{service}-1")["State"]["Pid"]
        os.kill(process, signal.SIGKILL)


def restart_engine() -> None:
    """End dockerd as a reboot would, and start it as it was."""
    found = [p for p in Path("/proc").iterdir() if p.name.isdigit() and _name(p) == "dockerd"]
    (process,) = found
    command = (process / "cmdline").read_bytes().rstrip(b"\0").split(b"\0")
    os.kill(int(process.name), signal.SIGTERM)
    while process.exists() and _name(process) == "dockerd":
        time.sleep(0.1)
    with Path("/var/tmp/dockerd-again.log").open("ab") as log:
        subprocess.run(["setsid", "--fork", *command], stdin=subprocess.DEVNULL, stdout=log, stderr=log, check=True)
    for _ in range(60):
        with suppress(Exception), engine() as client:
            client.ping()
            return
        time.sleep(0.5)
    raise AssertionError("dockerd did not come up again")


def _name(process: Path) -> str:
    with suppress(OSError):
        status = (process / "stat").read_text()
        return "" if ") Z " in status else (process / "comm").read_text().strip()
    return ""
