"""Gaussian decoders: what the covariance may be decides whether the likelihood is bounded."""

import math

import pyro.distributions as dist
import torch
from torch import Tensor, nn

from .vae import VAE

__all__ = ["ConstrainedVariance", "FixedVariance", "LearnedVariance"]


class LearnedVariance(VAE):
    r"""Mean and diagonal covariance are both functions of z; the likelihood is unbounded.

    .. math:: p(x \mid z) = N(x; \mu(z), \mathrm{diag}\, \sigma^2(z)), \qquad
              (\mu, \log \sigma^2)(z) = \mathrm{decoder}(z)

    There is no floor, clamp or epsilon. In float32 the density overflows once sigma is below about 1e-19
    (sigma^2 underflows); the loss is then not finite, and training freezes that seed.

    Kingma & Welling (2014), appendix C.2, https://arxiv.org/abs/1312.6114

    >>> model = LearnedVariance(nn.Sequential(nn.Linear(2, 6), nn.Unflatten(-1, (2, 3))), latent_dim=2)
    >>> model.likelihood(torch.zeros(5, 2)).batch_shape, model.likelihood(torch.zeros(5, 2)).event_shape
    (torch.Size([5]), torch.Size([3]))
    """

    outputs = 2

    def likelihood(self, z: Tensor) -> dist.TorchDistribution:
        """N(mu(z), diag sigma^2(z))."""
        mean, log_variance = self.decoder(z).unbind(-2)
        return dist.Normal(mean, (log_variance / 2).exp()).to_event(1)


class ConstrainedVariance(VAE):
    r"""A learned diagonal covariance none of whose eigenvalues falls below ``floor``.

    .. math:: p(x \mid z) = N(x; \mu(z), \mathrm{diag}\, \sigma^2(z)), \qquad
              \sigma^2(z) = \xi + e^{v(z)} \ge \xi, \qquad
              \log p(x) \le -\tfrac{D}{2} \log 2 \pi \xi

    Mattei & Frellsen (2018), https://arxiv.org/abs/1802.04826

    Args:
        decoder: maps z (..., L) to (mu, v), shape (..., 2, D).
        latent_dim: L.
        floor: xi, a variance in the units of x.

    >>> decoder = nn.Sequential(nn.Linear(2, 6), nn.Unflatten(-1, (2, 3)))
    >>> model = ConstrainedVariance(decoder, latent_dim=2, floor=0.25)
    >>> bool((model.likelihood(torch.randn(5, 2)).variance >= 0.25).all())
    True
    """

    outputs = 2

    def __init__(self, decoder: nn.Module, latent_dim: int, floor: float) -> None:
        super().__init__(decoder, latent_dim)
        self.floor = floor

    def likelihood(self, z: Tensor) -> dist.TorchDistribution:
        """N(mu(z), diag(xi + exp v(z)))."""
        mean, log_excess = self.decoder(z).unbind(-2)
        return dist.Normal(mean, (self.floor + log_excess.exp()).sqrt()).to_event(1)

    def log_density_bound(self, features: int) -> float:
        """-(D/2) log(2 pi xi)."""
        return -features / 2 * math.log(2 * math.pi * self.floor)


class FixedVariance(VAE):
    r"""Mean only: squared error with its full constant.

    .. math:: p(x \mid z) = N(x; \mu(z), s^2 I), \qquad \log p(x) \le -\tfrac{D}{2} \log 2 \pi s^2

    Args:
        decoder: maps z (..., L) to mu, shape (..., 1, D).
        latent_dim: L.
        scale: s, a standard deviation in the units of x.

    >>> model = FixedVariance(nn.Sequential(nn.Linear(2, 3), nn.Unflatten(-1, (1, 3))), latent_dim=2, scale=1.0)
    >>> model.likelihood(torch.zeros(5, 2)).variance.unique()
    tensor([1.])
    """

    outputs = 1

    def __init__(self, decoder: nn.Module, latent_dim: int, scale: float) -> None:
        super().__init__(decoder, latent_dim)
        self.scale = scale

    def likelihood(self, z: Tensor) -> dist.TorchDistribution:
        """N(mu(z), s^2 I)."""
        (mean,) = self.decoder(z).unbind(-2)
        return dist.Normal(mean, torch.full_like(mean, self.scale)).to_event(1)

    def log_density_bound(self, features: int) -> float:
        """-(D/2) log(2 pi s^2)."""
        return -features / 2 * math.log(2 * math.pi * self.scale**2)
