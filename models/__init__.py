"""Generative programs p(x, latents): plain modules whose ``forward`` is a Pyro model."""

from . import emissions
from .emissions import Emission
from .linear import FactorAnalysis, LinearGaussian, ProbabilisticPCA
from .mixture import GaussianMixture, PenalizedMixture
from .two_stage import TwoStage
from .vae import VAE, OptimalVAE, PenalizedVAE

__all__ = [
    "VAE",
    "Emission",
    "FactorAnalysis",
    "GaussianMixture",
    "LinearGaussian",
    "OptimalVAE",
    "PenalizedMixture",
    "PenalizedVAE",
    "ProbabilisticPCA",
    "TwoStage",
    "emissions",
]
