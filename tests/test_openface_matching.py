"""Rows of an AU table find their images by names, and never by numbers, or are told."""

import os
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import pytest
from helpers.openface_tables import (
    face,
    feature_extraction,
    frame,
    from_parquet,
    number_of,
    numbered,
    own_rows,
    write_csv,
)

from openface.decoding import ENDINGS
from openface.errors import TableError
from openface.matching import EMOTIONS_OF, SPLITS, match, splits_in
from openface.reading import read_openface
from openface.table import one_row_per_image, remarks


@pytest.mark.parametrize(
    "columns",
    [
        {},
        {"Unnamed: 0": range(300)},
        {"": range(300)},
        {"index": range(300)},
        {"id": range(300)},
        {"id": range(1, 301)},
        {"image_id": range(300)},
        {"image": range(1, 301)},
        {"image": range(300)},
        {"filename": [1, *range(3, 302)]},
    ],
    ids=lambda columns: ", ".join(columns) or "frame alone",
)
def test_a_frames_or_a_rows_number_never_stands_for_a_files_name(
    tmp_path: Path, columns: dict[str, Sequence[str]]
) -> None:
    path = feature_extraction(tmp_path / "all.csv", numbered(), **columns)
    for given in (path, tmp_path):
        with pytest.raises(TableError, match=r"no column names the images.*frame.*filename, image, path, file or name"):
            read_openface(given)


@pytest.mark.parametrize(
    "header",
    ["filename", "image", "path", "file", "name", "input", "Image", " FILE NAME ", "image_path", "file-name", "img"],
)
def test_a_column_of_names_gives_every_image_its_own_row(tmp_path: Path, header: str) -> None:
    names = numbered()
    ids = sorted((name.removesuffix(".jpg") for name in names), key=number_of)
    for shape in ("{}", "/data/faces/{}", "faces\\{}", "./{}"):
        path = feature_extraction(tmp_path / "all.csv", names, **{header: [shape.format(name) for name in names]})
        assert own_rows(one_row_per_image(read_openface(path), ids)) == 300


@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_a_videos_name_stands_for_none_of_its_frames(tmp_path: Path, form: str) -> None:
    """The surest of them passed for the still of its clip."""
    path = feature_extraction(tmp_path / "all.csv", numbered(6), image=["clip1"] * 3 + ["clip2"] * 3)
    if form == "parquet":
        pd.read_csv(path, skipinitialspace=True).to_parquet(path)
        path = path.rename(path.with_suffix(".parquet"))
    with pytest.raises(TableError, match="'clip1' has 3 frames, as a video has, and nothing tells which of them"):
        read_openface(path, ["clip1", "clip2"])


@pytest.mark.parametrize("of", ["stem", "name"])
def test_names_without_folders_do_where_no_two_images_share_one(tmp_path: Path, of: str) -> None:
    names = numbered()
    path = feature_extraction(tmp_path / "all.csv", names, image=[getattr(Path(name), of) for name in names])
    assert own_rows(one_row_per_image(read_openface(path), [name.removesuffix(".jpg") for name in names])) == 300


def test_of_several_columns_the_one_with_the_most_names_counts(tmp_path: Path) -> None:
    names = numbered()
    columns = {"name": ["anna", "ben", "carl"] * 100, "file": [Path(n).name for n in names], "path": names}
    path = feature_extraction(tmp_path / "all.csv", names, **columns)
    assert own_rows(one_row_per_image(read_openface(path), [name.removesuffix(".jpg") for name in names])) == 300


@pytest.mark.parametrize("by", ["index", "column"])
def test_a_parquets_names_may_be_its_index_and_its_numbers_not(tmp_path: Path, by: str) -> None:
    names = numbered(20)
    table = pd.DataFrame([face(AU01_r=number_of(name) / 100) for name in names]).drop(columns="face")
    with_names = table.set_index(pd.Index(names)) if by == "index" else table.assign(image=names)
    with_names.to_parquet(tmp_path / "named.parquet")
    assert own_rows(one_row_per_image(read_openface(tmp_path / "named.parquet"), names)) == 20
    table.assign(index=range(20), id=range(20)).to_parquet(tmp_path / "numbered.parquet")
    with pytest.raises(TableError, match="no column names the images; index, id only count"):
        read_openface(tmp_path / "numbered.parquet")


def test_csv_files_in_class_folders_are_read_and_the_folder_tells_namesakes_apart(tmp_path: Path) -> None:
    for place, label in enumerate(("happy", "sad")):
        for number in (1, 2):
            (tmp_path / "out" / label).mkdir(parents=True, exist_ok=True)
            write_csv(tmp_path / "out" / label / f"{number}.csv", [face(AU01_r=place + number / 10)])
    ids = ["happy/1", "happy/2", "sad/1", "sad/2"]
    for given in (tmp_path / "out", tmp_path):
        table = one_row_per_image(read_openface(given), ids)
        assert table["AU01_r"].tolist() == pytest.approx([0.1, 0.2, 1.1, 1.2])
    table = one_row_per_image(read_openface(tmp_path), [f"train/{name}.png" for name in ids])
    assert table["AU01_r"].tolist() == pytest.approx([0.1, 0.2, 1.1, 1.2])


@pytest.mark.parametrize("ids", [["happy/a", "sad/a", "sad/b"], ["happy/a.jpg", "happy/a.png", "happy/b.jpg"]])
def test_a_stem_that_fits_two_images_is_refused(tmp_path: Path, ids: list[str]) -> None:
    for name in "ab":
        write_csv(tmp_path / f"{name}.csv", [face()])
    with pytest.raises(
        TableError, match=rf"1 name .* several images: 'a' fits {ids[0]} and {ids[1]}; name images with"
    ):
        one_row_per_image(read_openface(tmp_path), ids)


@pytest.mark.parametrize("place", ["/data/sad/", "C:\\data\\sad\\", "C:\\data\\sad/"])
def test_what_details_say_of_an_images_folder_tells_namesakes_apart(tmp_path: Path, place: str) -> None:
    for name in "ab":
        write_csv(tmp_path / f"{name}.csv", [face()])
        (tmp_path / f"{name}_of_details.txt").write_text(f"Input:x\nInput full path:{place}{name}.jpg\nAUs: 1\n")
    table = one_row_per_image(read_openface(tmp_path), ["happy/a", "sad/a", "sad/b"])
    assert table["status"].tolist() == ["failed", "ok", "ok"]


def test_rows_of_another_class_or_split_are_not_an_images(tmp_path: Path) -> None:
    names = [f"{split}/{label}/{n}.jpg" for split in ("train", "test") for label in ("happy", "sad") for n in range(5)]
    path = feature_extraction(tmp_path / "all.csv", names, path=names)
    ids = [f"train/{label}/{number}" for label in ("happy", "sad") for number in range(10)]
    table = one_row_per_image(read_openface(path), ids)
    assert (table["status"] == "ok").tolist() == [number_of(name) < 5 for name in ids]
    names = [name for name in names if name.startswith("test")]
    path = feature_extraction(tmp_path / "all.csv", names, path=names)
    with pytest.raises(TableError, match="only 0 of the AU table's 10 images"):
        one_row_per_image(read_openface(path), ids)


OTHER_SPLITS = [
    ("train_set", "val_set"),
    ("train_set", "test"),
    ("Training", "PrivateTest"),
    ("Training", "PublicTest"),
    ("PublicTest", "PrivateTest"),
    ("train", "Eval"),
    ("entrenamiento", "Validación"),
    ("FER2013Train", "FER2013Valid"),
    ("train_happy", "test_happy"),
]


@pytest.mark.parametrize(("ours", "theirs"), OTHER_SPLITS)
def test_rows_of_a_split_by_any_name_are_not_anothers(tmp_path: Path, ours: str, theirs: str) -> None:
    ids = [f"{ours}/happy/{number}" for number in range(10)]
    for root in ("", "/data/train/", "/data/test/"):
        names = [f"{root}{theirs}/happy/{number}.jpg" for number in range(10)]
        path = feature_extraction(tmp_path / "all.csv", names, path=names)
        with pytest.raises(TableError, match="only 0 of the AU table's 10 images"):
            one_row_per_image(read_openface(path), ids)
        names = [f"{root}{ours}/happy/{number}.jpg" for number in range(10)]
        path = feature_extraction(tmp_path / "all.csv", names, path=names)
        assert set(one_row_per_image(read_openface(path), ids)["status"]) == {"ok"}


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ("train", "Training"),
        ("val", "dev_set"),
        ("test", "eval"),
        ("val", "Eval"),
        ("train", "x"),
        ("train_test", "val"),
    ],
)
def test_a_split_by_another_name_or_none_is_the_same(ours: str, theirs: str) -> None:
    assert match([f"{theirs}/1.jpg"], [f"{ours}/1"]).owner == {f"{theirs}/1.jpg": f"{ours}/1"}
    assert match(["train/2"], ["train/1", "Training/2"]).owner == {"train/2": "Training/2"}


def test_splits_are_called_here_as_readers_of_datasets_call_them() -> None:
    from fer_core.data.readers import names

    for name in (
        *SPLITS,
        "Test Set",
        "val-images",
        "Treino",
        "PrivateTest",
        "FER2013Train",
        "my_faces_test",
        "contest",
    ):
        assert splits_in(f"{name}/1.jpg") == {names.split_of_folder(name)} - {None}


def test_a_split_that_the_images_do_not_name_is_told(tmp_path: Path) -> None:
    ids = [f"happy/{number}" for number in range(1, 5)]
    names = [f"/data/test/{name}.jpg" for name in ids]
    rows = read_openface(feature_extraction(tmp_path / "all.csv", names, path=names))
    assert set(one_row_per_image(rows, ids)["status"]) == {"ok"}
    (said,) = remarks(rows, ids, "t")
    assert said == (
        "4 rows of t name a split, and the dataset's images none; are they the same images? "
        "/data/test/happy/1.jpg, /data/test/happy/2.jpg, /data/test/happy/3.jpg and 1 more"
    )
    assert remarks(rows, [f"test/{name}" for name in ids], "t") == []


def test_emotions_are_called_here_as_readers_of_datasets_call_them() -> None:
    from fer_core.data.dataset import EMOTIONS
    from fer_core.data.readers import names

    assert set(EMOTIONS_OF.values()) == set(EMOTIONS)
    for word, emotion in EMOTIONS_OF.items():
        assert names.emotion_of(word) == names.emotion_of(f"3_{word.title()}") == emotion
        name = f"{word.title()}/1.jpg"
        assert match([name], [f"{emotion}/1", "drawn/1"]).owner == {name: f"{emotion}/1"}


def test_rows_of_another_emotion_by_any_name_are_not_an_images(tmp_path: Path) -> None:
    labels = ["happy"] * 8 + ["sad"] * 8 + ["angry"] * 8
    ids = [f"{label}/{number:03d}" for number, label in enumerate(labels)]
    another = {"happy": "Sadness", "sad": "3_Anger", "angry": "joy"}
    names = [f"/data/{another[label]}/{number:03d}.jpg" for number, label in enumerate(labels)]
    path = feature_extraction(tmp_path / "all.csv", names, path=names)
    with pytest.raises(TableError, match="only 0 of the AU table's 24 images are among the dataset's 24"):
        one_row_per_image(read_openface(path), ids)
    own = {"happy": "Joy", "sad": "Sadness", "angry": "3_Anger"}
    names = [f"/data/{own[label]}/{number:03d}.jpg" for number, label in enumerate(labels)]
    rows = read_openface(feature_extraction(tmp_path / "all.csv", names, path=names))
    assert own_rows(one_row_per_image(rows, ids)) == 24
    assert remarks(rows, ids, "t") == []


def test_an_emotions_other_words_tell_namesakes_apart() -> None:
    ids = ["happy/1", "sad/1", "angry/1"]
    names = ["Anger/1.csv", "Happiness/1.csv", "3_sadness/1.csv"]
    assert match(names, ids).owner == dict(zip(names, ["angry/1", "happy/1", "sad/1"], strict=True))
    # Two words for one emotion may be two folders, and folders of a number are.
    assert match(["joy/1", "happy/1"], ["happy/1", "joy/1"]).owner == {"joy/1": "joy/1", "happy/1": "happy/1"}
    assert match(["happy_2/1"], ["happy_1/1", "happy_2/2"]).owner == {}
    assert match(["normal/2"], ["happy/normal/1", "happy/strong/2"]).owner == {}
    # Somebody's own folder is no class.
    names = ["/home/joy/a/1", "/home/joy/a/2"]
    assert match(names, ["sad/1", "sad/2"]).owner == dict(zip(names, ["sad/1", "sad/2"], strict=True))


@pytest.mark.parametrize(
    ("ours", "theirs", "is_told"),
    [
        (["P01"], ["P02"], True),
        (["data/P01"], ["/x/P02"], True),
        (["P01", "P02"], ["P03", "P04"], True),
        (["anna", "ben"], ["carl", "dora"], True),
        (["P01", "P03"], ["P02"], True),
        (["P01"], ["processed"], False),
        (["anna", "ben"], ["processed"], False),
        (["anna", "ben"], ["processed/anna", "processed/ben"], False),
        (["anna", "ben"], ["anna_aus", "ben_aus"], False),
        (["P01"], ["."], False),
        (["happy", "sad"], ["Joy", "Sadness"], False),
        (["happy", "sad"], ["3_Joy", "4_Sorrow"], False),
        (["train", "test"], ["Training", "PrivateTest"], False),
        (["P01", "P02"], ["P01", "P02"], False),
    ],
)
def test_rows_that_all_lie_in_other_folders_are_told(
    ours: list[str], theirs: list[str], is_told: bool, tmp_path: Path
) -> None:
    ids = [f"{ours[number * len(ours) // 4]}/{number:03d}" for number in range(4)]
    names = [f"{theirs[number * len(theirs) // 4]}/{number:03d}.jpg" for number in range(4)]
    rows = read_openface(feature_extraction(tmp_path / "all.csv", names, path=names))
    assert set(one_row_per_image(rows, ids)["status"]) == {"ok"}
    pairs = [f"{name} for {image}" for name, image in zip(names, ids, strict=True)]
    told = f"lie in other folders than the dataset's; are they the same images? {', '.join(pairs[:3])} and 1 more"
    assert remarks(rows, ids, "t") == ([f"4 images of t {told}"] if is_told else [])


@pytest.mark.parametrize("pattern", ["{0}/{1:02d}.jpg", "{0}/happy/{1:02d}.jpg", "happy/{0}/{1:02d}.jpg", "/x/{0}/{1}"])
@pytest.mark.parametrize("people", [["P01"], ["P01", "P02", "P03"], ["anna", "ben"]])
def test_rows_of_people_that_a_dataset_does_not_have_are_not_its_images(people: list[str], pattern: str) -> None:
    """A table made of all, and a dataset of some, whose faces are numbered alike; of those in it, half have no row."""
    everyone = [*people, "P04", "dora"]
    ids = [pattern.format(person, number).removeprefix("/x/") for person in people for number in range(10)]
    names = [pattern.format(person, number) for person in everyone for number in range(10)]
    names = [
        name for name in names if not (name.removeprefix("/x/") in ids and ids.index(name.removeprefix("/x/")) % 2)
    ]
    found = match(names, ids)
    assert found.unclear == {}
    assert found.owner == {name: name.removeprefix("/x/") for name in names if name.removeprefix("/x/") in ids}


def test_two_names_that_fit_one_image_alike_are_unclear_and_neither_has_it() -> None:
    found = match(["first/1", "second/1"], ["1.jpg"])
    assert found.owner == {}
    assert found.unclear == {"first/1": ("1.jpg",), "second/1": ("1.jpg",)}
    assert match(["1.PNG"], ["1.jpg", "1.png"]).owner == {"1.PNG": "1.png"}, "an ending tells them apart"


def test_a_folder_that_all_names_lie_in_says_nothing_of_where_an_image_lies() -> None:
    names = ["faces/out/1", "faces/out/2"]
    assert match(names, ["faces/1.png", "other/2.png"]).owner == {names[0]: "faces/1.png", names[1]: "other/2.png"}


def test_a_row_in_a_folder_of_its_own_is_an_images_where_names_are_counted_through() -> None:
    ids = ["happy/1", "happy/2", "sad/3", "sad/4"]
    assert match(["happy/1", "again/2", "sad/3", "happy/again/4"], ids).owner == {
        "happy/1": "happy/1",
        "again/2": "happy/2",
        "sad/3": "sad/3",
    }
    assert len(match(["happy/1", "happy/again/2", "sad/3", "sad/again/4"], ids).owner) == 4


@pytest.mark.parametrize("levels", [["filename"], ["filename", "confidence"]])
def test_an_index_that_is_a_column_too_is_read_where_both_say_the_same(tmp_path: Path, levels: list[str]) -> None:
    table = pd.DataFrame([face(filename=f"{name}.png", AU01_r=place) for place, name in enumerate("abc")])
    table = table.set_index(levels, drop=False)
    assert from_parquet(tmp_path / "t.parquet", table, ["c", "b", "a"])["AU01_r"].tolist() == [2, 1, 0]
    table["filename"] = ["a.png", "c.png", "b.png"]
    with pytest.raises(TableError, match=r"t\.parquet: its index and its column filename differ; keep one of them"):
        from_parquet(tmp_path / "t.parquet", table, ["a", "b", "c"])


def test_zeros_that_a_spreadsheet_took_are_told(tmp_path: Path) -> None:
    ids = [f"happy/{number:02d}" for number in range(1, 13)]
    names = [f"happy/{number}.jpg" for number in range(1, 13)]
    path = feature_extraction(tmp_path / "all.csv", names, path=names)
    hint = "'happy/1.jpg' may be 'happy/01': spreadsheets take zeros in front away; write names as the files have them"
    with pytest.raises(TableError, match=hint):
        one_row_per_image(read_openface(path), ids)
    rows, few = read_openface(path), ids[6:]
    assert (one_row_per_image(rows, few)["status"] == "ok").sum() == 3
    said = [remark for remark in remarks(rows, few, "t") if "no row" in remark]
    assert said == [
        "3 of 6 images have no row in t and count as no_face; 'happy/7.jpg' may be 'happy/07': spreadsheets take "
        "zeros in front away; write names as the files have them: happy/07, happy/08, happy/09"
    ]
    # Rows of another split lack no zeros.
    others = [name.replace("happy", "test") for name in names]
    path = feature_extraction(tmp_path / "all.csv", others, path=others)
    with pytest.raises(TableError, match="give the table that was made from these images"):
        one_row_per_image(read_openface(path), [name.replace("happy", "train") for name in ids])


def test_names_that_differ_in_case_alone_are_told_apart_and_else_case_is_no_matter(tmp_path: Path) -> None:
    path = feature_extraction(tmp_path / "all.csv", ["1", "2", "3"], file=["x/A.JPG", "x/a.JPG", "x/B.JPG"])
    table = one_row_per_image(read_openface(path), ["x/a.jpg", "x/A.jpg", "x/b.jpg"])
    assert table["AU01_r"].tolist() == pytest.approx([0.02, 0.01, 0.03])


def test_names_that_are_no_utf_8_are_names_too(tmp_path: Path) -> None:
    folder = os.fsencode(tmp_path)
    write_csv(tmp_path / "n.csv", [face()])
    os.rename(folder + b"/n.csv", folder + b"/ni\xf1o.csv")
    assert one_row_per_image(read_openface(tmp_path), ["niño"])["status"].tolist() == ["ok"]


@pytest.mark.parametrize("key", ["id", "name", "index"])
def test_a_parquet_names_images_in_one_of_three_columns(tmp_path: Path, key: str) -> None:
    table = frame(face(), face(), ids=["7", "8"]).rename(columns={"id": key})
    assert from_parquet(tmp_path / "t.parquet", table, ["8", "7"])["status"].tolist() == ["ok", "ok"]


@pytest.mark.parametrize(
    ("key", "name"),
    [
        ("train/happy/1", "train/happy/1"),
        ("train/happy/1.JPG", "train/happy/1"),
        ("train\\happy\\1.jpg", "train/happy/1"),
        ("train_00001_aligned", "train_00001"),
        ("/data/aligned/train_00001_aligned.jpg", "train_00001"),
        ("1", "train/happy/1"),
        ("face.of.anna", "face.of.anna"),
    ],
)
def test_a_key_finds_its_image(tmp_path: Path, key: str, name: str) -> None:
    table = frame(face(), ids=[key])
    assert from_parquet(tmp_path / "t.parquet", table, [name])["status"].tolist() == ["ok"]


def test_names_that_a_parquet_holds_as_bytes_are_names(tmp_path: Path) -> None:
    table = frame(face(), face(0.7)).drop(columns="id").assign(image=[b"ni\xc3\xb1o.png", b"b.png"])
    rows = from_parquet(tmp_path / "t.parquet", table, ["b", "ni\u00f1o"])
    assert rows["confidence"].tolist() == pytest.approx([0.7, 0.9])


def test_an_exact_match_is_not_given_to_a_namesake(tmp_path: Path) -> None:
    table = frame(face(0.5), face(0.9), ids=["x/a", "y/a"])
    assert from_parquet(tmp_path / "t.parquet", table, ["x/a"])["confidence"].tolist() == [0.5]


def test_an_ending_that_images_may_have_is_no_part_of_their_name() -> None:
    assert [ending for ending in ENDINGS if not match([f"a{ending}"], ["a"]).owner] == []


def test_a_part_of_the_images_and_a_part_of_the_table_are_fine(tmp_path: Path) -> None:
    table = frame(*[face()] * 8)
    assert from_parquet(tmp_path / "t.parquet", table, ["a"])["status"].tolist() == ["ok"]
    many = from_parquet(tmp_path / "t.parquet", table, [*"abcdefgh", *map(str, range(40))])
    assert (many["status"] == "ok").sum() == 8


def test_rows_of_no_image_are_counted_and_named(tmp_path: Path) -> None:
    frame(*[face()] * 5).to_parquet(tmp_path / "t.parquet")
    (said,) = remarks(read_openface(tmp_path / "t.parquet"), ["a"], "t")
    assert said == "4 images of t are not in the dataset: b, c, d and 1 more"


def test_a_table_of_other_images_is_refused_with_both_counts(tmp_path: Path) -> None:
    table = frame(*[face()] * 5, ids=["a", "x1", "x2", "x3", "x4"])
    with pytest.raises(TableError, match=r"only 1 of the AU table's 5 images .* dataset's 4: .*'x1'.*'b'"):
        from_parquet(tmp_path / "t.parquet", table, ["a", "b", "c", "d"])
    with pytest.raises(TableError, match=r"only 0 of the AU table's 5 images .* dataset's 1"):
        from_parquet(tmp_path / "t.parquet", table, ["b"])


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_of_two_columns_of_names_the_one_that_names_the_images_counts(tmp_path: Path, ending: str) -> None:
    """With two faces an image, the crops' names are more, and their numbers are called as the images are."""
    ids = [f"happy/{number:03d}.png" for number in range(12)]
    rows = [
        face(1 - place, filename=f"/data/{name}", path=f"crops/{2 * number + place:03d}.png", AU12_r=number / 4)
        for number, name in enumerate(ids)
        for place in range(2)
    ]
    path = tmp_path / f"all.{ending}"
    if ending == "csv":
        write_csv(path, rows, tuple(rows[0]))
    else:
        pd.DataFrame(rows).to_parquet(path)
    table = one_row_per_image(read_openface(path, ids), ids)
    assert table["AU12_r"].tolist() == [number / 4 for number in range(12)]
    assert table["confidence"].tolist() == [1.0] * 12
