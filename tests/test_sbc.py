"""Simulation-based calibration: uniform ranks for the exact posterior, and others for one narrower or moved."""

import pytest
from programs import Perturbed
from scipy import stats

import zoo
from zoo.errors import Unknown
from zoo.evaluation.draws import RANKED, prior_sbc


class Guided:
    """A run whose guide is the exact posterior, made narrower or moved."""

    def __init__(self, run, **how):
        self.pair, self.run, self.how = run.pair, run, how

    def each_seed(self, function, *stream):
        return self.run.each_seed(lambda model, _: function(model, Perturbed(model, **self.how)), *stream)


@pytest.mark.parametrize(("how", "uniform"), [({}, True), ({"spread": 0.7}, False), ({"shift": 0.3}, False)])
def test_the_ranks_of_the_exact_posterior_are_uniform_and_those_of_another_are_not(iris, how, uniform):
    pair = zoo.create("linear-shared", iris, latent_dim=2)
    run = zoo.fit(pair, iris, seeds=1, steps=2, compile="off", progress=False)
    ranks = prior_sbc(Guided(run, **how), 1000)["z"]
    assert ranks.dims == ("chain", "draw", "latent") and ranks.shape == (1, 1000, 2)
    assert ranks.min() >= 0 and ranks.max() <= RANKED
    p = stats.kstest((ranks.values.ravel() + 0.5) / (RANKED + 1), "uniform").pvalue
    assert p > 0.01 if uniform else p < 1e-6


def test_a_pair_without_real_latents_has_none(iris):
    run = zoo.fit(zoo.create("gmm", iris, components=2), iris, seeds=1, steps=2, compile="off", progress=False)
    with pytest.raises(Unknown, match="this pair has component"):
        prior_sbc(run, 10)
