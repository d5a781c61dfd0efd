"""Emissions of numbers from 0 to 1 and the gamma, against SciPy and quadrature at parameters worked out anew."""

import math
from itertools import product

import numpy as np
import pytest
import torch
from scipy import integrate, stats
from scipy.special import expit, logit
from torch import nn

from zoo.context import seeded
from zoo.densities import column_scale, distribution_function
from zoo.lenses import Cells
from zoo.models.emissions import Beta, ContinuousBernoulli, Gamma, LogitNormal, LogNormal, TruncatedNormal
from zoo.models.ordinal import Binned, log_interval_mass

EMISSIONS = {
    "continuous-bernoulli": ContinuousBernoulli,
    "beta": Beta,
    "logit-normal": LogitNormal,
    "truncated-normal": TruncatedNormal,
    "gamma": Gamma,
}
UNIT = [name for name in EMISSIONS if name != "gamma"]
INTERIOR = ["beta", "logit-normal"]  # whose density is 0 or infinite at 0 and 1


class LogitNormalOfSciPy:
    """A normal of the logit."""

    def __init__(self, mu, v):
        self.normal = stats.norm(mu, np.exp(v / 2))

    def logpdf(self, x):
        return self.normal.logpdf(logit(x)) - np.log(x) - np.log1p(-x)

    def cdf(self, x):
        return self.normal.cdf(logit(x))

    def ppf(self, u):
        return expit(self.normal.ppf(u))


class ExponentialOfSciPy:
    """An exponential cut to [0, 1], or one of 1 - x."""

    def __init__(self, eta):
        self.up = eta > 0
        self.fall = stats.truncexpon(np.abs(eta), scale=1 / np.abs(eta))

    def logpdf(self, x):
        return self.fall.logpdf(np.where(self.up, 1 - x, x))

    def cdf(self, x):
        return np.where(self.up, self.fall.sf(1 - x), self.fall.cdf(x))

    def ppf(self, u):
        return np.where(self.up, 1 - self.fall.isf(u), self.fall.ppf(u))

    def mean(self):
        return np.where(self.up, 1 - self.fall.mean(), self.fall.mean())

    def var(self):
        return self.fall.var()


def truncated(mu, v):
    scale = np.exp(v / 2)
    return stats.truncnorm(-mu / scale, (1 - mu) / scale, mu, scale)


SCIPY = {
    "continuous-bernoulli": ExponentialOfSciPy,
    "beta": lambda a, b: stats.beta(2 * expit(a) * np.exp(b), 2 * expit(-a) * np.exp(b)),
    "logit-normal": LogitNormalOfSciPy,
    "truncated-normal": truncated,
    "gamma": lambda r, s: stats.gamma(np.exp(s), scale=np.exp(r - s)),
}
# kappa and the shape from 0.01 to a million
CONCENTRATIONS = np.log([1e-2, 0.3, 1.0, 1.7, 3.0, 40.0, 1e4, 1e6])
EXTREME = {
    "continuous-bernoulli": np.array([[-1e4, -300.0, -20.0, -1.001, -0.999, 0.5, 1.0, 7.0, 100.0, 1e4]]).T,
    "beta": np.array([*product([-6.0, -1.0, 0.0, 0.5, 4.0], CONCENTRATIONS)]),
    "logit-normal": np.array([*product([-6.0, -0.5, 0.0, 3.0], [-8.0, -1.0, 0.0, 2.0, 5.0])]),
    "truncated-normal": np.array([*product([-2.0, -0.3, 0.0, 0.4, 1.0, 1.1], [-4.0, -2.0, 0.0, 4.0])]),
    "gamma": np.array([*product([-7.0, 0.0, 3.0], CONCENTRATIONS)]),
}


def made(name, numbers, dtype=torch.float64):
    """The distribution of numbers (..., outputs), batch shape (..., 1)."""
    return EMISSIONS[name]()(torch.as_tensor(numbers, dtype=dtype)[..., None])


def numbers_of(name):
    """Extreme ones, and some at random."""
    rng = np.random.default_rng(3)
    return np.concatenate([EXTREME[name], rng.normal(scale=2, size=(20, EXTREME[name].shape[1]))])


def values(name, expected, count, shares=12):
    """Quantiles of SciPy's distribution of each row, and for the unit interval a grid, inside of their support."""
    x = expected.ppf(np.linspace(0.01, 0.99, shares)[:, None])
    if name == "gamma":
        return np.maximum(x, 1e-280)
    grid = np.broadcast_to(np.linspace(0.001, 0.999, 9)[:, None], (9, count))
    return np.concatenate([np.clip(x, 1e-200, 1 - 1e-9), grid])


def of_scipy(name):
    numbers = numbers_of(name)
    expected = SCIPY[name](*numbers.T)
    return numbers, expected, values(name, expected, len(numbers))


def against(found, reference, tolerance):
    np.testing.assert_allclose(found.detach()[..., 0], reference, rtol=tolerance, atol=tolerance)


# -- densities, distribution functions, moments ------------------------------------------------------------------------


@pytest.mark.parametrize("name", EMISSIONS)
def test_the_density_is_scipys(name):
    numbers, expected, x = of_scipy(name)
    fn = made(name, numbers)
    assert fn.batch_shape == (len(numbers), 1)
    # of two log gammas of a million SciPy leaves 1e-9
    against(fn.log_prob(torch.as_tensor(x)[..., None]), expected.logpdf(x), 1e-8)


@pytest.mark.parametrize("name", ["beta", "gamma"])
def test_no_digits_are_lost_in_log_gammas(name):
    """Where the mean is in the middle, the density there is known without one, by the square of a central binomial."""
    for k in (1e6, 1e12):
        numbers = np.array([0.0, math.log(k) - math.log(2) * (name == "beta")])
        x = torch.tensor([0.5 if name == "beta" else 1.0]).double()
        # Stirling: B(k/2, k/2) and Gamma(k) to second order in 1/k
        peak = math.log(k / (2 * math.pi)) / 2 - 1 / (12 * k)
        reference = peak + math.log(2) - 1 / (6 * k) if name == "beta" else peak
        assert made(name, numbers).log_prob(x).item() == pytest.approx(reference, abs=1e-11)


@pytest.mark.parametrize("name", EMISSIONS)
def test_the_distribution_function_is_scipys(name):
    numbers, expected, x = of_scipy(name)
    below, upto = distribution_function(made(name, numbers), torch.as_tensor(x)[..., None])
    assert below.equal(upto)
    reference = expected.cdf(x)
    there = reference > 1e-280
    np.testing.assert_allclose(upto[..., 0][there], reference[there], rtol=1e-9)


@pytest.mark.parametrize("name", ["continuous-bernoulli", "beta", "truncated-normal", "gamma"])
def test_the_moments_are_scipys(name):
    numbers = numbers_of(name)
    expected, fn = SCIPY[name](*numbers.T), made(name, numbers)
    if name == "truncated-normal":  # of which SciPy's variance is a difference of what may be large
        near = np.abs(numbers[:, 0]) <= 3 * np.exp(numbers[:, 1] / 2)
        near &= numbers[:, 1] < 3
    else:
        near = slice(None)
    # a variance of SciPy's cut exponential is, too
    digits = {"continuous-bernoulli": 1e-6, "truncated-normal": 1e-8}.get(name, 1e-12)
    np.testing.assert_allclose(fn.mean[near, 0], expected.mean()[near], rtol=digits)
    np.testing.assert_allclose(fn.variance[near, 0], expected.var()[near], rtol=digits)
    assert column_scale(fn).equal(fn.stddev)


@pytest.mark.parametrize("name", UNIT)
@pytest.mark.parametrize("row", range(3))
def test_the_density_integrates_to_one_and_to_its_moments(name, row):
    numbers = np.random.default_rng(row).normal(size=EXTREME[name].shape[1])
    if name == "beta":
        numbers[1] += 2.5  # else what rounds to 1 has a share that is told
    fn = made(name, numbers)

    def integral(power):
        """Over the logit, under which no density has a pole."""

        def of_logit(t):
            x = expit(t)
            return math.exp(fn.log_prob(torch.tensor([x], dtype=torch.float64)).item()) * x * expit(-t) * x**power

        return integrate.quad(of_logit, -33, 33, epsabs=1e-11, epsrel=1e-11, limit=200, points=[-5, 0, 5])[0]

    total, first, second = map(integral, range(3))
    assert total == pytest.approx(1, abs=1e-8)
    assert fn.mean.item() == pytest.approx(first, abs=1e-8)
    assert fn.variance.item() == pytest.approx(second - first**2, abs=1e-8)


@pytest.mark.parametrize("eta", [0.0, 1e-6, -1e-3, 0.3, -0.9999, 1.0001, -4.0, 30.0])
def test_a_continuous_bernoulli_is_what_its_integrals_say(eta):
    fn = made("continuous-bernoulli", [eta])

    def integral(f, end=1.0):
        return integrate.quad(lambda t: f(t) * math.exp(eta * t), 0, end, epsabs=0, epsrel=1e-13)[0]

    whole = integral(lambda _: 1.0)
    mean = integral(lambda t: t) / whole
    for x in (0.0, 1e-5, 0.2, 0.5, 0.99, 1.0):
        at = torch.tensor([x], dtype=torch.float64)
        assert fn.log_prob(at).item() == pytest.approx(eta * x - math.log(whole), abs=1e-12)
        assert fn.cdf(at).item() == pytest.approx(integral(lambda _: 1.0, x) / whole, rel=1e-11)
    assert fn.mean.item() == pytest.approx(mean, rel=1e-12)
    assert fn.variance.item() == pytest.approx(integral(lambda t: (t - mean) ** 2) / whole, rel=1e-11)


@pytest.mark.parametrize("eta", [0.0, 1e-30, 1e-4, 0.5, 0.99999, 1.00001, 3.0, 80.0, 1e3, 1e4])
@pytest.mark.parametrize("sign", [-1, 1])
def test_a_continuous_bernoulli_is_smooth_in_single_precision(eta, sign):
    single, double = (
        torch.tensor([[sign * eta]], dtype=kind, requires_grad=True) for kind in (torch.float32, torch.float64)
    )
    for x in (0.0, 1e-6, 0.25, 0.5, 1.0):
        found = [
            ContinuousBernoulli()(p).log_prob(torch.tensor([x], dtype=torch.float32).to(p)) for p in (single, double)
        ]
        slopes = [torch.autograd.grad(f.sum(), p)[0].item() for f, p in zip(found, (single, double), strict=True)]
        assert found[0].item() == pytest.approx(found[1].item(), rel=1e-6, abs=1e-6)
        assert slopes[0] == pytest.approx(slopes[1], rel=1e-5, abs=1e-6)
        # the derivative of the log density is x - mean, by a formula of its own
        mean = ContinuousBernoulli()(double).mean.item()
        assert slopes[1] == pytest.approx(float(np.float32(x)) - mean, abs=1e-12)


def test_a_continuous_bernoulli_is_bounded_at_any_other_value_than_0_and_1():
    eta = torch.linspace(-1e4, 1e4, 20_001).double()[:, None, None]
    for y in (1e-3, 0.1, 0.2, 0.45, 0.7):
        near = min(y, 1 - y)
        highest = ContinuousBernoulli()(eta).log_prob(torch.tensor([y], dtype=torch.float64)).max().item()
        assert -math.log(near) - 1 - 1e-3 < highest <= -math.log(near) - 1 + near
    for scale in (1e2, 1e4, 1e8):
        fn = made("continuous-bernoulli", [scale])
        assert fn.log_prob(torch.ones(1).double()).item() == pytest.approx(math.log(scale))


@pytest.mark.parametrize(
    ("name", "numbers", "at"),
    [
        ("beta", [0.0, 200.0], 0.5),
        ("logit-normal", [0.0, -200.0], 0.5),
        ("truncated-normal", [0.25, -200.0], 0.25),
        ("gamma", [0.0, 200.0], 1.0),
    ],
)
def test_a_density_without_a_bound_has_none(name, numbers, at):
    assert EMISSIONS[name]().log_density_bound() == math.inf
    assert made(name, numbers).log_prob(torch.tensor([at], dtype=torch.float64)).item() > 90


def test_a_log_normal_needs_no_floor():
    fn = LogNormal()(torch.tensor([[0.0], [-200.0]]).double())
    assert fn.log_prob(torch.ones(1).double()).item() == pytest.approx(100 - math.log(2 * math.pi) / 2)
    assert LogNormal().log_density_bound() == math.inf


def test_at_0_and_1_the_log_density_is_what_the_formula_says():
    ends, infinite = torch.tensor([0.0, 1.0])[:, None], torch.tensor([math.inf])
    beta = Beta()
    for alpha, b, expected in [(0.5, 0.5, (1, 1)), (2.0, 3.0, (-1, -1)), (0.5, 3.0, (1, -1))]:
        numbers = torch.tensor([math.log(alpha / b), math.log((alpha + b) / 2)])[:, None]
        assert beta(numbers).log_prob(ends).flatten().tolist() == [sign * math.inf for sign in expected]
    assert (LogitNormal()(torch.zeros(2, 1)).log_prob(ends) == -infinite).all()
    for emission in (ContinuousBernoulli(), TruncatedNormal()):
        fn = emission(torch.full((emission.outputs, 1), 0.7).double())
        inside = fn.log_prob(torch.tensor([1e-12, 1 - 1e-12]).double()[:, None])
        torch.testing.assert_close(fn.log_prob(ends.double()), inside, rtol=0, atol=1e-11)


@pytest.mark.parametrize("far", [1e2, 1e4, 1e8])
def test_a_normal_far_outside_is_an_exponential(far):
    """To first order in 1 / slope^2, with the slope (-mu / sigma) of its logarithm at 0."""
    scale = 1 / far
    fn = made("truncated-normal", [-1.0, 2 * math.log(scale)])
    rate = far / scale
    x = np.array([0.0, 0.3, 1.0, 4.0]) / rate
    log_p = math.log(rate) - rate * x - np.square(x / scale) / 2 + far**-2
    against(fn.log_prob(torch.as_tensor(x)[:, None]), log_p, 4 * far**-4 + 1e-13)
    np.testing.assert_allclose(fn.mean.item() * rate, 1 - 2 * far**-2, rtol=20 * far**-4 + 1e-11)
    np.testing.assert_allclose(fn.variance.item() * rate**2, 1 - 6 * far**-2, rtol=100 * far**-4 + 1e-10)


# -- cells -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", EMISSIONS)
def test_narrow_cells_have_the_mass_of_their_density(name):
    numbers, _, x = of_scipy(name)
    fn, x = made(name, numbers), torch.as_tensor(x).clamp(1e-3, 1 - 1e-3)[..., None]
    width = 1e-9
    mass = log_interval_mass(fn, x - width / 2, x + width / 2, torch.tensor(width, dtype=torch.float64))
    density = fn.log_prob(x)
    # about what the density is linear over such a cell
    steep = [(fn.log_prob(x + side * width) - density).abs() for side in (-1, 1)]
    told = (steep[0] < 1e-3) & (steep[1] < 1e-3) & (density > -1e5)
    assert told.double().mean() > 0.9
    np.testing.assert_allclose(mass[told], (density + math.log(width))[told], rtol=1e-10, atol=2e-7)


@pytest.mark.parametrize("name", EMISSIONS)
def test_both_tails_have_all_their_digits(name):
    rng = np.random.default_rng(5)
    rows = {"beta": (0.5, 8.0), "truncated-normal": (0.4, -5.0), "logit-normal": (0.0, -2.0), "gamma": (0.0, 5.0)}
    numbers = np.array(rows.get(name, (12.0,)))[None]
    expected = SCIPY[name](*numbers.T)
    high = math.inf if name == "gamma" else 1.0
    x = np.sort(rng.uniform(0.02, 0.98, size=(40, 1))) * (3 if name == "gamma" else 1)
    fn, at = made(name, numbers), torch.as_tensor(x)[..., None]
    lower = log_interval_mass(fn, torch.zeros_like(at), at, at)
    upper = log_interval_mass(fn, at, torch.full_like(at, high), high - at)
    if name == "logit-normal":
        references = expected.normal.logcdf(logit(x)), expected.normal.logsf(logit(x))
    elif name == "continuous-bernoulli":
        references = np.log(expected.cdf(x)), np.log(expected.fall.cdf(1 - x))
    else:
        references = expected.logcdf(x), expected.logsf(x)
    for found, reference in zip((lower, upper), references, strict=True):
        told = reference > -600  # below which SciPy has 0
        assert told.sum() > 15
        np.testing.assert_allclose(found[..., 0][told], reference[told], rtol=1e-8, atol=1e-9)


def levels_in_unit(count, dtype):
    """As zoo.supports maps levels to [0, 1]: the outermost cells lie within it."""
    return (torch.arange(count).double() + 0.5).div(count).to(dtype), torch.tensor(1 / count, dtype=dtype)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 2e-6)])
@pytest.mark.parametrize("count", [2, 5, 17, 256])
@pytest.mark.parametrize("name", UNIT)
def test_the_masses_of_levels_add_up_to_one(name, count, dtype, tolerance):
    """To rounding of the levels themselves, in single precision."""
    levels, width = levels_in_unit(count, dtype)
    fn = made(name, numbers_of(name), dtype)
    with torch.no_grad():
        log_mass = (
            Cells(nn.Identity(), width[None]).likelihood(fn.to_event(1)).base_dist.log_prob(levels[:, None, None])
        )
    assert (log_mass <= 0).all()
    np.testing.assert_allclose(log_mass.double().exp().sum(0), 1, rtol=0, atol=tolerance)


@pytest.mark.parametrize("name", ["gamma"])
def test_the_masses_of_cells_of_positive_numbers_add_up(name):
    numbers, width = numbers_of(name), 0.5
    fn, grid = made(name, numbers), (torch.arange(800).double() + 0.5) * width
    masses = Binned(fn, width).log_prob(grid[:, None, None]).exp().sum(0)
    np.testing.assert_allclose(masses[:, 0], SCIPY[name](*numbers.T).cdf(400.0), rtol=0, atol=1e-10)


@pytest.mark.parametrize("name", UNIT)
def test_beyond_0_and_1_there_is_nothing(name):
    fn = made(name, numbers_of(name)[:4])
    outside = torch.tensor([-0.3, 1.3]).double()[:, None, None]
    mass = log_interval_mass(fn, outside - 0.1, outside + 0.1, torch.tensor(0.2).double())
    assert (mass == -math.inf).all()
    assert (fn.cdf(outside)[0] == 0).all()
    np.testing.assert_allclose(fn.cdf(outside)[1], 1, rtol=0, atol=1e-10)
    part = log_interval_mass(fn, outside * 0 - 0.25, outside * 0 + 0.25, torch.tensor(0.5).double())
    torch.testing.assert_close(part.exp(), fn.cdf(outside * 0 + 0.25))


@pytest.mark.parametrize("name", EMISSIONS)
def test_single_precision_is_close_to_double(name):
    numbers = numbers_of(name).astype(np.float32).astype(float)
    x = torch.tensor([0.01, 0.3, 0.5, 0.875, 0.99]).float()[:, None, None]
    scores = []
    for dtype in (torch.float32, torch.float64):
        fn, at, width = made(name, numbers, dtype), x.to(dtype), torch.tensor(1 / 64, dtype=dtype)
        scores.append((fn.log_prob(at), log_interval_mass(fn, at - width / 2, at + width / 2, width)))
    for single, double in zip(*scores, strict=True):
        # a tail of the logit-normal is as steep as the square of its logits by the variance
        np.testing.assert_allclose(single, double, rtol=2e-5, atol=2e-5)


# -- gradients ---------------------------------------------------------------------------------------------------------

CHECKED = {
    "continuous-bernoulli": [[0.0], [1e-3], [-0.99], [1.01], [-25.0]],
    "beta": [[0.0, 0.0], [-3.0, -2.0], [2.0, 1.5], [0.3, 7.0], [1.0, -4.0]],
    "logit-normal": [[0.0, 0.0], [-3.0, 1.0], [2.0, -2.0]],
    "truncated-normal": [[0.0, 0.0], [1.0, 0.0], [0.2, -4.0], [-3.0, -1.0], [0.5, 6.0], [1.3, -3.0]],
    "gamma": [[0.0, 0.0], [-1.0, 6.0], [1.0, -4.0], [0.5, 1.0]],
}
INTERVALS = [(0.0, 1e-3), (0.0, 0.4), (0.3, 1e-7), (0.2, 0.5), (0.5, 0.5), (0.999, 1e-3), (0.9, 0.05)]


@pytest.mark.parametrize("name", EMISSIONS)
def test_the_gradients_of_density_mass_and_moments_are_right(name):
    numbers = torch.tensor(CHECKED[name], dtype=torch.float64)[..., None].requires_grad_()
    low, width = torch.tensor(INTERVALS, dtype=torch.float64).T[..., None, None]
    x = torch.tensor([0.001, 0.3, 0.5, 0.97]).double()[:, None, None]
    emission = EMISSIONS[name]()

    def scores(p):
        fn = emission(p)
        return fn.log_prob(x), log_interval_mass(fn, low, low + width, width), fn.cdf(x), fn.mean, fn.variance

    assert torch.autograd.gradcheck(scores, numbers, eps=1e-5, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", ["beta", "gamma"])
def test_the_gradient_of_a_mass_is_right_for_any_concentration(name):
    numbers = torch.as_tensor(EXTREME[name])[..., None]
    expected = SCIPY[name](*EXTREME[name].T)
    low, high = (torch.as_tensor(expected.ppf(u)).clamp(1e-12, 1e9)[:, None] for u in (0.2, 0.7))
    told = (high - low) > 1e-6  # and not all mass within rounding of an end
    told &= (low < 0.999) | (name == "gamma")
    numbers, low, high = numbers[told[:, 0]], low[told[:, 0]], high[told[:, 0]]
    assert len(numbers) > 15

    def mass(p):
        return log_interval_mass(EMISSIONS[name]()(p), low, high, high - low)

    assert torch.autograd.gradcheck(mass, numbers.requires_grad_(), eps=1e-6, atol=1e-4, rtol=1e-5)


FAR_VALUES = {
    **dict.fromkeys(EMISSIONS, (0.0, 0.3, 1.0)),
    **dict.fromkeys(INTERIOR, (1e-6, 0.3, 0.999)),
    "gamma": (1e-3, 30.0),
}


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("name", EMISSIONS)
def test_far_out_everything_is_finite_and_so_are_gradients(name, dtype):
    end = 50.0 if dtype == torch.float64 else 20.0  # single precision has no 1e40
    corners = np.array([*product([-end, 0.0, end], repeat=EMISSIONS[name].outputs)])
    parameters = torch.as_tensor(corners, dtype=dtype)[..., None].requires_grad_()
    fn = EMISSIONS[name]()(parameters)
    x = torch.tensor(FAR_VALUES[name], dtype=dtype)[:, None, None]
    mass = log_interval_mass(fn, x - 0.05, x + 0.05, torch.tensor(0.1, dtype=dtype))
    assert (mass <= 0).all()
    for score in (fn.log_prob(x), mass, fn.cdf(x), fn.mean):
        assert score.isfinite().all()
        (gradient,) = torch.autograd.grad(score.sum(), parameters, retain_graph=True)
        assert gradient.isfinite().all()


def test_far_outside_the_gradient_of_a_truncated_normal_is_that_of_an_exponential():
    numbers = torch.tensor([[-50.0], [-50.0]]).double().requires_grad_()
    score = TruncatedNormal()(numbers).log_prob(torch.zeros(1).double())  # log(-mu / sigma^2)
    (gradient,) = torch.autograd.grad(score.sum(), numbers)
    np.testing.assert_allclose(gradient.flatten(), [-1 / 50, -1], rtol=1e-9)


@pytest.mark.parametrize("name", EMISSIONS)
def test_masses_can_be_had_for_many_seeds_at_once(name):
    """As the engine has them, by vmap over gradients."""
    numbers = torch.tensor(CHECKED[name][:3]).double()[..., None]
    x = torch.tensor([0.3]).double()

    def score(p):
        fn = EMISSIONS[name]()(p)
        return fn.log_prob(x).sum() + log_interval_mass(fn, x - 0.1, x + 0.1, torch.tensor(0.2).double()).sum()

    at_once = torch.func.vmap(torch.func.grad(score))(numbers)
    torch.testing.assert_close(at_once, torch.stack([torch.func.grad(score)(p) for p in numbers]))


# -- draws and starts --------------------------------------------------------------------------------------------------

DRAWN = {
    "continuous-bernoulli": [[0.0], [1e-5], [-0.5], [40.0], [-1e3]],
    "beta": [[0.0, 0.7], [-2.0, 3.0], [0.5, 9.0], [-6.0, 1.0]],
    "logit-normal": [[0.0, 0.0], [-2.0, 2.0], [1.0, -4.0]],
    "truncated-normal": [[0.3, -3.0], [-0.5, 0.0], [-40.0, -4.0], [1.2, -2.0], [0.5, 6.0], [0.1, 40.0]],
    "gamma": [[0.0, 0.0], [2.0, -3.0], [-1.0, 8.0]],
}


@pytest.mark.parametrize("name", EMISSIONS)
def test_draws_are_of_the_distribution_function(name):
    fn = made(name, DRAWN[name])
    with seeded(0):
        drawn = fn.sample((4000,))
    assert drawn.shape == (4000, len(DRAWN[name]), 1)
    for j in range(len(DRAWN[name])):
        shares = fn.cdf(drawn)[:, j, 0].numpy()
        assert stats.kstest(shares, "uniform").pvalue > 0.01 / len(DRAWN[name])


@pytest.mark.parametrize("name", EMISSIONS)
def test_draws_follow_their_parameters(name):
    """The mean of draws has the gradient of the mean."""
    numbers = torch.tensor(DRAWN[name][:2]).double()[..., None].requires_grad_()
    fn = EMISSIONS[name]()(numbers)
    with seeded(1):
        drawn = fn.rsample((40_000,))
        assert fn.has_rsample and not fn.sample().requires_grad
    (found,) = torch.autograd.grad(drawn.mean(0).sum(), numbers, retain_graph=True)
    (expected,) = torch.autograd.grad(fn.mean.sum(), numbers)
    # in standard errors of the mean, times some
    np.testing.assert_allclose(found, expected, atol=0.1 * float(expected.abs().max()))


@pytest.mark.parametrize("name", [*INTERIOR, "gamma"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_draw_has_a_density(name, dtype):
    rows = {"beta": [0.0, -5.0], "logit-normal": [0.0, 12.0], "gamma": [0.0, -6.0]}
    fn = made(name, rows[name], dtype)
    with seeded(0):
        drawn = fn.sample((2000,))
    assert drawn.dtype == dtype
    assert fn.log_prob(drawn).isfinite().all()


@pytest.mark.parametrize("name", [name for name in EMISSIONS if name != "beta"])
def test_training_starts_at_the_marginal(name):
    rng = np.random.default_rng(0)
    x = np.stack([rng.beta(2, 3, 500), rng.beta(0.4, 0.6, 500), rng.beta(9, 0.7, 500), np.full(500, 0.25)], axis=1)
    x = torch.as_tensor(x * (7 if name == "gamma" else 1))
    numbers = EMISSIONS[name]().start(x)
    assert numbers.shape == (EMISSIONS[name].outputs, 4) and numbers.dtype == x.dtype
    fn = EMISSIONS[name]()(numbers)
    if name == "logit-normal":
        clipped = x.clamp(1e-4, 1 - 1e-4).logit()
        torch.testing.assert_close(fn.loc, clipped.mean(0))
        torch.testing.assert_close(fn.scale[:3], clipped.std(0, correction=0)[:3])
    else:
        torch.testing.assert_close(fn.mean, x.mean(0), rtol=1e-6, atol=1e-6)
    if name == "gamma":
        torch.testing.assert_close(fn.variance[:3], x.var(0, correction=0)[:3])


@pytest.mark.parametrize("value", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("name", [name for name in EMISSIONS if name != "beta"])
def test_constant_columns_have_a_finite_start(name, value):
    x = torch.full((9, 2), value + (name == "gamma"))
    numbers = EMISSIONS[name]().start(x)
    assert numbers.isfinite().all() and numbers.abs().max() < 1e5
    assert EMISSIONS[name]()(numbers).mean.isfinite().all()
