"""Pairs for numbers from 0 to 1; if these are levels, they are scored by the masses of their cells."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from annotated_types import Gt, Lt

from zoo.cards import Preset
from zoo.catalogue import register
from zoo.pairs.programs import VAEOptions, vae

if TYPE_CHECKING:
    from torch import nn

    from zoo.data import Data

CURES = ("gaussian-constrained", "gaussian-identity")
CB = "https://github.com/cunningham-lab/cb_and_cc"


@dataclass(frozen=True)
class ClippedOptions(VAEOptions):
    """``clip`` is how near the Bernoulli's probability may come to 0 and 1; None for as near as it likes."""

    clip: Annotated[float, Gt(0), Lt(0.5)] | None = None


@register(
    "continuous-bernoulli",
    title="Continuous Bernoulli",
    summary="A Bernoulli's formula as a normalised density: for grey values, where a Bernoulli lacks its constant.",
    formula="p(x|z) = ∏ⱼ C(λⱼ(z)) λⱼ(z)^xⱼ (1-λⱼ(z))^(1-xⱼ)",
    support="unit",
    bounded=False,
    bounded_if="if no value is exactly 0 or 1, where it grows like the log of a logit; or with clip",
    reference="Loaiza-Ganem & Cunningham (2019), The Continuous Bernoulli: Fixing a Pervasive Error in VAEs",
    link="https://arxiv.org/abs/1907.06845",
    remedies=CURES,
    presets=(Preset("cb", {"clip": 1e-4}, "λ clipped to at least 1e-4 and at most 1 - 1e-4", CB),),
)
def continuous_bernoulli(data: Data, options: ClippedOptions) -> tuple[nn.Module, nn.Module]:
    """A VAE of ContinuousBernoulli columns."""
    from zoo.models.emissions import ContinuousBernoulli

    return vae(data, options, ContinuousBernoulli(options.clip or 0.0), "unit")


@register(
    "beta",
    title="Beta",
    summary="Learned mean and concentration; values of exactly 0 or 1 have no density.",
    formula="p(x|z) = ∏ⱼ Beta(xⱼ; κⱼ(z) mⱼ(z), κⱼ(z)(1 - mⱼ(z)))",
    support="unit",
    bounded=False,
    reference="Ferrari & Cribari-Neto (2004), Beta Regression for Modelling Rates and Proportions",
    link="https://doi.org/10.1080/0266476042000214501",
    remedies=CURES,
)
def beta(data: Data, options: VAEOptions) -> tuple[nn.Module, nn.Module]:
    """A VAE of Beta columns."""
    from zoo.models.emissions import Beta

    return vae(data, options, Beta(), "unit")


@register(
    "logit-normal",
    title="Logit-normal",
    summary="The logit is normal; values of exactly 0 or 1 have no density.",
    formula="p(x|z) = ∏ⱼ N(logit xⱼ; μⱼ(z), σⱼ²(z)) / xⱼ(1-xⱼ)",
    support="unit",
    bounded=False,
    reference="Aitchison & Shen (1980), Logistic-Normal Distributions: Some Properties and Uses",
    link="https://doi.org/10.1093/biomet/67.2.261",
    remedies=CURES,
)
def logit_normal(data: Data, options: VAEOptions) -> tuple[nn.Module, nn.Module]:
    """A VAE of LogitNormal columns."""
    from zoo.models.emissions import LogitNormal

    return vae(data, options, LogitNormal(), "unit")


@register(
    "truncated-normal",
    title="Truncated normal",
    summary="A normal truncated to [0, 1], whose location may lie outside.",
    formula="p(x|z) = ∏ⱼ N(xⱼ; μⱼ(z), σⱼ²(z)) / [Φ((1-μⱼ)/σⱼ) - Φ(-μⱼ/σⱼ)]",
    support="unit",
    bounded=False,
    reference="Ipsen, Mattei & Frellsen (2021), not-MIWAE, whose code has such a decoder",
    link="https://arxiv.org/abs/2006.12871",
    remedies=CURES,
)
def truncated_normal(data: Data, options: VAEOptions) -> tuple[nn.Module, nn.Module]:
    """A VAE of TruncatedNormal columns."""
    from zoo.models.emissions import TruncatedNormal

    return vae(data, options, TruncatedNormal(), "unit")
