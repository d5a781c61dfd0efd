"""Emissions of categories and of zeros and ones."""

from collections.abc import Sequence

import pyro.distributions as dist
import torch
from torch import Tensor

from ..ordinal import Levels
from .emission import MassEmission

__all__ = ["Bernoulli", "LevelSoftmax", "Softmax"]


class Bernoulli(MassEmission):
    r"""Zeros and ones.

    .. math:: P(x_j \mid z) = y_j^{x_j} (1 - y_j)^{1 - x_j}, \qquad \mathrm{logit}\, y_j = a_j

    >>> Bernoulli()(torch.zeros(1, 3)).mean
    tensor([0.5000, 0.5000, 0.5000])
    """

    outputs = 1

    def forward(self, parameters: Tensor) -> dist.TorchDistribution:
        """From a, (..., 1, d)."""
        (logits,) = parameters.unbind(-2)
        return dist.Bernoulli(logits=logits)


class Softmax(MassEmission):
    r"""One of several unordered categories, numbered from 0.

    .. math:: P(x_j = c \mid z) = e^{a_{cj}} / \sum_{c'} e^{a_{c'j}}

    Args:
        categories: how many each of the d columns has; a column with fewer than another ignores its last outputs.

    >>> Softmax([2, 4])(torch.zeros(4, 2)).log_prob(torch.tensor([1.0, 3.0])).exp()
    tensor([0.5000, 0.2500])
    """

    unused: Tensor

    def __init__(self, categories: Sequence[int]) -> None:
        super().__init__()
        self.outputs = max(categories)
        number = torch.arange(self.outputs)[:, None]
        self.register_buffer("unused", number >= torch.tensor(categories))

    def forward(self, parameters: Tensor) -> dist.TorchDistribution:
        """From a, (..., categories, d)."""
        # not minus infinity, whose gradient would be NaN
        return dist.Categorical(logits=parameters.masked_fill(self.unused, -1e9).mT)


class LevelSoftmax(MassEmission):
    r"""A probability for every level of every column, ignoring their order.

    .. math:: P(x_j = \mathrm{level}_k \mid z) = e^{a_{kj}} / \sum_{k'} e^{a_{k'j}}

    van den Oord, Kalchbrenner & Kavukcuoglu (2016), https://arxiv.org/abs/1601.06759

    Args:
        levels: the V levels of all columns, increasing and equally spaced.

    >>> LevelSoftmax([0.0, 5.0])(torch.zeros(2, 3)).log_prob(torch.tensor([0.0, 5.0, 5.0])).exp()
    tensor([0.5000, 0.5000, 0.5000])
    """

    levels: Tensor

    def __init__(self, levels: Sequence[float]) -> None:
        super().__init__()
        self.outputs = len(levels)
        self.register_buffer("levels", torch.as_tensor(levels, dtype=torch.get_default_dtype()))

    def forward(self, parameters: Tensor) -> dist.TorchDistribution:
        """From a, (..., V, d)."""
        return Levels(parameters.mT, self.levels)
