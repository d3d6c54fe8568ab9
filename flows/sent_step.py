"""A step sent to another machine: its parameters, and the flow that runs it there, sealed as at home."""

import hashlib
import math
import os
import re
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

from prefect import State, flow
from prefect.logging import get_run_logger
from prefect.runtime import flow_run
from prefect.states import Completed, Failed

import fer_core
import flows
import openface
from fer_core.artifacts import Artifact
from fer_core.errors import ExperimentError, FerError
from fer_core.exit_codes import ExitCode
from fer_core.experiment import load_experiment
from fer_core.paths import NO_ROOM
from fer_core.steps import STEPS, Request
from flows.cache import in_use
from flows.containers import runner_here
from flows.events import Event, Note, Progress, event_line
from flows.gpus import workers_steps_per_gpu
from flows.granted import artifacts_folder, own_openface, require_granted_settings
from flows.lease import LeaseLost, machine_name
from flows.made_once import make_once
from flows.named_files import settings_of_fetched
from flows.runner import Runner, StepFailed
from flows.shared_place import SECONDS_OF_PATIENCE, DiskFull, StoreAway, StoreError
from flows.store import FILES, Store, open_store
from flows.study import STEPS_ON_A_GPU, Study
from openface.errors import EngineRefused

STEP_FLOW = "fer-step"
_SECONDS_BETWEEN_PROGRESS, _SHARE_BETWEEN_PROGRESS = 4.0, 0.01
"""At least so long, and so much of the time so far: each is a row in Prefect's database, and stays there."""
_SECONDS_BETWEEN_TRIES = 2.0
_SECONDS_BETWEEN_WORDS = 60.0
TROUBLE_HERE = (ExitCode.STORE_AWAY, ExitCode.ENGINE_AWAY, ExitCode.DISK_FULL, ExitCode.UNFIT)
"""Ends of a step for which its machine is to blame, so that another may do better."""
_ARTIFACT = re.compile(r"[a-z-]+/[0-9a-f]{16}")
_OUTCOME = re.compile(r"\[exit code (-?\d+)\] (.*)", re.DOTALL)


@dataclass(frozen=True)
class SentStep:
    """A step's command without any path, so that it means the same on every machine."""

    code: str
    """The sender's `code_version`; a worker with another one does not run the step."""
    step: str
    fingerprint: str
    experiment: str
    """A bundled experiment's name, or a file's name for people."""
    document: str | None
    """That file's content."""
    settings: tuple[str, ...]
    inputs: tuple[str, ...]
    """STEP/FINGERPRINT of each."""
    seed: int | None
    threads: int
    dead: int = 0
    """Number of a lease whose holder died at it."""
    files: Mapping[str, str] = field(default_factory=dict)
    """SHA-256, by the setting that names it, of each file of the user's that it reads; "" for one that it does not."""


@cache
def code_version() -> str:
    """16 hexadecimal digits of the code that runs steps, the same on every machine that has the same files."""
    digest = hashlib.sha256()
    for package in (fer_core, flows, openface):
        assert package.__file__ is not None
        folder = Path(package.__file__).parent
        for file in sorted([*folder.rglob("*.py"), *folder.rglob("*.toml")]):
            digest.update(f"{package.__name__}/{file.relative_to(folder).as_posix()}\0".encode())
            digest.update(file.read_bytes())
    return digest.hexdigest()[:16]


@flow(name=STEP_FLOW, validate_parameters=False, persist_result=False)
def run_sent_step(sent: dict[str, Any]) -> State[None]:
    """Run a step on this machine: inputs from the store, the artifact back into it."""
    try:
        asked = SentStep(**sent)
    except TypeError as error:
        return _failed(ExitCode.MISTAKE, str(error))
    try:
        _run(asked)
    except StepFailed as failure:
        if failure.details:
            get_run_logger().error("%s", failure.details)
        return _failed(failure.exit_code, failure.message)
    except (StoreAway, StoreError, LeaseLost) as away:
        # The head opened the same store, and so it is this machine that lacks it.
        return _failed(ExitCode.STORE_AWAY, f"{machine_name()}: {away}")
    except DiskFull as full:
        return _failed(ExitCode.DISK_FULL, f"{machine_name()}: {full}")
    except OSError as error:
        if error.errno not in NO_ROOM:
            raise
        return _failed(ExitCode.DISK_FULL, f"{machine_name()}: {error}; free some space there")
    except FerError as error:
        return _failed(ExitCode.MISTAKE, str(error))
    return Completed(message="made")


def outcome(state: State[Any] | None) -> tuple[int, str]:
    """Exit code and reason, as they stand in the state of a sent step that failed."""
    found = _OUTCOME.fullmatch((state and state.message) or "")
    return (
        (int(found[1]), found[2]) if found else (ExitCode.FAILED, (state and state.message) or "ended without a word")
    )


def _failed(exit_code: int, reason: str) -> State[None]:
    return Failed(message=f"[exit code {exit_code}] {reason}")


def _run(sent: SentStep) -> None:
    if sent.code != code_version():
        raise StepFailed(
            sent.step, ExitCode.UNFIT, f"{machine_name()} has other code ({code_version()} for {sent.code}); update it"
        )
    store = _patiently_opened()
    artifacts = artifacts_folder()
    tell = _teller(artifacts / sent.step / sent.fingerprint)
    with ExitStack() as held:
        with _telling_that_it_fetches(tell):
            # Each locked when it is here, since what the next one takes may have the others cleared.
            inputs = [held.enter_context(_input(store, named, artifacts)) for named in sent.inputs]
            sent = replace(sent, settings=(*sent.settings, *settings_of_fetched(store, sent.files, artifacts)))
        files = [artifacts / f".{FILES}" / sha256 for sha256 in sent.files.values() if sha256]
        held.enter_context(in_use([], files))
        study = held.enter_context(_study(sent, artifacts))
        runner = held.enter_context(_runner(study, sent.step))
        wanted = study.request(sent.step, inputs, sent.seed)
        _require_same(wanted, sent)
        command = replace(study.command(wanted), threads=sent.threads)
        try:
            make_once(store, command, runner, tell, str(flow_run.id), sent.dead)
        except StepFailed as failure:
            raise _of_this_machine(failure) from failure


def _patiently_opened() -> Store:
    """The store that this worker opened when it started; it may be away just now.

    Raises:
        StoreAway: it has not come back for minutes.
    """
    deadline = time.monotonic() + SECONDS_OF_PATIENCE
    while True:
        try:
            store = open_store()
        except StoreError as error:
            if time.monotonic() > deadline:
                raise StoreAway(str(error)) from error
            time.sleep(_SECONDS_BETWEEN_TRIES)
        else:
            assert store is not None, "a worker does not start without one"
            return store


def _runner(study: Study, step: str) -> Runner:
    try:
        return runner_here(study)
    except ExperimentError as error:
        raise StepFailed(step, ExitCode.UNFIT, f"{machine_name()}: {error}") from error


@contextmanager
def _telling_that_it_fetches(tell: Callable[[Event], None]) -> Iterator[None]:
    """Say so again and again, since a machine without a lease that says nothing for minutes counts as dead."""
    done = threading.Event()

    def say() -> None:
        while not done.wait(_SECONDS_BETWEEN_WORDS):
            tell(Note(f"{machine_name()} is still fetching what it reads"))

    thread = threading.Thread(target=say, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


@contextmanager
def _input(store: Store, named: str, artifacts: Path) -> Iterator[Artifact]:
    """An artifact that the step reads, fetched and locked."""
    if not _ARTIFACT.fullmatch(named) or (step := named.partition("/")[0]) not in STEPS:
        raise ExperimentError(f"{named}: no artifact; give STEP/FINGERPRINT")
    found = store.fetch(step, named.partition("/")[2], artifacts)
    if found is None:
        raise StoreAway(f"{named}: not in the store {store.place}")
    with in_use([found]):
        yield found


@contextmanager
def _study(sent: SentStep, artifacts: Path) -> Iterator[Study]:
    """The experiment that the step belongs to, as a file where it is none of the bundled ones."""
    # Below the artifacts, where a step's container can be given it.
    with tempfile.TemporaryDirectory(prefix=".sent-", dir=artifacts) as folder:
        source = sent.experiment
        if sent.document is not None:
            file = Path(folder) / Path(sent.experiment).name
            file.write_text(sent.document, encoding="utf-8")
            source = str(file)
        elif Path(source).name != source:
            raise ExperimentError(f"{source}: no bundled experiment")
        experiment = load_experiment(source, sent.settings)
        if sent.step != "annotate":
            # The others run no OpenFace, whichever it was that ran on the head; this worker's own is granted.
            experiment = replace(experiment, openface=own_openface())
        require_granted_settings(experiment)
        # How many run at a time, and so share the memory, is this machine's affair.
        here = replace(experiment.run, jobs=0, steps_per_gpu=workers_steps_per_gpu())
        if sent.step not in STEPS_ON_A_GPU:
            # Else a machine without a GPU would refuse what needs none.
            here = replace(here, device="auto")
        experiment = replace(experiment, run=here)
        yield Study(experiment, source, sent.settings, None, None, artifacts)


def _require_same(wanted: Request, sent: SentStep) -> None:
    if (here := wanted.fingerprint()) != sent.fingerprint:
        raise StepFailed(
            sent.step,
            ExitCode.UNFIT,
            f"{machine_name()} would make {here} where {sent.fingerprint} is wanted; "
            "give it the same OpenFace image as the head, by `docker save` and `docker load`, and the same "
            "FER_OPENFACE_ARGUMENTS",
        )


def _teller(out: Path) -> Callable[[Event], None]:
    """Writes events into the run's log, where the run that sent the step reads them; progress now and then."""
    logger, began, last = get_run_logger(), time.monotonic(), -math.inf

    def tell(event: Event) -> None:
        nonlocal last
        if isinstance(event, Progress):
            now = time.monotonic()
            pause = max(_SECONDS_BETWEEN_PROGRESS, _SHARE_BETWEEN_PROGRESS * (now - began))
            done, total = event.of_step()
            if done < total and now - last < pause:
                return
            last = now
        # Its last word is a folder of this machine, of no use elsewhere.
        if event != Note(str(out)):
            logger.info("%s", event_line(event))

    return tell


def _of_this_machine(failure: StepFailed) -> StepFailed:
    """A full disk and an engine that refuses are this machine's alone, and the step may go to another."""
    if isinstance(failure.__cause__, EngineRefused):
        return _with(failure, ExitCode.UNFIT)
    # The step's own words are all that crosses from its process; they end with the system's.
    if not any(os.strerror(number) in failure.message for number in NO_ROOM):
        return failure
    return _with(failure, ExitCode.DISK_FULL)


def _with(failure: StepFailed, exit_code: ExitCode) -> StepFailed:
    return StepFailed(failure.step, exit_code, f"{machine_name()}: {failure.message}", failure.details)
