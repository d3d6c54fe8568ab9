"""The process that runs the API's requests: this project's flows with parameters, and nothing else.

Prefect's own worker runs what a deployment or a run says: a command, an environment, pull steps, any entrypoint's code.
This one takes from Prefect the deployment's name and the run's parameters. What runs is a module of ours, in a process
with this one's environment; whatever else the API was told has no effect. flows/engine.py sees to results.
"""

import asyncio
import os
import shlex
import signal
import sys
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from typing import Any
from uuid import UUID

import anyio
import anyio.abc
import httpx
from prefect import Flow
from prefect._internal.observers import FlowRunCancellingObserver
from prefect.client.schemas.filters import (
    DeploymentFilter,
    DeploymentFilterName,
    FlowFilter,
    FlowFilterName,
    FlowRunFilter,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import FlowRun, State, StateType
from prefect.runner._flow_run_executor import FlowRunExecutorContext
from prefect.runner._process_manager import ProcessHandle
from prefect.runner._starter_engine import EngineCommandStarter
from prefect.states import Crashed, Failed
from prefect.workers.process import ProcessJobConfiguration, ProcessWorker, ProcessWorkerResult

from flows.naming import run_name
from flows.prefect_server import end_with_parent

POOL = "fer"
POOL_TYPE = "fer"
"""Prefect's own workers refuse it, so that no other runs what is meant for ours."""
FLOW = "fer"
ENTRYPOINTS: Mapping[str, str] = {
    "full-pipeline": "flows.pipeline.full_pipeline",
    "annotate": "flows.pipeline.annotate",
}
"""The deployments that there are, and what each runs."""
NO_TEMPLATE: dict[str, Any] = {
    "job_configuration": {"command": None, "env": {}, "labels": {}, "name": None},
    "variables": {"type": "object", "properties": {}, "additionalProperties": False},
}
"""The pool's base job template: nothing of how a run is started is for the API to say."""
FOR_PARENT = "for-parent"
"""Argument: end at once, with all runs, when the process at the other end of stdin does."""
_SECONDS_TO_END = 12.0
"""For runs to end their steps and to tell Prefect; compose.yaml gives a few more."""
_QUEUED = 50
_NO_WORD = "Its process ended without a word. Run it again: what is made is kept."


class ExperimentWorker(ProcessWorker):
    """Prefect's process worker, except that it alone decides what it starts."""

    type = POOL_TYPE
    flow_name = FLOW
    entrypoints = ENTRYPOINTS

    def __init__(self, pool: str = POOL, **options: Any) -> None:
        super().__init__(work_pool_name=pool, create_pool_if_not_found=False, **options)
        self._under_way: dict[UUID, ProcessHandle] = {}
        self._watches: dict[UUID, FlowRunCancellingObserver] = {}
        """Of runs under way, for their cancellation."""
        self._ending = False
        self._server_is_away = False

    async def get_and_submit_flow_runs(self) -> list[FlowRun]:
        """Take what is due, and name what waits; Prefect would name it only when it starts.

        While the server is away there are none. Prefect's worker would give up after a minute, and end its runs.
        """
        if self._ending:
            return []
        try:
            await self._name_queued_runs()
            await self._see_to_cancellation()
            found = await super().get_and_submit_flow_runs()
        except httpx.HTTPError as error:
            self._tell_that_it_is_away(error)
            return []
        self._server_is_away = False
        return found

    async def _sync_and_initialize(self) -> None:
        try:
            await super()._sync_and_initialize()
        except httpx.HTTPError as error:
            # At the start there is nothing to go on with.
            if not self._has_successfully_synced:
                raise
            self._tell_that_it_is_away(error)

    def _tell_that_it_is_away(self, error: httpx.HTTPError) -> None:
        # The health check asks when it last looked.
        self._last_polled_time = datetime.now(UTC)
        if not self._server_is_away:
            self._logger.warning("Prefect's server is away (%s); what runs goes on", error)
        self._server_is_away = True

    async def _see_to_cancellation(self) -> None:
        """Ask for cancelled runs, where Prefect's own watch over them ended while the server was away."""
        # The worker's own is for runs that are about to begin.
        own = [] if self._cancelling_observer is None else [self._cancelling_observer]
        for watch in (*own, *self._watches.values()):
            if watch._polling_task and watch._polling_task.done():
                await watch._check_for_cancelled_flow_runs()  # type: ignore[no-untyped-call]

    async def end_runs(self) -> None:
        """Begin no run any more, and let those under way end in good order, or give up after some seconds.

        Prefect's worker would kill their processes, and leave their steps and their state as they are.
        """
        self._ending = True
        for process in self._under_way.values():
            if process.pid is not None and process.returncode is None:
                with suppress(ProcessLookupError):
                    os.kill(process.pid, signal.SIGTERM)
        with anyio.move_on_after(_SECONDS_TO_END):
            while self._under_way:
                await anyio.sleep(0.1)

    async def run(
        self,
        flow_run: FlowRun,
        configuration: ProcessJobConfiguration,
        task_status: "anyio.abc.TaskStatus[int] | None" = None,
    ) -> ProcessWorkerResult:
        """Run one of our flows in a process of its own; `configuration` comes from the API, and is not looked at."""
        status = task_status or anyio.TASK_STATUS_IGNORED
        entrypoint = self.entrypoints.get(await self._deployment_of(flow_run) or "")
        if entrypoint is None:
            known = " or ".join(f"{self.flow_name}/{name}" for name in self.entrypoints)
            await self._end(flow_run, Failed(message=f"Not a deployment of this project; run {known}."))
            status.started(0)
            return ProcessWorkerResult(status_code=0, identifier="refused")
        try:
            with tempfile.TemporaryDirectory(prefix="fer") as folder:
                exit_code, pid = await self._execute(flow_run, entrypoint, folder, status)
            await self._end_if_unended(flow_run)
        finally:
            self._under_way.pop(flow_run.id, None)
            self._watches.pop(flow_run.id, None)
        return ProcessWorkerResult(status_code=exit_code, identifier=str(pid))

    async def _execute(
        self, flow_run: FlowRun, entrypoint: str, folder: str, status: "anyio.abc.TaskStatus[int]"
    ) -> tuple[int, int]:
        """Exit code and number of the process."""
        async with FlowRunExecutorContext() as context, anyio.create_task_group() as group:
            starter = EngineCommandStarter(
                command=f"{shlex.quote(sys.executable)} -m flows.engine",
                entrypoint=entrypoint,
                cwd=folder,
                deployment_name="",
                control_channel=context.control_channel,
            )
            # Hooks would be looked for in what the deployment says is the flow; ours have none.
            executor = context.create_executor(
                flow_run, starter, resolve_flow=self._without_hooks, propose_submitting=False
            )
            handle: ProcessHandle = await group.start(partial(executor.submit))
            assert handle.pid is not None
            self._under_way[flow_run.id] = handle
            self._watches[flow_run.id] = context._observer
            status.started(handle.pid)
        return handle.returncode or 0, handle.pid or 0

    async def _deployment_of(self, flow_run: FlowRun) -> str | None:
        """The name of its deployment, where that is one of a flow called as ours."""
        if flow_run.deployment_id is None:
            return None
        deployment = await self.client.read_deployment(flow_run.deployment_id)
        flow = await self.client.read_flow(deployment.flow_id)
        return deployment.name if flow.name == self.flow_name else None

    async def _end_if_unended(self, flow_run: FlowRun) -> State[Any] | None:
        """The state that its process left; a run that ended without a word would keep the pool's slot."""
        state = (await self.client.read_flow_run(flow_run.id)).state
        if state is not None and state.type in (StateType.PENDING, StateType.RUNNING):
            await self._end(flow_run, Crashed(message=_NO_WORD))
        return state

    async def _end(self, flow_run: FlowRun, state: Any) -> None:
        await self.client.set_flow_run_state(flow_run.id, state, force=True)

    async def _name_queued_runs(self) -> None:
        waiting = FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.SCHEDULED]))
        runs = await self.client.read_flow_runs(
            flow_filter=FlowFilter(name=FlowFilterName(any_=[self.flow_name])),
            deployment_filter=DeploymentFilter(name=DeploymentFilterName(any_=list(self.entrypoints))),
            flow_run_filter=FlowRunFilter(state=waiting),
            limit=_QUEUED,
        )
        for run in runs:
            if run.name != (name := run_name(run.parameters)):
                # One that the server will not call so must not keep the others from being run.
                with suppress(httpx.HTTPStatusError):
                    await self.client.update_flow_run(run.id, name=name)

    async def _without_hooks(self, flow_run: FlowRun) -> Flow[..., Any]:
        return Flow(lambda: None, name=self.flow_name)


async def work_until_asked_to_end(*workers: ExperimentWorker, healthcheck: bool = False) -> None:
    """SIGTERM and Ctrl-C end them in good order."""
    work = asyncio.gather(*(worker.start(with_healthcheck=healthcheck) for worker in workers))
    asked_to_end = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, asked_to_end.set)
    asked = asyncio.create_task(asked_to_end.wait())
    either: set[asyncio.Future[Any]] = {work, asked}
    await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
    if not work.done():
        await asyncio.gather(*(worker.end_runs() for worker in workers))
        work.cancel()
    asked.cancel()
    with suppress(asyncio.CancelledError):
        await work


def main() -> None:
    """Work until asked to end; in a container of its own, with a page that tells of its health."""
    for_parent = sys.argv[1:] == [FOR_PARENT]
    if for_parent:
        end_with_parent()
    asyncio.run(work_until_asked_to_end(ExperimentWorker(), healthcheck=not for_parent))


if __name__ == "__main__":
    main()
