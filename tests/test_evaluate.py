"""A checkpoint on a dataset that it was not trained on: whichever classes, images, size and colour that has."""

import hashlib
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import striped_dataset
from PIL import Image
from scipy.special import softmax
from sklearn.metrics import f1_score
from test_published import publish
from torch import nn

from fer_core.artifacts import Artifact, make_artifact
from fer_core.data.dataset import EMOTIONS, Dataset, open_dataset, save_dataset
from fer_core.devices import processor_of
from fer_core.errors import CheckpointError
from fer_core.evaluation.common_ground import common_ground, meanings
from fer_core.evaluation.metrics import CLIPPING
from fer_core.evaluation.model_card import MODEL_CARD
from fer_core.experiment import experiment_from
from fer_core.models.architectures import build
from fer_core.models.checkpoint import (
    Choice,
    ModelCard,
    load_checkpoint,
    read_card,
    read_training_images,
    save_training_images,
)
from fer_core.models.deployed import Deployed
from fer_core.models.published import PUBLISHED, PUBLISHED_ORDER
from fer_core.progress import JsonLines
from fer_core.steps import request
from fer_core.steps.run import run_step
from fer_core.train.import_weights import import_weights

ROOT = Path(__file__).parent.parent
PLAN = {
    "seeds": [1],
    "evaluation": {"bootstrap": 20},
    "run": {"device": "cpu"},
    "sll": {"epochs": 1, "batch": 16, "input_size": 48, "precision": "float32"},
}
EXPERIMENT = experiment_from(PLAN, "test")


class Notes(JsonLines):
    """A reporter that remembers what is said."""

    def __init__(self) -> None:
        super().__init__()
        self.said: list[str] = []

    def note(self, text: str) -> None:
        self.said.append(text)


def prepared(folder: Path, images: Dataset, **card: Any) -> Artifact:
    """An artifact as `fer prepare` makes it, of what is in memory."""

    def write(out: Path) -> None:
        manifest = images.manifest.assign(sha256=[hashlib.sha256(i.tobytes()).hexdigest() for i in images.images])
        save_dataset(out, replace(images.card, **card), manifest)
        np.save(out / "images.npy", images.images)

    settings = {"dataset": {"labels": "majority"}}
    return make_artifact(folder, "prepare", f"prepare {folder.name}", settings, {}, write)


def only_test(images: Dataset) -> Dataset:
    """All of a dataset as a test split, as a dataset is that has no other."""
    return replace(images, manifest=images.manifest.assign(split="test"))


def kept(images: Dataset, rows: np.ndarray) -> Dataset:
    manifest = images.manifest.iloc[rows].reset_index(drop=True)
    return replace(images, manifest=manifest, images=np.asarray(images.images)[rows])


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The dataset of a checkpoint, the checkpoint, and a dataset of other images of the same classes."""
    folder = tmp_path_factory.mktemp("home")
    own = prepared(folder / "own", striped_dataset(folder / "drawn"))
    run_step(request("distill", EXPERIMENT, [own], seed=1), folder / "checkpoint", JsonLines())
    return folder


@pytest.fixture
def checkpoint(home: Path) -> Artifact:
    return Artifact(
        home / "checkpoint", "distill", json.loads((home / "checkpoint/manifest.json").read_text())["fingerprint"]
    )


def others(folder: Path, count: int = 40, size: int = 48, labels: tuple[str, ...] = EMOTIONS[:3]) -> Dataset:
    """Other drawings, of which none is in `home`."""
    drawn = striped_dataset(folder, count, size, labels)
    return replace(drawn, images=255 - np.asarray(drawn.images))


def evaluated(dataset: Artifact, model: Artifact, out: Path) -> tuple[dict[str, Any], pd.DataFrame, list[str]]:
    notes = Notes()
    made = run_step(request("evaluate", EXPERIMENT, [dataset, model]), out, notes)
    figures = json.loads(made.file("metrics.json").read_text())
    return figures, pd.read_parquet(made.file("predictions.parquet")), notes.said


def logits_of(model: Artifact, images: np.ndarray) -> np.ndarray:
    network, card = load_checkpoint(model.path)
    with torch.inference_mode():
        rgb = torch.from_numpy(images).expand(-1, -1, -1, 3)
        found: np.ndarray = Deployed(network, card).eval().logits(rgb).numpy()
    return found


def test_on_a_gpu_it_is_judged_elsewhere_with_all_bits_as_at_home(
    checkpoint: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rounded, logits = list[bool](), Deployed.logits

    def seen(deployed: Deployed, images: torch.Tensor) -> torch.Tensor:
        rounded.append(torch.backends.cudnn.allow_tf32)
        return logits(deployed, images)

    monkeypatch.setattr(Deployed, "logits", seen)
    evaluated(prepared(tmp_path / "others", others(tmp_path / "drawn")), checkpoint, tmp_path / "out")
    assert set(rounded) == {False}


def test_the_dataset_it_was_trained_on_is_judged_as_ever(home: Path, checkpoint: Artifact, tmp_path: Path) -> None:
    own = Artifact(home / "own", "prepare", "prepare own")
    figures, table, _ = evaluated(own, checkpoint, tmp_path / "out")
    assert "judged_on" not in figures
    assert figures["selected"].keys() == {"validation", "test"}
    assert figures["selected"]["test"]["accuracy"] == figures["figures"]["test"]["accuracy"]
    assert set(table["split"]) == {"validation", "test"}


def test_a_last_epoch_that_is_the_selected_one_is_judged_once(
    home: Path, checkpoint: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = list[str]()

    def load(folder: Path, choice: Choice) -> tuple[nn.Module, ModelCard]:
        loaded.append(choice)
        return load_checkpoint(folder, choice)

    monkeypatch.setattr("fer_core.evaluation.evaluate.load_checkpoint", load)
    own = Artifact(home / "own", "prepare", "prepare own")
    elsewhere = prepared(tmp_path / "others", others(tmp_path / "drawn"))
    for dataset, splits in ((own, 2), (elsewhere, 1)):
        figures, table, _ = evaluated(dataset, checkpoint, tmp_path / f"out-{splits}")
        assert figures["last"] == figures["selected"]
        assert table["choice"].value_counts().to_dict() == {"selected": len(table) / 2, "last": len(table) / 2}
    assert loaded == ["selected", "selected"]


def test_a_dataset_with_a_test_split_alone_is_judged(home: Path, checkpoint: Artifact, tmp_path: Path) -> None:
    other = only_test(others(tmp_path / "drawn"))
    figures, table, said = evaluated(prepared(tmp_path / "other", other), checkpoint, tmp_path / "out")
    logits = logits_of(checkpoint, other.images)
    right = logits.argmax(axis=1) == other.labels()
    assert figures["selected"]["test"]["accuracy"] == pytest.approx(right.mean())
    assert figures["selected"].keys() == figures["calibrated"].keys() == {"test"}
    assert list(table["id"][table["choice"] == "selected"]) == list(other.manifest["id"])
    assert figures["judged_on"]["images"] == {"test": 40, "judged": 40}
    assert figures["judged_on"]["classes"] == {"checkpoint": 3, "dataset": 3, "judged": 3}
    assert any(
        "3 classes are judged, of 3 of the checkpoint and 3 of the dataset; 40 of 40 test images" in s for s in said
    )


def test_other_words_fewer_and_more_classes_are_matched_by_what_they_mean(checkpoint: Artifact, tmp_path: Path) -> None:
    """The checkpoint knows neutral, happiness, surprise; the dataset two of them by other names, and one more."""
    words = ("Surprised", "Joy", "boredom")
    other = only_test(others(tmp_path / "drawn", labels=words))
    figures, table, said = evaluated(prepared(tmp_path / "other", other), checkpoint, tmp_path / "out")
    known = other.labels() < 2
    logits = logits_of(checkpoint, np.asarray(other.images)[known])[:, 1:]  # happiness, surprise
    expected = softmax(logits.astype(np.float64), axis=1)
    wanted = np.where(other.labels()[known] == 0, 1, 0)  # Surprised is the checkpoint's surprise, Joy its happiness
    judged_on, test = figures["judged_on"], figures["selected"]["test"]
    assert judged_on["labels"] == ["happiness", "surprise"]
    assert judged_on["classes"] == {"checkpoint": 3, "dataset": 3, "judged": 2}
    assert judged_on["classes_left_out"] == {"checkpoint": ["neutral"], "dataset": {"boredom": int((~known).sum())}}
    assert judged_on["images"] == {"test": 40, "judged": int(known.sum())}
    selected = table[table["choice"] == "selected"]
    np.testing.assert_allclose(selected[["happiness", "surprise"]].to_numpy(), expected, atol=1e-6)
    assert test["accuracy"] == pytest.approx((expected.argmax(axis=1) == wanted).mean())
    assert test["macro_f1"] == pytest.approx(
        f1_score(wanted, expected.argmax(axis=1), average="macro", zero_division=0)
    )
    assert any("classes left out of the checkpoint: neutral" in sentence for sentence in said)
    assert any(f"left out of the dataset: boredom ({(~known).sum()} images)" in sentence for sentence in said)
    crowd = other.manifest.loc[known, ["crowd_Joy", "crowd_Surprised"]].to_numpy()
    crowd = crowd / crowd.sum(axis=1, keepdims=True)
    assert test["distribution"]["total_variation"] == pytest.approx(
        np.abs(crowd - expected).sum(axis=1).mean() / 2, abs=1e-5
    )


def test_votes_for_other_classes_alone_are_counted_and_left_out(checkpoint: Artifact, tmp_path: Path) -> None:
    """Such a row has nothing that could be made to sum to 1 over the common classes."""
    other = only_test(others(tmp_path / "drawn", labels=("surprise", "joy", "boredom")))
    silent = np.flatnonzero(other.labels() < 2)[:3]
    other.manifest.loc[silent, ["crowd_surprise", "crowd_joy", "crowd_boredom"]] = (0.0, 0.0, 1.0)
    figures, table, said = evaluated(prepared(tmp_path / "other", other), checkpoint, tmp_path / "out")
    assert figures["judged_on"]["images_left_out"]["with votes for other classes alone"] == 3
    assert figures["judged_on"]["images"]["judged"] == (other.labels() < 2).sum() - 3
    assert not set(table["id"]) & set(other.manifest["id"].iloc[silent])
    assert np.isfinite(figures["selected"]["test"]["distribution"]["total_variation"])
    assert any("3 test images left out: with votes for other classes alone" in sentence for sentence in said)


def test_two_names_of_one_emotion_are_one_class(checkpoint: Artifact, tmp_path: Path) -> None:
    other = only_test(others(tmp_path / "drawn", labels=("happy", "joy", "surprise")))
    figures, _, _ = evaluated(prepared(tmp_path / "other", other), checkpoint, tmp_path / "out")
    counts = np.bincount(other.labels())
    assert np.sum(figures["selected"]["test"]["confusion"], axis=1).tolist() == [counts[0] + counts[1], counts[2]]


def test_a_word_means_the_same_however_its_letters_are_composed() -> None:
    """Folders that a Mac named come decomposed."""
    assert meanings(["Gêné", "2"]) == meanings([" ge\u0302ne\u0301", "02.0"]) == ["gêné", None]


@pytest.mark.parametrize("labels", [("0", "1", "2"), ("smile", "frown", "stare"), ("happiness", "frown", "stare")])
def test_classes_without_a_common_meaning_are_refused_with_the_way_out(
    checkpoint: Artifact, tmp_path: Path, labels: tuple[str, ...]
) -> None:
    other = prepared(tmp_path / "other", only_test(others(tmp_path / "drawn", labels=labels)))
    with pytest.raises(CheckpointError, match=r"and two are needed.*dataset\.classes\.smile=happiness"):
        evaluated(other, checkpoint, tmp_path / "out")


def test_numbers_of_two_datasets_have_nothing_in_common(tmp_path: Path) -> None:
    numbers = ("0", "1", "2")
    own = prepared(tmp_path / "own", striped_dataset(tmp_path / "a", labels=numbers))
    model = run_step(request("distill", EXPERIMENT, [own], seed=1), tmp_path / "model", JsonLines())
    other = prepared(tmp_path / "other", only_test(others(tmp_path / "b", labels=numbers)))
    with pytest.raises(CheckpointError, match="classes in common with the checkpoint: none"):
        evaluated(other, model, tmp_path / "out")


def test_images_that_it_was_trained_or_chosen_on_are_counted_and_left_out(
    home: Path, checkpoint: Artifact, tmp_path: Path
) -> None:
    own = open_dataset(home / "own")
    seen = kept(own, np.concatenate([own.rows("train")[:7], own.rows("validation")[:2], own.rows("test")[:5]]))
    figures, table, said = evaluated(prepared(tmp_path / "other", only_test(seen)), checkpoint, tmp_path / "out")
    judged_on = figures["judged_on"]
    assert judged_on["images"] == {"test": 14, "judged": 5}
    assert judged_on["images_left_out"] == {
        "of other classes": 0,
        "with votes for other classes alone": 0,
        "in the checkpoint's train": 7,
        "in the checkpoint's validation": 2,
    }
    assert judged_on["training_images_known"]
    assert list(table["id"][table["choice"] == "selected"]) == list(own.manifest["id"].iloc[own.rows("test")[:5]])
    assert any("7 test images left out: in the checkpoint's train" in sentence for sentence in said)


def test_nothing_but_its_own_training_images_is_refused(home: Path, checkpoint: Artifact, tmp_path: Path) -> None:
    own = open_dataset(home / "own")
    other = prepared(tmp_path / "other", only_test(kept(own, own.rows("train"))))
    with pytest.raises(CheckpointError, match=r"no test image is left to judge: of 42, 42 in the checkpoint's train"):
        evaluated(other, checkpoint, tmp_path / "out")


def test_a_checkpoint_knows_its_images_by_marks_alone_and_its_card_says_so(home: Path, checkpoint: Artifact) -> None:
    own = open_dataset(home / "own")
    marks = read_training_images(checkpoint.path)
    assert marks is not None
    for split in ("train", "validation"):
        hashes = own.manifest["sha256"].iloc[own.rows(split)]  # type: ignore[arg-type]
        assert marks[split].tolist() == sorted({int(digest[:16], 16) for digest in hashes})
    assert "training_images.npz" in (checkpoint.path / MODEL_CARD).read_text()


def test_images_without_a_label_that_a_checkpoint_learnt_from_are_left_out_when_they_have_one(
    home: Path, checkpoint: Artifact, tmp_path: Path
) -> None:
    own = open_dataset(home / "own")
    once_unlabelled = own.rows("test")[:3]
    own.manifest.loc[own.manifest.index[once_unlabelled], "split"] = "unlabelled"
    save_training_images(tmp_path, own, unlabelled=False)
    assert set(read_training_images(tmp_path) or ()) == {"train", "validation"}
    save_training_images(tmp_path, own, unlabelled=True)
    judged = only_test(kept(own, np.concatenate([once_unlabelled, own.rows("test")])))
    ground = common_ground(read_card(checkpoint.path), judged, read_training_images(tmp_path))
    np.testing.assert_allclose(ground.probabilities(np.array([[1.0, 2, 4]]), 2.0), softmax([[0.5, 1, 2]], axis=1))
    found = ground.told
    assert found["images_left_out"]["in the checkpoint's unlabelled"] == 3
    assert found["images"] == {"test": len(own.rows("test")) + 3, "judged": len(own.rows("test"))}


def test_a_card_says_its_clip_its_code_and_its_machine(checkpoint: Artifact) -> None:
    card, page = read_card(checkpoint.path), (checkpoint.path / MODEL_CARD).read_text()
    assert CLIPPING in page
    assert f"| KL, unclipped | {card.figures['test']['kl_unclipped']:.3f} |" in page
    asked = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert card.trained_on["commit"].removesuffix("-dirty") == asked.stdout.strip()
    assert card.trained_on["hardware"] == f"{processor_of(torch.device('cpu')).kind}, float32"
    assert card.trained_on["hardware"] in page


def test_what_it_was_trained_on_is_said_to_be_unknown_where_it_is(checkpoint: Artifact, tmp_path: Path) -> None:
    def copy(out: Path) -> None:
        for name in ("model.json", "selected.safetensors", "last.safetensors"):
            (out / name).write_bytes((checkpoint.path / name).read_bytes())

    foreign = make_artifact(tmp_path / "foreign", "distill", "foreign", {}, {}, copy)
    other = prepared(tmp_path / "other", only_test(others(tmp_path / "drawn")))
    figures, _, said = evaluated(other, foreign, tmp_path / "out")
    assert not figures["judged_on"]["training_images_known"]
    assert any("is not known, so none of these could be left out" in sentence for sentence in said)


@pytest.mark.parametrize(("size", "channels"), [(96, 3), (32, 1), (48, 3)])
def test_preprocessing_is_the_checkpoints(checkpoint: Artifact, tmp_path: Path, size: int, channels: int) -> None:
    """It was trained on grey images of 48 px, and takes any other at that."""
    drawn = only_test(others(tmp_path / "drawn", size=size))
    images = np.repeat(np.asarray(drawn.images), channels, axis=3)
    if channels == 3:
        images[..., 0] //= 2
    other = prepared(tmp_path / "other", replace(drawn, images=images), mean=(0.1,) * channels, std=(0.9,) * channels)
    figures, table, said = evaluated(other, checkpoint, tmp_path / "out")
    expected = softmax(logits_of(checkpoint, images).astype(np.float64), axis=1)
    found = table[table["choice"] == "selected"][list(EMOTIONS[:3])].to_numpy()
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert any("stored at 32 px and enlarged to the 48 px" in sentence for sentence in said) == (size == 32)
    assert (figures["mean"], figures["input_size"]) == ([0.5], 48)


@pytest.mark.parametrize("size", [100, 300])
def test_the_authors_weights_see_images_as_the_authors_showed_them(tmp_path: Path, size: int) -> None:
    """Resized to 224 pixels at once, bilinear, and normalised by RAF-DB's constants."""
    network = build("efficientface", 7, seed=1).eval()
    published = publish(tmp_path / "RAF-DB.pth.tar", network)
    model = import_weights(published, "efficientface", tmp_path / "model")
    drawn = only_test(others(tmp_path / "drawn", count=6, size=size))
    images = np.concatenate([drawn.images, drawn.images // 2, 255 - drawn.images], axis=3)
    other = prepared(tmp_path / "other", replace(drawn, images=images))
    figures, table, said = evaluated(other, model, tmp_path / "out")
    resized = (Image.fromarray(i).resize((224, 224), Image.Resampling.BILINEAR) for i in images)
    shown = np.stack([np.asarray(image) for image in resized])
    mean, std = (np.array(constants) for constants in (PUBLISHED["rafdb"].mean, PUBLISHED["rafdb"].std))
    pixels = torch.from_numpy(((shown / 255 - mean) / std).astype(np.float32)).permute(0, 3, 1, 2)
    common = [PUBLISHED_ORDER.index(label) for label in EMOTIONS[:3]]
    with torch.inference_mode():
        expected = torch.softmax(network(pixels)[:, common].double(), dim=1).numpy()
    found = table[table["choice"] == "selected"][list(EMOTIONS[:3])].to_numpy()
    np.testing.assert_allclose(found, expected, atol=2e-3)
    assert figures["judged_on"]["classes"] == {"checkpoint": 7, "dataset": 3, "judged": 3}
    assert any("is not known" in sentence for sentence in said)


def test_the_command_line_judges_on_another_dataset(home: Path, tmp_path: Path) -> None:
    other = prepared(tmp_path / "other", only_test(others(tmp_path / "drawn", labels=("JOY", "surprised", "boredom"))))
    command = [sys.executable, "-m", "fer_core", "evaluate", "demo", "--set", "evaluation.bootstrap=20"]
    inputs = ["--in", str(other.path), "--in", str(home / "checkpoint"), "--out", str(tmp_path / "out")]
    done = subprocess.run([*command, *inputs], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "2 classes are judged, of 3 of the checkpoint and 3 of the dataset" in done.stdout
    assert json.loads((tmp_path / "out/metrics.json").read_text())["judged_on"]["labels"] == ["happiness", "surprise"]
