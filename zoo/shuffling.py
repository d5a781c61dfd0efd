"""A random order of very many rows, any piece of which can be computed without the rest."""

from __future__ import annotations

from math import isqrt

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from zoo.context import Stream, random_stream

__all__ = ["Shuffled"]

ROUNDS = 6


class Shuffled:
    r"""A pseudo-random permutation of the numbers below n, as a sequence computed on demand.

    A drawn permutation takes memory and time proportional to n. Here a number is two digits (l, r) in base
    :math:`\lceil \sqrt n \rceil`, which a Feistel network mixes by

    .. math:: (l, r) \to (r, \; l + h_i(r))

    with a different hash h in each of six rounds; results of n or above, which are rare, go through again.

    Black & Rogaway (2002), Ciphers with Arbitrary Finite Domains, https://doi.org/10.1007/3-540-45760-7_9

    Args:
        n: how many numbers.
        key: chooses the permutation.
        device: the device of the pieces.

    >>> order = Shuffled(10, key=1)
    >>> order[:4].tolist(), sorted(order[0:10].tolist()) == list(range(10))
    ([1, 6, 3, 4], True)
    """

    def __init__(self, n: int, key: int, device: torch.device | str = "cpu") -> None:
        self.n, self.device = n, device
        self.base = np.uint64(isqrt(n - 1) + 1)
        self.keys = [np.uint64(random_stream(key, Stream.ORDER, number)) for number in range(ROUNDS)]

    def __getitem__(self, piece: slice) -> Tensor:
        """The numbers at some places of the order, shape (B,)."""
        found = self._mixed(np.arange(*piece.indices(self.n), dtype=np.uint64))
        while (beyond := found >= self.n).any():
            found[beyond] = self._mixed(found[beyond])
        return torch.from_numpy(found.astype(np.int64)).to(self.device)

    def _mixed(self, numbers: NDArray[np.uint64]) -> NDArray[np.uint64]:
        left, right = np.divmod(numbers, self.base)
        for key in self.keys:
            left, right = right, (left + _hash(right + (key << np.uint64(32))) % self.base) % self.base
        return left * self.base + right


def _hash(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The mixing function of SplitMix64, Steele, Lea & Flood (2014), https://doi.org/10.1145/2714064.2660195."""
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        x = (x ^ (x >> np.uint64(shift))) * np.uint64(factor)
    return x ^ (x >> np.uint64(31))
