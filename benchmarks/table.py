"""The table of all that was measured, from `benchmarks/results/`: a column for each kind of processor, in Markdown."""

import json
from collections.abc import Mapping
from typing import Any

from writing import RESULTS, Row, cells

NAMES = (
    "precision",
    "small_maps",
    "neighbours",
    "student",
    "inference",
    "graph",
    "memory",
    "overhead",
    "paper_table",
    "oversubscribed",
    "reading",
    "machines",
    "figures",
    "gpu",
)
KINDS = ("AVX2", "AVX-512", "AVX-512 + bfloat16", "AVX-512 + AMX")
"""Kinds of CPUs, in the order of their columns; GPUs come after them."""
SUBJECTS = (
    "LDG-AUs step ÷ LDG step",
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
"""How the names of all columns' rows begin."""
REASONS: Mapping[tuple[str, str], str] = {
    ("EfficientFace training step", "AVX2"): "half of it is convolutions at the speed of a matrix product",
    ("EfficientFace inference", "AVX2"): "at a matrix product's speed it would be 4.2 ms",
    ("EfficientFace step beside 8", "AVX2"): "two threads wait for whichever of them does not run",
}
"""Why a target is missed, by how a row's name begins and the processor's kind; README.md beside this file has more."""

Documents = dict[str, dict[str, Any]]


def measured(name: str) -> Documents:
    """What a result file has for each kind of processor; nothing where there is none."""
    path = RESULTS / f"{name}.json"
    documents: Documents = json.loads(path.read_text("utf-8")) if path.is_file() else {}
    return documents


def cell(row: Row | None, kind: str) -> str:
    """Reference → ours, how many times faster, and the target with whether it is met or why not."""
    if row is None:
        return ""
    _, reference, ours, ratio, target, met = cells(row)
    text = f"{reference} → {ours}" if reference else ours
    text += f", {ratio} ×" if ratio else ""
    if target:
        why = [reason for (name, of), reason in REASONS.items() if of == kind and row["name"].startswith(name)]
        text += f" ({target}: {met if row['met'] or not why else f'no, {why[0]}'})"
    return text


def lines(columns: Mapping[str, list[Row]]) -> list[str]:
    """One line for each subject, and after them one for each row that belongs to none."""
    found = []
    for subject in SUBJECTS:
        of_kinds = {kind: [row for row in rows if _subject(row["name"]) == subject] for kind, rows in columns.items()}
        for place in range(max(map(len, of_kinds.values()), default=0)):
            rows = {kind: same[place] if place < len(same) else None for kind, same in of_kinds.items()}
            name = " / ".join(dict.fromkeys(row["name"] for row in rows.values() if row is not None))
            found.append(_line(name, rows))
    others = dict.fromkeys(row["name"] for rows in columns.values() for row in rows if _subject(row["name"]) is None)
    for name in others:
        same_name = {kind: next((row for row in rows if row["name"] == name), None) for kind, rows in columns.items()}
        found.append(_line(name, same_name))
    return found


def _subject(name: str) -> str | None:
    return next((subject for subject in SUBJECTS if name.startswith(subject)), None)


def _line(name: str, rows: Mapping[str, Row | None]) -> str:
    return "| " + " | ".join([name, *(cell(row, kind) for kind, row in rows.items())]) + " |"


def main() -> None:
    """Print it."""
    documents = [measured(name) for name in NAMES]
    kinds = {kind for document in documents for kind in document}
    ordered = [kind for kind in KINDS if kind in kinds] + sorted(kinds - set(KINDS))
    columns = {
        kind: [
            row
            for document in documents
            for row in document.get(kind, {"rows": []})["rows"]
            if "processor time" not in row["name"]
        ]
        for kind in ordered
    }
    for kind in ordered:
        machines = sorted({document[kind]["machine"] for document in documents if kind in document})
        print(f"{kind}: {'; '.join(machines)}.")
    print("\nReference → ours, times faster (target: met).\n")
    print("| | " + " | ".join(ordered) + " |")
    print("| --- " * (1 + len(ordered)) + "|")
    print("\n".join(lines(columns)))


if __name__ == "__main__":
    main()
