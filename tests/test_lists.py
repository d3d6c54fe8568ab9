"""CSV files that list images: their columns, separators and encodings."""

import os
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
from helpers.listed_faces import FACES, TWELVE, WORDS, with_columns, write_faces, write_list

from fer_core.data.readers import open_source
from fer_core.data.readers.listed import listed_files
from fer_core.experiment import DatasetSettings
from flows.study import open_study
from openface.decoding import UnreadableImage


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


@pytest.mark.parametrize(
    "text",
    ['[{"path": "a.png", "label": "happy"}]', '[\n  ["a.png", "happy"]\n]', '{"path": "a.png"}\n{"path": "b.png"}\n'],
)
def test_a_list_as_json_is_told_to_be_wanted_as_csv(tmp_path: Path, text: str) -> None:
    (tmp_path / "faces.json").write_text(text)
    assert "faces.json: not a CSV file (JSON); save it as CSV, with a header" in refused(LIST, tmp_path / "faces.json")


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
        ("image", "label_text"),
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


@pytest.mark.parametrize("ending", [".png", ".PNG"])
def test_images_listed_without_their_ending_are_found(tmp_path: Path, ending: str) -> None:
    write_faces(tmp_path, "a.png", f"b{ending}")
    write_rows(tmp_path / "labels.csv", ("image", "label"), ("a", "happy"), ("b", "sad"))
    assert open_source(LIST, tmp_path).read_image(1).size == (20, 20)


def test_images_in_a_folder_beside_the_list_are_found(tmp_path: Path) -> None:
    write_faces(tmp_path / "archive" / "images", "a.png", "b.png")
    write_rows(tmp_path / "labels.csv", ("image", "label"), ("a.png", "happy"), ("b.png", "sad"))
    assert open_source(LIST, tmp_path).read_image(1).size == (20, 20)


def test_images_that_no_list_names_are_counted(tmp_path: Path) -> None:
    write_faces(tmp_path, "a.png", "b.png", "more/c.png")
    write_rows(tmp_path / "labels.csv", ("image", "label"), ("a.png", "happy"), ("b.png", "sad"))
    assert "images that are not listed, not read: 1" in open_source(LIST, tmp_path).notes


def test_images_that_a_list_names_by_way_of_another_folder_are_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_faces(tmp_path / "images", "a.png", "b.png")
    names = ("../images/a.png", str(tmp_path / "images" / "b.png"))
    write_rows(tmp_path / "lists" / "labels.csv", ("image", "label"), *zip(names, ("happy", "sad"), strict=True))
    monkeypatch.chdir(tmp_path.parent)
    for given in (tmp_path, Path(tmp_path.name)):
        assert not any("not listed" in note for note in open_source(LIST, given).notes)
    rows = ((names[1], "happy"), ("../images/b.png", "sad"))
    write_rows(tmp_path / "lists" / "labels.csv", ("image", "label"), *rows)
    assert "line 3: its path is listed before" in refused(LIST, Path(tmp_path.name))


@pytest.mark.parametrize("name", ["legend.csv", "Labels.tsv"])
def test_the_only_list_in_a_folder_needs_no_name(tmp_path: Path, name: str) -> None:
    write_rows(tmp_path / name, ("path", "label"), ("a.png", "happy"), ("b.png", "sad"))
    assert len(open_source(LIST, tmp_path).records) == 2
    (tmp_path / "other.csv").write_text("")
    assert "no labels.csv, but 2 others (" in refused(LIST, tmp_path)


def test_pixels_in_a_list_point_to_fer2013(tmp_path: Path) -> None:
    write_rows(tmp_path / "labels.csv", ("emotion", "pixels", "Usage"), (3, "1 2", "Training"))
    assert "set dataset.source = 'fer2013'" in refused(LIST, tmp_path)


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


def test_lists_that_are_passed_over_are_named(tmp_path: Path) -> None:
    for name in ("labels", "test", "extra"):
        write_rows(tmp_path / f"{name}.csv", ("image", "label"), (f"{name}1.png", "happy"), (f"{name}2.png", "sad"))
    assert "files beside the list, not read: extra.csv, test.csv" in open_source(LIST, tmp_path).notes
    (tmp_path / "labels.csv").unlink()
    assert "files beside the list, not read: extra.csv" in open_source(LIST, tmp_path).notes


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


@pytest.mark.parametrize("missing", ["nan", "None", "N/A", "-", "?", "null"])
def test_what_programs_write_for_nothing_is_no_class(tmp_path: Path, missing: str) -> None:
    said = refused(LIST, with_columns(tmp_path, label=["smile", "frown", missing] * 4))
    assert f"labels {missing} (4) look like missing values; leave the label of such an image empty" in said


def test_a_column_for_each_emotion_is_told_to_be_no_label(tmp_path: Path) -> None:
    write_rows(tmp_path / "_classes.csv", ("filename", " Angry", " Happy"), ("a.jpg", 0, 1), ("b.jpg", 1, 0))
    said = refused(LIST, tmp_path)
    assert "_classes.csv: no column label, but one for each of Angry, Happy; write the name of each image's" in said
    assert "may stay as p_Angry and so on" in said


def test_ratings_are_no_classes(tmp_path: Path) -> None:
    assert "numbers have no meaning of their own" in refused(LIST, with_columns(tmp_path, label=[0.5, 1.5, 2.5] * 4))


def test_the_column_that_holds_files_is_the_path(tmp_path: Path) -> None:
    source = open_source(LIST, with_columns(tmp_path, path=[*range(12)], fname=[*TWELVE]))
    assert source.read_image(3).size == (20, 20)


def test_of_two_columns_of_files_the_one_whose_files_are_there_is_the_path(tmp_path: Path) -> None:
    places = [f"{word}/{name}" for word, name in zip(WORDS, TWELVE, strict=True)]
    write_faces(tmp_path, *places)
    written = [place.replace("/", "\\") for place in places]
    rows = zip(TWELVE, written, WORDS, strict=True)
    write_rows(tmp_path / "labels.csv", ("filename", "filepath", "label"), *rows)
    source = open_source(LIST, tmp_path)
    assert source.read_image(3).size == (20, 20)
    assert source.records["id"].tolist() == [place.removesuffix(".png") for place in places]


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


@pytest.mark.parametrize("column", ["P_ID", "p_id", "p_no", "p_name"])
def test_a_column_of_peoples_numbers_is_no_share(tmp_path: Path, column: str) -> None:
    assert f"columns not used: {column}" in open_source(LIST, with_columns(tmp_path, **{column: [*range(12)]})).notes


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


def test_two_columns_of_emotions_that_contradict_each_other_are_named(tmp_path: Path) -> None:
    guessed: list[object] = ["happy", "sad", "sad"] * 4
    said = refused(LIST, with_columns(tmp_path, expression=guessed))
    assert "labels.csv, line 4: its label says angry and its expression says sad; take one of these columns out" in said
    assert len(listed_files(tmp_path)) == 13
    said = refused(LIST, with_columns(tmp_path, expression=["sad", "angry", "happy"] * 4))
    assert "line 2: its label says happy and its expression says sad" in said
    numbers = DatasetSettings(source="csv", classes={"0": "happiness", "1": "sadness", "2": "anger"})
    of_two = with_columns(tmp_path, label=[0, 1, 1] * 4, emotion=[0, 1, 2] * 4)
    assert "line 4: its label says 1 and its emotion says 2; take one of these columns out" in refused(numbers, of_two)


@pytest.mark.parametrize(
    "other",
    [
        ["Happiness", "Sadness", "Anger"] * 4,
        ["happy", "sad", "angry", "happy", "", "positive"] * 2,
        ["normal"] * 12,
        ["0", "1", "2"] * 4,
        ["positive", "negative", "negative"] * 4,
    ],
)
def test_a_second_column_that_contradicts_no_label_is_not_used(tmp_path: Path, other: list[object]) -> None:
    source = open_source(LIST, with_columns(tmp_path, category=other))
    assert source.labels == ("happiness", "sadness", "anger")
    assert "columns not used: category" in source.notes


def test_numbers_beside_their_words_that_are_both_named_are_one_label(tmp_path: Path) -> None:
    meaning = {"0": "happiness", "1": "sadness", "smile": "joy", "frown": "sadness"}
    folder = with_columns(tmp_path, label=[0, 1] * 6, category=["smile", "frown"] * 6)
    assert counts(open_source(DatasetSettings(source="csv", classes=meaning), folder)) == {"happiness": 6, "sadness": 6}


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
    for name, ending in zip(TWELVE[:4], (".jpg", ".jpg", ".JPG", ".JPG"), strict=True):
        save_image((tmp_path / name).with_suffix(ending))
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
    told = "labels of labels.csv are no UTF-8, and read as Western European, such as \xdcberraschung; if the letters"
    assert any(note.startswith(told) for note in source.notes)
    named = DatasetSettings(source="csv", classes={"\xfcberraschung": "surprise", "freude": "joy"})
    assert counts(open_source(named, tmp_path)) == {"happiness": 1, "surprise": 2}


def test_folders_and_people_in_another_encoding_are_read(tmp_path: Path) -> None:
    folder = os.fsdecode("a\xf1os".encode("cp1252"))
    write_faces(tmp_path, *(f"{folder}/{number}.png" for number in range(3)))
    people = ("Mu\xf1oz", "Pe\xf1a", "Ana")
    rows = [f"a\xf1os/{number}.png;{label};{who}" for number, label, who in zip("012", WORDS[:3], people, strict=True)]
    (tmp_path / "labels.csv").write_bytes("\n".join(["path;label;subject", *rows]).encode("cp1252"))
    source = open_source(LIST, tmp_path)
    assert source.records["person"].tolist() == [*people]
    assert source.records["id"].tolist() == [rf"a\xf1os/{number}" for number in range(3)]
    assert source.read_image(2).getpixel((0, 0)) == (30, 225, 128)


def test_a_list_that_is_a_link_has_its_images_beside_the_link(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So git-annex keeps files, and caches of datasets: elsewhere, and under other names."""
    monkeypatch.delenv("FER_DATA", raising=False)
    kept = tmp_path / "objects" / "MD5E-1f3"
    for number in range(6):
        save_image(tmp_path / "data" / "faces" / f"{number}.png", 40 * number)
    kept.parent.mkdir()
    kept.write_text("path,label\n" + "".join(f"faces/{n}.png,{('happy', 'sad')[n % 2]}\n" for n in range(6)))
    link = tmp_path / "data" / "labels.csv"
    link.symlink_to(kept)
    (tmp_path / "own.toml").write_text('title = "own"\nseeds = [1]\n[dataset]\nsource = "csv"\n')
    study = open_study(str(tmp_path / "own.toml"), str(link), None, None, (), str(tmp_path / "artifacts"))
    wanted = study.request("prepare", ())
    assert wanted.outside == link
    assert len(open_source(LIST, link).records) == 6
    assert study.command(wanted).reads == (tmp_path / "data", kept)
    before = wanted.fingerprint()
    kept.write_text(kept.read_text().replace("5.png,sad", "5.png,happy"))
    assert study.request("prepare", ()).fingerprint() != before
