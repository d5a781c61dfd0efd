"""Emissions of levels in an order: masses that add up to 1 over the levels of a column."""

import math
from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import pyro.distributions as dist
import torch
from torch import Tensor, nn
from torch.distributions import constraints

from ..ordinal import Binned, ByMoments
from .emission import MassEmission

__all__ = ["BinnedMixture", "BinnedOrdinal", "Cumulative", "CumulativeOrdinal", "LogisticMixtureOrdinal"]

FARTHEST = 15.0  # largest log ratio of a scale to that of the levels: beyond it cells hold all or none of a component
ROUNDS = 20  # rounds of EM for the start
LITTLE = 1e-3  # least weight: a component with weight 0 learns nothing


class BinnedOrdinal(MassEmission):
    r"""The mass that a normal gives the cell of a level; the outermost cells reach to infinity.

    .. math:: P(x_j \mid z) = \Phi\!\left(\frac{x_j + w_j/2 - \mu_j}{\sigma_j}\right)
              - \Phi\!\left(\frac{x_j - w_j/2 - \mu_j}{\sigma_j}\right), \qquad
              \mu_j = c_j + s_j a_j, \quad \sigma_j = s_j e^{v_j/2}

    with c_j the middle of the levels and s_j their standard deviation. A vanishing sigma gives a level all the mass and
    no more: the logarithm is at most 0. Like the discretised logistic of Salimans et al. (2017),
    https://arxiv.org/abs/1701.05517

    Args:
        levels: of each of the d columns, increasing and equally spaced.

    >>> emission = BinnedOrdinal([[0.0, 1.0, 2.0], [2007.0, 2008.0]])
    >>> emission(torch.zeros(2, 2)).log_prob(torch.tensor([[0.0, 2007.0], [1.0, 2008.0]])).exp().sum(0) <= 1
    tensor([True, True])
    """

    outputs = 2
    low: Tensor
    high: Tensor
    width: Tensor
    middle: Tensor
    spread: Tensor

    def __init__(self, levels: Sequence[Sequence[float]]) -> None:
        super().__init__()
        of_levels = {
            "low": [column[0] for column in levels],
            "high": [column[-1] for column in levels],
            "width": [column[1] - column[0] for column in levels],
            "middle": [(column[0] + column[-1]) / 2 for column in levels],
            "spread": [np.std(column) for column in levels],
        }
        for name, values in of_levels.items():
            self.register_buffer(name, torch.as_tensor(values, dtype=torch.get_default_dtype()))
        self.count = max(map(len, levels))

    def forward(self, parameters: Tensor) -> dist.TorchDistribution:
        """From (a, v), (..., 2, d)."""
        a, v = parameters.unbind(-2)
        # a scale of 0 is allowed
        normal = dist.Normal(self.middle + self.spread * a, self.spread * (v / 2).exp(), validate_args=False)
        return Binned(normal, self.width, (self.low, self.high), levels=self.count)

    def start(self, x: Tensor) -> Tensor:
        """The mean and the variance of x, which is at least the variance within a cell."""
        mean = x.nanmean(0)
        variance = (x - mean).square().nanmean(0).maximum(self.width.square() / 12)
        return torch.stack([(mean - self.middle) / self.spread, (variance / self.spread.square()).log()])


class BinnedMixture(ByMoments, dist.MixtureSameFamily):  # type: ignore[misc]
    """A mixture of distributions that are each :class:`~zoo.models.ordinal.Binned`: a mass, at most 1."""

    def log_prob(self, x: Tensor) -> Tensor:
        """The mixture's log mass; only rounding of weights puts it above 0."""
        return super().log_prob(x).clamp(max=0.0)  # type: ignore[no-any-return]

    def _moments(self) -> tuple[Tensor, Tensor]:
        """Those of the level."""
        cells, weights = self.component_distribution, self.mixture_distribution.probs
        low, high = cells.ends
        first = second = torch.zeros_like(weights[..., 0])
        for number in range(cells.levels - 1):  # a loop, so that memory does not grow with the levels
            end = low + cells.width * (number + 0.5)
            above = torch.where(end < high, weights * (1 - cells.base.cdf(end)), 0.0).sum(-1)
            first, second = first + above, second + (2 * number + 1) * above
        low, width = low[..., 0], cells.width[..., 0]
        return low + width * first, width.square() * (second - first.square()).clamp(min=0)


class LogisticMixtureOrdinal(MassEmission):
    r"""The mass that a mixture of logistic densities gives the cell of a level; the outermost cells reach to infinity.

    .. math:: P(x_j \mid z) = \sum_k \pi_{kj} \left[
              \mathrm{sigmoid}\!\left(\frac{x_j + w_j/2 - \mu_{kj}}{s_{kj}}\right)
              - \mathrm{sigmoid}\!\left(\frac{x_j - w_j/2 - \mu_{kj}}{s_{kj}}\right) \right], \qquad
              \pi_j = \mathrm{softmax}\, l_j, \quad \mu_{kj} = c_j + t_j a_{kj}, \quad
              s_{kj} = s_0 r_j + t_j e^{v_{kj}}

    with c_j the middle of the levels, r_j half of what is from first to last and t_j their standard deviation.
    Salimans et al. (2017), PixelCNN++, https://arxiv.org/abs/1701.05517, whose code has s_0 = e^-7, and a density in
    the place of a mass below 1e-5

    Args:
        levels: of each of the d columns, increasing and equally spaced.
        components: K.
        smallest: s_0, a scale; 0 for none.

    >>> emission = LogisticMixtureOrdinal([[0.0, 1.0, 2.0]], components=4)
    >>> round(float(emission(torch.zeros(12, 1)).log_prob(torch.arange(3.0)[:, None]).exp().sum()), 6)
    1.0
    """

    def __init__(self, levels: Sequence[Sequence[float]], components: int = 10, smallest: float = 0.0) -> None:
        super().__init__()
        self.levels = BinnedOrdinal(levels)
        self.components, self.outputs, self.smallest = components, 3 * components, smallest

    def forward(self, parameters: Tensor) -> dist.TorchDistribution:
        """From K times l, K times a and K times v, (..., 3 K, d)."""
        logits, a, v = parameters.mT.unflatten(-1, (3, self.components)).unbind(-2)
        low, high, width, middle, spread = (part[:, None] for part in self.levels.buffers())
        scale = self.smallest * (high - low) / 2 + spread * v.clamp(-FARTHEST, FARTHEST).exp()
        cells = Binned(dist.Logistic(middle + spread * a, scale), width, (low, high), levels=self.levels.count)
        return BinnedMixture(dist.Categorical(logits=logits), cells)

    def start(self, x: Tensor) -> Tensor:
        """The result of a few rounds of EM from components spread over the levels; equal ones would stay equal."""
        low, high, width, middle, spread = (part[:, None] for part in self.levels.buffers())
        value = low + width * torch.arange(self.levels.count).to(x)[:, None, None]  # (V, d, 1)
        number = ((x - low[:, 0]) / width[:, 0]).round().nan_to_num().long()
        rows = torch.zeros_like(value[..., 0]).scatter_add(0, number, (~x.isnan()).to(x))
        shares = (rows / rows.sum(0))[..., None]
        step = (high - low + width) / self.components
        place = low - width / 2 + step * (torch.arange(self.components).to(x) + 0.5)
        weight, mean, variance = torch.ones_like(place), place, (step / 4).square().expand_as(place)
        for _ in range(ROUNDS):
            log_scale = (variance.maximum((width / 4).square()) * 3).sqrt() / math.pi / spread
            numbers = torch.stack([weight.log(), (mean - middle) / spread, log_scale.log()]).mT.flatten(0, 1)
            mass = self(numbers).component_distribution.log_prob(value)
            share = shares * (weight.log() + mass).softmax(-1)
            # as if a little of each component stayed at its start
            weight = share.sum(0) + LITTLE
            mean = ((share * value).sum(0) + LITTLE * place) / weight
            variance = ((share * (value - mean).square()).sum(0) + LITTLE * (step / 4).square()) / weight
        return numbers


class Cumulative(dist.TorchDistribution):  # type: ignore[misc]
    r"""Levels by cumulative logits.

    .. math:: P(x \le \mathrm{level}_k) = \mathrm{sigmoid}(\theta_k - h), \qquad k = 0, \dots, V - 2

    Args:
        position: h, shape (..., d).
        thresholds: theta, increasing, (d, V - 1); a column with fewer levels does not use the last ones.
        low, width, count: the first level, the distance between levels and their number, (d,).
    """

    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {}
    support = constraints.real

    def __init__(self, position: Tensor, thresholds: Tensor, low: Tensor, width: Tensor, count: Tensor) -> None:
        self.position, self.thresholds, self.low, self.width, self.count = position, thresholds, low, width, count
        super().__init__(position.shape, validate_args=False)

    def expand(self, batch_shape: torch.Size, _instance: object = None) -> "Cumulative":
        """The same for a larger batch."""
        position = self.position.expand(batch_shape)
        return Cumulative(position, self.thresholds, self.low, self.width, self.count)

    def ends(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Theta - h below and above the level of x, and whether it is the first and the last one."""
        k = torch.round((x - self.low) / self.width).long()
        shape = torch.broadcast_shapes(k.shape, self.position.shape)
        table, most = self.thresholds.expand(*shape, -1), self.thresholds.shape[-1] - 1
        at = (k.clamp(0, most).expand(shape)[..., None], (k - 1).clamp(0, most).expand(shape)[..., None])
        upto, below = (table.gather(-1, number)[..., 0] - self.position for number in at)
        return below, upto, k <= 0, k >= self.count - 1

    def log_prob(self, x: Tensor) -> Tensor:
        """Log [sigmoid(theta_k - h) - sigmoid(theta_(k-1) - h)], the outermost ones being 1 and 0."""
        below, upto, first, last = self.ends(x)
        # sigmoid(b) - sigmoid(a) = sigmoid(b) sigmoid(-a) (1 - e^(a - b))
        between = torch.where(first | last, 1.0, upto - below)
        return (
            torch.where(last, 0.0, nn.functional.logsigmoid(upto))
            + torch.where(first, 0.0, nn.functional.logsigmoid(-below))
            + torch.where(first | last, 0.0, (-torch.expm1(-between)).log())
        )

    def edges(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """P(X < x) and P(X <= x)."""
        below, upto, first, last = self.ends(x)
        return torch.where(first, 0.0, below.sigmoid()), torch.where(last, 1.0, upto.sigmoid())

    def cumulative(self) -> Tensor:
        """P(x <= level k) for all but the last level of any column, (..., d, V - 1)."""
        used = torch.arange(self.thresholds.shape[-1], device=self.low.device) < self.count[:, None] - 1
        return torch.where(used, (self.thresholds - self.position[..., None]).sigmoid(), 1.0)

    def sample(self, sample_shape: torch.Size = torch.Size()) -> Tensor:  # noqa: B008
        """Levels with their probabilities."""
        shape = (*sample_shape, *self.position.shape, 1)
        u = torch.rand(shape, dtype=self.position.dtype, device=self.position.device)
        return self.low + self.width * (u > self.cumulative()).sum(-1)

    @property
    def mean(self) -> Tensor:
        """The mean level, by the number of levels each lies above."""
        return self.low + self.width * (1 - self.cumulative()).sum(-1)

    @property
    def variance(self) -> Tensor:
        """The variance of the level."""
        above = 1 - self.cumulative()
        odd = 2 * torch.arange(above.shape[-1], device=self.low.device) + 1
        return self.width.square() * ((above * odd).sum(-1) - above.sum(-1).square())


class CumulativeOrdinal(MassEmission):
    r"""Levels as intervals of a logistic variable, with learned ends per column.

    .. math:: P(x_j \le \mathrm{level}_k \mid z) = \mathrm{sigmoid}(\theta_{kj} - h_j), \qquad
              \theta_{kj} = \theta_{0j} + \sum_{i=1}^{k} \mathrm{softplus}\, d_{ij}

    McCullagh (1980), Regression Models for Ordinal Data, https://doi.org/10.1111/j.2517-6161.1980.tb01109.x

    Args:
        levels: of each of the d columns, increasing and equally spaced.

    >>> emission = CumulativeOrdinal([[0.0, 1.0, 2.0]])
    >>> round(float(emission(torch.zeros(1, 1)).log_prob(torch.arange(3.0)[:, None]).exp().sum()), 6)
    1.0
    """

    outputs = 1
    low: Tensor
    width: Tensor
    count: Tensor

    def __init__(self, levels: Sequence[Sequence[float]]) -> None:
        super().__init__()
        counts = torch.tensor([len(column) for column in levels])
        self.register_buffer("low", torch.tensor([float(column[0]) for column in levels]))
        self.register_buffer("width", torch.tensor([float(column[1] - column[0]) for column in levels]))
        self.register_buffer("count", counts)
        # levels equally likely at h = 0
        number = torch.arange(1, int(counts.max()))
        thresholds = (number / counts[:, None]).clamp(max=1 - 1 / (2 * counts.max())).logit()
        self.first = nn.Parameter(thresholds[:, 0].clone())
        self.gaps = nn.Parameter(thresholds.diff(dim=-1).clamp(min=0.1).expm1().log())

    def forward(self, parameters: Tensor) -> dist.TorchDistribution:
        """From h, (..., 1, d)."""
        (position,) = parameters.unbind(-2)
        steps = nn.functional.softplus(self.gaps).cumsum(-1)
        thresholds = torch.cat([self.first[:, None], self.first[:, None] + steps], dim=-1)
        return Cumulative(position, thresholds, self.low, self.width, self.count)
