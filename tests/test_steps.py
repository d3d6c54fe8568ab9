"""What a step's fingerprint changes with, and what it does not."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from fer_core.artifacts import Artifact, make_artifact
from fer_core.contents import look
from fer_core.errors import ArtifactError, DatasetError
from fer_core.experiment import load_experiment
from fer_core.steps import STEPS, Request, aus_beside, request, with_openface_build
from flows.study import open_study

Wanted = Callable[..., Request]


def made(folder: Path, step: str, mark: str, *inputs: Artifact) -> Artifact:
    roles = {f"{artifact.step}-0": artifact for artifact in inputs}
    return make_artifact(folder / f"{step}-{mark}", step, mark, {}, roles, lambda out: None)


@pytest.fixture
def wanted(tmp_path: Path) -> Wanted:
    """A request of a step on made-up inputs, by the demo and what is set."""

    def of(step: str, *settings: str, mark: str = "1", more: tuple[str, ...] = (), seed: int | None = 1) -> Request:
        names = [need.split("|")[0] for need in STEPS[step].needs] + list(more)
        inputs = [made(tmp_path, name, mark) for name in names]
        return request(step, load_experiment("demo", settings), inputs, seed)

    return of


def test_images_beside_drawn_faces_are_refused(tmp_path: Path) -> None:
    told = f"^{tmp_path}: would not be read, since dataset.source = 'sample' draws faces"
    with pytest.raises(DatasetError, match=told):
        request("prepare", load_experiment("demo"), outside=tmp_path)
    with pytest.raises(DatasetError, match=told):
        open_study("demo", str(tmp_path), None, None, [], str(tmp_path / "artifacts"))


def test_lambda_counts_for_ldg_aus_and_not_for_the_ldg(wanted: Wanted) -> None:
    ldg = [wanted("train-ldg", f"ldg.lambda={value}").fingerprint() for value in (0.1, 0.2)]
    aus = [wanted("train-ldg", f"ldg.lambda={value}", more=("graph",)).fingerprint() for value in (0.1, 0.2)]
    assert ldg[0] == ldg[1]
    assert aus[0] != aus[1]


@pytest.mark.parametrize(
    ("step", "setting"),
    [
        ("prepare", "dataset.count=99"),
        ("graph", "graph.k=9"),
        ("graph", "action_units.features=both"),
        ("train-ldg", "ldg.epochs=99"),
        ("train-ldg", "augment.flip=0.1"),
        ("distill", "sll.epochs=99"),
        ("soft-labels", "soft_labels.views=2"),
        ("evaluate", "evaluation.bootstrap=9"),
    ],
)
def test_a_steps_own_settings_count_and_others_do_not(wanted: Wanted, step: str, setting: str) -> None:
    plain = wanted(step).fingerprint()
    assert wanted(step, setting).fingerprint() != plain
    assert wanted(step, "run.jobs=7", "run.device=cpu", "title=other").fingerprint() == plain


def test_how_images_are_varied_counts_for_soft_labels_of_drawn_views_alone(wanted: Wanted) -> None:
    for views, counts in ((1, False), ('"mirrored"', False), ('"online"', False), (3, True)):
        chosen = f"soft_labels.views={views}"
        marks = {wanted("soft-labels", chosen, f"augment.flip={flip}").fingerprint() for flip in (0.1, 0.5)}
        assert (len(marks) == 2) is counts


def test_soft_labels_of_the_plain_image_are_settled_by_what_settled_them_before(wanted: Wanted) -> None:
    assert wanted("soft-labels", seed=None).settings() == {"soft_labels": {"views": 1}}


def test_graphs_of_one_kind_of_features_are_settled_by_what_settled_them_before(wanted: Wanted) -> None:
    """Two kinds share a distance in another way than before."""
    for features, shared in (("intensity", False), ("landmarks", False), ("both", True), ("intensity+landmarks", True)):
        for standardised in ("true", "false"):
            chosen = (f"action_units.features={features}", f"action_units.standardise={standardised}")
            settings = wanted("graph", *chosen, seed=None).settings()
            assert ("weighed" in settings) is (shared and standardised == "true")


def test_seed_and_inputs_count(wanted: Wanted) -> None:
    marks = {wanted("train-ldg", seed=seed, mark=mark).fingerprint() for seed in (1, 2) for mark in ("1", "2")}
    assert len(marks) == 4


def test_inputs_count_in_whatever_order_they_are_named(tmp_path: Path) -> None:
    inputs = [made(tmp_path, "prepare", "1"), made(tmp_path, "annotate", "2")]
    demo = load_experiment("demo")
    assert len({request("graph", demo, order).fingerprint() for order in (inputs, inputs[::-1])}) == 1


def test_weights_count_by_what_the_file_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wanted: Wanted) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    marks = []
    for content in ("old", "newer"):
        (tmp_path / "ldg.pth").write_text(content)
        marks.append(wanted("train-ldg", "ldg.weights=~/ldg.pth").fingerprint())
    assert marks[0] != marks[1]


def test_weights_count_wherever_they_lie_and_whatever_they_are_called(tmp_path: Path, wanted: Wanted) -> None:
    for name in ("ldg.pth", "elsewhere/other.pth"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("weights")
    for step in ("train-ldg", "report"):
        marks = {
            wanted(step, f"ldg.weights={tmp_path / name}").fingerprint() for name in ("ldg.pth", "elsewhere/other.pth")
        }
        assert len(marks) == 1
        assert wanted(step).fingerprint() not in marks


@pytest.mark.parametrize("source", ["folder", "csv"])
def test_an_experiment_or_action_units_beside_the_images_are_none_of_them(tmp_path: Path, source: str) -> None:
    """In containers it lies in the dataset's folder, and with another λ only what follows is to be made anew."""
    (tmp_path / "happy").mkdir()
    (tmp_path / "happy" / "1.png").write_text("1")
    (tmp_path / "labels.csv").write_text("path,label\nhappy/1.png,happy\n")
    experiment = load_experiment("demo", [f"dataset.source={source}"])
    before = request("prepare", experiment, outside=tmp_path)
    (tmp_path / "my.toml").write_text("[ldg]\nlambda = 0.1\n")
    (tmp_path / "openface_aus.parquet").write_text("action units, which `fer run` takes from there")
    assert before.seen_again().fingerprint() == before.fingerprint()
    assert request("prepare", experiment, outside=tmp_path).fingerprint() == before.fingerprint()
    (tmp_path / "happy" / "2.png").write_text("2")
    assert request("prepare", experiment, outside=tmp_path).fingerprint() != before.fingerprint()


def test_a_copied_list_of_images_is_the_same_and_an_absolute_path_in_it_stays(tmp_path: Path) -> None:
    (tmp_path / "shared.png").write_text("shared")
    experiment = load_experiment("demo", ["dataset.source=csv"])
    marks = set()
    for place in ("here", "there"):
        (tmp_path / place).mkdir()
        (tmp_path / place / "face.png").write_text("1")
        rows = f"path,label\nface.png,happy\n../shared.png,sad\n{tmp_path / 'shared.png'},sad\n"
        (tmp_path / place / "labels.csv").write_text(rows)
        marks.add(request("prepare", experiment, outside=tmp_path / place / "labels.csv").fingerprint())
    assert len(marks) == 1
    (tmp_path / "shared.png").write_text("changed")
    assert request("prepare", experiment, outside=tmp_path / "here" / "labels.csv").fingerprint() not in marks


def test_a_list_of_images_changes_with_the_images(tmp_path: Path) -> None:
    (tmp_path / "face.png").write_text("1")
    (tmp_path / "labels.csv").write_text("path,label\nface.png,happy\n")
    experiment = load_experiment("demo", ["dataset.source=csv"])

    def mark() -> str:
        return request("prepare", experiment, outside=tmp_path / "labels.csv").fingerprint()

    first = mark()
    assert mark() == first
    (tmp_path / "face.png").write_text("12")
    assert mark() != first


@pytest.mark.parametrize("given", ["lists", "lists/labels.csv"])
@pytest.mark.parametrize("listed", ["../faces/1.png", "..\\faces\\1.png", "{}/faces/1.png", "file/../../faces/1.png"])
def test_a_folder_of_lists_changes_with_the_images_that_these_name_elsewhere(
    tmp_path: Path, given: str, listed: str
) -> None:
    (tmp_path / "faces").mkdir()
    (tmp_path / "lists" / "file").mkdir(parents=True)
    (tmp_path / "faces" / "1.png").write_text("1")
    (tmp_path / "lists" / "labels.csv").write_text(f"path,label\n{listed.format(tmp_path)},happy\n")
    experiment = load_experiment("demo", ["dataset.source=csv"])
    before = request("prepare", experiment, outside=tmp_path / given)
    assert before.seen_again().fingerprint() == before.fingerprint()
    (tmp_path / "faces" / "1.png").write_text("12")
    assert request("prepare", experiment, outside=tmp_path / given).fingerprint() != before.fingerprint()
    assert before.seen_again().fingerprint() != before.fingerprint()


def test_a_hidden_image_that_a_list_names_counts(tmp_path: Path) -> None:
    (tmp_path / ".faces").mkdir()
    (tmp_path / ".faces" / "1.png").write_text("1")
    (tmp_path / "labels.csv").write_text("path,label\n.faces/1.png,happy\n")
    experiment = load_experiment("demo", ["dataset.source=csv"])
    before = request("prepare", experiment, outside=tmp_path).fingerprint()
    (tmp_path / ".faces" / "1.png").write_text("12")
    assert request("prepare", experiment, outside=tmp_path).fingerprint() != before


def test_what_a_list_names_in_its_folder_counts_once(tmp_path: Path) -> None:
    (tmp_path / "1.png").write_text("1")
    (tmp_path / "labels.csv").write_text(f"path,label\n{tmp_path}/1.png,happy\n./a/../1.png,sad\n")
    experiment = load_experiment("demo", ["dataset.source=csv"])
    wanted = request("prepare", experiment, outside=tmp_path)
    assert wanted.seen is not None
    assert wanted.seen.content == look(tmp_path).content


def test_any_spelling_of_a_list_changes_with_the_images(tmp_path: Path) -> None:
    name = os.fsdecode(b"ni\xf1o.png")
    (tmp_path / "faces").mkdir()
    (tmp_path / "faces" / name).write_text("1")
    (tmp_path / "my.csv").write_bytes(b"Image;Emotion\nfaces\\ni\xf1o.png;happy\n")
    experiment = load_experiment("demo", ["dataset.source=csv"])

    def mark() -> str:
        return request("prepare", experiment, outside=tmp_path / "my.csv").fingerprint()

    first = mark()
    assert mark() == first
    (tmp_path / "faces" / name).write_text("12")
    second = mark()
    assert second != first
    (tmp_path / "my.csv").write_text("no list at all")
    assert mark() != second


def test_what_the_labels_mean_counts_in_whatever_order_it_is_said() -> None:
    settings = [
        ["dataset.classes.smile=happiness", "dataset.classes.0=fear"],
        ["dataset.classes.0=fear", 'dataset.classes.smile="happiness"'],
        ["dataset.classes.0=fear"],
    ]
    marks = [request("prepare", load_experiment("demo", chosen)).fingerprint() for chosen in settings]
    assert marks[0] == marks[1]
    assert len(set(marks)) == 2


def test_an_input_too_many_or_too_few_is_refused(tmp_path: Path) -> None:
    demo = load_experiment("demo")
    with pytest.raises(ArtifactError, match="needs one --in from `fer prepare`, and got 0"):
        request("soft-labels", demo, [made(tmp_path, "train-ldg", "1")])
    both = [made(tmp_path, "prepare", "1"), made(tmp_path, "train-ldg", "1"), made(tmp_path, "distill", "1")]
    with pytest.raises(ArtifactError, match="`fer train-ldg` or `fer distill`, and got 2"):
        request("evaluate", demo, both)


def test_an_au_table_beside_the_images_is_found(tmp_path: Path) -> None:
    assert aus_beside(None) is None
    assert aus_beside(tmp_path) is None
    (tmp_path / "openface_aus.parquet").write_bytes(b"")
    assert aus_beside(tmp_path) == tmp_path / "openface_aus.parquet"


@pytest.mark.parametrize(
    ("step", "made_by"),
    [("train-ldg", "graph"), ("distill", "soft-labels"), ("graph", "annotate")],
)
def test_inputs_of_another_split_are_refused(tmp_path: Path, step: str, made_by: str) -> None:
    """Their neighbours or labels would be of test images."""
    dataset, other = made(tmp_path, "prepare", "1"), made(tmp_path, "prepare", "2")
    fitting, foreign = made(tmp_path, made_by, "1", dataset), made(tmp_path, made_by, "2", other)
    experiment = load_experiment("demo")
    assert request(step, experiment, [dataset, fitting], 1).has(made_by)
    with pytest.raises(ArtifactError, match=rf"{made_by}-2: made from another artifact of `fer prepare`"):
        request(step, experiment, [dataset, foreign], 1)


def test_a_checkpoint_may_be_judged_on_any_dataset_and_a_report_may_tell_of_it(tmp_path: Path) -> None:
    dataset, other = made(tmp_path, "prepare", "1"), made(tmp_path, "prepare", "2")
    checkpoint = made(tmp_path, "distill", "1", dataset)
    experiment = load_experiment("demo")
    assert request("evaluate", experiment, [other, checkpoint]).has("distill")
    units = made(tmp_path, "annotate", "1", dataset)
    graph = made(tmp_path, "graph", "1", dataset, units)
    elsewhere = made(tmp_path, "evaluate", "1", other, checkpoint)
    request("report", experiment, [dataset, units, graph, checkpoint, elsewhere])
    stranger = made(tmp_path, "distill", "2", other)
    with pytest.raises(ArtifactError, match=r"distill-2: made from another artifact of `fer prepare`"):
        request("report", experiment, [dataset, units, graph, stranger])


def test_a_report_is_of_one_graph(tmp_path: Path) -> None:
    dataset = made(tmp_path, "prepare", "1")
    units = made(tmp_path, "annotate", "1", dataset)
    graphs = [made(tmp_path, "graph", mark, dataset, units) for mark in ("1", "2")]
    models = [made(tmp_path, "train-ldg", mark, dataset, graph) for mark, graph in zip("12", graphs, strict=True)]
    ldg = made(tmp_path, "train-ldg", "3", dataset)
    request("report", load_experiment("demo"), [dataset, units, graphs[0], models[0], ldg])
    with pytest.raises(ArtifactError, match=r"train-ldg-2: made from another artifact of `fer graph`"):
        request("report", load_experiment("demo"), [dataset, units, graphs[0], models[1]])


@pytest.fixture
def annotated(tmp_path: Path) -> Callable[..., Request]:
    """A request to annotate with a program of this machine, as the command line and the flow make it."""
    dataset = made(tmp_path, "prepare", "1")
    program = tmp_path / "FaceLandmarkImg"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)

    def of(found_in: Path | None = None, outside: Path | None = None) -> Request:
        experiment = load_experiment("demo", [f"openface.binary={program}"])
        wanted = request("annotate", experiment, [dataset], outside=outside)
        return with_openface_build(wanted, [] if found_in is None else found_in.glob("*"))

    return of


def test_another_build_of_openface_under_the_same_name_is_another_program(
    annotated: Callable[..., Request], tmp_path: Path
) -> None:
    first = annotated().fingerprint()
    assert annotated().fingerprint() == first
    (tmp_path / "FaceLandmarkImg").write_text("#!/bin/sh\n# built again\n")
    assert annotated().fingerprint() != first
    assert annotated().settings()["openface"]["binary"] == "FaceLandmarkImg"  # Not where it lies.
    rows = tmp_path / "rows.csv"
    rows.write_text("what OpenFace wrote before")
    assert annotated(outside=rows).settings() == {"reading": 7}


def test_what_is_annotated_is_found_where_openface_is_no_more(
    annotated: Callable[..., Request], tmp_path: Path
) -> None:
    artifacts = tmp_path / "artifacts"
    for content in ("first", "second"):
        (tmp_path / "FaceLandmarkImg").write_text(f"#!/bin/sh\n# {content}\n")
        wanted = annotated()
        inputs = {"prepare-0": wanted.input("prepare")}
        out = artifacts / wanted.fingerprint()
        make_artifact(out, "annotate", wanted.fingerprint(), wanted.settings(), inputs, lambda folder: None)
        if content == "first":
            manifest = out / "manifest.json"
            made = json.loads(manifest.read_text()) | {"made": "2020-01-01T00:00:00+0100"}
            manifest.write_text(json.dumps(made))
    (tmp_path / "FaceLandmarkImg").unlink()
    assert annotated(artifacts).fingerprint() == wanted.fingerprint()
    assert annotated(tmp_path / "nothing").settings()["openface"]["build"] == ""


@pytest.mark.parametrize("key", ["ldg.weights", "sll.weights", "distill.weights", "action_units.vectors"])
def test_a_step_is_given_the_files_that_its_fingerprint_holds(tmp_path: Path, key: str) -> None:
    """One that it is not given, it could not read in its container, and would name its artifact otherwise."""
    file = tmp_path / "file of mine"
    file.touch()
    study = open_study("demo", None, None, None, [f'{key}="{file}"'], str(tmp_path))
    for step, more in (
        ("graph", ()),
        ("train-ldg", ()),
        ("train-ldg", ("graph",)),
        ("soft-labels", ()),
        ("distill", ()),
        ("distill", ("soft-labels",)),
        ("evaluate", ()),
        ("report", ()),
    ):
        names = [need.split("|")[0] for need in STEPS[step].needs] + list(more)
        inputs = [made(tmp_path, name, f"{step}-{len(more)}") for name in names]
        marks = []
        for content in (b"one", b"another"):
            file.write_bytes(content)
            wanted = study.request(step, inputs, 1 if STEPS[step].seeded else None)
            marks.append(wanted.fingerprint())
        assert (file in study.command(wanted).reads) == (marks[0] != marks[1]), (step, more)
