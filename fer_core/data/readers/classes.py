"""What a dataset's own labels mean: numbers by a stated order, words by what people call emotions."""

import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

import numpy as np

from fer_core.data import dataset
from fer_core.data.dataset import EMOTIONS
from fer_core.data.readers.names import (
    DROP,
    DROPPED,
    MISSING,
    UNLABELLED,
    emotion_of,
    emotions_in,
    has_no_label,
    mentions_split,
    number_of,
    plain_label,
    readable,
)
from fer_core.errors import DatasetError
from fer_core.experiment import DatasetSettings

_TABLE = "[dataset.classes]"
_NAMED = 12
UNLABELLED_INDEX, DROPPED_INDEX = dataset.UNLABELLED, -2
_DOUBT = math.log(1000)
"""A stated order is refused where two of its classes would be a thousand times as likely the other way round."""
_DIGITS = re.compile(r"\d+")
_LEAST_AGREEMENT = 1 / 2
"""A smaller share of images whose label is the top of their distribution shows columns in another order."""


@dataclass(frozen=True)
class NumberOrder:
    """What the numbers of a dataset mean, and how its makers' classes are distributed."""

    name: str
    """Such as `RAF-DB's own order`."""
    meaning: Mapping[str, str]
    """From a number to an emotion, or to DROPPED."""
    sizes: Mapping[str, int]
    """Published training images of each emotion."""
    is_fixed: bool = False
    """The file with these numbers takes no [dataset.classes]."""


@dataclass(frozen=True)
class Classes:
    """The classes of a dataset, and each image's."""

    labels: tuple[str, ...]
    """Emotions in the order of EMOTIONS, then other words by the alphabet."""
    index: np.ndarray
    """(N,) int64 into `labels`; -1 where the image has no label, -2 where it is dropped."""
    dropped: Mapping[str, int]
    """Images of the labels that are dropped."""
    notes: tuple[str, ...]


def name_classes(
    own: Sequence[str],
    settings: DatasetSettings,
    where: object,
    order: NumberOrder | None = None,
    without_images: int = 0,
) -> Classes:
    """Give a meaning to each image's own label.

    `[dataset.classes]` goes first, then `order` for numbers, then the usual names of emotions. Where no label is known
    at all and none is a number, they are classes of their own.

    Args:
        own: (N,) labels as the dataset has them.
        where: the file or folder that messages name.
        without_images: how many labels at the end of `own` are no image's, but a column's.

    Raises:
        DatasetError: a label has no meaning, the counts speak against the order, or `[dataset.classes]` is amiss.
    """
    own = [readable(label) for label in own]
    counts = Counter(own[: len(own) - without_images])
    counts.update(dict.fromkeys(own[len(own) - without_images :], 0))
    table, given = _table(settings, counts, where), order
    order = _left_by(table, order) if order else None
    meaning = {label: table.get(label, _usual_meaning(label, order)) for label in counts}
    unknown = [label for label, known in meaning.items() if known is None]
    if unknown:
        _refuse_no_words(unknown, counts, where, given, contradicted=order is None)
        if len(unknown) < sum(name != UNLABELLED for name in meaning.values()) or table:
            _refuse_strays(unknown, counts, where)
    own_word = _usual_spelling(unknown, counts)
    named = {label: known or own_word[label] for label, known in meaning.items()}
    by_order = {label: name for label, name in named.items() if order and label not in table and number_of(label)}
    if order and by_order:
        _check_first(by_order, where, order)
        _check_sizes(by_order, counts, where, order)
    if order and "contempt" in order.meaning.values() and settings.classes == 7:
        named = {label: DROPPED if known == "contempt" else known for label, known in named.items()}
    how = _how_numbers_are_read(by_order, counts, order) if order and by_order else ""
    told = f"classes{how}: {_sizes(named, counts)}"
    return _classes(own, named, counts, (told, *_speak_of_emotions(own_word.values()), *_unused(settings, counts)))


def check_shares(path: object, shares: np.ndarray, labels: np.ndarray, remedy: str) -> None:
    """Refuse shares that are of other classes: the label is mostly the top answer.

    Args:
        shares: (N, classes)
        labels: (N,) into the classes; what is negative is no label.

    Raises:
        DatasetError: the label is the top for fewer than half of the images.
    """
    rows = np.flatnonzero(labels >= 0)
    agreeing = float(np.mean(shares[rows, labels[rows]] == shares[rows].max(axis=1))) if len(rows) else 1
    if agreeing < _LEAST_AGREEMENT:
        raise DatasetError(
            f"{path}: the top of the distribution is the label for only {agreeing:.0%} of the images; {remedy}"
        )


def _table(settings: DatasetSettings, counts: Mapping[str, int], where: object) -> dict[str, str]:
    """What [dataset.classes] says of the labels that there are."""
    if not isinstance(settings.classes, Mapping):
        return {}
    meanings = {key: _meaning_of_value(key, value, counts, where) for key, value in settings.classes.items()}
    said = {label: _meaning_in_table(label, meanings, counts, where) for label in counts}
    table = {label: meaning for label, meaning in said.items() if meaning is not None}
    if not table:
        raise DatasetError(f"{where}: none of the labels in {_TABLE} is there; there are {_named(counts, counts)}")
    return table


def _left_by(table: Mapping[str, str], order: NumberOrder) -> NumberOrder | None:
    """What an order says of the numbers that the table does not name; None where the table shows another order.

    It shows none by dropping numbers or calling them no label, or by naming others than the order's, which mean others
    than its emotions.
    """
    named = {number: meaning for label, meaning in table.items() if (number := number_of(label))}
    emotions, none = {*order.meaning.values()}, (DROPPED, UNLABELLED)
    for number, meaning in named.items():
        if meaning not in (*none, order.meaning.get(number)) and (number in order.meaning or meaning in emotions):
            return None
    left = {number: meaning for number, meaning in order.meaning.items() if number not in named}
    return replace(
        order, meaning=left, sizes={name: size for name, size in order.sizes.items() if name in left.values()}
    )


def _meaning_in_table(label: str, meanings: Mapping[str, str], counts: Mapping[str, int], where: object) -> str | None:
    """What the key that is the label says of it, or else those that are no label and differ in case or zeros."""
    if label in meanings:
        return meanings[label]
    keys = [key for key in meanings if key not in counts and plain_label(key) == plain_label(label)]
    if len({meanings[key] for key in keys}) > 1:
        raise DatasetError(
            f"{where}: dataset.classes says different things of the label {label}, as {' and as '.join(keys)}; keep "
            "one of them"
        )
    return meanings[keys[0]] if keys else None


def _usual_spelling(words: Iterable[str], counts: Mapping[str, int]) -> dict[str, str]:
    """Map each word to its commonest spelling; case, blanks around and composed letters do not count."""
    commonest: dict[str, str] = {}
    for word in sorted(words, key=lambda word: (-counts[word], word)):
        commonest.setdefault(plain_label(word), word)
    return {word: commonest[plain_label(word)] for word in words}


def _meaning_of_value(key: str, value: str, labels: Iterable[str], where: object) -> str:
    if value.strip().lower() == DROP:
        return DROPPED
    if value.strip() and has_no_label(value):
        return UNLABELLED
    meaning = emotion_of(value) or next((label for label in labels if label == value), None)
    if meaning is None:
        raise DatasetError(
            f'{where}: dataset.classes has {key} = "{value}", which is none of {", ".join(EMOTIONS)}, no label of the '
            f'dataset, and neither "{DROP}" nor "unlabelled"'
        )
    return meaning


def _usual_meaning(label: str, order: NumberOrder | None) -> str | None:
    if has_no_label(label):
        return UNLABELLED
    number = number_of(label)
    if number is None:
        return emotion_of(label)
    return order.meaning.get(number) if order else None


def _refuse_no_words(
    unknown: Sequence[str], counts: Mapping[str, int], where: object, order: NumberOrder | None, *, contradicted: bool
) -> None:
    _refuse_missing(unknown, counts, where)
    _refuse_numbers(unknown, counts, where, order, contradicted=contradicted)
    _refuse_splits(unknown, where)
    _refuse_counted(unknown, counts, where)


def _refuse_numbers(
    unknown: Sequence[str], counts: Mapping[str, int], where: object, order: NumberOrder | None, *, contradicted: bool
) -> None:
    numbers = sorted(
        (label for label in unknown if _measures(label) is not None), key=lambda label: _measures(label) or 0
    )
    if numbers:
        known = f"{order.name} has {_pairs(order.meaning)}" if order else "numbers have no meaning of their own"
        if order and contradicted:
            known = f"{_TABLE} says otherwise than {order.name}"
        first = numbers[0]  # Below 0 programs number what has no label.
        raise DatasetError(
            f"{where}: labels {_named(numbers, counts)}, but {known}; say what each means in {_TABLE}, such as "
            f'{number_of(first) or _key(first)} = "{"unlabelled" if first.startswith("-") else "happiness"}"'
            + ("" if order else ", or set dataset.source to the dataset that they are of")
        )


def _refuse_counted(unknown: Sequence[str], counts: Mapping[str, int], where: object) -> None:
    """Refuse words that differ by a number alone, such as CK+'s folders S005 and S010, which are people."""
    alike = Counter(_without_digits(label) for label in unknown)
    counted = sorted(label for label in unknown if _DIGITS.search(label) and alike[_without_digits(label)] > 1)
    if counted:
        first = counted[0]
        raise DatasetError(
            f"{where}: labels {_named(counted, counts)} differ by numbers, which say nothing of what they show; if "
            "they are people, list the images in a CSV with path, label and subject; else say what each means in "
            f'{_TABLE}, such as {_key(first)} = "happiness", or "{first}" for a class of its own'
        )


def _without_digits(label: str) -> str:
    return _DIGITS.sub("", label).lower()


def _measures(label: str) -> float | None:
    """The number that a label is, whole or not."""
    try:
        value = float(label)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _refuse_missing(unknown: Sequence[str], counts: Mapping[str, int], where: object) -> None:
    missing = [label for label in unknown if label.strip().lower() in MISSING]
    if missing:
        raise DatasetError(
            f"{where}: labels {_named(missing, counts)} look like missing values; leave the label of such an image "
            f'empty, or say what it means in {_TABLE}, such as {_key(missing[0])} = "unlabelled", or "{DROP}"'
        )


def _refuse_splits(unknown: Sequence[str], where: object) -> None:
    splits = [label for label in unknown if mentions_split(label)]
    if splits:
        raise DatasetError(
            f"{where}: {splits[0]} is the name of a split, not of a class; have a folder for each split with a folder "
            "for each class in it, or a CSV with the columns path, label and split"
        )


def _refuse_strays(unknown: Sequence[str], counts: Mapping[str, int], where: object) -> None:
    raise DatasetError(
        f"{where}: labels {_named(unknown, counts)} of {sum(counts.values()):,} images are no names of emotions; say "
        f'what each means in {_TABLE}, such as {_key(unknown[0])} = "{DROP}", an emotion, or "{unknown[0]}" '
        'for a class of its own, and "unlabelled" where there is no label'
    )


def _check_first(meaning: Mapping[str, str], where: object, order: NumberOrder) -> None:
    """Refuse numbers that begin at 1 where the order begins at 0: somebody may have counted from 1."""
    emotions = {number for number, emotion in order.meaning.items() if emotion != DROPPED}
    there = {number_of(label) for label in meaning}
    if "0" in emotions and "0" not in there and emotions - {"0"} <= there:
        raise DatasetError(
            f"{where}: its labels begin at 1, but {order.name} begins with 0 = {order.meaning['0']}; if they count "
            f"from 1, or no image shows {order.meaning['0']}, say what each means in {_TABLE}, such as "
            '1 = "' + order.meaning["0"] + '"'
        )


def _check_sizes(meaning: Mapping[str, str], counts: Mapping[str, int], where: object, order: NumberOrder) -> None:
    """Refuse numbers in another order: a class then outnumbers one that should outnumber it by far."""
    sizes = _by_emotion(meaning, counts, order)
    if len(sizes) <= 1:
        return
    pairs = combinations(sorted(sizes, key=lambda emotion: -order.sizes[emotion]), 2)
    larger, smaller = max(pairs, key=lambda pair: _doubt(sizes, order.sizes, *pair))
    if _doubt(sizes, order.sizes, larger, smaller) > _DOUBT and not _is_balanced(sizes.values()):
        told = ", ".join(f"{label} {_shown(emotion)} ({counts[label]:,})" for label, emotion in sorted(meaning.items()))
        remedy = f'say what each number means in {_TABLE}, such as {min(meaning)} = "surprise"'
        raise DatasetError(
            f"{where}: the numbers of images do not fit {order.name}. It would make them {told}, but that dataset has "
            f"more {larger} than {smaller}; {'restore the file as published' if order.is_fixed else remedy}"
        )


def _by_emotion(meaning: Mapping[str, str], counts: Mapping[str, int], order: NumberOrder) -> dict[str, int]:
    sizes = dict.fromkeys(order.sizes, 0)
    for label, emotion in meaning.items():
        if emotion in sizes:
            sizes[emotion] += counts[label]
    return sizes


def _doubt(sizes: Mapping[str, int], published: Mapping[str, int], larger: str, smaller: str) -> float:
    """Logarithm of how much likelier the sizes are with these two classes the other way round."""
    return (sizes[smaller] - sizes[larger]) * math.log(published[larger] / published[smaller])


def _is_balanced(sizes: Iterable[int]) -> bool:
    """Tell whether all classes that are there are of one size but for chance; such counts say nothing of an order."""
    present = [size for size in sizes if size]
    mean, freedom = sum(present) / max(1, len(present)), len(present) - 1
    deviation = sum((size - mean) ** 2 for size in present) / max(1, mean)
    return deviation <= freedom + 2 * math.sqrt(2 * max(0, freedom))


def _classes(
    own: Sequence[str], named: Mapping[str, str], counts: Mapping[str, int], notes: tuple[str, ...]
) -> Classes:
    present = set(named.values()) - {DROPPED, UNLABELLED}
    labels = (*(e for e in EMOTIONS if e in present), *sorted(present - set(EMOTIONS)))
    position = {name: index for index, name in enumerate(labels)} | {
        DROPPED: DROPPED_INDEX,
        UNLABELLED: UNLABELLED_INDEX,
    }
    index = np.array([position[named[label]] for label in own], np.int64)
    dropped = {f"labelled {label}": counts[label] for label, name in named.items() if name == DROPPED}
    return Classes(labels, index, dropped, notes)


def _how_numbers_are_read(meaning: Mapping[str, str], counts: Mapping[str, int], order: NumberOrder) -> str:
    doubtful = _is_balanced(_by_emotion(meaning, counts, order).values())
    return f", numbers in {order.name}{', which such counts do not tell from another' if doubtful else ''}"


def _sizes(named: Mapping[str, str], counts: Mapping[str, int]) -> str:
    """Each class with its images and, where they differ, its own labels."""
    rank = {emotion: number for number, emotion in enumerate(EMOTIONS)}
    rank |= {UNLABELLED: len(EMOTIONS) + 1, DROPPED: len(EMOTIONS) + 2}
    parts = []
    for name in sorted(set(named.values()), key=lambda name: (rank.get(name, len(EMOTIONS)), name)):
        own = [label for label, meaning in named.items() if meaning == name]
        images = sum(counts[label] for label in own)
        spelled = [label for label in own if name != UNLABELLED or not has_no_label(label)]
        told = "" if spelled in ([name], []) else f" ({_named(spelled, counts) if len(own) > 1 else own[0]})"
        parts.append(f"{_shown(name)} {images:,}{told}")
    return ", ".join(parts)


def _speak_of_emotions(own_words: Iterable[str]) -> Iterator[str]:
    """Name classes of their own, such as `happy_face`, that may be meant as the emotion they speak of."""
    found = {word: emotions.pop() for word in sorted({*own_words}) if len(emotions := emotions_in(word)) == 1}
    if found:
        word, emotion = next(iter(found.items()))
        yield (
            f"classes of their own that speak of emotions: {', '.join(found)}; if they are these, say so in {_TABLE}, "
            f'such as {_key(word)} = "{emotion}"'
        )


def _unused(settings: DatasetSettings, counts: Mapping[str, int]) -> Iterator[str]:
    """What [dataset.classes] says of labels that are not there, or that another key says exactly."""
    table = settings.classes if isinstance(settings.classes, Mapping) else {}
    open_to_others = {plain_label(label) for label in counts if label not in table}
    absent = [key for key in table if key not in counts and plain_label(key) not in open_to_others]
    if absent:
        yield f"{_TABLE} names {', '.join(absent)}, which no image is labelled"


def _named(labels: Any, counts: Mapping[str, int]) -> str:
    shown = [f"{label} ({counts[label]:,})" for label in list(labels)[:_NAMED]]
    return ", ".join(shown) + (f" and {len(labels) - _NAMED} more" if len(labels) > _NAMED else "")


def _pairs(meaning: Mapping[str, str]) -> str:
    return ", ".join(f"{number} {_shown(name)}" for number, name in meaning.items())


def _shown(name: str) -> str:
    return {DROPPED: "dropped", UNLABELLED: "without a label"}.get(name, name)


def _key(label: str) -> str:
    """A label as TOML has it on the left of an equals sign."""
    return label if label.replace("_", "").replace("-", "").isalnum() and label.isascii() else f'"{label}"'
