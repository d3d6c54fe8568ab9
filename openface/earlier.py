"""Findings of earlier annotations, known again by what was shown, whatever it is called and labelled now."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from hashlib import blake2b
from pathlib import Path

import numpy as np
import pandas as pd

from openface.annotation import DIGEST, DIGESTS, JOURNAL, LAST, Finding, Journal
from openface.columns import LANDMARKS
from openface.reading import FIGURES

_BYTES = 16
_SETTLED = ("ok", "no_face")
"""What the same image would come to again; one that failed is given another try."""


def digests_of(contents: Iterable[bytes], way: str) -> list[str]:
    """32 hexadecimal digits an image, equal where the same way of annotating comes to the same finding.

    Args:
        contents: whatever tells images apart.
        way: names how they are annotated, in at most 64 bytes; two ways have no digest in common.
    """
    return [blake2b(content, digest_size=_BYTES, key=way.encode()).hexdigest() for content in contents]


def settled_in_table(table: pd.DataFrame, digests: Sequence[str]) -> dict[int, Finding]:
    """Findings of a finished annotation for those of these images that it settled, by their numbers here.

    A table without digests, or without all figures, has none.
    """
    if not {DIGEST, "status", *FIGURES} <= set(table.columns):
        return {}
    rows = _same(list(table[DIGEST]), digests)
    status = table["status"].to_numpy()
    figures = table[list(FIGURES)].to_numpy(np.float32)
    # None where OpenFace's image was from before it was asked for them.
    landmarks = table[[name for name in LANDMARKS if name in table.columns]].to_numpy(np.float32)
    return {
        number: _finding(number, str(status[row]), figures[row], landmarks[row])
        for number, row in rows.items()
        if status[row] in _SETTLED
    }


def settled_in_work(folder: Path, digests: Sequence[str]) -> dict[int, Finding]:
    """Findings of an annotation that broke off in its working folder, which nobody else may work in meanwhile."""
    if not (folder / DIGESTS).is_file():
        return {}
    journal = Journal(folder / JOURNAL)
    found: Mapping[int, Finding | None] = {
        number: journal.latest(row) for number, row in _same(_lines(folder / DIGESTS), digests).items()
    }
    return {
        number: replace(finding, number=number)
        for number, finding in found.items()
        if finding and finding.status in _SETTLED
    }


def _lines(path: Path) -> list[str]:
    return path.read_text(encoding="ascii").split()


def _same(before: Sequence[str], now: Sequence[str]) -> dict[int, int]:
    """The row before of each image that was there then, by its number now."""
    row_of = {digest: row for row, digest in enumerate(before)}
    return {number: row_of[digest] for number, digest in enumerate(now) if digest in row_of}


def _finding(number: int, status: str, figures: np.ndarray, landmarks: np.ndarray) -> Finding:
    if status != "ok":
        return Finding(number, LAST, status, {})
    known = landmarks if np.isfinite(landmarks).all() else np.empty(0, np.float32)
    return Finding(number, LAST, status, dict(zip(FIGURES, map(float, figures), strict=True)), landmarks=known)
