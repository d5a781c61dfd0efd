"""The zoo's own pairs: what each claims, and the model and guide it is made of.

Cards are plain data, so that listing them is instant; torch and pyro are imported when a pair is built.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast

from annotated_types import Ge, Gt, Le, Lt, MinLen

from zoo.catalogue import register
from zoo.supports import encoded

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import nn

    from zoo.data import Data
    from zoo.guides import FullRankNormal, MeanFieldNormal
    from zoo.models import LinearGaussian
    from zoo.supports import Column

__all__ = [
    "ConstrainedMixtureOptions",
    "ConstrainedOptions",
    "IdentityOptions",
    "MixtureOptions",
    "VAEOptions",
    "decoder",
    "encoder",
    "guide",
]

Width = Annotated[int, Ge(1), Le(1_000_000)]
Positive = Annotated[float, Gt(0), Lt(math.inf)]


@dataclass(frozen=True)
class VAEOptions:
    """What every VAE can be told.

    ``hidden`` is the width of each hidden layer of the encoder, from the data inwards (its channels, for
    ``network="conv"``); the decoder mirrors it.
    """

    latent_dim: Width = 8
    hidden: Annotated[tuple[Width, ...], MinLen(1)] = (128,)
    activation: Literal["tanh", "relu", "gelu", "silu", "softplus"] = "tanh"
    network: Literal["mlp", "conv"] = "mlp"
    guide: Literal["mean-field", "full-rank"] = "mean-field"


@dataclass(frozen=True)
class ConstrainedOptions(VAEOptions):
    """``floor`` is the smallest variance allowed, in scaled units."""

    floor: Positive = 0.01


@dataclass(frozen=True)
class IdentityOptions(VAEOptions):
    """``scale`` is the decoder's fixed standard deviation, in scaled units."""

    scale: Positive = 1.0


@dataclass(frozen=True)
class ClippedOptions(VAEOptions):
    """``soft_clip`` is the smallest log of a standard deviation, in scaled units (TVAE: log 0.01; None for none)."""

    soft_clip: Annotated[float, Gt(-math.inf), Lt(math.inf)] | None = None


@dataclass(frozen=True)
class SharedOptions(ClippedOptions):
    """``soft_clip`` is the smallest log of the standard deviation, in scaled units (sigma-VAE's is -6; None for none).

    ``optimal`` takes the best variance for each batch instead of learning one; the best for the training part is fixed
    before anything is scored.
    """

    optimal: bool = False


@dataclass(frozen=True)
class RatioOptions(VAEOptions):
    """``ratio`` is how many times the smallest variance the largest may be, over all features and latents."""

    ratio: Annotated[float, Gt(1), Lt(math.inf)] = 100.0


@dataclass(frozen=True)
class TwoStageOptions:
    """``hidden`` are the layers of the first stage's encoder, ``second_hidden`` those of the second's."""

    latent_dim: Width = 8
    hidden: Annotated[tuple[Width, ...], MinLen(1)] = (128,)
    second_hidden: Annotated[tuple[Width, ...], MinLen(1)] = (64,)
    activation: Literal["tanh", "relu", "gelu", "silu", "softplus"] = "tanh"
    network: Literal["mlp", "conv"] = "mlp"


@dataclass(frozen=True)
class LinearOptions:
    """``guide="exact"`` is the posterior in closed form, "linear" one of the same family that is learned."""

    latent_dim: Width = 8
    guide: Literal["exact", "linear"] = "exact"


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
    """``smallest`` is the least variance that the prior expects of a column, in scaled units."""

    smallest: Positive = 0.01


@dataclass(frozen=True)
class RatioMixtureOptions(MixtureOptions):
    """``ratio`` is how many times the smallest covariance eigenvalue the largest may be, over all components."""

    ratio: Annotated[float, Gt(1), Lt(math.inf)] = 100.0


def decoder(data: Data, options: VAEOptions | TwoStageOptions, outputs: int) -> nn.Module:
    """The network from z (..., L) to ``outputs`` numbers a feature, (..., outputs, D)."""
    from zoo.networks import NETWORKS

    shape = data.image_shape or (data.features,)
    return NETWORKS[options.network].decoder(shape, options.hidden, options.activation, outputs, options.latent_dim)


def encoder(data: Data, options: VAEOptions | TwoStageOptions, outputs: int) -> nn.Module:
    """The network from x (..., D) to ``outputs`` numbers a latent, (..., outputs, L), told of gaps if there are any."""
    from zoo.networks import NETWORKS, Masked

    shape = data.image_shape or (data.features,)
    if data.missing:  # as many channels more say which entries were observed
        shape = (2 * shape[0],) if len(shape) == 1 else (2 * math.prod(shape[:-2]), *shape[-2:])
    build = NETWORKS[options.network].encoder
    network = build(shape, options.hidden, options.activation, outputs, options.latent_dim)
    return Masked(network) if data.missing else network


def guide(data: Data, options: VAEOptions) -> nn.Module:
    """The guide that the options name, with its encoder."""
    kind = _guides()[options.guide]
    return kind(encoder(data, options, kind.outputs(options.latent_dim)))


def _guides() -> dict[str, type[MeanFieldNormal | FullRankNormal]]:
    from zoo.guides import FullRankNormal, MeanFieldNormal

    return {"mean-field": MeanFieldNormal, "full-rank": FullRankNormal}


def linear_guide(model: LinearGaussian, options: LinearOptions) -> nn.Module:
    """The guide of a linear model that the options name."""
    from zoo.guides import ClosedFormNormal, LinearNormal

    kinds: dict[str, Callable[[], nn.Module]]
    kinds = {
        "exact": lambda: ClosedFormNormal(model),
        "linear": lambda: LinearNormal(model.decoder.out_features, model.latent_dim),
    }
    return kinds[options.guide]()


def standardized_guide(data: Data, options: VAEOptions) -> nn.Module:
    """The same for a likelihood that sees the data unscaled: its encoder scales them for itself."""
    from zoo.networks import Standardized

    plain: Any = guide(data, options)
    plain.encoder = Standardized(plain.encoder, data.scaling.center, data.scaling.scale)
    return cast("nn.Module", plain)


def levels(data: Data) -> tuple[float, ...]:
    """The levels of ordinal data; zero and one for binary data."""
    return data.levels or (0.0, 1.0)


@register(
    "gaussian-learned",
    title="Gaussian, learned variance",
    summary="Mean and diagonal covariance both depend on z. Its likelihood is unbounded: the trap itself.",
    formula="p(x|z) = N(x; μ(z), diag σ²(z))",
    support="real",
    bounded=False,
    reference="Kingma & Welling (2014), Auto-Encoding Variational Bayes, appendix C.2",
    link="https://arxiv.org/abs/1312.6114",
    guides=("mean-field", "full-rank"),
    remedies=("gaussian-constrained", "gaussian-identity", "gaussian-binned"),
)
def gaussian_learned(data: Data, options: VAEOptions) -> tuple[nn.Module, nn.Module]:
    """A LearnedVariance decoder."""
    from zoo.models import LearnedVariance

    network = decoder(data, options, LearnedVariance.outputs)
    return LearnedVariance(network, options.latent_dim), guide(data, options)


@register(
    "gaussian-constrained",
    title="Gaussian, variance ≥ floor",
    summary="As gaussian-learned, but no eigenvalue of the covariance falls below a floor: bounded.",
    formula="p(x|z) = N(x; μ(z), diag σ²(z)),  σ²(z) = floor + exp v(z)",
    support="real",
    bounded=True,
    bound="-(D/2) log(2π floor)",
    reference="Mattei & Frellsen (2018), Leveraging the Exact Likelihood of Deep Latent Variable Models",
    link="https://arxiv.org/abs/1802.04826",
    guides=("mean-field", "full-rank"),
)
def gaussian_constrained(data: Data, options: ConstrainedOptions) -> tuple[nn.Module, nn.Module]:
    """A ConstrainedVariance decoder."""
    from zoo.models import ConstrainedVariance

    network = decoder(data, options, ConstrainedVariance.outputs)
    return ConstrainedVariance(network, options.latent_dim, options.floor), guide(data, options)


@register(
    "gaussian-identity",
    title="Gaussian, fixed variance",
    summary="Mean only, covariance scale² I: squared error with its constant kept.",
    formula="p(x|z) = N(x; μ(z), scale² I)",
    support="real",
    bounded=True,
    bound="-(D/2) log(2π scale²)",
    reference="Kingma & Welling (2014), with the covariance fixed: the common squared-error VAE",
    link="https://arxiv.org/abs/1312.6114",
    guides=("mean-field", "full-rank"),
    in_scaled_units="one fixed standard deviation for all columns",
)
def gaussian_identity(data: Data, options: IdentityOptions) -> tuple[nn.Module, nn.Module]:
    """A FixedVariance decoder."""
    from zoo.models import FixedVariance

    network = decoder(data, options, FixedVariance.outputs)
    return FixedVariance(network, options.latent_dim, options.scale), guide(data, options)


@register(
    "gaussian-shared",
    title="Gaussian, one shared variance",
    summary="One learned variance for all: no datum is collapsed onto alone; all together may be, where the mean fits.",
    formula="p(x|z) = N(x; μ(z), σ² I)",
    support="real",
    bounded=False,
    bounded_if="if the decoder's mean cannot pass through every datum, or with soft_clip",
    reference="Rybkin et al. (2021), Simple and Effective VAE Training with Calibrated Decoders",
    link="https://arxiv.org/abs/2006.13202",
    guides=("mean-field", "full-rank"),
    remedies=("gaussian-constrained", "gaussian-identity", "gaussian-binned"),
    in_scaled_units="one variance for all columns",
)
def gaussian_shared(data: Data, options: SharedOptions) -> tuple[nn.Module, nn.Module]:
    """A SharedVariance or OptimalVariance decoder."""
    from zoo.models import OptimalVariance, SharedVariance

    kind = OptimalVariance if options.optimal else SharedVariance
    network = decoder(data, options, kind.outputs)
    return kind(network, options.latent_dim, options.soft_clip), guide(data, options)


@register(
    "gaussian-column",
    title="Gaussian, one variance a column",
    summary="One learned variance for each column, whatever z: the commonest. A column of few values still collapses.",
    formula="p(x|z) = N(x; μ(z), diag σ²)",
    support="real",
    bounded=False,
    bounded_if="if the decoder's mean cannot pass through all values of any column, or with soft_clip",
    reference="Xu et al. (2019), Modeling Tabular Data using Conditional GAN, without TVAE's clamp of σ",
    link="https://arxiv.org/abs/1907.00503",
    guides=("mean-field", "full-rank"),
    remedies=("gaussian-constrained", "gaussian-identity", "gaussian-binned"),
)
def gaussian_column(data: Data, options: ClippedOptions) -> tuple[nn.Module, nn.Module]:
    """A ColumnVariance decoder."""
    from zoo.models import ColumnVariance

    network = decoder(data, options, ColumnVariance.outputs)
    return ColumnVariance(network, options.latent_dim, data.features, options.soft_clip), guide(data, options)


@register(
    "gaussian-map",
    title="Gaussian, prior on the decoder",
    summary="As gaussian-learned, with a N(0, I) prior on the decoder's weights and biases: penalized, not cured.",
    formula="p(x|z) = N(x; μ(z), diag σ²(z)),  θ ~ N(0, I)",
    support="real",
    bounded=False,
    bounded_if="with bounded hidden units (activation tanh), by D(H+1)n/8 - (D/2) log 2π per datum",
    bounds="penalized likelihood",
    reference="Kingma & Welling (2014), Auto-Encoding Variational Bayes, appendix C.2",
    link="https://arxiv.org/abs/1312.6114",
    guides=("mean-field", "full-rank"),
    objective="penalized",
    remedies=("gaussian-constrained", "gaussian-identity", "gaussian-binned"),
)
def gaussian_map(data: Data, options: VAEOptions) -> tuple[nn.Module, nn.Module]:
    """A PenalizedVariance decoder."""
    from zoo.models import PenalizedVariance

    network = decoder(data, options, PenalizedVariance.outputs)
    return PenalizedVariance(network, options.latent_dim), guide(data, options)


@register(
    "gaussian-ratio",
    title="Gaussian, variance ratio ≤ c",
    summary="As gaussian-learned, but no variance is more than c times another: no datum is collapsed onto alone.",
    formula="p(x|z) = N(x; μ(z), diag σ²(z)),  σ²(z) = e^b c^sigmoid v(z)",
    support="real",
    bounded=False,
    bounded_if="if the decoder's mean cannot pass through every datum",
    reference="Hathaway (1985), A Constrained Formulation of Maximum-Likelihood Estimation, for a decoder",
    link="https://doi.org/10.1214/aos/1176349557",
    guides=("mean-field", "full-rank"),
    remedies=("gaussian-constrained", "gaussian-identity", "gaussian-binned"),
)
def gaussian_ratio(data: Data, options: RatioOptions) -> tuple[nn.Module, nn.Module]:
    """A RatioVariance decoder."""
    from zoo.models import RatioVariance

    network = decoder(data, options, RatioVariance.outputs)
    return RatioVariance(network, options.latent_dim, options.ratio), guide(data, options)


@register(
    "gaussian-quantile",
    title="Gaussian by quantile regression",
    summary="Median and 15 % quantile by pinball losses; scored by the normal that has them, which was not maximized.",
    formula="p(x|z) = N(x; Q₅₀(z), diag ((Q₅₀ - Q₁₅)(z)/1.0364)²)",
    support="real",
    bounded=False,
    bounded_if="always, by 0; the plug-in density that is scored is not",
    bounds="objective",
    reference="Akrami et al. (2020), Addressing Variance Shrinkage in VAEs using Quantile Regression",
    link="https://arxiv.org/abs/2010.09042",
    guides=("mean-field", "full-rank"),
    objective="quantile",
    remedies=("gaussian-constrained", "gaussian-identity", "gaussian-binned"),
)
def gaussian_quantile(data: Data, options: VAEOptions) -> tuple[nn.Module, nn.Module]:
    """A QuantileDecoder."""
    from zoo.models import QuantileDecoder

    return QuantileDecoder(decoder(data, options, QuantileDecoder.outputs), options.latent_dim), guide(data, options)


@register(
    "gaussian-two-stage",
    title="Gaussian in two stages",
    summary="A VAE with one learned variance, and a second VAE that learns what the first one's latents look like.",
    formula="p(x) = ∫∫ N(x; μ₁(z), γ₁² I) N(z; μ₂(u), γ₂² I) N(u; 0, I) dz du",
    support="real",
    bounded=False,
    bounded_if="if the decoder's mean cannot pass through every datum",
    reference="Dai & Wipf (2019), Diagnosing and Enhancing VAE Models",
    link="https://arxiv.org/abs/1903.05789",
    guides=("mean-field",),
    objective="two-stage",
    remedies=("gaussian-constrained", "gaussian-identity", "gaussian-binned"),
    in_scaled_units="one variance for all columns",
)
def gaussian_two_stage(data: Data, options: TwoStageOptions) -> tuple[nn.Module, nn.Module]:
    """A TwoStage model."""
    from zoo.guides import TwoStageNormal
    from zoo.models import SharedVariance, TwoStage
    from zoo.networks import NETWORKS

    width, build = options.latent_dim, NETWORKS["mlp"]
    outer = encoder(data, options, 2)
    first = SharedVariance(decoder(data, options, SharedVariance.outputs), width)
    layers = ((width,), options.second_hidden, options.activation)
    inner = build.encoder(*layers, 2, width)
    second = SharedVariance(build.decoder(*layers, SharedVariance.outputs, width), width)
    return TwoStage(first, second), TwoStageNormal(outer, inner)


@register(
    "linear-shared",
    title="Linear, one shared variance",
    summary="Probabilistic PCA, a VAE with a linear decoder: its evidence, posterior and best parameters are known.",
    formula="p(x|z) = N(x; Wz + b, σ² I)",
    support="real",
    bounded=False,
    bounded_if="if the training data lie in no proper affine subspace of at most latent_dim dimensions",
    reference="Tipping & Bishop (1999), Probabilistic Principal Component Analysis",
    link="https://doi.org/10.1111/1467-9868.00196",
    guides=("exact", "linear"),
    learning_rate=1e-2,
    remedies=("gaussian-constrained", "gaussian-identity", "gaussian-binned"),
    in_scaled_units="one variance for all columns",
)
def linear_shared(data: Data, options: LinearOptions) -> tuple[nn.Module, nn.Module]:
    """A ProbabilisticPCA model."""
    from zoo.models import ProbabilisticPCA

    model = ProbabilisticPCA(data.features, options.latent_dim)
    return model, linear_guide(model, options)


@register(
    "linear-diagonal",
    title="Linear, a variance each",
    summary="Factor analysis: its evidence and posterior are known. One variance may vanish alone, a Heywood case.",
    formula="p(x|z) = N(x; Wz + b, diag ψ)",
    support="real",
    bounded=False,
    bounded_if="if any latent_dim + 1 columns are affinely independent in training, so that none is constant",
    reference="Jöreskog (1967), Some Contributions to Maximum Likelihood Factor Analysis",
    link="https://doi.org/10.1007/BF02289658",
    guides=("exact", "linear"),
    learning_rate=1e-2,
    remedies=("gaussian-constrained", "gaussian-identity", "gaussian-binned"),
)
def linear_diagonal(data: Data, options: LinearOptions) -> tuple[nn.Module, nn.Module]:
    """A FactorAnalysis model."""
    from zoo.models import FactorAnalysis

    model = FactorAnalysis(data.features, options.latent_dim)
    return model, linear_guide(model, options)


@register(
    "bernoulli",
    title="Bernoulli",
    summary="Independent binary features given z, for data of zeros and ones only.",
    formula="P(x|z) = ∏ⱼ yⱼ(z)^xⱼ (1-yⱼ(z))^(1-xⱼ)",
    support="binary",
    base_measure="mass",
    bounded=True,
    bound="0",
    reference="Kingma & Welling (2014), Auto-Encoding Variational Bayes, appendix C.1",
    link="https://arxiv.org/abs/1312.6114",
    guides=("mean-field", "full-rank"),
)
def bernoulli(data: Data, options: VAEOptions) -> tuple[nn.Module, nn.Module]:
    """A BernoulliDecoder."""
    from zoo.models import BernoulliDecoder

    network = decoder(data, options, BernoulliDecoder.outputs)
    return BernoulliDecoder(network, options.latent_dim), guide(data, options)


@register(
    "gaussian-binned",
    title="Gaussian as a mass over levels",
    summary="As gaussian-learned, but each level has the mass of its cell: a vanishing variance gains nothing.",
    formula="P(x|z) = ∏ⱼ [Φ((xⱼ + w/2 - μⱼ)/σⱼ) - Φ((xⱼ - w/2 - μⱼ)/σⱼ)]",
    support="ordinal",
    base_measure="mass",
    bounded=True,
    bound="0",
    reference="Salimans et al. (2017), PixelCNN++, with a Gaussian for its logistic",
    link="https://arxiv.org/abs/1701.05517",
    guides=("mean-field", "full-rank"),
)
def gaussian_binned(data: Data, options: VAEOptions) -> tuple[nn.Module, nn.Module]:
    """A BinnedGaussian decoder."""
    from zoo.models import BinnedGaussian

    network = decoder(data, options, BinnedGaussian.outputs)
    model = BinnedGaussian(network, options.latent_dim, levels(data), data.scaling.center, data.scaling.scale)
    return model, standardized_guide(data, options)


@register(
    "categorical",
    title="Categorical",
    summary="A probability for every level of every feature, without regard to their order.",
    formula="P(x|z) = ∏ⱼ softmax(v(z)ⱼ)_xⱼ",
    support="ordinal",
    base_measure="mass",
    bounded=True,
    bound="0",
    reference="van den Oord et al. (2016), Pixel Recurrent Neural Networks",
    link="https://arxiv.org/abs/1601.06759",
    guides=("mean-field", "full-rank"),
)
def categorical(data: Data, options: VAEOptions) -> tuple[nn.Module, nn.Module]:
    """A CategoricalDecoder."""
    from zoo.models import CategoricalDecoder

    network = decoder(data, options, len(levels(data)))
    return CategoricalDecoder(network, options.latent_dim, levels(data)), standardized_guide(data, options)


@dataclass(frozen=True)
class MixedOptions:
    """``real``, ``positive``, ``count``, ... name the distribution that columns of that support have given z.

    ``floor`` is the smallest variance that real="constrained" and positive="log-normal" (of the logarithm) allow, in
    scaled units, and the square of the smallest scale of real="student-t".
    """

    real: Literal["learned", "constrained", "shared", "student-t"] = "learned"
    positive: Literal["log-normal"] = "log-normal"
    count: Literal["negative-binomial", "poisson"] = "negative-binomial"
    ordinal: Literal["binned", "cumulative"] = "binned"
    categorical: Literal["softmax"] = "softmax"
    binary: Literal["bernoulli"] = "bernoulli"
    floor: Positive = 0.01
    latent_dim: Width = 8
    hidden: Annotated[tuple[Width, ...], MinLen(1)] = (128,)
    activation: Literal["tanh", "relu", "gelu", "silu", "softplus"] = "tanh"
    guide: Literal["mean-field", "full-rank"] = "mean-field"


EMISSIONS: dict[str, Callable[[Any, list[Column]], nn.Module]] = {
    # by the option's value, for the columns of one support
    "learned": lambda *_: _emissions().LearnedNormal(),
    "constrained": lambda options, _: _emissions().ConstrainedNormal(options.floor),
    "shared": lambda *_: _emissions().SharedNormal(),
    "student-t": lambda options, _: _emissions().StudentT(math.sqrt(options.floor)),
    "log-normal": lambda options, _: _emissions().LogNormal(options.floor),
    "negative-binomial": lambda *_: _emissions().NegativeBinomial(),
    "poisson": lambda *_: _emissions().Poisson(),
    "binned": lambda _, columns: _emissions().BinnedOrdinal([column.levels for column in columns]),
    "cumulative": lambda _, columns: _emissions().CumulativeOrdinal([column.levels for column in columns]),
    "softmax": lambda _, columns: _emissions().Softmax([len(column.categories or ()) for column in columns]),
    "bernoulli": lambda *_: _emissions().Bernoulli(),
}


def _emissions() -> Any:
    from zoo.models import emissions

    return emissions


@register(
    "mixed",
    title="Mixed columns",
    summary="A table of columns of different kinds: each has the distribution of its support, all share the latents.",
    formula="p(x|z) = ∏ⱼ p_kind(j)(xⱼ; hⱼ(z))",
    support="mixed",
    base_measure="mixed",
    bounded=False,
    bounded_if='with real="constrained" or "student-t", or without columns of real numbers',
    reference="Nazábal et al. (2020), Handling incomplete heterogeneous data using VAEs",
    link="https://arxiv.org/abs/1807.03653",
    guides=("mean-field", "full-rank"),
    remedies=("mixed[real=constrained]",),
)
def mixed(data: Data, options: MixedOptions) -> tuple[nn.Module, nn.Module]:
    """A Mixed model, and a guide that sees each column in its own way."""
    from torch import nn

    from zoo.models import Mixed
    from zoo.networks import NETWORKS, Tabulated

    groups: dict[str, list[int]] = {}
    for j, column in enumerate(data.columns):
        groups.setdefault(column.kind.mixed_as, []).append(j)
    parts = [
        (at, EMISSIONS[getattr(options, support)](options, [data.columns[j] for j in at]))
        for support, at in groups.items()
    ]
    total, latent_dim, build = Mixed.outputs(parts), options.latent_dim, NETWORKS["mlp"]
    network = build.decoder((total,), options.hidden, options.activation, 1, latent_dim)
    model = Mixed(nn.Sequential(network, nn.Flatten(-2)), latent_dim, parts)

    encodings = [encoded(column) for column in data.columns]
    categories = [len(column.categories or ()) for column in data.columns]
    gaps = data.missing > 0
    kind = _guides()[options.guide]
    inputs = Tabulated.inputs(encodings, categories, gaps=gaps)
    encoder = build.encoder((inputs,), options.hidden, options.activation, kind.outputs(latent_dim), latent_dim)
    return model, kind(Tabulated(encoder, encodings, categories, gaps=gaps))


@register(
    "gmm",
    title="Gaussian mixture",
    summary="The oldest model with the trap: one component on one datum, its covariance vanishing.",
    formula="p(x) = Σ_c π_c N(x; μ_c, Σ_c)",
    support="real",
    bounded=False,
    reference="Day (1969), Estimating the components of a mixture of normal distributions",
    link="https://doi.org/10.1093/biomet/56.3.463",
    guides=("enumeration",),
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
    summary="A Gaussian mixture none of whose covariance eigenvalues falls below a floor: bounded.",
    formula="p(x) = Σ_c π_c N(x; μ_c, Σ_c),  Σ_c = floor I + T_c T_cᵀ",
    support="real",
    bounded=True,
    bound="-(D/2) log(2π floor)",
    reference="Hathaway (1985), A Constrained Formulation of Maximum-Likelihood Estimation for Normal Mixtures",
    link="https://doi.org/10.1214/aos/1176349557",
    guides=("enumeration",),
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
    summary="A Gaussian mixture with an inverse-Wishart prior on each covariance: penalized, and rests where data are.",
    formula="p(x) = Σ_c π_c N(x; μ_c, Σ_c),  Σ_c ~ IW(D + 2, Λ)",
    support="real",
    bounded=False,
    bounded_if="always, since Λ is positive definite",
    bounds="penalized likelihood",
    reference="Fraley & Raftery (2007), Bayesian Regularization for Normal Mixture Estimation",
    link="https://doi.org/10.1007/s00357-007-0004-5",
    guides=("enumeration",),
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
    summary="A Gaussian mixture in which no eigenvalue of any covariance is more than c times another's.",
    formula="p(x) = Σ_c π_c N(x; μ_c, Σ_c),  max λ / min λ ≤ c over all Σ_c",
    support="real",
    bounded=False,
    bounded_if="if there are more distinct data than components",
    reference="Hathaway (1985), A Constrained Formulation of Maximum-Likelihood Estimation for Normal Mixtures",
    link="https://doi.org/10.1214/aos/1176349557",
    guides=("enumeration",),
    learning_rate=1e-2,
    remedies=("gmm-constrained",),
)
def gmm_ratio(data: Data, options: RatioMixtureOptions) -> tuple[nn.Module, nn.Module]:
    """A GaussianMixture with a bounded ratio of eigenvalues."""
    from zoo.guides import ExactPosterior
    from zoo.models import GaussianMixture

    model = GaussianMixture(options.components, data.features, options.covariance, ratio=options.ratio)
    return model, ExactPosterior(model)
