"""The exact log likelihood of data along a path, without an encoder or a sample."""

from __future__ import annotations

import math
from functools import singledispatch
from typing import Any

import numpy as np
import pyro.distributions as dist
import torch
from torch import Tensor, nn

from zoo import inference, models
from zoo.answers import known, name_of
from zoo.context import seeded
from zoo.errors import Unknown
from zoo.wellposed.paths import latent_site, latent_width, site

__all__ = ["elbo", "log_likelihood"]

REACH = 12.0  # standard deviations: the prior's mass beyond is below 1e-32
PANEL_NODES = 12
PRIOR_POINTS = 64  # points at which a prior's density is compared with the standard normal's


@singledispatch
def log_likelihood(model: Any, x: Tensor, positions: Tensor) -> Tensor:
    """Log p(x) of each datum, (N,), if the decoder depends only on the first latent, with steps at positions.

    Raises:
        Unknown: the prior of its latents is not standard normal.
    """
    _check_prior(model, x)
    nodes, log_weights = _quadrature(positions)
    return (_log_probs(model, nodes, x) + log_weights).logsumexp(1)


@log_likelihood.register
def _(model: models.GaussianMixture, x: Tensor, positions: Tensor) -> Tensor:  # noqa: ARG001
    components = torch.arange(len(model.means))
    joint = model.likelihood(components).log_prob(x[:, None]) + model.logits.log_softmax(0)
    evidence: Tensor = joint.logsumexp(1)
    return evidence


@log_likelihood.register
def _(model: models.LinearGaussian, x: Tensor, positions: Tensor) -> Tensor:  # noqa: ARG001
    return model.log_evidence(x)


def _along(model: Any, nodes: Tensor, x: Tensor) -> Any:
    """p(x | z) at values of the first latent, (M,), with the others at 0."""
    z = torch.zeros(len(nodes), latent_width(model, x), dtype=torch.float64)
    z[:, 0] = nodes
    return site(model, z, x[:1].expand(len(nodes), -1))


def _log_probs(model: Any, nodes: Tensor, x: Tensor) -> Tensor:
    """Log p(x | z) of each datum at values of the first latent, (N, M), some of both at a time."""
    widest = max([x.shape[1], *(size for parameter in model.parameters() for size in parameter.shape)])
    blocks = inference.row_blocks(nodes, widest)
    return torch.cat([_of_some(_along(model, some, x), x, len(some)) for some in blocks], dim=1)


def _of_some(fn: Any, x: Tensor, nodes: int) -> Tensor:
    blocks = [fn.log_prob(rows[:, None]) for rows in inference.row_blocks(x, nodes * x.shape[1])]
    return torch.cat(blocks).expand(-1, nodes)  # also where z has no say


def _check_prior(model: nn.Module, x: Tensor) -> None:
    """Raise Unknown unless z is standard normal, since a path is integrated over that prior."""
    fn = latent_site(model, x)["fn"]
    with seeded(0):
        z = 3 * torch.randn(PRIOR_POINTS, 1, *fn.event_shape, dtype=x.dtype)
    with known(f"the density of {name_of(fn)} at a point it has not drawn"):
        density = fn.log_prob(z)
    if not torch.allclose(density, dist.Normal(0.0, 1.0).log_prob(z).sum(-1).expand_as(density)):
        raise Unknown(f"the path is integrated over a standard normal prior, and {type(model).__name__} has another")


def elbo(model: Any, x: Tensor, steepness: float) -> float:
    """The ELBO of all data on a path of collapse, with q = N(-1, s^2) for the first datum and N(1, s^2) for the others.

    The best of a few s is taken for each datum.
    """
    first = [_gaussian_elbo(model, x[:1], -1.0, variance) for variance in (1.0, 0.25 / steepness)]
    rest = [_gaussian_elbo(model, x[1:], 1.0, 1 / (k * steepness)) for k in (4, 6, 10)] if len(x) > 1 else []
    return float(sum(torch.stack(each).amax(0).sum() for each in (first, rest) if each))


def _gaussian_elbo(model: Any, x: Tensor, mean: float, variance: float) -> Tensor:
    """E log p(x | z) - KL of each datum under q(z_1) = N(mean, variance), with the other latents from the prior."""
    deviation = variance**0.5
    nodes, log_weights = _quadrature(torch.tensor([-mean / deviation]))  # where the decoder's step is
    expected = _log_probs(model, mean + deviation * nodes, x) @ log_weights.exp()
    return expected - (variance + mean**2 - 1 - math.log(variance)) / 2


def _quadrature(positions: Tensor) -> tuple[Tensor, Tensor]:
    """Nodes and log weights of the integral over a standard normal, in panels that narrow towards every position."""
    at = positions.numpy()
    gap = np.diff(at).min() / 2 if len(at) > 1 else 0.25
    offsets = np.geomspace(1e-8, gap, max(10, 30 // max(1, len(at))))
    around = np.concatenate([at[:, None] + sign * offsets for sign in (-1, 1)], axis=None)
    edges = np.unique(np.concatenate([at, around, np.arange(-REACH, REACH + 0.1, 0.5)]))
    nodes, weights = np.polynomial.legendre.leggauss(PANEL_NODES)
    half, middle = np.diff(edges) / 2, (edges[1:] + edges[:-1]) / 2
    z = torch.as_tensor((middle[:, None] + half[:, None] * nodes).ravel())
    log_density = -z.square() / 2 - math.log(2 * math.pi) / 2
    return z, torch.as_tensor(np.log(half[:, None] * weights).ravel()) + log_density
