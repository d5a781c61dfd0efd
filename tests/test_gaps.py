"""Entries that were not observed: every density is that of the others, against NumPy and SciPy."""

from itertools import product

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from likelihoods import register
from pyro import poutine
from scipy import stats
from scipy.special import logsumexp
from torch import nn

import zoo
from zoo import fitting
from zoo.context import pyro_context, seeded
from zoo.densities import smallest_scale
from zoo.errors import DataError, Unknown
from zoo.inference import LogWeights, encode, log_mean_exp, log_weights, prior
from zoo.lenses import Dequantized, Gapped, Observed, Zeros, observed
from zoo.models import VAE, FactorAnalysis
from zoo.models.emissions import PerColumn
from zoo.networks import Tabulated
from zoo.objectives import terms, traces
from zoo.testing import CHECKS, make_subject

REAL = zoo.list_pairs(support="real")
MIXTURES = [(name, c) for name in zoo.list_pairs("gmm*") for c in ("diagonal", "full", "tied", "spherical")]
LINEAR = zoo.list_pairs("linear-*")


def table(gaps=0.3, rows=120, features=4, resolution=None):
    """Correlated columns in units of their own, some entries of which were not observed; a few rows are complete."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(rows, 2)) @ rng.normal(size=(2, features)) + 0.5 * rng.normal(size=(rows, features))
    x = x * np.array([1.0, 20.0, 0.3, 5.0])[:features] + np.arange(features)
    x[rng.random(x.shape) < gaps] = np.nan
    for name, width in (resolution or {}).items():
        x[:, int(name[1:])] = width * np.rint(x[:, int(name[1:])] / width)
    return zoo.Data.from_array(x, name="table", resolution=resolution)


GAPPY, COMPLETE = table(), table(gaps=0)


def small(name):
    """Options with which a pair is quickly built and trained."""
    if name.startswith("gmm"):
        return {"components": 3}
    return {"latent_dim": 2} if name.startswith("linear") else {"latent_dim": 2, "hidden": (8,)}


def scattered(name, data, **options):
    """A pair in double precision at parameters drawn at random around a start from the data, and the training rows."""
    pair = zoo.create(name, data, **{**small(name), **options})
    model, guide = observed(pair.model.double(), pair.guide.double(), torch.as_tensor(pair.view.filler))
    x = torch.as_tensor(pair.view.inward(data.train.values))
    with torch.no_grad(), seeded(1):
        if hasattr(model, "initialise"):
            model.initialise(x)
        for parameter in {*model.parameters(), *guide.parameters()}:
            parameter.add_(0.3 * torch.randn_like(parameter))
    return model.requires_grad_(False), guide.requires_grad_(False), x


def marginal(mean, covariance, x):
    """Log densities (N,) of the entries of x (N, D) that are numbers, row by row by SciPy."""
    found = np.zeros(len(x))
    for row, o in enumerate(~np.isnan(x)):
        if o.any():
            found[row] = stats.multivariate_normal(mean[o], covariance[np.ix_(o, o)]).logpdf(x[row, o])
    return found


def components(model):
    """Weights, means and covariances of a mixture, or of the one normal that a linear model is."""
    if hasattr(model, "decoder"):
        weight, psi = model.decoder.weight.double(), (2 * model.log_scale.double()).exp()
        covariance = weight @ weight.T + torch.diag(psi.expand(len(weight)))
        return np.ones(1), model.decoder.bias.double().numpy()[None], covariance.numpy()[None]
    fn = model.likelihood(torch.arange(len(model.means)))
    covariances = getattr(fn, "covariance_matrix", None)
    covariances = torch.diag_embed(fn.variance) if covariances is None else covariances
    return model.logits.double().softmax(0).numpy(), model.means.double().numpy(), covariances.double().numpy()


def closed_form(model, x):
    """The log evidence of what was observed."""
    each = [np.log(w) + marginal(m, c, x) for w, m, c in zip(*components(model), strict=True)]
    return logsumexp(each, axis=0)


@pytest.mark.parametrize(("name", "options"), [(n, {"covariance": c}) for n, c in MIXTURES] + [(n, {}) for n in LINEAR])
def test_the_exact_evidence_is_the_closed_form_marginal(name, options):
    model, guide, x = scattered(name, GAPPY, **options)
    with seeded(0):
        (found,) = LogWeights(100).known(model, guide, x)
    np.testing.assert_allclose(found, closed_form(model.model, x.numpy()), atol=1e-8)


@pytest.mark.parametrize("name", LINEAR)
def test_the_evidence_of_some_columns_is_of_those_of_them_that_were_observed(name):
    model, _, x = scattered(name, GAPPY)
    columns = torch.tensor([3, 1])
    rows = x[(~x[:, columns].isnan()).any(1)]
    hidden = rows.clone()
    hidden[:, [0, 2]] = torch.nan
    np.testing.assert_allclose(model.log_evidence(rows, columns), closed_form(model.model, hidden.numpy()), atol=1e-8)


@pytest.mark.parametrize("name", LINEAR)
def test_the_exact_posterior_is_that_given_what_was_observed(name):
    model, guide, x = scattered(name, GAPPY)
    weight = model.model.decoder.weight.numpy()
    _, (bias,), (covariance,) = components(model.model)
    for row, mean, factor in zip(x.numpy(), *model.posterior(x), strict=True):
        o = ~np.isnan(row)
        gain = weight[o].T @ np.linalg.inv(covariance[np.ix_(o, o)])
        np.testing.assert_allclose(mean, gain @ (row - bias)[o], atol=1e-9)
        np.testing.assert_allclose(factor @ factor.T, np.eye(2) - gain @ weight[o], atol=1e-9)
    with seeded(0):
        np.testing.assert_array_equal(encode(guide, x), model.posterior(x)[0])


@pytest.mark.parametrize("name", ["gmm", "linear-diagonal"])
def test_a_run_scores_what_was_observed_in_the_units_as_loaded(name):
    run = zoo.fit(zoo.create(name, GAPPY, **small(name)), GAPPY, seeds=1, steps=20, progress=False)
    view, x = run.pair.view, GAPPY.test.values
    (program,) = run.each_seed(lambda model, _: model.model, 0, gaps=True)
    weights, means, covariances = components(program)
    each = [
        np.log(w) + marginal(view.center + view.scale * m, np.outer(view.scale, view.scale) * c, x)
        for w, m, c in zip(weights, means, covariances, strict=True)
    ]
    np.testing.assert_allclose(run.log_evidence(x)[0], logsumexp(each, axis=0), atol=1e-4)


def test_the_mass_of_a_row_is_that_of_the_cells_that_were_observed():
    data = table(resolution={"x0": 0.25, "x2": 0.125}, rows=240)
    run = zoo.fit(zoo.create("gmm", data, components=3), data, seeds=1, steps=20, progress=False)
    group = zoo.evaluate(run, data, samples=10, temperatures=0)["heldout"]
    assert group.attrs["mass"] == "binned" and group.attrs["mass_exact"] == 1
    (program,) = run.each_seed(lambda model, _: model.model, 0, gaps=True)
    (weights, means, covariances), view = components(program), run.pair.view
    x, half = data.test.values, np.nan_to_num(data.resolution) / 2
    total = np.tile(np.log(weights), (len(x), 1))
    for c, j in product(range(len(weights)), range(4)):
        column = stats.norm(view.center[j] + view.scale[j] * means[c, j], view.scale[j] * covariances[c, j, j] ** 0.5)
        ends = (column.cdf(x[:, j] + end) for end in (half[j], -half[j]))
        of_entry = np.log(np.subtract(*ends)) if half[j] else column.logpdf(x[:, j])
        total[:, c] += np.where(np.isnan(x[:, j]), 0, of_entry)
    np.testing.assert_allclose(group["log_mass"][0], logsumexp(total, axis=1), atol=1e-3)


def importance_by_hand(model, encode, x, samples):
    """Log weights (K, N) of draws of a mean-field guide, the observed columns of each row being all there are."""
    mean, log_variance = (part.numpy() for part in encode(x).unbind(-2))
    with seeded(0):
        noise = torch.randn(samples, *mean.shape, dtype=torch.float64).numpy()
    z = mean + np.exp(log_variance / 2) * noise
    location, log_variance_x = (part.numpy() for part in model.decoder(torch.as_tensor(z)).unbind(-2))
    log_w = stats.norm.logpdf(z).sum(-1) - stats.norm.logpdf(noise).sum(-1) + log_variance.sum(-1) / 2
    for row, datum in enumerate(x.numpy()):
        o = ~np.isnan(datum)
        narrow = location[:, row, o], np.exp(log_variance_x[:, row, o] / 2)
        log_w[:, row] += stats.norm.logpdf(datum[o], *narrow).sum(-1)
    return log_w


def test_a_vae_with_gaps_is_one_of_the_columns_there_are():
    model, guide, x = scattered("gaussian-learned", GAPPY)
    expected = importance_by_hand(model.model, guide.encoder, x, 200)
    with seeded(0):
        found = log_weights(model, guide, x, 200)
    np.testing.assert_allclose(found, expected, atol=1e-9)
    np.testing.assert_allclose(log_mean_exp(found), logsumexp(expected, axis=0) - np.log(200), atol=1e-9)


def test_the_encoder_sees_zeros_and_the_mask():
    _, guide, x = scattered("gaussian-learned", GAPPY)
    assert isinstance(guide.encoder, Tabulated)
    there = (~x.isnan()).double()
    np.testing.assert_array_equal(guide.encoder(x), guide.encoder.network(torch.cat([x.nan_to_num(0.0), there], -1)))
    assert not torch.allclose(guide.encoder(x), guide.encoder(x.nan_to_num(0.0)))  # a gap is no zero


# -- complete data -----------------------------------------------------------------------------------------------------


def site_x(model, guide, x):
    """The likelihood of a model at draws of a guide."""
    with seeded(0), pyro_context(), poutine.enum(first_available_dim=-2):
        draws = poutine.trace(guide).get_trace(x)
        return poutine.trace(poutine.replay(model, trace=draws)).get_trace(x).nodes["x"]["fn"]


@pytest.mark.parametrize(("name", "options"), [(n, {}) for n in REAL] + [(n, {"covariance": c}) for n, c in MIXTURES])
def test_without_gaps_a_density_has_the_bits_it_had(name, options):
    pair = zoo.create(name, COMPLETE, **{**small(name), **options})
    x = torch.as_tensor(pair.view.inward(COMPLETE.train.values))
    assert not any(
        isinstance(part, Observed | Zeros | Tabulated) for part in (*pair.model.modules(), *pair.guide.modules())
    )
    fn = site_x(pair.model.double(), pair.guide.double(), x)
    own, lens = fn.log_prob(x), Gapped(fn, torch.as_tensor(pair.view.filler)).log_prob(x)
    if isinstance(fn, dist.MultivariateNormal):
        torch.testing.assert_close(lens, own, rtol=0, atol=1e-10)
    else:
        assert torch.equal(lens, own)


def test_a_normal_of_low_rank_has_its_marginals():
    rng = np.random.default_rng(2)
    loc, factor, diagonal = rng.normal(size=(6, 4)), rng.normal(size=(6, 4, 2)), rng.uniform(0.1, 1, size=(6, 4))
    x = np.where(rng.random((6, 4)) < 0.4, np.nan, rng.normal(size=(6, 4)))
    x[0], x[1] = 0.5, np.nan
    fn = dist.LowRankMultivariateNormal(*map(torch.as_tensor, (loc, factor, diagonal)))
    found = Gapped(fn, torch.zeros(4).double()).log_prob(torch.as_tensor(x))
    expected = [
        marginal(m, f @ f.T + np.diag(d), row[None])[0] for m, f, d, row in zip(loc, factor, diagonal, x, strict=True)
    ]
    np.testing.assert_allclose(found, expected, atol=1e-8)


def test_a_row_without_gaps_has_the_elbo_that_the_pair_gives_it():
    model, guide, x = scattered("gmm", GAPPY)
    complete = x[~x.isnan().any(1)]
    assert 5 < len(complete) < len(x) / 2
    with seeded(0):
        ours, plain = traces(model, guide, complete), traces(model.model, guide.of(model.model), complete)
    torch.testing.assert_close(terms(*ours, 1).elbo, terms(*plain, 1).elbo, rtol=1e-12, atol=0)


# -- what fills a gap --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "options"), [(n, {}) for n in REAL] + [("gmm", {"covariance": "full"})])
def test_nothing_depends_on_what_is_put_into_a_gap(name, options):
    model, guide, x = scattered(name, GAPPY, **options)
    fn = site_x(model.model, guide, x)
    outcomes = []
    for value in (0.0, 0.3, -7.0, 1e9):
        filler = torch.full((4,), value, dtype=torch.float64)
        model.filler.copy_(filler)
        with seeded(0):
            outcomes.append((Gapped(fn, filler).log_prob(x), LogWeights(5).known(model, guide, x)))
    assert all(a.isfinite().all() for a in outcomes[0])
    assert all(torch.equal(a, b) for outcome in outcomes[1:] for a, b in zip(outcomes[0], outcome, strict=True))


@pytest.mark.parametrize("name", REAL)
def test_every_pair_of_real_numbers_trains_on_data_with_gaps(name):
    pair = zoo.create(name, GAPPY, **small(name))
    assert isinstance(pair.model, Observed)
    run = zoo.fit(pair, GAPPY, seeds=2, steps=4, progress=False, compile="off", on_divergence="warn")
    for trace in ("elbo", "log_likelihood", "kl", "objective", "grad_norm", "min_scale"):
        assert np.isfinite(run.tree["optimization"][trace]).all()
    assert (run.tree["optimization"]["frozen_at"] == -1).all() and np.isfinite(run.tree["validation"]["elbo"]).all()
    assert all(weight.isfinite().all() for weight in run.weights.values())
    assert np.isfinite(run.log_evidence(GAPPY.test.values, samples=10)).all()
    assert np.isfinite(run.encode(GAPPY.test.values)).all() and np.isfinite(run.sample(3)).all()


@pytest.mark.parametrize("check", ["sites", "gradients", "objective", "weights"])
@pytest.mark.parametrize("name", REAL)
def test_the_kit_holds_on_data_with_gaps(name, check):
    CHECKS[check](make_subject(name, GAPPY, **small(name)))


# -- what is refused ---------------------------------------------------------------------------------------------------


class Turned(VAE):
    """A normal turned into another by a map that no marginal is read off."""

    outputs = 1

    def likelihood(self, z):
        (mean,) = self.decoder(z).unbind(-2)
        normal = dist.MultivariateNormal(mean, scale_tril=torch.eye(mean.shape[-1]))
        return dist.TransformedDistribution(normal, [dist.transforms.AffineTransform(0.0, 2.0)])


def test_a_likelihood_without_known_marginals_says_so(catalogue):
    pair = zoo.create(register(Turned, name="turned", support="real", bounded=False), GAPPY)
    sentence = "^the density of some entries alone under MultivariateNormal by AffineTransform is not known$"
    with pytest.raises(Unknown, match=sentence):
        zoo.fit(pair, GAPPY, seeds=1, steps=2, progress=False, compile="off")
    run = zoo.fit(zoo.create("own-turned", COMPLETE), COMPLETE, seeds=1, steps=2, progress=False, compile="off")
    assert np.isfinite(run.log_evidence(COMPLETE.test.values, samples=5)).all()
    with pytest.raises(Unknown, match=sentence):
        run.log_evidence(GAPPY.test.values, samples=5)


def test_events_of_several_dimensions_are_not_masked():
    matrix = dist.Normal(torch.zeros(2, 3), 1.0).to_event(2)
    with pytest.raises(Unknown, match="the density of some entries alone under Normal is not known"):
        Gapped(matrix, torch.zeros(3)).log_prob(torch.full((2, 3), torch.nan))


@pytest.mark.parametrize(("never", "told"), [(["b"], "of b was"), (["a", "c"], "of a, c was")])
def test_columns_never_observed_in_training_are_named(never, told):
    names = ["a", "b", "c"]
    x = np.random.default_rng(0).normal(size=(20, 3))
    split = ["train"] * 14 + ["validation"] * 2 + ["test"] * 4
    x[:14, [names.index(name) for name in never]] = np.nan
    with pytest.raises(DataError, match=rf"{told} observed in the training part: .*drop=\{never!r}"):
        zoo.Data.from_array(x, names=names, split=split)
    assert zoo.Data.from_array(x, names=names, split=split, drop=never).missing == 0


# -- the watch ---------------------------------------------------------------------------------------------------------


class Ragged(nn.Module):
    """A likelihood whose scale is another at every entry."""

    def __init__(self, scale):
        super().__init__()
        self.scale = scale

    def forward(self, x):
        with pyro.plate("data", len(x), dim=-1):
            pyro.sample("z", dist.Normal(x.new_zeros(1), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(torch.zeros_like(self.scale), self.scale).to_event(1), obs=x)


def test_a_scale_where_nothing_was_observed_is_no_smallest_one():
    scale = np.random.default_rng(0).uniform(1, 2, size=(9, 4))
    x = np.where(np.random.default_rng(1).random((9, 4)) < 0.3, np.nan, 0.0)
    for row, column in ((2, 0), (5, 3), (7, 2)):
        scale[row, column], x[row, column] = 1e-6, np.nan
    of_observed = np.where(np.isnan(x), np.nan, scale)
    model = Observed(Ragged(torch.as_tensor(scale)), torch.zeros(4).double())
    with seeded(0):
        smallest = terms(*traces(model, prior(model), torch.as_tensor(x)), len(x)).min_scale
        seen = fitting._validate(model, prior(model), torch.as_tensor(x))
    assert smallest == np.nanmin(of_observed) > 1
    np.testing.assert_array_equal(seen.smallest, np.nanmin(of_observed, axis=0))
    np.testing.assert_array_equal(seen.row, np.nanargmin(of_observed, axis=0))
    np.testing.assert_array_equal(seen.median, np.nanquantile(of_observed, 0.5, axis=0, method="lower"))


def test_nor_is_one_of_a_column_in_a_table_of_several_kinds():
    scale = torch.tensor([[1e-6, 2.0], [3.0, 1e-7], [4.0, 5.0]])
    parts = [([0, 2], dist.Normal(0.0, scale)), ([1], dist.Bernoulli(torch.full((3, 1), 0.5)))]
    x = torch.tensor([[torch.nan, 1.0, 0.0], [0.0, torch.nan, torch.nan], [0.0, 0.0, 0.0]])
    assert smallest_scale(Gapped(PerColumn(parts), torch.zeros(3)), x) == 2
    assert smallest_scale(PerColumn(parts), torch.zeros(3, 3)) == scale.min()


def test_a_model_starts_from_the_moments_of_what_was_observed():
    """Half of all entries are missing: filled with one value, variances would be half as large."""
    x = torch.randn(4000, 3, generator=torch.Generator().manual_seed(0)) * torch.tensor([1.0, 5.0, 0.2]) + 2
    x[torch.rand(x.shape, generator=torch.Generator().manual_seed(1)) < 0.5] = torch.nan
    with seeded(0):
        lens = Observed(FactorAnalysis(3, 1), torch.tensor([9.0, 9.0, 9.0]))
        lens.initialise(x)
    torch.testing.assert_close(lens.model.decoder.bias.detach(), x.nanmean(0), rtol=0, atol=0.2)
    scale = (x - x.nanmean(0)).square().nanmean(0).sqrt()
    torch.testing.assert_close(lens.model.log_scale.exp().detach(), scale, rtol=0.05, atol=0)


def test_the_cell_of_a_missing_entry_has_no_volume():
    two = Gapped(dist.Normal(torch.zeros(2), torch.ones(2)).to_event(1), torch.zeros(2))
    x, found = torch.tensor([0.3, torch.nan]), []
    for width in (0.5, 8.0):
        with seeded(0):
            found.append(Dequantized(nn.Identity(), torch.tensor([0.5, width])).likelihood(two).log_prob(x))
    assert found[0] == found[1]
