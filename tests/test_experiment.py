"""Experiment files: what is read, what `--set` lays over, and what a mistake is told."""

from pathlib import Path

import pytest

from fer_core.errors import ExperimentError
from fer_core.experiment import (
    DatasetSettings,
    bundled_experiments,
    experiment_from,
    find_experiment,
    load_experiment,
    to_document,
)


def write(tmp_path: Path, text: str) -> str:
    path = tmp_path / "my.toml"
    path.write_text(text, encoding="utf-8")
    return str(path)


@pytest.mark.parametrize("name", bundled_experiments())
def test_bundled_experiments_are_read_and_open_with_their_command(name: str) -> None:
    experiment = load_experiment(name)
    assert experiment.title != "untitled"
    comment = [line for line in find_experiment(name).read_text(encoding="utf-8").splitlines() if line.startswith("#")]
    assert f"fer run {name}" in "\n".join(comment)
    assert experiment_from(to_document(experiment), name) == experiment


def test_paper_is_the_papers_recipe() -> None:
    paper = load_experiment("paper")
    assert (paper.graph.k, paper.action_units.features, paper.action_units.outliers) == (4, "presence", 0)
    assert (paper.ldg.epochs, paper.ldg.epochs_with_neighbours, paper.ldg.batch) == (100, 35, 16)
    assert (paper.ldg.learning_rate, paper.ldg.lambda_, paper.ldg.neighbours) == (0.001, 0.01, "forward")
    assert (paper.sll.batch, paper.sll.learning_rate, paper.distill.batch) == (128, 0.01, 256)
    assert (paper.distill.schedule, paper.distill.learning_rate) == ("one-cycle", 0.1)
    assert (paper.ldg.momentum, paper.ldg.weight_decay, paper.ldg.input_size) == (0.9, 4e-4, 224)


def test_set_lays_values_over_the_file(tmp_path: Path) -> None:
    path = write(tmp_path, "[graph]\nk = 4\n")
    settings = ["graph.k=16", "ldg.lambda=0.05", "graph.control=random", 'title="My run"', "seeds=[3, 4]"]
    experiment = load_experiment(path, settings)
    assert (experiment.graph.k, experiment.ldg.lambda_, experiment.graph.control) == (16, 0.05, "random")
    assert (experiment.title, experiment.seeds) == ("My run", (3, 4))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[grpah]\nk = 4", "unknown key grpah; did you mean graph?"),
        ("[ldg]\nlamda = 0.1", "unknown key ldg.lamda; did you mean lambda?"),
        ("[graph]\nlambda = 0.1", "unknown key graph.lambda; did you mean ldg.lambda?"),
        (f"seeds = [{2**63}]", "seeds.0 = 9223372036854775808: input should be less than 9223372036854775808"),
        (f"[graph]\nseed = {2**31}", "graph.seed = 2147483648: input should be less than 2147483648"),
        ("classes = 8", "unknown key classes; did you mean dataset.classes?"),
        ("[ldg]\nEpoch = 8", "unknown key ldg.Epoch; did you mean epochs?"),
        ("[graph]\nk = 'four'", 'graph.k = "four": input should be a valid integer'),
        ("[graph]\nk = 0", "graph.k = 0: input should be greater than or equal to 1"),
        ("[dataset]\nsource = 'rafbd'", 'dataset.source = "rafbd": input should be'),
        (
            "[dataset]\nclasses = 9",
            "dataset.classes = 9: should be 7, 8, or a table from the dataset's own labels to emotions",
        ),
        ("[dataset.classes]\nsmile = 3", 'dataset.classes = {"smile": 3}: should be 7, 8, or a table'),
        ("[dataset.classes]", "dataset.classes = {}: should be 7, 8, or a table"),
        ("[dataset]\nprotocol = 'published'", 'dataset.protocol = "published": input should be'),
        ("[graph\nk = 4", "my.toml: not TOML"),
        ("seeds = " + "[" * 2000, "my.toml: not TOML"),
        (f"seeds = [{'1' * 5000}]", "my.toml: not TOML"),
        ("seeds = []", "seeds = []"),
        ("seeds = [-1]", "seeds.0 = -1: input should be greater than or equal to 0"),
        ("[graph]\nsigma = -1", "graph.sigma = -1: should be a number from 1e-18 to 1e18, or auto"),
        ("[sll]\ninput_size = 100", "sll.input_size = 100: should have a quarter that divides by 4"),
        ("[augment]\ncrop_area = [1.0, 0.5]", "augment.crop_area = [1.0, 0.5]: should be two numbers above 0"),
        ("[ldg]\nlambda = inf", "ldg.lambda = Infinity: input should be a finite number"),
        ("[sll]\nlearning_rate = inf", "sll.learning_rate = Infinity: input should be a finite number"),
        ("[distill]\nweight_decay = inf", "distill.weight_decay = Infinity: input should be a finite number"),
        ("[ldg]\nlambda = nan", "ldg.lambda = NaN: input should be"),
        ("[graph]\nsigma = inf", "graph.sigma = Infinity: should be a number from 1e-18 to 1e18, or auto"),
        ("[openface]\nseconds_per_image = inf", "openface.seconds_per_image = Infinity: input should be a finite"),
        ("[graph]\nsigma = 1e200", "graph.sigma = 1e+200: should be a number from 1e-18 to 1e18, or auto"),
        ("[graph]\nsigma = 1e-200", "graph.sigma = 1e-200: should be a number from 1e-18 to 1e18, or auto"),
        ("[graph]\nsigma = nan", "graph.sigma = NaN: should be a number from 1e-18 to 1e18, or auto"),
        ("[augment]\ncrop_ratio = [1.0, inf]", "augment.crop_ratio.1 = Infinity: input should be a finite number"),
        ("[augment]\ncrop_ratio = [0.0, 1.0]", "augment.crop_ratio = [0.0, 1.0]: should be two numbers above 0"),
    ],
)
def test_a_mistake_is_one_line_with_file_key_and_remedy(tmp_path: Path, text: str, said: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(ExperimentError) as error:
        load_experiment(path)
    assert said in str(error.value)
    assert path in str(error.value)
    assert "\n" not in str(error.value)


def test_a_table_says_what_a_datasets_labels_mean(tmp_path: Path) -> None:
    path = write(tmp_path, '[dataset]\nsource = "csv"\n[dataset.classes]\nsmile = "happiness"\n0 = "drop"')
    assert load_experiment(path).dataset.classes == {"smile": "happiness", "0": "drop"}
    again = load_experiment(path, ["dataset.classes.0=fear", "dataset.classes.no face=drop"])
    assert again.dataset.classes == {"smile": "happiness", "0": "fear", "no face": "drop"}


@pytest.mark.parametrize(
    ("text", "settings"),
    [
        ('[dataset]\nsource = "csv"\ncount = 500', []),
        ('[dataset]\nsource = "csv"', ["dataset.count=500"]),
        ("", ["dataset.count=500", "dataset.source=csv"]),
        ("[dataset]\ncount = 300", ["dataset.source=csv", "dataset.count=500"]),
    ],
)
def test_what_only_drawn_faces_have_is_refused_for_others(tmp_path: Path, text: str, settings: list[str]) -> None:
    path = write(tmp_path, text)
    with pytest.raises(ExperimentError) as error:
        load_experiment(path, settings)
    told = "dataset.count = 500: only drawn faces have it; dataset.limit keeps that many training images"
    assert str(error.value) == f"{path}: {told}"


def test_an_experiment_on_drawn_faces_is_laid_over_other_images() -> None:
    laid = load_experiment("demo", ["dataset.source=csv"])
    assert (laid.dataset.count, laid.dataset.seed) == (DatasetSettings.count, DatasetSettings.seed)
    assert experiment_from(to_document(laid), "again") == laid
    assert load_experiment("demo").dataset.count == 2000


@pytest.mark.parametrize("setting", ["graph.k", "=4", "title.k=4"])
def test_a_set_without_its_form_is_refused(setting: str) -> None:
    with pytest.raises(ExperimentError, match="--set"):
        load_experiment("demo", [setting])


def test_a_section_is_not_replaced_for_one_of_its_keys() -> None:
    with pytest.raises(ExperimentError, match=r"would replace all of ldg; write each key as ldg\.key=value"):
        load_experiment("demo", ["ldg={epochs = 3}"])


@pytest.mark.parametrize("setting", ["graph.k=16\nldg.lambda=0.5", "title=a\nseeds=[1]", 'title="a"\n[graph]\nk=16'])
def test_of_several_lines_none_is_passed_over(setting: str) -> None:
    with pytest.raises(ExperimentError, match="more than one line; give each setting a --set of its own"):
        load_experiment("demo", [setting])


@pytest.mark.parametrize(
    ("text", "value"), [(".05", 0.05), ("1.", 1.0), ("+.5e-1", 0.05), (" 1.e-2 ", 0.01), ("5e-2", 0.05)]
)
def test_a_number_may_lack_the_digit_before_or_after_its_point(text: str, value: float) -> None:
    assert load_experiment("demo", [f"ldg.lambda={text}"]).ldg.lambda_ == value


def test_a_truth_value_may_be_written_as_in_python() -> None:
    assert not load_experiment("demo", ["run.capture=False"]).run.capture
    assert load_experiment("demo", ["action_units.standardise=True"]).action_units.standardise


def test_an_unknown_experiment_names_those_there_are() -> None:
    with pytest.raises(ExperimentError, match=r"no such experiment.*demo, ferplus-cpu"):
        load_experiment("dmeo")


def test_a_byte_order_mark_of_windows_editor_is_read_over(tmp_path: Path) -> None:
    (tmp_path / "my.toml").write_text('title = "Mine"\n', encoding="utf-8-sig")
    assert load_experiment(str(tmp_path / "my.toml")).title == "Mine"
