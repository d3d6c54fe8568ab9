"""Read what OpenFace wrote, in any of its shapes, and give every image of a dataset one row of it."""

import csv
import math
import re
from collections.abc import Callable, Iterator, Sequence
from itertools import zip_longest
from pathlib import Path

import numpy as np
import pandas as pd

from openface.columns import INTENSITIES, PRESENCES

STATUSES = ("ok", "no_face", "unreadable", "failed")
"""ok: a face and its AUs; no_face: none found; unreadable: not decoded; failed: OpenFace stopped."""

_ACTION_UNITS = (*INTENSITIES, *PRESENCES)
_FIGURES = ("confidence", *_ACTION_UNITS)
_KEYS_IN_CSV = ("id", "name", "filename", "input")
_KEYS_IN_PARQUET = ("id", "name", "index")
_DETAILS = "_of_details.txt"
_LARGEST_CSV = 1 << 20
_UNSEEN = "status of an image without a row"
_ENDING = re.compile(r"\.(jpe?g|png|bmp|webp|tiff?|csv)$", re.IGNORECASE)
_ALIGNED = re.compile(r"_aligned$")


class TableError(ValueError):
    """An AU table that does not fit the images, or holds what no AU can be; one line that says where."""


def read_openface(path: Path) -> pd.DataFrame:
    """Rows as OpenFace wrote them: `key` (str), `status`, `confidence` and the AU columns that there are.

    path: a folder of one CSV an image (FaceLandmarkImg; the key is the file's stem), one CSV of
        FeatureExtraction (the key is the frame's number, or an added column `id`, `name`, `filename` or
        `input`), or a parquet with an `id`, `name` or `index` column and, where it is our own, `status`

    An empty or unreadable CSV has status `failed`; one without a row, or details without a CSV, `no_face`.

    Raises:
        TableError: there is no such file, or it is none of these.
    """
    if path.is_dir():
        return _read_folder(path)
    if not path.is_file():
        raise TableError(f"{path}: no such file; give OpenFace's output folder, its CSV, or a parquet")
    if path.suffix.lower() == ".parquet":
        return _read_parquet(path)
    return _to_frame(_read_feature_extraction(path))


def one_row_per_image(rows: pd.DataFrame, ids: Sequence[str]) -> pd.DataFrame:
    """One row for each id, in their order: id, status, confidence, 17 intensities and 18 presences (float32).

    Figures are NaN where status is not `ok`; an id without a row has status `no_face`; of several faces the
    most confident counts, the first of those that tie. A key belongs to the id that equals it, with or
    without an image's ending, and else to the only one whose last path component does, with or without
    `_aligned`.

    Raises:
        TableError: fewer than half of the keys, and of the ids, belong together; a column is missing; a
            figure of a face is not finite or out of range (confidence 0..1, intensities 0..5, presences 0
            or 1).
    """
    owner = _match(rows["key"].astype(str).drop_duplicates().tolist(), list(ids))
    _check_match(owner, rows["key"].astype(str), ids)
    matched = rows.assign(id=rows["key"].astype(str).map(owner)).dropna(subset="id")
    faces = matched[matched["status"] == "ok"]
    _check_columns(faces)
    _check_figures(faces)
    chosen = _most_confident(matched).set_index("id").reindex(pd.Index(ids, name="id"))
    status = (
        chosen["status"].astype(object).where(chosen["status"].notna(), rows.attrs.get(_UNSEEN, "no_face")).astype(str)
    )
    figures = chosen.reindex(columns=list(_FIGURES)).astype(np.float32).where(status == "ok")
    figures.insert(0, "status", status)
    return figures.reset_index()


def presumed_no_face(rows: pd.DataFrame, ids: Sequence[str]) -> list[str]:
    """The ids to which `one_row_per_image` gives `no_face` for want of a row, in their order.

    OpenFace found no face in these, or was never given them; what it wrote does not tell which. Details files
    do, which FaceLandmarkImg writes of every image, so with them there is no such id.
    """
    if rows.attrs.get(_UNSEEN) == "failed":
        return []
    owners = set(_match(rows["key"].astype(str).drop_duplicates().tolist(), list(ids)).values())
    return [name for name in ids if name not in owners]


def best_face(csv_path: Path) -> dict[str, float] | None:
    """Confidence and AUs of the most confident face in FaceLandmarkImg's CSV; None without a face, or a whole file."""
    # The program that wrote it had strangers' pictures in its hands.
    if csv_path.is_symlink() or not csv_path.is_file() or csv_path.stat().st_size > _LARGEST_CSV:
        return None
    table = _read_csv(csv_path)
    if not table or not _is_whole(csv_path):
        return None
    faces = [_figures(row) for row in table]
    usable = [face for face in faces if len(face) == len(_FIGURES) and all(map(math.isfinite, face.values()))]
    return max(usable, key=lambda face: face["confidence"], default=None)


def _is_whole(csv_path: Path) -> bool:
    """Whether its last line has an end and as many fields as its first; a program that was killed leaves less."""
    lines = csv_path.read_bytes().split(b"\n")
    return not lines[-1] and lines[-2].count(b",") == lines[0].count(b",")


def _read_folder(folder: Path) -> pd.DataFrame:
    files = sorted(path for path in folder.iterdir() if path.suffix.lower() == ".csv")
    details = sorted(path for path in folder.iterdir() if path.name.endswith(_DETAILS))
    if not files and not details:
        raise TableError(f"{folder}: no CSV in it; give the folder that FaceLandmarkImg wrote into")
    if len(files) == 1 and _is_of_frames(files[0]):
        return _to_frame(_read_feature_extraction(files[0]))
    with_csv = {path.stem for path in files}
    rows = [row for path in files for row in _read_one_image(path)]
    rows += [
        {"key": stem, "status": "no_face"}
        for stem in (path.name.removesuffix(_DETAILS) for path in details)
        if stem not in with_csv
    ]
    table = _to_frame(rows)
    # Every image that the program came to has its details file, so one without any was never reached.
    table.attrs[_UNSEEN] = "failed" if details else "no_face"
    return table


def _read_one_image(path: Path) -> Iterator[dict[str, object]]:
    """The faces of FaceLandmarkImg's CSV, or one row that says why there are none."""
    table = _read_csv(path)
    if table is None:
        yield {"key": path.stem, "status": "failed"}
        return
    if not table:
        yield {"key": path.stem, "status": "no_face"}
    for row in table:
        yield {"key": path.stem, "status": _status_of(row), **_figures(row)}


def _is_of_frames(path: Path) -> bool:
    table = _read_csv(path)
    return table is not None and len({row["frame"] for row in table if "frame" in row}) > 1


def _read_feature_extraction(path: Path) -> Iterator[dict[str, object]]:
    table = _read_csv(path)
    if not table:
        raise TableError(f"{path}: no rows; give the CSV that OpenFace's FeatureExtraction wrote")
    if not {"confidence", "success"} & set(table[0]):
        raise TableError(f"{path}: not a table of OpenFace's; looked for a column confidence or success")
    key = next((name for name in (*_KEYS_IN_CSV, "frame") if name in table[0]), None)
    for row in table:
        yield {
            "key": row.get(key, "").strip() if key else path.stem,
            "status": _status_of(row),
            **_figures(row),
        }


def _read_csv(path: Path) -> list[dict[str, str]] | None:
    """Rows under their headers, stripped, "" where one is cut short; None where there is no header to read."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            lines = csv.reader(file, skipinitialspace=True)
            header = [name.strip() for name in next(lines, [])]
            rows = [dict(zip_longest(header, line[: len(header)], fillvalue="")) for line in lines if line]
    except (OSError, UnicodeDecodeError, csv.Error):
        return None
    return rows if header else None


def _status_of(row: dict[str, str]) -> str:
    return "no_face" if _number(row.get("success", "1")) == 0 else "ok"


def _figures(row: dict[str, str]) -> dict[str, float]:
    return {name: _number(row[name]) for name in _FIGURES if name in row}


def _number(text: str) -> float:
    """NaN for what is no number, such as the `-nan(ind)` of OpenFace on Windows; a later check names it."""
    try:
        return float(text)
    except ValueError:
        return math.nan


def _to_frame(rows: Sequence[dict[str, object]] | Iterator[dict[str, object]]) -> pd.DataFrame:
    frame = pd.DataFrame(list(rows))
    present = [name for name in _FIGURES if name in frame]
    return frame[["key", "status", *present]].astype({"key": str, "status": str})


def _read_parquet(path: Path) -> pd.DataFrame:
    try:
        table = pd.read_parquet(path)
    except (OSError, ValueError) as error:
        raise TableError(f"{path}: not a parquet file ({error}); write it again") from error
    table = table.rename(columns={name: str(name).strip() for name in table.columns})
    if not table.columns.is_unique:
        twice = table.columns[table.columns.duplicated()][0]
        raise TableError(f"{path}: two columns {twice}; keep one of them")
    key = next((name for name in _KEYS_IN_PARQUET if name in table), None)
    if key is None:
        raise TableError(f"{path}: no column that names the image; looked for {', '.join(_KEYS_IN_PARQUET)}")
    status = table["status"].astype(str) if "status" in table else pd.Series("ok", index=table.index)
    if "status" not in table and "success" in table:
        status = status.where(_numbers(table["success"]) != 0, "no_face")
    unknown = sorted(set(status) - set(STATUSES))
    if unknown:
        raise TableError(f"{path}: status {unknown[0]!r}; it must be one of {', '.join(STATUSES)}")
    present = [_numbers(table[name]) for name in _FIGURES if name in table]
    return pd.concat([table[key].astype(str).rename("key"), status.rename("status"), *present], axis=1)


def _numbers(column: pd.Series) -> pd.Series:
    """float64, as `_number` has it for text."""
    return pd.to_numeric(column, errors="coerce").astype(np.float64)


def _match(keys: list[str], ids: list[str]) -> dict[str, str]:
    """The id of each key that has one: equal, else equal without endings, else the only one of its stem."""
    owner: dict[str, str] = {}
    for simplify in (str, _without_ending, _stem):
        taken = set(owner.values())
        key_of, id_of = _only_holders(keys, simplify), _only_holders(ids, simplify)
        for name in key_of.keys() & id_of.keys():
            if key_of[name] not in owner and id_of[name] not in taken:
                owner[key_of[name]] = id_of[name]
    return owner


def _only_holders(names: Sequence[str], simplify: Callable[[str], str]) -> dict[str, str]:
    """Simplified name → name, where no other name is simplified to the same."""
    holders: dict[str, list[str]] = {}
    for name in names:
        holders.setdefault(simplify(name), []).append(name)
    return {simple: held[0] for simple, held in holders.items() if len(held) == 1}


def _without_ending(name: str) -> str:
    return _ENDING.sub("", name.replace("\\", "/"))


def _stem(name: str) -> str:
    return _ALIGNED.sub("", _without_ending(name).rpartition("/")[2])


def _check_match(owner: dict[str, str], keys: pd.Series, ids: Sequence[str]) -> None:
    """A table may cover few of the images, or the images be few of a table's; neither alone is a mistake."""
    known = keys.nunique()
    matched = len(owner)
    if matched and 2 * matched >= min(known, len(ids)):
        return
    stray = next((key for key in keys if key not in owner), "")
    taken = set(owner.values())
    wanted = next((name for name in ids if name not in taken), "")
    raise TableError(
        f"only {matched} of the AU table's {known} images are among the dataset's {len(ids)}: the table has "
        f"such as {stray!r}, the dataset such as {wanted!r}; give the table that was made from these images"
    )


def _check_columns(faces: pd.DataFrame) -> None:
    missing = [name for name in _FIGURES if name not in faces]
    if missing and len(faces):
        raise TableError(f"the AU table has no {', '.join(missing)}; run OpenFace with -aus, which writes all 35 AUs")


def _check_figures(faces: pd.DataFrame) -> None:
    for name in _FIGURES if len(faces) else ():
        values = faces[name].to_numpy(np.float64)
        allowed = _allowed(name, values)
        if not allowed.all():
            place = int(np.argmin(allowed))
            raise TableError(
                f"the AU table's image {faces['key'].iloc[place]}: {name} is {values[place]:g}, not "
                f"{_domain(name)}; mend the row, or take it out"
            )


def _allowed(name: str, values: np.ndarray) -> np.ndarray:
    """(N,) whether a figure is one that OpenFace writes; NaN never is."""
    if name in PRESENCES:
        return np.isin(values, (0, 1))
    allowed: np.ndarray = (values >= 0) & (values <= (5 if name in INTENSITIES else 1))
    return allowed


def _domain(name: str) -> str:
    if name in PRESENCES:
        return "0 or 1"
    return "in 0..5" if name in INTENSITIES else "in 0..1"


def _most_confident(matched: pd.DataFrame) -> pd.DataFrame:
    """One row an id: its most confident face, or what happened where it has none."""
    confidence = matched["confidence"] if "confidence" in matched else pd.Series(0.0, index=matched.index)
    order = pd.DataFrame({"without": matched["status"] != "ok", "doubt": -confidence}).sort_values(
        ["without", "doubt"], kind="stable"
    )
    return matched.loc[order.index].drop_duplicates("id")
