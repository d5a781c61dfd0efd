"""The sentence that says which pair to use, against tables whose answer is plain."""

import numpy as np
import pytest
from synthetic_runs import replace, synthetic_run

import zoo
from zoo.comparison import answer_over, contenders, outcomes

ROWS = {"steps": 40, "obs": 200, "seeds": 2, "images": False, "columns": ["a", "b"], "extras": (), "data": "toy"}


def run(name, mean, spread=0.0, **more):
    """A run whose rows score around a mean, which differ from those of another run by noise alone."""
    level = -np.random.default_rng(0).gumbel(0, 3, 200) + mean
    noise = np.random.default_rng(len(name)).normal(0, spread, 200)
    return synthetic_run(name, evidence=np.stack([level + noise + 0.01, level + noise - 0.01]), **ROWS | more)


def recommended(*runs, **more):
    (told,) = zoo.answer(runs, **more).recommendations
    return told


def test_the_best_is_named_with_its_lead_over_the_next():
    told = recommended(run("third", -9), run("best", -5), run("next", -7.6, 0.1))
    assert told.sentence.startswith("Use best: it predicts held-out rows of toy best, by 2.59")
    assert told.sentence.endswith("nats a row over the next, next.")
    assert [why.pairs for why in told.worse] == [("next",), ("third",)]
    assert not told.close and not told.avoid
    assert "200 held-out rows of one split, 2 seeds a pair." in told.certainty


def test_pairs_that_the_data_do_not_tell_apart_are_both_named():
    told = recommended(run("a", -5, 1.0), run("other", -5.01, 1.0), run("far", -9))
    assert {told.best[0].pairs[0], told.close[0].pairs[0]} == {"a", "other"}
    assert told.sentence.endswith("better than the other, and the data do not tell them apart.")


def test_what_scores_less_than_a_worse_pair_is_not_recommended():
    level = -np.random.default_rng(0).gumbel(0, 3, 200)
    uncertain = synthetic_run("wild", evidence=np.stack([level - 5, level - 45]), **ROWS)
    told = recommended(run("best", -5), uncertain, run("next", -7.6, 0.1))
    assert told.sentence.startswith("Use best: it predicts held-out rows of toy best, by 2.59")
    assert told.sentence.endswith("nats a row over next. Nothing can be said of wild, whose score is too uncertain.")
    assert [why.pairs for why in told.close] == [("wild",)]


def test_one_row_of_a_worse_pair_makes_no_good_second_uncertain():
    """The worse pair is behind on all rows but one, which gives it the higher mean."""
    rng, level = np.random.default_rng(0), -np.random.default_rng(0).gumbel(0, 3, 200)
    told = recommended(
        synthetic_run("best", evidence=np.stack([level] * 2), **ROWS),
        synthetic_run("second", evidence=np.stack([level - 0.04 + rng.normal(0, 0.5, 200)] * 2), **ROWS),
        synthetic_run("worse", evidence=np.stack([level - 0.1 + 18.0 * (np.arange(200) == 7)] * 2), **ROWS),
    )
    assert "too uncertain" not in told.sentence and "second" in told.sentence


def test_a_pair_that_ran_away_is_avoided_however_high_it_scores():
    told = recommended(run("sound-constrained", -8), run("learned", -2, ran_away=True))
    assert told.best[0].pairs == ("sound-constrained",)
    assert told.avoid[0].pairs == ("learned",)
    assert told.sentences[0] == "Use sound-constrained: it is the only pair on toy whose score can be relied on."
    assert told.sentences[1].startswith("learned scores higher but is ill-posed here and ran away")


def test_where_all_ran_away_none_is_recommended():
    told = recommended(run("a", -2, ran_away=True), run("bb", -3, ran_away=True))
    assert told.sentence.startswith("Use none of these on toy: a and bb are ill-posed here and ran away")
    assert told.sentence.endswith("Try gaussian-constrained or gaussian-binned instead.")
    assert told.best == ()


def test_one_pair_has_nothing_to_be_compared_with():
    assert (
        recommended(run("a", -2)).sentence == "a is the only pair scored on toy: there is nothing to compare it with."
    )


def test_what_has_no_score_could_not_be_judged():
    told = zoo.answer(synthetic_run("a", evaluated=False), failures={"b": "RuntimeError: no.\nmore"})
    assert str(told) == "No pair has a score yet.\n\nCould not be judged: a, not evaluated; b, RuntimeError: no."


def test_probabilities_come_before_densities():
    told = zoo.answer([run("a", -2), synthetic_run("bernoulli", base_measure="mass", **ROWS | {"data": "x"})])
    assert [each.table.partition(",")[0] for each in told.recommendations] == ["mass", "density"]


def test_a_pair_that_was_still_improving_is_undertrained():
    rising = run("a", -2)
    elbo = rising["validation"]["elbo"]
    replace(rising, "validation", "elbo", np.broadcast_to(np.linspace(-50, -10, elbo.sizes["check"]), elbo.shape))
    told = recommended(rising, run("bb", -9))
    assert "a is undertrained: train it longer before you rely on it" in told.sentence
    assert "undertrained: still improving when training ended" in told.best[0].text
    assert str(told).count("undertrained: train it longer") == 1 and "undertrained" not in told.certainty


def test_one_row_that_decides_the_mean_is_named():
    good, wild = run("good", -5), run("wild", -4.9)
    evidence = wild["heldout"]["log_evidence"].values.copy()
    evidence[:, 7] -= 900
    replace(wild, "heldout", "log_evidence", evidence)
    told = recommended(good, wild)
    assert "wild predicts 199 of 200 rows better; row 7 alone puts good first." in told.sentence


def test_what_is_worse_on_most_rows_is_told_by_them():
    ahead, behind = run("ahead", -5, 0.01), run("behind", -5.6)
    evidence = behind["heldout"]["log_evidence"].values.copy()
    evidence[:, 7] += 100
    replace(behind, "heldout", "log_evidence", evidence)
    told = recommended(ahead, behind)
    assert told.sentence.startswith("Use ahead: it predicts 199 of 200 held-out rows of toy better than the next, behi")
    assert told.worse[0].text.startswith("worse on 199 of 200 rows, by 0.599")
    assert told.worse[0].text.endswith("in the trimmed mean")


def test_pairs_without_a_common_split_are_not_compared():
    splits = [contenders(outcomes([run("a", -5)])), contenders(outcomes([run("bb", -6)]))]
    (told,) = answer_over(splits, {}).recommendations
    assert not told.close and not told.worse
    assert told.avoid[0].text == "not comparable with a: no split has a score of both"


def test_several_splits_are_paired_split_by_split():
    splits = [contenders(outcomes([run("a", -5 + shift), run("bb", -6 + shift)])) for shift in (0.0, 3.0, -3.0)]
    (told,) = answer_over(splits, {}).recommendations
    assert told.sentence.startswith("Use a: it predicts held-out rows of toy best, by 1.0")
    assert "3 splits with 200 held-out rows each, 2 seeds a pair; a is first on 3 of them." in told.certainty


@pytest.mark.parametrize("count", [2, 6])
def test_every_pair_has_a_line(count):
    told = recommended(*(run(f"pair{'x' * i}", -5 - i) for i in range(count)))
    named = [pair for reasons in told.lines.values() for why in reasons for pair in why.pairs]
    assert sorted(named) == [f"pair{'x' * i}" for i in range(count)]
