"""An experiment: one TOML file, read into frozen dataclasses, that says all a run depends on."""

import difflib
import json
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import field, fields, is_dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from fer_core.errors import ExperimentError
from fer_core.paths import why_nowhere
from openface.errors import OpenFaceError
from openface.settings import OpenFaceSettings

BUNDLED = Path(__file__).parent / "experiments"

_STRICT = ConfigDict(extra="forbid", strict=True, populate_by_name=True, allow_inf_nan=False)
Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[int, Field(ge=1)]
Pixels = Annotated[int, Field(ge=16, le=1024)]
Seed = Annotated[int, Field(ge=0, lt=2**63)]


def _ascending(pair: tuple[float, float]) -> tuple[float, float]:
    if not 0 < pair[0] <= pair[1]:
        raise ValueError("should be two numbers above 0, the smaller first")
    return pair


def _quartered(size: int) -> int:
    if -(-size // 4) % 4:
        raise ValueError("should have a quarter that divides by 4, such as 48, 64, 96, 112 or 224, for EfficientFace")
    return size


def _positive_or_auto(value: object) -> object:
    if value != "auto" and not (isinstance(value, int | float) and 1e-18 <= value <= 1e18):
        raise ValueError("should be a number from 1e-18 to 1e18, or auto")
    return value


def _views(value: object) -> object:
    counted = isinstance(value, int) and not isinstance(value, bool) and value >= 1
    if not counted and value not in ("mirrored", "online"):
        raise ValueError("should be a whole number from 1 on, mirrored, or online")
    return value


def _classes(value: object) -> object:
    table = isinstance(value, dict) and value and all(isinstance(meaning, str) for meaning in value.values())
    if not table and value not in (7, 8):
        raise ValueError(
            'should be 7, 8, or a table from the dataset\'s own labels to emotions, such as smile = "happiness"'
        )
    return value


Range = Annotated[tuple[float, float], AfterValidator(_ascending)]


@dataclass(frozen=True, config=_STRICT)
class DatasetSettings:
    """Which images, how they are stored, and who is on which side of the split."""

    source: Literal["sample", "ferplus", "fer2013", "rafdb", "affectnet", "folder", "csv"] = "sample"
    image_size: Pixels = 100
    """Side in pixels at which images are stored."""
    colour: bool = True
    classes: Annotated[Literal[7, 8] | Mapping[str, str], BeforeValidator(_classes)] = 7
    """`ferplus` and `affectnet`: 8 adds contempt. As a table, what the dataset's own labels mean: an emotion, one of
    its own labels, "drop", or "unlabelled"; labels that it does not name keep their meaning."""
    protocol: Literal["majority", "ferplus"] = "majority"
    """`ferplus` only, which images count: `majority` takes those for which one class alone has the most votes, or
    where distributions are learnt from, those for which the classes have half of the votes; `ferplus` is what published
    figures go by: single votes are removed, and the top needs more than half of the rest."""
    duplicates: Literal["drop", "keep"] = "drop"
    """Images of validation, test and those without a label that occur in an earlier split, or earlier in their own."""
    labels: Literal["majority", "distribution"] = "majority"
    """What the LDG and SLL learn from: the hard label, or the crowd's distribution where there is one."""
    validation_share: Share = 0.1
    """Cut from train, stratified, where the dataset has no validation split."""
    test_share: Share = 0.2
    """Cut likewise where the dataset has no test split; 1 makes all of it the test split, to judge a checkpoint on."""
    split_seed: Seed = 0
    max_unreadable: Share = 0.01
    """Images that cannot be decoded are skipped and counted up to this share; beyond it is an error."""
    limit: Annotated[int, Field(ge=0)] = 0
    """Keep a stratified draw of this many labelled training images; 0 keeps all. Those without a label all stay."""
    labelled: Annotated[int, Field(ge=0)] = 0
    """For experiments: a stratified draw of this many training images keeps its labels and the others become
    unlabelled; 0 leaves all labels."""
    label_noise: Share = 0.0
    """For experiments: this share of the training labels is replaced by another class, each as likely."""
    count: Positive = 2000
    """`sample` only: faces drawn."""
    seed: Seed = 1
    """`sample` only."""


@dataclass(frozen=True, config=_STRICT)
class ActionUnitSettings:
    """AU columns of an image's vector l_i, and the filter on rows."""

    features: Literal["intensity", "presence", "both", "landmarks", "intensity+landmarks"] = "presence"
    """`both` is intensities and presences. Landmarks are OpenFace's 68 points, moved, scaled and turned onto the mean
    shape of the training images; with intensities they want `standardise = true`. Two kinds of features that are
    standardised count alike in a distance, however many columns each has."""
    vectors: str = ""
    """A parquet or CSV of vectors of one's own, a column `id` and numbers, that images are linked by instead; then no
    action units are needed, and `min_confidence` does not count."""
    standardise: bool = False
    """Zero mean, unit variance, fitted on the training images' rows."""
    min_confidence: Share = 0.0
    outliers: Annotated[float, Field(ge=0, lt=0.5)] = 0.0
    """Share of rows that scikit-learn's IsolationForest removes; 0 removes none."""


@dataclass(frozen=True, config=_STRICT)
class GraphSettings:
    """The approximate nearest-neighbour graph in AU space."""

    k: Positive = 4
    sigma: Annotated[Literal["auto"] | float, BeforeValidator(_positive_or_auto)] = "auto"
    """σ of a_ij = exp(−d/σ²); `auto` takes σ² = the median distance of an image to its k neighbours. Where that is 0,
    because most links join equal vectors, as of presences with k = 1, it takes the mean, and where all are 0, 1."""
    labelled_k: Positive = 8
    """Number of nearest labelled images that labels are propagated from; used only if some images are unlabelled, and
    not with a linear teacher."""
    teacher: Literal["neighbours", "linear"] = "neighbours"
    """What `ldg.propagated` and `ldg.mixed` take, where some images have no label: the labelled neighbours' labels, or
    Fisher's linear discriminant of the AU vectors, fitted to the labelled images; it wants
    `action_units.standardise = true`."""
    backend: Literal["annoy", "exact"] = "annoy"
    """`exact` takes up to 100,000 images, and knows no trees and no recall."""
    trees: Positive = 50
    recall: Annotated[float, Field(gt=0, le=1)] = 0.99
    """The search goes as deep as this recall@k, by distance, asks for: over all images, or over a sample of them where
    there are more than 30,000."""
    control: Literal["none", "random"] = "none"
    """`random` keeps every similarity but draws the neighbours at random, and deals a linear teacher's distributions
    out at random: the control for plain smoothing."""
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 1
    """Annoy takes no larger one."""


@dataclass(frozen=True, config=_STRICT)
class AugmentSettings:
    """Random augmentation of a training image."""

    crop_area: Annotated[tuple[Share, Share], AfterValidator(_ascending)] = (0.08, 1.0)
    """Range of the random crop's share of the image's area; the crop is resized to the input size."""
    crop_ratio: Range = (0.75, 4 / 3)
    """Range of the crop's width over height."""
    flip: Share = 0.5


@dataclass(frozen=True, config=_STRICT)
class Recipe:
    """Stochastic gradient descent and its schedule."""

    epochs: Positive = 100
    batch: Positive = 128
    learning_rate: Annotated[float, Field(gt=0)] = 0.01
    schedule: Literal["step", "one-cycle"] = "step"
    decay_every: Positive = 15
    decay_factor: Annotated[float, Field(gt=0, le=1)] = 0.1
    momentum: Share = 0.9
    """Momentum of the step schedule; One-Cycle moves it between 0.95 and 0.85 against the rate, as torch's does."""
    weight_decay: Annotated[float, Field(ge=0)] = 4e-4
    input_size: Pixels = 224
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """`auto` is bfloat16 where the processor multiplies it by itself and the network is faster in it, else float32."""
    weights: str = ""
    """A file of pre-trained weights to start from, in the original authors' format."""
    pretrained_on: str = ""
    """The pre-training of the recipe's source; a training without `weights` then warns that it starts from scratch."""


@dataclass(frozen=True, config=_STRICT)
class StudentRecipe(Recipe):
    """EfficientFace's, whose stem map, a quarter of the input, has to divide into quadrants."""

    input_size: Annotated[Pixels, AfterValidator(_quartered)] = 224


@dataclass(frozen=True, config=_STRICT)
class LdgSettings(Recipe):
    """The label distribution generator, L = CE + λΩ."""

    architecture: Literal["resnet18", "resnet50"] = "resnet50"
    lambda_: Annotated[float, Field(alias="lambda", ge=0)] = 0.01
    neighbours: Literal["forward", "bank"] = "forward"
    """`forward` is the paper's: a batch's neighbours pass through the network with it. `bank` pulls towards what each
    neighbour was last predicted to be, at next to no cost."""
    neighbours_drawn: Annotated[int, Field(ge=0)] = 0
    """For `forward`: neighbours of an image drawn anew each time it is seen, an unbiased estimate of its Σ_j; 0 takes
    all k."""
    neighbour_gradient: bool = False
    """True where f(x_j) in KL(f(x_j) ‖ f(x_i)) carries a gradient too; what is remembered in a bank has none."""
    epochs_with_neighbours: Annotated[int, Field(ge=0)] = 0
    """Epochs of LDG-AUs, where Ω pulls it or labels are propagated; 0 takes the LDG's."""
    smoothing: Share = 0.0
    """Label smoothing: this share of every label is spread over all classes."""
    mixed: Share = 0.0
    """With a graph: this share of a label is the mean label of the image's nearest labelled images."""
    propagated: Annotated[float, Field(ge=0)] = 0.0
    """With a graph: weight of an unlabelled image's cross-entropy to the mean label of its nearest labelled images."""
    pseudo_labels: Annotated[float, Field(ge=0)] = 0.0
    """Weight of an unlabelled image's cross-entropy to what the network itself is sure of."""
    pseudo_threshold: Share = 0.95
    """The least probability at which it is sure."""
    labelled_share: Annotated[float, Field(gt=0, lt=1)] = 1 / 3
    """Share of labelled images in an epoch, where unlabelled ones are learnt from."""


@dataclass(frozen=True, config=_STRICT)
class SoftLabelSettings:
    """How the frozen LDG labels an image with an emotion distribution."""

    views: Annotated[int | Literal["mirrored", "online"], BeforeValidator(_views)] = 1
    """What of a training image is labelled. 1: the image as it is. `mirrored`: the mean with its mirror image. n > 1: n
    random crops and mirrorings, drawn once; epoch e of the student sees view e mod n, by that view's own label.
    `online`: whatever the student is shown; the generator is asked in every step."""


@dataclass(frozen=True, config=_STRICT)
class EvaluationSettings:
    """Evaluation of a trained model."""

    bootstrap: Positive = 1000
    """Resamples of the test images behind an interval."""


@dataclass(frozen=True, config=_STRICT)
class RunSettings:
    """The place and the width of a run; changes no result's meaning and no fingerprint."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    jobs: Annotated[int, Field(ge=0)] = 0
    """Steps at a time; 0 is one a GPU, and on a CPU one for every two cores."""
    steps_per_gpu: Annotated[int, Field(ge=1)] = 1
    """Training steps at a time on each GPU."""
    capture: bool = True
    """Hold a training step as one CUDA graph on a GPU; off, its kernels are launched one by one."""
    hours: Annotated[float, Field(ge=0)] = 0.0
    """A comparison begins no further step after so many hours, and reports what there is; 0 sets no end."""


@dataclass(frozen=True, config=_STRICT)
class Way:
    """One way to learn, of those that a comparison sets beside each other."""

    generator: Literal["LDG", "LDG-AUs", "none"] = "LDG"
    """Which generator it trains; with `none`, EfficientFace learns from the dataset's own labels."""
    settings: tuple[str, ...] = ()
    """`section.key=value` laid over the experiment, and over its stage's."""


@dataclass(frozen=True, config=_STRICT)
class Stage:
    """Ways that are trained under the same conditions, and so may be compared."""

    title: str
    ways: Annotated[tuple[str, ...], Field(min_length=1)]
    students: tuple[str, ...] = ()
    """Those of its ways whose generator also teaches an EfficientFace."""
    first_seeds: Annotated[int, Field(ge=0)] = 0
    """How many of the experiment's seeds it takes; 0 takes all."""
    settings: tuple[str, ...] = ()
    """`section.key=value` laid over the experiment."""
    by_seed: tuple[str, ...] = ()
    """Keys that take the training's seed, such as dataset.split_seed for labels drawn anew with every seed."""
    settings_of: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """By way, what is laid over the way's own settings in this stage."""
    axis: str = ""
    """What the stages with this same axis are points of a curve over, such as `labelled images`."""
    at: float | None = None
    """Its place on that axis."""


@dataclass(frozen=True, config=_STRICT)
class ComparisonSettings:
    """Ways to learn beside each other: stage by stage, each over several seeds."""

    ways: Annotated[Mapping[str, Way], Field(min_length=1)]
    stages: Annotated[tuple[Stage, ...], Field(min_length=1)]
    pairs: tuple[tuple[str, str], ...] = ()
    """Two ways each, of which differences are shown wherever a stage has both."""
    baseline: str = ""
    """The way whose curve tells how many of an axis another way is worth."""
    only: str = "*"
    """A pattern of the cells to train, such as `500 labels*seed 1`; a cell is called `STAGE · WAY · seed N`."""


@dataclass(frozen=True, config=_STRICT)
class Experiment:
    """Dataset, AU features, graph, and the recipes of the paper's five models."""

    title: str = "untitled"
    seeds: Annotated[tuple[Seed, ...], Field(min_length=1)] = (1,)
    dataset: DatasetSettings = field(default_factory=DatasetSettings)
    action_units: ActionUnitSettings = field(default_factory=ActionUnitSettings)
    openface: OpenFaceSettings = field(default_factory=OpenFaceSettings)
    graph: GraphSettings = field(default_factory=GraphSettings)
    augment: AugmentSettings = field(default_factory=AugmentSettings)
    ldg: LdgSettings = field(default_factory=LdgSettings)
    sll: StudentRecipe = field(default_factory=StudentRecipe)
    distill: StudentRecipe = field(default_factory=StudentRecipe)
    soft_labels: SoftLabelSettings = field(default_factory=SoftLabelSettings)
    evaluation: EvaluationSettings = field(default_factory=EvaluationSettings)
    run: RunSettings = field(default_factory=RunSettings)
    comparison: ComparisonSettings | None = None


_EXPERIMENT = TypeAdapter(Experiment)
_AS_IN_PYTHON = {"True": True, "False": False}
_BARE_POINT = re.compile(r"[+-]?(\d+\.|\.\d+)([eE][+-]?\d+)?")
"""A number with nothing before or after its point, which TOML does not know."""
_OF_DRAWN_FACES = {
    "count": "dataset.limit keeps that many training images",
    "seed": "dataset.split_seed draws the splits",
}
"""Keys of [dataset] that other images have no use for, and what may have been meant."""


def bundled_experiments() -> list[str]:
    """Names of the experiments that come with the project."""
    return sorted(path.stem for path in BUNDLED.glob("*.toml"))


def find_experiment(name: str) -> Path:
    """The file of a bundled experiment's name, or of a path.

    Raises:
        ExperimentError: there is neither.
    """
    try:
        for candidate in (Path(name).expanduser(), BUNDLED / f"{name}.toml"):
            if candidate.is_file():
                return candidate
    except (OSError, RuntimeError) as error:
        if not why_nowhere(error):
            raise
    raise ExperimentError(
        f"{name}: no such experiment; give a .toml file, or one of {', '.join(bundled_experiments())}"
    )


def load_experiment(name: str, settings: Iterable[str] = ()) -> Experiment:
    """Read an experiment and lay `section.key=value` settings over it.

    Raises:
        ExperimentError: the file is not there or not TOML, a key is unknown, or a value is of the wrong type or range.
    """
    path = find_experiment(name)
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise ExperimentError(f"{path}: not TOML: {error}") from error
    return experiment_from(document, str(path), settings)


def experiment_from(document: dict[str, Any], origin: str, settings: Iterable[str] = ()) -> Experiment:
    """Check a parsed document with settings laid over it; `origin` is what messages call it.

    Raises:
        ExperimentError: a key is unknown, or a value is of the wrong type or range, also one of the environment.
    """
    settings = list(settings)
    drawn = _source_in(document) == "sample"
    for setting in settings:
        _lay_over(document, setting)
    if _source_in(document) != "sample":
        _leave_out_of_drawn_faces(document, origin, drawn, settings)
    try:
        return _EXPERIMENT.validate_json(json.dumps(document, default=str))
    except ValidationError as error:
        raise ExperimentError(f"{origin}: {_explain(error)}") from error
    except OpenFaceError as error:
        raise ExperimentError(str(error)) from error


def openface_from(settings: Sequence[str]) -> OpenFaceSettings:
    """What `--set` says of OpenFace, for a command that has no experiment.

    Raises:
        ExperimentError: a key is unknown, or of something else than OpenFace; or a value is of the wrong type or range.
    """
    for setting in settings:
        if not setting.strip().startswith("openface."):
            raise ExperimentError(f"--set {setting}: would change nothing here, where openface.… alone counts")
    return experiment_from({}, "--set", settings).openface


def to_document(experiment: Experiment) -> dict[str, Any]:
    """The experiment as plain values under the keys of its TOML file."""
    document: dict[str, Any] = _EXPERIMENT.dump_python(experiment, mode="json", by_alias=True)
    if experiment.comparison is None:
        del document["comparison"]
    return document


def _lay_over(document: dict[str, Any], setting: str) -> None:
    key, equals, text = setting.partition("=")
    *sections, last = key.strip().split(".")
    if not equals or not last:
        raise ExperimentError(f"--set {setting}: write it as section.key=value, such as graph.k=16")
    value = _value_of(setting, text)
    if isinstance(value, dict) and not sections:
        raise ExperimentError(f"--set {setting}: would replace all of {last}; write each key as {last}.key=value")
    for section in sections:
        document = document.setdefault(section, {})
        if not isinstance(document, dict):
            raise ExperimentError(f"--set {setting}: {section} is a value, not a section")
    document[last] = value


def _value_of(setting: str, text: str) -> object:
    """A value as TOML has it, or as Python has numbers and truth values; whatever is neither is a text."""
    text = text.strip()
    try:
        read: dict[str, object] = tomllib.loads(f"value = {text}")
        several = len(read) > 1
    except (ValueError, RecursionError):
        read = {"value": float(text) if _BARE_POINT.fullmatch(text) else _AS_IN_PYTHON.get(text, text)}
        several = "\n" in text
    if several:
        raise ExperimentError(f"--set {setting}: more than one line; give each setting a --set of its own")
    return read["value"]


def _source_in(document: dict[str, Any]) -> object:
    section = document.get("dataset", {})
    return section.get("source", DatasetSettings.source) if isinstance(section, dict) else None


def _leave_out_of_drawn_faces(document: dict[str, Any], origin: str, drawn: bool, settings: Sequence[str]) -> None:
    """Leave out what an experiment on drawn faces says of how they are drawn, where other images take their place.

    Raises:
        ExperimentError: it is said of other images.
    """
    section = document.get("dataset")
    if not isinstance(section, dict):
        return
    laid = {setting.partition("=")[0].strip() for setting in settings}
    for key, remedy in _OF_DRAWN_FACES.items():
        if key not in section:
            continue
        if drawn and f"dataset.{key}" not in laid:
            del section[key]
        elif section[key] != getattr(DatasetSettings, key):
            raise ExperimentError(f"{origin}: dataset.{key} = {section[key]}: only drawn faces have it; {remedy}")


def _explain(error: ValidationError) -> str:
    first = error.errors(include_url=False)[0]
    location = [str(part) for part in first["loc"]]
    key = ".".join(location)
    if first["type"] in {"unexpected_keyword_argument", "extra_forbidden"}:
        known = _keys_beside(location)
        elsewhere = [] if location[0] == "comparison" else _keys_called(location[-1])
        meant = elsewhere or difflib.get_close_matches(location[-1].lower(), known, n=1, cutoff=0.4)
        return f"unknown key {key}; " + (
            f"did you mean {' or '.join(meant)}?" if meant else f"known are {', '.join(known)}"
        )
    said = first["msg"].removeprefix("Value error, ")
    return f"{key} = {json.dumps(first['input'], default=str)}: {said[0].lower()}{said[1:]}"


def _keys_beside(location: list[str]) -> list[str]:
    section: Any = Experiment
    for part in location[:-1]:
        # A part that is no field is the place of an entry, in a table or a list, of the section that it is in.
        inside = {f.name: f.type for f in fields(section)}.get(part, section)
        section = next(filter(is_dataclass, (inside, *_types_in(inside))), None)
        if section is None:
            return []
    return [f.name.rstrip("_") for f in fields(section)]


def _keys_called(name: str) -> list[str]:
    """The keys of this very name that other sections have."""
    sections = [section.name for section in fields(Experiment)]
    own = [name] if name in sections else []
    return own + [f"{section}.{name}" for section in sections if name in _keys_beside([section, name])]


def _types_in(annotation: Any) -> Iterator[Any]:
    for inner in get_args(annotation):
        yield inner
        yield from _types_in(inner)
