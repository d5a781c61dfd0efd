"""Emissions: likelihoods of columns without a network, from numbers to the distribution that has them for parameters.

A file for each support, and what all of them are in :class:`Emission`.
"""

from .categorical import Bernoulli, Softmax
from .count import NegativeBinomial, Poisson
from .emission import Emission
from .ordinal import BinnedOrdinal, CumulativeOrdinal
from .positive import LogNormal
from .real import ConstrainedNormal, LearnedNormal, SharedNormal, StudentT

__all__ = [
    "Bernoulli",
    "BinnedOrdinal",
    "ConstrainedNormal",
    "CumulativeOrdinal",
    "Emission",
    "LearnedNormal",
    "LogNormal",
    "NegativeBinomial",
    "Poisson",
    "SharedNormal",
    "Softmax",
    "StudentT",
]
