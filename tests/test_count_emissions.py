"""Emissions of counts and of levels: masses, moments and distribution functions against SciPy and mpmath."""

from itertools import product

import mpmath
import numpy as np
import pyro.distributions as dist
import pytest
import torch
from scipy import stats
from scipy.special import expit, log_softmax, logsumexp

from zoo.context import seeded
from zoo.densities import column_scale, distribution_function, smallest_scale
from zoo.models.emissions import (
    BetaBinomial,
    BinnedOrdinal,
    ColumnNegativeBinomial,
    CumulativeOrdinal,
    LogisticMixtureOrdinal,
    NegativeBinomial,
    Poisson,
    ZeroInflatedNegativeBinomial,
)
from zoo.models.gammas import log_rise

ROWS, COLUMNS, TOTALS, LOG_SIZES = 6, 3, [1, 7, 40], [-1.0, 0.5, 3.0]
LEVELS = [[0.0, 1.0, 2.0, 3.0, 4.0], [2007.0, 2008.0], [-2.0, 0.0, 2.0, 4.0]]


def column():
    emission = ColumnNegativeBinomial(COLUMNS)
    emission.log_size.data.copy_(torch.tensor(LOG_SIZES))
    return emission


EMISSIONS = {
    "poisson": Poisson,
    "negative-binomial": NegativeBinomial,
    "column": column,
    "zero-inflated": ZeroInflatedNegativeBinomial,
    "beta-binomial": lambda: BetaBinomial(torch.tensor(TOTALS)),
    "mixture": lambda: LogisticMixtureOrdinal(LEVELS, components=3),
}
COUNTS = ["poisson", "negative-binomial", "column", "zero-inflated"]
NEW = ["negative-binomial", "column", "zero-inflated", "beta-binomial"]


def double(values):
    return torch.as_tensor(np.asarray(values), dtype=torch.float64)


def drawn(name, seed=0, spread=1.0):
    """An emission, parameters (ROWS, outputs, COLUMNS) at random, and the distribution they make."""
    emission = EMISSIONS[name]().double()
    numbers = np.random.default_rng(seed).normal(scale=spread, size=(ROWS, emission.outputs, COLUMNS))
    return numbers, emission(double(numbers))


class Inflated:
    """By its formula."""

    def __init__(self, base, share):
        self.base, self.share = base, share

    def logpmf(self, x):
        return np.log(self.share * (x == 0) + (1 - self.share) * self.base.pmf(x))

    def cdf(self, x):
        return self.share * (x >= 0) + (1 - self.share) * self.base.cdf(x)

    def mean(self):
        return (1 - self.share) * self.base.mean()

    def var(self):
        square = self.base.var() + self.base.mean() ** 2
        return (1 - self.share) * square - self.mean() ** 2

    def rvs(self, size, random_state):
        return self.base.rvs(size, random_state) * (random_state.random(size) > self.share)


def nbinom(r, s):
    return stats.nbinom(np.exp(s), expit(s - r))


SCIPY = {
    "poisson": lambda r: stats.poisson(np.exp(r)),
    "negative-binomial": nbinom,
    "column": lambda r: nbinom(r, np.array(LOG_SIZES)),
    "zero-inflated": lambda r, s, g: Inflated(nbinom(r, s), expit(g)),
    "beta-binomial": lambda a, b: stats.betabinom(TOTALS, np.exp(b) * expit(a), np.exp(b) * expit(-a)),
}


def by_scipy(name, numbers):
    return SCIPY[name](*np.moveaxis(numbers, -2, 0))


def logistic_mixture(numbers, levels, column):
    """Log masses (V, ROWS) of the levels of a column: from the left or the right, wherever the tail is."""
    logits, a, v = np.split(numbers[..., column], 3, axis=-1)
    spread = np.float64(np.float32(np.std(levels)))  # as it is kept
    fn = stats.logistic((levels[0] + levels[-1]) / 2 + spread * a, spread * np.exp(v))
    half = (levels[1] - levels[0]) / 2
    found = []
    for level in levels:
        low = -np.inf if level == levels[0] else level - half
        high = np.inf if level == levels[-1] else level + half
        with np.errstate(divide="ignore"):  # on the side that is not taken
            right = fn.logsf(low) + np.log(-np.expm1(fn.logsf(high) - fn.logsf(low)))
            left = fn.logcdf(high) + np.log(-np.expm1(fn.logcdf(low) - fn.logcdf(high)))
        of_each = np.where(fn.mean() < level, right, left)
        found.append(logsumexp(log_softmax(logits, axis=-1) + of_each, axis=-1))
    return np.array(found)


# -- masses and moments ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", NEW)
def test_the_mass_and_the_moments_are_scipys(name, seed):
    numbers, fn = drawn(name, seed)
    expected = by_scipy(name, numbers)
    x = expected.rvs((50, ROWS, COLUMNS), random_state=np.random.default_rng(seed)).astype(float)
    assert fn.batch_shape == (ROWS, COLUMNS)
    np.testing.assert_allclose(fn.log_prob(double(x)).detach(), expected.logpmf(x), rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(fn.mean.detach(), expected.mean(), rtol=1e-12)
    np.testing.assert_allclose(fn.variance.detach(), expected.var(), rtol=1e-9)


@pytest.mark.parametrize("spread", [1.0, 3.0, 6.0])
def test_the_masses_of_a_logistic_mixture_are_differences_of_scipys_functions(spread):
    numbers, fn = drawn("mixture", spread=spread)
    for j, levels in enumerate(LEVELS):
        x = double(levels)[:, None, None].expand(-1, ROWS, COLUMNS)
        expected = logistic_mixture(numbers, levels, j)
        np.testing.assert_allclose(fn.log_prob(x)[..., j], expected, rtol=1e-10, atol=1e-10)
        masses = np.exp(expected)
        mean = levels @ masses
        np.testing.assert_allclose(fn.mean[:, j], mean, rtol=1e-10)
        variance = (masses * np.subtract.outer(levels, mean) ** 2).sum(0)
        np.testing.assert_allclose(fn.variance[:, j], variance, rtol=1e-9, atol=1e-11)


def rising(a, x):
    return mpmath.loggamma(a + x) - mpmath.loggamma(a)


def exact_negative_binomial(r, s, x):
    mean, size = mpmath.exp(r), mpmath.exp(s)
    chosen = rising(size, x) - mpmath.loggamma(x + 1)
    return chosen - size * mpmath.log1p(mean / size) - x * mpmath.log1p(size / mean)


def exact_beta_binomial(a, b, x, total):
    ones, zeros = (mpmath.exp(b) / (1 + mpmath.exp(sign * a)) for sign in (-1, 1))
    choices = mpmath.loggamma(total + 1) - mpmath.loggamma(x + 1) - mpmath.loggamma(total - x + 1)
    return choices + rising(ones, x) + rising(zeros, total - x) - rising(ones + zeros, total)


@pytest.fixture
def digits():
    with mpmath.workdps(40):
        yield


@pytest.mark.parametrize("a", [1e-22, 0.3, 5.0, 31.9, 32.1, 40.0, 1e3, 1e9])
def test_a_rising_factorial_is_exact_on_both_sides_of_where_its_series_begins(digits, a):
    for x in (0.0, 1.0, 2.0, 7.0, 100.0):
        expected = rising(mpmath.mpf(a), x) - x * mpmath.log(a)
        found = log_rise(double(a), double(x)).item()
        assert found == pytest.approx(float(expected), rel=1e-14, abs=1e-13 * (1 + x / 10))


def test_masses_are_exact_wherever_counts_dispersions_and_totals_are(digits):
    """To within what double precision leaves of log gammas of a million, 1e7: SciPy's own are lost there."""
    rng = np.random.default_rng(0)
    for _ in range(150):
        r, s, x = rng.uniform(-25, 14), rng.uniform(-25, 25), float(int(np.exp(rng.uniform(0, 14)) - 1))
        found = NegativeBinomial()(double([[r], [s]])).log_prob(double([x])).item()
        assert found == pytest.approx(float(exact_negative_binomial(r, s, x)), rel=1e-9, abs=1e-8)
        a, b, total = *rng.uniform(-25, 25, 2), float(int(np.exp(rng.uniform(0, 14))))
        x = float(rng.choice([0, total, rng.integers(0, total + 1)]))
        found = BetaBinomial(int(total))(double([[a], [b]])).log_prob(double([x])).item()
        assert found == pytest.approx(float(exact_beta_binomial(a, b, x, total)), rel=1e-9, abs=1e-8)


def test_zeros_besides_are_exact_where_they_are_all_or_none():
    emission = ZeroInflatedNegativeBinomial().double()
    parameters = double([[0.0, 0.0, 0.0], [0.0, 0.0, 0.0], [-800.0, 40.0, 800.0]])
    zero, one = emission(parameters).log_prob(double([[0.0] * 3, [1.0] * 3]))
    np.testing.assert_allclose(zero, [-np.log(2), -np.exp(-40) / 2, 0.0], rtol=1e-12)
    np.testing.assert_allclose(one, np.array([0.0, -40.0, -800.0]) - 2 * np.log(2), rtol=1e-14)
    fn = ZeroInflatedNegativeBinomial()(torch.tensor([[14.0], [25.0], [-14.0]]))  # squares of the mean cancel
    share, mean = expit(-14.0), np.exp(14.0)
    np.testing.assert_allclose(fn.variance, (1 - share) * (mean + mean**2 * (np.exp(-25.0) + share)), rtol=1e-5)


@pytest.mark.parametrize("mean", [1e-3, 3.0, 1e3, 1e5])
def test_a_negative_binomial_without_overdispersion_is_a_poisson(mean):
    fn, poisson = NegativeBinomial()(double([[np.log(mean)], [25.0]])), stats.poisson(mean)
    x = poisson.rvs(20, random_state=0).astype(float)
    excess = mean * np.exp(-25.0)
    np.testing.assert_allclose(fn.log_prob(double(x)[:, None])[:, 0], poisson.logpmf(x), atol=20 * excess + 1e-8)
    _, upto = distribution_function(fn, double(x)[:, None])
    np.testing.assert_allclose(upto[:, 0], poisson.cdf(x), rtol=0, atol=20 * excess + 1e-9)


def test_a_beta_binomial_ends_as_a_binomial_and_as_a_coin():
    x, m = np.arange(13.0), expit(0.6)
    for b, expected in ((25.0, stats.binom(12, m).pmf(x)), (-25.0, np.r_[1 - m, [0.0] * 11, m])):
        fn = BetaBinomial(12)(double([[0.6], [b]]))
        np.testing.assert_allclose(fn.log_prob(double(x)[:, None]).exp()[:, 0], expected, rtol=0, atol=1e-9)
    assert (fn.log_prob(double([[-1.0], [13.0]])) == -torch.inf).all()


@pytest.mark.parametrize("name", EMISSIONS)
def test_single_precision_is_close_to_double(name):
    emission = EMISSIONS[name]()
    parameters = torch.as_tensor(np.random.default_rng(1).normal(size=(40, emission.outputs, COLUMNS))).float()
    values = np.arange(60.0)[:, None].repeat(COLUMNS, 1) if name in COUNTS else levels_of(name)
    x = torch.as_tensor(values).float()[:, None]
    single, exact = emission(parameters), emission.double()(parameters.double())
    difference = (single.log_prob(x) - exact.log_prob(x)).abs().detach()
    rounded = np.spacing(np.float32(2007)) if name == "mixture" else 0.0  # of an end of a cell
    assert (difference <= torch.tensor([0.0, 2 * rounded, 0.0]) + 2e-6 * (1 + exact.log_prob(x).abs())).all()
    np.testing.assert_allclose(single.mean.detach(), exact.mean.detach(), rtol=2e-6, atol=1e-6)
    np.testing.assert_allclose(single.variance.detach(), exact.variance.detach(), rtol=1e-5, atol=1e-6 + rounded)
    for end, other in zip(*(distribution_function(fn, x) for fn in (single, exact)), strict=True):
        np.testing.assert_allclose(end.detach(), other.detach(), rtol=0, atol=2e-6 + rounded)


def levels_of(name):
    """Rows that have all values of all columns."""
    of_columns = LEVELS if name == "mixture" else [np.arange(total + 1.0) for total in TOTALS]
    return np.array([[levels[k % len(levels)] for levels in of_columns] for k in range(max(map(len, of_columns)))])


# -- they add up to 1, and none is more --------------------------------------------------------------------------------


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-9), (torch.float32, 1e-5)])
@pytest.mark.parametrize("name", NEW[:3])
def test_the_masses_of_counts_add_up_to_one(name, dtype, tolerance):
    numbers, fn = drawn(name, spread=0.7)
    last = fn.mean.max().item() + 60 * fn.variance.max().sqrt().item()
    fn = EMISSIONS[name]().to(dtype)(torch.as_tensor(numbers, dtype=dtype))
    masses = fn.log_prob(torch.arange(last, dtype=dtype)[:, None, None]).detach().double().exp()
    np.testing.assert_allclose(masses.sum(0), 1, rtol=0, atol=tolerance)


def corners(outputs, width=50.0):
    """All parameters far down, 0 and far up, (3^outputs, outputs, COLUMNS); of many outputs some of them."""
    ends = np.array([*product([-width, 0.0, width], repeat=outputs)])
    if len(ends) > 3**4:
        ends = ends[np.random.default_rng(0).choice(len(ends), 300, replace=False)]
    return np.repeat(ends[..., None], COLUMNS, axis=-1)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 2e-6)])
@pytest.mark.parametrize("far", [True, False])
@pytest.mark.parametrize("name", ["beta-binomial", "mixture"])
def test_the_masses_of_levels_add_up_to_one(name, far, dtype, tolerance):
    emission = EMISSIONS[name]().to(dtype)
    numbers = corners(emission.outputs) if far else drawn(name, spread=3.0)[0]
    fn = emission(torch.as_tensor(numbers, dtype=dtype))
    values = levels_of(name)
    masses = fn.log_prob(torch.as_tensor(values, dtype=dtype)[:, None]).double().exp().numpy()
    for j in range(COLUMNS):
        _, first = np.unique(values[:, j], return_index=True)
        np.testing.assert_allclose(masses[first, :, j].sum(0), 1, rtol=0, atol=tolerance)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("width", [50.0, 200.0])
@pytest.mark.parametrize("name", EMISSIONS)
def test_no_mass_is_above_one_and_all_gradients_are_finite_far_out(name, width, dtype):
    emission = EMISSIONS[name]().to(dtype)
    assert emission.log_density_bound() == 0
    parameters = torch.as_tensor(corners(emission.outputs, width), dtype=dtype).requires_grad_()
    values = [[value] * COLUMNS for value in (0.0, 1.0, 1e3, 1e6)] if name in COUNTS else levels_of(name)
    fn = emission(parameters)
    log_mass = fn.log_prob(torch.as_tensor(np.asarray(values), dtype=dtype)[:, None])
    assert log_mass.isfinite().all() and (log_mass <= 0).all()
    assert log_mass.max() > -1e-6  # the least bound
    for gradient in torch.autograd.grad(log_mass.sum(), [parameters, *emission.parameters()]):
        assert gradient.isfinite().all()
    for end in distribution_function(fn, torch.as_tensor(np.asarray(values), dtype=dtype)[:, None]):
        assert ((end >= 0) & (end <= 1 + 1e-6)).all()
    with seeded(0):
        assert all(part.isfinite().all() for part in (fn.mean, fn.variance, fn.sample()))


@pytest.mark.parametrize("b", [-25.0, 0.0, 10.0, 15.0, 25.0])
def test_no_mass_of_a_total_of_a_million_is_above_one(b):
    a = np.linspace(-25, 25, 201)
    fn = BetaBinomial(10**6)(double(np.stack([a, np.full_like(a, b)])))
    assert (fn.log_prob(double([[0.0], [1.0], [5e5], [1e6]])) <= 0).all()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_no_rounding_of_weights_makes_a_mass_more_than_one(dtype):
    gate = torch.linspace(-45, 45, 2001, dtype=dtype)
    fn = ZeroInflatedNegativeBinomial()(torch.stack([torch.full_like(gate, -25.0), torch.full_like(gate, -25.0), gate]))
    assert (fn.log_prob(torch.zeros_like(gate)) <= 0).all()
    numbers = torch.as_tensor(np.random.default_rng(0).normal(size=(500, 9, COLUMNS)), dtype=dtype)
    numbers[:, 3:6], numbers[:, 6:] = 0.0, -50.0  # all components in one cell, which is the middle's
    log_mass = LogisticMixtureOrdinal([[0.0, 1.0, 2.0]] * COLUMNS, 3).to(dtype)(numbers).log_prob(torch.ones(COLUMNS))
    assert (log_mass <= 0).all() and (log_mass > -1e-6).all()


# -- gradients ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", EMISSIONS)
def test_gradients_are_those_of_finite_differences(name):
    emission = EMISSIONS[name]().double()
    values = [[0.0, 1.0, 5.0]] if name in COUNTS else levels_of(name)[:3]
    x = double(values)[:, None]
    numbers = double(np.random.default_rng(2).normal(scale=1.5, size=(3, emission.outputs, COLUMNS))).requires_grad_()
    assert torch.autograd.gradcheck(lambda parameters: emission(parameters).log_prob(x), numbers)


@pytest.mark.parametrize("name", EMISSIONS)
def test_many_seeds_are_mapped_over(name):
    """As the engine does: the same in one call for all seeds."""
    emission = EMISSIONS[name]()
    x = torch.ones(COLUMNS) if name != "mixture" else torch.tensor([levels[1] for levels in LEVELS])
    parameters = torch.as_tensor(np.random.default_rng(0).normal(size=(4, 5, emission.outputs, COLUMNS))).float()

    def score(of_seed):
        return emission(of_seed).log_prob(x).sum()

    mapped = torch.func.vmap(torch.func.grad(score))(parameters)
    for found, of_seed in zip(mapped, parameters, strict=True):
        torch.testing.assert_close(found, torch.func.grad(score)(of_seed))


# -- draws -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", EMISSIONS)
def test_draws_have_their_masses(name):
    _, fn = drawn(name, seed=3, spread=0.8)
    with seeded(0):
        draws = fn.expand((4000, ROWS, COLUMNS)).sample().numpy()
    values = np.arange(10.0)[:, None].repeat(COLUMNS, 1) if name in COUNTS else levels_of(name)
    masses = fn.log_prob(double(values)[:, None]).exp().detach().numpy()
    for i, j in product(range(ROWS), range(COLUMNS)):
        kept, first = np.unique(values[:, j], return_index=True)
        expected = 4000 * masses[first, i, j]
        counted = (draws[:, i, j] == kept[:, None]).sum(1)
        often = expected > 5
        observed, expected = np.r_[counted[often], 4000], np.r_[expected[often], 4000]
        observed[-1], expected[-1] = observed[-1] - counted[often].sum(), expected[-1] - expected[:-1].sum()
        if expected[-1] < 5:  # with the rarest of the others
            observed, expected = (np.r_[part[:-2], part[-2:].sum()] for part in (observed, expected))
        assert stats.chisquare(observed, expected).pvalue > 1e-4


@pytest.mark.parametrize("b", [-25.0, -7.0, 0.0, 25.0])
def test_draws_of_a_beta_binomial_are_right_however_small_its_concentrations_are(b):
    """Torch draws a half where both concentrations of a beta are small."""
    fn = BetaBinomial(10)(torch.tensor([[-0.9], [b]]))
    with seeded(0):
        draws = fn.sample((20_000,)).double()
    masses = fn.log_prob(torch.arange(11.0)[:, None]).exp().double()[:, 0]
    fourth = (masses * (torch.arange(11) - fn.mean.double()) ** 4).sum()
    variance = fn.variance.double()
    assert ((draws.mean() - fn.mean).abs() < 5 * (variance / 20_000).sqrt()).all()
    assert ((draws.var() - variance).abs() < 5 * ((fourth - variance**2) / 20_000).sqrt()).all()


# -- distribution functions --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NEW)
def test_both_sides_of_the_distribution_function_are_scipys(name):
    numbers, fn = drawn(name, seed=4, spread=1.5)
    expected = by_scipy(name, numbers)
    x = expected.rvs((50, ROWS, COLUMNS), random_state=np.random.default_rng(0)).astype(float)
    below, upto = distribution_function(fn, double(x))
    np.testing.assert_allclose(upto.detach(), expected.cdf(x), rtol=0, atol=1e-12)
    np.testing.assert_allclose(below.detach(), expected.cdf(x - 1), rtol=0, atol=1e-12)
    assert (below[x == 0] == 0).all()


def test_the_distribution_function_of_a_negative_binomial_is_scipys_from_a_thousandth_to_a_million():
    rng = np.random.default_rng(0)
    mean, size = np.exp(rng.uniform(np.log(1e-3), np.log(1e6), (2, 4000)))
    mean = np.maximum(mean, size / 1000)  # SciPy is given k / (k + mu), whose distance from 1 is rounded
    expected = stats.nbinom(size, size / (size + mean))
    x = expected.rvs(random_state=rng).astype(float)
    below, upto = distribution_function(NegativeBinomial()(double(np.log([mean, size]))), double(x))
    np.testing.assert_allclose(upto, expected.cdf(x), rtol=0, atol=1e-11)
    np.testing.assert_allclose(below, expected.cdf(x - 1), rtol=0, atol=1e-11)


def test_distribution_functions_are_sums_of_masses_at_every_dispersion():
    """SciPy's masses of a beta-binomial add up to 1 but for 1e-8 here."""
    x = torch.arange(201.0).double()[:, None, None]
    ends = double([*product([-20.0, -3.0, 0.0, 2.0, 20.0], [-25.0, -8.0, 0.0, 4.0, 25.0])])[..., None]
    for fn in (NegativeBinomial()(ends.clamp(max=4.0)), BetaBinomial(200)(ends)):
        masses = fn.log_prob(x).exp()
        below, upto = distribution_function(fn, x)
        np.testing.assert_allclose(upto, masses.cumsum(0), rtol=0, atol=1e-11)
        np.testing.assert_allclose(below, masses.cumsum(0) - masses, rtol=0, atol=1e-11)


def test_the_distribution_function_of_a_beta_binomial_is_the_same_in_many_blocks():
    numbers = double(np.random.default_rng(0).normal(size=(1200, 2, 20)))
    with seeded(0):
        x = BetaBinomial(20)(numbers).sample()
    together = distribution_function(BetaBinomial(20)(numbers), x)
    for part in (slice(0, 3), slice(700, 900), slice(1199, 1200)):
        for end, whole in zip(distribution_function(BetaBinomial(20)(numbers[part]), x[part]), together, strict=True):
            torch.testing.assert_close(end, whole[part], rtol=0, atol=0)


def test_the_distribution_function_of_a_mixture_is_that_of_its_parts():
    numbers, fn = drawn("mixture")
    for j, levels in enumerate(LEVELS):
        x = double(levels)[:, None, None].expand(-1, ROWS, COLUMNS)
        below, upto = (end[..., j] for end in distribution_function(fn, x))
        masses = np.exp(logistic_mixture(numbers, levels, j))
        np.testing.assert_allclose(upto, masses.cumsum(0), rtol=0, atol=1e-12)
        np.testing.assert_allclose(below, masses.cumsum(0) - masses, rtol=0, atol=1e-12)
    normals = dist.MixtureSameFamily(
        dist.Categorical(torch.tensor([0.3, 0.7])), dist.Normal(torch.tensor([0.0, 2.0]), 1.0)
    )
    x = torch.linspace(-2, 4, 7)
    for end in distribution_function(normals, x):
        torch.testing.assert_close(end, normals.cdf(x))


@pytest.mark.parametrize("name", NEW)
def test_where_there_is_no_value_there_is_no_distribution_function(name):
    _, fn = drawn(name)
    x = torch.zeros(ROWS, COLUMNS).double()
    x[0, 0] = torch.nan
    for end in distribution_function(fn, x):
        assert end[0, 0].isnan() and end.isnan().sum() == 1


@pytest.mark.parametrize("name", [*EMISSIONS, "cumulative"])
def test_a_mass_has_no_scale(name):
    fn = CumulativeOrdinal(LEVELS)(torch.zeros(ROWS, 1, COLUMNS)) if name == "cumulative" else drawn(name)[1]
    scale = column_scale(fn.to_event(1))
    assert scale.isnan().all() and scale.shape == (ROWS, COLUMNS)
    assert smallest_scale(fn.to_event(1), torch.zeros(ROWS, COLUMNS)).isnan()


# -- where training starts ---------------------------------------------------------------------------------------------


def table():
    """Of counts: overdispersed, Poisson, constant, zeros alone, one outlier."""
    rng = np.random.default_rng(0)
    outlier = np.zeros(500)
    outlier[7] = 1e6
    columns = [rng.poisson(rng.gamma(2.0, 5.0, 500)), rng.poisson(3.0, 500), np.full(500, 4), np.zeros(500), outlier]
    return torch.as_tensor(np.stack(columns, axis=1)).float()


@pytest.mark.parametrize(
    "emission", [Poisson(), NegativeBinomial(), ColumnNegativeBinomial(5), ZeroInflatedNegativeBinomial()], ids=str
)
def test_counts_start_at_the_mean_and_the_variance_of_the_data(emission):
    x = table()
    numbers = emission.start(x)
    assert numbers.shape == (emission.outputs, 5) and numbers.isfinite().all() and not numbers.requires_grad
    fn = emission(numbers)
    mean, variance = fn.mean.detach().double().numpy(), fn.variance.detach().double().numpy()
    np.testing.assert_allclose(mean[[0, 1, 2, 4]], x.double().mean(0)[[0, 1, 2, 4]], rtol=1e-5)
    assert mean[3] == pytest.approx(0.5 / 500)  # half a count in all rows
    if not isinstance(emission, Poisson):
        least_share = 0.005 if isinstance(emission, ZeroInflatedNegativeBinomial) else 0.0
        least = 1.01 * mean * (1 + least_share * mean)
        expected = np.maximum(x.double().var(0, correction=0).numpy(), least)
        np.testing.assert_allclose(variance[[0, 1, 2, 4]], expected[[0, 1, 2, 4]], rtol=1e-3)


def test_zeros_besides_start_at_what_data_have_of_them():
    rng = np.random.default_rng(1)
    share, mean, size, rows = np.array([0.05, 0.3, 0.8]), np.array([20.0, 5.0, 9.0]), np.array([3.0, 2.0, 4.0]), 20_000
    counts = rng.poisson(rng.gamma(size, mean / size, (rows, 3))) * (rng.random((rows, 3)) > share)
    log_mean, log_size, gate = ZeroInflatedNegativeBinomial().start(torch.as_tensor(counts).float()).numpy()
    np.testing.assert_allclose(expit(gate), share, rtol=0, atol=0.03)
    np.testing.assert_allclose(np.exp(log_mean), mean, rtol=0.05)
    np.testing.assert_allclose(np.exp(log_size), size, rtol=0.2)


def test_counts_of_a_total_start_at_the_mean_and_the_variance_of_the_data():
    rng = np.random.default_rng(0)
    total = torch.tensor([30, 30, 30, 30, 1])
    columns = [rng.binomial(30, rng.beta(2, 5, 500)), rng.binomial(30, 0.3, 500), np.full(500, 30), np.zeros(500)]
    x = torch.as_tensor(np.stack([*columns, rng.random(500) < 0.2], axis=1)).float()
    emission = BetaBinomial(total)
    fn = emission(emission.start(x))
    np.testing.assert_allclose(fn.mean, x.mean(0), rtol=1e-5, atol=1.1 * 0.5 / 500)
    np.testing.assert_allclose(fn.variance[[0, 4]], x.var(0, correction=0)[[0, 4]], rtol=1e-4)
    np.testing.assert_allclose(fn.variance[1], 30 * 0.3 * 0.7, rtol=0.4)


def levelled():
    """Of LEVELS: one in the middle, a rare second one, and both ends."""
    rng = np.random.default_rng(0)
    columns = [
        np.clip(np.round(rng.normal(2, 0.8, 500)), 0, 4),
        2007 + (rng.random(500) < 0.05),
        rng.choice([-2, 4], 500),
    ]
    return torch.as_tensor(np.stack(columns, axis=1)).float()


@pytest.mark.parametrize("components", [3, 10])
def test_a_mixture_starts_at_the_data_with_components_that_differ(components):
    emission, x = LogisticMixtureOrdinal(LEVELS, components), levelled()
    numbers = emission.start(x)
    fn = emission(numbers)
    assert numbers.shape == (emission.outputs, COLUMNS) and numbers.isfinite().all()
    deviation = x.std(0, correction=0)
    assert ((fn.mean - x.mean(0)).abs() < 0.05 * deviation).all()
    assert ((fn.variance.sqrt() / deviation - 1).abs() < 0.1).all()
    places = numbers[components : 2 * components].sort(0).values
    assert (places.diff(dim=0) > 1e-3).all()
    parameters = numbers.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(emission(parameters).log_prob(x).mean(0).sum(), parameters)
    of_places = gradient[components : 2 * components]
    assert (of_places.sort(0).values.diff(dim=0) > 0).all()  # each its own way


def test_cells_of_a_normal_start_at_the_mean_and_the_variance_of_the_data():
    emission, x = BinnedOrdinal(LEVELS), levelled()
    normal = emission(emission.start(x)).base
    torch.testing.assert_close(normal.mean, x.mean(0))
    torch.testing.assert_close(normal.variance[[0, 2]], x.var(0, correction=0)[[0, 2]])
    assert normal.variance[1] == pytest.approx(1 / 12)  # of a cell


@pytest.mark.parametrize("name", [*EMISSIONS, "binned"])
def test_what_was_not_observed_is_not_started_from(name):
    if name in ("mixture", "binned"):
        emission, x = BinnedOrdinal(LEVELS) if name == "binned" else EMISSIONS[name](), levelled()
    else:
        emission, x = EMISSIONS[name](), torch.as_tensor(np.random.default_rng(0).poisson(0.8, (40, 3))).float()
        x = x.minimum(torch.tensor(TOTALS))
    gaps = torch.cat([x, torch.full_like(x, torch.nan)])
    torch.testing.assert_close(emission.start(gaps), emission.start(x))
