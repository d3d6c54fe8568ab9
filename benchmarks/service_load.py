"""How many requests the service answers in a second, and how long they take: many clients at once, on loopback.

Each client sends a photograph, waits for its answer and sends it again. Prints requests a second, the median, the 99th
percentile and the errors, and writes them to `benchmarks/results/service.json`. The clients run in this process, the
service in one of its own on the same machine, unless --url says where it is.

    python benchmarks/service_load.py --model artifacts/export/model.onnx
"""

import argparse
import asyncio
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import numpy as np
from writing import ROOT, row, show, write_results

PORTRAIT = ROOT / "openface" / "portrait.png"
_WARM = 3
"""Requests of each client that are not counted."""


@dataclass
class Load:
    """Seconds of each answered request, and what went wrong, by kind."""

    seconds: list[float] = field(default_factory=list)
    errors: Counter[str] = field(default_factory=Counter)


async def load(url: str, clients: int, seconds: float, image: bytes) -> tuple[Load, float]:
    """Requests of so many clients for so many seconds, and how long it really took."""
    found = Load()
    async with httpx.AsyncClient(
        base_url=url, timeout=60, limits=httpx.Limits(max_connections=clients), trust_env=False
    ) as client:
        await asyncio.gather(*(_ask(client, image, Load()) for _ in range(_WARM * clients)))
        started = time.monotonic()
        await asyncio.gather(*(_ask_until(client, image, started + seconds, found) for _ in range(clients)))
        return found, time.monotonic() - started


async def _ask_until(client: httpx.AsyncClient, image: bytes, end: float, found: Load) -> None:
    while time.monotonic() < end:
        await _ask(client, image, found)


async def _ask(client: httpx.AsyncClient, image: bytes, found: Load) -> None:
    started = time.perf_counter()
    try:
        answer = await client.post("/predict", files={"files": ("portrait.png", image)})
    except httpx.HTTPError as error:
        found.errors[type(error).__name__] += 1
        return
    if answer.status_code != 200 or len(answer.json()["files"][0]["faces"]) != 1:
        found.errors[str(answer.status_code)] += 1
        return
    found.seconds.append(time.perf_counter() - started)


def mean_batch(url: str) -> float:
    """Faces in a call of the model, on average."""
    lines = dict(line.rsplit(" ", 1) for line in httpx.get(f"{url}/metrics").text.splitlines() if line[0] != "#")
    return float(lines["fer_batch_faces_sum"]) / float(lines["fer_batch_faces_count"])


@contextmanager
def service(model: Path) -> Iterator[str]:
    """A service on a port of its own; its address."""
    environment = {**os.environ, "FER_MODEL": str(model), "FER_SERVICE_PORT": "0"}
    command = [sys.executable, "-m", "fer_core.service"]
    with subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield process.stdout.readline().rpartition(" ")[2].strip().removesuffix("/docs")
        finally:
            process.terminate()


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--model", type=Path, default=ROOT / "artifacts" / "export" / "model.onnx")
    options.add_argument("--url", help="of a service that runs already")
    options.add_argument("--clients", type=int, default=50)
    options.add_argument("--seconds", type=float, default=60)
    options.add_argument("--dry", action="store_true", help="write no results")
    chosen = options.parse_args()
    if chosen.url:
        measure(chosen.url, chosen)
    else:
        with service(chosen.model) as url:
            measure(url, chosen)


def measure(url: str, chosen: argparse.Namespace) -> None:
    found, took = asyncio.run(load(url, chosen.clients, chosen.seconds, PORTRAIT.read_bytes()))
    if not found.seconds:
        sys.exit(f"no request was answered: {dict(found.errors)}")
    p50, p99 = (round(1000 * float(np.percentile(found.seconds, share)), 1) for share in (50, 99))
    line = row(
        f"errors, {chosen.clients} clients for {chosen.seconds:g} s",
        found.errors.total(),
        0,
        judged="at most",
        requests=len(found.seconds),
        requests_per_second=round(len(found.seconds) / took, 1),
        p50_ms=p50,
        p99_ms=p99,
        mean_batch=round(mean_batch(url), 2),
        errors=dict(found.errors),
    )
    show([line])
    print(f"{line['requests_per_second']} requests/s, p50 {p50} ms, p99 {p99} ms, {line['mean_batch']} faces a batch")
    if found.errors:
        print("errors:", dict(found.errors))
    if not chosen.dry:
        write_results("service", [line])
    if found.errors:
        sys.exit(1)


if __name__ == "__main__":
    main()
