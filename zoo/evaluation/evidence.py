"""Held-out evidence: what a trained pair gives each test datum, how surely, and in which unit of account."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
import xarray
from torch import Tensor

from zoo import inference
from zoo.context import Stream
from zoo.data import Data
from zoo.evaluation.annealing import anneal
from zoo.runs import Run

__all__ = ["BAD_K", "heldout", "pareto_k"]

BAD_K = 0.7  # above it an estimate by importance weights is not to be trusted (Vehtari et al. 2024)
FEWEST_FOR_K = 25  # the tail is a fifth of the weights and five numbers at least
ROUNDING = 1e-3  # nats by which single precision sets the weights of an exact guide apart, at most
EXACT, IMPORTANCE, ANNEALED = range(3)
METHOD = {"flag_values": [EXACT, IMPORTANCE, ANNEALED], "flag_meanings": "exact importance annealed"}
PER_DATUM = ("chain", "obs")
NATS = {"units": "nats per datum"}


@dataclass(frozen=True)
class Effort:
    """How hard to try: ``samples`` importance draws a datum, ``temperatures`` of annealing where they fail, 0: none."""

    samples: int
    temperatures: int


class Scores(NamedTuple):
    """Of N data: log evidence (1 or 2, N), standard error, Pareto k, effective sample size, method and first try."""

    evidence: Tensor
    error: Tensor
    k: Tensor
    size: Tensor
    method: Tensor
    importance: Tensor


def heldout(run: Run, data: Data, samples: int, temperatures: int) -> xarray.Dataset:
    """The group ``heldout``: log evidence of every test datum for every seed, in the units as loaded.

    ``method`` says how each was had. Where the Pareto k of importance weights is above 0.7 (``pareto_k`` keeps it, and
    ``log_evidence_importance`` what they gave), annealing takes their place, whichever of the two is larger;
    ``log_evidence_varying`` then follows by the difference that the weights gave it. On discrete data, ``log_mass`` is
    the evidence as a probability of the datum's cell, whatever the pair is a model of; ``attrs["mass"]`` says how it
    was had: the pair's "own", "binned" or "dequantized".
    """
    effort = Effort(samples, temperatures)
    x = torch.as_tensor(run.pair.scale(data.test.values), dtype=torch.float32)
    constant = data.train_std == 0
    columns = torch.as_tensor(np.flatnonzero(~constant)) if constant.any() else None

    def score(model: Any, guide: Any) -> Scores:
        return _score(model, guide, x, effort, columns)

    try:
        scores = run.each_seed(score, Stream.EVIDENCE)
    except NotImplementedError:  # a likelihood whose marginals are not known
        columns = None
        scores = run.each_seed(score, Stream.EVIDENCE)
    of = _stacked(scores)
    exact = bool((of.method == EXACT).all())
    volume = run.pair.log_volume
    group = xarray.Dataset(
        {
            "log_evidence": (PER_DATUM, of.evidence[:, 0] - volume, NATS),
            "log_evidence_se": (PER_DATUM, of.error, NATS),
            "pareto_k": (PER_DATUM, of.k),
            "ess": (PER_DATUM, of.size),
            "method": (PER_DATUM, of.method, METHOD),
        },
        attrs={"samples": 1 if exact else samples, "temperatures": temperatures, "exact": int(exact), "part": "test"},
    )
    if not exact:
        group["log_evidence_importance"] = (PER_DATUM, of.importance - volume, NATS)
    if columns is not None:
        of_columns = np.log(run.pair.scaling.scale[~constant]).sum()
        group["log_evidence_varying"] = (PER_DATUM, of.evidence[:, 1] - of_columns, NATS)
    return group if data.spacing is None else group.merge(_mass(run, data, effort, group), combine_attrs="no_conflicts")


def _mass(run: Run, data: Data, effort: Effort, evidence: xarray.Dataset) -> xarray.Dataset:
    """Log probability of the cell of each test datum, with the diagnostics of its weights."""
    names = {
        "log_evidence": "log_mass",
        "log_evidence_se": "log_mass_se",
        "pareto_k": "mass_k",
        "method": "mass_method",
    }
    if run.pair.card.base_measure == "mass":
        own = evidence[list(names)].rename(names)
        return own.assign_attrs(mass="own", mass_exact=evidence.attrs["exact"])
    x = torch.as_tensor(run.pair.scale(data.on_levels(data.test.values)), dtype=torch.float32)
    width = torch.as_tensor(data.spacing / run.pair.scaling.scale, dtype=torch.float32)

    def score(kind: type[inference.Cells]) -> list[Scores]:
        return run.each_seed(
            lambda model, guide: _score(kind(model, width), guide, x, effort, None), Stream.EVIDENCE, step=1
        )

    how = "binned"
    try:
        scores = score(inference.Cells)
    except NotImplementedError:  # features that depend on each other, or without a known distribution function
        how, scores = "dequantized", score(inference.Dequantized)
    of = _stacked(scores)
    return xarray.Dataset(
        {
            "log_mass": (PER_DATUM, of.evidence[:, 0], NATS),
            "log_mass_se": (PER_DATUM, of.error, NATS),
            "mass_k": (PER_DATUM, of.k),
            "mass_method": (PER_DATUM, of.method, METHOD),
        },
        attrs={"mass": how, "mass_exact": int((of.method == EXACT).all())},
    )


def _stacked(seeds: list[Scores]) -> Any:
    """The scores of all seeds as arrays with a leading seed axis, under the same names."""
    return Scores(*(torch.stack(column).numpy() for column in zip(*seeds, strict=True)))  # type: ignore[arg-type]


def _score(model: Any, guide: Any, x: Tensor, effort: Effort, columns: Tensor | None) -> Scores:
    """Scores of x, shape (N, D): importance weights a block of rows at a time, then annealing where they are bad."""
    exact = inference.is_exact(model, guide, x)
    blocks = (
        _of_weights(inference.score_weights(model, guide, rows, effort.samples, columns), exact=exact)
        for rows in inference.row_blocks(x, effort.samples)
    )
    scores = Scores(*(torch.cat(parts, dim=-1) for parts in zip(*blocks, strict=True)))
    bad = scores.k > BAD_K
    if not effort.temperatures or not bad.any() or isinstance(model, inference.Dequantized):
        return scores
    try:
        refined = anneal(model, guide, x[bad], effort.temperatures)
    except NotImplementedError:  # latents that no gradient moves
        return scores
    difference = scores.evidence - scores.evidence[0]
    scores.evidence[:, bad] = refined.log_evidence + difference[:, bad]
    scores.error[bad], scores.method[bad] = refined.error, ANNEALED
    return scores


def _of_weights(log_weights: Tensor, *, exact: bool) -> Scores:
    """The scores of log weights ([2,] K, N)."""
    log_weights = log_weights.double().reshape(-1, *log_weights.shape[-2:])
    evidence = torch.stack([inference.log_mean_exp(of_columns) for of_columns in log_weights])
    count, n = log_weights.shape[1:]
    method = torch.full((n,), EXACT if exact else IMPORTANCE, dtype=torch.int8)
    if exact:
        zero, one = torch.zeros(n).double(), torch.ones(n).double()
        return Scores(evidence, zero, zero - torch.inf, one, method, evidence[0])
    relative = (log_weights[0] - evidence[0]).exp()  # w / mean(w)
    error = relative.std(0) / count**0.5 if count > 1 else torch.full((n,), torch.nan).double()
    k = torch.as_tensor(pareto_k(log_weights[0].numpy()))
    return Scores(evidence, error, k, count / relative.square().mean(0), method, evidence[0].clone())


def pareto_k(log_weights: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Shape k of the generalised Pareto distribution fitted to the largest weights, (K, N) to (N,).

    Below 0.5 the estimate is good, up to 0.7 usable, above it is not to be trusted. Minus infinity where all weights
    are the same but for rounding; not a number where they are too few to have a tail, or some are not numbers.

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
    varying = log_weights.min(0) < -ROUNDING  # False where not a number
    if varying.any():
        # arviz-stats takes log likelihoods and negates them: minus log weights are what it must be given
        k[varying] = array_stats.psislw(-log_weights[:, varying], axis=0)[1]
    return k
