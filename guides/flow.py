"""Normalizing flows as guides: an autoregressive one, and one of splines.

They are written here because Pyro's splines cannot be vmapped over seeds, and importing zuko turns off the validation
of torch.distributions for the whole process.
"""

import math
from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor, nn
from torch.distributions import Transform, constraints
from torch.distributions.transforms import AffineTransform
from torch.nn import functional

from .amortized import Amortized

__all__ = ["InverseAutoregressive", "SplineFlow", "SplineLayer"]

SMALL = 0.01  # factor on a layer's last weights at the start, so that it begins near the identity


class Flow(Transform):
    """Layers in sequence, which remember their Jacobian at the last input and compute it elsewhere."""

    domain = codomain = constraints.real_vector
    bijective = True

    _cached_x_y: tuple[Any, Any]

    def __init__(self, layers: Any, context: Tensor) -> None:
        super().__init__(cache_size=1)
        self.layers, self.context = layers, context
        self.log_det: Tensor = torch.zeros(())

    def _call(self, x: Tensor) -> Tensor:
        self.log_det = x.new_zeros(())
        for layer in self.layers:
            x, log_det = layer(x, self.context)
            self.log_det = self.log_det + log_det
        return x

    def _inverse(self, y: Tensor) -> Tensor:
        self.log_det = y.new_zeros(())
        for layer in reversed(self.layers):
            y, log_det = layer.inverse(y, self.context)
            self.log_det = self.log_det + log_det
        return y

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        """Log |dy / dx|, (...)."""
        last_x, last_y = self._cached_x_y
        if x is not last_x or y is not last_y:
            self._call(x)
            self._cached_x_y = x, y
        return self.log_det


class FlowGuide(Amortized):
    r"""The base of flows: noise is transformed, then scaled and shifted by the datum.

    .. math:: z = m(x) + s(x) \odot (f_T \circ \dots \circ f_1)(\varepsilon; h(x)), \qquad \varepsilon \sim N(0, I)

    Each f begins near the identity, so the guide begins as the independent normals of m and s. Since m and s come last,
    not first as in Kingma et al. (2016), each f sees numbers of size one however narrow q is.

    Args:
        encoder: maps x (..., D) to m, log s^2 and the H numbers h, in as many rows of length L as needed.
        layers: T modules from (u, h), (..., L) and (..., H), to f(u) and log |df / du|, with an ``inverse``.
    """

    def __init__(self, encoder: nn.Module, layers: list[nn.Module]) -> None:
        super().__init__(encoder)
        self.layers = nn.ModuleList(layers)

    @staticmethod
    def outputs(latent_dim: int, hidden: int) -> int:
        """How many rows of length L the encoder gives."""
        return 2 + math.ceil(hidden / latent_dim)

    def distribution(self, numbers: Tensor) -> dist.TorchDistribution:
        """The noise, transformed, scaled and shifted."""
        mean, log_variance, context = numbers[..., 0, :], numbers[..., 1, :], numbers[..., 2:, :].flatten(-2)
        noise = dist.Normal(torch.zeros_like(mean), torch.ones_like(mean)).to_event(1)
        place = AffineTransform(mean, (log_variance / 2).exp(), event_dim=1, cache_size=1)
        return dist.TransformedDistribution(noise, [Flow(self.layers, context), place])

    def units(self, numbers: Tensor) -> Tensor:
        """The scale s for m, and one for the others."""
        scale = (numbers[..., 1:2, :] / 2).exp()
        return torch.cat([scale, torch.ones_like(numbers[..., 1:, :])], dim=-2)


# -- autoregressive ----------------------------------------------------------------------------------------------------


class MaskedLinear(nn.Linear):
    """A linear layer with weights only under a mask, (outputs, inputs)."""

    mask: Tensor

    def __init__(self, mask: Tensor) -> None:
        super().__init__(mask.shape[1], mask.shape[0])
        self.register_buffer("mask", mask.to(self.weight))

    def forward(self, x: Tensor) -> Tensor:
        """(..., inputs) to (..., outputs)."""
        return functional.linear(x, self.weight * self.mask, self.bias)


class AutoregressiveLayer(nn.Module):
    r"""Each number is shifted and scaled by a network of the previous ones; then their order is reversed.

    .. math:: f(u)_{L+1-j} = b_j + 2 \sigma(a_j) \, u_j, \qquad (b, a)_j = \mathrm{network}_j(u_{<j}, h)

    Numbers at most double, which keeps many layers from growing without bound. The network has two layers of masked
    weights: Germain et al. (2015), MADE, https://arxiv.org/abs/1502.03509

    Args:
        latent_dim: L.
        hidden: width of the hidden layers.
        context: H.
    """

    def __init__(self, latent_dim: int, hidden: int, context: int) -> None:
        super().__init__()
        place = torch.arange(latent_dim)
        sees = torch.arange(hidden) % latent_dim  # how many of the first numbers each unit sees
        self.first = MaskedLinear(sees[:, None] > place)
        self.context = nn.Linear(context, hidden, bias=False)
        self.second = MaskedLinear(sees[:, None] >= sees)
        self.last = MaskedLinear((place[:, None] >= sees).repeat(2, 1))
        with torch.no_grad():
            for parameter in self.last.parameters():
                parameter.mul_(SMALL)

    def forward(self, u: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        """f(u) and log |df / du| for u (..., L)."""
        shift, log_scale = self._numbers(u, self.context(context))
        return (shift + log_scale.exp() * u).flip(-1), log_scale.sum(-1)

    def inverse(self, y: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        """The input u and log |df / du| for y = f(u), (..., L), a number at a time: L passes through the network."""
        context, y = self.context(context), y.flip(-1)
        u = torch.zeros_like(y)
        for _ in range(y.shape[-1]):
            shift, log_scale = self._numbers(u, context)
            u = (y - shift) / log_scale.exp()
        return u, log_scale.sum(-1)

    def _numbers(self, u: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        hidden = functional.silu(self.first(u) + context)
        shift, scale = self.last(functional.silu(self.second(hidden))).chunk(2, dim=-1)
        return shift, math.log(2) + functional.logsigmoid(scale)


class InverseAutoregressive(FlowGuide):
    r"""An inverse autoregressive flow: draws and their density in one pass, the density elsewhere in L.

    .. math:: z = m(x) + s(x) \odot (f_T \circ \dots \circ f_1)(\varepsilon; h(x)), \qquad \varepsilon \sim N(0, I)

    with f an :class:`AutoregressiveLayer`. Affine in each number given the previous ones: with L = 1 it is a normal.

    Kingma et al. (2016), Improving Variational Inference with Inverse Autoregressive Flow,
    https://arxiv.org/abs/1606.04934

    Args:
        encoder: maps x (..., D) to m, log s^2 and at least ``hidden`` numbers h, in rows of length L.
        latent_dim: L.
        layers: T.
        hidden: width of each layer's network.
    """

    def __init__(self, encoder: nn.Module, latent_dim: int, layers: int, hidden: int) -> None:
        context = latent_dim * (self.outputs(latent_dim, hidden) - 2)
        super().__init__(encoder, [AutoregressiveLayer(latent_dim, hidden, context) for _ in range(layers)])


# -- splines -----------------------------------------------------------------------------------------------------------


class SplineLayer(nn.Module):
    r"""Half of the numbers are transformed by splines from a network of the other half; then the halves swap.

    .. math:: f(u_a, u_b) = (g_{\theta}(u_b), u_a), \qquad \theta = \mathrm{network}(u_a, h)

    g is increasing, a quotient of quadratics between knots on [-B, B] and the identity beyond; each piece takes at
    least 0.001 of 2B in both directions, and the slope at a knot is at least 0.001. With L = 1, u_a is empty.

    Args:
        latent_dim: L.
        hidden: width of the network's two hidden layers.
        bins: K, pieces of a spline.
        context: H.
    """

    bound = 5.0  # B
    least = 1e-3

    def __init__(self, latent_dim: int, hidden: int, bins: int, context: int) -> None:
        super().__init__()
        self.kept, self.bins = latent_dim // 2, bins
        self.moved = latent_dim - self.kept
        last = nn.Linear(hidden, self.moved * (3 * bins - 1))
        with torch.no_grad():
            for parameter in last.parameters():
                parameter.mul_(SMALL)
        self.network = nn.Sequential(
            nn.Linear(self.kept + context, hidden), nn.SiLU(), nn.Linear(hidden, hidden), nn.SiLU(), last
        )

    @torch.no_grad()
    def reset(self) -> None:
        """Make every spline the identity."""
        for parameter in self.network[-1].parameters():
            parameter.zero_()

    def forward(self, u: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        """f(u) and log |df / du| for u (..., L)."""
        kept, moved = u.split([self.kept, self.moved], dim=-1)
        moved, log_slope = self._bent(moved, *self._knots(kept, context), inverse=False)
        return torch.cat([moved, kept], dim=-1), log_slope.sum(-1)

    def inverse(self, y: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        """The input u and log |df / du| for y = f(u), (..., L)."""
        moved, kept = y.split([self.moved, self.kept], dim=-1)
        moved, log_slope = self._bent(moved, *self._knots(kept, context), inverse=True)
        return torch.cat([kept, moved], dim=-1), log_slope.sum(-1)

    def _knots(self, kept: Tensor, context: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Knots (x, y) and slopes there, (..., moved, K + 1) each."""
        context = context.expand(*kept.shape[:-1], context.shape[-1])
        theta = self.network(torch.cat([kept, context], dim=-1)).unflatten(-1, (self.moved, 3 * self.bins - 1))
        *sizes, slopes = theta.split([self.bins, self.bins, self.bins - 1], dim=-1)
        shares = (self.least + (1 - self.bins * self.least) * size.softmax(-1) for size in sizes)
        x, y = (self.bound * (2 * functional.pad(share.cumsum(-1), (1, 0)) - 1) for share in shares)
        one = math.log(math.expm1(1 - self.least))  # so that slopes begin at one
        return x, y, functional.pad(self.least + functional.softplus(slopes + one), (1, 1), value=1.0)

    def _bent(self, value: Tensor, x: Tensor, y: Tensor, slopes: Tensor, *, inverse: bool) -> tuple[Tensor, Tensor]:
        """g, or its inverse, at values (..., moved), and the log slope of g there."""
        inside = value.abs() < self.bound
        within = torch.where(inside, value, 0.0)
        piece = (within[..., None] > (y if inverse else x)[..., 1:-1]).sum(-1, keepdim=True)
        x0, x1, y0, y1, d0, d1 = (
            ends.gather(-1, piece)[..., 0] for knots in (x, y, slopes) for ends in (knots[..., :-1], knots[..., 1:])
        )
        height, slope = y1 - y0, (y1 - y0) / (x1 - x0)
        bend = d0 + d1 - 2 * slope
        if inverse:
            rise = within - y0
            a, b, c = height * (slope - d0) + rise * bend, height * d0 - rise * bend, -slope * rise
            # only rounding makes this negative
            t = 2 * c / (-b - (b.square() - 4 * a * c).clamp(min=torch.finfo(b.dtype).tiny).sqrt())
        else:
            t = (within - x0) / (x1 - x0)
        below = slope + bend * t * (1 - t)
        bent = x0 + t * (x1 - x0) if inverse else y0 + height * (slope * t.square() + d0 * t * (1 - t)) / below
        steep = d1 * t.square() + 2 * slope * t * (1 - t) + d0 * (1 - t).square()
        log_slope = 2 * slope.log() + steep.log() - 2 * below.log()
        return torch.where(inside, bent, value), torch.where(inside, log_slope, 0.0)


class SplineFlow(FlowGuide):
    r"""A neural spline flow: couplings of rational-quadratic splines, with a density everywhere in one pass.

    .. math:: z = m(x) + s(x) \odot (f_T \circ \dots \circ f_1)(\varepsilon; h(x)), \qquad \varepsilon \sim N(0, I)

    with f a :class:`SplineLayer`, which says where its splines end and how flat they may be.

    Durkan et al. (2019), Neural Spline Flows, https://arxiv.org/abs/1906.04032

    Args:
        encoder: maps x (..., D) to m, log s^2 and at least ``hidden`` numbers h, in rows of length L.
        latent_dim: L.
        layers: T.
        hidden: width of each layer's network.
        bins: K, pieces of a spline.
    """

    def __init__(self, encoder: nn.Module, latent_dim: int, layers: int, hidden: int, bins: int) -> None:
        context = latent_dim * (self.outputs(latent_dim, hidden) - 2)
        super().__init__(encoder, [SplineLayer(latent_dim, hidden, bins, context) for _ in range(layers)])
