"""Times things side by side: they take turns, so that a machine that others use slows all of them alike."""

import multiprocessing
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection
from typing import Any, NamedTuple


class Seconds(NamedTuple):
    """What a call took on the clock, and of the processor by all threads of its process."""

    clock: float
    processor: float


Kinds = Mapping[str, Callable[[], object]]
CLOCK, PROCESSOR = 0, 1
"""Place of each in a pair of seconds."""


def take_turns(kinds: Kinds, rounds: int) -> dict[str, list[Seconds]]:
    """Seconds of each call of each kind, on the clock and of the processor; a first round, which warms up, is left out.

    Those of the processor are this process's threads' together. Where others take the cores they are the steadier
    measure, with one thread: two wait for each other, and waiting counts.
    """
    seconds: dict[str, list[Seconds]] = {name: [] for name in kinds}
    for _ in range(rounds + 1):
        for name, call in kinds.items():
            seconds[name].append(seconds_of(call))
    return {name: taken[1:] for name, taken in seconds.items()}


def seconds_of(call: Callable[[], object]) -> Seconds:
    """What a call took; what it says itself where it was made in another process."""
    clock, processor = time.perf_counter(), time.process_time()
    result = call()
    here = Seconds(time.perf_counter() - clock, time.process_time() - processor)
    return result if isinstance(result, Seconds) else here


@contextmanager
def elsewhere(make: Callable[..., Callable[[], object]], *arguments: Any) -> Iterator[Callable[[], Seconds]]:
    """A kind in a process of its own, for what a process is set to as a whole.

    Args:
        make: a module's function that makes the kind there, of `arguments`.
    """
    spawned = multiprocessing.get_context("spawn")
    ours, theirs = spawned.Pipe()
    process = spawned.Process(target=_serve, args=(theirs, make, arguments))
    process.start()
    theirs.close()  # So that a process that failed is heard of here.

    def call() -> Seconds:
        try:
            ours.send("go")
            taken: Seconds = ours.recv()
        except (EOFError, ConnectionError) as gone:
            raise RuntimeError("what was timed in a process of its own failed there; its error stands above") from gone
        return taken

    try:
        yield call
    finally:
        with suppress(ConnectionError):
            ours.send("end")
        process.join()


def _serve(connection: Connection, make: Callable[..., Callable[[], object]], arguments: tuple[Any, ...]) -> None:
    call = make(*arguments)
    while connection.recv() == "go":
        connection.send(seconds_of(call))


def fastest(kinds: Kinds, rounds: int) -> dict[str, float]:
    """Seconds of each kind's fastest call: what others do on the machine only ever adds."""
    return {name: clock for name, (clock, _) in fastest_of_both(kinds, rounds).items()}


def fastest_of_both(kinds: Kinds, rounds: int) -> dict[str, tuple[float, float]]:
    """The least seconds of each kind on the clock, and of the processor."""
    turns = take_turns(kinds, rounds)
    return {name: (min(clock for clock, _ in t), min(processor for _, processor in t)) for name, t in turns.items()}
