"""Priors p(z) of a VAE, fixed or learned: modules that return the distribution of its latents."""

from collections.abc import Sequence
from typing import Any, ClassVar, cast

import pyro.distributions as dist
import torch
from torch import Tensor, nn
from torch.distributions import constraints

__all__ = ["FlowPrior", "MixturePrior", "Prior", "StandardNormal", "VampPrior"]


class Prior(nn.Module):
    """The base of priors: a distribution of z.

    A subclass writes :meth:`forward`. Optional:

    - ``initialise(x)``: start from the training part, shape (N, D), before the first step.
    - ``standardise()``: become N(0, I), if possible, since the witness integrates over it.
    """

    def forward(self, x: Tensor) -> dist.TorchDistribution:
        """p(z), batch shape () and event shape (L,), on the device and in the precision of the batch x, (B, D)."""
        raise NotImplementedError


class StandardNormal(Prior):
    """N(0, I), without parameters.

    Args:
        latent_dim: L.
    """

    def __init__(self, latent_dim: int) -> None:
        super().__init__()
        self.latent_dim = latent_dim

    def forward(self, x: Tensor) -> dist.TorchDistribution:
        """N(0, I) over z, on the device and in the precision of x."""
        return dist.Normal(x.new_zeros(self.latent_dim), x.new_ones(self.latent_dim)).to_event(1)


class MixturePrior(Prior):
    r"""A learned mixture of normals with diagonal covariances.

    .. math:: p(z) = \sum_c \pi_c \, N(z; m_c, \mathrm{diag}\, s_c^2)

    Means start at draws from N(0, I), since components that start alike stay alike. The density of z (K, B, L) takes
    (K, B, C, L) numbers, and so does a draw.

    Nalisnick, Hertel & Smyth (2016), Approximate Inference for Deep Latent Gaussian Mixtures,
    http://bayesiandeeplearning.org/2016/papers/BDL_20.pdf

    Args:
        latent_dim: L.
        components: C.
    """

    def __init__(self, latent_dim: int, components: int) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.zeros(components))
        self.means = nn.Parameter(torch.randn(components, latent_dim))
        self.log_scales = nn.Parameter(torch.zeros(components, latent_dim))

    def component(self) -> dist.Categorical:
        """p(c), with weights pi."""
        return dist.Categorical(logits=self.logits)

    def given(self, component: Tensor) -> dist.TorchDistribution:
        """p(z | c): batch shape (...), event shape (L,), for components of shape (...)."""
        return dist.Normal(self.means[component], self.log_scales[component].exp()).to_event(1)

    def forward(self, x: Tensor) -> dist.TorchDistribution:  # noqa: ARG002
        """The mixture, with components summed out."""
        each = dist.Normal(self.means, self.log_scales.exp()).to_event(1)
        return dist.MixtureSameFamily(self.component(), each)

    @torch.no_grad()
    def standardise(self) -> None:
        """Put every component at N(0, I)."""
        self.means.zero_()
        self.log_scales.zero_()


class VampPrior(Prior):
    r"""The guide's posteriors given learned pseudo-inputs: a variational mixture of posteriors.

    .. math:: p(z) = \frac{1}{C} \sum_k q(z \mid u_k)

    The ELBO is highest under the prior that is the mean of q(z | x_n) over the data; this is such a mean over C
    imagined data. The weights are equal, as in the paper. Pseudo-inputs live in the space the encoder's network sees,
    where all numbers may be real, not in that of x, which may be counts or categories; they start at random rows of the
    training part. The density of z (K, B, L) takes (K, B, C, L) numbers, and so does a draw.

    Tomczak & Welling (2018), VAE with a VampPrior, https://arxiv.org/abs/1705.07120

    Args:
        guide: has an ``encoder``, whose parameters the prior shares, and ``distribution(numbers)``: from the encoder's
            output, (..., outputs, L), to q(z | x), event shape (L,), with a density at any z. An encoder may work in
            two steps, ``seen(x)``, from x to what its ``network`` sees, and the network.
        components: C.
        features: D.
    """

    def __init__(self, guide: Any, components: int, features: int) -> None:
        super().__init__()
        self.guide = guide
        with torch.no_grad():
            width = self.seen(torch.ones(1, features)).shape[-1]
        self.pseudo_inputs = nn.Parameter(torch.randn(components, width))

    def seen(self, x: Tensor) -> Tensor:
        """Data x (..., D) as the encoder's network sees them, (..., inputs)."""
        encoder = self.guide.encoder
        seen: Tensor = encoder.seen(x) if hasattr(encoder, "seen") else x
        return seen

    @torch.no_grad()
    def initialise(self, x: Tensor) -> None:
        """Start at random rows of x, (N, D), using each once before any twice."""
        order = torch.randperm(len(x), device=x.device)
        self.pseudo_inputs.copy_(self.seen(x[order[torch.arange(len(self.pseudo_inputs)) % len(x)]]))

    def forward(self, x: Tensor) -> dist.TorchDistribution:
        """The mean of the posteriors given the pseudo-inputs."""
        encoder = self.guide.encoder
        network = encoder.network if hasattr(encoder, "seen") else encoder
        each = self.guide.distribution(network(self.pseudo_inputs))
        return dist.MixtureSameFamily(dist.Categorical(logits=x.new_zeros(len(self.pseudo_inputs))), each)


class FlowPrior(Prior):
    r"""A standard normal put backwards through layers: densities and draws each take one pass.

    .. math:: p(z) = N(f(z); 0, I) \left| \det \frac{\partial f}{\partial z} \right|, \qquad
              f = f_M \circ \dots \circ f_1

    With layers that begin near the identity it starts near N(0, I).

    Durkan et al. (2019), Neural Spline Flows, https://arxiv.org/abs/1906.04032; Dinh, Sohl-Dickstein & Bengio (2017),
    https://arxiv.org/abs/1605.08803

    Args:
        latent_dim: L.
        layers: M modules from z (..., L), with a one as their context, to f(z) and log |df / dz|, each with an
            ``inverse`` and with ``reset()``, which makes it the identity up to the order of the latents.
    """

    def __init__(self, latent_dim: int, layers: Sequence[nn.Module]) -> None:
        super().__init__()
        self.latent_dim = latent_dim
        self.layers = nn.ModuleList(layers)

    def forward(self, x: Tensor) -> dist.TorchDistribution:
        """The flow of N(0, I)."""
        base = dist.Normal(x.new_zeros(self.latent_dim), x.new_ones(self.latent_dim)).to_event(1)
        return Flowed(base, [*self.layers])

    @torch.no_grad()
    def standardise(self) -> None:
        """Make every layer the identity, up to the order of the latents."""
        for layer in self.layers:
            cast(Any, layer).reset()


class Flowed(dist.TorchDistribution):  # type: ignore[misc]
    """The distribution of z whose image under layers has a base distribution.

    Args:
        base: event shape (L,).
        layers: from z to the base, the first first.
    """

    arg_constraints: ClassVar[dict[str, Any]] = {}
    support = constraints.real_vector
    has_rsample = True

    def __init__(self, base: dist.TorchDistribution, layers: Sequence[Any]) -> None:
        self.base, self.layers = base, layers
        super().__init__(base.batch_shape, base.event_shape, validate_args=False)

    def expand(self, batch_shape: Any, _instance: Any = None) -> "Flowed":
        """The same for a larger batch."""
        return Flowed(self.base.expand(batch_shape), self.layers)

    def log_prob(self, z: Tensor) -> Tensor:
        """The log density of z (..., L)."""
        stretched = []
        for layer in self.layers:
            z, log_determinant = layer(z, z.new_ones(1))
            stretched.append(log_determinant)
        density: Tensor = self.base.log_prob(z) + sum(stretched)
        return density

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        """Draws of z."""
        z: Tensor = self.base.rsample(torch.Size(sample_shape))
        for layer in reversed(self.layers):
            z, _ = layer.inverse(z, z.new_ones(1))
        return z
