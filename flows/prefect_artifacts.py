"""What Prefect's pages show of a run: live progress, coverage, the graph, curves, and the paper's table."""

import base64
import json
import os
import re
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast
from uuid import UUID

import httpx
from prefect.artifacts import (
    create_image_artifact,
    create_link_artifact,
    create_markdown_artifact,
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)
from prefect.exceptions import PrefectException
from prefect.logging import get_run_logger

from fer_core.artifacts import Artifact
from flows.display import paper_table
from flows.events import Progress

_SECONDS_BETWEEN_UPDATES = 2.0
REPORTS = "FER_REPORTS_URL"
"""Environment: where the folder of reports is served, for who cannot open the worker's files."""


class LiveProgress:
    """A progress artifact of a step that takes longer than a moment."""

    def __init__(self, step: str) -> None:
        self._step = step
        self._last = time.monotonic()
        self._artifact: UUID | None = None

    def show(self, progress: Progress) -> None:
        """Create or update it, not more often than every two seconds."""
        now = time.monotonic()
        if now - self._last < _SECONDS_BETWEEN_UPDATES:
            return
        self._last = now
        done, total = progress.of_step()
        self._set(100 * done / max(total, 1))

    def finish(self) -> None:
        """Leave it at its end, if it was ever shown."""
        if self._artifact is not None:
            self._set(100.0)

    def _set(self, percent: float) -> None:
        try:
            if self._artifact is None:
                created = create_progress_artifact(percent, key_of("progress", self._step), self._step)
                self._artifact = cast(UUID, created)
            else:
                update_progress_artifact(self._artifact, percent)
        except httpx.HTTPError as error:
            # A server that is away for a while is no reason to lose hours of training.
            get_run_logger().warning("progress not shown in Prefect: %s", error)


def shown_if_possible(show: Callable[[Artifact], None], made: Artifact) -> None:
    """Tell Prefect of what was made; a server that is away is no reason to lose it."""
    try:
        show(made)
    except (httpx.HTTPError, PrefectException) as error:
        get_run_logger().warning("%s not shown in Prefect: %s", made.step, error)


def show_annotation(action_units: Artifact) -> None:
    """How many images have a row of AUs, and what happened to the others."""
    counts = _read(action_units, "aus.json")
    total = max(sum(counts.values()), 1)
    rows = [{"status": status, "images": n, "share": f"{n / total:.1%}"} for status, n in counts.items()]
    create_table_artifact(rows, "annotation", "Images by what came of their annotation.")


def show_graph(graph: Artifact) -> None:
    """The AU coverage by split, the AUs' histograms, and how the graph came about and how good it is."""
    card = _read(graph, "graph.json")
    coverage = card.pop("coverage")
    create_table_artifact(
        [{"split": split, **counts} for split, counts in coverage.items()],
        "au-coverage",
        "Images with an AU row that can be used, and why others have none.",
    )
    create_table_artifact(
        [{"figure": name, "value": value} for name, value in card.items()],
        "neighbour-graph",
        "The graph of neighbours in AU space; `recall` is against exact neighbours, over `recall_images`.",
    )
    _show_picture(graph, "action_units.png", "au-histograms", "Action units of the training images.")
    _show_picture(graph, "graph.png", "graph-figure", "Distances and similarities of neighbours, and their labels.")


def show_curves(model: Artifact) -> None:
    """The curves of a training, and a row of figures for each epoch."""
    card = _read(model, "model.json")
    name = f"{card['name']} · seed {card['seed']}"
    selected = f"Epoch {card['selected_epoch']} was selected on the validation split."
    page = f"# {name}\n\n{selected}\n\n{_markdown(card['history'])}"
    create_markdown_artifact(page, key_of("epochs", name), f"Every epoch of {name}")
    _show_picture(model, "curves.png", key_of("curves", name), f"Training curves of {name}")


def show_report(report: Artifact) -> None:
    """The paper's table, and where the report is."""
    table = paper_table(report)
    head = ["accuracy, %", *table["columns"]]
    rows = [dict(zip(head, [name, *values], strict=True)) for name, values in table["rows"].items()]
    create_table_artifact(rows, "paper-table", "Accuracy on the test split, over the seeds.")
    create_link_artifact(report_address(report), "The report", key="report", description=str(report.path))


def report_address(report: Artifact) -> str:
    """Where a browser finds the report's page."""
    served = os.environ.get(REPORTS)
    page = report.file("index.html")
    return f"{served.rstrip('/')}/{report.path.name}/{page.name}" if served else page.as_uri()


def key_of(kind: str, name: str) -> str:
    """An artifact's key: Prefect has them in small letters, digits and dashes."""
    return f"{kind}-{re.sub('[^a-z0-9]+', '-', name.lower()).strip('-')}"


def _show_picture(artifact: Artifact, name: str, key: str, description: str) -> None:
    content = base64.b64encode(artifact.file(name).read_bytes()).decode()
    # By argument names, since it takes its key third and the others do not.
    create_image_artifact(image_url=f"data:image/png;base64,{content}", key=key, description=description)


def _read(artifact: Artifact, name: str) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(artifact.file(name).read_text(encoding="utf-8"))
    return document


def _markdown(rows: Sequence[Mapping[str, float]]) -> str:
    if not rows:
        return ""
    lines = [list(rows[0]), ["---:"] * len(rows[0]), *([f"{value:.4g}" for value in row.values()] for row in rows)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
