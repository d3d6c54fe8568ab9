"""FER2013's faces, with FER+'s votes and with their own labels."""

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from helpers.dataset_files import FER2013, FERPLUS, counts, names_by_id, refused, splits_by_id, write_rows
from PIL import Image

from fer_core.data.dataset import EMOTIONS
from fer_core.data.readers import open_source
from fer_core.data.readers.ferplus import ANSWERS
from fer_core.experiment import DatasetSettings
from openface.decoding import UnreadableImage

SHARED = Path(os.environ.get("FER_SHARED", Path(__file__).parents[2] / "shared")) / "data" / "ferplus"

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


def write_csv_pair(folder: Path, spoiled: Mapping[int, str] | None = None) -> Path:
    pixels = [" ".join(map(str, face.ravel())) for face in faces()]
    pixels = [(spoiled or {}).get(row, text) for row, text in enumerate(pixels)]
    write_rows(
        folder / "fer2013.csv",
        ["emotion", "pixels", "Usage"],
        *[(0, text, name) for text, name in zip(pixels, USAGE, strict=True)],
    )
    # As published, what is no face has no name.
    names = [f"{name}.png" if name != "nothing" else "" for name in VOTES]
    write_rows(
        folder / "fer2013new.csv",
        ["Usage", "Image name", *ANSWERS],
        *[(usage, name, *votes) for usage, name, votes in zip(USAGE, names, VOTES.values(), strict=True)],
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


def test_pixels_that_were_written_as_a_list_are_read(tmp_path: Path) -> None:
    by_commas, as_list = ",".join(map(str, faces()[0].ravel())), str(faces()[3].ravel().tolist())
    source = open_source(FERPLUS, write_csv_pair(tmp_path, {0: by_commas, 3: as_list}))
    row_of = {name: row for row, name in enumerate(source.records["id"])}
    for row, name in enumerate(VOTES):
        if name in row_of:
            np.testing.assert_array_equal(np.asarray(source.read_image(row_of[name])), faces()[row])


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
    text = (tmp_path / "fer2013.csv").read_text().replace("PublicTest", "Exam")
    (tmp_path / "fer2013.csv").write_text(text)
    assert "fer2013.csv, line 6: Usage 'Exam'" in refused(FERPLUS, tmp_path)
    write_arrays(tmp_path, usage_names=np.array(["Training", "Exam", "PrivateTest"]))
    assert "ferplus.npz, row 4: Usage 'Exam'; it must be Training" in refused(FERPLUS, tmp_path)


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


# FER+'s own rule

RULED = {
    "clear": (4, 1, 1, 1, 1, 1, 0, 0, 1, 0),
    "split": (5, 5, 0, 0, 0, 0, 0, 0, 0, 0),
    "half": (5, 3, 2, 0, 0, 0, 0, 0, 0, 0),
    "most": (6, 2, 2, 0, 0, 0, 0, 0, 0, 0),
    "contempt": (1, 1, 0, 0, 0, 0, 0, 8, 0, 0),
    "unknown": (3, 0, 0, 0, 0, 0, 0, 0, 7, 0),
    "no face": (0, 0, 0, 0, 0, 0, 0, 0, 0, 10),
    "singles": (1, 1, 1, 1, 1, 1, 1, 1, 1, 1),
}


@pytest.mark.parametrize(("classes", "expected"), [(7, ["clear", "most"]), (8, ["clear", "most", "contempt"])])
def test_ferpluss_own_rule_removes_single_votes_and_wants_more_than_half(
    tmp_path: Path, classes: int, expected: list[str]
) -> None:
    votes, names = np.array(list(RULED.values()), np.uint8), np.array([name.encode() for name in RULED])
    write_arrays(tmp_path, votes=votes, names=names)
    settings = DatasetSettings(source="ferplus", protocol="ferplus", classes=classes)  # type: ignore[arg-type]
    source = open_source(settings, tmp_path)
    assert source.records["id"].tolist() == expected
    assert source.records["published"].all()
    assert source.distributions is not None
    np.testing.assert_array_equal(source.distributions[0], np.eye(classes)[0])
    assert "FER+'s own rule" in source.protocol


def test_what_the_majority_counts_says_which_images_ferplus_publishes(tmp_path: Path) -> None:
    votes, names = np.array(list(RULED.values()), np.uint8), np.array([name.encode() for name in RULED])
    source = open_source(FERPLUS, write_arrays(tmp_path, votes=votes, names=names))
    published = dict(zip(source.records["id"], source.records["published"], strict=True))
    assert published == {"clear": True, "half": False, "most": True}


@pytest.mark.skipif(not SHARED.is_dir(), reason="the real FER+ arrays are not here; set FER_SHARED")
@pytest.mark.parametrize(("classes", "published"), [(8, (25054, 3199, 3152)), (7, (24935, 3186, 3136))])
def test_the_real_ferplus_by_its_own_rule_has_the_published_counts(
    classes: int, published: tuple[int, int, int]
) -> None:
    settings = DatasetSettings(source="ferplus", protocol="ferplus", classes=classes)  # type: ignore[arg-type]
    splits = open_source(settings, SHARED).records["split"].value_counts()
    assert (splits["train"], splits["validation"], splits["test"]) == published


# FER2013 and its rows

OWN = ("anger", "disgust", "fear", "happiness", "sadness", "surprise", "neutral")


def write_in_step(folder: Path, count: int = 90, order: Sequence[int] | None = None, **spelling: str) -> Path:
    """Both CSVs; the makers' label is the votes' for four of five images. `order` is of the rows of fer2013.csv."""
    generator = np.random.default_rng(5)
    emotions = generator.integers(0, 7, count)
    own = np.where(np.arange(count) % 5 == 0, (emotions + 1) % 7, emotions)
    usage = np.array([("Training", "PublicTest", "PrivateTest")[3 * row // count] for row in range(count)])
    pixels = generator.integers(0, 256, (count, 48 * 48))
    rows = [(own[row], " ".join(map(str, pixels[row])), usage[row]) for row in range(count)]
    header = (
        f"{spelling.get('blank', '')}emotion",
        f"{spelling.get('blank', '')}pixels",
        f"{spelling.get('blank', '')}Usage",
    )
    write_rows(folder / spelling.get("name", "fer2013.csv"), header, *[rows[row] for row in order or range(count)])
    votes = [[10 if answer == OWN[emotion] else 0 for answer in ANSWERS] for emotion in emotions]
    write_rows(
        folder / "fer2013new.csv",
        ("Usage", "Image name", *ANSWERS),
        *[(usage[row], f"fer{row:07d}.png", *votes[row]) for row in range(count)],
    )
    return folder


def sorted_within_usage(count: int = 90) -> list[int]:
    emotions = np.random.default_rng(5).integers(0, 7, count)
    own = np.where(np.arange(count) % 5 == 0, (emotions + 1) % 7, emotions)
    return sorted(range(count), key=lambda row: (3 * row // count, own[row]))


def test_rows_of_fer2013_in_step_with_the_votes_are_read(tmp_path: Path) -> None:
    source = open_source(FERPLUS, write_in_step(tmp_path))
    assert len(source.records) == 90
    assert source.notes == ()


def test_rows_of_fer2013_sorted_by_emotion_are_refused(tmp_path: Path) -> None:
    said = refused(FERPLUS, write_in_step(tmp_path, order=sorted_within_usage()))
    assert "fer2013.csv, lines 2 to 91" in said
    assert "% of 90 images, where about 66% is usual, so the rows are out of step" in said


def test_a_row_too_many_in_the_middle_of_a_long_file_shows(tmp_path: Path) -> None:
    """Only the last sixth is out of step, which the agreement over all would not tell."""
    count = 3000
    order = [*range(2500), *range(2501, 3000), 2500]
    write_in_step(tmp_path, 90)
    emotions = np.random.default_rng(6).integers(0, 7, count)
    own, votes = emotions[order], [[10 if answer == OWN[e] else 0 for answer in ANSWERS] for e in emotions]
    write_rows(tmp_path / "fer2013.csv", ("emotion", "pixels", "Usage"), *[(label, "1 2", "Training") for label in own])
    rows = [("Training", f"fer{row:07d}.png", *vote) for row, vote in enumerate(votes)]
    write_rows(tmp_path / "fer2013new.csv", ("Usage", "Image name", *ANSWERS), *rows)
    assert "fer2013.csv, lines 2502 to 3001: " in refused(FERPLUS, tmp_path)


def test_the_other_published_spelling_of_fer2013_is_read(tmp_path: Path) -> None:
    source = open_source(FERPLUS, write_in_step(tmp_path, name="icml_face_data.csv", blank=" "))
    assert source.records["split"].value_counts().to_dict() == {"train": 30, "validation": 30, "test": 30}


def test_fer2013_without_its_own_labels_tells_that_nothing_is_checked(tmp_path: Path) -> None:
    write_in_step(tmp_path)
    rows = [line.split(",")[1:] for line in (tmp_path / "fer2013.csv").read_text().splitlines()]
    write_rows(tmp_path / "fer2013.csv", *rows)
    (note,) = open_source(FERPLUS, tmp_path).notes
    assert "has no column emotion" in note


def test_fer2013_is_read_with_its_own_labels(tmp_path: Path) -> None:
    folder = write_in_step(tmp_path)
    for given in (folder, folder / "fer2013.csv"):
        source = open_source(FER2013, given)
        assert source.labels == EMOTIONS[:7]
        assert sum(counts(source).values()) == 90
        assert source.records["id"][7] == "fer0000007"
        assert set(source.records["split"]) == {"train", "validation", "test"}
    (note,) = source.notes
    assert note.startswith("classes, numbers in FER2013's order, ")
    assert " happiness 7 (3), " in note


def test_fer2013s_labels_in_another_order_are_refused_and_read_with_a_map(tmp_path: Path) -> None:
    # As published but one higher, and with happiness the largest class.
    own = [4] * 30 + [1, 2, 3, 5, 6, 7] * 4
    pixels = " ".join(["7"] * 48 * 48)
    write_rows(
        tmp_path / "fer2013.csv", ("emotion", "pixels", "Usage"), *[(label, pixels, "Training") for label in own]
    )
    said = refused(FER2013, tmp_path)
    assert "labels 7 (4), but FER2013's order has 0 anger, 1 disgust" in said
    assert "[dataset.classes]" in said
    table = {str(number): name for number, name in enumerate(OWN, start=1)}
    assert counts(open_source(DatasetSettings(source="fer2013", classes=table), tmp_path))["happiness"] == 30

    # In the order of the alphabet, whose counts make something else than happiness the largest.
    own = [3] * 4 + [2] * 30 + [0, 1, 4, 5, 6] * 4
    write_rows(
        tmp_path / "fer2013.csv", ("emotion", "pixels", "Usage"), *[(label, pixels, "Training") for label in own]
    )
    assert "do not fit FER2013's order" in refused(FER2013, tmp_path)


def write_fer2013(folder: Path, labels: Sequence[object]) -> Path:
    pixels = " ".join(["7"] * 48 * 48)
    rows = [(label, pixels, "Training") for label in labels]
    write_rows(folder / "fer2013.csv", ("emotion", "pixels", "Usage"), *rows)
    return folder


def test_numbers_that_a_map_does_not_name_keep_their_order(tmp_path: Path) -> None:
    folder = write_fer2013(tmp_path, [3] * 30 + [0, 1, 2, 4, 5, 6, 7] * 2)
    table = {"7": "contempt", "1": "drop", "03": "Joy"}
    source = open_source(DatasetSettings(source="fer2013", classes=table), folder)
    assert counts(source) == {
        **dict.fromkeys(("neutral", "happiness", "surprise", "sadness", "anger"), 2),
        "happiness": 30,
        "fear": 2,
        "contempt": 2,
    }
    assert source.dropped == {"labelled 1": 2}
    assert "numbers in FER2013's order" in source.notes[0]
    without = DatasetSettings(source="fer2013", classes={"3": "drop", "7": "drop"})
    assert counts(open_source(without, folder))["disgust"] == 2


@pytest.mark.parametrize("table", [{"1": "anger"}, {"7": "neutral"}, {"0": "neutral", "1": "anger"}, {"1": "1"}])
def test_a_map_that_contradicts_the_order_has_to_name_every_number(tmp_path: Path, table: dict[str, str]) -> None:
    folder = write_fer2013(tmp_path, [3] * 30 + [0, 1, 2, 4, 5, 6, 7] * 2)
    said = refused(DatasetSettings(source="fer2013", classes=table), folder)
    assert "3 (30)" in said
    assert "but [dataset.classes] says otherwise than FER2013's order; say what each means in [dataset.classes]" in said
    assert "set dataset.source" not in said


# What FER+'s generator writes


def write_generated(folder: Path) -> Path:
    for part, numbers in {"FER2013Train": (0, 1, 2), "FER2013Valid": (3,), "FER2013Test": (4, 5)}.items():
        lines = []
        for number, (votes, image) in enumerate(zip(VOTES.values(), faces(), strict=True)):
            if number in numbers:
                (folder / part).mkdir(parents=True, exist_ok=True)
                Image.fromarray(image).save(folder / part / f"fer{number:07d}.png")
                lines.append((f"fer{number:07d}.png", "(0, 0, 48, 48)", *votes))
        write_rows(folder / part / "label.csv", *lines)
    return folder


def test_what_ferpluss_generator_writes_is_read(tmp_path: Path) -> None:
    folder = write_generated(tmp_path / "data")
    Image.new("L", (48, 48)).save(folder / "FER2013Test" / "fer0009999.png")
    settings = DatasetSettings(source="ferplus", classes=8)
    for given in (folder, tmp_path):
        source = open_source(settings, given)
        assert names_by_id(source) == {
            "fer0000000": "neutral",
            "fer0000002": "contempt",
            "fer0000003": "happiness",
        }
        assert splits_by_id(source) == {"fer0000000": "train", "fer0000002": "train", "fer0000003": "validation"}
        np.testing.assert_array_equal(np.asarray(source.read_image(1)), faces()[2])
        assert source.notes == ("images without votes, not read: 1",)
    (tmp_path / "src").mkdir()
    (tmp_path / "fer2013new.csv").write_text("")  # As in a clone of FER+'s repository.
    assert splits_by_id(open_source(settings, tmp_path)) == splits_by_id(source)


def test_a_wrong_line_of_the_generators_votes_is_named(tmp_path: Path) -> None:
    folder = write_generated(tmp_path)
    write_rows(folder / "FER2013Test" / "label.csv", ("fer0000004.png", "(0, 0, 48, 48)", 1, 2))
    assert "label.csv, line 1: 4 fields; it must be a name, a box and 10 votes" in refused(FERPLUS, folder)


def test_a_quote_that_swallows_the_generators_votes_is_named(tmp_path: Path) -> None:
    folder = write_generated(tmp_path)
    rest = "fer0000001.png,(0 0 48 48),4,0,0,1,3,2,0,0,0,0\n" * 4000
    (folder / "FER2013Train" / "label.csv").write_text(f'fer0000000.png,"(0, 0, 48, 48),4,0,0,1,3,2,0,0,0,0\n{rest}')
    assert "FER2013Train/label.csv, line " in (said := refused(FERPLUS, folder))
    assert "close the quote that may be open before it" in said


def test_the_published_split_has_the_counts_that_the_documentation_gives() -> None:
    docs = Path(__file__).parent.parent / "docs"
    split = pd.read_csv(docs / "ferplus_split.csv")
    assert split["name"].is_unique
    assert split["name"].str.fullmatch(r"fer\d{7}").all()
    counts = {rule: split[rule].value_counts().to_dict() for rule in ("ferplus", "majority")}
    assert counts == {
        "ferplus": {"train": 25_054, "validation": 2_932, "test": 2_862},
        "majority": {"train": 26_934, "validation": 3_116, "test": 3_067},
    }
    # What one rule counts and the other does too is on the same side by both.
    both = split.dropna()
    assert (both["ferplus"] == both["majority"]).all()
    assert "these are 2,862 and 2,848" in (docs / "data.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("moved", [1, 4])
def test_image_names_of_other_rows_are_seen(tmp_path: Path, moved: int) -> None:
    """The published file calls an image by the number of its row, also where too few rows moved for labels to tell."""
    write_csv_pair(tmp_path)
    numbers = list(range(len(VOTES)))
    numbers = [*numbers[moved:], *numbers[:moved]]
    header, *lines = [line.split(",") for line in (tmp_path / "fer2013new.csv").read_text().splitlines()]
    rows = [[usage, f"fer{number:07d}.png", *votes] for number, (usage, _, *votes) in zip(numbers, lines, strict=True)]
    write_rows(tmp_path / "fer2013new.csv", header, *rows)
    assert f"its image name fer{moved:07d}.png is that of row {moved}" in refused(FERPLUS, tmp_path)


def test_two_files_cut_alike_are_read_and_it_is_told(tmp_path: Path) -> None:
    write_csv_pair(tmp_path)
    header, *lines = [line.split(",") for line in (tmp_path / "fer2013new.csv").read_text().splitlines()]
    rows = [[usage, f"fer{number + 7:07d}.png", *votes] for number, (usage, _, *votes) in enumerate(lines)]
    write_rows(tmp_path / "fer2013new.csv", header, *rows)
    notes = open_source(FERPLUS, tmp_path).notes
    assert f"image names of fer2013new.csv number other rows: {len(rows)}; were both files cut alike?" in notes
