"""The guide against the truth: Hamiltonian Monte Carlo on p(z | x) for a few data, with the decoder fixed."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pyro
import torch
import xarray
from pyro import poutine
from pyro.infer.mcmc import MCMC, NUTS
from torch import Tensor

from zoo import densities, inference
from zoo.answers import ask
from zoo.context import Stream
from zoo.errors import Unknown
from zoo.evaluation.spread import site_of_prior, total
from zoo.latents import REAL, latents, log_density, real_vector
from zoo.objectives import Program, latent_sites
from zoo.runs import Run

__all__ = ["Agreement", "Chains", "agreement", "guide_moments", "nuts", "reference_posterior", "wasserstein"]

Floats = np.ndarray[Any, np.dtype[np.float64]]

# With these, on digits (8 latents), R-hat stays below 1.01 and every latent has at least a thousand effective draws.
CHAINS, WARMUP, DRAWS = 4, 200, 400
GUIDE_DRAWS, PRIOR_DRAWS = 4000, 4000


def reference_posterior(
    run: Run, x: Tensor, chains: int = CHAINS, warmup: int = WARMUP, draws: int = DRAWS
) -> xarray.Dataset:
    """The group ``reference_posterior`` for the data given.

    Here ``chain`` is a chain of the sampler and ``seed`` a seed of the run. R-hat (rank-normalised) and the bulk
    effective sample size are ArviZ's: they compare chains on one posterior, never the latents of different seeds.

    Args:
        run: a trained pair.
        x: test data in scaled units, shape (N, D); a few rows.
        chains: see :func:`nuts`.
        warmup: see :func:`nuts`.
        draws: see :func:`nuts`.

    Raises:
        Unknown: no latent z is drawn, or a discrete one has too many values to be summed out.
    """
    from arviz_stats.base import array_stats

    def of_seed(model: Any, guide: Any) -> tuple[Chains, Agreement]:
        names = latents(guide, x)
        if REAL not in names.drawn:
            raise Unknown(f"a reference posterior needs a latent {REAL}, and this pair has {names}")
        found = nuts(model, x, chains, warmup, draws)
        return found, agreement(found.z, *guide_moments(guide, x), _prior_deviation(model, x))

    seeds = run.each_seed(of_seed, Stream.POSTERIOR, 3)
    z = np.stack([found.z for found, _ in seeds])
    per_latent, agreements = ("seed", "obs", "latent"), [beside for _, beside in seeds]
    diagnostics = {
        name: (per_latent, np.stack([function(of_seed, chain_axis=0, draw_axis=1) for of_seed in z]))
        for name, function in (("r_hat", array_stats.rhat), ("ess", array_stats.ess))
    }
    return xarray.Dataset(
        {
            "z": (("seed", "chain", "draw", "obs", "latent"), z.astype(np.float32)),
            **diagnostics,
            "scale_ratio": (per_latent, np.stack([beside.scale_ratio for beside in agreements])),
            "shift": (per_latent, np.stack([beside.shift for beside in agreements])),
            "distance": (("seed", "obs"), np.stack([beside.distance for beside in agreements])),
            "divergences": (("seed", "chain"), np.stack([found.divergences for found, _ in seeds])),
        },
        coords={"seed": list(run.seeds), "chain": range(z.shape[1])},
        attrs={
            "note": f"the first {len(x)} scored test rows, {chains} chains of {warmup} + {draws} draws, "
            "started at the prior"
        },
    )


class Chains(NamedTuple):
    """Draws of z, shape (chains, draws, B, L), and how many transitions of each chain diverged."""

    z: Floats
    divergences: np.ndarray[Any, np.dtype[np.int64]]


def nuts(model: Program, x: Tensor, chains: int = CHAINS, warmup: int = WARMUP, draws: int = DRAWS) -> Chains:
    r"""Draws from p(z_1, ..., z_B | x_1, ..., x_B), and so from every p(z_i | x_i), by Pyro's NUTS.

    .. math:: p(z_1, \dots, z_B \mid x_1, \dots, x_B) = \prod_i p(z_i \mid x_i)

    Sampling B data together takes a little longer than one: the decoder sees them at once, and trajectories grow like
    the fourth root of the dimension. Each chain starts from draws of the prior, which are over-dispersed for every
    posterior and independent of the guide. Draws come from torch's global generator.

    Hoffman & Gelman (2014), The No-U-Turn Sampler, https://jmlr.org/papers/v15/hoffman14a.html

    Args:
        model: p(x, z), whose parameters are not changed; bounded latents move on an unbounded scale, and discrete ones
            are summed out.
        x: data, shape (B, D).
        chains: number of chains, run one after the other.
        warmup: draws per chain in which step size and mass matrix adapt, not returned.
        draws: draws per chain.
    """
    found = [_chain(model, x, warmup, draws) for _ in range(chains)]
    return Chains(np.stack([z for z, _ in found]), np.array([divergences for _, divergences in found]))


def _chain(model: Program, x: Tensor, warmup: int, draws: int) -> tuple[Floats, int]:
    prior = poutine.trace(inference.prior(model)).get_trace(x)
    vector = real_vector(prior)

    def potential(at: dict[str, Tensor]) -> Tensor:
        values, volume = vector.values(at["u"][None])
        return -(log_density(model, x, values) + volume).sum()

    sampler = MCMC(
        NUTS(potential_fn=potential),
        num_samples=draws,
        warmup_steps=warmup,
        initial_params={"u": vector.flatten({name: prior.nodes[name]["value"] for name in vector.names})},
        disable_progbar=True,
    )
    with torch.enable_grad():
        sampler.run()
    values, _ = vector.values(sampler.get_samples()["u"])
    return values[REAL].double().numpy(), len(sampler.diagnostics()["divergences"]["chain 0"])


# -- comparison with the guide -----------------------------------------------------------------------------------------


class Agreement(NamedTuple):
    """A guide compared with the reference: ``scale_ratio`` and ``shift``, (B, L), and ``distance``, (B,)."""

    scale_ratio: Floats
    shift: Floats
    distance: Floats


def agreement(z: Floats, mean: Floats, covariance: Floats, prior_deviation: Floats) -> Agreement:
    r"""Moments of the guide compared with the reference draws.

    .. math:: \text{ratio}_j = \frac{s_j}{\hat s_j}, \qquad \text{shift}_j = \frac{m_j - \hat m_j}{\hat s_j}, \qquad
              \text{distance} = W_2(N(m, S), N(\hat m, \hat S))

    with the distance in units of the prior's standard deviations.

    Args:
        z: reference draws, shape (chains, draws, B, L).
        mean: of the guide, shape (B, L).
        covariance: of the guide, shape (B, L, L).
        prior_deviation: standard deviations of p(z), shape (L,).
    """
    by_datum = np.moveaxis(z.reshape(-1, *z.shape[2:]), 0, 1)  # (B, draws of all chains, L)
    reference = by_datum.mean(1)
    centred = by_datum - reference[:, None]
    spread = np.einsum("bki,bkj->bij", centred, centred) / (centred.shape[1] - 1)
    deviation = np.sqrt(np.diagonal(spread, axis1=1, axis2=2))
    units = np.outer(prior_deviation, prior_deviation)
    return Agreement(
        np.sqrt(np.diagonal(covariance, axis1=1, axis2=2)) / deviation,
        (mean - reference) / deviation,
        wasserstein(mean / prior_deviation, covariance / units, reference / prior_deviation, spread / units),
    )


def wasserstein(mean: Floats, covariance: Floats, other_mean: Floats, other_covariance: Floats) -> Floats:
    r"""The 2-Wasserstein distance between normals, (..., L) and (..., L, L), shape (...).

    .. math:: W_2^2 = |m - n|^2 + \mathrm{tr}\left(S + T - 2 (T^{1/2} S T^{1/2})^{1/2}\right)

    Gelbrich (1990), https://doi.org/10.1002/mana.19901470121

    >>> float(wasserstein(np.zeros(2), np.eye(2), np.array([3.0, 0.0]), 25 * np.eye(2)).round(9))
    6.403124237
    """
    root = _root(other_covariance)
    cross = np.linalg.eigvalsh(root @ covariance @ root).clip(0)
    trace = np.trace(covariance + other_covariance, axis1=-2, axis2=-1) - 2 * np.sqrt(cross).sum(-1)
    squared: Floats = np.square(mean - other_mean).sum(-1) + trace.clip(0)  # only rounding makes a trace negative
    return np.sqrt(squared)


def _root(matrix: Floats) -> Floats:
    """The symmetric square root of positive semidefinite matrices (..., L, L)."""
    values, vectors = np.linalg.eigh(matrix)
    root: Floats = (vectors * np.sqrt(values.clip(0))[..., None, :]) @ np.swapaxes(vectors, -1, -2)
    return root


def guide_moments(guide: Program, x: Tensor) -> tuple[Floats, Floats]:
    """Mean (B, L) and covariance (B, L, L) of q(z | x): the guide's own if known, otherwise from draws."""
    trace = poutine.trace(guide).get_trace(x)
    try:
        if latent_sites(trace)[0] != REAL:
            raise Unknown("what z depends on would have to be integrated out")
        mean, covariance = ask(trace.nodes[REAL]["fn"], "mean"), densities.covariance(trace.nodes[REAL]["fn"])
    except Unknown:
        with pyro.plate("samples", GUIDE_DRAWS, dim=-2):
            z = poutine.trace(guide).get_trace(x).nodes[REAL]["value"].double()
        centred = z - z.mean(0)
        return z.mean(0).numpy(), (torch.einsum("kbi,kbj->bij", centred, centred) / (len(z) - 1)).numpy()
    return mean.double().numpy(), covariance.double().numpy()


def _prior_deviation(model: Program, x: Tensor) -> Floats:
    """Standard deviations of p(z), shape (L,)."""
    prior = site_of_prior(model, x.new_zeros(PRIOR_DRAWS, x.shape[-1]))
    return total(prior.mean[0], prior.variance[0])[1].double().sqrt().numpy()
