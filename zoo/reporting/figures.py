"""The figures of the report: each function draws one from the records of a run and returns it."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from arviz_plots import PlotCollection, plot_forest
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, MaxNLocator, NullLocator
from numpy.typing import NDArray

from zoo.comparison import COLLAPSED, Outcome
from zoo.reporting.ink import DASH, INK, LINE, MINUS, PAPER, SOFT, TIMES, WIDTH, canvas

__all__ = [
    "columns",
    "components",
    "contraction",
    "images",
    "marginals",
    "memberships",
    "power_of_ten",
    "ranking",
    "scales",
    "short",
    "spread",
    "traces",
]

Floats = NDArray[np.float64]

POINTS = 500  # of a trace, per seed: more cannot be seen at a panel's width
LATENTS = 16
COLUMNS = 24
MARGINALS = 15
PICTURES = 8
CHARACTERS = 32  # of tick labels that an x axis has room for, gaps not counted


def ranking(table: pd.DataFrame, runs: dict[str, Outcome], colours: dict[str, str]) -> tuple[Figure, str]:
    """Log evidence of a table's pairs with two standard errors, and the mean of every seed."""
    scored = table[np.isfinite(table["log_evidence"])]
    figure, ax = canvas(0.62 + 0.56 * max(len(scored), 1))
    core = scored[scored["rank"].notna()] if scored["rank"].notna().any() else scored
    reach = 2 * np.nan_to_num(core["se"])
    low, high = (core["log_evidence"] - reach).min(), (core["log_evidence"] + reach).max()
    room = max(high - low, 1.0)
    near = scored[(scored["log_evidence"] > low - room) & (scored["log_evidence"] < high + room)]
    reach = 2 * np.nan_to_num(near["se"])
    low, high = (near["log_evidence"] - reach).min(), (near["log_evidence"] + reach).max()
    pad = 0.06 * max(high - low, 1.0)
    ax.set_xlim(low - pad, high + pad)
    for y, (name, row) in enumerate(scored.iterrows()):
        colour, ranked = colours[str(name)], pd.notna(row["rank"])
        se = np.nan_to_num(row["se"])
        ax.axhline(y, color=LINE, lw=0.8, zorder=0)
        if name in near.index:
            per_seed = runs[str(name)].per_seed
            assert per_seed is not None
            ax.plot(per_seed.mean(1), np.full(len(per_seed), y), "|", color=colour, ms=11, mew=1.1, alpha=0.6)
            ax.plot([row["log_evidence"] - 2 * se, row["log_evidence"] + 2 * se], [y, y], color=colour, lw=2.2)
            ax.plot(row["log_evidence"], y, "o", color=colour, ms=6, mfc=colour if ranked else PAPER, mew=1.8)
        else:
            edge, sign = (low - pad / 2, "<") if row["log_evidence"] < low else (high + pad / 2, ">")
            ax.plot(edge, y, sign, color=colour, ms=7.5, mfc=PAPER, mew=1.8)
        label = short(str(row["title"]), 36 if ranked else 29) + ("" if ranked else ", apart")
        frame = ax.get_yaxis_transform()
        ax.text(0, y - 0.3, label, transform=frame, color=INK if ranked else SOFT, va="center")
        ax.text(1, y - 0.3, number(row["log_evidence"]), transform=frame, color=colour, va="center", ha="right")
    ax.set_ylim(len(scored) - 0.5, -0.65)
    ax.set_yticks([])
    ax.spines["left"].set_visible(False)
    _few_ticks(ax, 5)
    ax.set_xlabel("held-out log evidence, nats per datum")
    off = len(scored) - len(near)
    return figure, f"{off} beyond the view, drawn as an arrowhead." if off else ""


def traces(run: Outcome, colour: str) -> tuple[Figure, str]:
    """The ELBO of every seed while it trained, against validation, with the bound."""
    figure, ax = canvas(2.9)
    optimization = run.tree["optimization"]
    train = np.asarray(optimization["elbo"], np.float64)
    window = max(1, train.shape[1] // 100)
    smooth = pd.DataFrame(train.T).rolling(window, min_periods=1, center=True).mean().to_numpy().T
    smooth = np.where(np.isfinite(train), smooth, np.nan)
    steps = np.asarray(optimization["step"])
    for seed in smooth:
        ax.plot(*thin(steps, seed), color=colour, lw=0.8, alpha=0.45)
    curves = list(smooth)
    if "validation" in run.tree.children:
        validation = run.tree["validation"]
        checks = np.asarray(validation["step"])
        best = _per_seed(run, "best_step")
        for i, seed in enumerate(np.asarray(validation["elbo"], np.float64)):
            ax.plot(*thin(checks, seed), color=colour, lw=1.7, marker="o", ms=2.2, zorder=3)
            if best is not None and best[i] >= 0 and run.used[i] and np.isfinite(seed).any():
                at = np.nanargmin(np.where(np.isfinite(seed), np.abs(checks - best[i]), np.inf))
                ax.plot(checks[at], seed[at], "o", color=colour, mfc=PAPER, ms=6.5, mew=1.6, zorder=5)
            curves.append(seed[1:] if seed.size > 1 else seed)
    low, high = _view(curves)
    remarks = [f"training smoothed over {window} steps" if window > 1 else "training unsmoothed"]
    if "validation" in run.tree.children and (note := run.tree["validation"].attrs.get("note")):
        remarks.append(f"checked on {note}")
    bound = run.bound
    if np.isfinite(bound):
        if bound <= high + (high - low):
            high = max(high, bound + 0.05 * (high - low))
            ax.axhline(bound, color=INK, lw=1, ls=(0, (5, 3)))
            ax.annotate(f"bound {number(bound)}", (1, bound), (0, -4), xycoords=("axes fraction", "data"),
                        textcoords="offset points", ha="right", va="top")  # fmt: skip
        else:
            ax.annotate(f"bound {number(bound)} ↑", (1, 1), (0, 3), xycoords="axes fraction",
                        textcoords="offset points", ha="right", va="bottom")  # fmt: skip
            remarks.append("the bound lies above the view")
    elif not bool((run.read("card") or {}).get("bounded", True)):
        remarks.append("no bound")
    shown = train[np.isfinite(train)]
    outside = float(((shown < low) | (shown > high)).mean()) if shown.size else 0.0
    if outside > 0:
        remarks.append(f"{max(outside, 0.001):.1%} of the training values lie outside the view")
    for name, marker, words in (("ran_away_at", "v", "ran away"), ("frozen_at", "X", "frozen")):
        marks = _per_seed(run, name)
        if marks is None or not (marks >= 0).any():
            continue
        marks = np.sort(marks[marks >= 0])
        where = ", ".join(f"{step:,}" for step in np.unique(marks))
        remarks.append(f"{words} ({len(marks)} of {len(train)} seeds, step {where})")
        frame = ax.get_xaxis_transform()
        ax.plot(marks, np.full(len(marks), 0.985), marker, color=INK, ms=7, transform=frame, clip_on=False)
        ax.vlines(marks, low, high, color=INK, lw=0.7, ls=":")
    ax.set_ylim(low, high)
    ax.set_xlim(steps[0], steps[-1] if len(steps) > 1 else steps[0] + 1)
    name_axes(ax, "step", "ELBO, nats per datum")
    return figure, sentence(remarks)


def scales(run: Outcome, colour: str, limits: tuple[float, float]) -> Figure:
    """The smallest decoder standard deviation along training, one line a seed."""
    figure, ax = canvas(2.3)
    optimization = run.tree["optimization"]
    steps = np.asarray(optimization["step"])
    for seed in np.asarray(optimization["min_scale"], np.float64):
        ax.plot(*thin(steps, np.where(seed > 0, seed, np.nan)), color=colour, lw=1, alpha=0.8)
    ax.set_yscale("log")
    ax.set_ylim(*limits)
    ax.set_xlim(steps[0], steps[-1] if len(steps) > 1 else steps[0] + 1)
    if limits[0] < COLLAPSED:
        ax.axhspan(limits[0], COLLAPSED, color=LINE, alpha=0.35, lw=0)
    name_axes(ax, "step", "smallest scale")
    return figure


def columns(run: Outcome, colour: str) -> tuple[Figure, str]:
    """The smallest decoder scale for every column at the last check: a map of an image, a strip of a table."""
    values = run.last_scales
    assert values is not None
    flat = np.array([name in run.constant_columns for name in names(run, values.size)])
    values = np.maximum(values, values[values > 0].min())  # a scale that underflowed to zero has no logarithm
    shape = image_shape(run)
    if shape:
        figure, ax = canvas(2.6)
        low, high = np.nanmin(values), np.nanmax(values)
        image = ax.imshow(
            values.reshape(shape),
            norm=LogNorm(low, max(high, low * 1.01)),
            cmap="cividis",
            interpolation="none",
        )
        ax.plot(*np.argwhere(flat.reshape(shape)).T[::-1], "x", color="#ffffff", ms=min(6, 60 / shape[0]), mew=1.2)
        bar = figure.colorbar(image, ax=ax, shrink=0.9, aspect=14)
        bar.outline.set_visible(False)  # type: ignore[operator]
        _plain_log(bar.ax)
        ax.set_axis_off()
        return (
            figure,
            f"{flat.sum()} of {flat.size} pixels, the crossed ones, are constant in training." if flat.any() else "",
        )
    chosen = np.argsort(np.nan_to_num(values, nan=np.inf), kind="stable")[:COLUMNS]
    figure, ax = canvas(0.5 + 0.24 * len(chosen))
    y = np.arange(len(chosen))
    ax.hlines(y, np.nanmin(values) * 0.8, values[chosen], color=LINE, lw=1.2)
    ax.scatter(
        values[chosen],
        y,
        s=34,
        color=[PAPER if flat[i] else colour for i in chosen],
        edgecolors=colour,
        linewidths=1.5,
        zorder=3,
    )
    ax.set_yticks(y, [short(names(run, values.size)[i], 22) for i in chosen])
    ax.set_ylim(len(chosen) - 0.5, -0.5)
    ax.set_xscale("log")
    _plain_log(ax)
    ax.set_xlabel("smallest scale at the last check")
    ax.tick_params(length=0, axis="y")
    remarks = ["hollow: constant in training"] if flat[chosen].any() else []
    if len(chosen) < values.size:
        remarks.append(f"the {len(chosen)} columns with the smallest scale, of {values.size}")
    return figure, sentence(remarks)


def contraction(run: Outcome) -> Floats | None:
    """(S, L, N) 1 - posterior variance / prior variance, per seed with the most informed latent first."""
    z = scored(run, "posterior/z", "latent", "obs", "draw")
    if z is None or z.shape[-1] < 2:
        return None
    values = 1 - z.var(-1, ddof=1)
    order = np.argsort(-np.median(values, -1), axis=1)
    return np.asarray(np.take_along_axis(values, order[..., None], 1))


def active_units(run: Outcome) -> list[int]:
    """Per seed the latents whose posterior mean varies over data by more than 0.01 (Burda et al., 2016)."""
    moved = scored(run, "spread/mean_variance", "latent")
    if moved is None:
        z = scored(run, "posterior/z", "latent", "obs", "draw")
        if z is None:
            return []
        # The mean of a few draws varies by itself: that part is taken off.
        moved = z.mean(-1).var(-1, ddof=1) - z.var(-1, ddof=1).mean(-1) / z.shape[-1]
    return [int(count) for count in (moved > 0.01).sum(1)]


def spread(run: Outcome, values: Floats, colour: str) -> tuple[Figure, str]:
    """ArviZ forest of the contraction of every latent over test data: a line a seed, sorted within it."""
    seeds, latents = values.shape[0], min(values.shape[1], LATENTS)
    figure, ax = canvas(0.6 + latents * (0.16 + 0.07 * min(seeds, 6)))
    data = xr.Dataset(
        {"contraction": (("latent", "chain", "obs"), values[:, :latents].transpose(1, 0, 2))},
        {"latent": np.arange(latents), "chain": np.arange(seeds)},
    )
    # Axes of our own: ArviZ would otherwise ask pyplot, whose registry of figures is global.
    facets = xr.Dataset(
        {"figure": ((), np.array(figure, object)), "plot": ("column", np.array([ax, ax], object))},
        {"column": ["labels", "forest"]},
    )
    shift = np.linspace(-0.28, 0.28, seeds) if seeds > 1 else np.zeros(1)
    collection = PlotCollection(
        data,
        xr.DataTree(facets),
        backend="matplotlib",
        aes={"y": ["latent", "chain"], "overlay": ["latent", "chain"]},
        y=(np.arange(latents)[:, None] + shift).ravel().tolist(),
    )
    ax.axvspan(-0.25, 0, color=LINE, alpha=0.35, lw=0)
    plot_forest(
        xr.DataTree.from_dict({"posterior": data}),
        plot_collection=collection,
        sample_dims=["obs"],
        combined=False,
        labels=[],
        ci_kind="eti",
        ci_probs=(0.5, 0.9),
        point_estimate="median",
        visuals={
            "trunk": {"color": colour, "width": 2.6},
            "twig": {"color": colour, "width": 0.9},
            "point_estimate": {"color": colour, "facecolor": PAPER, "size": 14},
            "remove_axis": False,
            "ticklabels": False,
        },
    )
    ax.set_yticks(range(latents), [str(i + 1) for i in range(latents)])
    ax.set_ylim(latents - 0.5, -0.5)
    ax.set_xlim(min(-0.05, max(float(np.quantile(values, 0.05)), -0.25)), 1.02)
    ax.tick_params(length=0, axis="y")
    name_axes(ax, f"contraction, 1 {MINUS} posterior variance / prior variance", "latent, sorted")
    remarks = [f"{span(active_units(run))} of {values.shape[1]} latents are active"]
    if latents < values.shape[1]:
        remarks.append(f"the first {latents} are shown")
    return figure, sentence(remarks)


def memberships(run: Outcome) -> Floats | None:
    """(S, N, C) responsibility of every component of a mixture for every test datum."""
    return scored(run, "posterior/responsibility", "obs", "component")


def components(run: Outcome, responsibility: Floats, colour: str) -> tuple[Figure, str]:
    """How a mixture shares out the test data: mean responsibility of each component, sorted, a bar a seed."""
    weights = -np.sort(-responsibility.mean(1), axis=1)
    figure, ax = canvas(0.6 + 0.34 * len(weights))
    for y, seed in enumerate(weights):
        left = np.concatenate([[0.0], np.cumsum(seed)[:-1]])
        for number_, (start, width) in enumerate(zip(left, seed, strict=True)):
            alpha = 0.95 - 0.65 * number_ / max(len(seed) - 1, 1)
            ax.barh(y, width, left=start, color=colour, alpha=alpha, height=0.7, edgecolor=PAPER, linewidth=0.8)
    seeds = [seed for seed, used in zip(_seeds(run), run.used, strict=True) if used]
    ax.set_yticks(range(len(weights)), [str(seed) for seed in seeds])
    ax.set_ylim(len(weights) - 0.4, -0.6)
    ax.set_xlim(0, 1)
    ax.tick_params(length=0, axis="y")
    ax.spines["left"].set_visible(False)
    name_axes(ax, "share of the test data", "seed")
    with np.errstate(divide="ignore", invalid="ignore"):
        entropy = -np.nansum(responsibility * np.log(responsibility), axis=-1).mean()
    remarks = [
        f"{weights.shape[1]} components",
        f"the entropy of a membership is {entropy:.2f} nats on average "
        f"(0: sure of one, {np.log(weights.shape[1]):.2f}: no idea)",
    ]
    if (certainty := scored(run, "spread/certainty")) is not None:
        told = ", ".join(number(seed) for seed in certainty)
        remarks.append(f"certainty {told}, by seed: the share of doubt about the component that a datum takes away")
    return figure, sentence(remarks)


def images(run: Outcome, shape: tuple[int, int]) -> tuple[Figure, str]:
    """Observed pictures over what the first scored seed makes of them, then what it draws unasked."""
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
        ax.set_title(title, loc="left", fontsize=10, color=SOFT, pad=4.5)
        ax.set_axis_off()
    return figure, note


def marginals(run: Outcome, colour: str) -> tuple[Figure, str]:
    """Every column's distribution: observed, posterior and prior predictive."""
    observed = np.asarray(run.tree["observed_data"]["x"], np.float64)
    count = min(observed.shape[1], MARGINALS)
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
        ax.hist(column, edges, density=True, color=SOFT, alpha=0.4, lw=0)
        tops = [1e-12, *np.histogram(column, edges, density=True)[0]]
        for kind, style in (
            ("posterior", {"color": colour, "lw": 1.5}),
            ("prior", {"color": INK, "lw": 0.9, "ls": (0, (2, 1.5))}),
        ):
            if kind in draws:
                values = draws[kind][:, i]
                density = np.histogram(values, edges)[0] / max(len(values), 1) / np.diff(edges)
                ax.stairs(density, edges, **style)
                tops.append(min(float(density.max()), 3 * max(tops)))
        ax.set_ylim(0, max(tops) * 1.08)
        ax.axhline(0, color=LINE, lw=1)
        ax.set_title(short(names(run, observed.shape[1])[i], 15), fontsize=10, color=SOFT, pad=2)
    shown = f"The first {count} of {observed.shape[1]} columns." if count < observed.shape[1] else ""
    return figure, shown


def thin(x: NDArray[Any], y: Floats) -> tuple[NDArray[Any], Floats]:
    """At most 500 points of a trace, the smallest and largest of every stretch among them."""
    if len(y) <= POINTS:
        return x, y
    keep = [0, len(y) - 1]
    for stretch in np.array_split(np.arange(len(y)), POINTS // 2 - 1):
        finite = stretch[np.isfinite(y[stretch])]
        # An all-NaN stretch keeps a point, so that the line breaks there.
        keep += [finite[y[finite].argmin()], finite[y[finite].argmax()]] if finite.size else [stretch[0]]
    keep = sorted(set(keep))
    return x[keep], y[keep]


def scale_limits(runs: Sequence[Outcome]) -> tuple[float, float]:
    """Common limits of the scale panels."""
    found = [
        np.asarray(scale, np.float64).ravel()
        for run in runs
        if (scale := run.get("optimization/min_scale")) is not None
    ]
    values = np.concatenate([*found, np.ones(1)])
    values = values[np.isfinite(values) & (values > 0)]
    return float(values.min() / 1.6), float(values.max() * 1.6)


def image_shape(run: Outcome) -> tuple[int, int] | None:
    """Rows and columns of a picture, if the data are grey pictures."""
    shape = run.summary.get("image_shape")
    return (int(shape[0]), int(shape[1])) if shape and len(shape) == 2 else None


def names(run: Outcome, count: int) -> list[str]:
    """The names of the columns."""
    found = [str(name) for name in run.summary.get("columns") or ()]
    return found if len(found) == count else [str(i) for i in range(count)]


def number(value: float | None) -> str:
    """A number for people: three or four digits, a power of ten beyond a million, a true minus, a dash for none."""
    if value is None or np.isnan(value):
        return DASH
    if np.isinf(value):
        return "∞" if value > 0 else f"{MINUS}∞"
    size = abs(value)
    if 0 < size < 1e-3 or size >= 1e6:
        exponent = math.floor(math.log10(size))
        return f"{number(value / 10.0**exponent)}{TIMES}{power_of_ten(exponent)}"
    places = next((places for limit, places in ((1000, 0), (10, 1), (0.1, 2), (1e-3, 3)) if size >= limit), 0)
    return f"{value + 0.0:,.{places}f}".replace("-", MINUS)


def percent(value: float) -> str:
    """A share for people: 76.3 %."""
    return DASH if np.isnan(value) else f"{100 * value:.1f}".removesuffix(".0") + "\N{NO-BREAK SPACE}%"


def span(values: Sequence[int]) -> str:
    """Numbers of several seeds as one, or as a range."""
    low, high = (min(values), max(values)) if len(values) else (DASH, DASH)
    return str(low) if low == high else f"{low} to {high}"


def sentence(parts: Sequence[str]) -> str:
    """Remarks as one sentence."""
    text = "; ".join(part for part in parts if part)
    return f"{text[:1].upper()}{text[1:]}." if text else ""


def _view(curves: Sequence[Floats]) -> tuple[float, float]:
    """Limits that show what the middle seed does, whatever a wild start or another seed does."""
    ends = [np.quantile(finite, (0.06, 0.998)) for curve in curves if (finite := curve[np.isfinite(curve)]).size]
    if not ends:
        return 0.0, 1.0
    lows, highs = np.array(ends).T
    low, high = float(np.median(lows)), float(np.median(highs))
    room = max(high - low, 1e-6 * max(abs(low), 1.0))
    low, high = max(float(lows.min()), low - 1.5 * room), min(float(highs.max()), high + 1.5 * room)
    return low - 0.06 * (high - low) - 1e-9, high + 0.06 * (high - low) + 1e-9


def _per_seed(run: Outcome, name: str) -> NDArray[np.int64] | None:
    """A number per seed of the optimization group, or None."""
    values = run.get(f"optimization/{name}")
    return None if values is None else np.asarray(values).astype(np.int64)


def scored(run: Outcome, path: str, *dims: str, seed: str = "chain", **where: Any) -> Floats | None:
    """A variable of the seeds that are scored, seeds first, or None; ``where`` selects by label."""
    values = run.get(path)
    if values is None or not run.used.any():
        return None
    return np.asarray(values.sel(where).transpose(seed, *dims), np.float64)[run.used]


def _seeds(run: Outcome) -> list[int]:
    """The numbers of the seeds."""
    seeds = run.read("seeds") or []
    return [int(seed) for seed in seeds] if len(seeds) == run.used.size else list(range(run.used.size))


def short(text: str, length: int) -> str:
    """A text that fits, cut in the middle: by their ends, and what stands in brackets there, many are told apart.

    >>> short("Gaussian, variance ≥ floor (floor=0.01)", 36)
    'Gaussian, variance ≥ f… (floor=0.01)'
    """
    if len(text) <= length:
        return text
    bracket = text.rfind(" (") if text.endswith(")") else -1
    end = bracket if len(text) - 2 * length / 3 < bracket else len(text) - length // 2
    return f"{text[: length - 1 - (len(text) - end)].rstrip()}…{text[end:]}"


def name_axes(ax: Axes, x: str, y: str) -> None:
    """Labels, and few enough ticks to read on a phone."""
    ax.set_xlabel(x)
    ax.set_ylabel(y)
    if ax.get_yscale() == "log":
        _plain_log(ax)
    _few_ticks(ax, 6)


def _few_ticks(ax: Axes, most: int) -> None:
    """As many ticks of a linear x axis as have room for their labels side by side."""
    for bins in range(most, 0, -1):
        ax.locator_params(axis="x", nbins=bins, min_n_ticks=1)
        labels = ax.xaxis.get_major_formatter().format_ticks(ax.xaxis.get_majorticklocs().tolist())
        if sum(map(len, labels)) <= CHARACTERS:
            return


def _plain_log(ax: Axes) -> None:
    """Ticks of logarithmic axes as plain text: mathtext is off, since names may hold a dollar sign."""
    for axis in (ax.xaxis, ax.yaxis):
        if axis.get_scale() == "log":
            axis.set_major_locator(FixedLocator(_log_ticks(*sorted(axis.get_view_interval()))))
            axis.set_minor_locator(NullLocator())
            axis.set_major_formatter(lambda value, _: _decade(value))


def _log_ticks(low: float, high: float) -> list[float]:
    """Two to six round numbers within a range, far enough apart for their labels."""
    short = low >= 1e-3 and high <= 1e4  # labels of other numbers are long, unless they are powers of ten
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


def _decade(value: float) -> str:
    """A tick of a logarithmic axis: 0.02, 10⁻⁶, 2 × 10⁻⁶."""
    if 1e-3 <= value <= 1e4:
        return f"{value:.6g}"
    digits, _, exponent = f"{value:.5e}".partition("e")
    factor = f"{float(digits):g}"
    return (f"{factor}{TIMES}" if factor != "1" else "") + power_of_ten(int(exponent))


def power_of_ten(exponent: int) -> str:
    """10⁻⁶."""
    return "10" + str(exponent).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))


def _mosaic(pictures: Floats, shape: tuple[int, int]) -> Floats:
    """Pictures side by side, eight to a row, with a gap of one pixel."""
    height, width = shape
    lines = max(-(-len(pictures) // PICTURES), 1)
    strip = np.full((lines * (height + 1) - 1, PICTURES * (width + 1) - 1), np.nan)
    for i, picture in enumerate(pictures):
        top, left = (i // PICTURES) * (height + 1), (i % PICTURES) * (width + 1)
        strip[top : top + height, left : left + width] = picture.reshape(shape)
    return strip
