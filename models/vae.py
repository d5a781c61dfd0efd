"""The latent-variable model behind every VAE of the zoo: a prior, a decoder and an emission."""

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

    The zoo knows a model, of this class or not, by its sites: ``x``, the datum, inside one plate, and latents; those
    called ``z`` (real) and ``component`` (categorical) get their own groups. Optional methods:

    - ``initialise(x)``: start from the training part, shape (N, D), before the first step.
    - ``count(rows)``: is told how many training data there are, if ``initialise`` and ``settle`` get only a sample of
      them.
    - ``settle(guide, x)``: before each validation, fix in buffers what is computed from training rows.
    - ``log_density_bound(features)``: the least upper bound of log p(x | z); required for a bounded pair.
    - ``log_prior()``: log p(theta) per datum, for the objective "penalized" and the path of the penalised likelihood.
    - ``log_precision_prior(precision, there, z, guide)``: the log prior of precisions (B, D), for the objective
      "variational-variance".
    - ``log_evidence(x, columns=None)``: log p(x) in closed form, (B,), for all columns or some; replaces sampling.
    - ``posterior(x)``: mean (B, L) and Cholesky factor (L, L) of p(z | x), for the guide :class:`ClosedFormNormal`.
    - ``component_logits(z)``: log p(c | z), (..., C), of a component besides z, for guides that only serve z.
    - ``prior(x)``: p(z), event shape (L,); here a module, which another prior can replace.

    ``log_evidence`` and ``posterior`` also take ``observed=None``, (B, D), if they support missing entries.

    All use the model's units, and only ``initialise`` changes parameters. Questions about p(x | z) itself, such as its
    marginals, are registered by the type of distribution: CONTRIBUTING.md has the table.

    Args:
        decoder: maps z of shape (..., L) to the numbers that the emission takes, (..., outputs, D).
        latent_dim: L.
        emission: maps those to p(x | z); None for a subclass that writes :meth:`likelihood` itself.
        prior: p(z), a module called with x; N(0, I) by default. A subclass may write a method ``prior(x)`` instead.
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
            raise TypeError(f"{type(self).__name__} has its own prior(x), but was given another")
        self.decoder, self.latent_dim, self.emission = decoder, latent_dim, emission
        self.starts = hasattr(emission, "start")
        if self.starts:
            with torch.no_grad():
                self.register_buffer("start", torch.zeros_like(decoder(torch.zeros(latent_dim))))

    def numbers(self, z: Tensor) -> Tensor:
        """The emission's parameters for z of shape (..., L), (..., outputs, D)."""
        out: Tensor = self.decoder(z)
        return out + self.start if self.starts else out

    def likelihood(self, z: Tensor) -> dist.TorchDistribution:
        """p(x | z): batch shape (...), event shape (D,), for z of shape (..., L)."""
        if self.emission is None:
            raise NotImplementedError(f"{type(self).__name__} has neither an emission nor its own likelihood(z)")
        return _joint(self.emission(self.numbers(z)))

    def forward(self, x: Tensor) -> None:
        """Declare the joint density of x, shape (B, D), and its latents."""
        with pyro.plate("data", len(x), dim=-1):
            z = pyro.sample("z", self.prior(x))
            pyro.sample("x", self.likelihood(z), obs=x)

    @torch.no_grad()
    def initialise(self, x: Tensor) -> None:
        """Start from the training part, shape (N, D), as emission and prior say."""
        if self.starts:
            self.start.copy_(cast(Any, self.emission).start(x))
        if initialise := getattr(self.prior, "initialise", None):
            initialise(x)

    def log_density_bound(self, features: int) -> float:
        """The emission's bound for one column, times the number of columns."""
        return features * self.emission.log_density_bound() if self.emission else math.inf


class OptimalVAE(VAE):
    r"""A VAE with one variance, which at every step is the best for the batch.

    In training the mean of :class:`~zoo.models.emissions.OptimalNormal` is over the batch. The density that scores a
    datum must not depend on other data, so :meth:`settle` fixes sigma to the mean over training rows for validation and
    scores.

    Args:
        decoder: maps z of shape (..., L) to the mean, (..., 1, D).
        latent_dim: L.
        emission: the normal with that mean.
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

    for a normal with learned variance on a last hidden layer of H units in [-1, 1], such as tanh: a log density grows
    at most linearly in the weights of the output layer, and their log prior falls quadratically. Unbounded units have
    no such bound.
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
        """Take from x, shape (N, D), how many data share the prior."""
        super().initialise(x)
        self.count(len(x))

    def count(self, rows: int) -> None:
        """Take the number of data, of which x was a sample."""
        self.rows.fill_(rows)

    def log_prior(self) -> Tensor:
        """Log p(theta) per datum, without its constant: -|theta|^2 / 2n."""
        return -sum(p.square().sum() for p in self.decoder.parameters()) / (2 * self.rows)


def _joint(fn: dist.TorchDistribution) -> dist.TorchDistribution:
    """The joint distribution of all columns: the product if they are independent."""
    if not hasattr(fn, "to_event"):
        raise TypeError(
            f"an emission's forward() must return a distribution of pyro.distributions, but this one returned "
            f"{type(fn).__module__}.{type(fn).__name__}"
        )
    return fn if fn.event_shape else fn.to_event(1)
