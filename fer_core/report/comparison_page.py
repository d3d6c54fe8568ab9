"""The page of a comparison: results.json and three tables for programs, index.html for people."""

import json
import shlex
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from fer_core.comparison import Cell
from fer_core.evaluation.metrics import CLIPPING
from fer_core.experiment import to_document
from fer_core.progress import Reporter
from fer_core.report import comparison_plots
from fer_core.report.captions import place
from fer_core.report.comparison import (
    MEASURES,
    NETWORKS,
    Findings,
    differences_table,
    means_table,
    networks_table,
    read_findings,
    results,
    worth_table,
)
from fer_core.report.face_sheets import Face, helped_and_hurt
from fer_core.report.page import MODELS_TABLE, PAGE, RESULTS, template, versions
from fer_core.report.style import emotion_colours, house_style
from fer_core.steps import Request

_NOTHING = 1e-9
"""What a place loses on its way through a logarithm."""


def write_comparison(request: Request, folder: Path, report: Reporter) -> None:
    """Write `results.json`, `results.csv`, `means.csv`, `differences.csv`, `worth.csv` and `index.html`.

    Raises:
        ArtifactError: no cell was judged, or what was cannot be compared.
    """
    findings = read_findings(request)
    figures = results(findings)
    text = json.dumps(figures, indent=1, allow_nan=False)
    (folder / RESULTS).write_text(text, encoding="utf-8")
    networks_table(findings).to_csv(folder / MODELS_TABLE, index=False)
    means, differences = means_table(findings), differences_table(findings)
    for name, table in (("means", means), ("differences", differences), ("worth", worth_table(findings))):
        # Digits that count, since a place on an axis, such as a rate, may be a millionth.
        table.to_csv(folder / f"{name}.csv", index=False, float_format="%.7g")
    page = _render(findings, figures, _parts(findings, means, differences), report)
    (folder / PAGE).write_text(page, encoding="utf-8")


def _render(
    findings: Findings, figures: dict[str, Any], parts: Mapping[str, Callable[[], Any]], report: Reporter
) -> str:
    drawn: dict[str, Any] = {}
    with house_style():
        for done, (name, draw) in enumerate(parts.items(), start=1):
            drawn[name] = draw()
            report.progress("report", done, len(parts))
    labels = findings.networks[0].dataset.card.labels
    return template("comparison.html.j2").render(
        results=figures,
        worth=_worth_in_words(findings, figures),
        parts=drawn,
        curves=[name for name in drawn if name.startswith("along ")],
        comparison=to_document(findings.experiment)["comparison"],
        base=_base_settings(findings),
        seeds=list(dict.fromkeys(network.cell.seed for network in findings.networks)),
        example=_alone(findings.networks[0].cell),
        not_compared=_not_compared(findings, figures),
        without_worth=_without_worth(findings, figures),
        networks=NETWORKS,
        measures=[name for name in MEASURES if name in findings.resampled],
        clipping=CLIPPING,
        labels=labels,
        emotion_colours=emotion_colours(labels),
        versions=versions(),
    )


def _parts(findings: Findings, means: pd.DataFrame, differences: pd.DataFrame) -> Mapping[str, Callable[[], Any]]:
    parts: dict[str, Callable[[], Any]] = {}
    if len(differences):
        parts["forest"] = lambda: comparison_plots.forest(differences)
    for axis in dict.fromkeys(means.loc[means["at"].notna() & (means["axis"] != ""), "axis"]):
        if means[means["axis"] == axis].groupby("network")["at"].nunique().max() > 1:
            parts[f"along {axis}"] = partial(comparison_plots.curves, means, axis)
    if shown := _faces_compared(findings):
        parts["faces"] = lambda: shown
    return parts


def _faces_compared(findings: Findings) -> dict[str, Any] | None:
    """Helped and hurt faces of the first pair that a stage has both of, means over the seeds in common."""
    for first, second in findings.comparison.pairs:
        for stage in findings.comparison.stages:
            one, other = (findings.group(stage, way, "generator") for way in (first, second))
            common = set(one.seeds) & set(other.seeds) if one and other else set()
            if one is None or other is None or not common:
                continue
            predicted = [
                (
                    group.way,
                    np.mean([m.model.probabilities for m in group.members if m.cell.seed in common], axis=0),
                )
                for group in (one, other)
            ]
            helped: list[Face]
            helped, hurt = helped_and_hurt(one.members[0].dataset, predicted[0], predicted[1])
            return {"first": first, "second": second, "stage": stage.title, "helped": helped, "hurt": hurt}
    return None


def _not_compared(findings: Findings, figures: dict[str, Any]) -> list[tuple[str, str]]:
    """Pairs without a difference."""
    compared = {(row["first"], row["second"]) for row in figures["differences"]}
    return [pair for pair in findings.comparison.pairs if pair not in compared]


def _without_worth(findings: Findings, figures: dict[str, Any]) -> list[str]:
    """Axes on which other ways than the baseline lie, and its own curve has no two places above 0."""
    baseline, told = findings.comparison.baseline, {row["axis"] for row in figures["worth"]}
    others = (row["axis"] for row in figures["means"] if row["axis"] and row["way"] != baseline)
    return [axis for axis in dict.fromkeys(others) if baseline and axis not in told]


def _worth_in_words(findings: Findings, figures: dict[str, Any]) -> list[dict[str, Any]]:
    """The rows of `worth` with places as text; at an end of the baseline's curve the place may lie anywhere beyond."""
    told = []
    for row in figures["worth"]:
        curve = (findings.comparison.baseline, row["network"], row["axis"])
        places = [m["at"] for m in figures["means"] if (m["way"], m["network"], m["axis"]) == curve and m["at"]]
        first, last = min(places) * (1 + _NOTHING), max(places) * (1 - _NOTHING)
        words = {
            key: ("≥ " if row[key] >= last else "≤ " if row[key] <= first else "") + place(row[key])
            for key in ("worth", "low", "high")
        }
        told.append(row | words)
    return told


def _alone(cell: Cell) -> str:
    """What a shell hands to `--set` for one cell; a name that is no line of text by itself goes as TOML has it."""
    name = str(cell)
    plain = name == name.strip() and name.isprintable() and "#" not in name
    return shlex.quote(f"comparison.only={name if plain else json.dumps(name, ensure_ascii=False)}")


def _base_settings(findings: Findings) -> dict[str, Any]:
    """The sections that all cells begin with."""
    document = to_document(findings.experiment)
    return {name: section for name, section in document.items() if isinstance(section, dict) and name != "comparison"}
