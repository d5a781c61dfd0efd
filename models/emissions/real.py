"""Other emissions of real columns, in standardised units: heavier tails than a normal's."""

import math

import pyro.distributions as dist
from torch import Tensor, nn

from ..gammas import log_rise
from ..ordinal import LOG_ROOT_TAU
from .emission import Emission

__all__ = ["GammaPrecision", "Laplace", "Logistic", "StudentT"]


class _StudentT(dist.StudentT):  # type: ignore[misc]
    """Without the difference of two log gammas, of which rounding leaves nothing for many degrees of freedom."""

    def log_prob(self, value: Tensor) -> Tensor:
        square = ((value - self.loc) / self.scale).square()
        log_peak = log_rise(self.df / 2, 0.5) - LOG_ROOT_TAU - self.scale.log()
        log_density: Tensor = log_peak - (self.df + 1) / 2 * (square / self.df).log1p()
        return log_density


class StudentT(Emission):
    r"""Student's t, with tails set by its degrees of freedom.

    .. math:: p(x_j \mid z) = t_{\nu_j}(x_j; \mu_j, s_j), \qquad \nu_j = \nu_0 + \mathrm{softplus}\, a_j, \quad
              s_j = s_0 + \mathrm{softplus}\, b_j, \qquad p \le (2 \pi)^{-1/2} / s_0

    The density at the mode rises with nu to the normal's, which is the bound; without s_0 there is none.
    Takahashi et al. (2018), https://doi.org/10.24963/ijcai.2018/374 (s_0 = 1e-6), and Mattei & Frellsen (2019),
    https://arxiv.org/abs/1812.02633 (1e-3), both with nu_0 = 3

    Args:
        smallest: s_0, a scale; 0 for none.
        least_df: nu_0; above 2 there is a variance.

    >>> import torch
    >>> StudentT(0.1, 3.0)(torch.zeros(5, 3, 2)).log_prob(torch.zeros(2)).shape
    torch.Size([5, 2])
    """

    outputs = 3

    def __init__(self, smallest: float = 0.0, least_df: float = 0.0) -> None:
        super().__init__()
        self.smallest, self.least_df = smallest, least_df

    def forward(self, parameters: Tensor) -> dist.TorchDistribution:
        """Student's t from (mu, b, a), (..., 3, d)."""
        mean, b, a = parameters.unbind(-2)
        softplus = nn.functional.softplus
        return _StudentT(self.least_df + softplus(a), mean, self.smallest + softplus(b))

    def log_density_bound(self) -> float:
        """-(1/2) log 2 pi - log s_0, infinite without s_0."""
        return -LOG_ROOT_TAU - math.log(self.smallest) if self.smallest else math.inf


class GammaPrecision(Emission):
    r"""A normal whose precision is gamma-distributed and integrated out: Student's t.

    .. math:: p(x_j \mid z) = \int N(x_j; \mu_j, 1/\lambda) \, \mathrm{Gamma}(\lambda; \alpha_j, \beta_j) \, d\lambda
              = t_{2 \alpha_j}(x_j; \mu_j, \sqrt{\beta_j / \alpha_j}), \qquad
              \alpha_j = \mathrm{softplus}\, a_j, \quad \beta_j = \mathrm{softplus}\, b_j

    Unbounded as beta falls. For the objective "variational-variance", which subtracts the gamma's divergence from a
    prior. Stirn & Knowles (2020), V3AE, https://arxiv.org/abs/2006.04910

    >>> import torch
    >>> GammaPrecision()(torch.zeros(3, 2)).df
    tensor([1.3863, 1.3863])
    """

    outputs = 3

    def forward(self, parameters: Tensor) -> dist.TorchDistribution:
        """Student's t from (mu, a, b), (..., 3, d)."""
        mean, a, b = parameters.unbind(-2)
        alpha, beta = nn.functional.softplus(a), nn.functional.softplus(b)
        return _StudentT(2 * alpha, mean, (beta / alpha).sqrt())


class Laplace(Emission):
    r"""Absolute error instead of squared: single wild values cost less.

    .. math:: p(x_j \mid z) = \frac{1}{2 b_j} e^{-|x_j - m_j| / b_j}, \qquad b_j = b_0 + e^{v_j}, \qquad
              p \le \frac{1}{2 b_0}

    Laplace (1774), Mémoire sur la probabilité des causes par les évènements

    Args:
        smallest: b_0, the smallest mean absolute deviation; 0 for none, and no bound.

    >>> import torch
    >>> Laplace()(torch.zeros(2, 3)).log_prob(torch.ones(3)).exp()
    tensor([0.1839, 0.1839, 0.1839])
    """

    outputs = 2

    def __init__(self, smallest: float = 0.0) -> None:
        super().__init__()
        self.smallest = smallest

    def forward(self, parameters: Tensor) -> dist.TorchDistribution:
        """Laplace(m, b_0 + e^v) from (m, v), (..., 2, d)."""
        median, v = parameters.unbind(-2)
        return dist.Laplace(median, self.smallest + v.exp())

    def log_density_bound(self) -> float:
        """-log 2 b_0, infinite without b_0."""
        return -math.log(2 * self.smallest) if self.smallest else math.inf


class Logistic(Emission):
    r"""A logistic: tails like a Laplace's and a round top.

    .. math:: p(x_j \mid z) = \frac{e^{-u}}{s_j (1 + e^{-u})^2}, \qquad u = \frac{x_j - m_j}{s_j}, \quad
              s_j = s_0 + e^{v_j}, \qquad p \le \frac{1}{4 s_0}

    The density whose cells are the discretised logistic of Salimans et al. (2017), https://arxiv.org/abs/1701.05517

    Args:
        smallest: s_0, a scale; 0 for none, and no bound.

    >>> import torch
    >>> Logistic()(torch.zeros(2, 3)).log_prob(torch.zeros(3)).exp()
    tensor([0.2500, 0.2500, 0.2500])
    """

    outputs = 2

    def __init__(self, smallest: float = 0.0) -> None:
        super().__init__()
        self.smallest = smallest

    def forward(self, parameters: Tensor) -> dist.TorchDistribution:
        """Logistic(m, s_0 + e^v) from (m, v), (..., 2, d)."""
        location, v = parameters.unbind(-2)
        return dist.Logistic(location, self.smallest + v.exp())

    def log_density_bound(self) -> float:
        """-log 4 s_0, infinite without s_0."""
        return -math.log(4 * self.smallest) if self.smallest else math.inf
