"""A summary of the values of a table, from one pass over its rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from zoo.tables import Rows, row_keys

__all__ = ["MOST_EXACT", "Extent", "Moments", "Scan", "Summary", "is_date", "scanned"]

Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]

MOST_EXACT = 2**53  # float64 holds every integer up to here
PLACES = 6  # most decimals of a recorded number
COARSER = 16  # a recording step is at least so many times the distance between two floats
ROUND = [digit * 10**power for power in range(16) for digit in (1, 2, 5, 25)]  # steps people record to
HEAD = 256  # rows after which most candidate properties of a column are ruled out


class Extent(NamedTuple):
    """A summary of observed values.

    Their number, the number of rows, the least and the largest, whether all are whole; for whole numbers up to 2^53 the
    greatest common divisor of their differences, ``stride``, and of the numbers themselves, each 0 if all are 0;
    whether values occur twice on average, which is only computed for few values.
    """

    observed: int
    least: float
    most: float
    whole: bool
    stride: int
    divisor: int
    repeats: bool = True

    @property
    def exact(self) -> bool:
        """Whether all are whole numbers that float64 holds exactly."""
        return self.whole and max(-self.least, self.most) <= MOST_EXACT


@dataclass
class Decimals:
    """The fewest decimals, (D,), that write all values so far exactly in a given precision.

    ``divisor`` is the greatest common divisor of values in units of the last decimal; undefined beyond ``PLACES``. A
    multiple of 10^-p is also one of 10^-(p+1), so earlier values need not be revisited.
    """

    precision: Any
    place: Array
    divisor: Array

    def add(self, x: Array, which: Array) -> None:
        """Add values of some columns, (n, D), NaN where missing."""
        for place in range(PLACES + 1):
            columns = np.flatnonzero(which & (self.place == place))
            if not len(columns):
                continue
            values, scale = x[:, columns], 10.0**place
            multiple = np.rint(values * scale)
            written = (multiple / scale).astype(self.precision)
            fits = (written == values.astype(self.precision)) | np.isnan(values)
            holds = fits.all(axis=0) & ~(np.abs(multiple) > MOST_EXACT).any(axis=0)
            self.divisor[columns] = _common(self.divisor[columns], multiple, holds)
            lost = columns[~holds]
            self.place[lost] += 1
            # inexact numbers have no decimals to find
            self.place[lost[self.divisor[lost] > MOST_EXACT]] = PLACES + 1
            self.divisor[lost] = np.where(self.divisor[lost] > MOST_EXACT, 0, 10 * self.divisor[lost])

    def step(self, j: int, extent: Extent) -> float | None:
        """The coarsest round step, 1, 2, 5 or 25 times 10^n >= 10^-6, that divides all values of a column."""
        largest = max(-extent.least, extent.most)
        spacing = float(np.spacing(self.precision(largest)))
        scale = 10.0 ** int(self.place[j])
        if self.place[j] > PLACES or COARSER * spacing > 1 / scale or largest * scale > MOST_EXACT:
            return None
        if extent.least == extent.most:  # a single value shows decimals but no step
            return 1 / scale
        common = int(self.divisor[j])
        return max((step for step in ROUND if common and common % step == 0), default=1) / scale


def _common(divisor: Array, whole: Array, which: Array) -> Array:
    """The greatest common divisors (D,) updated by whole numbers (n, D), in some columns."""
    columns = np.flatnonzero(which & (divisor != 1))
    numbers, known = np.abs(np.nan_to_num(whole[:, columns])).astype(np.int64), divisor[columns]
    less = np.where(known, numbers % np.maximum(known, 1), numbers).any(axis=0)
    found = divisor.copy()
    found[columns[less]] = np.gcd(known[less], np.gcd.reduce(numbers[:, less], axis=0))
    return found


class Summary:
    """A summary of the observed values of each of D columns, updated block by block.

    Args:
        single: which columns, (D,), have single precision in the source.
    """

    def __init__(self, single: Sequence[bool]) -> None:
        d = len(single)
        self.rows = 0
        self.count = np.zeros(d, dtype=np.int64)
        self.least, self.most = np.full(d, np.inf), np.full(d, -np.inf)
        self.first = np.full(d, np.nan)
        self.whole, self.dated = np.ones(d, dtype=bool), np.ones(d, dtype=bool)
        self.stride = np.zeros(d, dtype=np.int64)
        self.single = np.array(single, dtype=bool)
        self.fits_single = np.ones(d, dtype=bool)
        self.double, self.rounded = (
            Decimals(precision, np.zeros(d, dtype=np.int64), np.zeros(d, dtype=np.int64))
            for precision in (np.float64, np.float32)
        )

    def add(self, x: Array) -> None:
        """Add a block of rows (n, D) without infinite values; NaN is a missing entry."""
        gone = np.isnan(x)
        gaps = bool(gone.any())
        self.rows += len(x)
        self.count += len(x) - gone.sum(axis=0) if gaps else len(x)
        least, most = (np.fmin.reduce(x, 0), np.fmax.reduce(x, 0)) if gaps else (x.min(0), x.max(0))
        self.least, self.most = np.fmin(self.least, least), np.fmax(self.most, most)
        new = np.flatnonzero(np.isnan(self.first))
        if len(new):
            self.first[new] = x[(~gone[:, new]).argmax(axis=0), new]
        _hold(self.whole, x, lambda v: v == np.rint(v))
        _hold(self.dated, x, is_date)
        _hold(self.fits_single, x, lambda v: v == _single(v), ~self.single)
        self._add_strides(x, (least == most) & (least == self.first))
        self._add_decimals(x)

    def _add_strides(self, x: Array, same: Array) -> None:
        exact = self.whole & (np.maximum(-self.least, self.most) <= MOST_EXACT)
        columns = np.flatnonzero(exact & (self.stride != 1) & ~same)
        if len(columns):
            distance = x[:, columns] - self.first[columns]
            self.stride[columns] = _common(self.stride[columns], distance, np.ones(len(columns), dtype=bool))

    def _add_decimals(self, x: Array) -> None:
        """In single precision once a column is not whole; whole numbers are multiples of all smaller steps."""
        with np.errstate(over="ignore"):
            self.double.add(x, self.double.place <= PLACES)
            self.rounded.add(x, (self.double.place > 0) & (self.single | self.fits_single))

    def extent(self, j: int) -> Extent:
        """The extent of one column."""
        return Extent(
            int(self.count[j]),
            float(self.least[j]),
            float(self.most[j]),
            bool(self.whole[j]),
            int(self.stride[j]),
            int(self.double.divisor[j]),
        )

    def together(self) -> Extent:
        """The extent of all columns as if they were one."""
        seen = self.count > 0
        least, most = self.least[seen].min(initial=np.inf), self.most[seen].max(initial=-np.inf)
        whole = bool(self.whole.all())
        stride = divisor = 0
        if whole and max(-least, most) <= MOST_EXACT:
            first = self.first[seen].astype(np.int64)
            stride = int(np.gcd.reduce(np.concatenate([self.stride[seen].astype(np.int64), np.abs(first - first[:1])])))
            divisor = int(np.gcd.reduce(self.double.divisor[seen]))
        return Extent(int(self.count.sum()), float(least), float(most), whole, stride, divisor)

    def step(self, j: int) -> float | None:
        """The coarsest round step that divides all values of a column, as written in their precision."""
        extent = self.extent(j)
        if not max(-extent.least, extent.most) < MOST_EXACT:
            return None
        exact = self.double.step(j, extent)
        return self.rounded.step(j, extent) if exact is None and (self.single[j] or self.fits_single[j]) else exact


def _hold(so_far: Array, x: Array, holds: Any, which: Any = True) -> None:
    """Keep only columns (D,) whose values in x (n, D) all pass or are missing."""
    columns = np.flatnonzero(so_far & which)
    if len(columns):
        values = x if len(columns) == x.shape[1] else x[:, columns]
        so_far[columns] = (holds(values) | np.isnan(values)).all(axis=0)


def _single(x: Array) -> Array:
    with np.errstate(over="ignore"):
        return x.astype(np.float32)


def is_date(x: Array) -> Array:
    """Which are a date of this century or the last, written as one number: 20200117."""
    possible = np.asarray((x >= 19000101) & (x <= 20991231))
    if not possible.any():  # the rest takes as long as reading the file
        return possible
    with np.errstate(invalid="ignore"):
        month, day = (x // 100) % 100, x % 100
    return np.asarray(possible & (x == np.rint(x)) & (month >= 1) & (month <= 12) & (day >= 1) & (day <= 31))


class Scan(NamedTuple):
    """The result of one pass over a table: column summaries, a key for each row, (N,), and which rows are empty."""

    summary: Summary
    keys: Array
    empty: Array
    infinite: bool


def scanned(rows: Rows, single: Sequence[bool]) -> Scan:
    """One pass over a table, which ends at an infinite value."""
    summary = Summary(single)
    keys, empty = np.empty(len(rows), dtype=np.uint64), np.zeros(len(rows), dtype=bool)
    for at, block in rows.blocks():
        if np.isinf(block).any():
            return Scan(summary, keys, empty, infinite=True)
        for piece in (block[:HEAD], block[HEAD:]):
            if len(piece):
                summary.add(piece)
        keys[at] = row_keys(block)
        if np.isnan(block[:, 0]).any():
            empty[at] = np.isnan(block).all(axis=1)
    return Scan(summary, keys, empty, infinite=False)


@dataclass(frozen=True)
class Moments:
    """For the observed values of each column, (D,): count, mean, variance, least and largest."""

    count: Array
    mean: Array
    variance: Array
    least: Array
    most: Array

    @classmethod
    def of(cls, x: Array) -> Moments:
        """The moments of a block of rows (n, D)."""
        gone = np.isnan(x)
        if not gone.any():
            count = np.full(x.shape[1], len(x))
            return cls(count, x.mean(axis=0), x.var(axis=0), x.min(axis=0), x.max(axis=0))
        count = len(x) - gone.sum(axis=0)
        some = count > 0
        mean, variance = np.zeros(len(count)), np.zeros(len(count))
        known = np.ascontiguousarray(x[:, some])  # row order, so that sums match those without gaps
        mean[some], variance[some] = np.nanmean(known, axis=0), np.nanvar(known, axis=0)
        return cls(count, mean, variance, np.fmin.reduce(x, axis=0), np.fmax.reduce(x, axis=0))

    def __add__(self, other: Moments) -> Moments:
        """The moments of both together (Chan, Golub & LeVeque 1979)."""
        count = self.count + other.count
        share = other.count / np.maximum(count, 1)
        apart = other.mean - self.mean
        return Moments(
            count,
            self.mean + share * apart,
            (1 - share) * self.variance + share * other.variance + share * (1 - share) * apart**2,
            np.fmin(self.least, other.least),
            np.fmax(self.most, other.most),
        )
