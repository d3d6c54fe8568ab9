"""A training beside eight other busy processes: how much slower than its share of the cores, and what makes it so.

EfficientFace's steps in a process with a thread for each core: alone, and beside processes that only count. Its fair
share is what the scheduler grants to as many threads among all; a step may take as many times as long. Once with
threads that sleep while they wait, as `fer_core` sets them, once with threads that spin, as they come, and once with
bfloat16, which a processor may only emulate. Prints a table and writes `benchmarks/results/oversubscribed.json`.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch  # noqa: F401, before anything of fer_core, which would tell OpenMP to let threads sleep
from precision import stepper
from writing import row, show, write_results

from fer_core.devices import Precision
from openface.machine import usable_cores

OTHERS = 8
WAYS: dict[str, tuple[dict[str, str], Precision]] = {
    "sleeping threads": ({"OMP_WAIT_POLICY": "passive"}, "float32"),
    "spinning threads": ({}, "float32"),
    "sleeping threads, bfloat16": ({"OMP_WAIT_POLICY": "passive"}, "bfloat16"),
}
"""By name: what OpenMP is told, and the precision."""


def measure(precision: Precision, seconds: float) -> float:
    """Seconds that a step takes in this process, the mean over `seconds` and at least three steps."""
    step = stepper("efficientface", 48, 32, precision)
    step()
    steps, started = 0, time.perf_counter()
    while steps < 3 or time.perf_counter() - started < seconds:
        step()
        steps += 1
    return (time.perf_counter() - started) / steps


def in_a_process(told: dict[str, str], precision: Precision, seconds: float) -> float:
    """OpenMP reads its variables as torch is loaded, which is before `fer_core` there."""
    command = [sys.executable, __file__, "--step", precision, "--seconds", str(seconds)]
    environment = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"} | told
    environment["OMP_NUM_THREADS"] = str(usable_cores())
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return float(json.loads(done.stdout.splitlines()[-1]))


@contextmanager
def busy_processes(count: int) -> Iterator[None]:
    """Processes that count, and end with the context."""
    others = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for other in others:
            other.kill()
            other.wait()


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=5, help="of each measurement, at least")
    parser.add_argument("--step", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.step:
        print(json.dumps(measure(options.step, options.seconds)))
        return
    cores = usable_cores()
    share = max(1.0, (cores + OTHERS) / cores)
    rows = []
    for name, (told, precision) in WAYS.items():
        alone = in_a_process(told, precision, options.seconds)
        with busy_processes(OTHERS):
            beside = in_a_process(told, precision, options.seconds)
        target = 1.5 if name == "sleeping threads" else None
        what = f"EfficientFace step beside {OTHERS} busy processes ÷ alone ÷ its share ({share:g}), {name}"
        rows.append(row(what, beside / alone / share, target, judged="at most", alone=alone, beside=beside))
    show(rows)
    write_results("oversubscribed", rows)


if __name__ == "__main__":
    main()
