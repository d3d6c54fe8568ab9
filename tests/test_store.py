"""The store and its leases, in a folder and on a real S3 server."""

import errno
import json
import os
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from helpers.s3 import s3_server, way_to

from fer_core.artifacts import Artifact, finished, make_artifact, open_artifact
from fer_core.steps import STEPS
from flows.events import Event, Note
from flows.lease import Holder, Lease, LeaseLost, Silence, _newest_first, kept, latest, take
from flows.made_once import make_once
from flows.runner import StepCommand, Subprocesses
from flows.shared_place import DiskFull, StoreAway, StoreError
from flows.store import Store, open_store

FINGERPRINT = "0123456789abcdef"
ROOM = f"graph/{FINGERPRINT}"


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of an S3 server."""
    with s3_server(tmp_path_factory.mktemp("s3")) as address:
        yield address


@pytest.fixture(params=["folder", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """An empty place for a store."""
    if request.param == "folder":
        (tmp_path / "store").mkdir()
        return str(tmp_path / "store")
    address = request.getfixturevalue("s3")
    reach(address, monkeypatch)
    bucket = f"lab{time.monotonic_ns()}"
    assert httpx.put(f"{address}/{bucket}").status_code == 200
    return f"s3://{bucket}/fer"


@pytest.fixture
def store(place: str) -> Store:
    return Store(place)


def artifact_in(folder: Path, content: str = "linked") -> Artifact:
    def work(out: Path) -> None:
        (out / "below").mkdir()
        (out / "below" / "graph.txt").write_text(content)

    return make_artifact(folder / "graph" / FINGERPRINT, "graph", FINGERPRINT, {"k": 4}, {}, work)


def test_what_is_pushed_is_fetched_elsewhere_whole(store: Store, place: str, tmp_path: Path) -> None:
    assert store.fetch("graph", FINGERPRINT, tmp_path / "there") is None
    assert store.push(artifact_in(tmp_path / "here"))
    found = Store(place).fetch("graph", FINGERPRINT, tmp_path / "there")
    assert found is not None
    assert found.file("below/graph.txt").read_text() == "linked"
    assert found == finished(tmp_path / "there" / "graph" / FINGERPRINT, FINGERPRINT)
    assert [one.fingerprint for one in store.artifacts()] == [FINGERPRINT]


def test_what_another_step_fetches_meanwhile_stays_where_it_reads_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "store").mkdir()
    store = Store(str(tmp_path / "store"))
    others, out = artifact_in(tmp_path / "here").path, tmp_path / "there" / "graph" / FINGERPRINT
    store.push(open_artifact(others))
    rename, number = Path.rename, others.stat().st_ino

    def rename_after_the_others_is_there(path: Path, target: Path) -> Path:
        if others.exists():
            rename(others, out)
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", rename_after_the_others_is_there)
    assert store.fetch("graph", FINGERPRINT, tmp_path / "there") == finished(out, FINGERPRINT)
    assert out.stat().st_ino == number
    assert [path.name for path in out.parent.iterdir()] == [FINGERPRINT]


def test_steps_that_begin_together_fetch_what_they_all_read_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A machine with eight GPUs would else fetch, and hold, a dataset of gigabytes eight times."""
    (tmp_path / "store").mkdir()
    store, get, fetched = Store(str(tmp_path / "store")), Store.get_file, list[str]()
    store.push(artifact_in(tmp_path / "here"))

    def get_slowly(self: Store, name: str, file: Path, size: int, sha256: str | None = None) -> None:
        fetched.append(Path(name).name)
        time.sleep(0.2)
        get(self, name, file, size, sha256)

    monkeypatch.setattr(Store, "get_file", get_slowly)
    with ThreadPoolExecutor() as pool:
        fetches = [pool.submit(store.fetch, "graph", FINGERPRINT, tmp_path / "there") for _ in range(4)]
    assert {fetch.result() for fetch in fetches} == {finished(tmp_path / "there" / ROOM, FINGERPRINT)}
    assert sorted(fetched) == ["graph.txt", "manifest.json"]
    assert [path.name for path in (tmp_path / "there" / "graph").iterdir()] == [FINGERPRINT]


def test_a_fetch_that_broke_off_leaves_the_next_one_free(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    store = Store(str(tmp_path / "store"))
    store.push(artifact_in(tmp_path / "here"))
    (tmp_path / "there" / "graph").mkdir(parents=True)
    (tmp_path / "there" / "graph" / f".{FINGERPRINT}.fetching").touch()
    assert store.fetch("graph", FINGERPRINT, tmp_path / "there") is not None
    assert [path.name for path in (tmp_path / "there" / "graph").iterdir()] == [FINGERPRINT]


def test_what_is_published_is_on_the_disk_before_its_entry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a power cut would leave an entry that counts for good, and half of what it names."""
    (tmp_path / "store").mkdir()
    store, artifact = Store(str(tmp_path / "store")), artifact_in(tmp_path / "here")
    flush, on_disk = os.fsync, list[int]()

    def note_and_flush(descriptor: int) -> None:
        on_disk.append(os.fstat(descriptor).st_ino)
        flush(descriptor)

    monkeypatch.setattr(os, "fsync", note_and_flush)
    store.push(artifact)
    store.push_file(artifact.file("below/graph.txt"), "0" * 64)
    entries = {path.stat().st_ino for path in (tmp_path / "store").rglob("published.json")}
    uploads = {
        path.stat().st_ino for path in (tmp_path / "store").rglob("*") if "upload-" in str(path) and path.is_file()
    }
    assert len(uploads) == 3
    assert set(on_disk[:2]) | {on_disk[3]} == uploads
    assert {on_disk[2], on_disk[4]} == entries


@pytest.mark.parametrize(
    ("root", "folders", "files"), [(0o2777, 0o777, 0o666), (0o2770, 0o770, 0o660), (0o755, 0o700, 0o600)]
)
def test_who_may_write_into_a_stores_folder_may_use_all_that_is_in_it(
    root: int, folders: int, files: int, tmp_path: Path
) -> None:
    """Other machines' users have other numbers and umasks, and take over each other's leases."""
    place = tmp_path / "store"
    place.mkdir()
    place.chmod(root)
    before = os.umask(0o077)
    try:
        store = Store(str(place))
        store.push(artifact_in(tmp_path / "here"))
        assert take(store, "graph/00000000000000aa", Holder(0), "first")
    finally:
        os.umask(before)
    inside = list(place.rglob("*"))
    assert {path.stat().st_mode & 0o777 for path in inside if path.is_dir()} == {folders}
    assert {path.stat().st_mode & 0o777 for path in inside if path.is_file()} == {files}


def test_of_two_uploads_the_first_counts_for_good(store: Store, tmp_path: Path) -> None:
    assert store.push(artifact_in(tmp_path / "first", "first"))
    before = store.names_in(ROOM)
    assert not store.push(artifact_in(tmp_path / "second", "second"))
    assert store.names_in(ROOM) == before
    found = store.fetch("graph", FINGERPRINT, tmp_path / "there")
    assert found is not None
    assert found.file("below/graph.txt").read_text() == "first"


def test_an_upload_that_broke_off_is_not_seen(store: Store, tmp_path: Path) -> None:
    made = artifact_in(tmp_path / "here")
    store.put_file(made.file("below/graph.txt"), f"{ROOM}/upload-dead/below/graph.txt")
    assert not store.has("graph", FINGERPRINT)
    assert store.fetch("graph", FINGERPRINT, tmp_path / "there") is None
    assert store.push(made)


def test_a_bit_that_has_turned_in_the_store_is_told_and_nothing_is_taken(store: Store, tmp_path: Path) -> None:
    store.push(artifact_in(tmp_path / "here"))
    there = store.published("graph", FINGERPRINT)
    assert there is not None
    store.replace(f"{ROOM}/{there.upload}/below/graph.txt", b"linkef")
    with pytest.raises(StoreError, match=rf"graph\.txt: holds something else than was written; delete {ROOM} there"):
        store.fetch("graph", FINGERPRINT, tmp_path / "there")
    assert list((tmp_path / "there" / "graph").iterdir()) == []


def test_a_file_that_is_gone_from_the_store_is_told_and_nothing_is_taken(store: Store, tmp_path: Path) -> None:
    store.push(artifact_in(tmp_path / "here"))
    there = store.published("graph", FINGERPRINT)
    assert there is not None
    store.remove(f"{ROOM}/{there.upload}/below/graph.txt")
    with pytest.raises(StoreError, match=rf"graph\.txt: is gone; delete {ROOM} there"):
        store.fetch("graph", FINGERPRINT, tmp_path / "there")
    assert list((tmp_path / "there" / "graph").iterdir()) == []


def test_what_an_earlier_version_has_published_is_taken(store: Store, tmp_path: Path) -> None:
    store.push(artifact_in(tmp_path / "here"))
    told = store.read_json(f"{ROOM}/published.json")
    assert told is not None
    del told["sha256"]
    store.replace(f"{ROOM}/published.json", json.dumps(told).encode())
    assert store.fetch("graph", FINGERPRINT, tmp_path / "there") is not None


def test_a_file_and_a_folder_have_an_age_and_a_size(store: Store) -> None:
    store.create(f"{ROOM}/upload-dead/model", b"half")
    for name in (f"{ROOM}/upload-dead/model", f"{ROOM}/upload-dead"):
        assert store.age(name) == pytest.approx(0, abs=30)
        assert store.size(name) == 4


def test_what_lies_beside_the_upload_that_counts(store: Store, tmp_path: Path) -> None:
    store.create(f"{ROOM}/upload-dead/model", b"half")
    assert store.beside_published(ROOM) == [], "nothing counts yet"
    store.push(artifact_in(tmp_path / "here"))
    assert store.beside_published(ROOM) == [f"{ROOM}/upload-dead"]


def test_a_small_file_is_created_by_one_of_many(store: Store) -> None:
    won = list[int]()

    def create(number: int) -> None:
        if store.create(f"{ROOM}/mine", str(number).encode()):
            won.append(number)

    threads = [threading.Thread(target=create, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1
    assert store.read(f"{ROOM}/mine") == str(won[0]).encode()


def test_a_lease_is_held_by_one_and_the_next_number_takes_over(store: Store) -> None:
    first = take(store, ROOM, latest(store, ROOM), "first")
    assert first is not None
    assert take(store, ROOM, Holder(0), "second") is None
    first.beat()
    holder = latest(store, ROOM)
    assert (holder.number, holder.beat, holder.released) == (1, 1, False)
    assert holder.owner.startswith("first")
    second = take(store, ROOM, holder, "second")
    assert second is not None
    with pytest.raises(LeaseLost, match="taken over by second"):
        first.beat()
    second.require_held()
    assert not latest(store, ROOM).released
    second.release()
    assert latest(store, ROOM).released


def test_who_beats_learns_that_another_has_taken_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "store").mkdir()
    store, lost = Store(str(tmp_path / "store")), threading.Event()
    lease = take(store, ROOM, Holder(0), "first")
    assert lease is not None
    monkeypatch.setattr("flows.lease.SECONDS_BETWEEN_BEATS", 0.01)
    with kept(lease, tmp_path, lost):
        while not latest(store, ROOM).beat:
            time.sleep(0.01)
        assert not lost.is_set()
        assert take(store, ROOM, Holder(1), "second") is not None
        assert lost.wait(10)


def test_silence_is_measured_by_the_clock_of_who_waits() -> None:
    """A holder's own clock is nowhere asked, so that it may be wrong by minutes."""
    silence, holder = Silence(seconds=0.3), Holder(1, "other", beat=5, released=False)
    assert not silence.of(holder)
    time.sleep(0.2)
    assert not silence.of(Holder(1, "other", beat=6, released=False))
    time.sleep(0.2)
    assert not silence.of(Holder(1, "other", beat=6, released=False))
    time.sleep(0.2)
    assert silence.of(Holder(1, "other", beat=6, released=False))


def test_a_time_in_which_nobody_could_look_is_no_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    """While the store is away for all, the holder cannot beat either; it gets as long as ever to do so afterwards."""
    clock = [1000.0]
    monkeypatch.setattr("time.monotonic", lambda: clock[0])
    silence, holder = Silence(seconds=30), Holder(1, "other", beat=5, released=False)

    def later(seconds: float) -> bool:
        clock[0] += seconds
        return silence.of(holder)

    assert not any(later(3) for _ in range(4))
    assert not later(120)
    assert not any(later(3) for _ in range(9))
    assert later(3)


def test_a_resume_state_goes_on_elsewhere(store: Store, tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    lease = take(store, ROOM, Holder(0), "first")
    assert lease is not None
    (here / ".unfinished").write_text(FINGERPRINT)
    lease.save_resume_state(here)
    assert not store.names_in(f"{ROOM}/resume-1"), "a mark alone is nothing to go on from"
    (here / ".unfinished").unlink()
    (here / "selected").write_text("epoch 1")
    (here / "resume.pt").write_text("epoch 1")
    lease.save_resume_state(here)
    saved = store.names_in(f"{ROOM}/resume-1")
    (here / "resume.pt").write_text("epoch 2!")
    lease.save_resume_state(here)
    again = store.names_in(f"{ROOM}/resume-1")
    assert len(again) == 2, "the state before is gone"
    assert len(set(saved) & set(again)) == 1, "what has not changed was not copied again"
    following = take(store, ROOM, latest(store, ROOM), "second")
    assert following is not None
    assert following.fetch_resume_state(there)
    assert (there / "resume.pt").read_text() == "epoch 2!"
    assert (there / "selected").read_text() == "epoch 1"
    following.clear()
    assert store.names_in(ROOM) == []


def test_a_holder_that_slept_past_its_end_changes_nothing(store: Store, tmp_path: Path) -> None:
    here = tmp_path / "sleeper"
    here.mkdir()
    (here / "resume.pt").write_text("old")
    sleeper = take(store, ROOM, Holder(0), "sleeper")
    assert sleeper is not None
    heir = take(store, ROOM, latest(store, ROOM), "heir")
    assert heir is not None
    (tmp_path / "heir").mkdir()
    (tmp_path / "heir" / "resume.pt").write_text("new")
    heir.save_resume_state(tmp_path / "heir")
    sleeper.save_resume_state(here)  # It wakes.
    third = take(store, ROOM, latest(store, ROOM), "third")
    assert third is not None
    assert third.fetch_resume_state(tmp_path / "third")
    assert (tmp_path / "third" / "resume.pt").read_text() == "new"
    assert store.push(artifact_in(tmp_path / "heirs", "the heir's"))
    assert not store.push(artifact_in(tmp_path / "sleepers", "the sleeper's"))
    found = store.fetch("graph", FINGERPRINT, tmp_path / "there")
    assert found is not None
    assert found.file("below/graph.txt").read_text() == "the heir's"


def test_a_state_that_cannot_be_copied_whole_leaves_the_one_before(store: Store, tmp_path: Path) -> None:
    """As when the step has just ended, and its folder was renamed."""
    folder = tmp_path / "here.unfinished"
    folder.mkdir()
    (folder / "resume.pt").write_text("epoch 1")
    (folder / "resume.pt.unfinished").write_text("half of epoch 2")
    lease = take(store, ROOM, Holder(0), "first")
    assert lease is not None
    lease.save_resume_state(folder)
    shutil.rmtree(folder)
    lease.save_resume_state(folder)
    following = take(store, ROOM, latest(store, ROOM), "second")
    assert following is not None
    assert following.fetch_resume_state(tmp_path / "there")
    assert [path.name for path in (tmp_path / "there").iterdir()] == ["resume.pt"]


@pytest.mark.parametrize(
    ("step", "kept"),
    [
        ("train-ldg", [".unfinished", "resume.pt"]),
        ("distill", [".unfinished", "resume.pt"]),
        ("annotate", [".unfinished", "openface/findings.jsonl"]),
        ("prepare", []),
    ],
)
def test_a_resume_state_is_what_the_step_goes_on_from_and_no_more(step: str, kept: list[str], tmp_path: Path) -> None:
    """A dataset's images half decoded, or the pictures that OpenFace is at, would go over the network for nothing."""
    (tmp_path / "store").mkdir()
    store, folder = Store(str(tmp_path / "store")), tmp_path / "here.unfinished"
    (folder / "openface" / "run-1" / "in").mkdir(parents=True)
    for name in (".unfinished", "resume.pt", "openface/findings.jsonl", "openface/run-1/in/0.png", "decoded.npy"):
        (folder / name).write_text(name)
    lease = take(store, f"{step}/{FINGERPRINT}", Holder(0), "first", STEPS[step].resumes)
    assert lease is not None
    lease.save_resume_state(folder)
    following = take(store, f"{step}/{FINGERPRINT}", Holder(1), "second")
    assert following is not None
    assert following.fetch_resume_state(tmp_path / "there") == bool(kept)
    found = [path for path in (tmp_path / "there").rglob("*") if path.is_file()]
    assert sorted(str(path.relative_to(tmp_path / "there")) for path in found) == kept


def test_what_was_written_last_is_copied_first(tmp_path: Path) -> None:
    """So that a state never speaks of what is not in it."""
    for age, name in enumerate(("selected", "resume.pt", "older")):
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (100 - age, 100 - age))
    (tmp_path / "resume.pt").touch()
    assert [path.name for path in _newest_first(tmp_path, ("*",))] == ["resume.pt", "selected", "older"]


def test_a_journal_that_grows_while_it_is_copied_is_gone_on_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "store").mkdir()
    store, folder, copy = Store(str(tmp_path / "store")), tmp_path / "here.unfinished", shutil.copyfile
    folder.mkdir()
    (folder / "findings.jsonl").write_text("one\n")

    def copy_what_has_grown(source: Path, target: Path) -> None:
        with source.open("a") as journal:
            journal.write("two\n")
        copy(source, target)

    lease = take(store, ROOM, Holder(0), "first")
    assert lease is not None
    with monkeypatch.context() as patched:
        patched.setattr(shutil, "copyfile", copy_what_has_grown)
        lease.save_resume_state(folder)
    following = take(store, ROOM, latest(store, ROOM), "second")
    assert following is not None
    assert following.fetch_resume_state(tmp_path / "there")
    assert (tmp_path / "there" / "findings.jsonl").read_text() == "one\ntwo\n"


def test_what_was_made_before_there_was_a_store_is_put_into_it(store: Store, tmp_path: Path) -> None:
    made = artifact_in(tmp_path / "here")
    command = StepCommand("graph", "demo", (), (), made.path)
    with Subprocesses(("false",)) as never:
        make_once(store, command, never, lambda event: None)
    assert store.has("graph", FINGERPRINT)
    assert store.names_in(ROOM)[0] == "published.json", "and no lease was needed"


def test_what_was_published_between_two_looks_is_not_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "store").mkdir()
    store, command = Store(str(tmp_path / "store")), StepCommand("graph", "demo", (), (), tmp_path / ROOM)

    def take_too_late(*told: Any) -> Lease | None:
        store.push(artifact_in(tmp_path / "elsewhere", "first"))
        return take(*told)

    monkeypatch.setattr("flows.made_once.take", take_too_late)
    monkeypatch.setattr("flows.made_once._SECONDS_BETWEEN_LOOKS", 0)
    make_once(store, command, lambda command, listen: pytest.fail("made again"), lambda event: None)
    assert open_artifact(command.out).file("below/graph.txt").read_text() == "first"


def test_the_lease_of_a_step_that_failed_and_of_who_is_known_to_be_dead_is_free(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    store, command = Store(str(tmp_path / "store")), StepCommand("graph", "demo", (), (), tmp_path / ROOM)

    def fail(command: StepCommand, listen: object) -> None:
        assert not latest(store, ROOM).released
        raise KeyboardInterrupt

    for number in (1, 2):
        with pytest.raises(KeyboardInterrupt):
            make_once(store, command, fail, lambda event: None)
        assert (latest(store, ROOM).number, latest(store, ROOM).released) == (number, True)
    assert take(store, ROOM, Holder(2), "who dies") is not None
    with pytest.raises(KeyboardInterrupt):
        make_once(store, command, fail, lambda event: pytest.fail("waited for the dead"), dead=3)


def test_who_comes_second_takes_what_counts_and_leaves_no_lease(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    store, command = Store(str(tmp_path / "store")), StepCommand("graph", "demo", (), (), tmp_path / "here" / ROOM)

    def make_it_after_another(command: StepCommand, listen: object) -> None:
        store.push(artifact_in(tmp_path / "elsewhere", "first"))
        artifact_in(tmp_path / "here", "second")

    make_once(store, command, make_it_after_another, lambda event: None)
    assert open_artifact(command.out).file("below/graph.txt").read_text() == "first"
    assert not [name for name in store.names_in(ROOM) if name.startswith("lease")]


def test_a_step_ends_at_its_next_word_once_another_has_taken_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "store").mkdir()
    store, command = Store(str(tmp_path / "store")), StepCommand("graph", "demo", (), (), tmp_path / ROOM)
    monkeypatch.setattr("flows.lease.SECONDS_BETWEEN_BEATS", 0.01)

    def go_on(command: StepCommand, listen: Callable[[Event], None]) -> None:
        assert take(store, ROOM, latest(store, ROOM), "heir") is not None
        for _ in range(500):
            time.sleep(0.01)
            listen(Note("working"))
        pytest.fail("went on")

    with pytest.raises(LeaseLost, match="taken over by heir"):
        make_once(store, command, go_on, lambda event: None)
    assert not latest(store, ROOM).released, "the heir's lease is its own"


def test_a_full_disk_here_is_not_the_stores(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    store = Store(str(tmp_path / "store"), patience=1)
    store.push(artifact_in(tmp_path / "here", "x" * 2_000_000))
    small = tmp_path / "small"
    small.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(small)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("only root may mount")
    try:
        with pytest.raises(DiskFull, match=r"small/graph/.*No space left on device; free some space there"):
            store.fetch("graph", FINGERPRINT, small)
        assert not list(small.glob("graph/*")), "nothing of it is left"
    finally:
        subprocess.run(["umount", str(small)], check=True)


def test_what_was_made_here_and_came_too_late_gives_way_to_what_counts(store: Store, tmp_path: Path) -> None:
    """As where the network drops at the end of a training: another machine ends it, and this one keeps its own."""
    late = artifact_in(tmp_path / "here", "mine, and late")
    store.push(artifact_in(tmp_path / "elsewhere", "first"))
    found = store.fetch("graph", FINGERPRINT, tmp_path / "here")
    assert found == finished(late.path, FINGERPRINT)
    assert late.file("below/graph.txt").read_text() == "first"
    assert [path.name for path in late.path.parent.iterdir()] == [FINGERPRINT]


def test_a_store_that_is_away_is_asked_again(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    store = Store(str(tmp_path / "store"), patience=30)
    assert store.push(artifact_in(tmp_path / "here"))
    (tmp_path / "store").rename(tmp_path / "unmounted")
    back = threading.Timer(3, lambda: (tmp_path / "unmounted").rename(tmp_path / "store"))
    back.start()
    assert store.create(f"{ROOM}/written", b"late")
    assert store.fetch("graph", FINGERPRINT, tmp_path / "there") is not None
    back.join()


def test_a_store_that_stays_away_is_told(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    store = Store(str(tmp_path / "store"), patience=1)
    shutil.rmtree(tmp_path / "store")
    with pytest.raises(StoreAway, match=r"store: not reached for 1 s"):
        store.has("graph", FINGERPRINT)


def test_a_file_that_breaks_off_after_longer_than_a_stores_patience_is_copied_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As of gigabytes, on their way for minutes before the network drops for a moment."""
    (tmp_path / "store").mkdir()
    store, copy, tries = Store(str(tmp_path / "store"), patience=0.5), shutil.copyfile, list[Path]()

    def break_off_once(source: Path, target: Path) -> None:
        tries.append(source)
        if len(tries) == 1:
            time.sleep(0.6)
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        copy(source, target)

    monkeypatch.setattr(shutil, "copyfile", break_off_once)
    monkeypatch.setattr("flows.shared_place._SECONDS_BETWEEN_TRIES", 0.1)
    assert store.push(artifact_in(tmp_path / "here"))
    assert len(tries) == 3


def test_places_that_are_no_store_are_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no such folder; mount or make it"):
        Store(str(tmp_path / "missing"))
    with pytest.raises(StoreError, match="give its whole path"):
        Store("relative")
    with pytest.raises(StoreError, match=r"FER_STORE=~nobody-at-all/x: no such folder"):
        Store("~nobody-at-all/x")
    with pytest.raises(StoreError, match="give a folder's path, or s3"):
        Store("gs://lab/fer")
    (tmp_path / "homework.txt").write_text("mine")
    with pytest.raises(StoreError, match=r"holds homework.txt, and no store"):
        Store(str(tmp_path))
    (tmp_path / "fer-store.json").write_text(json.dumps({"project": "other"}))
    with pytest.raises(StoreError, match="another project's files"):
        Store(str(tmp_path))
    (tmp_path / "fer-store.json").write_text("{")
    with pytest.raises(StoreError, match="another project's files"):
        Store(str(tmp_path))


def test_a_bucket_that_is_not_there_is_refused(s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    reach(s3, monkeypatch)
    with pytest.raises(StoreError, match="no such bucket; make it first"):
        Store("s3://nowhere/fer")


def test_keys_that_a_bucket_refuses_are_told_at_once(s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not as a network that is gone, after three minutes in the middle of a run, as when a token has expired."""
    reach(s3, monkeypatch)
    assert httpx.put(f"{s3}/locked").status_code == 200
    assert httpx.post(f"{s3}/moto-api/reset-auth", content=b"0").status_code == 200
    try:
        began = time.monotonic()
        with pytest.raises(StoreError, match=r"s3://locked/fer: .*; let this user read and write there"):
            Store("s3://locked/fer")
        assert time.monotonic() - began < 5
    finally:
        httpx.post(f"{s3}/moto-api/reset-auth", content=b"inf")


def test_a_full_store_is_told_as_such(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "store").mkdir()
    store = Store(str(tmp_path / "store"), patience=1)

    def full(*paths: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(shutil, "copyfile", full)
    with pytest.raises(StoreError, match="No space left on device; free some space there, or run `fer store gc`"):
        store.push(artifact_in(tmp_path / "here"))


def test_a_full_store_keeps_no_half_of_what_did_not_fit(tmp_path: Path) -> None:
    """Else it would be full again as soon as somebody has made room."""

    def work(out: Path) -> None:
        for name in ("selected.safetensors", "last.safetensors"):
            (out / name).write_bytes(b"x" * 700_000)

    made = make_artifact(tmp_path / "graph" / FINGERPRINT, "graph", FINGERPRINT, {}, {}, work)
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "resume.pt").write_bytes(b"x" * 2_000_000)
    (small := tmp_path / "small").mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(small)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("only root may mount")
    try:
        store = Store(str(small))
        with pytest.raises(StoreError, match="No space left on device"):
            store.push(made)
        lease = take(store, ROOM, Holder(0), "first")
        assert lease is not None
        with pytest.raises(StoreError, match="No space left on device"):
            lease.save_resume_state(tmp_path / "work")
        left = [path.name for path in small.rglob("*") if path.is_file()]
        assert sorted(left) == ["fer-store.json", "lease-000001.json"]
    finally:
        subprocess.run(["umount", str(small)], check=True)


@pytest.mark.parametrize("number", [errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS])
def test_a_file_system_without_hard_links_is_told_at_once(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as exFAT and FAT, and many that programs of a cloud's mount: rights have nothing to do with it."""

    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("os.link", refuse)
    began = time.monotonic()
    with pytest.raises(StoreError, match=r"its file system knows no hard links, .*; take a folder on another one"):
        Store(str(tmp_path))
    assert time.monotonic() - began < 5
    assert list(tmp_path.iterdir()) == []


def test_a_store_that_may_only_be_read_is_read_and_told_at_once(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    shown = tmp_path / "shown"
    shown.mkdir()
    Store(str(tmp_path / "store")).push(artifact_in(tmp_path / "here"))
    for options in (["--bind"], ["-o", "remount,ro,bind"]):
        done = subprocess.run(["mount", *options, tmp_path / "store", shown], capture_output=True, check=False)
        if done.returncode:
            pytest.skip("only root may mount")
    try:
        store = Store(str(shown))
        assert store.fetch("graph", FINGERPRINT, tmp_path / "there") is not None
        started = time.monotonic()
        with pytest.raises(StoreError, match=r"Read-only file system.*; let this user read and write there"):
            store.require_writable()
        assert time.monotonic() - started < 2
    finally:
        subprocess.run(["umount", shown], check=True)


def test_a_try_to_write_leaves_nothing(store: Store) -> None:
    store.require_writable()
    assert list(store.rooms()) == []
    assert [name for name in store._files.find(store._root) if "written-to-try" in name] == []


def test_without_a_place_there_is_no_store(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FER_STORE", raising=False)
    assert open_store() is None


def reach(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a user does, by the environment."""
    for name, value in way_to(address).items():
        monkeypatch.setenv(name, value)


LEADS_OUT = ["../../../outside", "/tmp/outside", "below/../../../outside", "below//x", "..", "", "..\\outside"]


@pytest.mark.parametrize("name", LEADS_OUT)
def test_no_name_in_the_store_leads_out_of_the_artifact(tmp_path: Path, name: str) -> None:
    """Whoever may write into the store gets no file of this machine written by it."""
    (tmp_path / "store").mkdir()
    store, artifacts = Store(str(tmp_path / "store")), tmp_path / "here" / "artifacts"
    room = tmp_path / "store" / ROOM
    for upload, files in (("upload-1", {name: 4}), (name, {"x": 4})):
        room.mkdir(parents=True, exist_ok=True)
        told = {"upload": upload, "files": files, "made_from": []}
        (room / "published.json").write_text(json.dumps(told))
        with pytest.raises(StoreError, match=r"leads out of its folder.*delete it there"):
            store.fetch("graph", FINGERPRINT, artifacts)
    (room / "resume-1").mkdir()
    (room / "resume-1" / "x").write_text("evil")
    lease = take(store, ROOM, Holder(1), "me")
    assert lease
    for state in ({name: {"at": "x", "size": 4}}, {"x": {"at": name, "size": 4}}):
        (room / "resume-1.json").write_text(json.dumps(state))
        assert not lease.fetch_resume_state(artifacts / "graph" / f"{FINGERPRINT}.unfinished")
    assert [path for path in (tmp_path / "here").rglob("*") if path.is_file()] == []
    assert not Path("/tmp/outside").exists()


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        "null",
        "{}",
        '{"upload": 1, "files": {}, "made_from": []}',
        '{"upload": "upload-1", "files": {}, "made_from": [["graph/1"]]}',
    ],
)
def test_what_somebody_else_wrote_into_the_store_is_told(tmp_path: Path, content: str) -> None:
    (tmp_path / "store" / ROOM).mkdir(parents=True)
    (tmp_path / "store" / "fer-store.json").write_text('{"project": "fer"}')
    (tmp_path / "store" / ROOM / "published.json").write_text(content)
    with pytest.raises(StoreError, match=r"published\.json: not as this project writes it .*; delete it there"):
        Store(str(tmp_path / "store")).fetch("graph", FINGERPRINT, tmp_path / "here")


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        '{"x": 1}',
        '{"owner": "a", "beat": 1}',
        '{"owner": 1, "beat": 1, "released": true}',
        '{"owner": "a", "beat": "1", "released": true}',
        '{"owner": "a", "beat": 1, "released": "no"}',
    ],
)
def test_a_lease_that_is_none_is_told(tmp_path: Path, content: str) -> None:
    store = Store(str(tmp_path))
    store.replace(f"{ROOM}/lease-000001.json", content.encode())
    with pytest.raises(StoreError, match=r"lease-000001\.json: not as this project writes it .*; delete it there"):
        latest(store, ROOM)


def test_a_lease_of_a_newer_version_is_read(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    told = {"owner": "a", "beat": 3, "released": False, "newer": [1]}
    store.replace(f"{ROOM}/lease-000002.json", json.dumps(told).encode())
    assert latest(store, ROOM) == Holder(2, "a", 3, released=False)


@pytest.mark.parametrize("number", ["x", "", "-1", "1_0", " 1", "²"])
def test_a_lease_and_a_resume_state_without_a_number_are_told(tmp_path: Path, number: str) -> None:
    store = Store(str(tmp_path))
    lease = take(store, ROOM, Holder(0), "me")
    assert lease
    store.replace(f"{ROOM}/resume-{number}.json", b"{}")
    with pytest.raises(StoreError, match=rf"resume-{number}\.json: not as this project writes it .*; delete it there"):
        lease.fetch_resume_state(tmp_path / "there")
    store.replace(f"{ROOM}/lease-{number}.json", lease.content(released=True))
    with pytest.raises(StoreError, match=rf"lease-{number}\.json: not as this project writes it .*; delete it there"):
        latest(store, ROOM)


def test_a_spoilt_lease_ends_the_step_that_meets_it_with_a_line(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    store = Store(str(tmp_path / "store"))
    store.replace(f"{ROOM}/lease-000001.json", b'{"x": 1}')
    command = StepCommand("graph", "demo", (), (), tmp_path / "here" / "graph" / FINGERPRINT)
    with Subprocesses(("false",)) as never, pytest.raises(StoreError, match=r"lease-000001\.json: not as this project"):
        make_once(store, command, never, lambda event: None)


def test_a_file_where_a_folder_belongs_is_told_at_once(tmp_path: Path) -> None:
    store = Store(str(tmp_path), patience=30)
    store.replace("graph/notes.txt", b"somebody's")
    store.replace(f"{ROOM}/published.json/x", b"somebody's")
    for name, wrong in (("notes.txt", "Not a directory"), (FINGERPRINT, "Is a directory")):
        with pytest.raises(StoreError, match=rf"{wrong}: .*{name}/published\.json.*; delete it there"):
            store.published("graph", name)


@pytest.mark.parametrize("named", ["/../../../newdir/zz", "/etc/hostname", "0123"])
def test_a_file_is_fetched_by_its_sha256_alone(tmp_path: Path, named: str) -> None:
    (tmp_path / "store").mkdir()
    with pytest.raises(StoreError, match="no SHA-256"):
        Store(str(tmp_path / "store")).fetch_file(named, tmp_path / "here")
