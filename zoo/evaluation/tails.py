"""How heavy the tail of importance weights is: the shape k of a generalised Pareto distribution."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np

__all__ = ["pareto_k"]

Floats: TypeAlias = np.ndarray[Any, np.dtype[np.float64]]

FEWEST_FOR_K = 25  # the tail is a fifth of the weights, and at least five
ROUNDING = 1e-3  # nats: weights of an exact guide differ by at most this in single precision
LOST = 0.1  # nats: if neighbouring floats near a log weight are this far apart, the tail is only rounding
AT_ONCE = 2**18  # numbers in a block of fits: fits into the second-level cache


def pareto_k(log_weights: np.ndarray[Any, Any]) -> Floats:
    """Shape k of the generalised Pareto distribution fitted to the largest weights, (K, N) to (N,).

    Below 0.5 the estimate is good, up to 0.7 usable, above it cannot be trusted. Minus infinity if all weights, or the
    largest ones, are equal up to rounding; infinity if one weight dominates, or the numbers are so large that rounding
    exceeds a tenth of a nat; NaN if there are too few for a tail, or some are NaN. The tail is the min(K / 5, 3 √K)
    largest of K weights (Vehtari et al. 2024, https://arxiv.org/abs/1507.02646).

    >>> uniform = np.random.default_rng(0).uniform(size=(20000, 1))
    >>> bool(abs(pareto_k(-0.8 * np.log(uniform)) - 0.8) < 0.1)
    True
    """
    draws, n = log_weights.shape
    if draws < FEWEST_FOR_K:
        return np.full(n, np.nan)
    highest = log_weights.max(0)
    k = np.where(np.isfinite(highest), -np.inf, np.nan)
    lost = np.isfinite(highest) & (np.spacing(np.abs(highest)) > LOST)
    k[lost] = np.inf
    size = int(min(draws / 5, 3 * draws**0.5))
    for block in np.array_split(np.flatnonzero(np.isfinite(highest) & ~lost), -(-n * draws // AT_ONCE) or 1):
        relative = log_weights[:, block].astype(np.float64) - highest[block]
        weights = np.sort(np.exp(relative), 0)
        tail = weights[-size:] - weights[-size - 1]
        varying = (relative.min(0) < -ROUNDING) & (weights[-size] < weights[-1])
        alone = weights.sum(0) - 1 < np.finfo(float).eps
        k[block[varying]] = np.where(alone[varying], np.inf, _shape(tail[:, varying]))
    return k


def _shape(x: Floats) -> Floats:
    """Shape k of generalised Pareto distributions fitted to ascending draws x, (M, N) to (N,).

    With θ = -k/σ the likelihood is maximal over k at k(θ) = Σᵢ log(1 - θ xᵢ) / M, with value
    exp M (log(-θ/k(θ)) - k(θ) - 1). The estimate of θ is its mean under that likelihood over a grid (Zhang & Stephens
    2009, https://doi.org/10.1198/tech.2009.08017), and k is shrunk towards 1/2 as if by ten more draws (Vehtari et al.
    2024). Infinite if a quarter of the draws is zero.
    """
    m = len(x)
    points = 30 + int(m**0.5)
    spread = (1 - np.sqrt(points / (np.arange(points) + 0.5))) / 3
    with np.errstate(all="ignore"):  # an extremely heavy tail overflows in the fit
        theta = spread[:, None] / x[int(m / 4 + 0.5) - 1] + 1 / x[-1]
        k = np.stack([np.log1p(-one * x).mean(0) for one in theta])
        likelihood = m * (np.log(-theta / k) - k - 1)
        weights = np.exp(likelihood - likelihood.max(0))
        mean = (theta * weights).sum(0) / weights.sum(0)
        shape = (m * np.log1p(-mean * x).mean(0) + 10 / 2) / (m + 10)
    found: Floats = np.where(np.isfinite(shape), shape, np.inf)
    return found
