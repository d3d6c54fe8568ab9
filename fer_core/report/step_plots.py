"""Pictures that a step leaves beside its numbers, for whoever watches a run: PNG, on white."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fer_core.graph.agreement import label_agreement
from fer_core.graph.neighbours import Graph
from openface.columns import INTENSITIES, PRESENCES

AU_FIGURE = "action_units.png"
GRAPH_FIGURE = "graph.png"
CURVES_FIGURE = "curves.png"
_BLUE, _RED = "#0072B2", "#D55E00"


def save_au_figure(folder: Path, usable: pd.DataFrame) -> None:
    """Histograms of the 17 intensities above zero, and how often each AU is present.

    Args:
        usable: AU rows of the training images that passed the graph's filters.
    """
    figure = Figure(figsize=(11, 7), layout="constrained")
    axes = figure.subplots(3, 6).flatten()
    present = usable[list(PRESENCES)].mean()
    for axis, name in zip(axes[: len(INTENSITIES)], INTENSITIES, strict=True):
        values = usable[name].dropna().to_numpy()
        if not len(values):
            axis.set_title(f"{name[:4]} · no intensities", fontsize=8)
            axis.set_yticks([])
            continue
        axis.hist(values[values > 0], bins=np.linspace(0, 5, 21).tolist(), color=_BLUE)
        rate = present.get(f"{name[:4]}_c", float("nan"))
        present_in = "" if np.isnan(rate) else f" · present in {rate:.0%}"
        axis.set_title(f"{name[:4]} · {np.mean(values == 0):.0%} zero{present_in}", fontsize=8)
        axis.set_yticks([])
    axes[-1].axis("off")
    figure.suptitle(f"Action-unit intensities above zero, {len(usable):,} training images")
    figure.savefig(folder / AU_FIGURE, dpi=80)


def save_graph_figure(folder: Path, graph: Graph, labels: np.ndarray) -> None:
    """Distances, similarities, and how often a neighbour has the image's own label, by rank."""
    linked = graph.neighbours >= 0
    figure = Figure(figsize=(11, 3.2), layout="constrained")
    apart, alike, same = figure.subplots(1, 3)
    apart.hist(graph.distance[linked], bins=40, color=_BLUE)
    apart.set_xlabel("distance in AU space")
    alike.hist(graph.similarity[linked], bins=40, range=(0, 1), color=_BLUE)
    alike.set_xlabel("similarity a_ij = exp(−d / σ²)")
    agreement = [100 * (share or 0.0) for share in label_agreement(graph, labels)["by_rank"]]
    same.bar(range(1, len(agreement) + 1), agreement, color=_BLUE)
    same.set(xlabel="rank of the neighbour", ylabel="same label, %", ylim=(0, 100))
    figure.savefig(folder / GRAPH_FIGURE, dpi=80)


def save_curves(folder: Path, name: str, history: Sequence[dict[str, float]], selected_epoch: int) -> None:
    """Accuracy and loss by epoch, on the training and on the validation images."""
    figure = Figure(figsize=(11, 3.6), layout="constrained")
    accuracy, loss = figure.subplots(1, 2)
    _curve(accuracy, history, "train_accuracy", _BLUE, "training", 100)
    _curve(accuracy, history, "validation_accuracy", _RED, "validation", 100)
    accuracy.axvline(selected_epoch, color="grey", linewidth=0.8)
    accuracy.set(xlabel="epoch", ylabel="accuracy, %")
    for key, colour, label in (
        ("train_cross_entropy", _BLUE, "training"),
        ("validation_loss", _RED, "validation"),
        ("train_lambda_omega", "grey", "λΩ"),
    ):
        _curve(loss, history, key, colour, label, 1)
    loss.set(xlabel="epoch", ylabel="loss", ylim=(0, None))
    for axis in (accuracy, loss):
        axis.legend()
    figure.suptitle(f"{name}; epoch {selected_epoch} selected on the validation split")
    figure.savefig(folder / CURVES_FIGURE, dpi=80)


def _curve(axis: Axes, history: Sequence[dict[str, float]], key: str, colour: str, label: str, scale: float) -> None:
    if key in history[0]:
        values = [scale * row[key] for row in history]
        axis.plot(range(1, len(values) + 1), values, ".-", color=colour, label=label)
