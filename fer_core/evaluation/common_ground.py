"""Classes that a checkpoint and another dataset share, and that dataset's images which it has not seen."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import softmax

from fer_core.data.dataset import Dataset
from fer_core.data.readers.names import emotion_of
from fer_core.errors import CheckpointError
from fer_core.models.checkpoint import ModelCard, image_marks

_FEWEST_CLASSES = 2
_NUMBER = re.compile(r"[+-]?\d+(\.\d*)?")


@dataclass(frozen=True)
class CommonGround:
    """The test images of a dataset that a checkpoint can be judged on, and what was left out to get there."""

    labels: tuple[str, ...]
    """The common classes, by the checkpoint's names and in its order."""
    columns: np.ndarray
    """(C,) the checkpoint's logit of each."""
    rows: np.ndarray
    """(M,) row numbers in the dataset."""
    classes: np.ndarray
    """(M,) indices into `labels`."""
    truth: np.ndarray | None
    """(M, C) the crowd's distributions over the common classes, made to sum to 1; None where there are none."""
    told: dict[str, Any]
    """For metrics.json: the classes and images on each side, and those left out, by reason."""

    def probabilities(self, logits: np.ndarray, temperature: float = 1.0) -> np.ndarray:
        """softmax(logits / T) over the common classes alone: (M, all classes) → (M, C), rows sum to 1."""
        renormalised: np.ndarray = softmax(logits[:, self.columns].astype(np.float64) / temperature, axis=1)
        return renormalised


def common_ground(card: ModelCard, dataset: Dataset, seen: dict[str, np.ndarray] | None) -> CommonGround:
    """Match classes by what they mean, and leave out every image that the checkpoint was trained or chosen on.

    Args:
        seen: marks of the images of the checkpoint's splits, see `fer_core.models.checkpoint`; None where unknown.

    Raises:
        CheckpointError: fewer than two classes, or no test image, are left to judge.
    """
    theirs, ours = meanings(dataset.card.labels), meanings(card.labels)
    common = list(dict.fromkeys(name for name in ours if name is not None and name in theirs))
    if len(common) < _FEWEST_CLASSES:
        raise CheckpointError(
            f"classes in common with the checkpoint: {', '.join(common) or 'none'}, and two are needed; its are "
            f"{', '.join(card.labels)}, the dataset's {', '.join(dataset.card.labels)}; prepare the dataset with what "
            "they mean, such as --set dataset.classes.smile=happiness"
        )
    test = dataset.rows("test")
    place = np.array([common.index(name) if name in common else -1 for name in theirs])  # of each class of the dataset
    onto = (place[:, None] == np.arange(len(common))).astype(np.float64)  # (the dataset's classes, the common ones)
    known = place[dataset.labels()[test]] >= 0
    crowd = None if (votes := dataset.crowd()) is None else votes[test].astype(np.float64) @ onto
    # A crowd that is silent on the common classes says nothing that could be made to sum to 1.
    silent = known & (crowd.sum(axis=1) == 0) if crowd is not None else np.zeros(len(test), dtype=bool)
    fates = _fates(dataset, test, seen)
    judged = known & ~silent & (fates == "")
    rows = test[judged]
    if not len(rows):
        raise CheckpointError(
            f"no test image is left to judge: of {len(test)}, {int((~known).sum())} are of classes that the checkpoint "
            f"lacks, {int(silent.sum())} have votes for such classes alone, and {int((fates != '').sum())} were used "
            "in its training; give another dataset"
        )
    names = [label for label, index in zip(dataset.card.labels, place, strict=True) if index < 0]
    lost = dataset.labels()[test[~known]]
    labels = tuple(card.labels[ours.index(name)] for name in common)
    told = {
        "source": dataset.card.source,
        "protocol": dataset.card.protocol,
        "truth": dataset.card.truth,
        "labels": labels,
        "classes": {"checkpoint": len(card.labels), "dataset": len(dataset.card.labels), "judged": len(common)},
        "classes_left_out": {
            "checkpoint": [label for label, name in zip(card.labels, ours, strict=True) if name not in common],
            "dataset": {name: int((lost == dataset.card.labels.index(name)).sum()) for name in names},
        },
        "images": {"test": len(test), "judged": len(rows)},
        "images_left_out": {
            "of other classes": int((~known).sum()),
            "with votes for other classes alone": int(silent.sum()),
            **{f"in the checkpoint's {split}": int((known & ~silent & (fates == split)).sum()) for split in seen or ()},
        },
        "training_images_known": seen is not None,
    }
    return CommonGround(
        labels=labels,
        columns=np.array([ours.index(name) for name in common]),
        rows=rows,
        classes=place[dataset.labels()[rows]],
        truth=None if crowd is None else crowd[judged] / crowd[judged].sum(axis=1, keepdims=True),
        told=told,
    )


def judged_on_in_words(judged_on: Mapping[str, Any]) -> Iterator[str]:
    """Describe a metrics.json's `judged_on` in sentences: what was judged, and what was left out."""
    classes, images = judged_on["classes"], judged_on["images"]
    yield (
        f"{classes['judged']} classes are judged, of {classes['checkpoint']} of the checkpoint and "
        f"{classes['dataset']} of the dataset; {images['judged']:,} of {images['test']:,} test images"
    )
    without = judged_on["classes_left_out"]
    if without["checkpoint"]:
        yield f"classes left out of the checkpoint: {', '.join(without['checkpoint'])}"
    if without["dataset"]:
        counted = [f"{name} ({count:,} images)" for name, count in without["dataset"].items()]
        yield f"classes left out of the dataset: {', '.join(counted)}"
    for reason, count in judged_on["images_left_out"].items():
        if count:
            yield f"{count:,} test images left out: {reason}"
    if not judged_on["training_images_known"]:
        yield "which images the checkpoint was trained on is not known, so none of these could be left out"
    yield from judged_on["preprocessing"]


def meanings(labels: Sequence[str]) -> list[str | None]:
    """What each class means: an emotion under whatever name, else the name itself; None for a bare number.

    A number means something else in every dataset, so two equal ones have nothing in common.
    """
    return [
        emotion_of(label) or (None if _NUMBER.fullmatch(label.strip()) else label.strip().lower()) for label in labels
    ]


def _fates(dataset: Dataset, rows: np.ndarray, seen: dict[str, np.ndarray] | None) -> np.ndarray:
    """(len(rows),) the split of the checkpoint that holds the same image; "" where none does."""
    marks = image_marks(dataset.manifest["sha256"].iloc[rows])
    fates = np.full(len(rows), "", dtype=object)
    for split in reversed(seen or {}):  # What is in several counts as the first, train.
        fates[np.isin(marks, seen[split])] = split  # type: ignore[index]
    return fates
