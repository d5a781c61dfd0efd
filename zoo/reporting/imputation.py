"""How well hidden entries were filled in, compared with common imputers: a picture by column, and tables."""

from collections.abc import Callable, Iterator

import numpy as np
from matplotlib.figure import Figure

from zoo.comparison import Outcome
from zoo.reporting.axes import name_rows
from zoo.reporting.ink import LINE, PAPER, SOFT, canvas, hover
from zoo.reporting.reading import Floats, image_shape, names, scored
from zoo.reporting.tables import Cell, Table
from zoo.reporting.text import number, percent, sentence

__all__ = ["by_column", "tables"]

COLUMNS = 24
MARKS = ("|", "^", "x", "s", "v")  # of the imputers, in their order


def by_column(run: Outcome, colour: str) -> tuple[Figure, str] | None:
    """The error in every column beside the imputers': in standard deviations for numbers, as a rate for names."""
    errors, others = scored(run, "imputation/error", "feature"), run.get("imputation/baseline_error")
    if errors is None or others is None or image_shape(run):
        return None
    unit = _units(run, errors.shape[1])
    ours = np.nanmean(errors, axis=0) / unit
    theirs = np.asarray(others.transpose("imputer", "feature"), np.float64) / unit
    hidden = np.flatnonzero(np.isfinite(ours))
    chosen = hidden[np.argsort(-(ours / np.maximum(theirs[0], 1e-12))[hidden], kind="stable")][:COLUMNS]
    called = names(run, ours.size)
    figure, ax = canvas(0.9 + 0.24 * len(chosen))
    y = np.arange(len(chosen))
    far = np.nanmax(np.concatenate([ours[chosen][None], theirs[:, chosen]]), initial=0.0)
    ax.hlines(y, 0, far, color=LINE, lw=0.8, zorder=0)
    for name, mark, values in zip(np.asarray(others["imputer"]), MARKS, theirs, strict=False):
        marks = ax.scatter(values[chosen], y, marker=mark, s=26, color=SOFT, lw=1.2, label=str(name), zorder=2)
        hover(marks, *(f"{called[i]}, {name}: {number(values[i])}" for i in chosen))
    marks = ax.scatter(ours[chosen], y, s=34, color=colour, edgecolors=PAPER, lw=0.8, label="this pair", zorder=3)
    hover(marks, *(f"{called[i]}, this pair: {number(ours[i])}" for i in chosen))
    name_rows(ax, [called[i] for i in chosen], "RMSE in standard deviations, or error rate")
    ax.set_xlim(left=0)
    figure.legend(loc="outside upper center", ncols=2, handletextpad=0.2)
    better = int((ours[chosen] < theirs[0, chosen]).sum())
    remarks = [f"better than {np.asarray(others['imputer'])[0]} in {better} of {len(chosen)} columns"]
    if len(chosen) < len(hidden):
        remarks.append(f"{len(chosen)} of {len(hidden)} columns are drawn, those where the pair gains least on it")
    return figure, sentence(remarks)


def tables(runs: list[Outcome]) -> Iterator[Table]:
    """Errors over all hidden entries of one data set: a table for numbers, one for names, and the log score."""
    have = [run for run in runs if run.get("imputation/rmse") is not None]
    imputers = [str(one) for one in np.asarray(have[0].tree["imputation"]["imputer"])] if have else []
    kinds = (("rmse", "Numbers: RMSE in standard deviations", number), ("error_rate", "Names: error rate", percent))
    for name, title, show in kinds:
        told = {run.label: _row(run, name) for run in have}
        rows = [
            (label, [_seeds(ours, show), *((show(value), "") for value in theirs)])
            for label, (ours, theirs) in told.items()
            if np.isfinite(ours).any()
        ]
        if rows:
            yield Table(("this pair", *imputers), rows, title)
    scores = {run.label: scored(run, "imputation/log_score_mean") for run in have}
    if have:
        rows = [(label, [_seeds(score, number)]) for label, score in scores.items()]
        yield Table(("this pair",), rows, "Log score, nats per hidden entry")


def _row(run: Outcome, name: str) -> tuple[Floats, Floats]:
    ours, theirs = scored(run, f"imputation/{name}"), run.get(f"imputation/baseline_{name}")
    nothing = np.full(1, np.nan)
    return nothing if ours is None else ours, nothing if theirs is None else np.asarray(theirs, np.float64)


def _seeds(values: Floats | None, show: Callable[[float], str]) -> Cell:
    """The mean over seeds, with the least and the greatest."""
    if values is None or not np.isfinite(values).any():
        return show(np.nan), ""
    low, high = show(float(np.nanmin(values))), show(float(np.nanmax(values)))
    return show(float(np.nanmean(values))), "" if low == high else f"{low} to {high}"


def _units(run: Outcome, features: int) -> Floats:
    """The standard deviation of each column of numbers, 1 for names."""
    measure, spread = run.get("imputation/measure"), run.get("constant_data/train_std")
    if measure is None or spread is None:
        return np.ones(features)
    rate = np.char.startswith(np.asarray(measure).astype(str), "error")
    deviation = np.asarray(spread, np.float64)
    return np.where(rate | ~(deviation > 0), 1.0, deviation)
