"""An experiment on its data, checked before anything starts; every step of a run gets its part of it."""

import os
import tomllib
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from fer_core.artifacts import Artifact, finished
from fer_core.comparison import cells
from fer_core.contents import Tell, nobody
from fer_core.errors import ActionUnitError, DatasetError, ExperimentError, InputError
from fer_core.experiment import BUNDLED, Experiment, experiment_from, find_experiment, load_experiment
from fer_core.paths import at_home, require_utf8, whole_path, whole_place
from fer_core.steps import (
    NAMED_FILES,
    STEPS,
    Request,
    aus_beside,
    refuse_beside_drawn_faces,
    request,
    runs_openface,
    with_openface_build,
)
from flows.gpus import usable_gpus
from flows.granted import DATA, OPENFACE, is_path, limits_apply, require_granted_paths, require_granted_settings
from flows.runner import StepCommand
from flows.shared_place import DiskFull, StoreAway, StoreError
from flows.store import Store, open_store
from openface.machine import usable_cores
from openface.names import unspell

STEPS_ON_A_GPU = ("train-ldg", "soft-labels", "distill", "evaluate")
"""The others need none, and run beside them."""
_SMALLEST_BATCH = 8
_STEPS_ELSEWHERE = 100
"""Threads that wait for steps on other machines; more steps than that wait their turn here."""


@dataclass(frozen=True)
class Study:
    """An experiment, its data, and the folder of its artifacts."""

    experiment: Experiment
    source: str
    """The bundled experiment's name, or its file's absolute path, as the steps' command lines have it."""
    settings: tuple[str, ...]
    """`key=value` laid over it."""
    data: Path | None
    aus: Path | None
    artifacts: Path
    store: Store | None = None
    """What this machine shares with others, which then run its steps too."""
    document: str | None = None
    """What the experiment's file held when it was opened; None of a bundled one."""

    @property
    def seeds(self) -> tuple[int, ...]:
        """Each once."""
        return tuple(dict.fromkeys(self.experiment.seeds))

    @property
    def jobs(self) -> int:
        """Steps at a time: what the experiment says, or one for every GPU, or one for every two cores.

        Raises:
            ExperimentError: FER_GPUS names a GPU that is not there.
        """
        if self.experiment.run.jobs:
            return self.experiment.run.jobs
        return len(self.gpus) * self.experiment.run.steps_per_gpu or max(1, usable_cores() // 2)

    @cached_property
    def gpus(self) -> tuple[str, ...]:
        """The GPUs that its steps may have."""
        return () if self.experiment.run.device == "cpu" else usable_gpus()

    @property
    def threads(self) -> int:
        """Threads of each step. The machine and `jobs` alone decide it, since a result depends on it to the bit."""
        return max(1, usable_cores() // self.jobs)

    @property
    def steps_at_a_time(self) -> int:
        """Steps under way: as many as this machine runs, or as the workers of all machines may take."""
        return self.jobs if self.store is None else _STEPS_ELSEWHERE

    def found(self, wanted: Request) -> Artifact | None:
        """The step's artifact if it was made before, here or on another machine."""
        fingerprint = wanted.fingerprint()
        if self.store is not None:
            # Else the step itself meets the store, and says what is wrong with it.
            with suppress(StoreAway, StoreError, DiskFull):
                return self.store.fetch(wanted.step.name, fingerprint, self.artifacts)
        return finished(self.folder(wanted), fingerprint)

    def request(self, step: str, inputs: Sequence[Artifact], seed: int | None = None, tell: Tell = nobody) -> Request:
        """The step as `fer_core` knows it, which takes a look at the user's files.

        Args:
            tell: told of that look, if it takes long.

        Raises:
            EngineAway: OpenFace is to be run, and the worker's engine is gone for now.
        """
        outside = {"prepare": self.data, "annotate": self.aus}.get(step)
        wanted = request(step, self.experiment, inputs, seed, outside, tell=tell)
        return with_openface_build(wanted, (self.artifacts / step).glob("*"))

    def folder(self, wanted: Request) -> Path:
        """The folder that a step's artifact goes into."""
        return self.artifacts / wanted.step.name / wanted.fingerprint()

    def command(self, wanted: Request) -> StepCommand:
        """The step as it would be typed."""
        outside = None if wanted.outside is None else (wanted.step.outside, wanted.outside)
        return StepCommand(
            step=wanted.step.name,
            experiment=self.source,
            settings=self.settings,
            inputs=tuple(artifact.path for artifact in wanted.inputs),
            out=self.folder(wanted),
            seed=wanted.seed,
            outside=outside,
            seen="" if wanted.seen is None else str(wanted.seen),
            threads=self.threads,
            reads=self._read_by(wanted),
            runs_openface=runs_openface(wanted),
            uses_gpu=wanted.step.name in STEPS_ON_A_GPU and self.experiment.run.device != "cpu",
            document=self.document,
        )

    def _read_by(self, wanted: Request) -> tuple[Path, ...]:
        """A list of images is read with their folder, and a setting with the file that it names."""
        reads = []
        if wanted.outside is not None:
            listed = wanted.step.name == "prepare" and wanted.outside.is_file()
            reads.append(wanted.outside.parent if listed else wanted.outside)
            if listed and wanted.outside.is_symlink():
                reads.append(wanted.outside.resolve())
        named = [getattr(getattr(self.experiment, section), NAMED_FILES[section]) for section in _sections_read(wanted)]
        reads += [at_home(path) for path in named if path and at_home(path).is_file()]
        return tuple(reads)

    def with_half_the_batch(self, wanted: Request) -> "Study | None":
        """With half the batch, and half the learning rate with it, of a training step; None where that cannot be."""
        section = _recipe_of(wanted)
        if section is None:
            return None
        recipe = getattr(self.experiment, section)
        if recipe.batch < 2 * _SMALLEST_BATCH:
            return None
        halved = (f"{section}.batch={recipe.batch // 2}", f"{section}.learning_rate={recipe.learning_rate / 2}")
        return self.with_settings(halved)

    def with_settings(self, further: Sequence[str]) -> "Study":
        """The same with further `key=value` laid over its settings.

        Raises:
            ExperimentError: one cannot be read, or names what is not there, or what a worker's runs may not.
        """
        settings = (*self.settings, *further)
        experiment = experiment_as_begun(self.source, self.document, settings)
        if limits_apply():
            require_granted_settings(experiment)
        _require_named_files(experiment)
        return replace(self, experiment=experiment, settings=settings)


def experiment_as_begun(source: str, document: str | None, settings: Sequence[str]) -> Experiment:
    """The experiment of a run that has begun: its file may hold the next one by now.

    Args:
        document: what the file held; None of a bundled experiment.

    Raises:
        ExperimentError: a setting cannot be read.
    """
    if document is None:
        return load_experiment(source, settings)
    return experiment_from(tomllib.loads(document), source, settings)


def open_study(
    experiment: str,
    data: str | None,
    aus: str | None,
    seeds: Sequence[int] | None,
    settings: Sequence[str],
    artifacts: str,
) -> Study:
    """Read the experiment, lay the settings over it, and see that the data are there.

    Raises:
        ExperimentError: the experiment cannot be read, or it names what is not there, or what a worker's runs may not.
        InputError: a path is empty, or `artifacts` is a file.
        DatasetError: it needs images, and they are not given or not there.
        ActionUnitError: the AU table is not there.
    """
    _refuse_empty(data=data, aus=aus, artifacts=artifacts)
    if seeds is not None:
        settings = [*settings, f"seeds={list(seeds)}"]
    limited = limits_apply()
    if limited:
        require_granted_paths(experiment=experiment if is_path(experiment) else None, artifacts=artifacts)
    source = _source(experiment)
    if image := os.environ.get(OPENFACE):
        settings = [f"openface.image={image}", *settings]
    loaded = load_experiment(source, settings)
    if limited:
        require_granted_settings(loaded)
    _require_named_files(loaded)
    _refuse_an_end(loaded)
    if data is None and loaded.dataset.source != "sample":
        data = os.environ.get(DATA)
    folder = None if data is None else _path(data)
    refuse_beside_drawn_faces(loaded, folder)
    _require_readable(folder)
    table = aus_beside(folder) if aus is None else _path(aus)
    if limited:
        require_granted_paths(data=None if folder is None else str(folder), aus=None if table is None else str(table))
    made = whole_path(artifacts)
    if made.is_file():
        raise InputError(f"{made}: is a file; name a folder with --artifacts")
    _require_data(loaded, folder, table, made)
    for given in (source, str(made)):
        require_utf8(given)
    document = Path(source).read_text(encoding="utf-8-sig") if Path(source).is_absolute() else None
    study = Study(loaded, source, tuple(settings), folder, table, made, open_store(), document)
    if loaded.comparison:
        _check_cells(study)
    return study


def _require_readable(folder: Path | None) -> None:
    """See that this user may look into the dataset's folder; in a worker's container that is who owns the artifacts.

    Raises:
        DatasetError: they may not.
    """
    if folder is not None and folder.is_dir() and not os.access(folder, os.R_OK | os.X_OK):
        raise DatasetError(
            f"{folder}: user {os.geteuid()} of group {os.getegid()}, as whom this runs, may not read it; allow that, "
            "or have the artifacts' folder belong to a user and a group who may"
        )


def _require_data(experiment: Experiment, folder: Path | None, table: Path | None, artifacts: Path) -> None:
    """See that images and AU table are there, and that nothing is made among the images.

    Raises:
        DatasetError: images are needed, and they are not given or not there; or `artifacts` lies in their folder.
        ActionUnitError: the AU table is not there.
    """
    if folder is None and experiment.dataset.source != "sample":
        raise DatasetError(
            f"dataset.source = {experiment.dataset.source!r} needs images; give their folder with --data"
        )
    if folder is not None and not folder.exists():
        raise DatasetError(f"{folder}: no such folder; give the dataset's own with --data")
    if folder is not None and str(folder) == os.environ.get(DATA) and folder.is_file():
        raise DatasetError(
            f"{folder}: a file; let FER_DATA be its folder, where its images lie, and name it: data=/data/…"
        )
    if folder is not None and str(folder) == os.environ.get(DATA) and not any(folder.iterdir()):
        raise DatasetError(f"{folder}: empty; name the dataset's folder as in `FER_DATA=~/RAF-DB docker compose up -d`")
    if table is not None and not table.exists():
        raise ActionUnitError(f"{table}: no such file or folder; give what OpenFace wrote with --aus")
    if folder is not None and artifacts.is_relative_to(folder):
        raise DatasetError(
            f"{artifacts}: in the dataset's own folder, which would change with all that is made; name a place outside "
            f"of {folder} with --artifacts"
        )


def _require_named_files(experiment: Experiment) -> None:
    """See that the files are there which settings name; the step that reads one may begin hours later."""
    for section, key in NAMED_FILES.items():
        named = getattr(getattr(experiment, section), key)
        if named and not (path := whole_path(named)).exists():
            raise ExperimentError(f"{section}.{key} = {path}: no such file; name one that is there")


def _refuse_an_end(experiment: Experiment) -> None:
    """See that no end is set to a run that would not keep to it."""
    if experiment.run.hours and experiment.comparison is None:
        raise ExperimentError(
            f"run.hours = {experiment.run.hours:g}: ends comparisons alone; end this run with Ctrl-C, or in Prefect's "
            "pages, and the same goes on from there when it is started again"
        )


def _check_cells(study: Study) -> None:
    """A setting that cannot be read is told before the first cell is trained."""
    for cell in {(cell.stage, cell.way): cell for cell in cells(study.experiment)}.values():
        try:
            study.with_settings(cell.settings)
        except ExperimentError as error:
            raise ExperimentError(f"{cell.stage} · {cell.way}: {error}") from error


def _refuse_empty(**named: str | None) -> None:
    """An empty text, as a shell makes of a variable that is not set, would stand for the folder that one is in."""
    for name, path in named.items():
        if path is not None and not path.strip():
            raise InputError(f"--{name}: empty; is the variable set that it comes from? Name a path, or leave it out")


def _path(given: str) -> Path:
    """A path of the user's, whose bytes that are no UTF-8 come spelled, since Prefect keeps parameters as JSON."""
    return whole_place(unspell(given))


def _recipe_of(wanted: Request) -> str | None:
    """The experiment's section that a training step learns by."""
    return {"train-ldg": "ldg", "distill": "distill" if wanted.has("soft-labels") else "sll"}.get(wanted.step.name)


def _sections_read(wanted: Request) -> tuple[str, ...]:
    """The sections whose files count for a step, and so have to be seen by it."""
    if wanted.step.name == "report":
        return tuple(NAMED_FILES)
    if wanted.step.name == "graph":
        return ("action_units",)
    return (recipe,) if (recipe := _recipe_of(wanted)) else ()


def used_by(step: str, artifacts: Iterable[Artifact]) -> list[Artifact]:
    """Pick those that the step has a use for."""
    return [artifact for artifact in artifacts if artifact.step in STEPS[step].needs + STEPS[step].takes]


def seeds_in(text: str) -> list[int]:
    """The seeds in `1,2,3`.

    Raises:
        ExperimentError: they are not whole numbers.
    """
    try:
        return [int(part) for part in text.split(",")]
    except ValueError as error:
        raise ExperimentError(f"--seeds {text}: give whole numbers with commas between them, such as 1,2,3") from error


def _source(experiment: str) -> str:
    """A bundled experiment's name stays one, since a step in a container finds it by that."""
    found = find_experiment(experiment)
    bundled = found.parent == BUNDLED and not Path(experiment).expanduser().is_file()
    return experiment if bundled else str(found.resolve())
