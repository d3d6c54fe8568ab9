"""The report: results.json and results.csv for programs, and one self-contained page, index.html, for people."""

import json
import platform
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from markdown_it import MarkdownIt
from markupsafe import Markup

from fer_core import __version__
from fer_core.data.dataset import AU_TABLE
from fer_core.experiment import Experiment, to_document
from fer_core.graph.action_units import read_au_table
from fer_core.progress import Reporter
from fer_core.report import captions, face_sheets, plots
from fer_core.report.evidence import Evidence, read_evidence
from fer_core.report.models_table import models_table
from fer_core.report.results import results
from fer_core.report.style import MODEL_COLOURS, emotion_colours, house_style
from fer_core.steps import Request
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
    parts["graph"] = lambda: plots.links(evidence.graph, figures["graph"]["label_agreement"])
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
    # Vectors of one's own and landmarks may stand beside a table that lacks a kind of AUs.
    intensities, presences = (
        tuple(name for name in family if used[name].notna().any()) for family in (INTENSITIES, PRESENCES)
    )
    family = presences if features == "presence" else intensities
    # Landmarks alone are no action units to look at; the intensities beside them are.
    columns = tuple(name for name in evidence.units.columns if name in family) or family
    parts: dict[str, Callable[[], Any]] = {}
    if features != "presence" and intensities:
        parts["intensities"] = lambda: plots.intensity_histograms(used)
    if features in ("presence", "both") and presences:
        parts["presences"] = lambda: plots.presence_rates(used)
    if columns:
        parts["by_class"] = lambda: plots.action_units_by_class(used, labels, evidence.dataset.card.labels, columns)
    return parts


def _as_html(page: str) -> tuple[str, Markup]:
    """A page's title, and all of it as HTML; what HTML it holds itself is text, and so are pictures and links.

    A class may be called anything, and whoever opens a report is to fetch nothing by it.
    """
    renderer = MarkdownIt("commonmark", {"html": False}).enable("table").disable(["image", "link", "autolink"])
    return page.partition("\n")[0].lstrip("# "), Markup(renderer.render(page))


def versions() -> dict[str, str]:
    """Versions of all that a result may depend on, by name."""
    packages = {name: version(name) for name in _PACKAGES}
    return {"fer": __version__, "Python": platform.python_version(), **packages, "machine": platform.machine()}
