"""Emissions and the cells of them, against SciPy at parameters worked out anew from the formulas."""

import math
from itertools import product

import likelihoods
import numpy as np
import pyro.distributions as dist
import pytest
import torch
from scipy import stats
from scipy.special import expit, log_softmax
from torch import nn

from zoo.context import seeded
from zoo.lenses import Cells
from zoo.models import VAE
from zoo.models.emissions import (
    Bernoulli,
    BinnedOrdinal,
    ColumnNormal,
    ConstrainedNormal,
    CumulativeOrdinal,
    FixedNormal,
    FullNormal,
    Laplace,
    LearnedNormal,
    Logistic,
    LogNormal,
    LowRankNormal,
    NaturalNormal,
    NegativeBinomial,
    PerColumn,
    Poisson,
    QuantileNormal,
    RatioNormal,
    SharedNormal,
    Softmax,
    StudentT,
)
from zoo.models.ordinal import log_interval_mass
from zoo.testing import CHECKS, check_pair, make_subject, variants

FLOOR, SMALLEST, SHARED, SCALES = 0.04, 0.2, -0.75, [-0.5, 0.25, 1.0]
ROWS, COLUMNS = 5, 3
LEVELS = [[0.0, 1.0, 2.0, 3.0], [2007.0, 2008.0, 2009.0], [-2.0, 0.0, 2.0, 4.0, 6.0]]


def shared():
    emission = SharedNormal()
    emission.log_scale.data.fill_(SHARED)
    return emission


def ratio():
    emission = RatioNormal(9.0)
    emission.log_smallest.data = -torch.tensor(3.0).double().log()  # in double precision
    return emission


def column():
    emission = ColumnNormal(COLUMNS)
    emission.log_scale.data.copy_(torch.tensor(SCALES))
    return emission


def cumulative():
    """Thresholds drawn at random, in place of those that every level is as likely between."""
    emission = CumulativeOrdinal(LEVELS)
    rng = np.random.default_rng(4)
    with torch.no_grad():
        for parameter in emission.parameters():
            parameter.copy_(torch.as_tensor(rng.normal(size=parameter.shape)))
    return emission


EMISSIONS = {
    "learned": LearnedNormal,
    "constrained": lambda: ConstrainedNormal(FLOOR),
    "shared": shared,
    "student-t": lambda: StudentT(SMALLEST, 3.0),
    "fixed": lambda: FixedNormal(SMALLEST),
    "column": column,
    "ratio": ratio,
    "natural, softplus": lambda: NaturalNormal("softplus"),
    "natural, exp": lambda: NaturalNormal("exp"),
    "quantile": QuantileNormal,
    "laplace": lambda: Laplace(SMALLEST),
    "logistic": lambda: Logistic(SMALLEST),
    "log-normal": lambda: LogNormal(FLOOR),
    "poisson": Poisson,
    "negative-binomial": NegativeBinomial,
    "bernoulli": Bernoulli,
    "binned": lambda: BinnedOrdinal(LEVELS),
    "cumulative": cumulative,
    "softmax": lambda: Softmax([4, 2, 3]),
}
SCIPY = {
    "learned": lambda mu, v: stats.norm(mu, np.exp(v / 2)),
    "constrained": lambda mu, v: stats.norm(mu, np.sqrt(FLOOR + np.exp(v))),
    "shared": lambda mu: stats.norm(mu, np.exp(SHARED)),
    "student-t": lambda mu, b, a: stats.t(3 + np.logaddexp(0, a), mu, SMALLEST + np.logaddexp(0, b)),
    "fixed": lambda mu: stats.norm(mu, SMALLEST),
    "column": lambda mu: stats.norm(mu, np.exp(SCALES)),
    "ratio": lambda mu, v: stats.norm(mu, np.sqrt(9.0 ** expit(v) / 3)),
    "natural, softplus": lambda m, a: stats.norm(m / np.logaddexp(0, a), np.logaddexp(0, a) ** -0.5),
    "natural, exp": lambda m, a: stats.norm(m / np.exp(a), np.exp(-a / 2)),
    "quantile": lambda q, v: stats.norm(q, np.logaddexp(0, v) / -stats.norm.ppf(0.15)),
    "laplace": lambda m, v: stats.laplace(m, SMALLEST + np.exp(v)),
    "logistic": lambda m, v: stats.logistic(m, SMALLEST + np.exp(v)),
    "log-normal": lambda mu, v: stats.lognorm(np.sqrt(FLOOR + np.exp(v)), scale=np.exp(mu)),
    "poisson": lambda r: stats.poisson(np.exp(r)),
    "negative-binomial": lambda r, s: stats.nbinom(np.exp(s), np.exp(s) / (np.exp(s) + np.exp(r))),
    "bernoulli": lambda a: stats.bernoulli(expit(a)),
}
COUNTS = ["poisson", "negative-binomial"]
DENSE = [name for name in SCIPY if name not in (*COUNTS, "bernoulli")]
LEVELLED = ["binned", "cumulative"]
DISCRETE = [*COUNTS, "bernoulli", *LEVELLED, "softmax"]


def drawn(name, seed=0, dtype=torch.float64):
    """An emission, parameters (ROWS, outputs, COLUMNS) at random, and the distribution they make."""
    emission = EMISSIONS[name]().to(dtype)
    numbers = np.random.default_rng(seed).normal(size=(ROWS, emission.outputs, COLUMNS))
    return numbers, emission(torch.as_tensor(numbers, dtype=dtype))


def by_scipy(name, numbers):
    return SCIPY[name](*np.moveaxis(numbers, -2, 0))


def level_masses(name, numbers):
    """The probability of each level of each column, (ROWS,) arrays, by the formula in the class's words."""
    for j, levels in enumerate(LEVELS):
        if name == "binned":
            a, v = numbers[:, :, j].T
            middle, spread = (levels[0] + levels[-1]) / 2, np.std(levels)
            ends = np.add(levels[:-1], levels[1:]) / 2
            below = stats.norm.cdf((ends - middle - spread * a[:, None]) / (spread * np.exp(v / 2))[:, None])
        else:
            emission = cumulative()
            steps = np.logaddexp(0, emission.gaps.detach().double().numpy()[j])
            first = emission.first.detach().double().numpy()[j]
            theta = first + np.concatenate([[0.0], np.cumsum(steps)])
            below = expit(theta[: len(levels) - 1] - numbers[:, 0, j, None])
        yield levels, np.diff(below, axis=1, prepend=0, append=1)


# -- densities and masses ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", SCIPY)
def test_the_density_and_the_mean_are_scipys(name, seed):
    numbers, fn = drawn(name, seed)
    expected = by_scipy(name, numbers)
    x = expected.rvs((50, ROWS, COLUMNS), random_state=np.random.default_rng(seed)).astype(float)
    reference = expected.logpdf(x) if name in DENSE else expected.logpmf(x)
    assert fn.batch_shape == (ROWS, COLUMNS)
    np.testing.assert_allclose(fn.log_prob(torch.as_tensor(x)).detach(), reference, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(fn.mean.detach(), expected.mean(), rtol=1e-9)
    np.testing.assert_allclose(fn.variance.detach(), expected.var(), rtol=1e-9)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", LEVELLED)
def test_the_masses_of_levels_are_those_of_the_formula(name, seed):
    numbers, fn = drawn(name, seed)
    for j, (levels, masses) in enumerate(level_masses(name, numbers)):
        x = torch.tensor(levels, dtype=torch.float64)[:, None, None].expand(-1, ROWS, COLUMNS)
        np.testing.assert_allclose(fn.log_prob(x)[..., j].exp().detach().T, masses, rtol=1e-6, atol=1e-12)
        mean = masses @ levels
        np.testing.assert_allclose(fn.mean[:, j].detach(), mean, rtol=1e-6)
        np.testing.assert_allclose(fn.variance[:, j].detach(), masses @ np.square(levels) - mean**2, rtol=1e-5)


def test_a_column_of_fewer_categories_leaves_numbers_unused():
    numbers, fn = drawn("softmax")
    for j, categories in enumerate([4, 2, 3]):
        expected = log_softmax(numbers[:, :categories, j], axis=1)
        for number in range(categories):
            x = torch.full((ROWS, COLUMNS), float(number))
            np.testing.assert_allclose(fn.log_prob(x)[:, j], expected[:, number], rtol=1e-9)
    with seeded(0):
        assert (fn.sample((2000,)).amax((0, 1)) == torch.tensor([3, 1, 2])).all()


def values_of(name, numbers):
    """All values of each column, but for a tail of counts below 1e-10."""
    if name in COUNTS:
        return [np.arange(by_scipy(name, numbers).isf(1e-10).max() + 1)] * COLUMNS
    return {"bernoulli": [np.arange(2.0)] * COLUMNS, "softmax": [np.arange(float(k)) for k in (4, 2, 3)]}.get(
        name, LEVELS
    )


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-9), (torch.float32, 1e-5)])
@pytest.mark.parametrize("name", DISCRETE)
def test_the_masses_of_all_values_add_up_to_one(name, dtype, tolerance):
    numbers, fn = drawn(name, dtype=dtype)
    for j, values in enumerate(values_of(name, numbers)):
        x = torch.as_tensor(np.asarray(values), dtype=dtype)[:, None, None].expand(-1, ROWS, COLUMNS)
        masses = fn.log_prob(x)[..., j].detach().double().exp()
        np.testing.assert_allclose(masses.sum(0), 1, rtol=0, atol=tolerance)
        assert (masses <= 1 + tolerance).all()


def test_counts_have_no_factorial_by_stirling():
    """As HI-VAE's published code has, whose masses at a rate of 2 add up to 1.019."""
    k = np.arange(1, 60)
    factorial = k * np.log(k) - k + np.log(2 * np.pi * k) / 2
    assert np.exp(-2) + np.exp(k * np.log(2) - 2 - factorial).sum() > 1.019
    fn = Poisson()(torch.full((1, 1), 2.0).double().log())
    assert fn.log_prob(torch.arange(60.0).double()[:, None]).exp().sum().item() == pytest.approx(1, abs=1e-12)


# -- cells -------------------------------------------------------------------------------------------------------------


def celled(fn, width):
    """The distribution of the cells of an emission's columns."""
    width = torch.as_tensor(width, dtype=fn.mean.dtype).expand(COLUMNS)
    return Cells(nn.Identity(), width).likelihood(fn.to_event(1))


def masses_by_scipy(expected, x, width):
    return expected.cdf(x + np.divide(width, 2)) - expected.cdf(x - np.divide(width, 2))


@pytest.mark.parametrize("width", [1e-3, 0.1, 3.0])
@pytest.mark.parametrize("name", DENSE)
def test_the_mass_of_a_cell_is_a_difference_of_scipys_distribution_functions(name, width):
    numbers, fn = drawn(name)
    expected = by_scipy(name, numbers)
    x = expected.rvs((40, ROWS, COLUMNS), random_state=np.random.default_rng(1))
    found = celled(fn, width).log_prob(torch.as_tensor(x)).detach()
    np.testing.assert_allclose(found, np.log(masses_by_scipy(expected, x, width)).sum(-1), rtol=1e-7, atol=1e-7)
    assert (found <= 0).all()


@pytest.mark.parametrize("name", DENSE)
def test_the_masses_of_all_cells_add_up(name):
    numbers, fn = drawn(name)
    width, cells = 0.5, np.arange(0 if name == "log-normal" else -1000, 1000) + 0.5
    x = torch.as_tensor(width * cells)[:, None, None].expand(-1, ROWS, COLUMNS)
    masses = celled(fn, width).base_dist.log_prob(x).exp().sum(0).detach()
    beyond = 1 - masses_by_scipy(by_scipy(name, numbers), 0, 2 * width * 1000)
    assert beyond.max() < 0.01
    np.testing.assert_allclose(masses, 1 - beyond, rtol=0, atol=1e-9)


@pytest.mark.parametrize("name", DENSE)
def test_a_table_has_cells_in_some_of_its_columns(name):
    (numbers, fn), (of_counts, counts) = drawn(name), drawn("poisson")
    expected, expected_counts = by_scipy(name, numbers), by_scipy("poisson", of_counts)
    together = PerColumn([([0, 3, 4], fn), ([1, 2, 5], counts)])
    x = np.empty((ROWS, 6))
    x[:, [0, 3, 4]] = expected.rvs(random_state=np.random.default_rng(2))
    x[:, [1, 2, 5]] = expected_counts.rvs(random_state=np.random.default_rng(2))
    masses = masses_by_scipy(expected, x[:, [0, 3, 4]], [0.125, 1.0, 0.5])
    masses[:, 1] = expected.pdf(x[:, [0, 3, 4]])[:, 1]
    width = torch.tensor([0.125, torch.nan, torch.nan, torch.nan, 0.5, torch.nan])
    found = Cells(nn.Identity(), width).likelihood(together).log_prob(torch.as_tensor(x)).detach()
    total = np.log(masses).sum(-1) + expected_counts.logpmf(x[:, [1, 2, 5]]).sum(-1)
    np.testing.assert_allclose(found, total, rtol=1e-7)


# -- far out -----------------------------------------------------------------------------------------------------------

FAR_VALUES = {
    **dict.fromkeys(DENSE, (0.0, 1.5, -3.0)),
    "log-normal": (1e-3, 1.0, 30.0),
    **dict.fromkeys(COUNTS, (0.0, 1.0, 1000.0)),
    **dict.fromkeys(["bernoulli", "softmax"], (0.0, 1.0)),
}
# a variance of e^-50 cannot be squared in single precision, and a distance of 1e10 scales not be told from the next
UNFLOORED = ("learned", "binned", "quantile", "natural, softplus", "natural, exp")
SINGLE = [name for name in EMISSIONS if name not in UNFLOORED]


def corners(emission):
    """All parameters at -50, 0 and 50, (3^outputs, outputs, COLUMNS)."""
    ends = np.array([*product([-50.0, 0.0, 50.0], repeat=emission.outputs)])
    return np.repeat(ends[..., None], COLUMNS, axis=-1)


@pytest.mark.parametrize(
    ("name", "dtype"), [(name, torch.float64) for name in EMISSIONS] + [(name, torch.float32) for name in SINGLE]
)
def test_far_out_everything_is_finite_and_so_are_gradients(name, dtype):
    emission = EMISSIONS[name]().to(dtype)
    parameters = torch.as_tensor(corners(emission), dtype=dtype).requires_grad_()
    fn = emission(parameters)
    if name in LEVELLED:
        values = [[levels[k % len(levels)] for levels in LEVELS] for k in range(5)]
    else:
        values = [[value] * COLUMNS for value in FAR_VALUES[name]]
    x = torch.tensor(values, dtype=dtype)[:, None].expand(-1, *fn.batch_shape)
    density = fn.log_prob(x)
    mass = celled(fn, 0.1).base_dist.log_prob(x) if name in DENSE else density
    for score in (density, mass):
        assert score.isfinite().all()
        gradients = torch.autograd.grad(score.sum(), [parameters, *emission.parameters()], retain_graph=True)
        assert all(gradient.isfinite().all() for gradient in gradients)
    assert (mass <= 1e-6).all()


@pytest.mark.parametrize("size", [8.0, 12.0, 16.0, 20.0])
@pytest.mark.parametrize("name", COUNTS)
def test_no_mass_of_a_large_count_exceeds_one_in_single_precision(name, size):
    """What is left of two log gammas of 1e8 is rounding there."""
    emission = EMISSIONS[name]()
    parameters = torch.tensor([math.log(1000.0), size][: emission.outputs])
    counts = torch.arange(400.0, 1600.0)[:, None]
    log_p = emission(parameters[:, None]).log_prob(counts)
    np.testing.assert_allclose(log_p.double().exp().sum(), 1, atol=1e-3)


@pytest.mark.parametrize("name", COUNTS)
def test_no_rate_overflows_in_single_precision(name):
    emission = EMISSIONS[name]()
    fn = emission(torch.full((emission.outputs, COLUMNS), 200.0))
    assert fn.mean.isfinite().all() and fn.log_prob(torch.zeros(COLUMNS)).isfinite().all()


@pytest.mark.parametrize("name", ["low-rank", "full"])
def test_columns_that_depend_on_each_other_have_scipys_density(name):
    emission = {"low-rank": LowRankNormal(2, FLOOR), "full": FullNormal(COLUMNS)}[name]
    numbers = np.random.default_rng(0).normal(size=(ROWS, emission.outputs, COLUMNS))
    fn = emission(torch.as_tensor(numbers))
    assert (fn.batch_shape, fn.event_shape) == ((ROWS,), (COLUMNS,))
    x = np.random.default_rng(1).normal(size=COLUMNS)
    for row, (mean, *rest) in enumerate(numbers):
        if name == "low-rank":
            covariance = np.diag(FLOOR + np.exp(rest[0])) + np.array(rest[1:]).T @ np.array(rest[1:])
        else:
            below = np.tril(np.array(rest).T, -1) + np.diag(np.exp(np.diag(np.array(rest))))
            covariance = np.linalg.inv(below.T @ below)
        expected = stats.multivariate_normal(mean, covariance).logpdf(x)
        assert fn.log_prob(torch.as_tensor(x))[row].item() == pytest.approx(expected)
        np.testing.assert_allclose(fn.covariance_matrix[row], covariance, rtol=1e-9)


@pytest.mark.parametrize("name", DISCRETE)
def test_a_mass_is_bounded_by_one(name):
    emission = EMISSIONS[name]().double()
    assert emission.log_density_bound() == 0
    values = [[value] * COLUMNS for value in range(2)] if name not in LEVELLED else [[c[0] for c in LEVELS]]
    highest = emission(torch.as_tensor(corners(emission))).log_prob(torch.tensor(values).double()[:, None]).max()
    assert -1e-6 < highest <= 1e-9  # which is the least upper bound


@pytest.mark.parametrize("df", [0.5, 3.0, 50.0, 1e3, 1e5, 9e5])
def test_a_student_t_of_many_degrees_of_freedom_in_single_precision(df):
    x = torch.linspace(-6, 6, 41)
    fn = StudentT(0.0, df)(torch.tensor([[0.3], [0.5], [-80.0]]).expand(3, 41))
    law = stats.t(df, 0.3, np.logaddexp(0, 0.5))
    np.testing.assert_allclose(fn.log_prob(x), law.logpdf(x.double()), rtol=2e-6, atol=2e-6)
    cell = log_interval_mass(fn, x - 0.05, x + 0.05, 0.1)
    np.testing.assert_allclose(
        cell, np.log(law.cdf(x.double() + 0.05) - law.cdf(x.double() - 0.05)), atol=2e-5 + 6e-8 * df
    )


@pytest.mark.parametrize("name", ["constrained", "student-t", "laplace", "logistic", "fixed"])
def test_a_bounded_density_comes_close_to_its_bound_and_not_over_it(name):
    emission = EMISSIONS[name]().double()
    bound = emission.log_density_bound()
    parameters = np.random.default_rng(0).normal(scale=20, size=(20_000, emission.outputs, 1))
    scores = emission(torch.as_tensor(parameters)).log_prob(torch.as_tensor(parameters[:, 0]))
    assert scores.max() <= bound
    at_peak = torch.tensor([[0.0], [-50.0], [1e5]][: emission.outputs]).double()
    assert bound - 1e-4 < emission(at_peak).log_prob(torch.zeros(1).double()).item() <= bound


@pytest.mark.parametrize("name", ["learned", "shared", "log-normal"])
def test_a_density_without_a_bound_says_so_and_has_none(name):
    emission = EMISSIONS[name]().double()
    assert emission.log_density_bound() == math.inf
    parameters = torch.tensor([[0.0], [-200.0]]).double()[: emission.outputs]
    at = 0.0
    if name == "shared":
        emission.log_scale.data.fill_(-100.0)
    if name == "log-normal":  # over x, where it goes to 0
        at, parameters = math.exp(-100), torch.tensor([[-100.0], [0.0]]).double()
    assert emission(parameters).log_prob(torch.tensor([at]).double()).item() > 90


# -- the kit's check ---------------------------------------------------------------------------------------------------


class Scaled(dist.Laplace):
    """With the mass of an interval, times a factor that is right where it is 1."""

    factor = 1.0


class Heavy(Scaled):
    factor = 1.1


class Light(Scaled):
    factor = 0.9


@log_interval_mass.register
def _(base: Scaled, low, high, width):
    return (base.factor * (base.cdf(high) - base.cdf(low))).log()


class Uneven(dist.AsymmetricLaplace):
    """Of which torch knows no distribution function: its cells are had by draws alone."""

    def __init__(self, loc, scale, asymmetry=1.5):
        super().__init__(loc, scale, torch.as_tensor(asymmetry))

    def expand(self, batch_shape, _instance=None):
        return type(self)(*(part.expand(batch_shape) for part in (self.loc, self.scale, self.asymmetry)))


class Unnormalised(Uneven):
    def log_prob(self, value):
        return super().log_prob(value) + math.log(1.2)


def of_laplace(kind):
    """A pair whose density is right and whose cells are those of this kind."""

    class LaplaceDecoder(VAE):
        outputs = 2

        def likelihood(self, z):
            location, log_scale = self.decoder(z).unbind(-2)
            return kind(location, log_scale.exp()).to_event(1)

    return likelihoods.register(LaplaceDecoder, name="laplace", support="real", bounded=False)


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        (Heavy, r"the masses of all cells of a column add up to 1\.1"),
        (Light, r"the masses of the cells that contain draws add up to 0\.(9|89)"),
    ],
)
def test_cells_that_do_not_add_up_to_one_fail_the_kit(catalogue, kind, said):
    with pytest.raises(AssertionError, match=f"own-laplace fails the check 'cells': {said}"):
        check_pair(of_laplace(kind))


def test_cells_that_add_up_to_one_pass_the_kit(catalogue):
    CHECKS["cells"](make_subject(of_laplace(Scaled)))


def test_cells_that_are_had_by_draws_are_added_up_too(catalogue):
    with pytest.raises(AssertionError, match=r"the masses of all cells of a column add up to 1\.2"):
        CHECKS["cells"](make_subject(of_laplace(Unnormalised)))
    CHECKS["cells"](make_subject(of_laplace(Uneven)))


CHOICES = [options for options in variants("mixed") if not {"activation", "guide"} & options.keys()]


@pytest.mark.parametrize("options", CHOICES, ids=str)
def test_every_choice_of_emission_has_cells_that_add_up(options):
    CHECKS["cells"](make_subject("mixed", **options))
