"""Held-out evidence: the score of each test datum, its error, and its measure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
import xarray
from torch import Tensor

from zoo import inference
from zoo.context import Stream, seeded
from zoo.data import Data
from zoo.errors import Unknown
from zoo.evaluation.annealing import Annealer
from zoo.evaluation.tails import ROUNDING, pareto_k
from zoo.evaluation.weighing import Asked, Predicted, Weigher, joined
from zoo.lenses import Cells, Dequantized
from zoo.runs import Run
from zoo.splits import by_datum, value_blocks
from zoo.tree import ANNEALED, BAD_K, EXACT, IMPORTANCE
from zoo.words import nats

__all__ = ["Weighed", "heldout", "weigh"]

ROWS, LEAST_ROWS = 1000, 64  # test rows whose features are predicted from each other
PREDICTED = 4 * 10**6  # predicted numbers, over all seeds
NOISY = 6.0  # standard errors an estimate may be off
METHOD = {"flag_values": [EXACT, IMPORTANCE, ANNEALED], "flag_meanings": "exact importance annealed"}
PER_DATUM = ("chain", "obs")
NATS = {"units": "nats per datum"}
AGREE = 0.5  # share of effective chains, under the weights of the cell, from which the density's chains serve both
TRIED = 2  # draws in a trial run that shows what a likelihood can answer


class Scores(NamedTuple):
    """For N data: log evidence (1 or 2, N), standard error, Pareto k, effective sample size, method and first try.

    ``lost`` are data whose guide overflows, so that draws of the prior replace it.
    """

    evidence: Tensor
    error: Tensor
    k: Tensor
    size: Tensor
    method: Tensor
    importance: Tensor
    lost: Tensor


@dataclass(frozen=True)
class Weighed:
    """The weighted draws of every seed's guide.

    Attributes:
        asked: what was asked for and can be computed.
        x: test data in scaled units, (N, D).
        at: the same, or the midpoints of their cells.
        density: by seed, the evidence of each datum, in all columns and in those that vary.
        mass: by seed, the evidence of the cells, if there are any.
        predicted: by seed, each feature predicted from the others.
        absent: why some of it is missing, by "varying", "cells", "mass" and "features".
    """

    asked: Asked
    x: Tensor
    at: Tensor
    density: list[Scores]
    mass: list[Scores]
    predicted: list[Predicted]
    absent: dict[str, str]

    @property
    def seen(self) -> Tensor:
        """The data whose features are predicted."""
        return self.asked.seen(self.x, self.at)

    def features(self) -> list[Predicted]:
        """The predictions of each feature.

        Raises:
            Unknown: there are none.
        """
        if "features" in self.absent:
            raise Unknown(self.absent["features"])
        return self.predicted


def weigh(run: Run, data: Data, samples: int) -> Weighed:
    """Draw from the guides of a run, and weight test data, their cells and their features by the same draws."""
    view = run.pair.view
    x = _single(data.test, view.inward)
    width = torch.as_tensor(view.width, dtype=torch.float32)
    cut = not width.isnan().all() and not np.isnan(data.resolution).all()
    spread_out = cut and data.noise == "dequantize"  # otherwise the values are the midpoints of their cells
    at = _single(data.test, lambda loaded: view.inward(data.on_levels(loaded))) if spread_out else x
    constant = data.train_std == 0
    wanted = Asked(
        samples,
        columns=torch.as_tensor(np.flatnonzero(~constant)) if constant.any() else None,
        lens=Cells if cut else None,
        width=width,
        features=min(len(x), ROWS, max(LEAST_ROWS, PREDICTED // (len(run.seeds) * data.features))),
        filler=torch.as_tensor(view.filler, dtype=torch.float32) if x.isnan().any() else None,
    )
    absent: dict[str, str] = {}
    weigher: Weigher | None = None

    def of_seed(model: Any, guide: Any) -> tuple[Scores, Scores | None, Predicted | None]:
        nonlocal weigher
        if weigher is None:
            weigher = Weigher(_known(wanted, model, guide, x, at, absent), model, guide, x)
        try:
            inference.refuse_overflow(model, guide, x[: wanted.features], data.test["obs"].values.tolist())
        except Unknown as reason:
            absent["features"] = str(reason)
        return _weighed(weigher, model, guide, x, at)

    density, mass, predicted = zip(*run.each_seed(of_seed, Stream.EVIDENCE), strict=True)
    assert weigher is not None  # a run has a seed
    return Weighed(weigher.asked, x, at, [*density], [m for m in mass if m], [p for p in predicted if p], absent)


def _single(part: xarray.DataArray, change: Callable[[Any], Any]) -> Tensor:
    """A part (N, D), transformed, in single precision; only a few rows at a time are in double precision."""
    values = np.empty(part.shape, np.float32)
    start = 0
    for block in value_blocks(part):
        values[start : start + len(block)] = change(block)
        start += len(block)
    return torch.from_numpy(values)


def _known(asked: Asked, model: Any, guide: Any, x: Tensor, at: Tensor, absent: dict[str, str]) -> Asked:
    """The requests that can be computed; notes the others."""

    def refused(attempt: Asked) -> str:
        try:
            with seeded(0):
                Weigher(replace(attempt, samples=TRIED), model, guide, x[:1]).once(model, guide, x[:1], at[:1])
        except Unknown as reason:
            return str(reason)
        return ""

    plain = replace(asked, columns=None, lens=None, features=0)
    if asked.columns is not None and (reason := refused(replace(plain, columns=asked.columns))):
        absent["varying"], asked = reason, replace(asked, columns=None)
    if asked.lens and (reason := refused(replace(plain, lens=Cells))):
        absent["cells"], asked = reason, replace(asked, lens=Dequantized)
        if reason := refused(replace(plain, lens=Dequantized)):
            absent["mass"], asked = reason, replace(asked, lens=None)
    if asked.features and (reason := refused(replace(asked, columns=None))):
        absent["features"], asked = reason, replace(asked, features=0)
    return asked


def _weighed(
    weigher: Weigher, model: Any, guide: Any, x: Tensor, at: Tensor
) -> tuple[Scores, Scores | None, Predicted | None]:
    """The scores of density and cells, and predictions of features, for one seed."""
    asked = weigher.asked
    density, mass, predicted = _by_weights(weigher, model, guide, x, at)
    known = inference.known_evidence(model, x, asked.columns)
    if known is not None:
        density = _of_weights(known, exact=True)
    lost = density.evidence[0].isnan() | (mass.evidence[0].isnan() if mass else False)
    if lost.any():
        prior = inference.prior(model)
        of_prior = Weigher(replace(asked, features=0), model, prior, x)
        other_density, other_mass, _ = _by_weights(of_prior, model, prior, x[lost], at[lost])
        for scores, others in ((density, other_density), (mass, other_mass)):
            if scores and others:
                missing = scores.evidence[0].isnan()
                for into, values in zip(scores, others, strict=True):
                    into[..., missing] = values[..., missing[lost]]
                scores.lost[missing] = True
    return density, mass, predicted


def _by_weights(
    weigher: Weigher, model: Any, guide: Any, x: Tensor, at: Tensor
) -> tuple[Scores, Scores | None, Predicted | None]:
    density, mass, predicted = [], [], []
    for weights, of_features in weigher(model, guide, x, at):
        of_all = weights.density[None] if weights.columns is None else torch.stack([weights.density, weights.columns])
        density.append(_of_weights(of_all, exact=weigher.exact))
        mass += [] if weights.cells is None else [_of_weights(weights.cells[None], exact=weigher.exact)]
        predicted.append(of_features)
    features = weigher.asked.features
    return _joined(density), _joined(mass) if mass else None, joined(predicted, features) if features else None


def _joined(blocks: list[Scores]) -> Scores:
    return Scores._make(torch.cat(parts, dim=-1) for parts in zip(*blocks, strict=True))


def heldout(run: Run, data: Data, weighed: Weighed, temperatures: int) -> xarray.Dataset:
    """The group ``heldout``: log evidence of every test datum for every seed, in the units as loaded.

    ``method`` says how each was estimated. If the Pareto k of importance weights is above 0.7 (``pareto_k`` keeps it,
    and ``log_evidence_importance`` their estimate), annealing replaces them and shifts ``log_evidence_varying`` by the
    same difference. If columns have a resolution, ``log_mass`` is the evidence under the data's measure: the
    probability of the cell in those columns and a density in the others, whatever the measure of the pair's formula.
    ``attrs["mass"]`` says which mass it is, the pair's "own", "binned" or "dequantized", and ``attrs["resolved"]`` in
    how many columns. Missing entries are integrated out. If a datum is so far out that the guide overflows, draws of
    the prior replace it.

    ``attrs["absent"]`` says by name what is missing and why: "varying", the ``log_evidence_varying`` of data with
    constant columns; "annealing" and "annealing of the mass"; "cells", a mass without dequantisation.
    """
    view, asked = run.pair.view, weighed.asked
    absent = {name: reason for name, reason in weighed.absent.items() if name != "features"}
    of_seeds: list[Any] = [*weighed.mass] or [None] * len(run.seeds)
    pending = iter(zip(weighed.density, of_seeds, strict=True))

    refine = _Refiner(weighed, temperatures, inference.width(run.pair.model, weighed.x), absent)
    refined = run.each_seed(lambda model, guide: refine(model, guide, *next(pending)), Stream.EVIDENCE, 1)
    density, mass = zip(*refined, strict=True)
    of = _stacked(density)
    exact = bool((of.method == EXACT).all())
    volume = by_datum(data.test, view.log_volumes)
    column, distance = by_datum(data.test, lambda loaded: _farthest(loaded, data)).T
    group = xarray.Dataset(
        {
            "log_evidence": (PER_DATUM, of.evidence[:, 0] - volume, NATS),
            "log_evidence_se": (PER_DATUM, of.error, NATS),
            "pareto_k": (PER_DATUM, of.k),
            "ess": (PER_DATUM, of.size),
            "method": (PER_DATUM, of.method, METHOD),
            "farthest_column": ("obs", column.astype(np.int32)),
            "farthest": ("obs", distance, {"units": "standard deviations of the training part"}),
        },
        attrs={
            "samples": 1 if exact else asked.samples,
            "temperatures": temperatures,
            "exact": int(exact),
            "part": "test",
        },
    )
    if not exact:
        group["log_evidence_importance"] = (PER_DATUM, of.importance - volume, NATS)
    if asked.columns is not None:
        varies = np.where(data.train_std == 0, np.nan, 0.0)
        of_columns = by_datum(data.test, lambda loaded: view.log_volumes(loaded + varies))
        group["log_evidence_varying"] = (PER_DATUM, of.evidence[:, 1] - of_columns, NATS)
    if not np.isnan(data.resolution).all():
        try:
            group = group.merge(_mass(run, data, weighed, mass, group), combine_attrs="no_conflicts")
        except Unknown as reason:  # then there is only the density
            if np.isnan(view.width).all():  # and its own mass is not a mass
                raise
            absent["mass"] = str(reason)
    return group.assign_attrs(absent=absent)


def _farthest(loaded: np.ndarray[Any, Any], data: Data) -> np.ndarray[Any, Any]:
    """The column where each row is farthest from the training centre, and by how many deviations, (B, 2)."""
    unit = np.where(data.train_std > 0, data.train_std, np.inf)
    distance = np.nan_to_num(np.abs(loaded - data.scaling.center) / unit)
    return np.stack([distance.argmax(1), distance.max(1)], axis=1)


class _Refiner:
    """Anneals data with bad weights, seed by seed; notes why it cannot."""

    def __init__(self, weighed: Weighed, temperatures: int, width: int, absent: dict[str, str]) -> None:
        self.weighed, self.temperatures, self.width, self.absent = weighed, temperatures, width, absent
        self._annealers: dict[tuple[str, type], Annealer] = {}

    def __call__(self, model: Any, guide: Any, density: Scores, mass: Scores | None) -> tuple[Scores, Scores | None]:
        """The scores of a seed, from the guide or, where it overflows, from the prior."""
        if not self.temperatures:
            return density, mass
        for start, some in ((guide, ~density.lost), (inference.prior(model), density.lost)):
            bad = some & (density.k > BAD_K)
            bad_mass = some & (mass.k > BAD_K) if mass else torch.zeros_like(bad)
            if bad.any():
                bad_mass = bad_mass & ~self._density(model, start, bad, bad_mass, density, mass)
            if mass and bad_mass.any():
                self._mass(model, start, bad_mass, mass)
        return density, mass

    def _density(
        self, model: Any, start: Any, rows: Tensor, and_mass: Tensor, density: Scores, mass: Scores | None
    ) -> Tensor:
        """Anneal the density of some rows; returns which of the rows that also need a mass got it from the chains."""
        x, at, asked = self.weighed.x, self.weighed.at, self.weighed.asked
        lens = asked.lens(model, asked.width) if asked.lens is Cells and (rows & and_mass).any() else None
        served = torch.zeros_like(rows)
        try:
            chains = self._annealer("annealing", start)(model, start, x[rows], lens, at[rows])
        except Unknown as reason:
            self.absent["annealing"] = str(reason)
            return served
        difference = density.evidence - density.evidence[0]
        found = chains.of_density()
        density.evidence[:, rows] = found.log_evidence + difference[:, rows]
        density.error[rows], density.method[rows] = found.error, ANNEALED
        if mass and lens:
            found, kept = chains.of_cells()
            served[rows] = (kept > AGREE) & and_mass[rows]
            of_served = served[rows]
            mass.evidence[0, served], mass.error[served] = found.log_evidence[of_served], found.error[of_served]
            mass.method[served] = ANNEALED
        return served

    def _mass(self, model: Any, start: Any, rows: Tensor, mass: Scores) -> None:
        """Anneal the mass of some rows, towards its own posterior rather than the density's."""
        asked, name = self.weighed.asked, "annealing of the mass"
        assert asked.lens  # otherwise there would be no mass
        lens = asked.lens(model, asked.width)
        try:
            found = self._annealer(name, start)(lens, start, self.weighed.at[rows]).of_density()
        except Unknown as reason:
            self.absent[name] = str(reason)
            return
        mass.evidence[0, rows], mass.error[rows], mass.method[rows] = found.log_evidence, found.error, ANNEALED

    def _annealer(self, name: str, start: Any) -> Annealer:
        """One annealer per pair of programs: the prior needs a different one from the guide."""
        programs = name, type(start)
        if programs not in self._annealers:
            self._annealers[programs] = Annealer(self.temperatures, self.width)
        return self._annealers[programs]


def _mass(
    run: Run, data: Data, weighed: Weighed, seeds: tuple[Scores | None, ...], evidence: xarray.Dataset
) -> xarray.Dataset:
    """Log evidence of each test datum under the data's measure, with the diagnostics of its weights.

    Raises:
        Unknown: the likelihood is not a density on a whole cell, or a probability came out above 1.
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
    if weighed.asked.lens is None:
        raise Unknown(weighed.absent["mass"])
    of = _stacked(seeds)
    log_mass = of.evidence[:, 0] - by_datum(data.test, partial(view.log_volumes, cells=True))
    _refuse_above_one(log_mass, of.error, data)
    return xarray.Dataset(
        {
            "log_mass": (PER_DATUM, log_mass, NATS),
            "log_mass_se": (PER_DATUM, of.error, NATS),
            "mass_k": (PER_DATUM, of.k),
            "mass_method": (PER_DATUM, of.method, METHOD),
        },
        attrs={
            "mass": "binned" if weighed.asked.lens is Cells else "dequantized",
            "mass_exact": int((of.method == EXACT).all()),
            "resolved": resolved,
        },
    )


def _refuse_above_one(log_mass: Any, error: Any, data: Data) -> None:
    """Raise Unknown if a log mass (S, N) exceeds 0 by more than its standard error and rounding explain."""
    if np.isnan(data.resolution).any():  # a density is part of it, so it may exceed 0
        return
    above = log_mass - NOISY * np.nan_to_num(error) > ROUNDING
    if above.any():
        seed, row = np.argwhere(above)[0]
        raise Unknown(
            f"the log mass of row {data.test['obs'].values[row]} came out as {nats(log_mass[seed, row])} nats, but a "
            "probability is at most 1"
        )


def _stacked(seeds: Any) -> Any:
    """The scores of all seeds as arrays with a leading seed axis, under the same names."""
    return Scores._make(torch.stack(column).numpy() for column in zip(*seeds, strict=True))


def _of_weights(log_weights: Tensor, *, exact: bool) -> Scores:
    """The scores of log weights ([2,] K, N)."""
    log_weights = log_weights.reshape(-1, *log_weights.shape[-2:])
    as_given, log_weights = log_weights[0], log_weights.double()
    evidence = torch.stack([inference.log_mean_exp(of_columns) for of_columns in log_weights])
    count, n = log_weights.shape[1:]
    method = torch.full((n,), EXACT if exact else IMPORTANCE, dtype=torch.int8)
    if exact:
        zero, one = torch.zeros(n).double(), torch.ones(n).double()
        return Scores(evidence, zero, zero - torch.inf, one, method, evidence[0], method < 0)
    relative = (log_weights[0] - evidence[0]).exp()  # w / mean(w)
    error = relative.std(0) / count**0.5 if count > 1 else torch.full((n,), torch.nan).double()
    k = torch.as_tensor(pareto_k(as_given.numpy()))
    size = count / relative.square().mean(0)
    return Scores(evidence, error, k, size, method, evidence[0].clone(), evidence[0].isnan())
