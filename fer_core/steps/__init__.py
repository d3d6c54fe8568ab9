"""The steps of the method: inputs, the settings that an output depends on, and the command.

This module imports neither torch nor the steps' own code, so that a flow can ask what is finished without either.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fer_core.artifacts import Artifact, fingerprint, open_artifact
from fer_core.contents import Seen, Tell, content_of, look, look_at_files, nobody
from fer_core.errors import ArtifactError, DatasetError
from fer_core.experiment import Experiment, to_document
from fer_core.paths import at_home, whole_place
from openface.errors import EngineAway, OpenFaceError
from openface.settings import OpenFaceSettings

Settings = dict[str, Any]
NEIGHBOUR_SETTINGS = (
    "lambda",
    "neighbours",
    "neighbours_drawn",
    "neighbour_gradient",
    "epochs_with_neighbours",
    "mixed",
    "propagated",
)
"""Keys of [ldg] that count only with a graph."""
NAMED_FILES = {"ldg": "weights", "sll": "weights", "distill": "weights", "action_units": "vectors"}
"""By section, the key that names a file of the user's, which counts by what it holds."""
_READING = {"reading": 7}
"""How tables of the user's own are read; goes up when that changes. What is made of no such table stays what it is."""
_OWN_LABELS = ("folder", "csv", "affectnet", "fer2013")
"""Sources whose labels mean what `fer_core.data.readers.classes` says."""
_WEIGHED = {"weighed": 1}
"""How several kinds of features share a distance; goes up when that changes. Graphs of one kind stay what they are."""
_TURNED = {"turned": 1}
"""How vectors of one's own at the same distance are told apart; goes up when that changes."""
_TAUGHT = {"taught": 2}
"""How a linear teacher is made; goes up when that changes."""
_REMEMBERED = {"remembered": 2}
"""What a checkpoint remembers of the images that it learnt from; goes up when that changes for those without a label.
What is trained where every image has a label stays what it is."""
_SHARED = ("prepare", "annotate", "graph")
"""Steps whose artifact all inputs of a step have to be made from, where it is an input too."""
_AUS_BESIDE = "openface_aus.parquet"
_NO_IMAGES = (".toml", f"/{_AUS_BESIDE}")
"""Files that may lie beside the images and are none: a worker's runs have no other place for an experiment, and another
λ in it, or other action units, leave the images as they are."""


@dataclass(frozen=True)
class Step:
    """A step of the method."""

    name: str
    version: int
    """Goes up when the step's code changes what it writes; artifacts of another version are made again."""
    summary: str
    settings: "Callable[[Request], Settings]"
    """The part of an experiment that its output depends on, given its inputs."""
    needs: tuple[str, ...] = ()
    """Steps of which exactly one artifact must be given, any of a `|` choice."""
    takes: tuple[str, ...] = ()
    """Steps of which there may be artifacts."""
    seeded: bool = False
    outside: str = ""
    """What the user's path stands for where the step takes one."""
    resumes: tuple[str, ...] = ()
    """Patterns of the files in its unfinished folder from which another try goes on."""


@dataclass(frozen=True)
class Request:
    """A step with all that it is to be run on."""

    step: Step
    experiment: Experiment
    inputs: tuple[Artifact, ...] = ()
    seed: int | None = None
    outside: Path | None = None
    seen: Seen | None = None
    """What `outside` holds."""
    openface_build: str = ""
    """Which build of OpenFace a step that runs it would run, as `with_openface_build` finds out."""

    def input(self, step: str) -> Artifact:
        """The one artifact of a step."""
        (found,) = self.inputs_of(step)
        return found

    def inputs_of(self, step: str) -> list[Artifact]:
        """All artifacts of a step, in the order given."""
        return [artifact for artifact in self.inputs if artifact.step == step]

    def has(self, step: str) -> bool:
        """Tell whether there is an artifact of a step."""
        return bool(self.inputs_of(step))

    def settings(self) -> Settings:
        """The part of the experiment that decides the output."""
        return self.step.settings(self) | ({} if self.seed is None else {"seed": self.seed})

    def fingerprint(self) -> str:
        """The name of the output's folder."""
        inputs = {f"{number:04d}": a.fingerprint for number, a in enumerate(self.inputs)}
        outside = {} if self.seen is None else {"outside": self.seen.content}
        return fingerprint(self.step.name, self.step.version, self.settings(), inputs, outside)

    def way(self) -> str:
        """A fingerprint of how the step works, whatever it works on."""
        return fingerprint(self.step.name, self.step.version, self.settings(), {}, {})

    def seen_again(self, tell: Tell = nobody) -> "Request":
        """The same after another look at `outside`, which is short where nothing has changed there."""
        return replace(self, seen=_look(self.step, self.experiment, self.outside, self.seen, tell))


def action_unit_rows(request: Request) -> Path | None:
    """What OpenFace wrote before: what the user gives, or what came with the images; None where it is to be run."""
    came_with_images = request.input("prepare").file("openface.parquet")
    return request.outside or (came_with_images if came_with_images.is_file() else None)


def runs_openface(request: Request) -> bool:
    """Tell whether a step runs OpenFace: to annotate images of which nothing else says where they are to be linked."""
    annotates = request.step.name == "annotate" and action_unit_rows(request) is None
    return annotates and not request.experiment.action_units.vectors


def _section(name: str) -> Callable[[Request], Settings]:
    return lambda request: {name: to_document(request.experiment)[name]}


def _dataset_settings(request: Request) -> Settings:
    dataset = to_document(request.experiment)["dataset"]
    # Left out where there is none, as before there was a choice: what was made then still counts.
    settings = {"dataset": {key: value for key, value in dataset.items() if (key, value) != ("label_noise", 0.0)}}
    return settings | (_READING if dataset["source"] in _OWN_LABELS else {})


def _annotate_settings(request: Request) -> Settings:
    """The build counts, not the image's name alone; how many images OpenFace is given at a time changes nothing."""
    if request.outside is not None:
        return _READING
    if not runs_openface(request):
        return {} if action_unit_rows(request) is not None else {"action_units": "none"}
    return {"openface": program_settings(request.experiment.openface) | {"build": request.openface_build}}


def program_settings(openface: OpenFaceSettings) -> Settings:
    """What of OpenFace's settings counts; a binary is told by its name and its build, wherever it lies."""
    program = {"image": openface.image, "program": openface.program}
    if openface.binary:
        program = {"binary": Path(openface.binary).name}
    return program | {"arguments": list(openface.arguments)}


def annotated_as_asked(annotated: Artifact, experiment: Experiment) -> bool:
    """Tell whether an annotation is the one that an experiment asks for: by its OpenFace, or none beside vectors."""
    settings = annotated.settings()
    if experiment.action_units.vectors or "action_units" in settings:
        return bool(experiment.action_units.vectors) and "action_units" in settings
    openface = settings.get("openface")
    return openface is None or openface | {"build": ""} == program_settings(experiment.openface) | {"build": ""}


def with_openface_build(wanted: Request, made: Iterable[Path]) -> Request:
    """The request with the build of OpenFace that it would run, asked of the engine or read from the binary.

    Without an engine, what was finished before still counts: then the build is that of the latest of these.

    Args:
        made: folders in which finished artifacts of the step may be.

    Raises:
        EngineAway: the worker's engine is gone for now, and nothing was finished before.
    """
    if not runs_openface(wanted):
        return wanted
    # Whoever only asks what is finished has no need of the engine's library.
    from openface.program import build_of

    try:
        build = build_of(wanted.experiment.openface)
    except (EngineAway, OpenFaceError) as error:
        build = _build_before(wanted, made)
        if not build and isinstance(error, EngineAway):
            raise
    return replace(wanted, openface_build=build)


def _build_before(wanted: Request, made: Iterable[Path]) -> str:
    """The build that the latest finished artifact of this dataset, and this program by name, was made with."""
    found = []
    for folder in made:
        with suppress(ArtifactError, KeyError, FileNotFoundError):
            artifact = open_artifact(folder, wanted.step.name)
            openface = dict(artifact.settings()["openface"])
            build = openface.pop("build")
            same = artifact.made_from("prepare") == {wanted.input("prepare").fingerprint}
            if same and openface == program_settings(wanted.experiment.openface):
                found.append((artifact.made(), build))
    return max(found)[1] if found else ""


def _graph_settings(request: Request) -> Settings:
    document = to_document(request.experiment)
    # What was made before there were these choices still counts.
    graph = {key: value for key, value in document["graph"].items() if (key, value) != ("teacher", "neighbours")}
    taught = _TAUGHT if graph.get("teacher") == "linear" else {}
    units = {key: value for key, value in document["action_units"].items() if (key, value) != ("vectors", "")}
    if "vectors" in units:
        return {"action_units": _file_by_content(units, "vectors"), "graph": graph} | _READING | _TURNED | taught
    shared = units["standardise"] and units["features"] in ("both", "intensity+landmarks")
    return {"action_units": units, "graph": graph} | taught | (_WEIGHED if shared else {})


def _ldg_settings(request: Request) -> Settings:
    """Without a graph, nothing about neighbours counts: another λ leaves the LDG as it is."""
    document = to_document(request.experiment)
    ldg = {k: v for k, v in document["ldg"].items() if request.has("graph") or k not in NEIGHBOUR_SETTINGS}
    return {"ldg": _recipe_settings(ldg), "augment": document["augment"]} | _remembered(request)


def _remembered(request: Request) -> Settings:
    """Only datasets of one's own, and those whose labels are hidden, have images without a label."""
    dataset = request.input("prepare").settings().get("dataset", {})
    return _REMEMBERED if dataset.get("source") in _OWN_LABELS or dataset.get("labelled") else {}


def _soft_label_settings(request: Request) -> Settings:
    """How images are varied counts where it is the generator's views that are drawn."""
    document = to_document(request.experiment)
    drawn = document["soft_labels"]["views"] not in (1, "mirrored", "online")
    return {name: document[name] for name in ("soft_labels", *(["augment"] if drawn else []))}


def _distill_settings(request: Request) -> Settings:
    document = to_document(request.experiment)
    recipe = "distill" if request.has("soft-labels") else "sll"
    return {recipe: _recipe_settings(document[recipe]), "augment": document["augment"]} | _remembered(request)


def _recipe_settings(recipe: Settings) -> Settings:
    """What the weights should be of does not count."""
    return _file_by_content({key: value for key, value in recipe.items() if key != "pretrained_on"}, "weights")


def _file_by_content(section: Settings, key: str) -> Settings:
    """A file counts by what it holds, wherever it lies and whatever it is called."""
    path = at_home(section[key])
    return section | ({key: f"sha256:{content_of(path)}"} if section[key] and path.is_file() else {})


def _report_settings(request: Request) -> Settings:
    document = to_document(request.experiment)
    for where in ("run", "openface"):
        document.pop(where)
    document.pop("comparison", None)
    return document | {section: _file_by_content(document[section], key) for section, key in NAMED_FILES.items()}


def _comparison_settings(request: Request) -> Settings:
    return _report_settings(request) | {"comparison": to_document(request.experiment)["comparison"]}


STEPS: Mapping[str, Step] = {
    step.name: step
    for step in (
        Step("prepare", 2, "Decode a dataset's images and fix its splits.", _dataset_settings, outside="data"),
        Step(
            "annotate",
            3,
            "Give every image a row of action units: of what OpenFace wrote, or by running it.",
            _annotate_settings,
            needs=("prepare",),
            outside="aus",
            resumes=("openface/*",),
        ),
        Step(
            "graph",
            4,
            "Link the training images that are neighbours in AU space.",
            _graph_settings,
            needs=("prepare", "annotate"),
        ),
        Step(
            "train-ldg",
            3,
            "Train the label distribution generator; with a graph, LDG-AUs.",
            _ldg_settings,
            needs=("prepare",),
            takes=("graph",),
            seeded=True,
            resumes=("resume.pt",),
        ),
        Step(
            "soft-labels",
            2,
            "Turn hard labels into the frozen generator's emotion distributions.",
            _soft_label_settings,
            needs=("prepare", "train-ldg"),
        ),
        Step(
            "distill",
            3,
            "Train EfficientFace from soft labels; without any, from hard labels (SLL).",
            _distill_settings,
            needs=("prepare",),
            takes=("soft-labels",),
            seeded=True,
            resumes=("resume.pt",),
        ),
        Step(
            "evaluate",
            6,
            "Judge a model on the validation and the test split, or on another dataset's test split.",
            _section("evaluation"),
            needs=("prepare", "train-ldg|distill"),
        ),
        Step(
            "report",
            9,
            "The paper's table, or a comparison's differences, and a page to look at.",
            _report_settings,
            needs=("prepare", "annotate", "graph"),
            takes=("train-ldg", "soft-labels", "distill", "evaluate"),
        ),
    )
}

COMPARISON_REPORT = Step(
    "report", 5, STEPS["report"].summary, _comparison_settings, takes=("prepare", "annotate", "evaluate")
)
"""The report of an experiment with a comparison, whose cells may each have a dataset of their own."""


def request(
    step: str,
    experiment: Experiment,
    inputs: Sequence[Artifact] = (),
    seed: int | None = None,
    outside: Path | None = None,
    before: Seen | None = None,
    tell: Tell = nobody,
) -> Request:
    """A step to be run, its inputs checked and in an order that their order of naming does not change.

    Args:
        before: what an earlier look found `outside` to hold; without it, files that are not known by now are read.

    Raises:
        ArtifactError: an input is missing, there are too many, one is of no use to the step, or one is made from
            another dataset, AU table or graph than the one given; or a folder in `outside` may not be read.
        DatasetError: images are given beside drawn faces.
        InputError: no file can be at `outside`.
    """
    definition = COMPARISON_REPORT if step == "report" and experiment.comparison else STEPS[step]
    for need in definition.needs:
        count = sum(artifact.step in need.split("|") for artifact in inputs)
        if count != 1:
            makers = " or ".join(f"`fer {name}`" for name in need.split("|"))
            raise ArtifactError(f"fer {step} needs one --in from {makers}, and got {count}")
    known = {name for need in definition.needs for name in need.split("|")} | set(definition.takes)
    for artifact in inputs:
        if artifact.step not in known:
            raise ArtifactError(f"{artifact.path}: made by `fer {artifact.step}`, which `fer {step}` has no use for")
    for shared in _SHARED:
        _refuse_another(shared, step, inputs)
    ordered = tuple(sorted(inputs, key=lambda artifact: (artifact.step, artifact.fingerprint)))
    outside = None if outside is None else whole_place(outside)
    if definition.outside == "data":
        refuse_beside_drawn_faces(experiment, outside)
    return Request(definition, experiment, ordered, seed, outside, _look(definition, experiment, outside, before, tell))


def refuse_beside_drawn_faces(experiment: Experiment, data: Path | None) -> None:
    """See that no images are given that would not be read.

    Raises:
        DatasetError: the experiment draws its faces.
    """
    if data is not None and experiment.dataset.source == "sample":
        raise DatasetError(
            f"{data}: would not be read, since dataset.source = 'sample' draws faces; set dataset.source to what is "
            "there, such as folder, csv or rafdb"
        )


def _look(step: Step, experiment: Experiment, outside: Path | None, before: Seen | None, tell: Tell) -> Seen | None:
    """A list of images changes with the images that it lists."""
    if outside is None:
        return None
    listed = step.outside == "data" and experiment.dataset.source in ("csv", "affectnet")
    if listed and outside.is_file():
        return look_at_files(outside.parent, _listed_in(outside), outside, before, tell)
    without = _NO_IMAGES if step.outside == "data" else ()
    return look(outside, before, tell, _listed_beyond(outside) if listed else (), without)


def _refuse_another(shared: str, step: str, inputs: Sequence[Artifact]) -> None:
    """A graph or soft labels of another split would carry test images into training.

    A checkpoint may be judged on any dataset, and a report may tell of that.
    """
    given = {artifact.fingerprint for artifact in inputs if artifact.step == shared}
    for artifact in inputs:
        if step == "evaluate" or (step == "report" and artifact.step == "evaluate"):
            continue
        if given and not artifact.made_from(shared) <= given:
            raise ArtifactError(
                f"{artifact.path}: made from another artifact of `fer {shared}` than the one given; "
                f"give `fer {step}` the one it was made from, or make it anew from this one"
            )


def _listed_in(path: Path) -> list[Path]:
    """A list and its images that are there; what is wrong with the list is for its reader to tell."""
    from fer_core.data.readers.listed import listed_files

    try:
        return listed_files(path)
    except DatasetError:
        return [path]


def _listed_beyond(folder: Path) -> list[Path]:
    """The images elsewhere that lists in a folder name; what may not be read there is for who looks at it to tell."""
    from fer_core.data.readers.listed import listed_beyond

    try:
        return listed_beyond(folder)
    except (DatasetError, OSError):
        return []


def aus_beside(data: Path | None) -> Path | None:
    """An AU table that lies in the dataset's own folder, for users who name none."""
    table = None if data is None else data / _AUS_BESIDE
    return table if table is not None and table.is_file() else None
