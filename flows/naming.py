"""Names of runs and artifacts in Prefect."""

import re
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

from openface.names import printable

_LONGEST = 200
"""Letters of a run's name; PostgreSQL, which has an index of names, refuses those of some thousands."""


def run_name(parameters: Mapping[str, Any]) -> str:
    """A readable name for a run with these parameters."""
    seeds = parameters.get("seeds")
    name = str(parameters.get("experiment") or "demo")
    told = f" · seeds {', '.join(map(str, seeds))}" if isinstance(seeds, list) and seeds else ""
    return _shortened(printable(name + told))


def experiment_slug(source: str) -> str:
    """An experiment's name, or that of its file, as it begins the keys of its artifacts."""
    return _slug(PurePath(source).stem) or "experiment"


def key_of(*parts: str) -> str:
    """An artifact's key: Prefect has them in small letters, digits and dashes."""
    return "-".join(filter(None, map(_slug, parts)))


def _shortened(name: str) -> str:
    return name if len(name) <= _LONGEST else f"{name[: _LONGEST - 1]}…"


def _slug(text: str) -> str:
    return re.sub("[^a-z0-9]+", "-", text.lower()).strip("-")
