"""A network's logits of stored images, batch by batch."""

import numpy as np
import torch
from torch import Tensor, nn

from fer_core.data.views import Crops, Views
from fer_core.devices import Precision, exact_inference, mixed_precision

_BATCH = 256


def predict_logits(
    model: nn.Module,
    views: Views,
    rows: np.ndarray,
    precision: Precision = "float32",
    *,
    mirrored: bool = False,
    crops: Crops | None = None,
) -> np.ndarray:
    """Logits of the plain view of each image, or of one given for each; or of its mirror image.

    Args:
        mirrored: show the view's mirror image.
        crops: how each of the rows' images is varied; None for the plain view.

    Returns:
        (len(rows), classes) float32.
    """
    model.eval()
    parts = []
    with exact_inference(), mixed_precision(views.device, precision):
        for start in range(0, len(rows), _BATCH):
            images = _seen(views, rows, crops, slice(start, start + _BATCH))
            parts.append(model(images.flip(3) if mirrored else images).float())
    logits: np.ndarray = torch.cat(parts).cpu().numpy()
    return logits


def _seen(views: Views, rows: np.ndarray, crops: Crops | None, batch: slice) -> Tensor:
    if crops is None:
        return views.plain(rows[batch])
    return views.varied(views.stored(rows[batch]), Crops(crops.boxes[batch], crops.mirrored[batch]))
