"""Score a run on the held-out part of its data."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import xarray

from zoo.data import Data
from zoo.errors import DataError, RunError, Unknown
from zoo.evaluation import draws
from zoo.evaluation.calibration import calibration
from zoo.evaluation.evidence import heldout, weigh
from zoo.evaluation.imputation import HIDDEN, imputation
from zoo.evaluation.reference import reference_posterior
from zoo.evaluation.spread import spread
from zoo.evaluation.wellposedness import wellposedness
from zoo.options import count, share
from zoo.runs import Run
from zoo.splits import subsample
from zoo.tree import finish

__all__ = ["call_of", "checked_effort", "evaluate"]


def evaluate(
    run: Run,
    data: Data,
    *,
    samples: int = 5000,
    temperatures: int = 50,
    reference: int = 0,
    hide: float | None = None,
    rows: int | None = None,
    sbc: int | None = None,
) -> xarray.DataTree:
    r"""Score a run on the test part of its data, and return ``run.tree`` with the results.

    The evidence of each datum is the log-mean-exp of importance weights, in nats and in the units as loaded:

    .. math:: \log p(x) \approx \log \tfrac{1}{K} \sum_k w_k, \qquad
              w_k = \frac{p(x, z_k)}{q(z_k \mid x)}, \quad z_k \sim q(z \mid x)

    a lower bound in expectation (Burda, Grosse & Salakhutdinov 2016, https://arxiv.org/abs/1509.00519). Its
    standard error is stored with it, as are the effective sample size and the Pareto k of the weights (Vehtari et al.
    2024, https://arxiv.org/abs/1507.02646). Where k is above 0.7, annealed importance sampling replaces the weights
    (:func:`zoo.evaluation.annealing.anneal`). Mixtures are summed
    exactly, and linear models know their evidence: standard error 0, k minus infinity.

    Groups written: ``heldout``; ``calibration`` of each feature; ``spread`` of the latents; ``wellposedness``;
    ``imputation`` of hidden entries; ``reference_posterior`` and ``prior_sbc`` on request; ``posterior``,
    ``sample_stats``, ``prior``, ``posterior_predictive``, ``prior_predictive``, ``reconstruction`` and
    ``observed_data``. The functions of those names in ``zoo.evaluation`` say what is in each.
    Not everything can be computed for every likelihood and guide. The root attribute ``absent``, as JSON text, says why
    a group, or a part such as "spread: gaps" or "heldout: annealing", is missing; ``not_asked`` says which call would
    add a group that was not asked for.

    Args:
        run: from :func:`zoo.fit` or :func:`zoo.load_run`.
        data: the same data it was trained on; otherwise the test part might not be held out.
        samples: K, importance draws per datum.
        temperatures: number of annealing temperatures for data whose k is above 0.7; 0 turns annealing off.
        reference: how many test rows get a reference posterior by NUTS, which takes seconds for each seed.
        hide: the share of observed test entries to hide and impute, 0 for none; None is a tenth if the data have
            missing entries, otherwise 0.
        rows: how many test rows are scored: a random subset, the same for all pairs on the same split; None scores all.
        sbc: how many data to simulate for simulation-based calibration of the guide, which ArviZ's
            ``plot_ecdf_pit`` shows; a thousand are enough.

    ``heldout`` has all scored rows. ``observed_data`` and the groups of draws share the same rows, in the same
    order: all or, beyond ten million numbers of latents or four million of predictions, a random subset, as
    ``attrs["note"]`` says. ``reconstruction`` covers the first of those.

    Memory: about 500 MiB besides the result and the scored rows in single precision (twice if they are dequantized),
    whatever N, K, D and the number of levels, as long as a decoder takes at most a million numbers per draw of a datum.

    Raises:
        RunError: other data than the run was trained on.
        OptionError: ``samples`` or ``rows`` is not a positive integer, ``temperatures`` or ``reference`` is negative,
            or ``hide`` is not a share.

    >>> import zoo
    >>> data = zoo.load_data("iris")
    >>> run = zoo.fit(zoo.create("gmm-constrained", data, components=3), data, seeds=2, steps=20, progress=False)
    >>> tree = zoo.evaluate(run, data)
    >>> tree["heldout"]["log_evidence"].sizes
    Frozen({'chain': 2, 'obs': 30})
    """
    effort = checked_effort(samples, temperatures, reference, hide, rows, sbc)
    samples, temperatures, reference, hide, rows, sbc = effort.values()
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
    data = replace(data, test=subsample(data.test, rows))
    weighed = weigh(run, data, samples)
    x, evidence = weighed.x, heldout(run, data, weighed, temperatures)
    kept = draws.Kept.of_run(run, data)
    makers: dict[tuple[str, ...], Callable[[], tuple[xarray.Dataset, ...]]] = {
        ("heldout",): lambda: (evidence,),
        ("calibration",): lambda: (calibration(run, data, weighed),),
        ("spread",): lambda: (spread(run, x, evidence),),
        ("reference_posterior",): lambda: (reference_posterior(run, x[:reference]),) if reference else (),
        ("imputation",): lambda: (imputation(run, data, hide),) if hide else (),
        ("wellposedness",): lambda: (wellposedness(run, data),),
        ("posterior", "sample_stats"): lambda: draws.posterior(run, kept),
        ("prior",): lambda: (draws.prior(run),),
        ("posterior_predictive",): lambda: (draws.posterior_predictive(run, kept),),
        ("prior_predictive",): lambda: (draws.prior_predictive(run, kept),),
        ("prior_sbc",): lambda: (draws.prior_sbc(run, sbc),) if sbc else (),
        ("reconstruction",): lambda: (draws.reconstruction(run, kept),),
        ("observed_data",): lambda: (kept.dataset({"x": kept.rows}),),
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
        run.tree.children.get(name, xarray.DataTree()).orphan()  # from an earlier evaluation
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
    return finish(run.tree)


def _sentence(reason: str) -> str:
    """The reason without the shapes of all sites, which Pyro appends to errors inside a program."""
    return f"{reason.partition(chr(10))[0].rstrip('.')}."


def call_of(effort: Mapping[str, Any]) -> str:
    """The call of :func:`evaluate` with these arguments, as a run records it."""
    told = (f"{name}={value}" for name, value in effort.items() if value is not None)
    return f"zoo.evaluate(run, data, {', '.join(told)})"


def checked_effort(
    samples: int, temperatures: int, reference: int, hide: float | None, rows: int | None, sbc: int | None = None
) -> dict[str, Any]:
    """The arguments of :func:`evaluate` by name, if they are counts and a share; all but samples and rows may be 0."""
    return {
        "samples": count("samples", samples),
        "temperatures": count("temperatures", temperatures, least=0),
        "reference": count("reference", reference, least=0),
        "hide": None if hide is None else share("hide", hide),
        "rows": None if rows is None else count("rows", rows),
        "sbc": None if sbc is None else count("sbc", sbc),
    }
