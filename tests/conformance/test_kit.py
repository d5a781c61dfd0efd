"""The kit catches what it is there to catch: each pair here is broken in one way."""

from dataclasses import dataclass

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import nn

import zoo
from zoo.models import VAE, ConstrainedVariance, LearnedVariance
from zoo.pairs import ConstrainedOptions, VAEOptions, decoder, guide


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


class OutsidePlate(VAE):
    def forward(self, x):
        with pyro.plate("rows", len(x), dim=-1):
            z = pyro.sample("z", dist.Normal(x.new_zeros(self.latent_dim), 1.0).to_event(1))
            pyro.sample("x", self.likelihood(z), obs=x)

    likelihood = LearnedVariance.likelihood


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


def register(model, other_guide=None, bounded=False):
    @zoo.register(
        "broken",
        title="Broken",
        summary="",
        formula="",
        support="real",
        bounded=bounded,
        bound="b",
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
    with pytest.raises(AssertionError, match=r"latents are \['z'\], the guide's \['y'\]"):
        zoo.testing.check_pair("broken")


def test_a_bounded_pair_has_to_compute_its_bound(catalogue):
    register(LearnedVariance, bounded=True)
    with pytest.raises(AssertionError, match="log_density_bound"):
        zoo.testing.check_pair("broken")


def test_options_have_to_be_frozen(catalogue):
    @dataclass
    class Thawed:
        latent_dim: int = 2

    @zoo.register("broken", title="", summary="", formula="", support="real", bounded=False, reference="")
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
        model = ConstrainedVariance(decoder(data, options, 2), options.latent_dim, options.floor)
        return model, guide(data, options)

    assert zoo.testing.check_pair("own") == list(zoo.testing.CHECKS)
    assert "own" in zoo.list_pairs()


class PoissonDecoder(VAE):
    def likelihood(self, z):
        return dist.Poisson(self.decoder(z)[..., 0, :].exp()).to_event(1)

    def log_density_bound(self, features):  # noqa: ARG002
        return 0.0


class BetaDecoder(VAE):
    def likelihood(self, z):
        a, b = self.decoder(z).unbind(-2)
        return dist.Beta(1 + a.exp(), 1 + b.exp()).to_event(1)


class StudentDecoder(VAE):
    """Heavy tails: no standard deviation."""

    def likelihood(self, z):
        mean, log_scale = self.decoder(z).unbind(-2)
        return dist.StudentT(2.0, mean, log_scale.exp()).to_event(1)


class LowRankDecoder(VAE):
    def likelihood(self, z):
        mean, factor, log_diagonal = self.decoder(z).unbind(-2)
        return dist.LowRankMultivariateNormal(mean, factor[..., None], log_diagonal.exp())


@pytest.mark.parametrize(
    ("model", "outputs", "support", "measure"),
    [
        (PoissonDecoder, 1, "count", "mass"),
        (BetaDecoder, 2, "unit", "density"),
        (StudentDecoder, 2, "real", "density"),
        (LowRankDecoder, 3, "real", "density"),
    ],
)
def test_likelihoods_of_other_kinds_pass_and_are_scored(catalogue, model, outputs, support, measure):
    """One class and one registration, whatever the support, on data with a constant column too."""
    bounded = measure == "mass"

    @zoo.register(
        "other", title="", summary="", formula="", support=support, base_measure=measure,
        bounded=bounded, bound="0" if bounded else "", reference="",
    )  # fmt: skip
    def build(data: zoo.Data, options: VAEOptions):
        return model(decoder(data, options, outputs), options.latent_dim), guide(data, options)

    assert zoo.testing.check_pair("other") == list(zoo.testing.CHECKS)
    example = zoo.testing.example_data(support)
    values = np.concatenate([example.train, example.validation, example.test])
    values[:, 3] = 1.0 if support == "count" else 0.25
    data = zoo.Data.from_array(values, name="with a constant column", support=support)
    run = zoo.fit(zoo.create("other", data), data, seeds=1, steps=5, progress=False, on_divergence="warn")
    tree = zoo.evaluate(run, data, samples=30)
    assert tree["heldout/log_evidence"].notnull().all()
    assert tree["heldout/log_evidence_varying"].notnull().all()
    if bounded:
        assert (tree["heldout/log_evidence"] <= 0).all()
