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
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import pytest
import torch
from helpers.deployed_model import DeployedModel
from helpers.videos import squeeze, stretch, turn, write_video
from PIL import Image

from fer_core.data.crops import Box, cut_out, whole_image
from fer_core.data.dataset import open_dataset
from fer_core.data.views import Views
from fer_core.errors import CheckpointError, DetectorError, InputError
from fer_core.evaluation.calibration import probabilities
from fer_core.models.checkpoint import load_checkpoint
from fer_core.models.logits import predict_logits
from fer_core.predict.detector import open_detector
from fer_core.predict.drawing import draw_faces
from fer_core.predict.mirrored import mirroring_of
from fer_core.predict.predictor import FacePrediction, Predictor, uncertainty
from fer_core.predict.sources import find_sources, frames_of, passed_over
from fer_core.predict.table import columns, open_table

PORTRAIT = Path(__file__).parent.parent / "openface" / "portrait.png"
"""A public-domain portrait."""
FACE = Box(64, 56, 96)
"""The box of its face."""


def near(box: Box, other: Box) -> bool:
    return max(abs(box.left - other.left), abs(box.top - other.top), abs(box.side - other.side)) <= 0.1 * other.side


READERS: dict[str, Callable[[Path], pd.DataFrame]] = {
    "csv": pd.read_csv,
    "jsonl": lambda path: pd.read_json(path, lines=True),
    "parquet": pd.read_parquet,
}


def video(path: Path, frames: int, size: tuple[int, int] = (320, 240), face: bool = True) -> Path:
    """The portrait, moving from side to side."""
    portrait = cv2.imread(str(PORTRAIT))
    assert portrait is not None
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 25, size)
    for number in range(frames):
        frame = np.full((size[1], size[0], 3), 90, np.uint8)
        left = int(40 + 40 * math.sin(number / 10))
        if face:
            frame[8:232, left : left + 224] = portrait
        writer.write(frame)
    writer.release()
    return path


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


def test_uncertainty_is_entropy_over_its_largest() -> None:
    assert uncertainty(np.array([0.25] * 4)) == pytest.approx(1)
    assert uncertainty(np.array([1.0, 0.0, 0.0])) == 0
    assert uncertainty(np.array([0.5, 0.5, 0.0])) == pytest.approx(math.log(2) / math.log(3))


def test_folders_patterns_and_files_stand_for_their_images(tmp_path: Path) -> None:
    (tmp_path / "holiday" / "beach").mkdir(parents=True)
    for name in ("a.png", "beach/b.JPG", ".hidden.png", "notes.txt"):
        Image.new("RGB", (8, 8)).save(tmp_path / "holiday" / name, "PNG")
    video(tmp_path / "holiday" / "clip.mp4", 10)
    names = [Path(s.name).name for s in find_sources([str(tmp_path / "holiday"), str(tmp_path / "holiday" / "*.png")])]
    assert names == ["a.png", "b.JPG", "clip.mp4", "a.png"]
    assert find_sources([str(tmp_path / "holiday" / "clip.mp4")], every=3)[0].count == 4
    for nothing in ("*.gif", "empty"):
        (tmp_path / "empty").mkdir(exist_ok=True)
        with pytest.raises(InputError, match="no image or video there"):
            find_sources([str(tmp_path / nothing)])


def test_a_video_is_read_frame_by_frame(tmp_path: Path) -> None:
    (source,) = find_sources([str(video(tmp_path / "clip.mp4", 30))], every=4)
    frames = list(frames_of(source, every=4))
    assert [frame.number for frame in frames] == [0, 4, 8, 12, 16, 20, 24, 28]
    assert frames[1].seconds == pytest.approx(4 / 25)
    assert source.count == len(frames)
    assert all(frame.pixels is not None and frame.pixels.shape == (240, 320, 3) for frame in frames)


def moving(count: int = 30) -> list[np.ndarray]:
    """Grey pictures, each brighter than the one before, the upper left quarter red."""
    pictures = [np.full((48, 64, 3), 8 * number, np.uint8) for number in range(count)]
    for picture in pictures:
        picture[:24, :32] = (255, 0, 0)
    return pictures


def test_frames_are_timed_by_the_time_stamps_of_the_container(tmp_path: Path) -> None:
    """15 frames at 30 a second, then 15 at 5 a second, whose average says nothing of any of them."""
    write_video(tmp_path / "slowing.mp4", moving(), 30)
    stretch(tmp_path / "slowing.mp4", [(14, 1), (16, 6)])
    (source,) = find_sources([str(tmp_path / "slowing.mp4")])
    frames = list(frames_of(source))
    seconds = [n / 30 if n < 15 else 14 / 30 + (n - 14) / 5 for n in range(30)]
    assert [frame.seconds for frame in frames] == pytest.approx(seconds, abs=2e-3)
    assert [frame.seconds for frame in frames_of(source, every=5)] == pytest.approx(seconds[::5], abs=2e-3)


def test_a_video_that_a_phone_turned_is_upright(tmp_path: Path) -> None:
    write_video(tmp_path / "phone.mp4", moving(5))
    turn(tmp_path / "phone.mp4")
    (source,) = find_sources([str(tmp_path / "phone.mp4")])
    pixels = [frame.pixels for frame in frames_of(source)][2]
    assert pixels is not None
    assert pixels.shape == (64, 48, 3)
    assert pixels[8, -8, 0] > 200, "the red quarter is at the upper right"
    assert pixels[8, 8, 0] < 60


@pytest.mark.parametrize(
    ("matrix", "shape", "red"),
    [
        ((-1, 0, 0, 1), (48, 64), (8, -8)),
        ((1, 0, 0, -1), (48, 64), (-8, 8)),
        ((0, 1, 1, 0), (64, 48), (8, 8)),
        ((0, -1, -1, 0), (64, 48), (-8, -8)),
    ],
)
def test_a_video_that_a_front_camera_mirrored_is_shown_as_players_show_it(
    matrix: tuple[int, int, int, int], shape: tuple[int, int], red: tuple[int, int], tmp_path: Path
) -> None:
    write_video(tmp_path / "selfie.mp4", moving(5))
    turn(tmp_path / "selfie.mp4", *matrix)
    (source,) = find_sources([str(tmp_path / "selfie.mp4")])
    pixels = [frame.pixels for frame in frames_of(source)][2]
    assert pixels is not None
    assert pixels.shape[:2] == shape
    corners = {(y, x): pixels[y, x, 0] > 200 for y in (8, -8) for x in (8, -8)}
    assert [corner for corner, is_red in corners.items() if is_red] == [red]


@pytest.mark.parametrize(
    "content", [b"", b"\0\0\0\1moov", b"\0\0\0\x08moov", b"\0\0\0\0moov\0\0\0\x10trak", 40 * b"\xff"]
)
def test_a_video_with_a_broken_header_asks_for_no_mirror(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "broken.mp4").write_bytes(content)
    assert mirroring_of(tmp_path / "broken.mp4") is None


@pytest.mark.parametrize(
    ("across", "down", "turned", "shape"),
    [
        (2, 1, False, (48, 128)),
        (8, 9, False, (54, 64)),
        (4, 3, True, (85, 48)),
        (1000, 1001, False, (48, 64)),
        (1000, 1, False, (48, 64)),
    ],
)
def test_a_video_of_pixels_that_are_not_square_is_shown_as_players_show_it(
    across: int, down: int, turned: bool, shape: tuple[int, int], tmp_path: Path
) -> None:
    """Television's and HDV's; what is next to square, or as no camera has it, is left alone."""
    write_video(tmp_path / "wide.mp4", moving(5))
    squeeze(tmp_path / "wide.mp4", across, down)
    if turned:
        turn(tmp_path / "wide.mp4")
    (source,) = find_sources([str(tmp_path / "wide.mp4")])
    shown = [frame.pixels for frame in frames_of(source)]
    assert [None if pixels is None else pixels.shape[:2] for pixels in shown] == [shape] * 5


CONTAINERS = ["mp4", "m4v", "mov", "3gp", "3g2", "avi", "mkv", "webm", "mpg", "vob", "ts", "mts", "wmv", "asf", "flv"]


@pytest.mark.parametrize("ending", [*CONTAINERS, "MP4"])
def test_videos_of_any_container_are_read_alone_and_in_a_folder(ending: str, tmp_path: Path) -> None:
    if not write_video(tmp_path / f"clip.{ending.lower()}", moving()):
        pytest.skip("this OpenCV does not write it")
    (tmp_path / f"clip.{ending.lower()}").rename(tmp_path / f"clip.{ending}")
    for name in (tmp_path, tmp_path / f"clip.{ending}"):
        (source,) = find_sources([str(name)])
        frames = list(frames_of(source))
        assert len(frames) == 30, frames[-1].reason
        assert [frame.seconds for frame in frames] == pytest.approx([n / 25 for n in range(30)], abs=2e-3)


def test_a_video_under_any_name_is_read(tmp_path: Path) -> None:
    write_video(tmp_path / "clip.mp4", moving())
    for name in ("clip", "clip.video"):
        (tmp_path / name).write_bytes((tmp_path / "clip.mp4").read_bytes())
        (source,) = find_sources([str(tmp_path / name)])
        assert len(list(frames_of(source))) == 30


def test_what_is_no_video_is_told_as_it_is(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "text.avi").write_text("no video at all")
    for name, words in (("missing.mp4", "no such file"), ("empty.mp4", "file is empty"), ("text.avi", "as a video")):
        (source,) = find_sources([str(tmp_path / name)])
        (frame,) = frames_of(source)
        assert frame.pixels is None
        assert words in frame.reason
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("ending", ["jp2", "hdr", "ras", "tga", "pcx", "qoi"])
def test_a_picture_of_another_format_is_no_video(ending: str, tmp_path: Path) -> None:
    """FFmpeg opens these, by ways of its own: twelve bits in sixteen would come out almost black."""
    path = tmp_path / f"a.{ending}"
    pixels = (np.random.default_rng(1).random((40, 40, 3)) * 255).astype(np.uint8)
    if ending in ("tga", "pcx", "qoi"):
        Image.fromarray(pixels).save(path)
    else:
        assert cv2.imwrite(str(path), pixels.astype(np.float32) if ending == "hdr" else pixels)
    (frame,) = (frame for source in find_sources([str(path)]) for frame in frames_of(source))
    assert frame.pixels is None
    assert "not an image of a known format" in frame.reason


@pytest.mark.parametrize("name", ["a.png", "a.mp4", "a"])
def test_a_pipe_is_not_waited_for(name: str, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / name)
    (frame,) = (frame for source in find_sources([str(tmp_path / name)]) for frame in frames_of(source))
    assert frame.pixels is None
    assert "a pipe, a socket or a device" in frame.reason


def test_videos_are_found_as_images_are(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "top").mkdir()
    for name in ("clip.mp4", "._clip.mp4"):
        video(tmp_path / "real" / name, 3)
    Image.new("RGB", (8, 8)).save(tmp_path / "real" / "a.png")
    (tmp_path / "top" / "linked").symlink_to(tmp_path / "real")
    names = [str(tmp_path / "top")]
    assert [Path(source.name).name for source in find_sources(names)] == ["a.png", "clip.mp4"]
    assert passed_over(names) == {"hidden": 1}


def test_a_pattern_is_what_a_shell_makes_of_it(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    for name in ("1.png", "sub/2.png"):
        Image.new("RGB", (8, 8)).save(tmp_path / name)
    for name in ("raw.cr2", "sub/notes.txt", "README"):
        (tmp_path / name).touch()
    for pattern in ("*", "**"):
        names = [str(tmp_path / pattern)]
        assert [Path(source.name).name for source in find_sources(names)] == ["1.png", "2.png"]
        assert passed_over(names) == {".cr2": 1, ".txt": 1, "without an ending": 1}


def test_what_was_drawn_is_not_read(tmp_path: Path) -> None:
    photos, drawn = tmp_path / "photos", tmp_path / "photos" / "drawn"
    drawn.mkdir(parents=True)
    for path in (photos / "1.png", drawn / "1.png"):
        Image.new("RGB", (8, 8)).save(path)
    assert [source.name for source in find_sources([str(photos)], drawn=drawn)] == [str(photos / "1.png")]
    assert passed_over([str(photos)], drawn) == {f"in {drawn}, where this draws": 1}
    assert len(find_sources([str(photos)], drawn=tmp_path)) == 2
    assert len(find_sources([str(drawn / "1.png")], drawn=drawn)) == 1
    for name in (photos, photos / "*.png"):
        with pytest.raises(InputError, match=f"--pictures {photos}: is read from too; name a folder of its own"):
            find_sources([str(name)], drawn=photos)


def test_a_folder_called_camera_is_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "camera").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "camera" / "1.png")
    monkeypatch.chdir(tmp_path)
    assert [source.name for source in find_sources(["camera"])] == ["camera/1.png"]


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "AVIF", "TIFF"])
def test_a_file_of_several_pictures_is_read_picture_by_picture(kind: str, tmp_path: Path) -> None:
    """As a video, timed by how long each picture is shown; pages of a TIFF are shown for no time."""
    pictures = [Image.fromarray(picture) for picture in moving(6)]
    more = {} if kind == "TIFF" else {"duration": [100, 300, 100, 100, 100, 100]}
    path = tmp_path / f"several.{kind.lower()}"
    pictures[0].save(path, kind, save_all=True, append_images=pictures[1:], **more)
    (source,) = find_sources([str(path)])
    frames = list(frames_of(source))
    assert source.count == 6
    assert source.is_moving == (kind != "TIFF")
    assert [frame.number for frame in frames] == list(range(6))
    times = [None] * 6 if kind == "TIFF" else pytest.approx([0, 0.1, 0.4, 0.5, 0.6, 0.7])
    assert [frame.seconds for frame in frames] == times
    brightness = [int(frame.pixels[40, 50, 1]) for frame in frames if frame.pixels is not None]
    assert brightness == pytest.approx([0, 8, 16, 24, 32, 40], abs=6)
    (thinned,) = find_sources([str(path)], every=4)
    assert thinned.count == 2
    assert [frame.number for frame in frames_of(thinned, every=4)] == [0, 4]


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


def test_a_video_that_breaks_off_keeps_what_it_has(tmp_path: Path) -> None:
    whole = video(tmp_path / "clip.avi", 60)
    (tmp_path / "half.avi").write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    frames = [frame for s in find_sources([str(tmp_path / "half.avi")]) for frame in frames_of(s)]
    assert 5 < len(frames) < 60
    assert frames[-1].pixels is None
    assert "breaks off" in frames[-1].reason
    assert all(frame.pixels is not None for frame in frames[:-1])


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
    out = tmp_path / "faces.csv"
    sources = [tmp_path / "broken.jpg", tmp_path / "missing.png", PORTRAIT, tmp_path / "broken.mp4"]
    done = fer("predict", *sources, "--model", exported, "--out", out)
    assert done.returncode == 1
    lines = done.stderr.splitlines()
    assert [Path(line.partition(":")[0]).name for line in lines[:3]] == ["broken.jpg", "missing.png", "broken.mp4"]
    assert lines[-1] == "1 faces in 1 images and frames; 3 could not be read"
    assert list(pd.read_csv(out)["status"]) == ["unreadable", "unreadable", "ok", "unreadable"]
    assert pd.read_csv(out)["reason"].notna().sum() == 3


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
        (["{portrait}", "--model", "{portrait}"], "no model"),
        (["nowhere/*.jpg", "--model", "{model}"], "no image or video"),
        (["", "--model", "{model}"], "name is empty"),
        (["camera:9", "--model", "{model}"], "no camera there"),
        (["camera:front", "--model", "{model}"], "camera:0"),
        (["{portrait}", "--model", "{model}", "--out", "faces.xlsx"], ".csv, .jsonl, .parquet"),
        (["{portrait}", "--model", "{model}", "--out", "/proc/nowhere/faces.csv"], "choose another --out"),
        (["{portrait}", "--model", "{model}", "--detector", "mtcnn"], "cascade"),
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
    process.stderr.close()
    assert 1 <= len(pd.read_csv(out)) < 4000
    assert not list(tmp_path.glob("*.unfinished"))


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
