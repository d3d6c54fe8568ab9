"""The command line of the steps: `fer STEP EXPERIMENT --in ARTIFACT… --out DIR`, by hand as the flow runs it."""

import atexit
import gc
import os
import re
import signal
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from functools import partial
from io import TextIOWrapper
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Literal, NoReturn

import typer

from fer_core.artifacts import open_artifact
from fer_core.contents import seen_from
from fer_core.errors import ActionUnitError, FerError, InputError
from fer_core.exit_codes import ExitCode
from fer_core.experiment import load_experiment, openface_from
from fer_core.models import Architecture
from fer_core.models.facts import ExportFormat
from fer_core.paths import NO_ROOM, at_home, why_nowhere
from fer_core.progress import reporter
from fer_core.steps import STEPS, Step, request, with_openface_build
from fer_core.steps.run import run_step
from openface.errors import EngineAway

_OUT_OF_MEMORY = re.compile("out of memory|not enough memory|can't allocate memory", re.IGNORECASE)
"""Torch's words, for a GPU's memory and for the machine's."""
EXPORTS = Path("artifacts/export")
"""The folder that `fer export` writes into, and where what it wrote is looked for."""
_CASCADE = "cascade"
STOPPED = "stopped; what is finished is kept, and the same command goes on from there"
_PATHS = {
    "data": "The dataset's folder, or its .csv; drawn faces need none.",
    "aus": "What OpenFace wrote: a folder of CSVs, one CSV or a parquet; drawn faces need none.",
}
_SEEN = "What a run found the path to hold, so that the step need not read all of it if it is still so."


ExperimentName = Annotated[
    str, typer.Argument(metavar="EXPERIMENT", help="A bundled experiment's name, or a .toml file.")
]
Settings = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Such as graph.k=16; repeatable.")
]
OpenFace = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Such as openface.binary=/opt/FaceLandmarkImg; repeatable."),
]
Out = Annotated[Path, typer.Option("--out", metavar="DIR", parser=at_home, help="Where the artifact is to be.")]
Inputs = Annotated[
    list[Path] | None,
    typer.Option("--in", metavar="ARTIFACT", parser=at_home, help="Folder that another step made; repeatable."),
]
Seed = Annotated[int, typer.Option(min=0, help="Of the initial weights and of all that is drawn in training.")]


class Interrupted(BaseException):
    """Ctrl-C or SIGTERM, under a name that Typer does not turn into a mistake of the user's."""


def steps_app() -> typer.Typer:
    """A command for every step."""
    app = typer.Typer(
        name="fer",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        help="Train a small facial-expression recogniser with label distributions and action units.",
    )
    for step in STEPS.values():
        app.command(step.name, help=step.summary)(_command(step))
    app.command("openface")(_openface)
    app.command("import-weights")(_import_weights)
    app.command("device")(_device)
    app.command("predict")(_predict)
    app.command("export")(_export)
    app.command("serve-web")(_serve_web)
    app.command("serve-api")(_serve_api)
    return app


def run_app(app: typer.Typer) -> None:
    """Run a command line: one line and exit code 2 for a user's mistake, 3 and 4 where it may pass, 130 for Ctrl-C."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt)
    _open_what_is_closed()
    if isinstance(sys.stdout, TextIOWrapper):  # A terminal may lack the letters of a file's name.
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        with _printed():
            _refuse_empty(sys.argv[1:])
            app()
    except FerError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(ExitCode.MISTAKE)
    except OSError as error:
        if error.errno in NO_ROOM:
            if error.filename is None:
                _drop_output()
                told = f"{error.strerror}; free some where this writes, or where what it prints goes"
            else:
                told = f"{error.filename}: {error.strerror}; free some there, and run again"
            print(f"error: {told}", file=sys.stderr)
            sys.exit(ExitCode.DISK_FULL)
        if not _is_of_a_place(error):
            raise
        print(f"error: {error.filename}: {error.strerror}; name another place, or allow this one", file=sys.stderr)
        sys.exit(ExitCode.MISTAKE)
    except Interrupted:
        print(STOPPED, file=sys.stderr)
        sys.exit(ExitCode.INTERRUPTED)
    except EngineAway as away:
        print(f"error: {away}", file=sys.stderr)
        sys.exit(ExitCode.ENGINE_AWAY)
    except (MemoryError, RuntimeError) as error:
        if nowhere := why_nowhere(error):
            print(f"error: {nowhere}; name another path", file=sys.stderr)
            sys.exit(ExitCode.MISTAKE)
        if isinstance(error, RuntimeError) and not _OUT_OF_MEMORY.search(str(error)):
            raise
        print(f"error: out of memory: {' '.join(str(error).split())[:300]}", file=sys.stderr)
        sys.exit(ExitCode.OUT_OF_MEMORY)


def _refuse_empty(arguments: Sequence[str]) -> None:
    """An empty text, as a shell makes of a variable that is not set, would stand for the folder that one is in."""
    for before, given in pairwise(["", *arguments]):
        option, equals, value = given.partition("=")
        if option.startswith("--") and equals and not value.strip():
            empty = option
        elif not given.strip():
            empty = before if before.startswith("-") else "an argument"
        else:
            continue
        raise InputError(f"{empty}: empty; is the variable set that it comes from? Give it a value, or leave it out")


def _open_what_is_closed() -> None:
    """Give a process that was started without standard streams some that go nowhere.

    Else the first file to be opened would have their number, and whatever a library prints would end up in it.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            nowhere = os.open(os.devnull, os.O_RDWR)
            os.set_inheritable(nowhere, True)
            setattr(sys, name, os.fdopen(nowhere, mode, encoding="utf-8"))


@contextmanager
def _printed() -> Iterator[None]:
    """See that what was printed is written; Python would do so at its end, and only mention it where it cannot."""
    try:
        yield
    finally:
        with suppress(BrokenPipeError):  # Whoever read it has gone.
            sys.stdout.flush()


def _drop_output() -> None:
    """Let what was printed and not yet written go nowhere: Python would try again at its end, and fail."""
    with open(os.devnull, "wb") as nowhere, suppress(OSError, ValueError):
        os.dup2(nowhere.fileno(), sys.stdout.fileno())


def _is_of_a_place(error: OSError) -> bool:
    """Tell whether a file cannot be where the user wants it, and not whether something failed of itself."""
    if error.filename is None:
        return False
    return isinstance(error, FileExistsError | NotADirectoryError | PermissionError) or bool(why_nowhere(error))


def main() -> None:
    """The steps alone, without an orchestrator."""
    collect_seldom()
    run_app(steps_app())


def collect_seldom() -> None:
    """Have Python look for garbage in cycles less often in this process, and no more at its end.

    Importing torch makes some 300,000 objects that stay. Looking through them time and again, and once more when all is
    over, is a quarter of what such a process costs before it does anything.
    """
    gc.set_threshold(10_000)
    atexit.register(gc.freeze)


def _interrupt(number: int, frame: object) -> NoReturn:
    raise Interrupted


def _import_weights(
    published: Annotated[Path, typer.Argument(parser=at_home, help="A .pth.tar file of EfficientFace or of its LDG.")],
    architecture: Annotated[Architecture, typer.Option(help="What the file holds.")],
    out: Out,
    trained_on: Annotated[
        Literal["rafdb", "affectnet7", "affectnet8", "caers"] | None,
        typer.Option(help="What it was published for, which decides its normalisation and classes; rafdb if not said."),
    ] = None,
) -> None:
    """Make a checkpoint of the original authors' published weights. Nothing of the file is run."""
    from fer_core.train.import_weights import import_weights, presumption

    made = import_weights(published, architecture, out, trained_on)
    if trained_on is None:
        print(presumption(made), file=sys.stderr)
    print(made.path)


def _openface(
    photographs: Annotated[
        Path, typer.Argument(parser=at_home, help="A folder of images, those in its subfolders included.")
    ],
    out: Annotated[Path, typer.Option(metavar="FILE", parser=at_home, help="The table: a .parquet, for --aus.")],
    settings: OpenFace = None,
) -> None:
    """Run OpenFace on photographs at their own size. What is finished is kept, and the same command goes on."""
    from fer_core.steps.photographs import annotate_photographs

    if out.suffix != ".parquet":
        raise ActionUnitError(f"--out {out}: name a .parquet file")
    chosen = openface_from(settings or ())
    with reporter() as report:
        annotate_photographs(photographs, out, chosen, report)
        report.note(f"{out}")


def _device(
    name: Annotated[Literal["auto", "cpu", "cuda"], typer.Option("--device", help="As run.device has it.")] = "auto",
) -> None:
    """Train one step on what there is to train on, and say what it is."""
    from fer_core.train.try_device import try_device

    print(try_device(name))


def _predict(
    sources: Annotated[
        list[str], typer.Argument(metavar="SOURCE…", help="Images, folders, patterns, videos, or camera (camera:1, …).")
    ],
    model: Annotated[
        Path, typer.Option(metavar="PATH", parser=at_home, help="A checkpoint's folder, or an exported .onnx file.")
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", parser=at_home, help="A .csv, .jsonl or .parquet; without it, CSV to the terminal."
        ),
    ] = None,
    pictures: Annotated[
        Path | None,
        typer.Option(metavar="DIR", parser=at_home, help="Draw what was read into copies of the images and videos."),
    ] = None,
    detector: Annotated[
        str, typer.Option(metavar="cascade|FILE", help="OpenCV's cascade, or a YuNet model's .onnx file.")
    ] = _CASCADE,
    aligned: Annotated[bool, typer.Option("--aligned", help="The images are faces already.")] = False,
    every: Annotated[int, typer.Option(metavar="N", min=1, help="Take every Nth frame of a video.")] = 1,
    batch: Annotated[int, typer.Option(metavar="N", min=1, help="Faces at a time.")] = 32,
) -> None:
    """Find the faces in images, videos or a camera, and read them: box, distribution, top emotion, uncertainty."""
    # What a terminal or an ssh session leaves behind; under nohup it is ignored.
    if signal.getsignal(signal.SIGHUP) == signal.SIG_DFL:
        signal.signal(signal.SIGHUP, _interrupt)
    # OpenCV's own lines on a file that it cannot read; ours says it. It looks at these when it is imported.
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    os.environ.setdefault("OPENCV_LOG_LEVEL", "OFF")
    # And Pillow's own, on odd headers and on pictures that are refused as too large.
    warnings.filterwarnings("ignore", module=r"PIL\.")
    from fer_core.predict import Predictor
    from fer_core.predict.command import predict

    if aligned and detector != _CASCADE:
        raise InputError(f"--detector {detector}: with --aligned no face is looked for; leave one of them out")
    predictor = Predictor(model, None if aligned else detector, batch)
    try:
        with reporter() if out else nullcontext() as report:
            unreadable = predict(sources, predictor, out, pictures, every, report)
    except Interrupted:
        print("stopped; what was read until then is kept, and the same command begins anew", file=sys.stderr)
        sys.exit(ExitCode.INTERRUPTED)
    sys.exit(ExitCode.FAILED if unreadable else 0)


def _export(
    model: Annotated[
        Path,
        typer.Argument(
            metavar="CHECKPOINT", parser=at_home, help="The folder that `fer distill` or `fer train-ldg` made."
        ),
    ],
    to: Annotated[ExportFormat, typer.Option(help="What to write.")],
    out: Annotated[Path, typer.Option(metavar="DIR", parser=at_home, help="Where to.")] = EXPORTS,
    dataset: Annotated[
        Path | None,
        typer.Option("--in", metavar="ARTIFACT", parser=at_home, help="What `fer prepare` made, to compare on."),
    ] = None,
) -> None:
    """Write a model as one file with its preprocessing inside, or as a web page, and compare it with the checkpoint."""
    from fer_core.export.export import export

    with reporter() as report:
        report.note(f"{export(model, to, out, dataset, report)}")


def _serve_web(
    folder: Annotated[Path, typer.Argument(parser=at_home, help="What `fer export --to web` wrote.")] = EXPORTS / "web",
    port: Annotated[int, typer.Option(help="On this machine's loopback.")] = 8000,
) -> None:
    """Show the exported page, until Ctrl-C; the camera's pictures stay in the browser."""
    from fer_core.export.web_page import serve_web

    with suppress(Interrupted):
        serve_web(folder, port, partial(print, flush=True))


def _serve_api(
    model: Annotated[
        Path, typer.Argument(metavar="MODEL", envvar="FER_MODEL", parser=at_home, help="What `fer export` wrote.")
    ] = EXPORTS,
    host: Annotated[str, typer.Option(help="The address to listen at.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="The port to listen at.")] = 8000,
) -> None:
    """Answer POST /predict, until Ctrl-C. FER_SERVICE_REQUESTS and the like in the environment are its limits."""
    from fer_core.service import serve
    from fer_core.service.limits import limits_from

    serve(model, host, port, limits_from(os.environ))


def _command(step: Step) -> Callable[..., None]:
    """The step's command, with just the options that the step knows."""
    if step.outside:
        return _command_on_a_path(step)
    return _seeded_command(step) if step.seeded else _plain_command(step)


def _plain_command(step: Step) -> Callable[..., None]:
    def run(experiment: ExperimentName, out: Out, inputs: Inputs = None, settings: Settings = None) -> None:
        _run(step, experiment, out, inputs, settings)

    return run


def _seeded_command(step: Step) -> Callable[..., None]:
    def run(
        experiment: ExperimentName, out: Out, inputs: Inputs = None, settings: Settings = None, seed: Seed = 1
    ) -> None:
        _run(step, experiment, out, inputs, settings, seed=seed)

    return run


def _command_on_a_path(step: Step) -> Callable[..., None]:
    path = typer.Option(f"--{step.outside}", metavar="PATH", parser=at_home, help=_PATHS[step.outside])

    def run(
        experiment: ExperimentName,
        out: Out,
        inputs: Inputs = None,
        settings: Settings = None,
        outside: Annotated[Path | None, path] = None,
        seen: Annotated[str | None, typer.Option(hidden=True, help=_SEEN)] = None,
    ) -> None:
        _run(step, experiment, out, inputs, settings, outside=outside, seen=seen)

    return run


def _run(
    step: Step,
    experiment: str,
    out: Path,
    inputs: list[Path] | None,
    settings: list[str] | None,
    seed: int | None = None,
    outside: Path | None = None,
    seen: str | None = None,
) -> None:
    artifacts = [open_artifact(path) for path in inputs or ()]
    loaded = load_experiment(experiment, settings or ())
    with reporter() as report:
        before = None if seen is None else seen_from(seen)
        wanted = request(step.name, loaded, artifacts, seed, outside, before, report.progress)
        made = run_step(with_openface_build(wanted, [out]), out, report)
        report.note(f"{made.path}")
