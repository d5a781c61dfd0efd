"""Priors by name: each a frozen dataclass of options that builds p(z) for a VAE.

Your own prior has a method ``build(setting)``, which returns a :class:`zoo.models.priors.Prior`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

from annotated_types import Ge, Le

from zoo.parts import register_prior

if TYPE_CHECKING:
    from zoo.models.priors import Prior

__all__ = ["Flow", "Mixture", "Normal", "Setting", "Vamp"]

Count = Annotated[int, Ge(1), Le(10_000)]


@dataclass(frozen=True)
class Setting:
    """What a prior is built from.

    Attributes:
        guide: the pair's guide, q(z | x).
        latent_dim: L.
        features: D.
    """

    guide: Any
    latent_dim: int
    features: int


@register_prior("normal", summary="N(0, I).")
@dataclass(frozen=True)
class Normal:
    """N(0, I)."""

    def build(self, setting: Setting) -> Prior:
        """A StandardNormal."""
        from zoo.models.priors import StandardNormal

        return StandardNormal(setting.latent_dim)


@register_prior(
    "mixture",
    summary="A learned mixture of normals.",
    reference="Nalisnick, Hertel & Smyth (2016), Approximate Inference for Deep Latent Gaussian Mixtures",
    link="http://bayesiandeeplearning.org/2016/papers/BDL_20.pdf",
)
@dataclass(frozen=True)
class Mixture:
    """``components`` normals."""

    components: Count = 10

    def build(self, setting: Setting) -> Prior:
        """A MixturePrior."""
        from zoo.models.priors import MixturePrior

        return MixturePrior(setting.latent_dim, self.components)


@register_prior(
    "vamp",
    summary="The mean of the guide's posteriors given learned pseudo-inputs.",
    reference="Tomczak & Welling (2018), VAE with a VampPrior",
    link="https://arxiv.org/abs/1705.07120",
)
@dataclass(frozen=True)
class Vamp:
    """``components`` pseudo-inputs."""

    components: Count = 50

    def build(self, setting: Setting) -> Prior:
        """A VampPrior, which shares the guide's encoder.

        Raises:
            OptionError: the guide has no encoder.
        """
        from zoo.errors import OptionError
        from zoo.guides import amortized
        from zoo.models.priors import VampPrior

        encoding = amortized(setting.guide)
        if encoding is None:
            raise OptionError(f"prior 'vamp' needs an encoder, and the guide {type(setting.guide).__name__} has none.")
        return VampPrior(encoding, self.components, setting.features)


@register_prior(
    "flow",
    summary="A normalizing flow of couplings of splines.",
    reference="Durkan et al. (2019), Neural Spline Flows",
    link="https://arxiv.org/abs/1906.04032",
)
@dataclass(frozen=True)
class Flow:
    """``layers`` couplings by splines of ``bins`` pieces, whose networks have ``hidden`` units."""

    layers: Annotated[int, Ge(1), Le(100)] = 4
    hidden: Count = 32
    bins: Annotated[int, Ge(2), Le(100)] = 8

    def build(self, setting: Setting) -> Prior:
        """A FlowPrior."""
        from zoo.guides import SplineLayer
        from zoo.models.priors import FlowPrior

        layers = [SplineLayer(setting.latent_dim, self.hidden, self.bins, context=1) for _ in range(self.layers)]
        return FlowPrior(setting.latent_dim, layers)
