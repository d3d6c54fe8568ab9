"""One training step: views, forward, loss, backward, update. On a GPU all but the update is one CUDA graph.

Launching a step's thousand small kernels one by one takes the CPU longer than a GPU takes to run them; replaying them
as a graph takes next to nothing. The update stays outside, since One-Cycle gives each step a momentum of its own and
torch's fused SGD takes it as a number. Needs torch and numpy alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LRScheduler

from fer_core.data.order import Draws, Epochs, NeighbourDraws, copied, copy_into
from fer_core.data.views import Views
from fer_core.devices import Precision, mixed_precision
from fer_core.train.objectives import Batch, Neighbours, Objective

_WARM_UP = 3
"""Steps before a capture, in which cuDNN chooses its kernels and buffers are made."""
Gradient = Callable[[Draws, Tensor | None], Tensor]


class TrainingStep:
    """Trains a model step by step, without waiting for the device.

    Args:
        labels: (N,) int64 hard labels on the device, for the accuracy.
        precision: of the forward pass, float32 or bfloat16.
        capture: hold the step as a CUDA graph, for batches of the first one's shape.
        tell: is told, in a sentence, why a step could not be captured; it is then taken kernel by kernel.
    """

    def __init__(
        self,
        model: nn.Module,
        optimiser: torch.optim.Optimizer,
        schedule: LRScheduler,
        objective: Objective,
        views: Views,
        labels: Tensor,
        precision: Precision,
        *,
        capture: bool = False,
        tell: Callable[[str], None] = print,
    ) -> None:
        self._model, self._optimiser, self._schedule = model, optimiser, schedule
        self._objective, self._views, self._labels, self._precision = objective, views, labels, precision
        self._to_capture, self._tell = capture, tell
        self._captured: _CapturedGradient | None = None
        self.terms: list[str] = []
        """Names of the loss terms, known after the first step."""

    @property
    def captured(self) -> bool:
        """Tell whether steps are replayed as a CUDA graph."""
        return self._captured is not None

    def __call__(self, draws: Draws, pixels: Tensor | None = None) -> Tensor:
        """Train on one batch.

        Args:
            pixels: (B, C, S, S) uint8, the batch's stored bytes, where the images are not resident.

        Returns:
            (terms + 2,) float32 on the device: each term's sum over the batch, in the order of `terms`; how many
            images were predicted right; and the minimised loss.
        """
        if self._to_capture:
            self._to_capture = False
            self._capture(draws, pixels)
        if self._captured is not None and self._captured.fits(draws):
            measured = self._captured(draws, pixels)
        else:
            self._optimiser.zero_grad(set_to_none=True)
            measured = self._gradient(draws, pixels)
        self._optimiser.step()
        self._schedule.step()
        return measured

    def begin(self, epoch: int) -> None:
        """Tell the objective the epoch of the next steps."""
        self._objective.begin(epoch)

    def _capture(self, draws: Draws, pixels: Tensor | None) -> None:
        if self._objective.companions is not None:
            self._tell("Steps are taken kernel by kernel: with neighbours forwarded, each is of another shape.")
            return
        try:
            with _undone(self._model, self._objective):
                self._captured = _CapturedGradient(self._gradient, list(self._model.parameters()), draws, pixels)
        except RuntimeError as error:
            self._tell(f"Steps are taken kernel by kernel: capturing one failed ({str(error).splitlines()[0]}).")

    def _gradient(self, draws: Draws, pixels: Tensor | None) -> Tensor:
        """Run forward and backward; gradients stay in the parameters."""
        with mixed_precision(self._views.device, self._precision):
            images = self._views.varied(self._views.stored(draws.rows) if pixels is None else pixels, draws.crops)
            logits = self._model(images)  # (B, C)
            batch = Batch(draws.rows, images, logits, self._neighbours(draws.neighbours))
            terms = self._objective.loss(self._model, batch)  # (B,) each
        loss = torch.stack(list(terms.values())).sum(dim=0).mean()
        loss.backward()  # type: ignore[no-untyped-call]
        self.terms = list(terms)
        right = (logits.detach().argmax(dim=1) == self._labels[draws.rows]).sum()
        return torch.stack([*(values.detach().sum() for values in terms.values()), right, loss.detach()])

    def _neighbours(self, drawn: NeighbourDraws | None) -> Neighbours | None:
        if drawn is None:
            return None
        images = self._views.varied(self._views.stored(drawn.rows), drawn.crops)
        return Neighbours(images, drawn.place, drawn.similarity)


def take_epoch(
    step: TrainingStep, epochs: Epochs, epoch: int, tell: Callable[[int], None] = lambda done: None
) -> np.ndarray:
    """Train on each batch of an epoch. Nothing is read from the device before all steps are queued.

    Args:
        tell: is told how many steps were given to the device.

    Returns:
        (steps, terms + 2) float64, what each step returned.
    """
    step.begin(epoch)
    measured = []
    for draws, pixels in zip(epochs.draws(epoch), epochs.pixels(epoch), strict=True):
        measured.append(step(draws, pixels))
        tell(len(measured))
    together: np.ndarray = torch.stack(measured).double().cpu().numpy()
    return together


class _CapturedGradient:
    """Forward and backward of batches of one shape as a CUDA graph, which reads and writes fixed places in memory."""

    def __init__(self, gradient: Gradient, parameters: list[nn.Parameter], draws: Draws, pixels: Tensor | None) -> None:
        self._parameters = parameters
        self._draws = copied(draws)
        self._pixels = None if pixels is None else pixels.clone(memory_format=torch.preserve_format)
        self._graph = torch.cuda.CUDAGraph()
        stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(_WARM_UP):
                self._forget_gradients()
                gradient(self._draws, self._pixels)
        torch.cuda.current_stream().wait_stream(stream)
        self._forget_gradients()
        with torch.cuda.graph(self._graph, stream=stream, capture_error_mode="thread_local"):
            self._measured = gradient(self._draws, self._pixels)
        self._gradients = [parameter.grad for parameter in parameters]

    def fits(self, draws: Draws) -> bool:
        """Tell whether the batch has the captured shape; an epoch's last batch may not."""
        return len(draws.rows) == len(self._draws.rows)

    def __call__(self, draws: Draws, pixels: Tensor | None) -> Tensor:
        copy_into(self._draws, draws)
        if self._pixels is not None and pixels is not None:
            self._pixels.copy_(pixels)
        self._graph.replay()
        # A batch of another shape, taken without the graph, has put gradients of its own here.
        for parameter, gradient in zip(self._parameters, self._gradients, strict=True):
            parameter.grad = gradient
        return self._measured.clone()

    def _forget_gradients(self) -> None:
        for parameter in self._parameters:
            parameter.grad = None


@contextmanager
def _undone(model: nn.Module, objective: Objective) -> Iterator[None]:
    """Restore running statistics and the objective's memory after the steps taken inside."""
    changed = [*model.buffers(), *objective.memory.values()]
    kept = [tensor.clone() for tensor in changed]
    try:
        yield
    finally:
        for tensor, before in zip(changed, kept, strict=True):
            tensor.copy_(before)
