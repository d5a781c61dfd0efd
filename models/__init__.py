"""Generative programs p(x, latents): plain modules whose ``forward`` is a Pyro model."""

from . import emissions
from .emissions import Emission
from .linear import FactorAnalysis, LinearGaussian, ProbabilisticPCA
from .mixture import GaussianMixture, PenalizedMixture
from .mixture_vae import GaussianMixtureVAE
from .precisions import MixturePrecisionVAE, PrecisionVAE, PseudoPrecisionVAE
from .priors import FlowPrior, MixturePrior, Prior, StandardNormal, VampPrior
from .two_stage import TwoStage
from .vae import VAE, OptimalVAE, PenalizedVAE

__all__ = [
    "VAE",
    "Emission",
    "FactorAnalysis",
    "FlowPrior",
    "GaussianMixture",
    "GaussianMixtureVAE",
    "LinearGaussian",
    "MixturePrecisionVAE",
    "MixturePrior",
    "OptimalVAE",
    "PenalizedMixture",
    "PenalizedVAE",
    "PrecisionVAE",
    "Prior",
    "ProbabilisticPCA",
    "PseudoPrecisionVAE",
    "StandardNormal",
    "TwoStage",
    "VampPrior",
    "emissions",
]
