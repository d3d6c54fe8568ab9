"""Training with all of its data on the device, in steps of one shape, which a CUDA graph holds whole.

What an epoch draws, its order, crops and mirrorings, is drawn on the CPU as `fer_core` draws it and moved once; a step
then asks the CPU for nothing. Needs torch and numpy alone; without a GPU the same steps are taken one by one.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from inputs import MEAN, STD, Augmentation, Links
from torch import Tensor, nn

from fer_core.augment import random_boxes, resize_together
from fer_core.devices import mixed_precision
from fer_core.losses import neighbour_divergence, soft_cross_entropy

_WARM_UP = 3
Step = Callable[[], None]
RowLoss = Callable[[Tensor, Tensor], Tensor]
"""From (B, C) logits and (B,) row numbers on the device to (B,) losses."""


@dataclass(frozen=True)
class Plan:
    """What is drawn for some steps of one batch size, or, without the first axis, for one of them.

    rows: (steps, B) int64
    boxes: (steps, B, 4) float32
    mirrored: (steps, B) bool
    rate: (steps,) float32, the learning rate
    """

    rows: Tensor
    boxes: Tensor
    mirrored: Tensor
    rate: Tensor

    def step(self, number: int) -> "Plan":
        """One step's."""
        return Plan(self.rows[number], self.boxes[number], self.mirrored[number], self.rate[number])

    def take(self, other: "Plan") -> None:
        """Hold what another holds, at the same place in memory."""
        for mine, its in zip(vars(self).values(), vars(other).values(), strict=True):
            mine.copy_(its)

    def copy(self) -> "Plan":
        """The same elsewhere in memory."""
        return Plan(*(part.clone() for part in vars(self).values()))


def draw_epoch(count: int, batch: int, side: int, generator: torch.Generator, device: torch.device) -> Plan:
    """Every image once, but for those that would not fill a last batch."""
    augmentation, steps = Augmentation(), count // batch
    used = steps * batch
    rows = torch.randperm(count, generator=generator)[:used].view(steps, batch)
    boxes = random_boxes(used, side, augmentation, generator).float().view(steps, batch, 4)
    mirrored = (torch.rand(used, generator=generator) < augmentation.flip).view(steps, batch)
    return Plan(*(part.to(device) for part in (rows, boxes, mirrored, torch.full((steps,), 0.01))))


class ResidentImages:
    """Stored images on the device, and random views of them as `fer_core.augment.Views` makes them on a GPU."""

    def __init__(self, images: np.ndarray, size: int, device: torch.device) -> None:
        self.pixels, self.size = torch.from_numpy(images).to(device), size
        self.mean, self.std = (torch.tensor(values, device=device)[:, None, None] * 255 for values in (MEAN, STD))

    def views(self, plan: Plan) -> Tensor:
        """(B, 3, size, size) float32, channels last in memory."""
        pixels = self.pixels[plan.rows].permute(0, 3, 1, 2)
        pixels = torch.where(plan.mirrored[:, None, None, None], pixels.flip(3), pixels)
        resized = resize_together(pixels, plan.boxes, self.size)
        return resized.sub_(self.mean).div_(self.std).contiguous(memory_format=torch.channels_last)


def towards(target: Tensor) -> RowLoss:
    """Cross-entropy to (N, C) distributions on the device."""
    return lambda logits, rows: soft_cross_entropy(logits, target[rows])


def towards_neighbours_too(target: Tensor, links: Links, lambda_: float, bank: Tensor) -> RowLoss:
    """`fer_core.objectives.cross_entropy_with_bank`, with the bank and the links on the device."""
    neighbours = torch.from_numpy(links.neighbours.astype(np.int64)).to(bank.device)
    alike = torch.from_numpy(links.similarity).to(bank.device)

    def loss(logits: Tensor, rows: Tensor) -> Tensor:
        remembered = bank[neighbours[rows].clamp(min=0)]
        known = torch.isfinite(remembered).all(dim=-1) & (neighbours[rows] >= 0)
        weights = torch.where(known, alike[rows], 0.0)
        omega = neighbour_divergence(logits, torch.where(known.unsqueeze(-1), remembered, 0.0), weights)
        bank[rows] = torch.log_softmax(logits.detach().float(), dim=-1)
        return soft_cross_entropy(logits, target[rows]) + lambda_ * omega

    return loss


class ResidentTraining:
    """A model with its optimiser, whose every step is the same work on other rows.

    Args:
        plan: any step's, for its shapes; the tensors of `now` are where a step finds its own.
    """

    def __init__(
        self, model: nn.Module, loss: RowLoss, images: ResidentImages, plan: Plan, precision: str, channels_last: bool
    ) -> None:
        self.device, self.now = images.pixels.device, plan.copy()
        layout = torch.channels_last if channels_last else torch.contiguous_format
        model = model.to(self.device, memory_format=layout).train()
        optimiser = torch.optim.SGD(
            model.parameters(), self.now.rate, momentum=0.9, weight_decay=4e-4, fused=True
        )  # The rate is a tensor, so that a schedule may change it under a captured graph.
        self.total = torch.zeros((), device=self.device)
        """Of the losses; not finite once any was not, so that it need be read but once an epoch."""

        def step() -> None:
            views = images.views(self.now).contiguous(memory_format=layout)
            with mixed_precision(self.device, precision):
                logits = model(views)
            mean = loss(logits, self.now.rows).mean()
            optimiser.zero_grad(set_to_none=True)
            mean.backward()
            optimiser.step()
            self.total.add_(mean.detach())

        self._step, self.how = captured(step, self.device)

    def step(self, plan: Plan) -> None:
        """Train on one step's rows."""
        self.now.take(plan)
        self._step()

    def epoch(self, plan: Plan) -> None:
        """Train on all of them.

        Raises:
            ArithmeticError: a loss was not finite.
        """
        for number in range(len(plan.rows)):
            self.step(plan.step(number))
        if not torch.isfinite(self.total):
            raise ArithmeticError("a loss is not finite")


def captured(step: Step, device: torch.device) -> tuple[Step, str]:
    """The step as one CUDA graph, and how it is taken; as it is where there is no GPU or the capture fails."""
    if device.type != "cuda":
        return step, "eager"
    # A stream of its own, so that graphs that run side by side share no workspace.
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(_WARM_UP):
            step()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    try:
        with torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):
            step()
    except RuntimeError as error:
        return step, f"eager, as the capture failed: {str(error).splitlines()[0]}"
    return graph.replay, "captured"


def side_by_side(trainings: Sequence[ResidentTraining]) -> Callable[[Plan], None]:
    """A step of each, on a stream of its own where there is a GPU; the caller waits for the device."""
    if trainings[0].device.type != "cuda":
        return lambda plan: [training.step(plan) for training in trainings] and None
    streams = [torch.cuda.Stream() for _ in trainings]

    def step(plan: Plan) -> None:
        for training, stream in zip(trainings, streams, strict=True):
            with torch.cuda.stream(stream):
                training.step(plan)

    return step
