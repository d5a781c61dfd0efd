"""How a pair is trained, apart from the data: arguments of :func:`zoo.fit`, checked, and what follows from them."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch
from annotated_types import Ge, Gt, Le, Lt

from zoo.divergence import FALLING_CHECKS
from zoo.engine import Precision
from zoo.errors import OptionError
from zoo.options import MAX_SEED, MOST, MOST_SEEDS, checked, count
from zoo.parts import OBJECTIVES
from zoo.rounds import AUTO_STEPS, LIKELY_STEPS, Round, round_of

__all__ = ["SCHEDULES", "Settings", "checked_seeds", "checked_settings", "chosen_device"]

SCHEDULES: dict[str, Callable[[float], float]] = {
    # the share of the learning rate as a function of the share of the steps done
    "cosine": lambda done: (1 + math.cos(math.pi * done)) / 2,
    "constant": lambda _: 1.0,
}

Count = Annotated[int, Ge(1), Le(MOST)]


@dataclass(frozen=True)
class Settings:
    """How a pair is trained, apart from the data."""

    steps: Count | Literal["auto"] = 2000
    batch_size: Count = 128
    learning_rate: Annotated[float, Gt(0), Lt(math.inf)] | None = None
    schedule: Literal["cosine", "constant"] = "cosine"
    objective: str | None = None
    warmup: Annotated[int, Ge(0), Le(MOST)] = 0
    clip: Annotated[float, Gt(0), Lt(math.inf)] | None = None
    same_batches: bool = False
    checks: Count = 50
    validation_rows: Count | None = 4096
    keep: Literal["best", "last"] = "best"
    patience: Count | None = None
    compile: Literal["off", "capture", "inductor", "auto"] = "auto"
    precision: Precision = "float32"
    device: str = "auto"
    on_divergence: Literal["warn", "stop", "raise"] = "stop"

    def round(self, step: int) -> Round:
        """The round of a step, numbered from 0; a fixed number of steps is one round."""
        return round_of(step) if self.steps == "auto" else Round(1, 0, self.steps)

    @property
    def most_steps(self) -> int:
        """The step at which training ends at the latest."""
        return AUTO_STEPS if self.steps == "auto" else self.steps

    @property
    def likely_steps(self) -> int:
        """How many steps to expect."""
        return LIKELY_STEPS if self.steps == "auto" else self.steps

    def at(self, step: int) -> tuple[float, float]:
        """The learning rate and the weight of the KL term at a step, numbered from 0."""
        assert self.learning_rate is not None  # fit has filled it in
        _, start, stop = self.round(step)
        rate = self.learning_rate * SCHEDULES[self.schedule]((step - start) / (stop - start))
        return rate, min(1.0, (step + 1) / self.warmup) if self.warmup else 1.0

    def checks_at(self, step: int) -> bool:
        """Whether the validation ELBO is taken after this step, numbered from 0."""
        _, start, stop = self.round(step)
        # the watch needs a few checks to see a falling scale, even if fewer were asked for
        every = min(-(-(stop - start) // self.checks), max(1, (stop - start) // (2 * FALLING_CHECKS)))
        return (step + 1 - start) % every == 0 or step + 1 == stop

    def settles_at(self, step: int) -> bool:
        """Whether seeds that no longer improve stop after this step: at the end of a round without warm-up."""
        _, start, stop = self.round(step)
        return self.steps == "auto" and start >= self.warmup and step + 1 == stop


def checked_settings(given: dict[str, Any]) -> Settings:
    """Arguments of :func:`fit` by name, if each has the right type and range and the device exists."""
    settings = checked(Settings, given, "fit")
    if settings.objective is not None:
        made = OBJECTIVES.make(settings.objective)
        if getattr(made, "over_warmup", False) and not settings.warmup:
            raise OptionError(
                f"fit: objective={settings.objective!r} without warm-up is the ELBO: give warmup=STEPS too."
            )
    if settings.steps == "auto" and settings.schedule != "cosine":
        raise OptionError(
            f'fit: steps="auto" restarts the cosine schedule, and schedule={settings.schedule!r} has no restarts: give '
            "a number of steps, or leave the schedule out."
        )
    if settings.steps == "auto" and settings.patience is not None:
        raise OptionError(
            f'fit: steps="auto" stops a seed by its gain in a round, and patience={settings.patience} by single '
            "checks, which get worse at every restart: give a number of steps, or leave patience out."
        )
    chosen_device(settings.device)
    return settings


def checked_seeds(seeds: Any) -> list[int]:
    """The list of seeds from a count or different whole numbers."""
    try:
        chosen = list(range(count("seeds", seeds, most=MOST_SEEDS)))
    except OptionError:
        try:
            chosen = [*map(operator.index, seeds)]
        except TypeError:
            chosen = []
    sound = chosen and min(chosen) >= 0 and max(chosen) <= MAX_SEED and len(set(chosen)) == len(chosen)
    if not sound:
        raise OptionError(
            f"fit: seeds={seeds!r}; give a count, of at least 1 and at most {MOST_SEEDS}, or different non-negative "
            "integers below 2**63."
        )
    return chosen


def chosen_device(name: str) -> torch.device:
    """The device of that name, if it can be used; "auto" is a card where there is one."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise OptionError(f"fit: device={name!r} cannot be used: {reason}. Try device='cpu'.") from None
    return torch.device(name)
