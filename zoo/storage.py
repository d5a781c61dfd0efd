"""Files and directories that are written whole or not at all, by one process at a time, and read within limits."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from zoo.errors import DataError, RunError

if TYPE_CHECKING:
    import xarray

__all__ = ["check_promise", "digest", "locked", "read_tree", "write_directory", "write_file"]

DEFLATED = 1032  # the most that zlib packs into a byte
NEVER_TOO_MUCH = 2**26  # bytes


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Keep other processes from writing to a place; the lock lies beside it and is gone with the process.

    Raises:
        RunError: another process is writing there, or nothing can be written beside it.
    """
    name = path.parent / f".{path.name}.lock"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = name.open("w")
    except OSError as error:
        raise RunError(f"cannot write {path}: {error.strerror}.") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # the process before may have removed the file between its being opened and locked here
            if not os.path.samestat(os.fstat(lock.fileno()), name.stat()):
                raise FileExistsError
        except OSError:
            raise RunError(f"another process is writing {path}: wait for it, or choose another place.") from None
        try:
            yield
        finally:
            name.unlink(missing_ok=True)


def check_promise(promised: int, path: Path) -> None:
    """Hold the bytes that a packed file says it holds against its size, and the memory, before they are taken.

    Raises:
        DataError: they cannot be in there, or do not fit.
    """
    files = path.rglob("*") if path.is_dir() else [path]
    size = sum(file.stat().st_size for file in files if file.is_file())
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if promised > max(DEFLATED * size, NEVER_TOO_MUCH):
        raise DataError(f"its header promises {promised} bytes, which do not fit into the {size} there are")
    if promised > memory:
        raise DataError(f"holds {promised / 2**30:.0f} GiB, and this machine has {memory / 2**30:.0f} GiB of memory")


def read_tree(file: Path) -> xarray.DataTree:
    """The groups of a netCDF file, in memory.

    Raises:
        DataError: it promises more than it can hold, or than the memory can.
        OSError: it cannot be read.
    """
    import xarray

    with xarray.open_datatree(file, engine="h5netcdf") as tree:
        check_promise(sum(group.to_dataset(inherit=False).nbytes for group in tree.subtree), file)
        return tree.load()


def digest(content: bytes) -> str:
    """What a file's content is recognised by, in hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def write_file(file: Path, content: bytes) -> None:
    """Write a file that is complete once it is there, even after a loss of power.

    Raises:
        OSError: the place cannot be written, or is full; a file that was there is untouched.
    """
    beside = file.with_name(f".{file.name}.part")
    try:
        _write(beside, content)
        beside.replace(file)
    finally:
        beside.unlink(missing_ok=True)
    _sync(file.parent)


def write_directory(path: Path, contents: Mapping[str, bytes]) -> None:
    """Write a directory of files by name, which takes the place of the one that was there once it is complete.

    Raises:
        RunError: the place cannot be written, or is full; a directory that was there is untouched.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        beside = Path(tempfile.mkdtemp(prefix=f".{path.name}-", dir=path.parent))
        new, old = beside / "new", beside / "old"
        try:
            new.mkdir()
            for name, content in contents.items():
                _write(new / name, content)
            _sync(new)
            if path.exists():
                path.replace(old)
            new.replace(path)
        finally:
            if old.exists() and not path.exists():  # stopped between the two
                old.replace(path)
            shutil.rmtree(beside, ignore_errors=True)
        _sync(path.parent)
    except OSError as error:
        raise RunError(f"cannot write {path}: {error.strerror}.") from error


def _write(file: Path, content: bytes) -> None:
    with file.open("wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())


def _sync(folder: Path) -> None:
    """Make the names in a directory as lasting as the files."""
    opened = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)
