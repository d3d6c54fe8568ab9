"""Images that OpenFace was shown before keep their rows, whatever they are called and labelled now."""

import errno
import os
import shutil
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from helpers.openface_images import local_program, picture

from fer_core.artifacts import Artifact
from fer_core.errors import ActionUnitError, ArtifactError
from fer_core.experiment import load_experiment
from fer_core.progress import JsonLines
from fer_core.steps import Request, request, with_openface_build
from fer_core.steps.photographs import annotate_photographs
from fer_core.steps.run import run_step
from openface.columns import LANDMARKS
from openface.earlier import Earlier, with_digests
from openface.reading import FIGURES

CLASSES = ("anger", "happiness", "sadness")
SLOWLY = ("openface.arguments=['-standin_ms','80']", "openface.workers=1", "openface.batch=4")


class Lab:
    """A folder of faces, a stand-in for OpenFace that notes what it is shown, and both ways to annotate the faces."""

    def __init__(self, folder: Path) -> None:
        self.faces, self.made, self.table = folder / "faces", folder / "made", folder / "made" / "aus.parquet"
        self._noted = folder / "shown.txt"
        stand_in = local_program(folder / "stand-in")
        self._program = folder / "FaceLandmarkImg"
        self._program.write_text(f'#!/bin/sh\nls "$2" | grep "^0" >> "{self._noted}"\nexec "{stand_in}" "$@"\n')
        self._program.chmod(self._program.stat().st_mode | stat.S_IXUSR)
        self.made.mkdir()

    def add_face(self, number: int, name: str, cue: str = "") -> None:
        place = self.faces / name
        place.parent.mkdir(parents=True, exist_ok=True)
        picture(number, cue).save(place)

    def shown(self) -> int:
        """Pictures that OpenFace was shown since the last call, each as often as it was."""
        count = len(self._noted.read_text().splitlines()) if self._noted.exists() else 0
        self._noted.unlink(missing_ok=True)
        return count

    def move_program(self) -> None:
        elsewhere = self._program.parent / "elsewhere"
        elsewhere.mkdir()
        self._program = self._program.rename(elsewhere / self._program.name)

    def rebuild_program(self) -> None:
        beside = self._program.with_name("beside")
        beside.write_text(f"{self._program.read_text()}# another build\n")
        beside.chmod(0o755)
        beside.replace(self._program)

    def annotate_dataset(self, *settings: str) -> pd.DataFrame:
        """The AU table by id, of the faces as the step makes it."""
        wanted = self.request(*settings)
        made = run_step(wanted, self._place(wanted), JsonLines())
        return by_id(made.file("aus.parquet"))

    def annotate_photographs(self, *settings: str) -> pd.DataFrame:
        """The AU table by id, of the faces as `fer openface` makes it."""
        subprocess.run(self._typed("openface", str(self.faces), str(self.table), settings), check=True)
        return by_id(self.table)

    def request(self, *settings: str) -> Request:
        experiment = load_experiment("demo", self._settings(settings))
        wanted = request("prepare", experiment, outside=self.faces)
        prepared: Artifact = run_step(wanted, self._place(wanted), JsonLines())
        return with_openface_build(request("annotate", experiment, [prepared]), [])

    def break_off_dataset(self, *settings: str) -> None:
        wanted = self.request(*settings)
        command = self._typed("annotate", "demo", str(self._place(wanted)), settings)
        self._break_off([*command, "--in", str(wanted.input("prepare").path)])

    def break_off_photographs(self, *settings: str) -> None:
        self._break_off(self._typed("openface", str(self.faces), str(self.table), settings))

    @contextmanager
    def begun_photographs(self, *settings: str) -> Iterator["subprocess.Popen[bytes]"]:
        """An annotation that has come to its first faces."""
        command = self._typed("openface", str(self.faces), str(self.table), settings)
        with self._begun(command, 1) as process:
            yield process

    def _break_off(self, command: list[str]) -> None:
        """Kill it once half of the faces are annotated."""
        with self._begun(command, 12) as process:
            os.killpg(process.pid, signal.SIGKILL)

    @contextmanager
    def _begun(self, command: list[str], findings: int) -> Iterator["subprocess.Popen[bytes]"]:
        with subprocess.Popen(command, start_new_session=True) as process:
            while self._findings() < findings:
                assert process.poll() is None
                time.sleep(0.02)
            yield process

    def _findings(self) -> int:
        # By os.walk, which does not mind folders that go away meanwhile.
        folders = (Path(folder) for folder, _, files in os.walk(self.made) if "findings.jsonl" in files)
        return sum((folder / "findings.jsonl").read_bytes().count(b"\n") for folder in folders)

    def _typed(self, step: str, what: str, out: str, settings: tuple[str, ...]) -> list[str]:
        command = [sys.executable, "-m", "fer_core", step, what, "--out", out]
        for setting in self._settings(settings):
            # Photographs have no dataset's settings.
            if step != "openface" or setting.startswith("openface."):
                command += ["--set", setting]
        return command

    def _settings(self, further: tuple[str, ...]) -> list[str]:
        return ["dataset.source=folder", "dataset.image_size=100", f"openface.binary={self._program}", *further]

    def _place(self, wanted: Request) -> Path:
        return self.made / wanted.step.name / wanted.fingerprint()


def by_id(table: Path) -> pd.DataFrame:
    return pd.read_parquet(table).set_index("id").sort_index()


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    """With 24 faces, in one of which OpenFace finds none, and at another it aborts."""
    lab = Lab(tmp_path)
    cues = {5: "no face", 7: "abort"}
    for number in range(24):
        lab.add_face(number, f"{CLASSES[number % 3]}/{number:02d}.png", cues.get(number, ""))
    return lab


def test_another_label_and_a_further_image_cost_one_look(lab: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    first = lab.annotate_dataset()
    assert "annotated before" not in capsys.readouterr().out
    assert first["status"].value_counts().to_dict() == {"ok": 22, "no_face": 1, "failed": 1}
    assert lab.shown() >= 24
    shutil.move(lab.faces / "anger" / "00.png", lab.faces / "sadness" / "zero.png")
    lab.add_face(99, "happiness/99.png")
    second = lab.annotate_dataset()
    assert "23 of 25 images were annotated before; they keep their rows" in capsys.readouterr().out
    # The further one, and again, until that is certain, the one at which the program ended.
    assert lab.shown() <= 1 + 4
    moved = first.rename(index={"anger/00": "sadness/zero"})
    pd.testing.assert_frame_equal(second.drop("happiness/99"), moved.sort_index())
    assert second.loc["happiness/99", "status"] == "ok"


def test_where_all_were_annotated_before_openface_is_shown_none(lab: Lab) -> None:
    (lab.faces / "happiness" / "07.png").unlink()
    first = lab.annotate_dataset()
    lab.shown()
    again = lab.annotate_dataset("dataset.split_seed=5")
    assert lab.shown() == 0
    pd.testing.assert_frame_equal(again, first)


@pytest.mark.parametrize("settings", [("openface.arguments=['-standin_ms','1']",), ("dataset.image_size=90",)])
def test_other_arguments_or_other_pixels_are_another_look(lab: Lab, settings: tuple[str, ...]) -> None:
    lab.annotate_dataset()
    lab.shown()
    lab.annotate_dataset(*settings)
    assert lab.shown() >= 24


def test_what_broke_off_counts_for_a_dataset_with_another_label(lab: Lab) -> None:
    (lab.faces / "happiness" / "07.png").unlink()
    lab.break_off_dataset(*SLOWLY)
    lab.shown()
    shutil.move(lab.faces / "anger" / "00.png", lab.faces / "sadness" / "zero.png")
    table = lab.annotate_dataset(*SLOWLY)
    # Half of them, and what comes on top for the one without a face.
    assert lab.shown() < 20
    assert table["status"].value_counts().to_dict() == {"ok": 22, "no_face": 1}


def test_photographs_of_a_table_that_is_there_keep_their_rows(lab: Lab, capfd: pytest.CaptureFixture[str]) -> None:
    first = lab.annotate_photographs()
    lab.shown()
    lab.add_face(99, "further/99.png")
    (lab.faces / "anger" / "00.png").rename(lab.faces / "anger" / "zero.png")
    second = lab.annotate_photographs()
    assert "23 of 25 images were annotated before" in capfd.readouterr().out
    assert lab.shown() <= 1 + 4
    moved = first.rename(index={"anger/00.png": "anger/zero.png"})
    pd.testing.assert_frame_equal(second.drop("further/99.png"), moved.sort_index())


def test_photographs_keep_their_rows_whatever_is_shown_at_a_time_and_wherever_the_program_lies(lab: Lab) -> None:
    (lab.faces / "happiness" / "07.png").unlink()
    first = lab.annotate_photographs("openface.workers=2")
    lab.move_program()
    lab.shown()
    again = lab.annotate_photographs("openface.workers=1", "openface.batch=3", "openface.seconds_per_image=1.0")
    assert lab.shown() == 0
    pd.testing.assert_frame_equal(again, first)


def test_photographs_that_come_after_it_broke_off_cost_no_other_its_row(lab: Lab) -> None:
    (lab.faces / "happiness" / "07.png").unlink()
    lab.break_off_photographs(*SLOWLY)
    lab.shown()
    lab.add_face(99, "a further one.png")
    table = lab.annotate_photographs(*SLOWLY)
    assert lab.shown() < 20
    assert table["status"].value_counts().to_dict() == {"ok": 23, "no_face": 1}
    assert [path.name for path in lab.made.iterdir()] == ["aus.parquet"]


def test_whatever_stands_where_the_table_is_to_be_is_replaced(lab: Lab) -> None:
    first = lab.annotate_photographs()
    for content in (b"no parquet", pd.read_parquet(lab.table).drop(columns="AU01_r").to_parquet()):
        lab.table.write_bytes(content)
        pd.testing.assert_frame_equal(lab.annotate_photographs(), first)


def test_a_photograph_that_is_changed_meanwhile_has_no_row_of_what_was_there_before(lab: Lab) -> None:
    """Else the row would count for whatever holds the former photograph later."""
    with lab.begun_photographs(*SLOWLY) as process:
        lab.add_face(77, "sadness/23.png")
        assert process.wait() == 0
    assert by_id(lab.table)["status"]["sadness/23.png"] == "unreadable"
    assert lab.annotate_photographs(*SLOWLY)["status"]["sadness/23.png"] == "ok"


def test_the_folder_that_one_is_in_is_a_folder_of_photographs(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    first = lab.annotate_photographs()
    monkeypatch.chdir(lab.faces)
    lab.faces = Path()
    pd.testing.assert_frame_equal(lab.annotate_photographs(), first)


def test_a_table_is_called_what_it_is_called(lab: Lab) -> None:
    """Neither does its name stand for others, nor is a link that it goes through replaced."""
    lab.break_off_photographs(*SLOWLY)
    (work,) = lab.made.glob("aus.parquet.*")
    other = work.rename(lab.made / f"as.parquet{work.suffix}")
    lab.table = lab.made / "a*.parquet"
    lab.annotate_photographs()
    assert other.is_dir()
    shutil.rmtree(other)
    lab.table.unlink()
    lab.table = lab.made / "link.parquet"
    lab.table.symlink_to("elsewhere.parquet")
    lab.annotate_photographs()
    assert lab.table.is_symlink()
    assert sorted(path.name for path in lab.made.iterdir()) == ["elsewhere.parquet", "link.parquet"]


def test_a_folder_in_the_place_of_the_table_is_told_before_any_photograph(lab: Lab) -> None:
    lab.table.mkdir()
    with pytest.raises(ActionUnitError, match=r"aus\.parquet: is a folder; name a file"):
        annotate_photographs(lab.faces, lab.table, lab.request().experiment.openface, JsonLines())
    assert lab.shown() == 0


def test_who_is_refused_leaves_nothing_behind(lab: Lab) -> None:
    with lab.begun_photographs(*SLOWLY) as process:
        lab.faces /= "anger"
        with pytest.raises(subprocess.CalledProcessError):
            lab.annotate_photographs(*SLOWLY)
        assert len(list(lab.made.glob("aus.parquet.*"))) == 1
        assert process.wait() == 0
    assert [path.name for path in lab.made.iterdir()] == ["aus.parquet"]


def test_rows_of_two_builds_make_no_table(lab: Lab) -> None:
    with lab.begun_photographs(*SLOWLY) as process:
        lab.rebuild_program()
        assert process.wait() == 2
    assert list(lab.made.iterdir()) == []


def test_a_row_that_was_changed_since_is_annotated_again(lab: Lab) -> None:
    (lab.faces / "happiness" / "07.png").unlink()
    first = lab.annotate_photographs()
    lab.shown()
    table = pd.read_parquet(lab.table)
    changed = table.copy()
    changed.loc[0, "AU01_r"] = 4.75
    changed.loc[1, "status"] = "no_face"
    changed.loc[2, "x_7"] = float("nan")
    changed.loc[[3, 4], "digest"] = table.loc[[4, 3], "digest"].to_numpy()
    changed.to_parquet(lab.table)
    pd.testing.assert_frame_equal(lab.annotate_photographs(), first)
    assert lab.shown() == 5
    table.drop(columns=list(LANDMARKS)).to_parquet(lab.table)
    pd.testing.assert_frame_equal(lab.annotate_photographs(), first)
    assert lab.shown() >= 22


def test_what_is_beside_an_annotation_is_left_as_it_is_and_a_damaged_table_passed_over(lab: Lab) -> None:
    first = lab.annotate_dataset()
    (damaged,) = (lab.made / "annotate").glob("*/aus.parquet")
    content = bytearray(damaged.read_bytes())
    content[-300:-100] = bytes(200)
    damaged.write_bytes(content)
    theirs = lab.made / "annotate" / "thesis.unfinished"
    theirs.mkdir()
    again = lab.annotate_dataset("dataset.split_seed=5")
    pd.testing.assert_frame_equal(again, first)
    assert list(theirs.iterdir()) == []


def test_of_images_that_are_the_same_one_that_was_settled_is_enough(lab: Lab) -> None:
    figures = pd.DataFrame(0.5, index=range(3), columns=list(FIGURES), dtype=np.float32)
    figures.insert(0, "status", ["ok", "failed", "failed"])
    with_digests(figures, [digit * 32 for digit in "aab"]).to_parquet(lab.table)
    earlier = Earlier([digit * 32 for digit in "cbaa"])
    earlier.read_table(lab.table)
    assert sorted(earlier.known) == [2, 3]
    assert {finding.number: finding.status for finding in earlier.known.values()} == {2: "ok", 3: "ok"}


def test_a_table_that_cannot_be_written_costs_no_finding(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    (lab.faces / "happiness" / "07.png").unlink()
    in_the_way = lab.made / "aus.parquet.unfinished"
    in_the_way.mkdir()
    with pytest.raises(subprocess.CalledProcessError):
        lab.annotate_photographs()
    in_the_way.rmdir()
    lab.shown()
    assert len(lab.annotate_photographs()) == 23
    assert lab.shown() == 0
    lab.request()
    with monkeypatch.context() as full:
        full.setattr(pd.DataFrame, "to_parquet", _disk_is_full)
        with pytest.raises(ArtifactError, match="No space left"):
            lab.annotate_dataset()
    lab.shown()
    assert len(lab.annotate_dataset()) == 23
    assert lab.shown() == 0
    assert not [path for path in (lab.made / "annotate").glob("*/*") if path.is_dir()]


def _disk_is_full(table: pd.DataFrame, path: Path, index: bool = True) -> None:
    raise OSError(errno.ENOSPC, "No space left on device", str(path))


def test_what_is_drawn_beside_a_table_among_the_photographs_is_no_photograph(lab: Lab) -> None:
    lab.table = lab.faces / "aus.parquet"
    lab.made = lab.faces
    lab.break_off_photographs(*SLOWLY)
    (work,) = lab.faces.glob("aus.parquet.*")
    (drawn := work / "run-1-000000" / "in").mkdir(parents=True)
    shutil.copyfile(lab.faces / "anger" / "00.png", drawn / "00000000.png")
    assert set(lab.annotate_photographs(*SLOWLY).index) == {f"{CLASSES[n % 3]}/{n:02d}.png" for n in range(24)}
