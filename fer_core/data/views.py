"""Views of stored images: a random crop, mirrored or not, resized; and the plain view.

Views are made from the bytes as they are stored. The distribution is that of
torchvision's RandomResizedCrop and RandomHorizontalFlip. What is random is drawn on the CPU, so that a seed
means the same on every device. Needs torch and numpy alone.
"""

from __future__ import annotations

import math
import mmap
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Generator, Tensor
from torch.nn import functional as F

if TYPE_CHECKING:
    from fer_core.experiment import AugmentSettings

Rows = np.ndarray | Tensor
"""(B,) int64 row numbers of images."""
_CROP_TRIES = 10
_SHARE_OF_GPU = 0.25
"""Share of the GPU's free memory that stored images may take."""
_BATCHES_AHEAD = 2
"""Batches read ahead if the GPU has no room for all images."""
_IN_CACHE = 4
"""Images normalised at a time on a CPU."""


def random_boxes(count: int, side: int, settings: AugmentSettings, generator: Generator) -> Tensor:
    """Boxes of RandomResizedCrop: area uniform, logarithm of the ratio uniform, ten tries, else the whole image.

    Args:
        side: of the square images, in pixels.

    Returns:
        (count, 4) int64: left, top, right, bottom, in whole pixels of 0..side.
    """
    # Ten tries for each image at once, (count, 10); the first that fits is taken.
    area = torch.empty(count, _CROP_TRIES).uniform_(*settings.crop_area, generator=generator) * side**2
    low, high = (math.log(ratio) for ratio in settings.crop_ratio)
    ratio = torch.empty(count, _CROP_TRIES).uniform_(low, high, generator=generator).exp()
    width, height = (area * ratio).sqrt().round().long(), (area / ratio).sqrt().round().long()
    fits = (width > 0) & (width <= side) & (height > 0) & (height <= side)
    first = fits.int().argmax(dim=1, keepdim=True)
    size = torch.cat((width.gather(1, first), height.gather(1, first)), dim=1)
    size = torch.where(fits.any(dim=1, keepdim=True), size, side)  # (count, 2): width, height
    # Every corner from which the box stays inside is as likely.
    corner = (torch.rand(count, 2, generator=generator) * (side - size + 1)).long()
    return torch.cat((corner, corner + size), dim=1)


@dataclass(frozen=True)
class Crops:
    """How each image of a batch is varied."""

    boxes: Tensor
    """(B, 4) int64, left, top, right, bottom in whole pixels."""
    mirrored: Tensor
    """(B,) bool; an image is mirrored first, then its box is cut out."""


def draw_crops(count: int, side: int, settings: AugmentSettings, generator: Generator) -> Crops:
    """A random crop for each of `count` square images, `side` pixels wide, and which of them are mirrored."""
    boxes = random_boxes(count, side, settings, generator)
    return Crops(boxes, torch.rand(count, generator=generator) < settings.flip)


def resize(image: Tensor, box: Sequence[int], size: int) -> Tensor:
    """Resize an image's box to size × size. Bytes stay bytes; shrinking is antialiased, as in Pillow's bilinear filter.

    Args:
        image: (1, C, S, S) uint8; quickest with channels last, which torch sees only of a batch, if of one.
        box: left, top, right, bottom.
    """
    left, top, right, bottom = box
    return F.interpolate(image[:, :, top:bottom, left:right], size=(size, size), mode="bilinear", antialias=True)


def resize_together(pixels: Tensor, boxes: Tensor, size: int) -> Tensor:
    """Crop all images at once, for a GPU, without rounding to bytes in between.

    Args:
        pixels: (B, C, S, S) uint8.
        boxes: (B, 4) left, top, right, bottom.

    Returns:
        (B, C, size, size) float32 in 0..255.
    """
    low, high = (part.to(pixels.device, torch.float32) for part in (boxes[:, :2], boxes[:, 2:]))
    columns, rows = _bilinear(low, high, pixels.shape[-1], size).unsqueeze(2).unbind(dim=1)  # (B, 1, size, S) each
    # Resizing is separable: (size, S) @ (S, S) @ (S, size), in float32 since bytes have more digits than bfloat16.
    with torch.autocast(pixels.device.type, enabled=False):
        return rows @ pixels.float() @ columns.transpose(2, 3)


def _bilinear(low: Tensor, high: Tensor, side: int, size: int) -> Tensor:
    """(B, 2, size, side): what each of `side` pixels weighs in each of `size` between low and high, (B, 2)."""
    scale = ((high - low) / size)[..., None, None]
    low, high = low[..., None, None], high[..., None, None]
    # Pixels have their centres at .5; `at` is where each output pixel looks in the input.
    centre = torch.arange(side, device=low.device) + 0.5
    at = low + (torch.arange(size, device=low.device)[:, None] + 0.5) * scale
    # A triangle, as wide as the shrinking asks for: that is the antialiasing.
    weight = (1 - (centre - at).abs() / scale.clamp(min=1)).clamp(min=0)
    # Nothing outside of the box counts, and what is left sums to 1.
    weight = torch.where((centre > low) & (centre < high), weight, 0)
    return weight / weight.sum(dim=-1, keepdim=True)


def on_device(images: np.ndarray, device: torch.device) -> np.ndarray | Tensor:
    """Copy the images to a GPU that has room for them; otherwise leave them as they are."""
    if device.type != "cuda" or images.nbytes > _SHARE_OF_GPU * torch.cuda.mem_get_info(device)[0]:
        return images
    return torch.from_numpy(np.array(images)).to(device)


@dataclass(frozen=True)
class Views:
    """Turns rows of a dataset into normalised network input."""

    images: np.ndarray | Tensor
    """(N, S, S, C) uint8, C = 1 or 3: memory-mapped, or a tensor on the device, see `on_device`."""
    mean: tuple[float, ...]
    """Mean of pixels in 0..1, by channel."""
    std: tuple[float, ...]
    """Their standard deviation, by channel."""
    size: int
    """Side of the network's input in pixels."""
    device: torch.device
    dtype: torch.dtype = torch.float32
    """The input's; bfloat16 is what autocast makes of it at the first convolution anyway, in half the memory."""
    _lines: dict[int, tuple[Tensor, Tensor]] = field(default_factory=dict, init=False, repr=False, compare=False)
    """Kept as a buffer: making a tensor copies to the device, which a captured step may not do."""

    @property
    def resident(self) -> bool:
        """True if the images are on the device, or the device is the CPU."""
        return isinstance(self.images, Tensor) or self.device.type == "cpu"

    def plain(self, rows: Rows) -> Tensor:
        """The whole images, resized: (len(rows), 3, size, size)."""
        pixels = self.stored(rows)
        if pixels.shape[-1] != self.size:
            pixels = F.interpolate(pixels.float(), size=(self.size, self.size), mode="bilinear", antialias=True)
        return self._normalised(pixels)

    def random(self, rows: Rows, settings: AugmentSettings, generator: Generator) -> Tensor:
        """A random crop of each image, resized, a share `settings.flip` mirrored: (len(rows), 3, size, size)."""
        return self.varied(self.stored(rows), draw_crops(len(rows), self.images.shape[1], settings, generator))

    def stored(self, rows: Rows) -> Tensor:
        """The images' bytes on the device: (len(rows), C, S, S) uint8, channels last in memory."""
        if isinstance(self.images, Tensor):
            return self.images[torch.as_tensor(rows, device=self.device)].permute(0, 3, 1, 2)
        pixels = torch.from_numpy(self.images[np.asarray(rows)])
        _release_pages(self.images)
        return pixels.to(self.device).permute(0, 3, 1, 2)

    def sent_ahead(self, batches: Sequence[np.ndarray]) -> Iterator[Tensor]:
        """Yield `stored` batch by batch; the next batch is read and sent while this one is used."""
        with ThreadPoolExecutor(1, "pixels") as thread:
            upcoming: deque[Future[Tensor]] = deque()
            for rows in batches:
                upcoming.append(thread.submit(self._send, rows))
                if len(upcoming) > _BATCHES_AHEAD:
                    yield upcoming.popleft().result()
            while upcoming:  # the last ones
                yield upcoming.popleft().result()

    def _send(self, rows: np.ndarray) -> Tensor:
        assert isinstance(self.images, np.ndarray)
        pixels = torch.from_numpy(self.images[rows])
        _release_pages(self.images)
        return pixels.pin_memory().to(self.device, non_blocking=True).permute(0, 3, 1, 2)

    def varied(self, pixels: Tensor, crops: Crops) -> Tensor:
        """Stored bytes (B, C, S, S) cropped, mirrored, resized and normalised: (B, 3, size, size)."""
        if self.device.type == "cpu":
            return self._one_by_one(pixels, crops.boxes, crops.mirrored)
        pixels = torch.where(crops.mirrored[:, None, None, None].to(self.device), pixels.flip(3), pixels)
        return self._normalised(resize_together(pixels, crops.boxes, self.size))

    def _one_by_one(self, pixels: Tensor, boxes: Tensor, mirrored: Tensor) -> Tensor:
        """The CPU's fast path: each image stays in cache from its bytes to its place in the batch."""
        channels = pixels.shape[1]
        mean, std = self._of_a_line(channels)
        views = torch.empty(len(pixels), self.size, self.size, 3, dtype=self.dtype)
        # The same memory twice: one line after the other to normalise it, pixel by pixel to fill and to read it.
        lines = torch.empty(self.size, self.size * channels)
        pixel_by_pixel = lines.view(self.size, self.size, channels)
        for image, box, mirror, view in zip(
            pixels.chunk(len(pixels)), boxes.tolist(), mirrored.tolist(), views, strict=True
        ):
            resized = resize(image.flip(3) if mirror else image, box, self.size)
            pixel_by_pixel.copy_(resized[0].permute(1, 2, 0))
            lines.sub_(mean).div_(std)
            view.copy_(pixel_by_pixel)
        return views.permute(0, 3, 1, 2)

    def _normalised(self, pixels: Tensor) -> Tensor:
        """(B, 3, size, size), channels last in memory; normalising whole lines is what makes it fast."""
        images = pixels.expand(-1, 3, -1, -1).permute(0, 2, 3, 1).contiguous()
        mean, std = self._of_a_line(3)
        normalised = torch.empty(len(images), self.size, self.size * 3, dtype=self.dtype, device=self.device)
        at_once = len(images) if self.device.type == "cuda" else _IN_CACHE
        for start in range(0, len(images), at_once):
            lines = images[start : start + at_once].flatten(2).float()
            normalised[start : start + at_once] = lines.sub_(mean).div_(std)
        return normalised.view(images.shape).permute(0, 3, 1, 2)

    def _of_a_line(self, channels: int) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of each value of a line of `channels`, in 0..255."""
        if channels not in self._lines:
            mean, std = (
                torch.tensor(values, device=self.device).expand(channels).repeat(self.size) * 255
                for values in (self.mean, self.std)
            )
            self._lines[channels] = mean, std
        return self._lines[channels]


def _release_pages(images: np.ndarray) -> None:
    """Give back the pages of a memory map that were read: kept, they would in time be the whole file, and count as
    ours."""
    if isinstance(images, np.memmap) and isinstance(images.base, mmap.mmap):
        images.base.madvise(mmap.MADV_DONTNEED)
