"""AffectNet without its lists: an array for each annotation, or class folders."""

from pathlib import Path

import numpy as np
import pytest
from helpers.dataset_files import AFFECTNET, names_by_id, refused, save_image, splits_by_id

from fer_core.data.readers import open_source
from fer_core.data.readers.source import Source
from fer_core.experiment import DatasetSettings

EIGHT = DatasetSettings(source="affectnet", classes=8)


def annotate(part: Path, name: str, label: str | np.ndarray) -> None:
    """An image with its four annotations, as its makers hand them out."""
    save_image(part / "images" / f"{name}.jpg", 20 + 10 * len(list(part.glob("images/*"))))
    (part / "annotations").mkdir(exist_ok=True)
    np.save(part / "annotations" / f"{name}_exp.npy", label)
    np.save(part / "annotations" / f"{name}_val.npy", "-0.25")
    np.save(part / "annotations" / f"{name}_aro.npy", "0.5")
    np.save(part / "annotations" / f"{name}_lnd.npy", np.zeros(136))


def by_split(source: Source) -> dict[str, int]:
    return {str(split): int(count) for split, count in source.records["split"].value_counts().items()}


def test_arrays_are_read_and_the_validation_part_is_the_test_split(tmp_path: Path) -> None:
    for number in range(8):
        annotate(tmp_path / "AffectNet" / "train_set", str(number), str(number))
        annotate(tmp_path / "AffectNet" / "val_set", str(100 + number), str(7 - number))
    source = open_source(EIGHT, tmp_path)
    assert source.name == "affectnet"
    assert source.labels == (
        *("neutral", "happiness", "surprise", "sadness", "anger", "disgust", "fear"),
        "contempt",
    )
    assert by_split(source) == {"train": 8, "test": 8}
    known = names_by_id(source)
    order = ("neutral", "happiness", "sadness", "surprise", "fear", "disgust", "anger", "contempt")
    assert [known[f"train_set/images/{number}"] for number in range(8)] == list(order)
    assert [known[f"val_set/images/{100 + number}"] for number in range(8)] == list(reversed(order))
    assert source.read_image(0).size == (20, 20)


def test_seven_classes_leave_contempt_out_and_a_part_is_a_dataset_too(tmp_path: Path) -> None:
    for number in range(9):
        annotate(tmp_path / "val_set", str(number), str(number))
    source = open_source(AFFECTNET, tmp_path / "val_set")
    assert "contempt" not in source.labels
    assert by_split(source) == {"test": 7}
    assert sum(source.dropped.values()) == 2


@pytest.mark.parametrize("kind", [np.int64, np.float32, "S2"])
def test_a_label_is_read_whatever_array_it_was_saved_as(tmp_path: Path, kind: str) -> None:
    for number in range(3):
        annotate(tmp_path / "train_set", str(number), np.array([number]).astype(kind))
    assert sorted(names_by_id(open_source(AFFECTNET, tmp_path)).values()) == ["happiness", "neutral", "sadness"]


def test_an_image_without_an_annotation_is_left_out_and_told(tmp_path: Path) -> None:
    for number in range(3):
        annotate(tmp_path / "train_set", str(number), str(number))
    save_image(tmp_path / "train_set" / "images" / "7.jpg")
    source = open_source(AFFECTNET, tmp_path)
    assert len(source.records) == 3
    assert "images without an annotation, not read: 1, such as 7.jpg" in source.notes
    assert not any("without an image" in note for note in source.notes)
    (tmp_path / "train_set" / "images" / "2.jpg").unlink()
    told = "annotations without an image: 1, such as 2_exp.npy; are all images unpacked?"
    assert told in open_source(AFFECTNET, tmp_path).notes


def test_what_is_no_annotation_is_refused_by_name(tmp_path: Path) -> None:
    annotate(tmp_path / "train_set", "0", "0")
    annotate(tmp_path / "train_set", "1", "happy")
    wrong = tmp_path / "train_set" / "annotations" / "1_exp.npy"
    assert refused(AFFECTNET, tmp_path) == f"{wrong}: not the number of an expression; restore it"
    wrong.write_bytes(b"\x93NUMPY")
    assert refused(AFFECTNET, tmp_path).startswith(f"{wrong}: not readable as an array")
    np.save(wrong, np.array([{"label": 1}], dtype=object), allow_pickle=True)
    assert refused(AFFECTNET, tmp_path).startswith(f"{wrong}: not readable as an array")
    wrong.unlink()
    (tmp_path / "train_set" / "annotations" / "0_exp.npy").unlink()
    assert "none of its 2 images has an annotation" in refused(AFFECTNET, tmp_path)


@pytest.mark.parametrize("names", ["{}", "affectnet_{}", "Manually_{}_croped"])
def test_class_folders_are_numbered_in_its_own_order(tmp_path: Path, names: str) -> None:
    for part in map(names.format, ("train", "val")):
        for number in range(8):
            save_image(tmp_path / "affectnet" / part / str(number) / f"{part}{number}.jpg", 20 * number)
    source = open_source(EIGHT, tmp_path)
    part = names.format("train")
    assert names_by_id(source)[f"{part}/3/{part}3"] == "surprise"
    assert by_split(source) == {"train": 8, "test": 8}


def test_three_parts_stay_three(tmp_path: Path) -> None:
    for part in ("train", "val", "test"):
        for name in ("Anger", "Happy", "Neutral"):
            save_image(tmp_path / part / name / f"{part}{name}.jpg", len(part) + len(name))
    source = open_source(AFFECTNET, tmp_path)
    assert splits_by_id(source)["val/Anger/valAnger"] == "validation"


def test_what_is_none_of_its_layouts_is_refused_by_what_was_looked_for(tmp_path: Path) -> None:
    save_image(tmp_path / "images" / "1.jpg")
    assert "not AffectNet; looked for training.csv and validation.csv, for train_set and val_set with images and" in (
        refused(AFFECTNET, tmp_path)
    )


def test_another_list_beside_class_folders_hides_none(tmp_path: Path) -> None:
    """Kaggle's copy has a list of images that are not in it; it was refused for that list."""
    folder = tmp_path / "archive (3)"
    for place in ("Train/Anger", "Train/Happy", "Test/Anger", "Test/Happy"):
        save_image(folder / place / "ffhq_1.png")
    (folder / "labels.csv").write_text(",pth,label,relFCs\n0,anger/image0000006.jpg,surprise,0.87\n")
    for given in (tmp_path, folder):
        source = open_source(AFFECTNET, given)
        assert by_split(source) == {"train": 2, "test": 2}
        assert "files that are no images: 1 .csv" in source.notes
    (folder / "labels.csv").write_text("subDirectory_filePath,expression\n1/a.jpg,1\n1/b.jpg,2\n")
    assert open_source(AFFECTNET, folder).records["id"].tolist() == ["1/a", "1/b"]
