"""What a fit tells of each of its checks, to TensorBoard, MLflow or anything else."""

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
    """What is known at a check, in nats per datum and in the units of the data; of each seed, (S,), in their order.

    Attributes:
        pair: its name.
        step: how many steps have been taken.
        steps: where they end, or this round of them.
        seconds: since training began, those of an earlier call included.
        seeds: the seeds.
        elbo: mean over the steps since the last check, not a number for a seed that took none.
        validation_elbo: of the validation part, not a number for a seed that is no longer trained.
        best_elbo: the best validation ELBO so far.
        alive: whether the seed is trained further.
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
    """Calls a function at each check until it fails, which is logged: training is worth more than its report.

    >>> Teller(None).wanted
    False
    """

    def __init__(self, on_check: OnCheck | None) -> None:
        self._on_check = on_check
        # also once it has failed, in the first of several processes: what a check knows, all of them put together
        self.wanted = on_check is not None

    def __call__(self, check: Check) -> None:
        """Tell of a check."""
        if self._on_check is None:
            return
        try:
            self._on_check(check)
        except Exception:
            log.warning(
                "on_check failed at step %d and is not called again; training goes on.", check.step, exc_info=True
            )
            self._on_check = None
