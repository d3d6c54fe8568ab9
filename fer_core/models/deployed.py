"""A network as it is deployed: faces as bytes in, calibrated probabilities out."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fer_core.models.checkpoint import ModelCard

_GREY = (19595.0, 38470.0, 7471.0)
"""Pillow's luma weights of red, green and blue, in 1/65536."""


class Deployed(nn.Module):
    """A network with all that stands before and behind it: (N, H, W, 3) uint8 RGB faces → (N, classes) probabilities.

    Faces need not be square, and may have any size: they are prepared as `fer_core.data.crops` says, steps 2 to 5.
    """

    def __init__(self, model: nn.Module, card: ModelCard) -> None:
        super().__init__()
        self.model = model.requires_grad_(False)
        self.stored_size, self.input_size = card.stored_size, card.input_size
        self.face_side = card.stored_size or card.input_size
        self.is_grey = len(card.mean) == 1
        self.temperature = card.temperature
        self.grey: Tensor
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("grey", torch.tensor(_GREY), persistent=False)
        for name, values in (("mean", card.mean), ("std", card.std)):
            self.register_buffer(name, torch.tensor(values).view(1, -1, 1, 1) * 255, persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        return torch.softmax(self.logits(images) / self.temperature, dim=-1)

    def logits(self, images: Tensor) -> Tensor:
        """(N, H, W, 3) uint8 RGB faces → (N, classes), before the temperature."""
        logits: Tensor = self.model(self._preprocessed(images.float()))
        return logits

    def _preprocessed(self, pixels: Tensor) -> Tensor:
        if self.is_grey:
            pixels = torch.floor(((pixels * self.grey).sum(dim=-1, keepdim=True) + 32768) / 65536)
        pixels = _middle_square(pixels.permute(0, 3, 1, 2))  # (N, 1 or 3, S, S)
        if self.stored_size is not None:
            pixels = F.interpolate(pixels, size=(self.stored_size,) * 2, mode="bicubic", antialias=True).clamp(0, 255)
        if self.input_size != self.stored_size:
            pixels = F.interpolate(pixels, size=(self.input_size,) * 2, mode="bilinear", antialias=True)
        return ((pixels - self.mean) / self.std).expand(-1, 3, -1, -1)


def _middle_square(pixels: Tensor) -> Tensor:
    """(N, C, H, W) → (N, C, S, S), S the smaller of H and W, in arithmetic that tracing and exporting keep."""
    height, width = pixels.shape[2], pixels.shape[3]
    side = (height + width - abs(height - width)) // 2
    square = pixels.narrow(2, (height - side) // 2, side).narrow(3, (width - side) // 2, side)
    if torch.compiler.is_exporting():
        # What the exporter cannot conclude from the arithmetic.
        for length in square.shape[2:]:
            torch._check(length > 1)  # type: ignore[no-untyped-call]
    return square
