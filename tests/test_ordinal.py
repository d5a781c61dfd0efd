"""Masses over levels: against scipy, closed sums, and the densities they come from."""

from contextlib import nullcontext

import numpy as np
import pyro.distributions as dist
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate, special, stats
from scipy.special import log_ndtr, logsumexp

import zoo
from zoo.context import pyro_context, seeded
from zoo.errors import Unknown
from zoo.inference import Cells, Dequantized, LogWeights, log_mean_exp
from zoo.models import VAE
from zoo.models.emissions import LearnedNormal
from zoo.models.ordinal import Binned, Levels, legendre, log_interval_mass

LEVELS = torch.arange(17.0)


def exact_log_mass(low, high):
    """Log [Φ(high) - Φ(low)] by scipy, in the tail where nothing cancels."""
    low, high = np.where(low + high > 0, -high, low), np.where(low + high > 0, -low, high)
    return log_ndtr(high) + np.log(-np.expm1(log_ndtr(low) - log_ndtr(high)))


@given(
    middle=st.floats(-60, 60),
    log_width=st.floats(-6, 4),
    grad=st.booleans(),
)
@settings(max_examples=200)
def test_interval_mass_of_a_normal(middle, log_width, grad):
    width = 10**log_width
    low, high = middle - width / 2, middle + width / 2
    with torch.set_grad_enabled(grad):
        standard = dist.Normal(torch.zeros(1).double(), 1.0)
        ends = torch.tensor([[low], [high]], dtype=torch.float64)
        found = log_interval_mass(standard, *ends, ends[1] - ends[0]).item()
    expected = float(exact_log_mass(np.float64(low), np.float64(high)))
    if log_width < -3:  # where scipy's difference cancels, the density is exact to the square of the width
        expected = stats.norm.logpdf(middle) + np.log(width) + np.log1p((middle**2 - 1) * width**2 / 24)
    assert found == pytest.approx(expected, rel=2e-7, abs=2e-7)
    assert found <= 0


OTHERS = {
    "laplace": (lambda m, s: dist.Laplace(m, s), lambda m, s: stats.laplace(m, s)),
    "logistic": (lambda m, s: dist.Logistic(m, s), lambda m, s: stats.logistic(m, s)),
    "cauchy": (lambda m, s: dist.Cauchy(m, s), lambda m, s: stats.cauchy(m, s)),
    "gamma": (lambda m, s: dist.Gamma(m.abs() + 0.5, 1 / s), lambda m, s: stats.gamma(abs(m) + 0.5, scale=s)),
    "exponential": (lambda m, s: dist.Exponential(1 / (s + m * 0)), lambda _, s: stats.expon(scale=s)),
    "uniform": (lambda m, s: dist.Uniform(m, m + s), lambda m, s: stats.uniform(m, s)),
    "student-t": (lambda m, s: dist.StudentT(2.5, m, s), lambda m, s: stats.t(2.5, m, s)),
}


def by_scipy(law, low, high):
    """In the tail where it is not lost; of narrow intervals the density."""
    left = law.logcdf(high) + np.log(-np.expm1(law.logcdf(low) - law.logcdf(high)))
    right = law.logsf(low) + np.log(-np.expm1(law.logsf(high) - law.logsf(low)))
    return np.where(law.cdf(low) < 0.5, left, right)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-7), (torch.float32, 3e-4)])
@pytest.mark.parametrize("width", [0.01, 0.5, 4.0])
@pytest.mark.parametrize("loc", [-1.5, 0.0, 2.25])
@pytest.mark.parametrize("name", OTHERS)
def test_interval_mass_of_other_distributions(name, loc, width, dtype, tolerance):
    ours, theirs = OTHERS[name]
    fn = ours(torch.tensor(loc, dtype=dtype), torch.tensor(0.75, dtype=dtype))
    x = torch.arange(-40, 41, dtype=dtype) * 0.5
    with np.errstate(all="ignore"):
        expected = by_scipy(theirs(loc, 0.75), (x - width / 2).double().numpy(), (x + width / 2).double().numpy())
    known = np.isfinite(expected)
    found = log_interval_mass(fn, x - width / 2, x + width / 2, width)
    assert known.sum() > 1
    np.testing.assert_allclose(found[known], expected[known], rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("name", [name for name in OTHERS if name not in ("uniform", "gamma")])  # torch: no gradient
def test_the_masses_of_other_distributions_add_up_to_one_and_have_gradients(name):
    parameters = torch.tensor(0.25, requires_grad=True), torch.tensor(0.75, requires_grad=True)
    fn = OTHERS[name][0](*parameters)
    x = torch.arange(-4000.0, 4001.0) * 0.5
    if name == "exponential":
        x = x[x >= 0]
    log_mass = log_interval_mass(fn, x - 0.25, x + 0.25, 0.5)
    assert log_mass.detach().double().exp().sum().item() == pytest.approx(1, abs=1e-3 if name == "cauchy" else 1e-5)
    near = log_mass[(x.abs() < 20) & log_mass.isfinite()]
    gradients = torch.autograd.grad(near.sum(), parameters, allow_unused=True)
    assert all(g is None or g.isfinite() for g in gradients)


@pytest.mark.parametrize("middle", [0.3, 0.5, float(legendre(torch.zeros(()))[0][12])])  # the last is one of the nodes
@pytest.mark.parametrize("narrow", [1e-3, 1e-5])
def test_a_peak_between_two_nodes_is_not_lost(middle, narrow):
    """A mixture, of whose mass one in two hundred is in a peak far narrower than the cell."""
    far = dist.Normal(torch.tensor([-30.0, middle]), torch.tensor([1.0, narrow]))
    fn = dist.MixtureSameFamily(dist.Categorical(torch.tensor([0.995, 0.005])), far)
    found = log_interval_mass(fn, torch.tensor(0.0), torch.tensor(1.0), 1.0)
    assert found.item() == pytest.approx(np.log(0.005), abs=1e-3)


@pytest.mark.parametrize(
    ("x", "width", "scale"), [(3.0, 1e-4, 1e-6), (1.0, 1e-5, 1e-7), (3.0, 1e-6, 1e-8), (1e5, 0.01, 1e-4)]
)
@pytest.mark.parametrize("kind", [dist.Gumbel, dist.Cauchy, dist.SoftLaplace])
def test_a_cell_far_out_holds_all_of_a_density_that_is_narrower(kind, x, width, scale):
    at = torch.tensor(x)
    with pyro_context():
        found = log_interval_mass(kind(at, torch.tensor(scale)), at - width / 2, at + width / 2, width)
    assert -0.02 < found.item() <= 0


@pytest.mark.parametrize("x", [0.0149405, 0.012, 0.008])
def test_where_the_distribution_function_is_rounded_more_the_density_decides(x):
    at, half = torch.tensor(x), 5e-5
    found = log_interval_mass(dist.Kumaraswamy(torch.tensor(3.0), torch.tensor(300.0)), at - half, at + half, 2 * half)
    exactly = [(1 - (x + side) ** 3) ** 300 for side in (-half, half)]
    assert found.item() == pytest.approx(np.log(exactly[0] - exactly[1]), abs=1e-3)


@pytest.mark.parametrize("scale", [1e-1, 1e-3, 1e-5])
def test_a_narrow_density_beside_a_cell_has_its_mass_there(scale):
    low, high = torch.tensor(5.0 * scale), torch.tensor(5.0 * scale + 1)
    found = log_interval_mass(dist.SoftLaplace(torch.tensor(0.0), torch.tensor(scale)), low, high, 1.0)
    above = 1 - 2 / np.pi * np.arctan(np.exp([5.0, 5.0 + 1 / scale] if scale > 2e-3 else [5.0, 600.0]))
    assert found.item() == pytest.approx(np.log(above[0] - above[1]), abs=2e-3)


def tail_of_t(df, x):
    """P(X > x) for x >= 0, to its last digit however far out."""
    return special.betainc(df / 2, 0.5, df / (df + x * x)) / 2


def mass_of_t(df, low, high):
    low, high = np.where(low + high < 0, -high, low), np.where(low + high < 0, -low, high)
    across = 1 - tail_of_t(df, high) - tail_of_t(df, -low)
    return np.where(low < 0, across, tail_of_t(df, low) - tail_of_t(df, high))


@pytest.mark.parametrize("df", [0.05, 0.2, 0.5, 0.95, 1.0, 1.3, 2.0, 3.7, 30.0, 1000.0])
def test_cells_of_any_width_under_a_student_t(df):
    width = 10 ** np.arange(-1.0, 10.0)[:, None]
    low = np.array([-1e3, -30.0, -2.5, 0.0, 0.3, 7.0]) - width * np.array([0.0, 0.2, 0.5, 0.9])[:, None, None]
    parameter = torch.tensor(df, dtype=torch.float64, requires_grad=True)
    ends, span = torch.as_tensor(np.stack([low, low + width])), torch.as_tensor(width)
    found = log_interval_mass(dist.StudentT(parameter, 0.0, 1.0), *ends, span)
    expected = mass_of_t(df, low, low + width)
    known = expected > 1e-9  # of the difference of two tails, digits enough
    np.testing.assert_allclose(found.exp().numpy(force=True)[known], expected[known], rtol=1e-5)
    assert found.max() <= 1e-8
    (gradient,) = torch.autograd.grad(found.exp().sum(), parameter)
    by_difference = np.sum(mass_of_t(df * 1.0001, low, low + width) - mass_of_t(df * 0.9999, low, low + width))
    assert gradient.item() == pytest.approx(by_difference / (0.0002 * df), rel=1e-4, abs=1e-4)
    single = log_interval_mass(dist.StudentT(parameter.float(), 0.0, 1.0), *ends.float(), span.float())
    np.testing.assert_allclose(single.exp().numpy(force=True)[known], expected[known], rtol=2e-3, atol=1e-6)


@pytest.mark.parametrize("name", ["laplace", "logistic"])
def test_a_price_in_cents_has_a_mass_in_single_precision(name):
    fn = OTHERS[name][0](torch.tensor(123456.78), torch.tensor(2.0))
    x = torch.tensor([123456.78, 123450.0])
    law = OTHERS[name][1](float(torch.tensor(123456.78)), 2.0)
    expected = law.logpdf(x.double().numpy()) + np.log(0.01)
    np.testing.assert_allclose(log_interval_mass(fn, x - 0.005, x + 0.005, 0.01), expected, atol=5e-3)


@pytest.mark.parametrize("scale", [1e-6, 1e-3, 1.0, 1e3, 1e6])
def test_interval_mass_has_finite_gradients_in_single_precision(scale):
    x = torch.linspace(-20, 20, 401)
    parameters = torch.zeros(1, requires_grad=True), torch.tensor([scale], requires_grad=True)
    log_mass = log_interval_mass(dist.Normal(*parameters), x - 0.5, x + 0.5, 1.0)
    assert log_mass.isfinite().all()
    assert all(g.isfinite().all() for g in torch.autograd.grad(log_mass.sum(), parameters))


@pytest.mark.parametrize("loc", [-40.0, 0.0, 3.3, 16.0, 300.0])
@pytest.mark.parametrize("scale", [1e-3, 0.7, 30.0])
def test_masses_of_the_levels_add_up(loc, scale):
    closed = Binned(dist.Normal(torch.tensor(loc), torch.tensor(scale)), 1.0, ends=(0.0, 16.0))
    assert closed.log_prob(LEVELS).exp().sum().item() == pytest.approx(1, abs=1e-5)
    endless = Binned(dist.Normal(torch.tensor(loc), torch.tensor(scale)), 1.0)
    assert endless.log_prob(torch.arange(-1000.0, 1001)).exp().sum().item() == pytest.approx(1, abs=1e-5)


def test_moments_and_draws_of_binned_and_categorical():
    binned = Binned(dist.Normal(torch.tensor([2.0, 15.0]), torch.tensor([3.0, 4.0])), 1.0, ends=(0.0, 16.0))
    levels = Levels(binned.log_prob(LEVELS[:, None]).T, LEVELS)
    assert torch.allclose(binned.mean, levels.mean, atol=1e-4)
    assert torch.allclose(binned.variance, levels.variance, atol=1e-3)
    for fn in (binned, levels):
        with seeded(0):
            drawn = fn.sample((20000,))
        assert set(drawn.unique().tolist()) <= set(LEVELS.tolist())
        assert torch.allclose(drawn.mean(0), fn.mean, atol=0.12)
        assert torch.allclose(drawn.var(0), fn.variance, rtol=0.05)
    assert torch.allclose(levels.log_prob(torch.tensor([4.0, 16.0])), binned.log_prob(torch.tensor([4.0, 16.0])))


def test_edges_reach_to_infinity_at_the_ends():
    base = dist.Normal(torch.zeros(()), torch.ones(()))
    low, high = Binned(base, 2.0, ends=(0.0, 4.0)).edges(torch.tensor([0.0, 2.0, 4.0]))
    assert low.tolist() == [-torch.inf, 1.0, 3.0]
    assert high.tolist() == [1.0, 3.0, torch.inf]


@pytest.fixture(scope="module")
def decoder():
    """A model of two columns of which z decides only the first."""

    class Line(torch.nn.Module):
        def forward(self, z):
            mean = torch.stack([z[..., 0], torch.zeros_like(z[..., 0])], -1)
            return torch.stack([mean, torch.tensor([0.5, -1.0]).log().nan_to_num(0.3).expand_as(mean)], -2)

    return VAE(Line(), 1, LearnedNormal())


class Prior(torch.nn.Module):
    """A guide that has learned nothing."""

    def forward(self, x):
        import pyro

        with pyro.plate("data", len(x), dim=-1):
            pyro.sample("z", dist.Normal(x.new_zeros(1), x.new_ones(1)).to_event(1))


def test_cells_and_dequantization_agree_with_the_integral(decoder):
    x, width = torch.tensor([[0.4, -0.8], [2.0, 1.0]]), torch.tensor([0.8, 1.6])
    second = float(np.exp(0.3) ** 0.5)
    expected = []
    for (a, b), (wa, wb) in zip(x.tolist(), [width.tolist()] * 2, strict=True):
        # the first column is N(0, 1 + 0.5) once z is integrated out
        first = np.diff(stats.norm(0, 1.5**0.5).cdf([a - wa / 2, a + wa / 2]))[0]
        expected.append(np.log(first * np.diff(stats.norm(0, second).cdf([b - wb / 2, b + wb / 2]))[0]))
    with seeded(0), torch.no_grad(), pyro_context():
        for kind in (Cells, Dequantized):
            weights = LogWeights(40000)(kind(decoder, width), Prior(), x).double()
            found = log_mean_exp(weights)
            error = (weights - found).exp().std(0) / len(weights) ** 0.5
            assert (np.abs(found.numpy() - expected) < 4 * error.numpy()).all(), kind


def test_a_mixtures_cells_are_exact(iris):
    pair = zoo.create("gmm", iris, components=2)
    with seeded(0):
        pair.model.initialise(torch.as_tensor(pair.view.inward(iris.train.values)).float())
    x, width = torch.as_tensor(pair.view.inward(iris.test.values[:1])).float(), torch.full((4,), 0.5)
    with seeded(0), torch.no_grad(), pyro_context():
        exact = LogWeights(5000)(Cells(pair.model, width), pair.guide, x)
        drawn = LogWeights(40000)(Dequantized(pair.model, width), pair.guide, x).double()
        fn = pair.model.likelihood(torch.arange(2))
        shares = pair.model.logits.softmax(0)
    assert exact.shape == (1, 1)
    by_scipy = 0.0
    for c in range(2):
        loc, scale = fn.mean[c].numpy(), fn.stddev[c].numpy()
        sides = [
            integrate.quad(stats.norm(m, s).pdf, float(v) - 0.25, float(v) + 0.25)[0]
            for m, s, v in zip(loc, scale, x[0], strict=True)
        ]
        by_scipy += float(shares[c]) * np.prod(sides)
    assert exact.item() == pytest.approx(np.log(by_scipy), abs=1e-4)
    error = float((drawn - drawn.logsumexp(0)).exp().std() * len(drawn) ** 0.5)
    assert log_mean_exp(drawn).item() == pytest.approx(np.log(by_scipy), abs=4 * error)


def test_a_full_covariance_has_no_cells(iris):
    pair = zoo.create("gmm", iris, covariance="full")
    x = torch.zeros(2, 4)
    with seeded(0), torch.no_grad(), pyro_context(), pytest.raises(Unknown, match="MultivariateNormal"):
        LogWeights(10)(Cells(pair.model, torch.ones(4)), pair.guide, x)


@pytest.fixture(scope="module")
def ratings():
    """Levels 0 to 6 that two factors decide, and a column that never changes."""
    rng = np.random.default_rng(0)
    factors = rng.normal(size=(400, 2)) @ rng.normal(size=(2, 5)) + 0.7 * rng.normal(size=(400, 5))
    x = np.clip(np.round(factors + 3), 0, 6)
    return zoo.Data.from_array(np.column_stack([x, np.full(400, 3.0)]), name="ratings", levels=range(7))


@pytest.mark.usefixtures("quick_scores")
@pytest.mark.parametrize("name", ["gaussian-binned", "categorical", "gaussian-constrained"])
def test_every_pair_on_levels_has_a_mass(name, ratings):
    run = zoo.fit(zoo.create(name, ratings, latent_dim=2), ratings, seeds=1, steps=300, progress=False)
    heldout = zoo.evaluate(run, ratings, samples=200, temperatures=3)["heldout"]
    assert (heldout["log_mass"] <= 0).all()
    own = zoo.card(name).base_measure == "mass"
    assert heldout.attrs["mass"] == ("own" if own else "binned")
    if own:
        assert np.array_equal(heldout["log_mass"], heldout["log_evidence"])
    assert (heldout["log_mass"].mean("obs") > -5 * np.log(7)).all()  # better than to know nothing of five columns


@pytest.mark.slow
def test_binned_training_does_not_run_away_where_the_density_does(ratings):
    scales, quiet = {}, {"progress": False, "on_divergence": "warn"}
    for name in ("gaussian-binned", "gaussian-learned"):
        pair = zoo.create(name, ratings, latent_dim=2, activation="relu")
        # which of the seeds run away differs between processors
        with pytest.warns(zoo.errors.DivergenceWarning) if name == "gaussian-learned" else nullcontext():
            run = zoo.fit(pair, ratings, seeds=4, steps=1500, learning_rate=0.05, compile="capture", **quiet)
        scales[name] = run.tree["optimization"]
    assert (scales["gaussian-binned"]["elbo"] <= 0).all()
    assert scales["gaussian-learned"]["elbo"][:, -1].max() > scales["gaussian-binned"]["elbo"].max()


def test_noise_on_levels_does_not_move_the_cells_that_are_scored(ratings):
    """Against the same mixture's probabilities of the levels themselves, by scipy."""
    rows = np.concatenate([part.values for part in (ratings.train, ratings.validation, ratings.test)])
    spread = zoo.Data.from_array(rows, levels=range(7), dequantize=True)
    run = zoo.fit(zoo.create("gmm", spread, components=2), spread, seeds=1, steps=20, compile="off", progress=False)
    found = zoo.evaluate(run, spread, samples=20, temperatures=0, reference=0)["heldout"]
    assert found.attrs["mass"] == "binned" and found.attrs["mass_exact"]
    model = run._program(0, gaps=False).model
    fn, weights = model.likelihood(torch.arange(2)), model.logits.log_softmax(0).numpy()
    center, scale = fn.mean.numpy(), fn.stddev.numpy()
    x = (spread.on_levels(spread.test)[:, None] - spread.scaling.center) / spread.scaling.scale
    half = 0.5 / spread.scaling.scale
    mass = stats.norm.cdf(x + half, center, scale) - stats.norm.cdf(x - half, center, scale)
    np.testing.assert_allclose(found["log_mass"][0], logsumexp(np.log(mass).sum(2) + weights, axis=1), rtol=1e-4)


def test_dequantized_training_is_scored_on_the_same_levels(ratings):
    x = np.concatenate([part.values for part in (ratings.train, ratings.validation, ratings.test)])
    parts = ["train"] * len(ratings.train) + ["validation"] * len(ratings.validation) + ["test"] * len(ratings.test)
    plain = zoo.Data.from_array(x, levels=range(7), split=parts)
    spread = zoo.Data.from_array(x, levels=range(7), split=parts, dequantize=True)
    assert plain.fingerprint != spread.fingerprint
    assert plain.mass_fingerprint == spread.mass_fingerprint
    assert np.array_equal(spread.on_levels(spread.test), plain.test)
    run = zoo.fit(zoo.create("gmm", spread, covariance="full"), spread, seeds=1, steps=50, progress=False)
    heldout = zoo.evaluate(run, spread, samples=2000)["heldout"]
    assert heldout.attrs["mass"] == "dequantized"
    assert heldout.attrs["mass_exact"] == 0
    assert (heldout["log_mass_se"] > 0).all()
    assert (heldout["log_mass"] < 0).all()
