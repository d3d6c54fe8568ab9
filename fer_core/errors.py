"""Errors that the user can mend: one line that names the file or key, and what to do.

FerError                 everything below; the command line prints it and exits with 2
├── ExperimentError      an experiment file or a --set that cannot be read
├── DatasetError         a folder, label or image that is not what its layout promises
├── ActionUnitError      an AU table that does not fit the dataset, or holds what no AU can be
├── ArtifactError        a step's input or output that is missing, truncated, or of another kind
├── CheckpointError      weights of another architecture, class order or making
├── DetectorError        a face detector that is not there or cannot be read
├── ExportError          a model that cannot be exported as asked, or a page that cannot be served
├── InputError           an image, a video, a camera or a path that cannot be opened, or an empty argument
├── ServiceError         a service that cannot start as asked, or a setting of it that cannot be read
└── TrainingError        a loss that is not finite, or a device, or distributions, that are not there
"""

from openface.names import printable


class FerError(ValueError):
    """A mistake that the user can mend; its text, one line that can be printed, says where and how."""

    def __str__(self) -> str:
        return printable(super().__str__())


class ExperimentError(FerError):
    """An experiment file or a --set that cannot be read."""


class DatasetError(FerError):
    """A folder, label or image that is not what its layout promises."""


class ActionUnitError(FerError):
    """An AU table that does not fit the dataset, or holds what no AU can be."""


class ArtifactError(FerError):
    """A step's input or output that is missing, truncated, or of another kind."""


class CheckpointError(FerError):
    """Weights of another architecture, class order or making."""


class DetectorError(FerError):
    """A face detector that is not there or cannot be read."""


class ExportError(FerError):
    """A model that cannot be exported as asked, or a page that cannot be served."""


class InputError(FerError):
    """An image, a video, a camera or a path that cannot be opened, or an empty argument."""


class ServiceError(FerError):
    """A service that cannot start as asked, or a setting of it that cannot be read."""


class TrainingError(FerError):
    """A loss that is not finite, or a device, or distributions, that are not there."""
