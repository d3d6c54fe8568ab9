"""The command line `fer`: the steps of `fer_core`, and what Prefect adds: `run` and `serve`."""

import os
import shlex
import signal
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, NoReturn

import typer
from rich.console import Console

from fer_core.artifacts import Artifact
from fer_core.cli import STOPPED, ExperimentName, Interrupted, OpenFace, Settings, collect_seldom, run_app, steps_app
from fer_core.errors import FerError
from fer_core.exit_codes import ExitCode
from fer_core.experiment import openface_from
from fer_core.paths import whole_path
from flows.display import best_student, print_table, shown
from flows.prefect_server import (
    NoServer,
    OwnServer,
    keep_prefect_off_the_network,
    keep_prefect_quiet,
    own_address,
    reading_settings,
    require_server,
    server_of_a_run,
    users_server,
)
from flows.runner import StepFailed
from flows.store_command import store_app
from flows.study import open_study, seeds_in
from openface.names import spell

_SECONDS_TO_STOP = 4.0

Data = Annotated[
    str | None, typer.Option("--data", metavar="PATH", help="The dataset's folder, or its .csv; drawn faces need none.")
]
Granted = Annotated[
    str | None, typer.Option("--data", metavar="DIR", help="The folder of all data and experiments that runs may name.")
]
Aus = Annotated[str | None, typer.Option("--aus", metavar="PATH", help="What OpenFace wrote; drawn faces need none.")]
Seeds = Annotated[str | None, typer.Option("--seeds", metavar="1,2,…", help="Instead of the experiment's.")]
Artifacts = Annotated[str, typer.Option("--artifacts", metavar="DIR", help="Where what is made goes.")]
Jobs = Annotated[int | None, typer.Option("--jobs", metavar="N", min=1, help="Steps at a time.")]
Limit = Annotated[int, typer.Option("--limit", metavar="N", min=1, help="Runs at a time.")]


def fer_app() -> typer.Typer:
    """Every command of `fer`."""
    app = steps_app()
    app.command("run", help="Run all of the method: five models, seeds, a table, a report; or a comparison.")(run)
    app.command("serve", help="Open Prefect's UI and API on this machine, and run what is asked for there.")(serve)
    app.add_typer(store_app(), name="store")
    app.command("doctor", help="Look at the engine, the images, the GPU, OpenFace, Prefect and the disk.")(doctor)
    return app


def main() -> None:
    """`fer` itself."""
    collect_seldom()
    run_app(fer_app())


def run(
    experiment: ExperimentName,
    data: Data = None,
    aus: Aus = None,
    seeds: Seeds = None,
    settings: Settings = None,
    artifacts: Artifacts = "artifacts",
    jobs: Jobs = None,
) -> None:
    """Run the flow here, on the user's Prefect server or on one for this run alone."""
    laid_over = [*(settings or ()), *([] if jobs is None else [f"run.jobs={jobs}"])]
    numbers = None if seeds is None else seeds_in(seeds)
    data, aus = (None if path is None else spell(path) for path in (data, aus))
    # Once more than the flow does, so that a mistake is told before anything is started.
    study = open_study(experiment, data, aus, numbers, laid_over, artifacts)
    if study.store is not None and users_server() is None:
        raise NoServer(
            "FER_STORE is set, so that steps go to workers, and none can reach a server for this run alone; set "
            "PREFECT_API_URL to the one that they ask, such as http://head:4200/api, or unset FER_STORE"
        )
    server = _start_server()
    _stop_in_time(server)
    with Console().status("starting Prefect"):
        # Its import takes about as long as its server's start, which goes on meanwhile.
        with reading_settings():
            from prefect.exceptions import PrefectHTTPStatusError

            from flows.engine import read_no_results
            from flows.pipeline import full_pipeline
            from flows.tasks import RunFailed

        read_no_results()
        if server:
            server.wait()
    try:
        with shown():
            report = full_pipeline(experiment, data, aus, numbers, laid_over, artifacts)
    except RunFailed as failed:
        _show(failed.report)
        _fail(failed.failures)
    except StepFailed as failure:
        _fail([failure])
    except PrefectHTTPStatusError as error:
        why = server.why() if server else f"to {error.request.url}; its log says why"
        raise NoServer(f"Prefect's server answers {error.response.status_code} {why}") from error
    _show(report)


def serve(data: Granted = None, artifacts: Artifacts = "artifacts", limit: Limit = 1) -> None:
    """Serve until Ctrl-C; runs see the folders of `--data` and `--artifacts`, and no others."""
    keep_prefect_off_the_network()
    url = own_address()
    # Late, since Prefect takes a second to import, and fails of an address that is none.
    with reading_settings():
        from flows.serving import serve_experiments

    serve_experiments(url, data, artifacts, limit)


def doctor(artifacts: Artifacts = "artifacts", settings: OpenFace = None) -> None:
    """One line each; exit code 1 where something is not as it should be."""
    keep_prefect_off_the_network()
    from flows.doctor import examine

    openface = openface_from(settings or ())
    with Console().status("looking"):
        checks = examine(whole_path(artifacts), openface)
    for check in checks:
        print(f"{'ok ' if check.passed else 'NO '} {check.what:10} {check.message}")
    sys.exit(0 if all(check.passed for check in checks) else ExitCode.FAILED)


def _start_server() -> OwnServer | None:
    """The user's server needs only to be there; one of our own is on its way up when this returns."""
    keep_prefect_off_the_network()
    keep_prefect_quiet()
    if users_server():
        require_server()
        return None
    return server_of_a_run()


def _stop_in_time(server: OwnServer | None) -> None:
    """Let Ctrl-C stop the run in good order, or after a few seconds in any order."""

    def give_up() -> None:
        if server:
            server.stop(patience=0.0)
        Console().show_cursor()
        print(STOPPED, file=sys.stderr, flush=True)
        os._exit(ExitCode.INTERRUPTED)

    def interrupt(number: int, frame: object) -> NoReturn:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        last_call = threading.Timer(_SECONDS_TO_STOP, give_up)
        last_call.daemon = True
        last_call.start()
        raise Interrupted

    signal.signal(signal.SIGINT, interrupt)


def _show(report: Artifact | None) -> None:
    if report is not None:
        print_table(report)
        if model := best_student(report):
            shortest = model.relative_to(Path.cwd()) if model.is_relative_to(Path.cwd()) else model
            print(f"the best EfficientFace on validation: fer predict photo.jpg --model {shlex.quote(str(shortest))}")
        print(report.file("index.html").as_uri())


def _fail(failures: Sequence[Exception]) -> NoReturn:
    """End with a line for each failure; with exit code 2 where all are the user's to mend."""
    mistakes = [failure for failure in failures if isinstance(failure, FerError) or getattr(failure, "mistake", False)]
    # The same mistake meets every seed, and is told once.
    for line in dict.fromkeys(getattr(f, "message", str(f)) if f in mistakes else str(f) for f in failures):
        print(f"error: {line}", file=sys.stderr)
    sys.exit(ExitCode.MISTAKE if len(mistakes) == len(failures) else ExitCode.FAILED)
