"""Pairs with more than a standard normal z: a discrete latent as well."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from zoo.catalogue import register
from zoo.pairs.normal import ConstrainedOptions
from zoo.pairs.programs import Width, decoder, guide

if TYPE_CHECKING:
    from torch import nn

    from zoo.data import Data


@dataclass(frozen=True)
class ClusteredOptions(ConstrainedOptions):
    """``components`` is the number of clusters."""

    components: Width = 10


@register(
    "gmvae",
    title="Gaussian mixture VAE",
    summary="Like gaussian-constrained, with z from one of several learned clusters: bounded.",
    formula="p(x) = Σ_c π_c ∫ N(x; μ(z), diag σ²(z)) N(z; m_c, diag s_c²) dz,  σ²(z) = floor + exp v(z)",
    support="real",
    bounded=True,
    bound="-(D/2) log(2π floor)",
    reference="Jiang et al. (2017), Variational Deep Embedding",
    link="https://arxiv.org/abs/1611.05148",
)
def gmvae(data: Data, options: ClusteredOptions) -> tuple[nn.Module, nn.Module]:
    """A GaussianMixtureVAE of ConstrainedNormal columns."""
    from zoo.guides import WithComponent
    from zoo.models import GaussianMixtureVAE
    from zoo.models.emissions import ConstrainedNormal

    network = decoder(data, options, ConstrainedNormal.outputs)
    model = GaussianMixtureVAE(network, options.latent_dim, ConstrainedNormal(options.floor), options.components)
    return model, WithComponent(guide(data, options), model)
