"""What people bring, decoded: every orientation, range, colour and container, through real files."""

import struct
import time
import tracemalloc
import zlib
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from openface.av1 import largest_frame
from openface.decoding import UnreadableImage, open_image, pictures_in, read_header, remark_of, rgb_pixels

FILES = Path(__file__).parent / "pictures"
ORIENTATION = 0x0112
STORED: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    1: lambda upright: upright,
    2: np.fliplr,
    3: lambda upright: np.rot90(upright, 2),
    4: np.flipud,
    5: lambda upright: upright.swapaxes(0, 1),
    6: lambda upright: np.rot90(upright, 1),
    7: lambda upright: np.rot90(upright, 2).swapaxes(0, 1),
    8: lambda upright: np.rot90(upright, -1),
}
"""How a camera stores an upright picture, by the orientation that it writes beside it (EXIF 2.3, figure 5)."""


def upright() -> np.ndarray:
    """(24, 40, 3) uint8, its four quarters of different colours."""
    colours = np.array([[[200, 30, 30], [30, 200, 30]], [[30, 30, 200], [220, 220, 90]]], np.uint8)
    return colours.repeat(12, axis=0).repeat(20, axis=1)


def saved(image: Image.Image, kind: str, **how: object) -> bytes:
    out = BytesIO()
    image.save(out, kind, **how)  # type: ignore[arg-type]
    return out.getvalue()


def turned(orientation: int, kind: str = "PNG") -> bytes:
    """The upright picture as a camera would store it."""
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    stored = Image.fromarray(np.ascontiguousarray(STORED[orientation](upright())))
    more = {"quality": 100, "subsampling": 0} if kind == "JPEG" else {}
    return saved(stored, kind, exif=exif, **more)


@pytest.mark.parametrize("orientation", STORED)
def test_every_orientation_is_made_upright_whichever_way_it_comes_in(orientation: int, tmp_path: Path) -> None:
    content = turned(orientation)
    path = tmp_path / "turned.png"
    path.write_bytes(content)
    with path.open("rb") as file, Image.open(path) as image:
        file.read(7)
        for picture in (
            path,
            str(path),
            content,
            bytearray(content),
            memoryview(content),
            BytesIO(content),
            file,
            image,
        ):
            np.testing.assert_array_equal(rgb_pixels(picture), upright())
    np.testing.assert_array_equal(rgb_pixels(upright()), upright())
    again = open_image(content)
    np.testing.assert_array_equal(rgb_pixels(again), upright())


@pytest.mark.parametrize("kind", ["JPEG", "WEBP", "TIFF", "AVIF"])
def test_every_container_of_orientation_is_read(kind: str) -> None:
    pixels = rgb_pixels(turned(6, kind))
    assert pixels.shape == upright().shape
    assert np.abs(pixels[6::12, 10::20].astype(int) - upright()[6::12, 10::20]).max() < 25


def test_a_heic_photograph_is_read_as_its_container_turns_it() -> None:
    for name in ("upright.heic", "turned.heic", "turned_by_exif.heic"):
        pixels = rgb_pixels(FILES / name)
        assert pixels.shape == (48, 80, 3)
        assert np.abs(pixels[12::24, 20::40].astype(int) - upright()[6::12, 10::20]).max() < 25
    assert rgb_pixels((FILES / "turned.heic").read_bytes()).shape == (48, 80, 3)


RAMP = (np.arange(256, dtype=np.uint16).reshape(16, 16) + np.zeros((16, 16), np.uint16)).astype(np.uint16)
"""Every value of eight bits once."""


@pytest.mark.parametrize("depth", [8, 10, 12, 14, 16])
@pytest.mark.parametrize("kind", ["PNG", "TIFF", "array", "I;16B"])
def test_sixteen_bits_are_scaled_by_what_is_there_and_it_is_told(depth: int, kind: str, tmp_path: Path) -> None:
    deep = RAMP << (depth - 8) | (RAMP & ((1 << (depth - 8)) - 1))
    if kind == "array":
        image = open_image(deep)
    elif kind == "I;16B":
        image = open_image(Image.frombytes("I;16B", (16, 16), deep.astype(">u2").tobytes()))
    else:
        image = open_image(saved(Image.fromarray(deep), kind))
    assert image.mode == "L"
    np.testing.assert_array_equal(np.asarray(image), RAMP)
    assert remark_of(image) == ("" if depth == 16 else f"{depth} of 16 bits are used, and scaled to 8")


@pytest.mark.parametrize(
    ("values", "mode"),
    [
        (RAMP.astype(np.float32) / 255, "floats in 0..1"),
        (RAMP.astype(np.float64), "floats in 0..255"),
        (RAMP.astype(np.float16) + np.float16(0), "halves"),
        (RAMP.astype(np.int64), "Python's whole numbers"),
        (RAMP.astype(np.int32) << 8, "32 bits of which 16 are used"),
        (RAMP.astype(np.float32) * 257, "whole floats of 16 bits"),
        (RAMP.astype(np.uint32) << 24, "all of 32 bits"),
    ],
)
def test_arrays_of_any_usual_range_are_the_same_picture(values: np.ndarray, mode: str) -> None:
    np.testing.assert_array_equal(rgb_pixels(values)[..., 1], RAMP, mode)
    np.testing.assert_array_equal(rgb_pixels(np.repeat(values[..., None], 3, axis=2))[..., 2], RAMP, mode)


def test_floats_in_a_tiff_are_scaled_likewise() -> None:
    for values in (RAMP.astype(np.float32) / 255, RAMP.astype(np.float32)):
        np.testing.assert_array_equal(np.asarray(open_image(saved(Image.fromarray(values), "TIFF"))), RAMP)


def test_shapes_and_kinds_of_arrays_are_the_same_picture() -> None:
    grey = RAMP.astype(np.uint8)
    colour = upright()
    alpha = np.dstack([colour, np.full(colour.shape[:2], 255, np.uint8)])
    for array, expected in (
        (grey, np.repeat(grey[..., None], 3, 2)),
        (grey[..., None], np.repeat(grey[..., None], 3, 2)),
        (np.asfortranarray(colour), colour),
        (colour[::-1, ::-1], colour[::-1, ::-1]),
        (alpha, colour),
        (torch.from_numpy(colour.copy()), colour),
        (grey > 127, np.repeat((grey > 127)[..., None], 3, 2) * np.uint8(255)),
    ):
        np.testing.assert_array_equal(rgb_pixels(array), expected)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.zeros((3, 20, 30), np.uint8), "channels first"),
        (np.zeros((1, 20, 30), np.uint8), "channels first"),
        (np.zeros((2, 20, 30, 3), np.uint8), "one by one"),
        (np.zeros((20, 30, 2), np.uint8), r"give \(H, W\)"),
        (np.zeros(20, np.uint8), r"give \(H, W\)"),
        (np.zeros((0, 30, 3), np.uint8), "no pixels"),
        (np.full((9, 9), 1.7), "neither floats in 0..1 nor 0..255"),
        (np.linspace(0, 300, 81).reshape(9, 9), "neither floats in 0..1 nor 0..255"),
        (np.linspace(-2, 2, 81).reshape(9, 9), "negative"),
        (np.full((9, 9), -3), "negative"),
        (np.full((9, 9), np.nan), "finite"),
        (np.full((9, 9), np.inf), "finite"),
        (np.eye(9, dtype=np.int64), "neither floats"),
        (np.zeros((9, 9), complex), "whole numbers or floats"),
        (np.full((9, 9), "x"), "whole numbers or floats"),
        (torch.zeros(9, 9, requires_grad=True), "Tensor"),
        ([[1, 2], [3, 4]], "list is no picture"),
        (None, "NoneType is no picture"),
        (7, "int is no picture"),
    ],
)
def test_what_can_be_read_in_two_ways_is_refused(array: np.ndarray, words: str) -> None:
    with pytest.raises(UnreadableImage, match=words):
        open_image(array)


def test_rounding_beyond_nought_and_one_is_no_other_range() -> None:
    values = np.array([[-1e-4, 0.5, 1 + 1e-4]])
    assert rgb_pixels(values)[0, :, 0].tolist() == [0, 128, 255]


def test_transparent_parts_are_white_in_every_mode() -> None:
    seen = upright().copy()
    seen[:, 20:] = 255
    alpha = np.full((24, 40), 255, np.uint8)
    alpha[:, 20:] = 0
    rgba = Image.fromarray(np.dstack([upright(), alpha]))
    for kind in ("PNG", "TIFF"):
        np.testing.assert_array_equal(rgb_pixels(saved(rgba, kind)), seen)
    np.testing.assert_array_equal(rgb_pixels(np.dstack([upright(), alpha])), seen)
    np.testing.assert_array_equal(rgb_pixels(rgba.convert("RGBa")), seen)
    palette = Image.fromarray(upright()).quantize(4)
    unseen = palette.getpixel((30, 5)), palette.getpixel((30, 20))
    palette.info["transparency"] = bytes(0 if index in unseen else 255 for index in range(4))
    np.testing.assert_array_equal(rgb_pixels(saved(palette, "PNG")), seen)
    grey = Image.merge("LA", [rgba.convert("L"), rgba.getchannel("A")])
    for image in (grey, open_image(saved(grey, "PNG"))):
        assert open_image(image).mode == "L"
        assert np.asarray(open_image(image))[:, 20:].min() == 255
    half = Image.new("RGBA", (4, 4), (0, 0, 0, 128))
    assert rgb_pixels(half)[0, 0].tolist() == [127, 127, 127]


UNUSED = "all of it is transparent, which is taken for an alpha that is not used"


def bitmap_with_alpha(rgba: np.ndarray) -> bytes:
    """A BMP of 32 bits whose header, of version 4, has room for alpha, as Windows' programs write it."""
    height, width, _ = rgba.shape
    pixels = rgba[::-1, :, [2, 1, 0, 3]].tobytes()
    header = struct.pack("<IiiHHIIiiII", 108, width, height, 1, 32, 3, len(pixels), 2835, 2835, 0, 0)
    header += struct.pack("<4I", 0xFF0000, 0xFF00, 0xFF, 0xFF000000) + b"BGRs"
    header += bytes(108 - len(header))
    return b"BM" + struct.pack("<IHHI", 122 + len(pixels), 0, 0, 122) + header + pixels


def test_an_alpha_that_is_nought_everywhere_is_not_used() -> None:
    rgba = np.dstack([upright(), np.zeros((24, 40), np.uint8)])
    image = Image.fromarray(rgba)
    lossless = saved(image, "WEBP", lossless=True, exact=True)
    for picture in (image, saved(image, "PNG"), saved(image, "TIFF"), lossless, bitmap_with_alpha(rgba), rgba):
        np.testing.assert_array_equal(rgb_pixels(picture), upright())
        assert remark_of(open_image(picture)) == UNUSED
    one_is_seen = rgba.copy()
    one_is_seen[3, 3, 3] = 255
    pixels = rgb_pixels(saved(Image.fromarray(one_is_seen), "PNG"))
    assert (pixels < 255).any(axis=2).sum() == 1
    grey = Image.merge("LA", [image.convert("RGB").convert("L"), image.getchannel("A")])
    np.testing.assert_array_equal(np.asarray(open_image(saved(grey, "PNG"))), np.asarray(grey.getchannel("L")))
    pages = saved(image, "TIFF", save_all=True, append_images=[image])
    assert remark_of(open_image(pages)) == f"{UNUSED}; the first of 2 pictures in the file"


def test_colours_of_print_and_one_bit_are_read() -> None:
    ink = Image.new("CMYK", (8, 8), (0, 255, 255, 0))
    for picture in (ink, saved(ink, "JPEG"), saved(ink, "TIFF")):
        red, green, blue = rgb_pixels(picture)[4, 4]
        assert (red > 240, green < 15, blue < 15) == (True, True, True)
    bits = Image.fromarray(RAMP.astype(np.uint8) > 127)
    for picture in (bits, saved(bits, "PNG"), saved(bits, "TIFF"), saved(bits, "BMP"), saved(bits, "PPM")):
        np.testing.assert_array_equal(np.asarray(open_image(picture)), (RAMP > 127) * np.uint8(255))


def test_a_colour_profile_changes_nothing() -> None:
    from PIL import ImageCms

    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    plain, profiled = (saved(Image.fromarray(upright()), "PNG", **more) for more in ({}, {"icc_profile": profile}))
    np.testing.assert_array_equal(rgb_pixels(profiled), rgb_pixels(plain))


def deep_colour(values: np.ndarray, ending: str = ".png") -> bytes:
    """A file of 16 bits a channel, which Pillow does not write."""
    import cv2

    return bytes(cv2.imencode(ending, values)[1])


def test_colour_of_sixteen_bits_is_read_or_refused_never_black() -> None:
    full = upright().astype(np.uint16) * 257
    np.testing.assert_array_equal(rgb_pixels(deep_colour(full[..., ::-1])), upright())
    with pytest.raises(UnreadableImage, match="12 are used; save it in 8 bits"):
        open_image(deep_colour(full >> 4))
    for lost in (2, 4, 6):
        with pytest.raises(UnreadableImage, match=f"{16 - lost} are used; save it in 8 bits"):
            open_image(deep_colour(full >> lost, ".ppm"))


HOT = "12 of 16 bits are used, and scaled to 8; a few brighter values are taken for hot pixels"
SHADES = (np.arange(4096, dtype=np.uint16).reshape(64, 64) // 16).astype(np.uint8)
"""Every value of eight bits, 16 times."""


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "array"])
def test_a_hot_pixel_is_no_range(kind: str) -> None:
    deep = SHADES.astype(np.uint16) << 4
    deep[0, :4] = 65535
    image = open_image(deep if kind == "array" else saved(Image.fromarray(deep), kind))
    np.testing.assert_array_equal(np.asarray(image)[1:], SHADES[1:])
    assert np.asarray(image)[0, :4].tolist() == [255] * 4
    assert remark_of(image) == HOT
    # More than a thousandth is what the picture shows.
    deep[0, 4] = 65535
    image = open_image(deep if kind == "array" else saved(Image.fromarray(deep), kind))
    np.testing.assert_array_equal(np.asarray(image)[1:], SHADES[1:] >> 4)
    assert remark_of(image) == ""


def test_a_hot_pixel_among_floats_is_refused_and_not_black() -> None:
    values = SHADES / 255
    values[0, 0] = 100
    with pytest.raises(UnreadableImage, match="values up to 100 are neither floats"):
        open_image(values)


def test_a_hot_pixel_or_a_transparent_part_hides_no_lost_bits() -> None:
    deep = np.repeat(SHADES[..., None], 3, axis=2).astype(np.uint16) << 4
    hot = deep.copy()
    hot[0, 0] = 65535
    alpha = np.full((64, 64, 1), 65535, np.uint16)
    alpha[:, :8] = 0
    for unseen in (0, 65535):
        partly = np.dstack([np.where(alpha > 0, deep, unseen).astype(np.uint16), alpha])
        for picture in (hot, partly):
            with pytest.raises(UnreadableImage, match="of which 12 are used; save it in 8 bits"):
                open_image(deep_colour(picture))
        image = open_image(partly)
        np.testing.assert_array_equal(np.asarray(image)[:, 8:, 1], SHADES[:, 8:])
        assert np.asarray(image)[:, :8].min() == 255
        assert remark_of(image) == "12 of 16 bits are used, and scaled to 8"
    np.testing.assert_array_equal(rgb_pixels(deep_colour(np.dstack([deep << 4, alpha])))[:, 8:, 1], SHADES[:, 8:])


@pytest.mark.parametrize("channels", [3, 4])
def test_what_deep_colour_uses_is_counted_without_a_copy_of_its_pixels(channels: int) -> None:
    """As large as may be, it would else take most of what the service's container has."""
    content = deep_colour(np.full((500, 500, channels), 40_000, np.uint16))
    tracemalloc.start()
    try:
        open_image(content)
        assert tracemalloc.get_traced_memory()[1] < 500 * 500
    finally:
        tracemalloc.stop()


def photograph(kind: str, **how: object) -> bytes:
    """A picture with a thumbnail in it, as cameras write them."""
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    exif = Image.Exif()
    exif[0x927C] = saved(Image.fromarray(noise).resize((16, 16)), "JPEG")
    return saved(Image.fromarray(noise), kind, exif=exif, **how)


@pytest.mark.parametrize(("kind", "how"), [("JPEG", {}), ("JPEG", {"progressive": True}), ("PNG", {})])
def test_a_picture_whose_end_is_zeros_is_refused(kind: str, how: dict[str, object], tmp_path: Path) -> None:
    content = photograph(kind, **how)
    for kept in (len(content) // 2, len(content) * 9 // 10):
        spoilt = content[:kept] + bytes(len(content) - kept)
        (tmp_path / "a").write_bytes(spoilt)
        for picture in (spoilt, tmp_path / "a", Image.open(BytesIO(spoilt))):
            with pytest.raises(UnreadableImage, match="its end is missing, with zeros in its place; copy or download"):
                open_image(picture)
    expected = rgb_pixels(content)
    for appended in (bytes(1), bytes(5000), b"a film" + bytes(9), bytes(7) + b"\xff\xd9"):
        np.testing.assert_array_equal(rgb_pixels(content + appended), expected)


def test_a_heic_with_an_item_that_is_no_text_is_refused() -> None:
    """One byte of 813 ended the process, with all that it had read."""
    content = (FILES / "turned.heic").read_bytes()
    for name, damaged in ((b"Exif", b"\xd6xif"), (b"Exif", b"Exi\xc3"), (b"hvc1", b"\xffvc1")):
        assert name in content
        with pytest.raises(UnreadableImage, match="a damaged HEIF; save it anew"):
            open_image(content.replace(b"\0\0" + name, b"\0\0" + damaged, 1))


def test_a_jpeg_of_endless_segments_is_refused_before_they_are_listed() -> None:
    """In four bytes each, those of 20 MB would fill 600 MB."""
    content = saved(Image.new("L", (8, 8)), "JPEG")
    assert open_image(content[:2] + 9000 * b"\xff\xe5\0\2" + content[2:]).size == (8, 8)
    with pytest.raises(UnreadableImage, match="a JPEG of more than 10,000 segments; save it anew"):
        open_image(content[:2] + 10_000 * b"\xff\xe5\0\2" + content[2:])


def test_a_jpeg_that_goes_through_its_picture_again_and_again_is_refused() -> None:
    """In ten bytes a scan; as large as may be, a file of 20 MB would keep its decoder for hours."""
    content = saved(Image.new("L", (64, 64), 128), "JPEG", progressive=True)
    begun, scan = content[:-2], content[content.rindex(b"\xff\xda") : -2]
    assert open_image(begun + 80 * scan + b"\xff\xd9").size == (64, 64)
    with pytest.raises(UnreadableImage, match="a JPEG of more than 100 scans; save it anew"):
        open_image(begun + 100 * scan + b"\xff\xd9")
    exif = Image.Exif()
    exif[0x927C] = 200 * b"\xff\xda"
    assert open_image(saved(Image.new("L", (64, 64)), "JPEG", exif=exif) + 200 * b"\xff\xda").size == (64, 64)


def test_a_ppm_of_endless_comments_is_refused() -> None:
    """In three bytes each, those of 20 MB would keep Pillow for minutes."""
    assert open_image(b"P2 1 1 255\n" + 900 * b"#a\n" + b"1\n").getpixel((0, 0)) == 1
    with pytest.raises(UnreadableImage, match="a PPM of more than 1,000 comments; save it anew"):
        open_image(b"P2 1 1 255\n" + 1001 * b"#a\n" + b"1\n")
    assert open_image(b"P5 99 99 255\n" + 99 * 99 * b"#").size == (99, 99)


SPOILT = {
    "empty.jpg": (b"", "empty"),
    "text.jpg": (b"no picture at all", "known format"),
    "header.jpg": (b"\xff\xd8nothing", "known format"),
    "damaged.jpg": (b"\xff\xd8\xff\xe0nothing", "Truncated"),
    "damaged.png": (b"\x89PNG\r\n\x1a\nnothing", "damaged PNG"),
    "damaged.heic": (b"\0\0\0\x1cftypheic\0\0\0\0mif1heicmiaf" + b"\0" * 99, "No meta box"),
    "damaged.avif": (b"\0\0\0\x1cftypavif\0\0\0\0mif1avifmiaf" + b"\0" * 99, "format|damaged"),
    "post.eps": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "known format"),
    "half.png": (
        saved(Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)), "PNG")[:5000],
        "truncated",
    ),
    "half.heic": ((FILES / "upright.heic").read_bytes()[:700], "."),
}


@pytest.mark.parametrize("name", SPOILT)
def test_what_is_corrupt_is_one_error_that_names_the_file(name: str, tmp_path: Path) -> None:
    content, words = SPOILT[name]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UnreadableImage, match=words) as told:
        open_image(tmp_path / name)
    assert str(told.value).startswith(f"{tmp_path / name}: ")
    assert len(str(told.value).splitlines()) == 1
    with pytest.raises(UnreadableImage, match=words):
        open_image(content)


def test_what_is_no_file_is_told(tmp_path: Path) -> None:
    for path, words in ((tmp_path / "missing.png", "no such file"), (tmp_path, "directory"), ("a\0b", "null")):
        with pytest.raises(UnreadableImage, match=words):
            open_image(path)
    (tmp_path / "a.png").write_bytes(turned(1))
    with (
        (tmp_path / "a.png").open(encoding="latin-1") as file,
        pytest.raises(UnreadableImage, match='open it with "rb"'),
    ):
        open_image(file)  # type: ignore[arg-type]


def test_of_several_pictures_the_first_is_taken_and_it_is_told(tmp_path: Path) -> None:
    first, *others = [Image.new("RGB", (8, 8), (60 * n, 0, 0)) for n in range(4)]
    for kind in ("GIF", "PNG", "WEBP", "TIFF", "AVIF"):
        more = {} if kind == "TIFF" else {"duration": 200}
        lossless = {"lossless": True} if kind == "WEBP" else {}
        path = tmp_path / f"a.{kind.lower()}"
        first.save(path, kind, save_all=True, append_images=others, **more, **lossless)
        assert remark_of(open_image(path)) == "the first of 4 pictures in the file"
        assert rgb_pixels(path).max() < 12
        with pictures_in(path) as (count, shown):
            pictures = list(shown)
        assert count == 4
        assert [picture.seconds for picture in pictures] == ([None] * 4 if kind == "TIFF" else [0, 0.2, 0.4, 0.6])
        reds = [int(rgb_pixels(picture.image)[4, 4, 0]) for picture in pictures if picture.image]
        assert reds == pytest.approx([0, 60, 120, 180], abs=8)


def test_a_photograph_with_a_preview_in_it_is_one_picture() -> None:
    photograph = Image.fromarray(upright())
    content = saved(photograph, "MPO", save_all=True, append_images=[photograph.resize((20, 12))])
    assert remark_of(open_image(content)) == ""


Entry = tuple[int, int, int]
"""Tag, type and value of a TIFF's directory."""


def tiff(*pages: list[Entry], data: bytes = b"\0" * 16) -> bytes:
    """Directories one after the other, with all of their pixels from byte 8 on."""
    out = bytearray(b"II*\0" + struct.pack("<I", 8 + len(data)) + data)
    for number, entries in enumerate(pages):
        out += struct.pack("<H", len(entries))
        out += b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in entries)
        out += struct.pack("<I", len(out) + 4 if number < len(pages) - 1 else 0)
    return bytes(out)


def page(side: int, data: int, *more: Entry, deflated: bool = True) -> list[Entry]:
    """The entries of a grey page in one strip, or in tiles where `more` says so."""
    place = [(324, 4, 8), (325, 4, data)] if more else [(273, 4, 8), (278, 4, side), (279, 4, data)]
    entries = [(256, 4, side), (257, 4, side), (258, 3, 8), (259, 3, 8 if deflated else 1), (262, 3, 1)]
    return sorted([*entries, *place, *more], key=lambda entry: entry[0])


@pytest.mark.parametrize(
    ("kind", "bits", "sample", "scale"),
    [("<u1", 8, 1, 1), ("<u2", 16, 1, 257), ("<u2", 16, 1, 16), ("<f4", 32, 3, 1 / 255)],
)
def test_a_tiff_in_which_nought_is_white_is_no_negative(
    kind: str, bits: int, sample: int, scale: float, tmp_path: Path
) -> None:
    """Scanners and microscopes write such; Pillow turns them around in eight bits alone."""
    shades = np.tile(np.arange(0, 256, 4), (64, 1))
    data = (shades * scale).astype(kind).tobytes()
    entries = [entry for entry in page(64, len(data), deflated=False) if entry[0] not in (258, 262)]
    entries += [(258, 3, bits), (262, 3, 0), (339, 3, sample)]
    content = tiff(sorted(entries), data=data)
    assert np.array_equal(np.asarray(open_image(content)), 255 - shades)
    (tmp_path / "a.tif").write_bytes(tiff(sorted(entries), sorted(entries), data=data))
    with pictures_in(tmp_path / "a.tif") as (_, shown):
        assert all(np.array_equal(np.asarray(picture.image), 255 - shades) for picture in shown)
    assert ("12 of 16 bits" in remark_of(open_image(content))) == (scale == 16)


def test_the_preview_in_a_cameras_raw_file_is_not_taken_for_the_photograph(tmp_path: Path) -> None:
    """A DNG or a NEF begins with a small copy; its picture lies in a directory below, which nothing here reads."""
    small, preview = page(4, 16, deflated=False), (254, 4, 1)
    raw = tiff(sorted([*small, preview, (330, 4, 8)]))
    (tmp_path / "a.dng").write_bytes(raw)
    with pytest.raises(UnreadableImage, match=r"a\.dng: its first picture is but a preview of another, as in a"):
        open_image(tmp_path / "a.dng")
    with pictures_in(tmp_path / "a.dng") as (_, shown):
        assert ["but a preview" in picture.reason for picture in shown] == [True]
    before_its_picture = tiff(sorted([*small, preview]), small)
    with pytest.raises(UnreadableImage, match="but a preview"):
        open_image(before_its_picture)
    (tmp_path / "a.tif").write_bytes(before_its_picture)
    with pictures_in(tmp_path / "a.tif") as (_, shown):
        assert [picture.image is not None for picture in shown] == [True, True]
    assert open_image(tiff(sorted([*small, (254, 4, 2)]))).size == (4, 4)


def test_pages_beyond_number_are_not_counted_one_by_one() -> None:
    small = page(1, 1, deflated=False)
    content = tiff(small, *[[entry for entry in small if entry[0] in (256, 257, 273)]] * 20_000)
    began = time.process_time()
    assert remark_of(open_image(content)) == "the first of more than 1,000 pictures in the file"
    assert time.process_time() - began < 1
    assert remark_of(open_image(tiff(*[small] * 1000))) == "the first of 1000 pictures in the file"


def test_pages_that_point_at_each_other_have_an_end() -> None:
    content = bytearray(tiff(*[page(1, 1, deflated=False)] * 3))
    content[-4:] = struct.pack("<I", 24)
    assert remark_of(open_image(content)) == "the first of 3 pictures in the file"


@pytest.mark.parametrize("big", [False, True])
def test_a_tiff_that_is_cut_short_gives_its_pages_up_to_there(tmp_path: Path, big: bool) -> None:
    first, *others = [Image.new("L", (20, 20), 20 * n) for n in range(10)]
    content = saved(first, "TIFF", save_all=True, append_images=others, big_tiff=big)
    (tmp_path / "a.tiff").write_bytes(content[: len(content) // 2])
    with pictures_in(tmp_path / "a.tiff") as (count, shown):
        pictures = list(shown)
    assert 4 <= count == len(pictures) <= 6
    assert [int(np.asarray(p.image).max()) for p in pictures[:-1] if p.image] == [20 * n for n in range(count - 1)]
    assert pictures[-1].image is None
    assert pictures[-1].reason
    assert remark_of(open_image(tmp_path / "a.tiff")) == f"the first of {count} pictures in the file"


def test_tiles_larger_than_an_image_may_be_are_refused(tmp_path: Path) -> None:
    tile = zlib.compress(bytes(512 * 512))
    wide, high = (322, 3, 512), (323, 3, 512)
    content = tiff(page(16, len(tile), wide, high), data=tile)
    assert rgb_pixels(content).shape == (16, 16, 3)
    hidden = [wide, high, (322, 3, 16), (323, 3, 16)]
    for entries in ([wide, high], [(322, 4, 512), (323, 1, 255)], hidden):
        with pytest.raises(UnreadableImage, match=r"^512 x \d+ is more than 100,000 pixels"):
            open_image(tiff(page(16, len(tile), *entries), data=tile), largest=100_000)
    small = page(16, len(tile))
    (tmp_path / "a.tif").write_bytes(tiff(small, page(16, len(tile), wide, high), data=tile))
    with pictures_in(tmp_path / "a.tif", largest=100_000) as (_, shown):
        assert [picture.reason for picture in shown] == ["", "512 x 512 is more than 100,000 pixels; scale it down"]


@pytest.mark.parametrize("frames", [1, 3])
def test_an_avif_is_as_large_as_its_frames_are(tmp_path: Path, frames: int) -> None:
    plain = Image.new("RGB", (700, 500), "teal")
    more = {"save_all": True, "append_images": [plain.rotate(90 * n) for n in range(1, frames)]} if frames > 1 else {}
    content = bytearray(saved(plain, "AVIF", speed=10, **more))
    assert largest_frame(bytes(content)) == (700, 500)
    assert rgb_pixels(bytes(content), largest=350_000).shape == (500, 700, 3)
    place = content.find(b"ispe")
    content[place + 8 : place + 16] = struct.pack(">II", 64, 64)
    if frames == 1:
        assert Image.open(BytesIO(content)).size == (64, 64)
    with pytest.raises(UnreadableImage, match=r"^700 x 500 is more than 100,000 pixels"):
        open_image(bytes(content), largest=100_000)


def box(name: bytes, *inside: bytes) -> bytes:
    content = b"".join(inside)
    return struct.pack(">I", 8 + len(content)) + name + content


@pytest.mark.parametrize(
    "content",
    [
        box(b"free") * 300_000,
        box(b"moov", box(b"trak", box(b"mdia", box(b"minf", box(b"stbl", box(b"free") * 200_000))))),
        # Many items of many parts, none of which takes a byte to say.
        box(b"meta", bytes(4), box(b"iloc", b"\1\0\0\0\0\0\xff\xff", (bytes(3) + b"\1\0\0\xff\xff") * 0xFFFF)),
        box(b"meta", bytes(4), box(b"iloc", bytes(4) + b"\0\0\xff\xff", (bytes(4) + b"\0\2") * 0xFFFF)),
        # One item from byte 42 to the end, of delimiters alone.
        box(b"meta", bytes(4), box(b"iloc", bytes(4), b"\x44\0\0\1", bytes(5), b"\1\0\0\0\x2a", bytes(4)))
        + b"\x12\0" * 200_000,
    ],
    ids=["boxes", "tables", "extents", "overlaps", "units"],
)
def test_an_avif_of_very_many_parts_is_not_looked_through(content: bytes) -> None:
    began = time.process_time()
    with pytest.raises(ValueError, match=r"it has more than 100,000 parts|its parts lie one upon the other"):
        largest_frame(content)
    assert time.process_time() - began < 2


def test_an_avif_whose_picture_is_a_film_is_refused() -> None:
    """Its decoder goes through all frames, which take some twenty bytes each, to show the first."""
    shades = [Image.new("RGB", (16, 16), (shade, 99, 99)) for shade in range(110)]
    content = bytearray(saved(shades[0], "AVIF", save_all=True, append_images=shades[1:], speed=10))
    assert remark_of(open_image(bytes(content))) == "the first of 110 pictures in the file"
    length = content.find(b"iloc") + 22
    start = int.from_bytes(content[length - 4 : length], "big")
    content[8:12] = b"avif"
    content[length : length + 4] = (len(content) - start).to_bytes(4, "big")
    with pytest.raises(UnreadableImage, match="one of its pictures has more than 100 frames"):
        open_image(bytes(content))


def test_a_phones_photograph_of_50_megapixels_is_within_the_limit() -> None:
    """Pixels and others take them at 8160 x 6144."""
    assert read_header(BytesIO(saved(Image.new("1", (8160, 6144)), "PNG"))).size == (8160, 6144)


def test_every_page_is_held_to_the_limit(tmp_path: Path) -> None:
    strip = zlib.compress(bytes(400 * 400))
    (tmp_path / "a.tif").write_bytes(tiff(page(16, len(strip)), page(400, len(strip)), data=strip))
    with pictures_in(tmp_path / "a.tif", largest=100_000) as (count, shown):
        assert count == 2
        assert [picture.reason for picture in shown] == ["", "400 x 400 is more than 100,000 pixels; scale it down"]
