"""Predictions of one feature: PIT, CRPS and log density, from weighted draws of the latents."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["PREDICTIVE_DRAWS", "Predictions", "crps", "predicted", "randomised"]

PREDICTIVE_DRAWS = 100  # per datum: 50 already find a shift or a scale as often as 1000 do


class Predictions(NamedTuple):
    """For every feature of every datum, (N, D): PIT, CRPS in scaled units, and log density or mass."""

    pit: Tensor
    crps: Tensor
    log_density: Tensor

    def where_observed(self, x: Tensor) -> Predictions:
        """The same, with NaN for missing entries of x."""
        return Predictions(*(values.masked_fill(x.isnan(), torch.nan) for values in self))


class Draws(NamedTuple):
    """The ingredients of predictions of x_j, by datum, draw of the latents and feature.

    Attributes:
        log_weights: log weights of the draws, (N, K).
        log_p: log p(x_j | z_k, x_-j), (N, K, D); the next three have the same shape.
        below: P(X_j < x_j) given z_k.
        upto: P(X_j <= x_j) given z_k.
        drawn: a draw of X_j given z_k.
        uniform: two uniform numbers for each feature, (N, 2, D).
    """

    log_weights: Tensor
    log_p: Tensor
    below: Tensor
    upto: Tensor
    drawn: Tensor
    uniform: Tensor


def predicted(draws: Draws, x: Tensor) -> tuple[Predictions, Tensor]:
    r"""Predictions of each x_j, (N, D), from draws that have seen it, and log weights without it, (N, K, D).

    .. math:: p(x_j \mid x_{-j}) = \frac{\sum_k v_k \, p(x_j \mid z_k)}{\sum_k v_k}, \qquad
              v_k = \frac{w_k}{p(x_j \mid z_k)}
    """
    log_v = draws.log_weights[..., None] - draws.log_p
    v = log_v.softmax(1)
    log_density = draws.log_weights.logsumexp(1)[:, None] - log_v.logsumexp(1)
    below, upto = ((v * end).sum(1) for end in (draws.below, draws.upto))
    u, start = draws.uniform[:, 0], draws.uniform[:, 1]
    chosen = draws.drawn.mT.gather(-1, _systematic(v.mT, start, PREDICTIVE_DRAWS))
    return Predictions(randomised(below, upto, u), crps(chosen, x), log_density), log_v


def crps(draws: Tensor, x: Tensor) -> Tensor:
    r"""The continuous ranked probability score of a predictive distribution given by M draws; lower is better.

    .. math:: \mathrm{CRPS}(F, x) = E |X - x| - \tfrac{1}{2} E |X - X'|

    unbiased for any M. Gneiting & Raftery (2007), https://doi.org/10.1198/016214506000001437

    >>> float(crps(torch.tensor([1.0, 3.0]), torch.tensor(2.0)))
    0.0

    Args:
        draws: shape (..., M).
        x: shape (...), broadcast against the draws.
    """
    count = draws.shape[-1]
    rank = torch.arange(1 - count, count, 2, dtype=draws.dtype)
    spread = draws.sort(-1).values @ rank / (count * (count - 1))
    return (draws - x[..., None]).abs().mean(-1) - spread


def randomised(below: Tensor, upto: Tensor, uniform: Tensor) -> Tensor:
    """P(X < x) + u P(X = x) for a uniform u, which is uniform if x is distributed like X."""
    return (below + uniform * (upto - below)).clamp(0, 1)  # weights have rounding errors


def _systematic(weights: Tensor, start: Tensor, count: int) -> Tensor:
    """Indices (..., count) drawn by weights (..., K) that sum to one: systematic resampling from a start (...)."""
    at = (torch.arange(count) + start[..., None]) / count
    return torch.searchsorted(weights.cumsum(-1), at).clamp(max=weights.shape[-1] - 1)
