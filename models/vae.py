"""The latent-variable model that every VAE of the zoo is: a prior, a decoder and an emission."""

import math
from collections.abc import Callable, Iterator
from typing import Any, cast

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from torch import Tensor, nn

from .emissions import Emission, OptimalNormal
from .priors import Prior, StandardNormal

__all__ = ["VAE", "OptimalVAE", "PenalizedVAE"]

SETTLED_ROWS = 4096  # rows per pass


class VAE(nn.Module):
    r"""A prior, a decoder, and an emission of its outputs.

    .. math:: p(x, z) = p(z) \; p(x \mid z), \qquad p(z) = \mathrm{prior}, \qquad
              p(x \mid z) = \mathrm{emission}(\mathrm{decoder}(z))

    The zoo knows a model, of this class or not, by its sites: ``x``, the datum, inside one plate, and latents, of which
    those called ``z`` (real) and ``component`` (categorical) have groups of their own. It may also have, and need not:

    - ``initialise(x)``: start from the training part, shape (N, D), before the first step.
    - ``count(rows)``: how many training data there are, where they are so many that ``initialise`` was given some of
      them, and ``settle`` will be.
    - ``settle(guide, x)``: before each validation, fix in buffers what is taken from training rows.
    - ``log_density_bound(features)``: the least upper bound of log p(x | z); a pair that is called bounded has to.
    - ``log_prior()``: log p(theta) per datum, for the objective "penalized" and the path of the penalised likelihood.
    - ``log_precision_prior(precision, there, z, guide)``: that of precisions (B, D), for "variational-variance".
    - ``log_evidence(x, columns=None)``: log p(x) in closed form, (B,), of all columns or of some: no sampling then.
    - ``posterior(x)``: mean (B, L) and Cholesky factor (L, L) of p(z | x), for the guide :class:`ClosedFormNormal`.
    - ``component_logits(z)``: log p(c | z), (..., C), of a component beside z, for guides that know of z alone.
    - ``prior(x)``: p(z), event shape (L,); here a module, in whose place another prior can be put.

    ``log_evidence`` and ``posterior`` also take ``observed=None``, (B, D), if they know of data some of whose entries
    are missing.

    All in the model's units, and none of them changes a parameter but ``initialise``. What is asked of p(x | z) itself,
    such as its marginals, is registered by the type of distribution: CONTRIBUTING.md has the table.

    Args:
        decoder: maps z of shape (..., L) to the numbers that the emission takes, (..., outputs, D).
        latent_dim: L.
        emission: from those to p(x | z); none for a subclass that writes :meth:`likelihood` itself.
        prior: p(z), a module that is called with x; N(0, I) by default. A subclass may write a method ``prior(x)``.
    """

    start: Tensor
    prior: Prior

    def __init__(
        self, decoder: nn.Module, latent_dim: int, emission: Emission | None = None, prior: Prior | None = None
    ) -> None:
        super().__init__()
        if not hasattr(type(self), "prior"):  # a method would hide the module
            self.prior = StandardNormal(latent_dim) if prior is None else prior
        elif prior is not None:
            raise TypeError(f"{type(self).__name__} has a prior(x) of its own, and is given another")
        self.decoder, self.latent_dim, self.emission = decoder, latent_dim, emission
        self.starts = hasattr(emission, "start")
        if self.starts:
            with torch.no_grad():
                self.register_buffer("start", torch.zeros_like(decoder(torch.zeros(latent_dim))))

    def numbers(self, z: Tensor) -> Tensor:
        """What the emission is given for z of shape (..., L), (..., outputs, D)."""
        out: Tensor = self.decoder(z)
        return out + self.start if self.starts else out

    def likelihood(self, z: Tensor) -> dist.TorchDistribution:
        """p(x | z): batch shape (...), event shape (D,), for z of shape (..., L)."""
        if self.emission is None:
            raise NotImplementedError(f"{type(self).__name__} has no emission, and no likelihood(z) of its own")
        return _joint(self.emission(self.numbers(z)))

    def forward(self, x: Tensor) -> None:
        """Declare the joint density of x, shape (B, D), and its latents."""
        with pyro.plate("data", len(x), dim=-1):
            z = pyro.sample("z", self.prior(x))
            pyro.sample("x", self.likelihood(z), obs=x)

    @torch.no_grad()
    def initialise(self, x: Tensor) -> None:
        """Start from the training part, shape (N, D), where emission and prior say how."""
        if self.starts:
            self.start.copy_(cast(Any, self.emission).start(x))
        if initialise := getattr(self.prior, "initialise", None):
            initialise(x)

    def log_density_bound(self, features: int) -> float:
        """The emission's bound of one column, as often as there are columns."""
        return features * self.emission.log_density_bound() if self.emission else math.inf


class OptimalVAE(VAE):
    r"""A VAE whose one variance is, at every step, the best there is for the batch.

    In training the mean of :class:`~zoo.models.emissions.OptimalNormal` is over the batch; a density that is to score a
    datum must not depend on the data beside it, so :meth:`settle` fixes sigma to the mean over training rows, and
    that is what validation and scores use.

    Args:
        decoder: maps z of shape (..., L) to the mean, (..., 1, D).
        latent_dim: L.
        emission: the normal of that mean.
        prior: p(z); N(0, I) by default.
    """

    emission: OptimalNormal

    def forward(self, x: Tensor) -> None:
        """Declare the joint density of x, shape (B, D), and its latents."""
        with pyro.plate("data", len(x), dim=-1):
            z = pyro.sample("z", self.prior(x))
            fn = _joint(self.emission.best(self.numbers(z), x)) if self.training else self.likelihood(z)
            pyro.sample("x", fn, obs=x)

    @torch.no_grad()
    def settle(self, guide: Callable[[Tensor], None], x: Tensor) -> None:
        """Fix sigma to its best value for all of x, shape (N, D), at one draw of z for each datum."""

        def blocks() -> Iterator[tuple[Tensor, Tensor]]:
            for rows in x.split(SETTLED_ROWS):
                yield self.numbers(poutine.trace(guide).get_trace(rows).nodes["z"]["value"]), rows

        self.emission.settle(blocks())


class PenalizedVAE(VAE):
    r"""A VAE with a standard normal prior on the decoder's weights and biases.

    .. math:: \log p(X, \theta) = \sum_i \log p(x_i \mid \theta) + \log N(\theta; 0, I)
              \le \tfrac{1}{8} D (H + 1) n^2 - \tfrac{1}{2} n D \log 2 \pi

    for a normal of learned variance on a last hidden layer of H units in [-1, 1], such as tanh: a density grows at most
    linearly in the weights of the output layer, and its prior falls quadratically. Not so for units without a bound.
    The likelihood of the data alone is as unbounded as before.

    Kingma & Welling (2014), appendix C.2 and their weight decay, https://arxiv.org/abs/1312.6114

    Args:
        decoder: maps z of shape (..., L) to the numbers that the emission takes, (..., outputs, D).
        latent_dim: L.
        emission: from those to p(x | z).
        prior: p(z); N(0, I) by default.
    """

    rows: Tensor

    def __init__(self, decoder: nn.Module, latent_dim: int, emission: Emission, prior: Prior | None = None) -> None:
        super().__init__(decoder, latent_dim, emission, prior)
        self.register_buffer("rows", torch.ones(()))

    def initialise(self, x: Tensor) -> None:
        """Learn how many data the one prior belongs to, from x, shape (N, D)."""
        super().initialise(x)
        self.count(len(x))

    def count(self, rows: int) -> None:
        """Learn it by the number of data, of which x were some."""
        self.rows.fill_(rows)

    def log_prior(self) -> Tensor:
        """Log p(theta) per datum, without its constant: -|theta|^2 / 2n."""
        return -sum(p.square().sum() for p in self.decoder.parameters()) / (2 * self.rows)


def _joint(fn: dist.TorchDistribution) -> dist.TorchDistribution:
    """The distribution of all columns together: of independent ones, their product."""
    if not hasattr(fn, "event_shape"):
        raise TypeError(
            f"an emission's forward() has to return a distribution, and this one returned {type(fn).__name__}"
        )
    return fn if fn.event_shape else fn.to_event(1)
