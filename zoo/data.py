"""What a pair is trained on: three parts of one data set, its columns, and their units."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from functools import cached_property, reduce
from numbers import Real
from operator import add
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias, cast, get_args

import numpy as np

from zoo.dataframes import as_pandas, is_frame
from zoo.dependencies import Dependencies, dependencies
from zoo.errors import DataError
from zoo.frames import coded
from zoo.options import MAX_SEED, count, switch
from zoo.schema import read_table, schema_frame
from zoo.splits import PARTS, Part, SplitChoice, split_rows
from zoo.summaries import Moments
from zoo.supports import SUPPORTS, Column, Support, common_support
from zoo.tables import Rows, large, looked_at
from zoo.words import few, listing

if TYPE_CHECKING:
    import pandas
    import xarray

__all__ = ["PARTS", "Binarize", "Data", "Noise", "Part", "Scaling", "ScalingKind", "real_array"]

Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]
Levels: TypeAlias = tuple[float, ...]
ScalingKind = Literal["none", "scalar", "column"]
Noise = Literal["binarize", "dequantize"]
Binarize = Literal["threshold", "stochastic"]
Resolution: TypeAlias = Literal["auto"] | Mapping[str, float | None] | None
NAMED = 8  # columns that a note on linear dependencies names
MOST_SHOWN = 60  # columns of a table in a notebook
ENOUGH_ROWS = 2  # complete rows per column that a search for linear dependencies needs


@dataclass(frozen=True, kw_only=True, eq=False)
class Scaling:
    """The map into the units of training: x_scaled = (x - center) / scale, both (D,)."""

    kind: ScalingKind
    center: Array
    scale: Array

    @property
    def log_volume(self) -> float:
        """Σ_j log scale_j: log p(x) = log p(x_scaled) - log_volume."""
        return float(np.log(self.scale).sum())

    def apply(self, x: Any) -> Array:
        """Values (..., D) from the units as loaded to scaled units."""
        return cast(Array, (self.rows(x) - self.center) / self.scale)

    def undo(self, x: Any) -> Array:
        """Values (..., D) from scaled units back to the units as loaded."""
        return cast(Array, self.rows(x) * self.scale + self.center)

    def rows(self, x: Any) -> Array:
        """Values whose last axis is the columns; DataError for any other shape, or what is no number."""
        values = real_array("x", x)
        if not values.ndim or values.shape[-1] != len(self.scale):
            raise DataError(f"x has shape {values.shape}: its last axis must be the {len(self.scale)} columns.")
        return values


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Data:
    """A data set in three parts, with everything a likelihood must know about it.

    ``train``, ``validation`` and ``test`` are DataArrays (obs, feature) in the units as loaded, with NaN for missing
    entries and numbers for categories. A part of more than 2^22 numbers is read on demand from the source's array or
    file: ``part[rows].values`` reads only those rows. Values are
    float64, which holds every number of a single-precision file and every integer up to 2^53 exactly (a larger one
    is refused if it would be rounded); training may round later. Coordinate
    ``obs`` is the row in the source, ``feature`` the column's name, ``label`` (obs) the class where there is
    one. ``columns`` say, one by one, what the values are (:class:`~zoo.supports.Column`). ``train_std`` (D,) is the
    standard deviation of each column over the training part, noise included, and exactly 0 where the column
    is constant. ``dependent_columns`` take part in an exact linear dependence in the training part
    (:func:`zoo.dependencies.dependencies` says what is exact); noise leaves none.

    Columns with a resolution have counting measure: each cell has measure 1. The others have length. Every pair is
    scored under this measure, whatever the measure of its own formula.

    With ``noise``, the training part holds the values that noise is added to at every step
    (:meth:`zoo.views.View.noisy`), while validation and test got theirs once; dequantized columns keep their
    resolution. ``fingerprint`` is
    the same in every process; it follows the values, columns, split and options, not the name and
    the labels; ``mass_fingerprint`` follows only the values as recorded, the names and resolutions of the columns
    and the split. Data share it if scores under the data's measure can be
    compared between them; it is empty if no column has a resolution.
    ``origin`` is the call of
    :func:`zoo.load_data` that gives these data again, or empty if they came from memory. ``missing_values`` marked
    missing entries.

    >>> Data.from_array([[k / 3, k / 7] for k in range(20)], name="ramp")
    <Data 'ramp': 14 + 2 + 4 rows, 2 columns, real, scaling column>
    """

    name: str
    train: xarray.DataArray
    validation: xarray.DataArray
    test: xarray.DataArray
    columns: tuple[Column, ...]
    kind: ScalingKind
    image_shape: tuple[int, ...] | None
    noise: Noise | None
    train_std: Array
    varying_in_test: tuple[str, ...]
    fingerprint: str
    mass_fingerprint: str
    notes: tuple[str, ...]
    origin: str = ""
    missing_values: tuple[Any, ...] = ()
    dependent_columns: tuple[str, ...] = ()

    def __repr__(self) -> str:
        rows = " + ".join(str(len(part)) for part in (self.train, self.validation, self.test))
        levels = f" ({len(self.levels)} levels)" if self.levels else ""
        kinds = ", ".join(f"{n} {support}" for support, n in self._supports().items())
        told = f"mixed ({kinds})" if self.support not in SUPPORTS else f"{self.support}{levels}"
        missing = f", {self.missing} entries missing" if self.missing else ""
        image = f", {' x '.join(map(str, self.image_shape))} image" if self.image_shape else ""
        return (
            f"<Data {self.name!r}: {rows} rows, {self.features} columns, {told}{missing}, scaling {self.kind}{image}>"
        )

    def _repr_html_(self) -> str:
        """The schema, for a notebook."""
        from html import escape

        most = self.schema.head(MOST_SHOWN)
        more = self.features - len(most)
        return f"<p>{escape(repr(self))}</p>{most.to_html(index=False)}" + (f"<p>and {more} more</p>" if more else "")

    @classmethod
    def from_array(
        cls,
        x: Any,
        *,
        name: str = "array",
        names: Sequence[str] | None = None,
        columns: Sequence[str] | None = None,
        drop: Sequence[str] = (),
        labels: Any = None,
        support: Support | Literal["auto"] | Mapping[str, Support] = "auto",
        levels: Sequence[float] | None = None,
        resolution: Resolution = "auto",
        missing_values: Sequence[Any] = (),
        image_shape: Sequence[int] | None = None,
        scaling: ScalingKind | Literal["auto"] = "auto",
        split: SplitChoice = "grouped",
        groups: Any = None,
        seed: int = 0,
        binarize: Binarize | float | None = None,
        dequantize: bool = False,
    ) -> Data:
        """Split, check and scale an array or data frame (N, D), or images (N, H, W) or (N, C, H, W).

        Entries that are NaN, None or masked are missing; ``missing_values`` are further numbers or words that mean
        missing. An array of more than 2^22 numbers is not copied, so do not change it. Text becomes
        categories, and ``yes`` and ``no`` become 1 and 0. Columns that no likelihood models, such as dates,
        are refused by name: ``drop`` leaves columns out, ``columns`` names those to keep. ``names`` (D,)
        are for an array without names.

        ``labels`` (N,) stratify the split. ``split="grouped"`` takes 70 % for training, 10 % for validation and 20 %
        for the test. It keeps rows of one of the ``groups`` (N,) together, and equal rows unless chance
        explains why they are equal (:func:`zoo.splits.split_rows` says how this is judged, and how it combines
        with labels); ``"rows"`` takes the same fractions row by row. Three fractions of your own
        also keep groups and equal rows together. An array that names each row's part is used as given.
        The notes say how many rows of validation and test also occur in training.

        ``support="auto"`` infers the support of each column (see :func:`zoo.schema.read_table`); a
        name applies to all columns, a mapping to the columns it names. A declared support is checked. A number
        recorded to a few decimals stands for a cell: ``resolution`` is "auto", None for points of the real line,
        or a mapping from columns to widths. ``scaling="auto"`` is one mean
        and standard deviation for images and ordinal data, one per column for other tables, none for binary
        data; they come from the training part only.

        An intensity runs from 0 at the lowest level to 1 at the highest. ``binarize="threshold"`` turns
        intensities of at least 0.5 (or a number of yours) into ones, ``"stochastic"`` draws ones with the intensity
        as their probability. ``dequantize=True`` spreads every value uniformly over the distance between two
        levels. Both kinds of noise are drawn again at every training step, and once, from ``seed``, for
        validation and test.

        Raises :class:`~zoo.errors.DataError`, with column and row, if values are infinite, not
        numbers or outside the declared support, or if a part would have no rows or a column no
        observed entry, and
        :class:`~zoo.errors.OptionError` for an invalid ``seed`` or ``dequantize``.

        >>> data = Data.from_array([[1, 5], [2, 4], [3, 3], [4, 2], [5, 1]], name="ratings", dequantize=True)
        >>> data.support, data.noise, data.resolution.tolist()
        ('real', 'dequantize', [1.0, 1.0])
        """
        x = as_pandas(x)
        kind = _checked("scaling", scaling, ("auto", *get_args(ScalingKind)))
        if switch("dequantize", dequantize) and binarize is not None:
            raise DataError("binarize and dequantize exclude each other: leave one of them out")
        # a caller may declare the resulting support, which the values do not have yet
        resulting = "binary" if binarize is not None else "real" if dequantize else None
        table = read_table(
            x,
            names=names,
            support="auto" if support == resulting else support,
            levels=levels,
            resolution=resolution,
            image_shape=image_shape,
            missing_values=missing_values,
            keep=columns,
            drop=drop,
        )
        rows, recorded, shape = table.rows, table.columns, table.image_shape
        summary = table.scan.summary
        labels = _checked_names("label", labels, len(rows))
        groups = _checked_names("group", groups, len(rows))
        rng = np.random.default_rng(count("seed", seed, least=0, most=MAX_SEED))
        discrete = all(column.kind.discrete for column in recorded) or bool(summary.whole.all())
        index, split_notes = split_rows(rows, table.scan.keys, split, groups, labels, discrete, rng)
        index, unobserved_notes = _observed_rows(index, table.scan.empty)

        if kind == "auto":
            common = common_support(recorded)
            one_scale = common == "ordinal" or shape is not None
            kind = "none" if "binary" in (common, resulting) else "scalar" if one_scale else "column"
        noise: Noise | None = None
        notes = list(table.notes)
        if binarize is not None:
            rows, noise, how = _binarized(rows, recorded, binarize)
            name = f"{name} (binarized {how})"
            recorded = tuple(
                Column(name=c.name, support="binary", resolution=1.0, reason=f"binarized {how}") for c in recorded
            )
            notes.append(f"Binarized {how}: the scores are log masses of zeros and ones.")
        elif dequantize:
            noise = "dequantize"
            _check_dequantizable(recorded)
            name = f"{name} (dequantized)"
            recorded = tuple(replace(c, support="real", reason=f"{c.reason}, dequantized") for c in recorded)
            widths = sorted({f"{c.resolution:g}" for c in recorded})
            notes.append(
                f"Dequantized with uniform noise of width {few(widths)}: the log density is, in expectation, "
                "a lower bound on the log mass minus the logarithms of the widths (Theis et al. 2016)."
            )
        width = _resolutions(recorded)
        parts = {part: _kept(rows.take(at)) for part, at in index.items()}
        undithered = dict(parts)
        if noise:
            for part in PARTS[1:]:
                parts[part] = Rows(noisy(parts[part][:], rng.random(parts[part].shape), noise, width))
            notes.append(f"Training draws again at every step; validation and test were drawn once, seed {seed}.")

        train, told = parts["train"], [column.name for column in recorded]
        amounts = np.array([not (column.categories and column.kind.nominal) for column in recorded])
        options = [[*map(_identity, recorded)], kind, shape, noise]
        of_masses = [told, width.tolist()]
        seen = _seen(parts, [options] if noise == "dequantize" else [options, of_masses], amounts)
        masses = _seen(undithered, [of_masses], amounts) if noise == "dequantize" else seen
        _refuse_unobserved(seen.train.count, told)
        added = np.zeros(len(told))
        if noise == "binarize":
            added = _moments(train.changed(lambda x: x * (1 - x))).mean
        elif noise:
            added = width**2 / 12
        constant = (seen.train.least == seen.train.most) & (added == 0)
        center, train_std = _centered(seen.train, added, constant, told)
        some = train.spread(len(train))
        exact, nearly = (Dependencies(),) * 2 if noise else _dependencies(some, recorded)
        varying = tuple(np.array(told)[constant & _differs(parts["test"], center, constant)].tolist())
        arrays = {part: _labelled(parts[part], told, at, labels) for part, at in index.items()}
        scaled = _scaled(kind, amounts, seen.together, added, center, train_std)
        described = tuple(
            replace(column, center=float(c), scale=float(s), missing=int(m), constant=bool(k))
            for column, c, s, m, k in zip(recorded, *scaled, summary.rows - summary.count, constant, strict=True)
        )
        return cls(
            name=name,
            train=arrays["train"],
            validation=arrays["validation"],
            test=arrays["test"],
            columns=described,
            kind=kind,
            image_shape=shape,
            noise=noise,
            train_std=train_std,
            varying_in_test=varying,
            fingerprint=seen.fingerprints[0],
            mass_fingerprint="" if np.isnan(width).all() else masses.fingerprints[-1],
            notes=(
                *notes,
                *split_notes,
                *unobserved_notes,
                *_constant_notes(recorded, constant, varying),
                *_dependence_notes(told, exact),
                *_nearly_notes(told, exact, nearly),
                *_sample_notes(len(some), len(train), exact, nearly),
                *_size_notes(train),
            ),
            missing_values=tuple(v.item() if isinstance(v, np.generic) else v for v in missing_values),
            dependent_columns=tuple(told[j] for j in exact.columns),
        )

    @property
    def features(self) -> int:
        """The number of columns, D."""
        return len(self.columns)

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The names of the columns, in order."""
        return tuple(column.name for column in self.columns)

    @cached_property
    def support(self) -> Support:
        """The narrowest support whose likelihoods are models of all columns, or "mixed"."""
        return common_support(self.columns)

    @cached_property
    def levels(self) -> Levels | None:
        """The levels that all columns share, or None."""
        found = {column.levels for column in self.columns}
        return next(iter(found)) if len(found) == 1 else None

    @cached_property
    def resolution(self) -> Array:
        """The width of the cell that a value of each column stands for, (D,); NaN where it is a point."""
        return _resolutions(self.columns)

    @property
    def missing(self) -> int:
        """How many entries are missing, over all rows."""
        return sum(column.missing for column in self.columns)

    @cached_property
    def scaling(self) -> Scaling:
        """The map into the units in which likelihoods of real numbers see the data."""
        center, scale = np.array([(column.center, column.scale) for column in self.columns]).T
        return Scaling(kind=self.kind, center=center, scale=scale)

    @property
    def unit(self) -> Array:
        """What errors are measured by, (D,): a column's deviation in training, or the one of all if they share a scale.

        Pixels share it, and a border pixel's own deviation is nearly zero. A constant column has the unit 1.
        """
        if self.scaling.kind == "scalar":
            return self.scaling.scale
        return np.where(self.train_std > 0, self.train_std, 1.0)

    @property
    def constant_columns(self) -> tuple[str, ...]:
        """The columns that are constant in the training part: a learned variance runs away on them."""
        return tuple(column.name for column in self.columns if column.constant)

    @property
    def schema(self) -> pandas.DataFrame:
        """One row per column: name, support, values, resolution, how many are missing, and the reason for the support.

        >>> data = Data.from_array([[1, 0.5], [0, 0.25], [1, 2.5], [1, 0.75]], names=["sold", "weight"])
        >>> data.schema["support"].tolist()
        ['binary', 'real']
        """
        return schema_frame(self.columns)

    def frame(self, part: Part) -> pandas.DataFrame:
        """One part in the form of the user's table: categories as text, missing entries as missing.

        >>> import zoo
        >>> sorted(zoo.load_data("penguins").frame("test")["species"].unique())
        ['Adelie', 'Chinstrap', 'Gentoo']
        """
        values = getattr(self, _checked("part", part, PARTS))
        return self.as_frame(values.values, index=values["obs"].values)

    def as_frame(self, x: Any, index: Any = None) -> pandas.DataFrame:
        """Values (N, D) in the units as loaded, in the form of the user's table, categories as text."""
        import pandas as pd

        values = self.scaling.rows(x)
        return pd.DataFrame({c.name: c.worded(v) for c, v in zip(self.columns, values.T, strict=True)}, index)

    def coded(self, x: Any, missing_values: Sequence[Any] | None = None) -> Any:
        """Values (N, D) from a data frame with these columns, the inverse of :meth:`as_frame`; arrays pass through.

        Values that marked missing entries when the data were loaded still do, unless others are given.

        Raises:
            DataError: missing columns, or cells that are not a value of their column.
        """
        if not is_frame(x):
            return x
        return coded(self.columns, as_pandas(x), self.missing_values if missing_values is None else missing_values)

    def scale(self, x: Any) -> Array:
        """Values (..., D) from the units as loaded to scaled units.

        >>> data = Data.from_array([[0.0], [2.0], [5.5], [9.0]], split=(0.5, 0.25, 0.25))
        >>> data.unscale(data.scale([[7.0]])).round(12).tolist()
        [[7.0]]
        """
        return self.scaling.apply(x)

    def unscale(self, x: Any) -> Array:
        """Values (..., D) from scaled units back to the units as loaded."""
        return self.scaling.undo(x)

    def scaled(self, part: Part) -> Array:
        """One part as a float64 array (N, D) in scaled units."""
        return self.scale(getattr(self, _checked("part", part, PARTS)).values)

    def on_levels(self, x: Any) -> Array:
        """Dequantized values (..., D), in the units as loaded, put back on their levels; others unchanged.

        >>> data = Data.from_array([[1, 5], [2, 4], [3, 3], [4, 2], [5, 1]], dequantize=True)
        >>> data.on_levels([[1.3, 4.6]]).tolist()
        [[1.0, 5.0]]
        """
        values: Array = np.asarray(x, dtype=np.float64)
        if self.noise != "dequantize":
            return values
        low = np.array([column.levels[0] if column.levels else 0.0 for column in self.columns])
        return cast(Array, low + self.resolution * np.rint((values - low) / self.resolution))

    def nearest(self, x: Any) -> Array:
        """Values (..., D), in the units as loaded, rounded to values their columns can take, recorded as the data are.

        >>> data = Data.from_array([[1.5, 5], [2.0, 4], [3.5, 3], [4.5, 2], [5.5, 1]])
        >>> data.nearest([[1.3, 9.0]]).tolist()
        [[1.5, 9.0]]
        """
        values = self.scaling.rows(x)
        return np.stack([column.nearest(values[..., j]) for j, column in enumerate(self.columns)], axis=-1)

    def summary(self) -> dict[str, Any]:
        """What a report says about the data, ready for JSON.

        >>> Data.from_array([[0], [1], [1], [0]], name="coin").summary()["support"]
        'binary'
        """
        told = ("name", "features", "support", "levels", "image_shape", "constant_columns", "dependent_columns")
        return {
            **{name: _jsonable(getattr(self, name)) for name in (*told, "varying_in_test", "noise", "notes")},
            **{str(part): len(getattr(self, part)) for part in PARTS},
            "columns": list(self.names),
            "supports": self._supports(),
            "missing": self.missing,
            "resolved": int(np.sum(~np.isnan(self.resolution))),
            "scaling": self.kind,
        }

    def _supports(self) -> dict[str, int]:
        """How many columns each support has."""
        told = [column.support for column in self.columns]
        return {support: told.count(support) for support in dict.fromkeys(told)}

    def outline(self) -> dict[str, Any]:
        """Everything but the rows, ready for JSON with exact floats: enough to rebuild a pair.

        >>> data = Data.from_array([[0.1], [0.2], [0.7], [0.3]])
        >>> Data.from_outline(json.loads(json.dumps(data.outline()))).outline() == data.outline()
        True
        """
        kept = [field.name for field in fields(self) if field.name not in (*PARTS, "columns")]
        columns = [{k: _jsonable(v) for k, v in asdict(column).items()} for column in self.columns]
        return {name: _jsonable(getattr(self, name)) for name in kept} | {"columns": columns}

    @classmethod
    def from_outline(cls, outline: dict[str, Any]) -> Data:
        """The data of :meth:`outline`, with three empty parts."""

        def whole(record: dict[str, Any]) -> dict[str, Any]:
            return {k: tuple(v) if isinstance(v, list) else v for k, v in record.items()}

        kept = whole({name: value for name, value in outline.items() if name != "columns"})
        kept["columns"] = tuple(Column(**whole(column)) for column in outline["columns"])
        kept["train_std"] = np.array(kept["train_std"])
        names = [column.name for column in kept["columns"]]
        empty = _labelled(Rows(np.empty((0, len(names)))), names, np.empty(0, dtype=np.int64), None)
        return cls(train=empty, validation=empty, test=empty, **kept)


def noisy(x: Any, u: Any, noise: Noise | None, width: Any) -> Any:
    """Training values x with noise from u, uniform in [0, 1), both (..., D), in cells of given widths; x without noise.

    ``binarize``: u < x. ``dequantize``: x + (u - 1/2) width. Pure arithmetic, so tensors work like arrays.
    """
    if noise == "binarize":
        return (u < x) + 0 * x  # the sum has the type of x
    return x + (u - 0.5) * width if noise == "dequantize" else x


def _jsonable(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return value.tolist()
    return list(value) if isinstance(value, tuple) else value


def real_array(name: str, x: Any) -> Array:
    """The argument of that name as float64."""
    try:
        if not np.iscomplexobj(x):
            return np.asarray(x, dtype=np.float64)
    except (TypeError, ValueError, OverflowError):
        lazy = ": collect it first, by .collect()" if hasattr(x, "collect") else ""
        words = ": words need a data frame" if _holds_words(x) else ""
        raise DataError(f"{name} is a {type(x).__name__}, not an array of real numbers{lazy or words}.") from None
    raise DataError(f"{name} holds complex numbers, which no pair models.")


def _holds_words(x: Any) -> bool:
    try:
        return any(isinstance(cell, str) for cell in np.asarray(x, dtype=object).flat)
    except ValueError:  # rows of different lengths
        return False


def _checked(argument: str, value: Any, allowed: Sequence[str]) -> Any:
    if not isinstance(value, str) or value not in allowed:
        raise DataError(f"{argument}={value!r} is unknown: choose one of {', '.join(map(repr, allowed))}")
    return value


def _checked_names(told: Literal["label", "group"], names: Any, n: int) -> Array | None:
    if names is None:
        return None
    array = np.asarray(names)
    if array.shape != (n,):
        raise DataError(f"{told}s must be ({n},), one for each row, not {names if array.ndim == 0 else array.shape}")
    import pandas as pd  # the one that knows every kind of missing value

    missing = np.flatnonzero(pd.isna(array))
    if len(missing):
        raise DataError(f"the {told} of row {missing[0]} (counted from 0) is missing, {len(missing)} in all")
    return array if array.dtype.kind in "biufU" else array.astype(str)


def _binarized(rows: Rows, columns: Sequence[Column], how: Binarize | float) -> tuple[Rows, Noise | None, str]:
    """Zeros and ones, or the intensities to draw them from; the noise; and how it was done, in words."""
    support, ends = common_support(columns), np.array([column.range() for column in columns])
    grid = [(c.levels[0], c.levels[-1]) for c in columns if c.levels]
    if not np.isfinite(ends).all() or any(c.categories for c in columns):
        raise DataError(
            f"binarize needs intensities between two known ends, and these values are {support}: "
            "bring them into [0, 1], or name their levels"
        )
    low, high = (min(g[0] for g in grid), max(g[1] for g in grid)) if grid else (0.0, 1.0)
    intensities = rows.changed(lambda x: (x - low) / (high - low))
    if how == "stochastic":
        return intensities, "binarize", "stochastically"
    threshold = 0.5 if how == "threshold" else how
    if not isinstance(threshold, Real) or not 0 < threshold < 1:
        raise DataError(f'binarize={how!r} must be "threshold", "stochastic" or a number between 0 and 1')
    told = "by threshold" if how == "threshold" else f"at {threshold:g}"
    return intensities.changed(lambda x: np.where(np.isnan(x), np.nan, x >= threshold)), None, told


def _check_dequantizable(columns: Sequence[Column]) -> None:
    for column in columns:
        if not column.kind.discrete or column.categories:
            raise DataError(
                f"dequantize is for discrete numbers, and column {column.name!r} is {column.support}: leave it out, "
                "or name the levels"
            )


def _resolutions(columns: Sequence[Column]) -> Array:
    return np.array([np.nan if column.resolution is None else column.resolution for column in columns])


def _identity(column: Column) -> list[Any]:
    """What identifies a column's data, apart from the units of training."""
    return [column.name, column.support, column.levels, column.categories, column.resolution]


def _refuse_unobserved(observed: Array, names: Sequence[str]) -> None:
    """Raise DataError if a column has no observed entry in the training part; the counts are given, (D,)."""
    never = observed == 0
    if never.any():
        told = np.array(names)[never].tolist()
        raise DataError(
            f"no entry of {few(told)} was observed in the training part: there is nothing to learn; leave "
            f"{'it' if len(told) == 1 else 'them'} out with drop={told!r}"
        )


def _observed_rows(rows: dict[Part, Array], empty: Array) -> tuple[dict[Part, Array], list[str]]:
    """The rows of each part, (N,), without those that have no observed entry."""
    if not empty.any():
        return rows, []
    kept = {part: index[~empty[index]] for part, index in rows.items()}
    if bare := [part for part, index in kept.items() if not len(index)]:
        raise DataError(f"no row of the {bare[0]} part has an observed entry")
    which = few([str(row) for row in np.flatnonzero(empty)])
    told = (f"Row {which} has", "is") if empty.sum() == 1 else (f"Rows {which} have", "are")
    return kept, [f"{told[0]} no observed entry (counted from 0) and {told[1]} left out."]


def _kept(rows: Rows) -> Rows:
    """A part: read in place if it is large, otherwise in memory."""
    return rows if large(rows.shape) else Rows(rows[:])


def _differs(rows: Rows, center: Array, which: Array) -> Array:
    """Which of some columns hold a value other than that of a constant column."""
    found = np.zeros(len(center), dtype=bool)
    if which.any():
        for _, x in rows.select(np.flatnonzero(which)).blocks():
            found[which] |= np.any((x != center[which]) & ~np.isnan(x), axis=0)
    return found


def _dependencies(x: Array, columns: Sequence[Column]) -> tuple[Dependencies, Dependencies]:
    """Linear dependencies among numeric columns in the complete rows: exact ones, and those up to rounding."""
    numbers = np.array([j for j, column in enumerate(columns) if not column.categories])
    if not len(numbers):
        return Dependencies(), Dependencies()
    complete = ~np.isnan(x[:, numbers]).any(axis=1)
    if not complete.all() and complete.sum() < ENOUGH_ROWS * len(numbers):
        told = Dependencies(unknown=f"in rows without gaps, of which there are {complete.sum()}")
        return told, told
    rows = x[:, numbers][complete] if not complete.all() or len(numbers) < x.shape[1] else x
    found = dependencies(rows), dependencies(rows, decimals=True)
    return tuple(  # type: ignore[return-value]
        replace(f, sets=tuple((tuple(numbers[list(members)].tolist()), more) for members, more in f.sets))
        for f in found
    )


class Seen(NamedTuple):
    """The results of a pass over the parts of a data set: fingerprints, and moments of the training columns and of all.

    The moments of all numbers cover only columns whose numbers are amounts.
    """

    fingerprints: list[str]
    train: Moments
    together: Moments


def _seen(parts: dict[Part, Rows], options: Sequence[Any], amounts: Array) -> Seen:
    """One pass over the parts, with a fingerprint for each of several options.

    A fingerprint is a SHA-256 of the values loaded, not of means, whose last bits differ between machines.
    """
    sizes = [len(part) for part in parts.values()]
    pooled = slice(None) if amounts.all() or not amounts.any() else amounts
    digests = [hashlib.sha256(json.dumps([sizes, of]).encode()) for of in options]
    columns: list[Moments] = []
    together: list[Moments] = []
    with np.errstate(all="ignore"):
        for part, rows in parts.items():
            for _, x in rows.blocks():
                for digest in digests:
                    digest.update(np.ascontiguousarray(x, dtype="<f8").data)
                if part == "train":
                    columns.append(Moments.of(x))
                    together.append(Moments.of(x[:, pooled].reshape(-1, 1)))
        return Seen([digest.hexdigest() for digest in digests], reduce(add, columns), reduce(add, together))


def _moments(rows: Rows) -> Moments:
    """Mean and standard deviation of each column, (D,)."""
    with np.errstate(all="ignore"):
        return reduce(add, (Moments.of(x) for _, x in rows.blocks()))


def _centered(found: Moments, added: Array, constant: Array, columns: Sequence[str]) -> tuple[Array, Array]:
    """Mean and standard deviation (D,), exact where constant; ``added`` is the noise's variance."""
    with np.errstate(all="ignore"):
        std = np.sqrt(found.variance + added)
    lost = ~np.isfinite(std) | ((std == 0) & ~constant)
    if lost.any():
        column = columns[int(np.argmax(lost))]
        raise DataError(f"column {column!r} varies too much or too little to square in float64: use another unit")
    return np.where(constant, found.least, found.mean), np.where(constant, 0.0, std)


def _scaled(
    kind: ScalingKind, amounts: Array, together: Moments, added: Array, center: Array, std: Array
) -> tuple[Array, Array]:
    """Center and scale of each column, (D,) each; category numbers are not amounts and stay unchanged."""
    if kind == "none":
        center, std = np.zeros_like(std), np.ones_like(std)
    elif kind == "scalar" and amounts.any():
        noise = added[amounts].mean(keepdims=True)
        same = (together.least == together.most) & (noise == 0)
        mean, spread = _centered(together, noise, same, ["all together"])
        center, std = np.full_like(std, mean[0]), np.full_like(std, spread[0])
    return np.where(amounts, center, 0.0), np.where(~amounts | (std == 0), 1.0, std)


def _constant_notes(columns: Sequence[Column], constant: Array, varying_in_test: Sequence[str]) -> list[str]:
    same = [column for column, is_constant in zip(columns, constant, strict=True) if is_constant]
    words = [column.name for column in same if column.categories]
    numbers = [column.name for column in same if not column.categories]
    notes = []
    for names, so in (
        (numbers, "a learned variance runs away on {}, which raises the density but says nothing about the data"),
        (words, "nothing can be learned from {}"),
    ):
        if names:
            are, them = ("is", "it") if len(names) == 1 else ("are", "them")
            notes.append(
                f"{len(names)} of {len(columns)} columns {are} constant in the training part ({few(names)}): "
                f"{so.format(them)}."
            )
    if varying_in_test:
        notes.append(f"Constant in training, but not in the test part: {few(varying_in_test)}.")
    return notes


def _dependence_notes(columns: Sequence[str], found: Dependencies, most: int = 3) -> list[str]:
    """A sentence for each set of linearly dependent columns, or the reason why none was looked for."""
    if found.unknown:
        return [f"Exact linear dependencies are looked for {found.unknown}."]
    notes = []
    for members, superfluous in found.sets[:most]:
        names = [columns[j] for j in members]
        if len(names) == 2:
            told = f"{names[1]} is a linear function of {names[0]} in the training part"
        elif superfluous == len(names) - 1:
            told = f"{listing(names, most=NAMED)} are linear functions of one another in the training part"
        else:
            told = (
                f"{listing(names, most=NAMED)} are linearly dependent in the training part, like shares that "
                "sum to a constant or a total and its parts"
            )
        notes.append(f"{told}: a learned variance can run away, since nothing is left over.")
    if len(found.sets) > most:
        more = [columns[j] for members, _ in found.sets[most:] for j in members]
        notes.append(f"The same holds for {few(more)}, in {len(found.sets) - most} more sets.")
    return notes


def _nearly_notes(columns: Sequence[str], found: Dependencies, nearly: Dependencies, most: int = 3) -> list[str]:
    """A sentence for each set of columns that are dependent up to rounding."""
    known = [set(members) for members, _ in found.sets]
    more = [members for members, _ in nearly.sets if not any(set(members) <= exact for exact in known)]
    return [
        f"{listing([columns[j] for j in members], most=NAMED)} are linearly dependent in the training part "
        "up to the rounding of their decimals: there a density rewards how closely a pair fits that rounding."
        for members in more[:most]
    ]


def _sample_notes(some: int, rows: int, *found: Dependencies) -> list[str]:
    """A sentence if dependencies were looked for in only some training rows; if those have none, all have none."""
    if some == rows or not any(of.sets for of in found):
        return []
    return [f"Linear dependencies were looked for in {some} evenly spaced rows of the {rows} in the training part."]


def _size_notes(train: Rows) -> list[str]:
    """A sentence on how a large training part is read, and what uses only a sample of it."""
    if not large(train.shape):
        return []
    n, some, numbers = len(train), looked_at(train.shape), math.prod(train.shape)
    return [
        f"The {numbers:,} numbers of the training part are read on demand. Anything that needs all of them before "
        "training, such as a mixture that starts from clusters, uses "
        f"{some:,} of the {n:,} rows, drawn at random."
    ]


def _labelled(rows: Rows, columns: Sequence[str], index: Array, labels: Array | None) -> xarray.DataArray:
    from zoo.lazy import data_array  # which loads xarray

    coords: dict[str, Any] = {"obs": index, "feature": list(columns)}
    if labels is not None:
        coords["label"] = ("obs", labels[index])
    return data_array(rows, ("obs", "feature"), coords, "x")
