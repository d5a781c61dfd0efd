"""An emission for each column of a table, all given the same latents."""

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import pyro.distributions as dist
import torch
from torch import Tensor, nn
from torch.distributions import constraints

from .emission import Emission

__all__ = ["Columns", "EachColumn", "PerColumn"]

Parts = Sequence[tuple[Sequence[int], Any]]


class PerColumn(dist.TorchDistribution):  # type: ignore[misc]
    r"""Distributions of groups of columns, independent of each other: event shape (D,).

    .. math:: p(x) = \prod_j p_j(x_j)

    Args:
        parts: the columns of each group, and their distribution of batch shape (..., d); together all D columns.

    >>> normal, coin = dist.Normal(torch.zeros(4, 2), 1.0), dist.Bernoulli(torch.full((4, 1), 0.5))
    >>> fn = PerColumn([([0, 2], normal), ([1], coin)])
    >>> fn.batch_shape, fn.event_shape, fn.log_prob(torch.zeros(3)).shape
    (torch.Size([4]), torch.Size([3]), torch.Size([4]))
    """

    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {}
    support = constraints.independent(constraints.real, 1)

    def __init__(self, parts: Parts) -> None:
        self.parts = parts
        order = [column for columns, _ in parts for column in columns]
        self.places = sorted(range(len(order)), key=order.__getitem__)  # of the columns among those of the parts
        batch_shape = torch.broadcast_shapes(*(fn.batch_shape[:-1] for _, fn in parts))
        super().__init__(batch_shape, torch.Size([len(order)]), validate_args=False)

    def expand(self, batch_shape: Any, _instance: Any = None) -> "PerColumn":
        """The same for a larger batch."""
        return PerColumn([(columns, fn.expand((*batch_shape, len(columns)))) for columns, fn in self.parts])

    def in_order(self, of_parts: Sequence[Tensor]) -> Tensor:
        """The results of each part for its columns, (..., d) each, in the order of the columns, (..., D)."""
        shape = torch.broadcast_shapes(*(values.shape[:-1] for values in of_parts))
        together = torch.cat([values.expand(*shape, values.shape[-1]) for values in of_parts], dim=-1)
        return together[..., self.places]

    def each_column_log_prob(self, x: Tensor) -> Tensor:
        """The log density or mass of each column, (..., D)."""
        return self.in_order([fn.log_prob(x[..., list(columns)]) for columns, fn in self.parts])

    def log_prob(self, x: Tensor) -> Tensor:
        """Their sum."""
        return self.each_column_log_prob(x).sum(-1)

    def sample(self, sample_shape: Any = ()) -> Tensor:
        """Draws of all columns."""
        shape = torch.Size(sample_shape)
        of_parts = [fn.expand((*self.batch_shape, len(columns))).sample(shape) for columns, fn in self.parts]
        kind = next((values.dtype for values in of_parts if values.is_floating_point()), torch.get_default_dtype())
        return self.in_order([values.to(kind) for values in of_parts])

    @property
    def mean(self) -> Tensor:
        """The mean of each column; NaN for categories, whose numbers are not amounts."""
        return self.in_order([_moment(fn, "mean") for _, fn in self.parts])

    @property
    def variance(self) -> Tensor:
        """The variance of each column; NaN for categories."""
        return self.in_order([_moment(fn, "variance") for _, fn in self.parts])


class EachColumn(dist.TorchDistribution):  # type: ignore[misc]
    """The columns of a :class:`PerColumn` as variables of their own: batch shape (..., D)."""

    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {}
    support = constraints.real

    def __init__(self, together: PerColumn) -> None:
        self.together = together
        super().__init__((*together.batch_shape, *together.event_shape), validate_args=False)

    def expand(self, batch_shape: Any, _instance: Any = None) -> "EachColumn":
        """The same for a larger batch."""
        return EachColumn(self.together.expand(torch.Size(batch_shape)[:-1]))

    def log_prob(self, x: Tensor) -> Tensor:
        """The log density or mass of each column."""
        return self.together.each_column_log_prob(x)

    def sample(self, sample_shape: Any = ()) -> Tensor:
        """Draws of all columns."""
        return self.together.sample(sample_shape)

    @property
    def mean(self) -> Tensor:
        """The mean of each column."""
        return self.together.mean

    @property
    def variance(self) -> Tensor:
        """The variance of each column."""
        return self.together.variance


def _moment(fn: Any, name: str) -> Tensor:
    if isinstance(fn, dist.Categorical):
        return torch.full_like(fn.logits[..., 0], math.nan)
    return getattr(fn, name)  # type: ignore[no-any-return]


class Columns(Emission):
    r"""Emissions of the columns of a table, which may be of different kinds, independent of each other given z.

    .. math:: p(x \mid z) = \prod_j p_j(x_j; h_j)

    Bounded if the emission of every column is. After Nazábal et al. (2020), HI-VAE, https://arxiv.org/abs/1807.03653,
    but without its approximation of counts by Stirling's formula, whose masses add up to more than 1.

    Args:
        parts: groups of columns, each with its emission; together all D columns.
    """

    def __init__(self, parts: Sequence[tuple[Sequence[int], Emission]]) -> None:
        super().__init__()
        self.columns = [list(columns) for columns, _ in parts]
        self.emissions = nn.ModuleList([emission for _, emission in parts])
        self.outputs = sum(self.sizes)

    @property
    def parts(self) -> list[tuple[list[int], Any]]:
        """Groups of columns, and their emission."""
        return list(zip(self.columns, self.emissions, strict=True))

    @property
    def sizes(self) -> list[int]:
        """How many parameters each group takes."""
        return [emission.outputs * len(columns) for columns, emission in self.parts]

    def forward(self, parameters: Tensor) -> dist.TorchDistribution:
        """From all numbers of all columns, (..., outputs), to a distribution of event shape (D,)."""
        return PerColumn(
            [
                (columns, emission(numbers.unflatten(-1, (emission.outputs, len(columns)))))
                for (columns, emission), numbers in zip(self.parts, parameters.split(self.sizes, dim=-1), strict=True)
            ]
        )

    def start(self, x: Tensor) -> Tensor:
        """The start of each group, zeros if it has none."""
        return torch.cat(
            [
                emission.start(x[:, columns]).flatten() if hasattr(emission, "start") else x.new_zeros(size)
                for (columns, emission), size in zip(self.parts, self.sizes, strict=True)
            ]
        )

    def log_density_bound(self) -> float:
        """The bound of one column on average, so that times the number of columns it is their sum."""
        bounds = [emission.log_density_bound() for columns, emission in self.parts for _ in columns]
        return float(sum(bounds)) / len(bounds)
