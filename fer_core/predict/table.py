"""Predictions as rows of a table, written while they come: CSV, JSON lines or Parquet, by the file's ending."""

import csv
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

import pyarrow as pa
import pyarrow.parquet as pq

from fer_core.errors import InputError
from fer_core.paths import require_utf8
from fer_core.predict.predictor import FacePrediction
from fer_core.predict.sources import Frame
from openface.names import spell

Row = dict[str, Any]
Write = Callable[[list[Row]], None]
ENDINGS = (".csv", ".jsonl", ".parquet")
_ROWS_AT_A_TIME = 1024


def columns(labels: tuple[str, ...]) -> dict[str, pa.DataType]:
    """The columns of a table of predictions, and what each holds."""
    place = {"left": pa.int32(), "top": pa.int32(), "side": pa.int32()}
    return {
        "source": pa.string(),
        "frame": pa.int64(),
        "seconds": pa.float64(),
        "status": pa.string(),
        "face": pa.int32(),
        **place,
        "emotion": pa.string(),
        "uncertainty": pa.float32(),
        **{f"p_{label}": pa.float32() for label in labels},
        "reason": pa.string(),
    }


def rows_of(frame: Frame, faces: list[FacePrediction]) -> list[Row]:
    """A row for each face, the largest first; one row that says so if there is no face or no picture."""
    # A name may hold bytes that are no UTF-8, which no table can.
    common: Row = {"source": spell(frame.source), "frame": frame.number, "seconds": frame.seconds}
    if frame.remark:
        common["reason"] = frame.remark
    if frame.pixels is None:
        return [common | {"status": "unreadable", "reason": frame.reason}]
    if not faces:
        return [common | {"status": "no_face"}]
    return [
        common
        | {"status": "ok", "face": number, "left": face.box.left, "top": face.box.top, "side": face.box.side}
        | {"emotion": face.emotion, "uncertainty": round(face.uncertainty, 4)}
        | {f"p_{label}": round(share, 6) for label, share in face.probabilities.items()}
        for number, face in enumerate(faces)
    ]


@contextmanager
def open_table(path: Path, labels: tuple[str, ...]) -> Iterator[Write]:
    """Write rows beside `path`, which is there when all of them are, or when the user stops it.

    Raises:
        InputError: the ending is none of ENDINGS, or the file cannot be written, or not by pyarrow.
    """
    if path.suffix.lower() not in ENDINGS:
        raise InputError(f"{path}: name a file that ends with {', '.join(ENDINGS)}")
    if path.is_dir():
        raise InputError(f"{path}: a folder; name a file that is to hold the table")
    if path.suffix.lower() == ".parquet":
        require_utf8(str(path))
    beside = path.with_name(f"{path.name}.unfinished")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        beside.touch()
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}; choose another --out") from error
    writer = {".csv": _csv, ".jsonl": _json_lines, ".parquet": _parquet}[path.suffix.lower()]
    try:
        with writer(beside, columns(labels)) as write:
            yield write
    except Exception:
        beside.unlink()
        raise
    finally:
        # What stops a camera is an interrupt, and then all that was seen is wanted.
        if beside.exists():
            beside.replace(path)


@contextmanager
def lines(file: TextIO, labels: tuple[str, ...]) -> Iterator[Write]:
    """Rows of CSV into an open file, each as soon as it is known."""
    writer = csv.DictWriter(file, list(columns(labels)), lineterminator="\n")
    writer.writeheader()

    def write(rows: list[Row]) -> None:
        writer.writerows(rows)
        file.flush()

    yield write


@contextmanager
def _csv(path: Path, kinds: dict[str, pa.DataType]) -> Iterator[Write]:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(kinds), lineterminator="\n")
        writer.writeheader()
        yield writer.writerows


@contextmanager
def _json_lines(path: Path, kinds: dict[str, pa.DataType]) -> Iterator[Write]:
    with path.open("w", encoding="utf-8") as file:

        def write(rows: list[Row]) -> None:
            file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)

        yield write


@contextmanager
def _parquet(path: Path, kinds: dict[str, pa.DataType]) -> Iterator[Write]:
    schema = pa.schema(list(kinds.items()))
    held: list[Row] = []
    with pq.ParquetWriter(path, schema) as writer:

        def flush() -> None:
            writer.write_table(pa.Table.from_pylist(held, schema))
            held.clear()

        def write(rows: list[Row]) -> None:
            held.extend(rows)
            if len(held) >= _ROWS_AT_A_TIME:
                flush()

        try:
            yield write
        finally:
            flush()
