"""The latent-variable model that every VAE of the zoo shares."""

import pyro
import pyro.distributions as dist
from torch import Tensor, nn

__all__ = ["VAE"]


class VAE(nn.Module):
    r"""A decoder under a standard normal prior.

    .. math:: p(x, z) = N(z; 0, I) \; p(x \mid z)

    A subclass writes :meth:`likelihood` and inherits the rest, :meth:`forward` too unless its prior is another. The zoo
    knows a model, of this class or not, by its sites: ``x``, the datum, inside one plate, and latents, of which those
    called ``z`` (real) and ``component`` (categorical) have groups of their own. It may also have, and need not:

    - ``initialise(x)``: start from the training part, shape (N, D), before the first step.
    - ``settle(guide, x)``: before each validation, fix in buffers what is taken from the whole training part.
    - ``log_density_bound(features)``: the least upper bound of log p(x | z); a pair that is called bounded has to.
    - ``log_prior()``: log p(theta) per datum, for the objective "penalized" and the path of the penalised likelihood.
    - ``log_evidence(x, columns=None)``: log p(x) in closed form, (B,), of all columns or of some: no sampling then.
    - ``posterior(x)``: mean (B, L) and Cholesky factor (L, L) of p(z | x), for the guide :class:`ClosedFormNormal`.
    - ``pinball(fn, x)``: the loss (B,) of the objective "quantile".

    The last three also take ``observed=None``, (B, D), if they know of data some of whose entries are missing.

    All in the model's units, and none of them changes a parameter but ``initialise``. What is asked of p(x | z) itself,
    such as its marginals, is registered by the type of distribution: CONTRIBUTING.md has the table.

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
