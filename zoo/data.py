"""What a pair is trained on: three parts of one data set, their support, their scaling and the way back."""

from __future__ import annotations

import hashlib
import json
import math
import reprlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, cast, get_args

import numpy as np

from zoo.cards import Support
from zoo.dependencies import Dependencies, dependencies
from zoo.errors import DataError
from zoo.notation import notation
from zoo.options import MAX_SEED, count, switch
from zoo.splits import PARTS, Part, SplitChoice, split_rows

if TYPE_CHECKING:
    import xarray

__all__ = ["PARTS", "Binarize", "Data", "Noise", "Part", "Scaling", "ScalingKind", "outside_support", "real_array"]

Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]
Levels: TypeAlias = tuple[float, ...]
ScalingKind = Literal["none", "scalar", "column"]
Noise = Literal["binarize", "dequantize"]
Binarize = Literal["threshold", "stochastic"]

# Integers on an equally spaced grid pass for ordinal up to this many levels. A pixel has at most 256. In a
# table few levels are ratings or grades; beyond 32, integers are more likely counts or amounts.
IMAGE_LEVELS, TABLE_LEVELS, DECLARED_LEVELS = 256, 32, 65536
SHORT = reprlib.Repr()  # of a value in a message
SHORT.maxstring = SHORT.maxlong = 60
MOST_EXACT = 2**53  # up to which float64 holds every integer


@dataclass(frozen=True, kw_only=True, eq=False)
class Scaling:
    """The map into the units that models are trained in: x_scaled = (x - center) / scale, both (D,)."""

    kind: ScalingKind
    center: Array
    scale: Array

    @property
    def log_volume(self) -> float:
        """Σ_j log scale_j: log p(x) = log p(x_scaled) - log_volume."""
        return float(np.log(self.scale).sum())

    def apply(self, x: Any) -> Array:
        """Values (..., D) from the units as loaded to scaled units."""
        return cast(Array, (self._rows(x) - self.center) / self.scale)

    def undo(self, x: Any) -> Array:
        """Values (..., D) from scaled units back to the units as loaded."""
        return cast(Array, self._rows(x) * self.scale + self.center)

    def _rows(self, x: Any) -> Array:
        values = real_array(x)
        if not values.ndim or values.shape[-1] != len(self.scale):
            raise DataError(f"x has shape {values.shape}: its last axis has to be the {len(self.scale)} columns.")
        return values


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Data:
    """A data set in three parts, with what a likelihood must know about it.

    ``train``, ``validation`` and ``test`` are DataArrays (obs, feature) in the units as loaded. They are
    float64, which holds every number of a single-precision file and every integer up to 2^53 exactly (a larger one
    is refused if it would be rounded); training may round later. Coordinate
    ``obs`` is the row in the source, ``feature`` the column's name, ``label`` (obs) the class where there is
    one. ``support`` is what the values are; ordinal data have their ``levels``. ``train_std`` (D,) is the
    standard deviation of each column over the training part, noise included, and exactly 0 where the column
    is constant. ``dependent_columns`` take part in an exact linear dependence in the training part
    (:func:`zoo.dependencies.dependencies` says what is exact); noise leaves none.

    With ``noise``, the training part holds what :meth:`corrupt` draws from, afresh at every step, and
    validation and test were drawn once; data that are dequantized keep the ``levels`` they had. ``spacing`` is the
    distance of two levels of discrete data, dequantized or not, and None of continuous ones. ``fingerprint`` is
    the same in every process; it follows the values, columns, support, split and options, not the name and
    the labels; ``mass_fingerprint`` follows the discrete values, columns and split alone, so that it is shared by
    all data on which log masses may be compared, and is empty for continuous data. ``origin`` is the call of
    :func:`zoo.load_data` that gives these data again, or empty if they came from memory.

    >>> Data.from_array([[k / 3, k / 7] for k in range(20)], name="ramp")
    <Data 'ramp': 14 + 2 + 4 rows, 2 columns, real, scaling column>
    """

    name: str
    train: xarray.DataArray
    validation: xarray.DataArray
    test: xarray.DataArray
    support: Support
    levels: Levels | None
    scaling: Scaling
    image_shape: tuple[int, ...] | None
    noise: Noise | None
    spacing: float | None
    train_std: Array
    varying_in_test: tuple[str, ...]
    fingerprint: str
    mass_fingerprint: str
    notes: tuple[str, ...]
    origin: str = ""
    dependent_columns: tuple[str, ...] = ()

    def __repr__(self) -> str:
        rows = " + ".join(str(len(part)) for part in (self.train, self.validation, self.test))
        levels = f" ({len(self.levels)} levels)" if self.levels else ""
        image = f", {' x '.join(map(str, self.image_shape))} image" if self.image_shape else ""
        kinds = f"{self.support}{levels}, scaling {self.scaling.kind}"
        return f"<Data {self.name!r}: {rows} rows, {self.features} columns, {kinds}{image}>"

    @classmethod
    def from_array(
        cls,
        x: Any,
        *,
        name: str = "array",
        columns: Sequence[str] | None = None,
        labels: Any = None,
        support: Support | Literal["auto"] = "auto",
        levels: Sequence[float] | None = None,
        image_shape: Sequence[int] | None = None,
        scaling: ScalingKind | Literal["auto"] = "auto",
        split: SplitChoice = "grouped",
        groups: Any = None,
        seed: int = 0,
        binarize: Binarize | float | None = None,
        dequantize: bool = False,
    ) -> Data:
        """Split, check and scale an array or data frame (N, D), or images (N, H, W) or (N, C, H, W).

        ``labels`` (N,) stratify the split. ``split="grouped"`` is 70 % for training, 10 % for validation and 20 %
        for the test, where rows of one of the ``groups`` (N,) stay together, and so do equal rows unless chance
        explains that they are equal (:func:`zoo.splits.split_rows` says how that is judged, and how it goes
        with labels); ``"rows"`` takes the same fractions row by row. Three fractions of your own
        keep groups and equal rows together as well. The part of every row, given by name, is taken as it is.
        The notes tell how many rows of validation and test also stand in training.

        ``support="auto"`` is the first of these that all values have:
        ``binary``, ``ordinal`` (integers on an equally spaced grid, of at most 256 levels in images and 32 in
        tables), ``count``, ``unit``, ``real``. A declared support is checked. ``scaling="auto"`` is one mean
        and standard deviation for images and ordinal data, one per column for other tables, none for binary
        data; they come from the training part alone.

        An intensity runs from 0 at the lowest level to 1 at the highest. ``binarize="threshold"`` makes ones
        of intensities of at least 0.5 (or a number of yours), ``"stochastic"`` draws ones with the intensity
        as their probability. ``dequantize=True`` spreads every value uniformly over the distance of two
        levels. Both kinds of draw are fresh at every training step, and made once, from ``seed``, for
        validation and test.

        Raises :class:`~zoo.errors.DataError`, with column and row, if values are missing, infinite, no
        numbers or outside the declared support, or if a part would be left without rows, and
        :class:`~zoo.errors.OptionError` for a ``seed`` or a ``dequantize`` that is none.

        >>> data = Data.from_array([[1, 5], [2, 4], [3, 3], [4, 2], [5, 1]], name="ratings", dequantize=True)
        >>> data.support, data.noise, data.spacing
        ('real', 'dequantize', 1.0)
        """
        values, names, shape = _matrix(x, columns, image_shape)
        labels = _checked_names("label", labels, len(values))
        groups = _checked_names("group", groups, len(values))
        kind = _checked("scaling", scaling, ("auto", *get_args(ScalingKind)))
        _checked("support", support, ("auto", *get_args(Support)))
        if switch("dequantize", dequantize) and binarize is not None:
            raise DataError("binarize and dequantize exclude each other: leave one of them out")
        # a caller may declare the support that results, which the values do not have yet
        resulting = "binary" if binarize is not None else "real" if dequantize else None
        declared = "auto" if support == resulting else support
        support, grid = _resolve_support(values, names, declared, levels, shape is not None)
        rng = np.random.default_rng(count("seed", seed, least=0, most=MAX_SEED))
        discrete = support not in ("real", "unit") or bool(np.all(values == np.rint(values)))
        rows, split_notes = split_rows(values, split, groups, labels, discrete, rng)

        if kind == "auto":
            one_scale = grid is not None or shape is not None
            kind = "none" if "binary" in (support, resulting) else "scalar" if one_scale else "column"
        noise: Noise | None = None
        spacing: float | None = None
        notes: list[str] = []
        if binarize is not None:
            values, noise, how = _binarized(values, support, grid, binarize)
            name, support, grid, spacing = f"{name} (binarized {how})", "binary", None, 1.0
            notes.append(f"Binarized {how}: the scores are log masses of zeros and ones.")
        elif dequantize:
            noise, spacing = "dequantize", _spacing(support, grid)
            name, support = f"{name} (dequantized)", "real"
            notes.append(
                f"Dequantized with uniform noise of width {spacing:g}: the log density is, in expectation, "
                "a lower bound on the log mass minus D log spacing (Theis et al. 2016)."
            )
        elif support in ("binary", "ordinal", "count"):
            spacing = _spacing(support, grid)
        parts = {part: values[index] for part, index in rows.items()}
        undithered = dict(parts)
        if noise:
            for part in PARTS[1:]:
                parts[part] = _corrupt(parts[part], rng.random(parts[part].shape), noise, spacing)
            notes.append(f"Training draws anew at every step; validation and test were drawn once, seed {seed}.")

        train = parts["train"]
        added = np.zeros(len(names))
        if noise == "binarize":
            added = np.mean(train * (1 - train), axis=0)
        elif noise and spacing:
            added += spacing**2 / 12
        center, train_std = _moments(train, added, names)
        constant = train_std == 0
        # noise of a column's own makes it independent of all others
        found = Dependencies() if noise else dependencies(train)
        nearly = Dependencies() if noise else dependencies(train, decimals=True)
        varying = tuple(np.array(names)[constant & np.any(parts["test"] != train[0], axis=0)].tolist())
        arrays = {part: _labelled(parts[part], names, index, labels) for part, index in rows.items()}
        return cls(
            name=name,
            train=arrays["train"],
            validation=arrays["validation"],
            test=arrays["test"],
            support=support,
            levels=grid,
            scaling=_scaling(kind, train, added, center, train_std),
            image_shape=shape,
            noise=noise,
            spacing=spacing,
            train_std=train_std,
            varying_in_test=varying,
            fingerprint=_fingerprint(parts, [names, support, grid, kind, shape, noise, spacing]),
            mass_fingerprint=_mass_fingerprint(undithered if noise == "dequantize" else parts, names, spacing),
            notes=(
                *notes,
                *split_notes,
                *_constant_notes(names, constant, varying),
                *_dependence_notes(names, found),
                *_nearly_notes(names, found, nearly),
            ),
            dependent_columns=tuple(names[j] for j in found.columns),
        )

    @property
    def features(self) -> int:
        """The number of columns, D."""
        return int(self.train.shape[1])

    @property
    def columns(self) -> tuple[str, ...]:
        """The names of the columns, in order."""
        return tuple(self.train["feature"].values.tolist())

    @property
    def constant_columns(self) -> tuple[str, ...]:
        """The columns that are constant in the training part: a learned variance runs away on them."""
        return tuple(c for c, std in zip(self.columns, self.train_std, strict=True) if std == 0)

    @property
    def log_volume(self) -> float:
        """Of the change of variables of a density, log p(x) = log p(x_scaled) - log_volume: Σ_j log scale_j.

        A mass does not change with the units of its values and takes no such term.
        """
        return self.scaling.log_volume

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
        """Dequantized values (..., D), in the units as loaded, back on the levels they came from; others as they are.

        >>> data = Data.from_array([[1, 5], [2, 4], [3, 3], [4, 2], [5, 1]], dequantize=True)
        >>> data.on_levels([[1.3, 4.6]]).tolist()
        [[1.0, 5.0]]
        """
        values: Array = np.asarray(x, dtype=np.float64)
        if self.noise != "dequantize" or self.spacing is None:
            return values
        low = self.levels[0] if self.levels else 0.0
        return cast(Array, low + self.spacing * np.rint((values - low) / self.spacing))

    def corrupt(self, x: Any, u: Any, scale: Any = 1.0) -> Any:
        """Training values x with fresh noise from u, uniform in [0, 1), both (..., D); without noise, x.

        ``binarize``: u < x. ``dequantize``: x + (u - 1/2) spacing / scale, where ``scale`` is 1 for x in the
        units as loaded and ``scaling.scale`` for x in scaled units. Arithmetic alone: tensors pass as arrays
        do, and keep their type.

        >>> data = Data.from_array([[0.2], [0.4], [0.6], [0.8]], binarize="stochastic")
        >>> data.corrupt(np.array([[0.2], [0.6]]), np.array([[0.5], [0.5]])).tolist()
        [[0.0], [1.0]]
        """
        return _corrupt(x, u, self.noise, self.spacing, scale)

    def summary(self) -> dict[str, Any]:
        """What a report says about the data, ready for JSON.

        >>> Data.from_array([[0], [1], [1], [0]], name="coin").summary()["support"]
        'binary'
        """
        told = (
            "name",
            "features",
            "support",
            "levels",
            "image_shape",
            "columns",
            "constant_columns",
            "dependent_columns",
        )
        return {
            **{name: _jsonable(getattr(self, name)) for name in (*told, "varying_in_test", "noise", "notes")},
            **{str(part): len(getattr(self, part)) for part in PARTS},
            "scaling": self.scaling.kind,
        }

    def outline(self) -> dict[str, Any]:
        """Everything but the rows, ready for JSON, where floats survive exactly: enough to rebuild a pair.

        >>> data = Data.from_array([[0.1], [0.2], [0.7], [0.3]])
        >>> Data.from_outline(json.loads(json.dumps(data.outline()))).outline() == data.outline()
        True
        """
        kept = [field.name for field in fields(self) if field.name not in PARTS]
        return {name: _jsonable(getattr(self, name)) for name in (*kept, "columns")}

    @classmethod
    def from_outline(cls, outline: dict[str, Any]) -> Data:
        """The data of :meth:`outline`, with three parts of no rows."""
        kept: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in outline.items()}
        columns, scaling = kept.pop("columns"), kept.pop("scaling")
        kept["train_std"] = np.array(kept["train_std"])
        kept["scaling"] = Scaling(
            kind=scaling["kind"], center=np.array(scaling["center"]), scale=np.array(scaling["scale"])
        )
        empty = _labelled(np.empty((0, len(columns))), columns, np.empty(0, dtype=np.int64), None)
        return cls(train=empty, validation=empty, test=empty, **kept)


def _jsonable(value: Any) -> Any:
    if isinstance(value, Scaling):
        return {"kind": value.kind, "center": value.center.tolist(), "scale": value.scale.tolist()}
    if isinstance(value, np.ndarray):
        return value.tolist()
    return list(value) if isinstance(value, tuple) else value


def real_array(x: Any) -> Array:
    """The values as float64."""
    try:
        if np.iscomplexobj(x):
            raise TypeError
        return np.asarray(x, dtype=np.float64)
    except (TypeError, ValueError, OverflowError):
        raise DataError(f"x is a {type(x).__name__} and no array of real numbers.") from None


def _checked(argument: str, value: Any, allowed: Sequence[str]) -> Any:
    if not isinstance(value, str) or value not in allowed:
        raise DataError(f"{argument}={value!r} is unknown: choose one of {', '.join(map(repr, allowed))}")
    return value


def _few(names: Sequence[str], most: int = 8) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def _refuse(bad: Array, values: Array, columns: Sequence[str], complaint: str, remedy: str) -> None:
    """Name the first of the bad entries (N, D), if there are any, in the order of the rows."""
    if bad.any():
        row, j = divmod(int(np.argmax(bad)), len(columns))
        value = values[row, j] if values.dtype.kind in "mM" else values[row].tolist()[j]
        found = f"{str(value) if values.dtype.kind in 'mM' else SHORT.repr(value)} is {complaint}"
        where = _few(np.array(columns)[bad.any(axis=0)].tolist())
        more = f" ({bad.sum()} such values, in {where})" if bad.sum() > 1 else ""
        raise DataError(f"column {columns[j]!r}, row {row} (counted from 0): {found}{more}; {remedy}")


def _matrix(
    x: Any, columns: Sequence[str] | None, image_shape: Sequence[int] | None
) -> tuple[Array, list[str], tuple[int, ...] | None]:
    """Finite float64 values (N, D), the names of the columns, and the shape of a row that is an image."""
    if np.ma.is_masked(x):
        raise DataError("x has masked entries, which are missing values: fill them in, or leave out their rows")
    if hasattr(x, "toarray"):
        raise DataError(f"x is sparse ({type(x).__name__}): pass x.toarray()")
    try:
        values = np.asarray(x)
        framed = hasattr(x, "select_dtypes")
        if _beyond_floats(x.select_dtypes("integer") if framed else values):
            # as they are: NumPy rounds the integers of a frame that has floats beside them
            values = np.asarray((x if framed else values).astype(object))
    except (TypeError, ValueError, RuntimeError) as error:
        raise DataError(f"the rows of x do not make an array: {error}") from error
    if values.ndim not in (2, 3, 4) or values.size == 0:
        hint = "; x.reshape(-1, 1) makes one column" if values.ndim == 1 and values.size else ""
        raise DataError(f"need (N, D), (N, H, W) or (N, C, H, W), none of them 0; the shape is {values.shape}{hint}")
    shape = _checked_sides(image_shape) or (values.shape[1:] if values.ndim > 2 else None)
    values = values.reshape(len(values), -1)
    features = values.shape[1]
    if shape and (math.prod(shape) != features or len(shape) not in (2, 3)):
        raise DataError(f"image_shape={shape} must be (H, W) or (C, H, W) and multiply to {features} columns")
    if columns is None:
        prefix = "pixel_" if shape else "x"
        numbered = [prefix + "_".join(map(str, at)) for at in np.ndindex(shape or (features,))]
        columns = getattr(x, "columns", numbered)
    try:
        names = [str(column) for column in columns]
    except TypeError:
        raise DataError(f"columns={columns!r} are no names: give one for each column of x") from None
    if len(names) != features or len(set(names)) != features:
        raise DataError(f"{features} columns need {features} different names; given are {len(names)}: {_few(names)}")
    values = _floats(values, names)
    remedy = "fill in the values, or leave out their rows or columns"
    _refuse(np.isnan(values), values, names, "a missing value", remedy)
    _refuse(np.isinf(values), values, names, "infinite", remedy)
    return values, names, shape


def _checked_sides(image_shape: Any) -> tuple[int, ...] | None:
    if image_shape is None:
        return None
    sides = np.asarray(image_shape)
    if sides.dtype.kind not in "iu" or sides.ndim != 1 or not np.all(sides > 0):
        raise DataError(f"image_shape={image_shape!r} must be positive whole numbers: (H, W) or (C, H, W)")
    return tuple(sides.tolist())


def _floats(values: Array, columns: Sequence[str]) -> Array:
    """float64, with -0 made 0 so that equal values have equal bytes."""
    if values.dtype.kind not in "biuf":
        bad = np.vectorize(_not_a_number, otypes=[bool])(values.astype(object)) | (values.dtype.kind in "mM")
        row, j = divmod(int(np.argmax(bad)), len(columns))
        complaint = "not a number"
        remedy = f"leave the column out, encode it, or, if it holds the classes, say labels={columns[j]!r}"
        told = [str(value) for value in values[bad[:, j], j][:1000]] if bad.any() else [""]
        if isinstance(values[row, j], Real):
            complaint = "beyond what float64 holds exactly"
            remedy = "use another unit, or leave the column out if it numbers the rows"
        elif written := notation(told):
            complaint, remedy = f"not a number but {written.name}", written.mend(columns[j], told)
        elif row == 0 and len(values) > 2 and bad[:, j].sum() == 1 and isinstance(values[0, j], str):
            complaint = "not a number but a word above numbers"
            remedy = "if its row holds the units, load the frame of pandas.read_csv(..., skiprows=[1])"
        _refuse(bad, values, columns, complaint, remedy)
    return values.astype(np.float64) + 0.0


def _beyond_floats(x: Any) -> bool:
    """Whether there are integers among which float64 has gaps."""
    values = np.asarray(x)
    return values.dtype.kind in "iu" and bool(np.any((values > MOST_EXACT) | (values < -MOST_EXACT)))


def _not_a_number(value: Any) -> bool:
    try:
        if isinstance(value, Integral) and int(float(value)) != value:
            return True
        float(value)
    except (TypeError, ValueError, OverflowError):
        return value is not None
    return isinstance(value, np.datetime64 | np.timedelta64)  # whose float is a number of days or seconds


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


_HOLDS: dict[str, Callable[[Array], Array]] = {
    "binary": lambda x: (x == 0) | (x == 1),
    "ordinal": lambda x: x == np.rint(x),
    "count": lambda x: (x >= 0) & (x == np.rint(x)),
    "unit": lambda x: (x >= 0) & (x <= 1),
    "real": lambda x: np.ones(x.shape, dtype=bool),
}
_REMEDY = {
    "binary": 'binarize="threshold" or "stochastic" makes zeros and ones',
    "ordinal": "name the levels, equally spaced, as levels=range(17) does",
    "count": "counts are 0, 1, 2, ...",
    "unit": "divide by the largest possible value",
}


def outside_support(x: Array, support: str, grid: Levels | None) -> Array:
    """Which values (N, D) the support does not contain."""
    if support != "ordinal" or not grid:
        return ~_HOLDS[support](x)
    step = grid[1] - grid[0]
    nearest = np.clip(np.rint((x - grid[0]) / step), 0, len(grid) - 1).astype(np.int64)
    return np.asarray(np.abs(np.array(grid)[nearest] - x) > 1e-6 * step)


def _resolve_support(
    x: Array, columns: Sequence[str], declared: str, levels: Sequence[float] | None, image: bool
) -> tuple[Support, Levels | None]:
    """The support, checked, and the levels of ordinal data."""
    if levels is None:
        most = DECLARED_LEVELS if declared == "ordinal" else IMAGE_LEVELS if image else TABLE_LEVELS
        grid = _integer_grid(x, most)
    elif declared in ("auto", "ordinal"):
        grid, declared = _checked_levels(levels), "ordinal"
    else:
        raise DataError(f"levels belong to ordinal data, not to support={declared!r}: leave one of them out")
    if declared == "auto":
        candidates = ["binary", *(["ordinal"] if grid else []), "count", "unit", "real"]
        declared = next(support for support in candidates if not outside_support(x, support, grid).any())
    remedy = f'{_REMEDY.get(declared, "")}; support="auto" infers what the values are'
    _refuse(outside_support(x, declared, grid), x, columns, f"outside the support {declared!r}", remedy)
    if declared == "ordinal" and not grid:
        raise DataError(f"no grid of 2 to {DECLARED_LEVELS} levels holds these values; {remedy}")
    return cast(Support, declared), grid if declared == "ordinal" else None


def _checked_levels(levels: Sequence[float]) -> Levels:
    array = np.asarray(levels)
    steps = np.diff(array.astype(np.float64)) if array.ndim == 1 and array.dtype.kind in "iuf" else np.empty(0)
    if not len(steps) or not steps[0] > 0 or not np.allclose(steps, steps[0], rtol=1e-6, atol=0):
        raise DataError(f"levels={levels!r} must be two or more increasing, equally spaced numbers: levels=range(17)")
    return tuple(array.astype(np.float64).tolist())


def _integer_grid(x: Array, most: int) -> Levels | None:
    """The coarsest grid of equally spaced integers that holds all values, if it has 2 to ``most`` levels."""
    # all parts count: the levels are the sample space, which is given and not estimated
    low, high = float(x.min()), float(x.max())
    if np.any(x != np.rint(x)) or max(-low, high) > MOST_EXACT:
        return None
    step = int(np.gcd.reduce((x - low).astype(np.int64), axis=None))
    return tuple(np.arange(low, high + 1, step).tolist()) if 0 < high - low < most * step else None


def _binarized(x: Array, support: str, grid: Levels | None, how: Binarize | float) -> tuple[Array, Noise | None, str]:
    """Zeros and ones, or the intensities to draw them from; the noise; how it was done, in words."""
    if support in ("real", "count"):
        raise DataError(
            f"binarize needs intensities between two known ends, and these values are {support}: "
            "bring them into [0, 1], or name their levels"
        )
    low, high = (grid[0], grid[-1]) if grid else (0.0, 1.0)
    intensity = (x - low) / (high - low)
    if how == "stochastic":
        return intensity, "binarize", "stochastically"
    threshold = 0.5 if how == "threshold" else how
    if not isinstance(threshold, Real) or not 0 < threshold < 1:
        raise DataError(f'binarize={how!r} must be "threshold", "stochastic" or a number between 0 and 1')
    return (intensity >= threshold) * 1.0, None, "by threshold" if how == "threshold" else f"at {threshold:g}"


def _spacing(support: str, grid: Levels | None) -> float:
    if support in ("real", "unit"):
        raise DataError(f"dequantize is for discrete data, and these are {support}: leave it out, or name the levels")
    return grid[1] - grid[0] if grid else 1.0


def _corrupt(x: Any, u: Any, noise: Noise | None, spacing: float | None, scale: Any = 1.0) -> Any:
    if noise == "binarize":
        return (u < x) + 0 * x  # the sum has the type of x
    return x + (u - 0.5) * (spacing / scale) if noise == "dequantize" and spacing is not None else x


def _moments(x: Array, added: Array, columns: Sequence[str]) -> tuple[Array, Array]:
    """Mean and standard deviation (D,), exact where constant; ``added`` is the variance of the noise."""
    constant = np.all(x == x[0], axis=0) & (added == 0)
    with np.errstate(all="ignore"):
        mean, std = x.mean(axis=0), np.sqrt(x.var(axis=0) + added)
    lost = ~np.isfinite(std) | ((std == 0) & ~constant)
    if lost.any():
        column = columns[int(np.argmax(lost))]
        raise DataError(f"column {column!r} varies too much or too little to square in float64: use another unit")
    return np.where(constant, x[0], mean), np.where(constant, 0.0, std)


def _scaling(kind: ScalingKind, x: Array, added: Array, center: Array, std: Array) -> Scaling:
    if kind == "none":
        center, std = np.zeros_like(std), np.ones_like(std)
    elif kind == "scalar":
        mean, spread = _moments(x.reshape(-1, 1), added.mean(keepdims=True), ["all together"])
        center, std = np.full_like(std, mean[0]), np.full_like(std, spread[0])
    return Scaling(kind=kind, center=center, scale=np.where(std == 0, 1.0, std))


def _constant_notes(columns: Sequence[str], constant: Array, varying_in_test: Sequence[str]) -> list[str]:
    names = np.array(columns)[constant].tolist()
    if not names:
        return []
    are, them = ("is", "it") if len(names) == 1 else ("are", "them")
    notes = [
        f"{len(names)} of {len(columns)} columns {are} constant in the training part ({_few(names)}): a learned "
        f"variance runs away on {them}, which gains density and says nothing about the data."
    ]
    if varying_in_test:
        notes.append(f"Constant in training, but not in the test part: {_few(varying_in_test)}.")
    return notes


def _dependence_notes(columns: Sequence[str], found: Dependencies, most: int = 3) -> list[str]:
    """A sentence for each set of columns that depend on one another, or the reason why none was looked for."""
    if found.unknown:
        return [f"Exact linear dependencies are looked for {found.unknown}."]
    notes = []
    for members, superfluous in found.sets[:most]:
        names = [columns[j] for j in members]
        if len(names) == 2:
            told = f"{names[1]} is a linear function of {names[0]} in the training part"
        elif superfluous == len(names) - 1:
            told = f"{_listed(names)} are linear functions of one another in the training part"
        else:
            told = (
                f"{_listed(names)} are linearly dependent in the training part, as shares that sum to a constant or "
                "a total beside its parts are"
            )
        notes.append(f"{told}: a learned variance can run away on what is left over, which is nothing.")
    if len(found.sets) > most:
        more = [columns[j] for members, _ in found.sets[most:] for j in members]
        notes.append(f"So are, in {len(found.sets) - most} more sets, {_few(more)}.")
    return notes


def _nearly_notes(columns: Sequence[str], found: Dependencies, nearly: Dependencies, most: int = 3) -> list[str]:
    """A sentence for each set of columns that depend on one another but for their decimals."""
    known = [set(members) for members, _ in found.sets]
    more = [members for members, _ in nearly.sets if not any(set(members) <= exact for exact in known)]
    return [
        f"{_listed([columns[j] for j in members])} are linearly dependent in the training part but for the rounding of "
        "their decimals: there a density rewards how closely a pair fits that rounding."
        for members in more[:most]
    ]


def _listed(names: Sequence[str], most: int = 8) -> str:
    return _few(names, most) if len(names) > most else f"{', '.join(names[:-1])} and {names[-1]}"


def _fingerprint(parts: dict[Part, Array], options: list[Any]) -> str:
    """SHA-256 over what was loaded, not over means, whose last bits differ between machines."""
    digest = hashlib.sha256(json.dumps([[len(part) for part in parts.values()], options]).encode())
    for part in parts.values():
        digest.update(np.ascontiguousarray(part, dtype="<f8").tobytes())
    return digest.hexdigest()


def _mass_fingerprint(parts: dict[Part, Array], names: list[str], spacing: float | None) -> str:
    return "" if spacing is None else _fingerprint(parts, [names, spacing])


def _labelled(x: Array, columns: Sequence[str], rows: Array, labels: Array | None) -> xarray.DataArray:
    import xarray

    coords: dict[str, Any] = {"obs": rows, "feature": list(columns)}
    if labels is not None:
        coords["label"] = ("obs", labels[rows])
    return xarray.DataArray(x, dims=("obs", "feature"), coords=coords, name="x")
