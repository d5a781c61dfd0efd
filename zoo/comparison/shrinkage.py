"""Whether a score depends on when training stopped: a scale was still falling where the data allow it."""

import json
from typing import TypeAlias

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from zoo.words import listing

__all__ = ["SETTLED", "fall", "falls", "rates", "unsettled"]

Floats: TypeAlias = NDArray[np.float64]

SETTLED = 0.5  # halvings per doubling of training: a scale that settles at the noise of the data falls by less

GROUPS = ("validation", "optimization", "constant_data")


def fall(log_scale: ArrayLike, clock: ArrayLike) -> Floats:
    r"""How fast scales fall over the last doubling of the clock, in halvings per doubling, (D,); 0 if not steadily.

    .. math:: - \frac{d \log s}{d \log t}, \qquad t \in [T/2, T]

    It is the smallest of three slopes: over the whole stretch, its first half and its second half. A scale that
    settled within it, or fell only near its end, has not fallen steadily.

    Args:
        log_scale: natural logarithms, shape (C, D); the last row is at T.
        clock: how much has been trained so far, positive and increasing, shape (C,). The sum of the learning rates
            serves for any schedule; the number of steps would mistake the slow end of a cosine for rest.

    >>> step = np.arange(1.0, 51.0)
    >>> fall(np.log(np.stack([1 / step, 3 + 1 / step**3], axis=1)), step).round(2).tolist()
    [1.0, 0.0]
    """
    y, t = np.asarray(log_scale, np.float64), np.log(np.asarray(clock, np.float64))
    slopes = []
    for low, high in ((0.5, 1.0), (0.5, 0.75), (0.75, 1.0)):
        inside = (t >= t[-1] + np.log(low)) & (t <= t[-1] + np.log(high))
        if inside.sum() < 2:
            return np.zeros(y.shape[1])
        centred = t[inside] - t[inside].mean()
        slopes.append(-(centred @ y[inside]) / (centred @ centred))
    slowest: Floats = np.min(slopes, axis=0)  # NaN where a scale is NaN
    return np.where(slowest > 0, slowest, 0.0)


def falls(
    column_scale: ArrayLike, clock: ArrayLike, scored: ArrayLike, degenerate: ArrayLike, repeats_below: ArrayLike
) -> Floats:
    """How fast the scales of each seed were still falling when its scored weights were taken, (S, D), as by `fall`.

    Only degenerate columns count, where held-out density grows without end as a scale falls; the rates of the others
    are 0. In those a falling scale means a better fit, and it settles at the noise of the data, however small; so
    does a scale they share with degenerate columns, such as a single variance of all columns.

    Args:
        column_scale: the smallest scale of each column at each check, shape (S, C, D).
        clock: the sum of the learning rates up to each check, shape (C,).
        scored: the check whose weights are scored, shape (S,).
        degenerate: which columns are constant, or linear functions of others, in training, shape (D,).
        repeats_below: the scale below which a repeated value of the column stands out, shape (D,).
    """
    scales, until = np.asarray(column_scale, np.float64), np.asarray(clock, np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):  # a discrete likelihood has no scale, one that fell has 0
        logs, last = np.log(scales), np.asarray(scored, int)
        slopes = np.stack([fall(seed[: end + 1], until[: end + 1]) for seed, end in zip(logs, last, strict=True)])
    at_last = scales[np.arange(len(scales)), last]
    asked = np.asarray(degenerate, bool) | (at_last < np.asarray(repeats_below))
    held_up = np.stack([np.isin(seed, seed[~which]) for seed, which in zip(at_last, asked, strict=True)])
    return np.where(asked & ~held_up, slopes, 0.0)


def rates(tree: xr.DataTree) -> Floats:
    """How fast the scales of each seed of a run were still falling, (S, D), as by `falls`; 0 for a bounded pair.

    A run that recorded no learning rates or repeated values is judged by its steps, and by the columns that are
    constant or linearly dependent.
    """
    if not {*GROUPS} <= tree.children.keys():
        return np.zeros((1, 1))
    validation, steps, constant = (tree.children[group].to_dataset() for group in GROUPS)
    if "column_scale" not in validation or "best_step" not in steps:
        return np.zeros((1, 1))
    scales = validation["column_scale"].transpose("chain", "check", "feature").values
    names, checks = validation["feature"].values.astype(str), validation["step"].values
    if json.loads(tree.attrs.get("card", "{}")).get("bounded", True):
        return np.zeros((len(scales), len(names)))
    about = json.loads(tree.attrs.get("data_summary", "{}"))
    return falls(
        scales,
        steps["learning_rate"].values.cumsum()[checks - 1] if "learning_rate" in steps else checks,
        np.searchsorted(checks, steps["best_step"].values).clip(max=len(checks) - 1),
        np.isin(names, [*about.get("constant_columns", ()), *about.get("dependent_columns", ())]),
        constant["repeats_below"].values if "repeats_below" in constant else np.zeros(len(names)),
    )


def unsettled(tree: xr.DataTree) -> str:
    """Why the score of a run without a bound depends on when it stopped, judged by its traces; or empty."""
    fast = (found := rates(tree)) >= SETTLED
    if not fast.any():
        return ""
    names = tree.children["validation"].to_dataset()["feature"].values.astype(str)[fast.any(0)]
    where = listing([*names], most=3)
    who = "" if fast.any(1).all() else f" in {fast.any(1).sum()} of {len(fast)} seeds"
    return (
        f"not settled: its scale on {where}, where the data are degenerate, still shrinks {2 ** found.max():.2g}-fold "
        f"with every doubling of training{who}, so its score depends on when it stopped"
    )
