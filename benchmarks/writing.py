"""Writes a benchmark's rows where the next one finds them, with the machine and the commit."""

import json
import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent


def write_results(name: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """`benchmarks/results/NAME.json`."""
    done = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, cwd=ROOT)
    machine = f"{platform.machine()}, {os.cpu_count()} cores"
    results = ROOT / "benchmarks" / "results"
    results.mkdir(exist_ok=True)
    document = {"rows": list(rows), "machine": machine, "commit": done.stdout.strip()}
    (results / f"{name}.json").write_text(json.dumps(document, indent=1), encoding="utf-8")
