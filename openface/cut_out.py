"""Which of the faces that were found in a photograph are those that a dataset has cut out of it."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from openface.columns import LANDMARKS

_NEAR = 0.25
"""Largest distance between the middle of a face's landmarks and its box's, in sides of the box, where both are of one
picture."""


@dataclass(frozen=True)
class CutOut:
    """What of its photograph each of a dataset's N images is."""

    ids: Sequence[str]
    """Ids of the images."""
    photographs: Sequence[str]
    """(N,) the id by which tables know the photograph; several images may be of one."""
    boxes: np.ndarray
    """(N, 4) left, top, width and height in the photograph's pixels; NaN where the image is all of it."""

    @property
    def named(self) -> list[str]:
        """Each photograph once."""
        return list(dict.fromkeys(self.photographs))

    @cached_property
    def images(self) -> pd.DataFrame:
        """A row an image: image, photograph, x and y of its box's middle, width, height, and whether it is alone."""
        left, top, width, height = self.boxes.T
        images = pd.DataFrame({"image": self.ids, "photograph": self.photographs, "width": width, "height": height})
        images["x"], images["y"] = left + width / 2, top + height / 2
        images["alone"] = ~images["photograph"].duplicated(keep=False)
        return images


@dataclass(frozen=True)
class FoundFaces:
    """The rows that may be each image's, and what of them cannot be used."""

    rows: pd.DataFrame
    """Rows of photographs, `id` the image's; one that has a face in none of them has status `no_face`."""
    outside: list[str]
    """Images in whose boxes no face was found, though elsewhere in their photographs."""
    untold: list[str]
    """Images that share a photograph, where nothing tells whose the rows are."""
    elsewhere: bool
    """The landmarks are not of the photographs, so that boxes say nothing of them."""


def faces_of(rows: pd.DataFrame, cut_out: CutOut) -> FoundFaces:
    """Give each image the face whose landmarks' middle is nearest to that of its box, and within; a face to one image.

    Without landmarks of the photographs, all rows of a photograph are the image's that is its only one.

    Args:
        rows: of photographs, `id` theirs, with `status`, and landmarks if there are any.
    """
    pairs = _pairs(rows, cut_out)
    of_photographs = _tell_of_photographs(pairs)
    are_places = bool(len(of_photographs)) and of_photographs.mean() > 1 / 2
    by_box = pairs["placed"] & are_places
    nearest = pairs.index.isin(_nearest_of_each(pairs[by_box & pairs["inside"]]))
    # What happened to a photograph in which nothing was found is true of all its images.
    kept = pairs[~pairs["is_face"] | (~by_box & pairs["alone"]) | nearest]
    left_out = pairs[~pairs["image"].isin(kept["image"])].drop_duplicates("image")
    of_others = _rows_of(rows, left_out).assign(status="no_face")
    found = pd.concat([_rows_of(rows, kept), of_others], ignore_index=True)
    by_box = by_box[left_out.index]
    outside, untold = left_out.loc[by_box, "image"].tolist(), left_out.loc[~by_box, "image"].tolist()
    return FoundFaces(found, outside, untold, elsewhere=bool(len(of_photographs)) and not are_places)


def _rows_of(rows: pd.DataFrame, pairs: pd.DataFrame) -> pd.DataFrame:
    """The pairs' rows under the ids of their images."""
    return rows.iloc[pairs["row"].to_numpy()].assign(id=pairs["image"].to_numpy())


def _pairs(rows: pd.DataFrame, cut_out: CutOut) -> pd.DataFrame:
    """Each row with each image of its photograph, and how far the face is from the box, in sides of the box.

    row: the row's place; is_face: it has a face; placed: landmarks and box are both known
    from_box: of the landmarks' middle from the box's; from_corner: the same, were the box the whole photograph
    inside: the middle is within the box
    """
    middle = np.full((len(rows), 2), np.nan)
    if LANDMARKS[0] in rows:
        middle = rows[list(LANDMARKS)].to_numpy(np.float32).reshape(len(rows), 2, -1).mean(axis=2)
    faces = pd.DataFrame({"row": np.arange(len(rows)), "photograph": rows["id"].to_numpy()})
    faces["is_face"] = (rows["status"] == "ok").to_numpy()
    faces["face_x"], faces["face_y"] = middle.T
    pairs = faces.merge(cut_out.images, on="photograph")
    across, down = (pairs["face_x"] - pairs["x"]) / pairs["width"], (pairs["face_y"] - pairs["y"]) / pairs["height"]
    pairs["from_box"] = np.hypot(across, down)
    pairs["from_corner"] = np.hypot(pairs["face_x"] / pairs["width"] - 0.5, pairs["face_y"] / pairs["height"] - 0.5)
    pairs["inside"] = (across.abs() <= 0.5) & (down.abs() <= 0.5)
    pairs["placed"] = pairs["is_face"] & pairs["from_box"].notna()
    return pairs


def _tell_of_photographs(pairs: pd.DataFrame) -> "pd.Series[bool]":
    """Tell of each photograph if its landmarks are where a box is; those of faces cut out before are elsewhere.

    Photographs whose boxes begin in their corner are left out, since in these both are one place.
    """
    apart = np.hypot(pairs["x"] / pairs["width"] - 0.5, pairs["y"] / pairs["height"] - 0.5) > _NEAR
    distances = pairs.loc[pairs["placed"] & apart, ["photograph", "from_box", "from_corner"]]
    nearest = distances.groupby("photograph").min()
    return (nearest["from_box"] <= _NEAR) & (nearest["from_box"] < nearest["from_corner"])


def _nearest_of_each(pairs: pd.DataFrame) -> list[int]:
    """Labels of the pairs that hold: the nearest first, each image and each row at most once."""
    images, rows, own = set[str](), set[int](), []
    near = pairs.sort_values("from_box", kind="stable")
    for pair, image, row in zip(near.index, near["image"], near["row"], strict=True):
        if image not in images and row not in rows:
            images.add(image)
            rows.add(row)
            own.append(int(pair))
    return own
