"""What was not observed, drawn and scored, against closed forms, scikit-learn and Pyro's own bound."""

import json
import math
from importlib import import_module
from itertools import pairwise

import numpy as np
import pytest
import torch
from pyro.infer import RenyiELBO, Trace_ELBO
from scipy import stats
from sklearn.impute import KNNImputer
from torch import nn

import zoo
from zoo import imputation
from zoo.context import pyro_context, seeded
from zoo.errors import DataError, OptionError
from zoo.evaluation.imputation import hidden_entries
from zoo.evaluation.imputation import imputation as scores
from zoo.guides import MeanFieldNormal
from zoo.imputation import center, given_latents, impute
from zoo.lenses import observed
from zoo.models import ProbabilisticPCA
from zoo.objectives import MIWAE

group_of = import_module("zoo.evaluation.imputation")
METHODS = ("importance", "gibbs", "pseudo-gibbs")
DRAWS = 4000
# Standard errors that a moment of so many independent draws may be off: importance sampling chooses latents with
# replacement, which doubles a variance at most.
WITHIN = 4.5 * math.sqrt(2)


def table(rows=150, gaps=0.2, resolution=None):
    """Correlated columns in units of their own, some entries of which were not observed."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(rows, 2)) @ rng.normal(size=(2, 4)) + 0.5 * rng.normal(size=(rows, 4))
    x = x * np.array([1.0, 20.0, 0.3, 5.0]) + np.arange(4)
    x[rng.random(x.shape) < gaps] = np.nan
    for name, width in (resolution or {}).items():
        x[:, int(name[1:])] = width * np.rint(x[:, int(name[1:])] / width)
    return zoo.Data.from_array(x, name="table", resolution=resolution)


def trained(name, data, steps=40, **options):
    pair = zoo.create(name, data, **options)
    settings = {"learning_rate": 0.1, "progress": False, "compile": "off", "on_divergence": "warn"}
    return zoo.fit(pair, data, seeds=1, steps=steps, **settings)


def program(name, **options):
    """A lens and an exact guide in double precision, and the mean and the covariance of the normal that they are of."""
    data = table()
    pair = zoo.create(name, data, **options)
    model, guide = observed(pair.model.double(), pair.guide.double(), torch.as_tensor(pair.view.filler))
    with torch.no_grad(), seeded(3):
        for parameter in model.parameters():
            parameter.normal_(0, 0.5)
    return model.requires_grad_(False), guide, *moments(model.model)


def moments(model):
    """Mean and covariance of x under a linear model or a mixture of one normal."""
    if hasattr(model, "decoder"):
        weight, psi = model.decoder.weight, (2 * model.log_scale).exp()
        covariance = weight @ weight.T + torch.diag(psi.expand(len(weight)))
        return model.decoder.bias.double().numpy(), covariance.double().numpy()
    fn = model.likelihood(torch.zeros(1, dtype=torch.long))
    covariance = fn.covariance_matrix if hasattr(fn, "covariance_matrix") else torch.diag_embed(fn.variance)
    return fn.mean[0].double().numpy(), covariance[0].double().numpy()


def conditional(mean, covariance, row):
    """Mean and covariance of the entries of a row that are not numbers, given the others."""
    o = ~np.isnan(row)
    gain = covariance[np.ix_(~o, o)] @ np.linalg.inv(covariance[np.ix_(o, o)])
    return mean[~o] + gain @ (row - mean)[o], covariance[np.ix_(~o, ~o)] - gain @ covariance[np.ix_(o, ~o)]


def deviations(draws, mean, covariance):
    """How many standard errors the mean and the covariance of draws (K, M) are off."""
    variance = covariance.diagonal()
    of_mean = (draws.mean(0) - mean) / np.sqrt(variance / len(draws))
    error = np.sqrt((np.multiply.outer(variance, variance) + covariance**2) / len(draws))
    return np.concatenate([np.abs(of_mean), np.abs((np.cov(draws.T) - covariance) / error).ravel()])


ROWS = np.array([[1.5, -0.2, np.nan, np.nan], [np.nan, 0.4, np.nan, np.nan], [0.3, np.nan, 1.0, -0.8]])
EXACT = [("gmm", {"components": 1, "covariance": "full"}), ("linear-shared", {"latent_dim": 2})]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("name", "options"), EXACT)
def test_draws_are_of_the_conditional_normal(name, options, method):
    model, guide, mean, covariance = program(name, **options)
    with seeded(0):
        drawn = impute(model, guide, torch.as_tensor(ROWS), DRAWS, method, sweeps=12).numpy()
    assert drawn.shape == (DRAWS, *ROWS.shape)
    for row, draws in zip(ROWS, drawn.swapaxes(0, 1), strict=True):
        gone = np.isnan(row)
        assert deviations(draws[:, gone], *conditional(mean, covariance, row)).max() < WITHIN


def test_a_run_draws_in_the_units_as_loaded():
    run = trained("gmm", table(), components=1, covariance="full")
    (program,) = run.each_seed(lambda model, _: model.model, 0, gaps=True)
    (mean, covariance), view = moments(program), run.pair.view
    rows = ROWS * view.scale + view.center
    truth = view.center + view.scale * mean, np.outer(view.scale, view.scale) * covariance
    (drawn,) = run.impute(rows, draws=DRAWS, sweeps=2)
    for row, draws in zip(rows, drawn.swapaxes(0, 1), strict=True):
        gone = np.isnan(row)
        assert deviations(draws[:, gone], *conditional(*truth, row)).max() < WITHIN


# -- a guide that is wrong ---------------------------------------------------------------------------------------------


class Blind(nn.Module):
    """An encoder that says the same of every datum: a mean of 0.3, and a variance of 1.5."""

    def forward(self, x):
        return torch.tensor([[0.3], [math.log(1.5)]]).to(x).expand(*x.shape[:-1], 2, 2)


def with_a_blind_guide():
    with seeded(0):
        model = ProbabilisticPCA(4, 2).double().requires_grad_(False)
    model.decoder.weight.copy_(torch.tensor([[1.0, 0.5], [0.8, -0.6], [-0.5, 1.0], [0.3, 0.9]]))
    model.decoder.bias.copy_(torch.tensor([0.5, -1.0, 0.0, 2.0]))
    model.log_scale.fill_(math.log(0.6))
    programs = observed(model, MeanFieldNormal(Blind()), torch.zeros(4).double())
    return (*programs, *conditional(*moments(model), ROWS[0]))


def repeated(count):
    return torch.as_tensor(ROWS[:1]).expand(count, -1).clone()


def test_metropolis_within_gibbs_is_right_whatever_the_guide_and_pseudo_gibbs_is_not(monkeypatch):
    model, guide, mean, covariance = with_a_blind_guide()
    monkeypatch.setattr(imputation, "SAMPLES", 1)  # a start at the guide's own draws, of the wrong distribution
    off = {}
    for method in METHODS[1:]:
        with seeded(0):
            (draws,) = impute(model, guide, repeated(DRAWS), 1, method, sweeps=80)
        off[method] = deviations(draws[:, 2:].numpy(), mean, covariance).max()
    assert off["gibbs"] < WITHIN
    assert off["pseudo-gibbs"] > 4 * WITHIN


def test_many_draws_of_importance_sampling_are_right_whatever_the_guide():
    model, guide, mean, covariance = with_a_blind_guide()
    with seeded(0):
        drawn = impute(model, guide, repeated(1), 20_000, "importance")[:DRAWS, 0, 2:]
    assert deviations(drawn.numpy(), mean, covariance).max() < WITHIN


def test_few_draws_of_importance_sampling_are_chosen_among_many():
    model, guide, mean, covariance = with_a_blind_guide()
    with seeded(0):
        (draws,) = impute(model, guide, repeated(400), 1, "importance")
    assert deviations(draws[:, 2:].numpy(), mean, covariance).max() < WITHIN


# -- what comes back ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def penguins():
    return zoo.load_data("penguins")


@pytest.fixture(scope="module")
def mixed(penguins):
    return trained("mixed", penguins, steps=20, latent_dim=2, hidden=(8,))


@pytest.mark.parametrize("method", METHODS)
def test_draws_are_values_of_their_columns_and_the_rest_comes_back_to_the_bit(penguins, mixed, method):
    x = penguins.test.values.copy()
    hidden = hidden_entries(x, 0.4)
    x[hidden] = np.nan
    gone = np.isnan(x)
    drawn = mixed.impute(x, draws=6, method=method, sweeps=2)
    assert drawn.shape == (1, 6, *x.shape) and np.isfinite(drawn).all()
    for each in drawn[0]:
        assert each[~gone].tobytes() == x[~gone].tobytes()
    for j, column in enumerate(penguins.columns):
        values = drawn[..., gone[:, j], j]
        assert not column.outside(values.ravel()).any() and len(np.unique(values)) > 1
        np.testing.assert_array_equal(column.nearest(values), values)
        if column.resolution is not None:
            steps = (values - (column.levels or [0.0])[0]) / column.resolution
            np.testing.assert_allclose(steps, np.rint(steps), atol=1e-6)
        if column.categories:
            assert set(values.ravel()) <= set(range(len(column.categories)))


def test_a_seed_draws_the_same_again_and_another_one_others(penguins, mixed):
    x = np.where(hidden_entries(penguins.test.values, 0.4), np.nan, penguins.test.values)
    first, again, other = (mixed.impute(x, draws=3, sweeps=2, seed=seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_the_middle_of_draws_is_a_mean_or_the_most_frequent_name():
    draws = np.array([[1.0, 2.0], [2.0, 0.0], [6.0, 2.0], [np.nan, 2.0]])
    np.testing.assert_array_equal(center(draws, np.array([False, True])), [3.0, 2.0])
    assert np.isnan(center(np.full((4, 1), np.nan), np.array([False]))).all()


@pytest.mark.parametrize(
    ("given", "error", "said"),
    [
        ({"method": "guess"}, OptionError, "method='guess'; choose from importance, gibbs, pseudo-gibbs"),
        ({"draws": 0}, OptionError, "draws=0; give an integer from 1"),
        ({"sweeps": 0}, OptionError, "sweeps=0; give an integer from 1"),
        ({"seed": -1}, OptionError, "seed=-1"),
        ({"x": np.zeros((3, 5))}, DataError, r"x has shape \(3, 5\); mixed takes \(N, 8\)"),
        ({"x": np.full((3, 8), np.nan)}, DataError, "no observed entry"),
        ({"x": [[0.5, *[np.nan] * 7]]}, DataError, r"0.5 in row 0 \(.*, column 'species'"),
    ],
)
def test_what_cannot_be_imputed_is_refused(penguins, mixed, given, error, said):
    with pytest.raises(error, match=said):
        mixed.impute(**{"x": penguins.test.values, **given})


@pytest.mark.parametrize("hide", [1.0, -0.1, math.nan, True, "half"])
def test_only_a_share_can_be_hidden(penguins, mixed, hide):
    with pytest.raises(OptionError, match="hide="):
        zoo.evaluate(mixed, penguins, hide=hide)


# -- what is hidden ----------------------------------------------------------------------------------------------------

SHARES = (0.01, 0.1, 0.2, 0.5, 0.75, 0.99)


@pytest.fixture(scope="module")
def gappy():
    rng = np.random.default_rng(5)
    x = np.where(rng.random((80, 6)) < 0.3, np.nan, rng.normal(size=(80, 6)))
    x[0], x[1] = np.nan, [np.nan] * 5 + [2.0]
    return x


@pytest.mark.parametrize("share", SHARES)
def test_so_many_of_the_observed_entries_are_hidden(gappy, share):
    hidden, there = hidden_entries(gappy, share), ~np.isnan(gappy)
    assert not (hidden & ~there).any()
    assert (there & ~hidden).any(1)[there.any(1)].all() and not hidden[1].any()
    most = there.sum() - there.any(1).sum()
    assert abs(hidden.sum() - min(share * there.sum(), most)) <= 1


def test_a_larger_share_hides_more_of_the_same(gappy):
    for seed in range(3):
        each = [hidden_entries(gappy, share, seed) for share in SHARES]
        assert all((fewer <= more).all() and fewer.sum() < more.sum() for fewer, more in pairwise(each))


def test_a_seed_hides_the_same_entries_whatever_their_values(gappy):
    np.testing.assert_array_equal(hidden_entries(gappy, 0.3, 1), hidden_entries(3 - gappy, 0.3, 1))
    assert (hidden_entries(gappy, 0.3, 1) != hidden_entries(gappy, 0.3, 2)).any()


# -- the group imputation ----------------------------------------------------------------------------------------------


def scored(run, data):
    """The group, which entries were hidden, and the test part with gaps in their places."""
    hidden = hidden_entries(data.test.values, 0.2)
    return scores(run, data, 0.2), hidden, np.where(hidden, np.nan, data.test.values)


def check_totals(group, hidden):
    assert group.attrs["hidden"] == hidden.sum() and group.attrs["share"] == 0.2
    np.testing.assert_array_equal(group["count"], hidden.sum(0))
    assert np.isfinite(group["log_score_mean"]).all() and np.isfinite(group["log_score"]).all()
    mean = (group["log_score"] * group["count"]).sum("feature") / group["count"].sum()
    np.testing.assert_allclose(group["log_score_mean"], mean, rtol=1e-9)


def test_the_group_of_a_table_of_several_kinds(penguins, mixed):
    group, hidden, _ = scored(mixed, penguins)
    check_totals(group, hidden)
    assert (group["log_score"] <= 0).all()  # every column has a resolution, and its values masses
    assert list(group["imputer"].values) == ["column mean or mode", "nearest neighbours", "iterative"]
    assert np.isfinite(group["baseline_error"]).all() and np.isfinite(group["error"]).all()
    train, truth, of_numbers, of_names = penguins.train.values, penguins.test.values, [], []
    for j, column in enumerate(penguins.columns):
        known, told = train[:, j][~np.isnan(train[:, j])], truth[hidden[:, j], j]
        if column.support in ("categorical", "binary"):
            wrong = told != stats.mode(known).mode
            expected, _ = wrong.mean(), of_names.extend(wrong)
            assert group["measure"][j] == "error rate"
        else:
            squares = (told - np.mean(known)) ** 2
            expected, _ = np.sqrt(squares.mean()), of_numbers.extend(squares / np.var(known))
            assert group["measure"][j] == "RMSE"
        np.testing.assert_allclose(group["baseline_error"].sel(imputer="column mean or mode")[j], expected)
    of_all = group.sel(imputer="column mean or mode")
    np.testing.assert_allclose(of_all["baseline_rmse"], np.sqrt(np.mean(of_numbers)))
    np.testing.assert_allclose(of_all["baseline_error_rate"], np.mean(of_names))


@pytest.fixture(scope="module")
def one_normal():
    data = table(rows=300, gaps=0.1)
    return data, trained("gmm", data, components=1, covariance="full")


def given_the_others(run, gappy, hidden):
    """Mean and deviation of each hidden entry given what was observed in its row, in the units as loaded, (H,) each."""
    (program,) = run.each_seed(lambda model, _: model.model, 0, gaps=True)
    (mean, covariance), view = moments(program), run.pair.view
    truth = view.center + view.scale * mean, np.outer(view.scale, view.scale) * covariance
    found = np.full((2, *gappy.shape), np.nan)
    for at, row in enumerate(gappy):
        if (gone := np.isnan(row)).any():
            middle, spread = conditional(*truth, row)
            found[:, at, gone] = middle, np.sqrt(spread.diagonal())
    return found[:, hidden]


def test_the_log_score_of_one_normal_is_that_of_its_conditionals(one_normal):
    data, run = one_normal
    group, hidden, gappy = scored(run, data)
    check_totals(group, hidden)
    truth, columns = data.test.values[hidden], np.nonzero(hidden)[1]
    mean, deviation = given_the_others(run, gappy, hidden)
    score, square = stats.norm.logpdf(truth, mean, deviation), (truth - mean) ** 2
    assert np.corrcoef(mean, truth)[0, 1] > 0.5 and run.pair.view.log_volume > 1  # there is something to be wrong about
    for j in range(data.features):
        np.testing.assert_allclose(group["log_score"][0, j], score[columns == j].mean(), atol=1e-4)
        # the mean of 500 draws is off by their standard error, and a root mean square by no more than those are
        error = np.sqrt((deviation[columns == j] ** 2).mean() / 500)
        np.testing.assert_allclose(group["error"][0, j], np.sqrt(square[columns == j].mean()), atol=2 * error)
    np.testing.assert_allclose(group["log_score_mean"][0], score.mean(), atol=1e-4)
    in_deviations = group["count"] * (group["error"][0] / data.train_std) ** 2
    np.testing.assert_allclose(group["rmse"][0] ** 2, in_deviations.sum() / hidden.sum())


@pytest.mark.parametrize("method", METHODS)
def test_entries_are_scored_by_as_many_late_draws_of_every_method(one_normal, method):
    _, run = one_normal
    model, guide = run.each_seed(lambda *programs: programs, 0, gaps=True)[0]
    x = torch.zeros(3, 4)
    x[:, 1] = torch.nan
    swept = []
    with pytest.MonkeyPatch.context() as patch, seeded(0), torch.no_grad():
        patch.setattr(group_of, "given_latents", lambda *of: (swept.append(1), given_latents(*of))[1])
        _, drawn = group_of._score(
            model, guide, x, torch.zeros(3, 4), x.isnan(), torch.full((4,), torch.nan), method, {}
        )
    assert drawn.shape == (500, 3)
    assert len(swept) == (1 if method == "importance" else 25)


def test_the_log_score_of_a_number_with_a_resolution_is_the_mass_of_its_cell():
    data = table(rows=300, gaps=0.1, resolution={"x0": 0.5, "x2": 0.125})
    run = trained("gmm", data, components=1, covariance="diagonal")
    group, hidden, gappy = scored(run, data)
    truth, columns = data.test.values[hidden], np.nonzero(hidden)[1]
    mean, deviation = given_the_others(run, gappy, hidden)
    half = data.resolution[columns] / 2
    mass = stats.norm.cdf(truth + half, mean, deviation) - stats.norm.cdf(truth - half, mean, deviation)
    score = np.where(np.isnan(half), stats.norm.logpdf(truth, mean, deviation), np.log(mass))
    for j in range(data.features):
        np.testing.assert_allclose(group["log_score"][0, j], score[columns == j].mean(), atol=1e-3)


def test_nearest_neighbours_are_scikit_learns(one_normal):
    data, run = one_normal
    group, hidden, gappy = scored(run, data)
    train = data.train.values
    middle, spread = np.nanmean(train, axis=0), np.nanstd(train, axis=0)
    imputer = KNNImputer().fit((train - middle) / spread)
    off = imputer.transform((gappy - middle) / spread) * spread + middle - data.test.values
    expected = [np.sqrt((off[hidden[:, j], j] ** 2).mean()) for j in range(data.features)]
    np.testing.assert_allclose(group["baseline_error"].sel(imputer="nearest neighbours"), expected, rtol=1e-6)


def test_a_tenth_is_hidden_where_entries_are_missing_and_nothing_else_unasked(one_normal):
    def evaluated(run, data, **effort):
        tree = zoo.evaluate(run, data, samples=5, temperatures=0, **effort)
        assert not [name for name in json.loads(tree.attrs["absent"]) if name.startswith("imputation")]
        return tree["imputation"].to_dataset() if "imputation" in tree.children else None

    data, run = one_normal
    assert evaluated(run, data).attrs["share"] == 0.1
    assert evaluated(run, data, hide=0.0) is None  # and the earlier one is gone
    data = table(gaps=0)
    run = trained("gmm", data, steps=2, components=1)
    assert evaluated(run, data) is None
    group, (alone, hidden, _) = evaluated(run, data, hide=0.2), scored(run, data)
    check_totals(group, hidden)
    np.testing.assert_array_equal(group["log_score"], alone["log_score"])
    assert list(group["feature"].values) == list(data.names) and list(group["chain"].values) == [0]


# -- the objective miwae -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def vae():
    """A pair in double precision whose guide is far from the posterior, and six complete rows."""
    data = table(gaps=0)
    pair = zoo.create("gaussian-learned", data, latent_dim=2, hidden=(8,))
    with torch.no_grad(), seeded(4):
        for parameter in [*pair.model.double().parameters(), *pair.guide.double().parameters()]:
            parameter.add_(0.4 * torch.randn_like(parameter))
    x = torch.as_tensor(pair.view.inward(data.train.values[:6]))
    return pair.model.requires_grad_(False), pair.guide.requires_grad_(False), x


def bound(samples, model, guide, x):
    return -float(MIWAE(samples)(model, guide, x).value)


def pyros(samples, model, guide, x):
    kind = RenyiELBO(alpha=0, num_particles=samples, vectorize_particles=True, max_plate_nesting=1)
    return -kind.loss(model, guide, x) / len(x)


@pytest.mark.parametrize("samples", [1, 2, 7])
def test_miwae_is_pyros_renyi_bound_at_the_same_draws(vae, samples):
    values = []
    for value in (bound, pyros):
        with seeded(0), pyro_context():
            values.append([value(samples, *vae) for _ in range(3)])
    np.testing.assert_allclose(*values, rtol=1e-10)
    assert len({*values[0]}) == 3


def mean_and_error(value, samples, vae, seed):
    """Over 40 calls, each of a batch in which every row stands 25 times."""
    model, guide, x = vae
    with seeded(seed), pyro_context():
        values = [value(samples, model, guide, x.repeat(25, 1)) for _ in range(40)]
    return np.mean(values), np.std(values) / math.sqrt(len(values))


def test_miwae_is_pyros_renyi_bound_in_expectation(vae):
    (ours, error), (theirs, of_theirs) = (
        mean_and_error(value, 5, vae, seed) for seed, value in enumerate((bound, pyros))
    )
    assert abs(ours - theirs) < 4 * math.hypot(error, of_theirs)


def test_one_sample_is_the_elbo_and_more_come_closer_to_the_evidence(vae):
    def pyros_elbo(samples, model, guide, x):
        return -Trace_ELBO().loss(model, guide, x) / len(x)

    elbo, error = mean_and_error(pyros_elbo, 1, vae, seed=1)
    found = [mean_and_error(bound, samples, vae, seed=0) for samples in (1, 2, 5, 20, 100)]
    assert abs(found[0][0] - elbo) < 4 * math.hypot(found[0][1], error)
    for (less, one), (more, other) in pairwise(found):
        assert more - less > 4 * math.hypot(one, other)
    with seeded(2), pyro_context():
        evidence = bound(50_000, *vae)
    assert found[-1][0] < evidence < found[-1][0] + 1


@pytest.mark.parametrize(("name", "options"), EXACT)
def test_with_an_exact_guide_every_bound_is_the_evidence_of_what_was_observed(name, options):
    model, guide, mean, covariance = program(name, **options)
    there = ~np.isnan(ROWS)
    expected = [
        stats.multivariate_normal(mean[o], covariance[np.ix_(o, o)]).logpdf(row[o])
        for row, o in zip(ROWS, there, strict=True)
    ]
    for samples in (1, 3):
        with seeded(0), pyro_context():
            found = bound(samples, model, guide, torch.as_tensor(ROWS))
        assert found == pytest.approx(np.mean(expected), abs=1e-6)


def test_a_pair_trains_by_miwae_on_data_with_gaps():
    data = table()
    pair = zoo.create("gaussian-constrained", data, latent_dim=2, hidden=(8,))
    common = {"seeds": 1, "steps": 5, "progress": False, "compile": "off"}
    traces = zoo.fit(pair, data, objective="miwae[samples=5]", **common).tree["optimization"]
    assert np.isfinite(traces["objective"]).all() and (traces["objective"] > traces["elbo"]).all()
    with pytest.raises(OptionError, match="samples"):
        zoo.fit(pair, data, objective="miwae[samples=0]", **common)
    with pytest.raises(OptionError, match="objective elbo: no option is called 'samples'"):
        zoo.fit(pair, data, objective="elbo[samples=5]", **common)
