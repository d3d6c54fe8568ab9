"""What the learning curve shows: `PYTHONPATH=. python benchmarks/curve_summary.py ferplus_slim.npz OUT`.

Reads what `learning_curve.py` left in OUT and writes beside it `models.csv` (a row for every network), `means.csv`,
`differences.csv` (paired, with 95 % intervals of a bootstrap over seeds and images), `worth.csv` (how many labels
the labels-alone network needs for the same accuracy), and two pictures. Needs numpy, pandas, scipy and matplotlib.
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from curve_cells import FEW
from learning_curve import ALL, CHOOSING
from matplotlib.lines import Line2D
from scipy.optimize import minimize_scalar
from scipy.special import logsumexp

DRAWS = 4000
MEASURES = {
    "accuracy": "accuracy, %",
    "kl": "KL, clipped at 1e-6",
    "kl_unclipped": "KL",
    "kl_at_temperature": "KL at the temperature of hard labels",
    "kl_at_votes_temperature": "KL at the temperature of votes",
    "total_variation": "total variation",
    "total_variation_at_temperature": "total variation at the temperature of hard labels",
}
NAMES = {
    "ldg": "labels alone",
    "smoothing": "label smoothing",
    "mixed": "neighbours' labels mixed in",
    "mixed_random": "random faces' labels mixed in",
    "votes": "the crowd's votes (upper bound)",
    "omega": "Ω over AU neighbours",
    "omega_random": "Ω over random neighbours",
    "propagated": "propagated over AU neighbours",
    "propagated_random": "propagated over random faces",
    "linear": "a linear model of AUs labels the others",
    "pseudo": "own pseudo-labels",
    "fixmatch": "FixMatch",
    "propagated_pseudo": "propagated + pseudo-labels",
    "propagated_fixmatch": "propagated + FixMatch",
}
COMPARISONS = (
    *((way, "ldg") for way in NAMES if way != "ldg"),
    ("omega", "smoothing"),
    ("omega", "omega_random"),
    ("mixed", "smoothing"),
    ("mixed", "mixed_random"),
    ("propagated", "smoothing"),
    ("propagated", "propagated_random"),
    ("propagated", "pseudo"),
    ("propagated", "fixmatch"),
    ("propagated", "linear"),
    ("propagated_pseudo", "pseudo"),
    ("propagated_pseudo", "propagated"),
    ("propagated_fixmatch", "fixmatch"),
    ("propagated_fixmatch", "propagated"),
)
_SMALLEST = 1e-6


@dataclass(frozen=True)
class Judged:
    """The networks of one stage, number of labels and way: their measures by image."""

    seeds: tuple[int, ...]
    values: dict[str, np.ndarray]
    """(seeds, images) of each of MEASURES."""


def read_cells(out: Path) -> tuple[list[dict], np.ndarray]:
    """The lines of `cells.jsonl` and (cells, images, classes) log-probabilities, in their order."""
    lines = [json.loads(line) for line in (out / "cells.jsonl").read_text(encoding="utf-8").splitlines()]
    files = [np.load(path) for path in out.glob("logits_*.npz")]
    files.sort(key=lambda file: int(file["first"]))
    values = np.concatenate([file["log_probabilities"] for file in files]).astype(np.float64)
    assert [line["row"] for line in lines] == list(range(len(values)))
    return lines, values - logsumexp(values, axis=2, keepdims=True)


def temperature(log_probabilities: np.ndarray, target: np.ndarray) -> float:
    """The T of the least cross-entropy to distributions. Shapes (N, C) and (N, C)."""

    def loss(log_t: float) -> float:
        return float(-(target * scaled(log_probabilities, np.exp(log_t))).sum(axis=1).mean())

    return float(np.exp(minimize_scalar(loss, bounds=(np.log(0.05), np.log(20)), method="bounded").x))


def scaled(log_probabilities: np.ndarray, t: float) -> np.ndarray:
    divided = log_probabilities / t
    return divided - logsumexp(divided, axis=1, keepdims=True)


def measures(log_probabilities: np.ndarray, label: np.ndarray, crowd: np.ndarray, fit: slice, test: slice) -> dict:
    """By image of the test part; and the two temperatures, fitted on `fit`.

    Args:
        log_probabilities, crowd: (M, C); label: (M,).
    """
    hard = np.eye(crowd.shape[1])[label]
    of_hard = temperature(log_probabilities[fit], hard[fit])
    of_votes = temperature(log_probabilities[fit], crowd[fit])
    truth, found = crowd[test], log_probabilities[test]
    raised = [
        np.maximum(p, _SMALLEST) / np.maximum(p, _SMALLEST).sum(axis=1, keepdims=True) for p in (truth, np.exp(found))
    ]
    return {
        "accuracy": 100.0 * (found.argmax(axis=1) == label[test]),
        "kl": (raised[0] * np.log(raised[0] / raised[1])).sum(axis=1),
        "kl_unclipped": divergence(truth, found),
        "kl_at_temperature": divergence(truth, scaled(found, of_hard)),
        "kl_at_votes_temperature": divergence(truth, scaled(found, of_votes)),
        "total_variation": np.abs(truth - np.exp(found)).sum(axis=1) / 2,
        "total_variation_at_temperature": np.abs(truth - np.exp(scaled(found, of_hard))).sum(axis=1) / 2,
        "temperature": of_hard,
        "votes_temperature": of_votes,
    }


def divergence(truth: np.ndarray, log_prediction: np.ndarray) -> np.ndarray:
    """KL(truth ‖ prediction), 0 · log 0 = 0: (N,)."""
    log_truth = np.log(np.where(truth > 0, truth, 1))
    return (truth * (log_truth - log_prediction)).sum(axis=1)


class Bootstrap:
    """Resamples of seeds and of images, both at once; the images' are shared by all that is compared."""

    def __init__(self, images: int, draws: int = DRAWS) -> None:
        self.generator = np.random.default_rng(0)
        counts = self.generator.multinomial(images, np.full(images, 1 / images), size=draws)
        self.weights = (counts / images).astype(np.float32)  # (draws, images)

    def seeds(self, count: int) -> np.ndarray:
        """(draws, count) places of seeds, with replacement; the same for the same count."""
        return np.random.default_rng(count).integers(0, count, (len(self.weights), count))

    def means(self, values: np.ndarray) -> np.ndarray:
        """(draws,) of (seeds, images) values."""
        by_seed = self.weights @ values.T.astype(np.float32)  # (draws, seeds)
        return np.take_along_axis(by_seed, self.seeds(len(values)), axis=1).mean(axis=1)


def interval(draws: np.ndarray) -> tuple[float, float]:
    low, high = np.percentile(draws, (2.5, 97.5))
    return float(low), float(high)


def paired(first: Judged, second: Judged) -> tuple[tuple[int, ...], np.ndarray, np.ndarray]:
    """Seeds that both have, and the places of these in each."""
    common = tuple(seed for seed in first.seeds if seed in second.seeds)
    places = [np.array([judged.seeds.index(seed) for seed in common]) for judged in (first, second)]
    return common, places[0], places[1]


def differences(groups: Mapping[tuple, Judged], bootstrap: Bootstrap) -> pd.DataFrame:
    rows = []
    for stage, labels in sorted({key[:2] for key in groups}):
        for way, other in COMPARISONS:
            first, second = groups.get((stage, labels, way)), groups.get((stage, labels, other))
            if first is None or second is None:
                continue
            common, at_first, at_second = paired(first, second)
            if not common:
                continue
            for measure in MEASURES:
                apart = first.values[measure][at_first] - second.values[measure][at_second]
                low, high = interval(bootstrap.means(apart))
                rows.append((stage, labels, way, other, measure, len(common), float(apart.mean()), low, high))
    names = ["stage", "labels", "way", "against", "measure", "seeds", "difference", "low", "high"]
    return pd.DataFrame(rows, columns=names)


def worth(groups: Mapping[tuple, Judged], bootstrap: Bootstrap, faces: int) -> pd.DataFrame:
    """The labels with which labels alone would be as accurate, by straight lines over log(labels).

    Beyond the curve's ends it stays at them.
    """
    counts = sorted({labels or faces for stage, labels, way in groups if stage == "curve" and way == "ldg"})
    alone = [groups["curve", 0 if count == faces else count, "ldg"].values["accuracy"] for count in counts]
    means = np.array([values.mean() for values in alone])
    draws = np.array([bootstrap.means(values) for values in alone])  # (counts, draws)

    def labels_for(accuracy: float, curve: np.ndarray) -> float:
        return float(np.exp(np.interp(accuracy, np.maximum.accumulate(curve), np.log(counts))))

    rows = []
    for (stage, labels, way), judged in groups.items():
        if stage != "curve" or labels == ALL or way == "ldg":
            continue
        accuracy = judged.values["accuracy"]
        found = [labels_for(a, draws[:, i]) for i, a in enumerate(bootstrap.means(accuracy))]
        low, high = interval(np.array(found))
        rows.append(
            (labels, way, len(judged.seeds), float(accuracy.mean()), labels_for(accuracy.mean(), means), low, high)
        )
    names = ["labels", "way", "seeds", "accuracy", "worth_labels", "low", "high"]
    return pd.DataFrame(rows, columns=names).sort_values(["labels", "worth_labels"])


def draw_curve(means: pd.DataFrame, faces: int, path: Path) -> None:
    figure, axes = plt.subplots(1, 2, figsize=(13, 5.6), constrained_layout=True)
    shown = {
        "ldg": "#444444", "smoothing": "#a0a0a0", "votes": "#c9a227", "omega": "#7aa6c2",
        "propagated_random": "#d9a6a6",
        "fixmatch": "#9467bd", "pseudo": "#c5a5dd", "linear": "#66a61e", "propagated": "#1f77b4",
        "propagated_fixmatch": "#d62728", "propagated_pseudo": "#ff8c42",
    }  # fmt: skip
    for axis, measure in zip(axes, ("accuracy", "kl_at_temperature"), strict=True):
        for way, colour in shown.items():
            part = means[(means["stage"] == "curve") & (means["way"] == way) & (means["measure"] == measure)]
            part = part.assign(at=part["labels"].replace(ALL, faces)).sort_values("at")
            if part.empty:
                continue
            axis.fill_between(part["at"], part["low"], part["high"], color=colour, alpha=0.12, linewidth=0)
            style = "--" if way == "votes" else "-"
            axis.plot(part["at"], part["mean"], style, color=colour, marker="o", markersize=4, label=NAMES[way])
        axis.set_xscale("log")
        ticks = sorted(means["labels"].replace(ALL, faces).unique())
        axis.set_xticks(ticks, [f"{tick:,}" for tick in ticks])
        axis.minorticks_off()
        axis.set_xlabel(f"labelled faces of {faces:,}; the others have no label")
        axis.set_ylabel(MEASURES[measure])
        axis.grid(alpha=0.25)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].legend(fontsize=8.5, frameon=False)
    figure.savefig(path, dpi=130)
    plt.close(figure)


def draw_forest(table: pd.DataFrame, path: Path, measures: Sequence[str] = ("accuracy", "kl_at_temperature")) -> None:
    curve = table[table["stage"] == "curve"]
    counts = [count for count in (250, 500, 1000, 2500, ALL) if (curve["labels"] == count).any()]
    pairs = [p for p in COMPARISONS if ((curve["way"] == p[0]) & (curve["against"] == p[1])).any()]
    height = 0.8 / len(counts)
    colours = plt.get_cmap("viridis")(np.linspace(0.05, 0.85, len(counts)))
    figure, axes = plt.subplots(
        1, len(measures), figsize=(14, 0.42 * len(pairs) + 1.4), sharey=True, constrained_layout=True
    )
    for axis, measure in zip(axes, measures, strict=True):
        for place, (way, other) in enumerate(pairs):
            for number, count in enumerate(counts):
                row = curve[
                    (curve["way"] == way) & (curve["against"] == other) & (curve["labels"] == count)
                    & (curve["measure"] == measure)
                ]  # fmt: skip
                if row.empty:
                    continue
                y = place - 0.4 + (number + 0.5) * height
                axis.plot(row[["low", "high"]].to_numpy()[0], (y, y), color=colours[number], linewidth=1.6)
                axis.plot(row["difference"], [y], "o", color=colours[number], markersize=3.5)
        axis.axvline(0, color="black", linewidth=0.8)
        axis.set_xlabel(
            f"difference in {MEASURES[measure]}"
            + (" (right is better)" if measure == "accuracy" else " (left is better)")
        )
        axis.grid(axis="x", alpha=0.25)
        axis.spines[["top", "right", "left"]].set_visible(False)
    axes[0].set_yticks(range(len(pairs)), [f"{NAMES[way]} − {NAMES[other]}" for way, other in pairs], fontsize=8.5)
    axes[0].set_ylim(len(pairs) - 0.4, -0.6)
    handles = [Line2D([], [], color=colour, marker="o", markersize=4) for colour in colours]
    names = [f"{count:,} labels" if count else "all labels" for count in counts]
    figure.legend(handles, names, loc="outside upper center", ncols=len(counts), frameon=False, fontsize=9)
    figure.savefig(path, dpi=130)
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    arguments = parser.parse_args()
    arrays = np.load(arguments.data)
    usage = arrays["usage"]
    lines, log_probabilities = read_cells(arguments.out)
    run = json.loads((arguments.out / "run.json").read_text(encoding="utf-8"))
    parts = [np.flatnonzero(usage == part)[:: FEW if run["few"] else 1] for part in (1, 2)]
    judged, validation = np.concatenate(parts), len(parts[0])
    assert len(judged) == log_probabilities.shape[1], "the logits are of other images than the data holds"
    label = arrays["label"][judged]
    crowd = arrays["votes"][judged].astype(np.float64)
    crowd /= crowd.sum(axis=1, keepdims=True)
    models: list[Any] = []
    by_way: dict[Any, Any] = {}
    for line, found in zip(lines, log_probabilities, strict=True):
        values = measures(found, label, crowd, slice(min(CHOOSING, validation)), slice(validation, None))
        models.append(
            {k: line[k] for k in ("stage", "labels", "seed", "way")} | {"setting": json.dumps(line["setting"])}
        )
        models[-1] |= {name: float(np.mean(value)) for name, value in values.items()}
        by_way.setdefault((line["stage"], line["labels"], line["way"]), []).append((line["seed"], values))
    groups = {
        key: Judged(tuple(seed for seed, _ in cells), {m: np.array([v[m] for _, v in cells]) for m in MEASURES})
        for key, cells in by_way.items()
        if key[0] != "trial"
    }
    faces = run["training_faces"]
    bootstrap = Bootstrap(len(judged) - validation)
    means = pd.DataFrame(
        [
            (*key, measure, len(group.seeds), float(values.mean()), *interval(bootstrap.means(values)))
            for key, group in groups.items()
            for measure, values in group.values.items()
        ],
        columns=["stage", "labels", "way", "measure", "seeds", "mean", "low", "high"],
    )
    table, equivalents = differences(groups, bootstrap), worth(groups, bootstrap, faces)
    pd.DataFrame(models).to_csv(arguments.out / "models.csv", index=False)
    for name, frame in {"means": means, "differences": table, "worth": equivalents}.items():
        frame.to_csv(arguments.out / f"{name}.csv", index=False, float_format="%.4f")
    draw_curve(means, faces, arguments.out / "learning_curve.png")
    draw_forest(table, arguments.out / "differences.png")
    for stage in sorted(means["stage"].unique()):
        part = means[means["stage"] == stage]
        for measure in ("accuracy", "kl_at_temperature"):
            shown = part[part["measure"] == measure].pivot(index="way", columns="labels", values="mean")
            print(f"\n{stage}: {MEASURES[measure]}; 0 is all labels\n{shown.round(4 if measure != 'accuracy' else 2)}")
    print(f"\n{equivalents.to_string(index=False)}")


if __name__ == "__main__":
    main()
