"""What a fit reports at each check, to TensorBoard, MLflow or anything else."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

__all__ = ["Check", "OnCheck", "Teller"]

log = logging.getLogger("zoo")

Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True, eq=False)
class Check:
    """The state at a check, in nats per datum in the units of the data; arrays are by seed, (S,).

    Attributes:
        pair: the pair's name.
        step: how many steps have been taken.
        steps: the step at which training, or this round, ends.
        seconds: time since training began, including earlier calls.
        seeds: the seeds.
        elbo: mean over the steps since the last check, NaN for a seed that took none.
        validation_elbo: ELBO of the validation part, NaN for a seed that is no longer trained.
        best_elbo: the best validation ELBO so far.
        alive: whether the seed is still trained.
    """

    pair: str
    step: int
    steps: int
    seconds: float
    seeds: tuple[int, ...]
    elbo: Array
    validation_elbo: Array
    best_elbo: Array
    alive: Array


OnCheck: TypeAlias = Callable[[Check], object]


class Teller:
    """Calls a function at each check until it fails, which is logged but does not stop training.

    >>> Teller(None).wanted
    False
    """

    def __init__(self, on_check: OnCheck | None) -> None:
        self._on_check = on_check
        # even after a failure in the first of several processes, since all of them assemble a check together
        self.wanted = on_check is not None

    def __call__(self, check: Check) -> None:
        """Report a check."""
        if self._on_check is None:
            return
        try:
            self._on_check(check)
        except Exception:
            log.warning(
                "on_check failed at step %d and is not called again; training goes on.", check.step, exc_info=True
            )
            self._on_check = None
