"""The table of all that was measured, from `benchmarks/results/`: two cores without a GPU beside a GPU, in Markdown."""

import json
from typing import Any

from writing import RESULTS, Row, cells

NAMES = ("neighbours", "student", "inference", "graph", "memory", "overhead", "paper_table", "figures")
SUBJECTS = (
    "LDG-AUs step ÷ LDG step, neighbours = bank",
    "student epoch",
    "batches from",
    "EfficientFace training step",
    "EfficientFace inference",
    "graph",
    "its recall",
    "its memory",
    "bytes differ",
    "training on",
    "until its first step",
    "fer run",
    "the same, a step",
    "the paper's table",
)
"""How the names of both columns' rows begin."""


def measured(name: str) -> dict[str, Any]:
    """A result file, or one without rows."""
    path = RESULTS / f"{name}.json"
    document: dict[str, Any] = json.loads(path.read_text("utf-8")) if path.is_file() else {"rows": [], "machine": ""}
    return document


def line(row: Row | None) -> list[str]:
    """Reference, ours, ratio, target and met; empty where nothing was measured."""
    return [""] * 5 if row is None else list(cells(row)[1:])


def main() -> None:
    """Print it."""
    documents, gpu = [measured(name) for name in NAMES], measured("gpu")
    rows = [row for document in documents for row in document["rows"] if "processor time" not in row["name"]]
    machines = sorted({document["machine"] for document in documents if document["rows"]})
    print(f"Left: {'; '.join(machines)}. Right: {gpu['machine'] or 'no GPU has run `make bench-gpu` yet'}.\n")
    print("| | reference | ours | ratio | target | met |" + " on a GPU: reference | ours | ratio | target | met |")
    print("| --- " * 11 + "|")
    for subject in SUBJECTS:
        ours, theirs = (
            [row for row in measured_rows if row["name"].startswith(subject)] for measured_rows in (rows, gpu["rows"])
        )
        for place in range(max(len(ours), len(theirs))):
            both = [found[place] if place < len(found) else None for found in (ours, theirs)]
            name = " / ".join(dict.fromkeys(row["name"] for row in both if row is not None))
            print("| " + " | ".join([name, *line(both[0]), *line(both[1])]) + " |")
    for row in gpu["rows"] + rows:
        if not row["name"].startswith(SUBJECTS):
            sides = [line(row), line(None)] if row in rows else [line(None), line(row)]
            print("| " + " | ".join([row["name"], *sides[0], *sides[1]]) + " |")


if __name__ == "__main__":
    main()
