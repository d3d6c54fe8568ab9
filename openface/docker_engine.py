"""Docker: connect, create locked-down containers, wait, clean up."""

import os
import re
import socket
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import docker
import requests
from docker.errors import APIError, DockerException, ImageNotFound, NotFound
from docker.models.containers import Container
from docker.types import DeviceRequest, Mount

from openface.errors import EngineAway, EngineRefused
from openface.settings import INSIDE

OWNER = "fer.owner"
"""Label: the container, or machine, whose process started this one."""
PROCESS = "fer.process"
"""Label: that process's number there."""

HOST = "FER_DOCKER_HOST"
"""Environment: the engine's address, where it is not the usual one."""
NOBODY = 10001
"""The user that steps run as where their folder is root's."""

_USUAL = "unix:///var/run/docker.sock"
_PIDS = 512


@dataclass(frozen=True)
class ContainerSpec:
    """Specification of a container: program, visible files, and limits."""

    image: str
    command: Sequence[str]
    """Arguments of the image's entrypoint."""
    read: Mapping[str, Path] = field(default_factory=dict)
    """Folders and files it may read, by the path they are to have inside."""
    write: Mapping[str, Path] = field(default_factory=dict)
    """Folders it may write, likewise."""
    environment: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    memory: int = 2 << 30
    """Bytes."""
    cores: float = 1.0
    gpu: str = ""
    """The UUID of the one that it may use, "all" for all of them, "" for none."""


@contextmanager
def engine() -> Iterator[docker.DockerClient]:
    """A connection of its own, for one thread.

    Raises:
        EngineAway: nothing answers there.
    """
    address = os.environ.get(HOST) or os.environ.get("DOCKER_HOST") or _USUAL
    if address.startswith("unix://") and not Path(address.removeprefix("unix://")).exists():
        raise EngineAway(f"no container engine at {address}")
    try:
        client = docker.from_env(environment={**os.environ, "DOCKER_HOST": address})
    except (DockerException, requests.RequestException) as error:
        raise EngineAway(f"no container engine at {address} ({_words(error)})") from error
    try:
        yield client
    except (requests.RequestException, ConnectionError) as error:
        raise EngineAway(f"the container engine broke off ({_words(error)})") from error
    except APIError as error:
        raise _translated(error) from error
    finally:
        client.close()


def require_engine(*images: str) -> None:
    """See that the engine answers and has the images.

    Raises:
        EngineAway: it does not answer.
        EngineRefused: it lacks an image.
    """
    with engine() as client:
        for image in images:
            require_image(client, image)


def require_image(client: docker.DockerClient, image: str) -> None:
    """See that the engine has an image.

    Raises:
        EngineRefused: it has not.
    """
    try:
        client.images.get(image)
    except ImageNotFound as error:
        ours = re.fullmatch("fer-(trainer|openface)(:.*)?", image)
        build = f"docker compose build {ours[1]}" if ours else "docker compose build"
        raise EngineRefused(f"{image}: no such image; build it with `{build}`") from error


def image_id(client: docker.DockerClient, image: str) -> str:
    """What the engine knows an image by, whatever it is called: another build has another.

    Raises:
        EngineRefused: it lacks the image.
    """
    require_image(client, image)
    return str(client.images.get(image).id)


def create(client: docker.DockerClient, spec: ContainerSpec) -> Container:
    """The container, not started: no network, a root that cannot be written, no capability, no root user.

    Raises:
        EngineRefused: the engine lacks the image or cannot give what is asked for.
    """
    require_image(client, spec.image)
    mounts = [_mount(client, inside, path, read_only=True) for inside, path in spec.read.items()]
    mounts += [_mount(client, inside, path, read_only=False) for inside, path in spec.write.items()]
    # The types' package lags behind: it does not know every argument.
    options: dict[str, Any] = {
        "network_mode": "none",
        "read_only": True,
        "tmpfs": {"/tmp": "rw,nosuid,nodev,size=1g,mode=1777"},
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges"],
        "user": _user(spec.write.values()),
        "mem_limit": spec.memory,
        "memswap_limit": spec.memory,
        "pids_limit": _PIDS,
        "init": True,
        "labels": {**owner_labels(), **spec.labels},
        "environment": dict(spec.environment),
        "mounts": mounts,
        "log_config": {"Type": "json-file", "Config": {"max-size": "20m", "max-file": "2"}},
    }
    if client.info().get("CPUCfsQuota", True):
        # A rootless engine may have no say over this.
        options["nano_cpus"] = int(spec.cores * 1e9)
    if spec.gpu:
        which: dict[str, Any] = {"count": -1} if spec.gpu == "all" else {"device_ids": [spec.gpu]}
        options["device_requests"] = [DeviceRequest(capabilities=[["gpu"]], **which)]
    return client.containers.create(spec.image, list(spec.command), **options)


def remove(container: Container) -> None:
    """End a container and take it away; one that has gone already is no matter."""
    with suppress(APIError, requests.RequestException):
        container.remove(force=True, v=True)


def remove_labelled(client: docker.DockerClient, labels: Mapping[str, str]) -> int:
    """Take away every container with these labels, and tell how many."""
    wanted = [name if value == "" else f"{name}={value}" for name, value in labels.items()]
    found = client.containers.list(all=True, filters={"label": wanted}, ignore_removed=True)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(remove, found))
    return len(found)


def remove_orphans(client: docker.DockerClient, starting: bool = False) -> int:
    """Take away containers whose process is no more, and tell how many.

    starting: this process is its container's first, so that whatever an earlier life of it started is an orphan.
    """
    orphans = 0
    for container in client.containers.list(all=True, filters={"label": OWNER}, ignore_removed=True):
        if _is_orphan(client, container, starting):
            remove(container)
            orphans += 1
    return orphans


def owner_labels() -> dict[str, str]:
    """Labels that name the process that started a container, so that orphans can be found."""
    return {OWNER: socket.gethostname(), PROCESS: str(os.getpid())}


def has_gpu(client: docker.DockerClient) -> bool:
    """Tell whether the engine can hand a GPU on: NVIDIA's runtime, or devices that it has discovered itself."""
    about = client.info()
    discovered = about.get("DiscoveredDevices") or ()
    return "nvidia" in about.get("Runtimes", {}) or any("nvidia.com/gpu" in str(device) for device in discovered)


def host_path(client: docker.DockerClient, path: Path) -> str:
    """The place where the engine finds a path of this process: itself, or, in a container, what is mounted there.

    Links and `..` are followed first, so that what is named below a mounted folder also lies there. The engine's
    socket is mounted too, but is no folder, and nothing else ever gets it.

    Raises:
        EngineRefused: the path is in this container alone.
    """
    if not os.environ.get(INSIDE):
        return str(path)
    real = path.resolve()
    mounts = client.api.inspect_container(socket.gethostname())["Mounts"]
    folders = {Path(mount["Destination"]): Path(mount["Source"]) for mount in mounts}
    for folder in sorted((f for f in folders if f.is_dir()), key=lambda f: -len(f.parts)):
        if real.is_relative_to(folder):
            return str(folders[folder] / real.relative_to(folder))
    raise EngineRefused(f"{path}: not in a folder that is mounted here; put it below FER_DATA")


def wait_for(container: Container, seconds: float | None = None) -> int | None:
    """The exit code, once it has ended; None where it has not ended within `seconds`, which None does not bound."""
    deadline = None if seconds is None else time.monotonic() + seconds
    while True:
        left = 30.0 if deadline is None else min(30.0, deadline - time.monotonic())
        if left <= 0:
            return None
        try:
            return int(container.wait(timeout=left)["StatusCode"])
        except requests.exceptions.ConnectionError as error:
            # A read that times out comes as this, and so does an engine that breaks off.
            if "Read timed out" not in str(error):
                raise
        except requests.exceptions.ReadTimeout:
            continue


def memory_of(client: docker.DockerClient) -> int:
    """Bytes of memory that the engine's machine has."""
    return int(client.info()["MemTotal"])


def cores_of(client: docker.DockerClient) -> int:
    """Cores that the engine's machine has."""
    return int(client.info()["NCPU"])


def ran_out_of_memory(container: Container) -> bool:
    """Tell whether the kernel ended something in it for its memory limit."""
    container.reload()
    return bool(container.attrs["State"].get("OOMKilled"))


def _is_orphan(client: docker.DockerClient, container: Container, starting: bool) -> bool:
    owner, process = container.labels.get(OWNER, ""), container.labels.get(PROCESS, "0")
    if owner == socket.gethostname():
        return starting or not _lives(int(process))
    if not os.environ.get(INSIDE):
        return False  # Another machine's, or a worker's own: theirs to take away.
    try:
        return client.containers.get(owner).status not in ("running", "restarting", "paused")
    except NotFound:
        # Started by hand on the machine itself, where this one cannot see whether the process lives.
        return len(owner) == 12 and all(letter in "0123456789abcdef" for letter in owner)


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _mount(client: docker.DockerClient, inside: str, path: Path, read_only: bool) -> Mount:
    return Mount(inside, host_path(client, path), type="bind", read_only=read_only)


def _user(written: Iterable[Path]) -> str:
    """The user who owns the folders that are written to; never root."""
    for folder in written:
        status = folder.stat()
        if status.st_uid:
            return f"{status.st_uid}:{status.st_gid}"
    return f"{NOBODY}:{NOBODY}"


def _translated(error: APIError) -> Exception:
    """A refusal that stays one, or a hiccup."""
    text = _words(error)
    if "could not select device driver" in text or "nvidia" in text.lower():
        return EngineRefused(f"the engine has no GPU to give ({text}); install NVIDIA's container toolkit, or set cpu")
    if error.status_code in (400, 404):
        return EngineRefused(f"the container engine refuses: {text}")
    return EngineAway(f"the container engine failed: {text}")


def _words(error: BaseException) -> str:
    text = getattr(error, "explanation", None) or str(error)
    return " ".join(str(text).split())
