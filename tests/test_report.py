"""The report's page: whole by itself, safe with any text, and there for whatever part of a run there is."""

import base64
import dataclasses
import html
import json
import re
import tomllib
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from helpers import report_inputs
from helpers.report_inputs import (
    LABELS,
    Silence,
    au_table,
    dataset,
    elsewhere,
    evaluation,
    experiment,
    figures,
    report_request,
)
from matplotlib.figure import Figure

from fer_core.data.dataset import EMOTIONS, UNLABELLED
from fer_core.errors import ArtifactError
from fer_core.experiment import experiment_from, load_experiment
from fer_core.graph.neighbours import save_teacher
from fer_core.report import face_sheets, step_plots
from fer_core.report.captions import captions
from fer_core.report.evidence import read_evidence
from fer_core.report.page import experiment_toml, render, write_report
from fer_core.report.plots import confusion_matrices
from fer_core.report.results import results
from fer_core.report.style import emotion_colours, face_uri, house_style
from fer_core.steps import Request, request
from openface.columns import INTENSITIES, LANDMARKS, PRESENCES

SECTIONS = (
    "summary",
    "models",
    "curves",
    "confusion",
    "distributions",
    "comparisons",
    "action-units",
    "graph",
    "faces",
    "cards",
    "cost",
    "reproduce",
)
HOSTILE = "<script>alert('$x_1$')</script>"


class Page(HTMLParser):
    """What a page refers to, and what it is made of."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.text = text
        self.ids: list[str] = []
        self.tags: set[str] = set()
        self.references: list[str] = []
        self.alts: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        named = {name: value or "" for name, value in attrs}
        self.tags.add(tag)
        self.ids += [named["id"]] if "id" in named else []
        self.references += [named[key] for key in ("src", "href", "srcset", "data", "action") if key in named]
        self.alts += [named.get("alt", "")] if tag == "img" else []

    def drawings(self) -> list[str]:
        start = "data:image/svg+xml;base64,"
        return [base64.b64decode(r.removeprefix(start)).decode() for r in self.references if r.startswith(start)]


def write(wanted: Request, folder: Path) -> Page:
    folder.mkdir()
    write_report(wanted, folder, Silence())
    return Page((folder / "index.html").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Page:
    folder = tmp_path_factory.mktemp("whole")
    return write(report_request(folder / "in", experiment((1, 2, 3)), dataset()), folder / "out")


def test_the_page_has_every_section(whole: Page) -> None:
    assert [i for i in whole.ids if i in SECTIONS] == list(SECTIONS)


def test_the_page_needs_nothing_but_itself(whole: Page) -> None:
    assert not whole.tags & {"script", "link", "iframe", "object", "base"}
    assert all(reference.startswith(("data:", "#")) for reference in whole.references)
    assert "url(" not in whole.text
    assert "@import" not in whole.text
    for drawing in whole.drawings():
        assert not re.search(r"""(href|src)=["'](?!#)""", drawing)


def test_every_picture_says_what_it_shows(whole: Page) -> None:
    assert len(whole.alts) > 30
    assert all(whole.alts)


def test_drawings_follow_the_readers_light_or_dark(whole: Page) -> None:
    assert len(whole.drawings()) >= 7
    for drawing in whole.drawings():
        assert "prefers-color-scheme" in drawing
        assert "var(--ink)" in drawing
        assert "#010203" not in drawing


def test_the_words_answer_the_questions(whole: Page) -> None:
    text = whole.text.replace("\N{NO-BREAK SPACE}", " ")
    assert "Median test accuracy over 3 seeds, 24 images" in text
    assert "LDG-AUs comes nearer to the crowd votes than LDG" in text or "LDG-AUs stays farther" in text
    assert "With each at its temperature, so that none gains by being less sure" in text
    assert "predict the mean crowd votes of the nearest training images" in text
    assert "where the models have learnt from hard labels" in text
    assert "smoothed at their best" in text
    assert "looks deceptively good" in text
    assert "mind its licence before sharing" in text


@pytest.mark.parametrize(
    ("planned", "there", "accuracy", "doubt"),
    [
        ((1, 2, 3), [("LDG", 1), ("LDG-AUs", 1)], "Test accuracy, one seed, 24 images", "With 1 seed the intervals"),
        ((1, 1, 1), [("LDG", 1), ("LDG-AUs", 1)], "Test accuracy, one seed, 24 images", "With 1 seed the intervals"),
        (
            (1, 2, 3),
            [("LDG", 1), ("LDG", 2), ("LDG", 3), ("LDG-AUs", 1), ("LDG-AUs", 3)],
            "Median test accuracy over 2 to 3 seeds",
            "With 2 seeds the intervals",
        ),
    ],
)
def test_seeds_that_are_not_there_are_not_counted(
    tmp_path: Path, planned: tuple[int, ...], there: list[tuple[str, int]], accuracy: str, doubt: str
) -> None:
    wanted = report_request(tmp_path / "in", experiment(planned), dataset(), there)
    page = write(wanted, tmp_path / "out")
    assert accuracy in page.text
    assert doubt in page.text
    figures = json.loads((tmp_path / "out" / "results.json").read_text(encoding="utf-8"))
    assert figures["seeds"] == sorted(set(planned))
    assert len(figures["missing"]) == 5 * len(set(planned)) - len(there)


def test_hostile_text_is_only_text(tmp_path: Path) -> None:
    data = dataset(labels=(HOSTILE, "b & c", "a_b"))
    page = write(report_request(tmp_path / "in", experiment((1,), title=HOSTILE), data), tmp_path / "out")
    assert "script" not in page.tags
    assert "&lt;script&gt;" in page.text
    assert all("<script" not in drawing for drawing in page.drawings())


def test_a_run_without_truth_and_with_models_missing(tmp_path: Path) -> None:
    there = [("LDG", 1), ("LDG-AUs", 2), ("EF SLL", 1)]
    plan = experiment((1, 2), action_units={"features": "presence"})
    page = write(report_request(tmp_path / "in", plan, dataset(truth=""), there), tmp_path / "out")
    assert [i for i in page.ids if i in SECTIONS] == list(SECTIONS)
    assert "EF + LDG · seed 1" in page.text
    assert "hard labels only" in page.text
    figures = json.loads((tmp_path / "out" / "results.json").read_text(encoding="utf-8"))
    assert len(figures["missing"]) == 7
    assert figures["table"]["rows"]["max"][0] is None


def test_a_run_without_any_model(tmp_path: Path) -> None:
    plan = experiment((1,), action_units={"features": "both"}, graph={"k": 2, "control": "random"})
    page = write(report_request(tmp_path / "in", plan, dataset(), models=()), tmp_path / "out")
    assert "No model was evaluated" in page.text
    assert "control experiment" in page.text

    assert "the best model" not in page.text


def test_a_model_that_errs_nowhere_confuses_nothing(tmp_path: Path) -> None:
    data = dataset(truth="")
    wanted = report_request(tmp_path / "in", experiment((1,)), data, [("LDG", 1), ("EF SLL", 1)])
    evidence = read_evidence(wanted)
    (test,) = [model.figures["selected"]["test"] for model in evidence.models if model.name == "LDG"]
    test["confusion"] = np.diag(np.sum(test["confusion"], axis=1)).tolist()
    said = captions(results(evidence), evidence)["confusion"]
    assert "LDG: none" in said
    assert re.search(r"EF SLL: \d+\s% of (\w+) as (?!\1)", said)


def test_neighbours_without_a_label_agree_with_nobody_and_disagree_with_nobody(tmp_path: Path) -> None:
    data = dataset()
    train = data.rows("train")
    data.manifest.loc[train[train % 4 != 1], ["split", "label"]] = "unlabelled", UNLABELLED
    page = write(report_request(tmp_path / "in", experiment((1,)), data, models=()), tmp_path / "out")
    assert "None of the neighbours in AU space of a labelled image has a label" in page.text
    figures = json.loads((tmp_path / "out" / "results.json").read_text(encoding="utf-8"))
    assert figures["graph"]["label_agreement"]["neighbours"] is None


def test_neighbours_that_agree_are_counted_among_those_with_a_label(tmp_path: Path) -> None:
    data = dataset()
    data.manifest.loc[data.rows("train")[::4], ["split", "label"]] = "unlabelled", UNLABELLED
    page = write(report_request(tmp_path / "in", experiment((1,)), data, models=()), tmp_path / "out")
    assert "% of the labelled neighbours in AU space have the image&#39;s own hard label" in page.text


def test_one_epoch_is_one_place_on_its_axis(tmp_path: Path) -> None:
    data, plan = dataset(), experiment((1,))
    history = figures(data, "LDG", 1, epochs=1)[0]["history"]
    also = {"history": history, "selected_epoch": 1, "epochs": 1}
    page = write(report_request(tmp_path / "in", plan, data, [("LDG", 1)], **also), tmp_path / "out")
    assert not any(">1.025<" in re.sub(r"\s", "", drawing) or ">1.02<" in drawing for drawing in page.drawings())


@pytest.mark.parametrize("labels", ["majority", "distribution"])
def test_what_generators_have_seen_is_told_as_it_is(tmp_path: Path, labels: str) -> None:
    data = dataset()
    data.manifest.loc[data.rows("train")[20:], ["split", "label"]] = "unlabelled", UNLABELLED
    plan = experiment((1,), dataset={"source": "csv", "labels": labels})
    page = write(report_request(tmp_path / "in", plan, data, [("LDG", 1)]), tmp_path / "out")
    assert "20 train, 8 validation, 24 test, 20 unlabelled" in page.text
    assert "on the 20 labelled training images" in page.text
    assert ("with their hard labels" in page.text) == (labels == "majority")
    assert ("which no training has" in page.text) == (labels == "majority")


def test_progress_is_told_to_the_end(tmp_path: Path) -> None:
    silence = Silence()
    wanted = report_request(tmp_path / "in", experiment((1,)), dataset(), models=[("EF SLL", 1)])
    (tmp_path / "out").mkdir()
    write_report(wanted, tmp_path / "out", silence)
    done, total = silence.done[-1]
    assert done == total
    assert len(silence.done) == total


def test_two_evaluations_of_one_model_are_refused(tmp_path: Path) -> None:
    data, plan = dataset(), experiment((1,))
    once = report_request(tmp_path, plan, data, models=[("LDG", 1)])
    twice = request("report", plan, [*once.inputs, evaluation(tmp_path, data, "LDG", 1, mark="-again")])
    with pytest.raises(ArtifactError, match=r"two artifacts of `fer evaluate` for LDG · seed 1"):
        write_report(twice, tmp_path, Silence())


def test_an_evaluation_of_another_dataset_is_refused(tmp_path: Path) -> None:
    data = dataset()
    other = replace(data, manifest=data.manifest.assign(id=[f"other{row}" for row in range(len(data.manifest))]))
    once = report_request(tmp_path, experiment((1,)), data, models=())
    mixed = request("report", experiment((1,)), [*once.inputs, evaluation(tmp_path, other, "LDG", 1)])
    with pytest.raises(ArtifactError, match="its test images are not this dataset's"):
        write_report(mixed, tmp_path, Silence())


@pytest.mark.parametrize("name", ["demo", "paper", "ferplus-cpu", "few-labels"])
def test_the_printed_experiment_reads_back_as_itself(name: str) -> None:
    plan = load_experiment(name)
    assert experiment_from(tomllib.loads(experiment_toml(plan)), "printed") == plan


def test_a_table_of_labels_is_printed_as_toml_reads_it() -> None:
    plan = experiment(
        (1,), dataset={"source": "csv", "classes": {"smile": "happiness", "0": "fear", "no face": "drop"}}
    )
    assert experiment_from(tomllib.loads(experiment_toml(plan)), "printed") == plan


def test_what_the_labels_were_taken_for_and_what_was_unreadable_is_on_the_page(tmp_path: Path) -> None:
    data = dataset()
    card = replace(data.card, notes=("classes: neutral 9 (0)",), unreadable={"a/<b>": "a/<b>.png: no such file"})
    wanted = report_request(tmp_path, experiment((1,)), replace(data, card=card))
    folder = tmp_path / "page"
    folder.mkdir()
    write_report(wanted, folder, Silence())
    page = (folder / "index.html").read_text()
    assert "classes: neutral 9 (0)" in page
    assert "1 of 72 images: a/&lt;b&gt;." in page
    assert json.loads((folder / "results.json").read_text())["dataset"]["unreadable"] == card.unreadable


def test_of_a_thousand_unreadable_images_a_report_names_some(tmp_path: Path) -> None:
    data = dataset()
    counts, names = {**data.card.counts, "read": 100_000}, {f"broken{n}.jpg": "cut off" for n in range(1000)}
    data = replace(data, card=replace(data.card, unreadable=names, counts=counts))
    page = write(report_request(tmp_path / "in", experiment((1,)), data, models=()), tmp_path / "out")
    told = html.unescape(page.text).replace("\N{NARROW NO-BREAK SPACE}", " ")
    assert "1 000 of 100 000 images: broken0.jpg, broken1.jpg" in told
    assert "broken9.jpg and 990 more, all named in results.json." in told
    assert "broken999.jpg" in (tmp_path / "out" / "results.json").read_text(encoding="utf-8")


def test_images_that_are_left_out_of_a_published_split_are_counted(tmp_path: Path) -> None:
    """The paper's table stands beside figures of RAF-DB, whose protocol speaks of the official parts."""
    data = dataset(source="rafdb")
    for name, counts, said in (
        (
            "dropped",
            {"duplicates dropped": 3, "beyond the limit": 40},
            "Left out: 3 copies of earlier images, pixel by",
        ),
        ("kept", {"duplicates kept": 3, "beyond the limit": 0}, "Kept: 3 copies of earlier images, pixel by pixel."),
    ):
        card = replace(data.card, counts=data.card.counts | counts)
        wanted = report_request(tmp_path / name, experiment((1,)), replace(data, card=card), models=())
        page = write(wanted, tmp_path / f"page-{name}")
        assert said in page.text
        assert ("40 beyond the limit" in page.text) == (name == "dropped")
        assert ("Left out:" in page.text) == (name == "dropped")


def test_the_linear_model_that_labels_the_others_stands_beside_the_models(tmp_path: Path) -> None:
    data = dataset()
    wanted = report_request(tmp_path / "in", experiment((1,)), data)
    save_teacher(wanted.input("graph").path, np.eye(len(data.card.labels), dtype=np.float32)[data.labels()])
    page = write(wanted, tmp_path / "out")
    assert "linear model of the AUs</th>" in page.text
    assert f"on the {len(data.rows('test'))} of {len(data.rows('test'))} test images with usable AUs" in page.text
    assert "<td>100.00</td>" in page.text


def test_a_control_is_said_to_deal_the_linear_models_labels_out_at_random(tmp_path: Path) -> None:
    data, plan = dataset(), experiment((1,), graph={"k": 2, "control": "random", "teacher": "linear"})
    wanted = report_request(tmp_path / "in", plan, data, models=())
    save_teacher(wanted.input("graph").path, np.eye(len(data.card.labels), dtype=np.float32)[data.labels()])
    page = write(wanted, tmp_path / "out")
    assert "each image that has no label is given what the linear model says of another" in page.text
    assert "dealt out at random" in page.text


def test_known_emotions_keep_their_colours_and_others_get_what_is_left() -> None:
    colours = emotion_colours((*LABELS, "boredom", "awe"))
    assert colours["happiness"] == emotion_colours(("happiness",))["happiness"]
    assert len(set(colours.values())) == 5


def test_a_steps_picture_shows_what_its_table_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[Figure] = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, *_, **__: drawn.append(figure))
    table = au_table(dataset())
    for empty in (PRESENCES, INTENSITIES):
        step_plots.save_au_figure(tmp_path, table.assign(**dict.fromkeys(empty, np.nan)))
    intensities, presences = drawn
    assert intensities.axes[0].get_title() == "AU01 inner brow raiser"
    assert presences.axes[0].get_yticklabels()[0].get_text() == "AU01 inner brow raiser"


def test_a_report_over_landmarks_of_a_table_without_intensities_draws_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = au_table(dataset()).assign(**dict.fromkeys(INTENSITIES, np.nan))
    points = np.random.default_rng(0).random((len(table), len(LANDMARKS)), np.float32)
    with_landmarks = pd.concat([table, pd.DataFrame(points, columns=list(LANDMARKS))], axis=1)
    monkeypatch.setattr(report_inputs, "au_table", lambda data: with_landmarks)
    plan = experiment((1,), action_units={"features": "landmarks"})
    page = write(report_request(tmp_path / "in", plan, dataset(), models=()), tmp_path / "out")
    assert not any("action-unit intensities" in alt or "each action unit" in alt for alt in page.alts)


def test_thirty_classes_have_thirty_colours() -> None:
    assert len(set(emotion_colours((*LABELS, *(f"state {n}" for n in range(27)))).values())) == 30


def test_lists_of_many_seeds_take_lines_instead_of_columns_their_room(whole: Page) -> None:
    assert '<td class="list">1, 2, 3</td>' in whole.text
    assert re.search(r"td\.list \{ white-space: normal", whole.text)


def test_a_segment_of_a_bar_is_no_wider_than_its_share(whole: Page) -> None:
    rule = re.search(r"\.bar span \{([^}]*)\}", whole.text)
    assert rule is not None
    assert "padding" not in rule[1]


def relative_luminance(colour: str) -> float:
    """As WCAG 2.2 defines it."""
    channels = np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    return float(linear @ (0.2126, 0.7152, 0.0722))


@pytest.mark.parametrize("label", EMOTIONS)
def test_names_in_segments_stand_out_from_their_colour(label: str) -> None:
    segment = face_sheets._segment(label, 0.9, emotion_colours((label,))[label])
    dark, light = sorted(map(relative_luminance, (segment.colour, segment.text_colour)))
    assert (light + 0.05) / (dark + 0.05) >= 4.5


def test_a_share_that_has_no_room_in_its_segment_does_not_read_as_a_smaller_one(whole: Page) -> None:
    rule = re.search(r"\.bar span \{([^}]*)\}", whole.text)
    assert rule is not None
    assert "text-overflow: ellipsis" in rule[1]


def test_numbers_of_a_confusion_matrix_have_room_however_many_classes_and_however_long_their_names(
    tmp_path: Path,
) -> None:
    labels = tuple(f"a state of mind that takes many words, number {n}" for n in range(24))
    evidence = read_evidence(report_request(tmp_path, experiment((1,)), dataset(labels=labels)))
    with house_style():
        drawing = base64.b64decode(confusion_matrices(evidence).uri.split(",")[1]).decode()
    cells = re.search(r'id="QuadMesh_1".*?</g>', drawing, re.DOTALL)
    assert cells is not None
    across = [float(x) for x in re.findall(r"[ML] ([\d.]+) ", cells[0])]
    assert (max(across) - min(across)) / len(labels) > 20


@pytest.mark.parametrize("channels", [1, 3])
def test_faces_are_jpegs(channels: int) -> None:
    uri = face_uri(np.zeros((300, 300, channels), np.uint8))
    assert uri.startswith("data:image/jpeg;base64,")
    assert base64.b64decode(uri.split(",")[1])[:2] == b"\xff\xd8"


def test_model_cards_are_pages_of_the_report(tmp_path: Path) -> None:
    wanted = report_request(tmp_path / "in", experiment((1,)), dataset())
    fetched = "![x](http://elsewhere.test/beacon.png) [y](http://elsewhere.test) <http://elsewhere.test>"
    card = f"# LDG · seed 1\n\n## Data\n\n{HOSTILE} {fetched}\n\n| recall | % |\n| --- | --- |\n| fear | 41.0 |\n"
    evidence = replace(read_evidence(wanted), model_cards=(card,))
    table = pd.read_parquet(wanted.input("annotate").file("aus.parquet"))
    page = Page(render(evidence, results(evidence), table, Silence()))
    assert "<summary>LDG · seed 1</summary>" in page.text
    assert "<td>41.0</td>" in page.text
    assert "script" not in page.tags
    assert not [reference for reference in page.references if "elsewhere.test" in reference]
    assert "Content-Security-Policy" in page.text
    assert "No checkpoint was given" not in page.text


def test_calibration_is_told_before_and_after(whole: Page) -> None:
    assert re.search(r"LDG [\d.]+\s%, [\d.]+\s% at its temperature", whole.text)
    assert "T = 1.50, 1.50, 1.50" in whole.text
    assert sum("at its temperature" in drawing for drawing in whole.drawings()) == 1


def test_a_report_tells_of_a_checkpoint_on_other_data_in_a_section_of_its_own(tmp_path: Path) -> None:
    data = dataset()
    judged = elsewhere(tmp_path / "in", data, "EF SLL", 1)
    wanted = report_request(tmp_path / "in", experiment((1,)), data, [("EF SLL", 1), ("LDG", 1)], more=[judged])
    page = write(wanted, tmp_path / "out")
    text = page.text
    assert [i for i in page.ids if i in (*SECTIONS, "other-data")] == [*SECTIONS[:6], "other-data", *SECTIONS[6:]]
    assert '<span class="number">7</span> On other data' in text
    assert '<span class="number">13</span> How to reproduce' in text
    for said in (
        "3 classes are judged, of 4 of the checkpoint and 5 of the dataset; 24 of 40 test images",
        "classes left out of the checkpoint: fear",
        "classes left out of the dataset: boredom (7 images), envy (2 images)",
        "5 test images left out: in the checkpoint&#39;s train",
        "stored in grey",
    ):
        assert said in text
    found = json.loads((tmp_path / "out/results.json").read_text())
    assert found["on_other_data"][0]["judged_on"]["images"]["judged"] == 24
    assert [(m["name"], m["seed"]) for m in found["models"]] == [("EF SLL", 1), ("LDG", 1)]


def test_a_report_without_other_data_has_no_such_section(whole: Page) -> None:
    assert "other-data" not in whole.ids


def test_the_clip_is_said_beside_every_table_and_picture_of_the_measures(whole: Page) -> None:
    assert whole.text.count("KL, Clark and Canberra are taken after raising every value below 1e-6 to 1e-6") == 4
    assert whole.text.count('<span class="small">unclipped</span>') == 2


def test_it_is_said_that_the_test_images_are_judged_more_than_once(whole: Page) -> None:
    assert "The test images are judged more than once" in whole.text


def test_a_report_says_which_models_started_from_scratch_and_how_they_would_not(tmp_path: Path) -> None:
    recipe = {"pretrained_on": "MS-Celeb-1M", "weights": ""}
    names = [("LDG", 1), ("EF SLL", 1)]
    text = write(
        report_request(tmp_path / "in", experiment((1,)), dataset(), names, recipe=recipe), tmp_path / "out"
    ).text.replace("\N{NO-BREAK SPACE}", " ")
    assert "Started from scratch: EF SLL and LDG." in text
    assert "--set sll.weights=FILE --set ldg.weights=FILE" in text


def test_a_report_says_what_stands_for_action_units_where_the_vectors_are_ones_own(tmp_path: Path) -> None:
    ids = dataset().manifest["id"]
    vectors = pd.DataFrame({"id": ids, "valence": np.linspace(-1, 1, len(ids)), "arousal": np.linspace(1, 0, len(ids))})
    vectors.to_csv(tmp_path / "valence and arousal.csv", index=False)
    own = dataclasses.replace(experiment((1,)).action_units, vectors=str(tmp_path / "valence and arousal.csv"))
    asked_for = dataclasses.replace(experiment((1,)), action_units=own)
    text = write(report_request(tmp_path / "in", asked_for, dataset(), [("LDG", 1)]), tmp_path / "out").text
    said = html.unescape(text).replace("\N{NO-BREAK SPACE}", " ")
    assert "Vectors of valence and arousal.csv stand in for action units here" in said


def test_a_report_says_which_trainings_had_half_the_batch(tmp_path: Path) -> None:
    asked_for = experiment((1,))
    recipe = {"batch": asked_for.ldg.batch // 2, "learning_rate": asked_for.ldg.learning_rate / 2}
    text = write(
        report_request(tmp_path / "in", asked_for, dataset(), [("LDG", 1)], recipe=recipe), tmp_path / "out"
    ).text.replace("\N{NO-BREAK SPACE}", " ")
    text = html.unescape(text)
    told = f"LDG · seed 1 (batch {recipe['batch']} instead of {asked_for.ldg.batch} and learning_rate "
    assert f"Trained with other settings than this experiment's: {told}" in text
    assert "A training that runs out of memory is tried again with half the batch" in text


def test_a_temperature_of_one_is_told_as_changing_nothing(tmp_path: Path) -> None:
    names = [("LDG", 1)]
    wanted = report_request(tmp_path / "in", experiment((1,)), dataset(), names, temperature=1.0)
    page = write(wanted, tmp_path / "out")
    assert "at a temperature of 1, which changes nothing" in page.text
    assert not any("at its temperature" in drawing for drawing in page.drawings())


def test_a_temperature_that_makes_calibration_worse_is_told_so(whole: Page, tmp_path: Path) -> None:
    wanted = report_request(tmp_path / "in", experiment((1,)), dataset(), [("LDG", 1)], temperature=4.0)
    page = write(wanted, tmp_path / "out")
    (model,) = json.loads((tmp_path / "out/results.json").read_text())["models_over_seeds"]
    worse = model["calibration_error_at_temperature"] > model["calibration_error"]
    assert ("at its temperature, which is worse" in page.text) == worse
    assert worse


def test_a_report_says_what_its_models_were_trained_on(whole: Page) -> None:
    assert "on CPU, AVX2" in whole.text


def test_a_report_counts_the_images_without_a_label_too(tmp_path: Path) -> None:
    data = dataset()
    hidden = data.rows("train")[:30]
    data.manifest.loc[data.manifest.index[hidden], ["split", "label"]] = "unlabelled", UNLABELLED
    page = write(report_request(tmp_path / "in", experiment((1,)), data), tmp_path / "out")
    told = [f"{len(data.rows(split))} {split}" for split in ("train", "validation", "test", "unlabelled")]
    assert ", ".join(told) in page.text


def test_results_csv_has_a_row_for_every_trained_model(tmp_path: Path) -> None:
    write(report_request(tmp_path / "in", experiment((1, 2)), dataset()), tmp_path / "out")
    table = pd.read_csv(tmp_path / "out/results.csv")
    assert len(table) == 10
    assert table["accuracy"].between(table["accuracy_low"], table["accuracy_high"]).all()
