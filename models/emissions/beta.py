"""The beta distribution, as an emission of numbers from 0 to 1."""

import math
from typing import Any, NamedTuple

import pyro.distributions as dist
import torch
from torch import Tensor, nn

from .continuous import OpenUnit, log_gamma_draws, log_pole, peak_nodes, stirling_error
from .emission import Emission
from .unit import OnUnit, to_open

__all__ = ["Beta", "BetaByMean"]

LOG_TAU = math.log(2 * math.pi)
FURTHEST = 25.0  # largest logit of the mean, which is then within 1e-11 of 0 or 1
LARGEST = 300.0  # largest log parameter: double precision can still multiply two such numbers


class BetaByMean(OnUnit):
    r"""A beta distribution by mean and concentration, in double precision whatever the precision of its parameters.

    .. math:: x \sim \mathrm{Beta}(\alpha, \beta), \qquad \alpha = m \kappa, \quad \beta = (1 - m) \kappa

    As a density of t = logit x it is log-concave, with its peak at logit m.

    Args:
        logits: logit m.
        log_concentration: log kappa.
    """

    arguments, support = ("logits", "log_concentration"), OpenUnit()
    logits: Tensor
    log_concentration: Tensor

    def log_prob(self, x: Tensor) -> Tensor:
        """The log density; at 0 and 1 minus infinity if alpha or beta exceeds 1, plus infinity if it is below 1."""
        value, shape = x.double(), self._shape()
        at_end = (value <= 0) | (value >= 1)
        within = torch.where(at_end, 0.5, value)
        log_x, log_rest = within.log(), torch.log1p(-within)
        inner = shape.log_peak() - shape.drop(log_x - log_rest) - log_x - log_rest
        powers = torch.xlogy(shape.log_a.exp() - 1, value) + torch.xlogy(shape.log_b.exp() - 1, 1 - value)
        lgammas = shape.log_n.exp().lgamma() - shape.log_a.exp().lgamma() - shape.log_b.exp().lgamma()
        return torch.where(at_end, powers + lgammas, inner).to(x.dtype)

    def log_mass_between(self, below: Tensor, above: Tensor, width: Tensor) -> Tensor:
        """In three parts: near 0, which may be a pole, near 1, and in between, around the peak."""
        shape = self._shape()
        ends = shape.end(), shape.mirrored().end()
        parts = [
            shape.log_next_to_zero(below, width, ends[0]),
            shape.mirrored().log_next_to_zero(above, width, ends[1]),
            shape.log_between(below, above, width, *ends),
        ]
        return shape.log_peak() + torch.stack(torch.broadcast_tensors(*parts)).logsumexp(0)

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        """The share of one of two gammas, whose logs are finite even for small shapes."""
        shape = self._shape()
        first, second = (log_gamma_draws(log_k, sample_shape) for log_k in (shape.log_a, shape.log_b))
        return to_open((first - second).sigmoid(), self.logits.dtype)

    def _shape(self) -> "_BetaShape":
        logits = self.logits.double().clamp(-LARGEST, LARGEST)
        log_n = self.log_concentration.double().clamp(-LARGEST, LARGEST)
        return _BetaShape(nn.functional.logsigmoid(logits), nn.functional.logsigmoid(-logits), log_n)

    @property
    def mean(self) -> Tensor:
        """The mean m."""
        return self.logits.sigmoid()

    @property
    def variance(self) -> Tensor:
        """The variance m (1 - m) / (1 + kappa)."""
        logits: Tensor = self.logits
        return logits.sigmoid() * (-logits).sigmoid() * (-nn.functional.softplus(self.log_concentration)).exp()


class _BetaShape(NamedTuple):
    """The logs of m, 1 - m and kappa, and parts of a mass as shares of the density of t = logit x at its peak.

    There it is known without a large number, and falls as e^-drop from there.
    """

    log_m: Tensor
    log_rest: Tensor
    log_n: Tensor

    @property
    def log_a(self) -> Tensor:
        return self.log_n + self.log_m

    @property
    def log_b(self) -> Tensor:
        return self.log_n + self.log_rest

    def mirrored(self) -> "_BetaShape":
        """The same for 1 - x."""
        return _BetaShape(self.log_rest, self.log_m, self.log_n)

    def log_peak(self) -> Tensor:
        """The log density of t at t = logit m."""
        errors = stirling_error(self.log_n) - stirling_error(self.log_a) - stirling_error(self.log_b)
        return (self.log_n + self.log_m + self.log_rest - LOG_TAU) / 2 + errors

    def drop(self, t: Tensor) -> Tensor:
        r"""Of the log density: :math:`\kappa [\log (1 - m + m e^s) - m s]`, s = t - logit m, mirrored if below 0."""
        s = t - (self.log_m - self.log_rest)
        log_m, log_rest = (torch.where(s > 0, one, other) for one, other in (self[:2], self[1::-1]))
        return self.log_n.exp() * (_log_raised(s.abs(), log_m, log_rest) - log_m.exp() * s.abs())

    def end(self) -> Tensor:
        """As far from 0 as (1 - x)^(beta - 1) changes little; parts may be split anywhere, so it has no gradient."""
        return 1 / (8 + 2 * self.log_b.detach().exp())

    def log_next_to_zero(self, below: Tensor, width: Tensor, end: Tensor) -> Tensor:
        """The part in (0, end) of an interval, which is x^alpha but for what (1 - x)^(beta - 1) changes of it."""
        empty, endless = below >= end, below <= 0
        below = torch.where(empty, end / 2, below)
        width = torch.where(empty, end / 2, torch.where(width <= end - below, width, end - below))
        x, b = below + width, self.log_b.exp()
        length = torch.log1p(width / torch.where(endless, 1.0, below))
        others = lambda s: torch.expm1((b - 1)[..., None] * torch.log1p(-x[..., None] * (-s).exp()))  # noqa: E731
        power = self.log_a.exp().expand_as(length)
        at_end = -self.drop(x.log() - torch.log1p(-x)) - b * torch.log1p(-x)
        return torch.where(empty, -torch.inf, at_end + log_pole(power, others, length, endless))

    def log_between(self, below: Tensor, above: Tensor, width: Tensor, *ends: Tensor) -> Tensor:
        """The part between the two ends, down both sides of its highest point."""
        low, high = (torch.where(part >= end, part, end) for part, end in zip((below, above), ends, strict=True))
        width = width - (low - below) - (high - above)
        empty = width <= 0
        low, high, width = (torch.where(empty, 1 / 3, part) for part in (low, high, width))
        start, length = low.log() - (high + width).log(), torch.log1p(width / (low * high))
        left = torch.minimum((self.log_m - self.log_rest - start).clamp(min=0), length)
        peak = start + left
        log_x, log_rest = nn.functional.logsigmoid(peak), nn.functional.logsigmoid(-peak)
        # to the right it is raised by x and falls by m, to the left by what is missing to 1
        raised, falls = (
            torch.stack(pair, dim=-1)[..., None].exp() for pair in ((log_x, log_rest), (self.log_m, self.log_rest))
        )
        n = self.log_n.exp()[..., None, None]
        drop = lambda s: n * (torch.log1p(raised * s.expm1()) - falls * s)  # noqa: E731
        _, weights = peak_nodes(drop, torch.stack([length - left, left], dim=-1))
        return torch.where(empty, -torch.inf, weights.sum((-1, -2)).log() - self.drop(peak))


def _log_raised(s: Tensor, log_p: Tensor, log_q: Tensor) -> Tensor:
    """Log(1 - p + p e^s) for s from 0 on, with the logs of p and 1 - p."""
    small = s < 1
    near, far = torch.where(small, s, 0.0), torch.where(small, 1.0, s)
    return torch.where(small, torch.log1p(log_p.exp() * near.expm1()), torch.logaddexp(log_q, log_p + far))


class Beta(Emission):
    r"""A beta distribution by its mean and its concentration.

    .. math:: p(x_j \mid z) = \frac{x_j^{\alpha_j - 1} (1 - x_j)^{\beta_j - 1}}{B(\alpha_j, \beta_j)}, \qquad
              \alpha_j = m_j \kappa_j, \quad \beta_j = (1 - m_j) \kappa_j, \quad
              m_j = \mathrm{sigmoid} \, a_j, \quad \kappa_j = 2 e^{b_j}

    Uniform if both numbers are 0. Unbounded: if m = x, it grows like :math:`\sqrt \kappa`. At an exact 0 or 1 the log
    density is minus infinity, or plus infinity if alpha or beta is less than 1, whatever the rest of the data. Ferrari
    & Cribari-Neto (2004), Beta Regression for Modelling Rates and Proportions,
    https://doi.org/10.1080/0266476042000214501

    >>> Beta()(torch.tensor([[0.0, 0.0], [-0.7, 0.4]])).log_prob(torch.tensor([0.0, 1.0]))  # of shapes 0.5 and 1.5
    tensor([inf, -inf])
    """

    outputs = 2

    def forward(self, parameters: Tensor) -> dist.TorchDistribution:
        """From (a, b), (..., 2, d)."""
        logits, log_concentration = parameters.unbind(-2)
        return BetaByMean(logits.clamp(-FURTHEST, FURTHEST), log_concentration + math.log(2))
