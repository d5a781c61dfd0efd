"""Pairs for counts: masses, bounded by 0, with and without overdispersion."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from zoo.catalogue import register
from zoo.pairs.programs import VAEOptions, vae

if TYPE_CHECKING:
    from torch import nn

    from zoo.data import Data


@dataclass(frozen=True)
class DispersionOptions(VAEOptions):
    """``dispersion`` is one number per column, or one per column and datum that depends on z."""

    dispersion: Literal["column", "datum"] = "column"


@register(
    "poisson",
    title="Poisson",
    summary="Counts whose variance is their mean.",
    formula="P(x|z) = ∏ⱼ exp(-λⱼ(z)) λⱼ(z)^xⱼ / xⱼ!",
    support="count",
    base_measure="mass",
    bounded=True,
    bound="0",
    reference="Nazábal et al. (2020), Handling incomplete heterogeneous data using VAEs, with an exact mass",
    link="https://arxiv.org/abs/1807.03653",
)
def poisson(data: Data, options: VAEOptions) -> tuple[nn.Module, nn.Module]:
    """A VAE of Poisson columns."""
    from zoo.models.emissions import Poisson

    return vae(data, options, Poisson(), "count")


@register(
    "negative-binomial",
    title="Negative binomial",
    summary="Overdispersed counts, with a dispersion per column, or per column and datum.",
    formula="P(x|z) = ∏ⱼ NB(xⱼ; μⱼ(z), kⱼ),  variance μ + μ²/k",
    support="count",
    base_measure="mass",
    bounded=True,
    bound="0",
    reference="Lopez et al. (2018), Deep Generative Modeling for Single-cell Transcriptomics",
    link="https://doi.org/10.1038/s41592-018-0229-2",
)
def negative_binomial(data: Data, options: DispersionOptions) -> tuple[nn.Module, nn.Module]:
    """A VAE of NegativeBinomial or ColumnNegativeBinomial columns."""
    from zoo.models.emissions import ColumnNegativeBinomial, NegativeBinomial

    by_column = options.dispersion == "column"
    return vae(data, options, ColumnNegativeBinomial(data.features) if by_column else NegativeBinomial(), "count")


@register(
    "zero-inflated-negative-binomial",
    title="Zero-inflated negative binomial",
    summary="A negative binomial with extra zeros.",
    formula="P(x|z) = ∏ⱼ [πⱼ(z) [xⱼ = 0] + (1 - πⱼ(z)) NB(xⱼ; μⱼ(z), kⱼ(z))]",
    support="count",
    base_measure="mass",
    bounded=True,
    bound="0",
    reference="Lopez et al. (2018), Deep Generative Modeling for Single-cell Transcriptomics",
    link="https://doi.org/10.1038/s41592-018-0229-2",
)
def zero_inflated_negative_binomial(data: Data, options: VAEOptions) -> tuple[nn.Module, nn.Module]:
    """A VAE of ZeroInflatedNegativeBinomial columns."""
    from zoo.models.emissions import ZeroInflatedNegativeBinomial

    return vae(data, options, ZeroInflatedNegativeBinomial(), "count")
