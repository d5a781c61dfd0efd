"""Emissions of numbers from 0 to 1."""

import math
from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor
from torch.distributions import constraints

from ..ordinal import ByMoments, legendre, log_interval_mass
from .continuous import Continuous, OpenUnit
from .emission import Emission

__all__ = ["ContinuousBernoulli", "ExponentialOnUnit", "LogitNormal", "OnUnit", "SigmoidOfNormal", "to_open"]

BERNOULLI = (1 / 6, -1 / 30, 1 / 42, -1 / 30, 5 / 66, -691 / 2730, 7 / 6, -3617 / 510, 43867 / 798, -174611 / 330)
CUMULANTS = [number / math.factorial(2 * n) for n, number in enumerate(BERNOULLI, 1)]  # of a uniform: B_2n / (2n)!
LOG_TAU = math.log(2 * math.pi)
BEYOND = 100.0  # standard deviations, beyond which a normal has nothing
TAILS, TURNED = 8.5, 36.0  # the same, as far as it adds to a moment; logits where a sigmoid is 0 or 1 in rounding
LEAST = 1e-4  # of a variance, or of how far a mean is from 0 and 1, to start from
NEWTON = 12  # steps, that double the digits from one on


class OnUnit(Continuous):
    """A distribution on [0, 1]."""

    support: constraints.Constraint = constraints.unit_interval

    def log_mass(self, low: Tensor, high: Tensor, width: Any) -> Tensor:
        """The log mass of the part of (low, high) inside [0, 1], in double precision."""
        below, above, width, outside = _cell(low, high, width)
        inside = self.log_mass_between(below, above, width).clamp(max=0)
        return torch.where(outside, -torch.inf, inside).to(low.dtype)

    def log_mass_between(self, below: Tensor, above: Tensor, width: Tensor) -> Tensor:
        """Log of the mass of an interval, from the masses below, above and in it, which add up to 1."""
        raise NotImplementedError


def _cell(low: Tensor, high: Tensor, width: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The parts of [0, 1] below (low, high), above it and in it; each is a third if nothing is in it.

    An end that only rounding keeps from 0 or 1 counts as there, so that the masses of all levels add up to one.
    """
    rounding = 2 * torch.finfo(low.dtype).eps
    given = torch.as_tensor(width, device=low.device).double()
    below, above = low.double(), 1 - high.double()
    below = torch.where(below > rounding * given, below, 0.0)
    above = torch.where(above > rounding, above, 0.0)
    inside = torch.where((below > 0) & (above > 0), given, torch.where(above > 0, high.double(), 1.0) - below)
    outside = (inside <= 0) | (below >= 1) | (high <= 0)
    below, above, inside = (torch.where(outside, 1 / 3, part) for part in (below, above, inside))
    return below, above, inside, outside


def to_open(x: Tensor, kind: torch.dtype) -> Tensor:
    """Move draws that rounding takes to 0 or 1, where the density is 0 or infinite, to the adjacent number."""
    return x.to(kind).clamp(torch.finfo(kind).tiny, 1 - torch.finfo(kind).eps / 2)


class ExponentialOnUnit(OnUnit):
    r"""An exponential density truncated to [0, 1], which may rise or fall.

    .. math:: p(x) = e^{\eta x} \Big/ \int_0^1 e^{\eta t} \, dt

    Args:
        logits: eta.
    """

    arguments = ("logits",)
    logits: Tensor

    def log_prob(self, x: Tensor) -> Tensor:
        """The log of the density, also at 0 and 1."""
        return self._log_average(x, 1 - x, torch.zeros_like(x))

    def log_mass_between(self, below: Tensor, above: Tensor, width: Tensor) -> Tensor:
        """The average density of an interval, times its width."""
        return width.log() + self._log_average(below, above, width)

    def _log_average(self, below: Tensor, above: Tensor, width: Tensor) -> Tensor:
        r"""With :math:`\log \int_0^w e^{\eta t} dt = \log w + \eta w / 2 + \log (\sinh u / u)`, u = eta w / 2."""
        flat, near, far = self._split(below.dtype)
        even = near * (below - above) / 2 + _log_sinhc(near * width) - _log_sinhc(near)
        size = far.abs()
        steep = _log_shrunk(size * width) - _log_shrunk(size) - size * torch.where(far > 0, above, below)
        return torch.where(flat, even, steep)

    def _split(self, kind: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
        """Where eta is small, eta there and 0 elsewhere, eta elsewhere and 1 there."""
        eta = self.logits.to(kind)
        flat = eta.abs() < 1
        return flat, torch.where(flat, eta, 0.0), torch.where(flat, 1.0, eta)

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        r"""The inverse of the distribution function, :math:`\log(1 + u (e^\eta - 1)) / \eta`, in double precision."""
        eta = self.logits.double()
        u = torch.rand((*sample_shape, *eta.shape), dtype=eta.dtype, device=eta.device)
        flat = eta.abs() < LEAST
        size = torch.where(flat, 1.0, eta.abs())
        distance = -torch.log1p(torch.where(eta > 0, 1 - u, u) * torch.expm1(-size)) / size  # from the higher end
        x = torch.where(eta > 0, 1 - distance, distance)
        v = u * (1 - u)  # that of log(1 + u (e^eta - 1)) are the cumulants of a coin
        series = u + eta * v * (1 / 2 + eta * (1 - 2 * u) / 6 + eta.square() * (1 - 6 * v) / 24)
        return torch.where(flat, series, x).to(self.logits.dtype)

    @property
    def mean(self) -> Tensor:
        r""":math:`1 / (1 - e^{-\eta}) - 1 / \eta`, the derivative of the log of the integral."""
        flat, near, far = self._split(self.logits.dtype)
        even = 0.5 + near * _power_series(CUMULANTS, near.square())
        size = far.abs()
        distance = 1 / size + (-size).exp() / torch.expm1(-size)
        return torch.where(flat, even, torch.where(far > 0, 1 - distance, distance))

    @property
    def variance(self) -> Tensor:
        r""":math:`1 / \eta^2 - e^\eta / (e^\eta - 1)^2`, the second one."""
        flat, near, far = self._split(self.logits.dtype)
        even = _power_series([(2 * n + 1) * c for n, c in enumerate(CUMULANTS)], near.square())
        size = far.abs()
        steep = size.reciprocal().square() - (-size).exp() / torch.expm1(-size).square()
        return torch.where(flat, even, steep)


def _power_series(coefficients: list[float], x: Tensor) -> Tensor:
    total = torch.zeros_like(x)
    for coefficient in reversed(coefficients):
        total = coefficient + x * total
    return total


def _log_sinhc(v: Tensor) -> Tensor:
    """Log of sinh u / u with u = v / 2, for v from -1 to 1."""
    return v.square() * _power_series([c / (2 * n) for n, c in enumerate(CUMULANTS, 1)], v.square())


def _log_shrunk(v: Tensor) -> Tensor:
    r"""Log of :math:`\int_0^1 e^{-v t} dt = (1 - e^{-v}) / v` for v from 0 on."""
    small = v < 1
    near, far = torch.where(small, v, 0.0), torch.where(small, 1.0, v)
    return torch.where(small, _log_sinhc(near) - near / 2, (-torch.expm1(-far)).log() - far.log())


class ContinuousBernoulli(Emission):
    r"""The continuous Bernoulli: a Bernoulli's mass read as a density on [0, 1], and normalised.

    .. math:: p(x_j \mid z) = C(\lambda_j) \, \lambda_j^{x_j} (1 - \lambda_j)^{1 - x_j}
              = e^{\eta_j x_j} \Big/ \int_0^1 e^{\eta_j t} \, dt, \qquad \eta_j = \mathrm{logit} \, \lambda_j

    Unbounded only at an exact 0 or 1, where it grows like the size of eta; at any other x it is at most :math:`e^{y -
    1} / y`, with y the smaller of x and 1 - x. With a clip c, lambda is c + (1 - 2 c) sigmoid a, never nearer to 0 or
    1, and the bound is the one at the ends. Loaiza-Ganem & Cunningham (2019), https://arxiv.org/abs/1907.06845 (c =
    1e-4, in their code)

    Args:
        clip: c, below 1/2; 0 for none, and no bound.

    >>> fn = ContinuousBernoulli()(torch.tensor([[0.0, 1e4]]))
    >>> fn.log_prob(torch.tensor([0.3, 1.0]))
    tensor([0.0000, 9.2103])
    """

    outputs = 1

    def __init__(self, clip: float = 0.0) -> None:
        super().__init__()
        self.clip = clip

    def forward(self, parameters: Tensor) -> dist.TorchDistribution:
        """From eta, or from a, (..., 1, d)."""
        (logits,) = parameters.unbind(-2)
        if self.clip:
            share = 1 - 2 * self.clip
            logits = (self.clip + share * logits.sigmoid()).log() - (self.clip + share * (-logits).sigmoid()).log()
        return ExponentialOnUnit(logits)

    def log_density_bound(self) -> float:
        r"""Of an eta as far out as the clip lets it be, :math:`\log \eta - \log (1 - e^{-\eta})`; infinite without."""
        if not self.clip:
            return math.inf
        furthest = math.log1p(-self.clip) - math.log(self.clip)
        return math.log(furthest) - math.log1p(-math.exp(-furthest))

    def start(self, x: Tensor) -> Tensor:
        """The eta of each column's mean, by Newton's method from an approximation of L^-1(y), L(u) = coth u - 1/u."""
        mean = x.mean(0).clamp(LEAST, 1 - LEAST)
        y = 2 * mean - 1
        eta = 2 * y * (3 - y.square()) / (1 - y.square())
        for _ in range(NEWTON):
            fn = ExponentialOnUnit(eta)
            eta = eta + (mean - fn.mean) / fn.variance
        if self.clip:
            eta = ((eta.sigmoid() - self.clip) / (1 - 2 * self.clip)).clamp(LEAST, 1 - LEAST).logit()
        return eta[None]


class SigmoidOfNormal(ByMoments, OnUnit):
    r"""The sigmoid of a normal variable.

    .. math:: p(x) = \frac{N(\mathrm{logit} \, x; \mu, \sigma^2)}{x (1 - x)}

    Args:
        loc: mu.
        scale: sigma.
    """

    arguments, support = ("loc", "scale"), OpenUnit()
    loc: Tensor
    scale: Tensor

    def log_prob(self, x: Tensor) -> Tensor:
        """The log density, minus infinity at 0 and 1."""
        at_end = (x <= 0) | (x >= 1)
        within = torch.where(at_end, 0.5, x)
        log_x, log_rest = within.log(), torch.log1p(-within)
        of_logit = dist.Normal(self.loc, self.scale, validate_args=False).log_prob(log_x - log_rest)
        return torch.where(at_end, -torch.inf, of_logit - log_x - log_rest)

    def log_mass_between(self, below: Tensor, above: Tensor, width: Tensor) -> Tensor:
        """That of the logits; beyond all mass instead of infinite, whose gradient would not be a number."""
        loc, scale = self.loc.double(), self.scale.double()
        to_zero, to_one = below <= 0, above <= 0
        low = torch.where(to_zero, 1.0, below).log() - (width + above).log()
        high = (below + width).log() - torch.where(to_one, 1.0, above).log()
        between = torch.log1p(width / torch.where(to_zero | to_one, 1.0, below * above))
        low = torch.where(to_zero, torch.where(to_one, loc, torch.minimum(loc, high)) - BEYOND * scale, low)
        high = torch.where(to_one, torch.maximum(loc, low) + BEYOND * scale, high)
        between = torch.where(to_zero | to_one, high - low, between)
        return log_interval_mass(dist.Normal(loc, scale, validate_args=False), low, high, between)

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        """The sigmoid of draws."""
        drawn = dist.Normal(self.loc.double(), self.scale.double(), validate_args=False).rsample(sample_shape)
        return to_open(drawn.sigmoid(), self.loc.dtype)

    def _moments(self) -> tuple[Tensor, Tensor]:
        """By quadrature, since there is no closed form; panels end where the sigmoid is steep or the normal high."""
        loc, scale = self.loc.double(), self.scale.double()
        steep = [(turn - loc) / scale for turn in (-TURNED, 0.0, TURNED)]
        ends = torch.stack([torch.zeros_like(loc), loc * 0 - TAILS, loc * 0 + TAILS, *steep], dim=-1)
        ends = ends.clamp(-TAILS, TAILS).sort(-1).values
        nodes, weights = legendre(ends)
        at = ends[..., :-1, None] + ends.diff(dim=-1)[..., None] * nodes
        weights = ends.diff(dim=-1)[..., None] * weights * (-at.square() / 2 - LOG_TAU / 2).exp()
        x = (loc[..., None, None] + scale[..., None, None] * at).sigmoid()
        mean = (weights * x).sum((-1, -2))
        variance = (weights * (x - mean[..., None, None]).square()).sum((-1, -2))
        return mean.to(self.loc.dtype), variance.to(self.loc.dtype)


class LogitNormal(Emission):
    r"""A logit-normal: the logit is normal.

    .. math:: p(x_j \mid z) = \frac{N(\mathrm{logit} \, x_j; \mu_j, e^{v_j})}{x_j (1 - x_j)}

    Unbounded, where mu = logit x and v falls. At an exact 0 or 1 the log density is minus infinity.
    Aitchison & Shen (1980), Logistic-Normal Distributions: Some Properties and Uses,
    https://doi.org/10.1093/biomet/67.2.261

    >>> LogitNormal()(torch.zeros(2, 3)).log_prob(torch.tensor([0.0, 0.5, 1.0]))
    tensor([  -inf, 0.4674,   -inf])
    """

    outputs = 2

    def forward(self, parameters: Tensor) -> dist.TorchDistribution:
        """From (mu, v), (..., 2, d)."""
        mean, log_variance = parameters.unbind(-2)
        return SigmoidOfNormal(mean, (log_variance / 2).exp())

    def start(self, x: Tensor) -> Tensor:
        """Mean and log variance of the logits."""
        logits = x.clamp(LEAST, 1 - LEAST).logit()
        return torch.stack([logits.mean(0), logits.var(0, correction=0).clamp(min=LEAST).log()])
