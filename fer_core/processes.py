"""Processes that share work which one Python would do on one core."""

import multiprocessing
import signal
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager

from openface.machine import usable_cores


@contextmanager
def process_a_core() -> Iterator[ProcessPoolExecutor]:
    """As many processes as there are usable cores, which leave interrupts to this one and end with the block.

    They are spawned, not forked: torch and BLAS may hold threads here.
    """
    spawned = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(usable_cores(), mp_context=spawned, initializer=_leave_interrupts_to_parent) as pool:
        try:
            yield pool
        finally:
            pool.shutdown(cancel_futures=True)


def _leave_interrupts_to_parent() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
