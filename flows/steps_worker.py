"""Offers this machine to run steps: a worker for each queue, as many steps at a time as there are GPUs or cores.

PREFECT_API_URL=http://head:4200/api FER_STORE=s3://lab/fer python -m flows.steps_worker
"""

import asyncio
import json
import math
import os
import shutil
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from httpx import codes
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import WorkPoolCreate, WorkPoolUpdate
from prefect.client.schemas.objects import FlowRun, State, WorkerStatus
from prefect.exceptions import ObjectAlreadyExists, PrefectHTTPStatusError
from pydantic import TypeAdapter, ValidationError

from fer_core.errors import FerError
from fer_core.exit_codes import ExitCode
from flows.cache import CACHE, cache_limit, clear_copies
from flows.experiment_worker import NO_TEMPLATE, ExperimentWorker, work_until_asked_to_end
from flows.gpus import usable_gpus, workers_steps_per_gpu
from flows.granted import ARTIFACTS, OPENFACE
from flows.lease import machine_name
from flows.prefect_server import NoServer, require_server, users_server
from flows.sent_step import STEP_FLOW, TROUBLE_HERE, code_version, outcome
from flows.shared_place import StoreAway, StoreError
from flows.store import WORKERS, Store, open_store
from openface.docker_engine import engine, remove_orphans, require_image
from openface.errors import EngineAway, EngineRefused
from openface.machine import usable_cores
from openface.settings import INSIDE, OpenFaceSettings

STEPS_POOL = "fer-steps"
"""The pool, and its type."""
_QUEUES = ("gpu", "cpu", "openface")
DEPLOYMENT = f"{STEP_FLOW}/{STEP_FLOW}"
CORES_A_STEP = 2
_SECONDS_AHEAD = 600.0
"""How far a worker's clock may be behind: a step asked for now lies in its future."""
_SECONDS_BETWEEN_NOTICES = 15.0
_OFFERED = Path("/tmp/offered")
"""compose.worker.yaml looks whether it is there, in the worker's own container."""
_SECONDS_OF_REST = 60.0
"""After trouble of this machine's own; longer than all delays between a step's tries."""
_LEAST_FREE = 1 << 30
"""Bytes of disk that must be free before a step is taken."""


@dataclass(frozen=True)
class Notice:
    """A machine's notice in the store; whoever reads it there sees the same store as the machine."""

    host: str
    code: str
    queues: Mapping[str, int]
    """Steps at a time, by queue."""
    cores: int
    artifacts: str
    free: int
    """Bytes of disk."""


class StepsWorker(ExperimentWorker):
    """Takes steps of one queue, of who has the same code, while the disk has room."""

    type = STEPS_POOL
    flow_name = STEP_FLOW
    entrypoints = {STEP_FLOW: "flows.sent_step.run_sent_step"}  # noqa: RUF012 - Prefect's class has no room for ClassVar

    def __init__(self, pool: str, **options: Any) -> None:
        super().__init__(pool, **options)
        self._rests_until = -math.inf

    async def get_and_submit_flow_runs(self) -> list[FlowRun]:
        """Take no run while the disk is full, or just after trouble here, so that other machines take it."""
        if time.monotonic() < self._rests_until:
            return []
        if shutil.disk_usage(os.environ[ARTIFACTS]).free < _LEAST_FREE:
            self._logger.warning("%s: less than 1 GiB free; takes no step until there is more", os.environ[ARTIFACTS])
            return []
        return await super().get_and_submit_flow_runs()

    async def _end_if_unended(self, flow_run: FlowRun) -> State[Any] | None:
        """Rest for a while after trouble that is this machine's own."""
        state = await super()._end_if_unended(flow_run)
        exit_code, reason = outcome(state)
        if exit_code in TROUBLE_HERE:
            self._logger.warning("takes no step for %.0f s: %s", _SECONDS_OF_REST, reason)
            self._rests_until = time.monotonic() + _SECONDS_OF_REST
        return state

    async def _name_queued_runs(self) -> None:
        """Do nothing: a sent step already has its name."""

    async def _submit_scheduled_flow_runs(self, flow_run_response: list[Any]) -> list[FlowRun]:
        """Leave to others what other code has sent."""
        own = [entry for entry in flow_run_response if _code_of(entry.flow_run) == code_version()]
        return await super()._submit_scheduled_flow_runs(own)


def queues_here() -> dict[str, int]:
    """Steps that this machine runs at a time, by queue.

    Raises:
        ExperimentError: the environment names a GPU that is not there, or no number of steps on each.
    """
    queues = {"cpu": max(1, usable_cores() // CORES_A_STEP)}
    if steps := len(usable_gpus()) * workers_steps_per_gpu():
        queues["gpu"] = steps
    with suppress(EngineAway, EngineRefused), engine() as client:
        require_image(client, os.environ.get(OPENFACE) or OpenFaceSettings().image)
        queues["openface"] = 1
    return queues


def end_earlier_life() -> None:
    """Take away the containers that this one started before it was killed and started again.

    Later they could not be told from today's, whose processes get the same numbers.
    """
    if os.environ.get(INSIDE):
        with suppress(EngineAway, EngineRefused), engine() as client:
            remove_orphans(client, starting=True)


def worker_name(host: str, queue: str) -> str:
    """The name that Prefect's page shows."""
    return f"{host} {queue}"


def make_steps_pool(client: SyncPrefectClient) -> None:
    """The pool, its queues and the deployment; again changes nothing, a pause or a limit of somebody's included."""
    try:
        client.create_work_pool(WorkPoolCreate(name=STEPS_POOL, type=STEPS_POOL, base_job_template=NO_TEMPLATE))
    except ObjectAlreadyExists:
        client.update_work_pool(STEPS_POOL, WorkPoolUpdate(base_job_template=NO_TEMPLATE))
    for queue in _QUEUES:
        with suppress(ObjectAlreadyExists):
            client.create_work_queue(queue, work_pool_name=STEPS_POOL)
    client.create_deployment(
        client.create_flow_from_name(STEP_FLOW),
        STEP_FLOW,
        work_pool_name=STEPS_POOL,
        work_queue_name="cpu",
        enforce_parameter_schema=False,
    )


def main() -> None:
    """Work until asked to end."""
    os.environ.setdefault(ARTIFACTS, str(Path("artifacts").resolve()))
    Path(os.environ[ARTIFACTS]).mkdir(parents=True, exist_ok=True)
    try:
        store, limit = open_store(), cache_limit()
        if store is None:
            raise StoreError("FER_STORE is not set; give the folder or bucket that the head has")
        if users_server() is None:
            raise NoServer("PREFECT_API_URL is not set; give the head's, such as http://head:4200/api")
        require_server()
        store.require_writable()
        end_earlier_life()
        queues = queues_here()
    except (FerError, StoreAway) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(ExitCode.STORE_AWAY if isinstance(error, StoreAway) else ExitCode.MISTAKE)
    with get_client(sync_client=True) as client:
        make_steps_pool(client)
    asyncio.run(_work(store, queues, limit))


async def _work(store: Store, queues: dict[str, int], limit: int) -> None:
    offered = ", ".join(f"{steps} at a time of {queue}" for queue, steps in queues.items())
    print(f"{machine_name()} takes steps: {offered}; store {store.place}", flush=True)
    announcing = asyncio.create_task(_announce(store, queues, limit))
    try:
        await work_until_asked_to_end(*(_worker(queue, steps) for queue, steps in queues.items()))
    finally:
        announcing.cancel()
        with suppress(StoreAway, StoreError):
            await asyncio.to_thread(store.remove, _notice_file())


def _worker(queue: str, steps: int) -> StepsWorker:
    return StepsWorker(
        STEPS_POOL,
        work_queues=[queue],
        name=worker_name(machine_name(), queue),
        prefetch_seconds=_SECONDS_AHEAD,
        limit=steps,
    )


async def _announce(store: Store, queues: dict[str, int], limit: int) -> None:
    """Say every few seconds what this machine has, and keep its copies below their limit."""
    while True:
        artifacts = os.environ[ARTIFACTS]
        free = shutil.disk_usage(artifacts).free
        notice = Notice(machine_name(), code_version(), queues, usable_cores(), artifacts, free)
        with suppress(StoreAway, StoreError):
            await asyncio.to_thread(store.replace, _notice_file(), json.dumps(asdict(notice)).encode())
            if os.environ.get(INSIDE):
                _OFFERED.touch()
            # On a disk that is smaller than the limit, copies would else keep this machine from taking steps for good.
            for path in await asyncio.to_thread(clear_copies, Path(artifacts), store, limit, 2 * _LEAST_FREE):
                print(f"{path}: cleared, since copies take more than {CACHE} or the disk is full", flush=True)
        await asyncio.sleep(_SECONDS_BETWEEN_NOTICES)


def notices(store: Store) -> list[Notice]:
    """Notices of the machines that see this store; some may be dead.

    Raises:
        StoreError: a file among them is no notice.
    """
    files = [f"{WORKERS}/{name}" for name in store.names_in(WORKERS)]
    return [_notice(store, file, told) for file in files if (told := store.read_json(file)) is not None]


def _notice(store: Store, file: str, told: Mapping[str, Any]) -> Notice:
    with store.as_written(file):
        try:
            return TypeAdapter(Notice).validate_python(told)
        except ValidationError as error:
            first = error.errors()[0]
            raise ValueError(f"{first['loc'][0]}: {first['msg']}") from error


def online(client: SyncPrefectClient) -> list[str]:
    """Names of the workers that take steps."""
    try:
        workers = client.read_workers_for_work_pool(STEPS_POOL)
    except PrefectHTTPStatusError as error:
        # Before the first run, or worker, there is no pool.
        if error.response.status_code != codes.NOT_FOUND:
            raise
        return []
    return [worker.name for worker in workers if worker.status == WorkerStatus.ONLINE]


def _notice_file() -> str:
    return f"{WORKERS}/{machine_name()}.json"


def _code_of(run: FlowRun) -> str | None:
    sent = run.parameters.get("sent")
    return str(sent.get("code")) if isinstance(sent, dict) else None


if __name__ == "__main__":
    main()
