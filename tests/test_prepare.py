"""Preparing real files: what is stored, what is skipped or dropped and counted, and who is on which side."""

import hashlib
import json
import os
import struct
import subprocess
import sys
import zlib
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from fer_core.data.dataset import Dataset, open_dataset
from fer_core.data.prepare import OPENFACE_TABLE, prepare
from fer_core.data.readers import open_source
from fer_core.data.readers.splits import complete_splits, draw_stratified
from fer_core.errors import ArtifactError, DatasetError
from fer_core.experiment import DatasetSettings, load_experiment
from fer_core.progress import JsonLines
from fer_core.steps import request
from fer_core.steps.run import run_step
from openface.reading import read_openface
from openface.table import one_row_per_image

SHARED = Path(os.environ.get("FER_SHARED", Path(__file__).parents[2] / "shared")) / "data" / "ferplus"
SIZE = 16
needs_ferplus = pytest.mark.skipif(not SHARED.is_dir(), reason="the real FER+ arrays are not here; set FER_SHARED")


def save_noise(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (SIZE, SIZE, 3), np.uint8)).save(path)


def fill(folder: Path, first_seed: int = 0, **counts: int) -> Path:
    """Class folders of so many different images."""
    for number, (name, count) in enumerate(counts.items()):
        for index in range(count):
            save_noise(folder / name / f"{index:03d}.png", first_seed + 1000 * number + index)
    return folder


def prepared(out: Path, folder: Path | None, source: str = "folder", **settings: Any) -> Dataset:
    out.mkdir()
    prepare(make_settings(source, **settings), folder, out, JsonLines())
    return open_dataset(out)


def make_settings(source: str, **settings: Any) -> DatasetSettings:
    chosen: dict[str, Any] = {"source": source, "image_size": SIZE, **settings}
    return DatasetSettings(**chosen)


def refused(out: Path, folder: Path, source: str = "folder", **settings: Any) -> str:
    with pytest.raises(DatasetError) as raised:
        prepared(out, folder, source, **settings)
    assert "\n" not in str(raised.value)
    return str(raised.value)


def splits_by_id(dataset: Dataset) -> dict[str, str]:
    return dict(zip(dataset.manifest["id"], dataset.manifest["split"], strict=True))


def notes(capsys: pytest.CaptureFixture[str]) -> list[str]:
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    return [event["text"] for event in events if event["event"] == "note"]


# What is stored


def test_the_contract_of_a_prepared_dataset(tmp_path: Path) -> None:
    folder = fill(tmp_path / "faces", happy=20, sad=10)
    dataset = prepared(tmp_path / "out", folder)

    assert dataset.card.labels == ("happiness", "sadness")
    assert dataset.images.shape == (30, SIZE, SIZE, 3)
    assert dataset.images.dtype == np.uint8
    assert isinstance(dataset.images, np.memmap)
    assert list(dataset.manifest.columns) == ["id", "sha256", "split", "label"]
    assert dataset.crowd() is None
    for row, (name, digest) in enumerate(zip(dataset.manifest["id"], dataset.manifest["sha256"], strict=True)):
        saved = Image.open(folder / f"{name}.png")
        np.testing.assert_array_equal(dataset.images[row], np.asarray(saved))
        assert digest == hashlib.sha256(b"RGB 16 16 " + saved.tobytes()).hexdigest()
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "dataset.json",
        "images.npy",
        "manifest.parquet",
    ]


@pytest.mark.parametrize("card", ['{"source": "folder"}', "[]", "null", '{"mean": 1}', "{"])
def test_a_card_that_is_none_is_refused_in_one_line(tmp_path: Path, card: str) -> None:
    prepared(tmp_path / "out", fill(tmp_path / "faces", happy=20, sad=10))
    (tmp_path / "out" / "dataset.json").write_text(card)
    with pytest.raises(ArtifactError, match=r"out: not a prepared dataset \(.*\); make one with `fer prepare`"):
        open_dataset(tmp_path / "out")


@pytest.mark.parametrize(("key", "value"), [("mean", None), ("labels", 7), ("std", "text"), ("more", 1)])
def test_a_card_with_a_key_amiss_names_it(tmp_path: Path, key: str, value: object) -> None:
    prepared(tmp_path / "out", fill(tmp_path / "faces", happy=20, sad=10))
    path = tmp_path / "out" / "dataset.json"
    card = json.loads(path.read_text())
    card[key] = value
    if value is None:
        del card[key]
    path.write_text(json.dumps(card))
    with pytest.raises(ArtifactError, match=key) as raised:
        open_dataset(tmp_path / "out")
    assert str(tmp_path / "out") in str(raised.value)
    assert "\n" not in str(raised.value)


def test_mean_and_deviation_are_of_the_training_images(tmp_path: Path) -> None:
    for split, shades in {"train": (0, 51, 255), "test": (90,), "val": (120,)}.items():
        for index, shade in enumerate(shades):
            for name in ("happy", "sad"):
                path = tmp_path / "faces" / split / name / f"{index}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.new("RGB", (SIZE, SIZE), (shade, 255, shade)).save(path)
    dataset = prepared(tmp_path / "out", tmp_path / "faces", test_share=0.0)
    expected = np.array([0, 0.2, 1])
    assert dataset.card.mean == pytest.approx((expected.mean(), 1, expected.mean()))
    assert dataset.card.std == pytest.approx((expected.std(), 0, expected.std()))


def test_grey_images_have_one_channel_and_one_mean(tmp_path: Path) -> None:
    dataset = prepared(tmp_path / "out", fill(tmp_path / "faces", happy=5, sad=5), colour=False)
    assert dataset.images.shape == (10, SIZE, SIZE, 1)
    assert len(dataset.card.mean) == len(dataset.card.std) == 1


def halves(width: int, height: int, mode: str = "RGB") -> Image.Image:
    """White with a dark left border as wide as what a centre crop cuts away from a wide image."""
    image = Image.new(mode, (width, height), "white")
    image.paste(Image.new(mode, ((width - height) // 2, height), "black"), (0, 0))
    return image


def store(tmp_path: Path, save: Callable[[Path], object], ending: str = "png", **settings: Any) -> np.ndarray:
    """(S, S, C) what is stored of one image."""
    fill(tmp_path / "faces", happy=3, sad=3)
    save(tmp_path / "faces" / "happy" / f"it.{ending}")
    dataset = prepared(tmp_path / "out", tmp_path / "faces", **settings)
    row = dataset.manifest.index[dataset.manifest["id"] == "happy/it"][0]
    return np.asarray(dataset.images[row])


def test_a_wide_image_is_cropped_at_its_centre(tmp_path: Path) -> None:
    stored = store(tmp_path, halves(96, 64).save)
    assert stored[:, 1:].min() > 250
    assert stored.shape == (SIZE, SIZE, 3)


def test_exif_orientation_is_applied(tmp_path: Path) -> None:
    image = Image.new("RGB", (32, 32), "white")
    image.paste(Image.new("RGB", (32, 16), "black"), (0, 0))
    exif = Image.Exif()
    exif[0x0112] = 3
    stored = store(tmp_path, lambda path: image.save(path, exif=exif, quality=95), "jpg")
    assert stored[:6].min() > 200
    assert stored[-6:].max() < 50


@pytest.mark.parametrize("colour", [True, False])
def test_any_mode_becomes_eight_bits(tmp_path: Path, colour: bool) -> None:
    deep = Image.fromarray(np.full((SIZE, SIZE), 200 * 256, np.uint16))
    assert (store(tmp_path / "deep", deep.save, colour=colour) == 200).all()
    shades = np.full((SIZE, SIZE, 3), 51, np.uint8)
    shades[:, SIZE // 2 :] = 204
    palette = Image.fromarray(shades).convert("P")
    left = palette.getpixel((0, 0))
    for alpha, seen in ((255, 51), (0, 255)):
        palette.info["transparency"] = bytes(alpha if number == left else 255 for number in range(256))
        stored = store(tmp_path / f"palette{alpha}", palette.save, colour=colour)
        assert (stored[:, : SIZE // 2] == seen).all()
        assert (stored[:, SIZE // 2 :] == 204).all()
    ink = Image.new("CMYK", (SIZE, SIZE), (0, 0, 0, 255))
    assert store(tmp_path / "ink", ink.save, "jpg", colour=colour).max() < 10


def test_dark_images_of_sixteen_bits_are_scaled_and_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    camera = np.random.default_rng(5).integers(0, 4096, (SIZE, SIZE), np.uint16)
    stored = store(tmp_path, Image.fromarray(camera).save, colour=False)
    np.testing.assert_array_equal(stored[..., 0], camera >> 4)
    assert "1 of 7 images: 12 of 16 bits are used, and scaled to 8" in notes(capsys)


def test_crowd_and_au_rows_of_the_sample_come_along(tmp_path: Path) -> None:
    dataset = prepared(tmp_path / "out", None, "sample", count=200, image_size=32)
    crowd = dataset.crowd()
    assert crowd is not None
    np.testing.assert_allclose(crowd.sum(axis=1), 1, rtol=1e-5)
    assert dataset.card.truth == "true distribution"

    source = open_source(make_settings("sample", count=200, image_size=32), None)
    assert source.distributions is not None
    assert source.au_rows is not None
    position = {name: row for row, name in enumerate(source.records["id"])}
    rows = [position[name] for name in dataset.manifest["id"]]
    np.testing.assert_array_equal(crowd, source.distributions[rows])
    table = one_row_per_image(read_openface(tmp_path / "out" / OPENFACE_TABLE), dataset.manifest["id"].tolist())
    expected = source.au_rows.set_index("index")["AU12_r"].reindex(rows)
    np.testing.assert_allclose(table["AU12_r"], expected, rtol=1e-6)


# What cannot be decoded


def write_bomb(path: Path, side: int) -> None:
    """A PNG of a hundred bytes that says it has side² pixels."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + body)


def truncate(path: Path) -> None:
    save_noise(path, 77)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


SPOIL: Mapping[str, Callable[[Path], object]] = {
    "truncated.png": truncate,
    "truncated.jpg": truncate,
    "text.jpg": lambda path: path.write_text("no image"),
    "empty.jpg": lambda path: path.write_bytes(b""),
    "huge.png": lambda path: write_bomb(path, 7_500),
    "larger.png": lambda path: write_bomb(path, 11_000),
    "bomb.png": lambda path: write_bomb(path, 60_000),
}


@pytest.mark.parametrize("name", SPOIL)
def test_an_image_that_cannot_be_decoded_is_skipped_and_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    folder = fill(tmp_path / "faces", happy=10, sad=9)
    SPOIL[name](folder / "happy" / name)
    dataset = prepared(tmp_path / "out", folder, max_unreadable=0.05)
    assert dataset.card.counts["unreadable"] == 1
    assert dataset.card.counts["read"] == 20
    assert len(dataset.images) == 19
    assert any(note.startswith("1 of 20 images skipped") and name in note for note in notes(capsys))


def test_too_many_that_cannot_be_decoded_are_an_error(tmp_path: Path) -> None:
    folder = fill(tmp_path / "faces", happy=10, sad=8)
    for name in ("b.jpg", "a.jpg"):
        (folder / "happy" / name).write_text("no image")
    message = refused(tmp_path / "out", folder, max_unreadable=0.05)
    assert f"{folder / 'happy' / 'a.jpg'}: " in message
    assert "2 of 20 images cannot be decoded" in message
    assert "dataset.max_unreadable = 0.05" in message


def test_the_card_names_what_is_unreadable_and_why(tmp_path: Path) -> None:
    folder = fill(tmp_path / "faces", happy=10, sad=9)
    (folder / "sad" / "broken.png").write_text("no image")
    dataset = prepared(tmp_path / "out", folder, max_unreadable=0.05)
    path = folder / "sad" / "broken.png"
    assert dataset.card.unreadable == {"sad/broken": f"{path}: not an image of a known format"}
    assert dataset.card.notes == ("classes: happiness 10 (happy), sadness 10 (sad)",)


def test_a_pipe_in_a_list_is_unreadable_and_nothing_waits_for_it(tmp_path: Path) -> None:
    fill(tmp_path, happy=10, sad=9)
    os.mkfifo(tmp_path / "pipe.png")
    rows = [f"{name}/{number:03d}.png,{name}" for name, count in (("happy", 10), ("sad", 9)) for number in range(count)]
    (tmp_path / "labels.csv").write_text("\n".join(["path,label", *rows, "pipe.png,sad"]))
    dataset = prepared(tmp_path / "out", tmp_path, "csv", max_unreadable=0.05)
    assert dataset.card.unreadable == {"pipe": f"{tmp_path / 'pipe.png'}: not a regular file"}


@pytest.mark.parametrize("source", ["folder", "csv"])
def test_any_name_goes_through_the_command_the_manifest_and_the_notes(tmp_path: Path, source: str) -> None:
    folder = fill(tmp_path / "faces", happy=6, sad=6)
    for name in (b"ni\xf1o.png", b"two\nlines.png", "ni\xf1o.png".encode()):
        save_noise(folder / "happy" / os.fsdecode(name), 500 + len(name))
    (folder / "sad" / os.fsdecode(b"br\xf6ken.png")).write_text("no image")
    images = sorted(
        os.fsencode(path.relative_to(folder)) for path in folder.rglob("*.png") if b"\n" not in os.fsencode(path)
    )
    (folder / "labels.csv").write_bytes(b"\n".join([b"path,label", *(name + b"," + name[:3] for name in images)]))
    table = '{hap = "happiness"}'
    command = [
        sys.executable,
        "-m",
        "fer_core",
        "prepare",
        "demo",
        "--data",
        str(folder),
        "--out",
        str(tmp_path / "out"),
    ]
    settings = [f"dataset.source={source}", "dataset.max_unreadable=0.1", f"dataset.classes={table}"]
    command += [part for setting in settings[: 3 if source == "csv" else 2] for part in ("--set", setting)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, "LC_ALL": "C"})
    assert done.returncode == 0, done.stderr
    ids = set(open_dataset(tmp_path / "out").manifest["id"])
    assert {r"happy/ni\xf1o", "happy/ni\xf1o"} <= ids
    assert (r"happy/two\x0alines" in ids) == (source == "folder")
    texts = [json.loads(line).get("text", "") for line in done.stdout.splitlines()]
    assert any(r"br\xf6ken.png: not an image of a known format" in text for text in texts)
    for text in texts:
        text.encode()


def test_a_listed_file_that_is_missing_cannot_be_decoded(tmp_path: Path) -> None:
    fill(tmp_path, happy=2)
    (tmp_path / "labels.csv").write_text("path,label\nhappy/000.png,happy\nhappy/001.png,sad\nnowhere.png,sad\n")
    assert f"{tmp_path / 'nowhere.png'}: no such file; 1 of 3" in refused(tmp_path / "out", tmp_path, "csv")


def test_all_unreadable_is_an_error_whatever_is_allowed(tmp_path: Path) -> None:
    for name in ("happy", "sad"):
        (tmp_path / "faces" / name).mkdir(parents=True)
        (tmp_path / "faces" / name / "1.jpg").write_text("no image")
    assert "no training image of class happiness, sadness" in refused(
        tmp_path / "out", tmp_path / "faces", max_unreadable=1.0
    )


# Who is on which side


def test_a_copy_of_a_training_image_is_dropped_from_evaluation(tmp_path: Path) -> None:
    folder = fill(tmp_path / "faces" / "train", 0, happy=3, sad=3).parent
    fill(folder / "val", 10_000, happy=3, sad=3)
    fill(folder / "test", 20_000, happy=3, sad=3)
    save_noise(folder / "train" / "sad" / "again_in_train.png", 0)
    save_noise(folder / "val" / "happy" / "of_train.png", 0)
    save_noise(folder / "val" / "happy" / "own.png", 10_000)
    save_noise(folder / "test" / "happy" / "of_train.png", 1)
    save_noise(folder / "test" / "sad" / "of_validation.png", 10_001)
    save_noise(folder / "test" / "sad" / "own.png", 20_000)

    dataset = prepared(tmp_path / "out", folder)

    assert dataset.card.counts["duplicates dropped"] == 5
    assert Counter(dataset.manifest["split"]) == {"train": 7, "validation": 6, "test": 6}
    stayed = {name for name in splits_by_id(dataset) if not name.rpartition("/")[2].isdigit()}
    # The first of its kind stays: of two equal images in one split that is the one whose path sorts first.
    assert stayed == {"train/sad/again_in_train"}


def test_cuts_are_stratified_and_as_large_as_told(tmp_path: Path) -> None:
    folder = fill(tmp_path / "faces", happy=50, sad=20, angry=2)
    dataset = prepared(tmp_path / "out", folder, test_share=0.2, validation_share=0.1)
    counts = dataset.manifest.groupby(["label", "split"]).size().unstack(fill_value=0)
    happiness, sadness, anger = (counts.loc[index].to_dict() for index in range(3))
    assert happiness == {"train": 36, "validation": 4, "test": 10}
    assert sadness == {"train": 14, "validation": 2, "test": 4}
    assert anger == {"train": 1, "validation": 0, "test": 1}


def test_a_dataset_with_a_test_split_keeps_it_and_has_validation_cut(tmp_path: Path) -> None:
    folder = fill(tmp_path / "faces" / "train", 0, happy=20, sad=20).parent
    fill(folder / "test", 10_000, happy=5, sad=5)
    splits = splits_by_id(prepared(tmp_path / "out", folder))
    assert {name for name, split in splits.items() if split == "test"} == {n for n in splits if n.startswith("test/")}
    assert Counter(splits.values()) == {"train": 36, "validation": 4, "test": 10}


def test_equal_images_are_never_on_two_sides(tmp_path: Path) -> None:
    folder = fill(tmp_path / "faces", happy=30, sad=30)
    for index in range(30):
        save_noise(folder / "sad" / f"copy{index:03d}.png", index)
    dataset = prepared(tmp_path / "out", folder, test_share=0.3, validation_share=0.3)
    assert dataset.manifest.groupby("sha256")["split"].nunique().max() == 1
    evaluation = dataset.manifest[dataset.manifest["split"] != "train"]
    assert evaluation["sha256"].is_unique


def write_people(folder: Path, splits: Mapping[int, str] | None = None, known: int = 200) -> Path:
    """Twenty people with ten faces each, in turn, listed with the splits of some, and with whose the first ones are."""
    folder.mkdir()
    lines = ["path,emotion,Subject ID,split"]
    for face in range(200):
        save_noise(folder / f"{face}.png", face)
        person = f"S{face % 20:03d}" if face < known else ""
        lines.append(f"{face}.png,{('happy', 'sad')[face // 20 % 2]},{person},{(splits or {}).get(face, '')}")
    (folder / "labels.csv").write_text("\n".join(lines))
    return folder


def test_all_faces_of_a_person_are_on_one_side_of_a_cut(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_people(tmp_path / "faces")
    dataset = prepared(tmp_path / "out", folder, "csv", test_share=0.2, validation_share=0.25)
    assert dataset.manifest.groupby("person")["split"].nunique().tolist() == [1] * 20
    assert Counter(dataset.manifest["split"]) == {"train": 120, "validation": 40, "test": 40}
    assert "people by the column Subject ID; where a split is cut, each is on one side" in dataset.card.notes
    assert "people of test images" not in capsys.readouterr().out
    other = prepared(tmp_path / "other", folder, "csv", test_share=0.2, validation_share=0.25, split_seed=1)
    assert splits_by_id(other) != splits_by_id(dataset)


def test_every_side_has_people_and_a_share_of_all_takes_all(tmp_path: Path) -> None:
    folder = write_people(tmp_path / "faces")
    small = prepared(tmp_path / "small", folder, "csv", test_share=0.001, validation_share=0.001)
    assert small.manifest.groupby("split")["person"].nunique().to_dict() == {"test": 1, "train": 18, "validation": 1}
    all_of_them = prepared(tmp_path / "all", folder, "csv", test_share=1, validation_share=0)
    assert set(all_of_them.manifest["split"]) == {"test"}


def test_people_on_both_sides_of_a_datasets_own_split_are_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # All faces of the people 3 and 4, and one each of 0, 1 and 2.
    own = {face: "test" if face % 20 in (3, 4) or face in (0, 1, 2) else "train" for face in range(200)}
    dataset = prepared(tmp_path / "out", write_people(tmp_path / "faces", own), "csv", validation_share=0.25)
    assert "people of test images who are trained on too: 3 of 5" in capsys.readouterr().out
    cut = dataset.manifest[dataset.manifest["split"] != "test"]
    assert cut.groupby("person")["split"].nunique().max() == 1
    assert set(cut["split"]) == {"train", "validation"}


def test_classes_that_a_cut_by_people_leaves_a_split_without_are_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_people(tmp_path / "faces")
    prepared(tmp_path / "out", folder, "csv", test_share=0.2, validation_share=0.25)
    assert not any("of which no figure tells" in note for note in notes(capsys))
    # One person alone shows fear.
    rows = (folder / "labels.csv").read_text().replace("happy,S005", "fear,S005").replace("sad,S005", "fear,S005")
    (folder / "labels.csv").write_text(rows)
    manifest = prepared(tmp_path / "other", folder, "csv", test_share=0.2, validation_share=0.25).manifest
    assert set(manifest.loc[manifest["person"] == "S005", "split"]) == {"train"}
    told = notes(capsys)
    assert "classes without a validation image, of which no figure tells: fear" in told
    assert "classes without a test image, of which no figure tells: fear" in told


def test_a_face_of_nobody_known_is_cut_by_itself(tmp_path: Path) -> None:
    folder = write_people(tmp_path / "faces", known=100)
    manifest = prepared(tmp_path / "out", folder, "csv", test_share=0.3, validation_share=0.2).manifest
    known = manifest[manifest["person"] != ""]
    assert len(known) == 100
    assert known.groupby("person")["split"].nunique().max() == 1
    assert set(manifest.loc[manifest["person"] == "", "split"]) == {"train", "validation", "test"}


def test_splits_depend_on_the_seed_and_the_content_alone(tmp_path: Path) -> None:
    folder = fill(tmp_path / "faces", happy=40, sad=40)
    first = splits_by_id(prepared(tmp_path / "first", folder))
    assert splits_by_id(prepared(tmp_path / "again", folder)) == first
    assert splits_by_id(prepared(tmp_path / "seed", folder, split_seed=1)) != first

    for path in (folder / "happy").iterdir():
        path.rename(path.with_name(f"renamed_{path.name}"))
    renamed = splits_by_id(prepared(tmp_path / "renamed", folder))
    assert {name.replace("renamed_", ""): split for name, split in renamed.items()} == first

    fill(folder, 50_000, happy=10)
    more = splits_by_id(prepared(tmp_path / "more", folder))
    moved = [name for name, split in renamed.items() if more[name] != split]
    assert len(moved) <= 6


def test_the_limit_keeps_a_stratified_draw_of_train_and_all_of_test(tmp_path: Path) -> None:
    folder = fill(tmp_path / "faces", happy=60, sad=30, angry=3)
    whole = prepared(tmp_path / "whole", folder)
    some = prepared(tmp_path / "some", folder, limit=20)
    train = some.manifest[some.manifest["split"] == "train"]
    assert train["label"].value_counts().sort_index().tolist() == [12, 7, 1]
    assert set(splits_by_id(some).items()) <= set(splits_by_id(whole).items())
    for split in ("validation", "test"):
        assert (some.manifest["split"] == split).sum() == (whole.manifest["split"] == split).sum()
    assert some.card.counts["beyond the limit"] == len(whole.images) - len(some.images)


def test_a_draw_has_the_size_told_and_every_class() -> None:
    labels = pd.Series([0] * 500 + [1] * 90 + [2] * 7 + [3])
    digests = pd.Series([hashlib.sha256(str(number).encode()).hexdigest() for number in range(len(labels))])
    for count in (4, 5, 50, 333, 598):
        drawn = draw_stratified(digests, labels, count, seed=1)
        assert len(set(drawn.tolist())) == count
        assert labels[drawn].nunique() == 4
    assert set(draw_stratified(digests, labels, 50, 1)) <= set(draw_stratified(digests, labels, 333, 1))


def test_a_split_that_a_list_leaves_open_is_decided_by_the_cut() -> None:
    frame = pd.DataFrame(
        {"sha256": [f"{n:03d}" for n in range(40)], "label": [0, 1] * 20, "split": ["train"] * 20 + [""] * 20}
    )
    assert Counter(complete_splits(frame, 0.25, 0.2, seed=0)) == {"train": 24, "test": 8, "validation": 8}


@pytest.mark.parametrize("split", ["validation", "test"])
def test_a_split_without_images_is_an_error(tmp_path: Path, split: str) -> None:
    folder = fill(tmp_path / "faces", happy=6, sad=6)
    with pytest.raises(DatasetError, match=f"no {split} images; add some, or set dataset.{split}_share"):
        prepared(tmp_path / "out", folder, **{f"{split}_share": 0.0})  # type: ignore[arg-type]


def test_a_test_split_of_copies_alone_is_told_as_that(tmp_path: Path) -> None:
    fill(tmp_path / "faces" / "train", happy=4, sad=4)
    fill(tmp_path / "faces" / "test", happy=1, sad=1)
    told = refused(tmp_path / "out", tmp_path / "faces")
    assert "no test images; its 2 are copies of training images or cannot be decoded" in told


def test_too_few_labelled_images_to_cut_a_split_from_are_told_as_that(tmp_path: Path) -> None:
    told = refused(tmp_path / "out", fill(tmp_path / "faces", happy=2, sad=2, unlabelled=9))
    assert "no validation images; add some, or label more: " in told
    assert "a class has to have three labelled images" in told


def test_a_class_without_training_images_is_named(tmp_path: Path) -> None:
    folder = fill(tmp_path / "faces" / "train", 0, happy=3, sad=3).parent
    fill(folder / "test", 10_000, happy=3, fear=1)
    assert "no training image of class fear; add some" in refused(tmp_path / "out", folder)


@pytest.mark.parametrize("source", ["folder", "csv"])
def test_a_dataset_of_test_images_alone_is_prepared(tmp_path: Path, source: str) -> None:
    folder = fill(tmp_path / "faces" / "test", happy=4, sad=3).parent
    rows = [f"test/{name}/{n:03d}.png,{name},test" for name, count in (("happy", 4), ("sad", 3)) for n in range(count)]
    (folder / "labels.csv").write_text("\n".join(["path,label,split", *rows]))
    dataset = prepared(tmp_path / "out", folder, source)
    assert Counter(dataset.manifest["split"]) == {"test": 7}
    assert dataset.card.mean == pytest.approx(dataset.images.mean(axis=(0, 1, 2)) / 255)
    assert {key: dataset.card.counts[key] for key in ("train", "validation", "test")} == {
        "train": 0,
        "validation": 0,
        "test": 7,
    }


@pytest.mark.parametrize("step", ["train-ldg", "distill"])
def test_nothing_is_trained_on_test_images_alone(tmp_path: Path, step: str) -> None:
    folder = fill(tmp_path / "faces" / "test", happy=2, sad=2).parent
    demo = load_experiment("demo", ["dataset.source=folder", "dataset.image_size=48"])
    made = run_step(request("prepare", demo, outside=folder), tmp_path / "dataset", JsonLines())
    with pytest.raises(DatasetError, match="dataset: has no training images, so nothing can be learnt from it"):
        run_step(request(step, demo, [made], 1), tmp_path / "model", JsonLines())


def test_a_test_share_of_one_makes_all_of_a_dataset_its_test_split(tmp_path: Path) -> None:
    dataset = prepared(tmp_path / "out", fill(tmp_path / "faces", happy=4, sad=1), test_share=1.0)
    assert Counter(dataset.manifest["split"]) == {"test": 5}


def test_a_grey_picture_saved_in_colour_is_the_same_picture(tmp_path: Path) -> None:
    generator = np.random.default_rng(1)
    for name in ("happiness", "sadness"):
        (tmp_path / "faces" / name).mkdir(parents=True)
        for number in range(6):
            grey = Image.fromarray(generator.integers(0, 256, (20, 20), dtype=np.uint8))
            grey.save(tmp_path / "faces" / name / f"{number}.png")
    sad = tmp_path / "faces" / "sadness"
    Image.open(sad / "0.png").convert("RGB").save(sad / "again.png")
    dataset = prepared(tmp_path / "out", tmp_path / "faces", duplicates="keep")
    marks = dataset.manifest.set_index("id")["sha256"]
    assert marks["sadness/0"] == marks["sadness/again"]
    assert marks.nunique() == 12


def test_duplicates_are_kept_and_counted_where_that_is_asked_for(tmp_path: Path) -> None:
    folder = fill(tmp_path / "faces" / "train", 0, happy=3, sad=3).parent
    fill(folder / "val", 10_000, happy=3, sad=3)
    fill(folder / "test", 20_000, happy=3, sad=3)
    save_noise(folder / "test" / "happy" / "of_train.png", 1)
    dataset = prepared(tmp_path / "out", folder, duplicates="keep")
    assert dataset.card.counts["duplicates kept"] == 1
    assert "test/happy/of_train" in splits_by_id(dataset)


# The real thing


@needs_ferplus
@pytest.mark.parametrize(("classes", "test"), [(8, 2862), (7, 2848)])
def test_the_real_ferplus_by_its_own_rule_without_copies_has_the_published_test_set(
    tmp_path: Path, classes: int, test: int
) -> None:
    settings = {"classes": classes, "protocol": "ferplus", "colour": False, "image_size": 48}
    dataset = prepared(tmp_path / "out", SHARED, "ferplus", **settings)
    assert dataset.card.counts["test"] == test
    assert dataset.manifest["published"].all()


@needs_ferplus
def test_the_real_ferplus_ends_with_the_published_counts(tmp_path: Path) -> None:
    dataset = prepared(tmp_path / "out", SHARED, "ferplus", image_size=48, colour=False)
    assert dataset.card.counts == {
        "read": 33493,
        "unreadable": 0,
        "without a clear label": 2213,
        "duplicates dropped": 581,
        "beyond the limit": 0,
        "train": 26772,
        "validation": 3097,
        "test": 3043,
    }
    assert dataset.manifest.loc[dataset.rows("test"), "published"].sum() == 2848
    train = set(dataset.manifest.loc[dataset.rows("train"), "sha256"])
    evaluation = dataset.manifest[dataset.manifest["split"] != "train"]
    assert evaluation["sha256"].is_unique
    assert not train & set(evaluation["sha256"])


@needs_ferplus
def test_of_the_real_ferplus_288_test_and_279_validation_images_are_in_training() -> None:
    with np.load(SHARED / "ferplus.npz") as arrays:
        deltas, usage, first = arrays["images_delta2d"], arrays["usage"], arrays["dup_of"]
    images = np.cumsum(np.cumsum(deltas, 1, dtype=np.uint8), 2, dtype=np.uint8)
    digests = pd.Series([hashlib.sha256(image.tobytes()).hexdigest() for image in images])
    in_training = digests.isin(set(digests[usage == 0]))
    assert [int(in_training[usage == part].sum()) for part in (1, 2)] == [279, 288]
    np.testing.assert_array_equal(digests.duplicated(), first >= 0)


def test_pictures_with_two_labels_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = fill(tmp_path / "faces", happy=12, sad=12)
    for number in range(12):
        save_noise(folder / "sad" / f"copy{number}.png", number)
    prepared(tmp_path / "out", folder)
    assert "pictures with more than one label, all of which are learnt: " in capsys.readouterr().out


@pytest.mark.parametrize(("labelled", "stay"), [(1, 2), (100, 18)])
def test_as_many_labels_as_there_cannot_be_are_told(
    tmp_path: Path, labelled: int, stay: int, capsys: pytest.CaptureFixture[str]
) -> None:
    prepared(tmp_path / "out", fill(tmp_path / "faces", happy=12, sad=12), labelled=labelled)
    assert f"dataset.labelled = {labelled}, but {stay} training images keep their label" in capsys.readouterr().out


def test_labels_of_a_test_set_are_not_said_to_be_wrong(tmp_path: Path) -> None:
    dataset = prepared(tmp_path / "out", fill(tmp_path / "faces", happy=6, sad=6), test_share=1.0, label_noise=0.3)
    assert "replaced" not in dataset.card.protocol


def test_what_is_stored_of_folders_in_another_encoding_is_text(tmp_path: Path) -> None:
    fill(tmp_path / "faces", Freude=12, wut=12)
    fill(tmp_path / "faces" / "x", 5000, wut=4)
    (tmp_path / "faces" / "wut").rename(tmp_path / "faces" / os.fsdecode(b"\xc4rger"))
    (tmp_path / "faces" / "x").rename(tmp_path / "faces" / os.fsdecode(b"\xfcbung"))
    classes = {"\xc4rger": "anger", "wut": "anger", "Freude": "joy"}
    card = prepared(tmp_path / "out", tmp_path / "faces", classes=classes).card
    assert card.labels == ("happiness", "anger")
    assert "folders above the classes that are no splits: \\xfcbung" in card.notes
    assert all(note.encode() for note in card.notes)
    card = prepared(
        tmp_path / "own", tmp_path / "faces", classes={"\xc4rger": "\xc4rger", "wut": "drop", "Freude": "Freude"}
    ).card
    assert card.labels == ("Freude", "\xc4rger")
