"""Differences of log gammas, whose large terms cancel."""

import torch
from torch import Tensor

__all__ = ["log_rise"]

STIRLING = 32.0  # from here on the omitted terms are below rounding in double precision


def log_rise(a: Tensor, x: Tensor | float) -> Tensor:
    r"""Log of the rising factorial of a over a power of a, without the difference of two large log gammas.

    .. math:: \sum_{i=0}^{x-1} \log (1 + i / a) = \log \Gamma(a + x) - \log \Gamma(a) - x \log a
    """
    large = a > STIRLING
    small, great = torch.where(large, 1.0, a), torch.where(large, a, STIRLING)
    direct = (small + x).lgamma() - small.lgamma() - x * small.log()
    by_series = (great + x - 0.5) * (x / great).log1p() - x + _beyond_stirling(great + x) - _beyond_stirling(great)
    return torch.where(large, by_series, direct)


def _beyond_stirling(a: Tensor) -> Tensor:
    """What is missing of log gamma(a) in (a - 1/2) log a - a + (1/2) log 2 pi."""
    r = a.reciprocal().square()
    return (1 - r * (1 / 30 - r / 105)) / (12 * a)
