"""What people call emotions and splits, and the order of a dataset's classes."""

from collections.abc import Iterable

from fer_core.dataset import EMOTIONS

SPLITS = {
    "train": "train",
    "training": "train",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "test": "test",
    "testing": "test",
}
"""Lower-case names of splits in folders and columns."""

_ALIASES = {
    "neutral": ("normal", "neutrality"),
    "happiness": ("happy", "joy", "joyful"),
    "surprise": ("surprised",),
    "sadness": ("sad",),
    "anger": ("angry",),
    "disgust": ("disgusted",),
    "fear": ("fearful", "afraid", "scared"),
    "contempt": ("contemptuous",),
}
_EMOTION_OF = {name: emotion for emotion in EMOTIONS for name in (emotion, *_ALIASES[emotion])}


def emotion_of(name: str) -> str | None:
    """The emotion of EMOTIONS that a name means, if any."""
    return _EMOTION_OF.get(name.strip().lower())


def class_order(names: Iterable[str]) -> tuple[tuple[str, ...], dict[str, int]]:
    """The classes in order, and the index of each name.

    If all are emotions, under whatever name, they are called and ordered as in EMOTIONS; else names stay as
    they are, in the order of numbers or of the alphabet.
    """
    distinct = set(names)
    emotion_by_name = {name: emotion_of(name) for name in distinct}
    if None not in emotion_by_name.values():
        emotions = tuple(emotion for emotion in EMOTIONS if emotion in emotion_by_name.values())
        return emotions, {name: emotions.index(str(emotion)) for name, emotion in emotion_by_name.items()}
    by_number = all(name.isdecimal() for name in distinct)
    classes = tuple(sorted(distinct, key=int) if by_number else sorted(distinct))
    return classes, {name: index for index, name in enumerate(classes)}
