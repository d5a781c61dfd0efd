"""Pairs for real columns with a linear decoder: evidence, posterior and best parameters are known."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from zoo.catalogue import register
from zoo.pairs.programs import CURES, Width

if TYPE_CHECKING:
    from torch import nn

    from zoo.data import Data


@dataclass(frozen=True)
class LinearOptions:
    """``latent_dim`` factors."""

    latent_dim: Width = 8


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
    guide="exact",
    learning_rate=1e-2,
    remedies=CURES,
    in_scaled_units="one variance for all columns",
)
def linear_shared(data: Data, options: LinearOptions) -> tuple[nn.Module, nn.Module]:
    """A ProbabilisticPCA model."""
    from zoo.guides import ClosedFormNormal
    from zoo.models import ProbabilisticPCA

    model = ProbabilisticPCA(data.features, options.latent_dim)
    return model, ClosedFormNormal(model)


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
    guide="exact",
    learning_rate=1e-2,
    remedies=CURES,
)
def linear_diagonal(data: Data, options: LinearOptions) -> tuple[nn.Module, nn.Module]:
    """A FactorAnalysis model."""
    from zoo.guides import ClosedFormNormal
    from zoo.models import FactorAnalysis

    model = FactorAnalysis(data.features, options.latent_dim)
    return model, ClosedFormNormal(model)
