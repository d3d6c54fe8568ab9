"""Annotate a folder of photographs at their own size, into a table that `--aus` takes."""

import shutil
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from glob import escape
from pathlib import Path
from typing import TYPE_CHECKING

from fer_core.artifacts import UNFINISHED, fingerprint, held, replace_file
from fer_core.contents import contents_of
from fer_core.errors import ActionUnitError
from fer_core.paths import whole_path
from fer_core.progress import Reporter
from fer_core.steps import program_settings
from fer_core.steps.run import annotate_images, openface_build
from openface.settings import OpenFaceSettings

if TYPE_CHECKING:
    from openface.annotation import Finding
    from openface.views import ImageFiles

_VERSION = 3
"""Goes up when the same photograph may come to another row."""


def annotate_photographs(photographs: Path, out: Path, settings: OpenFaceSettings, report: Reporter) -> None:
    """Write one row for each image below a folder; those that `out` knows already are not shown to OpenFace again.

    Raises:
        ActionUnitError: there are no images, OpenFace cannot be run, no table can be there, or another process is
            making it.
    """
    from openface.earlier import digests_of

    out = whole_path(out)
    if out.is_dir():
        raise ActionUnitError(f"{out}: is a folder; name a file")
    images = _images_below(photographs)
    way = fingerprint("openface", _VERSION, program_settings(settings) | {"build": openface_build(settings)}, {}, {})
    images = replace(images, sha256=contents_of(images.folder, images.paths, report.progress))
    digests = digests_of(images.sha256, way)
    # Findings go by number, so those of other images are taken over, each under its number here.
    work = out.with_name(f"{out.name}.{fingerprint('openface', _VERSION, {}, {}, {'images': ' '.join(digests)})}")
    with _working_alone(work, out) as others:
        if images.left:
            counts = ", ".join(f"{count:,} {what}" for what, count in images.left.items())
            report.note(f"files that are no images, and get no row: {counts}")
        known = _settled_before(out, others, digests)
        table = annotate_images(images, settings, work, report, digests, known)
        replace_file(out, table.to_parquet(index=False))
        for folder in (work, *others):
            shutil.rmtree(folder)


def _images_below(photographs: Path) -> "ImageFiles":
    from openface.views import images_below

    if not photographs.is_dir():
        raise ActionUnitError(f"{photographs}: no such folder; give one that holds images")
    try:
        images = images_below(photographs)
    except OSError as error:
        raise ActionUnitError(f"{error.filename}: {error.strerror}; allow this user to read it") from error
    if not images.ids:
        raise ActionUnitError(f"{photographs}: no images in it; give a folder that holds some")
    return images


def _works_on(out: Path) -> list[Path]:
    """Folders of annotations into this table that broke off."""
    found = out.parent.glob(f"{escape(out.name)}.{'[0-9a-f]' * 16}")
    return sorted(path for path in found if path.is_dir() and not path.is_symlink())


def _settled_before(out: Path, works: Sequence[Path], digests: Sequence[str]) -> "dict[int, Finding]":
    from openface.earlier import Earlier

    earlier = Earlier(digests)
    earlier.read_table(out)
    for work in works:
        with suppress(OSError):
            earlier.read_work(work)
    return earlier.known


@contextmanager
def _working_alone(work: Path, out: Path) -> Iterator[list[Path]]:
    """Hold a working folder, and those of other images, which are told."""
    with ExitStack() as alone:
        alone.enter_context(_held(work, out))
        # Not before, so that of two that begin at once one at least sees the other's.
        others = [other for other in _works_on(out) if other != work]
        try:
            for other in others:
                alone.enter_context(_held(other, out))
        except ActionUnitError:
            if list(work.iterdir()) == [work / UNFINISHED]:
                shutil.rmtree(work)
            raise
        yield others


@contextmanager
def _held(work: Path, out: Path) -> Iterator[None]:
    with ExitStack() as alone:
        try:
            alone.enter_context(held(work, wait=False))
        except BlockingIOError as other:
            raise ActionUnitError(f"{out}: another `fer openface` is making it; wait for it, or end it") from other
        yield
