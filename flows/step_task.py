"""Makes a step's artifact inside a Prefect task: reuses it if it is whole, else runs, watches and reports the step."""

import copy
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from prefect import State
from prefect.logging import get_run_logger
from prefect.runtime import task_run

from fer_core.artifacts import Artifact, finished
from fer_core.contents import Tell
from fer_core.exit_codes import ExitCode
from fer_core.steps import Request
from flows.display import Display
from flows.events import Event, Metrics, Note, Progress
from flows.naming import experiment_slug, key_of
from flows.prefect_artifacts import LiveProgress, Show, shown_if_possible
from flows.run_progress import RunProgress
from flows.runner import RETRY_DELAYS, Runner, StepFailed
from flows.study import Study
from openface.errors import EngineAway


class TimeIsOver(Exception):
    """A step that was not begun, since `run.hours` are over."""


class Maker:
    """Makes artifacts of one study, with one runner, shown on one display.

    planned: steps of the run by kind, for a live artifact that tells how far all of it is; none without.
    """

    def __init__(self, study: Study, run: Runner, display: Display, planned: Mapping[str, int] | None = None) -> None:
        self._study = study
        self._run = run
        self._display = display
        self._experiment = experiment_slug(study.source)
        self._progress = RunProgress(planned, study.jobs) if planned else None
        self._shown = LiveProgress(key_of(self._experiment, "00-run"))
        self._smaller: dict[str, Study] = {}
        """By the fingerprint of a step that ran out of memory: how it is tried again."""
        self._missed: list[tuple[Show, Artifact]] = []
        """Artifacts that could not be shown while Prefect's server was away."""
        self._cell = False
        self._ends: float | None = None
        if self._progress:
            self._shown.show_now(0.0, self._progress.words())

    def for_cell(self, study: Study, ends: float | None) -> "Maker":
        """The same for one cell of a comparison, whose steps all belong to one task.

        Args:
            study: with the cell's settings.
            ends: when no step is begun any more, by the monotonic clock.
        """
        maker = copy.copy(self)
        maker._study, maker._cell, maker._ends = study, True, ends
        return maker

    def __call__(self, step: str, *inputs: Artifact, seed: int | None = None, show: Show | None = None) -> Artifact:
        """The artifact of a step, which `show` shows in Prefect, whenever it was made.

        Raises:
            StepFailed: it could not be made.
            TimeIsOver: it was not made before, and no step is begun any more.
        """
        name = f"{task_run.name} · {step}" if self._cell else str(task_run.name)
        live = LiveProgress(key_of(self._experiment, "01", name))
        try:
            wanted = self._study.request(step, inputs, seed, self._reader(name, live))
        except EngineAway as away:
            raise StepFailed(name, ExitCode.ENGINE_AWAY, str(away)) from away
        asked_for, study = wanted.fingerprint(), self._study
        if smaller := self._smaller.get(asked_for):
            study, wanted = smaller, smaller.request(step, inputs, seed)
        if found := study.found(wanted):
            live.finish(name)
            self._display.reused(name)
            get_run_logger().info("reused %s", found.path)
        elif self._ends is not None and time.monotonic() >= self._ends:
            raise TimeIsOver(name)
        else:
            found = self._make_or_halve(name, asked_for, study, wanted, live)
        if self._progress:
            self._progress.ended(name, step, found.seconds())
            self._shown.show(self._progress.percent(), self._progress.words())
        if show is not None and not shown_if_possible(show, found, self._experiment):
            self._missed.append((show, found))
        return found

    def show_the_rest(self) -> None:
        """Show what Prefect's server was away for, and how far the run came."""
        missed, self._missed = self._missed, []
        for show, artifact in missed:
            shown_if_possible(show, artifact, self._experiment)
        if self._progress:
            self._shown.show_now(self._progress.percent(), self._progress.words())

    def _make_or_halve(self, name: str, asked_for: str, study: Study, wanted: Request, live: LiveProgress) -> Artifact:
        """Make it; where memory lacked, have the next try make it with half the batch."""
        try:
            return self._make(name, study, wanted, live)
        except StepFailed as failure:
            if self._progress:
                self._progress.failed(name)
            # A cell with half the batch could not be compared with the others.
            may_halve = failure.out_of_memory and not self._cell
            if may_halve and (smaller := study.with_half_the_batch(wanted)):
                self._smaller[asked_for] = smaller
                get_run_logger().warning(
                    "out of memory; %s is tried again with half the batch and half the learning rate, which its "
                    "artifact's settings will say",
                    name,
                )
            raise

    def _make(self, name: str, study: Study, wanted: Request, live: LiveProgress) -> Artifact:
        started = time.monotonic()
        self._display.started(name)
        if self._progress:
            self._progress.started(name, wanted.step.name)
        try:
            self._run(study.command(wanted), self._listener(name, live, study.folder(wanted)))
            made = _output_of(study, wanted, self._reader(name, live))
        except StepFailed as failure:
            raise self._named_failure(name, failure) from failure
        live.finish(name)
        self._display.finished(name, time.monotonic() - started)
        return made

    def _reader(self, name: str, live: LiveProgress) -> Tell:
        """Passes on how far a look at the user's files is, and ends it with the run."""

        def tell(what: str, done: int, total: int) -> None:
            if self._run.stopped:
                raise StepFailed(name, ExitCode.INTERRUPTED, "stopped")
            live.show(100 * done / max(total, 1), f"{name} · {what}")
            self._display.reading(name, Progress(what, done, total))

        return tell

    def _listener(self, name: str, live: LiveProgress, folder: Path) -> Callable[[Event], None]:
        """Passes a step's events on: to the log, to the display and to the live progress."""
        logger = get_run_logger()

        def listen(event: Event) -> None:
            match event:
                case Progress():
                    self._show_progress(name, live, event)
                case Metrics():
                    logger.info("%s", event)
                case Note(text):
                    logger.info("%s", text)
            # A step's last word is its folder, which is of use only to who runs it by hand.
            if event != Note(str(folder)):
                self._display.told(name, event)

        return listen

    def _show_progress(self, name: str, live: LiveProgress, event: Progress) -> None:
        done, total = event.of_step()
        share = done / max(total, 1)
        live.show(100 * share, name)
        if self._progress:
            self._progress.moved(name, share)
            self._shown.show(self._progress.percent(), self._progress.words())

    def _named_failure(self, name: str, failure: StepFailed) -> StepFailed:
        """The failure under the name that people know the step by, logged and shown."""
        again = failure.may_pass and (task_run.run_count or 1) <= len(RETRY_DELAYS)
        if failure.exit_code != ExitCode.INTERRUPTED:
            self._display.failed(name, failure.message, again)
        if failure.details:
            get_run_logger().error("%s", failure.details)
        return StepFailed(name, failure.exit_code, failure.message, failure.details)


def _output_of(study: Study, wanted: Request, tell: Tell) -> Artifact:
    """The step's output, unless the user's files changed meanwhile."""
    again = wanted.seen_again(tell)
    artifact = finished(study.folder(again), again.fingerprint())
    if artifact is None:
        raise StepFailed(
            wanted.step.name,
            ExitCode.MISTAKE,
            f"{study.folder(wanted)}: not there, or not as asked for; did the experiment or its data change "
            "meanwhile? Run again",
        )
    return artifact


def worth_another_try(task: Any, run: Any, state: State[Any]) -> bool:
    """Prefect's retry condition: yes after a crash, no where the user has to mend something."""
    return isinstance(state.data, StepFailed) and state.data.may_pass
