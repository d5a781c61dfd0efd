"""Score a run on the held-out part of its data."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
import xarray
from torch import Tensor

from zoo import inference
from zoo.context import Stream
from zoo.data import Data
from zoo.errors import DataError, RunError, Unknown
from zoo.evaluation.calibration import calibration
from zoo.evaluation.evidence import heldout, weigh
from zoo.evaluation.imputation import HIDDEN, imputation
from zoo.evaluation.reference import reference_posterior
from zoo.evaluation.spread import spread
from zoo.evaluation.wellposedness import wellposedness
from zoo.options import count, share
from zoo.runs import Run

__all__ = ["call_of", "checked_effort", "evaluate"]

# Predictive groups hold pictures and marginals, not data: caps on what is kept of them.
POSTERIOR_DRAWS, PREDICTIVE_DRAWS, PREDICTIVE_ROWS, RECONSTRUCTION_DRAWS = 100, 20, 64, 32


def evaluate(
    run: Run,
    data: Data,
    *,
    samples: int = 5000,
    temperatures: int = 50,
    reference: int = 0,
    hide: float | None = None,
) -> xarray.DataTree:
    r"""Fill ``run.tree`` with what the trained pair says about the test part, and return it.

    The evidence of each datum is the log-mean-exp of importance weights, in nats and in the units as loaded:

    .. math:: \log p(x) \approx \log \tfrac{1}{K} \sum_k w_k, \qquad
              w_k = \frac{p(x, z_k)}{q(z_k \mid x)}, \quad z_k \sim q(z \mid x)

    a lower bound in expectation (Burda, Grosse & Salakhutdinov 2016, https://arxiv.org/abs/1509.00519). Its
    standard error, the effective sample size and the Pareto k of the weights (Vehtari et al. 2024,
    https://arxiv.org/abs/1507.02646) stand beside it. Where k is above 0.7, annealed importance sampling takes the
    weights' place (:func:`zoo.evaluation.annealing.anneal`). Mixtures are summed
    exactly, and linear models know their evidence: standard error 0, k minus infinity.

    Groups written: ``heldout``; ``calibration`` of each feature; ``spread`` of the latents; ``wellposedness``;
    ``imputation`` of hidden entries; ``reference_posterior`` on request; ``posterior``, ``sample_stats``,
    ``posterior_predictive``, ``prior_predictive``, ``reconstruction`` and ``observed_data``. The functions of those
    names in ``zoo.evaluation`` say what is in each.
    Some of it cannot be known of every likelihood and guide. The root attribute ``absent``, as JSON text, says in a
    sentence why a group is not there, by its name, or a part of one, as in "spread: gaps" or "heldout: annealing".

    Args:
        run: from :func:`zoo.fit` or :func:`zoo.load_run`.
        data: the very data it was trained on, or its test part would not be held out.
        samples: K, importance draws per datum. Memory: about 100 MiB beside what is returned, whatever K and N.
        temperatures: of annealing, for data whose k is above 0.7; 0 leaves them as they are.
        reference: how many test rows get a reference posterior by NUTS, which takes seconds for each seed.
        hide: the share of observed test entries that is hidden and imputed, 0 for none; None is a tenth where entries
            are missing in the data, else none.

    Raises:
        RunError: other data than the run was trained on.
        OptionError: ``samples`` is not a positive integer, ``temperatures`` or ``reference`` a negative one, or
            ``hide`` no share.

    >>> import zoo
    >>> data = zoo.load_data("iris")
    >>> run = zoo.fit(zoo.create("gmm-constrained", data, components=3), data, seeds=2, steps=20, progress=False)
    >>> tree = zoo.evaluate(run, data)
    >>> tree["heldout"]["log_evidence"].sizes
    Frozen({'chain': 2, 'obs': 30})
    """
    effort = checked_effort(samples, temperatures, reference, hide)
    samples, temperatures, reference, hide = (effort[name] for name in ("samples", "temperatures", "reference", "hide"))
    if not isinstance(run, Run):
        raise RunError(f"evaluate: run is a {type(run).__name__}; give one of zoo.fit or zoo.load_run.")
    if not isinstance(data, Data):
        raise DataError(f"evaluate: data is a {type(data).__name__}; load it first, with zoo.load_data.")
    hide = (HIDDEN if data.missing else 0.0) if hide is None else hide
    trained_on = run.tree.attrs["data_fingerprint"]
    if data.fingerprint != trained_on:
        raise RunError(
            f"evaluate: {data.name} (fingerprint {data.fingerprint[:12]}) is not what the run was trained on "
            f"({run.tree.attrs['data']}, {trained_on[:12]}): its test part may have been trained on. Load the data "
            "as they were loaded for training, with the same split and seed."
        )
    x = torch.as_tensor(run.pair.view.inward(data.test.values), dtype=torch.float32)
    weighed = weigh(run, data, samples)
    evidence = heldout(run, data, weighed, temperatures)
    first = x[:PREDICTIVE_ROWS]
    makers: dict[tuple[str, ...], Callable[[], tuple[xarray.Dataset, ...]]] = {
        ("heldout",): lambda: (evidence,),
        ("calibration",): lambda: (calibration(run, data, weighed),),
        ("spread",): lambda: (spread(run, x, evidence),),
        ("reference_posterior",): lambda: (reference_posterior(run, x[:reference]),) if reference else (),
        ("imputation",): lambda: (imputation(run, data, hide),) if hide else (),
        ("wellposedness",): lambda: (wellposedness(run, data),),
        ("posterior", "sample_stats"): lambda: _posterior(run, x, run.pair.view.log_volumes(data.test.values)),
        ("posterior_predictive",): lambda: (_posterior_predictive(run, first),),
        ("prior_predictive",): lambda: (_prior_predictive(run, first),),
        ("reconstruction",): lambda: (_reconstruction(run, first),),
        ("observed_data",): lambda: (xarray.Dataset({"x": data.test}),),
    }
    groups: dict[str, xarray.Dataset] = {}
    absent: dict[str, str] = {}
    for names, make in makers.items():
        try:
            groups |= zip(names, make(), strict=False)
        except Unknown as reason:
            absent |= dict.fromkeys(names, str(reason))
    coords: dict[Any, Any] = {
        "chain": np.array(run.seeds),
        "obs": data.test["obs"].values,
        "feature": list(data.names),
    }
    for name in (name for names in makers for name in names):
        run.tree.children.get(name, xarray.DataTree()).orphan()  # of an earlier evaluation
        if name in groups:
            group = groups[name]
            absent |= {f"{name}: {part}": reason for part, reason in group.attrs.pop("absent", {}).items()}
            dims = [dim for dim in coords if dim in group.dims and dim not in group.coords]
            run.tree[name] = xarray.DataTree(
                group.assign_coords({dim: coords[dim][: group.sizes[dim]] for dim in dims})
            )
    run.tree.attrs["absent"] = json.dumps({name: _sentence(reason) for name, reason in absent.items()})
    trained, _, _ = run.tree.attrs["repeat"].partition("\nzoo.evaluate")
    run.tree.attrs["repeat"] = f"{trained}\n{call_of(effort)}"
    return run.tree


def _sentence(reason: str) -> str:
    """The reason without the shapes of all sites, which Pyro adds to an error inside a program."""
    return f"{reason.partition(chr(10))[0].rstrip('.')}."


def call_of(effort: Mapping[str, Any]) -> str:
    """The call of :func:`evaluate` with these arguments, as a run writes it down."""
    told = (f"{name}={value}" for name, value in effort.items() if value is not None)
    return f"zoo.evaluate(run, data, {', '.join(told)})"


def checked_effort(samples: int, temperatures: int, reference: int, hide: float | None) -> dict[str, Any]:
    """The arguments of :func:`evaluate` by name, if they are counts and a share; all but the samples may be 0."""
    return {
        "samples": count("samples", samples),
        "temperatures": count("temperatures", temperatures, least=0),
        "reference": count("reference", reference, least=0),
        "hide": None if hide is None else share("hide", hide),
    }


def _posterior(run: Run, x: Tensor, volume: np.ndarray[Any, Any]) -> tuple[xarray.Dataset, xarray.Dataset]:
    """Draws of the latents of every test row, and their log densities."""
    draws = run.each_seed(
        lambda model, guide: inference.posterior_draws(model, guide, x, POSTERIOR_DRAWS), Stream.POSTERIOR
    )
    dims = ("chain", "draw", "obs")
    posterior: dict[str, Any] = {}
    for site in draws[0].latents:
        values = torch.stack([seed.latents[site] for seed in draws]).numpy()
        event = ["latent" if site == "z" else f"{site}_dim"] if values.ndim > len(dims) else []
        posterior[site] = ((*dims, *event), values)
    if "component" in posterior:
        found = run.each_seed(lambda _, guide: inference.responsibility(guide, x), Stream.POSTERIOR)
        if known := [probability for probability in found if probability is not None]:
            posterior["responsibility"] = (("chain", "obs", "component"), torch.stack(known).numpy())
    lp, lq = (torch.stack([getattr(seed, name) for seed in draws]).numpy() for name in ("lp", "lq"))
    stats = xarray.Dataset({"lp": (dims, lp - volume), "lq": (dims, lq)})
    # built in one piece: `component` is both a variable and a dimension, which xarray keeps as a coordinate
    return xarray.Dataset(posterior), stats


def _posterior_predictive(run: Run, x: Tensor) -> xarray.Dataset:
    """Draws of x given latents of the first test rows, in the units as loaded."""

    def draw(model: Any, guide: Any) -> Tensor:
        inference.refuse_overflow(model, guide, x)
        return inference.predictive_draws(model, x, PREDICTIVE_DRAWS, guide)

    draws = run.each_seed(draw, Stream.PREDICTIVE)
    return _drawn(run, draws, f"the first {len(x)} test rows, {PREDICTIVE_DRAWS} draws each")


def _prior_predictive(run: Run, x: Tensor) -> xarray.Dataset:
    """Draws of x of no datum, in the units as loaded."""
    draws = run.each_seed(
        lambda model, _: inference.predictive_draws(model, x, PREDICTIVE_DRAWS), Stream.PREDICTIVE, step=2
    )
    return _drawn(run, draws, f"{PREDICTIVE_DRAWS} x {len(x)} draws, of no datum")


def _drawn(run: Run, draws: list[Tensor], note: str) -> xarray.Dataset:
    unscaled = run.pair.view.outward(torch.stack(draws).numpy()).astype(np.float32)
    return xarray.Dataset({"x": (("chain", "draw", "obs", "feature"), unscaled)}, attrs={"note": note})


def _reconstruction(run: Run, x: Tensor) -> xarray.Dataset:
    """Mean and standard deviation of x given latents of the first test rows, in the units as loaded."""
    seeds = run.each_seed(
        lambda model, guide: inference.reconstruct(model, guide, x, RECONSTRUCTION_DRAWS), Stream.PREDICTIVE, step=1
    )
    mean, scale = (torch.stack(column).numpy() for column in zip(*seeds, strict=True))
    dims = ("chain", "obs", "feature")
    return xarray.Dataset(
        {"mean": (dims, run.pair.view.outward(mean)), "scale": (dims, scale * run.pair.view.scale)},
        attrs={"note": f"the first {len(x)} test rows, over {RECONSTRUCTION_DRAWS} draws"},
    )
