"""Tasks of a flow: how they are retried, handed to a pool of threads, and what came of them."""

from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from prefect import Task
from prefect.cache_policies import NO_CACHE
from prefect.futures import PrefectFuture
from prefect.task_runners import ThreadPoolTaskRunner

from fer_core.artifacts import Artifact
from flows.runner import RETRY_DELAYS
from flows.step_task import Maker, worth_another_try

Future = PrefectFuture
Made = TypeVar("Made")
Pool = ThreadPoolTaskRunner[Any]

# Artifacts decide what is current, by content; Prefect's own cache would see neither changed bytes nor edits.
STEP_OPTIONS: Mapping[str, Any] = {
    "retries": len(RETRY_DELAYS),
    "retry_delay_seconds": RETRY_DELAYS,
    "retry_condition_fn": worth_another_try,
    "cache_policy": NO_CACHE,
    "persist_result": False,
}


class RunFailed(Exception):
    """A run of which some models are missing; the report, if there is one, is made from the others.

    Args:
        failures: why, for each step that failed.
        report: where the report is.
    """

    def __init__(self, failures: list[Exception], report: Artifact | None = None) -> None:
        super().__init__(failures, report)
        self.failures, self.report = failures, report

    def __str__(self) -> str:
        return "; ".join(map(str, self.failures))


def submit_to(pool: Pool, make: Maker, task: Task[..., Made], **inputs: Any) -> Future[Made]:
    """Hand a task to the pool."""
    return pool.submit(task, {"make": make, **inputs})


def outcome(futures: Iterable[Future[Made]]) -> tuple[list[Made], list[Exception]]:
    """Wait for all: what was made, and failures; a task that lacked an input counts as neither."""
    made, failures = [], []
    for future in futures:
        future.wait()
        if future.state.is_completed():
            made.append(future.result())
        elif future.state.is_final():
            failures.append(future.state.result(raise_on_failure=False))
    return made, failures
