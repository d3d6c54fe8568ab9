"""The report's figures: each function takes results and returns one picture.

All are drawn on `matplotlib.figure.Figure` inside `fer_core.report.style.house_style`. Some are drawn for a step alone
too, by the `draw_…` functions, which return the figure: see `fer_core.report.step_plots`.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from fer_core.evaluation.metrics import CALIBRATION_BINS
from fer_core.graph.neighbours import Graph
from fer_core.report.style import FAINT, INK, MODEL_COLOURS, Picture, new_figure, picture
from openface.columns import FACS_NAMES, INTENSITIES, PRESENCES

if TYPE_CHECKING:
    from fer_core.report.evidence import Evidence

_WIDTH = 11.2
_FEW_EPOCHS = 25
_FEWEST_IN_A_BIN = 10
"""Bins with fewer predictions are not drawn."""
_HEAT = "#0072B2"
_NARROWEST_CELL = 0.36
"""Inches of a confusion matrix's cell, in which 100 has room."""
_LONGEST_NAME = 24
_OMEGA = "train_lambda_omega"


@dataclass(frozen=True)
class History:
    """How a training went: metrics of each epoch, and the epoch whose weights were kept."""

    epochs: Sequence[Mapping[str, float]]
    selected_epoch: int


def overview(evidence: "Evidence", over_seeds: list[dict[str, Any]]) -> Picture:
    """Test accuracy, and KL to the truth where there is one: a dot a seed, the mean, its interval."""
    truth = evidence.dataset.card.truth
    panels = 2 if truth else 1
    figure = new_figure(_WIDTH if truth else _WIDTH * 0.6, 0.5 + 0.42 * len(over_seeds) + 0.5)
    axes = np.atleast_1d(figure.subplots(1, panels, sharey=True))
    for row, model in enumerate(over_seeds):
        colour = MODEL_COLOURS[model["name"]]
        tests = [m.figures["selected"]["test"] for m in evidence.seeds_of(model["name"])]
        _dots_on_a_line(axes[0], row, [t["accuracy"] for t in tests], model["accuracy"], colour, scale=100)
        if truth:
            _dots_on_a_line(axes[1], row, [t["distribution"]["kl"] for t in tests], model["kl"], colour)
    axes[0].set_xlabel("test accuracy, % (right is better)")
    if truth:
        axes[1].set_xlabel(f"KL from the {truth} (left is better)")
    _name_rows(axes, [model["name"] for model in over_seeds])
    return picture(figure, "Test accuracy of each model, and how far its predictions are from the truth.")


def training_curves(evidence: "Evidence") -> Picture:
    """A column a model: accuracy, loss and learning rate by epoch, seeds thin and their mean bold."""
    histories = _histories(evidence)
    figure = draw_curves(histories, MODEL_COLOURS, len(evidence.dataset.card.labels))
    return picture(figure, f"Training curves of {', '.join(histories)}: accuracy, loss and learning rate by epoch.")


def draw_curves(histories: Mapping[str, Sequence[History]], colours: Mapping[str, str], classes: int) -> Figure:
    """A column a name, with a history a seed: accuracy, loss and learning rate by epoch."""
    figure = new_figure(_width_of_columns(len(histories)), 5.6)
    axes = figure.subplots(3, len(histories), sharex="col", sharey="row", squeeze=False, height_ratios=[4, 4, 1.6])
    ceiling = _loss_ceiling(histories, classes)
    for (accuracy, loss, rate), (name, seeds) in zip(axes.T, histories.items(), strict=True):
        colour = colours[name]
        accuracy.set_title(name)
        _curve(accuracy, seeds, "train_accuracy", colour, "--", scale=100)
        _curve(accuracy, seeds, "validation_accuracy", colour, "-", scale=100)
        _mark_selected(accuracy, seeds, colour)
        _curve(loss, seeds, "train_cross_entropy", colour, "--")
        _curve(loss, seeds, "validation_loss", colour, "-")
        if _OMEGA in seeds[0].epochs[0]:
            _curve(loss, seeds, _OMEGA, colour, ":")
        loss.set_ylim(0, ceiling)
        _curve(rate, seeds[:1], "learning_rate", FAINT, "-")
        rate.set_xlabel("epoch")
        rate.xaxis.get_major_locator().set_params(integer=True, nbins=5, min_n_ticks=1)
    for axis, label in zip(axes[:, 0], ("accuracy, %", "loss", "learning\nrate"), strict=True):
        axis.set_ylabel(label)
    for axis in axes[:2].flat:
        axis.grid(True)
    omega = any(_OMEGA in seeds[0].epochs[0] for seeds in histories.values())
    figure.legend(handles=_curve_legend(omega), loc="outside upper center", ncols=5 if len(histories) > 1 else 2)
    return figure


def confusion_matrices(evidence: "Evidence") -> Picture:
    """A panel a model: rows true, columns predicted; share of the row in percent, and images, means over seeds."""
    names, labels = evidence.names(), evidence.dataset.card.labels
    across = _NARROWEST_CELL * len(labels)
    columns = min(3, len(names), max(1, int(_WIDTH // across)))
    lines = -(-len(names) // columns)
    width = max(_WIDTH * columns / 3, columns * across + 2)
    figure = new_figure(width, lines * (0.42 * len(labels) + 0.9))
    axes = figure.subplots(lines, columns, squeeze=False)
    for axis in axes.flat[len(names) :]:
        axis.axis("off")
    for place, name in enumerate(names):
        tests = [m.figures["selected"]["test"]["confusion"] for m in evidence.seeds_of(name)]
        axis = axes.flat[place]
        _confusion(axis, np.mean(tests, axis=0))
        axis.set_title(name)
        axis.set_xticks(range(len(labels)), _short(labels), rotation=40, ha="right", rotation_mode="anchor")
        axis.set_yticks(range(len(labels)), _short(labels) if place % columns == 0 else [])
    return picture(figure, f"Confusion matrices of {', '.join(names)}, rows true and columns predicted.")


def reliability(evidence: "Evidence") -> Picture:
    """A column a model: accuracy by confidence on the test split, all seeds together, and how confident it is.

    At the temperature too, unless that is 1 for all seeds.
    """
    names = evidence.names()
    labels = evidence.dataset.labels()[evidence.dataset.rows("test")]
    figure = new_figure(_width_of_columns(len(names)), 3.4)
    axes = figure.subplots(2, len(names), sharex=True, sharey="row", squeeze=False, height_ratios=[3, 1])
    for column, name in enumerate(names):
        models = evidence.seeds_of(name)
        confidence = np.concatenate([m.probabilities.max(axis=1) for m in models])
        calibrated = np.concatenate([m.calibrated.max(axis=1) for m in models])
        right = np.concatenate([m.probabilities.argmax(axis=1) == labels for m in models])
        axes[0, column].plot((0, 1), (0, 1), color=FAINT, linewidth=0.9, linestyle="--")
        if any(model.temperature != 1 for model in models):
            _reliability(axes[0, column], calibrated, right, FAINT, "at its temperature")
        _reliability(axes[0, column], confidence, right, MODEL_COLOURS[name], "as trained")
        _confidences(axes[1, column], calibrated, confidence, MODEL_COLOURS[name])
        axes[0, column].set_title(name)
        axes[1, column].set_xlabel("confidence")
    # A model whose temperature is 1 has no curve of its own at it.
    max(axes[0], key=lambda axis: len(axis.get_lines())).legend(loc="best", fontsize=7)
    axes[0, 0].set_ylabel("share right")
    axes[1, 0].set_ylabel("share of\nimages")
    return picture(figure, f"Reliability of {', '.join(names)}: the share that is right at each confidence.")


def differences(paired: list[dict[str, Any]]) -> Picture:
    """A row a pair: mean difference, both intervals, a dot a seed; accuracy, and KL where there is a truth."""
    keys = [key for key in ("accuracy_difference_points", "kl_difference") if paired[0][key] is not None]
    titles = {
        "accuracy_difference_points": "difference of accuracy, points (right: the first is better)",
        "kl_difference": "difference of KL from the truth (left: the first is nearer)",
    }
    figure = new_figure(_WIDTH if len(keys) == 2 else _WIDTH * 0.6, 0.9 + 0.5 * len(paired))
    axes = np.atleast_1d(figure.subplots(1, len(keys), sharey=True))
    for axis, key in zip(axes, keys, strict=True):
        for row, pair in enumerate(paired):
            _difference(axis, row, pair[key], MODEL_COLOURS[pair["first"]])
        axis.axvline(0, color=INK, linewidth=0.9)
        axis.set_xlabel(titles[key])
    _name_rows(axes, [f"{pair['first']}  −  {pair['second']}" for pair in paired])
    return picture(figure, "Paired differences between models with their intervals.")


def intensity_histograms(table: pd.DataFrame) -> Picture:
    """A panel an AU: how the intensities above zero are spread over 0..5, and the share at zero.

    Args:
        table: AU rows that are usable, of the training images; columns that are empty are not shown.
    """
    figure = draw_intensities(table)
    return picture(figure, f"Histograms of {len(_shown(table, INTENSITIES))} action-unit intensities.")


def draw_intensities(table: pd.DataFrame) -> Figure:
    """The figure of `intensity_histograms`."""
    shown = _shown(table, INTENSITIES)
    columns = 6
    lines = -(-len(shown) // columns)
    figure = new_figure(_WIDTH, 1.35 * lines)
    axes = figure.subplots(lines, columns, sharex=True, squeeze=False)
    for axis, name in zip(axes.flat[: len(shown)], shown, strict=True):
        _intensities(axis, table[name].to_numpy())
        axis.set_title(f"{name[:4]} {FACS_NAMES[name[:4]]}", fontsize=7.5)
    for axis in axes.flat[len(shown) :]:
        axis.axis("off")
    for axis in axes.flat[max(len(shown) - columns, 0) : len(shown)]:
        axis.set_xlabel("intensity", fontsize=8)
        axis.tick_params(labelbottom=True)  # Also above a panel that is off.
    return figure


def presence_rates(table: pd.DataFrame) -> Picture:
    """A bar an AU: the share of images in which it is present; columns that are empty are not shown."""
    return picture(draw_presences(table), "How often each action unit is present.")


def draw_presences(table: pd.DataFrame) -> Figure:
    """The figure of `presence_rates`."""
    shown = _shown(table, PRESENCES)
    rates = table[shown].mean().to_numpy()
    figure = new_figure(_WIDTH * 0.75, 0.5 + 0.22 * len(shown))
    axis = figure.subplots()
    axis.barh(range(len(shown)), 100 * rates, color=_HEAT, alpha=0.8, height=0.7)
    for row, rate in enumerate(rates):
        axis.text(100 * rate + 0.6, row, f"{100 * rate:.0f}", va="center", fontsize=7.5)
    _name_rows(np.array([axis]), [f"{name[:4]} {FACS_NAMES[name[:4]]}" for name in shown])
    axis.set_xlabel("present in % of the training images with usable AUs")
    return figure


def action_units_by_class(
    table: pd.DataFrame, labels: np.ndarray, names: tuple[str, ...], columns: tuple[str, ...]
) -> Picture:
    """Mean of each AU over the images of each class, shaded by the share of the AU's largest mean.

    Args:
        table: AU rows that are usable, of the training images.
        labels: (len(table),) class indices into `names`.
    """
    means = table[list(columns)].groupby(labels).mean().reindex(range(len(names))).to_numpy()
    largest = np.nanmax(means, axis=0)
    figure = new_figure(_WIDTH, 0.75 + 0.36 * len(names))
    axis = figure.subplots()
    _shade(axis, means / np.where(largest > 0, largest, 1))
    for (row, column), mean in np.ndenumerate(means):
        text = "–" if np.isnan(mean) else f"{mean:.2f}"
        axis.text(column, row, text, ha="center", va="center", fontsize=7.5)
    axis.set_xticks(range(len(columns)), [column[:4] for column in columns])
    axis.set_yticks(range(len(names)), _short(names))
    return picture(figure, f"Mean of each action unit over the training images of {', '.join(names)}.")


def links(graph: Graph, agreement: dict[str, Any]) -> Picture:
    """Distances and similarities of all links, and how often a neighbour has the image's own label.

    Args:
        agreement: what `fer_core.graph.agreement.label_agreement` says of them.
    """
    figure = draw_links(graph, agreement)
    return picture(figure, "The graph: distances, similarities, and agreement of neighbours' labels.")


def draw_links(graph: Graph, agreement: dict[str, Any]) -> Figure:
    """The figure of `links`."""
    linked = graph.neighbours >= 0
    figure = new_figure(_WIDTH, 2.7)
    apart, alike, same = figure.subplots(1, 3)
    _histogram(apart, graph.distance[linked], "distance in AU space")
    _histogram(alike, graph.similarity[linked], "similarity a_ij = exp(−d / σ²)")
    alike.set_xlim(0, 1)
    ranks = np.arange(1, len(agreement["by_rank"]) + 1)
    same.bar(ranks, [100 * (share or 0) for share in agreement["by_rank"]], color=_HEAT, alpha=0.8, width=0.7)
    if agreement["chance"] is not None:
        same.axhline(100 * agreement["chance"], color=INK, linestyle="--", linewidth=1)
        same.text(ranks[-1] + 0.5, 100 * agreement["chance"], " by chance", va="center", fontsize=8)
    same.set(ylim=(0, 100), xlim=(0.4, ranks[-1] + 0.5), xlabel="rank of the neighbour", ylabel="same label, %")
    same.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
    return figure


def loss_is_cut(evidence: "Evidence") -> float | None:
    """The end of the training curves' loss axis, if a loss is beyond it."""
    histories = _histories(evidence)
    ceiling = _loss_ceiling(histories, len(evidence.dataset.card.labels))
    return ceiling if _largest_loss(histories) > ceiling else None


def _histories(evidence: "Evidence") -> dict[str, list[History]]:
    """How the trainings of each model went, by seed."""
    figures = {name: [model.figures for model in evidence.seeds_of(name)] for name in evidence.names()}
    return {name: [History(f["history"], f["selected_epoch"]) for f in seeds] for name, seeds in figures.items()}


def _shown(table: pd.DataFrame, columns: Iterable[str]) -> list[str]:
    """The columns that are not empty."""
    return [name for name in columns if table[name].notna().any()]


def _width_of_columns(models: int) -> float:
    """Inches for a figure with a column a model: all of the page for five, and room for a legend at least."""
    return max(0.45 * _WIDTH, _WIDTH * models / len(MODEL_COLOURS))


def _largest_loss(histories: Mapping[str, Sequence[History]]) -> float:
    keys = ("train_cross_entropy", "validation_loss")
    return max(float(epoch[key]) for seeds in histories.values() for h in seeds for epoch in h.epochs for key in keys)


def _loss_ceiling(histories: Mapping[str, Sequence[History]], classes: int) -> float:
    """Twice what an even prediction costs, or less: a first epoch's excursion must not flatten all others."""
    return min(1.05 * _largest_loss(histories), 2 * float(np.log(classes)))


def _dots_on_a_line(
    axis: Axes, row: int, per_seed: list[float], mean: dict[str, float], colour: str, scale: float = 1
) -> None:
    """Figures of a row: a dot a seed, and the mean with its interval."""
    values = [scale * value for value in per_seed]
    _band(axis, row, (scale * mean["low"], scale * mean["high"]), colour)
    axis.plot(values, [row] * len(values), "o", color=colour, markersize=4.5, alpha=0.65)
    axis.plot(np.mean(values), row, "|", color=INK, markersize=13, markeredgewidth=1.8)
    axis.grid(True, axis="x")


def _band(axis: Axes, row: int, interval: tuple[float, float], colour: str) -> None:
    axis.plot(interval, (row, row), color=colour, linewidth=5, alpha=0.35, solid_capstyle="round")


def _name_rows(axes: np.ndarray, names: list[str]) -> None:
    """Name the rows of panels that share them, on the first."""
    axes[0].set_yticks(range(len(names)), names)
    axes[0].set_ylim(len(names) - 0.5, -0.5)
    for axis in axes:
        axis.tick_params(axis="y", length=0)


def _curve(axis: Axes, seeds: Sequence[History], key: str, colour: str, style: str, scale: float = 1) -> None:
    """A thin line a seed; the mean over the epochs that all seeds have, bold."""
    runs = [np.array([scale * epoch[key] for epoch in history.epochs]) for history in seeds]
    shortest = min(len(run) for run in runs)
    marker = "." if shortest <= _FEW_EPOCHS else ""
    if len(runs) > 1:
        for run in runs:
            axis.plot(np.arange(1, len(run) + 1), run, style, color=colour, linewidth=0.7, alpha=0.5)
    mean = np.mean([run[:shortest] for run in runs], axis=0)
    axis.plot(np.arange(1, shortest + 1), mean, style, color=colour, marker=marker, markersize=3.5)


def _mark_selected(axis: Axes, seeds: Sequence[History], colour: str) -> None:
    for history in seeds:
        epoch = history.selected_epoch
        value = 100 * history.epochs[epoch - 1]["validation_accuracy"]
        axis.plot(epoch, value, "o", markerfacecolor="none", markeredgecolor=colour, markersize=7)


def _curve_legend(omega: bool) -> list[Line2D]:
    lines = [
        Line2D([], [], color=INK, linestyle="-", label="validation"),
        Line2D([], [], color=INK, linestyle="--", label="train"),
    ]
    if omega:
        lines.append(Line2D([], [], color=INK, linestyle=":", label="λΩ on train"))
    ring = Line2D([], [], linestyle="none", marker="o", markerfacecolor="none", markeredgecolor=INK)
    ring.set_label("selected epoch")
    return [*lines, ring]


def _confusion(axis: Axes, counts: np.ndarray) -> None:
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    _shade(axis, shares)
    for (row, column), share in np.ndenumerate(shares):
        if counts[row, column] == 0:
            continue
        text = f"{counts[row, column]:.0f}" if counts[row, column] >= 1 else "<1"
        axis.text(column, row - 0.12, f"{100 * share:.0f}", ha="center", va="center", fontsize=8.5)
        axis.text(column, row + 0.29, text, ha="center", va="center", fontsize=5.5, alpha=0.75)


def _short(names: Sequence[str]) -> list[str]:
    """Names of classes for an axis; of a long one, how it begins and how it ends."""
    half = _LONGEST_NAME // 2
    return [name if len(name) <= _LONGEST_NAME else f"{name[:half]}…{name[1 - half :]}" for name in names]


def _shade(axis: Axes, shares: np.ndarray) -> None:
    """Cells of 0..1, shaded over whatever the page's colour is so that its text stays legible."""
    red, green, blue, _ = to_rgba(_HEAT)
    cells = np.zeros((*shares.shape, 4))
    cells[...] = (red, green, blue, 0)
    cells[..., 3] = 0.03 + 0.62 * np.nan_to_num(shares)
    lines, columns = shares.shape
    x, y = np.meshgrid(np.arange(columns + 1) - 0.5, np.arange(lines + 1) - 0.5)
    axis.pcolormesh(x, y, cells, edgecolors="none", linewidth=0)
    axis.set_ylim(lines - 0.5, -0.5)
    axis.tick_params(length=0)
    for side in ("left", "bottom"):
        axis.spines[side].set_visible(False)


def _reliability(axis: Axes, confidence: np.ndarray, right: np.ndarray, colour: str, label: str) -> None:
    bins = np.minimum((confidence * CALIBRATION_BINS).astype(int), CALIBRATION_BINS - 1)
    kept = [b for b in range(CALIBRATION_BINS) if (bins == b).sum() >= _FEWEST_IN_A_BIN]
    claimed, kept_right = [confidence[bins == b].mean() for b in kept], [right[bins == b].mean() for b in kept]
    axis.plot(claimed, kept_right, "o-", color=colour, markersize=3.5, label=label)
    axis.set(xlim=(0, 1), ylim=(0, 1))


def _confidences(axis: Axes, calibrated: np.ndarray, confidence: np.ndarray, colour: str) -> None:
    """Shares of images by confidence: filled as trained, outlined at the temperature."""
    edges = np.linspace(0, 1, CALIBRATION_BINS + 1)
    for values, style in ((confidence, {"fill": True, "color": colour, "alpha": 0.6}), (calibrated, {"color": FAINT})):
        axis.stairs(np.histogram(values, edges)[0] / len(values), edges, **style)


def _difference(axis: Axes, row: int, figures: dict[str, Any], colour: str) -> None:
    images, over_seeds = figures["over_images"], figures["over_seeds"]
    _band(axis, row, (images["low"], images["high"]), colour)
    if over_seeds is not None:
        axis.plot((over_seeds["low"], over_seeds["high"]), (row + 0.22,) * 2, color=INK, linewidth=1.1, marker="|")
    axis.plot(figures["per_seed"], [row] * len(figures["per_seed"]), "o", color=colour, markersize=4, alpha=0.65)
    axis.plot(figures["mean"], row, "|", color=INK, markersize=13, markeredgewidth=1.8)
    axis.grid(True, axis="x")


def _intensities(axis: Axes, values: np.ndarray) -> None:
    above_zero = values[values > 0]
    counts, edges = np.histogram(above_zero, bins=25, range=(0, 5))
    axis.stairs(counts, edges, fill=True, color=_HEAT, alpha=0.8)
    axis.set(xlim=(0, 5), yticks=[])
    share = 100 * (1 - len(above_zero) / max(len(values), 1))
    axis.text(0.97, 0.86, f"{share:.0f} % at zero", transform=axis.transAxes, ha="right", va="top", fontsize=7.5)
    axis.spines["left"].set_visible(False)


def _histogram(axis: Axes, values: np.ndarray, label: str) -> None:
    axis.hist(values, bins=50, color=_HEAT, alpha=0.8)
    median = float(np.median(values))
    axis.axvline(median, color=INK, linewidth=1, linestyle="--")
    above = axis.get_xaxis_transform()
    axis.text(median, 1.01, f"median {median:.2f}", transform=above, ha="center", va="bottom", fontsize=8)
    axis.set(xlabel=label, ylabel="links")
