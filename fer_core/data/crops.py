"""Make a network's input of a picture: the one way that all parts of the program share.

Training, `fer evaluate`, `Predictor`, the HTTP service, the web page and every exported file prepare a face alike, and
always as the *checkpoint's* training images were, whatever dataset or program it is used with:

1. The picture is upright, in eight bits (`openface.decoding`).
2. A square is cut out: the detector's box, or of a picture that is a face already the square in its middle, as large
   as it can be (`middle_square`). A box that reaches beyond the picture repeats its edge. Nothing is squeezed.
3. Grey is made for a model of grey images, with Pillow's luma.
4. The square is resized to the checkpoint's `stored_size`, the side at which its training images were stored:
   bicubic, in eight bits. Weights that others trained on images of any size have none; their faces go to the
   network's `input_size` at once, bilinear, which is what their authors did.
5. From `stored_size` to `input_size` it is resized bilinear, antialiased, in floats; then the mean is subtracted and
   divided by the deviation.

`prepare` does 1 to 4 for a dataset, `cut_out` 2 to 4 for a predictor and the service, and
`fer_core.models.deployed.Deployed` does 2 to 5 in the network: that is what is exported, so that whoever runs an export
cannot get them wrong, and what judges a checkpoint on another dataset's images. Needs numpy and Pillow alone.
"""

from dataclasses import dataclass

import numpy as np
from PIL import Image


@dataclass(frozen=True)
class Box:
    """A square in pixels; it may reach beyond the image."""

    left: int
    top: int
    side: int


@dataclass(frozen=True)
class FaceFormat:
    """The format in which a model's faces are stored: steps 3 and 4 above."""

    side: int
    grey: bool
    resample: Image.Resampling = Image.Resampling.BICUBIC

    def cut_out(self, image: np.ndarray, box: Box) -> np.ndarray:
        """A face of an image, (H, W, 3) uint8 RGB, as the model is given it: (side, side, 3) uint8."""
        return cut_out(image, box, self.side, grey=self.grey, resample=self.resample)


def face_format(stored_size: int | None, input_size: int, *, grey: bool) -> FaceFormat:
    """Read the format from a checkpoint's card."""
    if stored_size is None:
        return FaceFormat(input_size, grey, Image.Resampling.BILINEAR)
    return FaceFormat(stored_size, grey)


def middle_square(image: np.ndarray) -> Box:
    """The largest centred square of an image (H, W, …)."""
    height, width = image.shape[:2]
    side = min(height, width)
    return Box((width - side) // 2, (height - side) // 2, side)


def whole_image(image: np.ndarray) -> list[Box]:
    """Stands in for a detector if the images are faces already."""
    return [middle_square(image)]


def cut_out(
    image: np.ndarray,
    box: Box,
    size: int,
    *,
    grey: bool,
    resample: Image.Resampling = Image.Resampling.BICUBIC,
) -> np.ndarray:
    """A face as a dataset's images are stored: cut out, in grey where those are, and resized as Pillow does.

    Args:
        image: (H, W, 3) uint8 RGB.

    Returns:
        (size, size, 3) uint8. Where the box reaches beyond the image, its edge is repeated.
    """
    height, width = image.shape[:2]
    left, top = max(box.left, 0), max(box.top, 0)
    right, bottom = min(box.left + box.side, width), min(box.top + box.side, height)
    inside = image[top:bottom, left:right]
    edges = ((top - box.top, box.top + box.side - bottom), (left - box.left, box.left + box.side - right), (0, 0))
    if np.any(edges):
        inside = np.pad(inside, edges, mode="edge")
    face = Image.fromarray(np.ascontiguousarray(inside))
    if grey:
        face = face.convert("L")
    if face.size != (size, size):
        face = face.resize((size, size), resample)
    return np.asarray(face.convert("RGB"))
