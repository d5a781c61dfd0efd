"""Which collapses are seen: while training by the watch, at its end by scales that still shrink."""

import numpy as np
import pandas as pd
import pytest

import zoo
from zoo.comparison.shrinkage import shrinkage
from zoo.divergence import ALARM, FALLING_CHECKS, Watch, degenerate


def table(rows=300, seed=0):
    """Five columns of two factors, with noise of their own."""
    rng = np.random.default_rng(seed)
    return rng.normal(size=(rows, 2)) @ rng.normal(size=(2, 5)) + 0.6 * rng.normal(size=(rows, 5))


def lognormal(rows=500):
    """Three skewed columns, whose deviation given what moves them is below 1/200 of their own in most rows."""
    rng = np.random.default_rng(1)
    z = rng.normal(size=(rows, 2))
    return np.exp(2.5 * z[:, [0, 0, 1]] + 0.3 * rng.normal(size=(rows, 3)))


def fahrenheit():
    x = table()
    return np.column_stack([x, 9 / 5 * x[:, 0] + 32])


DEGENERATE = {
    "fahrenheit": (fahrenheit, [0, 5]),
    "shares": (lambda: 100 * np.exp(table()) / np.exp(table()).sum(1, keepdims=True), [0, 1, 2, 3, 4]),
    "total": (lambda: np.column_stack([np.exp(table()), np.exp(table()[:, :3]).sum(1)]), [0, 1, 2, 5]),
    "copied": (lambda: table()[:, [0, 1, 2, 3, 4, 2]], [2, 5]),
    "constant": (lambda: np.column_stack([table(), np.ones(300)]), [5]),
    "half of it zeros": (lambda: np.column_stack([table(), np.maximum(table()[:, 0], 0)]), [5]),
    "copies of one row": (lambda: np.vstack([table(), np.repeat(table()[:1], 40, axis=0)]), [0, 1, 2, 3, 4]),
    "nothing": (table, []),
    "skewed": (lognormal, []),
}


@pytest.mark.parametrize("name", DEGENERATE)
def test_columns_in_which_a_density_gains_without_end_are_known(name):
    make, columns = DEGENERATE[name]
    assert np.flatnonzero(degenerate(zoo.Data.from_array(make(), name=name))).tolist() == columns


def rings(data, follows, scale=ALARM / 2, column=0):
    """Whether the alarm rings for a scale that falls in one column."""
    watch = Watch(zoo.create("gaussian-learned", data), [0])
    alive, at = np.array([True]), np.full((1, data.features), -1)
    for check in range(FALLING_CHECKS + 1):
        relative = np.where(np.arange(data.features) == column, scale * 0.9**check, 1.0)
        alarmed = watch.alarms(check + 1, (relative * watch.spread)[None], at, alive, np.array([follows]))
    return bool(alarmed[0])


def test_held_out_evidence_is_asked_but_where_it_means_nothing():
    data = zoo.Data.from_array(fahrenheit())
    assert rings(data, follows=False, column=3)
    assert not rings(data, follows=True, column=3)
    assert rings(data, follows=True, column=5), "a column that is a function of others"
    assert not rings(data, follows=False, column=5, scale=20 * ALARM)


def test_wild_values_do_not_make_all_others_look_collapsed():
    data = zoo.Data.from_array(lognormal())
    true = 0.3 * data.train.values[:, 2]  # the deviation of a value given what moves it, to first order
    spread = Watch(zoo.create("gaussian-learned", data), [0]).spread[2] * data.scaling.scale[2]
    assert (true < ALARM * data.train_std[2]).mean() > 0.5
    assert (true < ALARM * spread).mean() < 0.25
    normal = zoo.Data.from_array(np.random.default_rng(0).normal(size=(4000, 1)))
    assert Watch(zoo.create("gaussian-learned", normal), [0]).spread == pytest.approx(1, abs=0.05)


def test_a_scale_that_rests_is_told_from_one_that_shrinks():
    steps = np.arange(1, 51) / 50
    trained = np.cumsum((1 + np.cos(np.pi * steps)) / 2)  # a cosine schedule: its end trains next to nothing
    power, rests, slow = trained**-0.7, 0.4 + 0.6 / trained**2, trained**-0.1
    noisy = power * np.exp(0.03 * np.random.default_rng(0).normal(size=50))
    rates = shrinkage(trained, np.stack([power, rests, slow, noisy, power]), np.array([49, 49, 49, 45, 5]))
    assert rates[0] == pytest.approx(2**-0.7, rel=0.02)
    assert rates[3] == pytest.approx(2**-0.7, rel=0.1)
    assert np.isnan(rates[[1, 2, 4]]).all(), "at rest, too slow to matter, and scored long before the end"
    assert np.isnan(shrinkage(trained, np.full((1, 50), np.nan), np.array([49]))).all()


@pytest.fixture(scope="module")
def compared():
    """The trap and a cure on degenerate and on skewed data, in few steps."""

    def compare(x, steps):
        data = zoo.Data.from_array(x)
        runs = []
        for name in ("gaussian-learned", "gaussian-constrained"):
            options = {"hidden": (32,), "latent_dim": 2}
            pair = zoo.create(name, data, **options)
            run = zoo.fit(pair, data, seeds=2, steps=steps, learning_rate=0.01, progress=False, on_divergence="warn")
            runs.append(zoo.evaluate(run, data, samples=100, temperatures=0))
        return zoo.compare(runs)

    return compare


@pytest.mark.filterwarnings("ignore::zoo.errors.DivergenceWarning")
def test_an_exact_function_of_another_column_wins_no_table(compared):
    rows = compared(fahrenheit(), 500)
    learned, cure = rows.loc["gaussian-learned"], rows.loc["gaussian-constrained"]
    assert learned["log_evidence"] > cure["log_evidence"], "the trap leads, or there would be nothing to see"
    assert pd.isna(learned["rank"])
    assert cure["rank"] == 1
    assert learned["verdict"].startswith(("not settled: its score is a matter of when it stopped", "ran away"))
    assert "an exact linear function of others" in learned["verdict"] or "ran away" in learned["verdict"]


def test_skewed_columns_are_no_collapse(compared):
    rows = compared(lognormal(), 600)  # a warning of the watch would be an error here
    assert rows.loc["gaussian-learned", "rank"] == 1
    assert rows.loc["gaussian-constrained", "verdict"].startswith("worse than gaussian-learned")
