"""Whether a decoder's scales were still shrinking when training ended, read from the traces of a run."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["STEADY", "shrinkage"]

STEADY = (
    0.8  # what a scale shrinks to, or less, with every doubling of what was trained, where it does not come to rest
)
SLOWING = 0.5  # of the fall in logs over the doubling before: a scale that comes to rest falls by less
AT_THE_END = 0.8  # of all that was trained, from which on the best check is one of the end


def shrinkage(
    trained: NDArray[np.float64],
    scale: NDArray[np.float64],
    best: NDArray[np.int64],
) -> NDArray[np.float64]:
    """What each seed's scale shrinks to with every doubling of what was trained, (S,); NaN where it comes to rest.

    What was trained is the sum of the learning rates so far: a schedule that ends at zero makes every scale look
    settled in steps. A scale shrinks without end if it fell to ``STEADY`` or less over the last doubling, and by half
    as much, in logs, as over the one before or more. Only a seed whose best check is near the end counts: its score
    would have been another, had it been stopped at another time.

    Args:
        trained: at the checks, ascending, shape (C,).
        scale: one typical of all data, in any unit, shape (S, C).
        best: number of the check whose weights are scored, shape (S,).

    >>> trained = np.geomspace(1, 1000, 40)
    >>> shrinkage(trained, np.stack([1 / trained, 1 + 1 / trained]), np.array([39, 39])).round(2)
    array([0.5, nan])
    """
    rates = np.full(len(scale), np.nan)
    for seed, (values, at) in enumerate(zip(scale, best, strict=True)):
        known = np.isfinite(values) & (values > 0)
        if known.sum() < 3 or trained[at] < AT_THE_END * trained[known][-1]:
            continue
        when, height = np.log(trained[known]), np.log(values[known])
        if when[-1] - when[0] < np.log(4):
            continue
        end, half, quarter = (float(np.interp(when[-1] - lag, when, height)) for lag in (0, np.log(2), np.log(4)))
        last, before = end - half, half - quarter
        if last <= np.log(STEADY) and last <= SLOWING * before:
            rates[seed] = np.exp(last)
    return rates
