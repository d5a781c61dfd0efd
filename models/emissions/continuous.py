"""Continuous distributions of one variable with the mass of an interval, and the quadrature it needs."""

import math
from collections.abc import Callable
from typing import Any, ClassVar

import pyro.distributions as dist
import torch
from torch import Tensor
from torch.distributions import constraints

from ..ordinal import legendre, log_interval_mass

__all__ = ["Continuous", "OpenUnit", "log_gamma_draws", "log_pole", "peak_nodes", "stirling_error"]

DEEP = 36.0  # a density of e^-36 times its peak adds nothing that double precision tells
HALVINGS, NARROWEST = 12, -120.0  # of the log of a share of an interval
STIRLING = (1 / 12, -1 / 360, 1 / 1260, -1 / 1680, 1 / 1188, -691 / 360360)
ASYMPTOTIC = 10.0  # where that series is exact to double precision
LOG_TAU = math.log(2 * math.pi)


class OpenUnit(constraints.Constraint):
    """Numbers strictly between 0 and 1."""

    lower_bound, upper_bound = 0.0, 1.0

    def check(self, value: Tensor) -> Tensor:
        """Which values are."""
        return (value > 0) & (value < 1)

    def __repr__(self) -> str:
        return "0 < x < 1"


class Continuous(dist.TorchDistribution):  # type: ignore[misc]
    """A continuous distribution of one variable on [0, ...), elementwise, made by the mass of an interval.

    A subclass names its parameters in ``arguments``, and writes ``log_prob``, :meth:`log_mass` and ``rsample``.

    Args:
        parameters: as ``arguments`` names them, of shapes that broadcast to the batch shape.
    """

    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {}
    has_rsample = True
    arguments: ClassVar[tuple[str, ...]]

    def __init__(self, *parameters: Tensor) -> None:
        parameters = torch.broadcast_tensors(*parameters)
        for name, parameter in zip(self.arguments, parameters, strict=True):
            setattr(self, name, parameter)
        super().__init__(parameters[0].shape, validate_args=False)

    def expand(self, batch_shape: Any, _instance: Any = None) -> "Continuous":
        """The same for a larger batch."""
        return type(self)(*(getattr(self, name).expand(batch_shape) for name in self.arguments))

    def log_mass(self, low: Tensor, high: Tensor, width: Any) -> Tensor:
        """Log of the probability of (low, high); ``width`` is their exact distance, in case rounding loses it."""
        raise NotImplementedError

    def cdf(self, x: Tensor) -> Tensor:
        """P(X <= x), also for x outside the support."""
        return self.log_mass(torch.zeros_like(x), x, x).exp()

    def sample(self, sample_shape: Any = ()) -> Tensor:
        """Draws without a gradient."""
        with torch.no_grad():
            return self.rsample(torch.Size(sample_shape))  # type: ignore[no-any-return]


@log_interval_mass.register
def _(base: Continuous, low: Tensor, high: Tensor, width: Any) -> Tensor:
    return base.log_mass(low, high, width)


def peak_nodes(drop: Callable[[Tensor], Tensor], reach: Tensor) -> tuple[Tensor, Tensor]:
    r"""Nodes s and weights, (..., n), of an integral from the peak of a log-concave density down one side of it.

    .. math:: \int_0^r f(s) \, e^{-d(s)} \, ds \approx \sum_i w_i f(s_i), \qquad d \text{ convex}, \quad d(0) = 0

    By Gauss-Legendre quadrature over the part where d is at most about 36, found by bisection.

    Args:
        drop: d, from (..., n) to (..., n).
        reach: r, shape (...).

    >>> _, weights = peak_nodes(lambda s: s.square() / 2, torch.tensor(1e9).double())
    >>> round(float(weights.sum() ** 2 * 2), 9) == round(math.pi, 9)
    True
    """
    with torch.no_grad():
        low, high = torch.full_like(reach, NARROWEST), torch.zeros_like(reach)
        for _ in range(HALVINGS):
            middle = (low + high) / 2
            deep = drop((reach * middle.exp())[..., None])[..., 0] > DEEP
            low, high = torch.where(deep, low, middle), torch.where(deep, middle, high)
    span = (reach * high.exp())[..., None]
    nodes, weights = legendre(reach)
    at = span * nodes
    return at, span * weights * (-drop(at)).exp()


def log_pole(power: Tensor, rest: Callable[[Tensor], Tensor], length: Tensor, endless: Tensor) -> Tensor:
    r"""Log of the part of a mass near a pole or zero of the density; s is the distance of log x from its end.

    .. math:: \log \int_0^l e^{-k s} (1 + r(s)) \, ds

    Args:
        power: k, above 0 and maybe tiny: the first term has a closed form.
        rest: r, which falls at least as e^-s and is well above -1, from (..., n) to (..., n).
        length: l, shape (...).
        endless: where l is infinite, whatever ``length`` says.
    """
    reach = torch.minimum(torch.where(endless, DEEP, length), DEEP / (1 + power))[..., None]
    nodes, weights = legendre(length)
    at = reach * nodes
    whole = torch.where(endless, 1.0, -torch.expm1(-power * torch.where(endless, 1.0, length))) / power
    return (whole + (reach * weights * (-power[..., None] * at).exp() * rest(at)).sum(-1)).log()


def stirling_error(log_a: Tensor) -> Tensor:
    r"""The remainder of Stirling's formula for log gamma, whose large terms cancel in a density.

    .. math:: \log \Gamma(a) - (a - \tfrac12) \log a + a - \tfrac12 \log 2 \pi

    Loader (2000), Fast and Accurate Computation of Binomial Probabilities
    """
    a = log_a.exp()
    large = a > ASYMPTOTIC
    near, far = torch.where(large, 1.0, a), torch.where(large, a, ASYMPTOTIC)
    exact = torch.lgamma(1 + near) - (near + 0.5) * torch.where(large, 0.0, log_a) + near - LOG_TAU / 2
    square, series = far.square().reciprocal(), torch.zeros_like(far)
    for coefficient in reversed(STIRLING):
        series = coefficient + square * series
    return torch.where(large, series / far, exact)


def log_gamma_draws(log_shape: Tensor, sample_shape: Any) -> Tensor:
    r"""Logs of draws of a standard gamma of any shape k: :math:`G(k) = G(k + 1) \, U^{1/k}` may underflow."""
    log_larger = dist.Gamma(1 + log_shape.exp(), 1.0, validate_args=False).rsample(torch.Size(sample_shape)).log()
    return log_larger + torch.log1p(-torch.rand_like(log_larger)) * (-log_shape).exp()  # type: ignore[no-any-return]
