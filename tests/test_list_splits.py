"""Splits that a list gives, in columns, files or folders, and people, who stay on one side of a cut."""

from collections.abc import Iterable
from pathlib import Path

import pytest
from helpers.dataset_files import LIST, refused, save_image, splits_by_id, write_rows
from helpers.listed_faces import with_columns

from fer_core.data.readers import open_source
from fer_core.experiment import DatasetSettings
from openface.decoding import UnreadableImage


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


@pytest.mark.parametrize("place", ["{who}", "VL\\{who}\\{label}", "/home/joy/train/{label}/{who}"])
def test_folders_in_paths_that_may_be_peoples_are_told_where_no_column_says_it(tmp_path: Path, place: str) -> None:
    rows = [
        (f"{place.format(who=who, label=label)}/{label}.png", label, who)
        for label in ("happy", "sad")
        for who in ("anna", "ben", "P03")
    ]
    write_rows(tmp_path / "labels.csv", ("path", "label", "who"), *rows)
    told = [note for note in open_source(LIST, tmp_path).notes if note.startswith("folders that several classes have")]
    assert len(told) == 1
    assert "anna" in told[0]
    assert "list the images in a CSV with a column subject" in told[0]
    write_rows(tmp_path / "labels.csv", ("path", "label", "subject"), *rows)
    assert not any("several classes" in note for note in open_source(LIST, tmp_path).notes)


def test_folders_of_splits_and_classes_are_not_taken_for_peoples(tmp_path: Path) -> None:
    rows = [(f"x/{split}/{label}/1.png", label) for split in ("train", "test") for label in ("happy", "smile")]
    write_rows(tmp_path / "labels.csv", ("path", "label"), *rows)
    settings = DatasetSettings(source="csv", classes={"smile": "smile"})
    assert not any("several classes" in note for note in open_source(settings, tmp_path).notes)


@pytest.mark.parametrize("nobody", ["unknown", "NaN", "None", "-1", "-1.0", "n/a"])
def test_faces_of_nobody_known_are_not_one_persons(tmp_path: Path, nobody: str) -> None:
    subjects = ("S1", nobody, "S2", nobody, nobody)
    rows = zip("abcde", ("happy", "sad", "sad", "happy", "sad"), subjects, strict=True)
    write_rows(tmp_path / "labels.csv", ("path", "label", "subject"), *rows)
    assert open_source(LIST, tmp_path).records["person"].tolist() == ["S1", "", "S2", "", ""]


def test_of_several_lists_the_one_with_other_shares_is_named(tmp_path: Path) -> None:
    for name, header in {"test": ("p_sad", "p_joy"), "train": ("p_sad", "p_fear"), "valid": ("p_sad", "p_joy")}.items():
        write_rows(tmp_path / f"{name}.csv", ("path", "label", *header), (name, "sad", 1, 0))
    assert "train.csv: its p_ columns are not those of test.csv" in refused(LIST, tmp_path)


def test_a_person_is_the_same_in_two_lists_however_its_number_is_written(tmp_path: Path) -> None:
    write_rows(tmp_path / "train.csv", ("path", "label", "subject"), ("a", "happy", "001"), ("b", "sad", "002"))
    write_rows(tmp_path / "test.csv", ("path", "label", "subject"), ("c", "happy", "1.0"), ("d", "sad", "2"))
    assert open_source(LIST, tmp_path).records["person"].tolist() == ["1", "2", "1", "2"]


def test_a_person_is_the_same_in_two_lists_however_its_name_is_written(tmp_path: Path) -> None:
    write_rows(tmp_path / "train.csv", ("path", "label", "subject"), ("a", "happy", "S01"), ("b", "sad", "Peña"))
    write_rows(tmp_path / "test.csv", ("path", "label", "subject"), ("c", "happy", "pen\u0303a"), ("d", "sad", "s01"))
    persons = open_source(LIST, tmp_path).records["person"].tolist()
    assert persons[0] == persons[3] != persons[1] == persons[2]


@pytest.mark.parametrize("other", ["subject_number", "Subject No", "subjectname", "subject_code"])
def test_what_counts_the_faces_of_a_person_is_not_the_person(tmp_path: Path, other: str) -> None:
    for columns in (("subject", other), (other, "subject"), ("subject_id", other), (other, "subject_id")):
        values = {name: [1, 2, 3, 4] if name == other else ["A", "A", "B", "B"] for name in columns}
        rows = zip("abcd", ("happy", "sad") * 2, *values.values(), strict=True)
        write_rows(tmp_path / "labels.csv", ("path", "label", *columns), *rows)
        assert open_source(LIST, tmp_path).records["person"].tolist() == ["A", "A", "B", "B"]


@pytest.mark.parametrize("subjects", [("S1", "S1", "S1"), ("0", "0", "1"), ("", "", "")])
def test_a_column_that_tells_nobody_apart_is_not_used(tmp_path: Path, subjects: tuple[str, ...]) -> None:
    rows = zip("abc", ("happy", "sad", "sad"), subjects, strict=True)
    write_rows(tmp_path / "labels.csv", ("path", "label", "subject"), *rows)
    source = open_source(LIST, tmp_path)
    assert "person" not in source.records
    assert "columns not used: subject" in source.notes


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


def test_splits_among_other_words_are_refused_where_nothing_else_says_them(tmp_path: Path) -> None:
    rows = [("a/1.png", "happy", "RAF_train", "train"), ("a/2.png", "sad", "RAF_test", "test")]
    write_rows(tmp_path / "labels.csv", ("path", "label", "source"), *(row[:3] for row in rows))
    told = "the column source seems to say which split an image is in, by RAF_test, RAF_train; write train, validation"
    assert told in refused(LIST, tmp_path)
    write_rows(tmp_path / "labels.csv", ("path", "label", "source", "split"), *rows)
    assert open_source(LIST, tmp_path).records["split"].tolist() == ["train", "test"]
    other = [(f"{split}/{name}", label, source) for name, label, source, split in rows]
    write_rows(tmp_path / "labels.csv", ("path", "label", "source"), *other)
    assert open_source(LIST, tmp_path).records["split"].tolist() == ["train", "test"]


def test_splits_that_names_of_listed_files_alone_say_are_told_not_to_count(tmp_path: Path) -> None:
    rows = [(f"x\\{split}_1.png", label) for split, label in (("Training", "sad"), ("test", "sad"), ("train", "happy"))]
    write_rows(tmp_path / "labels.csv", ("path", "label"), *rows)
    told = "names of files speak of splits, which do not count: train 2, test 1, such as Training_1; put the images"
    assert any(note.startswith(told) for note in open_source(LIST, tmp_path).notes)
    write_rows(tmp_path / "labels.csv", ("path", "label", "split"), *((*row, "train") for row in rows))
    assert not any("speak of splits" in note for note in open_source(LIST, tmp_path).notes)


def test_splits_that_contradict_the_folders_in_the_paths_are_told(tmp_path: Path) -> None:
    rows = [
        ("train/1.png", "sad", "train"),
        ("x\\train\\2.png", "happy", "Test"),
        ("train/3.png", "sad", "val"),
        ("test/4.png", "happy", "test"),
        ("val/5.png", "happy", "test"),
        ("test/6.png", "sad", "train"),
    ]
    write_rows(tmp_path / "labels.csv", ("path", "label", "split"), *rows)
    told = "images in a folder of another split: 2 of 6, such as x\\train\\2.png (test); are the rows in step?"
    assert told in open_source(LIST, tmp_path).notes
    for other in (rows[2:5], [(f"/home/test/{name}", label, "train") for name, label, _ in rows[:3]]):
        write_rows(tmp_path / "labels.csv", ("path", "label", "split"), *other)
        assert not any("in step" in note for note in open_source(LIST, tmp_path).notes)
    (tmp_path / "labels.csv").unlink()
    write_rows(tmp_path / "train.csv", ("path", "label"), *(row[:2] for row in rows))
    assert any(
        note.startswith("images in a folder of another split: 3 of 6") for note in open_source(LIST, tmp_path).notes
    )


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


@pytest.mark.parametrize("phases", [["onset", "apex", "offset"], ["neutral", "apex"], ["0", "1", "2"]])
def test_the_phase_of_an_expression_is_no_split(tmp_path: Path, phases: list[object]) -> None:
    source = open_source(LIST, with_columns(tmp_path, phase=(phases * 12)[:12]))
    assert set(source.records["split"]) == {""}
    assert "columns not used: phase" in source.notes
    assert set(open_source(LIST, with_columns(tmp_path, phase=["test"] * 12)).records["split"]) == {"test"}
    said = refused(LIST, with_columns(tmp_path, phase=["train_1", "train_2", "test_1"] * 4))
    assert "the column phase seems to say which split" in said


def test_the_column_that_splits_is_told(tmp_path: Path) -> None:
    source = open_source(LIST, with_columns(tmp_path, session=["training", "test", "training"] * 4))
    assert sorted(set(source.records["split"])) == ["test", "train"]
    assert "splits by the column session" in source.notes
