"""What cannot be known of a likelihood or a guide is named, in the tree and in the report, and nothing else is lost."""

import json
from html import unescape

import numpy as np
import pyro.distributions as dist
import pytest
import torch
from scipy import stats

import zoo
from zoo.answers import ask
from zoo.context import seeded
from zoo.densities import distribution_function, moments
from zoo.errors import Unknown
from zoo.evaluation.calibration import calibration
from zoo.evaluation.evidence import weigh
from zoo.models import VAE
from zoo.pairs import VAEOptions, decoder, guide

pytestmark = pytest.mark.usefixtures("quick_scores", "blank_pictures")


class VonMises(VAE):
    outputs, support, measure = 1, "real", "density"

    def likelihood(self, z):
        (mean,) = self.decoder(z).unbind(-2)
        return dist.VonMises(mean, torch.ones_like(mean)).to_event(1)


class NegativeBinomial(VAE):
    outputs, support, measure = 1, "count", "mass"

    def likelihood(self, z):
        (logits,) = self.decoder(z).unbind(-2)
        return dist.NegativeBinomial(torch.full_like(logits, 3.0), logits=logits).to_event(1)


class ContinuousBernoulli(VAE):
    outputs, support, measure = 1, "unit", "density"

    def likelihood(self, z):
        (logits,) = self.decoder(z).unbind(-2)
        return dist.ContinuousBernoulli(logits=logits).to_event(1)


class LowRank(VAE):
    outputs, support, measure = 3, "real", "density"

    def likelihood(self, z):
        mean, factor, log_diagonal = self.decoder(z).unbind(-2)
        return dist.LowRankMultivariateNormal(mean, factor[..., None], log_diagonal.exp())


class LogitNormal(VAE):
    """A distribution of which torch knows the draws, the density and the distribution function, but no moment."""

    outputs, support, measure = 1, "unit", "density"

    def likelihood(self, z):
        (mean,) = self.decoder(z).unbind(-2)
        normal = dist.Normal(mean, torch.ones_like(mean))
        return dist.TransformedDistribution(normal, [dist.transforms.SigmoidTransform()]).to_event(1)


def fitted(model, data=None):
    """A run of one seed of a likelihood of one's own."""

    @zoo.register(
        "own", title="Own", summary="", formula="", support=model.support, base_measure=model.measure,
        bounded=model.measure == "mass", bound="0" if model.measure == "mass" else "", reference="",
    )  # fmt: skip
    def build(data: zoo.Data, options: VAEOptions):
        return model(decoder(data, options, model.outputs), options.latent_dim), guide(data, options)

    data = data or zoo.testing.example_data(model.support, features=3)
    pair = zoo.create("own", data, latent_dim=2, hidden=(8,))
    return zoo.fit(pair, data, seeds=1, steps=5, progress=False, on_divergence="warn"), data


class OfNoParts(VAE):
    outputs, support, measure = 1, "real", "density"

    def likelihood(self, z):
        (mean,) = self.decoder(z).unbind(-2)
        return Unheard(dist.Normal(mean, 1.0).to_event(1))


class Unheard(dist.TorchDistribution):
    """A joint density with draws, of which nothing else is known."""

    arg_constraints, support = {}, dist.constraints.real_vector

    def __init__(self, base):
        self.base = base
        super().__init__(base.batch_shape, base.event_shape, validate_args=False)

    def expand(self, batch_shape, _instance=None):
        return Unheard(self.base.expand(batch_shape))

    def log_prob(self, value):
        return self.base.log_prob(value)

    def sample(self, sample_shape=()):
        return self.base.sample(sample_shape)


ABSENT = {
    VonMises: {},
    NegativeBinomial: {},
    ContinuousBernoulli: {},
    LowRank: {},
    LogitNormal: {},
    OfNoParts: {"calibration": "what a feature is given the others under Unheard is not known."},
}
GROUPS = {
    "heldout", "calibration", "spread", "wellposedness", "posterior", "sample_stats", "posterior_predictive",
    "prior_predictive", "reconstruction", "observed_data",
}  # fmt: skip


@pytest.mark.parametrize("model", ABSENT)
def test_every_group_is_there_or_named(model, catalogue, tmp_path):
    run, data = fitted(model)
    tree = zoo.evaluate(run, data, samples=30, temperatures=2)
    absent = json.loads(tree.attrs["absent"])
    expected = ABSENT[model]
    assert {name: reason for name, reason in absent.items() if ": " not in name} == expected
    assert set(tree.children) & GROUPS == GROUPS - set(expected)
    page = unescape(zoo.report([run], tmp_path).read_text(encoding="utf-8"))
    assert all(reason in page for reason in expected.values())


def test_what_is_there_again_is_absent_no_more(catalogue):
    run, data = fitted(OfNoParts)
    run.tree["calibration"] = run.tree["validation"].copy()  # of an earlier evaluation, too
    run.tree.attrs["absent"] = json.dumps({"heldout": "of an earlier evaluation"})
    tree = zoo.evaluate(run, data, samples=30, temperatures=2)
    assert "heldout" not in json.loads(tree.attrs["absent"])
    assert "calibration" not in tree.children


def test_a_likelihood_whose_columns_are_not_known_has_no_calibration(catalogue):
    run, data = fitted(OfNoParts)
    with pytest.raises(Unknown, match="under Unheard is not known"):
        calibration(run, data, weigh(run, data, 20))


def test_what_torch_has_no_formula_for_is_had_by_draws():
    normal = dist.Normal(torch.zeros(4000), torch.ones(4000))
    squashed = dist.TransformedDistribution(normal, [dist.transforms.SigmoidTransform()])
    with seeded(0):
        mean, variance = moments(squashed)
        below, upto = distribution_function(dist.VonMises(torch.zeros(4000), 2.0), torch.full((4000,), 0.5))
        counted = distribution_function(dist.Geometric(torch.full((4000,), 0.3)), torch.full((4000,), 2.0))
    assert torch.equal(below, upto)
    exact = stats.logistic.cdf(stats.norm.ppf((np.arange(20_000) + 0.5) / 20_000))
    np.testing.assert_allclose([mean.mean(), variance.mean()], [exact.mean(), exact.var()], atol=2e-3)
    np.testing.assert_allclose(upto.mean(), stats.vonmises(2.0).cdf(0.5), atol=3e-3)
    np.testing.assert_allclose([end.mean() for end in counted], stats.geom(0.3).cdf([2, 3]), atol=3e-3)


def test_a_mass_that_is_not_known_is_dequantised_and_says_why(catalogue):
    rng = np.random.default_rng(0)
    values = np.column_stack([rng.poisson(4.0, size=(60, 3)), np.full(60, 2)]).astype(float)
    run, data = fitted(LowRank, zoo.Data.from_array(values, name="counts", support="count"))
    tree = zoo.evaluate(run, data, samples=50, temperatures=2)
    reason = "the mass of a cell under LowRankMultivariateNormal is not known."
    absent = json.loads(tree.attrs["absent"])
    assert tree["heldout"].attrs["mass"] == "dequantized"
    assert absent["heldout: cells"] == absent["calibration: cells"] == reason
    assert "log_evidence_varying" in tree["heldout"]


def test_a_bug_is_not_taken_for_what_is_not_known(catalogue):
    class Unfinished(dist.Normal):
        def cdf(self, value):
            raise NotImplementedError("to be written")

    class Buggy(VonMises):
        def likelihood(self, z):
            (mean,) = self.decoder(z).unbind(-2)
            return Unfinished(mean, torch.ones_like(mean)).to_event(1)

    run, data = fitted(Buggy)
    with pytest.raises(NotImplementedError, match="to be written"):
        zoo.evaluate(run, data, samples=30, temperatures=2)


@pytest.mark.parametrize(
    ("fn", "what", "told"),
    [
        (dist.VonMises(0.0, 1.0), "cdf", "the distribution function of VonMises is not known"),
        (dist.Poisson(torch.ones(2)).to_event(1), "icdf", "the icdf of Poisson is not known"),
    ],
)
def test_a_question_that_torch_does_not_answer(fn, what, told):
    with pytest.raises(Unknown, match=told):
        ask(fn, what, torch.tensor(0.5))
    assert ask(dist.Normal(1.0, 2.0), "variance") == 4.0
