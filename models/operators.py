"""Elementwise functions as torch operators, which ``torch.func.vmap`` and recorded graphs accept."""

from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["elementwise"]

_OPERATORS = torch.library.Library("zoo", "FRAGMENT")


def elementwise(name: str, function: Callable[..., Tensor], arguments: int) -> Callable[..., Tensor]:
    """A function of several tensors of one shape as an operator, without a gradient.

    A function that branches on numbers to choose the cheaper way, or calls SciPy, can be neither mapped nor recorded;
    and an operator without a rule for vmap is called row by row.
    """
    schema = ", ".join(f"Tensor argument{i}" for i in range(arguments))
    _OPERATORS.define(f"{name}({schema}) -> Tensor")
    _OPERATORS.impl(name, function, "CompositeExplicitAutograd")
    operator: Callable[..., Tensor] = getattr(torch.ops.zoo, name)

    def mapped(_: object, dims: tuple[int | None, ...], *tensors: Tensor) -> tuple[Tensor, int]:
        rank = max(t.dim() - (dim is not None) for t, dim in zip(tensors, dims, strict=True))
        rows = []
        for t, dim in zip(tensors, dims, strict=True):
            first = t[None] if dim is None else t.movedim(dim, 0)
            rows.append(first.reshape(first.shape[0], *[1] * (rank + 1 - first.dim()), *first.shape[1:]))
        return operator(*torch.broadcast_tensors(*rows)), 0

    torch.library.register_fake(f"zoo::{name}", lambda of, *_: of.new_empty(of.shape), lib=_OPERATORS)
    torch.library.register_vmap(f"zoo::{name}", mapped, lib=_OPERATORS)
    return operator
