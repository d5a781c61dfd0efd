"""A VAE whose prior is a second VAE, trained on the first one's latents."""

import pyro
import pyro.distributions as dist
from torch import Tensor, nn

from .vae import VAE

__all__ = ["TwoStage"]


class TwoStage(nn.Module):
    r"""A VAE with one learned variance, and a second VAE of its latents.

    .. math:: p(x, z, u) = N(u; 0, I) \; N(z; \mu_2(u), \gamma_2^2 I) \; N(x; \mu_1(z), \gamma_1^2 I)

    The first stage is trained under the prior N(z; 0, I); the second is a VAE of draws z ~ q(z | x) and never changes
    the first. The score uses the whole model, the joint log weight over z and u.

    Dai & Wipf (2019), Diagnosing and Enhancing VAE Models, https://arxiv.org/abs/1903.05789

    Args:
        first: p(x | z), with L latents.
        second: p(z | u), of L features and as many latents.
    """

    def __init__(self, first: VAE, second: VAE) -> None:
        super().__init__()
        self.first, self.second = first, second

    def likelihood(self, z: Tensor) -> dist.TorchDistribution:
        """p(x | z): batch shape (...), event shape (D,), for z of shape (..., L)."""
        return self.first.likelihood(z)

    def forward(self, x: Tensor) -> None:
        """Declare the joint density of x, shape (B, D), and its latents of both stages."""
        with pyro.plate("data", len(x), dim=-1):
            width = self.second.latent_dim
            u = pyro.sample("u", dist.Normal(x.new_zeros(width), x.new_ones(width)).to_event(1))
            z = pyro.sample("z", self.second.likelihood(u))
            pyro.sample("x", self.likelihood(z), obs=x)
