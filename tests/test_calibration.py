"""Calibration against closed forms, and against decoders that are known to be too sure of themselves."""

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from scipy import stats
from sklearn.decomposition import FactorAnalysis as FactorAnalysisByEM

import zoo
from zoo.context import Stream, seeded
from zoo.densities import distribution_function, each_feature, each_feature_given_the_others
from zoo.evaluation.calibration import (
    BAND,
    COVERAGES,
    UNTRUSTED,
    band,
    beyond_chance,
    calibration,
    p_values,
    prior_predictive,
    reconstruction_check,
)
from zoo.evaluation.evidence import weigh
from zoo.evaluation.predictions import crps
from zoo.evaluation.weighing import leave_one_feature_out
from zoo.guides import ClosedFormNormal
from zoo.models import FactorAnalysis, ProbabilisticPCA
from zoo.models.ordinal import Binned, Levels
from zoo.tree import BAD_K

D, L, NOISE = 24, 4, 0.5


class Still(torch.nn.Module):
    """A guide whose draws are 0, so that a linear model's mean is its bias, 0."""

    def forward(self, x):
        with pyro.plate("data", len(x), dim=-1):
            pyro.sample("z", dist.Delta(torch.zeros(len(x), L), event_dim=1))


def probabilistic_pca(variance_times=1.0):
    """The same loadings always; the noise variance is multiplied."""
    with seeded(3), torch.no_grad():
        model = ProbabilisticPCA(D, L)
        model.decoder.weight.normal_()
        model.log_scale.fill_(np.log(NOISE) + np.log(variance_times) / 2)
    return model.requires_grad_(False)


def covariance(model):
    weight = model.decoder.weight.double().numpy()
    return weight @ weight.T + float((2 * model.log_scale.double()).exp()) * np.eye(D)


@pytest.fixture(scope="module")
def truth():
    """2000 data of the model whose noise is not multiplied, and the distribution that they have."""
    model = probabilistic_pca()
    exact = stats.multivariate_normal(model.decoder.bias.double().numpy(), covariance(model))
    return torch.as_tensor(exact.rvs(2000, random_state=0), dtype=torch.float32), exact


def conditionals(exact, x):
    """Mean (N, D) and deviation (D,) of every feature given the others, from the joint covariance."""
    precision = np.linalg.inv(exact.cov_object.covariance)
    mean = x - (x - exact.mean) @ precision / precision.diagonal()
    return mean, precision.diagonal() ** -0.5


def test_leave_one_out_and_prior_are_the_exact_conditionals_and_marginals(truth):
    x, exact = truth
    x, model = x[:100], probabilistic_pca()
    with seeded(0):
        found, k = leave_one_feature_out(model, ClosedFormNormal(model), x, 2000)
        prior = prior_predictive(model, x[:30], 40_000, draws=10_000)
    rows = x.double().numpy()
    mean, deviation = conditionals(exact, rows)
    one = stats.norm(mean, deviation)
    assert k.shape == x.shape
    assert (k < 0.7).mean() > 0.9
    assert np.median(np.abs(found.pit.numpy() - one.cdf(rows))) < 0.01
    assert np.median(np.abs(found.log_density.numpy() - one.logpdf(rows))) < 0.03
    marginal = stats.norm(exact.mean, exact.cov_object.covariance.diagonal() ** 0.5)
    rows = rows[:30]
    np.testing.assert_allclose(prior.pit, marginal.cdf(rows), atol=0.02)
    z = (rows - marginal.mean()) / marginal.std()
    far = np.abs(z) > 1.5  # where even so many draws are few
    np.testing.assert_allclose(prior.log_density[~far], marginal.logpdf(rows)[~far], atol=0.05)
    np.testing.assert_allclose(prior.crps.numpy() / marginal.std(), crps_of_standard_normal(z), atol=0.03)


def crps_of_standard_normal(z):
    return z * (2 * stats.norm.cdf(z) - 1) + 2 * stats.norm.pdf(z) - np.pi**-0.5


def test_columns_are_scored_in_their_own_units():
    """Against the conditionals and the marginals of the normal that a linear model is."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(500, 2)) @ rng.normal(size=(2, 5)) + 0.5 * rng.normal(size=(500, 5))
    data = zoo.Data.from_array(x * np.array([1.0, 20.0, 0.3, 5.0, 100.0]))
    run = zoo.fit(zoo.create("linear-shared", data), data, seeds=1, steps=60, compile="off", progress=False)
    group, view = calibration(run, data, weigh(run, data, 1000)), run.pair.view
    model, rows = run._program(0, gaps=False).model.double(), data.test.values
    within = model.decoder.weight @ model.decoder.weight.T + (2 * model.log_scale).exp() * torch.eye(5).double()
    mean = view.center + view.scale * model.decoder.bias.numpy()
    exact = stats.multivariate_normal(mean, np.outer(view.scale, view.scale) * within.numpy())
    given, deviation = conditionals(exact, rows)
    marginal = exact.cov_object.covariance.diagonal() ** 0.5
    for kind, one in ("leave-one-out", stats.norm(given, deviation)), ("prior", stats.norm(exact.mean, marginal)):
        of = group.sel(kind=kind).isel(chain=0)
        np.testing.assert_allclose(of["log_score"], one.logpdf(rows).mean(0), atol=0.03)
        closed = one.std() * crps_of_standard_normal((rows - one.mean()) / one.std())
        np.testing.assert_allclose(of["crps"], closed.mean(0), rtol=0.06)
    pairs = np.abs(data.train.values[:, None] - data.train.values).mean((0, 1))
    errors = np.abs(data.train.values[:, None] - rows).mean((0, 1))
    np.testing.assert_allclose(group["crps_reference"], errors - pairs / 2, rtol=0.01)


@pytest.mark.parametrize(("variance_times", "expected"), [(1.0, 0.9), (0.5, 0.76)])
def test_a_decoder_too_sure_of_itself_is_caught(truth, variance_times, expected):
    x, exact = truth
    x, model = x[:1000], probabilistic_pca(variance_times)
    with seeded(0):
        found, _ = leave_one_feature_out(model, ClosedFormNormal(model), x, 500)
        flattered = reconstruction_check(model, ClosedFormNormal(model), x)[-1]
    covered = ((found.pit - 0.5).abs() < 0.45).double().mean()
    # what a normal of this model's conditional variance covers of the true one, in closed form
    told = np.linalg.inv(covariance(model)).diagonal() ** -0.5
    mean = x.double().numpy() - (x.double().numpy() - exact.mean) @ np.linalg.inv(covariance(model)) * told**2
    exactly = (np.abs(x.double().numpy() - mean) < stats.norm.ppf(0.95) * told).mean()
    assert float(covered) == pytest.approx(exactly, abs=0.01)
    assert exactly == pytest.approx(expected, abs=0.03)
    beyond = beyond_chance(p_values(found.pit.numpy()))
    assert beyond.sum() == 0 if variance_times == 1 else beyond.sum() == D
    assert flattered > covered + 0.02  # a draw that has seen the datum covers it more often


def test_draws_of_the_exact_posterior_leave_errors_as_large_as_the_noise(truth):
    """Of data and latents drawn together, x - mu is N(0, sigma^2), and so on in closed form."""
    x, _ = truth
    with seeded(0):
        found = reconstruction_check(probabilistic_pca(), ClosedFormNormal(probabilistic_pca()), x)
    expected = [0, NOISE, 0, 2**0.5 * NOISE**2, 0, 2**0.5 * NOISE]
    np.testing.assert_allclose(found[:-1], expected, rtol=0.01, atol=0.004)


def test_reconstructions_are_told_in_deviations_of_their_columns():
    """Of counts that no likelihood scales and of real numbers that all do: the same numbers, so that pairs compare."""
    rng = np.random.default_rng(0)
    counts = rng.poisson(np.exp(rng.normal(6, 1, (400, 1))) * np.array([[1.0, 2.0, 0.5]])).astype(float)
    data = zoo.Data.from_array(counts)
    found = []
    for name in ("mixed", "gaussian-identity"):
        run = zoo.fit(zoo.create(name, data, latent_dim=2), data, seeds=1, steps=20, compile="off", progress=False)
        found.append(calibration(run, data, weigh(run, data, 20))["reconstruction_check"][0, 0])
    for of in found:
        assert 0.3 < of.sel(statistic="mean RMSE") < 3
    told = data.train.values.std(0, ddof=0)
    np.testing.assert_allclose(data.unit, told, rtol=0.01)


def test_every_observed_entry_counts_once_in_a_reconstruction():
    model, x = probabilistic_pca(), torch.ones(2, D)
    x[1] = torch.nan
    x[1, 0] = 3.0
    with seeded(0), torch.no_grad():
        model.decoder.bias.zero_()
        bias = reconstruction_check(model, Still(), x, torch.zeros(D))[0]
    assert bias == pytest.approx((D * 1.0 + 3.0) / (D + 1), abs=1e-6)


@pytest.mark.parametrize("covariance", ["diagonal", "full", "tied", "spherical"])
def test_a_mixture_leaves_one_out_exactly(covariance, iris):
    pair = zoo.create("gmm-constrained", iris, components=3, covariance=covariance)
    run = zoo.fit(pair, iris, seeds=[1], steps=50, progress=False)
    x = torch.as_tensor(iris.scaled("test"), dtype=torch.float32)

    def of_seed(model, guide):
        found, k = leave_one_feature_out(model, guide, x, 7)
        every = poutine.trace(model).get_trace(x[:1]).nodes["component"]["fn"].probs.flatten()
        likelihood = model.likelihood(torch.arange(3))
        matrix = getattr(likelihood, "covariance_matrix", None)
        matrix = torch.diag_embed(likelihood.variance) if matrix is None else matrix
        return found.log_density, k, every, likelihood.mean, matrix.expand(3, 4, 4)

    ((found, k, *parameters),) = run.each_seed(of_seed, Stream.CALIBRATION)
    weights, means, matrices = (parameter.double().numpy() for parameter in parameters)

    def log_density(columns):
        parts = [
            np.log(weight) + stats.multivariate_normal(mean[columns], matrix[np.ix_(columns, columns)]).logpdf(
                x.double().numpy()[:, columns]
            )
            for weight, mean, matrix in zip(weights, means, matrices, strict=True)
        ]  # fmt: skip
        return np.logaddexp.reduce(parts)

    assert np.isneginf(k).all()
    for j in range(4):
        others = [i for i in range(4) if i != j]
        np.testing.assert_allclose(found[:, j], log_density([0, 1, 2, 3]) - log_density(others), atol=2e-3)


def test_features_of_a_normal_given_the_others():
    rng = np.random.default_rng(0)
    factor = np.tril(rng.normal(size=(4, 4))) + 2 * np.eye(4)
    x = rng.normal(size=4)
    full = stats.multivariate_normal(np.zeros(4), factor @ factor.T)
    normal = dist.MultivariateNormal(torch.zeros(4).double(), scale_tril=torch.as_tensor(factor))
    one = each_feature_given_the_others(normal, torch.as_tensor(x))
    for j in range(4):
        others = [i for i in range(4) if i != j]
        rest = stats.multivariate_normal(np.zeros(3), full.cov_object.covariance[np.ix_(others, others)])
        expected = full.logpdf(x) - rest.logpdf(x[others])
        assert float(one.log_prob(torch.as_tensor(x))[j]) == pytest.approx(expected)
    np.testing.assert_allclose(each_feature(normal).stddev, full.cov_object.covariance.diagonal() ** 0.5)


LEVELS = torch.arange(5.0)
DISCRETE = {
    "bernoulli": (dist.Bernoulli(torch.tensor(0.3)), LEVELS[:2]),
    "levels": (Levels(torch.tensor([0.1, 2.0, -1.0, 0.5, 0.0]), LEVELS), LEVELS),
    "binned": (Binned(dist.Normal(torch.tensor(1.3), torch.tensor(0.9)), 1.0, ends=(0.0, 4.0)), LEVELS),
}


@pytest.mark.parametrize("name", DISCRETE)
def test_distribution_functions_sum_the_masses(name):
    one, levels = DISCRETE[name]
    mass = one.log_prob(levels).exp()
    below, upto = distribution_function(one, levels)
    np.testing.assert_allclose(upto, mass.cumsum(0), atol=1e-6)
    np.testing.assert_allclose(below, mass.cumsum(0) - mass, atol=1e-6)


def test_crps_is_unbiased_and_least_at_the_truth():
    with seeded(0):
        x = torch.randn(200_000)
        few = crps(torch.randn(200_000, 3), x).mean()
        wide, moved = crps(2 * torch.randn(200_000, 3), x).mean(), crps(1 + torch.randn(200_000, 3), x).mean()
    assert float(few) == pytest.approx(np.pi**-0.5, abs=0.01)  # E CRPS of N(0, 1) under itself: 1 / sqrt(pi)
    assert wide > few + 0.05 and moved > few + 0.05


def test_the_band_holds_95_per_cent_of_uniform_samples():
    for count in (5, 40, 600):
        at, low, high = band(count)
        assert at[0] == 0
        assert at[-1] == 1
        pit = np.sort(np.random.default_rng(1).random((1500, count)), axis=1)
        ecdf = np.stack([np.searchsorted(sample, at, side="right") for sample in pit]) / count - at
        stay = ((ecdf >= low - 1e-9) & (ecdf <= high + 1e-9)).all(1).mean()
        assert 0.93 < stay < 0.995, (count, stay)


def test_p_values_are_uniform_where_the_pit_is_and_say_who_leaves_the_band():
    rng = np.random.default_rng(1)
    for count, steps in ((100, 0.05), (1000, 0.02)):  # an ECDF of few numbers has few values
        pit = rng.random((count, 2000))
        p = p_values(pit)
        assert stats.kstest(p, "uniform").statistic < steps + 1.36 / 2000**0.5
        assert (p <= 0.05).mean() == pytest.approx(0.05, abs=0.015)
        at, low, high = band(count)
        ecdf = np.stack([np.searchsorted(one, at, side="right") for one in np.sort(pit.T)]) / count - at
        np.testing.assert_array_equal(((ecdf < low - 1e-9) | (ecdf > high + 1e-9)).any(1), p <= 1 - BAND)
        assert (p_values(pit[:, :50] ** 1.7) < 0.05).mean() > 0.9
    few = p_values(rng.random((5, 20_000)))  # a table of all that can be, held at every one of its values
    for value in np.unique(few):
        assert (few <= value + 1e-12).mean() == pytest.approx(value, abs=4 * (value / len(few)) ** 0.5)


def test_a_family_of_calibrated_features_is_left_alone_and_one_that_is_not_is_named():
    rng = np.random.default_rng(2)
    pit = rng.random((400, 200, 20))  # families of 20 features
    p = p_values(pit)
    assert (p <= 0.05).sum(1).mean() == pytest.approx(1, abs=0.15)  # one in each leaves its band
    assert beyond_chance(p).any(1).mean() <= 0.05 + 2 * (0.05 * 0.95 / 400) ** 0.5
    pit[:100, :, 7] = stats.norm.cdf(np.sqrt(2) * stats.norm.ppf(pit[:100, :, 7]))  # the variance halved
    p = p_values(pit[:100])
    p[:, 3] = np.nan
    found = beyond_chance(p)
    assert np.isnan(found[:, 3]).all()
    assert found[:, 7].mean() > 0.9
    assert np.nanmean(np.delete(found, 7, axis=1)) < 0.01


def factor_analysis(features, latents, scale, seed):
    """A truth, and the linear-diagonal pair's programs set to it."""
    with seeded(seed), torch.no_grad():
        model = FactorAnalysis(features, latents)
        model.decoder.weight.normal_()
        model.log_scale.fill_(np.log(scale))
    return model.requires_grad_(False)


def data_of(model, count):
    z = torch.randn(count, model.latent_dim)
    return model.decoder(z) + model.log_scale.exp() * torch.randn(count, len(model.log_scale))


@pytest.mark.parametrize("scale", [0.05, 0.5])
@pytest.mark.parametrize("rows", [300, 1000])
def test_at_the_truth_as_many_leave_the_band_under_the_prior_as_by_chance(rows, scale):
    pit = []
    for seed in range(40):
        model = factor_analysis(10, 3, scale, seed)
        with seeded(seed):
            pit.append(prior_predictive(model, data_of(model, rows), 2, draws=30).pit.numpy())
    p = p_values(np.stack(pit))
    assert p.shape == (40, 10)
    assert 0.02 < (p <= 0.05).mean() < 0.08
    assert beyond_chance(p).any(1).mean() <= 0.125  # 5 % of 40 families, and two standard errors


def fitted(model, x):
    """The model with the maximum-likelihood parameters of x, as scikit-learn finds them."""
    best = FactorAnalysisByEM(model.latent_dim, tol=1e-4, svd_method="lapack").fit(x.double().numpy())
    other = FactorAnalysis(len(model.log_scale), model.latent_dim)
    with torch.no_grad():
        other.decoder.weight.copy_(torch.as_tensor(best.components_.T))
        other.decoder.bias.copy_(torch.as_tensor(best.mean_))
        other.log_scale.copy_(torch.as_tensor(best.noise_variance_).log() / 2)
    return other.requires_grad_(False)


def leave_one_out_p(model, x):
    """p values of the columns, those not judged not a number, as the group ``calibration`` has them."""
    found, k = leave_one_feature_out(model, ClosedFormNormal(model), x, 200)
    return np.where((k > BAD_K).mean(0) > UNTRUSTED, np.nan, p_values(found.pit.numpy()))


def test_given_the_others_the_truth_is_not_accused_and_its_estimate_seldom():
    at_truth, at_fit = [], []
    for seed in range(60):
        truth = factor_analysis(10, 3, 0.5, seed)
        with seeded(seed):
            x, train = data_of(truth, 300), data_of(truth, 1050)
            at_truth.append(leave_one_out_p(truth, x))
            at_fit += [leave_one_out_p(fitted(truth, train), x)] if seed < 20 else []
    of_truth, of_fit = ((np.array(p) <= 0.05).sum() / np.isfinite(p).sum() for p in (at_truth, at_fit))
    accused, misfit = (beyond_chance(np.array(p)) == 1 for p in (at_truth, at_fit))
    assert np.isfinite(at_truth).mean() > 0.8
    assert 0.03 < of_truth < 0.08
    assert accused.any(1).mean() <= 0.05 + 2 * (0.05 * 0.95 / 60) ** 0.5
    assert misfit.mean() < 0.05 < of_fit  # a misfit that many tests see


def test_a_column_that_alone_says_what_z_is_is_not_judged():
    truth = factor_analysis(10, 3, 0.5, 2005)  # its last column is all that one direction of z has
    with seeded(5):
        x = data_of(truth, 300)
        p = leave_one_out_p(truth, x)
    centred = (x - truth.decoder.bias).double()
    weight = truth.decoder.weight.double()
    precision = torch.linalg.inv(weight @ weight.T + 0.25 * torch.eye(10).double())
    exact = dist.Normal(0.0, 1.0).cdf(centred @ precision / precision.diagonal().sqrt()).numpy()
    assert np.isnan(p[9]) and p_values(exact)[9] > 0.05, "given the others the truth has a uniform PIT"


def rows_of_digits(**options):
    """150 digits and 20 of their pixels, of which three are constant in training."""
    data = zoo.load_data("digits")
    return zoo.Data.from_array(data.train.values[:150, 16:36], levels=range(17), **options)


DATA = {
    "gaussian-constrained": lambda: zoo.load_data("iris"),
    "gaussian-two-stage": lambda: zoo.load_data("iris"),
    "gmm": lambda: zoo.load_data("iris"),
    "bernoulli": lambda: rows_of_digits(binarize="threshold"),
    "categorical": rows_of_digits,
    "gaussian-binned": rows_of_digits,
    "gaussian-identity": rows_of_digits,
}


@pytest.mark.parametrize("name", DATA)
def test_the_group_of_every_kind_of_run(name):
    data = DATA[name]()
    run = zoo.fit(zoo.create(name, data), data, seeds=[2, 5], steps=60, progress=False)
    group = calibration(run, data, weigh(run, data, 50))
    assert group.sizes["chain"] == 2 and group.sizes["obs"] == len(data.test)
    constant = data.train_std == 0
    variables = ("pit", "coverage", "p_value", "outside", "beyond_chance", "ece", "crps", "log_score", "row_log_score",
                 "bad_k")  # fmt: skip
    for variable in variables:
        missing = group[variable].isnull().all([dim for dim in group[variable].dims if dim != "feature"])
        np.testing.assert_array_equal(missing, constant, err_msg=variable)
    pit = group["pit"].values[..., ~constant]
    assert ((pit >= 0) & (pit <= 1)).all()
    p = group["p_value"].values[..., ~constant]
    judged = np.isfinite(p)
    np.testing.assert_array_equal(judged[:, 0], group["bad_k"].values[:, ~constant] <= UNTRUSTED)
    assert judged[:, 1].all()
    np.testing.assert_array_equal(group["outside"].values[..., ~constant], np.where(judged, p <= 0.05, np.nan))
    for family, found in zip(
        p.reshape(4, -1), group["beyond_chance"].values[..., ~constant].reshape(4, -1), strict=True
    ):
        known = np.isfinite(family)
        np.testing.assert_array_equal(found[known], stats.false_discovery_control(family[known]) <= 0.05)
    np.testing.assert_array_equal(group["level"], COVERAGES)
    for level in COVERAGES:
        inside = ((pit > (1 - level) / 2) & (pit < (1 + level) / 2)).mean(2)
        np.testing.assert_allclose(group["coverage"].sel(level=level).values[..., ~constant], inside, atol=1e-6)
    shares = [np.apply_along_axis(lambda u: np.histogram(u, 6, (0, 1))[0] / len(u), 2, pit)]
    np.testing.assert_allclose(group["ece"].values[..., ~constant], np.square(1 / 6 - shares[0]).sum(2), atol=1e-6)
    of_rows = group["row_log_score"].mean("obs")
    np.testing.assert_allclose(of_rows, group["log_score"].sel(kind="leave-one-out"), rtol=1e-4, atol=1e-4)
    # knowing the other features helps, or at least does not hurt
    assert (group["log_score"].sum("feature").diff("kind") < 1).all()
