"""Emissions of counts: masses on 0, 1, 2, ... that add up to 1."""

import pyro.distributions as dist
import torch
from torch import Tensor, nn

from .emission import Emission

__all__ = ["NegativeBinomial", "Poisson"]

LARGEST = 25.0  # of a log rate: beyond 7e10 no count is met, and single precision still multiplies it by counts
LARGEST_SIZE = 15.0  # of a log k: beyond 3e6 it is a Poisson


class _Poisson(dist.Poisson):  # type: ignore[misc]
    """In double precision: of a large count, what is left of two log gammas is rounding in single precision."""

    def log_prob(self, value: Tensor) -> Tensor:
        rate, count = self.rate.double(), value.double()
        log_mass: Tensor = torch.xlogy(count, rate) - rate - (count + 1).lgamma()
        return log_mass.to(self.rate)


class _NegativeBinomial(dist.NegativeBinomial):  # type: ignore[misc]
    """In double precision, too."""

    def log_prob(self, value: Tensor) -> Tensor:
        size, count, logits = self.total_count.double(), value.double(), self.logits.double()
        chosen = (count + size).lgamma() - size.lgamma() - (count + 1).lgamma()
        spread = size * nn.functional.logsigmoid(-logits) + count * nn.functional.logsigmoid(logits)
        log_mass: Tensor = chosen + spread
        return log_mass.to(self.logits)


class Poisson(Emission):
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
        return _Poisson(log_rate.clamp(max=LARGEST).exp())

    def log_density_bound(self) -> float:
        """0: a probability is at most 1."""
        return 0.0


class NegativeBinomial(Emission):
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
        log_size = log_size.clamp(max=LARGEST_SIZE)
        return _NegativeBinomial(log_size.exp(), logits=log_mean - log_size)

    def log_density_bound(self) -> float:
        """0: a probability is at most 1."""
        return 0.0
