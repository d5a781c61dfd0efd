"""Coupling layers of monotone rational-quadratic splines, which any number of seeds can be run through at once."""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, ClassVar

import pyro.distributions as dist
import torch
from torch import Tensor, nn
from torch.distributions import constraints
from torch.nn import functional

__all__ = ["BINS", "REACH", "Coupled", "Coupling", "spline"]

BINS, REACH = 8, 5.0  # knots go from -REACH to REACH; beyond, a spline is the identity
LEAST = 1e-3  # share of a bin's width and height, and slope at a knot
START = 0.01  # what a last layer's weights are multiplied by: near the identity


class Constant(nn.Module):
    """The same numbers for every z: what a network is that sees nothing."""

    def __init__(self, outputs: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.randn(outputs))

    def forward(self, z: Tensor) -> Tensor:
        """(..., 0) to (..., outputs)."""
        return self.bias.expand(*z.shape[:-1], -1)


class Coupling(nn.Module):
    """A layer that moves some latents by splines that the others decide, and puts them first.

    Args:
        latent_dim: L, of which the first L // 2 stay.
        hidden: widths of the hidden layers of the network from these to the splines' numbers.
    """

    def __init__(self, latent_dim: int, hidden: tuple[int, ...]) -> None:
        super().__init__()
        self.stay, self.move = latent_dim // 2, latent_dim - latent_dim // 2
        outputs = self.move * (3 * BINS - 1)
        layers: list[nn.Module] = []
        for fan_in, fan_out in pairwise((self.stay, *hidden)) if self.stay else ():
            layers += [nn.Linear(fan_in, fan_out), nn.Tanh()]
        self.trunk = nn.Sequential(*layers)
        self.last = nn.Linear((self.stay, *hidden)[-1], outputs) if self.stay else Constant(outputs)
        self._shrink(START)

    def flatten(self) -> None:
        """Make every spline the identity."""
        self._shrink(0.0)

    @torch.no_grad()
    def _shrink(self, factor: float) -> None:
        for parameter in self.last.parameters():
            parameter.mul_(factor)

    def _numbers(self, stay: Tensor) -> Tensor:
        return self.last(self.trunk(stay)).unflatten(-1, (self.move, 3 * BINS - 1))  # type: ignore[no-any-return]

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Move z (..., L), with the log determinant of the Jacobian, (...)."""
        stay, move = z.split((self.stay, self.move), dim=-1)
        moved, log_slope = spline(move, self._numbers(stay))
        return torch.cat([moved, stay], dim=-1), log_slope.sum(-1)

    def inverse(self, u: Tensor) -> Tensor:
        """Where in z (..., L) what was moved came from."""
        moved, stay = u.split((self.move, self.stay), dim=-1)
        move, _ = spline(moved, self._numbers(stay), inverse=True)
        return torch.cat([stay, move], dim=-1)


class Coupled(dist.TorchDistribution):  # type: ignore[misc]
    """The distribution of z whose image under coupling layers is that of a base.

    Args:
        base: event shape (L,).
        layers: from z to the base, the first first.
    """

    arg_constraints: ClassVar[dict[str, Any]] = {}
    support = constraints.real_vector
    has_rsample = True

    def __init__(self, base: dist.TorchDistribution, layers: Sequence[Coupling]) -> None:
        self.base, self.layers = base, layers
        super().__init__(base.batch_shape, base.event_shape, validate_args=False)

    def expand(self, batch_shape: Any, _instance: Any = None) -> "Coupled":
        """The same for a larger batch."""
        return Coupled(self.base.expand(batch_shape), self.layers)

    def log_prob(self, z: Tensor) -> Tensor:
        """The log density of z (..., L)."""
        log_determinants = []
        for layer in self.layers:
            z, log_determinant = layer(z)
            log_determinants.append(log_determinant)
        density: Tensor = self.base.log_prob(z) + sum(log_determinants)
        return density

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        """Draws of z."""
        z: Tensor = self.base.rsample(torch.Size(sample_shape))
        for layer in reversed(self.layers):
            z = layer.inverse(z)
        return z


def spline(x: Tensor, numbers: Tensor, *, inverse: bool = False) -> tuple[Tensor, Tensor]:
    r"""A monotone function of each number that is a ratio of two quadratics in every bin, and its log slope.

    .. math:: y = y_0 + \frac{h \, (s t^2 + d_0 t (1 - t))}{s + (d_0 + d_1 - 2 s) t (1 - t)}, \qquad
              t = \frac{x - x_0}{w}, \quad s = \frac{h}{w}

    for a bin of width w and height h at (x_0, y_0) with slopes d_0 and d_1 at its ends; the identity where all numbers
    are 0, and beyond the bins. No part of x is picked by a mask of it, so that the function can be run for several
    seeds at once. Gregory & Delbourgo (1982), https://doi.org/10.1093/imanum/2.2.123

    Args:
        x: shape (...).
        numbers: what makes the bins, (..., 3 BINS - 1).
        inverse: the inverse function, and minus its log slope.
    """
    widths, heights, slopes = numbers.split((BINS, BINS, BINS - 1), dim=-1)
    of_x, of_y = _knots(widths), _knots(heights)
    slopes = LEAST + functional.softplus(slopes + math.log(math.expm1(1 - LEAST)))
    slopes = functional.pad(slopes, (1, 1), value=1.0)
    given, x = x, x.clamp(-REACH, REACH)  # gradients have to be finite beyond, too, for `where` to leave them out
    at = (x[..., None] >= (of_y if inverse else of_x)[..., 1:-1]).sum(-1, keepdim=True)
    (x0, x1), (y0, y1), (d0, d1) = (
        (knots.gather(-1, at)[..., 0], knots.gather(-1, at + 1)[..., 0]) for knots in (of_x, of_y, slopes)
    )
    s = (y1 - y0) / (x1 - x0)
    bend = d0 + d1 - 2 * s
    if inverse:  # t is a root of a quadratic, in the form in which nothing cancels
        up = x - y0
        a, b, c = (y1 - y0) * (s - d0) + up * bend, (y1 - y0) * d0 - up * bend, -s * up
        t = 2 * c / (-b - (b.square() - 4 * a * c).clamp(min=0).sqrt())
        y = x0 + t * (x1 - x0)
    else:
        t = (x - x0) / (x1 - x0)
        y = y0 + (y1 - y0) * (s * t.square() + d0 * t * (1 - t)) / (s + bend * t * (1 - t))
    slope = d1 * t.square() + 2 * s * t * (1 - t) + d0 * (1 - t).square()
    log_slope = 2 * s.log() + slope.log() - 2 * (s + bend * t * (1 - t)).log()
    inside = given.abs() < REACH
    return torch.where(inside, y, given), torch.where(inside, log_slope, 0.0)


def _knots(numbers: Tensor) -> Tensor:
    """Where bins begin and end, from -REACH to REACH, (..., BINS + 1)."""
    shares = LEAST + (1 - BINS * LEAST) * numbers.softmax(-1)
    return REACH * (2 * functional.pad(shares.cumsum(-1), (1, 0)) - 1)
