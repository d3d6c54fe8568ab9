"""The application: its paths, and how a request goes through upload, faces and model to its answer."""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Annotated, Any, TypeVar

from fastapi import FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse, PlainTextResponse, Response

from fer_core import __version__
from fer_core.export.onnx_model import OnnxModel
from fer_core.service.answers import (
    PROBLEMS,
    REQUEST_BODY,
    FailedFile,
    HealthAnswer,
    PredictAnswer,
    Problem,
    ReadFile,
    face_answer,
    model_answer,
)
from fer_core.service.batching import Batcher, ModelFailed
from fer_core.service.docs import add_docs
from fer_core.service.finding import Finder
from fer_core.service.limits import Full, Held, Limits, Room
from fer_core.service.metrics import ServiceMetrics, Watched
from fer_core.service.upload import Refused, Upload, UploadedFile, read_upload
from openface.decoding import UnreadableImage

_PATHS = frozenset({"/predict", "/health", "/metrics", "/docs", "/openapi.json"})
_GONE = 499
"""The status that is logged for a client that left; nobody reads it."""
_T = TypeVar("_T")


def create_app(model: OnnxModel, limits: Limits, threads: int) -> FastAPI:
    """The application around a model.

    Args:
        threads: in which images are decoded and searched.
    """
    metrics = ServiceMetrics()
    service = _Service(model, limits, metrics, threads)
    app = FastAPI(
        title="fer",
        version=__version__,
        summary="Faces in images, and what a crowd would read in them.",
        description=model.facts.limits,
        docs_url=None,
        redoc_url=None,
        # Else /predict/ would send a picture that came through a proxy's TLS once more, without it.
        redirect_slashes=False,
        lifespan=service.lifespan,
    )
    app.add_middleware(Watched, metrics=metrics, paths=_PATHS)
    _answer_mistakes(app)
    _add_paths(app, service, metrics)
    add_docs(app)
    return app


def _add_paths(app: FastAPI, service: "_Service", metrics: ServiceMetrics) -> None:
    @app.post(
        "/predict",
        summary="Faces and their emotions",
        response_model=PredictAnswer,
        response_model_exclude_none=True,
        response_description="At least one file could be read.",
        responses=PROBLEMS,
        openapi_extra={"requestBody": REQUEST_BODY},
    )
    async def predict(
        request: Request,
        aligned: Annotated[bool, Query(description="As the form's field of this name, which goes before.")] = False,
    ) -> PredictAnswer | Response:
        return await service.predict(request, aligned)

    # Balancers and monitors ask so, and `curl -I`.
    @app.head("/health", include_in_schema=False)
    @app.get("/health", summary="Whether it answers, and with which model")
    async def health() -> HealthAnswer:
        return service.health

    @app.get("/metrics", summary="Figures for Prometheus", response_class=PlainTextResponse)
    async def figures() -> Response:
        return Response(generate_latest(metrics.registry), media_type=CONTENT_TYPE_LATEST)


def _answer_mistakes(app: FastAPI) -> None:
    @app.exception_handler(Refused)
    async def refused(request: Request, error: Refused) -> Response:
        return problem(error.status, str(error))

    @app.exception_handler(Full)
    async def full(request: Request, error: Full) -> Response:
        return problem(503, "too many requests at once; try again")

    @app.exception_handler(ModelFailed)
    async def failed(request: Request, error: ModelFailed) -> Response:
        return problem(503, f"the model failed on these faces ({error}); try again")

    @app.exception_handler(ClientDisconnect)
    async def gone(request: Request, error: ClientDisconnect) -> Response:
        return Response(status_code=_GONE)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> Response:
        (first, *_) = error.errors()
        return problem(422, f"{first['loc'][-1]}: {first['msg']}")


def problem(status: int, detail: str, files: list[FailedFile] | None = None) -> Response:
    """An answer that says what is wrong."""
    headers = {"Retry-After": "1"} if status == 503 else None
    return JSONResponse(Problem(detail=detail, files=files).model_dump(exclude_none=True), status, headers)


class _Service:
    """State that the paths share."""

    def __init__(self, model: OnnxModel, limits: Limits, metrics: ServiceMetrics, threads: int) -> None:
        facts = model.facts
        self._labels, self._limits, self._metrics, self._threads = facts.labels, limits, metrics, threads
        self._room = Room(limits)
        self._find = Finder(facts.face_format, largest=limits.image_pixels, threads=threads)
        self._batcher = Batcher(model, limits.batch_faces, limits.batch_seconds, metrics.batches.observe)
        self.health = HealthAnswer(
            status="ok",
            model=model_answer(facts),
            request_bytes=limits.request_bytes,
            request_files=limits.request_files,
            image_pixels=limits.image_pixels,
            request_seconds=limits.request_seconds,
        )
        metrics.watch("fer_requests_held", "Requests that are answered or wait.", lambda: self._room.requests)
        metrics.watch("fer_bodies_bytes", "Bytes of bodies that are held.", lambda: self._room.bytes)
        metrics.watch("fer_faces_waiting", "Faces that are in no batch yet.", lambda: self._batcher.waiting)

    @asynccontextmanager
    async def lifespan(self, app: FastAPI) -> AsyncIterator[None]:
        """Batches are run from start to end."""
        batches = asyncio.create_task(self._batcher.run())
        try:
            yield
        finally:
            batches.cancel()
            self._find.close()

    async def predict(self, request: Request, aligned: bool) -> PredictAnswer | Response:
        """The whole way of a request."""
        seconds = self._limits.request_seconds
        deadline = asyncio.get_running_loop().time() + seconds
        with self._room.admit() as held:
            try:
                async with asyncio.timeout_at(deadline):
                    upload = await self._upload(request, held)
            except TimeoutError:
                return problem(408, f"the body took longer than {seconds:g} s to arrive")
            try:
                async with asyncio.timeout_at(deadline):
                    answers = await _unless_gone(request, self._answers(upload, aligned))
            except TimeoutError:
                return problem(503, f"no answer within {seconds:g} s; send fewer files, or try again")
        failed = [answer for answer in answers if isinstance(answer, FailedFile)]
        if len(failed) == len(answers):
            return problem(422, "none of the files could be read", failed)
        return PredictAnswer(files=answers)

    async def _upload(self, request: Request, held: Held) -> Upload:
        headers = request.headers
        return await read_upload(
            headers.get("content-type", ""), headers.get("content-length"), request.stream(), self._limits, held
        )

    async def _answers(self, upload: Upload, aligned: bool) -> list[ReadFile | FailedFile]:
        aligned = aligned if upload.aligned is None else upload.aligned
        # A request with many files takes as many threads as there are, and no place in the line before others.
        turns = asyncio.Semaphore(self._threads)

        async def answer(file: UploadedFile) -> ReadFile | FailedFile:
            async with turns:
                return await self._answer(file, aligned)

        return list(await asyncio.gather(*map(answer, upload.files)))

    async def _answer(self, file: UploadedFile, aligned: bool) -> ReadFile | FailedFile:
        try:
            found = await self._find(file.content, aligned=aligned)
        except UnreadableImage as unreadable:
            self._metrics.files.labels("unreadable").inc()
            return FailedFile(name=file.name, error=str(unreadable))
        self._metrics.files.labels("read").inc()
        self._metrics.faces.inc(len(found.boxes))
        probabilities = await self._batcher(found.faces)
        faces = [face_answer(self._labels, box, p) for box, p in zip(found.boxes, probabilities, strict=True)]
        return ReadFile(
            name=file.name, width=found.width, height=found.height, faces=faces, remark=found.remark or None
        )


async def _unless_gone(request: Request, work: Coroutine[Any, Any, _T]) -> _T:
    """The work's result; the work is cancelled when its client leaves."""
    working = asyncio.ensure_future(work)
    leaving = asyncio.ensure_future(request.receive())
    try:
        await asyncio.wait((working, leaving), return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientDisconnect
        return working.result()
    finally:
        working.cancel()
        leaving.cancel()
