"""Give every image of a dataset one row of what `openface.reading` found, and tell what came of the rest."""

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd

from openface.columns import INTENSITIES, LANDMARKS, PRESENCES
from openface.cut_out import CutOut, FoundFaces, faces_of
from openface.errors import TableError
from openface.matching import Match, in_other_folders, match, splits_in, zeros_lost
from openface.reading import FIGURES, SHARES, UNREAD, UNSEEN

_NAMED = 3


def one_row_per_image(rows: pd.DataFrame, ids: Sequence[str], cut_out: CutOut | None = None) -> pd.DataFrame:
    """One row for each id, in order: id, status, confidence, 17 intensities and 18 presences (float32).

    Where the rows have landmarks, these follow, as they were written: 136 columns, NaN throughout where one of them is
    no number. Figures are NaN where status is not `ok`, and in columns that the rows do not have; an id without a row
    has status `no_face`. Of several faces the most confident counts, the first of those that tie. A row with a figure
    that no AU can have has status `failed`. Which id a key means, `openface.matching.match` says.

    Args:
        cut_out: where the images are faces cut out of photographs, of which the rows are; see `openface.cut_out`.

    Raises:
        TableError: fewer than half of the keys, and of the ids, belong together; a key fits several ids; there
            is no AU; most rows hold what no AU can be (confidence 0..1, intensities 0..5, presences 0 or 1).
    """
    found, cut_out = _match(rows, ids, cut_out)
    _check_match(found, rows["key"], ids if cut_out is None else cut_out.named)
    matched = _of_images(rows, found)
    wrong = _what_is_wrong(matched)
    _check_rows(matched, wrong)
    chosen = _most_confident(_faces(matched, wrong, cut_out).rows).set_index("id").reindex(pd.Index(ids, name="id"))
    status = chosen["status"].astype(object).where(chosen["status"].notna(), rows.attrs.get(UNSEEN, "no_face"))
    figures = chosen.reindex(columns=list(FIGURES)).astype(np.float32)
    if LANDMARKS[0] in chosen:
        landmarks = chosen[list(LANDMARKS)].to_numpy(np.float32, copy=True)
        landmarks[~np.isfinite(landmarks).all(axis=1)] = np.nan
        figures = pd.concat([figures, pd.DataFrame(landmarks, figures.index, list(LANDMARKS))], axis=1)
    figures = figures.where(status == "ok")
    figures.insert(0, "status", status.astype(str))
    return figures.reset_index()


def remarks(rows: pd.DataFrame, ids: Sequence[str], table: str, cut_out: CutOut | None = None) -> list[str]:
    """What of the rows is not used or taken for something else, a sentence each, once `one_row_per_image` took them.

    Args:
        table: what the rows are called where they come from.
        cut_out: as for `one_row_per_image`.
    """
    found, cut_out = _match(rows, ids, cut_out)
    matched = _of_images(rows, found)
    wrong = _what_is_wrong(matched)
    faces = _faces(matched, wrong, cut_out)
    presumed = _presumed(rows, ids if cut_out is None else cut_out.photographs, ids, found)
    return [
        *_of_wrong_rows(matched, wrong, table),
        *_of_images_on_one_side(rows, matched, presumed, ids, table),
        *_of_cut_out_faces(faces, table),
        *_of_several_rows(faces.rows, table),
        *_of_other_places(matched, found, table),
        *_of_the_table_itself(rows, table),
        *_missing(rows, table),
    ]


def _of_wrong_rows(matched: pd.DataFrame, wrong: pd.Series, table: str) -> Iterator[str]:
    if (wrong != "").any():
        named = [f"{key}: {why}" for key, why in zip(matched["key"], wrong, strict=True) if why]
        yield f"{_counted(len(named), 'row')} of {table} cannot be used and count as failed: {_listed(named)}"


def _of_images_on_one_side(
    rows: pd.DataFrame, matched: pd.DataFrame, presumed: Sequence[str], ids: Sequence[str], table: str
) -> Iterator[str]:
    """Images that only the table or only the dataset has.

    Args:
        presumed: those of the dataset that are presumed to have no face.
    """
    if stray := sorted(set(rows["key"]) - set(matched["key"])):
        yield f"{_counted(len(stray), 'image')} of {table} are not in the dataset: {_listed(stray)}"
    if presumed:
        zeros = _where_zeros_are(stray, presumed)
        asked = f"{zeros}:" if zeros else "were they all given to OpenFace?"
        yield (
            f"{len(presumed):,} of {len(ids):,} images have no row in {table} and count as no_face; {asked} "
            f"{_listed(presumed)}"
        )


def _of_several_rows(rows: pd.DataFrame, table: str) -> Iterator[str]:
    if undecided := _undecided(rows):
        yield (
            f"{_counted(len(undecided), 'image')} of {table} have several rows of equal confidence that differ; the "
            f"first is taken: {_listed(undecided)}"
        )
    if crowded := _of_several_faces(rows, undecided):
        yield (
            f"{_counted(len(crowded), 'image')} of {table}: several faces, of which the most confident counts, also "
            f"where the dataset has cut out another; {_listed(crowded)}"
        )


def _of_other_places(matched: pd.DataFrame, found: Match, table: str) -> Iterator[str]:
    """Names in which the table's folders are others than the dataset's."""
    if other := _of_a_split_untold(matched):
        yield (
            f"{_counted(len(other), 'row')} of {table} name a split, and the dataset's images none; are they the same "
            f"images? {_listed(other)}"
        )
    elif in_other_folders(found.owner):
        pairs = [f"{key} for {name}" for key, name in found.owner.items()]
        yield (
            f"{_counted(len(pairs), 'image')} of {table} lie in other folders than the dataset's; are they the same "
            f"images? {_listed(pairs)}"
        )


def _of_the_table_itself(rows: pd.DataFrame, table: str) -> Iterator[str]:
    if unread := rows.attrs.get(UNREAD):
        what = "is not read; give it by itself" if len(unread) == 1 else "are not read; give one by itself"
        yield f"{_counted(len(unread), 'table')} in {table} beside its CSVs {what}: {_listed(unread)}"
    if rows.attrs.get(SHARES):
        yield f"AU columns of {table} without _r or _c hold shares: an AU counts as present from .5 on"


def _of_cut_out_faces(faces: FoundFaces, table: str) -> Iterator[str]:
    """What of photographs' rows is no image's."""
    if faces.outside:
        yield (
            f"{_counted(len(faces.outside), 'image')}: {table} has faces of the photograph, and none in the dataset's "
            f"box; they count as no_face: {_listed(faces.outside)}"
        )
    if faces.untold:
        yield (
            f"{_counted(len(faces.untold), 'image')} of photographs of which the dataset has several faces: nothing in "
            f"{table} tells which row is whose, such as OpenFace's landmarks of the photographs (-2Dfp); they count as "
            f"no_face: {_listed(faces.untold)}"
        )
    if faces.elsewhere:
        yield (
            f"landmarks of {table} are not where the dataset's face boxes are; its rows are taken for faces that were "
            "cut out before"
        )


def _presumed(rows: pd.DataFrame, photographs: Sequence[str], ids: Sequence[str], found: Match) -> list[str]:
    """The ids that have `no_face` for want of a row.

    OpenFace found no face in these, or was never given them; what it wrote does not tell which. Details files
    do, which FaceLandmarkImg writes of every image, so with them there is no such id.
    """
    if rows.attrs.get(UNSEEN) == "failed":
        return []
    owners = set(found.owner.values())
    return [name for name, photograph in zip(ids, photographs, strict=True) if photograph not in owners]


def _where_zeros_are(strays: Sequence[str], without: Sequence[str]) -> str:
    """What to do where a table's names are those of images but for the zeros that they begin with; "" elsewhere."""
    lost = zeros_lost(strays, without)
    if lost is None:
        return ""
    return f"{lost[0]!r} may be {lost[1]!r}: spreadsheets take zeros in front away; write names as the files have them"


def _undecided(sound: pd.DataFrame) -> list[str]:
    """The ids of several faces whose figures differ and of which none is the most confident."""
    faces = sound[sound["status"] == "ok"]
    if "confidence" in faces:
        faces = faces[faces["confidence"] == faces.groupby("id")["confidence"].transform("max")]
    different = faces.drop_duplicates(["id", *(name for name in FIGURES if name in faces)])
    return different.loc[different["id"].duplicated(), "id"].unique().tolist()


def _of_several_faces(sound: pd.DataFrame, undecided: Sequence[str]) -> list[str]:
    """The ids of several faces whose figures differ, of which one is the most confident."""
    faces = sound[sound["status"] == "ok"]
    different = faces.drop_duplicates(["id", *(name for name in FIGURES if name in faces)])
    return [name for name in different.loc[different["id"].duplicated(), "id"].unique() if name not in set(undecided)]


def _of_a_split_untold(matched: pd.DataFrame) -> list[str]:
    """The keys whose folders name a split, of images whose ids name none: they may be another split's."""
    id_of = dict(zip(matched["key"], matched["id"], strict=True))
    return [key for key, name in id_of.items() if splits_in(key) and not splits_in(name)]


def _missing(rows: pd.DataFrame, table: str) -> list[str]:
    """Which of OpenFace's AUs the rows do not have."""
    said = []
    for features, columns in (("intensity", INTENSITIES), ("presence", PRESENCES)):
        missing = [name for name in columns if name not in rows]
        if missing and (rows["status"] == "ok").any():
            has = len(columns) - len(missing)
            use = f"takes the other {has} of {len(columns)}" if has else "cannot be used"
            said.append(f"{table} has no {', '.join(missing)}; action_units.features = {features} {use}")
    return said


def _counted(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMED:,} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more


def _match(rows: pd.DataFrame, ids: Sequence[str], cut_out: CutOut | None) -> tuple[Match, CutOut | None]:
    """The image of each key, or its photograph, and what was cut out of it, where the rows are of photographs."""
    keys = rows["key"].drop_duplicates().tolist()
    if cut_out is not None:
        found = match(keys, list(dict.fromkeys([*cut_out.photographs, *ids])))
        # The second face of a photograph has an id of its own, which only a table of the faces themselves names.
        if set(cut_out.photographs).issuperset(found.owner.values()):
            return found, cut_out
    return match(keys, list(ids)), None


def _faces(matched: pd.DataFrame, wrong: pd.Series, cut_out: CutOut | None) -> FoundFaces:
    """The rows by image, those with a figure that cannot be as failed ones."""
    sound = matched.assign(status=matched["status"].where(wrong == "", "failed"))
    return FoundFaces(sound, [], [], elsewhere=False) if cut_out is None else faces_of(sound, cut_out)


def _of_images(rows: pd.DataFrame, found: Match) -> pd.DataFrame:
    """The rows whose image is among the ids, with its id."""
    return rows.assign(id=rows["key"].map(found.owner)).dropna(subset="id")


def _check_match(found: Match, keys: pd.Series, ids: Sequence[str]) -> None:
    """A table may cover few of the images, or the images be few of a table's; neither alone is a mistake."""
    if found.unclear:
        name, images = next(iter(found.unclear.items()))
        several = f"fits {' and '.join(images[:_NAMED])}" if len(images) > 1 else f"fits {images[0]}, as others do"
        raise TableError(
            f"{_counted(len(found.unclear), 'name')} in the AU table could each mean several images: {name!r} "
            f"{several}; name images with their folders and endings, and no two of a folder alike"
        )
    known, matched = keys.nunique(), len(found.owner)
    if matched and 2 * matched >= min(known, len(ids)):
        return
    stray = next((key for key in keys if key not in found.owner), "")
    taken = set(found.owner.values())
    wanted = next((name for name in ids if name not in taken), "")
    strays = keys[~keys.isin(found.owner)].unique().tolist()
    advice = _where_zeros_are(strays, [name for name in ids if name not in taken])
    raise TableError(
        f"only {matched} of the AU table's {known} images are among the dataset's {len(ids)}: the table has "
        f"such as {stray!r}, the dataset such as {wanted!r}; "
        f"{advice or 'give the table that was made from these images'}"
    )


def _check_rows(matched: pd.DataFrame, wrong: pd.Series) -> None:
    """A few bad rows cost their images; where most are bad, the table is."""
    faces = matched["status"] == "ok"
    if faces.any() and not any(name in matched for name in (*INTENSITIES, *PRESENCES)):
        raise TableError("the AU table has no AU columns; run OpenFace with -aus, which writes all 35")
    if 2 * (wrong != "").sum() > faces.sum():
        worst = int(np.argmax(wrong != ""))
        raise TableError(
            f"{(wrong != '').sum():,} of the AU table's {faces.sum():,} faces cannot be: image "
            f"{matched['key'].iloc[worst]}: {wrong.iloc[worst]}; mend the rows, or take them out"
        )


def _what_is_wrong(matched: pd.DataFrame) -> pd.Series:
    """The first figure of each face that OpenFace would not write, in words; "" where there is none."""
    wrong = [""] * len(matched)
    faces = (matched["status"] == "ok").to_numpy()
    for name in (name for name in FIGURES if name in matched):
        values = matched[name].to_numpy(np.float64)
        for row in np.flatnonzero(faces & ~_allowed(name, values)):
            wrong[row] = wrong[row] or f"{name} is {values[row]:g}, not {_domain(name)}"
    return pd.Series(wrong, index=matched.index, dtype=str)


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
