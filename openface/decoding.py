"""The one way from what a user has (file, bytes, Pillow image, array) to an upright picture in eight bits.

Every other part of the project reads pictures through `open_image` or `rgb_pixels`, so that a picture looks the same
to all of them:

orientation  as EXIF says (all eight values). Where the container of HEIF or AVIF says it itself, that counts alone.
range        8 bits as they are. Deeper integers by the smallest usual depth (8, 10, 12, 14, 16, 24, 32) that holds
             all values but the thousandth that hot pixels may take, dropping the lowest bits. Floats are 0..1, or
             0..255 where they go beyond 16, or whole numbers; any others are refused, and so are negative ones. What
             had to be concluded from the pixels is remarked upon, see `remark_of`.
colour       grey stays grey, everything else becomes RGB. No colour profile is applied. CMYK as Pillow converts it.
transparency laid upon white, as on a page; a colour that nobody sees does not count. Where nothing at all would be
             seen, the alpha is one that a program left at 0, and it is remarked upon.
several      of several pictures in a file (GIF, APNG, WebP, AVIF, pages of a TIFF) the first, and it is remarked upon.
             `pictures_in` gives all of them. A TIFF's first that is a preview of another is refused.

Needs numpy, Pillow and pi-heif alone.
"""

import math
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from itertools import islice, takewhile
from pathlib import Path
from typing import BinaryIO, Literal, Protocol, cast

import numpy as np
from PIL import ExifTags, Image, ImageFile, ImageOps, ImageSequence, TiffImagePlugin, UnidentifiedImageError

from openface.av1 import boxes, largest_frame

ENDINGS = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".bmp", ".dib", ".webp", ".tif", ".tiff"),
    *(".gif", ".ppm", ".pgm", ".pbm", ".pnm", ".heic", ".heif", ".hif", ".avif"),
)
"""Endings of the files that are taken from a folder: of every format that is opened when it is named."""
LARGEST = 51_000_000
"""Pixels, a few more than phones' photographs of 8160 × 6144; a small file that claims more is taken for a
decompression bomb."""

_FORMATS = ("JPEG", "PNG", "BMP", "DIB", "WEBP", "TIFF", "GIF", "PPM", "AVIF")
"""Whatever its name says, nothing else is opened: Pillow would start Ghostscript for a PostScript file."""
_SEVERAL = ("GIF", "PNG", "WEBP", "TIFF", "AVIF")
"""Formats whose pictures follow one another; a JPEG's second one (MPO) is a thumbnail, a depth or a gain map."""
_HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
_SIGNATURES = {b"\xff\xd8\xff": "JPEG", b"\x89PNG": "PNG", b"II*\0": "TIFF", b"MM\0*": "TIFF", b"GIF8": "GIF"}
_DEPTHS = (8, 10, 12, 14, 16, 24, 32)
"""Bits of a pixel that cameras and scanners use."""
_AMBIGUOUS = 16.0
"""Floats between 1 and this are a bright picture in 0..1 as likely as a dark one in 0..255."""
_UNSEEN = 0.5 / 255
"""Beyond 0..1 by less than this, a float is what rounding left, and the same in eight bits."""
_LOST_BITS = 64
"""With 16 bits a channel, Pillow keeps the upper 8; a picture of no more than this has lost most of what it had."""
_HOT = 0.001
"""Share of values that hot pixels may take.

Of 20 million pixels of a camera in use, some hundred are hot, and colour is interpolated from 5 x 5 of them: a share of
0.0002. A picture that uses its range has more in the upper three quarters of it, or is all but black.
"""
_SPOTS = "a few brighter values are taken for hot pixels"
_UNUSED_ALPHA = "all of it is transparent, which is taken for an alpha that is not used"
_REMARK = "remark"
_COUNTED = 1000
"""Pages of a TIFF that are counted for a remark; counting more would keep whoever waits for it."""
_TILE_WIDTH, _TILE_LENGTH = 322, 323
_PHOTOMETRIC = 262
"""A TIFF's tag that says whether nought is white, 0, or black, 1."""
_SUBFILE, _SUBDIRECTORIES = 254, 330
"""Tags that say what a page is, of which an odd one is a smaller copy, and where further pictures lie below it."""
_MOST_ENTRIES = 0xFFFF
"""Entries of a TIFF's directory that libtiff reads at most."""
_MARKER = re.compile(rb"\xff([^\x00\x01\xd0-\xd8\xff])", re.DOTALL)
"""A JPEG's end, or what a segment of a stated length begins with; neither is in a picture's own data."""
_SCAN = b"\xff\xda"
_MOST_SEGMENTS = 10_000
"""Most segments before a JPEG's first scan; large profiles, depth maps and the like take some hundreds."""
_MOST_SCANS = 100
"""Most scans of a JPEG; programs write some twenty. A scan of ten bytes takes a decoder once through the picture."""
_PLAIN_PNM = (b"P1", b"P2", b"P3")
_MOST_COMMENTS = 1000
"""Most comments of a PPM in letters; Pillow copies what is left for each."""
_JPEG_END, _PNG_END = b"\xff\xd9", b"IEND\xaeB`\x82"
_BYTES_OF = {1: 1, 3: 2, 4: 4, 6: 1, 8: 2, 9: 4, 16: 8, 17: 8}
"""Bytes of a TIFF's whole numbers, by type."""


class UnreadableImage(Exception):
    """A picture that is missing, corrupt, truncated, far too large or of unknown range; its text says which."""


class ArrayLike(Protocol):
    """Anything that numpy reads as an array without copying element by element, such as a tensor on the CPU."""

    def __array__(self) -> np.ndarray: ...


Picture = str | os.PathLike[str] | bytes | bytearray | memoryview | BinaryIO | Image.Image | np.ndarray | ArrayLike
"""A file's path, its bytes, the open file, a Pillow image, or an array: (H, W), (H, W, 1), (H, W, 3) in RGB or
(H, W, 4) in RGBA."""


def rgb_pixels(picture: Picture, largest: int = LARGEST) -> np.ndarray:
    """(H, W, 3) uint8 RGB of a picture, as `open_image` decodes it; errors likewise."""
    return np.asarray(open_image(picture, largest).convert("RGB"))


def open_image(picture: Picture, largest: int = LARGEST) -> Image.Image:
    """Decode a picture wholly; see the module's docstring for what becomes of it.

    Args:
        largest: pixels that a file may claim.

    Returns:
        An image in mode L or RGB, upright. `remark_of` tells what was concluded about it.

    Raises:
        UnreadableImage: it is missing, corrupt, truncated, has more than `largest` pixels, or holds values that
            can be read in more than one way. The text begins with the path, if it is one.
    """
    if isinstance(picture, Image.Image):
        return _decoded(picture)
    if isinstance(picture, str | os.PathLike):
        try:
            with Path(picture).open("rb") as file, read_header(file, largest) as image:
                return _decoded(image)
        except (UnreadableImage, OSError, ValueError) as error:
            raise UnreadableImage(f"{os.fspath(picture)}: {reason_of(error)}") from error
    if isinstance(picture, bytes | bytearray | memoryview):
        with read_header(BytesIO(picture), largest) as image:
            return _decoded(image)
    if hasattr(picture, "read"):
        return open_image(_all_of(cast(BinaryIO, picture)), largest)
    if hasattr(picture, "__array__"):
        return _from_array(picture)
    raise UnreadableImage(f"{type(picture).__name__} is no picture; give a path, bytes, a Pillow image or an array")


def remark_of(image: Image.Image) -> str:
    """Assumptions of `open_image` that the file does not state; "" if there are none."""
    return str(image.info.get(_REMARK, ""))


def read_header(file: BinaryIO, largest: int = LARGEST) -> Image.Image:
    """An image that knows its size and none of its pixels yet; `open_image` takes it from there.

    Raises:
        UnreadableImage: as `open_image` says, without a name.
    """
    head = file.read(16)
    file.seek(0)
    if not head:
        raise UnreadableImage("the file is empty")
    try:
        image = _opened(file, head)
    except UnidentifiedImageError as error:
        raise UnreadableImage(_unknown(head)) from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise UnreadableImage(f"has {_too_many(largest)}") from error
    except Exception as error:
        raise UnreadableImage(reason_of(error)) from error
    try:
        _refuse_large(image, largest)
    except Exception as error:
        image.close()
        raise UnreadableImage(reason_of(error)) from error
    return image


def largest_part(image: Image.Image) -> tuple[int, int]:
    """Width and height of what is decoded at once: the image, or a TIFF's tile or an AVIF's frame where that is more.

    Headers say all of them, and decoders make room for a whole tile or frame however small the image is. It must not
    have been loaded.
    """
    within = (0, 0)
    if image.format == "TIFF":
        within = _tile(cast(TiffImagePlugin.TiffImageFile, image))
    elif image.format == "AVIF" and image.tell() == 0:
        file = cast(BinaryIO, cast(ImageFile.ImageFile, image).fp)
        file.seek(0)
        within = largest_frame(file.read())
    return max((image.size, within), key=math.prod)


def _refuse_large(image: Image.Image, largest: int) -> None:
    width, height = largest_part(image)
    if width * height > largest:
        raise UnreadableImage(f"{width} x {height} is {_too_many(largest)}")


def _too_many(largest: int) -> str:
    return f"more than {largest:,} pixels; scale it down"


@dataclass(frozen=True)
class Shown:
    """One of a file's pictures: its pixels, or why it has none; and when it is shown, in seconds from the first."""

    image: Image.Image | None
    seconds: float | None = None
    reason: str = ""


@contextmanager
def pictures_in(path: Path, largest: int = LARGEST) -> Iterator[tuple[int, Iterator[Shown]]]:
    """How many pictures a file holds, and these one after the other; the last one says so where it breaks off.

    Raises:
        UnreadableImage: the header cannot be read.
    """
    try:
        with path.open("rb") as file, read_header(file, largest) as image:
            count = _count(image)
            yield count, _shown(image, count, largest)
    except (OSError, ValueError) as error:
        raise UnreadableImage(reason_of(error)) from error


def _shown(image: Image.Image, count: int, largest: int) -> Iterator[Shown]:
    timed = image.format != "TIFF" and count > 1
    milliseconds = 0.0
    try:
        for frame in ImageSequence.Iterator(image) if count > 1 else [image]:
            _refuse_large(frame, largest)
            decoded = _decoded(frame, alone=False)
            yield Shown(decoded, milliseconds / 1000 if timed else None)
            milliseconds += float(frame.info.get("duration", 0))
    except UnreadableImage as unreadable:
        yield Shown(None, milliseconds / 1000 if timed else None, str(unreadable))
    except Exception as error:  # Seeking decodes, and decoders raise almost anything.
        yield Shown(None, milliseconds / 1000 if timed else None, reason_of(error))


def reason_of(error: Exception) -> str:
    """An exception in a few words."""
    if isinstance(error, FileNotFoundError):
        return "no such file"
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return " ".join(text.split()) or type(error).__name__


def _all_of(file: BinaryIO) -> bytes:
    """An open file from its start, wherever it was read to; a stream that cannot go back, from where it is."""
    try:
        if file.seekable():
            file.seek(0)
        content = file.read()
    except (OSError, ValueError) as error:
        raise UnreadableImage(reason_of(error)) from error
    if not isinstance(content, bytes):
        raise UnreadableImage('the file is open as text; open it with "rb"')
    return content


def _opened(file: BinaryIO, head: bytes) -> Image.Image:
    if head[4:8] == b"ftyp" and head[8:12] in _HEIF_BRANDS:
        return _opened_heif(file)
    if head.startswith(b"\xff\xd8"):
        _refuse_endless(file.read())
        file.seek(0)
    if head.startswith(_PLAIN_PNM):
        if file.read().count(b"#") > _MOST_COMMENTS:
            raise UnreadableImage(f"a PPM of more than {_MOST_COMMENTS:,} comments; save it anew")
        file.seek(0)
    return Image.open(file, formats=_FORMATS)


def _refuse_endless(jpeg: bytes) -> None:
    """Refuse a JPEG that is made to fill its reader's memory, or to keep its decoder busy for hours."""
    segments = takewhile(lambda marker: marker != _SCAN, _markers(jpeg))
    if any(islice(segments, _MOST_SEGMENTS, None)):
        raise UnreadableImage(f"a JPEG of more than {_MOST_SEGMENTS:,} segments; save it anew")
    # Looking through the markers of all takes longer, and what cameras append to a picture may hold any bytes.
    if jpeg.count(_SCAN) > _MOST_SCANS:
        scans = (marker for marker in _markers(jpeg) if marker == _SCAN)
        if any(islice(scans, _MOST_SCANS, None)):
            raise UnreadableImage(f"a JPEG of more than {_MOST_SCANS} scans; save it anew")


def _opened_heif(file: BinaryIO) -> Image.Image:
    """HEIF as its container turns it; what EXIF says beside that is for other programs, unless it stands alone."""
    from pi_heif import HeifImageFile  # Not the plugin, which would change what Pillow opens for everybody.

    _refuse_items_of_no_text(file.read())
    file.seek(0)
    image = cast(Image.Image, HeifImageFile(file))
    orientation = image.info.get("original_orientation")
    if orientation is not None and not _is_turned_by_container(file):
        exif = image.getexif()
        exif[ExifTags.Base.Orientation] = orientation
        image.info["exif"] = exif.tobytes()
    return image


def _refuse_items_of_no_text(heif: bytes) -> None:
    """Refuse a HEIF with an item whose type, name or content type is no UTF-8; pi-heif would end the process."""
    for lists in (inside for name, inside in boxes(memoryview(heif)) if name == b"iinf"):
        for _, item in boxes(lists[8 if any(lists[:1]) else 6 :]):
            told = bytes(item[10 if bytes(item[:1]) > b"\2" else 8 :])
            try:
                told[:4].decode(), told[4:].decode()
            except UnicodeDecodeError as error:
                raise UnreadableImage("a damaged HEIF; save it anew") from error


def _is_turned_by_container(file: BinaryIO) -> bool:
    """Tell whether a HEIF's `meta` box has a property that rotates or mirrors."""
    file.seek(0)
    content = file.read()
    start = content.find(b"meta")
    size = int.from_bytes(content[start - 4 : start], "big")
    properties = content[start : start - 4 + size] if size > 8 else content
    return b"irot" in properties or b"imir" in properties


def _unknown(head: bytes) -> str:
    for signature, name in _SIGNATURES.items():
        if head.startswith(signature):
            return f"a damaged {name}, or of a kind that is not read; save it anew, in 8 bits a channel"
    return "not an image of a known format"


def _count(image: Image.Image, most: int | None = None) -> int:
    """How many pictures a file holds; of pages, no more than `most` are counted.

    Raises:
        UnreadableImage: what is to be read for that is damaged.
    """
    if image.format not in _SEVERAL:
        return 1
    try:
        if not getattr(image, "is_animated", False):
            return 1
        if image.format != "TIFF":
            return int(getattr(image, "n_frames", 1))
        return sum(1 for _ in islice(_pages(cast(TiffImagePlugin.TiffImageFile, image)), most))
    except Exception as error:  # As when decoding, which some formats do here.
        raise UnreadableImage(reason_of(error)) from error


def _pages(image: TiffImagePlugin.TiffImageFile) -> Iterator[int]:
    """Places of a TIFF's directories, one a page; the last one is beyond the end of a file that was cut short.

    Pillow's own count takes time with the square of the pages, and breaks off in the middle of such a file.
    """
    file = cast(BinaryIO, image.fp)
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    head = file.read(16)
    order, is_big = _kind_of_tiff(head)
    of_count, of_entry, of_place = (8, 20, 8) if is_big else (2, 12, 4)
    place = int.from_bytes(head[8:16] if is_big else head[4:8], order)
    seen: set[int] = set()
    while place and place not in seen:
        yield place
        seen.add(place)
        file.seek(min(place, size))
        follows = place + of_count + int.from_bytes(file.read(of_count), order) * of_entry
        file.seek(min(follows, size))
        place = int.from_bytes(file.read(of_place), order)


def _kind_of_tiff(head: bytes) -> tuple[Literal["little", "big"], bool]:
    """The order of a TIFF's bytes, and whether it is a BigTIFF."""
    return "little" if head.startswith(b"II") else "big", b"+" in head[2:4]


def _tile(image: TiffImagePlugin.TiffImageFile) -> tuple[int, int]:
    """Width and height of the current page's tiles; nought for a page in strips.

    They are read as libtiff reads them, and the greatest counts: of an entry that is there twice, Pillow knows the
    last one, and libtiff takes the first.
    """
    file = cast(BinaryIO, image.fp)
    file.seek(0)
    order, is_big = _kind_of_tiff(file.read(16))
    of_count, of_entry, of_value = (8, 20, 8) if is_big else (2, 12, 4)
    file.seek(image.tag_v2.offset or 0)
    count = min(int.from_bytes(file.read(of_count), order), _MOST_ENTRIES)
    entries = file.read(count * of_entry)
    sides = {_TILE_WIDTH: 0, _TILE_LENGTH: 0}
    for start in range(0, len(entries), of_entry):
        tag, kind = (int.from_bytes(entries[start + at : start + at + 2], order) for at in (0, 2))
        if tag in sides and kind in _BYTES_OF:
            value = entries[start + of_entry - of_value : start + of_entry]
            if _BYTES_OF[kind] > of_value:
                file.seek(int.from_bytes(value, order))
                value = file.read(_BYTES_OF[kind])
            sides[tag] = max(sides[tag], int.from_bytes(value[: _BYTES_OF[kind]], order))
    return sides[_TILE_WIDTH], sides[_TILE_LENGTH]


def _decoded(image: Image.Image, *, alone: bool = True) -> Image.Image:
    """Upright and in eight bits; `alone` where other pictures of the file are left aside."""
    try:
        if not image.width * image.height:
            raise UnreadableImage("it has no pixels")
        several = _count(image, _COUNTED + 1) if alone else 1
        _refuse_preview(image, alone=alone)
        is_deep, is_negative = _is_deep(image), _is_negative(image)
        _refuse_zeros(image)
        image.load()
        upright = ImageOps.exif_transpose(image)
        if is_deep:
            _refuse_lost_bits(upright)
        decoded = _eight_bits(upright)
        if is_negative:
            decoded = ImageOps.invert(decoded)
    except UnreadableImage:
        raise
    except Exception as error:  # Pillow's decoders raise almost anything on bytes made to break them.
        raise UnreadableImage(reason_of(error)) from error
    if several > 1:
        told = several if several <= _COUNTED else f"more than {_COUNTED:,}"
        _remark(decoded, f"the first of {told} pictures in the file")
    return decoded


def _remark(image: Image.Image, remark: str) -> None:
    """Add what was concluded to what was before."""
    image.info[_REMARK] = "; ".join(filter(None, (remark_of(image), remark)))


def _refuse_preview(image: Image.Image, *, alone: bool) -> None:
    """Refuse a TIFF's smaller copy of a picture that is not read; a camera's raw file (DNG, NEF) shows no other."""
    tags = getattr(image, "tag_v2", {})
    if tags.get(_SUBFILE, 0) & 1 and (alone or _SUBDIRECTORIES in tags):
        raise UnreadableImage(
            "its first picture is but a preview of another, as in a camera's raw file; save that one as JPEG or PNG"
        )


def _refuse_zeros(image: Image.Image) -> None:
    """Refuse a JPEG or a PNG without an end that zeros fill up; decoders take them for pixels, and say nothing.

    What phones append stands behind the end.
    """
    file = cast(BinaryIO | None, getattr(image, "fp", None))
    if image.format not in ("JPEG", "MPO", "PNG") or file is None:
        return
    file.seek(-1, os.SEEK_END)
    if file.read() == b"\0":
        file.seek(0)
        if not _has_end(file.read()):
            raise UnreadableImage("its end is missing, with zeros in its place; copy or download it anew")


def _has_end(content: bytes) -> bool:
    """Tell whether a JPEG's or a PNG's end is there."""
    return _PNG_END in content if content.startswith(b"\x89PNG") else _JPEG_END in _markers(content)


def _markers(content: bytes) -> Iterator[bytes]:
    """A JPEG's markers up to its end; those of a thumbnail in one of its segments do not count."""
    place = 0
    while marker := _MARKER.search(content, place):
        yield marker[0]
        if marker[0] == _JPEG_END:
            return
        place = marker.end() + int.from_bytes(content[marker.end() : marker.end() + 2], "big")


def _is_deep(image: Image.Image) -> bool:
    """Colour of 16 bits a channel, of which Pillow keeps the upper eight."""
    if any(tile[0].startswith("ppm") and tile[3] == ("RGB", 2**16 - 1) for tile in getattr(image, "tile", ())):
        return True
    arguments = [tile[3] for tile in getattr(image, "tile", ())]
    modes = [given[0] if isinstance(given, tuple) and given else given for given in arguments]
    return not image.mode.startswith("I") and any(";16" in mode for mode in modes if isinstance(mode, str))


def _is_negative(image: Image.Image) -> bool:
    """A TIFF in which nought is white, and which Pillow leaves so: it turns eight bits around, and no more."""
    tags = getattr(image, "tag_v2", {})
    return image.mode.startswith(("I", "F")) and tags.get(_PHOTOMETRIC) == 0


def _refuse_lost_bits(image: Image.Image) -> None:
    brightest = _brightest(image)
    if brightest <= _LOST_BITS:
        # Pillow rounds what a PPM holds, and cuts off what others do.
        used = 8 + max(0, brightest - 1).bit_length()
        raise UnreadableImage(f"colour of 16 bits a channel, of which {used} are used; save it in 8 bits a channel")


def _brightest(image: Image.Image) -> int:
    """The least value of eight bits above which there are only as many as hot pixels may take."""
    counts = _counts(image)
    above = counts.sum() - np.cumsum(counts)
    return int(np.argmax(above <= _HOT * counts.sum()))


def _counts(image: Image.Image) -> np.ndarray:
    """(256,) how often colours have each value, in pixels that are not wholly transparent, or in all if no other is.

    Pillow counts: numpy would first make eight bytes of each value, which a picture as large as may be has no room for.
    """
    alpha = image.convert("RGBA").getchannel("A") if image.has_transparency_data else None
    seen = alpha if alpha is not None and alpha.getbbox() else None
    counts: np.ndarray = np.reshape(image.convert("RGB").histogram(seen), (-1, 256)).sum(axis=0)
    return counts


def _eight_bits(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I") or image.mode == "F":
        return _grey_of(np.asarray(image), image.info)
    mode = "L" if image.mode in ("L", "1", "LA", "La") else "RGB"
    if not image.has_transparency_data:
        return image.convert(mode)
    colours = image.convert("RGBA")
    if colours.getchannel("A").getextrema() == (0, 0):
        decoded = colours.convert("RGB").convert(mode)
        _remark(decoded, _UNUSED_ALPHA)
        return decoded
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), colours).convert(mode)


def _grey_of(values: np.ndarray, info: dict[str | tuple[int, int], object]) -> Image.Image:
    pixels, remark = in_eight_bits(values)
    image = Image.fromarray(pixels)
    image.info.update({_REMARK: remark or info.get(_REMARK, "")})
    return image


def _from_array(given: object) -> Image.Image:
    try:
        array = np.asarray(given)
    except Exception as error:  # A tensor on a GPU, or one that wants a gradient, has reasons of its own.
        raise UnreadableImage(f"{type(given).__name__} does not become an array ({reason_of(error)})") from error
    _check_shape(array)
    pixels, remark = _with_alpha(array) if array.shape[2:] == (4,) else in_eight_bits(array)
    if pixels.ndim == 3 and pixels.shape[2] == 1:
        pixels = pixels[..., 0]
    image = _eight_bits(Image.fromarray(np.ascontiguousarray(pixels)))
    if remark:
        _remark(image, remark)
    return image


def _with_alpha(array: np.ndarray) -> tuple[np.ndarray, str]:
    """The same as `in_eight_bits` for (H, W, 4), where alpha has a range of its own and hidden colours have none."""
    colours, alpha = array[..., :3], array[..., 3:]
    pixels, remark = in_eight_bits(colours * (alpha > 0) if alpha.any() else colours)
    return np.dstack([pixels, in_eight_bits(alpha)[0]]), remark


def _check_shape(array: np.ndarray) -> None:
    told = f"an array of {array.dtype} and shape {array.shape}"
    if array.dtype.kind not in "buif":
        raise UnreadableImage(f"{told}: give whole numbers or floats")
    is_last = array.ndim == 3 and array.shape[2] in (1, 3, 4)
    if array.ndim == 3 and not is_last and array.shape[0] in (1, 3, 4):
        raise UnreadableImage(f"{told} has its channels first: give (H, W, 3), that is array.transpose(1, 2, 0)")
    if array.ndim == 4:
        raise UnreadableImage(f"{told} is a batch: give its pictures one by one")
    if array.ndim != 2 and not is_last:
        raise UnreadableImage(f"{told}: give (H, W), (H, W, 1), (H, W, 3) in RGB or (H, W, 4) in RGBA")
    if not array.size:
        raise UnreadableImage(f"{told} has no pixels")


def in_eight_bits(values: np.ndarray) -> tuple[np.ndarray, str]:
    """Pixels of any range in 0..255, and what was concluded about that range.

    Args:
        values: (H, W) or (H, W, C) of whole numbers, floats or truth values.

    Returns:
        uint8 of the same shape; a sentence, or "" where the type alone says the range.

    Raises:
        UnreadableImage: negative or not finite values, floats that go beyond 1 and, hot pixels apart, not to 16, or
            beyond 255 with fractions, or whole numbers that are 0 and 1 alone.
    """
    if values.dtype == np.uint8:
        return values, ""
    if values.dtype == bool:
        return values.astype(np.uint8) * 255, ""
    low, high = float(values.min()), float(values.max())
    if not (math.isfinite(low) and math.isfinite(high)):
        raise UnreadableImage("it holds values that are no finite numbers")
    is_float = values.dtype.kind == "f"
    if low < (-_UNSEEN if is_float else 0):
        raise UnreadableImage(f"it holds negative values (down to {low:g}); give 0..255, or floats in 0..1")
    if is_float and high < 1 + _UNSEEN:
        return np.round(np.clip(values, 0, 1) * 255.0).astype(np.uint8), ""
    if high == 1 or (is_float and _most(values, _AMBIGUOUS)):
        raise UnreadableImage(f"values up to {high:g} are neither floats in 0..1 nor 0..255; scale them to one")
    if is_float and high <= 255:
        return np.round(np.clip(values, 0, 255)).astype(np.uint8), ""
    if is_float and (values != np.floor(values)).any():
        raise UnreadableImage(f"values up to {high:g} are neither floats in 0..1 nor 0..255; scale them to one")
    return _shifted(values, high)


def _shifted(values: np.ndarray, high: float) -> tuple[np.ndarray, str]:
    """The upper eight of as many bits as are used."""
    if high >= 2 ** _DEPTHS[-1]:
        raise UnreadableImage(f"it holds values up to {high:g}; give 0..255, or floats in 0..1")
    bits = next(depth for depth in _DEPTHS if _most(values, 2**depth))
    held = 8 * values.dtype.itemsize
    # Whole numbers in 0..255 are what numpy and Python count in 32 or 64 bits without being asked.
    is_usual = bits == held or (bits == 8 and held > 16)
    remarks = [] if is_usual else [f"{bits} of {held} bits are used, and scaled to 8"]
    if high >= 2**bits:
        remarks.append(_SPOTS)
    within = np.minimum(values.astype(np.uint64), np.uint64(2**bits - 1))
    return (within >> np.uint64(bits - 8)).astype(np.uint8), "; ".join(remarks)


def _most(values: np.ndarray, bound: float) -> bool:
    """Tell whether no more of the values reach a bound than hot pixels may take."""
    return bool(np.count_nonzero(values >= bound) <= _HOT * values.size)
