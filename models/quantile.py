"""Quantile regression: a mean and a spread without a likelihood that could run away."""

import pyro.distributions as dist
import torch
from torch import Tensor, nn

from .vae import VAE

__all__ = ["LOWER_QUANTILE", "SPREAD", "QuantileDecoder"]

LOWER_QUANTILE = 0.15
SPREAD = 1.0364333894937898  # -Phi^-1(0.15): how many standard deviations a normal's 15 % quantile is below its median


class QuantileDecoder(VAE):
    r"""The median and the 15 % quantile of each feature given z; as a density, the normal that has them.

    .. math:: \mu = Q_{50}(z), \qquad \sigma = \frac{Q_{50}(z) - Q_{15}(z)}{1.0364}, \qquad
              Q_{15} = Q_{50} - \mathrm{softplus}\, v(z)

    The quantiles are in order by construction. Trained by the pinball loss, which is bounded; the plug-in normal, under
    which evidence is reported, is not, and is not what was maximised.

    Akrami et al. (2020), https://arxiv.org/abs/2010.09042

    Args:
        decoder: maps z (..., L) to (Q50, v), shape (..., 2, D).
        latent_dim: L.

    >>> model = QuantileDecoder(nn.Sequential(nn.Linear(2, 6), nn.Unflatten(-1, (2, 3))), latent_dim=2)
    >>> fn = model.likelihood(torch.zeros(5, 2)).base_dist
    >>> torch.allclose(fn.cdf(fn.mean - SPREAD * fn.stddev), torch.tensor(LOWER_QUANTILE))
    True
    """

    outputs = 2

    def likelihood(self, z: Tensor) -> dist.TorchDistribution:
        """N(Q50, ((Q50 - Q15) / 1.0364)^2)."""
        median, v = self.decoder(z).unbind(-2)
        return dist.Normal(median, nn.functional.softplus(v) / SPREAD).to_event(1)

    def pinball(self, fn: dist.TorchDistribution, x: Tensor, observed: Tensor | None = None) -> Tensor:
        """The pinball losses of both quantiles, summed over features, of x (..., D) under :meth:`likelihood`.

        Of those ``observed`` (..., D) alone, if that is given.
        """
        median, lower = fn.mean, fn.mean - SPREAD * fn.stddev
        both: Tensor = _pinball(LOWER_QUANTILE, x - lower) + _pinball(0.5, x - median)
        return both.sum(-1) if observed is None else torch.where(observed, both, 0.0).sum(-1)


def _pinball(level: float, residual: Tensor) -> Tensor:
    """max(a r, (a - 1) r), least in the mean where the a-quantile is."""
    return torch.maximum(level * residual, (level - 1) * residual)
