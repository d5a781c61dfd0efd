"""Whether a run ended too early, judged by its traces, and how to train the pair longer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zoo.rounds import AUTO_STEPS, still_improving

__all__ = ["ended_early", "goes_on"]


def ended_early(
    steps: NDArray[Any],
    elbo: NDArray[Any],
    *,
    settled_at: NDArray[Any] | None = None,
    broken: NDArray[Any] | None = None,
) -> NDArray[np.bool_]:
    """Which seeds were still improving when their training ended, shape (S,).

    A seed trained for a fixed number of steps was still improving if the later half of them raised its validation
    ELBO by more than 0.1 nats, and it ended within 0.1 nats of its best. A slope over the last checks would miss this:
    towards the end of a cosine schedule nothing moves. A seed trained until it settles was if it did not settle.

    Args:
        steps: the steps at which the run was validated, ascending, shape (C,).
        elbo: validation ELBO, nats per datum, NaN once a seed has stopped, shape (S, C).
        settled_at: the step at which a seed stopped improving, or -1, shape (S,); None for a run with a fixed number
            of steps.
        broken: seeds that ran away or were frozen, which more steps cannot mend, shape (S,).

    >>> steps = np.arange(200, 2001, 200)
    >>> ended_early(steps, np.array([-8000 / steps, -steps / 200]))
    array([ True, False])
    """
    sound = np.ones(len(elbo), dtype=bool) if broken is None else ~np.asarray(broken, dtype=bool)
    if settled_at is not None:
        return np.where(np.asarray(settled_at) < 0, sound, False)
    rose: NDArray[np.bool_] = np.array([_rose(steps, seed) for seed in np.asarray(elbo, np.float64)], dtype=bool)
    return sound & rose


def _rose(steps: NDArray[Any], elbo: NDArray[Any]) -> bool:
    """Whether one seed, elbo (C,), improved over the later half of the steps it took."""
    known = np.isfinite(elbo)
    if not known.any():
        return False
    steps, elbo = steps[known], elbo[known]
    later = steps > steps[-1] / 2
    return bool(still_improving(elbo[None, ~later], elbo[None, later])[0])


def goes_on(attrs: Mapping[Any, Any]) -> str:
    """How to train a run with these root attributes longer: an option for the command that trained it, or a command.

    A finished fit has to be trained again from its first step, since the learning-rate schedule depends on the number
    of steps. An interrupted one is resumed.

    >>> goes_on({"steps": 2000, "schedule": "cosine", "patience": "null"})
    '--steps auto, or steps="auto" in Python'
    """
    if "interrupted_at" in attrs:
        return "zoo train --resume RUN continues"
    steps, schedule, patience = (attrs.get(name) for name in ("steps", "schedule", "patience"))
    if steps == "auto":
        return _steps(2 * AUTO_STEPS)
    settles = schedule in (None, "cosine") and patience in (None, "null")
    if steps is None or (settles and steps < AUTO_STEPS):
        return _steps("auto")
    return _steps(2 * steps)


def _steps(number: int | str) -> str:
    written = number if isinstance(number, int) else f'"{number}"'
    return f"--steps {number}, or steps={written} in Python"
