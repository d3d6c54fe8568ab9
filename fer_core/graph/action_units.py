"""Turn the AU table into the graph's vectors l_i: filter rows, choose columns, scale."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from fer_core.data.dataset import Dataset
from fer_core.errors import ActionUnitError, ArtifactError
from fer_core.experiment import ActionUnitSettings
from openface.columns import INTENSITIES, PRESENCES

_COLUMNS = {"intensity": INTENSITIES, "presence": PRESENCES, "both": INTENSITIES + PRESENCES}
_FOREST_SEED = 0


@dataclass(frozen=True)
class ActionUnits:
    """AU vectors of a dataset's images.

    columns: the D names of the vectors' components, of the chosen features those that the table has
    vectors: (N, D) float32; what stands in a row that is not usable means nothing
    usable: (N,) bool
    coverage: by split, how many images there are and how many were lost to what
    """

    columns: tuple[str, ...]
    vectors: np.ndarray
    usable: np.ndarray
    coverage: dict[str, dict[str, int]]


def read_au_table(path: Path, dataset: Dataset) -> pd.DataFrame:
    """The AU table of a dataset, without its landmarks: one row an image, in the dataset's order.

    Raises:
        ArtifactError: it is not readable.
        ActionUnitError: its ids are not the dataset's.
    """
    try:
        table = pd.read_parquet(path, columns=["id", "status", "confidence", *INTENSITIES, *PRESENCES])
    except (OSError, ValueError) as error:
        raise ArtifactError(f"{path}: not an AU table ({error}); make one with `fer annotate`") from error
    ids = dataset.manifest["id"]
    if len(table) != len(ids) or (table["id"].to_numpy() != ids.to_numpy()).any():
        common = int(table["id"].isin(ids).sum())
        raise ActionUnitError(
            f"{path}: of its {len(table)} images {common} are among the dataset's {len(ids)}; "
            "annotate this dataset with `fer annotate`"
        )
    return table


def action_units(dataset: Dataset, table: pd.DataFrame, settings: ActionUnitSettings) -> ActionUnits:
    """Select, filter and scale. Scaler and outlier filter are fitted on the training images alone.

    Args:
        table: columns id, status, confidence and the AUs, in the dataset's order.

    Raises:
        ActionUnitError: an AU of an annotated image is not a number; the table has none of the features asked for,
            or no confidence where one is asked for.
    """
    columns = _columns(table, settings)
    vectors = table[list(columns)].to_numpy(np.float32, copy=True)
    status = table["status"].to_numpy(str)
    lost = np.where(status == "ok", "", status)
    _refuse_nan(table, vectors, lost == "")
    confidence = _confidence(table, settings)
    lost = np.where((lost == "") & (confidence < settings.min_confidence), "low confidence", lost)
    train = dataset.manifest["split"].to_numpy() == "train"
    if settings.outliers and (train & (lost == "")).any():
        from sklearn.ensemble import IsolationForest  # Takes longer to import than most steps that get here need.

        forest = IsolationForest(contamination=settings.outliers, random_state=_FOREST_SEED)
        forest.fit(vectors[train & (lost == "")])
        inside = np.flatnonzero(lost == "")
        lost[inside[forest.predict(vectors[inside]) == -1]] = "outlier"
    usable = lost == ""
    if settings.standardise and (train & usable).any():
        from sklearn.preprocessing import StandardScaler

        scaler = StandardScaler().fit(vectors[train & usable])
        vectors[usable] = scaler.transform(vectors[usable])
    return ActionUnits(columns, vectors, usable, _coverage(dataset, lost))


def _columns(table: pd.DataFrame, settings: ActionUnitSettings) -> tuple[str, ...]:
    """The requested features that the table has; other programs lack some of OpenFace's AUs."""
    faces = table[table["status"] == "ok"]
    if faces.empty:
        return _COLUMNS[settings.features]
    has = {name: tuple(c for c in columns if faces[c].notna().any()) for name, columns in _COLUMNS.items()}
    asked = ("intensity", "presence") if settings.features == "both" else (settings.features,)
    missing = next((name for name in asked if not has[name]), None)
    if missing is None:
        return has[settings.features]
    other = "presence" if missing == "intensity" else "intensity"
    remedy = (
        f"set action_units.features = {other}, of which it has {len(has[other])} of {len(_COLUMNS[other])}"
        if has[other]
        else "annotate with OpenFace's -aus"
    )
    raise ActionUnitError(f"action_units.features = {settings.features}: the AU table has no {missing}; {remedy}")


def _confidence(table: pd.DataFrame, settings: ActionUnitSettings) -> np.ndarray:
    """(N,) float32; all NaN if the table has no confidence, and NaN passes every threshold."""
    confidence = table["confidence"].to_numpy(np.float32)
    if settings.min_confidence and (table["status"] == "ok").any() and np.isnan(confidence).all():
        raise ActionUnitError(
            f"action_units.min_confidence = {settings.min_confidence:g}: the AU table has no confidences; set it to 0"
        )
    return confidence


def _refuse_nan(table: pd.DataFrame, vectors: np.ndarray, annotated: np.ndarray) -> None:
    wrong = annotated & ~np.isfinite(vectors).all(axis=1)
    if wrong.any():
        raise ActionUnitError(
            f"{wrong.sum()} annotated images have an AU that is not a number, "
            f"{table['id'].to_numpy()[wrong][0]} first; "
            "annotate them again, or mark them `failed`"
        )


def _coverage(dataset: Dataset, lost: np.ndarray) -> dict[str, dict[str, int]]:
    frame = pd.DataFrame({"split": dataset.manifest["split"].to_numpy(), "lost": np.where(lost == "", "usable", lost)})
    coverage: dict[str, dict[str, int]] = {}
    for split in ("train", "validation", "test", "unlabelled"):
        if split == "unlabelled" and not len(dataset.rows(split)):
            continue
        inside = frame.loc[frame["split"] == split, "lost"]
        coverage[split] = {"images": len(inside), "usable": 0}
        coverage[split] |= {str(what): int(count) for what, count in inside.value_counts().items()}
    return coverage
