"""Which rows train, which choose among checkpoints, and which are scored."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias, get_args

import numpy as np

from zoo.errors import DataError
from zoo.tables import Rows, hashed, odd_numbers

if TYPE_CHECKING:
    import xarray

__all__ = ["PARTS", "Part", "Split", "SplitChoice", "by_datum", "split_rows", "subsample", "value_blocks"]

Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]
Part = Literal["train", "validation", "test"]
SplitChoice: TypeAlias = Literal["grouped", "rows"] | Sequence[float] | Sequence[Part]

PARTS: tuple[Part, ...] = get_args(Part)
FRACTIONS = (0.7, 0.1, 0.2)
JOINED = 10  # rows whose numbers of copies have a common divisor by chance once in a thousand tables
FAR_MORE = 10  # times as many equal pairs as independent columns would give
SOME_ROWS, SOME_COLUMNS = 4096, 64  # enough to judge what chance would give
MOST_ROWS = 2**18  # rows in which pairs that differ in one column are counted; of more, an even sample
SUBSAMPLE_SEED = 0
NUMBERS_AT_ONCE = 2**20


class Split(NamedTuple):
    """The rows of each part, in order, and notes about them."""

    rows: dict[Part, Array]
    notes: tuple[str, ...]


def split_rows(
    rows: Rows,
    keys: Array,
    split: SplitChoice,
    groups: Array | None,
    labels: Array | None,
    discrete: bool,
    rng: np.random.Generator,
) -> Split:
    """Divide rows (N, D) among the parts; each row has a key that equal rows share.

    Rows of one group (N,), and equal rows where equality suggests copies, form a unit, and a unit goes to one part.
    Units are shuffled, sorted by label (the most frequent one in the unit) and by size, and drawn systematically. So
    units have the same chance, and every class and size is divided in proportion to within one unit. A unit larger
    than the intended size of validation or test is not drawn for it if any other is left, so without labels these
    parts miss their sizes by at most two units.

    Equal rows count as copies if every row occurs a multiple of k times, as in a table joined to itself (unless half of
    all combinations of its columns' values occur, as in a planned experiment), or if there are ten times as many equal
    pairs as there would be if the columns were independent with the same frequencies. In a single column of continuous
    values, these are compared with the pairs that differ by the smallest step, which rounding makes frequent, too. In
    ``discrete`` values, and in continuous ones so coarse that at least half of the rows repeat, correlated columns make
    equal rows frequent without copying. But they also make rows that differ in only one column frequent, which copying
    does not. So there must also be ten times as many equal pairs as such pairs, which are counted among 2^18 evenly
    spaced rows if there are more. If chance explains equal rows, they are divided one by one: keeping them together
    would remove from the test part what is most frequent in the data.
    """
    n = len(rows)
    given = np.shape(split) == (n,) and all(isinstance(part, str) for part in split)
    one_by_one = isinstance(split, str) and split == "rows"
    if one_by_one and groups is not None:
        raise DataError('split="rows" divides groups, but groups= keeps them together: leave one of them out')
    single, equal = np.arange(n), _first_equal(rows, keys)
    repeats = int(np.sum(equal != single))
    coarse = discrete or 2 * repeats >= n
    copies = repeats > 0 and not _explained_by_chance(rows, keys, equal, coarse)
    kept = copies and not given and not one_by_one
    if given:
        units, parts = single, _named(split)
    else:
        fractions = _fractions(split, n)
        units = single if one_by_one else _together(equal if kept else single, groups)
        parts = _drawn(fractions, units, labels, rng)
    sizes = {str(part): len(parts[part]) for part in PARTS}
    if not all(sizes.values()):
        largest, remedy = int(np.unique(units, return_counts=True)[1].max()), "add rows, or change split"
        if largest > 1:
            remedy = (
                f"rows that are equal or of one group go to the same part, and the largest such unit has {largest}; "
                'make the groups smaller, or divide them with split="rows"'
            )
        raise DataError(f"every part needs a row, and {n} rows would split into {sizes}: {remedy}")
    advice = (
        "the part of every row was given"
        if given
        else f"fewer than {FAR_MORE} times as many as such columns have by chance, so equal rows were divided "
        + ("by their groups alone" if groups is not None else "one by one; groups= keeps rows of one unit together")
        if not copies
        else 'split="grouped" keeps equal rows together'
    )
    notes = (_leaks(parts, equal, advice) if repeats else []) + _group_notes(parts, groups)
    if kept:
        are = "is" if repeats == 1 else "are"
        notes.append(f"{repeats} of {n} rows {are} equal to an earlier one: equal rows were kept in one part.")
    return Split(parts, tuple(notes))


def subsample(part: xarray.DataArray, most: int | None) -> xarray.DataArray:
    """A given number of rows of a part (N, D), at most, drawn without replacement and kept in order; None takes all.

    The choice depends only on N and the number, so all seeds and pairs see the same rows on every machine.

    >>> import xarray as xr
    >>> part = xr.DataArray(np.eye(9), dims=("obs", "feature"), coords={"obs": np.arange(100, 109)})
    >>> subsample(part, 4)["obs"].values.tolist()
    [102, 104, 105, 107]
    """
    n = part.sizes["obs"]
    if most is None or n <= most:
        return part
    return part.isel(obs=np.sort(np.random.default_rng(SUBSAMPLE_SEED).choice(n, most, replace=False)))


def value_blocks(part: xarray.DataArray) -> Iterator[Array]:
    """The values of a part (N, D), some rows at a time, to limit the memory of computations on them."""
    size = max(1, NUMBERS_AT_ONCE // max(1, part.shape[1]))
    return (part[start : start + size].values for start in range(0, len(part), size))


def by_datum(part: xarray.DataArray, told: Callable[[Array], Array]) -> Array:
    """A function of the values of some rows, (B, ...), for all rows of a part, (N, ...)."""
    return np.concatenate([told(block) for block in value_blocks(part)])


def _fractions(split: Any, n: int) -> Array:
    fractions = np.asarray(FRACTIONS if isinstance(split, str) and split in ("grouped", "rows") else split)
    numbers = fractions.dtype.kind in "iuf" and fractions.shape == (3,)
    if not numbers or not (fractions > 0).all() or not np.isclose(fractions.sum(), 1):
        raise DataError(
            f'split={split!r} must be "grouped", "rows", three fractions above 0 that sum to 1, or the part of each of '
            f"{n} rows"
        )
    return fractions


def _named(split: Any) -> dict[Part, Array]:
    for part in split:
        if part not in PARTS:
            raise DataError(f"split={part!r} is unknown: choose one of {', '.join(map(repr, PARTS))}")
    return {part: np.flatnonzero(np.asarray(split) == part) for part in PARTS}


def _first_equal(rows: Rows, keys: Array) -> Array:
    """The first row equal to each row, (N,); a row with a gap equals no other."""
    first = np.arange(len(rows))
    suspects = first
    while len(suspects := _of_equal_keys(keys, suspects)):
        _, at, of = np.unique(keys[suspects], return_index=True, return_inverse=True)
        earliest, different = suspects[at[of]], [np.empty(0, dtype=np.int64)]
        for piece in rows.take(suspects).pieces():  # equal keys may still be different rows
            x = rows[suspects[piece]]
            same = np.all(x == rows[earliest[piece]], axis=1)
            first[suspects[piece][same]] = earliest[piece][same]
            different.append(suspects[piece][~same & ~np.isnan(x).any(axis=1)])
        suspects = np.concatenate(different)
    return first


def _of_equal_keys(keys: Array, rows: Array) -> Array:
    """The rows, in order, that share their key with another of them."""
    ordered = np.sort(keys[rows])
    shared = ordered[1:][ordered[1:] == ordered[:-1]]
    return rows[np.isin(keys[rows], shared)] if len(shared) else rows[:0]


def _pairs(counts: Array) -> float:
    return float(np.sum(counts.astype(np.float64) * (counts - 1)) / 2)


def _explained_by_chance(rows: Rows, keys: Array, equal: Array, coarse: bool) -> bool:
    n, d = rows.shape
    counts, some = np.unique(equal, return_counts=True)[1], rows.spread(SOME_ROWS)
    possible = np.prod([len(np.unique(column)) for column in some.T], dtype=np.float64)
    if np.gcd.reduce(counts) > 1 and JOINED <= len(counts) < possible / 2:
        return False
    pairs = _pairs(counts)
    if d == 1 and not coarse:  # there are no other columns to compare with
        values, often = np.unique(some, return_counts=True)
        steps = np.diff(values)
        apart = steps <= 1.01 * steps.min(initial=np.inf)
        if apart.sum() < 2:  # without rounding no two steps agree
            return False
        next_to = (often[1:] * often[:-1])[apart].sum() / _pairs(np.array(len(some)))
        return bool(pairs <= FAR_MORE * _pairs(np.array(n)) * next_to)
    same = [_pairs(np.unique(column, return_counts=True)[1]) / _pairs(np.array(len(some))) for column in some.T]
    if pairs <= FAR_MORE * _pairs(np.array(n)) * np.prod(same):
        return True
    if not coarse:
        return False
    chosen = np.unique(np.linspace(0, d - 1, min(d, SOME_COLUMNS)).astype(np.int64))
    looked_at = slice(None, None, -(-n // MOST_ROWS))
    among = _pairs(np.unique(equal[looked_at], return_counts=True)[1])
    own = [hashed(x[:, chosen], odd_numbers(d)[chosen]) for _, x in rows.take(np.arange(n)[looked_at]).blocks()]
    others = keys[looked_at, None] - np.concatenate(own)
    nearly = sum(_pairs(np.unique(column, return_counts=True)[1]) - among for column in others.T)
    share = _pairs(np.array(len(others))) / _pairs(np.array(n))
    return bool(pairs <= FAR_MORE * nearly / share * d / len(chosen))


def _together(equal: Array, groups: Array | None) -> Array:
    """The first row of the unit each row belongs to, (N,)."""
    if groups is None:
        return equal
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    n = len(equal)
    _, at, of = np.unique(groups, return_index=True, return_inverse=True)
    ends = np.concatenate([equal, at[of]])
    links = coo_array((np.ones(2 * n), (np.tile(np.arange(n), 2), ends)), shape=(n, n))
    _, unit = connected_components(links, directed=False)
    _, at, of = np.unique(unit, return_index=True, return_inverse=True)
    return at[of]


def _drawn(fractions: Array, units: Array, labels: Array | None, rng: np.random.Generator) -> dict[Part, Array]:
    of, size = _numbered(units)
    order = rng.permutation(len(size))
    if size.max() > 1:  # otherwise they are in order already, and there may be many
        order = order[np.argsort(size[order], kind="stable")]
    if labels is not None:
        label = _most_frequent(labels, of)
        order = order[np.argsort(label[order], kind="stable")]
    rows: dict[Part, Array] = {}
    parts: tuple[tuple[Part, float], ...] = (("test", fractions[2]), ("validation", fractions[1]))
    for part, fraction in parts:
        wanted = max(round(len(units) * float(fraction), 6), 0)
        fitting = order[size[order] <= max(wanted, 1, size[order].min(initial=len(units)))]
        number = math.ceil(round(wanted / size[fitting].mean(), 6)) if len(fitting) else 0
        if len(size) < len(units):  # large units must not use up the room of the other parts
            number = min(number, len(order) - (2 if part == "test" else 1))
        number = max(min(number, len(fitting)), 0)
        at = (np.arange(number) * len(fitting) + rng.integers(max(len(fitting), 1))) // max(number, 1)
        drawn = np.zeros(len(size), dtype=bool)
        drawn[fitting[at]] = True
        rows[part] = np.flatnonzero(drawn[of])
        order = order[~drawn[order]]
    left = np.zeros(len(size), dtype=bool)
    left[order] = True
    return {"train": np.flatnonzero(left[of]), "validation": rows["validation"], "test": rows["test"]}


def _numbered(units: Array) -> tuple[Array, Array]:
    """The number of each row's unit, (N,), in order of their first rows, and how many rows each unit has."""
    size = np.bincount(units)
    if size.all():  # each row is a unit
        return units, size
    number = np.cumsum(size > 0) - 1
    return number[units], size[size > 0]


def _most_frequent(labels: Array, of: Array) -> Array:
    """The most frequent label of each unit, as a number; the first of equally frequent ones."""
    names, code = np.unique(labels, return_inverse=True)
    both, counts = np.unique(of * len(names) + code, return_counts=True)
    unit, code = np.divmod(both, len(names))
    best = np.lexsort((-code, counts, unit))
    last = np.flatnonzero(np.diff(unit[best], append=-1))
    return code[best][last]


def _leaks(rows: dict[Part, Array], equal: Array, advice: str) -> list[str]:
    told = []
    for part in PARTS[:0:-1]:
        found = int(np.isin(equal[rows[part]], equal[rows["train"]]).sum())
        if found:
            told.append(f"{found} of {len(rows[part])} {part} rows")
    if not told:
        return []
    return [f"{' and '.join(told)} also occur in the training part: {advice}."]


def _group_notes(rows: dict[Part, Array], groups: Array | None) -> list[str]:
    if groups is None:
        return []
    seen = np.concatenate([np.unique(groups[index]) for index in rows.values()])
    names, parts = np.unique(seen, return_counts=True)
    if divided := int(np.sum(parts > 1)):
        return [f"{divided} of {len(names)} groups are in more than one part: the part of every row was given."]
    return [f"Each of {len(names)} groups is in one part."]
