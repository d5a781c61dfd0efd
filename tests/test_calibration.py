"""Calibration against closed forms, and against decoders that are known to be too sure of themselves."""

import numpy as np
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from scipy import stats

import zoo
from zoo.context import Stream, seeded
from zoo.evaluation.calibration import (
    COVERAGES,
    _outside,
    band,
    calibration,
    crps,
    distribution_function,
    each_feature,
    each_feature_given_the_others,
    leave_one_feature_out,
    prior_predictive,
    reconstruction_check,
)
from zoo.guides import ClosedFormNormal
from zoo.models import ProbabilisticPCA
from zoo.models.ordinal import Binned, Levels

D, L, NOISE = 24, 4, 0.5


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
        prior = prior_predictive(model, x[:30], 40_000)
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
    closed = marginal.std() * (z * (2 * stats.norm.cdf(z) - 1) + 2 * stats.norm.pdf(z) - np.pi**-0.5)
    np.testing.assert_allclose(prior.crps / marginal.std(), closed / marginal.std(), atol=0.03)


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
    outside = _outside(found.pit.numpy()[None, None])
    assert outside.sum() == 0 if variance_times == 1 else outside.sum() == D
    assert flattered > covered + 0.02  # a draw that has seen the datum covers it more often


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
        few = crps(torch.randn(3, 200_000), x).mean()
        wide, moved = crps(2 * torch.randn(3, 200_000), x).mean(), crps(1 + torch.randn(3, 200_000), x).mean()
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


def test_uniform_values_stay_in_the_band_and_others_leave_it():
    pit = np.random.default_rng(1).uniform(size=(1, 1, 100, 1000))
    assert _outside(pit).mean() == pytest.approx(0.05, abs=0.02)
    assert (_outside(pit**1.7) == 1).mean() > 0.9


DATA = {
    "gaussian-constrained": lambda: zoo.load_data("iris"),
    "gaussian-two-stage": lambda: zoo.load_data("iris"),
    "gmm": lambda: zoo.load_data("iris"),
    "bernoulli": lambda: zoo.load_data("digits", binarize="threshold"),
    "categorical": lambda: zoo.load_data("digits"),
    "gaussian-binned": lambda: zoo.load_data("digits"),
    "gaussian-identity": lambda: zoo.load_data("digits"),
}


@pytest.mark.parametrize("name", DATA)
def test_the_group_of_every_kind_of_run(name):
    data = DATA[name]()
    run = zoo.fit(zoo.create(name, data), data, seeds=[2, 5], steps=60, progress=False)
    group = calibration(run, data, 50)
    assert group.sizes["chain"] == 2 and group.sizes["obs"] == len(data.test)
    constant = data.train_std == 0
    for variable in ("pit", "coverage", "outside", "ece", "crps", "log_score", "bad_k"):
        missing = group[variable].isnull().all([dim for dim in group[variable].dims if dim != "feature"])
        np.testing.assert_array_equal(missing, constant, err_msg=variable)
    pit = group["pit"].values[..., ~constant]
    assert ((pit >= 0) & (pit <= 1)).all()
    assert (group["coverage"].diff("level").values[..., ~constant] >= 0).all()
    np.testing.assert_array_equal(group["level"], COVERAGES)
    # knowing the other features helps, or at least does not hurt
    assert (group["log_score"].sum("feature").diff("kind") < 1).all()
