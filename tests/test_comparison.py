import inspect
import itertools
import json
import re
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from scipy.optimize import minimize
from scipy.stats import trim_mean, ttest_ind, ttest_rel
from scipy.stats.mstats import winsorize
from synthetic_runs import digits_runs, replace, synthetic_run

from zoo.comparison import across_splits, compare, elpd
from zoo.comparison.difference import Difference, Score
from zoo.comparison.weights import _best_mixture
from zoo.errors import RunError


def run(name, evidence, varying=None, bounded=True, **settings):
    """A run by its evidence, (seeds, data); of one seed alone, two that agree, so that nothing is open about seeds."""
    evidence, varying = (None if of is None else np.atleast_2d(np.asarray(of, float)) for of in (evidence, varying))
    evidence, varying = (of if of is None or len(of) > 1 else np.repeat(of, 2, axis=0) for of in (evidence, varying))
    return synthetic_run(
        name,
        evidence=evidence,
        varying=varying,
        seeds=len(evidence),
        obs=evidence.shape[1],
        steps=40,
        **{"bound": 0.0 if bounded else np.nan, "constant": [0] if varying is not None else []} | settings,
    )


def test_numbers_by_hand():
    table = compare([run("a", [[-1.0, -2.0, -6.0], [-3.0, -4.0, -8.0]]), run("b", [[-4.0, -4.0, -7.5]])])
    a, b = table.loc["a"], table.loc["b"]
    assert a["log_evidence"] == -4.0
    assert a["median"] == -3.0
    assert a["worst"] == -7.0
    assert a["seed_sd"] == pytest.approx(np.sqrt(2))  # seeds at -3 and -5
    assert a["se"] == pytest.approx(np.sqrt(7 / 3))  # -2, -3, -7: variance 7
    # paired to a's (-2, -3, -7): -2, -1, -0.5
    assert b["difference"] == pytest.approx(-3.5 / 3)
    assert b["difference_se"] == pytest.approx(np.std([-2, -1, -0.5], ddof=1) / np.sqrt(3))
    assert b["difference_seed_se"] == pytest.approx(1.0)  # sqrt(2) / sqrt(2), and none of b's
    assert list(table["rank"]) == [1, 2]
    assert a["verdict"] == "best"
    assert b["verdict"].startswith("cannot be told apart from a (difference -1.2 ± 1.1; 95 % interval ")
    assert b["seeds"] == "2/2"
    assert b["seed_sd"] == 0


def normal(count, mean=0.0, sd=1.0):
    """Numbers of exactly this mean and standard deviation."""
    values = np.random.default_rng(5).normal(size=count)
    return mean + sd * (values - values.mean()) / values.std(ddof=1)


def test_the_interval_over_data_is_that_of_the_paired_t_test():
    base = np.linspace(-9, 0, 30)
    for shift in (0.2, 0.36, 0.38, 0.8):
        worse = base - normal(30, shift)
        verdict = compare([run("a", base), run("b", worse)]).loc["b", "verdict"]
        told_apart = ttest_rel(base, worse).pvalue < 0.05
        assert verdict.startswith("worse than a" if told_apart else "cannot be told apart from a")
        interval = ttest_rel(worse, base).confidence_interval()
        assert told_apart or f"95 % interval {interval.low:.2f} to {interval.high:.2f})" in verdict


def test_the_interval_over_seeds_is_that_of_welch():
    rng = np.random.default_rng(2)
    for shift in (0.5, 2.0, 4.0, 8.0):
        of_a, of_b = rng.normal(0, 1, 3), rng.normal(-shift, 2, 4)
        level = normal(40, -50, 9)  # the same for both: nothing is open about the data
        table = compare([run("a", level + of_a[:, None]), run("b", level + of_b[:, None])])
        welch = ttest_ind(of_a, of_b, equal_var=False)
        lower = table.iloc[1]
        assert table["difference_seed_se"].max() == pytest.approx(welch._standard_error)
        assert lower["verdict"].startswith("worse than") == (welch.pvalue < 0.05)


def test_seeds_that_differ_leave_a_difference_open():
    level = normal(40, 0, 0.05)
    a, b = run("a", level - np.array([[10.0], [10.0]])), run("b", level - np.array([[5.0], [17.0]]))
    table = compare([a, b])
    assert table.loc["b", "difference"] == pytest.approx(-1.0)
    assert table.loc["b", "difference_seed_se"] == pytest.approx(6.0)
    assert table.loc["b", "verdict"].startswith("cannot be told apart from a (difference -1.0 ± 6.0; 95 % interval -77")


@pytest.mark.parametrize("seeds", [2, 4, 8])
def test_a_pair_is_rarely_told_apart_from_itself(seeds):
    rng = np.random.default_rng(seeds)
    called = 0
    for _ in range(1000):
        level, effect = rng.normal(0, 3, 50), rng.normal(0, 0.2, (2, seeds, 1))
        one, other = (Score.of_seeds(level + of + rng.normal(0, 0.5, (seeds, 50))) for of in effect)
        called += Difference.between(one, other).beyond_noise or Difference.between(other, one).beyond_noise
    assert called <= 60  # in 1,000; by the data alone more than 600 are


def test_a_single_seed_says_so():
    one = replace_seeds(run("b", normal(40, -3)), 1)
    table = compare([run("a", normal(40, 0)), one])
    assert table.loc["a", "verdict"] == "best"
    assert table.loc["b", "verdict"] == "worse than a by 3.000 ± 0.000; seeds were not repeated"
    assert table.loc["b", "difference_seed_se"] == 0  # what is known of a's
    assert np.isnan(compare([replace_seeds(run("a", normal(40, 0)), 1), one]).loc["b", "difference_seed_se"])


def replace_seeds(tree, count):
    """The same run with its first seeds alone."""
    groups = {name: group.to_dataset() for name, group in tree.children.items()}
    few = {name: group.isel(chain=slice(count), missing_dims="ignore") for name, group in groups.items()}
    return xr.DataTree.from_dict(few | {"/": xr.Dataset(attrs=tree.attrs)})


def test_the_jackknife_knows_how_much_an_ensemble_depends_on_its_seeds():
    rng = np.random.default_rng(0)
    many = rng.normal(-5, 1, (400, 1)) + rng.normal(0, 0.1, (400, 50))  # seeds of one kind
    of_eight = [Score.of_seeds(many[i : i + 8], ensemble=True) for i in range(0, 400, 8)]
    spread = np.std([score.values.mean() for score in of_eight], ddof=1)
    told = np.sqrt(np.mean([score.seed_variance for score in of_eight]))
    assert told == pytest.approx(spread, rel=0.35)
    means = Score.of_seeds(many[:8])
    assert means.seed_variance == pytest.approx(many[:8].mean(1).var(ddof=1) / 8)


def test_one_row_does_not_hide_what_all_others_say():
    paired = normal(280, 0.31, 0.3)
    wild = paired.copy()
    wild[5] = 7000.0
    table = compare([run("a", np.zeros(280)), run("b", -wild)])
    verdict = table.loc["b", "verdict"]
    assert verdict.startswith(f"worse than a on {(wild > 0).sum()} of 280 test rows, by 0.3")
    assert "in the trimmed mean; the mean difference, -25 ± 25, is decided by row 5 (-7,000.0 nats there)" in verdict
    # the other way round, one row makes the better pair come second
    turned = wild * np.where(np.arange(280) == 5, 1, -1)
    table = compare([run("a", np.zeros(280)), run("b", -turned)])
    assert table.loc["b", "verdict"].startswith("better than a on ")
    assert table.loc["a", "verdict"].startswith("the highest mean, by one row: on most rows b is better")
    even = np.where(np.arange(280) == 5, 7000.0, normal(280, 0.0, 0.3))
    assert compare([run("a", np.zeros(280)), run("b", -even)]).loc["b", "verdict"].startswith("cannot be told apart")


def test_the_trimmed_mean_is_yuens():
    one, other = (np.random.default_rng(seed).standard_t(2, 60) for seed in (0, 1))
    found = Difference.between(Score.of_seeds(one[None]), Score.of_seeds(other[None]), trim=0.05)
    paired = one - other
    winsorised = winsorize(paired, (0.05, 0.05))
    assert found.mean == pytest.approx(trim_mean(paired, 0.05))
    assert found.over_data == pytest.approx(np.std(winsorised, ddof=1) / 0.9 / np.sqrt(60))
    assert found.freedom == 53


def test_a_wild_test_row_is_named_with_its_column():
    evidence = normal(60, -3, 0.5)
    evidence[7] = -4e9
    tree = run("a", evidence)
    tree["heldout"] = (
        tree["heldout"].to_dataset().assign(farthest_column=("obs", [20] * 60), farthest=("obs", [1e6] * 60))
    )
    verdict = compare([tree, run("b", normal(60, -5))]).loc["a", "verdict"]
    assert (
        "row 7 (column pixel_2_4: 1e+06 standard deviations from the training mean) moves its mean by -6.7e7 nats"
        in verdict
    )
    assert "its median is -3." in verdict


def test_titles_are_unique():
    same = {"title": "Student-t"}
    table = compare([run("one", [[0.0, 0.0]], **same), run("two", [[0.0, 1.0]], **same), run("three", [[1.0, 1.0]])])
    assert sorted(table["title"]) == ["Student-t (one)", "Student-t (two)", "three"]


@pytest.mark.parametrize("level", [0.0, -900.0])
def test_stacking_weights_are_those_of_a_direct_optimisation(level):
    rng = np.random.default_rng(3)
    points = level + rng.normal(0, 1.0, (3, 80)) + np.array([[0.2], [0.0], [-0.4]])
    table = compare([run(name, row) for name, row in zip("abc", points, strict=True)])

    shifted = np.exp(points - points.max(0))

    def loss(free):  # softmax, so no constraint can be at fault
        weights = np.exp(np.append(free, 0.0))
        return -np.log(weights / weights.sum() @ shifted).sum()

    best = np.exp(np.append(minimize(loss, np.zeros(2), tol=1e-12).x, 0.0))
    np.testing.assert_allclose(table.loc[list("abc"), "weight"], best / best.sum(), atol=2e-3)
    np.testing.assert_allclose(_best_mixture(points - points.max(0)), best / best.sum(), atol=2e-3)
    assert table["weight"].sum() == pytest.approx(1)


def test_weights_survive_a_pair_that_is_thousands_of_nats_behind_on_one_datum():
    rng = np.random.default_rng(0)
    good, other = rng.normal(-100, 1, (2, 50))
    other[7] = -21_000.0
    weights = compare([run("good", good), run("other", other)])["weight"]
    assert 0.3 < weights["good"] < 0.9
    assert weights.sum() == pytest.approx(1)


def test_a_run_that_ran_away_is_listed_apart_and_says_why():
    table = compare(digits_runs(steps=60, obs=40))
    row = table.loc["gaussian-learned"]
    assert row["log_evidence"] == table[table["table"] == "density, digits"]["log_evidence"].max()
    assert pd.isna(row["rank"])
    assert np.isnan(row["weight"])
    assert np.isnan(row["difference"])
    for words in (
        "ran away: decoder scale",
        "pixel_0_0, pixel_1_0, pixel_2_0 and 5 more (constant in training)",
        "; constant columns gave +95.0 nats, the others -1",
        "unranked",
    ):
        assert words in row["verdict"]
    density = table[table["table"] == "density, digits"]
    assert list(density["rank"].dropna()) == [1, 2, 3]
    assert list(density.index)[-1] == "gaussian-learned"
    assert density["weight"].sum() == pytest.approx(1)


def test_a_lead_that_comes_from_constant_columns_is_listed_apart():
    table = compare(
        [
            run("led by constants", [[10.5, 11.5]], [[-5.5, -4.5]]),  # 11 in all, -5 honestly
            run("honest", [[5.0, 6.0]], [[1.0, 2.0]]),
            run("best on both", [[8.0, 9.0]], [[2.0, 3.0]]),  # a bounded pair that leads on both is ranked
        ]
    )
    assert list(table.index) == ["best on both", "honest", "led by constants"]
    assert list(table["rank"].fillna(0)) == [1, 2, 0]
    assert table.loc["led by constants", "verdict"] == (
        "leads honest by 5.5 nats only through the columns constant in training (constant columns gave +16.0 nats, "
        "the others -5.0); without them it is 6.5 behind; unranked"
    )
    assert table.loc["honest", "share_constant"] == 4.0


NOISE = np.array([3e-7, -2e-7, 4e-7, 1e-7])  # what float32 leaves behind


@pytest.mark.parametrize("noise", [NOISE, NOISE * 0 + 1e-6, np.array([1.0, -0.9, 0.8, -0.7])])
def test_nothing_is_decided_by_noise(noise):
    rows = [run("a", -5 + noise, -5 - noise), run("b", np.full(4, -5.0), np.full(4, -5.0), bounded=False)]
    for table in (compare(rows), compare(rows[::-1])):
        assert table["rank"].notna().all()
        assert "cannot be told apart from a (difference" in table.loc["b", "verdict"]
        assert not re.search(r"-0\.0+ ", table.loc["b", "verdict"])


def test_a_datum_without_any_probability_is_named():
    values = np.full(30, -5.0)
    values[[7, 9]] = -np.inf
    verdicts = compare([run("a", [values], [values]), run("b", np.full((1, 30), -6.0), np.full((1, 30), -6.0))])[
        "verdict"
    ]
    assert "row 7, and 1 more, scored minus infinity, and so did the mean" in verdicts["a"]
    assert "infinity" not in verdicts["b"]


def test_one_datum_decides_nothing():
    table = compare([run("a", [[9.0]], [[-9.0]], bounded=False), run("b", [[1.0]], [[1.0]])])
    assert table.loc["a", "verdict"].startswith("best")
    assert table.loc["b", "verdict"] == "cannot be told apart from a: one test datum"


@pytest.mark.parametrize(
    ("worse", "told"),
    [
        ((1.0, 0.0), "worse than a by 1.000 ± 0.000"),
        ((0.319198, 0.00033), "worse than a by 0.319 ± 0.000"),
        ((0.319198, 0.33), "worse than a by 0.319 ± 0.033"),
        ((4_000.0, 9_900.0), "worse than a by 4,000 ± 990"),
        ((2.74e21, 1e20), "worse than a by 2.7e21 ± 1.0e19"),
        ((0.009, 0.0), "cannot be told apart from a (difference -0.009 ± 0.000; less than 0.01 nats is rounding)"),
        ((0.005, 15.0), "cannot be told apart from a (difference 0.0 ± 1.5; 95 % interval -3.0 to 3.0)"),
    ],
)
def test_differences_have_the_digits_they_need(worse, told):
    better, mean_and_sd = np.zeros(100), worse
    assert compare([run("a", better), run("b", -normal(100, *mean_and_sd))]).loc["b", "verdict"] == told


def test_an_unbounded_pair_does_not_win_through_constant_columns():
    rows = [
        run("better", [[10.0, 11.0]], [[2.0, 3.0]], bounded=False),  # leads good by 6, 5 of them constant
        run("good", [[4.0, 5.0]], [[1.0, 2.0]], bounded=False),  # leads honest by 2, all of them constant
        run("honest", [[2.0, 3.0]], [[1.0, 2.0]]),
    ]
    verdicts = compare(rows)["verdict"]
    assert verdicts["honest"] == "best"
    assert verdicts["better"] == (
        "most of its lead of 6.0 nats, 5.0, comes from columns constant in training; unranked"
    )
    assert verdicts["good"] == "all of its lead of 2.0 nats comes from columns constant in training; unranked"


def test_a_lead_that_constant_columns_helped_says_so():
    for given, said in ((5.0, "; 5.0 of its lead come from constant columns"), (0.04, "")):
        rows = [run("bounded", [[10.0 + given, 11.0 + given]], [[9.0, 10.0]]), run("next", [[5.0, 6.0]], [[4.0, 5.0]])]
        assert compare(rows).loc["bounded", "verdict"] == "best" + said
    second = [run("top", [[30.0, 31.0]], [[30.0, 31.0]]), *rows]
    assert compare(second).loc["bounded", "verdict"].startswith("worse than top")
    assert "of its lead over next" not in compare(second).loc["bounded", "verdict"]  # 0.04 of it
    second[1] = run("bounded", [[11.0, 12.0]], [[9.0, 10.0]])
    assert compare(second).loc["bounded", "verdict"].endswith("; 1.0 of its lead over next come from constant columns")
    less_than_half = [run("a", [[9.0, 10.0]], [[7.0, 8.0]], bounded=False), run("b", [[4.0, 5.0]], [[4.0, 5.0]])]
    assert compare(less_than_half).loc["a", "verdict"] == "best; 2.0 of its lead come from constant columns"
    every_column = [run("a", [[9.0, 10.0]], [[0.0, 0.0]]), run("b", [[4.0, 5.0]], [[0.0, 0.0]])]
    assert compare(every_column).loc["a", "verdict"] == "best; all of its lead comes from constant columns"


def test_weights_of_the_first_checks_are_remarked_on():
    steps = run("a", [[0.0, 1.0]])["validation"]["step"].values
    told = []
    for best in ([steps[1], steps[1]], [steps[0], steps[-1]], [steps[2], steps[2]]):
        tree = run("a", [[0.0, 1.0], [0.0, 1.0]])
        replace(tree, "optimization", "best_step", np.array(best))
        told.append(compare([tree, run("b", [[-5.0, -5.0]])]).loc["a", "verdict"])
    assert told == [
        f"best; scored at step {steps[1]} of 40: it only got worse after that",
        f"best; 1 of 2 seeds scored at step {steps[0]} of 40: it only got worse after that",
        "best",
    ]


def traced(name, elbo, **settings):
    """A run whose validation ELBO went like this, in two seeds."""
    tree = run(name, [[0.0, 1.0]], **settings)
    checks = tree["validation"].sizes["check"]
    curve = np.interp(np.linspace(0, 1, checks), np.linspace(0, 1, len(elbo)), elbo)
    replace(tree, "validation", "elbo", np.tile(curve, (2, 1)))
    steps = tree["validation"]["step"].values
    replace(tree, "optimization", "best_step", np.full(2, steps[curve.argmax()]))
    return tree


def test_a_row_that_was_still_improving_says_so():
    rising, settled = traced("a", [-120, -112, -105]), traced("b", [-120, -105, -105, -104.97, -104.95])
    verdicts = compare([rising, settled, traced("c", [-120, -100, -130])])["verdict"]
    assert verdicts["a"].endswith('; still improving: train longer (--steps auto, or steps="auto" in Python)')
    assert not [name for name in "bc" if "improving" in verdicts[name]]


def test_an_unbounded_row_whose_scale_shrinks_is_not_ranked_beside_bounded_ones():
    tree = run("a", [[9.0, 9.0]], bounded=False, images=False, constant=[1])
    checks = tree["validation"]["step"].values
    scales = np.full((2, len(checks), 13), 0.5)
    scales[..., 1] = 1 / checks
    replace(tree, "validation", "column_scale", scales)
    replace(tree, "optimization", "best_step", checks[[-1, -1]])
    table = compare([tree, run("b", [[5.0, 5.0]], images=False)])
    assert pd.isna(table.loc["a", "rank"]) and table.loc["b", "rank"] == 1
    assert "not settled: its scale on column 1, where the data are degenerate" in table.loc["a", "verdict"]
    assert "unranked" in table.loc["a", "verdict"]
    assert table.loc["a", "verdict"].count("not settled") == 1
    table = compare([tree, run("b", [[5.0, 5.0]], bounded=False, images=False)])
    assert table.loc["a", "rank"] == 1, "no bounded row beside it"
    assert "so its score depends on when it stopped" in table.loc["a", "verdict"]
    replace(tree, "validation", "column_scale", np.full((2, len(checks), 13), 0.5))
    assert compare([tree, run("b", [[5.0, 5.0]], images=False)]).loc["a", "rank"] == 1, "a scale at rest"


def test_a_variance_that_is_one_in_scaled_units_says_so():
    tree = run("a", [[0.0, 0.0]], images=False)
    tree.attrs["card"] = json.dumps(
        json.loads(tree.attrs["card"]) | {"in_scaled_units": "one variance for all columns"}
    )
    verdict = compare([tree, run("b", [[-5.0, -5.0]], images=False)]).loc["a", "verdict"]
    assert (
        verdict
        == 'best; one variance for all columns in scaled units: scaling="scalar" leaves the columns in proportion'
    )


def test_zero_has_no_sign():
    table = compare(run("a", [[4.0, 5.0]], [[4.01, 5.01]], ran_away=True))
    assert "constant columns gave +0.0 nats, the others 4.5" in table.loc["a", "verdict"]


def test_a_run_that_ran_away_sets_no_other_row_apart():
    runaway = run("runaway", [[-50.0, -50.0]], [[9.0, 9.0]], ran_away=True)
    table = compare([runaway, run("honest", [[5.0, 5.0]], [[1.0, 1.0]])])
    assert table.loc["honest", "rank"] == 1
    assert pd.isna(table.loc["runaway", "rank"])


@pytest.mark.parametrize("seed", range(12))
def test_ranked_rows_are_in_the_same_order_on_both_scores(seed):
    scores = np.random.default_rng(seed).integers(-3, 4, (2 + seed % 4, 2)).tolist()  # small range: ties too
    table = compare([run(f"p{i}", [[t, t + 1.0]], [[v, v + 1.0]]) for i, (t, v) in enumerate(scores)])
    ranked = [scores[int(name[1:])] for name in table.index[table["rank"].notna()]]
    apart = [scores[int(name[1:])] for name in table.index[table["rank"].isna()]]
    assert ranked
    for (t, v), (t_next, v_next) in itertools.pairwise(ranked):
        assert t >= t_next
        assert v >= v_next
    for t, v in apart:  # it would stand above one that is better without the constant columns
        assert any(t >= t_ranked and v < v_ranked for t_ranked, v_ranked in ranked)


def test_tables_are_never_mixed():
    table = compare(
        [
            run("density", [[-1.0, -2.0]]),
            run("mass", [[-9.0, -9.0]], base_measure="mass"),
            run("elsewhere", [[-5.0, -5.0]], data_fingerprint="beef" * 4),
        ]
    )
    assert list(table["rank"]) == [1, 1, 1]
    assert (table["difference"] == 0).all()
    assert (table["weight"] == 1).all()
    assert table["table"].nunique() == 3
    assert set(table["verdict"]) == {"alone in its table: nothing to rank it against"}


def test_a_table_is_named_once_and_unmistakably():
    digits = "digits (dequantized)"
    tables = [
        run(name, [[0.0, 1.0]], data=digits, data_fingerprint=print_) for name, print_ in (("a", "f00"), ("b", "bad"))
    ]
    assert list(compare(tables[0])["table"]) == ["density, digits (dequantized)"]
    assert sorted(compare(tables)["table"]) == [f"density, digits (dequantized) [{f}]" for f in ("bad", "f00")]


def test_frozen_seeds_are_not_scored():
    table = compare([run("a", [[-1.0, -1.0], [np.nan, -500.0]], frozen=(1,)), run("b", [[-2.0, -2.0]])])
    assert table.loc["a", "log_evidence"] == -1.0
    assert table.loc["a", "seeds"] == "1/2"
    all_frozen = compare(run("a", [[-1.0, -1.0]], frozen=(0, 1)))
    assert all_frozen.loc["a", "verdict"] == "not scored: every seed was frozen"


def test_not_evaluated_is_listed_apart():
    table = compare([synthetic_run(evaluated=False), synthetic_run("gmm", constant=[])])
    assert table.loc["gaussian-identity", "verdict"] == "not evaluated"
    assert table.loc["gmm", "rank"] == 1


@pytest.mark.parametrize("seed", range(12))
def test_values_that_are_not_finite_do_not_crash(seed):
    values = np.random.default_rng(seed).choice([-1.0, -3.0, -1e300, np.nan, np.inf, -np.inf], (1 + seed % 3, 4))
    table = compare([run(f"p{i}", row, row[::-1]) for i, row in enumerate(values)])
    assert len(table) == len(values)
    assert table["verdict"].str.len().gt(0).all()
    for i, row in enumerate(values):
        if np.isnan(row).any() or (row == np.inf).any():
            assert "is not a number" in table.loc[f"p{i}", "verdict"]


def test_a_datum_without_probability_ranks_last():
    table = compare([run("a", [[-1.0, -np.inf]]), run("b", [[-90.0, -80.0]])])
    assert list(table.index) == ["b", "a"]
    told = "worse than b: gives some test datum no probability at all; row 1 scored minus infinity, and so did the mean"
    assert table.loc["a", "verdict"] == told


def test_twins_are_told_apart_by_their_options():
    coarse, fine = (run("gmm", [[-level, -level]], options={"components": level}) for level in (5, 10))
    assert list(compare([coarse, fine]).index) == ["gmm (components=5)", "gmm (components=10)"]
    assert list(compare([coarse, fine])["title"]) == ["gmm (components=5)", "gmm (components=10)"]
    assert sorted(compare([coarse, coarse]).index) == ["gmm #1", "gmm #2"]


def test_bad_k_counts_the_worst_seed():
    tree = run("a", np.full((2, 3), -1.0))
    replace(tree, "heldout", "pareto_k", np.array([[0.1, 0.71, 0.2], [0.9, 1.2, -np.inf]]))
    row = compare(tree).loc["a"]
    assert row["bad_k"] == 2
    assert not row["exact"]


def test_an_unknown_k_is_not_a_good_one():
    tree = run("a", np.full((2, 3), -1.0))
    replace(tree, "heldout", "pareto_k", np.full((2, 3), np.nan))
    row = compare(tree).loc["a"]
    assert pd.isna(row["bad_k"])
    assert not row["exact"]


def test_sources_of_every_kind(tmp_path):
    tree = run("a", [[-1.0, -2.0]])
    (tmp_path / "a").mkdir()
    tree.to_netcdf(tmp_path / "a" / "run.nc", engine="h5netcdf")

    class Run:
        def __init__(self, tree):
            self.tree = tree

    expected = compare(tree)
    for source in (
        Run(tree),
        [tree],
        tmp_path / "a",
        str(tmp_path / "a" / "run.nc"),
        (source for source in [tree]),
    ):
        pd.testing.assert_frame_equal(compare(source), expected)


def test_mistakes_are_answered_in_words(tmp_path):
    with pytest.raises(RunError, match="nothing"):
        compare(tmp_path / "absent")
    with pytest.raises(RunError, match=r"found 0 \.nc files"):
        compare(tmp_path)
    (tmp_path / "broken.nc").write_text("not netCDF")
    with pytest.raises(RunError, match="not the netCDF file of a run"):
        compare(tmp_path / "broken.nc")
    with pytest.raises(RunError, match="no runs"):
        compare([])
    with pytest.raises(RunError, match="not a run: int"):
        compare([3])
    with pytest.raises(RunError, match=r"base_measure.*missing"):
        compare(xr.DataTree(xr.Dataset(attrs={"pair": "a"})))
    with pytest.raises(RunError, match="a on 3 of 3, b on 2 of 2"):
        compare([run("a", [[1.0, 2.0, 3.0]]), run("b", [[1.0, 2.0]])])


def test_neither_torch_nor_pyro_is_imported():
    code = "import sys, zoo.comparison, zoo.reporting; sys.exit(bool({'torch', 'pyro'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# -- masses, ensembles, seeds that stray -------------------------------------------------------------------------------


def mass_run(name, mass, density=None, how="own", **settings):
    """A run on discrete data; the density is another number than the mass, and on another scale."""
    mass = np.repeat(np.atleast_2d(np.asarray(mass, float)), 2, axis=0)
    tree = run(name, mass if density is None else density, mass_fingerprint="cafe", **settings)
    group = tree["heldout"].to_dataset().assign(log_mass=(("chain", "obs"), mass))
    tree["heldout"] = xr.DataTree(group.assign_attrs(mass=how, mass_exact=0))
    return tree


def test_discrete_data_are_ranked_by_mass_whatever_the_pair_is_a_model_of():
    own = mass_run("categorical", [[-90.0, -91.0, -92.0]], base_measure="mass")
    binned = mass_run("gaussian", [[-100.0, -99.0, -98.0]], [[50.0, 60.0, 70.0]], how="binned")
    noisy = mass_run("gmm", [[-120.0, -119.0, -122.0]], [[10.0, 0.0, 5.0]], how="dequantized", data="digits with noise")
    table = compare([noisy, binned, own])
    assert table["table"].nunique() == 1
    assert table["table"].iloc[0].startswith("mass, ")
    assert list(table.index) == ["categorical", "gaussian", "gmm"]
    assert list(table["log_evidence"]) == [-91.0, -99.0, pytest.approx(-361 / 3)]
    assert list(table["scored_as"]) == [
        "mass, lower bound",
        "binned mass, lower bound",
        "dequantized mass, lower bound",
    ]
    assert list(table["log_density"].round(9)) == [pytest.approx(np.nan, nan_ok=True), 60.0, 5.0]
    assert table.loc["gaussian", "bits_per_dim"] == pytest.approx(99 / (64 * np.log(2)))
    assert table["share_constant"].isna().all()


def test_a_density_that_ran_away_is_ranked_by_its_mass_and_says_so():
    safe, sick = mass_run("a", [[-5.0, -6.0]]), mass_run("b", [[-7.0, -8.1]], ran_away=True)
    table = compare([safe, sick])
    assert list(table["rank"]) == [1, 2]
    assert "; its density ran away: decoder scale" in table.loc["b", "verdict"]
    assert "unranked" not in table.loc["b", "verdict"]


def test_an_ensemble_is_a_row_of_its_own_and_the_log_of_the_mean_density():
    seeds = np.log([[0.1, 0.3], [0.5, 0.1], [0.3, 0.2]])
    table = compare([run("a", seeds), replace_seeds(run("b", seeds[:1]), 1)], ensembles=True)
    assert list(table.index) == ["a (ensemble of 3)", "a", "b"]
    assert table["log_evidence"].iloc[0] == pytest.approx(np.mean(np.log([0.3, 0.2])))
    assert np.isnan(table["seed_sd"].iloc[0])
    assert list(compare([run("a", seeds)]).index) == ["a"]


def test_one_bad_seed_cannot_hide_in_a_mean():
    rng = np.random.default_rng(0)
    seeds = -100 + rng.normal(0, 5, 40) + rng.normal(0, 0.3, (4, 40)) + np.array([0.1, 0.0, -9.0, 0.2])[:, None]
    row = compare([run("a", seeds)]).loc["a"]
    assert "seed 2 is 9." in row["verdict"]
    assert row["worst_seed"] == pytest.approx(seeds[2].mean())
    assert row["seed_disagreement"] == pytest.approx(seeds.std(0, ddof=1).mean())
    assert "seed" not in compare([run("a", np.delete(seeds, 2, axis=0))]).loc["a", "verdict"]


def test_bootstrap_errors_of_the_weights_follow_the_data():
    rng = np.random.default_rng(3)
    few, many = (rng.normal(0, 1.0, (2, count)) for count in (40, 1000))
    errors = [compare([run(*pair) for pair in zip("ab", points, strict=True)])["weight_se"] for points in (few, many)]
    assert (errors[0] > 2 * errors[1]).all()
    assert (errors[1] > 0).all()


def test_annealed_data_are_counted():
    tree = run("a", [[-1.0, -2.0], [-1.0, -2.5]])
    group = tree["heldout"].to_dataset().assign(method=(("chain", "obs"), [[1, 2], [1, 1]]))
    tree["heldout"] = xr.DataTree(group)
    assert compare([tree]).loc["a", "annealed"] == 1


def test_held_out_evidence_goes_through_arviz():
    import arviz_stats

    rng = np.random.default_rng(1)
    points = {"good": rng.normal(-1, 1, 50), "bad": rng.normal(-3, 1, 50)}
    # ArviZ 1 rounds unless told not to
    exactly = {"round_to": "none"} if "round_to" in inspect.signature(arviz_stats.compare).parameters else {}
    table = arviz_stats.compare({name: elpd(run(name, values)) for name, values in points.items()}, **exactly)
    assert list(table.index) == ["good", "bad"]
    paired = points["good"] - points["bad"]
    differences = table["elpd_diff"].astype(float).abs()
    assert differences["bad"] == pytest.approx(paired.sum(), rel=0.01)
    assert float(table["dse"].astype(float)["bad"]) == pytest.approx(np.sqrt(50) * paired.std(), rel=0.05)


def test_arviz_draws_the_comparison(tmp_path):
    import arviz_plots
    import arviz_stats

    rng = np.random.default_rng(1)
    heldout = {name: elpd(run(name, rng.normal(level, 1, 50))) for name, level in (("a", 0), ("b", -1))}
    collection = arviz_plots.plot_compare(arviz_stats.compare(heldout), backend="none")
    assert collection is not None


def test_the_error_over_splits_is_that_of_data_drawn_anew():
    """Over 4,000 data sets of 50 differences, of which each split tests a fifth."""
    rng = np.random.default_rng(0)
    found = []
    for _ in range(4000):
        differences = rng.normal(size=50)
        found.append(
            Difference.over_splits(np.array([rng.choice(differences, 10, replace=False).mean() for _ in "abcd"]))
        )
    squares = np.mean([one.error**2 for one in found])
    assert squares == pytest.approx(np.var([one.mean for one in found]), rel=0.08)


@pytest.mark.parametrize(("worst", "named"), [(-8.0, False), (-30.0, True)])
def test_a_seed_is_named_that_is_below_the_others_by_more_than_their_range(worst, named):
    """The others are 3 nats apart, so that 5 nats more are nothing to speak of."""
    levels = np.array([0.0, -3.0, worst])
    verdict = compare([run("a", levels[:, None] + normal(400))]).loc["a", "verdict"]
    assert ("nats below the others" in verdict) == named


def test_splits_are_put_together_by_pair():
    rng = np.random.default_rng(0)
    levels = {"a": [-10.0, -11.0, -9.0], "b": [-12.0, -12.5, -11.5]}
    tables = [
        compare([run(name, at[split] + rng.normal(0, 0.1, 30), data=f"split {split}") for name, at in levels.items()])
        for split in range(3)
    ]
    tables = [table.assign(table="density, toy") for table in tables]
    across = across_splits(tables)
    scores = np.array([[table.loc[name, "log_evidence"] for table in tables] for name in "ab"])
    np.testing.assert_allclose(across["log_evidence"], scores.mean(1))
    np.testing.assert_allclose(across["split_sd"], scores.std(1, ddof=1))
    paired = scores[1] - scores[0]
    assert across.loc["b", "difference"] == pytest.approx(paired.mean())
    assert across.loc["b", "difference_se"] == pytest.approx(paired.std(ddof=1) * np.sqrt(1 / 3 + 1 / 4))
    assert list(across["best"]) == [3, 0]
    assert list(across["apart"]) == [0, 0]
    assert across.loc["a", "worst"] == min(table.loc["a", "worst"] for table in tables)
