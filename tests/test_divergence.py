"""The watch: when it rings while a pair trains, when it does not, and what it says."""

import warnings

import numpy as np
import pytest

import zoo
from zoo.divergence import ALARM, Watch
from zoo.errors import Diverged, DivergenceWarning

QUIET = {"progress": False}
ALIVE = np.array([True])


def made(x, **options):
    return zoo.Data.from_array(x, name="made up", **options)


def watching(data, name="gaussian-learned"):
    return Watch(zoo.create(name, data), [0], data.train.values)


def rings(watch, relative, *, elbo=None, column=0, median=1.0):
    """At which checks, a hundred steps apart, the alarm rings: one column's scales relative to its spread."""
    elbo = [0.0] * len(relative) if elbo is None else elbo  # at its best at once
    at, median = np.full((1, len(watch.spread)), -1), np.full((1, len(watch.spread)), median)
    scales = np.tile(watch.spread, (len(relative), 1))
    scales[:, column] *= relative
    return [
        bool(watch.alarms(100 * i, np.array([e]), scale[None], median * watch.spread, at, alive=ALIVE)[0])
        for i, (scale, e) in enumerate(zip(scales, elbo, strict=True), 1)
    ]


SHRINKING, CLIMBING = ALARM / np.arange(2.0, 10), np.arange(8.0)


@pytest.fixture(scope="module")
def continuous():
    return made(np.random.default_rng(0).normal(size=(200, 3)))


def test_the_alarm_wants_a_scale_that_is_small_and_falling(iris):
    a = ALARM
    assert rings(watching(iris), [a / 2, a / 3, a / 4, a / 5]) == [False, False, False, True]
    assert rings(watching(iris), [a / 2] * 5) == [False] * 5
    assert rings(watching(iris), [a / 2, a / 4, a / 3, a / 5, a / 4, a / 6]) == [False] * 6
    assert rings(watching(iris), [9 * a, 8 * a, 7 * a, 6 * a, 5 * a]) == [False] * 5
    assert rings(watching(iris), [a / 2, a / 3, a / 4, a / 5, a / 6]).count(True) == 1


def test_a_column_of_which_the_rows_it_is_given_hold_nothing_has_its_deviation_for_a_spread(continuous):
    x = continuous.train.values[:50].copy()
    x[:, 1] = np.nan
    watch = Watch(zoo.create("gaussian-learned", continuous), [0], x)
    assert watch.spread[1] == pytest.approx(1) and watch.repeats_below[1] == 0
    np.testing.assert_allclose(watch.spread, watching(continuous).spread, rtol=0.3)


def test_a_bounded_pair_is_not_watched(iris):
    assert not any(rings(watching(iris, "gaussian-constrained"), SHRINKING))


def test_held_out_evidence_that_follows_keeps_the_alarm_silent(continuous):
    assert not any(rings(watching(continuous), SHRINKING, elbo=CLIMBING))
    assert any(rings(watching(continuous), SHRINKING, elbo=-CLIMBING))
    assert any(rings(watching(continuous), SHRINKING, elbo=CLIMBING, median=ALARM / 2)), "it collapses everywhere"
    best_third = [0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0]  # at step 300, two thirds ago from step 1,000 on
    assert rings(watching(continuous), ALARM / np.arange(2.0, 14), elbo=best_third).index(True) == 9


@pytest.mark.parametrize("kind", ["constant", "dependent", "mostly zero", "copies of a row"])
def test_on_degenerate_data_held_out_evidence_is_not_asked(kind):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(400, 3))
    if kind == "constant":
        x[:, 0] = 1
    elif kind == "mostly zero":
        x[:, 0] *= rng.random(400) < 0.1
    elif kind == "copies of a row":
        x[100:150] = x[0]
    elif kind == "dependent":
        x[:, 0] = 32 + 1.8 * x[:, 1]
    watch = watching(made(x, split="rows"))
    assert any(rings(watch, SHRINKING, elbo=CLIMBING))


def test_spread_is_the_standard_deviation_of_normal_data_and_not_moved_by_a_tail():
    z = np.random.default_rng(0).normal(size=4000)
    data = made(np.column_stack([z, np.exp(2 * z)]), scaling="none")
    normal, skewed = watching(data).spread
    assert normal == pytest.approx(1, rel=0.1)
    # the shortest half of a lognormal is the lower one but for a part of its left tail: about the median, 1
    assert skewed == pytest.approx(1 / 1.349, rel=0.1)
    assert data.train_std[1] > 20


def test_the_shortest_half_is_the_shortest_of_all_intervals_with_half_of_the_values():
    from zoo.divergence import _shortest_half

    x = np.random.default_rng(0).gamma(0.5, size=25)
    every = [hi - lo for lo in x for hi in x if hi >= lo and ((x >= lo) & (x <= hi)).sum() >= 13]
    assert _shortest_half(np.sort(x)) == min(every)


def test_a_value_that_repeats_stands_out_at_scales_at_which_little_else_is_seen():
    from zoo.divergence import _repeats_below

    def share_of(value, x, scale):
        """Of the kernel's weight at a value, how much comes from the very value."""
        weight = np.exp(-(((x - value) / scale) ** 2) / 2)
        return weight[x == value].sum() / weight.sum()

    rng = np.random.default_rng(0)
    x = np.sort(np.concatenate([rng.normal(size=500), np.full(40, 0.3)]))
    scale = _repeats_below(x)
    assert 0.02 < scale < 0.1
    assert share_of(0.3, x, scale) > 0.5 > share_of(0.3, x, 3 * scale)
    assert _repeats_below(np.sort(rng.normal(size=500))) == 0
    assert _repeats_below(np.zeros(9)) == np.inf
    assert _repeats_below(np.repeat([0.0, 1.0], 50)) == np.inf
    rounded = np.sort(rng.normal(size=500).round(1))
    assert 0 < _repeats_below(rounded) <= 0.1, "a grid's values stand out below its width alone"


def lognormal(rows=1500):
    """Four columns exp(2.5 w_j z + 0.3 e_j), and the true standard deviation of each value given z."""
    rng = np.random.default_rng(0)
    centre = np.exp(2.5 * rng.normal(size=(rows, 1)) * np.array([1.0, 0.8, -1.0, 1.2]))
    relative = np.sqrt(np.exp(0.09) - 1) * np.exp(0.045)
    return made(centre * np.exp(0.3 * rng.normal(size=centre.shape)), labels=None), centre * relative


def test_scales_that_fall_to_those_of_a_lognormal_truth_ring_no_alarm():
    data, true = lognormal()
    assert (true / data.train_std < ALARM).mean() > 0.5, "below what a standard deviation would have allowed"
    watch = watching(data)
    goal = true[data.validation["obs"].values].min(0) / data.scaling.scale
    steps = np.arange(40, 2001, 40)
    path = goal * (1 + 1000 * np.exp(-steps / 150))[:, None]
    at = np.full((1, 4), -1)
    elbo = -np.exp(-steps / 800)
    assert (np.diff(path, axis=0) < 0).all()
    assert not any(
        watch.alarms(step, np.array([e]), scale[None], np.ones((1, 4)), at, alive=ALIVE)[0]
        for step, scale, e in zip(steps, path, elbo, strict=True)
    )


def test_a_pair_that_learns_lognormal_data_is_left_in_peace():
    data, _ = lognormal(600)
    with warnings.catch_warnings():
        warnings.simplefilter("error", DivergenceWarning)
        run = zoo.fit(
            zoo.create("gaussian-learned", data, hidden=(32,)), data, seeds=1, steps=500, learning_rate=0.01, **QUIET
        )
    elbo, scale = (run.tree["validation"][name].values[0] for name in ("elbo", "column_scale"))
    relative = (scale / (data.train_std / data.scaling.scale)).min(1)
    falling = np.lib.stride_tricks.sliding_window_view(np.diff(relative), 3).max(1) < 0
    assert (falling & (relative[3:] < ALARM)).any(), "against standard deviations it would have looked like a collapse"
    assert elbo[-5:].mean() > elbo[:25].max(), "it learns"


def test_learned_variance_on_digits_runs_away_and_the_warning_names_the_cause(digits):
    pair = zoo.create("gaussian-learned", digits)
    with pytest.warns(DivergenceWarning) as caught:
        run = zoo.fit(pair, digits, seeds=2, steps=800, on_divergence="stop", **QUIET)
    said = " ".join(str(w.message) for w in caught)
    assert "gaussian-learned runs away at step" in said
    assert "constant columns" in said and "pixel_" in said
    assert "gaussian-constrained" in said
    at = run.tree["optimization"]["ran_away_at"].values
    assert (at > 0).all()
    assert run.tree["optimization"]["stopped_at"].values.tolist() == at.tolist()
    with pytest.raises(Diverged, match="runs away"):
        zoo.fit(pair, digits, seeds=1, steps=800, on_divergence="raise", **QUIET)


@pytest.mark.parametrize("name", ["gaussian-constrained", "gaussian-identity", "gmm-constrained"])
def test_bounded_pairs_do_not_run_away_on_digits(digits, name):
    with warnings.catch_warnings():
        warnings.simplefilter("error", DivergenceWarning)
        run = zoo.fit(zoo.create(name, digits), digits, seeds=1, steps=200, **QUIET)
    assert (run.tree["optimization"]["ran_away_at"] == -1).all()


def test_learned_variance_on_benign_data_is_left_in_peace():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(600, 2)) @ rng.normal(size=(2, 6)) + 0.5 * rng.normal(size=(600, 6))
    data = zoo.Data.from_array(x, name="two factors in six columns")
    with warnings.catch_warnings():
        warnings.simplefilter("error", DivergenceWarning)
        zoo.fit(zoo.create("gaussian-learned", data, latent_dim=2), data, seeds=2, steps=1500, **QUIET)


def test_a_scale_is_measured_against_its_own_columns_spread():
    rng = np.random.default_rng(0)
    data = zoo.Data.from_array(rng.normal(size=(200, 2)) * [1, 1e-3], name="narrow", scaling="scalar")
    assert not any(rings(watching(data), [1.0, 0.9, 0.8, 0.7], column=1))


def test_few_checks_do_not_blind_the_watch(digits):
    with pytest.warns(DivergenceWarning, match="runs away"):
        zoo.fit(zoo.create("gaussian-learned", digits), digits, seeds=1, steps=800, checks=2, **QUIET)


def told(watch, relative):
    """The message of a watch, on seed 7, when the second column's scale has gone down these steps."""
    watch.seeds, obs = [7], np.array([[3, 14, 15, 92]])
    for step, scale in zip((100, 200, 300, 400), relative, strict=True):
        scales = watch.spread * np.array([1.0, scale, 1.0, 1.0])
        alarmed = watch.alarms(step, np.zeros(1), scales[None], np.ones((1, 4)), obs, alive=ALIVE)
    assert alarmed.tolist() == [True]
    return watch.message(alarmed)


def test_the_message_tells_the_datum_the_pace_and_why_validation_was_or_was_not_asked():
    x = np.random.default_rng(0).normal(size=(200, 4))
    scales = (0.04, 0.02, 0.01, 0.005 * 0.9)
    message = told(watching(made(x)), scales)
    assert "step 400 (seed 7)" in message
    assert "on columns x1, smallest at row 14; validation was best at step 100." in message
    assert "shrinking 2.1-fold in a hundred steps" in message  # (0.04 / 0.0045)^(1/3)
    x[:, 1] *= x[:, 0] > 1
    assert "on columns with values that repeat x1, smallest at row 14." in told(watching(made(x)), scales)
    x[:, 1] = 4
    assert "on constant columns x1, smallest at row 14." in told(watching(made(x)), scales)
