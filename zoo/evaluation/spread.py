"""How far a datum narrows its latents down, what they look like together, and what a guide's form and encoder cost."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import singledispatch
from typing import Any, NamedTuple

import pyro
import pyro.distributions as dist
import torch
import xarray
from pyro import poutine
from torch import Tensor

from zoo import inference
from zoo.answers import ask, name_of
from zoo.context import Stream, random_stream, seeded
from zoo.errors import Unknown
from zoo.latents import CATEGORY, REAL, Latents, latents, log_density
from zoo.objectives import Program
from zoo.runs import Run

__all__ = [
    "Gaps",
    "Normals",
    "Site",
    "aggregate_mmd",
    "gaps",
    "information",
    "normals",
    "site",
    "spread",
    "squared_mmd",
    "total",
]

OUTER_DRAWS = 32  # of what a latent's own distribution depends on
MMD_ROWS, MMD_SPLITS, MMD_LEVEL = 1000, 500, 0.95
PRIOR_ROWS = 2 * MMD_ROWS
# On digits five times the steps and twice the draws raised the best ELBO by 0.01 nats.
GAP_ROWS, GAP_STEPS, GAP_RATE, GAP_DRAWS, ELBO_DRAWS = 64, 200, 0.1, 16, 1000
NATS = {"units": "nats per datum"}


def spread(run: Run, x: Tensor, heldout: xarray.Dataset) -> xarray.Dataset:
    """The group ``spread``: of latents z what :func:`_of_latents` says, of components what :func:`_of_components` says.

    ``attrs["absent"]`` says under "gaps" why they are not there.

    Args:
        run: a trained pair.
        x: test data in scaled units, shape (N, D).
        heldout: the group ``heldout``, whose ``log_evidence`` the gaps are measured from.

    Raises:
        Unknown: the pair has neither a latent z nor a component that is categorical.
    """
    names, mixture = run.each_seed(
        lambda _, guide: (latents(guide, x), inference.responsibility(guide, x[:1]) is not None), Stream.POSTERIOR, 1
    )[0]
    if REAL not in names.names and not mixture:
        raise Unknown(f"the spread is known of latents {REAL} and of components, and not of {names}")
    parts = [_of_latents(run, x)] if REAL in names.names else []
    parts += [_of_components(run, x)] if mixture else []
    absent = {}
    try:
        parts.append(_gaps(run, x[:GAP_ROWS], heldout, names))
    except Unknown as reason:
        absent["gaps"] = str(reason)
    return xarray.merge(parts, combine_attrs="no_conflicts").assign_attrs(absent=absent)


# -- latents -----------------------------------------------------------------------------------------------------------


def _of_latents(run: Run, x: Tensor) -> xarray.Dataset:
    r"""Contraction, active units and the aggregated posterior against the prior.

    .. math:: \text{contraction}_j = 1 - \frac{E_x \mathrm{Var}(z_j \mid x)}{\mathrm{Var}(z_j)}, \qquad
              \text{mean variance}_j = \mathrm{Var}_x \, E[z_j \mid x]

    A unit whose mean varies by more than 0.01 is active (Burda, Grosse & Salakhutdinov 2016,
    https://arxiv.org/abs/1509.00519). Were the guide exact and the model true, the two would add up to one. Where the
    mean and variance of z given x are had from draws, what the draws add to the variance of the means is taken off.
    """

    def of_seed(model: Any, guide: Any) -> tuple[Tensor, ...]:
        prior = site(poutine.uncondition(model), x.new_zeros(PRIOR_ROWS, x.shape[-1]), 1)
        posterior = site(guide, x, OUTER_DRAWS)
        _, prior_variance = total(prior.mean[0], prior.variance[0])
        mean, variance = total(posterior.mean, posterior.variance)
        contraction = 1 - variance.mean(0) / prior_variance
        of_draws = posterior.mean.var(0).mean(0) / OUTER_DRAWS  # 0 where each draw says the same
        return (
            contraction,
            (mean.var(0, correction=min(1, len(mean) - 1)) - of_draws).clamp(min=0),
            *aggregate_mmd(posterior.value[0, :MMD_ROWS], prior.value[0]),
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
        attrs={"mmd_note": f"one draw for each of the first {min(len(x), MMD_ROWS)} test rows"},
    )


class Site(NamedTuple):
    """A latent given what is drawn before it: draws, means and variances, all (K, B, L)."""

    value: Tensor
    mean: Tensor
    variance: Tensor


def site(program: Program, x: Tensor, draws: int) -> Site:
    """Site z of a program on x, shape (B, D), a block of rows at a time."""
    blocks = [
        _site_block(program, rows, draws) for rows in inference.row_blocks(x, draws * inference.width(program, x))
    ]
    return Site(*(torch.cat(parts, dim=1) for parts in zip(*blocks, strict=True)))


def _site_block(program: Program, x: Tensor, draws: int) -> Site:
    with pyro.plate("samples", draws, dim=-2):
        node = poutine.trace(program).get_trace(x).nodes[REAL]
    value: Tensor = node["value"]
    try:
        mean, variance = ask(node["fn"], "mean"), ask(node["fn"], "variance")
    except Unknown:  # then all of the variance is between draws
        mean, variance = value, torch.zeros_like(value)
    return Site(value, mean.expand_as(value), variance.expand_as(value))


def total(mean: Tensor, variance: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance over the first axis too: Var z = E Var(z | u) + Var E(z | u)."""
    return mean.mean(0), variance.mean(0) + mean.var(0)


def aggregate_mmd(posterior: Tensor, prior: Tensor, splits: int = MMD_SPLITS) -> tuple[Tensor, Tensor]:
    r"""Squared MMD between N posterior and N prior draws, and what it is below 95 % of the time for prior draws alone.

    .. math:: \mathrm{MMD}^2 = E k(z, z') + E k(u, u') - 2 E k(z, u), \qquad
              k(z, u) = \exp\left(-\frac{|z - u|^2}{2 \ell^2}\right)

    unbiased, with l the median distance between prior draws, so that it is one kernel for all that is compared under
    one prior. The quantile is over random halves of 2N prior draws: halves of one sample cost one product of matrices.

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
    """The mixture's weights, and how surely the data are told apart: the place of contraction."""

    def of_seed(model: Any, guide: Any) -> tuple[Tensor, Tensor]:
        weight = poutine.trace(model).get_trace(x[:1]).nodes[CATEGORY]["fn"].probs.double().flatten()
        responsibility = inference.responsibility(guide, x)
        assert responsibility is not None  # or there would be nothing to say
        return information(responsibility, weight), weight

    columns = zip(*run.each_seed(of_seed, Stream.POSTERIOR, 1), strict=True)
    certainty, weight = (torch.stack(column).numpy() for column in columns)
    return xarray.Dataset(
        {"certainty": ("chain", certainty), "component_weight": (("chain", "component"), weight)},
    )


def information(responsibility: Tensor, weight: Tensor) -> Tensor:
    r"""Share of the entropy of the component that the datum takes away; not a number for a single component.

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


# -- the inference gap -------------------------------------------------------------------------------------------------


def _gaps(run: Run, x: Tensor, heldout: xarray.Dataset, names: Latents) -> xarray.Dataset:
    """The split of log p(x) - ELBO for the first test rows."""
    if names.drawn != (REAL,):
        raise Unknown(f"the gaps of a guide are known for one latent {REAL}, and this one has {names}")
    columns = zip(
        *run.each_seed(lambda model, guide: gaps(model, guide, x, GAP_STEPS, ELBO_DRAWS), Stream.POSTERIOR, 2),
        strict=True,
    )
    elbo, optimal = (
        torch.stack(column).numpy() - run.pair.view.log_volumes(x.numpy()[:GAP_ROWS]) for column in columns
    )
    evidence = heldout["log_evidence"].values[:, : len(x)]
    of_datum = {
        "elbo": elbo,
        "elbo_optimal": optimal,
        "approximation_gap": evidence - optimal,
        "amortization_gap": optimal - elbo,
    }
    return xarray.Dataset(
        {name: (("chain", "obs"), values, NATS) for name, values in of_datum.items()},
        attrs={"gap_note": f"the first {len(x)} test rows, {GAP_STEPS} steps of Adam, {ELBO_DRAWS} draws"},
    )


class Gaps(NamedTuple):
    """ELBO of the guide and of the best member of its family, datum by datum, both (B,)."""

    elbo: Tensor
    optimal: Tensor


class Normals(NamedTuple):
    """N(mean, factor factor') for each datum: mean (B, L), factor (B, L, L), and ``free``, (L, L).

    ``free`` is 1 where the family lets the factor be other than zero: on the diagonal, or below it too.
    """

    mean: Tensor
    factor: Tensor
    free: Tensor


@singledispatch
def normals(fn: dist.TorchDistribution) -> Normals:
    """A guide's distribution as normals, whose family says what else the guide might have been for a datum."""
    raise Unknown(f"the best member of the family of {name_of(fn)} is not known")


@normals.register
def _(fn: dist.Independent) -> Normals:
    if not isinstance(fn.base_dist, dist.Normal):
        raise Unknown(f"the best member of the family of {name_of(fn)} is not known")
    return Normals(fn.mean, torch.diag_embed(fn.stddev), torch.eye(fn.mean.shape[-1]).to(fn.mean))


@normals.register
def _(fn: dist.MultivariateNormal) -> Normals:
    return Normals(fn.mean, fn.scale_tril, torch.ones_like(fn.scale_tril[0]).tril())


def gaps(model: Program, guide: Program, x: Tensor, steps: int = GAP_STEPS, draws: int = ELBO_DRAWS) -> Gaps:
    r"""The ELBO of the guide, and the highest that a distribution of its family reaches for each datum.

    .. math:: \log p(x) - \mathrm{ELBO}(q_\phi(\cdot \mid x)) =
              \underbrace{\log p(x) - \mathrm{ELBO}(q^*)}_\text{approximation} +
              \underbrace{\mathrm{ELBO}(q^*) - \mathrm{ELBO}(q_\phi(\cdot \mid x))}_\text{amortisation}, \qquad
              q^* = \arg\max_{q \in Q} \mathrm{ELBO}(q)

    q* is sought by Adam from the guide's own q. In units as scaled; model and guide stay as they are.

    Cremer, Li & Duvenaud (2018), Inference Suboptimality in Variational Autoencoders, https://arxiv.org/abs/1801.03558

    Args:
        model: p(x, z) with one latent z, (L,).
        guide: q(z | x), normal.
        x: data, shape (B, D).
        steps: of Adam.
        draws: for the two ELBOs at the end, the same noise for both.

    Raises:
        Unknown: the guide is not normal.
    """
    blocks = inference.row_blocks(x, GAP_DRAWS * inference.width(model, x))
    return Gaps(
        *(torch.cat(parts) for parts in zip(*(_gaps_of(model, guide, b, steps, draws) for b in blocks), strict=True))
    )


def _gaps_of(model: Program, guide: Program, x: Tensor, steps: int, draws: int) -> Gaps:
    start = normals(poutine.trace(guide).get_trace(x).nodes[REAL]["fn"])
    best = _optimised(model, x, start, steps)
    noise = random_stream(int(torch.randint(2**31, ())), Stream.POSTERIOR)
    elbo, optimal = (_elbo(model, x, q, draws, noise) for q in (start, best))
    # both are of the family and scored on the same noise, fresh to both: what Adam lost at an optimum is not a gap
    return Gaps(elbo, optimal.maximum(elbo))


def _optimised(model: Program, x: Tensor, start: Normals, steps: int) -> Normals:
    """The best member of the family for each datum, relative to where it starts, so that one rate suits all."""
    shift = torch.zeros_like(start.mean).requires_grad_()
    change = torch.zeros_like(start.factor).requires_grad_()  # of the factor, the diagonal in logs
    optimiser = torch.optim.Adam([shift, change], lr=GAP_RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)

    def current() -> Normals:
        diagonal = torch.diag_embed(change.diagonal(dim1=-2, dim2=-1).exp())
        mean = start.mean + (start.factor @ shift[..., None])[..., 0]
        return start._replace(mean=mean, factor=start.factor @ (diagonal + (change * start.free).tril(-1)))

    with torch.enable_grad():
        for _ in range(steps):
            noise = torch.randn(GAP_DRAWS // 2, *shift.shape, dtype=x.dtype)
            loss = -_log_weights(model, x, current(), torch.cat([noise, -noise])).mean(0).sum()
            shift.grad, change.grad = torch.autograd.grad(loss, (shift, change))
            optimiser.step()
            schedule.step()
    with torch.no_grad():
        return current()


def _elbo(model: Program, x: Tensor, q: Normals, draws: int, seed: int) -> Tensor:
    """The ELBO of each datum over so many draws, in double precision, a few at a time."""
    with seeded(seed):
        sums = [
            _log_weights(model, x, q, torch.randn(size, *q.mean.shape, dtype=x.dtype)).double().sum(0)
            for size in _chunks(draws, len(x) * inference.width(model, x))
        ]
    return torch.stack(sums).sum(0) / draws


def _chunks(draws: int, numbers_per_draw: int) -> Iterator[int]:
    size = max(1, inference.CHUNK // numbers_per_draw)
    for start in range(0, draws, size):
        yield min(size, draws - start)


def _log_weights(model: Program, x: Tensor, q: Normals, noise: Tensor) -> Tensor:
    """Log p(x, z) - log q(z), shape (K, B), at z = mean + factor noise for standard normal noise (K, B, L)."""
    z = q.mean + torch.einsum("bij,kbj->kbi", q.factor, noise)
    of_noise = -(noise.square() + math.log(2 * math.pi)).sum(-1) / 2
    return log_density(model, x, {REAL: z}) - of_noise + q.factor.diagonal(dim1=-2, dim2=-1).log().sum(-1)
