"""Training rules that are no bound on the evidence: what published codes maximise in its place."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Any

import torch
from annotated_types import Ge, Gt, Le, Lt
from pyro.distributions import Gamma
from torch import Tensor
from torch.distributions import kl_divergence

from zoo.densities import each_feature
from zoo.models.emissions import LOWER_QUANTILE, SPREAD
from zoo.objectives.lower_bound import Program, Terms, elbo, terms, traces

__all__ = ["BetaNLL", "MapGamma", "VariationalVariance", "faithful", "penalized", "pinball", "quantile", "two_stage"]

LOG_TAU = math.log(2 * math.pi)
Positive = Annotated[float, Gt(0), Lt(math.inf)]


def penalized(model: Any, guide: Program, x: Tensor) -> Terms:
    r"""The ELBO and the log prior of the parameters, ``model.log_prior()``, per datum.

    .. math:: \mathrm{ELBO}(x) + \tfrac{1}{n} \log p(\theta)
    """
    of_elbo = elbo(model, guide, x)
    return of_elbo._replace(extra=of_elbo.extra + model.log_prior())


def quantile(model: Any, guide: Program, x: Tensor) -> Terms:
    r"""Minus the pinball loss of the median and the 15 % quantile, and minus the KL term; not an ELBO.

    .. math:: - \sum_j [\rho_{0.15}(x_j - Q_{15,j}) + \rho_{0.5}(x_j - Q_{50,j})] - KL, \qquad
              \rho_a(r) = \max(a r, (a - 1) r)

    The terms named after the ELBO are those of the plug-in normal density.
    """
    p, q = traces(model, guide, x)
    of_density = terms(p, q, len(x))
    loss = pinball(p.nodes["x"]["fn"], x).mean()
    return _with_rule(of_density, -loss)


def pinball(fn: Any, x: Tensor) -> Tensor:
    """The pinball losses of a normal's two quantiles at the entries of x (B, D) that were observed, summed, (B,)."""
    median, lower = fn.mean, fn.mean - SPREAD * fn.stddev
    both = _pinball(LOWER_QUANTILE, x - lower) + _pinball(0.5, x - median)
    return torch.where(x.isnan(), 0.0, both).sum(-1)


def _pinball(level: float, residual: Tensor) -> Tensor:
    """max(a r, (a - 1) r), least in the mean where the a-quantile is."""
    return torch.maximum(level * residual, (level - 1) * residual)


def two_stage(model: Program, guide: Program, x: Tensor) -> Terms:
    r"""The ELBO of x under a standard normal prior of z, and that of z under the second stage, which moves it no more.

    .. math:: E_{q(z \mid x)} \left[ \log \frac{p(x \mid z) N(z; 0, I)}{q(z \mid x)}
              + E_{q(u \mid \bar z)} \log \frac{p(\bar z \mid u) p(u)}{q(u \mid \bar z)} \right], \qquad
              \bar z \text{ being } z \text{ held fixed}

    The terms named after the ELBO are those of the joint model.
    """
    p, q = traces(model, guide, x)
    joint = terms(p, q, len(x))
    z, prior_of_z = q.nodes["z"]["value"], p.nodes["u"]["fn"]
    first = p.nodes["x"]["log_prob"] + prior_of_z.log_prob(z) - q.nodes["z"]["log_prob"]
    second = p.nodes["z"]["fn"].log_prob(z.detach()) + p.nodes["u"]["log_prob"] - q.nodes["u"]["log_prob"]
    return joint._replace(extra=(first + second).mean() - joint.elbo)


def faithful(model: Program, guide: Program, x: Tensor) -> Terms:
    r"""A mean as it is under a fixed variance of 1, and a variance of what that mean leaves over.

    .. math:: E_{q(z \mid x)} \left[ \log N(x; \mu, I) + \log N(x; \bar\mu, \mathrm{diag}\, \sigma^2) \right] - KL,
              \qquad \bar\mu \text{ being } \mu \text{ held fixed}

    For a :class:`~zoo.networks.FaithfulDecoder`, whose sigma moves no parameter that the mean has, too. The terms named
    after the ELBO are those of the density. Stirn et al. (2023), https://arxiv.org/abs/2212.09184
    """
    p, q = traces(model, guide, x)
    of_density = terms(p, q, len(x))
    fn = p.nodes["x"]["fn"]
    mean, variance = fn.mean, fn.variance
    rule = _log_normal(x, mean, torch.ones_like(variance)) + _log_normal(x, mean.detach(), variance)
    return _with_rule(of_density, rule.sum(-1).mean())


@dataclass(frozen=True)
class BetaNLL:
    r"""Each column's log density, weighed by a power of its own variance: a wide column is not neglected.

    .. math:: E_{q(z \mid x)} \sum_j \bar\sigma_j^{2 \beta} \log N(x_j; \mu_j, \sigma_j^2) - KL, \qquad
              \bar\sigma \text{ being } \sigma \text{ held fixed}

    With beta = 0 it is the ELBO, with 1 the mean learns as under a fixed variance. The terms named after the ELBO are
    those of the density. Seitzer et al. (2022), https://arxiv.org/abs/2203.09168

    Args:
        beta: the power, of a variance.
    """

    beta: Annotated[float, Ge(0), Le(1)] = 0.5

    def __call__(self, model: Program, guide: Program, x: Tensor) -> Terms:
        """The weighed objective of a batch x, (B, D)."""
        p, q = traces(model, guide, x)
        of_density = terms(p, q, len(x))
        fn = p.nodes["x"]["fn"]
        variance = fn.variance
        rule = (variance.detach() ** self.beta * _log_normal(x, fn.mean, variance)).sum(-1).mean()
        return _with_rule(of_density, rule)


@dataclass(frozen=True)
class MapGamma:
    r"""The ELBO and the log density of a gamma prior on each precision.

    .. math:: \mathrm{ELBO}(x) + E_{q(z \mid x)} \sum_j \log \mathrm{Gamma}(\sigma_j^{-2}; a, b)

    Bounded for a of at least 1/2: what the precision's own density takes away, -b / sigma^2, grows faster than what
    the normal's gives. The MAP-VAE of Stirn & Knowles (2020), https://arxiv.org/abs/2006.04910

    Args:
        shape: a.
        rate: b.
    """

    shape: Positive = 1.0
    rate: Positive = 1e-3

    def __call__(self, model: Program, guide: Program, x: Tensor) -> Terms:
        """The penalised objective of a batch x, (B, D)."""
        p, q = traces(model, guide, x)
        of_density = terms(p, q, len(x))
        precision = p.nodes["x"]["fn"].variance.reciprocal()
        prior = Gamma(precision.new_tensor(self.shape), precision.new_tensor(self.rate), validate_args=False)
        log_prior = torch.where(x.isnan(), 0.0, prior.log_prob(precision)).sum(-1).mean()
        return of_density._replace(extra=of_density.extra + log_prior)


@dataclass(frozen=True)
class VariationalVariance:
    r"""A gamma posterior over each precision, whose divergence from a gamma prior is taken off.

    .. math:: E_{q(z \mid x)} \sum_j \left[ \tfrac12 \left( \psi(\alpha_j) - \log \beta_j - \log 2 \pi
              - \tfrac{\alpha_j}{\beta_j} (x_j - \mu_j)^2 \right)
              - KL(\mathrm{Gamma}(\alpha_j, \beta_j) \,\|\, \mathrm{Gamma}(a, b)) \right] - KL

    For a likelihood of Student-t columns, which is what the precisions leave when they are integrated out: 2 alpha
    degrees of freedom, a scale of sqrt(beta / alpha). The terms named after the ELBO are those of that density.
    Bounded through the second divergence. V3AE with the prior "Gamma": Stirn & Knowles (2020),
    https://arxiv.org/abs/2006.04910

    Args:
        shape: a.
        rate: b.
    """

    shape: Positive = 1.0
    rate: Positive = 1e-3

    def __call__(self, model: Program, guide: Program, x: Tensor) -> Terms:
        """The bound of a batch x, (B, D), with the precisions as latents."""
        p, q = traces(model, guide, x)
        of_density = terms(p, q, len(x))
        each: Any = each_feature(p.nodes["x"]["fn"])
        alpha = each.df / 2
        beta = alpha * each.scale.square()
        prior = Gamma(torch.full_like(alpha, self.shape), torch.full_like(beta, self.rate), validate_args=False)
        divergence = kl_divergence(Gamma(alpha, beta, validate_args=False), prior)
        residual = torch.where(x.isnan(), each.loc, x) - each.loc
        expected = (alpha.digamma() - beta.log() - LOG_TAU - alpha / beta * residual.square()) / 2
        rule = torch.where(x.isnan(), 0.0, expected - divergence).sum(-1).mean()
        return _with_rule(of_density, rule)


def _with_rule(of_density: Terms, rule: Tensor) -> Terms:
    """The terms of a density, with a rule to maximise in the place of its log likelihood."""
    return of_density._replace(extra=of_density.extra + rule - of_density.log_likelihood)


def _log_normal(x: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
    """Log N(x; mean, variance) of each entry, 0 of one that was not observed."""
    residual = torch.where(x.isnan(), mean, x) - mean
    return torch.where(x.isnan(), 0.0, -(residual.square() / variance + variance.log() + LOG_TAU) / 2)
