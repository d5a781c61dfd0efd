"""A new table, converted by the columns a pair was trained on: to numbers, and back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from zoo.errors import DataError
from zoo.schema import OPPOSITES, Numbered, Refused, numbered, spellings
from zoo.supports import Column
from zoo.words import did_you_mean, few

if TYPE_CHECKING:
    import pandas

__all__ = ["coded", "filled"]

Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]


def coded(columns: Sequence[Column], frame: Any, missing_values: Sequence[Any] = ()) -> Array:
    """A data frame as numbers (N, D), NaN for missing entries; other columns are left out.

    Raises:
        DataError: missing columns, all named at once, or cells that are not a value of their column.

    >>> import pandas as pd
    >>> city = Column(name="city", support="categorical", categories=("Bonn", "Rome"))
    >>> coded([city], pd.DataFrame({"city": ["Rome", None], "day": [1, 2]})).tolist()
    [[1.0], [nan]]
    """
    frame = frame.rename(columns=str)
    if absent := [column.name for column in columns if column.name not in frame]:
        hint = did_you_mean(absent[0], frame.columns)
        raise DataError(
            f"there is no column {few([repr(name) for name in absent])}, which the pair was trained on{hint}"
        )
    if twice := [column.name for column in columns if frame[column.name].ndim > 1]:
        raise DataError(f"there is more than one column {few([repr(name) for name in twice])}")
    return np.stack([_coded(column, frame[column.name], missing_values) for column in columns], axis=1)


def _coded(column: Column, series: Any, missing_values: Sequence[Any]) -> Array:
    gone = (series.isna() | series.isin(spellings(missing_values))).to_numpy()
    values = np.full(len(series), np.nan)
    if gone.all():
        return values
    if column.categories:
        values[~gone] = [_number_of(cell, column.categories, column.name, row) for row, cell in _cells(series, ~gone)]
        return values
    try:
        raw = numbered(column.name, series, missing_values)
    except Refused as reason:
        raise DataError(f"column {column.name!r} {reason.why}, and the pair was trained on numbers there") from None
    except DataError as error:  # its remedies are for a table before training
        found = str(error).partition("; ")[0]
        raise DataError(f"{found}; write a number there, or leave it empty to fill it in") from None
    if _holds_words(raw):
        held = few([repr(word) for word in raw.categories], 3)
        raise DataError(f"column {column.name!r} holds {held}, and the pair was trained on numbers there")
    return raw.values


def _cells(series: Any, at: Array) -> zip[tuple[int, Any]]:
    return zip(np.flatnonzero(at).tolist(), series[at].tolist(), strict=True)


def _number_of(cell: Any, categories: Sequence[str], name: str, row: int) -> int:
    """The number of a category, as the user wrote it; yes and no in any case."""
    word = str(int(cell) if isinstance(cell, float) and cell.is_integer() else cell).strip()
    known = [*categories]
    if {one.lower() for one in known} in OPPOSITES:
        known, word = [one.lower() for one in known], word.lower()
    if word not in known:
        raise DataError(
            f"x holds {cell!r} in row {row} (counted from 0), column {name!r}, which is not among those the pair was "
            f"trained on: {few([repr(one) for one in categories])}; write one of those, or leave it empty to fill it in"
        )
    return known.index(word)


def _holds_words(raw: Numbered) -> bool:
    return bool(raw.categories) and raw.reason != "true or false"


def filled(columns: Sequence[Column], frame: Any, values: Array, gaps: Array, decimal: str = ".") -> pandas.DataFrame:
    """The frame with values (N, D) in its gaps (N, D), and everything else unchanged.

    Categories are written as in the frame, numbers in a column of text as text.

    >>> import pandas as pd
    >>> city = Column(name="city", support="categorical", categories=("Bonn", "Rome"))
    >>> filled([city], pd.DataFrame({"city": ["Rome", None]}), np.zeros((2, 1)), np.array([[False], [True]]))
       city
    0  Rome
    1  Bonn
    """
    whole = frame.rename(columns=str)
    for j, column in enumerate(columns):
        if gaps[:, j].any():
            whole[column.name] = _filled(column, whole[column.name], values[gaps[:, j], j], gaps[:, j], decimal)
    return whole.set_axis(frame.columns, axis=1)  # type: ignore[no-any-return]


def _filled(column: Column, series: Any, values: Array, at: Array, decimal: str) -> Any:
    import pandas as pd

    kept = series[~at]
    text = not len(kept) or any(isinstance(cell, str) for cell in kept)
    new: list[Any] = values.tolist()
    if column.categories:
        same = str.lower if {word.lower() for word in column.categories} in OPPOSITES else str  # TRUE equals True
        as_written = {same(str(cell).strip()): cell for cell in kept.unique()}
        new = [as_written.get(same(word), word) for word in map(column.written, new)]
    elif text and not pd.api.types.is_numeric_dtype(series.dtype):
        new = [column.written(value).replace(".", decimal) for value in new]
    elif column.resolution is not None:  # written as a decimal, such as a multiple of .001
        new = [float(column.written(value)) for value in new]
    if isinstance(series.dtype, pd.CategoricalDtype):
        more = [word for word in dict.fromkeys(new) if word not in series.cat.categories]
        series = series.cat.add_categories(more)
    whole = series.astype(object)
    whole[at] = new
    if pd.api.types.is_integer_dtype(series.dtype) and not all(float(value).is_integer() for value in new):
        return whole.infer_objects()
    try:
        return whole.astype(series.dtype)
    except (TypeError, ValueError):  # words in an empty column
        return whole.infer_objects()
