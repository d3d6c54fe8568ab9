"""`fer predict`: from sources to a table, and pictures where they are wanted; what cannot be read is counted."""

import itertools
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

from fer_core.predict.predictor import FacePrediction, Predictor
from fer_core.predict.sources import Frame, PictureSource, find_sources, frames_of, passed_over
from fer_core.predict.table import lines, open_table, rows_of
from fer_core.progress import Reporter
from openface.names import printable

_USUAL_RATE = 25.0
_LOWEST_RATE = 0.01
"""Frames a second; no MP4 of fewer can be written."""
_CROP, _CROP_RATIO = 256, 1.5
"""Pixels across, and longer side over shorter, of what datasets and face detectors cut out."""


def predict(
    names: list[str], predictor: Predictor, out: Path | None, pictures: Path | None, every: int, report: Reporter | None
) -> int:
    """Write a row for each face of all sources, and draw them into `pictures`.

    Args:
        out: the table's file; None for CSV on standard output, where then nothing else goes.
        every: of how many frames of a video one is taken.
        report: None where nothing is to be told but the table.

    Returns:
        How many sources could not be read, or not to their end.

    Raises:
        InputError: a name stands for nothing, there is no such camera, or `out` cannot be written.
    """
    sources = find_sources(names, every, drawn=pictures)
    if pictures is not None and pictures.is_dir() and any(pictures.iterdir()):
        print(f"{pictures}: not empty; what is there stays, and a picture of the same name gets -2", file=sys.stderr)
    counts = [source.count for source in sources]
    total = 0 if None in counts else sum(count or 0 for count in counts)
    labels = predictor.facts.labels
    unreadable: list[Frame] = []
    remarks: Counter[str] = Counter()
    crops, crops_without = 0, 0
    done = found = 0
    with open_table(out, labels) if out else lines(sys.stdout, labels) as write:
        for frame, faces in _read(sources, predictor, pictures, every):
            write(rows_of(frame, faces))
            unreadable += [frame] if frame.pixels is None else []
            remarks.update([frame.remark] if frame.remark else [])
            if _could_be_a_face(frame):
                crops, crops_without = crops + 1, crops_without + (not faces)
            done, found = done + 1, found + len(faces)
            if report and total:
                report.progress("read faces", min(done, total), total)
    for frame in unreadable:
        print(printable(f"{frame.source}: {frame.reason}"), file=sys.stderr)
    for remark, images in remarks.items():
        print(f"{images:,} images: {remark}", file=sys.stderr)
    if left := passed_over(names, pictures):
        counted = ", ".join(f"{count:,} {what}" for what, count in left.items())
        print(f"files not read: {counted}", file=sys.stderr)
    if crops_without and predictor.looks_for_faces:
        print(
            f"no face was found in {crops_without:,} of {crops:,} small images; if each is a face already, "
            "give --aligned, and none is looked for",
            file=sys.stderr,
        )
    not_read = f"; {len(unreadable):,} could not be read" if unreadable else ""
    print(f"{found:,} faces in {done - len(unreadable):,} images and frames{not_read}", file=sys.stderr)
    return len(unreadable)


def _could_be_a_face(frame: Frame) -> bool:
    """Tell whether an image is as small and as square as one that a face was cut out as; no frame of a video."""
    if frame.pixels is None or frame.number is not None:
        return False
    shorter, longer = sorted(frame.pixels.shape[:2])
    return bool(shorter <= _CROP and longer <= _CROP_RATIO * shorter)


def _read(
    sources: list[PictureSource], predictor: Predictor, pictures: Path | None, every: int
) -> Iterator[tuple[Frame, list[FacePrediction]]]:
    """Every frame with its faces, drawn on the way; images share batches, a camera's frames wait for nothing."""
    for is_moving, group in itertools.groupby(sources, key=lambda source: source.is_moving):
        for together in [[source] for source in group] if is_moving else [list(group)]:
            frames = (frame for source in together for frame in frames_of(source, every))
            with ExitStack() as stack:
                draw = None
                if pictures is not None:
                    from fer_core.predict.drawing import drawn_into

                    rate = max((together[0].rate or _USUAL_RATE) / every, _LOWEST_RATE)
                    draw = stack.enter_context(drawn_into(pictures, together[0].name, rate, moving=is_moving))
                for frame, faces in predictor.read(frames, at_once=together[0].is_camera):
                    if draw is not None:
                        draw(frame, faces)
                    yield frame, faces
