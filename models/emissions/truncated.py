"""The normal truncated to [0, 1], as an emission."""

import math
from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor

from ..ordinal import ByMoments
from .continuous import peak_nodes
from .emission import Emission
from .unit import OnUnit

__all__ = ["NormalOnUnit", "TruncatedNormal"]

LARGEST = 300.0  # largest log parameter: double precision can still multiply two such numbers
LEAST = 1e-4  # least variance, or distance of a mean from 0 and 1, at the start
NEWTON = 12  # steps, each of which doubles the digits
ASYMPTOTIC = 30.0  # from here a series of Mills' ratio is exact in double precision
FLAT = 1e-4  # change of a density over an interval whose cube is lost in rounding


class NormalOnUnit(ByMoments, OnUnit):
    r"""A normal cut to [0, 1], in double precision whatever its parameters are in.

    .. math:: p(x) = N(x; \mu, \sigma^2) \Big/ \int_0^1 N(t; \mu, \sigma^2) \, dt

    Everything is measured from the highest point of [0, 1], so nothing is lost if mu is far outside. That point has no
    gradient, since any other would do as well.

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
        """The integral of the density over the interval, relative to the whole."""
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
        """How far the log density is below its highest point in [0, 1]: a product, so nothing cancels."""
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


def _mills(a: Tensor) -> Tensor:
    r""":math:`\int_0^\infty e^{-a s - s^2 / 2} ds`; of its asymptotic series the derivative is accurate, too."""
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
    r"""A normal truncated to [0, 1].

    .. math:: p(x_j \mid z) = \frac{N(x_j; \mu_j, e^{v_j})}{\Phi((1 - \mu_j) / \sigma_j) - \Phi(-\mu_j / \sigma_j)},
              \qquad \sigma_j = e^{v_j / 2}

    Unbounded, where mu = x and v falls.

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
