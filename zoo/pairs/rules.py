"""Pairs with a Gaussian head, trained by rules other than the ELBO."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from zoo.catalogue import register
from zoo.pairs.programs import CURES, PerceptronOptions, VAEOptions, Width, decoder, guide, vae

if TYPE_CHECKING:
    from torch import nn

    from zoo.data import Data
    from zoo.models import Emission


@dataclass(frozen=True)
class PrecisionOptions(VAEOptions):
    """``precisions`` is their prior: a gamma, those of some training rows, or a mixture whose weights z decides.

    ``components`` are that many training rows, or gammas of learned shapes and rates; "vbem" has a grid of 144 gammas.
    """

    precisions: Literal["gamma", "vamp", "vbem", "vbem-learned"] = "gamma"
    components: Width = 20


@register(
    "gaussian-faithful",
    title="Gaussian, faithful",
    summary="Like gaussian-learned, but the mean is trained as with a fixed variance, the variance on the residuals.",
    formula="p(x|z) = N(x; μ(z), diag σ²(z))",
    support="real",
    bounded=False,
    reference="Stirn et al. (2023), Faithful Heteroscedastic Regression with Neural Networks",
    link="https://arxiv.org/abs/2212.09184",
    objective="faithful",
    remedies=CURES,
)
def gaussian_faithful(data: Data, options: PerceptronOptions) -> tuple[nn.Module, nn.Module]:
    """A VAE of LearnedNormal columns, with a FaithfulDecoder."""
    from zoo.models.emissions import LearnedNormal

    return _faithful(data, options, LearnedNormal())


@register(
    "gaussian-split",
    title="Gaussian, mean and variance apart",
    summary="A mean trained as under a fixed variance, and a gamma-distributed precision for the rest: Student-t.",
    formula="p(x|z) = ∏ⱼ ∫ N(xⱼ; μⱼ(z), 1/λ) Gamma(λ; αⱼ(z), βⱼ(z)) dλ",
    support="real",
    bounded=False,
    reference="Detlefsen et al. (2019), Reliable Training and Estimation of Variance Networks, their split training",
    link="https://arxiv.org/abs/1906.03260",
    objective="split",
    remedies=CURES,
)
def gaussian_split(data: Data, options: PerceptronOptions) -> tuple[nn.Module, nn.Module]:
    """A VAE of GammaPrecision columns, with a FaithfulDecoder."""
    from zoo.models.emissions import GammaPrecision

    return _faithful(data, options, GammaPrecision())


def _faithful(data: Data, options: PerceptronOptions, emission: Emission) -> tuple[nn.Module, nn.Module]:
    from zoo.models import VAE
    from zoo.networks import FaithfulDecoder

    network: Any = decoder(data, options, emission.outputs)
    return VAE(FaithfulDecoder(*network), options.latent_dim, emission), guide(data, options)


@register(
    "gaussian-beta-nll",
    title="Gaussian, β-NLL",
    summary="Like gaussian-learned, but each column's log density is weighted by a power of its variance.",
    formula="p(x|z) = N(x; μ(z), diag σ²(z))",
    support="real",
    bounded=False,
    reference="Seitzer et al. (2022), On the Pitfalls of Heteroscedastic Uncertainty Estimation",
    link="https://arxiv.org/abs/2203.09168",
    objective="beta-nll",
    remedies=CURES,
)
def gaussian_beta_nll(data: Data, options: VAEOptions) -> tuple[nn.Module, nn.Module]:
    """A VAE of LearnedNormal columns."""
    from zoo.models.emissions import LearnedNormal

    return vae(data, options, LearnedNormal())


@register(
    "gaussian-map-gamma",
    title="Gaussian, gamma prior on precisions",
    summary="Like gaussian-learned, with a gamma prior on each precision: penalized, not cured.",
    formula="p(x|z) = N(x; μ(z), diag σ²(z)),  σⱼ⁻²(z) ~ Gamma(1, 0.001)",
    support="real",
    bounded=False,
    bounded_if="if the prior's shape is at least 1/2, as by default",
    bounds="objective",
    reference="Stirn & Knowles (2020), Variational Variance",
    link="https://arxiv.org/abs/2006.04910",
    objective="map-gamma",
    remedies=CURES,
)
def gaussian_map_gamma(data: Data, options: VAEOptions) -> tuple[nn.Module, nn.Module]:
    """A VAE of LearnedNormal columns."""
    from zoo.models.emissions import LearnedNormal

    return vae(data, options, LearnedNormal())


@register(
    "gaussian-v3ae",
    title="Gaussian, variational variance",
    summary="A gamma posterior over each precision, integrated out to a Student-t, with its own training bound.",
    formula="p(x|z) = ∏ⱼ ∫ N(xⱼ; μⱼ(z), 1/λ) Gamma(λ; αⱼ(z), βⱼ(z)) dλ",
    support="real",
    bounded=False,
    bounded_if="with precisions=gamma or vbem, through the divergence from that prior; the scored density is not",
    bounds="objective",
    reference="Stirn & Knowles (2020), Variational Variance",
    link="https://arxiv.org/abs/2006.04910",
    objective="variational-variance",
    remedies=CURES,
)
def gaussian_v3ae(data: Data, options: PrecisionOptions) -> tuple[nn.Module, nn.Module]:
    """A VAE of GammaPrecision columns."""
    from zoo.models import VAE, MixturePrecisionVAE, PseudoPrecisionVAE
    from zoo.models.emissions import GammaPrecision

    network, size = decoder(data, options, GammaPrecision.outputs), (options.components, data.features)
    of = network, options.latent_dim, GammaPrecision()
    made = {
        "gamma": lambda: VAE(*of),
        "vamp": lambda: PseudoPrecisionVAE(*of, rows=size),
        "vbem": lambda: MixturePrecisionVAE(*of),
        "vbem-learned": lambda: MixturePrecisionVAE(*of, learned=size),
    }
    return made[options.precisions](), guide(data, options)
