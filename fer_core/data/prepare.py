"""Decode a dataset once into the contract of `fer_core.data.dataset`: images, splits, labels and distributions."""

import hashlib
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pandas as pd
from PIL import Image

from fer_core.data.crops import cut_out, middle_square
from fer_core.data.dataset import BOX, PHOTOGRAPH, UNLABELLED, DatasetCard, save_dataset
from fer_core.data.readers import open_source
from fer_core.data.readers.source import Source
from fer_core.data.readers.splits import complete_splits, draw_stratified, is_repeated, of_judged_people
from fer_core.errors import DatasetError
from fer_core.experiment import DatasetSettings
from fer_core.progress import Reporter, counted
from openface.decoding import UnreadableImage, open_image, remark_of
from openface.names import printable

OPENFACE_TABLE = "openface.parquet"
"""AU rows that came with the images; the annotate step imports them."""

_THREADS = 4
_AT_A_TIME = 32
_NAMED = 3
_AT_TIMES = ("published", "person", PHOTOGRAPH, *BOX)
"""Columns that only some sources have."""


@dataclass(frozen=True)
class _Decoded:
    """One image ready to be stored, or the reason why it cannot be."""

    pixels: np.ndarray
    """(S, S, C) uint8; black where the image cannot be decoded."""
    sha256: str = ""
    reason: str = ""
    remark: str = ""
    """What the decoder assumed because the file does not say it."""


def prepare(settings: DatasetSettings, folder: Path | None, out: Path, report: Reporter) -> None:
    """Write manifest.parquet, images.npy and dataset.json into `out`; openface.parquet where AU rows came.

    A dataset of test images alone is prepared too: a checkpoint can be judged on it, and nothing trained.

    Raises:
        DatasetError: the layout is not the dataset's, too many images cannot be decoded, a class has no training image,
            a split has none, or label noise is asked for where distributions are learnt from.
    """
    source = open_source(settings, folder, report)
    for note in source.notes:
        report.note(note)
    _check_any_images(source)
    if settings.label_noise and settings.labels == "distribution":
        raise DatasetError('dataset.label_noise spoils hard labels; set dataset.labels = "majority" with it')
    decoded_path = out / "decoded.npy"
    sha256, unreadable = _decode_images(source, settings, decoded_path, report)
    _check_readable(unreadable, len(sha256), settings)
    _note_unreadable(unreadable, len(sha256), report)
    manifest, dropped = _make_manifest(source, sha256, settings)
    _note_contradictions(manifest, source.labels, report)
    _note_persons(manifest, report)
    _note_labelled(manifest, settings.labelled, report)
    train = np.flatnonzero(manifest["split"] == "train")
    if len(train) or not _sizes(manifest)["test"]:
        _check_every_class_trains(source, manifest)
        _check_every_split(source, _sizes(manifest), settings)
    _note_absent(manifest, source.labels, report)
    images = _write_kept(decoded_path, out / "images.npy", manifest.index.to_numpy(), report)
    mean, std = _channel_statistics(images, train if len(train) else np.arange(len(images)))
    counts = {
        "read": len(sha256),
        "unreadable": len(unreadable),
        **source.dropped,
        **dropped,
        **_sizes(manifest),
    }
    card = DatasetCard(
        source=source.name,
        labels=source.labels,
        protocol=source.protocol + (_in_words(settings.label_noise) if len(train) else ""),
        truth=source.truth,
        mean=mean,
        std=std,
        counts=counts,
        notes=tuple(map(printable, source.notes)),
        unreadable={str(source.records["id"][row]): printable(reason) for row, reason in unreadable.items()},
    )
    _note_counts(counts, report)
    if source.au_rows is not None:
        _save_au_rows(source.au_rows, manifest["id"], out / OPENFACE_TABLE)
    save_dataset(out, card, manifest)


def _in_words(label_noise: float) -> str:
    return f" {label_noise:.0%} of the training labels were replaced by another class." if label_noise else ""


def _note_contradictions(manifest: pd.DataFrame, labels: tuple[str, ...], report: Reporter) -> None:
    """Tell how many pictures are there more than once, with different labels."""
    labelled = manifest[manifest["label"] != UNLABELLED]
    several = labelled.groupby("sha256")["label"].nunique().loc[lambda count: count > 1]
    if len(several):
        first = labelled[labelled["sha256"] == several.index[0]].drop_duplicates("label").iloc[:2]
        told = " and ".join(f"{row.id} ({labels[row.label]})" for row in first.itertuples())
        report.note(f"pictures with more than one label, all of which are learnt: {len(several):,}, such as {told}")


def _note_persons(manifest: pd.DataFrame, report: Reporter) -> None:
    """Tell how many people of the test images are trained on too; figures of these say less of people who are new."""
    if "person" not in manifest:
        return
    known = manifest[manifest["person"] != ""]
    tested = set(known.loc[known["split"] == "test", "person"])
    trained = set(known.loc[known["split"].isin(("train", "unlabelled")), "person"])
    if both := len(tested & trained):
        report.note(
            f"people of test images who are trained on too: {both:,} of {len(tested):,}; figures of them say little of "
            "people who are new"
        )


def _note_absent(manifest: pd.DataFrame, labels: tuple[str, ...], report: Reporter) -> None:
    """Tell of which classes a split has no image, as where one person alone showed them, or one image is all."""
    for split in ("validation", "test"):
        there = set(manifest.loc[manifest["split"] == split, "label"])
        absent = [name for index, name in enumerate(labels) if index not in there]
        if there and absent:
            report.note(f"classes without a {split} image, of which no figure tells: {', '.join(absent)}")


def _note_labelled(manifest: pd.DataFrame, wanted: int, report: Reporter) -> None:
    """Tell where more or fewer labels stay than were asked for: all of them, or one of each class."""
    there = _sizes(manifest)["train"]
    if wanted and there != wanted:
        report.note(f"dataset.labelled = {wanted:,}, but {there:,} training images keep their label")


def _check_any_images(source: Source) -> None:
    if source.records.empty:
        raise DatasetError(f"{source.name}: no images to read; give a folder that holds some with --data")


def _decode_images(
    source: Source, settings: DatasetSettings, path: Path, report: Reporter
) -> tuple[np.ndarray, dict[int, str]]:
    """Store every image; returns (N,) sha256, "" if unreadable, and the reason for each unreadable row."""
    count = len(source.records)
    sha256: list[str] = []
    unreadable: dict[int, str] = {}
    remarks: Counter[str] = Counter()
    decoded = _decode_in_order(lambda row: _decode_one(source, row, settings), count)
    with path.open("wb") as file:
        _write_header(file, (count, *_shape(settings)))
        for image in counted(decoded, "decode images", count, report):
            file.write(image.pixels.tobytes())
            if image.reason:
                unreadable[len(sha256)] = image.reason
            sha256.append(image.sha256)
            remarks.update([image.remark] if image.remark else [])
    _note_remarks(remarks, count, report)
    return np.array(sha256, dtype=object), unreadable


def _shape(settings: DatasetSettings) -> tuple[int, int, int]:
    return settings.image_size, settings.image_size, 3 if settings.colour else 1


def _write_header(file: BinaryIO, shape: tuple[int, ...]) -> None:
    """Begin an array file. Rows are appended by write: a memory map dies of a full disk without a message."""
    np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})


def _decode_in_order(decode: Callable[[int], _Decoded], count: int) -> Iterator[_Decoded]:
    """Decode in parallel, at most a few dozen images ahead."""
    with warnings.catch_warnings(), ThreadPoolExecutor(_THREADS) as pool:
        warnings.filterwarnings("ignore", module=r"PIL\.")
        for start in range(0, count, _AT_A_TIME):
            yield from pool.map(decode, range(start, min(start + _AT_A_TIME, count)))


def _decode_one(source: Source, row: int, settings: DatasetSettings) -> _Decoded:
    try:
        image = open_image(source.read_image(row))
    except UnreadableImage as unreadable:
        return _Decoded(np.zeros(_shape(settings), np.uint8), reason=str(unreadable))
    return _Decoded(_to_pixels(image, settings), _content_hash(image), remark=remark_of(image))


def _content_hash(image: Image.Image) -> str:
    """Hash the colours alone: a grey picture is the same whether its file calls it grey or RGB."""
    digest = hashlib.sha256(f"RGB {image.width} {image.height} ".encode())
    digest.update(image.convert("RGB").tobytes())
    return digest.hexdigest()


def _to_pixels(image: Image.Image, settings: DatasetSettings) -> np.ndarray:
    """(S, S, C) uint8: the middle square, see `fer_core.data.crops`."""
    pixels = np.asarray(image.convert("RGB"))
    stored = cut_out(pixels, middle_square(pixels), settings.image_size, grey=not settings.colour)
    return stored[..., : _shape(settings)[2]]


def _check_readable(unreadable: Mapping[int, str], count: int, settings: DatasetSettings) -> None:
    if len(unreadable) > settings.max_unreadable * count:
        raise DatasetError(
            f"{next(iter(unreadable.values()))}; {len(unreadable)} of {count} images cannot be decoded, more than "
            f"dataset.max_unreadable = {settings.max_unreadable:g} allows; mend the files or raise that share"
        )


def _make_manifest(
    source: Source, sha256: np.ndarray, settings: DatasetSettings
) -> tuple[pd.DataFrame, dict[str, int]]:
    """Choose the images that stay, indexed by source row, and count those dropped by reason."""
    columns = ["id", "sha256", "split", "label", *(name for name in _AT_TIMES if name in source.records)]
    frame = source.records.assign(sha256=sha256)
    frame = frame.loc[sha256 != "", columns].astype({"id": str, "sha256": str})
    shares = settings.validation_share, settings.test_share
    split = complete_splits(frame, *shares, settings.split_seed)
    of_judged = of_judged_people(frame, split)
    frame = frame.assign(split=split)[~of_judged]
    repeated = is_repeated(frame["sha256"], frame["split"])
    kept = frame[~repeated] if settings.duplicates == "drop" else frame
    limited = _limit_train(kept, settings.limit, settings.split_seed)
    duplicates = "duplicates dropped" if settings.duplicates == "drop" else "duplicates kept"
    dropped = {duplicates: int(repeated.sum()), "beyond the limit": len(kept) - len(limited)}
    if of_judged.any():
        dropped["unlabelled of people who are judged on"] = int(of_judged.sum())
    labelled = _hide_labels(_with_crowd(limited, source), settings.labelled, settings.split_seed)
    return _spoil_labels(labelled, settings.label_noise, len(source.labels), settings.split_seed), dropped


def _limit_train(manifest: pd.DataFrame, limit: int, seed: int) -> pd.DataFrame:
    train = manifest[manifest["split"] == "train"]
    if not limit or len(train) <= limit:
        return manifest
    drawn = train.index[draw_stratified(train["sha256"], train["label"], limit, seed)]
    return manifest[(manifest["split"] != "train") | manifest.index.isin(drawn)]


def _hide_labels(manifest: pd.DataFrame, labelled: int, seed: int) -> pd.DataFrame:
    """Take the labels from all training images but a stratified draw; 0 takes none. No unlabelled image has a crowd."""
    train, manifest = manifest[manifest["split"] == "train"], manifest.copy()
    if labelled and labelled < len(train):
        drawn = train.index[draw_stratified(train["sha256"], train["label"], labelled, seed)]
        manifest.loc[train.index.difference(drawn), ["split", "label"]] = "unlabelled", UNLABELLED
    crowd = [name for name in manifest if str(name).startswith("crowd_")]
    manifest.loc[manifest["split"] == "unlabelled", crowd] = np.nan
    return manifest


def _spoil_labels(manifest: pd.DataFrame, share: float, classes: int, seed: int) -> pd.DataFrame:
    """Give this share of the training images another class, each as likely; a larger share only adds to them.

    Drawn from the seed and each image alone. A crowd's distribution, the truth, stays.
    """
    if not share:
        return manifest
    train = manifest.index[manifest["split"] == "train"]
    first, second = _two_draws(manifest.loc[train, "sha256"], seed)
    spoiled = first < share
    # One of the other classes: 1 to classes − 1 further, around the end.
    further = 1 + (second * (classes - 1)).astype(np.int64)
    labels = manifest.loc[train, "label"].to_numpy(np.int64)
    manifest.loc[train, "label"] = np.where(spoiled, (labels + further) % classes, labels)
    return manifest


def _two_draws(sha256: pd.Series, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """(N,) uniform in 0..1 each, from the seed and each image alone."""
    digests = [hashlib.sha256(f"noise {seed}:{digest}".encode()).digest()[:8] for digest in sha256]
    drawn = np.frombuffer(b"".join(digests), "<u4").reshape(-1, 2) / 2.0**32
    return drawn[:, 0], drawn[:, 1]


def _with_crowd(manifest: pd.DataFrame, source: Source) -> pd.DataFrame:
    if source.distributions is None:
        return manifest
    columns = [f"crowd_{label}" for label in source.labels]
    crowd = pd.DataFrame(source.distributions[manifest.index], index=manifest.index, columns=columns)
    return pd.concat([manifest, crowd.astype(np.float32)], axis=1)


def _check_every_class_trains(source: Source, manifest: pd.DataFrame) -> None:
    present = set(manifest.loc[manifest["split"] == "train", "label"])
    missing = [name for index, name in enumerate(source.labels) if index not in present]
    if missing:
        remedy = "raise dataset.count" if source.name == "sample" else "add some, or leave the class out of the dataset"
        raise DatasetError(f"{source.name}: no training image of class {', '.join(missing)}; {remedy}")


def _check_every_split(source: Source, counts: dict[str, int], settings: DatasetSettings) -> None:
    shares = {"validation": settings.validation_share, "test": settings.test_share}
    for split, share in shares.items():
        if not counts[split]:
            if its_own := int((source.records["split"] == split).sum()):
                raise DatasetError(
                    f"{source.name}: no {split} images; its {its_own:,} are copies of training images or cannot be "
                    "decoded; give other ones, or keep copies with dataset.duplicates = 'keep'"
                )
            too_few = (
                "or label more: to be cut for validation and test a class has to have three labelled images, and where "
                "people are known, the dataset three people"
            )
            cut = f"or set dataset.{split}_share to cut more of them from train"
            raise DatasetError(f"{source.name}: no {split} images; add some, {too_few if share else cut}")


def _write_kept(decoded_path: Path, path: Path, rows: np.ndarray, report: Reporter) -> np.ndarray:
    """Keep the chosen rows in `path`, returned memory-mapped, and delete the rest."""
    decoded = np.load(decoded_path, mmap_mode="r")
    if len(rows) == len(decoded):
        decoded_path.rename(path)
    else:
        with path.open("wb") as file:
            _write_header(file, (len(rows), *decoded.shape[1:]))
            for start in range(0, len(rows), _AT_A_TIME):
                file.write(decoded[rows[start : start + _AT_A_TIME]].tobytes())
                report.progress("write images", min(start + _AT_A_TIME, len(rows)), len(rows))
        decoded_path.unlink()
    return np.asanyarray(np.load(path, mmap_mode="r"))


def _channel_statistics(images: np.ndarray, rows: np.ndarray) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation by channel of the rows' pixels in 0..1, from exact sums."""
    total = np.zeros(images.shape[-1], np.uint64)
    squares = np.zeros(images.shape[-1], np.uint64)
    for start in range(0, len(rows), _AT_A_TIME):
        part = images[rows[start : start + _AT_A_TIME]]
        total += part.sum(axis=(0, 1, 2), dtype=np.uint64)
        squares += np.square(part, dtype=np.uint32).sum(axis=(0, 1, 2), dtype=np.uint64)
    count = len(rows) * images.shape[1] * images.shape[2]
    mean = total / count
    std = np.sqrt(np.maximum(squares / count - mean**2, 0))
    return tuple((mean / 255).tolist()), tuple((std / 255).tolist())


def _sizes(manifest: pd.DataFrame) -> dict[str, int]:
    counts = {name: int((manifest["split"] == name).sum()) for name in ("train", "validation", "test", "unlabelled")}
    return counts if counts["unlabelled"] else {name: n for name, n in counts.items() if name != "unlabelled"}


def _note_unreadable(unreadable: Mapping[int, str], count: int, report: Reporter) -> None:
    reasons = list(unreadable.values())
    if reasons:
        more = f" and {len(reasons) - _NAMED} more" if len(reasons) > _NAMED else ""
        report.note(f"{len(reasons)} of {count} images skipped: {'; '.join(reasons[:_NAMED])}{more}")


def _note_remarks(remarks: Counter[str], count: int, report: Reporter) -> None:
    """Assumptions made about images whose files do not say, the most frequent first."""
    named = remarks.most_common(_NAMED)
    for remark, images in named:
        report.note(f"{images} of {count} images: {remark}")
    if rest := remarks.total() - sum(images for _, images in named):
        report.note(f"{rest} of {count} images: {len(remarks) - len(named)} other remarks of this kind")


def _note_counts(counts: dict[str, int], report: Reporter) -> None:
    report.note(", ".join(f"{name} {count:,}" for name, count in counts.items()))


def _save_au_rows(au_rows: pd.DataFrame, ids: pd.Series, path: Path) -> None:
    """AU rows of the images that stayed; `ids` is indexed by source row."""
    stayed = au_rows[au_rows["index"].isin(ids.index)]
    named = stayed.drop(columns="index")
    named.insert(0, "id", ids.loc[stayed["index"]].to_numpy())
    named.to_parquet(path, index=False)
