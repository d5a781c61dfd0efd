"""Linear pairs against scikit-learn, SciPy and the closed form."""

from dataclasses import replace

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from programs import Perturbed
from scipy.stats import multivariate_normal, norm
from sklearn.decomposition import PCA, FactorAnalysis
from torch import nn

import zoo
from zoo.context import Stream, seeded
from zoo.evaluation.annealing import anneal
from zoo.evaluation.evidence import heldout, weigh
from zoo.evaluation.tails import pareto_k
from zoo.guides import ClosedFormNormal
from zoo.inference import LogWeights, log_mean_exp
from zoo.models import FactorAnalysis as FactorModel
from zoo.models import ProbabilisticPCA

RANK = 5


def random_model(kind, features, latent_dim, seed=0):
    with seeded(seed), torch.no_grad():
        model = kind(features, latent_dim)
        for parameter in model.parameters():
            parameter.normal_(0, 0.5)
    return model.requires_grad_(False)


@pytest.mark.parametrize("kind", [ProbabilisticPCA, FactorModel])
def test_evidence_and_posterior_are_those_of_a_normal(kind):
    model = random_model(kind, 6, 3)
    weight, bias = model.decoder.weight.double().numpy(), model.decoder.bias.double().numpy()
    psi = np.diag((2 * model.log_scale.double()).exp().expand(6).numpy())
    covariance = weight @ weight.T + psi
    x = np.random.default_rng(0).normal(size=(20, 6))
    rows = torch.as_tensor(x)
    np.testing.assert_allclose(model.log_evidence(rows), multivariate_normal(bias, covariance).logpdf(x), rtol=1e-10)
    marginal = multivariate_normal(bias[[4, 1]], covariance[np.ix_([4, 1], [4, 1])])
    found = model.log_evidence(rows, torch.tensor([4, 1]))
    np.testing.assert_allclose(found, marginal.logpdf(x[:, [4, 1]]), rtol=1e-10)
    gain = weight.T @ np.linalg.inv(covariance)  # by regression of z on x, not by completing a square
    mean, scale_tril = model.posterior(rows)
    np.testing.assert_allclose(mean, (x - bias) @ gain.T, atol=1e-9)
    np.testing.assert_allclose(scale_tril @ scale_tril.T, np.eye(3) - gain @ weight, atol=1e-9)
    np.testing.assert_array_equal(scale_tril, scale_tril.tril())


def maximum(scaled, rank):
    """The shared variance and the log likelihood at the maximum, nats per row (Tipping & Bishop, eq. 7 to 9)."""
    eigenvalues = np.linalg.eigvalsh(np.cov(scaled.T, bias=True))[::-1]
    rest, features = eigenvalues[rank:].mean(), scaled.shape[1]
    spectrum = np.log(eigenvalues[:rank]).sum() + (features - rank) * np.log(rest)
    return rest, -(features * (np.log(2 * np.pi) + 1) + spectrum) / 2


def trained(name, data, **settings):
    return zoo.fit(zoo.create(name, data, latent_dim=RANK), data, keep="last", checks=10, progress=False, **settings)


def evidence(run, data, part):
    return run.log_evidence(getattr(data, part).values).mean(1) + data.scaling.log_volume


@pytest.mark.parametrize("name", ["digits", "wine", pytest.param("breast-cancer", marks=pytest.mark.slow)])
def test_linear_shared_reaches_probabilistic_pca(name):
    data = zoo.load_data(name)
    run = trained("linear-shared", data, seeds=2, steps=600, learning_rate=0.02)
    reference = PCA(RANK, svd_solver="full").fit(data.scaled("train"))
    rest, highest = maximum(data.scaled("train"), RANK)
    train = evidence(run, data, "train")
    assert (np.abs(train - reference.score(data.scaled("train"))) < 0.05).all()
    assert (np.abs(evidence(run, data, "test") - reference.score(data.scaled("test"))) < 0.05).all()
    assert (train <= highest + 1e-4).all()
    variance = (2 * run.weights["model.log_scale"].double()).exp().numpy()
    np.testing.assert_allclose(variance, rest, rtol=0.01)


def varying(data):
    columns = np.flatnonzero(data.train_std > 0)
    parts = {part: getattr(data, part).values[:, columns] for part in ("train", "validation", "test")}
    split = [part for part, rows in parts.items() for _ in rows]
    return zoo.Data.from_array(np.concatenate(list(parts.values())), scaling=data.scaling.kind, split=split)


@pytest.mark.parametrize("name", [pytest.param("digits", marks=pytest.mark.slow), "wine"])
def test_linear_diagonal_reaches_factor_analysis(name):
    data = zoo.load_data(name)
    if data.constant_columns:
        data = varying(data)
    run = trained("linear-diagonal", data, seeds=1, steps=800, learning_rate=0.03)
    scaled = data.scaled("train")
    reference = FactorAnalysis(RANK, svd_method="lapack", tol=1e-4, max_iter=20_000).fit(scaled)
    assert abs(evidence(run, data, "train")[0] - reference.score(scaled)) < 0.1


def test_the_learned_guide_finds_the_exact_one():
    data = zoo.load_data("wine")
    run = trained("linear-shared:linear", data, seeds=1, steps=800, learning_rate=0.02)
    x = torch.as_tensor(data.scaled("test"), dtype=torch.float32)

    def gap(model, guide):
        weights = LogWeights(1000)(model, guide, x).double()
        return model.log_evidence(x).mean() - weights.mean()  # KL(q || p), the ELBO's distance from the evidence

    (distance,) = run.each_seed(gap, Stream.EVIDENCE)
    assert 0 <= distance < 0.05


@pytest.mark.parametrize(("spread", "shift"), [(1.0, 0.0), (1.2, 0.2), (0.9, 0.1)])
@pytest.mark.parametrize("kind", [ProbabilisticPCA, FactorModel])
def test_importance_weights_give_the_exact_evidence(kind, spread, shift):
    model = random_model(kind, 10, RANK)
    with seeded(1):
        x = torch.randn(300, 10)
        weights = LogWeights(5000)(model, Perturbed(model, spread, shift), x)
    estimate = log_mean_exp(weights)
    error = (weights - estimate).exp().std(0) / 5000**0.5
    within = (estimate - model.log_evidence(x)).abs() <= 3 * error + 1e-4
    assert within.double().mean() >= 0.99


@pytest.mark.usefixtures("quick_scores")
def test_a_model_that_knows_its_evidence_is_scored_by_it():
    model = random_model(ProbabilisticPCA, 4, 2)
    x = torch.zeros(3, 4)
    np.testing.assert_array_equal(LogWeights(50).known(model, ClosedFormNormal(model), x), model.log_evidence(x)[None])
    data = zoo.load_data("iris")
    run = zoo.fit(zoo.create("linear-shared", data, latent_dim=2), data, seeds=1, steps=20, progress=False)
    group = zoo.evaluate(run, data, samples=50)["heldout"].to_dataset()
    assert group.attrs["exact"] == 1 and (group["method"] == 0).all() and (group["log_evidence_se"] == 0).all()
    np.testing.assert_allclose(group["log_evidence"], run.log_evidence(data.test.values), rtol=1e-6)


def test_a_linear_model_starts_in_the_units_of_each_column():
    """A constant column, which has no deviation, has the unit 1."""
    x = torch.randn(2000, 3, generator=torch.Generator().manual_seed(0)) * torch.tensor([1.0, 0.01, 0.0]) + 5
    with seeded(0):
        model = FactorModel(3, 2)
    drawn = model.decoder.weight.detach().clone()
    model.initialise(x)
    unit = torch.tensor([x[:, 0].std(), x[:, 1].std(), 1.0])
    torch.testing.assert_close(model.log_scale.exp().detach(), unit, rtol=1e-3, atol=0)
    torch.testing.assert_close(model.decoder.weight.detach(), drawn * unit[:, None], rtol=1e-3, atol=1e-6)
    torch.testing.assert_close(model.decoder.bias.detach(), x.mean(0))


# -- annealing, against the evidence that a linear model knows ---------------------------------------------------------


@pytest.mark.parametrize(("spread", "shift"), [(0.5, 0.0), (1.0, 1.0), (0.6, 0.7)])
def test_annealing_is_right_where_importance_weights_are_not(spread, shift):
    model = random_model(ProbabilisticPCA, 20, 8)
    guide = Perturbed(model, spread, shift)
    with seeded(0):
        x = torch.randn(60, 20)
        k = pareto_k(LogWeights(1000)(model, guide, x).numpy())
        found = anneal(model, guide, x, temperatures=200)
    assert (k > 0.7).mean() > 0.9
    gap = found.log_evidence - model.log_evidence(x)
    assert gap.mean().abs() < 0.05
    assert (gap.abs() <= 4 * found.error + 0.05).double().mean() >= 0.95


def test_annealed_weights_are_unbiased():
    model = random_model(FactorModel, 3, 2)
    with seeded(0):
        x = torch.randn(4, 3)
        found = anneal(model, Perturbed(model, 0.8, 0.3), x, temperatures=4, chains=40_000)
    assert (found.error < 0.02).all()
    assert ((found.log_evidence - model.log_evidence(x)).abs() < 4 * found.error + 1e-4).all()


class Beside(nn.Module):
    """z ~ N(0, I) and x | z ~ N(z, 0.1), and as a guide normals that are too wide and beside its posterior."""

    def __init__(self, guide):
        super().__init__()
        self.guide = guide

    def forward(self, x):
        with pyro.plate("data", len(x), dim=-1):
            mean, scale = (0.9 * x, 0.3) if self.guide else (torch.zeros_like(x), 1.0)
            z = pyro.sample("z", dist.Normal(mean, scale).to_event(1))
            if not self.guide:
                pyro.sample("x", dist.Normal(z, 0.1).to_event(1), obs=x)


def test_eight_chains_are_unbiased_too():
    """Their own spread must not decide how far they move."""
    with seeded(0):
        found = anneal(Beside(guide=False), Beside(guide=True), torch.ones(6000, 2), temperatures=20, chains=8)
    ratio = (found.log_evidence - 2 * norm.logpdf(1, 0, 1.01**0.5)).exp()
    assert ratio.mean().item() == pytest.approx(1, abs=4 * ratio.std().item() / 6000**0.5)


def test_bad_weights_are_replaced_by_the_rule_and_not_by_size(digits):
    run = zoo.fit(zoo.create("gaussian-constrained", digits), digits, seeds=2, steps=200, progress=False)
    few = replace(digits, test=digits.test[:90])
    group = heldout(run, few, weigh(run, few, 200), 5)
    bad = (group["pareto_k"] > 0.7).values
    assert bad.any() and not bad.all()
    np.testing.assert_array_equal(group["method"].values == 2, bad)
    change = (group["log_evidence"] - group["log_evidence_importance"]).values
    np.testing.assert_array_equal(change[~bad], 0)
    assert (change[bad] > 0).any() and (change[bad] < 0).any()
    share = (group["log_evidence"] - group["log_evidence_varying"]).values
    plain = heldout(run, few, weigh(run, few, 200), 0)
    np.testing.assert_allclose(share, (plain["log_evidence"] - plain["log_evidence_varying"]).values, atol=1e-9)
    assert (plain["method"] == 1).all()
