"""Every picture of the site, drawn from what the zoo computes."""

from __future__ import annotations

import math

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

import zoo
from zoo.reporting.ink import INK, LINE, PALETTE, SOFT, canvas

SHARPNESS = (2.0, 4.0, 8.0, 16.0, 32.0, 64.0)
SUPPORTS = {"unit": "shares and grey values", "count": "counts", "ordinal": "levels", "binary": "zeros and ones"}


def normal(x: np.ndarray, mean: float, deviation: float) -> np.ndarray:
    """Its density."""
    return np.exp(-(((x - mean) / deviation) ** 2) / 2) / (deviation * math.sqrt(2 * math.pi))


def label(ax: Axes, x: str, y: str) -> None:
    """Name the axes."""
    ax.set_xlabel(x)
    ax.set_ylabel(y)


def count_draws(ax: Axes) -> None:
    """Number the draws along a logarithmic axis, and put the legend where curves that rise leave room."""
    ax.set_xticks([1, 10, 100, 1000], ["1", "10", "100", "1,000"])
    ax.minorticks_off()
    ax.legend(frameon=False, loc="lower right", fontsize=9.5)


def collapse() -> Figure:
    """A density that grows a spike on one datum while it covers the others."""
    figure, ax = canvas(2.7)
    data = np.sort(np.random.default_rng(3).normal(size=14))
    target = data[9]
    x = np.unique(np.concatenate([np.linspace(-3.2, 3.2, 400), target + np.linspace(-0.5, 0.5, 801)]))
    for deviation, colour in zip((0.5, 0.15, 0.05), (PALETTE[0], PALETTE[3], PALETTE[1]), strict=True):
        p = (normal(x, 0, 1) + normal(x, target, deviation)) / 2
        ax.plot(x, p, color=colour, lw=1.8, label=f"deviation {deviation:g}")
    ax.plot(data, np.full(len(data), -0.16), "|", color=INK, ms=9, mew=1.2, clip_on=False)
    ax.plot([target], [-0.16], "|", color=PALETTE[1], ms=13, mew=2.6, clip_on=False)
    ax.set_ylim(-0.3, 4.4)
    ax.legend(frameon=False, loc="upper right", fontsize=9.5)
    label(ax, "x", "p(x)")
    return figure


def witnesses() -> Figure:
    """Exact log likelihoods of iris along the path of each pair: without end, below a bound, below zero."""
    figure, ax = canvas(3.0)
    points = zoo.load_data("iris", resolution=None)
    cells = zoo.Data.from_array((np.concatenate([points.train.values]) * 10).round(), support="ordinal", name="iris")
    chosen = (("gaussian-learned", points), ("gaussian-constrained", points), ("gaussian-binned", cells))
    for (name, data), colour in zip(chosen, (PALETTE[1], PALETTE[0], PALETTE[2]), strict=True):
        found = zoo.witness(zoo.create(name, data), data.train[:30], SHARPNESS)
        ax.plot(found.sharpness, found.log_likelihood, "-o", color=colour, lw=1.8, ms=3)
        below = name == "gaussian-constrained"
        ax.annotate(name, (64, found.log_likelihood[-1]), (0, -6 if below else 6), textcoords="offset points",
                    ha="right", va="top" if below else "bottom", color=colour)  # fmt: skip
    ax.axhline(0, color=LINE, lw=0.8, zorder=0)
    label(ax, "how far the decoder is steered", "log likelihood, nats, 30 rows")
    return figure


def path(name: str) -> Figure:
    """The exact log likelihood of one pair along its path."""
    found = witness(name)
    figure, ax = canvas(2.3)
    ax.plot(found.sharpness, found.log_likelihood, "-o", color=PALETTE[1 if found.grows else 0], lw=1.8, ms=3)
    low, high = ax.get_ylim()
    if found.bound <= high + 2 * (high - low):
        ax.axhline(found.bound, color=INK, lw=1, ls=(0, (5, 3)))
        ax.annotate("upper bound", (1, found.bound), (0, 4), xycoords=("axes fraction", "data"),
                    textcoords="offset points", ha="right", va="bottom", color=SOFT)  # fmt: skip
        ax.margins(y=0.15)
    label(ax, "how far the decoder is steered", "log likelihood, nats, 20 rows")
    return figure


def witness(name: str) -> zoo.Witness:
    """The witness of a pair on 20 rows of simulated data of its kind."""
    data = zoo.testing.example_data(zoo.card(name).support, 4)
    return zoo.witness(zoo.create(name, data), data.train[:20], SHARPNESS)


def measures() -> Figure:
    """What a Gaussian gains by narrowing on a value that repeats: as a density without end, as a mass at most 1."""
    figure, ax = canvas(2.7)
    deviation = np.logspace(-3, 0, 200)
    width = 0.1
    density = -np.log(deviation * math.sqrt(2 * math.pi))
    mass = np.array([math.log(math.erf(width / 2 / (s * math.sqrt(2)))) for s in deviation])
    ax.semilogx(deviation, density, color=PALETTE[1], lw=1.8, label="log density at the value")
    ax.semilogx(deviation, mass, color=PALETTE[0], lw=1.8, label="log mass of its cell, 0.1 wide")
    ax.axhline(0, color=LINE, lw=0.8, zorder=0)
    ax.invert_xaxis()
    ax.set_xticks([1, 0.1, 0.01, 0.001], ["1", "0.1", "0.01", "0.001"])
    ax.minorticks_off()
    ax.legend(frameon=False, loc="upper left", fontsize=9.5)
    label(ax, "standard deviation, falling", "nats")
    return figure


def evidence() -> Figure:
    """The bound of a fitted pair rises with the number of samples, from the ELBO towards the evidence."""
    figure, ax = canvas(2.7)
    data = zoo.load_data("wine", resolution=None)
    run = zoo.fit(zoo.create("gaussian-constrained", data), data, seeds=2, steps=600, progress=False)
    counts = (1, 3, 10, 30, 100, 300, 1000, 3000)
    bound = np.array([run.log_evidence(data.test, samples=k).mean(-1) for k in counts])
    for seed, colour in enumerate((PALETTE[0], PALETTE[2])):
        ax.semilogx(counts, bound[:, seed], "-o", color=colour, lw=1.8, ms=3, label=f"seed {seed}")
    ax.annotate("the ELBO", (1, bound[0].min()), (10, -4), textcoords="offset points", color=SOFT)
    count_draws(ax)
    label(ax, "samples per row, K", "log evidence, nats per row")
    return figure


def pareto() -> Figure:
    """Estimates by importance weights settle if k is small, and depend on single draws if it is large."""
    from arviz_stats.base import array_stats

    figure, ax = canvas(2.9)
    rng = np.random.default_rng(1)
    for scale, colour in ((0.95, PALETTE[0]), (0.55, PALETTE[1])):
        draws = scale * rng.normal(size=(4, 5000))
        log_weights = -(draws**2) / 2 + (draws / scale) ** 2 / 2 + math.log(scale)
        k = float(np.mean([array_stats.psislw(-row)[1] for row in log_weights]))
        running = np.log(np.cumsum(np.exp(log_weights), axis=1) / np.arange(1, 5001))
        for row in running:
            ax.semilogx(np.arange(1, 5001), row, color=colour, lw=1.2, alpha=0.8)
        ax.plot([], [], color=colour, lw=1.8, label=f"guide {scale:g} times as wide: k = {k:.2f}")
    ax.axhline(0, color=INK, lw=1, ls=(0, (5, 3)))
    ax.set_ylim(-1.35, 0.75)
    count_draws(ax)
    label(ax, "draws", "error of the log evidence, nats")
    return figure


def calibration() -> Figure:
    """How much of the data central intervals hold, for a normal with the right deviation, half of it and twice."""
    figure, ax = canvas(3.0)
    level = np.linspace(0.005, 0.995, 100)
    residual = np.abs(np.random.default_rng(0).normal(size=4000))
    from scipy.stats import norm

    half = norm.ppf((1 + level) / 2)
    for factor, name, colour in ((1, "right", PALETTE[0]), (0.5, "half", PALETTE[1]), (2, "twice", PALETTE[3])):
        covered = [(residual < factor * width).mean() for width in half]
        ax.plot(level, covered, color=colour, lw=1.8, label=f"deviation {name}")
    ax.plot([0, 1], [0, 1], color=INK, lw=1, ls=(0, (5, 3)))
    ax.legend(frameon=False, loc="lower right", fontsize=9.5)
    label(ax, "promised", "held-out values inside")
    return figure


QUESTIONS = (
    ("Zeros and ones", ("bernoulli",)),
    ("Levels in an order", ("gaussian-binned", "cumulative-logit", "logistic-mixture")),
    ("Names without an order", ("categorical", "mixed")),
    ("Counts", ("poisson", "negative-binomial", "zero-inflated-negative-binomial")),
    ("Shares, grey values", ("continuous-bernoulli", "beta", "logit-normal", "truncated-normal")),
    ("Positive amounts", ("log-normal", "gamma")),
    ("Any real numbers", ("gaussian-constrained", "gaussian-shared", "gaussian-column")),
    ("    … with wild values", ("student-t", "laplace")),
    ("    … in clusters", ("gmm-constrained", "gmvae")),
    ("    … that move together", ("gaussian-low-rank", "linear-diagonal")),
    ("Columns of several kinds", ("mixed",)),
)


def decision() -> Figure:
    """From what the columns hold to the pairs to compare."""
    figure = Figure(figsize=(8.3, 5.6), layout="none")
    ax = figure.add_axes((0, 0, 1, 1))
    ax.set_xlim(0, 100)
    ax.set_ylim(len(QUESTIONS) + 0.35, -1.05)
    ax.axis("off")
    ax.text(16.5, -0.6, "What do the columns hold?", ha="center", color=SOFT)
    ax.text(37, -0.6, "Compare", color=SOFT)
    for row, (question, names) in enumerate(QUESTIONS):
        inner = question.startswith(" ")
        left, right = (5, 33) if inner else (0, 33)
        ax.add_patch(
            FancyBboxPatch((left, row - 0.33), right - left, 0.66, boxstyle="round,pad=0,rounding_size=0.9",
                           fc="none", ec=LINE if inner else SOFT, lw=1, mutation_aspect=0.12)
        )  # fmt: skip
        ax.text(left + 1.6, row, question.strip(), va="center")
        ax.annotate("", (36.2, row), (33.2, row), arrowprops={"arrowstyle": "-|>", "color": SOFT, "lw": 1})
        place = 37.0
        for name in names:
            colour = PALETTE[0] if zoo.card(name).bounded else PALETTE[1]
            text = ax.text(place, row, name, va="center", color=colour)
            text.set_url(f"catalogue/{name}.html")
            place += 0.92 * len(name) + 2.6
    ax.text(37, len(QUESTIONS) - 0.05, "bounded on any data", color=PALETTE[0], va="center", fontsize=9.5)
    ax.text(57, len(QUESTIONS) - 0.05, "bounded only under a condition, or not at all", color=PALETTE[1], va="center",
            fontsize=9.5)  # fmt: skip
    return figure
