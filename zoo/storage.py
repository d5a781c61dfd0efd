"""Files and directories that are written whole or not at all, by one process at a time, and read within limits.

On Linux, macOS and Windows alike: locks are filelock's, what memory is free psutil says.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, cast

from filelock import FileLock, Timeout

from zoo.errors import DataError, RunError

__all__ = [
    "RECIPE",
    "InUse",
    "check_memory",
    "check_opens",
    "check_packed",
    "check_promise",
    "digest",
    "free_memory",
    "locked",
    "pieces",
    "regular",
    "runs_within",
    "unzipped",
    "write_directory",
    "write_file",
]

NAMED = 4  # runs of a directory
RECIPE = "run.json"  # beside a run's files, with their checksums
HDF5 = b"\x89HDF\r\n\x1a\n"  # how such a file begins
OPENING = 30.0  # seconds that one may take to be opened
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
    """Keep other processes from writing to a place; the lock lies beside it and is gone with the process.

    Who holds it for one purpose does not keep out who wants it for another.

    Raises:
        InUse: another process is writing there.
        RunError: nothing can be written beside it.
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
        with suppress(PermissionError):  # Windows removes no file that is open, and a lock that is free is no harm
            name.unlink(missing_ok=True)
        lock.release()


def free_memory() -> int:
    """Bytes that this process may take: what is available, within the limits of its container and its shell."""
    import psutil

    memory = [int(psutil.virtual_memory().available)]
    with suppress(OSError, ValueError):  # Linux alone has this file, which says "max" where there is no limit
        memory.append(int(Path("/sys/fs/cgroup/memory.max").read_text()))
    with suppress(ImportError):  # which Windows lacks
        import resource

        shell = resource.getrlimit(resource.RLIMIT_AS)[0]
        memory += [] if shell == resource.RLIM_INFINITY else [shell]
    return min(memory)


def regular(path: Path) -> Path:
    """The path, if what is there is a file: opening a pipe waits for a writer, reading a device may never end.

    Raises:
        DataError: it is something else.
        OSError: nothing is there.
    """
    mode = path.stat().st_mode
    if not stat.S_ISREG(mode):
        kind = next((name for name, holds in NO_FILES.items() if holds(mode)), "no file")
        raise DataError(f"{path.name} is {kind}, and only files are read: save what it holds in a file first")
    return path


NO_FILES = {
    "a folder": stat.S_ISDIR,
    "a named pipe": stat.S_ISFIFO,
    "a socket": stat.S_ISSOCK,
    "a device": lambda mode: stat.S_ISCHR(mode) or stat.S_ISBLK(mode),
}


def unzipped(path: Path) -> IO[bytes]:
    """A file opened to be read, through gzip if that is how it begins, whatever its name."""
    with regular(path).open("rb") as file:
        zipped = file.read(2) == b"\x1f\x8b"
    return cast(IO[bytes], gzip.open(path)) if zipped else path.open("rb")


def pieces(stream: IO[bytes], limit: int, each: int = 1) -> Iterator[bytes]:
    """What is in a stream, a megabyte at a time; ``each`` byte of it will take so many.

    Raises:
        DataError: it is longer than the limit, which is said as soon as it is known.
    """
    size = 0
    while piece := stream.read(2**20):
        check_memory(size := size + each * len(piece), limit)
        yield piece


def check_memory(taken: int, limit: int) -> None:
    """Hold the bytes that data will take against a limit.

    Raises:
        DataError: they are more.
    """
    if taken > limit:
        raise DataError(
            f"takes {taken:,} bytes of memory or more, and max_bytes is {limit:,}: load fewer rows or columns, "
            "give a larger max_bytes, or save the table as .npy, whose rows are read as they are needed"
        )


def check_packed(promised: int, path: Path) -> None:
    """Hold the bytes that a packed file says it holds against its size.

    Raises:
        DataError: they cannot be in there.
    """
    files = path.rglob("*") if path.is_dir() else [path]
    size = sum(regular(file).stat().st_size for file in files if not file.is_dir())
    if promised > max(DEFLATED * size, NEVER_TOO_MUCH):
        raise DataError(f"its header promises {promised} bytes, which do not fit into the {size} there are")


def check_promise(promised: int, path: Path, limit: int | None = None) -> None:
    """Hold the bytes that a packed file says it holds against its size and a limit, before they are taken.

    Raises:
        DataError: they cannot be in there, or are more than the limit, which by default is the memory that is free.
    """
    check_packed(promised, path)
    if limit is not None:
        check_memory(promised, limit)
    elif promised > (free := free_memory()):
        raise DataError(f"holds {promised:,} bytes, and {free:,} bytes of memory are free")


def check_opens(file: Path) -> None:
    """Have an HDF5 file opened and its variables listed by another process, since a damaged one may never come back.

    The library that reads them is in C: what it waits for cannot be interrupted, and what breaks it takes the whole
    process down. Files of other kinds pass.

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
    if os.name == "nt":  # where a directory cannot be opened
        return
    opened = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def runs_within(path: Path) -> str:
    """What to say of the runs in the folders of a place that is no run itself; nothing where there are none."""
    found = [place.parent for place in sorted(path.glob(f"*/{RECIPE}"))] if path.is_dir() else []
    more = f" and {len(found) - NAMED} more" if len(found) > NAMED else ""
    return f"; the runs in it are {', '.join(map(str, found[:NAMED]))}{more}: choose one" if found else ""
