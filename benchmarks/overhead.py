"""What a run takes beside its steps' own work: `fer run` on drawn faces, one step at a time, from nothing.

A step's own work is what its artifact's manifest says; the rest of the wall clock is Prefect's start, each step's
Python, and what the flow does between. Work begins with imports, so there are rows that count these as overhead too.
Prints a table and writes `benchmarks/results/overhead.json`.
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
    "prepare": "import fer_core.data.prepare",
    "annotate": "import fer_core.data.dataset, openface.table",
    "graph": "import fer_core.graph.action_units, fer_core.report.step_plots, fer_core.graph.neighbours",
    "train-ldg": "import fer_core.train.ldg, fer_core.report.step_plots",
    "soft-labels": "import fer_core.train.soft_labels",
    "distill": "import fer_core.train.efficientface, fer_core.train.soft_labels, fer_core.report.step_plots",
    "evaluate": "import fer_core.evaluation.evaluate",
    "report": "import fer_core.report.page",
}
"""What each step imports when its work begins, after `fer_core.cli`."""


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
    rows = []
    base = fastest_import("import fer_core.cli")
    imports = {step: fastest_import(f"import fer_core.cli; {what}") - base for step, what in IMPORTS.items()}
    imported = sum(imports[manifest["step"]] for manifest in manifests)
    own = sum(manifest["seconds"] for manifest in manifests)
    run = f"fer run {Path(options.experiment).stem}, {len(manifests)} steps one at a time, {whole:.0f} s"
    more = {"whole": round(whole, 1), "own_work": round(own, 1), "all_reused": round(again, 1)}
    for counted, beside in (("", whole - own), (", imports counted as overhead", whole - own + imported)):
        share = f"{run}: not the steps' work{counted}"
        rows.append(row(share, 100 * beside / whole, 20, judged="at most", unit="%", **more))
        rows.append(row(f"the same, a step{counted}", beside / len(manifests), 2, judged="at most", unit="s"))
    rows[2]["imports"] = {step: round(seconds, 2) for step, seconds in imports.items()}
    show(rows)
    write_results("overhead", rows)


if __name__ == "__main__":
    main()
