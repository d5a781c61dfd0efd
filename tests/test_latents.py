"""Latents of any support as one real vector, annealed and sampled there, and discrete ones summed out."""

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from scipy import stats

from zoo.context import pyro_context, seeded
from zoo.errors import Unknown
from zoo.evaluation.annealing import anneal
from zoo.evaluation.reference import nuts
from zoo.latents import latents, log_density, real_vector

SUPPORTS = {
    "real": dist.Normal(torch.zeros(3), 1.0).to_event(1),
    "positive": dist.Gamma(torch.ones(2), 1.0).to_event(1),
    "one number": dist.LogNormal(0.0, 1.0),
    "unit": dist.Beta(torch.ones(2), 2.0).to_event(1),
    "interval": dist.Uniform(torch.tensor([-1.0, 2.0]), torch.tensor([0.0, 5.0])).to_event(1),
    "simplex": dist.Dirichlet(torch.ones(4)),
    "matrix": dist.Normal(torch.zeros(2, 3), 1.0).to_event(2),
}


def program(fn):
    def declare(x):
        with pyro.plate("data", len(x), dim=-1):
            pyro.sample("first", dist.Normal(torch.zeros(2, dtype=x.dtype), 1.0).to_event(1))
            pyro.sample("z", fn.expand([len(x)]))

    return declare


@pytest.mark.parametrize("support", SUPPORTS)
def test_a_vector_goes_there_and_back_and_knows_how_it_stretches(support):
    fn, x = SUPPORTS[support], torch.zeros(3, 1)
    with seeded(0), pyro.plate("samples", 5, dim=-2):
        trace = poutine.trace(program(fn)).get_trace(x)
    vector = real_vector(trace)
    assert vector.names == ("first", "z")
    u = vector.flatten({name: trace.nodes[name]["value"] for name in vector.names}).double()
    assert u.shape[:2] == (5, 3)
    values, volume = vector.values(u)
    assert fn.support.check(values["z"].float()).all()
    torch.testing.assert_close(values["z"].float(), trace.nodes["z"]["value"], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(vector.flatten(values), u, rtol=1e-6, atol=1e-7)
    assert volume.shape == (5, 3)
    if support != "simplex":  # which has a number more than it has dimensions
        whole = torch.func.jacrev(lambda at: torch.cat([v.flatten() for v in vector.values(at)[0].values()]))(u[0, 0])
        torch.testing.assert_close(volume[0, 0], torch.linalg.slogdet(whole).logabsdet)


class Conjugate(torch.nn.Module):
    """A latent with bounds and a datum whose evidence and posterior are known; a guide that is too narrow or wide."""

    def __init__(self, prior, likelihood, guide):
        super().__init__()
        self.prior, self.given, self.q = prior, likelihood, guide

    def forward(self, x):
        with pyro.plate("data", len(x), dim=-1):
            z = pyro.sample("z", self.prior)
            pyro.sample("x", self.given(z).to_event(1), obs=x)

    def guide(self, x):
        with pyro.plate("data", len(x), dim=-1):
            pyro.sample("z", self.q)


def number(value):
    return torch.tensor([value], dtype=torch.float64)


BOUNDED = {
    "gamma": (
        Conjugate(
            dist.Gamma(number(2.0), number(1.5)).to_event(1),
            dist.Poisson,
            dist.Gamma(number(4.0), number(2.0)).to_event(1),
        ),
        lambda x: stats.nbinom(2.0, 1.5 / 2.5).logpmf(x),
        lambda x: stats.gamma(2.0 + x, scale=1 / 2.5),
    ),
    "beta": (
        Conjugate(
            dist.Beta(number(2.0), number(3.0)).to_event(1),
            lambda z: dist.Binomial(5, z),
            dist.Beta(number(8.0), number(8.0)).to_event(1),
        ),
        lambda x: stats.betabinom(5, 2.0, 3.0).logpmf(x),
        lambda x: stats.beta(2.0 + x, 3.0 + 5 - x),
    ),
}  # fmt: skip
COUNTS = torch.tensor([[0.0], [1.0], [2.0], [4.0]], dtype=torch.float64)


@pytest.mark.parametrize("name", BOUNDED)
def test_a_latent_with_bounds_is_annealed(name):
    model, evidence, _ = BOUNDED[name]
    with seeded(0), pyro_context():
        found = anneal(model, model.guide, COUNTS, temperatures=30, chains=2000)
    off = (found.log_evidence - torch.as_tensor(evidence(COUNTS[:, 0].numpy()))).abs()
    assert (off < 4 * found.error).all() and (found.error < 0.02).all()


@pytest.mark.parametrize("name", BOUNDED)
def test_chains_stay_within_the_bounds_of_a_latent(name):
    model, _, posterior = BOUNDED[name]
    with seeded(0), pyro_context():
        found = nuts(model, COUNTS[:3], chains=1, warmup=80, draws=400)
    assert model.prior.support.check(torch.as_tensor(found.z)).all()
    for row, x in enumerate(COUNTS[:3, 0].numpy()):
        exact = posterior(x)
        assert found.z[:, :, row].mean() == pytest.approx(exact.mean(), abs=0.2 * exact.std())
        assert found.z[:, :, row].std() == pytest.approx(exact.std(), rel=0.2)


class Clusters(torch.nn.Module):
    """Two clusters of z, told apart by a component that is drawn with it."""

    def forward(self, x):
        with pyro.plate("data", len(x), dim=-1):
            c = pyro.sample("component", dist.Categorical(x.new_tensor([0.3, 0.7])))
            z = pyro.sample("z", dist.Normal(x.new_tensor([-2.0, 1.0])[c][..., None], 0.5).to_event(1))
            pyro.sample("x", dist.Normal(z, 0.8).to_event(1), obs=x)

    def guide(self, x):
        with pyro.plate("data", len(x), dim=-1):
            c = pyro.sample("component", dist.Categorical(x.new_tensor([0.5, 0.5])), infer={"enumerate": "parallel"})
            pyro.sample("z", dist.Normal(x.new_tensor([-1.5, 1.5])[c][..., None], 0.4).to_event(1))


def mixture(z):
    weights, centres = np.array([0.3, 0.7]), np.array([-2.0, 1.0])
    return np.log((weights * stats.norm(centres, 0.5).pdf(np.asarray(z)[..., None])).sum(-1))


def test_a_discrete_latent_is_summed_out_of_a_density():
    model, x = Clusters(), torch.tensor([[0.5], [-1.0]], dtype=torch.float64)
    z = torch.tensor([[[0.0], [-1.0]], [[2.0], [-2.0]], [[0.3], [0.1]]], dtype=torch.float64)
    with pyro_context():
        found = log_density(model, x, {"z": z})
        of_guide = log_density(model.guide, x, {"z": z})
    by_hand = mixture(z[..., 0]) + stats.norm(z[..., 0], 0.8).logpdf(x[:, 0])
    np.testing.assert_allclose(found, by_hand, rtol=1e-12)
    halves = stats.norm([-1.5, 1.5], 0.4).pdf(z.numpy()).mean(-1)
    np.testing.assert_allclose(of_guide, np.log(halves), rtol=1e-12)
    assert latents(model.guide, x) == (("z",), ("component",))
    assert latents(model, x) == (("component", "z"), ())


def test_a_latent_beside_a_discrete_one_is_annealed_and_sampled():
    model, x = Clusters(), torch.tensor([[0.5], [-1.0], [-3.0]], dtype=torch.float64)
    grid = np.linspace(-8, 8, 20_001)
    joint = mixture(grid) + stats.norm(grid, 0.8).logpdf(x.numpy())
    evidence = np.log(np.exp(joint).sum(-1) * (grid[1] - grid[0]))
    posterior = np.exp(joint - evidence[:, None]) * (grid[1] - grid[0])
    with seeded(0), pyro_context():
        found = anneal(model, model.guide, x, temperatures=30, chains=2000)
        chains = nuts(model, x, chains=1, warmup=80, draws=400)
    assert ((found.log_evidence - torch.as_tensor(evidence)).abs() < 4 * found.error).all()
    mean = posterior @ grid
    deviation = np.sqrt(posterior @ grid**2 - mean**2)
    assert (np.abs(chains.z.mean((0, 1))[:, 0] - mean) < 0.25 * deviation).all()


def test_a_latent_with_no_end_of_values_is_neither_summed_nor_moved():
    def counts(x):
        with pyro.plate("data", len(x), dim=-1):
            pyro.sample("many", dist.Poisson(x.new_ones(())))

    with seeded(0), pytest.raises(Unknown, match="latent 'many' has too many values to sum out"):
        anneal(counts, counts, torch.zeros(2, 1), temperatures=3)
