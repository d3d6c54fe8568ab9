"""The service as a process: open and try the model, take a port, end in good order."""

import asyncio
import os
import signal
import socket
import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle

from fer_core.errors import CheckpointError, ServiceError
from fer_core.export.onnx_model import OnnxModel
from fer_core.models.facts import onnx_files
from fer_core.service.app import create_app
from fer_core.service.limits import Limits
from openface.machine import usable_cores

_HEADERS_SECONDS = 10.0
_SHUTDOWN_SECONDS = 8
"""For requests in flight, when the service is to end; Docker kills after 10."""
_UNREAD_SECONDS = 20.0
"""A client that takes nothing of its answer for so long is given up."""
_CONNECTIONS = 1024
_IDLE_SECONDS = 65
"""Longer than clients and proxies keep a connection, or a request may meet its end."""


def serve(model: Path, host: str = "127.0.0.1", port: int = 8000, limits: Limits | None = None) -> None:
    """Serve an exported model until SIGTERM or Ctrl-C; requests in flight are answered then.

    Args:
        model: an .onnx file, or the folder that `fer export` wrote.

    Raises:
        CheckpointError: the file is no model that `fer export` wrote, or gives no probabilities.
        ServiceError: there is no model, the port is taken, or the host is not this machine's.
    """
    cores = usable_cores()
    # A TIFF of 300 kB would fill 4 MB of the log with what is odd about its header.
    warnings.filterwarnings("ignore", module=r"PIL\.")
    # Images are looked at in as many threads as there are cores: OpenCV needs no more of its own, and those of ONNX
    # Runtime, which spin while they wait, would take the cores from them.
    cv2.setNumThreads(1)
    file = _model_file(model)
    opened = OnnxModel(file, threads=max(1, cores // 2))
    _try_model(opened, file)
    with _listen(host, port) as listening:
        config = uvicorn.Config(
            create_app(opened, limits or Limits(), threads=cores),
            http=_PatientWithBounds,
            ws="none",
            lifespan="on",
            log_level="error",
            access_log=False,
            server_header=False,
            proxy_headers=False,
            limit_concurrency=_CONNECTIONS,
            timeout_keep_alive=_IDLE_SECONDS,
            timeout_graceful_shutdown=_SHUTDOWN_SECONDS,
        )
        where = f"[{host}]" if ":" in host else host
        print(f"{opened.facts.name}: http://{where}:{listening.getsockname()[1]}/docs", flush=True)
        with _signals_end_quietly():
            uvicorn.Server(config).run([listening])


def _model_file(path: Path) -> Path:
    """The file itself, or the one in the folder; float32's where there are several."""
    try:
        found = onnx_files(path)
    except OSError as error:
        raise ServiceError(f"{error.filename or path}: {error.strerror}; let this user read it") from error
    if not found:
        raise ServiceError(f"no model at {path}; make one with `fer export … --to onnx`, and name its file or folder")
    return found[0]


def _try_model(model: OnnxModel, path: Path) -> None:
    """Find out now and not with the first request."""
    size, labels = model.facts.face_format.side, model.facts.labels
    try:
        probabilities = model(np.zeros((2, size, size, 3), np.uint8))
    except Exception as error:  # ONNX Runtime's own, of many types.
        raise CheckpointError(f"{path}: ONNX Runtime cannot run it; export it again") from error
    if probabilities.shape != (2, len(labels)) or not np.isfinite(probabilities).all():
        raise CheckpointError(f"{path}: gives no probabilities of its {len(labels)} labels; export it again")


def _listen(host: str, port: int) -> socket.socket:
    try:
        return socket.create_server(
            (host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET, backlog=512
        )
    except (OSError, OverflowError) as error:
        # Its own text names the address once more.
        number = error.errno or 0 if isinstance(error, OSError) else 0
        reason = os.strerror(number) if number > 0 else str(error)
        raise ServiceError(f"{host}:{port}: {reason}; choose another --port or --host") from error


@contextmanager
def _signals_end_quietly() -> Iterator[None]:
    """uvicorn raises the signal that ended it once more; whoever handled it before would take it for a failure."""
    before = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class _PatientWithBounds(H11Protocol):
    """uvicorn's HTTP/1.1, with an end to connections whose headers, refused body or reader take forever."""

    _bound: asyncio.TimerHandle | None = None
    _unread: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._expect_request()

    def data_received(self, data: bytes) -> None:
        if self._bound is None and (self.cycle is None or self.cycle.response_complete):
            self._expect_request()
        super().data_received(data)

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._stop_expecting()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._stop_expecting()
        self._stop_waiting_for_reader()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._unread = self.loop.call_later(_UNREAD_SECONDS, self._drop)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._stop_waiting_for_reader()

    def timeout_keep_alive_handler(self) -> None:
        super().timeout_keep_alive_handler()
        self._unread = self._unread or self.loop.call_later(_UNREAD_SECONDS, self._drop)

    def _drop(self) -> None:
        # Else the system would keep the rest, megabytes, until it is read; and a close would wait for that.
        at_once = struct.pack("ii", 1, 0)
        self.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, at_once)
        self.transport.abort()

    def _stop_waiting_for_reader(self) -> None:
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None

    def _expect_request(self) -> None:
        self._bound = self.loop.call_later(_HEADERS_SECONDS, self._close_unless_begun, self.cycle)

    def _stop_expecting(self) -> None:
        if self._bound is not None:
            self._bound.cancel()
            self._bound = None

    def _close_unless_begun(self, before: RequestResponseCycle | None) -> None:
        self._bound = None
        if self.cycle is before:
            self.transport.close()
