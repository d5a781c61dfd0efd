"""The evidence lower bound and its relatives: a likelihood, and a KL term that may be weighted or in closed form."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import pyro.distributions as dist
import torch
from annotated_types import Ge, Gt, Lt
from pyro.distributions.util import scale_and_mask
from torch import Tensor
from torch.distributions import kl_divergence

from zoo.objectives.lower_bound import (
    Loss,
    Program,
    Terms,
    Weight,
    at_latents,
    held,
    latent_sites,
    masked_columns,
    plain_log_prob,
    refuse_scaled,
    terms,
    traces,
)
from zoo.parts import register_objective

__all__ = ["ELBO", "BetaELBO", "FreeBits", "TemperedELBO"]


@register_objective(
    "elbo",
    summary="The evidence lower bound.",
    reference="Kingma & Welling (2014), Auto-Encoding Variational Bayes",
    link="https://arxiv.org/abs/1312.6114",
)
@dataclass(frozen=True)
class ELBO:
    r"""The evidence lower bound at one draw of every sampled latent, enumerated latents summed out.

    .. math:: \mathrm{ELBO}(x) = E_{q(z \mid x)} [\log p(x \mid z) + \log p(z) - \log q(z \mid x)]

    The same value and gradient as Pyro's ``Trace_ELBO`` (``TraceEnum_ELBO`` where a latent is enumerated,
    ``TraceMeanField_ELBO`` with the KL term in closed form) at the same draws, without its host synchronisation. The
    path gradient, through the draws only, leaves out a term with mean zero; it has no noise where q is the posterior
    (sticking the landing: Roeder, Wu & Duvenaud 2017, https://arxiv.org/abs/1703.09194).

    Args:
        kl: "sampled", or "analytic" for the closed form if torch has one for a single latent; otherwise sampled.
        gradient: "total", or "path" for the gradient through the draws only.
    """

    kl: Literal["sampled", "analytic"] = "sampled"
    gradient: Literal["total", "path"] = "total"

    def __post_init__(self) -> None:
        if self.kl == "analytic" and self.gradient == "path":
            raise ValueError('kl="analytic" has no draws, so gradient="path" does not apply: choose one.')

    def __call__(self, model: Program, guide: Program, x: Tensor, kl_weight: Weight = 1.0) -> Loss:
        """Minus the ELBO of a batch x, (B, D)."""
        p, q = traces(model, guide, x)
        of = terms(p, q, len(x))
        if self.kl == "analytic":
            of = _with_closed_kl(of, p, q, len(x))
        elif self.gradient == "path":
            of = of._replace(weighted_kl=of.weighted_kl + _without_score(guide, q, x))
        return of.loss_of(of.weighted_likelihood, kl_weight)


@register_objective(
    "beta-vae",
    summary="The ELBO with its KL term weighted by beta: a bound on the evidence only if beta is at least 1.",
    reference="Higgins et al. (2017), beta-VAE",
    link="https://openreview.net/forum?id=Sy2fzU9gl",
)
@dataclass(frozen=True)
class BetaELBO:
    r"""The ELBO with its KL term weighted.

    .. math:: E_{q(z \mid x)} \log p(x \mid z) - \beta \, KL(q(z \mid x) \,\|\, p(z))

    At most the ELBO if beta is at least 1, otherwise not a bound. ``fit(..., warmup=STEPS)`` raises the weight to beta.

    Args:
        beta: the weight.
    """

    beta: Annotated[float, Ge(0), Lt(math.inf)] = 4.0

    def __call__(self, model: Program, guide: Program, x: Tensor, kl_weight: Weight = 1.0) -> Loss:
        """Minus the weighted bound of a batch x, (B, D)."""
        of = terms(*traces(model, guide, x), len(x))
        of = of._replace(weighted_kl=self.beta * of.weighted_kl)
        return of.loss_of(of.weighted_likelihood, kl_weight)


@register_objective(
    "tempered",
    summary="The ELBO with a KL term that weighs more during the warm-up, which helps a guide to cover several modes.",
    reference="Huang et al. (2018), Improving Explorability in Variational Inference",
    link="https://arxiv.org/abs/1809.01818",
)
@dataclass(frozen=True)
class TemperedELBO:
    r"""The ELBO, approached from a heavier KL term, so that a guide starts as wide as the prior.

    .. math:: E_{q(z \mid x)} \log p(x \mid z) - \beta_t \, KL(q(z \mid x) \,\|\, p(z)), \qquad
              \log \beta_t = (1 - w_t) \log \beta

    with w the weight that ``fit(..., warmup=STEPS)`` raises to 1. A plain warm-up does the opposite: it starts without
    the prior, and the guide settles on one mode of several.

    Args:
        beta: the weight of the KL term at the start.
    """

    beta: Annotated[float, Ge(1), Lt(math.inf)] = 100.0
    over_warmup: ClassVar[bool] = True  # without one it is the ELBO

    def __call__(self, model: Program, guide: Program, x: Tensor, kl_weight: Weight = 1.0) -> Loss:
        """Minus the tempered bound of a batch x, (B, D)."""
        of = terms(*traces(model, guide, x), len(x))
        return of.loss_of(of.weighted_likelihood, self.beta ** (1 - kl_weight))


@register_objective(
    "free-bits",
    summary="The ELBO with a minimum charge in nats for each latent, so that none is given up: a looser bound.",
    reference="Kingma et al. (2016), Improving Variational Inference with Inverse Autoregressive Flow",
    link="https://arxiv.org/abs/1606.04934",
)
@dataclass(frozen=True)
class FreeBits:
    r"""The ELBO, with each latent charged at least so many nats, so that a KL term up to that is free.

    .. math:: E_{q(z \mid x)} \log p(x \mid z) - \sum_j \max(\lambda, E_x KL_j)

    with j a dimension of a latent whose dimensions are independent under guide and prior, or else a whole latent with
    lambda for each of its dimensions; if one is enumerated, all latents together. KL terms are means over the batch. At
    most the ELBO, and so a looser bound on the evidence.

    Args:
        nats: lambda.
    """

    nats: Annotated[float, Gt(0), Lt(math.inf)] = 0.25
    couples_rows: ClassVar[bool] = True  # by the mean KL that is compared with lambda

    def __call__(self, model: Program, guide: Program, x: Tensor, kl_weight: Weight = 1.0) -> Loss:
        """Minus the objective of a batch x, (B, D)."""
        p, q = traces(model, guide, x)
        of = terms(p, q, len(x))
        names = latent_sites(q, enumerated=False)
        if latent_sites(q, enumerated=True):  # the others depend on its values
            felt = of.weighted_kl.clamp(min=self.nats * sum(_width(q.nodes[name]) for name in names))
        else:
            refuse_scaled(trace.nodes[name] for trace in (p, q) for name in names)
            felt = torch.stack([self._felt(p.nodes[name], q.nodes[name], len(x)) for name in names]).sum()
        of = of._replace(weighted_kl=felt)
        return of.loss_of(of.weighted_likelihood, kl_weight)

    def _felt(self, p: Any, q: Any, size: int) -> Tensor:
        if _by_dimension(p["fn"]) and _by_dimension(q["fn"]):
            gap: Tensor = _of_dimensions(q) - _of_dimensions(p)
            return (gap.flatten(end_dim=-2).sum(0) / size).clamp(min=self.nats).sum()
        kl: Tensor = (plain_log_prob(q) - plain_log_prob(p)).sum() / size
        return kl.clamp(min=self.nats * _width(q))


def _width(site: Any) -> int:
    """How many numbers one draw for one datum has."""
    return int(site["fn"].event_shape.numel())


def _of_dimensions(site: Any) -> Tensor:
    """The log density of each number of a site, masked by rows as the site is."""
    return masked_columns(site["fn"].base_dist.log_prob(site["value"]), site["mask"])


def _by_dimension(fn: Any) -> bool:
    return isinstance(fn, dist.Independent) and fn.reinterpreted_batch_ndims == 1


def _joint(fn: Any, like: Any) -> Any:
    """Independent normals as one normal of several dimensions, for comparison with such a normal."""
    if isinstance(like, dist.Independent) or not (_by_dimension(fn) and isinstance(fn.base_dist, dist.Normal)):
        return fn
    return dist.MultivariateNormal(fn.mean, scale_tril=torch.diag_embed(fn.stddev))


def _without_score(guide: Program, q: Any, x: Tensor) -> Tensor:
    """A term with value 0 that cancels the gradient of log q with respect to the guide's parameters in the KL term."""
    drawn = {name: q.nodes[name]["value"] for name in latent_sites(q, enumerated=False)}
    still = at_latents(held(guide), x, drawn)
    gap: Any = sum((still.nodes[name]["log_prob"] - q.nodes[name]["log_prob"]).sum() for name in drawn)
    total: Tensor = gap
    return total / len(x)


def _with_closed_kl(of: Terms, p: Any, q: Any, size: int) -> Terms:
    """The terms with the exact divergence in place of its estimate, if torch has one for the only latent."""
    names = latent_sites(q)
    if len(names) > 1 or latent_sites(q, enumerated=True):  # no closed form if it depends on other draws
        return of
    of_guide, of_model = q.nodes[names[0]], p.nodes[names[0]]
    try:
        divergence = kl_divergence(of_guide["fn"], _joint(of_model["fn"], like=of_guide["fn"]))
    except NotImplementedError:
        return of
    kl = scale_and_mask(divergence, 1.0, of_guide["mask"]).sum() / size
    weighted = scale_and_mask(divergence, of_guide["scale"], of_guide["mask"]).sum() / size
    return of._replace(kl=kl, weighted_kl=weighted)
