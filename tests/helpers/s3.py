"""A real S3 server on this machine, and what reaches it."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from flows.prefect_server import free_port
from helpers.machines import wait_until


@contextmanager
def s3_server(folder: Path) -> Iterator[str]:
    """Its address, until the block ends; its log goes into `folder`."""
    port = free_port()
    command = [sys.executable, "-c", f"from moto.server import main; main(['-p', '{port}'])"]
    with (folder / "log").open("w") as log, subprocess.Popen(command, stdout=log, stderr=log) as server:
        address = f"http://127.0.0.1:{port}"
        try:
            wait_until(lambda: _answers(address), 60)
            yield address
        finally:
            server.terminate()


def way_to(address: str) -> dict[str, str]:
    """The environment by which a user names the server."""
    return {
        "AWS_ENDPOINT_URL": address,
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": "fer",
        "AWS_SECRET_ACCESS_KEY": "fer",
        "NO_PROXY": "127.0.0.1",
    }


def _answers(address: str) -> bool:
    try:
        return httpx.get(address).status_code < 500
    except httpx.HTTPError:
        return False
