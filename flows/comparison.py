"""A comparison as a flow: a task for each cell, which walks from images to figures, then the report."""

import time
from collections import Counter
from collections.abc import Iterable

from prefect import task
from prefect.logging import get_run_logger

from fer_core.artifacts import Artifact
from fer_core.comparison import Cell, Make, cells, judge, require_same_test_images
from fer_core.errors import ExperimentError
from fer_core.steps import COMPARISON_REPORT
from flows.display import display
from flows.elsewhere import runner_for
from flows.prefect_artifacts import show_comparison
from flows.step_task import Maker, TimeIsOver
from flows.study import Study
from flows.tasks import STEP_OPTIONS, Pool, RunFailed, outcome, submit_to


class _Keeping:
    """Makes a cell's artifacts, and keeps what the report takes, also of a cell that comes to no end.

    first: the first cell of its stage, where that has a dataset of its own.
    """

    def __init__(
        self, make: Maker, kept: list[Artifact], cell: Cell, first: "tuple[Cell, Study, Maker] | None" = None
    ) -> None:
        self._make, self._kept, self._cell, self._first = make, kept, cell, first

    def __call__(self, step: str, *inputs: Artifact, seed: int | None = None) -> Artifact:
        made = self._make(step, *inputs, seed=seed)
        if step == "prepare" and self._first is not None:
            self._require_same_test_images(made, *self._first)
        if step in COMPARISON_REPORT.takes:
            self._kept.append(made)
        return made

    def _require_same_test_images(self, prepared: Artifact, first: Cell, study: Study, make: Maker) -> None:
        """Before the cell is trained, since the report could not compare it."""
        # Late, since most comparisons have one dataset and need no pandas here.
        from fer_core.data.dataset import open_dataset

        of_first = study.found(study.request("prepare", ())) or make("prepare")
        own, others = open_dataset(prepared.path), open_dataset(of_first.path)
        ids, ids_first = (list(d.manifest["id"].to_numpy()[d.rows("test")]) for d in (own, others))
        require_same_test_images(self._cell, ids, own.card.labels, first, ids_first, others.card.labels)


@task(task_run_name="{cell}", **STEP_OPTIONS)
def judge_cell(make: Make, cell: Cell) -> None:
    """Train and judge the networks of one cell, as far as time allows."""
    try:
        judge(cell, make)
    except TimeIsOver as step:
        get_run_logger().info("not begun, since run.hours are over: %s", step)


@task(task_run_name="report", **STEP_OPTIONS)
def write_comparison(make: Maker, artifacts: list[Artifact]) -> Artifact:
    """The ways beside each other: differences, means, and a page to look at."""
    return make("report", *artifacts, show=show_comparison)


def compare_ways(study: Study) -> Artifact:
    """Train and judge the cells of a comparison, in the order of their worth, and write the report of what there is.

    Raises:
        ExperimentError: no cell is asked for.
        RunFailed: networks of some cells could not be made.
    """
    wanted = cells(study.experiment)
    hours = study.experiment.run.hours
    ends = time.monotonic() + 3600 * hours if hours else None
    with Pool(max_workers=study.steps_at_a_time) as pool, runner_for(study) as runner:
        make, kept = Maker(study, runner, display(), _planned_steps(wanted)), list[Artifact]()
        firsts: dict[str, tuple[Cell, Study, Maker]] = {}
        futures = []
        for cell in wanted:
            own = study.with_settings(cell.settings)
            maker = make.for_cell(own, ends)
            first = firsts.setdefault(cell.stage, (cell, own, maker))
            apart = first if own.experiment.dataset != first[1].experiment.dataset else None
            futures.append(pool.submit(judge_cell, {"make": _Keeping(maker, kept, cell, apart), "cell": cell}))
        _, failures = outcome(futures)
        if not any(artifact.step == "evaluate" for artifact in kept):
            raise RunFailed(
                failures or [ExperimentError(f"run.hours = {hours:g} were over before a network was judged")]
            )
        # Each once: datasets and action units are shared.
        artifacts = list(dict.fromkeys(kept))
        reports, unreported = outcome([submit_to(pool, make, write_comparison, artifacts=artifacts)])
        make.show_the_rest()
        if failures or unreported:
            raise RunFailed(failures + unreported, *reports)
        return reports[0]


def _planned_steps(wanted: Iterable[Cell]) -> dict[str, int]:
    return Counter([*(step for cell in wanted for step in cell.steps()), "report"])
