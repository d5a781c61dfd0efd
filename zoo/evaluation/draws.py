"""Draws of latents and data from a trained pair: the groups that ArviZ's plots use."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyro
import torch
import xarray
from pyro import poutine
from torch import Tensor

from zoo import inference
from zoo.context import Stream
from zoo.data import Data
from zoo.errors import Unknown
from zoo.latents import CATEGORY, REAL, latents
from zoo.objectives import latent_sites
from zoo.runs import Run
from zoo.splits import subsample

__all__ = ["Kept", "posterior", "posterior_predictive", "prior", "prior_predictive", "prior_sbc", "reconstruction"]

# Groups of draws serve pictures and marginals, so their size is capped.
POSTERIOR_DRAWS, PRIOR_DRAWS, PREDICTIVE_DRAWS, RECONSTRUCTION_DRAWS = 100, 100, 20, 32
RECONSTRUCTED = 64  # rows
LEAST_ROWS, LEAST_DRAWS = 64, 4  # kept for any number of latents and columns
KEPT = 10**7  # most numbers in the draws of all seeds, and in their data
PREDICTED = 4 * 10**6  # most numbers in a predictive group
RANKED = 100  # guide draws among which a latent is ranked


@dataclass(frozen=True)
class Kept:
    """The rows of ``observed_data``, which all groups of draws share, and the number of draws for each.

    Attributes:
        rows: test data in the units as loaded, (N, D).
        of: how many test rows are scored.
        latents: number of draws of a row's latents.
        predictive: number of draws of a row's data.
    """

    rows: xarray.DataArray
    of: int
    latents: int
    predictive: int

    @classmethod
    def of_run(cls, run: Run, data: Data) -> Kept:
        """As many rows and draws as fit."""
        one = run.inward(data.test[:1].values)
        drawn, *_ = run.each_seed(
            lambda model, guide: inference.posterior_draws(model, guide, one, 1), Stream.POSTERIOR
        )
        of_draw = len(run.seeds) * (len(drawn._fields[1:]) + sum(site.numel() for site in drawn.latents.values()))
        of_row = len(run.seeds) * data.features
        room = max(LEAST_ROWS, KEPT // max(of_draw * POSTERIOR_DRAWS, data.features))
        rows = subsample(data.test, min(room, max(1, PREDICTED // (of_row * LEAST_DRAWS))))
        return cls(
            rows,
            len(data.test),
            max(2, min(POSTERIOR_DRAWS, KEPT // (of_draw * len(rows)))),
            max(LEAST_DRAWS, min(PREDICTIVE_DRAWS, PREDICTED // (of_row * len(rows)))),
        )

    def dataset(self, variables: dict[str, Any], told: str = "", rows: int | None = None) -> xarray.Dataset:
        """Variables for these rows, or the first of them, with a note that says so."""
        count = len(self.rows)
        which = f"{count:,} of {self.of:,} scored test rows, a random subset"
        which = which if count < self.of else f"the {self.of:,} scored test rows"
        which = which if rows is None else f"the first {rows} rows of observed_data"
        return xarray.Dataset(variables, {"obs": self.rows["obs"].values[:rows]}, {"note": f"{told}{which}"})


def posterior(run: Run, kept: Kept) -> tuple[xarray.Dataset, xarray.Dataset]:
    """The groups ``posterior`` and ``sample_stats``: draws of the latents of every row, and their log densities."""
    x, volume = run.inward(kept.rows.values), run.pair.view.log_volumes(kept.rows.values)
    draws = run.each_seed(
        lambda model, guide: inference.posterior_draws(model, guide, x, kept.latents), Stream.POSTERIOR
    )
    dims = ("chain", "draw", "obs")
    variables = _by_site([seed.latents for seed in draws], dims)
    if CATEGORY in draws[0].latents:
        found = run.each_seed(lambda _, guide: inference.responsibility(guide, x), Stream.POSTERIOR)
        if known := [probability for probability in found if probability is not None]:
            variables["responsibility"] = (("chain", "obs", "component"), torch.stack(known).numpy())
    lp, lq = (torch.stack([getattr(seed, name) for seed in draws]).numpy() for name in ("lp", "lq"))
    told = f"{kept.latents} draws for each of "
    return kept.dataset(variables, told), kept.dataset({"lp": (dims, lp - volume), "lq": (dims, lq)}, told)


def prior(run: Run) -> xarray.Dataset:
    """The group ``prior``: draws of the latents without a datum."""
    blank = torch.zeros(1, run.pair.data.features, dtype=torch.float32)

    def draw(model: Any, _: Any) -> dict[str, Tensor]:
        with pyro.plate("samples", PRIOR_DRAWS, dim=-2):
            trace = poutine.trace(inference.prior(model)).get_trace(blank)
        return {name: trace.nodes[name]["value"].squeeze(1) for name in latent_sites(trace)}

    variables = _by_site(run.each_seed(draw, Stream.PREDICTIVE, 3), ("chain", "draw"))
    return xarray.Dataset(variables, attrs={"note": f"{PRIOR_DRAWS} draws without a datum"})


def _by_site(seeds: list[dict[str, Tensor]], dims: tuple[str, ...]) -> dict[str, Any]:
    """The latents of every seed as variables; a component's index must not share the name of the dimension."""
    variables = {}
    for site in seeds[0]:
        values = torch.stack([seed[site] for seed in seeds]).numpy()
        event = ["latent" if site == REAL else f"{site}_dim"] if values.ndim > len(dims) else []
        variables[f"{site}_index" if site == CATEGORY else site] = ((*dims, *event), values)
    return variables


def posterior_predictive(run: Run, kept: Kept) -> xarray.Dataset:
    """Draws of x given latents of every row, in the units as loaded; NaN where guide or decoder overflows."""
    x = run.inward(kept.rows.values)

    def draw(model: Any, guide: Any) -> Tensor:
        lost = inference.overflown(model, guide, x)
        drawn = x.new_full((kept.predictive, *x.shape), torch.nan)
        drawn[:, ~lost] = _predicted(model, x[~lost], kept.predictive, guide)
        return drawn

    return _of_data(run, kept, run.each_seed(draw, Stream.PREDICTIVE), f"{kept.predictive} draws for each of ")


def prior_predictive(run: Run, kept: Kept) -> xarray.Dataset:
    """As many draws of x from the prior, in the units as loaded."""
    x = run.inward(kept.rows.values)
    draws = run.each_seed(lambda model, _: _predicted(model, x, kept.predictive), Stream.PREDICTIVE, step=2)
    return _of_data(run, kept, draws, f"{kept.predictive} draws from the prior for each of ")


def _predicted(model: Any, x: Tensor, draws: int, guide: Any = None) -> Tensor:
    """Draws of x (K, N, D), a block of rows at a time."""
    blocks = inference.row_blocks(x, draws * inference.width(model, x))
    return torch.cat([inference.predictive_draws(model, rows, draws, guide) for rows in blocks], dim=1)


def _of_data(run: Run, kept: Kept, draws: list[Tensor], told: str) -> xarray.Dataset:
    unscaled = np.stack([run.pair.view.outward(of_seed.numpy()).astype(np.float32) for of_seed in draws])
    return kept.dataset({"x": (("chain", "draw", "obs", "feature"), unscaled)}, told)


def reconstruction(run: Run, kept: Kept) -> xarray.Dataset:
    """Mean and standard deviation of x given latents of some rows, in the units as loaded."""
    x = run.inward(kept.rows.values[:RECONSTRUCTED])
    seeds = run.each_seed(
        lambda model, guide: inference.reconstruct(model, guide, x, RECONSTRUCTION_DRAWS), Stream.PREDICTIVE, step=1
    )
    mean, scale = (torch.stack(column).numpy() for column in zip(*seeds, strict=True))
    dims, view = ("chain", "obs", "feature"), run.pair.view
    variables = {"mean": (dims, view.outward(mean)), "scale": (dims, scale * view.scale)}
    return kept.dataset(variables, f"{RECONSTRUCTION_DRAWS} draws for each of ", rows=len(x))


def prior_sbc(run: Run, simulations: int) -> xarray.Dataset:
    r"""The group ``prior_sbc``: simulation-based calibration of the guide, for ArviZ's ``plot_ecdf_pit``.

    .. math:: z \sim p(z), \quad x \sim p(x \mid z), \quad z_k \sim q(z \mid x), \quad
              \text{rank}_j = \#\{k : z_{kj} < z_j\}

    If the guide were the posterior, every rank from 0 to K would be equally likely. The check uses data simulated from
    the model, but a trained guide has seen only real data, so ranks far from uniform may also mean that the model's
    data do not look like those.

    Talts et al. (2018), Validating Bayesian inference algorithms with simulation-based calibration,
    https://arxiv.org/abs/1804.06788

    Args:
        run: a trained pair.
        simulations: how many data to simulate for each seed.

    Raises:
        Unknown: the pair has no real vector z.
    """
    blank = torch.zeros(simulations, run.pair.data.features, dtype=torch.float32)

    def of_seed(model: Any, guide: Any) -> Tensor:
        names = latents(guide, blank)
        if REAL not in names.drawn:
            raise Unknown(f"simulation-based calibration needs a latent {REAL}, and this pair has {names}")
        ranks = []
        for rows in inference.row_blocks(blank, RANKED * inference.width(model, blank)):
            trace = poutine.trace(poutine.uncondition(model)).get_trace(rows)
            draws = inference.posterior_draws(model, guide, trace.nodes["x"]["value"], RANKED).latents[REAL]
            ranks.append((draws < trace.nodes[REAL]["value"]).sum(0, dtype=torch.int32))
        return torch.cat(ranks)

    ranks = torch.stack(run.each_seed(of_seed, Stream.PREDICTIVE, 4)).numpy()
    note = f"ranks of the latents of {simulations:,} simulated data among {RANKED} draws of the guide"
    return xarray.Dataset({REAL: (("chain", "draw", "latent"), ranks)}, attrs={"note": note, "draws": RANKED})
