"""Registers with a Prefect server what runs need: the work pool, the deployments, the automation."""

import sys
from contextlib import suppress
from datetime import timedelta
from typing import Any

from httpx import codes
from prefect import Flow
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import DeploymentScheduleCreate, WorkPoolCreate
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterState,
    FlowRunFilterStateType,
    WorkPoolFilter,
    WorkPoolFilterName,
)
from prefect.client.schemas.objects import State, StateType
from prefect.client.schemas.schedules import CronSchedule
from prefect.events.actions import ChangeFlowRunState
from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture
from prefect.events.schemas.events import ResourceSpecification
from prefect.exceptions import ObjectNotFound, PrefectHTTPStatusError
from prefect.states import Cancelled, Crashed
from prefect.utilities.callables import parameter_schema

from fer_core.exit_codes import ExitCode
from flows.experiment_worker import ENTRYPOINTS, FLOW, NO_TEMPLATE, POOL, POOL_TYPE
from flows.pipeline import annotate, full_pipeline

_DEAD = "fer: a run whose worker died is marked crashed"
_SILENCE = timedelta(minutes=15)
"""Thirty heartbeats. While the server is away, or the network to a worker, it hears none of a run that is well, and a
worker that is back ends its dead runs at once."""
_CHANGED = (
    "error: the password was changed, and the server still asks for the one before; give it the new one by "
    "`docker compose up -d --wait --force-recreate`, which ends what runs"
)
_DIED = "Its worker died. Run it again: what is made is kept."
_WEEKLY = DeploymentScheduleCreate(schedule=CronSchedule(cron="0 2 * * 1"), slug="weekly", active=False)
"""Mondays at two in the morning, for a dataset that grows: what has not changed is reused. Off until somebody
switches it on in the UI."""


def main() -> None:
    """Register all of it at the server of `docker compose up`."""
    try:
        register(artifacts="/artifacts", limit=1)
    except PrefectHTTPStatusError as error:
        if error.response.status_code != codes.UNAUTHORIZED:
            raise
        print(_CHANGED, file=sys.stderr)
        sys.exit(ExitCode.MISTAKE)
    for name in ENTRYPOINTS:
        print(f"docker compose exec server start prefect deployment run {FLOW}/{name}")


def register(artifacts: str, limit: int) -> None:
    """Register all of it; again changes nothing, a schedule that was switched on in the UI included.

    Args:
        artifacts: the folder that runs put what they make into, unless they name another.
        limit: runs at a time.
    """
    with get_client(sync_client=True) as client:
        make_pool(client, limit)
        active = [one for one in client.read_deployments() if any(schedule.active for schedule in one.schedules)]
        _make_deployments(client, artifacts)
        for deployment in active:
            for schedule in client.read_deployment(deployment.id).schedules:
                client.update_deployment_schedule(deployment.id, schedule.id, active=True)
        _mark_dead_runs_crashed(client)


def make_pool(client: SyncPrefectClient, limit: int = 1) -> None:
    """One run at a time unless asked for more, so that two do not share a GPU, and nothing for a run to override."""
    with suppress(ObjectNotFound):
        # Of an earlier version; its type, which says whose workers serve it, cannot be changed.
        if client.read_work_pool(POOL).type != POOL_TYPE:
            client.delete_work_pool(POOL)
    wanted = WorkPoolCreate(name=POOL, type=POOL_TYPE, base_job_template=NO_TEMPLATE, concurrency_limit=limit)
    client.create_work_pool(wanted, overwrite=True)


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


def _make_deployments(client: SyncPrefectClient, artifacts: str) -> None:
    """The worker takes their names and parameters alone: whoever changes the rest changes nothing of what it runs."""
    about: dict[str, tuple[Flow[..., Any], str, list[DeploymentScheduleCreate]]] = {
        "full-pipeline": (full_pipeline, "The whole method, from images to the paper's table.", [_WEEKLY]),
        "annotate": (annotate, "Just the dataset and its action units.", []),
    }
    flow = client.create_flow_from_name(FLOW)
    for name, (function, description, schedules) in about.items():
        client.create_deployment(
            flow,
            name,
            schedules=schedules,
            parameters={"artifacts": artifacts},
            description=description,
            work_pool_name=POOL,
            entrypoint=ENTRYPOINTS[name],
            parameter_openapi_schema=parameter_schema(function).model_dump_for_openapi(),
            enforce_parameter_schema=True,
        )


def _mark_dead_runs_crashed(client: SyncPrefectClient) -> None:
    """Without this a run whose worker was killed would stay RUNNING, and keep the pool's only slot."""
    ends = ("Completed", "Failed", "Cancelled", "Crashed")
    automation = AutomationCore(
        name=_DEAD,
        trigger=EventTrigger(
            after={"prefect.flow-run.heartbeat"},
            expect={"prefect.flow-run.heartbeat", *(f"prefect.flow-run.{end}" for end in ends)},
            match=ResourceSpecification({"prefect.resource.id": ["prefect.flow-run.*"]}),
            for_each={"prefect.resource.id"},
            posture=Posture.Proactive,
            threshold=1,
            within=_SILENCE,
        ),
        actions=[
            ChangeFlowRunState(
                state=StateType.CRASHED, name=None, message="No heartbeat; its worker died. Run it again.", force=False
            )
        ],
    )
    # One that is there stays: with it would go what it knows of the runs under way.
    known = client.read_automations_by_name(_DEAD)
    for one in known:
        if one.trigger.model_dump().get("within") != _SILENCE:
            client.update_automation(one.id, automation)
    if not known:
        client.create_automation(automation)


if __name__ == "__main__":
    main()
