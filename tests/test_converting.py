"""Any Pyro model and guide as ArviZ has it, against a conjugate model whose posterior is known."""

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import SVI, Trace_ELBO
from pyro.infer.autoguide import AutoMultivariateNormal, AutoNormal
from scipy import stats

import zoo
from zoo.errors import OptionError
from zoo.testing import check_tree

X = torch.tensor([1.0, 2.5, 3.0, 0.5])
PRECISION = 1 / 4 + len(X)  # of a normal of variance 1 around a mean of variance 4
MEAN, SD = float(X.sum()) / PRECISION, PRECISION**-0.5


def conjugate(x):
    mean = pyro.sample("mean", dist.Normal(0.0, 2.0))
    pyro.deterministic("double", 2 * mean)
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Normal(mean, 1.0), obs=x)


def by_parameters(x):
    """The exact posterior, by parameters in Pyro's store."""
    pyro.sample("mean", dist.Normal(pyro.param("place", torch.tensor(MEAN)), pyro.param("width", torch.tensor(SD))))


@pytest.fixture(autouse=True)
def store():
    with pyro.get_param_store().scope():
        yield


def fitted(kind):
    torch.manual_seed(0)
    guide = kind(conjugate)
    svi = SVI(conjugate, guide, pyro.optim.Adam({"lr": 0.05}), Trace_ELBO(20, vectorize_particles=True))
    for _ in range(200):
        svi.step(X)
    return guide


@pytest.mark.parametrize("kind", [AutoNormal, AutoMultivariateNormal])
def test_a_conjugate_model_has_the_posterior_that_it_has(kind):
    with torch.random.fork_rng():
        guide = fitted(kind)
    before = sorted(pyro.get_param_store().keys())
    tree = zoo.to_arviz(conjugate, guide, X, draws=400, log_likelihood=True, name="conjugate")
    check_tree(tree)
    assert sorted(pyro.get_param_store().keys()) == before
    assert tree["posterior/mean"].mean() == pytest.approx(MEAN, abs=0.08)
    assert tree["posterior/mean"].std() == pytest.approx(SD, rel=0.15)
    np.testing.assert_allclose(tree["posterior/double"], 2 * tree["posterior/mean"], rtol=1e-6)
    assert tree.attrs["name"] == "conjugate"


def test_log_densities_are_those_of_scipy_and_their_difference_the_evidence():
    tree = zoo.to_arviz(conjugate, by_parameters, X, draws=50, log_likelihood=True, dims={"x": ["row"]})
    check_tree(tree)
    mean = tree["posterior/mean"].values[..., None]
    given = stats.norm.logpdf(X.numpy(), mean, 1)
    np.testing.assert_allclose(tree["log_likelihood/x"], given, rtol=1e-5)
    np.testing.assert_allclose(tree["log_prior/mean"], stats.norm.logpdf(mean[..., 0], 0, 2), rtol=1e-5)
    # of the exact posterior every weight is the evidence
    evidence = stats.multivariate_normal(cov=np.eye(4) + 4).logpdf(X.numpy())
    np.testing.assert_allclose(tree["sample_stats/lp"] - tree["sample_stats/lq"], evidence, rtol=1e-4)
    assert tree["posterior_predictive/x"].dims == ("chain", "draw", "row")
    assert np.abs(tree["posterior_predictive/x"] - tree["observed_data/x"]).min() > 0, "the data are handed back"


def test_predictions_have_the_moments_of_the_model():
    tree = zoo.to_arviz(conjugate, by_parameters, X, draws=800)
    assert tree["posterior_predictive/x"].std() == pytest.approx((SD**2 + 1) ** 0.5, rel=0.08)
    assert tree["prior_predictive/x"].std() == pytest.approx(5**0.5, rel=0.08)
    assert "log_likelihood" not in tree.children


def test_an_amortised_pair_of_the_zoo_and_its_warning(iris):
    pair = zoo.create("gaussian-constrained", iris, latent_dim=2, hidden=(8,))
    x = torch.as_tensor(pair.view.inward(iris.test.values[:5]), dtype=torch.float32)
    with pytest.warns(UserWarning, match="z: these latents belong to single data"):
        tree = zoo.to_arviz(pair.model, pair.guide, x, draws=20, log_likelihood=True)
    check_tree(tree)
    assert tree["posterior/z"].dims == ("chain", "draw", "data", "z_dim_0")
    assert tree["log_prior/z"].dims == ("chain", "draw", "data")


def test_a_latent_that_the_guide_leaves_out_is_named():
    with pytest.raises(OptionError, match="the guide has no value for mean"):
        zoo.to_arviz(conjugate, lambda _: None, X)


def test_what_is_no_program_is_told_so():
    with pytest.raises(OptionError, match="guide is of type int; give a Pyro program"):
        zoo.to_arviz(print, 3)
