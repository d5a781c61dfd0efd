"""Emissions of positive columns."""

import math
from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor
from torch.distributions import constraints

from .continuous import Continuous, log_gamma_draws, log_pole, peak_nodes, stirling_error
from .emission import Emission

__all__ = ["Gamma", "GammaByMean", "LogNormal"]

LOG_TAU = math.log(2 * math.pi)
LARGEST = 300.0  # largest log parameter: double precision can still multiply two such numbers
ENDLESS = 1e45  # beyond all of single precision; an infinite width has no gradient
CLEAR = 0.5  # value of k x / mu below which e^-(k x / mu) is nearly constant
FURTHEST = 5.0  # log distance: nothing lies so far above the larger of k x / mu = 1/2 and the mean
LEAST = 1e-4  # least variance of logs at the start


class LogNormal(Emission):
    r"""A log-normal: the logarithm is normal, with a variance of at least a floor.

    .. math:: p(x_j \mid z) = \frac{1}{x_j} N(\log x_j; \mu_j, \xi + e^{v_j}) \le \frac{1}{x_j \sqrt{2 \pi \xi}}

    For given data this is bounded over the parameters, but not over x, as x goes to 0. With a floor of 0 it is bounded
    over neither: v falls where mu = log x.

    Args:
        floor: xi, a variance of log x; 0 is none.

    >>> bool((LogNormal(0.01)(torch.zeros(2, 1)).sample((9,)) > 0).all())
    True
    """

    outputs = 2

    def __init__(self, floor: float = 0.0) -> None:
        super().__init__()
        self.floor = floor

    def forward(self, parameters: Tensor) -> dist.TorchDistribution:
        """From (mu, v), (..., 2, d)."""
        mean, log_excess = parameters.unbind(-2)
        return dist.LogNormal(mean, (self.floor + log_excess.exp()).sqrt())


class GammaByMean(Continuous):
    r"""A gamma distribution by mean and shape, in double precision whatever the precision of its parameters.

    .. math:: p(x) = \frac{(k / \mu)^k}{\Gamma(k)} \, x^{k - 1} e^{-k x / \mu}

    As a density of log x it is log-concave with its peak at log mu, where it is computed without large numbers. It
    falls from there as e^-D, :math:`D = k (e^s - 1 - s)`, s = log (x / mu).

    Args:
        log_mean: log mu.
        log_shape: log k.
    """

    arguments = ("log_mean", "log_shape")
    support = constraints.positive
    log_mean: Tensor
    log_shape: Tensor

    def log_prob(self, x: Tensor) -> Tensor:
        """The log density."""
        (log_mean, log_k), log_x = self._logs(), x.double().log()
        s = log_x - log_mean
        return (_log_peak(log_k) - log_k.exp() * (s.expm1() - s) - log_x).to(x.dtype)

    def log_mass(self, low: Tensor, high: Tensor, width: Any) -> Tensor:
        """In two parts: near 0, which may be a pole, and around the peak."""
        log_mean, log_k = self._logs()
        given, outside = torch.as_tensor(width, device=low.device).double(), high <= 0
        whole = torch.where(low > 0, given, high.double()).clamp(max=ENDLESS)
        below, width = (part * (log_k - log_mean).exp() for part in (low.double().clamp(min=0), whole))
        width = torch.where(outside, 1.0, width)
        parts = _log_next_to_zero(below, width, log_k), _log_about_peak(below, width, log_k)
        mass = (_log_peak(log_k) + torch.stack(parts).logsumexp(0)).clamp(max=0)
        return torch.where(outside, -torch.inf, mass).to(low.dtype)

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        """Draws, kept above 0 where rounding would give 0."""
        log_mean, log_k = self._logs()
        kind = self.log_mean.dtype
        return (log_gamma_draws(log_k, sample_shape) + log_mean - log_k).exp().to(kind).clamp(torch.finfo(kind).tiny)

    def _logs(self) -> tuple[Tensor, Tensor]:
        return self.log_mean.double().clamp(-LARGEST, LARGEST), self.log_shape.double().clamp(-LARGEST, LARGEST)

    @property
    def mean(self) -> Tensor:
        """The mean mu."""
        return self.log_mean.exp()

    @property
    def variance(self) -> Tensor:
        """The variance mu^2 / k."""
        return (2 * self.log_mean - self.log_shape).exp()


def _log_peak(log_k: Tensor) -> Tensor:
    """The log density of log x where x is the mean."""
    return (log_k - LOG_TAU) / 2 - stirling_error(log_k)


def _log_next_to_zero(below: Tensor, width: Tensor, log_k: Tensor) -> Tensor:
    """The part of an interval of y = k x / mu in (0, 1/2), which is y^k up to the factor e^-y."""
    empty, endless = below >= CLEAR, below <= 0
    below = torch.where(empty, CLEAR / 2, below)
    width = torch.where(empty, CLEAR / 2, torch.where(width <= CLEAR - below, width, CLEAR - below))
    y, k = below + width, log_k.exp()
    length = torch.log1p(width / torch.where(endless, 1.0, below))
    mass = log_pole(k.expand_as(length), lambda s: torch.expm1(-y[..., None] * (-s).exp()), length, endless)
    s = y.log() - log_k
    return torch.where(empty, -torch.inf, mass + y - k * (s.expm1() - s))


def _log_about_peak(below: Tensor, width: Tensor, log_k: Tensor) -> Tensor:
    """The part of an interval of y in (1/2, infinity), down both sides of its highest point."""
    low = below.clamp(min=CLEAR)
    width = width - (low - below)
    empty = width <= 0
    low, width = torch.where(empty, CLEAR, low), torch.where(empty, CLEAR, width)
    length, k = torch.log1p(width / low), log_k.exp()
    left = torch.minimum((log_k - low.log()).clamp(min=0), length)
    right = (length - left).clamp(max=FURTHEST)
    peak = low.log() + left
    rise, side = peak.exp()[..., None, None], torch.tensor([[-1.0], [1.0]], dtype=low.dtype, device=low.device)
    falls = k[..., None, None]
    _, weights = peak_nodes(lambda s: rise * (side * s).expm1() - falls * side * s, torch.stack([left, right], dim=-1))
    s = peak - log_k
    return torch.where(empty, -torch.inf, weights.sum((-1, -2)).log() - k * (s.expm1() - s))


class Gamma(Emission):
    r"""A gamma distribution by its mean and its shape.

    .. math:: p(x_j \mid z) = \frac{(k_j / \mu_j)^{k_j}}{\Gamma(k_j)} \, x_j^{k_j - 1} e^{-k_j x_j / \mu_j}, \qquad
              \log \mu_j = r_j, \quad \log k_j = s_j

    Unbounded: if mu = x, it grows like :math:`\sqrt k`. McCullagh & Nelder (1989), Generalized Linear
    Models, chapter 8, https://doi.org/10.1201/9780203753736

    >>> Gamma()(torch.tensor([[0.0], [1.0]])).variance
    tensor([0.3679])
    """

    outputs = 2

    def forward(self, parameters: Tensor) -> dist.TorchDistribution:
        """From (r, s), (..., 2, d)."""
        log_mean, log_shape = parameters.unbind(-2)
        return GammaByMean(log_mean, log_shape)

    def start(self, x: Tensor) -> Tensor:
        """The logs of mean and of mean^2 / variance."""
        mean = x.mean(0)
        return torch.stack([mean.log(), -(x.var(0, correction=0) / mean.square()).clamp(min=LEAST).log()])
