"""Times things side by side: they take turns, so that a machine that others use slows all of them alike."""

import time
from collections.abc import Callable, Mapping

Kinds = Mapping[str, Callable[[], object]]
CLOCK, PROCESSOR = 0, 1
"""Where each stands in a pair of seconds."""


def take_turns(kinds: Kinds, rounds: int) -> dict[str, list[tuple[float, float]]]:
    """Seconds of each call of each kind, on the clock and of the processor; a first round, which warms up, is left out.

    Those of the processor are this process's threads' together. Where others take the cores they are the steadier
    measure, with one thread: two wait for each other, and waiting counts.
    """
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in kinds}
    for _ in range(rounds + 1):
        for name, call in kinds.items():
            clock, processor = time.perf_counter(), time.process_time()
            call()
            seconds[name].append((time.perf_counter() - clock, time.process_time() - processor))
    return {name: taken[1:] for name, taken in seconds.items()}


def fastest(kinds: Kinds, rounds: int) -> dict[str, float]:
    """Seconds of each kind's fastest call: what others do on the machine only ever adds."""
    return {name: clock for name, (clock, _) in fastest_of_both(kinds, rounds).items()}


def fastest_of_both(kinds: Kinds, rounds: int) -> dict[str, tuple[float, float]]:
    """The least seconds of each kind on the clock, and of the processor."""
    turns = take_turns(kinds, rounds)
    return {name: (min(clock for clock, _ in t), min(processor for _, processor in t)) for name, t in turns.items()}
