"""RAF-DB in the layouts that its users have, and the order of its numbers."""

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from helpers.dataset_files import RAFDB, counts, names_by_id, refused, save_faces, save_image, splits_by_id

from fer_core.data.dataset import EMOTIONS
from fer_core.data.readers import open_source
from fer_core.experiment import DatasetSettings

OFFICIAL_LINES = [f"train_0000{label}.jpg {label}" for label in range(1, 8)] + ["test_0001.jpg 4"]
OFFICIAL_NAMES = ["surprise", "fear", "disgust", "happiness", "sadness", "anger", "neutral"]
EFFICIENTFACE_NAMES = ["neutral", "happiness", "sadness", "surprise", "fear", "disgust", "anger"]


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


def test_of_several_folders_of_aligned_images_the_published_one_is_read(tmp_path: Path) -> None:
    write_rafdb(tmp_path, ["train_00001.jpg 1", "train_00002.jpg 4"])
    for place, names in {"backup/aligned": "12", "basic/Annotation/aligned": "1"}.items():
        for name in names:
            save_image(tmp_path / place / f"train_0000{name}_aligned.jpg", 200)

    def shades() -> list[bool]:
        source = open_source(RAFDB, tmp_path)
        return [np.asarray(source.read_image(row))[..., 0].mean() > 100 for row in (0, 1)]

    assert shades() == [False, False]
    (tmp_path / "basic" / "Image").rename(tmp_path / "basic" / "Pictures")
    assert f"may be those in {tmp_path / 'backup' / 'aligned'} or in " in refused(RAFDB, tmp_path)
    (tmp_path / "basic" / "Pictures").rename(tmp_path / "hidden")
    (tmp_path / "hidden" / "aligned").rename(tmp_path / "hidden" / "others")
    assert shades() == [True, True]


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
        (0, EFFICIENTFACE_NAMES),
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
    assert "which such counts do not tell from another: neutral 2 " in source.notes[0]


def test_rafdbs_parts_may_have_more_in_their_names(tmp_path: Path) -> None:
    for part in ("train", "test"):
        for number, name in enumerate(OFFICIAL_NAMES, start=1):
            save_image(tmp_path / f"RAF_{part}_aligned" / str(number) / f"{part}_{name}.jpg")
    source = open_source(RAFDB, tmp_path)
    assert all(name.endswith(label) for name, label in names_by_id(source).items())
    assert set(source.records["split"]) == {"train", "test"}


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
    assert "say what each means in [dataset.classes]" in message
    save_image(tmp_path / "train" / "7" / "a.jpg")
    save_image(tmp_path / "train" / "laughing" / "a.jpg")
    assert "labels laughing (1) of 8 images are no names of emotions" in refused(RAFDB, tmp_path)
    write_rafdb(tmp_path)
    assert "holds both" in refused(RAFDB, tmp_path)


PARTS = {"surprise": 12, "fear": 3, "disgust": 7, "happiness": 47, "sadness": 20, "anger": 7, "neutral": 25}
"""A hundredth of RAF-DB's training images."""


def write_numbered(folder: Path, order: Sequence[str], first: int) -> Path:
    for number, name in enumerate(order, start=first):
        save_faces(folder / "train" / str(number), PARTS[name], "jpg")
        save_faces(folder / "test" / str(number), max(1, PARTS[name] // 4), "jpg")
    return folder


def test_rafdbs_numbers_in_its_own_order_minus_one_are_refused_by_their_counts(tmp_path: Path) -> None:
    folder = write_numbered(tmp_path, OFFICIAL_NAMES, 0)
    said = refused(RAFDB, folder)
    assert "do not fit EfficientFace's order. It would make them 0 neutral (15), 1 happiness (4)" in said
    assert "[dataset.classes]" in said
    table = {str(number): name for number, name in enumerate(OFFICIAL_NAMES)}
    source = open_source(DatasetSettings(source="rafdb", classes=table), folder)
    assert counts(source) == {name: PARTS[name] + max(1, PARTS[name] // 4) for name in EMOTIONS[:7]}


@pytest.mark.parametrize(("order", "first"), [(OFFICIAL_NAMES, 1), (EFFICIENTFACE_NAMES, 0)])
def test_rafdbs_numbers_in_a_known_order_are_told_with_their_counts(
    tmp_path: Path, order: Sequence[str], first: int
) -> None:
    source = open_source(RAFDB, write_numbered(tmp_path, order, first))
    assert counts(source)["happiness"] == 58
    assert "happiness 58 " in source.notes[0]
    assert ("RAF-DB's own order" if first else "EfficientFace's order") in source.notes[0]


@pytest.mark.parametrize(("order", "first"), [(OFFICIAL_NAMES, 1), (EFFICIENTFACE_NAMES, 0)])
def test_rafdbs_other_numbers_keep_their_meaning_where_one_is_dropped(
    tmp_path: Path, order: Sequence[str], first: int
) -> None:
    folder = write_numbered(tmp_path, order, first)
    source = open_source(DatasetSettings(source="rafdb", classes={str(first): "drop"}), folder)
    expected = {name: PARTS[name] + max(1, PARTS[name] // 4) for name in EMOTIONS[:7] if name != order[0]}
    assert counts(source) == expected


@pytest.mark.parametrize("order", [OFFICIAL_NAMES, sorted(OFFICIAL_NAMES)])
def test_the_official_lists_numbers_are_held_against_its_counts(tmp_path: Path, order: Sequence[str]) -> None:
    names = [(number, name) for number, name in enumerate(order, start=1) for _ in range(PARTS[name])]
    write_rafdb(tmp_path, [f"train_{row:05d}.jpg {number}" for row, (number, _) in enumerate(names)])
    if order == OFFICIAL_NAMES:
        assert "RAF-DB's own order: neutral 25 (7), happiness 47 (4)" in open_source(RAFDB, tmp_path).notes[0]
    else:
        said = refused(RAFDB, tmp_path)
        assert "do not fit RAF-DB's own order" in said
        assert said.endswith("; restore the file as published")


def test_the_official_lists_numbers_need_no_map(tmp_path: Path) -> None:
    said = refused(DatasetSettings(source="rafdb", classes={"1": "fear"}), write_rafdb(tmp_path))
    assert "its numbers have RAF-DB's own meaning; leave [dataset.classes] out" in said


@pytest.mark.parametrize("order", [EFFICIENTFACE_NAMES, sorted(OFFICIAL_NAMES)])
def test_rafdbs_one_to_seven_in_another_order_are_refused(tmp_path: Path, order: Sequence[str]) -> None:
    said = refused(RAFDB, write_numbered(tmp_path, order, 1))
    assert "do not fit RAF-DB's own order" in said
    larger, smaller = re.findall(r"that dataset has more (\w+) than (\w+)", said)[0]
    assert PARTS[larger] > PARTS[smaller]


@pytest.mark.parametrize(
    ("name", "folder"),
    [
        ("{}.jpg", "basic/Image/aligned"),
        ("{}_aligned.png", "basic/Image/aligned"),
        ("{}_aligned.jpg", "basic/Image/aligned/aligned"),
        ("{}.PNG", "basic/aligned"),
        ("{}_ALIGNED.JPG", "basic/Image/Aligned"),
        ("{}_aligned.jpg", "Image/aligned"),
    ],
)
def test_rafdbs_aligned_images_are_found_as_they_are_called(tmp_path: Path, name: str, folder: str) -> None:
    (tmp_path / "basic" / "EmoLabel").mkdir(parents=True)
    (tmp_path / "basic" / "EmoLabel" / "list_patition_label.txt").write_text("\n".join(OFFICIAL_LINES) + "\n")
    for number, line in enumerate(OFFICIAL_LINES):
        save_image(tmp_path / folder / name.format(line.split(".")[0]), 10 * number)
    source = open_source(RAFDB, tmp_path)
    assert source.read_image(3).convert("RGB").getpixel((0, 0)) == pytest.approx((30, 225, 128), abs=3)


@pytest.mark.parametrize("link", ["basic", "basic/Image"])
def test_rafdbs_folders_may_be_links(tmp_path: Path, link: str) -> None:
    folder = write_rafdb(tmp_path / "RAF-DB") / link
    folder.rename(tmp_path / "elsewhere")
    folder.symlink_to(tmp_path / "elsewhere")
    assert open_source(RAFDB, tmp_path / "RAF-DB").read_image(7).size == (20, 20)


def test_an_image_called_as_published_goes_before_another_of_its_name(tmp_path: Path) -> None:
    write_rafdb(tmp_path)
    save_image(tmp_path / "basic" / "Image" / "aligned" / "train_00001.png", 200)
    assert open_source(RAFDB, tmp_path).read_image(0).getpixel((0, 0)) == pytest.approx((0, 255, 128), abs=3)


def test_what_lies_beside_rafdbs_listed_images_is_told(tmp_path: Path) -> None:
    write_rafdb(tmp_path)
    assert len(open_source(RAFDB, tmp_path).notes) == 1
    save_image(tmp_path / "basic" / "Image" / "aligned" / "train_99999_aligned.jpg")
    (tmp_path / "basic" / "Image" / "aligned" / "train_00001_aligned.txt").write_text("")
    told = ("images that are not listed, not read: 1", "files that are no images: 1 .txt")
    assert open_source(RAFDB, tmp_path).notes[1:] == told


def test_without_any_aligned_image_rafdb_says_what_is_there(tmp_path: Path) -> None:
    write_rafdb(tmp_path)
    aligned = tmp_path / "basic" / "Image" / "aligned"
    for path in list(aligned.iterdir()):
        path.rename(path.with_name(f"img{path.name}"))
    said = refused(RAFDB, tmp_path)
    assert "none of the 8 images of the list, such as train_00001_aligned.jpg; it has 8 others, such as imgtest" in said


def test_rafdb_inside_the_folder_of_its_archive_is_found(tmp_path: Path) -> None:
    write_numbered(tmp_path / "archive" / "DATASET", OFFICIAL_NAMES, 1)
    (tmp_path / "archive" / "train_labels.csv").write_text("image,label\n")
    assert counts(open_source(RAFDB, tmp_path))["happiness"] == 58
