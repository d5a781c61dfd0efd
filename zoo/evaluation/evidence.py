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
from zoo.errors import Unknown
from zoo.evaluation.annealing import anneal
from zoo.evaluation.tails import BAD_K, ROUNDING, pareto_k
from zoo.runs import Run
from zoo.words import nats

__all__ = ["heldout"]

NOISY = 6.0  # standard errors by which an estimate may be off
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
    """Of N data: log evidence (1 or 2, N), standard error, Pareto k, effective sample size, method and first try.

    ``unannealed`` says why data whose k is bad were not annealed, where they should have been and could not be.
    """

    evidence: Tensor
    error: Tensor
    k: Tensor
    size: Tensor
    method: Tensor
    importance: Tensor
    unannealed: str = ""


def heldout(run: Run, data: Data, samples: int, temperatures: int) -> xarray.Dataset:
    """The group ``heldout``: log evidence of every test datum for every seed, in the units as loaded.

    ``method`` says how each was had. Where the Pareto k of importance weights is above 0.7 (``pareto_k`` keeps it, and
    ``log_evidence_importance`` what they gave), annealing takes their place, whichever of the two is larger;
    ``log_evidence_varying`` then follows by the difference that the weights gave it. Where columns have a resolution,
    ``log_mass`` is the evidence under the data's measure, the probability of the cell in those columns and a density
    in the others, whatever the pair is a model of; ``attrs["mass"]`` says how it
    was had: the pair's "own", "binned" or "dequantized", and ``attrs["resolved"]`` in how many columns. Entries that
    were not observed are integrated out. Where a datum is so far out that the guide's own numbers
    overflow, draws of the prior take their place.

    ``attrs["absent"]`` says by name what is not there and why: "varying", the ``log_evidence_varying`` of data with
    constant columns; "annealing" and "annealing of the mass"; "cells", a mass without dequantisation.
    """
    effort = Effort(samples, temperatures)
    loaded, view = data.test.values, run.pair.view
    x = torch.as_tensor(view.inward(loaded), dtype=torch.float32)
    constant = data.train_std == 0
    columns = torch.as_tensor(np.flatnonzero(~constant)) if constant.any() else None

    def score(model: Any, guide: Any) -> Scores:
        return _score(model, guide, x, effort, columns)

    absent: dict[str, str] = {}
    try:
        scores = run.each_seed(score, Stream.EVIDENCE)
    except Unknown as reason:  # a likelihood whose marginals are not known
        if columns is None:
            raise
        columns, absent["varying"] = None, str(reason)
        scores = run.each_seed(score, Stream.EVIDENCE)
    of = _stacked(scores)
    absent |= {"annealing": of.unannealed} if of.unannealed else {}
    exact = bool((of.method == EXACT).all())
    volume = view.log_volumes(loaded)
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
        of_columns = view.log_volumes(np.where(constant, np.nan, loaded))
        group["log_evidence_varying"] = (PER_DATUM, of.evidence[:, 1] - of_columns, NATS)
    if not np.isnan(data.resolution).all():
        try:
            mass = _mass(run, data, effort, group)
            absent |= mass.attrs.pop("absent", {})
            group = group.merge(mass, combine_attrs="no_conflicts")
        except Unknown as reason:  # then the density is all there is
            if np.isnan(view.width).all():  # and a mass of its own is no mass
                raise
            absent["mass"] = str(reason)
    return group.assign_attrs(absent=absent)


def _mass(run: Run, data: Data, effort: Effort, evidence: xarray.Dataset) -> xarray.Dataset:
    """Log evidence of each test datum under the data's measure, with the diagnostics of its weights.

    Raises:
        Unknown: the likelihood is no density on a whole cell, or what should be a probability came out above 1.
    """
    names = {
        "log_evidence": "log_mass",
        "log_evidence_se": "log_mass_se",
        "pareto_k": "mass_k",
        "method": "mass_method",
    }
    view, resolved = run.pair.view, int(np.sum(~np.isnan(data.resolution)))
    if np.isnan(view.width).all():
        own = evidence[list(names)].rename(names)
        _refuse_above_one(own["log_mass"].values, own["log_mass_se"].values, data)
        return own.assign_attrs(mass="own", mass_exact=evidence.attrs["exact"], resolved=resolved)
    loaded = data.on_levels(data.test.values)
    x = torch.as_tensor(view.inward(loaded), dtype=torch.float32)
    width = torch.as_tensor(view.width, dtype=torch.float32)

    def score(kind: type[inference.Cells]) -> list[Scores]:
        return run.each_seed(
            lambda model, guide: _score(kind(model, width), guide, x, effort, None), Stream.EVIDENCE, step=1
        )

    how, absent = "binned", {}
    try:
        scores = score(inference.Cells)
    except Unknown as reason:  # features that depend on each other, or without a known distribution function
        how, scores, absent["cells"] = "dequantized", score(inference.Dequantized), str(reason)
    of = _stacked(scores)
    absent |= {"annealing of the mass": of.unannealed} if of.unannealed else {}
    log_mass = of.evidence[:, 0] - view.log_volumes(loaded, cells=True)
    _refuse_above_one(log_mass, of.error, data)
    return xarray.Dataset(
        {
            "log_mass": (PER_DATUM, log_mass, NATS),
            "log_mass_se": (PER_DATUM, of.error, NATS),
            "mass_k": (PER_DATUM, of.k),
            "mass_method": (PER_DATUM, of.method, METHOD),
        },
        attrs={
            "mass": how,
            "mass_exact": int((of.method == EXACT).all()),
            "resolved": resolved,
            "absent": absent,
        },
    )


def _refuse_above_one(log_mass: Any, error: Any, data: Data) -> None:
    """Raise Unknown where a log mass (S, N) is above 0 by more than its standard error and rounding explain."""
    if np.isnan(data.resolution).any():  # in which a density has a part, and may be
        return
    above = log_mass - NOISY * np.nan_to_num(error) > ROUNDING
    if above.any():
        seed, row = np.argwhere(above)[0]
        raise Unknown(
            f"the log mass of row {data.test['obs'].values[row]} came out as {nats(log_mass[seed, row])} nats, and a "
            "probability is at most 1"
        )


def _stacked(seeds: list[Scores]) -> Any:
    """The scores of all seeds as arrays with a leading seed axis, under the same names."""
    *columns, reasons = zip(*seeds, strict=True)
    arrays: list[Any] = [torch.stack(column).numpy() for column in columns]
    return Scores._make([*arrays, max(reasons)])


def _score(model: Any, guide: Any, x: Tensor, effort: Effort, columns: Tensor | None) -> Scores:
    """Scores of x, shape (N, D): importance weights, then annealing where they are bad, from the guide or the prior."""
    scores = _by_weights(model, guide, x, effort, columns)
    lost = scores.evidence[0].isnan()
    prior = inference.prior(model)
    if lost.any():
        instead = _by_weights(model, prior, x[lost], effort, columns)
        for into, values in zip(scores[:-1], instead[:-1], strict=True):
            into[..., lost] = values
    bad = scores.k > BAD_K
    difference = scores.evidence - scores.evidence[0]
    for start, rows in ((guide, bad & ~lost), (prior, bad & lost)):
        if not effort.temperatures or not rows.any():
            continue
        try:
            refined = anneal(model, start, x[rows], effort.temperatures)
        except Unknown as reason:
            scores = scores._replace(unannealed=str(reason))
            continue
        scores.evidence[:, rows] = refined.log_evidence + difference[:, rows]
        scores.error[rows], scores.method[rows] = refined.error, ANNEALED
    return scores


def _by_weights(model: Any, guide: Any, x: Tensor, effort: Effort, columns: Tensor | None) -> Scores:
    """Scores by importance weights, a block of rows at a time."""
    exact = inference.is_exact(model, guide, x)
    blocks = (
        _of_weights(inference.score_weights(model, guide, rows, effort.samples, columns), exact=exact)
        for rows in inference.row_blocks(x, effort.samples)
    )
    *of_blocks, _ = zip(*blocks, strict=True)
    return Scores._make([*(torch.cat(parts, dim=-1) for parts in of_blocks), ""])


def _of_weights(log_weights: Tensor, *, exact: bool) -> Scores:
    """The scores of log weights ([2,] K, N)."""
    log_weights = log_weights.reshape(-1, *log_weights.shape[-2:])
    as_given, log_weights = log_weights[0], log_weights.double()
    evidence = torch.stack([inference.log_mean_exp(of_columns) for of_columns in log_weights])
    count, n = log_weights.shape[1:]
    method = torch.full((n,), EXACT if exact else IMPORTANCE, dtype=torch.int8)
    if exact:
        zero, one = torch.zeros(n).double(), torch.ones(n).double()
        return Scores(evidence, zero, zero - torch.inf, one, method, evidence[0])
    relative = (log_weights[0] - evidence[0]).exp()  # w / mean(w)
    error = relative.std(0) / count**0.5 if count > 1 else torch.full((n,), torch.nan).double()
    k = torch.as_tensor(pareto_k(as_given.numpy()))
    return Scores(evidence, error, k, count / relative.square().mean(0), method, evidence[0].clone())
