"""Score a run on the held-out part of its data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
import xarray
from torch import Tensor

from zoo import inference
from zoo.context import Stream
from zoo.data import Data
from zoo.errors import DataError, RunError
from zoo.evaluation.calibration import calibration
from zoo.evaluation.evidence import heldout
from zoo.evaluation.reference import reference_posterior
from zoo.evaluation.spread import spread
from zoo.evaluation.wellposedness import wellposedness
from zoo.options import count
from zoo.runs import Run

__all__ = ["call_of", "checked_effort", "evaluate"]

# Predictive groups hold pictures and marginals, not data: caps on what is kept of them.
POSTERIOR_DRAWS, PREDICTIVE_DRAWS, PREDICTIVE_ROWS, RECONSTRUCTION_DRAWS = 100, 20, 64, 32


def evaluate(
    run: Run, data: Data, *, samples: int = 5000, temperatures: int = 50, reference: int = 0
) -> xarray.DataTree:
    r"""Fill ``run.tree`` with what the trained pair says about the test part, and return it.

    The evidence of each datum is the log-mean-exp of importance weights, in nats and in the units as loaded:

    .. math:: \log p(x) \approx \log \tfrac{1}{K} \sum_k w_k, \qquad
              w_k = \frac{p(x, z_k)}{q(z_k \mid x)}, \quad z_k \sim q(z \mid x)

    a lower bound in expectation (Burda, Grosse & Salakhutdinov 2016, https://arxiv.org/abs/1509.00519). Its
    standard error, the effective sample size and the Pareto k of the weights (Vehtari et al. 2024,
    https://arxiv.org/abs/1507.02646) stand beside it. Where k is above 0.7, annealed importance sampling takes the
    weights' place (:func:`zoo.evaluation.annealing.anneal`), whichever of the two is larger. Mixtures are summed
    exactly, and linear models know their evidence: standard error 0, k minus infinity.

    Groups written: ``heldout``; ``calibration`` of each feature; ``spread`` of the latents and ``wellposedness``, each
    where it is known; ``reference_posterior`` on request; ``posterior``, ``sample_stats``, ``posterior_predictive``,
    ``prior_predictive``, ``reconstruction`` and ``observed_data``. The functions of those names in ``zoo.evaluation``
    say what is in each.

    Args:
        run: from :func:`zoo.fit` or :func:`zoo.load_run`.
        data: the very data it was trained on, or its test part would not be held out.
        samples: K, importance draws per datum. Memory: a few tens of MiB beside what is returned, whatever K and N.
        temperatures: of annealing, for data whose k is above 0.7; 0 leaves them as they are.
        reference: how many test rows get a reference posterior by NUTS, which takes seconds for each seed.

    Raises:
        RunError: other data than the run was trained on.
        OptionError: ``samples`` is not a positive integer, or ``temperatures`` or ``reference`` a negative one.

    >>> import zoo
    >>> data = zoo.load_data("iris")
    >>> run = zoo.fit(zoo.create("gmm-constrained", data, components=3), data, seeds=2, steps=20, progress=False)
    >>> tree = zoo.evaluate(run, data)
    >>> tree["heldout"]["log_evidence"].sizes
    Frozen({'chain': 2, 'obs': 30})
    """
    effort = checked_effort(samples, temperatures, reference)
    samples, temperatures, reference = effort.values()
    if not isinstance(run, Run):
        raise RunError(f"evaluate: run is a {type(run).__name__}; give one of zoo.fit or zoo.load_run.")
    if not isinstance(data, Data):
        raise DataError(f"evaluate: data is a {type(data).__name__}; load it first, with zoo.load_data.")
    trained_on = run.tree.attrs["data_fingerprint"]
    if data.fingerprint != trained_on:
        raise RunError(
            f"evaluate: {data.name} (fingerprint {data.fingerprint[:12]}) is not what the run was trained on "
            f"({run.tree.attrs['data']}, {trained_on[:12]}): its test part may have been trained on. Load the data "
            "as they were loaded for training, with the same split and seed."
        )
    x = torch.as_tensor(run.pair.scale(data.test.values), dtype=torch.float32)
    evidence = heldout(run, data, samples, temperatures)
    groups = {
        "heldout": evidence,
        "calibration": calibration(run, data, samples),
        "spread": spread(run, x, evidence),
        "reference_posterior": reference_posterior(run, x[:reference]) if reference else None,
        "wellposedness": wellposedness(run, data),
        **_posterior(run, x),
        **_predictive(run, x[:PREDICTIVE_ROWS]),
        "observed_data": xarray.Dataset({"x": data.test}),
    }
    chain, obs = np.array(run.seeds), data.test["obs"].values
    for name, group in groups.items():
        if group is None:
            run.tree.children.get(name, xarray.DataTree()).orphan()
            continue
        coords = {"chain": chain, "obs": obs[: group.sizes.get("obs", 0)], "feature": list(data.columns)}
        present = {dim: values for dim, values in coords.items() if dim in group.dims and dim not in group.coords}
        run.tree[name] = xarray.DataTree(group.assign_coords(present))
    trained, _, _ = run.tree.attrs["repeat"].partition("\nzoo.evaluate")
    run.tree.attrs["repeat"] = f"{trained}\n{call_of(effort)}"
    return run.tree


def call_of(effort: Mapping[str, int]) -> str:
    """The call of :func:`evaluate` with these arguments, as a run writes it down."""
    return f"zoo.evaluate(run, data, {', '.join(f'{name}={value}' for name, value in effort.items())})"


def checked_effort(samples: int, temperatures: int, reference: int) -> dict[str, int]:
    """The arguments of :func:`evaluate` by name, if they are counts; all but the samples may be 0."""
    return {
        "samples": count("samples", samples),
        "temperatures": count("temperatures", temperatures, least=0),
        "reference": count("reference", reference, least=0),
    }


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
