"""Tables as OpenFace writes them, for tests."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from openface.columns import INTENSITIES, PRESENCES
from openface.reading import read_openface
from openface.table import one_row_per_image

ACTION_UNITS = (*INTENSITIES, *PRESENCES)
Figures = Mapping[str, float | str]


def face(confidence: float = 0.9, **figures: float | str) -> dict[str, float | str]:
    """A row such as OpenFace's; AU01_r=… sets a figure."""
    row: dict[str, float | str] = {"face": 0, "confidence": confidence, "gaze_0_x": 0.125}
    row |= dict.fromkeys(INTENSITIES, 1.5) | dict.fromkeys(PRESENCES, 1.0)
    return row | figures


def write_csv(path: Path, rows: Sequence[Figures], header: Sequence[str] = tuple(face())) -> Path:
    """As OpenFace writes: a comma and a space between the header's names."""
    lines = [", ".join(header)] + [", ".join(str(row[name]) for name in header) for row in rows]
    path.write_text("\n".join(lines) + "\n")
    return path


def frame(*rows: Figures, ids: Sequence[str] = "abcdefgh") -> pd.DataFrame:
    return pd.DataFrame([{"id": name, **row} for name, row in zip(ids[: len(rows)], rows, strict=True)])


def from_parquet(path: Path, table: pd.DataFrame, ids: Sequence[str]) -> pd.DataFrame:
    table.to_parquet(path)
    return one_row_per_image(read_openface(path), ids)


def feature_extraction(out: Path, names: Sequence[str], **columns: Sequence[float | str]) -> Path:
    """As `FeatureExtraction -fdir` writes of these images, frame by frame, with further columns; AU01_r tells which."""
    header = ["frame", "face_id", "timestamp", "confidence", "success", *ACTION_UNITS, *columns]
    rows: list[dict[str, float | str]] = [
        {
            **face(AU01_r=number_of(name) / 100),
            "frame": place + 1,
            "face_id": 0,
            "timestamp": place / 30,
            "success": 1,
            **{column: values[place] for column, values in columns.items()},
        }
        for place, name in enumerate(names)
    ]
    return write_csv(out, rows, header)


def number_of(name: str) -> int:
    return int(Path(name).stem)


def own_rows(table: pd.DataFrame) -> int:
    """How many images have the row that was made of them."""
    return int(np.isclose(table["AU01_r"], [number_of(name) / 100 for name in table["id"]]).sum())


def numbered(count: int = 300) -> list[str]:
    """CLASS/N.jpg in the order in which FeatureExtraction takes them."""
    return sorted(f"{('happy', 'sad')[number % 2]}/{number}.jpg" for number in range(count))
