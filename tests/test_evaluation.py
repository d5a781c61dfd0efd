"""Evidence against closed forms, diagnostics against known values."""

import numpy as np
import pytest
import torch
from arviz_stats.base import array_stats
from programs import score_quickly
from scipy import stats
from torch import nn

import zoo
from zoo import rowwise
from zoo.context import seeded
from zoo.densities import columns_log_prob
from zoo.evaluation import evidence
from zoo.evaluation.tails import pareto_k
from zoo.guides import MeanFieldNormal
from zoo.inference import (
    LogWeights,
    log_mean_exp,
    posterior_draws,
    predictive_draws,
    prior,
)
from zoo.models import VAE, GaussianMixture
from zoo.models.emissions import FixedNormal, LearnedNormal

D, L, NOISE = 5, 2, 0.6


class ExactEncoder(nn.Module):
    """The posterior of z for x = W z + m + noise, its scale multiplied and its mean shifted."""

    def __init__(self, weight, offset, spread=1.0, shift=0.0):
        super().__init__()
        self.covariance = torch.linalg.inv(torch.eye(L) + weight.T @ weight / NOISE**2)
        self.gain = self.covariance @ weight.T / NOISE**2
        self.offset = offset
        self.spread, self.shift = spread, shift

    def forward(self, x):
        mean = (x - self.offset) @ self.gain.T
        scale = self.covariance.diagonal().sqrt()
        return torch.stack([mean + self.shift * scale, 2 * (self.spread * scale).log().expand_as(mean)], dim=-2)


@pytest.fixture(scope="module")
def linear():
    """A linear Gaussian model with orthogonal loadings, whose posterior factorises, and its exact evidence."""
    with seeded(0):
        weight = torch.linalg.qr(torch.randn(D, L, dtype=torch.float64)).Q * torch.tensor([1.5, 0.8])
        offset = torch.randn(D, dtype=torch.float64)
        network = nn.Linear(L, D, dtype=torch.float64)
    with torch.no_grad():
        network.weight.copy_(weight)
        network.bias.copy_(offset)
    model = VAE(nn.Sequential(network, nn.Unflatten(-1, (1, D))), L, FixedNormal(NOISE))
    covariance = weight.numpy() @ weight.numpy().T + NOISE**2 * np.eye(D)
    exact = stats.multivariate_normal(offset.numpy(), covariance)
    x = torch.as_tensor(exact.rvs(400, random_state=1))
    return model, weight, offset, x, exact


def test_an_exact_guide_gives_the_exact_evidence_at_one_draw(linear):
    model, weight, offset, x, exact = linear
    guide = MeanFieldNormal(ExactEncoder(weight, offset))
    with seeded(0), torch.no_grad():
        weights = LogWeights(3)(model, guide, x)
    np.testing.assert_allclose(weights, np.tile(exact.logpdf(x), (3, 1)), atol=1e-9)


@pytest.mark.parametrize(("spread", "shift"), [(1.4, 0.0), (1.2, 0.5), (0.8, 0.3)])
def test_a_perturbed_guide_is_within_its_standard_errors(linear, spread, shift):
    model, weight, offset, x, exact = linear
    guide = MeanFieldNormal(ExactEncoder(weight, offset, spread, shift))
    with seeded(0), torch.no_grad():
        weights = LogWeights(5000)(model, guide, x)
    estimate = log_mean_exp(weights)
    error = (weights - estimate).exp().std(0) / 5000**0.5
    within = np.abs(estimate.numpy() - exact.logpdf(x)) <= 3 * error.numpy() + 1e-4
    assert within.mean() >= 0.99


def test_the_evidence_of_some_columns_is_their_marginal(linear):
    model, weight, offset, x, exact = linear
    columns = torch.tensor([0, 3])
    marginal = stats.multivariate_normal(exact.mean[[0, 3]], exact.cov_object.covariance[np.ix_([0, 3], [0, 3])])
    guide = MeanFieldNormal(ExactEncoder(weight, offset, spread=1.5))
    with seeded(0), torch.no_grad():
        both = LogWeights(4000, columns)(model, guide, x)
    assert both.shape == (2, 4000, len(x))
    np.testing.assert_allclose(log_mean_exp(both[0]), exact.logpdf(x), atol=0.2)
    error = np.abs(log_mean_exp(both[1]).numpy() - marginal.logpdf(x[:, columns]))
    assert np.median(error) < 0.05 and error.max() < 1


@pytest.mark.parametrize("covariance", ["diagonal", "full"])
def test_columns_of_a_mixture_component_are_its_marginal(covariance):
    with seeded(0), torch.no_grad():
        model = GaussianMixture(3, 4, covariance).double()
        for parameter in model.parameters():
            parameter.normal_()
        x = torch.randn(6, 4, dtype=torch.float64)
        likelihood = model.likelihood(torch.tensor([[0], [1], [2]]))
        ours = columns_log_prob(likelihood, x, torch.tensor([2, 0]))
        full = model.likelihood(torch.arange(3))
    for c in range(3):
        matrix = getattr(full, "covariance_matrix", None)
        matrix = torch.diag_embed(full.variance)[c] if matrix is None else matrix[c]
        exact = stats.multivariate_normal(full.mean[c][[2, 0]], matrix[[2, 0]][:, [2, 0]])
        np.testing.assert_allclose(ours[c], exact.logpdf(x[:, [2, 0]]), atol=1e-9)


@pytest.mark.parametrize("k", [0.2, 0.5, 0.9])
def test_pareto_k_of_weights_whose_tail_is_known(k):
    log_weights = -k * np.log(np.random.default_rng(0).uniform(size=(50_000, 4)))
    assert pareto_k(log_weights).mean() == pytest.approx(k, abs=0.06)


@pytest.mark.parametrize("draws", [25, 60, 1000, 5000])
def test_pareto_k_is_that_of_arviz(draws):
    rng = np.random.default_rng(draws)
    normal, student = rng.normal(size=(draws, 20)) * np.geomspace(0.01, 5, 20), rng.standard_t(5, size=(draws, 20))
    log_weights = np.hstack([normal, student])
    log_weights[3] -= 2000  # a weight of zero
    arviz = array_stats.psislw(-log_weights, axis=0)[1]  # it takes log likelihoods and negates them
    np.testing.assert_allclose(pareto_k(log_weights), arviz, rtol=1e-9, atol=1e-9)


def test_pareto_k_of_constant_weights_is_minus_infinity():
    weights = np.random.default_rng(0).normal(size=(1000, 2))
    weights[:, 0] = 3.0
    assert np.isneginf(pareto_k(weights)).tolist() == [True, False]


def test_draws_from_the_posterior_and_their_densities(linear):
    model, weight, offset, x, exact = linear
    guide = MeanFieldNormal(ExactEncoder(weight, offset))
    with seeded(0), torch.no_grad():
        draws = posterior_draws(model, guide, x, 2000)
        predicted = predictive_draws(model, x, 3000)
    np.testing.assert_allclose((draws.lp - draws.lq)[0], exact.logpdf(x), atol=1e-9)
    encoder = ExactEncoder(weight, offset)
    scale = encoder.covariance.diagonal().sqrt()
    np.testing.assert_allclose(draws.latents["z"].std(0).mean(0), scale, rtol=0.02)
    flat = predicted.reshape(-1, D).numpy()
    np.testing.assert_allclose(np.cov(flat.T), exact.cov_object.covariance, atol=0.05)


@pytest.fixture(scope="module")
def scored(digits):
    runs = []
    for name in ("gaussian-constrained", "gmm-constrained"):
        pair = zoo.create(name, digits)
        run = zoo.fit(pair, digits, seeds=[4, 9], steps=50, progress=False)
        with pytest.MonkeyPatch.context() as patch:
            score_quickly(patch)
            zoo.evaluate(run, digits, samples=100, temperatures=1)
        zoo.testing.check_tree(run.tree)
        runs.append(run)
    return runs


def test_evaluate_fills_the_groups_of_the_interface(scored):
    vae, mixture = (run.tree for run in scored)
    dims = {
        "optimization/elbo": ("chain", "step"),
        "validation/elbo": ("chain", "check"),
        "heldout/log_evidence": ("chain", "obs"),
        "heldout/log_evidence_varying": ("chain", "obs"),
        "sample_stats/lp": ("chain", "draw", "obs"),
        "posterior_predictive/x": ("chain", "draw", "obs", "feature"),
        "prior_predictive/x": ("chain", "draw", "obs", "feature"),
        "reconstruction/scale": ("chain", "obs", "feature"),
        "observed_data/x": ("obs", "feature"),
        "constant_data/scale": ("feature",),
    }
    for tree in (vae, mixture):
        for path, expected in dims.items():
            assert tree[path].dims == expected, path
            assert tree[path].notnull().all(), path
        assert tree["heldout"]["chain"].values.tolist() == [4, 9]
    assert vae["posterior/z"].dims == ("chain", "draw", "obs", "latent")
    assert mixture["prior/component_index"].dims == ("chain", "draw")
    assert vae["prior/z"].dims == ("chain", "draw", "latent")
    assert mixture["posterior/component_index"].dims == ("chain", "draw", "obs")
    assert mixture["posterior/responsibility"].dims == ("chain", "obs", "component")
    assert mixture["heldout"].attrs["exact"] == 1 and vae["heldout"].attrs["exact"] == 0
    assert (mixture["heldout/log_evidence_se"] == 0).all()


def test_the_evidence_is_in_the_units_of_the_data_as_loaded(scored, digits):
    """The mixture's, by scipy in those units, without any scaling."""
    _, run = scored
    weights = {name: tensor[1].double().numpy() for name, tensor in run.weights.items()}
    scale, center = digits.scaling.scale, digits.scaling.center
    deviation = np.sqrt(0.01 + np.exp(weights["model.covariance.log_excess"])) * scale
    means = weights["model.means"] * scale + center
    log_mix = weights["model.logits"] - np.logaddexp.reduce(weights["model.logits"])
    x = digits.test.values
    joint = [w + stats.norm.logpdf(x, m, s).sum(1) for w, m, s in zip(log_mix, means, deviation, strict=True)]
    np.testing.assert_allclose(run.tree["heldout/log_evidence"].sel(chain=9), np.logaddexp.reduce(joint), rtol=1e-4)


def test_other_data_than_the_run_was_trained_on_are_refused(scored):
    other = zoo.load_data("digits", seed=1)
    with pytest.raises(zoo.errors.RunError, match="fingerprint"):
        zoo.evaluate(scored[0], other)


@pytest.fixture
def watched():
    """A model, a guide, and how many latents its decoder was given at each pass."""
    seen = []

    class Watching(nn.Module):
        def forward(self, z):
            seen.append(z.shape[:-1].numel())
            return z.new_zeros(*z.shape[:-1], 2, 64)

    return VAE(Watching(), 2, LearnedNormal()), MeanFieldNormal(lambda x: x.new_zeros(len(x), 2, 2)), seen


def test_no_memory_grows_with_the_number_of_draws(watched, monkeypatch):
    """The decoder never sees more than a thousand draws of a datum, nor more data than a cache holds of those."""
    model, guide, seen = watched
    blocks = []
    at_once = rowwise.Rowwise._at_once
    monkeypatch.setattr(rowwise.Rowwise, "_at_once", lambda *of: (blocks.append(len(of[2][0])), at_once(*of))[1])
    with seeded(0):
        weights = LogWeights(2500)(model, guide, torch.zeros(360, 64))
    assert weights.shape == (2500, 360)
    assert set(seen) == {1000, 500} and sum(blocks) == 3 * 360
    assert max(blocks) * 1000 * 64 <= 2 * rowwise.CACHE  # those of 500 draws are of twice as many


@pytest.fixture(scope="module")
def pairs_of_runs():
    iris = zoo.load_data("iris")
    values = np.concatenate([iris.train, iris.validation, iris.test])
    runs = []
    for unit in (1, 10):
        d = zoo.Data.from_array(
            np.column_stack([values, np.full(len(values), 3.0)]) * unit, name=f"x{unit}", scaling="scalar", split="rows"
        )
        run = zoo.fit(zoo.create("gaussian-constrained", d, latent_dim=2), d, seeds=1, steps=60, progress=False)
        with pytest.MonkeyPatch.context() as patch:
            score_quickly(patch)
            zoo.evaluate(run, d, samples=200, temperatures=3)
        runs.append((run, d))
    return runs


@pytest.mark.parametrize(
    ("path", "shift"),
    [("heldout/log_evidence", 5), ("heldout/log_evidence_varying", 4), ("sample_stats/lp", 5), ("sample_stats/lq", 0)],
)
def test_log_densities_move_by_the_log_of_the_unit(pairs_of_runs, path, shift):
    one, ten = (run.tree[path].values for run, _ in pairs_of_runs)
    np.testing.assert_allclose(one - ten, shift * np.log(10), atol=0.02)


def test_reconstructions_are_in_the_units_as_loaded(pairs_of_runs):
    for name in ("mean", "scale"):
        one, ten = (run.tree[f"reconstruction/{name}"].values for run, _ in pairs_of_runs)
        np.testing.assert_allclose(10 * one, ten, rtol=1e-2)


@pytest.mark.usefixtures("quick_scores")
def test_diagnostics_by_their_definitions(pairs_of_runs, monkeypatch):
    run, d = pairs_of_runs[0]
    seen = []
    weigher = evidence.Weigher.__call__
    monkeypatch.setattr(
        evidence.Weigher, "__call__", lambda *of: (seen.append(block) or block for block in weigher(*of))
    )
    unannealed = zoo.runs.Run(run.pair, run.seeds, run.weights, run.tree.copy())
    held = zoo.evaluate(unannealed, d, samples=200, temperatures=0)["heldout"]
    logw = torch.cat([weights.density for weights, _ in seen], dim=1).double().numpy()
    w = np.exp(logw - logw.max(0))
    np.testing.assert_allclose(held["log_evidence_se"][0], w.std(0, ddof=1) / np.sqrt(200) / w.mean(0), rtol=1e-6)
    np.testing.assert_allclose(held["ess"][0], w.sum(0) ** 2 / (w**2).sum(0), rtol=1e-6)


def test_samples_follow_their_seed(pairs_of_runs):
    run, _ = pairs_of_runs[0]
    assert not np.array_equal(run.sample(5, seed=0), run.sample(5, seed=1))


@pytest.mark.usefixtures("quick_scores")
def test_one_draw_is_not_exact_and_has_no_error(pairs_of_runs):
    run, d = pairs_of_runs[0]
    held = zoo.evaluate(zoo.runs.Run(run.pair, run.seeds, run.weights, run.tree.copy()), d, samples=1)["heldout"]
    assert held.attrs["exact"] == 0
    assert held["pareto_k"].isnull().all()
    assert held["log_evidence_se"].isnull().all()


def test_a_weight_that_holds_everything_has_an_infinite_k():
    log_weights = np.random.default_rng(0).normal(size=(1000, 5))
    log_weights[7, 0] = 800.0  # all others are zero beside it
    log_weights[:, 1] *= 1e12
    log_weights[:, 2] = np.where(log_weights[:, 2] > 0, 0.0, -1.0)  # all of the tail is one number
    assert pareto_k(log_weights)[:3].tolist() == [np.inf, np.inf, -np.inf]
    assert np.isfinite(pareto_k(log_weights)[3:]).all()
    # in single precision these weights are multiples of 65,536 nats: that most of them are equal is rounding
    assert np.isposinf(pareto_k((log_weights - 1e12).astype(np.float32))).all()


@pytest.mark.usefixtures("quick_scores")
@pytest.mark.filterwarnings("error::RuntimeWarning")
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("gaussian-learned", {"latent_dim": 2, "hidden": (8,)}),
        ("gaussian-constrained", {"activation": "relu", "latent_dim": 2}),  # whose encoder overflows there
        ("gmm", {"components": 2}),
    ],
)
def test_a_value_a_million_deviations_out_costs_its_row_and_nothing_else(name, options):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(120, 2)) @ rng.normal(size=(2, 4)) + 0.5 * rng.normal(size=(120, 4))
    x[105, 1] = 1e6
    split = ["train"] * 80 + ["validation"] * 20 + ["test"] * 20
    data = zoo.Data.from_array(x, name="outlier", split=split)
    pair = zoo.create(name, data, **options)
    run = zoo.fit(pair, data, seeds=1, steps=40, progress=False, on_divergence="warn")
    held = zoo.evaluate(run, data, samples=200, temperatures=5)["heldout"].to_dataset()
    evidence = held["log_evidence"].values
    assert np.isfinite(evidence).all()
    assert (evidence[:, 5] < -1e9).all() and (np.delete(evidence, 5, axis=1) > -100).all()
    if not held.attrs["exact"]:
        assert np.isposinf(held["pareto_k"][:, 5]).all()
        assert np.isfinite(np.delete(held["pareto_k"].values, 5, axis=1)).all()


def test_draws_of_the_prior_are_weights_too(linear):
    model, *_, x, exact = linear
    with seeded(0), torch.no_grad():
        weights = LogWeights(20_000)(model, prior(model), x[:50])
    error = (weights - log_mean_exp(weights)).exp().std(0) / 20_000**0.5
    assert ((log_mean_exp(weights) - exact.logpdf(x[:50])).abs() <= 4 * error).all()


def test_weights_that_are_not_numbers_are_not_called_good():
    weights = np.random.default_rng(0).normal(size=(100, 4))
    weights[3, 0], weights[:, 1], weights[:50, 2] = np.nan, -np.inf, -np.inf
    k = pareto_k(weights)
    assert np.isnan(k[:2]).all()
    assert np.isfinite(k[2:]).all()
    assert np.isnan(pareto_k(weights[:20])).all()


def test_memory_does_not_grow_with_the_rows(watched):
    """Posterior draws and reconstructions decode a block of rows at a time."""
    model, guide, seen = watched
    with seeded(0):
        draws = posterior_draws(model, guide, torch.zeros(3000, 64), 100)
    assert draws.latents["z"].shape == (100, 3000, 2)
    assert max(seen) * 64 <= 2**20


def test_data_that_a_guide_loses_are_annealed_from_the_prior(iris):
    """In every seed, also after others of its data were annealed from its guide."""
    run = zoo.fit(zoo.create("gaussian-constrained", iris), iris, seeds=2, steps=30, progress=False)
    weighed = evidence.weigh(run, iris, 30)
    for scores in weighed.density:
        scores.k[:], scores.lost[:5] = 1.0, True
    starts = []
    annealer = evidence.Annealer.__call__

    def watched(self, model, start, *rows):
        chains = annealer(self, model, start, *rows)
        starts.append((type(start).__name__, {name.split(".")[1] for name in self.start._names}))
        return chains

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evidence.Annealer, "__call__", watched)
        evidence.heldout(run, iris, weighed, 3)
    assert [name for name, _ in starts] == ["MeanFieldNormal", "_Prior"] * 2
    assert all(("encoder" in parts) == (name == "MeanFieldNormal") for name, parts in starts)
