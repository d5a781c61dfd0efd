"""Normal emissions whose columns depend on each other given z, in standardised units."""

import math

import pyro.distributions as dist
import torch
from torch import Tensor

from ..ordinal import LOG_ROOT_TAU
from .emission import Emission

__all__ = ["FullNormal", "LowRankNormal"]


class LowRankNormal(Emission):
    r"""A low-rank covariance plus a diagonal.

    .. math:: p(x \mid z) = N(x; \mu, F F^\top + \mathrm{diag}(\xi + e^v)) \le (2 \pi \xi)^{-D/2}

    Without the floor it is unbounded, and one direction is enough for a collapse.

    Monteiro et al. (2020), Stochastic Segmentation Networks, https://arxiv.org/abs/2006.06015

    Args:
        rank: the rank of F, (d, rank).
        floor: xi, a variance; 0 for none, and no bound.

    >>> LowRankNormal(rank=2)(torch.zeros(5, 4, 3)).event_shape
    torch.Size([3])
    """

    def __init__(self, rank: int, floor: float = 0.0) -> None:
        super().__init__()
        self.outputs, self.floor = 2 + rank, floor

    def forward(self, parameters: Tensor) -> dist.TorchDistribution:
        """From (mu, v, F'), (..., 2 + rank, d)."""
        mean, log_excess = parameters[..., 0, :], parameters[..., 1, :]
        return dist.LowRankMultivariateNormal(mean, parameters[..., 2:, :].mT, self.floor + log_excess.exp())

    def log_density_bound(self) -> float:
        """-(1/2) log(2 pi xi), infinite without a floor."""
        return -LOG_ROOT_TAU - math.log(self.floor) / 2 if self.floor else math.inf


class FullNormal(Emission):
    r"""Any covariance, by the Cholesky factor of its inverse: each column is regressed on those before it.

    .. math:: p(x \mid z) = N(x; \mu, (A^\top A)^{-1}), \qquad
              A = \mathrm{diag}(e^{a_{jj}}) + \text{the } a_{jk}, k < j

    Unbounded, and earlier than a diagonal: one direction is enough for a collapse.

    Pourahmadi (1999), https://doi.org/10.1093/biomet/86.3.677; for a decoder Dorta et al. (2018),
    https://arxiv.org/abs/1802.07079

    Args:
        columns: d; the decoder gives 1 + d numbers for each.

    >>> FullNormal(3)(torch.zeros(5, 4, 3)).variance[0]
    tensor([1., 1., 1.])
    """

    def __init__(self, columns: int) -> None:
        super().__init__()
        self.outputs = 1 + columns

    def forward(self, parameters: Tensor) -> dist.TorchDistribution:
        """From (mu, a'), (..., 1 + d, d)."""
        mean, rows = parameters[..., 0, :], parameters[..., 1:, :].mT
        factor = rows.tril(-1) + torch.diag_embed(rows.diagonal(dim1=-2, dim2=-1).exp())
        identity = torch.eye(factor.shape[-1], dtype=factor.dtype, device=factor.device).expand_as(factor)
        return dist.MultivariateNormal(mean, scale_tril=torch.linalg.solve_triangular(factor, identity, upper=False))
