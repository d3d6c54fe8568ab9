"""Unlabelled faces through the flow's own objective, its training, and its commands."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import nn

from fer_core.data.dataset import open_dataset
from fer_core.models.checkpoint import read_training_images
from fer_core.train.objectives import Batch, Objective, cross_entropy_to
from fer_core.train.self_training import weighted, with_pseudo_labels

ROOT = Path(__file__).parent.parent
TARGET = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.25, 0.75]])


class Fixed(nn.Module):
    """Says the same of every image: its first two pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(3)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        assert not self.norm.training, "a pseudo-label comes from the running averages"
        return images[:, 0, 0, :2]


def batch_of(rows: list[int], images: torch.Tensor) -> Batch:
    logits = torch.zeros(len(rows), 2, requires_grad=True)
    return Batch(torch.tensor(rows), images, logits)


def test_weights_scale_the_cross_entropy_and_leave_other_terms() -> None:
    def loss(model: nn.Module, batch: Batch) -> dict[str, torch.Tensor]:
        return {"cross_entropy": torch.ones(len(batch.rows)), "lambda_omega": torch.full((len(batch.rows),), 5.0)}

    terms = weighted(Objective(loss), torch.tensor([1.0, 0.0, 0.3])).loss(
        nn.Identity(), batch_of([2, 1], torch.zeros(2, 3, 2, 2))
    )
    torch.testing.assert_close(terms["cross_entropy"], torch.tensor([0.3, 0.0]))
    assert terms["lambda_omega"].tolist() == [5.0, 5.0]


def test_what_the_network_says_of_the_mirrored_image_is_learnt_where_it_is_sure_and_has_begun() -> None:
    images = torch.zeros(3, 3, 2, 2)
    images[0, 0, 0] = torch.tensor([3.0, 0.0])  # mirrored: the second class, at .95
    images[1, 0, 0] = torch.tensor([0.1, 0.0])  # not sure
    images[2, 0, 0] = torch.tensor([3.0, 0.0])  # labelled: weighs nothing
    objective = with_pseudo_labels(cross_entropy_to(TARGET), torch.tensor([0.5, 0.5, 0.0]), 0.9, first_step=1)
    model = Fixed().train()
    batch = batch_of([0, 1, 2], images)
    before = objective.loss(model, batch)
    assert before["pseudo_labels"].tolist() == [0.0, 0.0, 0.0]
    assert model.training
    terms = objective.loss(model, batch)
    torch.testing.assert_close(terms["pseudo_labels"], torch.tensor([0.5 * np.log(2), 0.0, 0.0], dtype=torch.float32))
    torch.testing.assert_close(terms["cross_entropy"], cross_entropy_to(TARGET).loss(model, batch)["cross_entropy"])
    terms["pseudo_labels"].sum().backward()
    assert batch.logits.grad is not None
    assert batch.logits.grad[0, 0] > 0 > batch.logits.grad[0, 1]
    assert int(objective.memory["steps_taken"]) == 2
    objective.loss(model.eval(), batch)
    assert not model.training, "the model is left as it was"


def test_the_memory_of_the_objective_below_is_kept() -> None:
    bank = torch.zeros(3, 2)
    below = replace(cross_entropy_to(TARGET), memory={"bank": bank})
    assert weighted(below, torch.ones(3)).memory == {"bank": bank}
    memory = with_pseudo_labels(below, torch.ones(3), 0.9, 0).memory
    assert memory["bank"] is bank
    assert set(memory) == {"bank", "steps_taken"}


def step(tmp_path: Path, name: str, experiment: str, settings: list[str], *inputs: str) -> tuple[Path, str]:
    """What the command made, and what it said."""
    asked = [word for setting in settings for word in ("--set", setting)]
    given = [word for made in inputs for word in ("--in", str(tmp_path / made))]
    program = [sys.executable, "-m", "fer_core", name, experiment, *asked, *given, "--out", str(tmp_path / name)]
    done = subprocess.run(program, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return tmp_path / name, done.stdout


def test_the_experiment_for_few_labels_has_a_linear_model_of_the_action_units_label_the_others(tmp_path: Path) -> None:
    small = ["dataset.source=sample", "dataset.count=180", "dataset.labelled=40", "dataset.image_size=24"]
    small += ["ldg.epochs=1", "ldg.epochs_with_neighbours=2", "ldg.batch=32"]
    step(tmp_path, "prepare", "few-labels", small)
    step(tmp_path, "annotate", "few-labels", small, "prepare")
    graph, _ = step(tmp_path, "graph", "few-labels", small, "prepare", "annotate")
    teacher = np.load(graph / "linear_teacher.npy")
    assert teacher.shape == (180, 7)
    usable = np.isfinite(teacher).all(axis=1)
    assert usable.sum() > 90
    np.testing.assert_allclose(teacher[usable].sum(axis=1), 1, atol=1e-5)
    trained, said = step(tmp_path, "train-ldg", "few-labels", small, "prepare", "graph")
    history = json.loads((trained / "model.json").read_text())["history"]
    assert len(history) == 2
    assert np.isfinite(history[0]["train_cross_entropy"])
    assert "train_lambda_omega" not in history[0]
    assert "had no effect" not in said
    hidden = len(open_dataset(tmp_path / "prepare").rows("unlabelled"))
    assert len((read_training_images(trained) or {})["unlabelled"]) == hidden
    assert f", {hidden} unlabelled." in (trained / "MODEL_CARD.md").read_text()


def test_ways_to_learn_from_unlabelled_faces_are_told_to_have_no_effect_where_there_are_none(tmp_path: Path) -> None:
    tiny, settings = str(ROOT / "tests" / "tiny.toml"), ["ldg.propagated=1", "ldg.pseudo_labels=1", "ldg.epochs=1"]
    step(tmp_path, "prepare", tiny, settings)
    _, said = step(tmp_path, "train-ldg", tiny, settings, "prepare")
    assert "ldg.propagated and ldg.pseudo_labels had no effect: every training image has a label" in said
