"""Makes a step's artifact once for all machines of a store: fetched where it is there, waited for where it is made."""

import os
import shutil
import threading
import time
from collections.abc import Callable
from contextlib import suppress

from fer_core.artifacts import open_artifact, unfinished
from fer_core.steps import STEPS
from flows.events import Event, Note
from flows.lease import Holder, Lease, LeaseLost, Silence, kept, latest, machine_name, take
from flows.runner import StepCommand
from flows.shared_place import StoreAway, StoreError
from flows.store import Store

Run = Callable[[StepCommand, Callable[[Event], None]], None]
"""Runs a step to its end, as a `Runner` does."""
_SECONDS_BETWEEN_LOOKS = 2.0


def make_once(
    store: Store, command: StepCommand, run: Run, on_event: Callable[[Event], None], owner: str = "", dead: int = 0
) -> None:
    """See that a step's artifact is at `command.out` and in the store, and make it only if nobody else has or does.

    Args:
        run: runs the step on this machine.
        owner: what the lease calls this process, besides the machine's name.
        dead: the number of a lease whose holder is known to be dead.

    Raises:
        StepFailed: the step failed.
        LeaseLost: another machine took over, since this one gave no sign for too long.
        DiskFull: this machine has no room for it.
        StoreError: the store cannot be used.
        StoreAway: the store does not answer.
    """
    lease = _lease_of(store, command, on_event, f"{machine_name()} {owner}".strip(), dead)
    if lease is None:
        return
    try:
        _make(lease, command, run, on_event)
    except LeaseLost:
        raise
    except BaseException:
        # A store that is away must not hide what went wrong.
        with suppress(StoreAway, StoreError):
            lease.save_resume_state(unfinished(command.out))
            lease.release()
        raise
    lease.clear()


def room_of(command: StepCommand) -> str:
    """The artifact's folder in the store."""
    return f"{command.step}/{command.out.name}"


def _lease_of(
    store: Store, command: StepCommand, on_event: Callable[[Event], None], owner: str, dead: int
) -> Lease | None:
    """Wait for the right to make the artifact; None once it is here, whoever made it."""
    silence, told = Silence(), False
    while (found := store.fetch(command.step, command.out.name, command.out.parent.parent)) is None:
        holder = latest(store, room_of(command))
        if _is_free(holder, silence, dead):
            lease = take(store, room_of(command), holder, owner, STEPS[command.step].resumes)
            # It may have been published, and its leases cleared, between the two looks.
            if lease and not store.has(command.step, command.out.name):
                return lease
        elif not told:
            on_event(Note(f"{holder.owner} is making it; waiting"))
            told = True
        time.sleep(_SECONDS_BETWEEN_LOOKS)
    # Made here before there was a store, or while it was away.
    store.push(found)
    return None


def _is_free(holder: Holder, silence: Silence, dead: int) -> bool:
    return holder.released or holder.number == dead or silence.of(holder)


def _make(lease: Lease, command: StepCommand, run: Run, on_event: Callable[[Event], None]) -> None:
    lost = threading.Event()

    def listen(event: Event) -> None:
        if lost.is_set():  # Ends the step, whose output would not count.
            lease.require_held()
        on_event(event)

    beside = unfinished(command.out)
    if lease.number > 1 and lease.fetch_resume_state(beside):
        on_event(Note("goes on from where the machine before it had come"))
    # Else what a try of days ago left here might be cleared before the step has locked it.
    with suppress(FileNotFoundError):
        os.utime(beside)
    with kept(lease, beside, lost):
        run(command, listen)
        lease.require_held()
        # Still beating, since it may take long.
        counts = lease.store.push(open_artifact(command.out))
    if not counts:
        # Somebody else's came first and counts; on a GPU its bits may be others.
        _take_the_stores(lease.store, command)


def _take_the_stores(store: Store, command: StepCommand) -> None:
    # Out of the way first: whatever ends this process, ours is not taken for the store's.
    late = command.out.with_name(f"{command.out.name}.late")
    shutil.rmtree(late, ignore_errors=True)
    command.out.rename(late)
    try:
        store.fetch(command.step, command.out.name, command.out.parent.parent)
    finally:
        shutil.rmtree(late, ignore_errors=True)
