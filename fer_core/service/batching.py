"""Faces of many requests, gathered for a few milliseconds and sent through the model in one call."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np

_WAITING = 1024
"""Queue capacity in faces; callers wait when it is full."""

_Asked = tuple[np.ndarray, "asyncio.Future[np.ndarray]"]


class ModelFailed(Exception):
    """The model could not be run on a batch, or gave no probabilities."""


class Batcher:
    """Probabilities of faces, many requests' in one call of the model.

    Args:
        predict: (N, S, S, 3) uint8 → (N, classes), called in a thread of its own.
        faces: at most, in a call.
        seconds: that a face waits for others.
        tell: is given each batch's size.
    """

    def __init__(
        self, predict: Callable[[np.ndarray], np.ndarray], faces: int, seconds: float, tell: Callable[[int], None]
    ) -> None:
        self._predict, self._faces, self._seconds, self._tell = predict, faces, seconds, tell
        self._waiting: asyncio.Queue[_Asked] = asyncio.Queue(_WAITING)
        self._thread = ThreadPoolExecutor(1, "model")

    @property
    def waiting(self) -> int:
        """Faces that are in no batch yet."""
        return self._waiting.qsize()

    async def __call__(self, faces: np.ndarray) -> np.ndarray:
        """(N, S, S, 3) uint8 → (N, classes); N may be 0.

        Raises:
            ModelFailed: for all whose faces were in the batch, and for nobody else.
        """
        loop = asyncio.get_running_loop()
        answers = []
        for face in faces:
            answers.append(loop.create_future())
            await self._waiting.put((face, answers[-1]))
        return np.array(await asyncio.gather(*answers))

    async def run(self) -> None:
        """Answer batch after batch, until cancelled."""
        try:
            while True:
                # Skips requests that were cancelled while queued.
                batch = [asked for asked in await self._gather() if not asked[1].done()]
                if batch:
                    await self._answer(batch)
        finally:
            self._thread.shutdown(wait=False, cancel_futures=True)

    async def _gather(self) -> list[_Asked]:
        batch = [await self._waiting.get()]
        try:
            async with asyncio.timeout(self._seconds):
                while len(batch) < self._faces:
                    batch.append(await self._waiting.get())
        except TimeoutError:
            pass
        return batch

    async def _answer(self, batch: list[_Asked]) -> None:
        self._tell(len(batch))
        faces = np.stack([face for face, _ in batch])
        try:
            probabilities = await asyncio.get_running_loop().run_in_executor(self._thread, self._predict, faces)
            if not np.isfinite(probabilities).all():
                raise ModelFailed("probabilities that are no numbers")
            if len(probabilities) != len(batch):
                raise ModelFailed(f"probabilities of {len(probabilities)} faces instead of {len(batch)}")
        except Exception as error:  # Whatever ONNX Runtime raises ends these requests, and no other.
            failed = ModelFailed(" ".join(str(error).split())[:200])
            for _, answer in batch:
                if not answer.done():
                    answer.set_exception(failed)
            return
        for row, (_, answer) in zip(probabilities, batch, strict=True):
            if not answer.done():
                answer.set_result(row)
