"""Images that come without a label: an empty one in a list, a folder `unlabelled`; and what is refused."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from test_prepare import fill, prepared, refused, save_noise

from fer_core.data.dataset import UNLABELLED, Dataset


def listed(folder: Path, **splits: str) -> Path:
    """Twelve images of two classes, then three without a label, then what `splits` says."""
    rows = []
    for number in range(15):
        save_noise(folder / f"{number}.png", number)
        rows.append(
            {"path": f"{number}.png", "label": ("happy", "sad")[number % 2] if number < 12 else "", "split": ""}
        )
    for name, split in splits.items():
        save_noise(folder / f"{name}.png", hash(name) % 1000 + 100)
        rows.append({"path": f"{name}.png", "label": "", "split": split})
    pd.DataFrame(rows).to_csv(folder / "labels.csv", index=False)
    return folder


def without(dataset: Dataset) -> list[str]:
    rows = dataset.rows("unlabelled")
    assert (dataset.labels()[rows] == UNLABELLED).all()
    return sorted(dataset.manifest["id"].to_numpy()[rows])


def test_an_empty_label_of_a_list_is_an_image_without_one(tmp_path: Path) -> None:
    (tmp_path / "faces").mkdir()
    dataset = prepared(tmp_path / "out", listed(tmp_path / "faces"), "csv")
    assert without(dataset) == ["12", "13", "14"]
    assert dataset.card.labels == ("happiness", "sadness")
    assert dataset.card.counts["unlabelled"] == 3
    assert any("without a label 3" in note for note in dataset.card.notes)


@pytest.mark.parametrize(
    "name", ["unlabelled", "Unlabeled", "no_label", "Not annotated", "unlabeled-faces", "unlabelled (2)"]
)
@pytest.mark.parametrize("layout", ["{}", "train/{}"])
def test_a_folder_of_unlabelled_images_stands_beside_classes_and_splits(tmp_path: Path, name: str, layout: str) -> None:
    faces = tmp_path / "faces"
    below = [faces / split for split in ("train", "test")] if "/" in layout else [faces]
    for number, folder in enumerate(below):
        fill(folder, first_seed=5000 * number, happy=8, sad=8)
    place = faces / layout.format(name)
    save_noise(place / "one.png", 90_001)
    save_noise(place / "deeper" / "two.png", 90_002)
    assert len(without(prepared(tmp_path / "out", faces))) == 2


def test_unlabelled_images_stand_beside_the_folders_of_splits(tmp_path: Path) -> None:
    for number, split in enumerate(("train", "test")):
        fill(tmp_path / "faces" / split, first_seed=5000 * number, happy=8, sad=8)
    save_noise(tmp_path / "faces" / "unlabelled" / "one.png", 90_001)
    assert without(prepared(tmp_path / "out", tmp_path / "faces")) == ["unlabelled/one"]


def test_an_image_that_is_judged_on_has_a_label(tmp_path: Path) -> None:
    (tmp_path / "faces").mkdir()
    told = refused(tmp_path / "out", listed(tmp_path / "faces", other="test"), "csv")
    assert told.startswith("other: in the test split but without a label")


def test_other_words_are_still_refused(tmp_path: Path) -> None:
    told = refused(tmp_path / "out", fill(tmp_path / "faces", happy=8, sad=8, leftovers=2))
    assert "leftovers (2) of 18 images" in told


@pytest.mark.parametrize("word", ["unknown", "?", "-1", "NaN", "sin_etiqueta"])
def test_a_word_for_no_label_can_be_named_in_classes(tmp_path: Path, word: str) -> None:
    (tmp_path / "faces").mkdir()
    listed(tmp_path / "faces")
    table = pd.read_csv(tmp_path / "faces" / "labels.csv", keep_default_na=False)
    table["label"] = table["label"].replace("", word)
    table.to_csv(tmp_path / "faces" / "labels.csv", index=False)
    assert '"unlabelled"' in refused(tmp_path / "no", tmp_path / "faces", "csv")
    dataset = prepared(tmp_path / "out", tmp_path / "faces", "csv", classes={word: "unlabelled"})
    assert without(dataset) == ["12", "13", "14"]
    assert any(f"without a label 3 ({word})" in note for note in dataset.card.notes)


def test_a_folder_for_no_label_can_be_named_in_classes_and_stands_beside_splits(tmp_path: Path) -> None:
    for number, split in enumerate(("train", "test")):
        fill(tmp_path / "faces" / split, first_seed=5000 * number, happy=8, sad=8)
    save_noise(tmp_path / "faces" / "Unsorted" / "happy" / "one.png", 90_001)
    dataset = prepared(tmp_path / "out", tmp_path / "faces", classes={"unsorted": "unlabelled"})
    assert without(dataset) == ["Unsorted/happy/one"]
    assert dataset.card.labels == ("happiness", "sadness")


def test_unlabelled_faces_of_people_whom_a_cut_judges_on_are_left_out(tmp_path: Path) -> None:
    (tmp_path / "faces").mkdir()
    rows = []
    for number in range(40):
        save_noise(tmp_path / "faces" / f"{number}.png", number)
        label, person = (("happy", "sad")[number % 2] if number < 30 else ""), f"p{number % 10}" if number < 39 else ""
        rows.append({"path": f"{number}.png", "label": label, "person": person})
    pd.DataFrame(rows).to_csv(tmp_path / "faces" / "labels.csv", index=False)
    dataset = prepared(tmp_path / "out", tmp_path / "faces", "csv")
    people = {split: set(part["person"]) - {""} for split, part in dataset.manifest.groupby("split")}
    judged = people["validation"] | people["test"]
    assert judged.isdisjoint(people["train"] | people["unlabelled"])
    assert "39" in without(dataset), "of nobody known"
    assert dataset.card.counts["unlabelled of people who are judged on"] == 10 - len(without(dataset)) > 0


@pytest.mark.parametrize("share", ["", "0", "NaN", "0.5"])
def test_shares_of_an_image_without_a_label_are_not_used_and_told(tmp_path: Path, share: str) -> None:
    (tmp_path / "faces").mkdir()
    path = listed(tmp_path / "faces") / "labels.csv"
    table = pd.read_csv(path, keep_default_na=False)
    for label in ("happy", "sad"):
        table[f"p_{label}"] = [str(float(own == label)) if own else share for own in table["label"]]
    table.to_csv(path, index=False)
    dataset = prepared(tmp_path / "out", tmp_path / "faces", "csv", labels="distribution")
    crowd = dataset.crowd()
    assert crowd is not None
    assert np.isnan(crowd[dataset.rows("unlabelled")]).all()
    told = "images with p_ columns and without a label, whose shares are not used: 3"
    assert (told in dataset.card.notes) == (share != "")


def test_a_list_without_any_label_is_refused_as_that(tmp_path: Path) -> None:
    (tmp_path / "faces").mkdir()
    path = listed(tmp_path / "faces") / "labels.csv"
    pd.read_csv(path).assign(label="").to_csv(path, index=False)
    assert "no image has a label; list images of two classes" in refused(tmp_path / "out", tmp_path / "faces", "csv")


def test_words_that_are_no_emotions_can_have_images_without_a_label(tmp_path: Path) -> None:
    dataset = prepared(tmp_path / "out", fill(tmp_path / "faces", cats=8, dogs=8, unlabelled=3))
    assert dataset.card.labels == ("cats", "dogs")
    assert len(without(dataset)) == 3
