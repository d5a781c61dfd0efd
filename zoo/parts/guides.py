"""Guides by name: each a frozen dataclass of options that builds q(latents | x) for a model.

Your own guide has two methods: ``serves(target)``, whether it suits such latents, and ``build(target)``, which returns
a Pyro program as a module.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Protocol

from annotated_types import Ge, Gt, Le, Lt

from zoo.errors import OptionError
from zoo.parts import GUIDES, register_guide

if TYPE_CHECKING:
    from torch import nn

    from zoo.guides import Amortized
    from zoo.latents import Latents

__all__ = [
    "Enumeration",
    "Exact",
    "FullRank",
    "Guide",
    "InverseAutoregressive",
    "Linear",
    "LowRank",
    "MeanField",
    "Mixture",
    "SemiAmortized",
    "SplineFlow",
    "Target",
]

Count = Annotated[int, Ge(1), Le(1000)]


@dataclass(frozen=True)
class Target:
    """What a guide is built from.

    Attributes:
        model: p(x, latents).
        latents: the model's latents, by name.
        latent_dim: L, the size of the latent ``z``; 0 if no real vector has that name.
        features: D.
        encoder: builds the pair's network from x (..., D) to (..., outputs, L).
    """

    model: Any
    latents: Latents
    latent_dim: int
    features: int
    encoder: Callable[[int], nn.Module]


class Guide(Protocol):
    """The methods of a registered guide."""

    def serves(self, target: Target) -> bool:
        """Whether it suits these latents."""

    def build(self, target: Target) -> nn.Module:
        """The program q(latents | x)."""


class OfVector:
    """A guide for one latent ``z`` that is a real vector, with any other latents summed out."""

    def serves(self, target: Target) -> bool:
        """Whether there is such a z, and nothing else is drawn."""
        return target.latent_dim > 0


@register_guide(
    "mean-field",
    summary="Independent normals.",
    reference="Kingma & Welling (2014), Auto-Encoding Variational Bayes",
    link="https://arxiv.org/abs/1312.6114",
)
@dataclass(frozen=True)
class MeanField(OfVector):
    """Independent normals."""

    def build(self, target: Target) -> Amortized:
        """A MeanFieldNormal."""
        from zoo.guides import MeanFieldNormal

        return MeanFieldNormal(target.encoder(MeanFieldNormal.outputs(target.latent_dim)))


@register_guide("full-rank", summary="A normal with a full covariance.")
@dataclass(frozen=True)
class FullRank(OfVector):
    """A normal with a full covariance."""

    def build(self, target: Target) -> Amortized:
        """A FullRankNormal."""
        from zoo.guides import FullRankNormal

        return FullRankNormal(target.encoder(FullRankNormal.outputs(target.latent_dim)))


@register_guide(
    "low-rank",
    summary="Independent normals plus a few directions in which latents vary together.",
    reference="Ong, Nott & Smith (2018), Gaussian Variational Approximation With a Factor Covariance Structure",
    link="https://arxiv.org/abs/1701.03208",
)
@dataclass(frozen=True)
class LowRank(OfVector):
    """``rank`` directions in which the latents vary together."""

    rank: Count = 2

    def build(self, target: Target) -> Amortized:
        """A LowRankNormal."""
        from zoo.guides import LowRankNormal

        return LowRankNormal(target.encoder(LowRankNormal.outputs(target.latent_dim, self.rank)), self.rank)


@register_guide(
    "mixture",
    summary="A mixture of normals, for a posterior with several bumps.",
    reference="Morningstar et al. (2021), Automatic Differentiation Variational Inference with Mixtures",
    link="https://arxiv.org/abs/2003.01687",
)
@dataclass(frozen=True)
class Mixture(OfVector):
    """``components`` normals; a posterior shaped like a ring needs 16 or more."""

    components: Count = 8

    def build(self, target: Target) -> Amortized:
        """A MixtureNormal."""
        from zoo.guides import MixtureNormal

        outputs = MixtureNormal.outputs(target.latent_dim, self.components)
        return MixtureNormal(target.encoder(outputs), self.components)


@register_guide(
    "iaf",
    summary="An inverse autoregressive flow: fast draws; a density at other points takes one pass per latent.",
    reference="Kingma et al. (2016), Improving Variational Inference with Inverse Autoregressive Flow",
    link="https://arxiv.org/abs/1606.04934",
)
@dataclass(frozen=True)
class InverseAutoregressive(OfVector):
    """``layers`` layers, whose networks have ``hidden`` units."""

    layers: Count = 4
    hidden: Count = 64

    def build(self, target: Target) -> Amortized:
        """A flow guide of autoregressive layers."""
        from zoo.guides import InverseAutoregressive

        outputs = InverseAutoregressive.outputs(target.latent_dim, self.hidden)
        return InverseAutoregressive(target.encoder(outputs), target.latent_dim, self.layers, self.hidden)


@register_guide(
    "spline",
    summary="A neural spline flow: couplings of splines, for posteriors of any shape, with a density everywhere.",
    reference="Durkan et al. (2019), Neural Spline Flows",
    link="https://arxiv.org/abs/1906.04032",
)
@dataclass(frozen=True)
class SplineFlow(OfVector):
    """``layers`` couplings by splines of ``bins`` pieces, whose networks have ``hidden`` units."""

    layers: Count = 4
    hidden: Count = 32
    bins: Annotated[int, Ge(2), Le(100)] = 8

    def build(self, target: Target) -> Amortized:
        """A flow guide of spline layers."""
        from zoo.guides import SplineFlow

        outputs = SplineFlow.outputs(target.latent_dim, self.hidden)
        return SplineFlow(target.encoder(outputs), target.latent_dim, self.layers, self.hidden, self.bins)


@register_guide(
    "semi-amortized",
    summary="A few steps up each datum's own ELBO, from where another guide's encoder starts.",
    reference="Kim et al. (2018), Semi-Amortized Variational Autoencoders",
    link="https://arxiv.org/abs/1802.02550",
)
@dataclass(frozen=True)
class SemiAmortized(OfVector):
    """``start`` is the guide whose parameters are moved, by ``steps`` steps of at most ``rate`` in their own units.

    Each step goes up the ELBO at ``draws`` draws.
    """

    start: str = "mean-field"
    steps: Annotated[int, Ge(1), Le(100)] = 2
    rate: Annotated[float, Gt(0), Lt(10)] = 0.5
    draws: Count = 4

    def build(self, target: Target) -> nn.Module:
        """A SemiAmortized guide around another.

        Raises:
            OptionError: the other guide has no encoder.
        """
        from zoo.guides import Amortized, SemiAmortized

        start = GUIDES.make(self.start)
        built = start.build(target) if start.serves(target) and not isinstance(start, type(self)) else None
        if not isinstance(built, Amortized):
            raise OptionError(f"guide semi-amortized: start={self.start!r} has no encoder to start from.")
        return SemiAmortized(built, target.model, self.steps, self.rate, self.draws)


@register_guide("exact", summary="The posterior in closed form, of a model that knows it.")
@dataclass(frozen=True)
class Exact:
    """The posterior in closed form."""

    def serves(self, target: Target) -> bool:
        """Whether the model knows its posterior."""
        return hasattr(target.model, "posterior")

    def build(self, target: Target) -> nn.Module:
        """A ClosedFormNormal."""
        from zoo.guides import ClosedFormNormal

        return ClosedFormNormal(target.model)


@register_guide(
    "linear",
    summary="A normal whose mean is linear in the datum, with one covariance for all data: for linear models.",
    reference="Lucas et al. (2019), Don't Blame the ELBO!",
    link="https://arxiv.org/abs/1911.02469",
)
@dataclass(frozen=True)
class Linear:
    """The family of the posteriors of linear Gaussian models, learned."""

    def serves(self, target: Target) -> bool:
        """Whether the model's posterior is of this family."""
        return hasattr(target.model, "posterior")

    def build(self, target: Target) -> nn.Module:
        """A LinearNormal."""
        from zoo.guides import LinearNormal

        return LinearNormal(target.features, target.latent_dim)


@register_guide("enumeration", summary="Bayes' rule over the values of the component, if nothing else is latent.")
@dataclass(frozen=True)
class Enumeration:
    """Bayes' rule by enumeration."""

    def serves(self, target: Target) -> bool:
        """Whether the component is the only latent."""
        from zoo.latents import CATEGORY

        return target.latents.names == (CATEGORY,)

    def build(self, target: Target) -> nn.Module:
        """An ExactPosterior."""
        from zoo.guides import ExactPosterior

        return ExactPosterior(target.model)
