"""The conformance kit: checks that every pair must pass, whoever wrote it.

>>> import zoo
>>> for answer in zoo.testing.check_pair("gmm-constrained", covariance="tied"):
...     print(answer)
cells: the mass of a cell under MultivariateNormal is not known
"""

from __future__ import annotations

import math
import tempfile
import traceback
import typing
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pyro import poutine
from pyro.infer import Trace_ELBO, TraceEnum_ELBO
from pyro.poutine.messenger import Messenger
from torch import Tensor

from zoo import inference
from zoo.answers import name_of, of_values
from zoo.catalogue import Pair, card, create, list_pairs, options_of
from zoo.context import pyro_context, seeded
from zoo.data import Data
from zoo.densities import (
    cells,
    column_scale,
    columns_log_prob,
    distribution_function,
    each_feature,
    each_feature_given_the_others,
    each_missing,
    moments,
    observed_log_prob,
)
from zoo.engine import BETAS, Engine, Mode, Replica
from zoo.errors import OptionError, Unknown, ZooError
from zoo.fitting import fit
from zoo.lenses import Cells, Dequantized
from zoo.names import Name
from zoo.noise import Tape
from zoo.objectives import ELBO, latent_sites, observed_sites, refuse_other_data, refuse_other_latents
from zoo.parts import GUIDES, OBJECTIVES, PRIORS, Parts
from zoo.runs import load_run
from zoo.supports import MIXED, SUPPORTS, Support, as_modelled
from zoo.tree import check_tree
from zoo.wellposed import witness

DRAWS, UPHILL = 4096, 10  # draws that show where a likelihood's mass is; steps towards its peak
LARGEST_COUNT = 10_000
WEIGHTS = 1000  # importance weights per datum, for each of two estimates of its evidence
ADDED_UP, HALVINGS, JUMPS = 1e-4, 20, 32  # how far from 1 a density may be; rounds, and panels halved in each
CELLS, REPEATS = 500, 64  # cells across all draws; repeats of a noisy sum

__all__ = [
    "ANSWERS",
    "CHECKS",
    "Subject",
    "check_pair",
    "check_tree",
    "example_data",
    "guides_of",
    "priors_of",
    "unknown_answers",
    "variants",
]


@dataclass(frozen=True, eq=False)
class Subject:
    """A pair under test, in double precision, with data it takes and a batch x of them, shape (B, D)."""

    pair: Pair
    data: Data
    x: Tensor

    def parameters(self) -> dict[str, Tensor]:
        """Every parameter of model and guide once."""
        return dict(Replica(self.pair.model, self.pair.guide).named_parameters())


def check_pair(name: str, data: Data | None = None, **options: Any) -> list[str]:
    """Run every check on a pair of the catalogue, and find out which questions its likelihood cannot answer.

    Args:
        name: the pair; add ``:GUIDE`` for a guide other than its default.
        data: data it takes; by default a small simulated set of its support.
        **options: options of the pair.

    Returns:
        The unknown answers, each with the reason: scores and reports will lack them. All checks passed.

    Raises:
        AssertionError: a check failed; the message says which one, what was expected and what was found.
    """
    subject = make_subject(name, data, **options)
    for check, run in CHECKS.items():
        try:
            run(subject)
        except Exception as error:  # a program that breaks under a check fails it
            raise AssertionError(f"{name} fails the check {check!r}: {_told(error)}") from error
    return [f"{answer}: {reason}" for answer, reason in unknown_answers(subject).items()]


def unknown_answers(subject: Subject, answers: Iterable[str] | None = None) -> dict[str, str]:
    """Which of :data:`ANSWERS`, or of some of them, a pair cannot give, and why."""
    unknown = {}
    with _drawing(), torch.no_grad():
        fn = poutine.trace(subject.pair.model).get_trace(subject.x).nodes["x"]["fn"]
        for answer in ANSWERS if answers is None else answers:
            try:
                ANSWERS[answer](subject, fn)
            except Unknown as reason:
                unknown[answer] = str(reason)
    return unknown


def _ask_scale(subject: Subject, fn: Any) -> None:
    dense = torch.as_tensor(subject.pair.view.dense)
    if column_scale(fn)[..., dense].isnan().any():
        raise Unknown(f"the scale of a column under {name_of(fn)} is not known")


def _ask_cells(subject: Subject, fn: Any) -> None:
    dense = torch.as_tensor(subject.pair.view.dense)
    cells(fn, torch.where(dense, 1.0, torch.nan).to(subject.x))


def _ask_one(one: Any, x: Tensor) -> None:
    """Ask for everything about single columns, also for several draws of z at once."""
    many = one.expand(torch.Size((2, *torch.broadcast_shapes(one.batch_shape, x.shape))))
    below, upto = distribution_function(many, x)
    assert ((below >= 0) & (below <= upto + 1e-6) & (upto <= 1 + 1e-6)).all(), "P(X < x) is more than P(X <= x), or 1"
    mean, variance = moments(many)
    for answer in (many.log_prob(x), many.sample(), mean, variance):
        assert answer.shape == many.batch_shape, f"an answer has shape {answer.shape}, not {many.batch_shape}"


def _ask_witness(subject: Subject, _: Any) -> None:
    x = subject.data.train.values[:3]
    try:
        witness(subject.pair, x, sharpness=(1.0, 2.0, 4.0))
    except OptionError as reason:
        raise Unknown(str(reason)) from reason


ANSWERS: dict[str, Callable[[Subject, Any], object]] = {
    "scale": _ask_scale,  # without it no watch
    "cells": _ask_cells,  # masses only by dequantisation
    "columns": lambda s, fn: columns_log_prob(fn, s.x, torch.tensor([0])),  # no evidence from the columns that vary
    "marginals": lambda s, fn: _ask_one(each_feature(fn), s.x),  # no check of the prior's predictions
    "conditionals": lambda s, fn: _ask_one(each_feature_given_the_others(fn, s.x), s.x),  # no calibration
    "gaps": lambda s, fn: observed_log_prob(fn, s.x, s.x > s.x[0]),  # no data with entries missing
    "imputation": lambda s, fn: each_missing(fn, torch.where(s.x > s.x[0], s.x, torch.nan)),
    "witness": _ask_witness,
}


def _told(error: Exception) -> str:
    """An error's message, without the shapes that Pyro appends, and where it was raised if it is a bug."""
    if isinstance(error, AssertionError | ZooError):
        return str(error)
    frame = traceback.extract_tb(error.__traceback__)[-1]
    said = (str(error).splitlines() or [""])[0]
    return f"{type(error).__name__}{f': {said}' if said else ''} ({frame.filename}, line {frame.lineno})"


def make_subject(name: str, data: Data | None = None, **options: Any) -> Subject:
    """A pair built for testing."""
    data = data or example_data(card(name).support)
    pair = create(name, data, **options)
    x = torch.as_tensor(pair.view.inward(data.train.values)[:7])
    pair.model.to(x.dtype)
    pair.guide.to(x.dtype)
    return Subject(pair, data, x)


def variants(name: str) -> list[dict[str, Any]]:
    """The default options, and every other choice of each ``Literal`` or bool option, one at a time.

    Guides and priors are separate: see :func:`guides_of` and :func:`priors_of`.

    >>> variants("gmm")
    [{}, {'covariance': 'full'}, {'covariance': 'spherical'}, {'covariance': 'tied'}]
    """
    kind = options_of(name)
    hints = typing.get_type_hints(kind)
    return [{}] + [
        {field.name: choice}
        for field in fields(kind)
        for choice in _choices(hints[field.name])
        if choice != field.default
    ]


def guides_of(name: str, data: Data | None = None) -> list[str]:
    """The guides that serve a pair's latents, its own first.

    >>> guides_of("linear-shared")[:3]
    ['exact', 'mean-field', 'full-rank']
    """
    return _parts_of(name, data, GUIDES, "guide", card(name).guide)


def priors_of(name: str, data: Data | None = None) -> list[str]:
    """The priors that a pair takes, its own first.

    >>> priors_of("gmm")
    ['own']
    """
    data = data or example_data(card(name).support)
    return _parts_of(name, data, PRIORS, "prior", create(name, data).prior_name)


def _parts_of(name: str, data: Data | None, parts: Parts, sort: str, own: str) -> list[str]:
    data, found = data or example_data(card(name).support), [own]
    for part in parts:
        try:
            create(name, data, **{sort: part.name})
        except OptionError:
            continue
        found += [part.name] if part.name != own else []
    return found


@cache
def example_data(support: Support, features: int = 16) -> Data:
    """60 simulated rows of some support; 4 x 4 images if ``features`` is 16."""
    rng = np.random.default_rng(0)
    factors = rng.normal(size=(60, 2)) @ rng.normal(size=(2, features)) + rng.normal(size=(60, features))
    if support == MIXED:
        kinds = [kind for kind in SUPPORTS.values() if kind.name != "unit"]
        chosen = [*kinds, *kinds][:features]
        values = [kind.example(f, rng) for kind, f in zip(chosen, factors.T, strict=False)]
        names = [f"{kind.name} {k}" for k, kind in enumerate(chosen)]
        declared: Any = {name: kind.name for name, kind in zip(names, chosen, strict=True)}
        return Data.from_array(np.stack(values, axis=1), names=names, name="simulated table", support=declared)
    x = SUPPORTS[support].example(factors, rng)
    return Data.from_array(
        x, name=f"simulated {support}", support=support, image_shape=(4, 4) if features == 16 else None
    )


def check_options(subject: Subject) -> None:
    """The options are a frozen dataclass whose fields have defaults, and the pair keeps the values it was given."""
    kind = options_of(subject.pair.name)
    assert kind.__dataclass_params__.frozen, f"make {kind.__name__} frozen: @dataclass(frozen=True)"
    kind()
    assert isinstance(subject.pair.options, kind)
    for remedy in subject.pair.card.remedies:
        assert Name.parse(remedy).pair in list_pairs(), f"the card's remedy {remedy!r} is not a pair of the catalogue"


def check_sites(subject: Subject) -> None:
    """X is observed, every site is inside one plate named data, and the guide has the model's latents."""
    try:
        with _drawing():
            guide = poutine.trace(subject.pair.guide).get_trace(subject.x)
            model = poutine.trace(subject.pair.model).get_trace(subject.x)
    except ValueError as error:
        first_line = str(error).splitlines()[0]
        raise AssertionError(
            "shapes do not fit; are the features an event, to_event(1), and are there as many numbers as `outputs` "
            f"says? {first_line}"
        ) from error
    observed = observed_sites(model)
    assert observed == ["x"], f"the model must observe one site, x; it observes {observed}"
    refuse_other_latents(model, guide)
    refuse_other_data(model.nodes["x"]["fn"], subject.x, subject.pair.card.base_measure)
    for trace in (model, guide):
        trace.compute_log_prob()
        for name in [*latent_sites(trace), *(n for n in observed if n in trace.nodes)]:
            plates = [frame.name for frame in trace.nodes[name]["cond_indep_stack"]]
            assert plates == ["data"], f"site {name} is in plates {plates}; one plate named data is needed"
            shape = tuple(trace.nodes[name]["log_prob"].shape)
            assert shape == (len(subject.x),), f"log_prob of {name} has shape {shape}, not one value per datum"


def check_normalised(subject: Subject) -> None:
    """p(x | z) integrates, or sums, to one over a single feature of each kind it takes."""
    for narrow in _narrow(subject):
        _check_one_column(narrow)


def _check_one_column(narrow: Subject) -> None:
    (column,), support = narrow.data.columns, narrow.pair.card.support
    kind = SUPPORTS[column.kind.mixed_as if support == MIXED else support]
    with _drawing():
        fn = poutine.trace(narrow.pair.model).get_trace(narrow.x).nodes["x"]["fn"]
        drawn = fn.sample((DRAWS,)).detach()
    assert drawn.isfinite().all(), "draws of one feature are not all finite"
    own = fn.support

    def density(grid: Tensor) -> Tensor:
        assert own is None or own.check(grid).all(), (
            f"the card says {kind.name} data, and the likelihood is defined only for {of_values(own)}"
        )
        found: Tensor = fn.log_prob(grid).exp().detach()
        assert found.isfinite().all(), "the density of one feature is not finite everywhere"
        return found

    if kind.grid:
        values = torch.as_tensor(kind.grid(column, int(10 * drawn.max()) + 1000))
        total = density(values.to(narrow.x)[:, None, None].expand(-1, *drawn.shape[1:])).sum(0)
    else:
        total = _integral(density, drawn, *kind.range(column))
    error = float((total - 1).abs().max())
    assert error < ADDED_UP, f"the likelihood of one feature adds up to 1 only to {error:.2g}"


def check_cells(subject: Subject) -> None:
    """Where a value stands for a cell, the masses of a column's cells sum to 1, and never exceed 1.

    A pair that refuses such data passes.
    """
    for narrow in _narrow(subject):
        if not narrow.pair.view.dense[0]:
            continue  # check_normalised has summed over the values themselves
        model: Any = narrow.pair.model
        with _drawing():
            fn = poutine.trace(model).get_trace(narrow.x).nodes["x"]["fn"]
            drawn = fn.sample((DRAWS,)).detach()
            low, high = drawn.min(), drawn.max()
            width = ((high - low) / CELLS)[None]
            grid = (low + width * (torch.arange(CELLS) + 0.5))[:, None, None].expand(-1, *drawn.shape[1:])
            try:
                total, noise = Cells(model, width).likelihood(fn).log_prob(grid).exp().sum(0), torch.zeros(1)
            except Unknown:
                try:
                    spread = Dequantized(model, width).likelihood(fn)
                except Unknown:
                    continue
                totals = torch.stack([spread.log_prob(grid).exp().sum(0) for _ in range(REPEATS)])
                total, noise = totals.mean(0), totals.std(0) / REPEATS**0.5
        off = (total - 1).detach()
        assert (off <= 6 * noise + 1e-6).all(), (
            f"the masses of all cells of a column add up to {1 + float(off.max()):.6g}"
        )
        assert (off >= -6 * noise - 0.01).all(), (
            f"the masses of the cells that contain draws add up to {1 + float(off.min()):.6g}"
        )


def check_objective(subject: Subject) -> None:
    """Value and gradients equal those of Pyro's own ELBO at the same draws."""
    pair, x, parameters = subject.pair, subject.x, subject.parameters()
    with _drawing():
        # including weights by poutine.scale, as in Pyro's ELBO
        ours = ELBO()(pair.model, pair.guide, x).value * len(x)
    elbo = _pyros_elbo(pair.guide, x)
    with _drawing():
        pyros = elbo.differentiable_loss(pair.model, pair.guide, x)
    assert math.isclose(ours.item(), pyros.item(), rel_tol=1e-8), (
        f"the loss is {ours.item():.10g}, Pyro's {pyros.item():.10g}"
    )
    # what the ELBO knows nothing of has no gradient in either
    both = (torch.autograd.grad(loss, list(parameters.values()), materialize_grads=True) for loss in (ours, pyros))
    for name, mine, theirs in zip(parameters, *both, strict=True):
        scale = theirs.abs().max().clamp(min=1e-6)
        error = float((mine - theirs).abs().max() / scale)
        assert error < 1e-8, f"the gradient of {name} differs from Pyro's by {error:.2g} of its size"


def check_gradients(subject: Subject) -> None:
    """Every parameter has a gradient that is not zero everywhere."""
    parameters = subject.parameters()
    with _drawing():
        loss = OBJECTIVES.make(subject.pair.card.objective)(subject.pair.model, subject.pair.guide, subject.x)
    gradients = torch.autograd.grad(loss.value, list(parameters.values()), allow_unused=True)
    idle = [n for n, g in zip(parameters, gradients, strict=True) if g is None or not g.abs().any()]
    assert not idle, f"no gradient reaches {', '.join(idle)}"


def check_sampling(subject: Subject) -> None:
    """Draws have the data's shape, lie in the support, and are not the data handed back."""
    pair, x = subject.pair, subject.x
    for guide in (None, pair.guide):
        with _drawing():
            drawn = inference.predictive_draws(pair.model, x, 3, guide)
        assert drawn.shape == (3, *x.shape), f"draws have shape {tuple(drawn.shape)}, not {(3, *x.shape)}"
        assert drawn.isfinite().all(), "draws are not all finite"
        assert not any(torch.equal(drawn[0], other) for other in (drawn[1], x)), "draws repeat the data"
        values = np.round(pair.view.outward(drawn.detach()), 9)
        for j in np.flatnonzero(~pair.view.dense):
            column = as_modelled(pair.card.support, subject.data.columns[j])
            assert not column.outside(values[..., j]).any(), f"draws leave the {column.support} support"


def check_weights(subject: Subject) -> None:
    """Importance weights have one row per draw, ignore poutine.scale, and two estimates by them agree."""
    pair, x = subject.pair, subject.x
    with _drawing():
        first, second = (inference.LogWeights(WEIGHTS)(pair.model, pair.guide, x) for _ in range(2))
    assert first.shape[1:] == (len(x),), f"log weights have shape {tuple(first.shape)}"
    with _drawing(), _Unweighted():
        plain = inference.LogWeights(WEIGHTS)(pair.model, pair.guide, x)
    assert torch.equal(first, plain), "importance weights must use the densities without poutine.scale"
    gap = (inference.log_mean_exp(first) - inference.log_mean_exp(second)).abs()
    noise = sum((w - inference.log_mean_exp(w)).exp().std(0, correction=0) / len(w) ** 0.5 for w in (first, second))
    assert (gap <= 6 * noise + 1e-8).all(), "two importance estimates of the evidence disagree"


def check_bound(subject: Subject) -> None:
    """A likelihood said to be bounded stays below its bound at widely scattered parameters."""
    pair = subject.pair
    bound_of = getattr(pair.model, "log_density_bound", None)
    assert bound_of or not pair.card.bounded, (
        "a bounded pair must compute its bound: def log_density_bound(self, features) on the model"
    )
    # with many columns, random parameters never put all of them at their peaks: one column is a sharper test
    for each in (subject, *_narrow(subject)) if bound_of else ():
        features = each.data.features
        own: Any = each.pair.model
        bound = own.log_density_bound(features)
        if not pair.card.bounded and math.isinf(bound):
            continue
        assert math.isfinite(bound), (
            f"a bounded pair must compute its bound, but its emission's log_density_bound() is {bound}"
        )
        assert pair.card.bounded or pair.card.bounded_if, "the card says unbounded"
        highest = _highest_anywhere(each)
        assert highest > -math.inf, "no finite log density was seen, so the bound was not tested"
        assert highest <= bound + 1e-9 * max(1.0, abs(bound)), (
            f"log density {highest:.6g} of {features} columns, bound {bound:.6g}"
        )


def _highest_anywhere(subject: Subject) -> float:
    """The highest log density found at the pair's own and at scattered parameters; its own are then restored."""
    model, smooth = subject.pair.model, bool(subject.pair.view.dense.all())
    parameters = [*subject.parameters().values()]
    kept = [parameter.detach().clone() for parameter in parameters]
    highest = -math.inf
    try:
        # densities overflow this far out: NaN is neither evidence nor an error
        with seeded(0), pyro_context(), torch.no_grad():
            for scale in (0.0, *(s for s in (0.1, 1.0, 10.0, 100.0) for _ in range(3))):
                for parameter in parameters if scale else []:
                    parameter.normal_(0, scale)
                fn = poutine.trace(model).get_trace(subject.x).nodes["x"]["fn"]
                highest = max(highest, _highest(fn, subject.x, smooth=smooth))
    finally:
        with torch.no_grad():
            for parameter, before in zip(parameters, kept, strict=True):
                parameter.copy_(before)
    return highest


def _highest(fn: Any, x: Tensor, *, smooth: bool) -> float:
    """The highest log density of a likelihood found near its mean, its location, its draws and the data.

    If it is smooth, the search goes uphill from there by gradients in units of the draws' spread; steps double while
    they gain and shrink to a quarter when they do not.
    """
    try:
        drawn = fn.sample((9,))
    except RuntimeError:  # torch's error for an overflowed rate: the data have to do
        drawn = x[None]
    middle = drawn.median(0).values
    spread = (drawn - middle).abs().median(0).values
    starts = torch.stack([x, *drawn, middle, *(_centres(fn, x) if smooth else [])])
    # for such large counts, differences of log gammas are rounding error in single precision
    told = starts.isfinite() & (smooth | (starts.abs() < LARGEST_COUNT))
    at = torch.where(told, starts, x)
    height = fn.log_prob(at).nan_to_num(-math.inf, math.inf, -math.inf)
    step = torch.ones_like(height)
    for _ in range(UPHILL if smooth else 0):
        with torch.enable_grad():
            moving = at.detach().requires_grad_()
            (gradient,) = torch.autograd.grad(fn.log_prob(moving).sum(), moving)
        further = at + step[..., None] * spread.square() * gradient
        there = fn.log_prob(further).nan_to_num(-math.inf, math.inf, -math.inf)
        gained = (there > height) & further.isfinite().all(-1)
        at, height = torch.where(gained[..., None], further, at), torch.where(gained, there, height)
        step = torch.where(gained, 2 * step, step / 4)
    return float(height.max())


def _centres(fn: Any, x: Tensor) -> Iterator[Tensor]:
    """The mean and the location of a distribution, if it has them, in the shape of x."""
    for owner, name in ((fn, "mean"), (getattr(fn, "base_dist", fn), "loc")):
        try:
            yield getattr(owner, name).expand_as(x)
        except (AttributeError, NotImplementedError):
            continue


def check_engine(subject: Subject, mode: Mode = "capture", objective: Any = None) -> Mode:
    """A step has Pyro's ELBO and the gradient of the objective, for each seed independently of the others.

    The gradient of the ELBO comes from Pyro. A pair whose draws cannot be lifted out of the step is checked only for
    independence. A seed alone runs through Pyro directly, so that only one step has to be recorded.

    Args:
        subject: the pair under test.
        mode: how the step is to be run.
        objective: its name or the objective itself; the card's by default.

    Returns:
        The mode the step was run in.
    """
    pair = subject.pair
    x = torch.as_tensor(pair.view.inward(subject.data.train.values))
    maximised = OBJECTIVES.make(objective or pair.card.objective)
    settings: dict[str, Any] = {
        "objective": maximised,
        "schedule": lambda _: (1e-3, 1.0),
        "batch_size": 16,
        "mode": mode,
    }
    engine, alone = Engine(pair, [1, 3], x, **settings), Engine(pair, [3], x, **settings | {"mode": "off"})
    parameters, inputs = engine.parameters(engine.state.theta.clone()), engine.inputs(0)
    statistics, of_one = engine.step(0), alone.step(0)
    for row, seed in enumerate(engine.seeds if engine.lifts_noise else []):
        replica = pair.replica(seed)
        program = Replica(replica.model, replica.guide).double()
        with torch.no_grad():
            for name, parameter in program.named_parameters():
                parameter.copy_(parameters[name][row])
            for name, buffer in program.named_buffers():
                buffer.copy_(engine.buffers[name][row])
        batch, elbo = x[inputs.rows[row]], _pyros_elbo(program.guide, x)
        tape = {"normal": inputs.normal[row], "uniform": inputs.uniform[row]}
        with Tape(**tape), pyro_context():
            loss = (
                elbo.differentiable_loss(program.model, program.guide, batch) / len(batch)
                if maximised == ELBO()
                else maximised(program.model, program.guide, batch).value
            )
        gradients = torch.autograd.grad(loss, list(program.parameters()))
        gradient = torch.cat([g.flatten() for g in gradients])
        ours = engine.state.first[row] / (1 - BETAS[0])  # Adam's first moment after one step
        error = float((ours - gradient).abs().max() / gradient.abs().max())
        assert error < 1e-8, f"the gradient of a step differs from its objective's by {error:.2g} of its size"
        if hasattr(maximised, "samples") or getattr(maximised, "kl", "sampled") != "sampled":
            continue  # its ELBO uses several draws, or leaves out the KL term
        with Tape(**tape), pyro_context(), _Unweighted():
            expected = -elbo.differentiable_loss(program.model, program.guide, batch).item() / len(batch)
        found = statistics[0, row].item()
        assert math.isclose(found, expected, rel_tol=1e-8), (
            f"the ELBO of a step is {found:.10g}, Pyro's {expected:.10g}"
        )
    assert torch.allclose(statistics[:4, 1:], of_one[:4], rtol=1e-8, equal_nan=True), (
        "seed 3 depends on seed 1 beside it"
    )
    assert not torch.equal(statistics[0, 0], statistics[0, 1]), "two seeds are the same"
    return engine.mode


def check_saving(subject: Subject) -> None:
    """A run comes back from disk with its weights and numbers, in ArviZ's form; the same seed repeats it."""
    common = {"seeds": [2], "steps": 3, "checks": 1, "progress": False, "on_divergence": "warn"}
    run, again = (fit(subject.pair, subject.data, **common) for _ in range(2))  # type: ignore[arg-type]
    x = subject.data.test.values[:5]
    with tempfile.TemporaryDirectory() as folder:
        loaded = load_run(run.save(Path(folder) / "run"))
    for of in (run, loaded):
        check_tree(of.tree)
    evidence = run.log_evidence(x, samples=10)
    assert evidence.shape == (1, len(x))
    assert np.isfinite(evidence).all(), "the evidence is not finite after three steps"
    assert np.array_equal(evidence, loaded.log_evidence(x, samples=10)), "a run read back gives other numbers"
    assert np.array_equal(evidence, again.log_evidence(x, samples=10)), "the same seed gives other numbers"
    assert run.reconstruct(x).shape == (1, *x.shape)
    assert run.sample(4).shape == (1, 4, x.shape[1])


CHECKS: dict[str, Callable[[Subject], object]] = {
    "options": check_options,
    "sites": check_sites,
    "normalised": check_normalised,
    "cells": check_cells,
    "gradients": check_gradients,
    "objective": check_objective,
    "sampling": check_sampling,
    "weights": check_weights,
    "bound": check_bound,
    "engine": check_engine,
    "saving": check_saving,
}


class _Unweighted(Messenger):  # type: ignore[misc]
    """Removes the weights of ``poutine.scale`` from every site, wherever they were set."""

    def _pyro_sample(self, msg: Any) -> None:
        msg["scale"] = 1.0


def _narrow(subject: Subject) -> Iterator[Subject]:
    """The same pair and options for data of one column: each kind in turn, if it takes several."""
    several = subject.pair.card.support == MIXED
    kinds = dict.fromkeys(column.support for column in subject.data.columns) if several else [subject.data.support]
    for kind in kinds:
        yield make_subject(subject.pair.name, example_data(kind, features=1), **_without_images(subject))


def _integral(density: Callable[[Tensor], Tensor], drawn: Tensor, low: float, high: float) -> Tensor:
    """The integrals of one feature's density from low to high, (B,), by draws (K, B, 1) of it.

    Panels narrow towards every quantile of the draws and towards both ends, so they are small at peaks, kinks, heavy
    tails and poles at an end. No moment is needed. If the integral is not 1, panels that hold a jump are halved.
    """
    shares = torch.linspace(0, 1, 33, dtype=drawn.dtype)
    at = drawn.quantile(shares, dim=0)
    ends = [torch.full_like(at[:1], end) for end in (low, high) if math.isfinite(end)]
    spread = at[24] - at[8]
    offsets = torch.cat([-spread * 2.0 ** torch.arange(-25, 50)[:, None, None], at.new_zeros(1, *spread.shape)])
    offsets = torch.cat([offsets, -offsets[:-1]])
    edges = torch.cat([(offsets[:, None] + torch.cat([at, *ends])).flatten(0, 1), *ends]).clamp(low, high)
    edges = edges.sort(0).values
    nodes, weights = (torch.as_tensor(part)[:, None, None] for part in np.polynomial.legendre.leggauss(6))

    def panels(edges: Tensor) -> Tensor:
        half, middle = edges.diff(dim=0)[:, None] / 2, (edges[1:] + edges[:-1])[:, None] / 2
        grid = middle + half * nodes
        # none at an end, which may be a pole and where rounding puts nodes of the narrowest panels
        inside = (half > 0) & (grid > low) & (grid < high)
        found = density(torch.where(inside, grid, at[16]).flatten(0, 1)).view(grid.shape[:-1])
        return torch.where(inside[..., 0], found * (half * weights)[..., 0], 0.0).sum(1)

    sums = panels(edges)
    for _ in range(HALVINGS):
        if ((sums.sum(0) - 1).abs() < ADDED_UP).all():
            break
        middles = (edges[1:] + edges[:-1]) / 2
        halves = panels(torch.cat([torch.stack([edges[:-1], middles], dim=1).flatten(0, 1), edges[-1:]]))
        off = (sums - halves.view(-1, 2, halves.shape[-1]).sum(1)).abs()
        worst = off.topk(JUMPS, dim=0).indices[..., None]
        edges = torch.cat([edges, middles.gather(0, worst)]).sort(0).values
        sums = panels(edges)
    return sums.sum(0)


def _pyros_elbo(guide: Any, x: Tensor) -> Trace_ELBO | TraceEnum_ELBO:
    """Pyro's ELBO class that suits the guide."""
    with _drawing(), torch.no_grad():
        trace = poutine.trace(poutine.enum(guide, first_available_dim=-2)).get_trace(x)
    kind = TraceEnum_ELBO if latent_sites(trace, enumerated=True) else Trace_ELBO
    return kind(max_plate_nesting=1)


@contextmanager
def _drawing() -> Iterator[None]:
    """Fix the draws and turn on Pyro's own checks."""
    with seeded(0), pyro_context(validate=True):
        yield


def _without_images(subject: Subject) -> dict[str, Any]:
    """The subject's options, except a network that needs images."""
    return {name: value for name, value in subject.pair.choices.items() if name != "network"}


def _choices(hint: Any) -> tuple[Any, ...]:
    """All values of an option with few values."""
    return (False, True) if hint is bool else typing.get_args(hint) if typing.get_origin(hint) is typing.Literal else ()
