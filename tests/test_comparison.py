"""A comparison: its cells, the walk from images to figures, what its report says, and the flow that trains it."""

import html
import json
import os
import shlex
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from helpers.prefect_home import with_database
from helpers.report_inputs import Silence, au_table, dataset, figures, write_dataset
from matplotlib.figure import Figure

from fer_core.artifacts import Artifact, make_artifact
from fer_core.comparison import Cell, cells, judge
from fer_core.errors import ArtifactError, ExperimentError
from fer_core.evaluation.seeds_and_images import interval, mean_over_seeds, means_of_resampled_images
from fer_core.experiment import Experiment, experiment_from, to_document
from fer_core.report import comparison_plots
from fer_core.report.comparison import (
    _first_place,
    differences_table,
    means_table,
    networks_table,
    read_findings,
    results,
    worth_table,
)
from fer_core.report.comparison_page import write_comparison
from fer_core.report.face_sheets import helped_and_hurt
from fer_core.steps import request
from flows.granted import ARTIFACTS
from flows.study import open_study

TINY = str(Path(__file__).parent / "tiny_comparison.toml")
FER = Path(sys.executable).parent / "fer"
SKILL = {"alone": 0.3, "neighbours": 0.8}
WAYS: dict[str, Any] = {"alone": {}, "neighbours": {"generator": "LDG-AUs", "settings": ["ldg.lambda=0.5"]}}
STAGES: list[dict[str, Any]] = [
    {
        "title": "few",
        "axis": "labels",
        "at": 10,
        "ways": ["alone", "neighbours"],
        "students": ["neighbours"],
        "settings": ["ldg.epochs=3"],
        "by_seed": ["graph.seed"],
        "settings_of": {"alone": ["ldg.epochs=7"]},
    },
    {"title": "all", "axis": "labels", "at": 100, "ways": ["alone"], "first_seeds": 1},
]


def compared(*stages: dict[str, Any], ways: dict[str, Any] | None = None, **keys: Any) -> Experiment:
    comparison = {"ways": ways or WAYS, "stages": list(stages) or STAGES, "baseline": "alone"}
    comparison |= {"pairs": [["neighbours", "alone"]]} | keys
    return experiment_from(
        {
            "title": "Two ways",
            "seeds": [1, 2, 3],
            "dataset": {"source": "csv"},
            "evaluation": {"bootstrap": 200},
            "comparison": comparison,
        },
        "test",
    )


class Invented:
    """Makes a cell's artifacts under their true names, with figures as good as the way's skill."""

    def __init__(self, folder: Path, experiment: Experiment, cell: Cell, source: str = "csv") -> None:
        self.folder, self.cell = folder, cell
        self.experiment = experiment_from(to_document(experiment), "test", cell.settings)
        self.data = dataset(source=source)

    def __call__(self, step: str, *inputs: Artifact, seed: int | None = None) -> Artifact:
        wanted = request(step, self.experiment, inputs, seed)
        given = {f"{a.step}-{number}": a for number, a in enumerate(wanted.inputs)}
        name = wanted.fingerprint()
        return make_artifact(self.folder / step / name, step, name, wanted.settings(), given, self.write)

    def write(self, out: Path) -> None:
        if out.parent.name == "prepare":
            write_dataset(out, self.data)
        elif out.parent.name == "annotate":
            au_table(self.data).to_parquet(out / "aus.parquet")
        elif out.parent.name == "evaluate":
            metrics, predictions = figures(self.data, "LDG", self.cell.seed, skill=SKILL[self.cell.way])
            (out / "metrics.json").write_text(json.dumps(metrics), encoding="utf-8")
            predictions.to_parquet(out / "predictions.parquet", index=False)
        else:
            (out / "weights").write_text("", encoding="utf-8")


def made(folder: Path, experiment: Experiment, without: str = "nothing") -> list[Artifact]:
    found: list[Artifact] = []
    for cell in cells(experiment):
        if without not in str(cell):
            judged = judge(cell, Invented(folder, experiment, cell))
            found += [*judged.ground, *judged.figures.values()]
    return list(dict.fromkeys(found))


# Cells


def test_all_ways_of_a_seed_come_before_the_next_seed_and_stages_as_they_are_written() -> None:
    assert [str(cell) for cell in cells(compared())] == [
        "few · alone · seed 1",
        "few · neighbours · seed 1",
        "few · alone · seed 2",
        "few · neighbours · seed 2",
        "few · alone · seed 3",
        "few · neighbours · seed 3",
        "all · alone · seed 1",
    ]


def test_a_ways_settings_lie_over_its_stages_and_its_own_of_the_stage_over_both() -> None:
    alone, neighbours, *_ = cells(compared())
    assert alone.settings == ("ldg.epochs=3", "graph.seed=1", "ldg.epochs=7")
    assert neighbours.settings == ("ldg.epochs=3", "graph.seed=1", "ldg.lambda=0.5")


def test_only_the_cells_that_are_asked_for_are_trained() -> None:
    assert [str(cell) for cell in cells(compared(only="few*seed 2"))] == [
        "few · alone · seed 2",
        "few · neighbours · seed 2",
    ]
    with pytest.raises(ExperimentError, match="'none': no such cell; one is called 'few · alone · seed 1'"):
        cells(compared(only="none"))


def test_a_cell_is_asked_for_by_its_own_name_whatever_a_pattern_would_make_of_it() -> None:
    ways: dict[str, Any] = {name: {} for name in ("λ [0.1]", "λ *", "λ 1")}
    stage = {"title": "few?", "ways": list(ways)}
    for name in ("few? · λ [0.1] · seed 2", "few? · λ * · seed 1"):
        only = compared(stage, ways=ways, baseline="", pairs=[], only=name)
        assert [str(cell) for cell in cells(only)] == [name]


@pytest.mark.parametrize("setting", ["seeds=[4, 5]", "comparison.only=x", "run.hours=1", " title = x"])
@pytest.mark.parametrize("where", ["a way", "a stage", "a way in a stage"])
def test_a_setting_of_the_whole_experiment_is_refused_where_it_would_change_nothing(where: str, setting: str) -> None:
    stage: dict[str, Any] = {"title": "few", "ways": ["alone", "neighbours"]}
    ways: dict[str, Any] = WAYS
    if where == "a way":
        ways = WAYS | {"alone": {"settings": [setting]}}
    else:
        stage |= {"settings": [setting]} if where == "a stage" else {"settings_of": {"alone": [setting]}}
    with pytest.raises(ExperimentError, match="is of the whole experiment and would change nothing here"):
        cells(compared(stage, ways=ways))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"ways": ["neighbors"]}, "no way is called 'neighbors'; did you mean 'neighbours'?"),
        ({"students": ["neighbours"], "ways": ["alone"]}, "students: no way is called 'neighbours'"),
        ({"settings_of": {"alon": []}}, "settings_of: no way is called 'alon'; did you mean 'alone'?"),
    ],
)
def test_a_way_that_there_is_none_of_is_told(change: dict[str, Any], said: str) -> None:
    with pytest.raises(ExperimentError, match=said.replace("?", r"\?")):
        cells(compared({"title": "few", "ways": ["alone"]} | change))


def test_two_stages_of_one_title_are_told() -> None:
    stage = {"title": "few", "ways": ["alone"]}
    with pytest.raises(ExperimentError, match="two are called 'few'"):
        cells(compared(stage, stage))


@pytest.mark.parametrize("half", [{"axis": "labels"}, {"at": 30}])
def test_half_a_point_of_a_curve_is_told(half: dict[str, Any]) -> None:
    with pytest.raises(ExperimentError, match="'few': axis and at go together"):
        cells(compared({"title": "few", "ways": ["alone"]} | half))


def test_two_stages_at_one_point_and_a_way_beside_itself_are_told() -> None:
    first, second = ({"title": title, "ways": ["alone"], "axis": "labels", "at": 30} for title in ("few", "others"))
    with pytest.raises(ExperimentError, match="two are at 30 of labels; make them one"):
        cells(compared(first, second))
    with pytest.raises(ExperimentError, match="'alone' stands beside itself"):
        cells(compared(pairs=[["alone", "alone"]]))


def test_an_unknown_key_of_a_way_or_a_stage_is_told_with_the_nearest() -> None:
    with pytest.raises(ExperimentError, match=r"comparison.ways.alone.generater; did you mean generator\?"):
        compared(ways={"alone": {"generater": "LDG"}})
    with pytest.raises(ExperimentError, match=r"comparison.stages.0.setting; did you mean settings\?"):
        compared({"title": "few", "ways": ["alone"], "setting": []})


@pytest.mark.parametrize(
    ("generator", "students", "steps"),
    [
        ("LDG", [], ["prepare", "train-ldg", "evaluate"]),
        ("LDG", ["way"], ["prepare", "train-ldg", "evaluate", "soft-labels", "distill", "evaluate"]),
        ("LDG-AUs", [], ["prepare", "annotate", "graph", "train-ldg", "evaluate"]),
        ("none", [], ["prepare", "distill", "evaluate"]),
    ],
)
def test_a_cell_is_walked_by_the_steps_that_it_says(generator: str, students: list[str], steps: list[str]) -> None:
    (cell, *_) = cells(
        compared(
            {"title": "one", "ways": ["way"], "students": students}, ways={"way": {"generator": generator}},
            baseline="", pairs=[],
        )
    )  # fmt: skip
    walked = []

    def make(step: str, *inputs: Artifact, seed: int | None = None) -> Artifact:
        walked.append(step)
        return Artifact(Path("nowhere"), step, step)

    judge(cell, make)
    assert sorted(walked) == sorted(cell.steps()) == sorted(steps)


# Doubt about seeds and images together


def test_the_interval_holds_the_luck_of_seeds_and_of_images() -> None:
    """Against the normal interval: the bootstrap's variance of S seeds is s²/S with S, not S − 1, in s²."""
    rng = np.random.default_rng(0)
    seeds, images = 12, 4000
    values = rng.normal(0, 0.02, (seeds, 1)) + rng.normal(0, 1, (1, images)) + rng.normal(0, 1, (seeds, images))
    low, high = interval(mean_over_seeds(means_of_resampled_images(values, 4000)))
    over_images = values.mean(axis=0).std() / np.sqrt(images)
    over_seeds = values.mean(axis=1).std() / np.sqrt(seeds)
    # A resampled seed brings its images' own part along, once more than the mean over all seeds has it.
    own = (values - values.mean(axis=0)).std() / np.sqrt(seeds * images)
    assert high - low == pytest.approx(2 * 1.96 * np.sqrt(over_images**2 + over_seeds**2 + own**2), rel=0.06)


def test_rows_that_are_compared_share_the_images_luck() -> None:
    rng = np.random.default_rng(1)
    first = rng.normal(0, 5, (3, 500))
    draws = means_of_resampled_images(np.concatenate((first + 0.25, first)), 350)
    assert draws.shape == (350, 6)
    assert (mean_over_seeds(draws[:, :3]) == mean_over_seeds(draws[:, :3])).all(), "and the luck of seeds"
    assert interval(mean_over_seeds(draws[:, :3] - draws[:, 3:])) == pytest.approx((0.25, 0.25))


# The report


def test_the_report_finds_every_cell_by_what_it_was_made_with(tmp_path: Path) -> None:
    experiment = compared()
    findings = read_findings(request("report", experiment, made(tmp_path, experiment)))
    assert findings.missing == ()
    table = networks_table(findings)
    assert len(table) == 3 + 3 + 3 + 1
    assert set(zip(table["stage"], table["way"], table["network"], strict=True)) == {
        ("few", "alone", "generator"),
        ("few", "neighbours", "generator"),
        ("few", "neighbours", "student"),
        ("all", "alone", "generator"),
    }
    assert table["fingerprint"].is_unique
    assert set(table["commit"]) == {"abc"}


def test_differences_and_means_are_over_seeds_and_say_what_is_settled(tmp_path: Path) -> None:
    experiment = compared()
    findings = read_findings(request("report", experiment, made(tmp_path, experiment)))
    means = means_table(findings).set_index(["stage", "way", "network"])
    apart = differences_table(findings)
    assert set(apart["stage"]) == {"few"}
    assert set(apart["network"]) == {"generator"}
    row = apart.set_index("measure").loc["accuracy"]
    accuracy = {way: float(means.accuracy[("few", way, "generator")]) for way in ("neighbours", "alone")}
    expected = accuracy["neighbours"] - accuracy["alone"]
    assert row["difference"] == pytest.approx(expected)
    assert row["difference"] > 20
    assert row["low"] <= row["difference"] <= row["high"]
    assert bool(row["settled"])
    assert row["seeds"] == 3
    assert apart.set_index("measure").difference["kl"] < 0
    every = networks_table(findings)
    of_it = every[(every["stage"] == "few") & (every["way"] == "alone")]
    assert accuracy["alone"] == pytest.approx(100 * of_it["accuracy"].mean())


def test_what_a_way_is_worth_is_read_off_the_baselines_curve(tmp_path: Path) -> None:
    experiment = compared()
    findings = read_findings(request("report", experiment, made(tmp_path, experiment)))
    rows = worth_table(findings)
    assert set(rows["way"]) == {"neighbours"}, "and not the baseline, nor a student without a curve"
    # It is better than the baseline anywhere, so it stays at the curve's end.
    assert rows["worth"].tolist() == pytest.approx([100.0])


def test_what_is_better_than_all_of_the_curve_is_worth_its_end_at_least(tmp_path: Path) -> None:
    stages = [curve(f"{at}", at, ["alone", "neighbours"], "labels") for at in (10, 100)]
    experiment = compared(*stages)
    write_comparison(request("report", experiment, made(tmp_path / "made", experiment)), tmp_path, Silence())
    page = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert "<td>≥ 100</td><td>≥ 100 to ≥ 100</td>" in page
    assert pd.read_csv(tmp_path / "worth.csv")["worth"].tolist() == [100.0, 100.0]


def curve(title: str, at: float, ways: list[str], axis: str = "share of wrong labels") -> dict[str, Any]:
    return {"title": title, "axis": axis, "at": at, "ways": ways, "settings": [f"ldg.epochs={round(100 * at)}"]}


def test_a_curve_that_falls_along_its_axis_is_read_from_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    skills = {"10 %": 0.9, "20 %": 0.5, "30 %": 0.0}

    class Worse(Invented):
        def write(self, out: Path) -> None:
            monkeypatch.setitem(SKILL, "alone", skills[self.cell.stage])
            super().write(out)

    monkeypatch.setitem(SKILL, "neighbours", 0.5)
    stages = [curve(title, 0.1 * n, ["alone", "neighbours"]) for n, title in enumerate(skills, start=1)]
    experiment = compared(*stages)
    inputs: list[Artifact] = []
    for cell in cells(experiment):
        judged = judge(cell, Worse(tmp_path / "in", experiment, cell))
        inputs += [*judged.ground, *judged.figures.values()]
    wanted = request("report", experiment, list(dict.fromkeys(inputs)))
    rows = worth_table(read_findings(wanted))
    assert rows["worth"].tolist() == pytest.approx([0.2, 0.2, 0.2])
    (tmp_path / "out").mkdir()
    write_comparison(wanted, tmp_path / "out", Silence())
    page = (tmp_path / "out/index.html").read_text(encoding="utf-8")
    assert "<td>0.3</td>" in page
    assert "over the logarithm of share of wrong labels" in page


@pytest.mark.parametrize(("reached", "place"), [(39, 250), (40, 250), (45, 353.6), (50, 500), (60, 2500), (61, 2500)])
def test_what_a_level_stretch_of_the_curve_reaches_is_worth_its_beginning(reached: float, place: float) -> None:
    heights, places = np.array([40.0, 50.0, 50.0, 60.0]), np.log([250.0, 500.0, 1000.0, 2500.0])
    assert _first_place(reached, heights, places) == pytest.approx(place, rel=1e-3)


def test_stages_with_datasets_of_their_own_are_told_apart(tmp_path: Path) -> None:
    class Own(Invented):
        def __init__(self, folder: Path, experiment: Experiment, cell: Cell) -> None:
            super().__init__(folder, experiment, cell)
            spoiled = cell.stage == "spoiled"
            self.data = dataset(truth="" if spoiled else "crowd votes")
            protocol = "Half of the labels are wrong." if spoiled else "All labels are right."
            self.data = replace(self.data, card=replace(self.data.card, protocol=protocol))

        def write(self, out: Path) -> None:
            super().write(out)
            if (path := out / "metrics.json").exists():
                known = json.loads(path.read_text(encoding="utf-8"))
                path.write_text(json.dumps(known | {"trained_on": {"commit": "", "hardware": ""}}), encoding="utf-8")

    spoiled: dict[str, Any] = {"title": "spoiled", "ways": ["alone", "neighbours"], "first_seeds": 1}
    spoiled["settings"] = ["dataset.label_noise=0.5"]
    experiment = compared({"title": "few", "ways": ["alone", "neighbours"]}, spoiled)
    inputs: list[Artifact] = []
    for cell in cells(experiment):
        judged = judge(cell, Own(tmp_path / "in", experiment, cell))
        inputs += [*judged.ground, *judged.figures.values()]
    (tmp_path / "out").mkdir()
    write_comparison(request("report", experiment, list(dict.fromkeys(inputs))), tmp_path / "out", Silence())
    told = json.loads((tmp_path / "out/results.json").read_text(encoding="utf-8"))
    assert told["protocol"] == "few: All labels are right. spoiled: Half of the labels are wrong."
    assert {row["measure"] for row in told["differences"]} == {"accuracy"}
    assert told["truth"] == ""
    assert told["commits"] == told["hardware"] == []
    page = (tmp_path / "out/index.html").read_text(encoding="utf-8")
    assert "Of one seed it is over test images alone." in page
    assert "Code:" not in page
    assert "unclipped KL" not in page
    assert ", on ." not in page


def test_a_cell_that_is_not_there_is_named_and_the_others_are_compared(tmp_path: Path) -> None:
    experiment = compared()
    some = made(tmp_path, experiment, without="few · alone · seed 2")
    findings = read_findings(request("report", experiment, some))
    assert findings.missing == ("few · alone · seed 2 · generator",)
    assert differences_table(findings)["seeds"].unique().tolist() == [2]


def test_every_way_of_a_curve_is_in_its_legend(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also one that has an EfficientFace alone, and one whose name begins as matplotlib's own labels do."""
    ways: dict[str, Any] = {"_alone": {}, "from the labels": {"generator": "none"}}
    for way in ways:
        monkeypatch.setitem(SKILL, way, 0.5)
    stages = [curve(f"at {at}", at, list(ways)) | {"students": ["_alone"]} for at in (0.1, 0.2)]
    experiment = compared(*stages, ways=ways, baseline="_alone", pairs=[])
    means = means_table(read_findings(request("report", experiment, made(tmp_path, experiment))))
    drawn: list[Figure] = []
    monkeypatch.setattr(comparison_plots, "picture", lambda figure, alt: drawn.append(figure))
    comparison_plots.curves(means, stages[0]["axis"])
    (legend,) = drawn[0].legends
    assert [text.get_text().lstrip("\u200b") for text in legend.get_texts()] == ["_alone", "from the labels"]
    assert len({line.get_marker() for line in legend.get_lines()}) == 2


def test_long_names_leave_the_figures_their_room(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[Figure] = []
    monkeypatch.setattr(comparison_plots, "picture", lambda figure, alt: drawn.append(figure))
    row = {"stage": "few", "network": "generator", "first": "one\nway " * 20, "second": "x" * 300, "seeds": 2}
    row |= {"difference": 0.1, "low": -0.1, "high": 0.3, "settled": False}
    comparison_plots.forest(pd.DataFrame([row | {"measure": measure} for measure in ("accuracy", "kl")]))
    comparison_plots.curves(
        pd.DataFrame(
            [
                {"axis": "labels", "at": at, "network": "generator", "way": way}
                | {"accuracy": 50.0, "accuracy_low": 40.0, "accuracy_high": 60.0}
                for at in (10.0, 100.0)
                for way in ("x" * 300, "y" * 300, "z" * 300)
            ]
        ),
        "labels",
    )
    for figure in drawn:
        figure.draw_without_rendering()
        assert all(axis.get_position().width > 0.2 for axis in figure.axes)
        (legend,) = figure.legends
        assert legend.get_window_extent().width < figure.bbox.width


def test_the_page_stands_alone_and_escapes_names(tmp_path: Path) -> None:
    ways = {"<b>alone": WAYS["alone"], "neighbours": WAYS["neighbours"]}
    SKILL["<b>alone"] = 0.3
    stage = {"title": "few & less", "ways": ["<b>alone", "neighbours"]}
    experiment = compared(stage, ways=ways, baseline="<b>alone", pairs=[["neighbours", "<b>alone"]])
    write_comparison(request("report", experiment, made(tmp_path / "made", experiment)), tmp_path, Silence())
    page = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert "few &amp; less" in page
    assert "&lt;b&gt;alone" in page
    assert "<b>alone" not in page
    assert "http://" not in page.replace("http://www.w3.org", "")
    assert "https://" not in page
    assert "Of one seed" not in page
    assert "Helped most" in page
    assert "Hurt most" in page
    written = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))
    assert written["missing"] == []
    assert written["truth"] == "crowd votes"
    for name in ("results", "means", "differences", "worth"):
        pd.read_csv(tmp_path / f"{name}.csv")


def test_a_face_is_helped_or_hurt_and_never_both() -> None:
    data = dataset(truth="")
    labels = data.labels()[data.rows("test")]
    right, even = np.eye(3)[labels], np.full((len(labels), 3), 1 / 3)
    some = np.where(np.arange(len(labels))[:, None] < 3, right, even)
    helped, hurt = helped_and_hurt(data, ("some", some), ("even", even))
    assert (len(helped), len(hurt)) == (3, 0)
    helped, hurt = helped_and_hurt(data, ("even", even), ("some", some))
    assert (len(helped), len(hurt)) == (0, 3)


def test_a_training_that_two_stages_share_costs_its_time_once(tmp_path: Path) -> None:
    stages = [{"title": f"k = {k}", "ways": ["alone"], "settings": [f"graph.k={k}"]} for k in (2, 4)]
    experiment = compared(*stages, pairs=[])
    findings = read_findings(request("report", experiment, made(tmp_path, experiment)))
    assert len(networks_table(findings)) == 6
    assert results(findings)["training_seconds"] == sum(n.model.training_seconds for n in findings.networks[:3])


def test_ways_that_are_the_same_trainings_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A λ counts with a graph alone; ways that differ in their students share a generator rightly."""
    ways: dict[str, Any] = {
        "alone": {},
        "Ω": {"settings": ["ldg.lambda=0.5"]},
        "patient": {"settings": ["distill.epochs=300"]},
        "from the labels": {"generator": "none"},
    }
    for way in ways:
        monkeypatch.setitem(SKILL, way, 0.5)
    stages = [
        {"title": "few", "ways": list(ways), "students": ["alone", "patient"]},
        {"title": "other", "ways": ["alone", "patient"], "students": ["alone", "patient"]},
    ]
    experiment = compared(*stages, ways=ways, pairs=[["Ω", "alone"], ["Ω", "from the labels"]])
    wanted = request("report", experiment, made(tmp_path / "made", experiment))
    told = results(read_findings(wanted))
    assert told["same_trainings"] == [{"stage": "few", "ways": ["alone", "Ω"]}]
    write_comparison(wanted, tmp_path, Silence())
    page = html.unescape((tmp_path / "index.html").read_text(encoding="utf-8"))
    assert "in “few”, “alone” and “Ω”. Their settings differ in nothing" in page
    assert "no stage has a network of both: “Ω” − “from the labels”." in page


def test_a_curve_from_0_on_says_why_nothing_is_read_off_it(tmp_path: Path) -> None:
    stages = [curve(f"{at:g}", at, ["alone", "neighbours"]) | {"settings": []} for at in (0.0, 0.2)]
    stages[1]["settings"] = ["ldg.epochs=5"]
    experiment = compared(*stages)
    write_comparison(request("report", experiment, made(tmp_path / "made", experiment)), tmp_path, Silence())
    page = html.unescape((tmp_path / "index.html").read_text(encoding="utf-8"))
    assert "At which share of wrong labels “alone” would be as accurate as the others is not told" in page


def test_a_place_of_a_millionth_is_one_in_the_tables(tmp_path: Path) -> None:
    stages = [curve(f"{at:g}", at, ["alone", "neighbours"], "weight decay") for at in (1e-6, 1e-4)]
    for stage in stages:
        stage["settings"] = [f"ldg.weight_decay={stage['at']}"]
    experiment = compared(*stages)
    write_comparison(request("report", experiment, made(tmp_path / "made", experiment)), tmp_path, Silence())
    for name in ("means", "worth"):
        assert set(pd.read_csv(tmp_path / f"{name}.csv")["at"]) == {1e-6, 1e-4}
    assert "is not told" not in (tmp_path / "index.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("title", ["it's `few` \\ $HOME", "two\nlines", " # few", 'a "few" [x]'])
def test_the_page_says_how_one_cell_is_asked_for_whatever_it_is_called(tmp_path: Path, title: str) -> None:
    stage = {"title": title, "ways": ["alone", "neighbours"], "by_seed": ["graph.seed"]}
    experiment = compared(stage)
    write_comparison(request("report", experiment, made(tmp_path / "made", experiment)), tmp_path, Silence())
    page = html.unescape((tmp_path / "index.html").read_text(encoding="utf-8"))
    command = page.partition("<code>fer run EXPERIMENT --data FOLDER ")[2].partition("</code>")[0]
    option, setting = shlex.split(command)
    assert option == "--set"
    document = to_document(experiment)
    assert [str(cell) for cell in cells(experiment_from(document, "test", [setting]))] == [f"{title} · alone · seed 1"]
    assert "graph.seed=SEED" in page


def test_a_way_with_vectors_of_ones_own_stands_beside_one_with_action_units(tmp_path: Path) -> None:
    """The first is annotated by nobody, so that the dataset has two tables of action units."""
    data = dataset(source="csv")
    numbers = np.random.default_rng(0).normal(size=len(data.manifest))
    pd.DataFrame({"id": data.manifest["id"], "valence": numbers}).to_csv(tmp_path / "own.csv", index=False)
    own = {"generator": "LDG-AUs", "settings": [f"action_units.vectors={tmp_path / 'own.csv'}"]}
    stage = {"title": "few", "ways": ["alone", "neighbours"]}
    experiment = compared(stage, ways={"alone": own, "neighbours": WAYS["neighbours"]})
    inputs = made(tmp_path / "made", experiment)
    assert len({a.fingerprint for a in inputs if a.step == "annotate"}) == 2
    assert read_findings(request("report", experiment, inputs)).missing == ()


def test_ways_that_run_openface_otherwise_stand_beside_each_other(tmp_path: Path) -> None:
    wild = {"generator": "LDG-AUs", "settings": ['openface.arguments=["-wild"]']}
    stage = {"title": "few", "ways": ["alone", "neighbours"]}
    experiment = compared(stage, ways={"alone": wild, "neighbours": WAYS["neighbours"]})
    inputs = made(tmp_path, experiment)
    assert len({a.fingerprint for a in inputs if a.step == "annotate"}) == 2
    assert read_findings(request("report", experiment, inputs)).missing == ()


@pytest.mark.parametrize("other", ["test images", "classes"])
def test_ways_on_other_test_images_or_classes_are_not_compared(tmp_path: Path, other: str) -> None:
    class OtherImages(Invented):
        def write(self, out: Path) -> None:
            if other == "classes":
                self.data = dataset(labels=("neutral", "happiness", "awe"))
            else:
                self.data.manifest["id"] = [f"other{row}" for row in range(len(self.data.manifest))]
            super().write(out)

    stage = {
        "title": "few", "ways": ["alone", "neighbours"], "settings_of": {"neighbours": ["dataset.split_seed=9"]},
    }  # fmt: skip
    experiment = compared(stage)
    inputs: list[Artifact] = []
    for cell in cells(experiment):
        maker = Invented if cell.way == "alone" else OtherImages
        judged = judge(cell, maker(tmp_path, experiment, cell))
        inputs += [*judged.ground, *judged.figures.values()]
    with pytest.raises(ArtifactError, match=f"its {other} are not those of few · alone · seed 1"):
        read_findings(request("report", experiment, list(dict.fromkeys(inputs))))


def test_nothing_of_the_comparison_among_the_inputs_is_told(tmp_path: Path) -> None:
    inputs = made(tmp_path, compared({"title": "few", "ways": ["alone"], "settings": ["ldg.epochs=9"]}))
    with pytest.raises(ArtifactError, match="none of the evaluations given is of a cell"):
        read_findings(request("report", compared(), inputs))


# The flow


def fer(tmp_path: Path, *arguments: str, experiment: str | Path = TINY) -> "subprocess.CompletedProcess[str]":
    environment = os.environ | {"PREFECT_HOME": str(tmp_path / "prefect"), "DO_NOT_TRACK": "1"}
    command: list[str | Path] = [FER, "run", experiment, "--artifacts", str(tmp_path / "artifacts"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=600)


def test_a_comparison_is_trained_reported_and_gone_on_with(tmp_path: Path) -> None:
    """Its generators learn from the faces without labels too, in every way there is."""
    ways = ("propagated=1.0", "pseudo_labels=0.5", "pseudo_threshold=0.2", "mixed=0.2", "smoothing=0.1")
    settings = [word for way in ways for word in ("--set", f"ldg.{way}")]
    part = fer(tmp_path, *settings, "--set", "comparison.only=30 labels · labels alone*")
    assert (part.returncode, part.stderr) == (0, "")
    assert "✓ 30 labels · labels alone · seed 1 · train-ldg" in part.stdout

    # What is there is told, and nothing is begun: the student and Ω are not there.
    late = fer(tmp_path, *settings, "--set", "run.hours=0.0000001")
    assert (late.returncode, late.stderr) == (0, "")
    assert "✓ report" in late.stdout
    assert late.stdout.count("✓") == 1
    assert "not there: 3 of the networks asked for; the same command goes on" in late.stdout

    whole = fer(tmp_path, *settings)
    assert (whole.returncode, whole.stderr) == (0, "")
    assert "= 30 labels · labels alone · seed 1 · train-ldg · reused" in whole.stdout
    page = Path(whole.stdout.splitlines()[-1].removeprefix("file://"))
    told = json.loads(page.with_name("results.json").read_text(encoding="utf-8"))
    assert told["missing"] == []
    assert [(row["stage"], row["way"], row["network"]) for row in told["means"]] == [
        ("30 labels", "labels alone", "generator"),
        ("30 labels", "Ω", "generator"),
        ("30 labels", "Ω", "student"),
        ("all labels", "labels alone", "generator"),
    ]

    prepared = [json.loads(path.read_text()) for path in tmp_path.glob("artifacts/prepare/*/dataset.json")]
    assert sorted(card["counts"]["train"] for card in prepared) == [30, 88]
    assert len(list(tmp_path.glob("artifacts/graph/*/to_labelled.npz"))) == 1
    cards = [json.loads(path.read_text()) for path in tmp_path.glob("artifacts/train-ldg/*/model.json")]
    few = {card["name"]: card["history"][0] for card in cards if "unlabelled" in card["trained_on"]["images"]}
    assert few.keys() == {"LDG", "LDG-AUs"}
    for name, told in few.items():
        assert np.isfinite(told["train_cross_entropy"])
        assert np.isfinite(told["train_pseudo_labels"])
        assert ("train_lambda_omega" in told) == (name == "LDG-AUs")


def test_cells_with_other_test_images_are_told_before_they_are_trained_and_the_others_are_reported(
    tmp_path: Path,
) -> None:
    """A test split that is cut anew with every seed is another one, too."""
    with_database(tmp_path / "prefect")
    (tmp_path / "own.toml").write_text(
        Path(TINY)
        .read_text(encoding="utf-8")
        .replace("seeds = [1]", "seeds = [1, 2]")
        .replace('students = ["Ω"]', 'by_seed = ["dataset.split_seed"]'),
        encoding="utf-8",
    )
    done = fer(tmp_path, "--set", "comparison.only=30 labels · labels alone*", experiment=tmp_path / "own.toml")
    assert done.returncode == 2
    assert "✓ 30 labels · labels alone · seed 1 · evaluate" in done.stdout
    assert "seed 2 · train-ldg" not in done.stdout
    assert "not there: 1 of the networks asked for" in done.stdout
    assert done.stderr.startswith(
        "error: 30 labels · labels alone · seed 2: its test images are not those of 30 labels"
    )


def test_a_worker_refuses_what_a_way_may_not_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Over the API an experiment names no file outside of what was granted, in a way's settings neither."""
    granted = tmp_path / "artifacts"
    granted.mkdir()
    wrong = granted / "wrong.toml"
    text = Path(TINY).read_text(encoding="utf-8")
    wrong.write_text(text.replace("ldg.lambda=0.1", "ldg.weights=/etc/passwd"), encoding="utf-8")
    monkeypatch.setenv(ARTIFACTS, str(granted))
    monkeypatch.delenv("FER_DATA_FOLDER", raising=False)
    open_study(str(wrong), None, None, None, ["comparison.only=*labels alone*"], str(granted / "made"))
    with pytest.raises(ExperimentError, match=r"30 labels · Ω: ldg\.weights = /etc/passwd: not below"):
        open_study(str(wrong), None, None, None, (), str(granted / "made"))


def test_time_that_is_over_before_a_network_was_judged_is_told(tmp_path: Path) -> None:
    with_database(tmp_path / "prefect")
    done = fer(tmp_path, "--set", "run.hours=0.0000001")
    assert done.returncode == 2
    assert done.stderr == "error: run.hours = 1e-07 were over before a network was judged\n"


def test_a_setting_of_a_way_that_cannot_be_read_is_told_before_anything_starts(tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.toml"
    wrong.write_text(
        Path(TINY).read_text(encoding="utf-8").replace("ldg.lambda=0.1", "ldg.lamda=0.1"), encoding="utf-8"
    )
    done = subprocess.run([FER, "run", str(wrong)], capture_output=True, text=True, cwd=tmp_path, timeout=60)
    assert done.returncode == 2
    assert done.stdout == ""
    assert "30 labels · Ω: " in done.stderr
    assert "unknown key ldg.lamda; did you mean lambda?" in done.stderr
