"""Views of stored images: random crop, flip and resize of a batch in one sampling, and the plain view."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from fer_core.experiment import AugmentSettings

_CROP_TRIES = 10


def random_crops(count: int, settings: AugmentSettings, generator: Generator) -> Tensor:
    """Boxes of torchvision's RandomResizedCrop: area uniform, logarithm of the ratio uniform, ten tries.

    Returns:
        (count, 4): centre x, centre y, half width, half height, of an image that spans −1..1.
    """
    area = torch.empty(count, _CROP_TRIES).uniform_(*settings.crop_area, generator=generator)
    low, high = (math.log(ratio) for ratio in settings.crop_ratio)
    ratio = torch.empty(count, _CROP_TRIES).uniform_(low, high, generator=generator).exp()
    width, height = (area * ratio).sqrt(), (area / ratio).sqrt()
    fits = (width <= 1) & (height <= 1)
    first = fits.int().argmax(dim=1, keepdim=True)
    half = torch.cat((width.gather(1, first), height.gather(1, first)), dim=1)
    half = torch.where(fits.any(dim=1, keepdim=True), half, torch.ones_like(half))
    centre = (torch.rand(count, 2, generator=generator) * 2 - 1) * (1 - half)
    return torch.cat((centre, half), dim=1)


@dataclass(frozen=True)
class Views:
    """Turns rows of a dataset into normalised network input.

    images: (N, S, S, C) uint8, memory-mapped, C = 1 or 3
    mean, std: by channel, of pixels in 0..1
    size: side of the network's input in pixels
    """

    images: np.ndarray
    mean: tuple[float, ...]
    std: tuple[float, ...]
    size: int
    device: torch.device

    def plain(self, rows: np.ndarray) -> Tensor:
        """The images as they are, resized: (len(rows), 3, size, size)."""
        pixels = self._pixels(rows)
        if pixels.shape[-1] != self.size:
            pixels = F.interpolate(pixels, size=(self.size, self.size), mode="bilinear", antialias=True)
        return self._normalised(pixels)

    def random(self, rows: np.ndarray, settings: AugmentSettings, generator: Generator) -> Tensor:
        """A random crop of each image, resized, every second mirrored: (len(rows), 3, size, size)."""
        crops = random_crops(len(rows), settings, generator)
        mirrored = torch.rand(len(rows), generator=generator) < settings.flip
        affine = torch.zeros(len(rows), 2, 3)
        affine[:, 0, 0] = torch.where(mirrored, -crops[:, 2], crops[:, 2])
        affine[:, 1, 1] = crops[:, 3]
        affine[:, :, 2] = crops[:, :2]
        pixels = self._pixels(rows)
        grid = F.affine_grid(
            affine.to(self.device), [len(rows), pixels.shape[1], self.size, self.size], align_corners=False
        )
        return self._normalised(F.grid_sample(pixels, grid, padding_mode="border", align_corners=False))

    def _pixels(self, rows: np.ndarray) -> Tensor:
        """(len(rows), C, S, S) float32 in 0..255."""
        stored = torch.from_numpy(self.images[rows]).to(self.device)
        return stored.permute(0, 3, 1, 2).float()

    def _normalised(self, pixels: Tensor) -> Tensor:
        mean = torch.tensor(self.mean, device=self.device).view(1, -1, 1, 1) * 255
        std = torch.tensor(self.std, device=self.device).view(1, -1, 1, 1) * 255
        normalised = ((pixels - mean) / std).expand(-1, 3, -1, -1)
        return normalised.contiguous(memory_format=torch.channels_last)
