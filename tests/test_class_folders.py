"""Folders of classes as people have them: names, numbers, subjects, splits, and what is no image."""

import os
from pathlib import Path

import pytest
from helpers.dataset_files import FOLDER, counts, names_by_id, refused, save_faces, save_image, splits_by_id
from PIL import Image

from fer_core.data.readers import open_source
from fer_core.experiment import DatasetSettings


def test_class_folders_are_emotions_under_any_name(tmp_path: Path) -> None:
    for name in ("Sad", "happy", "neutral", "surprised"):
        save_image(tmp_path / name / "1.PNG")
    (tmp_path / "happy" / "notes.txt").write_text("no image")
    source = open_source(FOLDER, tmp_path)
    assert source.labels == ("neutral", "happiness", "surprise", "sadness")
    assert names_by_id(source) == {
        "Sad/1": "sadness",
        "happy/1": "happiness",
        "neutral/1": "neutral",
        "surprised/1": "surprise",
    }
    assert set(source.records["split"]) == {""}


def test_other_class_folders_keep_their_names(tmp_path: Path) -> None:
    for name in ("calm", "bored", "awake"):
        save_image(tmp_path / name / "1.jpg")
    assert open_source(FOLDER, tmp_path).labels == ("awake", "bored", "calm")


def test_folders_of_splits_are_understood(tmp_path: Path) -> None:
    for split in ("train", "val", "Test"):
        for name in ("happy", "sad"):
            save_image(tmp_path / split / name / "1.jpg")
    source = open_source(FOLDER, tmp_path)
    assert source.labels == ("happiness", "sadness")
    assert splits_by_id(source)["val/sad/1"] == "validation"
    assert set(source.records["split"]) == {"train", "validation", "test"}


def test_two_endings_of_one_name_are_two_images(tmp_path: Path) -> None:
    for name in ("happy/1.jpg", "happy/1.png", "sad/1.jpg"):
        save_image(tmp_path / name)
    assert open_source(FOLDER, tmp_path).records["id"].tolist() == ["happy/1.jpg", "happy/1.png", "sad/1"]


def test_what_is_no_layout_of_class_folders_is_refused(tmp_path: Path) -> None:
    assert "0 images in 0 class folders; looked for CLASS/*" in refused(FOLDER, tmp_path)
    (tmp_path / "happy").mkdir()
    (tmp_path / "happy" / "1.avi").write_bytes(b"")
    assert refused(FOLDER, tmp_path).endswith("; files that are no images: 1 .avi")
    save_image(tmp_path / "happy" / "1.jpg")
    said = refused(FOLDER, tmp_path)
    assert "1 images in 1 classes" in said
    assert "where a CSV lists images with path and label, set dataset.source = 'csv'" in said
    save_image(tmp_path / "test" / "happy" / "1.jpg")
    assert "the folder happy is beside test" in refused(FOLDER, tmp_path)


def test_a_folder_of_test_images_alone_is_read(tmp_path: Path) -> None:
    for name in ("happy", "sad"):
        save_image(tmp_path / "test" / name / "1.jpg")
    assert set(open_source(FOLDER, tmp_path).records["split"]) == {"test"}


# Splits


@pytest.mark.parametrize(
    "names",
    [
        ("Training", "validation", "Test"),
        ("train_set", "valid_set", "test_set"),
        ("training_data", "dev", "Testing"),
        ("Training", "PublicTest", "PrivateTest"),
        ("my-faces-train", "my-faces-val", "my-faces-test"),
        ("entrenamiento", "validación", "prueba"),
        ("Treino", "VALIDACAO", "Teste"),
        ("apprentissage", "validation", "tests"),
        ("Trainingsdaten", "Validierung", "Testdaten"),
        ("训练集", "验证集", "测试集"),
    ],
)
def test_splits_are_known_by_any_usual_name(tmp_path: Path, names: tuple[str, str, str]) -> None:
    for name in names:
        for label in ("happy", "sad"):
            save_image(tmp_path / name / label / "1.jpg")
    splits = open_source(FOLDER, tmp_path).records["split"]
    assert splits.value_counts().to_dict() == {"train": 2, "validation": 2, "test": 2}


def test_splits_below_a_folder_that_holds_all_are_splits(tmp_path: Path) -> None:
    for name in ("Train_Aligned_Faces", "Val_Aligned_Faces", "Test_Aligned_Faces"):
        for label in ("happy", "sad"):
            save_image(tmp_path / "archive" / "SFEW_2" / name / label / "1.jpg")
    splits = open_source(FOLDER, tmp_path).records["split"]
    assert splits.value_counts().to_dict() == {"train": 2, "validation": 2, "test": 2}


@pytest.mark.parametrize("place", ["fer_training_data", "a/train", "test/b"])
def test_a_folder_of_all_images_may_be_called_after_a_split_too(tmp_path: Path, place: str) -> None:
    for split in ("train", "test"):
        for label in ("happy", "sad"):
            save_image(tmp_path / place / split / label / "1.jpg")
    source = open_source(FOLDER, tmp_path)
    assert source.records["split"].tolist() == ["test", "test", "train", "train"]
    assert source.labels == ("happiness", "sadness")
    save_image(tmp_path / place / "faces" / "happy" / "1.jpg")
    assert f"the folder {place}/faces is beside {place}/test, so it may be a class" in refused(FOLDER, tmp_path)
    save_image(tmp_path / "val" / "train" / "happy" / "1.jpg")
    assert "two splits; have each image below just one" in refused(FOLDER, tmp_path)


@pytest.mark.parametrize("name", ["eval", "Holdout", "my_evaluation"])
def test_a_folder_that_may_be_of_either_split_is_no_class(tmp_path: Path, name: str) -> None:
    for place in ("one", name):
        save_faces(tmp_path / place, 2)
    assert f"{name} is the name of a split, not of a class" in refused(FOLDER, tmp_path)


def test_folders_above_the_classes_that_are_no_splits_are_told(tmp_path: Path) -> None:
    for place in ("first", "second"):
        for label in ("happy", "sad"):
            save_image(tmp_path / "all" / place / label / "1.jpg")
    notes = open_source(FOLDER, tmp_path).notes
    assert "folders above the classes that are no splits: all/first, all/second" in notes


@pytest.mark.parametrize(
    "splits", [("Training", "PublicTest", "PrivateTest"), ("train", "test", "train"), ("val-", "dev", "test-")]
)
def test_splits_that_names_of_files_alone_say_are_told_not_to_count(tmp_path: Path, splits: tuple[str, ...]) -> None:
    for label in ("happy", "sad"):
        for number, split in enumerate(splits):
            save_image(tmp_path / label / f"{split}_{number}.jpg")
    notes = open_source(FOLDER, tmp_path).notes
    assert sum(note.startswith("names of files speak of splits, which do not count: ") for note in notes) == 1
    for folder, to in (("happy", "awake"), ("sad", "bored")):
        (tmp_path / folder).rename(tmp_path / to)
    said = refused(FOLDER, tmp_path)
    assert "no folder is called after an emotion, and names of files speak of splits" in said
    assert said.endswith("or say what the folders mean in [dataset.classes]")
    own = DatasetSettings(source="folder", classes={"awake": "awake", "bored": "bored"})
    assert open_source(own, tmp_path).labels == ("awake", "bored")
    tmp_path.joinpath("awake").rename(tmp_path / "happy")
    (tmp_path / "train").mkdir()
    for folder in ("happy", "bored"):
        (tmp_path / folder).rename(tmp_path / "train" / folder)
    own = DatasetSettings(source="folder", classes={"bored": "bored"})
    assert not any("speak of splits" in note for note in open_source(own, tmp_path).notes)


def test_a_person_whose_name_is_a_splits_says_none(tmp_path: Path) -> None:
    for label in ("happy", "sad"):
        for name in ("val_1", "dev_2", "anna_1", "anna_2", "ben_1"):
            save_image(tmp_path / label / f"{name}.jpg")
    assert not any("speak of splits" in note for note in open_source(FOLDER, tmp_path).notes)


def test_splits_below_the_classes_are_splits_too(tmp_path: Path) -> None:
    for label in ("happy", "sad"):
        for split in ("train", "val", "test"):
            save_image(tmp_path / label / split / "1.jpg")
    source = open_source(FOLDER, tmp_path)
    assert splits_by_id(source)["sad/val/1"] == "validation"
    assert source.labels == ("happiness", "sadness")


@pytest.mark.parametrize(
    "names", [("FER2013Train", "FER2013Valid", "FER2013Test"), ("train", "test"), ("Test",), ("prueba",)]
)
def test_folders_of_splits_without_classes_are_no_classes(tmp_path: Path, names: tuple[str, ...]) -> None:
    for name in names:
        save_faces(tmp_path / name, 3)
    said = refused(FOLDER, tmp_path)
    assert ": a split's folder with 3 images outside of class folders" in said
    assert "ferplus" not in said
    (tmp_path / names[0] / "label.csv").write_text("")
    assert "dataset.source = 'ferplus', whose layout this is" in refused(FOLDER, tmp_path)


def test_a_split_without_classes_beside_one_with_them_is_named_at_any_depth(tmp_path: Path) -> None:
    for label in ("happy", "sad"):
        save_faces(tmp_path / "a" / "data" / "train" / label, 2)
    save_faces(tmp_path / "a" / "data" / "test", 3)
    save_image(tmp_path / "logo.png")
    assert "a/data/test: a split's folder with 3 images outside of class folders" in refused(FOLDER, tmp_path)


@pytest.mark.parametrize("names", [("train_happy", "train_sad", "test_happy"), ("happy_train", "happy_test")])
def test_a_folder_that_is_class_and_split_in_one_is_refused(tmp_path: Path, names: tuple[str, ...]) -> None:
    for name in names:
        save_image(tmp_path / name / "1.jpg")
    assert "is the name of a split, not of a class" in refused(FOLDER, tmp_path)


# Folders in folders


@pytest.mark.parametrize(
    "place",
    [
        "{label}/S005",
        "{label}/a/b/c",
        "S005/{label}",
        "faces/S005/{label}/001",
        "dataset/images/{label}",
        "fold1/{label}",
    ],
)
def test_images_are_read_at_any_depth_by_the_folder_that_is_an_emotion(tmp_path: Path, place: str) -> None:
    for label in ("happy", "sad"):
        save_faces(tmp_path / place.format(label=label), 4)
    assert counts(open_source(FOLDER, tmp_path)) == {"happiness": 4, "sadness": 4}


def test_subjects_folders_below_other_words_are_no_classes(tmp_path: Path) -> None:
    for label in ("awake", "bored"):
        for subject in ("S1", "S2"):
            save_faces(tmp_path / "train" / label / subject, 2)
    assert counts(open_source(FOLDER, tmp_path)) == {"awake": 4, "bored": 4}


def test_people_are_no_classes_where_folders_below_them_speak_of_emotions(tmp_path: Path) -> None:
    for person in ("aia", "bonnie"):
        for label in ("anger", "joy"):
            save_faces(tmp_path / person / f"{person}_{label}", 2)
    assert "no folder is called after an emotion alone, but some speak of one, such as aia_anger" in refused(
        FOLDER, tmp_path
    )
    classes = {f"{person}_{label}": label for person in ("aia", "bonnie") for label in ("anger", "joy")}
    assert counts(open_source(DatasetSettings(source="folder", classes=classes), tmp_path)) == {
        "anger": 4,
        "happiness": 4,
    }
    for light in ("normal_light", "dim_light"):
        save_faces(tmp_path / "other" / "awake" / light, 2)
        save_faces(tmp_path / "other" / "bored" / light, 2)
    assert counts(open_source(FOLDER, tmp_path / "other")) == {"awake": 4, "bored": 4}


@pytest.mark.parametrize(
    "names",
    [
        ("AF01/AF01ANS.JPG", "AF01/AF01HAS.JPG", "AF02/AF02ANS.JPG", "AM01/AM01ANS.JPG"),
        ("S005/001/S005_001_01.png", "S010/002/S010_002_01.png"),
        ("subject 1/a.jpg", "Subject 2/a.jpg", "subject 3/a.jpg"),
        ("train/p-07-x/a.jpg", "test/p-08-x/a.jpg"),
    ],
)
def test_words_that_differ_by_a_number_have_no_meaning_without_a_map(tmp_path: Path, names: tuple[str, ...]) -> None:
    for name in names:
        save_image(tmp_path / name)
    said = refused(FOLDER, tmp_path)
    assert "differ by numbers, which say nothing of what they show; if they are people, list the images" in said
    folders = {name.removeprefix("train/").removeprefix("test/").split("/")[0] for name in names}
    settings = DatasetSettings(source="folder", classes={folder: folder for folder in folders})
    assert len(open_source(settings, tmp_path).records) == len(names)


def test_a_number_in_one_word_is_part_of_its_name(tmp_path: Path) -> None:
    for name in ("calm", "phase2", "awake"):
        save_image(tmp_path / name / "1.jpg")
    assert open_source(FOLDER, tmp_path).labels == ("awake", "calm", "phase2")


def test_people_are_no_classes_where_their_files_speak_of_emotions(tmp_path: Path) -> None:
    for person in ("anna", "bob"):
        for name in ("happy_1", f"{person}-Sad", "3_angry", "portrait"):
            save_image(tmp_path / person / f"{name}.jpg")
    said = refused(FOLDER, tmp_path)
    assert "no folder is called after an emotion, but names of files speak of them, such as anna/3_angry" in said
    posed = DatasetSettings(source="folder", classes={"anna": "anna", "bob": "bob"})
    assert open_source(posed, tmp_path).labels == ("anna", "bob")


@pytest.mark.parametrize("place", ["{label}/{subject}", "{subject}/{label}/001"])
def test_folders_that_may_be_peoples_are_told_where_a_split_is_cut(tmp_path: Path, place: str) -> None:
    for label in ("happy", "sad"):
        for subject in ("S1", "S2", "S3", "S4"):
            save_faces(tmp_path / "faces" / "train" / place.format(label=label, subject=subject), 2)
    assert any(
        note.startswith("folders that several classes have: S1")
        and "with a column subject" in note
        and "1 more" in note
        for note in open_source(FOLDER, tmp_path / "faces").notes
    )
    for split in ("validation", "test"):
        save_faces(tmp_path / "faces" / split / "happy", 2)
    assert not any("with a column subject" in note for note in open_source(FOLDER, tmp_path / "faces").notes)


@pytest.mark.parametrize("name", ["{who}_004_00000017", "{who}.AN1.39", "{who}ANS"])
def test_file_names_that_may_be_peoples_are_told_where_a_split_is_cut(tmp_path: Path, name: str) -> None:
    for label in ("happy", "sad"):
        for who in range(10, 17):
            save_image(tmp_path / label / f"{name.format(who=f'S{who}')}.png")
    told = "file names of several classes begin alike: S10, S11, S12 and 4 more; if they are people, list the images"
    assert any(note.startswith(told) for note in open_source(FOLDER, tmp_path).notes)


@pytest.mark.parametrize("name", ["PublicTest_{number}", "fer{number:07d}", "{label}_{number}", "{label}-{number}_x"])
def test_file_names_that_count_are_not_taken_for_peoples(tmp_path: Path, name: str) -> None:
    for label in ("happy", "sad"):
        for number in range(7):
            save_image(tmp_path / label / f"{name.format(label=label, number=number)}.png")
    assert not any("begin alike" in note for note in open_source(FOLDER, tmp_path).notes)


def test_a_stray_class_among_subjects_is_named_as_one(tmp_path: Path) -> None:
    for subject in ("S1", "S2"):
        for label in ("happy", "sad", "uncertain"):
            save_faces(tmp_path / subject / label, 2)
    assert "labels uncertain (4) of 12 images" in refused(FOLDER, tmp_path)


def test_an_image_below_two_emotions_is_refused(tmp_path: Path) -> None:
    save_faces(tmp_path / "happy" / "sad", 1)
    assert "happy/sad names more than one class" in refused(FOLDER, tmp_path)


# Labels


def test_names_of_one_emotion_are_one_class(tmp_path: Path) -> None:
    for name, count in {"happy": 3, "HAPPY": 2, "Joy": 1, "4_sad": 2, "Sadness": 2, " Suprise ": 1}.items():
        save_faces(tmp_path / name, count)
    source = open_source(FOLDER, tmp_path)
    assert counts(source) == {"happiness": 6, "surprise": 1, "sadness": 4}
    assert "happiness 6 (HAPPY (2), Joy (1), happy (3))" in source.notes[0]


def test_spellings_of_a_class_of_its_own_are_one_class(tmp_path: Path) -> None:
    for name, count in {"Joie": 1, "joie": 3, " JOIE": 1, "Col\u00e8re": 2, "cole\u0300re": 1}.items():
        save_faces(tmp_path / name, count)
    source = open_source(FOLDER, tmp_path)
    assert counts(source) == {"Col\u00e8re": 3, "joie": 5}
    assert "joie 5 ( JOIE (1), Joie (1), joie (3))" in source.notes[0]


def test_folders_are_named_in_whatever_case(tmp_path: Path) -> None:
    for place in ("anna/Wut", "anna/FREUDE", "berta/Wut", "berta/FREUDE"):
        save_faces(tmp_path / place, 3)
    notes = open_source(FOLDER, tmp_path).notes
    assert any("FREUDE, Wut; if" in note and "if they are the classes, name each in [dataset" in note for note in notes)
    settings = DatasetSettings(source="folder", classes={"wut": "anger", "freude": "happiness"})
    assert counts(open_source(settings, tmp_path)) == {"happiness": 6, "anger": 6}


def test_classes_of_their_own_that_speak_of_emotions_are_told(tmp_path: Path) -> None:
    for name in ("happy_face", "sad_face", "Tired"):
        save_faces(tmp_path / name, 2)
    source = open_source(FOLDER, tmp_path)
    assert source.labels == ("Tired", "happy_face", "sad_face")
    assert source.notes[1] == (
        "classes of their own that speak of emotions: happy_face, sad_face; if they are these, say so in "
        '[dataset.classes], such as happy_face = "happiness"'
    )
    table = {"happy_face": "joy", "sad_face": "sad_face", "Tired": "Tired"}
    assert len(open_source(DatasetSettings(source="folder", classes=table), tmp_path).notes) == 1


def test_a_stray_label_is_named_with_its_count_until_a_map_says_what_becomes_of_it(tmp_path: Path) -> None:
    for name, count in {"happy": 10, "sad": 10, "Uncertain": 4, "smile": 2}.items():
        save_faces(tmp_path / name, count)
    said = refused(FOLDER, tmp_path)
    assert "labels Uncertain (4), smile (2) of 26 images" in said
    assert 'in [dataset.classes], such as Uncertain = "drop"' in said
    table = {"uncertain": "drop", "smile": "happiness"}
    source = open_source(DatasetSettings(source="folder", classes=table), tmp_path)
    assert counts(source) == {"happiness": 12, "sadness": 10}
    assert source.dropped == {"labelled Uncertain": 4}
    assert "dropped 4 (Uncertain)" in source.notes[0]
    table = {"Uncertain": "Uncertain", "smile": "Joy", "grin": "happiness"}
    source = open_source(DatasetSettings(source="folder", classes=table), tmp_path)
    assert source.labels == ("happiness", "sadness", "Uncertain")
    assert source.notes[1] == "[dataset.classes] names grin, which no image is labelled"


def test_a_word_beside_emotions_may_be_a_class_of_its_own_and_it_is_told_how(tmp_path: Path) -> None:
    for name in ("positive", "negative", "neutral", "surprise"):
        save_faces(tmp_path / name, 2)
    assert 'such as negative = "drop", an emotion, or "negative" for a class of its own' in refused(FOLDER, tmp_path)
    own = DatasetSettings(source="folder", classes={"negative": "negative", "positive": "positive"})
    assert open_source(own, tmp_path).labels == ("neutral", "surprise", "negative", "positive")


def test_a_class_of_its_own_may_be_called_drop(tmp_path: Path) -> None:
    for name in ("drop", "lift"):
        save_faces(tmp_path / name, 2)
    assert counts(open_source(FOLDER, tmp_path)) == {"drop": 2, "lift": 2}


def test_a_map_that_fits_nothing_or_means_nothing_is_refused(tmp_path: Path) -> None:
    for name in ("happy", "sad"):
        save_faces(tmp_path / name, 1)
    said = refused(DatasetSettings(source="folder", classes={"0": "happiness"}), tmp_path)
    assert "none of the labels in [dataset.classes] is there; there are happy (1), sad (1)" in said
    said = refused(DatasetSettings(source="folder", classes={"happy": "hapiness"}), tmp_path)
    assert 'dataset.classes has happy = "hapiness", which is none of neutral, happiness' in said


def test_the_key_that_is_the_label_goes_before_others(tmp_path: Path) -> None:
    for name in ("Fear", "happy", "sad"):
        save_faces(tmp_path / name, 2)
    table = {"Fear": "fear", "fear": "drop", "FEAR": "anger"}
    source = open_source(DatasetSettings(source="folder", classes=table), tmp_path)
    assert counts(source) == {"happiness": 2, "fear": 2, "sadness": 2}
    assert source.notes[1] == "[dataset.classes] names fear, FEAR, which no image is labelled"


@pytest.mark.parametrize(
    ("names", "keys"), [(("Fear", "sad"), ("fear", "FEAR")), (("0", "1"), ("00", "0.0")), (("1.0", "0"), ("1", "01"))]
)
def test_keys_that_say_different_things_of_a_label_are_refused(
    tmp_path: Path, names: tuple[str, str], keys: tuple[str, str]
) -> None:
    for name in names:
        save_faces(tmp_path / name, 2)
    table = {keys[0]: "fear", keys[1]: "anger"}
    said = refused(DatasetSettings(source="folder", classes=table), tmp_path)
    assert f"says different things of the label {names[0]}, as {keys[0]} and as {keys[1]}; keep one of them" in said
    table[keys[1]] = "fear"
    classes = {**table, names[1]: "sadness"}
    assert counts(open_source(DatasetSettings(source="folder", classes=classes), tmp_path)) == {"fear": 2, "sadness": 2}


@pytest.mark.parametrize("names", [("0", "1", "2"), ("1", "2"), ("01", "02"), ("0", "happy")])
def test_numbers_have_no_meaning_without_a_map(tmp_path: Path, names: tuple[str, ...]) -> None:
    for name in names:
        save_faces(tmp_path / name, 2)
    said = refused(FOLDER, tmp_path)
    assert f"labels {names[0]} (2)" in said
    assert "say what each means in [dataset.classes]" in said
    assert "set dataset.source" in said
    table = {str(number): emotion for number, emotion in enumerate(("happiness", "sadness", "fear"))}
    if "happy" not in names:
        assert sum(counts(open_source(DatasetSettings(source="folder", classes=table), tmp_path)).values()) >= 2


# What is in the folders


@pytest.mark.parametrize("ending", ["jpg", "jfif", "pgm", "gif", "webp", "tiff", "TIF", "JPEG", "bmp", "ppm", "PNG"])
def test_whatever_is_opened_when_named_is_opened_in_a_folder(tmp_path: Path, ending: str) -> None:
    for label in ("happy", "sad"):
        (tmp_path / label).mkdir()
        for number in range(2):
            image = Image.new("L", (16, 16), 50 * number)
            image.save(tmp_path / label / f"{number}.{ending}")
    source = open_source(FOLDER, tmp_path)
    assert counts(source) == {"happiness": 2, "sadness": 2}
    assert source.read_image(1).size == (16, 16)


def test_what_is_no_image_is_counted_by_ending_and_kind(tmp_path: Path) -> None:
    for label in ("happy", "sad"):
        save_faces(tmp_path / label, 2)
        (tmp_path / label / "notes.TXT").write_text("")
    (tmp_path / "happy" / "noending").write_text("")
    (tmp_path / "happy" / "a.xyz").write_text("")
    (tmp_path / "happy" / ".DS_Store").write_text("")
    (tmp_path / "happy" / "gone.png").symlink_to(tmp_path / "nowhere")
    (tmp_path / "happy" / "circle.png").symlink_to(tmp_path / "happy" / "circle.png")
    os.mkfifo(tmp_path / "sad" / "pipe.png")
    (tmp_path / "sad" / "device.png").symlink_to("/dev/zero")
    save_faces(tmp_path, 1)
    source = open_source(FOLDER, tmp_path)
    assert len(source.records) == 4
    assert source.notes[1:] == (
        "images in no class folder, not read: 1",
        "files that are no images: 2 .txt, 2 links to nothing, 2 pipes, sockets or devices, 1 .xyz, 1 hidden, "
        "1 without an ending",
    )


@pytest.mark.parametrize("ending", ["gif", "tiff", "webp"])
def test_images_of_several_frames_are_told(tmp_path: Path, ending: str) -> None:
    frames = [Image.new("L", (16, 16), shade) for shade in (200, 20)]
    for label in ("happy", "sad"):
        save_faces(tmp_path / label, 1, ending)
        frames[0].save(tmp_path / label / f"moving.{ending}", save_all=True, append_images=frames[1:], lossless=True)
    source = open_source(FOLDER, tmp_path)
    assert source.notes[1:] == ("images of several frames, of which the first is read: 2",)
    assert source.read_image(1).convert("L").getpixel((0, 0)) == 200


def test_links_are_followed_once_and_never_in_circles(tmp_path: Path) -> None:
    save_faces(tmp_path / "disk" / "happy", 3)
    save_faces(tmp_path / "data" / "sad", 3)
    (tmp_path / "data" / "happy").symlink_to(tmp_path / "disk" / "happy")
    (tmp_path / "data" / "sad" / "again").symlink_to(tmp_path / "data")
    (tmp_path / "data" / "sad" / "3.png").symlink_to(tmp_path / "disk" / "happy" / "0.png")
    assert counts(open_source(FOLDER, tmp_path / "data")) == {"happiness": 3, "sadness": 4}


NAMES = [
    b"ni\xf1o.png",
    "ni\xf1o.png".encode(),
    b"a\nb.png",
    b"tab\t.png",
    b"back\\slash.png",
    b"\\xf1.png",
    b"\xf1.png",
]


def test_any_name_that_a_file_system_holds_is_an_id_of_its_own(tmp_path: Path) -> None:
    for label in (b"happy", b"sad"):
        save_faces(tmp_path / label.decode(), 1)
        for name in NAMES:
            (tmp_path / label.decode() / "0.png").rename(
                os.fsdecode(os.fsencode(tmp_path) + b"/" + label + b"/" + name)
            )
            save_faces(tmp_path / label.decode(), 1)
    source = open_source(FOLDER, tmp_path)
    ids = source.records["id"].tolist()
    assert len(set(ids)) == len(ids) == 16
    assert all(name.encode() and len(name.splitlines()) == 1 for name in ids)
    assert r"happy/ni\xf1o" in ids
    assert "happy/niño" in ids
    for row in range(16):
        source.read_image(row)


def test_class_folders_in_another_encoding_are_text(tmp_path: Path) -> None:
    for name in (b"\xdcberraschung", b"Freude", b"\x81"):
        save_faces(tmp_path / "new", 2)
        (tmp_path / "new").rename(tmp_path / os.fsdecode(name))
    source = open_source(FOLDER, tmp_path)
    assert source.labels == ("Freude", r"\x81", "\xdcberraschung")
    assert source.read_image(5).size == (16, 16)
    table = {"\xfcberraschung": "surprise", "Freude": "joy", r"\x81": "drop"}
    named = DatasetSettings(source="folder", classes=table)
    assert counts(open_source(named, tmp_path)) == {"happiness": 2, "surprise": 2}
