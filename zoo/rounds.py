"""Rounds of training, each twice as long as the last, and whether another is worth its steps."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["AUTO_STEPS", "LIKELY_STEPS", "WORTH", "Round", "round_of", "still_improving"]

FIRST, MOST, LIKELY = 1000, 5, 3  # steps of the first round; the most rounds, and the usual number
WORTH = 0.1  # nats per datum: a smaller gain is not worth twice the steps


class Round(NamedTuple):
    """The steps of one learning-rate schedule: from ``start`` to before ``stop``."""

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
    """Which seeds would gain from more steps, judged by their validation ELBO, shape (S,).

    These gained more than ``WORTH`` lately and ended within ``WORTH`` of their best. A learning rate that goes to zero
    can only raise the training ELBO: if validation ends below its best, the pair overfits, and more steps make that
    worse.

    Args:
        before: validation ELBOs of earlier checks, shape (S, C); if there are none, all of ``since`` is gain.
        since: validation ELBOs of later checks, at least one, shape (S, C').
    """
    least = np.full((len(since), 1), -np.inf)
    before, since = (np.where(np.isfinite(elbo), elbo, -np.inf) for elbo in (np.hstack([least, before]), since))
    once, lately, last = before.max(1), since.max(1), since[:, -1]
    improving: NDArray[np.bool_] = np.isfinite(last) & (lately > once + WORTH) & (last > lately - WORTH)
    return improving
