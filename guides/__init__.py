"""Variational programs q(latents | x): plain modules whose ``forward`` is a Pyro guide."""

from .amortized import Amortized
from .enumeration import ExactPosterior
from .flow import InverseAutoregressive, SplineFlow
from .linear import ClosedFormNormal, LinearNormal
from .mixture import MixtureNormal, NormalMixture
from .normal import FullRankNormal, LowRankNormal, MeanFieldNormal
from .two_stage import TwoStageNormal

__all__ = [
    "Amortized",
    "ClosedFormNormal",
    "ExactPosterior",
    "FullRankNormal",
    "InverseAutoregressive",
    "LinearNormal",
    "LowRankNormal",
    "MeanFieldNormal",
    "MixtureNormal",
    "NormalMixture",
    "SplineFlow",
    "TwoStageNormal",
]
