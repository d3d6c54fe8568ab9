"""Views of images: the distribution of crops, flips, sizes and normalisation."""

import math

import numpy as np
import pytest
import torch

from fer_core.augment import Views, random_crops
from fer_core.experiment import AugmentSettings

CPU = torch.device("cpu")


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(1)


def test_crops_have_the_area_and_ratio_asked_for_and_lie_inside() -> None:
    settings = AugmentSettings(crop_area=(0.3, 0.9), crop_ratio=(0.75, 4 / 3))
    crops = random_crops(5000, settings, generator())
    centre, half = crops[:, :2], crops[:, 2:]
    assert (centre.abs() + half <= 1 + 1e-6).all()
    area, ratio = half.prod(dim=1), half[:, 0] / half[:, 1]
    assert area.min() >= 0.3
    assert area.max() <= 0.9
    assert (ratio >= 0.75 - 1e-5).all()
    assert (ratio <= 4 / 3 + 1e-5).all()
    assert ratio.log().mean().abs() < 0.02
    # A uniform area has this mean; the tries that do not fit are few at the large end.
    assert area.mean().item() == pytest.approx(0.6, abs=0.03)


def test_a_crop_that_never_fits_is_the_whole_image() -> None:
    crops = random_crops(10, AugmentSettings(crop_area=(1.0, 1.0), crop_ratio=(2.0, 2.0)), generator())
    torch.testing.assert_close(crops, torch.tensor([0.0, 0.0, 1.0, 1.0]).expand(10, 4))


@pytest.mark.parametrize("channels", [1, 3])
def test_the_whole_image_unflipped_is_the_plain_view(channels: int) -> None:
    images = np.random.default_rng(1).integers(0, 256, (4, 32, 32, channels), dtype=np.uint8)
    views = Views(images, (0.4,) * channels, (0.2,) * channels, 32, CPU)
    rows = np.array([2, 0])
    settings = AugmentSettings(crop_area=(1.0, 1.0), crop_ratio=(1.0, 1.0), flip=0.0)
    plain = views.plain(rows)
    expected = (torch.from_numpy(images[rows]).permute(0, 3, 1, 2) / 255 - 0.4) / 0.2
    assert plain.shape == (2, 3, 32, 32)
    torch.testing.assert_close(plain, expected.expand(-1, 3, -1, -1).float(), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(views.random(rows, settings, generator()), plain, atol=1e-4, rtol=1e-3)
    mirrored = views.random(rows, AugmentSettings((1.0, 1.0), (1.0, 1.0), flip=1.0), generator())
    torch.testing.assert_close(mirrored, plain.flip(3), atol=1e-4, rtol=1e-3)


def test_half_of_the_images_are_mirrored() -> None:
    ramp = np.broadcast_to(np.arange(0, 256, 16, dtype=np.uint8)[None, None, :, None], (400, 16, 16, 1))
    views = Views(np.ascontiguousarray(ramp), (0.0,), (1.0,), 16, CPU)
    seen = views.random(np.arange(400), AugmentSettings((0.5, 1.0)), generator())
    mirrored = (seen[:, 0, 8, 0] > seen[:, 0, 8, -1]).float().mean().item()
    assert mirrored == pytest.approx(0.5, abs=3 * math.sqrt(0.25 / 400))


def test_a_crop_shows_the_part_it_says() -> None:
    """Every pixel carries its own column: the crop's columns must span what the crop's box says."""
    columns = np.broadcast_to(np.arange(200, dtype=np.uint8)[None, None, :, None], (50, 200, 200, 1))
    views = Views(np.ascontiguousarray(columns), (0.0,), (1 / 255,), 64, CPU)
    settings = AugmentSettings((0.2, 0.5), (1.0, 1.0), flip=0.0)
    seen = views.random(np.arange(50), settings, generator())
    crops = random_crops(50, settings, generator())
    left = 100 * (1 + crops[:, 0] - crops[:, 2])
    right = 100 * (1 + crops[:, 0] + crops[:, 2])
    pixel = (right - left) / 64
    torch.testing.assert_close(seen[:, 0, 32, 0], left + pixel / 2 - 0.5, atol=0.6, rtol=0)
    torch.testing.assert_close(seen[:, 0, 32, -1], right - pixel / 2 - 0.5, atol=0.6, rtol=0)
