"""Emissions of counts: masses on 0, 1, 2, ... that add up to 1."""

import pyro.distributions as dist
from torch import Tensor, nn

__all__ = ["NegativeBinomial", "Poisson"]

LARGEST = 25.0  # of a log rate: beyond 7e10 no count is met, and single precision still multiplies it by counts


class Poisson(nn.Module):
    r"""Poisson counts.

    .. math:: P(x_j \mid z) = e^{-\lambda_j} \lambda_j^{x_j} / x_j!, \qquad \log \lambda_j = r_j

    >>> import torch
    >>> mass = Poisson()(torch.full((1, 1), 0.7)).log_prob(torch.arange(100.0)[:, None]).exp()
    >>> round(float(mass.sum()), 6)
    1.0
    """

    outputs = 1

    def forward(self, parameters: Tensor) -> dist.TorchDistribution:
        """From r, (..., 1, d)."""
        (log_rate,) = parameters.unbind(-2)
        return dist.Poisson(log_rate.clamp(max=LARGEST).exp())

    def log_density_bound(self) -> float:
        """0: a probability is at most 1."""
        return 0.0


class NegativeBinomial(nn.Module):
    r"""Counts more spread than Poisson ones: a Poisson whose rate is gamma-distributed around a mean.

    .. math:: P(x_j \mid z) = \frac{\Gamma(x_j + k_j)}{\Gamma(k_j) \, x_j!}
              \left(\frac{k_j}{k_j + \mu_j}\right)^{k_j} \left(\frac{\mu_j}{k_j + \mu_j}\right)^{x_j}, \qquad
              \log \mu_j = r_j, \quad \log k_j = s_j

    The variance is mu + mu^2 / k.
    """

    outputs = 2

    def forward(self, parameters: Tensor) -> dist.TorchDistribution:
        """From (r, s), (..., 2, d)."""
        log_mean, log_size = parameters.clamp(-LARGEST, LARGEST).unbind(-2)
        return dist.NegativeBinomial(log_size.exp(), logits=log_mean - log_size)

    def log_density_bound(self) -> float:
        """0: a probability is at most 1."""
        return 0.0
