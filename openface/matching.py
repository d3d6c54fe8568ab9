"""Match table rows to images by file name, with or without folders and ending, never by number."""

import re
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

_ENDING = re.compile(r"\.(jpe?g|jpe|jfif|a?png|bmp|dib|webp|tiff?|gif|p[bgnp]m|hei[cf]|hif|avif)$", re.IGNORECASE)
_SEPARATOR = re.compile(r"/|\\(?!x[0-9a-f]{2})")
_SPELLED_BYTE = re.compile(r"\\x([89a-f][0-9a-f])")
_ALIGNED = re.compile(r"_aligned$", re.IGNORECASE)
SPLITS: Mapping[str, str] = {
    **dict.fromkeys(("train", "training", "trainval", "trn", "learn", "learning", "entrenamiento"), "train"),
    **dict.fromkeys(("treino", "treinamento", "apprentissage", "entrainement", "addestramento"), "train"),
    **dict.fromkeys(("validation", "valid", "val", "dev", "devel", "development", "publictest"), "validation"),
    **dict.fromkeys(("validacion", "validacao", "validazione", "validierung"), "validation"),
    **dict.fromkeys(("test", "testing", "tests", "tst", "privatetest"), "test"),
    **dict.fromkeys(("prueba", "pruebas", "teste", "testes"), "test"),
    **dict.fromkeys(("trainingsdaten", "训练", "训练集", "訓練", "訓練集"), "train"),
    **dict.fromkeys(("validierungsdaten", "验证", "验证集", "驗證", "驗證集"), "validation"),
    **dict.fromkeys(("testdaten", "测试", "测试集", "測試", "測試集"), "test"),
}
"""What people call splits, without accents.

FER2013's parts are Training, PublicTest and PrivateTest, of which its makers validate on the second.
"""
EITHER_KIND = ("eval", "evaluation", "evaluacion", "avaliacao", "holdout", "heldout")
"""Words of a split that is for validation to some and for testing to others."""

EMOTIONS_OF: Mapping[str, str] = {
    **dict.fromkeys(("neutral", "normal", "neutrality", "neu"), "neutral"),
    **dict.fromkeys(("happiness", "happy", "happyness", "joy", "joyful", "joyous", "hap"), "happiness"),
    **dict.fromkeys(("surprise", "surprised", "surprising", "suprise", "suprised"), "surprise"),
    **dict.fromkeys(("astonishment", "astonished", "sur"), "surprise"),
    **dict.fromkeys(("sadness", "sad", "sadly", "sorrow", "sorrowful"), "sadness"),
    **dict.fromkeys(("anger", "angry", "angriness", "ang"), "anger"),
    **dict.fromkeys(("disgust", "disgusted", "disgusting", "dis"), "disgust"),
    **dict.fromkeys(("fear", "fearful", "fearfulness", "feared", "afraid", "scared", "fea"), "fear"),
    **dict.fromkeys(("contempt", "contemptuous", "contemptous"), "contempt"),
}
"""What people call emotions, in lower case."""
_AROUND = " []'\""
"""What programs write around a word: pandas, where a table holds lists."""
_COUNT_BESIDE = re.compile(r"^\d+[\s._:)-]+|[\s._:(-]+\d+\)?$")

_SPLITS_OF = {word: frozenset((split,)) for word, split in SPLITS.items()} | dict.fromkeys(
    EITHER_KIND, frozenset(("validation", "test"))
)
_NO_SPLIT: frozenset[str] = frozenset()
ABOUT_IMAGES = re.compile(r"(set|data|split|part|images|faces)$")
"""What names add to a split's word: `test_set`, `train images`."""
_WORDS = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])")
_NUMBER = re.compile(r"\d+")
_FEW = 16
"""Images that are looked at one by one; of a video, thousands of folders may hold a `frame_0001`."""

_Score = tuple[int, int, bool, bool]


@dataclass(frozen=True)
class Match:
    """The image that each name means."""

    owner: dict[str, str]
    """Name → image."""
    unclear: dict[str, tuple[str, ...]]
    """Names that fit several images equally well, or share the one that they fit, and those images."""


class _Name(NamedTuple):
    text: str
    folders: tuple[str, ...]
    """Outermost first, as `_read` reads them, and so is all of `path`."""
    stem: str
    """As it is written."""
    ending: str
    """In lower case, "" where there is none; `.csv` is the table's and not the image's."""
    path: tuple[str, ...]
    """The stem, then its folders from the innermost: what two names share is a beginning of this.

    A folder that is called after an emotion stands here as the emotion.
    """
    splits: frozenset[str]
    """What the innermost folder of a split says: one, several that it may be, or none where no folder says any."""
    emotions: frozenset[str]
    """What its folders are called after."""


def match(names: Sequence[str], images: Sequence[str]) -> Match:
    """Find the image of each name.

    A name means the image with which it shares its stem (without ending and RAF-DB's `_aligned`, case aside) and the
    most folders. Names of other classes or splits are told by their folders: `sad/1` is not `happy/1`, `joy/1` is,
    and `smile/1` is not where there is a folder `smile` among the images. Nor is `P04/1` an image beside `P01/1`, where
    the images have a folder `P01` and no `P04`.

    Args:
        names: different ones, as the table has them, folders parted by slashes.
        images: different ones; bytes that are no UTF-8 as `openface.names.spell` has them.
    """
    ours, theirs = [_parse(image) for image in images], [_parse(name) for name in names]
    closest = _closest_of(ours)
    # One split has many names, and which of them is meant `_agree` tells.
    known = {folder for folder in {folder for image in ours for folder in image.path[1:]} if not _named_after(folder)}
    root = _shared_root(theirs)
    strangers = _strangers(theirs, known, root)
    owner: dict[str, str] = {}
    unclear: dict[str, tuple[str, ...]] = {}
    claims: defaultdict[str, list[tuple[_Score, str]]] = defaultdict(list)
    for name in (name for name in theirs if name.text not in strangers):
        meant = known.intersection(name.path[1 : len(name.path) - root])
        emotions = _emotions_in(name.folders[root:])
        fitting = [image for image in closest(name) if _agree(name, meant, image) and _share(emotions, image)]
        scores = [_score(name, image) for image in fitting]
        highest = max(scores, default=None)
        best = [image.text for image, score in zip(fitting, scores, strict=True) if score == highest]
        if len(best) > 1:
            unclear[name.text] = tuple(best)
        elif highest is not None:
            claims[best[0]].append((highest, name.text))
    for image_text, claimed in claims.items():
        most = max(score for score, _ in claimed)
        winners = [name_text for score, name_text in claimed if score == most]
        if len(winners) == 1:
            owner[winners[0]] = image_text
        else:
            unclear |= dict.fromkeys(winners, (image_text,))
    return Match(owner, unclear)


def splits_in(name: str) -> frozenset[str]:
    """The splits that a name's folders may mean, train, validation or test; none where they say nothing of it."""
    return _parse(name).splits


def emotion_of(name: str) -> str | None:
    """The emotion that a name means, if any: `Happy`, ` JOY`, `3_happiness`, `['sad']` of a list of one."""
    return EMOTIONS_OF.get(_COUNT_BESIDE.sub("", name.strip().strip(_AROUND)).strip(f"{_AROUND}_-.").lower())


def in_other_folders(owner: Mapping[str, str]) -> bool:
    """Tell whether each name's innermost folder is called otherwise than its image's, at the same depth.

    A single folder of all names may be the program's, such as `processed`, unless it differs in a number alone, as
    `P02` does from `P01`.
    """
    names, images = [_parse(name) for name in owner], [_parse(image) for image in owner.values()]
    above = _shared_root(images) - _shared_root(names)
    if not names or any(len(i.folders) - len(n.folders) != above for n, i in zip(names, images, strict=True)):
        return False
    pairs = {(name.path[1:2], image.path[1:2]) for name, image in zip(names, images, strict=True)}
    others = [(one[0], other[0]) for one, other in pairs if one and other and _differ(one[0], other[0])]
    is_several = len({one for one, _ in others}) > 1
    return len(others) == len(pairs) and (is_several or all(_number_apart(*pair) for pair in others))


def _differ(one: str, other: str) -> bool:
    """Tell whether two folders' names are of different things: `anna` and `ben`, not `anna` and `anna_aus`."""
    is_same = one in other or other in one or not _splits_of(one).isdisjoint(_splits_of(other))
    is_same |= not _emotions_in((one,)).isdisjoint(_emotions_in((other,)))
    return one != other and (_number_apart(one, other) or not is_same)


def _number_apart(one: str, other: str) -> bool:
    return one != other and _NUMBER.sub("0", one) == _NUMBER.sub("0", other)


def zeros_lost(names: Sequence[str], images: Sequence[str]) -> tuple[str, str] | None:
    """The first name that an image has but for zeros in front, which a spreadsheet takes from 007; and that image."""
    padded = [image for image in map(_parse, images) if image.path[0].startswith("0")]
    meant = {image.path[0].lstrip("0") or "0": image for image in reversed(padded)}
    for name in map(_parse, names):
        image = meant.get(name.path[0])
        if image is None or name.path[0] == image.path[0]:
            continue
        if _agree(name, set(), image) and _share(name.emotions, image):
            return name.text, image.text
    return None


def _parse(text: str) -> _Name:
    *folders, last = [part for part in _SEPARATOR.split(text.strip()) if part not in ("", ".")] or [""]
    last = last[:-4] if last.lower().endswith(".csv") else last
    ending = _ENDING.search(last)
    stem = _ALIGNED.sub("", last if ending is None else last[: ending.start()])
    read = tuple(map(_read, folders))
    splits = next(filter(None, map(_splits_of, reversed(folders))), _NO_SPLIT)
    path = (_read(stem), *(EMOTIONS_OF.get(folder, folder) for folder in reversed(read)))
    return _Name(text, read, stem, ending[1].lower() if ending else "", path, splits, _emotions_in(read))


def _read(part: str) -> str:
    """A component as whoever compares names reads it: case, composed letters and spelled bytes aside."""
    # A byte that is no UTF-8 is spelled \\xf1 in a file's name, and is what a table in Latin-1 has for it.
    read = _SPELLED_BYTE.sub(lambda found: chr(int(found[1], 16)), part) if "\\" in part else part
    return (read if read.isascii() else unicodedata.normalize("NFC", read)).lower()


def _closest_of(images: Sequence[_Name]) -> Callable[[_Name], list[_Name]]:
    """What gives the images that share the most of their path's end with a name, or, of many, those worth a look."""
    ends: defaultdict[tuple[str, ...], list[_Name]] = defaultdict(list)
    inside: defaultdict[tuple[str, str], list[_Name]] = defaultdict(list)
    for image in images:
        for length in range(1, len(image.path) + 1):
            ends[image.path[:length]].append(image)

    def in_folder(name: _Name) -> list[list[_Name]]:
        """The images of this stem, below each of the name's folders."""
        if not inside:
            for image in images:
                for folder in image.path[1:]:
                    inside[image.path[0], folder].append(image)
        return [inside[name.path[0], folder] for folder in name.path[1:] if (name.path[0], folder) in inside]

    def closest(name: _Name) -> list[_Name]:
        for length in range(len(name.path), 0, -1):
            found = ends.get(name.path[:length])
            if found and len(found) > _FEW and (narrower := in_folder(name)):
                found = [image for image in min(narrower, key=len) if image.path[:length] == name.path[:length]]
            if found:
                return found
        return []

    return closest


def _shared_root(names: Sequence[_Name]) -> int:
    """How many of the outermost folders all names share; the innermost is never one of them."""
    if not names:
        return 0
    # What the least and the greatest share, all between them share too.
    least, greatest = min(name.folders for name in names), max(name.folders for name in names)
    return min(_alike(least, greatest), min(max(len(name.folders) - 1, 0) for name in names))


def _alike(one: Sequence[str], other: Sequence[str]) -> int:
    """How many components two paths begin with together."""
    return next((n for n, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


def _strangers(names: Sequence[_Name], known: set[str], root: int) -> set[str]:
    """Names in a folder that no image has, beside namesakes in one that images have: of people left out, for instance.

    Folders are compared at the same place, counted from the innermost, of names with as many of them; what all names
    begin with, and what splits and emotions are called, says nothing here.
    """
    at_home: defaultdict[tuple[int, int], set[tuple[str, ...]]] = defaultdict(set)
    elsewhere: defaultdict[tuple[int, int], list[_Name]] = defaultdict(list)
    for name in names:
        for level in range(1, len(name.path) - root):
            place = len(name.path), level
            if name.path[level] in known:
                at_home[place].add(name.path[:level])
            elif not (_named_after(name.path[level]) or _emotion_in(name.path[level])):
                elsewhere[place].append(name)
    told = [place for place in elsewhere if any(n.path[: place[1]] in at_home[place] for n in elsewhere[place])]
    return {name.text for place in told for name in elsewhere[place]}


def _agree(name: _Name, meant: set[str], image: _Name) -> bool:
    """Tell whether a name's folders, of which some mean something among the images, can be the image's."""
    are_apart = image.splits and name.splits and image.splits.isdisjoint(name.splits)
    return not image.folders or (meant <= set(image.path[1:]) and not are_apart)


def _share(emotions: frozenset[str], image: _Name) -> bool:
    """Tell whether an image that lies in an emotion's folder lies in one of these, if there are any."""
    return not (image.emotions and emotions) or not image.emotions.isdisjoint(emotions)


def _emotions_in(folders: Sequence[str]) -> frozenset[str]:
    return frozenset(emotion for folder in folders if (emotion := _emotion_in(folder)))


@cache
def _emotion_in(folder: str) -> str | None:
    return emotion_of(folder)


@cache
def _splits_of(folder: str) -> frozenset[str]:
    """The splits that a folder's name may mean: `Training`, `test_set`, `FER2013Valid`, `my_faces_test`."""
    found = {splits for word in words_in(folder) if (splits := _SPLITS_OF.get(word))}
    # A name that speaks of two, such as `train_test`, says which of them it is to nobody.
    return _named_after(folder) or (found.pop() if len(found) == 1 else _NO_SPLIT)


@cache
def _named_after(folder: str) -> frozenset[str]:
    """The same, where the name says nothing else, such as whose faces they are."""
    plain = re.sub(r"[\W_]+", "", without_accents(folder)).lower()
    return _SPLITS_OF.get(plain) or _SPLITS_OF.get(ABOUT_IMAGES.sub("", plain), _NO_SPLIT)


def words_in(name: str) -> list[str]:
    """The words of a name, in lower case and without accents: `FER2013Valid` has `fer` and `valid`."""
    return [word.lower() for word in _WORDS.findall(without_accents(name))]


def without_accents(text: str) -> str:
    """The text with plain letters in place of those with marks."""
    if text.isascii():
        return text
    return "".join(letter for letter in unicodedata.normalize("NFD", text) if not unicodedata.combining(letter))


def _score(name: _Name, image: _Name) -> _Score:
    shared = len(set(name.folders) & set(image.folders))
    return (
        _alike(name.path, image.path),
        shared,
        name.stem == image.stem,
        bool(name.ending) and name.ending == image.ending,
    )
