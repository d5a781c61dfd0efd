"""Gaussian mixtures: the oldest model with the trap, and its cures."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

from annotated_types import Gt, Lt

from zoo.catalogue import register
from zoo.pairs.programs import Positive, Width

if TYPE_CHECKING:
    from torch import nn

    from zoo.data import Data


@dataclass(frozen=True)
class MixtureOptions:
    """``components`` Gaussians with covariances of the given form; "spherical" is one variance in scaled units."""

    components: Width = 10
    covariance: Literal["diagonal", "full", "spherical", "tied"] = "diagonal"


@dataclass(frozen=True)
class ConstrainedMixtureOptions(MixtureOptions):
    """``floor`` is the smallest covariance eigenvalue allowed, a variance in scaled units."""

    floor: Positive = 0.01


@dataclass(frozen=True)
class PenalizedMixtureOptions(MixtureOptions):
    """``smallest`` is the least variance the prior expects of a column, in scaled units."""

    smallest: Positive = 0.01


@dataclass(frozen=True)
class RatioMixtureOptions(MixtureOptions):
    """``ratio`` is the most the largest covariance eigenvalue may be, over all components, relative to the smallest."""

    ratio: Annotated[float, Gt(1), Lt(math.inf)] = 100.0


@register(
    "gmm",
    title="Gaussian mixture",
    summary="The oldest model with the trap: a component settles on one datum and its covariance vanishes.",
    formula="p(x) = Σ_c π_c N(x; μ_c, Σ_c)",
    support="real",
    bounded=False,
    reference="Day (1969), Estimating the components of a mixture of normal distributions",
    link="https://doi.org/10.1093/biomet/56.3.463",
    guide="enumeration",
    unknown=("cells",),
    learning_rate=1e-2,
    remedies=("gmm-constrained",),
)
def gmm(data: Data, options: MixtureOptions) -> tuple[nn.Module, nn.Module]:
    """A GaussianMixture without a floor."""
    from zoo.guides import ExactPosterior
    from zoo.models import GaussianMixture

    model = GaussianMixture(options.components, data.features, options.covariance)
    return model, ExactPosterior(model)


@register(
    "gmm-constrained",
    title="Gaussian mixture, Σ ≥ floor",
    summary="A Gaussian mixture with a floor under every covariance eigenvalue: bounded.",
    formula="p(x) = Σ_c π_c N(x; μ_c, Σ_c),  Σ_c = floor I + T_c T_cᵀ",
    support="real",
    bounded=True,
    bound="-(D/2) log(2π floor)",
    reference="Hathaway (1985), A Constrained Formulation of Maximum-Likelihood Estimation for Normal Mixtures",
    link="https://doi.org/10.1214/aos/1176349557",
    guide="enumeration",
    unknown=("cells",),
    learning_rate=1e-2,
)
def gmm_constrained(data: Data, options: ConstrainedMixtureOptions) -> tuple[nn.Module, nn.Module]:
    """A GaussianMixture with a floor."""
    from zoo.guides import ExactPosterior
    from zoo.models import GaussianMixture

    model = GaussianMixture(options.components, data.features, options.covariance, options.floor)
    return model, ExactPosterior(model)


@register(
    "gmm-map",
    title="Gaussian mixture, prior on Σ",
    summary="A Gaussian mixture with an inverse-Wishart prior on each covariance, which keeps it away from zero.",
    formula="p(x) = Σ_c π_c N(x; μ_c, Σ_c),  Σ_c ~ IW(D + 2, Λ)",
    support="real",
    bounded=False,
    bounded_if="since Λ is positive definite",
    bounds="penalized likelihood",
    reference="Fraley & Raftery (2007), Bayesian Regularization for Normal Mixture Estimation",
    link="https://doi.org/10.1007/s00357-007-0004-5",
    guide="enumeration",
    unknown=("cells",),
    objective="penalized",
    learning_rate=1e-2,
    remedies=("gmm-constrained",),
)
def gmm_map(data: Data, options: PenalizedMixtureOptions) -> tuple[nn.Module, nn.Module]:
    """A PenalizedMixture."""
    from zoo.guides import ExactPosterior
    from zoo.models import PenalizedMixture

    model = PenalizedMixture(options.components, data.features, options.covariance, options.smallest)
    return model, ExactPosterior(model)


@register(
    "gmm-ratio",
    title="Gaussian mixture, eigenvalue ratio ≤ c",
    summary="A Gaussian mixture in which no covariance eigenvalue is more than c times another.",
    formula="p(x) = Σ_c π_c N(x; μ_c, Σ_c),  max λ / min λ ≤ c over all Σ_c",
    support="real",
    bounded=False,
    bounded_if="if there are more distinct data than components",
    reference="Hathaway (1985), A Constrained Formulation of Maximum-Likelihood Estimation for Normal Mixtures",
    link="https://doi.org/10.1214/aos/1176349557",
    guide="enumeration",
    unknown=("cells",),
    learning_rate=1e-2,
    remedies=("gmm-constrained",),
)
def gmm_ratio(data: Data, options: RatioMixtureOptions) -> tuple[nn.Module, nn.Module]:
    """A GaussianMixture with a bounded ratio of eigenvalues."""
    from zoo.guides import ExactPosterior
    from zoo.models import GaussianMixture

    model = GaussianMixture(options.components, data.features, options.covariance, ratio=options.ratio)
    return model, ExactPosterior(model)
