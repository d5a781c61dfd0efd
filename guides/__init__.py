"""Variational programs q(latents | x): plain modules whose ``forward`` is a Pyro guide."""

from .enumeration import ExactPosterior
from .linear import ClosedFormNormal, LinearNormal
from .normal import FullRankNormal, MeanFieldNormal
from .two_stage import TwoStageNormal

__all__ = ["ClosedFormNormal", "ExactPosterior", "FullRankNormal", "LinearNormal", "MeanFieldNormal", "TwoStageNormal"]
