"""Pictures that a step leaves beside its numbers, for whoever watches a run: PNG, on white."""

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from fer_core.graph.agreement import label_agreement
from fer_core.graph.neighbours import Graph
from fer_core.report.plots import History, draw_curves, draw_intensities, draw_links, draw_presences
from fer_core.report.style import MODEL_COLOURS, house_style
from openface.columns import INTENSITIES, PRESENCES

AU_FIGURE = "action_units.png"
GRAPH_FIGURE = "graph.png"
CURVES_FIGURE = "curves.png"


def save_au_figure(folder: Path, usable: pd.DataFrame) -> None:
    """Histograms of the intensities above zero, or where there are none how often each AU is present, or nothing.

    Args:
        usable: AU rows of the training images that passed the graph's filters.
    """
    of = f"{len(usable):,} training images"
    with house_style():
        if usable[list(INTENSITIES)].notna().any(axis=None):
            figure = draw_intensities(usable)
            figure.suptitle(f"Action-unit intensities above zero, {of}")
        elif usable[list(PRESENCES)].notna().any(axis=None):
            figure = draw_presences(usable)
            figure.suptitle(f"Action units present, {of}")
        else:
            return
        _save(figure, folder / AU_FIGURE)


def save_graph_figure(folder: Path, graph: Graph, labels: np.ndarray) -> None:
    """Distances, similarities, and how often a neighbour has the image's own label, by rank."""
    with house_style():
        _save(draw_links(graph, label_agreement(graph, labels)), folder / GRAPH_FIGURE)


def save_curves(folder: Path, model: str, seed: int, history: History, classes: int) -> None:
    """Accuracy, loss and learning rate by epoch, on the training and on the validation images."""
    name = f"{model} · seed {seed}"
    with house_style():
        _save(draw_curves({name: [history]}, {name: MODEL_COLOURS[model]}, classes), folder / CURVES_FIGURE)


def _save(figure: Figure, path: Path) -> None:
    figure.savefig(path, facecolor="white")
