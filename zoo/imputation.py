"""Missing entries, drawn given the observed ones.

Plain functions of (model, guide, x) for one seed, with x in the model's units, NaN for missing entries, and both
programs restricted to observed entries (:func:`zoo.lenses.observed`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import numpy as np
import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from torch import Tensor

from zoo import inference
from zoo.densities import missing_draws
from zoo.latents import log_density
from zoo.lenses import Gapped, Observed
from zoo.objectives import Program
from zoo.options import ImputationMethod

__all__ = [
    "SWEEPS",
    "center",
    "given_latents",
    "impute",
    "states",
]

Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]
Latents: TypeAlias = dict[str, Tensor]
SAMPLES = 1000  # draws of the guide that importance sampling chooses from
SWEEPS = 50  # sweeps over latents and entries in either Gibbs sampler
WARM_UP = 5  # Metropolis within Gibbs accepts every draw in the first 1/WARM_UP of its sweeps


def impute(
    model: Observed,
    guide: Program,
    x: Tensor,
    draws: int,
    method: ImputationMethod = "importance",
    sweeps: int = SWEEPS,
) -> Tensor:
    """Draws of x (N, D) that differ only in missing entries, (K, N, D), a block of rows at a time."""
    blocks = []
    for rows in _blocks(model, guide, x, draws):
        *_, latents = states(model, guide, rows, draws, method, sweeps)
        blocks.append(missing_draws(given_latents(model, rows, latents).base, rows))
    return torch.cat(blocks, dim=1)


def states(
    model: Observed, guide: Program, x: Tensor, draws: int, method: ImputationMethod, sweeps: int = SWEEPS
) -> Iterator[Latents]:
    r"""Draws of the latents given observed entries, (K, B, ...) by site: one by importance sampling, or one per sweep.

    ``importance`` chooses among many draws of the guide by their weights (Mattei & Frellsen 2019,
    https://arxiv.org/abs/1812.02633):

    .. math:: w_k \propto p(x_o \mid z_k) \, p(z_k) / q(z_k \mid x_o), \qquad z_k \sim q(z \mid x_o)

    ``gibbs`` continues from there by Metropolis within Gibbs (Mattei & Frellsen 2018, https://arxiv.org/abs/1802.04826,
    section 4). With x completed, a draw of the guide is accepted with probability

    .. math:: \min\left(1, \frac{p(x \mid z') \, p(z')}{p(x \mid z) \, p(z)} \frac{q(z \mid x)}{q(z' \mid x)}\right),

    and x is completed again by a draw of :math:`p(x_m \mid x_o, z)`. The posterior of latents and entries is invariant
    under each of the K chains, whatever the guide. Every draw in the first fifth of the sweeps is accepted, since a
    guide that never saw a gap starts the chains where they would get stuck. ``pseudo-gibbs`` accepts every draw
    (Rezende, Mohamed & Wierstra 2014, https://arxiv.org/abs/1401.4082); its invariant distribution is a different one
    unless the guide is exact.
    """
    latents = _importance(model, guide, x, draws)
    if method == "importance":
        yield latents
        return
    free = sweeps // WARM_UP if method == "gibbs" else sweeps
    for sweep in range(sweeps):
        latents = _sweep(model, guide, x, latents, _always if sweep < free else _metropolis)
        yield latents


def _importance(model: Observed, guide: Program, x: Tensor, draws: int) -> Latents:
    samples = draws if inference.draws_nothing(model, guide, x) else max(draws, SAMPLES)
    chosen = []
    for rows in inference.row_blocks(x, samples * inference.width(model, x)):
        drawn = inference.posterior_draws(model, guide, rows, samples)
        weights = (drawn.lp - drawn.lq).double().softmax(0)
        weights = torch.where(weights.isnan(), 1.0, weights)  # for data too far out for any draw, all are alike
        at = torch.multinomial(weights.mT, draws, replacement=True).mT
        chosen.append({name: _take(values, at) for name, values in drawn.latents.items()})
    return {name: torch.cat([block[name] for block in chosen], dim=1) for name in chosen[0]}


def _take(values: Tensor, at: Tensor) -> Tensor:
    """Select from values (K, B, ...) by the indices (J, B) of each column: (J, B, ...)."""
    index = at.reshape(*at.shape, *[1] * (values.dim() - 2)).expand(*at.shape, *values.shape[2:])
    return values.gather(0, index)


def _sweep(
    model: Observed, guide: Program, x: Tensor, latents: Latents, accept: Callable[[Tensor, Tensor], Tensor]
) -> Latents:
    """Redraw the missing entries, then the latents. Each chain of each datum is its own row."""
    complete = missing_draws(given_latents(model, x, latents).base, x).flatten(0, 1)
    old = {name: values.flatten(0, 1)[None] for name, values in latents.items()}
    new = inference.posterior_draws(model.model, guide, complete, 1)
    of_old = log_density(model.model, complete, old) - log_density(guide, complete, old)
    taken = accept((new.lp - new.lq)[0], of_old[0])
    moved = {}
    for name, values in latents.items():
        keep = taken.reshape(-1, *[1] * (values.dim() - 2))
        moved[name] = torch.where(keep, new.latents[name][0], old[name][0]).reshape(values.shape)
    return moved


def _metropolis(new: Tensor, old: Tensor) -> Tensor:
    """Whether draws are accepted, by their log weights; NaN is rejected."""
    return torch.rand_like(new).log() < new - old


def _always(new: Tensor, _: Tensor) -> Tensor:
    return torch.ones_like(new, dtype=torch.bool)


def given_latents(model: Observed, x: Tensor, latents: Latents) -> Gapped:
    """p(x | z) for latents (K, B, ...)."""
    with pyro.plate("samples", len(next(iter(latents.values()))), dim=-2):
        trace = poutine.trace(poutine.condition(model, data=latents)).get_trace(x)
    return trace.nodes["x"]["fn"]  # type: ignore[no-any-return]


def center(draws: Array, nominal: Array) -> Array:
    """The mean of draws (K, ..., H), or the most frequent draw for names, (H,); NaN only if all draws are."""
    none = np.isnan(draws).all(axis=0)
    found = np.asarray(np.nansum(draws, axis=0) / np.maximum(1, (~np.isnan(draws)).sum(axis=0)))
    names = draws[..., nominal]
    if len(each := np.unique(names[~np.isnan(names)])):
        counts = np.stack([(names == name).sum(axis=0) for name in each])
        found[..., nominal] = each[counts.argmax(axis=0)]
    return np.where(none, np.nan, found)


def _blocks(model: Observed, guide: Program, x: Tensor, draws: int) -> Iterator[Tensor]:
    """Rows that fit into memory together; a covariance per datum takes as much as a layer of its size."""
    likelihood = given_latents(model, x[:1], inference.posterior_draws(model, guide, x[:1], 1).latents).base
    joint = isinstance(likelihood, dist.MultivariateNormal | dist.LowRankMultivariateNormal)
    return inference.row_blocks(x, draws * max(inference.width(model, x), x.shape[1] ** 2 if joint else 0))
