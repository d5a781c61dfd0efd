"""The latent-variable model that every VAE of the zoo shares."""

import pyro
import pyro.distributions as dist
from torch import Tensor, nn

__all__ = ["VAE"]


class VAE(nn.Module):
    r"""A decoder under a standard normal prior.

    .. math:: p(x, z) = N(z; 0, I) \; p(x \mid z)

    A subclass writes :meth:`likelihood` and inherits the rest.

    Args:
        decoder: maps z of shape (..., L) to the parameters of p(x | z), shape (..., outputs, D).
        latent_dim: L.
    """

    def __init__(self, decoder: nn.Module, latent_dim: int) -> None:
        super().__init__()
        self.decoder = decoder
        self.latent_dim = latent_dim

    def likelihood(self, z: Tensor) -> dist.TorchDistribution:
        """p(x | z): batch shape (...), event shape (D,), for z of shape (..., L)."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> None:
        """Declare the joint density of x, shape (B, D), and its latents."""
        with pyro.plate("data", len(x), dim=-1):
            prior = dist.Normal(x.new_zeros(self.latent_dim), x.new_ones(self.latent_dim)).to_event(1)
            z = pyro.sample("z", prior)
            pyro.sample("x", self.likelihood(z), obs=x)
