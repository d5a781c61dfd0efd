"""Whether the predictive distributions mean what they say: a picture and two tables."""

from typing import Any

import numpy as np
from matplotlib.figure import Figure

from zoo.comparison import Outcome
from zoo.reporting.axes import name_axes
from zoo.reporting.ink import LINE, MINUS, SOFT, canvas, hover
from zoo.reporting.reading import Floats, names, scored
from zoo.reporting.tables import Cell
from zoo.reporting.text import number, percent, sentence, span

__all__ = ["CHECKS", "SCORES", "checks", "curves", "scores"]

CURVES = 64  # columns drawn at most
BY_CHANCE = 0.05  # share of columns that leave the band of 95 % even if all are calibrated

SCORES = (
    *(f"inside the {level}\u00a0% interval" for level in (50, 80, 90, 95)), "inside the prior's 90\u00a0% interval",
    "columns outside the band", "expected by chance", "beyond chance", "ECE",
    "CRPS / CRPS of the training marginal, median column", "log score, nats per column", "data with k > 0.7",
)  # fmt: skip
CHECKS = (
    "mean bias", "mean RMSE", "variance bias", "variance RMSE", "sample bias", "sample RMSE", "90 % coverage",
)  # fmt: skip


def curves(run: Outcome, colour: str) -> tuple[Figure, str] | None:
    """ECDF minus uniform of the leave-one-out PIT in the first scored seed, one line per column, with the 95 % band.

    A line is coloured if its column is rejected with all columns tested together; one column in twenty leaves the band
    by chance.
    """
    pit, beyond = _of(run, "pit", "obs", "feature"), _of(run, "beyond_chance", "feature")
    if pit is None or not pit.size:
        return None
    figure, ax = canvas(2.9)
    band = run.tree["calibration"]
    at = np.asarray(band["point"])
    ax.fill_between(
        at, np.asarray(band["band_low"]), np.asarray(band["band_high"]), color=LINE, alpha=0.6, lw=0, zorder=0
    )
    varying = np.flatnonzero(np.isfinite(pit[0]).any(0))
    called = names(run, pit.shape[2])
    drawn = varying[np.linspace(0, len(varying) - 1, min(len(varying), CURVES)).astype(int)] if varying.size else []
    for column in drawn:
        values = np.sort(pit[0, np.isfinite(pit[0, :, column]), column])
        ecdf = np.searchsorted(values, at, side="right") / len(values)
        rejected = beyond is not None and bool(beyond[0, column] == 1)
        line = ax.plot(
            at,
            ecdf - at,
            color=colour if rejected else SOFT,
            lw=1.1 if rejected else 0.7,
            alpha=0.7,
            zorder=2 + rejected,
        )
        verdict = ", rejected as one of all" if rejected else ""
        hover(line, f"{called[column]}: {_farthest(ecdf - at)}{verdict}")
    ax.axhline(0, color=LINE, lw=0.8, zorder=1)
    ax.set_xlim(0, 1)
    name_axes(ax, "PIT, leave-one-out", f"ECDF {MINUS} uniform")
    remarks = _remarks(run)
    if len(drawn) < len(varying):
        remarks.append(f"{len(drawn)} of {len(varying)} columns are drawn")
    return figure, sentence(remarks)


def _farthest(distance: Floats) -> str:
    """How far a line departs from zero, and on which side."""
    most = float(distance[np.abs(distance).argmax()])
    return f"{percent(abs(most))} too many low values" if most > 0 else f"{percent(abs(most))} too few low values"


def scores(run: Outcome) -> list[Cell] | None:
    """A row of numbers: means over the scored seeds and the columns that vary."""
    held, prior = _coverage(run), _coverage(run, "prior")
    if not held:
        return None
    cells = [percent(held.get(level, np.nan)) for level in (0.5, 0.8, 0.9, 0.95)]
    cells += [percent(prior.get(0.9, np.nan)), f"{_count(run, 'outside')} of {_tested(run)}"]
    cells += [
        f"{BY_CHANCE * _tested(run):.1f}",
        _count(run, "beyond_chance"),
        number(_mean(_of(run, "ece", "feature"))),
    ]
    cells += [number(_relative(run)), number(_mean(_of(run, "log_score", "feature"))), percent(_bad_k(run))]
    return [(cell, "") for cell in cells]


def checks(run: Outcome) -> list[Cell] | None:
    """The check of draws that have seen the datum, each number beside the same for data simulated from the model."""
    columns = [scored(run, "calibration/reconstruction_check", "statistic", source=s) for s in ("data", "simulated")]
    if columns[0] is None or columns[1] is None:
        return None
    named = [str(name) for name in np.asarray(run.tree["calibration"]["statistic"])]
    data, simulated = (dict(zip(named, np.nanmean(values, 0), strict=True)) for values in columns if values is not None)
    return [(_check(data, name), _check(simulated, name)) for name in CHECKS]


def _check(values: dict[str, float], name: str) -> str:
    show = percent if "coverage" in name else number
    return show(values.get(name, np.nan))


def _remarks(run: Outcome) -> list[str]:
    """What the picture cannot say: coverage of intervals, lines outside the band and expected, and sharpness."""
    held = _coverage(run)
    intervals = [f"{percent(level)} intervals hold {percent(held[level])}" for level in (0.5, 0.9) if level in held]
    tested = _tested(run)
    leave = f"{_count(run, 'outside')} of {tested} columns leave the band, {BY_CHANCE * tested:.1f} expected by chance"
    judged = [leave, f"beyond chance: {_count(run, 'beyond_chance')}"] if tested else ["no column is held to the band"]
    remarks = [", ".join(intervals), *judged]
    if unjudged := _unjudged(run):
        more, (verb, whose) = "more " if tested else "", ("is", "its") if unjudged == 1 else ("are", "their")
        remarks.append(f"{unjudged} {more}{verb} not judged, since more than a quarter of {whose} weights have k > 0.7")
    remarks.append(f"expected calibration error {number(_mean(_of(run, 'ece', 'feature')))}")
    remarks.append(f"CRPS {percent(_relative(run))} of the training marginal's in the median column")
    if np.isfinite(bad := _bad_k(run)):
        remarks.append(f"k > 0.7 for {percent(bad)} of the leave-one-out weights")
    return remarks


def _coverage(run: Outcome, kind: str = "leave-one-out") -> dict[float, float]:
    """Observed share of data within each central interval, by nominal share."""
    values = scored(run, "calibration/coverage", "level", "feature", kind=kind)
    if values is None:
        return {}
    levels = [round(float(level), 6) for level in np.asarray(run.tree["calibration"]["level"])]
    return {level: _mean(values[:, i]) for i, level in enumerate(levels)}


def _count(run: Outcome, name: str) -> str:
    """'3 to 5': how many columns it is true of, over the scored seeds; a dash if unknown."""
    values = _of(run, name, "feature")
    if values is None:
        return number(None)
    seeds = values[np.isfinite(values).any(1)]
    return span([int(count) for count in (seeds == 1).sum(1)])


def _tested(run: Outcome) -> int:
    """How many columns are tested in at least one seed."""
    values = _of(run, "outside", "feature")
    return 0 if values is None else int(np.isfinite(values).any(0).sum())


def _unjudged(run: Outcome) -> int:
    """How many columns vary but are tested in no seed, because their weights cannot be trusted."""
    values, bad = _of(run, "outside", "feature"), run.get("calibration/bad_k")
    if values is None or bad is None:
        return 0
    varies = np.isfinite(np.asarray(bad.transpose("chain", "feature"), np.float64)).any(0)
    return int((varies & ~np.isfinite(values).any(0)).sum())


def _relative(run: Outcome) -> float:
    """CRPS over the CRPS of the training marginal, in the median column: a nearly constant one would mislead."""
    crps, reference = _of(run, "crps", "feature"), run.get("calibration/crps_reference")
    if crps is None or reference is None:
        return float("nan")
    marginal = np.asarray(reference, np.float64)
    ratios = crps / np.where(marginal > 0, marginal, np.nan)
    finite = ratios[np.isfinite(ratios)]
    return float(np.median(finite)) if finite.size else float("nan")


def _bad_k(run: Outcome) -> float:
    return _mean(scored(run, "calibration/bad_k", "feature"))


def _of(run: Outcome, name: str, *dims: Any) -> Floats | None:
    return scored(run, f"calibration/{name}", *dims, kind="leave-one-out")


def _mean(values: Floats | None) -> float:
    """Mean of the finite values; NaN if there are none."""
    finite = np.zeros(0) if values is None else values[np.isfinite(values)]
    return float(finite.mean()) if finite.size else float("nan")
