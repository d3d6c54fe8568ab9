"""The figures of a whole run, measured on this machine: `make bench`, FER_DATA=… for those on FER+.

Prints a table and writes it to `benchmarks/results/figures.json`.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from writing import ROOT, Row, row, show, write_results

FER = Path(sys.executable).with_name("fer")


def seconds_of(command: Sequence[str | Path]) -> float:
    """Wall-clock seconds of a command, whose output is shown only if it fails."""
    started = time.monotonic()
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, cwd=ROOT)
    if done.returncode:
        sys.exit(f"{' '.join(map(str, command))}\n{done.stdout}{done.stderr}")
    return time.monotonic() - started


def steps_in(folder: Path) -> set[Path]:
    """The finished artifacts below a folder."""
    return {path.parent for path in folder.glob("*/*/manifest.json")}


def demo_rows(artifacts: Path) -> list[Row]:
    """The demo from nothing, again, and with another λ."""
    command: list[str | Path] = [FER, "run", "demo", "--artifacts", artifacts]
    rows = [row("demo, from nothing", seconds_of(command), 360, judged="at most", unit="s")]
    rows.append(row("the same again, all reused", seconds_of(command), 15, judged="at most", unit="s"))
    before = steps_in(artifacts)
    seconds_of([*command, "--set", "ldg.lambda=0.05"])
    made = sorted(path.parent.name for path in steps_in(artifacts) - before)
    # LDG-AUs, its soft labels, EF + LDG-AUs, two evaluations and the report.
    rows.append(row("steps made anew with another λ", len(made), 6, judged="at most", unit="steps"))
    return rows


def graph_rows(data: Path, artifacts: Path) -> list[Row]:
    """The graph over FER+'s annotated training images, on intensities and on presences."""
    dataset, units = artifacts / "dataset", artifacts / "aus"
    seconds_of([FER, "prepare", "ferplus-cpu", "--data", data, "--out", dataset])
    seconds_of(
        [FER, "annotate", "ferplus-cpu", "--in", dataset, "--aus", data / "openface_aus.parquet", "--out", units]
    )
    rows = []
    for features in ("intensity", "presence"):
        graph = artifacts / features
        settings = ["--set", f"action_units.features={features}", "--set", "action_units.min_confidence=0.0"]
        seconds_of([FER, "graph", "ferplus-cpu", *settings, "--in", dataset, "--in", units, "--out", graph])
        card = json.loads((graph / "graph.json").read_text())
        rows.append(
            row(f"graph of {card['images']} FER+ faces, {features}", card["seconds"], 30, judged="at most", unit="s")
        )
        rows.append(row(f"its recall@{card['k']}", card["recall"], 0.99, judged="at least"))
    return rows


def main() -> None:
    """Measure, print and write."""
    with tempfile.TemporaryDirectory() as folder:
        rows = demo_rows(Path(folder) / "demo")
        if data := os.environ.get("FER_DATA"):
            rows += graph_rows(Path(data).expanduser().resolve(), Path(folder))
    show(rows)
    write_results("figures", rows)


if __name__ == "__main__":
    main()
