"""Latents beside what they should be: all together against the prior, each datum's against Markov chains."""

from collections.abc import Callable
from statistics import NormalDist

import numpy as np
from matplotlib.figure import Figure

from zoo.comparison import Outcome
from zoo.reporting.figures import Floats, active_units, name_axes, number, scored, sentence, span
from zoo.reporting.ink import INK, LINE, PAPER, canvas
from zoo.reporting.tables import Cell

__all__ = ["COSTS", "aggregate", "costs", "reference"]

MIXED = 1.01  # an R-hat above it says that the chains disagree (Vehtari et al., 2021)
QUANTILES = np.linspace(0.005, 0.995, 100)

COSTS = ("active units", "squared MMD to the prior", "approximation gap, nats", "amortisation gap, nats")


def aggregate(run: Outcome, colour: str) -> tuple[Figure, str] | None:
    """Quantiles of every latent, over data and draws of the first scored seed, against those of N(0, 1)."""
    z = scored(run, "posterior/z", "latent", "draw", "obs")
    mmd, null = (scored(run, f"spread/{name}") for name in ("aggregate_mmd", "aggregate_mmd_null"))
    if z is None or mmd is None or null is None:
        return None
    figure, ax = canvas(3.4)
    normal = np.array([NormalDist().inv_cdf(p) for p in QUANTILES])
    ax.plot(normal[[0, -1]], normal[[0, -1]], color=INK, lw=1, ls=(0, (5, 3)), zorder=4)
    for latent in z[0].reshape(z.shape[1], -1):
        finite = latent[np.isfinite(latent)]
        if finite.size:
            ax.plot(normal, np.quantile(finite, QUANTILES), color=colour, lw=1.1, alpha=0.65)
    name_axes(ax, "quantile of N(0, 1)", "quantile of a latent")
    return figure, sentence([f"squared MMD {number(mmd[0])}, {number(null[0])} or less in 95\u00a0% of prior samples"])


def costs(run: Outcome) -> list[Cell] | None:
    """A row of numbers, means over data and the scored seeds."""
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
    """The guide's standard deviation and mean beside those of NUTS: a point a datum, latent and seed."""
    ratio, shift, r_hat, ess = (
        scored(run, f"reference_posterior/{name}", "obs", "latent", seed="seed")
        for name in ("scale_ratio", "shift", "r_hat", "ess")
    )
    if ratio is None or shift is None or r_hat is None or not (ratio > 0).any():
        return None
    figure, ax = canvas(3.1)
    ax.axvline(0, color=LINE, lw=1, zorder=0)
    ax.axhline(1, color=LINE, lw=1, zorder=0)
    shown, apart = np.isfinite(shift) & np.isfinite(ratio) & (ratio > 0), r_hat > MIXED
    for marked, face in ((~apart, colour), (apart, PAPER)):
        ax.plot(shift[shown & marked], ratio[shown & marked], "o", color=colour, mfc=face, ms=4, mew=0.9, alpha=0.7)
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
    if apart.any():
        remarks.append(f"hollow: R-hat above {MIXED}, {apart.sum()} of {apart.size}")
    if (
        diverged := scored(run, "reference_posterior/divergences", "chain", seed="seed")
    ) is not None and diverged.any():
        remarks.append(f"{np.nansum(diverged):,.0f} transitions diverged")
    return figure, sentence(remarks)


def _over(values: Floats | None, statistic: Callable[[Floats], np.floating]) -> float:
    """A statistic of what is finite; NaN without any."""
    finite = np.zeros(0) if values is None else values[np.isfinite(values)]
    return float(statistic(finite)) if finite.size else float("nan")
