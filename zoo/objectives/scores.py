"""Proper scores of p(x | z) in the place of its density."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated

import torch
from annotated_types import Gt, Lt
from torch import Tensor

from zoo.densities import crps, each_feature
from zoo.errors import OptionError, Unknown
from zoo.objectives.lower_bound import Loss, Program, Weight, reward, terms, traces
from zoo.parts import register_objective

__all__ = ["CRPS"]


@register_objective(
    "crps",
    summary="Continuous ranked probability scores in the place of a likelihood; no bound on the evidence.",
    reference="An & Jeon (2023), Distributional Learning of Variational AutoEncoder",
    link="https://arxiv.org/abs/2302.11294",
)
@dataclass(frozen=True)
class CRPS:
    r"""Minus the continuous ranked probability score of each column given z, and minus the KL term; not an ELBO.

    .. math:: - \frac{1}{2 \beta} E_{q(z \mid x)} \sum_j \int (F_j(y) - [y \ge x_j])^2 \, dy - KL

    Never above 0, whatever the density does: the score is twice the mean pinball loss of all quantiles, and
    none is negative. For ``QuantileSpline`` columns, and normal ones, where it is minimum
    CRPS estimation (Gneiting et al. 2005, https://doi.org/10.1175/MWR2904.1). The score is in units of the columns, and
    not in nats: beta says how much of it the KL term is worth. The terms named after the ELBO are those of the density.
    DistVAE minimises score / 2 + beta KL, averaged over the batch, with beta = 0.5.

    Args:
        beta: of the published loss, score / 2 + beta KL.
    """

    beta: Annotated[float, Gt(0), Lt(math.inf)] = 0.5

    def __call__(self, model: Program, guide: Program, x: Tensor, kl_weight: Weight = 1.0) -> Loss:
        """The loss of a batch x, (B, D)."""
        p, q = traces(model, guide, x)
        try:
            each = each_feature(p.nodes["x"]["fn"])
            score = crps(each, torch.where(x.isnan(), 0.0, x))
        except Unknown as reason:
            raise OptionError(f"objective crps: {reason}; that of normals and of quantile-spline is.") from reason
        total = torch.where(x.isnan(), 0.0, score).sum(-1)
        return terms(p, q, len(x)).loss_of(reward(p, q, -total / (2 * self.beta)), kl_weight)
