"""The watch: sees, while a pair trains, a decoder scale that runs to zero."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from zoo.catalogue import Pair, card
from zoo.data import Data

__all__ = ["ALARM", "FALLING_CHECKS", "Watch", "degenerate"]

# The alarm: a decoder scale below 1/200 of its column's spread and falling at three checks in a row, while the held-out
# evidence does not follow. A fixed or constrained scale comes to rest; on wine and breast-cancer a learned one does.
ALARM, FALLING_CHECKS = 1 / 200, 3
NORMAL_IQR = 1.349  # standard deviations of a normal between its quartiles
REPEATED_SHARE, REPEATED_ROWS = 0.05, 5  # of the training rows that hold one value, at least, where values repeat


def degenerate(data: Data) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Columns in which a density gains without end, (D,), whatever is held out.

    Those that are constant in training, take part in an exact linear dependency, or hold one value in a twentieth of
    the training rows or more, and in five at least.
    """
    rows = data.train.values
    most = max(REPEATED_SHARE * len(rows), REPEATED_ROWS)
    repeat = [np.unique(column, return_counts=True)[1].max(initial=0) >= most for column in rows.T]
    found: np.ndarray[Any, np.dtype[np.bool_]] = np.array(repeat, bool) | (data.train_std == 0)
    return found | np.isin(data.columns, data.dependent_columns)


class Watch:
    """Sees a decoder scale running to zero, relative to its column's spread in the training part.

    Only pairs without a bound are watched. A seed is alarmed once, when the smallest relative scale is below ``ALARM``,
    has fallen at each of the last ``FALLING_CHECKS`` checks, and its best validation ELBO is further back than those:
    a scale that is small because the data are, as where a column is skewed, brings held-out evidence with it. Where
    data are degenerate (:func:`degenerate`) evidence means nothing and is not asked: a held-out density follows such a
    collapse without end.

    The spread is the standard deviation, or that of a normal with the same quartiles where it is smaller: a few wild
    values do not make all others look collapsed. A column constant in training is measured against one scaled unit.
    """

    def __init__(self, pair: Pair, seeds: list[int]) -> None:
        self.data = data = pair.data
        self.seeds = seeds
        self.pair = pair
        train = pair.scale(data.train.values)
        low, high = np.quantile(train, (0.25, 0.75), axis=0) if len(train) else np.zeros((2, data.features))
        spread = data.train_std / pair.scaling.scale
        between = (high - low) / NORMAL_IQR
        self.spread = np.where(spread > 0, np.where(between > 0, np.minimum(spread, between), spread), 1.0)
        self.degenerate = degenerate(data)
        self.history: list[np.ndarray[Any, Any]] = []
        self.checks: list[int] = []
        self.ran_away_at = np.full(len(seeds), -1)
        self.followed = np.zeros(len(seeds), dtype=bool)
        self.smallest = np.full((len(seeds), data.features), np.nan)
        self.obs = np.full((len(seeds), data.features), -1)

    def alarms(
        self,
        step: int,
        column_scale: np.ndarray[Any, Any],
        obs: np.ndarray[Any, Any],
        alive: np.ndarray[Any, Any],
        follows: np.ndarray[Any, Any],
    ) -> np.ndarray[Any, np.dtype[np.bool_]]:
        """Which seeds run away at this check, shape (S,).

        Args:
            step: of the check.
            column_scale: the smallest scale of each column, shape (S, D).
            obs: the row in the source at which it is, or -1 where it is no row's own, shape (S, D).
            alive: the seeds still trained, shape (S,).
            follows: those whose best validation ELBO is among the last ``FALLING_CHECKS``, shape (S,).
        """
        relative = column_scale / self.spread
        self.history = [*self.history[-FALLING_CHECKS:], relative.min(1)]
        self.checks = [*self.checks[-FALLING_CHECKS:], step]
        falling = len(self.history) > FALLING_CHECKS and (np.diff(self.history, axis=0) < 0).all(0)
        small = relative < ALARM
        suspect = (small & self.degenerate).any(1) | (small.any(1) & ~follows)
        watched = alive & (self.ran_away_at < 0) & (not self.pair.card.bounded)
        alarmed: np.ndarray[Any, np.dtype[np.bool_]] = suspect & falling & watched
        self.ran_away_at[alarmed], self.followed[alarmed] = step, follows[alarmed]
        self.smallest[alarmed], self.obs[alarmed] = relative[alarmed], obs[alarmed]
        return alarmed

    def state(self) -> dict[str, Tensor]:
        """What the watch knows, ready to be saved."""
        known = {name: getattr(self, name) for name in ("ran_away_at", "followed", "smallest", "obs")}
        history = {"history": np.reshape(self.history, (-1, len(self.seeds))), "checks": np.array(self.checks, int)}
        return {f"watch.{name}": torch.as_tensor(value).clone() for name, value in {**known, **history}.items()}

    def restore(self, state: dict[str, Tensor]) -> None:
        """Go back to what :meth:`state` returned."""
        for name in ("ran_away_at", "followed", "smallest", "obs"):
            setattr(self, name, state[f"watch.{name}"].numpy().copy())
        self.history, self.checks = list(state["watch.history"].numpy()), state["watch.checks"].tolist()

    def message(self, alarmed: np.ndarray[Any, np.dtype[np.bool_]]) -> str:
        """What happened, where, how fast, and what would cure it."""
        rows = np.flatnonzero(alarmed)
        columns = np.flatnonzero((self.smallest[rows] < ALARM).any(0))
        constant = [self.data.columns[j] for j in columns if self.data.train_std[j] == 0]
        varying = [self.data.columns[j] for j in columns if self.data.train_std[j] > 0]
        where = [
            f"{kind} {', '.join(names[:8])}{f' and {len(names) - 8} more' if len(names) > 8 else ''}"
            for kind, names in (("constant columns", constant), ("columns", varying))
            if names
        ]
        first, last = self.history[0][rows], self.history[-1][rows]
        pace = float((first / last).max()) ** (100 / (self.checks[-1] - self.checks[0]))
        seed, column = np.unravel_index(np.nanargmin(self.smallest[rows]), self.smallest[rows].shape)
        datum = self.obs[rows][seed, column]
        at = f", smallest at row {datum}" if datum >= 0 else ""
        remedies = [name for name in self.pair.card.remedies if card(name).takes(self.data.support)]
        cure = f" Bounded instead: {', '.join(remedies)}." if remedies else ""
        return (
            f"{self.pair.name} runs away at step {self.ran_away_at[rows[0]]} "
            f"({'seed' if len(rows) == 1 else 'seeds'} {', '.join(str(self.seeds[r]) for r in rows)}): decoder scale "
            f"below {ALARM:g} of the spread of the training part, and shrinking {pace:.2g}-fold in a hundred steps, on "
            f"{' and '.join(where)}{at}.{cure}"
        )
