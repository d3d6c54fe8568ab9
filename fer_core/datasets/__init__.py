"""Readers of the datasets' layouts, one file each, and the choice among them."""

from pathlib import Path

from fer_core.datasets import ferplus, folder, listed, rafdb, sample
from fer_core.datasets.source import Source
from fer_core.errors import DatasetError
from fer_core.experiment import DatasetSettings
from fer_core.progress import Reporter

_READERS = {"rafdb": rafdb.read, "ferplus": ferplus.read, "folder": folder.read, "csv": listed.read}


def open_source(settings: DatasetSettings, folder: Path | None, report: Reporter | None = None) -> Source:
    """Read the layout of `settings.source` in `folder`, what `--data` gives; for `csv` a file will do.

    Raises:
        DatasetError: no folder is given where one is needed, it is not there, or it is not of that layout.
    """
    if settings.source == "sample":
        return sample.read(settings, report)
    if folder is None:
        raise DatasetError(f"dataset.source = {settings.source!r} needs its images; give their folder with --data")
    if not folder.exists():
        raise DatasetError(f"{folder}: no such folder; give the dataset's own with --data")
    if not folder.is_dir() and settings.source != "csv":
        raise DatasetError(f"{folder}: not a folder; give the one that holds the dataset with --data")
    return _READERS[settings.source](settings, folder)
