"""The action units that OpenFace 2.2 writes, under its own column names and in its own order, and who else calls them
what."""

import re

_WITH_INTENSITY = ("01", "02", "04", "05", "06", "07", "09", "10", "12", "14", "15", "17", "20", "23", "25", "26", "45")
_WITH_PRESENCE = (*_WITH_INTENSITY[:-1], "28", "45")

INTENSITIES: tuple[str, ...] = tuple(f"AU{number}_r" for number in _WITH_INTENSITY)
"""17 columns, 0 (absent) to 5 (maximal)."""

PRESENCES: tuple[str, ...] = tuple(f"AU{number}_c" for number in _WITH_PRESENCE)
"""18 columns, 0 or 1; AU28 (lip suck) has a presence and no intensity."""

LANDMARKS: tuple[str, ...] = tuple(f"{axis}_{point}" for axis in "xy" for point in range(68))
"""136 columns: x of 68 facial landmarks, then y, in pixels from the middle of the top left one; of `-2Dfp`. `X_0` is
another thing, a coordinate in space."""

UNSPECIFIED: tuple[str, ...] = tuple(f"AU{number}" for number in _WITH_PRESENCE)
"""py-feat's columns, and LibreFace's presences: only their values tell what they are."""

FACS_NAMES: dict[str, str] = {
    "AU01": "inner brow raiser",
    "AU02": "outer brow raiser",
    "AU04": "brow lowerer",
    "AU05": "upper lid raiser",
    "AU06": "cheek raiser",
    "AU07": "lid tightener",
    "AU09": "nose wrinkler",
    "AU10": "upper lip raiser",
    "AU12": "lip corner puller",
    "AU14": "dimpler",
    "AU15": "lip corner depressor",
    "AU17": "chin raiser",
    "AU20": "lip stretcher",
    "AU23": "lip tightener",
    "AU25": "lips part",
    "AU26": "jaw drop",
    "AU28": "lip suck",
    "AU45": "blink",
}

_HEADER = re.compile(r"au[ _]?0*(\d{1,2})(?:[ _]?(r|c|intensity|presence))?", re.IGNORECASE)
_SUFFIX = {"r": "_r", "intensity": "_r", "c": "_c", "presence": "_c", None: ""}
_CONFIDENCE = ("confidence", "facescore")
"""OpenFace's name of it, and py-feat's."""
_KNOWN = frozenset((*INTENSITIES, *PRESENCES, *UNSPECIFIED))


def figure_in(header: str) -> str | None:
    """Our name of the figure that a column holds: `confidence`, an AU's intensity, presence, or either.

    `au_1_intensity` is LibreFace's `AU01_r`; `AU01` is py-feat's and may be either. None for any other column, also
    for AUs that OpenFace does not know, such as py-feat's AU43.
    """
    if header.lower() in _CONFIDENCE:
        return "confidence"
    found = _HEADER.fullmatch(header)
    if found is None:
        return None
    name = f"AU{int(found[1]):02d}{_SUFFIX[found[2].lower() if found[2] else None]}"
    return name if name in _KNOWN else None
