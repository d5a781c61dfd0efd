"""Tables in files: with gaps filled in, with a pair's answers about their rows, and synthetic ones."""

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
from zoo.sources import Layout, Raw, in_memory, read_source
from zoo.supports import Column
from zoo.words import few

if TYPE_CHECKING:
    import pandas

    from zoo.runs import Run

__all__ = ["answer_file", "check_ending", "fill_file", "rows_of", "write_table"]

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
        source: see :func:`zoo.load_data`.
        path: a .csv, .tsv, .parquet or .npy file.
        missing_values: values that mark missing entries; by default those of training.
        draws: see :meth:`zoo.Run.fill_gaps`.
        method: see :meth:`zoo.Run.fill_gaps`.
        sweeps: see :meth:`zoo.Run.fill_gaps`.
        seed: see :meth:`zoo.Run.fill_gaps`.

    Returns:
        How many gaps were filled, by column.

    Raises:
        DataError: the table cannot be read, or lacks the columns or values the run was trained on.
        OptionError: an unknown method, or an invalid number.
        RunError: the file cannot be written.
        Unknown: the likelihood does not give the distribution of an entry given the others.
    """
    data = run.pair.data
    _refuse_words(path, [column.name for column in data.columns if column.categories])
    raw = in_memory(read_source(source))
    try:
        values = _coded(run, raw, missing_values)
        whole = run.fill_gaps(values, draws, method=method, sweeps=sweeps, seed=seed)
    except DataError as error:
        raise DataError(f"{source}: {error}") from error
    gaps = np.isnan(values)
    if np.isnan(whole).any():
        raise RunError(f"no seed of {run.pair.name} gave finite draws for {np.isnan(whole).sum()} of {gaps.sum()} gaps")
    _rewrite(raw, data.columns, whole, gaps, path)
    return dict(zip(data.names, gaps.sum(axis=0).tolist(), strict=True))


def answer_file(
    run: Run,
    source: str | os.PathLike[str],
    path: Path,
    answer: Callable[[Array], pandas.DataFrame],
    missing_values: Sequence[Any] | None = None,
) -> pandas.DataFrame:
    """Write an answer for each row of a data set or a file, with the columns that name the row, and return it.

    A row is named by its row name, the label in a data set, and the columns the run was not trained on, as they are
    written there.

    Args:
        run: a trained pair.
        source: see :func:`zoo.load_data`.
        path: a .csv, .tsv, .parquet or .npy file.
        answer: gives a row for each row of values (N, D) in the units as loaded, like :meth:`zoo.Run.score`.
        missing_values: values that mark missing entries; by default those of training.

    Raises:
        DataError: the table cannot be read, lacks the columns or values the run was trained on, or has a column with
            the name of an answer.
        RunError: the file cannot be written.
    """
    import pandas as pd

    ending, raw = check_ending(path), in_memory(read_source(source))
    try:
        said = answer(_coded(run, raw, missing_values))
    except DataError as error:
        raise DataError(f"{source}: {error}") from error
    beside = raw.cells() if raw.cells and ending in TEXT else raw.x
    if hasattr(beside, "columns"):
        beside = beside.rename(columns=str).drop(columns=[*run.pair.data.names])
        said = said.set_axis(beside.index)
    else:
        beside = pd.DataFrame({} if raw.labels is None else {"label": raw.labels}, index=said.index)
    if twice := [name for name in said if name in beside]:
        raise DataError(f"{source}: it already has a column {twice[0]!r}, which would occur twice: rename it")
    whole = pd.concat([beside, said.round(PLACES) if ending in TEXT else said], axis=1)
    write_table(whole, path, raw.layout._replace(names=(), header=True))
    return said


def rows_of(run: Run, source: str | os.PathLike[str], missing_values: Sequence[Any] | None = None) -> Array:
    """The rows of a data set or a file as values (N, D) of the columns a run was trained on.

    Raises:
        DataError: the table cannot be read, or lacks those columns or their values.
    """
    try:
        return run.loaded(_coded(run, in_memory(read_source(source)), missing_values))
    except DataError as error:
        raise DataError(f"{source}: {error}") from error


def _coded(run: Run, raw: Raw, missing_values: Sequence[Any] | None) -> Array:
    names = run.pair.data.names
    if twice := [one for one in names if raw.layout.names.count(one) > 1 and f"{one}.1" not in names]:
        raise DataError(f"more than one column is called {few(list(map(repr, twice)))}: rename the others")
    table = raw.x if hasattr(raw.x, "columns") else np.asarray(raw.x).reshape(len(raw.x), -1)
    return np.asarray(run.pair.data.coded(table, missing_values), dtype=np.float64)


def _refuse_words(path: Path, words: Sequence[str]) -> None:
    if check_ending(path) == ".npy" and words:
        raise DataError(f"{path}: an array cannot hold words, and column {words[0]!r} does: write a .csv or .parquet")


def _rewrite(raw: Raw, columns: Sequence[Column], values: Array, gaps: Array, path: Path) -> None:
    """Write a table with values (N, D) in its gaps (N, D); everything else in a text file stays as it was written."""
    import pandas as pd

    ending = check_ending(path)
    frame = raw.cells() if raw.cells and ending in TEXT else raw.x
    if not hasattr(frame, "columns"):
        frame = pd.DataFrame(np.asarray(raw.x).reshape(len(values), -1), columns=[column.name for column in columns])
    whole = filled(columns, frame, values, gaps, raw.layout.decimal if frame is not raw.x else ".")
    _write(whole, path, raw)


def write_table(frame: pandas.DataFrame, path: Path, layout: Layout | None = None) -> None:
    """Write a data frame in the format of the file ending.

    Raises:
        DataError: an unsupported ending, or words in an array.
        RunError: the file cannot be written.
    """
    _refuse_words(path, [str(name) for name in frame if frame[name].dtype.kind not in "biuf"])
    _write(frame, path, Raw(frame, layout=layout or Layout()))


def _write(frame: Any, path: Path, raw: Raw) -> None:
    """Write a file that is complete or absent: it is written under another name and renamed."""
    beside = path.with_name(f".unfinished-{path.name}")
    try:
        WRITERS[check_ending(path)](frame, beside, raw)
        beside.replace(path)
    except OSError as error:
        raise RunError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        beside.unlink(missing_ok=True)


def check_ending(path: Path) -> str:
    """The file format of a name.

    Raises:
        DataError: an unsupported format.
    """
    name = path.name.lower().removesuffix(".gz")
    ending = next((known for known in WRITERS if name.endswith(known)), None)
    if ending is None or (path.name.lower().endswith(".gz") and ending not in TEXT):
        raise DataError(f"{path}: choose a name that ends in {', '.join(WRITERS)}, or .csv.gz or .tsv.gz")
    return ending


def _text(frame: Any, path: Path, raw: Raw, separator: str | None = None) -> None:
    label = raw.layout.row_names
    if label is None and frame.index.name is not None:  # the row names of a binary file
        label = str(frame.index.name)
    frame.to_csv(
        path,
        sep=separator or raw.layout.separator,
        header=[*raw.layout.names] or raw.layout.header,
        index=label is not None,
        index_label=label,
        encoding=raw.layout.encoding,
        decimal=raw.layout.decimal,
        lineterminator=raw.layout.line_end,
        compression="gzip" if path.name.lower().endswith(".gz") else None,
    )


def _parquet(frame: Any, path: Path, _: Raw) -> None:
    frame.to_parquet(path)


def _npy(frame: Any, path: Path, raw: Raw) -> None:
    with path.open("wb") as file:
        np.save(file, frame.to_numpy(dtype=np.float64).reshape(np.shape(raw.x)), allow_pickle=False)


TEXT = (".csv", ".tsv")
PLACES = 6  # decimals of an answer in a text file
WRITERS: dict[str, Callable[[Any, Path, Raw], None]] = {
    ".csv": _text,
    ".tsv": partial(_text, separator="\t"),
    ".parquet": _parquet,
    ".npy": _npy,
}
