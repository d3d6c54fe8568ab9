"""The worker of `docker compose up`: clears away what an earlier life of it left running, and waits for runs."""

import os
import sys

from openface.engine import EngineAway, engine, has_gpu, remove_orphans

POOL = "fer"


def main() -> None:
    """Become Prefect's process worker, once the engine answers."""
    try:
        with engine() as client:
            orphans = remove_orphans(client, starting=True)
            gpu = has_gpu(client)
    except EngineAway as away:
        sys.exit(f"error: {away}; see FER_DOCKER_HOST and FER_DOCKER_SOCKET")
    print(f"steps run on {'the GPU' if gpu else 'the CPU'}; {orphans} containers of dead runs removed", flush=True)
    os.execvp("prefect", ["prefect", "worker", "start", "--pool", POOL, "--type", "process", "--with-healthcheck"])


if __name__ == "__main__":
    main()
