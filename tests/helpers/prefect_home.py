"""Folders for servers of Prefect to keep their database in."""

import os
import shutil
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

_CACHE = Path(__file__).parents[2] / ".pytest_cache"


def with_database(home: Path) -> str:
    """Make a folder for PREFECT_HOME with a database whose tables are there.

    Making the tables takes a new server four seconds of a core, so that they are made once and copied.
    tests/test_comparison.py starts where there are none, as a user does.
    """
    home.mkdir()
    shutil.copyfile(_database(), home / "prefect.db")
    return str(home)


def _database() -> Path:
    database = _CACHE / f"prefect-{version('prefect')}.db"
    if not database.exists():
        _CACHE.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(dir=_CACHE) as made:
            upgrade = [str(Path(sys.executable).with_name("prefect")), "server", "database", "upgrade", "-y"]
            environment = os.environ | {"PREFECT_HOME": made, "PREFECT_SERVER_ANALYTICS_ENABLED": "false"}
            subprocess.run(upgrade, env=environment, stdout=subprocess.DEVNULL, check=True)
            os.replace(Path(made) / "prefect.db", database)
    return database
