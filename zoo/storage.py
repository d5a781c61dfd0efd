"""Files and directories that are written whole or not at all, whatever happens in between."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

__all__ = ["digest", "write_directory", "write_file"]


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
        OSError: the place cannot be written, or is full; a directory that was there is untouched.
    """
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
