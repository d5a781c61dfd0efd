"""Probability masses for values on equally spaced levels, such as grey values and ratings."""

import math
from functools import cache, cached_property, singledispatch
from typing import Any, ClassVar

import numpy as np
import pyro.distributions as dist
import torch
from torch import Tensor, nn
from torch.distributions import constraints

from .gammas import log_rise
from .operators import elementwise

__all__ = [
    "Binned",
    "ByMoments",
    "Levels",
    "PartlyBinned",
    "legendre",
    "log_interval_mass",
    "within_support",
]

# in standard deviations: an interval so narrow, and not too far out for its width, is its midpoint's density
NARROW, NEAR = 0.02, 0.2
LOG_ROOT_TAU = math.log(2 * math.pi) / 2
ROUNDING = 1e-6  # of a number, that single precision tells from it
FAR = 40.0  # so far out nothing is left, and numbers stay finite
SMALL = 1e-3  # of a distribution function, a difference from which on it is accurate
LEAST = 1e-30  # distribution function below which single precision loses digits
CLEAR = 1e-2  # the same, of those that torch rounds more


@singledispatch
def log_interval_mass(base: dist.TorchDistribution, low: Tensor, high: Tensor, width: Any) -> Tensor:
    r"""Log of the probability of (low, high) under a distribution of one variable, elementwise.

    .. math:: \log [F(b) - F(a)], \qquad \log \int_a^b p(x) \, dx

    The first is used if it is not lost in rounding; the second, by Gauss-Legendre quadrature, if there is little mass
    between the two: in a tail, or because they are close. Of a peak between its nodes it may see nothing or too much:
    where the two differ by more than a quarter, the first is used from a mass of a thousandth on, and limits the second
    below that. ``width`` is their exact distance, since rounding may make them equal: in single precision two prices
    may be the same though they differ by a cent.
    """
    a, b = within_support(base, low), within_support(base, high)
    span = torch.where((a == low) & (b == high), torch.as_tensor(width).to(a), b - a)
    nodes, weights = legendre(a)
    log_density = torch.stack([base.log_prob(a + span * node) for node in nodes.unbind()], dim=-1)
    by_density: Tensor = span.log() + (log_density + weights.log()).logsumexp(-1)
    mass = base.cdf(b) - base.cdf(a)
    apart = ROUNDING * a.abs().maximum(b.abs()) <= span  # otherwise the difference is of other places
    told = mass.clamp(min=SMALL).log()
    clear = (mass > CLEAR) | (apart & (mass > SMALL) & ((by_density - told).abs() > math.log(1.25)))
    limited = torch.where(apart, by_density.minimum((mass.clamp(min=0) + SMALL).log()), by_density)
    return torch.where(clear, told, limited)


def legendre(like: Tensor, count: int = 24) -> tuple[Tensor, Tensor]:
    """Nodes and weights of Gauss and Legendre's rule on [0, 1], of the kind of a tensor."""
    nodes, weights = (torch.as_tensor(part, dtype=like.dtype, device=like.device) for part in _legendre(count))
    return nodes, weights


@cache
def _legendre(count: int) -> tuple[Any, Any]:
    nodes, weights = np.polynomial.legendre.leggauss(count)
    return (nodes + 1) / 2, weights / 2


def within_support(base: dist.TorchDistribution, x: Tensor) -> Tensor:
    """The next to x of the values that a distribution of one variable can have."""
    support: Any = getattr(base.support, "base_constraint", base.support)
    low, high = getattr(support, "lower_bound", None), getattr(support, "upper_bound", None)
    if low is not None:
        x = torch.maximum(x, torch.as_tensor(low).to(x) + torch.finfo(x.dtype).tiny)
    return x if high is None else torch.minimum(x, torch.as_tensor(high).to(x))


@log_interval_mass.register
def _(base: dist.Laplace, low: Tensor, high: Tensor, width: Any) -> Tensor:
    r"""Of :math:`e^b (1 - e^{a - b}) / 2` in the tail, and :math:`1 - (e^a + e^{-b}) / 2` about the centre."""
    a, b = (low - base.loc) / base.scale, (high - base.loc) / base.scale
    b = torch.minimum(-a, b)  # mirrored into the tail where the distribution is small
    width = width / base.scale
    in_tail = b.clamp(max=0) - math.log(2) + (-torch.expm1(-width)).log()
    right = torch.minimum(b.clamp(min=0), width / 2)  # of the centre: the end that is nearer to it
    central = -((right - width).expm1() + (-right).expm1()) / 2
    return torch.where(b <= 0, in_tail, central.log())


@log_interval_mass.register
def _(base: dist.Logistic, low: Tensor, high: Tensor, width: Any) -> Tensor:
    r"""Of :math:`\mathrm{sigmoid}(b) \, \mathrm{sigmoid}(-a) \, (1 - e^{a - b})`."""
    a, b = (low - base.loc) / base.scale, (high - base.loc) / base.scale
    between = (-torch.expm1(-width / base.scale)).log()
    return nn.functional.logsigmoid(b) + nn.functional.logsigmoid(-a) + between


@log_interval_mass.register
def _(base: dist.Normal, low: Tensor, high: Tensor, width: Any) -> Tensor:
    """Log [Φ(b) - Φ(a)], a and b the standardised ends."""
    a, b = (low - base.loc) / base.scale, (high - base.loc) / base.scale
    a, b = -torch.maximum(-a, b), torch.minimum(-a, b)  # mirrored into the tail where Φ is small, if need be
    width = width / base.scale
    if torch.is_grad_enabled():
        return _log_normal_mass(a, b, width)
    return _log_normal_mass_where_hard(*torch.broadcast_tensors(a, b, width))


@log_interval_mass.register
def _(base: dist.LogNormal, low: Tensor, high: Tensor, width: Any) -> Tensor:
    """That of the logarithms under a normal; below 0 there is nothing."""
    nothing = torch.finfo(low.dtype).tiny
    low, high = low.clamp(min=nothing), high.clamp(min=2 * nothing)
    share = torch.as_tensor(width).to(low) / low  # log(high / low) is log(1 + share), but for what is below 0
    width = torch.where(share < 1, share.clamp(max=1).log1p(), high.log() - low.log())
    return log_interval_mass(dist.Normal(base.loc, base.scale, validate_args=False), low.log(), high.log(), width)


@log_interval_mass.register
def _(base: dist.StudentT, low: Tensor, high: Tensor, width: Any) -> Tensor:
    r"""By Gauss and Legendre's rule over the angle to the nearer tail, on each side of the centre.

    .. math:: C \int_{\phi_b}^{\phi_a} \sin^{\nu - 1} \phi \, d\phi, \qquad x = \mu + s \sqrt{\nu} \cot \phi, \quad
              C = \frac{\Gamma((\nu + 1)/2)}{\sqrt \pi \, \Gamma(\nu / 2)}
    """
    unit = base.scale * base.df.sqrt()
    a, b = (low - base.loc) / unit, (high - base.loc) / unit
    far = torch.maximum(-a, b)  # mirrored, so that the farther end is on the right
    near = torch.minimum(torch.maximum(a, -b), far)
    # the angle between two directions, exact also where they are almost the same
    span = torch.atan2(torch.as_tensor(width).to(a) / unit, 1 + a * b)
    right = torch.where(near < 0, torch.minimum(far.atan(), span), span)
    across = span > right
    left = torch.where(across, span - right, 1.0)
    sides = _log_sine_integral(far, right, base.df), _log_sine_integral(torch.where(across, -near, 1.0), left, base.df)
    log_constant = log_rise(base.df / 2, 0.5) + base.df.log() / 2 - LOG_ROOT_TAU
    mass: Tensor = log_constant + torch.where(across, torch.logaddexp(*sides), sides[0])
    return mass


def _log_sine_integral(end: Tensor, span: Tensor, df: Tensor) -> Tensor:
    r"""Log of the integral of sin(φ)^(ν - 1) over an angle that ends in the direction whose cotangent is given.

    .. math:: \int \sin^{\nu - 1} \phi \, d\phi
              = \frac{1}{p} \int \Big( \frac{\sin \phi}{\phi} \Big)^{\nu - 1} t^{\lceil \nu \rceil - 1} \, dt,
              \qquad t = \phi^p, \quad p = \frac{\nu}{\lceil \nu \rceil}

    The second integrand is smooth where the first has a pole or a root at 0.
    """
    start = torch.atan2(torch.ones_like(end), end).clamp(min=torch.finfo(end.dtype).tiny)
    # a steep integrand is cut where it has fallen to e^-20, so that the nodes lie where the mass is
    cotangent = (start + span).tan().reciprocal()
    steep = 40 / (df - 1).clamp(min=1e-10)
    most = steep / (cotangent + (cotangent.square() + steep).sqrt())
    start, span = torch.where(span > most, start + span - most, start), torch.minimum(span, most)
    power = df / df.ceil()
    log_start, growth = power * start.log(), torch.expm1(power * (span / start).log1p())
    nodes, weights = legendre(span, 12)
    log_angle = (log_start[..., None] + (growth[..., None] * nodes).log1p()) / power[..., None]
    log_sine = log_angle.exp().sin().log()  # to 6e-8 in single precision, so the whole to 6e-8 df nats
    log_integrand = (df - 1)[..., None] * log_sine + (1 - power)[..., None] * log_angle
    log_integral: Tensor = log_start + growth.log() - power.log() + (log_integrand + weights.log()).logsumexp(-1)
    return log_integral


def _log_normal_mass(a: Tensor, b: Tensor, width: Tensor) -> Tensor:
    """Log [Φ(b) - Φ(a)] for a + b <= 0 and b - a = width, accurate in the tail and for narrow intervals."""
    middle = (a + b) / 2
    narrow = (width < NARROW) & (-middle * width < NEAR)
    # ∫ φ over a narrow interval, to third order in its width
    at, over = torch.where(narrow, middle, 0.0), torch.where(narrow, width, 1.0)
    narrow_mass = -at.square() / 2 - LOG_ROOT_TAU + over.log() + torch.log1p((at.square() - 1) * over.square() / 24)
    b = b.clamp(max=FAR)
    a = torch.maximum(a, b - 2 * FAR)
    a = torch.where(a < b, a, b - ROUNDING * b.abs())  # so far out, rounding makes one number of them
    log_high = _log_normal_cdf(b)
    gap = torch.where(narrow, 1.0, log_high - _log_normal_cdf(a))
    return torch.where(narrow, narrow_mass, log_high + (-torch.expm1(-gap)).log())


def _log_normal_mass_by_difference(a: Tensor, b: Tensor, width: Tensor) -> Tensor:
    """The same without a gradient: by the plain difference, ten times as fast, where that is not lost in rounding."""
    upto = torch.erfc(-b * math.sqrt(0.5))
    mass = upto - torch.erfc(-a * math.sqrt(0.5))
    log_mass = (mass / 2).log()
    hard = ((mass < SMALL * upto) | (upto < LEAST)).flatten().nonzero()[:, 0]
    if len(hard):
        log_mass.view(-1)[hard] = _log_normal_mass(*(part.reshape(-1)[hard] for part in (a, b, width)))
    return log_mass


_log_normal_mass_where_hard = elementwise("log_normal_mass", _log_normal_mass_by_difference, 3)


def _log_normal_cdf(t: Tensor) -> Tensor:
    """Log Φ(t), by its asymptotic series in the tail (``torch.special.log_ndtr`` is slow, even more so under vmap)."""
    far = t < -10
    tail, near = torch.where(far, t, -10.0), torch.where(far, 0.0, t)
    r = tail.square().reciprocal()
    series = -r * (1 - 3 * r * (1 - 5 * r * (1 - 7 * r * (1 - 9 * r * (1 - 11 * r * (1 - 13 * r * (1 - 15 * r)))))))
    log_tail = -tail.square() / 2 - (-tail).log() - LOG_ROOT_TAU + torch.log1p(series)
    return torch.where(far, log_tail, (torch.erfc(-near * math.sqrt(0.5)) / 2).log())


class ByMoments:
    """A distribution whose mean and variance are computed together, once."""

    def _moments(self) -> tuple[Tensor, Tensor]:
        raise NotImplementedError

    @cached_property
    def _both(self) -> tuple[Tensor, Tensor]:
        return self._moments()

    @property
    def mean(self) -> Tensor:
        """The mean."""
        return self._both[0]

    @property
    def variance(self) -> Tensor:
        """The variance."""
        return self._both[1]


class Binned(ByMoments, dist.TorchDistribution):  # type: ignore[misc]
    r"""A continuous distribution of one variable cut into cells of equal width: a mass, at most 1.

    .. math:: P(x) = F(x + \tfrac{w}{2}) - F(x - \tfrac{w}{2})

    With ``ends`` the cells of the lowest and the highest level reach to minus and plus infinity, and the masses of the
    levels from one to the other add up to 1; without, the masses of all levels on an infinite grid do.

    Args:
        base: a distribution of one variable for each feature, batch shape (..., D).
        width: w, the distance between two levels, a number or (D,).
        ends: the lowest and the highest level, numbers or (D,).
        levels: the most levels from one end to the other; computed if the ends are numbers.

    >>> levels = torch.arange(5.0)
    >>> mass = Binned(dist.Normal(torch.tensor(1.0), torch.tensor(2.0)), 1.0, ends=(0.0, 4.0)).log_prob(levels).exp()
    >>> round(float(mass.sum()), 6)
    1.0
    """

    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {}
    support = constraints.real

    def __init__(
        self,
        base: Any,
        width: Any,
        ends: tuple[Any, Any] | None = None,
        validate_args: bool | None = None,
        levels: int | None = None,
    ) -> None:
        self.base, self.width, self.ends, self.levels = base, width, ends, levels
        super().__init__(base.batch_shape, base.event_shape, validate_args=validate_args)

    def expand(self, batch_shape: Any, _instance: Any = None) -> "Binned":
        """The same for a larger batch."""
        return Binned(self.base.expand(batch_shape), self.width, self.ends, validate_args=False, levels=self.levels)

    def edges(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The ends of the cells of x; those of the outermost levels are infinite if the distribution has ``ends``."""
        low, high = x - self.width / 2, x + self.width / 2
        if self.ends is None:
            return low, high
        return torch.where(low < self.ends[0], -torch.inf, low), torch.where(high > self.ends[1], torch.inf, high)

    def log_prob(self, x: Tensor) -> Tensor:
        """Log [F(x + w/2) - F(x - w/2)]."""
        low, high, width = x - self.width / 2, x + self.width / 2, self.width
        if self.ends is not None:  # beyond all mass instead of infinite, whose gradient would not be a number
            far = 2 * FAR * self.base.stddev + ROUNDING * self.base.mean.abs()
            low = torch.where(low < self.ends[0], torch.minimum(low, self.base.mean) - far, low)
            high = torch.where(high > self.ends[1], torch.maximum(high, self.base.mean) + far, high)
            width = high - low
        return log_interval_mass(self.base, low, high, width)

    def sample(self, sample_shape: Any = ()) -> Tensor:
        """Levels drawn by rounding the base distribution's draws; the outermost ones take everything beyond."""
        low = 0.0 if self.ends is None else self.ends[0]
        drawn: Tensor = low + self.width * torch.round((self.base.sample(torch.Size(sample_shape)) - low) / self.width)
        return drawn if self.ends is None else drawn.clamp(*self.ends)

    def _moments(self) -> tuple[Tensor, Tensor]:
        """The moments over levels with ends; without, the base distribution's, plus the variance of a cell."""
        if self.ends is None:
            return self.base.mean, self.base.variance + self.width**2 / 12
        low, high = self.ends
        count = self.levels or round((high - low) / float(self.width)) + 1
        first = second = torch.zeros_like(self.base.mean)
        for number in range(count):  # a loop, so that memory does not grow with the levels
            above = torch.full_like(first, number) * self.width  # the lowest level, from which variances are exact
            there = low + above <= high + self.width / 2
            mass = torch.where(there, self.log_prob(low + above).exp(), 0.0)
            first, second = first + mass * above, second + mass * above**2
        return low + first, (second - first.square()).clamp(min=0)


class PartlyBinned(dist.TorchDistribution):  # type: ignore[misc]
    """Cells of some columns, and a density on the others: batch shape (..., D).

    Args:
        base: a distribution of one variable for each column.
        width: width of the cells, (D,); NaN where there are none.
    """

    arg_constraints: ClassVar[dict[str, Any]] = {}
    support = constraints.real

    def __init__(self, base: Any, width: Tensor) -> None:
        self.base, self.width, self.cut = base, width, ~width.isnan()
        self.binned = Binned(base, torch.where(self.cut, width, 1.0))
        super().__init__(base.batch_shape, base.event_shape, validate_args=False)

    def expand(self, batch_shape: Any, _instance: Any = None) -> "PartlyBinned":
        """The same for a larger batch."""
        return PartlyBinned(self.base.expand(batch_shape), self.width)

    def log_prob(self, x: Tensor) -> Tensor:
        """Log mass of the cells, log density of the rest."""
        return torch.where(self.cut, self.binned.log_prob(x), self.base.log_prob(x))

    def sample(self, sample_shape: Any = ()) -> Tensor:
        """Draws of the base, rounded where there are cells."""
        drawn = self.base.sample(torch.Size(sample_shape))
        return torch.where(self.cut, self.binned.width * torch.round(drawn / self.binned.width), drawn)

    @property
    def mean(self) -> Tensor:
        """The base's."""
        return self.base.mean  # type: ignore[no-any-return]

    @property
    def variance(self) -> Tensor:
        """The base's variance plus that of a cell."""
        return torch.where(self.cut, self.binned.variance, self.base.variance)


class Levels(dist.TorchDistribution):  # type: ignore[misc]
    """A categorical distribution whose values are equally spaced levels rather than their numbers.

    Args:
        logits: (..., D, V).
        levels: (V,), increasing and equally spaced.

    >>> fn = Levels(torch.zeros(3, 5), torch.arange(5.0) * 10)
    >>> fn.log_prob(torch.tensor([0.0, 20.0, 40.0])).exp()
    tensor([0.2000, 0.2000, 0.2000])
    """

    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {}
    support = constraints.real

    def __init__(self, logits: Tensor, levels: Tensor, validate_args: bool | None = None) -> None:
        self.unnormalized, self.levels = logits, levels
        super().__init__(logits.shape[:-1], validate_args=validate_args)

    @property
    def logits(self) -> Tensor:
        """Log probabilities of the levels, (..., D, V)."""
        return self.unnormalized - self.unnormalized.logsumexp(-1, keepdim=True)

    @property
    def probs(self) -> Tensor:
        """Probabilities of the levels, (..., D, V)."""
        return self.logits.exp()

    def expand(self, batch_shape: Any, _instance: Any = None) -> "Levels":
        """The same for a larger batch."""
        logits = self.unnormalized.expand(*batch_shape, len(self.levels))
        return Levels(logits, self.levels, validate_args=False)

    def number(self, x: Tensor) -> Tensor:
        """The level of each value of x."""
        step = (self.levels[-1] - self.levels[0]) / (len(self.levels) - 1)
        return torch.round((x - self.levels[0]) / step).long()

    def log_prob(self, x: Tensor) -> Tensor:
        """The normalised logit of the level of x; the many others need not be normalised."""
        shape = torch.broadcast_shapes(x.shape, self.batch_shape)
        logits, number = self.unnormalized.expand(*shape, -1), self.number(x).expand(shape)
        normaliser = self.unnormalized.logsumexp(-1, keepdim=True)
        return (logits.gather(-1, number[..., None]) - normaliser)[..., 0]

    def sample(self, sample_shape: Any = ()) -> Tensor:
        """Levels with their probabilities."""
        shape, count = torch.Size(sample_shape) + self.batch_shape, len(self.levels)
        number = torch.multinomial(self.probs.expand(*shape, count).reshape(-1, count), 1, True)
        return self.levels[number.reshape(shape)]

    @property
    def mean(self) -> Tensor:
        """The mean level."""
        return (self.probs * self.levels).sum(-1)

    @property
    def variance(self) -> Tensor:
        """The variance of the level."""
        return (self.probs * (self.levels - self.mean[..., None]).square()).sum(-1)
