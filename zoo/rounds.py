"""Rounds of training, each twice as long as the one before it, and whether another is worth its steps."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["AUTO_STEPS", "LIKELY_STEPS", "WORTH", "Round", "round_of", "still_improving"]

FIRST, MOST, LIKELY = 1000, 5, 3  # steps of the first round; how many rounds at most, and how many it often takes
WORTH = 0.1  # nats per datum: a smaller gain is not worth twice the steps


class Round(NamedTuple):
    """The steps over which the learning rate runs through its schedule once: from ``start`` to before ``stop``."""

    number: int
    start: int
    stop: int


def _steps(rounds: int) -> int:
    return ((1 << rounds) - 1) * FIRST


AUTO_STEPS, LIKELY_STEPS = _steps(MOST), _steps(LIKELY)


def round_of(step: int) -> Round:
    """The round that a step is in, steps numbered from 0 and rounds from 1.

    >>> round_of(3500)
    Round(number=3, start=3000, stop=7000)
    """
    number = (step // FIRST + 1).bit_length()
    return Round(number, _steps(number - 1), _steps(number))


def still_improving(before: NDArray[Any], since: NDArray[Any]) -> NDArray[np.bool_]:
    """Which seeds would gain by more steps, as far as their validation ELBO tells, shape (S,).

    Those that gained more than ``WORTH`` lately, and ended no further than that below their best. A learning rate that
    goes to zero can only raise the ELBO of what it trains: if validation ends lower than it once was, the pair
    overfits, and more steps make that worse.

    Args:
        before: validation ELBOs of earlier checks, shape (S, C); with none, whatever came since was gained.
        since: those of later ones, at least one, shape (S, C').
    """
    least = np.full((len(since), 1), -np.inf)
    before, since = (np.where(np.isfinite(elbo), elbo, -np.inf) for elbo in (np.hstack([least, before]), since))
    once, lately, last = before.max(1), since.max(1), since[:, -1]
    improving: NDArray[np.bool_] = np.isfinite(last) & (lately > once + WORTH) & (last > lately - WORTH)
    return improving
