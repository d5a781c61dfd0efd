"""Questions to a likelihood p(x | z): its scale, some of its columns, its cells, one column given others.

Functions dispatch on the type of a distribution, so a new kind joins the zoo by registering functions for it. A
question without an answer raises :class:`~zoo.errors.Unknown`, with a sentence.
"""

from __future__ import annotations

import math
from functools import singledispatch
from typing import Any

import numpy as np
import pyro.distributions as dist
import torch
from scipy.special import betainc
from torch import Tensor

from zoo.answers import ask, known, name_of
from zoo.errors import Unknown
from zoo.models.emissions import EachColumn, PerColumn
from zoo.models.emissions.count import log_beta_binomial
from zoo.models.emissions.ordinal import BinnedMixture, Cumulative
from zoo.models.emissions.spline import PiecewiseQuantiles
from zoo.models.emissions.unit import SigmoidOfNormal
from zoo.models.operators import elementwise
from zoo.models.ordinal import Binned, Levels, PartlyBinned, log_interval_mass, within_support

__all__ = [
    "cells",
    "column_scale",
    "columns_log_prob",
    "covariance",
    "crps",
    "distribution_function",
    "each_feature",
    "each_feature_given_the_others",
    "each_missing",
    "missing_draws",
    "moments",
    "observed_log_prob",
    "smallest_scale",
    "with_others_apart",
]

LOG_ROOT_TAU = math.log(2 * math.pi) / 2
DRAWS = 64  # draws per z that replace a formula
BLOCK = 1 << 14  # numbers that fit into a processor's cache


# -- scale -------------------------------------------------------------------------------------------------------------


@singledispatch
def column_scale(likelihood: dist.TorchDistribution) -> Tensor:
    """Standard deviations of a likelihood by column, shape (..., D); NaN where discrete or unknown.

    For a full covariance, the standard deviation of each column given the columns before it (the diagonal of
    the Cholesky factor): the smallest of them vanishes exactly when the determinant does.
    """
    try:
        deviation: Tensor = ask(likelihood, "stddev")
    except Unknown:
        return torch.full(likelihood.shape(), torch.nan)
    return torch.full_like(deviation, torch.nan) if likelihood.support.is_discrete else deviation


@column_scale.register
def _(likelihood: dist.Independent) -> Tensor:
    return column_scale(likelihood.base_dist)


@column_scale.register
def _(likelihood: Binned) -> Tensor:
    return column_scale(likelihood.base)


@column_scale.register
def _(likelihood: Levels) -> Tensor:
    return torch.full_like(likelihood.unnormalized[..., 0], torch.nan)


@column_scale.register(BinnedMixture)
@column_scale.register(Cumulative)
def _(likelihood: Any) -> Tensor:
    return _unscaled(likelihood)


@column_scale.register
def _(likelihood: PiecewiseQuantiles) -> Tensor:
    """Of the normal with as high a peak: one steep piece is enough for a density without end."""
    return (-LOG_ROOT_TAU - likelihood.log_peak).exp()


@column_scale.register
def _(likelihood: dist.StudentT) -> Tensor:
    scale: Tensor = likelihood.scale  # heavy tails may have no standard deviation
    return scale


@column_scale.register
def _(likelihood: dist.MultivariateNormal) -> Tensor:
    scale: Tensor = likelihood.scale_tril.diagonal(dim1=-2, dim2=-1)
    return scale


@column_scale.register
def _(likelihood: dist.LowRankMultivariateNormal) -> Tensor:
    """Scales given all other columns, which is cheaper here: the smallest also vanishes with the determinant."""
    factor, diagonal = likelihood._unbroadcasted_cov_factor, likelihood._unbroadcasted_cov_diag
    half = torch.linalg.solve_triangular(likelihood._capacitance_tril, factor.mT, upper=False)
    share = (half.square().sum(-2) / diagonal).clamp(max=1 - torch.finfo(diagonal.dtype).eps)
    return (diagonal / (1 - share)).sqrt().expand(likelihood.shape())  # type: ignore[no-any-return]


@column_scale.register(dist.LogNormal)
@column_scale.register(SigmoidOfNormal)
def _(likelihood: Any) -> Tensor:
    """Scales of the underlying normal: an unbounded density is one whose scale vanishes there."""
    scale: Tensor = likelihood.scale
    return scale


@column_scale.register
def _(likelihood: PerColumn) -> Tensor:
    return likelihood.in_order([column_scale(fn) if _is_dense(fn) else _unscaled(fn) for _, fn in likelihood.parts])


@singledispatch
def smallest_scale(likelihood: dist.TorchDistribution, x: Tensor) -> Tensor:  # noqa: ARG001
    """The smallest :func:`column_scale`, over columns that have a scale and entries of x that are observed."""
    return column_scale(likelihood).min()


@smallest_scale.register
def _(likelihood: PerColumn, x: Tensor) -> Tensor:
    dense = [
        torch.where(x[..., list(columns)].isnan(), torch.inf, column_scale(fn)).min()
        for columns, fn in likelihood.parts
        if _is_dense(fn)
    ]
    return torch.stack(dense).min() if dense else column_scale(likelihood).min()


def _is_dense(fn: Any) -> bool:
    """Whether a part of a table's likelihood is a density rather than a mass."""
    return not (isinstance(fn, Binned | BinnedMixture | Levels | Cumulative) or ask(fn, "support").is_discrete)


def _unscaled(fn: Any) -> Tensor:
    return torch.full(fn.batch_shape, torch.nan)


# -- moments -----------------------------------------------------------------------------------------------------------


def moments(fn: Any) -> tuple[Tensor, Tensor]:
    """Mean and variance, from draws if torch has no formula; NaN if they do not exist."""
    try:
        return ask(fn, "mean"), ask(fn, "variance")
    except Unknown:
        middle = fn.sample()
        first = second = torch.zeros_like(middle)
        for _ in range(DRAWS):
            off = fn.sample() - middle
            first, second = first + off / DRAWS, second + off.square() / DRAWS
        return middle + first, (second - first.square()) * DRAWS / (DRAWS - 1)


@singledispatch
def covariance(fn: Any) -> Tensor:
    """The covariance of a distribution of vectors, (..., L, L).

    Raises:
        Unknown: it could only be estimated from draws.
    """
    raise Unknown(f"the covariance of {name_of(fn)} is not known")


@covariance.register
def _(fn: dist.Independent) -> Tensor:
    return torch.diag_embed(ask(fn, "variance"))


@covariance.register(dist.MultivariateNormal)
@covariance.register(dist.LowRankMultivariateNormal)
def _(fn: Any) -> Tensor:
    of_each: Tensor = fn.covariance_matrix
    return of_each.expand(*fn.batch_shape, *fn.event_shape, *fn.event_shape)


# -- some of its columns -----------------------------------------------------------------------------------------------


@singledispatch
def columns_log_prob(likelihood: dist.TorchDistribution, x: Tensor, columns: Tensor) -> Tensor:  # noqa: ARG001
    """The log density of some columns of x, the others integrated out.

    Raises:
        Unknown: no function is registered for such a likelihood.
    """
    raise Unknown(f"the density of some columns under {name_of(likelihood)} is not known")


@columns_log_prob.register
def _(likelihood: dist.Independent, x: Tensor, columns: Tensor) -> Tensor:
    return _sum_of(likelihood.base_dist.log_prob(x), columns)


@columns_log_prob.register
def _(likelihood: PerColumn, x: Tensor, columns: Tensor) -> Tensor:
    return _sum_of(likelihood.each_column_log_prob(x), columns)


def _sum_of(log_prob: Tensor, columns: Tensor) -> Tensor:
    """The sum over some columns; selecting them first would be slower."""
    there = torch.zeros(log_prob.shape[-1], dtype=torch.bool, device=log_prob.device).index_fill(0, columns, True)
    return torch.where(there, log_prob, 0.0).sum(-1)


@columns_log_prob.register
def _(likelihood: dist.LowRankMultivariateNormal, x: Tensor, columns: Tensor) -> Tensor:
    factor, diagonal = likelihood.cov_factor[..., columns, :], likelihood.cov_diag[..., columns]
    marginal = dist.LowRankMultivariateNormal(likelihood.loc[..., columns], factor, diagonal)
    return marginal.log_prob(x[..., columns])  # type: ignore[no-any-return]


@columns_log_prob.register
def _(likelihood: dist.MultivariateNormal, x: Tensor, columns: Tensor) -> Tensor:
    # Sigma_cc = A A' with A the rows c of the Cholesky factor, and A' = Q R: no Cholesky of a collapsed matrix
    rows = likelihood._unbroadcasted_scale_tril[..., columns, :]  # the public one would repeat the QR for every datum
    factor = torch.linalg.qr(rows.mT).R.mT
    factor = factor * factor.diagonal(dim1=-2, dim2=-1).sign().unsqueeze(-2)
    marginal = dist.MultivariateNormal(likelihood.loc[..., columns], scale_tril=factor)
    return marginal.log_prob(x[..., columns])  # type: ignore[no-any-return]


@singledispatch
def observed_log_prob(fn: Any, x: Tensor, there: Tensor) -> Tensor:  # noqa: ARG001
    """The log density of the observed entries of x (..., D), the others integrated out.

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
    """Without the :math:`N(0; 0, 1)` factors of missing entries."""
    alone = with_others_apart(fn, there)
    log_prob = alone.log_prob(torch.where(there, x.to(alone.loc), alone.loc))
    return (log_prob + (~there).sum(-1).to(log_prob) * LOG_ROOT_TAU).to(x)  # type: ignore[no-any-return]


@singledispatch
def with_others_apart(fn: Any, there: Tensor) -> Any:  # noqa: ARG001
    """A normal (..., D) whose missing entries are independent of the rest, with variance 1.

    Raises:
        Unknown: it is not a normal.
    """
    raise Unknown(f"what an entry is given some others alone under {name_of(fn)} is not known")


@with_others_apart.register
def _(fn: dist.MultivariateNormal, there: Tensor) -> Any:
    # double precision: the product squares the condition number, and a collapse must be told from rounding
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


# -- cells that values stand for ---------------------------------------------------------------------------------------


@singledispatch
def cells(fn: Any, width: Tensor) -> dist.TorchDistribution:  # noqa: ARG001
    """The distribution of the cells, of width w (D,), that contain the values; only where a width is given.

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
    """The cells of the variables of a batch (..., d), only where a width is given."""
    cut = ~np.isnan(width.tolist())  # a constant, also while a program is mapped or recorded
    if not cut.any():
        return fn
    if log_interval_mass.dispatch(type(fn)) is log_interval_mass.dispatch(object):
        with known(f"the mass of a cell under {name_of(fn)}"):  # by its distribution function, if it has one
            fn.cdf(within_support(fn, torch.zeros(fn.batch_shape)))
    return (Binned if cut.all() else PartlyBinned)(fn, width)


@cells.register
def _(fn: PerColumn, width: Tensor) -> dist.TorchDistribution:
    return PerColumn([(columns, _cells_of_each(part, width[list(columns)])) for columns, part in fn.parts])


# -- one column, and missing ones --------------------------------------------------------------------------------------


@singledispatch
def each_feature(likelihood: Any) -> Any:
    """The distribution of each column given only the latents: batch shape (..., D)."""
    raise Unknown(f"the distribution of one feature under {name_of(likelihood)} is not known")


@singledispatch
def each_feature_given_the_others(likelihood: Any, x: Tensor) -> Any:  # noqa: ARG001
    """The distribution of each column given the latents and the other columns of x (..., D): batch shape (..., D)."""
    raise Unknown(f"what a feature is given the others under {name_of(likelihood)} is not known")


@singledispatch
def each_missing(likelihood: Any, x: Tensor) -> Any:  # noqa: ARG001
    """The distribution of each entry of x (..., D) given the latents and the entries that are not NaN."""
    raise Unknown(f"what an entry is given those that were observed under {name_of(likelihood)} is not known")


@each_feature.register
@each_missing.register
@each_feature_given_the_others.register
def _(likelihood: dist.Independent, x: Tensor | None = None) -> Any:  # noqa: ARG001
    return likelihood.base_dist


@each_feature.register
@each_missing.register
@each_feature_given_the_others.register
def _(likelihood: PerColumn, x: Tensor | None = None) -> Any:  # noqa: ARG001
    return EachColumn(likelihood)


@each_feature.register(dist.MultivariateNormal)
@each_feature.register(dist.LowRankMultivariateNormal)
def _(likelihood: Any) -> Any:
    return dist.Normal(likelihood.loc, likelihood.variance.sqrt(), validate_args=False)


@each_feature_given_the_others.register(dist.MultivariateNormal)
@each_feature_given_the_others.register(dist.LowRankMultivariateNormal)
def _(likelihood: Any, x: Tensor) -> Any:
    """With precision P, x_j given the others has variance 1 / P_jj and mean x_j - (P (x - mu))_j / P_jj."""
    precision = likelihood.precision_matrix
    diagonal = precision.diagonal(dim1=-2, dim2=-1)
    residual = (precision @ (x - likelihood.loc)[..., None])[..., 0]
    return dist.Normal(x - residual / diagonal, diagonal.rsqrt(), validate_args=False)


@each_missing.register(dist.MultivariateNormal)
@each_missing.register(dist.LowRankMultivariateNormal)
def _(likelihood: Any, x: Tensor) -> Any:
    r""":math:`N(\mu_m + G r_o, \; \Sigma_{mm} - G \Sigma_{om})`, with r = x - mu and G as in :func:`_gain`."""
    gain, covariance = _gain(likelihood, ~x.isnan())
    residual = (x.double() - likelihood.loc.double()).nan_to_num(0.0)
    mean = likelihood.loc.double() + (gain @ residual[..., None])[..., 0]
    variance = (covariance.diagonal(dim1=-2, dim2=-1) - (gain * covariance).sum(-1)).clamp(min=0)
    return dist.Normal(mean.to(x), variance.sqrt().to(x), validate_args=False)


@singledispatch
def missing_draws(fn: Any, x: Tensor) -> Tensor:
    """X (B, D) with its missing entries drawn jointly, given the latents and the others: one draw per datum.

    Raises:
        Unknown: it is not known for such a likelihood.
    """
    each_missing(fn, x)  # raises if the columns are not independent
    return torch.where(x.isnan(), fn.sample(), x)


@missing_draws.register(dist.MultivariateNormal)
@missing_draws.register(dist.LowRankMultivariateNormal)
def _(fn: Any, x: Tensor) -> Tensor:
    r"""A draw y of all entries, moved by G (x_o - y_o): Matheron's rule."""
    drawn = fn.sample()
    gain, _ = _gain(fn, ~x.isnan())
    moved = drawn + (gain @ (x - drawn).nan_to_num(0.0).double()[..., None])[..., 0].to(x)
    return torch.where(x.isnan(), moved, x)


def _gain(fn: Any, there: Tensor) -> tuple[Tensor, Tensor]:
    r"""G with :math:`\Sigma_{mo} \Sigma_{oo}^{-1}` in the observed columns and 0 in the others, and Sigma."""
    covariance = fn.covariance_matrix.double()
    precision = with_others_apart(fn, there).precision_matrix.double()
    return covariance @ (precision * (there[..., :, None] & there[..., None, :])), covariance


# -- distribution function ---------------------------------------------------------------------------------------------


@singledispatch
def distribution_function(one: Any, x: Tensor) -> tuple[Tensor, Tensor]:
    """P(X < x) and P(X <= x) of one variable, elementwise.

    By draws if torch has no formula: their noise is uniform, and small in a mean over z.
    """
    if not ask(one, "support").is_discrete:  # where P(X < x) equals P(X <= x)
        try:
            upto = ask(one, "cdf", x)
        except Unknown:
            pass
        else:
            return upto, upto
    below = upto = torch.zeros_like(x + one.sample())
    for _ in range(DRAWS):  # a loop, so that memory does not grow with the draws
        drawn = one.sample()
        below, upto = below + (drawn < x).to(x), upto + (drawn <= x).to(x)
    return below / DRAWS, upto / DRAWS


@distribution_function.register
def _(one: dist.Bernoulli, x: Tensor) -> tuple[Tensor, Tensor]:
    return x * (1 - one.probs), torch.where(x > 0, 1.0, 1 - one.probs)


@distribution_function.register
def _(one: dist.StudentT, x: Tensor) -> tuple[Tensor, Tensor]:
    """One half plus the mass between the centre and x."""
    away = (x - one.loc).abs()
    half = torch.where(away > 0, log_interval_mass(one, one.loc.expand_as(away), one.loc + away, away).exp(), 0.0)
    upto = torch.where(x < one.loc, 0.5 - half, 0.5 + half)
    return upto, upto


@distribution_function.register
def _(one: Binned, x: Tensor) -> tuple[Tensor, Tensor]:
    low, high = one.edges(x)
    return distribution_function(one.base, low)[1], distribution_function(one.base, high)[1]


@distribution_function.register
def _(one: EachColumn, x: Tensor) -> tuple[Tensor, Tensor]:
    ends = [distribution_function(fn, x[..., list(columns)]) for columns, fn in one.together.parts]
    below, upto = (one.together.in_order(list(of_parts)) for of_parts in zip(*ends, strict=True))
    return below, upto


@distribution_function.register
def _(one: Cumulative, x: Tensor) -> tuple[Tensor, Tensor]:
    return one.edges(x)


@distribution_function.register
def _(one: dist.Categorical, x: Tensor) -> tuple[Tensor, Tensor]:
    """Categories by number, in the order they are listed."""
    shape = torch.broadcast_shapes(x.shape, one.batch_shape)
    mass = one.probs.expand(*shape, -1)
    upto, number = mass.cumsum(-1), x.long().expand(shape)[..., None]
    return (upto - mass).gather(-1, number)[..., 0], upto.gather(-1, number)[..., 0]


@distribution_function.register
def _(one: dist.Poisson, x: Tensor) -> tuple[Tensor, Tensor]:
    """Q(x + 1, rate), the regularised incomplete gamma function."""
    rate = one.rate.expand(torch.broadcast_shapes(x.shape, one.batch_shape))
    upto = torch.special.gammaincc((x + 1).expand_as(rate), rate)
    return torch.where(x > 0, torch.special.gammaincc(x.clamp(min=1.0).expand_as(rate), rate), 0.0), upto


@distribution_function.register
def _(one: dist.NegativeBinomial, x: Tensor) -> tuple[Tensor, Tensor]:
    """I_p(k, x + 1), the regularised incomplete beta function of p = k / (k + mu): SciPy's, as torch has none."""
    parts = (x, one.total_count, one.logits)
    count, size, logits = torch.broadcast_tensors(*(part.detach().double().cpu() for part in parts))
    p, q = (-logits).sigmoid(), logits.sigmoid()
    swap = q < p  # the smaller of the two is not rounded, and I_p(k, x) = 1 - I_q(x, k)

    def less_than(end: Tensor) -> Tensor:
        found = _betainc(torch.where(swap, end, size), torch.where(swap, size, end), torch.minimum(p, q))
        return torch.where(end <= 0, 0.0, torch.where(swap, 1 - found, found)).to(x)

    return less_than(count), less_than(count + 1)


_betainc = elementwise(
    "betainc", lambda a, b, p: torch.as_tensor(betainc(a.numpy(), b.numpy(), p.numpy())), arguments=3
)


@distribution_function.register
def _(one: dist.ZeroInflatedDistribution, x: Tensor) -> tuple[Tensor, Tensor]:
    below, upto = distribution_function(one.base_dist, x)
    rest = (-one.gate_logits).sigmoid()
    # sum over values not above x
    return torch.where(x <= 0, 0.0, 1 - rest * (1 - below)), torch.where(x < 0, 0.0, 1 - rest * (1 - upto))


@distribution_function.register
def _(one: dist.BetaBinomial, x: Tensor) -> tuple[Tensor, Tensor]:
    """The sum of the masses on the side of x away from the mean, term by term."""
    parts = (x, one.total_count, one.concentration1, one.concentration0)
    count, total, a, b = torch.broadcast_tensors(*(part.double() for part in parts))
    above = count >= total * a / (a + b)
    last = torch.where(above, total - 1 - count, count)  # above the mean, count zeros instead of ones
    rest = _beta_binomial_upto(last, total, torch.where(above, b, a), torch.where(above, a, b))
    upto = torch.where(above, 1 - rest, rest)
    below = (upto - log_beta_binomial(count, total, a, b).exp()).clamp(min=0.0)
    return below.to(x), upto.to(x)


def _sum_of_masses(x: Tensor, total: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """P(X <= x), each mass computed from the one above it; the small masses above the mean may be lost."""
    blocks = []
    for k, n, of_ones, of_zeros in zip(*(part.flatten().split(BLOCK) for part in (x, total, a, b)), strict=True):
        mass = log_beta_binomial(k, n, of_ones, of_zeros).exp()
        upto = mass.clone()
        for _ in range(int(k.nan_to_num().max())):
            # once k is 0 there is nothing below
            mass = mass * k * (n - k + of_zeros) / ((n - k + 1) * ((k - 1).clamp(min=0.0) + of_ones))
            upto, k = upto + mass, k - 1
        blocks.append(upto)
    return torch.cat(blocks).view_as(x)


_beta_binomial_upto = elementwise("beta_binomial_upto", _sum_of_masses, arguments=4)


@distribution_function.register
def _(one: dist.MixtureSameFamily, x: Tensor) -> tuple[Tensor, Tensor]:
    weights = one.mixture_distribution.probs
    below, upto = ((weights * end).sum(-1) for end in distribution_function(one.component_distribution, x[..., None]))
    return below, upto


@distribution_function.register
def _(one: dist.LogNormal, x: Tensor) -> tuple[Tensor, Tensor]:
    upto = one.cdf(x.clamp(min=0.0))
    return upto, upto


@distribution_function.register
def _(one: PartlyBinned, x: Tensor) -> tuple[Tensor, Tensor]:
    of_cells = distribution_function(one.binned, x)
    of_rest = distribution_function(one.base, x)
    return tuple(torch.where(one.cut, cell, rest) for cell, rest in zip(of_cells, of_rest, strict=True))  # type: ignore[return-value]


@distribution_function.register
def _(one: Levels, x: Tensor) -> tuple[Tensor, Tensor]:
    shape = torch.broadcast_shapes(x.shape, one.batch_shape)
    mass = one.probs.expand(*shape, -1)
    number = one.number(x).expand(shape)[..., None]
    upto = mass.cumsum(-1).gather(-1, number)
    return (upto - mass.gather(-1, number))[..., 0], upto[..., 0]


# -- scores ------------------------------------------------------------------------------------------------------------


@singledispatch
def crps(one: Any, x: Tensor) -> Tensor:  # noqa: ARG001
    r"""The continuous ranked probability score of one variable at x, elementwise, in closed form, with its gradient.

    .. math:: \int (F(y) - [y \ge x])^2 \, dy

    Raises:
        Unknown: no function is registered for such a distribution.
    """
    raise Unknown(f"the continuous ranked probability score of {name_of(one)} is not known in closed form")


@crps.register
def _(one: PiecewiseQuantiles, x: Tensor) -> Tensor:
    return one.crps(x)


@crps.register
def _(one: dist.Normal, x: Tensor) -> Tensor:
    r""":math:`\sigma [u (2 \Phi(u) - 1) + 2 \phi(u) - \pi^{-1/2}]`, u = (x - mu) / sigma."""
    u = (x - one.loc) / one.scale
    density = (-u.square() / 2 - LOG_ROOT_TAU).exp()
    return one.scale * (u * torch.erf(u * math.sqrt(0.5)) + 2 * density - 1 / math.sqrt(math.pi))  # type: ignore[no-any-return]
