"""What OpenFace wrote, in each of its shapes, becomes one row an image or one line that says what is wrong."""

import gzip
import os
import subprocess
import sys
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from helpers.openface_tables import (
    ACTION_UNITS,
    Figures,
    face,
    feature_extraction,
    frame,
    from_parquet,
    numbered,
    own_rows,
    write_csv,
)

from openface.columns import INTENSITIES, LANDMARKS, PRESENCES
from openface.errors import TableError
from openface.reading import read_openface
from openface.spreadsheets import has_decimal_commas
from openface.table import one_row_per_image, remarks
from openface.views import images_below

SHARED = Path(os.environ.get("FER_SHARED", Path(__file__).parents[2] / "shared")) / "data" / "ferplus"


def test_images_of_several_faces_are_told() -> None:
    rows = pd.DataFrame({"key": ["a", "a", "b"], "status": "ok", "confidence": [0.9, 0.98, 0.9]})
    rows = rows.assign(**{name: [1.0, 4.0, 2.0] if name == INTENSITIES[0] else 0.0 for name in INTENSITIES})
    assert one_row_per_image(rows, ["a", "b"])[INTENSITIES[0]].tolist() == [4.0, 2.0]
    told = "1 image of aus.csv: several faces, of which the most confident counts, also where the dataset has cut out "
    assert f"{told}another; a" in remarks(rows, ["a", "b"], "aus.csv")


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


@pytest.mark.parametrize("name", ["aus.pq", "aus.parquet", "aus.feather", "aus.arrow", "aus.csv.gz", "aus.csv", "aus"])
def test_a_table_is_known_by_its_first_bytes(tmp_path: Path, name: str) -> None:
    table = pd.DataFrame({"filename": ["a.png", "b.png", "c.png"], "confidence": 0.9, "AU12_r": [1.0, 2.0, 3.5]})
    path = tmp_path / name
    if path.suffix in (".feather", ".arrow"):
        table.to_feather(path)
    elif path.suffix in (".pq", ".parquet"):
        table.to_parquet(path)
    else:
        table.to_csv(path, index=False)
    found = read_openface(path)
    assert list(found["key"]) == ["a.png", "b.png", "c.png"]
    assert list(found["AU12_r"]) == [1.0, 2.0, 3.5]


def test_a_spreadsheet_is_refused_with_the_way_out(tmp_path: Path) -> None:
    path = tmp_path / "aus.xlsx"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("xl/workbook.xml", "<workbook/>")
    with pytest.raises(TableError, match="a spreadsheet or an archive; save it as CSV"):
        read_openface(path)


def test_a_packed_csv_that_is_cut_short_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "aus.csv.gz"
    path.write_bytes(gzip.compress(b"filename,confidence,AU12_r\na.png,.9,1\n" * 50)[:-12])
    with pytest.raises(TableError, match="no rows; give the CSV that OpenFace wrote"):
        read_openface(path)


@pytest.mark.parametrize(("separator", "point", "encoding"), [(";", ",", "utf-8"), ("\t", ".", "utf-16")])
def test_a_table_that_excel_wrote_is_read(tmp_path: Path, separator: str, point: str, encoding: str) -> None:
    names = numbered(30)
    text = feature_extraction(tmp_path / "all.csv", names, filename=names).read_text()
    lines = [line.replace(", ", separator) for line in text.splitlines()]
    lines[1:] = [line.replace(".", point).replace(f"{point}jpg", ".jpg") for line in lines[1:]]
    (tmp_path / "all.csv").write_text("\r\n".join(lines), encoding=encoding)
    assert own_rows(one_row_per_image(read_openface(tmp_path / "all.csv"), names)) == 30


def test_packed_csvs_of_a_folder_are_read_and_other_tables_told(tmp_path: Path) -> None:
    ids = [f"happy/{name}" for name in "abcd"]
    (tmp_path / "happy").mkdir()
    for place, name in enumerate(ids):
        path = write_csv(tmp_path / f"{name}.csv", [face(AU01_r=place / 4)])
        if place % 2:
            (tmp_path / f"{name}.CSV.gz").write_bytes(gzip.compress(path.read_bytes()))
            path.unlink()
    rows = read_openface(tmp_path)
    assert one_row_per_image(rows, ids)["AU01_r"].tolist() == [0, 0.25, 0.5, 0.75]
    assert remarks(rows, ids, "t") == []
    frame(face()).to_parquet(tmp_path / "happy" / "rest.parquet")
    rows = read_openface(tmp_path)
    assert one_row_per_image(rows, ids)["status"].tolist() == ["ok"] * 4
    assert remarks(rows, ids, "t") == [
        "1 table in t beside its CSVs is not read; give it by itself: happy/rest.parquet"
    ]
    for path in (tmp_path / "happy").glob("*.[cC]*"):
        path.unlink()
    with pytest.raises(TableError, match=r"no CSV in it, but happy/rest\.parquet; give that file itself"):
        read_openface(tmp_path)


def test_what_systems_leave_beside_files_is_no_image_and_no_table(tmp_path: Path) -> None:
    from fer_core.data.readers.source import find_images

    left = ["@eaDir/a.png", "#recycle", "@Recycle", "$RECYCLE.BIN", "System Volume Information", ".AppleDouble"]
    for place in ("", *left, "__MACOSX", "lost+found"):
        (tmp_path / place).mkdir(parents=True, exist_ok=True)
        write_csv(tmp_path / place / "a.csv", [face()])
        (tmp_path / place / "a.jpg").write_bytes(b"")
    (tmp_path / "Thumbs.db").write_bytes(b"")
    assert read_openface(tmp_path)["key"].tolist() == ["a"]
    hidden = 2 * (len(left) + 2) + 1
    assert images_below(tmp_path).paths == find_images(tmp_path).paths == [tmp_path / "a.jpg"]
    assert images_below(tmp_path).left == find_images(tmp_path).left == {"hidden": hidden, ".csv": 1}


def test_rows_that_contradict_each_other_are_counted(tmp_path: Path) -> None:
    rows = [face(filename=f"{name}.png", AU12_r=n / 4) for n in (1, 2) for name in "abcde"]
    rows += [face(0.5, filename="f.png", AU12_r=1.0), face(0.6, filename="f.png", AU12_r=2.0)]
    rows += [face(filename="g.png")] * 2 + [face(filename="a.png", AU12_r=9.0)]
    told = "5 images of t have several rows of equal confidence that differ; the first is taken: a, b, c and 2 more"
    for header in (tuple(rows[0]), tuple(name for name in rows[0] if name != "confidence")):
        read = read_openface(write_csv(tmp_path / "all.csv", rows, header))
        assert one_row_per_image(read, list("abcdefg"))["AU12_r"].tolist()[:5] == [0.25] * 5
        said = [remark for remark in remarks(read, list("abcdefg"), "t") if "several rows" in remark]
        assert said == [told if "confidence" in header else told.replace("5", "6").replace("2 more", "3 more")]


@pytest.mark.parametrize("form", ["csv", "booleans", "nullable", "text"])
def test_presences_as_booleans_are_presences(tmp_path: Path, form: str) -> None:
    table = pd.DataFrame([face(filename=f"{name}.png", AU12_c=float(n % 2)) for n, name in enumerate("abcd")])
    table = table.astype(dict.fromkeys(PRESENCES, "boolean" if form == "nullable" else bool))
    if form == "csv":
        table.to_csv(tmp_path / "t", index=False)
    else:
        (table.astype(dict.fromkeys(PRESENCES, str)) if form == "text" else table).to_parquet(tmp_path / "t")
    found = one_row_per_image(read_openface(tmp_path / "t"), list("abcd"))
    assert found["status"].tolist() == ["ok"] * 4
    assert found["AU12_c"].tolist() == [0, 1, 0, 1]


def test_our_own_table_is_read_back_as_it_was(tmp_path: Path) -> None:
    write_csv(tmp_path / "a.csv", [face()])
    (tmp_path / "b.csv").write_bytes(b"")
    table = one_row_per_image(read_openface(tmp_path), ["a", "b", "c"])
    again = from_parquet(tmp_path / "aus.parquet", table, ["a", "b", "c"])
    pd.testing.assert_frame_equal(again, table)


def test_images_without_a_row_are_presumed_to_have_no_face(tmp_path: Path) -> None:
    frame(face(), face(), ids=["a.png", "b"]).to_parquet(tmp_path / "t.parquet")
    rows = read_openface(tmp_path / "t.parquet")
    (said,) = remarks(rows, ["c", "b", "a", "d"], "t")
    assert said.startswith("2 of 4 images have no row in t and count as no_face")
    assert said.endswith("c, d")
    assert remarks(rows, ["a", "b"], "t") == []
    header = ["frame", "success", "filename", *face()]
    seen = [{"frame": n, "success": n, "filename": name, **face()} for n, name in enumerate(["a", "b"])]
    rows = read_openface(write_csv(tmp_path / "t.csv", seen, header))
    # OpenFace looked at `a`, and found no face.
    assert one_row_per_image(rows, ["a", "b", "c"])["status"].tolist() == ["no_face", "ok", "no_face"]
    (said,) = remarks(rows, ["a", "b", "c"], "t")
    assert said.endswith("c")


def test_of_images_that_details_tell_of_nothing_is_presumed(tmp_path: Path) -> None:
    write_csv(tmp_path / "a.csv", [face()])
    (said,) = remarks(read_openface(tmp_path), ["a", "b", "c"], "t")
    assert said.startswith("2 of 3 images have no row")
    for name in "ab":
        (tmp_path / f"{name}_of_details.txt").write_text(f"Input:{name}.jpg")
    rows = read_openface(tmp_path)
    assert one_row_per_image(rows, ["a", "b", "c"])["status"].tolist() == ["ok", "no_face", "failed"]
    assert remarks(rows, ["a", "b", "c"], "t") == []


@pytest.mark.parametrize(
    ("figures", "message"),
    [
        ({"AU12_r": "nan"}, "AU12_r is nan"),
        ({"AU12_r": "-nan(ind)"}, "AU12_r is nan"),
        ({"AU12_r": "1.#QNAN"}, "AU12_r is nan"),
        ({"AU12_c": ""}, "AU12_c is nan"),
        ({"AU12_r": "inf"}, "AU12_r is inf"),
        ({"AU12_r": 5.25}, "AU12_r is 5.25, not in 0..5"),
        ({"AU12_r": -0.5}, "AU12_r is -0.5, not in 0..5"),
        ({"AU12_c": 0.5}, "AU12_c is 0.5, not 0 or 1"),
        ({"confidence": 98}, "confidence is 98, not in 0..1"),
    ],
)
def test_what_no_au_can_be_costs_its_image_alone_and_is_named(tmp_path: Path, figures: Figures, message: str) -> None:
    for number in range(300):
        write_csv(tmp_path / f"{number}.csv", [face() | dict(figures if number == 7 else {})])
    rows, ids = read_openface(tmp_path), [str(number) for number in range(300)]
    table = one_row_per_image(rows, ids)
    assert table.index[table["status"] == "failed"].tolist() == [7]
    assert (table["status"] == "ok").sum() == 299
    (said,) = remarks(rows, ids, "t")
    assert said.startswith(f"1 row of t cannot be used and count as failed: 7: {message}")


def test_a_bad_face_beside_a_good_one_costs_nothing(tmp_path: Path) -> None:
    write_csv(tmp_path / "a.csv", [face(0.99, AU12_r="-nan(ind)"), face(0.5)])
    write_csv(tmp_path / "b.csv", [face()])
    assert one_row_per_image(read_openface(tmp_path), ["a", "b"])["confidence"].tolist() == pytest.approx([0.5, 0.9])


def test_a_table_most_of_which_cannot_be_is_refused(tmp_path: Path) -> None:
    frame(face(98), face(97), face()).to_parquet(tmp_path / "t.parquet")
    with pytest.raises(TableError, match=r"2 of the AU table's 3 faces cannot be: image a: confidence is 98, not in"):
        one_row_per_image(read_openface(tmp_path / "t.parquet"), ["a", "b", "c"])


@pytest.mark.parametrize("column", ["AU12_r", "AU12_c", "confidence"])
def test_text_in_a_parquets_figures_costs_its_image(tmp_path: Path, column: str) -> None:
    table = frame(face(), face())
    table[column] = table[column].astype(object)
    table.loc[1, column] = "-nan(ind)"
    table[column] = table[column].astype(str)
    written = from_parquet(tmp_path / "t.parquet", table, ["a", "b"])
    assert written["status"].tolist() == ["ok", "failed"]
    written = from_parquet(tmp_path / "t.parquet", table.assign(success=["1", "0"]), ["a", "b"])
    assert written["status"].tolist() == ["ok", "no_face"]
    assert written.loc[0, column] == pytest.approx(face()[column])


def test_two_columns_of_one_name_are_refused(tmp_path: Path) -> None:
    frame(face()).assign(**{" AU12_r": 1.0}).to_parquet(tmp_path / "t.parquet")
    with pytest.raises(TableError, match=r"t\.parquet: two columns AU12_r; keep one of them"):
        read_openface(tmp_path / "t.parquet")


@pytest.mark.parametrize("left", [0, 10, 200, -20])
def test_a_csv_cut_short_costs_its_image_alone(tmp_path: Path, left: int) -> None:
    for name in "abc":
        text = write_csv(tmp_path / f"{name}.csv", [face()]).read_text()
    (tmp_path / "b.csv").write_text(text[:left])
    status = one_row_per_image(read_openface(tmp_path), ["a", "b", "c"])["status"].tolist()
    assert status == ["ok", "no_face" if left == 200 else "failed", "ok"]


def test_missing_au_columns_are_named_and_the_others_used(tmp_path: Path) -> None:
    header = [name for name in face() if name not in {"AU01_r", "AU28_c"}]
    write_csv(tmp_path / "a.csv", [face()], header)
    rows = read_openface(tmp_path)
    table = one_row_per_image(rows, ["a"])
    assert table["status"].tolist() == ["ok"]
    assert table.columns[table.isna().any()].tolist() == ["AU01_r", "AU28_c"]
    assert remarks(rows, ["a"], "t") == [
        "t has no AU01_r; action_units.features = intensity takes the other 16 of 17",
        "t has no AU28_c; action_units.features = presence takes the other 17 of 18",
    ]
    write_csv(tmp_path / "a.csv", [face()], ["face", "confidence"])
    with pytest.raises(TableError, match="no AU columns; run OpenFace with -aus"):
        one_row_per_image(read_openface(tmp_path), ["a"])


PY_FEAT = ("01", "02", "04", "05", "06", "07", "09", "10", "11", "12", "14", "15", "17", "20", "23", "24", "25", "26")


@pytest.mark.parametrize("as_parquet", [False, True])
def test_py_feats_table_is_read_as_presences(tmp_path: Path, as_parquet: bool) -> None:
    """Its columns as its own Fex writes them; a row without figures is an image in which it found no face."""
    rows = []
    for number, name in enumerate(["happy/1.jpg", "happy/2.jpg", "sad/1.jpg"]):
        units = {f"AU{unit}": 0.25 for unit in (*PY_FEAT, "28", "43")} | {"AU12": (0.9, 0.5, 0.4)[number]}
        rows.append({"FaceRectX": 12.5, "FaceScore": 0.99, "x_0": 1.0, **units, "anger": 0.01, "input": f"/d/{name}"})
    rows.append(dict.fromkeys(rows[0], float("nan")) | {"FaceScore": 0.0, "input": "/d/sad/2.jpg"})
    table = pd.DataFrame(rows).assign(frame=range(4), Identity="Person_0")
    path = tmp_path / ("fex.parquet" if as_parquet else "fex.csv")
    table.to_parquet(path) if as_parquet else table.to_csv(path)
    found, ids = read_openface(path), ["happy/1", "happy/2", "sad/1", "sad/2"]
    read = one_row_per_image(found, ids)
    assert read["status"].tolist() == ["ok", "ok", "ok", "no_face"]
    assert read["AU12_c"].tolist()[:3] == [1, 1, 0]
    assert read["AU01_c"].tolist()[:3] == [0, 0, 0]
    assert read["confidence"].tolist()[:3] == pytest.approx([0.99] * 3)
    assert read[[*INTENSITIES, "AU45_c"]].isna().all(axis=None)
    shares, no_intensity, no_blink = remarks(found, ids, "t")
    assert "from .5 on" in shares
    assert no_intensity.endswith("action_units.features = intensity cannot be used")
    assert no_blink == "t has no AU45_c; action_units.features = presence takes the other 17 of 18"
    again = from_parquet(tmp_path / "aus.parquet", read, ids)
    pd.testing.assert_frame_equal(again, read)


def test_libreface_tables_are_read_as_both(tmp_path: Path) -> None:
    """One CSV an image, named as the user likes; presences `au_1`, intensities `au_1_intensity`, landmarks before."""
    detected, measured = (1, 2, 4, 6, 7, 10, 12, 14, 15, 17, 23, 24), (1, 2, 4, 5, 6, 9, 12, 15, 17, 20, 25, 26)
    for number, name in enumerate("abc"):
        row: dict[str, object] = {"facial_expression": "Happiness", "pitch": 1.5, "lm_mp_0_x": 3}
        row |= {f"au_{unit}": number % 2 for unit in detected} | {f"au_{unit}_intensity": 1.25 for unit in measured}
        pd.DataFrame([row]).to_csv(tmp_path / f"{name}.csv", index=False)
    found = read_openface(tmp_path)
    table = one_row_per_image(found, ["a", "b", "c"])
    assert table["status"].tolist() == ["ok"] * 3
    assert table["AU12_c"].tolist() == [0, 1, 0]
    assert table["AU12_r"].tolist() == [1.25] * 3
    assert table["confidence"].isna().all()
    no_intensity, no_presence = remarks(found, ["a", "b", "c"], "t")
    assert no_intensity.endswith("features = intensity takes the other 12 of 17")
    assert no_presence.endswith("features = presence takes the other 11 of 18")
    many = pd.concat([pd.read_csv(tmp_path / f"{name}.csv") for name in "abc"])
    many.assign(frame_idx=range(3)).to_csv(tmp_path / "video.csv", index=False)
    with pytest.raises(TableError, match="no column names the images; frame_idx only count"):
        read_openface(tmp_path / "video.csv")


def test_openfaces_intensities_without_their_suffix_stay_intensities(tmp_path: Path) -> None:
    table = frame(face(AU12_r=3.5), face()).drop(columns=list(PRESENCES))
    table.rename(columns=lambda name: name.removesuffix("_r")).to_parquet(tmp_path / "t.parquet")
    read = one_row_per_image(read_openface(tmp_path / "t.parquet"), ["a", "b"])
    assert read["AU12_r"].tolist() == [3.5, 1.5]
    assert read[list(PRESENCES)].isna().all(axis=None)


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
        "keyless.parquet": "no column names the images",
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


def with_landmarks(first: float, **figures: float | str) -> dict[str, float | str]:
    """A row with `-2Dfp`: landmarks before the AUs, x_0 = first and one more for each next."""
    row = face()
    points = {name: first + place for place, name in enumerate(LANDMARKS)}
    row = {name: row[name] for name in ("face", "confidence")} | points | {n: row[n] for n in ACTION_UNITS}
    return row | figures


@pytest.mark.parametrize("form", ["folder", "csv", "parquet", "feather"])
def test_landmarks_are_kept_beside_the_aus_one_row_an_image(form: str, tmp_path: Path) -> None:
    rows = {
        "a": [with_landmarks(10.5), with_landmarks(900.0, confidence=0.2)],
        "b": [with_landmarks(20.25, x_3="-nan(ind)")],
        "c": [with_landmarks(30.0, AU01_r=77.0)],
        "d": [with_landmarks(40.0)],
        "f": [with_landmarks(50.0)],
    }
    header = tuple(with_landmarks(0.0))
    source = tmp_path / "given"
    if form == "folder":
        source.mkdir()
        for name, faces in rows.items():
            write_csv(source / f"{name}.csv", faces, header)
    else:
        source = tmp_path / f"given.{form}"
        flat = [{"filename": f"{name}.png", **row} for name, faces in rows.items() for row in faces]
        write_csv(tmp_path / "given.csv", flat, ("filename", *header))
        if form != "csv":
            getattr(pd.read_csv(tmp_path / "given.csv", skipinitialspace=True), f"to_{form}")(source)
    table = one_row_per_image(read_openface(source), list("dcbaef"))
    assert list(table.columns) == ["id", "status", "confidence", *ACTION_UNITS, *LANDMARKS]
    assert table["status"].tolist() == ["ok", "failed", "ok", "ok", "no_face", "ok"]
    points = table[list(LANDMARKS)].to_numpy()
    assert points.dtype == np.float32
    steps = np.arange(136, dtype=np.float32)
    np.testing.assert_array_equal(points[[0, 3, 5]], [40 + steps, 10.5 + steps, 50 + steps])
    assert np.isnan(points[[1, 2, 4]]).all()
    again = from_parquet(tmp_path / "again.parquet", table, list("dcbaef"))
    pd.testing.assert_frame_equal(again, table)


def test_a_table_of_all_that_openface_writes_takes_a_few_times_its_size_of_memory(tmp_path: Path) -> None:
    drawn = np.random.default_rng(0).uniform(0, 500, (100, 136 + 280 + 204))
    bulk = [*LANDMARKS, *(f"eye_lmk_X_{n}" for n in range(280)), *(f"{axis}_{n}" for axis in "XYZ" for n in range(68))]
    table = pd.DataFrame(np.round(drawn, 1), columns=bulk).assign(filename=[f"{n}.jpg" for n in range(100)], AU01_r=1.0)
    table.to_csv(tmp_path / "all.csv", index=False)
    tracemalloc.start()
    try:
        rows = read_openface(tmp_path / "all.csv")
        assert tracemalloc.get_traced_memory()[1] < 8 * (tmp_path / "all.csv").stat().st_size
    finally:
        tracemalloc.stop()
    np.testing.assert_allclose(rows[list(LANDMARKS)], table[list(LANDMARKS)], rtol=1e-6)


def test_points_in_space_and_a_part_of_the_landmarks_are_no_landmarks(tmp_path: Path) -> None:
    row = {**face(), **{name.upper(): 1.0 for name in LANDMARKS}, "x_0": 3.0}
    write_csv(tmp_path / "a.csv", [row], tuple(row))
    assert list(one_row_per_image(read_openface(tmp_path), ["a"]).columns)[-1] == PRESENCES[-1]


def test_a_mesh_of_more_points_is_no_landmarks(tmp_path: Path) -> None:
    """py-feat's of MediaPipe: its first 68 points are others."""
    row = face(filename="a.png") | {f"{axis}_{point}": float(point) for axis in "xyz" for point in range(478)}
    for path in (write_csv(tmp_path / "a.csv", [row], tuple(row)), tmp_path / "a.parquet"):
        if path.suffix == ".parquet":
            pd.DataFrame([row]).to_parquet(path)
        assert list(one_row_per_image(read_openface(path), ["a"]).columns)[-1] == PRESENCES[-1]


@pytest.mark.parametrize(
    ("yes", "no", "status"),
    [("True", "False", "no_face"), ("yes", "No", "no_face"), (1.0, 0.0, "no_face"), (1, "", "failed")],
)
def test_success_is_read_as_other_programs_write_it(tmp_path: Path, yes: object, no: object, status: str) -> None:
    rows = [
        face(filename=f"{name}.png", success=str(said)) for name, said in zip("abcd", (yes, no, yes, no), strict=True)
    ]
    path = write_csv(tmp_path / "all.csv", rows, tuple(rows[0]))
    assert one_row_per_image(read_openface(path), list("abcd"))["status"].tolist() == ["ok", status] * 2


@pytest.mark.parametrize("header", ["success", "Success", " SUCCESS"])
def test_success_as_a_parquets_own_booleans(header: str, tmp_path: Path) -> None:
    rows = pd.DataFrame([face(filename=f"{name}.png") for name in "abcd"])
    table = from_parquet(tmp_path / "t.parquet", rows.assign(**{header: [True, False] * 2}), list("abcd"))
    assert table["status"].tolist() == ["ok", "no_face"] * 2


def test_a_word_below_success_that_nobody_knows_is_refused(tmp_path: Path) -> None:
    rows = [face(filename=f"{name}.png", success="perhaps") for name in "ab"]
    with pytest.raises(TableError, match="success 'perhaps'; it must be 1"):
        read_openface(write_csv(tmp_path / "all.csv", rows, tuple(rows[0])))


def test_one_share_beyond_1_costs_its_row_and_not_the_tables_meaning(tmp_path: Path) -> None:
    units = [name.removesuffix("_c") for name in PRESENCES if name != "AU45_c"]
    shares = pd.DataFrame(
        {"input": [f"{name}.jpg" for name in "abcdefgh"], "FaceScore": 0.9} | dict.fromkeys(units, 0.75)
    )
    shares.loc[2, "AU12"] = 1.00001
    table = from_parquet(tmp_path / "t.parquet", shares, list("abcdefgh"))
    assert table["status"].tolist() == ["ok", "ok", "failed", *["ok"] * 5]
    assert table["AU12_c"].tolist()[0] == 1
    assert table["AU12_r"].isna().all()


def test_what_excel_and_people_do_to_a_table_is_read(tmp_path: Path) -> None:
    rows = [face(id=f"{name}.png", status="OK") for name in "ab"]
    path = write_csv(tmp_path / "all.csv", rows, tuple(rows[0]))
    path.write_text("\nsep=;\n" + path.read_text().replace(", ", ";").replace(".5", ",5").replace(".9", ",9"))
    table = one_row_per_image(read_openface(path), ["a", "b"])
    assert table["status"].tolist() == ["ok", "ok"]
    assert table["AU12_r"].tolist() == [1.5, 1.5]


@pytest.mark.parametrize("separator", [";", ","])
def test_small_numbers_with_decimal_commas_are_numbers(separator: str, tmp_path: Path) -> None:
    """As a spreadsheet of such a country writes py-feat's shares next to nought; between commas with quotes."""
    table = pd.DataFrame({"input": ["a.png", "b.png"], "FaceScore": 0.9, "AU01": [1.5e-05, 0.75], "AU12": [0.5, 2e-7]})
    table.to_csv(tmp_path / "t.csv", sep=separator, decimal=",", index=False)
    assert "1,5e-05" in (tmp_path / "t.csv").read_text()
    rows = one_row_per_image(read_openface(tmp_path / "t.csv"), ["a", "b"])
    assert rows[["status", "AU01_c", "AU12_c"]].to_numpy().tolist() == [["ok", 0, 1], ["ok", 1, 0]]


@pytest.mark.parametrize(
    ("fields", "found"),
    [(["a.png", "0,5", "3"], True), (["-12,25"], True), (["1,234", "3"], False), (["0,5", "1.5"], False)],
)
def test_a_thousands_comma_is_no_decimal_one(fields: list[str], found: bool) -> None:
    assert has_decimal_commas(fields) == found


def below_other_headers(row: Figures, path: Path) -> None:
    """A row of `face()` with a number before it, below headers that do not know of it, as R's `write.table` writes."""
    write_csv(path, [row])
    header, line = path.read_text().splitlines()
    path.write_text(f"{header}\n1, {line}\n")


def test_a_row_of_more_fields_than_headers_costs_its_image(tmp_path: Path) -> None:
    """Each figure would be its neighbour's, and where blinks are rare none of them is impossible."""
    for name in "abc":
        write_csv(tmp_path / f"{name}.csv", [face()])
    below_other_headers(face(AU45_r=0.0), tmp_path / "b.csv")
    rows = read_openface(tmp_path)
    assert one_row_per_image(rows, ["a", "b", "c"])["status"].tolist() == ["ok", "failed", "ok"]
    assert "1 row of t cannot be used and count as failed: b: confidence is nan, not in 0..1" in remarks(
        rows, [*"abc"], "t"
    )
    table = write_csv(tmp_path / "all.csv", [face(file=f"{name}.png") for name in "abc"], ("file", *face()))
    header, first, *others = table.read_text().splitlines()
    table.write_text("\n".join([header, first.replace("1.5", "1, 5", 1), *(f"{line}, , " for line in others)]))
    assert one_row_per_image(read_openface(table), [*"abc"])["status"].tolist() == ["failed", "ok", "ok"]


def test_rows_that_all_have_more_fields_than_headers_are_refused(tmp_path: Path) -> None:
    below_other_headers(face(AU45_r=0.0), tmp_path / "a.csv")
    with pytest.raises(TableError, match=r"a\.csv: its rows have more fields than its header; give every column"):
        read_openface(tmp_path / "a.csv")
