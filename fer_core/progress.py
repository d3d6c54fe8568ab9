"""One progress contract: JSON lines on standard output for a runner, bars for a person at a terminal."""

import json
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol, TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from openface.names import printable

Item = TypeVar("Item")
_SECONDS_BETWEEN_EVENTS = 0.5


class Reporter(Protocol):
    """The messages of a running step."""

    def progress(self, what: str, done: int, total: int) -> None:
        """`done` of `total` units of `what` are finished."""

    def metrics(self, **values: float | int | str) -> None:
        """Figures of a finished part, an epoch's say."""

    def note(self, text: str) -> None:
        """A sentence for the log."""


class JsonLines:
    """Events as one JSON object a line: `progress` (at most two a second), `metrics` and `note`."""

    def __init__(self) -> None:
        self._last = 0.0

    def progress(self, what: str, done: int, total: int) -> None:
        now = time.monotonic()
        if done < total and now - self._last < _SECONDS_BETWEEN_EVENTS:
            return
        self._last = now
        self._write(event="progress", what=what, done=done, total=total)

    def metrics(self, **values: float | int | str) -> None:
        self._write(event="metrics", **values)

    def note(self, text: str) -> None:
        self._write(event="note", text=printable(text))

    def _write(self, **event: Any) -> None:
        print(json.dumps(event), flush=True)


class Bars:
    """A progress bar for each thing that is counted; metrics and notes above it."""

    def __init__(self, bars: Progress) -> None:
        self._bars = bars
        self._tasks: dict[str, TaskID] = {}

    def progress(self, what: str, done: int, total: int) -> None:
        if what not in self._tasks:
            self._tasks[what] = self._bars.add_task(what, total=total)
        self._bars.update(self._tasks[what], completed=done, total=total)

    def metrics(self, **values: float | int | str) -> None:
        self._bars.console.print(metrics_in_words(values), markup=False)

    def note(self, text: str) -> None:
        self._bars.console.print(printable(text), markup=False)


def metrics_in_words(values: Mapping[str, Any]) -> str:
    """Metrics on one line, four digits each."""
    return "  ".join(f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in values.items())


def bars(console: Console) -> Progress:
    """The columns that every progress bar of the project has."""
    # What is counted may be called anything, also something in brackets.
    what = TextColumn("{task.description}", markup=False)
    return Progress(what, BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), console=console)


@contextmanager
def reporter() -> Iterator[Reporter]:
    """Bars where standard output is a terminal, JSON lines where it is not."""
    if not sys.stdout.isatty():
        yield JsonLines()
        return
    with bars(Console()) as shown:
        yield Bars(shown)


def counted(items: Iterable[Item], what: str, total: int, report: Reporter) -> Iterator[Item]:
    """Pass `items` on, reporting how many of `total` are done."""
    for done, item in enumerate(items, start=1):
        yield item
        report.progress(what, done, total)
