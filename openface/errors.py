"""Errors of OpenFace and its tables that the user can mend."""


class EngineAway(Exception):
    """The container engine does not answer, or broke off; it may be back in a moment."""


class EngineRefused(ValueError):
    """The engine cannot do what it is asked to, and will not on another try; one line that says what to do."""


class OpenFaceError(ValueError):
    """OpenFace cannot be run, or does not annotate even a portrait; one line that says what to do."""


class TableError(ValueError):
    """An AU table that does not fit the images, or holds what no AU can be; one line that says where."""
