"""Latents: contraction by each datum, the aggregate against the prior, the guide against Markov chains, a map."""

from collections.abc import Callable
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from arviz_plots import PlotCollection, plot_forest
from matplotlib.figure import Figure
from matplotlib.path import Path
from matplotlib.textpath import TextPath
from numpy.typing import NDArray

from zoo.comparison import Outcome
from zoo.reporting.axes import legend_columns, name_axes
from zoo.reporting.ink import INK, LINE, MINUS, PALETTE, PAPER, canvas, hover
from zoo.reporting.reading import Floats, scored, used_seeds
from zoo.reporting.tables import Cell
from zoo.reporting.text import number, percent, sentence, span

__all__ = [
    "COSTS",
    "aggregate",
    "components",
    "contraction",
    "costs",
    "map_of",
    "memberships",
    "reference",
    "spread",
]

LATENTS = 16
MIXED = 1.01  # an R-hat above it means that the chains disagree (Vehtari et al., 2021)
POINTS = 500  # of a map
MARKERS = ("o", "^")  # of labels, when colours are used up
LOWEST = (0.05, 0.25)  # shares of the rows with the lowest scores that stand out
QUANTILES = np.linspace(0.005, 0.995, 100)

COSTS = ("active units", "squared MMD to the prior", "approximation gap, nats", "amortisation gap, nats")


def contraction(run: Outcome) -> Floats | None:
    """(S, L, N) 1 - posterior variance / prior variance, in each seed with the most informed latent first."""
    z = scored(run, "posterior/z", "latent", "obs", "draw")
    if z is None or z.shape[-1] < 2:
        return None
    values = 1 - z.var(-1, ddof=1)
    order = np.argsort(-np.median(values, -1), axis=1)
    return np.asarray(np.take_along_axis(values, order[..., None], 1))


def active_units(run: Outcome) -> list[int]:
    """The number of latents per seed whose posterior mean has a variance over data above 0.01 (Burda et al., 2016)."""
    moved = scored(run, "spread/mean_variance", "latent")
    if moved is None:
        z = scored(run, "posterior/z", "latent", "obs", "draw")
        if z is None:
            return []
        # The mean of a few draws varies by chance: subtract that part.
        moved = z.mean(-1).var(-1, ddof=1) - z.var(-1, ddof=1).mean(-1) / z.shape[-1]
    return [int(count) for count in (moved > 0.01).sum(1)]


def spread(run: Outcome, values: Floats, colour: str) -> tuple[Figure, str]:
    """ArviZ forest of the contraction of every latent over test data: one line per seed, sorted within it."""
    seeds, latents = values.shape[0], min(values.shape[1], LATENTS)
    figure, ax = canvas(max(1.0, 0.6 + latents * (0.16 + 0.07 * min(seeds, 6))))
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
    drawn = plot_forest(
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
    numbers = used_seeds(run)
    low, middle, high = np.quantile(values, (0.05, 0.5, 0.95), axis=-1)
    for part in ("twig", "trunk", "point_estimate"):
        for (i, seed), mark in np.ndenumerate(drawn.viz[part]["contraction"].transpose("latent", "chain").values):
            median, ends = number(middle[seed, i]), f"{number(low[seed, i])} to {number(high[seed, i])}"
            hover(mark, f"seed {numbers[seed]}, latent {i + 1}: median {median}, 90 % of data {ends}")
    ax.set_yticks(range(latents), [str(i + 1) for i in range(latents)])
    ax.set_ylim(latents - 0.5, -0.5)
    ax.set_xlim(min(-0.05, max(float(np.quantile(values, 0.05)), -0.25)), 1.02)
    ax.tick_params(length=0, axis="y")
    name_axes(ax, f"contraction, 1 {MINUS} posterior variance / prior variance", "latent")
    remarks = [f"{span(active_units(run))} of {values.shape[1]} latents are active"]
    if latents < values.shape[1]:
        remarks.append(f"the first {latents} are shown")
    return figure, sentence(remarks)


def memberships(run: Outcome) -> Floats | None:
    """(S, N, C) responsibility of every component of a mixture for every test datum."""
    return scored(run, "posterior/responsibility", "obs", "component")


def components(run: Outcome, responsibility: Floats, colour: str) -> tuple[Figure, str]:
    """How a mixture divides the test data: mean responsibility of each component, sorted, one bar per seed."""
    weights, numbers = -np.sort(-responsibility.mean(1), axis=1), used_seeds(run)
    figure, ax = canvas(0.6 + 0.34 * len(weights))
    for y, seed in enumerate(weights):
        left = np.concatenate([[0.0], np.cumsum(seed)[:-1]])
        for place, (start, width) in enumerate(zip(left, seed, strict=True)):
            alpha = 0.95 - 0.65 * place / max(len(seed) - 1, 1)
            bar = ax.barh(y, width, left=start, color=colour, alpha=alpha, height=0.7, edgecolor=PAPER, linewidth=0.8)
            hover(bar, f"seed {numbers[y]}, component {place + 1} by size: {percent(width)}")
    ax.set_yticks(range(len(weights)), [str(seed) for seed in numbers])
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
        remarks.append(f"certainty {told}, by seed: the share of doubt about the component that a datum removes")
    return figure, sentence(remarks)


def aggregate(run: Outcome, colour: str) -> tuple[Figure, str] | None:
    """Quantiles of every latent, over data and draws of the first scored seed, against those of N(0, 1)."""
    z = scored(run, "posterior/z", "latent", "draw", "obs")
    mmd, null = (scored(run, f"spread/{name}") for name in ("aggregate_mmd", "aggregate_mmd_null"))
    if z is None or mmd is None or null is None:
        return None
    figure, ax = canvas(3.4)
    normal = np.array([NormalDist().inv_cdf(p) for p in QUANTILES])
    ax.plot(normal[[0, -1]], normal[[0, -1]], color=INK, lw=1, ls=(0, (5, 3)), zorder=4)
    for i, latent in enumerate(z[0].reshape(z.shape[1], -1)):
        finite = latent[np.isfinite(latent)]
        if finite.size:
            line = ax.plot(normal, np.quantile(finite, QUANTILES), color=colour, lw=1.1, alpha=0.65)
            hover(line, f"latent {i + 1}: mean {number(float(finite.mean()))}, sd {number(float(finite.std()))}")
    name_axes(ax, "quantile of N(0, 1)", "quantile of a latent")
    return figure, sentence([f"squared MMD {number(mmd[0])}, {number(null[0])} or less in 95\u00a0% of prior samples"])


def costs(run: Outcome) -> list[Cell] | None:
    """A row of numbers: means over data and the scored seeds."""
    mmd, null = (scored(run, f"spread/{name}") for name in ("aggregate_mmd", "aggregate_mmd_null"))
    moved = scored(run, "spread/mean_variance", "latent")
    if mmd is None or null is None or moved is None:
        return None
    gaps = [scored(run, f"spread/{name}_gap", "obs") for name in ("approximation", "amortization")]
    return [
        (span(active_units(run)), f"of {moved.shape[1]}"),
        (
            number(float(np.nanmean(mmd))),
            f"null {number(float(np.nanmean(null)))}, above it in {(mmd > null).sum()} of {len(mmd)} seeds",
        ),
        *((number(_over(gap, np.mean)), "") for gap in gaps),
    ]


def reference(run: Outcome, colour: str) -> tuple[Figure, str] | None:
    """The guide's standard deviation and mean against NUTS: one point per datum, latent and seed."""
    ratio, shift, r_hat, ess = (
        scored(run, f"reference_posterior/{name}", "obs", "latent", seed="seed")
        for name in ("scale_ratio", "shift", "r_hat", "ess")
    )
    if ratio is None or shift is None or r_hat is None:
        return None
    shown, apart = np.isfinite(shift) & np.isfinite(ratio) & (ratio > 0), r_hat > MIXED
    if not shown.any():
        return None
    group = run.tree["reference_posterior"]
    rows = np.asarray(group["obs"]) if "obs" in group.coords else np.arange(ratio.shape[1])
    figure, ax = canvas(3.1)
    ax.axvline(0, color=LINE, lw=1, zorder=0)
    ax.axhline(1, color=LINE, lw=1, zorder=0)
    for marked, face in ((shown & ~apart, colour), (shown & apart, PAPER)):
        points = ax.scatter(shift[marked], ratio[marked], s=16, color=face, edgecolors=colour, lw=0.9, alpha=0.7)
        places = zip(*np.nonzero(marked), shift[marked], ratio[marked], strict=True)
        texts = (
            f"seed {used_seeds(run)[seed]}, row {rows[row]}, latent {latent + 1}: "
            f"mean off by {number(moved)} sd, {number(of)} of the sd of NUTS"
            for seed, row, latent, moved, of in places
        )
        hover(points, *texts)
    ax.set_yscale("log")
    low, high = min(ratio[shown].min(), 0.9), max(ratio[shown].max(), 1 / 0.9)
    ax.set_ylim(low / 1.1, high * 1.1)
    reach = 1.1 * max(float(np.abs(shift[shown]).max()), 0.1)
    ax.set_xlim(-reach, reach)
    name_axes(ax, "shift of the mean, in sd of NUTS", "sd of the guide / sd of NUTS")
    remarks = [
        f"median ratio {number(_over(ratio, np.median))}, median shift {number(_over(np.abs(shift), np.median))} sd "
        "either way"
    ]
    if (distance := scored(run, "reference_posterior/distance", "obs", seed="seed")) is not None:
        remarks.append(f"median Wasserstein distance {number(_over(distance, np.median))} prior sd")
    remarks.append(f"worst R-hat {_over(r_hat, np.max):.3f}, least effective sample size {_over(ess, np.min):,.0f}")
    if lost := int((~shown).sum()):
        remarks.append(f"{lost} of {shown.size} have no finite ratio above 0, and are not drawn")
    if apart.any():
        remarks.append(f"hollow: R-hat above {MIXED}, {apart.sum()} of {apart.size}")
    if (
        diverged := scored(run, "reference_posterior/divergences", "chain", seed="seed")
    ) is not None and diverged.any():
        remarks.append(f"{np.nansum(diverged):,.0f} transitions diverged")
    return figure, sentence(remarks)


@dataclass(frozen=True)
class _Group:
    """Rows drawn alike on a map."""

    rows: NDArray[np.bool_]
    colour: str
    alpha: float = 0.8
    marker: str | Path = "o"
    label: str = ""


def map_of(run: Outcome, colour: str) -> tuple[Figure, str] | None:
    """Held-out rows by the posterior mean of their latents in the first scored seed, coloured by label or by score.

    With more than two latents the axes are the two directions in which the means vary most: the axes of a latent space
    are arbitrary, and what tells rows apart need not lie along any of them. A single latent is drawn against the score.
    """
    z = scored(run, "posterior/z", "obs", "latent", "draw")
    if z is None:
        return None
    obs = run.tree["posterior"].coords.get("obs")
    means = pd.DataFrame(z[0].mean(-1), np.arange(len(z[0])) if obs is None else np.asarray(obs))
    means = means.replace([np.inf, -np.inf], np.nan).dropna().iloc[:POINTS]
    scores = pd.Series(np.zeros(0) if run.evidence is None else run.evidence, run.obs).reindex(means.index)
    if len(means) < 2 or (means.shape[1] == 1 and not np.isfinite(scores).any()):
        return None
    places, axes, how = _plane(np.asarray(means, np.float64), np.asarray(scores, np.float64))
    labels = _labels(run, means.index)
    groups, meaning = _by_score(scores, colour) if labels is None else _by_label(labels)
    texts = [f"row {row}: {number(score)} nats" for row, score in scores.items()]
    figure, ax = canvas(3.7)
    for group in groups:
        x, y = places[group.rows].T
        drawn = isinstance(group.marker, Path)
        marks = ax.scatter(
            x, y, 44 if drawn else 16, group.colour, marker=group.marker, alpha=group.alpha, lw=0, clip_on=False
        )
        marks.set_label("" if drawn else group.label)
        hover(
            marks,
            *(f"{texts[at]}{f', labelled {group.label}' * bool(group.label)}" for at in np.flatnonzero(group.rows)),
        )
    if names := [name for _, name in zip(*ax.get_legend_handles_labels(), strict=True)]:
        figure.legend(loc="outside upper left", ncols=legend_columns(names), handletextpad=0.1, columnspacing=0.9)
    name_axes(ax, *axes)
    shown = f"posterior means of {len(means)}{f' of {len(z[0])}' * (len(means) < len(z[0]))} held-out rows"
    return figure, sentence([f"{shown}, seed {used_seeds(run)[0]}", meaning, how])


def _by_label(labels: "pd.Series[Any]") -> tuple[list[_Group], str]:
    """A colour for each label; labels of one or two characters are the marks themselves."""
    kinds = [*pd.unique(labels.dropna().sort_values())]
    written = all(str(kind).isalnum() and len(str(kind)) < 3 for kind in kinds)
    groups = [
        _Group(
            (labels == kind).to_numpy(),
            PALETTE[i % len(PALETTE)],
            marker=_centred(str(kind)) if written else MARKERS[i // len(PALETTE)],
            label=str(kind),
        )
        for i, kind in enumerate(kinds)
    ]
    told = "each row is drawn as its label" if written else "coloured by label"
    without = int(labels.isna().sum())
    return groups, f"{told}, {without} without one are not drawn" if without else told


def _centred(text: str) -> Path:
    """A text as a mark."""
    path = TextPath((0, 0), text)
    return Path(path.vertices - path.get_extents().get_points().mean(0), path.codes)


def _by_score(scores: "pd.Series[float]", colour: str) -> tuple[list[_Group], str]:
    """Fainter for a higher score; all alike if there are no scores."""
    place = scores.rank(pct=True).fillna(1).to_numpy()
    shades = np.select([place <= LOWEST[0], place <= LOWEST[1]], [1.0, 0.55], 0.25)
    groups = [_Group(shades == shade, colour, shade) for shade in np.unique(shades)]
    told = f"the lowest {percent(LOWEST[0])} by score stand out most, then those up to {percent(LOWEST[1])}"
    return groups, told if len(groups) > 1 else ""


def _plane(means: Floats, scores: Floats) -> tuple[Floats, tuple[str, str], str]:
    """Positions of the rows on a map, (N, 2), the names of its axes, and a remark on them."""
    if means.shape[1] == 1:
        return np.column_stack([means[:, 0], scores]), ("latent", "held-out log-likelihood"), ""
    if means.shape[1] == 2:
        return means, ("latent 1", "latent 2"), ""
    centred = means - means.mean(0)
    _, lengths, directions = np.linalg.svd(centred, full_matrices=False)
    first = directions[:2] * np.sign(directions[np.arange(2), np.abs(directions[:2]).argmax(1)])[:, None]
    shares = lengths[:2] ** 2 / max(float((lengths**2).sum()), 1e-300)
    names = [f"direction {i + 1}, {percent(share)} of variance" for i, share in enumerate(shares)]
    how = f"the two directions in which the means of {means.shape[1]} latents vary most"
    return centred @ first.T, (names[0], names[1]), how


def _labels(run: Outcome, rows: "pd.Index[Any]") -> "pd.Series[Any] | None":
    """The labels of rows, if the data have labels and few enough to tell apart."""
    x = run.get("observed_data/x")
    if x is None or "label" not in x.coords:
        return None
    index = x["obs"].values if "obs" in x.coords else range(x.sizes["obs"])
    labels = pd.Series(x["label"].values, index).reindex(rows)
    return labels if 1 < labels.nunique() <= len(PALETTE) * len(MARKERS) else None


def _over(values: Floats | None, statistic: Callable[[Floats], np.floating]) -> float:
    """A statistic of the finite values; NaN if there are none."""
    finite = np.zeros(0) if values is None else values[np.isfinite(values)]
    return float(statistic(finite)) if finite.size else float("nan")
