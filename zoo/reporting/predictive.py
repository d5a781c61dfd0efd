"""What data look like to a pair: pictures and marginal distributions beside the observed ones."""

import numpy as np
from matplotlib.figure import Figure

from zoo.comparison import Outcome
from zoo.reporting.ink import INK, LINE, SOFT, WIDTH, hover
from zoo.reporting.reading import Floats, names, scored
from zoo.reporting.text import number, short

__all__ = ["images", "marginals"]

MARGINALS = 15
PICTURES = 8


def images(run: Outcome, shape: tuple[int, int]) -> tuple[Figure, str]:
    """Observed pictures, their reconstructions by the first scored seed, and pictures drawn from the prior."""
    posterior = scored(run, "posterior_predictive/x", "draw", "obs", "feature")
    prior = scored(run, "prior_predictive/x", "draw", "obs", "feature")
    mean, scale = (scored(run, f"reconstruction/{name}", "obs", "feature") for name in ("mean", "scale"))
    observed = run.get("observed_data/x")
    rows = {
        "observed, held out": None if observed is None else np.asarray(observed, np.float64),
        "reconstruction: mean of p(x|z)": None if mean is None else mean[0],
        "posterior predictive": None if posterior is None else posterior[0, 0],
        "scale of p(x|z)": None if scale is None else scale[0],
        "prior predictive": None if prior is None else prior[0].reshape(-1, prior.shape[-1]),
    }
    strips = {
        title: _mosaic(pictures[: PICTURES * (2 if "prior" in title else 1)], shape)
        for title, pictures in rows.items()
        if pictures is not None
    }
    grey = next(iter(strips.values()))
    low, high = float(np.nanmin(grey)), float(np.nanmax(grey))
    heights = [WIDTH * strip.shape[0] / strip.shape[1] + 0.29 for strip in strips.values()]
    figure = Figure(figsize=(WIDTH, sum(heights)))
    axes = figure.subplots(len(strips), 1, squeeze=False, height_ratios=heights)[:, 0]
    note = ""
    for i, (ax, (title, strip)) in enumerate(zip(axes, strips.items(), strict=True)):
        if "scale" in title:
            finite = strip[np.isfinite(strip)]
            least, most = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)
            ax.imshow(strip, vmin=least, vmax=most, cmap="cividis", interpolation="none")
            note = f"Scale from {number(least)} (dark) to {number(most)} (bright), in the data's units."
        else:
            ax.imshow(strip, vmin=low, vmax=high, cmap="Greys", interpolation="none", gid=f"_grey_{i}")
        ax.set_title(title, loc="left", pad=4.5)
        ax.set_axis_off()
    return figure, note


def marginals(run: Outcome, colour: str) -> tuple[Figure, str]:
    """Every column's distribution: observed, posterior and prior predictive."""
    observed = np.asarray(run.tree["observed_data"]["x"], np.float64)
    count, called = min(observed.shape[1], MARGINALS), names(run, observed.shape[1])
    figure = Figure(figsize=(WIDTH, 1.2 * -(-count // 3)))
    axes = figure.subplots(-(-count // 3), 3, squeeze=False).ravel()
    draws = {}
    for kind in ("posterior", "prior"):
        x = scored(run, f"{kind}_predictive/x", "draw", "obs", "feature")
        if x is not None:
            draws[kind] = x.reshape(-1, observed.shape[1])
    for i, ax in enumerate(axes):
        ax.set_axis_off()
        if i >= count:
            continue
        column = observed[:, i][np.isfinite(observed[:, i])]
        low, high = (column.min(), column.max()) if column.size else (0.0, 1.0)
        room = 0.2 * (high - low) or 1.0
        edges = np.linspace(low - room, high + room, 25)
        seen = np.histogram(column, edges)[0] / max(len(column), 1) / np.diff(edges)
        ax.stairs(seen, edges, fill=True, color=SOFT, alpha=0.4, lw=0)
        tops = [1e-12, *seen]
        for kind, style in (
            ("posterior", {"color": colour, "lw": 1.5}),
            ("prior", {"color": INK, "lw": 0.9, "ls": (0, (2, 1.5))}),
        ):
            if kind in draws:
                values = draws[kind][:, i][~np.isnan(draws[kind][:, i])]  # a row that overflowed has no draws
                density = np.histogram(values, edges)[0] / max(len(values), 1) / np.diff(edges)
                ax.stairs(density, edges, **style)
                tops.append(min(float(density.max()), 3 * max(tops)))
        ax.set_ylim(0, max(tops) * 1.08)
        ax.axhline(0, color=LINE, lw=1)
        name = ax.set_title(short(called[i], 14), pad=2)
        hover(name, f"{called[i]}: observed from {number(low)} to {number(high)}")
    shown = f"The first {count} of {observed.shape[1]} columns." if count < observed.shape[1] else ""
    return figure, shown


def _mosaic(pictures: Floats, shape: tuple[int, int]) -> Floats:
    """Pictures side by side, eight to a row, with a gap of one pixel."""
    height, width = shape
    lines = max(-(-len(pictures) // PICTURES), 1)
    strip = np.full((lines * (height + 1) - 1, PICTURES * (width + 1) - 1), np.nan)
    for i, picture in enumerate(pictures):
        top, left = (i // PICTURES) * (height + 1), (i % PICTURES) * (width + 1)
        strip[top : top + height, left : left + width] = picture.reshape(shape)
    return strip
