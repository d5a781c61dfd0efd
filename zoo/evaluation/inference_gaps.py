"""The cost of a guide's family and of its encoder: the two parts of log p(x) - ELBO, by datum."""

from __future__ import annotations

from functools import partial, singledispatch
from typing import Any, NamedTuple

import pyro.distributions as dist
import torch
import xarray
from pyro import poutine
from torch import Tensor
from torch.func import grad

from zoo import inference
from zoo.answers import name_of
from zoo.context import Stream, random_stream
from zoo.errors import Unknown
from zoo.guides import FullRankNormal, MeanFieldNormal
from zoo.latents import REAL, latents, log_density
from zoo.objectives import Program
from zoo.rowwise import Rowwise, base_key, row_keys
from zoo.runs import Run

__all__ = ["Family", "Gaps", "family", "gaps", "inference_gaps"]

# On digits, ten times the steps and four times the draws raised the best ELBO by 0.02 nats.
ROWS, STEPS, RATE, DRAWS, ELBO_DRAWS = 64, 100, 0.1, 16, 1000
NATS = {"units": "nats per datum"}


def inference_gaps(run: Run, x: Tensor, heldout: xarray.Dataset) -> xarray.Dataset:
    """The split of log p(x) - ELBO for the first test rows, of the group ``spread``.

    Args:
        run: a trained pair.
        x: test data in scaled units, shape (N, D).
        heldout: the group ``heldout``; gaps are measured from its ``log_evidence``.

    Raises:
        Unknown: the guide draws more than one latent z, or its family is unknown.
    """
    x = x[:ROWS]
    find = GapFinder(STEPS, ELBO_DRAWS, inference.width(run.pair.model, x))
    found = run.each_seed(lambda model, guide: find(model, guide, x), Stream.POSTERIOR, 2)
    columns = zip(*found, strict=True)
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
        attrs={"gap_note": f"the first {len(x)} scored test rows, {STEPS} steps of Adam, {ELBO_DRAWS} draws"},
    )


class Gaps(NamedTuple):
    """ELBO of the guide and of the best member of its family, by datum, both (B,)."""

    elbo: Tensor
    optimal: Tensor


class Family(NamedTuple):
    """The distributions of z a guide could have chosen for a datum, and the one it chose.

    Attributes:
        numbers: the parameters of the chosen ones, (B, ...).
        among: has a method ``distribution`` from such parameters to q(z), batch shape (B,) and event shape (L,).
        units: how far each parameter can move before the distribution changes noticeably, in their shape.
    """

    numbers: Tensor
    among: Any
    units: Tensor


@singledispatch
def family(fn: dist.TorchDistribution) -> Family:
    """The family of a guide's distribution, if the guide itself does not name one."""
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
    return Family(numbers, guide, guide.units(numbers))


def _family_of(guide: Any, x: Tensor) -> Family:
    """The family that a guide names by its parameters for x (B, D), or else that of its distribution."""
    told = next((part for part in guide.modules() if hasattr(part, "numbers") and hasattr(part, "distribution")), None)
    names = latents(guide, x)
    if names.drawn != (REAL,) or (names.summed and told is None):
        raise Unknown(f"the gaps of a guide need a single latent {REAL}, and this one has {names}")
    if told is None:
        return family(poutine.trace(guide).get_trace(x).nodes[REAL]["fn"])
    return _among(told, told.numbers(x))


def gaps(model: Program, guide: Program, x: Tensor, steps: int = STEPS, draws: int = ELBO_DRAWS) -> Gaps:
    r"""The ELBO of the guide, and the highest ELBO in its family for each datum.

    .. math:: \log p(x) - \mathrm{ELBO}(q_\phi(\cdot \mid x)) =
              \underbrace{\log p(x) - \mathrm{ELBO}(q^*)}_\text{approximation} +
              \underbrace{\mathrm{ELBO}(q^*) - \mathrm{ELBO}(q_\phi(\cdot \mid x))}_\text{amortisation}, \qquad
              q^* = \arg\max_{q \in Q} \mathrm{ELBO}(q)

    q* is sought by Adam from the guide's own q. The shared part of a flow is fixed: its family is the set of
    distributions that other encoder outputs would give. In scaled units; model and guide are not changed.

    Cremer, Li & Duvenaud (2018), Inference Suboptimality in Variational Autoencoders, https://arxiv.org/abs/1801.03558

    Args:
        model: p(x, z) with one latent z, (L,), and possibly discrete ones.
        guide: q(z | x), normal or given by encoder outputs.
        x: data, shape (B, D).
        steps: number of Adam steps.
        draws: draws for the two final ELBOs, with the same noise for both.

    Raises:
        Unknown: the guide has another latent, or its family is unknown.
    """
    return GapFinder(steps, draws, inference.width(model, x))(model, guide, x)


class GapFinder:
    """:func:`gaps` for the seeds of a pair in turn."""

    def __init__(self, steps: int, draws: int, width: int) -> None:
        self.steps = steps
        self.slope = Rowwise(_slope, 2 * DRAWS * width)
        self.pieces = inference.pieces(draws, max(1, min(draws, inference.CHUNK // width)))
        self.elbo = {piece: Rowwise(partial(_elbo, draws=piece), piece * width) for piece in {*self.pieces}}

    def __call__(self, model: Program, guide: Program, x: Tensor) -> Gaps:
        """The gaps of data x (B, D)."""
        start, key = _family_of(guide, x), base_key()
        best, keys = self._best(model, x, start, key), row_keys(key, len(x))
        elbo, optimal = (self._elbo_of(model, start.among, [x, numbers], keys) for numbers in (start.numbers, best))
        # both are in the family and scored on the same fresh noise: what Adam lost at an optimum is not a gap
        return Gaps(elbo, optimal.maximum(elbo))

    def _elbo_of(self, model: Program, among: Any, rows: list[Tensor], keys: list[int]) -> Tensor:
        """The ELBO of each datum, some draws at a time, those of the first piece by the datum's own key."""
        total = torch.zeros(len(keys), dtype=torch.float64)
        for number, piece in enumerate(self.pieces):
            of_piece = [random_stream(key, Stream.NOISE, number) for key in keys] if number else keys
            total += piece / sum(self.pieces) * self.elbo[piece].block(model, among, rows, of_piece)[0]
        return total

    def _best(self, model: Program, x: Tensor, start: Family, key: int) -> Tensor:
        """The best parameters for each datum, sought in units of the start so that one rate suits all."""
        moved = torch.zeros_like(start.numbers)
        optimiser = torch.optim.Adam([moved], lr=RATE)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, self.steps)
        for step in range(self.steps):
            keys = row_keys(random_stream(key, Stream.NOISE, step + 1), len(x))
            (moved.grad,) = self.slope.block(model, start.among, [x, start.numbers, start.units, moved], keys)
            optimiser.step()
            schedule.step()
        return start.numbers + start.units * moved


# -- for one datum -----------------------------------------------------------------------------------------------------


def _slope(model: Program, among: Any, x: Tensor, numbers: Tensor, units: Tensor, moved: Tensor) -> tuple[Tensor]:
    """The gradient of -ELBO with respect to the parameters' displacement."""

    def loss(moved: Tensor) -> Tensor:
        return -_log_weights(model, x, among.distribution(numbers + units * moved), DRAWS).mean()

    return (grad(loss)(moved)[0],)


def _elbo(model: Program, among: Any, x: Tensor, numbers: Tensor, draws: int) -> tuple[Tensor]:
    """The ELBO over this many draws, in double precision."""
    return (_log_weights(model, x, among.distribution(numbers), draws).double().mean(),)


def _log_weights(model: Program, x: Tensor, q: Any, draws: int) -> Tensor:
    """Log p(x, z) - log q(z), shape (K, B), at K draws of z."""
    z = q.rsample((draws,))
    of_guide: Tensor = q.log_prob(z)
    return log_density(model, x, {REAL: z}) - of_guide
