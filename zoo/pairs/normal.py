"""Pairs for real columns that are normal given z: the form of the covariance decides whether they are bounded."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

from annotated_types import Gt, Lt, MinLen

from zoo.cards import Preset
from zoo.catalogue import register
from zoo.pairs.programs import CURES, Positive, VAEOptions, Width, decoder, encoder, vae

if TYPE_CHECKING:
    from torch import nn

    from zoo.data import Data

# the code each preset takes its floor from
HI_VAE = "https://github.com/probabilistic-learning/HI-VAE"
DETLEFSEN = "https://github.com/SkafteNicki/john"
SUAVE = "https://github.com/xuxu-wei/SUAVE"
BETA_NLL = "https://github.com/martius-lab/beta-nll"
TORCH_UNCERTAINTY = "https://github.com/ENSTA-U2IS-AI/torch-uncertainty"
SIGMA_VAE = "https://github.com/orybkin/sigma-vae-pytorch"
CB = "https://github.com/cunningham-lab/cb_and_cc"
TVAE = "https://github.com/sdv-dev/CTGAN"


@dataclass(frozen=True)
class ConstrainedOptions(VAEOptions):
    """``floor`` is the smallest variance allowed, in scaled units."""

    floor: Positive = 0.01


@dataclass(frozen=True)
class IdentityOptions(VAEOptions):
    """``scale`` is the decoder's fixed standard deviation, in scaled units."""

    scale: Positive = 1.0


@dataclass(frozen=True)
class NaturalOptions(VAEOptions):
    """``head`` maps the decoder's output to a precision."""

    head: Literal["softplus", "exp"] = "softplus"


@dataclass(frozen=True)
class ClippedOptions(VAEOptions):
    """``soft_clip`` is the smallest log standard deviation, in scaled units (TVAE: log 0.01; None for none)."""

    soft_clip: Annotated[float, Gt(-math.inf), Lt(math.inf)] | None = None


@dataclass(frozen=True)
class SharedOptions(ClippedOptions):
    """``soft_clip`` is the smallest log standard deviation, in scaled units (sigma-VAE: -6; None for none).

    ``optimal`` computes the best variance for each batch instead of learning one; before scoring, it is fixed to the
    best for the training part.
    """

    optimal: bool = False


@dataclass(frozen=True)
class RatioOptions(VAEOptions):
    """``ratio`` is the most the largest variance may be, over all features and latents, relative to the smallest."""

    ratio: Annotated[float, Gt(1), Lt(math.inf)] = 100.0


@dataclass(frozen=True)
class TwoStageOptions(VAEOptions):
    """``hidden`` are the layers of the first stage's encoder, ``second_hidden`` those of the second's."""

    second_hidden: Annotated[tuple[Width, ...], MinLen(1)] = (64,)


@register(
    "gaussian-learned",
    title="Gaussian, learned variance",
    summary="Mean and diagonal covariance both depend on z. The likelihood is unbounded: the trap itself.",
    formula="p(x|z) = N(x; μ(z), diag σ²(z))",
    support="real",
    bounded=False,
    reference="Kingma & Welling (2014), Auto-Encoding Variational Bayes, appendix C.2",
    link="https://arxiv.org/abs/1312.6114",
    remedies=CURES,
)
def gaussian_learned(data: Data, options: VAEOptions) -> tuple[nn.Module, nn.Module]:
    """A VAE of LearnedNormal columns."""
    from zoo.models.emissions import LearnedNormal

    return vae(data, options, LearnedNormal())


@register(
    "gaussian-constrained",
    title="Gaussian, variance ≥ floor",
    summary="Like gaussian-learned, with a floor under every eigenvalue of the covariance: bounded.",
    formula="p(x|z) = N(x; μ(z), diag σ²(z)),  σ²(z) = floor + exp v(z)",
    support="real",
    bounded=True,
    bound="-(D/2) log(2π floor)",
    reference="Mattei & Frellsen (2018), Leveraging the Exact Likelihood of Deep Latent Variable Models",
    link="https://arxiv.org/abs/1802.04826",
    presets=(
        Preset("hi-vae", {"floor": 1e-3}, "variance clipped to at least 1e-3 of the data's", HI_VAE),
        Preset("detlefsen", {"floor": 1e-4}, "variance + 1e-2, where a deviation is meant", DETLEFSEN),
        Preset("suave", {"floor": 1e-6}, "variance clipped to at least 1e-6", SUAVE),
        Preset("beta-nll", {"floor": 1e-8}, "variance = softplus + 1e-8", BETA_NLL),
        Preset("torch-uncertainty", {"floor": 1e-12}, "deviation of at least 1e-6", TORCH_UNCERTAINTY),
        Preset("cb", {"floor": 1e-12}, "deviation + 1e-6", CB),
    ),
)
def gaussian_constrained(data: Data, options: ConstrainedOptions) -> tuple[nn.Module, nn.Module]:
    """A VAE of ConstrainedNormal columns."""
    from zoo.models.emissions import ConstrainedNormal

    return vae(data, options, ConstrainedNormal(options.floor))


@register(
    "gaussian-identity",
    title="Gaussian, fixed variance",
    summary="Learned mean, covariance scale² I: squared error with its constant.",
    formula="p(x|z) = N(x; μ(z), scale² I)",
    support="real",
    bounded=True,
    bound="-(D/2) log(2π scale²)",
    reference="Kingma & Welling (2014), with the covariance fixed: the common squared-error VAE",
    link="https://arxiv.org/abs/1312.6114",
    in_scaled_units="one fixed standard deviation for all columns",
)
def gaussian_identity(data: Data, options: IdentityOptions) -> tuple[nn.Module, nn.Module]:
    """A VAE of FixedNormal columns."""
    from zoo.models.emissions import FixedNormal

    return vae(data, options, FixedNormal(options.scale))


@register(
    "gaussian-shared",
    title="Gaussian, one shared variance",
    summary="One learned variance for all: it cannot collapse on a single datum, only where the mean fits all of them.",
    formula="p(x|z) = N(x; μ(z), σ² I)",
    support="real",
    bounded=False,
    bounded_if="if the decoder's mean cannot pass through every datum, or with soft_clip",
    reference="Rybkin et al. (2021), Simple and Effective VAE Training with Calibrated Decoders",
    link="https://arxiv.org/abs/2006.13202",
    presets=(Preset("sigma-vae", {"soft_clip": -6.0}, "log deviation softly clipped at -6", SIGMA_VAE),),
    remedies=CURES,
    in_scaled_units="one variance for all columns",
)
def gaussian_shared(data: Data, options: SharedOptions) -> tuple[nn.Module, nn.Module]:
    """A VAE of SharedNormal or OptimalNormal columns."""
    from zoo.models import OptimalVAE
    from zoo.models.emissions import OptimalNormal, SharedNormal

    if options.optimal:
        return vae(data, options, OptimalNormal(options.soft_clip), kind=OptimalVAE)
    return vae(data, options, SharedNormal(options.soft_clip))


@register(
    "gaussian-column",
    title="Gaussian, one variance a column",
    summary="One learned variance per column, the same for all z. Columns of few values still collapse.",
    formula="p(x|z) = N(x; μ(z), diag σ²)",
    support="real",
    bounded=False,
    bounded_if="if the decoder's mean cannot pass through all values of any column, or with soft_clip",
    reference="Xu et al. (2019), Modeling Tabular Data using Conditional GAN, without TVAE's clamp of σ",
    link="https://arxiv.org/abs/1907.00503",
    presets=(Preset("tvae", {"soft_clip": math.log(0.01)}, "deviation clamped to at least 0.01", TVAE),),
    remedies=CURES,
)
def gaussian_column(data: Data, options: ClippedOptions) -> tuple[nn.Module, nn.Module]:
    """A VAE of ColumnNormal columns."""
    from zoo.models.emissions import ColumnNormal

    return vae(data, options, ColumnNormal(data.features, options.soft_clip))


@register(
    "gaussian-natural",
    title="Gaussian, natural parameters",
    summary="gaussian-learned by natural parameters: unbounded, and the head decides how fast it runs away.",
    formula="p(x|z) = N(x; m(z)/λ(z), diag 1/λ(z)),  λ = softplus a or exp a",
    support="real",
    bounded=False,
    reference="Immer et al. (2023), Effective Bayesian Heteroscedastic Regression with Deep Neural Networks",
    link="https://openreview.net/forum?id=A6EquH0enk",
    remedies=CURES,
)
def gaussian_natural(data: Data, options: NaturalOptions) -> tuple[nn.Module, nn.Module]:
    """A VAE of NaturalNormal columns."""
    from zoo.models.emissions import NaturalNormal

    return vae(data, options, NaturalNormal(options.head))


@register(
    "gaussian-map",
    title="Gaussian, prior on the decoder",
    summary="Like gaussian-learned, with a N(0, I) prior on the decoder's weights and biases: penalized, not cured.",
    formula="p(x|z) = N(x; μ(z), diag σ²(z)),  θ ~ N(0, I)",
    support="real",
    bounded=False,
    bounded_if="with bounded hidden units (activation tanh), by D(H+1)n/8 - (D/2) log 2π per datum",
    bounds="penalized likelihood",
    reference="Kingma & Welling (2014), Auto-Encoding Variational Bayes, appendix C.2",
    link="https://arxiv.org/abs/1312.6114",
    objective="penalized",
    remedies=CURES,
)
def gaussian_map(data: Data, options: VAEOptions) -> tuple[nn.Module, nn.Module]:
    """A PenalizedVAE of LearnedNormal columns."""
    from zoo.models import PenalizedVAE
    from zoo.models.emissions import LearnedNormal

    return vae(data, options, LearnedNormal(), kind=PenalizedVAE)


@register(
    "gaussian-ratio",
    title="Gaussian, variance ratio ≤ c",
    summary="Like gaussian-learned, but no variance exceeds c times another: it cannot collapse on a single datum.",
    formula="p(x|z) = N(x; μ(z), diag σ²(z)),  σ²(z) = e^b c^sigmoid v(z)",
    support="real",
    bounded=False,
    bounded_if="if the decoder's mean cannot pass through every datum",
    reference="Hathaway (1985), A Constrained Formulation of Maximum-Likelihood Estimation, for a decoder",
    link="https://doi.org/10.1214/aos/1176349557",
    remedies=CURES,
)
def gaussian_ratio(data: Data, options: RatioOptions) -> tuple[nn.Module, nn.Module]:
    """A VAE of RatioNormal columns."""
    from zoo.models.emissions import RatioNormal

    return vae(data, options, RatioNormal(options.ratio))


@register(
    "gaussian-quantile",
    title="Gaussian by quantile regression",
    summary="Median and 15 % quantile by pinball losses; scored by the normal with these, which is not maximised.",
    formula="p(x|z) = N(x; Q₅₀(z), diag ((Q₅₀ - Q₁₅)(z)/1.0364)²)",
    support="real",
    bounded=False,
    bounded_if="by 0; the scored plug-in density is not",
    bounds="objective",
    reference="Akrami et al. (2020), Addressing Variance Shrinkage in VAEs using Quantile Regression",
    link="https://arxiv.org/abs/2010.09042",
    objective="quantile",
    remedies=CURES,
)
def gaussian_quantile(data: Data, options: VAEOptions) -> tuple[nn.Module, nn.Module]:
    """A VAE of QuantileNormal columns."""
    from zoo.models.emissions import QuantileNormal

    return vae(data, options, QuantileNormal())


@register(
    "gaussian-two-stage",
    title="Gaussian in two stages",
    summary="A VAE with one learned variance, and a second VAE of the first one's latents.",
    formula="p(x) = ∫∫ N(x; μ₁(z), γ₁² I) N(z; μ₂(u), γ₂² I) N(u; 0, I) dz du",
    support="real",
    bounded=False,
    bounded_if="if the decoder's mean cannot pass through every datum",
    reference="Dai & Wipf (2019), Diagnosing and Enhancing VAE Models",
    link="https://arxiv.org/abs/1903.05789",
    objective="two-stage",
    remedies=CURES,
    in_scaled_units="one variance for all columns",
)
def gaussian_two_stage(data: Data, options: TwoStageOptions) -> tuple[nn.Module, nn.Module]:
    """A TwoStage model."""
    from zoo.guides import TwoStageNormal
    from zoo.models import VAE, TwoStage
    from zoo.models.emissions import SharedNormal
    from zoo.networks import NETWORKS

    width, build = options.latent_dim, NETWORKS["mlp"]
    outer = encoder(data, options, 2)
    first = VAE(decoder(data, options, SharedNormal.outputs), width, SharedNormal())
    layers = ((width,), options.second_hidden, options.activation)
    inner = build.encoder(*layers, 2, width)
    second = VAE(build.decoder(*layers, SharedNormal.outputs, width), width, SharedNormal())
    return TwoStage(first, second), TwoStageNormal(outer, inner)
