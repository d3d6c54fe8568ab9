"""Rows of photographs for faces that a dataset has cut out of them: by where the face is, and never another's."""

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from helpers.openface_tables import ACTION_UNITS, face
from PIL import Image

from openface.columns import LANDMARKS
from openface.cut_out import CutOut
from openface.table import one_row_per_image, remarks

SPREAD = np.linspace(-10, 10, 68)
Found = tuple[str, float, float, float]
"""A photograph, x and y of the middle of a face's landmarks, and its AU01_r."""


def found(*faces: Found, confidence: Sequence[float] = ()) -> pd.DataFrame:
    """What was read of photographs."""
    rows = [
        face(confidence[number] if confidence else 0.9, AU01_r=intensity)
        | {"key": key, "status": "ok"}
        | {name: (x if name[0] == "x" else y) + SPREAD[int(name[2:])] for name in LANDMARKS}
        for number, (key, x, y, intensity) in enumerate(faces)
    ]
    return pd.DataFrame(rows)[["key", "status", "confidence", *ACTION_UNITS, *LANDMARKS]]


def cut_out(*images: tuple[str, str, float, float, float, float]) -> CutOut:
    """Images by id, photograph, and left, top, width and height."""
    return CutOut([i[0] for i in images], [i[1] for i in images], np.array([i[2:] for i in images], np.float64))


TWO = cut_out(("a.jpg", "a.jpg", 100, 50, 80, 80), ("a.jpg#2", "a.jpg", 300, 60, 90, 90), ("b", "b", 200, 40, 70, 70))


def intensities(rows: pd.DataFrame, images: CutOut) -> dict[str, float | str]:
    """AU01_r by image, or what happened where there is none."""
    table = one_row_per_image(rows, images.ids, images)
    assert table["id"].tolist() == list(images.ids)
    return {
        name: status if status != "ok" else round(float(value), 2)
        for name, status, value in zip(table["id"], table["status"], table["AU01_r"], strict=True)
    }


def test_each_face_of_a_photograph_has_its_own_row_and_a_passer_by_none() -> None:
    rows = found(("a", 345, 105, 2.0), ("a", 140, 90, 1.0), ("a", 500, 90, 4.0), ("b", 235, 75, 3.0))
    assert intensities(rows, TWO) == {"a.jpg": 1.0, "a.jpg#2": 2.0, "b": 3.0}
    assert remarks(rows, TWO.ids, "aus.csv", TWO) == []


def test_the_face_in_the_box_counts_and_not_a_surer_one_beside() -> None:
    images = cut_out(("a", "a", 100, 50, 80, 80), ("b", "b", 200, 40, 70, 70))
    rows = found(("a", 400, 90, 4.0), ("a", 140, 90, 1.0), ("b", 235, 75, 3.0), confidence=[0.98, 0.5, 0.9])
    assert intensities(rows, images) == {"a": 1.0, "b": 3.0}


def test_a_face_of_which_only_another_one_was_found_has_none_and_that_is_told() -> None:
    rows = found(("a", 345, 105, 2.0), ("b", 235, 75, 3.0))
    assert intensities(rows, TWO) == {"a.jpg": "no_face", "a.jpg#2": 2.0, "b": 3.0}
    told = "1 image: aus.csv has faces of the photograph, and none in the dataset's box; they count as no_face: a.jpg"
    assert remarks(rows, TWO.ids, "aus.csv", TWO) == [told]


def test_one_face_is_not_given_to_two_boxes_that_overlap() -> None:
    images = cut_out(("a", "a", 100, 50, 80, 80), ("a#2", "a", 130, 50, 80, 80), ("b", "b", 200, 40, 70, 70))
    assert intensities(found(("a", 165, 90, 1.0), ("b", 235, 75, 3.0)), images) == {
        "a": "no_face",
        "a#2": 1.0,
        "b": 3.0,
    }


def test_without_landmarks_nobody_is_given_the_row_of_whoever_is_beside() -> None:
    rows = found(("a", 345, 105, 2.0), ("a", 140, 90, 1.0), ("b", 235, 75, 3.0)).drop(columns=list(LANDMARKS))
    assert intensities(rows, TWO) == {"a.jpg": "no_face", "a.jpg#2": "no_face", "b": 3.0}
    (told,) = remarks(rows, TWO.ids, "aus.csv", TWO)
    assert told.startswith("2 images of photographs of which the dataset has several faces: nothing in aus.csv tells")


def test_what_was_written_of_faces_cut_out_before_is_taken_and_said_so() -> None:
    """Their landmarks are in the middle of small images, wherever the faces were in the photographs."""
    images = cut_out(("a", "a", 100, 50, 80, 80), ("b", "b", 200, 40, 70, 70), ("c", "c", 10, 300, 90, 90))
    rows = found(("a", 40, 41, 1.0), ("b", 34, 36, 2.0), ("c", 46, 44, 3.0))
    assert intensities(rows, images) == {"a": 1.0, "b": 2.0, "c": 3.0}
    (told,) = remarks(rows, images.ids, "aus.csv", images)
    assert told == (
        "landmarks of aus.csv are not where the dataset's face boxes are; its rows are taken for faces that were cut "
        "out before"
    )


def test_boxes_that_are_nearly_all_of_their_photographs_decide_where_others_are_not() -> None:
    """AffectNet's are mostly so; in a photograph of two people the other one counts for nothing."""
    whole = [(f"w{n}", f"w{n}", 2, 3, 96, 94) for n in range(9)]
    images = cut_out(*whole, ("a", "a", 100, 50, 80, 80), ("b", "b", 200, 40, 70, 70))
    rows = found(
        *[(f"w{n}", 52, 60, 0.5) for n in range(9)], ("a", 400, 90, 4.0), ("a", 140, 90, 1.0), ("b", 235, 75, 3.0)
    )
    assert intensities(rows, images) == {**{f"w{n}": 0.5 for n in range(9)}, "a": 1.0, "b": 3.0}
    assert remarks(rows, images.ids, "aus.csv", images) == []


def test_nothing_is_said_of_boxes_where_every_face_is_its_photograph() -> None:
    images = cut_out(*[(f"w{n}", f"w{n}", 2, 3, 96, 94) for n in range(3)])
    rows = found(*[(f"w{n}", 52, 60, 0.5) for n in range(3)])
    assert intensities(rows, images) == {f"w{n}": 0.5 for n in range(3)}
    assert remarks(rows, images.ids, "aus.csv", images) == []


def test_a_table_that_names_the_faces_themselves_is_taken_at_its_word() -> None:
    rows = found(("a.jpg", 40, 41, 1.0), ("a.jpg#2", 34, 36, 2.0), ("b", 46, 44, 3.0))
    assert intensities(rows, TWO) == {"a.jpg": 1.0, "a.jpg#2": 2.0, "b": 3.0}
    assert remarks(rows, TWO.ids, "aus.csv", TWO) == []


def test_an_image_that_is_the_whole_photograph_takes_the_surest_face() -> None:
    images = cut_out(("a", "a", np.nan, np.nan, np.nan, np.nan), ("b", "b", 200, 40, 70, 70))
    rows = found(("a", 400, 90, 4.0), ("a", 140, 90, 1.0), ("b", 235, 75, 3.0), confidence=[0.98, 0.5, 0.9])
    assert intensities(rows, images) == {"a": 4.0, "b": 3.0}


def test_what_happened_to_a_photograph_happened_to_all_its_faces() -> None:
    rows = found(("a", 345, 105, 2.0), ("b", 235, 75, 3.0))
    rows.loc[0, "status"] = "failed"
    assert intensities(rows, TWO) == {"a.jpg": "failed", "a.jpg#2": "failed", "b": 3.0}


@pytest.mark.parametrize("kept", [None, 1])
def test_a_list_of_boxes_and_a_table_of_the_photographs_go_through_the_steps(tmp_path: Path, kept: int | None) -> None:
    """Also where the list names one of the two faces alone."""
    data, draw = tmp_path / "data", np.random.default_rng(0)
    data.mkdir()
    lines, faces = ["path,label,split,left,top,width,height"], []
    for number in range(12):
        Image.fromarray(draw.integers(0, 255, (120, 240, 3), np.uint8)).save(data / f"p{number}.png")
        split = ("train", "validation", "test")[number % 3]
        for place, left in enumerate((20 + number, 140 - number)):
            if kept in (None, place) or number:
                lines.append(f"p{number}.png,{('happiness', 'sadness')[number // 3 % 2]},{split},{left},30,60,60")
            faces.append((f"p{number}.png", left + 30.0, 60.0, (2 * number + place) / 10))
    (data / "labels.csv").write_text("\n".join(lines) + "\n")
    rows = found(*reversed(faces)).rename(columns={"key": "filename"}).drop(columns="status")
    rows.to_csv(tmp_path / "aus.csv", index=False)
    experiment = tmp_path / "own.toml"
    experiment.write_text('title = "own"\nseeds = [1]\n[dataset]\nsource = "csv"\nimage_size = 48\n')
    for step in (
        ["prepare", "--data", str(data), "--out", str(tmp_path / "dataset")],
        [
            "annotate",
            "--in",
            str(tmp_path / "dataset"),
            "--aus",
            str(tmp_path / "aus.csv"),
            "--out",
            str(tmp_path / "a"),
        ],
    ):
        command = [sys.executable, "-m", "fer_core", step[0], str(experiment), *step[1:]]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "a" / "aus.json").read_text()) == {"ok": 24 if kept is None else 23}
    table = pd.read_parquet(tmp_path / "a" / "aus.parquet").set_index("id")["AU01_r"]
    manifest = pd.read_parquet(tmp_path / "dataset" / "manifest.parquet").set_index("id")
    for name, photograph, left in zip(manifest.index, manifest["photograph"], manifest["box_left"], strict=True):
        number = int(photograph.removesuffix(".png")[1:])
        assert round(10 * float(table[name])) == 2 * number + (left > 80), name
