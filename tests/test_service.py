"""The service as a process: what it answers, what it refuses, how it takes many at once, and how it ends."""

import asyncio
import json
import os
import random
import re
import select
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import docker
import httpx
import numpy as np
import pytest
import torch
from helpers.service import (
    HEAD,
    LABELS,
    PORTRAIT,
    ROOT,
    STORED_SIZE,
    Service,
    claiming,
    encoded,
    part,
    plain,
    service,
    write_model,
)
from PIL import Image
from test_decoding import SPOILT, page, tiff

from fer_core.data.crops import Box, FaceFormat, cut_out
from fer_core.data.dataset import EMOTIONS
from fer_core.errors import ServiceError
from fer_core.export.export import export
from fer_core.export.onnx_model import OnnxModel
from fer_core.models.architectures import build
from fer_core.models.checkpoint import ModelCard, load_checkpoint, save_card, save_weights
from fer_core.models.deployed import Deployed
from fer_core.predict import Predictor
from fer_core.predict.detector import open_detector
from fer_core.progress import JsonLines
from fer_core.service import finding
from fer_core.service.__main__ import listen_at
from fer_core.service.batching import Batcher, ModelFailed
from fer_core.service.finding import _Pixels
from fer_core.service.limits import Limits, limits_from
from openface.decoding import UnreadableImage, open_image

GREY = plain((128, 128, 128))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("export") / "model.onnx")


@pytest.fixture(scope="module")
def running(model: Path) -> Iterator[Service]:
    with service(model) as started:
        yield started


def faces_of(answer: httpx.Response, file: int = 0) -> list[dict[str, Any]]:
    assert answer.status_code == 200, answer.text
    faces: list[dict[str, Any]] = answer.json()["files"][file]["faces"]
    return faces


def expected(model: Path, image: Image.Image, box: Box) -> list[float]:
    face = cut_out(np.asarray(image.convert("RGB")), box, STORED_SIZE, grey=False)
    return [float(p) for p in OnnxModel(model)(face[None])[0]]


# What it answers


def test_a_face_is_found_and_read_as_the_model_reads_it(running: Service, model: Path) -> None:
    answer = running.predict(("portrait.png", PORTRAIT))
    (face,) = faces_of(answer)
    image = Image.open(BytesIO(PORTRAIT))
    (box,) = open_detector("cascade")(np.asarray(image.convert("RGB")))
    assert face["box"] == {"left": box.left, "top": box.top, "side": box.side}
    probabilities = expected(model, image, box)
    assert list(face["probabilities"]) == list(LABELS)
    assert list(face["probabilities"].values()) == pytest.approx(probabilities, abs=2e-6)
    assert face["emotion"] == LABELS[int(np.argmax(probabilities))]
    entropy = -sum(p * np.log(p) for p in probabilities)
    assert face["uncertainty"] == pytest.approx(entropy / np.log(3), abs=1e-5)
    file = answer.json()["files"][0]
    assert (file["name"], file["width"], file["height"]) == ("portrait.png", *image.size)


def test_an_exported_checkpoint_says_what_the_checkpoint_says(tmp_path: Path) -> None:
    card = ModelCard("efficientface", EMOTIONS[:7], (0.5,), (0.25,), 64, 48, "EF + LDG-AUs", 1, 1, 1)
    save_weights(tmp_path / "selected.safetensors", build("efficientface", 7, seed=1))
    save_card(tmp_path, card)
    export(tmp_path, "onnx", tmp_path / "export", None, JsonLines())
    with service(tmp_path / "export") as running:
        (face,) = faces_of(running.predict(("portrait.png", PORTRAIT)))
    pixels = np.asarray(Image.open(BytesIO(PORTRAIT)).convert("RGB"))
    cut = cut_out(pixels, Box(**face["box"]), 48, grey=True)
    with torch.inference_mode():
        wanted = Deployed(*load_checkpoint(tmp_path)).eval()(torch.from_numpy(cut[None].copy()))[0]
    assert face["probabilities"] == pytest.approx(dict(zip(card.labels, wanted.tolist(), strict=True)), abs=1e-4)


def test_many_files_are_answered_in_order_and_a_broken_one_ends_only_itself(running: Service) -> None:
    answer = running.predict(("a.png", encoded(GREY)), ("b.txt", b"text"), ("portrait.png", PORTRAIT))
    assert answer.status_code == 200
    first, second, third = answer.json()["files"]
    assert first == {"name": "a.png", "width": 64, "height": 64, "faces": []}
    assert second == {"name": "b.txt", "error": "not an image of a known format"}
    assert len(third["faces"]) == 1


@pytest.mark.parametrize("how", [{"params": {"aligned": "true"}}, {"data": {"aligned": "true"}}])
def test_an_aligned_image_is_a_face_as_a_whole(running: Service, model: Path, how: dict[str, Any]) -> None:
    image = Image.new("RGB", (80, 60), (200, 40, 90))
    (face,) = faces_of(running.predict(("face.jpg", encoded(image)), **how))
    assert face["box"] == {"left": 10, "top": 0, "side": 60}
    assert list(face["probabilities"].values()) == pytest.approx(expected(model, image, Box(10, 0, 60)), abs=2e-6)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "BMP", "WEBP", "TIFF", "GIF", "PPM", "AVIF"])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_every_format_is_read(running: Service, kind: str, mode: str) -> None:
    portrait = Image.open(BytesIO(PORTRAIT)).convert(mode)
    assert len(faces_of(running.predict(("portrait", encoded(portrait, kind))))) == 1


def test_a_heic_photograph_is_read_as_the_predictor_reads_it(running: Service, model: Path) -> None:
    photograph = Path(__file__).parent / "pictures" / "portrait.heic"
    (face,) = faces_of(running.predict(("portrait.heic", photograph.read_bytes())))
    (((same,),)) = Predictor(model)([photograph])
    assert face["box"] == {"left": same.box.left, "top": same.box.top, "side": same.box.side}
    assert face["probabilities"] == pytest.approx(same.probabilities, abs=2e-6)


@pytest.mark.parametrize("name", SPOILT)
def test_what_the_predictor_refuses_it_refuses_in_the_same_words(running: Service, name: str) -> None:
    content, _ = SPOILT[name]
    with pytest.raises(UnreadableImage) as told:
        open_image(content)
    answer = running.predict((name, content))
    assert answer.status_code == 422
    assert answer.json()["files"] == [{"name": name, "error": str(told.value)}]


def test_what_was_concluded_about_a_file_is_said(running: Service) -> None:
    dark = Image.fromarray(np.full((64, 64), 4000, np.uint16))
    answer = running.predict(("dark.png", encoded(dark)), ("plain.png", encoded(GREY)))
    first, second = answer.json()["files"]
    assert first["remark"] == "12 of 16 bits are used, and scaled to 8"
    assert "remark" not in second


def test_a_photograph_is_turned_as_it_says(running: Service) -> None:
    portrait = Image.open(BytesIO(PORTRAIT)).convert("RGB")
    exif = Image.Exif()
    exif[0x0112] = 6
    out = BytesIO()
    portrait.rotate(90, expand=True).resize((300, 224)).save(out, "JPEG", exif=exif)
    answer = running.predict(("turned.jpg", out.getvalue()))
    assert len(faces_of(answer)) == 1
    assert (answer.json()["files"][0]["width"], answer.json()["files"][0]["height"]) == (224, 300)


def test_health_says_which_model(running: Service) -> None:
    said = running.client.get("/health").json()
    assert said["status"] == "ok"
    assert said["model"]["name"] == "mean-colour"
    assert said["model"]["labels"] == list(LABELS)
    assert said["model"]["accuracy"] == {"value": 0.5, "low": 0.4, "high": 0.6, "images": 100}
    assert said["model"]["limits"] == "It knows colours, not faces."
    assert said["request_bytes"] == Limits().request_bytes


def test_health_may_be_asked_without_its_words(running: Service) -> None:
    answer = running.client.head("/health")
    assert (answer.status_code, answer.content) == (200, b"")


def test_metrics_count_what_happened(running: Service) -> None:
    names = [
        'fer_requests_total{path="/predict",status="200"}',
        'fer_requests_total{path="/predict",status="422"}',
        'fer_request_seconds_count{path="/predict"}',
        "fer_faces_total",
        "fer_batch_faces_sum",
        'fer_files_total{outcome="unreadable"}',
        'fer_requests_total{path="other",status="404"}',
    ]
    before = [running.figure(name) for name in names]
    running.predict(("portrait.png", PORTRAIT))
    running.predict(("broken.png", b"broken"))
    for path in ("/wp-login.php", "/.env"):
        assert running.client.get(path).status_code == 404
    assert [running.figure(name) - was for name, was in zip(names, before, strict=True)] == [1, 1, 2, 1, 1, 1, 2]
    assert "/.env" not in running.client.get("/metrics").text


def test_it_loads_nothing_that_trains_or_orchestrates() -> None:
    code = """
import sys, fer_core.service.__main__
print(*{'torch', 'pandas', 'pyarrow', 'prefect', 'docker', 'sklearn', 'typer', 'onnx'} & sys.modules.keys())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.split() == []


def test_nothing_is_written_and_nothing_reported(model: Path, tmp_path: Path) -> None:
    done = start(model, {"HOME": str(tmp_path), "FER_SERVICE_HOST": "192.0.2.1"})
    assert done.stderr.startswith("error: 192.0.2.1:0: "), "it ended after the model was tried"
    assert list(tmp_path.iterdir()) == []


# What it refuses


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "the file is empty"),
        (b"text", "not an image of a known format"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not an image of a known format"),
        (PORTRAIT[: len(PORTRAIT) // 2], "truncated"),
        (claiming(60_000, 60_000, "PNG"), "has more than 51,000,000 pixels; scale it down"),
        (claiming(8_000, 7_000, "PNG"), "8000 x 7000 is more than 51,000,000 pixels; scale it down"),
        (claiming(60_000, 60_000, "GIF"), "has more than 51,000,000 pixels; scale it down"),
        (tiff(page(16, 16, (322, 4, 20_000), (323, 4, 20_000))), "20000 x 20000 is more than 51,000,000 pixels"),
    ],
)
def test_what_cannot_be_read_is_said(running: Service, content: bytes, reason: str) -> None:
    started = time.monotonic()
    answer = running.predict(("file.png", content))
    assert answer.status_code == 422
    assert answer.json()["detail"] == "none of the files could be read"
    (file,) = answer.json()["files"]
    assert file["name"] == "file.png"
    assert reason in file["error"]
    assert time.monotonic() - started < 5


def test_a_body_that_says_it_is_too_large_is_not_read(running: Service) -> None:
    with running.connect() as connection:
        connection.sendall(HEAD + b"Content-Length: 20000001\r\n\r\n")
        assert connection.recv(1000).startswith(b"HTTP/1.1 413 ")


def test_a_body_that_says_nothing_is_stopped_when_it_is_too_large(running: Service) -> None:
    answer = running.client.post(
        "/predict",
        content=(b"x" * 100_000 for _ in range(230)),
        headers={"Content-Type": "multipart/form-data; boundary=edge"},
    )
    assert answer.status_code == 422, "it does not begin with its boundary"
    body = [part(b"x" * 100_000)[:-2], *[b"x" * 100_000] * 230]
    answer = running.client.post(
        "/predict", content=iter(body), headers={"Content-Type": "multipart/form-data; boundary=edge"}
    )
    assert answer.status_code == 413
    assert "20,000,000 bytes" in answer.json()["detail"]
    running.wait_until_idle()
    assert running.figure("fer_bodies_bytes") == 0


def test_too_many_files_are_refused_before_they_have_all_come(running: Service) -> None:
    begun = b"".join(part(b"x") for _ in range(33))
    with running.connect() as connection:
        connection.sendall(HEAD + b"Content-Length: 1000000\r\n\r\n" + begun)
        assert connection.recv(1000).startswith(b"HTTP/1.1 413 ")
    answer = running.predict(*[("a.png", encoded(GREY))] * 33)
    assert answer.status_code == 413
    assert "32 files" in answer.json()["detail"]
    assert running.predict(*[("a.png", encoded(GREY))] * 32).status_code == 200


def test_a_sender_of_a_refused_body_cannot_go_on_for_ever(running: Service) -> None:
    with running.connect() as connection:
        connection.sendall(HEAD + b"Content-Length: 90000000000\r\n\r\n")
        assert connection.recv(1000).startswith(b"HTTP/1.1 413 ")
        assert seconds_of_sending(connection) < 20


def seconds_of_sending(connection: socket.socket) -> float:
    """Until the other side takes no more; at most 20."""
    started = time.monotonic()
    with suppress(OSError):
        while time.monotonic() - started < 20:
            connection.sendall(b"x" * 1000)
            time.sleep(0.1)
    return time.monotonic() - started


MULTIPART = "multipart/form-data; boundary=edge"


@pytest.mark.parametrize(
    ("content_type", "body", "status", "reason"),
    [
        ("application/json", b"{}", 415, "multipart/form-data"),
        ("application/x-www-form-urlencoded", b"files=x", 415, "multipart/form-data"),
        ("", b"x", 415, "multipart/form-data"),
        ("multipart/form-data", b"x", 422, "boundary"),
        (f"multipart/form-data; boundary={'x' * 5000}", b"x", 422, "oundary"),
        (MULTIPART, b"no part at all", 422, "no multipart"),
        (MULTIPART, b"", 422, "ends before"),
        (MULTIPART, part(PORTRAIT), 422, "ends before"),
        (MULTIPART, b"--edge--\r\n", 422, ""),
        (MULTIPART, part(PORTRAIT, name="file") + b"--edge--\r\n", 422, "unknown field 'file'"),
        (MULTIPART, b"--edge\r\n\r\nx\r\n--edge--\r\n", 422, "unknown field ''"),
        (MULTIPART, part(b"perhaps", name="aligned") + part(PORTRAIT) + b"--edge--\r\n", 422, "true or false"),
        (MULTIPART, part(b"x" * 99, name="aligned") + part(PORTRAIT) + b"--edge--\r\n", 422, "true or false"),
        (MULTIPART, b"--edge\r\nX: " + b"x" * 100_000 + b"\r\n\r\nx\r\n--edge--\r\n", 422, "header"),
        (MULTIPART, b"--edge\r\n" + b"X: y\r\n" * 1000 + b"\r\nx\r\n--edge--\r\n", 422, "header"),
    ],
)
def test_a_form_that_is_none_is_refused_in_a_sentence(
    running: Service, content_type: str, body: bytes, status: int, reason: str
) -> None:
    headers = {"Content-Type": content_type} if content_type else {}
    answer = running.client.post("/predict", content=body, headers=headers)
    assert answer.status_code == status, answer.text
    assert reason in answer.json()["detail"]


def test_a_query_that_is_none_is_refused_in_a_sentence(running: Service) -> None:
    answer = running.predict(("portrait.png", PORTRAIT), params={"aligned": "perhaps"})
    assert answer.status_code == 422
    assert answer.json()["detail"].startswith("aligned: ")


def test_broken_images_are_never_its_mistake(running: Service) -> None:
    generator = random.Random(1)
    portrait = Image.open(BytesIO(PORTRAIT)).convert("RGB").resize((64, 64))
    files = []
    for number in range(320):
        kind = ("JPEG", "PNG", "BMP", "WEBP", "TIFF", "GIF", "PPM")[number % 7]
        content = bytearray(encoded(portrait, kind))
        for _ in range(generator.randint(1, 12)):
            content[generator.randrange(min(len(content), 400 if number % 2 else 1 << 30))] = generator.randrange(256)
        files.append(
            (f"{number}.{kind}", bytes(content[: generator.randint(1, len(content))] if number % 5 else content))
        )
    read = 0
    for first in range(0, len(files), 32):
        answer = running.predict(*files[first : first + 32])
        assert answer.status_code in (200, 422), answer.text
        answers = answer.json()["files"]
        assert [file["name"] for file in answers] == [name for name, _ in files[first : first + 32]]
        read += sum("faces" in file for file in answers)
    assert 0 < read < len(files), "some are to be readable, and some not"


def test_its_own_schema_holds_whatever_is_sent(running: Service, tmp_path: Path) -> None:
    pytest.importorskip("schemathesis")
    checks = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"
    options = ["--checks", checks, "--max-examples", "25", "--seed", "1", "--no-color", "--workers", "1"]
    command = [str(Path(sys.executable).parent / "schemathesis"), "run", f"{running.url}/openapi.json", *options]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert not running.figure('fer_requests_total{path="/predict",status="500"}')
    assert running.figure('fer_requests_total{path="/predict",status="422"}')


# Many at once, slow ones, and those that leave


def test_faces_of_many_requests_go_through_the_model_together_and_back_to_their_own(
    running: Service, model: Path
) -> None:
    colours = [(3 * i, 255 - 4 * i, 5 * i) for i in range(48)]
    before = running.figure("fer_batch_faces_count"), running.figure("fer_batch_faces_sum")

    def ask(colour: tuple[int, int, int]) -> list[float]:
        answer = httpx.post(
            f"{running.url}/predict",
            files=[("files", (str(side), encoded(plain(colour, side)))) for side in (16, 32)],
            data={"aligned": "true"},
            timeout=60,
            trust_env=False,
        )
        first, second = faces_of(answer)[0], faces_of(answer, 1)[0]
        assert first["probabilities"] == second["probabilities"]
        return list(first["probabilities"].values())

    with ThreadPoolExecutor(len(colours)) as clients:
        found = list(clients.map(ask, colours))
    for colour, probabilities in zip(colours, found, strict=True):
        assert probabilities == pytest.approx(expected(model, plain(colour), Box(0, 0, 64)), abs=2e-6)
    batches = running.figure("fer_batch_faces_count") - before[0]
    faces = running.figure("fer_batch_faces_sum") - before[1]
    assert faces == 2 * len(colours)
    assert batches < faces


def test_a_batch_that_fails_ends_its_own_requests_and_no_other() -> None:
    def predict(faces: np.ndarray) -> np.ndarray:
        if (faces == 13).any():
            raise RuntimeError("unlucky")
        rows = len(faces) - 1 if (faces == 15).any() else len(faces)
        return np.full((rows, 2), np.nan if (faces == 14).any() else 0.5)

    async def ask() -> list[object]:
        batcher = Batcher(predict, 2, 0.05, sizes.append)
        running = asyncio.create_task(batcher.run())
        answers: list[object] = []
        for colour in (1, 13, 14, 15, 2):
            faces = np.full((2, 4, 4, 3), colour, np.uint8)
            answers += await asyncio.gather(batcher(faces), return_exceptions=True)
        running.cancel()
        return answers

    sizes: list[int] = []
    first, *failed, last = asyncio.run(ask())
    assert [type(answer) for answer in failed] == [ModelFailed] * 3
    np.testing.assert_array_equal(first, np.full((2, 2), 0.5))
    np.testing.assert_array_equal(last, np.full((2, 2), 0.5))
    assert sizes == [2, 2, 2, 2, 2]


def test_a_large_image_is_not_passed_by_small_ones() -> None:
    pixels, order = _Pixels(100), list[int]()

    def take(count: int) -> None:
        with pixels.take(count):
            order.append(count)

    waiting = [threading.Thread(target=take, args=(count,)) for count in (100, 10)]
    with pixels.take(60):
        for thread in waiting:
            thread.start()
            time.sleep(0.1)
    for thread in waiting:
        thread.join(10)
    assert order == [100, 10]


def test_headers_of_large_files_are_read_one_after_another(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a GIF of 20 MB that is all comments, Pillow makes 700 MB before it says how large the picture is."""
    reading, most = list[BytesIO](), list[int]()

    def read_header(file: BytesIO, largest: int) -> Image.Image:
        reading.append(file)
        time.sleep(0.05)
        most.append(len(reading))
        reading.remove(file)
        raise UnreadableImage("enough")

    async def ask(size: int) -> list[Any]:
        files = (find(bytearray(size), aligned=True) for _ in range(2))
        return await asyncio.gather(*files, return_exceptions=True)

    monkeypatch.setattr(finding, "read_header", read_header)
    find = finding.Finder(FaceFormat(STORED_SIZE, grey=False), largest=1000, threads=2)
    for size, at_once in ((100, 2), (400, 1), (5000, 1)):
        most.clear()
        assert [str(answer) for answer in asyncio.run(ask(size))] == ["enough"] * 2
        assert max(most) == at_once
    find.close()


def test_who_has_gone_is_not_computed() -> None:
    async def ask() -> None:
        batcher = Batcher(lambda faces: np.ones((len(faces), 2)), 8, 0.1, sizes.append)
        running = asyncio.create_task(batcher.run())
        leaving = asyncio.create_task(batcher(np.zeros((3, 4, 4, 3), np.uint8)))
        await asyncio.sleep(0.01)
        leaving.cancel()
        assert (await batcher(np.zeros((2, 4, 4, 3), np.uint8))).shape == (2, 2)
        running.cancel()

    sizes: list[int] = []
    asyncio.run(ask())
    assert sizes == [2]


def test_a_slow_client_is_told_and_costs_nobody_else(model: Path) -> None:
    with service(model, request_seconds=1.5) as running, running.connect() as slow:
        slow.sendall(HEAD + b"Content-Length: 1000\r\n\r\n" + part(b"x"))
        assert running.predict(("portrait.png", PORTRAIT)).status_code == 200
        started = time.monotonic()
        assert slow.recv(1000).startswith(b"HTTP/1.1 408 ")
        assert time.monotonic() - started < 5


def test_headers_that_never_end_are_not_waited_for(running: Service) -> None:
    started = time.monotonic()
    with running.connect() as connection:
        connection.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n")
        assert connection.recv(1000) == b""
    assert 5 < time.monotonic() - started < 15


def test_who_reads_nothing_of_the_answer_is_not_waited_for(running: Service) -> None:
    """A thousand of them would be all the connections that it has."""
    with running.connect() as reader:
        reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        reader.sendall(8 * b"GET /docs/files/swagger-ui-bundle.js HTTP/1.1\r\nHost: x\r\n\r\n")
        ended = select.poll()
        ended.register(reader, select.POLLHUP | select.POLLERR)
        assert ended.poll(60_000)
    assert running.client.get("/health").status_code == 200


def test_a_connection_is_kept_between_requests_and_two_at_once_are_answered_in_turn(running: Service) -> None:
    ask = b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n"
    with running.connect() as connection:
        for pause in (0, 11, 0):
            connection.sendall(2 * ask)
            said = b""
            while said.count(b"HTTP/1.1 200 ") < 2 or not said.endswith(b"}"):
                said += connection.recv(10_000)
            time.sleep(pause)


def test_what_takes_too_long_and_what_has_no_room_are_asked_to_come_again(model: Path) -> None:
    big = encoded(plain((9, 9, 9), 7000))
    with service(model, requests=1, request_seconds=0.8) as running, running.connect() as slow:
        slow.sendall(HEAD + b"Content-Length: 1000\r\n\r\n")
        time.sleep(0.2)
        answer = running.predict(("portrait.png", PORTRAIT))
        assert answer.status_code == 503
        assert answer.headers["Retry-After"] == "1"
        assert running.client.get("/health").status_code == 200
        assert slow.recv(1000).startswith(b"HTTP/1.1 408 ")
        answer = running.predict(*[("big.png", big)] * 8)
        assert answer.status_code == 503, answer.text
        assert "no answer within 0.8 s" in answer.json()["detail"]
        running.wait_until_idle()


def test_a_client_that_leaves_frees_its_place(running: Service) -> None:
    body = b"".join(part(PORTRAIT) for _ in range(32)) + b"--edge--\r\n"
    gone = 'fer_requests_total{path="/predict",status="499"}'
    before = running.figure(gone)
    for sent in (len(body), len(body) // 2):
        with running.connect() as connection:
            connection.sendall(HEAD + f"Content-Length: {len(body)}\r\n\r\n".encode() + body[:sent])
            time.sleep(0.05)
    running.wait_until_idle()
    assert running.figure(gone) == before + 2
    assert running.predict(("portrait.png", PORTRAIT)).status_code == 200


def test_it_ends_when_asked_to_and_answers_what_is_in_flight(model: Path) -> None:
    answers: list[httpx.Response] = []
    with service(model) as running:
        asking = threading.Thread(target=lambda: answers.append(running.predict(*[("portrait.png", PORTRAIT)] * 32)))
        asking.start()
        while not running.figure("fer_faces_total"):
            time.sleep(0.02)
        started = time.monotonic()
        assert running.end() == 0
        assert time.monotonic() - started < 10
        asking.join()
    assert [len(file["faces"]) for file in answers[0].json()["files"]] == [1] * 32


def test_many_clients_for_a_while(running: Service) -> None:
    command = [sys.executable, "benchmarks/service_load.py", "--url", running.url, "--clients", "12"]
    done = subprocess.run(
        [*command, "--seconds", "5", "--dry"], capture_output=True, text=True, cwd=ROOT, timeout=120, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    print(done.stdout)
    assert re.search(r"p50 [\d.]+ ms, p99 [\d.]+ ms", done.stdout)


@pytest.mark.parametrize(
    ("named", "name"),
    [
        ("filename*=utf-8''%C3%A9t%C3%A9%20%221%22.png", 'été "1".png'),
        ("filename*=\"UTF-8'fr'%C3%A9t%C3%A9.png\"", "été.png"),
        ("filename=\"ete.png\"; filename*=UTF-8''%C3%A9t%C3%A9.png", "ete.png"),
        ("filename*=latin-1''%E9.png", "file 1"),
    ],
)
def test_a_name_that_a_client_encodes_is_the_answers(running: Service, named: str, name: str) -> None:
    """As requests on urllib3 1 does, where the name is not ASCII."""
    head = f'--edge\r\nContent-Disposition: form-data; name="files"; {named}\r\n\r\n'
    body = head.encode() + PORTRAIT + b"\r\n--edge--\r\n"
    answer = running.client.post(
        "/predict", content=body, headers={"Content-Type": "multipart/form-data; boundary=edge"}
    )
    assert [file["name"] for file in answer.json()["files"]] == [name]


# How it starts


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"FER_MODEL": "/nowhere"}, "error: no model at /nowhere; make one with `fer export … --to onnx`"),
        ({"FER_MODEL": "README.md"}, "error: README.md: not an ONNX model that `fer export` wrote"),
        ({"FER_SERVICE_REQUESTS": "many"}, "error: FER_SERVICE_REQUESTS=many: must be a whole number above 0"),
        ({"FER_SERVICE_REQUEST_SECONDS": "-1"}, "error: FER_SERVICE_REQUEST_SECONDS=-1: must be a number above 0"),
        ({"FER_SERVICE_PORT": "x"}, "error: FER_SERVICE_PORT=x: must be a whole number"),
        ({"FER_SERVICE_PORT": "99999"}, "error: 127.0.0.1:99999: "),
        ({"FER_SERVICE_HOST": "192.0.2.1"}, "error: 192.0.2.1:0: "),
    ],
)
def test_what_is_set_wrongly_is_one_line(model: Path, settings: dict[str, str], line: str) -> None:
    done = start(model, settings)
    assert done.returncode == 2
    assert done.stderr.startswith(line)
    assert done.stderr.count("\n") == 1


def test_the_limits_that_are_set_count_without_a_container_too() -> None:
    environment = {**os.environ, "FER_SERVICE_REQUESTS": "many"}
    command = [sys.executable, "-m", "fer_core", "serve-api", "nowhere"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (2, "error: FER_SERVICE_REQUESTS=many: must be a whole number above 0\n")


def test_a_model_that_may_not_be_read_is_not_told_to_be_missing() -> None:
    """As the container's user finds what somebody with umask 077 exported; in a process of nobody's."""
    code = (
        "import os, sys; from pathlib import Path; from fer_core.service.server import _model_file\n"
        "if os.geteuid() == 0: os.setuid(65534)\n"
        "for place in sys.argv[1:]:\n"
        "    try: _model_file(Path(place))\n"
        "    except Exception as error: print(error)\n"
    )
    with TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        closed, own = Path(folder, "closed"), Path(folder, "own.onnx")
        closed.mkdir(mode=0o000)
        own.touch(mode=0o000)
        command = [sys.executable, "-c", code, str(closed), str(own), folder]
        said = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    assert said == [f"{place}: Permission denied; let this user read it" for place in (closed, own, own)]


def test_a_port_that_is_taken_is_one_line(model: Path, running: Service) -> None:
    done = start(model, {"FER_SERVICE_PORT": str(running.port)})
    assert done.returncode == 2
    assert done.stderr == (
        f"error: 127.0.0.1:{running.port}: Address already in use; choose another --port or --host\n"
    )


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"FER_SERVICE_REQUEST_FILES": "none"}, "FER_SERVICE_REQUEST_FILES=none: must be a whole number above 0\n"),
        ({"FER_MODEL": "/nowhere"}, "no model at /nowhere; make one with `fer export … --to onnx`"),
    ],
)
def test_the_command_line_heeds_the_same_settings(model: Path, settings: dict[str, str], line: str) -> None:
    command = [sys.executable, "-m", "fer_core", "serve-api", "--port", "0"]
    environment = {**os.environ, "FER_MODEL": str(model), **settings}
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment, timeout=20, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: {line}")


def start(model: Path, settings: dict[str, str]) -> "subprocess.CompletedProcess[str]":
    environment = {**os.environ, "FER_MODEL": str(model), "FER_SERVICE_PORT": "0", **settings}
    command = [sys.executable, "-m", "fer_core.service"]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment, timeout=60, check=False)


CLUSTER = "10.96.0.12"
OF_FER = {"FER_SERVICE_HOST": CLUSTER, "FER_SERVICE_PORT": "80", "FER_PORT": f"tcp://{CLUSTER}:80"}
OF_FER_SERVICE = {
    "FER_SERVICE_SERVICE_HOST": CLUSTER, "FER_SERVICE_SERVICE_PORT": "80", "FER_SERVICE_PORT": f"tcp://{CLUSTER}:80",
    "FER_SERVICE_HOST": "0.0.0.0",
}  # fmt: skip


@pytest.mark.parametrize(
    ("environment", "where"),
    [
        ({}, ("127.0.0.1", 8000)),
        ({"FER_SERVICE_HOST": "", "FER_SERVICE_PORT": ""}, ("127.0.0.1", 8000)),
        ({"FER_SERVICE_HOST": "::1", "FER_SERVICE_PORT": "9000", "FER_PORT": "4200"}, ("::1", 9000)),
        (OF_FER, ("0.0.0.0", 8000)),
        (OF_FER_SERVICE, ("0.0.0.0", 8000)),
    ],
)
def test_a_service_of_kubernetes_that_is_called_like_this_one_says_nothing_of_it(
    environment: dict[str, str], where: tuple[str, int]
) -> None:
    assert listen_at(environment) == where


def test_limits_are_read_and_those_that_are_none_are_left_alone() -> None:
    environment = {"FER_SERVICE_REQUEST_BYTES": "1000", "FER_SERVICE_REQUEST_SECONDS": "2.5", "FER_SERVICE_PORT": "1"}
    assert limits_from(environment) == Limits(request_bytes=1000, request_seconds=2.5)
    assert limits_from({"FER_SERVICE_REQUESTS": ""}) == Limits()
    large = limits_from({"FER_SERVICE_REQUEST_BYTES": "300000000"})
    assert large.bodies_bytes == 300_000_000, "there is room for the largest request"
    with pytest.raises(ServiceError, match=r"FER_SERVICE_REQUEST_FILES=1\.5"):
        limits_from({"FER_SERVICE_REQUEST_FILES": "1.5"})


# Its pages, and what browsers may do with them


def test_every_answer_keeps_browsers_from_harm(running: Service) -> None:
    for answer in (
        running.client.get("/health", headers={"Origin": "https://elsewhere.example"}),
        running.client.get("/docs"),
        running.client.get("/nowhere"),
        running.predict(("x", b"")),
    ):
        assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
        assert "frame-ancestors 'none'" in answer.headers["Content-Security-Policy"]
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Cache-Control"] == "no-store"
        assert not [name for name in answer.headers if name.startswith("access-control")]
        assert "server" not in answer.headers


def test_nobody_is_sent_to_another_address(running: Service) -> None:
    """It would be of the scheme and the host that reach the service, and not of those that its client knows."""
    for path in ("/predict/", "/health/", "/docs/"):
        assert running.client.post(path, headers={"Host": "elsewhere"}).status_code == 404


def test_openapi_says_every_answer(running: Service) -> None:
    document = running.client.get("/openapi.json").json()
    predict = document["paths"]["/predict"]["post"]
    assert set(predict["responses"]) == {"200", "408", "413", "415", "422", "503"}
    assert "Retry-After" in predict["responses"]["503"]["headers"]
    for status in ("408", "413", "415", "422", "503"):
        content = predict["responses"][status]["content"]["application/json"]
        assert content["example"]["detail"]
        assert content["schema"] == {"$ref": "#/components/schemas/Problem"}
    assert document["components"]["schemas"]["PredictAnswer"]["examples"]
    form = predict["requestBody"]["content"]["multipart/form-data"]["schema"]
    assert set(form["properties"]) == {"files", "aligned"}


def test_the_page_names_no_other_host(running: Service) -> None:
    page = running.client.get("/docs").text
    loaded = re.findall(r'(?:src|href)="([^"]+)"', page)
    assert len(loaded) == 4
    assert not [address for address in loaded if address.startswith(("http", "//"))]
    assert all(running.client.get(f"/{address}").status_code == 200 for address in loaded if address != "data:,")


def test_the_page_shows_the_paths_and_asks_nobody_else(running: Service, tmp_path: Path) -> None:
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("no Chromium here")
    log = tmp_path / "net.json"
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-sync"]
    settings = [f"--user-data-dir={tmp_path}", "--virtual-time-budget=30000", f"--log-net-log={log}"]
    command = [browser, *options, *settings, "--dump-dom", f"{running.url}/docs"]
    shown = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
    for text in ("/predict", "/health", "/metrics", "It knows colours, not faces."):
        assert text in shown
    # The browser's own requests have no page for an initiator.
    started = [line for line in log.read_text().splitlines() if '"initiator":"http' in line]
    asked = [re.findall(r'"url":"(\w+://[^"/]+)', line) for line in started]
    assert len(asked) >= 4
    assert {address for addresses in asked for address in addresses} == {running.url}


# In a container


def test_its_container_has_room_for_the_threads_of_a_large_server() -> None:
    """A processor has 512 threads at most; beyond the room, requests were answered with 500."""
    (serve,) = re.findall(r"^  serve:\n((?:    .*\n|\n)+)", (ROOT / "compose.yaml").read_text(), re.MULTILINE)
    (room,) = re.findall(r"pids_limit: (\d+)", serve)
    assert int(room) > 2 * 512


def test_its_health_is_not_asked_of_a_proxy(running: Service) -> None:
    """Docker's own settings put one into containers, and not all of them name loopback in `noProxy`."""
    described = (ROOT / "docker" / "service.Dockerfile").read_text()
    _, code = json.loads(described.partition("HEALTHCHECK ")[2].partition("CMD ")[2].partition("\n")[0])[1:]
    environment = {**os.environ, "FER_SERVICE_PORT": str(running.port), "http_proxy": "http://127.0.0.1:9"}
    for name in ("no_proxy", "NO_PROXY"):
        environment.pop(name, None)
    subprocess.run([sys.executable, "-c", code], env=environment, timeout=20, check=True)


@pytest.fixture(scope="module")
def image(images: "dict[str, Future[str]]") -> str:
    return images["service"].result()


@pytest.mark.engine
def test_the_image_is_small_and_holds_what_it_needs(engine: docker.DockerClient, image: str) -> None:
    base = engine.images.get("debian:bookworm-slim").attrs["Size"]
    size = engine.images.get(image).attrs["Size"] - base
    print(f"{image}: {size / 1e6:.0f} MB above its base")
    assert size <= 400e6
    code = "import importlib.util as u, os; print(os.getuid(), [n for n in NAMES if u.find_spec(n)])"
    names = ["torch", "pandas", "pyarrow", "prefect", "docker", "pip"]
    said = engine.containers.run(
        image, ["-c", code.replace("NAMES", repr(names))], entrypoint="python", remove=True, network_mode="none"
    )
    assert said == b"10001 []\n"
    said = engine.containers.run(
        image, ["-c", "command -v gcc cc g++ pip || echo none"], entrypoint="sh", remove=True, network_mode="none"
    )
    assert said == b"none\n"


@pytest.mark.engine
def test_compose_starts_it_alone_and_it_answers(
    engine: docker.DockerClient, image: str, model: Path, tmp_path: Path
) -> None:
    model.parent.chmod(0o755)
    for folder in model.parents[1], model.parents[2]:
        folder.chmod(folder.stat().st_mode | 0o055)
    environment = {"FER_MODEL": str(model.parent), "FER_SERVICE_REQUEST_FILES": "2"}
    with composed(environment) as url:
        with httpx.Client(base_url=url, timeout=30, trust_env=False) as client:
            assert client.get("/health").json()["model"]["name"] == "mean-colour"
            (face,) = faces_of(client.post("/predict", files={"files": ("portrait.png", PORTRAIT)}))
            assert face["box"]["side"] > 50
            assert client.post("/predict", files=[("files", PORTRAIT)] * 3).status_code == 413
            largest = encoded(Image.new("RGBA", (7000, 7000), (9, 9, 9, 9)))
            answers = client.post("/predict", files=[("files", largest)] * 2).json()["files"]
            assert [file["faces"] for file in answers] == [[], []]
        (container,) = engine.containers.list(filters={"label": f"com.docker.compose.project={PROJECT}"})
        state = engine.api.inspect_container(str(container.id))
        assert state["HostConfig"]["ReadonlyRootfs"]
        assert state["State"]["Health"]["Status"] == "healthy"
        assert not state["RestartCount"]
        started = time.monotonic()
        assert compose(environment, "stop", "serve").returncode == 0
        assert time.monotonic() - started < 10
        container.reload()
        assert container.attrs["State"]["ExitCode"] == 0


@pytest.mark.engine
def test_without_a_model_the_container_says_so_in_one_line(
    engine: docker.DockerClient, image: str, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    options = ["--rm", "--read-only", "--network", "none", "-v", f"{tmp_path}/empty:/model:ro", image]
    done = subprocess.run(["docker", "run", *options], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "no model at /model; make one with `fer export" in done.stderr
    missing = compose({"FER_MODEL": str(tmp_path / "missing")}, "up", "--no-build", "serve")
    compose({"FER_MODEL": str(tmp_path)}, "down", "-v")
    assert missing.returncode
    assert str(tmp_path / "missing") in missing.stderr
    assert not (tmp_path / "missing").exists()


@pytest.mark.engine
def test_compose_asks_for_no_more_than_it_needs(engine: docker.DockerClient) -> None:
    document = json.loads(compose({}, "config", "--format", "json").stdout)["services"]["serve"]
    assert not document.get("privileged")
    assert document["read_only"]
    assert document["cap_drop"] == ["ALL"]
    assert document["security_opt"] == ["no-new-privileges"]
    assert [port["host_ip"] for port in document["ports"]] == ["127.0.0.1"]
    assert document["image"] == "fer-service:test"
    assert document["logging"]["options"]["max-size"]
    assert int(document["mem_limit"]) == 2 << 30
    assert document["pids_limit"]
    (volume,) = document["volumes"]
    assert volume["read_only"]
    assert Path(volume["source"]) == ROOT / "artifacts" / "export"


PROJECT = "fer-test-service"


def compose(environment: dict[str, str], *arguments: str) -> "subprocess.CompletedProcess[str]":
    command = ["docker", "compose", "-p", PROJECT, "--profile", "serve", *arguments]
    given = {**os.environ, "FER_TAG": "test", "FER_SERVE_PORT": "0", **environment}
    return subprocess.run(command, cwd=ROOT, env=given, capture_output=True, text=True, timeout=600, check=False)


@contextmanager
def composed(environment: dict[str, str]) -> Iterator[str]:
    """`docker compose up serve`; its address."""
    try:
        done = compose(environment, "up", "-d", "--wait", "--no-build", "serve")
        assert done.returncode == 0, done.stderr + compose(environment, "logs", "serve").stdout
        yield f"http://{compose(environment, 'port', 'serve', '8000').stdout.strip()}"
    finally:
        compose(environment, "down", "-v")
