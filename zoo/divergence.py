"""The watch: detects during training a decoder scale that runs to zero."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from zoo.catalogue import Pair, card
from zoo.words import listing

__all__ = ["ALARM", "FALLING_CHECKS", "Watch"]

# The alarm: a decoder scale below 1/200 of its column's spread that falls at three checks in a row. A fixed or
# constrained scale settles; on wine and breast-cancer a learned one does too.
ALARM, FALLING_CHECKS = 1 / 200, 3
# Validation has stopped following if its best lies in the first third of training: rounds of steps="auto" double, so
# a seed that is worse just after a restart is not mistaken for one that has stopped improving.
NOT_FOLLOWED = 3
OFTEN = 1 / 20  # share of training rows: a value this frequent occurs again in held-out rows
HALF_OF_NORMAL = 1.3489795003921634  # the length of the shortest half of a standard normal


class Watch:
    """Detects a decoder scale running to zero, relative to the spread of its column in the training part.

    Only pairs without a bound are watched. A seed raises one alarm, when a scale is below ``ALARM`` times its column's
    spread and has fallen at each of the last ``FALLING_CHECKS`` checks, while the seed's validation ELBO has not
    improved since the first third of the training so far. The validation ELBO does not count where held-out density
    follows a collapse without end: on a column that is constant in training, a linear function of others, or has a
    repeated value that stands out at this scale, and on a column whose scale is this small at half of all rows, as for
    a nonlinear function of others.

    The spread is the length of the shortest half of the training values, over that of a standard normal: the standard
    deviation of normal data, and on skewed data the width of the bulk without the tail. If that is zero, the spread is
    the standard deviation, and on a constant column one scaled unit.

    Args:
        pair: the pair in training.
        seeds: its seeds.
        train: training rows in the units as loaded, (N, D), which give spread and repeated values of each column.
    """

    def __init__(self, pair: Pair, seeds: list[int], train: np.ndarray[Any, Any]) -> None:
        self.data = data = pair.data
        self.seeds = seeds
        self.pair = pair
        self.watches = not pair.card.bounded
        deviation = data.train_std / pair.view.scale
        self.spread, self.repeats_below = np.where(deviation > 0, deviation, 1.0), np.zeros(data.features)
        if self.watches and not data.noise:  # with fresh noise no value repeats
            x = pair.view.inward(train)
            columns = [np.sort(column[~np.isnan(column)]) for column in x.T]
            half = np.array([_shortest_half(column) for column in columns]) / HALF_OF_NORMAL
            self.spread = np.where((half > 0) & (deviation > 0), half, self.spread)
            self.repeats_below = np.array([_repeats_below(column) for column in columns])
        self.degenerate = np.isin(data.names, (*data.constant_columns, *data.dependent_columns))
        self.history: list[np.ndarray[Any, Any]] = []
        self.checks: list[int] = []
        self.best_elbo = np.full(len(seeds), -np.inf)
        self.best_step = np.zeros(len(seeds), dtype=np.int64)
        self.ran_away_at = np.full(len(seeds), -1)
        self.smallest = np.full((len(seeds), data.features), np.nan)
        self.obs = np.full((len(seeds), data.features), -1)
        self.asked = np.zeros((len(seeds), data.features), dtype=np.bool_)  # whether validation counted at the alarm

    def alarms(
        self,
        step: int,
        elbo: np.ndarray[Any, Any],
        column_scale: np.ndarray[Any, Any],
        median_scale: np.ndarray[Any, Any],
        obs: np.ndarray[Any, Any],
        alive: np.ndarray[Any, Any],
    ) -> np.ndarray[Any, np.dtype[np.bool_]]:
        """Which seeds run away at this check, shape (S,).

        Args:
            step: the step of the check.
            elbo: the validation ELBO, shape (S,).
            column_scale: the smallest scale of each column, shape (S, D).
            median_scale: the median scale, NaN where scales do not belong to rows, shape (S, D).
            obs: the source row with the smallest scale, or -1 where scales do not belong to rows, shape (S, D).
            alive: the seeds still trained, shape (S,).
        """
        better = elbo > self.best_elbo
        self.best_elbo, self.best_step = np.where(better, elbo, self.best_elbo), np.where(better, step, self.best_step)
        relative = column_scale / self.spread
        self.history = [*self.history[-FALLING_CHECKS:], relative]
        self.checks = [*self.checks[-FALLING_CHECKS:], step]
        if not self.watches or len(self.history) <= FALLING_CHECKS:
            return np.zeros(len(self.seeds), dtype=np.bool_)
        shrinking = (relative < ALARM) & (np.diff(self.history, axis=0) < 0).all(0)
        unfollowed = (NOT_FOLLOWED * self.best_step < step)[:, None]
        everywhere = median_scale < ALARM * self.spread
        unasked = self.degenerate | (column_scale < self.repeats_below) | everywhere
        collapsing = shrinking & (unasked | unfollowed)
        alarmed: np.ndarray[Any, np.dtype[np.bool_]] = collapsing.any(1) & alive & (self.ran_away_at < 0)
        self.ran_away_at[alarmed] = step
        self.smallest[alarmed] = np.where(collapsing, relative, np.nan)[alarmed]
        self.obs[alarmed], self.asked[alarmed] = obs[alarmed], ~unasked[alarmed]
        return alarmed

    def state(self) -> dict[str, Tensor]:
        """The state of the watch, ready to be saved."""
        shape = (-1, len(self.seeds), self.data.features)
        known = {name: getattr(self, name) for name in OF_SEEDS}
        history = {"history": np.reshape(self.history, shape), "checks": np.array(self.checks, int)}
        return {f"watch.{name}": torch.as_tensor(value).clone() for name, value in {**known, **history}.items()}

    def restore(self, state: dict[str, Tensor]) -> None:
        """Go back to what :meth:`state` returned."""
        for name in OF_SEEDS:
            setattr(self, name, state[f"watch.{name}"].numpy().copy())
        self.history, self.checks = list(state["watch.history"].numpy()), state["watch.checks"].tolist()

    def message(self, alarmed: np.ndarray[Any, np.dtype[np.bool_]]) -> str:
        """What happened, where, how fast, and the remedy."""
        rows = np.flatnonzero(alarmed)
        fallen = np.isfinite(self.smallest[rows])
        columns, constant = np.array(self.data.names), self.data.train_std == 0
        dependent = np.isin(columns, self.data.dependent_columns) & ~constant
        scales = self.history[-1][rows] * self.spread
        repeated = ((scales < self.repeats_below) & fallen).any(0) & ~constant & ~dependent
        kinds = {
            "constant columns": constant,
            "columns that are linear functions of others": dependent,
            "columns with values that repeat": repeated,
            "columns": ~(constant | dependent | repeated),
        }
        found = {kind: columns[which & fallen.any(0)] for kind, which in kinds.items()}
        where = [f"{kind} {listing([*names], most=8)}" for kind, names in found.items() if len(names)]
        pace = np.nanmax(np.where(fallen, self.history[0][rows] / self.history[-1][rows], np.nan))
        pace **= 100 / (self.checks[-1] - self.checks[0])
        seed, column = np.unravel_index(np.nanargmin(self.smallest[rows]), fallen.shape)
        datum = self.obs[rows][seed, column]
        at = f", smallest at row {datum}" if datum >= 0 else ""
        asked = (self.asked[rows] & fallen).any()
        unfollowed = f"; validation was best at step {self.best_step[rows].min()}" if asked else ""
        remedies = [name for name in self.pair.card.remedies if card(name).takes(self.data.columns)]
        cure = f" Bounded instead: {', '.join(remedies)}." if remedies else ""
        return (
            f"{self.pair.name} runs away at step {self.ran_away_at[rows[0]]} "
            f"({'seed' if len(rows) == 1 else 'seeds'} {', '.join(str(self.seeds[r]) for r in rows)}): decoder scale "
            f"below {ALARM:g} of the spread of the training values, and shrinking {pace:.2g}-fold in a hundred steps, "
            f"on {' and '.join(where)}{at}{unfollowed}.{cure}"
        )


OF_SEEDS = ("ran_away_at", "smallest", "obs", "asked", "best_elbo", "best_step")  # what a Watch knows of each seed


def _shortest_half(x: np.ndarray[Any, Any]) -> float:
    """The length of the shortest interval that holds half of one column's sorted values, (N,); 0 if there are none."""
    span = len(x) // 2
    return float((x[span:] - x[: len(x) - span]).min()) if len(x) else 0.0


def _repeats_below(x: np.ndarray[Any, Any]) -> float:
    """The scale below which a repeated value gains density without end, from one column's sorted values, (N,).

    For values that occur in at least one row in twenty, it is half the largest distance within which one of them makes
    up half of all values: at a smaller scale a normal density there sees little else. Values rounded to a grid also
    repeat, and stand out only below its width; without repeated values the scale is 0.
    """
    values, counts = np.unique(x, return_counts=True)
    often = (counts >= OFTEN * len(x)) & (counts > 1)
    within = [
        distance[2 * count] if 2 * count < len(x) else np.inf
        for value, count in zip(values[often], counts[often], strict=True)
        for distance in [np.sort(np.abs(x - value))]
    ]
    return float(max(within, default=0.0)) / 2
