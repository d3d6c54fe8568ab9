"""The driver of OpenFace against a stand-in that fails in every way the real one does: one row an image, always."""

import io
import itertools
import math
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import docker
import numpy as np
import pandas as pd
import pytest
from helpers.measured import tell_measured
from helpers.openface_images import Pictures, local_program
from PIL import Image

import openface.annotation as annotation_module
from fer_core.errors import ExperimentError
from fer_core.experiment import load_experiment, to_document
from openface.annotation import Annotation
from openface.columns import INTENSITIES, LANDMARKS, PRESENCES
from openface.errors import EngineAway, OpenFaceError
from openface.program import Ending, LocalProgram, Program, build_of, check_spec, open_program
from openface.reading import read_openface
from openface.settings import OpenFaceSettings
from openface.table import one_row_per_image
from openface.views import Images, ladder

PATIENCE: dict[str, Any] = {"seconds_to_start": 4.0, "seconds_per_image": 0.05}
Settings = Callable[..., OpenFaceSettings]

EXPECTED = {
    "": "ok",
    "no face": "no_face",
    "face when bordered": "ok",
    "cannot open": "failed",
    "abort": "failed",
    "hang": "failed",
    "write nothing": "failed",
    "empty CSV": "failed",
    "several faces": "ok",
    "spaced header": "ok",
    "crash afterwards": "ok",
    "half a row, then crash": "failed",
}


@pytest.fixture(params=["process", pytest.param("container", marks=pytest.mark.engine)])
def settings(request: pytest.FixtureRequest, tmp_path: Path) -> Settings:
    """Settings of the stand-in, as a process of this machine and as a container."""
    if request.param == "container":
        image = request.getfixturevalue("openface_image")
        return lambda **changes: OpenFaceSettings(image=image, **{**PATIENCE, **changes})
    binary = str(local_program(tmp_path / "OpenFace with a space"))
    return lambda **changes: OpenFaceSettings(binary=binary, **{**PATIENCE, **changes})


@pytest.fixture
def local(tmp_path: Path) -> Settings:
    binary = str(local_program(tmp_path / "program"))
    return lambda **changes: OpenFaceSettings(binary=binary, **{**PATIENCE, **changes})


def ignore(done: int, total: int) -> None:
    pass


def annotate(images: Images, settings: OpenFaceSettings, folder: Path) -> pd.DataFrame:
    folder.mkdir(exist_ok=True)
    with open_program(settings, folder) as program:
        return Annotation(images, program, settings, folder, ignore)()


class Counted:
    """A program whose runs are counted, and fail first as told."""

    def __init__(self, settings: OpenFaceSettings, away: int = 0) -> None:
        self.program: Program = LocalProgram(settings)
        self.runs: list[int] = []
        self.away = away

    def __call__(self, pictures: Path, out: Path, seconds: float) -> Ending:
        shown = sorted(pictures.glob("0*.png"))
        self.runs.append(len(shown))
        if not shown or not self.away:
            return self.program(pictures, out, seconds)
        self.away -= 1
        for picture in shown[-3:]:
            picture.rename(picture.with_suffix(".later"))
        self.program(pictures, out, seconds)
        for picture in shown[-3:]:
            picture.with_suffix(".later").rename(picture)
        raise EngineAway("the engine is gone")

    def stop(self) -> None:
        self.program.stop()

    def __enter__(self) -> "Counted":
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()


def test_every_failure_costs_no_other_image_its_row(settings: Settings, tmp_path: Path) -> None:
    cues = ["", "", *EXPECTED, *[""] * 6]
    table = annotate(Pictures(cues), settings(batch=9, workers=2), tmp_path / "work")
    assert list(table["status"]) == [EXPECTED[cue] for cue in cues]
    assert list(table["id"]) == Pictures(cues).ids
    ok = table["status"] == "ok"
    assert np.isfinite(table.loc[ok, [*INTENSITIES, *PRESENCES]].to_numpy()).all()
    assert table.loc[~ok, [*INTENSITIES, *PRESENCES]].isna().all(axis=None)


@pytest.mark.engine
def test_an_image_that_takes_all_memory_is_set_aside(openface_image: str, tmp_path: Path) -> None:
    settings = OpenFaceSettings(image=openface_image, seconds_to_start=60.0, workers=1)
    cues = ["", "take all memory", ""]
    folder = tmp_path / "work"
    folder.mkdir()
    with open_program(settings, folder) as program:
        annotation = Annotation(Pictures(cues), program, settings, folder, ignore)
        assert list(annotation()["status"]) == ["ok", "failed", "ok"]
    assert "memory" in annotation.failures()[0]


@pytest.mark.engine
def test_pictures_are_read_whatever_the_umask(openface_image: str, tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        settings = OpenFaceSettings(image=openface_image, workers=1)
        assert list(annotate(Pictures(["", ""]), settings, tmp_path / "work")["status"]) == ["ok", "ok"]
    finally:
        os.umask(before)


def test_the_table_is_the_same_whatever_the_batches_the_workers_and_the_faults(local: Settings, tmp_path: Path) -> None:
    cues = ["", "several faces", "", "abort", "face when bordered", "", "empty CSV", "", "no face", ""]
    tables = [
        annotate(Pictures(cues), local(batch=batch, workers=workers), tmp_path / f"work-{batch}-{workers}")
        for batch, workers in ((100, 1), (3, 2), (1, 3))
    ]
    calm = annotate(Pictures([cue if cue in ("several faces",) else "" for cue in cues]), local(), tmp_path / "calm")
    for table in tables[1:]:
        pd.testing.assert_frame_equal(table, tables[0])
    undisturbed = [number for number, cue in enumerate(cues) if cue in ("", "several faces")]
    pd.testing.assert_frame_equal(
        tables[0].loc[undisturbed].drop(columns="id"), calm.loc[undisturbed].drop(columns="id")
    )


def test_of_several_faces_the_most_confident_counts(local: Settings, tmp_path: Path) -> None:
    table = annotate(Pictures(["several faces"]), local(), tmp_path / "work")
    assert table["confidence"][0] == pytest.approx(0.983)


def test_landmarks_are_in_the_images_own_pixels_in_whatever_view_they_were_found(
    settings: Settings, tmp_path: Path
) -> None:
    """The stand-in's go from one corner of the middle, pixels 40 to 59 of 100, to the other."""
    for side in (100, 50, 30):
        cues = ["", "face when bordered", "spaced header", "several faces", "no face", "abort"]
        table = annotate(Pictures(cues, side), settings(), tmp_path / f"work{side}")
        found = table[list(LANDMARKS)].to_numpy()
        assert found.dtype == np.float32
        assert list(np.isnan(found).all(axis=1)) == [False, False, False, False, True, True]
        # Scaled corners are blurred; the next test is finer.
        for points in found[:4].reshape(4, 2, 68):
            corners = np.array([0.4 * side - 0.5, 0.6 * side - 0.5])
            np.testing.assert_allclose(points[:, [0, 67]], [corners] * 2, atol=1.5)
            assert (np.diff(points) >= 0).all()
        assert (found[:4] * 64 == np.round(found[:4] * 64)).all()


@pytest.mark.parametrize(("width", "height"), [(48, 48), (100, 100), (60, 47), (3000, 900)])
def test_a_point_of_a_view_is_the_images_own_point(width: int, height: int) -> None:
    """The middle of a blob, as it is shown and back, to a twentieth of a pixel or a tenth of the view's."""
    pixels = np.zeros((height, width), np.uint8)
    top, left, size = height // 3, width // 4, max(5, width // 20)
    pixels[top : top + size, left : left + size] = 250
    for view in ladder(width, height):
        shown = np.asarray(view.of(Image.fromarray(pixels)), np.float64)
        rows, columns = np.mgrid[: shown.shape[0], : shown.shape[1]]
        middle = np.array([[(shown * columns).sum()], [(shown * rows).sum()]]) / shown.sum()
        (x,), (y,) = view.back(middle, width, height)
        near = max(0.05, 0.1 / view.factor)
        assert (x, y) == pytest.approx((left + (size - 1) / 2, top + (size - 1) / 2), abs=near), view


def test_an_image_of_openface_that_knows_no_landmarks_makes_a_table_without(tmp_path: Path) -> None:
    binary = local_program(tmp_path / "program")
    binary.write_text(binary.read_text().replace('"$@"', '$(echo "$@" | sed s/-2Dfp//)'))
    table = annotate(Pictures(["", "no face"]), OpenFaceSettings(binary=str(binary), **PATIENCE), tmp_path / "work")
    assert list(table.columns) == ["id", "status", "confidence", *INTENSITIES, *PRESENCES]
    assert list(table["status"]) == ["ok", "no_face"]


@pytest.mark.parametrize("place", [0, 1, 37, 62, 63])
def test_a_poison_image_is_found_by_halving(local: Settings, tmp_path: Path, place: int) -> None:
    cues = [""] * 64
    cues[place] = "abort"
    folder = tmp_path / "work"
    folder.mkdir()
    with Counted(local(batch=64, workers=1)) as program:
        table = Annotation(Pictures(cues), program, local(batch=64, workers=1), folder, ignore)()
    assert list(table.index[table["status"] == "failed"]) == [place]
    assert (table["status"] == "ok").sum() == 63
    of_batch = program.runs[1:]  # The first one is the portrait's.
    assert len(of_batch) - 1 <= math.log2(64) + 1


class Killed(LocalProgram):
    """A program that somebody kills as soon as it has started, in its second run and so many after it."""

    def __init__(self, settings: OpenFaceSettings, kills: int) -> None:
        super().__init__(settings)
        self.left, self.runs = kills, 0

    def _start(self, pictures: Path, out: Path, said: IO[bytes]) -> "subprocess.Popen[bytes]":
        process = super()._start(pictures, out, said)
        self.runs += 1
        if self.runs > 1 and self.left:
            self.left -= 1
            os.killpg(process.pid, signal.SIGKILL)
        return process


def test_what_somebody_kills_is_no_fault_of_the_image(local: Settings, tmp_path: Path) -> None:
    for images, batch in ((1, 1), (5, 5)):
        folder = tmp_path / f"work{images}"
        folder.mkdir()
        settings = local(batch=batch, workers=1)
        with Killed(settings, 3) as program:
            table = Annotation(Pictures([""] * images), program, settings, folder, ignore)()
        assert list(table["status"]) == ["ok"] * images
        assert program.runs == 5  # The portrait's, three that were killed, and one that shows all images again.


def test_an_image_at_which_the_program_is_killed_every_time_is_set_aside(local: Settings, tmp_path: Path) -> None:
    """As by the kernel, where the machine's memory runs out."""
    (tmp_path / "work").mkdir()
    settings = local(batch=1, workers=1)
    with Killed(settings, 100) as program:
        annotation = Annotation(Pictures([""]), program, settings, tmp_path / "work", ignore)
        assert list(annotation()["status"]) == ["failed"]
    assert annotation.failures() == [f"{Pictures(['']).ids[0]}: ended by SIGKILL"]
    assert program.runs == 6


def test_small_images_are_scaled_before_openface_sees_them(local: Settings, tmp_path: Path) -> None:
    assert (
        list(annotate(Pictures(["", "face when bordered"], side=48), local(), tmp_path / "a")["status"]) == ["ok"] * 2
    )
    assert list(annotate(Pictures([""], side=12), local(), tmp_path / "b")["status"]) == ["ok"]


def test_the_ladder_never_shows_what_openface_aborts_on_and_ends_with_a_border() -> None:
    for side in range(1, 4000, 7):
        views = ladder(side, side)
        sides = [max(1, round(view.factor * round(side * (1.58 if view.border else 1)))) for view in views]
        assert min(sides) > 60
        assert max(sides) <= 2300
    assert [str(view) for view in ladder(48, 48)] == ["×4", "×8", "×4, bordered"]
    assert [str(view) for view in ladder(100, 100)] == ["as it is", "×2", "×4", "×2, bordered"]
    assert [str(view) for view in ladder(4000, 1000)] == ["×0.5"]
    for width, height in ((3000, 60), (2000, 20), (1999, 1), (1, 30), (500, 45)):
        for view in ladder(width, height):
            shown = view.of(Image.new("L", (width, height))).size
            assert min(shown) > 42
            assert max(shown) <= 2001


def test_an_engine_that_comes_back_costs_nothing_finished(
    local: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("openface.annotation._SECONDS_TO_ENGINE", (0.01, 0.01))
    (tmp_path / "work").mkdir()
    with Counted(local(batch=10, workers=1), away=2) as program:
        table = Annotation(Pictures([""] * 10), program, local(workers=1), tmp_path / "work", ignore)()
    assert (table["status"] == "ok").all()
    assert program.runs == [0, 10, 3, 3]  # The portrait, then what the engine left undone.


def test_an_engine_that_stays_away_ends_the_annotation(
    local: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("openface.annotation._SECONDS_TO_ENGINE", (0.01, 0.01))
    (tmp_path / "work").mkdir()
    with (
        Counted(local(), away=99) as program,
        pytest.raises(EngineAway, match="the engine is gone; see that it runs"),
    ):
        Annotation(Pictures(["abort"] * 3), program, local(workers=1), tmp_path / "work", ignore)()


def test_a_killed_annotation_goes_on_where_it_stopped(local: Settings, tmp_path: Path) -> None:
    settings, folder = local(batch=5, workers=1, arguments=("-standin_ms", "60")), tmp_path / "work"
    code = (
        "import sys; from pathlib import Path; from test_openface_annotation import *;"
        f"annotate(Pictures([''] * 60), {settings!r}, Path({str(folder)!r}))"
    )
    driver = subprocess.Popen([sys.executable, "-c", code], cwd=Path(__file__).parent, start_new_session=True)
    journal = folder / "findings.jsonl"
    while not journal.exists() or journal.read_bytes().count(b"\n") < 12:
        assert driver.poll() is None
        time.sleep(0.02)
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    with journal.open("ab") as file:
        file.write(b'{"number": 3')  # As a process killed in the middle of a line would leave it.
    before = journal.read_bytes().count(b"\n")
    table = annotate(Pictures([""] * 60), settings, folder)
    whole = annotate(Pictures([""] * 60), local(), tmp_path / "undisturbed")
    pd.testing.assert_frame_equal(table, whole)
    assert before >= 12
    assert journal.read_bytes().count(b"\n") == 60  # No image was annotated twice.


def test_half_a_line_that_others_follow_costs_no_more_than_its_image(local: Settings, tmp_path: Path) -> None:
    """As where a disk was full for a moment, and another batch was written down before the program ended."""
    whole = annotate(Pictures([""] * 4), local(), tmp_path / "work")
    lines = (tmp_path / "work" / "findings.jsonl").read_bytes().splitlines(keepends=True)
    (tmp_path / "work" / "findings.jsonl").write_bytes(b"".join([lines[0], lines[1][:90], *lines[2:]]))
    pd.testing.assert_frame_equal(annotate(Pictures([""] * 4), local(), tmp_path / "work"), whole)


def test_what_is_stopped_ends_at_once_and_leaves_no_process(local: Settings, tmp_path: Path) -> None:
    settings = local(arguments=("-standin_ms", "400"), batch=50, workers=2)
    (tmp_path / "work").mkdir()
    program = LocalProgram(settings)
    annotation = Annotation(Pictures([""] * 100), program, settings, tmp_path / "work", ignore)
    threading.Timer(1.5, program.stop).start()
    started = time.monotonic()
    with program, pytest.raises(OpenFaceError, match="stopped"):
        annotation()
    assert time.monotonic() - started < 5


def test_an_argument_that_openface_does_not_survive_is_told_before_any_image(local: Settings, tmp_path: Path) -> None:
    settings = local()
    (Path(settings.binary).parent / "model" / "main_ceclm_general.txt").write_text("")
    with pytest.raises(OpenFaceError, match=r"even a portrait .exit code 1; it said: ERROR: Could not load the land"):
        annotate(Pictures([""] * 5), settings, tmp_path / "work")


def test_what_openface_says_is_told_where_it_writes_nothing_and_ends_well(tmp_path: Path) -> None:
    program = tmp_path / "FaceLandmarkImg"
    program.write_text("#!/bin/sh\necho Reading the models\necho 'Warning: no validator for this size' >&2\n")
    program.chmod(0o755)
    with pytest.raises(OpenFaceError) as raised:
        annotate(Pictures([""]), OpenFaceSettings(binary=str(program), **PATIENCE), tmp_path / "work")
    assert "wrote no whole CSV; it said: Reading the models | Warning: no validator" in str(raised.value)
    assert "disk" not in str(raised.value)


def test_a_disk_is_called_full_only_where_a_csv_is_empty(local: Settings, tmp_path: Path) -> None:
    (tmp_path / "work").mkdir()
    settings = local()
    with LocalProgram(settings) as program:
        annotation = Annotation(Pictures(["empty CSV", "write nothing"]), program, settings, tmp_path / "work", ignore)
        annotation()
    empty, nothing = annotation.failures()
    assert "is the disk full?" in empty
    assert "wrote no whole CSV" in nothing
    assert "disk" not in nothing


@pytest.mark.parametrize("given", ["-out_dir", "-fdir", "-f", "-root", "-of", "-oc", "-bboxdir"])
def test_an_argument_that_is_ours_is_refused_by_name_when_the_experiment_is_read(given: str, tmp_path: Path) -> None:
    setting = f'openface.arguments=["-wild", "{given}", "/tmp"]'
    done = fer("openface", str(tmp_path), "--out", str(tmp_path / "aus.parquet"), "--set", setting)
    assert done.returncode == 2
    done = fer("prepare", "demo", "--out", str(tmp_path / "dataset"), "--set", setting)
    assert done.returncode == 2
    assert "openface.arguments" in done.stderr
    assert f"{given} is ours to give" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_the_environments_arguments_count_where_an_experiment_names_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FER_OPENFACE_ARGUMENTS", "-mloc 'model/my clnf.txt' -wild")
    given = ("-mloc", "model/my clnf.txt", "-wild")
    assert OpenFaceSettings().arguments == given
    assert load_experiment("demo").openface.arguments == given
    assert to_document(load_experiment("demo"))["openface"]["arguments"] == list(given)
    assert load_experiment("demo", ["openface.arguments=[]"]).openface.arguments == ()
    by_hand = load_experiment("demo", ["openface.arguments=-mloc model/x.txt"]).openface
    assert by_hand.arguments == ("-mloc", "model/x.txt")
    assert check_spec(OpenFaceSettings()).command == ["check", *given]
    for wrong, told in (
        ("-fdir /x", "FER_OPENFACE_ARGUMENTS = '-fdir /x': -fdir is ours"),
        ("-mloc 'x", "No closing quotation"),
        ("'-mloc x'", 'should have an argument and its value apart: "-mloc", "x"'),
    ):
        monkeypatch.setenv("FER_OPENFACE_ARGUMENTS", wrong)
        with pytest.raises(ExperimentError, match=told):
            load_experiment("demo")


def test_without_a_binary_or_an_engine_both_ways_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FER_DOCKER_HOST", f"unix://{tmp_path}/no.sock")
    with pytest.raises(
        OpenFaceError, match=r"no container engine at .*no\.sock.*docker compose build.*openface\.binary"
    ):
        open_program(OpenFaceSettings(), tmp_path)
    with pytest.raises(OpenFaceError, match="no program there"):
        open_program(OpenFaceSettings(binary="/nowhere/FaceLandmarkImg"), tmp_path)


@pytest.mark.engine
def test_an_output_folder_that_cannot_be_written_is_told(
    openface_image: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def closed(folder: Path) -> tuple[Path, Path]:
        parts = fresh(folder)
        os.chown(parts[1], 4321, 4321)
        parts[1].chmod(0o555)
        return parts

    fresh = annotation_module._fresh
    monkeypatch.setattr(annotation_module, "_fresh", closed)
    monkeypatch.setattr("openface.program.os.geteuid", lambda: 4321)
    with pytest.raises(OpenFaceError, match=r"not annotate even a portrait .exit code 1"):
        annotate(Pictures([""]), OpenFaceSettings(image=openface_image), tmp_path / "work")


@pytest.mark.engine
def test_the_driver_costs_little_and_two_containers_are_twice_one(
    openface_image: str, local: Settings, tmp_path: Path
) -> None:
    slow, count = ("-standin_ms", "30"), 800
    images, tries = Pictures([""] * count), itertools.count()

    def contained(workers: int) -> float:
        settings = OpenFaceSettings(image=openface_image, workers=workers, arguments=slow)
        started = time.monotonic()
        table = annotate(images, settings, tmp_path / f"work-{next(tries)}")
        assert (table["status"] == "ok").all()
        return time.monotonic() - started

    one, two = contained(1), contained(2)
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for number in range(count):
        images.read(number).save(pictures / f"{number:08d}.png", compress_level=1)
    started = time.monotonic()
    with LocalProgram(local(arguments=slow)) as program:
        assert program(pictures, tmp_path / "out", 300).failed == ""
    alone = time.monotonic() - started
    # What else the machine does only ever makes it slower.
    if one > 1.1 * alone:
        one = min(one, contained(1))
    if one < 1.8 * two:
        two = min(two, contained(2))
    tell_measured(
        f"{count} images at 30 ms: the program alone {alone:.1f} s, one container at a time {one:.1f} s "
        f"({one / alone - 1:+.1%}), two {two:.1f} s (x {one / two:.2f})"
    )
    assert one <= 1.1 * alone
    assert one >= 1.8 * two


@pytest.mark.engine
def test_an_image_that_is_built_anew_under_its_name_is_another_build(
    openface_image: str, engine: docker.DockerClient
) -> None:
    settings = OpenFaceSettings(image="fer-test/openface:rebuilt")
    engine.images.get(openface_image).tag("fer-test/openface", "rebuilt")
    first = build_of(settings)
    assert first == build_of(OpenFaceSettings(image=openface_image))
    anew = f"FROM {openface_image}\nLABEL base=another\n"
    engine.images.build(fileobj=io.BytesIO(anew.encode()), tag=settings.image)
    assert build_of(settings) != first


@pytest.mark.engine
def test_without_the_image_it_says_what_builds_it(openface_image: str, tmp_path: Path) -> None:
    with pytest.raises(OpenFaceError, match="fer-openface:none: no such image; build it with"):
        open_program(OpenFaceSettings(image="fer-openface:none"), tmp_path)


def fer(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([sys.executable, "-m", "fer_core", *arguments], capture_output=True, text=True, check=False)


def test_photographs_are_annotated_at_their_own_size_and_bad_files_named(local: Settings, tmp_path: Path) -> None:
    photographs = tmp_path / "photographs"
    (photographs / "a folder").mkdir(parents=True)
    Pictures(["", "", ""]).read(0).save(photographs / "one.jpg", quality=95)
    Pictures([""]).read(0).convert("RGBA").save(photographs / "a folder" / "with a spåce.png")
    Image.new("L", (300, 200), 90).save(photographs / "grey.bmp")
    (photographs / "broken.jpg").write_bytes((photographs / "one.jpg").read_bytes()[:700])
    (photographs / "empty.png").write_bytes(b"")
    Image.new("1", (9000, 9000)).save(photographs / "bomb.png")
    (photographs / "notes.txt").write_text("no image")
    out = tmp_path / "aus.parquet"
    done = fer("openface", str(photographs), "--out", str(out), "--set", f"openface.binary={local().binary}")
    assert done.returncode == 0, done.stderr
    table = pd.read_parquet(out).set_index("id")
    assert table["status"].to_dict() == {
        "a folder/with a spåce.png": "ok",
        "bomb.png": "unreadable",
        "broken.jpg": "unreadable",
        "empty.png": "unreadable",
        "grey.bmp": "ok",
        "one.jpg": "ok",
    }
    assert "9000 x 9000 is more than" in done.stdout
    assert "files that are no images, and get no row: 1 .txt" in done.stdout
    assert not list(tmp_path.glob("*.unfinished"))
    assert os.access(out, os.R_OK)


def test_two_do_not_annotate_into_one_table_at_a_time(local: Settings, tmp_path: Path) -> None:
    (photographs := tmp_path / "photographs").mkdir()
    for number in range(8):
        Pictures([""]).read(0).save(photographs / f"{number}.png")
    out = tmp_path / "aus.parquet"
    command = ["openface", str(photographs), "--out", str(out), "--set", f"openface.binary={local().binary}"]
    slowly = ["--set", "openface.batch=1", "--set", "openface.arguments=['-standin_ms','500']"]
    with subprocess.Popen([sys.executable, "-m", "fer_core", *command, *slowly]) as first:
        while not list(tmp_path.glob("aus.parquet.*/findings.jsonl")):
            assert first.poll() is None
            time.sleep(0.02)
        for settings in (slowly, []):
            second = fer(*command, *settings)
            assert (second.returncode, second.stderr.count("\n")) == (2, 1), second.stderr
            assert "another `fer openface` is making it" in second.stderr
    assert first.returncode == 0
    assert set(pd.read_parquet(out)["status"]) == {"ok"}
    assert fer(*command).returncode == 0
    assert not list(tmp_path.glob("aus.parquet.*"))


def test_every_image_file_has_a_row_whatever_its_name_and_a_pipe_is_counted(local: Settings, tmp_path: Path) -> None:
    photographs = tmp_path / "photographs"
    (photographs / "inner").mkdir(parents=True)
    for place in ("ok.png", "inner/ok.png"):
        Pictures([""]).read(0).save(photographs / place)
    for name in (b"ni\xf1o.png", "niño.png".encode(), b"two\nlines.png", b'quote"s, comma;.png'):
        with open(os.fsencode(photographs) + b"/" + name, "wb") as file:
            file.write((photographs / "ok.png").read_bytes())
    (photographs / "broken\udcf1.png").write_bytes(b"no image")
    (photographs / "closed.png").write_bytes(b"")
    os.mkfifo(photographs / "pipe.png")
    (photographs / "nowhere.png").symlink_to("gone")
    (photographs / "round").symlink_to(photographs)
    out = tmp_path / "aus.parquet"
    done = fer("openface", str(photographs), "--out", str(out), "--set", f"openface.binary={local().binary}")
    assert done.returncode == 0, done.stderr
    assert pd.read_parquet(out).set_index("id")["status"].to_dict() == {
        "inner/ok.png": "ok",
        "ok.png": "ok",
        "ni\\xf1o.png": "ok",
        "niño.png": "ok",
        "two\\x0alines.png": "ok",
        'quote"s, comma;.png': "ok",
        "broken\\xf1.png": "unreadable",
        "closed.png": "unreadable",
    }
    assert "1 pipes, sockets or devices" in done.stdout
    assert "1 links to nothing" in done.stdout
    rows = read_openface(out)
    assert one_row_per_image(rows, ["ni\\xf1o", "niño", "inner/ok"])["status"].tolist() == ["ok"] * 3
