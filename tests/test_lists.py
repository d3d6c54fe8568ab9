"""CSV files that list images: their columns, separators, encodings, splits and face boxes."""

import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
from helpers.dataset_files import (
    AFFECTNET,
    FER2013,
    LIST,
    counts,
    names_by_id,
    refused,
    save_image,
    splits_by_id,
    write_rows,
)
from PIL import Image

from fer_core.data.readers import open_source
from fer_core.data.readers.listed import listed_files
from fer_core.experiment import DatasetSettings
from openface.decoding import UnreadableImage


def write_list(folder: Path, *lines: str) -> Path:
    (folder / "labels.csv").write_text("\n".join(lines) + "\n")
    return folder


def test_a_list_is_read_from_its_folder_or_file(tmp_path: Path) -> None:
    save_image(tmp_path / "faces" / "a.png", 200)
    write_list(tmp_path, "path, label ,split", "faces/a.png,happy,train", "b.png,sad,val", "c.png,sad,")
    for given in (tmp_path, tmp_path / "labels.csv"):
        source = open_source(LIST, given)
        assert source.labels == ("happiness", "sadness")
        assert names_by_id(source) == {"faces/a": "happiness", "b": "sadness", "c": "sadness"}
        assert splits_by_id(source) == {"faces/a": "train", "b": "validation", "c": ""}
        assert source.read_image(0).getpixel((0, 0)) == (200, 55, 128)
        with pytest.raises(UnreadableImage, match=r"b\.png: no such file"):
            source.read_image(1)


def test_a_list_may_hold_distributions(tmp_path: Path) -> None:
    write_list(tmp_path, "path,label,p_sad,p_happy", "a.png,happy,1,3", "b.png,sad,0.5,0")
    source = open_source(LIST, tmp_path)
    assert source.truth == "crowd votes"
    assert source.distributions is not None
    np.testing.assert_allclose(source.distributions, np.array([[0.75, 0.25], [0, 1]]))


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["path,labl", "a.png,x"], "labels.csv: no column label; rename labl?"),
        (["where,Label", "a.png,x"], "labels.csv: no column path; it has where, Label"),
        (["path,label"], "labels.csv: lists no images"),
        (["path,label", ",x"], "labels.csv, line 2: no path"),
        (["path,label", "a.png,x", "b.png,y", "a.png,y"], "labels.csv, line 4: its path is listed before"),
        (["path,label,split", "a.png,x,train", "b.png,y,eval"], "line 3: its split must be train, validation, test"),
        (["path,label,p_x", "a.png,x,1", "b.png,y,0"], "no column p_y; it has p_x"),
        (["path,label,p_x,p_y", "a.png,x,1,0", "b.png,y,0,0"], "line 3: its p_ columns must be numbers"),
        (["path,label,p_x,p_y", "a.png,x,1,-1", "b.png,y,0,1"], "line 2: its p_ columns must be numbers"),
        (["path,label,p_x,p_y", "a.png,x,1,many", "b.png,y,0,1"], "line 2: its p_ columns must be numbers"),
        (["path,label,p_sad,p_sadness,p_fear", "a.png,sad,1,1,1"], "two p_ columns mean the same class"),
        (["path,label", "a.png,x"], "only the class x"),
        (["path,label", "a.png,x,y", "b.png,x,y"], "more fields than its header"),
        (["path,label,x", "a.png,x,train", "b.png,y,eval"], "line 3: its x must be train, validation, test"),
    ],
)
def test_a_wrong_list_is_refused_by_line(tmp_path: Path, lines: list[str], message: str) -> None:
    assert message in refused(LIST, write_list(tmp_path, *lines))


@pytest.mark.parametrize("line", ['a.png,"x', f"a.png,{'y' * 131_073}", 'a.png,"x"y'])
def test_a_field_that_swallows_others_is_named_by_its_line(tmp_path: Path, line: str) -> None:
    said = refused(LIST, write_list(tmp_path, "path,label", "b.png,y", line))
    assert "labels.csv, line 3: " in said
    assert "close the quote that may be open before it, or shorten it" in said
    assert len(said) < 500


def test_a_list_that_is_no_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_bytes(b"")
    assert "labels.csv: not a CSV file" in refused(LIST, tmp_path)
    (tmp_path / "labels.csv").write_bytes(b"\x89PNG\x00\xff\xfe")
    assert "labels.csv: not a CSV file" in refused(LIST, tmp_path)
    (tmp_path / "labels.csv").unlink()
    assert "labels.csv: no such file" in refused(LIST, tmp_path)


# Spelling


def write_faces(folder: Path, *names: str) -> None:
    for number, name in enumerate(names):
        save_image(folder / name, 10 * number + 10)


FACES = ("faces/a.png", "faces/b.png", "faces/c.png")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
@pytest.mark.parametrize("separator", [",", ";", "\t", "|", "sep=;", "  "])
def test_a_list_is_read_with_any_usual_separator_and_encoding(tmp_path: Path, separator: str, encoding: str) -> None:
    write_faces(tmp_path, *FACES)
    excel, separator = ("sep=;\r\n", ";") if separator == "sep=;" else ("", separator)
    rows = [separator.join(row) for row in (("path", "label"), *zip(FACES, ("happy", "sad", "happy"), strict=True))]
    (tmp_path / "labels.csv").write_bytes((excel + "\r\n".join(rows)).encode(encoding))
    source = open_source(LIST, tmp_path)
    assert names_by_id(source) == {"faces/a": "happiness", "faces/b": "sadness", "faces/c": "happiness"}
    assert source.read_image(2).getpixel((0, 0)) == (30, 225, 128)


@pytest.mark.parametrize(
    "header",
    [
        ("path", "label"),
        (" Path ", " LABEL"),
        ("image", "emotion"),
        ("filename", "expression"),
        ("file_path", "Emotion"),
        ("pth", "class"),
        ("Image Name", "Category"),
        ("image_id", "emotion_label"),
        ("fname", "Emotion Name"),
        ("img-id", "Facial Expression"),
        ("face_path", "ground truth"),
    ],
)
def test_the_columns_are_known_by_any_usual_name(tmp_path: Path, header: tuple[str, str]) -> None:
    write_rows(tmp_path / "labels.csv", header, *zip(FACES, ("happy", "sad", "happy"), strict=True))
    assert counts(open_source(LIST, tmp_path)) == {"happiness": 2, "sadness": 1}


def test_columns_that_are_not_used_are_told_and_words_go_before_numbers(tmp_path: Path) -> None:
    rows = [(0, "faces/a.png", 3, "happy", 0.4), (1, "faces/b.png", 4, "sad", 0.1)]
    write_rows(tmp_path / "labels.csv", ("", "path", "label", "emotion", "valence"), *rows)
    source = open_source(LIST, tmp_path)
    assert source.labels == ("happiness", "sadness")
    assert source.notes[-1] == "columns not used: label, valence"


@pytest.mark.parametrize("header", ["subject", "Subject_ID", "personId", "participant no", "Actor", "identity"])
def test_a_column_that_says_whose_face_it_is_is_known_by_any_usual_name(tmp_path: Path, header: str) -> None:
    write_rows(
        tmp_path / "labels.csv", ("path", "label", header), ("a", "happy", "S1"), ("b", "sad", ""), ("c", "sad", 2)
    )
    source = open_source(LIST, tmp_path)
    assert source.records["person"].tolist() == ["S1", "", "2"]
    assert f"people by the column {header}; where a split is cut, each is on one side" in source.notes
    assert not any("not used" in note for note in source.notes)


def test_file_names_that_may_be_peoples_are_told_where_no_column_says_it(tmp_path: Path) -> None:
    rows = [(f"{label}\\S{who}_001.png", label, f"S{who}") for label in ("happy", "sad") for who in range(10, 17)]
    write_rows(tmp_path / "labels.csv", ("path", "label", "who"), *rows)
    told = "file names of several classes begin alike: S10, S11, S12 and 4 more"
    assert any(note.startswith(told) for note in open_source(LIST, tmp_path).notes)
    write_rows(tmp_path / "labels.csv", ("path", "label", "subject"), *rows)
    assert not any("begin alike" in note for note in open_source(LIST, tmp_path).notes)


@pytest.mark.parametrize("nobody", ["unknown", "NaN", "None", "-1", "n/a"])
def test_faces_of_nobody_known_are_not_one_persons(tmp_path: Path, nobody: str) -> None:
    subjects = ("S1", nobody, "S2", nobody, nobody)
    rows = zip("abcde", ("happy", "sad", "sad", "happy", "sad"), subjects, strict=True)
    write_rows(tmp_path / "labels.csv", ("path", "label", "subject"), *rows)
    assert open_source(LIST, tmp_path).records["person"].tolist() == ["S1", "", "S2", "", ""]


def test_a_person_is_the_same_in_two_lists_however_its_number_is_written(tmp_path: Path) -> None:
    write_rows(tmp_path / "train.csv", ("path", "label", "subject"), ("a", "happy", "001"), ("b", "sad", "002"))
    write_rows(tmp_path / "test.csv", ("path", "label", "subject"), ("c", "happy", "1.0"), ("d", "sad", "2"))
    assert open_source(LIST, tmp_path).records["person"].tolist() == ["1", "2", "1", "2"]


@pytest.mark.parametrize("subjects", [("S1", "S1", "S1"), ("0", "0", "1"), ("", "", "")])
def test_a_column_that_tells_nobody_apart_is_not_used(tmp_path: Path, subjects: tuple[str, ...]) -> None:
    rows = zip("abc", ("happy", "sad", "sad"), subjects, strict=True)
    write_rows(tmp_path / "labels.csv", ("path", "label", "subject"), *rows)
    source = open_source(LIST, tmp_path)
    assert "person" not in source.records
    assert "columns not used: subject" in source.notes


def test_windows_slashes_accents_and_encodings_of_paths_are_found(tmp_path: Path) -> None:
    names = ("faces/ni\u00f1o.png", "faces/pe\u0301.png", os.fsdecode(b"faces/ba\xf1o.png"), "faces/x y.png")
    write_faces(tmp_path, *names)
    listed = ["path,label", "faces\\x y.png,happy", "faces/ni\xf1o.png,sad", "faces/p\u00e9.png,sad"]
    (tmp_path / "labels.csv").write_text("\n".join(listed), encoding="utf-8")
    source = open_source(LIST, tmp_path)
    assert [source.read_image(row).getpixel((0, 0))[0] for row in range(3)] == [40, 10, 20]  # type: ignore[index]
    assert source.records["id"].tolist() == ["faces/x y", "faces/ni\xf1o", "faces/p\u00e9"]

    (tmp_path / "labels.csv").write_bytes(
        "path,label\nfaces/ni\xf1o.png,happy\nfaces/ba\xf1o.png,sad\n".encode("cp1252")
    )
    source = open_source(LIST, tmp_path)
    assert [source.read_image(row).getpixel((0, 0))[0] for row in range(2)] == [10, 30]  # type: ignore[index]
    assert source.records["id"].tolist() == [r"faces/ni\xf1o", r"faces/ba\xf1o"]


def test_images_listed_without_their_ending_are_found(tmp_path: Path) -> None:
    write_faces(tmp_path, "a.png", "b.png")
    write_rows(tmp_path / "labels.csv", ("image", "label"), ("a", "happy"), ("b", "sad"))
    assert open_source(LIST, tmp_path).read_image(1).size == (20, 20)


def test_images_in_a_folder_beside_the_list_are_found(tmp_path: Path) -> None:
    write_faces(tmp_path / "archive" / "images", "a.png", "b.png")
    write_rows(tmp_path / "labels.csv", ("image", "label"), ("a.png", "happy"), ("b.png", "sad"))
    assert open_source(LIST, tmp_path).read_image(1).size == (20, 20)


def test_a_list_for_each_split_finds_the_images_of_its_own(tmp_path: Path) -> None:
    for split, shade in (("train", 10), ("test", 200)):
        for name in ("1.png", "2.png"):
            save_image(tmp_path / split / name, shade)
        write_rows(tmp_path / f"{split}_labels.csv", ("image", "label"), ("1.png", "happy"), ("2.png", "sad"))
    source = open_source(LIST, tmp_path)
    assert splits_by_id(source) == {
        "test/1.png": "test",
        "test/2.png": "test",
        "train/1.png": "train",
        "train/2.png": "train",
    }
    assert [source.read_image(row).getpixel((0, 0))[0] for row in (0, 2)] == [200, 10]  # type: ignore[index]

    write_rows(tmp_path / "labels.csv", ("image", "label"), ("1.png", "happy"), ("2.png", "sad"))
    assert "its images may be those in" in refused(LIST, tmp_path)


def write_numbered(folder: Path, there: Iterable[int], shade: int) -> None:
    for number in there:
        save_image(folder / f"{number}.png", shade)


def numbered_list(path: Path, count: int) -> None:
    write_rows(path, ("image", "label"), *((f"{n}.png", ("happy", "sad")[n % 2]) for n in range(count)))


def test_a_list_never_takes_images_of_another_split_for_those_of_its_own(tmp_path: Path) -> None:
    write_numbered(tmp_path / "train", range(40), 10)
    write_numbered(tmp_path / "test", set(range(20)) - {4}, 200)
    numbered_list(tmp_path / "test.csv", 20)
    source = open_source(LIST, tmp_path)
    assert source.read_image(3).getpixel((0, 0)) == (200, 55, 128)
    with pytest.raises(UnreadableImage, match=r"test/4\.png: no such file"):
        source.read_image(4)

    for path in (tmp_path / "test").iterdir():
        path.unlink()
    with pytest.raises(UnreadableImage, match=r"no such file; is it train/3\.png\?"):
        open_source(LIST, tmp_path).read_image(3)


def test_the_folder_of_a_lists_split_goes_before_one_that_holds_more(tmp_path: Path) -> None:
    write_numbered(tmp_path / "images", range(40), 10)
    write_numbered(tmp_path / "test" / "faces", range(15), 200)
    numbered_list(tmp_path / "test.csv", 20)
    assert open_source(LIST, tmp_path).read_image(0).getpixel((0, 0)) == (200, 55, 128)


def test_a_folder_that_nearly_all_images_are_in_too_is_named(tmp_path: Path) -> None:
    write_numbered(tmp_path / "photos", range(40), 10)
    write_numbered(tmp_path / "faces", set(range(40)) - {6, 20}, 200)
    numbered_list(tmp_path / "labels.csv", 40)
    said = refused(LIST, tmp_path)
    assert f"may be those in {tmp_path / 'faces'} or in {tmp_path / 'photos'}; write their paths" in said

    write_numbered(tmp_path, set(range(40)) - {6}, 100)
    assert open_source(LIST, tmp_path).read_image(0).getpixel((0, 0)) == (100, 155, 128)


def test_images_that_no_list_names_are_counted(tmp_path: Path) -> None:
    write_faces(tmp_path, "a.png", "b.png", "more/c.png")
    write_rows(tmp_path / "labels.csv", ("image", "label"), ("a.png", "happy"), ("b.png", "sad"))
    assert "images that are not listed, not read: 1" in open_source(LIST, tmp_path).notes


@pytest.mark.parametrize("name", ["legend.csv", "Labels.tsv"])
def test_the_only_list_in_a_folder_needs_no_name(tmp_path: Path, name: str) -> None:
    write_rows(tmp_path / name, ("path", "label"), ("a.png", "happy"), ("b.png", "sad"))
    assert len(open_source(LIST, tmp_path).records) == 2
    (tmp_path / "other.csv").write_text("")
    assert "no labels.csv, but 2 others (" in refused(LIST, tmp_path)


def test_pixels_in_a_list_point_to_fer2013(tmp_path: Path) -> None:
    write_rows(tmp_path / "labels.csv", ("emotion", "pixels", "Usage"), (3, "1 2", "Training"))
    assert "set dataset.source = 'fer2013'" in refused(LIST, tmp_path)


# Splits


@pytest.mark.parametrize("column", ["Usage", "split", "Split", "set", "subset", "partition", "whatever"])
@pytest.mark.parametrize(
    "values",
    [
        ("Training", "PublicTest", "PrivateTest"),
        ("train", "val", "test"),
        ("TRAIN", "Valid", "TESTING"),
        (" training ", "validation", "Test"),
        ("train", "dev", "test"),
        ("entrenamiento", "validaci\u00f3n", "prueba"),
        ("Treino", "Validac\u0327a\u0303o", "Teste"),
    ],
)
def test_a_column_of_splits_is_read_whatever_it_is_called(
    tmp_path: Path, column: str, values: tuple[str, str, str]
) -> None:
    rows = [(f"{value}/{label}.png", label, value) for value in values for label in ("happy", "sad")]
    write_rows(tmp_path / "labels.csv", ("path", "label", column), *rows)
    assert open_source(LIST, tmp_path).records["split"].tolist() == ["train"] * 2 + ["validation"] * 2 + ["test"] * 2


def test_splits_that_are_given_twice_have_to_agree(tmp_path: Path) -> None:
    rows = [("a.png", "happy", "train", "Training"), ("b.png", "sad", "test", "PrivateTest")]
    write_rows(tmp_path / "labels.csv", ("path", "label", "split", "Usage"), *rows)
    assert open_source(LIST, tmp_path).records["split"].tolist() == ["train", "test"]
    write_rows(
        tmp_path / "labels.csv", ("path", "label", "split", "Usage"), rows[0], ("b.png", "sad", "test", "Training")
    )
    assert "line 3: its split and its Usage differ" in refused(LIST, tmp_path)


@pytest.mark.parametrize(
    ("column", "values"),
    [
        ("partition", ("0", "1")),
        ("subset", ("tr", "te")),
        ("is_train", ("True", "False")),
        ("istraining", ("1", "0")),
        ("test", ("0", "1")),
        ("train_test", ("a", "b")),
    ],
)
def test_a_column_that_seems_to_hold_splits_is_not_passed_over(
    tmp_path: Path, column: str, values: tuple[str, str]
) -> None:
    rows = [(f"{value}.png", label, value) for value, label in zip(values, ("happy", "sad"), strict=True)]
    write_rows(tmp_path / "labels.csv", ("path", "label", column), *rows)
    assert f"the column {column} seems to say which split an image is in" in refused(LIST, tmp_path)


def test_a_value_that_is_no_split_among_those_that_are_is_named(tmp_path: Path) -> None:
    rows = [("a.png", "happy", "train"), ("b.png", "sad", "test"), ("c.png", "sad", "unused")]
    write_rows(tmp_path / "labels.csv", ("path", "label", "role"), *rows)
    assert "line 4: its role must be train, validation, test or empty" in refused(LIST, tmp_path)


def test_a_list_for_each_split_is_read(tmp_path: Path) -> None:
    for name in ("train_labels", "test_labels"):
        write_rows(tmp_path / f"{name}.csv", ("image", "label"), (f"{name}1.png", "happy"), (f"{name}2.png", "sad"))
    assert set(open_source(LIST, tmp_path).records["split"]) == {"train", "test"}


def test_folders_in_the_paths_say_the_split(tmp_path: Path) -> None:
    paths = [
        "faces/train/P1/a.png",
        "faces/train/P2/a.png",
        "faces\\validation\\P3\\a.png",
        "faces/Test_set/P4/a.png",
        "b.png",
    ]
    rows = list(zip(paths, ["happy", "sad", "happy", "sad", "happy"], strict=True))
    write_rows(tmp_path / "labels.csv", ("path", "label"), *rows)
    source = open_source(LIST, tmp_path)
    assert source.records["split"].tolist() == ["train", "train", "validation", "test", ""]
    assert "splits by the folders in the paths" in source.notes
    # A column says it better, and a folder that all of them share says nothing.
    write_rows(tmp_path / "labels.csv", ("path", "label", "split"), *((*row, "test") for row in rows))
    assert set(open_source(LIST, tmp_path).records["split"]) == {"test"}
    write_rows(tmp_path / "labels.csv", ("path", "label"), ("/x/train/a.png", "happy"), ("/x/train/b.png", "sad"))
    source = open_source(LIST, tmp_path)
    assert source.records["split"].tolist() == ["", ""]
    assert not any("folders" in note for note in source.notes)


def test_a_list_without_a_header_is_told(tmp_path: Path) -> None:
    write_list(tmp_path, "1/a.jpg,12,40,5,5,x;y,3,.1,-.5", "1/b.jpg,13,42,7,9,x;y,3,.2,-.5")
    assert "labels.csv: its first line is no header (1/a.jpg, 12, 40, …); write one above it" in refused(LIST, tmp_path)


@pytest.mark.parametrize("separator", [",", " ", "\t"])
def test_a_first_line_that_names_an_image_is_no_header(tmp_path: Path, separator: str) -> None:
    write_list(tmp_path, f"train/1.PNG{separator}happy", f"train/2.PNG{separator}sad")
    said = refused(LIST, tmp_path)
    assert (
        "labels.csv: its first line is no header (train/1.PNG, happy); write one above it, such as path,label" in said
    )


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
    ("headers", "box"),
    [
        (("x", "y", "w", "h"), (5, 4, 10, 8)),
        (("bbox_x", "bbox_y", "bbox_width", "bbox_height"), (5, 4, 10, 8)),
        (("Left", "Top", "Width", "Height"), (5, 4, 10, 8)),
        (("xmin", "ymin", "xmax", "ymax"), (5, 4, 15, 12)),
        (("face_x1", "face_y1", "face_x2", "face_y2"), (5, 4, 15, 12)),
        (("face_box_left", "face_box_top", "face_box_right", "face_box_bottom"), (5, 4, 15, 12)),
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


def test_a_face_box_in_shares_of_the_picture_is_told_to_be_wanted_in_pixels(tmp_path: Path) -> None:
    write_faces(tmp_path, "a.png", "b.png")
    rows = [("a.png", "happy", 0.2, 0.2, 0.5, 0.5), ("b.png", "sad", 0.2, 0.2, 0.5, 0.5)]
    write_rows(tmp_path / "labels.csv", ("path", "label", "x", "y", "w", "h"), *rows)
    with pytest.raises(
        UnreadableImage, match=r"a\.png: its face box .* is not within its 20 x 20 pixels; give it in pix"
    ):
        open_source(LIST, tmp_path).read_image(0)


def test_labels_that_contradict_the_folders_in_their_paths_are_told(tmp_path: Path) -> None:
    names = ["faces/joy/1.png", "faces\\happy\\2.png", "faces/sad/3.png", "faces/others/4.png"]
    labels = ["happy", "sad", "happy", "sad"]
    write_rows(tmp_path / "labels.csv", ("path", "label"), *zip(names, labels, strict=True))
    told = "labels of another emotion than their folder's: 2 of 3, such as faces\\happy\\2.png (sadness)"
    assert f"{told}; are the rows in step?" in open_source(LIST, tmp_path).notes
    labels = ["happy", "happy", "sad", "sad"]
    for paths in (names, [f"/home/joy/{number}.png" for number in range(4)]):
        write_rows(tmp_path / "labels.csv", ("path", "label"), *zip(paths, labels, strict=True))
        assert not any("in step" in note for note in open_source(LIST, tmp_path).notes)


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


def test_an_empty_cell_takes_the_split_of_its_list_and_none_may_contradict_it(tmp_path: Path) -> None:
    for split in ("Training", "Test"):
        rows = [(f"{split}1.png", "happy", split), (f"{split}2.png", "sad", "")]
        write_rows(tmp_path / f"{split}.csv", ("path", "label", "Usage"), *rows)
    assert open_source(LIST, tmp_path).records["split"].tolist() == ["test"] * 2 + ["train"] * 2
    write_rows(tmp_path / "Test.csv", ("path", "label", "Usage"), ("c.png", "happy", ""), ("d.png", "sad", ""))
    assert open_source(LIST, tmp_path).notes[1:] == ("splits by the column Usage",)
    write_rows(tmp_path / "Training.csv", ("path", "label", "Usage"), ("a.png", "happy", ""), ("b.png", "sad", "val"))
    assert set(open_source(LIST, tmp_path).records["split"]) == {"train", "validation", "test"}
    write_rows(tmp_path / "Training.csv", ("path", "label", "Usage"), ("a.png", "happy", ""), ("b.png", "sad", "test"))
    said = refused(LIST, tmp_path)
    assert (
        "Training.csv, line 3: its Usage says test, but by its name, or its folder's, the list is that of train" in said
    )


def test_the_lists_in_folders_of_splits_are_all_read(tmp_path: Path) -> None:
    for split, shade in (("train", 10), ("test", 200)):
        for name in ("1.png", "2.png"):
            save_image(tmp_path / split / name, shade)
        write_rows(tmp_path / split / "labels.csv", ("image", "label"), ("1.png", "happy"), ("2.png", "sad"))
    source = open_source(LIST, tmp_path)
    assert splits_by_id(source) == {f"{split}/{n}.png": split for split in ("test", "train") for n in (1, 2)}
    assert [source.read_image(row).getpixel((0, 0))[0] for row in (0, 2)] == [200, 10]  # type: ignore[index]
    (tmp_path / "train").rename(tmp_path / "more")
    assert "several folders hold lists (more/labels.csv, test/labels.csv)" in refused(LIST, tmp_path)


def test_lists_that_are_passed_over_are_named(tmp_path: Path) -> None:
    for name in ("labels", "test", "extra"):
        write_rows(tmp_path / f"{name}.csv", ("image", "label"), (f"{name}1.png", "happy"), (f"{name}2.png", "sad"))
    assert "files beside the list, not read: extra.csv, test.csv" in open_source(LIST, tmp_path).notes
    (tmp_path / "labels.csv").unlink()
    assert "files beside the list, not read: extra.csv" in open_source(LIST, tmp_path).notes


# Labels


def test_labels_of_one_emotion_are_one_class_and_strays_are_named(tmp_path: Path) -> None:
    labels = ["happy"] * 20 + ["HAPPY"] * 15 + ["Joy"] * 5 + ["sad"] * 20 + ["Sadness"] * 20 + ["Uncertain"] * 4
    rows = [(f"{number}.png", label) for number, label in enumerate(labels)]
    write_rows(tmp_path / "labels.csv", ("path", "label"), *rows)
    assert "labels.csv: labels Uncertain (4) of 84 images" in refused(LIST, tmp_path)
    source = open_source(DatasetSettings(source="csv", classes={"Uncertain": "drop"}), tmp_path)
    assert counts(source) == {"happiness": 40, "sadness": 40}
    assert len(source.records) == 80


@pytest.mark.parametrize("labels", [("0", "1"), ("1", "2"), ("3.0", "4.0")])
def test_numbered_labels_need_a_map(tmp_path: Path, labels: tuple[str, str]) -> None:
    write_rows(tmp_path / "labels.csv", ("path", "label"), ("a.png", labels[0]), ("b.png", labels[1]))
    assert f"labels {labels[0]} (1), {labels[1]} (1), but numbers have no meaning of their own" in refused(
        LIST, tmp_path
    )
    table = {str(int(float(label))): emotion for label, emotion in zip(labels, ("fear", "anger"), strict=True)}
    assert counts(open_source(DatasetSettings(source="csv", classes=table), tmp_path)) == {"anger": 1, "fear": 1}


def test_a_map_holds_for_the_distributions_columns_too(tmp_path: Path) -> None:
    header = ("path", "label", "p_smile", "p_sad", "p_other")
    write_rows(
        tmp_path / "labels.csv",
        header,
        ("a.png", "smile", 6, 2, 2),
        ("b.png", "sad", 0, 3, 1),
        ("c.png", "other", 0, 1, 9),
    )
    table = {"smile": "happiness", "other": "drop"}
    source = open_source(DatasetSettings(source="csv", classes=table), tmp_path)
    assert source.labels == ("happiness", "sadness")
    np.testing.assert_allclose(source.distributions, np.array([[0.75, 0.25], [0, 1]]))  # type: ignore[arg-type]


# AffectNet

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


@pytest.mark.parametrize("settings", [LIST, AFFECTNET, FER2013], ids=lambda settings: settings.source)
def test_a_pipe_instead_of_a_list_is_refused(tmp_path: Path, settings: DatasetSettings) -> None:
    os.mkfifo(tmp_path / "labels.csv")
    assert "labels.csv: not a folder" in refused(settings, tmp_path / "labels.csv")
    assert refused(settings, tmp_path)


def test_a_pipe_in_a_list_is_an_unreadable_image(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.png")
    write_rows(tmp_path / "labels.csv", ("path", "label"), ("a.png", "happy"), ("b.png", "sad"))
    with pytest.raises(UnreadableImage, match=r"a\.png: not a regular file"):
        open_source(LIST, tmp_path).read_image(0)


TWELVE = [f"{number}.png" for number in range(12)]
WORDS = ["happy", "sad", "angry"] * 4


def with_columns(folder: Path, **columns: list[object]) -> Path:
    """A list of twelve images that are there, with further columns."""
    for name in TWELVE:
        save_image(folder / name)
    table = {"path": list[object](TWELVE), "label": list[object](WORDS)} | columns
    write_rows(folder / "labels.csv", tuple(table), *zip(*table.values(), strict=True))
    return folder


def test_the_column_that_holds_emotions_is_the_labels(tmp_path: Path) -> None:
    source = open_source(LIST, with_columns(tmp_path, label=["adult", "child"] * 6, emotion=[*WORDS]))
    assert source.labels == ("happiness", "sadness", "anger")
    assert "columns not used: label" in source.notes


def test_the_column_whose_labels_are_named_is_the_labels(tmp_path: Path) -> None:
    settings = DatasetSettings(source="csv", classes={"0": "happiness", "1": "sadness", "2": "anger"})
    source = open_source(settings, with_columns(tmp_path, label=[0, 1, 2] * 4, category=["adult", "child"] * 6))
    assert counts(source) == {"happiness": 4, "sadness": 4, "anger": 4}


def test_labels_are_named_in_whatever_case(tmp_path: Path) -> None:
    settings = DatasetSettings(source="csv", classes={"wut": "anger", "freude": "happiness", "Trauer": "sadness"})
    words: list[object] = [word for word in ("Wut", "FREUDE", "trauer") for _ in range(4)]
    source = open_source(settings, with_columns(tmp_path, label=["adult", "child"] * 6, category=words))
    assert counts(source) == {"happiness": 4, "sadness": 4, "anger": 4}


def test_affectnets_label_is_its_expression(tmp_path: Path) -> None:
    for name in TWELVE:
        save_image(tmp_path / name)
    rows = [(name, number % 3, ("adult", "child")[number % 2]) for number, name in enumerate(TWELVE)]
    write_rows(tmp_path / "training.csv", ("subDirectory_filePath", "expression", "category"), *rows)
    assert open_source(AFFECTNET, tmp_path).labels == ("neutral", "happiness", "sadness")


@pytest.mark.parametrize(
    ("header", "values"),
    [
        ("data_split", [0, 1, 2]),
        ("split_id", [0, 1, 1]),
        ("testset", [0, 1, 1]),
        ("partition", ["train_1", "train_2", "train_3", "val_1", "test_1", "test_2"]),
        ("subset", ["train", "test", "a", "b", "c", "d"]),
        ("set", ["s0", "s1", "s2", "s3", "s4", "s5"]),
    ],
)
def test_a_column_called_as_splits_that_cannot_be_read_is_refused(
    tmp_path: Path, header: str, values: list[object]
) -> None:
    columns = {header: (values * 4)[:12]}
    assert f"the column {header} seems to say which split" in refused(LIST, with_columns(tmp_path, **columns))


@pytest.mark.parametrize("values", [["valid", "", ""], ["valid", "invalid", "valid"], ["valid"]])
def test_a_column_of_checks_is_none_of_splits(tmp_path: Path, values: list[object]) -> None:
    source = open_source(LIST, with_columns(tmp_path, checked=(values * 12)[:12]))
    assert set(source.records["split"]) == {""}
    assert "columns not used: checked" in source.notes


def test_the_column_that_splits_is_told(tmp_path: Path) -> None:
    source = open_source(LIST, with_columns(tmp_path, session=["training", "test", "training"] * 4))
    assert sorted(set(source.records["split"])) == ["test", "train"]
    assert "splits by the column session" in source.notes


@pytest.mark.parametrize("missing", ["nan", "None", "N/A", "-", "?", "null"])
def test_what_programs_write_for_nothing_is_no_class(tmp_path: Path, missing: str) -> None:
    said = refused(LIST, with_columns(tmp_path, label=["smile", "frown", missing] * 4))
    assert f"labels {missing} (4) look like missing values; leave the label of such an image empty" in said


def test_ratings_are_no_classes(tmp_path: Path) -> None:
    assert "numbers have no meaning of their own" in refused(LIST, with_columns(tmp_path, label=[0.5, 1.5, 2.5] * 4))


@pytest.mark.parametrize("numbers", [[1, 2, 3, 4, 5, 6, 7], [1, 2, 3, 4, 5, 6, 7, 8]])
def test_numbers_counted_from_1_are_not_taken_for_affectnets(tmp_path: Path, numbers: list[int]) -> None:
    rows = [(f"{number}.png", number) for number in numbers]
    write_rows(tmp_path / "training.csv", ("subDirectory_filePath", "expression"), *rows)
    assert "its labels begin at 1, but AffectNet's order begins with 0" in refused(AFFECTNET, tmp_path)


def test_the_column_that_holds_files_is_the_path(tmp_path: Path) -> None:
    source = open_source(LIST, with_columns(tmp_path, path=[*range(12)], fname=[*TWELVE]))
    assert source.read_image(3).size == (20, 20)


def test_a_stray_image_beside_the_list_hides_none_in_a_folder(tmp_path: Path) -> None:
    for name in TWELVE:
        save_image(tmp_path / "images" / name)
    save_image(tmp_path / TWELVE[0])
    write_rows(tmp_path / "labels.csv", ("path", "label"), *zip(TWELVE, WORDS, strict=True))
    source = open_source(LIST, tmp_path)
    assert [source.read_image(row).size for row in range(12)] == [(20, 20)] * 12


@pytest.mark.parametrize(
    "wrong", ["im/007.PNG", "im/007.jpg", "IM/007.png", "/home/bob/im/007.png", "C:\\im\\007.png", "7"]
)
def test_a_file_that_is_missing_under_its_name_is_asked_after(tmp_path: Path, wrong: str) -> None:
    save_image(tmp_path / "im" / "007.png")
    write_rows(tmp_path / "labels.csv", ("path", "label"), (wrong, "happy"), ("8.png", "sad"))
    with pytest.raises(UnreadableImage, match=r"no such file; is it im/007\.png\?"):
        open_source(LIST, tmp_path).read_image(0)


def test_decimal_commas_and_shares_of_labelled_images_alone(tmp_path: Path) -> None:
    lines = ["path;label;P_happy;P_sad", "a.png;happy;7,5E-01;0,25", "b.png;sad;0,5;+1,5", "c.png;;;"]
    source = open_source(LIST, write_list(tmp_path, *lines))
    assert source.distributions is not None
    np.testing.assert_allclose(source.distributions[:2], np.array([[0.75, 0.25], [0.25, 0.75]]))
    assert source.records["split"].tolist() == ["", "", "unlabelled"]


@pytest.mark.parametrize("before", ["\n", "\r\n \n", "\n\nsep=;\n"])
def test_blank_lines_before_a_header_hide_no_separator(tmp_path: Path, before: str) -> None:
    for name in "ab":
        save_image(tmp_path / f"{name}.png")
    (tmp_path / "labels.csv").write_text(f"{before}path;label\na.png;happy\nb.png;sad\nb.png;sad\n", newline="")
    line = before.count("\n") + 4
    assert f"labels.csv, line {line}: its path is listed before" in refused(LIST, tmp_path)


def test_a_column_called_p_id_is_no_share(tmp_path: Path) -> None:
    assert "columns not used: P_ID" in open_source(LIST, with_columns(tmp_path, P_ID=[*range(12)])).notes


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


def test_shares_that_contradict_the_labels_are_refused(tmp_path: Path) -> None:
    rows = [(name, "happy", 1, 9) if row % 2 else (name, "sad", 9, 1) for row, name in enumerate(TWELVE)]
    write_rows(tmp_path / "labels.csv", ("path", "label", "p_happy", "p_sad"), *rows)
    said = refused(LIST, tmp_path)
    assert "the top of the distribution is the label for only 0% of the images; each p_CLASS must be" in said


@pytest.mark.parametrize("header", ["emotion", "Label", "expression"])
def test_words_that_are_no_emotions_do_not_take_the_place_of_a_column_called_so(tmp_path: Path, header: str) -> None:
    columns: dict[str, list[str]] = {header: list("0123") * 3, "category": ["adult"] * 6 + ["child"] * 6}
    for name in TWELVE:
        save_image(tmp_path / name)
    write_rows(tmp_path / "labels.csv", ("path", *columns), *zip(TWELVE, *columns.values(), strict=True))
    said = refused(LIST, tmp_path)
    assert f"its labels may be those of {header} or of category; take the other column out" in said
    assert len(listed_files(tmp_path)) == 13
    named = DatasetSettings(source="csv", classes={"0": "happiness", "1": "sadness", "2": "fear", "3": "drop"})
    assert counts(open_source(named, tmp_path)) == {"happiness": 3, "fear": 3, "sadness": 3}


def test_a_label_that_was_written_as_a_list_of_one_is_that_label(tmp_path: Path) -> None:
    lists: list[object] = [f"['{word}']" for word in WORDS]
    source = open_source(LIST, with_columns(tmp_path, label=lists))
    assert source.labels == open_source(LIST, with_columns(tmp_path)).labels
    lists[0] = "['happy', 'sad']"
    said = refused(LIST, with_columns(tmp_path, label=lists))
    assert "labels ['happy', 'sad'] (1) of 12 images are no names of emotions" in said


def test_a_column_of_labels_that_is_empty_gives_way_to_one_that_is_not(tmp_path: Path) -> None:
    of_words: dict[str, list[object]] = {"label": [""] * 12, "category": ["calm", "awake", "bored"] * 4}
    assert open_source(LIST, with_columns(tmp_path, **of_words)).labels == ("awake", "bored", "calm")
    said = refused(LIST, with_columns(tmp_path, label=[""] * 12, target=[0, 1, 2] * 4))
    assert "labels 0 (4), 1 (4), 2 (4), but numbers have no meaning of their own" in said


def test_which_of_two_files_a_name_without_an_ending_means_is_told(tmp_path: Path) -> None:
    for name in TWELVE[:4]:
        save_image((tmp_path / name).with_suffix(".jpg"))
    stems: list[object] = [name.removesuffix(".png") for name in TWELVE]
    notes = open_source(LIST, with_columns(tmp_path, path=stems)).notes
    assert "names without an ending that several files have: 4, of which 0.jpg is read" in notes
    assert not any("without an ending" in note for note in open_source(LIST, with_columns(tmp_path)).notes)


def test_words_beside_their_own_numbers_are_the_labels(tmp_path: Path) -> None:
    columns: dict[str, list[object]] = {"label": [0, 1, 2] * 4, "class_name": ["calm", "awake", "bored"] * 4}
    assert open_source(LIST, with_columns(tmp_path, **columns)).labels == ("awake", "bored", "calm")


def test_labels_in_another_encoding_are_text_and_their_paths_keep_their_bytes(tmp_path: Path) -> None:
    names = [os.fsdecode(f"\xfc{number}.png".encode("cp1252")) for number in range(3)]
    write_faces(tmp_path, *names)
    lines = ["path,label,p_\xdcberraschung,p_Freude,split", "\xfc0.png,\xdcberraschung,3,1,validaci\xf3n"]
    lines += ["\xfc1.png,Freude,0,1,train", "\xfc2.png,\xdcBERRASCHUNG,1,0,train"]
    (tmp_path / "labels.csv").write_bytes("\n".join(lines).encode("cp1252"))
    source = open_source(LIST, tmp_path)
    assert source.labels == ("Freude", "\xdcBERRASCHUNG")
    assert source.records["split"].tolist() == ["validation", "train", "train"]
    assert source.read_image(1).getpixel((0, 0)) == (20, 235, 128)
    named = DatasetSettings(source="csv", classes={"\xfcberraschung": "surprise", "freude": "joy"})
    assert counts(open_source(named, tmp_path)) == {"happiness": 1, "surprise": 2}


def test_affectnet_as_npy_files_is_refused_by_what_is_looked_for(tmp_path: Path) -> None:
    save_image(tmp_path / "train_set" / "images" / "1.jpg")
    (tmp_path / "train_set" / "annotations").mkdir()
    np.save(tmp_path / "train_set" / "annotations" / "1_exp.npy", "3")
    for given in (tmp_path, tmp_path / "train_set"):
        said = refused(AFFECTNET, given)
        assert "not AffectNet; looked for training.csv and validation.csv; annotations as .npy are not read" in said
