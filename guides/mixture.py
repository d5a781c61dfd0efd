"""A mixture of normals as a guide, with differentiable draws."""

import math
from typing import Any, ClassVar

import pyro.distributions as dist
import torch
from torch import Tensor, nn
from torch.distributions import constraints
from torch.nn import functional

from .amortized import Amortized

__all__ = ["MixtureNormal", "NormalMixture"]

LOG_ROOT_TAU = math.log(2 * math.pi) / 2
LARGEST = 40.0  # logarithm of how far a gradient takes a draw: its square is a number in single precision


class NormalMixture(dist.MixtureSameFamily):  # type: ignore[misc]
    r"""A mixture of diagonal normals, with pathwise gradients of its draws.

    .. math:: q(z) = \sum_c \pi_c \prod_j N_{cj}(z_j), \qquad N_{cj} \text{ of mean } m_{cj} \text{ and scale } s_{cj}

    As the mixture changes, its draws move so that they remain draws of the mixture: q dz is the flow of mass. A
    component moves a draw in proportion to the probability that the draw is its own, and mass gained by a weight flows
    along one coordinate after another, which needs no inverse and no order of the components:

    .. math:: dz_j = \sum_c \frac{\pi_c N_c}{q} \left( dm_{cj} + \frac{z_j - m_{cj}}{s_{cj}} ds_{cj} \right)
              - \sum_{c, d} d \log \pi_c \, \frac{\pi_c \pi_d}{q} \prod_{i < j} N_{ci} \prod_{i > j} N_{di}
              \, (\Phi_{cj} - \Phi_{dj})

    With L = 1 these are the implicit gradients of Figurnov, Mohamed & Mnih (2018), https://arxiv.org/abs/1805.08498.
    With more, theirs mix the effects of coordinates and vary so much that training fails: here means and scales are
    treated as in Jankowiak & Karaletsos (2019), https://arxiv.org/abs/1806.01856.

    The further apart components are, the more the gradient of a weight varies, since mass has to flow through the space
    between them. It is kept finite. Second derivatives through draws are wrong.

    Args:
        logits: logits of the weights, (..., C).
        mean: means, (..., C, L).
        scale: standard deviations, (..., C, L).
    """

    arg_constraints: ClassVar[dict[str, Any]] = {}
    support = constraints.real_vector
    has_rsample = True

    def __init__(self, logits: Tensor, mean: Tensor, scale: Tensor, validate_args: bool | None = None) -> None:
        components = dist.Normal(mean, scale, validate_args=validate_args).to_event(1)
        super().__init__(dist.Categorical(logits=logits), components, validate_args=validate_args)
        self.logits, self.means, self.scales = self.mixture_distribution.logits, mean, scale

    def expand(self, batch_shape: Any, _instance: Any = None) -> "NormalMixture":
        """The same for a larger batch."""
        shape, each = torch.Size(batch_shape), self.means.shape[-2:]
        logits, mean, scale = (self.logits.expand(*shape, each[0]), *(t.expand(*shape, *each) for t in self._normals))
        return NormalMixture(logits, mean, scale, validate_args=self._validate_args)

    def sample(self, sample_shape: Any = ()) -> Tensor:
        """Draws without a gradient."""
        with torch.no_grad():
            return self.rsample(sample_shape)

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        """Draws (*sample_shape, ..., L): a component by one uniform number, then a normal."""
        shape = self._extended_shape(torch.Size(sample_shape))
        uniform = torch.rand(shape[:-1], dtype=self.means.dtype, device=self.means.device)
        normal = torch.randn(shape, dtype=self.means.dtype, device=self.means.device)
        upto = self.logits.detach().exp().cumsum(-1)[..., :-1]
        component = (uniform[..., None] > upto).sum(-1)[..., None, None].expand(*shape[:-1], 1, shape[-1])
        mean, scale = (
            t.detach().expand(*shape[:-1], *t.shape[-2:]).gather(-2, component)[..., 0, :] for t in self._normals
        )
        return self._attached(mean + scale * normal)

    @property
    def _normals(self) -> tuple[Tensor, Tensor]:
        return self.means, self.scales

    def _attached(self, z: Tensor) -> Tensor:
        """The same draws (..., L), with their gradient."""
        residual = ((z[..., None, :] - self.means) / self.scales).detach()
        log_density = -residual.square() / 2 - (self.scales.detach().log() + LOG_ROOT_TAU)
        log_weight = self.logits.detach()[..., None]
        log_joint = log_weight + log_density.sum(-1, keepdim=True)
        share: Tensor = log_joint.softmax(-2)
        along = self.means - self.means.detach() + residual * (self.scales - self.scales.detach())

        log_before = log_weight + _sum_before(log_density)
        log_after = log_weight + _sum_before(log_density.flip(-1)).flip(-1)
        log_over = log_before + log_after.logsumexp(-2, keepdim=True) - log_joint.logsumexp(-2, keepdim=True)
        weight = log_after.softmax(-2)
        # 1 - Phi has the same differences up to sign, and more digits where it is smaller
        below = (weight * torch.special.ndtr(residual)).sum(-2, keepdim=True) < 0.5
        side = torch.where(below, 1.0, -1.0).to(z)
        tail = side * torch.special.ndtr(side * residual)
        apart = tail - (weight * tail).sum(-2, keepdim=True)
        gained: Tensor = (self.logits - self.logits.detach())[..., None] * log_over.clamp(max=LARGEST).exp() * apart
        return z + (share * along - gained).sum(-2)


class MixtureNormal(Amortized):
    r"""A mixture of diagonal normals whose means, scales and weights an encoder computes from the datum.

    .. math:: q(z \mid x) = \sum_c \pi_c(x) \, N(z; \rho u_c + m_c(x), \sigma^2 \mathrm{diag}\, s_c^2(x)), \qquad
              \pi = \mathrm{softmax}(a(x)), \quad \sigma = C^{-1/L}, \quad \rho^2 = 1 - \sigma^2

    with points u_c spread like N(0, I). If the encoder gives zeros, the mixture is nearly N(0, I), in C parts just wide
    enough to fill it: parts that began as one would stay together and never find a second mode.

    Morningstar et al. (2021), Automatic Differentiation Variational Inference with Mixtures,
    https://arxiv.org/abs/2003.01687

    Args:
        encoder: maps x (..., D) to C rows m_c, C rows log s_c^2, and enough rows for the C numbers a.
        components: C.
    """

    def __init__(self, encoder: nn.Module, components: int) -> None:
        super().__init__(encoder)
        self.components = components

    @staticmethod
    def outputs(latent_dim: int, components: int) -> int:
        """How many rows of length L the encoder gives."""
        return 2 * components + math.ceil(components / latent_dim)

    def distribution(self, numbers: Tensor) -> dist.TorchDistribution:
        """The mixture."""
        mean, logits = numbers[..., : self.components, :], numbers[..., 2 * self.components :, :]
        scale = self._scale(numbers)
        width = math.pow(self.components, -1 / mean.shape[-1])
        place = math.sqrt(1 - width**2) * _spread(mean, self.components)
        return NormalMixture(logits.flatten(-2)[..., : self.components], place + mean, scale)

    def units(self, numbers: Tensor) -> Tensor:
        """The scales for the means, and one."""
        return torch.cat([self._scale(numbers), torch.ones_like(numbers[..., self.components :, :])], dim=-2)

    def _scale(self, numbers: Tensor) -> Tensor:
        log_variance = numbers[..., self.components : 2 * self.components, :]
        return math.pow(self.components, -1 / numbers.shape[-1]) * (log_variance / 2).exp()


def _spread(like: Tensor, count: int) -> Tensor:
    """``count`` points, (count, L), spread as evenly as possible for N(0, I): multiples of a generalised golden ratio.

    Roberts (2018), https://extremelearning.com.au/unreasonable-effectiveness-of-quasirandom-sequences
    """
    dimensions, ratio = like.shape[-1], 2.0
    for _ in range(64):
        ratio = (1 + ratio) ** (1 / (dimensions + 1))
    first, one = torch.arange(1, count + 1, device=like.device), torch.arange(1, dimensions + 1, device=like.device)
    uniform = (0.5 + first[:, None] * torch.pow(ratio, -one.double())) % 1
    points: Tensor = torch.special.ndtri(uniform)
    return points.to(like)


def _sum_before(each: Tensor) -> Tensor:
    """Sums over the entries to the left, not as a difference of larger sums, which would be rounding error."""
    return functional.pad(each[..., :-1].cumsum(-1), (1, 0))
