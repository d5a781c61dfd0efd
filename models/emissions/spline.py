"""An emission of real columns by their quantile function, in pieces."""

import math
from typing import Any, ClassVar

import pyro.distributions as dist
import torch
from torch import Tensor, nn
from torch.distributions import constraints

from ..ordinal import log_interval_mass
from .emission import Emission

__all__ = ["PIECES", "PiecewiseQuantiles", "QuantileSpline"]

PIECES = 10
STEP = 1 / PIECES  # of a level, from one knot to the next
LEAST = 1e-2  # of a slope, to start from


class PiecewiseQuantiles(dist.TorchDistribution):  # type: ignore[misc]
    r"""A distribution of one variable whose quantile function has a slope for each tenth of the mass.

    .. math:: Q(\tfrac12) = m, \qquad Q'(a) = s_k \text{ for } \tfrac{k}{10} < a < \tfrac{k + 1}{10}, \qquad
              p(Q(a)) = 1 / Q'(a)

    linear between, and exponential in the first and the last tenth, :math:`Q'(a) = s_0 / 10 a`, and
    :math:`s_9 / 10 (1 - a)`: a spline that ended there would leave a value beyond without any density.

    Args:
        median: m, (...).
        slopes: s, all positive, (..., 10).

    >>> fn = PiecewiseQuantiles(torch.zeros(()), torch.ones(10))
    >>> fn.log_prob(torch.tensor([-0.1, 0.3])).exp(), fn.cdf(torch.tensor([-0.1, 0.3]))
    (tensor([1., 1.]), tensor([0.4000, 0.8000]))
    """

    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {}
    support = constraints.real
    has_rsample = True

    def __init__(self, median: Tensor, slopes: Tensor) -> None:
        shape = torch.broadcast_shapes(median.shape, slopes.shape[:-1])
        self.median, self.slopes = median.expand(shape), slopes.expand(*shape, PIECES)
        super().__init__(shape, validate_args=False)

    def expand(self, batch_shape: Any, _instance: Any = None) -> "PiecewiseQuantiles":
        """The same for a larger batch."""
        return PiecewiseQuantiles(self.median.expand(batch_shape), self.slopes.expand(*batch_shape, PIECES))

    def _double(self) -> "PiecewiseQuantiles":
        return PiecewiseQuantiles(self.median.double(), self.slopes.double())

    @property
    def knots(self) -> Tensor:
        """Q(1/10), ..., Q(9/10), (..., 9)."""
        return self.median[..., None] + self._knots

    @property
    def _knots(self) -> Tensor:
        """How far they are from the median, where a piece may be narrower than rounding."""
        below, above = (self.slopes[..., 1:-1] * STEP).chunk(2, dim=-1)
        below = -below.flip(-1).cumsum(-1).flip(-1)
        return torch.cat([below, torch.zeros_like(below[..., :1]), above.cumsum(-1)], dim=-1)

    def log_prob(self, x: Tensor) -> Tensor:
        """Minus the log slope of the piece that x is in, and in the two tails how far x is in them."""
        off, knots, s = x - self.median, self._knots, self.slopes
        piece = (off[..., None] > knots).sum(-1, keepdim=True)
        slopes = s.expand(*piece.shape[:-1], PIECES).gather(-1, piece)[..., 0]
        beyond = (knots[..., 0] - off).clamp(min=0) / s[..., 0] + (off - knots[..., -1]).clamp(min=0) / s[..., -1]
        return -slopes.log() - PIECES * beyond

    def _parts(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """What of each inner piece is below x, as a share of it (..., 8), and how many scales x is in either tail."""
        off, knots, s = x - self.median, self._knots, self.slopes
        widths = s[..., 1:-1] * STEP
        share = (off[..., None] - knots[..., :-1]).clamp(min=0).minimum(widths) / widths
        left, right = (knots[..., 0] - off).clamp(min=0), (off - knots[..., -1]).clamp(min=0)
        return share, PIECES * left / s[..., 0], PIECES * right / s[..., -1]

    def cdf(self, x: Tensor) -> Tensor:
        """The level of x: what the pieces below it have, each a tenth."""
        share, left, right = self._parts(x)
        level: Tensor = STEP * ((-left).exp() + share.sum(-1) - torch.expm1(-right))
        return level

    def icdf(self, level: Tensor) -> Tensor:
        """Q at levels in (0, 1)."""
        low = torch.arange(1, PIECES - 1).to(level) * STEP
        share = (level[..., None] - low).clamp(0, STEP)
        s = self.slopes
        inner = self.knots[..., 0] + (s[..., 1:-1] * share).sum(-1)
        left = STEP * s[..., 0] * (level / STEP).clamp(max=1).log()
        return inner + left - STEP * s[..., -1] * ((1 - level) / STEP).clamp(max=1).log()

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        """Q of uniform draws."""
        kind = self.median
        u = torch.rand((*sample_shape, *self.batch_shape), dtype=kind.dtype, device=kind.device)
        return self.icdf(u.clamp(torch.finfo(kind.dtype).tiny, 1 - torch.finfo(kind.dtype).eps / 2))

    def sample(self, sample_shape: Any = ()) -> Tensor:
        """Draws without a gradient."""
        with torch.no_grad():
            return self.rsample(torch.Size(sample_shape))

    def crps(self, x: Tensor) -> Tensor:
        r"""The continuous ranked probability score of x, in closed form; in [a, b] the level of x is u, cut to it.

        .. math:: \int (F(y) - [y \ge x])^2 dy
                  = \sum_k \tfrac{s_k}{3} \left[ u^3 - a^3 + (1 - u)^3 - (1 - b)^3 \right] + \text{two tails}
        """
        share, left, right = self._parts(x)
        s = self.slopes
        a = torch.arange(1, PIECES - 1).to(s) * STEP
        u, b = a + STEP * share, a + STEP
        inner = (s[..., 1:-1] * (u**3 - a**3 + (1 - u) ** 3 - (1 - b) ** 3)).sum(-1) / 3
        return inner + STEP * (s[..., 0] * _crps_of_tail(left) + s[..., -1] * _crps_of_tail(right))

    def log_mass(self, low: Tensor, high: Tensor, width: Any) -> Tensor:
        """Log of the probability of (low, high): what of it is in each piece, over the slope; in double precision."""
        fn, width = self._double(), torch.as_tensor(width, device=low.device).double()
        middle = (
            low.double() + high.double()
        ) / 2 - fn.median  # both ends are exact, also of a cell that rounding takes
        a, b = middle - width / 2, middle + width / 2
        knots, s = fn._knots, fn.slopes
        start, end = knots[..., :-1], knots[..., 1:]
        inner = torch.minimum(b[..., None], end) - torch.maximum(a[..., None], start)
        within = torch.where(inner > 0, torch.where(inner > 0, inner, 1.0).log() - s[..., 1:-1].log(), -torch.inf)
        left = _log_of_tail(knots[..., 0] - b, knots[..., 0] - a, STEP * s[..., 0])
        right = _log_of_tail(a - knots[..., -1], b - knots[..., -1], STEP * s[..., -1])
        parts = torch.cat([within, left[..., None], right[..., None]], dim=-1)
        return parts.logsumexp(-1).clamp(max=0).to(low.dtype)

    @property
    def log_peak(self) -> Tensor:
        """The log of the highest density."""
        return -self.slopes.amin(-1).log()

    def _moments(self) -> tuple[Tensor, Tensor]:
        """First and second moment about the median: of uniform pieces, and of two exponential tails."""
        off, s = self._knots, self.slopes
        a, b = off[..., :-1], off[..., 1:]
        low, high = off[..., 0], off[..., -1]
        down, up = STEP * s[..., 0], STEP * s[..., -1]
        first = ((a + b) / 2).sum(-1) + low - down + high + up
        second = ((a.square() + a * b + b.square()) / 3).sum(-1)
        second = second + (low - down).square() + down.square() + (high + up).square() + up.square()
        return STEP * first, STEP * second

    @property
    def mean(self) -> Tensor:
        """The mean."""
        return self.median + self._moments()[0]

    @property
    def variance(self) -> Tensor:
        """The variance."""
        first, second = self._moments()
        return second - first.square()


@log_interval_mass.register
def _(base: PiecewiseQuantiles, low: Tensor, high: Tensor, width: Any) -> Tensor:
    return base.log_mass(low, high, width)


def _crps_of_tail(depth: Tensor) -> Tensor:
    r"""That of an exponential tail over its scale, x being so many scales in it, with u its level there.

    .. math:: \int_{-\infty}^x F^2 + \int_x^{Q(1/10)} (1 - F)^2 = \tfrac12 u^2 + d - 2 (\tfrac1{10} - u)
              + \tfrac12 (\tfrac1{100} - u^2)
    """
    return STEP**2 / 2 + depth + 2 * STEP * torch.expm1(-depth)


def _log_of_tail(near: Tensor, far: Tensor, scale: Tensor) -> Tensor:
    """Log of the mass of an exponential tail between two distances from its knot, minus infinity if there is none."""
    there = far > 0
    near = near.clamp(min=0) / scale
    between = torch.where(there, far / scale, near + 1) - near
    return torch.where(there, math.log(STEP) - near + (-torch.expm1(-between)).log(), -torch.inf)


class QuantileSpline(Emission):
    r"""A quantile function in ten pieces: any shape, several peaks and skewed ones too.

    .. math:: p(x_j \mid z) = 1 / Q_j'(a), \quad x_j = Q_j(a), \qquad Q_j(\tfrac12) = m_j, \quad
              Q_j' = s_{jk} = s_0 + \mathrm{softplus}\, v_{jk}, \qquad p \le 1 / s_0

    and 10 s_0 in the place of s_0 in the tails, whose scale is a tenth of their slope.
    For the objective "crps", which has no use for the density and is bounded; the density is unbounded where a slope
    falls, unless s_0 is above 0. An & Jeon (2023), DistVAE, https://arxiv.org/abs/2302.11294, in whose code slopes rise
    from piece to piece, so that every density falls from its left end on; Gasthaus et al. (2019),
    https://proceedings.mlr.press/v89/gasthaus19a.html, for slopes of any order; Park et al. (2022),
    https://arxiv.org/abs/2111.06581, for exponential tails.

    Args:
        smallest: s_0, a slope; 0 for none, and no bound.

    >>> QuantileSpline(0.1)(torch.zeros(4, 11, 3)).log_prob(torch.zeros(3)).shape
    torch.Size([4, 3])
    """

    outputs = 1 + PIECES

    def __init__(self, smallest: float = 0.0) -> None:
        super().__init__()
        self.smallest = smallest

    def forward(self, parameters: Tensor) -> dist.TorchDistribution:
        """From (m, v_0, ..., v_9), (..., 11, d)."""
        median, v = parameters[..., 0, :], parameters[..., 1:, :]
        return PiecewiseQuantiles(median, self._least.to(v) + nn.functional.softplus(v).movedim(-2, -1))

    @property
    def _least(self) -> Tensor:
        """The smallest slopes: of a tail ten times those inside, with which its scale is s_0."""
        inside = torch.full((PIECES - 2,), self.smallest)
        tail = torch.full((1,), PIECES * self.smallest)
        return torch.cat([tail, inside, tail])

    def start(self, x: Tensor) -> Tensor:
        """The quantiles of a standard normal, which standardised columns are about."""
        normal = dist.Normal(x.new_zeros(()), 1.0)
        knots = normal.icdf(torch.arange(1, PIECES).to(x) * STEP)
        of_tail = PIECES * normal.log_prob(knots[:1]).exp() + knots[:1]  # how far beyond a knot the mean of the rest is
        slopes = torch.cat([of_tail * PIECES, knots.diff() * PIECES, of_tail * PIECES])
        excess = (slopes - self._least.to(x)).clamp(min=LEAST)
        v = excess + (-torch.expm1(-excess)).log()
        return torch.cat([x.new_zeros(1), v])[:, None].expand(-1, x.shape[1])

    def log_density_bound(self) -> float:
        """-log s_0, infinite without s_0."""
        return -math.log(self.smallest) if self.smallest else math.inf
