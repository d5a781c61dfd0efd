"""Stacking weights, and held-out evidence in ArviZ's form."""

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr

from zoo.comparison.difference import Floats
from zoo.comparison.outcome import Outcome, Source, outcomes
from zoo.errors import RunError
from zoo.tree import BAD_K

__all__ = ["elpd", "stacking_weights"]

NEGLIGIBLE = -30.0  # nats below the best pair of a datum: its exp no longer moves a stacking weight
BOOTSTRAPS = 50  # resamples of the test data, for the standard error of the stacking weights


def elpd(run: Source) -> Any:
    """The held-out evidence of a run as an ``ELPDData``, for ArviZ's ``compare`` and ``plot_compare``.

    ``elpd_i`` is the evidence of each test datum averaged over seeds, nats; on discrete data the log mass, as in
    :func:`compare`. Only runs in the same table of :func:`compare` can be compared. ``pareto_k``, for ``plot_khat``, is
    Pareto k of the importance weights in the worst seed; None if the evidence is exact.

    >>> about = dict(pair="plain", base_measure="density", data="toy", data_fingerprint="f00d")
    >>> heldout = xr.Dataset({"log_evidence": (("chain", "obs"), [[-5.0, -6.0, -7.0]])})
    >>> float(elpd(xr.DataTree.from_dict({"/": xr.Dataset(attrs=about), "heldout": heldout})).elpd)
    -18.0
    """
    outcome, *others = outcomes(run)
    if others:
        raise RunError(f"{len(others) + 1} runs: give one")
    if outcome.evidence is None:
        raise RunError(f"{outcome.label} has no held-out evidence: evaluate it first")
    k = outcome.pointwise("mass_k" if outcome.has_mass else "pareto_k")
    return _elpd(outcome.evidence, outcome.obs, None if k is None or np.isneginf(k).all() else k.max(0))


def _elpd(values: Floats, obs: Any = None, pareto_k: Floats | None = None) -> Any:
    from inspect import signature

    from arviz_stats.utils import ELPDData

    kind = (
        {"kind": "held-out"} if "kind" in signature(ELPDData).parameters else {}
    )  # ArviZ 0 wants it, ArviZ 1 has none
    return ELPDData(
        elpd=values.sum(),
        se=float(np.sqrt(values.size * values.var())),
        p=0.0,
        n_samples=1,
        n_data_points=values.size,
        scale="log",
        warning=False,
        good_k=BAD_K,
        elpd_i=xr.DataArray(values, {} if obs is None else {"obs": obs}, "obs"),
        pareto_k=None if pareto_k is None else xr.DataArray(pareto_k, {"obs": obs}, "obs"),
        **kind,
    )


def stacking_weights(ranked: Sequence[Outcome]) -> tuple[dict[str, float], dict[str, float]]:
    """Weights of the mixture of pairs with the best held-out score, and their standard errors over the data.

    The best pair's score is subtracted from each datum first, which leaves the weights unchanged and keeps exp from
    overflowing. The errors come from a bootstrap over data.
    """
    if len(ranked) < 2:
        return {row.label: 1.0 for row in ranked}, {}
    table = np.stack([row.evidence for row in ranked if row.evidence is not None])
    table = table[:, np.isfinite(table).any(0)]
    if not table.size:
        return {}, {}
    table = np.maximum(table - table.max(0), NEGLIGIBLE)
    labels, count = [row.label for row in ranked], table.shape[1]
    draws = np.random.default_rng(0).integers(count, size=(BOOTSTRAPS if count > 1 else 0, count))
    errors = np.std([_best_mixture(table[:, rows]) for rows in draws], axis=0, ddof=1) if len(draws) else []
    return _stacked(labels, table), dict(zip(labels, map(float, errors), strict=False))


def _best_mixture(table: Floats) -> Floats:
    """ArviZ's stacking weights (pairs,) of pointwise evidence (pairs, N), without ArviZ's table.

    The table takes several times as long, which matters in a bootstrap.
    """
    from scipy.optimize import LinearConstraint, minimize

    density, even = np.exp(table), np.full(len(table), 1 / len(table))
    found = minimize(
        lambda weights: -np.log(weights @ density).sum(),
        even,
        jac=lambda weights: -(density / (weights @ density)).sum(1),
        bounds=[(0, 1)] * len(table),
        constraints=LinearConstraint(np.ones(len(table)), lb=1, ub=1),
    )
    return np.asarray(found.x)


def _stacked(labels: Sequence[str], table: Floats) -> dict[str, float]:
    """ArviZ's stacking weights of pointwise evidence (pairs, N), in the order of the labels."""
    from inspect import signature

    import arviz_stats

    # ArviZ 1 rounds unless told not to
    exactly = {"round_to": "none"} if "round_to" in signature(arviz_stats.compare).parameters else {}
    heldout = {label: _elpd(values) for label, values in zip(labels, table, strict=True)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # ArviZ 0 uses what pandas 3 deprecates
        warnings.simplefilter("ignore", UserWarning)  # about many rows: zoo.comparison.cautions says it in words
        weights = arviz_stats.compare(heldout, **exactly)["weight"]
    return {label: float(weights[label]) for label in labels}
