"""The latents of a program: their names, which are summed out, and all others as one real vector."""

from __future__ import annotations

from typing import Any, NamedTuple

import pyro
import torch
from pyro import poutine
from pyro.distributions.util import sum_rightmost
from pyro.infer import config_enumerate
from torch import Tensor
from torch.distributions import biject_to, constraints

from zoo.answers import known, name_of, of_values
from zoo.context import seeded
from zoo.errors import Unknown
from zoo.objectives import Program, latent_sites, plain_log_prob

__all__ = ["CATEGORY", "REAL", "Latents", "Vector", "is_real", "latents", "log_density", "real_vector", "vector_dim"]

REAL, CATEGORY = "z", "component"  # sites with their own groups in a tree


class Latents(NamedTuple):
    """Names of a program's latents, both drawn and summed out."""

    drawn: tuple[str, ...]
    summed: tuple[str, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """All latents."""
        return (*self.drawn, *self.summed)

    def __str__(self) -> str:
        return ", ".join(self.names)


def latents(program: Program, x: Tensor) -> Latents:
    """The latents of a guide, or of a model, on data x (B, D)."""
    return _looked_at(program, x)[0]


def _looked_at(program: Program, x: Tensor) -> tuple[Latents, Any]:
    """The latents, and the trace on one datum that shows them."""
    with seeded(0), torch.no_grad(), poutine.enum(first_available_dim=-2):
        trace = poutine.trace(program).get_trace(x[:1])
    return Latents(*(tuple(latent_sites(trace, enumerated=summed)) for summed in (False, True))), trace


def vector_dim(model: Program, x: Tensor) -> tuple[Latents, int]:
    """The latents of a model on data x (B, D), discrete ones summed out, and the width of its real vector ``z``.

    The width is 0 if another latent is drawn, z is not a real vector, or a component besides it is unknown given z.
    """
    found, trace = _looked_at(config_enumerate(model, "parallel"), x)
    if found.drawn != (REAL,) or (found.summed and not hasattr(model, "component_logits")):
        return found, 0
    fn = trace.nodes[REAL]["fn"]
    return found, fn.event_shape[0] if len(fn.event_shape) == 1 and is_real(fn.support) else 0


def is_real(support: Any) -> bool:
    """Whether this support is all real numbers."""
    return of_values(support) is constraints.real


class Vector(NamedTuple):
    """The continuous latents of a program as one real vector per datum, whatever their supports.

    Attributes:
        names: names of the sites, in order.
        maps: maps from real numbers to each support.
        shapes: event shapes of the sites as real numbers.
    """

    names: tuple[str, ...]
    maps: tuple[Any, ...]
    shapes: tuple[torch.Size, ...]

    def flatten(self, values: dict[str, Tensor]) -> Tensor:
        """From latents (..., B, *event) by name to real numbers (..., B, U)."""
        parts = (self.maps[i].inv(values[name]) for i, name in enumerate(self.names))
        return torch.cat([part.reshape(*part.shape[: part.dim() - len(shape)], -1)
                          for part, shape in zip(parts, self.shapes, strict=True)], dim=-1)  # fmt: skip

    def values(self, u: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """From real numbers (..., B, U) to latents by name, with the log volume of the map, (..., B)."""
        values, volume = {}, u.new_zeros(u.shape[:-1])
        pieces = u.split([shape.numel() for shape in self.shapes], dim=-1)
        for name, to_support, shape, piece in zip(*self, pieces, strict=True):
            at = piece.reshape((*piece.shape[:-1], *shape))
            values[name] = to_support(at)
            stretched = to_support.log_abs_det_jacobian(at, values[name])
            volume = volume + sum_rightmost(stretched, stretched.dim() - volume.dim())
        return values, volume


def real_vector(trace: Any) -> Vector:
    """The continuous latents of a trace as a real vector; discrete ones are to be summed out.

    Raises:
        Unknown: a discrete latent has too many values for that.
    """
    names, maps, shapes = [], [], []
    for name in latent_sites(trace):
        site = trace.nodes[name]
        if site["fn"].support.is_discrete:
            if not site["fn"].has_enumerate_support:
                raise Unknown(f"latent {name!r} has too many values to sum out, and no gradient moves it")
            continue
        names.append(name)
        maps.append(biject_to(site["fn"].support))
        event = maps[-1].inv(site["value"].detach()).shape[site["value"].dim() - site["fn"].event_dim :]
        shapes.append(torch.Size(event))
    return Vector(tuple(names), tuple(maps), tuple(shapes))


def log_density(program: Program, x: Tensor, values: dict[str, Tensor]) -> Tensor:
    """Log joint density of given latents, (K, B, ...) each, and of the program's other sites, (K, B).

    Discrete latents that are not given are summed out.

    Raises:
        Unknown: the density of a latent is known only at the program's own draws, as for a planar flow.
    """
    draws = len(next(iter(values.values())))
    summing = config_enumerate(poutine.condition(program, data=values), "parallel")
    with pyro.plate("samples", draws, dim=-2), poutine.enum(first_available_dim=-3):
        trace = poutine.trace(summing).get_trace(x)
    names = ", ".join(name_of(trace.nodes[name]["fn"]) for name in values)
    with known(f"the density of {names} at a point it has not drawn"):
        trace.compute_log_prob()
    density: Any = sum(plain_log_prob(node) for node in trace.nodes.values() if "log_prob" in node)
    of_each: Tensor = density.expand(*density.shape[:-2], draws, len(x)).reshape(-1, draws, len(x))
    return of_each.logsumexp(0) if len(of_each) > 1 else of_each[0]
