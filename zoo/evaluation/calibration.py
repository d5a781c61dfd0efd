"""Whether the predictive distributions of a trained pair hold what they promise, feature by feature.

A draw z from q(z | x) has seen x, so the coverage of p(x | z) flatters: an over-confidence by a factor of two reads as
perfect. What is calibrated here has not seen the value that it predicts.
"""

from __future__ import annotations

from functools import lru_cache, singledispatch
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import pyro
import pyro.distributions as dist
import torch
import xarray
from pyro import poutine
from scipy.stats import binom
from torch import Tensor

from zoo import inference
from zoo.answers import ask, name_of
from zoo.context import Stream
from zoo.data import Data
from zoo.errors import Unknown
from zoo.evaluation.evidence import BAD_K, pareto_k
from zoo.models.ordinal import Binned, Levels
from zoo.objective import Program
from zoo.runs import Run

__all__ = [
    "Predictions",
    "band",
    "calibration",
    "crps",
    "distribution_function",
    "each_feature",
    "each_feature_given_the_others",
    "leave_one_feature_out",
    "prior_predictive",
    "reconstruction_check",
]

Floats: TypeAlias = np.ndarray[Any, np.dtype[np.float64]]

KINDS, SOURCES = ("leave-one-out", "prior"), ("data", "simulated")
STATISTICS = (
    "mean bias", "mean RMSE", "variance bias", "variance RMSE", "sample bias", "sample RMSE", "90 % coverage"
)  # fmt: skip
COVERAGES, BAND = (0.5, 0.8, 0.9, 0.95), 0.95
BINS = 6  # of the expected calibration error, as Stirn & Knowles have them
ROWS, DRAWS, CRPS_DRAWS, RECONSTRUCTION_DRAWS = 1000, 1000, 100, 32
K_FITS = 4096  # tails fitted for each seed
POINTS, SIMULATIONS, ROUNDING = 100, 4000, 1e-9  # of the band: where it is evaluated, and ECDFs simulated


def calibration(run: Run, data: Data, samples: int) -> xarray.Dataset:
    r"""The group ``calibration``: two predictive distributions of every feature that have not seen its value.

    .. math:: p(x_j \mid x_{-j}) = \frac{\sum_k v_k \, p(x_j \mid z_k)}{\sum_k v_k}, \quad
              v_k = \frac{w_k}{p(x_j \mid z_k)}, \qquad\qquad p(x_j) = E_{p(z)} \, p(x_j \mid z)

    with the draws and weights w_k of the evidence. The first is sharp and sees a decoder that is too sure of itself,
    the second is weaker and needs no guide. For each: ``pit``, P(X_j <= x_j), randomised on discrete data; ``outside``,
    whether the ECDF of the PIT of a feature, minus uniform, leaves the band from ``band_low`` to ``band_high`` that
    holds a uniform sample as a whole in 95 % of cases (:func:`band`); ``coverage`` of central intervals; ``ece``,
    sum over six bins of (1/6 - share)^2 (Stirn & Knowles 2020, https://arxiv.org/abs/2006.04910); ``crps`` in the units
    as loaded, beside that of the training part's own marginal; ``log_score`` in nats. ``bad_k`` is the share of data
    whose weights v have a Pareto k above 0.7. Columns constant in training are not a number. Discrete data are
    predicted as the cells they are in; where the mass of a cell is not known they are not, and ``attrs["absent"]`` says
    so under "cells".

    Args:
        run: a trained pair.
        data: what it was trained on; the first thousand test rows are used.
        samples: draws of z for each datum; at most a thousand are taken.

    Raises:
        Unknown: p(x_j | z) is not known, or its distribution function, mean or variance; or a datum overflows.
    """
    rows, samples = data.test.values[:ROWS], min(samples, DRAWS)
    scale = run.pair.scaling.scale
    discrete = data.spacing is not None and run.pair.card.base_measure == "density"
    x = torch.as_tensor(run.pair.scale(data.on_levels(rows) if discrete else rows), dtype=torch.float32)
    width = torch.as_tensor(data.spacing / scale, dtype=torch.float32) if data.spacing and discrete else None
    absent: dict[str, str] = {}

    def of_seed(model: Any, guide: Any) -> tuple[Any, ...]:
        inference.refuse_overflow(model, guide, x)
        known = _cells(model, guide, x, width, absent)
        leave_one_out, k = leave_one_feature_out(known, guide, x, samples)
        check = [reconstruction_check(known, guide, seen) for seen in (x, inference.predictive_draws(known, x, 1)[0])]
        return (leave_one_out, prior_predictive(known, x, samples)), k, np.stack(check)

    seeds = run.each_seed(of_seed, Stream.CALIBRATION)
    predictions, k, check = zip(*seeds, strict=True)
    pit, of_crps, log_density = (
        np.stack([[getattr(of_kind, name) for of_kind in of_seed] for of_seed in predictions])
        for name in Predictions._fields
    )
    varies = data.train_std > 0
    volume = np.log(scale) if run.pair.card.base_measure == "density" and not discrete else 0.0
    per_feature = ("chain", "kind", "feature")
    train = torch.as_tensor(run.pair.scale(data.train.values[:ROWS]), dtype=torch.float32)
    reference = crps(train[:, None], x).mean(0).numpy() * scale
    group = xarray.Dataset(
        {
            "pit": (("chain", "kind", "obs", "feature"), pit.astype(np.float32)),
            "coverage": (("chain", "kind", "level", "feature"), _coverage(pit)),
            "outside": (per_feature, _outside(pit)),
            "ece": (per_feature, _calibration_error(pit)),
            "crps": (per_feature, of_crps.mean(2) * scale),
            "crps_reference": ("feature", reference),
            "log_score": (per_feature, log_density.mean(2) - volume, {"units": "nats"}),
            "bad_k": (("chain", "feature"), np.where(np.isnan(k), np.nan, np.stack(k) > BAD_K).mean(1)),
        },
        coords={"kind": list(KINDS), "level": list(COVERAGES)},
    ).where(xarray.DataArray(varies, dims="feature"))
    at, low, high = band(len(x))
    group = group.assign(band_low=("point", low), band_high=("point", high)).assign_coords(point=at)
    group["reconstruction_check"] = (("chain", "source", "statistic"), np.stack(check))
    note = f"the first {len(x)} test rows, {samples} draws each; Pareto k of the first {len(k[0])}"
    return group.assign_coords(source=list(SOURCES), statistic=list(STATISTICS)).assign_attrs(note=note, absent=absent)


class Predictions(NamedTuple):
    """Of every feature of every datum, (N, D): PIT, CRPS in scaled units, and log density or mass."""

    pit: Tensor
    crps: Tensor
    log_density: Tensor


def leave_one_feature_out(model: Program, guide: Program, x: Tensor, samples: int) -> tuple[Predictions, Floats]:
    """Predictions of each feature from the others, for x (N, D), and the Pareto k of its weights for the first rows."""
    fitted = max(1, K_FITS // x.shape[1])
    exact = inference.draws_nothing(model, guide, x)
    predictions, k, done = [], [], 0
    for rows in inference.row_blocks(x, samples * max(x.shape[1], inference.width(model, x))):
        likelihood, given, rest = inference.weighted_likelihood(model, guide, rows, 1 if exact else samples)
        one = each_feature_given_the_others(likelihood, rows)
        batch = torch.Size((*given.shape, x.shape[1]))
        log_p = one.log_prob(rows).expand(batch).flatten(0, -3)
        log_w = (given + rest).flatten(0, -2)[..., None]  # (K, B, 1): a component summed over is a draw like any other
        without = log_w - log_p
        weights = without.softmax(0)
        below, upto = ((weights * end.expand(batch).flatten(0, -3)).sum(0) for end in distribution_function(one, rows))
        drawn = one.expand(batch).sample().flatten(0, -3)
        chosen = drawn.gather(0, _systematic(weights, CRPS_DRAWS))
        log_density = log_w.logsumexp(0) - without.logsumexp(0)
        predictions.append(Predictions(_randomised(below, upto), crps(chosen, rows), log_density))
        wanted = min(len(rows), max(0, fitted - done))
        if wanted:
            tails = without[:, :wanted].flatten(1).numpy()
            k.append((np.full(tails.shape[1], -np.inf) if exact else pareto_k(tails)).reshape(wanted, -1))
        done += len(rows)
    return Predictions(*(torch.cat(parts) for parts in zip(*predictions, strict=True))), np.concatenate(k)


def prior_predictive(model: Program, x: Tensor, samples: int) -> Predictions:
    """Predictions of each feature from nothing, for x (N, D), with the same draws of z for every datum."""
    trace = poutine.trace(poutine.uncondition(model)).get_trace(x.new_zeros(samples, x.shape[1]))
    one = each_feature(trace.nodes["x"]["fn"]).expand(torch.Size((samples, x.shape[1])))
    drawn = one.sample()[:, None]
    parts = []
    for rows in inference.row_blocks(x, samples * x.shape[1]):
        below, upto = (end.mean(1) for end in distribution_function(one, rows[:, None]))
        log_density = one.log_prob(rows[:, None]).logsumexp(1) - np.log(samples)
        parts.append(Predictions(_randomised(below, upto), crps(drawn, rows), log_density))
    return Predictions(*(torch.cat(of_rows) for of_rows in zip(*parts, strict=True)))


def reconstruction_check(model: Program, guide: Program, x: Tensor) -> Floats:
    """What p(x | z) with z ~ q(z | x) says of the x that it has seen, in the order of ``STATISTICS``, in scaled units.

    Bias and root mean square error of the mean (x - mu), the variance ((x - mu)^2 - sigma^2) and a draw (x' - x), over
    all data and features. A description and no calibration: beside it belongs the same for data simulated from the
    model. Stirn & Knowles (2020), https://arxiv.org/abs/2006.04910
    """
    parts = []
    for rows in inference.row_blocks(x, RECONSTRUCTION_DRAWS * inference.width(model, x)):
        with pyro.plate("samples", RECONSTRUCTION_DRAWS, dim=-2):
            q = poutine.trace(guide).get_trace(rows)
            fn = poutine.trace(poutine.replay(model, trace=q)).get_trace(rows).nodes["x"]["fn"]
        one = each_feature(fn).expand(torch.Size((RECONSTRUCTION_DRAWS, *rows.shape)))
        error = rows - ask(one, "mean")
        pit = _randomised(*(end.mean(0) for end in distribution_function(one, rows)))
        errors = torch.stack([error, error.square() - ask(one, "variance"), one.sample() - rows]).double()
        inside = ((pit - 0.5).abs() < 0.45).double()
        parts.append(torch.cat([errors.mean((1, 3)), errors.square().mean((1, 3)), inside.mean(1)[None]]))
    mean = torch.cat(parts, dim=1).mean(1)
    bias, rmse = mean[:3], mean[3:6].sqrt()
    return torch.cat([torch.stack([bias, rmse], dim=1).flatten(), mean[6:]]).numpy()


# -- one feature at a time ---------------------------------------------------------------------------------------------


@singledispatch
def each_feature_given_the_others(likelihood: dist.TorchDistribution, x: Tensor) -> Any:  # noqa: ARG001
    """The distribution of each feature given the latents and the other features of x: batch shape (..., D)."""
    raise Unknown(f"what a feature is given the others under {name_of(likelihood)} is not known")


@each_feature_given_the_others.register
def _(likelihood: dist.Independent, x: Tensor) -> Any:  # noqa: ARG001
    return likelihood.base_dist


@each_feature_given_the_others.register(dist.MultivariateNormal)
@each_feature_given_the_others.register(dist.LowRankMultivariateNormal)
def _(likelihood: Any, x: Tensor) -> Any:
    """With precision P, x_j given the others has variance 1 / P_jj and mean x_j - (P (x - mu))_j / P_jj."""
    precision = likelihood.precision_matrix
    diagonal = precision.diagonal(dim1=-2, dim2=-1)
    residual = (precision @ (x - likelihood.loc)[..., None])[..., 0]
    return dist.Normal(x - residual / diagonal, diagonal.rsqrt(), validate_args=False)


@singledispatch
def each_feature(likelihood: dist.TorchDistribution) -> Any:
    """The distribution of each feature given the latents alone: batch shape (..., D)."""
    raise Unknown(f"the distribution of one feature under {name_of(likelihood)} is not known")


@each_feature.register
def _(likelihood: dist.Independent) -> Any:
    return likelihood.base_dist


@each_feature.register(dist.MultivariateNormal)
@each_feature.register(dist.LowRankMultivariateNormal)
def _(likelihood: Any) -> Any:
    return dist.Normal(likelihood.loc, likelihood.variance.sqrt(), validate_args=False)


@singledispatch
def distribution_function(one: Any, x: Tensor) -> tuple[Tensor, Tensor]:
    """P(X < x) and P(X <= x) of one variable, elementwise.

    Register a function for a distribution that torch does not know this of.
    """
    if ask(one, "support").is_discrete:  # P(X <= x) would not tell the other
        raise Unknown(f"the distribution function of {name_of(one)}, which is discrete, is not known")
    upto = ask(one, "cdf", x)
    return upto, upto


@distribution_function.register
def _(one: dist.Bernoulli, x: Tensor) -> tuple[Tensor, Tensor]:
    return x * (1 - one.probs), torch.where(x > 0, 1.0, 1 - one.probs)


@distribution_function.register
def _(one: Binned, x: Tensor) -> tuple[Tensor, Tensor]:
    low, high = one.edges(x)
    return one.base.cdf(low), one.base.cdf(high)


@distribution_function.register
def _(one: Levels, x: Tensor) -> tuple[Tensor, Tensor]:
    shape = torch.broadcast_shapes(x.shape, one.batch_shape)
    mass = one.logits.exp().expand(*shape, -1)
    upto = mass.cumsum(-1)
    number = one.number(x).expand(shape)[..., None]
    return (upto - mass).gather(-1, number)[..., 0], upto.gather(-1, number)[..., 0]


# -- what is made of predictions ---------------------------------------------------------------------------------------


def crps(draws: Tensor, x: Tensor) -> Tensor:
    r"""The continuous ranked probability score of a predictive distribution known by M draws, least where it is best.

    .. math:: \mathrm{CRPS}(F, x) = E |X - x| - \tfrac{1}{2} E |X - X'|

    without bias for any M. Gneiting & Raftery (2007), https://doi.org/10.1198/016214506000001437

    >>> float(crps(torch.tensor([1.0, 3.0]), torch.tensor(2.0)))
    0.0

    Args:
        draws: shape (M, ...).
        x: shape (...), broadcast against the draws.
    """
    count = len(draws)
    rank = torch.arange(1 - count, count, 2, dtype=draws.dtype).reshape(-1, *[1] * (draws.dim() - 1))
    spread = (rank * draws.sort(0).values).sum(0) / (count * (count - 1))
    return (draws - x).abs().mean(0) - spread


def _cells(model: Any, guide: Any, x: Tensor, width: Tensor | None, absent: dict[str, str]) -> Any:
    """The model as one of the cells of width w, if it is asked for and known; if it is not, notes why."""
    if width is None:
        return model
    cells = inference.Cells(model, width)
    try:
        inference.weighted_likelihood(cells, guide, x[:1], 1)
    except Unknown as reason:
        absent["cells"] = str(reason)
        return model
    return cells


def _randomised(below: Tensor, upto: Tensor) -> Tensor:
    """P(X < x) + u P(X = x) for a uniform u, uniform itself if x is distributed like X."""
    return below + torch.rand_like(upto) * (upto - below)


def _systematic(weights: Tensor, count: int) -> Tensor:
    """Draws from weights (K, ...) that sum to one, as indices (count, ...): systematic resampling."""
    cumulative = weights.movedim(0, -1).cumsum(-1)
    at = (torch.arange(count) + torch.rand(*cumulative.shape[:-1], 1)) / count
    return torch.searchsorted(cumulative.contiguous(), at).clamp(max=len(weights) - 1).movedim(-1, 0)


def _coverage(pit: Floats) -> Floats:
    """Share of data inside central intervals, (chain, kind, level, feature)."""
    return np.stack([(np.abs(pit - 0.5) < level / 2).mean(2) for level in COVERAGES], axis=2)


def _calibration_error(pit: Floats) -> Floats:
    """Sum over bins of (1 / bins - share)^2, (chain, kind, feature)."""
    number = np.minimum(np.nan_to_num(pit) * BINS, BINS - 1).astype(int)
    shares = np.stack([(number == of_bin).mean(2) for of_bin in range(BINS)])
    error: Floats = np.square(1 / BINS - shares).sum(0)
    return error


def _outside(pit: Floats) -> Floats:
    """1 where the ECDF of a feature leaves the simultaneous band, else 0, (chain, kind, feature)."""
    at, low, high = band(pit.shape[2])
    ecdf = np.apply_along_axis(np.searchsorted, 2, np.sort(pit, axis=2), at, side="right") / pit.shape[2]
    beyond = np.maximum(low[:, None] - (ecdf - at[:, None]), ecdf - at[:, None] - high[:, None]) > ROUNDING
    outside: Floats = beyond.any(2).astype(float)
    return outside


@lru_cache(maxsize=16)
def band(count: int) -> tuple[Floats, Floats, Floats]:
    """Points of [0, 1], and the limits of ECDF minus uniform that 95 % of samples of ``count`` keep at all of them.

    Säilynoja, Bürkner & Vehtari (2022), Graphical Test for Discrete Uniformity, https://arxiv.org/abs/2103.10522
    """
    # Of our own: that of ArviZ gives no tail probability to an ECDF of 0, and comes out narrow.
    stretches = max(min(count, POINTS), 2)
    at = np.arange(1, stretches) / stretches
    k = np.arange(count + 1)[:, None]
    tail = np.minimum(binom.cdf(k, count, at), binom.sf(k - 1, count, at))
    shares = np.full(stretches, 1 / stretches)
    samples = np.random.default_rng(0).multinomial(count, shares, SIMULATIONS).cumsum(1)[:, :-1]
    kept = tail >= np.quantile(tail[samples, np.arange(len(at))].min(1), 1 - BAND)
    low, high = kept.argmax(0) / count - at, (count - kept[::-1].argmax(0)) / count - at
    return np.r_[0.0, at, 1.0], np.r_[0.0, low, 0.0], np.r_[0.0, high, 0.0]
