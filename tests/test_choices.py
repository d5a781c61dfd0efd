"""What validation chooses among the options of a pair, what ArviZ warns of, and both in the report."""

import itertools
import json
import re
import warnings

import arviz_stats
import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from matplotlib.backends.backend_agg import FigureCanvasAgg
from synthetic_runs import replace, synthetic_run

from zoo.comparison import across_splits, cautions, compare, elpd, families, outcomes
from zoo.reporting import choices, report
from zoo.reporting.ink import STYLE

SEEDS = np.array([-0.1, 0.0, 0.1])  # around their mean: a standard deviation of 0.1, a standard error of 0.1 / sqrt(3)


def member(validation, score, pair="gaussian-constrained", data="wine", seeds=SEEDS, **settings):
    """A run of a pair by its validation ELBO and its score, means over seeds and data, and its options."""
    own = {name: settings.pop(name) for name in ("floor", "latent_dim", "real", "prior") if name in settings}
    level = np.linspace(-2, 2, 40)
    tree = synthetic_run(
        pair,
        evidence=np.repeat(score + level[None], len(seeds), axis=0),
        seeds=len(seeds),
        obs=40,
        steps=40,
        images=False,
        data=data,
        extras=(),
        options={"floor": 0.1, "latent_dim": 2} | own,
        **{"bound": 0.0} | settings,
    )
    curve = np.linspace(-9, 0, tree["validation"].sizes["check"])
    elbo = tree["validation"]["elbo"].values
    fixed = curve + validation + np.asarray(seeds)[:, None]
    replace(tree, "validation", "elbo", np.where(np.isfinite(elbo), fixed, np.nan))
    replace(tree, "optimization", "best_step", np.full(len(seeds), tree["validation"]["step"].values[-1]))
    return tree


def by_mass(tree):
    """The run, ranked by masses."""
    tree.attrs["mass_fingerprint"] = "cafe"
    group = tree["heldout"].to_dataset()
    tree["heldout"] = xr.DataTree(group.assign(log_mass=group["log_evidence"] - 30).assign_attrs(mass="binned"))
    return tree


def family(*runs):
    (found,) = families(outcomes(runs))
    return found


def grid():
    """Two floors by three dimensions of the latents; validation is best at another than the test part."""
    told = {(0.1, 2): (-21, -22), (0.1, 8): (-19, -21), (0.1, 32): (-20, -20.5)} | {
        (0.01, 2): (-20.5, -21.5), (0.01, 8): (-17, -18.5), (0.01, 32): (-18, -18)
    }  # fmt: skip
    return [member(*both, floor=floor, latent_dim=latents) for (floor, latents), both in told.items()]


def test_validation_chooses_and_the_test_part_does_not():
    table = compare(grid())
    label = "gaussian-constrained (floor=0.01, latent_dim=8)"
    assert list(table.index[table["chosen"]]) == [label]
    assert table.index[0] == "gaussian-constrained (floor=0.01, latent_dim=32)"
    assert table.loc[label, "verdict"].endswith("; validation chooses it of 6")
    (told,) = table["choice"].unique()
    assert told == (
        "gaussian-constrained: of 6, validation chooses floor=0.01, latent_dim=8, by its ELBO of -17.000 nats ± 0.058 "
        "over 3 seeds (a lower bound on the log evidence, with a gap that may differ between runs). On the test part "
        "it scores -18.50; the best there, floor=0.01, latent_dim=32 with -18.00, chose itself on the test part and is "
        "optimistic."
    )
    assert table.loc[label, "validation"] == pytest.approx(-17)
    assert table.loc[label, "validation_sd"] == pytest.approx(0.1)
    assert set(table["rows"]) == {40}


def test_what_is_best_on_both_parts_is_not_called_optimistic():
    told = family(member(-17, -18, floor=0.1), member(-18, -19, floor=0.01)).statement
    assert told.endswith("On the test part it scores -18.00, the best of them there as well.")
    assert "optimistic" not in told


def test_the_test_part_changes_no_choice():
    rng = np.random.default_rng(0)
    for _ in range(5):
        runs = [member(elbo, rng.normal(-20, 3), latent_dim=i) for i, elbo in enumerate((-3, -1, -2))]
        assert family(*runs).chosen.setting == "latent_dim=1"


def test_the_mean_over_seeds_decides_and_not_the_best_of_them():
    lucky = member(-20, -18, floor=0.5, seeds=(-4.0, 0.0, 4.0))
    assert family(lucky, member(-19, -18)).chosen.setting == "floor=0.1"


def test_the_scored_weights_and_the_scored_seeds_are_asked():
    tree = member(-17, -18, floor=0.5, frozen=(1,))
    other = member(-17.3, -18)
    assert family(tree, other).chosen.setting == "floor=0.5"
    assert outcomes(tree)[0].validation.tolist() == pytest.approx([-17.1, -16.9])
    early = tree["validation"]["step"].values[3]  # as with keep="last", or weights of before a fall
    replace(tree, "optimization", "best_step", np.full(3, early))
    assert outcomes(tree)[0].validation == pytest.approx(tree["validation"]["elbo"].values[[0, 2], 3])
    assert family(tree, other).chosen.setting == "floor=0.1"


@pytest.mark.parametrize(("behind", "tied"), [(0.08, True), (0.083, False)])
def test_a_tie_is_within_the_standard_error_over_seeds(behind, tied):
    found = family(member(-17, -18, floor=0.1), member(-17 - behind, -18, floor=0.01))  # sqrt(2 / 3) / 10 is 0.0816
    assert [run.setting for run in found.tied] == ["floor=0.01"] * tied
    assert ("), tied with floor=0.01. On" in found.statement) is tied


@pytest.mark.parametrize(("behind", "tied"), [(0.009, True), (0.011, False)])
def test_one_seed_leaves_rounding_alone(behind, tied):
    found = family(*(member(-17 - i * behind, -18, floor=0.1 + i, seeds=np.zeros(1)) for i in range(2)))
    assert bool(found.tied) is tied
    assert "nats of one seed (" in found.statement


def test_ties_are_named_up_to_three():
    found = family(*(member(-17 - i / 1000, -18, latent_dim=i) for i in range(6)))
    assert "tied with latent_dim=1, latent_dim=2, latent_dim=3 and 2 more." in found.statement


def test_what_ran_away_is_not_chosen_and_it_is_said_why():
    away = [member(-1, -2, floor=floor, ran_away=True) for floor in (1e-9, 1e-8)]
    found = family(*away, member(-17, -18))
    assert found.chosen.setting == "floor=0.1"
    assert found.best_on_test is found.chosen
    assert "; not floor=1e-09 and floor=1e-08, which ran away: its ELBO depends on when" in found.statement
    none = compare(away)
    assert not none["chosen"].any()
    assert none["choice"].iloc[0].startswith("gaussian-constrained: of 2, validation chooses none; not ")


def test_what_was_still_shrinking_is_not_chosen():
    tree = member(-1, -2, pair="gmm", bound=np.nan, constant=[1], latent_dim=8)
    checks = tree["validation"]["step"].values
    scales = np.full((3, len(checks), 13), 0.5)
    scales[..., 1] = 1 / checks
    replace(tree, "validation", "column_scale", scales)
    found = family(tree, member(-17, -18, pair="gmm", bound=np.nan))
    assert found.chosen.setting == "latent_dim=2"
    assert "not latent_dim=8, which is not settled: its ELBO depends on when" in found.statement


def test_a_run_without_validation_is_not_chosen():
    tree = member(-1, -2, floor=0.5)
    replace(tree, "validation", "elbo", np.full_like(tree["validation"]["elbo"].values, np.nan))
    del (bare := member(-1, -2, floor=0.6))["validation"]
    found = family(tree, bare, member(-17, -18))
    assert found.chosen.setting == "floor=0.1"
    assert "; not floor=0.5 and floor=0.6, which has no validation ELBO" in found.statement


def test_a_run_that_was_not_evaluated_can_be_chosen():
    tree = member(-1, -2, floor=0.5)
    del tree["heldout"]
    found = family(tree, member(-17, -18))
    assert found.chosen.setting == "floor=0.5"
    assert found.statement.endswith("It has no score on the test part.")


def test_the_elbo_of_a_density_whose_mass_is_ranked_says_so():
    runs = [by_mass(member(-3 - i, -5 + i, floor=0.1 + i)) for i in range(2)]
    assert "between runs; of its density, though masses are ranked)" in family(*runs).statement


def test_a_density_that_ran_away_is_left_out_and_its_mass_still_scores():
    found = family(by_mass(member(-1, -2, floor=1e-9, ran_away=True)), by_mass(member(-17, -18)))
    assert found.chosen.setting == "floor=0.1"
    assert found.statement.endswith(
        "On the test part it scores -48.00; the best there, floor=1e-09 with -32.00, chose itself on the test part and "
        "is optimistic."
    )


def test_only_runs_of_one_pair_on_the_same_data_are_related():
    one = member(-17, -18)
    for other in (member(-17, -18), member(-17, -18, pair="gmm", floor=1), member(-17, -18, data="iris", floor=1)):
        assert not families(outcomes([one, other]))
        table = compare([one, other])
        assert table["chosen"].isna().all()
        assert set(table["choice"]) == {""}
        assert not table["verdict"].str.contains("validation").any()
    noisy = [by_mass(member(-17 - i, -18, floor=i, data_fingerprint=str(i))) for i in range(2)]
    assert compare(noisy)["table"].nunique() == 1
    assert not families(outcomes(noisy)), "one table of masses, of data that were made discrete in two ways"
    guides = [one, member(-16, -18, guide="full-rank")]
    assert family(*guides).settings == ("guide",)


def test_an_ensemble_is_no_choice():
    table = compare([member(-17, -18, floor=0.1), member(-18, -19, floor=0.01)], ensembles=True)
    ensembles = table.index.str.contains("ensemble")
    assert ensembles.sum() == 2
    assert table.loc[ensembles, "chosen"].isna().all()
    assert table.loc[ensembles, "validation"].isna().all()
    assert table["chosen"].sum() == 1


def test_splits_count_what_was_chosen():
    tables = [compare([member(-17, -18, floor=0.1), member(v, -19, floor=0.01)]) for v in (-16, -18, -15)]
    assert across_splits(tables)["chosen"].to_dict() == {
        "gaussian-constrained (floor=0.1)": 1,
        "gaussian-constrained (floor=0.01)": 2,
    }


# -- what ArviZ warns of -----------------------------------------------------------------------------------------------


def scored(name, evidence):
    """The least tree that can be ranked, of two seeds that agree."""
    about = {"pair": name, "base_measure": "density", "data": "toy", "data_fingerprint": "f00d"}
    heldout = xr.Dataset({"log_evidence": (("chain", "obs"), np.tile(evidence, (2, 1)))})
    return xr.DataTree.from_dict({"/": xr.Dataset(attrs=about), "heldout": heldout})


def normal(count):
    """Numbers of about mean 0 and standard deviation 1."""
    return np.random.default_rng(5).normal(size=count)


def warned(trees):
    """Whether ArviZ finds that a lead may be one of chance, and its table."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        table = arviz_stats.compare({tree.attrs["pair"]: elpd(tree) for tree in trees})
    return any("due to chance" in str(one.message) for one in caught), table


@pytest.mark.parametrize("count", [11, 12, 20])
def test_selection_among_many_is_judged_as_by_arviz(count):
    found = set()
    for seed in (0, 1, 7):
        rng = np.random.default_rng(seed)
        ahead = np.where(np.arange(count) == 0, seed / 20, 0.0)
        trees = [scored(f"p{i}", rng.normal(ahead[i], 1, 120)) for i in range(count)]
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            said = " ".join(cautions(compare(trees)).get("density, toy", ()))
        by_chance = " nats, no more than the " in said
        assert by_chance is warned(trees)[0]
        assert (f"{count} rows: the best of so many is optimistic" in said) is (count > 11)
        found.add(by_chance)
    assert found == ({False} if count == 11 else {False, True})


def test_the_lead_that_chance_gives_is_that_of_arviz():
    """The lead at which ArviZ stops to warn, found by halving, is the one that is told."""
    level, others = normal(120), np.linspace(-5, 0, 13)

    def trees(lead):
        return [scored(f"p{i}", level + ahead) for i, ahead in enumerate([*others, lead])]

    low, high = 0.0, 40.0
    for _ in range(12):
        middle = (low + high) / 2
        low, high = (middle, high) if warned(trees(middle))[0] else (low, middle)
    said = cautions(compare(trees(low)))["density, toy"][-1]
    lead, limit = map(float, re.search(r"middle one by ([\d.]+) nats, no more than the ([\d.]+) exp", said).groups())
    assert lead == pytest.approx(low - np.sort([*others, low])[::-1][7], abs=0.006)
    assert limit == pytest.approx(lead, abs=0.03)


@pytest.mark.parametrize(
    ("count", "total", "told"),
    [(99, 50, "few"), (99, 3.9, "few"), (100, 50, ""), (100, 4.1, ""), (100, 3.9, "alike"), (100, 0, "")],
)
def test_few_data_and_rows_alike_are_those_of_arviz(count, total, told):
    first = np.random.default_rng(0).normal(-9, 1, count)
    trees = [scored("a", first), scored("b", first - total / count)]
    said = cautions(compare(trees)).get("density, toy", [])
    assert len(said) == bool(told)
    assert (f"{count} test data: with fewer than 100, " in "".join(said)) is (told == "few")
    assert ("b: less than 4 nats from the first over all 100 test data" in "".join(said)) is (told == "alike")
    table = warned(trees)[1]
    if "diag_diff" in table:  # since ArviZ 1.2
        theirs = {"few": "N < 100", "alike": "|elpd_diff| < 4", "": ""}
        assert table.loc["b", "diag_diff"] == theirs[told]


def test_a_row_alone_or_apart_needs_no_caution():
    few = np.full(9, -1.0)
    assert cautions(compare(scored("a", few))) == {}
    assert cautions(compare([scored("a", few), scored("b", np.full(9, np.nan))])) == {}
    assert [len(texts) for texts in cautions(compare([scored("a", few), scored("b", few - 1)])).values()] == [1]


# -- the report --------------------------------------------------------------------------------------------------------


def drawn(found, setting):
    """A figure laid out, and its note."""
    with mpl.rc_context(STYLE):
        figure, note = choices.against(found, setting)
        FigureCanvasAgg(figure).draw()
    return figure, note


def test_both_scores_are_drawn_against_each_option():
    found = family(*grid())
    assert found.settings == ("floor", "latent_dim")
    figure, note = drawn(found, "latent_dim")
    upper, lower = figure.axes
    for ax, expected in (
        (upper, {"floor=0.1": [-22, -21, -20.5], "floor=0.01": [-21.5, -18.5, -18]}),
        (lower, {"floor=0.1": [-21, -19, -20], "floor=0.01": [-20.5, -17, -18]}),
    ):
        lines = {box.get_label(): box.lines[0] for box in ax.containers}
        assert lines.keys() == expected.keys()
        for name, values in expected.items():
            assert lines[name].get_xdata().tolist() == [2, 8, 32]
            np.testing.assert_allclose(lines[name].get_ydata(), values)
    (ring,) = (line for line in lower.lines if line.get_markersize() == 10)
    assert (ring.get_xdata().item(), ring.get_ydata().item()) == (8, pytest.approx(-17))
    assert lower.get_xscale() == "log"
    assert [label.get_text() for label in lower.get_xticklabels()] == ["2", "8", "32"]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["floor=0.01", "floor=0.1"]
    assert note.startswith("Nats per datum; the ring is what validation chooses; bars are one standard error")


def test_bars_are_the_error_of_the_difference_to_the_chosen_one():
    base, other = np.random.default_rng(0).normal(-9, [[1.0], [2.0]], (2, 40))
    runs = [member(-9 - i, 0, floor=0.1 + i) for i in range(2)]
    for tree, values in zip(runs, (base, other), strict=True):
        replace(tree, "heldout", "log_evidence", np.repeat(values[None], 3, axis=0))
    figure, _ = drawn(family(*runs), "floor")
    (bars,) = figure.axes[0].containers[0].lines[2]
    lengths = [np.ptp(segment[:, 1]) / 2 for segment in bars.get_segments()]
    assert lengths == pytest.approx([0, np.std(base - other, ddof=1) / np.sqrt(40)])
    (bars,) = figure.axes[1].containers[0].lines[2]
    assert [np.ptp(segment[:, 1]) / 2 for segment in bars.get_segments()] == pytest.approx([0.1 / np.sqrt(3)] * 2)


@pytest.mark.parametrize(
    ("values", "numeric", "log"),
    [
        ([0.1, 0.01], True, True),
        ([2, 3, 4], True, False),
        ([0, 1, 100], True, False),
        ([1, 2.5, 9], True, False),
        (["constrained", "student-t"], False, False),
        ([None, 0.1], False, False),
        ([True, False], False, False),
        ([[64], [64, 32]], False, False),
    ],
)
def test_numbers_stand_where_they_are_and_all_else_side_by_side(values, numeric, log):
    axis = choices.Axis.of(values)
    assert (axis.numeric, axis.log) == (numeric, log)
    assert list(axis.places.values()) == ([float(v) for v in sorted(values)] if numeric else [0, 1][: len(values)])


@pytest.mark.parametrize(
    "values", [[1, 2, 3, 1000], [0, 1, 2, 3, 100], [1e-9, 2e-9, 1e-3], list(range(1, 30)), ["constrained", "student-t"]]
)
def test_tick_labels_do_not_touch(values):
    named = "real" if isinstance(values[0], str) else "floor"
    found = family(*(member(-17 - i, -18, **{named: value}) for i, value in enumerate(values)))
    figure, _ = drawn(found, named)
    renderer = FigureCanvasAgg(figure).get_renderer()
    labels = [label for label in figure.axes[1].get_xticklabels() if label.get_text()]
    boxes = [label.get_window_extent(renderer) for label in labels]
    assert len(boxes) > 1
    assert all(right.x0 - left.x1 >= 3 for left, right in itertools.pairwise(boxes))


def test_long_names_are_turned():
    long = ["normal", "vamp[components=50]", "mixture[components=10]"]
    figure, _ = drawn(family(*(member(-17 - i, -18, prior=prior) for i, prior in enumerate(long))), "prior")
    assert {label.get_rotation() for label in figure.axes[1].get_xticklabels()} == {20}
    figure, _ = drawn(family(*(member(-17 - i, -18, prior=prior) for i, prior in enumerate("abc"))), "prior")
    assert {label.get_rotation() for label in figure.axes[1].get_xticklabels()} == {0}


def test_more_lines_than_colours_are_told():
    found = family(*(member(-17 - i, -18, floor=i % 2, latent_dim=i // 2) for i in range(20)))
    figure, note = drawn(found, "floor")
    assert len(figure.axes[0].containers) == 8
    assert "the best 8 of 10 combinations" in note


@pytest.mark.usefixtures("blank_pictures")
def test_the_report_says_and_draws_what_validation_chooses(tmp_path):
    runs = [*grid()[:3], member(-1, -2, floor=0.001, ran_away=True), synthetic_run("gmm", steps=40, obs=20, extras=())]
    failed = {"gaussian-constrained[floor=-1]": "OptionError: no", "gmm": "no"}
    page = report(runs, tmp_path, failures=failed).read_text(encoding="utf-8")
    words = " ".join(re.sub(r"<[^>]+>", " ", page).split())
    assert 'id="options"' in page
    assert 'href="#options"' in page
    assert "of 4, validation chooses floor=0.1, latent_dim=8, by its ELBO of −19.000 nats" in words
    assert "not drawn: floor=0.001, latent_dim=2." in words
    assert "Failed, and not among them: gaussian-constrained[floor=-1] ." in words.replace("].", "] .")
    assert re.search(r"floor=0\.1, latent_dim=8\) −19\.000 ± 0\.058 −21\.00 ± 0\.\d+ chosen", words)
    assert "left out" in words
    assert "40 test data: with fewer than 100" in words
    assert {path.name for path in (tmp_path / "figures").glob("options-*.svg")} == {
        "options-1-1-floor.svg",
        "options-1-2-latent-dim.svg",
    }
    again = report(runs[-1], tmp_path).read_text(encoding="utf-8")
    assert 'id="options"' not in again
    assert not list((tmp_path / "figures").glob("options-*"))


@pytest.mark.usefixtures("blank_pictures")
def test_a_pair_that_always_ran_away_is_told_and_not_drawn(tmp_path):
    page = report([member(-1, -2, floor=floor, ran_away=True) for floor in (0.1, 1.0)], tmp_path).read_text()
    assert "validation chooses none; not floor=0.1 and floor=1.0, which ran away" in page
    assert not list((tmp_path / "figures").glob("options-*"))


def test_a_table_is_written_as_json():
    rows = json.loads(compare(grid()).reset_index().to_json(orient="records"))
    assert [row["chosen"] for row in rows].count(True) == 1
    assert pd.isna(compare(grid()[0])["chosen"].iloc[0])
