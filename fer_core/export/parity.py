"""Check that an export says what its checkpoint says, on the dataset's own faces."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch

from fer_core.data.dataset import Dataset
from fer_core.models.deployed import Deployed
from fer_core.progress import Reporter

LOST_POINTS = 0.5
LOST_TOPS = 0.02
"""Points of accuracy, and share of top classes, that a quantised export may lose; one that loses more is none."""
PARITY = 1e-4
"""Largest difference of a probability that is taken for rounding."""
_BATCH = 64
_ROUNDING = 1e-9


@dataclass(frozen=True)
class Comparison:
    """Comparison of an export with its checkpoint, on the dataset's test images."""

    images: int
    largest_difference: float
    """Largest difference of a probability."""
    same_top: float
    """Share of images with the same top class."""
    accuracy: float
    """The export's accuracy, in percent."""
    checkpoint_accuracy: float
    """The checkpoint's, in percent."""

    @property
    def is_equal(self) -> bool:
        """The same but for rounding."""
        return self.largest_difference <= PARITY and self.same_top == 1

    @property
    def is_close(self) -> bool:
        """Tell whether quantisation lost no more than it may; accuracy gained by chance makes up for no top classes."""
        lost = self.checkpoint_accuracy - self.accuracy
        return lost <= LOST_POINTS + _ROUNDING and 1 - self.same_top <= LOST_TOPS + _ROUNDING

    def __str__(self) -> str:
        return (
            f"on {self.images:,} test images accuracy {self.accuracy:.2f} %, the checkpoint's "
            f"{self.checkpoint_accuracy:.2f} %; the same top class on {100 * self.same_top:.2f} %, probabilities at "
            f"most {self.largest_difference:.1e} apart"
        )


def compare(
    deployed: Deployed, run: Callable[[np.ndarray], np.ndarray], dataset: Dataset, report: Reporter
) -> tuple[Comparison, np.ndarray]:
    """An export, as a function from faces to probabilities, beside the network that it was made of.

    Returns:
        How they compare, and the export's probabilities of the test images, (N, classes).
    """
    rows = dataset.rows("test")
    ours, theirs = [], []
    for done, faces in enumerate(stored_faces(dataset, rows), start=1):
        with torch.inference_mode():
            theirs.append(deployed(torch.from_numpy(faces)).numpy())
        ours.append(run(faces))
        report.progress("compare with the checkpoint", min(done * _BATCH, len(rows)), len(rows))
    found = np.concatenate(ours)
    return comparison_of(found, np.concatenate(theirs), dataset.labels()[rows]), found


def comparison_of(ours: np.ndarray, theirs: np.ndarray, labels: np.ndarray) -> Comparison:
    """Compare (N, classes) probabilities of an export and of its checkpoint."""
    accuracy, checkpoint = (100 * float((p.argmax(axis=1) == labels).mean()) for p in (ours, theirs))
    return Comparison(
        images=len(labels),
        largest_difference=float(np.abs(ours - theirs).max()),
        same_top=float((ours.argmax(axis=1) == theirs.argmax(axis=1)).mean()),
        accuracy=accuracy,
        checkpoint_accuracy=checkpoint,
    )


def stored_faces(dataset: Dataset, rows: np.ndarray) -> Iterator[np.ndarray]:
    """Stored faces as they are handed in: (n, S, S, 3) uint8."""
    for start in range(0, len(rows), _BATCH):
        stored = np.asarray(dataset.images[rows[start : start + _BATCH]])
        yield np.repeat(stored, 3, axis=3) if stored.shape[3] == 1 else stored
