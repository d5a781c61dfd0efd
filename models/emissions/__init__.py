"""Emissions: likelihoods of columns without a network, from numbers to the distribution that has them for parameters.

Each says how many numbers it takes for its columns, ``outputs``, and maps them, (..., outputs, d), to a distribution of
batch shape (..., d); ``log_density_bound()`` is the least upper bound of a column's log density or mass. Values are in
the units that the model sees: real columns standardised, positive ones divided by their standard deviation, counts,
levels, zeros and ones and the numbers of categories as they are.
"""

from .categorical import Bernoulli, Softmax
from .count import NegativeBinomial, Poisson
from .ordinal import BinnedOrdinal, CumulativeOrdinal
from .positive import LogNormal
from .real import ConstrainedNormal, LearnedNormal, SharedNormal, StudentT

__all__ = [
    "Bernoulli",
    "BinnedOrdinal",
    "ConstrainedNormal",
    "CumulativeOrdinal",
    "LearnedNormal",
    "LogNormal",
    "NegativeBinomial",
    "Poisson",
    "SharedNormal",
    "Softmax",
    "StudentT",
]
