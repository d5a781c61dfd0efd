"""VAEs whose precisions have a prior that depends on z, or on data: mixtures of gammas."""

import math
from typing import Any

import pyro.distributions as dist
import torch
from pyro import poutine
from torch import Tensor, nn

from .emissions import Emission, GammaPrecision
from .vae import VAE

__all__ = ["MixturePrecisionVAE", "PrecisionVAE", "PseudoPrecisionVAE"]

GRID = (0.05, 0.1, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0)  # of shapes and of rates, in the authors' code
LEAST_RATE = 1e-3  # of a pseudo-input's gamma, as there
HIDDEN = 10


class PrecisionVAE(VAE):
    r"""A VAE with a mixture of gammas as the prior of its precisions; all columns share the component.

    .. math:: p(\lambda \mid z) = \sum_k \pi_k(z) \prod_j \mathrm{Gamma}(\lambda_j; a_{kj}, b_{kj})

    The objective "variational-variance" uses it through :meth:`log_precision_prior`. It does not enter the density
    p(x | z), which integrates the precisions out under their posterior. Stirn & Knowles (2020),
    https://arxiv.org/abs/2006.04910
    """

    def components(self, z: Tensor, guide: Any) -> tuple[Tensor, Tensor, Tensor]:
        """Log pi, (B, K) or (K,), and a and b, (K, D) or (K, 1), for z of shape (B, L)."""
        raise NotImplementedError

    def log_precision_prior(self, precision: Tensor, there: Tensor, z: Tensor, guide: Any) -> Tensor:
        """Log p(precision | z), (B,), for precisions (B, D), of the entries that are observed (``there``)."""
        log_weights, shape, rate = self.components(z, guide)
        each = dist.Gamma(shape, rate, validate_args=False).log_prob(precision[:, None])
        return (log_weights + torch.where(there[:, None], each, 0.0).sum(-1)).logsumexp(-1)


class MixturePrecisionVAE(PrecisionVAE):
    r"""The prior "VBEM": gammas with given shapes and rates, or learned ones for each column; z decides their weights.

    Args:
        decoder: maps z of shape (..., L) to the numbers that the emission takes, (..., outputs, D).
        latent_dim: L.
        emission: the :class:`~zoo.models.emissions.GammaPrecision` of those.
        learned: the numbers of components and columns, (K, D), to learn shapes and rates ("VBEM*"); None for a fixed
            grid of 144 components, the same for all columns.
    """

    def __init__(
        self, decoder: nn.Module, latent_dim: int, emission: Emission, *, learned: tuple[int, int] | None = None
    ) -> None:
        super().__init__(decoder, latent_dim, emission)
        if learned:
            self.gammas = nn.Parameter(torch.rand(2, *learned) * 6 - 3)
        else:
            grid = torch.cartesian_prod(torch.tensor(GRID), torch.tensor(GRID))
            self.register_buffer("gammas", grid.T[..., None].expm1().log())
        layers = nn.Linear(latent_dim, HIDDEN), nn.ELU(), nn.Linear(HIDDEN, HIDDEN), nn.ELU()
        self.weights = nn.Sequential(*layers, nn.Linear(HIDDEN, self.gammas.shape[1]))

    def components(self, z: Tensor, guide: Any) -> tuple[Tensor, Tensor, Tensor]:  # noqa: ARG002
        """By a small network, and the softplus of numbers."""
        shape, rate = nn.functional.softplus(self.gammas).unbind()
        return self.weights(z).log_softmax(-1), shape, rate


class PseudoPrecisionVAE(PrecisionVAE):
    r"""The prior "VAMP": the precisions' posteriors for some training rows, equally likely, whatever z is.

    Args:
        decoder: maps z of shape (..., L) to the numbers that the emission takes, (..., outputs, D).
        latent_dim: L.
        emission: the :class:`~zoo.models.emissions.GammaPrecision` of those.
        rows: the numbers of training rows and of columns, (K, D).
    """

    pseudo: Tensor

    def __init__(self, decoder: nn.Module, latent_dim: int, emission: GammaPrecision, rows: tuple[int, int]) -> None:
        super().__init__(decoder, latent_dim, emission)
        self.register_buffer("pseudo", torch.zeros(rows))

    @torch.no_grad()
    def initialise(self, x: Tensor) -> None:
        """Choose rows of the training part, shape (N, D), at random; if N < K, some twice."""
        super().initialise(x)
        chosen = torch.randperm(len(x), device=x.device)
        self.pseudo.copy_(x[chosen[torch.arange(len(self.pseudo), device=x.device) % len(x)]])

    def components(self, z: Tensor, guide: Any) -> tuple[Tensor, Tensor, Tensor]:  # noqa: ARG002
        """From one draw of each row's latents."""
        drawn = poutine.trace(guide).get_trace(self.pseudo).nodes["z"]["value"]
        fn: Any = self.likelihood(drawn)
        shape = fn.base_dist.df / 2
        rate = shape * fn.base_dist.scale.square() + LEAST_RATE
        return torch.full_like(shape[:, 0], -math.log(len(shape))), shape, rate
