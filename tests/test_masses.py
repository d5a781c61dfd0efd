"""A log mass is never above 0, and what has none says so."""

import json
import math
from dataclasses import dataclass

import numpy as np
import pyro.distributions as dist
import pytest
import torch
from torch import nn

import zoo
from zoo import inference
from zoo.context import seeded
from zoo.errors import DataError, Unknown
from zoo.models import VAE
from zoo.models.emissions import LearnedNormal
from zoo.pairs import VAEOptions, decoder, guide


class ContinuousBernoulliDecoder(VAE):
    def likelihood(self, z):
        return dist.ContinuousBernoulli(logits=self.decoder(z)[..., 0, :]).to_event(1)


class Certain(VAE):
    """Called a mass, and a density of 2 everywhere: what a forgotten constant makes of it."""

    def likelihood(self, z):
        class Twice(dist.Bernoulli):
            def log_prob(self, value):
                return super().log_prob(value) + math.log(4)

        return Twice(logits=self.decoder(z)[..., 0, :]).to_event(1)


class Shifted(VAE):
    """Another prior than the standard normal one."""

    def __init__(self, decoder, latent_dim):
        super().__init__(decoder, latent_dim, LearnedNormal())

    def prior(self, x):
        return dist.Normal(x.new_ones(self.latent_dim), 2**0.5).to_event(1)


@dataclass(frozen=True)
class Options(VAEOptions):
    latent_dim: int = 2
    hidden: tuple[int, ...] = (8,)


def registered(name, model, outputs, **claims):
    @zoo.register(name, title=name, summary="", formula="", reference="", **claims)
    def build(data: zoo.Data, options: Options) -> tuple[nn.Module, nn.Module]:
        return model(decoder(data, options, outputs), options.latent_dim), guide(data, options)


@pytest.fixture
def coins():
    return zoo.Data.from_array(np.random.default_rng(0).random((80, 6)) < 0.5, name="coins")


def evaluated(name, data):
    run = zoo.fit(zoo.create(name, data), data, seeds=2, steps=5, progress=False, on_divergence="warn")
    return zoo.evaluate(run, data, samples=50, temperatures=0)


def test_a_likelihood_of_the_unit_interval_has_no_mass_on_zeros_and_ones(catalogue, coins):
    registered("own-continuous-bernoulli", ContinuousBernoulliDecoder, 1, support="unit", bounded=False)
    with pytest.raises(DataError, match="own-continuous-bernoulli is a model of unit data, and coins holds binary"):
        zoo.create("own-continuous-bernoulli", coins)


def test_the_refused_masses_would_have_added_up_to_more_than_one():
    density = dist.ContinuousBernoulli(logits=torch.tensor(1.3))
    total = sum(float(density.log_prob(torch.tensor(value)).exp()) for value in (0.0, 1.0))
    assert total > 1  # what a cell of width 1 at each value would have been given
    with pytest.raises(Unknown, match="not a density on the whole cell"):
        inference.Dequantized(nn.Identity(), torch.ones(1)).likelihood(density.expand([1]).to_event(1))


def test_a_mass_above_one_is_refused_where_it_is_computed(catalogue, coins):
    registered("certain", Certain, 1, support="binary", base_measure="mass", bounded=True, bound="0")
    with pytest.raises(
        Unknown, match=r"the log mass of row \d+ came out as \d\.\d nats, but a probability is at most 1"
    ):
        evaluated("certain", coins)


def test_a_dequantised_normal_has_masses_that_add_up_to_one():
    normal = dist.Normal(torch.tensor([2.3]), 0.8).to_event(1)
    cell = inference.Dequantized(nn.Identity(), torch.ones(1)).likelihood(normal.expand([4000]))
    with seeded(0):
        total = sum(float(cell.log_prob(torch.full((4000, 1), float(level))).exp().mean()) for level in range(-3, 9))
    assert total == pytest.approx(1, abs=0.02)


def test_a_witness_integrates_over_no_other_prior_than_the_pairs_own(catalogue, iris):
    registered("shifted", Shifted, 2, support="real", bounded=False)
    with pytest.raises(Unknown, match="integrated over a standard normal prior, and Shifted has another"):
        zoo.witness(zoo.create("shifted", iris), iris.train)
    tree = evaluated("shifted", iris)
    assert "standard normal prior" in json.loads(tree.attrs["absent"])["wellposedness"]
    assert "wellposedness" not in tree.children
