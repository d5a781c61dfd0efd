"""Pairs for columns of levels, and of zeros and ones: masses, bounded by 0."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from annotated_types import Ge, Le

from zoo.cards import Preset
from zoo.catalogue import register
from zoo.errors import DataError
from zoo.pairs.programs import Positive, VAEOptions, vae

if TYPE_CHECKING:
    from torch import nn

    from zoo.data import Data


PIXEL_CNN = "https://github.com/openai/pixel-cnn"


@dataclass(frozen=True)
class LogisticMixtureOptions(VAEOptions):
    """``components`` is how many logistic densities are mixed for each column.

    ``smallest`` is the smallest scale, in halves of the distance from the first level to the last; None for none.
    """

    components: Annotated[int, Ge(1), Le(1000)] = 5
    smallest: Positive | None = None


def levels(data: Data) -> tuple[float, ...]:
    """The levels of ordinal data; zero and one for binary data."""
    return data.levels or (0.0, 1.0)


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
)
def bernoulli(data: Data, options: VAEOptions) -> tuple[nn.Module, nn.Module]:
    """A VAE of Bernoulli columns."""
    from zoo.models.emissions import Bernoulli

    return vae(data, options, Bernoulli(), "binary")


@register(
    "gaussian-binned",
    title="Gaussian as a mass over levels",
    summary="Like gaussian-learned, but each level has the mass of its cell: a vanishing variance gains nothing.",
    formula="P(x|z) = ∏ⱼ [Φ((xⱼ + w/2 - μⱼ)/σⱼ) - Φ((xⱼ - w/2 - μⱼ)/σⱼ)]",
    support="ordinal",
    base_measure="mass",
    bounded=True,
    bound="0",
    reference="Salimans et al. (2017), PixelCNN++, with a Gaussian for its logistic",
    link="https://arxiv.org/abs/1701.05517",
)
def gaussian_binned(data: Data, options: VAEOptions) -> tuple[nn.Module, nn.Module]:
    """A VAE of BinnedOrdinal columns."""
    from zoo.models.emissions import BinnedOrdinal

    return vae(data, options, BinnedOrdinal([levels(data)] * data.features), "ordinal")


@register(
    "categorical",
    title="Categorical",
    summary="A probability for every level of every feature, ignoring their order.",
    formula="P(x|z) = ∏ⱼ softmax(v(z)ⱼ)_xⱼ",
    support="ordinal",
    base_measure="mass",
    bounded=True,
    bound="0",
    reference="van den Oord et al. (2016), Pixel Recurrent Neural Networks",
    link="https://arxiv.org/abs/1601.06759",
)
def categorical(data: Data, options: VAEOptions) -> tuple[nn.Module, nn.Module]:
    """A VAE of LevelSoftmax columns."""
    from zoo.models.emissions import LevelSoftmax

    return vae(data, options, LevelSoftmax(levels(data)), "ordinal")


@register(
    "logistic-mixture",
    title="Logistic mixture as a mass over levels",
    summary="Several peaks for each value, integrated over the cells of levels, as in image models.",
    formula="P(x|z) = ∏ⱼ Σ_k π_kⱼ [σ((xⱼ + w/2 - μ_kⱼ)/s_kⱼ) - σ((xⱼ - w/2 - μ_kⱼ)/s_kⱼ)]",
    support="ordinal",
    base_measure="mass",
    bounded=True,
    bound="0",
    reference="Salimans et al. (2017), PixelCNN++",
    link="https://arxiv.org/abs/1701.05517",
    presets=(Preset("pixel-cnn", {"smallest": math.exp(-7)}, "log scale of at least -7; scored as a mass", PIXEL_CNN),),
)
def logistic_mixture(data: Data, options: LogisticMixtureOptions) -> tuple[nn.Module, nn.Module]:
    """A VAE of LogisticMixtureOrdinal columns."""
    from zoo.models.emissions import LogisticMixtureOrdinal

    emission = LogisticMixtureOrdinal([levels(data)] * data.features, options.components, options.smallest or 0.0)
    return vae(data, options, emission, "ordinal")


@register(
    "cumulative-logit",
    title="Cumulative logits",
    summary="Levels as intervals of a logistic variable, with learned ends per column: for ratings and other orders.",
    formula="P(xⱼ ≤ levelₖ|z) = σ(θₖⱼ - hⱼ(z))",
    support="ordinal",
    base_measure="mass",
    bounded=True,
    bound="0",
    reference="McCullagh (1980), Regression Models for Ordinal Data",
    link="https://doi.org/10.1111/j.2517-6161.1980.tb01109.x",
)
def cumulative_logit(data: Data, options: VAEOptions) -> tuple[nn.Module, nn.Module]:
    """A VAE of CumulativeOrdinal columns."""
    from zoo.models.emissions import CumulativeOrdinal

    return vae(data, options, CumulativeOrdinal([levels(data)] * data.features), "ordinal")


@register(
    "beta-binomial",
    title="Beta-binomial",
    summary="Overdispersed counts out of a known total, which is the highest level.",
    formula="P(x|z) = ∏ⱼ BetaBin(xⱼ; n, κⱼ(z) mⱼ(z), κⱼ(z)(1 - mⱼ(z)))",
    support="ordinal",
    base_measure="mass",
    bounded=True,
    bound="0",
    reference="Skellam (1948), A Probability Distribution Derived from the Binomial Distribution",
    link="https://docs.scipy.org/doc/scipy/reference/generated/scipy.stats.betabinom.html",
)
def beta_binomial(data: Data, options: VAEOptions) -> tuple[nn.Module, nn.Module]:
    """A VAE of BetaBinomial columns."""
    from zoo.models.emissions import BetaBinomial

    every = levels(data)
    if every != tuple(map(float, range(len(every)))):
        raise DataError(
            f"beta-binomial takes counts out of a total, 0, 1, 2, ..., and the levels of {data.name} are {every[0]:g}, "
            f"{every[1]:g}, ..., {every[-1]:g}: number them from 0, or choose cumulative-logit or gaussian-binned."
        )
    return vae(data, options, BetaBinomial(len(every) - 1), "ordinal")
