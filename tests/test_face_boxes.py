"""Boxes in a list cut faces out of pictures; AffectNet's lists have them."""

from pathlib import Path

import numpy as np
import pytest
from helpers.dataset_files import AFFECTNET, LIST, counts, refused, save_image, write_rows
from helpers.listed_faces import TWELVE, with_columns, write_faces, write_list
from PIL import Image

from fer_core.data.readers import open_source
from fer_core.experiment import DatasetSettings
from openface.decoding import UnreadableImage


def test_a_part_of_a_face_box_is_told_not_to_be_used(tmp_path: Path) -> None:
    save_image(tmp_path / "a.png", 200)
    rows = [("a.png", "happy", 5, 5, 10, 8), ("b.png", "sad", 5, 5, 10, 8)]
    write_rows(tmp_path / "labels.csv", ("path", "label", "face_x", "face_y", "face_w", "face_h"), *rows)
    source = open_source(LIST, tmp_path)
    assert source.read_image(0).size == (10, 8)
    assert not any("not used" in note for note in source.notes)
    write_rows(tmp_path / "labels.csv", ("path", "label", "face_x", "face_y", "face_w", "x2"), *rows)
    source = open_source(LIST, tmp_path)
    assert source.read_image(0).size == (20, 20)
    assert "columns not used: face_x, face_y, face_w, x2" in source.notes


@pytest.mark.parametrize(
    "box", ["[2, 3, 10, 10]", "2 3 10 10", "(2.0, 3.5, 10., 10)", "{'x': 2, 'y': 3, 'w': 9, 'h': 9}"]
)
def test_a_face_box_in_one_field_is_not_passed_over(tmp_path: Path, box: str) -> None:
    said = refused(LIST, with_columns(tmp_path, Bounding_Box=["", box, *[""] * 10]))
    assert "labels.csv, line 3: its Bounding_Box is a box in one field; write four columns, x,y,width,height" in said
    notes = open_source(LIST, with_columns(tmp_path, box=["12"] * 12, bbox=["1, 2, 3"] * 12)).notes
    assert "columns not used: box, bbox" in notes


@pytest.mark.parametrize(
    ("headers", "box"),
    [
        (("x", "y", "w", "h"), (5, 4, 10, 8)),
        (("left", "top", "w", "h"), (5, 4, 10, 8)),
        (("bbox_x", "bbox_y", "bbox_width", "bbox_height"), (5, 4, 10, 8)),
        (("Left", "Top", "Width", "Height"), (5, 4, 10, 8)),
        (("xmin", "ymin", "xmax", "ymax"), (5, 4, 15, 12)),
        (("face_x1", "face_y1", "face_x2", "face_y2"), (5, 4, 15, 12)),
        (("face_box_left", "face_box_top", "face_box_right", "face_box_bottom"), (5, 4, 15, 12)),
        (("startX", "startY", "endX", "endY"), (5, 4, 15, 12)),
        (("xtl", "ytl", "xbr", "ybr"), (5, 4, 15, 12)),
        (("bbox_x0", "bbox_y0", "bbox_x1", "bbox_y1"), (5, 4, 15, 12)),
        (("min_x", "min_y", "max_x", "max_y"), (5, 4, 15, 12)),
    ],
)
def test_a_face_box_is_known_by_any_usual_name(
    tmp_path: Path, headers: tuple[str, ...], box: tuple[object, ...]
) -> None:
    write_faces(tmp_path, "a.png", "b.png")
    rows = [("a.png", "happy", *box), ("a.png", "sad", 0, 0, 6, 6), ("b.png", "sad", "", "", "", "")]
    write_rows(tmp_path / "labels.csv", ("path", "label", *headers), *rows)
    source = open_source(LIST, tmp_path)
    assert [source.read_image(row).size for row in range(3)] == [(10, 8), (6, 6), (20, 20)]
    assert f"faces are cut out by the columns {', '.join(headers)}" in source.notes
    assert not any("not used" in note for note in source.notes)


@pytest.mark.parametrize("box", [(0.2, 0.2, 0.5, 0.5), (0, 0, 1, 1)])
def test_a_face_box_in_shares_of_the_picture_is_told_to_be_wanted_in_pixels(
    tmp_path: Path, box: tuple[float, ...]
) -> None:
    write_faces(tmp_path, "a.png", "b.png")
    rows = [("a.png", "happy", *box), ("b.png", "sad", *box)]
    write_rows(tmp_path / "labels.csv", ("path", "label", "x", "y", "w", "h"), *rows)
    with pytest.raises(
        UnreadableImage, match=r"a\.png: its face box .* is not within its 20 x 20 pixels; give it in pix"
    ):
        open_source(LIST, tmp_path).read_image(0)


def test_the_sides_of_a_picture_and_landmarks_are_no_face_box(tmp_path: Path) -> None:
    write_faces(tmp_path, "a.png", "b.png")
    headers = ("filename", "width", "height", "class", "xmin", "ymin", "xmax", "ymax")
    rows = [("a.png", 20, 20, "happy", 5, 5, 15, 13), ("b.png", 20, 20, "sad", 5, 5, 15, 13)]
    write_rows(tmp_path / "labels.csv", headers, *rows)
    assert open_source(LIST, tmp_path).read_image(0).size == (10, 8)
    points = ("x1", "y1", "x2", "y2", "x3", "y3")
    of_points = [("a.png", "happy", 5, 5, 12, 5, 8, 9), ("b.png", "sad", 5, 5, 12, 5, 8, 9)]
    write_rows(tmp_path / "labels.csv", ("path", "label", *points), *of_points)
    source = open_source(LIST, tmp_path)
    assert source.read_image(0).size == (20, 20)
    assert f"columns not used: {', '.join(points)}" in source.notes


@pytest.mark.parametrize(
    ("box", "others"),
    [
        ({"x": 5, "y": 5, "w": 10, "h": 8}, {"width": 20, "height": 20}),
        ({"face_x": 5, "face_y": 5, "face_width": 10, "face_height": 8}, {"x1": 8, "y1": 6, "x2": 12, "y2": 7}),
        ({"face_x": 5, "face_y": 5, "face_w": 10, "face_h": 8}, {"xmin": 0, "ymin": 0, "xmax": 20, "ymax": 20}),
        ({"bbox_x": 5, "bbox_y": 5, "bbox_w": 10, "bbox_h": 8}, {"x": 0, "y": 0, "w": 20, "h": 20}),
        ({"x": 5, "y": 5, "w": 10, "h": 8}, {"x1": 8, "y1": 6, "x2": 12, "y2": 6, "x3": 9, "y3": 8}),
        ({"x": 5, "y": 5, "w": 10, "h": 8}, {"x0": 8, "y0": 6, "x1": 12, "y1": 6, "x2": 9, "y2": 8}),
    ],
)
def test_the_box_that_is_surely_a_faces_goes_before_other_numbers(
    tmp_path: Path, box: dict[str, int], others: dict[str, int]
) -> None:
    write_faces(tmp_path, "a.png", "b.png")
    for columns in (others | box, box | others):
        rows = [(name, label, *columns.values()) for name, label in (("a.png", "happy"), ("b.png", "sad"))]
        write_rows(tmp_path / "labels.csv", ("path", "label", *columns), *rows)
        source = open_source(LIST, tmp_path)
        assert source.read_image(0).size == (10, 8)
        assert f"faces are cut out by the columns {', '.join(box)}" in source.notes


AFFECTNETS = (
    *("subDirectory_filePath", "face_x", "face_y", "face_width", "face_height", "facial_landmarks", "expression"),
    *("valence", "arousal"),
)


def affectnet_row(name: str, expression: int, box: tuple[object, ...] = (2, 4, 8, 8)) -> tuple[object, ...]:
    return (name, *box, "1.5;2.5;" * 68, expression, -0.1, 0.2)


def write_affectnet(folder: Path) -> Path:
    labels = [1] * 12 + [0] * 6 + [2] * 3 + [3, 4, 5, 6, 7, 8, 9, 10]
    for part, file in (("1", "training"), ("2", "validation")):
        names = [f"{part}/{number}.png" for number in range(len(labels))]
        for name in names:
            save_image(folder / "Manually_Annotated_Images" / name)
        rows = [affectnet_row(name, label) for name, label in zip(names, labels, strict=True)]
        rows[-1] = affectnet_row(names[-1], 10, ("NULL",) * 4)
        write_rows(folder / "Manually_Annotated_file_lists" / f"{file}.csv", AFFECTNETS, *rows)
    return folder


def test_affectnets_lists_are_read_with_their_numbers_and_faces_cut_out(tmp_path: Path) -> None:
    folder = write_affectnet(tmp_path)
    image = Image.new("RGB", (20, 20), "black")
    image.paste("white", (2, 4, 10, 12))
    image.save(folder / "Manually_Annotated_Images" / "1" / "0.png")
    source = open_source(AFFECTNET, folder)
    assert counts(source) == {
        "neutral": 12,
        "happiness": 24,
        "surprise": 2,
        "sadness": 6,
        "anger": 2,
        "disgust": 2,
        "fear": 2,
    }
    assert source.dropped == {"labelled 7": 2, "labelled 8": 2, "labelled 9": 2, "labelled 10": 2}
    assert source.records["split"].value_counts().to_dict() == {"train": 25, "test": 25}
    face = np.asarray(source.read_image(0))
    assert face.shape == (8, 8, 3)
    assert (face == 255).all()
    assert open_source(DatasetSettings(source="affectnet", classes=8), folder).labels[-1] == "contempt"


def test_affectnets_other_numbers_keep_their_meaning_where_one_is_dropped(tmp_path: Path) -> None:
    settings = DatasetSettings(source="affectnet", classes={"7": "drop", "5": "drop"})
    source = open_source(settings, write_affectnet(tmp_path))
    assert source.labels == ("neutral", "happiness", "surprise", "sadness", "anger", "fear")
    assert source.dropped == {f"labelled {number}": 2 for number in (7, 5, 8, 9, 10)}


def test_affectnets_header_is_known_by_the_list_reader_too(tmp_path: Path) -> None:
    folder = write_affectnet(tmp_path)
    (folder / "Manually_Annotated_file_lists" / "validation.csv").rename(
        folder / "Manually_Annotated_Images" / "one.csv"
    )
    source = open_source(LIST, folder / "Manually_Annotated_Images" / "one.csv")
    assert counts(source)["happiness"] == 12
    assert "numbers in AffectNet's order" in source.notes[0]
    assert source.read_image(0).size == (8, 8)


@pytest.mark.parametrize("box", [(30, 30, 8, 8), ("NULL", "NULL", "NULL", "NULL"), (2, 2, 0, 8)])
def test_a_face_box_that_holds_nothing_is_an_unreadable_image(tmp_path: Path, box: tuple[object, ...]) -> None:
    write_faces(tmp_path, "a.png", "b.png")
    write_rows(tmp_path / "one.csv", AFFECTNETS, affectnet_row("a.png", 1, box), affectnet_row("b.png", 2))
    source = open_source(AFFECTNET, tmp_path)
    with pytest.raises(UnreadableImage, match=r"a\.png: its face box"):
        source.read_image(0)


def test_two_faces_of_one_image_are_two_images(tmp_path: Path) -> None:
    write_faces(tmp_path, "a.png")
    rows = [affectnet_row("a.png", 1), affectnet_row("a.png", 2, (5, 5, 10, 10))]
    write_rows(tmp_path / "one.csv", AFFECTNETS, *rows)
    source = open_source(AFFECTNET, tmp_path)
    assert source.records["id"].tolist() == ["a.png", "a.png#2"]
    assert source.read_image(1).size == (10, 10)
    write_rows(tmp_path / "one.csv", AFFECTNETS, *rows, rows[0])
    assert "line 4: its path is listed before" in refused(AFFECTNET, tmp_path)


def test_another_list_is_not_taken_for_affectnets(tmp_path: Path) -> None:
    write_rows(tmp_path / "labels.csv", ("path", "label"), ("a.png", "happy"), ("b.png", "sad"))
    assert "not AffectNet's list" in refused(AFFECTNET, tmp_path)


def test_affectnets_label_is_its_expression(tmp_path: Path) -> None:
    for name in TWELVE:
        save_image(tmp_path / name)
    rows = [(name, number % 3, ("adult", "child")[number % 2]) for number, name in enumerate(TWELVE)]
    write_rows(tmp_path / "training.csv", ("subDirectory_filePath", "expression", "category"), *rows)
    assert open_source(AFFECTNET, tmp_path).labels == ("neutral", "happiness", "sadness")


@pytest.mark.parametrize("numbers", [[1, 2, 3, 4, 5, 6, 7], [1, 2, 3, 4, 5, 6, 7, 8]])
def test_numbers_counted_from_1_are_not_taken_for_affectnets(tmp_path: Path, numbers: list[int]) -> None:
    rows = [(f"{number}.png", number) for number in numbers]
    write_rows(tmp_path / "training.csv", ("subDirectory_filePath", "expression"), *rows)
    assert "its labels begin at 1, but AffectNet's order begins with 0" in refused(AFFECTNET, tmp_path)


def test_an_empty_face_box_is_the_whole_picture_and_one_of_edges_is_refused(tmp_path: Path) -> None:
    for name in "abc":
        save_image(tmp_path / f"{name}.png")
    lines = [
        "path,label,face_x,face_y,face_width,face_height",
        "a.png,happy,5,5,10,10",
        "b.png,sad,,,,",
        "c.png,sad,12,12,20,20",
    ]
    source = open_source(LIST, write_list(tmp_path, *lines))
    assert source.read_image(0).size == (10, 10)
    assert source.read_image(1).size == (20, 20)
    assert "images without a face box, taken whole: 1" in source.notes
    with pytest.raises(UnreadableImage, match=r"only 16% of its face box .* are its last two numbers edges"):
        source.read_image(2)


def test_a_list_without_face_boxes_beside_one_with_them_takes_none_away(tmp_path: Path) -> None:
    write_faces(tmp_path, "a.png", "b.png", "c.png", "d.png")
    write_rows(tmp_path / "test.csv", ("path", "label"), ("a.png", "happy"), ("b.png", "sad"))
    boxes = [("c.png", "happy", 5, 5, 10, 10), ("d.png", "sad", 5, 5, 8, 8)]
    write_rows(tmp_path / "train.csv", ("path", "label", "face_x", "face_y", "face_width", "face_height"), *boxes)
    source = open_source(LIST, tmp_path)
    assert [source.read_image(row).size for row in range(4)] == [(20, 20), (20, 20), (10, 10), (8, 8)]
    assert "images without a face box, taken whole: 2" in source.notes
