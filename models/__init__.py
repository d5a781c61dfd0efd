"""Generative programs p(x, latents): plain modules whose ``forward`` is a Pyro model."""

from .bernoulli import BernoulliDecoder
from .gaussian import ConstrainedVariance, FixedVariance, LearnedVariance
from .mixture import GaussianMixture
from .ordinal import BinnedGaussian, CategoricalDecoder
from .vae import VAE

__all__ = [
    "VAE",
    "BernoulliDecoder",
    "BinnedGaussian",
    "CategoricalDecoder",
    "ConstrainedVariance",
    "FixedVariance",
    "GaussianMixture",
    "LearnedVariance",
]
