"""The ranking as a picture: every pair of a table with its score, error and seeds."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from zoo.comparison import Outcome
from zoo.reporting.axes import few_ticks
from zoo.reporting.ink import INK, LINE, PAPER, SOFT, canvas, hover
from zoo.reporting.reading import seeds
from zoo.reporting.text import distinct, number, sentence, short

__all__ = ["ranking"]


def ranking(table: pd.DataFrame, runs: Mapping[str, Outcome], colours: Mapping[str, str]) -> tuple[Figure, str]:
    """The held-out score of every pair with two standard errors, and the mean of every seed."""
    scored = table[np.isfinite(table["log_evidence"])]
    low, high = _view(scored)
    pad = 0.06 * max(high - low, 1.0)
    figure, ax = canvas(0.62 + 0.56 * max(len(scored), 1))
    ax.set_xlim(low - pad, high + pad)
    frame = ax.get_yaxis_transform()
    beyond = 0
    for y, ((name, row), score) in enumerate(zip(scored.iterrows(), distinct(scored["log_evidence"]), strict=True)):
        colour, ranked = colours[str(name)], pd.notna(row["rank"])
        mean, reach = row["log_evidence"], 2 * np.nan_to_num(row["se"])
        ax.axhline(y, color=LINE, lw=0.8, zorder=0)
        if low <= mean <= high:
            _of_seeds(runs[str(name)], ax, y, colour)
            bar = ax.plot([mean - reach, mean + reach], [y, y], color=colour, lw=2.2)
            dot = ax.plot(mean, y, "o", color=colour, ms=6, mfc=colour if ranked else PAPER, mew=1.8)
        else:
            beyond += 1
            edge, sign = (low - pad / 2, "<") if mean < low else (high + pad / 2, ">")
            bar, dot = [], ax.plot(edge, y, sign, color=colour, ms=7.5, mfc=PAPER, mew=1.8)
        full = f"{row['title']}: {score} nats per datum, two standard errors are {number(reach)}"
        title = short(str(row["title"]), 36 if ranked else 29) + ("" if ranked else ", apart")
        label = ax.text(0, y - 0.3, title, transform=frame, color=INK if ranked else SOFT, va="center")
        hover([*bar, *dot, label], *[full] * (len(bar) + 2))
        ax.text(1, y - 0.3, score, transform=frame, color=colour, va="center", ha="right")
    ax.set_ylim(len(scored) - 0.5, -0.65)
    ax.set_yticks([])
    ax.spines["left"].set_visible(False)
    few_ticks(ax, 5)
    ax.set_xlabel("held-out log-likelihood, nats per datum")
    remarks = [f"{beyond} beyond the view, drawn as an arrowhead"] if beyond else []
    if len(without := table[~np.isfinite(table["log_evidence"])]):
        remarks.append(f"without a finite score, and not drawn: {', '.join(map(str, without['title']))}")
    return figure, sentence(remarks)


def _view(scored: pd.DataFrame) -> tuple[float, float]:
    """The range shown: up to three times the median distance from the best ranked pair, so that no outlier flattens it.

    It includes the errors of all pairs inside.
    """
    if scored.empty:
        return 0.0, 1.0
    ranked = scored["log_evidence"][scored["rank"].notna()]
    core = ranked if len(ranked) else scored["log_evidence"]
    room = max(3 * (core.max() - core.median()), 1.0)
    near = scored[scored["log_evidence"].between(core.max() - room, core.max() + room)]
    reach = 2 * np.nan_to_num(near["se"])
    return float((near["log_evidence"] - reach).min()), float((near["log_evidence"] + reach).max())


def _of_seeds(run: Outcome, ax: Axes, y: int, colour: str) -> None:
    """A tick at the mean of each seed."""
    assert run.per_seed is not None
    means = run.per_seed.mean(1)
    ticks = ax.scatter(means, np.full(len(means), y), marker="|", s=121, lw=1.1, color=colour, alpha=0.6, zorder=2)
    numbers = [f"seed {seed}" for seed in seeds(run)] if len(means) == run.used.sum() else ["the mixture of all seeds"]
    hover(ticks, *(f"{seed}: {number(mean)} nats per datum" for seed, mean in zip(numbers, means, strict=False)))
