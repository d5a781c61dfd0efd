"""Amortised Gaussian guides."""

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn

__all__ = ["FullRankNormal", "MeanFieldNormal"]


class MeanFieldNormal(nn.Module):
    r"""Independent normals whose parameters an encoder reads off the datum.

    .. math:: q(z \mid x) = N(z; m(x), \mathrm{diag}\, s^2(x)), \qquad (m, \log s^2)(x) = \mathrm{encoder}(x)

    Kingma & Welling (2014), https://arxiv.org/abs/1312.6114

    Args:
        encoder: maps x (..., D) to (m, log s^2), shape (..., 2, L).
    """

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder

    @staticmethod
    def outputs(latent_dim: int) -> int:  # noqa: ARG004
        """How many rows of length L the encoder gives."""
        return 2

    def forward(self, x: Tensor) -> None:
        """Declare q(z | x) for x of shape (B, D)."""
        mean, log_variance = self.encoder(x).unbind(-2)
        with pyro.plate("data", len(x), dim=-1):
            pyro.sample("z", dist.Normal(mean, (log_variance / 2).exp()).to_event(1))


class FullRankNormal(nn.Module):
    r"""A normal with a full covariance, so that latents may be correlated given the datum.

    .. math:: q(z \mid x) = N(z; m(x), T(x) T(x)'), \qquad T \text{ lower triangular}, \quad T_{ll} > 0

    Args:
        encoder: maps x (..., D) to m and the rows of T with the diagonal in logs, shape (..., 1 + L, L).
    """

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder

    @staticmethod
    def outputs(latent_dim: int) -> int:
        """How many rows of length L the encoder gives."""
        return 1 + latent_dim

    def forward(self, x: Tensor) -> None:
        """Declare q(z | x) for x of shape (B, D)."""
        parameters = self.encoder(x)
        mean, rows = parameters[..., 0, :], parameters[..., 1:, :]
        diagonal = rows.diagonal(dim1=-2, dim2=-1).exp()
        scale_tril = rows.tril(-1) + torch.diag_embed(diagonal)
        with pyro.plate("data", len(x), dim=-1):
            pyro.sample("z", dist.MultivariateNormal(mean, scale_tril=scale_tril))
