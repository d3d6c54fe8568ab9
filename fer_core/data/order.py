"""The random draws of an epoch: image order, batches, augmentation, and neighbours.

All of it is drawn on the CPU from the training's seed, the epoch and a purpose; a GPU is given it many steps at a
time, so that no step waits for a copy. Needs torch and numpy alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice, repeat
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Generator, Tensor

from fer_core.data.views import Crops, Views, draw_crops

if TYPE_CHECKING:
    from fer_core.experiment import AugmentSettings

ORDER, CROPS, NEIGHBOURS, KEPT = 0, 1, 2, 3
"""Purposes of an epoch's random numbers; `KEPT` is for kept views."""
_ALL = slice(None)
_STEPS_AT_ONCE = 1024
"""Steps whose draws are sent to a GPU together: an epoch of most datasets, about 20 MB at batches of 256."""


def stream(seed: int, epoch: int, purpose: int) -> torch.Generator:
    """A generator for each purpose of each epoch, so that a resumed run makes the same draws."""
    # Two words of 32 bits make one seed of 63 bits.
    drawn = np.random.SeedSequence([seed, epoch, purpose]).generate_state(2)
    return torch.Generator().manual_seed(int(drawn[0]) << 31 ^ int(drawn[1]))


def shuffled(rows: np.ndarray, seed: int, epoch: int) -> np.ndarray:
    """Shuffle the rows into an epoch's order."""
    order: np.ndarray = rows[torch.randperm(len(rows), generator=stream(seed, epoch, ORDER)).numpy()]
    return order


def cut(order: np.ndarray, batch: int) -> list[np.ndarray]:
    """Cut the order into batches; a last batch of one image joins the batch before."""
    ends = list(range(batch, len(order), batch))
    # Batch normalisation knows no variance of one image.
    if ends and len(order) - ends[-1] == 1:
        ends.pop()
    return np.split(order, ends)


@dataclass(frozen=True)
class NeighbourDraws:
    """Neighbours that are forwarded with a batch."""

    rows: Tensor
    """(M,) int64, each neighbour once."""
    crops: Crops
    """How each of them is varied."""
    place: Tensor
    """(B, k) int64, where in `rows` an image's neighbours are; 0 where it has none."""
    similarity: Tensor
    """(B, k) float32, a_ij; 0 where there is no neighbour."""


@dataclass(frozen=True)
class Draws:
    """All draws of one step; `rows` is (B,) int64."""

    rows: Tensor
    crops: Crops
    neighbours: NeighbourDraws | None = None


Companions = Callable[[np.ndarray, Generator], tuple[np.ndarray, np.ndarray, np.ndarray]]
"""From a batch's rows to `rows`, `place` and `similarity` of its NeighbourDraws; may draw."""


@dataclass(frozen=True)
class KeptViews:
    """Views that are drawn once and shown in turn: n of each image, of which epoch e shows e mod n."""

    boxes: Tensor
    """(n, N, 4) int16, left, top, right, bottom in whole pixels."""
    mirrored: Tensor
    """(n, N) bool; an image is mirrored first, then its box is cut out."""

    def crops(self, view: int, rows: Tensor | slice = _ALL) -> Crops:
        """The augmentation of one view of each row's image."""
        return Crops(self.boxes[view, rows].long(), self.mirrored[view, rows])


def view_of(epoch: int, count: int) -> int:
    """Index of the kept view that an epoch shows, in 0..count − 1."""
    return epoch % count


def draw_views(count: int, images: int, side: int, settings: AugmentSettings, seed: int) -> KeptViews:
    """Draw `count` views of each of `images` square images, `side` pixels wide; a larger count only adds to them."""
    drawn = [draw_crops(images, side, settings, stream(seed, view, KEPT)) for view in range(count)]
    return KeptViews(
        torch.stack([crops.boxes.to(torch.int16) for crops in drawn]), torch.stack([crops.mirrored for crops in drawn])
    )


def show_kept(batches: Sequence[np.ndarray], kept: KeptViews, epoch: int) -> Iterator[Draws]:
    """An epoch's steps, one after the other, on the CPU: each image in the view that is this epoch's turn."""
    view = view_of(epoch, len(kept.boxes))
    for batch in batches:
        rows = torch.from_numpy(batch)
        yield Draws(rows, kept.crops(view, rows))


def draw_epoch(
    batches: Sequence[np.ndarray],
    side: int,
    settings: AugmentSettings,
    companions: Companions | None,
    seed: int,
    epoch: int,
) -> Iterator[Draws]:
    """The draws of an epoch's steps, one after the other, on the CPU.

    Args:
        batches: row numbers, as `cut` gives them.
        side: of the square stored images, in pixels.
        companions: what finds a batch's neighbours, where they pass through the network with it.
    """
    # Two streams, so that the images' own crops are the same with neighbours and without.
    crops, beside = (stream(seed, epoch, purpose) for purpose in (CROPS, NEIGHBOURS))
    for rows in batches:
        varied = draw_crops(len(rows), side, settings, crops)
        yield Draws(torch.from_numpy(rows), varied, _draw_neighbours(rows, side, settings, companions, beside))


def _draw_neighbours(
    rows: np.ndarray, side: int, settings: AugmentSettings, companions: Companions | None, generator: Generator
) -> NeighbourDraws | None:
    if companions is None:
        return None
    distinct, place, similarity = companions(rows, generator)
    crops = draw_crops(len(distinct), side, settings, generator)
    return NeighbourDraws(torch.from_numpy(distinct), crops, torch.from_numpy(place), torch.from_numpy(similarity))


def on_training_device(draws: Iterator[Draws], device: torch.device) -> Iterator[Draws]:
    """Move draws to the training device; a GPU is sent the next steps' draws while it works.

    Drawing begins at once, not when the first step is asked for.
    """
    if device.type == "cpu":
        return draws
    return _sent_ahead(draws, device, ThreadPoolExecutor(1, "draws"))


def _sent_ahead(draws: Iterator[Draws], device: torch.device, thread: ThreadPoolExecutor) -> Iterator[Draws]:
    def send() -> list[Draws]:
        return send_together(list(islice(draws, _STEPS_AT_ONCE)), device)

    def steps(upcoming: Future[list[Draws]]) -> Iterator[Draws]:
        with thread:
            # While the device works on these, the next are drawn and sent.
            while sent := upcoming.result():
                upcoming = thread.submit(send)
                yield from sent

    # Submitted here and not in `steps`, which is a generator and would begin when first asked.
    return steps(thread.submit(send))


def send_together(draws: Sequence[Draws], device: torch.device) -> list[Draws]:
    """Move many steps' draws with one copy per field, from pinned memory."""
    columns = zip(*map(_tensors, draws), strict=True)
    return [_draws(tensors) for tensors in zip(*(_send(column, device) for column in columns), strict=True)]


def _send(parts: Sequence[Tensor], device: torch.device) -> Sequence[Tensor]:
    together = torch.cat(list(parts))
    if device.type == "cuda":
        together = together.pin_memory()
    return torch.split(together.to(device, non_blocking=True), [len(part) for part in parts])


def _tensors(draws: Draws) -> tuple[Tensor, ...]:
    own = (draws.rows, draws.crops.boxes, draws.crops.mirrored)
    if (beside := draws.neighbours) is None:
        return own
    return (*own, beside.rows, beside.crops.boxes, beside.crops.mirrored, beside.place, beside.similarity)


def _draws(tensors: Sequence[Tensor]) -> Draws:
    rows, boxes, mirrored, *beside = tensors
    if not beside:
        return Draws(rows, Crops(boxes, mirrored))
    others, their_boxes, their_mirrored, place, similarity = beside
    return Draws(
        rows,
        Crops(boxes, mirrored),
        NeighbourDraws(others, Crops(their_boxes, their_mirrored), place, similarity),
    )


def copy_into(held: Draws, draws: Draws) -> None:
    """Copy one step's draws into the tensors of another step of the same shapes."""
    for mine, its in zip(_tensors(held), _tensors(draws), strict=True):
        mine.copy_(its)


def copied(draws: Draws) -> Draws:
    """Copy the draws to new memory."""
    return _draws([part.clone() for part in _tensors(draws)])


@dataclass
class Epochs:
    """The batches of all epochs; a GPU's next epoch is drawn while it works on this one."""

    rows: np.ndarray
    """Row numbers of the training images."""
    batch: int
    views: Views
    """Views of the stored images."""
    augment: AugmentSettings
    companions: Companions | None
    """What finds a batch's neighbours, where they pass through the network with it."""
    seed: int
    last: int
    """The number of the last epoch."""
    kept: KeptViews | None = None
    """The views that are shown; drawn anew in each epoch where there are none."""
    _upcoming: tuple[int, Iterator[Draws]] | None = None

    def batches(self, epoch: int) -> list[np.ndarray]:
        """Row numbers of each of an epoch's batches; epochs count from 1."""
        return cut(shuffled(self.rows, self.seed, epoch), self.batch)

    def draws(self, epoch: int) -> Iterator[Draws]:
        """What each of its steps is given, on the device."""
        begun = self._upcoming
        draws = begun[1] if begun is not None and begun[0] == epoch else self._begin(epoch)
        # On a CPU, drawing ahead would take cores from the step itself.
        on_gpu = self.views.device.type == "cuda"
        self._upcoming = (epoch + 1, self._begin(epoch + 1)) if on_gpu and epoch < self.last else None
        return draws

    def pixels(self, epoch: int) -> Iterator[Tensor | None]:
        """The stored bytes of each batch, read and sent ahead, where the images do not lie on the device."""
        if self.views.resident:
            return repeat(None, len(cut(self.rows, self.batch)))
        return self.views.sent_ahead(self.batches(epoch))

    def _begin(self, epoch: int) -> Iterator[Draws]:
        return on_training_device(self._drawn(epoch), self.views.device)

    def _drawn(self, epoch: int) -> Iterator[Draws]:
        batches = self.batches(epoch)
        if self.kept is not None:
            assert self.companions is None, "neighbours have no kept views"
            return show_kept(batches, self.kept, epoch)
        return draw_epoch(batches, self.views.images.shape[1], self.augment, self.companions, self.seed, epoch)
