"""Evidence where importance weights fail: annealed importance sampling from the guide to the posterior."""

from __future__ import annotations

from math import prod
from typing import NamedTuple

import pyro
import torch
from pyro import poutine
from torch import Tensor
from torch.func import vjp

from zoo import inference
from zoo.context import Stream, random_stream
from zoo.errors import Unknown
from zoo.latents import Vector, log_density, real_vector
from zoo.objectives import Program
from zoo.rowwise import Rowwise, keyed_blocks, standard_noise

__all__ = ["Annealed", "Annealer", "Chains", "anneal"]

CHAINS, TOGETHER = 32, 8  # chains per datum, and how many are moved together: all of the pilot's
ACCEPTANCE = 0.65  # acceptance rate at which Hamiltonian moves travel furthest for their cost
FIRST_STEP, LEARNING = 0.5, 0.3  # in standard deviations of the guide; change of the log step per unit of acceptance


class Annealed(NamedTuple):
    """Log evidence and its standard error, both (B,), in double precision."""

    log_evidence: Tensor
    error: Tensor


class Chains(NamedTuple):
    """Log weights of chains, (C, B): of the density, and of cells if asked for."""

    density: Tensor
    cells: Tensor | None

    def of_density(self) -> Annealed:
        """Log p(x)."""
        return _mean(self.density)

    def of_cells(self) -> tuple[Annealed, Tensor]:
        """Log P(cell), and the share of effective chains under its weights, (B,), small if the posteriors differ."""
        assert self.cells is not None
        kept = _size(self.cells) / _size(self.density)
        return _mean(self.cells), kept


class Point(NamedTuple):
    """Latents as real numbers u (C, 1, U), log p(x, u) and log q(u | x), (C, 1), and both gradients, (C, 1, U).

    The densities are of u: those of the latents plus the log volume of the map.
    """

    u: Tensor
    log_p: Tensor
    log_q: Tensor
    slope_p: Tensor
    slope_q: Tensor

    def log_density(self, beta: Tensor) -> Tensor:
        """Log of q^(1 - beta) p^beta, up to its constant."""
        return (1 - beta) * self.log_q + beta * self.log_p

    def slope(self, beta: Tensor) -> Tensor:
        """The gradient of :meth:`log_density`."""
        return (1 - beta) * self.slope_q + beta * self.slope_p


def anneal(model: Program, guide: Program, x: Tensor, temperatures: int, chains: int = CHAINS) -> Annealed:
    r"""Log p(x) by annealed importance sampling, from the guide to the posterior.

    .. math:: \log w = \sum_{t=1}^{T} (\beta_t - \beta_{t-1}) \log \frac{p(x, z_{t-1})}{q(z_{t-1} \mid x)}, \qquad
              \beta_t = t / T, \qquad z_0 \sim q(z \mid x)

    where z_t is one Hamiltonian move from z_{t-1} that leaves q^(1 - beta_t) p^beta_t invariant. The log-mean-exp of w
    over chains is, as for importance weights, a lower bound on log p(x) in expectation. Step sizes, for each datum and
    temperature, come from separate pilot chains that accepted 65 % of their moves. They are frozen before the first
    weighted chain starts: steps by the weighted chains' own spread would bias the weights upwards.

    Neal (2001), https://arxiv.org/abs/physics/9803008; Wu et al. (2017), https://arxiv.org/abs/1611.04273

    Args:
        model: p(x, latents); bounded latents move on an unbounded scale, and discrete ones are summed out.
        guide: q(latents | x), from which the chains start.
        x: data, shape (B, D).
        temperatures: T.
        chains: C, rounded up to a multiple of 8.

    Raises:
        Unknown: a discrete latent has too many values to be summed out, the guide's density is known only at its own
            draws, or the model's density is random.
    """
    return Annealer(temperatures, inference.width(model, x), chains)(model, guide, x).of_density()


class Annealer:
    """:func:`anneal` for the seeds of a pair in turn, with its moves recorded once.

    Chains are moved eight at a time, as if each eight belonged to a datum of their own.
    """

    def __init__(self, temperatures: int, width: int, chains: int = CHAINS) -> None:
        self.temperatures, self.groups = temperatures, -(-chains // TOGETHER)
        numbers = 2 * TOGETHER * width  # gradients, too
        self.start = Rowwise(_started, numbers)
        self.move = Rowwise(_moved, numbers)
        self.weigh_cells = Rowwise(_of_cells, numbers)

    def __call__(
        self, model: Program, guide: Program, x: Tensor, lens: inference.Cells | None = None, at: Tensor | None = None
    ) -> Chains:
        r"""Chains for x (B, D), reweighted for the cells around ``at`` (B, D) if a lens is given.

        .. math:: \log w + \log \frac{P(\mathrm{cell} \mid z_T)}{p(x \mid z_T)}
        """
        if isinstance(model, inference.Dequantized):
            raise Unknown("a dequantised datum has a different density at every call, so annealing has no target")
        size = max(1, self.move.rows // self.groups)
        blocks = keyed_blocks(size, x, x if at is None else at)
        found = [self._of_block(model, guide, rows, cells, keys, lens) for (rows, cells), keys in blocks]
        density, cells = zip(*found, strict=True)
        return Chains(torch.cat(density, dim=1), torch.cat(cells, dim=1) if lens else None)

    def _of_block(
        self, model: Program, guide: Program, x: Tensor, at: Tensor, keys: list[int], lens: inference.Cells | None
    ) -> tuple[Tensor, Tensor]:
        """Log weights of the density and of cells, (C, B) each."""
        of_groups = [random_stream(key, Stream.NOISE, group + 1) for key in keys for group in range(self.groups)]
        steps = self._pilot(model, guide, x, keys)
        x, at, *steps = (of.repeat_interleave(self.groups, 0) for of in (x, at, *steps))
        point, noise = self._begun(model, guide, x, of_groups)
        log_weight = torch.zeros_like(point[1], dtype=torch.float64)
        for t in range(1, self.temperatures + 1):
            log_weight += (point[1] - point[2]) / self.temperatures
            if t < self.temperatures or lens:
                point, _ = self._moved(model, guide, x, point, t, steps[t - 1], noise)
        of_cells = log_weight
        if lens:
            of_cells = log_weight + self.weigh_cells.block(lens, model, [x, at, point[0]])[0]
        return self._by_chain(log_weight), self._by_chain(of_cells)

    def _pilot(self, model: Program, guide: Program, x: Tensor, keys: list[int]) -> list[Tensor]:
        """The step sizes (B, U) of every temperature, from chains that are then discarded.

        They are in units of the spread of other draws of the guide, as many as there are weighted chains.
        """
        others = [
            random_stream(key, Stream.NOISE, self.groups + 1 + group) for key in keys for group in range(self.groups)
        ]
        starts = self.start.block(model, guide, [x.repeat_interleave(self.groups, 0)], others)[0]
        unit = starts.reshape(len(x), -1, starts.shape[-1]).std(1)
        point, noise = self._begun(model, guide, x, [random_stream(key, Stream.NOISE) for key in keys])
        steps = []
        log_step = torch.full_like(unit[:, :1], FIRST_STEP).log()
        for t in range(1, self.temperatures + 1):
            point, acceptance = self._moved(model, guide, x, point, t, log_step.exp() * unit, noise)
            log_step = log_step + LEARNING * (acceptance.mean(1) - ACCEPTANCE)
            steps.append(log_step.exp() * unit)
        return steps

    def _begun(self, model: Program, guide: Program, x: Tensor, keys: list[int]) -> tuple[list[Tensor], list[Tensor]]:
        """The start of the chains, and the noise of all moves: momenta (T, C, 1, U) and acceptance, (T, C, 1)."""
        point = [*self.start.block(model, guide, [x], keys)]
        shape = (self.temperatures, *point[0].shape[1:])
        others = [random_stream(key, Stream.NOISE) for key in keys]
        noise = standard_noise(others, {"normal": prod(shape), "uniform": prod(shape[:-1])}, x)
        return point, [noise["normal"].unflatten(-1, shape), noise["uniform"].unflatten(-1, shape[:-1])]

    def _moved(
        self, model: Program, guide: Program, x: Tensor, point: list[Tensor], t: int, step: Tensor, noise: list[Tensor]
    ) -> tuple[list[Tensor], Tensor]:
        beta = torch.full_like(x[:, 0], t / self.temperatures)
        rows = [x, *point, beta, step, *(of[:, t - 1] for of in noise)]
        *moved, acceptance = self.move.block(model, guide, rows)
        return moved, acceptance

    def _by_chain(self, log_weight: Tensor) -> Tensor:
        """From (B groups, C / groups, 1) to (C, B)."""
        return log_weight.reshape(-1, self.groups * TOGETHER).T


# -- for one datum, whose chains are (C, 1, ...) -----------------------------------------------------------------------


def _started(model: Program, guide: Program, x: Tensor) -> Point:
    """Draws from the guide."""
    with pyro.plate("samples", TOGETHER, dim=-2):
        trace = poutine.trace(guide).get_trace(x)
    vector = real_vector(trace)
    return _at(model, guide, x, vector, vector.flatten({name: trace.nodes[name]["value"] for name in vector.names}))


def _at(model: Program, guide: Program, x: Tensor, vector: Vector, u: Tensor) -> Point:
    def density_and_slope(program: Program) -> tuple[Tensor, Tensor]:
        def density(u: Tensor) -> Tensor:
            values, volume = vector.values(u)
            return log_density(program, x, values) + volume

        of_u, pulled = vjp(density, u)[:2]
        (slope,) = pulled(torch.ones_like(of_u))
        return of_u, slope

    log_p, slope_p = density_and_slope(model)
    log_q, slope_q = density_and_slope(guide)
    return Point(u, log_p, log_q, slope_p, slope_q)


def _moved(model: Program, guide: Program, x: Tensor, *given: Tensor) -> tuple[Tensor, ...]:
    """One leapfrog step, accepted or not, and the probability of accepting it, (C, 1)."""
    *of_point, beta, step, momentum, uniform = (of[0] for of in given)
    point, vector = Point(*of_point), real_vector(poutine.trace(guide).get_trace(x))
    half = momentum + step / 2 * point.slope(beta)
    proposed = _at(model, guide, x, vector, point.u + step * half)
    end = half + step / 2 * proposed.slope(beta)
    gain = proposed.log_density(beta) - point.log_density(beta) + (momentum.square() - end.square()).sum(-1) / 2
    probability = gain.clamp(max=0).exp().nan_to_num(0)  # a proposal without a density is never accepted
    accepted = uniform < probability
    chosen = (
        torch.where(accepted[..., None] if new.dim() > 2 else accepted, new, old)
        for new, old in zip(proposed, point, strict=True)
    )
    return *chosen, probability


def _of_cells(lens: Program, model: Program, x: Tensor, at: Tensor, u: Tensor) -> tuple[Tensor]:
    """By how much the cell's log probability exceeds the log density, (C, 1)."""
    vector = real_vector(poutine.trace(poutine.block(model, hide=["x"])).get_trace(x))
    values, _ = vector.values(u[0])
    return (log_density(lens, at, values) - log_density(model, x, values),)


def _mean(log_weights: Tensor) -> Annealed:
    log_evidence = inference.log_mean_exp(log_weights)
    return Annealed(log_evidence, (log_weights - log_evidence).exp().std(0) / len(log_weights) ** 0.5)


def _size(log_weights: Tensor) -> Tensor:
    """The effective number of weights (C, B)."""
    return (2 * log_weights.logsumexp(0) - (2 * log_weights).logsumexp(0)).exp()
