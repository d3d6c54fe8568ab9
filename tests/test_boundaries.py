"""Import boundaries: the method knows no orchestrator, OpenFace knows neither, the flow never loads torch."""

import ast
import re
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

ROOMS = ("data", "graph", "models", "evaluation", "train", "export", "report", "predict", "service")
"""The rooms of fer_core; each may import from those before it."""

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


@pytest.mark.parametrize("package", ["fer_core.predict", "fer_core.service.app", "fer_core.export.onnx_model"])
def test_what_predicts_with_an_exported_model_loads_no_torch(package: str) -> None:
    code = f"import {package}, sys; print(*{{'torch', 'torchvision', 'sklearn', 'matplotlib'}} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.split() == []


@pytest.mark.parametrize("room", ROOMS)
def test_imports_between_rooms_run_one_way(room: str) -> None:
    later = set(ROOMS[ROOMS.index(room) + 1 :]) | {"cli"}
    imports = [
        (path.name, node.module)
        for path in (ROOT / "fer_core" / room).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("fer_core.")
    ]
    assert imports
    assert [found for found in imports if found[1].split(".")[1] in later or found[1] == "fer_core.steps.run"] == []


def test_every_folder_of_modules_is_a_package() -> None:
    """An editable installation, which this one is, would hide one that is not installed otherwise."""
    modules = [path for top in ("fer_core", "flows", "openface") for path in (ROOT / top).rglob("*.py")]
    assert [folder for folder in {path.parent for path in modules} if not (folder / "__init__.py").is_file()] == []


@pytest.mark.parametrize(
    ("package", "extras"),
    [("fer_core", ("train", "predict", "export", "serve")), ("flows", ("flow",)), ("openface", ("flow",))],
)
def test_what_a_package_imports_is_declared(package: str, extras: tuple[str, ...]) -> None:
    """Not found by the luck that something else depends on it."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lines = [*project["dependencies"], *(line for extra in extras for line in project["optional-dependencies"][extra])]
    declared = {_plain(re.split(r"[^\w-]", line)[0]) for line in lines}
    own, distributions = {"fer_core", "flows", "openface"}, packages_distributions()
    imported = set(imported_by(package)) - own - sys.stdlib_module_names
    assert {name for name in imported if not declared & set(map(_plain, distributions[name]))} == set()


def imported_by(package: str) -> list[str]:
    found = []
    for path in (ROOT / package).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                found += [alias.name.partition(".")[0] for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                found.append(node.module.partition(".")[0])
    return found


def _plain(name: str) -> str:
    """Indexes tell neither case nor `_` from `-`."""
    return name.lower().replace("_", "-")
