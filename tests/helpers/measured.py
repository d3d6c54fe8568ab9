"""Figures that a run of the tests shows in its summary, also when all is well."""

import time
from collections.abc import Callable

MEASURED: list[str] = []


def tell_measured(figure: str) -> None:
    """Remember a figure for the summary."""
    MEASURED.append(figure)


def seconds_of(act: Callable[[], object], limit: float, before: Callable[[], object] = lambda: None) -> float:
    """Seconds that `act` takes, timed once more if they are beyond the limit: a machine may stand still for a while.

    What comes before it each time is not timed.
    """
    taken: list[float] = []
    while len(taken) < 2 and not any(seconds <= limit for seconds in taken):
        before()
        started = time.monotonic()
        act()
        taken.append(time.monotonic() - started)
    return min(taken)
