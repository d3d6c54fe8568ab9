"""Readers of the datasets' layouts, one file each, and the choice among them."""

from collections.abc import Mapping
from pathlib import Path

from fer_core.data.readers import affectnet, fer2013, ferplus, folder, listed, rafdb, sample
from fer_core.data.readers.lists import LIST_ENDINGS
from fer_core.data.readers.source import Source
from fer_core.errors import DatasetError
from fer_core.experiment import DatasetSettings
from fer_core.progress import Reporter

_READERS = {
    "rafdb": rafdb.read,
    "ferplus": ferplus.read,
    "fer2013": fer2013.read,
    "affectnet": affectnet.read,
    "folder": folder.read,
    "csv": listed.read,
}
_FILES = ("csv", "affectnet", "fer2013")
"""Sources that may be one file."""


def open_source(settings: DatasetSettings, folder: Path | None, report: Reporter | None = None) -> Source:
    """Read the layout of `settings.source` in `folder`, what `--data` gives; for some a file will do.

    Raises:
        DatasetError: no folder is given where one is needed, it is not there, it is not of that layout, or a setting is
            of no use to it.
    """
    _refuse_settings(settings)
    if settings.source == "sample":
        return sample.read(settings, report)
    if folder is None:
        raise DatasetError(f"dataset.source = {settings.source!r} needs its images; give their folder with --data")
    if not folder.exists():
        raise DatasetError(f"{folder}: no such folder; give the dataset's own with --data")
    if not folder.is_dir() and not (folder.is_file() and settings.source in _FILES):
        of_list = (
            ", or for a list of images set dataset.source = 'csv'" if folder.suffix.lower() in LIST_ENDINGS else ""
        )
        raise DatasetError(f"{folder}: not a folder; give the one that holds the dataset with --data{of_list}")
    return _READERS[settings.source](settings, folder)


def _refuse_settings(settings: DatasetSettings) -> None:
    """What the user sets is used, or refused."""
    if isinstance(settings.classes, Mapping) and settings.source in ("ferplus", "sample"):
        raise DatasetError(
            f"[dataset.classes] names labels, and dataset.source = {settings.source!r} has none of its own"
        )
    if settings.classes == 8 and settings.source not in ("ferplus", "affectnet"):
        raise DatasetError(
            f"dataset.classes = 8 is for ferplus and affectnet; {settings.source} has the classes that are there"
        )
    if settings.protocol == "ferplus" and settings.source != "ferplus":
        raise DatasetError("dataset.protocol = 'ferplus' is a rule for votes; it needs dataset.source = 'ferplus'")
