"""A run's Prefect artifacts: live progress, coverage, the graph, curves, and the paper's table.

An artifact's key is the experiment's name, a number that puts it in order, and what it is.
"""

import base64
import json
import os
import re
import threading
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
from flows.display import comparison_means, kl_in_words, paper_table
from flows.naming import key_of

Show = Callable[[Artifact, str], None]
"""Shows what was made, under keys that begin with the experiment's name."""
_SECONDS_BETWEEN_UPDATES = 2.0
REPORTS = "FER_REPORTS_URL"
"""Environment: where the folder of reports is served, for who cannot open the worker's files."""
_MODELS = ("LDG", "LDG-AUs", "EF SLL", "EF + LDG", "EF + LDG-AUs")
"""In the order in which they are trained."""
_FIRST_PICTURE = re.compile(r'src="(data:image/svg\+xml;base64,[A-Za-z0-9+/=]+)"')


class LiveProgress:
    """A progress artifact, not updated more often than every two seconds."""

    def __init__(self, key: str) -> None:
        self._key = key
        self._last = time.monotonic()
        self._artifact: UUID | None = None
        self._lock = threading.Lock()

    def show(self, percent: float, description: str) -> None:
        """Create or update it, if the last time is long enough ago and no other thread is at it."""
        if time.monotonic() - self._last < _SECONDS_BETWEEN_UPDATES or not self._lock.acquire(blocking=False):
            return
        try:
            self._set(percent, description)
        finally:
            self._lock.release()

    def show_now(self, percent: float, description: str) -> None:
        """Create or update it at once."""
        with self._lock:
            self._set(percent, description)

    def finish(self, description: str) -> None:
        """Leave it at its end, if it was ever shown."""
        with self._lock:
            if self._artifact is not None:
                self._set(100.0, description)

    def _set(self, percent: float, description: str) -> None:
        self._last = time.monotonic()
        try:
            if self._artifact is None:
                self._artifact = cast(UUID, create_progress_artifact(percent, self._key, description))
            else:
                update_progress_artifact(self._artifact, percent, description)
        except (httpx.HTTPError, PrefectException) as error:
            # A server that is away for a while is no reason to lose hours of training.
            get_run_logger().warning("progress not shown in Prefect: %s", error)


def shown_if_possible(show: Show, made: Artifact, experiment: str) -> bool:
    """Show an artifact in Prefect; False if its server is away, which must not fail the step."""
    try:
        show(made, experiment)
    except (httpx.HTTPError, PrefectException) as error:
        get_run_logger().warning("%s not shown in Prefect: %s", made.step, error)
        return False
    return True


def show_annotation(action_units: Artifact, experiment: str) -> None:
    """Show how many images have a row of AUs, and what happened to the others."""
    counts = _read(action_units, "aus.json")
    total = max(sum(counts.values()), 1)
    rows = [{"status": status, "images": n, "share": f"{n / total:.1%}"} for status, n in counts.items()]
    key = key_of(experiment, "11-annotation")
    create_table_artifact(rows, key, "Images by what came of their annotation.")


def show_graph(graph: Artifact, experiment: str) -> None:
    """The AU coverage by split, the AUs' histograms, and how the graph came about and how good it is."""
    card = _read(graph, "graph.json")
    coverage = card.pop("coverage")
    create_table_artifact(
        [{"split": split, **counts} for split, counts in coverage.items()],
        key_of(experiment, "12-au-coverage"),
        "Images with an AU row that can be used, and why others have none.",
    )
    if graph.file("action_units.png").is_file():
        _show_picture(
            graph, "action_units.png", key_of(experiment, "13-au-histograms"), "Action units of the training images."
        )
    create_table_artifact(
        [{"figure": name, "value": _rounded(value)} for name, value in card.items()],
        key_of(experiment, "21-neighbour-graph"),
        "The graph of neighbours in AU space; `recall` is against exact neighbours, over `recall_images`.",
    )
    about = "Distances and similarities of neighbours, and their labels."
    _show_picture(graph, "graph.png", key_of(experiment, "22-graph-figure"), about)


def show_curves(model: Artifact, experiment: str) -> None:
    """The curves of a training, and a row of figures for each epoch."""
    card = _read(model, "model.json")
    name = f"{card['name']} · seed {card['seed']}"
    place = f"{31 + _MODELS.index(card['name'])}" if card["name"] in _MODELS else "39"
    selected = f"Epoch {card['selected_epoch']} was selected on the validation split."
    page = f"# {name}\n\n{selected}\n\n{_markdown(card['history'])}"
    curves, epochs = (key_of(experiment, place, name, kind) for kind in ("curves", "epochs"))
    _show_picture(model, "curves.png", curves, f"Training curves of {name}")
    create_markdown_artifact(page, epochs, f"Every epoch of {name}")


def show_report(report: Artifact, experiment: str) -> None:
    """The paper's table, where the report is, and the picture that it opens with."""
    table = paper_table(report)
    head = ["accuracy, %", *table["columns"]]
    rows = [
        dict(zip(head, [name, *(None if value is None else round(value, 1) for value in values)], strict=True))
        for name, values in table["rows"].items()
    ]
    create_table_artifact(rows, key_of(experiment, "91-paper-table"), "Accuracy on the test split, over the seeds.")
    _show_page(report, experiment, "How the report begins: the models beside each other.")


def show_comparison(report: Artifact, experiment: str) -> None:
    """What each way reaches, where the report is, and the differences as it draws them."""
    rows = [{name: _rounded(value) for name, value in row.items()} for row in comparison_means(report)]
    create_table_artifact(
        rows, key_of(experiment, "91-means"), f"Means over the seeds, on the test split. {kl_in_words(report)}"
    )
    _show_page(report, experiment, "How the report begins: the differences between ways.")


def _show_page(report: Artifact, experiment: str, about: str) -> None:
    create_link_artifact(
        report_address(report), "The report", key=key_of(experiment, "92-report"), description=str(report.path)
    )
    if picture := _FIRST_PICTURE.search(report.file("index.html").read_text(encoding="utf-8")):
        create_image_artifact(image_url=picture[1], key=key_of(experiment, "93-report-picture"), description=about)


def report_address(report: Artifact) -> str:
    """The address where a browser finds the report's page."""
    served = os.environ.get(REPORTS)
    page = report.file("index.html")
    return f"{served.rstrip('/')}/{report.path.name}/{page.name}" if served else page.as_uri()


def _show_picture(artifact: Artifact, name: str, key: str, description: str) -> None:
    content = base64.b64encode(artifact.file(name).read_bytes()).decode()
    # By argument names, since it takes its key third and the others do not.
    create_image_artifact(image_url=f"data:image/png;base64,{content}", key=key, description=description)


def _read(artifact: Artifact, name: str) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(artifact.file(name).read_text(encoding="utf-8"))
    return document


def _rounded(value: Any) -> Any:
    """Four digits of a number are enough to look at."""
    return float(f"{value:.4g}") if isinstance(value, float) else value


def _markdown(rows: Sequence[Mapping[str, float]]) -> str:
    if not rows:
        return ""
    lines = [list(rows[0]), ["---:"] * len(rows[0]), *([f"{value:.4g}" for value in row.values()] for row in rows)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
