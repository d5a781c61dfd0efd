"""From a user's table to numbers, and the kind of each column."""

from __future__ import annotations

import math
import re
import reprlib
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias, cast, get_args

import numpy as np

from zoo.errors import DataError
from zoo.notation import NOTATIONS, notation
from zoo.summaries import MOST_EXACT, Extent, Scan, Summary, is_date, scanned
from zoo.supports import SUPPORTS, Column, ColumnSupport
from zoo.tables import Rows, Source
from zoo.words import did_you_mean, few

if TYPE_CHECKING:
    import pandas

__all__ = [
    "OPPOSITES",
    "Numbered",
    "Refused",
    "Stored",
    "Table",
    "numbered",
    "read_table",
    "schema_frame",
    "spellings",
]

Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]

# Integers on an equally spaced grid count as ordinal up to this many levels. A pixel has at most 256. In a
# table a few levels are ratings or grades; beyond 32, integers are more likely counts or amounts.
IMAGE_LEVELS, TABLE_LEVELS, DECLARED_LEVELS = 256, 32, 65536
MOST_CATEGORIES = 100
SPREAD = 100  # a column is positive if its largest value is this many times its smallest
ON_STEP = 1e-6  # steps: how far a value may be from a multiple of a declared step
SOME = 1000  # non-numeric cells that are examined
LOOKED_AT = 2**20  # most rows in which codes for missing values are looked for
FEW_VALUES = 5  # with fewer values besides a code, nothing is said about its distance
CODES = (-9999.0, -999.0, -99.0, -9.0, -1.0, 99.0, 999.0, 9999.0, 99999.0)
FAR = 5  # interquartile ranges from the other values: a code this far out is not a value
SHORT = reprlib.Repr()  # shortens a value in a message
SHORT.maxstring = SHORT.maxlong = 60
WORDS = {"yes": 1, "no": 0, "true": 1, "false": 0, "y": 1, "n": 0, "t": 1, "f": 0}
NO_ENTRY = "has no observed entry"
DATES = "holds dates written as numbers; the days since a first date, say, can be used in its place"
BEYOND = "beyond what float64 holds exactly"
ANOTHER_UNIT = "use another unit, or leave the column out if it numbers the rows"
NOTHING: Array = np.empty(0)
OPPOSITES = ({"yes", "no"}, {"true", "false"}, {"y", "n"}, {"t", "f"})
PADDED = re.compile(r"\s*0\d+\s*")
NUMBERING = {"id", "index", "row", "row_id", "rowid", "level_0", ""}  # names of columns that number the rows


class Table(NamedTuple):
    """Rows (N, D), columns, image shape, notes, and the summary of one pass over the table."""

    rows: Rows
    columns: tuple[Column, ...]
    image_shape: tuple[int, ...] | None
    notes: tuple[str, ...]
    scan: Scan

    @property
    def values(self) -> Array:
        """All values, (N, D), NaN for missing entries."""
        return self.rows[:]


class Numbered(NamedTuple):
    """One column as numbers, (N,), with the words they stand for, if any, and whether these are ordered."""

    values: Array
    categories: tuple[str, ...] = ()
    ordered: bool = False
    single: bool = False  # whether it was in single precision
    reason: str = ""
    padded: bool = False  # whether some have leading zeros, as codes have


TRUTHS = Numbered(NOTHING, ("False", "True"), reason="true or false")


@dataclass(frozen=True)
class Refused(Exception):
    """Why a column cannot be used."""

    why: str


class Stored(NamedTuple):
    """A table of plain numbers that is read in place, with the kinds of its columns where their type does not say.

    A kind holds no values; a column that numbers cannot represent is refused unless left out.
    """

    source: Source
    kinds: Sequence[Numbered | Refused] = ()


def read_table(
    x: Any,
    *,
    names: Sequence[str] | None = None,
    support: str | Mapping[str, str] = "auto",
    levels: Sequence[float] | None = None,
    resolution: str | Mapping[str, float | None] | None = "auto",
    image_shape: Sequence[int] | None = None,
    missing_values: Sequence[Any] = (),
    keep: Sequence[str] | None = None,
    drop: Sequence[str] = (),
) -> Table:
    """Numbers and columns of an array (N, D), of images (N, H, W) or (N, C, H, W), or of a data frame.

    Unless ``support`` says otherwise, a column gets the first of these supports that all observed values satisfy. For a
    table of numbers as a whole: ``binary``; ``ordinal``, integers on one equally spaced grid of at most 32 levels, 256
    in images; ``count``. Then by column: ``binary``; ``ordinal``, as before, if values repeat; ``count``, whole numbers
    from 0 up with the smallest at most a tenth of the largest; ``unit``, numbers from 0 to 1; ``positive``, numbers
    above 0 with the largest at least 100 times the smallest; ``real``. Text is ``categorical``, ordered categories are
    ``ordinal``, and yes and no, or true and false, are ``binary``.

    If all values of a column are multiples of a decimal step, of at most six places, each stands for the cell of that
    width around it; ``resolution=None`` treats numbers as points of the real line.

    Raises:
        DataError: not a table, columns that no likelihood models (all named at once), or values, by column and row,
            that are not numbers, infinite or outside a declared support.

    >>> table = read_table([[1.5, 0], [2.25, 1], [7.5, 1], [0.75, 0], [3.0, 1]])
    >>> [(column.support, column.resolution) for column in table.columns]
    [('real', 0.25), ('binary', 1.0)]
    """
    for told in support.values() if isinstance(support, Mapping) else [support]:
        if not isinstance(told, str) or told not in ("auto", *get_args(ColumnSupport)):
            known = ", ".join(map(repr, ("auto", *get_args(ColumnSupport))))
            raise DataError(f"support={told!r} is unknown: choose one of {known}")
    for option, several in (
        ("missing_values", missing_values),
        ("drop", drop),
        ("columns", () if keep is None else keep),
    ):
        if isinstance(several, Mapping):
            raise DataError(f"{option}={several!r}; give a list, which applies to all columns")
        if (isinstance(several, str) and option == "missing_values") or not isinstance(several, Iterable):
            raise DataError(f"{option}={several!r}; give a list: {option}=[{several!r}]")
    words = {name for name, told in support.items() if told == "categorical"} if isinstance(support, Mapping) else set()
    rows, raw, shape = _columns(x, names, image_shape, missing_values, keep, drop, words)
    for option, named in (("support", support), ("resolution", resolution)):
        if isinstance(named, Mapping):
            _known(option, named, raw)
    scan = scanned(rows, [column.single for column in raw.values()])
    if scan.infinite:
        _refuse(rows.blocks(), np.isinf, [*raw], "infinite", "leave out its row or its column")
    if missing_values or isinstance(x, Stored):
        _refuse_unusable(scan.summary, [*raw])
    extents = _extents(rows, scan.summary)
    declared = {name: support if isinstance(support, str) else support.get(name, "auto") for name in raw}
    grid = None if levels is None else _checked_levels(levels)
    if grid and not {*declared.values()} <= {"auto", "ordinal"} and not isinstance(support, Mapping):
        raise DataError(f"levels belong to ordinal data, not to support={support!r}: leave one of them out")
    found = _together(rows, scan.summary.together(), raw, declared, grid, image=shape is not None)
    columns = [
        found.get(name) or _alone(name, column, extent, declared[name], grid if declared[name] == "ordinal" else None)
        for (name, column), extent in zip(raw.items(), extents, strict=True)
    ]
    if grid and not any(one.levels == grid for one in columns):
        raise DataError("levels= needs ordinal columns, and there are none: declare some as support='ordinal'")
    if grid or {*declared.values()} != {"auto"}:  # inferred supports hold by construction
        _refuse_outside(rows, columns)
    recorded = tuple(
        _recorded(one, rows.select(np.array([j])), resolution, partial(scan.summary.step, j))
        for j, one in enumerate(columns)
    )
    notes = _missing_notes(scan.summary, [*raw]) + _code_notes(rows, scan.summary, raw) + _padded_notes(raw, declared)
    return Table(rows, recorded, shape, (*notes, *_numbering_notes(rows, scan.summary, [*raw])), scan)


def schema_frame(columns: Iterable[Column]) -> pandas.DataFrame:
    """The kinds of the columns, as a table with one row per column."""
    import pandas as pd

    return pd.DataFrame(
        [
            {
                "column": column.name,
                "support": column.support,
                "values": _values_told(column),
                "recorded to": "" if column.resolution is None else f"{column.resolution:.6g}",
                "missing": column.missing,
                "because": column.reason + ("; constant in training" if column.constant else ""),
            }
            for column in columns
        ]
    )


def _values_told(column: Column) -> str:
    if column.categories:
        return few(column.categories, 5)
    if column.levels:
        return f"{len(column.levels)} levels, {column.levels[0]:g} to {column.levels[-1]:g}"
    return column.kind.means


# -- one column after another ------------------------------------------------------------------------------------------


def _columns(
    x: Any,
    names: Sequence[str] | None,
    image_shape: Sequence[int] | None,
    missing_values: Sequence[Any],
    keep: Sequence[str] | None,
    drop: Sequence[str],
    words: Container[str],
) -> tuple[Rows, dict[str, Numbered], tuple[int, ...] | None]:
    """The selected columns, as rows of numbers, and by name; and the shape of an image row.

    In a table the columns named in ``words`` are categories, even if written as numbers.
    """
    if hasattr(x, "toarray"):
        raise DataError(f"x is sparse ({type(x).__name__}): pass x.toarray()")
    if np.ma.isMaskedArray(x):
        x = np.ma.filled(x.astype(np.float64), np.nan)
    framed = hasattr(x, "select_dtypes")
    array: Any
    if framed:
        sides = _checked_sides(image_shape)
        given = _checked_names(x.columns if names is None else names, x.shape[1])
        if x.shape[0] == 0 or x.shape[1] == 0:
            raise DataError(f"x must be (N, D), (N, H, W) or (N, C, H, W), not empty; its shape is {x.shape}")
        shape = _checked_shape(sides, x.shape[1])
    else:
        try:
            array = x.source if isinstance(x, Stored) else np.asarray(x)
        except (TypeError, ValueError, RuntimeError) as error:
            raise DataError(f"the rows of x do not form an array: {error}") from error
        if len(array.shape) not in (2, 3, 4) or 0 in array.shape:
            hint = "; x.reshape(-1, 1) makes one column" if len(array.shape) == 1 and array.shape[0] else ""
            raise DataError(f"x must be (N, D), (N, H, W) or (N, C, H, W), not empty; its shape is {array.shape}{hint}")
        sides = _checked_sides(image_shape) or (array.shape[1:] if len(array.shape) > 2 else None)
        features = math.prod(array.shape[1:])
        shape = _checked_shape(sides, features)
        prefix = "pixel_" if shape else "x"
        counted = [prefix + "_".join(map(str, at)) for at in np.ndindex(shape or (features,))]
        given = _checked_names(counted if names is None else names, features)
    wanted = _wanted(given, keep, drop)
    if len(wanted) < len(given) and shape:
        raise DataError("columns= and drop= would leave holes in the images: leave them out, or image_shape")
    chosen = [j for j, name in enumerate(given) if name in wanted]
    plainly = "iuf" if len(missing_values) else "iufb"  # a code for missing entries may equal False or True
    if not framed and getattr(array.dtype, "kind", "O") in plainly:  # plain numbers are read in place
        plain = [Numbered(NOTHING, single=array.dtype == np.float32)] * features
        kinds = {given[j]: ((isinstance(x, Stored) and x.kinds) or plain)[j] for j in chosen}
        if unusable := {name: kind.why for name, kind in kinds.items() if isinstance(kind, Refused)}:
            _refuse_columns(unusable)
        rows = Rows(array, columns=None if len(chosen) == len(given) else np.array(chosen))
        return _numeric(rows, [*kinds], missing_values), cast(dict[str, Numbered], kinds), shape
    if not framed:
        array = array.reshape(len(array), -1)
    values = np.empty((len(x) if framed else len(array), len(chosen)))
    raw: dict[str, Numbered] = {}
    refused: dict[str, str] = {}
    for at, j in enumerate(chosen):
        name, column = given[j], x.iloc[:, j] if framed else array[:, j]
        try:
            found = (_in_words if name in words and framed else numbered)(name, column, missing_values)
        except Refused as reason:
            refused[name] = reason.why
            continue
        values[:, at] = found.values
        raw[name] = found._replace(values=values[:, at])
    if refused:
        _refuse_columns(refused)
    return Rows(values), raw, shape


def _numeric(rows: Rows, names: Sequence[str], missing_values: Sequence[Any]) -> Rows:
    """Plain numbers, some of which mark missing entries."""
    if rows.source.dtype.kind in "iu" and rows.source.dtype.itemsize == 8:
        _refuse(((at, rows.given(at)) for at in rows.pieces()), _beyond_floats, names, BEYOND, ANOTHER_UNIT)
    codes = [float(value) for value in spellings(missing_values) if isinstance(value, Real)]
    return rows.changed(lambda x: np.where(np.isin(x, codes), np.nan, x)) if codes else rows


def exact(name: str, values: Array, start: int = 0) -> Array:
    """The values (N,) of a column, from some row on, if float64 can hold them.

    Raises:
        DataError: integers among which float64 has gaps.
    """
    at = slice(start, start + len(values))
    _refuse([(at, values[:, None])], _beyond_floats, [name], BEYOND, ANOTHER_UNIT)
    return values


def _refuse_unusable(summary: Summary, names: Sequence[str]) -> None:
    """Raise DataError for numeric columns without observed entries, or with dates."""
    empty = summary.count == 0
    dated = summary.dated & (summary.least < summary.most) & (summary.rows >= FEW_VALUES)
    refused = {name: NO_ENTRY if empty[j] else DATES for j, name in enumerate(names) if empty[j] or dated[j]}
    if refused:
        _refuse_columns(refused)


def numbered(name: str, column: Any, missing_values: Sequence[Any]) -> Numbered:
    """One column as numbers.

    Raises:
        Refused: no likelihood models it.
        DataError: some of its values are not numbers.
    """
    import pandas as pd

    series = pd.Series(column)
    if isinstance(series.dtype, pd.SparseDtype):
        series = pd.Series(np.asarray(series))
    if isinstance(series.dtype, pd.CategoricalDtype):
        return _coded(series.astype(series.dtype), missing_values)
    if series.dtype.kind in "mM" or isinstance(series.dtype, pd.PeriodDtype):
        raise Refused("holds dates or times; a number in its place, such as the days since a first date, can be used")
    if series.dtype.kind == "c":
        raise DataError("x is complex, not an array of real numbers.")
    gone = series.isna().to_numpy()
    if len(missing_values):
        gone = gone | series.isin(spellings(missing_values)).to_numpy()
    if gone.all():
        raise Refused(NO_ENTRY)
    if pd.api.types.is_bool_dtype(series.dtype):
        values = np.where(gone, np.nan, series.where(~gone, False).astype(bool).to_numpy())
        return TRUTHS._replace(values=values.astype(np.float64))
    if series.dtype.kind in "iuf":
        plain = series.where(~gone, series[~gone].iloc[0]).to_numpy(dtype=_plain(series.dtype))
        if _beyond_floats(plain).any():
            _refuse_cells(name, plain.astype(object), plain.astype(object))
        if len(plain) >= FEW_VALUES and is_date(plain).all() and plain.min() < plain.max():
            raise Refused(DATES)
        values = np.where(gone, np.nan, plain.astype(np.float64)) + 0.0
        return Numbered(values, single=str(series.dtype).lower() == "float32")
    return _read_text(name, series.astype(object).to_numpy(), gone)


def _in_words(name: str, column: Any, missing_values: Sequence[Any]) -> Numbered:
    """A column of categories; numbers are categories by value."""
    import pandas as pd

    series = pd.Series(column)
    if isinstance(series.dtype, pd.CategoricalDtype):
        return _coded(series, missing_values)
    gone = (series.isna() | series.isin(spellings(missing_values))).to_numpy()
    if gone.all():
        raise Refused(NO_ENTRY)
    known = series[~gone]
    whole = known.map(lambda cell: isinstance(cell, str | bool | np.bool_) or float(cell).is_integer())
    words = known.map(lambda cell: str(int(cell) if isinstance(cell, float) else cell).strip())
    different = sorted(
        words.unique(), key=lambda word: (0.0, float(word), word) if not _not_a_number(word) else (1.0, 0.0, word)
    )
    if not whole.all() or len(different) > MOST_CATEGORIES:
        raise DataError(
            f"column {name!r} is declared categorical: its values must be text or whole numbers, at most "
            f"{MOST_CATEGORIES} different ones"
        )
    values = np.full(len(series), np.nan)
    values[~gone] = words.map({word: code for code, word in enumerate(different)}).to_numpy(dtype=np.float64)
    return Numbered(values, tuple(different))


def spellings(missing_values: Sequence[Any]) -> list[Any]:
    """The marks of a missing entry, in the forms they may have in a column of text or numbers.

    >>> spellings([-999, "12"])
    [-999, '12', '-999', '-999.0', 12.0]
    """
    numbers = [float(value) for value in missing_values if isinstance(value, str) and not _not_a_number(value)]
    others = [value for value in missing_values if not isinstance(value, str)]
    written = dict.fromkeys(str(one) for value in others for one in (value, *_as_float(value)))
    return [*missing_values, *written, *numbers]


def _as_float(value: Any) -> tuple[float, ...]:
    return (float(value),) if isinstance(value, Real) and not isinstance(value, bool) else ()


def _plain(dtype: Any) -> Any:
    """NumPy's type for one of pandas' own."""
    return getattr(dtype, "numpy_dtype", dtype)


def _coded(series: Any, missing_values: Sequence[Any]) -> Numbered:
    """Pandas' categories, in its order."""
    told = series.cat.categories
    series = series.cat.remove_categories(told[told.isin(spellings(missing_values))])
    words = tuple(str(one) for one in series.cat.categories)
    if len(words) > MOST_CATEGORIES:
        raise Refused(f"has {len(words)} categories, more than the {MOST_CATEGORIES} allowed")
    code = series.cat.codes.to_numpy().astype(np.float64)
    gone = code < 0
    if gone.all():
        raise Refused(NO_ENTRY)
    kind = "ordered " if series.cat.ordered else ""
    return Numbered(np.where(gone, np.nan, code), words, bool(series.cat.ordered), reason=f"{kind}categories")


def _read_text(name: str, cells: Array, gone: Array) -> Numbered:
    """A column of objects: numbers with exceptions, yes and no, or words."""
    import pandas as pd

    known = cells[~gone]
    if all(isinstance(cell, bool | np.bool_) for cell in known):
        values = np.full(len(cells), np.nan)
        values[~gone] = known.astype(np.float64)
        return TRUTHS._replace(values=values)
    if any(isinstance(cell, list | dict | set | tuple | np.ndarray) for cell in known[:SOME]):
        raise Refused("holds lists or other objects in its cells")
    # each different text is examined once; 1 and True would count as the same
    as_text = pd.api.types.infer_dtype(known, skipna=False) == "string"
    at, told = pd.factorize(known) if as_text else (np.arange(len(known)), known)
    times = np.bincount(at)
    text = [cell.strip() if isinstance(cell, str) else cell for cell in told]

    def in_rows(values: Any) -> Array:
        """The value of each row, from those of the different cells; NaN for missing entries."""
        rows = np.full(len(cells), np.nan)
        rows[~gone] = np.array(values, dtype=np.float64)[at]
        return rows

    odd = np.array([_not_a_number(cell) for cell in text])
    if not odd.any():
        padded = any(PADDED.fullmatch(cell) for cell in text if isinstance(cell, str))
        return Numbered(in_rows([float(cell) for cell in text]) + 0.0, padded=padded)
    sample = np.flatnonzero(odd)[:SOME]
    some = times[sample].sum()
    written = times[[j for j in sample if _is_written_number(str(text[j]))]].sum()
    share = 1 - times[odd].sum() / len(known) * (1 - written / some)
    dates = times[[j for j in sample if NOTATIONS[0].pattern.fullmatch(str(text[j]))]].sum()
    if 2 * dates > some and 2 * times[odd].sum() > len(known):
        raise Refused("holds dates or times; a number in its place, such as the days since a first date, can be used")
    if 2 * share > 1:
        _refuse_cells(name, cells, np.where(gone, np.array(None), cells))
    words = [str(cell) for cell in text]
    different = sorted({*words})
    low = {word.lower() for word in different}
    if any(low <= pair for pair in OPPOSITES):
        written_as = {WORDS[word.lower()]: word for word in different}
        pair = next(sorted(pair, key=WORDS.__getitem__) for pair in OPPOSITES if low <= pair)
        return Numbered(
            in_rows([WORDS[word.lower()] for word in words]),
            (written_as.get(0, pair[0]), written_as.get(1, pair[1])),
            reason=f"{pair[1]} or {pair[0]}",
        )
    if len(different) == len(known) > 2:
        raise Refused(f"has a different word in each of {len(known)} rows, like an identifier or free text")
    if len(different) > MOST_CATEGORIES:
        raise Refused(f"has {len(different)} different words, more than the {MOST_CATEGORIES} categories allowed")
    if 2 * len(different) > len(known) > 10:
        raise Refused(f"has {len(different)} different words in {len(known)} rows, too many to learn from each")
    number = {word: code for code, word in enumerate(different)}
    many = "one word" if len(different) == 1 else f"{len(different)} different words"
    reason = f"text, {many} in {len(known)} rows"
    return Numbered(in_rows([number[word] for word in words]), tuple(different), reason=reason)


def _is_written_number(cell: str) -> bool:
    known = notation([cell])
    return known is not None and known is not NOTATIONS[0]


# -- what a column is --------------------------------------------------------------------------------------------------


def _extents(rows: Rows, summary: Summary) -> list[Extent]:
    """A summary of each column's values; for few values, whether each occurs twice on average."""
    extents = [summary.extent(j) for j in range(len(summary.count))]
    sparse = [j for j, extent in enumerate(extents) if extent.observed < 2 * TABLE_LEVELS]
    if sparse:
        kept = [[x[~np.isnan(x)] for x in block.T] for _, block in rows.select(np.array(sparse)).blocks()]
        for j, values in zip(sparse, zip(*kept, strict=True), strict=True):
            observed = np.concatenate(values)
            extents[j] = extents[j]._replace(repeats=2 * len(np.unique(observed)) <= len(observed))
    return extents


class Rule(NamedTuple):
    """A support, a test whether observed numbers belong to it, and the reason in words."""

    support: ColumnSupport
    holds: Callable[[Extent], bool]
    why: str


def _step(x: Extent) -> int:
    """The greatest common divisor of whole numbers; 1 where they are too large to say."""
    return x.divisor or 1 if x.exact and x.most > x.least else 1


RULES = (
    Rule("binary", lambda x: x.whole and x.least >= 0 and x.most <= 1, "zeros and ones"),
    Rule(
        "ordinal",
        lambda x: x.repeats and _integer_grid(x, TABLE_LEVELS) is not None,
        f"whole numbers on at most {TABLE_LEVELS} equally spaced levels",
    ),
    Rule(
        "count",
        lambda x: x.whole and x.least >= 0 and (10 * x.least <= x.most or x.least == x.most) and _step(x) <= 1,
        "whole numbers from 0 up",
    ),
    Rule("unit", lambda x: x.least >= 0 and x.most <= 1 and x.least < x.most, "numbers from 0 to 1"),
    Rule(
        "positive",
        lambda x: x.least > 0 and x.most >= SPREAD * x.least,
        f"numbers above 0, the largest at least {SPREAD} times the smallest",
    ),
    Rule("real", lambda _: True, "numbers"),
)


def _together(
    rows: Rows,
    observed: Extent,
    raw: Mapping[str, Numbered],
    declared: Mapping[str, str],
    grid: tuple[float, ...] | None,
    *,
    image: bool,
) -> dict[str, Column]:
    """The kind of all columns if they share one, zeros and ones or levels on one grid; otherwise empty."""
    kinds = {*declared.values()}
    if any(column.categories for column in raw.values()) or (len(kinds) > 1 or kinds & {"categorical"}):
        return {}
    (kind,) = kinds
    if kind not in ("auto", "ordinal"):
        return {}
    rules = {rule.support: rule for rule in RULES}
    binary = rules["binary"]
    if kind == "auto" and grid is None and binary.holds(observed):
        return {name: Column(name=name, support="binary", reason=binary.why) for name in raw}
    most = DECLARED_LEVELS if kind == "ordinal" else IMAGE_LEVELS if image else TABLE_LEVELS
    found = grid or _integer_grid(observed, most)
    if found:
        why = "named levels" if grid else f"whole numbers on {len(found)} levels that all columns share"
        return {name: Column(name=name, support="ordinal", levels=found, reason=why) for name in raw}
    if kind == "ordinal":
        one = Column(name="", support="ordinal")
        remedy = f'{SUPPORTS["ordinal"].remedy}; support="auto" infers what the values are'
        _refuse(rows.blocks(), one.outside, [*raw], "outside the support 'ordinal'", remedy)
        raise DataError(f"no grid of 2 to {DECLARED_LEVELS} levels holds these values; {remedy}")
    if not image and not rules["count"].holds(observed):
        return {}
    rule = next(rule for rule in RULES if rule.support not in ("binary", "ordinal") and rule.holds(observed))
    return {name: Column(name=name, support=rule.support, reason=rule.why) for name in raw}


def _alone(name: str, raw: Numbered, observed: Extent, declared: str, grid: tuple[float, ...] | None) -> Column:
    """The kind of one column."""
    support: Any
    if raw.categories:
        levels = tuple(float(k) for k in range(len(raw.categories)))
        if declared != "auto":
            support = declared
        elif raw.ordered and len(levels) > 1:
            support = "ordinal"
        else:
            support = "binary" if set(map(str.lower, raw.categories)) in OPPOSITES else "categorical"
        if support not in ("ordinal", "binary", "categorical") or (support == "binary" and len(levels) > 2):
            raise DataError(
                f"support={declared!r} of column {name!r}: it holds words, {few(raw.categories, 3)}; "
                "leave support out, or replace them by numbers"
            )
        if support == "ordinal" and not raw.ordered:
            raise DataError(
                f"support={declared!r} of column {name!r}: {few(raw.categories, 3)} are unordered words; give an order "
                f"with frame[{name!r}] = pandas.Categorical(frame[{name!r}], [...], ordered=True), or leave support out"
            )
        ordered = support == "ordinal" and len(levels) > 1
        return Column(
            name=name,
            support=support,
            levels=levels if ordered else None,
            categories=raw.categories,
            reason="declared" if declared != "auto" else raw.reason,
        )
    if declared == "auto":
        rule = next(rule for rule in RULES if rule.holds(observed))
        levels = _integer_grid(observed, TABLE_LEVELS) or () if rule.support == "ordinal" else ()
        why = f"whole numbers on {len(levels)} equally spaced levels" if levels else rule.why
        return Column(name=name, support=rule.support, levels=levels or None, reason=why)
    support = declared
    if support == "ordinal":
        found = grid or _integer_grid(observed, DECLARED_LEVELS)
        if not found:
            raise DataError(
                f"column {name!r}: no grid of 2 to {DECLARED_LEVELS} levels holds its values; "
                f"{SUPPORTS['ordinal'].remedy}"
            )
        return Column(name=name, support="ordinal", levels=found, reason="declared")
    if support == "categorical":
        if not observed.whole or observed.least < 0 or observed.most >= MOST_CATEGORIES:
            raise DataError(
                f"column {name!r} is declared categorical: its values must be text, or whole numbers from 0 to "
                f"{MOST_CATEGORIES - 1}"
            )
        words = tuple(str(k) for k in range(int(observed.most) + 1))
        return Column(name=name, support="categorical", categories=words, reason="declared")
    return Column(name=name, support=support, reason="declared")


def _recorded(column: Column, rows: Rows, resolution: Any, step: Callable[[], float | None]) -> Column:
    """The column with the width of the cell that its values stand for."""
    told = resolution.get(column.name, "auto") if isinstance(resolution, Mapping) else resolution
    if column.kind.discrete:
        width = column.levels[1] - column.levels[0] if column.levels else 1.0
        if isinstance(resolution, Mapping) and told not in ("auto", width):
            raise DataError(
                f"resolution={told!r} of column {column.name!r}: it is {column.support}, whose values are discrete; "
                "declare support='real' for it, or leave its resolution out"
            )
        return replace(column, resolution=width)
    if told is None:
        return column
    if told == "auto":
        return replace(column, resolution=step())
    if isinstance(told, bool) or not isinstance(told, Real) or not 0 < float(told) < math.inf:
        raise DataError(f"resolution={told!r} of column {column.name!r}: give a positive width, or None")
    for at, x in rows.blocks():
        off = np.abs(x - told * np.rint(x / told))
        apart = (off > ON_STEP * told + np.spacing(np.abs(x).astype(np.float32)))[:, 0]
        if apart.any():
            row = int(apart.argmax())
            raise DataError(
                f"resolution={told!r} of column {column.name!r}: row {at.start + row} (counted from 0) holds "
                f"{x[row, 0]:g}, which is not a multiple of it, so the cells of two values would overlap"
            )
    return replace(column, resolution=float(told))


def _checked_levels(levels: Sequence[float]) -> tuple[float, ...]:
    array = np.asarray(levels)
    steps = np.diff(array.astype(np.float64)) if array.ndim == 1 and array.dtype.kind in "iuf" else np.empty(0)
    if not len(steps) or not steps[0] > 0 or not np.allclose(steps, steps[0], rtol=1e-6, atol=0):
        raise DataError(f"levels={levels!r} must be two or more increasing, equally spaced numbers: levels=range(17)")
    return tuple(array.astype(np.float64).tolist())


def _integer_grid(x: Extent, most: int) -> tuple[float, ...] | None:
    """The coarsest grid of equally spaced integers that holds all values, if it has 2 to ``most`` levels."""
    # uses all parts: the levels are the sample space, which is given, not estimated
    if not x.exact or not 0 < x.most - x.least < most * x.stride:
        return None
    return tuple(np.arange(x.least, x.most + 1, x.stride).tolist())


# -- notes -------------------------------------------------------------------------------------------------------------


def _missing_notes(summary: Summary, names: Sequence[str]) -> list[str]:
    missing = summary.rows - summary.count
    if not missing.any():
        return []
    gone, size = int(missing.sum()), summary.rows * len(names)
    where = np.array(names)[missing > 0].tolist()
    return [
        f"{gone} of {size} entries ({100 * gone / size:.2g} %) are missing, in {few(where)}: scores use the "
        "observed ones."
    ]


def _code_notes(rows: Rows, summary: Summary, raw: Mapping[str, Numbered]) -> list[str]:
    """Values that look like codes for missing ones: they repeat, and lie far outside the rest."""
    extreme = np.isin(summary.least, CODES) | np.isin(summary.most, CODES)
    suspects = [j for j, column in enumerate(raw.values()) if extreme[j] and not column.categories]
    if not suspects:
        return []
    names, found = [*raw], dict[float, list[str]]()
    for j, column in zip(suspects, rows.select(np.array(suspects)).spread(LOOKED_AT).T, strict=True):
        observed = column[~np.isnan(column)]
        for code in CODES:
            rest = observed[observed != code]
            if len(observed) - len(rest) < 2 or len(rest) < FEW_VALUES or not (code < rest.min() or code > rest.max()):
                continue
            low, high = np.quantile(rest, [0.25, 0.75])
            reach = FAR * max(high - low, (rest.max() - rest.min()) / FAR)
            if not low - reach <= code <= high + reach:
                found.setdefault(code, []).append(names[j])
    return [
        f"{code:g} in {few(names)} lies far from all other values and may mark missing ones: "
        f"if so, pass missing_values=[{code:g}] (--missing {code:g})."
        for code, names in found.items()
    ]


def _padded_notes(raw: Mapping[str, Numbered], declared: Mapping[str, str]) -> list[str]:
    return [
        f"{name} was read as numbers, though some of them have leading zeros, as codes have: "
        f"support={{{name!r}: 'categorical'}} takes them as names."
        for name, column in raw.items()
        if column.padded and declared[name] == "auto"
    ]


def _numbering_notes(rows: Rows, summary: Summary, names: Sequence[str]) -> list[str]:
    numbering = [
        name
        for j, name in enumerate(names)
        if (name.lower() in NUMBERING or name.startswith("Unnamed:"))
        and _counts_rows(rows.select(np.array([j])), summary.extent(j))
    ]
    if not numbering:
        return []
    verb = "numbers the rows" if len(numbering) == 1 else "number the rows"
    return [f"{few(numbering)} {verb}, which says nothing about them: drop={numbering!r} leaves it out."]


def _counts_rows(rows: Rows, extent: Extent) -> bool:
    """Whether a column holds consecutive whole numbers, each once."""
    n = len(rows)
    if n < 3 or extent.observed < n or not extent.exact or extent.most - extent.least != n - 1:
        return False
    seen = np.zeros(n, dtype=bool)
    for _, x in rows.blocks():
        seen[(x[:, 0] - extent.least).astype(np.int64)] = True
    return bool(seen.all())


def _refuse_columns(refused: Mapping[str, str]) -> None:
    """Raise an error that names every unusable column, and how to leave them out."""
    told = "; ".join(f"column {name!r} {why}" for name, why in refused.items())
    flags = " ".join(f"--drop {name!r}" if " " in name else f"--drop {name}" for name in refused)
    them = "it" if len(refused) == 1 else "them"
    raise DataError(f"{told}. Leave {them} out with drop={[*refused]!r} ({flags}); labels= takes a column of classes")


def _refuse(
    blocks: Iterable[tuple[slice, Array]],
    bad: Callable[[Array], Array],
    columns: Sequence[str],
    complaint: str,
    remedy: str,
) -> None:
    """Raise an error that names the first bad entry (N, D), if any, in the order of rows."""
    first, count, where = "", 0, np.zeros(len(columns), dtype=bool)
    for at, values in blocks:
        found = bad(values)
        if not found.any():
            continue
        if not first:
            row, j = divmod(int(np.argmax(found)), len(columns))
            value = values[row, j] if values.dtype.kind in "mM" else values[row].tolist()[j]
            shown = f"{SHORT.repr(value)} is {complaint}"
            first = f"column {columns[j]!r}, row {(at.start or 0) + row} (counted from 0): {shown}"
        count += int(found.sum())
        where |= found.any(axis=0)
    if first:
        more = f" ({count} such values, in {few(np.array(columns)[where].tolist())})" if count > 1 else ""
        raise DataError(f"{first}{more}; {remedy}")


def _refuse_outside(rows: Rows, columns: Sequence[Column]) -> None:
    """Raise an error that names the first value outside the support of its column, support by support."""
    names = [column.name for column in columns]
    for support in dict.fromkeys(column.support for column in columns):
        same = [column.support == support for column in columns]

        def bad(x: Array, same: Sequence[bool] = same) -> Array:
            return np.stack([column.outside(x[:, j]) & same[j] for j, column in enumerate(columns)], axis=1)

        remedy = f'{SUPPORTS[support].remedy}; support="auto" infers what the values are'
        _refuse(rows.blocks(), bad, names, f"outside the support {support!r}", remedy)


def _refuse_cells(name: str, cells: Array, known: Array) -> None:
    """Raise an error about the cells of a numeric column that are not numbers, and how they are written."""
    bad = np.array([_not_a_number(cell) for cell in known])
    row = int(np.argmax(bad))
    complaint = "not a number"
    remedy = f"leave the column out, encode it, or pass labels={name!r} if it holds the classes"
    told = [str(value) for value in cells[bad][:SOME]] if bad.any() else [""]
    if isinstance(cells[row], Real):
        complaint, remedy = BEYOND, ANOTHER_UNIT
    elif written := notation(told):
        complaint, remedy = f"not a number but {written.name}", written.mend(name, told)
    elif row == 0 and len(cells) > 2 and bad.sum() == 1 and isinstance(cells[0], str):
        complaint = "not a number but a word above numbers"
        remedy = "if its row holds the units, load the frame of pandas.read_csv(..., skiprows=[1])"
    _refuse([(slice(None), cells[:, None])], lambda _: bad[:, None], [name], complaint, remedy)


def _not_a_number(value: Any) -> bool:
    try:
        if isinstance(value, Integral) and int(float(value)) != value:
            return True
        float(value)
    except (TypeError, ValueError, OverflowError):
        return value is not None
    return isinstance(value, np.datetime64 | np.timedelta64)  # whose float would be a number of days or seconds


def _beyond_floats(x: Any) -> Array:
    """Which are integers that float64 cannot represent."""
    values = np.asarray(x)
    beyond = ((values > MOST_EXACT) | (values < -MOST_EXACT)) & (values.dtype.kind in "iu")
    beyond[beyond] = [_not_a_number(value) for value in values[beyond].tolist()]
    return beyond


# -- the caller's choices ----------------------------------------------------------------------------------------------


def _wanted(names: Sequence[str], keep: Sequence[str] | None, drop: Sequence[str]) -> set[str]:
    chosen = [drop] if isinstance(drop, str) else list(drop)
    kept = None if keep is None else [keep] if isinstance(keep, str) else list(keep)
    for option, told in (("columns", kept or []), ("drop", chosen)):
        _known(option, told, names)
    wanted = {name for name in (names if kept is None else kept) if name not in chosen}
    if not wanted:
        raise DataError("no column is left: name some in columns=, or fewer in drop=")
    return wanted


def _known(option: str, told: Iterable[Any], names: Iterable[str]) -> None:
    names = [*names]
    for name in told:
        if name not in names:
            hint = did_you_mean(str(name), names, f"; there are {few(names)}")
            raise DataError(f"{option}: {name!r} is not a column{hint}")


def _checked_names(columns: Any, features: int) -> list[str]:
    try:
        names = [str(column) for column in columns]
    except TypeError:
        raise DataError(f"names={columns!r} are not names: give one for each column of x") from None
    if len(names) != features or len(set(names)) != features:
        raise DataError(f"{features} columns need {features} different names; given are {len(names)}: {few(names)}")
    return names


def _checked_sides(image_shape: Any) -> tuple[int, ...] | None:
    if image_shape is None:
        return None
    sides = np.asarray(image_shape)
    if sides.dtype.kind not in "iu" or sides.ndim != 1 or not np.all(sides > 0):
        raise DataError(f"image_shape={image_shape!r} must be positive whole numbers: (H, W) or (C, H, W)")
    return tuple(sides.tolist())


def _checked_shape(shape: tuple[int, ...] | None, features: int) -> tuple[int, ...] | None:
    if shape and (math.prod(shape) != features or len(shape) not in (2, 3)):
        raise DataError(f"image_shape={shape} must be (H, W) or (C, H, W) and multiply to {features} columns")
    return shape
