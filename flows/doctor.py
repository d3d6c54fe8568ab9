"""`fer doctor`: one line for each thing that a run needs, and what to do if it is missing."""

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import docker
from docker.errors import ImageNotFound

from fer_core import __version__
from fer_core.errors import ExperimentError
from flows.gpus import ALL, usable_gpus
from flows.granted import OPENFACE
from flows.prefect_server import (
    LOCAL,
    NoServer,
    reach_this_machine_directly,
    reading_settings,
    trouble_with,
    users_server,
)
from flows.shared_place import STORE, StoreAway, StoreError
from flows.store import Store
from openface.docker_engine import ContainerSpec, create, engine, has_gpu, memory_of, remove, wait_for
from openface.errors import EngineAway, EngineRefused
from openface.program import check_spec, is_program
from openface.settings import OpenFaceSettings

_ENOUGH_DISK = 10e9
IMAGES = tuple(f"fer-{part}:{__version__}" for part in ("trainer", "prefect"))
_TRAINER, _PREFECT = IMAGES
_OTHER_MODEL = (
    "where it lacks CE-CLM's files, set FER_OPENFACE_ARGUMENTS='-mloc model/main_clnf_general.txt'; else build it "
    "again with `docker compose build openface`"
)
_QUEUES_NEEDED = {
    "cpu": "start one as docs/scale.md says",
    "openface": "`docker compose -f compose.worker.yaml build openface` on a machine that works, and start its worker "
    "again; runs with --aus need none",
}
"""By queue, what to do where nobody serves it; trainings go to `cpu` where there is no GPU."""
_WITHOUT_OPENFACE = "drawn faces, and runs with --aus, need none"


@dataclass(frozen=True)
class Check:
    """One thing that was checked, the verdict, and what it is or what to do."""

    what: str
    passed: bool
    message: str


def examine(artifacts: Path, openface: OpenFaceSettings) -> list[Check]:
    """All of it, in the order in which one thing needs another."""
    with_engine: list[tuple[str, Callable[[docker.DockerClient], str]]] = [
        ("images", _images),
        ("training", _training),
        ("GPU", _gpu),
    ]
    checks = [_looked_at("engine", _engine)]
    if checks[0].passed:
        checks += [_looked_at(what, _inside(look)) for what, look in with_engine]
    checks.append(examine_openface(openface))
    checks.append(_looked_at("Prefect", _prefect))
    checks.append(_looked_at("disk", lambda: _disk(artifacts)))
    if place := os.environ.get(STORE):
        checks.append(_looked_at("store", lambda: _store(place)))
        if all(check.passed for check in checks if check.what in ("Prefect", "store")):
            try:
                checks += _workers(Store(place))
            except (StoreError, StoreAway) as wrong:
                checks.append(Check("workers", False, str(wrong)))
    return checks


def examine_openface(settings: OpenFaceSettings) -> Check:
    """Tell whether OpenFace, with the arguments that it is run with, annotates a portrait."""
    return _looked_at("OpenFace", lambda: _openface(settings))


class _Wrong(Exception):
    """Something that is not as it should be; its text says what to do."""


def _looked_at(what: str, look: Callable[[], str]) -> Check:
    try:
        return Check(what, True, look())
    except (_Wrong, ExperimentError, EngineAway, EngineRefused) as wrong:
        return Check(what, False, str(wrong))


def _inside(look: Callable[[docker.DockerClient], str]) -> Callable[[], str]:
    def looked() -> str:
        with engine() as client:
            return look(client)

    return looked


def _engine() -> str:
    try:
        with engine() as client:
            about = client.info()
            return f"{about['ServerVersion']}, {about['NCPU']} cores, {memory_of(client) / 2**30:.0f} GiB"
    except EngineAway as away:
        raise _Wrong(f"{away}; start Docker, or see FER_DOCKER_HOST. `fer run` works without one") from away


def _images(client: docker.DockerClient) -> str:
    missing = [image for image in IMAGES if not _has(client, image)]
    if missing:
        raise _Wrong(f"{', '.join(missing)} not built; run `docker compose build`")
    return ", ".join(IMAGES)


def _has(client: docker.DockerClient, image: str) -> bool:
    try:
        client.images.get(image)
    except ImageNotFound:
        return False
    return True


def _training(client: docker.DockerClient) -> str:
    spec = ContainerSpec(_TRAINER, ["device"], gpu=ALL if has_gpu(client) else "")
    return _said(client, spec, "build it again with `docker compose build trainer`")


def _gpu(client: docker.DockerClient) -> str:
    if has_gpu(client):
        gpus = usable_gpus()
        return f"{len(gpus) or 1}, and a step that trains is given one: {', '.join(gpus) or ALL}"
    if Path("/proc/driver/nvidia/version").exists():
        raise _Wrong("this machine has one, and the engine cannot hand it on; install NVIDIA's container toolkit")
    return "none; the steps run on the CPU"


def _openface(settings: OpenFaceSettings) -> str:
    if settings.binary:
        if not is_program(settings.binary):
            raise _Wrong(f"openface.binary = {settings.binary}: no program there; {_WITHOUT_OPENFACE}")
        return settings.binary
    image = os.environ.get(OPENFACE) or settings.image
    try:
        with engine() as client:
            return _said(client, check_spec(replace(settings, image=image)), _OTHER_MODEL).partition(":")[0]
    except (EngineAway, EngineRefused) as wrong:
        raise _Wrong(f"{wrong}; {_WITHOUT_OPENFACE}") from wrong


def _said(client: docker.DockerClient, spec: ContainerSpec, remedy: str) -> str:
    """The last line that a container says, if it ends well."""
    container = create(client, spec)
    try:
        container.start()
        exit_code = wait_for(container, seconds=120)
        lines = container.logs().decode(errors="replace").strip().splitlines()
    finally:
        remove(container)
    if exit_code != 0 or not lines:
        last = lines[-1] if lines else "it said nothing"
        raise _Wrong(f"{spec.image} failed its check ({last}); {remedy}")
    return lines[-1]


def _prefect() -> str:
    try:
        with reading_settings():
            from prefect import __version__ as prefect_version
            from prefect.settings import get_current_settings

            get_current_settings()
    except NoServer as misread:
        raise _Wrong(str(misread)) from misread
    needed = "it, since FER_STORE is set" if os.environ.get(STORE) else "none"
    if os.environ.get(STORE) and users_server() is None:
        raise _Wrong("FER_STORE is set, and no server that its workers ask; set PREFECT_API_URL to theirs")
    url = (users_server() or LOCAL).rstrip("/")
    reach_this_machine_directly(url)
    if wrong := trouble_with(url):
        raise _Wrong(f"{wrong}. `docker compose up -d` starts one, and `fer run` needs {needed}")
    return f"{prefect_version}, server at {url}"


def _store(place: str) -> str:
    try:
        store = Store(place)
        store.require_writable()
        there = list(store.artifacts())
    except (StoreError, StoreAway) as wrong:
        raise _Wrong(str(wrong)) from wrong
    return f"{len(there)} artifacts, {sum(one.size for one in there) / 1e9:.2f} GB in {place}"


def _workers(store: Store) -> list[Check]:
    """What the workers of steps have, and whether they see the store that this machine sees."""
    from prefect.client.orchestration import get_client

    from flows.sent_step import code_version
    from flows.steps_worker import notices, online, worker_name

    with get_client(sync_client=True) as client:
        names = online(client)
    if not names:
        message = "none takes steps; start one on each machine as docs/scale.md says"
        return [Check("workers", False, message)]
    checks, seen = [], set[str]()
    for notice in notices(store):
        own = {worker_name(notice.host, queue) for queue in notice.queues} & set(names)
        seen |= own
        if own:
            has = ", ".join(f"{steps} × {queue}" for queue, steps in notice.queues.items())
            message = f"{notice.host}: {has}; {notice.cores} cores, {notice.free / 1e9:.0f} GB free"
            same = notice.code == code_version()
            checks.append(Check("worker", same, message if same else f"{notice.host}: has other code; update it"))
    for name in sorted(set(names) - seen):
        message = f"{name}: does not see the store {store.place}; give it the same FER_STORE, and access"
        checks.append(Check("worker", False, message))
    for queue, remedy in _QUEUES_NEEDED.items():
        if not any(name.endswith(f" {queue}") for name in names):
            checks.append(Check("queue", False, f"{queue}: no worker takes its steps; {remedy}"))
    return checks


def _disk(artifacts: Path) -> str:
    existing = next(folder for folder in (artifacts, *artifacts.parents) if folder.exists())
    free = shutil.disk_usage(existing).free
    if free < _ENOUGH_DISK:
        raise _Wrong(f"{free / 1e9:.1f} GB free at {existing}; make room for images, checkpoints and reports")
    if not os.access(existing, os.W_OK):
        raise _Wrong(f"{existing}: not writable by you; `sudo chown -R $USER {existing}`")
    return f"{free / 1e9:.0f} GB free at {existing}"
