"""Whether the predictive distributions of a trained pair keep their promises, feature by feature.

A draw z from q(z | x) has seen x, so the coverage of p(x | z) flatters: over-confidence by a factor of two looks
perfect. The predictions checked here have not seen the value they predict.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import pyro
import torch
import xarray
from pyro import poutine
from scipy.linalg import toeplitz
from scipy.stats import binom, false_discovery_control, poisson
from torch import Tensor

from zoo import inference
from zoo.context import Stream
from zoo.data import Data
from zoo.densities import distribution_function, each_feature, moments
from zoo.evaluation.evidence import Weighed
from zoo.evaluation.predictions import PREDICTIVE_DRAWS, Predictions, crps, randomised
from zoo.evaluation.weighing import DRAWS
from zoo.lenses import Cells
from zoo.objectives import Program
from zoo.runs import Run
from zoo.tree import BAD_K

__all__ = [
    "band",
    "beyond_chance",
    "calibration",
    "p_values",
    "prior_predictive",
    "reconstruction_check",
]

Floats: TypeAlias = np.ndarray[Any, np.dtype[np.float64]]

KINDS, SOURCES = ("leave-one-out", "prior"), ("data", "simulated")
STATISTICS = (
    "mean bias", "mean RMSE", "variance bias", "variance RMSE", "sample bias", "sample RMSE", "90 % coverage"
)  # fmt: skip
COVERAGES, BAND, FALSE_DISCOVERIES = (0.5, 0.8, 0.9, 0.95), 0.95, 0.05
BINS = 6  # bins of the expected calibration error, as in Stirn & Knowles
ROWS, RECONSTRUCTION_DRAWS = 1000, 32
POINTS, LEVELS = 100, 256  # points at which the band is evaluated, and tails whose p value is computed
UNTRUSTED = 1 / 4  # share of weights with a bad k from which a column's PIT may be far from uniform at the truth
SMALLEST, ROUNDING = 1e-10, 1e-9  # smallest p value reported, and relative rounding error of equal tails


def calibration(run: Run, data: Data, weighed: Weighed) -> xarray.Dataset:
    r"""The group ``calibration``: two predictive distributions of every feature that have not seen its value.

    .. math:: p(x_j \mid x_{-j}) = \frac{\sum_k v_k \, p(x_j \mid z_k)}{\sum_k v_k}, \quad
              v_k = \frac{w_k}{p(x_j \mid z_k)}, \qquad\qquad p(x_j) = E_{p(z)} \, p(x_j \mid z)

    with the draws and weights w_k of the evidence. The first is sharp and detects a decoder that is too sure of itself;
    the second is weaker but needs no guide. For each: ``pit``, P(X_j <= x_j), randomised on discrete data, and under
    the prior the randomised rank among separate draws for each datum; ``p_value`` of the hypothesis that a feature's
    PIT is uniform (:func:`p_values`); ``outside``, whether it is at most 5 %, so that the ECDF minus uniform leaves
    the band from ``band_low`` to ``band_high``, which contains 95 % of uniform samples entirely (:func:`band`): one
    feature in twenty leaves it by chance; ``beyond_chance``, whether it is still rejected when all features of its seed
    and kind are tested together (:func:`beyond_chance`); ``coverage`` of central intervals; ``ece``, sum over six bins
    of (1/6 - share)^2 (Stirn & Knowles 2020, https://arxiv.org/abs/2006.04910); ``crps`` in the units as loaded, with
    the training marginal's for comparison; ``log_score`` in nats, and ``row_log_score``, by row and feature, given the
    others. ``bad_k`` is the share of data whose weights v have a Pareto k above 0.7. Above a quarter, for example if a
    column alone determines z, the leave-one-out PIT cannot be trusted and is not judged: its ``p_value`` and everything
    derived from it are NaN. So are columns constant in training. Discrete data are predicted as cells, unless the mass
    of a cell is unknown, which ``attrs["absent"]`` then says under "cells".

    Args:
        run: a trained pair.
        data: the data it was trained on; the first thousand test rows are used, fewer if rows, columns and seeds make
            more than four million numbers.
        weighed: the weighted draws of the guide; at most a thousand per datum predict its features.

    Raises:
        Unknown: p(x_j | z), its distribution function, mean or variance is unknown; or a datum overflows.
    """
    leave_one_out = weighed.features()
    view, samples = run.pair.view, min(weighed.asked.samples, DRAWS)
    scale, cells = view.scale, ~np.isnan(view.width)
    x, as_cells = weighed.seen[: weighed.asked.features], weighed.asked.as_cells
    filler = torch.as_tensor(view.filler, dtype=torch.float32)
    unit = torch.as_tensor(data.unit / scale, dtype=torch.float32)

    def of_seed(model: Any, guide: Any) -> tuple[Any, ...]:
        known = Cells(model, weighed.asked.width) if as_cells else model
        simulated = inference.predictive_draws(known, x, 1)[0]
        check = [reconstruction_check(known, guide, seen, filler, unit) for seen in (x, simulated)]
        of_prior = prior_predictive(known, torch.where(x.isnan(), filler, x), samples).where_observed(x)
        return of_prior, np.stack(check)

    of_prior, check = zip(*run.each_seed(of_seed, Stream.CALIBRATION), strict=True)
    k = [of.k for of in leave_one_out]
    predictions = list(zip((of.of for of in leave_one_out), of_prior, strict=True))
    pit, of_crps, log_density = (
        np.stack([[getattr(of_kind, name) for of_kind in of_seed] for of_seed in predictions])
        for name in Predictions._fields
    )
    varies = data.train_std > 0
    volume = np.where(view.dense & ~(cells & as_cells), np.log(scale), 0.0)
    per_feature = ("chain", "kind", "feature")
    train = run.inward(data.train[:ROWS].values)
    reference = _of_marginals(train, x) * scale
    bad_k = _mean(np.where(np.isnan(k), np.nan, np.stack(k) > BAD_K), 1)
    p = np.where(varies, p_values(pit), np.nan)
    p[:, KINDS.index("leave-one-out")][bad_k > UNTRUSTED] = np.nan
    group = xarray.Dataset(
        {
            "pit": (("chain", "kind", "obs", "feature"), pit.astype(np.float32)),
            "coverage": (("chain", "kind", "level", "feature"), _coverage(pit)),
            "p_value": (per_feature, p, {"smallest": SMALLEST}),
            "outside": (per_feature, np.where(np.isnan(p), np.nan, p <= 1 - BAND)),
            "beyond_chance": (per_feature, beyond_chance(p)),
            "ece": (per_feature, _calibration_error(pit)),
            "crps": (per_feature, _mean(of_crps, 2) * scale),
            "crps_reference": ("feature", reference),
            "log_score": (per_feature, _mean(log_density, 2) - volume, {"units": "nats"}),
            "row_log_score": (
                ("chain", "obs", "feature"),
                (log_density[:, KINDS.index("leave-one-out")] - volume).astype(np.float32),
                {"units": "nats"},
            ),
            "bad_k": (("chain", "feature"), bad_k),
        },
        coords={"kind": list(KINDS), "level": list(COVERAGES)},
    ).where(xarray.DataArray(varies, dims="feature"))
    at, low, high = band(len(x))
    group = group.assign(band_low=("point", low), band_high=("point", high)).assign_coords(point=at)
    group["reconstruction_check"] = (("chain", "source", "statistic"), np.stack(check))
    draws = f"{samples} draws each, {PREDICTIVE_DRAWS} from the prior"
    note = f"the first {len(x)} scored test rows, {draws}; Pareto k of the first {len(k[0])}"
    absent = {"cells": weighed.absent["cells"]} if "cells" in weighed.absent else {}
    return group.assign_coords(source=list(SOURCES), statistic=list(STATISTICS)).assign_attrs(note=note, absent=absent)


def prior_predictive(model: Program, x: Tensor, samples: int, draws: int = PREDICTIVE_DRAWS) -> Predictions:
    r"""Predictions of each feature from nothing, for x (N, D).

    The PIT is the randomised rank of x_j among its own draws x'_m, uniform for any M if x_j has their distribution:

    .. math:: \frac{\#\{x'_m < x_j\} + u \, (1 + \#\{x'_m = x_j\})}{M + 1}, \qquad u \sim U(0, 1), \quad m = 1, \dots, M

    A mean of P(X <= x | z) over the draws would pile up at 0 and 1 if the decoder is sharp, and shared draws would move
    the PIT of all data the same way. Neither affects the log density, a mean over shared draws.

    Args:
        model: p(x, z).
        x: data, in scaled units.
        samples: draws of z for the log density, the same for every datum.
        draws: M, new draws of z and x for each datum, for PIT and CRPS.
    """
    log_density = _under_shared_draws(model, x, samples)
    parts = []
    for rows in inference.row_blocks(x, draws * inference.width(model, x)):
        with pyro.plate("samples", draws, dim=-2):
            own = poutine.trace(poutine.uncondition(model)).get_trace(rows).nodes["x"]
        below, upto = distribution_function(each_feature(own["fn"]), rows)
        v = torch.rand(draws, *rows.shape)  # random positions of the x'_m: below x's exactly where x'_m < x
        less, upto = ((v < end).sum(0) for end in (below, upto))
        pit = randomised(less / (draws + 1), (upto + 1) / (draws + 1), torch.rand_like(rows))
        parts.append((pit, crps(own["value"].movedim(0, -1).contiguous(), rows)))
    pit, of_crps = (torch.cat(of_rows) for of_rows in zip(*parts, strict=True))
    return Predictions(pit, of_crps, log_density)


def _under_shared_draws(model: Program, x: Tensor, samples: int) -> Tensor:
    """The log of the mean of p(x_j | z) over draws of z, (N, D), computed once for each value of a column."""
    order = x.argsort(dim=0)
    ascending = x.gather(0, order)
    number = torch.zeros_like(order)
    number[1:] = (ascending.diff(dim=0) != 0).cumsum(0)
    values = ascending.new_empty(int(number.max()) + 1, x.shape[1])
    values[:] = x[:1]  # padding for columns with fewer values
    values.scatter_(0, number, ascending)
    blank = x.new_zeros(samples, x.shape[1])
    of_draws = [_summed(model, some, values) for some in inference.row_blocks(blank, inference.width(model, x))]
    log_density = torch.stack(of_draws).logsumexp(0) - np.log(samples)
    return torch.empty_like(x).scatter_(0, order, log_density.gather(0, number))


def _summed(model: Program, blank: Tensor, values: Tensor) -> Tensor:
    """The log of the sum of p(x_j | z) over as many draws of z as ``blank`` has rows, for values (V, D)."""
    shared = poutine.trace(poutine.uncondition(model)).get_trace(blank).nodes["x"]
    each = each_feature(shared["fn"]).expand(blank.shape)
    blocks = inference.row_blocks(values, blank.numel())
    return torch.cat([each.log_prob(block[:, None]).logsumexp(1) for block in blocks])


def reconstruction_check(
    model: Program, guide: Program, x: Tensor, filler: Tensor | None = None, unit: Tensor | float = 1.0
) -> Floats:
    """How p(x | z) with z ~ q(z | x) fits the x it has seen, in the order of ``STATISTICS``.

    Bias and root mean square error of the mean (x - mu), the variance ((x - mu)^2 - sigma^2) and a draw (x' - x), over
    all data and features. This is a description, not a calibration check: compare it with the same for data simulated
    from the model. Stirn & Knowles (2020), https://arxiv.org/abs/2006.04910

    Missing entries do not count; ``filler`` (D,) are values that columns can take, and ``unit`` (D,) in what each is
    measured.
    """
    total = count = torch.zeros(())
    for rows in inference.row_blocks(x, RECONSTRUCTION_DRAWS * inference.width(model, x)):
        with pyro.plate("samples", RECONSTRUCTION_DRAWS, dim=-2):
            q = poutine.trace(guide).get_trace(rows)
            fn = poutine.trace(poutine.replay(model, trace=q)).get_trace(rows).nodes["x"]["fn"]
        one = each_feature(fn).expand(torch.Size((RECONSTRUCTION_DRAWS, *rows.shape)))
        mean, variance = moments(one)
        error = (rows - mean) / unit
        full = rows if filler is None else torch.where(rows.isnan(), filler, rows)
        below, upto = (end.mean(0) for end in distribution_function(one, full))
        pit = randomised(below, upto, torch.rand_like(rows))
        errors = torch.stack([error, error.square() - variance / unit**2, (one.sample() - rows) / unit]).double()
        inside = ((pit - 0.5).abs() < 0.45).double().masked_fill(rows.isnan(), torch.nan)
        each = torch.cat([errors, errors.square(), inside.expand_as(errors[:1])]).flatten(1)
        total, count = total + each.nansum(1), count + (~each.isnan()).sum(1)
    mean = total / count
    bias, rmse = mean[:3], mean[3:6].sqrt()
    return torch.cat([torch.stack([bias, rmse], dim=1).flatten(), mean[6:]]).numpy()


# -- summaries of predictions ------------------------------------------------------------------------------------------


def _coverage(pit: Floats) -> Floats:
    """Share of data inside central intervals, (chain, kind, level, feature)."""
    distance = np.abs(pit - 0.5)
    shares = [_mean(np.where(np.isnan(pit), np.nan, distance < level / 2), 2) for level in COVERAGES]
    return np.stack(shares, axis=2)


def _mean(values: Floats, axis: int) -> Floats:
    """The mean without NaN."""
    missing = np.isnan(values)
    if not missing.any():
        return np.asarray(values.mean(axis))
    with np.errstate(invalid="ignore"):
        return np.asarray(np.where(missing, 0.0, values).sum(axis) / (~missing).sum(axis))


def _of_marginals(train: Tensor, x: Tensor) -> Floats:
    """The mean CRPS, (D,), of each column of x (N, D) under the empirical distribution of its training values."""
    columns = [(t[~t.isnan()], v[~v.isnan()]) for t, v in zip(train.T, x.T, strict=True)]
    return np.array([float(crps(t, v).mean()) for t, v in columns])  # N times as many numbers as are kept at a time


def _calibration_error(pit: Floats) -> Floats:
    """Sum over bins of (1 / bins - share)^2, (chain, kind, feature)."""
    number = np.minimum(np.nan_to_num(pit) * BINS, BINS - 1).astype(int)
    shares = np.stack([_mean(np.where(np.isnan(pit), np.nan, number == of_bin), 2) for of_bin in range(BINS)])
    error: Floats = np.square(1 / BINS - shares).sum(0)
    return error


def p_values(pit: Floats) -> Floats:
    """P values of the hypothesis that a feature's PIT is uniform, shape (..., N, D) to (..., D).

    The statistic belongs to :func:`band`, whose limits the ECDF leaves exactly if p <= 5 %: the least binomial tail
    probability of the ECDF over the band's points. Its distribution is computed, not simulated. Values below 1e-10 are
    reported as 1e-10. For small N the ECDF has few values, and so has p.

    >>> pit = (np.arange(100) + 0.5) / 100
    >>> bool(p_values(pit[:, None])[0] > 0.99), bool(p_values(pit[:, None] ** 2)[0] < 0.01)
    (True, True)
    """
    gaps = np.isnan(pit)
    if gaps.any():  # each column has a test of its own size
        found = np.full((*pit.shape[:-2], pit.shape[-1]), np.nan)
        for at in np.ndindex(found.shape):
            known = pit[(*at[:-1], slice(None), at[-1])]
            known = known[~np.isnan(known)]
            found[at] = p_values(known[:, None])[0] if len(known) else np.nan
        return found
    test = _test(pit.shape[-2])
    counts = np.apply_along_axis(np.searchsorted, -2, np.sort(pit, axis=-2), test.at, side="right")
    return test.p(test.tail[counts, np.arange(len(test.at))[:, None]].min(-2))


def beyond_chance(p: Floats) -> Floats:
    """1 where p is rejected in the family of all features, (..., D), at a false discovery rate of 5 %, otherwise 0.

    If all features are calibrated, 5 % of families have any rejection. Features without p value do not count.
    Benjamini & Hochberg (1995), https://doi.org/10.1111/j.2517-6161.1995.tb02031.x

    >>> beyond_chance(np.array([0.001, 0.04, 0.5, np.nan]))
    array([ 1.,  0.,  0., nan])
    """
    rejected = np.full(p.shape, np.nan)
    for family in np.ndindex(p.shape[:-1]):
        known = np.isfinite(p[family])
        rejected[family][known] = false_discovery_control(p[family][known]) <= FALSE_DISCOVERIES
    return rejected


def band(count: int) -> tuple[Floats, Floats, Floats]:
    """Points of [0, 1], and limits that the ECDF minus uniform of 95 % of samples of ``count`` keeps at all of them.

    Säilynoja, Bürkner & Vehtari (2022), Graphical Test for Discrete Uniformity, https://arxiv.org/abs/2103.10522
    """
    test = _test(count)
    kept = test.p(test.tail) > 1 - BAND
    low, high = kept.argmax(0) / count - test.at, (count - kept[::-1].argmax(0)) / count - test.at
    return np.r_[0.0, test.at, 1.0], np.r_[0.0, low, 0.0], np.r_[0.0, high, 0.0]


class _Test(NamedTuple):
    """For N uniform numbers: points (P,), the smaller tail probability of each count there (N + 1, P), and p values.

    ``probability`` is the probability that the least tail is at most ``level``.
    """

    at: Floats
    tail: Floats
    level: Floats
    probability: Floats

    def p(self, tail: Floats) -> Floats:
        """The p value of a least tail, exact at the levels and interpolated between."""
        found: Floats = np.exp(np.interp(np.log(np.maximum(tail, self.level[0])), np.log(self.level), self.probability))
        return found


@lru_cache(maxsize=256)
def _test(count: int) -> _Test:
    """Counts of uniform numbers are a Poisson process conditioned on N events, a Markov chain over points."""
    # Our own band: ArviZ's gives no tail probability to an ECDF of 0, and is too narrow.
    stretches = max(min(count, POINTS), 2)
    at = np.arange(1, stretches) / stretches
    k = np.arange(count + 1)[:, None]
    tail = np.minimum(binom.cdf(k, count, at), binom.sf(k - 1, count, at))
    level = np.unique(tail[tail > SMALLEST / count])
    level = level[np.linspace(0, len(level) - 1, min(len(level), LEVELS)).astype(int)]
    mass = poisson.pmf(k[:, 0], count / stretches)
    steps = toeplitz(np.r_[mass[0], np.zeros(count)], mass)
    stayed, reached = np.ones((len(level), 1)), slice(0, 1)
    for here in tail.T:
        inside = np.flatnonzero(here >= level[0])
        reach = slice(inside[0], inside[-1] + 1)
        stayed = stayed @ steps[reached, reach] * (here[reach] > level[:, None] * (1 + ROUNDING))
        reached = reach
    probability = 1 - stayed @ mass[count - k[reached, 0]] / poisson.pmf(count, count)
    return _Test(at, tail, level, np.log(np.clip(probability, SMALLEST, 1)))
