"""Held-out evidence: what a trained pair gives each test datum, how surely, and in which unit of account."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import xarray
from torch import Tensor

from zoo import inference
from zoo.context import Stream
from zoo.data import Data
from zoo.runs import Run

__all__ = ["heldout", "pareto_k"]

FEWEST_FOR_K = 25  # the tail is a fifth of the weights and five numbers at least
PER_DATUM = ("chain", "obs")
NATS = {"units": "nats per datum"}


def heldout(run: Run, data: Data, samples: int) -> xarray.Dataset:
    """The group ``heldout``: log evidence of every test datum for every seed, in the units as loaded.

    On discrete data, ``log_mass`` is the evidence as a probability of the datum's cell, whatever the pair is a model
    of; ``attrs["mass"]`` says how it was had: the pair's "own", "binned" or "dequantized".
    """
    x = torch.as_tensor(run.pair.scale(data.test.values), dtype=torch.float32)
    constant = data.train_std == 0
    columns = torch.as_tensor(np.flatnonzero(~constant)) if constant.any() else None

    def score(model: Any, guide: Any) -> tuple[Tensor, ...]:
        return _score(model, guide, x, samples, columns)

    try:
        scores = run.each_seed(score, Stream.EVIDENCE)
    except NotImplementedError:  # a likelihood whose marginals are not known
        columns = None
        scores = run.each_seed(score, Stream.EVIDENCE)
    evidence, error, k, size = (torch.stack(column).numpy() for column in zip(*scores, strict=True))
    exact = bool(np.isneginf(k).all())
    group = xarray.Dataset(
        {
            "log_evidence": (PER_DATUM, evidence[:, 0] - run.pair.log_volume, NATS),
            "log_evidence_se": (PER_DATUM, error, NATS),
            "pareto_k": (PER_DATUM, k),
            "ess": (PER_DATUM, size),
        },
        attrs={"samples": 1 if exact else samples, "exact": int(exact), "part": "test"},
    )
    if columns is not None:
        volume = np.log(run.pair.scaling.scale[~constant]).sum()
        group["log_evidence_varying"] = (PER_DATUM, evidence[:, 1] - volume, NATS)
    return group if data.spacing is None else group.merge(_mass(run, data, samples, group), combine_attrs="no_conflicts")


def _mass(run: Run, data: Data, samples: int, evidence: xarray.Dataset) -> xarray.Dataset:
    """Log probability of the cell of each test datum, with the diagnostics of its weights."""
    names = {"log_evidence": "log_mass", "log_evidence_se": "log_mass_se", "pareto_k": "mass_k"}
    if run.pair.card.base_measure == "mass":
        own = evidence[list(names)].rename(names)
        return own.assign_attrs(mass="own", mass_exact=evidence.attrs["exact"])
    x = torch.as_tensor(run.pair.scale(data.on_levels(data.test.values)), dtype=torch.float32)
    width = torch.as_tensor(data.spacing / run.pair.scaling.scale, dtype=torch.float32)

    def score(kind: type[inference.Cells]) -> list[tuple[Tensor, ...]]:
        return run.each_seed(
            lambda model, guide: _score(kind(model, width), guide, x, samples, None), Stream.EVIDENCE, step=1
        )

    how = "binned"
    try:
        scores = score(inference.Cells)
    except NotImplementedError:  # features that depend on each other, or without a known distribution function
        how, scores = "dequantized", score(inference.Dequantized)
    mass, error, k, _ = (torch.stack(column).numpy() for column in zip(*scores, strict=True))
    return xarray.Dataset(
        {
            "log_mass": (PER_DATUM, mass[:, 0], NATS),
            "log_mass_se": (PER_DATUM, error, NATS),
            "mass_k": (PER_DATUM, k),
        },
        attrs={"mass": how, "mass_exact": int(np.isneginf(k).all())},
    )


def _score(model: Any, guide: Any, x: Tensor, samples: int, columns: Tensor | None) -> tuple[Tensor, ...]:
    """:func:`_scores` of x, shape (N, D), a block of rows at a time."""
    exact = inference.draws_nothing(guide, x) and not isinstance(model, inference.Dequantized)
    blocks = (
        _scores(inference.stream_log_weights(model, guide, rows, samples, columns), exact=exact)
        for rows in inference.row_blocks(x, samples)
    )
    return tuple(torch.cat(parts, dim=-1) for parts in zip(*blocks, strict=True))


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
