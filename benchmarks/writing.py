"""A benchmark's rows: printed as a table, and written with the machine and the commit."""

import json
import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).parent.parent


Row = dict[str, Any]


def row(
    name: str,
    ours: float,
    target: float,
    reference: float | None = None,
    *,
    judged: Literal["at most", "at least", "times faster"],
    unit: str = "",
    **more: Any,
) -> Row:
    """A measured line: `ours` is held to the target, or for `times faster` the ratio of the reference to it."""
    ratio = None if reference is None else reference / ours
    value = ratio if judged == "times faster" else ours
    assert value is not None
    met = value <= target if judged == "at most" else value >= target
    return {
        "name": name,
        "reference": None if reference is None else _short(reference),
        "ours": _short(ours),
        "unit": unit,
        "ratio": None if ratio is None else _short(ratio),
        "target": target,
        "judged": judged,
        "met": met,
        **more,
    }


def show(rows: Sequence[Row]) -> None:
    """Print the table."""
    table = Table("", "reference", "ours", "ratio", "target", "met")
    signs = {"at most": "≤ {}", "at least": "≥ {}", "times faster": "≥ {} ×"}
    for line in rows:
        values = [_text(line[key], line["unit"]) for key in ("reference", "ours")]
        target = signs[line["judged"]].format(f"{line['target']:g}")
        table.add_row(line["name"], *values, _text(line["ratio"], ""), target, "yes" if line["met"] else "no")
    Console(width=None if Console().is_terminal else 140).print(table)


def _short(value: float) -> float:
    return float(f"{value:.4g}")


def _text(value: float | None, unit: str) -> str:
    return "" if value is None else f"{value:g} {unit}".rstrip()


def write_results(name: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """`benchmarks/results/NAME.json`."""
    done = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, cwd=ROOT)
    machine = f"{platform.machine()}, {os.cpu_count()} cores"
    results = ROOT / "benchmarks" / "results"
    results.mkdir(exist_ok=True)
    document = {"rows": list(rows), "machine": machine, "commit": done.stdout.strip()}
    (results / f"{name}.json").write_text(json.dumps(document, indent=1), encoding="utf-8")
