"""A table of vectors of one's own, such as valence and arousal or an embedding, in the place of action units."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from fer_core.errors import ActionUnitError
from openface.matching import match
from openface.names import spell

_NAMES = ("id", "filename", "image", "path", "file", "name")
"""Headers of the column that says whose a row is, the first of these that there is."""
_NAMED = 3


@dataclass(frozen=True)
class OwnVectors:
    """Vectors of a dataset's images.

    columns: names of the D components
    vectors: (N, D) float32, NaN in the rows of images that the table does not have
    """

    columns: tuple[str, ...]
    vectors: np.ndarray


def read_vectors(path: Path, ids: list[str]) -> OwnVectors:
    """Read a parquet or a CSV: a column `id` that names images, and columns of numbers, which are the vector.

    Images are matched by name as those of an AU table are, with or without folders and ending. An image without a row,
    or with one that lacks a number, has no vector.

    Args:
        ids: of the dataset's images, in order.

    Raises:
        ActionUnitError: there is no such file, no column of names or of numbers, a name occurs twice or could mean
            several images, or fewer than half of the rows, and of the images, belong together.
    """
    table = _read(path)
    name = next((header for header in _NAMES if header in table), None)
    if name is None:
        raise ActionUnitError(f"{path}: no column called {', '.join(_NAMES)}; one of them says whose vector a row is")
    names = table[name].map(lambda value: spell(str(value)))
    numbers = table.drop(columns=[name])
    _check_columns(path, numbers)
    if (twice := names[names.duplicated()]).size:
        raise ActionUnitError(f"{path}: two rows of {twice.iloc[0]}; an image has one vector")
    rows = _rows_of(path, names, ids)
    vectors = np.full((len(ids), numbers.shape[1]), np.nan, np.float32)
    known = rows >= 0
    vectors[known] = numbers.to_numpy(np.float32)[rows[known]]
    return OwnVectors(tuple(map(str, numbers.columns)), vectors)


def _read(path: Path) -> pd.DataFrame:
    if not path.is_file():
        raise ActionUnitError(f"{path}: no such file; action_units.vectors is a parquet or a CSV of vectors")
    try:
        with path.open("rb") as file:
            is_parquet = file.read(4) == b"PAR1"
        return pd.read_parquet(path) if is_parquet else pd.read_csv(path, dtype=dict.fromkeys(_NAMES, str))
    except (OSError, ValueError) as error:
        raise ActionUnitError(f"{path}: neither a parquet nor a CSV ({error}); save the vectors as one") from error


def _check_columns(path: Path, numbers: pd.DataFrame) -> None:
    if numbers.shape[1] == 0:
        raise ActionUnitError(f"{path}: no columns of numbers beside the names; they are the vector")
    for header, kind in numbers.dtypes.items():
        if not pd.api.types.is_numeric_dtype(kind) or pd.api.types.is_bool_dtype(kind):
            raise ActionUnitError(f"{path}: column {header} holds what is no number; leave it out, or encode it")


def _rows_of(path: Path, names: pd.Series, ids: list[str]) -> np.ndarray:
    """(N,) the table's row for each image, −1 where there is none."""
    row_of = {name: row for row, name in enumerate(names)}
    if set(row_of) <= set(ids):  # Also where images are called by numbers, which are matched only when all agree.
        owners = {name: name for name in row_of}
    else:
        found = match(list(row_of), ids)
        if found.unclear:
            unclear, images = next(iter(found.unclear.items()))
            fits = " and ".join(images[:_NAMED])
            raise ActionUnitError(f"{path}: {unclear!r} could mean {fits}; name images with their folders and endings")
        owners = found.owner
    if not owners or 2 * len(owners) < min(len(row_of), len(ids)):
        stray = next(name for name in row_of if name not in owners)
        raise ActionUnitError(
            f"{path}: only {len(owners)} of its {len(row_of)} images are among the dataset's {len(ids)}: it has such "
            f"as {stray!r}, the dataset such as {ids[0]!r}; give the vectors of these images"
        )
    rows = {owner: row_of[name] for name, owner in owners.items()}
    return np.array([rows.get(name, -1) for name in ids], np.int64)
