"""What a run takes beside its steps' own work: `fer run` on drawn faces, one step at a time, from nothing.

A step's own work is what its artifact's manifest says; the rest of the wall clock is Prefect's start, each step's
Python and imports, and what the flow does between. Prints a table and writes `benchmarks/results/overhead.json`.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from writing import ROOT, row, show, write_results

FER = Path(sys.executable).with_name("fer")
IMPORTS = {
    "Python alone": "",
    "fer_core.cli": "import fer_core.cli",
    "torch": "import torch",
    "torch and what trains": "import fer_core.cli, fer_core.training, fer_core.figures",
    "Prefect's flow": "import flows.pipeline",
}


def seconds_of(command: list[str], folder: str | Path = ROOT) -> float:
    """Wall-clock seconds of a command, whose output is shown only if it fails."""
    started = time.monotonic()
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder)
    if done.returncode:
        sys.exit(f"{' '.join(command)}\n{done.stdout}{done.stderr}")
    return time.monotonic() - started


def fastest_import(statement: str, times: int = 3) -> float:
    """Seconds of a Python that does nothing but import."""
    return min(seconds_of([sys.executable, "-c", statement]) for _ in range(times))


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--experiment", default="demo")
    parser.add_argument("--seeds", default="1")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        command = [str(FER), "run", options.experiment, "--seeds", options.seeds, "--jobs", "1", "--artifacts", folder]
        whole = seconds_of(command)
        manifests = [json.loads(path.read_text()) for path in Path(folder).glob("*/*/manifest.json")]
        again = seconds_of(command)
    own = sum(manifest["seconds"] for manifest in manifests)
    name = f"fer run {Path(options.experiment).stem}, {len(manifests)} steps one at a time, {whole:.0f} s"
    more = {"whole": round(whole, 1), "own_work": round(own, 1), "all_reused": round(again, 1)}
    rows = [
        row(f"{name}: not the steps' work", 100 * (whole - own) / whole, 20, judged="at most", unit="%", **more),
        row("the same, a step", (whole - own) / len(manifests), 2, judged="at most", unit="s"),
    ]
    show(rows)
    parts = {what: round(fastest_import(statement), 2) for what, statement in IMPORTS.items()}
    rows[0]["starts"] = parts
    print("starts: " + ", ".join(f"{what} {seconds:g} s" for what, seconds in parts.items()))
    write_results("overhead", rows)


if __name__ == "__main__":
    main()
