"""Labelled views: the student sees the very pixels that its label is of, in every epoch, after a kill too."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.generators import opinionated, save_generator
from torch import Tensor, nn

from fer_core.data.dataset import Dataset
from fer_core.data.order import Epochs, draw_views, view_of
from fer_core.data.views import Views
from fer_core.errors import ArtifactError, ExperimentError
from fer_core.experiment import AugmentSettings, Experiment, SoftLabelSettings, experiment_from
from fer_core.models.architectures import build
from fer_core.progress import JsonLines
from fer_core.train.losses import soft_cross_entropy
from fer_core.train.objectives import Batch, Objective
from fer_core.train.soft_labels import (
    LABELLED_VIEWS,
    LabelledViews,
    generate_soft_labels,
    make_soft_labels,
    objective_from,
    read_labelled_views,
    read_soft_labels,
)

AUGMENT = AugmentSettings((0.3, 1.0))
VIEWS = 3
CPU = torch.device("cpu")
ONE_ROUNDING = 2.0**-11
"""A float16 differs by at most this share of itself from what it was rounded from."""


@pytest.fixture
def generator(dataset: Dataset, tmp_path: Path) -> Path:
    return save_generator(tmp_path / "generator", dataset)


def made(dataset: Dataset, generator: Path, folder: Path, views: object) -> Path:
    folder.mkdir(parents=True)
    experiment = Experiment(augment=AUGMENT, soft_labels=SoftLabelSettings(views=views))  # type: ignore[arg-type]
    make_soft_labels(experiment, dataset, generator, folder, CPU, JsonLines())
    return folder


def student_views(dataset: Dataset) -> Views:
    return Views(dataset.images, dataset.card.mean, dataset.card.std, 48, CPU)


def shown(dataset: Dataset, objective: Objective, epoch: int, last: int = 7) -> tuple[Tensor, Tensor]:
    """An epoch as the loop takes it: the rows, and the pixels that the network is given."""
    views = student_views(dataset)
    augment = replace(AUGMENT, flip=1.0)  # as of an experiment changed since; what was labelled counts
    epochs = Epochs(dataset.rows("train"), 8, views, augment, objective.companions, 5, last, objective.kept)
    steps = list(epochs.draws(epoch))
    return torch.cat([step.rows for step in steps]), torch.cat(
        [views.varied(views.stored(step.rows), step.crops) for step in steps]
    )


def losses(objective: Objective, epoch: int, rows: Tensor, logits: Tensor) -> Tensor:
    objective.begin(epoch)
    batch = Batch(rows, torch.empty(0), logits)
    return objective.loss(nn.Identity(), batch)["cross_entropy"]


def test_a_label_is_what_the_generator_says_of_the_pixels_that_the_student_sees(
    dataset: Dataset, generator: Path, tmp_path: Path
) -> None:
    soft = made(dataset, generator, tmp_path / "soft", VIEWS)
    labelled, objective = read_labelled_views(soft), objective_from(soft, dataset, 48, CPU)
    model, views = opinionated(3), student_views(dataset)
    place = {int(row): number for number, row in enumerate(labelled.rows)}
    labels = []
    for epoch in range(1, 5):
        rows, pixels = shown(dataset, objective, epoch)
        view, at = view_of(epoch, VIEWS), [place[int(row)] for row in rows]
        seen = views.varied(views.stored(labelled.rows), labelled.kept.crops(view))
        assert torch.equal(pixels, seen[at])
        with torch.inference_mode():
            said = torch.softmax(model(pixels), dim=1)
        stored = torch.from_numpy(labelled.labels[view][at])
        torch.testing.assert_close(stored.float(), said, atol=1e-4, rtol=2 * ONE_ROUNDING)
        logits = torch.randn(len(rows), 3, generator=torch.Generator().manual_seed(epoch))
        assert torch.equal(losses(objective, epoch, rows, logits), soft_cross_entropy(logits, stored))
        labels.append(labelled.labels[view])
    assert np.abs(labels[0].astype(float) - labels[1]).max() > 0.01
    assert np.array_equal(labels[0], labels[3])


def test_epochs_beyond_the_views_show_them_again_in_another_order(
    dataset: Dataset, generator: Path, tmp_path: Path
) -> None:
    objective = objective_from(made(dataset, generator, tmp_path / "soft", VIEWS), dataset, 48, CPU)
    epochs = [shown(dataset, objective, epoch) for epoch in range(1, 2 * VIEWS + 1)]
    by_row = [pixels[rows.argsort()] for rows, pixels in epochs]
    for first, again in zip(by_row[:VIEWS], by_row[VIEWS:], strict=True):
        assert torch.equal(first, again)
    assert not torch.equal(by_row[0], by_row[1])
    assert not torch.equal(epochs[0][0], epochs[VIEWS][0])
    assert [view_of(epoch, VIEWS) for epoch in range(1, 8)] == [1, 2, 0, 1, 2, 0, 1]


def test_views_follow_from_the_generators_seed_and_more_of_them_only_add() -> None:
    few, many = (draw_views(count, 40, 48, AUGMENT, seed=1) for count in (2, 5))
    assert torch.equal(few.boxes, many.boxes[:2])
    assert torch.equal(few.mirrored, many.mirrored[:2])
    assert not torch.equal(many.boxes, draw_views(5, 40, 48, AUGMENT, seed=2).boxes)
    assert len({tuple(map(tuple, view.tolist())) for view in many.boxes}) == 5


def test_labels_are_stored_in_half_floats_that_sum_to_1_within_a_rounding(
    dataset: Dataset, generator: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    soft = made(dataset, generator, tmp_path / "soft", VIEWS)
    labelled, train = read_labelled_views(soft), dataset.rows("train")
    assert labelled.labels.dtype == np.float16
    assert labelled.labels.shape == (VIEWS, len(train), 3)
    assert np.abs(labelled.labels.sum(axis=2, dtype=np.float64) - 1).max() <= ONE_ROUNDING
    assert f"{VIEWS} views of {len(train)} images: {VIEWS * len(train) * 3 * 2} bytes" in capsys.readouterr().out
    whole, plain = (
        read_soft_labels(soft, dataset),
        read_soft_labels(made(dataset, generator, tmp_path / "p", 1), dataset),
    )
    np.testing.assert_allclose(whole[train], labelled.labels.astype(np.float64).mean(axis=0), atol=1e-6)
    others = np.setdiff1d(np.arange(len(whole)), train)
    np.testing.assert_array_equal(whole[others], plain[others])


def test_fifty_views_of_ferplus_fit_into_forty_megabytes(tmp_path: Path) -> None:
    rows = np.arange(28_386)
    labelled = LabelledViews(rows, draw_views(2, len(rows), 48, AUGMENT, 1), np.zeros((2, len(rows), 8), np.float16))
    labelled.save(tmp_path)
    of_two = (tmp_path / LABELLED_VIEWS).stat().st_size - rows.nbytes
    assert 25 * of_two + rows.nbytes < 40e6


def test_one_view_is_the_plain_image_and_its_files_are_those_of_before(
    dataset: Dataset, generator: Path, tmp_path: Path
) -> None:
    soft = made(dataset, generator, tmp_path / "soft", 1)
    assert [file.name for file in soft.iterdir()] == ["soft_labels.parquet"]
    table = generate_soft_labels(SoftLabelSettings(), dataset, generator, CPU, JsonLines())
    target = torch.from_numpy(table[list(dataset.card.labels)].to_numpy(np.float32, copy=True))
    objective, rows = objective_from(soft, dataset, 48, CPU), torch.arange(20, 10, -1)
    assert objective.kept is None
    logits = torch.randn(10, 3, generator=torch.Generator().manual_seed(1))
    assert torch.equal(losses(objective, 1, rows, logits), soft_cross_entropy(logits, target[rows]))


def test_online_the_loss_is_against_what_the_generator_says_of_the_batch(
    dataset: Dataset, generator: Path, tmp_path: Path
) -> None:
    objective = objective_from(made(dataset, generator, tmp_path / "soft", "online"), dataset, 48, CPU)
    student, teacher = build("efficientface", 3, seed=2).train(), opinionated(3).eval()
    before = {name: tensor.clone() for name, tensor in teacher.state_dict().items()}
    rows, pixels = (part[:8] for part in shown(dataset, objective, 1))
    logits = student(pixels)
    loss = objective.loss(student, Batch(rows, pixels, logits))["cross_entropy"]
    with torch.no_grad():
        said = torch.softmax(teacher.to(memory_format=torch.channels_last)(pixels), dim=1)  # type: ignore[call-overload]
    assert torch.equal(loss, soft_cross_entropy(logits, said))
    loss.mean().backward()  # type: ignore[no-untyped-call]
    assert all(torch.equal(tensor, before[name]) for name, tensor in teacher.state_dict().items())
    assert student.get_parameter("fc.weight").grad is not None


def test_online_a_generator_of_another_input_is_refused(dataset: Dataset, generator: Path, tmp_path: Path) -> None:
    soft = made(dataset, generator, tmp_path / "soft", "online")
    with pytest.raises(ArtifactError, match=r"set distill\.input_size to the generator's"):
        objective_from(soft, dataset, 64, CPU)
    lighter = replace(dataset, card=replace(dataset.card, mean=(0.6,)))
    with pytest.raises(ArtifactError, match="looks at the student's own input"):
        objective_from(soft, lighter, 48, CPU)


@pytest.mark.parametrize("content", [b"", b"PK half a file", b"PK\x03\x04 cut short"])
def test_damaged_views_are_told_of(dataset: Dataset, generator: Path, tmp_path: Path, content: bytes) -> None:
    soft = made(dataset, generator, tmp_path / "soft", 2)
    (soft / LABELLED_VIEWS).write_bytes(content)
    with pytest.raises(ArtifactError, match=r"labelled_views\.npz: no labelled views"):
        objective_from(soft, dataset, 48, CPU)


@pytest.mark.parametrize("value", [0, -3, 2.5, True, "twice"])
def test_what_is_no_count_of_views_is_refused(value: object) -> None:
    with pytest.raises(ExperimentError, match=r"soft_labels\.views = .*a whole number from 1 on, mirrored, or online"):
        experiment_from({"soft_labels": {"views": value}}, "my.toml")
