"""Score a run on the held-out part of its data."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import xarray
from torch import Tensor

from zoo import inference
from zoo.context import Stream
from zoo.data import Data
from zoo.errors import RunError
from zoo.runs import Run, positive_count

__all__ = ["evaluate", "pareto_k"]

# Predictive groups hold pictures and marginals, not data: caps on what is kept of them.
POSTERIOR_DRAWS, PREDICTIVE_DRAWS, PREDICTIVE_ROWS, RECONSTRUCTION_DRAWS = 100, 20, 64, 32
FEWEST_FOR_K = 25  # the tail is a fifth of the weights and five numbers at least


def evaluate(run: Run, data: Data, *, samples: int = 5000) -> xarray.DataTree:
    r"""Fill ``run.tree`` with what the trained pair says about the test part, and return it.

    The evidence of each datum is the log-mean-exp of importance weights, in nats and in the units as loaded:

    .. math:: \log p(x) \approx \log \tfrac{1}{K} \sum_k w_k, \qquad
              w_k = \frac{p(x, z_k)}{q(z_k \mid x)}, \quad z_k \sim q(z \mid x)

    a lower bound in expectation (Burda, Grosse & Salakhutdinov 2016, https://arxiv.org/abs/1509.00519). Its
    standard error, the effective sample size and the Pareto k of the weights (Vehtari et al. 2024,
    https://arxiv.org/abs/1507.02646) stand beside it. Mixtures are summed exactly: standard error 0, k minus
    infinity. Groups written: ``heldout``, ``posterior``, ``sample_stats``, ``posterior_predictive``,
    ``prior_predictive``, ``reconstruction`` and ``observed_data``.

    Args:
        run: from :func:`zoo.fit` or :func:`zoo.load_run`.
        data: the very data it was trained on, or its test part would not be held out.
        samples: K, importance draws per datum. Memory: a few tens of MiB beside what is returned, whatever K and N.

    Raises:
        RunError: other data than the run was trained on.
        OptionError: ``samples`` is not a positive integer.

    >>> import zoo
    >>> data = zoo.load_data("iris")
    >>> run = zoo.fit(zoo.create("gmm-constrained", data, components=3), data, seeds=2, steps=20, progress=False)
    >>> tree = zoo.evaluate(run, data)
    >>> tree["heldout"]["log_evidence"].sizes
    Frozen({'chain': 2, 'obs': 30})
    """
    samples = positive_count("samples", samples)
    trained_on = run.tree.attrs["data_fingerprint"]
    if data.fingerprint != trained_on:
        raise RunError(
            f"evaluate: {data.name} (fingerprint {data.fingerprint[:12]}) is not what the run was trained on "
            f"({run.tree.attrs['data']}, {trained_on[:12]}): its test part may have been trained on. Load the data "
            "as they were loaded for training, with the same split and seed."
        )
    x = torch.as_tensor(run.pair.scale(data.test.values), dtype=torch.float32)
    chain, obs = np.array(run.seeds), data.test["obs"].values
    for name, group in {
        "heldout": _heldout(run, data, x, samples),
        **_posterior(run, x),
        **_predictive(run, x[:PREDICTIVE_ROWS]),
        "observed_data": xarray.Dataset({"x": data.test}),
    }.items():
        coords = {"chain": chain, "obs": obs[: group.sizes["obs"]], "feature": list(data.columns)}
        present = {dim: values for dim, values in coords.items() if dim in group.dims and dim not in group.coords}
        run.tree[name] = xarray.DataTree(group.assign_coords(present))
    trained, _, _ = run.tree.attrs["repeat"].partition("\nzoo.evaluate")
    run.tree.attrs["repeat"] = f"{trained}\nzoo.evaluate(run, data, samples={samples})"
    return run.tree


def pareto_k(log_weights: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Shape k of the generalised Pareto distribution fitted to the largest weights, (K, N) to (N,).

    Below 0.5 the estimate is good, up to 0.7 usable, above it is not to be trusted. Minus infinity where all weights
    are the same; not a number where they are too few to have a tail, or some are not numbers.

    >>> uniform = np.random.default_rng(0).uniform(size=(20000, 1))
    >>> bool(abs(pareto_k(-0.8 * np.log(uniform)) - 0.8) < 0.1)
    True
    """
    from arviz_stats.base import array_stats

    if len(log_weights) < FEWEST_FOR_K:
        return np.full(log_weights.shape[1], np.nan)
    highest = log_weights.max(0)
    k = np.where(np.isfinite(highest), -np.inf, np.nan)
    # a weight of zero is far from the tail: any low number serves, and minus infinity would not
    with np.errstate(invalid="ignore"):
        log_weights = np.maximum(log_weights - highest, -1e6)
    varying = log_weights.min(0) < 0  # False where not a number
    if varying.any():
        # arviz-stats takes log likelihoods and negates them: minus log weights are what it must be given
        k[varying] = array_stats.psislw(-log_weights[:, varying], axis=0)[1]
    return k


def _heldout(run: Run, data: Data, x: Tensor, samples: int) -> xarray.Dataset:
    constant = data.train_std == 0
    columns = torch.as_tensor(np.flatnonzero(~constant)) if constant.any() else None

    def score(model: Any, guide: Any) -> tuple[Tensor, ...]:
        exact = inference.draws_nothing(guide, x)
        blocks = (
            _scores(inference.stream_log_weights(model, guide, rows, samples, columns), exact=exact)
            for rows in inference.row_blocks(x, samples)
        )
        return tuple(torch.cat(parts, dim=-1) for parts in zip(*blocks, strict=True))

    try:
        scores = run.each_seed(score, Stream.EVIDENCE)
    except NotImplementedError:  # a likelihood whose marginals are not known
        columns = None
        scores = run.each_seed(score, Stream.EVIDENCE)
    evidence, error, k, size = (torch.stack(column).numpy() for column in zip(*scores, strict=True))
    dims = ("chain", "obs")
    nats = {"units": "nats per datum"}
    exact = bool(np.isneginf(k).all())
    group = xarray.Dataset(
        {
            "log_evidence": (dims, evidence[:, 0] - run.pair.log_volume, nats),
            "log_evidence_se": (dims, error, nats),
            "pareto_k": (dims, k),
            "ess": (dims, size),
        },
        attrs={"samples": 1 if exact else samples, "exact": int(exact), "part": "test"},
    )
    if columns is not None:
        volume = np.log(run.pair.scaling.scale[~constant]).sum()
        group["log_evidence_varying"] = (dims, evidence[:, 1] - volume, nats)
    return group


def _scores(log_weights: Tensor, *, exact: bool) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Evidence (1 or 2, N), its standard error, Pareto k and effective sample size (N,), of weights ([2,] K, N)."""
    log_weights = log_weights.double().reshape(-1, *log_weights.shape[-2:])
    evidence = torch.stack([inference.log_mean_exp(of_columns) for of_columns in log_weights])
    count, n = log_weights.shape[1:]
    if exact:
        return evidence, torch.zeros(n).double(), torch.full((n,), -torch.inf).double(), torch.ones(n).double()
    relative = (log_weights[0] - evidence[0]).exp()  # w / mean(w)
    error = relative.std(0) / count**0.5 if count > 1 else torch.full((n,), torch.nan).double()
    return evidence, error, torch.as_tensor(pareto_k(log_weights[0].numpy())), count / relative.square().mean(0)


def _posterior(run: Run, x: Tensor) -> dict[str, xarray.Dataset]:
    seeds = run.each_seed(
        lambda model, guide: (
            inference.posterior_draws(model, guide, x, POSTERIOR_DRAWS),
            inference.encode(guide, x),
        ),
        Stream.POSTERIOR,
    )
    draws, encoded = zip(*seeds, strict=True)
    dims = ("chain", "draw", "obs")
    posterior: dict[str, Any] = {}
    for site in draws[0].latents:
        values = torch.stack([seed.latents[site] for seed in draws]).numpy()
        event = ["latent" if site == "z" else f"{site}_dim"] if values.ndim > len(dims) else []
        posterior[site] = ((*dims, *event), values)
    if "component" in posterior:
        posterior["responsibility"] = (("chain", "obs", "component"), torch.stack(encoded).numpy())
    lp, lq = (torch.stack([getattr(seed, name) for seed in draws]).numpy() for name in ("lp", "lq"))
    stats = xarray.Dataset({"lp": (dims, lp - run.pair.log_volume), "lq": (dims, lq)})
    # built in one piece: `component` is both a variable and a dimension, which xarray keeps as a coordinate
    return {"posterior": xarray.Dataset(posterior), "sample_stats": stats}


def _predictive(run: Run, x: Tensor) -> dict[str, xarray.Dataset]:
    """Draws of x and reconstructions of the first test rows, in the units as loaded."""

    def draw(model: Any, guide: Any) -> tuple[Tensor, ...]:
        return (
            inference.predictive_draws(model, x, PREDICTIVE_DRAWS, guide),
            inference.predictive_draws(model, x, PREDICTIVE_DRAWS),
            *inference.reconstruct(model, guide, x, RECONSTRUCTION_DRAWS),
        )

    seeds = run.each_seed(draw, Stream.PREDICTIVE)
    posterior, prior, mean, scale = (torch.stack(column).numpy() for column in zip(*seeds, strict=True))
    note = {"note": f"the first {len(x)} test rows, {PREDICTIVE_DRAWS} draws each"}
    dims, per_datum = ("chain", "draw", "obs", "feature"), ("chain", "obs", "feature")

    def single(x: Any) -> Any:
        return run.pair.unscale(x).astype(np.float32)

    return {
        "posterior_predictive": xarray.Dataset({"x": (dims, single(posterior))}, attrs=note),
        "prior_predictive": xarray.Dataset(
            {"x": (dims, single(prior))}, attrs={"note": f"{PREDICTIVE_DRAWS} x {len(x)} draws, of no datum"}
        ),
        "reconstruction": xarray.Dataset(
            {"mean": (per_datum, run.pair.unscale(mean)), "scale": (per_datum, scale * run.pair.scaling.scale)},
            attrs={"note": f"the first {len(x)} test rows, over {RECONSTRUCTION_DRAWS} draws"},
        ),
    }
