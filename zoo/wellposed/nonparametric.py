"""How high a likelihood can go if its variances have a floor: the nonparametric ceiling."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import singledispatch
from numbers import Real
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from zoo import models
from zoo.catalogue import Pair
from zoo.errors import OptionError
from zoo.lenses import Observed
from zoo.models import emissions
from zoo.options import count

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

__all__ = ["Ceiling", "ceiling", "complete"]


@dataclass(frozen=True)
class Ceiling:
    """How high the log likelihood of a data set can go given a smallest variance, in nats, in the units as loaded.

    Attributes:
        naive: every datum at the mode of the narrowest density.
        reached: the value of the best mixture of such densities found.
        certified: no distribution of their means can do better than this.
        atoms: how many means that mixture has.
    """

    naive: float
    reached: float
    certified: float
    atoms: int


def complete(pair: Pair, x: ArrayLike) -> tuple[Pair, Tensor]:
    """The pair as a model of complete data, and complete data in its units."""
    if not isinstance(pair, Pair):
        raise OptionError(f"pair is a {type(pair).__name__}; create it first, with zoo.create.")
    rows = torch.as_tensor(pair.view.inward(pair.view.checked(x)))
    if rows.isnan().any():
        raise OptionError("x has missing entries, and a path or a ceiling needs complete rows: leave the others out.")
    inner: Any = pair.model
    return (replace(pair, model=inner.model) if isinstance(inner, Observed) else pair), rows


def ceiling(pair: Pair, x: ArrayLike, *, iterations: int = 500, tolerance: float = 1e-6) -> Ceiling:
    r"""The highest log likelihood of x that any decoder could give a pair whose variances have a floor.

    Every p(x) of such a pair is a mixture of densities N(\mu, \xi I), so the nonparametric maximum-likelihood
    mixture is a ceiling (Mattei & Frellsen 2018, Theorem 2, https://arxiv.org/abs/1802.04826). It is approached from
    below by EM over weights and means, started from the data, and certified from above: the log likelihood is concave
    in the mixing distribution G, so

    .. math:: \sup_{G'} \ell(G') \le \ell(G) + \max_\mu \sum_i \frac{N(x_i; \mu, \xi I)}{f_G(x_i)} - n

    with the maximum sought by mean shift from every datum. The naive bound is -(nD/2) log 2 pi xi. Both are ceilings of
    the full sum over x, not of a minibatch or a validation trace.

    Args:
        pair: a pair with a floor or a fixed variance.
        x: data in the units as loaded, shape (N, D). Memory: several N x N matrices.
        iterations: the most EM steps and mean shifts.
        tolerance: EM ends when a step gains less than this, in nats per datum.

    Raises:
        OptionError: a pair without a smallest variance, or an argument of the wrong type or range.

    >>> import zoo
    >>> data = zoo.load_data("iris")
    >>> found = ceiling(zoo.create("gaussian-constrained", data, floor=0.1), data.train)
    >>> found.reached <= found.certified < found.naive
    True
    """
    (pair, rows), iterations = complete(pair, x), count("iterations", iterations)
    if not (isinstance(tolerance, Real) and 0 <= tolerance < math.inf):
        raise OptionError(f"tolerance={tolerance!r}; give a number of nats, at least 0.")
    smallest = smallest_variance(pair.model)
    n, d = rows.shape
    constant = -d / 2 * math.log(2 * math.pi * smallest)
    means, log_weights = rows.clone(), torch.full((n,), -math.log(n), dtype=torch.float64)
    height = torch.full((n,), -math.inf, dtype=torch.float64)
    for _ in range(iterations):
        joint = _log_kernel(rows, means, smallest) + log_weights
        before, height = height, joint.logsumexp(1)
        if (height - before).mean() < float(tolerance):
            break
        share = (joint - height[:, None]).exp()
        weights = share.sum(0)
        kept = weights > 1e-12
        share, weights = share[:, kept], weights[kept]
        means, log_weights = share.T @ rows / weights[:, None], (weights / n).log()
    at = rows.clone()
    for _ in range(iterations):  # mean shift: uphill on the certificate, from every datum
        pull = (_log_kernel(rows, at, smallest) - height[:, None]).T.softmax(1)
        at, last = pull @ rows, at
        if (at - last).abs().max() < 1e-9:
            break
    excess = float((_log_kernel(rows, at, smallest) - height[:, None]).logsumexp(0).exp().max()) - n
    reached = float(height.sum()) + n * (constant - pair.view.log_volume)
    naive = n * (constant - pair.view.log_volume)
    return Ceiling(naive, reached, min(naive, reached + max(0.0, excess)), len(_distinct(means, smallest)))


@singledispatch
def smallest_variance(model: Any) -> float:
    """The smallest eigenvalue that any covariance of the model may have, in its units."""
    raise OptionError(
        f"no ceiling is computed for {type(model).__name__}: it needs normal densities with a fixed variance or a "
        "floor."
    )


@smallest_variance.register
def _(model: models.VAE) -> float:
    return smallest_variance(model.emission)


@smallest_variance.register(emissions.ConstrainedNormal)
@smallest_variance.register(models.GaussianMixture)
def _(model: emissions.ConstrainedNormal | models.GaussianMixture) -> float:
    if not model.floor:
        raise OptionError(f"{type(model).__name__} without a floor has no smallest variance, and so no ceiling.")
    return model.floor


@smallest_variance.register
def _(model: emissions.FixedNormal) -> float:
    return model.scale**2


def _log_kernel(x: Tensor, means: Tensor, variance: float) -> Tensor:
    """-|x_i - mu_k|^2 / 2 xi, (N, K)."""
    return torch.cdist(x, means).square() / (-2 * variance)


def _distinct(means: Tensor, variance: float) -> Tensor:
    """The means; those closer than a thousandth of a standard deviation count once."""
    distinct: Tensor = (means / (1e-3 * variance**0.5)).round().unique(dim=0)
    return distinct
