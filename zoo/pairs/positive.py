"""Pairs of numbers above 0."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from zoo.catalogue import register
from zoo.pairs.programs import Positive, VAEOptions, vae

if TYPE_CHECKING:
    from torch import nn

    from zoo.data import Data


@dataclass(frozen=True)
class LogNormalOptions(VAEOptions):
    """``floor`` is the smallest variance of the logarithm; None for none."""

    floor: Positive | None = None


@register(
    "log-normal",
    title="Log-normal",
    summary="The logarithm is normal, with a learned variance.",
    formula="p(x|z) = ∏ⱼ N(log xⱼ; μⱼ(z), σⱼ²(z)) / xⱼ",
    support="positive",
    bounded=False,
    bounded_if="with floor, if the values stay away from 0",
    reference="Aitchison & Brown (1957), The Lognormal Distribution",
    link="https://docs.scipy.org/doc/scipy/reference/generated/scipy.stats.lognorm.html",
    remedies=("gaussian-constrained", "gaussian-identity"),
)
def log_normal(data: Data, options: LogNormalOptions) -> tuple[nn.Module, nn.Module]:
    """A VAE of LogNormal columns."""
    from zoo.models.emissions import LogNormal

    return vae(data, options, LogNormal(options.floor or 0.0), "positive")


@register(
    "gamma",
    title="Gamma",
    summary="Learned mean and shape: a deviation in proportion to the mean.",
    formula="p(x|z) = ∏ⱼ Gamma(xⱼ; shape kⱼ(z), mean μⱼ(z))",
    support="positive",
    bounded=False,
    reference="McCullagh & Nelder (1989), Generalized Linear Models, chapter 8",
    link="https://doi.org/10.1201/9780203753736",
    remedies=("gaussian-constrained", "gaussian-identity"),
)
def gamma(data: Data, options: VAEOptions) -> tuple[nn.Module, nn.Module]:
    """A VAE of Gamma columns."""
    from zoo.models.emissions import Gamma

    return vae(data, options, Gamma(), "positive")
