"""The cells of a comparison: which network is trained how, by which steps, and under which name.

Needs neither torch nor the steps' own code, so that a flow and a report can walk the same path.
"""

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Literal, Protocol

from fer_core.artifacts import Artifact
from fer_core.errors import ArtifactError, ExperimentError
from fer_core.experiment import ComparisonSettings, Experiment, Stage

Network = Literal["generator", "student"]
_OF_ALL_CELLS = ("seeds", "title", "comparison", "run.hours")
"""Sections and keys that a comparison has once; laid over one cell, they would change nothing."""


@dataclass(frozen=True)
class Cell:
    """One way, learnt with one seed in one stage: a generator, its student, or both."""

    stage: str
    way: str
    seed: int
    generator: Literal["LDG", "LDG-AUs", "none"]
    student: bool
    """An EfficientFace is trained."""
    settings: tuple[str, ...]
    """`section.key=value` laid over the experiment."""

    def __str__(self) -> str:
        return f"{self.stage} · {self.way} · seed {self.seed}"

    def networks(self) -> list[Network]:
        """What is trained."""
        trained: dict[Network, bool] = {"generator": self.generator != "none", "student": self.student}
        return [network for network, wanted in trained.items() if wanted]

    def steps(self) -> list[str]:
        """The steps that make it, in their order."""
        graph = ["annotate", "graph"] if self.generator == "LDG-AUs" else []
        trained = [] if self.generator == "none" else ["train-ldg", "evaluate"]
        taught = ["soft-labels"] if self.generator != "none" else []
        return ["prepare", *graph, *trained, *([*taught, "distill", "evaluate"] if self.student else [])]


class Make(Protocol):
    """Makes a step's artifact, or only names it."""

    def __call__(self, step: str, *inputs: Artifact, seed: int | None = None) -> Artifact: ...


@dataclass(frozen=True)
class JudgedCell:
    """What a cell comes to."""

    ground: tuple[Artifact, ...]
    """The dataset, and where there is a graph, the action units."""
    figures: dict[Network, Artifact]
    """What `fer evaluate` made of each network."""


def judge(cell: Cell, make: Make) -> JudgedCell:
    """Walk a cell's steps, from images to figures, as the method does."""
    dataset = make("prepare")
    ground: tuple[Artifact, ...] = (dataset,)
    graph: tuple[Artifact, ...] = ()
    if cell.generator == "LDG-AUs":
        action_units = make("annotate", dataset)
        graph = (make("graph", dataset, action_units),)
        ground = (dataset, action_units)

    figures: dict[Network, Artifact] = {}
    soft_labels: tuple[Artifact, ...] = ()
    if cell.generator != "none":
        generator = make("train-ldg", dataset, *graph, seed=cell.seed)
        figures["generator"] = make("evaluate", dataset, generator)
        soft_labels = (make("soft-labels", dataset, generator),) if cell.student else ()
    if cell.student:
        student = make("distill", dataset, *soft_labels, seed=cell.seed)
        figures["student"] = make("evaluate", dataset, student)
    return JudgedCell(ground, figures)


def cells(experiment: Experiment) -> list[Cell]:
    """The cells of a comparison that its `only` asks for, in the order of their worth.

    Stages come as they are written; within one, all ways of a seed come before the next seed, so that whatever is
    there when time is over can be compared.

    Raises:
        ExperimentError: a stage names a way that there is none of, two stages have one title, a setting of a way or a
            stage is one of all cells, or no cell is asked for.
    """
    comparison = experiment.comparison
    assert comparison is not None, "asked of comparisons alone"
    _check_names(comparison)
    _check_settings(comparison)
    every = [
        _cell(comparison, stage, way, seed)
        for stage in comparison.stages
        for seed in list(dict.fromkeys(experiment.seeds))[: stage.first_seeds or None]
        for way in dict.fromkeys(stage.ways)
    ]
    # By its own name too, since brackets in a name would be a pattern's.
    chosen = [cell for cell in every if str(cell) == comparison.only] or [
        cell for cell in every if fnmatchcase(str(cell), comparison.only)
    ]
    if not chosen:
        raise ExperimentError(f"comparison.only = {comparison.only!r}: no such cell; one is called {str(every[0])!r}")
    return chosen


def require_same_test_images(
    cell: Cell,
    tested: Sequence[str],
    labels: Sequence[str],
    first: Cell,
    tested_first: Sequence[str],
    labels_first: Sequence[str],
) -> None:
    """Cells of a stage are compared image by image.

    Args:
        tested, tested_first: ids of the test images, in their order.
        labels, labels_first: the classes.

    Raises:
        ArtifactError: the test images of `cell`, or its classes, are not those of `first`.
    """
    if list(tested) != list(tested_first):
        raise ArtifactError(
            f"{cell}: its test images are not those of {first}; ways of a stage are compared on the same ones, so give "
            f"{cell.stage!r} settings that leave the test split as it is"
        )
    if list(labels) != list(labels_first):
        raise ArtifactError(
            f"{cell}: its classes are not those of {first}; ways of a stage are compared on the same ones, so give "
            f"{cell.stage!r} settings that leave dataset.classes as it is"
        )


def _cell(comparison: ComparisonSettings, stage: Stage, name: str, seed: int) -> Cell:
    way = comparison.ways[name]
    drawn = tuple(f"{key}={seed}" for key in stage.by_seed)
    settings = (*stage.settings, *drawn, *way.settings, *stage.settings_of.get(name, ()))
    student = way.generator == "none" or name in stage.students
    return Cell(stage.title, name, seed, way.generator, student, settings)


def _check_names(comparison: ComparisonSettings) -> None:
    ways = list(comparison.ways)
    for stage in comparison.stages:
        for key, names, known in (
            ("ways", stage.ways, ways),
            ("students", stage.students, list(stage.ways)),
            ("settings_of", tuple(stage.settings_of), list(stage.ways)),
        ):
            _require_known(f"comparison.stages, {stage.title!r}: {key}", names, known)
    _require_known("comparison.pairs", [name for pair in comparison.pairs for name in pair], ways)
    _require_known("comparison.baseline", [comparison.baseline] if comparison.baseline else [], ways)
    if alike := next((first for first, second in comparison.pairs if first == second), None):
        raise ExperimentError(f"comparison.pairs: {alike!r} stands beside itself; name two ways")
    _check_curves(comparison.stages)
    titles = [stage.title for stage in comparison.stages]
    if repeated := next((title for title in titles if titles.count(title) > 1), None):
        raise ExperimentError(f"comparison.stages: two are called {repeated!r}; give each a title of its own")


def _check_settings(comparison: ComparisonSettings) -> None:
    for name, way in comparison.ways.items():
        _refuse_of_all_cells(f"comparison.ways, {name!r}: settings", way.settings)
    for stage in comparison.stages:
        where = f"comparison.stages, {stage.title!r}"
        _refuse_of_all_cells(f"{where}: settings", stage.settings)
        _refuse_of_all_cells(f"{where}: by_seed", stage.by_seed)
        for name, settings in stage.settings_of.items():
            _refuse_of_all_cells(f"{where}: settings_of {name!r}", settings)


def _refuse_of_all_cells(where: str, settings: Sequence[str]) -> None:
    for setting in settings:
        key = setting.partition("=")[0].strip()
        if shared := next((one for one in _OF_ALL_CELLS if f"{key}.".startswith(f"{one}.")), None):
            remedy = "; first_seeds takes fewer seeds in a stage" if shared == "seeds" else ""
            raise ExperimentError(
                f"{where}: {setting}: {shared} is of the whole experiment and would change nothing here{remedy}"
            )


def _check_curves(stages: Sequence[Stage]) -> None:
    """A point of a curve has an axis and a place on it that is its own."""
    for stage in stages:
        if bool(stage.axis) != (stage.at is not None):
            raise ExperimentError(f"comparison.stages, {stage.title!r}: axis and at go together; give both, or neither")
    points = [(stage.axis, stage.at) for stage in stages if stage.axis]
    if twice := next((point for point in points if points.count(point) > 1), None):
        raise ExperimentError(f"comparison.stages: two are at {twice[1]:g} of {twice[0]}; make them one")


def _require_known(where: str, names: Sequence[str], known: Sequence[str]) -> None:
    for name in names:
        if name not in known:
            nearest = difflib.get_close_matches(name, known, n=1, cutoff=0.4)
            told = f"did you mean {nearest[0]!r}?" if nearest else f"there are {', '.join(known)}"
            raise ExperimentError(f"{where}: no way is called {name!r}; {told}")
