"""The mixture baselines against scikit-learn's."""

import numpy as np
import pytest
import torch
from sklearn.mixture import GaussianMixture as Sklearn

import zoo
from zoo.context import seeded
from zoo.inference import LogWeights, encode, log_mean_exp
from zoo.models import GaussianMixture

TO_SKLEARN = {"diagonal": "diag", "full": "full", "spherical": "spherical", "tied": "tied"}


@pytest.fixture(scope="module")
def tables(iris):
    return iris.scaled("train"), iris.scaled("test")


@pytest.mark.parametrize("covariance", TO_SKLEARN)
def test_density_and_memberships_equal_sklearns_at_the_same_parameters(tables, iris, covariance):
    train, test = tables
    reference = Sklearn(3, covariance_type=TO_SKLEARN[covariance], random_state=0, reg_covar=0).fit(train)
    pair = zoo.create("gmm", iris, components=3, covariance=covariance)
    model = pair.model.double()
    factors = {
        "diagonal": lambda c: np.log(c),
        "spherical": lambda c: np.log(c)[:, None],
        "full": np.linalg.cholesky,
        "tied": lambda c: np.linalg.cholesky(c)[None],
    }[covariance](reference.covariances_)
    with torch.no_grad(), seeded(0):
        model.logits.copy_(torch.as_tensor(np.log(reference.weights_)))
        model.means.copy_(torch.as_tensor(reference.means_))
        if covariance in ("diagonal", "spherical"):
            model.covariance.log_excess.copy_(torch.as_tensor(factors))
        else:
            factors = torch.as_tensor(factors)
            model.covariance.log_diagonal.copy_(factors.diagonal(dim1=-2, dim2=-1).log())
            model.covariance.below.copy_(factors.tril(-1) / factors.diagonal(dim1=-2, dim2=-1)[..., None])
        x = torch.as_tensor(test)
        evidence = log_mean_exp(LogWeights(5)(model, pair.guide, x))
        memberships = encode(pair.guide, x)
    np.testing.assert_allclose(evidence, reference.score_samples(test), atol=1e-5)
    np.testing.assert_allclose(memberships, reference.predict_proba(test), atol=1e-6)


@pytest.mark.parametrize("covariance", TO_SKLEARN)
def test_a_floor_holds_for_every_eigenvalue(covariance):
    with torch.no_grad(), seeded(0):
        model = GaussianMixture(4, 5, covariance, floor=0.25).double()
        for parameter in model.parameters():
            parameter.normal_(0, 3)
        likelihood = model.likelihood(torch.arange(4))
    matrices = getattr(likelihood, "covariance_matrix", None)
    if matrices is None:
        matrices = torch.diag_embed(likelihood.variance)
    assert float(torch.linalg.eigvalsh(matrices).min()) >= 0.25 * (1 - 1e-9)


@pytest.mark.parametrize("covariance", TO_SKLEARN)
@pytest.mark.parametrize("floor", [0.0, 0.01])
def test_it_starts_positive_definite_at_the_data_even_with_constant_columns(digits, covariance, floor):
    x = torch.as_tensor(digits.scaled("train"), dtype=torch.float32)
    with seeded(0):
        model = GaussianMixture(10, digits.features, covariance, floor)
        model.initialise(x)
    rows = {tuple(row) for row in x.tolist()}
    assert all(tuple(mean) in rows for mean in model.means.tolist())
    likelihood = model.likelihood(torch.arange(10))
    constant = torch.as_tensor(digits.train_std == 0)
    assert likelihood.log_prob(x[0]).isfinite().all()
    if covariance != "spherical":
        assert torch.allclose(likelihood.variance[:, constant], torch.ones(()), rtol=1e-4)


def test_trained_on_separated_clusters_it_reaches_sklearns_likelihood():
    rng = np.random.default_rng(1)
    centres = np.array([[0, 0], [12, 0], [0, 12]])
    x = np.concatenate([c + rng.normal(size=(120, 2)) * (1 + i) / 2 for i, c in enumerate(centres)])
    data = zoo.Data.from_array(x, name="clusters")
    pair = zoo.create("gmm", data, components=3, covariance="full")
    run = zoo.fit(pair, data, seeds=3, steps=600, learning_rate=0.05, progress=False)
    best = Sklearn(3, n_init=10, random_state=0).fit(data.train.values)
    ours = run.log_evidence(data.train.values).mean(1).max()
    assert ours == pytest.approx(best.score(data.train.values), abs=0.02)
