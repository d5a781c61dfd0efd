"""Emissions: likelihoods of columns without a network, from parameters to a distribution.

There is a file for each support; :class:`Emission` is their base.
"""

from .beta import Beta
from .categorical import Bernoulli, LevelSoftmax, Softmax
from .count import (
    BetaBinomial,
    ColumnNegativeBinomial,
    NegativeBinomial,
    Poisson,
    ZeroInflatedNegativeBinomial,
)
from .emission import Emission, MassEmission
from .joint import FullNormal, LowRankNormal
from .mixed import Columns, EachColumn, PerColumn
from .normal import (
    LOWER_QUANTILE,
    SPREAD,
    ColumnNormal,
    ConstrainedNormal,
    FixedNormal,
    LearnedNormal,
    NaturalNormal,
    OptimalNormal,
    QuantileNormal,
    RatioNormal,
    SharedNormal,
)
from .ordinal import BinnedOrdinal, CumulativeOrdinal, LogisticMixtureOrdinal
from .positive import Gamma, LogNormal
from .real import GammaPrecision, Laplace, Logistic, StudentT
from .spline import QuantileSpline
from .truncated import TruncatedNormal
from .unit import ContinuousBernoulli, LogitNormal

__all__ = [
    "LOWER_QUANTILE",
    "SPREAD",
    "Bernoulli",
    "Beta",
    "BetaBinomial",
    "BinnedOrdinal",
    "ColumnNegativeBinomial",
    "ColumnNormal",
    "Columns",
    "ConstrainedNormal",
    "ContinuousBernoulli",
    "CumulativeOrdinal",
    "EachColumn",
    "Emission",
    "FixedNormal",
    "FullNormal",
    "Gamma",
    "GammaPrecision",
    "Laplace",
    "LearnedNormal",
    "LevelSoftmax",
    "LogNormal",
    "Logistic",
    "LogisticMixtureOrdinal",
    "LogitNormal",
    "LowRankNormal",
    "MassEmission",
    "NaturalNormal",
    "NegativeBinomial",
    "OptimalNormal",
    "PerColumn",
    "Poisson",
    "QuantileNormal",
    "QuantileSpline",
    "RatioNormal",
    "SharedNormal",
    "Softmax",
    "StudentT",
    "TruncatedNormal",
    "ZeroInflatedNegativeBinomial",
]
