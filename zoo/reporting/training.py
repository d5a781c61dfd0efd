"""A run in training: the ELBO of every seed, and the smallest decoder scale, overall and by column."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from zoo.comparison import COLLAPSED, Outcome
from zoo.reporting.axes import name_axes, name_rows, plain_log
from zoo.reporting.heat import heat_map
from zoo.reporting.ink import INK, LINE, PAPER, canvas, hover
from zoo.reporting.reading import Floats, image_shape, names, per_seed, seeds
from zoo.reporting.text import number, sentence

__all__ = ["columns", "scale_limits", "scales", "thin", "traces"]

POINTS = 500  # of a trace, per seed: more cannot be seen at a panel's width
COLUMNS = 24


def traces(run: Outcome, colour: str) -> tuple[Figure, str]:
    """The training and validation ELBO of every seed, with the bound."""
    figure, ax = canvas(2.9)
    optimization = run.tree["optimization"]
    train = np.asarray(optimization["elbo"].transpose("chain", "step"), np.float64)
    window = max(1, train.shape[1] // 100)
    smooth = pd.DataFrame(train.T).rolling(window, min_periods=1, center=True).mean().to_numpy().T
    smooth = np.where(np.isfinite(train), smooth, np.nan)
    steps = np.asarray(optimization["step"])
    for number_, seed in zip(seeds(run), smooth, strict=True):
        line = ax.plot(*thin(steps, seed), color=colour, lw=0.8, alpha=0.45)
        hover(line, f"seed {number_}, training: {_end(steps, seed)}")
    validation = _validation(run, ax, colour)
    low, high = _view([*smooth, *(seed[1:] if seed.size > 1 else seed for seed in validation)])
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
        at = per_seed(run, name)
        if at is None or not (at >= 0).any():
            continue
        marks = np.sort(at[at >= 0])
        where = ", ".join(f"{step:,}" for step in np.unique(marks))
        remarks.append(f"{words} ({len(marks)} of {len(train)} seeds, step {where})")
        frame = ax.get_xaxis_transform()
        ax.plot(marks, np.full(len(marks), 0.985), marker, color=INK, ms=7, transform=frame, clip_on=False)
        ax.vlines(marks, low, high, color=INK, lw=0.7, ls=":")
    ax.set_ylim(low, high)
    ax.set_xlim(steps[0], steps[-1] if len(steps) > 1 else steps[0] + 1)
    name_axes(ax, "step", "ELBO, nats per datum")
    return figure, sentence(remarks)


def _validation(run: Outcome, ax: Axes, colour: str) -> Floats:
    """Draw the validation ELBO of every seed, with a ring at the scored weights, and return it, (S, checks)."""
    elbo = run.get("validation/elbo")
    if elbo is None:
        return np.zeros((0, 0))
    curves, checks = np.asarray(elbo.transpose("chain", "check"), np.float64), run.checks
    best = per_seed(run, "best_step")
    for i, (number_, seed) in enumerate(zip(seeds(run), curves, strict=True)):
        line = ax.plot(*thin(checks, seed), color=colour, lw=1.7, marker="o", ms=2.2, zorder=3)
        hover(line, f"seed {number_}, validation: {_end(checks, seed)}")
        if best is not None and best[i] >= 0 and run.used[i] and np.isfinite(seed).any():
            at = np.nanargmin(np.where(np.isfinite(seed), np.abs(checks - best[i]), np.inf))
            ring = ax.plot(checks[at], seed[at], "o", color=colour, mfc=PAPER, ms=6.5, mew=1.6, zorder=5, clip_on=False)
            hover(ring, f"seed {number_}, scored: {number(seed[at])} at step {checks[at]:,}")
    return curves


def _end(steps: NDArray[Any], values: Floats) -> str:
    """Where a curve ends."""
    finite = np.flatnonzero(np.isfinite(values))
    return f"{number(values[finite[-1]])} at step {steps[finite[-1]]:,}" if finite.size else "never finite"


def scales(run: Outcome, colour: str, limits: tuple[float, float]) -> tuple[Figure, str]:
    """The smallest decoder standard deviation during training, one line per seed; zeros are drawn at the lower edge."""
    figure, ax = canvas(2.3)
    optimization = run.tree["optimization"]
    values = np.asarray(optimization["min_scale"].transpose("chain", "step"), np.float64)
    steps = np.asarray(optimization["step"])
    for number_, seed in zip(seeds(run), values, strict=True):
        line = ax.plot(
            *thin(steps, np.where(seed > 0, seed, np.where(seed == 0, limits[0], np.nan))),
            color=colour,
            lw=1,
            alpha=0.8,
        )
        finite = seed[np.isfinite(seed)]
        least = f", least {number(float(finite.min()))}" if finite.size else ""
        hover(line, f"seed {number_}: {_end(steps, seed)}{least}")
    ax.set_yscale("log")
    ax.set_ylim(*limits)
    ax.set_xlim(steps[0], steps[-1] if len(steps) > 1 else steps[0] + 1)
    if limits[0] < COLLAPSED:
        ax.axhspan(limits[0], COLLAPSED, color=LINE, alpha=0.35, lw=0)
    name_axes(ax, "step", "smallest scale")
    remarks = [f"smallest value: {number(float(values[np.isfinite(values)].min()))}"]
    if zero := int((values == 0).any(1).sum()):
        remarks.append(f"in {zero} of {len(values)} seeds it falls to 0, drawn at the lower edge")
    return figure, sentence(remarks)


def columns(run: Outcome, colour: str) -> tuple[Figure, str]:
    """The smallest decoder scale of every column at the last check: a map for an image, a strip for a table."""
    values = run.last_scales
    assert values is not None
    called = names(run, values.size)
    flat = np.array([name in run.constant_columns for name in called])
    zero, known = values == 0, np.isfinite(values)
    drawn = np.where(zero, values[known & (values > 0)].min(), np.where(known, values, np.nan))  # 0 has no logarithm
    fell = [f"{zero.sum()} fell to 0, drawn like the smallest of the others"] if zero.any() else []
    texts = [f"{name}: {number(value)}" for name, value in zip(called, values, strict=True)]
    if shape := image_shape(run):
        figure, remarks = heat_map(drawn, shape, texts, crossed=flat, unknown="no scale", log=True)
        return figure, sentence(remarks + fell)
    chosen = np.argsort(np.where(known, values, np.inf), kind="stable")[: min(COLUMNS, known.sum())]
    figure, ax = canvas(0.5 + 0.24 * len(chosen))
    y = np.arange(len(chosen))
    ax.hlines(y, np.nanmin(drawn) * 0.8, drawn[chosen], color=LINE, lw=1.2)
    dots = ax.scatter(
        drawn[chosen],
        y,
        s=34,
        color=[PAPER if flat[i] else colour for i in chosen],
        edgecolors=colour,
        linewidths=1.5,
        zorder=3,
    )
    hover(dots, *(texts[i] for i in chosen))
    name_rows(ax, [called[i] for i in chosen], "smallest scale at the last check")
    ax.set_xscale("log")
    plain_log(ax)
    remarks = ["hollow: constant in training"] if flat[chosen].any() else []
    if len(chosen) < known.sum():
        remarks.append(f"the {len(chosen)} columns with the smallest scale, of {known.sum()}")
    if not known.all():
        remarks.append(f"without a scale: {(~known).sum()} of {values.size} columns")
    return figure, sentence(remarks + fell)


def thin(x: NDArray[Any], y: Floats) -> tuple[NDArray[Any], Floats]:
    """At most 500 points of a trace, including the smallest and largest of every stretch."""
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
    """Limits shared by the scale panels."""
    found = [
        np.asarray(scale, np.float64).ravel()
        for run in runs
        if (scale := run.get("optimization/min_scale")) is not None
    ]
    values = np.concatenate([*found, np.ones(1)])
    values = values[np.isfinite(values) & (values > 0)]
    return float(values.min() / 1.6), float(values.max() * 1.6)


def _view(curves: Sequence[Floats]) -> tuple[float, float]:
    """Limits that show the middle seed, unaffected by a wild start or another seed."""
    ends = [np.quantile(finite, (0.06, 0.998)) for curve in curves if (finite := curve[np.isfinite(curve)]).size]
    if not ends:
        return 0.0, 1.0
    lows, highs = np.array(ends).T
    low, high = float(np.median(lows)), float(np.median(highs))
    room = max(high - low, 1e-6 * max(abs(low), 1.0))
    low, high = max(float(lows.min()), low - 1.5 * room), min(float(highs.max()), high + 1.5 * room)
    return low - 0.06 * (high - low) - 1e-9, high + 0.06 * (high - low) + 1e-9
