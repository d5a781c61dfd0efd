"""Where a pair fits worst: the held-out rows with the lowest score, and the columns that are predicted worst."""

import json

import numpy as np
from matplotlib.figure import Figure

from zoo.comparison import Outcome
from zoo.reporting.axes import name_rows
from zoo.reporting.heat import heat_map
from zoo.reporting.ink import LINE, SOFT, canvas, hover
from zoo.reporting.reading import Floats, image_shape, names, scored
from zoo.reporting.tables import Cell, Table
from zoo.reporting.text import number, percent, sentence

__all__ = ["HARDEST", "by_column", "hardest"]

HARDEST = 8  # rows listed
COSTLY = 3  # columns listed for each
COLUMNS = 24


def hardest(run: Outcome) -> Table | None:
    """The held-out rows with the lowest scores, at most half of all, each with the columns that cost it most.

    A column's cost is how many nats less its value scores, given the others in the row, than in the median row. If that
    is unknown, the column where the row is farthest from the training part is named instead.
    """
    scores = run.evidence
    if scores is None or not np.isfinite(scores).any():
        return None
    ranked = [int(at) for at in np.argsort(scores, kind="stable") if not np.isnan(scores[at])]
    median = float(np.median(scores[ranked]))
    rows = [
        (f"row {run.obs[at]}", [(number(scores[at]), ""), (number(median - scores[at]), ""), _why(run, at)])
        for at in ranked[: min(HARDEST, len(ranked) // 2)]
    ]
    columns = ("held-out log-likelihood", "below the median row", "what costs it most")
    return Table(columns, rows, run.title) if rows else None


def by_column(run: Outcome, colour: str) -> tuple[Figure, str] | None:
    """Which columns are predicted worst from the others: in nats for an image, relative to the marginal for a table.

    Pixels share one unit, so their costs can be compared. Columns of a table have different units, so each is compared
    with the distribution of its training values by a ratio of CRPS, which is 1 if the pair does no better.
    """
    crps, log_score = (
        scored(run, f"calibration/{name}", "feature", kind="leave-one-out") for name in ("crps", "log_score")
    )
    reference = run.get("calibration/crps_reference")
    if crps is None or log_score is None or reference is None:
        return None
    called, cost = names(run, crps.shape[1]), -np.nanmean(log_score, axis=0)
    if shape := image_shape(run):
        cost = np.where(np.isfinite(cost), cost, np.nan)
        if np.isnan(cost).all():
            return None
        texts = [f"{name}: {number(value)} nats" for name, value in zip(called, cost, strict=True)]
        nowhere, unknown = np.zeros(cost.size, bool), "constant in training, or not known"
        figure, remarks = heat_map(cost, shape, texts, crossed=nowhere, unknown=unknown, log=False)
        return figure, sentence(["nats that each pixel costs, given all others", *remarks])
    marginal = np.asarray(reference, np.float64)
    share = np.nanmean(crps, axis=0) / np.where(marginal > 0, marginal, np.nan)
    known = np.flatnonzero(np.isfinite(share))
    if not known.size:
        return None
    chosen = known[np.argsort(-share[known], kind="stable")][:COLUMNS]
    figure, ax = canvas(0.7 + 0.24 * len(chosen))
    y = np.arange(len(chosen))
    ax.axvline(1, color=SOFT, lw=1, ls=(0, (5, 3)), zorder=0)
    ax.hlines(y, 0, share[chosen], color=LINE, lw=1.2, zorder=1)
    dots = ax.scatter(share[chosen], y, s=34, color=colour, zorder=3)
    hover(dots, *(f"{called[i]}: {percent(share[i])} of the CRPS of its training values" for i in chosen))
    name_rows(ax, [called[i] for i in chosen], "CRPS / CRPS of the training values")
    ax.set_xlim(0, 1.06 * max(1.0, share[chosen].max()))
    lost = int((share[known] >= 1).sum()) or "none"
    beyond = "lie on or beyond the dashed line, where a prediction is no better than the column's training values"
    remarks = [f"{lost} of {known.size} columns {beyond}"]
    if len(chosen) < known.size:
        remarks.append(f"the {len(chosen)} worst are drawn")
    return figure, sentence(remarks)


def _why(run: Outcome, at: int) -> Cell:
    """The columns that cost a row most, with its values there and their costs."""
    costs, row = _costs(run), run.obs[at]
    if costs is None or at >= len(costs) or not np.isfinite(costs[at]).any():
        column, distance = run.far_away(at)
        return (column, f"{number(distance)} sd from the training mean") if column else (number(None), "")
    called = names(run, costs.shape[1])
    order = np.argsort(-np.nan_to_num(costs[at], nan=-np.inf), kind="stable")[:COSTLY]
    told = [f"{called[i]}{_value(run, row, i)} ({number(costs[at, i])} nats)" for i in order if costs[at, i] > 0]
    return ", ".join(told) or number(None), ""


def _costs(run: Outcome) -> Floats | None:
    """(N, D) how much less each value scores, given the others, than in the median row; mean over the scored seeds."""
    values = scored(run, "calibration/row_log_score", "obs", "feature")
    if values is None:
        return None
    mean = np.nanmean(values, axis=0)
    costs: Floats = np.nanmedian(mean, axis=0) - mean
    return costs


def _value(run: Outcome, row: int, column: int) -> str:
    """A row's value in a column: a number or the name of a category; empty if not recorded."""
    x, categories = run.get("observed_data/x"), run.get("constant_data/categories")
    if x is None or "obs" not in x.coords or not (at := np.flatnonzero(np.asarray(x["obs"]) == row)).size:
        return ""
    value = float(x.transpose("obs", "feature")[int(at[0]), column])
    called = json.loads(str(categories.values[column])) if categories is not None else None
    if called and np.isfinite(value):
        return f" {called[int(value)]}"
    return f" {value:g}"
