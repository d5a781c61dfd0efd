"""Columns of a table that are exact linear functions of one another."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias, cast

import numpy as np

__all__ = ["Dependencies", "dependencies"]

Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]

# In standard deviations of a column: what training in single precision cannot distinguish from zero, and the most
# that the rounding of a file may explain.
EXACT, MOST_ROUNDING = 1e-6, 1e-4
MOST_RECORDED, MOST_DECIMALS = 1e-2, 6  # the same for the rounding of a column to decimals
ROOT = 1.2 / np.sqrt(3)  # rounding errors have the root mean square of uniform ones; a little more for few rows
MOST_COLUMNS = 256  # the cost grows with their square
FEW_ROWS = 4096  # full rank in some rows is full rank in all


@dataclass(frozen=True)
class Dependencies:
    """The smallest sets of dependent columns, each with the number of its redundant columns.

    ``sets`` holds (columns in order, number redundant) pairs; ``unknown`` says in one sentence where dependencies are
    looked for if they were not here, and is empty otherwise.
    """

    sets: tuple[tuple[tuple[int, ...], int], ...] = ()
    unknown: str = ""

    @property
    def columns(self) -> tuple[int, ...]:
        """Every column that takes part, in order."""
        return tuple(sorted(j for columns, _ in self.sets for j in columns))


def dependencies(x: Array, *, decimals: bool = False) -> Dependencies:
    """The exact linear dependencies, an intercept allowed, between the columns of ``x`` (N, D) that vary.

    Exact means up to rounding. A column, in units of its standard deviation, may be off by 1e-6, less than training in
    single precision resolves. If single precision holds all its values, it may be off by half a unit in the last place
    of its largest value, up to 1e-4, since a float32 file was rounded so. A Fahrenheit column rounded to tenths is off
    by about 3e-3, and not an exact function of Celsius. With ``decimals`` it is: a column written with at most six
    decimals may then be off by half a unit of the last one, if that is below 1e-2.

    The numerical rank comes from a QR factorisation with column pivoting, with each column centred and divided by its
    allowed error. A column takes part if it was pivoted out, or if its coefficient in the triangular solve for a
    pivoted column is larger than rounding can explain. Columns linked this way form one set; the sets do not depend on
    which columns the pivoting chose.

    Tables with too few rows are not searched, since every column is then a function of the others, nor those with more
    than 256 varying columns (images), where the search costs too much.

    >>> celsius = np.array([3.0, 12.5, 20.1, 31.7, 8.8])
    >>> dependencies(np.stack([celsius, [4.0, 1.0, 3.0, 3.5, 9.0], 1.8 * celsius + 32], axis=1)).sets
    (((0, 2), 1),)
    """
    varying = np.flatnonzero(np.any(x != x[0], axis=0))
    n, d = len(x), len(varying)
    if d > MOST_COLUMNS:
        return Dependencies(unknown=f"in at most {MOST_COLUMNS} columns; here {d} vary")
    if d < 2:
        return Dependencies()
    if n <= d:
        return Dependencies(unknown=f"only in more rows than columns; here {d} columns vary over {n} rows")
    step = max(n // max(FEW_ROWS, 4 * d), 1)
    some = x[::step, varying]
    most, slack, off = (MOST_RECORDED, ROOT, _recording) if decimals else (MOST_ROUNDING, 2.0, _rounding)
    if step > 1 and np.all(spread := some.std(axis=0)) and not _pivoted(some, most * spread, slack)[2].size:
        return Dependencies()
    x = x[:, varying]
    return Dependencies(_sets(varying, *_pivoted(x, off(x), slack)))


def _recording(x: Array) -> Array:
    """The allowed error of each column if its values were rounded to their decimals, (D,), in the units of ``x``."""
    half = np.full(x.shape[1], np.inf)
    for places in range(MOST_DECIMALS, -1, -1):
        half[np.all(x == x.round(places), axis=0)] = 0.5 * 10.0**-places
    return np.where(half < MOST_RECORDED * x.std(axis=0), np.maximum(half, _rounding(x)), _rounding(x))


def _rounding(x: Array) -> Array:
    """The allowed error of each column, (D,), in the units of ``x``."""
    with np.errstate(over="ignore"):
        single = np.all(x == x.astype(np.float32), axis=0)
    std = x.std(axis=0)
    half_a_unit = np.where(single, np.abs(x).max(axis=0) * 2.0**-24, 0.0)
    return cast(Array, np.clip(half_a_unit, EXACT * std, MOST_ROUNDING * std))


def _pivoted(x: Array, rounding: Array, slack: float) -> tuple[Array, Array, Array]:
    """The columns kept (R,), which of them compose those pivoted out (R, D - R), and the latter (D - R,)."""
    from scipy.linalg import qr, solve_triangular

    n, d = x.shape
    center = x.mean(axis=0)
    triangle: Array = np.empty((0, d))
    for start in range(0, n, FEW_ROWS):  # the triangle equals the rows so far up to a rotation
        rows = (x[start : start + FEW_ROWS] - center) / rounding
        triangle = cast(Array, np.linalg.qr(np.concatenate([triangle, rows]), mode="r"))
    r, pivots = qr(triangle / np.sqrt(n), mode="r", pivoting=True)
    r, diagonal = r[:d], np.abs(np.diag(r))
    allowed = slack * np.sqrt(1 + np.arange(d))  # each of the columns so far is off by at most 1
    rank = int(np.argmax(diagonal <= allowed)) if np.any(diagonal <= allowed) else d
    kept, superfluous = pivots[:rank], pivots[rank:]
    inverse = solve_triangular(r[:rank, :rank], np.eye(rank))
    coefficients = inverse @ r[:rank, rank:]
    by_rounding = allowed[min(rank, d - 1)] * np.linalg.norm(inverse, axis=1, keepdims=True)
    return kept, np.abs(coefficients) > by_rounding, superfluous


def _sets(varying: Array, kept: Array, linked: Array, superfluous: Array) -> tuple[tuple[tuple[int, ...], int], ...]:
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    rows, ends = np.nonzero(linked)
    edges = coo_array((np.ones(len(rows)), (kept[rows], superfluous[ends])), shape=(len(varying),) * 2)
    _, member = connected_components(edges, directed=False)
    sets = [
        (tuple(varying[member == k].tolist()), int(np.sum(member[superfluous] == k)))
        for k in dict.fromkeys(member.tolist())
        if np.sum(member == k) > 1
    ]
    return tuple(sets)
