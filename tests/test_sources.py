"""Sources of frames: files, folders, patterns, videos as phones and cameras write them, files of several pictures."""

import os
from pathlib import Path

import cv2
import numpy as np
import pytest
from helpers.videos import moving, squeeze, stretch, turn, video, write_video
from PIL import Image

from fer_core.errors import InputError
from fer_core.predict.mirrored import mirroring_of
from fer_core.predict.sources import find_sources, frames_of, passed_over


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
    with pytest.raises(InputError, match="rtsp://camera/stream: an address"):
        find_sources(["rtsp://camera/stream"])


def test_a_video_is_read_frame_by_frame(tmp_path: Path) -> None:
    (source,) = find_sources([str(video(tmp_path / "clip.mp4", 30))], every=4)
    frames = list(frames_of(source, every=4))
    assert [frame.number for frame in frames] == [0, 4, 8, 12, 16, 20, 24, 28]
    assert frames[1].seconds == pytest.approx(4 / 25)
    assert source.count == len(frames)
    assert all(frame.pixels is not None and frame.pixels.shape == (240, 320, 3) for frame in frames)


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


def test_a_video_that_is_named_by_its_time_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """FFmpeg knows no protocol called 2026-05-01T10."""
    video(tmp_path / "2026-05-01T10:20:30.mp4", 3)
    monkeypatch.chdir(tmp_path)
    for name in (".", "2026-05-01T10:20:30.mp4"):
        (source,) = find_sources([name])
        assert [(frame.source, frame.reason) for frame in frames_of(source)] == [("2026-05-01T10:20:30.mp4", "")] * 3


def test_a_video_whose_name_is_no_utf8_is_read(tmp_path: Path) -> None:
    """OpenCV ends the process at such a name."""
    video(tmp_path / "clip.mp4", 3).rename(tmp_path / os.fsdecode(b"ni\xf1o.mp4"))
    (source,) = find_sources([str(tmp_path)])
    assert [frame.reason for frame in frames_of(source)] == ["", "", ""]
    (tmp_path / os.fsdecode(b"ni\xf1o.mp4")).write_bytes(b"no video at all")
    (source,) = find_sources([str(tmp_path)])
    assert [frame.reason for frame in frames_of(source)] == ["cannot be read as a video"]


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


def test_a_video_that_breaks_off_keeps_what_it_has(tmp_path: Path) -> None:
    whole = video(tmp_path / "clip.avi", 60)
    (tmp_path / "half.avi").write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    frames = [frame for s in find_sources([str(tmp_path / "half.avi")]) for frame in frames_of(s)]
    assert 5 < len(frames) < 60
    assert frames[-1].pixels is None
    assert "breaks off" in frames[-1].reason
    assert all(frame.pixels is not None for frame in frames[:-1])


def test_a_video_goes_on_behind_what_is_damaged(tmp_path: Path) -> None:
    """Hours may follow a few bytes that a card or a copy has lost."""
    content = bytearray(video(tmp_path / "clip.mp4", 60).read_bytes())
    middle = len(content) // 3
    content[middle : middle + 3000] = bytes(3000)
    (tmp_path / "damaged.mp4").write_bytes(content)
    (source,) = find_sources([str(tmp_path / "damaged.mp4")])
    (lost,) = (frame for frame in frames_of(source) if frame.pixels is None)
    read = [frame for frame in frames_of(source) if frame.pixels is not None]
    assert lost.reason == f"{60 - len(read)} frames from {lost.number} on are damaged, and those after them may be"
    assert 50 < len(read) < 60
    assert [frame.seconds for frame in read] == pytest.approx([(frame.number or 0) / 25 for frame in read])
    assert read[-1].number == 59
