"""Pairs for real columns with other tails than the normal's, and normals with columns correlated given z."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from annotated_types import Ge, Lt

from zoo.cards import Preset
from zoo.catalogue import register
from zoo.pairs.programs import CURES, Positive, VAEOptions, Width, vae

if TYPE_CHECKING:
    from torch import nn

    from zoo.data import Data

# the code each preset takes its floor from
STIRN = "https://github.com/astirn/variational-variance"
NOT_MIWAE = "https://github.com/nbip/notMIWAE"
MIWAE = "https://github.com/pamattei/miwae"
SOS_VAE = "https://github.com/biomedia-mira/sos-vae"


@dataclass(frozen=True)
class ScaleOptions(VAEOptions):
    """``smallest`` is the smallest scale allowed, in scaled units; None for none."""

    smallest: Positive | None = None


@dataclass(frozen=True)
class SplineOptions(VAEOptions):
    """``smallest`` is the least slope of the quantile function, and scale of its tails, in scaled units; None for none.

    The objective asks nothing of the density, so that without one a tail soon has none to speak of.
    """

    smallest: Positive | None = 0.1


@dataclass(frozen=True)
class StudentOptions(ScaleOptions):
    """``least_df`` is the lower limit of the degrees of freedom: 2 for a variance, 1 for a mean."""

    least_df: Annotated[float, Ge(0), Lt(1e6)] = 0.0


@dataclass(frozen=True)
class LowRankOptions(VAEOptions):
    """``rank`` is that of the covariance without its diagonal; ``floor`` is the diagonal's least variance or None."""

    rank: Width = 2
    floor: Positive | None = None


@register(
    "student-t",
    title="Student-t",
    summary="Heavier tails than a normal, learned for each value: single wild values cost little.",
    formula="p(x|z) = ∏ⱼ t_νⱼ(z)(xⱼ; μⱼ(z), sⱼ(z))",
    support="real",
    bounded=False,
    bounded_if="with smallest, by -D log(smallest √(2π))",
    reference="Takahashi et al. (2018), Student-t Variational Autoencoder for Robust Density Estimation",
    link="https://doi.org/10.24963/ijcai.2018/374",
    remedies=("student-t[smallest=0.1]", *CURES),
    presets=(
        Preset("takahashi", {"smallest": 1e-6, "least_df": 3.0}, "scale = softplus + 1e-6, df = softplus + 3", STIRN),
        Preset("miwae", {"smallest": 1e-3, "least_df": 3.0}, "scale = softplus + 1e-3, df = softplus + 3", MIWAE),
        Preset(
            "not-miwae",
            {"smallest": 1e-4 + math.log1p(math.exp(-10)), "least_df": 3.0},
            "scale = softplus of at least -10, + 1e-4, df = softplus + 3",
            NOT_MIWAE,
        ),
    ),
)
def student_t(data: Data, options: StudentOptions) -> tuple[nn.Module, nn.Module]:
    """A VAE of StudentT columns."""
    from zoo.models.emissions import StudentT

    return vae(data, options, StudentT(options.smallest or 0.0, options.least_df))


@register(
    "laplace",
    title="Laplace",
    summary="Absolute error instead of squared, with a learned scale.",
    formula="p(x|z) = ∏ⱼ exp(-|xⱼ - mⱼ(z)|/bⱼ(z)) / 2bⱼ(z)",
    support="real",
    bounded=False,
    bounded_if="with smallest, by -D log(2 smallest)",
    reference="Laplace (1774), Mémoire sur la probabilité des causes par les évènements",
    link="https://doi.org/10.1214/ss/1177013620",
    remedies=("laplace[smallest=0.1]", *CURES),
)
def laplace(data: Data, options: ScaleOptions) -> tuple[nn.Module, nn.Module]:
    """A VAE of Laplace columns."""
    from zoo.models.emissions import Laplace

    return vae(data, options, Laplace(options.smallest or 0.0))


@register(
    "logistic",
    title="Logistic",
    summary="Tails like a Laplace's with a round top; over cells, the discretised logistic of image models.",
    formula="p(x|z) = ∏ⱼ sech²((xⱼ - mⱼ(z))/2sⱼ(z)) / 4sⱼ(z)",
    support="real",
    bounded=False,
    bounded_if="with smallest, by -D log(4 smallest)",
    reference="Kingma et al. (2016), Improved Variational Inference with Inverse Autoregressive Flow, as a density",
    link="https://arxiv.org/abs/1606.04934",
    remedies=("logistic[smallest=0.1]", *CURES),
)
def logistic(data: Data, options: ScaleOptions) -> tuple[nn.Module, nn.Module]:
    """A VAE of Logistic columns."""
    from zoo.models.emissions import Logistic

    return vae(data, options, Logistic(options.smallest or 0.0))


@register(
    "quantile-spline",
    title="Quantile spline by CRPS",
    summary="A quantile function in ten pieces, of any shape, trained by ranked probability scores.",
    formula="p(x|z) = ∏ⱼ 1/Qⱼ'(a; z),  xⱼ = Qⱼ(a; z)",
    support="real",
    bounded=False,
    bounded_if="with smallest, as by default, by -D log smallest",
    reference="An & Jeon (2023), DistVAE, with slopes in any order and exponential tails",
    link="https://arxiv.org/abs/2302.11294",
    objective="crps",
    remedies=("quantile-spline[smallest=0.1]", *CURES),
)
def quantile_spline(data: Data, options: SplineOptions) -> tuple[nn.Module, nn.Module]:
    """A VAE of QuantileSpline columns."""
    from zoo.models.emissions import QuantileSpline

    return vae(data, options, QuantileSpline(options.smallest or 0.0))


@register(
    "gaussian-low-rank",
    title="Gaussian, low-rank covariance",
    summary="Columns are correlated given z, by a few more factors; one direction is enough for a collapse.",
    formula="p(x|z) = N(x; μ(z), F(z)F(z)ᵀ + diag σ²(z))",
    support="real",
    bounded=False,
    bounded_if="with floor, by -(D/2) log(2π floor)",
    reference="Monteiro et al. (2020), Stochastic Segmentation Networks",
    link="https://arxiv.org/abs/2006.06015",
    unknown=("cells",),
    remedies=("gaussian-low-rank[floor=0.01]", *CURES),
    presets=(Preset("sos-vae", {"rank": 25, "floor": 1e-5}, "diagonal of 1e-5, which is fixed there", SOS_VAE),),
)
def gaussian_low_rank(data: Data, options: LowRankOptions) -> tuple[nn.Module, nn.Module]:
    """A VAE of LowRankNormal columns."""
    from zoo.models.emissions import LowRankNormal

    return vae(data, options, LowRankNormal(options.rank, options.floor or 0.0))


@register(
    "gaussian-full",
    title="Gaussian, full covariance",
    summary="Any covariance, by the Cholesky factor of its inverse; for tables of few columns.",
    formula="p(x|z) = N(x; μ(z), (A(z)ᵀA(z))⁻¹)",
    support="real",
    bounded=False,
    reference="Dorta et al. (2018), Structured Uncertainty Prediction Networks",
    link="https://arxiv.org/abs/1802.07079",
    unknown=("cells",),
    remedies=("gaussian-low-rank[floor=0.01]", *CURES),
)
def gaussian_full(data: Data, options: VAEOptions) -> tuple[nn.Module, nn.Module]:
    """A VAE of FullNormal columns."""
    from zoo.models.emissions import FullNormal

    return vae(data, options, FullNormal(data.features))
