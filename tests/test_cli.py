"""The steps' commands as a user types them, in processes of their own, with the mistakes that users make."""

import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from fer_core.artifacts import open_artifact
from fer_core.data.dataset import EMOTIONS
from openface.columns import INTENSITIES, PRESENCES

ROOT = Path(__file__).parent.parent
TINY = str(Path(__file__).with_name("tiny.toml"))


def environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1"}


def fer(*arguments: object, file_size: int | None = None) -> subprocess.CompletedProcess[str]:
    """Run a step; `file_size` limits what any one file may grow to, as a full disk would."""

    def limit() -> None:
        if file_size is not None:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (file_size, file_size))

    command = [sys.executable, "-m", "fer_core", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment(), preexec_fn=limit)


def mistake(done: subprocess.CompletedProcess[str]) -> str:
    """The one line that a user's mistake is told, with exit code 2 and no traceback."""
    assert done.returncode == 2, done.stderr
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("error: ")
    return lines[0]


def class_folders(folder: Path, classes: tuple[str, ...] = EMOTIONS[:3], each: int = 12) -> Path:
    generator = np.random.default_rng(1)
    for label in classes:
        (folder / label).mkdir(parents=True)
        for number in range(each):
            pixels = generator.integers(0, 256, (60, 60, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / label / f"{label}{number:02d}.png")
    return folder


def au_table(folder: Path, path: Path) -> Path:
    names = sorted(file.stem for file in folder.rglob("*.png"))
    table = pd.DataFrame({"id": names, "confidence": 0.95})
    generator = np.random.default_rng(2)
    table[list(INTENSITIES)] = generator.random((len(names), 17)).round(2)
    table[list(PRESENCES)] = generator.integers(0, 2, (len(names), 18)).astype(float)
    table.to_parquet(path)
    return path


FOLDER = ("--set", "dataset.source=folder")


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A dataset, its AU table and its graph, made by the commands."""
    place = tmp_path_factory.mktemp("prepared")
    faces = class_folders(place / "faces")
    paths = {"faces": faces, "table": au_table(faces, place / "table.parquet")}
    paths |= {name: place / name for name in ("dataset", "aus", "graph")}
    for arguments in (
        ("prepare", TINY, *FOLDER, "--data", faces, "--out", paths["dataset"]),
        ("annotate", TINY, "--in", paths["dataset"], "--aus", paths["table"], "--out", paths["aus"]),
        ("graph", TINY, "--in", paths["dataset"], "--in", paths["aus"], "--out", paths["graph"]),
    ):
        done = fer(*arguments)
        assert done.returncode == 0, done.stderr
    return paths


def test_what_stood_at_out_is_told_to_be_replaced(tmp_path: Path) -> None:
    for count, told in ((40, False), (40, False), (42, True)):
        done = fer("prepare", TINY, "--set", f"dataset.count={count}", "--out", tmp_path / "dataset")
        assert done.returncode == 0, done.stderr
        assert (f"{tmp_path / 'dataset'}: what was made there by other settings" in done.stdout) == told


def test_every_step_by_hand(prepared: dict[str, Path], tmp_path: Path) -> None:
    dataset, graph = ("--in", prepared["dataset"]), ("--in", prepared["graph"])
    ldg, soft, student = (tmp_path / name for name in ("ldg", "soft", "student"))
    for arguments in (
        ("train-ldg", TINY, *dataset, *graph, "--seed", "3", "--out", ldg),
        ("soft-labels", TINY, *dataset, "--in", ldg, "--out", soft),
        ("distill", TINY, *dataset, "--in", soft, "--out", student),
        ("evaluate", TINY, *dataset, "--in", student, "--out", tmp_path / "figures"),
    ):
        done = fer(*arguments)
        assert done.returncode == 0, done.stderr
        assert '"event": "progress"' in done.stdout
    assert '"name": "EF + LDG-AUs"' in (student / "model.json").read_text()
    again = fer("distill", TINY, *dataset, "--in", soft, "--out", student)
    assert again.returncode == 0
    assert "epoch" not in again.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("prepare", "nosuch"), "nosuch: no such experiment"),
        (("prepare", TINY, "--set", "dataset.sorce=folder"), "unknown key dataset.sorce; did you mean source?"),
        (("prepare", TINY, *FOLDER), "--data"),
        (("prepare", TINY, *FOLDER, "--data", "/no/such/folder"), "/no/such/folder"),
        (("prepare", TINY, "--set", "dataset.source=rafdb", "--data", "tests"), "tests"),
        (("train-ldg", TINY), "fer train-ldg needs one --in from `fer prepare`, and got 0"),
        (("graph", TINY, "--in", "/no/such/artifact"), "/no/such/artifact: no finished artifact"),
        (("distill", TINY, "--set", "sll.weights=~nobody-at-all/w", "--in", "{dataset}"), "~nobody-at-all/w: "),
    ],
)
def test_a_mistake_is_one_line_and_leaves_nothing(
    prepared: dict[str, Path], tmp_path: Path, arguments: tuple[str, ...], said: str
) -> None:
    given = [argument.format(dataset=prepared["dataset"]) for argument in arguments]
    assert said in mistake(fer(*given, "--out", tmp_path / "out"))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("a.png," + 131_073 * "x", "list.csv, line 2: field larger than field limit (131072)"),
        ('"' + 70_000 * "x\n" + '",happy', "list.csv, line 2: field larger than field limit (131072)"),
        (5_000 * "x" + ".png,happy\nb.png,sad", "x.png: no such file; 2 of 2 images cannot be decoded"),
    ],
    ids=["label", "open quote", "path"],
)
def test_a_field_too_long_for_a_list_of_images(tmp_path: Path, line: str, said: str) -> None:
    (tmp_path / "list.csv").write_text(f"path,label\n{line}\n")
    csv = ("--set", "dataset.source=csv", "--data", tmp_path / "list.csv")
    assert said in mistake(fer("prepare", TINY, *csv, "--out", tmp_path / "out"))


@pytest.mark.parametrize("place", ["loop/x", "~nobody-at-all/x", 300 * "a"])
@pytest.mark.parametrize("option", ["--data", "--out", "experiment"])
def test_a_path_at_which_no_file_can_be_is_told_in_a_line(tmp_path: Path, place: str, option: str) -> None:
    (tmp_path / "loop").symlink_to("loop")
    given = place if place.startswith("~") else f"{tmp_path}/{place}"
    experiment = given if option == "experiment" else TINY
    own = {"--data": tmp_path / "faces", "--out": tmp_path / "out"} | (
        {option: given} if option != "experiment" else {}
    )
    line = mistake(fer("prepare", experiment, *FOLDER, *(part for pair in own.items() for part in pair)))
    assert "no such experiment" in line or "name another p" in line


@pytest.mark.parametrize("command", [["graph", TINY, "--in=~/made", "--out=graph"], ["serve-web", "~/made"]])
def test_a_home_behind_an_equals_sign_or_in_quotes_is_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: list[str]
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert f"{tmp_path}/made: no " in mistake(fer(*command))


def test_a_place_that_not_everything_can_open_is_refused_in_a_line(tmp_path: Path) -> None:
    place = tmp_path / os.fsdecode(b"ni\xf1o")
    place.mkdir()
    assert "ni\\xf1o/dataset: holds bytes that are no UTF-8" in mistake(
        fer("prepare", TINY, "--out", place / "dataset")
    )


def test_who_reads_no_further_ends_a_step_and_the_disk_is_not_blamed(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "fer_core", "prepare", TINY, "--out", str(tmp_path / "out")]
    done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True, env=environment(), check=False)
    os.close(writer)
    assert (done.returncode, done.stderr) == (1, "")


def test_closed_streams_are_as_if_nobody_looked(tmp_path: Path) -> None:
    """As `>&-` in a shell leaves them, and some schedulers."""
    command = f'exec "{sys.executable}" -m fer_core prepare {TINY} --out "{tmp_path / "out"}" <&- >&- 2>&-'
    assert subprocess.run(command, shell=True, env=environment(), check=False).returncode == 0
    assert open_artifact(tmp_path / "out").step == "prepare"


def test_a_command_typed_wrongly_is_told_its_usage() -> None:
    for arguments, said in (
        (("evaluate", TINY), "--out"),
        (("evalute",), "evaluate"),
        (("graph", TINY, "--sed"), "--sed"),
    ):
        done = fer(*arguments)
        assert done.returncode == 2
        assert said in done.stderr
        assert "Traceback" not in done.stderr


def test_inputs_of_another_step_are_refused(prepared: dict[str, Path], tmp_path: Path) -> None:
    done = fer("graph", TINY, "--in", prepared["dataset"], "--in", prepared["graph"], "--out", tmp_path / "out")
    assert "needs one --in from `fer annotate`, and got 0" in mistake(done)
    done = fer("train-ldg", TINY, "--in", prepared["dataset"], "--in", prepared["aus"], "--out", tmp_path / "out")
    assert "made by `fer annotate`, which `fer train-ldg` has no use for" in mistake(done)


def test_au_rows_of_other_images_give_both_counts(prepared: dict[str, Path], tmp_path: Path) -> None:
    table = pd.read_parquet(prepared["table"])
    table["id"] = [f"somebody{number}" for number in range(len(table))]
    table.to_parquet(tmp_path / "others.parquet")
    done = fer(
        "annotate", TINY, "--in", prepared["dataset"], "--aus", tmp_path / "others.parquet", "--out", tmp_path / "out"
    )
    line = mistake(done)
    assert "others.parquet" in line
    assert "36" in line


def test_images_without_an_au_row_are_told(prepared: dict[str, Path], tmp_path: Path) -> None:
    pd.read_parquet(prepared["table"]).head(30).to_parquet(tmp_path / "some.parquet")
    given = ("--in", prepared["dataset"], "--aus", tmp_path / "some.parquet")
    done = fer("annotate", TINY, *given, "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert f"6 of 36 images have no row in {tmp_path / 'some.parquet'} and count as no_face" in done.stdout


def test_photographs_that_are_no_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for name in ("nowhere", "file"):
        done = fer("openface", tmp_path / name, "--out", tmp_path / "aus.parquet")
        assert f"{tmp_path / name}: no such folder; give one that holds images" in mistake(done)


def test_a_setting_that_openface_has_no_use_for_is_refused(tmp_path: Path) -> None:
    done = fer("openface", tmp_path, "--out", tmp_path / "aus.parquet", "--set", "dataset.image_size=200")
    assert mistake(done).startswith("error: --set dataset.image_size=200: would change nothing here")


def test_nan_among_the_aus_names_image_and_column(prepared: dict[str, Path], tmp_path: Path) -> None:
    table = pd.read_parquet(prepared["table"])
    table.loc[4, "AU06_r"] = np.nan
    table.to_parquet(tmp_path / "nan.parquet")
    done = fer(
        "annotate", TINY, "--in", prepared["dataset"], "--aus", tmp_path / "nan.parquet", "--out", tmp_path / "out"
    )
    assert done.returncode == 0, done.stderr
    assert f"1 row of {tmp_path / 'nan.parquet'} cannot be used and count as failed: " in done.stdout
    assert f"{table['id'][4]}: AU06_r is nan" in done.stdout
    status = pd.read_parquet(tmp_path / "out" / "aus.parquet").set_index("id")["status"]
    assert status[status == "failed"].index.str.endswith(f"/{table['id'][4]}").tolist() == [True]


def test_without_an_au_table_the_user_is_told_what_to_give(
    prepared: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FER_DOCKER_HOST", f"unix://{tmp_path}/no.sock")
    assert "what it wrote before with --aus" in mistake(
        fer("annotate", TINY, "--in", prepared["dataset"], "--out", tmp_path / "out")
    )


def test_fewer_images_than_k(prepared: dict[str, Path], tmp_path: Path) -> None:
    inputs = ("--in", prepared["dataset"], "--in", prepared["aus"])
    line = mistake(fer("graph", TINY, "--set", "graph.k=500", *inputs, "--out", tmp_path / "out"))
    assert "graph.k = 500, but only" in line


def test_a_truncated_input_is_named(prepared: dict[str, Path], tmp_path: Path) -> None:
    copy = tmp_path / "dataset"
    copy.mkdir()
    for file in prepared["dataset"].iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    (copy / "images.npy").write_bytes(b"\x93NUMPY")
    line = mistake(fer("distill", TINY, "--in", copy, "--out", tmp_path / "out"))
    assert "images.npy: 6 bytes where" in line


@pytest.mark.parametrize("step", ["prepare", "distill"])
def test_a_full_disk_is_one_line_and_what_was_there_stays(prepared: dict[str, Path], tmp_path: Path, step: str) -> None:
    given = {"prepare": (*FOLDER, "--data", prepared["faces"]), "distill": ("--in", prepared["dataset"])}[step]
    line = mistake(fer(step, TINY, *given, "--out", tmp_path / "out", file_size=20_000))
    assert "File too large; free or allow space there, and run again" in line
    assert not (tmp_path / "out").exists()
    assert fer(step, TINY, *given, "--out", tmp_path / "out").returncode == 0


@pytest.mark.parametrize("command", [["--help"], ["doctor"], ["device"]])
def test_a_full_disk_under_what_is_printed_is_one_line(command: list[str], tmp_path: Path) -> None:
    with open("/dev/full", "w") as full:
        program = [str(Path(sys.executable).with_name("fer")), *command]
        done = subprocess.run(program, stdout=full, stderr=subprocess.PIPE, text=True, cwd=tmp_path, env=environment())
    assert done.stderr == (
        "error: No space left on device; free some where this writes, or where what it prints goes\n"
    )
    assert done.returncode == 6


def test_a_full_disk_under_a_file_is_one_line_that_names_it() -> None:
    code = """if True:
        import errno
        from fer_core.cli import run_app

        def app():
            print("19 of 24")
            raise OSError(errno.ENOSPC, "No space left on device", "aus.parquet.13e4/in/00000014.png")

        run_app(app)
    """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr == (
        "error: aus.parquet.13e4/in/00000014.png: No space left on device; free some there, and run again\n"
    )
    assert (done.returncode, done.stdout) == (6, "19 of 24\n")


def test_who_reads_no_further_ends_a_command_without_a_word(tmp_path: Path) -> None:
    program = [str(Path(sys.executable).with_name("fer")), "--help"]
    with subprocess.Popen(program, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=tmp_path) as child:
        assert child.stdout is not None
        child.stdout.close()
        assert child.stderr is not None
        assert child.stderr.read() == b""


def test_ctrl_c_stops_a_step_soon_and_it_goes_on_afterwards(prepared: dict[str, Path], tmp_path: Path) -> None:
    long = ("--set", "sll.epochs=300", "--in", prepared["dataset"], "--out", tmp_path / "out")
    command = [sys.executable, "-m", "fer_core", "distill", TINY, *map(str, long)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT, env=environment()
    ) as child:
        assert child.stdout is not None
        next(line for line in child.stdout if '"metrics"' in line)
        child.send_signal(signal.SIGINT)
        asked = time.monotonic()
        _, errors = child.communicate(timeout=20)
    assert time.monotonic() - asked < 5
    assert child.returncode == 130
    assert errors.startswith("stopped; what is finished is kept")
    assert (tmp_path / "out.unfinished" / "resume.pt").exists()


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["prepare", "demo", "--set", "dataset.source=folder", "--data", "", "--out", "made"], "--data"),
        (["prepare", "demo", "--data=", "--out", "made"], "--data"),
        (["annotate", "demo", "--in", " ", "--out", "made"], "--in"),
        (["graph", "demo", "--out", ""], "--out"),
        (["predict", "", "--model", "made"], "an argument"),
        (["predict", "photo.png", "--model", ""], "--model"),
        (["openface", "", "--out", "aus.parquet"], "an argument"),
    ],
)
def test_an_empty_text_stands_for_no_folder(arguments: list[str], named: str) -> None:
    """Else `--data "$FACES"` would read the folder that one happens to be in."""
    assert mistake(fer(*arguments)).startswith(f"error: {named}: empty; is the variable set that it comes from?")
