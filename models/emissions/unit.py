"""Emissions of numbers from 0 to 1."""

import math
from typing import Any, NamedTuple

import pyro.distributions as dist
import torch
from torch import Tensor, nn
from torch.distributions import constraints

from ..ordinal import log_interval_mass
from .continuous import Continuous, legendre, log_gamma_draws, log_pole, peak_nodes, stirling_error
from .emission import Emission

__all__ = [
    "Beta",
    "BetaByMean",
    "ContinuousBernoulli",
    "ExponentialOnUnit",
    "LogitNormal",
    "NormalOnUnit",
    "SigmoidOfNormal",
    "TruncatedNormal",
]

BERNOULLI = (1 / 6, -1 / 30, 1 / 42, -1 / 30, 5 / 66, -691 / 2730, 7 / 6, -3617 / 510, 43867 / 798, -174611 / 330)
CUMULANTS = [number / math.factorial(2 * n) for n, number in enumerate(BERNOULLI, 1)]  # of a uniform: B_2n / (2n)!
LOG_TAU = math.log(2 * math.pi)
LARGEST = 300.0  # of a log parameter: double precision still multiplies two such numbers
BEYOND = 100.0  # standard deviations, beyond which a normal has nothing
TAILS, TURNED = 8.5, 36.0  # the same, as far as it adds to a moment; logits where a sigmoid is 0 or 1 in rounding
LEAST = 1e-4  # of a variance, or of how far a mean is from 0 and 1, to start from
NEWTON = 12  # steps, that double the digits from one on
ASYMPTOTIC = 30.0  # where a series of Mills' ratio has the digits of double precision
FLAT = 1e-4  # of a density's change over an interval, whose cube is lost in rounding


class _OnUnit(Continuous):
    """A distribution on [0, 1]."""

    support = constraints.unit_interval

    def log_mass(self, low: Tensor, high: Tensor, width: Any) -> Tensor:
        """That of the part of (low, high) that is in [0, 1], in double precision."""
        below, above, width, outside = _cell(low, high, width)
        inside = self.log_mass_between(below, above, width).clamp(max=0)
        return torch.where(outside, -torch.inf, inside).to(low.dtype)

    def log_mass_between(self, below: Tensor, above: Tensor, width: Tensor) -> Tensor:
        """Log of the mass of an interval, from what is below it, above it and in it, that add up to 1."""
        raise NotImplementedError


def _cell(low: Tensor, high: Tensor, width: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """What of [0, 1] is below (low, high), above and in it; and if nothing is in it, all three being a third.

    An end that rounding alone keeps from 0 or 1 is there, so that the masses of all levels add up to one.
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


def _to_open(x: Tensor, kind: torch.dtype) -> Tensor:
    """Draws that rounding takes to 0 or 1, where the density is 0 or infinite, to the number next to it."""
    return x.to(kind).clamp(torch.finfo(kind).tiny, 1 - torch.finfo(kind).eps / 2)


# -- continuous Bernoulli ----------------------------------------------------------------------------------------------


class ExponentialOnUnit(_OnUnit):
    r"""An exponential density cut to [0, 1], that may rise or fall.

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

    Without a bound only at an exact 0 or 1, where it grows as the size of eta does; at any other x it is at most
    :math:`e^{y - 1} / y`, y the less of x and 1 - x. Loaiza-Ganem & Cunningham (2019), https://arxiv.org/abs/1907.06845

    >>> fn = ContinuousBernoulli()(torch.tensor([[0.0, 1e4]]))
    >>> fn.log_prob(torch.tensor([0.3, 1.0]))
    tensor([0.0000, 9.2103])
    """

    outputs = 1

    def forward(self, parameters: Tensor) -> dist.TorchDistribution:
        """From eta, (..., 1, d)."""
        (logits,) = parameters.unbind(-2)
        return ExponentialOnUnit(logits)

    def start(self, x: Tensor) -> Tensor:
        """The eta of each column's mean, by Newton's method from an approximation of L^-1(y), L(u) = coth u - 1/u."""
        mean = x.mean(0).clamp(LEAST, 1 - LEAST)
        y = 2 * mean - 1
        eta = 2 * y * (3 - y.square()) / (1 - y.square())
        for _ in range(NEWTON):
            fn = ExponentialOnUnit(eta)
            eta = eta + (mean - fn.mean) / fn.variance
        return eta[None]


# -- beta --------------------------------------------------------------------------------------------------------------


class BetaByMean(_OnUnit):
    r"""A beta distribution by its mean and concentration, in double precision whatever its parameters are in.

    .. math:: x \sim \mathrm{Beta}(\alpha, \beta), \qquad \alpha = m \kappa, \quad \beta = (1 - m) \kappa

    As a density of t = logit x it is log-concave, with its peak at logit m.

    Args:
        logits: logit m.
        log_concentration: log kappa.
    """

    arguments = ("logits", "log_concentration")
    logits: Tensor
    log_concentration: Tensor

    def log_prob(self, x: Tensor) -> Tensor:
        """The log density; at 0 and 1 it is infinite, minus or plus as alpha and beta are more or less than 1."""
        value, shape = x.double(), self._shape()
        at_end = (value <= 0) | (value >= 1)
        within = torch.where(at_end, 0.5, value)
        log_x, log_rest = within.log(), torch.log1p(-within)
        inner = shape.log_peak() - shape.drop(log_x - log_rest) - log_x - log_rest
        powers = torch.xlogy(shape.log_a.exp() - 1, value) + torch.xlogy(shape.log_b.exp() - 1, 1 - value)
        lgammas = shape.log_n.exp().lgamma() - shape.log_a.exp().lgamma() - shape.log_b.exp().lgamma()
        return torch.where(at_end, powers + lgammas, inner).to(x.dtype)

    def log_mass_between(self, below: Tensor, above: Tensor, width: Tensor) -> Tensor:
        """In three parts: next to 0, where there may be a pole, next to 1, and between them about the peak."""
        shape = self._shape()
        ends = shape.end(), shape.mirrored().end()
        parts = [
            shape.log_next_to_zero(below, width, ends[0]),
            shape.mirrored().log_next_to_zero(above, width, ends[1]),
            shape.log_between(below, above, width, *ends),
        ]
        return shape.log_peak() + torch.stack(torch.broadcast_tensors(*parts)).logsumexp(0)

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        """The share of one of two gammas, whose logs are finite however small their shapes are."""
        shape = self._shape()
        first, second = (log_gamma_draws(log_k, sample_shape) for log_k in (shape.log_a, shape.log_b))
        return _to_open((first - second).sigmoid(), self.logits.dtype)

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
        """M (1 - m) / (1 + kappa)."""
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
        """That of 1 - x."""
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
        """As far from 0 as (1 - x)^(beta - 1) changes little; parts may be split anywhere, so that it has no gradient."""
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
              m_j = \mathrm{sigmoid} \, a_j, \quad \kappa_j = e^{b_j}

    Without a bound: where m = x and kappa grows it does as :math:`\sqrt \kappa`. At an exact 0 or 1 the log density is
    minus infinity, or plus infinity where alpha or beta is less than 1, whatever the rest of the data.
    Ferrari & Cribari-Neto (2004), Beta Regression for Modelling Rates and Proportions,
    https://doi.org/10.1080/0266476042000214501

    >>> Beta()(torch.tensor([[0.0, 0.0], [0.0, 1.1]])).log_prob(torch.tensor([0.0, 1.0]))  # of shapes 0.5 and 1.5
    tensor([inf, -inf])
    """

    outputs = 2

    def forward(self, parameters: Tensor) -> dist.TorchDistribution:
        """From (a, b), (..., 2, d)."""
        logits, log_concentration = parameters.unbind(-2)
        return BetaByMean(logits, log_concentration)


# -- logit-normal ------------------------------------------------------------------------------------------------------


class SigmoidOfNormal(_OnUnit):
    r"""The sigmoid of a normal variable.

    .. math:: p(x) = \frac{N(\mathrm{logit} \, x; \mu, \sigma^2)}{x (1 - x)}

    Args:
        loc: mu.
        scale: sigma.
    """

    arguments = ("loc", "scale")
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
        return _to_open(drawn.sigmoid(), self.loc.dtype)

    def _moments(self) -> tuple[Tensor, Tensor]:
        """By quadrature, for want of a closed form, in panels that end where the sigmoid is steep or the normal high."""
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

    @property
    def mean(self) -> Tensor:
        """The mean, by quadrature."""
        return self._moments()[0]

    @property
    def variance(self) -> Tensor:
        """The variance, by the same."""
        return self._moments()[1]


class LogitNormal(Emission):
    r"""A logit-normal: the logit is normal.

    .. math:: p(x_j \mid z) = \frac{N(\mathrm{logit} \, x_j; \mu_j, e^{v_j})}{x_j (1 - x_j)}

    Without a bound, where mu = logit x and v falls. At an exact 0 or 1 the log density is minus infinity.
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


# -- truncated normal --------------------------------------------------------------------------------------------------


class NormalOnUnit(_OnUnit):
    r"""A normal cut to [0, 1], in double precision whatever its parameters are in.

    .. math:: p(x) = N(x; \mu, \sigma^2) \Big/ \int_0^1 N(t; \mu, \sigma^2) \, dt

    All is measured from the highest point of [0, 1], so that nothing is lost where mu is far outside. That point has no
    gradient: any other would do as well.

    Args:
        loc: mu.
        log_scale: log sigma.
    """

    arguments = ("loc", "log_scale")
    loc: Tensor
    log_scale: Tensor

    def log_prob(self, x: Tensor) -> Tensor:
        """The log density, also at 0 and 1."""
        return (-self._fall(x.double()) - self._log_whole()).to(x.dtype)

    def log_mass_between(self, below: Tensor, above: Tensor, width: Tensor) -> Tensor:  # noqa: ARG002
        """What is under the density from one end of the interval to the other, over what is under all of it."""
        highest, under, _ = self._sides(below, width)
        return (under[0] + under[1]).log() - self._fall(highest) - self._log_whole()

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        """By the inverse of the distribution function on either side of the highest point."""
        (_, scale), (peak, under, sides) = self._parameters(), self._whole()
        u = torch.rand((*sample_shape, *peak.shape), dtype=peak.dtype, device=peak.device)
        share = under[1] / (under[0] + under[1])
        up = u >= share
        level = torch.where(up, u - share, share - u) / torch.where(up, 1 - share, share)
        slope, end = (torch.where(up, sides[0][part], sides[1][part]) for part in range(2))
        moved = scale * _tail_quantile(level, slope, end)
        return torch.where(up, peak + moved, peak - moved).to(self.loc.dtype)

    def _parameters(self) -> tuple[Tensor, Tensor]:
        return self.loc.double(), self.log_scale.double().clamp(-LARGEST, LARGEST).exp()

    def _fall(self, x: Tensor) -> Tensor:
        """How much less the log density is than at the highest point of [0, 1]: a product, of which nothing cancels."""
        loc, scale = self._parameters()
        peak = loc.detach().clamp(0, 1)
        return (x - peak) / scale * ((x - loc) + (peak - loc)) / scale / 2

    def _sides(self, low: Tensor, width: Tensor) -> tuple[Tensor, list[Tensor], list[tuple[Tensor, Tensor]]]:
        """Where (low, low + width) is highest, what is under the density up and down from there, slopes and ends."""
        loc, scale = self._parameters()
        highest = (low + torch.minimum((loc - low).clamp(min=0), width)).detach()
        down = highest - low
        slope = (highest - loc) / scale  # at least 0 but for rounding on a side that has a length
        sides = [(slope.clamp(min=-1), (width - down) / scale), ((-slope).clamp(min=-1), down / scale)]
        return highest, [scale * _tail_mass(*side) for side in sides], sides

    def _whole(self) -> tuple[Tensor, list[Tensor], list[tuple[Tensor, Tensor]]]:
        zero = torch.zeros_like(self._parameters()[0])
        return self._sides(zero, zero + 1)

    def _log_whole(self) -> Tensor:
        up, down = self._whole()[1]
        return (up + down).log()

    def _moments(self) -> tuple[Tensor, Tensor]:
        """By quadrature, from the highest point."""
        (_, scale), (highest, _, sides) = self._parameters(), self._whole()
        slope, end = (torch.stack(parts, dim=-1) for parts in zip(*sides, strict=True))
        at, weights = peak_nodes(lambda s: slope[..., None] * s + s.square() / 2, end)
        moved = scale[..., None, None] * at * torch.tensor([[1.0], [-1.0]], device=at.device)
        weights = weights / weights.sum((-1, -2), keepdim=True)
        further = (weights * moved).sum((-1, -2))
        variance = (weights * (moved - further[..., None, None]).square()).sum((-1, -2))
        return (highest + further).to(self.loc.dtype), variance.to(self.loc.dtype)

    @property
    def mean(self) -> Tensor:
        """The mean, by quadrature of how far it is from the highest point."""
        return self._moments()[0]

    @property
    def variance(self) -> Tensor:
        """The variance, by the same."""
        return self._moments()[1]


def _mills(a: Tensor) -> Tensor:
    r""":math:`\int_0^\infty e^{-a s - s^2 / 2} ds`; of its asymptotic series the derivative is accurate far out, too."""
    far = a > ASYMPTOTIC
    near, tail = torch.where(far, 0.0, a), torch.where(far, a, ASYMPTOTIC)
    r, series = tail.square().reciprocal(), torch.ones_like(tail)
    for odd in range(13, 0, -2):
        series = 1 - odd * r * series
    return torch.where(far, series / tail, math.sqrt(math.pi / 2) * torch.special.erfcx(near * math.sqrt(0.5)))


def _log_above(slope: Tensor, s: Tensor) -> Tensor:
    """Log of the share of that integral that is above s."""
    return _mills(slope + s).log() - _mills(slope).log() - slope * s - s.square() / 2


def _tail_mass(slope: Tensor, end: Tensor) -> Tensor:
    """The same integral from 0 to an end; by a series in it where little changes on the way."""
    flat = (1 + slope) * end < FLAT
    near, far = torch.where(flat, end, 0.0), torch.where(flat, 1.0, end)
    series = near * (1 - slope * near / 2 + (slope.square() - 1) * near.square() / 6)
    return torch.where(flat, series, -_mills(slope) * torch.expm1(_log_above(slope, far)))


def _tail_quantile(level: Tensor, slope: Tensor, end: Tensor) -> Tensor:
    """The s below which a level of the integral to an end is.

    By Newton's method on the log of what is above s without an end: it is concave, so that steps come from one side.
    """
    wanted = torch.log1p(level * torch.expm1(_log_above(slope, end)))
    s = torch.zeros_like(wanted)
    for _ in range(NEWTON):
        s = torch.minimum(s + (_log_above(slope, s) - wanted) * _mills(slope + s), end)
    flat = (1 + slope) * end < FLAT**2
    return torch.where(flat, level * end, s)


class TruncatedNormal(Emission):
    r"""A normal cut to [0, 1].

    .. math:: p(x_j \mid z) = \frac{N(x_j; \mu_j, e^{v_j})}{\Phi((1 - \mu_j) / \sigma_j) - \Phi(-\mu_j / \sigma_j)},
              \qquad \sigma_j = e^{v_j / 2}

    Without a bound, where mu = x and v falls.

    >>> fn = TruncatedNormal()(torch.tensor([[0.5, -1e4], [-2.0, 0.0]]))
    >>> fn.log_prob(torch.tensor([0.5, 0.0]))
    tensor([0.2723, 9.2103])
    """

    outputs = 2

    def forward(self, parameters: Tensor) -> dist.TorchDistribution:
        """From (mu, v), (..., 2, d)."""
        loc, log_variance = parameters.unbind(-2)
        return NormalOnUnit(loc, log_variance / 2)

    def start(self, x: Tensor) -> Tensor:
        """The variance of each column, and the mu that has its mean then, by Newton's method."""
        mean, variance = x.mean(0).clamp(LEAST, 1 - LEAST), x.var(0, correction=0).clamp(min=LEAST)
        loc = mean
        for _ in range(NEWTON):
            fn = NormalOnUnit(loc, variance.log() / 2)
            loc = loc + (mean - fn.mean) * variance / fn.variance
        return torch.stack([loc, variance.log()])
