"""The base of guides whose parameters an encoder computes from the datum."""

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn

__all__ = ["Amortized"]


class Amortized(nn.Module):
    r"""A family of distributions over z, and an encoder that picks one of them for each datum.

    .. math:: q(z \mid x) = \mathrm{distribution}(\mathrm{encoder}(x))

    A subclass writes ``distribution(numbers)`` and the static ``outputs(latent_dim, ...)``: how many rows of length L
    the encoder gives. For parameters that are optimised rather than encoded, ``units(numbers)`` may say how far each
    moves in a step.

    Kingma & Welling (2014), https://arxiv.org/abs/1312.6114

    Args:
        encoder: maps x (..., D) to numbers (..., outputs, L).
    """

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder

    def distribution(self, numbers: Tensor) -> dist.TorchDistribution:
        """The member of the family with these numbers, (..., outputs, L): batch shape (...), event shape (L,)."""
        raise NotImplementedError(f"{type(self).__name__} has no distribution(numbers)")

    def units(self, numbers: Tensor) -> Tensor:
        """How far each of the numbers (..., outputs, L) can move before the distribution changes, in their shape.

        The scale of the distribution for a number that shifts draws, and one for a logarithm.
        """
        return torch.ones_like(numbers)

    def numbers(self, x: Tensor) -> Tensor:
        """The numbers of each datum of x (B, D)."""
        of_data: Tensor = self.encoder(x)
        return of_data

    def forward(self, x: Tensor) -> None:
        """Declare q(z | x) for x of shape (B, D)."""
        numbers = self.numbers(x)
        with pyro.plate("data", len(x), dim=-1):
            pyro.sample("z", self.distribution(numbers))
