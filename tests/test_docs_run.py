"""The documentation's commands, run as they are printed, with small stand-ins for what their paths name.

Steps, predictions and exports run to their end, with short settings laid over. Of `fer run` runs what precedes the
networks: a run of five models takes minutes, and tests/test_flow.py has one. What needs a container or a GPU, and what
serves until it is stopped, has tests of its own.
"""

import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
from helpers.dataset_files import write_rows
from helpers.deployed_model import DeployedModel
from helpers.openface_images import local_program, picture
from helpers.openface_tables import face, write_csv
from helpers.videos import PORTRAIT, video
from test_docs import PAGES, ROOT, blocks_in, commands_in, text_of

from fer_core.data.dataset import EMOTIONS
from fer_core.data.readers.ferplus import ANSWERS
from flows.cli import fer_app
from openface.columns import INTENSITIES, PRESENCES

SHORT = ["augment.crop_area=[0.9,1.0]", "dataset.labelled=0", "evaluation.bootstrap=20", "ldg.architecture=resnet18"]
SHORT += ["ldg.epochs_with_neighbours=1"]
SHORT += [f"{network}.{key}" for network in ("ldg", "sll", "distill") for key in ("epochs=1", "input_size=32")]
SHORT += [f"{network}.batch=32" for network in ("ldg", "sll", "distill")]
OF_FER2013 = ("anger", "disgust", "fear", "happiness", "sadness", "surprise", "neutral")
"""Its classes in the order of their numbers."""
STEPS = ("prepare", "annotate", "graph", "train-ldg", "soft-labels", "distill", "evaluate")
ELSEWHERE = {
    "serve": "serves until it is stopped; tests/test_serving.py",
    "serve-web": "serves until it is stopped; tests/test_web.py",
    "export web": "wants packages of the web page; tests/test_web.py",
}
"""Commands that are not run here, and what runs them."""


def commands_of(page: Path) -> list[list[str]]:
    """Words of the page's `fer` lines, each once, in its order."""
    found: dict[str, list[str]] = {}
    for command in commands_in(text_of(page)):
        program, *words = shlex.split(command.text)
        if command.whole and program.removeprefix(".venv/bin/") == "fer" and not _runs_elsewhere(words):
            found[command.text] = words
    return list(found.values())


def _runs_elsewhere(words: list[str]) -> bool:
    return words[0] in ELSEWHERE or f"{words[0]} {words[-1]}" in ELSEWHERE


PAGES_TO_RUN = [page for page in PAGES if commands_of(page)]


def write_class_folders(folder: Path, names: tuple[str, ...], each: int) -> None:
    for label, name in enumerate(names):
        (folder / name).mkdir(parents=True)
        for number in range(each):
            picture(1000 * label + number, side=48).save(folder / name / f"{name}{number}.png")


def write_rafdb(folder: Path) -> None:
    """Its list and its aligned images: 16 of each class, four of them for the test."""
    (folder / "basic" / "EmoLabel").mkdir(parents=True)
    images = folder / "basic" / "Image" / "aligned"
    images.mkdir(parents=True)
    names = [f"{'test' if number % 4 == 0 else 'train'}_{number:05d}" for number in range(112)]
    lines = [f"{name}.jpg {1 + number % 7}\n" for number, name in enumerate(names)]
    (folder / "basic" / "EmoLabel" / "list_patition_label.txt").write_text("".join(lines))
    for number, name in enumerate(names):
        picture(number).save(images / f"{name}_aligned.jpg")


def write_action_units(folder: Path, images: Path) -> None:
    """A CSV an image, as OpenFace's FaceLandmarkImg writes them."""
    folder.mkdir()
    for number, image in enumerate(sorted(images.iterdir())):
        measured = np.random.default_rng(number)
        figures = {name: float(measured.integers(2)) for name in PRESENCES}
        figures |= {name: round(measured.uniform(0, 5), 2) for name in INTENSITIES}
        write_csv(folder / f"{image.stem}.csv", [face(**figures)])


def write_ferplus(folder: Path) -> None:
    """The CSVs of FER2013 and of FER+, of which all raters say the same; FER2013 has no contempt."""
    rows, votes = [], []
    for number in range(320):
        answer = ANSWERS[number % 8]
        usage = ("Training", "Training", "PublicTest", "PrivateTest")[number // 8 % 4]
        pixels = np.random.default_rng(number).integers(0, 256, 48 * 48)
        own = OF_FER2013.index(answer if answer in OF_FER2013 else "neutral")
        rows.append((own, " ".join(map(str, pixels)), usage))
        votes.append((usage, f"fer{number:07d}.png", *(10 * (answer == name) for name in ANSWERS)))
    write_rows(folder / "fer2013.csv", ("emotion", "pixels", "Usage"), *rows)
    write_rows(folder / "fer2013new.csv", ("Usage", "Image name", *ANSWERS), *votes)


@pytest.fixture
def home(model: DeployedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home with what the documentation's paths name, and the folder in which its commands are typed."""
    home, here = tmp_path / "home", tmp_path / "here"
    (here / "artifacts").mkdir(parents=True)
    write_class_folders(home / "faces", (*EMOTIONS[:7], "unlabelled"), 15)
    write_class_folders(home / "other", EMOTIONS[:4], 6)
    write_class_folders(home / "photographs", EMOTIONS[:3], 12)
    write_rafdb(home / "RAF-DB")
    write_action_units(home / "openface_csvs", home / "RAF-DB" / "basic" / "Image" / "aligned")
    write_ferplus(home / "ferplus")
    (here / "my.toml").write_text('[dataset]\nsource = "folder"\nimage_size = 48\n')
    (here / "other.toml").write_text('[dataset]\nsource = "folder"\nimage_size = 48\ntest_share = 1.0\n')
    shutil.copytree(model.checkpoint, here / "artifacts" / "distill" / "FINGERPRINT")
    shutil.copytree(model.dataset, here / "artifacts" / "prepare" / "d")
    shutil.copyfile(PORTRAIT, here / "photo.jpg")
    (here / "holiday").mkdir()
    shutil.copyfile(PORTRAIT, here / "holiday" / "one.png")
    video(here / "clip.mp4", frames=3)
    monkeypatch.chdir(here)
    monkeypatch.setenv("HOME", str(home))
    return home


def run(words: list[str], openface: Path) -> None:
    """Run one command of `fer`, or what of a run precedes the networks."""
    words = [word.replace("/opt/OpenFace/build/bin/FaceLandmarkImg", str(openface)) for word in words]
    if words[0] == "run":
        before_the_networks(words[1:], openface)
    elif words[0] in STEPS or words[0] == "openface":
        lay_over = [f"openface.binary={openface}"] if words[0] == "openface" else SHORT
        fer(*words, *(word for setting in lay_over for word in ("--set", setting)))
    else:
        fer(*words)


def before_the_networks(words: list[str], openface: Path) -> None:
    experiment, *options = words
    values: dict[str, list[str]] = {}
    for option, value in zip(options[::2], options[1::2], strict=True):
        values.setdefault(option, []).append(value)
    assert values.keys() <= {"--data", "--aus", "--seeds", "--set"}, f"say here what {options} means to the steps"
    settings = [*values.get("--set", ()), *SHORT, f"openface.binary={openface}"]
    laid_over = [word for setting in settings for word in ("--set", setting)]
    fer("prepare", experiment, *_option("--data", values), *laid_over, "--out", "run/dataset")
    fer("annotate", experiment, "--in", "run/dataset", *_option("--aus", values), *laid_over, "--out", "run/aus")
    fer("graph", experiment, "--in", "run/dataset", "--in", "run/aus", *laid_over, "--out", "run/graph")


def _option(name: str, values: dict[str, list[str]]) -> list[str]:
    return [name, *values[name]] if name in values else []


def fer(*words: str) -> None:
    """Run a command in this process, whose mistakes end the test."""
    code: object = None
    try:
        fer_app()([*words], standalone_mode=False)
    except SystemExit as end:
        code = end.code
    assert not code


@pytest.mark.parametrize("page", PAGES_TO_RUN, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_command_of_a_page_runs_as_it_is_printed(page: Path, home: Path, tmp_path: Path) -> None:
    """What a command reads was written by those before it, or stands there for what the page says one has."""
    openface = local_program(tmp_path / "OpenFace")
    for language, block in blocks_in(text_of(page)):
        if language == "toml" and block.startswith("# my.toml"):
            few = block.replace('source = "sample"', 'source = "sample"\ncount = 120')
            Path("my.toml").write_text(few, encoding="utf-8")
    for words in commands_of(page):
        try:
            run(words, openface)
        except Exception as error:
            error.add_note(f"{page.name}: fer {shlex.join(words)}")
            raise
