"""FER2013's images with FER+'s ten votes each: two public CSV files, what FER+'s generator writes, or arrays."""

import csv
import math
import re
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from fer_core.data.dataset import EMOTIONS
from fer_core.data.readers import fer2013
from fer_core.data.readers.names import emotion_of, number_of, split_of_folder
from fer_core.data.readers.source import (
    Source,
    find_images,
    folders_within,
    read_file,
    read_text,
    subfolders,
    unique_ids,
    unwrapped,
    without_ending,
)
from fer_core.data.readers.tables import plain, read_rows
from fer_core.errors import DatasetError
from fer_core.experiment import DatasetSettings

ARRAYS = "ferplus.npz"
VOTES_CSV = "fer2013new.csv"
GENERATED = "label.csv"
"""In each of FER2013Train, FER2013Valid and FER2013Test, beside its images."""
ANSWERS = (*EMOTIONS, "unknown", "NF")
"""What a voter could say; NF is not a face."""

_SIDE = fer2013.SIDE
_MOST_VOTES = 1_000_000
"""Votes of an answer; ten people vote, and what no integer can hold is refused with the rest."""
_NUMBERED_NAME = re.compile(r"fer0*(\d+)\.(?:png|jpg)", re.IGNORECASE)
"""What the published file calls an image: the number of its row."""
_AGREEMENT = 0.6
"""FER2013's own label is the FER+ majority for 66 % of the images; this is asked for, less three standard errors."""
_BLOCK = 500
"""Rows whose agreement is looked at together, so that a shift in a part of the file shows."""


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
    notes: tuple[str, ...] = ()


def read(settings: DatasetSettings, folder: Path) -> Source:
    """The images whose votes give `settings.classes` classes a label, by `settings.protocol` and `settings.labels`.

    Raises:
        DatasetError: no layout of FER+ is there, or its files do not belong together.
    """
    assert isinstance(settings.classes, int)
    faces = _find_faces(folder)
    published = _is_published(faces.votes, settings.classes)
    rows = np.flatnonzero(published if settings.protocol == "ferplus" else _counts(faces.votes, settings))
    votes = _without_singles(faces.votes) if settings.protocol == "ferplus" else faces.votes
    chosen = votes[rows, : settings.classes].astype(np.float32)
    return Source(
        name="ferplus",
        labels=EMOTIONS[: settings.classes],
        records=pd.DataFrame(
            {
                "id": faces.ids[rows],
                "label": chosen.argmax(axis=1),
                "split": faces.splits[rows],
                "published": published[rows],
            }
        ),
        distributions=chosen / np.maximum(chosen.sum(axis=1, keepdims=True), 1),
        truth="crowd votes",
        protocol=_protocol(settings),
        read_image=lambda row: faces.read(int(rows[row])),
        dropped={"without a clear label": len(faces.votes) - len(rows)},
        notes=faces.notes,
    )


def _without_singles(votes: np.ndarray) -> np.ndarray:
    """(N, 10) without answers that only one person gave, which FER+'s makers take for noise."""
    return np.where(votes == 1, 0, votes)


def _is_published(votes: np.ndarray, classes: int) -> np.ndarray:
    """(N,) whether FER+'s own rule counts an image: more than half of all but single votes are for one class."""
    left = _without_singles(votes)
    published: np.ndarray = 2 * left[:, :classes].max(axis=1) > left.sum(axis=1)
    return published


def _counts(votes: np.ndarray, settings: DatasetSettings) -> np.ndarray:
    """(N,) whether an image counts by the rule of `settings.labels`."""
    assert isinstance(settings.classes, int)
    chosen = votes[:, : settings.classes]
    return _has_majority(votes, chosen) if settings.labels == "majority" else _is_expressive(votes, chosen)


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
    assert isinstance(settings.classes, int)
    classes = f"the {settings.classes} classes {', '.join(EMOTIONS[: settings.classes])}"
    if settings.protocol == "ferplus":
        rule = (
            f"by FER+'s own rule: answers that only one person gave are removed, and images count for which one of "
            f"{classes} has more than half of the votes that are left; it is the label"
        )
    elif settings.labels == "majority":
        rule = f"images for which one of {classes} alone has the most of the ten answers; it is the label"
    else:
        rule = (
            f"images for which {classes} have at least half of the votes and no other answer has more than "
            "their top; the label is their top, ties by the order given"
        )
    duplicates = "dropped" if settings.duplicates == "drop" else "kept, as published"
    return (
        f"FER2013 with the FER+ votes (Barsoum et al. 2016): {rule}; distributions are the votes for these "
        "classes, renormalised; Training, PublicTest and PrivateTest are train, validation and test; "
        "images of validation and test that occur, pixel by pixel, in an earlier part or earlier in their own are "
        f"{duplicates}."
    )


def _find_faces(given: Path) -> _Faces:
    folder = unwrapped(given, lambda place: (place / VOTES_CSV).is_file() or bool(_generated(place)))
    if (given / ARRAYS).is_file():
        return _read_arrays(given / ARRAYS)
    pixels_csv, votes_csv = fer2013.find_file(folder), folder / VOTES_CSV
    if pixels_csv and votes_csv.is_file():
        return _read_csv_files(pixels_csv, votes_csv)
    # Its repository has the votes of all images above the folder `data` that its generator fills.
    parts = next((parts for place in folders_within(folder, 1) if (parts := _generated(place))), [])
    if parts:
        return _read_generated(folder, parts)
    there = {fer2013.FILES[0]: pixels_csv is not None, VOTES_CSV: votes_csv.is_file()}
    missing = " and ".join(name for name, found in there.items() if not found)
    raise DatasetError(
        f"{given}: not FER+; looked for {ARRAYS}, for {' with '.join(there)} ({missing} missing), and for "
        f"FER2013Train/{GENERATED}; give the folder that holds them with --data, or set dataset.source = 'fer2013' for "
        "FER2013's own labels, or 'folder' for images in class folders, which have no votes"
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

    ids = [name.decode(errors="surrogateescape") if isinstance(name, bytes) else str(name) for name in names]
    return _Faces(
        ids=_ids(ids),
        splits=np.array([fer2013.usage_split(str(name), lambda row=row: place(row)) for row, name in enumerate(usage)]),  # type: ignore[misc]
        votes=_counted(votes, place),
        read=lambda row: Image.fromarray(_undo_deltas(deltas[row])),
    )


def _undo_deltas(deltas: np.ndarray) -> np.ndarray:
    """(48, 48) uint8 pixels of their second differences, which compress better."""
    down = np.cumsum(deltas, axis=0, dtype=np.uint8)
    return np.cumsum(down, axis=1, dtype=np.uint8)


def _read_csv_files(pixels_csv: Path, votes_csv: Path) -> _Faces:
    names, usage, votes, lines = _read_votes(votes_csv)
    rows = fer2013.read_pixels(pixels_csv)
    if usage != rows.splits:
        raise DatasetError(
            f"{votes_csv}: its {len(usage)} rows are not those of {pixels_csv.name} ({len(rows.splits)} rows); "
            "give both files as published, in their own order"
        )
    counted = _counted(votes, lambda row: f"{votes_csv}, line {lines[row]}")
    _check_in_step(rows, counted, votes_csv)
    names_amiss = _numbered_otherwise(names, votes_csv)
    unchecked = f"{pixels_csv} has no column emotion, so nothing tells whether its rows are those of the votes"
    notes = (*names_amiss, *(() if rows.labels else (unchecked,)))
    return _Faces(ids=_ids(names), splits=np.array(usage), votes=counted, read=rows.read, notes=notes)


def _numbered_otherwise(names: Sequence[str], votes_csv: Path) -> tuple[str, ...]:
    """How many image names number another row than theirs, which in the published file none does.

    Raises:
        DatasetError: some do, but not in one order, so that votes are not of the images beside them.
    """
    named = [(row, int(found[1])) for row, name in enumerate(names) if (found := _NUMBERED_NAME.fullmatch(name))]
    others = [(row, number) for row, number in named if row != number]
    if not others:
        return ()
    numbers = [number for _, number in named]
    if len(others) < len(named) or numbers != sorted(set(numbers)):
        row, number = others[0]
        raise DatasetError(
            f"{votes_csv}, row {row}: its image name {names[row]} is that of row {number}, and {len(others):,} of "
            f"{len(named):,} are of other rows; give the votes as published, in their own order"
        )
    return (f"image names of {votes_csv.name} number other rows: {len(others):,}; were both files cut alike?",)


def _read_votes(path: Path) -> tuple[list[str], list[str], np.ndarray, list[int]]:
    """Image names, splits, (N, 10) float64 votes, and lines in the file."""
    names, usage, votes, lines = list[str](), list[str](), list[list[str]](), list[int]()
    for row in read_rows(path):
        fields = {plain(name): value for name, value in row.fields.items()}
        missing = [name for name in ("Usage", "Image name", *ANSWERS) if plain(name) not in fields]
        if missing:
            raise DatasetError(f"{path}: not FER+'s votes (no column {missing[0]}); restore the file as published")
        names.append(fields["imagename"])
        usage.append(fer2013.usage_split(fields["usage"], lambda row=row: f"{path}, line {row.line}"))  # type: ignore[misc]
        votes.append([fields[plain(name)] for name in ANSWERS])
        lines.append(row.line)
    return names, usage, _numbers(votes), lines


def _numbers(votes: Sequence[Sequence[str]]) -> np.ndarray:
    """(N, 10) float64, NaN for what is no number."""
    flat = pd.Series([vote for row in votes for vote in row], dtype=object)
    return pd.to_numeric(flat, errors="coerce").to_numpy(np.float64).reshape(-1, len(ANSWERS))


def _check_in_step(rows: fer2013.PixelRows, votes: np.ndarray, votes_csv: Path) -> None:
    """FER2013's own label is mostly the FER+ majority, so rows that are not of one image show."""
    own = np.array([_own_emotion(label) for label in rows.labels] or [-1] * len(votes))
    top = votes.max(axis=1, keepdims=True)
    compared = np.flatnonzero((own >= 0) & ((votes == top).sum(axis=1) == 1) & (votes.argmax(axis=1) < len(EMOTIONS)))
    agrees = own[compared] == votes[compared].argmax(axis=1)
    for part in np.array_split(np.arange(len(compared)), math.ceil(len(compared) / _BLOCK) or 1):
        hits, count = int(agrees[part].sum()), len(part)
        if hits < _AGREEMENT * count - 3 * math.sqrt(_AGREEMENT * (1 - _AGREEMENT) * count):
            first, last = (rows.lines[compared[part[end]]] for end in (0, -1))
            raise DatasetError(
                f"{rows.path}, lines {first} to {last}: the label is the majority of the votes in {votes_csv.name} for "
                f"only {hits / count:.0%} of {count} images, where about 66% is usual, so the rows are out of step; "
                "give both files as published, in their own order"
            )


def _own_emotion(label: str) -> int:
    """FER2013's label as an index into EMOTIONS; -1 where it is none."""
    emotion = fer2013.ORDER.meaning.get(number_of(label) or "") or emotion_of(label)
    return EMOTIONS.index(emotion) if emotion else -1


def _generated(folder: Path) -> list[tuple[Path, str]]:
    """The folders that FER+'s generator makes, with their splits."""
    folders = [(path, split_of_folder(path.name)) for path in subfolders(folder) if (path / GENERATED).is_file()]
    return [(path, split) for path, split in folders if split]


def _read_generated(folder: Path, parts: Sequence[tuple[Path, str]]) -> _Faces:
    """Lines such as `fer0000000.png,"(0, 0, 48, 48)",4,0,0,1,3,2,0,0,0,0` beside the images that they name."""
    paths, splits, votes, places = list[Path](), list[str](), list[list[str]](), list[str]()
    for part, split in parts:
        for place, fields in _lines(part / GENERATED):
            if fields and len(fields) != len(ANSWERS) + 2:
                raise DatasetError(f"{place}: {len(fields)} fields; it must be a name, a box and {len(ANSWERS)} votes")
            if fields and number_of(fields[-1]):
                paths.append(part / fields[0].strip())
                splits.append(split)
                votes.append(fields[2:])
                places.append(place)
    if not paths:
        raise DatasetError(f"{folder}: no votes in {parts[0][0].name}/{GENERATED}; restore FER+'s own files")
    found = find_images(folder)
    unlisted = len(set(found.paths) - set(paths))
    notes = (f"images without votes, not read: {unlisted:,}",) if unlisted else ()
    names = [path.relative_to(folder).as_posix() for path in paths]
    return _Faces(
        ids=np.array(unique_ids([path.stem for path in paths], names)),
        splits=np.array(splits),
        votes=_counted(_numbers(votes), lambda row: places[row]),
        read=lambda row: read_file(paths[row]),
        notes=notes,
    )


def _lines(path: Path) -> Iterator[tuple[str, list[str]]]:
    """The place in words, and the fields, of each line of a CSV without a header."""
    lines = csv.reader(read_text(path).splitlines())
    try:
        for fields in lines:
            yield f"{path}, line {lines.line_num}", fields
    except csv.Error as error:
        raise DatasetError(
            f"{path}, line {lines.line_num}: {error}; close the quote that may be open before it"
        ) from error


def _counted(votes: np.ndarray, place: Callable[[int], str]) -> np.ndarray:
    """(N, 10) int64 of what may be anything, NaN included."""
    right = (votes >= 0) & (votes <= _MOST_VOTES) & (np.floor(votes) == votes)
    if not right.all():
        row, answer = np.argwhere(~right)[0]
        raise DatasetError(
            f"{place(row)}: {ANSWERS[answer]} has {votes[row, answer]:g} votes; it must be a whole number, 0 or more"
        )
    return votes.astype(np.int64)


def _ids(names: Sequence[str]) -> np.ndarray:
    """(N,) FER+'s image name without its ending, or the row number where it names none."""
    plain_names = [without_ending(name) or str(row) for row, name in enumerate(names)]
    return np.array(unique_ids(plain_names, plain_names))
