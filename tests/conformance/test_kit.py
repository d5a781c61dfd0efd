"""The kit catches what it is there to catch: each pair here is broken in one way."""

from dataclasses import dataclass

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
