"""Training: what λ = 0 means, what batch normalisation remembers, and what a kill costs."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import chain_graph
from safetensors.torch import load_file
from torch import Tensor, nn

from fer_core.batches import beside_neighbours, cut, meetings, reweighted, shuffled
from fer_core.dataset import Dataset, open_dataset
from fer_core.devices import choose_device
from fer_core.errors import TrainingError
from fer_core.experiment import AugmentSettings, Experiment, LdgSettings, Recipe
from fer_core.graph import Graph
from fer_core.ldg import train_ldg
from fer_core.losses import neighbour_divergence
from fer_core.models.architectures import build
from fer_core.models.checkpoint import load_checkpoint
from fer_core.objectives import (
    Batch,
    cross_entropy_to,
    cross_entropy_with_bank,
    cross_entropy_with_batch,
    cross_entropy_with_neighbours,
    empty_bank,
    frozen_running_statistics,
)
from fer_core.progress import JsonLines
from fer_core.training import Training, targets, train

CPU = torch.device("cpu")
RECIPE = Recipe(epochs=2, batch=16, learning_rate=0.02, input_size=48)
LDG = LdgSettings(architecture="resnet18", epochs=2, batch=16, learning_rate=0.02, input_size=48)


def weights(folder: Path) -> dict[str, Tensor]:
    return load_file(folder / "last.safetensors")


def same(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def trained(dataset: Dataset, folder: Path, recipe: Recipe = RECIPE, seed: int = 1) -> Path:
    folder.mkdir(parents=True)
    loss = cross_entropy_to(targets(dataset, "majority"))
    training = Training("EF SLL", "efficientface", recipe, recipe.epochs, AugmentSettings((0.8, 1.0)), seed, loss)
    train(training, dataset, folder, CPU, JsonLines())
    return folder


def test_a_network_learns_stripes(dataset: Dataset, tmp_path: Path) -> None:
    folder = trained(dataset, tmp_path / "model", replace(RECIPE, epochs=15, schedule="one-cycle", learning_rate=0.05))
    model, card = load_checkpoint(folder)
    best = max(figures["validation_accuracy"] for figures in card.history)
    assert best >= 0.6
    assert card.history[card.selected_epoch - 1]["validation_accuracy"] == best
    assert card.history[-1]["train_cross_entropy"] < card.history[0]["train_cross_entropy"]
    assert not model.training
    assert sorted(p.name for p in folder.iterdir()) == [
        "MODEL_CARD.md",
        "last.safetensors",
        "model.json",
        "selected.safetensors",
    ]


def test_weights_follow_from_the_seed(dataset: Dataset, tmp_path: Path) -> None:
    torch.manual_seed(1)
    first = trained(dataset, tmp_path / "a")
    torch.manual_seed(2)
    assert same(weights(first), weights(trained(dataset, tmp_path / "b")))
    assert not same(weights(first), weights(trained(dataset, tmp_path / "c", seed=2)))


def test_with_lambda_0_it_is_the_ldg_to_the_bit(dataset: Dataset, graph: Graph, tmp_path: Path) -> None:
    results = {}
    for name, lambda_, linked in (("ldg", 0.5, None), ("zero", 0.0, graph), ("aus", 0.5, graph)):
        folder = tmp_path / name
        folder.mkdir()
        settings = Experiment(ldg=replace(LDG, lambda_=lambda_, epochs_with_neighbours=1))
        train_ldg(settings, dataset, "majority", linked, 1, folder, CPU, JsonLines())
        results[name] = weights(folder)
    assert same(results["ldg"], results["zero"])
    assert not same(results["ldg"], results["aus"])


def batch_of(dataset: Dataset, model: nn.Module, rows: np.ndarray) -> Batch:
    """A batch whose random views are the images as they are."""

    def view(chosen: np.ndarray) -> Tensor:
        return torch.from_numpy(dataset.images[chosen]).permute(0, 3, 1, 2).float().expand(-1, 3, -1, -1) / 255

    return Batch(rows, view(rows), model(view(rows)), view, torch.Generator().manual_seed(1))


def test_neighbours_pull_by_equation_1_and_leave_running_statistics_alone(dataset: Dataset, graph: Graph) -> None:
    model = build("resnet18", 3, seed=1).train()
    rows = dataset.rows("train")[:8]
    batch = batch_of(dataset, model, rows)
    before = {name: value.clone() for name, value in model.named_buffers()}
    target = targets(dataset, "majority")
    terms = cross_entropy_with_neighbours(target, graph, 0.3)(model, batch)
    assert all(torch.equal(value, before[name]) for name, value in model.named_buffers())
    neighbours, alike = graph.neighbours[rows], torch.from_numpy(graph.similarity[rows])
    distinct = np.unique(neighbours[neighbours >= 0])
    with frozen_running_statistics(model):
        logits = model(batch.random_views(distinct))
    each = logits[np.maximum(np.searchsorted(distinct, neighbours), 0) % len(distinct)]
    torch.testing.assert_close(terms["lambda_omega"], 0.3 * neighbour_divergence(batch.logits, each, alike))
    torch.testing.assert_close(terms["cross_entropy"], cross_entropy_to(target)(model, batch)["cross_entropy"])


def test_the_bank_pulls_as_the_neighbours_themselves_would(dataset: Dataset, graph: Graph) -> None:
    """In evaluation mode, with weights that stay, a remembered prediction is the prediction."""
    model = build("resnet18", 3, seed=1).eval()
    target, rows = targets(dataset, "majority"), dataset.rows("train")
    bank = empty_bank(target.shape)
    remembering = cross_entropy_with_bank(target, graph, 0.3, bank)
    with torch.no_grad():
        first = remembering(model, batch_of(dataset, model, rows))["lambda_omega"]
    assert (first == 0).all()  # Of nobody anything is remembered yet.
    batch = batch_of(dataset, model, rows[:8])
    expected = cross_entropy_with_neighbours(target, graph, 0.3)(model, batch)
    remembered = remembering(model, batch)
    torch.testing.assert_close(remembered, expected)
    parameters = list(model.parameters())
    gradients = [
        torch.autograd.grad(torch.stack(list(terms.values())).sum(), parameters, retain_graph=True)
        for terms in (remembered, expected)
    ]
    torch.testing.assert_close(gradients[0], gradients[1])


def test_the_bank_knows_only_who_was_seen(dataset: Dataset, graph: Graph) -> None:
    model = build("resnet18", 3, seed=1).eval()
    target, rows = targets(dataset, "majority"), dataset.rows("train")
    bank = empty_bank(target.shape)
    cross_entropy_with_bank(target, graph, 0.3, bank)(model, batch_of(dataset, model, rows[:5]))
    seen = torch.isfinite(bank).all(dim=1).numpy()
    assert set(np.flatnonzero(seen)) == set(rows[:5])
    torch.testing.assert_close(bank[rows[:5]].exp().sum(dim=1), torch.ones(5))


def test_drawn_neighbours_estimate_the_whole_sum_without_bias(dataset: Dataset, graph: Graph) -> None:
    """In evaluation mode a neighbour's prediction does not depend on its company, so the mean must converge."""
    model = build("resnet18", 3, seed=1).eval()
    batch = batch_of(dataset, model, dataset.rows("train")[:6])
    target = targets(dataset, "majority")
    whole = cross_entropy_with_neighbours(target, graph, 1.0)(model, batch)["lambda_omega"]
    drawn = cross_entropy_with_neighbours(target, graph, 1.0, 1)
    estimates = torch.stack([drawn(model, batch)["lambda_omega"] for _ in range(60)])
    error = estimates.std(dim=0) / 60**0.5
    assert ((estimates.mean(dim=0) - whole).abs() <= 4 * error + 1e-6).all()
    assert estimates.std(dim=0).max() > 0


def test_neighbours_stand_beside_each_other_and_each_image_once(dataset: Dataset, graph: Graph) -> None:
    rows = dataset.rows("train")
    order = beside_neighbours(rows, graph.neighbours, seed=1)
    assert sorted(order(1)) == sorted(rows)
    assert order(1).tolist() == beside_neighbours(rows, graph.neighbours, seed=1)(1).tolist()
    assert order(1).tolist() != order(2).tolist()
    together, by_chance = (
        sum(meetings(cut(each(epoch), 8), graph.neighbours).sum() for epoch in range(1, 6))
        for each in (order, shuffled(rows, 1))
    )
    assert together > 2 * by_chance


def test_over_a_training_every_pair_that_meets_counts_as_if_it_met_in_each_epoch(
    dataset: Dataset, graph: Graph
) -> None:
    order = beside_neighbours(dataset.rows("train"), graph.neighbours, seed=1)
    weighted, apart = reweighted(graph, order, batch=8, epochs=9)
    met = sum(weighted.similarity * meetings(cut(order(epoch), 8), graph.neighbours) for epoch in range(1, 10))
    whole = graph.similarity.sum(axis=1)
    reached = (weighted.similarity > 0).any(axis=1)
    np.testing.assert_allclose(met.sum(axis=1)[reached], 9 * whole[reached], rtol=1e-5)
    both = (weighted.similarity > 0).sum(axis=1) == (graph.similarity > 0).sum(axis=1)
    np.testing.assert_allclose(met[both], 9 * graph.similarity[both], rtol=1e-5)
    assert apart == pytest.approx(1 - graph.similarity[weighted.similarity > 0].sum() / graph.similarity.sum())
    assert apart < 0.1


def test_an_epoch_of_neighbours_is_alike_from_its_beginning_to_its_end() -> None:
    """Images without neighbours, and the pull of those that have them, are not left for the last batches."""
    generator = np.random.default_rng(1)
    neighbours = generator.integers(0, 3000, (3000, 4)).astype(np.int32)
    neighbours[generator.random(3000) < 0.2] = -1
    graph = Graph(
        neighbours, np.zeros((3000, 4), np.float32), np.where(neighbours >= 0, np.float32(0.5), np.float32(0))
    )
    order = beside_neighbours(np.arange(3000), neighbours, seed=1)
    weights = reweighted(graph, order, batch=50, epochs=20)[0].similarity
    alone, pull = np.zeros(3), np.zeros(3)
    for epoch in range(1, 21):
        assert len(set(order(epoch).tolist())) == 3000
        met = (weights * meetings(cut(order(epoch), 50), neighbours)).sum(axis=1)
        for part, rows in enumerate(np.split(order(epoch), 3)):
            alone[part] += (neighbours[rows] < 0).all(axis=1).mean() / 20
            pull[part] += met[rows].mean() / 20
    np.testing.assert_allclose(alone, 0.2, atol=0.03)
    np.testing.assert_allclose(pull, pull.mean(), rtol=0.1)


@pytest.mark.parametrize("gradient", [False, True])
def test_a_batch_of_all_images_pulls_as_neighbours_passed_through(
    dataset: Dataset, graph: Graph, gradient: bool
) -> None:
    """In evaluation mode, where a prediction does not depend on its company."""
    model = build("resnet18", 3, seed=1).eval()
    target = targets(dataset, "majority")
    batch = batch_of(dataset, model, np.random.default_rng(1).permutation(dataset.rows("train")))
    losses = (
        cross_entropy_with_batch(target, graph, 0.3, neighbour_gradient=gradient),
        cross_entropy_with_neighbours(target, graph, 0.3, neighbour_gradient=gradient),
    )
    ours, forwarded = (loss(model, batch) for loss in losses)
    torch.testing.assert_close(ours, forwarded)
    gradients = [
        torch.autograd.grad(torch.stack(list(terms.values())).sum(), list(model.parameters()), retain_graph=True)
        for terms in (ours, forwarded)
    ]
    torch.testing.assert_close(gradients[0], gradients[1])


def test_a_batch_pulls_towards_nobody_outside_it(dataset: Dataset, graph: Graph) -> None:
    model = build("resnet18", 3, seed=1).eval()
    row = int(np.flatnonzero((graph.neighbours >= 0).all(axis=1))[0])
    loss = cross_entropy_with_batch(targets(dataset, "majority"), graph, 0.3)
    alone = loss(model, batch_of(dataset, model, np.array([row])))["lambda_omega"]
    assert alone.tolist() == [0]
    pair = loss(model, batch_of(dataset, model, np.array([row, graph.neighbours[row, 1]])))["lambda_omega"]
    assert pair[0] > 0


def test_a_loss_that_is_not_finite_stops_the_run_with_the_batchs_ids(dataset: Dataset, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"the loss is (nan|inf); the batch's images are face\d{4}, face\d{4}"):
        trained(dataset, tmp_path / "model", replace(RECIPE, epochs=30, learning_rate=1e18))


def test_labels_from_a_crowd_that_is_not_there_are_refused(dataset: Dataset) -> None:
    silent = replace(dataset, card=replace(dataset.card, truth=""))
    with pytest.raises(TrainingError, match="no crowd distributions; use majority"):
        targets(silent, "distribution")
    np.testing.assert_allclose(targets(dataset, "distribution").sum(dim=1), 1, atol=1e-6)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_said_at_once() -> None:
    with pytest.raises(TrainingError, match="torch sees no GPU"):
        choose_device("cuda")


SCRIPT = """
import sys, torch
from pathlib import Path
sys.path.insert(0, "tests")
from test_training import RECIPE, replace, trained_in
torch.set_num_threads(1)
trained_in(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
"""


def trained_in(dataset_folder: Path, folder: Path, model: str) -> None:
    """What the killed process runs: six epochs, long enough to be hit between them."""
    folder.mkdir(parents=True, exist_ok=True)
    dataset = open_dataset(dataset_folder)
    augment = AugmentSettings((0.5, 1.0))
    if model == "EF SLL":
        recipe = replace(RECIPE, epochs=6, schedule="one-cycle")
        loss = cross_entropy_to(targets(dataset, "majority"))
        train(Training(model, "efficientface", recipe, 6, augment, 1, loss), dataset, folder, CPU, JsonLines())
    else:
        ldg = replace(LDG, epochs=6, decay_every=2, precision="bfloat16", neighbours_drawn=1, lambda_=0.5)
        ldg = replace(ldg, neighbours=model.removeprefix("LDG-AUs, "))
        experiment = Experiment(augment=augment, ldg=ldg)
        train_ldg(experiment, dataset, "majority", chain_graph(dataset), 1, folder, CPU, JsonLines())


@pytest.mark.parametrize("model", ["EF SLL", "LDG-AUs, forward", "LDG-AUs, bank", "LDG-AUs, batch"])
def test_after_sigkill_training_resumes_and_ends_with_the_same_bits(
    dataset: Dataset, tmp_path: Path, model: str
) -> None:
    command = [sys.executable, "-c", SCRIPT, str(tmp_path / "dataset")]
    undisturbed, killed = tmp_path / "undisturbed", tmp_path / "killed"
    subprocess.run([*command, str(undisturbed), model], check=True, stdout=subprocess.DEVNULL)
    with subprocess.Popen([*command, str(killed), model], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        epochs = (line for line in child.stdout if '"metrics"' in line)
        assert json.loads(next(epochs))["epoch"] == 1
        next(epochs)
        time.sleep(0.1)
        os.kill(child.pid, signal.SIGKILL)
    assert (killed / "resume.pt").exists()
    finished = subprocess.run([*command, str(killed), model], check=True, stdout=subprocess.PIPE, text=True).stdout
    resumed = [json.loads(line)["epoch"] for line in finished.splitlines() if '"metrics"' in line]
    assert 1 not in resumed
    assert resumed[-1] == 6
    for name in ("last.safetensors", "selected.safetensors"):
        assert (killed / name).read_bytes() == (undisturbed / name).read_bytes()


def test_a_damaged_resume_file_is_told_of_and_training_starts_again(
    dataset: Dataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "resume.pt").write_bytes(b"PK half a file")
    loss = cross_entropy_to(targets(dataset, "majority"))
    training = Training("EF SLL", "efficientface", RECIPE, 2, AugmentSettings((0.8, 1.0)), 1, loss)
    train(training, dataset, tmp_path / "model", CPU, JsonLines())
    assert "resume.pt: damaged" in capsys.readouterr().out
    assert same(weights(tmp_path / "model"), weights(trained(dataset, tmp_path / "undisturbed")))
