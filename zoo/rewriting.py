"""A table's own file again, with some of its cells filled in."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from zoo.errors import DataError, RunError
from zoo.frames import filled
from zoo.imputation import SWEEPS
from zoo.options import ImputationMethod
from zoo.sources import Raw, in_memory, read_source
from zoo.supports import Column

if TYPE_CHECKING:
    from zoo.runs import Run

__all__ = ["check_ending", "fill_file"]

Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]


def fill_file(
    run: Run,
    source: str | os.PathLike[str],
    path: Path,
    *,
    missing_values: Sequence[Any] | None = None,
    draws: int = 20,
    method: ImputationMethod = "gibbs",
    sweeps: int = SWEEPS,
    seed: int = 0,
) -> dict[str, int]:
    """Write the table of a data set or a file to ``path`` with its gaps filled by :meth:`zoo.Run.fill_gaps`.

    Args:
        run: a trained pair.
        source: as for :func:`zoo.load_data`.
        path: of a .csv, .tsv, .parquet or .npy file.
        missing_values: stand for entries that were not observed; by default what did so in training.
        draws: as for :meth:`zoo.Run.fill_gaps`.
        method: as for :meth:`zoo.Run.fill_gaps`.
        sweeps: as for :meth:`zoo.Run.fill_gaps`.
        seed: as for :meth:`zoo.Run.fill_gaps`.

    Returns:
        How many gaps were filled, by column.

    Raises:
        DataError: the table cannot be read, or has not the columns or the values that the run was trained on.
        OptionError: no such method, or a number that is none.
        RunError: the file cannot be written.
        Unknown: what an entry is given others is not known of the likelihood.
    """
    data = run.pair.data
    words = [column.name for column in data.columns if column.categories]
    if check_ending(path) == ".npy" and words:
        raise DataError(
            f"{path}: an array holds no words, and {words[0]!r} is a column of them: write a .csv or .parquet"
        )
    raw = in_memory(read_source(source))
    table = raw.x if hasattr(raw.x, "columns") else np.asarray(raw.x).reshape(len(raw.x), -1)
    try:
        values = np.asarray(data.coded(table, missing_values), dtype=np.float64)
        whole = run.fill_gaps(values, draws, method=method, sweeps=sweeps, seed=seed)
    except DataError as error:
        raise DataError(f"{source}: {error}") from error
    gaps = np.isnan(values)
    if np.isnan(whole).any():
        raise RunError(f"no seed of {run.pair.name} gave finite draws for {np.isnan(whole).sum()} of {gaps.sum()} gaps")
    _rewrite(raw, data.columns, whole, gaps, path)
    return dict(zip(data.names, gaps.sum(axis=0).tolist(), strict=True))


def _rewrite(raw: Raw, columns: Sequence[Column], values: Array, gaps: Array, path: Path) -> None:
    """Write a table with values (N, D) in the places of its gaps (N, D); of a text file all else as it was written.

    The file is complete or absent: it is written beside and renamed.
    """
    import pandas as pd

    ending = check_ending(path)
    frame = raw.cells() if raw.cells and ending in TEXT else raw.x
    if not hasattr(frame, "columns"):
        frame = pd.DataFrame(np.asarray(raw.x).reshape(len(values), -1), columns=[column.name for column in columns])
    whole = filled(columns, frame, values, gaps, raw.layout.decimal if frame is not raw.x else ".")
    beside = path.with_name(f".unfinished-{path.name}")
    try:
        WRITERS[ending](whole, beside, raw)
        beside.replace(path)
    except OSError as error:
        raise RunError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        beside.unlink(missing_ok=True)


def check_ending(path: Path) -> str:
    """What kind of file a name asks for.

    Raises:
        DataError: one that is not written here.
    """
    name = path.name.lower().removesuffix(".gz")
    ending = next((known for known in WRITERS if name.endswith(known)), None)
    if ending is None or (path.name.lower().endswith(".gz") and ending not in TEXT):
        raise DataError(f"{path}: written are {', '.join(WRITERS)}, the first two gzipped or not")
    return ending


def _text(frame: Any, path: Path, raw: Raw, separator: str | None = None) -> None:
    label = raw.layout.row_names
    if label is None and frame.index.name is not None:  # the names of the rows of a file that is no text
        label = str(frame.index.name)
    frame.to_csv(
        path,
        sep=separator or raw.layout.separator,
        header=[*raw.layout.names] or raw.layout.header,
        index=label is not None,
        index_label=label,
        encoding=raw.layout.encoding,
        lineterminator=raw.layout.line_end,
        compression="gzip" if path.name.lower().endswith(".gz") else None,
    )


def _parquet(frame: Any, path: Path, _: Raw) -> None:
    frame.to_parquet(path)


def _npy(frame: Any, path: Path, raw: Raw) -> None:
    with path.open("wb") as file:
        np.save(file, frame.to_numpy(dtype=np.float64).reshape(np.shape(raw.x)), allow_pickle=False)


TEXT = (".csv", ".tsv")
WRITERS: dict[str, Callable[[Any, Path, Raw], None]] = {
    ".csv": _text,
    ".tsv": partial(_text, separator="\t"),
    ".parquet": _parquet,
    ".npy": _npy,
}
