"""A table as an xarray array whose values are read on demand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray
from xarray.backends import BackendArray
from xarray.core import indexing

from zoo.tables import BLOCK, InFile, Rows, large

__all__ = ["Lazy", "bytes_held", "data_array"]


class Lazy(BackendArray):
    """Rows (N, D) that xarray indexes."""

    def __init__(self, rows: Rows) -> None:
        self.rows = rows
        self.shape, self.dtype = rows.shape, np.dtype(np.float64)

    def __getitem__(self, key: indexing.ExplicitIndexer) -> Any:
        if not isinstance(key, indexing.VectorizedIndexer):
            return self._read(key.tuple)
        # single entries, not rows and columns, whose rows xarray would sort first
        return indexing.explicit_indexing_adapter(key, self.shape, indexing.IndexingSupport.OUTER, self._read)

    def _read(self, key: tuple[Any, ...]) -> Any:
        of_rows, of_columns = key
        if isinstance(of_rows, int | np.integer):
            return self.rows[np.array([of_rows])][0, of_columns]
        return self.rows[of_rows][:, of_columns]


def data_array(rows: Rows, dims: Sequence[str], coords: Mapping[str, Any], name: str) -> xarray.DataArray:
    """The table as an array in memory or, if it is large, as one whose values are read on demand."""
    if not large(rows.shape):
        return xarray.DataArray(rows[:], coords, dims, name)
    return xarray.DataArray(xarray.Variable(dims, indexing.LazilyIndexedArray(Lazy(rows))), coords, name=name)


def bytes_held(part: xarray.DataArray) -> int:
    """How much memory a part (N, D) takes: all of its values, or of rows in a file as many as are read at once."""
    held: Any = part.variable._data
    while not isinstance(held, Lazy) and hasattr(held, "array"):  # wrapped by xarray
        held = held.array
    in_file = isinstance(held, Lazy) and isinstance(held.rows.source, InFile)
    return min(int(part.nbytes), BLOCK * part.dtype.itemsize) if in_file else int(part.nbytes)
