"""Emissions of real columns, in standardised units."""

import math

import pyro.distributions as dist
import torch
from torch import Tensor, nn

from .emission import Emission

__all__ = ["ConstrainedNormal", "LearnedNormal", "SharedNormal", "StudentT"]

LOG_ROOT_TAU = math.log(2 * math.pi) / 2


class LearnedNormal(Emission):
    r"""A normal of learned variance, without a bound.

    .. math:: p(x_j \mid z) = N(x_j; \mu_j, e^{v_j})

    Kingma & Welling (2014), https://arxiv.org/abs/1312.6114

    >>> LearnedNormal()(torch.zeros(5, 2, 3)).log_prob(torch.zeros(3)).shape
    torch.Size([5, 3])
    """

    outputs = 2

    def forward(self, parameters: Tensor) -> dist.TorchDistribution:
        """N(mu, e^v) from (mu, v), (..., 2, d)."""
        mean, log_variance = parameters.unbind(-2)
        return dist.Normal(mean, (log_variance / 2).exp())


class ConstrainedNormal(Emission):
    r"""A normal whose variance is at least a floor.

    .. math:: p(x_j \mid z) = N(x_j; \mu_j, \xi + e^{v_j}) \le (2 \pi \xi)^{-1/2}

    Mattei & Frellsen (2018), https://arxiv.org/abs/1802.04826

    Args:
        floor: xi, a variance.

    >>> bool((ConstrainedNormal(0.25)(torch.randn(5, 2, 3)).variance >= 0.25).all())
    True
    """

    outputs = 2

    def __init__(self, floor: float) -> None:
        super().__init__()
        self.floor = floor

    def forward(self, parameters: Tensor) -> dist.TorchDistribution:
        """N(mu, xi + e^v) from (mu, v), (..., 2, d)."""
        mean, log_excess = parameters.unbind(-2)
        return dist.Normal(mean, (self.floor + log_excess.exp()).sqrt())

    def log_density_bound(self) -> float:
        """-(1/2) log(2 pi xi)."""
        return -LOG_ROOT_TAU - math.log(self.floor) / 2


class SharedNormal(Emission):
    r"""A normal whose one learned variance all columns share, whatever z.

    .. math:: p(x_j \mid z) = N(x_j; \mu_j, \sigma^2)

    Rybkin, Daniilidis & Levine (2021), https://arxiv.org/abs/2006.13202
    """

    outputs = 1

    def __init__(self) -> None:
        super().__init__()
        self.log_scale = nn.Parameter(torch.zeros(()))

    def forward(self, parameters: Tensor) -> dist.TorchDistribution:
        """N(mu, sigma^2) from mu, (..., 1, d)."""
        (mean,) = parameters.unbind(-2)
        return dist.Normal(mean, self.log_scale.exp().expand_as(mean))


class StudentT(Emission):
    r"""Student's t of more than three degrees of freedom, whose scale is at least a smallest one.

    .. math:: p(x_j \mid z) = t_\nu(x_j; \mu_j, s_j), \qquad \nu_j = 3 + \mathrm{softplus}\, a_j, \quad
              s_j = s_0 + \mathrm{softplus}\, b_j, \qquad p \le (2 \pi)^{-1/2} / s_0

    The density at the mode rises with nu to that of a normal, which is the bound; without s_0 there would be none.
    Takahashi et al. (2018), https://doi.org/10.24963/ijcai.2018/374; Mattei & Frellsen (2019),
    https://arxiv.org/abs/1812.02633

    Args:
        smallest: s_0, a scale.
    """

    outputs = 3

    def __init__(self, smallest: float) -> None:
        super().__init__()
        self.smallest = smallest

    def forward(self, parameters: Tensor) -> dist.TorchDistribution:
        """T from (mu, b, a), (..., 3, d)."""
        mean, b, a = parameters.unbind(-2)
        softplus = nn.functional.softplus
        return dist.StudentT(3 + softplus(a), mean, self.smallest + softplus(b))

    def log_density_bound(self) -> float:
        """-(1/2) log 2 pi - log s_0."""
        return -LOG_ROOT_TAU - math.log(self.smallest)
