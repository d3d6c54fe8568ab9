"""FER2013's images with FER+'s ten votes each: the public pair of CSV files, or the arrays `ferplus.npz`."""

import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from fer_core.dataset import EMOTIONS
from fer_core.datasets.source import Source, without_ending
from fer_core.errors import DatasetError
from fer_core.experiment import DatasetSettings
from openface.images import UnreadableImage

ARRAYS = "ferplus.npz"
PIXELS_CSV = "fer2013.csv"
VOTES_CSV = "fer2013new.csv"
ANSWERS = (*EMOTIONS, "unknown", "NF")
"""What a voter could say; NF is not a face."""

_SIDE = 48
_SPLITS = {"Training": "train", "PublicTest": "validation", "PrivateTest": "test"}
_CSV_ROWS_AT_A_TIME = 2000
_MOST_VOTES = 1_000_000
"""Of an answer; ten people vote, and what no integer can hold is refused with the rest."""


@dataclass(frozen=True)
class _Faces:
    """All faces of a layout, before the protocol leaves any out."""

    ids: np.ndarray
    """(N,) str."""
    splits: np.ndarray
    """(N,) str."""
    votes: np.ndarray
    """(N, 10) int64, columns in the order of ANSWERS."""
    read: Callable[[int], Image.Image]


def read(settings: DatasetSettings, folder: Path) -> Source:
    """The images whose votes give `settings.classes` classes a label, by `settings.labels`.

    Raises:
        DatasetError: neither layout is there, or its files do not belong together.
    """
    faces = _find_faces(folder)
    chosen = faces.votes[:, : settings.classes]
    counts = _has_majority if settings.labels == "majority" else _is_expressive
    rows = np.flatnonzero(counts(faces.votes, chosen))
    votes = chosen[rows].astype(np.float32)
    return Source(
        name="ferplus",
        labels=EMOTIONS[: settings.classes],
        records=pd.DataFrame(
            {"id": faces.ids[rows], "label": chosen[rows].argmax(axis=1), "split": faces.splits[rows]}
        ),
        distributions=votes / np.maximum(votes.sum(axis=1, keepdims=True), 1),
        truth="crowd votes",
        protocol=_protocol(settings),
        read_image=lambda row: faces.read(int(rows[row])),
        dropped={"without a clear label": len(faces.votes) - len(rows)},
    )


def _has_majority(votes: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """(N,) whether one of the chosen classes alone has the most of all ten answers."""
    top = votes.max(axis=1, keepdims=True)
    alone = (votes == top).sum(axis=1) == 1
    majority: np.ndarray = alone & (chosen.max(axis=1) == top[:, 0])
    return majority


def _is_expressive(votes: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """(N,) whether the chosen classes have half of the votes, and no other answer more than their top."""
    half = 2 * chosen.sum(axis=1) >= votes.sum(axis=1)
    others = votes[:, chosen.shape[1] :].max(axis=1)
    expressive: np.ndarray = half & (chosen.max(axis=1) >= np.maximum(others, 1))
    return expressive


def _protocol(settings: DatasetSettings) -> str:
    classes = f"the {settings.classes} classes {', '.join(EMOTIONS[: settings.classes])}"
    if settings.labels == "majority":
        rule = f"images for which one of {classes} alone has the most of the ten answers; it is the label"
    else:
        rule = (
            f"images for which {classes} have at least half of the votes and no other answer has more than "
            "their top; the label is their top, ties by the order given"
        )
    return (
        f"FER2013 with the FER+ votes (Barsoum et al. 2016): {rule}; distributions are the votes for these "
        "classes, renormalised; Training, PublicTest and PrivateTest are train, validation and test; "
        "images of validation and test that occur, pixel by pixel, in an earlier part or earlier in "
        "their own are dropped."
    )


def _find_faces(folder: Path) -> _Faces:
    if (folder / ARRAYS).is_file():
        return _read_arrays(folder / ARRAYS)
    missing = [name for name in (PIXELS_CSV, VOTES_CSV) if not (folder / name).is_file()]
    if not missing:
        return _read_csv_files(folder / PIXELS_CSV, folder / VOTES_CSV)
    raise DatasetError(
        f"{folder}: not FER+; looked for {ARRAYS}, and for {PIXELS_CSV} with {VOTES_CSV} "
        f"({' and '.join(missing)} missing); give the folder that holds them with --data"
    )


def _read_arrays(path: Path) -> _Faces:
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            deltas, votes = arrays["images_delta2d"], arrays["votes"].astype(np.float64)
            usage, names = arrays["usage_names"][arrays["usage"]], arrays["names"]
    except (OSError, KeyError, ValueError, IndexError, EOFError, zipfile.BadZipFile) as error:
        raise DatasetError(f"{path}: not the FER+ arrays ({error}); restore the file") from error
    count = votes.shape[:1]
    wanted = ((*count, _SIDE, _SIDE), (*count, len(ANSWERS)), count, count)
    if (deltas.shape, votes.shape, usage.shape, names.shape) != wanted or deltas.dtype != np.uint8:
        raise DatasetError(
            f"{path}: its arrays differ in length, or have other answers or other images than of {_SIDE} x {_SIDE} "
            "uint8; restore the file"
        )

    def place(row: int) -> str:
        return f"{path}, row {row}"

    ids = [name.decode(errors="replace") if isinstance(name, bytes) else str(name) for name in names]
    return _Faces(
        ids=_ids(ids),
        splits=_splits_of([str(name) for name in usage], place),
        votes=_counted(votes, place),
        read=lambda row: Image.fromarray(_undo_deltas(deltas[row])),
    )


def _undo_deltas(deltas: np.ndarray) -> np.ndarray:
    """(48, 48) uint8 pixels of their second differences, which compress better."""
    down = np.cumsum(deltas, axis=0, dtype=np.uint8)
    return np.cumsum(down, axis=1, dtype=np.uint8)


def _read_csv_files(pixels_csv: Path, votes_csv: Path) -> _Faces:
    answers = _read_votes(votes_csv)
    usage, pixels, broken = _read_pixels(pixels_csv)
    splits = _splits_of(usage.tolist(), _line_of(pixels_csv))
    if len(answers) != len(usage) or (answers["Usage"].to_numpy() != usage).any():
        raise DatasetError(
            f"{votes_csv}: its {len(answers)} rows are not those of {pixels_csv.name} ({len(usage)} rows); "
            "give both files as published, in their own order"
        )

    def read_face(row: int) -> Image.Image:
        if row in broken:
            raise UnreadableImage(f"{pixels_csv}, line {row + 2}: {broken[row]}")
        return Image.fromarray(pixels[row])

    return _Faces(
        ids=_ids(answers["Image name"].fillna("").astype(str).tolist()),
        splits=splits,
        votes=_counted(answers[list(ANSWERS)].to_numpy(np.float64), _line_of(votes_csv)),
        read=read_face,
    )


def _read_votes(path: Path) -> pd.DataFrame:
    try:
        answers = pd.read_csv(path, usecols=["Usage", "Image name", *ANSWERS])
    except (OSError, ValueError) as error:
        raise DatasetError(f"{path}: not FER+'s votes ({error}); restore the file as published") from error
    return answers.assign(**{name: pd.to_numeric(answers[name], errors="coerce") for name in ANSWERS})


def _read_pixels(path: Path) -> tuple[np.ndarray, np.ndarray, dict[int, str]]:
    """(N,) usage, (N, 48, 48) uint8, and what is wrong with the rows that hold no such pixels."""
    usage: list[str] = []
    pixels = bytearray()
    broken: dict[int, str] = {}
    try:
        for part in pd.read_csv(path, usecols=["pixels", "Usage"], dtype=str, chunksize=_CSV_ROWS_AT_A_TIME):
            for text in part["pixels"].fillna(""):
                face = _parse_pixels(text)
                if isinstance(face, str):
                    broken[len(pixels) // _SIDE**2] = face
                    face = bytes(_SIDE**2)
                pixels += face
            usage += part["Usage"].fillna("").tolist()
    except (OSError, ValueError) as error:
        raise DatasetError(f"{path}: not FER2013 ({error}); restore the file as published") from error
    return np.array(usage), np.frombuffer(pixels, np.uint8).reshape(-1, _SIDE, _SIDE), broken


def _parse_pixels(text: str) -> bytes | str:
    """The pixels, or what is wrong with them."""
    try:
        face = bytes(map(int, text.split()))
    except ValueError:
        return "a pixel is not a whole number in 0..255"
    return face if len(face) == _SIDE**2 else f"{len(face)} pixels, not {_SIDE**2}"


def _line_of(path: Path) -> Callable[[int], str]:
    """Where a row is in a CSV file with a header."""
    return lambda row: f"{path}, line {row + 2}"


def _splits_of(usage: list[str], place: Callable[[int], str]) -> np.ndarray:
    """(N,) str."""
    for row, name in enumerate(usage):
        if name not in _SPLITS:
            raise DatasetError(f"{place(row)}: Usage {name!r}; it must be one of {', '.join(_SPLITS)}")
    return np.array([_SPLITS[name] for name in usage])


def _counted(votes: np.ndarray, place: Callable[[int], str]) -> np.ndarray:
    """(N, 10) int64 of what may be anything, NaN included."""
    right = (votes >= 0) & (votes <= _MOST_VOTES) & (np.floor(votes) == votes)
    if not right.all():
        row, answer = np.argwhere(~right)[0]
        raise DatasetError(
            f"{place(row)}: {ANSWERS[answer]} has {votes[row, answer]:g} votes; it must be a whole number, 0 or more"
        )
    return votes.astype(np.int64)


def _ids(names: list[str]) -> np.ndarray:
    """(N,) FER+'s image name without its ending, or the row number where it names none."""
    return np.array([without_ending(name) or str(row) for row, name in enumerate(names)])
