"""Figures that a run of the tests shows in its summary, also when all is well."""

MEASURED: list[str] = []


def tell_measured(figure: str) -> None:
    """Remember a figure for the summary."""
    MEASURED.append(figure)
