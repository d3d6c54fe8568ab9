"""Findings of earlier annotations, known again by what was shown, whatever it is called and labelled now."""

from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from hashlib import blake2b
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as parquet

from openface.annotation import DIGESTS, JOURNAL, LAST, Finding, findings_in
from openface.columns import INTENSITIES, LANDMARKS, PRESENCES

DIGEST = "digest"
"""Column of a table: what tells an image apart and how it was annotated, and then what its row held."""
_BYTES, _BYTES_OF_ROW = 16, 8
_OF_IMAGE = 2 * _BYTES
_FIGURES = ["confidence", *INTENSITIES, *PRESENCES]
_SETTLED = ("ok", "no_face")
"""What the same image would come to again; one that failed is given another try."""


def digests_of(contents: Iterable[bytes], way: str) -> list[str]:
    """32 hexadecimal digits an image, equal where the same way of annotating comes to the same finding.

    Args:
        contents: whatever tells images apart.
        way: names how they are annotated, in at most 64 bytes; two ways have no digest in common.
    """
    return [blake2b(content, digest_size=_BYTES, key=way.encode()).hexdigest() for content in contents]


def with_digests(table: pd.DataFrame, digests: Sequence[str]) -> pd.DataFrame:
    """The table with a column by which `settled_in_table` knows its images again, and that their rows are as now."""
    return table.assign(**{DIGEST: [digest + row for digest, row in zip(digests, _rows(table), strict=True)]})


def settled_in_table(path: Path, digests: Sequence[str]) -> dict[int, Finding]:
    """Findings of a finished annotation for those of these images that it settled, by their numbers here.

    A row that somebody has changed since has none, and neither has whatever is no such table, or is not whole.
    """
    # What a file of somebody else's may raise, pyarrow and pandas do not tell.
    with suppress(Exception):
        if DIGEST in parquet.read_schema(path).names:
            return _settled_in(pd.read_parquet(path), digests)
    return {}


def settled_in_work(folder: Path, digests: Sequence[str]) -> dict[int, Finding]:
    """Findings of an annotation that broke off in its working folder, which nobody may work in meanwhile.

    Raises:
        OSError: there is none.
    """
    found, _ = findings_in(folder / JOURNAL)
    before = (folder / DIGESTS).read_text(encoding="ascii").split("\n")
    settled = [row for row in range(len(before)) if row in found and found[row].status in _SETTLED]
    same = _same([before[row] for row in settled], digests)
    return {number: replace(found[settled[row]], number=number) for number, row in same.items()}


def _settled_in(table: pd.DataFrame, digests: Sequence[str]) -> dict[int, Finding]:
    of_image = table[DIGEST].str[:_OF_IMAGE]
    table = table[table["status"].isin(_SETTLED) & of_image.isin(set(digests))]
    table = table[(table[DIGEST].str[_OF_IMAGE:] == _rows(table)).to_numpy(bool)]
    same = _same(table[DIGEST].str[:_OF_IMAGE].tolist(), digests)
    status, figures = table["status"].tolist(), table[_FIGURES].to_numpy(np.float32)
    landmarks = table[_landmarks_of(table)].to_numpy(np.float32)
    return {number: _finding(number, status[row], figures[row], landmarks[row]) for number, row in same.items()}


def _rows(table: pd.DataFrame) -> list[str]:
    """What tells each row from every other, but for the image's name."""
    values = table[[*_FIGURES, *_landmarks_of(table)]].to_numpy(np.float32)
    values = np.where(np.isnan(values), np.float32(np.nan), values)
    rows = zip(table["status"], values, strict=True)
    return [blake2b(s.encode() + v.tobytes(), digest_size=_BYTES_OF_ROW).hexdigest() for s, v in rows]


def _landmarks_of(table: pd.DataFrame) -> list[str]:
    """None where OpenFace's image was from before it was asked for them."""
    return [name for name in LANDMARKS if name in table.columns]


def _same(before: Sequence[str], now: Sequence[str]) -> dict[int, int]:
    """The row before of each image that was there then, by its number now."""
    row_of = {digest: row for row, digest in enumerate(before)}
    return {number: row_of[digest] for number, digest in enumerate(now) if digest in row_of}


def _finding(number: int, status: str, figures: np.ndarray, landmarks: np.ndarray) -> Finding:
    if status != "ok":
        return Finding(number, LAST, status, {})
    known = landmarks if np.isfinite(landmarks).all() else np.empty(0, np.float32)
    return Finding(number, LAST, status, dict(zip(_FIGURES, map(float, figures), strict=True)), landmarks=known)
