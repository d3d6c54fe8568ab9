"""Read what OpenFace, py-feat or LibreFace wrote about images: CSVs in a folder, one CSV, a parquet or a feather."""

import csv
import gzip
import io
import math
import re
import zlib
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from functools import partial
from itertools import pairwise, zip_longest
from pathlib import Path, PureWindowsPath
from typing import Any, NoReturn

import numpy as np
import pandas as pd

from openface.columns import INTENSITIES, LANDMARKS, PRESENCES, UNSPECIFIED, figure_in
from openface.errors import TableError
from openface.files import files_below, is_hidden
from openface.matching import match
from openface.names import as_text, spell
from openface.spreadsheets import SEPARATOR_LINE, has_decimal_commas, with_decimal_point

STATUSES = ("ok", "no_face", "unreadable", "failed")
"""ok: a face and its AUs; no_face: none found; unreadable: not decoded; failed: OpenFace stopped, or its row is no
good."""
FIGURES = ("confidence", *INTENSITIES, *PRESENCES)
"""What a face's row holds besides landmarks."""
DETAILS = "_of_details.txt"
"""How the files end that FaceLandmarkImg writes about each image that it was shown."""
UNSEEN = "status of an image without a row"
SHARES = "presences that were shares"
UNREAD = "tables beside the CSVs of a folder"
"""Keys of a frame's `attrs`."""

_NAME_COLUMNS = (
    *("filename", "image", "path", "file", "name", "input", "imagepath", "imagename", "imagefile", "filepath"),
    *("img", "imgpath", "imgname", "inputpath", "inputimagepath", "subdirectoryfilepath", "alignedimagepath"),
)
"""Headers of columns that hold files' names, in lower case and without anything but letters."""
_NUMBERING_COLUMNS = ("id", "imageid", "index", "unnamed0", "")
"""Headers of columns that hold names or, as pandas writes them, rows' numbers."""
_WOULD_DO = "filename, image, path, file or name"
_COUNTED_BY = ("frame", "frameidx", "faceid", "face", "timestamp", "frametimeinms", *_NUMBERING_COLUMNS)
_INPUT = re.compile(r"^Input full path:(.*)$", re.MULTILINE)
_CSV = re.compile(r"\.csv(\.gz)?$", re.IGNORECASE)
_OTHER_TABLES = (".parquet", ".pq", ".feather", ".arrow", ".tsv", ".xlsx")
"""Endings of tables that are not read where a folder holds them."""
_BULK = re.compile(r"(eye_lmk_[xyXYZ]|[XYZ]|p)_\d+|lm_mp_idx_\d+_[xyz]")
"""Headers of points and shapes that nobody reads here: most of what OpenFace and LibreFace write."""
_LARGEST_CSV = 1 << 20
_PARQUET, _FEATHERS, _ZIP, _GZIP = b"PAR1", (b"ARROW1", b"FEA1"), b"PK\x03\x04", b"\x1f\x8b"
"""First bytes of each format; both versions of feather."""
_PRESENT_FROM = 0.5
_POINTS = "landmarks"
"""Key of a row's (136,) landmarks, which as numbers of Python's would take ten times the memory."""
_NEXT_POINT = "x_68"
"""A header of meshes, such as MediaPipe's 478 points, the first 68 of which are other ones."""
_SUCCEEDED, _FAILED = ("true", "t", "yes", "y"), ("false", "f", "no", "n")
"""What stands for OpenFace's 1 and 0 below `success` where a table went through other programs."""
_BOOLEANS = {"true": 1.0, "false": 0.0}
_OF_BOOLEANS = frozenset((*PRESENCES, *UNSPECIFIED))
_FEW_BEYOND = 0.01
"""Shares are taken for such where so few of them, which are mistakes, are above 1."""
_FRAMES_IN_ORDER = 9
"""Files called by their numbers are taken in the order of these up to here: 10 comes before 2."""

_Row = dict[str, object]


@dataclass(frozen=True)
class _Sheet:
    """A CSV: its headers, stripped, and its lines, "" where one is cut short."""

    headers: list[str]
    lines: list[list[str]]
    is_longer: list[bool]
    """Lines with more fields than there are headers, none of which is known to be below its own."""

    def column(self, header: str) -> list[str]:
        """The values below a header, stripped."""
        place = self.headers.index(header)
        return [line[place].strip() for line in self.lines]


def read_openface(path: Path, ids: Sequence[str] = ()) -> pd.DataFrame:
    """Rows as they were written: `key` (str), `status`, `confidence`, and the AU and landmark columns that there are.

    path: a folder of one CSV an image (FaceLandmarkImg; the key is the file's path in the folder), one CSV, either
        packed by gzip or not, a parquet or a feather with a column of file names; first bytes tell them apart. What
        py-feat and LibreFace wrote is read too: `FaceScore` is a confidence, `AU01` a presence where nearly all are
        in 0..1 (a share counts from .5 on) and else an intensity, `au_1_intensity` an intensity
    ids: of the dataset's images; of several columns of file names, the one that names most of these counts

    An empty or unreadable CSV has status `failed`; one without a row, or details without a CSV, `no_face`.

    Raises:
        TableError: there is no such file, it is none of these, or nothing but numbers tells whose the rows are.
    """
    if path.is_dir():
        return _read_folder(path)
    if not path.is_file():
        raise TableError(f"{path}: no such file; give OpenFace's output folder, its CSV, or a parquet")
    begins = _first_bytes(path)
    if path.suffix.lower() == ".parquet" or begins.startswith((_PARQUET, *_FEATHERS)):
        return _read_columnar(path, begins, ids)
    if begins.startswith(_ZIP):
        raise TableError(f"{path}: a spreadsheet or an archive; save it as CSV, and give that")
    return _read_table(path, ids)


@dataclass(frozen=True)
class Face:
    """Confidence and AUs by name, and (136,) float32 landmarks as `LANDMARKS` has them, if there are any."""

    figures: dict[str, float]
    landmarks: np.ndarray | None


def best_face(csv_path: Path) -> Face | None:
    """The most confident face in FaceLandmarkImg's CSV; None without a face, or a whole file."""
    # The program that wrote it had strangers' pictures in its hands.
    if csv_path.is_symlink() or not csv_path.is_file() or csv_path.stat().st_size > _LARGEST_CSV:
        return None
    sheet = _read_csv(csv_path)
    if sheet is None or not sheet.lines or not _is_whole(csv_path):
        return None
    places, points = _figure_places(sheet.headers), _landmark_places(sheet.headers)
    faces = [
        Face({name: number(line[place]) for name, place in places.items()}, _landmarks_in(line, points))
        for line in sheet.lines
    ]
    usable = [f for f in faces if len(f.figures) == len(FIGURES) and all(map(math.isfinite, f.figures.values()))]
    return max(usable, key=lambda face: face.figures["confidence"], default=None)


def number(text: str) -> float:
    """NaN for what is no number, such as the `-nan(ind)` of OpenFace on Windows; a later check names it."""
    try:
        return float(text)
    except ValueError:
        return math.nan


def _figure(name: str, text: str) -> float:
    """The same; pandas writes presences that became booleans as True and False."""
    return _BOOLEANS.get(text.strip().lower(), number(text)) if name in _OF_BOOLEANS else number(text)


def _is_whole(csv_path: Path) -> bool:
    """Tell whether its last line has an end and as many fields as its first; a program that was killed leaves less."""
    lines = csv_path.read_bytes().split(b"\n")
    return not lines[-1] and lines[-2].count(b",") == lines[0].count(b",")


def _read_folder(folder: Path) -> pd.DataFrame:
    """A CSV an image, in class folders or not; what details files say of the images' folders is used."""
    visible = list(_visible(folder))
    found = sorted(path for path in visible if _CSV.search(path.name) or _is_details(path))
    unread = [spell(path.relative_to(folder).as_posix()) for path in visible if path.suffix.lower() in _OTHER_TABLES]
    files = [path for path in found if not _is_details(path)]
    inputs = {_key(path, folder): _input_of(path, folder) for path in found if _is_details(path)}
    if not found and unread:
        raise TableError(f"{folder}: no CSV in it, but {unread[0]}; give that file itself")
    if not found:
        raise TableError(f"{folder}: no CSV in it; give the folder that FaceLandmarkImg wrote into")
    rows: list[_Row] = []
    for path in files:
        key = _key(path, folder)
        rows += _read_one_image(path, inputs.get(key, key))
    with_csv = {_key(path, folder) for path in files}
    rows += [{"key": inputs[key], "status": "no_face"} for key in sorted(inputs.keys() - with_csv)]
    table = _to_frame(rows)
    # Every image that the program came to has its details file, so one without any was never reached.
    table.attrs[UNSEEN] = "failed" if inputs else "no_face"
    table.attrs[UNREAD] = unread
    return table


def _visible(folder: Path) -> Iterator[Path]:
    """Files in a folder and its subfolders, hidden ones and what systems keep there apart."""
    try:
        for file in files_below(folder):
            if file.kind == "regular" and not is_hidden(file.path.relative_to(folder)):
                yield file.path
    except OSError as error:
        raise TableError(f"{error.filename}: {error.strerror}; allow this user to read it") from error


def _is_details(path: Path) -> bool:
    return path.name.endswith(DETAILS)


def _key(path: Path, folder: Path) -> str:
    """The path in the folder, without the ending that OpenFace gave it."""
    name = path.name.removesuffix(DETAILS) if _is_details(path) else _CSV.sub("", path.name)
    return spell(path.relative_to(folder).with_name(name).as_posix())


def _input_of(details: Path, folder: Path) -> str:
    """The image's own path as details have it, where they tell more than the details' own place does."""
    key = _key(details, folder)
    if "/" in key:
        return key
    said = _INPUT.search(_decoded(details.read_bytes()))
    # The program is often one for Windows.
    path = PureWindowsPath(said[1].strip() if said else "")
    return path.as_posix() if path.stem == key else key


def _read_one_image(path: Path, key: str) -> Iterator[_Row]:
    """The faces in an image's CSV, or one row that says why there are none; or rows under names of their own."""
    sheet = _read_csv(path)
    if sheet is None or not _figure_places(sheet.headers):
        yield {"key": key, "status": "failed"}
    elif not sheet.lines:
        yield {"key": key, "status": "no_face"}
    else:
        yield from _rows_of(sheet, path, key if _frames(sheet) < 2 else None)


def _read_table(path: Path, ids: Sequence[str]) -> pd.DataFrame:
    """One CSV, of one image or of many."""
    sheet = _read_csv(path)
    if sheet is None or not sheet.lines:
        raise TableError(f"{path}: no rows; give the CSV that OpenFace wrote")
    if not _figure_places(sheet.headers):
        raise TableError(f"{path}: not a table of OpenFace's; looked for columns such as confidence, AU01_r and AU01_c")
    if 2 * sum(sheet.is_longer) > len(sheet.lines):
        raise TableError(
            f"{path}: its rows have more fields than its header; give every column a header, and where numbers have "
            "decimal commas, separate by semicolons"
        )
    one_image = len(sheet.lines) == 1 or (_frames(sheet) < 2 and _are_different_faces(sheet))
    key = spell(Path(path.name.removesuffix(".gz")).stem) if one_image else None
    return _to_frame(_rows_of(sheet, path, key, ids))


def _rows_of(sheet: _Sheet, path: Path, key: str | None, ids: Sequence[str] = ()) -> Iterator[_Row]:
    """Rows under the names that they hold, or else under the file's, which is the key where all are of one image."""
    _refuse_two_of_a_name(path, sheet.headers)
    columns = {header: sheet.column(header) for header in sheet.headers if _may_name(header)}
    numbers = {header for header, values in columns.items() if _only_counts(values)}
    frames = _column(sheet, "frame")
    names = _names_in(columns, numbers, frames, ids)
    if names is None and key is None:
        _refuse_nameless(path, sheet.headers, numbers)
    _refuse_frames(path, names, frames)
    places, points = _figure_places(sheet.headers), _landmark_places(sheet.headers)
    statuses = _statuses(path, _column(sheet, "status"), _column(sheet, "success"), len(sheet.lines))
    for row, line in enumerate(sheet.lines):
        figures = {n: math.nan if sheet.is_longer[row] else _figure(n, line[at]) for n, at in places.items()}
        found: _Row = {"key": names[row] if names else key, "status": statuses[row], **figures}
        yield found if points is None else found | {_POINTS: _landmarks_in(line, points)}


def _statuses(
    path: Path, statuses: Sequence[str] | None, successes: Sequence[object] | None, count: int
) -> Sequence[str]:
    """Our own word for each row, or what OpenFace's `success` says; (count,)."""
    if statuses is not None:
        statuses = [status.strip().lower() for status in statuses]
        unknown = sorted(set(statuses) - set(STATUSES))
        if unknown:
            raise TableError(f"{path}: status {unknown[0]!r}; it must be one of {', '.join(STATUSES)}")
        return statuses
    if successes is None:
        return ["ok"] * count
    return [_status_of(path, str(success).strip().lower()) for success in successes]


def _status_of(path: Path, success: str) -> str:
    """Read OpenFace's `success`, or what a program made of it; nothing there is a row that was not written whole."""
    if success in ("", "nan", "none", "<na>"):
        return "failed"
    if success in _SUCCEEDED or success in _FAILED:
        return "ok" if success in _SUCCEEDED else "no_face"
    if math.isnan(number(success)):
        raise TableError(f"{path}: success {success!r}; it must be 1 where a face was found, and else 0")
    return "ok" if number(success) else "no_face"


def _may_name(header: str) -> bool:
    return _plain(header) in (*_NAME_COLUMNS, *_NUMBERING_COLUMNS, "status")


def _names_in(
    columns: Mapping[str, Sequence[str]], numbers: Set[str], frames: Sequence[str] | None, ids: Sequence[str]
) -> list[str] | None:
    """The column of file names that names the most of `ids`, or else the most different ones; None without any.

    Where no header speaks of files, an `id`, or a column that pandas wrote without a header, will do, unless it is
    among those that hold numbers. A table of our own, which has a `status`, has its names in `id`.

    Args:
        columns: values by header.
        numbers: headers of columns that hold nothing else.
        frames: the frames' numbers, which under no header are names.
    """
    ours = {_plain(header): header for header in columns}
    named = [ours[name] for name in _NAME_COLUMNS if name in ours and not _numbers_rows(columns[ours[name]], frames)]
    is_own = {"id", "status"} <= ours.keys()
    if is_own:
        named = [ours["id"]]
    elif not named:
        named = [ours[name] for name in _NUMBERING_COLUMNS if name in ours and ours[name] not in numbers][:1]
    if not named:
        return None
    candidates = [
        list(columns[header]) if is_own else [n.replace("\\", "/") for n in columns[header]] for header in named
    ]
    return candidates[0] if len(candidates) == 1 else max(candidates, key=lambda names: _fit(names, ids))


def _fit(names: Sequence[str], ids: Sequence[str]) -> tuple[int, float, int]:
    """How many of a dataset's images a column of names fits, which share of its names does, and how many these are."""
    different = list(dict.fromkeys(names))
    owners = len(match(different, list(ids)).owner) if ids else 0
    return owners, owners / max(1, len(different)), len(different)


def _plain(header: str) -> str:
    return re.sub(r"[^a-z0-9]", "", header.lower())


def _numbers_rows(values: Sequence[str], frames: Sequence[str] | None) -> bool:
    """Tell whether a column is the frames' numbers once more, or counts rows; of nine images, names may do so too."""
    if len(set(values)) <= _FRAMES_IN_ORDER:
        return False
    return values == frames or (_only_counts(values) and all(int(a) <= int(b) for a, b in pairwise(values)))


def _only_counts(values: Sequence[str]) -> bool:
    """Tell whether these are whole numbers as one counts, none written as 007."""
    return all(re.fullmatch(r"0|[1-9]\d*", value) for value in values)


def _frames(sheet: _Sheet) -> int:
    """How many frames of a video, or of a folder taken for one, the rows are of; 0 where they have no numbers."""
    return len(set(_column(sheet, "frame") or ()))


def _are_different_faces(sheet: _Sheet) -> bool:
    faces = _column(sheet, "face") or _column(sheet, "face_id") or ()
    return 0 < len(sheet.lines) == len(set(faces))


def _refuse_nameless(path: Path, headers: Sequence[str], numbers: Set[str]) -> NoReturn:
    counting = [
        header or "a column without a name" for header in headers if header in numbers or _plain(header) in _COUNTED_BY
    ]
    told = f"; {', '.join(counting)} only count" if counting else ""
    raise TableError(
        f"{path}: no column names the images{told}; add one of file names with their endings, called {_WOULD_DO}, or "
        "give a folder of one CSV an image"
    )


def _refuse_frames(path: Path, names: Sequence[str] | None, frames: Sequence[str] | None) -> None:
    """Refuse names most of which have several frames, as videos do: nothing tells which of these an image is."""
    frames_of = defaultdict[str, set[str]](set)
    for name, frame in zip(names, frames, strict=True) if names and frames else ():
        frames_of[name].add(frame)
    several = [name for name, own in frames_of.items() if len(own) > 1]
    if 2 * len(several) > len(frames_of):
        raise TableError(
            f"{path}: {several[0]!r} has {len(frames_of[several[0]]):,} frames, as a video has, and nothing tells "
            "which of them an image is; give each frame the name of its own image"
        )


def _refuse_two_of_a_name(path: Path, headers: Sequence[str]) -> None:
    figures = [name for header in headers if (name := figure_in(header)) is not None]
    twice = next((name for name, count in Counter(figures).items() if count > 1), None)
    if twice is not None:
        raise TableError(f"{path}: two columns {twice}; keep one of them")


def _column(sheet: _Sheet, header: str) -> list[str] | None:
    found = next((ours for ours in sheet.headers if ours.lower() == header), None)
    return None if found is None else sheet.column(found)


def _figure_places(headers: Sequence[str]) -> dict[str, int]:
    """The place of each figure's column."""
    return {name: place for place, header in enumerate(headers) if (name := figure_in(header)) is not None}


def _landmark_places(headers: Sequence[str]) -> list[int] | None:
    """The places of the 136 columns of landmarks, in the order of `LANDMARKS`; None where they are not just these."""
    places = {header: place for place, header in enumerate(headers)}
    are_these = places.keys() >= set(LANDMARKS) and _NEXT_POINT not in places
    return [places[name] for name in LANDMARKS] if are_these else None


def _landmarks_in(line: Sequence[str], places: Sequence[int] | None) -> np.ndarray | None:
    """(136,) float32, NaN for what is no number."""
    return None if places is None else np.array([number(line[place]) for place in places], np.float32)


def _read_csv(path: Path) -> _Sheet | None:
    """None without a header. Commas, semicolons, tabs or bars separate; decimal commas become points."""
    try:
        content = path.read_bytes()
        text = _decoded(gzip.decompress(content) if content.startswith(_GZIP) else content)
        text = text.lstrip("\r\n")
        first = text[: text.find("\n") + 1] or text
        marked = SEPARATOR_LINE.match(first)
        text = text[len(first) :] if marked else text
        separator = marked[1] if marked else max(",;\t|", key=first.count)
        # A StringIO takes four bytes a character.
        file = io.TextIOWrapper(io.BytesIO(text.encode()), encoding="utf-8", newline="")
        lines = csv.reader(file, delimiter=separator, skipinitialspace=True)
        headers = [name.strip() for name in next(lines, [])]
        kept = [place for place, header in enumerate(headers) if not _BULK.fullmatch(header)]
        rows, is_longer, known = list[list[str]](), list[bool](), dict[str, str]()
        for line in filter(None, lines):
            is_longer.append(any(field.strip() for field in line[len(headers) :]))
            padded = list(_padded(line, len(headers)))
            # Most figures are the same few texts, over and over.
            rows.append([known.setdefault(padded[place], padded[place]) for place in kept])
    except (OSError, EOFError, zlib.error, csv.Error):
        return None
    if separator != "," or has_decimal_commas(field for row in rows for field in row):
        rows = [[with_decimal_point(field) for field in row] for row in rows]
    return _Sheet([headers[place] for place in kept], rows, is_longer) if headers else None


def _decoded(content: bytes) -> str:
    """UTF-8, or the UTF-16 of Excel, or what a system wrote that knows neither."""
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        return content.decode("utf-16", errors="replace")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        return content.decode("latin-1")


def _padded(line: list[str], length: int) -> Iterator[str]:
    for _, field in zip_longest(range(length), line[:length], fillvalue=""):
        yield str(field)


def _to_frame(rows: Sequence[_Row] | Iterator[_Row]) -> pd.DataFrame:
    frame = pd.DataFrame(list(rows))
    present = [name for name in (*FIGURES, *UNSPECIFIED) if name in frame]
    landmarks = frame.get(_POINTS)
    frame = _specified(frame[["key", "status", *present]].astype({"key": str, "status": str}))
    return frame if landmarks is None else _with_landmarks(frame, _stacked(landmarks))


def _stacked(landmarks: "pd.Series[Any]") -> np.ndarray:
    """(N, 136) float32; NaN for a row without."""
    nothing = np.full(len(LANDMARKS), np.nan, np.float32)
    return np.stack([points if isinstance(points, np.ndarray) else nothing for points in landmarks])


def _with_landmarks(frame: pd.DataFrame, landmarks: np.ndarray) -> pd.DataFrame:
    """The frame, with 136 columns of float32 behind its own."""
    joined = pd.concat([frame, pd.DataFrame(landmarks, frame.index, list(LANDMARKS))], axis=1)
    joined.attrs = frame.attrs
    return joined


def _specified(frame: pd.DataFrame) -> pd.DataFrame:
    """Columns such as py-feat's `AU01` become presences or intensities; of others' tables, empty columns go.

    py-feat writes a row without figures where it found no face.
    """
    bare = [name for name in UNSPECIFIED if name in frame]
    if not bare:
        return frame
    values = frame[bare].to_numpy(np.float64)
    figures = [name for name in frame if name not in ("key", "status", "confidence")]
    faceless = frame[figures].isna().all(axis=1)
    frame.loc[faceless & (frame["status"] == "ok"), "status"] = "no_face"
    seen = values[~np.isnan(values)]
    if seen.size and (seen > 1).mean() > _FEW_BEYOND:
        renamed = {name: f"{name}_r" for name in bare if f"{name}_r" in INTENSITIES}
        frame = frame.drop(columns=[name for name in bare if name not in renamed])
    else:
        renamed = {name: f"{name}_c" for name in bare}
        frame.attrs[SHARES] = bool(((seen > 0) & (seen < 1)).any())
        # What is beyond 1 stays, so that its row is seen to hold what no AU can be.
        shown = np.where(values > 1, values, np.where(values >= 0, values >= _PRESENT_FROM, np.nan))
        frame = frame.assign(**dict(zip(bare, shown.T, strict=True)))
    kept = frame.drop(columns=[name for name in renamed if renamed[name] in frame]).rename(columns=renamed)
    kept.attrs = frame.attrs
    return _without_empty_figures(kept)


def _first_bytes(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(len(_FEATHERS[0]))
    except OSError as error:
        raise TableError(f"{path}: {error.strerror}; allow this user to read it") from error


def _read_columnar(path: Path, begins: bytes, ids: Sequence[str]) -> pd.DataFrame:
    is_feather = begins.startswith(_FEATHERS)
    try:
        table = pd.read_feather(path) if is_feather else pd.read_parquet(path)
    except (OSError, ValueError) as error:
        form = "feather" if is_feather else "parquet"
        raise TableError(f"{path}: not a {form} file ({error}); write it again") from error
    table = _with_index(path, table)
    headers = [str(name).strip() for name in table.columns]
    _refuse_two_of_a_name(path, headers)
    columns = {header: table.iloc[:, place] for place, header in enumerate(headers)}
    in_lower_case = {header.lower(): column for header, column in columns.items()}
    naming = {header: column for header, column in columns.items() if _may_name(header)}
    numbers = {header for header, column in naming.items() if pd.api.types.is_numeric_dtype(column)}
    frames = _texts(in_lower_case["frame"]) if "frame" in in_lower_case else None
    names = _names_in({header: _texts(column) for header, column in naming.items()}, numbers, frames, ids)
    if names is None:
        _refuse_nameless(path, headers, numbers)
    _refuse_frames(path, names, frames)
    own = _texts(columns["status"]) if "status" in columns else None
    success = list(in_lower_case["success"]) if "success" in in_lower_case else None
    frame = pd.DataFrame({"key": names, "status": _statuses(path, own, success, len(table))}, dtype=str)
    for name, place in _figure_places(headers).items():
        column = table.iloc[:, place]
        texts = column if pd.api.types.is_numeric_dtype(column) else column.map(str).map(partial(_figure, name))
        frame[name] = _numbers(texts).to_numpy()
    frame = _specified(frame if own is None else _without_empty_figures(frame))
    points = _landmark_places(headers)
    if points is None:
        return frame
    return _with_landmarks(frame, np.column_stack([_numbers(table.iloc[:, p]).astype(np.float32) for p in points]))


def _with_index(path: Path, table: pd.DataFrame) -> pd.DataFrame:
    """The table with its index among its columns, unless it numbers the rows or is one of them already.

    Raises:
        TableError: the index and the column of its name say different things.
    """
    for name in [str(name) for name in table.index.names if name in table.columns]:
        if _texts(table.index.get_level_values(name).to_series()) != _texts(table[name]):
            raise TableError(f"{path}: its index and its column {name} differ; keep one of them")
        table = table.reset_index(name, drop=True)
    return table if pd.api.types.is_numeric_dtype(table.index) else table.reset_index()


def _texts(column: pd.Series) -> list[str]:
    """The column as text; a whole number without a point, and bytes as names of files are read."""
    return [str(int(v)) if isinstance(v, float) and v.is_integer() else as_text(v) for v in column.tolist()]


def _without_empty_figures(frame: pd.DataFrame) -> pd.DataFrame:
    """AUs that the writing program lacks, such as AU45 in py-feat."""
    return frame.drop(columns=[name for name in frame if name in FIGURES and frame[name].isna().all()])


def _numbers(column: pd.Series) -> pd.Series:
    """float64, as `number` has it for text."""
    return pd.to_numeric(column, errors="coerce").astype(np.float64)
