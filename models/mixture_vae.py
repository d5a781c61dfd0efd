"""A VAE with a discrete and a continuous latent, for data in clusters."""

import pyro
import torch
from torch import Tensor, nn

from .emissions import Emission
from .priors import MixturePrior
from .vae import VAE

__all__ = ["GaussianMixtureVAE"]


class GaussianMixtureVAE(VAE):
    r"""A VAE whose z comes from one of C clusters, each a normal.

    .. math:: p(x, z, c) = \pi_c \, N(z; m_c, \mathrm{diag}\, s_c^2) \; p(x \mid z), \qquad
              p(c \mid z) = p(c \mid x, z) \propto \pi_c \, N(z; m_c, \mathrm{diag}\, s_c^2)

    A VAE under a :class:`MixturePrior`, with its component as a latent, which says which cluster a datum belongs to.

    Jiang et al. (2017), Variational Deep Embedding, https://arxiv.org/abs/1611.05148; Dilokthanakul et al. (2016),
    https://arxiv.org/abs/1611.02648

    Args:
        decoder: maps z of shape (..., L) to the numbers that the emission takes, (..., outputs, D).
        latent_dim: L.
        emission: maps those to p(x | z).
        components: C.
    """

    prior: MixturePrior

    def __init__(self, decoder: nn.Module, latent_dim: int, emission: Emission, components: int) -> None:
        super().__init__(decoder, latent_dim, emission, MixturePrior(latent_dim, components))

    def component_logits(self, z: Tensor) -> Tensor:
        """Log p(c | z), (..., C), for z of shape (..., L)."""
        components = torch.arange(len(self.prior.logits), device=z.device)
        joint: Tensor = self.prior.given(components).log_prob(z[..., None, :]) + self.prior.logits
        return joint.log_softmax(-1)

    def forward(self, x: Tensor) -> None:
        """Declare the joint density of x, shape (B, D), its component and its z."""
        with pyro.plate("data", len(x), dim=-1):
            component = pyro.sample("component", self.prior.component(), infer={"enumerate": "parallel"})
            z = pyro.sample("z", self.prior.given(component))
            pyro.sample("x", self.likelihood(z), obs=x)
