"""Pairs of columns of levels, and of zeros and ones: masses, bounded by 0."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zoo.catalogue import register
from zoo.pairs.programs import VAEOptions, vae

if TYPE_CHECKING:
    from torch import nn

    from zoo.data import Data


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
    guides=("mean-field", "full-rank"),
)
def bernoulli(data: Data, options: VAEOptions) -> tuple[nn.Module, nn.Module]:
    """A VAE of Bernoulli columns."""
    from zoo.models.emissions import Bernoulli

    return vae(data, options, Bernoulli(), "binary")


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
    """A VAE of BinnedOrdinal columns."""
    from zoo.models.emissions import BinnedOrdinal

    every, center, scale = [levels(data)] * data.features, data.scaling.center, data.scaling.scale
    return vae(data, options, BinnedOrdinal(every, center.tolist(), scale.tolist()), "ordinal")


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
    """A VAE of LevelSoftmax columns."""
    from zoo.models.emissions import LevelSoftmax

    return vae(data, options, LevelSoftmax(levels(data)), "ordinal")
