"""Tables of numbers, in memory or in a file, whose rows are read on demand."""

from __future__ import annotations

import math
import os
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any, Protocol, TypeAlias, cast

import numpy as np

from zoo.errors import DataError

__all__ = [
    "InFile",
    "Rows",
    "Source",
    "hashed",
    "large",
    "looked_at",
    "odd_numbers",
    "row_keys",
    "rows_at_once",
    "unpacked",
]

Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]

LARGE = 2**22  # numbers: a larger table is read by rows, in place
BLOCK = 2**22  # numbers read at once
SPAN, WORTH = 2**22, 2**13  # most bytes read for close rows; bytes that take as long to read as one more request


class Source(Protocol):
    """An array (N, ...) of plain numbers that gives some of its rows."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(N, ...)."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type of its numbers."""

    def __getitem__(self, rows: Any, /) -> Any:
        """The rows of a slice, or of an array of their numbers."""


@dataclass(frozen=True, eq=False)
class InFile:
    """An array (N, ...) in a file, stored by rows from an offset on.

    It is read, not mapped: mapped pages count as resident, and the kernel maps up to megabytes around each. Reading
    scattered rows one by one is also faster than mapping them.
    """

    file: Path | IO[bytes]
    offset: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    def __getitem__(self, rows: slice | Array) -> Array:
        if isinstance(rows, slice):
            start, stop, step = rows.indices(self.shape[0])
            if step != 1:
                return self[np.arange(start, stop, step)]
            found = np.empty((max(stop - start, 0), *self.shape[1:]), self.dtype)
            with self._opened() as file:
                self._fill(found, start, file)
            return found
        found = np.empty((len(rows), *self.shape[1:]), self.dtype)
        size = self.dtype.itemsize * math.prod(self.shape[1:])
        with self._opened() as file:
            for at in range(0, len(rows), piece := max(1, SPAN // (size + WORTH))):
                self._gather(found[at : at + piece], rows[at : at + piece], size, file)
        return found

    def _gather(self, found: Array, rows: Array, size: int, file: int) -> None:
        """Scattered rows one by one, close ones together with the bytes between them."""
        first, last = int(rows.min()), int(rows.max())
        if (last - first + 1) * size <= len(rows) * (size + WORTH):
            span = np.empty((last - first + 1, *self.shape[1:]), self.dtype)
            self._fill(span, first, file)
            span.take(rows - first, axis=0, out=found, mode="clip")
            return
        view = _bytes(found)
        for at, row in zip(range(0, len(view), size), rows.tolist(), strict=True):
            if _read_at(file, view[at : at + size], self.offset + row * size) < size:
                raise DataError(f"{self.file} ends before row {row}: it has been cut short")

    def _fill(self, found: Array, row: int, file: int) -> None:
        """Read consecutive rows, starting at one, into an array."""
        size = self.dtype.itemsize * math.prod(self.shape[1:])
        left, at = _bytes(found), self.offset + row * size
        while len(left):
            taken = _read_at(file, left, at)
            if not taken:
                raise DataError(f"{self.file} ends before row {row + len(found) - 1}: it has been cut short")
            left, at = left[taken:], at + taken

    @contextmanager
    def _opened(self) -> Iterator[int]:
        if isinstance(self.file, Path):
            with self.file.open("rb", buffering=0) as file:
                yield file.fileno()
        else:
            yield self.file.fileno()


def _read_at(file: int, into: memoryview, at: int) -> int:
    """Read from a position in a file that threads may share, and return the number of bytes."""
    if hasattr(os, "preadv"):
        return os.preadv(file, [into], at)
    with _MOVING:  # Windows reads only at the current position
        os.lseek(file, at, os.SEEK_SET)
        found = os.read(file, len(into))
    into[: len(found)] = found
    return len(found)


_MOVING = threading.Lock()


def _bytes(x: Array) -> memoryview:
    """The bytes of an array, for writing to."""
    return x.reshape(-1).view(np.uint8).data if x.size else memoryview(b"")


@dataclass(frozen=True, eq=False)
class Rows:
    """A table (N, D) of float64, NaN for missing entries, any rows of which can be read.

    Args:
        source: an array (N, ...) of plain numbers, in memory or in a file; its rows are flattened.
        index: which of its rows, in order; None for all.
        columns: which numbers of a row, in order; None for all.
        changes: functions applied to values (n, D), one after another.

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
        """Rows (n, D) as stored in the source."""
        given = self.source[rows if self.index is None else self.index[rows]]
        given = given.reshape(len(given), math.prod(self.source.shape[1:]))
        return cast(Array, given if self.columns is None else given[:, self.columns])

    def __getitem__(self, rows: slice | Array) -> Array:
        values = self.given(rows).astype(np.float64)
        values += 0.0  # turns -0 into 0, so that equal values have equal bytes
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
        """The table with a function applied to its values (n, D)."""
        return replace(self, changes=(*self.changes, change))

    def pieces(self) -> Iterator[slice]:
        """All rows in order, in pieces that are read at once."""
        n, size = len(self), rows_at_once(self.shape[1])
        return (slice(start, min(start + size, n)) for start in range(0, n, size))

    def blocks(self) -> Iterator[tuple[slice, Array]]:
        """All rows in order, some at a time: their place, and their values (n, D)."""
        return ((at, self[at]) for at in self.pieces())

    def spread(self, most: int) -> Array:
        """Evenly spaced rows, at least this many if possible, and fewer than twice that; fewer if rows are wide."""
        wide = math.prod(self.source.shape[1:])
        return self[:: max(1, len(self) // most, -(-len(self) * wide // LARGE))]


def rows_at_once(features: int) -> int:
    """How many rows of a given width are read together."""
    return max(1, BLOCK // max(features, 1))


def large(shape: Sequence[int]) -> bool:
    """Whether a table (N, D) is read in place."""
    return math.prod(shape) > LARGE


def looked_at(shape: Sequence[int]) -> int:
    """How many rows of a table (N, D) serve as a sample where not all are examined."""
    return max(1, LARGE // shape[1]) if large(shape) else shape[0]


def row_keys(x: Array, salt: int = 0) -> Array:
    """A number for each row of x (n, D), the same for equal rows: the sum of one number per value."""
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


def unpacked(blocks: Iterable[Array], shape: tuple[int, ...], dtype: np.dtype[Any], path: Path) -> InFile:
    """The contents of a packed file, stored by rows in an unnamed file that disappears with the process.

    It is created in the folder of the packed file, if that has room, or in the folder for temporary files.

    Raises:
        DataError: there is not enough room.
    """
    needed = math.prod(shape) * dtype.itemsize
    folders = (path.resolve().parent, Path(tempfile.gettempdir()))
    folder = next((one for one in folders if os.access(one, os.W_OK) and _room(one) > needed), None)
    if folder is None:
        raise DataError(
            f"its rows are packed and take {needed:,} bytes on disk when unpacked, for which neither {folders[0]} nor "
            f"{folders[1]} (TMPDIR) has room: make room, or save the table as .npy, whose rows are read in place"
        )
    file = cast(IO[bytes], tempfile.TemporaryFile(dir=folder))  # noqa: SIM115 (closed with the table)
    for block in blocks:
        file.write(_bytes(np.ascontiguousarray(block, dtype)))
    file.flush()
    return InFile(file, 0, shape, dtype)


def _room(folder: Path) -> int:
    return shutil.disk_usage(folder).free
