"""All figures of a comparison: means over seeds, paired differences, and how many labels a way is worth."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from fer_core.artifacts import Artifact
from fer_core.comparison import Cell, Network, cells, judge, require_same_test_images
from fer_core.data.dataset import Dataset, open_dataset
from fer_core.errors import ArtifactError
from fer_core.evaluation.metrics import CLIP, distribution_measures
from fer_core.evaluation.seeds_and_images import interval, mean_over_seeds, means_of_resampled_images
from fer_core.experiment import ComparisonSettings, Experiment, Stage, experiment_from, to_document
from fer_core.report.evidence import JudgedModel, checkpoint_of, read_test_predictions
from fer_core.report.models_table import MODEL_COLUMNS, model_row
from fer_core.steps import STEPS, Request, annotated_as_asked

NETWORKS: Mapping[Network, str] = {"generator": "generator", "student": "EfficientFace"}
MEASURES = {
    "accuracy": "accuracy, %",
    "kl": "KL",
    "kl_at_temperature": "KL at the temperature",
    "total_variation": "total variation",
}
"""What is measured of each test image; only the first where the dataset has no true distributions."""
HIGHER_IS_BETTER = ("accuracy",)


@dataclass(frozen=True)
class JudgedNetwork:
    """A network of a cell, on the test images."""

    cell: Cell
    network: Network
    model: JudgedModel
    ids: tuple[str, ...]
    """Ids of the test images, in their order."""
    values: Mapping[str, np.ndarray]
    """By name of MEASURES, (images,)."""
    fingerprint: str
    """Fingerprint of its checkpoint."""
    dataset: Dataset


@dataclass(frozen=True)
class Group:
    """The networks of one way in one stage, in the order of their seeds."""

    stage: Stage
    way: str
    network: Network
    members: tuple[JudgedNetwork, ...]
    rows: np.ndarray
    """(members,) int64: their places among all networks."""

    @property
    def seeds(self) -> tuple[int, ...]:
        return tuple(member.cell.seed for member in self.members)


@dataclass(frozen=True)
class Findings:
    """All that a comparison's page is made of."""

    experiment: Experiment
    networks: tuple[JudgedNetwork, ...]
    groups: tuple[Group, ...]
    resampled: Mapping[str, np.ndarray]
    """By name of MEASURES, (draws, networks) means over resampled test images."""
    missing: tuple[str, ...]
    """Cells, or networks of cells, that were not judged."""

    @property
    def comparison(self) -> ComparisonSettings:
        assert self.experiment.comparison is not None, "a comparison's findings"
        return self.experiment.comparison

    def group(self, stage: Stage, way: str, network: Network) -> Group | None:
        """The networks of a way in a stage, where there are any."""
        found = (g for g in self.groups if (g.stage.title, g.way, g.network) == (stage.title, way, network))
        return next(found, None)


def read_findings(request: Request) -> Findings:
    """Find each cell's figures among the artifacts given.

    Raises:
        ArtifactError: no cell was judged, two datasets are of one cell, or cells of a stage have other test images.
    """
    networks, missing = _judged_networks(request)
    if not networks:
        raise ArtifactError("fer report: none of the evaluations given is of a cell of this comparison; see `fer run`")
    stages = request.experiment.comparison.stages if request.experiment.comparison else ()
    groups = tuple(_groups(stages, networks))
    for stage in stages:
        here = [n for n in networks if n.cell.stage == stage.title]
        for n in here:
            labels, labels_first = n.dataset.card.labels, here[0].dataset.card.labels
            require_same_test_images(n.cell, n.ids, labels, here[0].cell, here[0].ids, labels_first)
    draws = request.experiment.evaluation.bootstrap
    return Findings(request.experiment, tuple(networks), groups, _resampled(networks, draws), tuple(missing))


def results(findings: Findings) -> dict[str, Any]:
    """The dictionary of results.json; plain values only, accuracies in percent."""
    return {
        "title": findings.experiment.title,
        "experiment": to_document(findings.experiment),
        "truth": findings.networks[0].dataset.card.truth if "kl" in findings.resampled else "",
        "protocol": _protocol(findings),
        "test_images": {n.cell.stage: len(n.ids) for n in findings.networks},
        "means": means_table(findings).replace({np.nan: None}).to_dict("records"),
        "differences": differences_table(findings).to_dict("records"),
        "worth": worth_table(findings).to_dict("records"),
        "missing": list(findings.missing),
        "same_trainings": _same_trainings(findings),
        "commits": _told_of_trainings(findings, "commit"),
        "hardware": _told_of_trainings(findings, "hardware"),
        "training_seconds": sum({n.fingerprint: n.model.training_seconds for n in findings.networks}.values()),
        "clip": CLIP,
    }


def _same_trainings(findings: Findings) -> list[dict[str, Any]]:
    """Ways of a stage whose settings differ in nothing that counts for them: `stage`, and `ways`, two or more.

    Those that share a generator and differ in their students are none.
    """
    found = []
    for stage in findings.comparison.stages:
        of_way: dict[str, dict[tuple[str, int], str]] = {}
        for network in (n for n in findings.networks if n.cell.stage == stage.title):
            of_way.setdefault(network.cell.way, {})[network.network, network.cell.seed] = network.fingerprint
        planned = {n.cell.way: set(n.cell.networks()) for n in findings.networks if n.cell.stage == stage.title}
        alike: dict[str, list[str]] = {}
        for way, own in of_way.items():
            first = next((one for one in alike if _same(own, of_way[one], planned[way] & planned[one])), way)
            alike.setdefault(first, []).append(way)
        found += [{"stage": stage.title, "ways": ways} for ways in alike.values() if len(ways) > 1]
    return found


def _same(one: Mapping[tuple[str, int], str], other: Mapping[tuple[str, int], str], planned: set[Network]) -> bool:
    """Tell whether the networks that both ways are to have are there, and the same for every seed that both have."""
    common = one.keys() & other.keys()
    return {network for network, _ in common} == planned != set() and all(one[key] == other[key] for key in common)


def _protocol(findings: Findings) -> str:
    """The datasets' protocol; where stages have several, each with its stages."""
    stages: dict[str, dict[str, None]] = {}
    for network in findings.networks:
        stages.setdefault(network.dataset.card.protocol, {})[network.cell.stage] = None
    if len(stages) == 1:
        return next(iter(stages))
    return " ".join(f"{', '.join(titles)}: {protocol}" for protocol, titles in stages.items())


def _told_of_trainings(findings: Findings, key: str) -> list[str]:
    """Each once, without trainings that do not know it."""
    told = {str(network.model.figures.get("trained_on", {}).get(key) or "") for network in findings.networks}
    return sorted(told - {""})


def networks_table(findings: Findings) -> pd.DataFrame:
    """results.csv: a row a trained network, accuracies and errors in 0..1."""
    rows = []
    for network in findings.networks:
        title, source = findings.experiment.title, network.dataset.card.source
        found = model_row(network.model, network.fingerprint, title, source)
        rows.append({"stage": network.cell.stage, "way": network.cell.way, "network": network.network} | found)
    return pd.DataFrame(rows, columns=["stage", "way", "network", *MODEL_COLUMNS])


def means_table(findings: Findings) -> pd.DataFrame:
    """means.csv: each way's mean over seeds in each stage, with intervals over seeds and images."""
    rows = []
    for group in findings.groups:
        row: dict[str, Any] = {"stage": group.stage.title, "way": group.way, "network": group.network}
        row |= {"seeds": len(group.seeds), "axis": group.stage.axis, "at": group.stage.at}
        for name, draws in findings.resampled.items():
            low, high = interval(mean_over_seeds(draws[:, group.rows]))
            row |= {name: _mean_of(group, name), f"{name}_low": low, f"{name}_high": high}
        tests = [member.model.figures["selected"]["test"] for member in group.members]
        calibrated = [member.model.figures["calibrated"]["test"] for member in group.members]
        row["calibration_error"] = float(np.mean([test["calibration_error"] for test in tests]))
        row["calibration_error_at_temperature"] = float(np.mean([test["calibration_error"] for test in calibrated]))
        unclipped = [test.get("kl_unclipped") for test in tests]
        row["kl_unclipped"] = None if None in unclipped else float(np.mean(unclipped))
        row["training_seconds"] = float(np.mean([member.model.training_seconds for member in group.members]))
        rows.append(row)
    return pd.DataFrame(rows)


def differences_table(findings: Findings) -> pd.DataFrame:
    """differences.csv: first minus second over the seeds that both have, in every stage and network that has both."""
    columns = ["stage", "network", "first", "second", "measure", "seeds", "difference", "low", "high", "settled"]
    rows = [
        (stage.title, network, first, second, name, *_difference(findings, one, other, name))
        for stage in findings.comparison.stages
        for network in NETWORKS
        for first, second in findings.comparison.pairs
        if (one := findings.group(stage, first, network)) and (other := findings.group(stage, second, network))
        if set(one.seeds) & set(other.seeds)
        for name in findings.resampled
    ]
    return pd.DataFrame(rows, columns=columns)


def worth_table(findings: Findings) -> pd.DataFrame:
    """worth.csv: with how many of the axis the baseline would be as accurate, by straight lines over their logarithm.

    Beyond the ends of the baseline's curve it stays at them. A curve that ends lower than it began, such as one over
    wrong labels, is read from its end.
    """
    columns = ["network", "axis", "at", "way", "accuracy", "worth", "low", "high"]
    rows: list[tuple[Any, ...]] = []
    for network in NETWORKS:
        for axis in dict.fromkeys(stage.axis for stage in findings.comparison.stages if stage.axis):
            rows += _worth_on(findings, network, axis)
    return pd.DataFrame(rows, columns=columns)


def _worth_on(findings: Findings, network: Network, axis: str) -> list[tuple[Any, ...]]:
    groups = [g for g in findings.groups if g.network == network and g.stage.axis == axis and g.stage.at is not None]
    curve = sorted(
        (group for group in groups if group.way == findings.comparison.baseline), key=lambda g: g.stage.at or 0.0
    )
    places = [float(group.stage.at or 0.0) for group in curve]
    if len(curve) < 2 or min(places) <= 0:
        return []
    accuracy = findings.resampled["accuracy"]
    means = np.array([_mean_of(group, "accuracy") for group in curve])
    draws = np.array([mean_over_seeds(accuracy[:, group.rows]) for group in curve])  # (places, draws)
    if means[-1] < means[0]:
        places, means, draws = places[::-1], means[::-1], draws[::-1]

    def as_accurate(reached: float, at: np.ndarray) -> float:
        return _first_place(reached, np.maximum.accumulate(at), np.log(places))

    rows = []
    for group in groups:
        if group.way != findings.comparison.baseline:
            reached = mean_over_seeds(accuracy[:, group.rows])
            low, high = interval(np.array([as_accurate(a, draws[:, i]) for i, a in enumerate(reached)]))
            mean = _mean_of(group, "accuracy")
            rows.append((network, axis, group.stage.at, group.way, mean, as_accurate(mean, means), low, high))
    return rows


def _first_place(reached: float, heights: np.ndarray, places: np.ndarray) -> float:
    """The place where a curve that never falls is first as high; its ends beyond them.

    Args:
        heights: (P,) of the curve.
        places: (P,) logarithms.
    """
    after = int(np.searchsorted(heights, reached))
    if after in (0, len(heights)):
        return float(np.exp(places[min(after, len(heights) - 1)]))
    share = (reached - heights[after - 1]) / (heights[after] - heights[after - 1])
    return float(np.exp(places[after - 1] + share * (places[after] - places[after - 1])))


def _difference(findings: Findings, first: Group, second: Group, name: str) -> tuple[int, float, float, float, bool]:
    """Seeds in common, the mean difference, its interval, and whether that excludes zero."""
    common = [seed for seed in first.seeds if seed in second.seeds]
    rows = [[group.rows[group.seeds.index(seed)] for seed in common] for group in (first, second)]
    draws = findings.resampled[name]
    low, high = interval(mean_over_seeds(draws[:, rows[0]] - draws[:, rows[1]]))
    means = [np.mean([findings.networks[row].values[name].mean() for row in side]) for side in rows]
    return len(common), float(means[0] - means[1]), low, high, not low <= 0 <= high


def _mean_of(group: Group, name: str) -> float:
    return float(np.mean([member.values[name].mean() for member in group.members]))


def _groups(stages: Iterable[Stage], networks: list[JudgedNetwork]) -> Iterable[Group]:
    """In the order of the stages and of their ways; generators first."""
    for stage in stages:
        for network in NETWORKS:
            for way in dict.fromkeys(stage.ways):
                key = (stage.title, way, network)
                rows = [i for i, n in enumerate(networks) if (n.cell.stage, n.cell.way, n.network) == key]
                if rows:
                    yield Group(stage, way, network, tuple(networks[row] for row in rows), np.array(rows))


def _resampled(networks: list[JudgedNetwork], draws: int) -> dict[str, np.ndarray]:
    """By measure that all have, (draws, networks); networks of the same test images share the draws."""
    found = {}
    for name in (measure for measure in MEASURES if all(measure in network.values for network in networks)):
        means = np.empty((draws, len(networks)))
        for ids in dict.fromkeys(network.ids for network in networks):
            rows = [i for i, network in enumerate(networks) if network.ids == ids]
            means[:, rows] = means_of_resampled_images(np.array([networks[i].values[name] for i in rows]), draws)
        found[name] = means
    return found


def _judged_networks(request: Request) -> tuple[list[JudgedNetwork], list[str]]:
    """Every network that was judged, in the order of the cells, and the names of those that were not."""
    datasets: dict[str, Dataset] = {}
    found, missing = [], []
    for cell in cells(request.experiment):
        try:
            judged = judge(cell, _Planned(request, cell))
        except _NotThere:
            missing += [f"{cell} · {NETWORKS[network]}" for network in cell.networks()]
            continue
        prepared = judged.ground[0]
        dataset = datasets.setdefault(prepared.fingerprint, open_dataset(prepared.path))
        given = {artifact.fingerprint: artifact for artifact in request.inputs_of("evaluate")}
        for network, planned in judged.figures.items():
            if planned.fingerprint in given:
                found.append(_read(cell, network, given[planned.fingerprint], dataset))
            else:
                missing.append(f"{cell} · {NETWORKS[network]}")
    return found, missing


class _NotThere(Exception):
    """The images or action units of a cell are not among the artifacts given."""


class _Planned:
    """Names the artifacts of a cell's steps by their fingerprints; images and action units have to be given."""

    def __init__(self, request: Request, cell: Cell) -> None:
        self._given = request.inputs
        document = to_document(request.experiment)
        self._experiment = experiment_from(document, str(cell), cell.settings)

    def __call__(self, step: str, *inputs: Artifact, seed: int | None = None) -> Artifact:
        if step in ("prepare", "annotate"):
            return self._on_users_files(step, inputs)
        ordered = tuple(sorted(inputs, key=lambda artifact: (artifact.step, artifact.fingerprint)))
        planned = Request(STEPS[step], self._experiment, ordered, seed).fingerprint()
        given = (a for a in self._given if (a.step, a.fingerprint) == (step, planned))
        return next(given, Artifact(next(iter(inputs)).path, step, planned))

    def _on_users_files(self, step: str, inputs: tuple[Artifact, ...]) -> Artifact:
        """What was made from the user's files depends on what they held, so it is told by its settings and inputs."""
        if step == "prepare":
            settings = Request(STEPS[step], self._experiment).settings()
            found = [a for a in self._given if a.step == step and a.settings() == settings]
        else:
            wanted = {artifact.fingerprint for artifact in inputs}
            found = [a for a in self._given if a.step == step and a.made_from("prepare") == wanted]
            if len(found) > 1:  # Ways may be linked by vectors of the user's own, or each run another OpenFace.
                found = [a for a in found if annotated_as_asked(a, self._experiment)]
        if not found:
            raise _NotThere
        if len(found) > 1:
            raise ArtifactError(
                f"{found[1].path}: as {found[0].path}, but of other files; give one of them to `fer report`"
            )
        return found[0]


def _read(cell: Cell, network: Network, artifact: Artifact, dataset: Dataset) -> JudgedNetwork:
    try:
        figures = json.loads(artifact.file("metrics.json").read_text(encoding="utf-8"))
        table = read_test_predictions(artifact)
        model = JudgedModel(figures, table[list(dataset.card.labels)].to_numpy(np.float64))
    except (OSError, ValueError, KeyError) as error:
        raise ArtifactError(f"{artifact.path}: no evaluation of {cell} ({error}); run `fer evaluate`") from error
    rows, crowd = dataset.rows("test"), dataset.crowd()
    values = {"accuracy": 100.0 * (model.probabilities.argmax(axis=1) == dataset.labels()[rows])}
    if crowd is not None:
        measured = distribution_measures(crowd[rows], model.probabilities)
        calibrated = distribution_measures(crowd[rows], model.calibrated)
        values |= {
            "kl": measured["kl"],
            "kl_at_temperature": calibrated["kl"],
            "total_variation": measured["total_variation"],
        }
    return JudgedNetwork(cell, network, model, tuple(map(str, table["id"])), values, checkpoint_of(artifact), dataset)
