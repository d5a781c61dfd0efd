"""Random draws as functions of standard noise, which is lifted out of a program and becomes an input of the step.

A draw that ``torch.distributions`` asks of torch is met by :class:`Tape`, where one line of ``_LIFTS`` says how it
follows from standard normal and uniform numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

__all__ = ["Tape"]


def _of_size(*size: Any, dtype: Any = None, device: Any = None, **_: Any) -> tuple[torch.Size, Tensor]:
    """The shape and the type that ``torch.randn`` and ``torch.rand`` are asked for."""
    shape = size[0] if len(size) == 1 and not isinstance(size[0], int) else size
    return torch.Size(shape), torch.empty(0, dtype=dtype, device=device)


# How each draw follows from standard noise: a function of that and of what the draw is given, but for a generator.
# What is but noise is copied, since a program may change its draws in place.
_LIFTS: dict[Any, Callable[..., Tensor]] = {
    torch.Tensor.normal_: lambda noise, to, mean=0.0, std=1.0: noise.normal(to.shape, to) * std + mean,
    torch.Tensor.uniform_: lambda noise, to, low=0.0, high=1.0: noise.uniform(to.shape, to) * (high - low) + low,
    torch.Tensor.exponential_: lambda noise, to, rate=1.0: -torch.log1p(-noise.uniform(to.shape, to)) / rate,
    torch.randn_like: lambda noise, like, **_: noise.normal(like.shape, like).clone(),
    torch.rand_like: lambda noise, like, **_: noise.uniform(like.shape, like).clone(),
    torch.randn: lambda noise, *args, size=(), **kw: noise.normal(*_of_size(*(args or size), **kw)).clone(),
    torch.rand: lambda noise, *args, size=(), **kw: noise.uniform(*_of_size(*(args or size), **kw)).clone(),
}


class Tape(TorchFunctionMode):
    """Feeds the draws of ``torch.distributions`` from flat tensors of standard noise, in the order they are asked for.

    Without tensors it counts: ``used`` then holds how many numbers of each kind a run takes. A draw into a tensor that
    is then used in place of the draw cannot be lifted; counting, that tensor is left not a number. Nor can what torch
    draws by itself and ``_LIFTS`` does not name, such as ``torch.poisson`` and ``torch._standard_gamma``.
    """

    def __init__(self, **noise: Tensor) -> None:
        super().__init__()
        self.noise = noise
        self.used = {"normal": 0, "uniform": 0}

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        lift = _LIFTS.get(func)
        if lift is None:
            return func(*args, **kwargs)
        if not self.noise and func.__name__.endswith("_"):
            # out of place only if the caller goes on with the result: else it meets this
            args[0].fill_(torch.nan)
        return lift(self, *args, **{name: value for name, value in kwargs.items() if name != "generator"})

    def normal(self, shape: Sequence[int], like: Tensor) -> Tensor:
        """The next standard normal numbers."""
        return self._next("normal", shape, like)

    def uniform(self, shape: Sequence[int], like: Tensor) -> Tensor:
        """The next numbers uniform on [0, 1)."""
        return self._next("uniform", shape, like)

    def _next(self, kind: str, shape: Sequence[int], like: Tensor) -> Tensor:
        start, self.used[kind] = self.used[kind], self.used[kind] + prod(shape)
        if self.noise:
            return self.noise[kind][start : self.used[kind]].reshape(shape)
        return torch.full(shape, 0.5, dtype=like.dtype, device=like.device)
