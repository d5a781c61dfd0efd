"""How a pair sees data: maps there and back, volumes and cells, and what an encoder of a table is given."""

import likelihoods
import numpy as np
import pandas as pd
import pyro.distributions as dist
import pytest
import torch
from scipy import stats
from torch import nn

import zoo
from zoo.context import seeded
from zoo.data import Data
from zoo.lenses import Cells
from zoo.models import VAE
from zoo.models.ordinal import log_interval_mass
from zoo.networks import Tabulated
from zoo.views import View

ROWS = 120
KINDS = ["binary", "ordinal", "count", "unit", "positive", "real", "categorical"]


def table(gaps=0.0, **options):
    """One column of each kind, in the order of KINDS."""
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(
        {
            "binary": rng.integers(0, 2, ROWS),
            "ordinal": 2.0 * rng.integers(1, 6, ROWS),
            "count": rng.poisson(np.exp(rng.normal(1.5, 1, ROWS))),
            "unit": rng.beta(2, 3, ROWS),
            "positive": np.exp(rng.normal(2, 1, ROWS)).round(1) + 0.5,
            "real": rng.normal(-30, 7, ROWS).round(1),
            "categorical": rng.choice(["Bonn", "Oslo", "Rome"], ROWS),
        }
    )
    hidden = rng.random(frame.shape) < gaps
    options = {"support": {kind: kind for kind in KINDS}, "name": "gaps" if gaps else "complete", **options}
    return Data.from_array(frame.mask(hidden), **options)


ALL, GAPPY = table(), table(gaps=0.2)
LEVELS = Data.from_array(np.random.default_rng(1).integers(1, 6, size=(60, 3)) * 2.0, name="levels")
NUMBERS = table(
    gaps=0.1, name="numbers", columns=["real", "count", "unit", "ordinal"], support={"count": "count", "unit": "unit"}
)
COINS = Data.from_array(np.random.default_rng(1).integers(0, 2, size=(60, 3)), name="coins")
CASES = [
    (name, data)
    for data in (ALL, GAPPY, LEVELS, NUMBERS, COINS)
    for name in zoo.list_pairs()
    if zoo.card(name).takes(data.columns)
]


@pytest.fixture
def unit_card(catalogue):
    likelihoods.continuous_bernoulli()
    return zoo.card("own-continuous-bernoulli")


# -- maps --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "data"), CASES, ids=lambda case: getattr(case, "name", case))
def test_outward_is_the_inverse_of_inward(name, data):
    view = View(data, zoo.card(name))
    x = data.train.values
    there = view.inward(x)
    np.testing.assert_allclose(view.outward(there), x, rtol=1e-12, atol=1e-12)
    np.testing.assert_array_equal(np.isnan(there), np.isnan(x))
    batches = np.stack([x, x + 1, x - 2])
    np.testing.assert_allclose(view.inward(view.outward(batches)), batches, rtol=1e-12, atol=1e-9)
    assert view.inward(x[0]).shape == x[0].shape


def test_each_kind_of_likelihood_sees_its_own_units():
    x = ALL.train.values
    mean, std = dict(zip(KINDS, x.mean(0), strict=True)), dict(zip(KINDS, x.std(0), strict=True))
    view = View(ALL, zoo.card("mixed"))
    expected = dict.fromkeys(["binary", "ordinal", "count", "categorical"], (0, 1))
    expected |= {"positive": (0, std["positive"])} | {kind: (mean[kind], std[kind]) for kind in ("unit", "real")}
    np.testing.assert_allclose(np.stack([view.center, view.scale], 1), [expected[kind] for kind in KINDS], rtol=1e-12)
    real = View(NUMBERS, zoo.card("gaussian-learned")).inward(NUMBERS.train.values)
    np.testing.assert_allclose(np.nanmean(real, 0), 0, atol=1e-12)
    np.testing.assert_allclose(np.nanstd(real, 0), 1)
    plain = View(LEVELS, zoo.card("gaussian-binned"))
    np.testing.assert_array_equal(plain.inward(LEVELS.train.values), LEVELS.train.values)


def test_levels_are_brought_into_the_unit_interval_with_their_cells(unit_card):
    view = View(LEVELS, unit_card)
    levels = np.repeat(np.array(LEVELS.levels)[:, None], 3, axis=1)
    np.testing.assert_allclose(view.inward(levels)[:, 0], [0.1, 0.3, 0.5, 0.7, 0.9])
    np.testing.assert_allclose(view.width, 0.2)
    shares = Data.from_array(np.random.default_rng(0).random((30, 2)))
    np.testing.assert_array_equal(View(shares, unit_card).inward(shares.train.values), shares.train.values)


# -- volumes and cells -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("data", [ALL, GAPPY], ids=lambda data: data.name)
def test_the_volume_is_that_of_the_change_of_variables(data):
    view, x = View(data, zoo.card("mixed")), data.test.values
    seen = view.inward(x)
    rng = np.random.default_rng(0)
    loc, spread = rng.normal(size=seen.shape[1]), np.exp(rng.normal(size=seen.shape[1]))
    in_units = stats.norm(view.center + view.scale * loc, view.scale * spread).logpdf(x)
    there = np.nansum(in_units, axis=1)
    np.testing.assert_allclose(np.nansum(stats.norm(loc, spread).logpdf(seen), axis=1) - view.log_volumes(x), there)
    assert view.mean_log_volume(data.test) == pytest.approx(view.log_volumes(x).mean())
    if data is ALL:
        np.testing.assert_array_equal(view.log_volumes(x), view.log_volume)


@pytest.mark.parametrize("data", [ALL, GAPPY], ids=lambda data: data.name)
def test_a_cell_has_no_volume(data):
    view, x = View(data, zoo.card("mixed")), data.test.values
    recorded = np.array([kind in ("positive", "real") for kind in KINDS])
    np.testing.assert_allclose(view.width[recorded], 0.1 / view.scale[recorded])
    assert np.isnan(view.width[~recorded]).all()  # points, and what has a mass of its own
    of_points = ~np.isnan(x) @ np.where(recorded, 0, np.log(view.scale))
    np.testing.assert_allclose(view.log_volumes(x, cells=True), of_points)
    points = View(table(resolution=None), zoo.card("mixed"))
    assert np.isnan(points.width).all()


def test_of_which_columns_a_formula_is_a_density():
    assert View(ALL, zoo.card("mixed")).dense.tolist() == [kind in ("unit", "positive", "real") for kind in KINDS]
    assert View(LEVELS, zoo.card("gaussian-learned")).dense.all()
    assert not View(LEVELS, zoo.card("gaussian-binned")).dense.any()
    assert np.isnan(View(LEVELS, zoo.card("gaussian-binned")).width).all()
    np.testing.assert_allclose(View(LEVELS, zoo.card("gaussian-learned")).width, 2 / LEVELS.scaling.scale)


@pytest.mark.parametrize(("name", "data"), CASES, ids=lambda case: getattr(case, "name", case))
def test_what_stands_in_a_gap_is_a_value_that_the_likelihood_knows(name, data):
    view = View(data, zoo.card(name))
    assert view.filler.shape == (data.features,) and np.isfinite(view.filler).all()
    view.checked(view.outward(view.filler)[None])


# -- what an encoder is given ------------------------------------------------------------------------------------------


def encoded(data, **options):
    """What the network of the encoder of ``mixed`` sees of the training part, and the number of gaps' inputs."""
    pair = zoo.create("mixed", data, latent_dim=2, hidden=(4,), **options)
    assert isinstance(pair.guide.encoder, Tabulated)
    inputs = pair.guide.encoder.network[0].in_features
    pair.guide.encoder.network = nn.Identity()
    seen = pair.guide.encoder.double()(torch.as_tensor(pair.view.inward(data.train.values))).numpy()
    assert seen.shape == (len(data.train), inputs)
    return seen


def by_hand(data):
    """The same: numbers in the order of their columns, counts, positive numbers, categories, and what was observed."""
    x = dict(zip(KINDS, data.train.values.T, strict=True))
    mean, std = ({kind: of(values) for kind, values in x.items()} for of in (np.nanmean, np.nanstd))
    seen = [x["binary"] - 0.5]
    seen += [(x[kind] - mean[kind]) / std[kind] for kind in ("ordinal", "unit", "real")]
    seen += [(np.log1p(x["count"]) - np.log1p(mean["count"])) * (1 + mean["count"]) / std["count"]]
    variation = std["positive"] / mean["positive"]
    seen += [np.log(x["positive"] / mean["positive"]) / np.sqrt(np.log1p(variation**2))]
    seen += [np.where(np.isnan(x["categorical"]), np.nan, x["categorical"] == number) for number in range(3)]
    return np.nan_to_num(np.column_stack(seen))


def test_an_encoder_sees_each_column_in_its_own_way():
    seen = encoded(ALL)
    np.testing.assert_allclose(seen, by_hand(ALL), atol=1e-6)
    assert seen.shape[1] == len(KINDS) + 2  # one number a column, three of the categories, no mask
    assert (np.abs(seen.mean(0)) < 1).all() and (seen.std(0) < 2.5).all()  # numbers of about one size


def test_an_encoder_of_a_table_with_gaps_sees_zeros_and_which_entries_were_observed():
    seen = encoded(GAPPY)
    np.testing.assert_allclose(seen[:, : -len(KINDS)], by_hand(GAPPY), atol=1e-6)
    np.testing.assert_array_equal(seen[:, -len(KINDS) :], ~np.isnan(GAPPY.train.values))


def test_what_is_seen_does_not_depend_on_the_units_of_a_column():
    """But for the one of counts, which are in no units."""
    scaled = GAPPY.as_frame(np.concatenate([GAPPY.train, GAPPY.validation, GAPPY.test]))
    split = [part for part in ("train", "validation", "test") for _ in range(len(getattr(GAPPY, part)))]
    scaled["positive"], scaled["real"] = 1000 * scaled["positive"], scaled["real"] / 8 - 3
    other = Data.from_array(scaled, split=split, support={kind: kind for kind in KINDS})
    np.testing.assert_allclose(encoded(other), encoded(GAPPY), atol=1e-5)


# -- views of one data set ---------------------------------------------------------------------------------------------


class Sloped(dist.ContinuousBernoulli):
    """Of the unit interval, with the mass of a part of it."""


@log_interval_mass.register
def _(base: Sloped, low, high, width):
    return (base.cdf(high.clamp(0, 1)) - base.cdf(low.clamp(0, 1))).log()


class SlopedDecoder(VAE):
    outputs = 1

    def likelihood(self, z):
        (logits,) = self.decoder(z).unbind(-2)
        return Sloped(logits=logits).to_event(1)


@pytest.fixture
def sloped(catalogue):
    return likelihoods.register(SlopedDecoder, name="sloped", support="unit", bounded=False)


def cell_masses(name, data, values):
    """The probability of the cell of each value in each column, at draws of z, (V, Z, D)."""
    with seeded(0):
        pair = zoo.create(name, data, latent_dim=2, hidden=(4,))
        pair.model.double()
        fn = pair.model.likelihood(3 * torch.randn(20, 2, dtype=torch.float64))
    x = torch.as_tensor(pair.view.inward(np.repeat(np.asarray(values)[:, None], data.features, axis=1)))
    cells = Cells(pair.model, torch.as_tensor(pair.view.width)).likelihood(fn)
    return cells.base_dist.log_prob(x[:, None].expand(-1, *fn.batch_shape, -1)).exp().detach().numpy()


def test_the_cells_of_all_levels_fill_the_unit_interval_and_none_of_the_real_line_twice(sloped):
    np.testing.assert_allclose(cell_masses(sloped, LEVELS, LEVELS.levels).sum(0), 1, atol=1e-6)
    assert (cell_masses("gaussian-learned", LEVELS, LEVELS.levels).sum(0) < 1).all()
    endless = np.arange(-500.0, 502.0, 2)
    np.testing.assert_allclose(cell_masses("gaussian-learned", LEVELS, endless).sum(0), 1, atol=1e-9)


MARKS = np.arange(21.0)  # all of which are tested, while training holds those in the middle


@pytest.fixture(scope="module")
def marks():
    usual = np.random.default_rng(0).integers(8, 13, 120)
    split = ["train"] * 100 + ["validation"] * 20 + ["test"] * len(MARKS)
    return Data.from_array(np.concatenate([usual, MARKS])[:, None], levels=range(21), split=split, name="marks")


@pytest.mark.usefixtures("quick_scores")
def test_pairs_of_the_unit_interval_of_real_numbers_and_of_levels_are_ranked_together(sloped, marks):
    trees = []
    for name in (sloped, "gaussian-constrained", "gaussian-binned"):
        pair = zoo.create(name, marks, latent_dim=1, hidden=(4,))
        run = zoo.fit(pair, marks, seeds=1, steps=40, learning_rate=0.05, progress=False, compile="off")
        tree = zoo.evaluate(run, marks, samples=300, temperatures=0, reference=0)
        heldout = tree["heldout"]
        assert heldout.attrs["mass"] == ("own" if name == "gaussian-binned" else "binned")
        assert tree.attrs["mass_fingerprint"] == marks.mass_fingerprint
        mass, error = np.exp(heldout["log_mass"].values), heldout["log_mass_se"].values
        assert abs(mass.sum() - 1) < 5 * np.sqrt(np.square(mass * error).sum()) + 1e-3
        trees.append(tree)
    ranked = zoo.compare(trees)
    assert set(ranked["table"]) == {"mass, marks"} and sorted(ranked["rank"]) == [1, 2, 3]


def test_what_was_recorded_is_one_data_set_whatever_it_is_called():
    x = LEVELS.train.values
    same = [Data.from_array(x), Data.from_array(x, support="ordinal"), Data.from_array(x, support="real")]
    same += [Data.from_array(x, dequantize=True), Data.from_array(x, scaling="none")]
    assert len({data.mass_fingerprint for data in same}) == 1
    assert len({data.fingerprint for data in same}) == 4  # the first two are the same
    others = [Data.from_array(x + 1), Data.from_array(x, seed=1), Data.from_array(x, names=["a", "b", "c"])]
    others += [Data.from_array(x, support="real", resolution=dict.fromkeys(["x0", "x1", "x2"], 1.0))]
    assert len({data.mass_fingerprint for data in [same[0], *others]}) == 1 + len(others)
    assert Data.from_array(x, support="real", resolution=None).mass_fingerprint == ""
