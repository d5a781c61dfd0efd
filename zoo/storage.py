"""Files and directories, written completely or not at all by one process at a time, and read within limits.

Works on Linux, macOS and Windows: filelock provides locks, psutil the free memory.
"""

from __future__ import annotations

import ctypes
import gzip
import hashlib
import json
import os
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, cast

from filelock import FileLock, Timeout

from zoo.errors import DataError, RunError
from zoo.words import few

if TYPE_CHECKING:
    import xarray

__all__ = [
    "RECIPE",
    "InUse",
    "check_memory",
    "check_opens",
    "check_packed",
    "check_promise",
    "digest",
    "free_memory",
    "give_back",
    "locked",
    "netcdf",
    "pieces",
    "read_checked_tree",
    "read_tree",
    "regular",
    "runs_within",
    "unzipped",
    "write_directory",
    "write_file",
]

NAMED = 4  # runs of a directory that a message names
RECIPE = "run.json"  # holds the checksums of a run's files
HDF5 = b"\x89HDF\r\n\x1a\n"  # how such a file begins
OPENING = 30.0  # most seconds to open a file
LISTING = """
import sys, h5py
with h5py.File(sys.argv[1]) as file:
    file.visititems(lambda name, item: dict(item.attrs) and None)
"""
DEFLATED = 1032  # the most that zlib packs into a byte
NEVER_TOO_MUCH = 2**26  # bytes


class InUse(RunError):
    """Another process is writing there."""


@contextmanager
def locked(path: Path, purpose: str = "") -> Iterator[None]:
    """Keep other processes from writing to a place; the lock file next to it disappears with the process.

    Locks for different purposes are independent.

    Raises:
        InUse: another process is writing there.
        RunError: the lock file cannot be written.
    """
    name = path.parent / f".{path.name}{purpose and f'.{purpose}'}.lock"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(name, timeout=0, thread_local=False)
        lock.acquire()
    except Timeout:
        raise InUse(f"another process is writing {path}: wait for it, or choose another place.") from None
    except OSError as error:
        raise RunError(f"cannot write {path}: {error.strerror}.") from error
    try:
        yield
    finally:
        with suppress(PermissionError):  # Windows cannot remove an open file, and a free lock does no harm
            name.unlink(missing_ok=True)
        lock.release()


HOLES = 2**28  # bytes by which a process may grow before freed memory is returned
_GROWN_FROM = [0]  # its size in bytes when that was last done


def give_back() -> None:
    """Return freed memory to the system if the process has grown since the last time; called between blocks of work.

    The C library keeps freed memory for later. Before version 2.38, glibc cannot reuse the hole that an aligned tensor
    leaves for another of the same size, so that over many blocks a process would grow to ten times what it uses.
    """
    if _resident() > _GROWN_FROM[0] + HOLES:
        _trim(0)
        _GROWN_FROM[0] = _resident()


def _resident() -> int:
    import psutil

    return int(psutil.Process().memory_info().rss)


def _trim(kept: int) -> None:
    """Have the C library give all but so many free bytes back; only glibc can."""
    with suppress(OSError, TypeError, AttributeError):
        ctypes.CDLL(None).malloc_trim(kept)


def free_memory() -> int:
    """Bytes of memory available to this process, within the limits of its container and its shell."""
    import psutil

    memory = [int(psutil.virtual_memory().available)]
    with suppress(OSError, ValueError):  # only Linux has this file, which says "max" if there is no limit
        memory.append(int(Path("/sys/fs/cgroup/memory.max").read_text()))
    with suppress(ImportError):  # which Windows lacks
        import resource

        shell = resource.getrlimit(resource.RLIMIT_AS)[0]
        memory += [] if shell == resource.RLIM_INFINITY else [shell]
    return min(memory)


def regular(path: Path) -> Path:
    """The path, if it is a file: opening a pipe waits for a writer, and reading a device may never end.

    Raises:
        DataError: it is something else.
        OSError: nothing is there.
    """
    mode = path.stat().st_mode
    if not stat.S_ISREG(mode):
        kind = next((name for name, holds in NO_FILES.items() if holds(mode)), "no file")
        raise DataError(f"{path.name} is {kind}, and only files can be read: save its contents in a file first")
    return path


NO_FILES = {
    "a folder": stat.S_ISDIR,
    "a named pipe": stat.S_ISFIFO,
    "a socket": stat.S_ISSOCK,
    "a device": lambda mode: stat.S_ISCHR(mode) or stat.S_ISBLK(mode),
}


def unzipped(path: Path) -> IO[bytes]:
    """A file opened for reading, through gzip if its first bytes say so, whatever its name."""
    with regular(path).open("rb") as file:
        zipped = file.read(2) == b"\x1f\x8b"
    return cast(IO[bytes], gzip.open(path)) if zipped else path.open("rb")


def pieces(stream: IO[bytes], limit: int, each: int = 1) -> Iterator[bytes]:
    """The contents of a stream, a megabyte at a time; ``each`` is the memory that one byte will take.

    Raises:
        DataError: it is longer than the limit; raised as soon as that is known.
    """
    size = 0
    while piece := stream.read(2**20):
        check_memory(size := size + each * len(piece), limit)
        yield piece


def check_memory(taken: int, limit: int) -> None:
    """Check the bytes that data will take against a limit.

    Raises:
        DataError: they are more.
    """
    if taken > limit:
        raise DataError(
            f"takes {taken:,} bytes of memory or more, and max_bytes is {limit:,}: load fewer rows or columns, "
            "give a larger max_bytes, or save the table as .npy, whose rows are read on demand"
        )


def check_packed(promised: int, path: Path) -> None:
    """Check the number of bytes that a packed file claims to hold against its size.

    Raises:
        DataError: the file is too small for them.
    """
    files = path.rglob("*") if path.is_dir() else [path]
    size = sum(regular(file).stat().st_size for file in files if not file.is_dir())
    if promised > max(DEFLATED * size, NEVER_TOO_MUCH):
        raise DataError(f"its header promises {promised} bytes, which do not fit into the {size} there are")


def check_promise(promised: int, path: Path, limit: int | None = None) -> None:
    """Check the number of bytes that a packed file claims to hold against its size and a limit, before loading.

    Raises:
        DataError: the file is too small for them, or they exceed the limit, by default the free memory.
    """
    check_packed(promised, path)
    if limit is not None:
        check_memory(promised, limit)
    elif promised > (free := free_memory()):
        raise DataError(f"holds {promised:,} bytes, but only {free:,} bytes of memory are free")


def check_opens(file: Path) -> None:
    """Open an HDF5 file and list its variables in another process, since a damaged file may hang.

    The C library cannot be interrupted while it waits, and a crash in it ends the whole process. Other kinds of files
    pass.

    Raises:
        DataError: it cannot be opened, or not within half a minute.
    """
    with regular(file).open("rb") as opened:
        if opened.read(len(HDF5)) != HDF5 or not sys.executable:
            return
    try:
        listing = subprocess.run(
            [sys.executable, "-I", "-c", LISTING, str(file)],
            capture_output=True,
            text=True,
            timeout=OPENING,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise DataError(f"was not open after {OPENING:.0f} seconds: it is damaged") from None
    if listing.returncode:
        told = (listing.stderr.strip().splitlines() or [f"the process that opened it died ({listing.returncode})"])[-1]
        raise DataError(f"cannot be opened, it is damaged: {told}")


def read_tree(file: Path) -> xarray.DataTree:
    """The groups of a netCDF file, in memory.

    HDF5 never sees a damaged file here: a run's file is checked by checksum, any other is first opened elsewhere.

    Raises:
        DataError: it is damaged, or claims to hold more than fits into the file or into memory.
        OSError: it cannot be read.
    """
    recipe = regular(file).with_name(RECIPE)
    if recipe.is_file():
        _check_digest(file, recipe)
    else:
        check_opens(file)
    return read_checked_tree(file)


def read_checked_tree(file: Path) -> xarray.DataTree:
    """Like :func:`read_tree`, for a file known to be intact.

    Raises:
        DataError: it claims to hold more than fits into the file or into memory.
        OSError: it cannot be read.
    """
    import xarray

    with xarray.open_datatree(file, engine="h5netcdf") as tree:
        check_promise(sum(group.to_dataset(inherit=False).nbytes for group in tree.subtree), file)
        return tree.load()


def _check_digest(file: Path, recipe: Path) -> None:
    try:
        expected = json.loads(recipe.read_text(encoding="utf-8"))["sha256"][file.name]
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"the {recipe.name} next to it is damaged: it has no checksum for it") from error
    if digest(file.read_bytes()) != expected:
        raise DataError(f"it is damaged: its checksum differs from {recipe.name}")


def netcdf(tree: xarray.DataTree) -> bytes:
    """The netCDF file of a tree, made in memory, since HDF5 crashes the process if the disk fills up."""
    with ExitStack() as stack:
        if "distributed" in sys.modules:  # xarray would ask its scheduler to lock a file without a name
            import dask

            stack.enter_context(dask.config.set(scheduler="threads"))
        return bytes(tree.to_netcdf(engine="h5netcdf"))


def digest(content: bytes) -> str:
    """The checksum of a file's content, in hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def write_file(file: Path, content: bytes) -> None:
    """Write a file that is complete whenever it exists, even after a power failure.

    Raises:
        OSError: the place cannot be written, or is full; an earlier file is untouched.
    """
    beside = file.with_name(f".{file.name}.part")
    try:
        _write(beside, content)
        beside.replace(file)
    finally:
        beside.unlink(missing_ok=True)
    _sync(file.parent)


def write_directory(path: Path, contents: Mapping[str, bytes]) -> None:
    """Write a directory of files by name, which replaces an earlier one once it is complete.

    Raises:
        RunError: the place cannot be written, or is full; an earlier directory is untouched.
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
            if old.exists() and not path.exists():  # stopped between the two renames
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
    """Sync a directory, so that its names survive a power failure like the files."""
    if os.name == "nt":  # where a directory cannot be opened
        return
    opened = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def runs_within(path: Path) -> str:
    """A hint on runs in the folders of a place that is not a run itself; empty if there are none."""
    found = [place.parent for place in sorted(path.glob(f"*/{RECIPE}"))] if path.is_dir() else []
    return f"; the runs in it are {few([*map(str, found)], NAMED)}: choose one" if found else ""
