"""What a Prefect server has to know before runs can be started: the work pool, the deployments, the automation."""

import subprocess
import sys
from contextlib import suppress
from datetime import timedelta

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.client.schemas.objects import StateType
from prefect.events.actions import ChangeFlowRunState
from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture
from prefect.events.schemas.events import ResourceSpecification
from prefect.exceptions import ObjectNotFound

from flows.experiment_worker import ENTRYPOINTS, FLOW, NO_TEMPLATE, POOL, POOL_TYPE

_DEAD = "fer: a run whose worker died is marked crashed"
_SILENCE = timedelta(seconds=90)
"""Three heartbeats."""


def main() -> None:
    """Register all of it; again changes nothing, a schedule that was switched on in the UI included."""
    with get_client(sync_client=True) as client:
        make_pool(client)
        active = [one for one in client.read_deployments() if any(schedule.active for schedule in one.schedules)]
        _prefect("--no-prompt", "deploy", "--all")
        for deployment in active:
            for schedule in client.read_deployment(deployment.id).schedules:
                client.update_deployment_schedule(deployment.id, schedule.id, active=True)
        _mark_dead_runs_crashed(client)
    for name in ENTRYPOINTS:
        print(f"docker compose exec server start prefect deployment run {FLOW}/{name}")


def make_pool(client: SyncPrefectClient) -> None:
    """One run at a time, so that two do not share a GPU, and nothing for a run to override."""
    with suppress(ObjectNotFound):
        # Of an earlier version; its type, which says whose workers serve it, cannot be changed.
        if client.read_work_pool(POOL).type != POOL_TYPE:
            client.delete_work_pool(POOL)
    wanted = WorkPoolCreate(name=POOL, type=POOL_TYPE, base_job_template=NO_TEMPLATE, concurrency_limit=1)
    client.create_work_pool(wanted, overwrite=True)


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
    if not client.read_automations_by_name(_DEAD):
        client.create_automation(automation)


def _prefect(*arguments: str) -> None:
    """Prefect's command line; what it says, advice about its own worker included, is of use only where it fails."""
    done = subprocess.run(
        ["prefect", *arguments], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    if done.returncode:
        sys.exit(f"error: prefect {' '.join(arguments)} failed:\n{done.stdout}{done.stderr}")


if __name__ == "__main__":
    main()
