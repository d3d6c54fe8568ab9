"""A cell of the learning curve: what it learns from, as tensors, and the captured step that learns it.

All that tells one way from another is data (targets, weights, links, views); what differs in kind is `Structure`. So a
step is captured once for a structure and replayed for every cell of it, each network on a CUDA stream of its own: the
networks are far too small to fill a large GPU one at a time. On a CPU the same step runs as it stands.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from curve_data import CLASSES, standardised
from torch import Tensor, nn

from fer_core.graph.propagation import SHRINKAGE, linear_discriminant, mixed, propagated, smoothed
from fer_core.models.architectures import build
from fer_core.train.losses import neighbour_divergence, soft_cross_entropy
from fer_core.train.self_training import confident

MOMENTUM, WEIGHT_DECAY = 0.9, 5e-4
OMEGA_NEIGHBOURS, LABELLED_NEIGHBOURS, MIXED_NEIGHBOURS = 4, 8, 16
OWN_FROM = 0.25
"""Share of a training after which a network's own predictions teach it."""
CROP_AREA, CROP_RATIO = (0.5, 1.0), (0.8, 1.25)
_STRONG = {"contrast": 0.5, "brightness": 0.5, "turn": 0.5, "erased": 0.4}
"""FixMatch's strong view: factors 0.5 to 1.5, ± deviations, ± radians, side of the grey square over the side."""
_WARM_UPS = 2
_AT_A_TIME = 4096
"""Rows of the distance matrix held in memory at once."""
FEW = 10


@dataclass(frozen=True)
class Faces:
    """The training images and all that is known about them, and the images that are judged; tensors on the device."""

    images: Tensor
    """(N, S, S) uint8."""
    labels: Tensor
    """(N,) int64."""
    crowd: Tensor
    """(N, C), rows sum to 1."""
    usable: Tensor
    """(N,) bool: has action units."""
    spaces: dict[str, Tensor]
    """(N, D) by name."""
    judged: Tensor
    """(M, S, S) uint8: validation, then test."""
    mean: float
    std: float
    """Mean and deviation of the training images, in 0..255."""
    omega: dict[str, tuple[Tensor, Tensor]] = field(default_factory=dict)
    """(N, k) neighbours and similarities by space, over all training faces; made once."""


@dataclass(frozen=True)
class Structure:
    """What a captured step is shaped by."""

    labelled: int
    unlabelled: int
    neighbours: bool = False
    """There is an Ω."""
    own: bool = False
    """A network's own predictions teach it."""
    architecture: Literal["resnet18", "efficientface"] = "resnet18"

    @property
    def cost(self) -> float:
        """Images a step as ResNet-18 takes them; a forward pass alone counts as a third, an EfficientFace as four."""
        images = self.labelled + self.unlabelled * (4 / 3 if self.own else 1)
        return images * (4 if self.architecture == "efficientface" else 1)


@dataclass
class Lesson:
    """What a cell learns from. N training faces, C classes."""

    target: Tensor
    """(N, C)."""
    weight: Tensor
    """(N,) of the cross-entropy."""
    links: Tensor
    """(N, k) row numbers, −1 where there is none."""
    pull: Tensor
    """(N, k) λ·a_ij."""
    own_weight: Tensor
    """(N,) of the cross-entropy to the network's own prediction."""
    threshold: float = 1.1
    instead: float = 0.0
    """1 where a network's own prediction replaces the target, 0 where both count."""


def nearest(vectors: Tensor, among: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Find the exact k nearest of some rows for every row; an image is never its own neighbour.

    Args:
        vectors: (N, D), one for every image; no NaN.
        among: (M,) int64 row numbers that may be chosen, M > k.

    Returns:
        (N, k) int64 row numbers, nearest first, and (N, k) Euclidean distances.
    """
    assert len(among) > k
    chosen = vectors[among]
    rows, distances = [], []
    for start in range(0, len(vectors), _AT_A_TIME):
        part = torch.cdist(vectors[start : start + _AT_A_TIME], chosen)  # (B, M)
        # (B, M): true where a row meets itself, which is infinitely far.
        own = torch.arange(start, start + len(part), device=vectors.device)[:, None] == among
        distance, place = part.masked_fill(own, torch.inf).topk(k, largest=False)
        rows.append(among[place])
        distances.append(distance)
    return torch.cat(rows), torch.cat(distances)


def similarity(distance: Tensor) -> Tensor:
    """a_ij = exp(−d_ij / median d): the paper's similarity with σ² the median distance, or 1 where that is 0."""
    median = distance.median()
    return torch.exp(-distance / torch.where(median > 0, median, 1.0))


def faces_from(path: str, device: torch.device, *, few: bool = False) -> tuple[Faces, dict[str, np.ndarray]]:
    """The slim FER+, and what stays on the CPU for judging: votes and labels of validation and test.

    Args:
        few: each FEW-th image, every third pixel of a line, for a quick look.
    """
    arrays = dict(np.load(path))
    usage = arrays["usage"]
    pixels = np.cumsum(np.cumsum(arrays.pop("images_delta2d"), 1, dtype=np.uint8), 2, dtype=np.uint8)
    train = np.flatnonzero(usage == 0)
    parts = [np.flatnonzero(usage == part) for part in (1, 2)]
    if few:
        train, *parts = (rows[::FEW] for rows in (train, *parts))
        pixels = pixels[:, ::3, ::3]
    judged = np.concatenate(parts)
    votes = arrays["votes"].astype(np.float32)
    crowd = votes / votes.sum(axis=1, keepdims=True)
    intensities, landmarks = (standardised(arrays[name]) for name in ("intensities", "landmarks"))
    spaces = {
        "intensities": intensities / np.sqrt(intensities.shape[1]),
        "both": np.hstack([s / np.sqrt(s.shape[1]) for s in (intensities, landmarks)]),
        "columns": np.hstack([intensities, landmarks]),
    }
    on = {name: torch.from_numpy(values[train]).float().to(device) for name, values in spaces.items()}
    faces = Faces(
        images=torch.from_numpy(pixels[train]).to(device),
        labels=torch.from_numpy(arrays["label"][train].astype(np.int64)).to(device),
        crowd=torch.from_numpy(crowd[train]).to(device),
        usable=torch.from_numpy(arrays["usable"][train]).to(device),
        spaces=on,
        judged=torch.from_numpy(pixels[judged]).to(device),
        mean=float(pixels[train].mean()),
        std=float(pixels[train].std()),
    )
    among = faces.usable.nonzero().flatten()
    for name in ("intensities", "both"):
        near, distance = nearest(on[name], among, OMEGA_NEIGHBOURS)
        faces.omega[name] = near, similarity(distance)
    return faces, {"label": arrays["label"][judged], "crowd": crowd[judged], "usage": usage[judged]}


def labelled_rows(labels: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Rows that keep their label, classes in proportion and each at least once; those of a smaller count among them."""
    if count >= len(labels):
        return np.arange(len(labels))
    generator = np.random.default_rng([seed, 1])
    order = generator.permutation(len(labels))
    place = np.empty(len(labels))
    for name in np.unique(labels):
        members = order[labels[order] == name]
        place[members] = np.arange(len(members)) / len(members)
        place[members[0]] = -1
    return np.sort(np.argsort(place, kind="stable")[:count])


def lesson(way: str, setting: dict[str, Any], faces: Faces, labelled: Tensor, seed: int) -> Lesson:
    """What one way makes of the labels of some rows.

    Args:
        labelled: (n,) row numbers, the only ones whose labels or votes are looked at.
    """
    count, device = len(faces.labels), faces.labels.device
    draw = torch.Generator().manual_seed(seed)
    hard = torch.zeros(count, CLASSES, device=device)
    hard[labelled] = nn.functional.one_hot(faces.labels[labelled], CLASSES).float()
    has_label = torch.zeros(count, dtype=torch.bool, device=device)
    has_label[labelled] = True
    # A face without action units has no neighbours and no propagated label.
    reached = faces.usable & ~has_label
    unlinked = torch.full((count, OMEGA_NEIGHBOURS), -1, device=device)
    made = Lesson(
        hard, has_label.float(), unlinked, torch.zeros(unlinked.shape, device=device), torch.zeros_like(hard[:, 0])
    )
    sources = labelled[faces.usable[labelled]]
    space = faces.spaces[setting.get("space", "both")]

    if way == "smoothing":
        made.target = smoothed(hard, setting["share"])
    elif way == "votes":
        made.target = torch.where(has_label[:, None], faces.crowd, 0.0)
    elif way in ("mixed", "mixed_random"):
        near, distance = nearest(space, sources, MIXED_NEIGHBOURS)
        near = _random_like(near, sources, draw) if way == "mixed_random" else near
        neighbours = propagated(hard, near, similarity(distance))
        made.target = torch.where(faces.usable[:, None], mixed(hard, neighbours, setting["share"]), hard)
    elif way in ("omega", "omega_random"):
        among = faces.usable.nonzero().flatten()
        near, alike = faces.omega[setting.get("space", "both")]
        near = _random_like(near, among, draw) if way == "omega_random" else near
        made.links = torch.where(faces.usable[:, None], near, -1)
        lambda_ = setting["pull"] / alike[faces.usable].sum(dim=1).mean()
        made.pull = torch.where(faces.usable[:, None], lambda_ * alike, 0.0)
    elif way.startswith("propagated"):
        near, distance = nearest(space, sources, LABELLED_NEIGHBOURS)
        near = _random_like(near, sources, draw) if way.startswith("propagated_random") else near
        made.target = torch.where(reached[:, None], propagated(hard, near, similarity(distance)), hard)
        made.weight = made.weight + setting["weight"] * reached
    elif way.startswith("linear"):
        columns = faces.spaces["columns"].double()
        weights, biases = linear_discriminant(columns[sources], hard[sources].double(), SHRINKAGE)
        made.target = torch.where(reached[:, None], (columns @ weights + biases).softmax(dim=1).float(), hard)
        made.weight = made.weight + setting["weight"] * reached
    else:
        assert way in ("ldg", "pseudo", "fixmatch"), way
    if "threshold" in setting:
        made.own_weight = setting.get("own_weight", 1.0) * (~has_label).float()
        made.threshold, made.instead = setting["threshold"], setting.get("instead", 0.0)
    return made


def _random_like(near: Tensor, among: Tensor, draw: torch.Generator) -> Tensor:
    """Other images in the place of neighbours, so that all else stays."""
    return among[torch.randint(len(among), near.shape, generator=draw).to(among.device)]


@dataclass
class Schedule:
    """Everything random of a training, drawn before it: which rows a step takes, and how it sees them."""

    rows: Tensor
    """(T, B) int64, the labelled first."""
    views: Tensor
    """(T, B, 12) float32: a 2 × 3 affine map, contrast, brightness, and the erased box, its four sides in −1..1."""
    rate: Tensor
    """(T,) learning rates."""
    own: Tensor
    """(T,) 0 until a network's own predictions count, then 1."""


def schedule(
    structure: Structure, labelled: Tensor, count: int, steps: int, rate: float, seed: int, *, strong: bool = False
) -> Schedule:
    """The same rows and views for every way of a seed that has this structure's batches.

    Args:
        labelled: (n,) rows; the unlabelled are the others of `count`.
        strong: whether unlabelled faces are seen in FixMatch's strong view.
    """
    device = labelled.device
    draw = torch.Generator(device).manual_seed(1000 * seed + 17)
    rows = _in_turn(labelled, steps, structure.labelled, draw)
    views = _views(steps, structure.labelled, draw)
    if structure.unlabelled:
        others = torch.ones(count, dtype=torch.bool, device=device)
        others[labelled] = False
        rows = torch.cat((rows, _in_turn(others.nonzero().flatten(), steps, structure.unlabelled, draw)), dim=1)
        views = torch.cat((views, _views(steps, structure.unlabelled, draw, strong=strong)), dim=1)
    at = torch.arange(steps, device=device)
    return Schedule(rows, views, one_cycle(steps, rate).to(device), (at >= OWN_FROM * steps).float())


def one_cycle(steps: int, highest: float) -> Tensor:
    """(T,) rates as torch's OneCycleLR gives them: up along a cosine for 30 %, then down to next to nothing."""
    place = torch.arange(steps, dtype=torch.float64)
    rise = max(0.3 * steps - 1, 1)
    up = _cosine(highest / 25, highest, place / rise)
    down = _cosine(highest, highest / 25e4, (place - rise) / max(steps - 1 - rise, 1))
    return torch.where(place <= rise, up, down).float()


def _cosine(start: float, end: float, share: Tensor) -> Tensor:
    return end + (start - end) / 2 * (1 + torch.cos(torch.pi * share.clamp(0, 1)))


def _in_turn(rows: Tensor, steps: int, batch: int, draw: torch.Generator) -> Tensor:
    """(steps, batch): every row once before any comes again."""
    rounds = -(-steps * batch // len(rows))
    order = torch.rand(rounds, len(rows), generator=draw, device=rows.device).argsort(dim=1)
    return rows[order].flatten()[: steps * batch].view(steps, batch)


def _views(steps: int, batch: int, draw: torch.Generator, *, strong: bool = False) -> Tensor:
    def uniform(low: float, high: float) -> Tensor:
        return torch.empty(steps, batch, device=draw.device).uniform_(low, high, generator=draw)

    area, ratio = uniform(*CROP_AREA), uniform(*np.log(CROP_RATIO).tolist()).exp()
    width, height = (area * ratio).sqrt().clamp(max=1), (area / ratio).sqrt().clamp(max=1)
    left, top = uniform(-1, 1) * (1 - width), uniform(-1, 1) * (1 - height)  # the crop's centre in −1..1
    side = torch.where(uniform(0, 1) < 0.5, -1.0, 1.0)
    turn = uniform(-1, 1) * (_STRONG["turn"] if strong else 0)
    contrast = 1 + uniform(-1, 1) * (_STRONG["contrast"] if strong else 0)
    brightness = uniform(-1, 1) * (_STRONG["brightness"] if strong else 0)
    half = _STRONG["erased"] if strong else -1.0  # a box that ends before it begins holds nothing
    x, y = uniform(-1, 1), uniform(-1, 1)
    affine = (
        side * width * turn.cos(),
        -height * turn.sin(),
        left,
        side * width * turn.sin(),
        height * turn.cos(),
        top,
    )
    return torch.stack((*affine, contrast, brightness, x - half, y - half, x + half, y + half), dim=2)


def seen(images: Tensor, views: Tensor, mean: float, std: float) -> Tensor:
    """Random views: (B, S, S) uint8 and (B, 12) → (B, 3, S, S) normalised, channels last."""
    side = images.shape[-1]
    grid = nn.functional.affine_grid(views[:, :6].view(-1, 2, 3), [len(images), 1, side, side], align_corners=False)
    pixels = (images[:, None].float() - mean) / std
    pixels = nn.functional.grid_sample(pixels, grid, padding_mode="border", align_corners=False)
    pixels = pixels * views[:, 6, None, None, None] + views[:, 7, None, None, None]
    place = (torch.arange(side, device=images.device) + 0.5) * (2 / side) - 1
    left, top, right, bottom = views[:, 8:, None].unbind(dim=1)  # (B, 1) each
    across, down = (place > left) & (place < right), (place > top) & (place < bottom)  # (B, S) each
    pixels = torch.where((down[:, :, None] & across[:, None, :])[:, None], 0.0, pixels)
    return as_input(pixels)


def plain(images: Tensor, mean: float, std: float) -> Tensor:
    """The images as they are: (B, S, S) uint8 → (B, 3, S, S) normalised, channels last."""
    return as_input((images[:, None].float() - mean) / std)


def as_input(pixels: Tensor) -> Tensor:
    return pixels.expand(-1, 3, -1, -1).contiguous(memory_format=torch.channels_last)


def fresh(architecture: Literal["resnet18", "efficientface"], seed: int, device: torch.device) -> nn.Module:
    """A new network, its weights drawn on the device: a CPU takes a tenth of a second for each."""
    with device:
        model = build(architecture, CLASSES, seed)
    for layer in model.modules():
        if isinstance(layer, nn.modules.batchnorm._BatchNorm):
            layer.num_batches_tracked = None  # a kernel a layer and step, for a number nobody reads
    return model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]


class Slot:
    """A network of one structure, its optimiser, and the tensors that its step reads; filled anew for every cell."""

    def __init__(self, structure: Structure, faces: Faces, steps: int) -> None:
        device, count = faces.labels.device, len(faces.labels)
        batch = structure.labelled + structure.unlabelled
        self.structure, self.faces, self.steps, self.device = structure, faces, steps, device
        self.model = fresh(structure.architecture, 0, device)
        self.parameters = list(self.model.parameters())
        self.rate = torch.zeros((), device=device)
        self.optimiser = torch.optim.SGD(
            self.parameters,
            self.rate,
            momentum=MOMENTUM,
            weight_decay=WEIGHT_DECAY,
            nesterov=True,
            fused=device.type == "cuda",
        )
        self.at = torch.zeros(1, dtype=torch.int64, device=device)
        self.schedule = Schedule(
            torch.zeros(steps, batch, dtype=torch.int64, device=device),
            torch.zeros(steps, batch, 12, device=device),
            torch.zeros(steps, device=device),
            torch.zeros(steps, device=device),
        )
        links = torch.full((count, OMEGA_NEIGHBOURS), -1, device=device)
        self.lesson = Lesson(
            torch.full((count, CLASSES), 1 / CLASSES, device=device),
            torch.ones(count, device=device),
            links,
            torch.zeros(links.shape, device=device),
            torch.zeros(count, device=device),
        )
        self.threshold, self.instead = torch.zeros((), device=device), torch.zeros((), device=device)
        self.bank = torch.full((count, CLASSES), torch.nan, device=device)
        labelled, unlabelled = structure.labelled, structure.unlabelled
        share = [1 / labelled] * labelled + [1 / max(unlabelled, 1)] * unlabelled
        self.share = torch.tensor(share, device=device)
        """Each image's part of the loss: the labelled faces' mean plus the unlabelled faces' mean."""
        self.advance: Callable[[], None] = self.step
        self.stream = torch.cuda.Stream(device) if device.type == "cuda" else None

    def load(self, lesson: Lesson, schedule: Schedule, weights: dict[str, Tensor]) -> None:
        """Everything of a new cell, copied into the tensors that the step reads."""
        for name in ("rows", "views", "rate", "own"):
            drawn = getattr(schedule, name)
            getattr(self.schedule, name)[: len(drawn)].copy_(drawn)
        for name in ("target", "weight", "links", "pull", "own_weight"):
            getattr(self.lesson, name).copy_(getattr(lesson, name))
        self.threshold.fill_(lesson.threshold)
        self.instead.fill_(lesson.instead)
        for name, value in self.model.state_dict().items():
            value.copy_(weights[name])
        for state in self.optimiser.state.values():
            state["momentum_buffer"].zero_()
        self.bank.fill_(torch.nan)
        self.at.zero_()

    def step(self) -> None:
        """One step of SGD, without a word to the host."""
        rows = self.schedule.rows.index_select(0, self.at)[0]  # (B,)
        views = self.schedule.views.index_select(0, self.at)[0]
        self.rate.copy_(self.schedule.rate.index_select(0, self.at)[0])
        images = self.faces.images[rows]
        own = self._own_predictions(images[self.structure.labelled :]) if self.structure.own else None
        self.model.train()
        logits = self._forward(seen(images, views, self.faces.mean, self.faces.std))
        loss = (self.share * self.terms(rows, logits, own)).sum()
        for parameter, gradient in zip(self.parameters, torch.autograd.grad(loss, self.parameters), strict=True):
            # The fused optimiser wants gradients laid out like their parameters.
            laid_out = gradient.stride() == parameter.stride()
            parameter.grad = gradient if laid_out else torch.empty_like(parameter).copy_(gradient)
        self.optimiser.step()
        if self.structure.neighbours:
            self.bank.index_copy_(0, rows, torch.log_softmax(logits.detach().float(), dim=1))
        self.at.add_(1)

    def _forward(self, images: Tensor) -> Tensor:
        """(B, C) float32 logits; the network alone is in bfloat16, the views' coordinates are not."""
        cuda = self.device.type == "cuda"
        with torch.autocast(self.device.type, torch.bfloat16, enabled=cuda, cache_enabled=False):
            logits: Tensor = self.model(images)
        return logits.float()

    @torch.no_grad()
    def _own_predictions(self, images: Tensor) -> Tensor:
        """(B, C) logits of plain images, from the running averages."""
        self.model.eval()
        return self._forward(plain(images, self.faces.mean, self.faces.std))

    def terms(self, rows: Tensor, logits: Tensor, own: Tensor | None) -> Tensor:
        """(B,) each image's loss."""
        lesson = self.lesson
        weight, extra = lesson.weight[rows], torch.zeros((), device=self.device)
        if own is not None:
            labels, sure = confident(own, self.threshold)
            sure = sure * self.schedule.own.index_select(0, self.at)
            split = self.structure.labelled
            own_loss = soft_cross_entropy(logits[split:], labels) * sure * lesson.own_weight[rows[split:]]
            extra = torch.cat((torch.zeros(split, device=self.device), own_loss))
            kept = torch.cat((torch.ones(split, device=self.device), 1 - self.instead * sure))
            weight = weight * kept
        if self.structure.neighbours:
            links, pull = lesson.links[rows], lesson.pull[rows]
            remembered = self.bank[links.clamp(min=0)]  # (B, k, C)
            known = torch.isfinite(remembered).all(dim=-1) & (links >= 0)
            remembered = torch.where(known.unsqueeze(-1), remembered, 0.0)
            extra = extra + neighbour_divergence(logits, remembered, torch.where(known, pull, 0.0))
        return weight * soft_cross_entropy(logits, lesson.target[rows]) + extra

    def capture(self) -> None:
        """Let `advance` replay the step as one graph. On a CPU, or where capturing fails, it stays the step itself."""
        if self.stream is None:
            return
        self.stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self.stream):
            for _ in range(_WARM_UPS):
                self.at.zero_()
                self.step()
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=self.stream):
            self.step()
        self.advance = graph.replay

    def logits(self, images: Tensor) -> Tensor:
        """(M, C) float32 of plain images, by the network as it stands."""
        return torch.cat([self._own_predictions(part) for part in images.split(4096)])
