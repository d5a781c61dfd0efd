"""What is put at site x of any model: the mass of a cell, a dequantised density, or what was observed alone.

Each is a model around a model, and none edits a likelihood.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial, singledispatch
from inspect import signature
from typing import Any, ClassVar

import pyro.distributions as dist
import torch
from pyro.poutine.messenger import Messenger
from torch import Tensor, nn
from torch.distributions import constraints

from zoo.answers import ask, name_of
from zoo.errors import Unknown
from zoo.models import PerColumn
from zoo.models.ordinal import Binned, log_interval_mass
from zoo.networks import Masked, Tabulated

__all__ = [
    "Cells",
    "Dequantized",
    "Gapped",
    "Observed",
    "PartlyBinned",
    "Zeros",
    "observed",
    "observed_log_prob",
    "with_others_apart",
]

LOG_ROOT_TAU = math.log(2 * math.pi) / 2


class Cells(nn.Module):
    """A model of continuous x as a model of the cell of width w that x is in: p(x | z) integrated over it.

    Exact where the features are independent given z and their distribution functions are known.

    Args:
        model: p(x, z), the datum at site ``x``.
        width: w, by column, shape (D,); not a number for a column that is left as it is, whose values are points or
            have a mass of their own.
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
    r"""The same by a uniform draw over the cell: an unbiased estimate, fresh at every evaluation, for any model.

    .. math:: p(x + u \mid z) \prod_j w_j, \qquad u_j \sim U(-w_j/2, w_j/2)

    Its logarithm is a lower bound in expectation. Theis, van den Oord & Bethge (2016), https://arxiv.org/abs/1511.01844

    Only for densities on all of the reals: one on an interval has no say beyond its ends, where half of the cell of a
    value at an end is, and the masses of all values would not add up to one.
    """

    def likelihood(self, fn: Any) -> dist.TorchDistribution:
        """One draw's estimate of the mass of a cell."""
        support = ask(fn, "support")
        if getattr(support, "base_constraint", support) is not constraints.real:
            raise Unknown(
                f"{name_of(fn)} is no density on the whole cell of a value, so that the mass of one is not known"
            )
        return _Spread(fn, self.width)


@singledispatch
def cells(fn: Any, width: Tensor) -> dist.TorchDistribution:  # noqa: ARG001
    """The distribution of the cells of width w (D,) that values are in, where a width is given.

    Raises:
        Unknown: the mass of an interval is not known.
    """
    raise Unknown(f"the mass of a cell under {name_of(fn)} is not known")


@cells.register
def _(fn: dist.Independent, width: Tensor) -> dist.TorchDistribution:
    if fn.reinterpreted_batch_ndims != 1:
        raise Unknown(f"the mass of a cell under {name_of(fn)} is not known")
    return _cells_of_each(fn.base_dist, width).to_event(1)


def _cells_of_each(fn: Any, width: Tensor) -> Any:
    """The cells of the variables of a batch (..., d), where a width is given."""
    if width.isnan().all():
        return fn
    if log_interval_mass.dispatch(type(fn)) is log_interval_mass.dispatch(object):
        raise Unknown(f"the mass of a cell under {name_of(fn)} is not known")
    return (PartlyBinned if width.isnan().any() else Binned)(fn, width)


@cells.register
def _(fn: PerColumn, width: Tensor) -> dist.TorchDistribution:
    return PerColumn([(columns, _cells_of_each(part, width[list(columns)])) for columns, part in fn.parts])


class PartlyBinned(dist.TorchDistribution):  # type: ignore[misc]
    """Cells of some columns, and a density on the others: batch shape (..., D).

    Args:
        base: a distribution of one variable for each column.
        width: of the cells, (D,); not a number where there are none.
    """

    arg_constraints: ClassVar[dict[str, Any]] = {}
    support = constraints.real

    def __init__(self, base: Any, width: Tensor) -> None:
        self.base, self.width, self.cut = base, width, ~width.isnan()
        self.binned = Binned(base, torch.where(self.cut, width, 1.0))
        super().__init__(base.batch_shape, base.event_shape, validate_args=False)

    def expand(self, batch_shape: Any, _instance: Any = None) -> PartlyBinned:
        """The same for a larger batch."""
        return PartlyBinned(self.base.expand(batch_shape), self.width)

    def log_prob(self, x: Tensor) -> Tensor:
        """Log mass of the cells, log density of the rest."""
        return torch.where(self.cut, self.binned.log_prob(x), self.base.log_prob(x))

    def sample(self, sample_shape: Any = ()) -> Tensor:
        """Draws of the base, rounded where there are cells."""
        drawn = self.base.sample(torch.Size(sample_shape))
        return torch.where(self.cut, self.binned.width * torch.round(drawn / self.binned.width), drawn)

    @property
    def mean(self) -> Tensor:
        """The base's."""
        return self.base.mean  # type: ignore[no-any-return]

    @property
    def variance(self) -> Tensor:
        """The base's, and that of a cell."""
        return torch.where(self.cut, self.binned.variance, self.base.variance)


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
        # in a column without cells nothing is spread and nothing is gained, and of an entry that is not there
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


# -- entries that were not observed ------------------------------------------------------------------------------------


class Observed(nn.Module):
    r"""A model of the entries that were observed, those that are NaN in x being integrated out.

    .. math:: p(x_o, z) = p(z) \int p(x_o, x_m \mid z) \, dx_m

    What the model may have beside its sites it has still: ``log_evidence``, ``initialise``, ``settle``, ...

    Args:
        model: p(x, z), the datum at site ``x``.
        filler: a value that each column can have, (D,), of which nothing depends.
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
            raise AttributeError(f"{type(self.model).__name__}.{name} knows complete data alone: it takes no observed=")
        return partial(_ADAPTED[name], self, hook) if name in _ADAPTED else hook

    def likelihood(self, *args: Any, **kwargs: Any) -> Any:
        """The model's own p(x | z), of all entries."""
        own: Any = self.model.likelihood
        return own(*args, **kwargs)

    def forward(self, x: Tensor) -> None:
        """The model's sites, with the density of what was observed at site ``x``."""
        with _Replace("x", lambda fn: Gapped(fn, self.filler)):
            self.model(x)


def _initialise(_: Observed, hook: Callable[[Tensor], None], x: Tensor) -> None:
    """Start from data in which each gap has a value of its column, drawn at random: means and variances stay."""
    filled = x.clone()
    for column in filled.T:
        gone = column.isnan()
        known = column[~gone]  # of which there are some: a column without any is refused when data are loaded
        column[gone] = known[torch.randint(len(known), (int(gone.sum()),), device=x.device)]
    hook(filled)


def _with_mask(lens: Observed, hook: Callable[..., Any], x: Tensor, *args: Any) -> Any:
    """What a model knows in closed form, of the entries that were observed."""
    there = ~x.isnan()
    return hook(torch.where(there, x, lens.filler.to(x)), *args, observed=there)


def _pinball(_: Observed, hook: Callable[..., Tensor], fn: Any, x: Tensor) -> Tensor:
    """The losses of what was observed."""
    full = torch.where(x.isnan(), fn.filler, x)
    return hook(fn.base, full, observed=~x.isnan())


_ADAPTED: dict[str, Callable[..., Any]] = {
    "initialise": _initialise,
    "log_evidence": _with_mask,
    "posterior": _with_mask,
    "pinball": _pinball,
}
_OF_SOME = ("log_evidence", "posterior", "pinball")  # which take the mask as observed=


class Gapped(dist.TorchDistribution):  # type: ignore[misc]
    """p(x | z) as a distribution under which NaN is an entry that was not observed.

    Args:
        base: p(x | z), event shape (D,).
        filler: a value that each column can have, (D,).

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
        """As the base has."""
        return bool(self.base.has_rsample)

    @property
    def support(self) -> Any:
        """The base's, of what was observed."""
        return ask(self.base, "support")

    def expand(self, batch_shape: Any, _instance: Any = None) -> Gapped:
        """The same for a larger batch."""
        return Gapped(self.base.expand(batch_shape), self.filler)

    def log_prob(self, x: Tensor) -> Tensor:
        """The log density of the entries of x that are numbers, (...)."""
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


@cells.register
def _(fn: Gapped, width: Tensor) -> dist.TorchDistribution:
    return Gapped(cells(fn.base, width), fn.filler)


@singledispatch
def observed_log_prob(fn: Any, x: Tensor, there: Tensor) -> Tensor:  # noqa: ARG001
    """The log density of the entries of x (..., D) that are there, the others integrated out.

    Raises:
        Unknown: it is not known for such a likelihood.
    """
    raise Unknown(f"the density of some entries alone under {name_of(fn)} is not known")


@observed_log_prob.register
def _(fn: PerColumn, x: Tensor, there: Tensor) -> Tensor:
    return torch.where(there, fn.each_column_log_prob(x), 0.0).sum(-1)


@observed_log_prob.register
def _(fn: dist.Independent, x: Tensor, there: Tensor) -> Tensor:
    if fn.reinterpreted_batch_ndims != 1:
        raise Unknown(f"the density of some entries alone under {name_of(fn)} is not known")
    return torch.where(there, fn.base_dist.log_prob(x), 0.0).sum(-1)


@observed_log_prob.register(dist.MultivariateNormal)
@observed_log_prob.register(dist.LowRankMultivariateNormal)
def _(fn: Any, x: Tensor, there: Tensor) -> Tensor:
    """Less the :math:`N(0; 0, 1)` of what is not there."""
    alone = with_others_apart(fn, there)
    log_prob = alone.log_prob(torch.where(there, x.to(alone.loc), alone.loc))
    return (log_prob + (~there).sum(-1).to(log_prob) * LOG_ROOT_TAU).to(x)  # type: ignore[no-any-return]


@singledispatch
def with_others_apart(fn: Any, there: Tensor) -> Any:  # noqa: ARG001
    """A normal (..., D) whose entries that are not there are independent of the rest, with variance 1.

    Raises:
        Unknown: it is no normal.
    """
    raise Unknown(f"what an entry is given some others alone under {name_of(fn)} is not known")


@with_others_apart.register
def _(fn: dist.MultivariateNormal, there: Tensor) -> Any:
    # in double precision: the product squares the condition of the factor, and a collapse has to be told from rounding
    factor = fn._unbroadcasted_scale_tril.double()  # the public one would repeat the product for every datum
    part = there.to(factor)
    covariance = part[..., :, None] * (factor @ factor.mT) * part[..., None, :] + torch.diag_embed(1 - part)
    factor, failed = torch.linalg.cholesky_ex(covariance)
    # one seed's failure must be that seed's NaN, not an exception for all
    factor = factor.masked_fill((failed > 0)[..., None, None], math.nan)
    return dist.MultivariateNormal(fn.loc.double(), scale_tril=factor, validate_args=False)


@with_others_apart.register
def _(fn: dist.LowRankMultivariateNormal, there: Tensor) -> Any:
    rows = fn.cov_factor * there[..., None]
    diagonal = torch.where(there, fn.cov_diag, 1.0)
    loc = fn.loc.expand(diagonal.shape)
    return dist.LowRankMultivariateNormal(loc, rows.expand(*loc.shape, -1), diagonal, validate_args=False)


class Zeros(nn.Module):
    """A guide that knows no gaps, given zeros in their place.

    Args:
        guide: q(z | x) of complete data.
    """

    def __init__(self, guide: nn.Module) -> None:
        super().__init__()
        self.guide = guide

    def forward(self, x: Tensor) -> None:
        """The guide's sites for x (B, D)."""
        self.guide(torch.where(x.isnan(), 0.0, x))


def observed(model: nn.Module, guide: nn.Module, filler: Tensor) -> tuple[nn.Module, nn.Module]:
    """The two programs for data some of whose entries are NaN, which were not observed.

    A guide that is made of the model is made of the lens instead (its method ``of``), one whose encoder sees gaps is
    left as it is, and any other is given zeros in their place.

    Args:
        model: p(x, z).
        guide: q(z | x).
        filler: a value that each column can have, (D,), in the model's units.
    """
    lens = model if isinstance(model, Observed) else Observed(model, filler)
    if hasattr(guide, "of"):
        exact: Any = guide
        return lens, exact.of(lens)
    sees = any(isinstance(part, Masked | Tabulated | Zeros) for part in guide.modules())
    return lens, guide if sees else Zeros(guide)
