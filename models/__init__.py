"""Generative programs p(x, latents): plain modules whose ``forward`` is a Pyro model."""

from .bernoulli import BernoulliDecoder
from .gaussian import (
    ColumnVariance,
    ConstrainedVariance,
    FixedVariance,
    LearnedVariance,
    OptimalVariance,
    PenalizedVariance,
    RatioVariance,
    SharedVariance,
)
from .linear import FactorAnalysis, LinearGaussian, ProbabilisticPCA
from .mixed import EachColumn, Mixed, PerColumn
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
    "ColumnVariance",
    "ConstrainedVariance",
    "EachColumn",
    "FactorAnalysis",
    "FixedVariance",
    "GaussianMixture",
    "LearnedVariance",
    "LinearGaussian",
    "Mixed",
    "OptimalVariance",
    "PenalizedMixture",
    "PenalizedVariance",
    "PerColumn",
    "ProbabilisticPCA",
    "QuantileDecoder",
    "RatioVariance",
    "SharedVariance",
    "TwoStage",
]
