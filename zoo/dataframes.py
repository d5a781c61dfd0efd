"""Data frames of any library, such as polars, converted to pandas and back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas

__all__ = ["as_pandas", "is_frame", "row_names", "same_kind"]


def is_frame(x: Any) -> bool:
    """Whether x is a data frame, of pandas or another library, rather than an array."""
    return _is_pandas(x) or _other(x) is not None


def as_pandas(x: Any) -> Any:
    """A data frame of another library as a pandas frame; anything else is returned as is.

    >>> import polars
    >>> as_pandas(polars.DataFrame({"city": ["Rome", None], "day": [1, 2]}))["day"].tolist()
    [1, 2]
    """
    frame = None if _is_pandas(x) else _other(x)
    if frame is None:
        return x
    import pandas as pd

    columns = frame.iter_columns()
    return pd.DataFrame({one.name: one.to_numpy() if one.dtype.is_numeric() else one.to_list() for one in columns})


def same_kind(frame: pandas.DataFrame, x: Any) -> Any:
    """A pandas frame converted to the library of the data frame x; unchanged if x is a pandas frame or an array.

    >>> import pandas as pd, polars
    >>> type(same_kind(pd.DataFrame({"z0": [0.5]}), polars.DataFrame())).__module__.partition(".")[0]
    'polars'
    """
    other = None if _is_pandas(x) else _other(x)
    if other is None:
        return frame
    import narwhals
    from pandas.api.types import is_numeric_dtype

    values = {
        name: column.to_numpy()
        if is_numeric_dtype(column.dtype)
        else [*column.astype(object).where(column.notna(), None)]
        for name, column in frame.items()
    }
    return narwhals.from_dict(values, backend=other.implementation).to_native()


def row_names(x: Any) -> Any:
    """The index of a pandas frame; None, which stands for row numbers, for anything else."""
    return x.index if _is_pandas(x) else None


def _is_pandas(x: Any) -> bool:
    return hasattr(x, "select_dtypes")


def _other(x: Any) -> Any:
    """A narwhals frame of a data frame that is not of pandas; None if x is not a frame."""
    if not hasattr(type(x), "columns"):  # a lazy frame would compute them
        return None
    import narwhals

    frame = narwhals.from_native(x, eager_only=True, pass_through=True)
    return frame if isinstance(frame, narwhals.DataFrame) else None
