"""The base of emissions: a likelihood of columns, without its network."""

import math

import pyro.distributions as dist
from torch import Tensor, nn

__all__ = ["Emission", "MassEmission"]


class Emission(nn.Module):
    """From ``outputs`` parameters per column to the distribution of d columns.

    A subclass sets ``outputs`` and writes :meth:`forward`. Optional:

    - ``start(x)``: the initial parameters, (outputs, d), from the training part x (N, d); the decoder's are added.
    - ``settled``: names of buffers fixed from data on which the distribution depends.

    Values are in the model's units: real columns standardised, positive ones divided by their standard deviation;
    numbers in the unit interval, counts, levels, zeros and ones and category numbers are unchanged.
    """

    outputs: int

    def forward(self, parameters: Tensor) -> dist.TorchDistribution:
        """From (..., outputs, d) to a distribution of batch shape (..., d), or of event shape (d,) for a joint one."""
        raise NotImplementedError

    def log_density_bound(self) -> float:
        """The least upper bound of the log density or mass of one column: infinity, unless it is known."""
        return math.inf


class MassEmission(Emission):
    """An emission of discrete values: each has a probability."""

    def log_density_bound(self) -> float:
        """0: a probability is at most 1."""
        return 0.0
