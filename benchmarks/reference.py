"""The reference, written by us the way the original EfficientFace goes about its training.

One image at a time through Pillow in a loader's workers, the network as published, float32, contiguous tensors, and a
ResNet-50 teacher that is asked about every augmented image of every epoch. Needs torch and torchvision alone.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from inputs import MEAN, STD
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from fer_core.models.efficientface import EfficientFace, InvertedResidual
from fer_core.models.torchvision_import import torchvision_models

WORKERS = 2


class PublishedUnit(InvertedResidual):
    """ShuffleNetV2's unit as it was published: concatenate, then shuffle the channels."""

    def forward(self, features: Tensor) -> Tensor:
        if self.stride == 1:
            passed, convolved = features.chunk(2, dim=1)
            return _shuffled(torch.cat((passed, self.branch2(convolved)), dim=1))
        return _shuffled(torch.cat((self.branch1(features), self.branch2(features)), dim=1))


def _shuffled(features: Tensor) -> Tensor:
    """Channels of the two halves in turn."""
    count, channels, height, width = features.shape
    halves = features.view(count, 2, channels // 2, height, width)
    return halves.transpose(1, 2).contiguous().view(count, channels, height, width)


class PublishedEfficientFace(EfficientFace):
    """EfficientFace of published units; its parameters have the names of ours."""

    def __init__(self, num_classes: int = 7) -> None:
        super().__init__(num_classes)
        self.stage2, self.stage3, self.stage4 = _stage(29, 116, 4), _stage(116, 232, 8), _stage(232, 464, 4)


def _stage(inputs: int, outputs: int, units: int) -> nn.Sequential:
    strides = [2] + [1] * (units - 1)
    return nn.Sequential(*(PublishedUnit(inputs if s == 2 else outputs, outputs, s) for s in strides))


class ImageFiles(Dataset[tuple[Tensor, int]]):
    """Files that are opened, cropped, mirrored and normalised one at a time; with a label."""

    def __init__(self, paths: Sequence[Path], size: int) -> None:
        torchvision_models()  # Lets torchvision be imported beside any torch.
        from torchvision import transforms

        self.paths = paths
        self.transform = transforms.Compose(
            [
                transforms.RandomResizedCrop((size, size)),
                transforms.RandomHorizontalFlip(),
                transforms.ToTensor(),
                transforms.Normalize(MEAN, STD),
            ]
        )

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        with Image.open(self.paths[index]) as image:
            return self.transform(image.convert("RGB")), 0


def write_files(folder: Path, images: np.ndarray) -> list[Path]:
    """Each image as a JPEG, which is how RAF-DB comes."""
    paths = [folder / f"{number:06d}.jpg" for number in range(len(images))]
    for path, image in zip(paths, images, strict=True):
        Image.fromarray(image).save(path, quality=92)
    return paths


def image_loader(
    paths: Sequence[Path], size: int, batch: int, device: torch.device, workers: int = WORKERS
) -> DataLoader[tuple[Tensor, int]]:
    """Batches of augmented images. The workers stay between epochs, which flatters it: their start is not timed."""
    return DataLoader(
        ImageFiles(paths, size),
        batch_size=batch,
        shuffle=True,
        num_workers=workers,
        pin_memory=device.type == "cuda",
        persistent_workers=workers > 0,
        multiprocessing_context="fork" if workers else None,
    )


def teacher(classes: int, device: torch.device) -> nn.Module:
    """The frozen ResNet-50 that gives every augmented image its distribution."""
    resnet: nn.Module = torchvision_models().resnet50(num_classes=classes)
    return resnet.to(device).eval()


def distil_batch(student: nn.Module, optimiser: torch.optim.Optimizer, images: Tensor, soft: Tensor) -> Tensor:
    """One step of the student towards the teacher's distributions, in float32."""
    loss = -(soft * torch.log_softmax(student(images), dim=1)).sum(dim=1).mean()
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()
    return loss.detach()


def distil_epoch(
    loader: DataLoader[tuple[Tensor, int]],
    student: nn.Module,
    generator: nn.Module,
    optimiser: torch.optim.Optimizer,
    device: torch.device,
) -> None:
    """One pass over the files, the teacher asked about every view; each loss is read, as it is for a progress line."""
    for images, _ in loader:
        images = images.to(device, non_blocking=True)
        with torch.no_grad():
            soft = generator(images).softmax(dim=1)
        float(distil_batch(student, optimiser, images, soft))
