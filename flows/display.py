"""A run's display: bars on a terminal, lines without one, nothing under a worker."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from threading import Lock
from typing import Any, Protocol

from rich.console import Console
from rich.progress import Progress as RichProgress
from rich.progress import TaskID
from rich.table import Table

from fer_core.artifacts import Artifact
from fer_core.progress import bars
from flows.events import Event, Metrics, Note, Progress


class Display(Protocol):
    """Told of each step as the flow goes; from any thread."""

    def reading(self, step: str, progress: Progress) -> None:
        """The user's files are looked at, to tell whether a step's artifact is there already; only if it takes long."""

    def started(self, step: str) -> None:
        """A step begins."""

    def told(self, step: str, event: Event) -> None:
        """A step told something."""

    def finished(self, step: str, seconds: float) -> None:
        """A step has made its artifact."""

    def reused(self, step: str) -> None:
        """A step's artifact was there already."""

    def failed(self, step: str, reason: str, again: bool) -> None:
        """A step failed, and is or is not tried again."""


class Nowhere:
    """Shows nothing: a worker's runs are watched in Prefect."""

    def reading(self, step: str, progress: Progress) -> None: ...
    def started(self, step: str) -> None: ...
    def told(self, step: str, event: Event) -> None: ...
    def finished(self, step: str, seconds: float) -> None: ...
    def reused(self, step: str) -> None: ...
    def failed(self, step: str, reason: str, again: bool) -> None: ...


class Lines:
    """A line for every start, figure and end."""

    def __init__(self) -> None:
        self._reading: set[tuple[str, str]] = set()

    def reading(self, step: str, progress: Progress) -> None:
        if (step, progress.what) not in self._reading:
            self._reading.add((step, progress.what))
            _print(f"  {step}: {progress.what}")

    def started(self, step: str) -> None:
        _print(f"… {step}")

    def told(self, step: str, event: Event) -> None:
        match event:
            case Metrics():
                _print(f"  {step}: {event}")
            case Note(text):
                _print(f"  {step}: {text}")

    def finished(self, step: str, seconds: float) -> None:
        _print(finish_line(step, seconds))

    def reused(self, step: str) -> None:
        _print(f"= {step} · reused")

    def failed(self, step: str, reason: str, again: bool) -> None:
        _print(failure_line(step, reason, again))


class Bars:
    """A bar for each step that runs; a line for each that has ended."""

    def __init__(self, shown: RichProgress) -> None:
        self._shown = shown
        self._bars: dict[str, TaskID] = {}
        self._lock = Lock()

    def reading(self, step: str, progress: Progress) -> None:
        self._progress(step, progress)

    def started(self, step: str) -> None:
        self._shown.update(self._bar(step), description=step, completed=0, total=None)

    def told(self, step: str, event: Event) -> None:
        match event:
            case Progress():
                self._progress(step, event)
            case Note(text):
                self._line(f"  {step}: {text}", "dim")

    def finished(self, step: str, seconds: float) -> None:
        self._remove(step)
        self._line(finish_line(step, seconds), "green")

    def reused(self, step: str) -> None:
        self._remove(step)
        self._line(f"= {step} · reused", "dim")

    def failed(self, step: str, reason: str, again: bool) -> None:
        self._remove(step)
        self._line(failure_line(step, reason, again), "yellow" if again else "red")

    def _line(self, text: str, style: str) -> None:
        self._shown.console.print(text, style=style, markup=False, highlight=False)

    def _progress(self, step: str, progress: Progress) -> None:
        done, total = progress.of_step()
        description = " · ".join(filter(None, (step, progress.within(step))))
        self._shown.update(self._bar(step), description=description, completed=done, total=total)

    def _bar(self, step: str) -> TaskID:
        """The step's bar, which its start or the look at its files puts there."""
        with self._lock:
            if step not in self._bars:
                self._bars[step] = self._shown.add_task(step, total=None)
            return self._bars[step]

    def _remove(self, step: str) -> None:
        with self._lock:
            if step in self._bars:
                self._shown.remove_task(self._bars.pop(step))


_shown_on: ContextVar[Display | None] = ContextVar("_shown_on", default=None)


def display() -> Display:
    """The place where the run of this context is shown.

    A function, since Prefect pickles a served flow with the names that its body knows, and a ContextVar has no pickle.
    """
    return _shown_on.get() or Nowhere()


@contextmanager
def shown() -> Iterator[None]:
    """Show the runs of this context on standard output."""
    console = Console()
    if not console.is_terminal:
        _shown_on.set(Lines())
        yield
        return
    with bars(console) as live:
        _shown_on.set(Bars(live))
        try:
            yield
        finally:
            # Those of steps that were stopped.
            for bar in live.task_ids:
                live.remove_task(bar)


def paper_table(report: Artifact) -> dict[str, Any]:
    """Accuracy over the seeds: `columns`, a model each, and `rows`: max, median and min in percent, or None."""
    table: dict[str, Any] = _results(report)["table"]
    return table


def comparison_means(report: Artifact) -> list[dict[str, Any]]:
    """What each way of a comparison reaches: stage, way, network, seeds, and the means over these."""
    names = ("stage", "way", "network", "seeds", "accuracy", "kl", "kl_unclipped", "kl_at_temperature")
    means: list[dict[str, Any]] = _results(report)["means"]
    return [{name: row[name] for name in names if name in row} for row in means]


def print_table(report: Artifact) -> None:
    """The paper's table, or what each way of a comparison reaches."""
    if "means" in _results(report):
        _print_means(report)
        return
    paper = paper_table(report)
    table = Table("accuracy, %", *paper["columns"])
    for name, values in paper["rows"].items():
        table.add_row(name, *("–" if value is None else f"{value:.2f}" for value in values))
    _console().print(table)


def _print_means(report: Artifact) -> None:
    console, rows = _console(), comparison_means(report)
    for stage in dict.fromkeys(row["stage"] for row in rows):
        table = Table(stage, "seeds", "accuracy, %", "KL", "EfficientFace, %", "KL")
        here = [row for row in rows if row["stage"] == stage]
        for way in dict.fromkeys(row["way"] for row in here):
            by_network = {row["network"]: row for row in here if row["way"] == way}
            cells = [_figures(by_network.get(network)) for network in ("generator", "student")]
            seeds = ", ".join(dict.fromkeys(str(row["seeds"]) for row in by_network.values()))
            table.add_row(way, seeds, *cells[0], *cells[1])
        console.print(table)
    if any("kl" in row for row in rows):
        console.print(kl_in_words(report), style="dim")
    for same in _results(report).get("same_trainings", ()):
        ways = " and ".join(map(repr, same["ways"]))
        console.print(f"the same trainings in {same['stage']!r}: {ways}; no setting that counts for them differs")
    if missing := _results(report)["missing"]:
        console.print(f"not there: {len(missing)} of the networks asked for; the same command goes on")


def _console() -> Console:
    """Prints names as they are, whatever brackets and colons an experiment gives them."""
    return Console(markup=False, emoji=False)


def kl_in_words(report: Artifact) -> str:
    """What a table's KL depends on."""
    clip = _results(report)["clip"]
    return f"KL after raising every value below {clip:g} to it; results.json has it unclipped, where it is finite."


def _figures(row: dict[str, Any] | None) -> tuple[str, str]:
    if row is None:
        return "–", "–"
    return f"{row['accuracy']:.2f}", f"{row['kl']:.3f}" if "kl" in row else "–"


def _results(report: Artifact) -> dict[str, Any]:
    results: dict[str, Any] = json.loads(report.file("results.json").read_text(encoding="utf-8"))
    return results


def best_student(report: Artifact) -> Path | None:
    """The checkpoint of the EfficientFace that is best on validation, where there is one."""
    models = _results(report).get("models", ())
    students = [m for m in models if m["architecture"] == "efficientface" and m["checkpoint"]]
    if not students:
        return None
    best = max(students, key=lambda model: float(model["selected"]["validation"]["accuracy"]))
    return report.path.parent.parent / str(best["checkpoint"])


def finish_line(step: str, seconds: float) -> str:
    """The line for a finished step."""
    minutes, rest = divmod(round(seconds), 60)
    return f"✓ {step} · {f'{minutes} min ' if minutes else ''}{rest} s"


def failure_line(step: str, reason: str, again: bool) -> str:
    """The line for a failed step."""
    return f"✗ {step}: {reason}{'; trying again' if again else ''}"


def _print(text: str) -> None:
    # In one write, since steps that run side by side would else share lines.
    print(f"{text}\n", end="", flush=True)
