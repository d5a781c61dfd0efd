"""How one pair sees the data: conversion to its units and back, cells of recorded values, and fresh noise."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeAlias, cast

import numpy as np

from zoo.data import Scaling, noisy, real_array
from zoo.errors import DataError
from zoo.splits import by_datum
from zoo.supports import MIXED, SUPPORTS, as_modelled, seen

if TYPE_CHECKING:
    import xarray

    from zoo.cards import Card
    from zoo.data import Data

__all__ = ["View"]

Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]

LARGEST = 1e15  # in the likelihood's units: its square is a number in single precision


@dataclass(frozen=True, eq=False)
class View:
    r"""A data set in the units of a card's likelihood.

    .. math:: x_\mathrm{seen} = (x - \mathrm{center}) / \mathrm{scale}

    by column: a likelihood of real numbers sees them standardised, one of positive numbers sees them divided by their
    standard deviation, one on the unit interval sees levels mapped into it, and one of counts, levels or categories
    sees the values unchanged.

    >>> import zoo
    >>> data = zoo.Data.from_array([[1.5, 2.0], [2.5, 8.0], [4.5, 2.0], [0.5, 5.0]])
    >>> view = View(data, zoo.card("gaussian-learned"))
    >>> view.outward(view.inward([[1.0, 2.0]])).tolist()
    [[1.0, 2.0]]
    """

    data: Data
    card: Card

    @cached_property
    def _map(self) -> Scaling:
        center, scale = np.array([seen(self.card.support, column) for column in self.data.columns]).T
        return Scaling(kind=self.data.kind, center=center, scale=scale)

    @property
    def center(self) -> Array:
        """What is subtracted from each column, (D,)."""
        return self._map.center

    @property
    def scale(self) -> Array:
        """What each column is then divided by, (D,)."""
        return self._map.scale

    def inward(self, x: Any) -> Array:
        """Values (..., D) from the units as loaded to the likelihood's."""
        return self._map.apply(x)

    def outward(self, x: Any) -> Array:
        """Values (..., D) from the likelihood's units to those as loaded."""
        return self._map.undo(x)

    @cached_property
    def dense(self) -> Array:
        """For which columns the pair's formula is a density rather than a mass, (D,)."""
        if self.card.support == MIXED:
            return np.array([not SUPPORTS[column.kind.mixed_as].discrete for column in self.data.columns])
        return np.full(self.data.features, self.card.base_measure == "density")

    @cached_property
    def width(self) -> Array:
        """The widths, (D,), of cells in columns whose values stand for cells but whose formula is a density.

        In the likelihood's units; NaN for other columns.
        """
        return np.where(self.dense, self.data.resolution / self.scale, np.nan)

    @cached_property
    def filler(self) -> Array:
        """A value of each column in the likelihood's units, (D,), for missing entries."""
        return cast(Array, self.inward([[column.kind.filler(column) for column in self.data.columns]])[0])

    @property
    def log_volume(self) -> float:
        """Σ log scale: log p(x) = log p(x seen) - log_volume, in the pair's own measure."""
        return self._map.log_volume

    def log_volumes(self, x: Any, *, cells: bool = False) -> Array:
        """The same for each row of x (N, D), over its observed entries; the mass of a cell has no units."""
        taken = ~np.isnan(x) & ~(cells & ~np.isnan(self.width))
        if taken.all():
            return np.full(len(x), self.log_volume)
        return cast(Array, taken @ np.log(self.scale))

    def mean_log_volume(self, part: xarray.DataArray) -> float:
        """The mean of :meth:`log_volumes` over a part of the data, (N, D)."""
        if not self.data.missing:
            return self.log_volume
        volumes = by_datum(part, self.log_volumes)
        return float(volumes.mean() if np.ptp(volumes) else volumes[0])

    def noisy(self, x: Any, u: Any, width: Any = None) -> Any:
        """Values (..., D) in the likelihood's units with the data's noise, drawn from u, uniform in [0, 1).

        Pure arithmetic, so tensors work like arrays and keep their type; ``width`` then gives the cells as a tensor.

        >>> import zoo
        >>> data = zoo.Data.from_array([[0.2], [0.4], [0.6], [0.8]], binarize="stochastic")
        >>> view = View(data, zoo.card("bernoulli"))
        >>> view.noisy(np.array([[0.2], [0.6]]), np.array([[0.5], [0.5]])).tolist()
        [[0.0], [1.0]]
        """
        return noisy(x, u, self.data.noise, self.width if width is None else width)

    def checked(self, x: Any) -> Array:
        """Data (N, D) in the units as loaded, if the pair models such data; NaN is a missing entry.

        Raises:
            DataError: a wrong number of columns, or values without probability under the likelihood.
        """
        values, features = real_array("x", x), self.data.features
        if values.shape[:1] == (0,):
            raise DataError("x has no rows.")
        if values.ndim != 2 or values.shape[1] != features:
            raise DataError(f"x has shape {values.shape}; {self.card.name} takes (N, {features}) here.")
        columns = [as_modelled(self.card.support, column) for column in self.data.columns]
        if np.isnan(values).all():
            raise DataError("x has no observed entry: every one is NaN.")
        outside = np.stack([column.outside(values[:, j]) for j, column in enumerate(columns)], axis=1)
        outside |= np.isinf(values)
        far = ~(np.abs(self.inward(values)) < LARGEST) & ~np.isnan(values) & ~outside
        if far.any():
            row, j = np.argwhere(far)[0]
            raise DataError(
                f"x holds {values[row, j]:g} in row {row} (counted from 0), column {columns[j].name!r}: "
                "too far from the training rows for its score to be a number. A code for a missing entry? NaN, or an "
                "empty cell in a file, marks a missing entry."
            )
        if outside.any():
            row, j = np.argwhere(outside)[0]
            low, high = columns[j].range()
            within = f", from {low:g} to {high:g}" if columns[j].levels and np.isfinite([low, high]).all() else ""
            raise DataError(
                f"x holds {values[row, j]:g} in row {row} (counted from 0), column {columns[j].name!r}: "
                f"{self.card.name} takes {SUPPORTS[columns[j].support].means} there{within}. NaN, or an empty "
                "cell in a file, marks a missing entry."
            )
        return values
