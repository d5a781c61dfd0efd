"""Variational programs q(latents | x): plain modules whose ``forward`` is a Pyro guide."""

from torch import nn

from .amortized import Amortized
from .enumeration import ExactPosterior, WithComponent
from .flow import InverseAutoregressive, SplineFlow, SplineLayer
from .linear import ClosedFormNormal, LinearNormal
from .mixture import MixtureNormal, NormalMixture
from .normal import FullRankNormal, LowRankNormal, MeanFieldNormal
from .semi_amortized import SemiAmortized
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
    "SemiAmortized",
    "SplineFlow",
    "SplineLayer",
    "TwoStageNormal",
    "WithComponent",
    "amortized",
]


def amortized(guide: nn.Module) -> Amortized | None:
    """The encoder and family that a guide is, or wraps, if any."""
    return next((part for part in guide.modules() if isinstance(part, Amortized)), None)
