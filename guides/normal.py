"""Amortised Gaussian guides."""

import pyro.distributions as dist
import torch
from torch import Tensor, nn

from .amortized import Amortized

__all__ = ["FullRankNormal", "LowRankNormal", "MeanFieldNormal"]


class MeanFieldNormal(Amortized):
    r"""Independent normals whose parameters an encoder computes from the datum.

    .. math:: q(z \mid x) = N(z; m(x), \mathrm{diag}\, s^2(x)), \qquad (m, \log s^2)(x) = \mathrm{encoder}(x)

    Kingma & Welling (2014), https://arxiv.org/abs/1312.6114

    Args:
        encoder: maps x (..., D) to (m, log s^2), shape (..., 2, L).
    """

    @staticmethod
    def outputs(latent_dim: int) -> int:  # noqa: ARG004
        """How many rows of length L the encoder gives."""
        return 2

    def distribution(self, numbers: Tensor) -> dist.TorchDistribution:
        """N(m, diag s^2)."""
        mean, log_variance = numbers.unbind(-2)
        return dist.Normal(mean, (log_variance / 2).exp()).to_event(1)

    def units(self, numbers: Tensor) -> Tensor:
        """The scale s for m, and one for log s^2."""
        _, log_variance = numbers.unbind(-2)
        return torch.stack([(log_variance / 2).exp(), torch.ones_like(log_variance)], dim=-2)


class FullRankNormal(Amortized):
    r"""A normal with a full covariance, so that latents may be correlated given the datum.

    .. math:: q(z \mid x) = N(z; m(x), T(x) T(x)'), \qquad T \text{ lower triangular}, \quad T_{ll} > 0

    Args:
        encoder: maps x (..., D) to m and the rows of T with the diagonal in logs, shape (..., 1 + L, L).
    """

    @staticmethod
    def outputs(latent_dim: int) -> int:
        """How many rows of length L the encoder gives."""
        return 1 + latent_dim

    def distribution(self, numbers: Tensor) -> dist.TorchDistribution:
        """N(m, T T')."""
        return dist.MultivariateNormal(numbers[..., 0, :], scale_tril=self._factor(numbers))

    def units(self, numbers: Tensor) -> Tensor:
        """The deviation of z_l given all others, for m_l and for what is below the diagonal in row l, and one."""
        factor = self._factor(numbers)
        identity = torch.eye(factor.shape[-1], dtype=factor.dtype, device=factor.device)
        inverse = torch.linalg.solve_triangular(factor, identity.expand_as(factor), upper=False)
        deviation = inverse.square().sum(-2).rsqrt()
        rows = deviation[..., None] * (1 - identity) + identity
        return torch.cat([deviation[..., None, :], rows], dim=-2)

    def _factor(self, numbers: Tensor) -> Tensor:
        rows = numbers[..., 1:, :]
        diagonal = rows.diagonal(dim1=-2, dim2=-1).exp()
        return rows.tril(-1) + torch.diag_embed(diagonal)


class LowRankNormal(Amortized):
    r"""Independent normals and a few directions in which the latents vary together.

    .. math:: q(z \mid x) = N(z; m(x), \mathrm{diag}\, s^2(x) + U(x) U(x)'), \qquad U \in R^{L \times R}

    Rezende, Mohamed & Wierstra (2014), section 4.3, https://arxiv.org/abs/1401.4082, with rank 1; Ong, Nott & Smith
    (2018), https://arxiv.org/abs/1701.03208

    Args:
        encoder: maps x (..., D) to m, log s^2 and the columns of U, shape (..., 2 + R, L).
        rank: R.
    """

    def __init__(self, encoder: nn.Module, rank: int) -> None:
        super().__init__(encoder)
        self.rank = rank

    @staticmethod
    def outputs(latent_dim: int, rank: int) -> int:  # noqa: ARG004
        """How many rows of length L the encoder gives."""
        return 2 + rank

    def distribution(self, numbers: Tensor) -> dist.TorchDistribution:
        """N(m, diag s^2 + U U')."""
        mean, log_variance = numbers[..., 0, :], numbers[..., 1, :]
        return dist.LowRankMultivariateNormal(mean, numbers[..., 2:, :].mT, log_variance.exp())

    def units(self, numbers: Tensor) -> Tensor:
        """The scale s for m and each column of U: z_l given all others varies by at least that; and one for log s^2."""
        scale = (numbers[..., 1:2, :] / 2).exp()
        return torch.cat([scale, torch.ones_like(scale), scale.expand_as(numbers[..., 2:, :])], dim=-2)
