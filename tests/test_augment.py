"""Views of images: the distribution of crops, flips, sizes and normalisation."""

import importlib
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.stats import ks_2samp

from fer_core.data.views import Views, on_device, random_boxes, resize, resize_together
from fer_core.experiment import AugmentSettings
from fer_core.models.torchvision_import import torchvision_models

CPU = torch.device("cpu")


def faces() -> np.ndarray:
    """(8, 90, 90, 3) smooth pictures, as photographs are."""
    coarse = np.random.default_rng(1).integers(0, 256, (8, 9, 9, 3), dtype=np.uint8)
    return np.stack([np.asarray(Image.fromarray(image).resize((90, 90), Image.Resampling.BICUBIC)) for image in coarse])


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(1)


def test_boxes_are_those_of_random_resized_crop() -> None:
    """Compared with torchvision's own draws: edges and sizes have the same distribution."""
    settings = AugmentSettings(crop_area=(0.08, 1.0), crop_ratio=(0.75, 4 / 3))
    boxes = random_boxes(4000, 100, settings, generator()).numpy()
    torchvision_models()
    transforms = importlib.import_module("torchvision.transforms")
    image = torch.zeros(3, 100, 100)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        drawn = np.array(
            [transforms.RandomResizedCrop.get_params(image, [0.08, 1.0], [0.75, 4 / 3]) for _ in range(4000)]
        )
    top, left, height, width = drawn.T
    ours = {
        "left": boxes[:, 0],
        "top": boxes[:, 1],
        "width": boxes[:, 2] - boxes[:, 0],
        "height": boxes[:, 3] - boxes[:, 1],
    }
    ours["area"] = ours["width"] * ours["height"]
    theirs = {"left": left, "top": top, "width": width, "height": height, "area": width * height}
    for name, values in ours.items():
        assert ks_2samp(values, theirs[name]).pvalue > 0.001, name
    assert boxes.min() >= 0
    assert boxes.max() <= 100


def test_a_crop_that_never_fits_is_the_whole_image() -> None:
    boxes = random_boxes(10, 40, AugmentSettings(crop_area=(1.0, 1.0), crop_ratio=(2.0, 2.0)), generator())
    torch.testing.assert_close(boxes, torch.tensor([0, 0, 40, 40]).expand(10, 4))


@pytest.mark.parametrize(("box", "size"), [((3, 10, 60, 80), 96), ((0, 0, 90, 90), 48), ((5, 5, 45, 70), 64)])
def test_a_box_resized_is_what_pillow_makes_of_it(box: tuple[int, int, int, int], size: int) -> None:
    image = faces()[0]
    ours = resize(torch.from_numpy(image)[None].permute(0, 3, 1, 2), box, size)
    theirs = Image.fromarray(image).crop(box).resize((size, size), Image.Resampling.BILINEAR)
    assert np.abs(ours[0].permute(1, 2, 0).numpy().astype(int) - np.asarray(theirs).astype(int)).max() <= 1


@pytest.mark.parametrize("size", [96, 64, 24])
@pytest.mark.parametrize("channels", [1, 3])
def test_the_resizing_of_a_gpu_is_that_of_a_cpu(channels: int, size: int) -> None:
    pixels = torch.from_numpy(faces()).permute(0, 3, 1, 2)[:, :channels]
    boxes = random_boxes(len(pixels), 90, AugmentSettings((0.2, 0.8)), generator())
    together = resize_together(pixels, boxes, size)
    each = torch.cat([resize(image, box, size) for image, box in zip(pixels.split(1), boxes.tolist(), strict=True)])
    assert (together - each.float()).abs().max() <= 1.01
    assert (together - each.float()).abs().mean() <= 0.35


@pytest.mark.parametrize("channels", [1, 3])
def test_a_random_view_is_its_box_mirrored_resized_and_normalised(channels: int) -> None:
    images, mean, std = faces()[..., :channels], (0.5, 0.4, 0.3)[:channels], (0.2, 0.3, 0.25)[:channels]
    settings, rows = AugmentSettings((0.2, 0.9)), np.array([3, 1, 6, 0, 2])
    views = Views(images, mean, std, 64, CPU).random(rows, settings, generator())
    draws = generator()
    boxes = random_boxes(len(rows), 90, settings, draws).tolist()
    mirrored = (torch.rand(len(rows), generator=draws) < settings.flip).tolist()
    assert len(set(mirrored)) == 2
    assert views.is_contiguous(memory_format=torch.channels_last)
    for view, row, box, mirror in zip(views, rows, boxes, mirrored, strict=True):
        stored = Image.fromarray(np.ascontiguousarray(images[row, :, ::-1] if mirror else images[row]).squeeze())
        pixels = np.asarray(stored.crop(box).resize((64, 64), Image.Resampling.BILINEAR)).reshape(64, 64, channels)
        expected = (pixels / 255 - np.array(mean)) / np.array(std)
        assert np.abs(view.permute(1, 2, 0).numpy() - expected).max() <= 1.01 / 255 / 0.2


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("channels", [1, 3])
def test_one_view_after_the_other_is_all_of_them_together_to_the_bit(channels: int, dtype: torch.dtype) -> None:
    mean, std = (0.5, 0.4, 0.3)[:channels], (0.2, 0.3, 0.25)[:channels]
    views, settings, rows = Views(faces()[..., :channels], mean, std, 64, CPU, dtype), AugmentSettings(), np.arange(8)
    draws = generator()
    boxes = random_boxes(len(rows), 90, settings, draws).tolist()
    mirrored = torch.rand(len(rows), generator=draws) < settings.flip
    pixels = torch.from_numpy(faces()[..., :channels]).permute(0, 3, 1, 2)
    pixels = torch.where(mirrored[:, None, None, None], pixels.flip(3), pixels)
    resized = torch.cat([resize(image, box, 64) for image, box in zip(pixels.split(1), boxes, strict=True)])
    assert torch.equal(views.random(rows, settings, generator()), views._normalised(resized))


def test_a_memory_map_is_let_go(tmp_path: Path) -> None:
    """Pages that were read count as the process's own; a pass over the images must not keep them all."""
    np.save(tmp_path / "images.npy", np.zeros((2000, 100, 100, 3), np.uint8))
    views = Views(np.load(tmp_path / "images.npy", mmap_mode="r"), (0.5,) * 3, (0.2,) * 3, 16, CPU)
    before = mapped_megabytes()
    for rows in np.split(np.random.default_rng(1).permutation(2000), 50):
        views.random(rows, AugmentSettings(), generator())
    assert mapped_megabytes() - before < 10, "of 60"


def mapped_megabytes() -> float:
    status = Path("/proc/self/status").read_text()
    return int(status.partition("RssFile:")[2].split()[0]) / 1024


def test_bfloat16_input_is_the_rounded_float32_input() -> None:
    rows, settings = np.arange(8), AugmentSettings()
    both = [
        Views(faces(), (0.5, 0.4, 0.3), (0.2,) * 3, 64, CPU, dtype).random(rows, settings, generator())
        for dtype in (torch.float32, torch.bfloat16)
    ]
    torch.testing.assert_close(both[0].bfloat16(), both[1], atol=0, rtol=0)


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


def test_the_plain_view_is_the_whole_image_as_pillow_resizes_it() -> None:
    images = np.random.default_rng(1).integers(0, 256, (2, 90, 90, 3), dtype=np.uint8)
    plain = Views(images, (0.0,) * 3, (1 / 255,) * 3, 48, CPU).plain(np.arange(2)).permute(0, 2, 3, 1).numpy()
    resized = [np.asarray(Image.fromarray(image).resize((48, 48), Image.Resampling.BILINEAR)) for image in images]
    np.testing.assert_allclose(plain, resized, atol=1.01)


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
    boxes = random_boxes(50, 200, settings, generator()).float()
    left, right = boxes[:, 0], boxes[:, 2]
    pixel = (right - left) / 64
    torch.testing.assert_close(seen[:, 0, 32, 0], left + pixel / 2 - 0.5, atol=1.0, rtol=0)
    torch.testing.assert_close(seen[:, 0, 32, -1], right - pixel / 2 - 0.5, atol=1.0, rtol=0)


def test_views_of_images_on_a_device_are_those_of_a_memory_map() -> None:
    settings, rows = AugmentSettings(crop_area=(0.3, 1.0)), np.array([5, 2, 2, 7])
    stored, resident = (Views(images, (0.5,), (0.25,), 64, CPU) for images in (faces(), torch.from_numpy(faces())))
    torch.testing.assert_close(resident.plain(rows), stored.plain(rows), rtol=0, atol=0)
    views = [views.random(rows, settings, generator()) for views in (resident, stored)]
    torch.testing.assert_close(*views, rtol=0, atol=0)
    assert isinstance(on_device(faces(), CPU), np.ndarray)
