"""The kit catches what it is there to catch: each pair here is broken in one way."""

from dataclasses import dataclass

import likelihoods
import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from scipy import stats
from torch import nn

import zoo
from zoo import inference
from zoo.context import seeded
from zoo.errors import OptionError
from zoo.models import VAE
from zoo.models.emissions import ConstrainedNormal, LearnedNormal
from zoo.pairs import ConstrainedOptions, VAEOptions, decoder, guide

pytestmark = pytest.mark.usefixtures("quick_scores")


class LearnedVariance(VAE):
    """A VAE of normal columns of learned variance, as a class that broken ones are made from."""

    def __init__(self, decoder, latent_dim):
        super().__init__(decoder, latent_dim, LearnedNormal())


class HalfConstant(VAE):
    """A Gaussian whose normalising constant is left out."""

    def likelihood(self, z):
        mean, log_variance = self.decoder(z).unbind(-2)

        class NoConstant(dist.Normal):
            def log_prob(self, value):
                return super().log_prob(value) + 0.9189

        return NoConstant(mean, (log_variance / 2).exp()).to_event(1)


class WithoutEvent(VAE):
    def likelihood(self, z):
        return dist.Normal(self.decoder(z)[..., 0, :], 1.0)


class OutsidePlate(LearnedVariance):
    def forward(self, x):
        with pyro.plate("rows", len(x), dim=-1):
            z = pyro.sample("z", dist.Normal(x.new_zeros(self.latent_dim), 1.0).to_event(1))
            pyro.sample("x", self.likelihood(z), obs=x)


class IdleParameter(LearnedVariance):
    def __init__(self, *args):
        super().__init__(*args)
        self.idle = nn.Parameter(torch.zeros(3))


class ClaimsABound(LearnedVariance):
    def log_density_bound(self, features):
        return -features / 2.0


class OtherLatent(nn.Module):
    def __init__(self, encoder):
        super().__init__()
        self.encoder = encoder

    def forward(self, x):
        with pyro.plate("data", len(x), dim=-1):
            pyro.sample("y", dist.Normal(self.encoder(x)[..., 0, :], 1.0).to_event(1))


BROKEN = {
    "normalised": (HalfConstant, "adds up to 1 only to 1.5"),
    "sites": (WithoutEvent, "are the features an event"),
    "gradients": (IdleParameter, "no gradient reaches model.idle"),
    "bound": (ClaimsABound, "log density .* bound"),
}


def register(model, other_guide=None, bounded=False, remedies=()):
    @zoo.register(
        "broken",
        title="Broken",
        summary="",
        formula="",
        support="real",
        bounded=bounded,
        bound="b",
        remedies=remedies,
        reference="",
    )
    def build(data: zoo.Data, options: VAEOptions):
        network = decoder(data, options, 2)
        right = guide(data, options)
        return model(network, options.latent_dim), other_guide(right.encoder) if other_guide else right


@pytest.mark.parametrize("check", BROKEN)
def test_a_broken_model_fails(catalogue, check):
    model, message = BROKEN[check]
    register(model, bounded=check == "bound")
    with pytest.raises(AssertionError, match=f"broken fails the check '{check}': .*{message}"):
        zoo.testing.check_pair("broken")


def test_a_plate_of_another_name_fails(catalogue):
    register(OutsidePlate)
    with pytest.raises(AssertionError, match="one plate named data"):
        zoo.testing.check_pair("broken")


def test_a_guide_with_other_latents_fails(catalogue):
    register(LearnedVariance, OtherLatent)
    with pytest.raises(AssertionError, match="'sites': the model has the latent 'z' and the guide has none"):
        zoo.testing.check_pair("broken")


class OneLatentMore(VAE):
    """A mixture as its prior, whose component is summed out in the model alone."""

    outputs = 1

    def likelihood(self, z):
        return dist.Normal(self.decoder(z)[..., 0, :], 0.5).to_event(1)

    def forward(self, x):
        with pyro.plate("data", len(x), dim=-1):
            component = pyro.sample("component", dist.Categorical(x.new_ones(3)), infer={"enumerate": "parallel"})
            mean = x.new_tensor([-1.0, 0.0, 1.0])[component].unsqueeze(-1) + x.new_zeros(self.latent_dim)
            z = pyro.sample("z", dist.Normal(mean, 1.0).to_event(1))
            pyro.sample("x", self.likelihood(z), obs=x)


def test_a_latent_of_one_program_alone_is_refused_wherever_it_would_be_left_out(catalogue, iris):
    """Its density would be missing from every weight: evidence too high by log 3 here, without a word."""
    name = likelihoods.register(OneLatentMore, name="one-more", support="real", bounded=False)
    pair = zoo.create(name, iris, latent_dim=2)
    x = torch.as_tensor(pair.view.inward(iris.test.values), dtype=torch.float32)
    remedy = "the model has the latent 'component' and the guide has none: give both programs the same latents"
    with pytest.raises(AssertionError, match=remedy):
        zoo.testing.check_pair(name)
    with pytest.raises(OptionError, match=remedy):
        zoo.fit(pair, iris, seeds=1, steps=5, progress=False)
    with seeded(0), pytest.raises(OptionError, match=remedy):
        inference.log_weights(pair.model, pair.guide, x, 3)


class LogNormalDecoder(VAE):
    outputs = 2

    def likelihood(self, z):
        mean, log_variance = self.decoder(z).unbind(-2)
        return dist.LogNormal(mean, (log_variance / 2).exp()).to_event(1)


class PoissonDecoder(VAE):
    outputs = 1

    def likelihood(self, z):
        return dist.Poisson(self.decoder(z)[..., 0, :].exp()).to_event(1)


class NotWritten(VAE):
    outputs = 1

    def likelihood(self, z):
        raise NotImplementedError


@pytest.mark.parametrize(
    ("decoder", "support", "said"),
    [
        (
            LogNormalDecoder,
            "real",
            r"LogNormal is defined only for GreaterThan\(lower_bound=0.0\), and the data hold -",
        ),
        (PoissonDecoder, "count", 'Poisson gives values a probability mass, .* base_measure="mass" and bounded=True'),
    ],
)
def test_a_likelihood_of_other_data_than_its_card_says_is_refused(catalogue, decoder, support, said):
    name = likelihoods.register(decoder, name="wrong", support=support, bounded=False)
    with pytest.raises(AssertionError, match=f"'sites': {said}"):
        zoo.testing.check_pair(name)
    data = zoo.testing.example_data(support)
    with pytest.raises(OptionError, match=said):
        zoo.fit(zoo.create(name, data), data, seeds=1, steps=5, progress=False)


def test_the_kit_says_where_a_pair_of_ones_own_breaks(catalogue):
    name = likelihoods.register(NotWritten, name="unwritten", support="real", bounded=False)
    with pytest.raises(AssertionError, match=r"fails the check 'sites': NotImplementedError \(.*test_kit.py, "):
        zoo.testing.check_pair(name)


def test_a_bounded_pair_has_to_compute_its_bound(catalogue):
    register(LearnedVariance, bounded=True)
    with pytest.raises(AssertionError, match="log_density_bound"):
        zoo.testing.check_pair("broken")


def test_remedies_have_to_be_pairs(catalogue):
    register(LearnedVariance, remedies=("nope",))
    with pytest.raises(AssertionError, match="remedy 'nope' is not a pair"):
        zoo.testing.check_pair("broken")


def test_options_have_to_be_frozen(catalogue):
    @dataclass
    class Thawed:
        latent_dim: int = 2

    @zoo.register("broken", title="Own", summary="", formula="", support="real", bounded=False, reference="")
    def build(data: zoo.Data, options: Thawed):
        shaped = VAEOptions(latent_dim=options.latent_dim)
        return LearnedVariance(decoder(data, shaped, 2), options.latent_dim), guide(data, shaped)

    with pytest.raises(AssertionError, match="make Thawed frozen"):
        zoo.testing.check_pair("broken")


def test_a_sound_pair_of_ones_own_passes(catalogue):
    @zoo.register(
        "own",
        title="Own",
        summary="",
        formula="",
        support="real",
        bounded=True,
        bound="-D/2 log 2πξ",
        reference="",
    )
    def build(data: zoo.Data, options: ConstrainedOptions):
        model = VAE(decoder(data, options, 2), options.latent_dim, ConstrainedNormal(options.floor))
        return model, guide(data, options)

    assert zoo.testing.check_pair("own") == []
    assert "own" in zoo.list_pairs()


class BetaDecoder(VAE):
    outputs = 2

    def likelihood(self, z):
        a, b = self.decoder(z).unbind(-2)
        return dist.Beta(0.5 + a.exp(), 0.5 + b.exp()).to_event(1)


def beta():
    return likelihoods.register(BetaDecoder, name="beta", support="unit", bounded=False)


@pytest.mark.parametrize(
    "register",
    [
        likelihoods.student_t,
        likelihoods.poisson,
        likelihoods.negative_binomial,
        likelihoods.continuous_bernoulli,
        likelihoods.low_rank,
        beta,
    ],
)
def test_likelihoods_of_other_kinds_pass_and_are_scored(catalogue, register):
    """One class and one registration, whatever the support, on data with a constant column too."""
    name = register()
    unknown = [answer.partition(":")[0] for answer in zoo.testing.check_pair(name)]
    assert unknown == ["cells"] * (register in (likelihoods.low_rank, beta))  # neither has a distribution function
    support = zoo.card(name).support
    example = zoo.testing.example_data(support)
    values = np.concatenate([example.train, example.validation, example.test])
    values[:, 3] = 1.0 if support == "count" else 0.25
    data = zoo.Data.from_array(values, name="with a constant column", support=support)
    run = zoo.fit(zoo.create(name, data), data, seeds=1, steps=5, progress=False, on_divergence="warn")
    tree = zoo.evaluate(run, data, samples=30, temperatures=2)
    assert tree["heldout/log_evidence"].notnull().all()
    assert tree["heldout/log_evidence_varying"].notnull().all()
    if zoo.card(name).base_measure == "mass":
        assert (tree["heldout/log_evidence"] <= 0).all()


def checked(name, *checks):
    subject = zoo.testing.make_subject(name)
    for check in checks:
        zoo.testing.CHECKS[check](subject)


@pytest.mark.parametrize("df", [0.5, 1.0, 2.0])
def test_a_bound_is_checked_where_there_is_no_mean_or_no_variance(catalogue, df):
    checked(likelihoods.student_t(df), "normalised", "bound")


def test_a_bound_that_is_a_little_too_low_is_found_out(catalogue):
    peak = stats.t(1).logpdf(0) - np.log(0.1)
    with pytest.raises(AssertionError, match=f"log density {peak:.6g} of 1 columns, bound {peak - 0.01:.6g}"):
        checked(likelihoods.student_t(1.0, lowered=0.01), "bound")


def test_the_peak_is_found_uphill_where_no_moment_points_to_it(catalogue):
    fn = dist.Gamma(torch.full((1, 5), 3.0).double(), torch.ones(1, 5).double(), validate_args=False).to_event(1)
    with seeded(0):
        found = zoo.testing._highest(fn, torch.full((1, 5), 40.0).double(), smooth=True)
    assert found == pytest.approx(5 * stats.gamma(3).logpdf(2), abs=1e-4)


class Nowhere(likelihoods.StudentT):
    def likelihood(self, z):
        fn = super().likelihood(z)
        fn.base_dist.df = torch.full_like(fn.base_dist.df, torch.nan)
        return fn


def test_what_is_not_a_number_passes_no_check(catalogue):
    name = likelihoods.register(Nowhere, name="nowhere", support="real", bounded=True, bound="b")
    with pytest.raises(AssertionError, match="no finite log density was seen"):
        checked(name, "bound")
    with pytest.raises(AssertionError, match="draws of one feature are not all finite"):
        checked(name, "normalised")


def test_every_density_of_real_numbers_is_integrated_well(catalogue):
    checked(likelihoods.cauchy(), "normalised")
    checked(likelihoods.two_peaks(), "normalised")


def test_a_likelihood_of_fewer_numbers_than_its_card_says_is_refused(catalogue):
    with pytest.raises(AssertionError, match=r"says real data, and the likelihood is defined only for GreaterThan"):
        checked(likelihoods.gamma(), "normalised")
