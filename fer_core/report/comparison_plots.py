"""A comparison's figures: differences as a forest, and what each way reaches along an axis."""

import textwrap
from collections.abc import Hashable
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from fer_core.report.comparison import HIGHER_IS_BETTER, MEASURES, NETWORKS
from fer_core.report.style import FAINT, INK, Picture, new_figure, picture

_WIDTH = 11.2
_SHOWN = ("accuracy", "kl")
_NETWORK_COLOURS = {"generator": "#4477AA", "student": "#AA3377"}
_MARKS = "osD^vPX*<>"
"""A way's own, since not every reader tells all colours apart."""
_LONGEST = 60
"""Letters of a name in a figure."""
_STRIDE = {"generator": -0.14, "student": 0.14}
"""Lines of the two networks of a row, above and below its middle."""


def forest(differences: pd.DataFrame) -> Picture:
    """A row for each pair in each stage: the mean difference and its interval, a colour a network."""
    rows = differences[["stage", "first", "second"]].drop_duplicates().to_numpy().tolist()
    measures = [name for name in _SHOWN if (differences["measure"] == name).any()]
    stages = list(dict.fromkeys(stage for stage, _, _ in rows))
    named = [_row_name(one, other, stage if len(stages) > 1 else "") for stage, one, other in rows]
    lines = max((name.count("\n") + 1 for name in named), default=1)
    figure = new_figure(_WIDTH, 1.1 + max(0.36, 0.14 * lines) * len(rows))
    panels = np.atleast_1d(figure.subplots(1, len(measures), sharey=True))
    for axis, measure in zip(panels, measures, strict=True):
        part = differences[differences["measure"] == measure]
        for place, names in enumerate(rows):
            here = part[(part[["stage", "first", "second"]] == names).all(axis=1)]
            for row in here.to_dict("records"):
                _whisker(axis, place + _STRIDE[row["network"]], row)
        axis.axvline(0, color=FAINT, linewidth=1)
        better = "right" if measure in HIGHER_IS_BETTER else "left"
        unit = "accuracy, points" if measure == "accuracy" else MEASURES[measure]
        axis.set_xlabel(f"difference in {unit} ({better} is better)")
        axis.grid(True, axis="x")
        axis.tick_params(axis="y", length=0)
    panels[0].set_yticks(range(len(rows)), named, fontsize=7.5)
    panels[0].set_ylim(len(rows) - 0.5, -0.5)
    _legend_of_networks(figure, set(differences["network"]))
    return picture(figure, "Differences between ways, with intervals over seeds and images.")


def curves(means: pd.DataFrame, axis_name: str) -> Picture:
    """Accuracy and KL of each way along an axis, a row of panels a network."""
    points = means[(means["axis"] == axis_name) & means["at"].notna()]
    networks = [network for network in NETWORKS if points.loc[points["network"] == network, "at"].nunique() > 1]
    measures = [name for name in _SHOWN if name in points]
    figure = new_figure(_WIDTH, 0.6 + 3.4 * len(networks))
    panels = figure.subplots(len(networks), len(measures), squeeze=False)
    ways = list(dict.fromkeys(points["way"]))
    colours = dict(zip(ways, mpl.colormaps["turbo"](np.linspace(0.08, 0.92, len(ways))), strict=True))
    marks = {way: _MARKS[place % len(_MARKS)] for place, way in enumerate(ways)}
    drawn: dict[str, Line2D] = {}
    for line, network in zip(panels, networks, strict=True):
        for axis, measure in zip(line, measures, strict=True):
            for way in ways:
                mine = points[(points["way"] == way) & (points["network"] == network)].sort_values("at")
                if len(mine):
                    axis.fill_between(
                        mine["at"], mine[f"{measure}_low"], mine[f"{measure}_high"], color=colours[way], alpha=0.12
                    )
                    (drawn[way],) = axis.plot(
                        mine["at"], mine[measure], "-", marker=marks[way], color=colours[way], markersize=4.5
                    )
            if points["at"].min() > 0:
                axis.set_xscale("log")
            ticks = sorted(points["at"].unique())
            axis.set_xticks(ticks, [f"{tick:,g}" for tick in ticks])
            axis.minorticks_off()
            axis.set(xlabel=axis_name, ylabel=f"{NETWORKS[network]}: {MEASURES[measure]}")
            axis.grid(True)
    # Of all rows, since a way may have one network alone. A name that begins with _ would be left out.
    shown = [way for way in ways if way in drawn]
    names = [f"\u200b{_short(way)}" if way.startswith("_") else _short(way) for way in shown]
    columns = 3 if max(map(len, names)) <= _LONGEST * 2 // 3 else 1
    figure.legend([drawn[way] for way in shown], names, loc="outside upper center", ncols=columns)
    return picture(figure, f"What each way reaches along {axis_name}.")


def _row_name(first: str, second: str, stage: str) -> str:
    """A row's name, in lines that leave the panels their room."""
    return "\n".join(
        [*textwrap.wrap(f"{_short(first)} − {_short(second)}", _LONGEST + 10), *filter(None, [_short(stage)])]
    )


def _short(name: str) -> str:
    """A name in one line; the tables have all of a long one."""
    line = " ".join(name.split())
    return line if len(line) <= _LONGEST else f"{line[: _LONGEST - 1]}…"


def _whisker(axis: Axes, place: float, row: dict[Hashable, Any]) -> None:
    colour = _NETWORK_COLOURS[row["network"]]
    axis.plot((row["low"], row["high"]), (place, place), color=colour, linewidth=2.4, alpha=0.6)
    face = colour if row["settled"] else "none"
    axis.plot(row["difference"], place, "o", color=colour, markerfacecolor=face, markersize=5)


def _legend_of_networks(figure: Any, networks: set[str]) -> None:
    marks = [
        Line2D([], [], color=_NETWORK_COLOURS[network], marker="o", label=name)
        for network, name in NETWORKS.items()
        if network in networks
    ]
    open_mark = Line2D([], [], color=INK, linestyle="none", marker="o", markerfacecolor="none")
    open_mark.set_label("not settled")
    figure.legend(handles=[*marks, open_mark], loc="outside upper center", ncols=3)
