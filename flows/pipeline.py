"""The paper's method as one flow, in the order of the paper's method section."""

from functools import partial

from prefect import flow, task
from prefect.runtime import flow_run

from fer_core.artifacts import Artifact
from flows.comparison import compare_ways
from flows.display import display
from flows.elsewhere import runner_for
from flows.naming import run_name
from flows.prefect_artifacts import show_annotation, show_curves, show_graph, show_report
from flows.run_progress import planned_steps
from flows.step_task import Maker
from flows.study import open_study, used_by
from flows.tasks import STEP_OPTIONS, Future, Pool, RunFailed, outcome, submit_to

Futures = dict[tuple[str, int], Future[Artifact]]


@task(task_run_name="prepare images", **STEP_OPTIONS)
def prepare_images(make: Maker) -> Artifact:
    """Decode the dataset and fix its splits."""
    return make("prepare")


@task(task_run_name="annotate action units", **STEP_OPTIONS)
def annotate_action_units(make: Maker, dataset: Artifact) -> Artifact:
    """One AU row for every image, by OpenFace or from what it wrote before."""
    return make("annotate", dataset, show=show_annotation)


@task(task_run_name="link neighbours", **STEP_OPTIONS)
def link_neighbours(make: Maker, dataset: Artifact, action_units: Artifact) -> Artifact:
    """The graph of training images whose faces move alike."""
    return make("graph", dataset, action_units, show=show_graph)


@task(task_run_name="train LDG · seed {seed}", **STEP_OPTIONS)
def train_ldg(make: Maker, dataset: Artifact, seed: int) -> Artifact:
    """The label distribution generator, from hard labels alone."""
    return make("train-ldg", dataset, seed=seed, show=show_curves)


@task(task_run_name="train LDG-AUs · seed {seed}", **STEP_OPTIONS)
def train_ldg_aus(make: Maker, dataset: Artifact, graph: Artifact, seed: int) -> Artifact:
    """The same, pulled towards the predictions of its neighbours in AU space."""
    return make("train-ldg", dataset, graph, seed=seed, show=show_curves)


@task(task_run_name="soft labels of {name} · seed {seed}", **STEP_OPTIONS)
def soft_labels(make: Maker, dataset: Artifact, generator: Artifact, name: str, seed: int) -> Artifact:
    """The frozen generator's emotion distribution of every image."""
    return make("soft-labels", dataset, generator)


@task(task_run_name="distill {name} · seed {seed}", **STEP_OPTIONS)
def distill(make: Maker, dataset: Artifact, labels: Artifact, name: str, seed: int) -> Artifact:
    """EfficientFace from soft labels."""
    return make("distill", dataset, labels, seed=seed, show=show_curves)


@task(task_run_name="train EF SLL · seed {seed}", **STEP_OPTIONS)
def train_sll(make: Maker, dataset: Artifact, seed: int) -> Artifact:
    """EfficientFace from hard labels (single-label learning), the baseline for soft labels."""
    return make("distill", dataset, seed=seed, show=show_curves)


@task(task_run_name="evaluate {name} · seed {seed}", **STEP_OPTIONS)
def evaluate(make: Maker, dataset: Artifact, model: Artifact, name: str, seed: int) -> Artifact:
    """A model's figures on the validation and the test split."""
    return make("evaluate", dataset, model)


@task(task_run_name="report", **STEP_OPTIONS)
def write_report(make: Maker, artifacts: list[Artifact]) -> Artifact:
    """The paper's table, and a page to look at, of what could be made."""
    return make("report", *used_by("report", artifacts), show=show_report)


def _run_name() -> str:
    return run_name(flow_run.parameters)


@flow(name="fer", flow_run_name=_run_name, persist_result=False)
def full_pipeline(
    experiment: str = "demo",
    data: str | None = None,
    aus: str | None = None,
    seeds: list[int] | None = None,
    settings: list[str] | None = None,
    artifacts: str = "artifacts",
) -> Artifact:
    """Train and judge the five models of the paper's table, or the cells of a comparison, and write the report.

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
    if study.experiment.comparison:
        return compare_ways(study)
    # On the way out, by an exception too, the runner ends its steps first, so that the pool's threads have an end.
    with Pool(max_workers=study.steps_at_a_time) as pool, runner_for(study) as runner:
        make = Maker(study, runner, display(), planned_steps(len(study.seeds)))
        submit = partial(submit_to, pool, make)

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

        made, failures = outcome([*generators.values(), *labels.values(), *students.values(), *figures.values()])
        if not any(artifact.step == "evaluate" for artifact in made):
            raise RunFailed(failures)
        reports, unreported = outcome([submit(write_report, artifacts=ground + made)])
        make.show_the_rest()
        if failures or unreported:
            raise RunFailed(failures + unreported, *reports)
        return reports[0]


@flow(name="fer", flow_run_name=_run_name, persist_result=False)
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
    with Pool(max_workers=study.steps_at_a_time) as pool, runner_for(study) as runner:
        make = Maker(study, runner, display(), {"prepare": 1, "annotate": 1})
        dataset = submit_to(pool, make, prepare_images)
        action_units = submit_to(pool, make, annotate_action_units, dataset=dataset)
        # In this order, so that what failed says why, and not what then could not begin.
        _, table = [future.result() for future in (dataset, action_units)]
        make.show_the_rest()
        return table
