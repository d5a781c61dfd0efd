"""How surely one row scores better than another: over the test data, and over the seeds of both."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

__all__ = ["NOISE", "Difference", "Majority", "Score", "decisive_row", "most_rows", "split_error", "standard_error"]

Floats: TypeAlias = NDArray[np.float64]

NOISE = 0.01  # nats per datum: a smaller difference may be rounding, however small its standard error
LEVEL = 0.95
DECISIVE = 0.5  # share of the spread over the data above which one datum decides
TRIM = 0.05  # share of the data trimmed at each end where one datum decides the mean
FEW = 20  # with so few data, one that decides is no surprise
OVERLAP = 1 / 4  # test rows over all other rows of a split


@dataclass(frozen=True, eq=False)
class Score:
    """A row's score of each datum, (N,), and the same without each of its seeds, (S, N); S is 0 for one seed."""

    values: Floats
    without: Floats

    @classmethod
    def of_seeds(cls, per_seed: Floats, *, ensemble: bool = False) -> Score:
        """The mean over seeds (S, N), or the log of their mean density for an ensemble."""
        others = [np.delete(per_seed, seed, axis=0) for seed in range(len(per_seed))] if len(per_seed) > 1 else []
        pooled = _log_mean_exp if ensemble else _mean
        return cls(pooled(per_seed), np.array([pooled(rest) for rest in others]).reshape(-1, per_seed.shape[1]))

    def __sub__(self, other: Score) -> Score:
        """The difference of two scores of the same seeds, such as all columns and some of them."""
        return Score(self.values - other.values, self.without - other.without)

    def __getitem__(self, rows: Any) -> Score:
        """The score of some of the data."""
        return Score(self.values[rows], self.without[:, rows])

    @property
    def seed_variance(self) -> float:
        """Variance over seeds of the mean over data, by the jackknife; NaN for one seed."""
        count = len(self.without)
        return (count - 1) * float(np.var(self.without.mean(1))) if count else float("nan")


@dataclass(frozen=True)
class Difference:
    r"""Mean difference of two rows in nats per datum, with its standard errors over data and over seeds.

    .. math:: \mathrm{error}^2 = \frac{s_d^2}{N} + v_a + v_b, \qquad
              \nu = \frac{\mathrm{error}^4}{(s_d^2/N)^2/(N-1) + v_a^2/(S_a-1) + v_b^2/(S_b-1)}

    s_d is the standard deviation over data of the paired differences, each averaged over seeds, and v the jackknife
    variance over the seeds of a row (for a mean over seeds: their variance divided by S). ``freedom`` is nu, the
    degrees of freedom of Student's t by Welch (1947), https://doi.org/10.1093/biomet/34.1-2.28, and Satterthwaite. A
    row with one seed has no known spread over seeds, so that term is left out.

    >>> a, b = Score.of_seeds(np.full((2, 9), -10.0)), Score.of_seeds(np.repeat([[-5.0], [-17.0]], 9, axis=1))
    >>> Difference.between(b, a).beyond_noise
    False
    """

    mean: float
    over_data: float
    over_seeds: float
    freedom: float

    @classmethod
    def between(cls, one: Score, other: Score, trim: float = 0.0) -> Difference:
        """How much higher ``one`` is than ``other`` on the same data.

        With ``trim``, that share of the paired differences is left out at each end, and the error over data is that of
        a trimmed mean, from the winsorised differences (Yuen 1974, https://doi.org/10.1093/biomet/61.1.165).
        """
        paired = one.values - other.values
        count, cut = len(paired), math.ceil(trim * len(paired))
        kept = np.argsort(paired, kind="stable")[cut : count - cut]
        winsorised = np.clip(paired, paired[kept[0]], paired[kept[-1]])
        over_data = standard_error(winsorised) * count / len(kept)
        seeds = [(score[kept].seed_variance, len(score.without) - 1) for score in (one, other) if len(score.without)]
        parts = [(over_data**2, len(kept) - 1), *seeds]
        total = sum(variance for variance, _ in parts)
        weighted = sum(variance**2 / freedom for variance, freedom in parts if variance > 0 and freedom)
        over_seeds = math.sqrt(sum(variance for variance, _ in seeds)) if seeds else math.nan
        return cls(float(paired[kept].mean()), over_data, over_seeds, total**2 / weighted if weighted else math.inf)

    @classmethod
    def over_splits(cls, differences: Floats) -> Difference:
        """The mean of the differences on several splits (R,), with the error of :func:`split_error`."""
        return cls(float(differences.mean()), split_error(differences), math.nan, max(differences.size - 1, 1))

    @property
    def error(self) -> float:
        """The standard error over data and seeds together; NaN for one datum."""
        return float(np.hypot(self.over_data, np.nan_to_num(self.over_seeds)))

    @property
    def reach(self) -> float:
        """Half the width of the 95 % interval."""
        from scipy.stats import t

        return float(t.ppf((1 + LEVEL) / 2, self.freedom)) * self.error if np.isfinite(self.error) else float("inf")

    @property
    def beyond_noise(self) -> bool:
        """Whether it exceeds both rounding and half its 95 % interval; never with one datum."""
        return self.mean > max(NOISE, self.reach)


@dataclass(frozen=True)
class Majority:
    """How a row compares with another where the datum at ``decided_by`` decides the difference of their means.

    ``word`` says whether it is "better" or "worse" on ``rows`` data ``of`` so many, ``by`` the trimmed mean, or
    "alike".
    """

    word: Literal["better", "worse", "alike"]
    by: Difference
    rows: int
    of: int
    decided_by: int


def most_rows(row: Score, best: Score) -> Majority | None:
    """How a row compares with the best on most data; None where no single datum decides the mean difference."""
    paired = best.values - row.values
    at = decisive_row(paired) if len(paired) >= FEW else None
    if at is None:
        return None
    if (behind := Difference.between(best, row, TRIM)).beyond_noise:
        return Majority("worse", behind, int((paired > 0).sum()), len(paired), at)
    if (ahead := Difference.between(row, best, TRIM)).beyond_noise:
        return Majority("better", ahead, int((paired < 0).sum()), len(paired), at)
    return Majority("alike", behind, len(paired), len(paired), at)


def decisive_row(values: Floats) -> int | None:
    """The datum that makes up more than half of the squared deviations from the mean, if there is one."""
    squares = np.square(values - values.mean())
    worst = int(squares.argmax())
    return worst if squares[worst] > DECISIVE * squares.sum() > 0 else None  # False where a square is NaN


def split_error(differences: Floats) -> float:
    r"""The standard error of the mean of a difference over several splits (R,); NaN for fewer than two.

    .. math:: s \sqrt{1/R + 1/4}

    Splits share most of their rows: this is the correction of Nadeau & Bengio (2003),
    https://doi.org/10.1023/A:1024068626366, for test parts of a fifth of the rows.
    """
    count = differences.size
    return float(differences.std(ddof=1)) * math.sqrt(1 / count + OVERLAP) if count > 1 else math.nan


def standard_error(values: Floats) -> float:
    """The standard error of the mean; NaN for a sample of one or a value that is not finite."""
    if values.size < 2 or not np.isfinite(values).all():
        return float("nan")
    return float(values.std(ddof=1) / np.sqrt(values.size))


def _mean(per_seed: Floats) -> Floats:
    return np.asarray(per_seed.mean(0))


def _log_mean_exp(per_seed: Floats) -> Floats:
    return np.asarray(np.logaddexp.reduce(per_seed, axis=0) - np.log(len(per_seed)))
