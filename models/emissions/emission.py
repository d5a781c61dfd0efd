"""What every emission is: a likelihood of columns, without the network that it hangs on."""

import math

import pyro.distributions as dist
from torch import Tensor, nn

__all__ = ["Emission", "MassEmission"]


class Emission(nn.Module):
    """From numbers, ``outputs`` of them for a column, to the distribution of d columns that has them for parameters.

    A subclass says ``outputs`` and writes :meth:`forward`. It may also have, and need not:

    - ``start(x)``: the numbers to begin with, (outputs, d), from the training part x (N, d): a decoder's are added.
    - ``settled``: names of buffers that are fixed from data, and that the distribution depends on.

    Values are in the units that the model sees: real columns standardised, positive ones divided by their standard
    deviation, those of the unit interval, counts, levels, zeros and ones and the numbers of categories as they are.
    """

    outputs: int

    def forward(self, parameters: Tensor) -> dist.TorchDistribution:
        """From (..., outputs, d) to a distribution of batch shape (..., d), or of event shape (d,) for a joint one."""
        raise NotImplementedError

    def log_density_bound(self) -> float:
        """The least upper bound of the log density or mass of one column: infinity, unless it is known."""
        return math.inf


class MassEmission(Emission):
    """One of values that are counted: each has a probability."""

    def log_density_bound(self) -> float:
        """0: a probability is at most 1."""
        return 0.0
