"""Variational programs q(latents | x): plain modules whose ``forward`` is a Pyro guide."""

from .enumeration import ExactPosterior
from .normal import FullRankNormal, MeanFieldNormal
from .two_stage import TwoStageNormal

__all__ = ["ExactPosterior", "FullRankNormal", "MeanFieldNormal", "TwoStageNormal"]
