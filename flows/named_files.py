"""Files of the user's that an experiment names, weights and vectors, by what they hold, on every machine."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from fer_core.contents import content_of
from fer_core.errors import ExperimentError
from fer_core.experiment import Experiment
from fer_core.paths import at_home
from fer_core.steps import NAMED_FILES
from flows.store import FILES, Store


def push_named_files(store: Store, experiment: Experiment, reads: Iterable[Path]) -> dict[str, str]:
    """See that the files which a step reads are in the store.

    Returns:
        SHA-256 by the setting's key, such as `ldg.weights`; "" for a file that the experiment names and the step does
        not read, since it lies on this machine alone.
    """
    read, named = set(reads), {}
    for key, path in _named(experiment):
        if path in read:
            named[key] = content_of(path)
            store.push_file(path, named[key])
        elif path.is_file():
            named[key] = ""
    return named


def settings_of_fetched(store: Store, named: Mapping[str, str], artifacts: Path) -> tuple[str, ...]:
    """Fetch what a sent step reads, and name it where it is on this machine.

    Raises:
        ExperimentError: a key is none of a setting that names a file.
        StoreAway, StoreError: it is not there, or not what it should be.
        DiskFull: this machine has no room for it.
    """
    if unknown := sorted(set(named) - {f"{section}.{key}" for section, key in NAMED_FILES.items()}):
        raise ExperimentError(f"{unknown[0]}: no setting that names a file")
    found = {key: store.fetch_file(sha256, artifacts / f".{FILES}") if sha256 else "" for key, sha256 in named.items()}
    return tuple(f'{key}="{path}"' for key, path in found.items())


def _named(experiment: Experiment) -> Iterator[tuple[str, Path]]:
    for section, key in NAMED_FILES.items():
        if told := getattr(getattr(experiment, section), key):
            yield f"{section}.{key}", at_home(told)
