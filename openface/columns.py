"""The action units that OpenFace 2.2 writes, under its own column names and in its own order."""

_WITH_INTENSITY = ("01", "02", "04", "05", "06", "07", "09", "10", "12", "14", "15", "17", "20", "23", "25", "26", "45")
_WITH_PRESENCE = (*_WITH_INTENSITY[:-1], "28", "45")

INTENSITIES: tuple[str, ...] = tuple(f"AU{number}_r" for number in _WITH_INTENSITY)
"""17 columns, 0 (absent) to 5 (maximal)."""

PRESENCES: tuple[str, ...] = tuple(f"AU{number}_c" for number in _WITH_PRESENCE)
"""18 columns, 0 or 1; AU28 (lip suck) has a presence and no intensity."""

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
