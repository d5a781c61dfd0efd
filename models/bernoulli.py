"""Bernoulli decoder, for binary data and nothing else."""

import pyro.distributions as dist
from torch import Tensor

from .vae import VAE

__all__ = ["BernoulliDecoder"]


class BernoulliDecoder(VAE):
    r"""Independent binary features; a probability mass, so the likelihood is at most 1.

    .. math:: p(x \mid z) = \prod_j y_j(z)^{x_j} (1 - y_j(z))^{1 - x_j}, \qquad
              \mathrm{logit}\, y(z) = \mathrm{decoder}(z)

    Kingma & Welling (2014), appendix C.1, https://arxiv.org/abs/1312.6114

    >>> import torch
    >>> from torch import nn
    >>> model = BernoulliDecoder(nn.Sequential(nn.Linear(2, 3), nn.Unflatten(-1, (1, 3))), latent_dim=2)
    >>> model.likelihood(torch.zeros(5, 2)).log_prob(torch.ones(3)).shape
    torch.Size([5])
    """

    outputs = 1

    def likelihood(self, z: Tensor) -> dist.TorchDistribution:
        """Bernoulli(y(z))."""
        (logits,) = self.decoder(z).unbind(-2)
        return dist.Bernoulli(logits=logits).to_event(1)

    def log_density_bound(self, features: int) -> float:  # noqa: ARG002
        """0: a probability is at most 1."""
        return 0.0
