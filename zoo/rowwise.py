"""A function of a model, a guide and one datum, applied to many data and seeds: recorded once, replayed in blocks.

Scores of a trained pair are tables over data, each row computed from its own draws. Here a function written for one
datum is mapped over blocks of rows that fit into a processor's cache, and recorded as a graph of parameters, rows and
standard noise, so Pyro runs the programs a few times, not for each block and seed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from zoo.context import Stream, pyro_context, random_stream, seeded
from zoo.engine import Replica
from zoo.errors import ZooError
from zoo.graphs import arrange_products, record, share_results
from zoo.noise import Tape
from zoo.objectives import Program
from zoo.storage import give_back

__all__ = ["CACHE", "Rowwise", "base_key", "keyed_blocks", "row_keys", "standard_noise"]

CACHE = 2**19  # numbers of the widest tensor of a block: 2 MiB in single precision
PATIENCE = 16  # blocks after which recording pays
Outputs = tuple[Tensor, ...]


class Rowwise:
    """``function(model, guide, *datum)`` for every row of some tensors, each with its own random numbers.

    The function gets one row of each tensor, with a leading axis of 1, and returns tensors, to which an axis of rows
    is prepended. Its draws depend only on a key and the row's number, not on the size of a block or on earlier calls.
    A function is called row by row, which is slower, if :class:`zoo.noise.Tape` cannot lift its draws or it
    branches on the value of a number.

    Args:
        function: takes a model, a guide and one row of each tensor. Different models may differ only in parameters
            and buffers.
        numbers: how many numbers its widest tensor has per row.

    >>> center = Rowwise(lambda model, guide, x: (x - x.mean(),), numbers=3)
    >>> center(nn.Identity(), nn.Identity(), torch.tensor([[1.0, 2.0, 3.0], [0.0, 0.0, 3.0]]))[0][:, 0]
    tensor([[-1.,  0.,  1.],
            [-1., -1.,  2.]])
    """

    def __init__(self, function: Callable[..., Outputs], numbers: int) -> None:
        self.function = function
        self.rows = 1 << max(0, (CACHE // numbers).bit_length() - 1)
        self._program: Replica | None = None  # all others have the same structure
        self._names: list[str] = []  # names of parameters and buffers
        self._sizes: dict[str, int] = {}  # sizes of a row's noise
        self._lifts = self._maps = self._records = True
        self._graphs: dict[int, Callable[..., Outputs]] = {}  # by number of rows
        self._patience = PATIENCE

    def __call__(self, model: Program, guide: Program, *data: Tensor) -> Outputs:
        """The function's results for each row, (N, ...), with draws from torch's global random state."""
        return self.block(model, guide, data, row_keys(base_key(), len(data[0])))

    def block(
        self, model: Program, guide: Program, rows: Sequence[Tensor], keys: Sequence[int] | None = None
    ) -> Outputs:
        """The same with a key for each row's draws; without keys, results must not depend on draws."""
        with torch.no_grad(), pyro_context():
            return self._of_rows(Replica(_module(model), _module(guide)), rows, keys)

    def _of_rows(self, program: Replica, rows: Sequence[Tensor], keys: Sequence[int] | None) -> Outputs:
        if self._program is None:
            self._program = program
            self._rehearse(program, [of[:1] for of in rows])
        weights = {name: t.detach() for name, t in [*program.named_parameters(), *program.named_buffers()]}
        self._names = self._names or [*weights]
        if self._names != [*weights]:  # functional_call would keep the first program's values for other names
            raise ValueError("these programs differ from the first ones in more than parameters")
        if len(rows[0]) <= self.rows:
            return self._of_block(program, weights, rows, keys)
        found = []
        for start in range(0, len(rows[0]), self.rows):
            some = slice(start, start + self.rows)
            found.append(self._of_block(program, weights, [of[some] for of in rows], keys and keys[some]))
            give_back()
        return tuple(torch.cat(parts) for parts in zip(*found, strict=True))

    def _of_block(
        self, program: Replica, weights: dict[str, Tensor], rows: Sequence[Tensor], keys: Sequence[int] | None
    ) -> Outputs:
        if self._lifts and self._maps:
            try:
                return self._at_once(weights, rows, keys)
            except ZooError:
                raise
            except Exception:  # it needs the value of a number, which exists only for a single row
                self._maps = False
        return self._row_by_row(program, rows, keys)

    def _rehearse(self, program: Replica, row: list[Tensor]) -> None:
        """Find how much noise a row takes, and whether all of it was lifted."""
        with seeded(0):
            plain = program(self.function, *row)
        with seeded(0):
            before = torch.random.get_rng_state()
            with Tape() as tape:
                lifted = program(self.function, *row)
            untouched = torch.equal(before, torch.random.get_rng_state())
        lost = any((a.isnan() & ~b.isnan()).any() for a, b in zip(lifted, plain, strict=True))
        self._lifts, self._sizes = untouched and not lost, tape.used

    def _row_by_row(self, program: Replica, rows: Sequence[Tensor], keys: Sequence[int] | None) -> Outputs:
        found = []
        for key, *row in zip(keys or [0] * len(rows[0]), *rows, strict=True):
            with seeded(key):
                found.append(program(self.function, *(of[None] for of in row)))
        return tuple(torch.stack(column) for column in zip(*found, strict=True))

    def _at_once(self, weights: dict[str, Tensor], rows: Sequence[Tensor], keys: Sequence[int] | None) -> Outputs:
        """Results for all rows of a block, by Pyro at first, later by a graph."""
        self._patience -= 1
        if self._patience <= 0 and self._records:
            try:
                return self._by_graph(weights, rows, keys)
            except Exception:  # whatever cannot be recorded, Pyro can still run
                self._records = False
        return self._mapped(weights, rows, standard_noise(keys, self._sizes, rows[0]))

    def _by_graph(self, weights: dict[str, Tensor], rows: Sequence[Tensor], keys: Sequence[int] | None) -> Outputs:
        """Graphs come in a few sizes; copies of the first row fill up a larger one."""
        count = len(rows[0])
        size = min(self.rows, max(1 << (count - 1).bit_length(), self.rows // 4))
        index = [*range(count), *[0] * (size - count)]
        rows = [of[index] if count < size else of for of in rows]
        noise = standard_noise(keys and [keys[row] for row in index], self._sizes, rows[0])
        if size not in self._graphs:
            self._graphs[size] = self._recorded(weights, rows, noise)
        return tuple(of[:count] for of in self._graphs[size](weights, rows, noise))

    def _mapped(self, weights: dict[str, Tensor], rows: Sequence[Tensor], noise: dict[str, Tensor]) -> Outputs:
        def one(row: Sequence[Tensor], noise: dict[str, Tensor]) -> Outputs:
            with Tape(**noise):
                call = (self.function, *(of[None] for of in row))
                return functional_call(self._program, weights, call)  # type: ignore[no-any-return, arg-type]

        return vmap(one)(tuple(rows), noise)

    def _recorded(
        self, weights: dict[str, Tensor], rows: Sequence[Tensor], noise: dict[str, Tensor]
    ) -> Callable[..., Outputs]:
        """The same as a graph."""
        graph = record(self._mapped, weights, rows, noise)
        share_results(graph)
        arrange_products(graph.graph)
        graph.recompile()
        return graph


def base_key() -> int:
    """A key drawn from torch's random state."""
    return int(torch.randint(2**31, ()))


def standard_noise(keys: Sequence[int] | None, sizes: dict[str, int], like: Tensor) -> dict[str, Tensor]:
    """Standard normal and uniform numbers for each row of a tensor, (N, size) each, by its key; zeros without keys."""
    noise = {kind: like.new_zeros(len(like), size) for kind, size in sizes.items()}
    if keys is None or not any(sizes.values()):
        return noise
    generator = torch.Generator(like.device)
    for row, key in enumerate(keys):
        generator.manual_seed(key)
        noise["normal"][row].normal_(generator=generator)
        noise["uniform"][row].uniform_(generator=generator)
    return noise


def row_keys(key: int, count: int, first: int = 0) -> list[int]:
    """A key for each of this many rows, the first of which has this number."""
    return [random_stream(key, Stream.NOISE, row) for row in range(first, first + count)]


def keyed_blocks(size: int, *data: Tensor) -> Iterator[tuple[list[Tensor], list[int]]]:
    """Blocks of rows of some tensors, and a key for each row, drawn from torch's random state."""
    key = base_key()
    for start in range(0, len(data[0]), size):
        rows = [of[start : start + size] for of in data]
        yield rows, row_keys(key, len(rows[0]), start)
        give_back()


def _module(program: Program) -> nn.Module:
    return program if isinstance(program, nn.Module) else _Function(program)


class _Function(nn.Module):
    """A program without parameters as a module."""

    def __init__(self, program: Program) -> None:
        super().__init__()
        self.program = program

    def forward(self, x: Tensor) -> Any:
        """The program's."""
        return self.program(x)
