"""The kinds of values a column can hold: one record per support, and the only place that compares supports."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple, TypeAlias, cast, get_args

import numpy as np

__all__ = [
    "MIXED",
    "SUPPORTS",
    "Column",
    "ColumnSupport",
    "Encoding",
    "Support",
    "as_modelled",
    "common_support",
    "encoded",
    "models",
    "seen",
]

Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]
ColumnSupport = Literal["binary", "ordinal", "count", "unit", "positive", "real", "categorical"]
Support = Literal["binary", "ordinal", "count", "unit", "positive", "real", "categorical", "mixed"]
MIXED: Literal["mixed"] = (
    "mixed"  # a card whose likelihood takes any column, and a table that no other likelihood takes
)
MOST_PLACES = 6  # most decimals a number is written with
ON_GRID = 1e-6  # steps: how far a value may be from its level


@dataclass(frozen=True, kw_only=True)
class Column:
    """One column of a data set.

    Attributes:
        name: as in the source.
        support: what its values are.
        levels: the levels of an ordinal or binary column, increasing and equally spaced.
        categories: the categories of a categorical column, as the user wrote them; its values are their numbers, from
            0. For a binary column written in words, the words for 0 and 1.
        resolution: the width of the cell that a value stands for: 1 for a count, the distance between two levels, the
            step of numbers recorded to a few decimals. None if a value is a point of the real line.
        center: subtracted from a value before a likelihood of real numbers sees it.
        scale: what the value is then divided by.
        missing: how many entries are missing, over all rows.
        constant: whether all observed entries of the training part are equal.
        reason: why it has this support, in words.
    """

    name: str
    support: ColumnSupport
    levels: tuple[float, ...] | None = None
    categories: tuple[str, ...] | None = None
    resolution: float | None = None
    center: float = 0.0
    scale: float = 1.0
    missing: int = 0
    constant: bool = False
    reason: str = ""

    @property
    def kind(self) -> SupportRecord:
        """The record of its support."""
        return SUPPORTS[self.support]

    def outside(self, x: Array) -> Array:
        """Which values (N,) it cannot take; missing ones pass."""
        return np.asarray(~np.isnan(x) & ~self.kind.holds(x, self))

    def worded(self, x: Array) -> Array:
        """Values (N,) as the user wrote them: categories as words, missing entries as None."""
        if not self.categories:
            return x
        words = np.array([*self.categories, None], dtype=object)
        return cast(Array, words[np.where(np.isnan(x), len(words) - 1, np.nan_to_num(x)).astype(np.int64)])

    def written(self, x: float) -> str:
        """A value as a word, or as a number with the column's recorded decimals.

        >>> Column(name="weight", support="real", resolution=0.25).written(0.5)
        '0.50'
        """
        if self.categories:
            return self.categories[round(x)]
        if self.resolution is None:
            return f"{x:.6g}"
        return f"{x + 0.0:.{self.places}f}"

    @property
    def places(self) -> int:
        """How many decimals a value is written with."""
        width = self.resolution or math.nan
        return next((p for p in range(MOST_PLACES) if (width * 10**p).is_integer()), MOST_PLACES)

    @property
    def decimal(self) -> bool:
        """Whether this many decimals write a value exactly."""
        return self.places < MOST_PLACES

    def nearest(self, x: Array) -> Array:
        """The closest values (...) that the column can take, as recorded.

        >>> grade = Column(name="grade", support="ordinal", levels=(1.0, 2.0, 3.0), resolution=1.0)
        >>> grade.nearest(np.array([2.2, 9.0]))
        array([2., 3.])
        """
        low, high = self.range()
        width = self.resolution
        if width is None:
            return np.clip(x, low, high)
        origin = self.levels[0] if self.levels else 0.0
        least = width if low == 0 and not self.kind.holds(np.zeros(1), self)[0] else low
        return np.clip(origin + width * np.rint((x - origin) / width), least, high)

    def range(self) -> tuple[float, float]:
        """The least and the greatest value that its support allows."""
        return self.kind.range(self)


@dataclass(frozen=True, kw_only=True)
class SupportRecord:
    """A support: its values, and what a likelihood on it models.

    Attributes:
        name: the word for it.
        means: what its values are, in words.
        holds: which values (N,) a column of this support can take.
        remedy: what to do about a value outside it.
        discrete: whether its values have probabilities rather than densities.
        nominal: whether they are names, without mean or distance.
        takes: the supports of columns that a likelihood on this one models.
        takes_levels: whether it takes a column with levels.
        widens: whether it takes any value of this support, whatever the column's own.
        mixed_as: the support whose emission the mixed likelihood uses for it.
        seen: center and scale of the affine map from a column's values to what a likelihood on this support sees.
        range: the least and the greatest value of a column.
        grid: the values of a discrete column; for a count, as many as are asked for.
        encoded: the encoding of a column, as a likelihood on this support sees it.
        filler: a value that a column can take, in place of a missing one that is integrated out.
        example: simulated values from numbers that are about standard normal, and a generator.
    """

    name: str
    means: str
    holds: Callable[[Array, Column], Array]
    remedy: str
    discrete: bool
    nominal: bool = False
    takes: frozenset[str]
    takes_levels: Callable[[tuple[float, ...]], bool] = lambda _: True
    widens: bool = False
    mixed_as: str
    seen: Callable[[Column], tuple[float, float]]
    range: Callable[[Column], tuple[float, float]]
    grid: Callable[[Column, int], Array] | None
    encoded: Callable[[Column], Encoding]
    filler: Callable[[Column], float]
    example: Callable[[Array, np.random.Generator], Array]


class Encoding(NamedTuple):
    """A number an encoder sees: (transform(x) - center) / scale; for categories, one number each."""

    transform: Literal["number", "log1p", "log", "one-hot"] = "number"
    center: float = 0.0
    scale: float = 1.0
    categories: int = 0


def _log1p(column: Column) -> Encoding:
    # the standard deviation of a function, to first order
    return Encoding("log1p", math.log1p(column.center), column.scale / (1 + column.center) or 1.0)


def _log(column: Column) -> Encoding:
    """The encoding of a positive column in units of its standard deviation, as if it were log-normal."""
    ratio = column.center / column.scale if column.center > 0 else 1.0
    return Encoding("log", math.log(ratio), math.sqrt(math.log1p(ratio**-2)))


def _on_levels(x: Array, column: Column) -> Array:
    levels = np.asarray(column.levels)
    step = levels[1] - levels[0]
    nearest = np.clip(np.rint((np.nan_to_num(x) - levels[0]) / step), 0, len(levels) - 1).astype(np.int64)
    return np.asarray(np.abs(levels[nearest] - x) <= ON_GRID * step)


def _ends(column: Column) -> tuple[float, float]:
    return (column.levels[0], column.levels[-1]) if column.levels else (0.0, 1.0)


def _last(column: Column) -> float:
    return float(len(column.categories or ()) - 1)


def _plain(_: Column) -> tuple[float, float]:
    return 0.0, 1.0


def _to_unit(column: Column) -> tuple[float, float]:
    """Levels mapped into [0, 1], including the cells of the outermost ones."""
    if not column.levels:
        return 0.0, 1.0
    low, high = _ends(column)
    half = (column.resolution or 0.0) / 2
    return low - half, high - low + 2 * half


_REAL_LINE = (-math.inf, math.inf)
_RECORDS = (
    SupportRecord(
        name="binary",
        mixed_as="binary",
        means="0 or 1",
        holds=lambda x, _: (x == 0) | (x == 1),
        remedy='binarize="threshold" or "stochastic" makes zeros and ones',
        discrete=True,
        nominal=True,
        takes=frozenset({"binary"}),
        seen=_plain,
        range=lambda _: (0.0, 1.0),
        grid=lambda *_: np.arange(2.0),
        encoded=lambda _: Encoding("number", 0.5),
        filler=lambda _: 0.0,
        example=lambda f, _: (f > 0).astype(float),
    ),
    SupportRecord(
        name="ordinal",
        mixed_as="ordinal",
        means="equally spaced levels in an order",
        holds=lambda x, column: _on_levels(x, column) if column.levels else x == np.rint(x),
        remedy="name the levels, equally spaced, as levels=range(17) does",
        discrete=True,
        takes=frozenset({"ordinal", "binary"}),
        seen=_plain,
        range=_ends,
        grid=lambda column, _: np.asarray(column.levels),
        encoded=lambda column: Encoding("number", column.center, column.scale),
        filler=lambda column: _ends(column)[0],
        example=lambda f, _: np.clip(np.round(f + 3), 0, 6),
    ),
    SupportRecord(
        name="count",
        widens=True,
        mixed_as="count",
        means="0, 1, 2, ... without an upper limit",
        holds=lambda x, _: (x >= 0) & (x == np.rint(x)),
        remedy="counts are 0, 1, 2, ...",
        discrete=True,
        takes=frozenset({"count", "ordinal", "binary"}),
        takes_levels=lambda levels: all(level >= 0 and level == int(level) for level in levels),
        seen=_plain,
        range=lambda _: (0.0, math.inf),
        grid=lambda _, most: np.arange(float(most)),
        encoded=_log1p,
        filler=lambda _: 0.0,
        example=lambda f, rng: rng.poisson(np.exp(np.clip(f, -1, 2))).astype(float),
    ),
    SupportRecord(
        name="unit",
        mixed_as="real",
        means="numbers from 0 to 1",
        holds=lambda x, _: (x >= 0) & (x <= 1),
        remedy="divide by the largest possible value",
        discrete=False,
        takes=frozenset({"unit", "ordinal"}),
        seen=_to_unit,
        range=lambda _: (0.0, 1.0),
        grid=None,
        encoded=lambda _: Encoding("number", 0.5),
        filler=lambda _: 0.5,
        example=lambda f, _: 1 / (1 + np.exp(-f)),
    ),
    SupportRecord(
        name="positive",
        mixed_as="positive",
        means="numbers above 0",
        holds=lambda x, _: x > 0,
        remedy="shift or leave out values that are not above 0, or declare support='real'",
        discrete=False,
        takes=frozenset({"positive"}),
        seen=lambda column: (0.0, column.scale),
        range=lambda _: (0.0, math.inf),
        grid=None,
        encoded=_log,
        filler=lambda column: column.scale,
        example=lambda f, _: np.exp(f),
    ),
    SupportRecord(
        name="real",
        widens=True,
        mixed_as="real",
        means="numbers",
        holds=lambda x, _: np.isfinite(x),
        remedy="fill in the values, or leave out their rows or columns",
        discrete=False,
        takes=frozenset({"real", "positive", "unit", "count", "ordinal", "binary"}),
        seen=lambda column: (column.center, column.scale),
        range=lambda _: _REAL_LINE,
        grid=None,
        encoded=lambda _: Encoding(),
        filler=lambda column: column.center,
        example=lambda f, _: 3 * f + 10,
    ),
    SupportRecord(
        name="categorical",
        mixed_as="categorical",
        means="one of some categories, in no order",
        holds=lambda x, column: (x == np.rint(x)) & (x >= 0) & (x <= _last(column)),
        remedy="a category is given by its number, from 0, in the order of the column's categories",
        discrete=True,
        nominal=True,
        takes=frozenset({"categorical", "ordinal", "binary"}),
        seen=_plain,
        range=lambda column: (0.0, _last(column)),
        grid=lambda column, _: np.arange(_last(column) + 1),
        encoded=lambda column: Encoding("one-hot", categories=len(column.categories or ())),
        filler=lambda _: 0.0,
        example=lambda f, _: np.digitize(f, [-1.0, 0.5]).astype(float),
    ),
)
SUPPORTS: dict[str, SupportRecord] = {record.name: record for record in _RECORDS}


def models(likelihood: str, column: Column) -> bool:
    """Whether a likelihood on this support, or the mixed one, models such a column.

    >>> models("count", Column(name="visits", support="count")), models("unit", Column(name="sold", support="binary"))
    (True, False)
    """
    return likelihood == MIXED or (
        column.support in SUPPORTS[likelihood].takes and SUPPORTS[likelihood].takes_levels(column.levels or ())
    )


def as_modelled(likelihood: str, column: Column) -> Column:
    """The column with the values to which a likelihood on this support gives probability."""
    wide = likelihood != MIXED and SUPPORTS[likelihood].widens
    return replace(column, support=likelihood) if wide else column  # type: ignore[arg-type]


def encoded(likelihood: str, column: Column) -> Encoding:
    """The encoding of a column, as a likelihood on this support sees it."""
    return _record(likelihood, column).encoded(column)


def seen(likelihood: str, column: Column) -> tuple[float, float]:
    """Center and scale of the map from a column's values to what a likelihood on this support sees."""
    return _record(likelihood, column).seen(column)


def _record(likelihood: str, column: Column) -> SupportRecord:
    """The support that a likelihood on this one gives a column: the column's own, for the mixed likelihood."""
    return SUPPORTS[column.kind.mixed_as if likelihood == MIXED else likelihood]


def common_support(columns: Iterable[Column]) -> Support:
    """The narrowest support whose likelihoods model all these columns, or "mixed".

    >>> common_support([Column(name="age", support="real"), Column(name="visits", support="count")])
    'real'
    """
    columns = list(columns)
    levels = {column.levels for column in columns if column.support == "ordinal"}
    found = (
        name
        for name in get_args(ColumnSupport)
        if all(models(name, column) for column in columns) and not (name == "ordinal" and len(levels) > 1)
    )
    return cast(Support, next(found, MIXED))
