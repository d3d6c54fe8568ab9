"""Artifacts: reuse, change, truncation, and what a killed or failed attempt leaves."""

import errno
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from fer_core.artifacts import Artifact, fingerprint, finished, make_artifact, open_artifact, publish
from fer_core.errors import ArtifactError


def make(out: Path, mark: str = "f1", text: str = "done") -> Artifact:
    def work(folder: Path) -> None:
        (folder / "graph.txt").write_text(text)

    return make_artifact(out, "graph", mark, {"k": 4}, {}, work)


def test_a_finished_artifact_is_reused_without_work(tmp_path: Path) -> None:
    first = make(tmp_path / "a")
    again = make_artifact(tmp_path / "a", "graph", "f1", {}, {}, lambda folder: pytest.fail("worked again"))
    assert again == first
    assert first.file("graph.txt").read_text() == "done"
    assert [p.name for p in tmp_path.iterdir()] == ["a"]
    assert sorted(p.name for p in first.path.iterdir()) == ["graph.txt", "manifest.json"]


def test_what_was_finished_and_not_yet_published_is_not_made_again(tmp_path: Path) -> None:
    """As where a step's container has ended and its run was killed."""
    made = make(tmp_path / "a")
    made.path.rename(tmp_path / "a.unfinished")
    assert make_artifact(tmp_path / "a", "graph", "f1", {}, {}, lambda folder: pytest.fail("worked again")) == made


def test_a_manifest_that_an_attempt_left_is_none_of_the_artifacts_files(tmp_path: Path) -> None:
    (tmp_path / "a.unfinished").mkdir()
    (tmp_path / "a.unfinished" / ".unfinished").write_text("f1")
    (tmp_path / "a.unfinished" / "manifest.json").write_text("{")
    assert make(tmp_path / "a").files().keys() == {"graph.txt", "manifest.json"}


def test_the_manifest_holds_what_the_step_tells_of_its_work(tmp_path: Path) -> None:
    told = {"hardware": {"processor": "AVX2", "precision": "float32"}}
    make_artifact(tmp_path / "a", "train-ldg", "f1", {}, {}, lambda folder: told)
    manifest = json.loads((tmp_path / "a" / "manifest.json").read_text())
    assert manifest["hardware"] == told["hardware"]
    assert manifest["files"] == {}


def test_another_fingerprint_replaces_it(tmp_path: Path) -> None:
    make(tmp_path / "a", "f1", "old")
    assert make(tmp_path / "a", "f2", "new").file("graph.txt").read_text() == "new"


def test_a_process_killed_as_it_replaces_an_artifact_leaves_the_next_one_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(tmp_path / "a", "f1", "old")
    delete = shutil.rmtree

    def delete_the_manifest_and_die(folder: Path, ignore_errors: bool = False) -> None:
        if (Path(folder) / "manifest.json").exists():
            (Path(folder) / "manifest.json").unlink()
            raise KeyboardInterrupt
        delete(folder, ignore_errors=ignore_errors)

    with monkeypatch.context() as patched:
        patched.setattr("shutil.rmtree", delete_the_manifest_and_die)
        with pytest.raises(KeyboardInterrupt):
            make(tmp_path / "a", "f2", "new")
    assert make(tmp_path / "a", "f3", "newer").file("graph.txt").read_text() == "newer"
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


def test_who_publishes_what_another_has_published_takes_nothing_away(tmp_path: Path) -> None:
    """Two runs' containers make an artifact in one folder, and those who started them publish it."""
    made = make(tmp_path / "a")
    with pytest.raises(FileNotFoundError):
        publish(tmp_path / "a")
    assert finished(tmp_path / "a", "f1") == made


def test_a_clock_that_is_set_back_meanwhile_makes_no_step_take_less_than_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter(range(1_800_000_000, 0, -3600))
    monkeypatch.setattr("time.time", lambda: next(clock))
    assert 0 <= make(tmp_path / "a").seconds() < 60


@pytest.mark.parametrize("content", ["d", "done and more"])
def test_an_artifact_of_another_size_is_noticed_and_made_again(tmp_path: Path, content: str) -> None:
    artifact = make(tmp_path / "a")
    artifact.file("graph.txt").write_text(content)
    with pytest.raises(ArtifactError, match=rf"graph\.txt: {len(content)} bytes where 4 were written; delete"):
        open_artifact(artifact.path)
    assert finished(artifact.path, "f1") is None
    assert make(tmp_path / "a").file("graph.txt").read_text() == "done"


def test_an_artifact_whose_file_leads_out_of_it_is_refused(tmp_path: Path) -> None:
    """Its container may have left a link, or a manifest that names what lies elsewhere."""
    (tmp_path / "secret").write_text("pass")
    linked, named, looped = make(tmp_path / "a"), make(tmp_path / "b"), make(tmp_path / "c")
    looped.file("graph.txt").unlink()
    looped.file("graph.txt").symlink_to("graph.txt")
    linked.file("graph.txt").unlink()
    linked.file("graph.txt").symlink_to(tmp_path / "secret")
    manifest = named.file("manifest.json").read_text()
    named.file("manifest.json").write_text(manifest.replace("graph.txt", "../secret"))
    for artifact in (linked, named, looped):
        assert finished(artifact.path, "f1") is None
        with pytest.raises(ArtifactError, match=r"leads out of its folder; delete"):
            open_artifact(artifact.path)


@pytest.mark.parametrize("manifest", ["", "{", "[]", "{}", "[" * 100_000])
def test_a_damaged_manifest_is_no_artifact(tmp_path: Path, manifest: str) -> None:
    make(tmp_path / "a").file("manifest.json").write_text(manifest)
    with pytest.raises(ArtifactError, match="no finished artifact"):
        open_artifact(tmp_path / "a")


@pytest.mark.parametrize("wrong", [{"files": ["graph.txt"]}, {"files": None}, {"step": ["graph"]}, {"inputs": None}])
def test_a_manifest_whose_entries_are_of_another_kind_is_none(tmp_path: Path, wrong: dict[str, object]) -> None:
    """One of a stranger's, in a folder that is looked through, must not end what has nothing to do with it."""
    path = make(tmp_path / "a").file("manifest.json")
    path.write_text(json.dumps(json.loads(path.read_text()) | wrong))
    assert finished(tmp_path / "a", "f1") is None
    with pytest.raises(ArtifactError, match="no finished artifact"):
        open_artifact(tmp_path / "a")


def test_what_a_failed_attempt_left_is_found_by_the_next_and_by_no_other(tmp_path: Path) -> None:
    def half(folder: Path) -> None:
        (folder / "resume.pt").write_text("epoch 3")
        raise RuntimeError("killed")

    with pytest.raises(RuntimeError):
        make_artifact(tmp_path / "a", "train-ldg", "f1", {}, {}, half)
    assert not (tmp_path / "a").exists()
    seen = []
    make_artifact(
        tmp_path / "b", "train-ldg", "f1", {}, {}, lambda folder: seen.append((folder / "resume.pt").exists())
    )
    make_artifact(
        tmp_path / "a", "train-ldg", "f1", {}, {}, lambda folder: seen.append((folder / "resume.pt").exists())
    )
    assert seen == [False, True]


def test_half_finished_work_of_another_fingerprint_is_not_resumed(tmp_path: Path) -> None:
    def half(folder: Path) -> None:
        (folder / "resume.pt").write_text("epoch 3")
        (folder / "below").mkdir()
        raise RuntimeError("killed")

    with pytest.raises(RuntimeError):
        make_artifact(tmp_path / "a", "train-ldg", "f1", {}, {}, half)
    artifact = make_artifact(tmp_path / "a", "train-ldg", "f2", {}, {}, lambda folder: None)
    assert [p.name for p in artifact.path.iterdir()] == ["manifest.json"]


def test_a_full_disk_is_said_in_one_line_and_leaves_the_old_artifact(tmp_path: Path) -> None:
    make(tmp_path / "a", "f1", "old")

    def full(folder: Path) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder / "images.npy"))

    with pytest.raises(ArtifactError, match=r"images\.npy: No space left on device; free or allow space"):
        make_artifact(tmp_path / "a", "prepare", "f2", {}, {}, full)
    assert open_artifact(tmp_path / "a").file("graph.txt").read_text() == "old"


def test_an_artifact_of_another_step_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="made by `fer graph`, but one made by `fer prepare` is needed"):
        open_artifact(make(tmp_path / "a").path, "prepare")


def test_the_manifest_says_where_it_came_from(tmp_path: Path) -> None:
    first = make(tmp_path / "a")
    second = make_artifact(tmp_path / "b", "train-ldg", "f2", {"seed": 1}, {"graph-0": first}, lambda folder: None)
    manifest = json.loads(second.file("manifest.json").read_text())
    assert manifest["inputs"] == {"graph-0": {"step": "graph", "fingerprint": "f1"}}
    assert manifest["settings"] == {"seed": 1}
    assert manifest["peak_memory_bytes"] > 1e6


def test_a_fingerprint_changes_with_all_that_counts_and_nothing_else() -> None:
    base = fingerprint("graph", 1, {"a": 1, "b": 2}, {"x": "1"}, {})
    assert base == fingerprint("graph", 1, {"b": 2, "a": 1}, {"x": "1"}, {})
    others = [
        fingerprint("graphs", 1, {"a": 1, "b": 2}, {"x": "1"}, {}),
        fingerprint("graph", 2, {"a": 1, "b": 2}, {"x": "1"}, {}),
        fingerprint("graph", 1, {"a": 1, "b": 3}, {"x": "1"}, {}),
        fingerprint("graph", 1, {"a": 1, "b": 2}, {"x": "2"}, {}),
        fingerprint("graph", 1, {"a": 1, "b": 2}, {"x": "1"}, {"outside": "s"}),
        fingerprint("graph", 1, {"a": 1, "b": 2}, {}, {"x": "1"}),
    ]
    assert len({base, *others}) == 7


def test_a_folder_that_no_step_made_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "faces").mkdir()
    (tmp_path / "faces" / "face.jpg").write_text("a face")
    with pytest.raises(ArtifactError, match="holds something that no step made; choose another --out"):
        make(tmp_path / "faces")
    with pytest.raises(ArtifactError, match="is a file"):
        make(tmp_path / "faces" / "face.jpg")
    assert (tmp_path / "faces" / "face.jpg").read_text() == "a face"
    (tmp_path / "empty").mkdir()
    assert make(tmp_path / "empty").file("graph.txt").exists()


def test_two_processes_make_an_artifact_once(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from fer_core.artifacts import make_artifact\n"
        "def work(folder): print('worked', flush=True); time.sleep(1); (folder / 'graph.txt').write_text('done')\n"
        "make_artifact(Path(sys.argv[1]), 'graph', 'f1', {}, {}, work)"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "a")]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    printed = [process.communicate(timeout=30)[0] for process in both]
    assert sorted(printed) == ["", "worked\n"]
    assert [process.returncode for process in both] == [0, 0]
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


def test_what_a_killed_process_held_is_free(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from fer_core.artifacts import make_artifact\n"
        "def work(folder): (folder / 'resume.pt').write_text('epoch 3'); print(1, flush=True); time.sleep(60)\n"
        "make_artifact(Path(sys.argv[1]), 'graph', 'f1', {}, {}, work)"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "a")], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.kill()
    assert make(tmp_path / "a").file("resume.pt").read_text() == "epoch 3"
