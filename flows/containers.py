"""Runs a step in a container of the trainer image, which sees the step's own files and the GPU that it was lent.

An engine on another machine, whose GPUs nobody here can name, gives a training step all of them.
"""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

from docker.errors import NotFound
from docker.models.containers import Container

from fer_core.artifacts import MANIFEST, publish, unfinished
from fer_core.errors import ArtifactError, ExperimentError
from fer_core.exit_codes import ExitCode
from flows.events import Event, parse_event
from flows.gpus import ALL, GpuPool, locks_folder
from flows.runner import (
    LINES_KEPT,
    RETRY_DELAYS,
    Runner,
    StepCommand,
    StepFailed,
    Subprocesses,
    as_begun,
    failure,
    from_shell,
    lent_to,
)
from flows.study import Study
from openface.docker_engine import (
    NOBODY,
    ContainerSpec,
    cores_of,
    create,
    engine,
    has_gpu,
    memory_of,
    owner_labels,
    ran_out_of_memory,
    remove,
    remove_labelled,
    remove_orphans,
    require_image,
    wait_for,
)
from openface.errors import EngineAway, EngineRefused
from openface.files import links_outside
from openface.machine import has_gpu as machine_has_gpu
from openface.names import printable

Answer = TypeVar("Answer")
TRAINER = "FER_TRAINER_IMAGE"
"""Environment: the image whose containers run the steps; without it they are processes of this machine."""
STEP = "fer.step"
"""Label: the step's name."""
_SHARE_OF_MEMORY = 0.9
_MEMORY_TO_DECODE = 4 << 30


def runner_here(study: Study) -> Runner:
    """Containers where an image is named for them, else processes of this machine.

    Raises:
        ExperimentError: a GPU is asked for and there is none; the engine does not answer or lacks the image.
    """
    image = os.environ.get(TRAINER)
    wants_gpu = study.experiment.run.device == "cuda" and study.store is None
    if not image:
        if wants_gpu and not machine_has_gpu():
            raise ExperimentError("run.device = cuda: no GPU here, or no driver of it; set run.device=cpu")
        return Subprocesses(gpus=_pool(study, study.gpus))
    try:
        gpu, memory, cores = _patiently(lambda: _examined(image))
    except (EngineAway, EngineRefused) as error:
        raise ExperimentError(f"{error}; `fer doctor` tells more") from error
    if wants_gpu and not gpu:
        raise ExperimentError(
            "run.device = cuda: the container engine has no GPU to give; install NVIDIA's container toolkit, or set "
            "run.device=cpu"
        )
    # An engine on another machine has GPUs that nobody here can name.
    gpus = (study.gpus or (ALL,)) if gpu and study.experiment.run.device != "cpu" else ()
    return Containers(image, memory // study.jobs, cores, _pool(study, gpus))


def _pool(study: Study, gpus: tuple[str, ...]) -> GpuPool | None:
    if not gpus:
        return None
    return GpuPool(gpus, study.experiment.run.steps_per_gpu, locks_folder(study.artifacts))


def _examined(image: str) -> tuple[bool, int, int]:
    """Tell whether the engine has a GPU, bytes of memory for all steps, and cores; what dead runs left is removed."""
    with engine() as client:
        remove_orphans(client)
        require_image(client, image)
        return has_gpu(client), int(_SHARE_OF_MEMORY * memory_of(client)), cores_of(client)


def _patiently(ask: Callable[[], Answer]) -> Answer:
    """Ask an engine that is away again, as a step is tried again."""
    for delay in RETRY_DELAYS:
        try:
            return ask()
        except EngineAway:
            time.sleep(delay)
    return ask()


class Containers:
    """A runner that starts a container for each step, and as a context leaves none behind.

    The step that runs OpenFace is a process here, since it starts containers itself.
    """

    def __init__(self, image: str, memory: int, cores: int, gpus: GpuPool | None = None) -> None:
        self._image, self._memory, self._cores, self._gpus = image, memory, cores, gpus
        self._processes = Subprocesses()
        self._stopped = threading.Event()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopped.set()
        with suppress(EngineAway), engine() as client:
            remove_labelled(client, owner_labels())
        self._processes.stop()
        # What a process that was ended by force had started.
        with suppress(EngineAway), engine() as client:
            remove_orphans(client)

    @property
    def stopped(self) -> bool:
        """Tell whether nothing is started any more."""
        return self._stopped.is_set()

    def __call__(self, command: StepCommand, on_event: Callable[[Event], None]) -> None:
        if command.runs_openface:
            self._processes(command, on_event)
            return
        try:
            with lent_to(command, self._gpus, self._stopped) as gpu:
                self._run(command, on_event, gpu or "")
        except EngineRefused as refused:
            raise self._unless_stopped(command, ExitCode.MISTAKE, str(refused)) from refused
        except EngineAway as away:
            raise self._unless_stopped(command, ExitCode.ENGINE_AWAY, str(away)) from away

    def _run(self, command: StepCommand, on_event: Callable[[Event], None], gpu: str) -> None:
        _refuse_links_outside(command)
        room = _make_room(command)
        # The copy lies below the artifacts, where a step's container can be given it.
        with as_begun(command, command.out.parent.parent) as command, engine() as client:
            container = create(client, self._spec(command, room, gpu))
            try:
                if self._stopped.is_set():
                    raise StepFailed(command.step, ExitCode.INTERRUPTED, "stopped before it began")
                container.start()
                for line in _lines(container):
                    on_event(parse_event(line))
                if exit_code := wait_for(container):
                    raise self._failure(command, container, exit_code)
            except NotFound as gone:
                raise self._unless_stopped(command, -signal.SIGKILL, "its container was taken away") from gone
            finally:
                remove(container)
        # Another run may have put it there meanwhile, or do so now.
        with suppress(FileNotFoundError):
            if (room / MANIFEST).is_file():
                publish(command.out)

    def _spec(self, command: StepCommand, room: Path, gpu: str) -> ContainerSpec:
        read = [*command.inputs, *command.reads]
        if Path(command.experiment).is_absolute():
            read.append(Path(command.experiment))
        return ContainerSpec(
            self._image,
            command.arguments(),
            read={str(path): path for path in read},
            write={str(room): room},
            environment={"OMP_NUM_THREADS": str(command.threads)},
            labels={STEP: command.step},
            memory=min(self._memory, _MEMORY_TO_DECODE) if command.step == "prepare" else self._memory,
            # Another machine may have asked for more threads than there are cores, and the bits depend on their number.
            cores=min(command.threads, self._cores),
            gpu=gpu,
        )

    def _failure(self, command: StepCommand, container: Container, exit_code: int) -> StepFailed:
        if self._stopped.is_set():
            return StepFailed(command.step, ExitCode.INTERRUPTED, "stopped")
        said = container.logs(stdout=False, stderr=True, tail=LINES_KEPT).decode(errors="replace")
        lines = [line.rstrip() for line in said.splitlines() if line.strip()]
        if ran_out_of_memory(container):
            reason = f"killed for taking more than {self._memory >> 20:,} MB of memory"
            return StepFailed(command.step, ExitCode.OUT_OF_MEMORY, reason, "\n".join(lines))
        # Exit code 130 without our asking for a stop: something else ended the step.
        ended = -signal.SIGTERM if exit_code == ExitCode.INTERRUPTED else from_shell(exit_code)
        return failure(command, ended, lines)

    def _unless_stopped(self, command: StepCommand, exit_code: int, reason: str) -> StepFailed:
        if self._stopped.is_set():
            return StepFailed(command.step, ExitCode.INTERRUPTED, "stopped")
        return StepFailed(command.step, exit_code, reason)


def _refuse_links_outside(command: StepCommand) -> None:
    """The step would not see what they lead to, and so make another artifact than it is asked for."""
    folder = None if command.outside is None else command.outside[1]
    for link in links_outside(folder) if folder is not None and folder.is_dir() else ():
        reason = (
            f"{link}: leads to {os.path.realpath(link)}, which a step's container does not see; copy or mount what is "
            f"linked into {folder}, or give the folder that holds both"
        )
        raise StepFailed(command.step, ExitCode.MISTAKE, printable(reason))


def _make_room(command: StepCommand) -> Path:
    """Make the one folder that the step may write; its owner is the user that the step runs as, never root."""
    try:
        room = unfinished(command.out)
        command.out.parent.mkdir(parents=True, exist_ok=True)
        room.mkdir(exist_ok=True)
    except ArtifactError as error:
        raise StepFailed(command.step, ExitCode.MISTAKE, str(error)) from error
    except OSError as error:
        reason = f"{error.filename}: {error.strerror}; free or allow space there, and run again"
        raise StepFailed(command.step, ExitCode.MISTAKE, reason) from error
    if os.geteuid() == 0:
        above = command.out.parent.stat()
        user, group = (above.st_uid, above.st_gid) if above.st_uid else (NOBODY, NOBODY)
        for path in (room, *room.rglob("*")):
            os.chown(path, user, group, follow_symlinks=False)
    return room


def _lines(container: Container) -> Iterator[str]:
    """Lines of its standard output, as they come, until its end."""
    rest = ""
    for chunk in container.logs(stdout=True, stderr=False, stream=True, follow=True):
        *whole, rest = (rest + chunk.decode(errors="replace")).split("\n")
        yield from whole
    if rest:
        yield rest
