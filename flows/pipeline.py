"""The paper's method as one flow, in the order of the paper's method section."""

from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

from prefect import Task, flow, task
from prefect.cache_policies import NO_CACHE
from prefect.futures import PrefectFuture
from prefect.runtime import flow_run
from prefect.task_runners import ThreadPoolTaskRunner

from fer_core.artifacts import Artifact
from flows.display import display
from flows.elsewhere import runner_for
from flows.naming import run_name
from flows.prefect_artifacts import show_annotation, show_curves, show_graph, show_report
from flows.run_progress import planned_steps
from flows.runner import RETRY_DELAYS
from flows.step_task import Maker, worth_another_try
from flows.study import open_study, used_by

Future = PrefectFuture[Artifact]
_Pool = ThreadPoolTaskRunner[Artifact]
Futures = dict[tuple[str, int], Future]

# Artifacts decide what is current, by content; Prefect's own cache would see neither changed bytes nor edits.
_step: Mapping[str, Any] = {
    "retries": len(RETRY_DELAYS),
    "retry_delay_seconds": RETRY_DELAYS,
    "retry_condition_fn": worth_another_try,
    "cache_policy": NO_CACHE,
    "persist_result": False,
}


@task(task_run_name="prepare images", **_step)
def prepare_images(make: Maker) -> Artifact:
    """Decode the dataset and fix its splits."""
    return make("prepare")


@task(task_run_name="annotate action units", **_step)
def annotate_action_units(make: Maker, dataset: Artifact) -> Artifact:
    """One AU row for every image, by OpenFace or from what it wrote before."""
    return make("annotate", dataset, show=show_annotation)


@task(task_run_name="link neighbours", **_step)
def link_neighbours(make: Maker, dataset: Artifact, action_units: Artifact) -> Artifact:
    """The graph of training images whose faces move alike."""
    return make("graph", dataset, action_units, show=show_graph)


@task(task_run_name="train LDG · seed {seed}", **_step)
def train_ldg(make: Maker, dataset: Artifact, seed: int) -> Artifact:
    """The label distribution generator, from hard labels alone."""
    return make("train-ldg", dataset, seed=seed, show=show_curves)


@task(task_run_name="train LDG-AUs · seed {seed}", **_step)
def train_ldg_aus(make: Maker, dataset: Artifact, graph: Artifact, seed: int) -> Artifact:
    """The same, pulled towards the predictions of its neighbours in AU space."""
    return make("train-ldg", dataset, graph, seed=seed, show=show_curves)


@task(task_run_name="soft labels of {name} · seed {seed}", **_step)
def soft_labels(make: Maker, dataset: Artifact, generator: Artifact, name: str, seed: int) -> Artifact:
    """The frozen generator's emotion distribution of every image."""
    return make("soft-labels", dataset, generator)


@task(task_run_name="distill {name} · seed {seed}", **_step)
def distill(make: Maker, dataset: Artifact, labels: Artifact, name: str, seed: int) -> Artifact:
    """EfficientFace from soft labels."""
    return make("distill", dataset, labels, seed=seed, show=show_curves)


@task(task_run_name="train EF SLL · seed {seed}", **_step)
def train_sll(make: Maker, dataset: Artifact, seed: int) -> Artifact:
    """EfficientFace from hard labels (single-label learning), the baseline for soft labels."""
    return make("distill", dataset, seed=seed, show=show_curves)


@task(task_run_name="evaluate {name} · seed {seed}", **_step)
def evaluate(make: Maker, dataset: Artifact, model: Artifact, name: str, seed: int) -> Artifact:
    """A model's figures on the validation and the test split."""
    return make("evaluate", dataset, model)


@task(task_run_name="report", **_step)
def write_report(make: Maker, artifacts: list[Artifact]) -> Artifact:
    """The paper's table, and a page to look at, of what could be made."""
    return make("report", *used_by("report", artifacts), show=show_report)


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


def _run_name() -> str:
    return run_name(flow_run.parameters)


@flow(name="fer", flow_run_name=_run_name)
def full_pipeline(
    experiment: str = "demo",
    data: str | None = None,
    aus: str | None = None,
    seeds: list[int] | None = None,
    settings: list[str] | None = None,
    artifacts: str = "artifacts",
) -> Artifact:
    """Train and judge the five models of the paper's table, and write the report.

    Args:
        experiment: a bundled experiment's name, or a .toml file.
        data: the dataset's folder; drawn faces need none.
        aus: what OpenFace wrote; drawn faces need none.
        seeds: instead of the experiment's.
        settings: `section.key=value` laid over the experiment, such as graph.k=16.
        artifacts: the folder that everything made goes into, and is found in again.

    Raises:
        FerError: the experiment, or what it names, is not as it should be.
        StepFailed: the dataset, the AU table or the graph could not be made.
        RunFailed: models of some seeds could not be made.
    """
    study = open_study(experiment, data, aus, seeds, settings or (), artifacts)
    # On the way out, by an exception too, the runner ends its steps first, so that the pool's threads have an end.
    with _Pool(max_workers=study.steps_at_a_time) as pool, runner_for(study) as runner:
        make = Maker(study, runner, display(), planned_steps(len(study.seeds)))
        submit = partial(_submit, pool, make)

        dataset = submit(prepare_images)
        action_units = submit(annotate_action_units, dataset=dataset)
        graph = submit(link_neighbours, dataset=dataset, action_units=action_units)
        ground = [future.result() for future in (dataset, action_units, graph)]

        # All seeds of a stage before the next stage: no worker of the pool then sits waiting for what is not made yet.
        generators, students, labels = Futures(), Futures(), Futures()
        for seed in study.seeds:
            generators["LDG", seed] = submit(train_ldg, dataset=dataset, seed=seed)
            generators["LDG-AUs", seed] = submit(train_ldg_aus, dataset=dataset, graph=graph, seed=seed)
        for seed in study.seeds:
            students["EF SLL", seed] = submit(train_sll, dataset=dataset, seed=seed)
        for (name, seed), generator in generators.items():
            labels[name, seed] = submit(soft_labels, dataset=dataset, generator=generator, name=name, seed=seed)
        for (generator_name, seed), distributions in labels.items():
            name = f"EF + {generator_name}"
            students[name, seed] = submit(distill, dataset=dataset, labels=distributions, name=name, seed=seed)
        figures = Futures()
        for (name, seed), model in (generators | students).items():
            figures[name, seed] = submit(evaluate, dataset=dataset, model=model, name=name, seed=seed)

        made, failures = _outcome([*generators.values(), *labels.values(), *students.values(), *figures.values()])
        if not any(artifact.step == "evaluate" for artifact in made):
            raise RunFailed(failures)
        reports, unreported = _outcome([submit(write_report, artifacts=ground + made)])
        make.show_the_rest()
        if failures or unreported:
            raise RunFailed(failures + unreported, *reports)
        return reports[0]


@flow(name="fer", flow_run_name=_run_name)
def annotate(
    experiment: str,
    data: str | None = None,
    aus: str | None = None,
    settings: list[str] | None = None,
    artifacts: str = "artifacts",
) -> Artifact:
    """Just the dataset and its action units; a run of the whole pipeline finds both.

    Args:
        experiment: a bundled experiment's name, or a .toml file.
        data: the dataset's folder.
        aus: what OpenFace wrote before; without it, OpenFace is run.
        settings: `section.key=value` laid over the experiment, such as openface.batch=500.
        artifacts: the folder that everything made goes into, and is found in again.

    Raises:
        FerError: the experiment, or what it names, is not as it should be.
        StepFailed: the dataset or the AU table could not be made.
    """
    study = open_study(experiment, data, aus, None, settings or (), artifacts)
    with _Pool(max_workers=study.steps_at_a_time) as pool, runner_for(study) as runner:
        make = Maker(study, runner, display(), {"prepare": 1, "annotate": 1})
        dataset = _submit(pool, make, prepare_images)
        action_units = _submit(pool, make, annotate_action_units, dataset=dataset)
        # In this order, so that what failed says why, and not what then could not begin.
        _, table = [future.result() for future in (dataset, action_units)]
        make.show_the_rest()
        return table


def _submit(pool: _Pool, make: Maker, step: Task[..., Artifact], **inputs: Any) -> Future:
    return pool.submit(step, {"make": make, **inputs})


def _outcome(futures: Iterable[Future]) -> tuple[list[Artifact], list[Exception]]:
    """Wait for all: artifacts, and failures; a step that lacked an input counts as neither."""
    made, failures = [], []
    for future in futures:
        future.wait()
        if future.state.is_completed():
            made.append(future.result())
        elif future.state.is_final():
            failures.append(future.state.result(raise_on_failure=False))
    return made, failures
