"""The worker of `docker compose up`: clears up after an earlier life of it, runs flows, and ends in good order."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterState,
    FlowRunFilterStateType,
    WorkPoolFilter,
    WorkPoolFilterName,
)
from prefect.client.schemas.objects import State, StateType
from prefect.states import Cancelled, Crashed

from flows.doctor import examine_openface
from flows.experiment_worker import POOL
from openface.docker_engine import OWNER, engine, has_gpu, remove_labelled, remove_orphans
from openface.errors import EngineAway
from openface.settings import OpenFaceSettings

_DIED = "Its worker died. Run it again: what is made is kept."
_SECONDS_TO_END = 12.0
"""For flows to end their containers and to tell Prefect; compose.yaml gives a few more."""


def main() -> None:
    """Run the worker of experiments until it ends, or is asked to."""
    try:
        with engine() as client:
            orphans = remove_orphans(client, starting=True)
            gpu = has_gpu(client)
    except EngineAway as away:
        sys.exit(f"error: {away}; see FER_DOCKER_SOCKET")
    dead = end_dead_runs()
    print(
        f"steps run on {'the GPU' if gpu else 'the CPU'}; of an earlier life {orphans} containers removed, "
        f"{dead} runs marked crashed",
        flush=True,
    )
    openface = examine_openface(OpenFaceSettings())
    print(f"OpenFace: {openface.told}", flush=True)
    asked_to_end = threading.Event()
    signal.signal(signal.SIGTERM, lambda number, frame: asked_to_end.set())
    worker = subprocess.Popen([sys.executable, "-P", "-m", "flows.experiment_worker"])
    while worker.poll() is None:
        if asked_to_end.wait(0.5):
            _end(worker)
    sys.exit(worker.returncode)


def end_dead_runs() -> int:
    """Give runs that are under way an end, and tell how many: there is one worker, and it only begins.

    Each would keep the pool's slot for ever if its worker had died before its first heartbeat.
    """
    under_way = [StateType.RUNNING, StateType.PENDING, StateType.CANCELLING]
    with get_client(sync_client=True) as client:
        runs = client.read_flow_runs(
            flow_run_filter=FlowRunFilter(state=FlowRunFilterState(type=FlowRunFilterStateType(any_=under_way))),
            work_pool_filter=WorkPoolFilter(name=WorkPoolFilterName(any_=[POOL])),
        )
        for run in runs:
            cancelling = run.state is not None and run.state.is_cancelling()
            end: State[None] = Cancelled() if cancelling else Crashed(message=_DIED)
            client.set_flow_run_state(run.id, end, force=True)
    return len(runs)


def _end(worker: "subprocess.Popen[bytes]") -> None:
    """The flows first, in good order: Prefect's worker would kill them, and leave their containers and their state."""
    flows = _children_of(worker.pid)
    for process in flows:
        with suppress(ProcessLookupError):
            os.kill(process, signal.SIGTERM)
    deadline = time.monotonic() + _SECONDS_TO_END
    while time.monotonic() < deadline and set(flows) & set(_children_of(worker.pid)):
        time.sleep(0.1)
    with suppress(EngineAway), engine() as client:
        remove_labelled(client, {OWNER: socket.gethostname()})
    worker.terminate()
    worker.wait()


def _children_of(parent: int) -> list[int]:
    """Processes that it started and that have not ended."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            state, parent_of_it = stat.read_text().rpartition(")")[2].split()[:2]
            if int(parent_of_it) == parent and state != "Z":
                found.append(int(stat.parent.name))
    return found


if __name__ == "__main__":
    main()
