"""Rounds of training, and when another is worth its steps."""

import numpy as np
import pytest

from zoo.comparison.improvement import ended_early, goes_on
from zoo.rounds import AUTO_STEPS, LIKELY_STEPS, WORTH, round_of, still_improving

STEPS = np.arange(40, 2001, 40)
DONE = STEPS / 2000


def cosine(gain, ends=0.0, at=0.5):
    """A validation ELBO that gains so much, half of it in the later half of the steps, flat where it ends."""
    return gain * np.sin(np.pi / 2 * DONE) - ends * np.clip(DONE - at, 0, None) / (1 - at)


def test_rounds_follow_on_each_other_and_double():
    rounds = [round_of(step) for step in range(AUTO_STEPS)]
    starts = sorted({(r.number, r.start, r.stop) for r in rounds})
    assert starts == [(1, 0, 1000), (2, 1000, 3000), (3, 3000, 7000), (4, 7000, 15000), (5, 15000, 31000)]
    assert all(r.start <= step < r.stop for step, r in enumerate(rounds))
    assert AUTO_STEPS == 31_000 and LIKELY_STEPS in {r.stop for r in rounds}


@pytest.mark.parametrize(
    ("before", "since", "goes_on"),
    [
        ([], [-9.0, -5.0], True),  # the first round
        ([], [-5.0, -9.0], False),  # it overfits already
        ([-9.0, -5.0], [-6.0, -4.0], True),
        ([-9.0, -5.0], [-6.0, -5.0 + WORTH / 2], False),  # the next would gain next to nothing
        ([-9.0, -5.0], [-4.0, -4.0 - WORTH / 2], True),  # the last checks differ by noise
        ([-9.0, -5.0], [-4.0, -4.5], False),  # at a rate of nothing it is below what it was: it overfits
        ([-5.0, -9.0], [-7.0, -6.0], False),  # it recovers from overfitting, and no more
        ([np.nan], [-4.0], True),
        ([-5.0], [np.nan, np.nan], False),
        ([-5.0], [-4.0, -np.inf], False),
        ([-np.inf], [np.nan], False),
    ],
)
def test_a_seed_goes_on_while_it_gains_and_ends_at_its_best(before, since, goes_on):
    assert still_improving(np.array([before]), np.array([since])).tolist() == [goes_on]


def test_the_flat_end_of_a_cosine_does_not_hide_that_much_was_gained():
    rising, settled = cosine(10), cosine(WORTH)
    assert np.ptp(rising[-5:]) < WORTH < rising[-1] - rising[len(rising) // 2]
    assert ended_early(STEPS, np.array([rising, settled])).tolist() == [True, False]


def test_a_pair_that_overfits_did_not_end_early():
    assert ended_early(STEPS, cosine(10, ends=3)[None]).tolist() == [False]
    assert ended_early(STEPS, cosine(10, ends=30, at=0.05)[None]).tolist() == [False]
    assert ended_early(STEPS, np.full((1, 50), np.nan)).tolist() == [False]


def test_a_seed_that_was_stopped_is_judged_by_the_steps_it_took():
    stopped_rising, stopped_settled = cosine(10), np.minimum(cosine(10), cosine(10)[8])
    stopped_rising[20:] = stopped_settled[30:] = np.nan
    assert ended_early(STEPS, np.array([stopped_rising, stopped_settled])).tolist() == [True, False]


def test_seeds_that_broke_or_settled_did_not_end_early():
    elbo = np.array([cosine(10)] * 3)
    assert ended_early(STEPS, elbo, broken=np.array([True, False, False])).tolist() == [False, True, True]
    settled_at = np.array([-1, -1, 2000])
    assert ended_early(STEPS, elbo, settled_at=settled_at, broken=[True, False, False]).tolist() == [False, True, False]


def test_the_command_that_goes_on_is_one_that_trains_for_longer():
    attrs = {"steps": 2000, "schedule": "cosine", "patience": "null"}
    for changed, command in (
        ({}, '--steps auto, or steps="auto" in Python'),
        ({"steps": "auto"}, "--steps 62000, or steps=62000 in Python"),
        ({"steps": 40_000}, "--steps 80000, or steps=80000 in Python"),
        ({"schedule": "constant"}, "--steps 4000, or steps=4000 in Python"),
        ({"patience": 5}, "--steps 4000, or steps=4000 in Python"),
        ({"interrupted_at": 900}, "zoo train --resume RUN continues"),
    ):
        assert goes_on(attrs | changed) == command
