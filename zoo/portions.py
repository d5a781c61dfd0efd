"""A step with the rows of a batch divided over processes: backward here, a sum over all, then Adam."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise

import torch
from torch import Tensor, nn

from zoo.context import pyro_context, seeded
from zoo.engine import Engine, Inputs, State, close
from zoo.errors import OptionError, Unknown
from zoo.noise import Tape, of_rows
from zoo.ranks import share

__all__ = ["DividedEngine", "Portion"]

FEW = 6  # rows on which to check that a step is a sum over rows


@dataclass(frozen=True)
class Portion:
    """Some rows of every batch, their noise, and what is summed over all portions of a batch.

    The summand is one matrix, (S, P + T + n): the gradient and the T recorded numbers of a loss, which are means over
    rows and weighted by the portion's share; and a slot for the smallest scale of each of the n portions.

    Attributes:
        rows: the rows of the batch.
        noise: which of the batch's noise numbers belong to them, by kind.
        weight: their share of the batch.
        number: the number of this portion, from 0.
        count: how many portions there are.
        sizes: sizes of the pieces of the gradient.
        smallest: which recorded number is the smallest scale.
    """

    rows: slice
    noise: Mapping[str, Tensor]
    weight: float
    number: int
    count: int
    sizes: Sequence[int]
    smallest: int

    def of(self, inputs: Inputs) -> Inputs:
        """The inputs of this portion."""
        normal, uniform = (getattr(inputs, kind)[:, numbers] for kind, numbers in self.noise.items())
        return Inputs(inputs.rows[:, self.rows], normal, uniform, inputs.rates)

    def packed(self, gradients: Sequence[Tensor], told: Tensor) -> Tensor:
        """The summand, from gradients in pieces and the recorded numbers of the loss, (T, S)."""
        scale = nn.functional.pad(told[self.smallest, :, None], (self.number, self.count - 1 - self.number))
        return torch.cat([torch.cat([*gradients, told.mT], 1) * self.weight, scale], 1)

    def unpacked(self, total: Tensor) -> tuple[Tensor, ...]:
        """Gradients in pieces, and the recorded numbers of the loss, (T, S), for the whole batch."""
        numbers = total.shape[1] - sum(self.sizes) - self.count
        *gradients, told, scales = total.split([*self.sizes, numbers, self.count], 1)
        of_batch = [told[:, : self.smallest], scales.amin(1, keepdim=True), told[:, self.smallest + 1 :]]
        return *gradients, torch.cat(of_batch, 1).mT


class DividedEngine(Engine):
    """An engine that steps all seeds on some rows of their batch, while other processes take the other rows.

    Every process holds all parameters and draws the noise of the whole batch, so each row keeps its own. The step
    equals that of one process up to the order of a sum. It is recorded in two parts, between which the processes wait
    for each other.

    Raises:
        OptionError: a step is not a sum over rows, or there are fewer rows than processes.
    """

    def _as_it_is(self) -> Callable[..., Tensor]:
        self._portion = self._portion_here()
        return partial(self._together, self._summand, self._update_by)

    def _recorded(self) -> Callable[..., Tensor]:
        summand = self._compiled(self._summand, self._parameters, self._of_portion, self._portion.unpacked)
        return partial(self._together, summand, self._compiled(self._update_by, self._in_pieces, self._of_update))

    def _together(self, summand: Callable[..., Tensor], update: Callable[..., Tensor], *tensors: Tensor) -> Tensor:
        *held, rows, normal, uniform, rates = tensors
        inputs = self._portion.of(Inputs(rows, normal, uniform, rates))
        return update(*held, rates, self.ranks.summed(summand(*held[: len(self.pieces)], *inputs)))

    def _summand(self, *tensors: Tensor) -> Tensor:
        """What this process adds to the sum, from parameters and its inputs."""
        *gradients, told = self._gradients(*tensors)
        return self._portion.packed(gradients, told)

    def _update_by(self, *tensors: Tensor) -> Tensor:
        """The update, from the state, the rates and the sum."""
        *held, rates, total = tensors
        return self._update(*held, rates, *self._portion.unpacked(total))

    def _parameters(self, state: State) -> tuple[Tensor, ...]:
        return self._split(state.theta)

    def _of_portion(self, step: int) -> Inputs:
        return self._portion.of(self.inputs(step))

    def _of_update(self, step: int) -> tuple[Tensor, ...]:
        """The update's inputs besides the state; one portion's summand serves as the sum, having the same shape."""
        with pyro_context():
            return self.inputs(step).rates, self._summand(*self._parameters(self.state), *self._of_portion(step))

    # -- before the first step -----------------------------------------------------------------------------------

    def _portion_here(self) -> Portion:
        rank, size = self.ranks.rank, self.ranks.size
        if reason := self._undivided():
            raise OptionError(
                f"a batch cannot be divided over {size} processes, since {reason}: give at least as many seeds, to "
                "divide those instead, or start fewer processes."
            )
        return self._portion_of(share(self.batch_size, rank, size), self.batch_size, rank, size)

    def _undivided(self) -> str:
        """Why rows of a batch cannot be trained on apart; empty if they can."""
        if self.batch_size < self.ranks.size:
            return f"it has {self.batch_size} {'row' if self.batch_size == 1 else 'rows'}"
        if not self.lifts_noise:
            return "random numbers are drawn that cannot be lifted out of the step"
        if getattr(self.objective, "couples_rows", False):
            return "the objective is not a mean over its rows"
        try:
            whole, parts = self._of_few(0, FEW), self._of_few(0, FEW // 3, FEW)
        except Unknown as error:
            return str(error)
        return "" if all(map(close, parts, whole)) else "the loss, or what it records, is not a mean over its rows"

    def _of_few(self, *edges: int) -> tuple[Tensor, Tensor]:
        """A small batch's gradient, (S, P), and its loss's recorded numbers, (T, S), from portions with these edges."""
        size, device = edges[-1], self.x.device
        rows = self.data.probed(torch.arange(size, device=device).expand(len(self.seeds), -1) % len(self.x))
        draw, used = torch.Generator(device).manual_seed(0), self._counted(size).used
        normal, uniform = (self.x.new_empty(len(self.seeds), count) for count in used.values())
        batch = Inputs(rows, normal.normal_(generator=draw), uniform.uniform_(generator=draw), self.inputs(0).rates)
        summands = []
        for number, (start, stop) in enumerate(pairwise(edges)):
            portion = self._portion_of(slice(start, stop), size, number, len(edges) - 1)
            *gradients, told = self._gradients(*self._parameters(self.state), *portion.of(batch))
            summands.append(portion.packed(gradients, told))
        *gradients, told = portion.unpacked(torch.stack(summands).sum(0))
        return torch.cat(gradients, 1), told

    def _portion_of(self, rows: slice, size: int, number: int, count: int) -> Portion:
        """The portion with some rows of a batch of a given size."""
        here = rows.stop - rows.start
        noise = of_rows(self._counted(size), self._counted(here), rows)
        return Portion(
            rows,
            {kind: numbers.to(self.x.device) for kind, numbers in noise.items()},
            weight=here / size,
            number=number,
            count=count,
            sizes=[sum(piece) for piece in self.pieces],
            smallest=1 + self.recorded.index("min_scale"),
        )

    def _counted(self, size: int) -> Tape:
        """What a batch of this size draws."""
        weights = {**self.parameters(self.state.theta[0]), **{name: b[0].clone() for name, b in self.buffers.items()}}
        rows = torch.arange(size, device=self.x.device) % len(self.x)
        with seeded(0), torch.no_grad(), pyro_context(), Tape() as tape:
            self._of_batch(weights, self.x[rows], self.x.new_tensor(1.0))
        return tape
