"""Turn the AU table into the graph's vectors l_i: filter rows, choose columns, scale."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as parquet

from fer_core.data.dataset import Dataset
from fer_core.errors import ActionUnitError, ArtifactError
from fer_core.experiment import ActionUnitSettings
from fer_core.graph.landmarks import aligned_shapes
from fer_core.graph.own_vectors import read_vectors
from fer_core.paths import at_home
from openface.columns import INTENSITIES, LANDMARKS, PRESENCES
from openface.reading import FIGURES

_FAMILIES = {"intensity": INTENSITIES, "presence": PRESENCES, "landmarks": LANDMARKS}
_FOREST_SEED = 0


@dataclass(frozen=True)
class ActionUnits:
    """AU vectors of a dataset's images."""

    columns: tuple[str, ...]
    """The D names of the vectors' components, of the chosen features those that the table has."""
    vectors: np.ndarray
    """(N, D) float32; what stands in a row that is not usable means nothing."""
    usable: np.ndarray
    """(N,) bool."""
    coverage: dict[str, dict[str, int]]
    """By split, how many images there are and how many were lost to what."""
    own: bool = False
    """True where the user's own vectors stand in their place."""
    weights: np.ndarray | None = None
    """(D,) float32, what a column's differences are multiplied by in a distance; None where all count alike."""

    @property
    def places(self) -> np.ndarray:
        """(N, D) float32: where the images are, as distances are taken."""
        return self.vectors if self.weights is None else self.vectors * self.weights

    @property
    def called(self) -> str:
        """What an image that is usable has, in words."""
        return "a vector" if self.own else "usable AUs"


def read_au_table(path: Path, dataset: Dataset, landmarks: bool = False) -> pd.DataFrame:
    """The AU table of a dataset: one row an image, in the dataset's order.

    Args:
        landmarks: read them too, where the table has any; they are eight times the rest.

    Raises:
        ArtifactError: it is not readable.
        ActionUnitError: its ids are not the dataset's.
    """
    try:
        known = set(parquet.read_schema(path).names) if landmarks else set[str]()
        points = [name for name in LANDMARKS if name in known]
        table = pd.read_parquet(path, columns=["id", "status", *FIGURES, *points])
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
            or no confidence where one is asked for; or the user's own vectors cannot be read.
    """
    columns, vectors, lost = _own(dataset, settings) if settings.vectors else _from_table(dataset, table, settings)
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
    own = bool(settings.vectors)
    weights = _weights(columns) if settings.standardise and not own else None
    return ActionUnits(columns, vectors, usable, _coverage(dataset, lost), own, weights)


def _weights(columns: tuple[str, ...]) -> np.ndarray | None:
    """(D,) factors by which each kind of feature counts alike in a distance, however many columns it has.

    Landmarks are 136 of 153 columns of variance 1, and would drown the intensities. The factors' squares have a mean of
    1, so that distances stay as large as they are without them. None where all columns are of one kind.
    """
    kinds = [kind for kind in (np.isin(columns, names) for names in _FAMILIES.values()) if kind.any()]
    if len(kinds) < 2:
        return None
    squares = np.empty(len(columns), np.float32)
    for kind in kinds:
        squares[kind] = len(columns) / (len(kinds) * kind.sum())
    weights: np.ndarray = np.sqrt(squares)
    return weights


def _own(dataset: Dataset, settings: ActionUnitSettings) -> tuple[tuple[str, ...], np.ndarray, np.ndarray]:
    """The user's own vectors: their columns, (N, D) float32, and (N,) why an image has none, "" where it has one."""
    own = read_vectors(at_home(settings.vectors), list(dataset.manifest["id"]))
    there = np.isfinite(own.vectors).all(axis=1)
    return own.columns, own.vectors, np.where(there, "", "no vector").astype(object)


def _from_table(
    dataset: Dataset, table: pd.DataFrame, settings: ActionUnitSettings
) -> tuple[tuple[str, ...], np.ndarray, np.ndarray]:
    """The same from the AU table: the features asked for, landmarks aligned, and rows of low confidence out."""
    columns = _columns(table, settings)
    vectors = table[list(columns)].to_numpy(np.float32, copy=True)
    status = table["status"].to_numpy(str)
    lost = np.where(status == "ok", "", status)
    lost = np.where((lost == "") & _without_shape(vectors, columns), "no landmarks", lost)
    _refuse_nan(table, vectors, lost == "")
    _align_landmarks(vectors, columns, lost == "", dataset)
    confidence = _confidence(table, settings)
    return columns, vectors, np.where((lost == "") & (confidence < settings.min_confidence), "low confidence", lost)


def _columns(table: pd.DataFrame, settings: ActionUnitSettings) -> tuple[str, ...]:
    """The requested features that the table has; other programs lack some of OpenFace's AUs."""
    faces = table[table["status"] == "ok"]
    asked = ("intensity", "presence") if settings.features == "both" else tuple(settings.features.split("+"))
    if faces.empty:
        # Columns without any face: the vectors mean nothing, and landmarks may not be there at all.
        return tuple(name for family in asked for name in _FAMILIES[family] if name in table)
    has = {
        family: tuple(name for name in columns if name in faces and faces[name].notna().any())
        for family, columns in _FAMILIES.items()
    }
    missing = next((family for family in asked if not has[family]), None)
    if missing is None:
        return tuple(name for family in asked for name in has[family])
    raise ActionUnitError(
        f"action_units.features = {settings.features}: the AU table has no {missing}; {_instead_of(missing, has)}"
    )


def _instead_of(missing: str, has: dict[str, tuple[str, ...]]) -> str:
    """What to do about features that a table lacks."""
    if missing == "landmarks":
        return "annotate again, or with OpenFace's -2Dfp"
    other = "presence" if missing == "intensity" else "intensity"
    if not has[other]:
        return "annotate with OpenFace's -aus"
    return f"set action_units.features = {other}, of which it has {len(has[other])} of {len(_FAMILIES[other])}"


def _without_shape(vectors: np.ndarray, columns: tuple[str, ...]) -> np.ndarray:
    """(N,) whether a face's landmarks, where they are among the columns, are not all there, or all in one place."""
    points = vectors[:, np.isin(columns, LANDMARKS)].reshape(len(vectors), 2, -1)
    if not points.size:
        return np.zeros(len(vectors), bool)
    extent: np.ndarray = np.ptp(points, axis=2).max(axis=1)
    return np.logical_not(extent > 0)  # NaN is not above 0 either.


def _align_landmarks(vectors: np.ndarray, columns: tuple[str, ...], annotated: np.ndarray, dataset: Dataset) -> None:
    """Replace landmarks, in pixels, by shapes aligned to the training images' mean, in place."""
    places = np.array([columns.index(name) for name in LANDMARKS if name in columns], np.int64)
    rows = np.flatnonzero(annotated)
    if not len(places) or not len(rows):
        return
    points = vectors[np.ix_(rows, places)].reshape(len(rows), 2, -1).transpose(0, 2, 1)  # (M, 68, 2)
    trained_on = np.isin(rows, dataset.rows("train", "unlabelled"))
    reference = np.flatnonzero(trained_on) if trained_on.any() else np.arange(len(rows))
    vectors[np.ix_(rows, places)] = aligned_shapes(points.astype(np.float64), reference)


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
