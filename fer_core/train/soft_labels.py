"""Soft labels: the frozen generator's emotion distribution of every image, or of the views that a student will see."""

import shutil
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from scipy.special import softmax
from torch import nn

from fer_core.data.dataset import Dataset
from fer_core.data.order import KeptViews, draw_views
from fer_core.data.views import Views, on_device
from fer_core.errors import ArtifactError
from fer_core.experiment import AugmentSettings, Experiment, SoftLabelSettings
from fer_core.models.checkpoint import ModelCard, load_checkpoint, require_labels
from fer_core.models.facts import CARD
from fer_core.models.logits import predict_logits
from fer_core.progress import Reporter
from fer_core.train.objectives import Objective, cross_entropy_by_view, cross_entropy_online, cross_entropy_to

SOFT_LABELS = "soft_labels.parquet"
LABELLED_VIEWS = "labelled_views.npz"
GENERATOR = "generator"
"""Folder of the generator's checkpoint, copied, where the student asks it online."""
_CHUNK = 1024


@dataclass(frozen=True)
class LabelledViews:
    """Random views of the images that a student learns from, each with the generator's label of it."""

    rows: np.ndarray
    """(M,) int64, row numbers of these images in the dataset."""
    kept: KeptViews
    """Views, n of each of the M images."""
    labels: np.ndarray
    """(n, M, classes) float16, probabilities; rows sum to 1 within 0.0005, half a float16's last place."""

    def told(self) -> str:
        """Describe in one sentence what is stored."""
        views, images = self.labels.shape[:2]
        crops = self.kept.boxes.nbytes + self.kept.mirrored.nbytes
        return f"{views} views of {images} images: {self.labels.nbytes} bytes of labels, {crops} bytes of crops"

    def save(self, folder: Path) -> None:
        """Write the file of a soft-labels artifact."""
        boxes, mirrored = self.kept.boxes.numpy(), self.kept.mirrored.numpy()
        np.savez(folder / LABELLED_VIEWS, rows=self.rows, boxes=boxes, mirrored=mirrored, labels=self.labels)


def make_soft_labels(
    experiment: Experiment, dataset: Dataset, checkpoint: Path, folder: Path, device: torch.device, report: Reporter
) -> None:
    """Write what a student learns from, as `soft_labels.views` says.

    The table of every image is always there. With random views a training image's row is the mean over its views;
    online, the table is the plain images', and the generator's checkpoint lies beside it.

    Raises:
        CheckpointError: the generator's classes are not the dataset's.
    """
    views = experiment.soft_labels.views
    table = generate_soft_labels(experiment.soft_labels, dataset, checkpoint, device, report)
    if views == "online":
        (folder / GENERATOR).mkdir(exist_ok=True)
        for name in (CARD, "selected.safetensors"):
            shutil.copyfile(checkpoint / name, folder / GENERATOR / name)
    elif isinstance(views, int) and views > 1:
        labelled = label_views(views, experiment.augment, dataset, checkpoint, device, report)
        labelled.save(folder)
        report.note(labelled.told())
        table.loc[labelled.rows, list(dataset.card.labels)] = labelled.labels.mean(axis=0, dtype=np.float32)
    table.to_parquet(folder / SOFT_LABELS, index=False)


def generate_soft_labels(
    settings: SoftLabelSettings, dataset: Dataset, checkpoint: Path, device: torch.device, report: Reporter
) -> pd.DataFrame:
    """Predict f(x) of the validation-selected generator for every image of every split.

    Returns:
        Column id and one for each label, whose values sum to 1; with `mirrored`, the mean with the mirror image.

    Raises:
        CheckpointError: the generator's classes are not the dataset's.
    """
    model, card, views = _generator(checkpoint, dataset, device)
    rows, sides = np.arange(len(dataset.manifest)), (False, True) if settings.views == "mirrored" else (False,)
    parts = []
    for start in range(0, len(rows), _CHUNK):
        chunk = rows[start : start + _CHUNK]
        seen = [predict_logits(model, views, chunk, mirrored=mirrored) for mirrored in sides]
        parts.append(np.mean(softmax(np.array(seen), axis=2), axis=0))
        report.progress(f"soft labels of {card.name} · seed {card.seed}", start + len(chunk), len(rows))
    table = pd.DataFrame(np.concatenate(parts), columns=list(dataset.card.labels))
    table.insert(0, "id", dataset.manifest["id"].to_numpy())
    return table


def label_views(
    count: int,
    augment: AugmentSettings,
    dataset: Dataset,
    checkpoint: Path,
    device: torch.device,
    report: Reporter,
) -> LabelledViews:
    """f(x) of `count` random views of every image that a student learns from; drawn from the generator's seed.

    Raises:
        CheckpointError: the generator's classes are not the dataset's.
    """
    model, card, views = _generator(checkpoint, dataset, device)
    rows = dataset.rows("train", "unlabelled")
    kept = draw_views(count, len(rows), dataset.images.shape[1], augment, card.seed)
    labels = np.empty((count, len(rows), len(dataset.card.labels)), np.float16)
    for view in range(count):
        labels[view] = softmax(predict_logits(model, views, rows, crops=kept.crops(view)), axis=1)
        report.progress(f"soft labels of views by {card.name} · seed {card.seed}", view + 1, count)
    return LabelledViews(rows, kept, labels)


def _generator(checkpoint: Path, dataset: Dataset, device: torch.device) -> tuple[nn.Module, ModelCard, Views]:
    """Load the frozen network on its device, and its views of the dataset."""
    model, card = load_checkpoint(checkpoint)
    require_labels(card, dataset.card.labels, checkpoint)
    model = model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return model, card, Views(on_device(dataset.images, device), card.mean, card.std, card.input_size, device)


def objective_from(folder: Path, dataset: Dataset, input_size: int, device: torch.device) -> Objective:
    """Choose a student's objective: soft labels of images, of kept views, or from the generator online.

    Args:
        input_size: the student's, in pixels.

    Raises:
        ArtifactError: they are of another dataset, or the generator cannot look at what the student sees.
    """
    of_images = read_soft_labels(folder, dataset)
    if (folder / GENERATOR).is_dir():
        return cross_entropy_online(_online_generator(folder / GENERATOR, dataset, input_size, device))
    if (folder / LABELLED_VIEWS).is_file():
        kept, labels = _of_every_row(read_labelled_views(folder), len(of_images))
        return cross_entropy_by_view(torch.from_numpy(labels).to(device), kept)
    return cross_entropy_to(torch.from_numpy(of_images).to(device))


def read_soft_labels(folder: Path, dataset: Dataset) -> np.ndarray:
    """(N, classes) float32 distributions, in the dataset's order of images and classes.

    Raises:
        ArtifactError: they are of another dataset.
    """
    path = folder / SOFT_LABELS
    try:
        table = pd.read_parquet(path)
    except (OSError, ValueError) as error:
        raise ArtifactError(f"{path}: no soft labels ({error}); make them with `fer soft-labels`") from error
    if list(table.columns[1:]) != list(dataset.card.labels) or not table["id"].equals(dataset.manifest["id"]):
        raise ArtifactError(f"{path}: made for another dataset; make them anew with `fer soft-labels`")
    return table[list(dataset.card.labels)].to_numpy(np.float32, copy=True)


def read_labelled_views(folder: Path) -> LabelledViews:
    """The views of a soft-labels artifact.

    Raises:
        ArtifactError: the file is damaged.
    """
    path = folder / LABELLED_VIEWS
    try:
        # Opened here, since numpy leaves a file open that it cannot read.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            kept = KeptViews(torch.from_numpy(stored["boxes"]), torch.from_numpy(stored["mirrored"]))
            return LabelledViews(stored["rows"], kept, stored["labels"])
    except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise ArtifactError(f"{path}: no labelled views ({error}); make them with `fer soft-labels`") from error


def _of_every_row(labelled: LabelledViews, images: int) -> tuple[KeptViews, np.ndarray]:
    """The same views, indexed by the dataset's rows; rows that no student learns from are empty."""
    count, _, classes = labelled.labels.shape
    labels = np.full((count, images, classes), np.nan, np.float16)
    labels[:, labelled.rows] = labelled.labels
    boxes = torch.zeros(count, images, 4, dtype=torch.int16)
    mirrored = torch.zeros(count, images, dtype=torch.bool)
    boxes[:, labelled.rows], mirrored[:, labelled.rows] = labelled.kept.boxes, labelled.kept.mirrored
    return KeptViews(boxes, mirrored), labels


def _online_generator(folder: Path, dataset: Dataset, input_size: int, device: torch.device) -> nn.Module:
    model, card, _ = _generator(folder, dataset, device)
    own = (dataset.card.mean, dataset.card.std, input_size)
    if (card.mean, card.std, card.input_size) != own:
        raise ArtifactError(
            f"{folder}: with soft_labels.views = online the generator looks at the student's own input, which has "
            f"mean, deviation and pixels {own}, and it takes {(card.mean, card.std, card.input_size)}; "
            "set distill.input_size to the generator's, or soft_labels.views to a number"
        )
    return model
