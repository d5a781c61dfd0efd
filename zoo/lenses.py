"""Replacements for site x of any model: the mass of a cell, a dequantised density, or observed entries only.

Each wraps a model; no likelihood is edited.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from inspect import signature
from typing import Any, ClassVar

import pyro.distributions as dist
import torch
from pyro.poutine.messenger import Messenger
from torch import Tensor, nn
from torch.distributions import constraints

from zoo.answers import ask, name_of, of_values
from zoo.densities import (
    cells,
    column_scale,
    columns_log_prob,
    each_feature,
    each_feature_given_the_others,
    observed_log_prob,
    smallest_scale,
    with_others_apart,
)
from zoo.errors import Unknown
from zoo.models.emissions import PerColumn
from zoo.networks import Tabulated

__all__ = [
    "Cells",
    "Dequantized",
    "Gapped",
    "Observed",
    "Zeros",
    "observed",
]


class Cells(nn.Module):
    """A model of the cell of width w that contains x: p(x | z) integrated over the cell.

    Exact if the features are independent given z and their distribution functions are known.

    Args:
        model: p(x, z), the datum at site ``x``.
        width: w, by column, shape (D,); NaN for a column that is left unchanged, whose values are points or already
            have a mass.
    """

    def __init__(self, model: nn.Module, width: Tensor) -> None:
        super().__init__()
        self.model, self.width = model, width

    def likelihood(self, fn: Any) -> dist.TorchDistribution:
        """The mass of a cell under p(x | z)."""
        return cells(fn, self.width)

    def forward(self, x: Tensor) -> None:
        """The model's sites, with the cell's mass at site ``x``."""
        with _Replace("x", self.likelihood):
            self.model(x)


class Dequantized(Cells):
    r"""The same by a uniform draw over the cell: an unbiased estimate for any model, drawn again at every evaluation.

    .. math:: p(x + u \mid z) \prod_j w_j, \qquad u_j \sim U(-w_j/2, w_j/2)

    Its logarithm is a lower bound in expectation. Theis, van den Oord & Bethge (2016), https://arxiv.org/abs/1511.01844

    Only for densities on the whole real line. Half of the cell of a value at the end of an interval lies outside it,
    so the masses of all values would not add up to one.
    """

    def likelihood(self, fn: Any) -> dist.TorchDistribution:
        """One draw's estimate of the mass of a cell."""
        support = ask(fn, "support")
        if of_values(support) is not constraints.real:
            raise Unknown(
                f"{name_of(fn)} is not a density on the whole cell of a value, so the mass of a cell is not known"
            )
        return _Spread(fn, self.width)


class _Spread(dist.TorchDistribution):  # type: ignore[misc]
    """log_prob(x) = log p(x + u) + sum_j log w_j with a fresh u at every call."""

    arg_constraints: ClassVar[dict[str, Any]] = {}

    def __init__(self, base: Any, width: Tensor) -> None:
        self.base, self.width = base, width
        super().__init__(base.batch_shape, base.event_shape, validate_args=False)

    def expand(self, batch_shape: Any, _instance: Any = None) -> _Spread:
        return _Spread(self.base.expand(batch_shape), self.width)

    def log_prob(self, x: Tensor) -> Tensor:
        u = torch.rand((*self.batch_shape, *self.event_shape), dtype=x.dtype, device=x.device) - 0.5
        # columns without cells and missing entries are neither spread nor scored
        volume = torch.where(x.isnan() | self.width.isnan(), 0.0, self.width.log()).sum(-1)
        return self.base.log_prob(x + u * self.width.nan_to_num(0.0)) + volume  # type: ignore[no-any-return]


class _Replace(Messenger):  # type: ignore[misc]
    """Puts another distribution at a site."""

    def __init__(self, site: str, replacement: Callable[[Any], Any]) -> None:
        super().__init__()
        self.site, self.replacement = site, replacement

    def _pyro_sample(self, msg: Any) -> None:
        if msg["name"] == self.site:
            msg["fn"] = self.replacement(msg["fn"])


# -- missing entries ---------------------------------------------------------------------------------------------------


class Observed(nn.Module):
    r"""A model of the observed entries; those that are NaN in x are integrated out.

    .. math:: p(x_o, z) = p(z) \int p(x_o, x_m \mid z) \, dx_m

    The model's methods remain available: ``log_evidence``, ``initialise``, ``settle``, ...

    Args:
        model: p(x, z), the datum at site ``x``.
        filler: a value that each column can take, (D,); no result depends on it.
    """

    filler: Tensor

    def __init__(self, model: nn.Module, filler: Tensor) -> None:
        super().__init__()
        self.model = model
        self.register_buffer("filler", filler)

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            if name == "model":
                raise
        hook = getattr(self.model, name)
        if name in _OF_SOME and "observed" not in signature(hook).parameters:
            raise AttributeError(f"{type(self.model).__name__}.{name} needs complete data: it takes no observed=")
        return partial(_ADAPTED[name], self, hook) if name in _ADAPTED else hook

    def likelihood(self, *args: Any, **kwargs: Any) -> Any:
        """The model's own p(x | z), of all entries."""
        own: Any = self.model.likelihood
        return own(*args, **kwargs)

    def forward(self, x: Tensor) -> None:
        """The model's sites, with the density of the observed entries at site ``x``."""
        with _Replace("x", lambda fn: Gapped(fn, self.filler)):
            self.model(x)


def _initialise(lens: Observed, hook: Callable[[Tensor], None], x: Tensor) -> None:
    """Initialise from data whose gaps hold random values of their column, which keeps means and variances."""
    filled = x.clone()
    for column, filler in zip(filled.T, lens.filler.to(x), strict=True):
        gone = column.isnan()
        known = column[~gone] if not gone.all() else filler[None]  # possible in a sample of a large table
        column[gone] = known[torch.randint(len(known), (int(gone.sum()),), device=x.device)]
    hook(filled)


def _with_mask(lens: Observed, hook: Callable[..., Any], x: Tensor, *args: Any) -> Any:
    """A closed-form method of a model, for the observed entries."""
    there = ~x.isnan()
    return hook(torch.where(there, x, lens.filler.to(x)), *args, observed=there)


_ADAPTED: dict[str, Callable[..., Any]] = {
    "initialise": _initialise,
    "log_evidence": _with_mask,
    "posterior": _with_mask,
}
_OF_SOME = ("log_evidence", "posterior")  # these take the mask as observed=


class Gapped(dist.TorchDistribution):  # type: ignore[misc]
    """p(x | z) as a distribution that treats NaN as a missing entry.

    Args:
        base: p(x | z), event shape (D,).
        filler: a value that each column can take, (D,).

    >>> two = dist.Normal(torch.zeros(2), torch.ones(2)).to_event(1)
    >>> one = Gapped(two, torch.zeros(2)).log_prob(torch.tensor([0.5, torch.nan]))
    >>> bool(one == dist.Normal(0.0, 1.0).log_prob(torch.tensor(0.5)))
    True
    """

    arg_constraints: ClassVar[dict[str, Any]] = {}

    def __init__(self, base: Any, filler: Tensor) -> None:
        self.base, self.filler = base, filler
        super().__init__(base.batch_shape, base.event_shape, validate_args=False)

    @property
    def has_rsample(self) -> bool:
        """The base's."""
        return bool(self.base.has_rsample)

    @property
    def support(self) -> Any:
        """The base's, for observed entries."""
        return ask(self.base, "support")

    def expand(self, batch_shape: Any, _instance: Any = None) -> Gapped:
        """The same for a larger batch."""
        return Gapped(self.base.expand(batch_shape), self.filler)

    def log_prob(self, x: Tensor) -> Tensor:
        """The log density of the entries of x that are not NaN, (...)."""
        there = ~x.isnan()
        return observed_log_prob(self.base, torch.where(there, x, self.filler), there)

    def sample(self, sample_shape: Any = ()) -> Tensor:
        """Draws of all entries."""
        return self.base.sample(torch.Size(sample_shape))  # type: ignore[no-any-return]

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        """Draws of all entries."""
        return self.base.rsample(torch.Size(sample_shape))  # type: ignore[no-any-return]

    @property
    def mean(self) -> Tensor:
        """The base's."""
        return ask(self.base, "mean")  # type: ignore[no-any-return]

    @property
    def variance(self) -> Tensor:
        """The base's."""
        return ask(self.base, "variance")  # type: ignore[no-any-return]

    @property
    def stddev(self) -> Tensor:
        """The base's."""
        return ask(self.base, "stddev")  # type: ignore[no-any-return]


@column_scale.register
def _(likelihood: Gapped) -> Tensor:
    return column_scale(likelihood.base)


@smallest_scale.register
def _(likelihood: Gapped, x: Tensor) -> Tensor:
    if isinstance(likelihood.base, PerColumn):
        return smallest_scale(likelihood.base, x)
    return torch.where(x.isnan(), torch.inf, column_scale(likelihood.base)).min()


@columns_log_prob.register
def _(likelihood: Gapped, x: Tensor, columns: Tensor) -> Tensor:
    hidden = torch.ones(x.shape[-1], dtype=torch.bool, device=x.device).index_fill(0, columns, False)
    return likelihood.log_prob(x.masked_fill(hidden, torch.nan))


@cells.register
def _(fn: Gapped, width: Tensor) -> dist.TorchDistribution:
    return Gapped(cells(fn.base, width), fn.filler)


@each_feature.register
def _(likelihood: Gapped) -> Any:
    return each_feature(likelihood.base)


@each_feature_given_the_others.register
def _(likelihood: Gapped, x: Tensor) -> Any:
    there = ~x.isnan()
    if isinstance(likelihood.base, dist.Independent | PerColumn):
        return each_feature_given_the_others(likelihood.base, x)
    alone = with_others_apart(likelihood.base, there)
    one = each_feature_given_the_others(alone, torch.where(there, x.to(alone.loc), alone.loc))
    return dist.Normal(one.loc.to(x), one.scale.to(x), validate_args=False)


class Zeros(nn.Module):
    """A guide for complete data, given zeros for gaps.

    Args:
        guide: q(z | x) for complete data.
    """

    def __init__(self, guide: nn.Module) -> None:
        super().__init__()
        self.guide = guide

    def forward(self, x: Tensor) -> None:
        """The guide's sites for x (B, D)."""
        self.guide(torch.where(x.isnan(), 0.0, x))


def observed(model: nn.Module, guide: nn.Module, filler: Tensor) -> tuple[nn.Module, nn.Module]:
    """The two programs for data in which NaN marks missing entries.

    A guide made from the model is made from the lens instead (by its method ``of``), a guide whose encoder sees gaps is
    unchanged, and any other guide gets zeros for gaps.

    Args:
        model: p(x, z).
        guide: q(z | x).
        filler: a value that each column can take, (D,), in the model's units.
    """
    lens = model if isinstance(model, Observed) else Observed(model, filler)
    if hasattr(guide, "of"):
        exact: Any = guide
        return lens, exact.of(lens)
    sees = any(isinstance(part, Tabulated | Zeros) for part in guide.modules())
    return lens, guide if sees else Zeros(guide)
