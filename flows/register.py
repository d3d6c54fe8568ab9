"""What a Prefect server has to know before runs can be started: the work pool, the deployments, the automation."""

import subprocess
from datetime import timedelta

from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import StateType
from prefect.events.actions import ChangeFlowRunState
from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture
from prefect.events.schemas.events import ResourceSpecification

from flows.worker import POOL

_DEAD = "fer: a run whose worker died is marked crashed"
_SILENCE = timedelta(seconds=90)
"""Three heartbeats."""


def main() -> None:
    """Register all of it; again changes nothing."""
    # One run at a time, so that two do not share a GPU.
    _prefect("work-pool", "create", POOL, "--type", "process", "--overwrite")
    _prefect("work-pool", "set-concurrency-limit", POOL, "1")
    _prefect("--no-prompt", "deploy", "--all")
    _mark_dead_runs_crashed()


def _mark_dead_runs_crashed() -> None:
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
    with get_client(sync_client=True) as client:
        for known in client.read_automations_by_name(_DEAD):
            client.delete_automation(known.id)
        client.create_automation(automation)


def _prefect(*arguments: str) -> None:
    subprocess.run(["prefect", *arguments], check=True, stdin=subprocess.DEVNULL)


if __name__ == "__main__":
    main()
