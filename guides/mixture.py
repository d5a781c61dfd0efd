"""A mixture of normals as a guide, whose draws have a gradient."""

import math
from typing import Any, ClassVar

import pyro.distributions as dist
import torch
from torch import Tensor, nn
from torch.distributions import constraints

from .amortized import Amortized

__all__ = ["MixtureNormal", "NormalMixture"]


class NormalMixture(dist.MixtureSameFamily):  # type: ignore[misc]
    r"""A mixture of diagonal normals, with pathwise gradients of its draws.

    .. math:: q(z) = \sum_c \pi_c \prod_j N(z_j; m_{cj}, s_{cj}^2), \qquad
              F_j(z) = \sum_c w_{cj} \, \Phi\left(\frac{z_j - m_{cj}}{s_{cj}}\right), \quad
              w_{cj} \propto \pi_c \prod_{i < j} N(z_i; m_{ci}, s_{ci}^2)

    F_j is the distribution function of z_j given those before it, so that F(z) is uniform: where the mixture moves, a
    draw moves as it must for F to stay, and which component it came from does not matter.

    .. math:: \frac{dz}{d\phi} = - \left(\frac{\partial F}{\partial z}\right)^{-1} \frac{\partial F}{\partial \phi}

    with a triangular matrix, solved for all j at once. Its diagonal, the densities of z_j given those before it, is
    kept above the smallest number there is. A weight takes mass from one component to another through all that lies
    between them: the further apart they are, the more such a gradient varies. It is right once: what a second
    derivative makes of it is not.

    Figurnov, Mohamed & Mnih (2018), Implicit Reparameterization Gradients, https://arxiv.org/abs/1805.08498

    Args:
        logits: of the weights, (..., C).
        mean: (..., C, L).
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
        residual = (z[..., None, :] - self.means) / self.scales
        log_density = -residual.square() / 2 - self.scales.log() - math.log(2 * math.pi) / 2
        weight = (self.logits[..., None] + log_density.cumsum(-1) - log_density).softmax(-2)
        below = (weight * torch.special.ndtr(residual)).sum(-2)

        # 1 - F has the same gradient but for its sign, and is the more exact of the two where it is the smaller
        side = torch.where(below.detach() < 0.5, 1.0, -1.0).to(z)
        tail = side[..., None, :] * torch.special.ndtr(side[..., None, :] * residual)
        share = (weight * tail).sum(-2)

        w, slope = weight.detach(), (-residual / self.scales).detach()  # of log N(z_i; m_ci, s_ci^2) in z_i
        density = (w * log_density.detach().exp()).sum(-2).clamp(min=torch.finfo(z.dtype).tiny)
        apart = w * (tail - share[..., None, :]).detach()
        jacobian = (apart.mT @ slope).tril(-1) / density[..., None] + torch.eye(z.shape[-1]).to(z)
        move = (share - share.detach()) / density
        moved: Tensor = torch.linalg.solve_triangular(jacobian, move[..., None], upper=False, unitriangular=True)
        return z - moved[..., 0]


class MixtureNormal(Amortized):
    r"""A mixture of diagonal normals whose means, scales and weights an encoder reads off the datum.

    .. math:: q(z \mid x) = \sum_c \pi_c(x) \, N(z; m_c(x), \mathrm{diag}\, s_c^2(x)), \qquad \pi = \mathrm{softmax}(a)

    What tells the components apart at the start is that the encoder's weights are random.

    Morningstar et al. (2021), Automatic Differentiation Variational Inference with Mixtures,
    https://arxiv.org/abs/2003.01687

    Args:
        encoder: maps x (..., D) to C rows of means, C of log s^2, and as many as hold the C numbers a.
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
        mean, log_variance = numbers[..., : 2 * self.components, :].chunk(2, dim=-2)
        logits = numbers[..., 2 * self.components :, :].flatten(-2)[..., : self.components]
        return NormalMixture(logits, mean, (log_variance / 2).exp())

    def units(self, numbers: Tensor) -> Tensor:
        """s_c for m_c, and one."""
        scale = (numbers[..., self.components : 2 * self.components, :] / 2).exp()
        return torch.cat([scale, torch.ones_like(numbers[..., self.components :, :])], dim=-2)
