"""A folder for each class, with or without a folder for each split above, and whatever lies between."""

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import pandas as pd

from fer_core.data.dataset import UNLABELLED
from fer_core.data.readers.classes import DROPPED_INDEX, UNLABELLED_INDEX, Classes, NumberOrder, name_classes
from fer_core.data.readers.names import emotion_of, emotions_in, has_no_label, plain_label, split_of, split_of_folder
from fer_core.data.readers.source import Source, find_images, note_of_frames, read_file, unique_ids, without_ending
from fer_core.errors import DatasetError
from fer_core.experiment import DatasetSettings
from openface.decoding import ENDINGS

_SPLIT_BESIDE = "keep either class folders or train, validation and test"
_LOOKED_FOR = (
    "looked for CLASS/* and train|validation|test/CLASS/* of two classes or more, with "
    f"{', '.join(ENDINGS)} files; where a CSV lists images with path and label, set dataset.source = 'csv'"
)
_IF_PEOPLE = "if they are people, list the images in a CSV with a column subject, so that a cut has each on one side"
_BEGINS = re.compile(r"[^\W_]+?(?=[-_.]|(?<=[a-zA-Z]\d\d)(?=[a-zA-Z]))")
"""The first part of a file's name: `S010` of `S010_004_00000017`, `KA` of `KA.AN1.39`, `AF01` of `AF01ANS`."""
_FIRST_WORD = re.compile(r"[^\W\d_]+")
_FEW = 5
"""So many beginnings may be cameras, or parts of a dataset."""
_NAMED = 3


@dataclass(frozen=True)
class FolderImage:
    """An image, and what the folders above it say."""

    path: Path
    label: str
    """The class folder's name."""
    split: str
    """train, validation, test, or "" where the layout has no splits."""


@dataclass(frozen=True)
class ClassFolders:
    """The images of a layout of class folders."""

    images: list[FolderImage]
    notes: tuple[str, ...]
    """What else is in the folder."""


def read(settings: DatasetSettings, folder: Path) -> Source:
    """Images at CLASS/…/*.jpg, or at train|validation|test/CLASS/…/*.jpg; classes are named after their folders.

    Raises:
        DatasetError: there are no such folders, or no images in them.
    """
    found = read_class_folders(settings, folder)
    ids = [without_ending(image.path.relative_to(folder).as_posix()) for image in found.images]
    return source_of_folders("folder", settings, folder, found, ids)


def source_of_folders(
    name: str,
    settings: DatasetSettings,
    folder: Path,
    found: ClassFolders,
    ids: Sequence[str],
    order: NumberOrder | None = None,
    protocol: str = "All images of a folder of class folders; the label is the folder's name.",
) -> Source:
    """The source of such a layout, whose class folders are named, or numbered in `order`."""
    classes = name_classes([image.label for image in found.images], settings, folder, order)
    if len(classes.labels) < 2:
        raise DatasetError(f"{folder}: {len(found.images)} images in {len(classes.labels)} classes; {_LOOKED_FOR}")
    paths = [image.path for image in found.images]
    records = pd.DataFrame(
        {
            "id": unique_ids(ids, [path.relative_to(folder).as_posix() for path in paths]),
            "label": classes.index,
            "split": [image.split for image in found.images],
        }
    )
    return without_dropped(
        Source(
            name=name,
            labels=classes.labels,
            records=records,
            distributions=None,
            truth="",
            protocol=protocol,
            read_image=lambda row: read_file(paths[row]),
            notes=(*found.notes, *note_of_frames(paths)),
        ),
        classes,
    )


def without_dropped(source: Source, classes: Classes) -> Source:
    """A source of all images without those whose label is dropped; those without a label are a split of their own.

    Raises:
        DatasetError: an image that models are judged on has no label.
    """
    rows = (classes.index[: len(source.records)] != DROPPED_INDEX).nonzero()[0]
    records = source.records.iloc[rows].reset_index(drop=True)
    without = records["label"] == UNLABELLED_INDEX
    judged = records.loc[without & ~records["split"].isin(("", "train")), ["id", "split"]]
    if len(judged):
        raise DatasetError(
            f"{judged['id'].iloc[0]}: in the {judged['split'].iloc[0]} split but without a label, one of "
            f"{len(judged):,} such images; only training images may be unlabelled"
        )
    records.loc[without, ["label", "split"]] = UNLABELLED, "unlabelled"
    return replace(
        source,
        records=records,
        distributions=None if source.distributions is None else source.distributions[rows],
        read_image=lambda row: source.read_image(int(rows[row])),
        dropped={**source.dropped, **classes.dropped},
        notes=(*classes.notes, *source.notes),
    )


def read_class_folders(settings: DatasetSettings, folder: Path) -> ClassFolders:
    """Every image's class and split by the folders above it.

    A folder named like a split is one, above the class or below it. The class is the folder named like an emotion, a
    number or as [dataset.classes] says; where none is, the uppermost that is no split and that not all images share.

    Raises:
        DatasetError: there are no images, or a folder may be a class or a split.
    """
    found = find_images(folder)
    above = [path.relative_to(folder).parts[:-1] for path in found.paths]
    root = _first_that_differs(above)
    split_of_parts = {parts: _split(parts, parts[root:], root, folder) for parts in set(above)}
    if not any(split_of_parts.values()):  # Else what holds all images may be called `training_data` all the same.
        split_of_parts = {parts: _split(parts, parts[:root], root, folder) for parts in set(above)}
    splits = [split_of_parts[parts] for parts in above]
    without_split = {parts: tuple(p for p in parts if not _split_among(parts, p, root)) for parts in set(above)}
    names = [without_split[parts] for parts in above]
    unlabelled = _unlabelled(settings)
    _check_splits(folder, root, *_with_a_label(above, splits, names, unlabelled))
    labels = _labels(names, [path.stem for path in found.paths], settings, folder)
    images = [
        FolderImage(path, label, split) for path, label, split in zip(found.paths, labels, splits, strict=True) if label
    ]
    outside = len(found.paths) - len(images)
    if not images:
        raise DatasetError(
            "; ".join(
                (
                    f"{folder}: {len(found.paths)} images in 0 class folders; {_LOOKED_FOR}",
                    *found.note(),
                )
            )
        )
    note = (f"images in no class folder, not read: {outside:,}",) if outside else ()
    alike = names_alike((image.path.stem for image in images), (image.label for image in images))
    people = () if {"validation", "test"} <= {*splits} else (*_maybe_people(names, labels), *alike)
    of_files = () if any(splits) else tuple(splits_in_files(image.path.stem for image in images))
    if of_files and not isinstance(settings.classes, Mapping) and not any(map(emotion_of, labels)):
        # RAF-DB's own folders are `aligned` and `original`.
        told = f"{of_files[0]}, or say what the folders mean in [dataset.classes]"
        raise DatasetError(f"{folder}: no folder is called after an emotion, and {told}")
    return ClassFolders(images, (*_folders_above(names, labels), *of_files, *people, *note, *found.note()))


def _folders_above(names: Sequence[tuple[str, ...]], labels: Sequence[str]) -> Iterator[str]:
    """Name the folders above the classes that are no splits, where there are several."""
    above = {parts[: parts.index(label)] for parts, label in zip(names, labels, strict=True) if label}
    if len(above) > 1:
        yield f"folders above the classes that are no splits: {_first_of(above)}"


def _maybe_people(names: Sequence[tuple[str, ...]], labels: Sequence[str]) -> Iterator[str]:
    """Name the folders that are in several classes, or hold several."""
    rows = [(parts, label) for parts, label in zip(names, labels, strict=True) if label]
    beside = (parts[: parts.index(label)] + parts[parts.index(label) + 1 :] for parts, label in rows)
    known = any(emotion_of(label) for _, label in rows)
    for told in folders_of_several(beside, [label for _, label in rows]):
        yield told if known else f"{told}; if they are the classes, name each in [dataset.classes]"


def folders_of_several(places: Iterable[tuple[str, ...]], labels: Iterable[str]) -> Iterator[str]:
    """Name the folders that several classes have; people's are, and a cut does not know them.

    Args:
        places: of each image the folders above it that are neither its class nor its split.
    """
    classes_of = defaultdict[tuple[str, ...], set[str]](set)
    for place, label in zip(places, labels, strict=True):
        classes_of[place].add(label)
    of_several = [parts for parts, classes in classes_of.items() if parts and len(classes) > 1]
    if len(of_several) > 1:
        yield f"folders that several classes have: {_first_of(of_several)}; {_IF_PEOPLE}"


def names_alike(stems: Iterable[str], labels: Iterable[str]) -> Iterator[str]:
    """Name how file names begin that several classes have, such as CK+'s `S010_…`; people's do."""
    classes_of = defaultdict[str, Counter[str]](Counter)
    for stem, label in zip(stems, labels, strict=True):
        begins = _BEGINS.match(stem)
        classes_of[begins[0] if begins else ""][label] += 1
    several = {begins: classes for begins, classes in classes_of.items() if begins and len(classes) > 1}
    share = sum(map(Counter.total, several.values())) / max(1, sum(map(Counter.total, classes_of.values())))
    if len(several) > _FEW and share > 1 / 2:
        yield f"file names of several classes begin alike: {_first_of((begins,) for begins in several)}; {_IF_PEOPLE}"


def splits_in_files(stems: Iterable[str]) -> Iterator[str]:
    """Say that most files are called after splits, such as FER2013's `PrivateTest_12`, which do not count."""
    meaning = cache(split_of)
    first = [(_FIRST_WORD.match(stem), stem) for stem in stems]
    found = [(split, stem) for word, stem in first if word and (split := meaning(word[0]))]
    counts = Counter(split for split, _ in found)
    if len(counts) > 1 and 2 * len(found) > len(first):
        told = ", ".join(f"{split} {count:,}" for split, count in counts.most_common())
        yield (
            f"names of files speak of splits, which do not count: {told}, such as {found[0][1]}; put the images into "
            "folders called train and test, or list them in a CSV with path, label and split"
        )


def _first_of(folders: Iterable[tuple[str, ...]]) -> str:
    told = sorted("/".join(parts) for parts in folders if parts)
    return ", ".join(told[:_NAMED]) + (f" and {len(told) - _NAMED:,} more" if len(told) > _NAMED else "")


def _split_among(parts: tuple[str, ...], part: str, root: int) -> str | None:
    """The split that one of the folders above an image means; only the uppermost may have more in its name, and so may
    the uppermost below `root` folders that hold all images."""
    return split_of_folder(part) if part in (parts[0], *parts[root : root + 1]) else split_of(part)


def _split(parts: tuple[str, ...], among: tuple[str, ...], root: int, folder: Path) -> str:
    """The split that `among`, some of the folders above an image, say; "" where they say none."""
    found = {split for part in among if (split := _split_among(parts, part, root))}
    if len(found) > 1:
        raise DatasetError(f"{folder / Path(*parts)}: its folders name two splits; have each image below just one")
    return found.pop() if found else ""


def _unlabelled(settings: DatasetSettings) -> Callable[[str], bool]:
    """Tell of a folder whether it holds images without a label: by its name, or by what [dataset.classes] says."""
    table = settings.classes if isinstance(settings.classes, Mapping) else {}
    named = {plain_label(label) for label, meaning in table.items() if has_no_label(meaning)}
    return lambda part: has_no_label(part) or plain_label(part) in named


def _with_a_label(
    above: Sequence[tuple[str, ...]],
    splits: Sequence[str],
    names: Sequence[tuple[str, ...]],
    unlabelled: Callable[[str], bool],
) -> tuple[list[tuple[str, ...]], list[str], list[tuple[str, ...]]]:
    """The same without the images of a folder `unlabelled`, which may stand beside classes and splits alike."""
    rows = [row for row in zip(above, splits, names, strict=True) if not any(map(unlabelled, row[2]))]
    return [row[0] for row in rows], [row[1] for row in rows], [row[2] for row in rows]


def _check_splits(
    folder: Path, root: int, above: Sequence[tuple[str, ...]], splits: Sequence[str], names: Sequence[tuple[str, ...]]
) -> None:
    """Either all images have a split or none; and below each there are classes."""
    beside = next((parts for parts, split in zip(above, splits, strict=True) if parts and not split), None)
    of_split = next((parts for parts, split in zip(above, splits, strict=True) if split), None)
    if beside and of_split:
        one, other = ("/".join(parts[: root + 1]) for parts in (beside, of_split))
        raise DatasetError(
            f"{folder}: the folder {one} is beside {other}, so it may be a class or a split; {_SPLIT_BESIDE}"
        )
    inside = {rest for rest in names if rest}
    top = min(inside, key=len, default=())  # Such as `data`, which holds all others and is no class.
    holds_all = len(inside) > 1 and all(rest[: len(top)] == top for rest in inside)
    outside = ((), top) if holds_all else ((),)
    bare = Counter(parts for parts, split, rest in zip(above, splits, names, strict=True) if split and rest in outside)
    if bare:
        parts, count = bare.most_common(1)[0]
        place = folder / Path(*parts)
        generated = any((folder / Path(*other) / "label.csv").is_file() for other in bare)
        ferplus = ", or set dataset.source = 'ferplus', whose layout this is" if generated else ""
        raise DatasetError(
            f"{place}: a split's folder with {count:,} images outside of class folders; put each into a folder named "
            f"after its class, list them in a CSV with path,label,split, or take them out{ferplus}"
        )


def _labels(
    names: Sequence[tuple[str, ...]], stems: Sequence[str], settings: DatasetSettings, folder: Path
) -> list[str]:
    """Each image's class folder; "" where it is in none."""
    named = set(map(plain_label, settings.classes)) if isinstance(settings.classes, Mapping) else set()
    unlabelled = _unlabelled(settings)
    depths: Counter[int] = Counter()
    for parts in names:
        known = [depth for depth, part in enumerate(parts) if emotion_of(part) or plain_label(part) in named]
        if any(map(unlabelled, parts)):
            continue
        if len({emotion_of(parts[depth]) or plain_label(parts[depth]) for depth in known}) > 1:
            raise DatasetError(
                f"{folder}: {'/'.join(parts)} names more than one class; have each image below just one of them"
            )
        depths.update(known[:1])
    usual = depths.most_common(1)[0][0] if depths else _first_that_differs(names)
    if not depths:
        _refuse_emotions_below(names, usual, folder)
        if not named:
            _refuse_emotions_in_files(names, stems, usual, folder)
    labels = []
    for parts in names:
        own = next((part for part in parts if unlabelled(part)), None)
        own = own or next((part for part in parts if emotion_of(part) or plain_label(part) in named), None)
        labels.append(own or (parts[min(usual, len(parts) - 1)] if parts else ""))
    return labels


def _refuse_emotions_below(names: Sequence[tuple[str, ...]], depth: int, folder: Path) -> None:
    """Refuse folders at `depth` as classes where those below them speak of emotions; they may be people's."""
    emotions_of = {part: emotions_in(part) for parts in names for part in parts[depth + 1 :]}
    if len({emotion for emotions in emotions_of.values() for emotion in emotions}) > 1:
        below = next(part for part, emotions in emotions_of.items() if emotions)
        raise DatasetError(
            f"{folder}: no folder is called after an emotion alone, but some speak of one, such as {below}; call them "
            "after it, or say what they mean in [dataset.classes]"
        )


def _refuse_emotions_in_files(names: Sequence[tuple[str, ...]], stems: Sequence[str], depth: int, folder: Path) -> None:
    """Refuse folders at `depth` as classes where most files name an emotion, and those of one folder several."""
    said = [(parts, stem, emotions_in(stem)) for parts, stem in zip(names, stems, strict=True) if parts]
    of_folder = defaultdict[str, set[str]](set)
    clear = [(parts, stem, emotions) for parts, stem, emotions in said if len(emotions) == 1]
    for parts, _, emotions in clear:
        of_folder[parts[min(depth, len(parts) - 1)]] |= emotions
    if 2 * len(clear) > len(said) and any(len(emotions) > 1 for emotions in of_folder.values()):
        parts, stem, _ = clear[0]
        raise DatasetError(
            f"{folder}: no folder is called after an emotion, but names of files speak of them, such as "
            f"{'/'.join((*parts, stem))}; put the images into folders called after their emotions, list them in a CSV "
            "with path and label, or say what the folders mean in [dataset.classes]"
        )


def _first_that_differs(names: Sequence[tuple[str, ...]]) -> int:
    """The depth of the uppermost folder that not all images are in."""
    inside = [parts for parts in names if parts]
    depth = 0
    while inside and all(len(parts) > depth + 1 for parts in inside) and len({parts[depth] for parts in inside}) == 1:
        depth += 1
    return depth
