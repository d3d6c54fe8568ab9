"""What the timed parts of `fer_core` are given: made-up images and links, and settings without pydantic.

Needs torch and numpy alone.
"""

from dataclasses import dataclass

import numpy as np
import torch

CLASSES = 7
STORED = 100
"""Side of a stored image in pixels, RAF-DB's."""
MEAN, STD = (0.575, 0.449, 0.401), (0.207, 0.190, 0.181)


@dataclass(frozen=True)
class Augmentation:
    """What `fer_core.data.views` reads of an experiment's `[augment]`, with its values of the start."""

    crop_area: tuple[float, float] = (0.08, 1.0)
    crop_ratio: tuple[float, float] = (3 / 4, 4 / 3)
    flip: float = 0.5


@dataclass(frozen=True)
class Links:
    """What `fer_core.train.objectives` reads of a graph: (N, k) row numbers and similarities."""

    neighbours: np.ndarray
    similarity: np.ndarray


def smooth_images(count: int, seed: int = 1) -> np.ndarray:
    """(count, 100, 100, 3) uint8, about as smooth as faces, which is what decoding a JPEG takes its time by."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, 3, 12, 12, generator=generator) * 255
    pixels = torch.nn.functional.interpolate(coarse, size=(STORED, STORED), mode="bicubic")
    grain = torch.randn(pixels.shape, generator=generator) * 4
    return (pixels + grain).clamp(0, 255).byte().permute(0, 2, 3, 1).contiguous().numpy()


def random_links(count: int, k: int, seed: int = 1) -> Links:
    """k other images of every image; which they are does not change what they cost."""
    first = np.random.default_rng(seed).integers(0, count - 1, (count, 1))
    neighbours = ((np.arange(count)[:, None] + 1 + (first + np.arange(k)) % (count - 1)) % count).astype(np.int32)
    return Links(neighbours, np.full((count, k), 0.5, np.float32))


def distributions(count: int, seed: int = 1) -> torch.Tensor:
    """(count, 7) soft labels: rows sum to 1."""
    return torch.rand(count, CLASSES, generator=torch.Generator().manual_seed(seed)).softmax(dim=1)
