"""Axes that can be read on a phone: few ticks, and logarithms in plain text."""

import math
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, MaxNLocator, NullLocator

from zoo.reporting.ink import hover
from zoo.reporting.text import decade, short

__all__ = ["CHARACTERS", "few_ticks", "legend_columns", "log_ticks", "name_axes", "name_rows", "plain_log"]

CHARACTERS = 32  # of tick labels that fit on an x axis, gaps not counted
NAME = 22  # characters of a name on a y axis
LEGEND = 44  # characters that fit side by side in a legend, marks not counted


def name_axes(ax: Axes, x: str, y: str) -> None:
    """Labels, and few enough ticks to read on a phone."""
    ax.set_xlabel(x)
    ax.set_ylabel(y)
    if ax.get_yscale() == "log":
        plain_log(ax)
    few_ticks(ax, 6)


def name_rows(ax: Axes, names: Sequence[str], x: str) -> None:
    """Names down the y axis, the first on top; a shortened name shows in full under the pointer."""
    ticks = ax.set_yticks(range(len(names)), [short(name, NAME) for name in names])
    for tick, name in zip(ticks, names, strict=True):
        if len(name) > NAME:
            hover(tick.label1, name)
    ax.set_ylim(len(names) - 0.5, -0.5)
    ax.tick_params(length=0, axis="y")
    ax.set_xlabel(x, loc="right")  # aligned there it also fits under long names


def few_ticks(ax: Axes, most: int) -> None:
    """As many ticks on a linear x axis as their labels leave room for."""
    for bins in range(most, 0, -1):
        ax.locator_params(axis="x", nbins=bins, min_n_ticks=1)
        labels = ax.xaxis.get_major_formatter().format_ticks(ax.xaxis.get_majorticklocs().tolist())
        if sum(map(len, labels)) <= CHARACTERS:
            return


def plain_log(ax: Axes) -> None:
    """Ticks of logarithmic axes as plain text: mathtext is off, since names may hold a dollar sign."""
    for axis in (ax.xaxis, ax.yaxis):
        if axis.get_scale() == "log":
            axis.set_major_locator(FixedLocator(log_ticks(*sorted(axis.get_view_interval()))))
            axis.set_minor_locator(NullLocator())
            axis.set_major_formatter(lambda value, _: decade(value))


def log_ticks(low: float, high: float) -> list[float]:
    """Two to six round numbers within a range, far enough apart for their labels."""
    short = low >= 1e-3 and high <= 1e4  # outside this range only powers of ten have short labels
    if high < 10 * low:
        ticks = [float(tick) for tick in MaxNLocator(5, steps=[1, 2, 5, 10]).tick_values(low, high)]
    else:
        decades = [10.0**decade for decade in range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)]
        powers = sum(low <= decade <= high for decade in decades) > 2
        short |= powers
        ticks = [step * decade for decade in decades for step in ((1,) if powers else (1, 2, 5))]
    ticks = [tick for tick in ticks if low <= tick <= high]
    room = math.log(high / low) / (7 if short else 3.5)
    kept: list[float] = []
    for tick in ticks[:: -(-len(ticks) // 6) or 1]:
        if not kept or math.log(tick / kept[-1]) >= room:
            kept.append(tick)
    return kept or [math.sqrt(low * high)]


def legend_columns(names: Sequence[str]) -> int:
    """How many of these names fit side by side in a legend."""
    return max(1, LEGEND // (4 + max(map(len, names))))
