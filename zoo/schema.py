"""From a table as people have it to numbers, and what each of its columns is."""

from __future__ import annotations

import difflib
import math
import reprlib
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias, get_args

import numpy as np

from zoo.errors import DataError
from zoo.notation import NOTATIONS, notation
from zoo.supports import SUPPORTS, Column, ColumnSupport

if TYPE_CHECKING:
    import pandas

__all__ = ["OPPOSITES", "Raw", "Refused", "Table", "few", "numbered", "read_table", "schema_frame", "spellings"]

Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]

# Integers on an equally spaced grid pass for ordinal up to this many levels. A pixel has at most 256. In a
# table few levels are ratings or grades; beyond 32, integers are more likely counts or amounts.
IMAGE_LEVELS, TABLE_LEVELS, DECLARED_LEVELS = 256, 32, 65536
MOST_CATEGORIES = 100
SPREAD = 100  # how many times the smallest of positive numbers the largest is, where they are taken for such
ON_STEP = 1e-6  # of a declared step: how far from a multiple of it a value may be
PLACES = 6  # decimals that a recorded number has at most
SOME = 1000  # values that are looked at before all are
FEW_VALUES = 5  # beside a code, with less of which nothing is said about how far out it lies
COARSER = 16  # than the distance of two floats: a step that numbers are recorded in
ROUND = [digit * 10**power for power in range(16) for digit in (1, 2, 5, 25)]  # steps people record to
MOST_EXACT = 2**53  # up to which float64 holds every integer
CODES = (-9999.0, -999.0, -99.0, -9.0, -1.0, 99.0, 999.0, 9999.0, 99999.0)
FAR = 5  # interquartile ranges from the other values, from which on a code is no value
SHORT = reprlib.Repr()  # of a value in a message
SHORT.maxstring = SHORT.maxlong = 60
WORDS = {"yes": 1, "no": 0, "true": 1, "false": 0, "y": 1, "n": 0, "t": 1, "f": 0}
OPPOSITES = ({"yes", "no"}, {"true", "false"}, {"y", "n"}, {"t", "f"})
NUMBERING = {"id", "index", "row", "row_id", "rowid", "level_0", ""}  # names of columns that number the rows


class Table(NamedTuple):
    """Values (N, D), NaN where an entry was not observed, what the columns are, and what there is to say of them."""

    values: Array
    columns: tuple[Column, ...]
    image_shape: tuple[int, ...] | None
    notes: tuple[str, ...]


class Raw(NamedTuple):
    """One column as numbers: (N,) of them, the words they stand for if any, and whether in an order."""

    values: Array
    categories: tuple[str, ...] = ()
    ordered: bool = False
    single: bool = False  # whether it was in single precision
    reason: str = ""


@dataclass(frozen=True)
class Refused(Exception):
    """Why a column cannot be used."""

    why: str


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

    What a column is, unless ``support`` says so, is the first of these that holds for all that was observed. Of a table
    of numbers as a whole: ``binary``; ``ordinal``, integers on one equally spaced grid of at most 32 levels, 256 in
    images; ``count``. Then by column: ``binary``; ``ordinal``, as before, of values that repeat; ``count``, whole
    numbers from 0 up of which the smallest is at most a tenth of the largest; ``unit``, numbers from 0 to 1;
    ``positive``, numbers above 0 of which the largest is 100 times the smallest; ``real``. Text is ``categorical``,
    ordered categories are ``ordinal``, and yes and no, or true and false, are ``binary``.

    A number whose column has values that are all multiples of a decimal step, of six places at most, stands for
    the cell of that width around it; ``resolution=None`` takes numbers for points of the real line.

    Raises:
        DataError: no table, columns that no likelihood is a model of (all named at once), or values, by column and
            row, that are no numbers, infinite or outside a declared support.

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
            raise DataError(f"{option}={several!r}; give a list, which is for all columns")
        if (isinstance(several, str) and option == "missing_values") or not isinstance(several, Iterable):
            raise DataError(f"{option}={several!r}; give a list: {option}=[{several!r}]")
    words = {name for name, told in support.items() if told == "categorical"} if isinstance(support, Mapping) else set()
    raw, shape, notes = _columns(x, names, image_shape, missing_values, keep, drop, words)
    for option, named in (("support", support), ("resolution", resolution)):
        if isinstance(named, Mapping):
            _known(option, named, raw)
    values = np.stack([column.values for column in raw.values()], axis=1)
    remedy = "leave out its row or its column"
    _refuse(np.isinf(values), values, [*raw], "infinite", remedy)
    declared = {name: support if isinstance(support, str) else support.get(name, "auto") for name in raw}
    grid = None if levels is None else _checked_levels(levels)
    if grid and not {*declared.values()} <= {"auto", "ordinal"} and not isinstance(support, Mapping):
        raise DataError(f"levels belong to ordinal data, not to support={support!r}: leave one of them out")
    found = _together(values, raw, declared, grid, image=shape is not None)
    columns = []
    for name, column in raw.items():
        one = found.get(name) or _alone(name, column, declared[name], grid if declared[name] == "ordinal" else None)
        columns.append(one)
    if grid and not any(one.levels == grid for one in columns):
        raise DataError("levels= are those of ordinal columns, and no column is one: say support='ordinal' of some")
    for j, one in enumerate(columns):
        outside = np.zeros(values.shape, dtype=bool)
        outside[:, j] = one.outside(values[:, j])
        if outside.any():
            _refuse_outside(values, columns, one)
    recorded = tuple(_recorded(one, column, resolution) for one, column in zip(columns, raw.values(), strict=True))
    notes += _missing_notes(values, [*raw]) + _code_notes(raw) + _numbering_notes(raw)
    return Table(values, recorded, shape, tuple(notes))


def schema_frame(columns: Iterable[Column]) -> pandas.DataFrame:
    """What columns were taken for, as a table with one row a column."""
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
) -> tuple[dict[str, Raw], tuple[int, ...] | None, list[str]]:
    """The columns that are wanted, by name, as numbers; the shape of a row that is an image.

    In a table the columns named in ``words`` are categories, also if they are written as numbers.
    """
    if hasattr(x, "toarray"):
        raise DataError(f"x is sparse ({type(x).__name__}): pass x.toarray()")
    if np.ma.isMaskedArray(x):
        x = np.ma.filled(x.astype(np.float64), np.nan)
    if hasattr(x, "select_dtypes"):
        sides = _checked_sides(image_shape)
        given, series = _checked_names(x.columns if names is None else names, x.shape[1]), [*_series(x)]
        if x.shape[0] == 0 or x.shape[1] == 0:
            raise DataError(f"need (N, D), (N, H, W) or (N, C, H, W), none of them 0; the shape is {x.shape}")
        shape = _checked_shape(sides, x.shape[1])
    else:
        try:
            array = np.asarray(x)
        except (TypeError, ValueError, RuntimeError) as error:
            raise DataError(f"the rows of x do not make an array: {error}") from error
        if array.ndim not in (2, 3, 4) or array.size == 0:
            hint = "; x.reshape(-1, 1) makes one column" if array.ndim == 1 and array.size else ""
            raise DataError(f"need (N, D), (N, H, W) or (N, C, H, W), none of them 0; the shape is {array.shape}{hint}")
        sides = _checked_sides(image_shape) or (array.shape[1:] if array.ndim > 2 else None)
        array = array.reshape(len(array), -1)
        shape = _checked_shape(sides, array.shape[1])
        prefix = "pixel_" if shape else "x"
        counted = [prefix + "_".join(map(str, at)) for at in np.ndindex(shape or (array.shape[1],))]
        given, series = _checked_names(counted if names is None else names, array.shape[1]), [*array.T]
    wanted = _wanted(given, keep, drop)
    if len(wanted) < len(given) and shape:
        raise DataError("columns= and drop= would leave holes in the images: leave them out, or image_shape")
    chosen = {name: column for name, column in zip(given, series, strict=True) if name in wanted}
    numeric = all(getattr(column.dtype, "kind", "O") in "iufb" for column in chosen.values())
    if numeric and not hasattr(x, "select_dtypes") and not missing_values:  # at once: an image has many columns
        return _numeric(chosen), shape, []
    raw: dict[str, Raw] = {}
    refused: dict[str, str] = {}
    for name, column in chosen.items():
        try:
            in_words = name in words and hasattr(x, "select_dtypes")
            raw[name] = (_in_words if in_words else numbered)(name, column, missing_values)
        except Refused as reason:
            refused[name] = reason.why
    if refused:
        _refuse_columns(refused)
    return raw, shape, []


def _series(frame: Any) -> Iterable[Any]:
    return (frame.iloc[:, j] for j in range(frame.shape[1]))


def _numeric(columns: Mapping[str, Array]) -> dict[str, Raw]:
    """Columns of plain numbers."""
    for name, column in columns.items():
        if _beyond_floats(column):
            _refuse_cells(name, column.astype(object), column.astype(object))
    # with -0 made 0 so that equal values have equal bytes
    return {name: Raw(c.astype(np.float64) + 0.0, single=c.dtype == np.float32) for name, c in columns.items()}


def numbered(name: str, column: Any, missing_values: Sequence[Any]) -> Raw:
    """One column as numbers.

    Raises:
        Refused: no likelihood is a model of it.
        DataError: single values of it are no numbers.
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
        raise DataError("x is complex and no array of real numbers.")
    gone = series.isna().to_numpy()
    if len(missing_values):
        gone = gone | series.isin(spellings(missing_values)).to_numpy()
    if gone.all():
        raise Refused("has no entry that was observed")
    if pd.api.types.is_bool_dtype(series.dtype):
        values = np.where(gone, np.nan, series.where(~gone, False).astype(bool).to_numpy())
        return Raw(values.astype(np.float64), ("False", "True"), reason="true or false")
    if series.dtype.kind in "iuf":
        plain = series.where(~gone, series[~gone].iloc[0]).to_numpy(dtype=_plain(series.dtype))
        if _beyond_floats(plain):
            _refuse_cells(name, plain.astype(object), plain.astype(object))
        if _are_dates(plain):
            raise Refused("holds dates written as numbers; the days since a first date, say, can be used in its place")
        values = np.where(gone, np.nan, plain.astype(np.float64)) + 0.0
        return Raw(values, single=str(series.dtype).lower() == "float32")
    return _read_text(name, series.astype(object).to_numpy(), gone)


def _in_words(name: str, column: Any, missing_values: Sequence[Any]) -> Raw:
    """A column of categories, numbers among them by their value."""
    import pandas as pd

    series = pd.Series(column)
    if isinstance(series.dtype, pd.CategoricalDtype):
        return _coded(series, missing_values)
    gone = (series.isna() | series.isin(spellings(missing_values))).to_numpy()
    if gone.all():
        raise Refused("has no entry that was observed")
    known = series[~gone]
    whole = known.map(lambda cell: isinstance(cell, str | bool | np.bool_) or float(cell).is_integer())
    words = known.map(lambda cell: str(int(cell) if isinstance(cell, float) else cell).strip())
    different = sorted(
        words.unique(), key=lambda word: (0.0, float(word), word) if not _not_a_number(word) else (1.0, 0.0, word)
    )
    if not whole.all() or len(different) > MOST_CATEGORIES:
        raise DataError(
            f"column {name!r} is declared categorical: its values have to be text or whole numbers, and at most "
            f"{MOST_CATEGORIES} different ones"
        )
    values = np.full(len(series), np.nan)
    values[~gone] = words.map({word: code for code, word in enumerate(different)}).to_numpy(dtype=np.float64)
    return Raw(values, tuple(different))


def spellings(missing_values: Sequence[Any]) -> list[Any]:
    """What stands for an entry that was not observed, as it may be in a column of text or of numbers.

    >>> spellings([-999, "12"])
    [-999, '12', '-999', 12.0]
    """
    numbers = [float(value) for value in missing_values if isinstance(value, str) and not _not_a_number(value)]
    return [*missing_values, *(str(value) for value in missing_values if not isinstance(value, str)), *numbers]


def _are_dates(x: Array) -> bool:
    """Whether all are a year of this century or the last, a month and a day in one number: 20200117."""
    if len(x) < FEW_VALUES or not ((x >= 19000101) & (x <= 20991231)).all() or (x != np.rint(x)).any():
        return False
    month, day = (x // 100) % 100, x % 100
    return bool(((month >= 1) & (month <= 12) & (day >= 1) & (day <= 31)).all() and x.min() < x.max())


def _plain(dtype: Any) -> Any:
    """NumPy's type for one of pandas' own."""
    return getattr(dtype, "numpy_dtype", dtype)


def _coded(series: Any, missing_values: Sequence[Any]) -> Raw:
    """Pandas' categories, in its order."""
    told = series.cat.categories
    series = series.cat.remove_categories(told[told.isin(spellings(missing_values))])
    words = tuple(str(one) for one in series.cat.categories)
    if len(words) > MOST_CATEGORIES:
        raise Refused(f"has {len(words)} categories, and at most {MOST_CATEGORIES} are taken")
    code = series.cat.codes.to_numpy().astype(np.float64)
    gone = code < 0
    if gone.all():
        raise Refused("has no entry that was observed")
    kind = "ordered " if series.cat.ordered else ""
    return Raw(np.where(gone, np.nan, code), words, bool(series.cat.ordered), reason=f"{kind}categories")


def _read_text(name: str, cells: Array, gone: Array) -> Raw:
    """A column of objects: numbers among which some are not, yes and no, or words."""
    import pandas as pd

    known = cells[~gone]
    if all(isinstance(cell, bool | np.bool_) for cell in known):
        values = np.full(len(cells), np.nan)
        values[~gone] = known.astype(np.float64)
        return Raw(values, ("False", "True"), reason="true or false")
    if any(isinstance(cell, list | dict | set | tuple | np.ndarray) for cell in known[:SOME]):
        raise Refused("holds lists or other objects in its cells")
    # each different text is looked at once; a 1 and a True would be told for one
    as_text = pd.api.types.infer_dtype(known, skipna=False) == "string"
    at, told = pd.factorize(known) if as_text else (np.arange(len(known)), known)
    times = np.bincount(at)
    text = [cell.strip() if isinstance(cell, str) else cell for cell in told]

    def in_rows(values: Any) -> Array:
        """Of each row, from those of different cells; not a number where nothing was observed."""
        rows = np.full(len(cells), np.nan)
        rows[~gone] = np.array(values, dtype=np.float64)[at]
        return rows

    odd = np.array([_not_a_number(cell) for cell in text])
    if not odd.any():
        return Raw(in_rows([float(cell) for cell in text]) + 0.0)
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
        return Raw(
            in_rows([WORDS[word.lower()] for word in words]),
            (written_as.get(0, pair[0]), written_as.get(1, pair[1])),
            reason=f"{pair[1]} or {pair[0]}",
        )
    if len(different) == len(known) > 2:
        raise Refused(f"has another word in each of {len(known)} rows, as an identifier or free text has")
    if len(different) > MOST_CATEGORIES:
        raise Refused(f"has {len(different)} different words, and at most {MOST_CATEGORIES} are taken for categories")
    if 2 * len(different) > len(known) > 10:
        raise Refused(f"has {len(different)} different words in {len(known)} rows, too many to learn from each")
    number = {word: code for code, word in enumerate(different)}
    many = "one word" if len(different) == 1 else f"{len(different)} different words"
    reason = f"text, {many} in {len(known)} rows"
    return Raw(in_rows([number[word] for word in words]), tuple(different), reason=reason)


def _is_written_number(cell: str) -> bool:
    known = notation([cell])
    return known is not None and known is not NOTATIONS[0]


# -- what a column is --------------------------------------------------------------------------------------------------


class Rule(NamedTuple):
    """A support, whether observed values (N,) of a column of numbers are taken for it, and why, in words."""

    support: ColumnSupport
    holds: Callable[[Array], bool]
    why: str


def _whole(x: Array) -> bool:
    return bool(np.all(x == np.rint(x)))


def _repeats(x: Array) -> bool:
    grid = _integer_grid(x, TABLE_LEVELS)
    return grid is not None and 2 * len(np.unique(x)) <= len(x)


RULES = (
    Rule("binary", lambda x: bool(np.all((x == 0) | (x == 1))), "zeros and ones"),
    Rule("ordinal", _repeats, f"whole numbers on at most {TABLE_LEVELS} equally spaced levels"),
    Rule(
        "count",
        lambda x: _whole(x) and x.min() >= 0 and (10 * x.min() <= x.max() or x.min() == x.max()) and _step(x) <= 1,
        "whole numbers from 0 up",
    ),
    Rule("unit", lambda x: bool(x.min() >= 0 and x.max() <= 1 and x.min() < x.max()), "numbers from 0 to 1"),
    Rule(
        "positive",
        lambda x: bool(x.min() > 0 and x.max() >= SPREAD * x.min()),
        f"numbers above 0, the largest at least {SPREAD} times the smallest",
    ),
    Rule("real", lambda _: True, "numbers"),
)


def _together(
    values: Array, raw: Mapping[str, Raw], declared: Mapping[str, str], grid: tuple[float, ...] | None, *, image: bool
) -> dict[str, Column]:
    """What all columns are if they are one thing: a table of zeros and ones, or of levels on one grid; or nothing."""
    kinds = {*declared.values()}
    if any(column.categories for column in raw.values()) or (len(kinds) > 1 or kinds & {"categorical"}):
        return {}
    (kind,) = kinds
    if kind not in ("auto", "ordinal"):
        return {}
    observed = values[~np.isnan(values)]
    rules = {rule.support: rule for rule in RULES}
    binary = rules["binary"]
    if kind == "auto" and grid is None and binary.holds(observed):
        return {name: Column(name=name, support="binary", reason=binary.why) for name in raw}
    most = DECLARED_LEVELS if kind == "ordinal" else IMAGE_LEVELS if image else TABLE_LEVELS
    found = grid or _integer_grid(observed, most)
    if found:
        why = "levels that were named" if grid else f"whole numbers on {len(found)} levels that all columns share"
        return {name: Column(name=name, support="ordinal", levels=found, reason=why) for name in raw}
    if kind == "ordinal":
        outside = ~SUPPORTS["ordinal"].holds(values, Column(name="", support="ordinal")) & ~np.isnan(values)
        remedy = f'{SUPPORTS["ordinal"].remedy}; support="auto" infers what the values are'
        _refuse(outside, values, [*raw], "outside the support 'ordinal'", remedy)
        raise DataError(f"no grid of 2 to {DECLARED_LEVELS} levels holds these values; {remedy}")
    if not image and not rules["count"].holds(observed):
        return {}
    rule = next(rule for rule in RULES if rule.support not in ("binary", "ordinal") and rule.holds(observed))
    return {name: Column(name=name, support=rule.support, reason=rule.why) for name in raw}


def _alone(name: str, raw: Raw, declared: str, grid: tuple[float, ...] | None) -> Column:
    """What one column is."""
    observed = raw.values[~np.isnan(raw.values)]
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
                f"support={declared!r} of column {name!r}: it holds {few(raw.categories, 3)}, which are words; "
                "leave support out, or put numbers in their place"
            )
        if support == "ordinal" and not raw.ordered:
            raise DataError(
                f"support={declared!r} of column {name!r}: {few(raw.categories, 3)} are words in no order; give one "
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
        if not _whole(observed) or observed.min() < 0 or observed.max() >= MOST_CATEGORIES:
            raise DataError(
                f"column {name!r} is declared categorical: its values have to be text, or whole numbers from 0 to "
                f"{MOST_CATEGORIES - 1}"
            )
        words = tuple(str(k) for k in range(int(observed.max()) + 1))
        return Column(name=name, support="categorical", categories=words, reason="declared")
    return Column(name=name, support=support, reason="declared")


def _recorded(column: Column, raw: Raw, resolution: Any) -> Column:
    """The column with the width of the cell that its values stand for."""
    told = resolution.get(column.name, "auto") if isinstance(resolution, Mapping) else resolution
    if column.kind.discrete:
        width = column.levels[1] - column.levels[0] if column.levels else 1.0
        if isinstance(resolution, Mapping) and told not in ("auto", width):
            raise DataError(
                f"resolution={told!r} of column {column.name!r}: it is {column.support}, whose values are counted; "
                "say support='real' of it, or leave its resolution out"
            )
        return replace(column, resolution=width)
    if told is None:
        return column
    if told != "auto":
        if isinstance(told, bool) or not isinstance(told, Real) or not 0 < float(told) < math.inf:
            raise DataError(f"resolution={told!r} of column {column.name!r}: give a positive width, or None")
        off = np.abs(raw.values - told * np.rint(raw.values / told))
        apart = off > ON_STEP * told + np.spacing(np.abs(raw.values).astype(np.float32))
        if apart.any():
            row = int(apart.argmax())
            raise DataError(
                f"resolution={told!r} of column {column.name!r}: row {row} (counted from 0) holds {raw.values[row]:g}, "
                "which is no multiple of it, so that the cells of two values would overlap"
            )
        return replace(column, resolution=float(told))
    return replace(column, resolution=_decimal_step(raw.values[~np.isnan(raw.values)], single=raw.single))


def _decimal_step(x: Array, *, single: bool) -> float | None:
    """The coarsest round step, 1, 2, 5 or 25 times 10^n >= 10^-6, that all values are multiples of; or None."""
    largest = np.abs(x).max()
    if not largest < MOST_EXACT:
        return None
    exact = _step_of(x, largest, None)
    rounded = exact is None and (single or np.all(x[:SOME] == x[:SOME].astype(np.float32)))
    return _step_of(x, largest, np.float32) if rounded and (single or np.all(x == x.astype(np.float32))) else exact


def _step_of(x: Array, largest: float, kind: Any) -> float | None:
    """The same of numbers that are exact, or were rounded to a precision of their own."""
    spacing = float(np.spacing((kind or np.float64)(largest)))
    for places in range(PLACES + 1):
        scale = 10.0**places
        if COARSER * spacing > 1 / scale or largest * scale > MOST_EXACT:
            return None
        if not _multiples(x[:SOME], scale, kind) or not _multiples(x, scale, kind):
            continue
        if x.min() == x.max():  # one value tells its decimals and no step
            return 1 / scale
        common = int(np.gcd.reduce(np.abs(np.rint(x * scale)).astype(np.int64)))
        return max((step for step in ROUND if common and common % step == 0), default=1) / scale
    return None


def _multiples(x: Array, scale: float, kind: Any) -> bool:
    """Whether all values are whole multiples of 1 / scale, as their precision writes them."""
    written = np.rint(x * scale) / scale
    return bool(np.all(written == x) if kind is None else np.all(written.astype(kind) == x.astype(kind)))


def _step(x: Array) -> int:
    """The greatest common divisor of whole numbers; 1 where they are too large to say."""
    return int(np.gcd.reduce(x.astype(np.int64))) or 1 if np.abs(x).max() <= MOST_EXACT and x.max() > x.min() else 1


def _checked_levels(levels: Sequence[float]) -> tuple[float, ...]:
    array = np.asarray(levels)
    steps = np.diff(array.astype(np.float64)) if array.ndim == 1 and array.dtype.kind in "iuf" else np.empty(0)
    if not len(steps) or not steps[0] > 0 or not np.allclose(steps, steps[0], rtol=1e-6, atol=0):
        raise DataError(f"levels={levels!r} must be two or more increasing, equally spaced numbers: levels=range(17)")
    return tuple(array.astype(np.float64).tolist())


def _integer_grid(x: Array, most: int) -> tuple[float, ...] | None:
    """The coarsest grid of equally spaced integers that holds all values, if it has 2 to ``most`` levels."""
    # all parts count: the levels are the sample space, which is given and not estimated
    low, high = float(x.min()), float(x.max())
    if np.any(x != np.rint(x)) or max(-low, high) > MOST_EXACT:
        return None
    step = int(np.gcd.reduce((x - low).astype(np.int64), axis=None))
    return tuple(np.arange(low, high + 1, step).tolist()) if 0 < high - low < most * step else None


# -- what is said of it ------------------------------------------------------------------------------------------------


def few(names: Sequence[str], most: int = 8) -> str:
    """The first names, and how many more there are."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def _missing_notes(values: Array, names: Sequence[str]) -> list[str]:
    gone = np.isnan(values)
    if not gone.any():
        return []
    share, where = gone.mean(), np.array(names)[gone.any(axis=0)].tolist()
    return [
        f"{gone.sum()} of {gone.size} entries ({100 * share:.2g} %) were not observed, in {few(where)}: scores are of "
        "those that were."
    ]


def _code_notes(raw: Mapping[str, Raw]) -> list[str]:
    """Values that look like codes for missing ones: they repeat, and lie far outside the rest."""
    found: dict[float, list[str]] = {}
    for name, column in raw.items():
        if column.categories:
            continue
        observed = column.values[~np.isnan(column.values)]
        for code in CODES:
            rest = observed[observed != code]
            if len(observed) - len(rest) < 2 or len(rest) < FEW_VALUES or not (code < rest.min() or code > rest.max()):
                continue
            low, high = np.quantile(rest, [0.25, 0.75])
            reach = FAR * max(high - low, (rest.max() - rest.min()) / FAR)
            if not low - reach <= code <= high + reach:
                found.setdefault(code, []).append(name)
    return [
        f"{code:g} in {few(names)} lies far from all other values, and may stand for a missing one: "
        f"missing_values=[{code:g}] (--missing {code:g}) takes it for that."
        for code, names in found.items()
    ]


def _numbering_notes(raw: Mapping[str, Raw]) -> list[str]:
    numbering = [
        name
        for name, column in raw.items()
        if (name.lower() in NUMBERING or name.startswith("Unnamed:")) and _counts_rows(column.values)
    ]
    if not numbering:
        return []
    verb = "numbers the rows" if len(numbering) == 1 else "number the rows"
    return [f"{few(numbering)} {verb}, which says nothing about them: drop={numbering!r} leaves that out."]


def _counts_rows(x: Array) -> bool:
    return len(x) > 2 and bool(np.all(np.diff(np.sort(x)) == 1))


def _refuse_columns(refused: Mapping[str, str]) -> None:
    """Name every column that cannot be used, with what leaves them out."""
    told = "; ".join(f"column {name!r} {why}" for name, why in refused.items())
    flags = " ".join(f"--drop {name!r}" if " " in name else f"--drop {name}" for name in refused)
    them = "it" if len(refused) == 1 else "them"
    raise DataError(f"{told}. Leave {them} out with drop={[*refused]!r} ({flags}); labels= takes a column of classes")


def _refuse(bad: Array, values: Array, columns: Sequence[str], complaint: str, remedy: str) -> None:
    """Name the first of the bad entries (N, D), if there are any, in the order of the rows."""
    if bad.any():
        row, j = divmod(int(np.argmax(bad)), len(columns))
        value = values[row, j] if values.dtype.kind in "mM" else values[row].tolist()[j]
        found = f"{SHORT.repr(value)} is {complaint}"
        where = few(np.array(columns)[bad.any(axis=0)].tolist())
        more = f" ({bad.sum()} such values, in {where})" if bad.sum() > 1 else ""
        raise DataError(f"column {columns[j]!r}, row {row} (counted from 0): {found}{more}; {remedy}")


def _refuse_outside(values: Array, columns: Sequence[Column], first: Column) -> None:
    """Name the first value outside the support that was declared for its column and others."""
    same = [column.support == first.support for column in columns]
    bad = np.stack([column.outside(values[:, j]) & same[j] for j, column in enumerate(columns)], axis=1)
    remedy = f'{first.kind.remedy}; support="auto" infers what the values are'
    _refuse(bad, values, [column.name for column in columns], f"outside the support {first.support!r}", remedy)


def _refuse_cells(name: str, cells: Array, known: Array) -> None:
    """Name the cells of a column of numbers that are none, and how they are written."""
    bad = np.array([_not_a_number(cell) for cell in known])
    row = int(np.argmax(bad))
    complaint = "not a number"
    remedy = f"leave the column out, encode it, or, if it holds the classes, say labels={name!r}"
    told = [str(value) for value in cells[bad][:SOME]] if bad.any() else [""]
    if isinstance(cells[row], Real):
        complaint = "beyond what float64 holds exactly"
        remedy = "use another unit, or leave the column out if it numbers the rows"
    elif written := notation(told):
        complaint, remedy = f"not a number but {written.name}", written.mend(name, told)
    elif row == 0 and len(cells) > 2 and bad.sum() == 1 and isinstance(cells[0], str):
        complaint = "not a number but a word above numbers"
        remedy = "if its row holds the units, load the frame of pandas.read_csv(..., skiprows=[1])"
    _refuse(bad[:, None], cells[:, None], [name], complaint, remedy)


def _not_a_number(value: Any) -> bool:
    try:
        if isinstance(value, Integral) and int(float(value)) != value:
            return True
        float(value)
    except (TypeError, ValueError, OverflowError):
        return value is not None
    return isinstance(value, np.datetime64 | np.timedelta64)  # whose float is a number of days or seconds


def _beyond_floats(x: Any) -> bool:
    """Whether there are integers among which float64 has gaps."""
    values = np.asarray(x)
    return values.dtype.kind in "iu" and bool(np.any((values > MOST_EXACT) | (values < -MOST_EXACT)))


# -- what was asked for ------------------------------------------------------------------------------------------------


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
            near = difflib.get_close_matches(str(name), names, cutoff=0.5)
            hint = f"; nearest: {', '.join(map(repr, near))}" if near else f"; there are {few(names)}"
            raise DataError(f"{option}: {name!r} is not a column{hint}")


def _checked_names(columns: Any, features: int) -> list[str]:
    try:
        names = [str(column) for column in columns]
    except TypeError:
        raise DataError(f"names={columns!r} are no names: give one for each column of x") from None
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
