"""Each layout is read as its makers meant it, and what is no such layout is one line that says so."""

import csv
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fer_core.dataset import EMOTIONS
from fer_core.datasets import open_source
from fer_core.datasets.ferplus import ANSWERS
from fer_core.datasets.source import Source
from fer_core.errors import DatasetError
from fer_core.experiment import DatasetSettings
from openface.images import UnreadableImage

SHARED = Path(os.environ.get("FER_SHARED", Path(__file__).parents[2] / "shared")) / "data" / "ferplus"
RAFDB = DatasetSettings(source="rafdb")
FERPLUS = DatasetSettings(source="ferplus")
FOLDER = DatasetSettings(source="folder")
LIST = DatasetSettings(source="csv")


def save_image(path: Path, shade: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (20, 20), (shade, 255 - shade, 128)).save(path)


def names_by_id(source: Source) -> dict[str, str]:
    labels = [source.labels[label] for label in source.records["label"]]
    return dict(zip(source.records["id"], labels, strict=True))


def splits_by_id(source: Source) -> dict[str, str]:
    return dict(zip(source.records["id"], source.records["split"], strict=True))


def refused(settings: DatasetSettings, folder: Path | None) -> str:
    """The message of an error, which is one line."""
    with pytest.raises(DatasetError) as raised:
        open_source(settings, folder)
    assert "\n" not in str(raised.value)
    return str(raised.value)


# RAF-DB

OFFICIAL_LINES = [f"train_0000{label}.jpg {label}" for label in range(1, 8)] + ["test_0001.jpg 4"]
OFFICIAL_NAMES = ["surprise", "fear", "disgust", "happiness", "sadness", "anger", "neutral"]


def write_rafdb(root: Path, lines: Sequence[str] = OFFICIAL_LINES) -> Path:
    (root / "basic" / "EmoLabel").mkdir(parents=True)
    (root / "basic" / "EmoLabel" / "list_patition_label.txt").write_text("\n".join(lines) + "\n")
    for number, line in enumerate(lines):
        save_image(root / "basic" / "Image" / "aligned" / f"{line.split('.')[0]}_aligned.jpg", 10 * number)
    return root


def one_hot_lines(order: Sequence[int]) -> str:
    """The crowd's file, all votes on the label, in lines that end in a blank as the original's do."""
    rows = [(line.split()[0], int(line.split()[1])) for line in OFFICIAL_LINES]
    return "".join(f"{name} {' '.join('.9' if label == n else '.05' for n in order)} \n" for name, label in rows)


@pytest.mark.parametrize("inside", ["", "basic"])
def test_official_rafdb_is_mapped_by_name(tmp_path: Path, inside: str) -> None:
    source = open_source(RAFDB, write_rafdb(tmp_path) / inside)
    assert source.labels == EMOTIONS[:7]
    expected = {f"train_0000{label}": name for label, name in enumerate(OFFICIAL_NAMES, start=1)}
    assert names_by_id(source) == expected | {"test_0001": "happiness"}
    assert splits_by_id(source) == dict.fromkeys(expected, "train") | {"test_0001": "test"}
    assert source.distributions is None
    assert source.truth == ""
    assert source.read_image(7).size == (20, 20)


def test_rafdbs_crowd_is_read_where_it_is(tmp_path: Path) -> None:
    write_rafdb(tmp_path)
    (tmp_path / "basic" / "EmoLabel" / "distribution_basic.txt").write_text(one_hot_lines(range(1, 8)))
    source = open_source(RAFDB, tmp_path)
    assert source.truth == "crowd votes"
    assert source.distributions is not None
    np.testing.assert_array_equal(source.distributions.argmax(axis=1), source.records["label"])
    np.testing.assert_allclose(source.distributions.max(axis=1), 0.9 / (0.9 + 6 * 0.05), rtol=1e-6)
    np.testing.assert_allclose(source.distributions.sum(axis=1), 1, rtol=1e-6)


def test_rafdbs_crowd_in_another_order_or_incomplete_is_refused(tmp_path: Path) -> None:
    write_rafdb(tmp_path)
    path = tmp_path / "basic" / "EmoLabel" / "distribution_basic.txt"
    path.write_text(one_hot_lines([7, 6, 5, 4, 3, 2, 1]))
    assert "for only 25% of the images; its columns must be surprise, fear" in refused(RAFDB, tmp_path)
    path.write_text("train_00001.jpg 1 0 0 0 0 0 0\n")
    assert "no distribution for train_00002 and 6 more of 8 images" in refused(RAFDB, tmp_path)
    path.write_text("train_00001.jpg 1 0 0 0 0 0\n")
    assert f"{path}, line 1" in refused(RAFDB, tmp_path)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("train_00009.jpg 8", "line 2: label 8; it must be 1 to 7"),
        ("train_00009.jpg 0", "line 2: label 0; it must be 1 to 7"),
        ("train_00009.jpg happy", "line 2: label happy"),
        ("train_00009.jpg", "line 2: 'train_00009.jpg'; it must be such as"),
        ("other_00009.jpg 3", "line 2: 'other_00009.jpg 3'"),
        ("train_00001.jpg 3", "line 2: train_00001.jpg is listed twice"),
        ("train_../../x.jpg 3", "line 2: 'train_../../x.jpg 3'; it must be such as"),
        ("train_1/.. 3", "line 2: 'train_1/.. 3'"),
    ],
)
def test_a_wrong_line_of_rafdb_is_named(tmp_path: Path, line: str, message: str) -> None:
    write_rafdb(tmp_path, ["train_00001.jpg 1", line])
    assert f"list_patition_label.txt, {message}" in refused(RAFDB, tmp_path)


@pytest.mark.parametrize(
    ("first", "order"),
    [
        (0, ["neutral", "happiness", "sadness", "surprise", "fear", "disgust", "anger"]),
        (1, OFFICIAL_NAMES),
    ],
)
def test_rafdb_in_class_folders_has_the_order_of_its_folders(tmp_path: Path, first: int, order: list[str]) -> None:
    for number, name in enumerate(order, start=first):
        save_image(tmp_path / "train" / str(number) / f"train_{name}_aligned.jpg")
        save_image(tmp_path / "test" / str(number) / f"test_{name}.jpg")
    source = open_source(RAFDB, tmp_path)
    expected = {f"{split}_{name}": name for name in order for split in ("train", "test")}
    assert names_by_id(source) == expected
    assert splits_by_id(source) == {name: name.split("_")[0] for name in expected}


def test_without_a_test_folder_rafdbs_valid_is_its_test_part(tmp_path: Path) -> None:
    for number in range(7):
        save_image(tmp_path / "train" / str(number) / f"t{number}.jpg")
        save_image(tmp_path / "valid" / str(number) / f"v{number}.jpg")
    assert set(open_source(RAFDB, tmp_path).records["split"]) == {"train", "test"}
    save_image(tmp_path / "test" / "0" / "test.jpg")
    assert set(open_source(RAFDB, tmp_path).records["split"]) == {"train", "validation", "test"}


def test_rafdb_that_could_be_either_is_refused(tmp_path: Path) -> None:
    for number in range(1, 7):
        save_image(tmp_path / "train" / str(number) / "a.jpg")
    message = refused(RAFDB, tmp_path)
    assert "0…6 are neutral, happiness" in message
    assert "1…7 are surprise, fear" in message
    save_image(tmp_path / "train" / "happy" / "a.jpg")
    assert "class folder happy is no RAF-DB label" in refused(RAFDB, tmp_path)
    write_rafdb(tmp_path)
    assert "holds both" in refused(RAFDB, tmp_path)


# FER+

VOTES = {
    "majority": (4, 0, 0, 3, 0, 0, 0, 0, 2, 1),
    "tied": (4, 0, 0, 4, 0, 0, 0, 0, 2, 0),
    "contempt": (1, 2, 0, 0, 0, 0, 0, 5, 2, 0),
    "contempt_minor": (1, 5, 0, 0, 0, 0, 0, 4, 0, 0),
    "unknown": (3, 2, 0, 0, 0, 0, 0, 0, 5, 0),
    "half_unknown": (3, 2, 0, 0, 0, 0, 0, 0, 2, 3),
    "nothing": (0, 0, 0, 0, 0, 0, 0, 0, 0, 10),
    "anger": (0, 0, 0, 0, 10, 0, 0, 0, 0, 0),
}
USAGE = ("Training", "Training", "Training", "Training", "PublicTest", "PublicTest", "PrivateTest", "PrivateTest")


def faces() -> np.ndarray:
    return np.random.default_rng(3).integers(0, 256, (len(VOTES), 48, 48), np.uint8)


def write_arrays(folder: Path, **others: np.ndarray) -> Path:
    images = faces()
    across = np.diff(images, axis=2, prepend=np.uint8(0))
    usage_names = np.array(["Training", "PublicTest", "PrivateTest"])
    arrays = {
        "images_delta2d": np.diff(across, axis=1, prepend=np.uint8(0)),
        "votes": np.array(list(VOTES.values()), np.uint8),
        "usage": np.array([usage_names.tolist().index(name) for name in USAGE], np.uint8),
        "usage_names": usage_names,
        "names": np.array([f"{name}.png".encode() for name in VOTES]),
    }
    np.savez_compressed(folder / "ferplus.npz", **{**arrays, **others})  # type: ignore[arg-type]
    return folder


def write_rows(path: Path, header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])


def write_csv_pair(folder: Path, spoiled: Mapping[int, str] | None = None) -> Path:
    pixels = [" ".join(map(str, face.ravel())) for face in faces()]
    pixels = [(spoiled or {}).get(row, text) for row, text in enumerate(pixels)]
    write_rows(
        folder / "fer2013.csv",
        ["emotion", "pixels", "Usage"],
        [(0, text, name) for text, name in zip(pixels, USAGE, strict=True)],
    )
    # As published, what is no face has no name.
    names = [f"{name}.png" if name != "nothing" else "" for name in VOTES]
    write_rows(
        folder / "fer2013new.csv",
        ["Usage", "Image name", *ANSWERS],
        [(usage, name, *votes) for usage, name, votes in zip(USAGE, names, VOTES.values(), strict=True)],
    )
    return folder


@pytest.mark.parametrize("write", [write_arrays, write_csv_pair])
def test_ferplus_majority(tmp_path: Path, write: Callable[[Path], Path]) -> None:
    source = open_source(FERPLUS, write(tmp_path))
    assert names_by_id(source) == {"majority": "neutral", "contempt_minor": "happiness", "anger": "anger"}
    assert splits_by_id(source) == {"majority": "train", "contempt_minor": "train", "anger": "test"}
    assert source.distributions is not None
    np.testing.assert_allclose(source.distributions[0], np.array([4, 0, 0, 3, 0, 0, 0]) / 7, rtol=1e-6)
    assert source.dropped == {"without a clear label": 5}
    assert source.truth == "crowd votes"
    assert "Barsoum" in source.protocol
    for row, number in enumerate((0, 3, 7)):
        np.testing.assert_array_equal(np.asarray(source.read_image(row)), faces()[number])


def test_ferplus_with_contempt(tmp_path: Path) -> None:
    source = open_source(DatasetSettings(source="ferplus", classes=8), write_arrays(tmp_path))
    assert source.labels == EMOTIONS
    assert names_by_id(source)["contempt"] == "contempt"
    assert source.distributions is not None
    assert source.distributions.shape == (4, 8)


def test_ferplus_distribution_keeps_what_is_mostly_an_emotion(tmp_path: Path) -> None:
    source = open_source(DatasetSettings(source="ferplus", labels="distribution"), write_arrays(tmp_path))
    assert names_by_id(source) == {
        "majority": "neutral",
        "tied": "neutral",
        "contempt_minor": "happiness",
        "half_unknown": "neutral",
        "anger": "anger",
    }
    assert source.distributions is not None
    np.testing.assert_allclose(source.distributions.sum(axis=1), 1, rtol=1e-6)


def test_pixels_that_are_none_are_an_unreadable_image(tmp_path: Path) -> None:
    source = open_source(FERPLUS, write_csv_pair(tmp_path, {0: "1 2 3", 3: "256 " * 2304, 7: "x " * 2304}))
    for row, message in enumerate(("line 2: 3 pixels, not 2304", "line 5: a pixel is not", "line 9: a pixel is not")):
        with pytest.raises(UnreadableImage, match=message):
            source.read_image(row)


def test_ferplus_files_that_do_not_belong_together_are_refused(tmp_path: Path) -> None:
    write_csv_pair(tmp_path)
    lines = (tmp_path / "fer2013new.csv").read_text().splitlines()
    (tmp_path / "fer2013new.csv").write_text("\n".join(lines[:-1]))
    assert "its 7 rows are not those of fer2013.csv (8 rows)" in refused(FERPLUS, tmp_path)
    (tmp_path / "fer2013new.csv").write_text("Usage,neutral\nTraining,1\n")
    assert "fer2013new.csv: not FER+'s votes" in refused(FERPLUS, tmp_path)
    (tmp_path / "fer2013new.csv").unlink()
    assert "(fer2013new.csv missing)" in refused(FERPLUS, tmp_path)


def test_a_usage_that_ferplus_has_not_is_named(tmp_path: Path) -> None:
    write_csv_pair(tmp_path)
    text = (tmp_path / "fer2013.csv").read_text().replace("PublicTest", "Publictest")
    (tmp_path / "fer2013.csv").write_text(text)
    assert "fer2013.csv, line 6: Usage 'Publictest'" in refused(FERPLUS, tmp_path)
    write_arrays(tmp_path, usage_names=np.array(["Training", "Publictest", "PrivateTest"]))
    assert "ferplus.npz, row 4: Usage 'Publictest'; it must be one of Training" in refused(FERPLUS, tmp_path)


@pytest.mark.parametrize("vote", ["nan", "-1", "inf", "0.5", "1e300"])
def test_a_vote_that_is_no_count_is_named_with_its_row(tmp_path: Path, vote: str) -> None:
    votes = np.array(list(VOTES.values()), np.float64)
    votes[4, 2] = float(vote)
    write_arrays(tmp_path, votes=votes)
    assert "ferplus.npz, row 4: surprise has " in (said := refused(FERPLUS, tmp_path))
    assert "votes; it must be a whole number" in said
    (tmp_path / "ferplus.npz").unlink()

    write_csv_pair(tmp_path)
    text = (tmp_path / "fer2013new.csv").read_text()
    for written in (vote, "", "many"):
        (tmp_path / "fer2013new.csv").write_text(text.replace("unknown.png,3,2,0,", f"unknown.png,3,2,{written},"))
        assert "fer2013new.csv, line 6: surprise has " in refused(FERPLUS, tmp_path)


def test_arrays_of_other_shapes_are_refused(tmp_path: Path) -> None:
    count = len(VOTES)
    for others in (
        {"images_delta2d": np.zeros((count, 48, 47), np.uint8)},
        {"images_delta2d": np.zeros((count, 48, 48), np.float32)},
        {"votes": np.zeros((count, 9), np.uint8)},
        {"votes": np.array(["many"] * count)},
        {"names": np.array(b"one.png")},
    ):
        assert "ferplus.npz: " in refused(FERPLUS, write_arrays(tmp_path, **others))


def test_truncated_arrays_are_refused(tmp_path: Path) -> None:
    whole = (write_arrays(tmp_path) / "ferplus.npz").read_bytes()
    (tmp_path / "ferplus.npz").write_bytes(whole[: len(whole) // 2])
    assert "ferplus.npz: not the FER+ arrays" in refused(FERPLUS, tmp_path)


@pytest.mark.skipif(not SHARED.is_dir(), reason="the real FER+ arrays are not here; set FER_SHARED")
def test_the_real_ferplus_has_the_published_counts() -> None:
    source = open_source(FERPLUS, SHARED)
    labels = source.records.groupby("split")["label"].value_counts().unstack()
    assert labels.sum(axis=1).to_dict() == {"train": 26772, "validation": 3372, "test": 3349}
    assert labels.T["train"].tolist() == [9363, 7410, 3378, 3401, 2397, 175, 648]
    assert source.records["id"].is_unique


# Class folders


def test_class_folders_are_emotions_under_any_name(tmp_path: Path) -> None:
    for name in ("Sad", "happy", "neutral", "surprised"):
        save_image(tmp_path / name / "1.PNG")
    (tmp_path / "happy" / "notes.txt").write_text("no image")
    source = open_source(FOLDER, tmp_path)
    assert source.labels == ("neutral", "happiness", "surprise", "sadness")
    assert names_by_id(source) == {
        "Sad/1": "sadness",
        "happy/1": "happiness",
        "neutral/1": "neutral",
        "surprised/1": "surprise",
    }
    assert set(source.records["split"]) == {""}


def test_other_class_folders_keep_their_names(tmp_path: Path) -> None:
    for name in ("happy", "bored", "awake"):
        save_image(tmp_path / name / "1.jpg")
    assert open_source(FOLDER, tmp_path).labels == ("awake", "bored", "happy")


def test_numbered_class_folders_are_in_their_numbers_order(tmp_path: Path) -> None:
    for number in range(11):
        save_image(tmp_path / str(number) / "1.jpg")
    assert open_source(FOLDER, tmp_path).labels == tuple(map(str, range(11)))


def test_folders_of_splits_are_understood(tmp_path: Path) -> None:
    for split in ("train", "val", "Test"):
        for name in ("happy", "sad"):
            save_image(tmp_path / split / name / "1.jpg")
    source = open_source(FOLDER, tmp_path)
    assert source.labels == ("happiness", "sadness")
    assert splits_by_id(source)["val/sad/1"] == "validation"
    assert set(source.records["split"]) == {"train", "validation", "test"}


def test_two_endings_of_one_name_are_two_images(tmp_path: Path) -> None:
    for name in ("happy/1.jpg", "happy/1.png", "sad/1.jpg"):
        save_image(tmp_path / name)
    assert open_source(FOLDER, tmp_path).records["id"].tolist() == ["happy/1.jpg", "happy/1.png", "sad/1"]


def test_what_is_no_layout_of_class_folders_is_refused(tmp_path: Path) -> None:
    assert "0 images in 0 class folders; looked for CLASS/*" in refused(FOLDER, tmp_path)
    save_image(tmp_path / "happy" / "1.jpg")
    assert "1 images in 1 class folders" in refused(FOLDER, tmp_path)
    save_image(tmp_path / "test" / "happy" / "1.jpg")
    assert "the folder happy is beside test" in refused(FOLDER, tmp_path)
    (tmp_path / "happy" / "1.jpg").unlink()
    (tmp_path / "happy").rmdir()
    assert "test without train" in refused(FOLDER, tmp_path)


# Lists


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
        (["path,labels", "a.png,x"], "labels.csv: no column label; rename labels?"),
        (["file,Label", "a.png,x"], "labels.csv: no column path; it has file, Label"),
        (["path,label"], "labels.csv: lists no images"),
        (["path,label", "a.png,x", "b.png,"], "labels.csv, line 3: no label"),
        (["path,label", ",x"], "labels.csv, line 2: no path"),
        (["path,label", "a.png,x", "b.png,y", "a.png,y"], "labels.csv, line 4: its path is listed before"),
        (["path,label,split", "a.png,x,train", "b.png,y,dev"], "line 3: its split must be train, validation, test"),
        (["path,label,p_x", "a.png,x,1", "b.png,y,0"], "no column p_y; rename p_x?"),
        (["path,label,p_x,p_y", "a.png,x,1,0", "b.png,y,0,0"], "line 3: its p_ columns must be numbers"),
        (["path,label,p_x,p_y", "a.png,x,1,-1", "b.png,y,0,1"], "line 2: its p_ columns must be numbers"),
        (["path,label,p_x,p_y", "a.png,x,1,many", "b.png,y,0,1"], "line 2: its p_ columns must be numbers"),
        (["path,label,p_sad,p_sadness,p_fear", "a.png,sad,1,1,1"], "two p_ columns mean the same class"),
        (["path,label", "a.png,x"], "only the class x"),
        (["path,label", "a.png,x,y", "b.png,x,y"], "more fields than its header"),
    ],
)
def test_a_wrong_list_is_refused_by_line(tmp_path: Path, lines: list[str], message: str) -> None:
    assert message in refused(LIST, write_list(tmp_path, *lines))


@pytest.mark.parametrize("header", ["path,label", "path,label,remark"])
def test_a_field_too_long_for_a_list_is_named_by_its_line(tmp_path: Path, header: str) -> None:
    rest = ",x" * (header.count(",") - 1)
    long = "y" * 131_073
    write_list(tmp_path, header, f"a.png,x{rest}", f"b.png{rest},{long}")
    said = refused(LIST, tmp_path)
    assert f"labels.csv, line 3: {header.split(',')[-1]} has 131,073 characters" in said
    assert len(said) < 500
    write_list(tmp_path, f"{header},{long}", f"a.png,x{rest},y")
    assert "labels.csv, line 1: a column's name has 131,073 characters" in refused(LIST, tmp_path)


def test_a_list_that_is_no_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_bytes(b"")
    assert "labels.csv: not a CSV file" in refused(LIST, tmp_path)
    (tmp_path / "labels.csv").write_bytes(b"\x89PNG\x00\xff\xfe")
    assert "labels.csv: not a CSV file" in refused(LIST, tmp_path)
    (tmp_path / "labels.csv").unlink()
    assert "labels.csv: no such file" in refused(LIST, tmp_path)


# All of them


@pytest.mark.parametrize("settings", [RAFDB, FERPLUS, FOLDER, LIST], ids=lambda settings: settings.source)
def test_a_missing_folder_is_named(tmp_path: Path, settings: DatasetSettings) -> None:
    assert "give their folder with --data" in refused(settings, None)
    assert f"{tmp_path / 'nowhere'}: no such folder" in refused(settings, tmp_path / "nowhere")


@pytest.mark.parametrize("settings", [RAFDB, FERPLUS, FOLDER], ids=lambda settings: settings.source)
def test_a_file_or_an_empty_folder_is_not_the_dataset(tmp_path: Path, settings: DatasetSettings) -> None:
    assert "looked for" in refused(settings, tmp_path)
    (tmp_path / "file").write_text("")
    assert "file: not a folder" in refused(settings, tmp_path / "file")


def test_the_sample_needs_no_folder() -> None:
    source = open_source(DatasetSettings(count=12, image_size=32), None)
    assert source.labels == EMOTIONS[:7]
    assert source.truth == "true distribution"
    assert source.read_image(11).size == (32, 32)
    assert source.distributions is not None
    np.testing.assert_allclose(source.distributions.sum(axis=1), 1, rtol=1e-5)
    assert source.au_rows is not None
    assert set(source.au_rows["index"]) <= set(range(12))
