"""Faces read in images, videos and tables: through real files, the real detector and the real command."""

import csv
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import pytest
import torch
from helpers.deployed_model import DeployedModel
from helpers.service import claiming
from helpers.videos import PORTRAIT, moving, video, write_video
from PIL import Image

from fer_core.cli import _interrupt, _predict
from fer_core.data.crops import Box, cut_out, whole_image
from fer_core.data.dataset import open_dataset
from fer_core.data.views import Views
from fer_core.errors import CheckpointError, DetectorError, InputError
from fer_core.evaluation.calibration import probabilities
from fer_core.evaluation.uncertainty import uncertainty
from fer_core.models.checkpoint import load_checkpoint
from fer_core.models.logits import predict_logits
from fer_core.predict.detector import open_detector
from fer_core.predict.drawing import draw_faces
from fer_core.predict.predictor import FacePrediction, Predictor, TorchModel
from fer_core.predict.table import columns, open_table

FACE = Box(64, 56, 96)
"""The box of its face."""


def near(box: Box, other: Box) -> bool:
    return max(abs(box.left - other.left), abs(box.top - other.top), abs(box.side - other.side)) <= 0.1 * other.side


READERS: dict[str, Callable[[Path], pd.DataFrame]] = {
    "csv": pd.read_csv,
    "jsonl": lambda path: pd.read_json(path, lines=True),
    "parquet": pd.read_parquet,
}


def fer(*arguments: str | Path, timeout: float = 120) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "fer_core", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=timeout)


def test_the_cascade_finds_the_portrait_at_any_size() -> None:
    portrait = np.asarray(Image.open(PORTRAIT).convert("RGB"))
    detect = open_detector("cascade")
    (found,) = detect(portrait)
    assert near(found, FACE)
    (larger,) = detect(cv2.resize(portrait, None, fx=6, fy=6))
    assert near(Box(larger.left // 6, larger.top // 6, larger.side // 6), FACE)
    two = np.concatenate([portrait, cv2.resize(portrait, (448, 448))[:224]], axis=1)
    assert [box.side for box in detect(two)] == sorted((box.side for box in detect(two)), reverse=True)
    assert detect(np.full((50, 400, 3), 127, np.uint8)) == []


def test_threads_may_share_a_detector() -> None:
    portrait = Image.open(PORTRAIT).convert("RGB")
    pictures = [np.asarray(portrait.resize((side, side))) for side in (100, 120, 140, 160)] * 4
    expected = list(map(open_detector("cascade"), pictures))
    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(open_detector("cascade"), pictures)) == expected


@pytest.mark.parametrize("size", [(1, 3000), (3000, 1), (2, 20_000)])
def test_in_a_line_of_pixels_no_face_is_found(size: tuple[int, int]) -> None:
    """As pages have them for rules; one in a folder ended the reading of all."""
    line = np.full((*size, 3), 127, np.uint8)
    assert open_detector("cascade")(line) == []
    assert draw_faces(line, []).size < 4 * 480 * 1920 * 3
    whole = FacePrediction(whole_image(line)[0], {"anger": 1.0}, "anger", 0)
    assert draw_faces(line, [whole]).shape == line.shape


def drawn_with(*labels: str) -> np.ndarray:
    """A grey picture of 640 × 480 with a face in it; its panel ends at 412."""
    shares = dict.fromkeys(labels, 1 / len(labels))
    grey = np.full((480, 640, 3), 90, np.uint8)
    return draw_faces(grey, [FacePrediction(Box(100, 100, 150), shares, labels[0], 1.0)])


def test_a_name_longer_than_its_panel_leaves_the_picture_beside_it_and_its_bar_alone() -> None:
    long, longer = (drawn_with("anger", f"anger{'x' * letters}y") for letters in (40, 60))
    assert (long[:, 420:] == 90).all()
    assert (long == longer).all()


def test_names_with_accents_are_drawn_letter_by_letter() -> None:
    assert (drawn_with("anger", "alegría") != drawn_with("anger", "alegrña")).any()


def test_a_panel_of_many_classes_ends_with_the_picture() -> None:
    names = [f"state {n}" for n in range(40)]
    assert (drawn_with(*names) != drawn_with(*names[:-1], "the last")).any()


@pytest.mark.parametrize("name", ["model.int8.onnx", "MODEL.ONNX"])
def test_a_model_is_found_under_any_name_that_exports_have(exported: Path, tmp_path: Path, name: str) -> None:
    shutil.copyfile(exported, tmp_path / name)
    assert [len(faces) for faces in Predictor(tmp_path / name)([PORTRAIT])] == [1]
    if name.endswith(".onnx"):
        assert [len(faces) for faces in Predictor(tmp_path)([PORTRAIT])] == [1]


@pytest.mark.parametrize("name", ["nonsense", "missing.onnx"])
def test_an_unknown_detector_is_told(name: str) -> None:
    with pytest.raises(DetectorError, match="cascade"):
        open_detector(name)


def test_a_file_that_is_no_detector_is_told(tmp_path: Path) -> None:
    (tmp_path / "yunet.onnx").write_bytes(b"nothing")
    with pytest.raises(DetectorError, match="cannot read it"):
        open_detector(str(tmp_path / "yunet.onnx"))


def test_a_face_is_cut_out_as_datasets_are_stored() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)
    inside = np.asarray(Image.fromarray(pixels[10:40, 20:50]).resize((12, 12), Image.Resampling.BICUBIC))
    np.testing.assert_array_equal(cut_out(pixels, Box(20, 10, 30), 12, grey=False), inside)
    grey = np.asarray(Image.fromarray(pixels[10:40, 20:50]).convert("L").resize((12, 12), Image.Resampling.BICUBIC))
    np.testing.assert_array_equal(cut_out(pixels, Box(20, 10, 30), 12, grey=True), np.repeat(grey[..., None], 3, 2))
    beyond = cut_out(pixels, Box(-10, -5, 20), 20, grey=False)
    np.testing.assert_array_equal(beyond[5:, 10:], pixels[:15, :10])
    np.testing.assert_array_equal(beyond[:6, :11], np.broadcast_to(pixels[0, 0], (6, 11, 3)))


def test_an_aligned_image_is_its_middle_square() -> None:
    assert whole_image(np.zeros((60, 100, 3), np.uint8)) == [Box(20, 0, 60)]


def test_stored_faces_are_read_as_evaluation_reads_them(model: DeployedModel) -> None:
    network, card = load_checkpoint(model.checkpoint)
    dataset = open_dataset(model.dataset)
    rows = dataset.rows("test")
    views = Views(dataset.images, card.mean, card.std, card.input_size, torch.device("cpu"))
    expected = probabilities(predict_logits(network, views, rows), card.temperature)
    read = list(Predictor(model.checkpoint, detector=None, batch=5)([dataset.images[row][..., 0] for row in rows]))
    found = np.array([list(faces[0].probabilities.values()) for faces in read])
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert [faces[0].emotion for faces in read] == [card.labels[c] for c in expected.argmax(axis=1)]


def test_a_checkpoint_and_its_export_read_the_same(model: DeployedModel, exported: Path) -> None:
    for detector in ("cascade", None):
        ((one,),) = Predictor(model.checkpoint, detector)([PORTRAIT])
        ((other,),) = Predictor(exported.parent, detector)([str(PORTRAIT)])
        assert one.box == other.box
        assert one.probabilities == pytest.approx(other.probabilities, abs=1e-4)
        assert sum(one.probabilities.values()) == pytest.approx(1, abs=1e-5)


def test_on_a_gpu_a_checkpoint_keeps_all_bits_as_its_evaluation_does(model: DeployedModel) -> None:
    read, rounded = TorchModel(model.checkpoint), list[bool]()
    read._model.register_forward_pre_hook(lambda *given: rounded.append(torch.backends.cudnn.allow_tf32))
    read(np.zeros((1, 48, 48, 3), np.uint8))
    assert rounded == [False]


def test_threads_that_share_a_checkpoint_keep_all_bits_on_a_gpu(model: DeployedModel) -> None:
    read, rounded = TorchModel(model.checkpoint), list[bool]()

    def take_long(*given: object) -> None:
        time.sleep(0.1)
        rounded.append(torch.backends.cudnn.allow_tf32)

    read._model.register_forward_hook(take_long)
    with ThreadPoolExecutor(2) as threads:
        for _ in range(2):
            threads.submit(read, np.zeros((1, 48, 48, 3), np.uint8))
            time.sleep(0.05)
    assert rounded == [False, False]


def test_images_come_in_their_order_whatever_the_batch(exported: Path) -> None:
    portrait, nothing = Image.open(PORTRAIT), np.full((90, 120, 3), 200, np.uint8)
    images: list[Any] = [nothing, portrait, nothing, np.asarray(portrait.convert("L")), portrait.resize((500, 500))]
    counts = [[len(faces) for faces in Predictor(exported, batch=batch)(images)] for batch in (1, 2, 64)]
    assert counts == [[0, 1, 0, 1, 1]] * 3
    assert list(Predictor(exported)([])) == []


def test_what_no_image_can_be_is_told(exported: Path, tmp_path: Path) -> None:
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8nothing")
    predictor = Predictor(exported)
    for wrong, words in (
        (tmp_path / "broken.jpg", "broken.jpg"),
        (tmp_path / "missing.jpg", "no such file"),
        (np.zeros((3, 40, 40), np.uint8), "channels first"),
        (np.full((4, 4), 1.5), "neither floats in 0..1 nor 0..255"),
        (b"nothing", "known format"),
    ):
        with pytest.raises(InputError, match=words):
            list(predictor([wrong]))


def test_pictures_before_an_unreadable_one_are_read(exported: Path) -> None:
    faces = Predictor(exported, detector=None)([PORTRAIT, PORTRAIT, b"nothing", PORTRAIT])
    assert [len(next(faces)), len(next(faces))] == [1, 1]
    with pytest.raises(InputError, match="known format; leave it out, or give pictures one by one and catch this"):
        next(faces)


@pytest.mark.parametrize("form", ["path", "text", "bytes", "file", "pillow", "rgb", "floats", "grey", "tensor"])
def test_one_picture_is_not_read_as_many(exported: Path, form: str) -> None:
    """Each row of an array would pass for a grey picture, and each letter of a name for a name."""
    picture = np.asarray(Image.open(PORTRAIT).convert("RGB"))
    given: dict[str, Any] = {"path": PORTRAIT, "text": str(PORTRAIT), "bytes": PORTRAIT.read_bytes()}
    given |= {"pillow": Image.fromarray(picture), "rgb": picture, "floats": picture / 255, "grey": picture[..., 0]}
    given["tensor"] = torch.from_numpy(picture.copy())
    with PORTRAIT.open("rb") as file, pytest.raises(InputError, match=r"one picture and no list of them; give \[it\]"):
        Predictor(exported)((given | {"file": file})[form])


def test_a_stack_of_pictures_is_many(exported: Path) -> None:
    stack = np.stack([np.asarray(Image.open(PORTRAIT).convert("RGB"))] * 2)
    for pictures in (stack, stack[..., 0], list(stack), (str(PORTRAIT) for _ in range(2)), np.array([PORTRAIT] * 2)):
        assert [len(faces) for faces in Predictor(exported)(pictures)] == [1, 1]


def test_uncertainty_is_entropy_over_its_largest() -> None:
    assert uncertainty(np.array([0.25] * 4)) == pytest.approx(1)
    assert uncertainty(np.array([1.0, 0.0, 0.0])) == 0
    assert uncertainty(np.array([0.5, 0.5, 0.0])) == pytest.approx(math.log(2) / math.log(3))


def test_an_animation_is_a_table_of_its_pictures_and_a_video_of_what_was_read(exported: Path, tmp_path: Path) -> None:
    portrait = Image.open(PORTRAIT).convert("RGB")
    nothing = Image.new("RGB", portrait.size, "teal")
    portrait.save(tmp_path / "a.gif", save_all=True, append_images=[nothing, portrait], duration=200)
    done = fer("predict", tmp_path / "a.gif", "--model", exported, "--out", tmp_path / "a.csv", "--pictures", tmp_path)
    assert done.returncode == 0, done.stderr
    table = pd.read_csv(tmp_path / "a.csv")
    assert list(table["status"]) == ["ok", "no_face", "ok"]
    assert list(table["seconds"]) == [0, 0.2, 0.4]
    assert (tmp_path / "a.mp4").is_file()


def test_a_broken_file_of_several_pictures_ends_only_itself(exported: Path, tmp_path: Path) -> None:
    portrait = Image.open(PORTRAIT).convert("RGB")
    portrait.save(tmp_path / "b.tiff", save_all=True, append_images=[portrait] * 9)
    content = (tmp_path / "b.tiff").read_bytes()
    (tmp_path / "a.tiff").write_bytes(content[: len(content) // 2])
    (tmp_path / "b.tiff").unlink()
    # Both its pictures are damaged, so that the first is the last one that is shown.
    portrait.save(tmp_path / "c.webp", save_all=True, append_images=[portrait.rotate(90)], lossless=True)
    damaged = bytearray((tmp_path / "c.webp").read_bytes())
    damaged[damaged.find(b"VP8L") + 8 : damaged.find(b"VP8L") + 2000] = bytes(1992)
    (tmp_path / "c.webp").write_bytes(damaged)
    portrait.save(tmp_path / "d.png")
    done = fer("predict", tmp_path, "--model", exported, "--out", tmp_path / "a.csv")
    assert "Traceback" not in done.stderr
    table = pd.read_csv(tmp_path / "a.csv")
    named = table.groupby(table["source"].map(lambda source: Path(source).name))["status"].agg(list)
    assert named["a.tiff"] == ["ok"] * (len(named["a.tiff"]) - 1) + ["unreadable"]
    assert len(named["a.tiff"]) > 4
    assert named["c.webp"] == ["unreadable"]
    assert named["d.png"] == ["ok"]


def test_crops_without_a_face_are_told_of_aligned(exported: Path, model: DeployedModel, tmp_path: Path) -> None:
    stored = open_dataset(model.dataset).images[:6, ..., 0]
    faces = tmp_path / "faces"
    faces.mkdir()
    for number, face in enumerate(stored):
        Image.fromarray(face).save(faces / f"{number}.png")
    done = fer("predict", faces, "--model", exported, "--out", tmp_path / "a.csv")
    assert "--aligned" in done.stderr
    assert "of 6 small images" in done.stderr
    done = fer("predict", faces, "--model", exported, "--out", tmp_path / "a.csv", "--aligned")
    assert done.stderr == "6 faces in 6 images and frames\n"


def test_dark_pictures_are_scaled_and_it_is_told(exported: Path, tmp_path: Path) -> None:
    grey = np.asarray(Image.open(PORTRAIT).convert("L")).astype(np.uint16)
    Image.fromarray(grey << 4 | grey >> 4).save(tmp_path / "camera.png")
    Image.fromarray(grey.astype(np.uint8)).save(tmp_path / "plain.png")
    done = fer("predict", tmp_path, "--model", exported, "--out", tmp_path / "a.csv")
    assert "1 images: 12 of 16 bits are used, and scaled to 8" in done.stderr
    dark, plain = (row for _, row in pd.read_csv(tmp_path / "a.csv").iterrows())
    assert dark["reason"] == "12 of 16 bits are used, and scaled to 8"
    assert list(dark.filter(like="p_")) == list(plain.filter(like="p_"))
    with pytest.warns(UserWarning, match="12 of 16 bits"):
        list(Predictor(exported)([tmp_path / "camera.png"]))


def test_the_command_reads_images_and_videos(exported: Path, model: DeployedModel, tmp_path: Path) -> None:
    (tmp_path / "holiday").mkdir()
    (tmp_path / "holiday" / "portrait.png").write_bytes(PORTRAIT.read_bytes())
    Image.new("RGB", (64, 64), "teal").save(tmp_path / "holiday" / "sea.png")
    clip = video(tmp_path / "clip.mp4", 12)
    tables = {}
    for ending in ("csv", "jsonl", "parquet"):
        out = tmp_path / f"faces.{ending}"
        done = fer("predict", tmp_path / "holiday", clip, "--model", exported, "--out", out)
        assert done.returncode == 0, done.stderr
        assert "13 faces in 14 images and frames" in done.stderr
        tables[ending] = READERS[ending](out)
        progress = [json.loads(line) for line in done.stdout.splitlines()]
        assert progress[-1] == {"event": "progress", "what": "read faces", "done": 14, "total": 14}
    table = tables["csv"]
    assert list(table.columns) == list(columns(Predictor(exported).facts.labels))
    assert list(table["status"]) == ["ok", "no_face"] + ["ok"] * 12
    assert list(table["frame"][2:]) == list(range(12))
    assert table.filter(like="p_").iloc[0].sum() == pytest.approx(1, abs=1e-4)
    first = table.iloc[0]
    assert first["emotion"] == str(table.filter(like="p_").iloc[0].idxmax()).removeprefix("p_")
    assert near(Box(int(first["left"]), int(first["top"]), int(first["side"])), FACE)
    for other in ("jsonl", "parquet"):
        np.testing.assert_allclose(tables[other].filter(like="p_"), table.filter(like="p_"), atol=1e-5)
    plain = fer("predict", PORTRAIT, "--model", model.checkpoint)
    (row,) = csv.DictReader(plain.stdout.splitlines())
    assert float(row["p_neutral"]) == pytest.approx(first["p_neutral"], abs=1e-4)


def test_what_cannot_be_read_is_named_and_the_rest_goes_on(exported: Path, tmp_path: Path) -> None:
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8nothing")
    (tmp_path / "broken.mp4").write_bytes(b"nothing")
    (tmp_path / "phone.png").write_bytes(claiming(12_000, 9_000, "PNG"))
    # Pillow has lines of its own for an EXIF that is cut short.
    Image.open(PORTRAIT).save(tmp_path / "odd.png", exif=b"Exif\0\0II*\0\x08\0\0\0\xff\xff")
    out = tmp_path / "faces.csv"
    sources = [tmp_path / name for name in ("broken.jpg", "missing.png", "phone.png", "broken.mp4")]
    sources.insert(2, tmp_path / "odd.png")
    done = fer("predict", *sources, "--model", exported, "--out", out)
    assert done.returncode == 1
    lines = done.stderr.splitlines()
    told = [line.partition(": ") for line in lines[:-1]]
    assert [Path(name).name for name, _, _ in told] == ["broken.jpg", "missing.png", "phone.png", "broken.mp4"]
    assert told[2][2] == "12000 x 9000 is more than 51,000,000 pixels; scale it down"
    assert lines[-1] == "1 faces in 1 images and frames; 4 could not be read"
    assert list(pd.read_csv(out)["status"]) == ["unreadable", "unreadable", "ok", "unreadable", "unreadable"]
    assert pd.read_csv(out)["reason"].notna().sum() == 4


@pytest.mark.parametrize("ending", ["CSV", "jsonl", "parquet"])
def test_a_name_that_is_no_utf8_is_spelled_in_every_table(exported: Path, tmp_path: Path, ending: str) -> None:
    picture = tmp_path / os.fsdecode(b"ni\xf1o.jpg")
    shutil.copy(PORTRAIT, picture)
    out = tmp_path / f"faces.{ending}"
    done = fer("predict", picture, PORTRAIT, "--model", exported, "--out", out)
    assert (done.returncode, done.stderr.splitlines()[-1]) == (0, "2 faces in 2 images and frames")
    table = {"CSV": pd.read_csv, "jsonl": lambda path: pd.read_json(path, lines=True), "parquet": pd.read_parquet}
    source: list[str] = list(table[ending](out)["source"])  # type: ignore[operator]
    assert source[0].endswith("ni\\xf1o.jpg")
    plain = fer("predict", picture, "--model", exported)
    assert plain.returncode == 0
    assert "ni\\xf1o.jpg" in plain.stdout


def test_names_that_opencv_ends_the_process_at_are_spelled_or_refused(exported: Path, tmp_path: Path) -> None:
    foreign = tmp_path / os.fsdecode(b"ni\xf1o")
    clip, out = video(tmp_path / "clip.mp4", 2).rename(foreign.with_suffix(".mp4")), tmp_path / "faces.csv"
    done = fer("predict", clip, "--model", exported, "--out", out, "--pictures", tmp_path / "drawn")
    assert done.returncode == 0, done.stderr
    assert [file.name for file in (tmp_path / "drawn").iterdir()] == [clip.name]
    (yunet := foreign.with_suffix(".onnx")).touch()
    for option, given in (("--pictures", foreign), ("--out", foreign.with_suffix(".parquet")), ("--detector", yunet)):
        done = fer("predict", clip, "--model", exported, option, given)
        assert done.returncode == 2, done.stderr
        assert "holds bytes that are no UTF-8; rename it, or name another place" in done.stderr


def test_files_in_a_folder_that_are_not_read_are_counted_by_ending(exported: Path, tmp_path: Path) -> None:
    shutil.copy(PORTRAIT, tmp_path / "photo.jpg")
    write_video(tmp_path / "clip.mp4", moving())
    for name in ("one.psd", "two.psd", "notes.txt", "portrait"):
        (tmp_path / name).write_bytes(b"nothing")
    done = fer("predict", tmp_path, "--model", exported)
    assert "files not read: 2 .psd, 1 .txt, 1 without an ending" in done.stderr
    assert ".mp4" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["{portrait}", "--model", "{here}"], "no model"),
        (["{portrait}", "--model", "{dataset}"], "no model"),
        (["{portrait}", "--model", "{portrait}"], "made, or an exported .onnx file"),
        (["nowhere/*.jpg", "--model", "{model}"], "no image or video"),
        (["", "--model", "{model}"], "an argument: empty; is the variable set"),
        (["camera:9", "--model", "{model}"], "no camera there"),
        (["camera:front", "--model", "{model}"], "camera:0"),
        (["{portrait}", "--model", "{model}", "--out", "faces.xlsx"], ".csv, .jsonl, .parquet"),
        (["{portrait}", "--model", "{model}", "--out", "/proc/nowhere/faces.csv"], "choose another --out"),
        (["{portrait}", "--model", "{model}", "--detector", "mtcnn"], "cascade"),
        (["{portrait}", "--model", "~nobody-at-all/x"], "~nobody-at-all/x: no model"),
        (["{portrait}", "--model", "{model}", "--detector", "~nobody-at-all/x.onnx"], "~nobody-at-all/x.onnx: give"),
    ],
)
def test_mistakes_are_told_in_a_line(
    arguments: list[str], words: str, exported: Path, model: DeployedModel, tmp_path: Path
) -> None:
    places = {"portrait": PORTRAIT, "here": tmp_path, "dataset": model.dataset, "model": exported}
    done = fer("predict", *[argument.format(**places) for argument in arguments])
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ")
    assert words in line
    assert list(tmp_path.iterdir()) == []


def test_a_folder_cannot_hold_the_table(exported: Path, tmp_path: Path) -> None:
    (tmp_path / "faces.csv").mkdir()
    done = fer("predict", PORTRAIT, "--model", exported, "--out", tmp_path / "faces.csv")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.endswith("faces.csv: a folder; name a file that is to hold the table\n")


def test_a_terminal_without_a_names_letters_gets_them_escaped(exported: Path, tmp_path: Path) -> None:
    Image.new("RGB", (300, 200)).save(tmp_path / "日本.png")
    command = [sys.executable, "-m", "fer_core", "predict", str(tmp_path), "--model", str(exported)]
    environment = os.environ | {"PYTHONIOENCODING": "ascii"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    assert "\\u65e5\\u672c.png" in done.stdout


def test_a_detector_that_would_not_look_is_refused(exported: Path, tmp_path: Path) -> None:
    done = fer("predict", tmp_path, "--model", exported, "--aligned", "--detector", "yunet.onnx")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: --detector yunet.onnx: with --aligned no face is looked for; leave one of them out\n"


def test_a_file_cannot_hold_the_pictures(exported: Path, tmp_path: Path) -> None:
    (tmp_path / "afile").touch()
    Image.new("RGB", (300, 200)).save(tmp_path / "a.png")
    done = fer("predict", tmp_path, "--model", exported, "--pictures", tmp_path / "afile")
    assert done.returncode == 2
    assert f"error: {tmp_path / 'afile'}: File exists; name another place" in done.stderr
    assert "Traceback" not in done.stderr


def test_what_was_read_before_ctrl_c_is_kept(exported: Path, tmp_path: Path) -> None:
    clip, out = video(tmp_path / "clip.mp4", 4000), tmp_path / "faces.csv"
    command = [sys.executable, "-m", "fer_core", "predict", clip, "--model", exported, "--out", out, "--batch", "1"]
    process = subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    while '"read faces"' not in process.stdout.readline():
        pass
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    assert process.wait(10) == 130
    process.stdout.close()
    assert process.stderr is not None
    told = process.stderr.read()
    process.stderr.close()
    assert told == "stopped; what was read until then is kept, and the same command begins anew\n"
    assert 1 <= len(pd.read_csv(out)) < 4000
    assert not list(tmp_path.glob("*.unfinished"))


@pytest.mark.parametrize(("before", "after"), [(signal.SIG_DFL, _interrupt), (signal.SIG_IGN, signal.SIG_IGN)])
def test_a_terminal_that_closes_is_ctrl_c_but_under_nohup(
    before: signal.Handlers, after: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("OPENCV_FFMPEG_LOGLEVEL", "OPENCV_LOG_LEVEL"):
        monkeypatch.setenv(name, "0")
    usual = signal.signal(signal.SIGHUP, before)
    try:
        with pytest.raises(InputError, match="with --aligned no face is looked for"):
            _predict(["clip.mp4"], Path("model.onnx"), detector="yunet.onnx", aligned=True)
        assert signal.getsignal(signal.SIGHUP) == after
    finally:
        signal.signal(signal.SIGHUP, usual)


def test_memory_stays_the_same_however_long_a_video_is(exported: Path, tmp_path: Path) -> None:
    peaks = []
    for frames in (100, 1500):
        clip = video(tmp_path / f"{frames}.mp4", frames, face=False)
        code = (
            "import resource, sys; from fer_core.cli import main\n"
            "try: main()\n"
            "finally: print('peak', resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, file=sys.stderr)"
        )
        arguments = ["predict", str(clip), "--model", str(exported), "--out", str(tmp_path / "faces.csv")]
        done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)
        peaks.append(int(done.stderr.split("peak ")[1]))
    assert peaks[1] < peaks[0] + 20_000, f"{peaks} kB"


def test_of_large_photographs_few_are_held_at_a_time(exported: Path) -> None:
    """A batch of 32 of a phone's 50 million pixels would take 5 GB."""
    taken = list[int]()

    def photographs() -> Iterator[np.ndarray]:
        for number in range(32):
            taken.append(number)
            yield np.zeros((3000, 4000, 3), np.uint8)

    next(Predictor(exported, detector=None)(photographs()))
    assert len(taken) == 5


@pytest.mark.parametrize(("stated", "every", "written"), [(65535, 1, 25), (25, 5000, 0.01)])
def test_a_video_is_drawn_whatever_rate_it_states(
    exported: Path, tmp_path: Path, stated: float, every: int, written: float
) -> None:
    clip = video(tmp_path / "clip.mp4", 4, rate=stated)
    whereto = ("--out", tmp_path / "f.csv", "--pictures", tmp_path / "pictures")
    done = fer("predict", clip, "--model", exported, "--every", str(every), *whereto)
    assert done.returncode == 0, done.stderr
    capture = cv2.VideoCapture(str(tmp_path / "pictures" / "clip.mp4"))
    assert capture.get(cv2.CAP_PROP_FPS) == pytest.approx(written, rel=0.01)
    assert capture.get(cv2.CAP_PROP_FRAME_COUNT) == -(-4 // every)
    capture.release()


def test_pictures_have_what_was_read_drawn_in(exported: Path, tmp_path: Path) -> None:
    clip, pictures = video(tmp_path / "portrait.mp4", 10), tmp_path / "pictures"
    done = fer(
        "predict", PORTRAIT, PORTRAIT, clip, "--model", exported, "--out", tmp_path / "f.csv", "--pictures", pictures
    )
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in pictures.iterdir()) == ["portrait-2.png", "portrait.mp4", "portrait.png"]
    with Image.open(pictures / "portrait.png") as drawn:
        assert min(drawn.size) == 480
    capture = cv2.VideoCapture(str(pictures / "portrait.mp4"))
    assert capture.get(cv2.CAP_PROP_FRAME_COUNT) == 10
    capture.release()


def test_pictures_that_were_drawn_before_are_told_to_stay(exported: Path, tmp_path: Path) -> None:
    """Else the first run's drawing, perhaps by another model, passes for the second's."""
    told = [fer("predict", PORTRAIT, "--model", exported, "--pictures", tmp_path / "drawn").stderr for _ in range(2)]
    assert [f"{tmp_path / 'drawn'}: not empty; what is there stays" in said for said in told] == [False, True]
    assert sorted(path.name for path in (tmp_path / "drawn").iterdir()) == ["portrait-2.png", "portrait.png"]


def test_a_bar_is_as_long_as_its_share() -> None:
    """The bar's colour covers more of the picture, the larger the share; in a crowd there is a caption instead."""

    def happiness(share: float, count: int = 1) -> int:
        face = {"happiness": share, "neutral": 1 - share}
        boxes = [Box(20 + 90 * n, 200, 80) for n in range(count)]
        faces = [FacePrediction(box, face, "neutral", 0.5) for box in boxes]
        drawn = draw_faces(np.zeros((500, 500, 3), np.uint8), faces)
        return int((np.abs(drawn.astype(int) - (230, 159, 0)).sum(axis=2) < 30).sum())

    assert happiness(0.1) < 0.3 * happiness(0.45)
    assert happiness(0.0) < 0.1 * happiness(0.45)


def test_half_a_table_never_stands_under_its_name(tmp_path: Path) -> None:
    def stopped() -> None:
        with open_table(tmp_path / "faces.csv", ("a",)) as write:
            write([{"source": "x"}])
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        stopped()
    assert list(tmp_path.iterdir()) == []


def test_a_checkpoint_of_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model.json").write_text("{}")
    with pytest.raises(CheckpointError, match="refused"):
        Predictor(tmp_path)


@pytest.mark.parametrize(
    "given",
    [np.full((1, 7), np.nan, np.float32), np.full((1, 6), 1 / 6, np.float32)],
    ids=["no numbers", "six of seven"],
)
def test_a_model_that_gives_no_probabilities_is_refused(
    exported: Path, given: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fer_core.export.onnx_model.OnnxModel.__call__", lambda self, faces: given)
    with pytest.raises(CheckpointError, match="gives no probabilities of its 7 labels"):
        list(Predictor(exported, detector=None)([PORTRAIT]))
