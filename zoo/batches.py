"""Which rows each step trains on, and their values: from data on the device, or read ahead from their source."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Protocol, TypeAlias

import numpy as np
import torch
from torch import Tensor

from zoo.context import Stream, random_stream
from zoo.shuffling import Shuffled

__all__ = ["STEPS_AHEAD", "Order", "Resident", "Streamed", "Training"]

Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]

STEPS_AHEAD, ROWS_AHEAD = 16, 2**18  # steps whose rows are made together, and their rows per seed
NUMBERS_AHEAD = 2**22  # numbers read together, over all seeds
DRAWN_ORDER = 2**20  # most rows whose order is drawn, since that takes 8 bytes per row and seed


class Order:
    """Endless permutations of rows, one after another for each seed; each step takes the next rows.

    Args:
        rows: N.
        batch_size: B.
        seeds: the seed of each permutation.
        device: where the row numbers are wanted.
    """

    def __init__(self, rows: int, batch_size: int, seeds: Sequence[int], device: torch.device) -> None:
        self.rows, self.batch_size, self.seeds = rows, batch_size, list(seeds)
        self._generator = torch.Generator(device)
        self._permutations: dict[tuple[int, int], Tensor] = {}

    def of_steps(self, start: int, stop: int) -> Tensor:
        """The rows of steps from ``start`` to before ``stop``, (S, steps, B)."""
        taken = {seed: self._pieces(seed, start * self.batch_size, stop * self.batch_size) for seed in {*self.seeds}}
        return torch.stack([taken[seed] for seed in self.seeds]).view(-1, stop - start, self.batch_size)

    def _pieces(self, seed: int, start: int, stop: int) -> Tensor:
        n = self.rows
        epochs = range(start // n, (stop - 1) // n + 1)
        spans = [(epoch, max(0, start - epoch * n), min(n, stop - epoch * n)) for epoch in epochs]
        return torch.cat([self._piece(seed, epoch, first, last) for epoch, first, last in spans])

    def _piece(self, seed: int, epoch: int, first: int, last: int) -> Tensor:
        """Some rows, in the order of an epoch."""
        key = random_stream(seed, Stream.ORDER, epoch)
        if self.rows > DRAWN_ORDER:
            return Shuffled(self.rows, key, self._generator.device)[first:last]
        if (seed, epoch) not in self._permutations:
            self._permutations.pop((seed, epoch - 2), None)
            self._generator.manual_seed(key)
            order = torch.randperm(self.rows, generator=self._generator, device=self._generator.device)
            self._permutations[seed, epoch] = order
        return self._permutations[seed, epoch][first:last]


class Training(Protocol):
    """The training part as an engine sees it, in the model's units.

    ``some`` (N', D) is what a model sees before the first step: all rows, or a sample if there are many.
    """

    some: Tensor

    def __len__(self) -> int:
        """N."""

    def follow(self, order: Order) -> None:
        """Take batches in this order from now on."""

    def given(self, step: int) -> Tensor:
        """The input of step number ``step``, a row for each seed."""

    def probed(self, rows: Tensor) -> Tensor:
        """The input of a step that trains on rows (S, B) of ``some``."""

    def batch(self, given: Tensor) -> Tensor:
        """The batches (S, B, D) of a step, from its input, computed inside the step."""


class Resident:
    """Data (N, D) on the device: a step gets its row numbers.

    The row numbers of a few steps are made together, the same few for any number of seeds: an operation between two
    steps finds the caches empty and has to wait for the device.
    """

    def __init__(self, x: Tensor) -> None:
        self.some = x

    def __len__(self) -> int:
        return len(self.some)

    def follow(self, order: Order) -> None:
        """Take batches in this order from now on."""
        self._order, self._block = order, -1
        self._ahead = max(1, min(STEPS_AHEAD, ROWS_AHEAD // order.batch_size))

    def given(self, step: int) -> Tensor:
        """The rows of a step, (S, B)."""
        block, at = divmod(step, self._ahead)
        if block != self._block:
            self._rows = self._order.of_steps(block * self._ahead, (block + 1) * self._ahead).unbind(1)
            self._block = block
        return self._rows[at]

    def probed(self, rows: Tensor) -> Tensor:
        """The rows themselves."""
        return rows

    def batch(self, given: Tensor) -> Tensor:
        """The batches, (S, B, D)."""
        return self.some[given]


class Streamed:
    """Data read on demand: a step gets its batches, which a thread reads while other steps run.

    Args:
        read: maps row numbers, (n,), to their values in the model's units, (n, D), in memory.
        rows: N.
        some: a sample of the rows on the device, (N', D).
    """

    def __init__(self, read: Callable[[Array], Tensor], rows: int, some: Tensor) -> None:
        self.read, self.rows, self.some = read, rows, some
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="batches")

    def __len__(self) -> int:
        return self.rows

    def follow(self, order: Order) -> None:
        """Take batches in this order from now on."""
        self._order, self._block = order, -1
        self._coming: dict[int, Future[Tensor]] = {}
        of_step = len(order.seeds) * order.batch_size * self.some.shape[1]
        self._ahead = max(1, min(STEPS_AHEAD, NUMBERS_AHEAD // of_step))

    def given(self, step: int) -> Tensor:
        """The batches of a step, (S, B, D)."""
        block, at = divmod(step, self._ahead)
        if block != self._block:
            found = self._coming.pop(block, None) or self._asked(block)
            self._coming = {block + 1: self._asked(block + 1)}
            self._batches, self._block = found.result().to(self.some.device).unbind(0), block
        return self._batches[at]

    def _asked(self, block: int) -> Future[Tensor]:
        rows = self._order.of_steps(block * self._ahead, (block + 1) * self._ahead).transpose(0, 1)
        return self._reader.submit(self._read, rows.cpu().contiguous())

    def _read(self, rows: Tensor) -> Tensor:
        return self.read(rows.flatten().numpy()).view(*rows.shape, -1)

    def probed(self, rows: Tensor) -> Tensor:
        """Their values, (S, B, D)."""
        return self.some[rows]

    def batch(self, given: Tensor) -> Tensor:
        """The batches, as they were given."""
        return given
