"""What a second machine gives, what a step sent elsewhere costs beside its work, and how fast artifacts travel.

A machine is a core of this one, with a worker bound to it and a folder of its own. The first machine is the head too: a
real Prefect server and the run itself have its core. They train generators on drawn faces, of five seeds with and
without neighbours: ten trainings. Files go to a store in a folder, and to a real S3 server. Prints a table and writes
`benchmarks/results/machines.json`.

PYTHONPATH=tests python benchmarks/machines.py
"""

import argparse
import os
import secrets
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import httpx
import s3fs  # type: ignore[import-untyped]
from helpers.machines import Machine, lab_in, wait_until
from helpers.s3 import s3_server, way_to
from writing import ROOT, Row, row, show, write_results

from fer_core.artifacts import Artifact, finished, make_artifact
from flows.store import Store

TINY = ROOT / "tests" / "tiny.toml"
SEEDS = "[1, 2, 3, 4, 5]"
_MEGABYTE = 1 << 20
_TURNS = 3
_FILE = "selected.safetensors"


@contextmanager
def on_core(core: int) -> Iterator[None]:
    """What is started here may use this core alone."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def trained_by(cores: Sequence[int], epochs: int, folder: Path) -> list[Artifact]:
    """The ten trainings of a run whose workers have one of these cores each; the head has the first."""
    (folder / "store").mkdir(parents=True)
    with on_core(cores[0]), lab_in(folder, str(folder / "store")) as lab:
        workers = []
        try:
            for core in cores:
                with on_core(core):
                    workers.append(Machine(lab, f"core-{core}"))
            for worker in workers:
                wait_until(worker.started, 90)
            run = lab.run_part("generators", str(TINY), f"ldg.epochs={epochs}", f"seeds={SEEDS}", "run.jobs=2")
            said, _ = run.communicate()
            if run.returncode:
                sys.exit(said)
        finally:
            for worker in workers:
                worker.stop()
    found = [finished(path, path.name) for path in (folder / "head" / "artifacts" / "train-ldg").iterdir()]
    made = [artifact for artifact in found if artifact]
    assert len(made) == 10, f"{len(made)} trainings"
    return made


def seconds_from_first_to_last(made: Sequence[Artifact]) -> float:
    """From the beginning of the first training to the end of the last, by the clock of the workers' machine."""
    begin = min(artifact.made() - timedelta(seconds=artifact.seconds()) for artifact in made)
    return (max(artifact.made() for artifact in made) - begin).total_seconds()


def machine_rows(epochs: int, folder: Path) -> list[Row]:
    """Ten trainings by one machine, then by two."""
    alone = trained_by([0], epochs, folder / "one")
    both = trained_by([0, 1], epochs, folder / "two")
    one, two = seconds_from_first_to_last(alone), seconds_from_first_to_last(both)
    own, shared = (sum(artifact.seconds() for artifact in made) for made in (alone, both))
    what = f"ten trainings of {own / 10:.0f} s, one machine of one core → two"
    return [
        row(what, two, 1.8, one, judged="times faster", unit="s", own_work=round(own), own_work_of_both=round(shared)),
        row("a training sent elsewhere, beside its work", (one - own) / 9, 10, judged="at most", unit="s"),
    ]


def rate_of(size: int, move: Callable[..., object], *arguments: object) -> float:
    """Megabytes a second."""
    started = time.monotonic()
    move(*arguments)
    return size / _MEGABYTE / (time.monotonic() - started)


def weights_in(folder: Path, fingerprint: str, size: int) -> Artifact:
    """An artifact with one file of so many bytes."""

    def write(out: Path) -> None:
        (out / _FILE).write_bytes(secrets.token_bytes(size))

    return make_artifact(folder / "train-ldg" / fingerprint, "train-ldg", fingerprint, {}, {}, write)


def store_rows(
    kind: str,
    place: str,
    copy: Callable[[Path, str], object],
    copy_back: Callable[[str, Path], object],
    folder: Path,
    size: int,
) -> list[Row]:
    """An artifact of `size` bytes into the store and out of it, each against a plain copy of the same file.

    Args:
        copy: copies a file to a name beside the store.
        copy_back: copies it from there.
    """
    store = Store(place)
    rates: dict[str, list[float]] = {"push": [], "copy": [], "fetch": [], "copy back": []}
    for turn in range(_TURNS):
        fingerprint = f"{turn:016x}"
        here, there = folder / f"here-{turn}", folder / f"there-{turn}"
        there.mkdir()
        made = weights_in(here, fingerprint, size)
        rates["copy"].append(rate_of(size, copy, made.file(_FILE), fingerprint))
        rates["push"].append(rate_of(size, store.push, made))
        rates["copy back"].append(rate_of(size, copy_back, fingerprint, there / _FILE))
        rates["fetch"].append(rate_of(size, store.fetch, "train-ldg", fingerprint, there))
        assert finished(there / "train-ldg" / fingerprint, fingerprint)
        shutil.rmtree(here)
        shutil.rmtree(there)
    return [
        row(
            f"{size // _MEGABYTE} MB {said} a store {kind}, against a plain copy",
            max(rates[ours]),
            0.5,
            max(rates[plain]),
            judged="times faster",
            unit="MB/s",
        )
        for said, ours, plain in (("into", "push", "copy"), ("out of", "fetch", "copy back"))
    ]


def folder_rows(folder: Path, size: int) -> list[Row]:
    """A store in a folder."""
    place, beside = folder / "store", folder / "beside"
    place.mkdir()
    beside.mkdir()
    return store_rows(
        "in a folder",
        str(place),
        lambda file, name: shutil.copyfile(file, beside / name),
        lambda name, file: shutil.copyfile(beside / name, file),
        folder,
        size,
    )


def s3_rows(folder: Path, size: int) -> list[Row]:
    """A store on an S3 server of this machine."""
    with s3_server(folder) as address:
        os.environ.update(way_to(address))
        for bucket in ("lab", "beside"):
            httpx.put(f"{address}/{bucket}").raise_for_status()
        files = s3fs.S3FileSystem()
        return store_rows(
            "on S3",
            "s3://lab/fer",
            lambda file, name: files.put_file(str(file), f"beside/{name}"),
            lambda name, file: files.get_file(f"beside/{name}", str(file)),
            folder,
            size,
        )


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=30, help="of each training")
    parser.add_argument(
        "--megabytes", type=int, default=300, help="of an artifact; a resume state of a ResNet-50 has 300"
    )
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir="/var/tmp") as name:
        folder = Path(name)
        rows = folder_rows(folder, options.megabytes * _MEGABYTE)
        (folder / "s3").mkdir()
        rows += s3_rows(folder / "s3", options.megabytes * _MEGABYTE)
        rows += machine_rows(options.epochs, folder / "machines")
    show(rows)
    write_results("machines", rows)


if __name__ == "__main__":
    main()
