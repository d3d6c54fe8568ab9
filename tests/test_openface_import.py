"""AU tables that others made, from files through `fer annotate --aus` and `fer graph`, each a process."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from openface.columns import INTENSITIES, PRESENCES

COUNT = 44
Fer = Callable[..., "subprocess.CompletedProcess[str]"]


def fer(*arguments: object) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "fer_core", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def refusal(*arguments: object) -> str:
    """The one line with which a mistake is refused."""
    done = fer(*arguments)
    assert done.returncode == 2, done.stdout
    (line,) = done.stderr.splitlines()
    return line


@pytest.fixture(scope="module")
def names() -> list[str]:
    """CLASS/N.png of all images, in the order in which FeatureExtraction takes them."""
    return sorted(f"{('happy', 'sad')[number % 2]}/{number}.png" for number in range(COUNT))


@pytest.fixture(scope="module")
def dataset(names: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """These images, prepared."""
    folder = tmp_path_factory.mktemp("faces")
    generator = np.random.default_rng(1)
    for name in names:
        (folder / name).parent.mkdir(exist_ok=True)
        Image.fromarray(generator.integers(0, 256, (20, 20), dtype=np.uint8)).save(folder / name)
    out = folder.parent / "prepared"
    settings = ("dataset.source=folder", "dataset.image_size=16", "dataset.test_share=0.2")
    done = fer("prepare", "demo", "--data", folder, "--out", out, *(part for s in settings for part in ("--set", s)))
    assert done.returncode == 0, done.stderr
    return out


def frames(names: list[str]) -> pd.DataFrame:
    """As FeatureExtraction writes of a folder; AU01_r is a hundredth of the image's number."""
    generator = np.random.default_rng(2)
    count = len(names)
    table = pd.DataFrame({"frame": range(1, count + 1), "face_id": 0, "timestamp": 0.0, "confidence": 0.98})
    table["success"] = 1
    table[list(INTENSITIES)] = generator.integers(0, 500, (count, 17)) / 100
    table[list(PRESENCES)] = generator.integers(0, 2, (count, 18)).astype(float)
    return table.assign(AU01_r=[int(Path(name).stem) / 100 for name in names])


def test_frames_are_refused_and_names_are_used(names: list[str], dataset: Path, tmp_path: Path) -> None:
    frames(names).to_csv(tmp_path / "frames.csv", index=False)
    line = refusal("annotate", "demo", "--in", dataset, "--aus", tmp_path / "frames.csv", "--out", tmp_path / "aus")
    assert "timestamp only count; add one of file names with their endings, called filename, image, path, file" in line

    frames(names).assign(path=names).to_csv(tmp_path / "names.csv", index=False)
    done = fer("annotate", "demo", "--in", dataset, "--aus", tmp_path / "names.csv", "--out", tmp_path / "aus")
    assert done.returncode == 0, done.stderr
    table = pd.read_parquet(tmp_path / "aus" / "aus.parquet")
    assert len(table) == COUNT
    np.testing.assert_allclose(table["AU01_r"], [int(Path(name).stem) / 100 for name in table["id"]], atol=1e-6)


def test_one_bad_row_is_counted_and_named_and_the_others_go_on(names: list[str], dataset: Path, tmp_path: Path) -> None:
    for name, row in zip(names, frames(names).to_dict("records"), strict=True):
        path = tmp_path / "out" / Path(name).with_suffix(".csv")
        path.parent.mkdir(parents=True, exist_ok=True)
        bad: dict[str, object] = {"AU12_r": "-nan(ind)"} if name == names[7] else {}
        pd.DataFrame([dict(face=0, **row) | bad]).to_csv(path, index=False)
    (tmp_path / "out" / names[9]).with_suffix(".csv").write_bytes(b"")
    done = fer("annotate", "demo", "--in", dataset, "--aus", tmp_path / "out", "--out", tmp_path / "aus")
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "aus" / "aus.json").read_text()) == {"ok": COUNT - 2, "failed": 2}
    key = names[7].removesuffix(".png")
    assert (
        f"1 row of {tmp_path / 'out'} cannot be used and count as failed: {key}: AU12_r is nan, not in 0..5"
        in done.stdout
    )


def test_a_graph_of_nothing_is_refused_with_the_number_of_vectors(
    names: list[str], dataset: Path, tmp_path: Path
) -> None:
    nothing = frames(names).assign(path=names, **dict.fromkeys(PRESENCES, 0.0))
    nothing.to_csv(tmp_path / "all.csv", index=False)
    done = fer("annotate", "demo", "--in", dataset, "--aus", tmp_path / "all.csv", "--out", tmp_path / "aus")
    assert done.returncode == 0, done.stderr
    graph = ("graph", "demo", "--in", dataset, "--in", tmp_path / "aus", "--out", tmp_path / "graph")
    line = refusal(*graph, "--set", "action_units.features=presence")
    assert "1 distinct vector" in line
    assert "AU01_c to AU45_c" in line


def test_py_feats_table_makes_a_graph_of_presences_and_none_of_intensities(
    names: list[str], dataset: Path, tmp_path: Path
) -> None:
    generator = np.random.default_rng(3)
    units = [name[:4] for name in PRESENCES if name != "AU45_c"]
    table = pd.DataFrame(generator.random((COUNT, 19)), columns=[*units, "AU11", "AU43"])
    table = table.assign(FaceScore=0.99, input=[f"/data/{name}" for name in names], frame=range(COUNT))
    table.to_csv(tmp_path / "fex.csv", index=False)
    done = fer("annotate", "demo", "--in", dataset, "--aus", tmp_path / "fex.csv", "--out", tmp_path / "aus")
    assert done.returncode == 0, done.stderr
    assert (
        f"{tmp_path / 'fex.csv'} has no AU45_c; action_units.features = presence takes the other 17 of 18"
        in done.stdout
    )
    graph = ("graph", "demo", "--in", dataset, "--in", tmp_path / "aus", "--out", tmp_path / "graph")
    line = refusal(*graph, "--set", "action_units.features=intensity")
    assert "the AU table has no intensity; set action_units.features = presence, of which it has 17 of 18" in line
    done = fer(*graph, "--set", "action_units.features=presence")
    assert done.returncode == 0, done.stderr
    assert "AU vectors of 17 columns" in done.stdout
    card = json.loads((tmp_path / "graph" / "graph.json").read_text())
    assert card["recall_images"] == card["images"]
