"""The worker of `docker compose up`: clears up after its previous life, runs flows, and ends in good order."""

import signal
import socket
import subprocess
import sys
import threading
from contextlib import suppress

from fer_core.exit_codes import ExitCode
from flows.doctor import examine_openface
from flows.register import end_dead_runs
from openface.docker_engine import OWNER, engine, has_gpu, remove_labelled, remove_orphans
from openface.errors import EngineAway
from openface.settings import OpenFaceSettings


def main() -> None:
    """Run the worker of experiments until it ends, or is asked to."""
    try:
        with engine() as client:
            orphans = remove_orphans(client, starting=True)
            gpu = has_gpu(client)
    except EngineAway as away:
        print(f"error: {away}; see FER_DOCKER_SOCKET", file=sys.stderr)
        sys.exit(ExitCode.ENGINE_AWAY)
    dead = end_dead_runs()
    print(
        f"steps run on {'the GPU' if gpu else 'the CPU'}; of an earlier life {orphans} containers removed, "
        f"{dead} runs marked crashed",
        flush=True,
    )
    openface = examine_openface(OpenFaceSettings())
    print(f"OpenFace: {openface.message}", flush=True)
    asked_to_end = threading.Event()
    signal.signal(signal.SIGTERM, lambda number, frame: asked_to_end.set())
    worker = subprocess.Popen([sys.executable, "-P", "-m", "flows.experiment_worker"])
    while worker.poll() is None:
        if asked_to_end.wait(0.5):
            _end(worker)
    sys.exit(worker.returncode)


def _end(worker: "subprocess.Popen[bytes]") -> None:
    """The worker ends its flows, and they their containers; what is left of these goes here."""
    worker.terminate()
    worker.wait()
    with suppress(EngineAway), engine() as client:
        remove_labelled(client, {OWNER: socket.gethostname()})


if __name__ == "__main__":
    main()
