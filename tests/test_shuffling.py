"""An order of many rows is a permutation, and one that chance might have drawn."""

import numpy as np
import pytest
from scipy import stats

from zoo.shuffling import Shuffled


@pytest.mark.parametrize("n", [1, 2, 3, 10, 97, 65_536, 65_537])
def test_every_number_comes_once_in_pieces_as_at_once(n):
    order = Shuffled(n, key=5)
    at_once = order[:n].tolist()
    assert sorted(at_once) == list(range(n))
    step = -(-n // 7)
    assert [number for start in range(0, n, step) for number in order[start : start + step].tolist()] == at_once


def test_a_key_has_an_order_of_its_own_and_chance_would_have_drawn_it():
    n = 97
    pairs = np.array([Shuffled(n, key)[40:42].numpy() for key in range(10_000)])
    apart = (pairs[:, 0] - pairs[:, 1]) % n
    for found in (pairs[:, 0], pairs[:, 1], apart):
        counts = np.bincount(found, minlength=n)
        assert stats.chisquare(counts[counts > 0]).pvalue > 0.01
    assert (apart != 0).all() and len(np.unique(apart)) == n - 1
    long = Shuffled(100_000, key=3)[:100_000].numpy()
    for other in (np.arange(100_000), np.roll(long, 1), Shuffled(100_000, key=4)[:100_000].numpy()):
        assert stats.kendalltau(long, other).pvalue > 0.01
