"""A number for each pixel of an image, as a map."""

from collections.abc import Sequence

import numpy as np
from matplotlib.collections import PolyCollection
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure
from numpy.typing import NDArray

from zoo.reporting.axes import plain_log
from zoo.reporting.ink import SOFT, canvas, hover
from zoo.reporting.reading import Floats
from zoo.reporting.text import number

__all__ = ["heat_map"]

CELLS = 256  # maps of up to so many cells show a number under the pointer; more would bloat the page


def heat_map(
    values: Floats, shape: tuple[int, int], texts: Sequence[str], *, crossed: NDArray[np.bool_], unknown: str, log: bool
) -> tuple[Figure, list[str]]:
    """The map of a number for each pixel, with a text under the pointer, and the remarks on the map.

    Pixels that are constant in training may be ``crossed``. A pixel without a number is a dash; ``unknown`` says why.
    """
    figure, ax = canvas(2.6)
    finite = values[np.isfinite(values)]
    low, high = float(finite.min()), float(finite.max())
    flat = high - low <= 0.01 * abs(low)
    norm = LogNorm(low, max(high, low * 1.01)) if log else Normalize(low, high)
    image = ax.imshow(values.reshape(shape), norm=norm, cmap="cividis", interpolation="none")
    size = min(6, 60 / shape[0])
    empty = ~np.isfinite(values)
    crossed = crossed & ~empty
    for marked, sign, colour in ((crossed, "x", "#ffffff"), (empty, "_", SOFT)):
        ax.plot(*np.argwhere(marked.reshape(shape)).T[::-1], sign, color=colour, ms=size, mew=1.2)
    if not flat:
        bar = figure.colorbar(image, ax=ax, shrink=0.9, aspect=14)
        bar.outline.set_visible(False)  # type: ignore[operator]
        plain_log(bar.ax)
    ax.set_axis_off()
    if values.size <= CELLS:
        y, x = np.divmod(np.arange(values.size), shape[1])
        corners = np.array([[-0.5, -0.5], [0.5, -0.5], [0.5, 0.5], [-0.5, 0.5]])
        cells = PolyCollection(list(np.stack([x, y], 1)[:, None] + corners), facecolors=[(0, 0, 0, 0)], linewidths=0)
        hover(cells, *texts)
        ax.add_collection(cells, autolim=False)
    told = {
        f"a cross: constant in training, {crossed.sum()} of {crossed.size} pixels": crossed.any(),
        f"the same in all, {number(low)}": flat,
        f"a dash: {unknown}, {empty.sum()} of {empty.size} pixels": empty.any(),
    }
    return figure, [remark for remark, holds in told.items() if holds]
