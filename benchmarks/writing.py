"""A benchmark's rows: printed as a table, and written with the processor's kind, the machine and the commit."""

import json
import platform
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from openface.machine import usable_cores

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results"

Row = dict[str, Any]
_HEAD = ("", "reference", "ours", "ratio", "target", "met")
_SIGNS = {"at most": "≤ {}", "at least": "≥ {}", "times faster": "≥ {} ×"}


def row(
    name: str,
    ours: float,
    target: float | None,
    reference: float | None = None,
    *,
    judged: Literal["at most", "at least", "times faster"],
    unit: str = "",
    **more: Any,
) -> Row:
    """A measured line: `ours` is held to the target if there is one, or for `times faster` the ratio of the two.

    Both are times, or with a unit that ends in `/s` rates; the ratio is how many times faster ours is.
    """
    ratio = None if reference is None else ours / reference if unit.endswith("/s") else reference / ours
    value = ratio if judged == "times faster" else ours
    met = None
    if target is not None:
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
    lines = [_HEAD, *map(cells, rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(_HEAD))]
    print(f"CPU: {kind_of_cpu()}")
    for number, line in enumerate(lines):
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
        if number == 0:
            print("  ".join("─" * width for width in widths))


def cells(line: Row) -> tuple[str, ...]:
    """As text: name, reference, ours, ratio, target, and whether it is met."""
    values = [_text(line[key], line["unit"]) for key in ("reference", "ours")]
    target = "" if line["target"] is None else _SIGNS[line["judged"]].format(f"{line['target']:g}")
    met = {True: "yes", False: "no", None: ""}[line["met"]]
    return (line["name"], *values, _text(line["ratio"], ""), target, met)


def _short(value: float) -> float:
    return float(f"{value:.4g}")


def _text(value: float | None, unit: str) -> str:
    return "" if value is None else f"{value:g} {unit}".rstrip()


def write_results(name: str, rows: Sequence[Mapping[str, Any]], device: str = "") -> None:
    """`benchmarks/results/NAME.json`, under the processor's kind; what other kinds have there stays.

    Args:
        device: what was measured where that is not the CPU.
    """
    describe = ["git", "describe", "--always", "--dirty", "--exclude=*"]
    done = subprocess.run(describe, capture_output=True, text=True, cwd=ROOT)
    cores = f"{_processor()}, {usable_cores()} cores"
    machine = f"{device}, {cores}" if device else cores
    path = RESULTS / f"{name}.json"
    documents = json.loads(path.read_text("utf-8")) if path.is_file() else {}
    documents[device or kind_of_cpu()] = {"rows": list(rows), "machine": machine, "commit": done.stdout.strip()}
    RESULTS.mkdir(exist_ok=True)
    path.write_text(json.dumps(documents, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def kind_of_cpu() -> str:
    """Such as "AVX2": what this process may use of the processor."""
    import torch

    from fer_core.devices import processor_of

    return processor_of(torch.device("cpu")).kind


def _processor() -> str:
    """The model, where Linux tells it."""
    found = Path("/proc/cpuinfo")
    lines = found.read_text().splitlines() if found.is_file() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.machine()
