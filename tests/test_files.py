"""Folders that others filled: what is in them, and names that no encoding foresaw."""

import contextlib
import os
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from fer_core.errors import DatasetError, InputError
from fer_core.exit_codes import ExitCode
from fer_core.paths import whole_path
from fer_core.progress import JsonLines
from flows.containers import Containers
from flows.granted import DATA
from flows.runner import StepCommand, StepFailed
from flows.study import open_study
from openface.files import links_outside
from openface.names import printable, spell, unspell

NAMES = (
    *(b"plain.png", b"ni\xf1o.png", "niño.png".encode(), b"two\nlines", b"\xff\xfe", b"a\\xf1", b"\\x5cxf1", b"\\"),
    *("\u2028\x85".encode(), b"100%20", "日本".encode()),
)


def test_a_spelled_name_is_one_line_of_text_that_gives_the_bytes_back() -> None:
    for raw in NAMES:
        text = spell(os.fsdecode(raw))
        assert len(text.splitlines()) == 1
        assert os.fsencode(unspell(text)) == raw
    assert len({spell(os.fsdecode(raw)) for raw in NAMES}) == len(NAMES)
    assert spell("faces/niño 1.png") == "faces/niño 1.png"


def test_an_error_and_a_note_are_one_line_that_can_be_printed(capsys: pytest.CaptureFixture[str]) -> None:
    name = os.fsdecode(b"ni\xf1o\n.png")
    assert str(DatasetError(f"{name}: no such file")) == r"ni\xf1o\x0a.png: no such file"
    JsonLines().note(name)
    assert capsys.readouterr().out == '{"event": "note", "text": "ni\\\\xf1o\\\\x0a.png"}\n'
    assert printable("[dataset.classes] niño") == "[dataset.classes] niño"


def test_a_folder_that_may_not_be_read_is_told_and_not_passed_over() -> None:
    """In a process of nobody's where this one is root, whom nothing is denied."""
    code = (
        "import os, sys; from pathlib import Path\n"
        "from fer_core.contents import signature; from fer_core.data.readers.source import find_images\n"
        "if os.geteuid() == 0: os.setuid(65534)\n"
        "for look in (signature, find_images):\n"
        "    try: look(Path(sys.argv[1]))\n"
        "    except ValueError as error: print(error)\n"
    )
    with TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        (Path(folder) / "closed").mkdir(mode=0o000)
        done = subprocess.run([sys.executable, "-c", code, folder], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [f"{folder}/closed: Permission denied; allow this user to read it"] * 2


def test_a_dataset_that_a_run_may_not_read_is_told_with_who_may_not() -> None:
    """As of a group that the worker's container is not in."""
    code = (
        "import encodings.utf_8_sig, os, sys; from flows.study import open_study\n"
        "from fer_core.errors import DatasetError\n"
        "if os.geteuid() == 0: os.setgid(65534), os.setuid(65534)\n"
        "try: open_study('paper', sys.argv[1], None, None, (), '/nowhere')\n"
        "except DatasetError as error: print(error)\n"
    )
    with TemporaryDirectory() as folder:
        Path(folder).chmod(0o110)
        done = subprocess.run([sys.executable, "-c", code, folder], capture_output=True, text=True, check=True)
    who = f"user {os.geteuid() or 65534} of group {os.getegid() or 65534}"
    assert done.stdout.startswith(f"{folder}: {who}, as whom this runs, may not read it; allow that, or")


def test_a_list_is_no_folder_of_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "list.csv").write_text("path,label\n")
    monkeypatch.setenv(DATA, str(tmp_path / "list.csv"))
    with pytest.raises(DatasetError, match=r"list\.csv: a file; let FER_DATA be its folder"):
        open_study("paper", None, None, None, ["dataset.source=csv"], str(tmp_path / "made"))


def test_links_out_of_a_folder_are_found_and_others_not(tmp_path: Path) -> None:
    data, other = tmp_path / "data", tmp_path / "other"
    (data / "happy").mkdir(parents=True)
    other.mkdir()
    (other / "a.png").write_text("")
    (data / "happy" / "inside.png").symlink_to(other.parent / "data" / "happy")
    (data / "happy" / "gone.png").symlink_to(tmp_path / "nowhere")
    assert list(links_outside(data)) == []
    (data / "sad").symlink_to(other)
    (data / "happy" / "a.png").symlink_to("../../other/a.png")
    assert set(links_outside(data)) == {data / "sad", data / "happy" / "a.png"}


def test_a_container_is_not_asked_for_what_it_would_not_see(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "a.png").write_text("")
    (tmp_path / "data" / "a.png").symlink_to(tmp_path / "a.png")
    command = StepCommand("prepare", "demo", (), (), tmp_path / "out", outside=("data", tmp_path / "data"))
    with pytest.raises(StepFailed) as failed:
        Containers("image", 1 << 30, 1)(command, lambda event: None)
    assert failed.value.exit_code == ExitCode.MISTAKE
    assert f"a.png: leads to {tmp_path / 'a.png'}, which a step's container does not see" in failed.value.message
    assert not (tmp_path / "out").exists()


def test_a_folder_of_any_name_can_be_given_to_a_run(tmp_path: Path) -> None:
    """By way of Prefect's parameters, which are JSON."""
    folder = tmp_path / os.fsdecode(b"f\xf1ces")
    folder.mkdir()
    study = open_study("demo", spell(str(folder)), None, None, ["dataset.source=folder"], str(tmp_path))
    assert study.data == folder


def test_a_run_is_told_of_bytes_that_prefect_and_pyarrow_do_not_take(tmp_path: Path) -> None:
    (place := tmp_path / os.fsdecode(b"ni\xf1o")).mkdir()
    tiny = Path(__file__).with_name("tiny.toml")
    (place / "tiny.toml").write_text(tiny.read_text())
    for experiment, artifacts in ((place / "tiny.toml", tmp_path), (tiny, place)):
        with pytest.raises(InputError, match=r"ni\\xf1o.*: holds bytes that are no UTF-8"):
            open_study(str(experiment), None, None, None, [], str(artifacts))


@pytest.mark.parametrize("artifacts", ["faces/artifacts", "faces", "faces/../faces/a/b"])
def test_what_is_made_may_not_lie_in_the_dataset_that_it_is_made_from(tmp_path: Path, artifacts: str) -> None:
    (faces := tmp_path / "faces").mkdir()
    settings = ["dataset.source=folder"]
    with pytest.raises(DatasetError, match=r"would change with all that is made.*--artifacts") as raised:
        open_study("demo", str(faces), None, None, settings, str(tmp_path / artifacts))
    assert "\n" not in str(raised.value)
    for beside in ("faces_artifacts", "."):
        assert open_study("demo", str(faces), None, None, settings, str(tmp_path / beside)).data == faces


@pytest.mark.parametrize("given", ["https://example.org/faces.zip", Path("s3://lab/faces"), "file:///data/faces"])
def test_an_address_is_no_path(given: str | Path) -> None:
    """Not taken for a folder `https:` below the one that one is in."""
    with pytest.raises(InputError, match="an address, and no path on this machine; fetch what is there, and name that"):
        whole_path(given)


def test_a_path_with_a_colon_is_one(tmp_path: Path) -> None:
    faces = tmp_path / "day:1" / "faces"
    assert whole_path(faces) == faces
    (tmp_path / "as:").mkdir()
    with contextlib.chdir(tmp_path):
        assert whole_path("as:/") == tmp_path / "as:"
