"""Times things side by side: they take turns, so that a machine that others use slows all of them alike."""

import time
from collections.abc import Callable, Mapping


def take_turns(kinds: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Seconds of each call of each kind; a first round, which warms up, is left out."""
    seconds: dict[str, list[float]] = {name: [] for name in kinds}
    for _ in range(rounds + 1):
        for name, call in kinds.items():
            started = time.perf_counter()
            call()
            seconds[name].append(time.perf_counter() - started)
    return {name: taken[1:] for name, taken in seconds.items()}


def fastest(kinds: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Seconds of each kind's fastest call: what others do on the machine only ever adds."""
    return {name: min(taken) for name, taken in take_turns(kinds, rounds).items()}
