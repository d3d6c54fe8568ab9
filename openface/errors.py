"""What keeps OpenFace from running, and is the user's to mend."""


class OpenFaceError(ValueError):
    """OpenFace cannot be run, or does not annotate even a portrait; one line that says what to do."""
