"""Progress of a whole run: steps done of steps planned, and the estimated rest."""

import threading
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from fer_core.steps import STEPS


def planned_steps(seeds: int) -> Mapping[str, int]:
    """Number of each step in the whole method: two generators, three students, five models to evaluate."""
    of_each_seed = {"train-ldg": 2, "soft-labels": 2, "distill": 3, "evaluate": 5}
    return {name: of_each_seed.get(name, 0) * seeds or 1 for name in STEPS}


@dataclass
class _Running:
    kind: str
    started: float
    share: float = 0.0


class RunProgress:
    """Counts the steps of a run; to be told of each from any thread."""

    def __init__(self, planned: Mapping[str, int], jobs: int, clock: Callable[[], float] = time.monotonic) -> None:
        """`planned` steps by kind, of which this machine runs `jobs` at a time."""
        self._left = dict(planned)
        self._total = sum(planned.values())
        self._jobs = jobs
        self._clock = clock
        self._running: dict[str, _Running] = {}
        self._seconds: defaultdict[str, list[float]] = defaultdict(list)
        self._lock = threading.Lock()

    def started(self, name: str, kind: str) -> None:
        """A step begins, or begins again."""
        with self._lock:
            self._running[name] = _Running(kind, self._clock())

    def moved(self, name: str, share: float) -> None:
        """This share of a running step is done."""
        with self._lock:
            if running := self._running.get(name):
                running.share = min(max(share, 0.0), 1.0)

    def ended(self, name: str, kind: str, seconds: float) -> None:
        """A step's artifact is there, which took so long to make, now or at an earlier time."""
        with self._lock:
            self._running.pop(name, None)
            self._left[kind] = max(self._left.get(kind, 0) - 1, 0)
            self._seconds[kind].append(seconds)

    def failed(self, name: str) -> None:
        """A step ended without its artifact, and may be tried again."""
        with self._lock:
            self._running.pop(name, None)

    def percent(self) -> float:
        """Percentage of the steps, parts of running ones included."""
        with self._lock:
            done = self._done() + sum(running.share for running in self._running.values())
        return 100 * min(done / max(self._total, 1), 1.0)

    def words(self) -> str:
        """Such as `5 of 16 steps · about 12 min left`."""
        with self._lock:
            told = f"{self._done()} of {self._total} steps"
            seconds = self._seconds_left()
        if seconds is None:
            return told
        return f"{told} · {_about(seconds)} left" if any(self._left.values()) else f"{told} · done"

    def _done(self) -> int:
        return self._total - sum(self._left.values())

    def _seconds_left(self) -> float | None:
        """None before anything is known of a training, which is what takes long."""
        known = {kind: sum(seconds) / len(seconds) for kind, seconds in self._seconds.items()}
        for running in self._running.values():
            if running.share > 0:
                known.setdefault(running.kind, (self._clock() - running.started) / running.share)
        trainings = [known[kind] for kind in ("train-ldg", "distill") if kind in known]
        if not trainings:
            return None
        # Of the other training nothing may be known yet, and the rest are short.
        guess = {"train-ldg": trainings[0], "distill": trainings[0]}
        shortest = min(known.values())
        work = sum(count * known.get(kind, guess.get(kind, shortest)) for kind, count in self._left.items())
        work -= sum(running.share * known.get(running.kind, 0.0) for running in self._running.values())
        # Of steps on other machines, it is seen how many run.
        at_a_time = max(self._jobs, sum(running.share > 0 for running in self._running.values()))
        return max(work, 0.0) / at_a_time


def _about(seconds: float) -> str:
    if seconds < 90:
        return f"about {max(round(seconds / 10) * 10, 10)} s"
    minutes = round(seconds / 60)
    return f"about {minutes} min" if minutes < 90 else f"about {seconds / 3600:.1f} h"
