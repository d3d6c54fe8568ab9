"""What every source has in common."""

from pathlib import Path

import numpy as np
import pytest
from helpers.dataset_files import FER2013, FERPLUS, FOLDER, LIST, RAFDB, counts, refused, save_faces, write_rows

from fer_core.data.dataset import EMOTIONS
from fer_core.data.readers import open_source
from fer_core.experiment import DatasetSettings


@pytest.mark.parametrize("settings", [RAFDB, FERPLUS, FOLDER, LIST], ids=lambda settings: settings.source)
def test_a_missing_folder_is_named(tmp_path: Path, settings: DatasetSettings) -> None:
    assert "give their folder with --data" in refused(settings, None)
    assert f"{tmp_path / 'nowhere'}: no such folder" in refused(settings, tmp_path / "nowhere")


@pytest.mark.parametrize("settings", [RAFDB, FERPLUS, FOLDER], ids=lambda settings: settings.source)
def test_a_file_or_an_empty_folder_is_not_the_dataset(tmp_path: Path, settings: DatasetSettings) -> None:
    assert "looked for" in refused(settings, tmp_path)
    (tmp_path / "file").write_text("")
    assert "file: not a folder; give the one that holds the dataset with --data" in refused(settings, tmp_path / "file")
    (tmp_path / "faces.CSV").write_text("path,label\n")
    assert "or for a list of images set dataset.source = 'csv'" in refused(settings, tmp_path / "faces.CSV")


def test_the_sample_needs_no_folder() -> None:
    source = open_source(DatasetSettings(count=12, image_size=32), None)
    assert source.labels == EMOTIONS[:7]
    assert source.truth == "true distribution"
    assert source.read_image(11).size == (32, 32)
    assert source.distributions is not None
    np.testing.assert_allclose(source.distributions.sum(axis=1), 1, rtol=1e-5)
    assert source.au_rows is not None
    assert set(source.au_rows["index"]) <= set(range(12))


@pytest.mark.parametrize("name", ["FER2013.csv", "Fer2013.CSV", "archive/ICML_Face_Data.csv"])
def test_fer2013_is_found_in_whatever_case(tmp_path: Path, name: str) -> None:
    face = " ".join(["7"] * 48**2)
    rows = [(emotion, face, "Training") for emotion in (0, 3, 3)]
    write_rows(tmp_path / name, ("emotion", "pixels", "Usage"), *rows)
    assert counts(open_source(FER2013, tmp_path)) == {"happiness": 2, "anger": 1}


def test_fer2013_in_class_folders_is_told_to_be_a_source_of_its_own(tmp_path: Path) -> None:
    save_faces(tmp_path / "train" / "angry", 1, "jpg")
    assert "for images in class folders set dataset.source = 'folder'" in refused(FER2013, tmp_path)
    assert "or 'folder' for images in class folders, which have no votes" in refused(FERPLUS, tmp_path)
