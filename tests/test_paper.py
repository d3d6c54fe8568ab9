"""The paper's recipe held to the original's loss and optimiser, and to where its networks start."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import striped_dataset
from test_evaluate import EXPERIMENT, Notes, prepared
from test_published import publish
from torch import Tensor, nn

from fer_core.experiment import Recipe, load_experiment, to_document
from fer_core.models.architectures import build
from fer_core.report.page import experiment_toml
from fer_core.steps import request
from fer_core.steps.run import run_step
from fer_core.train.losses import soft_cross_entropy

ROOT = Path(__file__).parent.parent
STEPS = 6


def upstream_loss(logits: Tensor, target: Tensor) -> Tensor:
    """EfficientFace's, as its code computes it: a mean over the batch and over the classes too."""
    return torch.mean(-target * torch.log(torch.softmax(logits, dim=1)))


def upstream_optimiser(parameters: list[nn.Parameter]) -> torch.optim.SGD:
    """With the paper's One-Cycle rate and weight decay."""
    return torch.optim.SGD(parameters, lr=0.7, momentum=0.9, weight_decay=4e-4)


def our_optimiser(parameters: list[nn.Parameter], recipe: Recipe) -> torch.optim.SGD:
    return torch.optim.SGD(
        parameters, lr=recipe.learning_rate, momentum=recipe.momentum, weight_decay=recipe.weight_decay
    )


def after_steps(ours: bool, recipe: Recipe) -> Tensor:
    """Weights after a few batches of a small network in float64, under One-Cycle as both run it."""
    generator = torch.Generator().manual_seed(1)
    model = nn.Sequential(nn.Linear(12, 16), nn.Tanh(), nn.Linear(16, 7)).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    parameters = list(model.parameters())
    optimiser = our_optimiser(parameters, recipe) if ours else upstream_optimiser(parameters)
    highest = recipe.learning_rate if ours else 0.7
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, highest, total_steps=STEPS + 1)
    for _ in range(STEPS):
        images = torch.randn(32, 12, generator=generator, dtype=torch.float64)
        target = torch.softmax(torch.randn(32, 7, generator=generator, dtype=torch.float64), dim=1)
        logits = model(images)
        loss = soft_cross_entropy(logits, target).mean() if ours else upstream_loss(logits, target)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    return torch.cat([parameter.detach().flatten() for parameter in parameters])


def test_paper_distils_with_the_originals_steps() -> None:
    recipe = load_experiment("paper").distill
    assert (recipe.learning_rate, recipe.weight_decay) == (0.1, 28e-4)
    apart = (after_steps(True, recipe) - after_steps(False, recipe)).abs().max()
    assert apart < 1e-12
    with_less_decay = replace(recipe, weight_decay=4e-4)
    assert (after_steps(True, with_less_decay) - after_steps(False, recipe)).abs().max() > 1e-4


def test_every_recipe_of_paper_says_what_its_networks_were_pre_trained_on() -> None:
    paper = load_experiment("paper")
    assert {r.pretrained_on for r in (paper.ldg, paper.sll, paper.distill)} == {"MS-Celeb-1M"}


@pytest.mark.parametrize("given", [False, True])
def test_a_training_that_starts_from_scratch_says_so_where_its_source_does_not(tmp_path: Path, given: bool) -> None:
    weights = str(publish(tmp_path / "msceleb.pth.tar", build("efficientface", 12_666, seed=1))) if given else ""
    plan = replace(EXPERIMENT, sll=replace(EXPERIMENT.sll, pretrained_on="MS-Celeb-1M", weights=weights))
    own, notes = prepared(tmp_path / "own", striped_dataset(tmp_path / "drawn")), Notes()
    run_step(request("distill", plan, [own], seed=1), tmp_path / "checkpoint", notes)
    told = [note for note in notes.said if "starts from scratch" in note]
    assert len(told) == (0 if given else 1)
    assert given or told[0].endswith("pre-trained on MS-Celeb-1M: give them with --set sll.weights=FILE")


def test_what_a_recipe_says_of_its_source_changes_no_result(tmp_path: Path) -> None:
    own = prepared(tmp_path / "own", striped_dataset(tmp_path / "drawn"))
    said = replace(EXPERIMENT, sll=replace(EXPERIMENT.sll, pretrained_on="MS-Celeb-1M"))
    marks = {request("distill", plan, [own], seed=1).fingerprint() for plan in (EXPERIMENT, said)}
    assert len(marks) == 1
    assert 'pretrained_on = "MS-Celeb-1M"' in experiment_toml(said)


def test_every_file_and_setting_that_the_methods_page_names_is_there() -> None:
    page = (ROOT / "docs" / "method.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`((?:fer_core|tests)/[\w/.]+)`", page))
    assert len(named) > 10
    assert [name for name in named if not (ROOT / name).exists()] == []
    document = to_document(load_experiment("paper"))
    settings = set(re.findall(r"`(ldg|graph|soft_labels|dataset)\.(\w+)", page))
    assert len(settings) > 6
    assert [(section, key) for section, key in settings if key not in document[section]] == []
    recipe = document["distill"]
    assert f"{recipe['weight_decay'] * 1e4:g}e-4" in page
