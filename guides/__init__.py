"""Variational programs q(latents | x): plain modules whose ``forward`` is a Pyro guide."""

from .enumeration import ExactPosterior
from .normal import FullRankNormal, MeanFieldNormal

__all__ = ["ExactPosterior", "FullRankNormal", "MeanFieldNormal"]
