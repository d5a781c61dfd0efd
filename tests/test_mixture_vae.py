"""A component that is summed out beside a z that is drawn: the Gaussian mixture VAE and its guide."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from pyro import poutine
from pyro.infer import Trace_ELBO, TraceEnum_ELBO
from sklearn.metrics import adjusted_rand_score
from sklearn.mixture import GaussianMixture
from torch import nn

import zoo
from zoo.context import pyro_context, seeded
from zoo.inference import log_weights, posterior_draws, responsibility
from zoo.lenses import observed
from zoo.models import VAE, GaussianMixtureVAE
from zoo.models.emissions import LearnedNormal
from zoo.objectives import ELBO, MIWAE
from zoo.testing import make_subject

pytestmark = pytest.mark.usefixtures("quick_scores", "blank_pictures")
OPTIONS = {"latent_dim": 2, "hidden": (8,), "components": 3}


@pytest.fixture(params=["mean-field", "full-rank"])
def subject(request):
    """In double precision, away from the start, where all components are equally likely and as wide."""
    made = make_subject("gmvae", guide=request.param, **OPTIONS)
    with torch.no_grad(), seeded(0):
        for parameter in (made.pair.model.prior.logits, made.pair.model.prior.log_scales):
            parameter.add_(0.5 * torch.randn_like(parameter))
    return made


def summed_out(subject):
    """The same model as a VAE under a mixture, and its guide without the component."""
    model = subject.pair.model
    return VAE(model.decoder, model.latent_dim, model.emission, model.prior), subject.pair.guide.guide


def test_four_ways_to_the_elbo_are_one(subject):
    """The zoo's and Pyro's, with the component as a latent and with its sum as the prior: values and gradients."""
    pair, x = subject.pair, subject.x
    plain = summed_out(subject)
    ways = [
        lambda: ELBO()(pair.model, pair.guide, x).value * len(x),
        lambda: TraceEnum_ELBO(max_plate_nesting=1).differentiable_loss(pair.model, pair.guide, x),
        lambda: ELBO()(*plain, x).value * len(x),
        lambda: Trace_ELBO(max_plate_nesting=1).differentiable_loss(*plain, x),
    ]
    found = []
    for way in ways:
        with seeded(0), pyro_context(validate=True):
            loss = way()
        found.append((loss.detach(), *torch.autograd.grad(loss, list(subject.parameters().values()))))
    for other in found[1:]:
        torch.testing.assert_close(other, found[0], rtol=1e-9, atol=1e-10)


def test_weights_are_those_with_the_component_summed_out(subject):
    pair = subject.pair
    found = []
    for programs in ((pair.model, pair.guide), summed_out(subject)):
        with seeded(0), torch.no_grad(), pyro_context():
            found.append((log_weights(*programs, subject.x, 5), MIWAE(5)(*programs, subject.x).value))
    torch.testing.assert_close(*found, rtol=1e-9, atol=1e-10)


def test_what_was_observed_alone_has_the_same_weights(subject):
    pair = subject.pair
    x = torch.where(subject.x > 0.5, torch.nan, subject.x)
    found = []
    for programs in ((pair.model, pair.guide), summed_out(subject)):
        with seeded(0), torch.no_grad(), pyro_context():
            found.append(log_weights(*observed(*programs, torch.zeros(x.shape[1]).double()), x, 5))
    assert found[0].isfinite().all()
    torch.testing.assert_close(*found, rtol=1e-9, atol=1e-10)


def test_components_given_z_are_those_of_scikit_learn(subject):
    model = subject.pair.model
    prior = model.prior
    sklearn = GaussianMixture(3, covariance_type="diag")
    sklearn.weights_ = prior.logits.softmax(0).detach().numpy()
    sklearn.means_ = prior.means.detach().numpy()
    sklearn.precisions_cholesky_ = (-prior.log_scales).exp().detach().numpy()
    z = 2 * np.random.default_rng(0).normal(size=(40, 2))
    found = model.component_logits(torch.as_tensor(z)).exp().detach()
    np.testing.assert_allclose(found, sklearn.predict_proba(z), rtol=1e-10)
    assert model.component_logits(torch.as_tensor(z).reshape(4, 10, 2)).shape == (4, 10, 3)


def test_components_are_drawn_as_often_as_they_are_likely(subject):
    with seeded(0), torch.no_grad(), pyro_context():
        draws = posterior_draws(subject.pair.model, subject.pair.guide, subject.x, 4000)
        expected = responsibility(subject.pair.guide, subject.x)
    assert draws.latents["z"].shape == (4000, 7, 2) and draws.latents["component"].shape == (4000, 7)
    drawn = torch.nn.functional.one_hot(draws.latents["component"], 3).double().mean(0)
    assert ((drawn - expected).abs() < 5 * (0.25 / 4000 + 0.25 / 1000) ** 0.5).all()
    # at the draws themselves the two densities differ by p(x, z) / q(z | x) alone
    trace = poutine.trace(poutine.condition(summed_out(subject)[0], {"z": draws.latents["z"]})).get_trace(subject.x)
    trace.compute_log_prob()
    joint = trace.nodes["x"]["log_prob"] + trace.nodes["z"]["log_prob"]
    logits = subject.pair.model.component_logits(draws.latents["z"])
    of_component = logits.gather(-1, draws.latents["component"][..., None])[..., 0]
    torch.testing.assert_close(draws.lp, (joint + of_component).detach(), rtol=1e-9, atol=1e-9)


def test_the_witness_is_that_of_the_emission(iris):
    pair = zoo.create("gmvae", iris, **OPTIONS)
    found = zoo.witness(pair, iris.train, sharpness=(4, 8, 16))
    assert not found.grows and np.isfinite(found.bound) and (found.log_likelihood <= found.bound).all()
    with seeded(0):
        free = GaussianMixtureVAE(pair.model.decoder, 2, LearnedNormal(), 3)
    assert zoo.witness(replace(pair, model=free), iris.train, sharpness=(4, 8, 16)).grows
    assert (free.prior.means != 0).any(), "the pair's own weights are left as they are"


def test_it_finds_clusters_and_goes_through_everything(tmp_path):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 300)
    data = zoo.Data.from_array(4 * rng.normal(size=(3, 5))[labels] + rng.normal(size=(300, 5)), name="blobs")
    pair = zoo.create("gmvae", data, latent_dim=2, hidden=(16,), components=3)
    run = zoo.fit(pair, data, seeds=2, steps=800, checks=10, learning_rate=1e-2, progress=False)
    tree = zoo.evaluate(run, data, samples=100, temperatures=1)
    of_datum = tree["posterior/responsibility"]
    assert of_datum.dims == ("chain", "obs", "component")
    np.testing.assert_allclose(of_datum.sum("component"), 1, rtol=1e-5)
    truth = labels[data.test["obs"].values]
    best = int(tree["heldout/log_evidence"].mean("obs").values.argmax())  # the other may have one cluster for two
    assert adjusted_rand_score(truth, of_datum[best].argmax("component")) > 0.95
    assert tree["posterior/component_index"].dims == ("chain", "draw", "obs")
    assert tree["posterior/z"].dims == ("chain", "draw", "obs", "latent")
    assert run.encode(data.test.values).shape == (2, data.test.sizes["obs"], 2)
    np.testing.assert_allclose(tree["spread/component_weight"].sum("component"), 1, rtol=1e-5)
    assert tree["spread/certainty"][best] > 0.8
    assert np.isfinite(tree["heldout/log_evidence"]).all()
    hidden = data.test.values.copy()
    hidden[:, 0] = np.nan
    filled = run.impute(hidden, draws=50)
    off = np.sqrt(np.square(filled[best, ..., 0].mean(0) - data.test.values[:, 0]).mean())
    assert off < 0.6 * data.test.values[:, 0].std()
    zoo.report([run], tmp_path)


def test_the_guides_program_may_be_any_with_a_z(subject):
    class Twice(nn.Module):
        """The same program, whose plate is entered by somebody else's code."""

        def __init__(self, guide):
            super().__init__()
            self.inner = guide

        def forward(self, x):
            return self.inner(x)

    guide = type(subject.pair.guide)(Twice(subject.pair.guide.guide), subject.pair.model)
    with seeded(0), pyro_context(validate=True):
        trace = poutine.trace(guide).get_trace(subject.x)
    trace.compute_log_prob()
    assert [*trace.stochastic_nodes] == ["z", "data", "component"]
    assert trace.nodes["component"]["log_prob"].shape == trace.nodes["z"]["log_prob"].shape == (7,)
