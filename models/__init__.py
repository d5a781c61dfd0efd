"""Generative programs p(x, latents): plain modules whose ``forward`` is a Pyro model."""

from .bernoulli import BernoulliDecoder
from .gaussian import (
    ConstrainedVariance,
    FixedVariance,
    LearnedVariance,
    OptimalVariance,
    PenalizedVariance,
    RatioVariance,
    SharedVariance,
)
from .linear import FactorAnalysis, LinearGaussian, ProbabilisticPCA
from .mixture import GaussianMixture, PenalizedMixture
from .ordinal import BinnedGaussian, CategoricalDecoder
from .quantile import QuantileDecoder
from .two_stage import TwoStage
from .vae import VAE

__all__ = [
    "VAE",
    "BernoulliDecoder",
    "BinnedGaussian",
    "CategoricalDecoder",
    "ConstrainedVariance",
    "FactorAnalysis",
    "FixedVariance",
    "GaussianMixture",
    "LearnedVariance",
    "LinearGaussian",
    "OptimalVariance",
    "PenalizedMixture",
    "PenalizedVariance",
    "ProbabilisticPCA",
    "QuantileDecoder",
    "RatioVariance",
    "SharedVariance",
    "TwoStage",
]
