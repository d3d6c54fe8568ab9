"""Processes that share work which one Python would do on one core."""

import multiprocessing
import os
import signal
import threading
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
    with ProcessPoolExecutor(usable_cores(), mp_context=spawned, initializer=_depend_on_parent) as pool:
        try:
            yield pool
        finally:
            pool.shutdown(cancel_futures=True)


def _depend_on_parent() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """Else one whose parent was killed would wait for more work for ever."""
    parent = multiprocessing.parent_process()
    assert parent is not None, "a process of a pool has a parent"
    parent.join()
    os._exit(1)
