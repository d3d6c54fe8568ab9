"""Findings of earlier annotations, known again by what was shown, whatever it is called and labelled now."""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from hashlib import blake2b
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as parquet

from openface.annotation import DIGESTS, JOURNAL, LAST, Finding, findings_in
from openface.columns import LANDMARKS
from openface.reading import FIGURES

DIGEST = "digest"
"""Column of a table: what tells an image apart and how it was annotated, and then what its row held."""
_BYTES, _BYTES_OF_ROW = 16, 8
_OF_IMAGE = 2 * _BYTES
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
    """The table with a column by which `Earlier` knows its images again, and that their rows are as now."""
    return table.assign(**{DIGEST: [digest + row for digest, row in zip(digests, _rows(table), strict=True)]})


class Earlier:
    """What earlier annotations found out about some images, gathered from wherever it lies.

    known: findings by the image's number.
    """

    def __init__(self, digests: Sequence[str]) -> None:
        self.known: dict[int, Finding] = {}
        self._wanted = dict(enumerate(digests))

    def read_table(self, path: Path) -> None:
        """Take over from a finished annotation's table; nothing from whatever is no such table, or is not whole.

        A row that somebody has changed since is left out.
        """
        # What a file of somebody else's may raise, pyarrow and pandas do not tell.
        with suppress(Exception):
            if self._wanted and DIGEST in parquet.read_schema(path).names:
                self._learn(_settled_in(pd.read_parquet(path), self._wanted))

    def read_work(self, folder: Path) -> None:
        """Take over from an annotation that broke off in its working folder, in which nobody may work meanwhile.

        Raises:
            OSError: there is none.
        """
        # First, since a journal without digests may be of an earlier version, whose lines hold something else.
        before = (folder / DIGESTS).read_text(encoding="ascii").split("\n")
        found, _ = findings_in(folder / JOURNAL)
        settled = [row for row in range(len(before)) if row in found and found[row].status in _SETTLED]
        same = _same([before[row] for row in settled], self._wanted)
        self._learn({number: replace(found[settled[row]], number=number) for number, row in same.items()})

    def _learn(self, found: Mapping[int, Finding]) -> None:
        self.known |= found
        for number in found:
            del self._wanted[number]


def _settled_in(table: pd.DataFrame, wanted: Mapping[int, str]) -> dict[int, Finding]:
    of_image = table[DIGEST].str[:_OF_IMAGE]
    table = table[table["status"].isin(_SETTLED) & of_image.isin(set(wanted.values()))]
    table = table[(table[DIGEST].str[_OF_IMAGE:] == _rows(table)).to_numpy(bool)]
    same = _same(table[DIGEST].str[:_OF_IMAGE].tolist(), wanted)
    status, figures = table["status"].tolist(), table[list(FIGURES)].to_numpy(np.float32).tolist()
    landmarks = table[_landmarks_of(table)].to_numpy(np.float32)
    return {number: _finding(number, status[row], figures[row], landmarks[row]) for number, row in same.items()}


def _rows(table: pd.DataFrame) -> list[str]:
    """What tells each row from every other, but for the image's name."""
    values = table[[*FIGURES, *_landmarks_of(table)]].to_numpy(np.float32)
    values = np.where(np.isnan(values), np.float32(np.nan), values)
    rows = zip(table["status"], values, strict=True)
    return [blake2b(s.encode() + v.tobytes(), digest_size=_BYTES_OF_ROW).hexdigest() for s, v in rows]


def _landmarks_of(table: pd.DataFrame) -> list[str]:
    """None where OpenFace's image was from before it was asked for them."""
    return [name for name in LANDMARKS if name in table.columns]


def _same(before: Sequence[str], now: Mapping[int, str]) -> dict[int, int]:
    """The row before of each image that was there then, by its number now."""
    row_of = {digest: row for row, digest in enumerate(before)}
    return {number: row_of[digest] for number, digest in now.items() if digest in row_of}


def _finding(number: int, status: str, figures: Sequence[float], landmarks: np.ndarray) -> Finding:
    if status != "ok":
        return Finding(number, LAST, status, {})
    known = landmarks if np.isfinite(landmarks).all() else np.empty(0, np.float32)
    return Finding(number, LAST, status, dict(zip(FIGURES, figures, strict=True)), landmarks=known)
