"""A runner that sends steps to the workers of all machines, and follows them there as if they ran here."""

import math
import secrets
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from uuid import UUID

import httpx
from httpx import codes
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId, LogFilter, LogFilterFlowRunId
from prefect.client.schemas.objects import FlowRun
from prefect.client.schemas.sorting import LogSort
from prefect.deployments import run_deployment
from prefect.exceptions import PrefectException
from prefect.runtime import task_run
from prefect.states import Cancelling, Crashed

from fer_core.artifacts import open_artifact
from fer_core.exit_codes import ExitCode
from fer_core.experiment import Experiment
from flows.containers import runner_here
from flows.events import Event, Note, parse_event
from flows.lease import LeaseLost, Silence, latest
from flows.made_once import make_once, room_of
from flows.named_files import push_named_files
from flows.runner import Runner, StepCommand, StepFailed
from flows.sent_step import SentStep, code_version, outcome
from flows.shared_place import SECONDS_OF_PATIENCE, DiskFull, StoreAway, StoreError
from flows.steps_worker import CORES_A_STEP, DEPLOYMENT, make_steps_pool, notices, online, worker_name
from flows.store import Store
from flows.study import Study, experiment_as_begun

_SECONDS_BETWEEN_LOOKS = 3.0
_SECONDS_A_LOOK_COUNTS = 1.0
"""One look is at all steps, and counts for every step that asks within this time."""
_READS_A_SECOND = 10
"""What all running steps together have said is asked for so often; the server answers some sixty requests a second."""
_SECONDS_UNTIL_TOLD = 15.0
"""A step may wait for a worker that is busy; then it is said which workers will not take it."""
_SECONDS_TO_BEGIN = 600.0
"""A sent step without a lease counts as dead after so long a silence; its process may start, or its worker fetch."""
_LOGS_AT_A_TIME = 200
_BEFORE_NOW = timedelta(minutes=10)
"""A step is asked for as of so long ago: where this clock is fast, the server's would let it wait until it is time."""


def runner_for(study: Study) -> Runner:
    """This machine, or where it shares a store with others, the workers of all.

    Raises:
        ExperimentError: this machine has not what the experiment asks for.
        StoreError: this machine may not write into the store.
    """
    here = runner_here(study)
    if study.store is None:
        return here
    study.store.require_writable()
    return Elsewhere(study.store, here, study.experiment.run.device, study.jobs)


class Elsewhere:
    """Sends each step to a work pool; what needs the user's images or AU table runs here.

    Args:
        store: what this machine and the workers share.
        here: runs what stays.
        device: `run.device` of the experiment.
        jobs: steps that this machine runs at a time.
    """

    def __init__(self, store: Store, here: Runner, device: str, jobs: int = 1) -> None:
        self._store, self._here, self._device = store, here, device
        self._slots = threading.Semaphore(jobs)
        self._stopped = threading.Event()
        self._runs = SentRuns()
        self._pushing: dict[Path, threading.Lock] = defaultdict(threading.Lock)
        self._dead: dict[str, int] = {}
        """Number of the lease of a step whose machine died, by the artifact's room."""

    def __enter__(self) -> Self:
        self._here.__enter__()
        with get_client(sync_client=True) as client:
            make_steps_pool(client)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopped.set()
        self._here.__exit__(kind, error, trace)

    @property
    def stopped(self) -> bool:
        """Tell whether nothing is sent any more."""
        return self._stopped.is_set()

    def __call__(self, command: StepCommand, on_event: Callable[[Event], None]) -> None:
        try:
            if _stays(command):
                make_once(self._store, command, self._run_here, on_event)
            else:
                self._send(command, on_event)
        except (StoreError, DiskFull) as error:
            raise StepFailed(command.step, ExitCode.MISTAKE, str(error)) from error
        except (StoreAway, LeaseLost) as away:
            raise StepFailed(command.step, ExitCode.STORE_AWAY, str(away)) from away

    def _run_here(self, command: StepCommand, on_event: Callable[[Event], None]) -> None:
        # The threads that wait for other machines are many.
        with self._slots:
            self._here(command, on_event)

    def _send(self, command: StepCommand, on_event: Callable[[Event], None]) -> None:
        for path in command.inputs:
            with self._pushing[path]:
                self._store.push(open_artifact(path))
        with get_client(sync_client=True) as client:
            run, queue = self._begun(command, client)
            sent = _Sent(client, self._runs, run.id, queue, self._store, room_of(command), on_event)
            try:
                self._follow(command, sent)
            finally:
                sent.cancel_if_running()
        artifacts = command.out.parent.parent
        if self._store.fetch(command.step, command.out.name, artifacts) is None:
            raise StepFailed(
                command.step, ExitCode.STORE_AWAY, f"{room_of(command)}: not in the store {self._store.place}"
            )

    def _begun(self, command: StepCommand, client: SyncPrefectClient) -> tuple[FlowRun, str]:
        """The step's run and its queue, asked for again where Prefect's server is away.

        Raises:
            StepFailed: it has been away for minutes, or this run was stopped.
        """
        # Where an answer was lost, the step must not be sent twice.
        key = secrets.token_hex(16)
        deadline = time.monotonic() + SECONDS_OF_PATIENCE
        while True:
            try:
                queue = self._queue(command, client)
                return self._handed_over(command, queue, key), queue
            except httpx.HTTPError as error:
                if not _is_away(error):
                    raise
                if time.monotonic() > deadline:
                    reason = f"Prefect's server was not reached for {SECONDS_OF_PATIENCE:.0f} s ({error})"
                    raise StepFailed(command.step, ExitCode.FAILED, reason) from error
            if self._stopped.wait(_SECONDS_BETWEEN_LOOKS):
                raise StepFailed(command.step, ExitCode.INTERRUPTED, "stopped")

    def _handed_over(self, command: StepCommand, queue: str, key: str) -> FlowRun:
        run = run_deployment(
            DEPLOYMENT,
            parameters={"sent": asdict(self._sent(command, queue))},
            scheduled_time=datetime.now(UTC) - _BEFORE_NOW,
            flow_run_name=str(task_run.name),
            timeout=0,
            idempotency_key=key,
            work_queue_name=queue,
        )
        assert isinstance(run, FlowRun)
        return run

    def _sent(self, command: StepCommand, queue: str) -> SentStep:
        # A machine takes a step of this queue for every two cores, whatever this one has.
        threads = min(command.threads, CORES_A_STEP) if queue == "cpu" else command.threads
        return SentStep(
            code=code_version(),
            step=command.step,
            fingerprint=command.out.name,
            experiment=command.experiment if command.document is None else Path(command.experiment).name,
            document=command.document,
            settings=command.settings,
            inputs=tuple(f"{path.parent.name}/{path.name}" for path in command.inputs),
            seed=command.seed,
            threads=threads,
            dead=self._dead.get(room_of(command), 0),
            files=push_named_files(self._store, _experiment_of(command), command.reads),
        )

    def _queue(self, command: StepCommand, client: SyncPrefectClient) -> str:
        """`gpu` for what trains, where a machine has one."""
        if command.runs_openface:
            return "openface"
        if not command.uses_gpu:
            return "cpu"
        return "gpu" if self._device == "cuda" or any(name.endswith(" gpu") for name in online(client)) else "cpu"

    def _follow(self, command: StepCommand, sent: "_Sent") -> None:
        """Follow it until it has ended, here or there.

        Raises:
            StepFailed: it failed, or its machine died.
        """
        while not self._stopped.wait(_SECONDS_BETWEEN_LOOKS):
            try:
                run = sent.look()
            except LookupError as deleted:
                raise StepFailed(command.step, ExitCode.INTERRUPTED, "its run was deleted") from deleted
            if run is None or run.state is None:
                continue
            if run.state.is_completed():
                return
            if run.state.is_cancelled():
                raise StepFailed(command.step, ExitCode.INTERRUPTED, "its run was cancelled")
            if run.state.is_final():
                exit_code, reason = outcome(run.state)
                raise StepFailed(command.step, exit_code, reason)
            if not run.state.is_scheduled() and (dead := sent.died(run.state.id)) is not None:
                self._dead[room_of(command)] = dead
                raise StepFailed(command.step, ExitCode.FAILED, "its machine gives no sign any more")
        raise StepFailed(command.step, ExitCode.INTERRUPTED, "stopped")


class SentRuns:
    """The runs of all steps that were sent and have not ended, asked for together.

    Hundreds of steps may wait for a worker; each would else be a request every few seconds.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._wanted: set[UUID] = set()
        self._found: dict[UUID, FlowRun] | None = None
        self._asked = -math.inf

    def now(self, run: UUID, client: SyncPrefectClient) -> FlowRun | None:
        """One of them as of a moment ago; None while the server is away.

        Raises:
            LookupError: it was deleted.
        """
        with self._lock:
            new = run not in self._wanted
            self._wanted.add(run)
            if new or time.monotonic() - self._asked >= _SECONDS_A_LOOK_COUNTS:
                self._found = self._ask(client)
                self._asked = time.monotonic()
            return None if self._found is None else self._found[run]

    def seconds_between_reads(self) -> float:
        """How long to wait before a step's lines are asked for again."""
        with self._lock:
            states = [run.state for run in (self._found or {}).values()]
        return sum(state is not None and state.is_running() for state in states) / _READS_A_SECOND

    def forget(self, run: UUID) -> None:
        """It has ended."""
        with self._lock:
            self._wanted.discard(run)

    def _ask(self, client: SyncPrefectClient) -> dict[UUID, FlowRun] | None:
        wanted = FlowRunFilter(id=FlowRunFilterId(any_=list(self._wanted)))
        try:
            return {run.id: run for run in client.read_flow_runs(flow_run_filter=wanted, limit=len(self._wanted))}
        except (httpx.HTTPError, PrefectException):
            return None


class _Sent:
    """A step that was sent, seen from here."""

    def __init__(
        self,
        client: SyncPrefectClient,
        runs: SentRuns,
        run: UUID,
        queue: str,
        store: Store,
        room: str,
        on_event: Callable[[Event], None],
    ) -> None:
        self._client, self._runs, self._run = client, runs, run
        self._queue, self._store, self._room = queue, store, room
        self._on_event = on_event
        self._lines_read, self._read_at = 0, -math.inf
        self._silence, self._silence_before_lease = Silence(), Silence(_SECONDS_TO_BEGIN)
        self._since = time.monotonic()
        self._wait_told = False
        self._ended = False

    def look(self) -> FlowRun | None:
        """Its state, after what it has said since the last look; None while the server is away.

        Raises:
            LookupError: it was deleted.
        """
        run = self._runs.now(self._run, self._client)
        if run is None or run.state is None:
            return None
        try:
            if run.state.is_scheduled():
                self._tell_why_it_waits()
            elif run.state.is_final() or time.monotonic() - self._read_at >= self._runs.seconds_between_reads():
                self._read_lines()
        except (httpx.HTTPError, PrefectException):
            return None
        self._ended = run.state.is_final()
        return run

    def died(self, state: UUID) -> int | None:
        """The number of its lease if its machine is dead, 0 if that died before it had one; None while it lives.

        Args:
            state: the run's, which changes while it begins. A worker that fetches for long says so, and one that waits
                for another run's lease sees it beat.
        """
        try:
            holder = latest(self._store, self._room)
        except (StoreAway, StoreError):
            return None
        holds = str(self._run) in holder.owner and not holder.released
        signs = (state, holder, self._lines_read)
        if not (self._silence.of(holder) if holds else self._silence_before_lease.of(signs)):
            return None
        self._end(Crashed(message="Its machine gives no sign any more."), force=True)
        return holder.number if holds else 0

    def cancel_if_running(self) -> None:
        """Have its worker end it, where this run ends first."""
        self._runs.forget(self._run)
        if not self._ended:
            # By Prefect's rules, which end a run at once that no worker has taken yet.
            self._end(Cancelling(), force=False)

    def _end(self, state: Any, force: bool) -> None:
        self._ended = True
        with suppress(httpx.HTTPError, PrefectException):
            self._client.set_flow_run_state(self._run, state, force=force)

    def _read_lines(self) -> None:
        self._read_at = time.monotonic()
        of_it = LogFilter(flow_run_id=LogFilterFlowRunId(any_=[self._run]))
        more = True
        while more:
            lines = self._client.read_logs(
                of_it, limit=_LOGS_AT_A_TIME, offset=self._lines_read, sort=LogSort.TIMESTAMP_ASC
            )
            self._lines_read += len(lines)
            for line in lines:
                if line.message.startswith("{"):
                    self._on_event(parse_event(line.message))
            more = len(lines) == _LOGS_AT_A_TIME

    def _tell_why_it_waits(self) -> None:
        if self._wait_told:
            return
        names = [name for name in online(self._client) if name.endswith(f" {self._queue}")]
        if not names:
            self._wait_told = True
            self._on_event(Note(f"waits: no worker for steps of the queue {self._queue}; `fer doctor` tells more"))
            return
        if time.monotonic() - self._since < _SECONDS_UNTIL_TOLD:
            return
        self._wait_told = True
        others = ""
        with suppress(StoreError, StoreAway):  # The step itself waits for the store; this is a remark.
            here = [notice for notice in notices(self._store) if worker_name(notice.host, self._queue) in names]
            others = ", ".join(notice.host for notice in here if notice.code != code_version())
        if others:
            self._on_event(Note(f"waits: {others} has another version of this project's code; update it"))


def _is_away(error: httpx.HTTPError) -> bool:
    """Tell whether nothing answers, or a proxy for what does not."""
    if isinstance(error, httpx.HTTPStatusError):
        return error.response.status_code in (codes.BAD_GATEWAY, codes.SERVICE_UNAVAILABLE, codes.GATEWAY_TIMEOUT)
    return isinstance(error, httpx.TransportError)


def _stays(command: StepCommand) -> bool:
    """Tell whether it needs what lies on this machine alone: the user's images, an AU table, an OpenFace of theirs."""
    if command.step in ("prepare", "report") or command.outside is not None:
        return True
    return command.step == "annotate" and bool(_experiment_of(command).openface.binary)


def _experiment_of(command: StepCommand) -> Experiment:
    return experiment_as_begun(command.experiment, command.document, command.settings)
