"""What OpenFace wrote, in each of its shapes, becomes one row an image or one line that says what is wrong."""

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from openface.columns import INTENSITIES, PRESENCES
from openface.table import TableError, one_row_per_image, presumed_no_face, read_openface

ACTION_UNITS = (*INTENSITIES, *PRESENCES)
SHARED = Path(os.environ.get("FER_SHARED", Path(__file__).parents[2] / "shared")) / "data" / "ferplus"
Figures = Mapping[str, float | str]


def face(confidence: float = 0.9, **figures: float | str) -> dict[str, float | str]:
    """A row such as OpenFace's; AU01_r=… sets a figure."""
    row: dict[str, float | str] = {"face": 0, "confidence": confidence, "gaze_0_x": 0.125}
    row |= dict.fromkeys(INTENSITIES, 1.5) | dict.fromkeys(PRESENCES, 1.0)
    return row | figures


def write_csv(path: Path, rows: Sequence[Figures], header: Sequence[str] = tuple(face())) -> Path:
    """As OpenFace writes: a comma and a space between the header's names."""
    lines = [", ".join(header)] + [", ".join(str(row[name]) for name in header) for row in rows]
    path.write_text("\n".join(lines) + "\n")
    return path


def frame(*rows: Figures, ids: Sequence[str] = "abcdefgh") -> pd.DataFrame:
    return pd.DataFrame([{"id": name, **row} for name, row in zip(ids[: len(rows)], rows, strict=True)])


def from_parquet(path: Path, table: pd.DataFrame, ids: Sequence[str]) -> pd.DataFrame:
    table.to_parquet(path)
    return one_row_per_image(read_openface(path), ids)


def test_a_folder_of_csv_files_gives_each_image_its_row(tmp_path: Path) -> None:
    write_csv(tmp_path / "b.csv", [face(0.8, AU12_r=3.25, AU28_c=0.0)])
    write_csv(tmp_path / "a.csv", [face(0.7)])

    table = one_row_per_image(read_openface(tmp_path), ["a", "b"])

    assert list(table.columns) == ["id", "status", "confidence", *ACTION_UNITS]
    assert table["id"].tolist() == ["a", "b"]
    assert table["status"].tolist() == ["ok", "ok"]
    assert table["AU12_r"].tolist() == [1.5, 3.25]
    assert table["AU28_c"].tolist() == [1.0, 0.0]
    assert set(table.dtypes[2:]) == {np.dtype(np.float32)}


def test_the_most_confident_of_several_faces_counts(tmp_path: Path) -> None:
    write_csv(tmp_path / "a.csv", [face(0.4, AU01_r=1.0), face(0.9, AU01_r=2.0), face(0.9, AU01_r=3.0)])
    table = one_row_per_image(read_openface(tmp_path), ["a"])
    assert table["AU01_r"].tolist() == [2.0]
    assert table["confidence"].tolist() == pytest.approx([0.9])


def test_whatever_happened_an_image_has_one_row(tmp_path: Path) -> None:
    write_csv(tmp_path / "found.csv", [face()])
    write_csv(tmp_path / "without_a_row.csv", [])
    (tmp_path / "empty.csv").write_bytes(b"")
    (tmp_path / "bytes.csv").write_bytes(b"\xff\xfe\x00\x81")
    (tmp_path / "found_of_details.txt").write_text("Input:found.jpg")
    (tmp_path / "details_only_of_details.txt").write_text("Input:details_only.jpg")
    ids = ["found", "without_a_row", "empty", "bytes", "details_only", "never_seen"]

    table = one_row_per_image(read_openface(tmp_path), ids)

    assert table["id"].tolist() == ids
    assert table["status"].tolist() == ["ok", "no_face", "failed", "failed", "no_face", "failed"]
    assert table.loc[1:, "confidence":].isna().all(axis=None)


def test_no_face_in_any_image_is_a_table_too(tmp_path: Path) -> None:
    write_csv(tmp_path / "a.csv", [])
    table = one_row_per_image(read_openface(tmp_path), ["a"])
    assert table["status"].tolist() == ["no_face"]
    assert table[list(ACTION_UNITS)].isna().all(axis=None)


def test_feature_extraction_is_keyed_by_frame(tmp_path: Path) -> None:
    header = ["frame", "face_id", "timestamp", "success", *face()]
    rows = [
        {"frame": number, "face_id": 0, "timestamp": 0.0, "success": success, **face(AU01_r=float(number))}
        for number, success in ((1, 1), (2, 0), (3, 1))
    ]
    path = write_csv(tmp_path / "video.csv", rows, header)

    for given in (path, tmp_path):
        table = one_row_per_image(read_openface(given), ["3", "2", "1"])
        assert table["status"].tolist() == ["ok", "no_face", "ok"]
        assert table["AU01_r"].fillna(-1).tolist() == [3.0, -1.0, 1.0]


def test_feature_extraction_is_keyed_by_an_added_column(tmp_path: Path) -> None:
    rows = [{"frame": 1, "success": 1, "filename": name, **face()} for name in ("x/a.png", "x/b.png")]
    path = write_csv(tmp_path / "all.csv", rows, ["frame", "success", "filename", *face()])
    assert one_row_per_image(read_openface(path), ["a", "b"])["status"].tolist() == ["ok", "ok"]


def test_our_own_table_is_read_back_as_it_was(tmp_path: Path) -> None:
    write_csv(tmp_path / "a.csv", [face()])
    (tmp_path / "b.csv").write_bytes(b"")
    table = one_row_per_image(read_openface(tmp_path), ["a", "b", "c"])
    again = from_parquet(tmp_path / "aus.parquet", table, ["a", "b", "c"])
    pd.testing.assert_frame_equal(again, table)


@pytest.mark.parametrize("key", ["id", "name", "index"])
def test_a_parquet_names_images_in_one_of_three_columns(tmp_path: Path, key: str) -> None:
    table = frame(face(), face(), ids=["7", "8"]).rename(columns={"id": key})
    assert from_parquet(tmp_path / "t.parquet", table, ["8", "7"])["status"].tolist() == ["ok", "ok"]


@pytest.mark.parametrize(
    ("key", "name"),
    [
        ("train/happy/1", "train/happy/1"),
        ("train/happy/1.JPG", "train/happy/1"),
        ("train\\happy\\1.jpg", "train/happy/1"),
        ("train_00001_aligned", "train_00001"),
        ("/data/aligned/train_00001_aligned.jpg", "train_00001"),
        ("1", "train/happy/1"),
        ("face.of.anna", "face.of.anna"),
    ],
)
def test_a_key_finds_its_image(tmp_path: Path, key: str, name: str) -> None:
    table = frame(face(), ids=[key])
    assert from_parquet(tmp_path / "t.parquet", table, [name])["status"].tolist() == ["ok"]


def test_a_name_that_two_images_share_belongs_to_neither(tmp_path: Path) -> None:
    table = frame(face(), face(), face(), ids=["one", "two", "x/three.png"])
    ids = ["p/one", "q/one", "two", "three"]
    assert from_parquet(tmp_path / "t.parquet", table, ids)["status"].tolist() == ["no_face", "no_face", "ok", "ok"]


def test_an_exact_match_is_not_given_to_a_namesake(tmp_path: Path) -> None:
    table = frame(face(0.5), face(0.9), ids=["x/a", "y/a"])
    assert from_parquet(tmp_path / "t.parquet", table, ["x/a"])["confidence"].tolist() == [0.5]


def test_a_part_of_the_images_and_a_part_of_the_table_are_fine(tmp_path: Path) -> None:
    table = frame(*[face()] * 8)
    assert from_parquet(tmp_path / "t.parquet", table, ["a"])["status"].tolist() == ["ok"]
    many = from_parquet(tmp_path / "t.parquet", table, [*"abcdefgh", *map(str, range(40))])
    assert (many["status"] == "ok").sum() == 8


def test_images_without_a_row_are_presumed_to_have_no_face(tmp_path: Path) -> None:
    frame(face(), face(), ids=["a.png", "b"]).to_parquet(tmp_path / "t.parquet")
    rows = read_openface(tmp_path / "t.parquet")
    assert presumed_no_face(rows, ["c", "b", "a", "d"]) == ["c", "d"]
    assert presumed_no_face(rows, ["a", "b"]) == []
    header = ["frame", "success", "filename", *face()]
    seen = [{"frame": n, "success": n, "filename": name, **face()} for n, name in enumerate(["a", "b"])]
    rows = read_openface(write_csv(tmp_path / "t.csv", seen, header))
    # OpenFace looked at `a`, and found no face.
    assert one_row_per_image(rows, ["a", "b", "c"])["status"].tolist() == ["no_face", "ok", "no_face"]
    assert presumed_no_face(rows, ["a", "b", "c"]) == ["c"]


def test_of_images_that_details_tell_of_nothing_is_presumed(tmp_path: Path) -> None:
    write_csv(tmp_path / "a.csv", [face()])
    rows = read_openface(tmp_path)
    assert presumed_no_face(rows, ["a", "b", "c"]) == ["b", "c"]
    for name in "ab":
        (tmp_path / f"{name}_of_details.txt").write_text(f"Input:{name}.jpg")
    rows = read_openface(tmp_path)
    assert one_row_per_image(rows, ["a", "b", "c"])["status"].tolist() == ["ok", "no_face", "failed"]
    assert presumed_no_face(rows, ["a", "b", "c"]) == []


def test_a_table_of_other_images_is_refused_with_both_counts(tmp_path: Path) -> None:
    table = frame(*[face()] * 5, ids=["a", "x1", "x2", "x3", "x4"])
    with pytest.raises(TableError, match=r"only 1 of the AU table's 5 images .* dataset's 4: .*'x1'.*'b'"):
        from_parquet(tmp_path / "t.parquet", table, ["a", "b", "c", "d"])
    with pytest.raises(TableError, match=r"only 0 of the AU table's 5 images .* dataset's 1"):
        from_parquet(tmp_path / "t.parquet", table, ["b"])


@pytest.mark.parametrize(
    ("figures", "message"),
    [
        ({"AU12_r": "nan"}, "image a: AU12_r is nan"),
        ({"AU12_r": "-nan(ind)"}, "image a: AU12_r is nan"),
        ({"AU12_c": ""}, "image a: AU12_c is nan"),
        ({"AU12_r": "inf"}, "image a: AU12_r is inf"),
        ({"AU12_r": 5.25}, "image a: AU12_r is 5.25, not in 0..5"),
        ({"AU12_r": -0.5}, "image a: AU12_r is -0.5, not in 0..5"),
        ({"AU12_c": 0.5}, "image a: AU12_c is 0.5, not 0 or 1"),
        ({"confidence": 98}, "image a: confidence is 98, not in 0..1"),
    ],
)
def test_what_no_au_can_be_is_named_with_its_image(tmp_path: Path, figures: Figures, message: str) -> None:
    write_csv(tmp_path / "a.csv", [face() | dict(figures)])
    write_csv(tmp_path / "b.csv", [face()])
    rows = read_openface(tmp_path)
    with pytest.raises(TableError, match=message.replace("(", r"\(")):
        one_row_per_image(rows, ["a", "b"])


@pytest.mark.parametrize("column", ["AU12_r", "AU12_c", "confidence"])
def test_text_in_a_parquets_figures_is_named_with_its_image(tmp_path: Path, column: str) -> None:
    table = frame(face(), face())
    table[column] = table[column].astype(object)
    table.loc[1, column] = "-nan(ind)"
    table[column] = table[column].astype(str)
    with pytest.raises(TableError, match=f"image b: {column} is nan"):
        from_parquet(tmp_path / "t.parquet", table, ["a", "b"])
    written = from_parquet(tmp_path / "t.parquet", table.assign(success=["1", "0"]), ["a", "b"])
    assert written["status"].tolist() == ["ok", "no_face"]
    assert written.loc[0, column] == pytest.approx(face()[column])


def test_two_columns_of_one_name_are_refused(tmp_path: Path) -> None:
    frame(face()).assign(**{" AU12_r": 1.0}).to_parquet(tmp_path / "t.parquet")
    with pytest.raises(TableError, match=r"t\.parquet: two columns AU12_r; keep one of them"):
        read_openface(tmp_path / "t.parquet")


def test_a_csv_cut_short_is_named(tmp_path: Path) -> None:
    text = write_csv(tmp_path / "a.csv", [face()]).read_text()
    (tmp_path / "a.csv").write_text(text[:-20])
    with pytest.raises(TableError, match=r"image a: AU\d\d_c is nan"):
        one_row_per_image(read_openface(tmp_path), ["a"])


def test_missing_au_columns_are_named(tmp_path: Path) -> None:
    header = [name for name in face() if name not in {"AU01_r", "AU28_c"}]
    write_csv(tmp_path / "a.csv", [face()], header)
    with pytest.raises(TableError, match="no AU01_r, AU28_c; run OpenFace with -aus"):
        one_row_per_image(read_openface(tmp_path), ["a"])


def test_what_is_no_table_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    frame(face()).rename(columns={"id": "who"}).to_parquet(tmp_path / "keyless.parquet")
    frame(face()).assign(status="maybe").to_parquet(tmp_path / "status.parquet")
    (tmp_path / "torn.parquet").write_bytes(b"PAR1 and no more")
    (tmp_path / "other.csv").write_text("path,label\na.png,happy\n")
    (tmp_path / "empty.csv").write_bytes(b"")
    for name, message in {
        "nowhere": "no such file",
        "folder": "no CSV in it",
        "keyless.parquet": "looked for id, name, index",
        "status.parquet": "status 'maybe'; it must be one of ok",
        "torn.parquet": "not a parquet file",
        "other.csv": "not a table of OpenFace's",
        "empty.csv": "no rows",
    }.items():
        with pytest.raises(TableError, match=message) as raised:
            read_openface(tmp_path / name)
        assert str(tmp_path / name) in str(raised.value)
        assert "\n" not in str(raised.value)


def test_reading_needs_neither_torch_nor_prefect_nor_the_paper() -> None:
    check = "import sys, openface.table; sys.exit(bool({'torch', 'prefect', 'fer_core', 'flows'} & sys.modules.keys()))"
    assert subprocess.run([sys.executable, "-c", check], cwd=Path(__file__).parents[1], check=False).returncode == 0


@pytest.mark.skipif(not SHARED.is_dir(), reason="the real FER+ arrays are not here; set FER_SHARED")
def test_the_real_table_covers_30668_of_35706_images() -> None:
    with np.load(SHARED / "ferplus.npz") as arrays:
        ids = [name.decode().removesuffix(".png") for name in arrays["names"]]
    table = one_row_per_image(read_openface(SHARED / "openface_aus.parquet"), ids)
    assert table["status"].value_counts().to_dict() == {"ok": 30668, "no_face": 5038}
    assert table["id"].tolist() == ids
    # Two faces were found in this one; the second, less confident, is not taken.
    assert table.set_index("id").loc["fer0018919", "confidence"] == pytest.approx(0.883)
