"""Classes that a checkpoint and another dataset share, and that dataset's images which it has not seen."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import softmax

from fer_core.data.dataset import Dataset
from fer_core.data.readers.names import emotion_of, plain_label
from fer_core.errors import CheckpointError
from fer_core.models.checkpoint import ModelCard, image_marks

_FEWEST_CLASSES = 2
_NUMBER = re.compile(r"[+-]?\d+(\.\d*)?")
_OTHER_CLASSES = "of other classes"
_SILENT = "with votes for other classes alone"
_SEEN = "in the checkpoint's {split}"


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
    common = _common_classes(card, dataset)
    columns = [meanings(card.labels).index(name) for name in common]
    labels = tuple(card.labels[column] for column in columns)
    theirs = meanings(dataset.card.labels)
    place = np.array([common.index(name) if name in common else -1 for name in theirs])  # of each class of the dataset
    onto = (place[:, None] == np.arange(len(common))).astype(np.float64)  # (the dataset's classes, the common ones)
    test = dataset.rows("test")
    crowd = None if (votes := dataset.crowd()) is None else votes[test].astype(np.float64) @ onto
    why = _why_left_out(dataset, test, place, crowd, seen)
    judged = why == ""
    rows = test[judged]
    left_out = {reason: int((why == reason).sum()) for reason in _reasons(seen)}
    if not len(rows):
        counted = ", ".join(f"{count} {reason}" for reason, count in left_out.items() if count)
        raise CheckpointError(f"no test image is left to judge: of {len(test)}, {counted}; give another dataset")
    return CommonGround(
        labels=labels,
        columns=np.array(columns),
        rows=rows,
        classes=place[dataset.labels()[rows]],
        truth=None if crowd is None else crowd[judged] / crowd[judged].sum(axis=1, keepdims=True),
        told={
            "source": dataset.card.source,
            "protocol": dataset.card.protocol,
            "truth": dataset.card.truth,
            "labels": labels,
            **_classes_told(card, dataset, common, test),
            "images": {"test": len(test), "judged": len(rows)},
            "images_left_out": left_out,
            "training_images_known": seen is not None,
        },
    )


def _common_classes(card: ModelCard, dataset: Dataset) -> list[str]:
    """The meanings that both have, in the checkpoint's order; raises CheckpointError where they are fewer than two."""
    theirs = meanings(dataset.card.labels)
    common = list(dict.fromkeys(name for name in meanings(card.labels) if name is not None and name in theirs))
    if len(common) < _FEWEST_CLASSES:
        raise CheckpointError(
            f"classes in common with the checkpoint: {', '.join(common) or 'none'}, and two are needed; its are "
            f"{', '.join(card.labels)}, the dataset's {', '.join(dataset.card.labels)}; prepare the dataset with what "
            "they mean, such as --set dataset.classes.smile=happiness"
        )
    return common


def _why_left_out(
    dataset: Dataset,
    test: np.ndarray,
    place: np.ndarray,
    crowd: np.ndarray | None,
    seen: dict[str, np.ndarray] | None,
) -> np.ndarray:
    """(len(test),) why a test image cannot be judged, one of `_reasons`; "" where it can."""
    why = _seen_in(dataset, test, seen)
    if crowd is not None:  # A crowd that is silent on the common classes says nothing that could be made to sum to 1.
        why[crowd.sum(axis=1) == 0] = _SILENT
    why[place[dataset.labels()[test]] < 0] = _OTHER_CLASSES
    return why


def _reasons(seen: dict[str, np.ndarray] | None) -> list[str]:
    return [_OTHER_CLASSES, _SILENT, *(_SEEN.format(split=split) for split in seen or ())]


def _classes_told(card: ModelCard, dataset: Dataset, common: Sequence[str], test: np.ndarray) -> dict[str, Any]:
    """How many classes there are on each side, and those left out; of the dataset's, with their test images."""
    theirs, ours = meanings(dataset.card.labels), meanings(card.labels)
    images = np.bincount(dataset.labels()[test], minlength=len(theirs))
    return {
        "classes": {"checkpoint": len(ours), "dataset": len(theirs), "judged": len(common)},
        "classes_left_out": {
            "checkpoint": [label for label, name in zip(card.labels, ours, strict=True) if name not in common],
            "dataset": {
                label: int(count)
                for label, name, count in zip(dataset.card.labels, theirs, images, strict=True)
                if name not in common
            },
        },
    }


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
    return [emotion_of(label) or (None if _NUMBER.fullmatch(label.strip()) else plain_label(label)) for label in labels]


def _seen_in(dataset: Dataset, rows: np.ndarray, seen: dict[str, np.ndarray] | None) -> np.ndarray:
    """(len(rows),) in which of the checkpoint's splits the same image is, in words; "" where in none."""
    marks = image_marks(dataset.manifest["sha256"].iloc[rows])
    found = np.full(len(rows), "", dtype=object)
    for split in reversed(seen or {}):  # What is in several counts as the first, train.
        found[np.isin(marks, seen[split])] = _SEEN.format(split=split)  # type: ignore[index]
    return found
