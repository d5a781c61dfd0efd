"""Emissions of positive columns."""

import pyro.distributions as dist
from torch import Tensor

from .emission import Emission

__all__ = ["LogNormal"]


class LogNormal(Emission):
    r"""A log-normal: the logarithm is normal, of a variance that is at least a floor.

    .. math:: p(x_j \mid z) = \frac{1}{x_j} N(\log x_j; \mu_j, \xi + e^{v_j}) \le \frac{1}{x_j \sqrt{2 \pi \xi}}

    At any given data that is bounded over the parameters; over x it is not, where x goes to 0.

    Args:
        floor: xi, a variance of log x.

    >>> import torch
    >>> bool((LogNormal(0.01)(torch.zeros(2, 1)).sample((9,)) > 0).all())
    True
    """

    outputs = 2

    def __init__(self, floor: float) -> None:
        super().__init__()
        self.floor = floor

    def forward(self, parameters: Tensor) -> dist.TorchDistribution:
        """From (mu, v), (..., 2, d)."""
        mean, log_excess = parameters.unbind(-2)
        return dist.LogNormal(mean, (self.floor + log_excess.exp()).sqrt())
