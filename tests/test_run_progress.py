"""How far a run is, on a clock that the test turns."""

import pytest

from flows.naming import experiment_slug, key_of, run_name
from flows.run_progress import RunProgress, planned_steps


def test_the_whole_method_takes_16_steps_and_12_more_for_each_further_seed() -> None:
    assert [sum(planned_steps(seeds).values()) for seeds in (1, 2, 5)] == [16, 28, 64]


def test_what_is_left_is_told_from_what_like_steps_took() -> None:
    now = [0.0]
    progress = RunProgress(planned_steps(1), jobs=2, clock=lambda: now[0])
    assert (progress.percent(), progress.words()) == (0, "0 of 16 steps")
    for kind in ("prepare", "annotate", "graph"):
        progress.ended(kind, kind, 20.0)
    assert progress.words() == "3 of 16 steps"  # Nothing is known of a training yet.
    progress.started("train LDG", "train-ldg")
    now[0] = 100.0
    progress.moved("train LDG", 0.25)
    # A training takes 400 s. Left are 1.75 of them, 3 students, for which the same is taken, and 8 short steps of 20 s,
    # two at a time: (1.75 · 400 + 3 · 400 + 8 · 20) / 2 = 1,030 s.
    assert progress.words() == "3 of 16 steps · about 17 min left"
    assert progress.percent() == pytest.approx(100 * 3.25 / 16)
    progress.ended("train LDG", "train-ldg", 400.0)
    progress.ended("train LDG-AUs", "train-ldg", 600.0)
    for kind in ("soft-labels",) * 2 + ("distill",) * 3 + ("evaluate",) * 4:
        progress.ended(kind, kind, 20.0)
    assert progress.words() == "14 of 16 steps · about 20 s left"
    progress.ended("evaluate", "evaluate", 20.0)
    progress.ended("report", "report", 20.0)
    assert (progress.percent(), progress.words()) == (100, "16 of 16 steps · done")


def test_as_many_machines_as_work_make_the_rest_shorter() -> None:
    now = [0.0]
    progress = RunProgress({"train-ldg": 20}, jobs=1, clock=lambda: now[0])
    for number in range(20):
        progress.started(f"train {number}", "train-ldg")  # Sent; ten machines have taken one.
    now[0] = 300.0
    for number in range(10):
        progress.moved(f"train {number}", 0.5)
    # Trainings of 600 s: ten halves and ten whole ones, ten at a time.
    assert progress.words() == "0 of 20 steps · about 15 min left"


def test_a_step_that_failed_is_not_done() -> None:
    progress = RunProgress({"prepare": 1, "annotate": 1}, jobs=1)
    progress.started("prepare", "prepare")
    progress.moved("prepare", 0.5)
    progress.failed("prepare")
    assert (progress.percent(), progress.words()) == (0, "0 of 2 steps")


@pytest.mark.parametrize(
    ("source", "key"), [("demo", "demo"), ("/data/RAF DB (mine).toml", "raf-db-mine"), ("/x/表情.toml", "experiment")]
)
def test_keys_begin_with_what_the_experiment_is_called(source: str, key: str) -> None:
    assert experiment_slug(source) == key
    assert key_of(experiment_slug(source), "31", "EF + LDG · seed 2", "curves") == f"{key}-31-ef-ldg-seed-2-curves"


@pytest.mark.parametrize("parameters", [{}, {"experiment": None, "seeds": "x"}, {"seeds": []}])
def test_any_parameters_have_a_name(parameters: dict[str, object]) -> None:
    assert run_name(parameters) == "demo"
