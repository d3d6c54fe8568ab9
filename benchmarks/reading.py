"""What a run reads of a dataset of a million small files, the first time and again, and what it keeps of that.

Files of 1 to 2 kB, a thousand to a folder, are written to memory first, 4 GB: the figures are the program's, and a
disk's come on top. Prints a table and writes `benchmarks/results/reading.json`.
"""

import argparse
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from writing import row, show, write_results

_MEMORY = Path("/dev/shm")
_YOUNG = 2.1
"""Seconds after which a file's times are believed."""


def write_files(folder: Path, count: int) -> None:
    """Files of random bytes, a thousand to a folder."""
    generator = random.Random(1)
    for number in range(count):
        inner = folder / f"{number // 1000:04d}"
        if number % 1000 == 0:
            inner.mkdir(parents=True)
        (inner / f"face{number:07d}.jpg").write_bytes(generator.randbytes(generator.randrange(1024, 2048)))


def measure(folder: Path) -> dict[str, float | str]:
    """A look in this process, and another that is given what the first one saw."""
    from fer_core.contents import look

    started = time.perf_counter()
    seen = look(folder)
    looked = time.perf_counter()
    look(folder, seen)
    return {
        "content": seen.content,
        "seconds": looked - started,
        "seconds_given": time.perf_counter() - looked,
        "gigabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9,
    }


def in_a_process(folder: Path, cache: Path) -> dict[str, Any]:
    """So that memory counts from nothing, and the cache is the benchmark's own."""
    command = [sys.executable, __file__, "--in", str(folder)]
    environment = os.environ | {"XDG_CACHE_HOME": str(cache)}
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=environment)
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=1_000_000)
    parser.add_argument("--in", dest="folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.folder:
        print(json.dumps(measure(options.folder)))
        return
    with tempfile.TemporaryDirectory(dir=_MEMORY if _MEMORY.is_dir() else None) as scratch:
        folder, cache = Path(scratch, "data"), Path(scratch, "cache")
        write_files(folder, options.count)
        time.sleep(_YOUNG)
        first, again = in_a_process(folder, cache), in_a_process(folder, cache)
        kept = sum(file.stat().st_size for file in cache.rglob("*") if file.is_file()) / 1e6
    assert first["content"] == again["content"]
    name = f"{options.count:,} files of 1 to 2 kB"
    rows = [
        row(f"{name}: read for the first time", first["seconds"], None, judged="at most", unit="s"),
        row("read before", again["seconds"], None, judged="at most", unit="s"),
        row("by a step that is told what its run saw", again["seconds_given"], None, judged="at most", unit="s"),
        row("kept in the cache folder", kept, None, judged="at most", unit="MB"),
        row("memory, at most", max(first["gigabytes"], again["gigabytes"]), None, judged="at most", unit="GB"),
    ]
    show(rows)
    write_results("reading", rows)


if __name__ == "__main__":
    main()
