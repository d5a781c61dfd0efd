"""How high a likelihood can go if its densities cannot be too narrow: the nonparametric ceiling."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import singledispatch
from numbers import Real
from typing import TYPE_CHECKING, Any, NamedTuple

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
    """How high the log likelihood of a data set can go with any decoder, in nats, in the units as loaded.

    Attributes:
        naive: every datum at the mode of the narrowest density, or at a mass of 1.
        reached: the value of the best mixture of such densities or masses found.
        certified: no distribution of their centres can do better than this.
        atoms: how many centres that mixture has.
    """

    naive: float
    reached: float
    certified: float
    atoms: int


class Kernel(NamedTuple):
    """The narrowest density of a family, of which each wider one is a mixture over centres; or a mass by its mean.

    The best centre of weighted data is their mean by those weights.

    Attributes:
        seen: data (N, D) on the scale that centres are on.
        log_density: of data so seen (N, D) about centres (K, D), (N, K).
        width: centres that differ by a thousandth of this are one.
    """

    seen: Callable[[Tensor], Tensor]
    log_density: Callable[[Tensor, Tensor], Tensor]
    width: float


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
    r"""The highest log likelihood of x that any decoder could give a pair whose p(x | z) cannot be too narrow.

    Every p(x) of such a pair is a mixture of the narrowest p(x | z) over its centre: of densities N(\mu, \xi I) under
    a floor, also of the logarithms, or of Poisson masses. The nonparametric maximum-likelihood mixture is a ceiling
    (Mattei & Frellsen 2018, Theorem 2, https://arxiv.org/abs/1802.04826). It is approached from below by EM over
    weights and centres, started from the data, and certified from above: the log likelihood is concave in the mixing
    distribution G, so

    .. math:: \sup_{G'} \ell(G') \le \ell(G) + \max_\mu \sum_i \frac{p(x_i; \mu)}{f_G(x_i)} - n

    with the maximum sought by mean shift from every datum. If a pair can put all of its mass on one row, the ceiling
    is that of the data's own frequencies, in closed form:

    .. math:: \ell \le \sum_i \log \frac{n_i}{n}, \qquad n_i \text{ rows being equal to } x_i

    The naive bound is -(nD/2) log 2 pi xi for normals. All are ceilings of the full sum over x, not of a minibatch or a
    validation trace.

    Args:
        pair: a pair with a floor or a fixed variance, or one of some masses.
        x: data in the units as loaded, shape (N, D). Memory: several N x N matrices.
        iterations: the most EM steps and mean shifts.
        tolerance: EM ends when a step gains less than this, in nats per datum.

    Raises:
        OptionError: a pair of which no ceiling is known, or an argument of the wrong type or range.

    >>> import zoo
    >>> data = zoo.load_data("iris")
    >>> found = ceiling(zoo.create("gaussian-constrained", data, floor=0.1), data.train)
    >>> found.reached <= found.certified < found.naive
    True
    """
    (pair, rows), iterations = complete(pair, x), count("iterations", iterations)
    if not (isinstance(tolerance, Real) and 0 <= tolerance < math.inf):
        raise OptionError(f"tolerance={tolerance!r}; give a number of nats, at least 0.")
    kernel, n = narrowest(pair.model), len(rows)
    volume = n * pair.view.log_volume
    if kernel is None:
        _, copies = rows.unique(dim=0, return_counts=True)
        of_copies = float((copies * (copies / n).log()).sum())
        return Ceiling(0.0, of_copies, of_copies, len(copies))
    seen = kernel.seen(rows)
    centres, log_weights = seen.clone(), torch.full((n,), -math.log(n), dtype=torch.float64)
    height = torch.full((n,), -math.inf, dtype=torch.float64)
    for _ in range(iterations):
        joint = kernel.log_density(seen, centres) + log_weights
        before, height = height, joint.logsumexp(1)
        if (height - before).mean() < float(tolerance):
            break
        share = (joint - height[:, None]).exp()
        weights = share.sum(0)
        kept = weights > 1e-12
        share, weights = share[:, kept], weights[kept]
        centres, log_weights = share.T @ seen / weights[:, None], (weights / n).log()
    at = seen.clone()
    for _ in range(iterations):  # uphill on the certificate, from every datum
        pull = (kernel.log_density(seen, at) - height[:, None]).T.softmax(1)
        at, last = pull @ seen, at
        if (at - last).abs().max() < 1e-9:
            break
    excess = float((kernel.log_density(seen, at) - height[:, None]).logsumexp(0).exp().max()) - n
    reached = float(height.sum()) - volume
    naive = float(kernel.log_density(seen, seen).diagonal().sum()) - volume
    atoms = (centres / (1e-3 * kernel.width)).round().unique(dim=0)
    return Ceiling(naive, reached, min(naive, reached + max(0.0, excess)), len(atoms))


@singledispatch
def narrowest(model: Any) -> Kernel | None:
    """The narrowest p(x | z) of a model, in its units; None where all mass can be on any one row."""
    raise OptionError(
        f"no ceiling is computed for {type(model).__name__}: it needs normal densities with a fixed variance or a "
        "floor, also of logarithms, or certain masses."
    )


@narrowest.register
def _(model: models.VAE) -> Kernel | None:
    return narrowest(model.emission)


@narrowest.register(emissions.ConstrainedNormal)
@narrowest.register(models.GaussianMixture)
def _(model: emissions.ConstrainedNormal | models.GaussianMixture) -> Kernel:
    return _normal(_floor(model))


@narrowest.register
def _(model: emissions.FixedNormal) -> Kernel:
    return _normal(model.scale**2)


@narrowest.register
def _(model: emissions.LogNormal) -> Kernel:
    normal = _normal(_floor(model))
    return normal._replace(seen=torch.log, log_density=lambda y, m: normal.log_density(y, m) - y.sum(1, keepdim=True))


@narrowest.register
def _(model: emissions.Poisson) -> Kernel:  # noqa: ARG001
    def log_mass(x: Tensor, rates: Tensor) -> Tensor:
        log_rates = rates.clamp(min=torch.finfo(rates.dtype).tiny).log()
        return x @ log_rates.T - rates.sum(1) - torch.lgamma(x + 1).sum(1, keepdim=True)

    return Kernel(_as_it_is, log_mass, 1.0)


@narrowest.register(emissions.Bernoulli)
@narrowest.register(emissions.Softmax)
@narrowest.register(emissions.LevelSoftmax)
@narrowest.register(emissions.BinnedOrdinal)
def _(model: Any) -> None:  # noqa: ARG001
    return None


def _floor(model: Any) -> float:
    floor: float = model.floor
    if not floor:
        name = type(model).__name__
        raise OptionError(f"no ceiling is computed for {name} without a floor: its variances have no lower limit.")
    return floor


def _normal(variance: float) -> Kernel:
    def log_density(x: Tensor, means: Tensor) -> Tensor:
        constant = x.shape[1] / 2 * math.log(2 * math.pi * variance)
        return torch.cdist(x, means).square() / (-2 * variance) - constant

    return Kernel(_as_it_is, log_density, variance**0.5)


def _as_it_is(x: Tensor) -> Tensor:
    return x
