"""Paths of parameters along which a likelihood rises as far as it can: steered outputs, and a few made by hand."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial, singledispatch
from typing import Any, NamedTuple

import numpy as np
import torch
from pyro import poutine
from torch import Tensor, nn

from zoo import models
from zoo.context import seeded
from zoo.densities import columns_log_prob
from zoo.errors import Unknown

__all__ = ["COLLAPSE", "Path", "Point", "Stepping", "latent_site", "latent_width", "paths", "site", "steepness"]

COLLAPSE = "half of the prior's mass is given to one datum"
ON_A_COLUMN = "the outputs pass through all values of the column of fewest, and what all data share follows"
THROUGH_ALL = "the outputs pass through every datum, and what all data share follows"
ON_A_SURFACE = "the latents span the data's principal directions while the variance around them vanishes"
ON_ONE = "one component shrinks onto one datum"

NEAR = 8.0  # the box in which outputs are steered first, with moderate curvatures
UPHILL, FURTHER, POLISHED = 150, 30, 3  # steps


class Point(NamedTuple):
    """A model on its path, and the values of the first latent at which its decoder's outputs change, (P,)."""

    model: Any
    positions: Tensor


Along = Callable[[Sequence[float]], Iterator[Point]]


@dataclass(frozen=True)
class Path:
    """What a path does and needs beyond the model, in words, and the model at each sharpness in turn."""

    description: str
    needs: str
    along: Along


@singledispatch
def paths(model: Any, x: Tensor) -> Iterator[Path]:
    """Paths of a model for data x (N, D) in its units; the first that grows is a witness.

    If a model has a ``decoder``, its outputs, the parameters of p(x | z), are steered to raise it. A prior that can be
    made standard normal (by its method ``standardise``) is.

    Raises:
        Unknown: the model has no decoder.
    """
    decoder = getattr(model, "decoder", None)
    if not isinstance(decoder, nn.Module):
        raise Unknown(
            f"no path is known for {type(model).__name__}, which has no module `decoder` whose outputs could be steered"
        )
    rest = copy.deepcopy(model)
    if hasattr(rest, "initialise"):
        with seeded(0):
            rest.initialise(x)
    if standardise := getattr(getattr(rest, "prior", None), "standardise", None):
        standardise()
    return _by_outputs(rest, decoder, x)


def _by_outputs(model: Any, decoder: nn.Module, x: Tensor) -> Iterator[Path]:
    yield Path(COLLAPSE, _needs(decoder, 1), _collapse(model, x[:1]))
    if _shared(model):
        column = int(np.argmin([len(values.unique()) for values in x.T]))
        values, number, counts = x[:, column].unique(return_inverse=True, return_counts=True)
        if len(values) < len(x):
            first = torch.stack([x[number == k][0] for k in range(len(values))])
            yield Path(ON_A_COLUMN, _needs(decoder, len(values) - 1), _through(model, first, counts, column))
        yield Path(THROUGH_ALL, _needs(decoder, len(x) - 1), _through(model, x, torch.ones(len(x))))


def _collapse(model: Any, target: Tensor) -> Along:
    """The best outputs for one datum where z_1 < 0, and the start elsewhere."""

    def along(sharpness: Sequence[float]) -> Iterator[Point]:
        steered = _Steered(model, target)
        for a, best in zip(sharpness, steered.uphill_at_once(sharpness), strict=True):
            levels = torch.cat([best, torch.zeros_like(best)])
            yield _stepping(steered.model, levels, torch.zeros(1), a, steered.width)

    return along


def _through(model: Any, targets: Tensor, counts: Tensor, column: int | None = None) -> Along:
    """The best outputs for each target on its share of z, with shared parameters steered too."""
    positions = torch.special.ndtri((counts.cumsum(0)[:-1] / counts.sum()).double())

    def along(sharpness: Sequence[float]) -> Iterator[Point]:
        steered = _Steered(model, targets, column, shared=True)
        for a in sharpness:
            yield _stepping(steered.model, steered.uphill(targets.new_tensor(a)), positions, a, steered.width)

    return along


def _stepping(model: Any, levels: Tensor, positions: Tensor, sharpness: float, width: int) -> Point:
    # steps narrow faster than outputs move apart, so what lies between two levels soon counts for nothing
    model = copy.deepcopy(model)
    model.decoder = Stepping(levels, positions, steepness(sharpness) * len(positions), width)
    return Point(model, model.decoder.positions)


def steepness(sharpness: float) -> float:
    """How steep the single step of a collapse is; each of n steps is n times as steep."""
    return sharpness**2


def _shared(model: Any) -> list[Tensor]:
    """What p(x | z) depends on besides the decoder's outputs: parameters, and buffers settled from all data."""
    own = [p for name, p in model.named_parameters() if not name.startswith(("decoder.", "prior."))]
    return own + [getattr(part, name) for part in model.modules() for name in getattr(part, "settled", ())]


def latent_site(model: Any, x: Tensor) -> Any:
    """The site of the latents z in a trace of the model."""
    with seeded(0):
        return poutine.trace(model).get_trace(x[:1]).nodes["z"]


def latent_width(model: Any, x: Tensor) -> int:
    """How many latents z the model has."""
    return int(latent_site(model, x)["value"].shape[-1])


def site(model: Any, z: Tensor, x: Tensor) -> Any:
    """The model's p(x | z) for latents z (M, L) and data with the shape of x (M, D)."""
    if type(model).forward is models.VAE.forward:  # its site x is exactly this, and a path asks for it a thousand times
        return model.likelihood(z)
    with seeded(0):
        return poutine.trace(poutine.condition(model, {"z": z})).get_trace(x).nodes["x"]["fn"]


class Given(nn.Module):
    """A decoder that gives fixed numbers (M, ...) for M latents, whatever their values."""

    def __init__(self, numbers: Tensor) -> None:
        super().__init__()
        self.numbers = numbers

    def forward(self, z: Tensor) -> Tensor:  # noqa: ARG002
        """The numbers."""
        return self.numbers


class _Pace(NamedTuple):
    """The last direction of each number, -1 to 1, and the size of its last step."""

    direction: Tensor
    size: Tensor

    def after(self, slope: Tensor, largest: Tensor) -> _Pace:
        """Longer steps while the slope keeps its sign; where it has turned, a pause, then shorter ones."""
        turned = slope.sign() * self.direction
        size = self.size * torch.where(turned > 0, 1.2, torch.where(turned < 0, 0.5, 1.0))
        return _Pace(torch.where(turned < 0, 0.0, slope.sign()), size.clamp(min=1e-16).minimum(largest))


class _Place(NamedTuple):
    """How high a place is, and what has moved there."""

    height: Tensor
    moved: list[Tensor]


class _Steered:
    """A model whose decoder gives numbers (M, ...) for M targets (M, D), which are steered uphill.

    Args:
        model: initialised from the data, so that its outputs start at 0.
        targets: the data to make likely.
        column: the single column of them to make likely, if not all.
        shared: whether shared parameters are steered with the numbers.
    """

    def __init__(self, model: Any, targets: Tensor, column: int | None = None, *, shared: bool = False) -> None:
        self.model, self.targets, self.column = copy.deepcopy(model), targets, column
        self.width = latent_width(model, targets)
        self.z = targets.new_zeros(len(targets), self.width)
        self.model.decoder = self.given = Given(torch.zeros_like(model.decoder(self.z)))
        self.shared = _shared(self.model) if shared else []
        self.middles = [part.detach().clone() for part in self.moving]
        self._look_at_the_targets()
        self.paces = self._climb(targets.new_tensor(NEAR), UPHILL)
        self.near = [part.clone() for part in self.moving]

    @property
    def moving(self) -> list[Tensor]:
        """What is steered; the numbers may be (A, M, ...), several attempts at once."""
        return [self.given.numbers, *self.shared]

    def uphill_at_once(self, sharpness: Sequence[float]) -> Tensor:
        """The best numbers for each sharpness, ascending, (A, M, ...), if nothing is shared."""
        best = self.uphill(self.z.new_tensor(sharpness).reshape(-1, *[1] * self.near[0].dim()))
        heights = self.height().nan_to_num(-math.inf)
        for i in range(1, len(sharpness)):  # a larger box holds whatever was found in a smaller one
            if heights[i - 1] > heights[i]:
                best[i], heights[i] = best[i - 1], heights[i - 1]
        return best

    def uphill(self, radius: Tensor) -> Tensor:
        """The best numbers at most this far from 0; shared parameters move at most as far, and are left there."""
        # either what ended at the edge starts at the new edge and the rest moves in small steps, or all are scaled up
        # and move in large steps, since two outputs whose ratio counts rise together
        small, large = self._climbed(radius, NEAR, self.paces), self._climbed(radius, 0.0)
        best = (small.height >= large.height).reshape(radius.shape)
        self._go([torch.where(best, *parts) for parts in zip(small.moved, large.moved, strict=True)])
        return self.given.numbers.clone()

    def _climbed(self, radius: Tensor, least: float, paces: list[_Pace] | None = None) -> _Place:
        """The end of a climb, at whose start all that is at least so far from its middle moves outwards."""
        start = []
        for near, middle in zip(self.near, self.middles, strict=True):
            far = near - middle
            start.append(middle + far * torch.where(far.abs() >= least, (radius / NEAR).clamp(min=1.0), 1.0))
        self._go(start)
        self._climb(radius, FURTHER, paces)
        return _Place(self.height().nan_to_num(-math.inf), [part.clone() for part in self.moving])

    def _go(self, place: list[Tensor]) -> None:
        self.given.numbers = place[0]
        for part, new in zip(self.shared, place[1:], strict=True):
            part.copy_(new)

    def height(self) -> Tensor:
        """How likely the targets are: a number, or (A,)."""
        fn, column = site(self.model, self.z, self.targets), self.column
        each: Tensor = (
            fn.log_prob(self.targets) if column is None else columns_log_prob(fn, self.targets, torch.tensor([column]))
        )
        attempts = self.given.numbers.shape[: self.given.numbers.dim() - self.middles[0].dim()]
        return each.sum(-1).expand(attempts)  # also where no output has a say

    def _look_at_the_targets(self) -> None:
        """Set an output to the target where that is uphill: a location has to be exact in the end."""
        numbers = self.given.numbers
        for row in numbers.unbind(1) if numbers.shape[2:] == self.targets.shape[1:] else ():
            before, old = self.height(), row.clone()
            row.copy_(self.targets)
            if not self.height() > before:
                row.copy_(old)

    def _climb(self, radius: Tensor, rounds: int, paces: list[_Pace] | None = None) -> list[_Pace]:
        """Climb by the signs of the gradient, since its size is unbounded, and by Newton's steps, for locations.

        Starts with these step sizes, and returns the last ones. This is Rprop, whose steps torch's would limit by the
        same radius for all attempts. Riedmiller & Braun (1993), https://doi.org/10.1109/ICNN.1993.298623
        """
        moving = self.moving
        for part in moving:
            part.requires_grad_()
        self._clamp(radius)
        self._polish(radius)
        paces = paces or [_Pace(torch.zeros(()), radius / 8)] * len(moving)
        for _ in range(rounds):
            slopes = _slopes(self.height, moving)
            paces = [pace.after(slope, radius) for pace, slope in zip(paces, slopes, strict=True)]
            for part, pace in zip(moving, paces, strict=True):
                part.add_(pace.direction * pace.size)
            self._clamp(radius)
        self._polish(radius)
        for part in moving:
            part.requires_grad_(False)
        return paces

    def _polish(self, radius: Tensor) -> None:
        """Newton's steps, as if no number met another, for those whose slope they reduce."""
        for _ in range(POLISHED):
            before = [part.detach().clone() for part in self.moving]
            slopes, bends = _slopes_and_bends(self.height, self.moving)
            for part, slope, bend in zip(self.moving, slopes, bends, strict=True):
                part.sub_(torch.where(bend < 0, slope / bend, 0.0).nan_to_num(0.0, 0.0, 0.0))
            self._clamp(radius)
            after = _slopes(self.height, self.moving)
            for part, old, was, now in zip(self.moving, before, slopes, after, strict=True):
                part.copy_(torch.where(now.abs() <= was.abs(), part, old))

    def _clamp(self, radius: Tensor) -> None:
        for part, middle in zip(self.moving, self.middles, strict=True):
            part.clamp_(middle - radius, middle + radius)


def _slopes(height: Callable[[], Tensor], moving: list[Tensor]) -> list[Tensor]:
    """The derivatives of a height, 0 where they are NaN."""
    with torch.enable_grad():
        value = height().sum()
        if not value.requires_grad:  # the likelihood does not depend on the decoder
            return [torch.zeros_like(part) for part in moving]
        slopes = torch.autograd.grad(value, moving, allow_unused=True, materialize_grads=True)
    return [slope.nan_to_num(0.0) for slope in slopes]


def _slopes_and_bends(height: Callable[[], Tensor], moving: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
    """The same, and how each changes if all numbers of its part move alike: its own bend, if it is theirs alone."""
    bends = []
    with torch.enable_grad():
        value = height().sum()
        if not value.requires_grad:
            return (still := [torch.zeros_like(part) for part in moving]), still
        slopes = torch.autograd.grad(value, moving, create_graph=True, allow_unused=True, materialize_grads=True)
        for slope, part in zip(slopes, moving, strict=True):
            bend = torch.zeros_like(part)
            if slope.requires_grad:
                (bend,) = torch.autograd.grad(
                    slope.sum(), part, retain_graph=True, allow_unused=True, materialize_grads=True
                )
            bends.append(bend.nan_to_num(0.0))
    return [slope.detach().nan_to_num(0.0) for slope in slopes], bends


class Stepping(nn.Module):
    """A decoder whose outputs pass through several levels in turn as the first latent rises.

    It stands for a perceptron with one tanh hidden unit per step, whose parameters it has; outputs are computed
    from the nearest level, so they are exact wherever z is far from a step.

    Args:
        levels: the outputs, (P + 1, ...).
        positions: where the P steps between them are.
        steepness: s, of tanh s (z - position).
        latent_dim: L.
    """

    def __init__(self, levels: Tensor, positions: Tensor, steepness: float, latent_dim: int) -> None:
        super().__init__()
        self.levels, self.positions, self.steepness = levels, positions.to(levels), steepness
        jumps = levels.diff(dim=0).flatten(1) / 2
        inner = levels.new_zeros(len(positions), latent_dim)
        inner[:, 0] = steepness
        of_perceptron = (inner, -steepness * self.positions, jumps, levels[0].flatten() + jumps.sum(0))
        self.of_perceptron = nn.ParameterList([nn.Parameter(part, requires_grad=False) for part in of_perceptron])

    def forward(self, z: Tensor) -> Tensor:
        """(..., L) to (..., outputs)."""
        past = (1 + (self.steepness * (z[..., :1] - self.positions)).tanh()) / 2
        # from the nearest level: exact far from a step, and where two levels agree
        whole = past.round()
        out: Tensor = self.levels[whole.sum(-1).long()].flatten(-self.levels.dim() + 1)
        out = out + (past - whole) @ self.levels.diff(dim=0).flatten(1)
        return out.reshape(*z.shape[:-1], *self.levels.shape[1:])


def _needs(decoder: nn.Module, steps: int) -> str:
    """What a decoder needs for this many steps, if it has less or is not a perceptron."""
    layers = list(decoder.modules())
    linear = [layer for layer in layers if isinstance(layer, nn.Linear)]
    odd = [layer for layer in layers if next(layer.parameters(recurse=False), None) is not None]
    if len(linear) < 2 or len(odd) > len(linear):
        return "a decoder that can produce these outputs; whether this one can was not checked"
    units = max(1, steps) * (1 if any(isinstance(layer, nn.Tanh) for layer in layers) else 2)
    width = min(layer.out_features for layer in linear[:-1])
    return "" if width >= units else f"{units} units in each hidden layer for these rows, and has {width}"


# -- paths by hand -----------------------------------------------------------------------------------------------------


@paths.register
def _(model: models.TwoStage, x: Tensor) -> Iterator[Path]:
    """The paths of the first stage, with z standard normal for any u."""
    plain = copy.deepcopy(model)
    for parameter in plain.second.parameters():
        parameter.zero_()

    def along(path: Path, sharpness: Sequence[float]) -> Iterator[Point]:
        for point in path.along(sharpness):
            whole = copy.deepcopy(plain)
            whole.first = point.model
            yield Point(whole, point.positions)

    for path in paths(model.first, x):
        yield Path(path.description, path.needs, partial(along, path))


@paths.register
def _(model: models.GaussianMixture, x: Tensor) -> Iterator[Path]:
    def at(sharpness: float) -> Point:
        mixture = copy.deepcopy(model)
        with seeded(0):
            mixture.initialise(x)
        mixture.means[0] = x[0]
        covariance: Any = mixture.covariance
        for name, per_unit in (("log_excess", -2.0), ("logits", -2.0), ("log_diagonal", -1.0)):
            if hasattr(covariance, name):
                getattr(covariance, name)[0] = per_unit * sharpness
        return Point(mixture, torch.zeros(0))

    yield Path(ON_ONE, "", partial(map, at))


@paths.register
def _(model: models.LinearGaussian, x: Tensor) -> Iterator[Path]:
    """The principal directions of x, and a variance that vanishes around them."""

    def at(sharpness: float) -> Point:
        linear = copy.deepcopy(model)
        variance = math.exp(-sharpness / 2)
        centred = x - x.mean(0)
        _, deviations, directions = torch.linalg.svd(centred / len(x) ** 0.5, full_matrices=False)
        count = min(linear.latent_dim, len(deviations))
        spans = directions[:count].T * (deviations[:count] ** 2 - variance).clamp(min=0).sqrt()
        linear.decoder.weight.zero_()
        linear.decoder.weight[:, :count] = spans
        linear.decoder.bias.copy_(x.mean(0))
        linear.log_scale.fill_(-sharpness / 4)
        return Point(linear, torch.zeros(0))

    yield Path(ON_A_SURFACE, "", partial(map, at))
