"""Training rules that do not bound the evidence: what published codes maximise instead."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Any

import torch
from annotated_types import Ge, Gt, Le, Lt
from pyro.distributions import Gamma, Independent, Normal, StudentT
from pyro.distributions.util import scale_and_mask
from torch import Tensor
from torch.distributions import kl_divergence

from zoo.answers import name_of
from zoo.densities import each_feature
from zoo.errors import OptionError
from zoo.lenses import Gapped
from zoo.models.emissions import LOWER_QUANTILE, SPREAD
from zoo.objectives.lower_bound import Loss, Program, Weight, reward, terms, traces
from zoo.parts import register_objective

__all__ = [
    "BetaNLL",
    "Faithful",
    "MapGamma",
    "Penalized",
    "Quantile",
    "Split",
    "TwoStage",
    "VariationalVariance",
    "pinball",
]

LOG_TAU = math.log(2 * math.pi)
SMALLEST_PRECISION = 1e-30
Positive = Annotated[float, Gt(0), Lt(math.inf)]


@register_objective("penalized", summary="The ELBO plus the log prior of the parameters; not a bound on the evidence.")
@dataclass(frozen=True)
class Penalized:
    r"""The ELBO plus the log prior of the parameters, ``model.log_prior()``, per datum.

    .. math:: \mathrm{ELBO}(x) + \tfrac{1}{n} \log p(\theta)
    """

    def __call__(self, model: Any, guide: Program, x: Tensor, kl_weight: Weight = 1.0) -> Loss:
        """Minus the penalised bound of a batch x, (B, D)."""
        if not hasattr(model, "log_prior"):
            raise OptionError(
                "objective penalized: the pair has no log_prior() of its parameters; gaussian-map and gmm-map have one."
            )
        of = terms(*traces(model, guide, x), len(x))
        return of.loss_of(of.weighted_likelihood + model.log_prior(), kl_weight)


@register_objective(
    "quantile",
    summary="Pinball losses of two quantiles in place of a likelihood; not a bound on the evidence.",
    reference="Akrami et al. (2020), Addressing Variance Shrinkage in VAEs using Quantile Regression",
    link="https://arxiv.org/abs/2010.09042",
)
@dataclass(frozen=True)
class Quantile:
    r"""Minus the pinball losses of the median and the 15 % quantile, minus the KL term; not an ELBO.

    .. math:: - \sum_j [\rho_{0.15}(x_j - Q_{15,j}) + \rho_{0.5}(x_j - Q_{50,j})] - KL, \qquad
              \rho_a(r) = \max(a r, (a - 1) r)

    The terms named after the ELBO are those of the plug-in normal density.
    """

    def __call__(self, model: Program, guide: Program, x: Tensor, kl_weight: Weight = 1.0) -> Loss:
        """The loss of a batch x, (B, D)."""
        p, q = traces(model, guide, x)
        return terms(p, q, len(x)).loss_of(reward(p, q, -pinball(_normal(p, "quantile"), x)), kl_weight)


def pinball(fn: Any, x: Tensor) -> Tensor:
    """The summed pinball losses of a normal's two quantiles at the observed entries of x (B, D), (B,)."""
    median, lower = fn.mean, fn.mean - SPREAD * fn.stddev
    both = _pinball(LOWER_QUANTILE, x - lower) + _pinball(0.5, x - median)
    return torch.where(x.isnan(), 0.0, both).sum(-1)


def _pinball(level: float, residual: Tensor) -> Tensor:
    """max(a r, (a - 1) r), whose mean is least at the a-quantile."""
    return torch.maximum(level * residual, (level - 1) * residual)


@register_objective(
    "two-stage",
    summary="The ELBO under a standard normal prior, plus the latents' ELBO under a second VAE; not a bound by itself.",
    reference="Dai & Wipf (2019), Diagnosing and Enhancing VAE Models",
    link="https://arxiv.org/abs/1903.05789",
)
@dataclass(frozen=True)
class TwoStage:
    r"""The ELBO of x under a standard normal prior of z, plus the ELBO of z, held fixed, under the second stage.

    .. math:: E_{q(z \mid x)} \left[ \log \frac{p(x \mid z) N(z; 0, I)}{q(z \mid x)}
              + E_{q(u \mid \bar z)} \log \frac{p(\bar z \mid u) p(u)}{q(u \mid \bar z)} \right], \qquad
              \bar z \text{ being } z \text{ held fixed}

    A warm-up weights the KL term of each of the two. The terms named after the ELBO are the joint model's.
    """

    def __call__(self, model: Program, guide: Program, x: Tensor, kl_weight: Weight = 1.0) -> Loss:
        """Minus the sum of the two bounds of a batch x, (B, D)."""
        p, q = traces(model, guide, x)
        if "u" not in p.nodes:
            raise OptionError("objective two-stage: the pair has no second stage u; gaussian-two-stage has one.")
        joint = terms(p, q, len(x))
        z, prior_of_z = q.nodes["z"]["value"], p.nodes["u"]["fn"]
        first_kl = q.nodes["z"]["log_prob"] - scale_and_mask(prior_of_z.log_prob(z), 1.0, q.nodes["z"]["mask"])
        second_kl = q.nodes["u"]["log_prob"] - p.nodes["u"]["log_prob"]
        of_second = scale_and_mask(p.nodes["z"]["fn"].log_prob(z.detach()), 1.0, p.nodes["z"]["mask"])
        both = p.nodes["x"]["log_prob"] + of_second
        return joint._replace(weighted_kl=(first_kl + second_kl).mean()).loss_of(both.mean(), kl_weight)


@register_objective(
    "faithful",
    summary="A mean as with a fixed variance, and a variance of its residuals; not a bound on the evidence.",
    reference="Stirn et al. (2023), Faithful Heteroscedastic Regression with Neural Networks",
    link="https://arxiv.org/abs/2212.09184",
)
@dataclass(frozen=True)
class Faithful:
    r"""A mean trained as with a fixed variance of 1, and a variance of its residuals.

    .. math:: E_{q(z \mid x)} \left[ \log N(x; \mu, I) + \log N(x; \bar\mu, \mathrm{diag}\, \sigma^2) \right] - KL,
              \qquad \bar\mu \text{ being } \mu \text{ held fixed}

    For a :class:`~zoo.networks.FaithfulDecoder`, where sigma moves no parameter of the mean. The terms named after the
    ELBO are the density's.
    """

    def __call__(self, model: Program, guide: Program, x: Tensor, kl_weight: Weight = 1.0) -> Loss:
        """The loss of a batch x, (B, D)."""
        p, q = traces(model, guide, x)
        fn = _normal(p, "faithful")
        mean, variance = fn.mean, fn.variance
        rule = _log_normal(x, mean, torch.ones_like(variance)) + _log_normal(x, mean.detach(), variance)
        return terms(p, q, len(x)).loss_of(reward(p, q, rule.sum(-1)), kl_weight)


@register_objective(
    "split",
    summary="The mean as under a fixed variance, and a Student-t for its residuals; not a bound on the evidence.",
    reference="Detlefsen et al. (2019), Reliable Training and Estimation of Variance Networks",
    link="https://arxiv.org/abs/1906.03260",
)
@dataclass(frozen=True)
class Split:
    r"""A mean as it is under a fixed variance, and Student-t columns about that mean, trained apart.

    .. math:: E_{q(z \mid x)} \left[ \log N(x; \mu, s^2 I) + \sum_j \log t_{2 \alpha_j}(x_j; \bar\mu_j,
              \sqrt{\beta_j / \alpha_j}) \right] - KL, \qquad \bar\mu \text{ being } \mu \text{ held fixed}

    For ``GammaPrecision`` columns, a variance whose inverse is gamma-distributed, on a
    :class:`~zoo.networks.FaithfulDecoder`, whose alpha and beta move no parameter that the mean or the encoder has. In
    the paper the mean is trained first and the rest after it, with the mean held fixed: as neither moves the other's
    parameters, both are done in every step here. The terms named after the ELBO are those of the density.

    Of the paper two parts are left out: its minibatches of near neighbours, which weigh data by how many those are,
    and the variance that grows with the distance of z from the training data's, which is no function of z alone.

    Args:
        scale: s, in scaled units; the authors' code has 0.02 of a grey value's range, which leaves the KL term little.
    """

    scale: Positive = 1.0

    def __call__(self, model: Program, guide: Program, x: Tensor, kl_weight: Weight = 1.0) -> Loss:
        """The loss of a batch x, (B, D)."""
        p, q = traces(model, guide, x)
        fn = _student(p, "split")
        seen = torch.where(x.isnan(), fn.loc, x)
        apart = type(fn)(fn.df, fn.loc.detach(), fn.scale, validate_args=False).log_prob(seen)
        rest = torch.where(x.isnan(), 0.0, apart)
        rule = _log_normal(x, fn.loc, torch.full_like(fn.loc, self.scale**2)) + rest
        return terms(p, q, len(x)).loss_of(reward(p, q, rule.sum(-1)), kl_weight)


@register_objective(
    "beta-nll",
    summary="Log densities weighted by a power of their own variance; not a bound on the evidence.",
    reference="Seitzer et al. (2022), On the Pitfalls of Heteroscedastic Uncertainty Estimation",
    link="https://arxiv.org/abs/2203.09168",
)
@dataclass(frozen=True)
class BetaNLL:
    r"""Each column's log density, weighted by a power of its own variance, so that wide columns are not neglected.

    .. math:: E_{q(z \mid x)} \sum_j \bar\sigma_j^{2 \beta} \log N(x_j; \mu_j, \sigma_j^2) - KL, \qquad
              \bar\sigma \text{ being } \sigma \text{ held fixed}

    With beta = 0 it is the ELBO; with 1 the mean learns as with a fixed variance. The terms named after the ELBO are
    the density's. Seitzer et al. (2022), https://arxiv.org/abs/2203.09168

    Args:
        beta: the power, of a variance.
    """

    beta: Annotated[float, Ge(0), Le(1)] = 0.5

    def __call__(self, model: Program, guide: Program, x: Tensor, kl_weight: Weight = 1.0) -> Loss:
        """The weighted objective of a batch x, (B, D)."""
        p, q = traces(model, guide, x)
        fn = _normal(p, "beta-nll")
        variance = fn.variance
        rule = variance.detach() ** self.beta * _log_normal(x, fn.mean, variance)
        return terms(p, q, len(x)).loss_of(reward(p, q, rule.sum(-1)), kl_weight)


@register_objective(
    "map-gamma",
    summary="The ELBO plus the log density of a gamma prior on each precision; not a bound on the evidence.",
    reference="Stirn & Knowles (2020), Variational Variance",
    link="https://arxiv.org/abs/2006.04910",
)
@dataclass(frozen=True)
class MapGamma:
    r"""The ELBO plus the log density of a gamma prior on each precision.

    .. math:: \mathrm{ELBO}(x) + E_{q(z \mid x)} \sum_j \log \mathrm{Gamma}(\sigma_j^{-2}; a, b)

    Bounded if a is at least 1/2: -b lambda bounds it for large precisions lambda, and (a - 1/2) log lambda for small
    ones. The MAP-VAE of Stirn & Knowles (2020), https://arxiv.org/abs/2006.04910

    Args:
        shape: a.
        rate: b.
    """

    shape: Positive = 1.0
    rate: Positive = 1e-3

    def __call__(self, model: Program, guide: Program, x: Tensor, kl_weight: Weight = 1.0) -> Loss:
        """The penalised objective of a batch x, (B, D)."""
        p, q = traces(model, guide, x)
        of = terms(p, q, len(x))
        precision = _normal(p, "map-gamma").variance.reciprocal()
        prior = Gamma(precision.new_tensor(self.shape), precision.new_tensor(self.rate), validate_args=False)
        log_prior = torch.where(x.isnan(), 0.0, prior.log_prob(precision)).sum(-1)
        return of.loss_of(of.weighted_likelihood + reward(p, q, log_prior), kl_weight)


@register_objective(
    "variational-variance",
    summary="The ELBO with the precisions as latents, a gamma posterior each: a bound on the evidence.",
    reference="Stirn & Knowles (2020), Variational Variance",
    link="https://arxiv.org/abs/2006.04910",
)
@dataclass(frozen=True)
class VariationalVariance:
    r"""A gamma posterior over each precision, minus its divergence from a prior.

    .. math:: E_{q(z \mid x)} \sum_j \left[ \tfrac12 \left( \psi(\alpha_j) - \log \beta_j - \log 2 \pi
              - \tfrac{\alpha_j}{\beta_j} (x_j - \mu_j)^2 \right)
              - KL(\mathrm{Gamma}(\alpha_j, \beta_j) \,\|\, \mathrm{Gamma}(a, b)) \right] - KL

    For a likelihood of Student-t columns, the result of integrating out the precisions: 2 alpha degrees of freedom, a
    scale of sqrt(beta / alpha). The terms named after the ELBO are those of that density.
    Bounded through the second divergence if the prior is fixed. V3AE with the prior "Gamma", or with the model's own
    ``log_precision_prior`` (``zoo.models.PrecisionVAE``), by one draw of the precisions: Stirn & Knowles (2020),
    https://arxiv.org/abs/2006.04910

    Args:
        shape: a, unless the model has a prior of its own.
        rate: b.
    """

    shape: Positive = 1.0
    rate: Positive = 1e-3

    def __call__(self, model: Program, guide: Program, x: Tensor, kl_weight: Weight = 1.0) -> Loss:
        """The bound of a batch x, (B, D), with the precisions as latents."""
        p, q = traces(model, guide, x)
        each = _student(p, "variational-variance")
        alpha = each.df / 2
        beta = alpha * each.scale.square()
        there, posterior = ~x.isnan(), Gamma(alpha, beta, validate_args=False)
        residual = torch.where(there, x, each.loc) - each.loc
        expected = (alpha.digamma() - beta.log() - LOG_TAU - alpha / beta * residual.square()) / 2
        own = getattr(model, "log_precision_prior", None)
        if own is None:
            prior = Gamma(torch.full_like(alpha, self.shape), torch.full_like(beta, self.rate), validate_args=False)
            taken = torch.where(there, kl_divergence(posterior, prior), 0.0).sum(-1)
        else:
            # one of a small shape may underflow, where some gammas are infinite
            precision = posterior.rsample().clamp(min=SMALLEST_PRECISION)
            log_prior = own(precision, there, q.nodes["z"]["value"], guide)
            taken = -torch.where(there, posterior.entropy(), 0.0).sum(-1) - log_prior
        rule = torch.where(there, expected, 0.0).sum(-1) - taken
        return terms(p, q, len(x)).loss_of(reward(p, q, rule), kl_weight)


def _normal(model_trace: Any, objective: str) -> Any:
    """p(x | z), if it is a product of independent normals."""
    fn = model_trace.nodes["x"]["fn"]
    each = fn.base if isinstance(fn, Gapped) else fn
    if not (isinstance(each, Independent) and isinstance(each.base_dist, Normal)):
        raise OptionError(
            f"objective {objective}: it needs independent normals given z, and this pair has {name_of(each)}."
        )
    return fn


def _student(model_trace: Any, objective: str) -> Any:
    """The columns of p(x | z), if they are of Student's t."""
    each: Any = each_feature(model_trace.nodes["x"]["fn"])
    if not isinstance(each, StudentT):
        raise OptionError(
            f"objective {objective}: it needs Student-t columns given z, as in gaussian-v3ae, and these are "
            f"{name_of(each)}."
        )
    return each


def _log_normal(x: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
    """Log N(x; mean, variance) of each entry, 0 for missing ones."""
    residual = torch.where(x.isnan(), mean, x) - mean
    return torch.where(x.isnan(), 0.0, -(residual.square() / variance + variance.log() + LOG_TAU) / 2)
