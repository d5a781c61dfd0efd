"""How much a datum narrows down its latents, their aggregate, and the cost of a guide's family and encoder."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import pyro
import torch
import xarray
from pyro import poutine
from torch import Tensor

from zoo import inference
from zoo.answers import ask
from zoo.context import Stream
from zoo.errors import Unknown
from zoo.evaluation.inference_gaps import inference_gaps
from zoo.latents import CATEGORY, REAL, latents
from zoo.objectives import Program
from zoo.runs import Run

__all__ = [
    "Site",
    "aggregate_mmd",
    "information",
    "site_of_prior",
    "spread",
    "squared_mmd",
    "total",
]

OUTER_DRAWS = 32  # draws of whatever a latent's distribution depends on
MMD_ROWS, MMD_SPLITS, MMD_LEVEL = 1000, 500, 0.95
PRIOR_ROWS = 2 * MMD_ROWS


def spread(run: Run, x: Tensor, heldout: xarray.Dataset) -> xarray.Dataset:
    """The group ``spread``: for latents z see :func:`_of_latents`, for components see :func:`_of_components`.

    ``attrs["absent"]`` says under "gaps" why gaps are missing.

    Args:
        run: a trained pair.
        x: test data in scaled units, shape (N, D).
        heldout: the group ``heldout``, whose ``log_evidence`` the gaps are measured from.

    Raises:
        Unknown: the pair has neither a latent z nor a categorical component.
    """
    names, mixture = run.each_seed(
        lambda _, guide: (latents(guide, x), inference.responsibility(guide, x[:1]) is not None), Stream.POSTERIOR, 1
    )[0]
    if REAL not in names.names and not mixture:
        raise Unknown(f"the spread is known for latents {REAL} and components, not for {names}")
    parts = [_of_latents(run, x)] if REAL in names.names else []
    parts += [_of_components(run, x)] if mixture else []
    absent = {}
    try:
        parts.append(inference_gaps(run, x, heldout))
    except Unknown as reason:
        absent["gaps"] = str(reason)
    return xarray.merge(parts, combine_attrs="no_conflicts").assign_attrs(absent=absent)


# -- latents -----------------------------------------------------------------------------------------------------------


def _of_latents(run: Run, x: Tensor) -> xarray.Dataset:
    r"""Contraction, active units and the aggregated posterior against the prior.

    .. math:: \text{contraction}_j = 1 - \frac{E_x \mathrm{Var}(z_j \mid x)}{\mathrm{Var}(z_j)}, \qquad
              \text{mean variance}_j = \mathrm{Var}_x \, E[z_j \mid x]

    A unit whose mean varies by more than 0.01 is active (Burda, Grosse & Salakhutdinov 2016,
    https://arxiv.org/abs/1509.00519). If the guide were exact and the model true, the variance of the mean would equal
    the contraction under a unit prior. If the mean and variance of z given x come from draws, the noise that the draws
    add to the variance of the means is subtracted.
    """

    def of_seed(model: Any, guide: Any) -> tuple[Tensor, ...]:
        prior = site_of_prior(model, x.new_zeros(PRIOR_ROWS, x.shape[-1]))
        posterior = _summary(guide, x, OUTER_DRAWS)
        _, prior_variance = total(prior.mean[0], prior.variance[0])
        contraction = 1 - posterior.variance.mean(0) / prior_variance
        of_draws = posterior.of_draws.mean(0) / OUTER_DRAWS  # 0 if all draws agree
        return (
            contraction,
            (posterior.mean.var(0, correction=min(1, len(x) - 1)) - of_draws).clamp(min=0),
            *aggregate_mmd(posterior.value[:MMD_ROWS], prior.value[0]),
        )

    columns = zip(*run.each_seed(of_seed, Stream.POSTERIOR, 1), strict=True)
    contraction, mean_variance, mmd, null = (torch.stack(column).numpy() for column in columns)
    return xarray.Dataset(
        {
            "contraction": (("chain", "latent"), contraction),
            "mean_variance": (("chain", "latent"), mean_variance),
            "aggregate_mmd": ("chain", mmd),
            "aggregate_mmd_null": ("chain", null),
        },
        attrs={"mmd_note": f"one draw for each of the first {min(len(x), MMD_ROWS)} scored test rows"},
    )


class Site(NamedTuple):
    """A latent given earlier draws: draws, means and variances, all (K, B, L)."""

    value: Tensor
    mean: Tensor
    variance: Tensor


class Summary(NamedTuple):
    """A latent of each datum, (N, L): a draw, mean and variance, and how much the mean varies over draws."""

    value: Tensor
    mean: Tensor
    variance: Tensor
    of_draws: Tensor


def _summary(program: Program, x: Tensor, draws: int) -> Summary:
    """Moments of site z of a program on x, shape (N, D), by blocks of rows, so that not all draws are kept at once."""
    blocks = [
        Summary(of.value[0], *total(of.mean, of.variance), of.mean.var(0)) for of in _site_blocks(program, x, draws)
    ]
    return Summary(*(torch.cat(parts) for parts in zip(*blocks, strict=True)))


def site_of_prior(model: Program, blank: Tensor) -> Site:
    """A draw of site z from the prior for each row of a tensor, (B, D)."""
    rows = inference.row_blocks(blank, inference.width(model, blank))  # of the model: what it decodes to counts, too
    blocks = [_site_block(poutine.uncondition(model), some, 1) for some in rows]
    return Site(*(torch.cat(parts, dim=1) for parts in zip(*blocks, strict=True)))


def _site_blocks(program: Program, x: Tensor, draws: int) -> Iterator[Site]:
    """Site z of a program on x, shape (B, D), a block of rows at a time."""
    return (_site_block(program, rows, draws) for rows in inference.row_blocks(x, draws * inference.width(program, x)))


def _site_block(program: Program, x: Tensor, draws: int) -> Site:
    with pyro.plate("samples", draws, dim=-2):
        node = poutine.trace(program).get_trace(x).nodes[REAL]
    value: Tensor = node["value"]
    try:
        mean, variance = ask(node["fn"], "mean"), ask(node["fn"], "variance")
    except Unknown:  # then all the variance is between draws
        mean, variance = value, torch.zeros_like(value)
    return Site(value, mean.expand_as(value), variance.expand_as(value))


def total(mean: Tensor, variance: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance including the first axis: Var z = E Var(z | u) + Var E(z | u)."""
    return mean.mean(0), variance.mean(0) + mean.var(0)


def aggregate_mmd(posterior: Tensor, prior: Tensor, splits: int = MMD_SPLITS) -> tuple[Tensor, Tensor]:
    r"""Squared MMD between N posterior and N prior draws, and its 95 % quantile for two sets of prior draws.

    .. math:: \mathrm{MMD}^2 = E k(z, z') + E k(u, u') - 2 E k(z, u), \qquad
              k(z, u) = \exp\left(-\frac{|z - u|^2}{2 \ell^2}\right)

    unbiased, with l the median distance between prior draws, so all comparisons under one prior use the same kernel.
    The quantile is over random halves of 2N prior draws, which need only one matrix product.

    Gretton et al. (2012), A Kernel Two-Sample Test, https://jmlr.org/papers/v13/gretton12a.html

    Args:
        posterior: one draw of q(z | x_i) for each datum, shape (N, L).
        prior: at least 2N draws from p(z), shape (M, L).
        splits: random halves.
    """
    n = len(posterior)
    prior = prior[: 2 * n].double()
    length = torch.nn.functional.pdist(prior).median()
    kernel = _kernel(prior, prior, length).fill_diagonal_(0)
    sides = torch.ones(splits, 2 * n, dtype=torch.float64)
    sides.scatter_(1, torch.rand(splits, 2 * n).argsort(1)[:, :n], -1.0)
    total, contrast = kernel.sum(), ((sides @ kernel) * sides).sum(1)
    within, between = (total + contrast) / 2, (total - contrast) / 2
    null = within / (n * (n - 1)) - between / n**2
    return squared_mmd(posterior.double(), prior[:n], length), null.quantile(MMD_LEVEL)


def squared_mmd(z: Tensor, u: Tensor, length: Tensor) -> Tensor:
    """The unbiased estimate of the squared MMD between samples (N, L) and (M, L), of a Gaussian kernel.

    >>> z = torch.tensor([[0.0], [0.0]])
    >>> float(squared_mmd(z, z + 30, torch.tensor(1.0)))
    2.0
    """

    def mean_of_pairs(a: Tensor) -> Tensor:
        return _kernel(a, a, length).fill_diagonal_(0).sum() / (len(a) * (len(a) - 1))

    return mean_of_pairs(z) + mean_of_pairs(u) - 2 * _kernel(z, u, length).mean()


def _kernel(z: Tensor, u: Tensor, length: Tensor) -> Tensor:
    return (torch.cdist(z, u).square() / (-2 * length**2)).exp()


# -- components --------------------------------------------------------------------------------------------------------


def _of_components(run: Run, x: Tensor) -> xarray.Dataset:
    """The mixture's weights, and how surely the data are assigned, in place of contraction."""

    def of_seed(model: Any, guide: Any) -> tuple[Tensor, Tensor]:
        blank = x.new_zeros(PRIOR_ROWS, x.shape[-1])  # a component may depend on z: its weight is a mean over the prior
        prior = poutine.trace(poutine.uncondition(model))
        of_rows = [
            prior.get_trace(rows).nodes[CATEGORY]["fn"].probs.expand(len(rows), -1)
            for rows in inference.row_blocks(blank, inference.width(model, blank))
        ]
        weight = torch.cat(of_rows).double().mean(0)
        certainty = torch.zeros((), dtype=torch.float64)
        for rows in inference.row_blocks(x, len(weight) * inference.width(guide, x)):
            responsibility = inference.responsibility(guide, rows)
            assert responsibility is not None  # otherwise there would be no group
            certainty += information(responsibility, weight) * len(rows) / len(x)
        return certainty, weight

    columns = zip(*run.each_seed(of_seed, Stream.POSTERIOR, 1), strict=True)
    certainty, weight = (torch.stack(column).numpy() for column in columns)
    return xarray.Dataset(
        {"certainty": ("chain", certainty), "component_weight": (("chain", "component"), weight)},
    )


def information(responsibility: Tensor, weight: Tensor) -> Tensor:
    r"""Share of the component's entropy that the datum removes; NaN for a single component.

    .. math:: 1 - \frac{E_x H(c \mid x)}{H(c)}, \qquad H(c) = - \sum_c \pi_c \log \pi_c

    Args:
        responsibility: p(c | x_i), shape (N, C).
        weight: pi, shape (C,).

    >>> float(information(torch.tensor([[1.0, 0.0], [0.5, 0.5]]), torch.tensor([0.5, 0.5])))
    0.5
    """
    given = torch.special.entr(responsibility.double()).sum(-1).mean()
    certainty: Tensor = 1 - given / torch.special.entr(weight.double()).sum()
    return certainty
