"""A user's files by what they hold: the same for every copy, read once, never mistaken for what they were before."""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest

import fer_core.contents
from fer_core.contents import Seen, content_of, contents_of, look, look_at_files, seen_from, signature
from fer_core.digests import STATUS, Digests, recall

LOOKS = """
import json, os, sys
from pathlib import Path
from fer_core.contents import look, seen_from
opened = []
def watch(event, arguments):
    if event == "open" and isinstance(arguments[0], bytes) and os.fsdecode(arguments[0]).startswith(sys.argv[1]):
        opened.append(os.fsdecode(arguments[0]))
sys.addaudithook(watch)
seen = look(Path(sys.argv[1]), seen_from(sys.argv[2]) if sys.argv[2:] else None)
print(json.dumps([str(seen), opened]))
"""
"""Tells what a look found, and every file that it opened for that."""
KEEPS = """
import sys
from pathlib import Path
import numpy as np
from fer_core.digests import Digests, keep
print("begins", flush=True)
for number in range(10**9):
    keep(Path(sys.argv[1]), Digests(np.full((20_000, 4), number), np.full((20_000, 32), number % 251, np.uint8)))
"""
TRACED = """
import os, sys
trace = open(sys.argv.pop(1), "w")
def watch(event, arguments):
    if event == "open" and isinstance(arguments[0], (str, bytes)):
        trace.write(os.fsdecode(arguments[0]) + "\\n")
        trace.flush()
sys.addaudithook(watch)
from fer_core.cli import main
main()
"""
OLD = 2.1
"""Seconds after which a file's times are believed."""


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of the test's own, which its processes have too."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "fer" / "digests"


@pytest.fixture
def faces(tmp_path: Path) -> Path:
    """A dataset old enough for its times to be believed."""
    write_faces(tmp_path / "faces")
    time.sleep(OLD)
    return tmp_path / "faces"


def write_faces(folder: Path, count: int = 30) -> None:
    for number in range(count):
        file = folder / ("happy" if number % 2 else "sad") / f"{number:04d}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(bytes([number % 251]) * (100 + number))


def looked(folder: Path, before: Seen | None = None) -> tuple[Seen, list[str]]:
    """A look in a process of its own: what it found, and the files that it opened."""
    given = [] if before is None else [str(before)]
    command = [sys.executable, "-c", LOOKS, str(folder), *given]
    seen, opened = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    return seen_from(seen), opened


def test_a_signature_sees_changed_added_and_renamed_files(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_text("1")
    first = signature(tmp_path)
    assert signature(tmp_path) == first
    (tmp_path / "a.jpg").write_text("12")
    second = signature(tmp_path)
    (tmp_path / "b.jpg").write_text("1")
    third = signature(tmp_path)
    (tmp_path / "b.jpg").rename(tmp_path / "c.jpg")
    assert len({first, second, third, signature(tmp_path)}) == 4
    for folder, names in (("one", ("a", "bc")), ("other", ("ab", "c"))):
        (tmp_path / folder).mkdir()
        for name in names:
            (tmp_path / folder / name).touch()
    assert signature(tmp_path / "one") != signature(tmp_path / "other")


def test_a_signature_sees_through_links(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "disk" / "a.jpg").write_text("1")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "aligned").symlink_to(tmp_path / "disk")
    first = signature(tmp_path / "data")
    (tmp_path / "disk" / "a.jpg").write_text("12")
    assert signature(tmp_path / "data") != first


def test_a_signature_is_of_regular_files_and_of_any_name(tmp_path: Path) -> None:
    (tmp_path / os.fsdecode(b"ni\xf1o.png")).write_text("1")
    first = signature(tmp_path)
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "gone.png").symlink_to(tmp_path / "nowhere")
    (tmp_path / "device.png").symlink_to("/dev/zero")
    (tmp_path / "circle").symlink_to(tmp_path)
    assert signature(tmp_path) == first
    (tmp_path / os.fsdecode(b"ni\xf1o.png")).write_text("12")
    assert signature(tmp_path) != first


@pytest.mark.parametrize(
    "kept",
    [
        ".DS_Store",
        ".~lock.labels.csv#",
        ".git/index",
        "happy/@eaDir/a.jpg",
        "Thumbs.db",
        "aus.parquet.0123456789abcdef/a",
    ],
)
def test_what_others_keep_beside_the_files_does_not_count(tmp_path: Path, kept: str) -> None:
    """A look into the folder by Finder or a NAS, or a list that is open in an office program, changes no image."""
    (tmp_path / "happy").mkdir()
    (tmp_path / "happy" / "a.jpg").write_text("1")
    first = signature(tmp_path)
    (tmp_path / kept).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / kept).write_text("1")
    assert signature(tmp_path) == first


def test_a_signature_of_a_pipe_does_not_wait_for_it(tmp_path: Path) -> None:
    missing = look_at_files(tmp_path, [tmp_path / "pipe"], tmp_path)
    os.mkfifo(tmp_path / "pipe")
    assert signature(tmp_path / "pipe") == signature(tmp_path / "pipe")
    assert look_at_files(tmp_path, [tmp_path / "pipe"], tmp_path) == missing


def test_a_copy_elsewhere_with_other_times_is_the_same(faces: Path, tmp_path: Path) -> None:
    shutil.copytree(faces, tmp_path / "disk" / "copy", copy_function=shutil.copyfile)
    for number, file in enumerate(sorted((tmp_path / "disk").rglob("*.jpg"))):
        os.utime(file, (number, number))
    (tmp_path / "link").symlink_to(tmp_path / "disk" / "copy")
    assert signature(tmp_path / "disk" / "copy") == signature(tmp_path / "link") == signature(faces)
    one, other = faces / "sad" / "0002.jpg", tmp_path / "disk" / "copy" / "sad" / "0002.jpg"
    assert signature(one) == signature(other)
    other.write_bytes(b"another")
    assert signature(one) != signature(other)


def test_the_order_of_names_is_that_of_their_bytes_in_any_locale(tmp_path: Path) -> None:
    for name in (
        b"ni\xf1o.jpg",
        "niño.jpg".encode(),
        b"\xff.jpg",
        "\ue000.jpg".encode(),
        "日本.jpg".encode(),
        b"a-b",
        b"a/b",
    ):
        path = tmp_path / "faces" / os.fsdecode(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name)
    environment = os.environ | {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    code = "import sys; from pathlib import Path; from fer_core.contents import signature\n"
    code += "print(sys.getfilesystemencoding(), signature(Path(sys.argv[1])))"
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "faces")],
        capture_output=True,
        text=True,
        check=True,
        env=environment,
    )
    assert done.stdout.split() == ["ascii", signature(tmp_path / "faces")]


def test_a_second_look_opens_no_file_and_one_that_changed_alone(faces: Path) -> None:
    first, opened = looked(faces)
    assert len(opened) == 30
    assert looked(faces) == (first, [])
    (faces / "sad" / "0000.jpg").write_bytes(b"another")
    second, opened = looked(faces)
    assert second.content != first.content
    assert opened == [str(faces / "sad" / "0000.jpg")]


def test_a_changed_byte_is_noticed_though_size_and_time_are_put_back(faces: Path) -> None:
    first, file = look(faces), faces / "sad" / "0000.jpg"
    times = (file.stat().st_atime_ns, file.stat().st_mtime_ns)
    content = bytearray(file.read_bytes())
    content[7] ^= 1
    file.write_bytes(content)
    os.utime(file, ns=times)
    second = look(faces, first)
    assert second.content != first.content
    content[8] ^= 1
    (faces.parent / "beside").write_bytes(content)
    os.utime(faces.parent / "beside", ns=times)
    os.replace(faces.parent / "beside", file)
    assert look(faces, second).content not in (first.content, second.content)


def test_a_file_that_has_just_changed_is_read_again(tmp_path: Path) -> None:
    """Within one tick of a file system's clock, it could change and keep its times."""
    write_faces(tmp_path / "faces", 3)
    seen = look(tmp_path / "faces")
    assert seen.glance == ""
    assert len(looked(tmp_path / "faces", seen)[1]) == 3
    file = tmp_path / "faces" / "sad" / "0000.jpg"
    found = np.array(fer_core.contents._facts(file.stat()))
    assert found[STATUS.index("inode")] == file.stat().st_ino, "two files of one size may be of one tick"
    found[STATUS.index("ctime_ns")] = 0
    assert not fer_core.contents._read(os.fsencode(file), found)[1], "it was changed while it was looked at"


def test_a_file_is_known_again_by_all_of_its_status_at_once() -> None:
    kept = Digests(np.array([[1, 100, 5, 7], [2, 100, 5, 7]]), np.repeat(np.array([[1], [2]], np.uint8), 32, axis=1))
    asked = np.array([[2, 100, 5, 7], [3, 100, 5, 7], [1, 101, 5, 7], [1, 100, 6, 7], [1, 100, 5, 8], [1, 100, 5, 7]])
    digest, known = kept.find(asked)
    assert known.tolist() == [True, False, False, False, False, True]
    assert digest[:, 0].tolist() == [2, 0, 0, 0, 0, 1]


def test_what_was_seen_is_taken_for_granted_while_names_sizes_and_times_are_the_same(faces: Path, cache: Path) -> None:
    seen = look(faces)
    shutil.rmtree(cache)
    assert looked(faces, seen) == (seen, [])
    os.utime(faces / "sad" / "0000.jpg")
    again, opened = looked(faces, seen)
    assert (again.content, len(opened)) == (seen.content, 30)
    assert looked(faces, seen_from("nonsense"))[0].content == seen.content


@pytest.mark.parametrize("damage", [b"", b"fer digests 1\n", b"garbage" * 1000])
def test_a_damaged_cache_is_made_again(faces: Path, cache: Path, damage: bytes) -> None:
    seen = look(faces)
    (kept,) = cache.iterdir()
    kept.write_bytes(damage)
    assert looked(faces)[1] != []
    assert looked(faces) == (seen, [])


def test_a_cache_cut_off_anywhere_or_with_a_flipped_bit_is_none(faces: Path, cache: Path) -> None:
    look(faces)
    (kept,) = cache.iterdir()
    whole = kept.read_bytes()
    assert len(recall(faces).status) == 30
    for length in range(0, len(whole), 37):
        kept.write_bytes(whole[:length])
        assert len(recall(faces).status) == 0
    kept.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    assert len(recall(faces).status) == 0


def test_without_a_cache_that_can_be_written_all_is_the_same(
    faces: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = look(faces)
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    for _ in range(2):
        again, opened = looked(faces)
        assert (again, len(opened)) == (seen, 30)


def test_processes_that_look_at_once_find_the_same_and_leave_one_whole_cache(tmp_path: Path, cache: Path) -> None:
    write_faces(tmp_path / "faces", 3000)
    time.sleep(OLD)
    command = [sys.executable, "-c", LOOKS, str(tmp_path / "faces")]
    several = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    found = {json.loads(process.communicate(timeout=60)[0])[0] for process in several}
    assert found == {str(look(tmp_path / "faces"))}
    assert len(list(cache.iterdir())) == 1
    assert looked(tmp_path / "faces")[1] == []


def test_a_process_killed_while_it_keeps_leaves_a_whole_cache(tmp_path: Path, cache: Path) -> None:
    for number in range(5):
        with subprocess.Popen([sys.executable, "-c", KEEPS, str(tmp_path)], stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            process.stdout.readline()
            time.sleep(0.1 + 0.013 * number)
            process.kill()
        kept = recall(tmp_path)
        assert len(kept.status) == 20_000
        assert len(set(kept.digest.ravel().tolist())) == 1


def test_what_a_killed_process_left_is_cleared_away_in_time(faces: Path, cache: Path) -> None:
    cache.mkdir(parents=True)
    for name, age in (("old.unfinished", 7200), ("new.unfinished", 60)):
        (cache / name).write_text("half")
        os.utime(cache / name, (time.time() - age,) * 2)
    look(faces)
    assert "new.unfinished" in (names := {file.name for file in cache.iterdir()})
    assert "old.unfinished" not in names


def test_a_file_that_may_not_be_read_counts_as_such_until_it_may() -> None:
    """In a process of nobody's where this one is root, whom nothing is denied."""
    code = (
        "import os, sys; from pathlib import Path; from fer_core.contents import signature\n"
        "if os.geteuid() == 0: os.setuid(65534)\n"
        "print(signature(Path(sys.argv[1])))"
    )
    found = []
    with TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        file = Path(folder) / "face.jpg"
        file.write_text("1")
        for mode in (0o644, 0o000, 0o444):
            file.chmod(mode)
            done = subprocess.run([sys.executable, "-c", code, folder], capture_output=True, text=True, check=True)
            found.append(done.stdout)
    assert found[0] == found[2] != found[1]


def test_chosen_files_count_by_the_names_they_are_given(tmp_path: Path) -> None:
    for place in ("here", "there"):
        write_faces(tmp_path / place)
    elsewhere = tmp_path / "elsewhere.jpg"
    elsewhere.write_text("1")

    def chosen(place: str, *names: str) -> str:
        base = tmp_path / place
        return look_at_files(base, [base / name for name in names], base / "list.csv").content

    names = ("sad/0000.jpg", "happy/0001.jpg", "missing.jpg")
    assert chosen("here", *names) == chosen("there", *names[::-1], names[0])
    assert chosen("here", str(elsewhere), "../elsewhere.jpg") == chosen("there", str(elsewhere), "../elsewhere.jpg")
    assert look_at_files(tmp_path, [tmp_path / "missing.jpg"], tmp_path).glance, "what is missing is known to be"
    once, twice = (look(tmp_path / "here", beyond=named).content for named in ([elsewhere], [elsewhere, elsewhere]))
    assert once == twice != look(tmp_path / "here").content
    (tmp_path / "there" / "missing.jpg").write_text("")
    assert chosen("here", *names) != chosen("there", *names)


def test_one_files_content_is_what_sha256sum_says(tmp_path: Path) -> None:
    file = tmp_path / "weights.pth"
    file.write_bytes(os.urandom(3 << 20))
    said = subprocess.run(["sha256sum", str(file)], capture_output=True, text=True, check=True).stdout
    assert content_of(file) == said.split()[0]


def test_a_look_that_takes_long_tells_how_far_it_is_and_can_be_ended(
    faces: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[tuple[str, int, int]] = []
    look(faces, tell=lambda *words: told.append(words))
    assert told == []
    shutil.rmtree(Path(os.environ["XDG_CACHE_HOME"]))
    monkeypatch.setattr(fer_core.contents, "_SECONDS_OF_PATIENCE", 0.0)
    monkeypatch.setattr(fer_core.contents, "_SECONDS_BETWEEN_WORDS", 0.0)
    monkeypatch.setattr(fer_core.contents, "_BATCH", fer_core.contents._COST_OF_A_FILE * 10)

    def end(what: str, done: int, total: int) -> None:
        told.append((what, done, total))
        if what == "read files" and done >= 10:
            raise InterruptedError("enough")

    with pytest.raises(InterruptedError):
        look(faces, tell=end)
    assert told[0] == ("find files", 1, 1)
    assert told[-1][0] == "read files"
    assert told[-1][2] == 30
    read = told[-1][1]
    assert len(looked(faces)[1]) == 30 - read  # What was read is kept.


def test_a_step_opens_no_file_to_know_what_its_run_saw(faces: Path, tmp_path: Path, cache: Path) -> None:
    seen = look(faces)
    shutil.rmtree(cache)
    opened = {}
    for name, text in (("told", str(seen)), ("told wrongly", f"{seen.content}:0")):
        trace = tmp_path / name
        prepare = ("prepare", "demo", "--set", "dataset.source=folder", "--data", str(faces), "--seen", text)
        command = [sys.executable, "-c", TRACED, str(trace), *prepare, "--out", str(tmp_path / "out")]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 2, done.stderr  # None of these is an image.
        assert "cannot be decoded" in done.stderr
        opened[name] = trace.read_text().count(str(faces))
    assert opened["told wrongly"] == opened["told"] + 30


def test_files_below_the_current_folder_are_read_by_their_own_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "faces").mkdir()
    files = [tmp_path / "faces" / "b.png", tmp_path / "a.png"]
    for file in files:
        file.write_bytes(file.name.encode())
    whole = contents_of(tmp_path, files)
    monkeypatch.chdir(tmp_path)
    assert contents_of(Path("."), [file.relative_to(tmp_path) for file in files]) == whole
