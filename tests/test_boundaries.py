"""Who may import whom: the method knows no orchestrator, OpenFace knows neither, the flow never loads torch."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

LOAD_ALL = """
import importlib, pkgutil, sys
package = importlib.import_module(sys.argv[1])
for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)
print("\\n".join(sorted({name.partition(".")[0] for name in sys.modules})))
"""


@pytest.mark.parametrize(
    ("package", "forbidden"),
    [
        ("fer_core", {"prefect", "docker", "flows"}),
        ("openface", {"torch", "prefect", "fer_core", "flows"}),
        ("flows", {"torch", "torchvision"}),
    ],
)
def test_no_module_of_a_package_loads_what_it_must_not(package: str, forbidden: set[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", LOAD_ALL, package], capture_output=True, text=True, cwd=ROOT, check=True
    )
    assert not forbidden & set(done.stdout.split())


def test_loading_the_command_line_is_light() -> None:
    code = "import fer_core.cli, sys; print(*{'torch', 'sklearn', 'matplotlib', 'pandas'} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.split() == []


def test_every_folder_of_modules_is_a_package() -> None:
    """An editable installation, which this one is, would hide one that is not installed otherwise."""
    modules = [path for top in ("fer_core", "flows", "openface") for path in (ROOT / top).rglob("*.py")]
    assert [folder for folder in {path.parent for path in modules} if not (folder / "__init__.py").is_file()] == []
