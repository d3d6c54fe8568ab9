"""`fer store`, and a worker's cache of the store: what is listed, cleared, kept and fetched."""

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from fer_core.artifacts import Artifact, make_artifact
from fer_core.errors import FerError
from flows.cache import cache_limit, clear_copies, in_use
from flows.lease import Holder, take
from flows.store import Store
from flows.store_command import collect_garbage, unused_rooms

FER = str(Path(sys.executable).with_name("fer"))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    (tmp_path / "store").mkdir()
    return Store(str(tmp_path / "store"))


def made(folder: Path, step: str, number: int, *inputs: Artifact, size: int = 1000) -> Artifact:
    fingerprint = f"{number:016x}"

    def work(out: Path) -> None:
        (out / "index.html").write_bytes(b"x" * size)

    given = {f"{place:04d}": one for place, one in enumerate(inputs)}
    return make_artifact(folder / step / fingerprint, step, fingerprint, {}, given, work)


def reported(store: Store, folder: Path) -> list[Artifact]:
    """A report with what it was made from, and a graph that no report knows."""
    dataset = made(folder, "prepare", 1)
    graph = made(folder, "graph", 2, dataset)
    report = made(folder, "report", 3, dataset, graph)
    unused = made(folder, "graph", 4, dataset)
    for artifact in (dataset, graph, report, unused):
        store.push(artifact)
    return [dataset, graph, report, unused]


def fer_store(store: Store, *arguments: str) -> "subprocess.CompletedProcess[str]":
    environment = {name: value for name, value in os.environ.items() if name != "FER_STORE"}
    command = [FER, "store", *arguments, "--store", store.place]
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)


def test_ls_says_what_is_in_a_report_and_what_is_being_made(store: Store, tmp_path: Path) -> None:
    reported(store, tmp_path / "artifacts")
    assert take(store, "graph/00000000000000aa", Holder(0), "somebody")
    said = fer_store(store, "ls").stdout
    assert [line.split()[-2] for line in said.splitlines() if "0000000000000004" in line] == ["no"]
    assert [line.split()[-2] for line in said.splitlines() if "0000000000000002" in line] == ["yes"]
    assert "4 artifacts, 0.00 GB" in said
    assert "being made: graph/00000000000000aa by somebody" in said


def test_gc_takes_what_no_report_was_made_from_and_nobody_is_making(store: Store, tmp_path: Path) -> None:
    reported(store, tmp_path / "artifacts")
    assert take(store, "graph/00000000000000aa", Holder(0), "somebody")
    store.create("distill/00000000000000bb/upload-dead/model", b"half")
    young = fer_store(store, "gc", "--yes")
    assert "0 folders and files, 0.00 GB: deleted" in young.stdout, young
    shown = fer_store(store, "gc", "--older", "0")
    assert "would go: graph/0000000000000004" in shown.stdout
    assert store.has("graph", "0000000000000004"), "nothing goes without --yes"
    done = fer_store(store, "gc", "--older", "0", "--yes")
    assert done.returncode == 0, done.stderr
    left = sorted(store.rooms())
    assert left == [
        "graph/0000000000000002",
        "graph/00000000000000aa",
        "prepare/0000000000000001",
        "report/0000000000000003",
    ]


def test_what_gc_has_deleted_half_of_counts_no_more(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    *_, unused = reported(store, tmp_path / "artifacts")
    delete = shutil.rmtree

    def break_off(folder: str, **options: object) -> None:
        (Path(folder) / next(name for name in os.listdir(folder) if name.startswith("upload-")) / "index.html").unlink()
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(shutil, "rmtree", break_off)
        with pytest.raises(KeyboardInterrupt):
            collect_garbage(store.place, 0.0, yes=True)
    assert not store.has("graph", unused.fingerprint)
    assert store.push(unused)
    delete(unused.path)
    assert store.fetch("graph", unused.fingerprint, tmp_path / "artifacts") == unused


def days_old(store: Store, name: str, days: float) -> None:
    """Have a file or folder of the store look as if it was written then."""
    root, when = Path(store.place) / name, time.time() - days * 86400
    for path in (root, *root.rglob("*")):
        os.utime(path, (when, when))


def test_what_a_dead_machine_left_goes_and_is_called_so(store: Store, tmp_path: Path) -> None:
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "resume.pt").write_bytes(b"x" * 3_000_000)
    for room, owner in (("train-ldg/00000000000000aa", "deadmachine"), ("train-ldg/00000000000000bb", "livemachine")):
        lease = take(store, room, Holder(0), owner)
        assert lease
        lease.save_resume_state(tmp_path / "work")
        days_old(store, room, 3)
    assert lease
    lease.beat()
    said = fer_store(store, "ls").stdout
    assert "broke off: train-ldg/00000000000000aa by deadmachine" in said
    assert "no sign for 72 hours" in said
    assert "being made: train-ldg/00000000000000bb by livemachine" in said
    assert "being made: train-ldg/00000000000000aa" not in said
    for hours, gone in ((0.0, ["train-ldg/00000000000000aa"]), (24.0, ["train-ldg/00000000000000aa"]), (100.0, [])):
        assert list(unused_rooms(store, hours)) == gone
    assert "3.0 MB" in fer_store(store, "gc", "--older", "24").stdout


def test_a_holder_is_taken_for_dead_after_an_hour_alone(store: Store) -> None:
    for minutes, gone in ((50, []), (70, ["graph/00000000000000aa"])):
        take(store, "graph/00000000000000aa", Holder(0), "somebody")
        days_old(store, "graph/00000000000000aa", minutes / 1440)
        assert list(unused_rooms(store, 0.0)) == gone


def test_what_broke_off_beside_an_artifact_goes_alone(store: Store, tmp_path: Path) -> None:
    dataset, *_ = reported(store, tmp_path / "artifacts")
    room = f"prepare/{dataset.fingerprint}"
    store.create(f"{room}/upload-dead/big", b"y" * 5_000_000)
    store.create(f"{room}/upload-new/big", b"y")
    # Its machine died between its upload and the end of its lease.
    take(store, room, Holder(0), "somebody")
    days_old(store, f"{room}/upload-dead", 3)
    days_old(store, f"{room}/lease-000001.json", 3)
    assert "being made" not in fer_store(store, "ls").stdout
    shown = fer_store(store, "gc", "--older", "24").stdout
    assert f"would go: {room}/upload-dead · 5.0 MB" in shown
    assert "2 folders and files, 0.01 GB: would go" in shown
    assert fer_store(store, "gc", "--older", "24", "--yes").returncode == 0
    assert [name for name in store.names_in(room) if name in ("upload-dead", "lease-000001.json")] == []
    assert "upload-new" in store.names_in(room)
    found = store.fetch("prepare", dataset.fingerprint, tmp_path / "there")
    assert found is not None
    assert found.files() == dataset.files()


def test_an_upload_of_a_users_file_that_broke_off_goes_alone(store: Store, tmp_path: Path) -> None:
    (tmp_path / "w.pth").write_bytes(b"weights")
    store.push_file(tmp_path / "w.pth", sha256 := hashlib.sha256(b"weights").hexdigest())
    store.create(f"files/{sha256}/upload-dead", b"wei")
    days_old(store, f"files/{sha256}/upload-dead", 3)
    assert "1 folders and files" in fer_store(store, "gc", "--older", "24", "--yes").stdout
    assert store.fetch_file(sha256, tmp_path / "there").read_bytes() == b"weights"
    assert "upload-dead" not in store.names_in(f"files/{sha256}")


def test_what_a_dead_machine_said_of_itself_goes(store: Store) -> None:
    """A container that is made anew has another name, and a killed one takes its notice along no more."""
    for name, days in (("dead.json", 2), ("alive.json", 0)):
        store.replace(f"workers/{name}", b"{}")
        days_old(store, f"workers/{name}", days)
    assert "would go: workers/dead.json" in fer_store(store, "gc").stdout
    assert fer_store(store, "gc", "--yes").returncode == 0
    assert store.names_in("workers") == ["alive.json"]


def test_pull_fetches_the_latest_report_or_a_named_one(store: Store, tmp_path: Path) -> None:
    where = ("--artifacts", str(tmp_path / "there"))
    assert "no report in it" in fer_store(store, "pull", *where).stderr
    reported(store, tmp_path / "artifacts")
    done = fer_store(store, "pull", *where)
    assert done.stdout.strip() == (tmp_path / "there/report/0000000000000003/index.html").as_uri()
    assert (tmp_path / "there/report/0000000000000003/index.html").is_file()
    assert "there are 0000000000000003" in fer_store(store, "pull", "nothing", *where).stderr


def test_without_a_store_the_command_says_how_to_name_one() -> None:
    environment = {name: value for name, value in os.environ.items() if name != "FER_STORE"}
    done = subprocess.run([FER, "store", "ls"], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 2
    assert "error: no store: set FER_STORE, or give --store" in done.stderr


def test_copies_used_least_recently_go_first_and_those_in_use_stay(store: Store, tmp_path: Path) -> None:
    folder = tmp_path / "artifacts"
    first, second, third = (made(folder, "graph", number, size=100_000) for number in (1, 2, 3))
    for age, artifact in ((300, first), (200, second), (100, third)):
        store.push(artifact)
        when = artifact.file("manifest.json").stat().st_mtime - age
        os.utime(artifact.file("manifest.json"), (when, when))
    kept = made(folder, "prepare", 9, size=100_000)  # The store does not have it.
    assert clear_copies(folder, store, 1_000_000) == []
    with in_use([first]):
        assert first.file("manifest.json").stat().st_mtime > third.file("manifest.json").stat().st_mtime
        os.utime(first.file("manifest.json"), (1.0, 1.0))
        assert clear_copies(folder, store, 350_000) == [second.path]
    assert clear_copies(folder, store, 0) == [first.path, third.path]
    assert kept.path.is_dir()


def test_copies_go_where_the_disk_is_smaller_than_their_limit(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk takes no steps, and its copies would stay below their limit for ever."""
    folder = tmp_path / "artifacts"
    copies = [made(folder, "graph", number, size=100_000) for number in (1, 2, 3)]
    for age, copy in zip((300, 200, 100), copies, strict=True):
        store.push(copy)
        when = copy.file("manifest.json").stat().st_mtime - age
        os.utime(copy.file("manifest.json"), (when, when))
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=50_000))
    assert clear_copies(folder, store, 1_000_000, free=50_000) == []
    assert clear_copies(folder, store, 1_000_000, free=200_000) == [copy.path for copy in copies[:2]]


def put(file: Path, size: int, days: float = 0.0) -> Path:
    """A file that was last touched so long ago, and its folder too."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(b"x" * size)
    for path in (file, file.parent):
        os.utime(path, (time.time() - days * 86400,) * 2)
    return file


LEFT = ["{}.fetched-00112233", "{}.unfinished", "{}.unfinished-00112233", "{}.late", "{}"]
"""What a step or a worker that was killed leaves, by an artifact's fingerprint."""


@pytest.mark.parametrize("name", LEFT)
def test_what_broke_off_counts_and_goes_first_after_a_day(store: Store, tmp_path: Path, name: str) -> None:
    folder = tmp_path / "artifacts"
    copy = made(folder, "graph", 1, size=100_000)
    store.push(copy)
    os.utime(copy.file("manifest.json"), (1.0, 1.0))
    left = folder / "train-ldg" / name.format("00000000000000aa")
    put(left / "model.safetensors", 100_000, days=0.9)
    assert clear_copies(folder, store, 250_000) == []
    assert clear_copies(folder, store, 150_000) == [copy.path]
    assert clear_copies(folder, store, 0) == [], "somebody may be at it"
    copy = made(folder, "graph", 1, size=100_000)
    put(left / "model.safetensors", 100_000, days=1.1)
    assert clear_copies(folder, store, 150_000) == [left]
    assert not left.exists()
    assert clear_copies(folder, store, 0) == [copy.path]


def test_what_a_running_step_makes_stays_however_old(store: Store, tmp_path: Path) -> None:
    making = tmp_path / "artifacts" / "train-ldg" / "00000000000000aa.unfinished"
    put(making / "manifest.json", 100_000, days=3)
    mark = put(making / ".unfinished", 16, days=3)
    with mark.open("a") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert clear_copies(tmp_path / "artifacts", store, 0) == []
    assert clear_copies(tmp_path / "artifacts", store, 0) == [making]


def test_copies_of_users_files_count_and_go_like_others(store: Store, tmp_path: Path) -> None:
    folder = tmp_path / "artifacts"
    copy = made(folder, "graph", 1, size=100_000)
    store.push(copy)
    old, new = (put(folder / ".files" / (digit * 64), 100_000, days) for digit, days in (("a", 3), ("b", 2)))
    begun, broken = (put(folder / ".files" / f".{'c' * 64}.{n}", 100_000, days) for n, days in ((1, 0.5), (2, 1.5)))
    read = put(folder / ".files" / ("d" * 64), 100_000, days=9)
    os.utime(read, (time.time(), read.stat().st_mtime))
    with in_use([], [old]):
        assert clear_copies(folder, store, 450_000) == [broken, new]
    assert clear_copies(folder, store, 350_000) == [old]
    assert clear_copies(folder, store, 0) == [copy.path, read]
    assert begun.is_file()


def test_nothing_but_copies_is_cleared(store: Store, tmp_path: Path) -> None:
    kept = [
        put(tmp_path / "artifacts" / name / "notes.txt", 100_000, days=9)
        for name in ("graph/mine", "graph/abc", "graph/00000000000000aa0", ".cache", ".sent-x", "photographs", ".files")
    ]
    assert clear_copies(tmp_path / "artifacts", store, 0) == []
    assert all(path.is_file() for path in kept)


def test_a_limit_that_is_no_number_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    assert cache_limit() == 100_000_000_000
    monkeypatch.setenv("FER_CACHE_GB", "0.5")
    assert cache_limit() == 500_000_000
    for wrong in ("much", "-1", "inf", "nan"):
        monkeypatch.setenv("FER_CACHE_GB", wrong)
        with pytest.raises(FerError, match="give gigabytes, such as 100"):
            cache_limit()
