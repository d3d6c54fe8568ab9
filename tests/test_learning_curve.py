"""The learning curve's captured step against a slow, plain training; its draws, its choices, and its statistics."""

import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.spatial import cKDTree
from torch import nn

ROOT = Path(__file__).parent.parent
FACES, CLASSES, SIDE = 60, 7, 32


@pytest.fixture(autouse=True)
def benchmarks_importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))


@pytest.fixture
def faces() -> Any:
    from curve_cells import OMEGA_NEIGHBOURS, Faces, nearest, similarity

    draw = torch.Generator().manual_seed(1)
    vectors = torch.randn(FACES, 5, generator=draw)
    usable = torch.arange(FACES) % 6 != 0
    near, distance = nearest(vectors, usable.nonzero().flatten(), OMEGA_NEIGHBOURS)
    return Faces(
        images=torch.randint(0, 256, (FACES, SIDE, SIDE), generator=draw, dtype=torch.uint8),
        labels=torch.arange(FACES) % CLASSES,
        crowd=torch.rand(FACES, CLASSES, generator=draw).softmax(dim=1),
        usable=usable,
        spaces={"both": vectors, "intensities": vectors, "columns": vectors},
        judged=torch.zeros(2, SIDE, SIDE, dtype=torch.uint8),
        mean=127.0,
        std=64.0,
        omega={"both": (near, similarity(distance))},
    )


def test_the_nearest_are_those_of_a_tree_and_never_the_image_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    from curve_cells import nearest

    monkeypatch.setattr("curve_cells._AT_A_TIME", 7)
    vectors = torch.randn(50, 5, generator=torch.Generator().manual_seed(1))
    among = torch.tensor([3, 8, 9, 20, 21, 33, 49])
    rows, distance = nearest(vectors, among, k=3)
    for image in range(50):
        others = among[among != image].numpy()
        apart, place = cKDTree(vectors[others].numpy()).query(vectors[image].numpy(), k=3)
        assert rows[image].tolist() == others[place].tolist()
        np.testing.assert_allclose(distance[image].numpy(), apart, rtol=1e-4, atol=1e-4)


def test_similarity_is_one_over_e_at_the_median_distance() -> None:
    from curve_cells import similarity

    alike = similarity(torch.tensor([[0.0, 2.0, 6.0]]))
    torch.testing.assert_close(alike, torch.tensor([[1.0, math.exp(-1), math.exp(-3)]]))


def test_equal_vectors_have_similarity_one() -> None:
    from curve_cells import similarity

    assert similarity(torch.zeros(2, 2)).tolist() == [[1.0, 1.0], [1.0, 1.0]]


def small_network(architecture: str, classes: int, seed: int) -> nn.Module:
    """Batch normalisation and all, and smooth, so that rounding does not grow from step to step."""
    torch.manual_seed(seed)
    stem = nn.Sequential(
        nn.Conv2d(3, 12, 3, 2, bias=False), nn.BatchNorm2d(12), nn.Softplus(), nn.Conv2d(12, 16, 3, 2, bias=False)
    )
    return nn.Sequential(stem, nn.BatchNorm2d(16), nn.Softplus(), nn.Flatten(), nn.Linear(16 * 49, classes))


def plain_training(way: str, setting: dict[str, Any], faces: Any, rows: list[int], drawn: Any, weights: Any) -> Any:
    """The same training image by image, written anew from the definitions; the views and their order are given."""
    from curve_cells import plain, seen
    from learning_curve import STRUCTURES

    model = small_network("", CLASSES, 0)
    missing, unexpected = model.load_state_dict(weights, strict=False)
    assert not unexpected
    assert all("num_batches_tracked" in name for name in missing), "all but what no prediction needs"
    optimiser = torch.optim.SGD(model.parameters(), 1.0, momentum=0.9, weight_decay=5e-4, nesterov=True)
    steps, labelled_in_batch = len(drawn.rate), 8
    vectors = faces.spaces["both"].numpy()
    sources = [row for row in rows if faces.usable[row]]
    remembered: dict[int, torch.Tensor] = {}
    neighbours, alike = faces.omega["both"]
    of_usable = [float(alike[i].sum()) for i in range(FACES) if faces.usable[i]]
    apart = np.array(
        [
            np.sort(np.linalg.norm(vectors[[s for s in sources if s != i]] - vectors[i], axis=1))[:8]
            for i in range(FACES)
        ]
    )
    median = np.sort(apart.flatten())[(apart.size - 1) // 2]

    def target(row: int) -> torch.Tensor | None:
        hard = torch.eye(CLASSES)[faces.labels[row]]
        if row in rows:
            share = setting.get("share", 0.0)
            return (
                (1 - share) * hard + share / CLASSES
                if way == "smoothing"
                else faces.crowd[row]
                if way == "votes"
                else hard
            )
        if not way.startswith("propagated") or not faces.usable[row]:
            return None
        distance = {s: np.linalg.norm(vectors[s] - vectors[row]) for s in sources if s != row}
        chosen = sorted(distance, key=lambda s: distance[s])[:8]
        mass = torch.zeros(CLASSES)
        for s in chosen:
            mass[faces.labels[s]] += float(np.exp(-distance[s] / median))
        return mass / mass.sum()

    for step in range(steps):
        optimiser.param_groups[0]["lr"] = float(drawn.rate[step])
        batch = drawn.rows[step].tolist()
        with torch.no_grad():
            model.eval()
            own = model(plain(faces.images[batch], faces.mean, faces.std)).softmax(dim=1)
        model.train()
        log_probabilities = model(seen(faces.images[batch], drawn.views[step], faces.mean, faces.std)).log_softmax(
            dim=1
        )
        loss = torch.zeros(())
        for place, row in enumerate(batch):
            share = 1 / labelled_in_batch if place < labelled_in_batch else 1 / (len(batch) - labelled_in_batch)
            wanted, found = target(row), log_probabilities[place]
            weight = 1.0 if row in rows else setting.get("weight", 0.0)
            sure = "threshold" in setting and row not in rows and float(own[place].max()) >= setting["threshold"]
            sure = sure and step >= 0.25 * steps
            if wanted is not None and not (sure and setting.get("instead")):
                loss = loss - share * weight * (wanted * found).sum()
            if sure:
                loss = loss - share * found[own[place].argmax()]
            if way == "omega" and faces.usable[row]:
                for neighbour, a in zip(neighbours[row].tolist(), alike[row].tolist(), strict=True):
                    if neighbour in remembered:
                        before = remembered[neighbour]
                        pull = setting["pull"] / np.mean(of_usable) * a
                        loss = loss + share * pull * (before.exp() * (before - found)).sum()
        if STRUCTURES[way].neighbours:
            remembered |= {row: log_probabilities[place].detach() for place, row in enumerate(batch)}
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return model


@pytest.mark.parametrize(
    ("way", "setting"),
    [
        ("ldg", {}),
        ("smoothing", {"share": 0.3}),
        ("votes", {}),
        ("omega", {"pull": 0.8}),
        ("propagated", {"weight": 0.7}),
        ("fixmatch", {"threshold": 0.25}),
        ("propagated_pseudo", {"weight": 0.7, "threshold": 0.25, "instead": 1.0}),
    ],
)
def test_a_step_learns_what_a_plain_training_learns(
    faces: Any, way: str, setting: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from curve_cells import Slot, fresh, labelled_rows, lesson, schedule
    from learning_curve import STRUCTURES

    monkeypatch.setattr("curve_cells.build", small_network)
    steps, seed, cpu = 8, 3, torch.device("cpu")
    structure = replace(STRUCTURES[way], labelled=8, unlabelled=16 if STRUCTURES[way].unlabelled else 0)
    rows = labelled_rows(faces.labels.numpy(), 21, seed)
    labelled = torch.from_numpy(rows)
    drawn = schedule(structure, labelled, FACES, steps, 0.1, seed, strong=way == "fixmatch")
    weights = fresh("resnet18", seed, cpu).state_dict()
    slot = Slot(structure, faces, steps + 4)
    for other in ("another cell before", "this"):
        before = fresh("resnet18", 99, cpu).state_dict() if other != "this" else weights
        slot.load(lesson(way, setting, faces, labelled, seed), drawn, before)
        for _ in range(steps):
            slot.advance()
    expected = plain_training(way, setting, faces, rows.tolist(), drawn, weights).eval()
    start = fresh("resnet18", seed, cpu).state_dict()
    for name, value in expected.state_dict().items():
        if "num_batches" not in name:
            moved = float((value - start[name]).norm())
            assert float((slot.model.state_dict()[name] - value).norm()) <= 1e-4 * moved, name


def test_the_rate_is_torchs_one_cycle() -> None:
    from curve_cells import one_cycle

    parameter = nn.Parameter(torch.zeros(1))
    optimiser = torch.optim.SGD([parameter], 0.1)
    theirs = torch.optim.lr_scheduler.OneCycleLR(optimiser, 0.1, total_steps=40, cycle_momentum=False)
    rates = []
    for _ in range(40):
        rates.append(theirs.get_last_lr()[0])
        optimiser.step()
        theirs.step() if len(rates) < 40 else None
    torch.testing.assert_close(one_cycle(40, 0.1), torch.tensor(rates), rtol=1e-4, atol=1e-7)


def test_labels_are_kept_in_proportion_and_fewer_are_among_more() -> None:
    from curve_cells import labelled_rows

    labels = np.repeat(np.arange(4), (500, 300, 190, 10))
    kept = {count: labelled_rows(labels, count, seed=2) for count in (20, 100, 400, 1000)}
    assert [len(rows) for rows in kept.values()] == [20, 100, 400, 1000]
    assert set(kept[20]) <= set(kept[100]) <= set(kept[400])
    counts = np.bincount(labels[kept[100]], minlength=4)
    assert (np.abs(counts - (50, 30, 19, 1)) <= 1).all()
    assert (np.bincount(labels[kept[20]]) > 0).all()
    assert set(labelled_rows(labels, 100, seed=3)) != set(kept[100])


def test_every_face_comes_once_before_any_comes_again_and_ways_see_the_same(faces: Any) -> None:
    from curve_cells import schedule
    from learning_curve import STRUCTURES

    structure = replace(STRUCTURES["pseudo"], labelled=5, unlabelled=10)
    labelled = torch.arange(0, FACES, 4)
    drawn = schedule(structure, labelled, FACES, 9, 0.1, seed=1)
    own = drawn.rows[:3, :5].flatten()
    others = drawn.rows[:4, 5:].flatten()
    assert sorted(own.tolist()) == labelled.tolist()
    assert len(set(others.tolist())) == 40
    assert not set(others.tolist()) & set(labelled.tolist())
    alone = schedule(replace(structure, unlabelled=0, own=False), labelled, FACES, 9, 0.1, seed=1)
    assert torch.equal(alone.rows, drawn.rows[:, :5])
    assert torch.equal(alone.views, drawn.views[:, :5])


def test_a_view_of_the_whole_image_is_the_image_and_a_mirrored_one_its_mirror(faces: Any) -> None:
    from curve_cells import plain, seen

    whole = torch.tensor([[1.0, 0, 0, 0, 1, 0, 1, 0, 2, 2, -2, -2]])
    mirrored = whole.clone()
    mirrored[0, 0] = -1
    image = faces.images[:1]
    expected = plain(image, faces.mean, faces.std)
    torch.testing.assert_close(seen(image, whole, faces.mean, faces.std), expected, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(seen(image, mirrored, faces.mean, faces.std), expected.flip(3), atol=1e-4, rtol=1e-4)
    erased = whole.clone()
    erased[0, 8:] = torch.tensor([-1.0, -1, 0, 1])  # the left half
    found = seen(image, erased, faces.mean, faces.std)
    assert (found[..., : SIDE // 2] == 0).all()
    torch.testing.assert_close(found[..., SIDE // 2 :], expected[..., SIDE // 2 :], atol=1e-4, rtol=1e-4)


def test_a_strength_is_the_one_of_the_least_mean_loss_and_controls_take_it_over() -> None:
    from learning_curve import chosen

    def line(way: str, loss: float, **setting: float | str) -> dict[str, Any]:
        return {"way": way, "setting": {"rate": 0.1, **setting}, "validation_loss": loss}

    lines = [
        line("ldg", 1.0, rate=0.05),
        line("ldg", 1.2),
        line("smoothing", 0.5, share=0.1),
        line("smoothing", 1.5, share=0.1),
        line("smoothing", 0.9, share=0.4),
        line("smoothing", 0.9, share=0.4),
        line("propagated", 0.7, weight=2.0, space="both"),
        line("pseudo", 0.8, threshold=0.95),
        line("fixmatch", 0.8, threshold=0.8),
        line("propagated_pseudo", 0.8, weight=1.0, threshold=0.8, instead=1.0),
    ]
    settings = chosen(lines)
    assert settings["smoothing"] == {"share": 0.4, "rate": 0.05}
    assert settings["propagated_random"] == {"weight": 2.0, "space": "both", "rate": 0.05}
    assert settings["propagated_pseudo"] == {
        "weight": 2.0, "space": "both", "threshold": 0.95, "instead": 1.0, "rate": 0.05,
    }  # fmt: skip
    assert settings["propagated_fixmatch"]["threshold"] == 0.8


def test_intervals_hold_the_doubt_of_seeds_and_of_images() -> None:
    from curve_summary import Bootstrap, interval

    draw = np.random.default_rng(0)
    images, seeds = draw.normal(0, 1, 400), draw.normal(0, 0.2, 8)
    bootstrap = Bootstrap(400, draws=3000)
    low, high = interval(bootstrap.means(seeds[:, None] + images))
    expected = 2 * 1.96 * np.sqrt(1 / 400 + seeds.var() / 8)
    assert high - low == pytest.approx(expected, rel=0.1)
    low, high = interval(bootstrap.means(np.full((8, 400), 0.3)))
    # 400 products are added in float32, each addition off by at most 2⁻²⁴ of the sum.
    assert (low, high) == pytest.approx((0.3, 0.3), rel=400 * 2**-24)


def test_labels_are_worth_what_the_curve_says_between_its_points() -> None:
    from curve_summary import Bootstrap, Judged, worth

    def judged(accuracy: float) -> Judged:
        values = np.zeros((2, 100))
        values[:, : int(accuracy)] = 100
        return Judged((1, 2), {"accuracy": values})

    groups = {("curve", n, "ldg"): judged(a) for n, a in ((250, 40), (1000, 60), (0, 80))}
    groups["curve", 250, "propagated"] = judged(50)
    found = worth(groups, Bootstrap(100), faces=16_000).iloc[0]
    assert found["worth_labels"] == pytest.approx(500)
    assert found["low"] <= 500 <= found["high"]


def test_measures_are_those_of_the_evaluation(faces: Any) -> None:
    from curve_summary import divergence, measures

    from fer_core.evaluation.calibration import fit_temperature
    from fer_core.evaluation.metrics import distribution_measures

    draw = np.random.default_rng(1)
    crowd, logits = draw.dirichlet(np.full(7, 0.3), 40), draw.normal(0, 2, (40, 7))
    crowd[0] = np.eye(7)[2]
    log_probabilities = np.log(np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True))
    label = crowd.argmax(axis=1)
    found = measures(log_probabilities, label, crowd, slice(0, 20), slice(20, None))
    theirs = distribution_measures(crowd[20:], np.exp(log_probabilities[20:]))
    np.testing.assert_allclose(found["kl"], theirs["kl"], rtol=1e-6)
    np.testing.assert_allclose(found["total_variation"], theirs["total_variation"], rtol=1e-4)
    assert found["temperature"] == pytest.approx(fit_temperature(logits[:20], label[:20]), rel=1e-3)
    assert divergence(crowd[:1], log_probabilities[:1])[0] == pytest.approx(-log_probabilities[0, 2])


def test_the_whole_study_runs_and_can_be_summarised(tmp_path: Path) -> None:
    """On drawn data, at tiny sizes, through its own commands."""
    draw = np.random.default_rng(0)
    count = 5600
    usage = np.repeat(np.arange(3, dtype=np.uint8), (5300, 150, 150))
    np.savez(
        tmp_path / "slim.npz",
        images_delta2d=draw.integers(0, 256, (count, 48, 48), dtype=np.uint8),
        votes=draw.integers(1, 5, (count, 7), dtype=np.uint8),
        label=(np.arange(count) % 7).astype(np.uint8),
        usage=usage,
        usable=draw.random(count) < 0.8,
        intensities=draw.integers(-30, 30, (count, 17)).astype(np.int8),
        landmarks=draw.integers(-30, 30, (count, 20)).astype(np.int8),
    )
    environment = {"PYTHONPATH": str(ROOT), "PATH": "", "OMP_NUM_THREADS": "1", "MPLCONFIGDIR": str(tmp_path)}
    program = [sys.executable, str(ROOT / "benchmarks" / "learning_curve.py"), "slim.npz", "out", "--quick"]
    run = subprocess.run(program, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stderr
    assert "done" in run.stdout
    summary = [sys.executable, str(ROOT / "benchmarks" / "curve_summary.py"), "slim.npz", "out"]
    told = subprocess.run(summary, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120)
    assert told.returncode == 0, told.stderr
    for name in ("models.csv", "means.csv", "differences.csv", "worth.csv", "learning_curve.png", "differences.png"):
        assert (tmp_path / "out" / name).stat().st_size > 200
