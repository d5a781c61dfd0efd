"""Bounds on the evidence from importance weights of several draws per datum."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Any, Literal, NamedTuple

import pyro
import torch
from annotated_types import Ge, Gt, Le, Lt
from pydantic import AfterValidator
from torch import Tensor

from zoo.objectives.lower_bound import (
    Loss,
    Program,
    Terms,
    Weight,
    at_latents,
    held,
    latent_sites,
    plain_log_prob,
    refuse_scaled,
    terms,
    traces,
    weighted_sites,
)
from zoo.parts import register_objective

__all__ = ["IWAE", "MIWAE", "Renyi"]

Samples = Annotated[int, Ge(1), Le(100_000)]


@register_objective(
    "iwae",
    summary="The importance-weighted bound on the evidence, tighter than the ELBO.",
    reference="Burda, Grosse & Salakhutdinov (2016), Importance Weighted Autoencoders",
    link="https://arxiv.org/abs/1509.00519",
)
@dataclass(frozen=True)
class IWAE:
    r"""The importance-weighted bound on the evidence of the observed entries.

    .. math:: E_{z_1, \dots, z_K \sim q(z \mid x)} \log \frac{1}{K} \sum_k w_k, \qquad
              w_k = \frac{p(x \mid z_k) \, p(z_k)}{q(z_k \mid x)}

    It equals the ELBO for K = 1 and gets closer to the evidence as K grows. The guide's gradient drowns in noise as K
    grows (Rainforth et al. 2018, https://arxiv.org/abs/1802.04537); the gradient "dreg" does not:

    .. math:: \nabla_\phi = \sum_k \tilde w_k^2 \frac{\partial \log w_k}{\partial z_k}
              \frac{\partial z_k}{\partial \phi}, \qquad
              \nabla_\theta = \sum_k \tilde w_k \nabla_\theta \log w_k, \qquad \tilde w_k = \frac{w_k}{\sum_l w_l}

    (Tucker et al. 2019, https://arxiv.org/abs/1810.04152), at the cost of a second pass through the decoder. In a
    warm-up the weights are p(x | z) (p(z) / q(z | x))^kl_weight. The terms named after the ELBO are means over draws,
    and ``ess`` is the effective sample size.

    Args:
        samples: K.
        gradient: "total", the plain gradient of the bound, or "dreg", doubly reparametrised.
    """

    samples: Samples = 5
    gradient: Literal["total", "dreg"] = "total"

    def __call__(self, model: Program, guide: Program, x: Tensor, kl_weight: Weight = 1.0) -> Loss:
        """Minus the bound of a batch x, (B, D)."""
        drawn = _draw(model, guide, x, self.samples)
        log_w, plain = drawn.log_weights(kl_weight), drawn.log_weights()
        bound = _log_mean(log_w)
        if self.gradient == "dreg":
            share = log_w.detach().softmax(0)
            again = _redrawn(drawn, model, guide, x, 1 - kl_weight * (1 - share)).log_weights(kl_weight)
            weighted = (share * again).sum(0).mean()
            bound = bound.detach() + weighted - weighted.detach()
        return drawn.loss(-bound, _log_mean(plain), plain)


def _redrawn(drawn: Drawn, model: Program, guide: Program, x: Tensor, factor: Tensor) -> Drawn:
    """The same draws, with gradients through them multiplied by a factor (K, B), under a fixed guide."""

    def scaled(z: Tensor) -> Tensor:
        return torch.lerp(z.detach(), z, factor.reshape(*factor.shape, *[1] * (z.dim() - factor.dim())))

    values = {name: drawn.q.nodes[name]["value"] for name in (*drawn.sampled, *drawn.summed)}
    latents = values | {name: scaled(values[name]) for name in drawn.sampled}
    with pyro.plate("samples", drawn.samples, dim=-2):
        p = at_latents(model, x, latents, plates=2)
        q = at_latents(held(guide), x, {name: latents[name] for name in drawn.sampled}, plates=2)
    return drawn._replace(p=p, q=q)


@register_objective(
    "miwae",
    summary="The importance-weighted bound on the evidence of observed entries; without gaps, the IWAE's.",
    reference="Mattei & Frellsen (2019), MIWAE",
    link="https://arxiv.org/abs/1812.02633",
)
@dataclass(frozen=True)
class MIWAE:
    r"""The importance-weighted bound on the evidence of observed entries; without gaps, the IWAE's.

    .. math:: E_{z_1, \dots, z_K \sim q(z \mid x_o)}
              \log \frac{1}{K} \sum_k \frac{p(x_o \mid z_k) \, p(z_k)}{q(z_k \mid x_o)}

    Args:
        samples: K.
    """

    samples: Samples = 20

    def __call__(self, model: Program, guide: Program, x: Tensor, kl_weight: Weight = 1.0) -> Loss:
        """Minus the bound of a batch x, (B, D)."""
        return IWAE(self.samples)(model, guide, x, kl_weight)


def _not_one(alpha: float) -> float:
    if alpha == 1:
        raise ValueError("in the limit of 1 the bound is the ELBO: choose that")
    return alpha


@register_objective(
    "renyi",
    summary="The variational Rényi bound: the IWAE's at alpha = 0, the ELBO at 1; not a bound below 0.",
    reference="Li & Turner (2016), Rényi Divergence Variational Inference",
    link="https://arxiv.org/abs/1602.02311",
)
@dataclass(frozen=True)
class Renyi:
    r"""The variational Rényi bound, by K draws.

    .. math:: \frac{1}{1 - \alpha} E_{z_1, \dots, z_K} \log \frac{1}{K} \sum_k w_k^{1 - \alpha}

    with the weights of :class:`IWAE`, which it equals for alpha = 0. It falls as alpha grows, and for K = 1 it is the
    ELBO for any alpha. For alpha < 0 it is not a bound on the evidence.

    Args:
        alpha: the order of the divergence, not 1.
        samples: K.
    """

    alpha: Annotated[float, Gt(-math.inf), Lt(math.inf), AfterValidator(_not_one)] = 0.5
    samples: Samples = 10

    def __call__(self, model: Program, guide: Program, x: Tensor, kl_weight: Weight = 1.0) -> Loss:
        """Minus the bound of a batch x, (B, D)."""
        drawn = _draw(model, guide, x, self.samples)

        def bound(log_w: Tensor) -> Tensor:
            return _log_mean((1 - self.alpha) * log_w) / (1 - self.alpha)

        plain = drawn.log_weights()
        return drawn.loss(-bound(drawn.log_weights(kl_weight)), bound(plain), plain)


class Drawn(NamedTuple):
    """Traces of the two programs at K draws of each of B data, and the terms of their mean draw.

    ``sampled`` and ``summed`` are the names of drawn and of enumerated latents.
    """

    p: Any
    q: Any
    terms: Terms
    samples: int
    size: int
    sampled: list[str]
    summed: list[str]

    def log_weights(self, kl_weight: Weight = 1.0) -> Tensor:
        """Log p(x | z) + kl_weight (log p(z) - log q(z | x)) of each draw, (K, B), enumerated latents summed out."""
        gap: Any = sum(plain_log_prob(self.p.nodes[name]) - plain_log_prob(self.q.nodes[name]) for name in self.sampled)
        log_w: Any = sum(plain_log_prob(self.p.nodes[name]) for name in ("x", *self.summed)) + kl_weight * gap
        # the values of an enumerated latent are in dimensions left of K
        of_each: Tensor = log_w.expand(*log_w.shape[:-2], self.samples, self.size)
        return of_each.reshape(-1, self.samples, self.size).logsumexp(0)

    def loss(self, value: Tensor, objective: Tensor, plain: Tensor) -> Loss:
        """A loss that also records the effective sample size of the plain weights (K, B), (Σ w)² / Σ w²."""
        size = plain.softmax(0).square().sum(0).reciprocal().mean()
        return self.terms.loss(value, objective, ess=size)


def _draw(model: Program, guide: Program, x: Tensor, samples: int) -> Drawn:
    with pyro.plate("samples", samples, dim=-2):
        p, q = traces(model, guide, x, plates=2)
    refuse_scaled(weighted_sites(p, q))
    sampled, summed = (latent_sites(q, enumerated=enumerated) for enumerated in (False, True))
    return Drawn(p, q, terms(p, q, samples * len(x)), samples, len(x), sampled, summed)


def _log_mean(log_w: Tensor) -> Tensor:
    """Log (1/K) Σ w of weights (K, B), averaged over the batch."""
    return log_w.logsumexp(0).mean() - math.log(len(log_w))
