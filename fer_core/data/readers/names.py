"""What people call emotions and splits."""

import re
import unicodedata
from contextlib import suppress

from openface.matching import ABOUT_IMAGES, EITHER_KIND, SPLITS, without_accents, words_in
from openface.matching import emotion_of as emotion_of
from openface.names import spell

DROP = "drop"
"""What `[dataset.classes]` says of a label whose images are left out."""
DROPPED = "\0"
"""The class of such images, which no label is called."""

UNLABELLED = "\1"
"""The class of images without a label, which no label is called either."""
MISSING = ("nan", "none", "na", "n/a", "null", "nil", "<na>", "-", "--", "?", "#n/a", "missing", "undefined")
"""What programs and people write where there is nothing; classes may be called so in [dataset.classes] alone."""
_NO_LABEL = re.compile(
    r"((un|not)(labell?ed|annotated)|(no|without)(labels?|annotations?))(images|faces|pictures|photos|data|set)?\d*"
)
"""A label's text without case and marks: `unlabelled`, `Not labeled`, `no_label`, `unlabeled-faces`, `unlabelled2`."""

_NUMBER = re.compile(r"[+-]?\d{1,9}(\.0*)?")


def has_no_label(name: str) -> bool:
    """Tell whether an own label, or a class folder's name, says that there is none: empty, or `unlabelled`."""
    return not name.strip() or _NO_LABEL.fullmatch(re.sub(r"[\W_]+", "", name).lower()) is not None


def number_of(name: str) -> str | None:
    """The whole number that a label is, as `3`, whether it is written 3, 03 or 3.0."""
    return str(int(float(name))) if _NUMBER.fullmatch(name.strip()) else None


def readable(name: str) -> str:
    """A name as text that every file holds: bytes that are no UTF-8 are Windows' letters, or else spelled."""
    raw = name.encode("utf-8", "surrogateescape")
    for encoding in ("utf-8", "cp1252"):
        with suppress(UnicodeDecodeError):
            return raw.decode(encoding)
    return spell(name)


def plain_label(label: str) -> str:
    """A label as labels are compared: by its number, or without case, blanks around and decomposed letters."""
    return number_of(label) or unicodedata.normalize("NFC", readable(label).strip()).lower()


def split_of(name: str) -> str | None:
    """train, validation or test, where a name means one: `Training`, `PrivateTest`, `test_set`."""
    plain = re.sub(r"[\W_]+", "", without_accents(readable(name))).lower()
    return SPLITS.get(plain) or SPLITS.get(ABOUT_IMAGES.sub("", plain))


def split_of_folder(name: str) -> str | None:
    """The same of a folder, which may be called `FER2013Train` or `my_faces_test` too."""
    if split := split_of(name):
        return split
    found = {SPLITS[word] for word in _words(name) if word in SPLITS}
    return found.pop() if len(found) == 1 and not any(map(emotion_of, _words(name))) else None


def mentions_split(name: str) -> bool:
    """Tell whether a word of a name is a split's, as in `is_train`, `istrain` or `train_happy`."""
    return any(word.removeprefix("is") in (*SPLITS, *EITHER_KIND) for word in _words(name))


def emotions_in(name: str) -> set[str]:
    """The emotions that words of a name mean: `aia_anger` speaks of anger, and may be no class of it all the same."""
    return {emotion for word in _words(name) if (emotion := emotion_of(word))}


def _words(name: str) -> list[str]:
    return words_in(readable(name))
