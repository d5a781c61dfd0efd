"""One fit over several processes: they divide its seeds or, if those are fewer, the rows of each batch.

Every process, a rank of ``torch.distributed``, makes the same call on the same data. No other module uses that
library: a fit asks its :class:`Ranks` which part is done here, and for the results of the others.
"""

from __future__ import annotations

import atexit
import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
import safetensors.torch
import torch
from torch import Tensor, distributed

from zoo.errors import RunError, ZooError

__all__ = ["Ranks", "launched", "ranks_of"]

LONGEST = 600  # most bytes of a text sent to the others
NOTHING, TENSORS, MISTAKE = range(3)  # what the first process may send

Tensors: TypeAlias = dict[str, Tensor]


@dataclass(frozen=True)
class Ranks:
    """A single process, which does the whole fit.

    Attributes:
        device: the device it trains on.
        rank: its number; the first one writes files and shows progress.
        size: how many processes there are.
        part: which seeds are trained here.
        divides_rows: whether each batch is divided rather than the seeds.
    """

    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    rank: int = 0
    size: int = 1
    part: slice = field(default_factory=lambda: slice(None))
    divides_rows: bool = False

    @property
    def leads(self) -> bool:
        """Whether this is the first process."""
        return self.rank == 0

    def whole(self, tensor: Tensor, dim: int = 0) -> Tensor:
        """A tensor for all seeds, joined along a dimension, from the one for the seeds trained here."""
        del dim
        return tensor

    def summed(self, tensor: Tensor) -> Tensor:
        """The sum of a tensor over all processes, in place."""
        return tensor

    def first(self, act: Callable[[], Tensors | None]) -> Tensors | None:
        """The result of a function that only the first process calls, such as reading; a ZooError is raised in all."""
        return act()

    def texts(self, texts: list[str]) -> list[str]:
        """A text for each seed, from those for the seeds trained here."""
        encoded = np.array([[*text.encode()[:LONGEST].ljust(LONGEST)] for text in texts], np.uint8)
        told = self.whole(torch.as_tensor(encoded, device=self.device).reshape(-1, LONGEST)).cpu().numpy()
        return [row.tobytes().decode(errors="ignore").rstrip() for row in told]


@dataclass(frozen=True)
class _Several(Ranks):
    """One of several processes."""

    def summed(self, tensor: Tensor) -> Tensor:
        with _as_one_line():
            distributed.all_reduce(tensor)
        return tensor

    def first(self, act: Callable[[], Tensors | None]) -> Tensors | None:
        kind, content, mistake = NOTHING, b"", None
        if self.leads:
            try:
                result = act()
                kind, content = (NOTHING, b"") if result is None else (TENSORS, safetensors.torch.save(result))
            except ZooError as error:
                kind, content, mistake = MISTAKE, str(error).encode(), error
        size = self._told(torch.tensor([kind, len(content)], device=self.device), 0).tolist()
        here = torch.frombuffer(bytearray(content), dtype=torch.uint8) if content else torch.empty(size[1]).byte()
        told = bytes(self._told(here.to(self.device), 0).cpu().numpy())
        if size[0] == MISTAKE:
            raise mistake or RunError(told.decode())
        return safetensors.torch.load(told) if size[0] == TENSORS else None

    def _told(self, tensor: Tensor, source: int) -> Tensor:
        """One rank's value of a tensor, whose shape is the same on all."""
        copy = tensor.clone(memory_format=torch.contiguous_format)
        if copy.numel():
            with _as_one_line():
                distributed.broadcast(copy.reshape(-1).view(torch.uint8), source)  # as bytes: not all types can be sent
        return copy


@dataclass(frozen=True)
class _BySeeds(_Several):
    """One of several processes that divide the seeds, ``counts`` each."""

    counts: tuple[int, ...] = ()

    def whole(self, tensor: Tensor, dim: int = 0) -> Tensor:
        shapes = [[*tensor.shape] for _ in self.counts]
        for shape, count in zip(shapes, self.counts, strict=True):
            shape[dim] = count
        own = [tensor if rank == self.rank else tensor.new_empty(shape) for rank, shape in enumerate(shapes)]
        return torch.cat([self._told(piece, rank) for rank, piece in enumerate(own)], dim)


@dataclass(frozen=True)
class _ByRows(_Several):
    """One of several processes that all train all seeds, each on its rows of a batch.

    They all hold the same values; decisions follow those of the first.
    """

    divides_rows: bool = True

    def whole(self, tensor: Tensor, dim: int = 0) -> Tensor:
        del dim
        return self._told(tensor, 0)


def launched() -> tuple[int, int]:
    """The rank of this process and how many there are, from torchrun or an initialised process group."""
    if not distributed.is_available():
        return 0, 1
    if distributed.is_initialized():
        return distributed.get_rank(), distributed.get_world_size()
    if distributed.is_torchelastic_launched():
        return int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    return 0, 1


def share(n: int, rank: int, size: int) -> slice:
    """The rank's part of n things divided as evenly as possible, in order.

    >>> [share(5, rank, 2) for rank in range(2)]
    [slice(0, 2, None), slice(2, 5, None)]
    """
    return slice(n * rank // size, n * (rank + 1) // size)


def ranks_of(asked: str, seeds: Sequence[int], device: torch.device) -> Ranks:
    """How a fit is divided: by seeds if there are at least as many as processes, otherwise by rows of batches.

    Under torchrun, a missing process group is created. It lasts as long as the process, since torchrun's information
    suffices for only one.

    Args:
        asked: what all processes must be asked for.
        seeds: the seeds of the fit.
        device: the device of the fit; with several cards, a torchrun process takes the one with its local number.

    Raises:
        RunError: the processes were asked for different fits, or one of them has ended.
    """
    rank, size = launched()
    if size == 1:
        return Ranks(device)
    if device.type == "cuda" and device.index is None and "LOCAL_RANK" in os.environ:
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
    if not distributed.is_initialized():
        with _as_one_line():
            distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
        atexit.register(distributed.destroy_process_group)
    _refuse_different(asked, device, rank, size)
    if len(seeds) < size:
        return _ByRows(device, rank, size)
    parts = [share(len(seeds), one, size) for one in range(size)]
    return _BySeeds(device, rank, size, parts[rank], counts=tuple(part.stop - part.start for part in parts))


def _refuse_different(asked: str, device: torch.device, rank: int, size: int) -> None:
    everyone = _BySeeds(device, rank, size, counts=(1,) * size)
    digest = torch.frombuffer(bytearray(hashlib.sha256(asked.encode()).digest()), dtype=torch.uint8)
    digests = everyone.whole(digest[None].to(device))
    different = (digests != digests[0]).any(1).nonzero().flatten().tolist()
    if different:
        raise RunError(
            f"process {different[0]} of {size} was asked for another fit than process 0: all must make the same "
            "call, on the same data."
        )


@contextmanager
def _as_one_line() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        told = str(error).splitlines()[0][:160]
        raise RunError(
            f"the processes cannot continue together; one of them may have ended ({told}). With a checkpoint, the same "
            "command continues from the last state."
        ) from None
