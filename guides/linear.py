"""Guides for linear Gaussian models: a learned one, and the exact posterior."""

from typing import Any

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn

__all__ = ["ClosedFormNormal", "LinearNormal"]


class LinearNormal(nn.Module):
    r"""A normal whose mean is linear in the datum and whose covariance is the same for all data.

    .. math:: q(z \mid x) = N(z; V x + c, T T'), \qquad T \text{ lower triangular}, \quad T_{ll} > 0

    The posterior of every linear Gaussian model is in this family. With a diagonal T, as in Lucas et al. (2019),
    https://arxiv.org/abs/1911.02469, this holds only if the columns of W are orthogonal.

    Args:
        features: D.
        latent_dim: L.
    """

    def __init__(self, features: int, latent_dim: int) -> None:
        super().__init__()
        self.mean = nn.Linear(features, latent_dim)
        self.log_diagonal = nn.Parameter(torch.zeros(latent_dim))
        self.below = nn.Parameter(torch.zeros(latent_dim, latent_dim))

    def forward(self, x: Tensor) -> None:
        """Declare q(z | x) for x of shape (B, D)."""
        identity = torch.eye(len(self.below), dtype=x.dtype, device=x.device)
        scale_tril = self.log_diagonal.exp()[:, None] * (self.below.tril(-1) + identity)
        with pyro.plate("data", len(x), dim=-1):
            pyro.sample("z", dist.MultivariateNormal(self.mean(x), scale_tril=scale_tril))


class ClosedFormNormal(nn.Module):
    r"""Bayes' rule in closed form, for a model that knows its normal posterior.

    .. math:: q(z \mid x) = p(z \mid x)

    The ELBO under this guide is the evidence log p(x) itself, at every draw, and the guide has no parameters.

    Args:
        model: p(x, z) with a method ``posterior(x)``: mean (B, L) and Cholesky factor (L, L) of the covariance.
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def of(self, model: Any) -> "ClosedFormNormal":
        """The same guide for another model, which determines it completely."""
        return ClosedFormNormal(model)

    def forward(self, x: Tensor) -> None:
        """Declare q(z | x) for x of shape (B, D)."""
        mean, scale_tril = self.model.posterior(x)
        with pyro.plate("data", len(x), dim=-1):
            pyro.sample("z", dist.MultivariateNormal(mean, scale_tril=scale_tril))
