"""Draws from lifted noise have the distributions that they stand for."""

import pyro.distributions as dist
import pytest
import torch

from zoo.noise import Tape


@pytest.mark.parametrize(
    "draw",
    [
        dist.Normal(torch.zeros(3), 2.0),
        dist.Uniform(torch.zeros(3), 2.0),
        dist.Laplace(torch.zeros(3), 2.0),
        dist.Exponential(torch.full((3,), 2.0)),
        dist.LogNormal(torch.zeros(3), 1.0),
    ],
    ids=lambda d: type(d).__name__,
)
def test_the_tape_feeds_draws_of_the_right_distribution(draw):
    from scipy import stats

    generator = torch.Generator().manual_seed(0)
    noise = {
        "normal": torch.randn(30000, generator=generator),
        "uniform": torch.rand(30000, generator=generator),
    }
    with Tape(**noise):
        drawn = draw.rsample((4000,))
    assert stats.kstest(draw.cdf(drawn).flatten().numpy(), "uniform").pvalue > 1e-3
