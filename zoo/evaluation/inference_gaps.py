"""What a guide's form costs, and what its encoder does: the two parts of log p(x) - ELBO, datum by datum."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import singledispatch
from typing import Any, NamedTuple

import pyro.distributions as dist
import torch
import xarray
from pyro import poutine
from torch import Tensor

from zoo import inference
from zoo.answers import name_of
from zoo.context import Stream, random_stream, seeded
from zoo.errors import Unknown
from zoo.guides import FullRankNormal, MeanFieldNormal
from zoo.latents import REAL, latents, log_density
from zoo.objectives import Program
from zoo.runs import Run

__all__ = ["Family", "Gaps", "family", "gaps", "inference_gaps"]

# On digits five times the steps and twice the draws raised the best ELBO by 0.01 nats.
ROWS, STEPS, RATE, DRAWS, ELBO_DRAWS = 64, 200, 0.1, 32, 1000
NATS = {"units": "nats per datum"}


def inference_gaps(run: Run, x: Tensor, heldout: xarray.Dataset) -> xarray.Dataset:
    """The split of log p(x) - ELBO for the first test rows, of the group ``spread``.

    Args:
        run: a trained pair.
        x: test data in scaled units, shape (N, D).
        heldout: the group ``heldout``, whose ``log_evidence`` the gaps are measured from.

    Raises:
        Unknown: more is drawn than one latent z, or the guide's family is not known.
    """
    x = x[:ROWS]
    columns = zip(
        *run.each_seed(lambda model, guide: gaps(model, guide, x, STEPS, ELBO_DRAWS), Stream.POSTERIOR, 2),
        strict=True,
    )
    elbo, optimal = (torch.stack(column).numpy() - run.pair.view.log_volumes(x.numpy()) for column in columns)
    evidence = heldout["log_evidence"].values[:, : len(x)]
    of_datum = {
        "elbo": elbo,
        "elbo_optimal": optimal,
        "approximation_gap": evidence - optimal,
        "amortization_gap": optimal - elbo,
    }
    return xarray.Dataset(
        {name: (("chain", "obs"), values, NATS) for name, values in of_datum.items()},
        attrs={"gap_note": f"the first {len(x)} test rows, {STEPS} steps of Adam, {ELBO_DRAWS} draws"},
    )


class Gaps(NamedTuple):
    """ELBO of the guide and of the best member of its family, datum by datum, both (B,)."""

    elbo: Tensor
    optimal: Tensor


class Family(NamedTuple):
    """The distributions of z that a guide might have chosen for a datum, and the one that it did choose.

    Attributes:
        numbers: of the chosen ones, (B, ...).
        distribution: from such numbers to q(z), batch shape (B,) and event shape (L,).
        units: how far each of the numbers can move before the distribution is another, of their shape.
    """

    numbers: Tensor
    distribution: Callable[[Tensor], Any]
    units: Tensor


@singledispatch
def family(fn: dist.TorchDistribution) -> Family:
    """The family of a guide's distribution, where the guide itself does not say what it is."""
    raise Unknown(f"the best member of the family of {name_of(fn)} is not known")


@family.register
def _(fn: dist.Independent) -> Family:
    if not isinstance(fn.base_dist, dist.Normal):
        raise Unknown(f"the best member of the family of {name_of(fn)} is not known")
    return _among(MeanFieldNormal(torch.nn.Identity()), torch.stack([fn.mean, 2 * fn.stddev.log()], dim=-2))


@family.register
def _(fn: dist.MultivariateNormal) -> Family:
    factor = fn.scale_tril
    rows = factor.tril(-1) + torch.diag_embed(factor.diagonal(dim1=-2, dim2=-1).log())
    return _among(FullRankNormal(torch.nn.Identity()), torch.cat([fn.mean[..., None, :], rows], dim=-2))


def _among(guide: Any, numbers: Tensor) -> Family:
    return Family(numbers, guide.distribution, guide.units(numbers))


def _family_of(guide: Any, x: Tensor) -> Family:
    """The family of a guide that says what its numbers are for x (B, D), or else of its distribution there."""
    told = next((part for part in guide.modules() if hasattr(part, "numbers") and hasattr(part, "distribution")), None)
    names = latents(guide, x)
    if names.drawn != (REAL,) or (names.summed and told is None):
        raise Unknown(f"the gaps of a guide are known for one latent {REAL}, and this one has {names}")
    if told is None:
        return family(poutine.trace(guide).get_trace(x).nodes[REAL]["fn"])
    return _among(told, told.numbers(x))


def gaps(model: Program, guide: Program, x: Tensor, steps: int = STEPS, draws: int = ELBO_DRAWS) -> Gaps:
    r"""The ELBO of the guide, and the highest that a distribution of its family reaches for each datum.

    .. math:: \log p(x) - \mathrm{ELBO}(q_\phi(\cdot \mid x)) =
              \underbrace{\log p(x) - \mathrm{ELBO}(q^*)}_\text{approximation} +
              \underbrace{\mathrm{ELBO}(q^*) - \mathrm{ELBO}(q_\phi(\cdot \mid x))}_\text{amortisation}, \qquad
              q^* = \arg\max_{q \in Q} \mathrm{ELBO}(q)

    q* is sought by Adam from the guide's own q. Of a flow, what all data share stays as it is: its family are the
    distributions that other numbers of the encoder would have given. In units as scaled; model and guide stay as they
    are.

    Cremer, Li & Duvenaud (2018), Inference Suboptimality in Variational Autoencoders, https://arxiv.org/abs/1801.03558

    Args:
        model: p(x, z) with one latent z, (L,), or discrete ones beside it.
        guide: q(z | x), normal or with an encoder's numbers.
        x: data, shape (B, D).
        steps: of Adam.
        draws: for the two ELBOs at the end, the same noise for both.

    Raises:
        Unknown: the guide has another latent, or its family is not known.
    """
    blocks = inference.row_blocks(x, DRAWS * inference.width(model, x))
    return Gaps(
        *(torch.cat(parts) for parts in zip(*(_gaps_of(model, guide, b, steps, draws) for b in blocks), strict=True))
    )


def _gaps_of(model: Program, guide: Program, x: Tensor, steps: int, draws: int) -> Gaps:
    start = _family_of(guide, x)
    best = _optimised(model, x, start, steps)
    noise = random_stream(int(torch.randint(2**31, ())), Stream.POSTERIOR)
    elbo, optimal = (_elbo(model, x, q, draws, noise) for q in (start, best))
    # both are of the family and scored on the same noise, fresh to both: what Adam lost at an optimum is not a gap
    return Gaps(elbo, optimal.maximum(elbo))


def _optimised(model: Program, x: Tensor, start: Family, steps: int) -> Family:
    """The best member of the family for each datum, in units of where it starts, so that one rate suits all."""
    moved = torch.zeros_like(start.numbers).requires_grad_()
    optimiser = torch.optim.Adam([moved], lr=RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    with torch.enable_grad():
        for _ in range(steps):
            q = start._replace(numbers=start.numbers + start.units * moved)
            (moved.grad,) = torch.autograd.grad(-_log_weights(model, x, q, DRAWS).mean(0).sum(), moved)
            optimiser.step()
            schedule.step()
    return start._replace(numbers=(start.numbers + start.units * moved).detach())


def _elbo(model: Program, x: Tensor, q: Family, draws: int, seed: int) -> Tensor:
    """The ELBO of each datum over so many draws, in double precision, a few at a time."""
    with seeded(seed):
        sums = [
            _log_weights(model, x, q, size).double().sum(0)
            for size in _chunks(draws, len(x) * inference.width(model, x))
        ]
    return torch.stack(sums).sum(0) / draws


def _chunks(draws: int, numbers_per_draw: int) -> Iterator[int]:
    size = max(1, inference.CHUNK // numbers_per_draw)
    for start in range(0, draws, size):
        yield min(size, draws - start)


def _log_weights(model: Program, x: Tensor, q: Family, draws: int) -> Tensor:
    """Log p(x, z) - log q(z), shape (K, B), at K draws of z."""
    fn = q.distribution(q.numbers)
    z = fn.rsample((draws,))
    of_guide: Tensor = fn.log_prob(z)
    return log_density(model, x, {REAL: z}) - of_guide
