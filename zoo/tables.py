"""Tables of numbers, in memory or in a file, whose rows are read as they are asked for."""

from __future__ import annotations

import math
import mmap
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Protocol, TypeAlias, cast

import numpy as np

from zoo.errors import DataError

if TYPE_CHECKING:
    import xarray

__all__ = ["LARGE", "Mapped", "Rows", "Source", "data_array", "large", "row_keys", "some_rows", "unpacked"]

Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]

LARGE = 2**22  # numbers: a table of more stays where it is, and is read by rows
BLOCK = 2**22  # numbers that are read at once
SCATTERED = 1024  # rows of one mapping: a page fault maps 64 KiB of a cached file, whatever a row takes


class Source(Protocol):
    """An array (N, ...) of plain numbers that gives some of its rows."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(N, ...)."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of its numbers."""

    def __getitem__(self, rows: Any, /) -> Any:
        """The rows of a slice, or of an array of their numbers."""


@dataclass(frozen=True, eq=False)
class Mapped:
    """An array (N, ...) in a file, row after row from an offset on.

    Each piece is mapped anew: what was mapped counts as resident for as long as the mapping lives, and a table that is
    larger than memory would come to fill it.
    """

    file: Path | IO[bytes]
    offset: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    def __getitem__(self, rows: slice | Array) -> Array:
        if isinstance(rows, slice):
            return self._mapped(mmap.MADV_SEQUENTIAL)[rows].copy()
        found = np.empty((len(rows), *self.shape[1:]), self.dtype)
        for at in range(0, len(rows), SCATTERED):
            piece = rows[at : at + SCATTERED]
            self._mapped(mmap.MADV_RANDOM).take(piece, axis=0, out=found[at : at + SCATTERED], mode="clip")
        return found

    def _mapped(self, order: int) -> Array:
        if isinstance(self.file, Path):
            with self.file.open("rb") as file:
                mapping = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        else:
            mapping = mmap.mmap(self.file.fileno(), 0, access=mmap.ACCESS_READ)
        mapping.madvise(order)
        return np.ndarray(self.shape, self.dtype, mapping, self.offset)


@dataclass(frozen=True, eq=False)
class Rows:
    """A table (N, D) of float64, entries that were not observed NaN, of which any rows can be had.

    Args:
        source: an array (N, ...) of plain numbers, in memory or in a file, whose rows are flattened.
        index: which of its rows, in order; None for all.
        columns: which numbers of a row, in order; None for all.
        changes: what is made of values (n, D), one after another.

    >>> table = Rows(np.array([[1, 2], [3, 4], [5, 6]]), index=np.array([0, 2]))
    >>> table[np.array([1])].tolist(), table[:].shape
    ([[5.0, 6.0]], (2, 2))
    """

    source: Source
    index: Array | None = None
    columns: Array | None = None
    changes: tuple[Callable[[Array], Array], ...] = ()

    def __len__(self) -> int:
        return self.source.shape[0] if self.index is None else len(self.index)

    @property
    def shape(self) -> tuple[int, int]:
        """(N, D)."""
        features = math.prod(self.source.shape[1:]) if self.columns is None else len(self.columns)
        return len(self), features

    def given(self, rows: slice | Array) -> Array:
        """Rows (n, D) as they are in the source."""
        given = self.source[rows if self.index is None else self.index[rows]]
        given = given.reshape(len(given), math.prod(self.source.shape[1:]))
        return cast(Array, given if self.columns is None else given[:, self.columns])

    def __getitem__(self, rows: slice | Array) -> Array:
        values = self.given(rows).astype(np.float64)
        values += 0.0  # which makes -0 to 0, so that equal values have equal bytes
        for change in self.changes:
            values = change(values)
        return cast(Array, values)

    def take(self, rows: Array) -> Rows:
        """Some of its rows."""
        return replace(self, index=rows if self.index is None else self.index[rows])

    def select(self, columns: Array) -> Rows:
        """Some of its columns."""
        return replace(self, columns=columns if self.columns is None else self.columns[columns])

    def changed(self, change: Callable[[Array], Array]) -> Rows:
        """The table with something made of its values (n, D)."""
        return replace(self, changes=(*self.changes, change))

    def pieces(self) -> Iterator[slice]:
        """All rows in order, as many as are read at once."""
        n, d = self.shape
        size = max(1, BLOCK // max(d, 1))
        return (slice(start, min(start + size, n)) for start in range(0, n, size))

    def blocks(self) -> Iterator[tuple[slice, Array]]:
        """All rows in order, some at a time: where they are, and their values (n, D)."""
        return ((at, self[at]) for at in self.pieces())

    def spread(self, most: int) -> Array:
        """Evenly spaced rows, at least so many if there are, and fewer than twice that; of wide ones fewer."""
        wide = math.prod(self.source.shape[1:])
        return self[:: max(1, len(self) // most, -(-len(self) * wide // LARGE))]


def large(shape: Sequence[int]) -> bool:
    """Whether a table (N, D) is left where it is."""
    return math.prod(shape) > LARGE


def data_array(rows: Rows, **described: Any) -> xarray.DataArray:
    """An ``xarray.DataArray`` of a table; of a large one, its values are read as they are asked for."""
    import xarray

    if not large(rows.shape):
        return xarray.DataArray(rows[:], **described)
    from xarray.backends import BackendArray
    from xarray.core import indexing

    class Lazy(BackendArray):
        shape, dtype = rows.shape, np.dtype(np.float64)

        def __getitem__(self, key: Any) -> Any:
            support = indexing.IndexingSupport.OUTER
            return indexing.explicit_indexing_adapter(key, self.shape, support, self._read)

        def _read(self, key: tuple[Any, Any]) -> Any:
            of_rows, of_columns = key
            if isinstance(of_rows, int | np.integer):
                return rows[np.array([of_rows])][0, of_columns]
            return rows[of_rows][:, of_columns]

    return xarray.DataArray(xarray.Variable(described.pop("dims"), indexing.LazilyIndexedArray(Lazy())), **described)


def some_rows(part: xarray.DataArray, most: int = LARGE, seed: int = 0) -> xarray.DataArray:
    """A part of a data set, (N, D), or rows of it drawn by a seed, in order, if it holds more numbers than so many."""
    keep = max(1, most // part.shape[1])
    if len(part) <= keep:
        return part
    return part.isel(obs=np.sort(np.random.default_rng(seed).choice(len(part), keep, replace=False, shuffle=False)))


def row_keys(x: Array, salt: int = 0) -> Array:
    """A number for each row of x (n, D), the same for equal rows; the sum of one for each value."""
    odd = odd_numbers(x.shape[1], salt)
    return np.concatenate([hashed(x[at : at + CHUNK], odd).sum(axis=1) for at in range(0, len(x), CHUNK)])


CHUNK = 4096  # rows hashed at once


def odd_numbers(d: int, salt: int = 0) -> Array:
    """A number for each column, (D,), to hash its values with."""
    return np.random.default_rng(salt).integers(2**62, size=d, dtype=np.uint64) * np.uint64(2) + np.uint64(1)


def hashed(x: Array, odd: Array) -> Array:
    """A pseudorandom number for each value of x (n, D), which depends on the column."""
    bits = np.ascontiguousarray(x).view(np.uint64)
    bits = (bits ^ (bits >> np.uint64(32))) * odd
    return bits ^ (bits >> np.uint64(32))


def unpacked(blocks: Iterable[Array], shape: tuple[int, ...], dtype: np.dtype[Any], path: Path) -> Mapped:
    """What a packed file holds, row after row in a file without a name, which is gone with the process.

    It lies in the folder of the packed one, where there is room for data of that size, or in that for temporary files.

    Raises:
        DataError: there is not enough room.
    """
    needed = math.prod(shape) * dtype.itemsize
    folders = [path.parent, Path(tempfile.gettempdir())]
    for folder in folders:
        if os.access(folder, os.W_OK) and _room(folder) > needed:
            break
    else:
        raise DataError(
            f"its rows are packed, and unpacked they take {needed:,} bytes on disk, for which neither {folders[0]} nor "
            f"{folders[1]} (TMPDIR) has room: save the table as .npy, whose rows are read where they are"
        )
    file = cast(IO[bytes], tempfile.TemporaryFile(dir=folder))  # noqa: SIM115 (closed with the table)
    for block in blocks:
        np.ascontiguousarray(block, dtype).tofile(file)
    file.flush()
    return Mapped(file, 0, shape, dtype)


def _room(folder: Path) -> int:
    found = os.statvfs(folder)
    return found.f_bavail * found.f_frsize
