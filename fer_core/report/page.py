"""The report: results.json and results.csv for programs, and one self-contained page, index.html, for people."""

import json
import platform
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from markdown_it import MarkdownIt
from markupsafe import Markup

from fer_core import __version__
from fer_core.artifacts import Artifact
from fer_core.data.dataset import AU_TABLE, Dataset, open_dataset
from fer_core.errors import ArtifactError
from fer_core.evaluation.model_card import markdown
from fer_core.experiment import Experiment, to_document
from fer_core.graph.action_units import action_units, read_au_table
from fer_core.graph.neighbours import load_graph, load_teacher
from fer_core.models.checkpoint import ModelCard, read_card
from fer_core.progress import Reporter
from fer_core.report import captions, face_sheets, plots
from fer_core.report.results import (
    MODELS,
    Cost,
    Evidence,
    Generator,
    JudgedModel,
    checkpoint_of,
    models_table,
    read_test_predictions,
    results,
)
from fer_core.report.style import MODEL_COLOURS, emotion_colours, house_style
from fer_core.steps import Request
from fer_core.train.soft_labels import read_soft_labels
from openface.columns import INTENSITIES, PRESENCES

RESULTS = "results.json"
MODELS_TABLE = "results.csv"
PAGE = "index.html"
_TEMPLATES = Path(__file__).parent / "templates"
_PACKAGES = ("torch", "torchvision", "numpy", "pandas", "scikit-learn", "annoy")


def write_report(request: Request, folder: Path, report: Reporter) -> None:
    """Write `results.json`, `results.csv` and `index.html` from whatever models there are; the missing ones are named.

    Raises:
        ArtifactError: an input is not readable, of another dataset, or there twice.
    """
    evidence = read_evidence(request)
    figures = results(evidence)
    text = json.dumps(figures, indent=1, allow_nan=False)
    (folder / RESULTS).write_text(text, encoding="utf-8")
    models_table(evidence).to_csv(folder / MODELS_TABLE, index=False)
    table = read_au_table(request.input("annotate").file(AU_TABLE), evidence.dataset)
    page = render(evidence, figures, table, report)
    (folder / PAGE).write_text(page, encoding="utf-8")


def read_evidence(request: Request) -> Evidence:
    """Read the artifacts of a report's request.

    Raises:
        ArtifactError: an input is not readable, of another dataset, or there twice.
    """
    dataset = open_dataset(request.input("prepare").path)
    landmarks = "landmarks" in request.experiment.action_units.features
    table = read_au_table(request.input("annotate").file(AU_TABLE), dataset, landmarks)
    graph, card = load_graph(request.input("graph").path)
    judgements = {artifact: _read_metrics(artifact) for artifact in request.inputs_of("evaluate")}
    own = {artifact: figures for artifact, figures in judgements.items() if "judged_on" not in figures}
    models = tuple(_read_judged(artifact, figures, dataset) for artifact, figures in own.items())
    _refuse_strangers("evaluate", [(model.name, model.seed) for model in models])
    generators = tuple(_read_generator(artifact, dataset) for artifact in request.inputs_of("soft-labels"))
    _refuse_strangers("soft-labels", [(generator.name, generator.seed) for generator in generators])
    units = action_units(dataset, table, request.experiment.action_units)
    costs = _costs(request, models)
    trained = (*request.inputs_of("train-ldg"), *request.inputs_of("distill"))
    cards = {artifact: read_card(artifact.path) for artifact in trained}
    return Evidence(
        request.experiment,
        dataset,
        units,
        graph,
        card,
        models,
        generators,
        costs,
        checkpoints={(c.name, c.seed): f"{made.step}/{made.path.name}" for made, c in cards.items()},
        model_cards=tuple(markdown(c) for c in sorted(cards.values(), key=_place_in_table)),
        fingerprints={
            (model.name, model.seed): checkpoint_of(artifact) for artifact, model in zip(own, models, strict=True)
        },
        elsewhere=tuple(figures for artifact, figures in judgements.items() if artifact not in own),
        linear_teacher=load_teacher(request.input("graph").path),
    )


def _read_metrics(artifact: Artifact) -> dict[str, Any]:
    """The figures that `fer evaluate` wrote; `judged_on` is among them where they are of other data."""
    try:
        figures: dict[str, Any] = json.loads(artifact.file("metrics.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ArtifactError(f"{artifact.path}: no evaluation ({error}); run `fer evaluate`") from error
    return figures


def _read_judged(artifact: Artifact, figures: dict[str, Any], dataset: Dataset) -> JudgedModel:
    """A model on the report's own dataset; ArtifactError where it is of another."""
    try:
        table = read_test_predictions(artifact)
        probabilities = table[list(dataset.card.labels)].to_numpy(np.float64)
    except (OSError, ValueError, KeyError) as error:
        raise ArtifactError(f"{artifact.path}: no evaluation on this dataset ({error}); run `fer evaluate`") from error
    if list(table["id"]) != list(dataset.manifest["id"].to_numpy()[dataset.rows("test")]):
        raise ArtifactError(f"{artifact.path}: its test images are not this dataset's; run `fer evaluate` on it")
    return JudgedModel(figures, probabilities)


def render(evidence: Evidence, figures: dict[str, Any], table: pd.DataFrame, report: Reporter) -> str:
    """The page as HTML.

    Args:
        figures: `results(evidence)`.
        table: the AU table, one row an image.
    """
    parts = _parts(evidence, figures, table)
    drawn: dict[str, Any] = {}
    with house_style():
        for done, (name, draw) in enumerate(parts.items(), start=1):
            drawn[name] = draw()
            report.progress("report", done, len(parts))
    return template("report.html.j2").render(
        results=figures,
        parts=drawn,
        words=captions.captions(figures, evidence),
        model_cards=[_as_html(page) for page in evidence.model_cards],
        labels=evidence.dataset.card.labels,
        emotion_colours=emotion_colours(evidence.dataset.card.labels),
        model_colours=MODEL_COLOURS,
        coverage_columns=_coverage_columns(figures["au_coverage"]),
        experiment_toml=experiment_toml(evidence.experiment),
        versions=versions(),
    )


def template(name: str) -> Template:
    """A page's template, which escapes whatever comes from data."""
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= captions.FILTERS
    return environment.get_template(name)


def _coverage_columns(coverage: dict[str, dict[str, int]]) -> list[str]:
    """Images, usable, and every reason that a split lost some to."""
    return list(dict.fromkeys(key for counts in coverage.values() for key in counts))


def experiment_toml(experiment: Experiment) -> str:
    """The experiment as a TOML file that `fer run` reads back as the same."""
    document = to_document(experiment)
    plain = [f"{key} = {_toml(value)}" for key, value in document.items() if not isinstance(value, dict)]
    for name, section in document.items():
        if isinstance(section, dict):
            plain += ["", f"[{name}]", *(f"{key} = {_toml(value)}" for key, value in section.items())]
    return "\n".join(plain)


def _toml(value: Any) -> str:
    """A string, number, truth value or list, which TOML writes as JSON does, or a table of such."""
    if isinstance(value, dict):
        return f"{{{', '.join(f'{_toml(key)} = {_toml(inner)}' for key, inner in value.items())}}}"
    return json.dumps(value, ensure_ascii=False)


def _parts(evidence: Evidence, figures: dict[str, Any], table: pd.DataFrame) -> Mapping[str, Callable[[], Any]]:
    """The plots to draw, by the template's name for each."""
    generators, mistaken = face_sheets.shown_generators(evidence), face_sheets.mistaken_model(evidence)
    parts: dict[str, Callable[[], Any]] = _action_unit_parts(evidence, table)
    parts["graph"] = lambda: plots.graph_figure(evidence, figures["graph"]["label_agreement"])
    parts["neighbourhoods"] = lambda: face_sheets.neighbourhoods(evidence)
    if evidence.models:
        parts["overview"] = lambda: plots.overview(evidence, figures["models_over_seeds"])
        parts["curves"] = lambda: plots.training_curves(evidence)
        parts["confusion"] = lambda: plots.confusion_matrices(evidence)
        parts["reliability"] = lambda: plots.reliability(evidence)
    if figures["paired"]:
        parts["differences"] = lambda: plots.differences(figures["paired"])
    if generators:
        parts["ambiguous"] = lambda: face_sheets.ambiguous_faces(evidence, generators)
        parts["random"] = lambda: face_sheets.random_faces(evidence, generators)
    if mistaken is not None:
        parts["mistakes"] = lambda: face_sheets.worst_mistakes(evidence.dataset, mistaken)
    return parts


def _action_unit_parts(evidence: Evidence, table: pd.DataFrame) -> dict[str, Callable[[], Any]]:
    """Histograms and means of the AUs in use, as OpenFace wrote them, of usable training images."""
    train = evidence.dataset.rows("train")
    rows = train[evidence.units.usable[train] & (table["status"].to_numpy()[train] == "ok")]
    if not len(rows):
        return {}
    used, labels = table.iloc[rows], evidence.dataset.labels()[rows]
    features = evidence.experiment.action_units.features
    family = PRESENCES if features == "presence" else INTENSITIES
    # Landmarks alone are no action units to look at; the intensities beside them are.
    columns = tuple(name for name in evidence.units.columns if name in family) or family
    parts: dict[str, Callable[[], Any]] = {}
    if features != "presence":
        parts["intensities"] = lambda: plots.intensity_histograms(used)
    if features in ("presence", "both"):
        parts["presences"] = lambda: plots.presence_rates(used)
    parts["by_class"] = lambda: plots.action_units_by_class(used, labels, evidence.dataset.card.labels, columns)
    return parts


def _place_in_table(card: ModelCard) -> tuple[int, int]:
    """By the table's columns, then by seed."""
    return MODELS.index(card.name) if card.name in MODELS else len(MODELS), card.seed


def _as_html(page: str) -> tuple[str, Markup]:
    """A page's title, and all of it as HTML; what HTML it holds itself is text, and so are pictures and links.

    A class may be called anything, and whoever opens a report is to fetch nothing by it.
    """
    renderer = MarkdownIt("commonmark", {"html": False}).enable("table").disable(["image", "link", "autolink"])
    return page.partition("\n")[0].lstrip("# "), Markup(renderer.render(page))


def _read_generator(artifact: Artifact, dataset: Dataset) -> Generator:
    soft_labels = read_soft_labels(artifact.path, dataset)
    try:
        made_by = json.loads(artifact.file("soft_labels.json").read_text(encoding="utf-8"))
        return Generator(made_by["generator"], made_by["seed"], soft_labels)
    except (OSError, ValueError, KeyError) as error:
        raise ArtifactError(f"{artifact.path}: not soft labels ({error}); make them with `fer soft-labels`") from error


def _refuse_strangers(step: str, made: list[tuple[str, int]]) -> None:
    """The table has a column for each of the five models, and a cell for each of its seeds."""
    for name, seed in made:
        if name not in MODELS:
            raise ArtifactError(f"`fer {step}` of {name}: the report is of {', '.join(MODELS)}; leave it out")
        if made.count((name, seed)) > 1:
            raise ArtifactError(f"two artifacts of `fer {step}` for {name} · seed {seed}; give one of them with --in")


def _costs(request: Request, models: tuple[JudgedModel, ...]) -> tuple[Cost, ...]:
    """Wall-clock seconds and peak memory by step; of a training, the seconds of its epochs."""
    costs = [_cost(step, request.inputs_of(step)) for step in ("prepare", "annotate", "graph")]
    for name in MODELS:
        seconds = [model.training_seconds for model in models if model.name == name]
        if seconds:
            costs.append(Cost(f"train {name}", len(seconds), sum(seconds), _training_memory(request, name)))
    costs += [_cost(step, request.inputs_of(step)) for step in ("soft-labels", "evaluate") if request.inputs_of(step)]
    return tuple(costs)


def _cost(step: str, artifacts: list[Artifact]) -> Cost:
    peak = max(artifact.peak_memory() for artifact in artifacts)
    return Cost(step, len(artifacts), sum(artifact.seconds() for artifact in artifacts), peak)


def _training_memory(request: Request, name: str) -> int | None:
    """The peak of a model's trainings, where they are among the report's inputs."""
    trained = (*request.inputs_of("train-ldg"), *request.inputs_of("distill"))
    return max((made.peak_memory() for made in trained if read_card(made.path).name == name), default=None)


def versions() -> dict[str, str]:
    """Versions of all that a result may hang on, by name."""
    packages = {name: version(name) for name in _PACKAGES}
    return {"fer": __version__, "Python": platform.python_version(), **packages, "machine": platform.machine()}
