"""What a guide loses, against the closed forms of linear models and of normals."""

from functools import partial
from types import SimpleNamespace

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from programs import Perturbed
from torch import nn

import zoo
from zoo.context import Stream, seeded
from zoo.errors import Unknown
from zoo.evaluation.evidence import heldout, weigh
from zoo.evaluation.inference_gaps import GapFinder, gaps
from zoo.evaluation.reference import agreement, guide_moments, nuts, reference_posterior, wasserstein
from zoo.evaluation.spread import _of_components, _of_latents, aggregate_mmd, information, spread, squared_mmd
from zoo.evaluation.tails import pareto_k
from zoo.guides import ClosedFormNormal
from zoo.inference import LogWeights, predictive_draws
from zoo.models import ProbabilisticPCA


def probabilistic_pca(features, latent_dim):
    with seeded(0), torch.no_grad():
        model = ProbabilisticPCA(features, latent_dim)
        model.decoder.weight.normal_(0, 0.7)
        model.log_scale.fill_(-0.3)
    return model.requires_grad_(False)


def simulated(model, count):
    with seeded(1):
        return predictive_draws(model, torch.zeros(count, model.decoder.out_features), 1)[0]


class MeanField(nn.Module):
    """The best normal with independent latents, variances 1 / M_jj for a posterior precision M, its mean moved."""

    def __init__(self, model, shift):
        super().__init__()
        self.model, self.shift = model, shift

    def forward(self, x):
        mean, scale_tril = self.model.posterior(x)
        deviation = torch.linalg.inv(scale_tril @ scale_tril.T).diagonal().rsqrt()
        with pyro.plate("data", len(x), dim=-1):
            pyro.sample("z", dist.Normal(mean + self.shift, deviation.expand_as(mean)).to_event(1))


@pytest.fixture(scope="module")
def chains():
    """Markov chains on the posterior of a linear model with 3 latents, for 2 data."""
    model = probabilistic_pca(10, 3)
    x = simulated(model, 2)
    with seeded(2):
        return model, x, nuts(model, x, chains=2, warmup=60, draws=300)


def test_nuts_finds_the_exact_posterior(chains):
    from arviz_stats.base import array_stats

    model, x, found = chains
    mean, scale_tril = model.posterior(x)
    exact = (scale_tril @ scale_tril.T).diagonal().sqrt().numpy()
    assert found.z.shape == (2, 300, 2, 3)
    assert array_stats.rhat(found.z, chain_axis=0, draw_axis=1).max() < 1.02
    size = array_stats.ess(found.z, chain_axis=0, draw_axis=1)
    pooled = found.z.reshape(-1, 2, 3)
    assert (np.abs(pooled.mean(0) - mean.numpy()) < 4 * exact / np.sqrt(size)).all()
    np.testing.assert_allclose(pooled.std(0), np.broadcast_to(exact, (2, 3)), rtol=0.15)
    assert found.divergences.sum() == 0


@pytest.mark.parametrize(("times", "shift"), [(1.0, 0.0), (0.5, 0.0), (1.0, 1.0)])
def test_the_guide_beside_the_reference(chains, times, shift):
    model, x, found = chains
    with seeded(0):
        beside = agreement(found.z, *guide_moments(Perturbed(model, times, shift), x), np.ones(3))
    assert np.median(beside.scale_ratio) == pytest.approx(times, rel=0.05)
    assert np.median(beside.shift) == pytest.approx(shift, abs=0.1)
    _, scale_tril = model.posterior(x)
    moved = shift * float(scale_tril.square().sum(1).sqrt().square().sum().sqrt())
    narrowed = (1 - times) * float(scale_tril.square().sum().sqrt())
    np.testing.assert_allclose(beside.distance, np.hypot(moved, narrowed), atol=0.1)


@pytest.mark.parametrize("latent_dim", [1, pytest.param(2, marks=pytest.mark.slow), 8])
def test_a_halved_scale_is_caught_at_any_dimension(latent_dim):
    model = probabilistic_pca(16, latent_dim)
    guide = Perturbed(model, spread=0.5)
    x = simulated(model, 2)
    with seeded(3):
        found = nuts(model, x, chains=1, warmup=60, draws=300)
        ratio = agreement(found.z, *guide_moments(guide, x), np.ones(latent_dim)).scale_ratio
    assert np.median(ratio) == pytest.approx(0.5, abs=0.05)


def test_a_halved_scale_has_bad_weights_with_eight_latents():
    model = probabilistic_pca(16, 8)
    with seeded(4):
        k = pareto_k(LogWeights(5000)(model, Perturbed(model, spread=0.5), simulated(model, 100)).numpy())
    assert (k > 0.7).mean() >= 0.9


def test_wasserstein_of_commuting_normals():
    rng = np.random.default_rng(0)
    basis = np.linalg.qr(rng.normal(size=(3, 3))).Q
    a, b = (basis * d**2 @ basis.T for d in (np.array([1.0, 2.0, 0.5]), np.array([0.7, 1.0, 3.0])))
    mean = rng.normal(size=3)
    expected = np.sqrt(mean @ mean + np.square([0.3, 1.0, -2.5]).sum())
    assert float(wasserstein(mean, a, np.zeros(3), b)) == pytest.approx(expected)


def kl(mean, covariance, other_mean, other_covariance):
    normal = torch.distributions.MultivariateNormal
    return torch.distributions.kl_divergence(normal(mean, covariance), normal(other_mean, other_covariance))


def test_a_distance_is_in_deviations_of_the_prior():
    """Between N(1, 4) and N(0, 1), of a latent whose prior has the deviation 2."""
    z = np.random.default_rng(0).normal(size=(2, 40_000, 1, 1))
    z = (z - z.mean()) / z.std(ddof=1)
    found = agreement(z, np.array([[1.0]]), np.array([[[4.0]]]), np.array([2.0]))
    assert found.distance.item() == pytest.approx(np.sqrt(0.5**2 + 0.5**2), rel=1e-6)
    assert found.scale_ratio.item() == pytest.approx(2) and found.shift.item() == pytest.approx(1)


def test_an_exact_guide_has_no_gap():
    model = probabilistic_pca(10, 3)
    x = simulated(model, 20)
    with seeded(5):
        found = gaps(model, ClosedFormNormal(model), x)
    np.testing.assert_allclose(found.elbo, model.log_evidence(x), atol=1e-4)
    np.testing.assert_allclose(found.optimal, found.elbo, atol=0.02)


@pytest.mark.parametrize("shift", [0.0, 0.5])
def test_gaps_are_those_between_normals(shift):
    model = probabilistic_pca(10, 3)
    x = simulated(model, 20)
    with seeded(6):
        found = gaps(model, MeanField(model, shift), x)
    mean, scale_tril = model.posterior(x)
    covariance = scale_tril @ scale_tril.T
    best = torch.linalg.inv(covariance).diagonal().reciprocal().diag()
    approximation = float(kl(mean[0], best, mean[0], covariance))
    of_both = float(kl(mean[0] + shift, best, mean[0], covariance))
    lost = model.log_evidence(x)
    assert approximation > 0.05
    assert float((lost - found.optimal).mean()) == pytest.approx(approximation, abs=0.02)
    assert float((lost - found.elbo).mean()) == pytest.approx(of_both, abs=0.04)


def test_squared_mmd_is_the_unbiased_estimate():
    rng = np.random.default_rng(0)
    z, u = rng.normal(size=(7, 2)), rng.normal(1, 1, size=(5, 2))

    def kernel(a, b):
        return np.exp(-np.square(a - b).sum() / (2 * 1.3**2))

    within = [np.mean([kernel(a, b) for i, a in enumerate(s) for j, b in enumerate(s) if i != j]) for s in (z, u)]
    expected = sum(within) - 2 * np.mean([kernel(a, b) for a in z for b in u])
    found = squared_mmd(torch.as_tensor(z), torch.as_tensor(u), torch.tensor(1.3).double())
    assert float(found) == pytest.approx(expected)


def test_the_aggregate_is_held_against_the_prior():
    with seeded(0):
        prior, posterior = torch.randn(2000, 4), torch.randn(1000, 4)
        same, null = aggregate_mmd(posterior, prior)
        narrow, _ = aggregate_mmd(0.6 * posterior, prior)
        exceeded = [
            bool(mmd > top)
            for mmd, top in (aggregate_mmd(torch.randn(100, 4), torch.randn(200, 4)) for _ in range(200))
        ]
    assert same < null < narrow
    assert np.mean(exceeded) == pytest.approx(0.05, abs=0.04)


def test_what_a_component_takes_away():
    sure, unsure = torch.eye(3).repeat(4, 1), torch.full((12, 3), 1 / 3)
    weight = torch.full((3,), 1 / 3)
    assert float(information(sure, weight)) == pytest.approx(1)
    assert float(information(unsure, weight)) == pytest.approx(0)


def of(run, data):
    x = torch.as_tensor(run.pair.view.inward(data.test.values), dtype=torch.float32)
    return spread(run, x, heldout(run, data, weigh(run, data, 50), 0)), x


def test_contraction_of_a_linear_model_is_known(iris):
    run = zoo.fit(zoo.create("linear-shared", iris, latent_dim=2), iris, seeds=[3], steps=200, progress=False)
    group, x = of(run, iris)
    ((mean, scale_tril),) = run.each_seed(lambda model, _: model.posterior(x), Stream.POSTERIOR)
    np.testing.assert_allclose(group["contraction"][0], 1 - (scale_tril @ scale_tril.T).diagonal(), atol=1e-5)
    np.testing.assert_allclose(group["mean_variance"][0], mean.var(0), rtol=1e-4)


LATENTS = ["gaussian-constrained", "gaussian-constrained:full-rank", "gaussian-two-stage", "linear-diagonal"]


def test_a_latent_that_follows_an_earlier_draw_has_the_variance_of_both():
    """Its mean varies over the data by 0.01, and over the draws that estimate it by another 0.003."""
    x = torch.linspace(-1, 1, 3000)[:, None]
    x = 0.1 * x / x.std()

    def model(x):
        with pyro.plate("data", len(x), dim=-1):
            z = pyro.sample("z", dist.Normal(torch.zeros(1), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z, 1.0).to_event(1), obs=x)

    def guide(x):
        with pyro.plate("data", len(x), dim=-1):
            u = pyro.sample("u", dist.Normal(torch.zeros(1), 0.3).to_event(1))
            pyro.sample("z", dist.Normal(x + u, 0.4).to_event(1))

    with seeded(0):
        found = _of_latents(SimpleNamespace(each_seed=lambda of_seed, *_: [of_seed(model, guide)]), x)
    assert found["contraction"].item() == pytest.approx(1 - 0.4**2 - 0.3**2, abs=0.005)
    assert found["mean_variance"].item() == pytest.approx(0.01, rel=0.1)


def test_the_weight_of_a_component_that_follows_z_is_a_mean_over_z():
    """Which of two it is depends on the sign of z + 0.5."""

    def model(x):
        with pyro.plate("data", len(x), dim=-1):
            z = pyro.sample("z", dist.Normal(torch.zeros(1), 1.0).to_event(1))
            component = pyro.sample("component", dist.Categorical(logits=torch.cat([40 * (z + 0.5), 0 * z], dim=-1)))
            pyro.sample("x", dist.Normal(component[..., None].to(x), 1.0).to_event(1), obs=x)

    def guide(x):
        with pyro.plate("data", len(x), dim=-1):
            pyro.sample("component", dist.Categorical(torch.tensor([0.5, 0.5]).expand(len(x), 2)))

    with seeded(0):
        found = _of_components(
            SimpleNamespace(each_seed=lambda of_seed, *_: [of_seed(model, guide)]), torch.zeros(20, 1)
        )
    np.testing.assert_allclose(found["component_weight"][0], [0.691, 0.309], atol=0.02)


def test_pieces_of_an_elbo_count_by_their_draws(monkeypatch):
    """Of 5 draws, two at a time, the last is a piece by itself."""
    model = probabilistic_pca(6, 2)
    monkeypatch.setattr("zoo.inference.CHUNK", 12)
    find = GapFinder(1, 5, 6)
    assert find.pieces == [2, 2, 1]
    find.elbo = {
        piece: SimpleNamespace(block=lambda *_, piece=piece: [torch.full((3,), 1.0 / piece)]) for piece in (1, 2)
    }
    found = find._elbo_of(model, None, [], [0, 1, 2])
    np.testing.assert_allclose(found, (0.5 * 2 + 0.5 * 2 + 1.0) / 5)


@pytest.mark.parametrize("name", LATENTS)
@pytest.mark.usefixtures("quick_scores")
def test_the_groups_of_latents(name, iris):
    run = zoo.fit(zoo.create(name, iris, latent_dim=2), iris, seeds=[2, 5], steps=20, progress=False)
    group, x = of(run, iris)
    assert group["contraction"].sizes == {"chain": 2, "latent": 2}
    assert ("approximation_gap" in group) == (name != "gaussian-two-stage")
    chains = reference_posterior(run, x[:2], chains=2, warmup=10, draws=20)
    assert chains["z"].dims == ("seed", "chain", "draw", "obs", "latent")
    assert list(chains["seed"]) == [2, 5]
    for variable in ("r_hat", "ess", "scale_ratio", "shift", "distance"):
        assert np.isfinite(chains[variable]).all(), variable
    alone = zoo.fit(zoo.create(name, iris, latent_dim=2), iris, seeds=[5], steps=20, progress=False)
    of_seed, _ = of(alone, iris)
    np.testing.assert_allclose(of_seed["contraction"][0], group["contraction"][1], atol=1e-4)


def test_the_group_of_components(iris):
    run = zoo.fit(zoo.create("gmm-constrained", iris, components=3), iris, seeds=2, steps=100, progress=False)
    group, x = of(run, iris)
    assert ((group["certainty"] > 0.2) & (group["certainty"] <= 1)).all()
    np.testing.assert_allclose(group["component_weight"].sum("component"), 1, rtol=1e-6)
    with pytest.raises(Unknown, match="this pair has component"):
        reference_posterior(run, x[:2])


@pytest.mark.usefixtures("quick_scores")
def test_evaluate_writes_and_takes_back_the_reference(iris, monkeypatch):
    few = partial(reference_posterior, chains=2, warmup=10, draws=20)
    monkeypatch.setattr("zoo.evaluation.reference_posterior", few)
    run = zoo.fit(zoo.create("gaussian-identity", iris, latent_dim=1), iris, seeds=1, steps=20, progress=False)
    tree = zoo.evaluate(run, iris, samples=50, temperatures=0, reference=1)
    assert tree["reference_posterior"]["z"].sizes["obs"] == 1
    assert {"calibration", "spread", "wellposedness"} <= set(tree.children)
    assert "reference_posterior" not in zoo.evaluate(run, iris, samples=50, temperatures=0).children
