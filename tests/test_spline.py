"""A quantile function in pieces and its ranked probability score, against one written anew in NumPy, and quadrature."""

import math
from itertools import pairwise

import numpy as np
import pyro.distributions as dist
import pytest
import torch
from scipy import integrate, stats

import zoo
from zoo.context import pyro_context, seeded
from zoo.densities import column_scale, crps, distribution_function
from zoo.errors import OptionError
from zoo.lenses import Cells, observed
from zoo.models.emissions import QuantileSpline
from zoo.models.emissions.spline import PiecewiseQuantiles
from zoo.models.ordinal import log_interval_mass
from zoo.objectives import CRPS

ROWS, COLUMNS = 4, 2
TENTHS = np.arange(1, 10) / 10


def quantiles(median, slopes):
    """Q, by interpolation between its knots, and its two exponential tails."""
    knots = np.concatenate([[0.0], np.cumsum(slopes[1:9] / 10)])
    knots += median - knots[4]

    def at(a):
        if a < 0.1:
            return knots[0] + slopes[0] / 10 * math.log(10 * a)
        return knots[8] - slopes[9] / 10 * math.log(10 * (1 - a)) if a > 0.9 else np.interp(a, TENTHS, knots)

    return knots, at


def drawn(seed=0, spread=1.5, smallest=0.0):
    numbers = np.random.default_rng(seed).normal(scale=spread, size=(ROWS, 11, COLUMNS))
    fn = QuantileSpline(smallest)(torch.as_tensor(numbers))
    return numbers[:, 0], smallest + np.logaddexp(0, numbers[:, 1:]), fn


def each(median, slopes):
    for row, j in np.ndindex(ROWS, COLUMNS):
        yield (row, j), *quantiles(median[row, j], slopes[row, :, j])


def test_it_is_the_inverse_of_its_distribution_function():
    median, slopes, fn = drawn()
    levels = torch.tensor([1e-6, 0.03, 0.1, 0.234, 0.5, 0.81, 0.9, 0.99, 1 - 1e-6]).double()
    x = fn.icdf(levels[:, None, None])
    for (row, j), _, q in each(median, slopes):
        np.testing.assert_allclose(x[:, row, j], [q(float(a)) for a in levels], rtol=1e-9)
    np.testing.assert_allclose(fn.cdf(x), levels[:, None, None].expand_as(x), rtol=1e-9)
    below, upto = distribution_function(fn, x)
    assert torch.equal(below, upto)


@pytest.mark.filterwarnings("ignore:The occurrence of roundoff")  # of pieces as narrow as 1e-3; the masses are right
def test_its_density_is_the_derivative_of_its_distribution_function_and_adds_up_to_one():
    median, slopes, fn = drawn()
    for (row, j), knots, q in each(median, slopes):

        def density(x, row=row, j=j):
            return fn.log_prob(torch.tensor(x).double())[row, j].exp().item()

        parts = [q(1e-7), *knots, q(1 - 1e-7)]
        masses = [integrate.quad(density, a, b, epsabs=1e-9, epsrel=1e-7)[0] for a, b in pairwise(parts)]
        np.testing.assert_allclose(masses, [0.1 - 1e-7, *[0.1] * 8, 0.1 - 1e-7], rtol=1e-6)
        for a in (0.02, 0.25, 0.97):
            slope = (q(a + 1e-5) - q(a - 1e-5)) / 2e-5
            assert density(q(a)) == pytest.approx(1 / slope, rel=1e-4)


def test_its_moments_are_those_of_its_quantiles():
    median, slopes, fn = drawn()
    for (row, j), _, q in each(median, slopes):
        parts = [0, *TENTHS, 1]
        first, second = (
            sum(integrate.quad(lambda a, p=p, q=q: q(a) ** p, u, v)[0] for u, v in pairwise(parts)) for p in (1, 2)
        )
        assert fn.mean[row, j].item() == pytest.approx(first, rel=1e-6)
        assert fn.variance[row, j].item() == pytest.approx(second - first**2, rel=1e-6)
    with seeded(0):
        draws = fn.sample((100_000,))
    np.testing.assert_allclose(draws.mean(0), fn.mean, atol=0.05)
    np.testing.assert_allclose((draws < fn.median).double().mean(0), 0.5, atol=0.01)


@pytest.mark.parametrize("x", [-6.0, -0.4, 0.3, 9.0])
def test_the_score_is_twice_the_mean_pinball_loss_and_the_squared_distance_of_distribution_functions(x):
    median, slopes, fn = drawn()
    score = crps(fn, torch.tensor(x).double())
    for (row, j), knots, q in each(median, slopes):
        level = min(float(fn.cdf(torch.tensor(x).double())[row, j]), 1 - 1e-12)
        parts = sorted([1e-12, *TENTHS, 1 - 1e-12, level])

        def pinball(a, q=q):
            return 2 * max(a * (x - q(a)), (a - 1) * (x - q(a)))

        by_levels = sum(integrate.quad(pinball, u, v)[0] for u, v in pairwise(parts))
        assert score[row, j].item() == pytest.approx(by_levels, rel=1e-6)

        def apart(y, row=row, j=j):
            return (float(fn.cdf(torch.tensor(y).double())[row, j]) - (y >= x)) ** 2

        ends = sorted([min(q(1e-12), x), *knots, x, max(q(1 - 1e-12), x)])
        by_values = sum(integrate.quad(apart, u, v)[0] for u, v in pairwise(ends))
        assert score[row, j].item() == pytest.approx(by_values, rel=1e-5)


def test_the_score_of_a_normal_is_that_of_draws():
    fn = dist.Normal(torch.tensor([0.5, -1.0]).double(), torch.tensor([2.0, 0.3]).double())
    x = torch.tensor([3.0, -1.2]).double()
    draws = fn.mean + fn.stddev * torch.as_tensor(stats.norm.ppf((np.arange(4000) + 0.5) / 4000))[:, None]
    apart = (draws[:, None] - draws).abs().mean((0, 1))
    by_draws = (draws - x).abs().mean(0) - apart / 2
    np.testing.assert_allclose(crps(fn, x), by_draws, rtol=1e-3)


def test_the_gradient_of_the_score_is_that_of_its_differences():
    numbers = torch.as_tensor(np.random.default_rng(3).normal(size=(3, 11, 2))).requires_grad_()
    x = torch.tensor([[0.2, -4.0], [0.0, 5.0], [-0.3, 0.7]]).double()
    assert torch.autograd.gradcheck(lambda p: crps(QuantileSpline()(p), x), numbers)


@pytest.mark.parametrize("width", [1e-9, 1e-3, 0.4, 30.0])
def test_the_mass_of_a_cell_is_a_difference_of_levels(width):
    _, _, fn = drawn()
    x = fn.icdf(torch.tensor([1e-4, 0.15, 0.42, 0.95, 1 - 1e-4]).double()[:, None, None])
    found = Cells(torch.nn.Identity(), torch.full((COLUMNS,), width).double()).likelihood(fn.to_event(1))
    mass = found.base_dist.log_prob(x).exp()
    # of so narrow ones a difference is rounding, and what they have is a density
    expected = fn.cdf(x + width / 2) - fn.cdf(x - width / 2) if width > 1e-6 else fn.log_prob(x).exp() * width
    np.testing.assert_allclose(mass, expected, rtol=1e-6)
    single = PiecewiseQuantiles(fn.median.float(), fn.slopes.float())
    low, high = (x - width / 2).float(), (x + width / 2).float()
    of_single = log_interval_mass(single, low, high, torch.tensor(width))
    np.testing.assert_allclose(of_single, mass.log(), atol=2e-3)


def test_far_out_everything_is_finite_and_so_are_gradients():
    for dtype, smallest in ((torch.float64, 0.0), (torch.float32, 1e-3)):
        for end in (-50.0, 50.0):
            for piece in range(10):
                numbers = torch.zeros(1, 11, 2, dtype=dtype)
                numbers[:, 1 + piece] = end
                numbers.requires_grad_()
                fn = QuantileSpline(smallest)(numbers)
                x = torch.tensor([[-3.0], [0.0], [1e3]], dtype=dtype).expand(3, 2)
                width = torch.full((2,), 0.1, dtype=dtype)
                mass = Cells(torch.nn.Identity(), width).likelihood(fn.to_event(1)).base_dist.log_prob(x)
                for score in (fn.log_prob(x), crps(fn, x), mass):
                    (gradient,) = torch.autograd.grad(score.sum(), numbers, retain_graph=True)
                    assert score.isfinite().all()
                    assert gradient.isfinite().all()


def test_it_starts_at_the_quantiles_of_a_standard_normal():
    emission = QuantileSpline()
    fn = emission(emission.start(torch.ones(7, 2).double()))
    np.testing.assert_allclose(fn.knots, np.tile(stats.norm.ppf(TENTHS), (2, 1)), rtol=1e-9, atol=1e-9)
    beyond = stats.norm.expect(lambda x: x - stats.norm.ppf(0.9), lb=stats.norm.ppf(0.9), conditional=True)
    np.testing.assert_allclose(fn.slopes[:, [0, 9]], 10 * beyond, rtol=1e-6)


def test_with_a_smallest_slope_there_is_a_bound_and_the_watch_sees_one_steep_piece():
    assert QuantileSpline().log_density_bound() == math.inf
    emission = QuantileSpline(0.02)
    numbers = torch.zeros(11, 1)
    numbers[4] = -60.0
    fn = emission(numbers)
    peak = fn.log_prob(torch.linspace(-5, 5, 10_001)[:, None]).max().item()
    assert peak == pytest.approx(emission.log_density_bound())
    assert column_scale(fn).item() == pytest.approx(math.exp(-peak) / math.sqrt(2 * math.pi))
    assert fn.stddev.item() > 20 * column_scale(fn).item()  # which does not tell
    tails = emission(torch.full((11, 1), -60.0))
    depth = tails.knots[..., 0] - tails.icdf(torch.tensor([0.1 / math.e]))
    assert depth.item() == pytest.approx(0.02, rel=1e-4)  # where a tenth is 1/e of that


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    peaks = rng.choice([-2.0, 2.0], size=(400, 1)) + 0.3 * rng.normal(size=(400, 3))
    return zoo.Data.from_array(peaks, resolution=None, name="two peaks")


def test_the_objective_is_minus_the_score_and_minus_the_kl_term(data):
    pair = zoo.create("quantile-spline", data, latent_dim=2, hidden=(6,))
    pair.model.double()
    pair.guide.double()
    x = torch.as_tensor(pair.view.inward(data.train.values))[:8]
    hidden = x.clone()
    hidden[:, 1] = torch.nan
    model, guide = observed(pair.model, pair.guide, torch.zeros(3).double())
    for beta, rows in ((0.5, x), (2.0, x), (0.5, hidden)):
        with seeded(0), pyro_context(), torch.no_grad():
            loss = CRPS(beta)(model, guide, rows)
        with seeded(0), pyro_context(), torch.no_grad():
            z = zoo.objectives.traces(model, guide, rows)[1].nodes["z"]["value"]
        fn = pair.model.likelihood(z).base_dist
        score = np.nansum([fn.crps(rows).detach().numpy()], axis=(0, 2)).mean()
        assert -loss.value.item() == pytest.approx(-score / (2 * beta) - loss.diagnostics["kl"].item())
    with pytest.raises(OptionError, match="objective crps: the continuous ranked probability score of StudentT is not"):
        zoo.fit(zoo.create("student-t", data), data, seeds=1, steps=2, objective="crps", progress=False)


def test_its_density_has_no_end_along_a_path(data):
    few = data.train.values[:20]
    assert zoo.witness(zoo.create("quantile-spline", data, smallest=None), few).grows
    found = zoo.witness(zoo.create("quantile-spline", data), few)
    assert not found.grows
    assert found.log_likelihood.max() < found.bound


@pytest.mark.slow
def test_two_peaks_are_predicted_as_well_as_by_the_columns_themselves(data):
    """Of columns that know nothing of each other no model has a better score than their own quantiles."""
    rng = np.random.default_rng(1)
    x = rng.choice([-2.0, 2.0], size=(1500, 3)) + 0.3 * rng.normal(size=(1500, 3))
    apart = zoo.Data.from_array(x, resolution=None, name="apart")
    run = zoo.fit(zoo.create("quantile-spline", apart, latent_dim=1), apart, seeds=2, steps=1500, progress=False)
    zoo.evaluate(run, apart, samples=200, temperatures=0, reference=0)
    calibration = run.tree["calibration"].sel(kind="leave-one-out")
    assert float(calibration["crps"].mean()) < 1.02 * float(calibration["crps_reference"].mean())
    assert abs(float(calibration["coverage"].sel(level=0.9).mean()) - 0.9) < 0.03
