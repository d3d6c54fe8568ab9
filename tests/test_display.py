"""What a person sees while a run looks at their files, before a step is started or reused."""

import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from fer_core.artifacts import Artifact
from fer_core.progress import bars
from flows.cli import _show
from flows.display import Bars, Lines, print_table
from flows.events import Progress


def test_a_bar_shows_the_reading_and_goes_with_the_step_whatever_becomes_of_it() -> None:
    with bars(Console(file=io.StringIO(), force_terminal=True)) as live:
        shown = Bars(live)
        shown.reading("prepare images", Progress("read files", 3, 10))
        (bar,) = live.tasks
        assert (bar.description, bar.completed, bar.total) == ("prepare images · read files", 3, 10)
        shown.reused("prepare images")
        assert live.tasks == []
        shown.reading("prepare images", Progress("read files", 10, 10))
        shown.started("prepare images")
        (bar,) = live.tasks
        assert (bar.description, bar.completed) == ("prepare images", 0)
        shown.told("prepare images", Progress("decode images", 1, 2))
        shown.reading("prepare images", Progress("find files", 1, 1))
        shown.finished("prepare images", 1.0)
        assert live.tasks == []
        shown.reused("report")


def test_lines_tell_of_each_part_of_the_reading_once(capsys: pytest.CaptureFixture[str]) -> None:
    shown = Lines()
    for done in (1, 2, 3):
        shown.reading("prepare images", Progress("read files", done, 3))
    shown.reading("prepare images", Progress("find files", 1, 1))
    assert capsys.readouterr().out == "  prepare images: read files\n  prepare images: find files\n"


@pytest.mark.parametrize("name", ["Ω [bank]", "k=4 [/k]", "[red]", ":smile: 500"])
def test_a_name_in_brackets_is_shown_as_it_is_and_ends_nothing(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Rich takes brackets for its markup; ways and stages are called as their experiment calls them."""
    row = {"stage": f"stage {name}", "way": name, "network": "generator", "seeds": 1, "accuracy": 50.0}
    (tmp_path / "results.json").write_text(json.dumps({"means": [row], "missing": []}))
    print_table(Artifact(tmp_path, "report", ""))
    printed = capsys.readouterr().out
    assert f"stage {name}" in printed
    assert f"│ {name} " in printed

    terminal = io.StringIO()
    with bars(Console(file=terminal, force_terminal=True, width=120, color_system=None)) as live:
        Bars(live).started(name)
        live.refresh()
    assert name in terminal.getvalue()


def test_a_way_whose_students_are_fewer_has_both_counts_of_seeds(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shared = {"stage": "few", "accuracy": 50.0}
    means = [
        shared | {"way": way, "network": network, "seeds": seeds}
        for way, network, seeds in (("a", "generator", 3), ("a", "student", 1), ("b", "generator", 2))
    ]
    (tmp_path / "results.json").write_text(json.dumps({"means": means, "missing": []}))
    print_table(Artifact(tmp_path, "report", ""))
    lines = [line.split("│")[1:3] for line in capsys.readouterr().out.splitlines() if line.startswith("│")]
    assert [[cell.strip() for cell in line] for line in lines] == [["a", "3, 1"], ["b", "2"]]


def test_the_last_line_of_a_run_can_be_typed_whatever_its_folder_is_called(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = tmp_path / "my results"
    report = Artifact(made / "report" / "0123", "report", "0123")
    report.path.mkdir(parents=True)
    student = {"architecture": "efficientface", "checkpoint": "distill/4567"}
    models = [student | {"selected": {"validation": {"accuracy": 0.5}}}]
    results = {"table": {"columns": [], "rows": {}}, "models": models}
    report.file("results.json").write_text(json.dumps(results))
    _show(report)
    assert f"fer predict photo.jpg --model '{made}/distill/4567'" in capsys.readouterr().out
