"""Evidence where importance weights fail: annealed importance sampling from the guide to the posterior."""

from __future__ import annotations

from typing import NamedTuple

import pyro
import torch
from pyro import poutine
from torch import Tensor

from zoo import inference
from zoo.errors import Unknown
from zoo.latents import log_density, real_vector
from zoo.objectives import Program

__all__ = ["Annealed", "anneal"]

CHAINS, PILOT_CHAINS = 32, 8
ACCEPTANCE = 0.65  # of Hamiltonian moves, where they travel furthest for what they cost
FIRST_STEP, LEARNING = 0.5, 0.3  # in standard deviations of the guide; of the log step, per unit of acceptance


class Annealed(NamedTuple):
    """Log evidence and its standard error, both (B,), in double precision."""

    log_evidence: Tensor
    error: Tensor


class Point(NamedTuple):
    """Latents as real numbers u (C, B, U), log p(x, u) and log q(u | x), (C, B), and the two's gradients, (C, B, U).

    The densities are of u: those of the latents and the log volume that they are stretched by.
    """

    u: Tensor
    log_p: Tensor
    log_q: Tensor
    slope_p: Tensor
    slope_q: Tensor

    def log_density(self, beta: float) -> Tensor:
        """Log of q^(1 - beta) p^beta, up to its constant."""
        return (1 - beta) * self.log_q + beta * self.log_p

    def slope(self, beta: float) -> Tensor:
        """The gradient of :meth:`log_density`."""
        return (1 - beta) * self.slope_q + beta * self.slope_p


def anneal(model: Program, guide: Program, x: Tensor, temperatures: int, chains: int = CHAINS) -> Annealed:
    r"""Log p(x) by annealed importance sampling, from the guide to the posterior.

    .. math:: \log w = \sum_{t=1}^{T} (\beta_t - \beta_{t-1}) \log \frac{p(x, z_{t-1})}{q(z_{t-1} \mid x)}, \qquad
              \beta_t = t / T, \qquad z_0 \sim q(z \mid x)

    where z_t is one Hamiltonian move from z_{t-1} that leaves q^(1 - beta_t) p^beta_t as it is. The log-mean-exp of w
    over chains is, like that of importance weights, a lower bound of log p(x) in expectation. Step sizes, for each
    datum and temperature, are those at which a pilot of other chains accepted 65 % of its moves; they are frozen
    before the first weighted chain starts.

    Neal (2001), https://arxiv.org/abs/physics/9803008; Wu et al. (2017), https://arxiv.org/abs/1611.04273

    Args:
        model: p(x, latents); latents with bounds move on a scale without, and discrete ones are summed out.
        guide: q(latents | x), where the chains start.
        x: data, shape (B, D).
        temperatures: T.
        chains: C.

    Raises:
        Unknown: a discrete latent has too many values to be summed out, the guide's density is known at its own draws
            alone, or the model's is drawn.
    """
    if isinstance(model, inference.Dequantized):
        raise Unknown("a dequantised datum has another density at every call, and there is no annealing towards that")
    blocks = inference.row_blocks(x, chains * inference.width(model, x))
    parts = [_anneal(_Path(model, guide, rows), temperatures, chains) for rows in blocks]
    return Annealed(*(torch.cat(of_rows) for of_rows in zip(*parts, strict=True)))


def _anneal(path: _Path, temperatures: int, chains: int) -> Annealed:
    point = path.draw(chains)
    unit = point.u.std(0)
    steps = _pilot(path, unit, temperatures)
    log_weight = torch.zeros_like(point.log_p, dtype=torch.float64)
    for t in range(1, temperatures + 1):
        log_weight += (point.log_p - point.log_q) / temperatures
        if t < temperatures:
            point, _ = _move(path, point, t / temperatures, steps[t - 1])
    log_evidence = inference.log_mean_exp(log_weight)
    return Annealed(log_evidence, (log_weight - log_evidence).exp().std(0) / chains**0.5)


def _pilot(path: _Path, unit: Tensor, temperatures: int) -> list[Tensor]:
    """The step sizes (B, L) of every temperature, from chains that are then forgotten."""
    point, steps = path.draw(PILOT_CHAINS), []
    log_step = unit.new_full((len(unit), 1), FIRST_STEP).log()
    for t in range(1, temperatures):
        point, acceptance = _move(path, point, t / temperatures, log_step.exp() * unit)
        log_step = log_step + LEARNING * (acceptance.mean(0) - ACCEPTANCE)[:, None]
        steps.append(log_step.exp() * unit)
    return steps


def _move(path: _Path, point: Point, beta: float, step: Tensor) -> tuple[Point, Tensor]:
    """One leapfrog step, accepted or not, and the probability of accepting it, (C, B)."""
    start = torch.randn_like(point.u)
    half = start + step / 2 * point.slope(beta)
    proposed = path.at(point.u + step * half)
    end = half + step / 2 * proposed.slope(beta)
    gain = proposed.log_density(beta) - point.log_density(beta) + (start.square() - end.square()).sum(-1) / 2
    probability = gain.clamp(max=0).exp().nan_to_num(0)  # a proposal without a density is never accepted
    accepted = torch.rand_like(probability) < probability
    chosen = (
        torch.where(accepted[..., None] if new.dim() > 2 else accepted, new, old)
        for new, old in zip(proposed, point, strict=True)
    )
    return Point(*chosen), probability


class _Path:
    """Both ends of the path for data x, as functions of all latents in one real vector."""

    def __init__(self, model: Program, guide: Program, x: Tensor) -> None:
        self.model, self.guide, self.x = model, guide, x

    def draw(self, chains: int) -> Point:
        """C draws from the guide."""
        with pyro.plate("samples", chains, dim=-2):
            trace = poutine.trace(self.guide).get_trace(self.x)
        self.vector = real_vector(trace)
        return self.at(self.vector.flatten({name: trace.nodes[name]["value"] for name in self.vector.names}))

    @torch.enable_grad()
    def at(self, u: Tensor) -> Point:
        """The point u, shape (C, B, U)."""
        u = u.detach().requires_grad_()
        values, volume = self.vector.values(u)
        log_p, log_q = (log_density(program, self.x, values) + volume for program in (self.model, self.guide))
        slope_p, slope_q = (torch.autograd.grad(of.sum(), u, retain_graph=True)[0] for of in (log_p, log_q))
        return Point(u.detach(), log_p.detach(), log_q.detach(), slope_p, slope_q)
